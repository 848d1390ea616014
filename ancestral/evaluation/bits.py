"""Nats, bits and means: per example sums in float64, of which means are taken once, over all examples."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from math import log, sqrt
from typing import Any

import torch
from torch import Tensor

from ancestral.core import Autoregressive, Context
from ancestral.data.splits import Units
from ancestral.symbols import scored


def bits(nats: float) -> float:
    """Nats as bits: divided by log 2."""
    return nats / log(2)


def bits_per_dim(nats: float, sites: float) -> float:
    """Nats of an example of so many symbols, or on average so many, as bits a symbol.

    Example:
        >>> round(bits_per_dim(1200, 3072), 7)
        0.5635528
    """
    return bits(nats) / sites


def in_units(figures: Mapping[str, Any], units: Units | None) -> dict[str, Any]:
    """Figures of `Evaluation`, by name, of a model that saw data in these units, turned to those of the original data.

    A density p(x) of x = (original - mean) / scale is p(x) / (product of scales) in the original units, so that what is made of
    -log p(x) grows by the sum of log scales; rates and differences of distortions stay. Of dequantised data this makes bits/dim
    those of the whole numbers: 8 more than in [0, 1) where there are 256 levels.
    """
    if units is None:
        return dict(figures)
    signs = {"nats": 1, "order_nats": 1, "distortion": 1, "elbo_subset": -1, "iwae": -1}
    turned = {name: figures[name] + sign * units.nats for name, sign in signs.items() if figures.get(name) is not None}
    return {**figures, **turned}


def example_nats(likelihood: Autoregressive, x: Tensor, context: Context | None) -> Tensor:
    """(n,) -log p(x | context) of (n, *shape) symbols, in nats, summed over sites in float64."""
    return symbol_nats(likelihood, x, context).flatten(1).sum(1)


def symbol_nats(likelihood: Autoregressive, x: Tensor, context: Context | None) -> Tensor:
    """(n, *shape) -log p of every symbol, in nats, float64; zero after the end of an example."""
    nats, counts = -likelihood.conditionals(x, context).log_prob(x).double(), scored(x, likelihood.spec)
    return nats if counts is None else nats.where(counts, 0.0)


@dataclass(frozen=True)
class Mean:
    """A mean over examples with its standard error, which one example alone does not tell.

    Example:
        >>> Mean.of(torch.tensor([1.0, 2.0, 3.0]))
        Mean(value=2.0, error=0.5773502691896258)
    """

    value: float
    error: float | None

    @classmethod
    def of(cls, values: Tensor) -> Mean:
        """The mean of (n,) values, in float64; the error is that of n independent draws."""
        values = values.double()
        error = float(values.std()) / sqrt(len(values)) if len(values) > 1 else None
        return cls(float(values.mean()), error)


def ratio_error(amounts: Tensor, counts: Tensor) -> float | None:
    """The standard error of sum(amounts) / sum(counts), both (n,) and of n independent examples; None of one, or of no counts.

    It is that of the mean of amount - ratio * count, over the mean count (Cochran 1977, section 6.4).
    """
    amounts, counts = amounts.double(), counts.double()
    if not counts.any():
        return None
    error = Mean.of(amounts - amounts.sum() / counts.sum() * counts).error
    return None if error is None else error / float(counts.mean())


class Moments:
    """Mean and variance of the rows seen so far, entry by entry: two passes' precision in one (Chan et al. 1983).

    Example:
        >>> moments = Moments()
        >>> for batch in (torch.tensor([[1.0], [2.0]]), torch.tensor([[6.0]])):
        ...     moments.add(batch)
        >>> moments.mean, moments.variance
        (tensor([3.]), tensor([4.6667]))
    """

    def __init__(self) -> None:
        self.count = 0
        self.mean = torch.zeros(())
        self._squares = torch.zeros(())

    def add(self, rows: Tensor) -> None:
        """Take in (n, d) values."""
        rows = rows.detach().cpu().double()
        mean, total = rows.mean(0), self.count + len(rows)
        away = mean - self.mean
        self._squares = self._squares + (rows - mean).square().sum(0) + away.square() * (self.count * len(rows) / total)
        self.mean, self.count = self.mean + away * (len(rows) / total), total

    @property
    def variance(self) -> Tensor:
        """(d,) mean squared distances from the mean."""
        return self._squares / self.count
