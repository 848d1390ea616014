"""Discrete families: every one against its definition, at parameters and uniforms chosen to hurt; tables."""

from __future__ import annotations

import dataclasses
import math
from fractions import Fraction

import pytest
import scipy.stats
import torch
from torch import Tensor

from ancestral.core import Family
from ancestral.draw import uniforms
from ancestral.families import (
    Bernoulli,
    Binned,
    Categorical,
    Discrete,
    LaplaceMixture,
    Logistic,
    LogisticMixture,
    Normal,
    NormalMixture,
    leaky_table,
)

DISCRETE: dict[str, Discrete] = {
    "bernoulli": Bernoulli(),
    "categorical": Categorical(7),
    "categorical 256": Categorical(256),
    "logistic 2": Logistic(2),
    "logistic 17": Logistic(17),
    "logistic 256": Logistic(256),
    "logistic mixture": LogisticMixture(256, components=5),
    "one logistic": LogisticMixture(16, components=1),
    "binned normal": Binned(Normal(), 64),
    "binned laplace": Binned(LaplaceMixture(3), 33, low=-2.0, high=3.0),
    "binned mixture": Binned(NormalMixture(3), 33, low=-2.0, high=3.0),
}
SMALLEST, LARGEST = 2.0**-53, 1 - 2.0**-53  # the extremes that `uniforms` can give


def parameters(family: Family, n: int = 50, spread: float = 1.0) -> Tensor:
    return spread * torch.randn(n, family.size)


def cruel(family: Family) -> Tensor:
    """Rows whose means (where there are means) run from -50 to 50 and log-scales from -7 to 6."""
    if not isinstance(family, Logistic | LogisticMixture):
        return torch.cat([parameters(family), parameters(family, spread=5.0)])
    means = torch.tensor([0.0, 1e-3, 0.3, 1.0, 1.0039, 1.1, 8.0, 50.0, -0.3, -1.0, -50.0])
    log_scales = torch.tensor([-9.0, -7.0, -5.5, -4.0, -2.0, 0.0, 3.0, 6.0, 30.0])
    rows = torch.cartesian_prod(means, log_scales)
    if isinstance(family, Logistic):
        return rows
    mixed = [rows[torch.randint(len(rows), (len(rows),))] for _ in range(family.components)]
    logits = 10 * torch.randn(len(rows), family.components)
    return torch.cat([logits, *(torch.stack([row[:, i] for row in mixed], -1) for i in (0, 1))], -1)


@pytest.fixture(params=DISCRETE)
def discrete(request: pytest.FixtureRequest) -> Discrete:
    return DISCRETE[request.param]


# Every discrete family


def test_probabilities_sum_to_one(discrete: Discrete) -> None:
    total = discrete.log_pmf(cruel(discrete)).exp().sum(-1)
    assert (total - 1).abs().max() < 1e-12
    single = discrete.log_pmf(cruel(discrete).float())
    assert single.dtype == torch.float32
    assert (single.double().exp().sum(-1) - 1).abs().max() < 1e-6


@pytest.mark.parametrize("kind", [torch.long, torch.int32, torch.int16, torch.uint8])
def test_log_prob_is_an_entry_of_log_pmf(discrete: Discrete, kind: torch.dtype) -> None:
    rows = parameters(discrete, 12).view(3, 4, -1)
    symbols = torch.randint(discrete.levels, (3, 4)).to(kind)
    expected = discrete.log_pmf(rows).gather(-1, symbols.long().unsqueeze(-1)).squeeze(-1)
    assert torch.equal(discrete.log_prob(rows, symbols), expected)
    assert discrete.log_pmf(rows).shape == (3, 4, discrete.levels)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_log_prob_and_gradients_are_finite(discrete: Discrete, dtype: torch.dtype) -> None:
    rows = cruel(discrete).to(dtype).requires_grad_()
    log_pmf = discrete.log_pmf(rows)
    assert log_pmf.dtype == dtype and log_pmf.isfinite().all() and (log_pmf <= 0).all()
    (gradient,) = torch.autograd.grad(log_pmf.sum(), rows)
    assert gradient.isfinite().all()


def test_gradients_are_right(discrete: Discrete) -> None:
    rows = parameters(discrete, 3).requires_grad_()
    symbols = torch.tensor([0, discrete.levels // 2, discrete.levels - 1])
    assert torch.autograd.gradcheck(lambda rows: discrete.log_prob(rows, symbols), rows)


def test_quantile_at_the_edges_of_every_symbol(discrete: Discrete) -> None:
    rows = torch.cat([parameters(discrete, 20), cruel(discrete)])
    pmf = discrete.log_pmf(rows).exp()
    cumulative = pmf.cumsum(-1)
    for v in range(discrete.levels - 1):
        seen = (pmf[:, v] > 1e-10) & (pmf[:, v + 1] > 1e-10)
        u = cumulative[seen, v]
        assert (discrete.quantile(rows[seen], u - 1e-12) == v).all()
        assert (discrete.quantile(rows[seen], u + 1e-12) == v + 1).all()


def test_quantile_of_extreme_uniforms(discrete: Discrete) -> None:
    rows = cruel(discrete)
    u = torch.tensor([SMALLEST, 1e-9, 0.25, 0.5, 0.75, 1 - 1e-9, LARGEST])
    symbols = discrete.quantile(rows.unsqueeze(1), u.expand(len(rows), -1))
    assert symbols.dtype == torch.long and symbols.min() >= 0 and symbols.max() < discrete.levels
    assert (symbols.diff(dim=-1) >= 0).all()
    cumulative = discrete.log_pmf(rows).exp().cumsum(-1).unsqueeze(1)
    sure = ((cumulative - u.unsqueeze(-1)).abs() > 1e-12 * u.unsqueeze(-1)).all(-1)
    assert sure.double().mean() > 0.5
    assert torch.equal(symbols[sure], (cumulative <= u.unsqueeze(-1)).sum(-1)[sure])


def test_quantile_does_not_depend_on_the_parameters_type(discrete: Discrete) -> None:
    rows = parameters(discrete, 500).float()
    u = uniforms(3, range(500), 1).squeeze(1)
    assert torch.equal(discrete.quantile(rows, u), discrete.quantile(rows.double(), u))


def test_draws_follow_the_probabilities(discrete: Discrete) -> None:
    row, draws = parameters(discrete, 1), 10_000
    u = uniforms(1, range(1), draws).squeeze(0)
    counts = discrete.quantile(row.expand(draws, -1), u).bincount(minlength=discrete.levels).double()
    expected = draws * discrete.log_pmf(row).exp().squeeze(0)
    often = expected > 5
    statistic = ((counts - expected)[often].square() / expected[often]).sum()
    assert scipy.stats.chi2.sf(float(statistic), int(often.sum())) > 1e-6
    assert (counts - expected)[~often].sum() < 5 + 6 * math.sqrt(5 + float(expected[~often].sum()))


def test_mode_is_the_lowest_most_probable(discrete: Discrete) -> None:
    rows = cruel(discrete)
    pmf = discrete.log_pmf(rows)
    first = (pmf == pmf.amax(-1, keepdim=True)).int().cumsum(-1).eq(0).sum(-1)
    assert torch.equal(discrete.mode(rows), first)


def test_mode_of_equals_is_the_lowest() -> None:
    assert Bernoulli().mode(torch.zeros(1)) == 0
    assert Categorical(4).mode(torch.tensor([0.0, 2.0, 2.0, 1.0])) == 1
    assert Logistic(256).mode(torch.tensor([0.0, -2.0])) == 127
    assert Logistic(256).mode(torch.tensor([0.0, 3.0])) == 0  # so wide that both open ends win
    assert Binned(Normal(), 16).mode(torch.tensor([0.0, -2.0])) == 7


def test_every_slot_of_a_table_has_its_owner(discrete: Discrete) -> None:
    rows = cruel(discrete)
    tables = discrete.table(rows, 12)
    assert tables.shape == (len(rows), discrete.levels + 1) and tables.dtype == torch.long
    assert (tables[:, 0] == 0).all() and (tables[:, -1] == 4096).all() and (tables.diff(dim=-1) >= 1).all()
    owners = torch.searchsorted(tables, torch.arange(4096).repeat(len(rows), 1), right=True) - 1
    for v in range(discrete.levels):
        assert torch.equal((owners == v).sum(-1), tables[:, v + 1] - tables[:, v])
    fair = 1 + discrete.log_pmf(rows).exp() * (4096 - discrete.levels)
    assert ((tables.diff(dim=-1) - fair).abs() < 1 + 1e-8).all()


# Tables


def test_table_follows_its_rule_in_exact_arithmetic() -> None:
    weights = torch.randint(1, 1000, (9,))
    shares = [Fraction(int(weights[:i].sum()), int(weights.sum())) for i in range(9)]
    expected = [i + math.floor(share * (2**16 - 9)) for i, share in enumerate(shares)]
    assert leaky_table(weights / 7.0, 16).tolist() == [*expected, 2**16]


def test_table_of_impossible_symbols_and_of_as_many_slots_as_levels() -> None:
    assert leaky_table(torch.tensor([0.0, 0.0, 1.0, 0.0]), 4).tolist() == [0, 1, 2, 15, 16]
    assert leaky_table(torch.rand(16), 4).tolist() == list(range(17))
    assert leaky_table(torch.rand(3, 2, 5), 32).amax() == 2**32


def test_table_that_cannot_be_is_refused() -> None:
    with pytest.raises(ValueError, match=r"17 levels needs a precision of 5 \.\. 32 bits, not 4"):
        leaky_table(torch.rand(17), 4)
    with pytest.raises(ValueError, match="not 33"):
        Bernoulli().table(torch.zeros(1), 33)
    for bad in (0.0, math.nan, math.inf):
        with pytest.raises(ValueError, match="non-finite"):
            leaky_table(torch.tensor([[1.0, 2.0], [0.0, bad]]), 12)


# Bernoulli and categorical


def test_bernoulli_is_the_textbook_formula() -> None:
    logit = torch.linspace(-40, 40, 81)
    for x in (0, 1):
        expected = x * logit - torch.log1p(logit.exp())
        assert torch.allclose(Bernoulli().log_prob(logit.unsqueeze(-1), torch.full((81,), x)), expected, atol=1e-14)
    at_half = torch.zeros(3, 1)
    assert Bernoulli().quantile(at_half, torch.tensor([0.5 - 2**-53, 0.5, 0.75])).tolist() == [0, 1, 1]


def test_categorical_never_draws_what_is_impossible() -> None:
    logits = torch.tensor([-math.inf, 0.0, -math.inf, 1.0, -math.inf])
    u = torch.tensor([SMALLEST, 1 / (1 + math.e) - 1e-15, 1 / (1 + math.e) + 1e-15, LARGEST])
    assert Categorical(5).quantile(logits.expand(4, 5), u).tolist() == [1, 1, 3, 3]


# What families are


def test_families_are_values() -> None:
    assert Logistic(256) == Logistic(256) != Logistic(255)
    assert len({LogisticMixture(4, 2), LogisticMixture(4, 2), Binned(Normal(), 4), Binned(Normal(), 4)}) == 2
    assert repr(LogisticMixture(256, 10)) == "LogisticMixture(levels=256, components=10)"
    assert repr(Binned(Normal(), 4)) == "Binned(family=Normal(), levels=4, low=-1.0, high=1.0)"
    with pytest.raises(dataclasses.FrozenInstanceError):
        Categorical(3).levels = 4  # type: ignore[misc]


def test_sizes() -> None:
    families = [*DISCRETE.values(), Normal(), NormalMixture(4)]
    assert [family.size for family in families] == [1, 7, 256, 2, 2, 2, 15, 3, 2, 9, 9, 2, 12]


def test_senseless_families_are_refused() -> None:
    for make in (Categorical, Logistic, lambda levels: LogisticMixture(levels, 2), lambda levels: Binned(Normal(), levels)):
        with pytest.raises(ValueError, match="levels is 1; it must be at least 2"):
            make(1)
    with pytest.raises(ValueError, match="components is 0"):
        NormalMixture(0)
    with pytest.raises(ValueError, match="components is 0"):
        LogisticMixture(4, 0)
    with pytest.raises(ValueError, match="finite ends"):
        Binned(Normal(), 4, low=1.0, high=1.0)
    with pytest.raises(TypeError, match="levels"):
        Categorical()
