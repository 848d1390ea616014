"""PixelVAE, its hierarchy, and VLAE: how z enters, that it counts, and that p(z1 | z2) is the autoregressive density it says."""

from __future__ import annotations

from copy import deepcopy
from math import log
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.nn import functional

import ancestral
from ancestral.core import Context
from ancestral.latent.encoders import evened
from ancestral.latent.latent import Latent
from ancestral.latent.pixelvae import AutoregressiveNormal, HierarchicalTopDown
from ancestral.latent.topdown import Noise, given
from ancestral.objectives import Batch, elbo
from ancestral.spec import DataSpec

BITS = DataSpec("image", (1, 6, 8), levels=2, classes=3)
RGB = DataSpec("image", (3, 4, 6), levels=256)
FORMS: dict[str, tuple[str, dict[str, Any]]] = {
    "vector": ("pixelvae", {}),
    "upsample": ("pixelvae", {"form": "upsample"}),
    "hierarchical": ("hierarchical-pixelvae", {}),
    "vlae": ("vlae", {}),
}


def made(form: str, spec: DataSpec = BITS, **overrides: Any) -> Latent:
    """A tiny model whose weights are nowhere zero, so that nothing is unused by chance."""
    name, settings = FORMS[form]
    torch.manual_seed(1)
    model = ancestral.build(name, spec, preset="tiny", **settings, **overrides)
    assert isinstance(model, Latent)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(torch.randn(parameter.shape), alpha=0.1)
    return model


def symbols(spec: DataSpec, n: int = 3) -> Tensor:
    return torch.randint(spec.levels or 2, (n, *spec.shape))


@pytest.mark.parametrize("spec", [BITS, RGB])
@pytest.mark.parametrize("form", FORMS)
def test_every_group_of_latents_counts(form: str, spec: DataSpec) -> None:
    """The lowest moves conditionals from the first row to the last; z2 of the hierarchy moves every unit of p(z1 | z2)."""
    model, x = made(form, spec), symbols(spec, 1)
    z = model.encode(x)
    for name in z:
        moved = {other: value + (2.0 if name == other else 0.0) for other, value in z.items()}
        before, after = (model.likelihood.network(x, model.features(each)) for each in (z, moved))
        changes = (before - after).abs().amax((0, 1, 3, 4))  # by row
        assert bool((changes[[0, -1]] > 1e-6).all()) is (name != "z2")
    if form == "hierarchical":
        tops = (z["z2"], z["z2"] + 2.0)
        log_p = [model.topdown.descend(given({"z2": top, "z1": z["z1"]}), n=1).groups[1].log_p for top in tops]
        assert (log_p[0] - log_p[1]).abs().min() > 1e-6


@pytest.mark.parametrize("form", FORMS)
def test_everything_learns_from_the_bound(form: str) -> None:
    model = made(form)
    elbo(model, Batch(symbols(BITS)))["loss"].backward()
    idle = {name for name, p in model.named_parameters() if p.grad is None or not p.grad.any()}
    assert {
        name for name in idle if "network.layers.1.out" not in name
    } == set()  # of the last gated layer the skip alone is read


def test_the_vector_form_hands_z_to_every_layer_and_the_other_to_the_first() -> None:
    spatial = {"latent": 3, "conditional": True}
    vector, maps = made("vector", **spatial).likelihood.network, made("upsample", **spatial).likelihood.network
    x, labels = symbols(BITS), torch.eye(3)
    assert [layer.left_feed.vector is not None for layer in vector.layers] == [True, True]  # type: ignore[union-attr, attr-defined]
    assert [layer.left_feed.grid is not None for layer in maps.layers] == [True, False]  # type: ignore[union-attr, attr-defined]
    features = made("vector", **spatial).features({"z": torch.randn(3, 3)}, Context(vector=labels))
    assert features.grid is None
    assert features.vector is not None
    assert torch.equal(features.vector[:, 3:], labels)  # z, then the label
    assert vector(x, features).shape == (3, *BITS.shape, 1)


def test_a_form_that_there_is_not() -> None:
    with pytest.raises(ValueError, match="one of vector, upsample"):
        ancestral.build("pixelvae", BITS, preset="tiny", form="sideways")


@pytest.mark.parametrize("name", ["pixelvae", "hierarchical-pixelvae", "vlae"])
def test_data_that_are_not_images(name: str) -> None:
    with pytest.raises(ValueError, match="images of integers"):
        ancestral.build(name, DataSpec("vector", (5,), levels=2), preset="tiny")


def test_a_window_that_is_not_written_as_one() -> None:
    with pytest.raises(ValueError, match="such as 5x3"):
        ancestral.build("vlae", BITS, preset="tiny", window="five by three")


# -- p(z1 | z2) --------------------------------------------------------------------------------------------------------------


def prior_of(model: Latent, n: int = 2, seed: int = 0) -> AutoregressiveNormal:
    prior = model.topdown.descend(Noise(seed, range(n)), n=n).groups[1].prior
    assert isinstance(prior, AutoregressiveNormal)
    return prior


def test_the_maps_of_a_place_see_the_places_before_and_not_each_other() -> None:
    prior = prior_of(made("hierarchical"), 1)
    z = torch.randn(1, 2, 3, 4, requires_grad=True)
    numbers = prior.conditioned(z)
    for row in range(3):
        for column in range(4):
            for map_ in range(2):
                total = (numbers.loc + numbers.scale)[0, map_, row, column]
                (slope,) = torch.autograd.grad(total, z, retain_graph=True)
                before = torch.arange(12).view(3, 4) < row * 4 + column
                assert not slope[0][:, ~before].any()
                near = before & (torch.arange(4) == column - 1) & (torch.arange(3)[:, None] == row)
                assert slope[0][:, near].ne(0).all()


def test_draws_are_the_noise_that_their_log_density_says() -> None:
    """log p(z) = log N(noise) - log |dz / dnoise|, the Jacobian taken whole; the same draws unit by unit in a walk."""
    prior = prior_of(made("hierarchical"), 1)
    noise = torch.randn(1, 2, 3, 4)
    z = prior.carried(noise)
    normals = prior.conditioned(z)
    assert torch.allclose((z - normals.loc) / normals.scale, noise)

    def back(z: Tensor) -> Tensor:
        found = prior.conditioned(z.view(1, 2, 3, 4))
        return ((z.view(1, 2, 3, 4) - found.loc) / found.scale).flatten()

    jacobian = torch.autograd.functional.jacobian(back, z.flatten())
    wanted = prior.base.log_prob(noise).sum() + torch.linalg.slogdet(jacobian).logabsdet
    assert torch.allclose(prior.log_prob(z).sum(), wanted)

    u = torch.special.ndtr(noise).flatten()
    drawn = prior.model.walk(1, prior.context).run(lambda site, conditional: conditional.quantile(u[site].view(1)))
    assert torch.allclose(drawn, z)


def test_the_rate_of_z1_is_the_closed_form_given_the_places_before() -> None:
    """Its mean over draws is that of log q - log p, and it varies less."""
    model = made("hierarchical")
    x = symbols(BITS, 1).expand(400, *BITS.shape)
    with torch.no_grad():
        groups = model.descend(x, Noise(3, range(400))).groups
    closed, single = groups[1].kl.flatten(1).sum(1), (groups[1].log_q - groups[1].log_p).flatten(1).sum(1)
    error = (closed - single).std() / 20
    assert abs((closed - single).mean()) < 4 * error
    assert closed.std() < 0.9 * single.std()
    assert groups[1].kl.shape == groups[1].z.shape == (400, 2, 3, 4)


def test_q_of_z2_does_not_wait_for_z1() -> None:
    model, x = made("hierarchical"), symbols(BITS)
    found = [model.descend(x, Noise(seed, range(3))).groups for seed in (0, 1)]
    assert isinstance(model.topdown, HierarchicalTopDown)
    for i in range(2):
        assert torch.equal(found[0][i].posterior.mean, found[1][i].posterior.mean)  # type: ignore[union-attr]
        assert not torch.equal(found[0][i].z, found[1][i].z)


def test_densities_of_the_hierarchy_are_not_in_half_precision() -> None:
    """Half of it has 8 bits for a uniform, so that none but 256 values of z could be drawn, and as many for a rate."""
    model, x = made("hierarchical").float(), symbols(BITS, 2)
    with torch.no_grad(), torch.autocast("cpu", torch.bfloat16):
        groups = model.descend(x, Noise(0, range(2))).groups
        assert all(part.dtype == torch.float32 for group in groups for part in (group.z, group.kl, group.log_q, group.log_p))


def test_samples_of_the_hierarchy_depend_on_their_row_alone() -> None:
    model = made("hierarchical")
    whole = ancestral.sample(model, 4, seed=2)
    assert torch.equal(whole[2:], ancestral.sample(model, 2, seed=2, first_row=2))


@pytest.mark.parametrize("form", FORMS)
def test_a_model_is_saved_and_loaded(form: str, tmp_path: Any) -> None:
    model, x = made(form), symbols(BITS)
    ancestral.save(model, tmp_path)
    assert torch.equal(ancestral.load(tmp_path).elbo(x).bound, model.elbo(x).bound)  # type: ignore[union-attr]


def test_even_layers_compute_what_they_did_and_move_less() -> None:
    torch.manual_seed(0)
    plain = torch.nn.Sequential(torch.nn.Conv2d(32, 4, 3), torch.nn.Flatten(), torch.nn.Linear(16, 3))
    even, x = deepcopy(plain), torch.randn(2, 32, 4, 4)
    evened(even)
    assert torch.allclose(even(x), plain(x))
    moved = []
    for module in (plain, even):
        before = module(x)
        step = torch.optim.Adam(module.parameters(), lr=1e-3)
        (-module(x).sum()).backward()
        step.step()
        moved.append(float((module(x) - before).detach().abs().mean()))
    assert moved[1] < moved[0] / 4  # 288 and 16 inputs: weights move 17 and 4 times less far


def test_a_vlae_of_colours_is_not_stuck_at_first() -> None:
    """Features of z that run away saturate the gates they go into: then loss stays at that of a constant, 7.3 bits/dim here."""
    torch.manual_seed(0)
    model = ancestral.build("vlae", DataSpec("image", (3, 8, 8), 256)).float()
    optimiser = torch.optim.Adam(model.parameters(), lr=2e-3)
    for step in range(60):
        coarse = torch.randn(16, 1, 3, 3, dtype=torch.float32) + 0.3 * torch.randn(16, 3, 3, 3, dtype=torch.float32)
        x = (128 + 50 * functional.interpolate(coarse, size=(8, 8), mode="bilinear")).clamp(0, 255).long()
        terms = elbo(model, Batch(x, seed=step, rows=range(16)))  # type: ignore[arg-type]
        optimiser.zero_grad()
        terms["loss"].backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimiser.step()
    assert terms["loss"] < 6.9 * 192 * log(2)
