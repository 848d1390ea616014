"""Autoregressive flows: strictness and log-determinants by the Jacobian, inverses, densities, the two readings of one flow."""

from __future__ import annotations

from math import prod

import numpy as np
import pytest
import scipy.stats
import torch
from tiny_latents import waken
from torch import Tensor
from torch.distributions import Normal

from ancestral.latent.flows import ForwardFlow, InverseFlow, Steps, settle

SHAPES = [(1,), (5,), (3, 2, 3), (1, 3, 2)]


def steps(shape: tuple[int, ...], count: int = 1, layers: int = 1, context: int = 0, mean_only: bool = False) -> Steps:
    """Steps far enough from their start to matter; an inverse of much wilder ones leaves the range of numbers."""
    made = Steps(shape, count, 9, layers, context, mean_only)
    waken(made, 0.1)
    return made


def seen(shape: tuple[int, ...], context: int, n: int = 1) -> Tensor | None:
    return torch.randn(n, context, *shape[1:]) if context else None


def jacobian(flow: Steps, z: Tensor, context: Tensor | None) -> Tensor:
    full = torch.autograd.functional.jacobian(lambda value: flow(value, context)[0], z)  # type: ignore[no-untyped-call]
    return full.view(z.numel(), z.numel())  # type: ignore[no-any-return]


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("layers", [1, 2])
@pytest.mark.parametrize("context", [0, 4])
def test_a_unit_sees_those_before_it_alone_and_all_of_them(shape: tuple[int, ...], layers: int, context: int) -> None:
    flow, h = steps(shape, 2, layers, context), seen(shape, context)
    for number, step in enumerate(flow):
        slopes = torch.autograd.functional.jacobian(lambda z, step=step: step(z, h)[0], torch.randn(1, *shape))  # type: ignore[no-untyped-call]
        sites = torch.arange(prod(shape)).view(shape)
        raster = (sites if len(shape) == 1 else sites.permute(1, 2, 0)).flatten()  # the maps of a place, then the next place
        order = raster.flip(0) if number else raster
        matrix = slopes.view(prod(shape), prod(shape))[order][:, order]
        assert torch.equal(matrix, matrix.tril())
        if len(shape) == 1:
            assert (matrix != 0).sum() == prod(shape) * (prod(shape) + 1) // 2


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("mean_only", [False, True])
def test_log_determinant_is_that_of_the_jacobian(shape: tuple[int, ...], mean_only: bool) -> None:
    flow, z, h = steps(shape, 3, 2, 2, mean_only), torch.randn(1, *shape), seen(shape, 2)
    expected = torch.linalg.slogdet(jacobian(flow, z, h)).logabsdet
    assert torch.allclose(flow(z, h)[1].sum(), expected, atol=1e-10)
    assert bool(mean_only) == bool(expected.abs() < 1e-10)


@pytest.mark.parametrize("shape", [*SHAPES, (40,), (2, 8, 8)])
@pytest.mark.parametrize("seed", range(3))
def test_inverses(shape: tuple[int, ...], seed: int) -> None:
    torch.manual_seed(seed)
    flow, z, h = steps(shape, 3, 1, 2), 3 * torch.randn(4, *shape), seen(shape, 2, 4)
    y = flow(z, h)[0]
    assert torch.allclose(flow.inverse(y, h), z, atol=1e-6)
    assert torch.allclose(flow(flow.inverse(z, h), h)[0], z, atol=1e-8)


def test_inverse_takes_no_more_turns_than_units_even_where_the_first_tries_explode() -> None:
    """z_i = exp(z_{i-1}) - 1, from a start at which that overflows."""
    turns = []

    def improved(z: Tensor) -> Tensor:
        turns.append(1)
        return torch.cat([torch.zeros(1, 1), z[:, :-1].exp() - 1], 1)

    assert torch.equal(settle(improved, torch.full((1, 6), 1e5)), torch.zeros(1, 6))
    assert len(turns) <= 6


@pytest.mark.parametrize("shape", [(2,), (2, 1, 1)])
def test_densities_integrate_to_one_and_draws_follow_them(shape: tuple[int, ...]) -> None:
    flow, axis = steps(shape, 2), torch.linspace(-10, 10, 201)
    grid = torch.cartesian_prod(axis, axis).view(-1, *shape)
    base, few = (Normal(torch.zeros(n, *shape), 1.0) for n in (len(grid), 2000))
    for kind in (ForwardFlow, InverseFlow):
        density = kind(base, flow).log_prob(grid).flatten(1).sum(1).exp().detach().view(201, 201) * 0.01
        assert density.sum().item() == pytest.approx(1, abs=1e-6)
        drawn = kind(few, flow).icdf(torch.rand(2000, *shape)).detach().flatten(1)
        for dim in (0, 1):
            middle = (density.sum(1 - dim).cumsum(0) - density.sum(1 - dim) / 2).numpy()
            below = np.interp(drawn[:, dim].numpy(), axis.numpy(), middle)
            assert scipy.stats.kstest(below, "uniform").pvalue > 1e-3


def test_draws_of_wild_flows_stay_in_the_range_of_numbers() -> None:
    """A chain of units that each multiply what came before: a decoder would make NaN of an infinite one."""
    torch.manual_seed(0)
    flow = Steps((200,), 2, 9)
    waken(flow, 3.0)
    drawn = ForwardFlow(Normal(torch.zeros(16, 200), torch.ones(16, 200)), flow).icdf(torch.rand(16, 200))
    assert drawn.isfinite().all() and drawn.abs().max() == 1e6


@pytest.mark.parametrize("shape", SHAPES)
def test_what_was_drawn_is_scored_without_inverting_and_alike(shape: tuple[int, ...], monkeypatch: pytest.MonkeyPatch) -> None:
    flow, h = steps(shape, 2, 1, 3), seen(shape, 3, 4)
    made = InverseFlow(Normal(torch.randn(4, *shape), 0.7), flow, h)
    z = made.icdf(torch.rand(4, *shape))
    foreign = made.log_prob(z.clone())
    monkeypatch.setattr(Steps, "inverse", None)
    drawn = made.log_prob(z)
    assert torch.allclose(drawn, foreign, atol=1e-8)
    assert drawn.requires_grad
    assert not foreign.requires_grad
    assert made.mean.shape == z.shape


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("seed", range(3))
def test_a_flow_costs_the_same_as_prior_and_as_posterior(shape: tuple[int, ...], seed: int) -> None:
    """log q(e) - log p(e) of e = f^-1(z), an inverse flow of z's posterior, is log q(z) - log p(z) of the forward flow."""
    torch.manual_seed(seed)
    flow, u = steps(shape, 3), torch.rand(4, *shape)
    posterior, standard = Normal(torch.randn(4, *shape), 0.5), Normal(torch.zeros(4, *shape), 1.0)
    z = posterior.icdf(u)
    as_prior = posterior.log_prob(z) - ForwardFlow(standard, flow).log_prob(z)
    inverse = InverseFlow(posterior, flow)
    noise = inverse.icdf(u)
    as_posterior = inverse.log_prob(noise) - standard.log_prob(noise)
    assert torch.allclose(as_prior, as_posterior, atol=1e-12)
    assert torch.allclose(ForwardFlow(standard, flow).icdf(standard.cdf(noise)), z, atol=1e-6)


def test_a_new_step_changes_little_and_its_context_counts() -> None:
    flow, z = Steps((8,), 1, 32, context=3), torch.randn(5, 8)
    y, log_det = flow(z, torch.randn(5, 3))
    assert torch.allclose(y, z, atol=0.8)
    assert log_det.exp().mean().item() == pytest.approx(0.88, abs=0.02)
    assert not torch.allclose(flow(z, torch.randn(5, 3))[0][:, :1], y[:, :1])  # the first unit sees it, too


def test_a_step_needs_a_hidden_layer() -> None:
    for shape in ((3,), (3, 2, 2)):
        with pytest.raises(ValueError, match="at least 1 hidden layer"):
            Steps(shape, 1, 8, layers=0)


@pytest.mark.parametrize("shape", [(5,), (2, 3, 3)])
def test_the_log_determinant_is_that_of_the_jacobian_where_the_network_is_in_half_precision(shape: tuple[int, ...]) -> None:
    flow, z = steps(shape).float(), torch.randn(1, *shape).float()
    with torch.autocast("cpu", torch.bfloat16):
        log_det, slopes = flow(z)[1], jacobian(flow, z, None).diagonal()
    assert slopes.dtype == log_det.dtype == torch.float32
    assert torch.allclose(slopes.log(), log_det.flatten(), atol=1e-6)
