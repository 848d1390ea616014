"""Single examples: what each of them costs, and each of their symbols."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from math import log
from typing import Any

import torch
from torch import Tensor

from ancestral.core import Autoregressive
from ancestral.data.notation import Sound, Text
from ancestral.data.splits import Examples, Units
from ancestral.evaluation.bits import example_nats, symbol_nats
from ancestral.evaluation.complexity import Writing, complexity
from ancestral.evaluation.examples import Chosen, Tick, check_costs, counter
from ancestral.evaluation.iwae import bounds
from ancestral.evaluation.rate_distortion import rate_distortion
from ancestral.latent.codes import coded
from ancestral.latent.latent import Latent
from ancestral.latent.topdown import Noise
from ancestral.sampling.strategies import Model, Progress, inference, likelihood_of
from ancestral.spec import DataSpec, check_whole
from ancestral.symbols import DataError, check_symbols, lengths


def status_of(model: Model) -> str:
    """``"exact"`` where -log p(x) can be computed, ``"bound"`` where it is bounded from above."""
    return "bound" if isinstance(model, Latent) else "exact"


@dataclass(frozen=True)
class Scores:
    """What single examples cost.

    Attributes:
        nats: (n,) -log p(x), or an upper bound of it, float64.
        bits_per_dim: (n,) the same in bits a symbol; where lengths vary the end of an example is paid for and not counted.
        status: ``"exact"`` or ``"bound"``.
        importance_samples: k of the bound; 1 is the evidence lower bound; None where there are no latents.
        density: whether the costs are those of a density, in the original units where ``score`` was told them.
        symbol_bits: (n, *shape) bits of every symbol, where they were asked for, zero after the end of an example. With latents
            each is given one z from the posterior of x: they sum to the distortion, a part of the bound.
        complexity: (n,) bits of every example in ``codec``, where they were asked for and the values are not real.
        codec: its name; see `complexity`.
    """

    nats: Tensor
    bits_per_dim: Tensor
    status: str
    importance_samples: int | None = None
    density: bool = False
    symbol_bits: Tensor | None = None
    complexity: Tensor | None = None
    codec: str | None = None

    @property
    def bits(self) -> Tensor:
        """(n,) ``nats`` in bits."""
        return self.nats / log(2)

    @property
    def corrected(self) -> Tensor | None:
        """(n,) bits less ``complexity``: how much longer than in a codec that knows no data (Serrà et al. 2020)."""
        return None if self.complexity is None else self.bits - self.complexity

    def to_dict(self) -> dict[str, Any]:
        """Every attribute and property, as JSON has them."""
        derived = [name for name, value in vars(Scores).items() if isinstance(value, property)]
        every = {name: getattr(self, name) for name in (*vars(self), *derived)}
        return {name: value.tolist() if isinstance(value, Tensor) else value for name, value in every.items()}


def score(
    model: Model,
    x: Tensor,
    *,
    labels: Sequence[int] | Tensor | None = None,
    importance_samples: int = 1,
    seed: int = 0,
    batch_size: int = 64,
    units: Units | None = None,
    per_symbol: bool = False,
    corrected: bool = False,
    notation: Writing | None = None,
    progress: Progress | None = None,
) -> Scores:
    """-log p(x) of (n, *shape) symbols, in nats, or with latents an upper bound of it; smaller is more likely.

    Args:
        labels: (n,) labels of a conditional model.
        importance_samples: k of a latent-variable model; 1 takes the evidence lower bound, with the KL in closed form
            where there is one. Of models with codes, of which x leaves no choice, all samples are the same: it is 1.
        units: how x was made of its originals, whose density the costs are then of; see `Units`.
        per_symbol: whether to keep the bits of every symbol, as many float64 as x has symbols.
        corrected: whether to weigh every example in a lossless codec too.
        notation: how symbols stand for text, whose bytes are weighed then, or for sound, whose features a model may follow.

    Raises:
        DataError: x does not fit the model, or a cost is not finite.
        ValueError: importance_samples is below 1.

    Example:
        >>> import ancestral
        >>> model = ancestral.build("gated-pixelcnn", ancestral.DataSpec("image", (1, 4, 4), levels=2), preset="tiny")
        >>> scores = score(model, torch.zeros(3, 1, 4, 4, dtype=torch.long), per_symbol=True, corrected=True)
        >>> scores.status, scores.nats.shape, scores.symbol_bits.shape, scores.codec
        ('exact', torch.Size([3]), torch.Size([3, 1, 4, 4]), 'PNG')
    """
    check_whole(importance_samples=importance_samples)
    if importance_samples < 1:
        raise ValueError(f"importance_samples is {importance_samples}; it must be at least 1")
    chosen = _given(model, x, labels, notation=notation)
    latent, k = isinstance(model, Latent), 1 if coded(model) else importance_samples
    tick = counter(progress, len(chosen) * (k if latent else 1))
    with inference(model):
        if not isinstance(model, Latent):
            nats = exact_nats(model, chosen, batch_size, tick)
        elif k == 1:
            terms = rate_distortion(model, chosen, seed, batch_size, tick)
            nats = terms.rate + terms.distortion
        else:
            nats = -bounds(model, chosen, k, seed, batch_size, tick).iwae
    check_costs(nats, chosen, model.spec)
    nats = nats if units is None else nats + units.nats
    bounded = units is not None and units.dequantized
    status, density = "bound" if bounded else status_of(model), model.spec.density and not bounded
    bits = None
    if per_symbol:
        nats_of = partial(surprisal, model, x, labels=labels, seed=seed, batch_size=batch_size)
        bits = nats_of(units=units, notation=notation) / log(2)
    codec, sizes = (complexity(x, model.spec, units=units, notation=notation) if corrected else None) or (None, None)
    drawn = k if latent else None
    return Scores(nats, nats / (log(2) * counted_symbols(x, model.spec)), status, drawn, density, bits, sizes, codec)


def counted_symbols(x: Tensor, spec: DataSpec) -> Tensor:
    """(n,) of how many symbols an example is, by which bits a symbol are reckoned; that of an empty one is its end."""
    if spec.end is None:
        return torch.full((len(x),), x[0].numel())
    return lengths(x, spec).cpu().clamp(min=1)


def surprisal(
    model: Model,
    x: Tensor,
    *,
    labels: Sequence[int] | Tensor | None = None,
    seed: int = 0,
    batch_size: int = 64,
    units: Units | None = None,
    rows: Sequence[int] | None = None,
    notation: Writing | None = None,
) -> Tensor:
    """(n, *shape) -log p of every symbol given the ones before it, in nats, float64: where an example surprises the model.

    The sum over an example is -log p(x), exactly; what comes after its end costs nothing. With latents every symbol is also
    given one z from the posterior of x: the sum is then the distortion at that z, and the rate, which belongs to no symbol, is
    not in it.

    Args:
        units: how x was made of its originals, whose density the costs are then of; see `Units`.
        rows: the numbers of the examples, which decide their z; 0, 1, ... by default, as in ``score``.
        notation: how symbols stand for sound, whose features a model may follow.

    Raises:
        DataError: x does not fit the model.
    """
    found = torch.zeros(x.shape, dtype=torch.float64)
    scales = 0.0 if units is None else units.scale.log().cpu()
    done = 0
    with inference(model):
        for batch, seen in _given(model, x, labels, rows, notation).batches(model, seed, batch_size):
            if isinstance(model, Latent):
                seen = model.descend(batch.x, Noise(seed, batch.rows or ()), seen).features
            nats = symbol_nats(likelihood_of(model), batch.x, seen).cpu() + scales
            found[done : done + len(nats), ..., : nats.shape[-1]] = nats  # a batch may be cut to its longest example
            done += len(nats)
    return found


def exact_nats(model: Autoregressive, chosen: Chosen, batch_size: int, tick: Tick) -> Tensor:
    """(n,) -log p(x) in nats, float64, of a model without latents."""
    parts = []
    for batch, context in chosen.batches(model, 0, batch_size):
        parts.append(example_nats(model, batch.x, context))
        tick(len(batch.x))
    return torch.cat(parts).cpu()


def _given(
    model: Model,
    x: Tensor,
    labels: Sequence[int] | Tensor | None,
    rows: Sequence[int] | None = None,
    notation: Writing | None = None,
) -> Chosen:
    check_symbols(x, model.spec)
    if not len(x):
        raise DataError("x has no rows: there is nothing to score")
    examples = Examples(x, None if labels is None else torch.as_tensor(labels, device=x.device))
    known = notation if isinstance(notation, (Text, Sound)) else None
    return Chosen(examples, range(len(x)), range(len(x)) if rows is None else rows, notation=known)
