"""The causal layers: what they see, what they refuse, and that a step is a slice of the whole."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

from ancestral.causal import AboveAffine, CausalityError, CausalNetwork, LeftAffine, Once, Scale, gate, relu, spread
from ancestral.core import Context


class Wired(CausalNetwork):
    """A network whose wiring a test hands over."""

    def __init__(self, shape, wiring, **layers) -> None:  # type: ignore[no-untyped-def]
        super().__init__(shape)
        self.parts = nn.ModuleDict({"scale": Scale(shape[0], 4), **layers})
        self.wiring = wiring

    def body(self, x: Tensor, vector: Tensor | None, grid: Tensor | None) -> Tensor:
        return self.wiring(self.parts, x, vector, grid)  # type: ignore[no-any-return]


def assert_steps_match(network: CausalNetwork, context: Context | None = None, n: int = 3) -> None:
    x = torch.randint(4, (n, *network.shape))
    full, flat = network(x, context).flatten(1, -2), x.flatten(1)
    parameters, state = network.start(n, context)
    for i, site in enumerate(network.order.sites):
        assert torch.allclose(parameters, full[:, site], atol=1e-12), f"site {i}"
        if i + 1 < len(network.order.sites):
            parameters, state = network.step(state, flat[:, site])


def test_masks_count_as_the_papers_do() -> None:
    """3 in, 3 out, one row: mask A keeps 3 of the 9 weights of the present site, mask B 6."""
    labels = (0, 1, 2)
    assert LeftAffine(labels, labels, left=1, strict=True).mask[..., -1].sum() == 3  # type: ignore[index]
    assert LeftAffine(labels, labels, left=1).mask[..., -1].sum() == 6  # type: ignore[index]
    assert LeftAffine((0,), (0, 0), left=2, strict=True).weight.shape[-1] == 2  # nothing to grade: the tap is left out


@pytest.mark.parametrize(("features", "channels"), [(6, 3), (7, 3), (5, 2), (1, 1)])
def test_spread_shares_features_evenly_and_in_order(features: int, channels: int) -> None:
    labels = spread(features, channels)
    counts = [labels.count(c) for c in range(channels)]
    assert list(labels) == sorted(labels)
    assert max(counts) - min(counts) <= 1


@pytest.mark.parametrize("colours", [1, 2, 3])
@pytest.mark.parametrize("left", [1, 3])
def test_a_window_to_the_left_steps_as_it_runs(colours: int, left: int) -> None:
    labels = spread(5, colours)
    network = Wired(
        (colours, 3, 4),
        lambda p, x, vector, grid: p["b"](relu()(p["a"](p["scale"](x)))),
        a=LeftAffine(Scale(colours, 4).labels, labels, left, strict=True),
        b=LeftAffine(labels, spread(2 * colours, colours), left),
    )
    assert_steps_match(network)


@pytest.mark.parametrize("kernel", [3, 7])
def test_rows_above_step_as_they_run(kernel: int) -> None:
    network = Wired(
        (1, 6, 5),
        lambda p, x, vector, grid: p["left"](p["scale"](x)) + p["link"](gate()(p["more"](p["above"](p["scale"](x))))),
        above=AboveAffine(1, 6, kernel, strict=True),
        more=AboveAffine(6, 8, 3),
        link=LeftAffine((0,) * 4, (0,) * 2),
        left=LeftAffine((0,), (0, 0), 2, strict=True),
    )
    assert_steps_match(network)


@pytest.mark.parametrize("colours", [1, 3])
def test_context_of_both_kinds_joins_at_any_clock(colours: int) -> None:
    labels = spread(2 * colours, colours)
    network = Wired(
        (colours, 4, 3),
        lambda p, x, vector, grid: (
            p["left"](p["scale"](x)) + (p["above"](p["scale"](x)) + p["grid"](grid) + p["grid"](grid)) + p["vector"](vector)
        ),
        above=AboveAffine(colours, 2 * colours, 3, strict=True),
        left=LeftAffine(Scale(colours, 4).labels, labels, 1, strict=True),
        grid=Once(nn.Conv2d(2, 2 * colours, 3, padding=1)),
        vector=Once(nn.Linear(3, 2 * colours)),
    )
    context = Context(vector=torch.randn(3, 3), grid=torch.randn(3, 2, 4, 3))
    assert_steps_match(network, context)


@pytest.mark.parametrize("rollback", [1, 4, 13])
def test_states_go_back_over_row_ends(rollback: int) -> None:
    network = Wired(
        (2, 5, 3),
        lambda p, x, vector, grid: p["left"](p["scale"](x)) + p["above"](p["scale"](x)),
        above=AboveAffine(2, 4, 5, strict=True),
        left=LeftAffine((0, 1), (0, 0, 1, 1), 2, strict=True),
    )
    x = torch.randint(4, (2, 2, 5, 3))
    full, flat = network(x).flatten(1, -2), x.flatten(1)
    sites = network.order.sites
    parameters, state = network.start(2, rollback=rollback)
    for i in range(len(sites) - 1):
        parameters, state = network.step(state, torch.randint(4, (2,)))  # a wrong turn
        for _ in range(min(rollback - 1, len(sites) - 2 - i)):
            parameters, state = network.step(state, torch.randint(4, (2,)))
        state = state.rollback(state.position - i)
        parameters, state = network.step(state, flat[:, sites[i]])
        assert torch.allclose(parameters, full[:, sites[i + 1]], atol=1e-12)


@pytest.mark.parametrize(
    ("wiring", "layers"),
    [
        (lambda p, x, v, g: p["a"](p["scale"](x)), {"a": LeftAffine((0,), (0,))}),
        (lambda p, x, v, g: relu()(p["scale"](x)), {}),
        (lambda p, x, v, g: p["a"](p["scale"](x)), {"a": AboveAffine(1, 1, 3)}),
        (
            lambda p, x, v, g: p["b"](p["a"](p["scale"](x))),
            {"a": LeftAffine((0,), (0,), 1, strict=True), "b": AboveAffine(1, 1, 3)},
        ),
        (lambda p, x, v, g: p["a"](p["scale"](x)), {"a": Once(nn.Conv2d(1, 1, 3, padding=1))}),
        (
            lambda p, x, v, g: p["b"](p["a"](p["scale"](x))),
            {"a": AboveAffine(1, 1, 3, strict=True), "b": LeftAffine((0,), (0,), 1)},
        ),
    ],
)
def test_wiring_that_would_let_a_site_see_itself_is_refused(wiring, layers) -> None:  # type: ignore[no-untyped-def]
    with pytest.raises(CausalityError):
        Wired((1, 4, 4), wiring, **layers).start(1)


def test_unsorted_colours_are_refused() -> None:
    with pytest.raises(CausalityError, match="sorted"):
        LeftAffine((1, 0), (0, 1))


def test_even_windows_are_refused() -> None:
    with pytest.raises(ValueError, match="odd"):
        AboveAffine(1, 1, 4)


def test_symbols_scale_to_plus_and_minus_one() -> None:
    scaled = Scale(1, 17)(torch.tensor([[[[0, 8, 16]]]]))
    assert torch.allclose(scaled.flatten(), torch.tensor([-1.0, 0.0, 1.0]))
