"""The layer that couples the colours of a pixel: a mixture over whole pixels, taken apart into one mixture a colour."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from ancestral.causal.layer import CausalityError, Clock, Composite, Labels, Signal
from ancestral.causal.lower import Lowering
from ancestral.causal.program import Couple, Part
from ancestral.families.logistic import logistic_log_prob

COLOURS = 3
ROWS: tuple[tuple[int, ...], ...] = ((), (0,), (1, 2))  # of coefficients, by colour: for the colours before it, in turn


class ChannelMixture(Composite):
    """A mixture of logistics over red, green and blue as one mixture for every colour given the ones before.

    (n, 10 K, H, W) numbers, K logits then for each colour K means, K log-scales and K coefficients, and the symbols' own values
    in [-1, 1], (n, 3, H, W), become (n, 3 * 3 K, H, W)::

        logits_c[k] = logits[k] + sum over b < c of log P_k(x_b)            the posterior of k given the colours before
        mean_1 = m_1 + tanh(r_0) x_0        mean_2 = m_2 + tanh(r_1) x_0 + tanh(r_2) x_1

    The same distribution as Salimans et al. 2017, eq. 3, whose component is shared by the colours of a pixel: the chain rule,
    exactly.

    Args:
        levels, components: of the `LogisticMixture` that reads the result.
    """

    def __init__(self, levels: int, components: int) -> None:
        super().__init__()
        self.levels, self.components = levels, components

    def infer(self, inputs: Sequence[Signal]) -> tuple[Clock, Labels | None]:
        numbers, symbols = inputs
        if numbers.strict or not symbols.strict or len(symbols.labels or ()) != COLOURS:
            raise CausalityError("a channel mixture reads the numbers of a pixel, then the symbols of its three colours")
        if any(numbers.labels or ()):
            raise CausalityError("the numbers of a channel mixture must be known before the first colour is")
        return Clock.SITE, tuple(c for c in range(COLOURS) for _ in range(3 * self.components))

    def forward(self, numbers: Tensor, symbols: Tensor) -> Tensor:
        numbers, symbols = numbers.movedim(1, -1), symbols.movedim(1, -1)
        parts = [coupled(numbers, symbols, c, self.components, self.levels) for c in range(COLOURS)]
        return torch.cat(parts, -1).movedim(-1, 1)

    def emit(self, lowering: Lowering, inputs: Sequence[Signal], output: Signal) -> int:
        target = lowering.claim("mixture", output)
        source, symbols = (lowering.buffer_of(signal) for signal in inputs)
        for buffer in (source, symbols):
            lowering.buffers[buffer].carried = True
        read, values = Part(source, 0, (1 + 3 * COLOURS) * self.components), Part(symbols, 0, COLOURS)
        for channel, part in lowering.parts(target, Clock.SITE):
            lowering.operations.append(Couple(Clock.SITE, channel, part, read, values, self.components, self.levels))
        return target


def coupled(numbers: Tensor, symbols: Tensor, colour: int, components: int, levels: int) -> Tensor:
    """(..., 10 K) numbers and (..., 3) values in [-1, 1] to the (..., 3 K) of one colour; see `ChannelMixture`."""
    logits, rest = numbers[..., :components], by_colour(numbers[..., components:], components)
    coefficients, log_scales = torch.tanh(rest[..., 2, :]), rest[..., 1, :]

    def mean(c: int) -> Tensor:
        value: Tensor = rest[..., c, 0, :]
        for before, row in enumerate(ROWS[c]):
            value = value + coefficients[..., row, :] * symbols[..., before, None]
        return value

    for before in range(colour):
        symbol = ((symbols[..., before, None] + 1) * ((levels - 1) / 2)).round()
        logits = logits + logistic_log_prob(symbol, mean(before), log_scales[..., before, :], levels)
    return torch.cat([logits, mean(colour), log_scales[..., colour, :]], -1)


def by_colour(numbers: Tensor, components: int) -> Tensor:
    """(..., 9 K) to (..., 3, 3, K): by colour means, log-scales and coefficients."""
    return numbers.reshape(*numbers.shape[:-1], COLOURS, 3, components)
