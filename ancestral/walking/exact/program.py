"""Exact numerics: a Program with whole numbers, which every machine, batch size and engine carries out to the same bits.

A value is an integer times 2^-fraction. Matrices have 12-bit weights and read 13-bit activations; sums have 32 bits, and that
none can leave them, whatever the symbols, is proven for every output when a Program is made exact::

    float      y = relu(init + b + W x)
    integers   a = init' 2^i + b' + W' x'                       i, o: shifts of every output
               y' = clamp(floor(a 2^-o + 1/2), low, high)

Examples decide the fraction of every buffer (`calibrate`); all else follows from the weights by powers of two, floor and sums,
where IEEE 754 leaves no choice. `whole.Whole` carries the integers in float64, where all of this
is exact; `native` carries them as they are.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable
from dataclasses import asdict, dataclass, replace
from typing import Any

import torch
from torch import Tensor

from ancestral.causal.layer import Clock, Signal
from ancestral.causal.program import Add, Affine, Couple, Fill, Operation, Part, Point, Program, Put, Rounding, Scaling
from ancestral.causal.tokens import Attend, Normalise, Rotate, TokenOperation
from ancestral.families import fixed
from ancestral.families.integer import Integer
from ancestral.walking.exact.calibration import WEIGHT_BITS, Calibration, formats, largest_weights, put_values, weight_bits
from ancestral.walking.exact.mixture import mixture_fractions
from ancestral.walking.exact.operations import LoweringError, power
from ancestral.walking.exact.tokens import exact_attend, exact_normalise
from ancestral.walking.exact.whole import CURVES, GATE, GELU_SHARE, KEPT, powers

FINEST_SUM = 31  # fraction bits that a sum may get
OVERFLOW = 2.0**31


def exact(program: Program, family: Integer, calibration: Calibration) -> Program:
    """The exact form of a Program: int16 weights and tables, int32 biases, shifts.

    Its parameters are integers with the family's fractions. Its context enters by the fills alone, whose signals have the
    indices of the buffers that they fill: `ExactContext` computes them.

    Raises:
        LoweringError: the Program has no exact form, or the calibration is another one's.
    """
    shared, channels, fractions = formats(program, family.levels), program.shape[0], calibration.buffers
    features = program.buffers[program.output].features
    if features != channels * family.size:
        raise LoweringError(f"{family} reads {family.size} parameters, this network gives {features // channels}")
    wanted = [fractions[form.group] if form.fraction is None else form.fraction for form in shared[: len(fractions)]]
    if len(fractions) != len(shared) or list(fractions) != wanted:
        raise LoweringError("this calibration is another network's: calibrate this one")
    mixtures = {op.source.buffer: op.components for op in program.operations if isinstance(op, Couple)}
    making = Exactly(program, family, calibration, [form.limit for form in shared], mixtures)
    return replace(
        program,
        context={},
        buffers=tuple(replace(buffer, fraction=bits) for buffer, bits in zip(program.buffers, fractions, strict=True)),
        puts=tuple(replace(put, table=making.table(put)) for put in program.puts),
        fills=tuple(
            Fill((Signal(program.graph, f.target, Clock.ONCE, None, program.buffers[f.target].scale),), f.target, None)
            for f in program.fills
        ),
        operations=tuple(making.operation(op) for op in program.operations),
        exact=True,
    )


@dataclass
class Exactly:
    """An exact Program in the making.

    Attributes:
        largest: of every buffer the largest magnitude: the limit, unless an operation without a clamp writes it.
        mixtures: the buffers that hold mixtures of whole pixels, with their number of components.
    """

    program: Program
    family: Integer
    calibration: Calibration
    largest: list[int]
    mixtures: dict[int, int]

    def table(self, put: Put) -> tuple[Tensor, ...]:
        """(levels, features) integers of the symbols, for every channel."""
        scale = power(self.calibration.buffers[put.target])
        found = put_values(put, self.family.levels, self.program.shape[0])
        limit = self.largest[put.target]
        return tuple((values * scale + 0.5).floor().clamp(-limit, limit).to(torch.int16) for values in found)

    def operation(self, op: Operation) -> Operation:
        """An operation in whole numbers, given in the order in which they run."""
        if isinstance(op, Affine):
            return self.affine(op)
        if isinstance(op, TokenOperation):
            return self.token(op)
        target = op.target.buffer
        if isinstance(op, Add):
            self.largest[target] = min(KEPT + 1, self.largest[op.a.buffer] + self.largest[op.b.buffer])
            return op
        if isinstance(op, Couple):
            return replace(op, scaling=self._rounding(op.source, op.symbols, op.target))
        if op.function == "gate":
            self.largest[target] = GATE
        elif op.function == "relu":
            self.largest[target] = self.largest[op.source.buffer]
        return replace(op, scaling=self._rounding(op.source, op.other or op.source, op.target))

    def token(self, op: TokenOperation) -> TokenOperation:
        """Normalisation, rotation and attention; see `walking.exact.tokens`."""
        if isinstance(op, Normalise):
            bits = self._rounding(op.source, op.source, op.target)
            return exact_normalise(op, bits.source, bits.target, bits.limit)
        if isinstance(op, Rotate):
            return replace(op, scaling=self._rounding(op.source, op.angles, op.target))
        return exact_attend(op, self._rounding(op.query, op.keys, op.target))

    def _rounding(self, source: Part, other: Part, target: Part) -> Rounding:
        bits = self.calibration.buffers
        return Rounding(bits[source.buffer], bits[other.buffer], bits[target.buffer], self.largest[target.buffer])

    def affine(self, op: Affine) -> Affine:
        """Weights as fine as 12 bits allow, or as where the sum starts and ends makes necessary; then as the proof allows."""
        weight, bias = op.weight.cpu().double(), op.bias.cpu().double()
        if not (weight.isfinite().all() and bias.isfinite().all()):
            raise LoweringError("the network has weights that are not finite")
        source, end = self.calibration.buffers[op.source], self._fractions(op.target)
        start, init = (end, 0) if op.init is None else (self._fractions(op.init), self.largest[op.init.buffer])
        least = torch.maximum(start, end) - source
        bits = torch.maximum(weight_bits(weight).clamp_max(FINEST_SUM - source), least)
        while True:
            matrix, offset = (weight * powers(bits)[:, None, None] + 0.5).floor(), (bias * powers(bits + source) + 0.5).floor()
            total = matrix.abs().sum((1, 2)) * self.largest[op.source] + offset.abs()
            total += powers(bits + source - start) * init + powers(bits + source - end - 1)
            over = (total >= OVERFLOW) | (largest_weights(matrix) > KEPT)
            if not over.any():
                break
            bits = bits - over.long()
            if (bits < least).any():
                raise LoweringError(
                    "weights and activations are so large that sums could leave 32 bits: weight decay keeps them small"
                )
        limit = self.largest[op.target.buffer]
        scaling = Scaling(bits + source - start, bits + source - end, 0 if op.relu else -limit, limit)
        return replace(op, weight=matrix.to(torch.int16), bias=offset.to(torch.int32), scaling=scaling)

    def _fractions(self, part: Part) -> Tensor:
        """(N,) fraction bits of the columns of a part."""
        if part.buffer in self.mixtures:
            return torch.tensor(mixture_fractions(self.mixtures[part.buffer])[part.first : part.first + part.count])
        if part.buffer != self.program.output:
            return torch.full((part.count,), self.calibration.buffers[part.buffer])
        return torch.tensor([self.family.fractions[i % self.family.size] for i in range(part.first, part.first + part.count)])


def coarse(program: Program) -> int:
    """How many outputs of an exact Program have weights of fewer than 12 bits, so that their sums stay within 32."""
    largest = [largest_weights(op.weight) for op in program.operations if isinstance(op, Affine)]
    return sum(int(((each > 0) & (each < 2 ** (WEIGHT_BITS - 1))).sum()) for each in largest)


def checksum(program: Program) -> bytes:
    """16 bytes that tell exact Programs apart: BLAKE2b of structure, weights, biases, shifts and tables, little-endian."""
    digest = hashlib.blake2b(digest_size=16)
    buffers = [(buffer.clock, buffer.features, buffer.ends, buffer.fraction) for buffer in program.buffers]
    puts = [(put.target, put.table) for put in program.puts]
    tables = [torch.tensor(table) for table in CURVES]
    if any(isinstance(op, Attend) or (isinstance(op, Point) and op.function == "gelu") for op in program.operations):
        tables += [torch.tensor(table) for table in (GELU_SHARE, fixed.exponential())]
    operations = [(type(op).__name__, _content(op)) for op in program.operations]
    fills = [fill.target for fill in program.fills]
    _digest([program.shape, program.output, buffers, puts, fills, tables, operations], digest.update)
    return digest.digest()


def _content(op: Operation) -> dict[str, Any]:
    """The fields of an operation; a window of adjacent rows has none that older files do not know of."""
    content = asdict(op)
    if isinstance(op, Affine) and op.reach.dilation == 1:
        del content["reach"]["dilation"]
    return content


def _digest(value: Any, update: Callable[[bytes], None]) -> None:
    if isinstance(value, Tensor):
        _digest(value.shape, update)
        update(value.cpu().numpy().astype("<i4").tobytes())
    elif isinstance(value, list | tuple | dict):
        update(f"{len(value)}:".encode())
        for each in value.values() if isinstance(value, dict) else value:
            _digest(each, update)
    else:
        update(json.dumps(value).encode() + b";")
