"""Orders and sizes at call time: turned images, larger canvases, mixtures over orders; and who refuses what."""

from __future__ import annotations

from itertools import product
from math import log
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from tiny_cli import asking, calling
from torch import Tensor, nn

import ancestral
from ancestral.core import Autoregressive, Context, Network, OrderError
from ancestral.evaluation import evaluate
from ancestral.evaluation.ensemble import ensemble, mixed
from ancestral.families import Bernoulli
from ancestral.hub import load, save
from ancestral.models import build, configure
from ancestral.sampling import arrange, complete, sample
from ancestral.spec import SYMMETRIES, DataSpec, Order

IMAGES = ("gated-pixelcnn", "pixelcnn", "row-lstm", "diagonal-bilstm")
BITS = DataSpec("image", (1, 2, 3), levels=2, classes=3)


def fresh(name: str, spec: DataSpec = BITS, **overrides: Any) -> Any:
    model = build(configure(name, "tiny", **overrides), spec)
    for parameter in model.parameters():
        nn.init.normal_(parameter, std=0.4)
    return model.eval()


def every(spec: DataSpec = BITS) -> Tensor:
    """(m, *shape) all symbols that there are."""
    states = product(range(spec.levels or 0), repeat=spec.sites)
    return torch.tensor(list(states)).view(-1, *spec.shape)  # type: ignore[arg-type]


# -- orders ------------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", SYMMETRIES)
@pytest.mark.parametrize("model", [*IMAGES, "pixelcnn++"])
def test_an_order_is_a_turned_image(model: str, name: str) -> None:
    """log p of x in an order is log p of the turned x in the raster order, whatever way it is computed."""
    spec = DataSpec("image", (1, 3, 4) if model == "pixelcnn++" else (3, 2, 3), levels=3)
    under, symmetry = fresh(model, spec, family="categorical"), SYMMETRIES[name]
    x = torch.randint(3, (4, *spec.shape))  # type: ignore[arg-type]
    turned = x.flip([axis for axis, flip in ((2, symmetry.upward), (3, symmetry.leftward)) if flip])
    turned = turned.transpose(2, 3) if symmetry.transposed else turned
    wanted = arrange(under, shape=turned.shape[1:]).log_prob(turned)
    arranged = arrange(under, name)
    assert torch.allclose(arranged.log_prob(x), wanted, rtol=0, atol=1e-12)
    walk = arranged.walk(len(x))
    costs = []
    while not walk.done:
        symbols = x.flatten(1)[:, arranged.network.order.sites[walk.site]]
        costs.append(walk.conditional.log_prob(symbols))
        walk.settle(symbols)
    assert torch.allclose(torch.stack(costs).sum(0), wanted, rtol=0, atol=1e-12)
    assert torch.equal(arrange(under, Order.turned(spec.shape, symmetry)).log_prob(x), arranged.log_prob(x))  # type: ignore[arg-type]


@pytest.mark.parametrize("model", ["gated-pixelcnn", "diagonal-bilstm"])
def test_samples_of_every_method_in_an_order(model: str) -> None:
    under = arrange(fresh(model), "columns-upward")
    found = [sample(under, 5, seed=3, method=method) for method in ("cached", "recompute", "parallel")]
    assert torch.equal(found[0], found[1]) and torch.equal(found[0], found[2])
    assert not torch.equal(found[0], sample(arrange(under, "raster"), 5, seed=3))


def test_weights_are_shared_and_the_model_stays_as_it_is() -> None:
    model, x = fresh("row-lstm"), every()
    before = model.log_prob(x)
    arranged = arrange(model, "rows-upward", (1, 5, 2))
    assert (arranged.spec.shape, tuple(arranged.network.shape), arranged.spec.classes) == ((1, 5, 2), (1, 5, 2), 3)
    assert torch.equal(model.log_prob(x), before) and model.spec is BITS
    with torch.no_grad():
        next(iter(model.parameters())).add_(1)
    assert not torch.equal(arrange(model, "raster").log_prob(x), before)
    assert all(a is b for a, b in zip(arranged.parameters(), model.parameters(), strict=True))


# -- sizes -------------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("model", [*IMAGES, "pixelcnn++"])
def test_the_first_rows_of_a_taller_image_are_those_of_the_image(model: str) -> None:
    under = fresh(model, DataSpec("image", (1, 4, 4), levels=2))
    tall = arrange(under, shape=(1, 8, 4))
    x = torch.randint(2, (2, 1, 8, 4))
    assert torch.allclose(tall.network(x)[:, :, :4], under.network(x[:, :, :4]), rtol=0, atol=1e-13)
    assert torch.equal(sample(under, 3, seed=1, shape=(1, 8, 4))[:, :, :4], sample(under, 3, seed=1))


@pytest.mark.parametrize("model", [*IMAGES, "pixelcnn++"])
def test_samples_of_another_size(model: str) -> None:
    under = fresh(model, DataSpec("image", (1, 3, 3), levels=2))
    drawn = sample(under, 3, seed=1, shape=(1, 5, 7))
    assert drawn.shape == (3, 1, 5, 7)
    assert torch.equal(drawn[1:], sample(arrange(under, shape=(1, 5, 7)), 2, seed=1, first_row=1, method="recompute"))


def test_outpainting() -> None:
    """What is known of a larger canvas stays: exactly from its top rows, and from below in the order that begins there."""
    model, canvas = fresh("diagonal-bilstm", DataSpec("image", (1, 3, 3), levels=2)), torch.randint(2, (4, 1, 6, 3))
    for known, order in (([True] * 3 + [False] * 3, "raster"), ([False] * 3 + [True] * 3, "rows-upward")):
        mask = torch.tensor(known)[:, None]
        found = complete(arrange(model, order, (1, 6, 3)), canvas, mask, seed=2)
        assert found.status == "exact"
        assert torch.equal(found.x[:, :, mask[:, 0]], canvas[:, :, mask[:, 0]])
    assert complete(arrange(model, shape=(1, 6, 3)), canvas, mask, particles=4).status == "approximate"


@pytest.mark.parametrize(
    ("name", "order", "shape"),
    [
        ("gated-pixelcnn", None, (3, 4, 4)),  # other channels
        ("gated-pixelcnn", None, (4, 4)),
        ("row-lstm", Order((0, 5, 1, 4, 2, 3)), None),  # no symmetry
        ("row-lstm", "spiral", None),
        ("nade", Order((5, 4, 3, 2, 1, 0)), None),  # made for one order
        ("made", None, (1, 3, 3)),  # weights of every site
        ("deep-nade", None, (1, 3, 3)),
        ("deep-nade", Order((0, 0, 1, 2, 3, 4)), None),
        ("vae", "rows-upward", None),  # latents
        ("row-lstm", [0, 1, 2, 3, 4, 5], None),  # no Order
        ("deep-nade", [5, 4, 3, 2, 1, 0], None),
    ],
)
def test_what_a_network_cannot_take(name: str, order: Any, shape: Any) -> None:
    with pytest.raises(OrderError):
        arrange(fresh(name), order, shape)


# -- mixtures over orders ----------------------------------------------------------------------------------------------------


def test_means_of_probabilities() -> None:
    nats = -torch.tensor([[0.5, 1.0], [0.25, 0.0]]).log()
    assert mixed(nats).tolist() == pytest.approx([-log(0.375), log(2)], rel=1e-15)
    tiny = torch.tensor([[2000.0], [2001.0]])  # exp of which is zero
    assert float(mixed(tiny)) == pytest.approx(2000 + log(2) - log(1 + 1 / 2.718281828459045), rel=1e-12)


CASES = {
    "deep-nade": ("deep-nade", {}, 4),
    "made with masks": ("made", {"orders": 4}, 4),
    "made with fewer masks": ("made", {"orders": 2}, 2),
    "row-lstm": ("row-lstm", {}, 4),
    "diagonal-bilstm": ("diagonal-bilstm", {}, 4),
}


@pytest.mark.parametrize("case", CASES)
def test_a_mixture_over_orders(case: str) -> None:
    name, overrides, orders = CASES[case]
    model, x = fresh(name, **overrides), every()
    members, _ = ensemble(model.network, 4, seed=1)
    assert len(members) == len({member.order for member in members}) == orders
    each = torch.stack([Autoregressive(member, model.family, model.spec).log_prob(x) for member in members]).detach()
    assert each.exp().sum(1).tolist() == pytest.approx([1] * orders, abs=1e-10)
    probability = each.exp().mean(0)
    assert float(probability.sum()) == pytest.approx(1, abs=1e-10)

    found = evaluate(model, x, orders=4, seed=1, batch_size=7)
    assert (found.status, found.orders) == ("exact", orders)
    assert found.nats == pytest.approx(-float(probability.log().mean()), rel=1e-12)
    assert found.order_nats == pytest.approx(-float(each.mean()), rel=1e-12)
    assert found.nats < found.order_nats  # the mean of logarithms would be worse: Jensen
    assert f"over {orders} orders" in found.lines()[1]


def test_one_order_is_the_model_itself() -> None:
    model, x = fresh("deep-nade"), every()
    found = evaluate(model, x)
    assert found.nats == pytest.approx(-float(model.log_prob(x).detach().mean()), rel=1e-12)
    assert (found.orders, found.ordering, found.order_nats) == (1, None, None) and len(found.lines()) == 2


def test_orders_follow_the_seed() -> None:
    network = fresh("deep-nade").network
    once, again, other = ([member.order for member in ensemble(network, 4, seed)[0]] for seed in (1, 1, 2))
    assert once == again != other


class Sites(Network):
    """Somebody's own network of any order: p(x_i = 1) rises with the number of ones before it."""

    any_order = True

    def forward(self, x: Tensor, context: Context | None = None) -> Tensor:
        places = list(self.order.sites)
        ordered = x[:, places].to(self.anchor.dtype)
        logits = ordered.cumsum(1) - ordered + torch.arange(len(places))
        return logits[:, torch.tensor(places).argsort(), None]

    def arrange(self, order: Order | str | None = None, shape: tuple[int, ...] | None = None) -> Sites:
        view = Sites(tuple(self.shape))
        view.order = self.order if order is None or isinstance(order, str) else order
        return view


def test_a_network_of_ones_own_gets_random_orders() -> None:
    model = Autoregressive(Sites((4,)), Bernoulli(), DataSpec("vector", (4,), levels=2))
    x = every(model.spec)
    found = evaluate(model, x, orders=3)
    assert found.orders == 3 and found.ordering == "random orders"
    orders = [Order.shuffled((4,), i) for i in range(3)]
    each = [Autoregressive(model.network.arrange(order), model.family, model.spec).log_prob(x) for order in orders]
    assert found.nats == pytest.approx(-float(torch.stack(each).exp().mean(0).log().mean()), rel=1e-12)


@pytest.mark.parametrize(
    ("name", "options", "error", "match"),
    [
        ("nade", {"orders": 2}, OrderError, "one order"),
        ("made", {"orders": 2}, OrderError, "one order"),
        ("row-lstm", {"orders": 9}, OrderError, "takes 8"),
        ("row-lstm", {"orders": 0}, ValueError, "at least 1"),
        ("row-lstm", {"orders": 1.5}, ValueError, "orders is 1.5; it must be a whole number"),
        ("row-lstm", {"batch_size": 1.5}, ValueError, "batch_size is 1.5; it must be a whole number"),
        ("row-lstm", {"orders": 2, "numerics": "exact"}, ValueError, "floating point"),
        ("vae", {"orders": 2}, ValueError, "without latents"),
    ],
)
def test_mixtures_that_there_are_not(name: str, options: dict[str, Any], error: type[Exception], match: str) -> None:
    with pytest.raises(error, match=match):
        evaluate(fresh(name), every(), **options)


# -- the command line --------------------------------------------------------------------------------------------------------


def test_the_command_line(tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    call = calling(capsys, monkeypatch)
    ask = asking(call)
    for name in ("row-lstm", "nade"):
        ancestral.save(build(name, DataSpec("image", (1, 8, 8), levels=17), preset="tiny"), tmp_path / name)
    run = tmp_path / "row-lstm"
    found = ask("sample", run, "-n", 2, "--size", 4, 11, "--out", tmp_path / "wide.npy")
    assert np.load(found["out"]).shape == (2, 1, 4, 11)
    found = ask("evaluate", run, "--data", "digits", "--limit", 3, "--orders", 2)
    assert found["orders"] == 2 and found["nats"] <= found["order_nats"]
    code, _, err = call("sample", tmp_path / "nade", "--size", 4, 11)
    assert code and "cannot take (1, 4, 11)" in err


def test_a_saved_model_keeps_its_order(tmp_path: Path) -> None:
    model = build("gated-pixelcnn", DataSpec("image", (1, 3, 4), levels=2), preset="tiny")
    turned, x = arrange(model, "columns-upward"), torch.randint(2, (5, 1, 3, 4))
    save(turned, tmp_path / "turned")
    again = load(tmp_path / "turned")
    assert torch.equal(again.log_prob(x), turned.log_prob(x))
    assert not torch.allclose(again.log_prob(x), model.log_prob(x))
