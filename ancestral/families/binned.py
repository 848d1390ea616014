"""A continuous family cut into bins."""

from __future__ import annotations

import math
from dataclasses import dataclass, field

import torch
from torch import Tensor

from ancestral.draw import inverse_cdf
from ancestral.families.base import Continuous, Discrete, check_count
from ancestral.families.integer import Integer, IntegerBins
from ancestral.families.normal import Normal, NormalMixture


@dataclass(frozen=True)
class Binned(Discrete):
    """The integral of a density over equal bins, the two end bins open: parameters are those of the density.

    Symbol v stands at low + v w, with w = (high - low) / (levels - 1), and takes the mass half a step to either side. The
    defaults are the convention of ``Logistic``. Probabilities are computed in float64 and returned in the parameters' type.

    Attributes:
        family: the density.
        levels: number of bins.
        low, high: where the lowest and the highest symbol stand, in the units of the density.

    Raises:
        ValueError: fewer than 2 levels, or ends that are not finite and in order.

    Example:
        >>> from ancestral.families import Normal
        >>> family = Binned(Normal(), levels=3)
        >>> family.log_pmf(torch.tensor([0.0, 0.0])).exp()  # a standard normal, cut at -0.5 and 0.5
        tensor([0.3085, 0.3829, 0.3085])
    """

    family: Continuous
    levels: int = field()  # without field(), the None of Family would become its default
    low: float = -1.0
    high: float = 1.0
    size: int = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        check_count("levels", self.levels, 2)
        if not -math.inf < self.low < self.high < math.inf:
            raise ValueError(f"bins from low = {self.low} to high = {self.high} need finite ends in this order")
        object.__setattr__(self, "size", self.family.size)

    @property
    def width(self) -> float:
        """w, the distance of neighbouring symbols, in the units of the density."""
        return (self.high - self.low) / (self.levels - 1)

    def value(self, symbols: Tensor) -> Tensor:
        """(...) symbols to (...) centres of their bins, in float64."""
        return self.low + symbols.double() * self.width

    def symbol(self, values: Tensor) -> Tensor:
        """(...) values to (...) symbols of the bins that they fall in."""
        return ((values.double() - self.low) / self.width + 0.5).floor().clamp(0, self.levels - 1).long()

    def log_prob(self, parameters: Tensor, symbols: Tensor) -> Tensor:
        """(..., k) parameters and (...) symbols to (...) nats."""
        below = self.low + (symbols.double() - 0.5) * self.width
        above = self.low + (symbols.double() + 0.5) * self.width
        below = below.masked_fill(symbols == 0, -math.inf)
        above = above.masked_fill(symbols == self.levels - 1, math.inf)
        return self.family.log_interval(parameters.double(), below, above).to(parameters.dtype)

    def log_pmf(self, parameters: Tensor) -> Tensor:
        """(..., k) parameters to (..., levels) nats."""
        return self.log_prob(parameters.unsqueeze(-2), torch.arange(self.levels, device=parameters.device))

    def quantile(self, parameters: Tensor, u: Tensor) -> Tensor:
        """(..., k) parameters and (...) uniforms to (...) symbols: the first whose cumulative probability exceeds u."""
        return inverse_cdf(self.log_pmf(parameters.double()).exp(), u)

    def integer(self) -> Integer:
        """The integer twin of binned normals and mixtures of normals; log-scales are taken as if clamped to -7 .. 6."""
        match self.family:
            case Normal():
                return IntegerBins("normal", self.levels, None, self.low, self.high)
            case NormalMixture(components):
                return IntegerBins("normal", self.levels, components, self.low, self.high)
        return super().integer()
