"""Mixtures of whole pixels in whole numbers: what a colour takes from them, given the colours before (`ChannelMixture`).

Numbers are integers of fraction 10 (logits, log-scales, coefficients) and 12 (means). The log-probability of a symbol under a
component is that of its slots in the component's own distribution, by a table of logarithms::

    ln(m) = ln(2) e + LOGS[mantissa]        m = 2^e (1 + mantissa / 2^12) slots, of fraction 10
"""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from ancestral.causal.channels import COLOURS, ROWS, by_colour
from ancestral.causal.program import Couple
from ancestral.families import fixed

TANH = 14  # fraction bits of the table of tanh
MANTISSA = 12
LEAST, MOST = -(2**15), 2**15 - 1
LOGS: fixed.Integers = fixed.rounded(2.0**fixed.LOGIT * np.log1p((np.arange(2**MANTISSA) + 0.5) / 2**MANTISSA))
POWERS: fixed.Integers = fixed.rounded(2.0**fixed.LOGIT * np.log(2) * np.arange(fixed.PRECISION + 2))


def mixture_fractions(components: int) -> list[int]:
    """Fraction bits of each of the numbers of a pixel."""
    colour = [bits for bits in (fixed.MEAN, fixed.LOG_SCALE, fixed.LOGIT) for _ in range(components)]
    return [fixed.LOGIT] * components + colour * COLOURS


def whole_mixture(op: Couple, numbers: Tensor, symbols: Tensor, tanh: Tensor) -> Tensor:
    """(..., 10 K) numbers and (..., 3) values of the symbols to (..., 3 K) parameters of one colour, all of them integers.

    Args:
        tanh: the table of tanh, of fraction 14 at arguments of fraction 10.
    """
    k, fraction = op.components, 0 if op.scaling is None else op.scaling.other
    logits, rest = numbers[..., :k], by_colour(numbers[..., k:], k)
    reach = len(tanh) // 2
    coefficients = tanh.long()[rest[..., 2, :].clamp(-reach, reach - 1) + reach]
    shift = TANH + fraction - fixed.MEAN

    def mean(c: int) -> Tensor:
        value: Tensor = rest[..., c, 0, :]
        for before, row in enumerate(ROWS[c]):
            value = value + ((coefficients[..., row, :] * symbols[..., before, None] + (1 << (shift - 1))) >> shift)
        return value.clamp(LEAST, MOST)

    for before in range(op.channel):
        symbol = whole_symbol(symbols[..., before, None], fraction, op.levels)
        logits = logits + log_slots(symbol, mean(before), rest[..., before, 1, :], op.levels)
    logits = (logits - logits.amax(-1, keepdim=True)).clamp_min(LEAST)
    return torch.cat([logits, mean(op.channel), rest[..., op.channel, 1, :]], -1)


def whole_symbol(value: Tensor, fraction: int, levels: int) -> Tensor:
    """The symbol that stands at a value in [-1, 1] of so many fraction bits."""
    one = 1 << fraction
    return ((value + one) * (levels - 1) + one) >> (fraction + 1)


def log_slots(symbols: Tensor, means: Tensor, log_scales: Tensor, levels: int) -> Tensor:
    """ln(1 + slots of a symbol among 2^24), of fraction 10, under logistics of integer means and log-scales."""
    device = means.device
    edges, curve = fixed.on(device, fixed.edges, levels, -1.0, 1.0), fixed.on(device, fixed.logistic)
    inverse, scaled = fixed.inverse_scales(log_scales), means * (1 << (fixed.EDGE - fixed.MEAN))
    below = []
    for edge in (symbols, symbols + 1):
        arguments = ((edges[edge.clamp(1, levels - 1) - 1] - scaled) * inverse) >> (fixed.EDGE + fixed.INVERSE - fixed.ARGUMENT)
        share = fixed.interpolate(curve, arguments)
        below.append(torch.where(edge == 0, 0, torch.where(edge == levels, fixed.SLOTS, share)))
    return logarithm(below[1] - below[0] + 1)


def logarithm(slots: Tensor) -> Tensor:
    """ln of 1 .. 2^24 + 1, of fraction 10."""
    exponent = torch.frexp(slots.double()).exponent.long() - 1
    mantissa = ((slots << (fixed.PRECISION + 1 - exponent)) >> (fixed.PRECISION + 1 - MANTISSA)) - (1 << MANTISSA)
    logs, powers = (torch.from_numpy(table.astype(np.int64)).to(slots.device) for table in (LOGS, POWERS))
    return logs[mantissa] + powers[exponent]
