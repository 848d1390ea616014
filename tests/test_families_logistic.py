"""Discretized logistics against known values, many digits, and each other."""

from __future__ import annotations

import math

import mpmath
import pytest
import torch

from ancestral.draw import uniforms
from ancestral.families import Bernoulli, Logistic, LogisticMixture, logistic_log_prob


def reference_logistic(v: int, mean: float, log_scale: float, levels: int) -> float:
    """The log-probability with fifty digits, as one fraction of the edges' odds."""
    with mpmath.workdps(50):
        odds = [mpmath.exp((mpmath.mpf(2 * v - levels + 2 * i) / (levels - 1) - mean) / mpmath.exp(log_scale)) for i in (0, 1)]
        if v == 0:
            return float(mpmath.log(odds[1] / (1 + odds[1])))
        if v == levels - 1:
            return float(mpmath.log(1 / (1 + odds[0])))
        return float(mpmath.log((odds[1] - odds[0]) / ((1 + odds[0]) * (1 + odds[1]))))


@pytest.mark.parametrize(
    ("mean", "log_scale", "expected"),
    [
        (0.0, -2.0, {0: -7.360715354, 127: -4.234690554, 128: -4.234690554, 255: -7.360715354}),
        (0.3, -4.0, {0: -70.763484651, 127: -17.434042992, 128: -17.005822276, 166: -2.241052124, 255: -38.004594631}),
        (0.0, -7.0, {127: -0.693515008}),
        (0.0, 0.0, {0: -1.310396304}),
    ],
)
def test_logistic_has_the_known_values(mean: float, log_scale: float, expected: dict[int, float]) -> None:
    found = Logistic(256).log_prob(torch.tensor([mean, log_scale]), torch.tensor(list(expected)))
    assert torch.allclose(found, torch.tensor(list(expected.values())), rtol=0, atol=1e-9)


@pytest.mark.parametrize("levels", [2, 3, 256, 65536])
def test_logistic_agrees_with_many_digits(levels: int) -> None:
    cases = [(m, s) for m in (0.0, 0.3, -1.1, 50.0) for s in (-7.0, -4.0, 0.0, 6.0)]
    for mean, log_scale in cases:
        for v in {0, 1, levels // 2, 3 * levels // 5, levels - 1}:
            expected = reference_logistic(v, mean, log_scale, levels)
            found = logistic_log_prob(torch.tensor(v), torch.tensor(mean), torch.tensor(log_scale), levels)
            assert float(found) == pytest.approx(expected, rel=1e-11, abs=1e-11)


@pytest.mark.parametrize("levels", [4, 16, 256])
def test_colour_levels_of_the_auxiliary_image(levels: int) -> None:
    """Lucas & Verbeek's equation 8, mean 128 and scale 32 on the scale of 0 .. 256: bins of 256 / levels; here with tails."""
    per_bin = 256 / levels
    cut = torch.sigmoid((torch.arange(levels + 1) * per_bin - 128) / 32)
    printed = cut.diff()
    assert float(printed.sum()) == pytest.approx(0.9640276, abs=1e-7)
    mean, scale = (2 * 128 / per_bin - 1) / (levels - 1) - 1, 2 * 32 / per_bin / (levels - 1)
    pmf = Logistic(levels).log_pmf(torch.tensor([mean, math.log(scale)])).exp()
    assert torch.allclose(pmf[1:-1], printed[1:-1], atol=1e-14)
    assert torch.allclose(pmf[[0, -1]], torch.stack([cut[1], 1 - cut[-2]]), atol=1e-14)
    if levels == 4:
        assert torch.allclose(printed, torch.tensor([0.1012167, 0.3807971, 0.3807971, 0.1012167]), atol=5e-8)
        assert torch.allclose(pmf[[0, -1]], torch.tensor(0.1192029), atol=5e-8)


def test_two_levels_are_a_bernoulli() -> None:
    """The one inner edge is 0, half-way between -1 and 1, so p(1) = 1 - sigmoid((0 - mean) / scale) = sigmoid(mean / scale)."""
    rows = 2 * torch.randn(50, 2)
    logit = (rows[:, 0] / rows[:, 1].exp()).unsqueeze(-1)
    assert torch.allclose(Logistic(2).log_pmf(rows), Bernoulli().log_pmf(logit), atol=1e-12)
    u = uniforms(0, range(50), 1).squeeze(1)
    assert torch.equal(Logistic(2).quantile(rows, u), Bernoulli().quantile(logit, u))
    assert torch.equal(Logistic(2).mode(rows), (rows[:, 0] > 0).long())


def test_log_scales_are_floored_and_means_are_not() -> None:
    family, symbols = Logistic(256), torch.tensor([0, 100, 255])
    floor, under = torch.tensor([0.1, -7.0]), torch.tensor([0.1, -30.0])
    assert torch.equal(family.log_prob(under, symbols), family.log_prob(floor, symbols))
    assert family.log_prob(torch.tensor([50.0, -7.0]), torch.tensor(0)) == pytest.approx(-(51 - 1 / 255) * math.exp(7))


@pytest.mark.parametrize("levels", [2, 256, 65536])
def test_logistic_quantile_next_to_its_edges(levels: int) -> None:
    v = torch.arange(0, levels - 1, max(1, levels // 300))
    edges = (2 * v + 2 - levels) / (levels - 1)
    for mean, log_scale in [(0.0, -2.0), (0.3, -4.0), (-0.7, -7.0), (0.9, 1.0)]:
        logit = (edges - mean) * math.exp(-log_scale)
        inside = (logit > -700) & (logit < 14)  # beyond, float64 has no uniforms between the edges
        rows = torch.tensor([mean, log_scale]).expand(int(inside.sum()), 2)
        u = torch.sigmoid(logit[inside])
        step = 4 * torch.finfo(u.dtype).eps * u * (1 + logit[inside].abs())  # a few roundings of the logit
        assert torch.equal(Logistic(levels).quantile(rows, u - step), v[inside])
        assert torch.equal(Logistic(levels).quantile(rows, u + step), v[inside] + 1)


def test_mixture_of_equals_is_the_single_logistic() -> None:
    single, u = torch.randn(50, 2), uniforms(0, range(50), 1).squeeze(1)
    mixed = torch.cat([torch.randn(50, 3), single[:, :1].expand(-1, 3), single[:, 1:].expand(-1, 3)], -1)
    assert torch.allclose(LogisticMixture(17, 3).log_pmf(mixed), Logistic(17).log_pmf(single), atol=1e-13)
    assert torch.equal(LogisticMixture(17, 3).quantile(mixed, u), Logistic(17).quantile(single, u))


def test_mixture_weighs_its_components() -> None:
    row = torch.tensor([math.log(0.25), math.log(0.75), -0.5, 0.5, -2.0, -3.0])
    expected = 0.25 * Logistic(16).log_pmf(row[[2, 4]]).exp() + 0.75 * Logistic(16).log_pmf(row[[3, 5]]).exp()
    assert torch.allclose(LogisticMixture(16, 2).log_pmf(row).exp(), expected, atol=1e-15)
