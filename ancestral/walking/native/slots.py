"""Integer tables in compiled code: the rules of ``families.integer``, to the bit.

Where parameters are whole numbers, a symbol owns some of 2^24 slots, and its distribution is a table of the first slots.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np

from ancestral.families import fixed
from ancestral.families.fixed import ARGUMENT, EDGE, GRID, INVERSE, LOG_SCALE, LOGIT, MEAN, PRECISION, SLOTS
from ancestral.families.integer import RATE
from ancestral.walking.native.tiles import compiled, int64
from ancestral.walking.native.weights import Array

WORD = 32  # bits of the words that a stack is kept in
NOBODY, GIVEN, BERNOULLI, CATEGORICAL, BINS = range(5)


class Chooser(NamedTuple):
    """Who settles symbols, as compiled code reads it; ``NOBODY`` leaves them to the caller.

    ``top_k``, ``top_p`` and ``min_p`` are those of ``Draw``, or such that they keep every symbol. The tables are those of integer
    families. ``options`` is a number where any of temperature, top-k, top-p and min-p has a say, otherwise a truth value: its
    type decides what is compiled.
    """

    kind: int
    levels: int
    components: int
    options: Any
    temperature: float
    top_k: int
    top_p: float
    min_p: float
    exponential: Array
    curve: Array
    inverse_scale: Array
    edges: Array


@compiled
def weight(who: Chooser, below_largest: int) -> int:
    """exp(-below_largest 2^-10) 2^24."""
    return int64(who.exponential[min(below_largest, len(who.exponential) - 1)])


@compiled
def interpolated(curve: Array, argument: int) -> int:
    """The tabulated distribution function at an argument; see ``fixed.interpolate``."""
    bits = ARGUMENT - GRID
    limit = (len(curve) // 2) << bits
    place = min(max(argument, -limit), limit - 1) + limit
    cell, rest = place >> bits, place & ((1 << bits) - 1)
    left = int64(curve[cell])
    return left + (((int64(curve[cell + 1]) - left) * rest) >> bits)


@compiled
def largest_of(values: Array) -> int:
    """The largest of some whole numbers."""
    largest = int64(-32768)
    for i in range(len(values)):
        largest = max(largest, int64(values[i]))
    return largest


@compiled
def total_of(values: Array) -> int:
    """The sum of whole numbers."""
    total = int64(0)
    for i in range(len(values)):
        total += values[i]
    return total


@compiled
def whole_components(parameters: Array, who: Chooser) -> Array:
    """(3, K) weights, means of the edges' fraction and inverse scales of a mixture."""
    count = who.components
    first = len(parameters) - 2 * count
    low, high = fixed.LOG_SCALES[0] << LOG_SCALE, fixed.LOG_SCALES[1] << LOG_SCALE
    largest = largest_of(parameters[:first])
    parts = np.empty((3, count), np.int64)
    for k in range(count):
        parts[0, k] = weight(who, largest - parameters[k]) if first else SLOTS
        parts[1, k] = int64(parameters[first + k]) << (EDGE - MEAN)
        parts[2, k] = who.inverse_scale[min(max(int64(parameters[first + count + k]), low), high) - low]
    return parts


@compiled
def below_edge(parts: Array, who: Chooser, edge: int) -> int:
    """The weight below an edge 1 .. levels - 1."""
    total = 0
    for k in range(parts.shape[1]):
        argument = ((who.edges[edge - 1] - parts[1, k]) * parts[2, k]) >> (EDGE + INVERSE - ARGUMENT)
        total += parts[0, k] * interpolated(who.curve, argument)
    return total >> PRECISION


@compiled
def entry_at(place: int, below: int, total: int, levels: int) -> int:
    """Entry 1 .. levels - 1 of the table, from the weight below it and that of all."""
    rate = (int64(SLOTS - 2 - levels) << RATE) // total
    return 1 + place + ((below * rate) >> RATE)


@compiled
def entries(parameters: Array, who: Chooser) -> Array:
    """(levels + 1,) the table."""
    levels = who.levels
    table = np.empty(levels + 1, np.int64)
    table[0], table[levels] = 1, SLOTS - 1
    if who.kind == BERNOULLI:
        table[1] = entry_at(1, interpolated(who.curve, -int64(parameters[0]) << (ARGUMENT - LOGIT)), SLOTS, levels)
    elif who.kind == CATEGORICAL:
        largest, below = largest_of(parameters), int64(0)
        for v in range(levels):
            table[v] = below
            below += weight(who, largest - parameters[v])
        rate = (int64(SLOTS - 2 - levels) << RATE) // below
        for v in range(levels):
            table[v] = 1 + v + ((table[v] * rate) >> RATE)
    else:
        parts = whole_components(parameters, who)
        total = total_of(parts[0])
        for v in range(1, levels):
            table[v] = entry_at(v, below_edge(parts, who, v), total, levels)
    return table


@compiled
def found(parameters: Array, who: Chooser, slot: int) -> tuple[int, int, int]:
    """The symbol that owns a slot, its first slot, and that of the next symbol."""
    if who.kind == BERNOULLI or who.kind == CATEGORICAL:
        table, v = entries(parameters, who), 0
        while v < who.levels - 1 and table[v + 1] <= slot:
            v += 1
        return v, table[v], table[v + 1]
    parts = whole_components(parameters, who)
    total = total_of(parts[0])
    low, high = 0, who.levels - 1
    start, end = 1, SLOTS - 1
    while low < high:
        edge = (low + high) // 2 + 1
        entry = entry_at(edge, below_edge(parts, who, edge), total, who.levels)
        if entry <= slot:
            low, start = edge, entry
        else:
            high, end = edge - 1, entry
    return low, start, end


@compiled
def owner(parameters: Array, who: Chooser, slot: int) -> int:
    """The symbol that owns a slot."""
    return found(parameters, who, slot)[0]


@compiled
def pop(parameters: Array, who: Chooser, stack: Array) -> int:
    """The symbol on top of an entropy coder's stack, which it leaves; see ``coding.coder``.

    ``stack`` holds x, how many words there are, and the words. Nothing is checked: whoever decodes looks at what is left.
    """
    top = stack[0]
    slot = int(top & np.uint64(SLOTS - 1))
    symbol, start, end = found(parameters, who, slot)
    top = np.uint64(end - start) * (top >> np.uint64(PRECISION)) + np.uint64(slot - start)
    if top < np.uint64(1 << WORD) and stack[1] > 0:
        stack[1] -= np.uint64(1)
        top = (top << np.uint64(WORD)) | stack[np.int64(stack[1]) + 2]
    stack[0] = top
    return symbol
