"""What all discrete families share, and what all continuous ones share."""

from __future__ import annotations

import math
from abc import abstractmethod
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from ancestral.core import Family
from ancestral.families.tables import leaky_table
from ancestral.symbols import DataError

if TYPE_CHECKING:
    from ancestral.families.integer import Integer

BISECTIONS = 64  # enough to end at neighbouring float64 numbers
OUT_OF_SIGHT = 40.0  # scales; the tail beyond is e^-40 of what is before it, or less, and lost in float64


class Discrete(Family):
    """A family over 0 .. levels - 1: its probabilities give the mode and the tables."""

    levels: int

    def mode(self, parameters: Tensor) -> Tensor:
        """(..., k) to (...) most probable symbols, the lowest of equals."""
        return self.log_pmf(parameters).argmax(-1)

    def table(self, parameters: Tensor, precision: int) -> Tensor:
        """(..., k) to (..., levels + 1) cumulative integers from 0 to 2^precision, strictly increasing; see ``leaky_table``.

        Raises:
            ValueError: 2^precision slots are fewer than the levels, or more than 2^32.
        """
        return leaky_table(self.log_pmf(parameters.double()).exp(), precision)

    def integer(self) -> Integer:
        """The integer twin, whose tables are the same on every machine: what files are coded with.

        Raises:
            DataError: the family has none.
            ValueError: its levels, components or range are more than the twin takes.
        """
        raise DataError(
            f"{self} has no integer twin, so files cannot be coded with it; "
            f"Bernoulli, Categorical, Logistic, LogisticMixture and Binned normals have one"
        )


class Continuous(Family):
    """A density on the real line; ``log_interval`` is what ``Binned`` makes bins of."""

    @abstractmethod
    def log_interval(self, parameters: Tensor, low: Tensor, high: Tensor) -> Tensor:
        """(..., k) parameters and (...) ends low < high to (...) log-probabilities in between, in nats.

        Ends may be infinite; gradients with respect to the parameters stay finite all the same.
        """

    def log_pmf(self, parameters: Tensor) -> Tensor:
        """A density has no probabilities.

        Raises:
            DataError: always.
        """
        raise self._not_discrete("probabilities of symbols")

    def table(self, parameters: Tensor, precision: int) -> Tensor:
        """A density has no table.

        Raises:
            DataError: always.
        """
        raise self._not_discrete("integer tables")

    def _not_discrete(self, what: str) -> DataError:
        return DataError(f"{self} is a density, which has no {what}; make it discrete with Binned({self}, levels)")


@dataclass(frozen=True)
class Mixture(Continuous):
    """A mixture of K densities of one form: parameters are [K mixture logits, K means, K log-scales].

    Attributes:
        components: K.

    Raises:
        ValueError: fewer than 1 component.
    """

    components: int
    size: int = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        check_count("components", self.components, 1)
        object.__setattr__(self, "size", 3 * self.components)

    @staticmethod
    @abstractmethod
    def part_log_prob(x: Tensor, means: Tensor, log_scales: Tensor) -> Tensor:
        """Log-density of one component in nats; the arguments broadcast."""

    @staticmethod
    @abstractmethod
    def standard_cdf(x: Tensor) -> Tensor:
        """The probability below x of a component with mean 0 and scale 1, with all digits of the lower tail."""

    @staticmethod
    @abstractmethod
    def standard_log_cdf(x: Tensor) -> Tensor:
        """The log of it in nats, with all digits of the lower tail; differentiable."""

    @staticmethod
    @abstractmethod
    def standard_quantile(u: Tensor) -> Tensor:
        """The inverse of ``standard_cdf``."""

    @abstractmethod
    def peaks(self, parameters: Tensor) -> Tensor:
        """(..., 3 K) parameters to (..., K) points among which the density is highest somewhere."""

    def log_prob(self, parameters: Tensor, symbols: Tensor) -> Tensor:
        """(..., 3 K) parameters and (...) values to (...) log-densities, in nats."""
        logits, means, log_scales = thirds(parameters, self.components)
        return torch.logsumexp(logits.log_softmax(-1) + self.part_log_prob(symbols.unsqueeze(-1), means, log_scales), -1)

    def log_interval(self, parameters: Tensor, low: Tensor, high: Tensor) -> Tensor:
        """(..., 3 K) parameters and (...) ends low < high to (...) log-probabilities in between, in nats."""
        logits, means, log_scales = thirds(parameters, self.components)
        parts = log_interval(self.standard_log_cdf, low.unsqueeze(-1), high.unsqueeze(-1), means, log_scales)
        return torch.logsumexp(logits.log_softmax(-1) + parts, -1)

    def quantile(self, parameters: Tensor, u: Tensor) -> Tensor:
        """(..., 3 K) parameters and (...) uniforms to (...) values, by bisection between the components' own quantiles.

        Computed in float64: the halvings end at neighbouring numbers, so that the probability below the value is u to a
        relative 1e-9 and better, as far as the number format can tell values apart at the smallest scale.
        """
        logits, means, log_scales = thirds(parameters.double(), self.components)
        weights, scales, u = logits.softmax(-1), log_scales.exp(), u.double().unsqueeze(-1)
        own = means + scales * self.standard_quantile(u)
        low, high = own.amin(-1, keepdim=True), own.amax(-1, keepdim=True)
        for _ in range(BISECTIONS):
            middle = (low + high) / 2
            under = (weights * self.standard_cdf((middle - means) / scales)).sum(-1, keepdim=True) < u
            low, high = torch.where(under, middle, low), torch.where(under, high, middle)
        return high.squeeze(-1).to(parameters.dtype)

    def mode(self, parameters: Tensor) -> Tensor:
        """(..., 3 K) parameters to (...) points of highest density, the lowest of equals."""
        wide = parameters.double()
        peaks = self.peaks(wide).sort(-1).values
        best = self.log_prob(wide.unsqueeze(-2), peaks).argmax(-1, keepdim=True)
        return peaks.gather(-1, best).squeeze(-1).to(parameters.dtype)


def log_interval(log_cdf: Callable[[Tensor], Tensor], low: Tensor, high: Tensor, means: Tensor, log_scales: Tensor) -> Tensor:
    """Log-probability between low < high in nats, stable in both tails; the arguments broadcast and ends may be infinite.

    An infinite end is put out of sight of the other one, so that no gradient meets an infinity. Of the two tails the
    interval is mirrored into the lower one, where log(F(b) - F(a)) = log F(b) + log(1 - F(a) / F(b)) keeps its digits: a
    relative 1e-16 over the width in scales.

    Args:
        log_cdf: log F of a density that is symmetric about 0, with all digits in the lower tail.
    """
    inverse = torch.exp(-log_scales)
    open_low, open_high = low == -math.inf, high == math.inf
    a = (low.masked_fill(open_low, 0.0) - means) * inverse
    b = (high.masked_fill(open_high, 0.0) - means) * inverse
    below, above = b.detach().clamp_max(0.0) - OUT_OF_SIGHT, a.detach().clamp_min(0.0) + OUT_OF_SIGHT
    a, b = torch.where(open_low, below, a), torch.where(open_high, above, b)
    mirrored = a + b > 0
    a, b = torch.where(mirrored, -b, a), torch.where(mirrored, -a, b)
    log_a, log_b = log_cdf(a), log_cdf(b)
    gap = (log_b - log_a).clamp_min(torch.finfo(b.dtype).tiny)
    return log_b + torch.log(-torch.expm1(-gap))


def thirds(parameters: Tensor, components: int) -> tuple[Tensor, Tensor, Tensor]:
    """(..., 3 K) parameters of a mixture of K to its logits, means and log-scales, (..., K) each."""
    logits, means, log_scales = parameters.view(*parameters.shape[:-1], 3, components).unbind(-2)
    return logits, means, log_scales


def check_count(name: str, count: float, least: float, why: str = "") -> None:
    """Raise ``ValueError`` where there are fewer levels, components, layers or the like than make sense; ``why`` ends it."""
    if count < least:
        raise ValueError(f"{name} is {count}; it must be at least {least}{why}")
