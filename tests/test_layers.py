"""Recurrences, weights by site, coarse places and mixtures of pixels: every engine and the whole numbers agree on them."""

from __future__ import annotations

import copy
import pickle
from typing import Any

import pytest
import torch
from tiny_layers import Wired, toys, two_sums, weighted
from torch import Tensor, nn

from ancestral.causal import (
    AboveAffine,
    CausalityError,
    CausalNetwork,
    ChannelMixture,
    Embedding,
    LeftAffine,
    Once,
    Reach,
    Scale,
    TimeAffine,
    Transposed,
    WindowAffine,
    elu,
    gate,
    spread,
    tanh,
)
from ancestral.causal.arithmetic import Floating
from ancestral.causal.channels import coupled
from ancestral.causal.extending import extendable
from ancestral.causal.network import fingerprint
from ancestral.causal.stepping import Stepper, once_values
from ancestral.core import Autoregressive, Context, OrderError, StateError
from ancestral.draw import Draw
from ancestral.families import Categorical, LogisticMixture
from ancestral.models import build
from ancestral.spec import SYMMETRIES, DataSpec, Order
from ancestral.testing.structure import influence
from ancestral.walking.engines import Lowered
from ancestral.walking.exact.calibration import calibrate
from ancestral.walking.exact.networks import ExactNetwork
from ancestral.walking.exact.operations import LoweringError
from ancestral.walking.parallel import computed, parameters
from ancestral.walking.twin import twin

TOYS = list(toys())


def toy(name: str, scale: float = 0.5) -> tuple[CausalNetwork, int, Tensor]:
    network, levels = toys()[name]
    return weighted(network, scale), levels, torch.randint(levels, (5, *network.shape))


def in_order(network: CausalNetwork | Lowered, x: Tensor) -> Tensor:
    """(n, D, ...) values of sites in the order of the walk."""
    return x.flatten(1, len(network.shape))[:, list(network.order.sites)]


def walked(network: CausalNetwork | Lowered, x: Tensor) -> Tensor:
    """The parameters (n, D, k) along the data."""
    flat = in_order(network, x)
    given, state = network.start(len(x))
    seen = [given]
    for symbol in flat[:, :-1].unbind(1):
        given, state = network.step(state, symbol)
        seen.append(given)
    return torch.stack(seen, 1)


def worst(got: Tensor, want: Tensor) -> float:
    largest = max(1.0, float(want.detach().abs().max()))
    return float((got - want).detach().abs().max()) / largest


@pytest.mark.parametrize("name", TOYS)
def test_steps_and_all_sites_at_once_give_the_forward_pass(name: str) -> None:
    network, _, x = toy(name)
    want = network(x)
    assert worst(walked(network, x), in_order(network, want)) < 1e-10
    program = network.lowered()
    at_once = parameters(program, computed(program, Floating(), network.laid_out(x), once_values(program, None)))
    assert worst(network.restored(at_once), want) < 1e-10


@pytest.mark.parametrize("name", TOYS)
def test_the_receptive_field_is_that_of_the_jacobian(name: str) -> None:
    network, _, x = toy(name)
    channels, height, width = network.layout
    last = network.order.sites[((height - 1) * width + width // 2 + 1) * channels - 1]
    measured = {(r - height + 1, w - width // 2) for r, w in influence(network, x, None, last)}
    seen = {(r, w) for r, w in network.receptive_field() if r >= 1 - height and 0 <= w + width // 2 < width}
    assert measured == (seen if channels > 1 else seen - {(0, 0)})


@pytest.mark.parametrize("name", TOYS)
def test_the_native_engine_gives_the_same(name: str) -> None:
    network, levels, x = toy(name)
    want, narrow = network(x), Lowered(copy.deepcopy(network).float(), levels, "native")
    assert worst(narrow(x), want) < 2e-5
    assert worst(walked(narrow, x), in_order(network, want)) < 2e-5
    family = LogisticMixture(256, 2) if levels == 256 else Categorical(3)
    spec = DataSpec("image" if len(network.shape) == 3 else "vector", tuple(network.shape), levels)
    drawn = narrow.run(5, None, family, Draw(seed=3))
    assert drawn is not None
    assert (drawn != Autoregressive(network, family, spec).walk(5).run(Draw(seed=3))).double().mean() < 0.02


@pytest.mark.parametrize("name", TOYS)
def test_whole_numbers_are_the_same_in_every_way(name: str) -> None:
    network, levels, x = toy(name, 0.3)
    family = LogisticMixture(256, 2) if levels == 256 else Categorical(3)
    calibration = calibrate(network, family.integer(), x)
    eager, native = (ExactNetwork(network, family, calibration, {}, engine) for engine in ("eager", "native"))
    want = eager(x)
    assert torch.equal(native(x), want)
    for each in (eager, native):
        assert torch.equal(walked(each, x), in_order(each, want))
        assert torch.equal(each(x[:1]), want[:1])
    coded, nats = (f.log_prob(y, x).flatten(1).sum(1).detach() for f, y in ((family.integer(), want), (family, network(x))))
    assert torch.allclose(coded, nats, rtol=1e-3, atol=0.01)


def test_a_mixture_of_pixels_is_its_colours_one_by_one() -> None:
    """The chain rule over the colours of a pixel gives the sum over components of the product of their masses."""
    numbers, levels, k = torch.randn(50, 40), 8, 4
    x = torch.randint(levels, (50, 3))
    values = 2 * x.double() / (levels - 1) - 1
    family = LogisticMixture(levels, k)
    chain = sum(family.log_prob(coupled(numbers, values, c, k, levels), x[:, c]) for c in range(3))
    m, s, r = numbers[:, k:].view(-1, 3, 3, k).unbind(2)
    r = r.tanh()
    red, green = values[:, :1], values[:, 1:2]
    means = [m[:, 0], m[:, 1] + r[:, 0] * red, m[:, 2] + r[:, 1] * red + r[:, 2] * green]
    single = LogisticMixture(levels, 1)
    each = [
        torch.stack([single.log_prob(torch.stack([0 * s[:, c, j], mean[:, j], s[:, c, j]], -1), x[:, c]) for j in range(k)], -1)
        for c, mean in enumerate(means)
    ]
    joint = (numbers[:, :k].log_softmax(-1) + sum(each)).logsumexp(-1)
    assert torch.allclose(chain, joint, rtol=0, atol=1e-12)


# Orders and sizes


@pytest.mark.parametrize("name", ["row, 3 colours", "diagonal, 1 colours", "pyramid 6x4"])
@pytest.mark.parametrize("order", list(SYMMETRIES))
def test_other_orders_turn_the_image(name: str, order: str) -> None:
    network, levels, _ = toy(name)
    channels, height, width = network.shape
    symmetry = SYMMETRIES[order]
    shape = (channels, width, height) if symmetry.transposed and "pyramid" in name else (channels, height, width)
    turned = network.arrange(order, shape)
    x = torch.randint(levels, (2, *shape))
    assert turned.order == Order.turned(shape, symmetry)
    assert worst(walked(turned, x), in_order(turned, turned(x))) < 1e-10
    with pytest.raises(OrderError, match="eight symmetries"):
        network.arrange(Order.shuffled(tuple(network.shape), 1))


# Several sites at once


@pytest.mark.parametrize("name", [name for name in TOYS if "tokens" in name])
@pytest.mark.parametrize("some", [1, 2, 5])
def test_extending_by_some_sites_is_stepping_through_them(name: str, some: int) -> None:
    """Whatever was absorbed how before: rings are left as steps leave them, also to go back."""
    network, levels, x = toy(name)
    assert extendable(network.lowered())
    sites, want = x.shape[1], network(x)
    walk = Autoregressive(network, Categorical(levels), DataSpec("text", tuple(network.shape), levels)).walk(5, rollback=2)
    for first in range(0, sites, some + 1):
        ahead = x[:, first : first + some]
        assert worst(walk.extend(ahead).parameters, want[:, first : first + some]) < 1e-10
        walk.rollback(min(2, walk.site))
        walk.select(torch.arange(5))
        walk.extend(x[:, walk.site : first + some])
        if not walk.done:
            assert worst(walk.conditional.parameters, want[:, walk.site]) < 1e-10
            walk.settle(x[:, walk.site])
    assert torch.equal(walk.symbols, x)


def test_extending_takes_one_pass_and_no_steps(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Stepper, "absorb", None)
    for model in (
        build("wavenet", DataSpec("audio", (30,), levels=4), preset="tiny"),
        build("transformer", DataSpec("text", (16,), levels=4), preset="tiny"),
    ):
        x = torch.randint(4, (2, *model.spec.shape))  # type: ignore[arg-type]
        walk = model.walk(2)  # type: ignore[union-attr]
        assert worst(walk.extend(x).parameters, model.network(x)) < 1e-10  # type: ignore[operator, union-attr]
        with pytest.raises(StateError, match="1 symbols for the 0 sites"):
            walk.extend(x[:, :1])


@pytest.mark.parametrize("name", ["gated-pixelcnn", "nade", "diagonal-bilstm"])
def test_images_of_one_column_are_extended_step_by_step(name: str) -> None:
    model = build(name, DataSpec("image", (1, 6, 1), levels=3), preset="tiny")
    x = torch.randint(3, (2, 1, 6, 1))
    assert not extendable(model.network.lowered())  # type: ignore[operator, union-attr]
    found = model.walk(2).extend(x.flatten(1)).parameters  # type: ignore[union-attr]
    assert worst(found, model.network(x).flatten(1, -2)) < 1e-10  # type: ignore[operator, union-attr]


# What went wrong once


def test_many_colours_with_windows_are_lowered_like_few() -> None:
    for name in ("gated-pixelcnn", "diagonal-bilstm"):
        model = build(name, DataSpec("image", (32, 2, 3), levels=2), preset="tiny", channels=32, head=32).double()
        x = torch.randint(2, (2, 32, 2, 3))
        assert worst(walked(model.network, x), in_order(model.network, model.network(x))) < 1e-10


def test_a_calibration_depends_on_nothing_but_weights_and_examples() -> None:
    model = build("made", DataSpec("vector", (40,), levels=2), preset="tiny", hidden=50).double()
    x, found = torch.randint(2, (8, 40)), []
    for junk in (1.0, 1e9, float("nan")):
        torch.full((200_000,), junk)  # what memory held before
        found.append(calibrate(model.network, model.family.integer(), x))
    assert found[0] == found[1] == found[2]


def test_rounding_a_sum_by_31_bits_is_the_same_in_compiled_code() -> None:
    window, own = Reach(1, 1, own_site=False), Reach()
    network = Wired(
        (1, 3, 4),
        lambda p, x: p["out"](p["hidden"](p["scale"](x))),
        scale=Scale(1, 4),
        hidden=WindowAffine(1, 3, window),
        out=WindowAffine(3, 4, own),
    )
    hidden, out = network.parts["hidden"], network.parts["out"]
    with torch.no_grad():
        hidden.bias.zero_()
        hidden.weight.normal_(0, 1e-3)
        for column, weight in enumerate((3000.0, 2.0**-12, 0.0)):
            hidden.weight[column] = weight
        out.weight.normal_(0, 0.01)
        out.weight[:, 0] *= 1e-3
        out.weight[:, 1:] = 0.5
    x, family = torch.randint(4, (6, 1, 3, 4)), Categorical(4)
    calibration = calibrate(network, family.integer(), x)
    eager, native = (ExactNetwork(network, family, calibration, {}, engine) for engine in ("eager", "native"))
    assert any(31 in op.scaling.out.flatten().tolist() for op in eager._program.operations)  # type: ignore[union-attr]
    assert torch.equal(eager(x), native(x))


def test_the_numbers_of_a_mixture_are_of_an_affine_map_alone() -> None:
    network = Wired(
        (3, 3, 3),
        lambda p, x: p["mixture"](p["elu"](p["out"](p["above"](p["scale"](x)) + p["left"](p["scale"](x)))), p["scale"](x)),
        scale=Scale(3, 256),
        above=AboveAffine(3, 4, 3, strict=True),
        left=WindowAffine(3, 4, Reach(left=1, own_site=False)),
        out=WindowAffine(4, 20, Reach()),
        elu=elu(),
        mixture=ChannelMixture(256, 2),
    )
    with pytest.raises(LoweringError, match="come from an affine map"):
        calibrate(network, LogisticMixture(256, 2).integer(), torch.randint(256, (2, 3, 3, 3)))


class Coarse(CausalNetwork):
    """A grid of the context that has half the image's resolution."""

    def __init__(self, shape: tuple[int, int, int]) -> None:
        super().__init__(shape)
        self.scale, self.first = Scale(1, 4), WindowAffine(1, 4, Reach(1, 1, own_site=False))
        self.down, self.up, self.out = WindowAffine(4, 4, Reach(1, 1), 2), Transposed(4, 4, 0), WindowAffine(4, 4, Reach())
        self.grid = Once(nn.Conv2d(2, 4, 1))

    def body(self, x: Tensor, vector: Tensor | None, grid: Tensor | None) -> Tensor:
        fine = self.first(self.scale(x))
        coarse = self.down(fine)
        return self.out(self.up(coarse if grid is None else coarse + self.grid(grid)) + fine)  # type: ignore[no-any-return]


def test_what_coarse_places_cannot_be_is_refused() -> None:
    with pytest.raises(ValueError, match="2 x 2 places"):
        Coarse((1, 4, 4)).start(2, Context(grid=torch.zeros(2, 2, 2, 2)))
    with pytest.raises(CausalityError, match="multiples of 2"):
        Coarse((1, 4, 5)).lowered()


def test_a_program_is_made_anew_when_weights_change_places() -> None:
    network = weighted(toys()["running"][0], 0.5)
    before = fingerprint(network)
    for axis in (0, 1):
        network.parts["out"].weight.data = network.parts["out"].weight.data.flip(axis)
        assert fingerprint(network) != before
    x = torch.randint(3, (2, 7))
    assert worst(walked(network, x), in_order(network, network(x))) < 1e-10


def test_networks_can_be_pickled() -> None:
    network = build("gated-pixelcnn", DataSpec("image", (1, 3, 3), levels=2), preset="tiny").network
    x = torch.zeros(1, 1, 3, 3, dtype=torch.long)
    assert torch.equal(pickle.loads(pickle.dumps(network))(x), network(x))


def test_graded_windows_stay_as_they_are() -> None:
    """What a Gated PixelCNN is made of is not taken for a map of single places."""
    labels = spread(40, 40)
    network = Wired(
        (40, 2, 2),
        lambda p, x: p["out"](p["left"](p["scale"](x))),
        scale=Scale(40, 2),
        left=LeftAffine(labels, labels, 1, strict=True),
        out=LeftAffine(labels, labels),
    )
    x = torch.randint(2, (2, 40, 2, 2))
    assert worst(walked(network, x), in_order(network, network(x))) < 1e-10


def test_sums_over_several_functions_have_an_exact_form() -> None:
    units = (0,) * 4
    parts = {
        "window": TimeAffine(units, units, 2, strict=True),
        "tanh": tanh(),
        "up": LeftAffine(units, units * 2),
        "gate": gate(),
    }
    parts |= {"embedding": Embedding(1, 3, 4), "a": LeftAffine(units, (0,) * 3), "b": LeftAffine(units, (0,) * 3)}

    def wiring(p: nn.ModuleDict, x: Any) -> Any:
        first = p["tanh"](p["window"](p["embedding"](x)))
        return p["a"](first) + p["b"](p["gate"](p["up"](first)))  # functions whose results have scales of their own

    network, x = weighted(Wired((7,), wiring, (1, 7, 1), **parts), 0.5), torch.randint(3, (5, 7))
    model = Autoregressive(network, Categorical(3), DataSpec("text", (7,), levels=3))
    assert torch.allclose(twin(model, x, engine="eager").cost(x), -model.log_prob(x), rtol=0.01)


def test_two_sums_over_the_same_functions_walk_as_they_compute() -> None:
    network, x = weighted(two_sums(), 0.5), torch.randint(3, (5, 7))
    want, native = network(x), Lowered(copy.deepcopy(network).float(), 3, "native")
    assert worst(walked(network, x), want) < 1e-12
    assert worst(native(x), want) < 2e-5
