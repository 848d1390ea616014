"""Classifier-free guidance: every row is walked twice, with its label and without, and both walks settle the same symbol.

      log p_w(x_i) = (1 + w) log p(x_i | x_<i, label) - w log p(x_i | x_<i) + constant          site by site, over the alphabet

Ho & Salimans 2022, "Classifier-Free Diffusion Guidance" (arXiv:2207.12598), eq. 6, with the probabilities of symbols in place of
scores. w = 0 leaves the model as it is. Where others write a scale s for null + s (conditional - null), s = 1 + w. Codes that an
autoregressive prior draws (`vq-vae`, `two-stage`) are symbols, too.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from math import isfinite

import torch
from torch import Tensor

from ancestral.core import Autoregressive, Conditional, Context, Family
from ancestral.draw import Draw, Handed
from ancestral.families import Categorical
from ancestral.latent.codes import CodePrior
from ancestral.latent.latent import Latent
from ancestral.latent.topdown import Noise, Symbols
from ancestral.sampling.strategies import (
    Choose,
    Interrupted,
    Progress,
    Recomputed,
    Rows,
    Walking,
    likelihood_of,
    part_of,
    telling,
)
from ancestral.sampling.stream import settled
from ancestral.spec import check_real
from ancestral.symbols import DataError
from ancestral.walking.engines import lowered

WALKING = ("cached", "recompute")
LEAST = -1e4  # nats: probabilities below exp(-10,000) are taken for that, so that no two infinities are subtracted


@dataclass
class Led(Walking):
    """Noise whose codes are guided like symbols, where their prior sees labels.

    The null half of a prior that is told of coarser codes is told of the same ones, coloured by the label as they are.
    """

    weight: float = 0.0

    def symbols(self, chosen: Symbols, u: Tensor) -> Tensor:
        if not isinstance(chosen, CodePrior) or chosen.context is None or chosen.context.vector is None:
            return super().symbols(chosen, u)
        prior, both = chosen.model, stacked(chosen.context, unlabelled(chosen.context))
        walker = Autoregressive(lowered(prior, self.engine, 2 * len(u)) or prior.network, prior.family, prior.spec)
        draw = Handed(temperature=self.temperature, u=u.flatten(1))
        return walker.walk(2 * len(u), both).run(alike(draw, self.weight))[: len(u)]


@dataclass(frozen=True)
class Pairs(Rows):
    """Rows that are seen twice: n rows with their labels and, below them, the same n with the null label and the same z.

    Attributes:
        weight: of the guidance, by which codes that are z were drawn.
    """

    weight: float = 0.0

    def _noise(self, keys: range) -> Noise:
        return Led(self.seed, keys, self.temperature, prior=True, engine=self.engine, weight=self.weight)

    def _seen(self, rows: range) -> Context:
        here = torch.arange(rows.start, rows.stop, device=self.model.anchor.device)
        context = (self.context or Context()).select(here)
        null = unlabelled(context)
        if isinstance(self.model, Latent):
            descent = self.descended(self.model, rows, context)
            z = {group.name: group.z for group in descent.groups}
            context, null = descent.features, self.model.features(z, null)
        return stacked(context, null)


def unlabelled(context: Context) -> Context:
    """The same with the null label, a vector of zeros."""
    return replace(context, vector=None if context.vector is None else torch.zeros_like(context.vector))


def stacked(above: Context, below: Context) -> Context:
    """The rows of one context above those of another that has the same parts."""
    return Context(**{name: torch.cat([part, getattr(below, name)]) for name, part in vars(above).items() if part is not None})


def combined(conditional: Conditional, weight: float) -> Conditional:
    """The n guided distributions of 2 n, the labelled ones above and the null ones below, in float64.

    A symbol that is impossible with the label stays so.

    Example:
        >>> from ancestral.families import Bernoulli
        >>> both = Conditional(Bernoulli(), torch.tensor([[0.0], [-1.0]]))  # logits of a one with and without the label
        >>> round(combined(both, 2.0).log_pmf().diff().item(), 6)  # (1 + 2) 0 - 2 (-1)
        2.0
    """
    log_pmf = conditional.family.log_pmf(conditional.parameters.double()).clamp_min(LEAST)
    told, null = log_pmf.chunk(2)
    return Conditional(Categorical(log_pmf.shape[-1]), (1 + weight) * told - weight * null)


def alike(choose: Choose, weight: float) -> Choose:
    """The chooser of 2 n rows that settles both rows of a pair as ``choose`` settles their guided distribution."""
    return lambda site, both: choose(site, combined(both, weight)).repeat(2)


def guided(rows: Rows, draw: Draw, weight: float, method: str, batch_size: int, engine: str, progress: Progress | None) -> Tensor:
    """(n, *shape) symbols of labelled rows, drawn from the guided distributions with the uniforms of the draw; see `sample`.

    Raises:
        ValueError: the weight is out of range, the rows have no labels, or the method does not walk.
        DataError: the model is of real values.
        Interrupted: Ctrl-C; it holds the batches that were done.
    """
    likelihood = likelihood_of(rows.model)
    check_guidance(rows, weight, likelihood.family)
    if method not in WALKING:
        raise ValueError(f"guided samples are made by walks: method={method!r} is none, choose {' or '.join(WALKING)}")
    network = likelihood.network
    network = Recomputed(network) if method == "recompute" else lowered(likelihood, engine, 2 * rows.n) or network
    walker = Autoregressive(network, likelihood.family, likelihood.spec)
    sites, parts = likelihood.spec.sites, [torch.zeros(0, *network.shape, dtype=torch.long, device=network.anchor.device)]
    try:
        for some, seen in Pairs(**vars(rows), weight=weight).batches(batch_size):
            walk, tell = walker.walk(2 * len(some), seen), telling(progress, some, rows.n, sites)
            parts.append(settled(walk, alike(part_of(draw, some), weight), likelihood.spec, tell=tell)[: len(some)])
    except KeyboardInterrupt as stop:
        raise Interrupted(torch.cat(parts), rows.n) from stop
    return torch.cat(parts)


def check_guidance(rows: Rows, weight: float, family: Family) -> None:
    """Raise ``ValueError`` or ``DataError`` where rows cannot be guided: by this weight, without labels, of real values."""
    check_real(guidance=weight)
    if not (weight >= 0 and isfinite(weight)):
        raise ValueError(f"guidance is {weight}; it must be a finite number of at least 0 (0 for none)")
    if rows.context is None or rows.context.vector is None:
        raise ValueError("guidance leads towards labels, and there are none: give labels of a model built with conditional=True")
    if not family.discrete:
        raise DataError(f"guidance weighs the probabilities of symbols, and {family} is a density, which has none")
