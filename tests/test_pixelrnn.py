"""Row LSTM and Diagonal BiLSTM: what they see, against LSTMs written site by site, sizes, and the recurrence's own gradient."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor

from ancestral.causal import LSTM, Scale
from ancestral.causal.layer import CausalityError, Clock, Graph
from ancestral.causal.recurrent import skew, unskew
from ancestral.causal.scan import Scan
from ancestral.core import Context
from ancestral.families import Bernoulli, Categorical, LogisticMixture
from ancestral.models import build, configure
from ancestral.networks.pixelrnn import PixelRNN
from ancestral.spec import DataSpec

NAMES = ("row-lstm", "diagonal-bilstm")
Place = tuple[int, int]


def small(shape: tuple[int, int, int], diagonal: bool, **sizes: int) -> PixelRNN:
    fields = {"layers": 1, "channels": 6, "first_kernel": 3, "head": 24, **sizes}
    network = PixelRNN(shape, 4, 2, diagonal=diagonal, **fields)  # type: ignore[arg-type]
    for parameter in network.parameters():
        torch.nn.init.normal_(parameter, std=0.5)
    return network


def seen(network: PixelRNN, row: int, column: int, channel: int = -1) -> Tensor:
    """(C, H, W) whether a symbol moves the parameters of a site, by the Jacobian of a batch of three."""
    x = torch.rand(3, *network.shape).mul(3).requires_grad_()
    (slope,) = torch.autograd.grad(network(x)[:, channel, row, column].pow(2).sum(), x)
    return slope.ne(0).any(0)


# -- what is seen ------------------------------------------------------------------------------------------------------------


def test_the_row_lstm_sees_a_triangle() -> None:
    """Two columns to the left in its own row by the window and the input term, one more a row up, and to the right one a row."""
    height, width, middle = 4, 11, 5
    wanted = {(-up, w) for up in range(height) for w in range(-up - 2, up + 1)} - {(0, 0)}
    found = seen(small((1, height, width), diagonal=False), height - 1, middle)[0]
    assert {(r - height + 1, w - middle) for r, w in found.nonzero().tolist()} == wanted


@pytest.mark.parametrize("shape", [(1, 3, 6), (1, 6, 3), (3, 4, 4), (1, 1, 4), (1, 4, 1)])
def test_the_diagonal_bilstm_sees_all_that_came_before(shape: tuple[int, int, int]) -> None:
    network = small(shape, diagonal=True)
    for r in range(shape[1]):
        for w in range(shape[2]):
            found = seen(network, r, w)
            before = torch.arange(shape[1] * shape[2]).view(shape[1:]) < r * shape[2] + w
            before = before.repeat(shape[0], 1, 1)
            before[:-1, r, w] = True  # the last colour is looked at
            assert torch.equal(found, before)


@pytest.mark.parametrize("diagonal", [False, True])
def test_colours_see_the_earlier_colours_of_their_pixel(diagonal: bool) -> None:
    network = small((3, 3, 4), diagonal)
    for channel in range(3):
        found = seen(network, 1, 2, channel)
        assert found[:, 1, 2].tolist() == [earlier < channel for earlier in range(3)]
        assert found[:, 0, 2].all() and found[:, 1, 1].all()
        assert not found[:, 2].any() and not found[:, 1, 3].any()


# -- the recurrence ----------------------------------------------------------------------------------------------------------


def by_sites(layer: LSTM, x: Tensor, neighbours: list[tuple[Place, Tensor]], kept: Place, backwards: bool = False) -> Tensor:
    """An LSTM as the paper writes it, one site after another.

    Args:
        neighbours: (rows, columns) to a site that h is read from, and its (4 c, c) matrix.
        kept: to the site that c is read from.
    """
    n, features, height, width = x.shape
    states = {(r, w): torch.zeros(2, n, features // 4) for r in range(-1, height) for w in range(-1, width + 1)}
    for r in range(height):
        for w in range(width)[:: -1 if backwards else 1]:
            gates = x[:, :, r, w] + sum(states[r + dr, w + dw][0] @ matrix.T for (dr, dw), matrix in neighbours)
            o, f, i, g = gates.chunk(4, 1)
            c = f.sigmoid() * states[r + kept[0], w + kept[1]][1] + i.sigmoid() * g.tanh()
            states[r, w] = torch.stack([o.sigmoid() * c.tanh(), c])
    places = [torch.stack([states[r, w][0] for w in range(width)], -1) for r in range(height)]
    return torch.stack(places, -2)


@pytest.mark.parametrize(("height", "width"), [(4, 4), (2, 5), (5, 2), (1, 3), (3, 1)])
@pytest.mark.parametrize("direction", ["row", "diagonal", "reverse"])
def test_the_recurrence_is_the_one_of_single_sites(direction: str, height: int, width: int) -> None:
    layer, x = LSTM((0,) * 3, direction), torch.randn(2, 12, height, width)
    above = [layer.above.weight[:, :, 0, i] for i in range(layer.above.weight.shape[3])]
    if layer.beside is None:
        wanted = by_sites(layer, x, [((-1, side - 1), matrix) for side, matrix in enumerate(above)], (-1, 0))
    else:
        side = 1 if direction == "reverse" else -1
        neighbours = [((0, side), layer.beside.weight[:, :, 0, 0]), ((-1, 0), above[0])]
        wanted = by_sites(layer, x, neighbours, (0, side), side > 0)
    assert torch.allclose(layer(x), wanted, rtol=0, atol=1e-14)


def test_the_reverse_direction_is_the_mirrored_one_a_row_later() -> None:
    """The paper mirrors the image, runs over it from the left, mirrors back and shifts down: here the input is shifted instead.

    An image with a row of zeros above it makes the two agree also in the first row, which the shift would leave empty.
    """
    layer, ahead = LSTM((0,) * 2, "reverse"), LSTM((0,) * 2, "diagonal")
    ahead.load_state_dict(layer.state_dict())
    x = torch.cat([torch.zeros(2, 8, 1, 4), torch.randn(2, 8, 4, 4)], 2)
    late = ahead(x.flip(3)).flip(3)  # of rows -1 .. 3, which rows 0 .. 4 see
    assert torch.allclose(layer(x), late, rtol=0, atol=1e-14)


def test_the_reverse_direction_refuses_the_row_that_it_is_in() -> None:
    layer, graph = LSTM((0,) * 2, "reverse"), Graph()
    with pytest.raises(CausalityError, match="reads whole rows"):
        layer(graph.add(Clock.SITE, (0,) * 8))
    symbols = Scale(1, 2)(graph.add(Clock.SITE, strict=True))
    with pytest.raises(CausalityError):
        LSTM((0,), "row")(symbols)


def test_skewing() -> None:
    x = torch.arange(1.0, 10).view(3, 3, 1, 1)
    assert skew(x)[..., 0, 0].T.tolist() == [[1, 2, 3, 0, 0], [0, 4, 5, 6, 0], [0, 0, 7, 8, 9]]
    for height, width in ((3, 3), (2, 7), (7, 2), (1, 4), (4, 1)):
        x = torch.randn(height, width, 2, 3)
        assert skew(x).shape == (height + width - 1, height, 2, 3)
        assert torch.equal(unskew(skew(x).contiguous(), width), x)


@pytest.mark.parametrize("shifts", [(0, -1), (-1, 0, 1)])
def test_the_gradient_of_the_recurrence(shifts: tuple[int, ...]) -> None:
    x, weight = torch.randn(3, 3, 1, 4, requires_grad=True), torch.randn(len(shifts), 4, requires_grad=True)
    assert torch.autograd.gradcheck(lambda *inputs: Scan.apply(*inputs, shifts), (x, weight))


@pytest.mark.parametrize("direction", ["row", "diagonal", "reverse"])
def test_half_precision_leaves_the_recurrence_as_it_is(direction: str) -> None:
    layer, x = LSTM((0,) * 3, direction).float(), torch.randn(2, 12, 4, 5).bfloat16()
    with torch.autocast("cpu", torch.bfloat16):
        found = layer(x)
    assert torch.equal(found, layer(x.float()))


# -- the models --------------------------------------------------------------------------------------------------------------


def test_parameter_counts() -> None:
    """Counted by hand, the paper's seven layers for MNIST: 7x7 window, input terms, recurrences, 1x1 maps, head."""
    h, wide, head = 16, 32, 32
    ends = (3 * 7 + 3) * wide + wide + wide * head + head + head * head + head + head + 1
    row = 2 * wide * 4 * h + 4 * h + 3 * h * 4 * h + h * wide + wide
    ahead = wide * 4 * h + 4 * h + 2 * h * 4 * h + h * wide + wide
    both = 2 * ahead + 4 * h - wide  # one reads the symbols above, too, and the two 1x1 maps share their bias
    for name, layer in zip(NAMES, (row, both), strict=True):
        model = build(name, DataSpec("image", (1, 28, 28), levels=2), preset="paper", layers=7, channels=h, head=head)
        assert sum(parameter.numel() for parameter in model.parameters()) == ends + 7 * layer


@pytest.mark.parametrize("name", NAMES)
def test_families(name: str) -> None:
    for levels, chosen, family in ((2, "auto", Bernoulli()), (256, "auto", Categorical(256)), (9, "logistic", None)):
        model: Any = build(name, DataSpec("image", (1, 2, 3), levels=levels), preset="tiny", family=chosen)
        assert model.family == (family or LogisticMixture(9, 2))


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize(
    ("spec", "overrides", "match"),
    [
        (DataSpec("audio", (9,), levels=4), {}, "images of integers, not audio"),
        (DataSpec("image", (1, 4, 4)), {}, "levels=None"),
        (DataSpec("image", (3, 4, 4), levels=4), {"channels": 2}, "one for every colour"),
        (DataSpec("image", (1, 4, 4), levels=4), {"family": "bernoulli"}, "4 levels"),
        (DataSpec("image", (1, 4, 4), levels=4), {"first_kernel": 4}, "odd"),
    ],
)
def test_specs_that_do_not_fit(name: str, spec: DataSpec, overrides: dict[str, Any], match: str) -> None:
    with pytest.raises(ValueError, match=match):
        build(configure(name, "tiny", **overrides), spec)


@pytest.mark.parametrize("name", NAMES)
def test_labels_are_silent_until_they_are_trained(name: str) -> None:
    spec = DataSpec("image", (1, 3, 4), levels=2, classes=3)
    model: Any = build(name, spec, preset="tiny", conditional=True)
    network, x = model.network, torch.randint(2, (3, 1, 3, 4))
    context = Context(vector=torch.eye(3))
    assert torch.equal(network(x, context), network(x))
    for parameter in network.parameters():
        torch.nn.init.normal_(parameter, std=0.3)
    assert not torch.allclose(network(x, context), network(x))


@pytest.mark.parametrize("name", NAMES)
def test_it_learns_what_lies_far_back(name: str) -> None:
    """x = (a, b, a) down a column, with fair a and b, costs 2 ln 2 nats; the last must be remembered past the one between."""
    model: Any = build(name, DataSpec("image", (1, 3, 1), levels=2), preset="tiny", layers=1, channels=8, head=16)
    x = torch.tensor([[0, 0, 0], [0, 1, 0], [1, 0, 1], [1, 1, 1]]).view(4, 1, 3, 1)
    optimiser = torch.optim.Adam(model.parameters(), lr=3e-2)
    for _ in range(150):
        loss = -model.log_prob(x).mean()
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
    assert loss.item() < 1.41
