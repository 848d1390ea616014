"""Completion: symbols that are known stay, the others are drawn given them.

Every row takes the first way that is open to it::

      exact        known symbols come before all others in the model's order, or it takes any order: a walk, known ones first
      through z    the same of a latent-variable model, or one with a factorised decoder: z given what is known, then a walk
      particles    of the walk over x, or over z and x, which are weighted by the known symbols as they come

See `ancestral.sampling.proposals` for z, and `ancestral.sampling.particles` for the last.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from math import log

import torch
from torch import Tensor
from torch.distributions import Distribution

from ancestral.core import Autoregressive, Context
from ancestral.draw import Draw, uniforms
from ancestral.latent.codes import CodePrior
from ancestral.latent.latent import Latent
from ancestral.networks.factorised import Factorised
from ancestral.sampling.particles import effective_size, filtered, pick, stepping
from ancestral.sampling.proposals import RESAMPLING, Proposals, known_terms
from ancestral.sampling.sample import walked
from ancestral.sampling.strategies import (
    Interrupted,
    Model,
    Progress,
    Rows,
    Scattered,
    context_of,
    inference,
    known_first,
    likelihood_of,
    prefixes,
    sized,
)
from ancestral.spec import check_whole
from ancestral.symbols import DataError, check_symbols

STAGES = 2**56  # the particles of every group of codes draw as rows so far away from those of the others and of x
NESTED = 4  # particles of codes for each of those of z, where what is decided of the codes does not come first
SCORED = 8  # rows whose evidence is computed at once: all sites of a row take more memory than its walk


@dataclass(frozen=True)
class Completion:
    """Completed examples, and how far they are to be trusted.

    Attributes:
        x: (n, *shape) symbols; those that were known are as they were.
        status: ``"exact"``: drawn from p(x | known); ``"approximate"``: some rows were chosen from particles by their weights.
        log_evidence: (n,) log p(x_known) in nats, known symbols of whatever probability included; where the status is
            approximate the logarithm of an unbiased estimate, as long as symbols are drawn without options.
        particles: how many particles each row chose from; None where it is exact.
        effective_sample_size, least: (n,) of how many equally good particles the weights were worth, 1 .. particles: at the
            end, and when they were worth least; None likewise. Rows that are exact all the same count as all particles.
    """

    x: Tensor
    status: str
    log_evidence: Tensor
    particles: int | None = None
    effective_sample_size: Tensor | None = None
    least: Tensor | None = None


def complete(
    model: Model,
    x: Tensor,
    known: Tensor,
    *,
    seed: int = 0,
    particles: int = 64,
    labels: Sequence[int] | Tensor | None = None,
    context: Context | None = None,
    temperature: float = 1.0,
    top_k: int | None = None,
    top_p: float | None = None,
    min_p: float | None = None,
    first_row: int = 0,
    batch_size: int = 256,
    engine: str = "auto",
    progress: Progress | None = None,
) -> Completion:
    """Draw the unknown symbols of x given the known ones; row i is a pure function of the seed and ``first_row + i``.

    It is exact for an autoregressive model where the known symbols of a row come before all others in its order, and for any
    symbols where the model takes any order: then the known ones come first, and the distribution is that of this order.

    Args:
        x: (n, *shape) symbols; what stands at unknown sites does not matter.
        known: booleans that broadcast to (n, *shape), True where the symbol is to stay.
        particles: how many each row chooses from where it is not exact, at least 2; memory grows with it.
        labels, context: (n,) labels of a conditional model, or whatever else it is conditioned on; not both.
        temperature, top_k, top_p, min_p: how each unknown symbol is drawn; see `Draw`. Particles are weighted without them.
        batch_size: rows, or particles of rows, that walk together.
        engine: what carries the walk out; see `sample`.
        progress: is told (symbols settled, of how many), particles of a row taken as one.

    Raises:
        DataError: x or known does not fit the model, or no particle gives the known symbols a probability above zero.
        ValueError: an argument is outside its range.
        Interrupted: Ctrl-C; its ``complete`` holds the first rows, as far as they were done.

    Example:
        >>> import ancestral
        >>> model = ancestral.build("gated-pixelcnn", ancestral.DataSpec("image", (1, 4, 4), levels=2), preset="tiny")
        >>> x, top = torch.ones(2, 1, 4, 4, dtype=torch.long), torch.tensor([[True], [True], [False], [False]])
        >>> completion = complete(model, x, top)
        >>> completion.status, completion.x[:, :, :2].eq(1).all().item()
        ('exact', True)
        >>> complete(model, x, ~top).status
        'approximate'
    """
    model = sized(model, x.shape[1:]) if None in model.spec.shape else model
    x, known = _evidence(model, x, known)
    if model.spec.end is not None and not prefixes(known, likelihood_of(model).network).all():
        raise DataError("of examples that end, only what they begin with can be known, since all after the end is filled up")
    for name, value, least in (("particles", particles, 2), ("batch_size", batch_size, 1), ("first_row", first_row, 0)):
        check_whole(**{name: value})
        if value < least:
            raise ValueError(f"{name} is {value}; it must be at least {least}")
    n = len(x)
    draw = Scattered(seed, temperature, top_k, top_p, min_p, (x, known), rows=range(first_row, first_row + n))
    task = _Task(model, x, known, context_of(model, n, labels, context), draw, particles, batch_size, engine, progress)
    with inference(model):
        return _merged(task, _ways(task))


def _evidence(model: Model, x: Tensor, known: Tensor) -> tuple[Tensor, Tensor]:
    """Symbols with zeros where they are unknown, checked, and the mask in their shape, on the model's device."""
    parameter = model.anchor
    x, known = torch.as_tensor(x, device=parameter.device), torch.as_tensor(known, device=parameter.device)
    if known.dtype != torch.bool:
        raise DataError(f"known has type {known.dtype}; it takes booleans, True where a symbol is to stay")
    try:
        known = known.broadcast_to(x.shape)
    except RuntimeError as error:
        raise DataError(f"known has shape {tuple(known.shape)}, which does not broadcast to x {tuple(x.shape)}") from error
    x = torch.where(known, x, torch.zeros_like(x))
    check_symbols(x, model.spec)
    if not len(x):
        raise DataError("x has no rows: there is nothing to complete")
    return (x.to(parameter.dtype) if model.spec.levels is None else x.long()), known


@dataclass(frozen=True)
class _Task:
    """Rows to complete, with everything that decides how; `complete` says what the fields mean."""

    model: Model
    x: Tensor
    known: Tensor
    context: Context | None
    draw: Scattered
    k: int
    batch_size: int
    engine: str
    progress: Progress | None

    @property
    def likelihood(self) -> Autoregressive:
        return likelihood_of(self.model)

    def some(self, here: Sequence[int], before: int = 0) -> _Task:
        """The task of these rows, ``before`` of whose companions are done."""
        index = torch.tensor(here, device=self.x.device)
        x, known, rows = self.x[index], self.known[index], [self.draw.rows[row] for row in here]
        draw = replace(self.draw, known=(x, known), rows=rows)
        done, total = before * self.model.spec.sites, len(self.x) * self.model.spec.sites
        progress = None if self.progress is None else partial(_told, self.progress, done, total)
        context = self.context and self.context.select(index)
        return replace(self, x=x, known=known, context=context, draw=draw, progress=progress)

    def proposals(self, model: Latent) -> Proposals:
        """Particles of z of all rows."""
        return Proposals(model, self.x, self.known, self.context, self.draw.seed, self.draw.rows, self.k)


Way = Callable[[_Task], Completion]


def _told(progress: Progress, before: int, total: int, settled: int, _: int) -> None:
    progress(before + settled, total)


def _ways(task: _Task) -> list[tuple[list[int], Way]]:
    """Rows that are completed alike, and how; no row's way depends on its companions."""
    model, network = task.model, task.likelihood.network
    simple: Way = _walked
    always = apart = network.any_order
    if isinstance(model, Latent):  # p(x_known | z) of a factorised decoder can be had of any known symbols
        simple, always, apart = partial(_through_z, model), isinstance(network, Factorised), False
    groups: dict[tuple[bool, bytes], list[int]] = {}
    for row, prefix in enumerate(prefixes(task.known, network).tolist()):
        mask = bytes(task.known[row].flatten().tolist()) if apart and not prefix else b""
        groups.setdefault((prefix or always, mask), []).append(row)
    return [(rows, simple if easy else _by_particles) for (easy, _), rows in groups.items()]


def _merged(task: _Task, ways: list[tuple[list[int], Way]]) -> Completion:
    """The completion of all rows, in their order.

    Raises:
        Interrupted: Ctrl-C.
    """
    parts, rows = list[Completion](), list[int]()
    try:
        for here, way in ways:
            parts.append(way(task.some(here, len(rows))))
            rows += here
    except KeyboardInterrupt as stop:
        last = [stop.complete] if isinstance(stop, Interrupted) else []
        rows += here[: sum(map(len, last))]
        first = next(row for row in range(len(task.x) + 1) if row not in rows)
        done = torch.cat([*(part.x for part in parts), *last, task.x[:0]])
        raise Interrupted(done[[rows.index(row) for row in range(first)]], len(task.x)) from stop
    return _joined(parts, rows)


def _joined(parts: Sequence[Completion], rows: Sequence[int]) -> Completion:
    """One completion of parts, which hold these rows one after the other."""
    place = torch.tensor(rows, device=parts[0].x.device).argsort()
    x, evidence = torch.cat([part.x for part in parts])[place], torch.cat([part.log_evidence for part in parts])[place]
    k = max(part.particles or 0 for part in parts)
    if not k:
        return Completion(x, "exact", evidence)
    alike = [torch.full_like(part.log_evidence, k) for part in parts]
    sizes, least = (
        torch.cat([each if size is None else size for each, size in zip(alike, some, strict=True)])[place]
        for some in ([part.effective_sample_size for part in parts], [part.least for part in parts])
    )
    return Completion(x, "approximate", evidence, k, sizes, least)


# -- rows that are completed alike ---------------------------------------------------------------------------------------------


def _walked(task: _Task) -> Completion:
    """Exactly, by walks that settle the known symbols first; all rows know the same symbols, or a prefix each."""
    likelihood, network = task.likelihood, task.likelihood.network
    if not prefixes(task.known, network).all():
        arranged = network.arrange(known_first(task.known[0], network.order))
        likelihood = Autoregressive(arranged, likelihood.family, likelihood.spec)
    rows = Rows(task.model, len(task.x), task.context)
    x = walked(likelihood, rows, task.draw, task.batch_size, task.engine, task.progress)
    scored = stepping(likelihood, task.engine, len(task.x))
    batches = rows.batches(min(task.batch_size, SCORED))
    evidence = [known_terms(scored, x[i.start : i.stop], task.known[i.start : i.stop], seen) for i, seen in batches]
    return Completion(x, "exact", torch.cat(evidence))


def _through_z(model: Latent, task: _Task) -> Completion:
    """By z that importance resampling draws given the known symbols, and a walk that sees it."""
    n, some = len(task.x), max(1, task.batch_size // task.k)
    chosen = [_resampled(model, task.some(range(i, min(i + some, n)))) for i in range(0, n, some)]
    z = {name: torch.cat([each[name] for each, _, _ in chosen]) for name in chosen[0][0]}
    evidence, size = torch.cat([each[1] for each in chosen]), torch.cat([each[2] for each in chosen])
    rows = Rows(model, n, task.context, z)
    x = walked(task.likelihood, rows, task.draw, task.batch_size, task.engine, task.progress)
    return Completion(x, "approximate", evidence, task.k, size, size)


def _resampled(model: Latent, task: _Task) -> tuple[dict[str, Tensor], Tensor, Tensor]:
    """One z of each row by group, (m,) log-evidence in nats, and (m,) effective sample sizes."""
    decided = model.topdown.decided(task.x, task.known)
    if decided is None:
        return task.proposals(model).resampled()
    weights, z, features = _completed(model, task, decided)
    x, known = (part.repeat_interleave(task.k, 0) for part in (task.x, task.known))
    weights = weights + known_terms(task.likelihood, x, known, features).view(-1, task.k)
    picked = pick(weights, uniforms(task.draw.seed, task.draw.rows, 1, RESAMPLING)[:, 0])
    chosen = {name: values.index_select(0, picked) for name, values in z.items()}
    return chosen, weights.logsumexp(1) - log(task.k), effective_size(weights)


def _completed(
    model: Latent, task: _Task, decided: Mapping[str, tuple[Tensor, Tensor]]
) -> tuple[Tensor, dict[str, Tensor], Context]:
    """k particles of codes of each row, of which known symbols decide some: the others are completed, from the top group on.

    (m, k) log-probabilities of what is decided, codes by group, and features of all m k particles. Codes that contradict known
    symbols are left out, though p(x | z) leaves them some room.
    """
    rows = [task.k * row + j for row in task.draw.rows for j in range(task.k)]
    weights, z = torch.zeros(len(rows), dtype=torch.float64, device=task.x.device), dict[str, Tensor]()

    def choose(name: str, prior: Distribution, posterior: Distribution | None) -> Tensor:
        if not isinstance(prior, CodePrior):
            raise TypeError(f"group {name!r} is decided in part, but no codes")
        values, known = (part.repeat_interleave(task.k, 0) for part in decided[name])
        draw = Scattered(task.draw.seed, known=(values, known), rows=[STAGES * (len(z) + 1) + row for row in rows])
        own = _Task(prior.model, values, known, prior.context, draw, NESTED, task.batch_size, task.engine, None)
        found = _merged(own, _ways(own))
        weights.add_(found.log_evidence)
        z[name] = found.x
        return found.x

    features = model.topdown.descend(choose, context=task.context and task.context.repeat(task.k), n=len(rows)).features
    return weights.view(-1, task.k), z, features


def _by_particles(task: _Task) -> Completion:
    """By particles of the walk over x, and of z where there are latents."""
    n, some, parts = len(task.x), max(1, task.batch_size // task.k), list[Completion]()
    try:
        for i in range(0, n, some):
            parts.append(_particles(task.some(range(i, min(i + some, n)), i)))
    except KeyboardInterrupt as stop:
        raise Interrupted(torch.cat([*(part.x for part in parts), task.x[:0]]), n) from stop
    return _joined(parts, range(n))


def _particles(task: _Task) -> Completion:
    """The particles of all rows at once; those of z are first a pilot, whose completion is the guess that the others lie near."""
    m, k = len(task.x), task.k
    likelihood = stepping(task.likelihood, task.engine, m * k)
    walk, weights, turn = partial(likelihood.walk, m, task.context), None, 0
    decided = task.model.topdown.decided(task.x, task.known) if isinstance(task.model, Latent) else None
    if isinstance(task.model, Latent) and decided is not None:
        weights, _, features = _completed(task.model, task, decided)
        walk = partial(likelihood.walk, m * k, features)
    elif isinstance(task.model, Latent):
        proposals = task.proposals(task.model)
        pilot, even = likelihood.walk(m * k, proposals.pilot()), torch.zeros(m, k, dtype=torch.float64, device=task.x.device)
        blind = Draw(task.draw.seed)
        guess = filtered(pilot, task.x, task.known, task.draw.rows, k, blind, even, turn=1, tell=_tell(task, 0, 2)).x
        weights, _, features = proposals.near(guess)
        walk, turn = partial(likelihood.walk, m * k, features), 1
    found = filtered(walk(), task.x, task.known, task.draw.rows, k, task.draw, weights, tell=_tell(task, turn, turn + 1))
    return Completion(found.x, "approximate", found.log_evidence, k, found.effective_sample_size, found.least)


def _tell(task: _Task, turn: int, turns: int) -> Callable[[int], None] | None:
    """What tells the progress of one of several walks over all sites."""
    progress, m, sites = task.progress, len(task.x), task.model.spec.sites
    return None if progress is None else lambda settled: progress(m * (turn * sites + settled) // turns, m * sites)
