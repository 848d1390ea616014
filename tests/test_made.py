"""MADE: masks, counted paths, members of its ensemble, and a Program that costs one pass."""

from __future__ import annotations

import math
from itertools import product
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from ancestral.causal import GradedAffine
from ancestral.core import Autoregressive, OrderError
from ancestral.hub import load, save
from ancestral.models import build
from ancestral.networks.made import MADE, Masking, masking
from ancestral.objectives import Batch, ensemble_nll
from ancestral.sampling import arrange
from ancestral.spec import DataSpec, Order

BITS = DataSpec("vector", (6,), levels=2)


def fresh(spec: DataSpec = BITS, **overrides: Any) -> Any:
    model = build("made", spec, preset="tiny", **overrides)
    for parameter in model.parameters():
        torch.nn.init.normal_(parameter, std=0.6)
    return model


def states(sites: int) -> Tensor:
    return torch.tensor(list(product(range(2), repeat=sites)))


def paths(network: MADE) -> Tensor:
    """(outputs, sites) how many paths lead from an input to an output through the hidden layers."""
    total = network.hidden[0].mask.long()  # type: ignore[union-attr, operator]
    for layer in [*network.hidden[1:], network.output]:
        total = layer.mask.long() @ total  # type: ignore[operator, union-attr]
    return total


def test_paths_of_a_worked_example() -> None:
    chosen = Masking(Order.raster((4,)), ((1, 2, 3, 1, 2), (1, 2, 3, 2)))
    network = MADE((4,), levels=2, size=1, maskings=[chosen])
    assert paths(network).tolist() == [[0, 0, 0, 0], [2, 0, 0, 0], [10, 4, 0, 0], [15, 7, 1, 0]]


def test_a_strict_mask_between_hidden_layers_would_starve_an_output() -> None:
    """The rule of some descriptions, < everywhere, leaves output 2 without inputs; the paper's does not."""
    first, second = torch.tensor([1, 2, 3, 1, 2]), torch.tensor([1, 2, 3, 2])
    middle = GradedAffine(tuple(first.tolist()), tuple(second.tolist()))
    assert torch.equal(middle.mask, first <= second[:, None])
    inputs, outputs = torch.arange(4) < first[:, None], second <= torch.arange(4)[:, None]
    strict = outputs.long() @ (first < second[:, None]).long() @ inputs.long()
    assert strict[1].sum() == 0


@pytest.mark.parametrize("seed", range(4))
def test_every_site_sees_all_earlier_ones_and_no_other(seed: int) -> None:
    """Path counts, and the Jacobian, of random depths, orders and labels; labels reach D - 1 and no further."""
    depth = 1 + seed % 3
    chosen = masking((7,), (60,) * depth, number=seed)
    network = MADE((7,), None, size=2, maskings=[chosen], direct=False, discrete=False)
    for parameter in network.parameters():
        torch.nn.init.normal_(parameter)
    x = torch.randn(30, 7)
    slopes = torch.autograd.functional.jacobian(lambda x: network(x).sum((0, 2)), x).abs().sum(1)  # of rows and parameters
    place = torch.tensor(chosen.places)
    earlier = place < place[:, None]
    assert torch.equal(slopes > 0, earlier)
    assert torch.equal(paths(network)[::2] > 0, earlier)
    assert all(1 <= label <= 6 for labels in chosen.labels for label in labels)
    assert all(min(b) >= min(a) for a, b in zip(chosen.labels, chosen.labels[1:], strict=False))


@pytest.mark.parametrize("sites", [1, 2])
def test_very_few_sites(sites: int) -> None:
    spec = DataSpec("vector", (sites,), levels=3)
    model = fresh(spec)
    x = torch.tensor(list(product(range(3), repeat=sites)))
    assert abs(model.log_prob(x).exp().sum().item() - 1) < 1e-12
    walk = model.walk(len(x))
    while not walk.done:
        assert torch.allclose(walk.conditional.parameters, model.network(x)[:, walk.site])
        walk.settle(x[:, walk.site])


def test_members_are_distributions_and_so_is_their_mixture() -> None:
    model = fresh(orders=3)
    everything, total = states(6), torch.zeros(64)
    assert len({member.order for member in model.network.members(9)}) == 3
    for member in model.network.members(3):
        p = Autoregressive(member, model.family, BITS).log_prob(everything).exp()
        assert abs(p.sum().item() - 1) < 1e-10
        total += p / 3
        parameters = member(everything)
        walk = Autoregressive(member, model.family, BITS).walk(64)
        for site in member.order.sites:
            assert torch.allclose(walk.conditional.parameters, parameters[:, site], rtol=0, atol=1e-12)
            walk.settle(everything[:, site])
    assert abs(total.sum().item() - 1) < 1e-10


def test_masks_never_touch_the_weights() -> None:
    """Cycling through masks leaves every weight as it was, and evaluation does not move on to another mask."""
    model = fresh(orders=4)
    before = {name: value.clone() for name, value in model.state_dict().items()}
    x = torch.randint(2, (5, 6))
    first = model.log_prob(x)
    for step in range(9):
        ensemble_nll(model, Batch(x, step=step))
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())
    assert torch.equal(model.log_prob(x), first)
    assert torch.equal(ensemble_nll(model, Batch(x, step=4))["nll"], -first.mean())
    assert not torch.equal(ensemble_nll(model.train(), Batch(x, step=5))["nll"], -first.mean())
    assert torch.equal(ensemble_nll(model.eval(), Batch(x, step=5))["nll"], -first.mean())  # validations are of one member


def test_masks_are_the_same_after_a_rebuild() -> None:
    one, other = fresh(orders=3), fresh(orders=3)
    other.load_state_dict(one.state_dict())
    x = torch.randint(2, (4, 6))
    for number in range(3):
        assert torch.equal(one.network.masked(number)(x), other.network.masked(number)(x))


@pytest.mark.parametrize("connectivity", [True, False])
def test_labels_are_resampled_only_where_asked(connectivity: bool) -> None:
    labels = {masking((9,), (20, 20), number, connectivity).labels for number in range(4)}
    assert len(labels) == (4 if connectivity else 1)


def test_orders() -> None:
    model = fresh(orders=2)
    order = Order((5, 4, 3, 2, 1, 0))
    view = model.network.arrange(order)
    assert view.order == order and {id(p) for p in view.parameters()} == {id(p) for p in model.network.parameters()}
    p = Autoregressive(view, model.family, BITS).log_prob(states(6)).exp().sum()
    assert abs(p.item() - 1) < 1e-10
    with pytest.raises(OrderError, match="made for one order"):
        fresh().network.arrange(order)


def test_parameter_count() -> None:
    model = build("made", DataSpec("image", (1, 28, 28), levels=2), preset="small")
    d, h = 784, 1024
    assert sum(p.numel() for p in model.parameters()) == d * h + h + h * h + h + h * d + d + d * d


def test_a_walk_costs_one_pass() -> None:
    """All steps of a walk together multiply with every weight under the masks once, and with no other."""
    network: MADE = fresh(DataSpec("image", (1, 4, 5), levels=2), hidden=64, layers=3).network
    masks = [layer.mask for layer in [*network.hidden, network.output, network.direct]]  # type: ignore[union-attr]
    assert network.lowered().multiply_adds == sum(int(mask.sum()) for mask in masks)  # type: ignore[operator]


@pytest.mark.parametrize("overrides", [{"orders": 0}, {"layers": 0}])
def test_too_few_are_refused(overrides: dict[str, int]) -> None:
    with pytest.raises(ValueError, match="at least 1 order, 1 layer"):
        fresh(**overrides)


def test_it_learns_a_parity_under_every_mask() -> None:
    """x3 = x1 xor x2 costs 2 ln 2 nats in every order."""
    spec = DataSpec("vector", (3,), levels=2)
    model: Any = build("made", spec, preset="tiny", hidden=48, orders=2)
    optimiser = torch.optim.Adam(model.parameters(), lr=2e-2)
    for step in range(300):
        bits = torch.randint(2, (64, 2))
        optimiser.zero_grad()
        ensemble_nll(model, Batch(torch.cat([bits, bits.sum(1, keepdim=True) % 2], 1), step=step))["loss"].backward()
        optimiser.step()
    x = torch.tensor([[0, 0, 0], [0, 1, 1], [1, 0, 1], [1, 1, 0]])
    for member in model.network.members(2):
        assert -Autoregressive(member, model.family, spec).log_prob(x).mean() < 2 * math.log(2) + 0.1


def test_a_member_of_an_ensemble_stays_what_it_is(tmp_path: Path) -> None:
    """Arranged in its own order, and saved and loaded, it has its own labels, not those of the first mask."""
    model = build("made", DataSpec("vector", (6,), levels=2), preset="tiny", orders=3)
    member, x = model.network.masked(2), torch.randint(2, (4, 6))
    assert torch.equal(member.arrange()(x), member(x))
    alone = Autoregressive(member, model.family, model.spec, model.config)
    save(alone, tmp_path / "member")
    assert torch.equal(load(tmp_path / "member").log_prob(x), alone.log_prob(x))
    assert not torch.allclose(model.log_prob(x), alone.log_prob(x))
    turned = arrange(alone, Order((5, 4, 3, 2, 1, 0)))
    save(turned, tmp_path / "turned")
    assert torch.equal(load(tmp_path / "turned").log_prob(x), turned.log_prob(x))
    raster = arrange(alone, "raster")
    save(raster, tmp_path / "raster")
    assert torch.equal(load(tmp_path / "raster").log_prob(x), raster.log_prob(x))
    assert not torch.allclose(model.log_prob(x), raster.log_prob(x))
