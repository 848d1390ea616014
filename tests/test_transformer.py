"""The Transformer: attention and rotations by hand, lengths, images, all orders."""

from __future__ import annotations

import math
from itertools import permutations, product
from typing import Any

import pytest
import torch
from torch import Tensor

from ancestral.causal.attention import Angles, attended, rotated
from ancestral.core import Autoregressive, Context, OrderError
from ancestral.models import build
from ancestral.objectives import Batch, shuffled
from ancestral.sampling import complete
from ancestral.spec import DataSpec, Order
from ancestral.training import fit

TEXT, IMAGE, BITS = DataSpec("text", (9,), levels=5), DataSpec("image", (2, 2, 3), levels=4), DataSpec("vector", (4,), levels=2)


def fresh(spec: DataSpec, seed: int = 0, **overrides: Any) -> Any:
    torch.manual_seed(seed)
    model = build("transformer", spec, preset="tiny", **overrides)
    for parameter in model.parameters():
        torch.nn.init.normal_(parameter, std=0.5)
    return model


# -- attention and rotation by hand -------------------------------------------------------------------------------------------


def by_hand(q: Tensor, k: Tensor, v: Tensor, size: int, window: int) -> Tensor:
    """One query, one head, one key after the other."""
    (n, m, width), r = q.shape, k.shape[1]
    y = torch.zeros_like(q)
    shared = width // k.shape[2]
    for row, i, head in product(range(n), range(m), range(width // size)):
        here, part = r - m + i, slice(head // shared * size, (head // shared + 1) * size)
        own = slice(head * size, (head + 1) * size)
        seen = [j for j in range(r) if here - window < j <= here]
        weights = torch.stack([q[row, i, own] @ k[row, j, part] / size**0.5 for j in seen]).softmax(0)
        y[row, i, own] = sum(w * v[row, j, part] for w, j in zip(weights, seen, strict=True))
    return y


@pytest.mark.parametrize("shared", [1, 2])
@pytest.mark.parametrize(
    ("m", "r", "window"), [(7, 7, 7), (7, 7, 3), (8, 8, 4), (5, 5, 1), (1, 6, 6), (3, 8, 8), (3, 8, 4), (2, 3, 9)]
)
def test_attention_is_what_its_equation_says(m: int, r: int, window: int, shared: int) -> None:
    size, heads = 3, 4
    q, k, v = torch.randn(2, m, heads * size), *torch.randn(2, 2, r, heads * size // shared).unbind()
    assert torch.allclose(attended(q, k, v, size, window), by_hand(q, k, v, size, window), rtol=0, atol=1e-12)


def test_tokens_that_are_not_seen_have_no_weight_at_all() -> None:
    """Also where they would have all of it: they are left out before the softmax, not after."""
    q, k, v = torch.ones(1, 4, 2), torch.ones(1, 4, 2), torch.randn(1, 4, 2)
    loud = k.clone()
    loud[:, 2:] = 1e4
    assert torch.equal(attended(q, loud, v, 2, 4)[:, :2], attended(q, k, v, 2, 4)[:, :2])


def test_rotated_products_depend_on_how_far_apart_tokens_are() -> None:
    size, tokens = 6, 30
    angles = Angles(size, tokens)(None)[0, :, :, 0].T
    q, k = torch.randn(2, size)
    products = rotated(q.expand(tokens, -1), angles, size) @ rotated(k.expand(tokens, -1), angles, size).T
    for apart in range(-tokens + 1, tokens):
        along = products.diagonal(apart)
        assert torch.allclose(along, along[:1], rtol=0, atol=1e-12)
    assert products.std() > 0.1
    by_pairs = torch.complex(q[: size // 2], q[size // 2 :]) * torch.polar(
        torch.ones(3), 7 * 10000.0 ** (-torch.arange(0, 6, 2) / 6)
    )
    assert torch.allclose(rotated(q, angles[7], size), torch.cat([by_pairs.real, by_pairs.imag]), rtol=0, atol=1e-12)
    more = torch.cat([q, k])
    assert torch.equal(rotated(more, angles[7], size)[size:], k)


# -- lengths, places, sizes --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("options", [{}, {"places": "rotary", "norm": "rms"}, {"places": "rotary", "window": 3}])
def test_longer_texts_begin_as_shorter_ones(options: dict[str, Any]) -> None:
    model = fresh(DataSpec("text", (None,), levels=5, end=4), **options)
    x = torch.randint(4, (3, 15))
    whole = model.conditionals(x).parameters
    for length in (1, 2, 11):
        assert torch.allclose(model.conditionals(x[:, :length]).parameters, whole[:, :length], rtol=0, atol=1e-12)
    assert {id(p) for p in model.network.arrange(shape=(3,)).parameters()} == {id(p) for p in model.network.parameters()}


def test_rotary_places_have_no_end_and_learned_ones_do() -> None:
    spec = DataSpec("text", (None,), levels=5, end=4)
    x = torch.randint(4, (2, 40))
    assert fresh(spec, places="rotary").log_prob(x).shape == (2,)
    with pytest.raises(OrderError, match=r"vectors for 16 places of the axis 'place', not 40.*--context 40, --places rotary"):
        fresh(spec).log_prob(x)
    with pytest.raises(OrderError, match="places='rotary'"):
        build("transformer", DataSpec("text", (40,), levels=5), preset="tiny")


def test_what_follows_the_end_counts_nothing() -> None:
    model = fresh(DataSpec("text", (None,), levels=3, end=2), places="rotary")
    x = torch.tensor([[0, 1, 2, 2, 2], [0, 1, 2, 0, 1]])
    log_p = model.log_prob(x)
    assert torch.allclose(log_p[0], log_p[1]) and torch.allclose(log_p[0], model.log_prob(x[:1, :3])[0])


def test_symbols_of_one_sample_are_told_apart() -> None:
    model = fresh(DataSpec("audio", (8,), levels=4, parts=2), places="rotary")
    assert model.network.places.targets["part"].shape[0] == 2
    x = torch.zeros(1, 8, dtype=torch.long)
    parameters = model.network(x)[0]
    assert not torch.allclose(parameters[3], parameters[4], atol=1e-3)


@pytest.mark.parametrize("order", ["raster", "rows-leftward", "columns-upward"])
@pytest.mark.parametrize("places", ["learned", "rotary"])
def test_images_in_other_orders_and_sizes_walk_as_they_compute(order: str, places: str) -> None:
    model = fresh(IMAGE, places=places)
    shape = (2, 2, 2) if places == "learned" else (2, 4, 3)
    network = model.network.arrange(order, shape)
    x = torch.randint(4, (2, *shape))
    assert network.order == Order.turned(shape, network.symmetry)
    turned = Autoregressive(network, model.family, DataSpec("image", shape, levels=4))
    walk, flat = turned.walk(2), x.flatten(1)[:, list(network.order.sites)]
    want = network(x).flatten(1, -2)[:, list(network.order.sites)]
    assert torch.allclose(walk.extend(flat).parameters, want, rtol=0, atol=1e-12)


def test_an_image_that_is_turned_is_the_turned_image() -> None:
    model = fresh(DataSpec("image", (1, 3, 3), levels=4))
    x = torch.randint(4, (2, 1, 3, 3))
    turned = model.network.arrange("columns-leftward")(x)
    assert torch.allclose(turned, model.network(x.flip(3).mT).transpose(2, 3).flip(3), rtol=0, atol=1e-12)


@pytest.mark.parametrize(
    ("spec", "options", "message"),
    [
        (IMAGE, {"shape": (1, 2, 3)}, "images of as many channels"),
        (IMAGE, {"shape": (2, 3, 3)}, "vectors for 2 places of the axis 'row'"),
        (IMAGE, {"order": Order.shuffled((2, 2, 3), 1)}, "eight symmetries"),
        (TEXT, {"order": Order.shuffled((9,), 1)}, "from left to right"),
        (TEXT, {"shape": (1, 2, 3)}, "takes sequences"),
        (DataSpec("audio", (8,), levels=4, parts=2), {"shape": (7,)}, "a multiple of 2 symbols"),
    ],
)
def test_arrangements_that_cannot_be(spec: DataSpec, options: dict[str, Any], message: str) -> None:
    with pytest.raises(OrderError, match=message):
        fresh(spec).network.arrange(**options)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"heads": 3}, "heads share evenly"),
        ({"layers": 0}, "at least 1 layer"),
        ({"places": "sinusoidal"}, "none of learned, rotary"),
        ({"norm": "batch"}, "none of layer, rms"),
        ({"key_heads": 3, "heads": 4}, "cannot share 3 heads of keys"),
        ({"width": 6, "places": "rotary"}, "pair by pair"),
        ({"any_order": True, "places": "rotary"}, "any_order=True needs"),
        ({"key_heads": -1}, "neither can be negative"),
        ({"window": -1}, "neither can be negative"),
        ({"context": 0}, "context is 0; it must be at least 1, the length"),
        ({"dropout": math.nan}, "dropout is nan; it must be at least 0 and below 1"),
        ({"dropout": 1.0}, "dropout is 1.0"),
    ],
)
def test_settings_that_contradict_each_other(options: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        build("transformer", TEXT, preset="tiny", **options)
    with pytest.raises(ValueError, match="needs levels in order"):
        build("transformer", DataSpec("text", (None,), levels=5, end=4), preset="tiny", family="logistic")
    with pytest.raises(ValueError, match="integers, not real values"):
        build("transformer", DataSpec("vector", (3,)))


def test_small_is_the_size_of_the_public_recipe() -> None:
    model = build("transformer", DataSpec("text", (256,), levels=65), dropout=0.0)
    assert 0.8e6 < sum(parameter.numel() for parameter in model.parameters()) < 0.85e6


# -- training ----------------------------------------------------------------------------------------------------------------


def test_dropout_is_for_training_alone() -> None:
    model = fresh(TEXT, dropout=0.5)
    x = torch.randint(5, (4, 9))
    assert not torch.equal(model.train().log_prob(x), model.log_prob(x))
    assert torch.equal(model.eval().log_prob(x), model.log_prob(x))
    assert model.train().network.lowered() is model.network.lowered()


def test_weights_start_as_gpt2s() -> None:
    network = build("transformer", DataSpec("text", (64,), levels=200), width=128, layers=3).network
    tied: set[str] = set()
    for name, weight in network.named_parameters():
        wanted = 0.01 if name.startswith("places.targets") else 0.02 / math.sqrt(6) if "mix" in name or "down" in name else 0.02
        if weight.dim() > 1:
            assert abs(weight.std().item() / wanted - 1) < 0.1, name
            tied |= {name} if weight.numel() == 200 * 128 else set()
        elif name != "places.start":
            assert weight.unique().tolist() == [1.0 if "gain" in name else 0.0], name
    assert tied == {"embedding.table"}  # the table is there once


def test_half_precision_trains() -> None:
    model = fresh(TEXT, places="rotary").float()
    with torch.autocast("cpu", dtype=torch.bfloat16):
        log_p = model.log_prob(torch.randint(5, (4, 9)))
    log_p.sum().backward()
    assert log_p.dtype == torch.float32 and all(torch.isfinite(p.grad).all() for p in model.parameters())


def test_it_learns_what_came_long_before() -> None:
    """Texts a b c a b c with fair a, b, c cost 3 ln 4 nats: the second half is a copy from three tokens before."""
    torch.manual_seed(0)
    model: Any = build("transformer", DataSpec("text", (6,), levels=4), preset="tiny", width=16)
    optimiser = torch.optim.Adam(model.parameters(), lr=1e-2)
    for _ in range(250):
        half = torch.randint(4, (64, 3))
        loss = -model.log_prob(torch.cat([half, half], 1)).mean()
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
    assert loss.item() < 3 * math.log(4) + 0.3


# -- all orders --------------------------------------------------------------------------------------------------------------


def states(sites: int) -> Tensor:
    return torch.tensor(list(product(range(2), repeat=sites)))


def test_any_order_is_for_examples_of_one_length() -> None:
    with pytest.raises(ValueError, match="end is 4"):
        build("transformer", DataSpec("text", (8,), levels=5, end=4), preset="tiny", any_order=True)


@pytest.mark.parametrize("spec", [IMAGE, DataSpec("text", (6,), levels=4, classes=3)])
def test_given_is_the_next_conditional_of_any_order(spec: DataSpec) -> None:
    model = fresh(spec, any_order=True, conditional=spec.classes is not None)
    context = Context(vector=torch.eye(3)) if spec.classes else None
    sites = spec.sites
    x = torch.randint(4, (3, *spec.shape))  # type: ignore[arg-type]
    for count in range(sites):
        chosen = torch.randperm(sites)
        known = torch.zeros(sites, dtype=torch.bool)
        known[chosen[:count]] = True
        order = Order((*sorted(chosen[:count].tolist()), *chosen[count:].tolist()))
        full = model.network.arrange(order)(x, context).flatten(1, -2)
        garbage = torch.where(known.view(spec.shape), x, -99)
        found = model.network.given(garbage, known.view(spec.shape), context).flatten(1, -2)
        assert torch.allclose(found[:, order.sites[count]], full[:, order.sites[count]], rtol=0, atol=1e-12)


def test_every_row_may_know_other_sites_and_have_an_order_of_its_own() -> None:
    model = fresh(IMAGE, any_order=True)
    x, orders = torch.randint(4, (4, *IMAGE.shape)), torch.stack([torch.randperm(12) for _ in range(4)])  # type: ignore[arg-type]
    together = model.network.along(x, orders)
    known = torch.rand(4, *IMAGE.shape) < torch.tensor([0.0, 0.3, 0.7, 0.9]).view(4, 1, 1, 1)  # type: ignore[arg-type]
    given = model.network.given(x, known)
    for row in range(4):
        alone = model.network.arrange(Order(tuple(orders[row].tolist())))(x[row : row + 1])
        assert torch.allclose(together[row], alone[0], rtol=0, atol=1e-12)
        assert torch.allclose(given[row], model.network.given(x[row : row + 1], known[row])[0], rtol=0, atol=1e-12)


def test_every_order_is_a_distribution_and_walks_as_it_computes() -> None:
    model, everything = fresh(BITS, any_order=True), states(4)
    totals = []
    for sites in permutations(range(4)):
        network = model.network.arrange(Order(sites))
        turned = Autoregressive(network, model.family, BITS)
        totals.append(turned.log_prob(everything).exp().sum().item())
        found = turned.walk(16).extend(everything[:, list(sites)]).parameters
        assert torch.allclose(found, network(everything)[:, list(sites)], rtol=0, atol=1e-12)
    assert max(abs(total - 1) for total in totals) < 1e-10


def test_shuffled_is_the_mean_over_all_orders() -> None:
    model, x = fresh(BITS, any_order=True), torch.tensor([[1, 0, 0, 1]])
    views = [model.network.arrange(Order(sites)) for sites in permutations(range(4))]
    exact = [-Autoregressive(network, model.family, BITS).log_prob(x).item() for network in views]
    with torch.no_grad():
        losses = torch.stack([shuffled(model, Batch(x.expand(1000, 4), seed=seed))["loss"] for seed in range(20)])
        again = shuffled(model, Batch(x.expand(3, 4), seed=0, rows=[5, 900, 7]))["loss"]
        parts = [shuffled(model, Batch(x, seed=0, rows=[row]))["loss"] for row in (5, 900, 7)]
    assert abs(losses.mean().item() - sum(exact) / 24) < 4 * losses.std().item() / 20**0.5
    assert torch.allclose(again, sum(parts) / 3)  # a row's order does not depend on its companions


def test_a_hole_is_completed_exactly() -> None:
    model = fresh(BITS, any_order=True)
    x, known = torch.tensor([[1, 0, 0, 1]]), torch.tensor([True, False, True, False])
    done = complete(model, x.expand(4000, 4), known, seed=1)
    assert done.status == "exact" and torch.equal(done.x[:, known], x[:, known].expand(4000, 2))
    first = Autoregressive(model.network.arrange(Order((0, 2, 1, 3))), model.family, BITS)
    both = torch.tensor([[1, a, 0, b] for a, b in product(range(2), repeat=2)])
    wanted = first.log_prob(both).softmax(0)
    counts = (2 * done.x[:, 1] + done.x[:, 3]).bincount(minlength=4) / 4000
    assert (counts - wanted).abs().max() < 4 * (0.25 / 4000) ** 0.5


def test_training_reaches_the_entropy_of_a_parity_in_every_order() -> None:
    spec = DataSpec("vector", (3,), levels=2)
    torch.manual_seed(0)
    model: Any = build("transformer", spec, preset="tiny", any_order=True, width=16)
    assert [stage.objective for stage in model.config.stages] == ["shuffled"]
    optimiser = torch.optim.Adam(model.parameters(), lr=3e-3)
    for step in range(350):
        bits = torch.randint(2, (64, 2))
        optimiser.zero_grad()
        shuffled(model, Batch(torch.cat([bits, bits.sum(1, keepdim=True) % 2], 1), seed=step))["loss"].backward()
        optimiser.step()
    x = torch.tensor([[0, 0, 0], [0, 1, 1], [1, 0, 1], [1, 1, 0]])
    for sites in permutations(range(3)):
        network = model.network.arrange(Order(sites))
        assert -Autoregressive(network, model.family, spec).log_prob(x).mean() < 2 * math.log(2) + 0.05


@pytest.mark.parametrize("options", [{}, {"any_order": True}])
def test_the_trainer_trains_it(options: dict[str, Any]) -> None:
    torch.manual_seed(0)
    model = build("transformer", DataSpec("vector", (4,), levels=2), preset="tiny", **options)
    before = [parameter.clone() for parameter in model.parameters()]
    run = fit(model, torch.randint(2, (40, 4)).numpy(), steps=3, batch_size=8)
    assert all(not torch.equal(old, new) for old, new in zip(before, run.model.parameters(), strict=True))
