"""Draws: uniforms that only (seed, stream, row, site) decide, and the definitions of temperature, top-k and top-p."""

from __future__ import annotations

import math

import numpy as np
import pytest
import scipy.stats
import torch
from torch import Tensor

from ancestral.core import Conditional
from ancestral.draw import Draw, inverse_cdf, tempered, truncated, uniforms
from ancestral.families import Bernoulli, Categorical, Logistic, Normal
from ancestral.symbols import DataError


def logits(*probabilities: float, n: int = 1) -> Conditional:
    return Conditional(Categorical(len(probabilities)), torch.tensor(probabilities).log().expand(n, -1))


# Uniforms


def test_uniforms_are_a_function_of_seed_stream_row_and_site() -> None:
    whole = uniforms(7, range(20), 50)
    assert whole.shape == (20, 50) and whole.dtype == torch.float64
    assert torch.equal(uniforms(7, range(12, 15), 50), whole[12:15])
    assert torch.equal(uniforms(7, range(20), 9), whole[:, :9])
    assert torch.equal(uniforms(7, [19, 3, 3], 50), whole[[19, 3, 3]])
    assert uniforms(7, range(0), 5).shape == (0, 5) and uniforms(7, range(5), 0).shape == (5, 0)
    others = [uniforms(8, range(20), 50), uniforms(7, range(20, 40), 50), uniforms(7, range(20), 50, stream=1)]
    assert all((other != whole).all() for other in others)


def test_uniforms_are_those_of_philox() -> None:
    """The upper 52 bits of every word of the generator, in the middle of their interval."""
    words = np.random.Philox(key=np.array([5, 3], np.uint64), counter=np.array([0, 0, 9, 0], np.uint64)).random_raw(4)
    expected = [((int(word) >> 12) + 0.5) / 2**52 for word in words]
    assert uniforms(5, range(3, 4), 4, stream=9)[0].tolist() == expected


def test_uniforms_of_large_seeds_differ() -> None:
    largest = [uniforms(2**64 - i, range(2), 8) for i in (1, 2)] + [uniforms(2**63, range(2), 8), uniforms(0, range(2), 8)]
    assert len({tuple(u.flatten().tolist()) for u in largest}) == 4


def test_uniforms_are_uniform_and_never_reach_an_end() -> None:
    u = uniforms(0, range(100), 1000)
    assert scipy.stats.kstest(u.flatten().numpy(), "uniform").pvalue > 1e-4
    assert scipy.stats.kstest(u[:, 0].numpy(), "uniform").pvalue > 1e-4
    assert abs(float(np.corrcoef(u[:-1].flatten(), u[1:].flatten())[0, 1])) < 6 / math.sqrt(99_000)
    scaled = u * 2**53
    assert torch.equal(scaled, scaled.round()) and (scaled % 2 == 1).all()  # odd multiples of 2^-53: neither 0 nor 2^53


# Temperature, top-k, top-p


@pytest.mark.parametrize(
    ("temperature", "expected"),
    [
        (0.5, (0.86681333, 0.11731043, 0.01587624)),
        (1.0, (0.66524096, 0.24472847, 0.09003057)),
        (2.0, (0.50648039, 0.30719589, 0.18632372)),
        (math.inf, (1 / 3, 1 / 3, 1 / 3)),
        (1e-320, (1.0, 0.0, 0.0)),
    ],
)
def test_temperature_has_the_known_values(temperature: float, expected: tuple[float, ...]) -> None:
    assert torch.allclose(tempered(torch.tensor([2.0, 1.0, 0.0]), temperature), torch.tensor(expected), rtol=0, atol=1e-8)


@pytest.mark.parametrize(("top_p", "kept"), [(1e-13, 1), (0.5, 1), (0.6, 1), (0.8, 2), (0.85, 2), (0.9, 3), (0.95, 3), (1.0, 4)])
def test_nucleus_keeps_the_known_number(top_p: float, kept: int) -> None:
    probability = torch.tensor([0.1, 0.6, 0.05, 0.25])
    expected = torch.where(torch.tensor([2, 0, 3, 1]) < kept, probability, 0.0)
    assert torch.allclose(truncated(probability, None, top_p), expected / expected.sum(), atol=1e-15)


def test_top_p_of_one_keeps_the_rarest() -> None:
    probability = torch.tensor([1 - 1e-14, 1e-14, 0.0])
    assert torch.equal(truncated(probability, None, 1.0) > 0, probability > 0)


@pytest.mark.parametrize("k", [1, 2, 3, 4, 9])
def test_top_k_keeps_the_lower_ones_of_equals(k: int) -> None:
    probability = torch.tensor([0.1, 0.35, 0.2, 0.35])
    kept = torch.tensor([1, 3, 2, 0])[:k]
    expected = torch.zeros(4).scatter(0, kept, probability[kept])
    assert torch.allclose(truncated(probability, k, None), expected / expected.sum(), atol=1e-15)


def test_top_k_comes_before_top_p() -> None:
    """Of (0.4, 0.3, 0.3), k = 2 leaves (4/7, 3/7), of which 0.5 keeps the first alone; the other way round both would stay."""
    assert truncated(torch.tensor([0.4, 0.3, 0.3]), 2, 0.5).tolist() == [1.0, 0.0, 0.0]
    assert (truncated(torch.tensor([0.4, 0.3, 0.3]), 2, 0.6) > 0).tolist() == [True, True, False]


def test_inverse_cdf_follows_its_definition() -> None:
    weights = torch.tensor([0.0, 1.0, 0.0, 2.0, 1.0, 0.0])  # of sum 4
    u = torch.tensor([2.0**-53, 0.25 - 1e-15, 0.25, 0.5, 0.75 - 1e-15, 0.75, 1 - 2.0**-53])
    assert inverse_cdf(weights, u).tolist() == [1, 1, 3, 3, 3, 4, 4]
    probability = torch.rand(100, 30)
    assert inverse_cdf(probability, torch.full((100,), 1 - 2.0**-53)).max() < 30


# The chooser


def test_draws_are_quantiles_of_the_uniforms_of_the_site() -> None:
    family, rows = Logistic(256), torch.randn(6, 2)
    draw = Draw(seed=3, first_row=10)
    for site in (0, 5, 1023, 1024, 5000, 7):  # also past what was drawn in advance, and back
        expected = family.quantile(rows, uniforms(3, range(10, 16), site + 1)[:, site])
        assert torch.equal(draw(site, Conditional(family, rows)), expected)
    assert torch.equal(draw(2, Conditional(family, rows[:2])), family.quantile(rows[:2], uniforms(3, range(10, 12), 3)[:, 2]))


def test_rows_do_not_depend_on_the_batch() -> None:
    rows = torch.randn(9, 5)
    whole = Draw(seed=1)(4, Conditional(Categorical(5), rows))
    parts = [Draw(seed=1, first_row=i)(4, Conditional(Categorical(5), rows[i : i + 3])) for i in (0, 3, 6)]
    assert torch.equal(torch.cat(parts), whole)


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        ({}, (0.1, 0.6, 0.05, 0.25)),
        ({"temperature": 0}, (0, 1, 0, 0)),
        ({"temperature": 0.5}, (0.01 / 0.435, 0.36 / 0.435, 0.0025 / 0.435, 0.0625 / 0.435)),
        ({"top_k": 2}, (0, 0.6 / 0.85, 0, 0.25 / 0.85)),
        ({"top_p": 0.9}, (0.1 / 0.95, 0.6 / 0.95, 0, 0.25 / 0.95)),
        ({"temperature": 0.5, "top_k": 3, "top_p": 0.9}, (0, 0.36 / 0.4225, 0, 0.0625 / 0.4225)),
    ],
)
def test_draws_follow_the_altered_distribution(options: dict[str, float], expected: tuple[float, ...]) -> None:
    n = 2000
    drawn = Draw(**options)(0, logits(0.1, 0.6, 0.05, 0.25, n=n))  # type: ignore[arg-type]
    counts, mean = drawn.bincount(minlength=4).double(), n * torch.tensor(expected, dtype=torch.float64)
    assert (counts[mean == 0] == 0).all()
    spread = (mean * (1 - mean / n)).sqrt()
    assert ((counts - mean).abs() <= 5 * spread).all()


def test_altered_draws_do_not_depend_on_the_parameters_type() -> None:
    rows = torch.randn(300, 11).float()
    for options in ({"temperature": 0.7}, {"top_p": 0.8}, {"top_k": 4}):
        narrow, wide = (Draw(**options)(0, Conditional(Categorical(11), r)) for r in (rows, rows.double()))  # type: ignore[arg-type]
        assert torch.equal(narrow, wide)


def test_known_symbols_are_taken() -> None:
    values, known = torch.arange(12).view(2, 2, 3), torch.zeros(2, 2, 3, dtype=torch.bool)
    known[0, 1, 2] = True
    draw, free = Draw(known=(values.to(torch.uint8), known)), Draw()
    for site in range(6):
        conditional = Conditional(Categorical(20), torch.randn(2, 20))
        drawn, expected = draw(site, conditional), free(site, conditional)
        assert drawn.dtype == torch.long and drawn[1] == expected[1]
        assert drawn[0] == (5 if site == 5 else expected[0])


def test_real_values_are_drawn_but_not_truncated() -> None:
    conditional = Conditional(Normal(), torch.tensor([[2.0, 0.0]]))
    drawn: Tensor = Draw(seed=4)(0, conditional)
    assert float(drawn) == pytest.approx(2 + scipy.stats.norm.ppf(float(uniforms(4, range(1), 1))))
    with pytest.raises(DataError, match="Binned"):
        Draw(temperature=0.5)(0, conditional)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"temperature": -0.1}, "temperature is -0.1"),
        ({"temperature": math.nan}, "temperature is nan"),
        ({"top_k": 0}, "top_k is 0"),
        ({"top_p": 0.0}, "top_p is 0.0"),
        ({"top_p": 1.1}, "top_p is 1.1"),
        ({"seed": -1}, "seed is -1"),
        ({"seed": 2**64}, "below 2"),
        ({"first_row": -3}, "first_row is -3"),
        ({"known": (torch.zeros(2, 3), torch.zeros(2, 4) > 0)}, r"shape \(2, 3\) .* of \(2, 4\)"),
        ({"known": (torch.zeros(2, 3), torch.zeros(2, 3))}, "float64 of .* takes booleans"),
    ],
)
def test_options_out_of_range_are_refused(options: dict[str, object], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        Draw(**options)  # type: ignore[arg-type]


def test_coins_are_fair() -> None:
    drawn = Draw()(0, Conditional(Bernoulli(), torch.zeros(4000, 1)))
    assert abs(int(drawn.sum()) - 2000) < 5 * math.sqrt(1000)
