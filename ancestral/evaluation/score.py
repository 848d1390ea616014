"""Single examples: what each of them costs, and each of their symbols."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from math import log

import torch
from torch import Tensor

from ancestral.core import Autoregressive
from ancestral.data.splits import Units
from ancestral.evaluation.bits import example_nats
from ancestral.evaluation.examples import Chosen, Tick, check_costs, counter
from ancestral.evaluation.iwae import bounds
from ancestral.evaluation.rate_distortion import rate_distortion
from ancestral.latent.latent import Latent
from ancestral.latent.topdown import Noise
from ancestral.sampling.strategies import Model, Progress, inference, likelihood_of
from ancestral.symbols import DataError, check_symbols


def status_of(model: Model) -> str:
    """``"exact"`` where -log p(x) can be computed, ``"bound"`` where it is bounded from above."""
    return "bound" if isinstance(model, Latent) else "exact"


@dataclass(frozen=True)
class Scores:
    """What single examples cost.

    Attributes:
        nats: (n,) -log p(x), or an upper bound of it, float64.
        bits_per_dim: (n,) the same in bits a symbol.
        status: ``"exact"`` or ``"bound"``.
        importance_samples: k of the bound; 1 is the evidence lower bound; None where there are no latents.
        density: whether the costs are those of a density, in the original units where ``score`` was told them.
    """

    nats: Tensor
    bits_per_dim: Tensor
    status: str
    importance_samples: int | None = None
    density: bool = False


def score(
    model: Model,
    x: Tensor,
    *,
    labels: Sequence[int] | Tensor | None = None,
    importance_samples: int = 1,
    seed: int = 0,
    batch_size: int = 64,
    units: Units | None = None,
    progress: Progress | None = None,
) -> Scores:
    """-log p(x) of (n, *shape) symbols, in nats, or with latents an upper bound of it; smaller is more likely.

    Args:
        labels: (n,) labels of a conditional model.
        importance_samples: k of a latent-variable model; 1 takes the evidence lower bound with the KL in closed form.
        units: how x was made of its originals, whose density the costs are then of; see `Units`.

    Raises:
        DataError: x does not fit the model, or a cost is not finite.
        ValueError: importance_samples is below 1.

    Example:
        >>> import ancestral
        >>> model = ancestral.build("gated-pixelcnn", ancestral.DataSpec("image", (1, 4, 4), levels=2), preset="tiny")
        >>> scores = score(model, torch.zeros(3, 1, 4, 4, dtype=torch.long))
        >>> scores.status, scores.nats.shape
        ('exact', torch.Size([3]))
    """
    if importance_samples < 1:
        raise ValueError(f"importance_samples is {importance_samples}; it must be at least 1")
    chosen = _given(model, x, labels)
    latent = isinstance(model, Latent)
    tick = counter(progress, len(chosen) * (importance_samples if latent else 1))
    with inference(model):
        if not isinstance(model, Latent):
            nats = exact_nats(model, chosen, batch_size, tick)
        elif importance_samples == 1:
            terms = rate_distortion(model, chosen, seed, batch_size, tick)
            nats = terms.rate + terms.distortion
        else:
            nats = -bounds(model, chosen, importance_samples, seed, batch_size, tick).iwae
    check_costs(nats, chosen, model.spec)
    nats = nats if units is None else nats + units.nats
    bounded = units is not None and units.dequantized
    status, density = "bound" if bounded else status_of(model), model.spec.density and not bounded
    return Scores(nats, nats / (log(2) * model.spec.sites), status, importance_samples if latent else None, density)


def surprisal(
    model: Model,
    x: Tensor,
    *,
    labels: Sequence[int] | Tensor | None = None,
    seed: int = 0,
    batch_size: int = 64,
) -> Tensor:
    """(n, *shape) -log p of every symbol given the ones before it, in nats, float64: where an example surprises the model.

    The sum over an example is -log p(x), exactly. With latents every symbol is also given one z from the posterior of x: the
    sum is then the distortion at that z, and the rate, which belongs to no symbol, is not in it.

    Raises:
        DataError: x does not fit the model.
    """
    parts = []
    with inference(model):
        for batch, seen in _given(model, x, labels).batches(model, seed, batch_size):
            if isinstance(model, Latent):
                seen = model.descend(batch.x, Noise(seed, batch.rows or ()), seen).features
            parts.append(-likelihood_of(model).conditionals(batch.x, seen).log_prob(batch.x).double())
    return torch.cat(parts).cpu()


def exact_nats(model: Autoregressive, chosen: Chosen, batch_size: int, tick: Tick) -> Tensor:
    """(n,) -log p(x) in nats, float64, of a model without latents."""
    parts = []
    for batch, context in chosen.batches(model, 0, batch_size):
        parts.append(example_nats(model, batch.x, context))
        tick(len(batch.x))
    return torch.cat(parts).cpu()


def _given(model: Model, x: Tensor, labels: Sequence[int] | Tensor | None) -> Chosen:
    check_symbols(x, model.spec)
    if not len(x):
        raise DataError("x has no rows: there is nothing to score")
    return Chosen(x, None if labels is None else torch.as_tensor(labels, device=x.device), range(len(x)))
