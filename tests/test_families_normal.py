"""Normal and Laplace families against independent densities, and what bins make of them."""

from __future__ import annotations

import math
from typing import Any

import mpmath
import numpy as np
import pytest
import scipy.stats
import torch
from torch import Tensor

from ancestral.core import Family
from ancestral.families import Binned, Continuous, LaplaceMixture, Normal, NormalMixture
from ancestral.symbols import DataError

CONTINUOUS: dict[str, Continuous] = {
    "normal": Normal(),
    "normal mixture": NormalMixture(4),
    "one normal": NormalMixture(1),
    "laplace mixture": LaplaceMixture(4),
    "one laplace": LaplaceMixture(1),
}


def parameters(family: Family, n: int) -> Tensor:
    return torch.randn(n, family.size)


@pytest.fixture(params=CONTINUOUS)
def continuous(request: pytest.FixtureRequest) -> Continuous:
    return CONTINUOUS[request.param]


def form(family: Family) -> Any:
    """SciPy's distribution of one component."""
    return scipy.stats.laplace if isinstance(family, LaplaceMixture) else scipy.stats.norm


def density_mixture(row: Tensor, k: int) -> list[tuple[float, float, float]]:
    """Weight, mean and scale of every component."""
    if len(row) == 2:
        return [(1.0, float(row[0]), math.exp(row[1]))]
    weights = row[:k].softmax(0)
    return [(float(weights[i]), float(row[k + i]), math.exp(row[2 * k + i])) for i in range(k)]


def test_densities_are_those_of_scipy_and_integrate_to_one(continuous: Continuous) -> None:
    even, around = torch.linspace(-60, 60, 240_001), torch.linspace(-40, 40, 200_001)
    for row in parameters(continuous, 4).unbind():
        parts = density_mixture(row, continuous.size // 3)
        kinks = isinstance(continuous, LaplaceMixture)  # which need points of their own, and closer ones
        x = torch.cat([mean + scale * around for _, mean, scale in parts]).sort().values if kinks else even
        density = continuous.log_prob(row, x).exp()
        expected = sum(weight * form(continuous).pdf(x.numpy(), mean, scale) for weight, mean, scale in parts)
        assert np.allclose(density.numpy(), expected, rtol=1e-12, atol=1e-300)
        assert float(torch.trapezoid(density, x)) == pytest.approx(1, abs=1e-7 if kinks else 1e-10)


def test_quantile_inverts_the_distribution_function(continuous: Continuous) -> None:
    u = torch.tensor([2.0**-53, 1e-12, 1e-3, 0.2, 0.5, 0.9, 1 - 1e-3, 1 - 1e-9])
    for row in parameters(continuous, 20).unbind():
        parts = density_mixture(row, continuous.size // 3)
        x = continuous.quantile(row.expand(len(u), -1), u)
        below = sum(weight * form(continuous).cdf(x.numpy(), mean, scale) for weight, mean, scale in parts)
        assert np.allclose(below, u.numpy(), rtol=1e-9, atol=0)
        assert continuous.quantile(row.float(), u[3]).dtype == torch.float32


def test_mode_is_as_high_as_a_fine_grid(continuous: Continuous) -> None:
    x = torch.linspace(-6, 6, 60_001)
    for row in parameters(continuous, 25).unbind():
        highest = continuous.log_prob(row, x).max()
        assert continuous.log_prob(row, continuous.mode(row)) >= highest - 1e-9


def test_densities_have_no_probabilities_and_say_what_to_do(continuous: Continuous) -> None:
    assert not continuous.discrete
    with pytest.raises(DataError, match=r"Binned\((Normal|Laplace)"):
        continuous.log_pmf(torch.zeros(1, continuous.size))
    with pytest.raises(DataError, match=r"Binned\((Normal|Laplace)"):
        continuous.table(torch.zeros(1, continuous.size), 12)


def test_gradients_of_densities_are_right(continuous: Continuous) -> None:
    rows, x = parameters(continuous, 5).requires_grad_(), torch.randn(5)
    assert torch.autograd.gradcheck(lambda rows: continuous.log_prob(rows, x), rows)


ENDS = pytest.mark.parametrize(
    ("low", "high"),
    [
        *[(-1.0, 1.0), (0.3, 0.301), (2.0, 2.00001), (30.0, 31.0), (-31.0, -30.0), (900.0, 901.0), (-50.0, 60.0), (-200.0, 90.0)],
        *[(-math.inf, -20.0), (20.0, math.inf), (-math.inf, 45.0), (-45.0, math.inf), (-math.inf, math.inf)],
    ],
)


@ENDS
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


@ENDS
def test_laplace_intervals_agree_with_many_digits(low: float, high: float) -> None:
    with mpmath.workdps(500):
        below = [mpmath.exp(end) / 2 if end <= 0 else 1 - mpmath.exp(-mpmath.mpf(end)) / 2 for end in (low, high)]
        expected = float(mpmath.log(below[1] - below[0]))
    row = torch.tensor([0.0, 0.7, -0.5], requires_grad=True)
    interval = [row[1].detach() + row[2].detach().exp() * end for end in (low, high)]
    found = LaplaceMixture(1).log_interval(row, *interval)
    assert float(found.detach()) == pytest.approx(expected, rel=1e-10, abs=1e-15)
    assert torch.autograd.grad(found, row)[0].isfinite().all()


def test_gradients_of_intervals_are_right(continuous: Continuous) -> None:
    rows, low = parameters(continuous, 6).requires_grad_(), torch.randn(6)
    high = torch.cat([low[:4] + 0.3, torch.tensor([math.inf, math.inf])])
    assert torch.autograd.gradcheck(lambda rows: continuous.log_interval(rows, low, high), rows)


def test_an_edge_in_the_middle_of_a_laplace_density_has_its_gradient() -> None:
    row = torch.zeros(3, requires_grad=True)
    (slope,) = torch.autograd.grad(LaplaceMixture(1).log_interval(row, torch.tensor(-math.inf), torch.tensor(0.0)), row)
    assert slope.tolist() == pytest.approx([0, -1, 0])  # d log F / dx = (1/2) / (1/2) at the mean


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
