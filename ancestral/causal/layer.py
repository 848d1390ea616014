"""The contract of a causal layer, and the graph that a network of such layers draws of itself.

A network is written once, as ordinary code over layers. Called with tensors it computes every site at once. Called with
a `Signal` it records which layer read what. That graph is lowered to a Program (`lower`), which knows how often each layer
runs and how much of its input a walk must remember. Nothing but a layer may let one site see another, so causality is
checked while the graph is drawn.

Clocks, coarse to fine: ONCE a walk (context), once a ROW (what only depends on rows above), once a SITE.
Within a pixel, features carry the label of a colour channel: features labelled c may depend on channels up to c, and are
computed when channel c is about to be settled.

A signal may be coarse, one place for a square of pixels: computed when the square's first pixel is about to be settled, from
what is known by then, it serves all of the square.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from enum import IntEnum
from functools import cache
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

if TYPE_CHECKING:
    from ancestral.causal.lower import Lowering


class CausalityError(ValueError):
    """A network is wired so that a site would see itself or a later one."""


class Clock(IntEnum):
    """How often a value changes during a walk."""

    ONCE = 0
    ROW = 1
    SITE = 2


Labels = tuple[int, ...]
Place = tuple[int, int]  # row and column


@dataclass(frozen=True)
class Reach:
    """The input a layer looks at, relative to its output: ``above`` rows, ``left`` and ``right`` columns.

    ``own_row`` and ``own_site`` tell whether the output's own row (of a row layer) or site (of a site layer) is included.
    ``dilation`` is how far apart the rows lie that are looked at, of which ``above`` is the farthest.

    Raises:
        ValueError: the farthest row is not a whole number of dilations above.

    Example:
        >>> sorted(Reach(above=4, dilation=2).offsets())
        [(-4, 0), (-2, 0), (0, 0)]
    """

    above: int = 0
    left: int = 0
    right: int = 0
    own_row: bool = True
    own_site: bool = True
    dilation: int = 1

    def __post_init__(self) -> None:
        if self.dilation < 1 or self.above % self.dilation:
            raise ValueError(f"a window of rows {self.dilation} apart cannot begin {self.above} rows above")

    @property
    def rows(self) -> int:
        """How many rows it looks at."""
        return self.above // self.dilation + self.own_row

    def offsets(self) -> frozenset[Place]:
        """(rows, columns) from the output to every position it reads; (0, 0) is its own."""
        return _offsets(self)


@cache
def _offsets(reach: Reach) -> frozenset[Place]:
    rows = range(-reach.above, 1 if reach.own_row else 0, reach.dilation)
    cells = {(row, column) for row in rows for column in range(-reach.left, reach.right + 1)}
    return frozenset(cells if reach.own_site else cells - {(0, 0)})


@dataclass
class Signal:
    """A value in a graph: what a layer would give, known by its clock and its labels instead of its numbers.

    Attributes:
        clock: how often it changes.
        labels: the colour channel of every feature, for SITE signals.
        scale: the side of one of its places, in pixels.
        strict: it holds the symbols themselves, so a site may read it only at earlier sites.
    """

    graph: Graph
    index: int
    clock: Clock
    labels: Labels | None
    scale: int = 1
    strict: bool = False

    def __add__(self, other: Signal) -> Signal:
        if not isinstance(other, Signal):
            raise _no_layer("+ with something else than what a layer gives")
        return self.graph.record(Sum(), (self, other))

    def _refused(self, *_: Any) -> Any:
        raise _no_layer("an operator")

    __radd__ = __sub__ = __rsub__ = __mul__ = __rmul__ = __truediv__ = __rtruediv__ = __neg__ = __pow__ = __getitem__ = _refused

    @classmethod
    def __torch_function__(cls, function: Any, *_: Any) -> Any:
        raise _no_layer(getattr(function, "__name__", str(function)))

    def __getattr__(self, name: str) -> Any:
        if not name.startswith("_") and hasattr(Tensor, name):
            raise _no_layer(f".{name}")
        raise AttributeError(name)


def _no_layer(what: str) -> CausalityError:
    return CausalityError(
        f"body applies {what}: only layers of ancestral.causal may read what comes of symbols, as they know which site sees which"
    )


@dataclass(frozen=True)
class Node:
    """One layer at work: which signals it reads and which it makes."""

    layer: Layer
    inputs: tuple[Signal, ...]
    output: Signal


@dataclass
class Graph:
    """What a network recorded: its signals, and its nodes in an order in which they can run."""

    signals: list[Signal] = field(default_factory=list)
    nodes: list[Node] = field(default_factory=list)

    def add(self, clock: Clock, labels: Labels | None = None, scale: int = 1, strict: bool = False) -> Signal:
        """A new signal."""
        self.signals.append(Signal(self, len(self.signals), clock, labels, scale, strict))
        return self.signals[-1]

    def record(self, layer: Layer, inputs: tuple[Signal, ...]) -> Signal:
        """Note that ``layer`` reads ``inputs``; the signal it makes."""
        clock, labels = layer.infer(inputs)
        scales = {signal.scale for signal in inputs if signal.clock is not Clock.ONCE or signal.scale > 1}
        if len(scales) > 1:
            raise CausalityError(f"{type(layer).__name__} reads signals of different scales, {sorted(scales)}")
        scale = max(scales, default=1) * layer.shrink
        if scale % layer.grow:
            raise CausalityError(f"{type(layer).__name__} makes places of {scale} pixels {layer.grow} times smaller")
        output = self.add(clock, labels, scale // layer.grow, strict=isinstance(layer, Input))
        self.nodes.append(Node(layer, inputs, output))
        return output

    def close(self, layer: Layer, inputs: tuple[Signal, ...], output: Signal) -> Signal:
        """Note that ``layer`` makes a signal that was added before, and that its inputs may depend on: a recurrence."""
        self.nodes.append(Node(layer, inputs, output))
        return output

    def receptive_field(self, output: Signal, site: Place, shape: tuple[int, int] | None = None) -> set[Place]:
        """(row, column) of every pixel whose symbols can influence ``output`` at a site; its own for earlier colours of it.

        ``shape``, rows and columns of the image, bounds what recurrences reach; without it windows reach beyond the border.
        """
        wanted: dict[int, set[Place]] = {output.index: {site}}
        done: dict[int, set[Place]] = {}
        before = -1
        while before != (before := sum(map(len, wanted.values()))):  # a recurrence wants more of what was gone through already
            for i, node in reversed(list(enumerate(self.nodes))):
                places = wanted.get(node.output.index, set()) - done.get(i, set())
                done[i] = done.get(i, set()) | places
                more = node.layer.reads_at(places)
                for signal in node.inputs:
                    if signal.clock is not Clock.ONCE and not node.output.strict:
                        wanted.setdefault(signal.index, set()).update(
                            more if shape is None else inside(more, shape, signal.scale)
                        )
        return set().union(*(wanted.get(node.output.index, set()) for node in self.nodes if node.output.strict))


def inside(places: set[Place], shape: tuple[int, int], scale: int) -> set[Place]:
    """Those places of so many pixels that an image of rows and columns has."""
    return {(r, w) for r, w in places if 0 <= r < -(-shape[0] // scale) and 0 <= w < -(-shape[1] // scale)}


class Layer(nn.Module, ABC):
    """A causal primitive.

    ``forward`` computes all sites at once, (n, c, H, W) to (n, c', H, W). What one site or one row costs is said by the kind of
    layer: `Input`, `AffineLayer`, `Pointwise`, `Sum`, `Composite`, or a layer of the context, which runs once a walk.
    """

    reach: Reach = Reach()
    shrink: int = 1  # how many times larger its output's places are than its input's, each way
    grow: int = 1  # how many times smaller

    def __call__(self, *inputs: Any) -> Any:
        """Compute tensors, or record signals."""
        signals = tuple(value for value in inputs if isinstance(value, Signal))
        return signals[0].graph.record(self, signals) if signals else super().__call__(*inputs)

    @abstractmethod
    def infer(self, inputs: Sequence[Signal]) -> tuple[Clock, Labels | None]:
        """Clock and labels of the output; raises ``CausalityError`` where a site would see itself or a later one."""

    def reads(self, place: Place) -> set[Place]:
        """The places of its input that its output at a place depends on directly."""
        row, column = place[0] * self.shrink // self.grow, place[1] * self.shrink // self.grow
        return {(row + dr, column + dc) for dr, dc in self.reach.offsets()}

    def reads_at(self, places: set[Place]) -> set[Place]:
        """The same for several places together."""
        return set().union(*(self.reads(place) for place in places))


class Input(Layer):
    """A layer that reads the symbols themselves: its output at a site is known once the site is settled.

    Attributes:
        fills: whether it fills images up to whole coarse places, with zeros, as a walk leaves them.
    """

    fills: bool = False

    def __init__(self, channels: int, features: int) -> None:
        super().__init__()
        self.labels: Labels = tuple(c for c in range(channels) for _ in range(features))

    def infer(self, inputs: Sequence[Signal]) -> tuple[Clock, Labels | None]:
        return Clock.SITE, self.labels

    @abstractmethod
    def absorb(self, symbol: Tensor, channel: int) -> Tensor:
        """(n,) symbols of one channel to their (n, features)."""


class AffineLayer(Layer):
    """A layer whose output at a site is a matrix times the window that ``reach`` names, and a bias.

    Attributes:
        features: how many it gives at one site.
        phases, backwards: see `program.Affine`.
    """

    features: int
    phases: tuple[int, int] = (1, 1)
    backwards: bool = False

    @abstractmethod
    def weights(self, channel: int | None) -> tuple[Tensor, Tensor]:
        """The matrix (sets, window rows, values of a window row, N) and bias (sets, N) of the features of one colour channel.

        A window row lies flat, features innermost; one that ends early reads only the first values. None for all features,
        in the order of ``forward``. Which set is used where is said by ``phases``; see `program.Affine`.
        """


class Pointwise(Layer):
    """A function of every feature by itself, or of pairs of them: ``function(features, axis)``.

    Args:
        name: how a Program calls it.
        function: from (..., features, ...) to as many, half or twice as many along the axis. Halves are pairs of a feature of
            the first half and one of the second; doubles are one function of all features, then another.
    """

    def __init__(self, name: str, function: Callable[[Tensor, int], Tensor]) -> None:
        super().__init__()
        self.name, self.function = name, function
        given = function(torch.zeros(1, 2), 1).shape[1]
        self.pairs, self.doubles = given == 1, given == 4

    def infer(self, inputs: Sequence[Signal]) -> tuple[Clock, Labels | None]:
        refuse_symbols(self, inputs)
        before = inputs[0].labels
        if before is None:
            return inputs[0].clock, before
        labels = before[: len(before) // 2] if self.pairs else before * (1 + self.doubles)
        return inputs[0].clock, labels

    def forward(self, x: Tensor) -> Tensor:
        return self.function(x, 1)


class Sum(Layer):
    """a + b, each at the coarsest clock it has."""

    def infer(self, inputs: Sequence[Signal]) -> tuple[Clock, Labels | None]:
        refuse_symbols(self, inputs)
        graded = [signal.labels for signal in inputs if signal.clock is Clock.SITE]
        if graded and any(labels != graded[0] for labels in graded):
            raise CausalityError("a sum of features whose colour channels differ")
        return max(signal.clock for signal in inputs), graded[0] if graded else None

    def forward(self, *inputs: Tensor) -> Tensor:
        return inputs[0] + inputs[1]


class Composite(Layer):
    """A layer that a Program has no single operation for: it says itself what it is made of, as a recurrence does."""

    @abstractmethod
    def emit(self, lowering: Lowering, inputs: Sequence[Signal], output: Signal) -> int:
        """Put its operations into a Program in the making; the buffer that holds its output."""


def refuse_symbols(layer: Layer, inputs: Sequence[Signal]) -> None:
    """Raise ``CausalityError`` where a layer that reads its own site is handed the symbols themselves."""
    if any(signal.strict for signal in inputs):
        raise CausalityError(
            f"{type(layer).__name__} reads its own site, so it cannot read the symbols: put a strict window first"
        )
