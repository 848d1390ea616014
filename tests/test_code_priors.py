"""Priors of codes: every network of images, told a grid or not."""

from __future__ import annotations

import pytest
import torch
from tiny_codes import model_of, topdown_of
from torch import Tensor

import ancestral
from ancestral.core import Autoregressive
from ancestral.data.splits import Examples
from ancestral.latent.code_priors import PRIORS
from ancestral.sampling.strategies import arrange
from ancestral.testing import check

LEARNED = [name for name in PRIORS if name != "uniform"]


def told(prior: str, n: int) -> tuple[Autoregressive, ancestral.Context]:
    """The prior of a finer grid of 3 x 3 places, two codes a place where it can, and n rows of what it may be told."""
    topdown = topdown_of(model_of(prior=prior, top_halvings=1, depth=1 if prior == "pixelcnn++" else 2))
    assert topdown.top is not None
    grid = torch.randn(n, topdown.top.maps, 3, 3, generator=torch.Generator().manual_seed(0))
    return topdown.prior, ancestral.Context(grid=grid)


@pytest.mark.parametrize("prior", LEARNED)
def test_every_prior_obeys_the_laws_by_itself(prior: str) -> None:
    check(topdown_of(model_of(depth=1 if prior == "pixelcnn++" else 2, prior=prior)).prior).raise_if_failed()


@pytest.mark.parametrize("prior", LEARNED)
def test_every_prior_obeys_the_laws_with_a_grid(prior: str) -> None:
    check(*told(prior, 4)).raise_if_failed()


@torch.no_grad()
@pytest.mark.parametrize("prior", LEARNED)
def test_priors_of_conditional_models_are_told_labels_by_themselves(prior: str) -> None:
    model = topdown_of(model_of(conditional=True, prior=prior)).prior
    labels = torch.tensor([0, 2, 1])
    codes = torch.randint(3, (3, *model.network.shape), generator=torch.Generator().manual_seed(1))
    context = ancestral.Context(vector=torch.eye(3, dtype=torch.float64)[labels])
    told, silent = (float(-model.log_prob(codes, each).mean()) for each in (context, None))
    assert ancestral.evaluate(model, Examples(codes, labels)).nats == pytest.approx(told) != pytest.approx(silent)
    drawn = [ancestral.sample(model, 64, labels=[label] * 64, seed=0) for label in (0, 2)]
    assert not drawn[0].equal(drawn[1])
    assert not topdown_of(model_of(prior=prior)).prior.conditional
    assert not topdown_of(model_of(conditional=True, prior="uniform")).prior.conditional


@torch.no_grad()
@pytest.mark.parametrize("order", ["raster", "columns-leftward"])
@pytest.mark.parametrize("prior", LEARNED)
def test_a_code_is_told_of_its_own_place_in_every_order(prior: str, order: str) -> None:
    model, context = told(prior, 3)
    model = arrange(model, order)
    codes = torch.randint(3, (3, *model.network.shape), generator=torch.Generator().manual_seed(1))
    walk, walked = model.walk(3, context), list[Tensor]()
    while not walk.done:
        symbols = codes.flatten(1)[:, walk.order.sites[walk.site]]
        walked.append(walk.conditional.log_prob(symbols))
        walk.settle(symbols)
    forward = model.conditionals(codes, context).log_prob(codes).flatten(1)[:, list(model.network.order.sites)]
    assert torch.allclose(torch.stack(walked, 1), forward, atol=1e-10)
    assert context.grid is not None
    first = model.network.order.sites[0]  # nothing was settled before it, so that all it is told is the grid
    place = first % 9 // 3, first % 3
    there, elsewhere = context.grid.clone(), context.grid.clone()
    there[:, :, place[0], place[1]] += 1
    elsewhere[:, :, 2 - place[0], 2 - place[1]] += 1
    near, far = (
        (model.conditionals(codes, ancestral.Context(grid=grid)).log_prob(codes).flatten(1)[:, first] - forward[:, 0]).abs()
        for grid in (there, elsewhere)
    )
    assert (near > 1e-9).all()
    if prior in ("pixelcnn", "row-lstm", "diagonal-bilstm", "transformer"):  # these see the grid of a place at the place alone
        assert (far < 1e-12).all()
