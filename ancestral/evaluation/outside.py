"""Do scores tell data apart: sets of scored examples, the area under the ROC curve, and examples that are outside any data."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from math import sqrt
from typing import Any

import numpy as np
import torch
from torch import Tensor

from ancestral.data.splits import Units
from ancestral.draw import uniforms
from ancestral.evaluation.score import Scores, counted_symbols
from ancestral.spec import DataSpec
from ancestral.symbols import lengths

STREAM = 2**61 + 5  # of the uniforms that examples are made of, apart from those of data and of samples
SCORES = {"nats": "nats", "bits_per_dim": "bits a symbol", "corrected": "corrected score"}
CONFIDENCE, QUANTILE = 0.95, 1.959963984540054  # of a two-sided interval of the normal distribution


@dataclass(frozen=True)
class Separation:
    """How well a score tells examples outside the data from those inside.

    Attributes:
        auroc: probability that an example from outside scores higher than one from inside, ties counted half: 1 or 0 where the
            two are told apart always, 0.5 where the score says nothing.
        low, high: 95 % confidence interval by DeLong's variance, cut to 0 .. 1. None where there are fewer than two examples of
            either, or where no pair is in the other order, about which that variance, then zero, can say nothing.
        inside, outside: how many examples there were.
    """

    auroc: float
    low: float | None
    high: float | None
    inside: int
    outside: int

    @property
    def reversed(self) -> bool:
        """Whether the examples from outside score lower."""
        return self.auroc < 0.5

    def to_dict(self) -> dict[str, Any]:
        """Every attribute and what the interval is, as JSON has them."""
        return {**asdict(self), "confidence": CONFIDENCE, "interval": "DeLong"}

    def __str__(self) -> str:
        interval = "" if self.low is None or self.high is None else f" [{self.low:.3f}, {self.high:.3f}]"
        return f"{self.auroc:.3f}{interval}"


def separation(inside: Tensor, outside: Tensor) -> Separation:
    """The area under the ROC curve of (m,) scores of examples inside the data and (n,) outside, where higher means outside.

    With V_j the share of the inside below outside example j, and W_i the share of the outside above inside example i, ties
    counted half, the area is the mean of either, and its variance var(V) / n + var(W) / m (DeLong, DeLong & Clarke-Pearson
    1988, Biometrics 44:837).

    Raises:
        ValueError: there are none of either, or a score is not finite.

    Example:
        >>> print(separation(torch.tensor([1.0, 2.0, 3.0]), torch.tensor([2.0, 4.0])))
        0.750 [0.184, 1.000]
    """
    if not len(inside) or not len(outside):
        raise ValueError(f"{len(inside)} examples inside and {len(outside)} outside: there must be some of both")
    if not (inside.isfinite().all() and outside.isfinite().all()):
        raise ValueError("a score is infinite or not a number, so that examples have no order")
    within, without = inside.double().cpu().numpy(), outside.double().cpu().numpy()
    v, w = _shares(without, within), 1 - _shares(within, without)
    area, low, high = float(v.mean()), None, None
    if min(len(v), len(w)) > 1 and 0 < area < 1:
        error = sqrt(v.var(ddof=1) / len(v) + w.var(ddof=1) / len(w))
        low, high = max(0.0, area - QUANTILE * error), min(1.0, area + QUANTILE * error)
    return Separation(area, low, high, len(inside), len(outside))


@dataclass(frozen=True, eq=False)
class Scored:
    """Examples of one origin with what they cost.

    Attributes:
        name: of the set.
        items: n names.
        x: (n, *shape) symbols.
        classes: n classes by name or number, empty where none are known.
        labels: (n,) those that the model was told, or None.
        scores: of all n.
        outside: whether they are foreign to the data of the model.
    """

    name: str
    items: Sequence[str]
    x: Tensor
    classes: Sequence[str]
    labels: Tensor | None
    scores: Scores
    outside: bool = False

    def summary(self, spec: DataSpec) -> dict[str, Any]:
        """Means over the examples, as JSON has them; bits a symbol are all bits over all symbols."""
        found = self.scores
        bits = float(found.bits.sum())
        per_symbol = bits / float(counted_symbols(self.x, spec).sum())
        costs = {"nats": float(found.nats.mean()), "bits": bits / len(found.nats), "bits_per_dim": per_symbol}
        weights = {"complexity": found.complexity, "corrected": found.corrected}
        means = {name: None if each is None else float(each.mean()) for name, each in weights.items()}
        return {"set": self.name, "outside": self.outside, "items": len(self.items), **costs, **means}


def separations(inside: Scored, outside: Scored) -> dict[str, Separation]:
    """How well cost, cost a symbol and, where there is one, the corrected score tell two sets apart."""
    pairs = {name: (getattr(inside.scores, name), getattr(outside.scores, name)) for name in SCORES}
    return {name: separation(a, b) for name, (a, b) in pairs.items() if a is not None and b is not None}


def _shares(of: Any, among: Any) -> Any:
    """For every score, the share of the others below it, ties counted half."""
    ranked = np.sort(among)
    return (np.searchsorted(ranked, of, "left") + np.searchsorted(ranked, of, "right")) / (2 * len(ranked))


def noise(like: Tensor, spec: DataSpec, seed: int = 0, units: Units | None = None) -> Tensor:
    """As many examples of the same lengths, every symbol drawn evenly from all values: real ones from a standard normal.

    Where ``units`` are dequantised the values are those of the whole numbers, up to the highest of ``like``.
    """
    return _made(like, spec, uniforms(seed, range(len(like)), like[0].numel(), STREAM).view(like.shape), units)


def flat(like: Tensor, spec: DataSpec, seed: int = 0, units: Units | None = None) -> Tensor:
    """As many examples of the same lengths, each of one value drawn as in ``noise``; of images one for each channel."""
    channels = like.shape[1] if spec.kind == "image" else 1
    u = uniforms(seed, range(len(like)), channels, STREAM + 1)
    return _made(like, spec, u.view(len(like), channels, *[1] * (like.dim() - 2)).expand(like.shape), units)


MADE: dict[str, Callable[[Tensor, DataSpec, int, Units | None], Tensor]] = {"noise": noise, "flat": flat}


def _made(like: Tensor, spec: DataSpec, u: Tensor, units: Units | None) -> Tensor:
    """Symbols at (n, *shape) uniforms in (0, 1), that end where the examples do."""
    u = u.to(like.device)
    if units is not None and units.dequantized:
        count = int(units.restore(like.double()).max()) + 1
        return units.convert(u.clamp(max=1 - 2.0**-16) * count).to(like)  # rounded to float32 none may reach the count
    if spec.levels is None:
        x: Tensor = torch.special.ndtri(u)
        for i, levels in spec.whole_columns.items():
            x[:, i] = (u[:, i] * levels).floor()
        return x.to(like) if like.is_floating_point() else x
    x = (u * (spec.levels - (spec.end is not None))).long()
    if spec.end is None:
        return x
    return x.masked_fill(torch.arange(x.shape[-1], device=x.device) >= lengths(like, spec)[:, None], spec.end)
