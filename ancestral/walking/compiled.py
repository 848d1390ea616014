"""The compiled engine: a Program whose steps are functions made by torch.compile, one for each colour channel.

Such a function takes the buffers of a state as `Stepper` lays them out, and the place as tensors, so that one compilation serves
every site and every set of weights::

    step(memory, weights, row, column) -> parameters, with what later steps read written to memory

Inside, what an operation gives is handed to the next one as it is, so that whatever stands between two products of matrices
becomes one loop; on a GPU torch.compile is asked to make the step one CUDA graph. What only depends on the rows above is done by
the Stepper, once a row: there the products are so large that compilation saves nothing.
"""

from __future__ import annotations

import itertools
import os
import shutil
import sys
from collections.abc import Callable, Sequence
from dataclasses import replace
from importlib.util import find_spec
from typing import Any

import torch
from torch import Tensor, fx
from torch.nn import functional

from ancestral.causal.arithmetic import Floating
from ancestral.causal.channels import coupled
from ancestral.causal.layer import Clock
from ancestral.causal.pointwise import DOUBLES, FUNCTIONS, PAIRS
from ancestral.causal.program import Add, Affine, Couple, Operation, Part, Program
from ancestral.causal.stepping import Buffers, Place, Stepper, window_rows
from ancestral.causal.tokens import TokenOperation
from ancestral.walking.engines import EngineError
from ancestral.walking.tracing import graph_of

Step = Callable[[list[Tensor], list[Tensor], Tensor, Tensor], Tensor]  # memory, weights, row, column
DEVICES, TYPES = ("cpu", "cuda"), (torch.float32, torch.float64)
COMPILER = os.environ.get("CXX") or {"darwin": "clang++", "win32": "cl"}.get(sys.platform, "g++")  # what torch.compile calls


def refusal(program: Program, like: Tensor) -> str | None:
    """Why this engine cannot run a Program on the device and in the type of ``like``, or None."""
    if program.exact:
        return "it computes with floats, and this Program with whole numbers"
    if like.device.type not in DEVICES:
        return f"it runs on a CPU or with CUDA, and the model is on {like.device}"
    if like.dtype not in TYPES:
        return f"it computes in float32 or float64, and the model is {like.dtype}"
    if any(isinstance(op, Affine) and op.clock is Clock.SITE and len(op.weight) > 1 for op in program.operations):
        return "its functions are the same for every site, and this network has weights that are not"
    if any(isinstance(op, TokenOperation) for op in program.operations):
        return "it knows no normalisation, rotation and attention"
    if program.recurrent or program.coarsest > 1:
        return "it knows no recurrences and no coarse places"
    if shutil.which(COMPILER) is None:
        return f"torch.compile needs the C++ compiler {COMPILER}, which is not found here: install it, or name another in CXX"
    if like.is_cuda and find_spec("triton") is None:
        return "torch.compile needs the package triton on a GPU"
    return None


class Compiled:
    """A Program made ready to walk over the sites of (C, H, W) examples, in float32 or float64, on a CPU or with CUDA.

    States are those of `Stepper`, and either may go on with the other's. Each function is compiled when it is first called in a
    process, which takes some seconds, for one example and once more for any other number of them; Programs of one structure
    share it. The first site of a walk is left to the Stepper.

    Args:
        program: what the network was lowered to; ``refusal`` tells whether the engine can run it.
        rollback: how many symbols a state may have to go back.
    """

    def __init__(self, program: Program, rollback: int = 0) -> None:
        self.program, self.stepper = program, Stepper(program, Floating(), rollback)
        self._weights = [flat_weights(ops) for ops in program.sites]

    def start(self, n: int, once: dict[int, Tensor], like: Tensor) -> tuple[Tensor, Buffers]:
        """Parameters (n, k) of the first site, and the buffers of n rows that have seen nothing.

        ``once`` holds the tensors of the context's signals; ``like`` tells device and type.
        """
        parameters, kept = self.stepper.start(n, once, like)
        _, height, width = self.program.shape
        self._rows, self._columns = (torch.arange(size, device=like.device).unbind() for size in (height, width))
        self._steps = steps(self.program, self.stepper.places, like)
        for buffer in kept.values():
            if n > 1:
                torch._dynamo.maybe_mark_dynamic(buffer, 0)
            if like.is_cuda:  # a CUDA graph works on it where it lies, instead of on a copy
                torch._dynamo.mark_static_address(buffer)
        return parameters, kept

    def absorb(self, kept: Buffers, position: int, symbol: Tensor) -> None:
        """Write (n,) symbols of the site at ``position`` where operations will look for them."""
        self.stepper.absorb(kept, position, symbol)

    def advance(self, kept: Buffers, position: int) -> Tensor:
        """Compute whatever the site at ``position`` is the first to need; its parameters (n, k).

        Raises:
            EngineError: torch.compile fails here.
        """
        channels, _, width = self.program.shape
        (r, w), c = divmod(position // channels, width), position % channels
        if w == 0 and c == 0:
            self.stepper.advance_row(kept, r)
        memory = [kept[place.name] for place in self.stepper.places]
        try:
            parameters = self._steps[c](memory, self._weights[c], self._rows[r], self._columns[w])
        except torch._dynamo.exc.TorchDynamoException as error:
            raise EngineError(f"torch.compile fails here, so use engine='eager': {error}") from error
        return parameters.clone()  # the next step of a CUDA graph writes its result to the same memory


def flat_weights(operations: Sequence[Operation]) -> list[Tensor]:
    """Bias (N,) and matrix (K, N) of one affine operation after the other."""
    affine = (op for op in operations if isinstance(op, Affine))
    return [tensor for op in affine for tensor in (op.bias[0], op.weight[0].flatten(0, 1))]


_STEPS: dict[tuple[object, ...], list[Step]] = {}


def steps(program: Program, places: Sequence[Place], like: Tensor) -> list[Step]:
    """The function of each colour channel, compiled when first called; Programs of one structure share them."""
    key = str(program), program.output, tuple(places), like.dtype, like.device.type
    if key not in _STEPS:
        mode = "reduce-overhead" if like.is_cuda else "default"
        _STEPS[key] = [torch.compile(traced(program, places, ops), mode=mode) for ops in program.sites]
    return _STEPS[key]


def traced(program: Program, places: Sequence[Place], operations: Sequence[Operation]) -> fx.GraphModule:
    """The function of one colour channel's operations.

    A graph, because torch.compile keeps what it compiled by a function's code, and every graph has code of its own.
    """

    def step(memory: list[Tensor], weights: list[Tensor], row: Tensor, column: Tensor) -> Tensor:
        return Flow(program, places, memory, row, column).through(operations, weights)

    return graph_of(step)


class Flow:
    """Values (n, features) of one site on their way through operations."""

    def __init__(self, program: Program, places: Sequence[Place], memory: list[Tensor], row: Tensor, column: Tensor) -> None:
        self.program, self.places, self.memory, self.row, self.column = program, places, memory, row, column
        self.fresh: dict[int, tuple[int, Tensor]] = {}  # by buffer, what was computed now: its first feature, and the values

    def through(self, operations: Sequence[Operation], weights: list[Tensor]) -> Tensor:
        """Carry operations out, and write to memory what later steps read; the parameters (n, k)."""
        unused = itertools.count()
        for op in operations:
            if isinstance(op, Affine):
                y = torch.addmm(weights[next(unused)], self._window(op), weights[next(unused)])
                y = y if op.init is None else y + self._value(op.init)
            elif isinstance(op, Add):
                y = self._value(op.a) + self._value(op.b)
            elif isinstance(op, Couple):
                y = mixture(self._value(op.source), self._value(op.symbols), op.channel, op.components, op.levels)
            elif isinstance(op, TokenOperation):
                raise EngineError("the compiled engine knows no normalisation, rotation and attention")
            elif op.other is not None:
                y = PAIRS[op.function](self._value(op.source), self._value(op.other))
            else:
                y = apply(op.function, self._value(op.source))
            y = functional.relu(y) if isinstance(op, Affine | Add) and op.relu else y
            first, before = self.fresh.get(op.target.buffer, (op.target.first, None))
            self.fresh[op.target.buffer] = first, y if before is None else joined([before, y])  # one part after the other
        for index, (first, y) in self.fresh.items():
            if self.program.buffers[index].wide or self.program.buffers[index].carried:
                write(self.memory[index], self._start(index, first), y)
        return self.fresh[self.program.output][1]

    def _window(self, op: Affine) -> Tensor:
        """(n, K): the rows above, the sites to the left, and of the own one what the colour channel may see."""
        if not op.reach.own_row:
            return joined([self._kept(row, row.left, row.above) for row in window_rows(op)])
        *above, own = window_rows(op)
        pieces = [self._kept(row, row.left, row.above) for row in above]
        past = min(own.count, own.left * self.places[op.source].features)
        pieces += [self._kept(replace(own, count=past), own.left)] if past or not own.count else []
        return joined(pieces + ([self._value(Part(op.source, own.first, own.count - past))] if own.count > past else []))

    def _value(self, part: Part) -> Tensor:
        """(n, features) of the site: what was computed now, and before it what earlier steps wrote."""
        if part.buffer not in self.fresh:
            return self._kept(part)
        first, value = self.fresh[part.buffer]
        earlier = [self._kept(Part(part.buffer, part.first, first - part.first))] if part.first < first else []
        return joined([*earlier, value[:, max(part.first - first, 0) : part.first + part.count - first]])

    def _kept(self, part: Part, back: int = 0, above: int = 0) -> Tensor:
        """(n, features): what is in memory, so many columns back and rows above."""
        return read(self.memory[part.buffer], self._start(part.buffer, part.first, back, above), part.count)

    def _start(self, buffer: int, feature: int, back: int = 0, above: int = 0) -> Tensor:
        """Where a feature lies in the values of an example, so many columns back and rows above."""
        start: Any = self.places[buffer].offset(self.row - above, self.column - back, feature)  # type: ignore[arg-type]
        return start  # type: ignore[no-any-return]


def joined(pieces: list[Tensor]) -> Tensor:
    """Features side by side."""
    return pieces[0] if len(pieces) == 1 else torch.cat(pieces, -1)


# -- what a graph takes as a whole, because it asks for sizes --------------------------------------------------------------------


@fx.wrap
def apply(function: str, x: Tensor) -> Tensor:
    """One of the functions of a Program."""
    return DOUBLES[function](x, -1) if function in DOUBLES else FUNCTIONS[function](x)


@fx.wrap
def mixture(numbers: Tensor, symbols: Tensor, colour: int, components: int, levels: int) -> Tensor:
    """What a colour takes from the mixtures of a pixel."""
    return coupled(numbers, symbols, colour, components, levels)


@fx.wrap
def read(buffer: Tensor, start: Tensor, count: int) -> Tensor:
    """(n, count) values of a buffer, from ``start`` on."""
    return buffer.flatten(1).index_select(1, start + torch.arange(count, device=buffer.device))


@fx.wrap
def write(buffer: Tensor, start: Tensor, values: Tensor) -> None:
    """Put (n, count) values into a buffer, from ``start`` on."""
    buffer.view(len(buffer), -1).index_copy_(1, start + torch.arange(values.shape[1], device=buffer.device), values)
