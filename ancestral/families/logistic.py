"""Discretized logistic families: few parameters for many ordered levels, a density cut into bins.

Symbol v stands at x = 2 v / (levels - 1) - 1, in [-1, 1], and takes the mass between the edges half a step to either side;
the lowest bin also takes everything below and the highest everything above::

    x       -1           ...            1
        v=0  |  v=1  |   ...   | v=levels-1
    -inf ----+-------+--  ...  +---------- inf      edge j, below symbol j, at (2 j - levels) / (levels - 1)

Salimans et al., PixelCNN++ (arXiv:1701.05517), §2.1; Lucas & Verbeek (arXiv:1711.11479), equation 8, here with closed tails.
"""

from __future__ import annotations

from dataclasses import dataclass, field

import torch
from torch import Tensor
from torch.nn import functional as F

from ancestral.families.base import Discrete, check_count, thirds
from ancestral.families.integer import IntegerBins

LOG_SCALES = (-7.0, 20.0)  # the paper's floor; the ceiling is far outside any use and keeps float32 from underflowing to log 0


def logistic_log_prob(symbols: Tensor, means: Tensor, log_scales: Tensor, levels: int) -> Tensor:
    """Log-probability in nats of one discretized logistic; the arguments broadcast.

    With a and b the standardised upper and lower edge of the symbol's bin, log(sigmoid(a) - sigmoid(b)) is
    log sigmoid(a) + log sigmoid(-b) + log(1 - exp(-(a - b))), which never subtracts nearly equal numbers. An open end
    drops the term of the missing edge and the last one. Log-scales are clamped to -7 .. 20 (no gradient outside).
    """
    inverse = torch.exp(-log_scales.clamp(*LOG_SCALES))
    steps = levels - 1
    twice = 2 * symbols.to(means.dtype) - levels
    upper = F.logsigmoid(((twice + 2) / steps - means) * inverse)
    lower = F.logsigmoid((means - twice / steps) * inverse)
    width = torch.log(-torch.expm1(-2 / steps * inverse))
    has_lower, has_upper = symbols > 0, symbols < steps
    # every term is finite, so multiplying by a mask leaves no NaN in the gradients
    return upper * has_upper + lower * has_lower + width * (has_lower & has_upper)


@dataclass(frozen=True)
class Logistic(Discrete):
    """One discretized logistic: parameters are [mean, log-scale], on the symbols' scale of [-1, 1].

    The log-scale is floored at -7; the mean is free. With two levels it is a Bernoulli of logit mean / scale.

    Attributes:
        levels: size of the alphabet.

    Raises:
        ValueError: fewer than 2 levels.

    Example:
        >>> family = Logistic(256)
        >>> family.log_prob(torch.tensor([0.0, -2.0]), torch.tensor([0, 127, 255]))
        tensor([-7.3607, -4.2347, -7.3607])
    """

    levels: int = field()  # without field(), the None of Family would become its default
    size = 2

    def __post_init__(self) -> None:
        check_count("levels", self.levels, 2)

    def log_prob(self, parameters: Tensor, symbols: Tensor) -> Tensor:
        """(..., 2) parameters and (...) symbols to (...) nats."""
        return logistic_log_prob(symbols, parameters[..., 0], parameters[..., 1], self.levels)

    def log_pmf(self, parameters: Tensor) -> Tensor:
        """(..., 2) parameters to (..., levels) nats."""
        return self.log_prob(parameters.unsqueeze(-2), torch.arange(self.levels, device=parameters.device))

    def quantile(self, parameters: Tensor, u: Tensor) -> Tensor:
        """(..., 2) parameters and (...) uniforms to (...) symbols: the first whose upper edge exceeds mean + scale logit(u)."""
        steps, half = self.levels - 1, self.levels / 2
        mean, log_scale = parameters.double().unsqueeze(-2).unbind(-1)  # (..., 1)
        offset = log_scale.clamp(*LOG_SCALES).exp() * torch.logit(u.double()).unsqueeze(-1)
        guess = ((mean + offset) * (steps / 2) + half).floor().clamp(0, steps)
        # the guess rounds otherwise than the edges do, so that next to one of them it can be one off
        edges = torch.cat([guess - half, guess + (1 - half)], -1) / (steps / 2)
        passed = (edges - mean <= offset).sum(-1)
        return (guess.squeeze(-1).long() - 1 + passed).clamp(0, steps)

    def integer(self) -> IntegerBins:
        """The integer twin; log-scales above 6 are taken as 6."""
        return IntegerBins("logistic", self.levels)


@dataclass(frozen=True)
class LogisticMixture(Discrete):
    """A mixture of K discretized logistics: parameters are [K mixture logits, K means, K log-scales].

    Means and log-scales are as in ``Logistic``.

    Attributes:
        levels: size of the alphabet.
        components: K.

    Raises:
        ValueError: fewer than 2 levels or 1 component.

    Example:
        >>> family = LogisticMixture(256, components=10)
        >>> family.size, family.log_pmf(torch.zeros(4, 30)).shape
        (30, torch.Size([4, 256]))
    """

    levels: int = field()  # without field(), the None of Family would become its default
    components: int
    size: int = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        check_count("levels", self.levels, 2)
        check_count("components", self.components, 1)
        object.__setattr__(self, "size", 3 * self.components)

    def log_prob(self, parameters: Tensor, symbols: Tensor) -> Tensor:
        """(..., 3 K) parameters and (...) symbols to (...) nats."""
        logits, means, log_scales = thirds(parameters, self.components)
        parts = logistic_log_prob(symbols.unsqueeze(-1), means, log_scales, self.levels)
        return torch.logsumexp(logits.log_softmax(-1) + parts, -1)

    def log_pmf(self, parameters: Tensor) -> Tensor:
        """(..., 3 K) parameters to (..., levels) nats."""
        return self.log_prob(parameters.unsqueeze(-2), torch.arange(self.levels, device=parameters.device))

    def quantile(self, parameters: Tensor, u: Tensor) -> Tensor:
        """(..., 3 K) parameters and (...) uniforms to (...) symbols: the number of edges at which the cdf is at most u."""
        logits, means, log_scales = thirds(parameters.double().unsqueeze(-2), self.components)  # (..., 1, K)
        edges = (2 * torch.arange(1, self.levels, device=u.device) - self.levels).double() / (self.levels - 1)
        parts = torch.sigmoid((edges.unsqueeze(-1) - means) * torch.exp(-log_scales.clamp(*LOG_SCALES)))  # (..., levels - 1, K)
        cdf: Tensor = (logits.softmax(-1) * parts).sum(-1)
        return (cdf <= u.unsqueeze(-1)).sum(-1)

    def integer(self) -> IntegerBins:
        """The integer twin; log-scales above 6 are taken as 6."""
        return IntegerBins("logistic", self.levels, self.components)
