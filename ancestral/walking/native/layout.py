"""Where everything of a Program lies for the native engine: one row of memory an example, and a table of operations.

The memory of one example holds all buffers of a walk, one after the other::

    | zeros | scale1: rows x columns x features | a1: ... | ... | slack |

Rows of a buffer are a ring: row r lies in slot r mod rows. An operation is one record, valid for a single site of many examples
and for all sites of a row of one example, because an operand says how far apart rows and columns lie. The record's operands are
checked here, once, for compiled code does not look.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from importlib.util import find_spec
from itertools import groupby

import numpy as np
import torch

from ancestral.causal.channels import COLOURS
from ancestral.causal.layer import Clock
from ancestral.causal.pointwise import DOUBLES, PAIRS
from ancestral.causal.program import Add, Affine, Couple, Operation, Part, Point, Program, Put, Rounding
from ancestral.causal.stepping import Place, places
from ancestral.causal.tokens import Attend, Normalise, Rotate, TokenOperation
from ancestral.walking.exact.tokens import sharpness
from ancestral.walking.exact.whole import GATE_ARGUMENT
from ancestral.walking.native.weights import KINDS, LINE, Array, LayoutError, Weights

AFFINE, GATE, RELU, ADD, GLU, ELU, TANH, SIGMOID, CONCAT_ELU, COUPLE, SCALED_GATE = range(11)
GELU, NORMALISE, ROTATE, ATTEND = range(11, 15)  # of networks of tokens
POINTS = {"gate": GATE, "relu": RELU, "glu": GLU, "elu": ELU, "tanh": TANH, "sigmoid": SIGMOID, "concat_elu": CONCAT_ELU}
POINTS |= {"gelu": GELU}
COMMON = ("gate", "relu")  # functions that most networks are made of; the others are compiled when one needs them

# Of an operand: where it starts in row 0 at column 0; its slots, how far slots and columns lie apart, how many rows above the
# place it lies, and how often the side of its places is halved.
OPERANDS, OPERAND = ("target", "source", "other"), ("", "_slots", "_slot", "_column", "_above", "_shift")
NUMBERS = ("code", "count", "low", "high", "windows", "apart", "length", "weights", "biases")
SETS = ("rows", "columns", "weight_set", "bias_set")  # after how many rows and columns sets of weights repeat, and their sizes
MIXTURE = ("colour", "components", "levels")
FRACTIONS = ("of_source", "of_other", "of_target")  # of functions of whole numbers
# Of attention: heads of the query and of the keys, features of a head, how far behind its keys a row's values lie, how many rows
# are seen, and in whole numbers what scores are multiplied by and shifted; of rotation: features of a head, and how many turn.
TOKENS = ("heads", "key_heads", "size", "behind", "seen", "factor", "shift", "turned", "centred")
OPERATION = np.dtype(
    [(name, np.int64) for name in NUMBERS + SETS + MIXTURE + FRACTIONS + TOKENS]
    + [(name + part, np.int64) for name in OPERANDS for part in OPERAND]
)
NO_BOUND = -1  # as the lower bound of floats, of which only 0 is another


def supported(program: Program) -> str | None:
    """Why the native engine cannot run a Program; None where it can. The Program keeps the answer."""
    key = "why not native"
    if key not in program.kept:
        program.kept[key] = _refusal(program)
    reason: str | None = program.kept[key]
    return reason


def _refusal(program: Program) -> str | None:
    if find_spec("numba") is None:
        return "numba is not installed: pip install numba"
    functions = {op.function for op in program.operations if isinstance(op, Point)} - POINTS.keys()
    if functions:
        return f"it has no {', '.join(sorted(functions))}"
    maps = [op for op in program.operations if isinstance(op, Affine)]
    if program.coarsest & (program.coarsest - 1):
        return f"it halves the sides of places, and some are {program.coarsest} pixels wide"
    if any(op.weight.device.type != "cpu" for op in maps):
        return "the weights are not on a CPU"
    if not program.exact and any(op.weight.dtype != torch.float32 for op in maps):
        return f"the weights are {next(op.weight.dtype for op in maps)}; it computes in float32"
    return None


# -- memory and operations ---------------------------------------------------------------------------------------------------


class Layout:
    """The memory of one example, and a Program's operations as tables.

    Args:
        program: what is laid out.
        weights: its weights.
        context: (rows, columns) of every buffer that the context fills: (1, 1) or (H, W).
        rollback: how many symbols a walk may have to go back.
        parallel: all columns of every buffer are kept, so that a row can be computed at once.
        block: how many rows of a network of one column can be: buffers keep as many rows, or all where several are read.

    Attributes:
        size: values of one example.
        rows, sites, every: records of the operations of a row, of a site (by colour channel), and of all.
        runs: (m, 3) the operations of a row in parts, each from where, to where, and whether from right to left.
        starts: (C + 1,) where the operations of each colour channel begin in ``sites``.
        puts: (C, puts) records of what a symbol writes.
        output: (1,) record, the target of which is the buffer of the parameters.

    Raises:
        LayoutError: an operand reads outside its buffer or what it writes itself.
    """

    def __init__(
        self,
        program: Program,
        weights: Weights,
        context: dict[int, tuple[int, int]],
        rollback: int = 0,
        parallel: bool = False,
        block: int = 1,
    ) -> None:
        self.program, self.weights, self.block = program, weights, block
        self.places = self._places(context, rollback, parallel)
        item = np.dtype(KINDS[program.exact][0]).itemsize
        zeros = max((weights.tiling.padded(op.target.count) for op in program.operations), default=0)
        self._offsets = [zeros]
        for place in self.places:
            self._offsets.append(self._offsets[-1] + -(-place.size * item // LINE) * LINE // item)
        lines = (self._offsets[-1] + weights.tiling.lanes) * item // LINE + 1
        self.size = (lines | 1) * LINE // item  # an odd number of lines, so that examples do not share the same sets of a cache
        records = [self._record(op, *place) for op, place in zip(program.operations, weights.places, strict=True)]
        by = list(zip(program.operations, records, strict=True))
        self.every = stack(records)
        self.rows = stack([record for op, record in by if op.clock is Clock.ROW])
        self.runs = runs(program)
        sites = [[record for op, record in by if op.clock is Clock.SITE and op.channel == c] for c in range(program.shape[0])]
        self.sites = stack([record for records in sites for record in records])
        self.starts = np.cumsum([0, *map(len, sites)])
        self.puts = np.stack(
            [stack([self._put(put, i, c) for i, put in enumerate(program.puts)]) for c in range(program.shape[0])]
        )
        self.output = stack([self._writes(Part(program.output, 0, program.buffers[program.output].features))])

    def at(self, buffer: int, row: int = 0, column: int = 0, first: int = 0) -> int:
        """Where a feature of a site lies in the memory of an example."""
        return self._offsets[buffer] + self.places[buffer].offset(row, column, first)

    def _places(self, context: dict[int, tuple[int, int]], rollback: int, parallel: bool) -> list[Place]:
        height = self.program.shape[1]
        found = places(self.program, rollback, wide=parallel)
        for index, buffer in enumerate(self.program.buffers):
            if self.block > 1:
                found[index] = replace(found[index], rows=self.block if buffer.rows == 1 else self._passed(index) + height)
            if buffer.clock is Clock.ONCE:
                sides = self.program.sides(index)
                if context.get(index) not in ((1, 1), sides):
                    raise LayoutError(f"{buffer.name} is filled with {context.get(index)} sites, not 1 x 1 or {sides}")
                rows, columns = context[index]
                found[index] = Place(buffer.name, rows, columns, buffer.features, 0, columns > 1, buffer.scale)
        return found

    def _passed(self, buffer: int) -> int:
        """Slots before row 0, so that rows lie in one piece where several are computed at once."""
        kept = self.program.buffers[buffer]
        return kept.rows if self.block > 1 and kept.rows > 1 and kept.clock is not Clock.ONCE else 0

    # -- records -------------------------------------------------------------------------------------------------------------

    def _record(self, op: Operation, weights: int, biases: int) -> Array:
        if isinstance(op, Affine):
            return self._affine(op, weights, biases)
        record = self._writes(op.target)
        if isinstance(op, TokenOperation):
            return self._token(record, op, biases)
        if isinstance(op, Add):
            record["code"], record["low"] = ADD, 0 if op.relu else NO_BOUND
            self._reads(record, op, "source", op.a)
            self._reads(record, op, "other", op.b)
            return record
        self._reads(record, op, "source", op.source)
        self._scale(record, op.scaling)
        if isinstance(op, Couple):
            record["code"], record["colour"] = COUPLE, op.channel
            record["components"], record["levels"] = op.components, op.levels
            if op.source.count != (1 + 3 * COLOURS) * op.components or op.target.count != 3 * op.components:
                raise LayoutError(f"a mixture of {op.components} components has {op.source.count} and {op.target.count} numbers")
            self._reads(record, op, "other", op.symbols)
            return record
        sizes = {op.source.count, op.source.count if op.other is None else op.other.count}
        if op.function not in POINTS or sizes != {op.target.count // (1 + (op.function in DOUBLES))}:
            raise LayoutError(f"the native engine has no {op.function} from {op.source.count} to {op.target.count} features")
        if (op.other is not None) is not (op.function in PAIRS):
            raise LayoutError(f"{op.function} takes {1 + (op.function in PAIRS)} operands")
        record["code"] = SCALED_GATE if scaled_gate(op) else POINTS[op.function]
        if op.other is not None:
            self._reads(record, op, "other", op.other)
        return record

    def _scale(self, record: Array, scaling: Rounding | None) -> None:
        if scaling is not None:
            record["of_source"], record["of_other"] = scaling.source, scaling.other
            record["of_target"], record["high"] = scaling.target, scaling.limit

    def _token(self, record: Array, op: TokenOperation, biases: int) -> Array:
        if self.program.exact and op.scaling is None:
            raise LayoutError("an operation of an exact Program has no scaling")
        self._scale(record, op.scaling)
        self._reads(record, op, "source", op.query if isinstance(op, Attend) else op.source)
        if record["count"] != (op.query if isinstance(op, Attend) else op.source).count:
            raise LayoutError(f"an operation on tokens makes {op.target.count} features of another number")
        if isinstance(op, Normalise):
            record["code"], record["biases"], record["centred"] = NORMALISE, biases, op.centred
        elif isinstance(op, Rotate):
            self._reads(record, op, "other", op.angles)
            record["code"], record["size"], record["turned"] = ROTATE, op.angles.count, op.turned
            if op.turned % op.angles.count or op.turned > op.source.count:
                raise LayoutError(f"heads of {op.angles.count} features do not make up {op.turned} of {op.source.count}")
        else:
            self._attend(record, op)
        return record

    def _attend(self, record: Array, op: Attend) -> None:
        for part in (op.values, op.keys):  # the record tells where the keys lie
            self._reads(record, op, "other", part)
        fits = (
            op.values.buffer == op.keys.buffer
            and op.values.count == op.keys.count
            and op.keys.above == op.values.above == 0
            and op.heads * op.size == op.query.count
            and op.keys.count % op.size == 0
            and op.heads % (op.keys.count // op.size) == 0
            and 0 < op.window <= self.places[op.keys.buffer].rows
        )
        if not fits:
            raise LayoutError(
                f"keys and values of {op.window} rows must lie in one buffer, in heads that the query's share evenly"
            )
        record["code"], record["heads"], record["key_heads"] = ATTEND, op.heads, op.keys.count // op.size
        record["size"], record["seen"], record["behind"] = op.size, op.window, op.values.first - op.keys.first
        if op.scaling is not None:
            record["factor"], record["shift"] = sharpness(op.size, op.scaling)

    def _affine(self, op: Affine, weights: int, biases: int) -> Array:
        sets, windows, length, columns = op.weight.shape
        if sets != op.phases[0] * op.phases[1]:
            raise LayoutError(f"{sets} sets of weights do not repeat after {op.phases} rows and columns")
        if columns != op.target.count or (op.init is not None and op.init.count != columns):
            raise LayoutError(f"an affine operation of {columns} columns writes {op.target.count}")
        record = self._writes(op.target)
        self._reads(record, op, "source", self._window(op))
        record["source"] -= op.reach.left * self.places[op.source].features
        if op.init is not None:
            self._reads(record, op, "other", op.init)
        record["code"], record["weights"], record["biases"] = AFFINE, weights, biases
        record["windows"], record["apart"] = windows, op.reach.dilation
        record["length"] = -(-length // (1 + self.weights.exact))
        record["rows"], record["columns"] = op.phases
        record["weight_set"], record["bias_set"] = self.weights.size(op)
        record["low"] = 0 if op.relu else NO_BOUND
        if op.scaling is not None:
            record["low"], record["high"] = max(op.scaling.low, 0) if op.relu else op.scaling.low, op.scaling.high
        return record

    def _window(self, op: Affine) -> Part:
        """All features of a buffer, after a check that windows over it stay inside."""
        buffer, place, reach = self.program.buffers[op.source], self.places[op.source], op.reach
        _, rows, length, _ = op.weight.shape
        fits = (
            rows == reach.rows
            and reach.above < place.rows
            and op.first + length <= (reach.left + 1 + reach.right) * place.features
            and (place.wide or not (reach.left or reach.right))
            and reach.left <= buffer.left
            and reach.right <= buffer.right
        )
        if not fits:
            raise LayoutError(f"a window of {rows} x {length} values, {reach}, reaches outside of {place}")
        return Part(op.source, op.first, place.features - op.first, above=reach.above)

    def _right(self, buffer: int) -> int:
        return self.program.buffers[buffer].right

    def _put(self, put: Put, index: int, channel: int) -> Array:
        group = self.program.buffers[put.target].group(channel)
        record = self._writes(Part(put.target, group.start, group.stop - group.start))
        record["weights"], features = self.weights.symbols[index][channel]
        if features != record["count"]:
            raise LayoutError(f"a symbol has {features} features, and {self.places[put.target].name} {int(record['count'])}")
        return record

    def _writes(self, target: Part) -> Array:
        """A record that writes to a part; whatever else it reads is the zeros at the start."""
        record = np.zeros((), OPERATION)
        record["count"], record["source_slots"], record["other_slots"] = target.count, 1, 1
        record["rows"], record["columns"] = 1, 1
        self._operand(record, "target", target)
        return record

    def _reads(self, record: Array, op: Operation, name: str, part: Part) -> None:
        before = part.above > 0 or part.left > 0 or (op.backwards and part.left < 0)
        window = isinstance(op, Affine) and name == "source" and (not op.reach.own_row or not op.reach.own_site)
        if part.buffer == op.target.buffer and not (before or window):
            raise LayoutError(f"an operation reads {self.places[part.buffer].name}, which it writes itself")
        self._operand(record, name, part)

    def _operand(self, record: Array, name: str, part: Part) -> None:
        place = self.places[part.buffer]
        if not 0 <= part.first <= part.first + part.count <= place.features:
            raise LayoutError(f"{part} lies outside of {place}")
        if part.above >= place.rows or (part.left and not place.wide) or not -self._right(part.buffer) <= part.left <= place.left:
            raise LayoutError(f"{part} lies before what {place} keeps")
        passed = self._passed(part.buffer)
        record[name] = self.at(part.buffer, column=-part.left, first=part.first)
        if name == "target":
            record[name] += passed * place.columns * place.features
        record[name + "_above"], record[name + "_shift"] = part.above - passed, place.scale.bit_length() - 1
        record[name + "_slots"], record[name + "_slot"] = place.rows, place.columns * place.features
        record[name + "_column"] = place.features if place.wide else 0


def scaled_gate(op: Point) -> bool:
    """Whether a gate of whole numbers has operands of other fractions than the table's."""
    bits = op.scaling
    return bits is not None and op.function == "gate" and (bits.source, bits.other) != (GATE_ARGUMENT, GATE_ARGUMENT)


def seldom(program: Program) -> tuple[bool, bool]:
    """Whether a Program has operations that are compiled apart: those of few networks, and those of networks of tokens.

    The Program keeps the answer.
    """
    key = "compiled apart"
    if key not in program.kept:
        points = [op for op in program.operations if isinstance(op, Point) and op.function != "gelu"]
        couples = any(isinstance(op, Couple) for op in program.operations)
        tokens = any(isinstance(op, TokenOperation) or getattr(op, "function", "") == "gelu" for op in program.operations)
        program.kept[key] = couples or any(op.function not in COMMON or scaled_gate(op) for op in points), tokens
    answer: tuple[bool, bool] = program.kept[key]
    return answer


def runs(program: Program) -> Array:
    """(m, 3) the operations of a row in parts, each from where, to where, and whether from right to left."""
    found, first = [], 0
    for backwards, group in groupby(op.backwards for op in program.rows):
        count = len(list(group))
        found.append((first, first + count, int(backwards)))
        first += count
    return np.array(found, np.int64).reshape(-1, 3)


def stack(records: Sequence[Array]) -> Array:
    """A table of records."""
    return np.array(records, OPERATION).reshape(len(records))
