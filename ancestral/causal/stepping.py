"""The walk that is always there: a Program carried out step by step in PyTorch.

A state is one tensor a buffer, (n, rows, columns, features). Everything in it is addressed by position, so going back k
symbols needs nothing but k symbols' worth of extra rows.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import groupby

import torch
from torch import Tensor

from ancestral.causal.arithmetic import Arithmetic
from ancestral.causal.layer import Clock
from ancestral.causal.program import Add, Affine, Couple, Fill, Operation, Part, Point, Program
from ancestral.causal.tokens import Attend, Normalise, Rotate
from ancestral.core import Context

VIEWS = 1024  # places of a buffer up to which a walk keeps the views that it made
Buffers = dict[str, Tensor]
Work = Callable[[Buffers, int, int], None]  # to be done at a row and a column
View = Callable[[Buffers, int, int], Tensor]  # of what lies there


@dataclass(frozen=True)
class Place:
    """How a buffer lies in memory during one walk.

    Attributes:
        rows, columns, features: its sizes; row r lies in slot r mod rows.
        left: zero columns before the first.
        wide: whether columns are told apart.
        scale: the side of one of its places, in pixels.
    """

    name: str
    rows: int
    columns: int
    features: int
    left: int
    wide: bool
    scale: int = 1

    @property
    def size(self) -> int:
        """Values of one example."""
        return self.rows * self.columns * self.features

    def offset(self, row: int, column: int, first: int = 0) -> int:
        """Where a feature of a place lies in the values of an example; rows and columns are the buffer's own."""
        return (row % self.rows * self.columns + (self.left + column if self.wide else 0)) * self.features + first


def places(program: Program, rollback: int = 0, whole: bool = False, wide: bool = False) -> list[Place]:
    """How the buffers of a walk lie in memory, context apart, which has no columns here.

    Args:
        rollback: how many symbols a state may have to go back.
        whole: all rows and columns are kept.
        wide: all columns are.
    """
    channels, height, width = program.shape
    extra = -(-rollback // (channels * width))
    found = []
    for buffer in program.buffers:
        wide_here = buffer.wide or whole or wide or (buffer.carried and rollback > 0)
        columns = buffer.left + program.columns // buffer.scale + buffer.right if wide_here else 1
        rows = -(-height // buffer.scale) + buffer.rows if whole else buffer.rows + extra
        found.append(Place(buffer.name, rows, columns, buffer.features, buffer.left, wide_here, buffer.scale))
    return found


class Stepper:
    """A Program made ready to walk over the sites of (C, H, W) examples.

    Args:
        program: what the network was lowered to.
        arithmetic: how its operations are carried out.
        rollback: how many symbols a state may have to go back.
        whole: states keep all that was computed.
    """

    def __init__(self, program: Program, arithmetic: Arithmetic, rollback: int = 0, whole: bool = False) -> None:
        self.program, self.arithmetic = program, arithmetic
        self.channels, _, self.width = program.shape
        self.places = places(program, rollback, whole)
        self.size = program.buffers[program.output].group(0).stop

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
            value = filled(fill, once, self.program).expand(n, -1, -1, -1).permute(0, 2, 3, 1).contiguous()
            rows, columns, features = value.shape[1:]
            if (rows, columns) not in ((1, 1), self.program.sides(fill.target)):
                raise ValueError(f"the context has features for {rows} x {columns} places, not 1 x 1 or those of the image")
            place = self.places[fill.target]
            self.places[fill.target] = Place(place.name, rows, columns, features, 0, columns > 1, place.scale)
            kept[place.name] = value
        self.row_work = self._row_work()
        self.site_work = [[(self.program.scale(op), self._work(op)) for op in ops] for ops in self.program.sites]
        return self.advance(kept, 0), kept

    def absorb(self, kept: Buffers, position: int, symbol: Tensor) -> None:
        """Write (n,) symbols of the site at ``position`` where operations will look for them."""
        (r, w), c = divmod(position // self.channels, self.width), position % self.channels
        for put in self.program.puts:
            group = self.program.buffers[put.target].group(c)
            target = Part(put.target, group.start, group.stop - group.start)
            self._at(target)(kept, r, w).copy_(self.arithmetic.put(put, symbol, c))

    def advance(self, kept: Buffers, position: int) -> Tensor:
        """Compute whatever the site at ``position`` is the first to need; its parameters (n, k)."""
        (r, w), c = divmod(position // self.channels, self.width), position % self.channels
        if w == 0 and c == 0:
            self.advance_row(kept, r)
        for scale, work in self.site_work[c]:
            if r % scale == 0 and w % scale == 0:
                work(kept, r, w)
        return self._at(Part(self.program.output, c * self.size, self.size))(kept, r, w).clone()

    def advance_row(self, kept: Buffers, r: int) -> None:
        """Compute what a row knows before its first site."""
        for scale, work in self.row_work:
            if r % scale == 0:
                work(kept, r, 0)

    def _at(self, part: Part) -> View:
        """(n, features) of a part for a pixel (r, w): a view, reckoned as far as can be before the walk."""
        place = self.places[part.buffer]
        name, size, rows, scale, above, count = place.name, place.size, place.rows, place.scale, part.above, part.count
        row, step = place.columns * place.features, place.features if place.wide else 0
        start = (place.left - part.left) * step + part.first
        few, held = place.rows * place.columns <= VIEWS, torch.empty(0)
        views: dict[int, Tensor] = {}

        def view(kept: Buffers, r: int, w: int) -> Tensor:
            nonlocal held
            buffer = kept[name]
            if buffer is not held:  # the state is another one than at the last step
                held = buffer
                views.clear()
            offset = (r // scale - above) % rows * row + w // scale * step + start
            found = views.get(offset)
            if found is None:
                found = buffer.as_strided((buffer.shape[0], count), (size, 1), offset)
                if few:
                    views[offset] = found
            return found

        return view

    def _along(self, kept: Buffers, part: Part, r: int, phase: int, phases: int, scale: int) -> Tensor:
        """(n, m, features) of a part, for every so manyth of an operation's places along a row: a view.

        Args:
            phase, phases: the first place, and how many there are to the next.
            scale: the side of the operation's places.
        """
        place = self.places[part.buffer]
        buffer = kept[place.name]
        step, count = phases * scale // place.scale, self.program.columns // (scale * phases)
        strides = (place.size, step * place.features if place.wide else 0, 1)
        offset = place.offset(r // place.scale - part.above, phase * scale // place.scale - part.left, part.first)
        return buffer.as_strided((buffer.shape[0], count, part.count), strides, offset)

    # -- operations made ready -------------------------------------------------------------------------------------------

    def _row_work(self) -> list[tuple[int, Work]]:
        """The operations of a row with their scales; those that run backwards next to each other become one."""
        work: list[tuple[int, Work]] = []
        for (backwards, scale), group in groupby(self.program.rows, lambda op: (op.backwards, self.program.scale(op))):
            if backwards:
                work.append((scale, self._backwards([self._work(op) for op in group], scale)))
            else:
                work += [(scale, self._row(op)) for op in group]
        return work

    def _backwards(self, work: Sequence[Work], scale: int) -> Work:
        def all_columns(kept: Buffers, r: int, w: int) -> None:
            for column in reversed(range(0, self.program.columns, scale)):
                for each in work:
                    each(kept, r, column)

        return all_columns

    def _work(self, op: Operation) -> Work:
        """An operation at one place."""
        if isinstance(op, Affine):
            return self._site_affine(op)
        if isinstance(op, Attend):
            return self._attend(op)
        views = [self._at(part) for part in operands(op)]
        return lambda kept, r, w: carry_out(op, self.arithmetic, [view(kept, r, w) for view in views])

    def _row(self, op: Operation) -> Work:
        """An operation along a row, which is a single place in sequences."""
        scale = self.program.scale(op)
        if self.program.columns == scale:
            return self._work(op)
        if isinstance(op, Affine):
            return self._row_affine(op, scale)
        parts = operands(op)
        return lambda kept, r, w: carry_out(op, self.arithmetic, [self._along(kept, part, r, 0, 1, scale) for part in parts])

    def _site_affine(self, op: Affine) -> Work:
        ready = [self.arithmetic.ready(op, which) for which in range(len(op.weight))]
        rows = [self._at(part) for part in window_rows(op)]
        before, target = None if op.init is None else self._at(op.init), self._at(op.target)
        scale, sets = self.program.scale(op), len(ready)

        def affine(kept: Buffers, r: int, w: int) -> None:
            window = rows[0](kept, r, w) if len(rows) == 1 else torch.cat([row(kept, r, w) for row in rows], -1)
            which = r // scale % op.phases[0] * op.phases[1] + w // scale % op.phases[1] if sets > 1 else 0
            ready[which](window, None if before is None else before(kept, r, w), target(kept, r, w))

        return affine

    def _attend(self, op: Attend) -> Work:
        query, target = self._at(op.query), self._at(op.target)

        def attend(kept: Buffers, r: int, w: int) -> None:
            keys, values = (self.remembered(kept, part, r, op.window) for part in (op.keys, op.values))
            self.arithmetic.attend(op, query(kept, r, w)[:, None], keys, values, target(kept, r, w)[:, None])

        return attend

    def remembered(self, kept: Buffers, part: Part, r: int, window: int) -> Tensor:
        """(n, m, features) of a part at the last rows up to r, at most so many: a view where they lie in one piece.

        They come in turn, unless they are all that the buffer remembers.
        """
        place = self.places[part.buffer]
        buffer = kept[place.name][:, :, 0, part.first : part.first + part.count]
        count = min(window, r + 1)
        first, last = (r + 1 - count) % place.rows, r % place.rows
        if count == place.rows or first <= last:
            return buffer if count == place.rows else buffer[:, first : last + 1]
        return torch.cat([buffer[:, first:], buffer[:, : last + 1]], 1)

    def _row_affine(self, op: Affine, scale: int) -> Work:
        ready = [self.arithmetic.ready(op, which) for which in range(len(op.weight))]

        def affine(kept: Buffers, r: int, w: int) -> None:
            for phase in range(op.phases[1]):
                at = r, phase, op.phases[1], scale
                init = None if op.init is None else self._along(kept, op.init, *at)
                windows = [self._along(kept, part, *at) for part in window_rows(op)]
                which = r // scale % op.phases[0] * op.phases[1] + phase
                ready[which](torch.cat(windows, -1) if len(windows) > 1 else windows[0], init, self._along(kept, op.target, *at))

        return affine


def window_rows(op: Affine) -> list[Part]:
    """The rows of a window, from the top, each as one part that starts at its first column."""
    _, rows, length, _ = op.weight.shape
    reach = op.reach
    return [Part(op.source, op.first, length, reach.above - row * reach.dilation, reach.left) for row in range(rows)]


def operands(op: Operation) -> list[Part]:
    """The parts that an operation other than an affine map reads, then the one that it writes."""
    if isinstance(op, Point):
        return [op.source, op.target] if op.other is None else [op.source, op.other, op.target]
    if isinstance(op, Add):
        return [op.a, op.b, op.target]
    if isinstance(op, Couple):
        return [op.source, op.symbols, op.target]
    if isinstance(op, Normalise):
        return [op.source, op.target]
    if isinstance(op, Rotate):
        return [op.source, op.angles, op.target]
    return [op.query, op.keys, op.values, op.target] if isinstance(op, Attend) else []


def carry_out(op: Operation, arithmetic: Arithmetic, views: Sequence[Tensor]) -> None:
    """An operation other than an affine map, on views of its ``operands``."""
    first, *second, target = views
    if isinstance(op, Point):
        arithmetic.point(op, first, second[0] if second else None, target)
    elif isinstance(op, Add):
        arithmetic.add(op, first, second[0], target)
    elif isinstance(op, Couple):
        arithmetic.couple(op, first, second[0], target)
    elif isinstance(op, Normalise):
        arithmetic.normalise(op, first, target)
    elif isinstance(op, Rotate):
        arithmetic.rotate(op, first, second[0], target)
    elif isinstance(op, Attend):
        arithmetic.attend(op, first, second[0], second[1], target)


def once_values(program: Program, context: Context | None) -> dict[int, Tensor]:
    """The values of all signals that are computed once a walk, by index."""
    once = {signal.index: getattr(context, name) for name, signal in program.context.items()}
    for node in program.graph.nodes:
        if node.output.clock is Clock.ONCE:
            once[node.output.index] = node.layer(*(once[signal.index] for signal in node.inputs))
    return once


def filled(fill: Fill, once: dict[int, Tensor], program: Program) -> Tensor:
    """(n, features, H, W), or (n, features, 1, 1): what a buffer of the context is filled with; of constants n is 1.

    Rows that only fill an image up to whole coarse places are left out, for a walk visits none.
    """
    total = once[fill.signals[0].index]
    for signal in fill.signals[1:]:
        total = total + once[signal.index]
    total = total[:, :, : program.sides(fill.target)[0]]
    return total if fill.order is None else total[:, fill.order]
