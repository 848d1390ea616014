"""The laws of probability: what sums to 1, what samples follow, which table stands for it, what bounds it."""

from __future__ import annotations

from math import log

import torch
from torch import Tensor

from ancestral.core import Conditional, Context
from ancestral.draw import Draw, uniforms
from ancestral.latent.latent import Latent
from ancestral.latent.topdown import Noise, given
from ancestral.objectives import Batch, importance_weights, label_context
from ancestral.sampling.parallel import parallel_sample
from ancestral.symbols import ended
from ancestral.testing.subjects import NotApplicable, Subject, require


def normalised(subject: Subject) -> str:
    """The probabilities of all x sum to 1, and those of every conditional; densities integrate to 1."""
    family, parameters, sites = subject.likelihood.family, subject.forward(subject.x), subject.network.order.sites
    if not family.discrete:
        few = len(sites) if subject.likelihood.spec.columns else 3  # columns have families of their own
        laws = [(family.at(site), rows) for site, rows in zip(sites[:few], parameters[:1].unbind(1), strict=False)]
        off = max(_off(Conditional(law, rows[:, : law.size])) for law, rows in laws)
        return f"densities integrate to 1 within {off:.0e}"
    off = _off(Conditional(family, parameters))
    states = subject.states()
    if states is None:
        return f"every conditional to {off:.0e}; too many states to sum over all x"
    total = subject.likelihood.log_prob(states, subject.one_context(len(states))).exp().sum().item()
    require(abs(total - 1) <= 1e-10, f"the probabilities of all {len(states)} states sum to {total}")
    return f"{len(states)} states sum to 1 within {abs(total - 1):.0e}"


def _off(conditional: Conditional) -> float:
    """How far probabilities miss a sum, or densities an integral, of 1."""
    if not conditional.family.discrete:
        return _integral(conditional)
    off = (conditional.log_pmf().exp().sum(-1) - 1).abs().max().item()
    require(off <= 1e-12, f"the probabilities of a conditional miss 1 by {off:.1e}")
    return off


def _integral(conditional: Conditional) -> float:
    """Integrate a density over its own quantiles, which are close together where it bends, and compare with what they enclose."""
    u = torch.linspace(-14, 14, 20001, dtype=torch.float64).sigmoid().unsqueeze(-1)
    x = conditional.quantile(u)
    off = (torch.trapezoid(conditional.log_prob(x).exp(), x, dim=0) - (u[-1] - u[0])).abs().max().item()
    require(off <= 1e-6, f"a density misses its integral by {off:.1e}")
    return off


def sampled(subject: Subject) -> str:
    """Samples are the quantiles of their own conditionals, whatever the method and the batch, and follow log_prob."""
    likelihood, n = subject.likelihood, len(subject.x)
    draw = likelihood.walk(n, subject.context).run(Draw(seed=3))
    u = uniforms(3, range(n), subject.x[0].numel()).view(n, *subject.network.shape)
    quantiles = likelihood.conditionals(draw, subject.context).quantile(u)
    same = torch.equal(quantiles, draw) if likelihood.family.discrete else torch.allclose(quantiles, draw, atol=1e-8)
    require(same, "a cached sample is not what recomputed conditionals give for the same uniforms")
    alone = None if subject.context is None else subject.context.select(torch.tensor([1]))
    single = likelihood.walk(1, alone).run(Draw(seed=3, first_row=1))
    require(torch.allclose(single[0].double(), draw[1].double(), atol=1e-8), "row 1 is another sample in a batch of its own")
    if likelihood.family.discrete:
        fixed = parallel_sample(likelihood, n, seed=3, context=subject.context).x
        require(torch.equal(fixed, ended(draw, likelihood.spec)), "parallel sampling gives other symbols")
    states = subject.states()
    if states is None:
        return "cached = recomputed = parallel; too many states for a chi-square test"
    return f"cached = recomputed = parallel; chi-square p = {_chi_square(subject, states):.2f}"


def _chi_square(subject: Subject, states: Tensor, draws: int = 4096) -> float:
    context = subject.one_context(draws)
    found = ended(subject.likelihood.walk(draws, context).run(Draw(seed=5)), subject.likelihood.spec).flatten(1)
    place = (subject.likelihood.family.levels or 2) ** torch.arange(found.shape[1] - 1, -1, -1)
    numbers = (states.flatten(1) * place).sum(1)
    counts = torch.bincount(torch.searchsorted(numbers, (found * place).sum(1)), minlength=len(states)).double()
    expected = draws * subject.likelihood.log_prob(states, subject.one_context(len(states))).exp()
    rare = expected < 5  # pooled, so that the chi-square approximation holds
    pooled = torch.cat([counts[~rare], counts[rare].sum()[None]]), torch.cat([expected[~rare], expected[rare].sum()[None]])
    observed, wanted = (part[pooled[1] > 0] for part in pooled)
    statistic, freedom = ((observed - wanted) ** 2 / wanted).sum(), max(1, len(wanted) - 1)
    p = float(torch.special.gammaincc(torch.tensor(freedom / 2), statistic / 2))
    require(p > 1e-4, f"samples do not follow log_prob: chi-square p = {p:.1e}")
    return p


def table(subject: Subject, precision: int = 12) -> str:
    """Integer tables increase strictly from 0 to 2^p, and every slot finds its symbol."""
    family = subject.likelihood.family
    if family.levels is None:
        raise NotApplicable("a continuous family has no table")
    if family.levels > 2**precision:
        raise NotApplicable(f"{family.levels} levels do not fit {precision} bits")
    few = subject.forward(subject.x).flatten(0, 1)[:256]
    cumulative = Conditional(family, few).table(precision)
    require(bool((cumulative[:, 0] == 0).all() and (cumulative[:, -1] == 2**precision).all()), "a table misses 0 or 2^p")
    require(bool((cumulative.diff() > 0).all()), "a symbol has an empty slot")
    slots = torch.arange(2**precision)
    owner = torch.searchsorted(cumulative, slots.expand(len(few), -1).contiguous(), right=True) - 1
    fits = (cumulative.gather(1, owner) <= slots) & (slots < cumulative.gather(1, owner + 1))
    require(bool(fits.all()), "a slot does not find its symbol")
    return f"{len(few)} tables of {precision} bits, every slot"


def bound(subject: Subject, k: int = 16, repeats: int = 200) -> str:
    """E[ELBO] <= E[IWAE-k] <= log p(x), the last by quadrature over z."""
    model = subject.model
    if not isinstance(model, Latent):
        raise NotApplicable("the likelihood is exact")
    labels = label_context(torch.zeros(1, dtype=torch.long), model.spec, torch.zeros(())) if model.config.conditional else None
    prior = model.topdown.descend(Noise(0, range(1)), context=labels, n=1).groups
    if len(prior) != 1 or prior[0].z.numel() > 2:
        raise NotApplicable("more than two latent units: log p(x) cannot be had by quadrature")
    x = subject.x[:1]
    exact = _log_evidence(model, x, labels, prior[0].z.shape[1:])
    given_labels = None if labels is None else torch.zeros(repeats, dtype=torch.long)
    rows = x.expand(repeats, *x.shape[1:])
    weights = importance_weights(model, Batch(rows, given_labels, seed=1), k)
    elbo, iwae = weights.mean(1), weights.logsumexp(1) - log(k)
    noise = 4 * (elbo.std() + iwae.std()).item() / repeats**0.5
    require(elbo.mean().item() <= iwae.mean().item() + noise, "the ELBO lies above the IWAE bound")
    require(iwae.mean().item() <= exact + noise, f"the IWAE bound {iwae.mean().item():.4f} lies above log p = {exact:.4f}")
    return f"{elbo.mean().item():.3f} <= {iwae.mean().item():.3f} <= {exact:.3f} nats"


def _log_evidence(model: Latent, x: Tensor, labels: Context | None, shape: torch.Size, points: int = 81) -> float:
    """log p(x) = log of the integral of p(z) p(x | z) over a grid of z in [-6, 6], by the trapezoid rule."""
    axis = torch.linspace(-6, 6, points, dtype=torch.float64)
    units = shape.numel()
    z = torch.cartesian_prod(*[axis] * units).view(-1, *shape)
    terms = []
    for part in torch.split(z, 2048):
        many = None if labels is None else labels.repeat(len(part))
        descent = model.topdown.descend(given({"z": part}), context=many, n=len(part))
        prior = descent.groups[0].log_p.flatten(1).sum(1)
        terms.append(prior + model.likelihood.log_prob(x.expand(len(part), *x.shape[1:]), descent.features))
    return (torch.cat(terms).logsumexp(0) + units * log(12 / (points - 1))).item()
