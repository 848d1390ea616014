"""Evaluation: every figure against a closed form, an enumeration or a sum made by hand."""

from __future__ import annotations

import json
from collections.abc import Callable
from math import exp, log
from typing import Any

import numpy as np
import pytest
import torch
from tiny_latents import Chain, Flat, Posterior, awake, coins, fixed, gaussian, pixels, probabilities, states
from torch import Tensor, nn
from torch.distributions import Normal

from ancestral.core import Autoregressive, Context
from ancestral.data.source import permutation
from ancestral.data.splits import Examples
from ancestral.evaluation import evaluate, score
from ancestral.evaluation.bits import Mean, Moments, bits, bits_per_dim
from ancestral.evaluation.examples import SUBSET
from ancestral.evaluation.iwae import bounds_of
from ancestral.evaluation.latents import Carried, derangement, information, most_information, verdict
from ancestral.evaluation.remedies import AGGRESSIVE
from ancestral.families import Normal as NormalFamily
from ancestral.latent.configs import VaeConfig
from ancestral.latent.latent import Latent
from ancestral.latent.topdown import Choose, Descent, Group, Noise, TopDown
from ancestral.networks.factorised import Factorised
from ancestral.objectives import Batch, importance_weights, label_context
from ancestral.spec import DataSpec

GREY = DataSpec("image", (1, 4, 4), levels=5, classes=3)


def fresh(name: str, spec: DataSpec = GREY, **overrides: Any) -> Any:
    return awake(name, spec, 0.3, **overrides)


class Known(TopDown):
    """z ~ N(4 label, 1) before x is seen, with a hundredth of the variance after."""

    def descend(
        self, choose: Choose, evidence: Tensor | None = None, context: Context | None = None, n: int | None = None
    ) -> Descent:
        assert context is not None and context.vector is not None
        centre = 4.0 * context.vector.argmax(1, keepdim=True)
        prior, posterior = Normal(centre, 1.0), None if evidence is None else Normal(centre, 0.1)
        z = choose("z", prior, posterior)
        return Descent(Context(vector=z), [Group("z", z, prior, posterior)])


class Unmoved(Chain):
    """The same with posteriors that see nothing of x."""

    def descend(
        self, choose: Choose, evidence: Tensor | None = None, context: Context | None = None, n: int | None = None
    ) -> Descent:
        return super().descend(choose, None if evidence is None else 0 * evidence, context, n)


def grey(n: int) -> Tensor:
    return torch.randint(5, (n, 1, 4, 4))


# -- numbers -------------------------------------------------------------------------------------------------------------


def test_units() -> None:
    assert bits_per_dim(1200, 3072) == pytest.approx(0.5635528, abs=5e-8)
    assert bits(13.3) == pytest.approx(19.1878, abs=5e-5)


def test_means_and_their_errors() -> None:
    values = torch.rand(7)
    mean = Mean.of(values)
    assert mean.value == pytest.approx(np.mean(values.numpy()))
    assert mean.error == pytest.approx(np.std(values.numpy(), ddof=1) / 7**0.5)
    assert Mean.of(values[:1]) == Mean(float(values[0]), None)


def test_moments_far_from_zero() -> None:
    rows = 1e8 + torch.randn(100, 3)
    moments = Moments()
    for some in rows.split([1, 40, 59]):
        moments.add(some)
    assert torch.allclose(moments.mean, rows.mean(0), rtol=1e-15)
    assert torch.allclose(moments.variance, rows.var(0, unbiased=False), rtol=1e-6)


# -- exact models --------------------------------------------------------------------------------------------------------


def test_exact_models() -> None:
    model, x = fresh("gated-pixelcnn"), grey(7)
    found = evaluate(model, x, batch_size=3)
    nats = -model.log_prob(x).detach()
    assert found.status == "exact" and (found.examples, found.sites, found.density) == (7, 16, False)
    assert found.nats == pytest.approx(float(nats.mean()), rel=1e-12)
    assert found.bits_per_dim == pytest.approx(float(nats.mean()) / (16 * log(2)), rel=1e-12)
    assert found.nats_error == pytest.approx(float(nats.std()) / 7**0.5, rel=1e-12)
    assert (found.rate, found.iwae, found.verdict, found.elbo, found.kl_by_unit) == (None, None, None, None, {})
    assert found.data["examples"] == 7 and len(found.lines()) == 2 and "(exact)" in found.lines()[0]
    json.dumps(found.to_dict())


def test_a_uniform_model_costs_log_levels() -> None:
    model = fresh("gated-pixelcnn")
    for weight in model.parameters():
        nn.init.zeros_(weight)
    assert evaluate(model, grey(3)).bits_per_dim == pytest.approx(log(5) / log(2))
    assert exp(-score(model, grey(1)).nats.item() / 16) == pytest.approx(0.2)


# -- closed forms --------------------------------------------------------------------------------------------------------


def log_normal(x: Tensor, variance: float) -> Tensor:
    return Normal(0.0, variance**0.5).log_prob(x).sum(1)


def test_the_true_posterior_leaves_no_gap() -> None:
    """p(z) = N(0, 1), p(x | z) = N(z, 1), q = N(x/2, 1/2): ELBO = IWAE-k = log N(x; 0, 2), whatever z is drawn."""
    model = gaussian(Flat(lambda x: (x / 2, torch.tensor(0.5**0.5)), nn.Identity()))
    x = torch.tensor([[0.0], [1.0], [-2.5]])
    for k in (1, 7):
        weights = importance_weights(model, Batch(x), k)
        assert torch.allclose(weights, log_normal(x, 2.0).unsqueeze(1).expand(3, k), atol=1e-12)
        found = evaluate(model, x, importance_samples=k)
        assert found.elbo_subset == pytest.approx(float(log_normal(x, 2.0).mean()), abs=1e-12)
        assert found.iwae == pytest.approx(found.elbo_subset, abs=1e-12)
        assert found.effective_samples == pytest.approx(1)
    assert log_normal(x, 2.0)[0] == pytest.approx(-1.2655121, abs=5e-8)


def test_the_gap_of_a_posterior_that_is_the_prior() -> None:
    """q = N(0, 1) at x = 0: the ELBO is -1.4189385, 0.1534264 below log p(x), and IWAE-k closes the gap."""
    model = gaussian(Flat(fixed(0.0, 1.0), nn.Identity()))
    found = evaluate(model, torch.zeros(40, 1), importance_samples=250, batch_size=5000)
    assert found.rate == pytest.approx(0, abs=1e-12)
    assert found.elbo_subset == pytest.approx(-1.4189385, abs=4 * 0.7071 / 10000**0.5)
    assert found.iwae == pytest.approx(-1.2655121, abs=4 * 0.45 / 10000**0.5)
    assert found.elbo == pytest.approx(-1.4189385, abs=4 * 0.7071 / 40**0.5)
    assert found.effective_samples == pytest.approx(3**0.5 / 2, abs=0.02)  # (E w)^2 / E w^2 of w = exp(-z^2 / 2)


def test_weights_of_a_discrete_toy() -> None:
    """p(z) = (.5, .5), p(x = 0 | z) = (.9, .2), q = (.7, .3), with z in exactly those proportions among ten samples."""
    for likelihood, elbo, exact in (((0.9, 0.2), -0.6388666, -0.5978370), ((0.1, 0.8), -1.7610355, -0.7985077)):
        weights = [log(0.5 * likelihood[0] / 0.7)] * 7 + [log(0.5 * likelihood[1] / 0.3)] * 3
        found = bounds_of(torch.tensor([weights]))
        assert found.elbo.item() == pytest.approx(elbo, abs=5e-8)
        assert found.iwae.item() == pytest.approx(exact, abs=5e-8)


def leaning(x: Tensor) -> tuple[Tensor, Tensor]:
    mean = x.flatten(1).double().mean(1, keepdim=True) - 0.5
    return mean, torch.full_like(mean, 0.8)


@pytest.mark.parametrize("built", [coins, pixels])
def test_bounds_are_ordered_and_tighten(built: Callable[[Posterior], Latent]) -> None:
    model = built(leaning)
    x = states(tuple(model.likelihood.network.shape))
    exact = float(probabilities(model, x).log().mean())
    few, many = evaluate(model, x, importance_samples=5), evaluate(model, x, importance_samples=500, batch_size=2000)
    elbo, iwae, share = many.elbo_subset, many.iwae, many.effective_samples
    assert elbo is not None and iwae is not None and share is not None
    error = ((1 / share - 1) / (500 * len(x))) ** 0.5  # of the log of a mean of 500, by the weights' own spread
    assert abs(iwae - exact) < 4 * error and elbo < exact - 4 * error
    assert few.elbo_subset <= few.iwae  # type: ignore[operator]  # of the same samples, always
    each = score(model, x, importance_samples=500, batch_size=2000)
    assert torch.allclose(-each.nats, probabilities(model, x).log(), atol=4 * error * len(x) ** 0.5)
    assert (each.status, each.importance_samples) == ("bound", 500)


def test_groups_below_one_another() -> None:
    """Two groups with their true posteriors: no gap, and KLs that add up to the rate; mutual information is from pairs."""
    model, x = gaussian(Chain()), torch.tensor([[0.3], [-1.0]])
    found = evaluate(model, x, importance_samples=4, batch_size=3)
    assert found.iwae == pytest.approx(float(log_normal(x, 3.0).mean()), abs=1e-12)
    assert found.effective_samples == pytest.approx(1)
    assert list(found.kl_by_unit) == ["z1", "z2"] and found.rate == pytest.approx(sum(found.kl_by_group.values()))
    kl = 0.5 * (2 / 3 + x.square() / 9 - 1 - log(2 / 3))
    assert found.kl_by_unit["z1"] == pytest.approx([float(kl.mean())])
    assert found.mutual_information is not None and found.information_examples == 2 and found.units == 2


def test_rate_of_every_unit() -> None:
    """KL(N(1, 1/4) || N(0, 1)) = 0.8181472 and KL(N(1, 1) || N(0, 1)) = 1/2."""
    scales = torch.tensor([0.5, 1.0])
    found = evaluate(coins(lambda x: (torch.ones(len(x), 2), scales.expand(len(x), 2)), units=2), states((3,)))
    assert found.kl_by_unit["z"] == pytest.approx([0.8181472, 0.5], abs=5e-8)
    assert found.rate == pytest.approx(1.3181472, abs=5e-8) == pytest.approx(found.kl_by_group["z"])
    assert (found.active_units, found.units) == (0, 2)  # the means do not move with x


def test_units_of_a_grid() -> None:
    model, x = fresh("agave", spatial=True, halvings=1), grey(6)
    found, parts = evaluate(model, x, importance_samples=2), model.elbo(x)
    assert found.kl_by_unit["z"] == pytest.approx(parts.groups["z"].sum((2, 3)).mean(0).tolist())
    means = model.encode(x)["z"].flatten(1)
    assert (found.active_units, found.units) == (int((means.var(0, unbiased=False) > 0.01).sum()), 8)


def test_active_units() -> None:
    def posterior(x: Tensor) -> tuple[Tensor, Tensor]:
        swing = torch.tensor([0.0, 0.19, 0.21, 5.0])  # of a fair coin: variances swing^2 / 4, so 0.009 and 0.011
        return x[:, :1] * swing, torch.ones(4)

    found = evaluate(coins(posterior, units=4), states((3,)))
    assert (found.active_units, found.units) == (2, 4)


def test_noise_from_above_makes_no_unit_active() -> None:
    """z2 follows the draw of z1, and neither looks at x: the variance that counts is that of E[z | x] over x, which is 0."""
    found = evaluate(gaussian(Unmoved()), torch.randn(50, 1))
    assert (found.active_units, found.units) == (0, 2)


# -- what z carries ------------------------------------------------------------------------------------------------------


def test_surgery_of_a_discrete_toy() -> None:
    """q(z | x) = (.9, .1) and (.2, .8), each z in proportion among ten draws: rate 0.2804045 = MI 0.2753961 + 0.0050084."""
    q = torch.tensor([[0.9, 0.1], [0.2, 0.8]])
    x = torch.tensor([0] * 10 + [1] * 10)
    z = torch.tensor([0] * 9 + [1] + [0] * 2 + [1] * 8)
    assert information(q.log()[x][:, z].T) == pytest.approx(0.2753961, abs=5e-8)
    rate = float((q * (q / 0.5).log()).sum(1).mean())
    assert rate - information(q.log()[x][:, z].T) == pytest.approx(0.0050084, abs=5e-8)


def test_mutual_information_by_hand() -> None:
    model, x = fresh("vae"), grey(9)
    found = evaluate(model, x, batch_size=4)
    group = model.descend(x, Noise(0, range(9))).groups[0]
    columns = [
        Normal(*of_one).log_prob(group.z).sum(1) for of_one in zip(group.posterior.loc, group.posterior.scale, strict=True)
    ]
    log_q = torch.stack(columns).detach()  # log q(z_i | x_j) at (j, i)
    by_hand = (log_q.diagonal() - log_q.exp().mean(0).log()).mean()
    assert found.mutual_information == pytest.approx(float(by_hand))
    assert found.mutual_information_ceiling == pytest.approx(log(9)) and found.information_examples == 9
    assert found.aggregate_kl == pytest.approx(found.rate - found.mutual_information)
    assert not found.saturated and "at most" not in found.lines()[-3].partition("aggregate KL")[2]


def test_information_of_what_the_prior_knows_of_the_label_is_none() -> None:
    """q(z | x) = p(z | label): a rate of 0, so z tells nothing beyond the label, and the aggregate is not nearer than 0."""
    labels = torch.tensor([0, 1, 2]).repeat(40)
    z = Normal(4.0 * labels, 1.0).sample()
    log_q = Normal(4.0 * labels, 1.0).log_prob(z[:, None])  # of z_i, the posterior of x_j, at (i, j)
    assert information(log_q) > 1 and information(log_q, labels) == pytest.approx(0, abs=1e-12)
    told, most = log_q.view(40, 3, 40, 3), log(40)
    by_label = [information(told[:, label, :, label]) for label in range(3)]
    shuffled = torch.randn(120, 120)
    apart = [information(shuffled.view(40, 3, 40, 3)[:, label, :, label]) for label in range(3)]
    assert by_label == pytest.approx([0, 0, 0], abs=1e-12)
    assert information(shuffled, labels) == pytest.approx(sum(apart) / 3) and most_information(120, labels) == pytest.approx(most)


def test_information_is_given_the_label_where_models_are_told_it() -> None:
    """Of examples that all differ in label it cannot be estimated, so that nothing is called collapsed for it."""
    spec, y = DataSpec("vector", (1,), classes=3), torch.arange(3).repeat(20)
    likelihood = Autoregressive(Factorised((1,), 2, learned=1, start=0.0, discrete=False), NormalFamily(), spec)
    model = Latent(Known(), likelihood, spec, VaeConfig(conditional=True))
    found = evaluate(model, Examples(torch.randn(60, 1), y), importance_samples=0)
    assert found.mutual_information == pytest.approx(0, abs=1e-12) and found.rate == pytest.approx(found.aggregate_kl)
    assert found.mutual_information_ceiling == pytest.approx(log(20)) and "given the label" in "".join(found.lines())
    assert "hardly depends on x" in str(found.verdict)
    alone = evaluate(model, Examples(torch.randn(3, 1), y[:3]), importance_samples=0)
    assert alone.mutual_information_ceiling == 0 and "hardly depends on x" not in str(alone.verdict)
    assert alone.shuffle_cost is None


def test_mutual_information_ends_at_its_ceiling() -> None:
    model = gaussian(Flat(lambda x: (x, torch.tensor(1e-3)), nn.Identity()))
    found = evaluate(model, torch.arange(8.0).unsqueeze(1), importance_samples=1)
    assert found.mutual_information == pytest.approx(log(8), abs=1e-12)
    assert found.saturated and f"aggregate KL at most {found.aggregate_kl:.2f} nats" in "\n".join(found.lines())


@pytest.mark.parametrize("n", [2, 3, 10])
def test_a_derangement_leaves_nobody_at_home(n: int) -> None:
    given = derangement(n)
    assert sorted(given) == list(range(n)) and all(i != j for i, j in enumerate(given))


def test_examples_change_places_within_their_label() -> None:
    labels = torch.tensor([2, 0, 2, 0, 2])
    assert derangement(5, labels) == [2, 3, 4, 1, 0]
    with pytest.raises(ValueError, match="at least 2 of every label"):
        derangement(3, torch.tensor([0, 1, 1]))


def test_one_example_has_nobody_to_change_with() -> None:
    with pytest.raises(ValueError, match="at least 2"):
        derangement(1)


def test_shuffle_cost_is_given_the_label_where_models_are_told_it() -> None:
    """z is 4 times the label and noise; who is alone with a label is passed over."""
    spec, y = DataSpec("vector", (1,), classes=3), torch.tensor([0, 1, 0, 2, 1, 0, 1])
    likelihood = Autoregressive(Factorised((1,), 2, learned=1, start=0.0, discrete=False), NormalFamily(), spec)
    model, x = Latent(Known(), likelihood, spec, VaeConfig(conditional=True)), 4.0 * y[:, None] + torch.randn(7, 1)
    found = evaluate(model, Examples(x, y), importance_samples=0)
    order = [place for place in permutation(7, 0, SUBSET).tolist() if place != 3]
    z = model.descend(x, Noise(0, range(7)), label_context(y, spec, model.anchor)).groups[0].z
    strange = z[order][derangement(6, y[order])]
    by_hand = ((x[order] - strange).square() - (x[order] - z[order]).square()).mean() / 2
    assert found.shuffle_cost == pytest.approx(float(by_hand), abs=1e-5)


def test_shuffle_cost_by_hand() -> None:
    """x ~ N(z, 1) with z near x: another's z costs what the squared distance grows by, halved."""
    model = gaussian(Flat(lambda x: (x, torch.tensor(0.5)), nn.Identity()))
    x = torch.tensor([[0.0], [1.0], [4.0], [9.0], [16.0], [25.0]])
    found = evaluate(model, x, importance_samples=1, subset=4, batch_size=3)
    order = permutation(6, 0, SUBSET)[:4]
    z = model.descend(x, Noise(0, range(6))).groups[0].z[order]
    by_hand = ((x[order] - z.roll(-1, 0)).square() - (x[order] - z).square()).squeeze(1) / 2
    assert found.shuffle_cost == pytest.approx(float(by_hand.mean()))
    assert found.shuffle_cost_error == pytest.approx(float(by_hand.std()) / 2)


def test_a_collapsed_model_is_called_so() -> None:
    model = coins(fixed(0.0, 1.0), slopes=(0.0, 0.0, 0.0))
    found = evaluate(model, states((3,)))
    assert found.rate == pytest.approx(0, abs=1e-12) and found.shuffle_cost == pytest.approx(0, abs=1e-12)
    assert found.verdict is not None and found.verdict.startswith("collapsed: z carries 0.00 of ")
    assert "; remedies: free bits (free_bits=0.1), a KL weight that rises" in found.verdict
    assert {"free bits", "a lower KL weight", "aggressive training of the encoder"} <= {each["name"] for each in found.remedies}
    assert found.mutual_information == pytest.approx(0, abs=1e-9)


def test_a_model_that_uses_its_latents_is_called_so() -> None:
    """z is the sign of the first coin, which the decoder reads back."""
    model = coins(lambda x: (4.0 * x[:, :1] - 2, torch.tensor(0.1)), slopes=(5.0, 0.0))
    found = evaluate(model, states((2,)))
    assert found.verdict is not None and found.verdict.startswith("z carries ") and not found.remedies
    assert found.verdict.endswith("of 7.35 bits; 1 of 1 units active") == (found.verdict.split()[4] == "7.35")
    assert found.shuffle_cost is not None and found.shuffle_cost > 1


@pytest.mark.parametrize(
    ("rate", "cost", "begins"),
    [
        (12.68, 20.0, "z carries 18.3 of 140 bits; 12 of 64 units active"),
        (0.4, 0.05, "collapsed: z carries 0.58 of 140 bits, and another example's z costs 0.05 nats; 12 of 64"),
        (0.4, -0.004, "collapsed: z carries 0.58 of 140 bits, and another example's z costs 0.00 nats"),
        (0.4, None, "collapsed: z carries 0.58 of 140 bits, and there is no other whose z could be taken"),
        (0.4, 0.3, "nearly collapsed: z carries only 0.58 of 140 bits, but they count"),
        (0.6, 0.05, "z carries 0.87 of 140 bits that the decoder hardly reads"),
        (0.6, None, "z carries 0.87 of 140 bits; 12"),
    ],
)
def test_verdicts(rate: float, cost: float | None, begins: str) -> None:
    found = verdict(Carried(97.04, rate, cost, 12, 64), [AGGRESSIVE])
    assert found.startswith(begins) and ("remedies" in found) is (rate < 0.5 or cost == 0.05)


def test_one_posterior_for_all_is_a_collapse_whatever_it_costs() -> None:
    found = evaluate(coins(fixed(3.0, 0.5), slopes=(0.0, 0.0, 0.0)), states((3,)))
    assert found.rate is not None and found.rate > 4 and found.mutual_information == pytest.approx(0, abs=1e-9)
    assert found.verdict is not None and found.remedies
    assert found.verdict.startswith("collapsed: z takes ") and "hardly depends on x, as I(x; z) is 0.00 nats" in found.verdict
    alone = evaluate(coins(fixed(3.0, 0.5), slopes=(0.0, 0.0, 0.0)), states((3,))[:1])  # which tells nothing of the kind
    assert "collapsed" not in (alone.verdict or "")
