"""Normalisation, rotation and attention in whole numbers: what `walking.exact.whole` and the native engine both carry out.

Normalisation, with d the features less their mean (both 6 bits finer) and q the sum of their squares::

    1 / sqrt(q) = 2^a R 2^-44       R = floor(2^44 / s),  s = floor(sqrt(q 4^a)), of 24 bits
    y = gain sqrt(N) d / sqrt(q) + shift

Attention, with D the product of query and key, and EXP the table of exp(-t 2^-10) 2^24::

    w = EXP[(largest D - D) / sqrt(k) 2^10]       p = round(2^15 w / sum of w)       y = sum of p v / sum of p

Products of 12-bit queries and 15-bit keys stay below 2^53 with 2^26 features of a head, sums of p v below 2^31 with 2^16 rows:
the shares p sum to 2^15 but for what rounding adds, half a unit a row. The square root is that of IEEE 754, correctly rounded,
and exact enough: the floor of the root of a whole number of 48 bits is certain.
"""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import torch
from torch import Tensor

from ancestral.causal.attention import Angles, in_heads
from ancestral.causal.program import Rounding
from ancestral.causal.tokens import Attend, Normalise, Rotate
from ancestral.families import fixed
from ancestral.walking.exact.operations import LoweringError, power

GUARD = 6  # bits by which means are finer than features
ROOT, INVERSE = 48, 44  # bits of squares whose roots are taken, fraction bits of what roots are divided into
UNIT, FINE = 24, 8  # fraction bits of d / sqrt(q), and by how many bits shifts are finer than the result
GAIN = 22  # bits of the largest gain
ANGLE, TURN = 14, 28  # fraction bits of cosines and sines, and while they are computed
SHARE, RATE, RECIPROCAL = 15, 54, 31  # of shares, of what sums of weights divide, of what sums of shares divide
MOST_ROWS = 1 << 16
QUERIES = 128  # that are taken together, so that their scores fit into memory


def half_up(x: Tensor, bits: int) -> Tensor:
    """floor(x 2^-bits + 1/2) of integers."""
    return (x + (1 << (bits - 1))) >> bits if bits > 0 else x << -bits


# -- normalisation -------------------------------------------------------------------------------------------------------


def exact_normalise(op: Normalise, source: int, target: int, limit: int) -> Normalise:
    """A normalisation in whole numbers: integer gains that hold sqrt(N), finer shifts, and the epsilon of squares.

    Args:
        source, target: fraction bits of what it reads and writes.
        limit: the largest magnitude that it writes.

    Raises:
        LoweringError: weights are not finite, or out of bounds.
    """
    gain, shift = op.gain.double().cpu() * math.sqrt(len(op.gain)), op.shift.double().cpu()
    if not (gain.isfinite().all() and shift.isfinite().all()):
        raise LoweringError("the network has weights that are not finite")
    fraction = GAIN - int(torch.frexp(gain.abs().max()).exponent)
    epsilon = math.floor(op.epsilon * power(2 * (source + GUARD)) + 0.5)
    if fraction + UNIT - FINE < target or fraction + UNIT - FINE - target > 60 or epsilon >= 2**31:
        raise LoweringError("the gains of a normalisation, or its epsilon, are out of proportion to what it reads and gives")
    shifts = (shift * power(target + FINE) + 0.5).floor().clamp(-(2**30), 2**30)
    gains = (gain * power(fraction) + 0.5).floor()
    scaling = Rounding(source, fraction, target, limit)
    return replace(op, gain=gains.to(torch.int32), shift=shifts.to(torch.int32), epsilon=float(epsilon), scaling=scaling)


def whole_normalised(op: Normalise, bits: Rounding, x: Tensor) -> Tensor:
    """(..., N) integers normalised."""
    n = x.shape[-1]
    d = x << GUARD
    if op.centred:
        d = d - (2 * d.sum(-1, keepdim=True) + n).div(2 * n, rounding_mode="floor")
    q = ((d * d).sum(-1, keepdim=True) + n * int(op.epsilon)).clamp_min(1)
    a = (ROOT - torch.frexp(q.double()).exponent.long()) >> 1
    root = ((q << (2 * a).clamp_min(0)) >> (-2 * a).clamp_min(0)).double().sqrt().floor().long()
    down = INVERSE - UNIT + 3 - a  # 3 more, since a is 23 at most
    z = (((d * ((1 << INVERSE) // root)) << 3) + ((torch.ones_like(a) << down) >> 1)) >> down
    y = (z * op.gain.to(x)) >> (UNIT - FINE + bits.other - bits.target)
    return half_up(y + op.shift.to(x), FINE).clamp(-bits.limit, bits.limit)


# -- rotation ------------------------------------------------------------------------------------------------------------


def exact_angles(angles: Angles) -> Tensor:
    """(1, k, T, 1) cosines and sines of fraction 14, every token's from the one before by a turn in whole numbers.

    So they do not depend on how a machine computes the cosine of a large number; after t tokens they are within t 2^-28.
    """
    steps = angles.base ** (-np.arange(0, angles.size, 2) / angles.size)
    cos, sin = (torch.tensor(fixed.rounded(2.0**TURN * f(steps)), dtype=torch.int64) for f in (np.cos, np.sin))
    turned = [(torch.full_like(cos, 1 << TURN), torch.zeros_like(sin))]
    for _ in range(angles.tokens - 1):
        c, s = turned[-1]
        turned.append((half_up(c * cos - s * sin, TURN), half_up(s * cos + c * sin, TURN)))
    both = torch.stack([torch.cat(pair) for pair in turned], -1)
    return half_up(both, TURN - ANGLE)[None, ..., None].double()


def whole_rotated(op: Rotate, bits: Rounding, x: Tensor, angles: Tensor) -> Tensor:
    """(..., c) integers, the first of them turned by (..., k) cosines and sines of fraction 14."""
    heads = in_heads(x[..., : op.turned], op.angles.count)
    (a, b), (cos, sin) = heads.chunk(2, -1), angles.unsqueeze(-2).chunk(2, -1)
    both = torch.cat([a * cos - b * sin, b * cos + a * sin], -1).flatten(-2)
    change = bits.source - bits.target
    y = torch.cat([half_up(both, ANGLE + change), half_up(x[..., op.turned :], change)], -1)
    return y.clamp(-bits.limit, bits.limit)


# -- attention -----------------------------------------------------------------------------------------------------------


def sharpness(size: int, bits: Rounding) -> tuple[int, int]:
    """(factor, shift): a difference of scores becomes an argument of the exponential by floor(difference factor 2^-shift).

    Raises:
        LoweringError: queries and keys are so coarse that there is no such shift.
    """
    mantissa, exponent = math.frexp(1 / math.sqrt(size))
    shift = bits.source + bits.other + 15 - fixed.LOGIT - exponent
    if shift < 0:
        raise LoweringError("queries and keys are so large that their products have no exact form")
    return math.floor(mantissa * 2**15 + 0.5), shift


def exact_attend(op: Attend, bits: Rounding) -> Attend:
    """Attention in whole numbers; raises ``LoweringError`` where sums could leave 32 bits, or scores 53."""
    if op.window > MOST_ROWS:
        raise LoweringError(
            f"attention to {op.window} tokens has no exact form: {MOST_ROWS} have one, as `window` of the network"
        )
    sharpness(op.size, bits)
    return replace(op, scaling=bits)


def whole_attended(op: Attend, bits: Rounding, query: Tensor, keys: Tensor, values: Tensor) -> Tensor:
    """(n, m, h k) queries of the last m of r rows, (n, r, g k) keys and values, in float64, to (n, m, h k) integers.

    Where m is 1 all rows are seen, otherwise those up to ``window`` rows back.
    """
    n, m, _ = query.shape
    r, groups = keys.shape[1], keys.shape[2] // op.size
    k, v = (part.view(n, r, groups, 1, op.size).permute(0, 2, 3, 4, 1) for part in (keys, values))  # (n, g, 1, k, r)
    q = query.view(n, m, groups, op.heads // groups, op.size).permute(0, 2, 3, 1, 4)  # (n, g, h / g, m, k)
    found = []
    for first in range(0, m, QUERIES):
        some = q[:, :, :, first : first + QUERIES]
        rows = torch.arange(r - m + first, r - m + first + some.shape[3], device=q.device)[:, None]
        behind = rows - torch.arange(r, device=q.device)
        seen = ((behind >= 0) & (behind < op.window)) | (m == 1)
        shares = _shares(op, bits, (some @ k).long(), seen)
        sums = (shares.double() @ v.mT).long() * ((1 << RECIPROCAL) // shares.sum(-1, keepdim=True))
        found.append(half_up(sums, RECIPROCAL + bits.other - bits.target).clamp(-bits.limit, bits.limit))
    return torch.cat(found, 3).permute(0, 3, 1, 2, 4).reshape(n, m, query.shape[2])


def _shares(op: Attend, bits: Rounding, scores: Tensor, seen: Tensor) -> Tensor:
    """Scores to the shares, of fraction 15, that the values of the rows seen have."""
    factor, shift = sharpness(op.size, bits)
    table = fixed.on(scores.device, fixed.exponential)
    largest = scores.masked_fill(~seen, torch.iinfo(torch.int64).min).amax(-1, keepdim=True)
    arguments = ((largest - scores).clamp_min(0) * factor) >> shift
    weights = table[arguments.clamp_max(len(table) - 1)].masked_fill(~seen, 0)
    rates = (1 << RATE) // weights.sum(-1, keepdim=True)
    return half_up(weights * rates, RATE - SHARE)
