"""The ResNet of latents: which latents know of which, what a posterior looks at, and that runs go on as they began."""

from __future__ import annotations

import signal
from math import log
from pathlib import Path
from typing import Any

import pytest
import torch
from tiny_training import DIGITS, QUIET, model_of, same
from torch import Tensor
from torch.distributions import kl_divergence

from ancestral.evaluation import evaluate
from ancestral.latent.latent import Latent
from ancestral.latent.resnet import Layer
from ancestral.latent.topdown import Noise, given
from ancestral.models import build
from ancestral.objectives import OBJECTIVES, Batch, Terms, importance_weights, label_context
from ancestral.spec import DataSpec
from ancestral.training import Interrupted, fit, resume

SPEC = DataSpec("image", (1, 6, 5), levels=2, classes=3)


def fresh(spec: DataSpec = SPEC, spread: float = 0.2, **options: Any) -> Latent:
    """A small model of two sizes and two layers at each, its weights moved."""
    model = build("iaf-vae", spec, preset="tiny", **{"blocks": 2, "halvings": 2, **options})
    assert isinstance(model, Latent)
    with torch.no_grad():
        for weight in model.parameters():
            weight.add_(spread * torch.randn_like(weight))
    return model.eval()


def symbols(n: int = 4) -> Tensor:
    return torch.randint(2, (n, *SPEC.shape))


def test_real_valued_images_have_densities() -> None:
    model = build("iaf-vae", DataSpec("image", (1, 4, 4)), preset="tiny")
    assert isinstance(model, Latent) and not model.likelihood.network.discrete
    assert torch.isfinite(model.elbo(torch.randn(3, 1, 4, 4)).bound).all()


@pytest.mark.parametrize("size", [(1, 28, 28), (3, 32, 32), (1, 1, 7), (3, 5, 6)])
@pytest.mark.parametrize("posterior", ["iaf", "normal"])
def test_images_of_any_size(size: tuple[int, int, int], posterior: str) -> None:
    model = fresh(DataSpec("image", size, levels=256), posterior=posterior)
    x = torch.randint(256, (2, *size))
    groups = model.elbo(x).groups
    halves = [-(-side // 2) for side in size[1:]]
    fine, coarse = (2, *halves), (2, *(-(-side // 2) for side in halves))
    assert {name: kl.shape[1:] for name, kl in groups.items()} == {"z1": coarse, "z2": coarse, "z3": fine, "z4": fine}
    assert model.reconstruct(x).shape == x.shape


def test_settings_without_a_layer_are_refused() -> None:
    for options, match in (
        ({"halvings": 0}, "at least 1 block"),
        ({"blocks": 0}, "at least 1"),
        ({"posterior": "mixture"}, "iaf"),
    ):
        with pytest.raises(ValueError, match=match):
            build("iaf-vae", SPEC, preset="tiny", **options)
    with pytest.raises(ValueError, match="models images"):
        build("iaf-vae", DataSpec("vector", (4,)), preset="tiny")


def test_what_is_above_decides_priors_and_what_is_below_never_does() -> None:
    model, x = fresh(), symbols()
    groups = model.descend(x, Noise(1, range(4))).groups
    values = {group.name: group.z.detach() for group in groups}
    for changed in values:
        other = {**values, changed: values[changed] + 1}
        again = model.topdown.descend(given(other), n=4).groups
        moved = {
            group.name for group, now in zip(groups, again, strict=True) if not torch.equal(group.prior.mean, now.prior.mean)
        }
        assert moved == {name for name in values if name > changed}


def test_generation_and_inference_share_the_way_down() -> None:
    """With z handed over, priors and features are the same whether or not x is known: x enters by the posteriors alone."""
    model, x = fresh(), symbols()
    known = model.descend(x, Noise(2, range(4)))
    values = {group.name: group.z for group in known.groups}
    unknown = model.topdown.descend(given(values), n=4)
    for one, other in zip(known.groups, unknown.groups, strict=True):
        assert torch.equal(one.prior.mean, other.prior.mean) and torch.equal(one.prior.stddev, other.prior.stddev)
        assert other.posterior is None and one.posterior is not None
    assert torch.equal(known.features.grid, unknown.features.grid)  # type: ignore[arg-type]
    assert torch.equal(model.features(values).grid, unknown.features.grid)  # type: ignore[arg-type]


def test_posteriors_know_x_and_the_latents_above() -> None:
    model, x = fresh(posterior="normal"), symbols()
    groups = model.descend(x, Noise(3, range(4))).groups
    flipped = model.descend(1 - x, given({group.name: group.z for group in groups})).groups
    assert all(not torch.equal(a.posterior.mean, b.posterior.mean) for a, b in zip(groups, flipped, strict=True))  # type: ignore[union-attr]
    above = {group.name: group.z + (group.name == "z1") for group in groups}
    after = model.descend(x, given(above)).groups
    same = [torch.equal(a.posterior.mean, b.posterior.mean) for a, b in zip(groups, after, strict=True)]  # type: ignore[union-attr]
    assert same == [True, False, False, False]


def test_normal_posteriors_have_the_closed_form() -> None:
    groups = fresh(posterior="normal").descend(symbols(), Noise(0, range(4))).groups
    for group in groups:
        assert torch.equal(group.kl, kl_divergence(group.posterior, group.prior))  # type: ignore[arg-type]


def test_the_density_of_a_posterior_counts_the_whole_jacobian() -> None:
    """log q(z) = log N(e) - log |dz/de| by the determinant of all derivatives, e being what the draw started from."""
    layer = Layer((2, 3), (2, 3), latent=2, width=5, flow=True)
    with torch.no_grad():
        for weight in layer.parameters():
            weight.add_(0.3 * torch.randn_like(weight))
    mean, log_scale, context = torch.randn(1, 2, 2, 3), 0.3 * torch.randn(1, 2, 2, 3), torch.randn(1, 5, 2, 3)
    posterior = layer.posterior(mean, log_scale, context)
    u = torch.rand(1, 2, 2, 3)
    normal = torch.distributions.Normal(0.0, 1.0)
    jacobian = torch.autograd.functional.jacobian(lambda e: posterior.icdf(normal.cdf(e)), normal.icdf(u)).view(12, 12)
    z = posterior.icdf(u)
    expected = normal.log_prob(normal.icdf(u)).sum() - torch.linalg.slogdet(jacobian).logabsdet
    assert torch.allclose(posterior.log_prob(z).sum(), expected)
    places = torch.arange(12).view(2, 2, 3).permute(1, 2, 0).flatten()  # place by place, the maps of a place together
    ordered = jacobian[places][:, places]
    assert torch.equal(ordered.triu(1), torch.zeros(12, 12)) and (ordered.tril(-1) != 0).any()


def test_labels_reach_prior_posterior_and_decoder() -> None:
    model, x = fresh(conditional=True, posterior="normal"), symbols()
    one, two = (model.descend(x, Noise(0, range(4)), label_context(torch.full((4,), i), SPEC, torch.zeros(()))) for i in (0, 1))
    for a, b in zip(one.groups, two.groups, strict=True):
        assert not torch.equal(a.prior.mean, b.prior.mean) and not torch.equal(a.posterior.mean, b.posterior.mean)  # type: ignore[union-attr]
    null = model.descend(
        x, Noise(0, range(4)), label_context(torch.zeros(4, dtype=torch.long), SPEC, torch.zeros(())).map(torch.zeros_like)
    )  # type: ignore[union-attr]
    assert torch.equal(null.features.grid, model.descend(x, Noise(0, range(4))).features.grid)  # type: ignore[arg-type]


@pytest.mark.parametrize("option", [{"posterior_steps": 3}, {"spatial": True}, {"prior": "flow"}])
def test_agave_refuses_sizes_that_a_resnet_does_not_take(option: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match=f"{next(iter(option))} is .*(a ResNet|a resnet takes latent)"):
        model_of("agave", encoder="resnet", **option)


def test_importance_weights_of_many_groups_are_unbiased() -> None:
    """The mean of p(x, z) / q(z | x) over z is p(x), and all p(x) of a tiny image sum to 1."""
    spec = DataSpec("image", (1, 1, 2), levels=2)
    model = fresh(spec, 0.05, latent=1, halvings=1)
    states = torch.tensor([[0, 0], [0, 1], [1, 0], [1, 1]]).view(4, 1, 1, 2)
    with torch.no_grad():
        p = importance_weights(model, Batch(states, seed=3), 4000).exp()
    error = float(p.var(1).sum().sqrt()) / 4000**0.5
    assert error < 0.01 and abs(float(p.mean(1).sum()) - 1) < 4 * error


def test_evaluation_of_many_groups() -> None:
    found = evaluate(fresh(), symbols(12), importance_samples=4)
    assert found.shuffle_cost is not None and found.mutual_information is not None
    assert found.mutual_information <= log(12) + 1e-9  # the estimate's ceiling
    assert "units active" in str(found.verdict)


@pytest.mark.parametrize(("name", "objective"), [("iaf-vae", "elbo"), ("agave", "auxiliary_guided")])
def test_a_run_that_was_stopped_is_the_same_run(
    name: str, objective: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    wide = {"encoder": "resnet", "posterior": "iaf", "decoder": "pixelcnn++", "channels": 3, "resnets": 1, "stream": 4}
    options: dict[str, Any] = {"blocks": 2, **(wide if name == "agave" else {})}
    settings: dict[str, Any] = {**QUIET, "steps": 8, "data_options": {"limit": 40}}
    whole = fit(model_of(name, **options), "digits", tmp_path / "whole", **settings)
    right = OBJECTIVES[objective]

    def stopped(model: Latent, batch: Batch, **charge: float) -> Terms:
        if batch.step == 2 and torch.is_grad_enabled():
            signal.raise_signal(signal.SIGINT)
        return right(model, batch, **charge)

    with monkeypatch.context() as patch:
        patch.setitem(OBJECTIVES, objective, stopped)
        with pytest.raises(Interrupted):
            fit(model_of(name, **options), "digits", tmp_path / "run", **settings)
    assert same(whole.model.state_dict(), resume(tmp_path / "run", progress=False).model.state_dict())


def test_a_pixelcnn_that_decodes_is_initialised_by_the_first_batch() -> None:
    model = model_of("agave", decoder="pixelcnn++", channels=3, resnets=1, stream=4)
    fit(model, DIGITS, steps=3, learning_rate=1e-300, ema=0, **QUIET)
    assert model.likelihood.network.initialised  # type: ignore[union-attr]
