"""A sum over many small maps as one product: the skip connections of a sequence network.

    s = (W1 z1 + b) + W2 z2 + ...      becomes      s = [W1 W2 ...] [z1; z2; ...] + b

where each z is written by the same function, and nothing else. These then write side by side into one buffer, from which
whatever else reads a z takes its part. In whole numbers the sum is rounded once instead of at every term.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import fields, replace
from typing import Any

import torch

from ancestral.causal.layer import Clock, Reach
from ancestral.causal.program import Affine, Buffer, Operation, Part, Point, Program

Moved = Mapping[int, tuple[int, int]]  # by buffer, where it lies now: in which one, and after how many features


def joined(program: Program) -> Program:
    """The Program with such sums joined; it must be of one colour channel."""
    chains = _disjoint([chain for chain in _chains(program) if len(chain) > 1])
    buffers, moved, gone = list(program.buffers), {i: (i, 0) for i in range(len(program.buffers))}, set()
    products: dict[int, Affine] = {}
    for chain in chains:
        first, last, start = chain[0], chain[-1], 0
        for op in chain:
            moved[op.source] = len(buffers), start
            start += program.buffers[op.source].features
        weight, bias = torch.cat([op.weight for op in chain], 2), torch.stack([op.bias for op in chain]).sum(0)
        products[id(last)] = replace(last, source=chain[0].source, init=first.init, weight=weight, bias=bias)
        name = f"joined{len(buffers) - len(program.buffers) + 1}"
        buffers.append(Buffer(name, Clock.SITE, start, (start,)))
        gone |= {id(op) for op in chain[:-1]}
    operations = [products.get(id(op), op) for op in program.operations if id(op) not in gone]
    dead = {op.target.buffer for chain in chains for op in chain[:-1]} | {op.source for chain in chains for op in chain}
    kept = [i for i in range(len(buffers)) if i not in dead]
    place = {i: (kept.index(where), after) for i, (where, after) in moved.items() if where in kept}
    return replace(
        program,
        buffers=tuple(buffers[i] for i in kept),
        puts=tuple(replace(put, target=place[put.target][0]) for put in program.puts),
        fills=tuple(replace(fill, target=place[fill.target][0]) for fill in program.fills),
        operations=tuple(_elsewhere(op, place) for op in operations),
        output=place[program.output][0],
    )


def _chains(program: Program) -> list[list[Affine]]:
    """Maps of their own place, each of which starts from the one before, that nobody else reads."""
    writers = Counter(op.target.buffer for op in program.operations)
    readers = Counter(buffer for op in program.operations for buffer in _read(op))
    points = (op for op in program.operations if isinstance(op, Point) and op.clock is Clock.SITE)
    functions = {op.target.buffer: op.function for op in points}
    chains: dict[int, list[Affine]] = {}  # by the buffer that the last map writes
    for op in program.operations:
        if not isinstance(op, Affine) or op.reach != Reach() or op.clock is not Clock.SITE or op.phases != (1, 1):
            continue
        source = program.buffers[op.source]
        if op.source not in functions or writers[op.source] > 1 or source.rows > 1 or source.wide:
            continue
        before = chains.get(op.init.buffer) if op.init else None
        if op.init and before and readers[op.init.buffer] == 1 and not before[-1].relu and _apart(op, before, functions):
            del chains[op.init.buffer]
            chains[op.target.buffer] = [*before, op]
        else:
            chains[op.target.buffer] = [op]
    return list(chains.values())


def _apart(op: Affine, chain: Sequence[Affine], functions: Mapping[int, str]) -> bool:
    """Whether a map reads another buffer than those of a chain, of the same function: others have other scales when exact."""
    return functions[op.source] == functions[chain[0].source] and all(op.source != other.source for other in chain)


def _disjoint(chains: Sequence[list[Affine]]) -> list[list[Affine]]:
    """Those that share no buffer with one before: what a function writes can lie in one place alone."""
    found: list[list[Affine]] = []
    taken: set[int] = set()
    for chain in chains:
        sources = {op.source for op in chain}
        if not sources & taken:
            found.append(chain)
            taken |= sources
    return found


def _read(op: Operation) -> list[int]:
    """The buffers that an operation reads."""
    parts = [getattr(op, each.name) for each in fields(op) if each.name != "target"]
    return [part.buffer for part in parts if isinstance(part, Part)] + ([op.source] if isinstance(op, Affine) else [])


def _elsewhere(op: Operation, place: Moved) -> Operation:
    """An operation on buffers that were moved."""
    changed: dict[str, Any] = {}
    for each in fields(op):
        part = getattr(op, each.name)
        if isinstance(part, Part):
            buffer, after = place[part.buffer]
            changed[each.name] = replace(part, buffer=buffer, first=part.first + after)
    if isinstance(op, Affine):
        buffer, after = place[op.source]
        changed |= {"source": buffer, "first": op.first + after}
    return replace(op, **changed)
