"""The laws that every ancestral model obeys, as a check that anyone can run on a model of their own.

    report = ancestral.testing.check(model)
    report.raise_if_failed()

A law holds of the structure, not of the weights: it is tested on a copy in float64 whose weights are moved a little, so
that a layer that starts at zero cannot hide a leak. A law is never loosened to pass.
"""

from __future__ import annotations

import copy
from collections.abc import Callable
from dataclasses import dataclass, replace
from itertools import product
from math import log

import torch
from torch import Tensor

from ancestral.causal import CausalNetwork
from ancestral.core import Autoregressive, Conditional, Context, Network, State, StateError
from ancestral.draw import Draw, uniforms
from ancestral.latent.latent import Latent
from ancestral.latent.topdown import Noise, given
from ancestral.objectives import Batch, importance_weights, label_context
from ancestral.sampling.parallel import parallel_sample

ENUMERABLE = 2**12  # states that a law will go through one by one
EXACT = 1e-10  # how far float64 arithmetic in another order may be off, relative to the largest parameter


class LawBroken(AssertionError):
    """A model breaks a law; the message says where and by how much."""


@dataclass(frozen=True)
class Outcome:
    """What became of one law: ``passed``, ``failed`` or ``not applicable``, and the measured figure or the reason."""

    law: str
    status: str
    detail: str


@dataclass(frozen=True)
class Report:
    """The outcomes of all laws, in the order of `LAWS`."""

    outcomes: tuple[Outcome, ...]

    @property
    def failed(self) -> tuple[Outcome, ...]:
        """The laws that were broken."""
        return tuple(outcome for outcome in self.outcomes if outcome.status == "failed")

    def raise_if_failed(self) -> None:
        """Raise ``LawBroken`` that names every broken law."""
        if self.failed:
            raise LawBroken("; ".join(f"{outcome.law}: {outcome.detail}" for outcome in self.failed))

    def __str__(self) -> str:
        return "\n".join(f"{outcome.law:<11} {outcome.status:<15} {outcome.detail}" for outcome in self.outcomes)


@dataclass(frozen=True)
class Subject:
    """A model under test: the copy, its likelihood, random symbols (n, *shape) and a context for them."""

    model: Autoregressive | Latent
    likelihood: Autoregressive
    x: Tensor
    context: Context | None
    generator: torch.Generator

    @property
    def network(self) -> Network:
        return self.likelihood.network

    @property
    def flat(self) -> Tensor:
        """(n, D) the symbols in the order in which they are settled."""
        return self.x.flatten(1)[:, list(self.network.order.sites)]

    def forward(self, x: Tensor, context: Context | None = None) -> Tensor:
        """(n, D, k) parameters of every site, in order."""
        parameters: Tensor = self.network(x, context or self.context)
        return parameters.flatten(1, -2)[:, list(self.network.order.sites)]

    def states(self) -> Tensor | None:
        """(m, *shape) every possible x, or None where there are too many."""
        levels, sites = self.likelihood.family.levels, len(self.network.order.sites)
        if levels is None or sites * log(levels) > log(ENUMERABLE) + 1e-9:
            return None
        return torch.tensor(list(product(range(levels), repeat=sites))).view(-1, *self.network.shape)

    def one_context(self, n: int) -> Context | None:
        """The context of the first row, n times."""
        return None if self.context is None else self.context.select(torch.zeros(n, dtype=torch.long))


def random_symbols(likelihood: Autoregressive, n: int, generator: torch.Generator) -> Tensor:
    """(n, *shape) symbols drawn evenly, or standard normal values of a continuous family."""
    shape, levels = (n, *likelihood.network.shape), likelihood.family.levels
    if levels is None:
        return torch.randn(shape, generator=generator, dtype=torch.float64)
    return torch.randint(levels, shape, generator=generator)


def subject(model: Autoregressive | Latent, context: Context | None = None, seed: int = 0, n: int = 4) -> Subject:
    """A copy of a model, moved a little and in float64, with data to test it on."""
    generator = torch.Generator().manual_seed(seed)
    probe = copy.deepcopy(model).to("cpu", torch.float64).eval()
    with torch.no_grad():
        for parameter in probe.parameters():
            parameter.add_(torch.randn(parameter.shape, generator=generator, dtype=torch.float64), alpha=0.05)
    conditional = bool(getattr(model.config, "conditional", False))
    if context is None and conditional:
        context = label_context(torch.arange(n) % (model.spec.classes or 1), model.spec, torch.zeros((), dtype=torch.float64))
    if isinstance(probe, Latent):
        with torch.no_grad():
            features = probe.topdown.descend(Noise(seed, range(n)), context=context, n=n).features
        return Subject(probe, probe.likelihood, random_symbols(probe.likelihood, n, generator), features, generator)
    return Subject(probe, probe, random_symbols(probe, n, generator), context, generator)


# -- the laws: each returns the figure it measured, or a reason in `NotApplicable`, or raises `LawBroken` -----------------


class NotApplicable(Exception):
    """A law says nothing of this model; the message says why."""


def require(holds: bool, complaint: str) -> None:
    """Raise ``LawBroken`` unless the condition holds."""
    if not holds:
        raise LawBroken(complaint)


def causal(subject: Subject) -> str:
    """A conditional ignores its own and every later site; the receptive field is the declared one."""
    before, sites = subject.forward(subject.x), subject.network.order.sites
    probes = sorted({len(sites) * i // 24 for i in range(24)})
    for position in probes:
        changed = subject.x.clone()
        other = random_symbols(subject.likelihood, len(changed), subject.generator).flatten(1)
        later = list(sites[position:])
        changed.flatten(1)[:, later] = other[:, later]
        same = torch.equal(subject.forward(changed)[:, : position + 1], before[:, : position + 1])
        require(same, f"editing the symbols from position {position} on changes a conditional at or before it")
    if isinstance(subject.network, CausalNetwork):
        return f"{len(probes)} edits; {_receptive_field(subject, subject.network)} pixels seen, as declared"
    return f"{len(probes)} edits"


def _receptive_field(subject: Subject, network: CausalNetwork) -> int:
    """Compare the declared receptive field with the support of the Jacobian at one site; how many pixels it has."""
    _, height, width = network.shape
    row, column = height - 1, width // 2
    x = subject.x.double().requires_grad_()
    last = network(x, subject.context)[:, -1, row, column]  # the last colour channel sees all of its pixel's others
    (slope,) = torch.autograd.grad(last.pow(2).sum(), x)
    measured = {(r - row, c - column) for r, c in slope.abs().amax((0, 1)).nonzero().tolist()}
    inside = {(r, c) for r, c in network.receptive_field() if row + r >= 0 and 0 <= column + c < width}
    declared = inside if network.shape[0] > 1 else inside - {(0, 0)}
    require(measured == declared, f"the Jacobian reaches {len(measured)} pixels, the network declares {len(declared)}")
    return len(measured)


def batch(subject: Subject) -> str:
    """Row b ignores row b'."""
    changed = random_symbols(subject.likelihood, len(subject.x), subject.generator)
    changed[0] = subject.x[0]
    difference = (subject.forward(changed)[0] - subject.forward(subject.x)[0]).abs().max().item()
    require(difference == 0, f"garbage in the other rows moves a row's parameters by {difference:.1e}")
    return "garbage in the other rows changes nothing"


def context(subject: Subject) -> str:
    """The output depends on its own row of the context and on no other."""
    if subject.context is None:
        raise NotApplicable("the model takes no context")
    turned = subject.context.select(torch.arange(len(subject.x)).roll(1))
    mixed = subject.context.map(lambda part: part.clone())
    for part in (mixed.vector, mixed.grid):
        if part is not None:
            part[1:] = part[1:].roll(1, 0)
    before = subject.forward(subject.x)
    require(torch.equal(subject.forward(subject.x, mixed)[0], before[0]), "another row's context changes a row")
    require(not torch.equal(subject.forward(subject.x, turned), before), "the context changes nothing")
    return "own row only"


def stepwise(subject: Subject) -> str:
    """start, step, step, ... give forward; so do select, rollback and extend; a state keeps its structure."""
    full, flat = subject.forward(subject.x), subject.flat
    scale = max(1.0, full.abs().max().item())
    worst = (_steps(subject, flat) - full).abs().max().item() / scale
    require(worst <= EXACT, f"steps and forward differ by {worst:.1e} of the largest parameter")
    walk, sites = subject.likelihood.walk(len(flat), subject.context, rollback=3), flat.shape[1]
    parents = torch.tensor([1, 1, 0, 2])
    half = max(1, sites // 2)
    walk.extend(flat[:, :half])
    walk.select(parents)
    other = full[parents] if subject.context is None else subject.forward(subject.x[parents], subject.context.select(parents))
    seen = []
    while not walk.done:
        back = min(3, walk.site, sites - walk.site)
        ahead = flat[parents][:, walk.site : walk.site + back]
        walk.extend(ahead)
        walk.rollback(back)
        seen.append((walk.conditional.parameters - other[:, walk.site]).abs().max().item() / scale)
        walk.settle(flat[parents][:, walk.site])
    require(not seen or max(seen) <= EXACT, "select, extend and rollback lead to other parameters")
    require(torch.equal(walk.symbols.flatten(1), subject.x[parents].flatten(1)), "a walk does not hold the symbols it was given")
    return f"largest difference {worst:.0e} of the largest parameter"


def _steps(subject: Subject, flat: Tensor) -> Tensor:
    """(n, D, k) parameters from start and step, checking the states on the way."""
    parameters, state = subject.network.start(len(flat), subject.context)
    found, structure = [parameters], _structure(state)
    for symbol in flat[:, :-1].unbind(1):
        spent, (parameters, state) = state, subject.network.step(state, symbol)
        found.append(parameters)
        require(_structure(state) == structure, "the structure of the state changes from step to step")
        try:
            spent.consume()
        except StateError:
            continue
        raise LawBroken("a state that a step consumed can be used again")
    return torch.stack(found, 1)


def _structure(state: State) -> dict[str, tuple[torch.Size, torch.dtype]]:
    return {name: (buffer.shape, buffer.dtype) for name, buffer in state.buffers.items()}


def normalised(subject: Subject) -> str:
    """The probabilities of all x sum to 1, and those of every conditional; densities integrate to 1."""
    conditional = Conditional(subject.likelihood.family, subject.forward(subject.x))
    if not conditional.family.discrete:
        return _integral(conditional)
    off = (conditional.log_pmf().exp().sum(-1) - 1).abs().max().item()
    require(off <= 1e-12, f"the probabilities of a conditional miss 1 by {off:.1e}")
    states = subject.states()
    if states is None:
        return f"every conditional to {off:.0e}; too many states to sum over all x"
    total = subject.likelihood.log_prob(states, subject.one_context(len(states))).exp().sum().item()
    require(abs(total - 1) <= 1e-10, f"the probabilities of all {len(states)} states sum to {total}")
    return f"{len(states)} states sum to 1 within {abs(total - 1):.0e}"


def _integral(conditional: Conditional) -> str:
    """Integrate a density between far quantiles, where it is smooth, and compare with the probability between them."""
    few = replace(conditional, parameters=conditional.parameters[:1, :3])
    shape = few.parameters.shape[:-1]
    low, high = (few.quantile(torch.full(shape, u, dtype=torch.float64)) for u in (1e-6, 1 - 1e-6))
    grid = torch.linspace(0, 1, 20001, dtype=torch.float64).view(-1, *(1 for _ in shape))
    density = few.log_prob(low + (high - low) * grid).exp() * (high - low)
    off = (torch.trapezoid(density, grid.flatten(), dim=0) - (1 - 2e-6)).abs().max().item()
    require(off <= 1e-6, f"a density misses its integral by {off:.1e}")
    return f"densities integrate to 1 within {off:.0e}"


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
        require(torch.equal(fixed, draw), "parallel sampling gives other symbols")
    states = subject.states()
    if states is None:
        return "cached = recomputed = parallel; too many states for a chi-square test"
    return f"cached = recomputed = parallel; chi-square p = {_chi_square(subject, states):.2f}"


def _chi_square(subject: Subject, states: Tensor, draws: int = 4096) -> float:
    context = subject.one_context(draws)
    found = subject.likelihood.walk(draws, context).run(Draw(seed=5)).flatten(1)
    place = (subject.likelihood.family.levels or 2) ** torch.arange(found.shape[1] - 1, -1, -1)
    counts = torch.bincount((found * place).sum(1), minlength=len(states)).double()
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


LAWS: dict[str, Callable[[Subject], str]] = {
    law.__name__: law for law in (causal, batch, context, stepwise, normalised, sampled, table, bound)
}


@torch.no_grad()
def _judge(law: Callable[[Subject], str], under: Subject) -> Outcome:
    try:
        with torch.enable_grad() if law is causal else torch.no_grad():
            return Outcome(law.__name__, "passed", law(under))
    except NotApplicable as reason:
        return Outcome(law.__name__, "not applicable", str(reason))
    except LawBroken as complaint:
        return Outcome(law.__name__, "failed", str(complaint))


def check(model: Autoregressive | Latent, context: Context | None = None, seed: int = 0) -> Report:
    """Put every law to a model, on a copy of it.

    Args:
        model: any model of the library or of your own.
        context: four rows of context, where the model takes one that it does not make itself.
        seed: of the random symbols that the laws are tried on.

    Example:
        >>> import ancestral
        >>> model = ancestral.build("gated-pixelcnn", ancestral.DataSpec("image", (1, 3, 3), levels=2), preset="tiny")
        >>> check(model).failed
        ()
    """
    under = subject(model, context, seed)
    return Report(tuple(_judge(law, under) for law in LAWS.values()))
