"""PixelCNN: its masks, what they hide for good, and that only the first one hides the site itself."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor

from ancestral.causal import AboveAffine, LeftAffine, spread
from ancestral.core import Context, Network
from ancestral.families import Bernoulli, Categorical, LogisticMixture
from ancestral.models import build
from ancestral.networks.pixelcnn import MaskedWindow, PixelCNN
from ancestral.spec import DataSpec


def small(shape: tuple[int, int, int] = (1, 9, 9), **sizes: int) -> PixelCNN:
    return PixelCNN(shape, 4, 2, **{"layers": 3, "channels": 6, "first_kernel": 3, "head": 6, **sizes})


def scatter(network: Network, std: float = 0.3) -> None:
    """Weights at which hardly anything is zero by chance."""
    for parameter in network.parameters():
        torch.nn.init.normal_(parameter, std=std)


def full(window: MaskedWindow) -> Tensor:
    """The whole k x k kernel, the rows below the site added."""
    torch.nn.init.ones_(window.above.weight)
    torch.nn.init.ones_(window.left.weight)
    half = window.kernel.shape[2] - 1
    return torch.nn.functional.pad(window.kernel, (0, 0, 0, half))


def test_the_masks_of_one_colour() -> None:
    a, b = (full(MaskedWindow((0,), (0,), 3, strict))[0, 0].tolist() for strict in (True, False))
    assert a == [[1, 1, 1], [1, 0, 0], [0, 0, 0]]
    assert b == [[1, 1, 1], [1, 1, 0], [0, 0, 0]]


@pytest.mark.parametrize(
    ("kernel", "grey", "colour"), [(3, (4, 5), (39, 42)), (5, (12, 13), (111, 114)), (7, (24, 25), (219, 222))]
)
def test_weights_that_the_masks_leave(kernel: int, grey: tuple[int, int], colour: tuple[int, int]) -> None:
    for labels, counts in (((0,), grey), ((0, 1, 2), colour)):
        kernels = [full(MaskedWindow(labels, labels, kernel, strict)) for strict in (True, False)]
        assert tuple(int(k.count_nonzero()) for k in kernels) == counts
        assert kernels[0].shape[2:] == (kernel, kernel)


def test_at_the_centre_colours_see_the_ones_before() -> None:
    labels = spread(5, 3)  # 0 0 1 1 2: groups of different sizes
    centre = full(MaskedWindow(labels, labels, 3))[:, :, 1, 1]
    assert centre.tolist() == [[float(before <= after) for before in labels] for after in labels]


@pytest.mark.parametrize("strict", [True, False])
def test_one_convolution_is_the_sum_of_its_parts(strict: bool) -> None:
    labels = spread(4, 3)
    window, x = MaskedWindow(labels, labels, 5, strict), torch.randn(2, 4, 6, 3)
    above, left = AboveAffine(4, 4, 5, strict=True), LeftAffine(labels, labels, 2, strict)
    above.load_state_dict({"weight": window.above.weight.detach(), "bias": torch.zeros(4)})
    left.load_state_dict(window.left.state_dict())
    assert torch.allclose(window(x), above(x) + left(x), rtol=0, atol=1e-14)


@pytest.mark.parametrize("kernel", [1, 4])
def test_kernels_without_a_centre_or_a_row_above_are_refused(kernel: int) -> None:
    with pytest.raises(ValueError, match="odd and at least 3"):
        small(kernel=kernel)


# -- what is seen ------------------------------------------------------------------------------------------------------------


def columns(field: set[tuple[int, int]]) -> dict[int, tuple[int, int]]:
    """The first and last column that is seen, by row above."""
    rows = {-r for r, _ in field}
    spans = {row: (min(c for r, c in field if r == -row), max(c for r, c in field if r == -row)) for row in rows}
    assert sum(last - first + 1 for first, last in spans.values()) == len(field)  # without holes
    return spans


SEVEN = {7: (-7, 7), 6: (-7, 7), 5: (-7, 7), 4: (-7, 6), 3: (-7, 5), 2: (-7, 4), 1: (-7, 3), 0: (-7, -1)}
THREE = {4: (-4, 4), 3: (-4, 3), 2: (-4, 2), 1: (-4, 1), 0: (-4, -1)}


@pytest.mark.parametrize(("first", "layers", "spans", "pixels"), [(7, 4, SEVEN, 102), (3, 3, THREE, 34)])
def test_the_blind_spot(first: int, layers: int, spans: dict[int, tuple[int, int]], pixels: int) -> None:
    """Declared, and measured by the Jacobian: above and to the right nothing is seen beyond a slope."""
    network = small((1, 8, 15), layers=layers, first_kernel=first, channels=12)
    scatter(network)
    x = torch.rand(1, 1, 8, 15, requires_grad=True)
    (slope,) = torch.autograd.grad(network(x)[0, 0, 7, 7].pow(2).sum(), x)
    measured = {(r - 7, c - 7) for _, _, r, c in slope.nonzero().tolist()}
    assert measured == network.receptive_field() - {(0, 0)}
    assert len(measured) == pixels
    assert columns(measured) == spans


def test_depth_does_not_cure_the_blind_spot() -> None:
    field = small(layers=12, first_kernel=5).receptive_field()
    assert all(column <= 2 - row - 1 for row, column in field if row < 0)
    assert {(-9, 10), (-9, -14)} <= field


@pytest.mark.parametrize("training", [True, False])
def test_no_symbol_sees_itself_or_a_later_one(training: bool) -> None:
    """All pairs of sites of 4 x 4 x 3, two images at once."""
    network, shape = small((3, 4, 4), layers=1, channels=24, head=24).train(training), (3, 4, 4)
    scatter(network)
    x, sites = torch.rand(2, *shape, requires_grad=True), list(network.order.sites)
    outputs = network(x).pow(2).sum(-1).flatten(1)[:, sites]
    for i in range(len(sites)):
        (slope,) = torch.autograd.grad(outputs[1, i], x, retain_graph=True)
        before = slope.flatten(1)[:, sites]
        assert not before[0].any()
        assert not before[1, i:].any()
        assert i % 12 == 0 or before[1, i - 1] != 0  # the pixel before a row's first is far to the right


def test_masks_survive_an_update_of_every_weight() -> None:
    network, x = small((3, 3, 3), layers=1, channels=24, head=24), torch.randint(4, (2, 3, 3, 3))
    for parameter in network.parameters():
        parameter.data.mul_(0.9).add_(torch.randn_like(parameter), alpha=0.01)
    changed = x.clone()
    changed[:, 1:, 1, 1] = 3 - changed[:, 1:, 1, 1]
    assert torch.equal(network(changed)[:, :2, 1, 1], network(x)[:, :2, 1, 1])
    assert not torch.equal(network(changed)[:, 2, 1, 1], network(x)[:, 2, 1, 1])


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize("shape", [(1, 5, 4), (3, 3, 5), (2, 1, 6)])
def test_steps_give_what_all_sites_at_once_give(seed: int, shape: tuple[int, int, int]) -> None:
    torch.manual_seed(seed)
    network, x = small(shape, layers=2, first_kernel=5, vector=3), torch.randint(4, (2, *shape))
    scatter(network)
    context, sites = Context(vector=torch.randn(2, 3)), list(network.order.sites)
    wanted, flat = network(x, context).flatten(1, -2)[:, sites], x.flatten(1)[:, sites]
    parameters, state = network.start(2, context)
    for i in range(len(sites)):
        assert torch.allclose(parameters, wanted[:, i], rtol=0, atol=1e-10)
        if i + 1 < len(sites):
            parameters, state = network.step(state, flat[:, i])


# -- the model ---------------------------------------------------------------------------------------------------------------


def test_parameter_count() -> None:
    """Counted by hand: a window of 3 x 7 + 4 taps (own site masked), blocks of two 1x1 and 4 + 1 taps, three 1x1 maps."""
    h, head = 128, 1024
    first = 24 * 2 * h + 2 * h
    block = (2 * h * h + h) + (5 * h * h + h) + (2 * h * h + 2 * h)
    last = (2 * h * head + head) + (head * head + head) + (head * 256 + 256)
    network = PixelCNN((1, 28, 28), 256, 256)
    assert sum(parameter.numel() for parameter in network.parameters()) == first + 15 * block + last


def test_conditionals_are_a_softmax_unless_asked_otherwise() -> None:
    def family(levels: int, **overrides: Any) -> object:
        return build("pixelcnn", DataSpec("image", (1, 4, 4), levels=levels), preset="tiny", **overrides).family

    assert family(2) == Bernoulli()
    assert family(256) == Categorical(256)
    assert family(256, family="logistic") == LogisticMixture(256, 2)


def test_labels_are_silent_until_they_are_trained() -> None:
    network, x = small(vector=3), torch.randint(4, (2, 1, 9, 9))
    context = Context(vector=torch.randn(2, 3))
    assert torch.equal(network(x, context), network(x))
    scatter(network)
    assert not torch.allclose(network(x, context), network(x))
    assert torch.equal(network(x, Context(vector=torch.zeros(2, 3))), network(x))


@pytest.mark.parametrize(
    ("spec", "overrides", "message"),
    [
        (DataSpec("vector", (4,), levels=2), {}, "not vector"),
        (DataSpec("image", (1, 4, 4)), {}, "levels=None"),
        (DataSpec("image", (3, 4, 4), levels=4), {"channels": 2}, "one for every colour"),
        (DataSpec("image", (1, 4, 4), levels=4), {"family": "bernoulli"}, "4 levels"),
    ],
)
def test_data_that_do_not_fit_are_refused(spec: DataSpec, overrides: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        build("pixelcnn", spec, preset="tiny", **overrides)


def test_it_learns_a_pixel_that_copies_another() -> None:
    """x = (a, a, b, b) with fair a and b costs 2 ln 2 nats."""
    torch.manual_seed(0)
    model = build("pixelcnn", DataSpec("image", (1, 2, 2), levels=2), preset="tiny")
    optimiser = torch.optim.Adam(model.parameters(), lr=1e-2)
    for _ in range(200):
        bits = torch.randint(2, (64, 1, 2, 1)).expand(-1, -1, -1, 2)
        loss = -model.log_prob(bits).mean()  # type: ignore[operator]
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
    assert loss.item() < 1.45
