"""The walk that is always there: a Program carried out step by step in PyTorch.

A state is one tensor a buffer, (n, rows, columns, features). Everything in it is addressed by position, so going back k
symbols needs nothing but k symbols' worth of extra rows.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from ancestral.causal.arithmetic import Arithmetic
from ancestral.causal.layer import Clock
from ancestral.causal.program import Add, Affine, Buffer, Fill, Operation, Part, Point, Program
from ancestral.core import Context

Buffers = dict[str, Tensor]
Work = Callable[[Buffers, int, int], None]  # to be done at a row and a column


@dataclass(frozen=True)
class Place:
    """How a buffer lies in memory during one walk; ``wide`` tells whether columns are told apart."""

    name: str
    rows: int
    columns: int
    features: int
    left: int
    wide: bool

    @property
    def size(self) -> int:
        """Values of one example."""
        return self.rows * self.columns * self.features

    def offset(self, row: int, column: int, first: int = 0) -> int:
        """Where a feature of a site lies in the values of an example."""
        return (row % self.rows * self.columns + (self.left + column if self.wide else 0)) * self.features + first


class Stepper:
    """A Program made ready to walk over the sites of (C, H, W) examples.

    Args:
        program: what the network was lowered to.
        arithmetic: how its operations are carried out.
        rollback: how many symbols a state may have to go back.
    """

    def __init__(self, program: Program, arithmetic: Arithmetic, rollback: int = 0) -> None:
        self.program, self.arithmetic = program, arithmetic
        self.channels, _, self.width = program.shape
        extra = -(-rollback // (self.channels * self.width))
        self.places = [self._place(buffer, extra, rollback > 0) for buffer in program.buffers]
        self.size = program.buffers[program.output].group(0).stop

    def _place(self, buffer: Buffer, extra: int, back: bool) -> Place:
        wide = buffer.wide or (buffer.carried and back)
        columns = buffer.left + self.width + buffer.right if wide else 1
        return Place(buffer.name, buffer.rows + extra, columns, buffer.features, buffer.left, wide)

    # -- walking ---------------------------------------------------------------------------------------------------------

    def start(self, n: int, once: dict[int, Tensor], like: Tensor) -> tuple[Tensor, Buffers]:
        """Parameters (n, k) of the first site, and the buffers of n rows that have seen nothing.

        ``once`` holds the tensors of the context's signals; ``like`` tells device and type.
        """
        kept = {
            place.name: like.new_zeros(n, place.rows, place.columns, place.features)
            for place, buffer in zip(self.places, self.program.buffers, strict=True)
            if buffer.clock is not Clock.ONCE
        }
        for fill in self.program.fills:
            value = filled(fill, once).permute(0, 2, 3, 1).contiguous()
            rows, columns, features = value.shape[1:]
            place = self.places[fill.target]
            self.places[fill.target] = Place(place.name, rows, columns, features, 0, columns > 1)
            kept[place.name] = value
        self.row_work = [self._work(op) for op in self.program.rows]
        self.site_work = [[self._work(op) for op in ops] for ops in self.program.sites]
        return self.advance(kept, 0), kept

    def absorb(self, kept: Buffers, position: int, symbol: Tensor) -> None:
        """Write (n,) symbols of the site at ``position`` where operations will look for them."""
        (r, w), c = divmod(position // self.channels, self.width), position % self.channels
        for put in self.program.puts:
            group = self.program.buffers[put.target].group(c)
            target = Part(put.target, group.start, group.stop - group.start)
            self._at(kept, target, r, w).copy_(self.arithmetic.put(put, symbol, c))

    def advance(self, kept: Buffers, position: int) -> Tensor:
        """Compute whatever the site at ``position`` is the first to need; its parameters (n, k)."""
        (r, w), c = divmod(position // self.channels, self.width), position % self.channels
        if w == 0 and c == 0:
            for work in self.row_work:
                work(kept, r, 0)
        for work in self.site_work[c]:
            work(kept, r, w)
        return self._at(kept, Part(self.program.output, c * self.size, self.size), r, w).clone()

    def _at(self, kept: Buffers, part: Part, r: int, w: int) -> Tensor:
        """(n, features) of a part at a site: a view."""
        place = self.places[part.buffer]
        buffer = kept[place.name]
        return buffer.as_strided((buffer.shape[0], part.count), (place.size, 1), place.offset(r, w, part.first))

    def _along(self, kept: Buffers, part: Part, r: int, w: int) -> Tensor:
        """(n, W, features) of a part along a row: a view."""
        place = self.places[part.buffer]
        buffer = kept[place.name]
        strides = (place.size, place.features if place.wide else 0, 1)
        return buffer.as_strided((buffer.shape[0], self.width, part.count), strides, place.offset(r, 0, part.first))

    # -- operations made ready -------------------------------------------------------------------------------------------

    def _work(self, op: Operation) -> Work:
        """An operation at a site, or along a row, as its clock says."""
        along, arithmetic = op.clock is Clock.ROW, self.arithmetic
        view = self._along if along else self._at
        if isinstance(op, Point):
            return lambda kept, r, w: arithmetic.point(op, view(kept, op.source, r, w), view(kept, op.target, r, w))
        if isinstance(op, Add):
            return lambda kept, r, w: arithmetic.add(
                op, view(kept, op.a, r, w), view(kept, op.b, r, w), view(kept, op.target, r, w)
            )
        window, ready = self._windows if along else self._window, arithmetic.ready(op)

        def affine(kept: Buffers, r: int, w: int) -> None:
            init = None if op.init is None else view(kept, op.init, r, w)
            ready(window(kept, op, r, w), init, view(kept, op.target, r, w))

        return affine

    def _window(self, kept: Buffers, op: Affine, r: int, w: int) -> Tensor:
        """(n, values) of the window of a site: a view."""
        return self._at(kept, Part(op.source, 0, op.weight.shape[1]), r, w - op.reach.left)

    def _windows(self, kept: Buffers, op: Affine, r: int, w: int) -> Tensor:
        """(n, W, values) of the windows of a row, their rows one after the other."""
        rows = range(r - op.reach.above, r + op.reach.own_row)
        windows = [self._starting(kept, op, row) for row in rows]
        return windows[0] if len(windows) == 1 else torch.cat(windows, -1)

    def _starting(self, kept: Buffers, op: Affine, r: int) -> Tensor:
        """(n, W, values) of every window that starts in a row: an overlapping view."""
        place = self.places[op.source]
        buffer = kept[place.name]
        shape = (buffer.shape[0], self.width, op.weight.shape[1])
        return buffer.as_strided(shape, (place.size, place.features, 1), place.offset(r, -op.reach.left))


def once_values(program: Program, context: Context | None) -> dict[int, Tensor]:
    """The values of all signals that are computed once a walk, by index."""
    once = {signal.index: getattr(context, name) for name, signal in program.context.items()}
    for node in program.graph.nodes:
        if node.output.clock is Clock.ONCE:
            once[node.output.index] = node.layer(*(once[signal.index] for signal in node.inputs))
    return once


def filled(fill: Fill, once: dict[int, Tensor]) -> Tensor:
    """(n, features, H, W), or (n, features, 1, 1): what a buffer of the context is filled with."""
    total = once[fill.signals[0].index]
    for signal in fill.signals[1:]:
        total = total + once[signal.index]
    return total if fill.order is None else total[:, fill.order]
