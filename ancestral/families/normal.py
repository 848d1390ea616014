"""Normal families: densities on the real line, for real-valued data and for latents."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from ancestral.families.base import Continuous, Mixture, log_interval, thirds

LOG_ROOT_TAU = math.log(2 * math.pi) / 2
SHIFTS = 100  # mean shift gains digits linearly; a hundred steps suffice unless two humps are just about to merge


def normal_log_prob(x: Tensor, means: Tensor, log_scales: Tensor) -> Tensor:
    """Log-density in nats; the arguments broadcast."""
    return -((x - means) * torch.exp(-log_scales)).square() / 2 - log_scales - LOG_ROOT_TAU


@dataclass(frozen=True)
class Normal(Continuous):
    """A normal density: parameters are [mean, log-scale], the scale being the standard deviation.

    Example:
        >>> Normal().log_prob(torch.tensor([1.0, 0.0]), torch.tensor(1.0))
        tensor(-0.9189)
    """

    size = 2

    def log_prob(self, parameters: Tensor, symbols: Tensor) -> Tensor:
        """(..., 2) parameters and (...) values to (...) log-densities, in nats."""
        return normal_log_prob(symbols, parameters[..., 0], parameters[..., 1])

    def log_interval(self, parameters: Tensor, low: Tensor, high: Tensor) -> Tensor:
        """(..., 2) parameters and (...) ends low < high to (...) log-probabilities in between, in nats."""
        return log_interval(torch.special.log_ndtr, low, high, parameters[..., 0], parameters[..., 1])

    def quantile(self, parameters: Tensor, u: Tensor) -> Tensor:
        """(..., 2) parameters and (...) uniforms to (...) values, computed in float64."""
        mean, log_scale = parameters.double().unbind(-1)
        standard: Tensor = torch.special.ndtri(u.double())  # the inverse error function, with all digits at small u
        return (mean + log_scale.exp() * standard).to(parameters.dtype)

    def mode(self, parameters: Tensor) -> Tensor:
        """(..., 2) parameters to (...) means."""
        return parameters[..., 0]


@dataclass(frozen=True)
class NormalMixture(Mixture):
    """A mixture of K normals: parameters are [K mixture logits, K means, K log-scales], the scales standard deviations.

    Uria et al., RNADE (arXiv:1306.0186).

    Attributes:
        components: K.

    Raises:
        ValueError: fewer than 1 component.

    Example:
        >>> family = NormalMixture(2)
        >>> bumps = torch.tensor([0.0, 0.0, -3.0, 3.0, 0.0, -1.0])  # the right one is narrower, so it is higher
        >>> family.mode(bumps)
        tensor(3.0000)
    """

    part_log_prob = staticmethod(normal_log_prob)
    standard_log_cdf = staticmethod(torch.special.log_ndtr)
    standard_quantile = staticmethod(torch.special.ndtri)  # the inverse error function, with all digits at small u

    @staticmethod
    def standard_cdf(x: Tensor) -> Tensor:
        """The normal probability below x."""
        return torch.erfc(x * -math.sqrt(0.5)) / 2  # ndtr would lose the digits of a lower tail

    def peaks(self, parameters: Tensor) -> Tensor:
        """(..., 3 K) parameters to the (..., K) points where mean shift from every component's mean ends.

        Exact to rounding where humps are apart.
        """
        logits, means, log_scales = thirds(parameters.unsqueeze(-2), self.components)  # (..., 1, K)
        climbers = thirds(parameters, self.components)[1]
        for _ in range(SHIFTS):
            pull = (logits + normal_log_prob(climbers.unsqueeze(-1), means, log_scales) - 2 * log_scales).softmax(-1)
            climbers = (pull * means).sum(-1)
        return climbers
