"""A network made of causal layers: one method says what it is, and forward, start and step follow."""

from __future__ import annotations

import copy
import zlib
from abc import abstractmethod
from dataclasses import replace
from typing import Any, Protocol

import torch
from torch import Tensor, nn

from ancestral.causal.arithmetic import Floating
from ancestral.causal.extending import extendable, extended
from ancestral.causal.layer import Clock, Graph, Signal
from ancestral.causal.lower import lower
from ancestral.causal.program import Program
from ancestral.causal.stepping import Buffers, Stepper, once_values
from ancestral.core import Context, Network, OrderError, State, StateError
from ancestral.spec import SYMMETRIES, Order, Symmetry


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

    @torch.no_grad()
    def extend(self, state: State, symbols: Tensor) -> tuple[Tensor, State]:
        engine, position, end = state.plan, state.position, state.position + symbols.shape[1]
        if not isinstance(engine, Stepper) or not extendable(engine.program) or end >= len(self.order.sites):
            return super().extend(state, symbols)
        buffers = state.consume()
        return extended(engine, buffers, position, symbols), state.successor(buffers, end)


class CausalNetwork(Walked):
    """A `Network` of causal layers.

    A subclass gives ``body``; ``step`` then costs what one site costs, because every layer keeps what it would compute again.

    Args:
        shape: sizes of one example.
        discrete: whether symbols are integers.
        layout: (C, H, W) in which the layers see the symbols, in the order of the walk: row, column, channel. That of an image
            by default; (D, 1, 1) grades features by site, (1, D, 1) lays sites one below the other, (2, T / 2, 1) samples of
            two parts.
    """

    def __init__(self, shape: tuple[int, ...], discrete: bool = True, layout: tuple[int, int, int] | None = None) -> None:
        super().__init__(shape, discrete)
        if layout is None and len(shape) != 3:
            raise ValueError(f"a network over {tuple(shape)} must say in which layout (C, H, W) its layers see the symbols")
        self.layout: tuple[int, int, int] = layout or (shape[0], shape[1], shape[2])
        self.symmetry = Symmetry()
        self._programs: dict[tuple[str, ...], tuple[tuple[object, ...], Program]] = {}
        self._traced = set[tuple[str, ...]]()  # for which parts of a context the wiring of ``body`` was looked at

    @abstractmethod
    def body(self, x: Tensor, vector: Tensor | None, grid: Tensor | None) -> Tensor:
        """(n, C, H, W) symbols to (n, C k, H, W) parameters, those of a colour channel together.

        Written over layers alone, so that `Signal`s can take the place of tensors: they do at the first pass, so that no
        network trains whose sites see what they may not.
        """

    def forward(self, x: Tensor, context: Context | None = None) -> Tensor:
        self.check_wiring(context)
        context = self.turned(context) or Context()
        y = self.body(self.laid_out(x), context.vector, context.grid)
        channels, height, width = self.layout
        return self.restored(y.reshape(len(y), channels, y.shape[1] // channels, height, width).movedim(2, -1))

    def check_wiring(self, context: Context | None = None) -> None:
        """Look once, for these parts of a context, whether ``body`` is made of layers alone and no site sees what it may not.

        Not while it is compiled, nor while there are hooks, which want numbers.

        Raises:
            CausalityError: it is not, or one does.
        """
        names = _given(context)
        if names in self._traced or torch.compiler.is_compiling():
            return
        if not any(part._forward_hooks or part._forward_pre_hooks for part in self.modules()):
            self._trace(names)
            self._traced.add(names)

    # -- orders and sizes ------------------------------------------------------------------------------------------------

    def arrange(self, order: Order | str | None = None, shape: tuple[int, ...] | None = None) -> CausalNetwork:
        """The same network, its weights shared, for images of another size or settled in another order, or longer sequences.

        Args:
            order: one of the eight symmetries of the raster order, or its name; see `Order.turned`. Sequences have but one.
            shape: (C, H, W), or (T,) of sequences.

        Raises:
            OrderError: another order, or not an image of as many channels; order-agnostic networks take any order.
        """
        view = copy.copy(self)
        size = tuple(self.shape if shape is None else shape)
        if len(self.shape) == 1:
            return self._lengthened(view, size, order)
        if len(size) != 3 or size[0] != self.shape[0] or not all(isinstance(side, int) and side > 0 for side in size):
            raise OrderError(f"{type(self).__name__} takes images of {self.shape[0]} channels, (C, H, W), not {size}")
        symmetry = self.symmetry if order is None else symmetry_of(order, size)
        channels, height, width = size
        view.shape, view.symmetry, view.order = torch.Size(size), symmetry, Order.turned(size, symmetry)
        view.layout = (channels, width, height) if symmetry.transposed else (channels, height, width)
        view._programs = {}
        return view

    def _lengthened(self, view: CausalNetwork, size: tuple[int, ...], order: Order | str | None) -> CausalNetwork:
        """The view, for sequences of so many symbols."""
        kind, parts = type(self).__name__, self.layout[0]
        if len(size) != 1 or not isinstance(size[0], int) or size[0] < 1 or size[0] % parts:
            raise OrderError(f"{kind} takes sequences, (T,) of a multiple of {parts} symbols, not {size}")
        if order not in (None, "raster", Order.raster(size)):
            raise OrderError(f"{kind} settles sequences from the first symbol to the last; it takes no other order")
        view.shape, view.order, view.layout = torch.Size(size), Order.raster(size), (parts, size[0] // parts, 1)
        view._programs = {}
        return view

    @property
    def _as_given(self) -> bool:
        return self.layout == self.shape and self.symmetry == Symmetry()

    @property
    def _sequence(self) -> bool:
        """Whether symbols lie in memory as they are settled, one row of places after the other."""
        return len(self.shape) == 1 and self.layout[2] == 1 and self.order == Order.raster(tuple(self.shape))

    def laid_out(self, x: Tensor) -> Tensor:
        """(n, *shape) symbols as the layers see them, (n, C, H, W)."""
        if self._as_given:
            return x
        channels, height, width = self.layout
        if self._sequence:
            return x.view(len(x), height, channels, 1).transpose(1, 2)
        return x.flatten(1)[:, list(self.order.sites)].view(len(x), height, width, channels).permute(0, 3, 1, 2)

    def restored(self, y: Tensor) -> Tensor:
        """(n, C, H, W, ...) values of every site to (n, *shape, ...): the inverse of ``laid_out``."""
        if self._as_given:
            return y
        if self._sequence:
            return y[:, :, :, 0].transpose(1, 2).flatten(1, 2)
        ordered = y.movedim(1, 3).flatten(1, 3)
        places = torch.tensor(self.order.sites, device=y.device).argsort()
        return ordered[:, places].reshape(len(y), *self.shape, *y.shape[4:])

    reckons: bool = False  # whether ``turned`` does more with a grid than to move and repeat its values

    def turned(self, context: Context | None) -> Context | None:
        """The context as the layers see it: a grid is turned with the symbols."""
        if context is None or context.grid is None or self.symmetry == Symmetry():
            return context
        grid, axes = context.grid, [axis for axis, flip in ((2, self.symmetry.upward), (3, self.symmetry.leftward)) if flip]
        grid = grid.flip(axes)
        return replace(context, grid=grid.transpose(2, 3) if self.symmetry.transposed else grid)

    # -- walking ---------------------------------------------------------------------------------------------------------

    def lowered(self, context: Context | None = None) -> Program:
        """What this network does at every step when these parts of a context are given; kept until a weight changes."""
        names, weights = _given(context), fingerprint(self)
        kept = self._programs.get(names)
        if kept is None or kept[0] != weights:
            with torch.no_grad():
                self._programs[names] = weights, lower(*self._trace(names), self.layout)
        return self._programs[names][1]

    @torch.no_grad()
    def _trace(self, names: tuple[str, ...]) -> tuple[dict[str, Signal], Any]:
        """What ``body`` makes of signals in place of symbols and of these parts of a context: the latter, and the last signal.

        Raises:
            CausalityError: a site would see itself or a later one, or something else than a layer reads it.
        """
        graph = Graph()
        symbols = graph.add(Clock.SITE, strict=True)
        signals = {name: graph.add(Clock.ONCE) for name in names}
        output: Any = self.body(symbols, signals.get("vector"), signals.get("grid"))  # type: ignore[arg-type]
        return signals, output

    def receptive_field(self) -> set[tuple[int, int]]:
        """(rows, columns) from a pixel to every pixel that can influence its conditional; (0, 0) stands for its own colours.

        Windows are taken beyond the border. Where the field depends on the place, as with recurrences, coarse layers and
        attention to all that came before, it is that of the pixel in the middle of the last row, inside the image.
        """
        program = self.lowered()
        if not program.recurrent and program.coarsest == 1 and not program.boundless:
            return program.graph.receptive_field(program.result, (0, 0))
        _, height, width = self.layout
        row, column = height - 1, width // 2
        seen = program.graph.receptive_field(program.result, (row, column), (height, width))
        return {(r - row, w - column) for r, w in seen}

    def engine(self, context: Context | None, rollback: int) -> tuple[Engine, dict[int, Tensor]]:
        program = self.lowered(context)
        return Stepper(program, Floating(), rollback), once_values(program, self.turned(context))


def _given(context: Context | None) -> tuple[str, ...]:
    """Which parts of a context that layers read are there."""
    return tuple(name for name in ("vector", "grid") if context is not None and getattr(context, name) is not None)


def symmetry_of(order: Order | str, shape: tuple[int, ...]) -> Symmetry:
    """The symmetry that makes the raster order of an image this one.

    Raises:
        OrderError: none does.
    """
    for name, symmetry in SYMMETRIES.items():
        if order == name or order == Order.turned(shape, symmetry):
            return symmetry
    raise OrderError(
        "this network takes the eight symmetries of the raster order alone, "
        f"{', '.join(SYMMETRIES)}; order-agnostic ones (deep-nade, made with several orders) take every order"
    )


def fingerprint(module: nn.Module) -> tuple[object, ...]:
    """A value that changes when a weight does, however it was written, also when rows or columns change places."""
    return tuple((p.dtype, p.device, p.shape, *_digest(p.detach())) for p in module.parameters())


def _digest(p: Tensor) -> list[int]:
    if p.device.type == "cpu":
        return [zlib.crc32(p.contiguous().flatten().view(torch.uint8).numpy().data)]
    return [int(total) for total in _bits(p)]  # without bringing the weights here


def _bits(p: Tensor) -> list[Tensor]:
    """Sums of the bits of a tensor by row and by column, each row and column with an odd factor of its own."""
    bits = p.view({2: torch.int16, 4: torch.int32, 8: torch.int64}[p.element_size()])
    bits = bits.flatten(1) if bits.dim() > 1 else bits[None] if bits.dim() else bits[None, None]
    sums = bits.sum(0), bits.sum(1)
    return [(each * (2 * torch.arange(len(each), device=p.device) + 1)).sum() for each in sums]
