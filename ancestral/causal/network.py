"""A network made of causal layers: one method says what it is, and forward, start and step follow."""

from __future__ import annotations

from abc import abstractmethod
from typing import Any, Protocol

import torch
from torch import Tensor, nn

from ancestral.causal.arithmetic import Floating
from ancestral.causal.layer import Clock, Graph
from ancestral.causal.lower import lower
from ancestral.causal.program import Program
from ancestral.causal.stepping import Buffers, Stepper, once_values
from ancestral.core import Context, Network, State, StateError


class Engine(Protocol):
    """What carries a Program out step by step: `Stepper`, or one of the engines in `walking`."""

    def start(self, n: int, once: dict[int, Tensor], like: Tensor) -> tuple[Tensor, Buffers]: ...

    def absorb(self, kept: Buffers, position: int, symbol: Tensor) -> None: ...

    def advance(self, kept: Buffers, position: int) -> Tensor: ...


class Walked(Network):
    """A `Network` whose steps an engine carries out."""

    @abstractmethod
    def engine(self, context: Context | None, rollback: int) -> tuple[Engine, dict[int, Tensor]]:
        """An engine for these parts of a context, and the values of all signals that are computed once a walk."""

    @torch.no_grad()
    def start(self, n: int, context: Context | None = None, rollback: int = 0) -> tuple[Tensor, State]:
        engine, once = self.engine(context, rollback)
        parameters, buffers = engine.start(n, once, like=self.anchor)
        return parameters, State(buffers, rollback, plan=engine)

    @torch.no_grad()
    def step(self, state: State, symbol: Tensor) -> tuple[Tensor, State]:
        if state.position + 1 >= len(self.order.sites):
            raise StateError("the last site has no next one: its symbol needs no step")
        buffers, position = state.consume(), state.position
        engine: Engine = state.plan
        engine.absorb(buffers, position, symbol)
        return engine.advance(buffers, position + 1), state.successor(buffers, position + 1)


class CausalNetwork(Walked):
    """A `Network` of causal layers over (C, H, W) symbols.

    A subclass gives ``body``; ``step`` then costs what one site costs, because every layer keeps what it would compute again.
    """

    def __init__(self, shape: tuple[int, ...], discrete: bool = True) -> None:
        super().__init__(shape, discrete)
        self._programs: dict[tuple[str, ...], tuple[tuple[object, ...], Program]] = {}

    @abstractmethod
    def body(self, x: Tensor, vector: Tensor | None, grid: Tensor | None) -> Tensor:
        """(n, C, H, W) symbols to (n, C k, H, W) parameters, those of a colour channel together.

        Written over layers alone, so that `Signal`s can take the place of tensors.
        """

    def forward(self, x: Tensor, context: Context | None = None) -> Tensor:
        context = context or Context()
        y = self.body(x, context.vector, context.grid)
        n, features, height, width = y.shape
        return y.reshape(n, self.shape[0], features // self.shape[0], height, width).movedim(2, -1)

    def lowered(self, context: Context | None = None) -> Program:
        """What this network does at every step when these parts of a context are given; kept until a weight changes."""
        names = tuple(name for name in ("vector", "grid") if context is not None and getattr(context, name) is not None)
        weights = fingerprint(self)
        kept = self._programs.get(names)
        if kept is None or kept[0] != weights:
            graph = Graph()
            symbols = graph.add(Clock.SITE, strict=True)
            signals = {name: graph.add(Clock.ONCE) for name in names}
            output: Any = self.body(symbols, signals.get("vector"), signals.get("grid"))  # type: ignore[arg-type]
            channels, height, width = self.shape
            self._programs[names] = weights, lower(signals, output, (channels, height, width))
        return self._programs[names][1]

    def receptive_field(self) -> set[tuple[int, int]]:
        """(rows, columns) from a pixel to every pixel that can influence its conditional; (0, 0) stands for its own colours."""
        program = self.lowered()
        return program.graph.receptive_field(program.result)

    def engine(self, context: Context | None, rollback: int) -> tuple[Engine, dict[int, Tensor]]:
        program = self.lowered(context)
        return Stepper(program, Floating(), rollback), once_values(program, context)


def fingerprint(module: nn.Module) -> tuple[object, ...]:
    """A value that changes when a weight does, however it was written: type, device and the sum of the bits of each."""
    whole = {2: torch.int16, 4: torch.int32, 8: torch.int64}
    return tuple((p.dtype, p.device, int(p.detach().view(whole[p.element_size()]).sum())) for p in module.parameters())
