"""Functions of features in compiled code, for floats and for whole numbers; those that few networks have are compiled apart."""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from ancestral.families import fixed
from ancestral.families.logistic import LOG_SCALES
from ancestral.walking.exact.mixture import MANTISSA
from ancestral.walking.exact.whole import CURVE, GATE_ARGUMENT
from ancestral.walking.native.choosing import log_sigmoid
from ancestral.walking.native.layout import CONCAT_ELU, ELU, GLU, SCALED_GATE, SIGMOID, TANH
from ancestral.walking.native.slots import interpolated
from ancestral.walking.native.tiles import by_kind, by_type, compiled, exponential, float32, int64
from ancestral.walking.native.weights import Array


def gate(state: Array, gates: Array, first: int, second: int, target: int, count: int) -> None:
    """tanh of features times the sigmoid of others."""
    raise NotImplementedError("for compiled code")


def float_gate(state: Array, gates: Array, first: int, second: int, target: int, count: int) -> None:
    """With e = exp(-2 a) and g = exp(-b) it is (1 - e) / ((1 + e)(1 + g)), within 1e-7; NaN stays NaN."""
    a, b = state[first : first + count], state[second : second + count]
    y, one, most = state[target : target + count], float32(1), float32(40)
    for i in range(count):
        twice, minus = float32(-2) * a[i], -b[i]
        e = exponential(most if twice > most else twice)
        g = exponential(most if minus > most else minus)
        y[i] = (one - e) / ((one + e) * (one + g))


def whole_gate(state: Array, gates: Array, first: int, second: int, target: int, count: int) -> None:
    """By tables: arguments of fraction 10, values of fraction 14, products of fraction 11."""
    a, b = state[first : first + count], state[second : second + count]
    y, tanh, sigmoid, reach = state[target : target + count], gates[0], gates[1], np.int32(gates.shape[1] // 2)
    for i in range(count):  # numbers without a sign, so that nobody asks whether an index counts from the end
        p = np.uint32(min(max(np.int32(a[i]), -reach), reach - 1) + reach)
        q = np.uint32(min(max(np.int32(b[i]), -reach), reach - 1) + reach)
        y[i] = min((np.int32(tanh[p]) * np.int32(sigmoid[q]) + 65536) >> 17, 2047)


def add(state: Array, first: int, second: int, target: int, count: int, low: int) -> None:
    """target = first + second, and not below 0 where ``low`` is 0."""
    raise NotImplementedError("for compiled code")


def float_add(state: Array, first: int, second: int, target: int, count: int, low: int) -> None:
    """See ``add``; NaN stays NaN."""
    for i in range(count):
        y = state[first + i] + state[second + i]
        state[target + i] = np.float32(0) if low == 0 and y < 0 else y


def whole_add(state: Array, first: int, second: int, target: int, count: int, low: int) -> None:
    """See ``add``; clamped to 16 bits."""
    least = 0 if low == 0 else -32768
    for i in range(count):
        state[target + i] = min(max(np.int32(state[first + i]) + np.int32(state[second + i]), least), 32767)


by_kind(gate, float_gate, whole_gate)
by_kind(add, float_add, whole_add)


@compiled
def relu(state: Array, source: int, target: int, count: int) -> None:
    """Features below 0 become 0; NaN stays NaN."""
    for i in range(count):
        x = state[source + i]
        state[target + i] = 0 if x < 0 else x


# -- what few networks have ------------------------------------------------------------------------------------------------------


def seldom(rare: Any, state: Array, plan: Any, op: Any, first: int, second: int, target: int) -> None:
    """An operation that is not among `layout.COMMON`."""
    raise NotImplementedError("for compiled code")


def seldom_of_kind(state: Array, plan: Any, op: Any, first: int, second: int, target: int) -> None:
    """The same, by what the values are."""
    raise NotImplementedError("for compiled code")


def of_kind(rare: Any, state: Array, plan: Any, op: Any, first: int, second: int, target: int) -> None:
    """There are some."""
    seldom_of_kind(state, plan, op, first, second, target)


def never(rare: Any, state: Array, plan: Any, op: Any, first: int, second: int, target: int) -> None:
    """There is none."""


def float_seldom(state: Array, plan: Any, op: Any, first: int, second: int, target: int) -> None:
    """In floating point; NaN stays NaN."""
    one, count = float32(1), op.count
    if op.code == GLU:
        for i in range(count):
            state[target + i] = state[first + i] / (one + exponential(at_most_40(-state[second + i])))
    elif op.code == SIGMOID:
        for i in range(count):
            state[target + i] = one / (one + exponential(at_most_40(-state[first + i])))
    elif op.code == TANH:
        for i in range(count):
            e = exponential(at_most_40(float32(-2) * state[first + i]))
            state[target + i] = (one - e) / (one + e)
    elif op.code == ELU:
        for i in range(count):
            state[target + i] = elu(state[first + i])
    elif op.code == CONCAT_ELU:
        half = count // 2
        for i in range(half):
            state[target + i] = elu(state[first + i])
            state[target + half + i] = elu(-state[first + i])
    else:
        couple(state, op, first, second, target)


@compiled
def at_most_40(x: float) -> float:
    """Beyond, exp(x) swallows a one."""
    return float32(40) if x > float32(40) else x


@compiled
def elu(x: float) -> float:
    """x above 0, exp(x) - 1 below."""
    return x if x > 0 else exponential(x) - float32(1)


@compiled
def couple(state: Array, op: Any, first: int, second: int, target: int) -> None:
    """What a colour takes from the mixtures of a pixel, whose numbers and symbols are given; see `ChannelMixture`."""
    k_count, colour = op.components, op.colour
    for k in range(k_count):
        logit = float(state[first + k])
        for before in range(colour):
            mean, log_scale = placed(state, k_count, first, second, before, k)
            logit += log_mass(float(state[second + before]), mean, log_scale, op.levels)
        mean, log_scale = placed(state, k_count, first, second, colour, k)
        state[target + k] = logit
        state[target + k_count + k] = mean
        state[target + 2 * k_count + k] = log_scale


@compiled
def placed(state: Array, components: int, first: int, second: int, colour: int, k: int) -> tuple[float, float]:
    """Mean and log-scale of a component for a colour, moved by the colours before."""
    numbers = first + components + 3 * components * colour + k
    mean = float(state[numbers])
    for before in range(colour):
        row = before + colour - 1  # of coefficients: 0 for green, 1 and 2 for blue
        coefficient = math.tanh(float(state[first + components + 3 * components * row + 2 * components + k]))
        mean += coefficient * float(state[second + before])
    return mean, float(state[numbers + components])


@compiled
def log_mass(x: float, mean: float, log_scale: float, levels: int) -> float:
    """The log-probability of the bin at x in [-1, 1]; see ``families.logistic.logistic_log_prob``."""
    inverse, half = math.exp(-min(max(log_scale, LOG_SCALES[0]), LOG_SCALES[1])), 1 / (levels - 1)
    total = 0.0
    if x > -1 + half:
        total += log_sigmoid((mean - x + half) * inverse)
    if x < 1 - half:
        total += log_sigmoid((x + half - mean) * inverse)
        if x > -1 + half:
            total += math.log(-math.expm1(-2 * half * inverse))
    return total


def whole_seldom(state: Array, plan: Any, op: Any, first: int, second: int, target: int) -> None:
    """In whole numbers, as ``walking.exact.whole`` has it."""
    tanh, sigmoid, below, limit = plan.gates[0], plan.gates[1], plan.gates[2], op.high
    count = op.count
    if op.code == GLU:
        for i in range(count):
            open_ = whole_curve(sigmoid, state[second + i], op.of_other)
            state[target + i] = clamped(half_up(state[first + i] * open_, CURVE + op.of_source - op.of_target), limit)
    elif op.code == SCALED_GATE:
        for i in range(count):
            product = whole_curve(tanh, state[first + i], op.of_source) * whole_curve(sigmoid, state[second + i], op.of_other)
            state[target + i] = min(half_up(product, 2 * CURVE - op.of_target), limit)
    elif op.code == SIGMOID or op.code == TANH:
        table = sigmoid if op.code == SIGMOID else tanh
        for i in range(count):
            y = half_up(whole_curve(table, state[first + i], op.of_source), CURVE - op.of_target)
            state[target + i] = clamped(y, limit)
    elif op.code == ELU:
        for i in range(count):
            state[target + i] = whole_elu(below, state[first + i], op)
    elif op.code == CONCAT_ELU:
        half = count // 2
        for i in range(half):
            state[target + i] = whole_elu(below, state[first + i], op)
            state[target + half + i] = whole_elu(below, -int64(state[first + i]), op)
    else:
        whole_couple(state, plan, op, first, second, target)


@compiled
def half_up(x: int, bits: int) -> int:
    """floor(x 2^-bits + 1/2)."""
    if bits > 0:
        return (int64(x) + (int64(1) << (bits - 1))) >> bits
    return int64(x) << -bits


@compiled
def clamped(x: int, limit: int) -> int:
    """x within -limit .. limit."""
    return min(max(x, -limit), limit)


@compiled
def whole_curve(table: Array, x: int, fraction: int) -> int:
    """A value of fraction 14 of a tabulated function at an argument of any fraction, clamped to the table."""
    reach = len(table) // 2
    return int64(table[min(max(half_up(x, fraction - GATE_ARGUMENT), -reach), reach - 1) + reach])


@compiled
def whole_elu(below: Array, x: int, op: Any) -> int:
    """x above 0, exp(x) - 1 below."""
    if x > 0:
        return clamped(half_up(x, op.of_source - op.of_target), op.high)
    return clamped(half_up(whole_curve(below, x, op.of_source), CURVE - op.of_target), op.high)


@compiled
def whole_couple(state: Array, plan: Any, op: Any, first: int, second: int, target: int) -> None:
    """What a colour takes from the mixtures of a pixel; see ``walking.exact.mixture``."""
    count, largest = op.components, int64(-(1 << 60))
    logits = np.empty(count, np.int64)
    for k in range(count):
        logits[k] = state[first + k]
        for before in range(op.colour):
            numbers = first + count + 3 * count * before + k
            mean = whole_mean(state, plan, op, first, second, before, k)
            logits[k] += whole_log_slots(plan, op, state[second + before], mean, state[numbers + count])
        largest = max(largest, logits[k])
    for k in range(count):
        numbers = first + count + 3 * count * op.colour + k
        state[target + k] = max(logits[k] - largest, -32768)
        state[target + count + k] = whole_mean(state, plan, op, first, second, op.colour, k)
        state[target + 2 * count + k] = state[numbers + count]


@compiled
def whole_mean(state: Array, plan: Any, op: Any, first: int, second: int, colour: int, k: int) -> int:
    """The mean of a component for a colour, moved by the colours before."""
    count, shift = op.components, CURVE + op.of_other - fixed.MEAN
    mean = int64(state[first + count + 3 * count * colour + k])
    for before in range(colour):
        row = before + colour - 1  # of coefficients: 0 for green, 1 and 2 for blue
        coefficient = whole_curve(plan.gates[0], state[first + count + 3 * count * row + 2 * count + k], GATE_ARGUMENT)
        mean += half_up(coefficient * int64(state[second + before]), shift)
    return min(max(mean, -32768), 32767)


@compiled
def whole_log_slots(plan: Any, op: Any, value: int, mean: int, log_scale: int) -> int:
    """ln(1 + slots) of the symbol at a value, of fraction 10, under a logistic."""
    one = int64(1) << op.of_other
    symbol = ((int64(value) + one) * (op.levels - 1) + one) >> (op.of_other + 1)
    slots = 1 + whole_below(plan, op, symbol + 1, mean, log_scale) - whole_below(plan, op, symbol, mean, log_scale)
    exponent = 0
    while slots >> (exponent + 1):
        exponent += 1
    width = fixed.PRECISION + 1
    mantissa = ((slots << (width - exponent)) >> (width - MANTISSA)) - (1 << MANTISSA)
    return int64(plan.mixtures[3][mantissa]) + int64(plan.mixtures[4][exponent])


@compiled
def whole_below(plan: Any, op: Any, edge: int, mean: int, log_scale: int) -> int:
    """The slots below an edge 0 .. levels."""
    if edge == 0 or edge == op.levels:
        return fixed.SLOTS if edge else 0
    low, high = fixed.LOG_SCALES[0] << fixed.LOG_SCALE, fixed.LOG_SCALES[1] << fixed.LOG_SCALE
    inverse = int64(plan.mixtures[2][min(max(int64(log_scale), low), high) - low])
    place = int64(plan.mixtures[0][edge - 1]) - (int64(mean) << (fixed.EDGE - fixed.MEAN))
    return interpolated(plan.mixtures[1], (place * inverse) >> (fixed.EDGE + fixed.INVERSE - fixed.ARGUMENT))


by_type(seldom, of_kind, never)
by_kind(seldom_of_kind, float_seldom, whole_seldom)
