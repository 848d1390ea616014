"""Mixtures of Laplace densities, whose tails are heavier than normal ones and whose peaks are sharp."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from ancestral.families.base import Mixture, thirds


def laplace_log_prob(x: Tensor, means: Tensor, log_scales: Tensor) -> Tensor:
    """Log-density exp(-|x - mean| / scale) / (2 scale) in nats; the arguments broadcast."""
    return -(x - means).abs() * torch.exp(-log_scales) - log_scales - math.log(2)


def laplace_log_cdf(x: Tensor) -> Tensor:
    """Log-probability below x of a Laplace density with mean 0 and scale 1, in nats."""
    # the upper half sees no negative x, so that it leaves no infinity in the gradients of the lower one
    return torch.where(x <= 0, x - math.log(2), torch.log1p(-torch.exp(-x.clamp_min(0.0)) / 2))


@dataclass(frozen=True)
class LaplaceMixture(Mixture):
    """A mixture of K Laplace densities: parameters are [K mixture logits, K means, K log-scales].

    The standard deviation of a component is its scale times the root of 2. Uria et al., RNADE (arXiv:1306.0186).

    Attributes:
        components: K.

    Raises:
        ValueError: fewer than 1 component.

    Example:
        >>> LaplaceMixture(1).log_prob(torch.tensor([0.0, 0.0, 0.0]), torch.tensor([0.0, 1.0]))
        tensor([-0.6931, -1.6931])
    """

    part_log_prob = staticmethod(laplace_log_prob)
    standard_log_cdf = staticmethod(laplace_log_cdf)

    @staticmethod
    def standard_cdf(x: Tensor) -> Tensor:
        """exp(x) / 2 up to 0, and 1 - exp(-x) / 2 above."""
        tail = torch.exp(-x.abs()) / 2
        return torch.where(x <= 0, tail, 1 - tail)

    @staticmethod
    def standard_quantile(u: Tensor) -> Tensor:
        """log(2 u) up to 1/2, and -log(2 (1 - u)) above."""
        return torch.where(u <= 0.5, torch.log(2 * u), -torch.log(2 * (1 - u)))

    def peaks(self, parameters: Tensor) -> Tensor:
        """(..., 3 K) parameters to the (..., K) means: between neighbouring ones the density is convex."""
        return thirds(parameters, self.components)[1]
