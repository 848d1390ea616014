"""PixelCNN++: its size, its edges, its mixture over whole pixels, its normed weights and how they start."""

from __future__ import annotations

import math
from itertools import product
from math import log
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.nn import functional

import ancestral
from ancestral.causal import ChannelMixture
from ancestral.core import Context
from ancestral.families import Bernoulli, LogisticMixture
from ancestral.families.logistic import logistic_log_prob
from ancestral.hub import load
from ancestral.models import build
from ancestral.networks.pixelcnnpp import Joint, Marked, PixelCNNPlusPlus, normed
from ancestral.spec import DataSpec
from tests.tiny_training import DIGITS, QUIET, model_of, same

GREY = DataSpec("image", (1, 4, 4), levels=4)


@torch.no_grad()
@pytest.mark.parametrize("shape", [(1, 1, 1), (1, 3, 2), (1, 4, 4), (3, 4, 4)])
def test_images_of_few_places_start_near_even_odds(shape: tuple[int, int, int]) -> None:
    """At a resolution of one place nothing is seen, so that no feature has a spread."""
    torch.manual_seed(0)
    model = build("pixelcnn++", DataSpec("image", shape, levels=2), preset="small", dropout=0.0)
    x = torch.randint(2, (16, *shape))
    model.network.initialise(x)  # type: ignore[operator, union-attr]
    assert float(-model.log_prob(x).mean()) < 3 * log(2) * model.spec.sites  # type: ignore[union-attr]


def small(shape: tuple[int, int, int] = (1, 5, 6), levels: int = 4, size: int = 6, **sizes: Any) -> PixelCNNPlusPlus:
    return PixelCNNPlusPlus(shape, levels, size, **{"channels": 3, "resnets": 1, **sizes}).eval()


def scatter(network: PixelCNNPlusPlus) -> None:
    for parameter in network.parameters():
        parameter.data.add_(torch.randn_like(parameter), alpha=0.2)


@pytest.mark.parametrize(("preset", "parameters"), [("paper", 53_659_080), ("small", 1_517_220)])
def test_parameter_count(preset: str, parameters: int) -> None:
    with torch.device("meta"):
        model = build("pixelcnn++", DataSpec("image", (3, 32, 32), levels=256), preset=preset)
    assert sum(parameter.numel() for parameter in model.parameters()) == parameters


# -- what is seen ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("training", [True, False])
def test_no_symbol_sees_itself_or_a_later_one(training: bool) -> None:
    """All pairs of sites of 4 x 4 x 3, two images at once."""
    network = small((3, 4, 4), dropout=0.0).train(training)
    scatter(network)
    x, sites = torch.rand(2, 3, 4, 4, requires_grad=True), list(network.order.sites)
    outputs = network(x).pow(2).sum(-1).flatten(1)[:, sites]
    for i in range(len(sites)):
        (slope,) = torch.autograd.grad(outputs[1, i], x, retain_graph=True)
        before = slope.flatten(1)[:, sites]
        assert not before[0].any()
        assert not before[1, i:].any()
        assert i < 3 or before[1].any()


def test_it_sees_every_earlier_pixel_of_a_small_image() -> None:
    field = small((1, 8, 8), resnets=2).receptive_field() - {(0, 0)}
    assert field == {(r, c) for r in range(-7, 0) for c in range(-4, 4)} | {(0, c) for c in range(-4, 0)}


@pytest.mark.parametrize("seed", range(2))
@pytest.mark.parametrize("shape", [(1, 5, 6), (3, 2, 7), (1, 1, 1), (3, 9, 4)])
def test_steps_give_what_all_sites_at_once_give(seed: int, shape: tuple[int, int, int]) -> None:
    """At all phases of the coarse places, also where the image must be filled up."""
    torch.manual_seed(seed)
    network, x = small(shape, vector=3), torch.randint(4, (2, *shape))
    scatter(network)
    context, sites = Context(vector=torch.randn(2, 3)), list(network.order.sites)
    wanted, flat = network(x, context).flatten(1, -2)[:, sites], x.flatten(1)[:, sites]
    parameters, state = network.start(2, context)
    for i in range(len(sites)):
        assert torch.allclose(parameters, wanted[:, i], rtol=0, atol=1e-10)
        if i + 1 < len(sites):
            parameters, state = network.step(state, flat[:, i])


def test_the_border_is_told_from_the_data() -> None:
    marked = Marked(3, levels=3)
    grey = torch.ones(1, 3, 5, 6, dtype=torch.long)  # the level in the middle is 0 once scaled
    seen = marked(grey)
    assert seen.shape == (1, 4, 8, 8)
    assert not seen[:, :3].any()
    assert torch.equal(seen[0, 3], functional.pad(torch.ones(5, 6), (0, 2, 0, 3)))
    pixel = torch.cat([marked.absorb(torch.tensor([2]), c) for c in range(3)], 1)
    assert pixel.tolist() == [[1, 1, 1, 1]]


def test_other_sizes_share_the_weights() -> None:
    network = small((3, 4, 4))
    view = network.arrange(shape=(3, 5, 7))
    x = torch.randint(4, (1, 3, 5, 7))
    assert view(x).shape == (1, 3, 5, 7, 6)
    assert torch.allclose(view(x)[:, :, 0, :2], network(x[:, :, :4, :4])[:, :, 0, :2])  # the first row is alone


# -- the mixture -------------------------------------------------------------------------------------------------------------


def joint(numbers: Tensor, x: Tensor, levels: int) -> Tensor:
    """(10 K,) numbers and (3,) symbols of a pixel: log sum_k pi_k prod_c P_k(x_c), from the paper's equations."""
    k = len(numbers) // 10
    logits, (means, log_scales, coefficients) = numbers[:k], numbers[k:].view(3, 3, k).movedim(1, 0)
    red, green, _ = 2 * x.double() / (levels - 1) - 1
    r0, r1, r2 = torch.tanh(coefficients)
    centres = means[0], means[1] + r0 * red, means[2] + r1 * red + r2 * green
    parts = sum(logistic_log_prob(x[c], centres[c], log_scales[c], levels) for c in range(3))
    return torch.logsumexp(logits.log_softmax(0) + parts, 0)


@pytest.mark.parametrize(("levels", "k"), [(256, 10), (8, 3)])
def test_colours_one_by_one_are_the_mixture_over_whole_pixels(levels: int, k: int) -> None:
    numbers, x = torch.randn(5, 10 * k, 2, 2), torch.randint(levels, (5, 3, 2, 2))
    parameters = ChannelMixture(levels, k)(numbers, 2 * x.double() / (levels - 1) - 1)
    parameters = parameters.unflatten(1, (3, 3 * k)).movedim(2, -1)
    ours = LogisticMixture(levels, k).log_prob(parameters, x).sum(1)
    for b, r, w in product(range(5), range(2), range(2)):
        assert abs(ours[b, r, w] - joint(numbers[b, :, r, w], x[b, :, r, w], levels)) < 1e-12 * (1 + abs(ours[b, r, w].item()))


def test_all_pixels_together_have_probability_one() -> None:
    model = build("pixelcnn++", DataSpec("image", (3, 1, 1), levels=6), preset="tiny")
    pixels = torch.tensor(list(product(range(6), repeat=3))).view(-1, 3, 1, 1)
    assert abs(model.log_prob(pixels).logsumexp(0).item()) < 1e-12  # type: ignore[operator]


@pytest.mark.parametrize(
    ("mean", "log_scale", "expected"),
    [
        (0.0, -2.0, {0: -7.360715354, 127: -4.234690554, 128: -4.234690554, 255: -7.360715354}),
        (0.3, -4.0, {0: -70.763484651, 127: -17.434042992, 128: -17.005822276, 166: -2.241052124, 255: -38.004594631}),
        (0.0, -7.0, {127: -0.693515008}),
        (0.0, 0.0, {0: -1.310396304}),
    ],
)
def test_one_logistic_by_the_book(mean: float, log_scale: float, expected: dict[int, float]) -> None:
    family, parameters = LogisticMixture(256, 1), torch.tensor([0.0, mean, log_scale])
    for level, value in expected.items():
        assert family.log_prob(parameters, torch.tensor(level)).item() == pytest.approx(value, abs=1e-9)
    assert family.log_pmf(parameters).exp().sum().item() == pytest.approx(1, abs=1e-14)


# -- weights -----------------------------------------------------------------------------------------------------------------


def test_every_row_has_the_norm_that_g_says() -> None:
    network = small()
    for layer in [network.over, network.doublings[0][0], network.up[0][0].ul.link]:  # type: ignore[index]
        scale = layer.parametrizations.weight.original0
        scale.data.uniform_(0.5, 2)
        rows = [axis for axis, size in enumerate(scale.shape) if size > 1]
        norms = layer.weight.pow(2).sum([axis for axis in range(4) if axis not in rows], keepdim=True).sqrt()
        assert torch.allclose(norms, scale)
    assert network.up[0][0].ul.link.weight.shape == (3, 12, 1, 1)  # type: ignore[index]


def test_a_joint_map_is_that_of_its_inputs_side_by_side() -> None:
    layer, inputs = normed(Joint((4, 6), 3)), (torch.randn(2, 4, 3, 3), torch.randn(2, 6, 3, 3))
    layer.bias.data.normal_()
    assert torch.allclose(layer(*inputs), functional.conv2d(torch.cat(inputs, 1), layer.weight, layer.bias))


def outputs(network: PixelCNNPlusPlus, x: Tensor) -> dict[str, Tensor]:
    """What every layer with a normed weight gives."""
    seen: dict[str, Tensor] = {}
    hooks = [
        module.register_forward_hook(lambda _, given, y, name=name: seen.__setitem__(name, y))
        for name, module in network.named_modules()
        if hasattr(module, "parametrizations")
    ]
    network(x)
    for hook in hooks:
        hook.remove()
    return seen


def test_the_first_batch_sets_mean_and_spread_of_every_layer() -> None:
    network, x = small((3, 8, 6), dropout=0.5), torch.randint(4, (16, 3, 8, 6))
    network.initialise(x)
    for name, y in outputs(network, x).items():
        assert torch.allclose(y.mean((0, 2, 3)), torch.zeros(y.shape[1]), atol=1e-9), name
        wanted = torch.full((y.shape[1],), 0.1 if name.endswith("second") else 1.0)
        assert torch.allclose(y.std((0, 2, 3), correction=0), wanted, rtol=1e-5), name


def test_that_happens_once() -> None:
    network = small()
    network.initialise(torch.randint(4, (8, 1, 5, 6)))
    before = {name: value.clone() for name, value in network.state_dict().items()}
    network.initialise(torch.randint(4, (8, 1, 5, 6)))
    assert same(before, network.state_dict())


def test_training_begins_with_it_and_goes_on_without(tmp_path: Path) -> None:
    model = model_of("pixelcnn++")
    fresh = {name: value.clone() for name, value in model.state_dict().items()}
    whole = ancestral.fit(model, DIGITS, tmp_path / "whole", steps=2, learning_rate=1e-12, ema=0.0, **QUIET)
    moved = whole.model.state_dict()
    assert bool(moved["network.initialised"])
    bias = "network.over.bias"
    assert not torch.allclose(moved[bias], fresh[bias])
    direction = "network.over.parametrizations.weight.original1"
    assert torch.allclose(moved[direction], fresh[direction])
    again = load(tmp_path / "whole")
    ancestral.fit(again, DIGITS, steps=2, learning_rate=1e-12, ema=0.0, seed=5, **QUIET)
    assert torch.allclose(again.state_dict()[bias], moved[bias])


def test_dropout_is_of_training_alone() -> None:
    network, x = small(dropout=0.5), torch.randint(4, (2, 1, 5, 6))
    scatter(network)
    still = network(x)
    assert torch.equal(network(x), still)
    noisy = network.train()(x)
    assert not torch.allclose(noisy, still)
    parameters, _ = network.start(2)  # a walk of a model that is left in training mode
    assert torch.allclose(parameters, still.flatten(1, 3)[:, 0], rtol=0, atol=1e-12)


# -- the model ---------------------------------------------------------------------------------------------------------------


def test_a_label_it_is_not_given_adds_nothing() -> None:
    network, x = small(vector=3), torch.randint(4, (2, 1, 5, 6))
    assert torch.equal(network(x, Context(vector=torch.zeros(2, 3))), network(x))
    assert not torch.allclose(network(x, Context(vector=torch.ones(2, 3))), network(x))
    with pytest.raises(ValueError, match="takes none"):
        network(x, Context(grid=torch.zeros(2, 1, 5, 6)))


def test_families_by_colours() -> None:
    def family(colours: int, levels: int) -> object:
        return build("pixelcnn++", DataSpec("image", (colours, 4, 4), levels=levels), preset="tiny").family

    assert family(1, 2) == Bernoulli()
    assert family(1, 256) == LogisticMixture(256, 2)
    assert family(3, 8) == LogisticMixture(8, 2)


@pytest.mark.parametrize(
    ("spec", "overrides", "message"),
    [
        (DataSpec("vector", (4,), levels=2), {}, "not vector"),
        (DataSpec("image", (2, 4, 4), levels=4), {}, "1 or 3 colour"),
        (DataSpec("image", (1, 4, 4)), {}, "levels=None"),
        (DataSpec("image", (3, 4, 4), levels=4), {"family": "categorical"}, "not categorical"),
        (GREY, {"channels": 0}, "channels is 0; it must be at least 1"),
        (GREY, {"channels": -1}, "channels is -1"),
        (GREY, {"resnets": 0}, "resnets is 0; it must be at least 1"),
        (GREY, {"resnets": -5}, "resnets is -5"),
        (GREY, {"dropout": math.nan}, "dropout is nan; it must be at least 0 and below 1"),
        (GREY, {"dropout": 1.0}, "dropout is 1.0"),
    ],
)
def test_data_and_sizes_that_do_not_fit_are_refused(spec: DataSpec, overrides: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        build("pixelcnn++", spec, preset="tiny", **overrides)


def test_it_learns_a_pixel_that_copies_another() -> None:
    """x = (a, a, b, b) with fair a and b costs 2 ln 2 nats."""
    torch.manual_seed(0)
    model = build("pixelcnn++", DataSpec("image", (1, 2, 2), levels=2), preset="tiny", dropout=0.0)
    optimiser = torch.optim.Adam(model.parameters(), lr=2e-2)
    for _ in range(60):
        bits = torch.randint(2, (32, 1, 2, 1)).expand(-1, -1, -1, 2)
        loss = -model.log_prob(bits).mean()  # type: ignore[operator]
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
    assert loss.item() < 1.6  # 2 ln 2 is 1.39, 4 ln 2 is 2.77
