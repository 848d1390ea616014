"""Fixed-point functions: tables of integers that are the same on every machine.

A fixed-point number of fraction f is an integer that stands for integer * 2^-f. The tables are rounded from float64, in which
mathematical libraries differ by some units in the last place. That cannot show: no unrounded entry is so near to the
boundary between two integers that it could fall on the other side, which is checked when a table is made. From there on
everything is a look-up, a product, a sum or a shift of 64-bit integers, in which there is nothing to differ.

A shift to the right rounds down, for negative numbers too.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Callable
from fractions import Fraction
from functools import cache
from statistics import NormalDist

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

PRECISION = 24
SLOTS = 1 << PRECISION  # what the symbols of a site share out; also how the tables below write the number one
LOGIT, MEAN, LOG_SCALE = 10, 12, 10  # fraction bits of parameters: in 16 bits up to 32, 8 and 32
EDGE, ARGUMENT, INVERSE, GRID = 20, 16, 12, 7  # fraction bits of edges, arguments of curves, inverse scales, nodes of curves
LOG_SCALES = (-7, 6)  # where log-scales are clamped: the floor of the float families; above, inverse scales run out of digits
MARGIN = 1e-7  # 27 units in the last place of float64 at 2^24, the largest value that is rounded

Integers = npt.NDArray[np.int32]


def rounded(values: npt.NDArray[np.float64]) -> Integers:
    """The nearest integers, which are certain: no value is within 1e-7 of a half.

    Raises:
        ArithmeticError: one is, so that machines could disagree about it.
    """
    from_half = np.abs(values - np.floor(values) - 0.5)
    if from_half.min() < MARGIN:
        raise ArithmeticError(
            f"entry {from_half.argmin()} of a fixed-point table is {from_half.min():.1e} from a rounding boundary, where "
            f"machines may round differently: change the grid of the table"
        )
    return frozen(np.rint(values).astype(np.int32))


def frozen(table: Integers) -> Integers:
    """The same array, which nobody can write to any more."""
    table.flags.writeable = False
    return table


@cache
def exponential() -> Integers:
    """exp(-t 2^-10) * 2^24 at t = 0, 1, ... up to the first that is 0, as all after it are."""
    last = math.ceil((PRECISION + 1) * math.log(2) * (1 << LOGIT))
    return rounded(SLOTS * np.exp(-np.arange(last + 1) / (1 << LOGIT)))


@cache
def inverse_scale() -> Integers:
    """exp(-s) * 2^12 at the log-scales s from -7 to 6 in steps of 2^-10."""
    low, high = (bound << LOG_SCALE for bound in LOG_SCALES)
    return rounded((1 << INVERSE) * np.exp(-np.arange(low, high + 1) / (1 << LOG_SCALE)))


@cache
def logistic() -> Integers:
    """Distribution function of the standard logistic, times 2^24, from -20 to 20 in steps of 2^-7; see ``interpolate``."""
    return rounded(SLOTS / (1 + np.exp(-nodes(20.0))))


@cache
def normal() -> Integers:
    """Distribution function of the standard normal, times 2^24, from -6.5 to 6.5 in steps of 2^-7; see ``interpolate``."""
    return rounded(SLOTS * np.array([math.erfc(-x / math.sqrt(2)) / 2 for x in nodes(6.5)]))


def nodes(limit: float) -> npt.NDArray[np.float64]:
    """The arguments at which a curve is tabulated; both ends are so far out that the entries there are 0 and 2^24."""
    half = int(limit * (1 << GRID))
    return np.arange(-half, half + 1) / (1 << GRID)


@cache
def edges(levels: int, low: float, high: float) -> Integers:
    """(levels - 1,) edges 1 .. levels - 1 of the bins of ``Binned``, of fraction 20, halves rounded up.

    Computed in exact fractions, so that nothing depends on how floats round. Edge j, below symbol j, is entry j - 1.
    """
    width = (Fraction(high) - Fraction(low)) / (levels - 1)
    step = width * (1 << EDGE)
    start = Fraction(low) * (1 << EDGE) - step / 2 + Fraction(1, 2)
    over = math.lcm(start.denominator, step.denominator)  # with one denominator for all, whole numbers suffice
    first, stride = int(start * over), int(step * over)
    return frozen(np.array([(first + j * stride) // over for j in range(1, levels)], np.int32))


@cache
def quantiles(bits: int) -> Integers:
    """(2^bits - 1,) edges that cut the standard normal into 2^bits bins of equal mass, of fraction 20."""
    normal_law = NormalDist()
    return rounded((1 << EDGE) * np.array([normal_law.inv_cdf(i / (1 << bits)) for i in range(1, 1 << bits)]))


@cache
def centres(bits: int) -> Integers:
    """(2^bits,) medians of those bins, of fraction 12: the values that a latent unit can take."""
    normal_law = NormalDist()
    return rounded((1 << MEAN) * np.array([normal_law.inv_cdf((i + 0.5) / (1 << bits)) for i in range(1 << bits)]))


@cache
def on(device: torch.device, table: Callable[..., Integers], *arguments: float) -> Tensor:
    """A table of this file, such as ``on(device, logistic)``, as int64 on the device."""
    return torch.tensor(table(*arguments), dtype=torch.int64, device=device)


def interpolate(curve: Tensor, argument: Tensor) -> Tensor:
    """Values of a tabulated distribution function at (...) arguments of fraction 16: integers 0 .. 2^24 that never decrease.

    Straight lines between the nodes, rounded down; 0 below the first node and 2^24 from the last one on. The floor makes
    the values at x and -x sum to 2^24 or one less.
    """
    bits = ARGUMENT - GRID
    limit = (len(curve) // 2) << bits
    place = argument.clamp(-limit, limit - 1) + limit  # the last two nodes are equal, so that 2^24 is reached all the same
    cell, rest = place >> bits, place & ((1 << bits) - 1)
    left = curve[cell]
    return left + (((curve[cell + 1] - left) * rest) >> bits)


def weights(logits: Tensor) -> Tensor:
    """(..., K) logits of fraction 10 to (..., K) weights exp(logit - largest logit) * 2^24: the largest is 2^24."""
    table = on(logits.device, exponential)
    return table[(logits.amax(-1, keepdim=True) - logits).clamp_max(len(table) - 1)]


def inverse_scales(log_scales: Tensor) -> Tensor:
    """(...) log-scales of fraction 10, clamped to -7 .. 6, to (...) inverse scales of fraction 12."""
    low, high = (bound << LOG_SCALE for bound in LOG_SCALES)
    return on(log_scales.device, inverse_scale)[log_scales.clamp(low, high) - low]


def checksum(table: Integers) -> str:
    """16 hexadecimal digits that tell tables apart: BLAKE2b of the entries, 32-bit little-endian."""
    return hashlib.blake2b(table.astype("<i4").tobytes(), digest_size=8).hexdigest()
