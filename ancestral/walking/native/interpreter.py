"""The native engine's interpreter: it carries out tables of operations (`layout`) in compiled code, for every model alike.

One operation has two forms: a step computes one site of many examples, a row all sites of a row of one example. Both are
``execute`` with other strides, and since every sum is one chain (`tiles`), both give the same bits.
"""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from ancestral.families import fixed, integer, logistic
from ancestral.walking.native import choosing, layout, slots, tiles
from ancestral.walking.native.choosing import choose, popped
from ancestral.walking.native.layout import ADD, AFFINE, GATE, Array
from ancestral.walking.native.slots import GIVEN, NOBODY, Chooser
from ancestral.walking.native.tiles import (
    HEIGHTS,
    LANES,
    VECTORS,
    by_kind,
    compiled,
    entry,
    exponential,
    float32,
    inlined,
    multiply,
)

# The cache of compiled code looks at the file of an entry alone. As the default of an argument this number is part of the
# cache's key, so that a change in any of these files makes it compile anew.
_FILES = [module.__file__ for module in (fixed, integer, logistic, layout, tiles, slots, choosing)] + [__file__]
_TEXTS = b"".join(Path(name).read_bytes() for name in _FILES if name)
STAMP = int.from_bytes(hashlib.blake2b(_TEXTS, digest_size=7).digest(), "big")

Triple = tuple[int, int, int]


class Plan(NamedTuple):
    """What compiled code needs to know about a Program; see ``Layout`` and ``Weights``."""

    rows: Array
    sites: Array
    starts: Array
    puts: Array
    output: Array
    values: Array
    biases: Array
    gates: Array
    size: int
    width: int
    channels: int


class Span(NamedTuple):
    """Which part of a walk: examples, rows of the image, and places of a row, which are a column and a colour channel."""

    first: int
    examples: int
    row: int
    last_row: int
    place: int
    last_place: int


# -- functions of features -----------------------------------------------------------------------------------------------------


def gate(state: Array, gates: Array, source: int, target: int, count: int) -> None:
    """tanh of the first ``count`` features times the sigmoid of the next ones."""
    raise NotImplementedError("for compiled code")


def float_gate(state: Array, gates: Array, source: int, target: int, count: int) -> None:
    """With e = exp(-2 a) and g = exp(-b) it is (1 - e) / ((1 + e)(1 + g)), within 1e-7; NaN stays NaN."""
    a, b = state[source : source + count], state[source + count : source + 2 * count]
    y, one, most = state[target : target + count], float32(1), float32(40)
    for i in range(count):
        twice, minus = float32(-2) * a[i], -b[i]
        e = exponential(most if twice > most else twice)
        g = exponential(most if minus > most else minus)
        y[i] = (one - e) / ((one + e) * (one + g))


def whole_gate(state: Array, gates: Array, source: int, target: int, count: int) -> None:
    """By tables: arguments of fraction 10, values of fraction 14, products of fraction 11."""
    a, b = state[source : source + count], state[source + count : source + 2 * count]
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


# -- operations ----------------------------------------------------------------------------------------------------------------


@compiled
def height(items: int) -> int:
    """How many of the sites or examples that are left the next tile takes."""
    for rows in HEIGHTS:
        if items >= rows:
            return rows
    return 1


@inlined
def affine(state: Array, plan: Plan, op: Any, slot: int, items: int, places: Triple, steps: Triple) -> None:
    """An affine operation for ``items`` sites or examples, tile by tile; places and steps are of target, source and init."""
    vectors = (op.count + LANES - 1) // LANES
    depth = op.windows * op.length * LANES * (2 if state.itemsize == 2 else 1)  # weights of a vector's columns
    blocks = 3 if state.itemsize == 2 else 1  # bias and shifts, vector by vector
    widest = 2 * VECTORS if items == 1 else VECTORS
    v = 0
    while v < vectors:
        wide = min(vectors - v, widest)
        tail = op.count - (vectors - 1) * LANES if v + wide == vectors else LANES
        column, m = v * LANES, 0
        while m < items:
            rows = height(items - m)
            pointers = (
                places[1] + m * steps[1],
                op.weights + v * depth,
                op.biases + column * blocks,
                places[2] + m * steps[2] + column,
                places[0] + m * steps[0] + column,
            )
            numbers = (
                *(steps[1], steps[2], steps[0], op.windows, op.length, slot, op.source_slots, op.source_slot),
                *(VECTORS * depth, op.low, op.high, tail),
            )
            multiply(state, plan.values, plan.biases, rows, wide, pointers, numbers)
            m += rows
        v += wide


@compiled
def slot_of(row: int, slots: int) -> int:
    """Where a ring of slots keeps a row."""
    return row % slots if slots > 1 else 0


@compiled
def written(op: Any, r: int, w: int) -> int:
    """Where an operation writes, in the memory of an example."""
    place: int = op.target + slot_of(r, op.target_slots) * op.target_slot + w * op.target_column
    return place


@inlined
def execute(table: Array, plan: Plan, state: Array, first: int, examples: int, r: int, w: int, along: bool) -> None:
    """Carry out a table: for the site (r, w) of some examples, or ``along`` row r of each."""
    items, outer = (plan.width, examples) if along else (examples, 1)
    for k in range(len(table)):
        op = table[k]
        target = written(op, r, w)
        source = op.source + w * op.source_column
        other = op.other + slot_of(r, op.other_slots) * op.other_slot + w * op.other_column
        slot = slot_of(r - op.above, op.source_slots)
        steps = (op.target_column, op.source_column, op.other_column) if along else (plan.size, plan.size, plan.size)
        for example in range(first, first + outer):
            home = example * plan.size
            if op.code == AFFINE:
                affine(state, plan, op, slot, items, (home + target, home + source, home + other), steps)
                continue
            for m in range(items):
                y = home + target + m * steps[0]
                a = home + source + slot * op.source_slot + m * steps[1]
                if op.code == GATE:
                    gate(state, plan.gates, a, y, op.count)
                elif op.code == ADD:
                    add(state, a, home + other + m * steps[2], y, op.count, op.low)
                else:
                    relu(state, a, y, op.count)


@compiled
def put(plan: Plan, state: Array, example: int, r: int, w: int, c: int, symbol: int) -> None:
    """Write a symbol's features where operations will look for them."""
    for k in range(plan.puts.shape[1]):
        op = plan.puts[c, k]
        place = example * plan.size + written(op, r, w)
        for i in range(op.count):
            state[place + i] = plan.values[op.weights + symbol * op.count + i]


@compiled
def put_row(plan: Plan, state: Array, span: Span, r: int, symbols: Array) -> None:
    """Write all symbols of a row."""
    for example in range(span.first, span.first + span.examples):
        for w in range(plan.width):
            for c in range(plan.channels):
                put(plan, state, example, r, w, c, symbols[example, (r * plan.width + w) * plan.channels + c])


@compiled
def copy_row(plan: Plan, state: Array, span: Span, r: int, result: Array) -> None:
    """Copy the parameters of a row."""
    output = plan.output[0]
    for example in range(span.first, span.first + span.examples):
        for w in range(plan.width):
            start = example * plan.size + written(output, r, w)
            for i in range(output.count):
                result[example, r, w * output.count + i] = state[start + i]


# -- what Python calls -----------------------------------------------------------------------------------------------------------


@entry
def settle(plan: Plan, state: Array, r: int, w: int, c: int, symbols: Array, stamp: int = STAMP) -> None:
    """Write (n,) symbols of one site."""
    for example in range(len(symbols)):
        put(plan, state, example, r, w, c, symbols[example])


@entry
def walk(
    plan: Plan,
    state: Array,
    span: Span,
    who: Chooser,
    u: Array,
    known: Array,
    symbols: Array,
    result: Array,
    stack: Array,
    stamp: int = STAMP,
) -> None:
    """Compute the parameters of some places and settle their symbols, where somebody chooses them.

    Where ``who`` is ``GIVEN``, a row's symbols are put first, and the parameters of its sites go to ``result``, (n, H, W C k).
    u, known and symbols are (n, D), sites in the order of the walk. Where there is a ``stack``, symbols are popped from it
    instead of drawn; all examples must then be in one span.
    """
    channels, output = plan.channels, plan.output[0]
    count, places = output.count // channels, plan.width * channels
    for r in range(span.row, span.last_row):
        if who.kind == GIVEN:
            put_row(plan, state, span, r, symbols)
        # the row's own operations count as a place before the first
        for place in range(span.place - (span.place == 0), span.last_place):
            w, c = place // channels, place % channels
            along = place < 0
            table = plan.rows if along else plan.sites[plan.starts[c] : plan.starts[c + 1]]
            execute(table, plan, state, span.first, span.examples, r, max(w, 0), along)
            if along or who.kind == NOBODY:
                continue
            site = r * places + place
            for example in range(span.first, span.first + span.examples):
                start = example * plan.size + written(output, r, w) + c * count
                if len(stack):
                    symbols[example, site] = popped(state[start : start + count], who, stack)
                elif not known[example, site]:
                    symbols[example, site] = choose(state[start : start + count], who, u[example, site])
                put(plan, state, example, r, w, c, symbols[example, site])
        if who.kind == GIVEN:
            copy_row(plan, state, span, r, result)
