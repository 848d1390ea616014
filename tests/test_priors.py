"""Posteriors and priors: closed forms, committed rates, and that every pair of them does all that models with latents do."""

from __future__ import annotations

import math
from itertools import product

import pytest
import scipy.stats
import torch
from scipy.optimize import minimize
from tiny_latents import waken
from torch import Tensor
from torch.distributions import Distribution, kl_divergence

import ancestral
from ancestral.evaluation import evaluate
from ancestral.latent.configs import VaeConfig
from ancestral.latent.flows import Steps
from ancestral.latent.latent import Latent
from ancestral.latent.posteriors import POSTERIORS, posterior_of
from ancestral.latent.priors import PRIORS, Chain, Logistic, committed_rate, normal, prior_of
from ancestral.latent.topdown import Group, Noise, given, mean
from ancestral.objectives import Batch, elbo, importance_weights, label_context
from ancestral.spec import DataSpec
from ancestral.walking.exact.operations import LoweringError
from ancestral.walking.twin import BITS_BACK, twin

GREY = DataSpec("image", (1, 4, 4), levels=3, classes=3)
PAIRS = list(product(POSTERIORS, PRIORS))
SHAPES = [(3,), (2, 2, 3)]


def prior(name: str, shape: tuple[int, ...], n: int, vector: Tensor | None = None) -> Distribution:
    """A prior whose weights, where it has some, are not those it starts with."""
    made = prior_of(VaeConfig(prior=name, prior_components=3, prior_width=8), shape, 0 if vector is None else vector.shape[1])
    with torch.no_grad():
        for parameter in made.parameters():
            parameter.add_(0.2 * torch.randn(parameter.shape))
    found: Distribution = made(torch.zeros(n, *shape), vector)
    return found


def tiny(posterior: str, prior: str, **overrides: object) -> Latent:
    model = ancestral.build("vae", GREY, preset="tiny", posterior=posterior, prior=prior, **overrides)
    assert isinstance(model, Latent)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(0.05 * torch.randn(parameter.shape))
    return model


def grey(n: int) -> Tensor:
    return torch.randint(3, (n, 1, 4, 4))


# -- distributions ------------------------------------------------------------------------------------------------------------


def test_logistic_is_scipys() -> None:
    x, u = torch.linspace(-30, 30, 13), torch.linspace(0.01, 0.99, 9)
    made, theirs = Logistic(torch.tensor(0.7), torch.tensor(1.3)), scipy.stats.logistic(0.7, 1.3)
    assert torch.allclose(made.log_prob(x), torch.from_numpy(theirs.logpdf(x.numpy())))
    assert torch.allclose(made.icdf(u), torch.from_numpy(theirs.ppf(u.numpy())))


def test_mixture_starts_as_nearly_standard_normal_and_draws_what_it_scores() -> None:
    start = prior_of(VaeConfig(prior="mixture"), (1,), 0)(torch.zeros(1, 1), None)
    axis = torch.linspace(-12, 12, 4801)[:, None]
    density = start.log_prob(axis).exp()[:, 0] * 0.005
    assert density.sum().item() == pytest.approx(1)
    assert (density @ axis[:, 0].square()).item() == pytest.approx(1, abs=1e-6)
    moved = prior("mixture", (1,), 1)
    weights, below = moved.log_prob(axis).exp()[:, 0] * 0.005, moved.icdf(torch.tensor([[0.2]]))
    assert weights[axis[:, 0] < below.item()].sum().item() == pytest.approx(0.2, abs=5e-3)
    assert (weights @ axis[:, 0]).item() == pytest.approx(moved.mean.item())


@pytest.mark.parametrize(
    ("n", "alpha", "expected"),
    [(2, 0.9, 0.8303656), (8, 0.9, 2.6103461), (64, 0.9, 19.2234978), (64, 0.5, 7.0612911), (2, 0.5, 0.1438410), (1, 0.9, 0.0)],
)
def test_committed_rate(n: int, alpha: float, expected: float) -> None:
    assert committed_rate(n, alpha) == pytest.approx(expected, abs=1e-7)
    assert committed_rate(n, 0.0) == 0


@pytest.mark.parametrize(("shape", "chains"), [((2,), 1), ((8,), 1), ((2, 2, 3), 2)])
@pytest.mark.parametrize("alpha", [0.5, 0.9])
def test_no_normals_come_closer_to_a_chain_than_its_committed_rate(shape: tuple[int, ...], chains: int, alpha: float) -> None:
    chain, units = Chain(normal(torch.zeros(1, *shape), torch.ones(1, *shape)), alpha), torch.Size(shape).numel()

    def rate(numbers: Tensor) -> Tensor:
        location, log_scale = numbers.view(2, 1, *shape)
        return kl_divergence(normal(location, log_scale.exp()), chain).sum()

    def value_and_slope(numbers: object) -> tuple[float, object]:
        at = torch.tensor(numbers, requires_grad=True)
        (slope,) = torch.autograd.grad(rate(at), at)
        return rate(at).item(), slope.numpy()

    best = minimize(value_and_slope, torch.randn(2 * units).numpy(), jac=True, method="L-BFGS-B", options={"gtol": 1e-9})
    assert best.fun == pytest.approx(chains * committed_rate(units // chains, alpha), abs=1e-6)


@pytest.mark.parametrize("shape", SHAPES)
def test_a_chain_is_the_normal_of_its_correlations(shape: tuple[int, ...]) -> None:
    """Correlation alpha^|s - t| within a map, in raster order, none between maps; the KL in closed form is that of normals."""
    units, maps, alpha = torch.Size(shape).numel(), shape[0] if len(shape) > 1 else 1, 0.8
    places = torch.arange(units // maps)
    covariance = torch.block_diag(*[alpha ** (places[:, None] - places).abs().double()] * maps)  # type: ignore[no-untyped-call]
    whole = torch.distributions.MultivariateNormal(torch.zeros(units), covariance)  # type: ignore[no-untyped-call]
    chain, z = Chain(normal(torch.zeros(5, *shape), torch.ones(5, *shape)), alpha), torch.randn(5, *shape)
    assert torch.allclose(chain.log_prob(z).flatten(1).sum(1), whole.log_prob(z.flatten(1)))
    wide = Chain(normal(torch.zeros(units, *shape), torch.ones(units, *shape)), alpha)
    carried = wide.carried(torch.eye(units).view(units, *shape)).flatten(1)
    assert torch.allclose(carried.T @ carried, covariance)
    location, scale = torch.randn(5, *shape), torch.rand(5, *shape) + 0.1
    factors = torch.distributions.MultivariateNormal(location.flatten(1), torch.diag_embed(scale.flatten(1).square()))  # type: ignore[no-untyped-call]
    assert torch.allclose(kl_divergence(normal(location, scale), chain).flatten(1).sum(1), kl_divergence(factors, whole))


def test_correlations_that_make_no_chain_are_refused() -> None:
    for alpha in (1.0, -0.1):
        with pytest.raises(ValueError, match="below 1"):
            tiny("normal", "delta", prior_correlation=alpha)
    with pytest.raises(ValueError, match="at least 1 unit"):
        committed_rate(0, 0.5)


def test_names_that_do_not_exist_are_refused() -> None:
    with pytest.raises(ValueError, match="no posterior 'gauss'; there are: normal, logistic, iaf"):
        tiny("gauss", "normal")
    with pytest.raises(ValueError, match="no prior 'vamp'; there are: normal, logistic, mixture, flow, delta"):
        tiny("normal", "vamp")


@pytest.mark.parametrize("name", PRIORS)
@pytest.mark.parametrize("shape", [(2,), (2, 1, 1)])
def test_draws_of_a_prior_follow_its_density(name: str, shape: tuple[int, ...]) -> None:
    """The mean of r(z) / p(z) over draws from p is 1 for any density r."""
    n, narrow = 4000, normal(torch.tensor(0.3), torch.tensor(0.5))
    made = prior(name, shape, n)
    z = Noise(1, range(n))("z", made, None)
    log_p = made.log_prob(z)
    assert log_p.shape == z.shape == (n, *shape)
    weights = (narrow.log_prob(z) - log_p).flatten(1).sum(1).exp().detach()  # type: ignore[no-untyped-call]
    assert abs(weights.mean().item() - 1) < 4 * weights.std().item() / n**0.5


@pytest.mark.parametrize("name", ["mixture", "flow"])
@pytest.mark.parametrize("shape", SHAPES)
def test_learned_priors_see_labels_row_by_row(name: str, shape: tuple[int, ...]) -> None:
    vector, z = torch.eye(3), torch.randn(1, *shape).expand(3, *shape)
    costs = prior(name, shape, 3, vector).log_prob(z).flatten(1).sum(1)
    assert len(set(costs.tolist())) == 3


# -- in models ----------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("posterior", "prior"), PAIRS)
@pytest.mark.parametrize("spatial", [False, True])
def test_every_pair_trains_and_all_its_weights_learn(posterior: str, prior: str, spatial: bool) -> None:
    model = tiny(posterior, prior, spatial=spatial, conditional=True)
    terms = elbo(model, Batch(grey(5), torch.arange(5) % 3))
    terms["loss"].backward()  # type: ignore[no-untyped-call]
    assert all(weight.grad is not None and weight.grad.isfinite().all() for weight in model.parameters())


@pytest.mark.parametrize(("posterior", "prior"), PAIRS)
def test_every_pair_draws_and_decodes_row_by_row(posterior: str, prior: str) -> None:
    model, x = tiny(posterior, prior, spatial=True), grey(4)
    whole = ancestral.sample(model, 4, seed=3)
    assert torch.equal(whole[2:], ancestral.sample(model, 2, seed=3, first_row=2))
    assert ancestral.interpolate(model, x, x.flip(0), steps=3).shape == (3, 4, 1, 4, 4)
    assert ancestral.traverse(model, x, unit=1, values=[-1.0, 1.0]).shape == (2, 4, 1, 4, 4)
    with torch.no_grad():
        bounds = model.elbo(x, seed=2).bound
        assert torch.allclose(bounds[1:3], model.elbo(x[1:3], seed=2, rows=[1, 2]).bound)
        assert bounds.isfinite().all()


@pytest.mark.parametrize(("posterior", "prior"), PAIRS)
def test_temperature_zero_is_the_centre(posterior: str, prior: str) -> None:
    model, x = tiny(posterior, prior), grey(4)
    with torch.no_grad():
        for evidence in (x, None):
            centre, cold = (
                model.topdown.descend(choose, evidence, n=4).groups[0].z for choose in (mean, Noise(5, range(4), temperature=0.0))
            )
            assert torch.allclose(centre, cold)


@pytest.mark.parametrize(("posterior", "prior"), PAIRS)
def test_weights_of_samples_are_those_of_the_same_z_handed_over(
    posterior: str, prior: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    model, x, k = tiny(posterior, prior), grey(3), 3
    handed = torch.empty(3, k)
    with torch.no_grad():
        for j in range(k):
            z = model.descend(x, Noise(7, [k * row + j for row in range(3)])).groups[0].z.clone()
            (group,) = model.descend(x, given({"z": z})).groups
            features = model.features({"z": z})
            handed[:, j] = model.likelihood.log_prob(x, features) + (group.log_p - group.log_q).flatten(1).sum(1)
        if prior != "flow":
            monkeypatch.setattr(Steps, "inverse", None)  # what was drawn is not inverted
        for at_once in (None, 3):
            assert torch.allclose(importance_weights(model, Batch(x, seed=7), k, at_once), handed, atol=1e-8)


def test_an_inverse_flow_reads_its_context() -> None:
    made = posterior_of(VaeConfig(posterior="iaf"), (4,))
    waken(made, 0.3)
    numbers = torch.randn(1, made.outputs).repeat(2, 1)
    numbers[1, 8:] += 1
    one, two = made(numbers).mean
    assert (one != two).all()


def test_rate_of_a_group_is_exact_where_it_can_be() -> None:
    posterior = normal(torch.randn(3, 2), torch.rand(3, 2) + 0.5)
    z = posterior.icdf(torch.rand(3, 2))  # type: ignore[no-untyped-call]
    for name, exact in (("normal", True), ("delta", True), ("logistic", False), ("mixture", False), ("flow", False)):
        group = Group("z", z, prior(name, (2,), 3), posterior)
        assert torch.allclose(group.kl, group.log_q - group.log_p) is not exact


def test_figures_of_a_flow_are_those_of_any_posterior() -> None:
    data = ancestral.data("digits")
    for posterior in ("logistic", "iaf"):
        model = ancestral.build("vae", data.spec, preset="tiny", posterior=posterior, prior="flow")
        found = evaluate(model, data, importance_samples=3, limit=12)
        assert found.mutual_information is not None and found.mutual_information <= math.log(12)
        assert (found.information_examples, found.status) == (12, "bound")
        assert len(found.kl_by_unit["z"]) == 2


def test_bits_come_back_from_normal_latents_alone_and_others_are_coded_in_two_parts() -> None:
    x = grey(2)
    for posterior, prior in (("iaf", "normal"), ("normal", "delta"), ("logistic", "normal")):
        model = tiny(posterior, prior)
        with pytest.raises(LoweringError, match=r"posterior='normal' and prior='normal'; .* two parts"):
            twin(model, x, "eager", scheme=BITS_BACK)
        assert torch.equal(ancestral.decompress(model, ancestral.compress(model, x, engine="eager"), engine="eager"), x)


@pytest.mark.parametrize("sizes", [{"latent": 1}, {"latent": 2, "spatial": True, "halvings": 2}])
def test_chains_of_one_unit_make_files(sizes: dict[str, object]) -> None:
    model, x = tiny("normal", "delta", **sizes), grey(2)
    assert torch.equal(ancestral.decompress(model, ancestral.compress(model, x, engine="eager"), engine="eager"), x)


def test_labels_shift_the_prior_of_a_model() -> None:
    model = tiny("normal", "flow", conditional=True)
    one, two = (label_context(torch.full((2,), label), GREY, torch.zeros(())) for label in (0, 1))
    drawn = [model.topdown.descend(Noise(0, range(2)), context=label).groups[0].z for label in (one, two)]
    assert not torch.allclose(*drawn)
