"""The weights of a Program as the native engine reads them: flat, in the order of its tiles."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from ancestral.causal.program import Affine, Operation, Program, Put
from ancestral.causal.tokens import Normalise

Array = npt.NDArray[Any]

MOST_SHIFT = 31  # of a sum of 32 bits
LINE = 64  # bytes that a processor fetches together
KINDS: dict[bool, tuple[type, type]] = {False: (np.float32, np.float32), True: (np.int16, np.int32)}  # values, biases


class LayoutError(ValueError):
    """A Program that the native engine cannot carry out, or that reads what does not exist."""


@dataclass(frozen=True)
class Tiling:
    """The width of vectors, and how many of them a panel of weights has: columns that are computed together."""

    lanes: int
    vectors: int

    def padded(self, columns: int) -> int:
        """Columns of full vectors."""
        return -(-columns // self.lanes) * self.lanes


class Weights:
    """The weights of a Program, flat, in the order in which tiles read them.

    Args:
        program: what they are taken from.
        levels: the alphabet of the symbols.
        tiling: the shape of panels.

    Attributes:
        values, biases: all of them.
        places: where those of every operation start, by its position; (0, 0) for operations without weights.
        symbols: by put and colour channel, where the table of the symbols' features starts, and their number.

    Raises:
        LayoutError: whole numbers that are not, or do not fit into 16 bits (biases 32).
    """

    def __init__(self, program: Program, levels: int, tiling: Tiling) -> None:
        self.exact, self.levels, self.tiling = program.exact, levels, tiling
        self._values: list[Array] = [np.zeros(0)]
        self._biases: list[Array] = [np.zeros(0)]
        self._sizes = [0, 0]
        self.places = [self._of(op) for op in program.operations]
        self.symbols = [[self._table(put, c) for c in range(program.shape[0])] for put in program.puts]
        values, biases = KINDS[self.exact]
        self.values = whole(np.concatenate(self._values), values)
        self.biases = whole(np.concatenate(self._biases), biases)

    def _of(self, op: Operation) -> tuple[int, int]:
        if isinstance(op, Normalise):  # epsilon, gains and shifts
            return 0, self._append(1, self._biases, np.concatenate([[op.epsilon], array(op.gain), array(op.shift)]))
        return self._affine(op) if isinstance(op, Affine) else (0, 0)

    def _affine(self, op: Affine) -> tuple[int, int]:
        """Where the first set of an operation's weights starts; the others follow, each as far from the one before."""
        if self.exact and op.scaling is None:
            raise LayoutError("an affine operation of an exact Program has no scaling")
        starts = [self._set(op, which) for which in range(len(op.weight))]
        return starts[0]

    def _set(self, op: Affine, which: int) -> tuple[int, int]:
        weight, pair = array(op.weight[which]), 1 + self.exact
        _, length, columns = weight.shape
        padding = (0, self.tiling.padded(columns) - columns)
        padded = np.pad(weight, ((0, 0), (0, -length % pair), padding))
        steps = padded.reshape(-1, pair, padded.shape[2]).swapaxes(1, 2)  # (steps, columns, pair)
        width = self.tiling.lanes * self.tiling.vectors
        panels = [steps[:, first : first + width].ravel() for first in range(0, steps.shape[1], width)]
        shifts = [] if op.scaling is None else [op.scaling.init[which], op.scaling.out[which]]
        if any(((shift < 0) | (shift > MOST_SHIFT)).any() for shift in shifts):
            raise LayoutError(f"shifts of an exact Program must be 0 .. {MOST_SHIFT}")
        vectors = np.stack([np.pad(array(bias), padding).reshape(-1, self.tiling.lanes) for bias in (op.bias[which], *shifts)], 1)
        return self._append(0, self._values, np.concatenate(panels)), self._append(1, self._biases, vectors.ravel())

    def _table(self, put: Put, channel: int) -> tuple[int, int]:
        rows = put.layer.absorb(torch.arange(self.levels), channel) if put.table is None else put.table[channel]
        return self._append(0, self._values, array(rows).ravel()), rows.shape[1]

    def size(self, op: Affine) -> tuple[int, int]:
        """How far sets of an operation's weights lie apart, and of its biases."""
        _, windows, length, columns = op.weight.shape
        wide, pair = self.tiling.padded(columns), 1 + self.exact
        return lines(windows * -(-length // pair) * pair * wide), lines(wide * (3 if self.exact else 1))

    def _append(self, which: int, parts: list[Array], more: Array) -> int:
        start = self._sizes[which]
        parts.append(np.pad(more, (0, lines(len(more)) - len(more))))  # weights start where a line of memory does
        self._sizes[which] += len(parts[-1])
        return start


def lines(values: int) -> int:
    """Values that fill whole lines of memory."""
    return -(-values // LINE) * LINE


def array(values: Tensor) -> Array:
    """The numbers of a tensor."""
    numbers: Array = values.detach().cpu().numpy()
    return numbers


def whole(values: Array, kind: type) -> Array:
    """The values in another type; raises ``LayoutError`` where whole numbers change by that."""
    with np.errstate(invalid="ignore"):
        cast: Array = values.astype(kind)
    if np.issubdtype(kind, np.integer) and not np.array_equal(cast, values):
        raise LayoutError(f"the weights of an exact Program must be whole numbers that fit into {np.dtype(kind).name}")
    return cast
