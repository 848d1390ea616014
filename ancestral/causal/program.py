"""A network turned into a Program: flat operations on named buffers, from which every engine takes one and the same walk.

An operation is one record with two meanings: *stepwise* it computes one site (or one row) from what the buffers keep, *in
parallel* it computes every site at once. Its clock says how often a walk runs it; a SITE operation belongs to one colour channel.

A buffer holds features by row and column. Features of SITE buffers, and of those read site by site, are sorted by colour
channel, so that what a step reads and writes lies side by side; ``ends[c]`` is where channel c's features end.

Coarse buffers have one place for a square of ``scale`` x ``scale`` pixels, and an operation that writes one runs at the square's
first row and, where its clock is SITE, first column. An operation reads every buffer at the place that holds its own pixel.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

from torch import Tensor

from ancestral.causal.layer import Clock, Graph, Input, Reach, Signal
from ancestral.causal.tokens import Attend, Normalise, Rotate, TokenOperation


@dataclass
class Buffer:
    """Where a value is kept during a walk.

    Attributes:
        name: how listings call it.
        clock: how often it is written; ONCE for the context.
        features: values at one site.
        ends: where the features of each colour channel end, once sorted by channel.
        rows: how many rows are remembered; row r lies in slot r mod rows.
        left, right: zero columns beside each row, for windows that reach over the border.
        wide: whether a step keeps all columns of a row, or its own site alone.
        scale: the side of one of its places, in pixels.
        carried: whether later colour channels of a site read what earlier ones wrote.
        fraction: in exact numerics, how many bits of its integers stand behind the point.
    """

    name: str
    clock: Clock
    features: int
    ends: tuple[int, ...]
    rows: int = 1
    left: int = 0
    right: int = 0
    wide: bool = False
    scale: int = 1
    carried: bool = False
    fraction: int = 0

    def group(self, channel: int) -> slice:
        """The features of one colour channel."""
        return slice(self.ends[channel - 1] if channel else 0, self.ends[channel])


@dataclass(frozen=True)
class Part:
    """Features ``first .. first + count - 1`` of a buffer, ``above`` rows and ``left`` columns before the place of the operation.

    What lies before the place may be what the same operation gave there: so recurrences are written.
    """

    buffer: int
    first: int
    count: int
    above: int = 0
    left: int = 0


@dataclass(frozen=True)
class Scaling:
    """How integers are brought to the next buffer's scale: clamp(floor(sum / 2^out + 1/2)), the sum starting from init 2^init.

    Attributes:
        init, out: (sets, N) shifts, to the left and to the right.
        low, high: the clamp.
    """

    init: Tensor
    out: Tensor
    low: int
    high: int


@dataclass(frozen=True, eq=False)
class Affine:
    """target = init + bias + sum over window rows of source window @ weight, relu where asked.

    Attributes:
        source: the buffer it reads; ``reach`` names the window, of which each row's first ``weight.shape[2]`` values count.
        init: what the sum starts from.
        weight: (sets, window rows, values of a window row, N).
        bias: (sets, N).
        scaling: in exact numerics, where weight and bias are whole numbers.
        first: how many features of the place are passed over, where the window is that place alone.
        phases: after how many rows and columns of the target the sets of weights repeat; at (r, w) it is the set
            (r mod phases[0]) phases[1] + w mod phases[1].
        backwards: of a ROW operation, that the columns of the row are done one by one from right to left, together with those
            of the operations next to it that are done so.
    """

    clock: Clock
    channel: int
    target: Part
    source: int
    reach: Reach
    init: Part | None
    weight: Tensor
    bias: Tensor
    relu: bool
    scaling: Scaling | None = None
    phases: tuple[int, int] = (1, 1)
    backwards: bool = False
    first: int = 0

    @property
    def multiply_adds(self) -> int:
        """Products at one place."""
        return self.weight[0].numel()


@dataclass(frozen=True)
class Rounding:
    """How a function of whole numbers reads and writes them.

    Attributes:
        source, other, target: fraction bits of its operands and of its result.
        limit: the largest magnitude of the result.
    """

    source: int
    other: int
    target: int
    limit: int


@dataclass(frozen=True, eq=False)
class Point:
    """target = function(source), feature by feature; or function(source, other), pair by pair.

    ``scaling`` is that of exact numerics.
    """

    clock: Clock
    channel: int
    target: Part
    source: Part
    function: str
    other: Part | None = None
    backwards: bool = False
    scaling: Rounding | None = None


@dataclass(frozen=True, eq=False)
class Add:
    """target = a + b, relu where asked."""

    clock: Clock
    channel: int
    target: Part
    a: Part
    b: Part
    relu: bool
    backwards: bool = False


@dataclass(frozen=True, eq=False)
class Couple:
    """What a colour channel takes from the mixtures of a whole pixel, given the channels before; see `ChannelMixture`.

    Attributes:
        source: all of the pixel's numbers.
        symbols: the symbols' own values, one feature a channel.
        components: K.
        levels: the alphabet.
        scaling: in exact numerics, of which the fraction of the symbols' values, ``other``, is read.
    """

    clock: Clock
    channel: int
    target: Part
    source: Part
    symbols: Part
    components: int
    levels: int
    backwards: bool = False
    scaling: Rounding | None = None


Operation = Affine | Point | Add | Couple | TokenOperation


@dataclass(frozen=True, eq=False)
class Put:
    """The symbols' own features, written as soon as a symbol is settled.

    Attributes:
        layer: computes them.
        table: in exact numerics, for every channel (levels, features) their whole numbers.
    """

    layer: Input
    target: int
    table: tuple[Tensor, ...] | None = None


@dataclass(frozen=True, eq=False)
class Fill:
    """A buffer filled once a walk: the sum of signals that the context gives, their features reordered where ``order`` says."""

    signals: tuple[Signal, ...]
    target: int
    order: Tensor | None


@dataclass(frozen=True, eq=False)
class Program:
    """What a network does at every step, flat.

    Attributes:
        shape: (C, H, W).
        graph, result: what was recorded, and the parameters in it; ONCE nodes run as they are, before the walk.
        context: the signals that a caller's context enters by, by name.
        puts, fills, operations: in an order in which they can run.
        output: the buffer of the parameters, those of a colour channel together.
        recurrent: whether what one site computes is read by the same operations at later ones, so that no two sites can be
            computed at once.
        exact: whether it computes with whole numbers.
        kept: what engines prepared once for all walks, by whatever they call it.
    """

    shape: tuple[int, int, int]
    graph: Graph
    result: Signal
    context: dict[str, Signal]
    buffers: tuple[Buffer, ...]
    puts: tuple[Put, ...]
    fills: tuple[Fill, ...]
    operations: tuple[Operation, ...]
    output: int
    recurrent: bool = False
    exact: bool = False
    rows: tuple[Operation, ...] = field(init=False)
    sites: tuple[tuple[Operation, ...], ...] = field(init=False)
    kept: dict[Any, Any] = field(init=False, default_factory=dict, repr=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "rows", tuple(op for op in self.operations if op.clock is Clock.ROW))
        by_channel: list[list[Operation]] = [[] for _ in range(self.shape[0])]
        for op in self.operations:
            if op.clock is Clock.SITE:
                by_channel[op.channel].append(op)
        object.__setattr__(self, "sites", tuple(map(tuple, by_channel)))

    @cached_property
    def coarsest(self) -> int:
        """The side of the largest places, in pixels."""
        return max(buffer.scale for buffer in self.buffers)

    @property
    def boundless(self) -> bool:
        """Whether something reads all rows before its own."""
        return any(isinstance(op, Attend) and op.window >= self.shape[1] for op in self.operations)

    @cached_property
    def columns(self) -> int:
        """The image's width, filled up to whole places of all buffers."""
        return -(-self.shape[2] // self.coarsest) * self.coarsest

    def sides(self, buffer: int) -> tuple[int, int]:
        """Rows and columns of a buffer's places in an image."""
        scale = self.buffers[buffer].scale
        return -(-self.shape[1] // scale), self.columns // scale

    def scale(self, op: Operation) -> int:
        """The side of the places at which an operation runs, in pixels."""
        return self.buffers[op.target.buffer].scale

    @cached_property
    def multiply_adds(self) -> int:
        """Products that one pixel costs on average, all of its colour channels together."""
        maps = (op for op in self.operations if isinstance(op, Affine))
        attention = (op for op in self.operations if isinstance(op, Attend))
        total = sum(op.multiply_adds / self.scale(op) ** 2 for op in maps)
        return round(total + sum(op.multiply_adds(self.shape[1]) for op in attention))

    @property
    def weights(self) -> int:
        """Weights and biases that one pixel reads on average."""
        maps = (op for op in self.operations if isinstance(op, Affine))
        return round(sum((op.weight[0].numel() + op.bias[0].numel()) / self.scale(op) ** 2 for op in maps))

    @property
    def state(self) -> int:
        """Values that one example's walk remembers, context apart."""
        kept = [buffer for buffer in self.buffers if buffer.clock is not Clock.ONCE]
        return sum(b.rows * (b.left + self.columns // b.scale + b.right if b.wide else 1) * b.features for b in kept)

    def __str__(self) -> str:
        return "\n".join(listing(self))


def listing(program: Program) -> Iterator[str]:
    """The lines of a Program: clock, colour channel, what is computed, and its products."""
    names = [buffer.name for buffer in program.buffers]
    for fill in program.fills:
        yield f"once        {names[fill.target]} = context, {program.buffers[fill.target].features} features"
    for put in program.puts:
        yield f"symbol      {names[put.target]} = {type(put.layer).__name__.lower()}(symbol)"
    for op in program.operations:
        when = "row " if op.clock is Clock.ROW else f"site {op.channel}" if program.shape[0] > 1 else "site"
        when += f" /{program.scale(op)}" * (program.scale(op) > 1) + " <-" * op.backwards
        yield f"{when:<11} {names[op.target.buffer]}{_range(program, op.target)} = {_formula(program, op)}"
    channels, _, width = program.shape  # sequences and vectors have one column
    place = "a pixel" if width > 1 else "a symbol" if channels == 1 else f"for {channels} symbols"
    yield f"{program.multiply_adds:,} multiply-adds {place}, {program.weights:,} weights, a state of {program.state:,} values"


def _range(program: Program, part: Part) -> str:
    whole = part.count == program.buffers[part.buffer].features
    before = f" at row -{part.above}" * (part.above > 0) + f" at column {-part.left:+}" * (part.left != 0)
    return ("" if whole else f"[{part.first}:{part.first + part.count}]") + before


def _formula(program: Program, op: Operation) -> str:
    def name(part: Part) -> str:
        return program.buffers[part.buffer].name + _range(program, part)

    if isinstance(op, Point):
        return f"{op.function}({name(op.source)}{f', {name(op.other)}' if op.other else ''})"
    if isinstance(op, Couple):
        return f"mixture of {op.components} over {op.levels} levels in {name(op.source)} given {name(op.symbols)}"
    if isinstance(op, Normalise):
        return f"{name(op.source)} normalised" + " around its mean" * op.centred
    if isinstance(op, Rotate):
        return f"{name(op.source)} turned by {name(op.angles)}" + f", the first {op.turned}" * (op.turned < op.source.count)
    if isinstance(op, Attend):
        return f"attention of {name(op.query)}, {op.heads} heads, to {op.window} rows of {name(op.keys)} and {name(op.values)}"
    if isinstance(op, Add):
        text = f"{name(op.a)} + {name(op.b)}"
    else:
        sets, rows, length, features = op.weight.shape
        source = program.buffers[op.source].name + (f"[{op.first}:{op.first + length}]" if op.first else "")
        text = f"affine {rows} x {length} -> {features} of {source}{_window(op.reach)}"
        text += f", one of {sets} sets of weights" if sets > 1 else ""
        text += f" + {name(op.init)}" if op.init else ""
    return f"relu({text})" if op.relu else text


def _window(reach: Reach) -> str:
    if reach == Reach():
        return ""
    rows = f"rows -{reach.above}..{0 if reach.own_row else -1}" if reach.above else ""
    rows += f" by {reach.dilation}" if reach.dilation > 1 else ""
    columns = f"columns {-reach.left}..{reach.right if reach.own_site else -1}" if reach.left or reach.right else ""
    return f" at {', '.join(filter(None, (rows, columns)))}" if rows or columns else ""
