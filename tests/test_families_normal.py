"""Normal families against independent densities, and what bins make of them."""

from __future__ import annotations

import math

import mpmath
import numpy as np
import pytest
import scipy.stats
import torch
from torch import Tensor

from ancestral.core import DataError, Family
from ancestral.families import Binned, Continuous, Normal, NormalMixture

CONTINUOUS: dict[str, Continuous] = {"normal": Normal(), "normal mixture": NormalMixture(4), "one normal": NormalMixture(1)}


def parameters(family: Family, n: int) -> Tensor:
    return torch.randn(n, family.size)


@pytest.fixture(params=CONTINUOUS)
def continuous(request: pytest.FixtureRequest) -> Continuous:
    return CONTINUOUS[request.param]


def density_mixture(row: Tensor, k: int) -> list[tuple[float, float, float]]:
    """Weight, mean and standard deviation of every component."""
    if len(row) == 2:
        return [(1.0, float(row[0]), math.exp(row[1]))]
    weights = row[:k].softmax(0)
    return [(float(weights[i]), float(row[k + i]), math.exp(row[2 * k + i])) for i in range(k)]


def test_densities_are_those_of_scipy_and_integrate_to_one(continuous: Continuous) -> None:
    x = torch.linspace(-60, 60, 240_001)
    for row in parameters(continuous, 4).unbind():
        parts = density_mixture(row, continuous.size // 3)
        density = continuous.log_prob(row, x).exp()
        expected = sum(weight * scipy.stats.norm.pdf(x.numpy(), mean, scale) for weight, mean, scale in parts)
        assert np.allclose(density.numpy(), expected, rtol=1e-12, atol=1e-300)
        assert float(torch.trapezoid(density, x)) == pytest.approx(1, abs=1e-10)


def test_quantile_inverts_the_distribution_function(continuous: Continuous) -> None:
    u = torch.tensor([2.0**-53, 1e-12, 1e-3, 0.2, 0.5, 0.9, 1 - 1e-3, 1 - 1e-9])
    for row in parameters(continuous, 20).unbind():
        parts = density_mixture(row, continuous.size // 3)
        x = continuous.quantile(row.expand(len(u), -1), u)
        below = sum(weight * scipy.stats.norm.cdf(x.numpy(), mean, scale) for weight, mean, scale in parts)
        assert np.allclose(below, u.numpy(), rtol=1e-9, atol=0)
        assert continuous.quantile(row.float(), u[3]).dtype == torch.float32


def test_mode_is_as_high_as_a_fine_grid(continuous: Continuous) -> None:
    x = torch.linspace(-6, 6, 60_001)
    for row in parameters(continuous, 25).unbind():
        highest = continuous.log_prob(row, x).max()
        assert continuous.log_prob(row, continuous.mode(row)) >= highest - 1e-9


def test_densities_have_no_probabilities_and_say_what_to_do(continuous: Continuous) -> None:
    assert not continuous.discrete
    with pytest.raises(DataError, match=r"Binned\(Normal"):
        continuous.log_pmf(torch.zeros(1, continuous.size))
    with pytest.raises(DataError, match=r"Binned\(Normal"):
        continuous.table(torch.zeros(1, continuous.size), 12)


def test_gradients_of_densities_are_right(continuous: Continuous) -> None:
    rows, x = parameters(continuous, 5).requires_grad_(), torch.randn(5)
    assert torch.autograd.gradcheck(lambda rows: continuous.log_prob(rows, x), rows)


@pytest.mark.parametrize(
    ("low", "high"),
    [
        *[(-1.0, 1.0), (0.3, 0.301), (2.0, 2.00001), (30.0, 31.0), (-31.0, -30.0), (900.0, 901.0), (-50.0, 60.0), (-200.0, 90.0)],
        *[(-math.inf, -20.0), (20.0, math.inf), (-math.inf, 45.0), (-45.0, math.inf), (-math.inf, math.inf)],
    ],
)
def test_normal_intervals_agree_with_many_digits(low: float, high: float) -> None:
    with mpmath.workdps(50):
        ends = [mpmath.erfc(-mpmath.mpf(end) / mpmath.sqrt(2)) / 2 if math.isfinite(end) else (end > 0) for end in (low, high)]
        mirrored = [mpmath.erfc(mpmath.mpf(end) / mpmath.sqrt(2)) / 2 if math.isfinite(end) else (end < 0) for end in (low, high)]
        mass = mirrored[0] - mirrored[1] if low > 0 else ends[1] - ends[0]
        expected = float(mpmath.log(mass))
    row = torch.tensor([0.7, -0.5], requires_grad=True)  # the interval is given in scales from the mean
    interval = [row[0].detach() + row[1].detach().exp() * end for end in (low, high)]
    found = Normal().log_interval(row, *interval)
    assert float(found.detach()) == pytest.approx(expected, rel=1e-10, abs=1e-15)
    assert torch.autograd.grad(found, row)[0].isfinite().all()


# Binned


def test_bins_hold_the_integral_of_the_density() -> None:
    family = Binned(NormalMixture(3), 9, low=-2.0, high=2.0)
    row = parameters(family, 1)[0]
    parts = density_mixture(row, 3)
    cuts = [-math.inf, *np.linspace(-1.75, 1.75, 8), math.inf]
    expected = np.diff([sum(w * scipy.stats.norm.cdf(cut, mean, scale) for w, mean, scale in parts) for cut in cuts])
    assert np.allclose(family.log_pmf(row).exp().numpy(), expected, rtol=0, atol=1e-15)


def test_bins_know_their_centres() -> None:
    family = Binned(Normal(), 5, low=-1.0, high=3.0)
    assert family.width == 1.0
    assert family.value(torch.arange(5, dtype=torch.uint8)).tolist() == [-1.0, 0.0, 1.0, 2.0, 3.0]
    assert family.symbol(torch.tensor([-1e300, -0.51, -0.49, 0.0, 2.51, 1e300])).tolist() == [0, 0, 1, 1, 4, 4]


def test_narrow_bins_of_a_far_mean_stay_finite() -> None:
    rows = torch.tensor([[50.0, -7.0], [-50.0, -7.0], [0.0, 6.0], [0.0, 40.0]], requires_grad=True)
    log_pmf = Binned(Normal(), 256).log_pmf(rows)
    (gradient,) = torch.autograd.grad(log_pmf.sum(), rows)
    assert log_pmf.isfinite().all() and gradient.isfinite().all()
    assert (log_pmf[:3].exp().sum(-1) - 1).abs().max() < 1e-11
