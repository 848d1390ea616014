"""What drawn symbols weigh: their log-probability under the model, and under the distribution that they were drawn from."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from math import isfinite

import torch
from torch import Tensor

from ancestral.core import Conditional, Context
from ancestral.draw import Draw
from ancestral.latent.latent import Latents
from ancestral.sampling.guidance import Pairs, check_guidance, combined
from ancestral.sampling.strategies import Model, Rows, context_of, inference, likelihood_of, prompted, sized
from ancestral.symbols import DataError, check_symbols, scored

VALUES = 2**22  # probabilities that are held together


@dataclass(frozen=True)
class LogProbs:
    """Log-probabilities of n rows in nats, float64; what comes after the end of a row, or before that of its prompt, is left out.

    Attributes:
        model: (n,) under the model: of x given its context, and given z where there are latents.
        altered: (n,) under the distribution that temperature, top-k, top-p, min-p and guidance make of it, site by site; -inf
            where they leave a symbol no probability.
    """

    model: Tensor
    altered: Tensor

    def to_dict(self) -> dict[str, list[float | None]]:
        """The attributes as lists, None for what could not be drawn: JSON has no infinite numbers."""
        return {name: [value if isfinite(value) else None for value in part.tolist()] for name, part in vars(self).items()}


def log_probs(
    model: Model,
    x: Tensor,
    *,
    temperature: float = 1.0,
    top_k: int | None = None,
    top_p: float | None = None,
    min_p: float | None = None,
    seed: int = 0,
    labels: Sequence[int] | Tensor | None = None,
    guidance: float = 0.0,
    context: Context | None = None,
    z: Latents | None = None,
    z_temperature: float = 1.0,
    first_row: int = 0,
    prompt: Tensor | Sequence[int] | None = None,
    batch_size: int = 8,
) -> LogProbs:
    """Log-probabilities of what `sample` gave for the same arguments, or of any other (n, *shape) symbols; one pass over them.

    Args:
        seed, z, z_temperature, first_row: of a latent-variable model they decide the z that x is conditioned on, as in `sample`.

    Raises:
        DataError: x or the prompt does not fit the model, or options alter the densities of real values.
        ValueError: an argument is outside its range or does not fit the model.

    Example:
        >>> import ancestral
        >>> model = ancestral.build("made", ancestral.DataSpec("vector", (6,), levels=3), preset="tiny")
        >>> x = ancestral.sample(model, 2, top_k=1)
        >>> log_probs(model, x, top_k=1).altered.tolist()  # nothing else could have been drawn
        [0.0, 0.0]
    """
    check_symbols(x, likelihood_of(model).spec)
    model = sized(model, x.shape[1:]) if None in model.spec.shape else model
    likelihood, n = likelihood_of(model), len(x)
    x = x.to(model.anchor.device)
    counts = scored(x, likelihood.spec)
    counts = torch.ones_like(x, dtype=torch.bool) if counts is None else counts
    counts = counts if prompt is None else counts & ~prompted(likelihood, prompt, n)[1]
    draw = Draw(seed, temperature, top_k, top_p, min_p)
    rows = Rows(model, n, context_of(model, n, labels, context), z, seed, first_row, z_temperature)
    if guidance:
        check_guidance(rows, guidance, likelihood.family)
        rows = Pairs(**vars(rows), weight=guidance)
    parts = []
    with inference(model):
        for some, seen in rows.batches(batch_size):
            here = x[some.start : some.stop]
            both = likelihood.conditionals(torch.cat([here, here]) if guidance else here, seen)
            own = Conditional(both.family, both.parameters[: len(here)]).log_prob(here).double()
            altered = own if draw.plain and not guidance else _altered(draw, both, here, guidance)
            terms = torch.stack([own, altered]).where(counts[some.start : some.stop], 0.0)
            parts.append(terms.flatten(2).sum(2))
    return LogProbs(*torch.cat(parts, 1))


def _altered(draw: Draw, conditional: Conditional, x: Tensor, guidance: float) -> Tensor:
    """(n, *shape) log-probabilities of symbols under altered conditionals, of pairs of rows where there is guidance."""
    family, parameters, flat = conditional.family, conditional.parameters.flatten(1, -2), x.flatten(1)
    if family.levels is None:
        raise DataError(f"temperature and truncation alter probabilities of symbols, and {family} is a density: leave them out")
    sites, terms = max(1, VALUES // (len(parameters) * family.levels)), []
    for some, symbols in zip(*(torch.split(each, sites, 1) for each in (parameters, flat)), strict=True):
        here = Conditional(family, some)
        probability = draw.probability(combined(here, guidance) if guidance else here)
        terms.append(probability.gather(-1, symbols.long().unsqueeze(-1)).squeeze(-1).log())
    return torch.cat(terms, 1).view_as(x)
