"""The family that knows nothing about its symbols: one logit for each."""

from __future__ import annotations

from dataclasses import dataclass, field

import torch
from torch import Tensor

from ancestral.draw import inverse_cdf
from ancestral.families.base import Discrete, check_count
from ancestral.families.integer import IntegerCategorical


@dataclass(frozen=True)
class Categorical(Discrete):
    """p(v) = softmax(l)_v: parameters are the logits l of every symbol.

    Attributes:
        levels: size of the alphabet, and number of parameters.

    Raises:
        ValueError: fewer than 2 levels.

    Example:
        >>> family = Categorical(3)
        >>> family.quantile(torch.tensor([0.0, 1.0, 0.0]), torch.tensor(0.5))  # probabilities 0.21, 0.58, 0.21
        tensor(1)
    """

    levels: int = field()  # without field(), the None of Family would become its default
    size: int = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        check_count("levels", self.levels, 2)
        object.__setattr__(self, "size", self.levels)

    def log_prob(self, parameters: Tensor, symbols: Tensor) -> Tensor:
        """(..., levels) logits and (...) symbols to (...) nats."""
        return self.log_pmf(parameters).gather(-1, symbols.long().unsqueeze(-1)).squeeze(-1)

    def log_pmf(self, parameters: Tensor) -> Tensor:
        """(..., levels) logits to (..., levels) nats."""
        return parameters.log_softmax(-1)

    def quantile(self, parameters: Tensor, u: Tensor) -> Tensor:
        """(..., levels) logits and (...) uniforms to (...) symbols: the first whose cumulative probability exceeds u."""
        return inverse_cdf(parameters.softmax(-1, dtype=torch.float64), u)

    def integer(self) -> IntegerCategorical:
        """The integer twin, of at most 1024 levels."""
        return IntegerCategorical(self.levels)
