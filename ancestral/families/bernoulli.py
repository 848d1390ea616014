"""The family of binary symbols."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional as F

from ancestral.families.base import Discrete
from ancestral.families.integer import IntegerBernoulli


@dataclass(frozen=True)
class Bernoulli(Discrete):
    """p(1) = sigmoid(l): one parameter, the logit l.

    Example:
        >>> family = Bernoulli()
        >>> family.log_prob(torch.tensor([[0.0], [2.0]]), torch.tensor([0, 1])).exp()
        tensor([0.5000, 0.8808])
    """

    size = 1
    levels = 2

    def log_prob(self, parameters: Tensor, symbols: Tensor) -> Tensor:
        """(..., 1) logits and (...) symbols to (...) nats: x l - softplus(l)."""
        logit = parameters.squeeze(-1)
        return F.logsigmoid(logit * (2 * symbols.to(logit.dtype) - 1))

    def log_pmf(self, parameters: Tensor) -> Tensor:
        """(..., 1) logits to (..., 2) nats."""
        return F.logsigmoid(torch.cat([-parameters, parameters], -1))

    def quantile(self, parameters: Tensor, u: Tensor) -> Tensor:
        """(..., 1) logits and (...) uniforms to (...) symbols: 1 from u = p(0) on."""
        return (u >= torch.sigmoid(-parameters.squeeze(-1).double())).long()

    def integer(self) -> IntegerBernoulli:
        """The integer twin."""
        return IntegerBernoulli()
