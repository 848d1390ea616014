"""The native engine's interpreter: it carries out tables of operations (`layout`) in compiled code, for every model alike.

One operation has two forms: a step computes one site of many examples, a row all sites of a row of one example. Both are
``execute`` with other strides, and since every sum is one chain (`tiles`), both give the same bits.
"""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import Any, NamedTuple

from ancestral.families import fixed, integer, logistic
from ancestral.walking.exact import tokens as exact_tokens
from ancestral.walking.exact import whole
from ancestral.walking.native import choosing, functions, heads, layout, slots, tiles, tokens, weights
from ancestral.walking.native.choosing import choose, popped
from ancestral.walking.native.functions import add, gate, relu, seldom
from ancestral.walking.native.layout import ADD, AFFINE, ATTEND, GATE, GELU, RELU
from ancestral.walking.native.slots import GIVEN, NOBODY, Chooser
from ancestral.walking.native.tiles import (
    HEIGHTS,
    LANES,
    VECTORS,
    compiled,
    entry,
    inlined,
    multiply,
)
from ancestral.walking.native.tokens import QUERIES, token
from ancestral.walking.native.weights import Array

# The cache of compiled code looks at the file of an entry alone. As the default of an argument this number is part of the
# cache's key, so that a change in any of these files makes it compile anew.
_FILES = [module.__file__ for module in (fixed, integer, logistic, whole, exact_tokens)]
_FILES += [module.__file__ for module in (layout, weights, tiles, slots, choosing, functions, heads, tokens)] + [__file__]
_TEXTS = b"".join(Path(name).read_bytes() for name in _FILES if name)
STAMP = int.from_bytes(hashlib.blake2b(_TEXTS, digest_size=7).digest(), "big")

Triple = tuple[int, int, int]


class Plan(NamedTuple):
    """What compiled code needs to know about a Program; see ``Layout`` and ``Weights``."""

    rows: Array
    runs: Array
    sites: Array
    starts: Array
    puts: Array
    output: Array
    values: Array
    biases: Array
    gates: Array
    exponents: Array
    mixtures: tuple[Array, ...]
    size: int
    columns: int
    width: int
    channels: int
    block: int  # rows of the only column that are computed at once, where all symbols are given; see ``Layout``
    rare: Any  # a number where operations of few networks occur, otherwise a truth value: it decides what is compiled
    tokens: Any  # the same of those of networks of tokens


class Span(NamedTuple):
    """Which part of a walk: examples, rows of the image, and places of a row, which are a column and a colour channel."""

    first: int
    examples: int
    row: int
    last_row: int
    place: int
    last_place: int


# -- operations ----------------------------------------------------------------------------------------------------------------


@compiled
def height(items: int) -> int:
    """How many of the sites or examples that are left the next tile takes."""
    for rows in HEIGHTS:
        if items >= rows:
            return rows
    return 1


@inlined
def affine(state: Array, plan: Plan, op: Any, which: int, slot: int, items: int, places: Triple, steps: Triple) -> None:
    """An affine operation for ``items`` places or examples, tile by tile; places and steps are of target, source and init."""
    vectors = (op.count + LANES - 1) // LANES
    depth = op.windows * op.length * LANES * (2 if state.itemsize == 2 else 1)  # weights of a vector's columns
    blocks = 3 if state.itemsize == 2 else 1  # bias and shifts, vector by vector
    weights, biases = op.weights + which * op.weight_set, op.biases + which * op.bias_set
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
                weights + v * depth,
                biases + column * blocks,
                places[2] + m * steps[2] + column,
                places[0] + m * steps[0] + column,
            )
            numbers = (
                *(steps[1], steps[2], steps[0], op.windows, op.apart, op.length, slot, op.source_slots, op.source_slot),
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
    row, column = r >> op.target_shift, w >> op.target_shift
    place: int = op.target + slot_of(row, op.target_slots) * op.target_slot + column * op.target_column
    return place


@compiled
def step_of(places: int, target_shift: int, shift: int, column: int) -> int:
    """How far apart an operand lies for places of the target so many columns apart."""
    return ((places << target_shift) >> shift) * column


@compiled
def slot_step(slots: int, slot: int) -> int:
    """How far apart rows of an operand lie that are computed at once."""
    return slot if slots > 1 else 0


@compiled
def extent(op: Any, size: int, columns: int, examples: int, along: bool, rows: int) -> tuple[int, int, int, Triple]:
    """How many sets of weights take turns, places of a turn, how often that is done, and how far target, source and init move."""
    if rows:
        steps = (
            slot_step(op.target_slots, op.target_slot),
            slot_step(op.source_slots, op.source_slot),
            slot_step(op.other_slots, op.other_slot),
        )
        return 1, rows, examples, steps
    if along:
        turns = op.columns
        steps = (
            turns * op.target_column,
            step_of(turns, op.target_shift, op.source_shift, op.source_column),
            step_of(turns, op.target_shift, op.other_shift, op.other_column),
        )
        return turns, (columns >> op.target_shift) // turns, examples, steps
    return 1, examples, 1, (size, size, size)


@inlined
def execute(
    table: Array,
    first_op: int,
    last_op: int,
    plan: Plan,
    state: Array,
    first: int,
    examples: int,
    r: int,
    w: int,
    along: bool,
    rows: int,
) -> None:
    """Carry out a part of a table: for the pixel (r, w) of some examples, ``along`` row r, or for ``rows`` from r on.

    An operation on coarse places runs at their first row and column. Where sets of weights take turns in a row, its places are
    done set by set.
    """
    for k in range(first_op, last_op):
        op = table[k]
        coarse = (1 << op.target_shift) - 1
        if coarse and (r & coarse or (w & coarse and not along)):
            continue
        slot = slot_of((r >> op.source_shift) - op.source_above, op.source_slots)
        above = slot_of((r >> op.other_shift) - op.other_above, op.other_slots)
        which = (r >> op.target_shift) % op.rows * op.columns if op.rows > 1 else 0
        turns, items, outer, steps = extent(op, plan.size, plan.columns, examples, along, rows)
        if op.columns > 1 and not along:
            which += (w >> op.target_shift) % op.columns
        for turn in range(turns):
            column = w + (turn << op.target_shift)
            target = written(op, r, column)
            source = op.source + (column >> op.source_shift) * op.source_column
            other = op.other + above * op.other_slot + (column >> op.other_shift) * op.other_column
            for example in range(first, first + outer):
                home = example * plan.size
                if op.code == AFFINE:
                    affine(state, plan, op, which + turn, slot, items, (home + target, home + source, home + other), steps)
                    continue
                m = 0
                while m < items:
                    y = home + target + m * steps[0]
                    a = home + source + slot * op.source_slot + m * steps[1]
                    b = home + other + m * steps[2]
                    taken = 1
                    if op.code == GATE:
                        gate(state, plan.gates, a, b, y, op.count)
                    elif op.code == ADD:
                        add(state, a, b, y, op.count, op.low)
                    elif op.code == RELU:
                        relu(state, a, y, op.count)
                    elif op.code < GELU:
                        seldom(plan.rare, state, plan, op, a, b, y)
                    else:
                        if op.code == ATTEND:
                            b = home + op.other + (0 if rows else m * steps[2])
                            taken = min(QUERIES, items - m) if rows else 1
                        token(plan.tokens, state, plan, op, a, b, y, r + m if rows else r, taken)
                    m += taken


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
    instead of drawn, but for the known ones; all examples must then be in one span.
    """
    channels, output = plan.channels, plan.output[0]
    count, places = output.count // channels, plan.width * channels
    r, taken = span.row, 0
    while r < span.last_row:
        taken = min(plan.block, span.last_row - r)
        if who.kind == GIVEN:
            for row in range(r, r + taken):
                put_row(plan, state, span, row, symbols)
        # a row's own operations come before its places: first one part of them, column by column, or along the row
        steps = 0
        if span.place == 0:
            for run in range(len(plan.runs)):
                steps += plan.columns if plan.runs[run, 2] else 1
        run, column = 0, plan.columns - 1
        for step in range(steps + span.last_place - span.place):
            place = span.place + step - steps
            along, first_op, last_op, w, table = False, 0, 0, 0, plan.sites
            if step < steps:
                table, first_op, last_op = plan.rows, plan.runs[run, 0], plan.runs[run, 1]
                along = plan.runs[run, 2] == 0 and plan.columns > 1  # a row of one place is a place, of all examples at once
                w = 0 if along else column
                column -= 1
                if along or column < 0:
                    run, column = run + 1, plan.columns - 1
            else:
                c = place % channels
                w, first_op, last_op = place // channels, plan.starts[c], plan.starts[c + 1]
            execute(table, first_op, last_op, plan, state, span.first, span.examples, r, w, along, taken if plan.block > 1 else 0)
            if step < steps or who.kind == NOBODY or who.kind == GIVEN:
                continue
            c, site = place % channels, r * places + place
            for example in range(span.first, span.first + span.examples):
                start = example * plan.size + written(output, r, w) + c * count
                if known[example, site]:
                    pass
                elif len(stack):
                    symbols[example, site] = popped(state[start : start + count], who, stack)
                else:
                    symbols[example, site] = choose(state[start : start + count], who, u[example, site])
                put(plan, state, example, r, w, c, symbols[example, site])
        if who.kind == GIVEN:
            for row in range(r, r + taken):
                copy_row(plan, state, span, row, result)
        r += taken
