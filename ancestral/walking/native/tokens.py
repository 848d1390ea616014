"""What networks of tokens need, in compiled code: normalisation, rotation, attention and the GELU.

The rules of whole numbers are those of ``walking.exact.tokens``, to the bit.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from ancestral.walking.exact.tokens import (
    ANGLE,
    FINE,
    GUARD,
    INVERSE,
    RATE,
    RECIPROCAL,
    ROOT,
    SHARE,
    UNIT,
)
from ancestral.walking.exact.whole import CURVE
from ancestral.walking.native.functions import at_most_40, clamped, half_up, whole_curve
from ancestral.walking.native.heads import blended, scored
from ancestral.walking.native.layout import GELU, NORMALISE, ROTATE
from ancestral.walking.native.tiles import LANES, by_kind, by_type, compiled, exponential, float32, int64
from ancestral.walking.native.weights import Array

ROWS = 16  # of keys or values that are read for all heads and queries while they are in the first cache
QUERIES = 8  # rows of one example whose attention is computed together


def token(tokens: Any, state: Array, plan: Any, op: Any, first: int, second: int, target: int, row: int, rows: int) -> None:
    """An operation of networks of tokens; of attention those of some rows, from ``row`` on.

    ``first``, ``second`` and ``target`` are places of the first of them; ``second`` of attention is that of its keys in row 0.
    """
    raise NotImplementedError("for compiled code")


def token_of_kind(state: Array, plan: Any, op: Any, first: int, second: int, target: int, row: int, rows: int) -> None:
    """The same, by what the values are."""
    raise NotImplementedError("for compiled code")


def of_kind(tokens: Any, state: Array, plan: Any, op: Any, first: int, second: int, target: int, row: int, rows: int) -> None:
    """There are some."""
    token_of_kind(state, plan, op, first, second, target, row, rows)


def none(tokens: Any, state: Array, plan: Any, op: Any, first: int, second: int, target: int, row: int, rows: int) -> None:
    """There is none."""


def float_token(state: Array, plan: Any, op: Any, first: int, second: int, target: int, row: int, rows: int) -> None:
    """In floating point; NaN stays NaN."""
    if op.code == NORMALISE:
        normalise(state, plan.biases, op, first, target)
    elif op.code == ROTATE:
        rotate(state, op, first, second, target)
    elif op.code == GELU:
        x, y = state[first : first + op.count], state[target : target + op.count]
        for i in range(op.count):  # x times the logistic function of 2 sqrt(2 / pi) (x + 0.044715 x^3)
            inner = float32(-1.5957691216) * x[i] * (float32(1) + float32(0.044715) * x[i] * x[i])
            y[i] = x[i] / (float32(1) + exponential(at_most_40(inner)))
    else:
        attend(state, op, first, second, target, row, rows)


@compiled
def normalise(state: Array, weights: Array, op: Any, first: int, target: int) -> None:
    """Mean and squares are summed in float64, each as one chain."""
    count, gain, shift = op.count, op.biases + 1, op.biases + 1 + op.count
    mean = 0.0
    if op.centred:
        for i in range(count):
            mean += state[first + i]
        mean /= count
    squares = 0.0
    for i in range(count):
        d = state[first + i] - mean
        squares += d * d
    inverse = 1 / math.sqrt(squares / count + weights[op.biases])
    for i in range(count):
        state[target + i] = (state[first + i] - mean) * inverse * weights[gain + i] + weights[shift + i]


@compiled
def rotate(state: Array, op: Any, first: int, second: int, target: int) -> None:
    """Heads one by one."""
    half = op.size // 2
    for head in range(0, op.turned, op.size):
        for i in range(half):
            a, b = state[first + head + i], state[first + head + half + i]
            cos, sin = state[second + i], state[second + half + i]
            state[target + head + i] = a * cos - b * sin
            state[target + head + half + i] = b * cos + a * sin
    for i in range(op.turned, op.count):
        state[target + i] = state[first + i]


# -- attention -----------------------------------------------------------------------------------------------------------------


@compiled
def piece(op: Any, row: int, last: int) -> int:
    """How many rows from ``row`` on lie in one piece and are read together, up to a last one."""
    slot = (row - op.other_above) % op.other_slots
    rows: int = min(ROWS, last + 1 - row, op.other_slots - slot)
    return rows


@compiled
def slot_place(op: Any, row: int) -> int:
    """How far a row of keys lies behind that of row 0."""
    place: int = (row - op.other_above) % op.other_slots * op.other_slot
    return place


@compiled
def score(state: Array, op: Any, first: int, second: int, row: int, rows: int, step: int, scores: Array) -> None:
    """(rows, heads, seen) products of queries with the keys that each sees, the keys in turn."""
    share, oldest = op.heads // op.key_heads, max(0, row - op.seen + 1)
    begin = oldest
    while begin < row + rows:
        count = piece(op, begin, row + rows - 1)
        keys = second + slot_place(op, begin)
        for m in range(rows):
            start = max(begin, row + m - op.seen + 1)
            end = min(begin + count, row + m + 1)
            if start >= end:
                continue
            for h in range(op.heads):
                place = (m * op.heads + h) * (row + rows - oldest) + start - oldest
                key = keys + (start - begin) * op.other_slot + h // share * op.size
                scored(state, first + m * step + h * op.size, state, key, scores, place, op.other_slot, end - start, op.size)
        begin += count


@compiled
def blend(state: Array, op: Any, second: int, row: int, rows: int, weights: Array, sums: Array, room: int) -> None:
    """(rows, heads, room) sums of values by (rows, heads, seen) weights."""
    share, oldest = op.heads // op.key_heads, max(0, row - op.seen + 1)
    begin = oldest
    while begin < row + rows:
        count = piece(op, begin, row + rows - 1)
        values = second + op.behind + slot_place(op, begin)
        for m in range(rows):
            start = max(begin, row + m - op.seen + 1)
            end = min(begin + count, row + m + 1)
            if start >= end:
                continue
            for h in range(op.heads):
                place = (m * op.heads + h) * (row + rows - oldest) + start - oldest
                value = values + (start - begin) * op.other_slot + h // share * op.size
                sum_at = (m * op.heads + h) * room
                blended(state, value, weights, place, sums, sum_at, op.other_slot, end - start, op.size)
        begin += count


@compiled
def attend(state: Array, op: Any, first: int, second: int, target: int, row: int, rows: int) -> None:
    """Softmax in two passes; the sum of weights is one chain in the order of the rows."""
    oldest = max(0, row - op.seen + 1)
    width, room = row + rows - oldest, (op.size + LANES - 1) // LANES * LANES
    query_step, target_step = (op.source_slot, op.target_slot) if rows > 1 else (0, 0)
    scores, sums = np.empty(rows * op.heads * width, np.float32), np.zeros(rows * op.heads * room, np.float32)
    score(state, op, first, second, row, rows, query_step, scores)
    totals, scale = np.empty(rows * op.heads, np.float32), float32(1 / math.sqrt(op.size))
    for k in range(rows * op.heads):
        m = k // op.heads
        start, end = max(0, row + m - op.seen + 1 - oldest), row + m + 1 - oldest
        own = scores[k * width + start : k * width + end]
        largest, total = own[0], float32(0)
        for j in range(len(own)):
            largest = own[j] if own[j] > largest else largest
        for j in range(len(own)):
            own[j] = exponential((own[j] - largest) * scale)
        for j in range(len(own)):
            total += own[j]
        totals[k] = total
    blend(state, op, second, row, rows, scores, sums, room)
    for k in range(rows * op.heads):
        place = target + k // op.heads * target_step + k % op.heads * op.size
        for i in range(op.size):
            state[place + i] = sums[k * room + i] / totals[k]


# -- whole numbers -------------------------------------------------------------------------------------------------------------


def whole_token(state: Array, plan: Any, op: Any, first: int, second: int, target: int, row: int, rows: int) -> None:
    """In whole numbers."""
    if op.code == NORMALISE:
        whole_normalise(state, plan.biases, op, first, target)
    elif op.code == ROTATE:
        whole_rotate(state, op, first, second, target)
    elif op.code == GELU:
        for i in range(op.count):
            x = int64(state[first + i])
            y = half_up(x * whole_curve(plan.gates[3], x, op.of_source), CURVE + op.of_source - op.of_target)
            state[target + i] = clamped(y, op.high)
    else:
        whole_attend(state, plan.exponents, op, first, second, target, row, rows)


@compiled
def whole_normalise(state: Array, weights: Array, op: Any, first: int, target: int) -> None:
    """See ``walking.exact.tokens``."""
    count, gain, shift = op.count, op.biases + 1, op.biases + 1 + op.count
    mean, q = int64(0), count * int64(weights[op.biases])
    if op.centred:
        for i in range(count):
            mean += int64(state[first + i]) << GUARD
        mean = (2 * mean + count) // (2 * count)
    for i in range(count):
        d = (int64(state[first + i]) << GUARD) - mean
        q += d * d
    q = max(q, 1)
    a = (ROOT - math.frexp(float(q))[1]) >> 1
    root = int64(math.sqrt(float(q << (2 * a) if a > 0 else q >> (-2 * a))))
    inverse, down = (int64(1) << INVERSE) // root, INVERSE - UNIT + 3 - a
    half, last = (int64(1) << down) >> 1, UNIT - FINE + op.of_other - op.of_target
    for i in range(count):
        d = (int64(state[first + i]) << GUARD) - mean
        z = (((d * inverse) << 3) + half) >> down
        y = half_up(((z * int64(weights[gain + i])) >> last) + int64(weights[shift + i]), FINE)
        state[target + i] = clamped(y, op.high)


@compiled
def whole_rotate(state: Array, op: Any, first: int, second: int, target: int) -> None:
    """See ``walking.exact.tokens``."""
    half, change = op.size // 2, op.of_source - op.of_target
    for head in range(0, op.turned, op.size):
        for i in range(half):
            a, b = int64(state[first + head + i]), int64(state[first + head + half + i])
            cos, sin = int64(state[second + i]), int64(state[second + half + i])
            state[target + head + i] = clamped(half_up(a * cos - b * sin, ANGLE + change), op.high)
            state[target + head + half + i] = clamped(half_up(b * cos + a * sin, ANGLE + change), op.high)
    for i in range(op.turned, op.count):
        state[target + i] = clamped(half_up(int64(state[first + i]), change), op.high)


@compiled
def whole_attend(state: Array, exponents: Array, op: Any, first: int, second: int, target: int, row: int, rows: int) -> None:
    """See ``walking.exact.tokens``."""
    oldest = max(0, row - op.seen + 1)
    width, room = row + rows - oldest, (op.size + LANES - 1) // LANES * LANES
    query_step, target_step = (op.source_slot, op.target_slot) if rows > 1 else (0, 0)
    scores, sums = np.empty(rows * op.heads * width, np.int64), np.zeros(rows * op.heads * room, np.int32)
    score(state, op, first, second, row, rows, query_step, scores)
    shares, totals = np.empty(rows * op.heads * width, np.int32), np.empty(rows * op.heads, np.int64)
    for k in range(rows * op.heads):
        m = k // op.heads
        start, end = max(0, row + m - op.seen + 1 - oldest), row + m + 1 - oldest
        totals[k] = share_out(
            scores[k * width + start : k * width + end], shares[k * width + start : k * width + end], op, exponents
        )
    blend(state, op, second, row, rows, shares, sums, room)
    for k in range(rows * op.heads):
        place = target + k // op.heads * target_step + k % op.heads * op.size
        reciprocal = (int64(1) << RECIPROCAL) // totals[k]
        for i in range(op.size):
            y = half_up(int64(sums[k * room + i]) * reciprocal, RECIPROCAL + op.of_other - op.of_target)
            state[place + i] = clamped(y, op.high)


@compiled
def share_out(scores: Array, shares: Array, op: Any, exponents: Array) -> int:
    """Scores to shares of fraction 15, and the sum of those."""
    largest, total, factor, shift, last = scores[0], int64(0), op.factor, op.shift, len(exponents) - 1
    for j in range(len(scores)):
        largest = max(largest, scores[j])
    for j in range(len(scores)):
        weight = int64(exponents[min(((largest - scores[j]) * factor) >> shift, last)])
        scores[j] = weight
        total += weight
    rate, total = (int64(1) << RATE) // total, int64(0)
    for j in range(len(scores)):
        share = (scores[j] * rate + (int64(1) << (RATE - SHARE - 1))) >> (RATE - SHARE)
        shares[j] = share
        total += share
    return total


by_type(token, of_kind, none)
by_kind(token_of_kind, float_token, whole_token)
