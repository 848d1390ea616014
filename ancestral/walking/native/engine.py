"""The native engine: a Program carried out on a CPU by one compiled interpreter, for every model and batch size.

It has the interface of ``causal.stepping.Stepper``, and besides computes all sites at once (``parallel``) and whole walks
(``run``). Examples are taken in groups, each small enough for a cache; groups are shared among threads.
"""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from functools import cache
from math import prod
from threading import Event
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from ancestral.causal.program import Affine, Couple, Program
from ancestral.causal.stepping import Buffers, filled
from ancestral.core import Family
from ancestral.draw import Draw
from ancestral.families import fixed
from ancestral.walking.exact.mixture import LOGS, POWERS
from ancestral.walking.exact.whole import CURVES, GELU_SHARE
from ancestral.walking.native.choosing import FLOATS, INTEGERS, chooser, without_family
from ancestral.walking.native.interpreter import Plan, Span, settle, walk
from ancestral.walking.native.layout import Layout, seldom, supported
from ancestral.walking.native.slots import GIVEN, NOBODY, Chooser
from ancestral.walking.native.tiles import LANES, VECTORS
from ancestral.walking.native.weights import Array, LayoutError, Tiling, Weights

__all__ = ["LayoutError", "Native", "supported"]

PLACES = 64  # about as many are walked over before an interruption is seen, or one row
BLOCK = 64  # rows that are computed at once where a row has but one place
GROUP = 16  # examples that are taken together: their memory and the weights fit into the second cache
MOST_VALUES = 1 << 24  # that ``parallel`` keeps at one time, besides its result
MOST_BLOCK = 1 << 27  # that one example may take so that rows are computed in blocks
GATES: Array = np.stack((*CURVES, GELU_SHARE))
EXPONENTS: Array = np.array(fixed.exponential(), np.int32)  # a copy: compiled code tells read-only arrays apart
CALLER, DATA = without_family(NOBODY), without_family(GIVEN)  # who settles symbols, besides families
NO_UNIFORMS, NO_KNOWN, NO_SYMBOLS = (np.zeros((0, 0), kind) for kind in (np.float64, np.bool_, np.int64))
NO_STACK: Array = np.zeros(0, np.uint64)


class Work(NamedTuple):
    """The arguments of compiled code, span apart."""

    plan: Plan
    state: Array
    who: Chooser
    u: Array = NO_UNIFORMS
    known: Array = NO_KNOWN
    symbols: Array = NO_SYMBOLS
    result: Array = NO_SYMBOLS
    stack: Array = NO_STACK

    def do(self, span: Span) -> None:
        """Call it."""
        walk(self.plan, self.state, span, self.who, self.u, self.known, self.symbols, self.result, self.stack)


class Native:
    """A Program made ready to be carried out by compiled code.

    A state is one tensor (n, size), called ``state``: all that an example remembers lies in its row. Numbers are float32, those
    of an exact Program int16.

    Args:
        program: what the network was lowered to.
        levels: the alphabet of the symbols.
        rollback: how many symbols a state may have to go back.
        threads: how many threads share the examples.

    Raises:
        LayoutError: the engine cannot run the Program; ``supported`` tells beforehand.
    """

    def __init__(self, program: Program, levels: int, rollback: int = 0, threads: int = 1) -> None:
        reason = supported(program)
        if reason is not None:
            raise LayoutError(f"the native engine cannot run this Program: {reason}")
        self.program, self.levels, self.rollback, self.threads = program, levels, rollback, threads
        self.channels, self.height, self.width = program.shape
        self.size = program.buffers[program.output].group(0).stop
        self.kind = torch.int16 if program.exact else torch.float32
        self._weights = _weights(program, levels)
        self._nowhere: Array = torch.zeros(0, 0, 0, dtype=self.kind).numpy()

    # -- step by step ----------------------------------------------------------------------------------------------------------

    def start(self, n: int, once: dict[int, Tensor], like: Tensor) -> tuple[Tensor, Buffers]:
        """Parameters (n, k) of the first site, and the buffers of n rows that have seen nothing.

        ``once`` holds the tensors of the context's signals; ``like`` tells the device, which must be a CPU.

        Raises:
            LayoutError: it is not, or a part of the context is neither for one site nor for all.
        """
        kept = {"state": self._begin(n, once, like)}
        return self.advance(kept, 0), kept

    def absorb(self, kept: Buffers, position: int, symbol: Tensor) -> None:
        """Write (n,) symbols of the site at ``position`` where operations will look for them.

        Raises:
            ValueError: a symbol is outside the alphabet, or there is not one for each row.
        """
        symbols, values = self._checked(symbol), self._memory(kept)
        if len(symbols) != len(kept["state"]):
            raise ValueError(f"there are {len(symbols)} symbols for a state of {len(kept['state'])} rows")
        (r, w), c = divmod(position // self.channels, self.width), position % self.channels
        settle(self._plan, values, r, w, c, symbols)

    def advance(self, kept: Buffers, position: int) -> Tensor:
        """Compute whatever the site at ``position`` is the first to need; its parameters (n, k)."""
        state = kept["state"]
        r, place = divmod(position, self.width * self.channels)
        work = Work(self._plan, self._memory(kept), CALLER, result=self._nowhere)
        n = state.shape[0]
        self._share(work.do, self._spans(n, range(r, r + 1), range(place, place + 1), min(GROUP, -(-n // self.threads))))
        first = self._layout.at(self.program.output, r, place // self.channels, place % self.channels * self.size)
        return state[:, first : first + self.size].clone()

    # -- everything at once ----------------------------------------------------------------------------------------------------

    def parallel(self, x: Tensor, once: dict[int, Tensor]) -> Tensor:
        """(n, C, H, W) symbols to (n, C, H, W, k) parameters of all sites.

        Raises:
            LayoutError: as for ``start``.
            ValueError: a symbol is outside the alphabet, or x has another shape.
        """
        symbols = in_order(self._checked(x, self.program.shape))
        result = torch.empty(len(x), self.height, self.width * self.channels * self.size, dtype=self.kind)
        layout = self._parallel(sizes(self.program, once))
        # sites are computed one after the other where one needs another, or where a row has but one
        stepwise = self.program.recurrent or (self.program.columns == 1 and layout.block == 1)
        plan = self._plan_of(layout, layout.rows if stepwise else layout.every)
        places, group = (range(self.width * self.channels), GROUP) if stepwise else (range(0), 1)
        chunk = max(self.threads, MOST_VALUES // layout.size)
        for begin in range(0, len(x), chunk):
            part = slice(begin, begin + chunk)
            given = {key: value if len(value) == 1 else value[part] for key, value in once.items()}
            state = self._filled(layout, len(symbols[part]), given)
            work = Work(plan, memory(state), DATA, symbols=symbols[part], result=result[part].numpy())
            self._share(work.do, self._spans(len(state), range(self.height), places, group))
        return result.view(len(x), self.height, self.width, self.channels, self.size).permute(0, 3, 1, 2, 4)

    def run(
        self,
        n: int,
        once: dict[int, Tensor],
        like: Tensor,
        family: Family,
        u: Tensor,
        draw: Draw,
        progress: Callable[[int], None] | None = None,
        end: int | None = None,
    ) -> Tensor:
        """Whole walks of n examples: the symbols (n, C, H, W) that `Draw` chooses, int64.

        Args:
            n, once, like: as for ``start``.
            family: what the parameters stand for.
            u: (n, D) uniforms in the order of the walk: row, column, channel.
            draw: options and known symbols; its seed plays no part, since u is given.
            progress: called after every row of the image with the number of symbols that each example has by then, on average.
            end: the symbol that ends an example; what comes after it is left undecided, and need not be computed.

        Raises:
            LayoutError: as for ``start``, or the engine cannot draw from the family.
            ValueError: a known symbol is outside the alphabet, or u or the known ones have another shape.
        """
        known, symbols = np.zeros((n, u.shape[1]), np.bool_), np.zeros((n, u.shape[1]), np.int64)
        if u.shape != (n, self.height * self.width * self.channels):
            raise ValueError(f"u has the shape {tuple(u.shape)}; {n} examples of {self.program.shape} take one for each symbol")
        if draw.known is not None:
            known[:] = in_order(draw.known[1].numpy())
            symbols[:] = in_order(self._checked(draw.known[0].where(draw.known[1], 0), self.program.shape))
        who = chooser(family, self.program.exact, draw)
        values, uniforms = memory(self._begin(n, once, like)), np.ascontiguousarray(u.numpy(), np.float64)
        work = Work(self._plan, values, who, uniforms, known, symbols, self._nowhere)
        return self._walked(work, n, GROUP, progress, end)

    def pop(
        self,
        n: int,
        once: dict[int, Tensor],
        like: Tensor,
        family: Family,
        stack: Array,
        given: tuple[Tensor, Tensor],
        end: int | None = None,
    ) -> Tensor:
        """Whole walks of n examples whose symbols (n, C, H, W) are popped from an entropy coder's stack, row by row at a site.

        Args:
            n, once, like: as for ``start``.
            family: the integer family of an exact Program.
            stack: as ``coding.coder.Stack.words`` gives it; what is left of it is in it afterwards.
            given: (n, C, H, W) symbols, and booleans that are True where they are known, and not popped.
            end: the symbol after which an example has but more of it, which are not popped; only where the engine ``returns``.

        Raises:
            LayoutError: as for ``start``, or the Program is not exact, or its family not known here, or an end is of no use.
        """
        if not self.program.exact:
            raise LayoutError("files are coded with whole numbers, and the parameters of this Program are floats")
        if end is not None and not self.returns:
            raise LayoutError("the end of an example is seen after every row, and rows of this Program have several symbols")
        who, known = chooser(family, True, Draw()), in_order(given[1].numpy()).copy()  # to which what follows an end is added
        symbols = in_order(self._checked(given[0].where(given[1], end or 0), self.program.shape))
        values = memory(self._begin(n, once, like))
        work = Work(self._plan, values, who, known=known, symbols=symbols, result=self._nowhere, stack=stack)
        return self._walked(work, n, max(1, n), None, end)

    @property
    def returns(self) -> bool:
        """Whether a walk can come back to Python after every symbol, to see which examples have ended: those of text can."""
        return self.width * self.channels == 1

    def draws(self, family: Family) -> bool:
        """Whether ``run`` can draw from a family."""
        return type(family) in (INTEGERS if self.program.exact else FLOATS)

    # -- memory ----------------------------------------------------------------------------------------------------------------

    def _begin(self, n: int, once: dict[int, Tensor], like: Tensor) -> Tensor:
        """The memory (n, size) of a walk that has seen nothing."""
        if like.device.type != "cpu":
            raise LayoutError(f"the native engine runs on a CPU, not on {like.device}: move the model there")
        layout = _layout(self.program, self._weights, sizes(self.program, once), self.rollback)
        self._layout, self._plan = layout, self._plan_of(layout, layout.rows)
        return self._filled(layout, n, once)

    def _parallel(self, context: dict[int, tuple[int, int]]) -> Layout:
        """A layout for all sites at once; where a row has but one, for blocks of rows, if their weights are alike."""
        alike = all(op.phases == (1, 1) for op in self.program.operations if isinstance(op, Affine))
        if self.program.columns == 1 and not self.program.recurrent and alike:
            layout = _layout(self.program, self._weights, context, parallel=True, block=min(BLOCK, self.height))
            if layout.size <= MOST_BLOCK:
                return layout
        return _layout(self.program, self._weights, context, parallel=True)

    def _plan_of(self, layout: Layout, rows: Array) -> Plan:
        runs = layout.runs if rows is layout.rows else np.array([[0, len(rows), 0]], np.int64)
        tables = rows, runs, layout.sites, layout.starts, layout.puts, layout.output
        numbers = layout.size, self.program.columns, self.width, self.channels, layout.block
        couples = next((op.levels for op in self.program.operations if isinstance(op, Couple)), 0)
        weights = self._weights.values, self._weights.biases, GATES, EXPONENTS, mixture_tables(couples)
        return Plan(*tables, *weights, *numbers, *apart(*seldom(self.program)))

    def _filled(self, layout: Layout, n: int, once: dict[int, Tensor]) -> Tensor:
        state = torch.zeros(n, layout.size, dtype=self.kind)
        for fill in self.program.fills:
            value = filled(fill, once, self.program).detach().permute(0, 2, 3, 1).flatten(1)
            first = layout.at(fill.target)
            state[:, first : first + value.shape[1]] = value
        return state

    def _memory(self, kept: Buffers) -> Array:
        """The values of a state that compiled code may touch."""
        if kept["state"].shape[1] != self._plan.size:
            raise ValueError("this state is of a walk with another context; the engine was started anew since")
        return memory(kept["state"])

    def _checked(self, symbols: Tensor, shape: tuple[int, ...] = ()) -> Array:
        """Symbols (n, *shape) as compiled code takes them, which does not look whether they are in the alphabet."""
        checked: Array = np.ascontiguousarray(symbols.numpy(), np.int64)
        if checked.shape[1:] != shape:
            raise ValueError(f"symbols have the shape {checked.shape}; this model takes (n, {', '.join(map(str, shape))})")
        if (checked.view(np.uint64) >= self.levels).any():  # what is below 0 is very large without a sign
            raise ValueError(f"symbols range over {checked.min()} .. {checked.max()}; this model takes 0 .. {self.levels - 1}")
        return checked

    def _walked(self, work: Work, n: int, group: int, progress: Callable[[int], None] | None, end: int | None = None) -> Tensor:
        """The symbols (n, C, H, W) after walks, in groups of so many examples.

        Every group returns to Python after every row of the image, or several short ones: there an interruption is seen, progress
        told, and a group left alone whose examples have all ended. What is popped is never more than one row, since what comes
        after the end of an example is not on the stack.
        """
        places, rows_done, stop = self.width * self.channels, [0], Event()
        popped = end is not None and len(work.stack) > 0
        several = 1 if popped else max(1, PLACES // places)

        def whole_walk(span: Span) -> None:
            ours, over = work.symbols[span.first : span.first + span.examples], np.zeros(span.examples, np.bool_)
            for r in range(0, self.height, several):
                if stop.is_set():
                    return
                last = min(r + several, self.height)
                work.do(span._replace(row=r, last_row=last))
                if end is not None:
                    over |= (ours[:, r * places : last * places] == end).any(1)
                if popped:
                    work.known[over, last * places : (last + 1) * places] = True
                done = bool(over.all())
                rows_done[0] += span.examples * ((self.height if done else last) - r)  # of all; a count lost does not matter
                if progress is not None:
                    progress(rows_done[0] * places // n)
                if done:
                    return

        spans = self._spans(n, range(0), range(places), group if len(work.stack) else min(group, -(-n // self.threads)))
        try:
            self._share(whole_walk, spans)
        finally:
            stop.set()
        walked = torch.from_numpy(work.symbols).view(n, self.height, self.width, self.channels)
        return walked.permute(0, 3, 1, 2).contiguous()

    def _spans(self, n: int, rows: range, places: range, group: int) -> list[Span]:
        """All of n examples, in groups."""
        size = max(1, group)
        return [
            Span(first, min(size, n - first), rows.start, rows.stop, places.start, places.stop) for first in range(0, n, size)
        ]

    def _share(self, work: Callable[[Span], None], spans: list[Span]) -> None:
        """Do some work for all spans, in threads where there are several of both."""
        if self.threads == 1 or len(spans) == 1:
            for span in spans:
                work(span)
        else:
            list(pool(self.threads).map(work, spans))


def mixture_tables(levels: int) -> tuple[Array, ...]:
    """What mixtures of whole pixels read in whole numbers: edges, curve, inverse scales and logarithms; empty without levels."""
    if not levels:
        return (np.zeros(0, np.int32),) * 5
    tables: tuple[Array, ...] = fixed.edges(levels, -1.0, 1.0), fixed.logistic(), fixed.inverse_scale(), LOGS, POWERS
    return tuple(np.array(table, np.int32) for table in tables)  # copies: compiled code tells read-only arrays apart


def apart(rare: bool, tokens: bool) -> tuple[int | bool, int | bool]:
    """What is compiled apart, as a `Plan` has it: numbers where it is needed."""
    return 1 if rare else False, 1 if tokens else False


def sizes(program: Program, once: dict[int, Tensor]) -> dict[int, tuple[int, int]]:
    """(rows, columns) of every buffer that the context fills."""
    shapes = {fill.target: filled(fill, once, program).shape for fill in program.fills}
    return {target: (shape[2], shape[3]) for target, shape in shapes.items()}


def memory(state: Tensor) -> Array:
    """The values of a state, flat: a view."""
    values: Array = state.numpy().reshape(-1)
    return values


def in_order(x: Array) -> Array:
    """(n, C, H, W) to (n, D): row, column, channel."""
    return np.ascontiguousarray(x.transpose(0, 2, 3, 1)).reshape(len(x), prod(x.shape[1:]))


def _weights(program: Program, levels: int) -> Weights:
    """The weights of a Program as tiles read them, kept as long as the Program is."""
    key = "native", levels
    if key not in program.kept:
        program.kept[key] = Weights(program, levels, Tiling(LANES, VECTORS))
    weights: Weights = program.kept[key]
    return weights


def _layout(
    program: Program,
    weights: Weights,
    context: dict[int, tuple[int, int]],
    rollback: int = 0,
    parallel: bool = False,
    block: int = 1,
) -> Layout:
    """The layout of a walk, kept as long as the Program is."""
    key = "native", weights.levels, rollback, parallel, block, *sorted(context.items())
    if key not in program.kept:
        program.kept[key] = Layout(program, weights, context, rollback, parallel, block)
    layout: Layout = program.kept[key]
    return layout


@cache
def pool(threads: int) -> ThreadPoolExecutor:
    """Threads that stay for later walks."""
    return ThreadPoolExecutor(threads, "native")
