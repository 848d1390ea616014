"""Normal families: densities on the real line, for real-valued data and for latents."""

from __future__ import annotations

import math
from dataclasses import dataclass, field

import torch
from torch import Tensor

from ancestral.families.base import Continuous, check_count, thirds

LOG_ROOT_TAU = math.log(2 * math.pi) / 2
BISECTIONS = 64  # enough to end at neighbouring float64 numbers
SHIFTS = 100  # mean shift gains digits linearly; a hundred steps suffice unless two humps are just about to merge
OUT_OF_SIGHT = 40.0  # scales; the normal tail beyond is e^-800 of what is before it


def normal_log_prob(x: Tensor, means: Tensor, log_scales: Tensor) -> Tensor:
    """Log-density in nats; the arguments broadcast."""
    return -((x - means) * torch.exp(-log_scales)).square() / 2 - log_scales - LOG_ROOT_TAU


def normal_log_interval(low: Tensor, high: Tensor, means: Tensor, log_scales: Tensor) -> Tensor:
    """Log-probability between low < high in nats, stable in both tails; the arguments broadcast and ends may be infinite.

    An infinite end is put out of sight of the other one, so that no gradient meets an infinity. Of the two tails the
    interval is mirrored into the lower one, where log(Phi(b) - Phi(a)) = log Phi(b) + log(1 - Phi(a) / Phi(b)) keeps its
    digits: a relative 1e-16 over the width in scales.
    """
    inverse = torch.exp(-log_scales)
    open_low, open_high = low == -math.inf, high == math.inf
    a = (low.masked_fill(open_low, 0.0) - means) * inverse
    b = (high.masked_fill(open_high, 0.0) - means) * inverse
    below, above = b.detach().clamp_max(0.0) - OUT_OF_SIGHT, a.detach().clamp_min(0.0) + OUT_OF_SIGHT
    a, b = torch.where(open_low, below, a), torch.where(open_high, above, b)
    mirrored = a + b > 0
    a, b = torch.where(mirrored, -b, a), torch.where(mirrored, -a, b)
    log_a: Tensor = torch.special.log_ndtr(a)
    log_b: Tensor = torch.special.log_ndtr(b)
    gap = (log_b - log_a).clamp_min(torch.finfo(b.dtype).tiny)
    return log_b + torch.log(-torch.expm1(-gap))


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
        return normal_log_interval(low, high, parameters[..., 0], parameters[..., 1])

    def quantile(self, parameters: Tensor, u: Tensor) -> Tensor:
        """(..., 2) parameters and (...) uniforms to (...) values, computed in float64."""
        mean, log_scale = parameters.double().unbind(-1)
        standard: Tensor = torch.special.ndtri(u.double())  # the inverse error function, with all digits at small u
        return (mean + log_scale.exp() * standard).to(parameters.dtype)

    def mode(self, parameters: Tensor) -> Tensor:
        """(..., 2) parameters to (...) means."""
        return parameters[..., 0]


@dataclass(frozen=True)
class NormalMixture(Continuous):
    """A mixture of K normals: parameters are [K mixture logits, K means, K log-scales].

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

    components: int
    size: int = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        check_count("components", self.components, 1)
        object.__setattr__(self, "size", 3 * self.components)

    def log_prob(self, parameters: Tensor, symbols: Tensor) -> Tensor:
        """(..., 3 K) parameters and (...) values to (...) log-densities, in nats."""
        logits, means, log_scales = thirds(parameters, self.components)
        return torch.logsumexp(logits.log_softmax(-1) + normal_log_prob(symbols.unsqueeze(-1), means, log_scales), -1)

    def log_interval(self, parameters: Tensor, low: Tensor, high: Tensor) -> Tensor:
        """(..., 3 K) parameters and (...) ends low < high to (...) log-probabilities in between, in nats."""
        logits, means, log_scales = thirds(parameters, self.components)
        parts = normal_log_interval(low.unsqueeze(-1), high.unsqueeze(-1), means, log_scales)
        return torch.logsumexp(logits.log_softmax(-1) + parts, -1)

    def quantile(self, parameters: Tensor, u: Tensor) -> Tensor:
        """(..., 3 K) parameters and (...) uniforms to (...) values, by bisection between the components' own quantiles.

        Computed in float64: the halvings end at neighbouring numbers, so that the probability below the value is u to a
        relative 1e-9 and better, as far as the number format can tell values apart at the smallest scale.
        """
        logits, means, log_scales = thirds(parameters.double(), self.components)
        weights, scales, u = logits.softmax(-1), log_scales.exp(), u.double().unsqueeze(-1)
        own: Tensor = means + scales * torch.special.ndtri(u)
        low, high = own.amin(-1, keepdim=True), own.amax(-1, keepdim=True)
        for _ in range(BISECTIONS):
            middle = (low + high) / 2
            below = torch.erfc((means - middle) / (scales * math.sqrt(2))) / 2  # ndtr would lose the digits of a lower tail
            under = (weights * below).sum(-1, keepdim=True) < u
            low, high = torch.where(under, middle, low), torch.where(under, high, middle)
        return high.squeeze(-1).to(parameters.dtype)

    def mode(self, parameters: Tensor) -> Tensor:
        """(..., 3 K) parameters to (...) points of highest density, the lowest of equals.

        Mean shift climbs from every component's mean, and the highest end wins: exact to rounding where humps are apart.
        """
        wide = parameters.double()
        logits, means, log_scales = thirds(wide.unsqueeze(-2), self.components)  # (..., 1, K)
        climbers = thirds(wide, self.components)[1]
        for _ in range(SHIFTS):
            pull = (logits + normal_log_prob(climbers.unsqueeze(-1), means, log_scales) - 2 * log_scales).softmax(-1)
            climbers = (pull * means).sum(-1)
        climbers = climbers.sort(-1).values
        best = self.log_prob(wide.unsqueeze(-2), climbers).argmax(-1, keepdim=True)
        return climbers.gather(-1, best).squeeze(-1).to(parameters.dtype)
