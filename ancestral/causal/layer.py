"""The contract of a causal layer, and the graph that a network of such layers draws of itself.

A network is written once, as ordinary code over layers. Called with tensors it computes every site at once. Called with
a `Signal` it records which layer read what. That graph is lowered to a Program (`lower`), which knows how often each layer
runs and how much of its input a walk must remember. Nothing but a layer may let one site see another, so causality is
checked while the graph is drawn.

Clocks, coarse to fine: ONCE a walk (context), once a ROW (what only depends on rows above), once a SITE.
Within a pixel, features carry the label of a colour channel: features labelled c may depend on channels up to c, and are
computed when channel c is about to be settled.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from enum import IntEnum
from typing import Any

import torch
from torch import Tensor, nn


class CausalityError(ValueError):
    """A network is wired so that a site would see itself or a later one."""


class Clock(IntEnum):
    """How often a value changes during a walk."""

    ONCE = 0
    ROW = 1
    SITE = 2


Labels = tuple[int, ...]


@dataclass(frozen=True)
class Reach:
    """The input a layer looks at, relative to its output: ``above`` rows, ``left`` and ``right`` columns.

    ``own_row`` and ``own_site`` tell whether the output's own row (of a row layer) or site (of a site layer) is included.
    """

    above: int = 0
    left: int = 0
    right: int = 0
    own_row: bool = True
    own_site: bool = True

    def offsets(self) -> set[tuple[int, int]]:
        """(rows, columns) from the output to every position it reads; (0, 0) is its own."""
        rows = range(-self.above, 1 if self.own_row else 0)
        cells = {(row, column) for row in rows for column in range(-self.left, self.right + 1)}
        return cells if self.own_site else cells - {(0, 0)}


@dataclass
class Signal:
    """A value in a graph: what a layer would give, known by its clock and its labels instead of its numbers.

    Attributes:
        clock: how often it changes.
        labels: the colour channel of every feature, for SITE signals.
        strict: it holds the symbols themselves, so a site may read it only at earlier sites.
    """

    graph: Graph
    index: int
    clock: Clock
    labels: Labels | None
    strict: bool = False

    def __add__(self, other: Signal) -> Signal:
        return self.graph.record(Sum(), (self, other))


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

    def add(self, clock: Clock, labels: Labels | None = None, strict: bool = False) -> Signal:
        """A new signal."""
        self.signals.append(Signal(self, len(self.signals), clock, labels, strict))
        return self.signals[-1]

    def record(self, layer: Layer, inputs: tuple[Signal, ...]) -> Signal:
        """Note that ``layer`` reads ``inputs``; the signal it makes."""
        clock, labels = layer.infer(inputs)
        output = self.add(clock, labels, strict=isinstance(layer, Input))
        self.nodes.append(Node(layer, inputs, output))
        return output

    def receptive_field(self, output: Signal) -> set[tuple[int, int]]:
        """(rows, columns) from a site to every earlier pixel that can influence ``output`` there; (0, 0) is its own pixel."""
        seen: dict[int, set[tuple[int, int]]] = {}
        for node in self.nodes:
            sources = [seen[signal.index] for signal in node.inputs if seen.get(signal.index)]
            moves = node.layer.reach.offsets()
            seen[node.output.index] = (
                {(0, 0)} if node.output.strict else {(r + dr, c + dc) for cells in sources for r, c in cells for dr, dc in moves}
            )
        return seen[output.index]


class Layer(nn.Module, ABC):
    """A causal primitive.

    ``forward`` computes all sites at once, (n, c, H, W) to (n, c', H, W). What one site or one row costs is said by the kind of
    layer: `Input`, `AffineLayer`, `Pointwise`, `Sum`, or a layer of the context, which runs once a walk.
    """

    reach: Reach = Reach()

    def __call__(self, *inputs: Any) -> Any:
        """Compute tensors, or record signals."""
        signals = tuple(value for value in inputs if isinstance(value, Signal))
        return signals[0].graph.record(self, signals) if signals else super().__call__(*inputs)

    @abstractmethod
    def infer(self, inputs: Sequence[Signal]) -> tuple[Clock, Labels | None]:
        """Clock and labels of the output; raises ``CausalityError`` where a site would see itself or a later one."""


class Input(Layer):
    """A layer that reads the symbols themselves: its output at a site is known once the site is settled."""

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
    """

    features: int

    @abstractmethod
    def weights(self, channel: int | None) -> tuple[Tensor, Tensor]:
        """The matrix (window rows, values of a window row, N) and the bias (N,) of the features of one colour channel.

        A window row lies flat, features innermost; one that ends early reads only the first values. None for all features,
        in the order of ``forward``.
        """


class Pointwise(Layer):
    """A function of every feature by itself, or of pairs of them: ``function(features, axis)``.

    Args:
        name: how a Program calls it.
        function: from (..., features, ...) to as many, or half as many, along the axis.
    """

    def __init__(self, name: str, function: Callable[[Tensor, int], Tensor]) -> None:
        super().__init__()
        self.name, self.function = name, function
        self.pairs = function(torch.zeros(1, 2), 1).shape[1] == 1

    def infer(self, inputs: Sequence[Signal]) -> tuple[Clock, Labels | None]:
        refuse_symbols(self, inputs)
        before = inputs[0].labels
        if before is None or not self.pairs:
            return inputs[0].clock, before
        return inputs[0].clock, before[: len(before) // 2]

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


def refuse_symbols(layer: Layer, inputs: Sequence[Signal]) -> None:
    """Raise ``CausalityError`` where a layer that reads its own site is handed the symbols themselves."""
    if any(signal.strict for signal in inputs):
        raise CausalityError(
            f"{type(layer).__name__} reads its own site, so it cannot read the symbols: put a strict window first"
        )
