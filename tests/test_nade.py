"""NADE, RNADE and DeepNADE: worked examples, the fast recursion, any order, and what training minimises."""

from __future__ import annotations

import math
from itertools import permutations, product
from typing import Any

import pytest
import torch
from torch import Tensor

from ancestral.causal.sequence import RunningSum, SiteAffine, pieces
from ancestral.core import Autoregressive, Context, OrderError
from ancestral.evaluation.ensemble import ensemble
from ancestral.families import Bernoulli, Categorical, Columns, NormalMixture
from ancestral.models import build
from ancestral.networks.images import starting_bias
from ancestral.networks.nade import NADE, DeepNADE
from ancestral.objectives import Batch, orderless
from ancestral.sampling import complete
from ancestral.spec import DataSpec, Order

BITS = DataSpec("vector", (5,), levels=2)


def states(sites: int) -> Tensor:
    return torch.tensor(list(product(range(2), repeat=sites)))


def fresh(name: str, spec: DataSpec, **overrides: Any) -> Any:
    model = build(name, spec, preset="tiny", **overrides)
    for parameter in model.parameters():
        torch.nn.init.normal_(parameter, std=0.6)
    return model


def test_worked_example() -> None:
    """H = 2, D = 3: log-probabilities of all eight states, computed by hand from the equations of the paper."""
    network = NADE((3,), levels=2, size=1, hidden=2, activation="sigmoid")
    with torch.no_grad():
        network.sum.weight.copy_(torch.tensor([[1.0, 0.5], [-1.0, 1.0], [0.5, -1.0]])[:, None])
        network.output.weight.copy_(torch.tensor([[1.0, 0.0], [0.0, 1.0], [1.0, -1.0]])[..., None])
        network.output.bias.copy_(torch.tensor([0.0, 0.5, -0.5])[:, None])
    model = Autoregressive(network, Bernoulli(), DataSpec("vector", (3,), levels=2))
    wanted = [-2.761415656, -3.261415656, -1.610930525, -2.573047682, -2.394784854, -2.786185606, -1.121535488, -1.939109964]
    log_p = model.log_prob(states(3))
    assert torch.allclose(log_p, torch.tensor(wanted), rtol=0, atol=1e-8)
    assert abs(log_p.exp().sum().item() - 1) < 1e-12
    chances = network(torch.tensor([[1, 0, 1]]))[0, :, 0].sigmoid()
    assert torch.allclose(chances, torch.tensor([0.622459331, 0.754444612, 0.403380144]), rtol=0, atol=1e-8)


@pytest.mark.parametrize("name", ["relu", "sigmoid"])
@pytest.mark.parametrize("size", [1, 3])
def test_the_recursion_is_what_the_layers_say(name: str, size: int) -> None:
    """Parameters, and slopes of everything that has any, over several chunks of sites."""
    sites = 19
    network = NADE((sites,), None, size, hidden=6, activation=name, discrete=False)
    for parameter in network.parameters():
        torch.nn.init.normal_(parameter, std=0.5)
    x = torch.randn(4, sites, requires_grad=True)
    assert len(pieces(sites, 4 * 6)) > 2
    fast = network(x)
    scaled = network.scale(x[:, None, :, None])
    slow = network.output(network.activation(network.sum(scaled)))[..., 0].mT
    assert torch.allclose(fast, slow, rtol=0, atol=1e-12)
    weight = torch.randn_like(fast)
    wanted = [x, *network.parameters()]
    slopes = [torch.autograd.grad((weight * y).sum(), wanted) for y in (fast, slow)]
    for one, other in zip(*slopes, strict=True):
        assert torch.allclose(one, other, rtol=0, atol=1e-11)


def test_parameter_counts() -> None:
    def count(name: str, **sizes: int) -> int:
        return sum(p.numel() for p in build(name, DataSpec("image", (1, 28, 28), levels=2), preset="paper", **sizes).parameters())

    assert count("nade") == 784 * 500 + 500 + 784 * 500 + 784
    assert count("deep-nade") == 2 * 784 * 500 + 500 + 500 * 500 + 500 + 784 * 500 + 784


def test_every_site_has_hidden_values_of_its_own() -> None:
    """The symbol before a site changes its parameters; a single hidden vector of the first sites could not know it."""
    parameters = fresh("nade", BITS).network(torch.cat([torch.zeros(1, 5), torch.eye(5)]).long())
    for site in range(1, 5):
        assert (parameters[site, site] != parameters[0, site]).all()  # row i + 1 has a one at site i


def test_half_precision_leaves_the_sum_alone() -> None:
    network = NADE((40,), 2, 1, hidden=8).float()
    x = torch.randint(2, (3, 40))
    with torch.autocast("cpu", dtype=torch.bfloat16):
        half = network(x)
    assert torch.equal(half, network(x))


# -- RNADE -------------------------------------------------------------------------------------------------------------------


def test_components_start_side_by_side() -> None:
    bias = starting_bias(Columns((Bernoulli(), NormalMixture(2))), 2)
    assert bias[0].eq(0).all()
    assert torch.allclose(bias[1], torch.tensor([0.0, 0.0, -1.0, 1.0, math.log(2), math.log(2)]))
    model = build("rnade", DataSpec("vector", (3,)), preset="tiny")
    x = torch.randn(2000, 3)
    assert -model.log_prob(x).mean() < 3 * 2.2  # a standard normal takes 1.419 nats a site


def test_one_component_and_no_weights_is_a_normal_density() -> None:
    model: Any = build("rnade", DataSpec("vector", (2,)), preset="tiny", components=1)
    for parameter in model.parameters():
        torch.nn.init.zeros_(parameter)
    x = torch.tensor([[0.0, 1.5]])
    wanted = torch.distributions.Normal(0.0, 1.0).log_prob(x).sum()
    assert torch.allclose(model.log_prob(x)[0], wanted)


def test_a_factor_of_a_site_is_that_of_its_sum() -> None:
    """relu(rho a) = rho relu(a) for rho > 0."""
    layer = SiteAffine(3, 2, 4, scaled=True)
    x, rho = torch.randn(5, 3, 4, 1), torch.rand(4) + 0.5
    plain = layer((rho[:, None] * x).relu())
    assert layer.gain is not None
    torch.nn.init.constant_(layer.gain, 1.0)
    layer.gain.data *= rho[:, None, None]
    assert torch.allclose(layer(x.relu()), plain)


# -- orders ------------------------------------------------------------------------------------------------------------------


def test_any_order_is_a_distribution_and_walks_as_it_computes() -> None:
    model = fresh("deep-nade", BITS, layers=3)
    everything, total = states(5), torch.zeros(32)
    for seed in range(3):
        network = model.network.arrange(Order.shuffled((5,), seed))
        turned = Autoregressive(network, model.family, BITS)
        p = turned.log_prob(everything).exp()
        total += p / 3
        assert abs(p.sum().item() - 1) < 1e-10
        walk = turned.walk(32)
        found = torch.stack([walk_step(walk, everything, site) for site in network.order.sites], 1)
        assert torch.allclose(found, network(everything)[:, list(network.order.sites)], rtol=0, atol=1e-12)
    assert abs(total.sum().item() - 1) < 1e-10  # so is the mixture over orders


def walk_step(walk: Any, x: Tensor, site: int) -> Tensor:
    parameters: Tensor = walk.conditional.parameters
    walk.settle(x[:, site])
    return parameters


def test_given_is_the_next_conditional_of_any_order() -> None:
    spec = DataSpec("image", (1, 2, 3), levels=4, classes=3)
    model = fresh("deep-nade", spec, conditional=True)
    context = Context(vector=torch.eye(3))
    x, order = torch.randint(4, (3, 1, 2, 3)), Order.shuffled((1, 2, 3), 7)
    full = model.network.arrange(order)(x, context).flatten(1, -2)
    for place, site in enumerate(order.sites):
        known = torch.zeros(6, dtype=torch.bool)
        known[list(order.sites[:place])] = True
        garbage = torch.where(known.view(1, 2, 3), x, -99)
        found = model.network.given(garbage, known.view(1, 2, 3), context).flatten(1, -2)
        assert torch.allclose(found[:, site], full[:, site], rtol=0, atol=1e-12)


def test_a_known_zero_differs_from_the_unknown() -> None:
    network = fresh("deep-nade", BITS).network
    x, none = torch.zeros(1, 5, dtype=torch.long), torch.zeros(5, dtype=torch.bool)
    one = none.clone()
    one[2] = True
    assert not torch.allclose(network.given(x, none), network.given(x, one))


def test_a_view_shares_weights_and_leaves_the_network_alone() -> None:
    network = fresh("deep-nade", BITS).network
    x = torch.randint(2, (4, 5))
    before = network(x)
    view = network.arrange(Order((4, 3, 2, 1, 0)))
    assert {id(p) for p in view.parameters()} == {id(p) for p in network.parameters()}
    turned = view(x)
    assert torch.equal(network(x), before) and network.order == Order.raster((5,))
    assert torch.equal(view.arrange(Order.raster((5,)))(x), before)
    network.sum.bias.data += 1
    assert not torch.allclose(view(x), turned)


@pytest.mark.parametrize(
    ("name", "options", "message"),
    [
        ("nade", {"order": Order((1, 0, 2, 3, 4))}, "made for one order"),
        ("deep-nade", {"order": Order((0, 0, 1, 2, 3))}, "a permutation of the 5"),
        ("deep-nade", {"order": [4, 3, 2, 1, 0]}, "not an Order"),
        ("deep-nade", {"order": "rows-upward"}, "no order 'rows-upward'"),
        ("deep-nade", {"shape": (6,)}, "cannot take"),
    ],
)
def test_orders_that_do_not_fit(name: str, options: dict[str, Any], message: str) -> None:
    with pytest.raises(OrderError, match=message):
        fresh(name, BITS).network.arrange(**options)


def test_random_orders_are_a_function_of_the_seed() -> None:
    network = fresh("deep-nade", BITS).network
    orders = [[member.order for member in ensemble(network, count, seed)[0]] for count, seed in ((4, 1), (6, 1), (4, 2))]
    assert orders[0] == orders[1][:4] and not set(orders[0]) & set(orders[2])
    assert ensemble(network, 2)[1] == "random orders"
    with pytest.raises(OrderError, match="made for one order"):
        ensemble(fresh("nade", BITS).network, 3)


def test_a_hole_is_completed_exactly() -> None:
    model = fresh("deep-nade", BITS)
    x, known = torch.tensor([[1, 0, 0, 1, 1]]), torch.tensor([True, False, True, False, True])
    done = complete(model, x.expand(50, 5), known, seed=1)
    assert done.status == "exact" and torch.equal(done.x[:, known], x[:, known].expand(50, 3))


# -- the order-agnostic objective --------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "spec",
    [
        DataSpec("text", (6,), levels=40),
        DataSpec("text", (6,), levels=40, end=39),
        DataSpec("audio", (6,), levels=256, parts=2),
    ],
)
@pytest.mark.parametrize("name", ["nade", "made", "deep-nade"])
def test_levels_without_an_order_have_a_softmax(name: str, spec: DataSpec) -> None:
    if name == "deep-nade" and spec.end is not None:
        pytest.skip("a model of several orders has no end")
    assert isinstance(build(name, spec, preset="tiny").family, Categorical)  # type: ignore[union-attr]
    with pytest.raises(ValueError, match="needs levels in order"):
        build(name, spec, preset="tiny", family="logistic")


def test_orderless_is_the_mean_over_all_orders() -> None:
    """Unbiased for E_o[-log p_o(x)]: the mean over many masks meets the mean over all 24 orders of four sites."""
    spec = DataSpec("vector", (4,), levels=2)
    model = fresh("deep-nade", spec)
    x = torch.tensor([[1, 0, 0, 1]])
    exact = [
        -Autoregressive(model.network.arrange(Order(sites)), model.family, spec).log_prob(x).item()
        for sites in permutations(range(4))
    ]
    draws = 20_000
    with torch.no_grad():
        losses = torch.stack([orderless(model, Batch(x.expand(draws // 10, 4), seed=seed))["loss"] for seed in range(10)])
    assert abs(losses.mean().item() - sum(exact) / 24) < 4 * losses.std().item() / 10**0.5


def test_how_many_sites_are_known_is_uniform() -> None:
    seen: list[Tensor] = []

    class Spy(DeepNADE):
        def given(self, x: Tensor, known: Tensor, context: Context | None = None) -> Tensor:
            seen.append(known)
            return super().given(x, known, context)

    model = Autoregressive(Spy((5,), 2, 1, hidden=3, layers=2), Bernoulli(), BITS)
    x = torch.zeros(4000, 5, dtype=torch.long)
    first = orderless(model, Batch(x, seed=3))["loss"]
    counts = seen[0].sum(1).bincount(minlength=6)
    assert counts[5] == 0 and (counts[:5] - 800).abs().max() < 120
    assert (seen[0].double().mean(0) - 0.4).abs().max() < 0.04  # 2 of 5 sites on average, all alike
    assert torch.equal(orderless(model, Batch(x, seed=3))["loss"], first)
    some = Batch(x[:3], seed=3, rows=[7, 1, 9])
    orderless(model, some)
    assert torch.equal(seen[-1], seen[0][[7, 1, 9]])  # a row's mask does not depend on its companions


def test_training_reaches_the_entropy_of_a_parity() -> None:
    """x3 = x1 xor x2 costs 2 ln 2 nats in every order."""
    spec = DataSpec("vector", (3,), levels=2)
    model: Any = build("deep-nade", spec, preset="tiny", hidden=24)
    optimiser = torch.optim.Adam(model.parameters(), lr=2e-2)
    for step in range(400):
        bits = torch.randint(2, (64, 2))
        batch = Batch(torch.cat([bits, bits.sum(1, keepdim=True) % 2], 1), seed=step)
        optimiser.zero_grad()
        orderless(model, batch)["loss"].backward()
        optimiser.step()
    x = torch.tensor([[0, 0, 0], [0, 1, 1], [1, 0, 1], [1, 1, 0]])
    for network in ensemble(model.network, 2)[0]:
        assert -Autoregressive(network, model.family, spec).log_prob(x).mean() < 2 * math.log(2) + 0.1


@pytest.mark.parametrize(
    ("name", "spec", "overrides", "message"),
    [
        ("nade", DataSpec("vector", (3,)), {}, "rnade models real values"),
        ("rnade", BITS, {}, "nade models integers"),
        ("nade", DataSpec("text", (None,), 5, end=4), {}, "fixed shape"),
        ("deep-nade", DataSpec("text", (6,), 5, end=4), {}, "examples of one length"),
        ("made", DataSpec("text", (6,), 5, end=4), {"orders": 2}, "examples of one length"),
        ("rnade", DataSpec("vector", (3,)), {"family": "categorical"}, "does not fit real values"),
        ("nade", BITS, {"activation": "swish"}, "none of relu, sigmoid"),
    ],
)
def test_what_does_not_fit_is_refused(name: str, spec: DataSpec, overrides: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        build(name, spec, preset="tiny", **overrides)


def test_plain_layers_in_another_order() -> None:
    layer = RunningSum(2, 3, 4)
    x, order = torch.randn(2, 2, 4, 1), (2, 0, 3, 1)
    weight = layer.weight[list(order)]
    sums = layer.arranged(order)(x)[..., 0]
    wanted = torch.einsum("nct,tch->nh", x[:, :, :3, 0], weight[:3]) + layer.bias
    assert torch.allclose(sums[..., 3], wanted) and torch.allclose(sums[..., 0], layer.bias.expand(2, 3))
