"""Integer families: fixed-point tables against many digits, cumulative tables against big integers and the float families."""

from __future__ import annotations

import math
from fractions import Fraction

import mpmath
import numpy as np
import pytest
import torch
from torch import Tensor

from ancestral.families import (
    Bernoulli,
    Binned,
    Categorical,
    Continuous,
    Discrete,
    EqualMassBins,
    Integer,
    IntegerBernoulli,
    IntegerBins,
    IntegerCategorical,
    Logistic,
    LogisticMixture,
    Normal,
    NormalMixture,
    fixed,
)
from ancestral.symbols import DataError

T = 2**24
FLOAT: dict[str, Discrete] = {
    "bernoulli": Bernoulli(),
    "categorical 2": Categorical(2),
    "categorical 17": Categorical(17),
    "categorical 256": Categorical(256),
    "logistic 2": Logistic(2),
    "logistic 17": Logistic(17),
    "logistic 256": Logistic(256),
    "logistic mixture": LogisticMixture(256, components=5),
    "one logistic": LogisticMixture(17, components=1),
    "binned normal": Binned(Normal(), 64),
    "binned mixture": Binned(NormalMixture(3), 33, low=-2.0, high=3.0),
}
TABLES = {
    "exponential": (fixed.exponential, "3e3a8ed88feeb15d"),
    "inverse_scale": (fixed.inverse_scale, "8f9d278d0d8994e0"),
    "logistic": (fixed.logistic, "16ad0c4308951a8a"),
    "normal": (fixed.normal, "a5fb28e1709a13b3"),
}


@pytest.fixture(params=FLOAT)
def family(request: pytest.FixtureRequest) -> Discrete:
    return FLOAT[request.param]


def moderate(twin: Integer, n: int = 200) -> Tensor:
    """Parameters of about one, as integers."""
    return (torch.randn(n, twin.size) * 2.0 ** torch.tensor(twin.fractions)).long()


def cruel(twin: Integer, n: int = 100) -> Tensor:
    """Parameters all over 16 bits, and rows of nothing but extremes: all equal, one dominating, one out of all proportion."""
    extremes = torch.tensor([-(2**15), -1, 0, 1, 2**15 - 1])
    anywhere = torch.randint(-(2**15), 2**15, (n, twin.size))
    corners = extremes[torch.randint(5, (n, twin.size))]
    equal = extremes.unsqueeze(-1).expand(-1, twin.size)
    lone = torch.full((4, twin.size), -(2**15))
    lone[[0, 1], [0, -1]] = 2**15 - 1
    lone[2:] = 2**15 - 1
    lone[[2, 3], [0, -1]] = -(2**15)
    return torch.cat([anywhere, corners, equal, lone, moderate(twin, n)])


# Fixed-point functions


def nearest(values: list[mpmath.mpf]) -> list[int]:
    return [int(mpmath.floor(value + mpmath.mpf(0.5))) for value in values]


@pytest.mark.parametrize("name", TABLES)
def test_tables_are_the_nearest_integers_in_many_digits(name: str) -> None:
    with mpmath.workdps(30):
        expected = {
            "exponential": lambda i: T * mpmath.exp(mpmath.mpf(-i) / 1024),
            "inverse_scale": lambda i: 4096 * mpmath.exp(7 - mpmath.mpf(i) / 1024),
            "logistic": lambda i: T / (1 + mpmath.exp(20 - mpmath.mpf(i) / 128)),
            "normal": lambda i: T * mpmath.ncdf(mpmath.mpf(i) / 128 - mpmath.mpf(6.5)),
        }[name]
        table = TABLES[name][0]()
        assert table.tolist() == nearest([expected(i) for i in range(len(table))])
    ends = {"exponential": [T, 0], "inverse_scale": [4491809, 10], "logistic": [0, T], "normal": [0, T]}
    assert [table[0], table[-1]] == ends[name]


@pytest.mark.parametrize("name", TABLES)
def test_checksums_are_pinned(name: str) -> None:
    """Whoever changes one of these makes every file that exists unreadable."""
    make, digits = TABLES[name]
    assert fixed.checksum(make()) == digits


def test_checksums_of_edges_are_pinned() -> None:
    assert fixed.checksum(fixed.edges(256, -1.0, 1.0)) == "31927ca959a06432"
    assert fixed.checksum(fixed.edges(17, -0.3, 2.5)) == "6b366acb2137d05b"


@pytest.mark.parametrize(("levels", "low", "high"), [(2, -1.0, 1.0), (3, -1.0, 1.0), (256, -1.0, 1.0), (17, -0.3, 2.5)])
def test_edges_are_those_of_the_float_families(levels: int, low: float, high: float) -> None:
    first, width = Fraction(low), (Fraction(high) - Fraction(low)) / (levels - 1)
    exact = [2**20 * (first + (2 * j - 1) * width / 2) for j in range(1, levels)]
    assert fixed.edges(levels, low, high).tolist() == [math.floor(edge + Fraction(1, 2)) for edge in exact]
    if (low, high) == (-1.0, 1.0):
        assert exact == [2**20 * Fraction(2 * j - levels, levels - 1) for j in range(1, levels)]


def test_a_table_that_machines_could_disagree_about_is_refused() -> None:
    assert fixed.rounded(np.array([0.2, 1.5 + 2e-7, -0.7])).tolist() == [0, 2, -1]
    with pytest.raises(ArithmeticError, match=r"entry 1 .* change the grid"):
        fixed.rounded(np.array([0.2, 1.5 + 5e-8, -0.7]))


def test_tables_cannot_be_written_to() -> None:
    with pytest.raises(ValueError, match="read-only"):
        fixed.logistic()[0] = 1


@pytest.mark.parametrize(("curve", "limit"), [(fixed.logistic, 20.0), (fixed.normal, 6.5)])
def test_interpolation_never_decreases_and_is_symmetric(curve: object, limit: float) -> None:
    table = torch.tensor(curve(), dtype=torch.long)  # type: ignore[operator]
    argument = torch.arange(-(int(limit) + 2) << 16, (int(limit) + 2) << 16, 5)
    value = fixed.interpolate(table, argument)
    assert (value.diff() >= 0).all() and value.min() == 0 and value.max() == T
    assert ((value + fixed.interpolate(table, -argument) - T).abs() <= 1).all()
    exact = torch.sigmoid(argument / 2**16) if limit == 20.0 else torch.special.ndtr(argument / 2**16)
    assert (value / T - exact).abs().max() < 2e-6  # h^2 / 8 times the largest curvature, 0.24
    at_nodes = fixed.interpolate(table, torch.arange(-(len(table) // 2), len(table) // 2 + 1) << 9)
    assert torch.equal(at_nodes, table)
    assert fixed.interpolate(table, torch.tensor([-(2**50), 2**50])).tolist() == [0, T]


# Every integer family


def test_tables_increase_strictly_between_two_free_slots(family: Discrete) -> None:
    twin = family.integer()
    table = twin.cumulative(cruel(twin))
    assert table.dtype == torch.long and table.shape[-1] == twin.levels + 1
    assert (table[:, 0] == 1).all() and (table[:, -1] == T - 1).all() and (table.diff(dim=-1) >= 1).all()


def test_interval_is_two_entries_of_the_table(family: Discrete) -> None:
    twin = family.integer()
    rows = cruel(twin).unsqueeze(1).expand(-1, 5, -1)
    symbols = torch.randint(twin.levels, rows.shape[:-1])
    symbols[:, 0], symbols[:, 1] = 0, twin.levels - 1
    table = twin.cumulative(rows)
    start, frequency = twin.interval(rows, symbols)
    assert torch.equal(start, table.gather(-1, symbols.unsqueeze(-1)).squeeze(-1))
    assert torch.equal(start + frequency, table.gather(-1, symbols.unsqueeze(-1) + 1).squeeze(-1))
    assert torch.equal(twin.log_prob(rows, symbols), torch.log(frequency / T))


def test_symbol_inverts_interval(family: Discrete) -> None:
    twin = family.integer()
    rows = cruel(twin, 20).unsqueeze(1).expand(-1, twin.levels, -1)
    symbols = torch.arange(twin.levels).expand(len(rows), -1)
    start, frequency = twin.interval(rows, symbols)
    for slot in (start, start + frequency - 1, start + frequency // 2):
        assert torch.equal(twin.symbol(rows, slot), symbols)
    for slot, symbol in ((0, 0), (T - 1, twin.levels - 1)):
        assert (twin.symbol(rows[:, 0], torch.full((len(rows),), slot)) == symbol).all()


def test_any_batch_shape_and_integer_type(family: Discrete) -> None:
    twin = family.integer()
    rows = cruel(twin)[:24]
    symbols, slots = torch.randint(twin.levels, (24,)), torch.randint(T, (24,))
    grid = rows.to(torch.int16).view(2, 3, 4, -1)
    assert torch.equal(twin.cumulative(grid).flatten(0, 2), twin.cumulative(rows))
    start, frequency = twin.interval(grid, symbols.to(torch.uint8).view(2, 3, 4))
    assert torch.equal(torch.stack([start, frequency]).flatten(1), torch.stack(twin.interval(rows, symbols)))
    found = twin.symbol(grid.int(), slots.int().view(2, 3, 4))
    assert found.dtype == torch.long and torch.equal(found.flatten(), twin.symbol(rows, slots))
    assert torch.equal(twin.cumulative(rows[7]), twin.cumulative(rows)[7])
    assert twin.symbol(rows[7], slots[7]) == twin.symbol(rows, slots)[7]


# Against big integers


def curve_value(table: list[int], argument: int) -> int:
    cell, rest = divmod(argument, 512)
    cell += len(table) // 2
    if cell < 0:
        return 0
    return T if cell >= len(table) - 1 else table[cell] + (table[cell + 1] - table[cell]) * rest // 512


def weight(logit: int, largest: int) -> int:
    table = fixed.exponential().tolist()
    return table[largest - logit] if largest - logit < len(table) else 0


def oracle(twin: Integer, row: list[int]) -> list[int]:
    """The table in Python's integers, one entry after the other, from the rule in words."""
    if isinstance(twin, IntegerBernoulli):
        below, total = [curve_value(fixed.logistic().tolist(), -row[0] * 64)], T
    elif isinstance(twin, IntegerCategorical):
        shares = [weight(logit, max(row)) for logit in row]
        below, total = [sum(shares[:j]) for j in range(1, twin.levels)], sum(shares)
    else:
        below, total = oracle_bins(twin, row)
    rate = (T - 2 - twin.levels) * 2**30 // total
    return [1, *(1 + j + share * rate // 2**30 for j, share in enumerate(below, 1)), T - 1]


def oracle_bins(twin: Integer, row: list[int]) -> tuple[list[int], int]:
    assert isinstance(twin, IntegerBins)
    k = twin.components or 1
    logits, means, log_scales = ([0] * (3 * k - len(row)) + row)[:k], row[-2 * k : -k], row[-k:]
    curve = (fixed.logistic() if twin.curve == "logistic" else fixed.normal()).tolist()
    scales = fixed.inverse_scale().tolist()
    shares = [weight(logit, max(logits)) for logit in logits]
    inverse = [scales[min(max(s, -7 * 1024), 6 * 1024) + 7 * 1024] for s in log_scales]
    below = []
    for edge in fixed.edges(twin.levels, twin.low, twin.high).tolist():
        arguments = [(edge - mean * 256) * scale // 2**16 for mean, scale in zip(means, inverse, strict=True)]
        below.append(sum(e * curve_value(curve, x) for e, x in zip(shares, arguments, strict=True)) // T)
    return below, sum(shares)


def test_tables_follow_their_rule_in_big_integers(family: Discrete) -> None:
    twin = family.integer()
    rows = torch.cat([cruel(twin)[torch.randperm(309)[:8]], moderate(twin, 4)])
    assert twin.cumulative(rows).tolist() == [oracle(twin, row) for row in rows.tolist()]


def test_nothing_overflows_at_the_largest_sizes() -> None:
    flat = torch.zeros(1024, dtype=torch.long)
    assert IntegerCategorical(1024).cumulative(flat).tolist() == oracle(IntegerCategorical(1024), flat.tolist())
    mixture = IntegerBins("normal", 3, components=1024, low=-8.0, high=8.0)
    for mean in (-(2**15), 2**15 - 1):
        row = torch.tensor([2**15 - 1, mean, -(2**15)]).repeat_interleave(1024)
        assert mixture.cumulative(row).tolist() == oracle(mixture, row.tolist())
    wide = IntegerBins("logistic", 2**16).cumulative(torch.tensor([-5, -1000]))
    assert wide[0] == 1 and wide[-1] == T - 1 and wide.diff().min() >= 1


# Against the float families


def divergence(family: Discrete, rows: Tensor) -> Tensor:
    """(n,) bits a symbol that the integer table costs where the float family with the same parameters is right."""
    twin = family.integer()
    log_p = family.log_pmf(rows / 2.0 ** torch.tensor(twin.fractions))
    log_q = torch.log(twin.cumulative(rows).diff(dim=-1) / T)
    return (log_p.exp() * (log_p - log_q)).sum(-1) / math.log(2)


def leak(levels: int) -> float:
    """Bits that the free slots cost, and one slot for every symbol."""
    return -math.log2(1 - (levels + 2) / T)


def test_tables_cost_next_to_nothing(family: Discrete) -> None:
    twin = family.integer()
    cost = divergence(family, moderate(twin))
    assert (cost > 0).all() and cost.max() < leak(twin.levels) + 1e-5


@pytest.mark.parametrize("make", [Logistic, lambda levels: Binned(Normal(), levels)], ids=["logistic", "normal"])
@pytest.mark.parametrize("levels", [2, 17, 256])
def test_both_tails_cost_next_to_nothing(make: type[Logistic], levels: int) -> None:
    """Means from far below to far above all symbols, scales from much less than a bin to much more than all of them."""
    means = torch.linspace(-8, 7.99, 41) * 2**12
    for log_scale in (-7.0, -6.3, -5.0, -4.0, -2.0, 0.0, 1.0):
        rows = torch.stack([means, torch.full((41,), log_scale * 1024)], -1).long()
        assert divergence(make(levels), rows).max() < leak(levels) + 5e-6
        mirrored = torch.stack([-rows[:, 0], rows[:, 1]], -1)
        there, back = (make(levels).integer().cumulative(each).diff(dim=-1) for each in (rows, mirrored))
        assert (there - back.flip(-1)).abs().max() <= 105  # arguments round down to 2^-16, and curves rise by at most 0.4


def test_bernoulli_costs_next_to_nothing_in_both_tails() -> None:
    logits = torch.arange(-(2**15), 2**15, 37).unsqueeze(-1)
    assert divergence(Bernoulli(), logits).max() < leak(2) + 1e-6
    assert Bernoulli().integer().log_prob(torch.tensor([2**15 - 1]), torch.tensor(0)) == -24 * math.log(2)


# What twins are


class Elsewhere(Discrete):
    """A user's own family."""

    size = 1
    levels = 2
    log_prob = log_pmf = quantile = None  # type: ignore[assignment]

    def __repr__(self) -> str:
        return "Elsewhere()"


class Density(Continuous):
    """A user's own density."""

    size = 1
    log_prob = quantile = mode = log_interval = None  # type: ignore[assignment]


def test_twins_are_values_that_match_their_families(family: Discrete) -> None:
    twin = family.integer()
    assert (twin.size, twin.levels) == (family.size, family.levels)
    assert len({twin, family.integer()}) == 1


def test_twins_of_families() -> None:
    assert Logistic(256).integer() == IntegerBins("logistic", 256)
    assert LogisticMixture(8, 2).integer() == IntegerBins("logistic", 8, components=2) != IntegerBins("logistic", 8)
    assert Binned(Normal(), 8, -2.0, 2.0).integer() == IntegerBins("normal", 8, low=-2.0, high=2.0)
    assert LogisticMixture(8, 2).integer().fractions == (10, 10, 12, 12, 10, 10)
    assert Logistic(8).integer().fractions == (12, 10) and Categorical(3).integer().fractions == (10, 10, 10)


def test_tables_that_a_twin_reads() -> None:
    read = {name: sorted(family.integer().tables()) for name, family in FLOAT.items()}
    assert read["bernoulli"] == ["logistic"] and read["categorical 17"] == ["exponential"]
    assert read["logistic 256"] == ["edges", "inverse_scale", "logistic"]
    assert read["binned mixture"] == ["edges", "exponential", "inverse_scale", "normal"]
    assert np.array_equal(Binned(Normal(), 9, -2.0, 3.0).integer().tables()["edges"], fixed.edges(9, -2.0, 3.0))


def test_families_without_a_twin_say_so() -> None:
    with pytest.raises(DataError, match=r"Elsewhere\(\) has no integer twin"):
        Elsewhere().integer()
    with pytest.raises(DataError, match="has no integer twin"):
        Binned(Density(), 8).integer()


def test_what_twins_do_not_take_is_refused() -> None:
    with pytest.raises(DataError, match=r"integers of shape \(\.\.\., 3\), not torch.float64"):
        Categorical(3).integer().cumulative(torch.zeros(2, 3))
    with pytest.raises(DataError, match=r"of \(2, 4\)"):
        Categorical(3).integer().interval(torch.zeros(2, 4, dtype=torch.long), torch.zeros(2, dtype=torch.long))
    with pytest.raises(ValueError, match="levels is 1025; integer tables take at most 1024"):
        Categorical(1025).integer()
    with pytest.raises(ValueError, match="components is 1025"):
        LogisticMixture(8, 1025).integer()
    with pytest.raises(ValueError, match=r"within -8 \.\. 8"):
        Binned(Normal(), 8, 0.0, 255.0).integer()
    with pytest.raises(ValueError, match="'cauchy'; it must be one of"):
        IntegerBins("cauchy", 8)
    for make in (IntegerCategorical, lambda levels: IntegerBins("normal", levels)):
        with pytest.raises(ValueError, match="levels is 1; it must be at least 2"):
            make(1)


def test_bins_of_equal_mass() -> None:
    """Under the standard normal every bin owns its share of the slots, and a value finds the bin that holds it."""
    assert fixed.checksum(fixed.quantiles(12)) == "d0c35a64f119419a"
    assert fixed.checksum(fixed.centres(12)) == "e6b607748167f4fa"
    bins = EqualMassBins(10)
    slots = bins.cumulative(torch.zeros(2, dtype=torch.long)).diff()
    assert (slots - fixed.SLOTS / 1024).abs().max() < 200  # 1 % of a bin: straight lines between the nodes of the table
    assert torch.equal(bins.nearest(bins.centres), torch.arange(1024))
    start, frequency = bins.interval(torch.tensor([[2000, -3000]]), torch.tensor([700]))
    assert torch.equal(start + frequency, bins.cumulative(torch.tensor([2000, -3000]))[701:702])
