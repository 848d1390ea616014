"""The laws of probability: what sums to 1, what samples follow, which table stands for it, what bounds it."""

from __future__ import annotations

import copy
from collections.abc import Sequence
from math import log, prod

import torch
from torch import Tensor

from ancestral.core import Autoregressive, Conditional, Context
from ancestral.draw import Draw, uniforms
from ancestral.latent.codes import CodePrior
from ancestral.latent.latent import Latent
from ancestral.latent.topdown import Group, Noise, given
from ancestral.objectives import Batch, importance_weights, label_context
from ancestral.sampling.beam import beam_search
from ancestral.sampling.parallel import parallel_sample
from ancestral.sampling.speculative import speculative_sample
from ancestral.symbols import ended
from ancestral.testing.subjects import EXACT, NotApplicable, Subject, require

DRAWS = 4096  # samples that a chi-square test is put to
SYMBOLS = 4096  # of all conditionals together, at which a family is compared with itself
POINTS = 81  # of a latent unit, for quadrature


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
    _agree(conditional)
    return off


def _agree(conditional: Conditional) -> None:
    """What a family says of single symbols and draws is what it says of all of them."""
    levels, parameters = conditional.family.levels or 2, conditional.parameters.flatten(0, -2)
    few = parameters[: max(1, SYMBOLS // levels)]
    pmf, symbols = Conditional(conditional.family, few).log_pmf(), torch.arange(levels).expand(len(few), -1)
    each = Conditional(conditional.family, few[:, None].expand(-1, levels, -1))
    off = (each.log_prob(symbols).exp() - pmf.exp()).abs().max().item()
    require(off <= 1e-10, f"log_prob of a symbol is not its log_pmf: probabilities differ by {off:.1e}")
    middle = pmf.exp().cumsum(-1) - pmf.exp() / 2  # of what the distribution function rises by at a symbol
    drawn, likely = each.quantile(middle.clamp(1e-12, 1 - 1e-12)), pmf.exp() > 1e-9
    require(bool((drawn == symbols)[likely].all()), "quantile draws other symbols than log_pmf gives their probability to")


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
    found = ended(likelihood.walk(DRAWS, subject.one_context(DRAWS)).run(Draw(seed=5)), likelihood.spec)
    return f"cached = recomputed = parallel; chi-square p = {_chi_square(subject, states, found):.2f}"


def search(subject: Subject) -> str:
    """A beam as wide as the space finds the most probable x, one of width 1 the greedy x; speculative samples follow log_prob."""
    likelihood, one, spec = subject.likelihood, subject.one_context(1), subject.likelihood.spec
    if likelihood.family.levels is None:
        raise NotApplicable("search compares probabilities of symbols, and a continuous family has none")
    greedy = ended(likelihood.walk(1, one).run(Draw(temperature=0)), spec)
    require(torch.equal(beam_search(likelihood, 1, context=one).x[:, 0], greedy), "a beam of width 1 is not greedy")
    found = beam_search(likelihood, 3, n_best=3, context=one)
    nats = likelihood.log_prob(found.x[0], subject.one_context(found.x.shape[1]))
    off = (nats - found.log_prob[0]).abs().max().item()
    require(off <= EXACT * max(1.0, nats.abs().max().item()), f"a beam says log p is another than the model does, by {off:.1e}")
    pair = None if subject.context is None else subject.context.select(torch.arange(2))
    own = speculative_sample(likelihood, likelihood, 2, seed=3, context=pair)
    drawn = ended(likelihood.walk(2, pair).run(Draw(seed=3)), spec)
    require(torch.equal(own.x, drawn), "a model that is its own draft does not draw what it draws alone")
    states = subject.states()
    if states is None:
        return "width 1 is greedy, width 3 says what log_prob says; too many states to search them all"
    best = likelihood.log_prob(states, subject.one_context(len(states))).max()
    wide = beam_search(likelihood, likelihood.family.levels ** (len(subject.network.order.sites) - 1), context=one)
    require(bool((wide.log_prob[0, 0] - best).abs() <= EXACT), "a beam as wide as the space misses the most probable x")
    draft, context = _confused(likelihood), subject.one_context(DRAWS)
    guessed = speculative_sample(likelihood, draft, DRAWS, seed=5, context=context, batch_size=DRAWS)
    p = _chi_square(subject, states, guessed.x)
    return f"the best of {len(states)}; of a draft's symbols {guessed.acceptance:.0%} are kept, chi-square p = {p:.2f}"


def _confused(likelihood: Autoregressive) -> Autoregressive:
    """A draft that is often wrong: the same model with its weights in each other's places."""
    draft = copy.deepcopy(likelihood)
    for parameter in draft.parameters():
        parameter.copy_(parameter.roll(1))
    return draft


def _chi_square(subject: Subject, states: Tensor, found: Tensor) -> float:
    draws, found = len(found), found.flatten(1)
    place = (subject.likelihood.family.levels or 2) ** torch.arange(found.shape[1] - 1, -1, -1)
    numbers = (states.flatten(1) * place).sum(1)
    counts = torch.bincount(torch.searchsorted(numbers, (found * place).sum(1)), minlength=len(states)).double()
    expected = draws * subject.likelihood.log_prob(states, subject.one_context(len(states))).exp()
    rare = expected < 5  # pooled with others about as rare, so that the chi-square approximation holds
    order, pools = expected[rare].argsort(), max(1, int(expected[rare].sum() / 20))
    which = (expected[rare][order].cumsum(0) / 20).long().clamp_max(pools - 1)
    together = [torch.zeros(pools, dtype=torch.float64).index_add(0, which, part[rare][order]) for part in (counts, expected)]
    pooled = [torch.cat([part[~rare], pool]) for part, pool in zip((counts, expected), together, strict=True)]
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
    """E[ELBO] <= E[IWAE-k] <= log p(x), the last by quadrature over z, or the sum over all codes."""
    model = subject.model
    if not isinstance(model, Latent):
        raise NotApplicable("the likelihood is exact")
    labels = label_context(torch.zeros(1, dtype=torch.long), model.spec, model.anchor) if model.conditional else None
    prior = model.topdown.descend(Noise(0, range(1)), context=labels, n=1).groups
    if prod(len(axis) for group in prior for axis in _axes(group)) > POINTS**2:
        raise NotApplicable("more than two latent units, or too many codes: log p(x) cannot be had by quadrature")
    x = subject.x[:1]
    exact = _log_evidence(model, x, labels, prior)
    given_labels = None if labels is None else torch.zeros(repeats, dtype=torch.long)
    rows = x.expand(repeats, *x.shape[1:])
    weights = importance_weights(model, Batch(rows, given_labels, seed=1), k)
    elbo, iwae = weights.mean(1), weights.logsumexp(1) - log(k)
    noise = 4 * (elbo.std() + iwae.std()).item() / repeats**0.5 + EXACT * abs(exact)
    require(elbo.mean().item() <= iwae.mean().item() + noise, "the ELBO lies above the IWAE bound")
    require(iwae.mean().item() <= exact + noise, f"the IWAE bound {iwae.mean().item():.4f} lies above log p = {exact:.4f}")
    return f"{elbo.mean().item():.3f} <= {iwae.mean().item():.3f} <= {exact:.3f} nats"


def _axes(group: Group) -> list[Tensor]:
    """The points of every unit of a group."""
    levels = group.prior.model.family.levels if isinstance(group.prior, CodePrior) else None
    axis = torch.linspace(-12, 12, POINTS, dtype=torch.float64) if levels is None else torch.arange(levels)
    return [axis.double()] * group.z[0].numel()


def _log_evidence(model: Latent, x: Tensor, labels: Context | None, groups: Sequence[Group]) -> float:
    """log p(x) = log of the integral of p(z) p(x | z) over a grid of z, by the trapezoid rule; of codes the sum over all."""
    axes = [_axes(group) for group in groups]
    z = torch.cartesian_prod(*(axis for each in axes for axis in each)).view(-1, sum(map(len, axes)))
    terms = []
    for part in torch.split(z, 2048):
        many = None if labels is None else labels.repeat(len(part))
        columns = zip(groups, part.split([len(each) for each in axes], 1), strict=True)  # type: ignore[no-untyped-call]
        values = {group.name: column.reshape(-1, *group.z.shape[1:]).to(group.z.dtype) for group, column in columns}
        descent = model.topdown.descend(given(values), context=many, n=len(part))
        prior = torch.stack([group.log_p.flatten(1).sum(1) for group in descent.groups]).sum(0)
        terms.append(prior + model.likelihood.log_prob(x.expand(len(part), *x.shape[1:]), descent.features))
    steps = [axis[1] - axis[0] for each in axes for axis in each]  # of codes 1
    return (torch.cat(terms).logsumexp(0) + torch.stack(steps).log().sum()).item()
