"""Windows: what they show, and nothing else; by brightness alone, by means of squares; and what a wavefront gains by them."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor

import ancestral
from ancestral.core import Autoregressive
from ancestral.families import Categorical
from ancestral.networks.local import LUMA, LocalPixelCNN
from ancestral.sampling.parallel import parallel_sample
from ancestral.spec import DataSpec

SHAPE = (1, 12, 13)
COLOUR = (3, 7, 8)


def local(shape: tuple[int, int, int] = SHAPE, **sizes: Any) -> LocalPixelCNN:
    """A small network whose weights are nowhere zero by chance."""
    network = LocalPixelCNN(shape, 4, 2, **{"layers": 2, "channels": 6, "head": 6, **sizes})
    for parameter in network.parameters():
        torch.nn.init.normal_(parameter, std=0.3)
    return network


def seen(network: LocalPixelCNN, row: int, column: int) -> Tensor:
    """(C, H, W) slopes of a pixel's parameters at every symbol, the symbols being taken as real numbers."""
    x = torch.rand(1, *network.shape, requires_grad=True)
    (slope,) = torch.autograd.grad(network(x)[0, :, row, column].pow(2).sum(), x)
    return slope[0]


def offsets(slope: Tensor, row: int, column: int) -> set[tuple[int, int]]:
    return {(r - row, c - column) for r, c in slope.abs().amax(0).nonzero().tolist()}


@pytest.mark.parametrize(
    ("window", "above", "left", "columns"),
    [((4, 2), 8, 2, (-2, 1)), ((5, 3), 15, 2, (-2, 2)), ((7, 4), 28, 3, (-3, 3)), ((1, 3), 3, 0, (0, 0)), ((6, 0), 0, 3, (0, 0))],
)
@pytest.mark.parametrize("layers", [1, 5])
def test_a_window_shows_what_the_paper_counts(
    window: tuple[int, int], above: int, left: int, columns: tuple[int, int], layers: int
) -> None:
    """Declared and measured by the Jacobian, however deep the network is: A x B on top and ceil((A - 1) / 2) to the left."""
    network = local(window=window, layers=layers)
    measured = offsets(seen(network, 8, 6), 8, 6)
    assert measured == network.receptive_field()
    top, own = {each for each in measured if each[0]}, {each for each in measured if not each[0]}
    assert (len(top), len(own)) == (above, left)
    assert not top or (min(c for _, c in top), max(c for _, c in top)) == columns
    assert not top or min(r for r, _ in top) == -window[1]
    assert own == {(0, -1 - i) for i in range(left)}


def test_edits_outside_a_window_change_nothing() -> None:
    network, x = local(window=(5, 3)), torch.randint(4, (1, *SHAPE))
    before = network(x)[0, 0, 8, 6]
    for row in range(SHAPE[1]):
        for column in range(SHAPE[2]):
            changed = x.clone()
            changed[0, 0, row, column] = (x[0, 0, row, column] + 1) % 4
            inside = (row - 8, column - 6) in network.receptive_field()
            assert torch.equal(network(changed)[0, 0, 8, 6], before) is not inside


@pytest.mark.parametrize("coupled", [True, False])
def test_colours_of_a_pixel_see_the_ones_before_them_if_they_are_coupled(coupled: bool) -> None:
    network = local(COLOUR, window=(4, 2), coupled=coupled)
    x = torch.rand(1, *COLOUR, requires_grad=True)
    for colour in range(3):
        (slope,) = torch.autograd.grad(network(x)[0, colour, 4, 4].pow(2).sum(), x)
        own = [bool(each) for each in slope[0, :, 4, 4]]
        assert own == [coupled and before < colour for before in range(3)]
        assert slope[0, :, 3, 4].all()  # of other pixels all colours are seen


@pytest.mark.parametrize("coupled", [True, False])
def test_a_grey_window_shows_the_luma_of_other_pixels_alone(coupled: bool) -> None:
    network = local(COLOUR, window=(5, 3), grey=True, coupled=coupled)
    slope, luma = seen(network, 5, 4), torch.tensor(LUMA)
    for row, column in network.receptive_field() - {(0, 0)}:
        place = slope[:, 5 + row, 4 + column]
        assert torch.allclose(place / luma, (place / luma)[:1].expand(3))
    assert bool(slope[:, 5, 4].any()) is coupled
    x = torch.rand(1, *COLOUR)
    other = x + torch.tensor([0.114, 0.0, -0.299])[:, None, None] * torch.rand(1, 1, *COLOUR[1:])  # as bright, in other colours
    found, same = network(x), network(other)
    assert torch.allclose(same[:, 0], found[:, 0])  # red sees no colour of its own pixel
    assert torch.allclose(same, found) is not coupled


def test_grey_is_of_three_colours() -> None:
    with pytest.raises(ValueError, match="three colours, not of 1"):
        local(grey=True)


@pytest.mark.parametrize("window", [(0, 3), (1, 0), (4, -1)])
def test_windows_that_show_nothing(window: tuple[int, int]) -> None:
    with pytest.raises(ValueError, match="shows nothing"):
        local(window=window)


def test_a_coarse_window_shows_means_of_squares_alone() -> None:
    """3 x 2 squares of 2 x 2 on top, one strip 1 x 2 to the left: what keeps their means changes nothing."""
    network = local(window=(3, 2), block=2)
    field, row, column = network.receptive_field(), 8, 6
    assert len(field) == 3 * 2 * 4 + 2
    assert {(-4, -2), (-4, 3), (-1, -2), (-1, 3), (0, -1), (0, -2)} <= field
    slope = seen(network, row, column)[0]
    squares = slope[row - 4 : row, column - 2 : column + 4].unflatten(0, (2, 2)).unflatten(2, (3, 2))
    assert torch.allclose(squares, squares[:, :1, :, :1].expand_as(squares))
    assert slope[row, column - 2] == slope[row, column - 1] != 0

    x = torch.rand(1, *SHAPE)
    moved = x.clone()
    moved[0, 0, row - 1, column] += 0.2
    moved[0, 0, row - 2, column + 1] -= 0.2  # in the same square
    assert torch.allclose(network(moved)[0, 0, row, column], network(x)[0, 0, row, column])
    moved[0, 0, row - 2, column + 1] += 0.2
    assert not torch.allclose(network(moved)[0, 0, row, column], network(x)[0, 0, row, column])


@pytest.mark.parametrize(("window", "slope"), [((4, 2), 2), ((5, 3), 3), ((7, 4), 4)])
def test_a_wavefront_settles_many_pixels_together(window: tuple[int, int], slope: int) -> None:
    """The same samples as the walk, in W + s (H - 1) passes, s one more than the window's columns to the right."""
    model = Autoregressive(local(window=window, channels=4), Categorical(2), DataSpec("image", SHAPE, levels=2))
    drawn = parallel_sample(model, 3, seed=2, method="wavefront")
    assert drawn.passes == SHAPE[2] + slope * (SHAPE[1] - 1) < SHAPE[1] * SHAPE[2]
    assert torch.equal(drawn.x, ancestral.sample(model, 3, seed=2))
