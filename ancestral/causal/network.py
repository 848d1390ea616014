"""A network made of causal layers: one method says what it is, and forward, start and step follow."""

from __future__ import annotations

from abc import abstractmethod
from dataclasses import dataclass

import torch
from torch import Tensor

from ancestral.causal.layer import Clock, Graph, Signal
from ancestral.causal.stepping import Stepper
from ancestral.core import Context, Network, State, StateError


@dataclass(frozen=True)
class Drawing:
    """A recorded graph with the signals that enter and leave it."""

    graph: Graph
    context: dict[str, Signal]
    output: Signal


class CausalNetwork(Network):
    """A `Network` of causal layers over (C, H, W) symbols.

    A subclass gives ``body``; ``step`` then costs what one site costs, because every layer keeps what it would compute again.
    """

    @abstractmethod
    def body(self, x: Tensor, vector: Tensor | None, grid: Tensor | None) -> Tensor:
        """(n, C, H, W) symbols to (n, C k, H, W) parameters, those of a colour channel together.

        Written over layers alone, so that `Signal`s can take the place of tensors.
        """

    def forward(self, x: Tensor, context: Context | None = None) -> Tensor:
        context = context or Context()
        y = self.body(x, context.vector, context.grid)
        n, _, height, width = y.shape
        return y.reshape(n, self.shape[0], -1, height, width).movedim(2, -1)

    def draw(self, context: Context | None = None) -> Drawing:
        """The graph of this network when these parts of a context are given."""
        graph = Graph()
        symbols = graph.add(Clock.SITE, strict=True)
        parts = {"vector": context and context.vector, "grid": context and context.grid}
        signals = {name: graph.add(Clock.ONCE) for name, value in parts.items() if value is not None}
        output = self.body(symbols, signals.get("vector"), signals.get("grid"))  # type: ignore[arg-type]
        return Drawing(graph, signals, output)  # type: ignore[arg-type]

    def receptive_field(self) -> set[tuple[int, int]]:
        """(rows, columns) from a pixel to every pixel that can influence its conditional; (0, 0) stands for its own colours."""
        drawing = self.draw()
        return drawing.graph.receptive_field(drawing.output)

    @torch.no_grad()
    def start(self, n: int, context: Context | None = None, rollback: int = 0) -> tuple[Tensor, State]:
        drawing = self.draw(context)
        channels, height, width = self.shape
        stepper = Stepper(drawing.graph, drawing.output, (channels, height, width), rollback)
        given = {signal.index: getattr(context, name) for name, signal in drawing.context.items()}
        parameters, buffers = stepper.start(n, given, like=self.anchor)
        return parameters, State(buffers, rollback, plan=stepper)

    @torch.no_grad()
    def step(self, state: State, symbol: Tensor) -> tuple[Tensor, State]:
        if state.position + 1 >= len(self.order.sites):
            raise StateError("the last site has no next one: its symbol needs no step")
        buffers, position = state.consume(), state.position
        stepper: Stepper = state.plan
        stepper.absorb(buffers, position, symbol)
        return stepper.advance(buffers, position + 1), state.successor(buffers, position + 1)
