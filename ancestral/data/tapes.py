"""Long runs of symbols, in memory or on disk, and sets of examples that are stretches of them, read when they are asked for.

Places are counted in units: a byte, a character or a token of text, a sample of sound, which may be several symbols.
"""

from __future__ import annotations

import hashlib
from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Self

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from ancestral.data.notation import Sound, smallest
from ancestral.data.splits import Examples, Redrawn, feed_tensor
from ancestral.draw import uniforms
from ancestral.spec import DataSpec
from ancestral.symbols import check_symbols

Array = NDArray[Any]
CHUNK = 2**22  # units that are read at once where all of a tape is
TAPE, START, STOP, FIRST, LAST = range(5)  # columns of places


class Tape(ABC):
    """A run of units, each of ``parts`` symbols."""

    parts: int = 1

    @abstractmethod
    def __len__(self) -> int:
        """How many units there are."""

    @abstractmethod
    def read(self, start: int, stop: int) -> Array:
        """The (parts (stop - start),) symbols of units start .. stop - 1."""


@dataclass(frozen=True, eq=False)
class Held(Tape):
    """Symbols in memory, or mapped from a file."""

    symbols: Array
    parts: int = 1

    def __len__(self) -> int:
        return len(self.symbols) // self.parts

    def read(self, start: int, stop: int) -> Array:
        return self.symbols[self.parts * start : self.parts * stop]


@dataclass(frozen=True, eq=False)
class Samples(Tape):
    """Samples in memory, or mapped from a file, written as symbols when they are read."""

    samples: Array
    notation: Sound

    @property
    def parts(self) -> int:  # type: ignore[override]
        """Symbols of a sample."""
        return self.notation.parts

    def __len__(self) -> int:
        return len(self.samples)

    def read(self, start: int, stop: int) -> Array:
        return self.notation.codes(self.samples[start:stop])


@dataclass(frozen=True, eq=False)
class BytesFile(Tape):
    """The bytes of a file, read from disk; it is open for no longer than that."""

    path: Path
    size: int

    def __len__(self) -> int:
        return self.size

    def read(self, start: int, stop: int) -> Array:
        return np.fromfile(self.path, np.uint8, min(stop, self.size) - start, offset=start)


@dataclass(frozen=True, eq=False)
class Pieces:
    """Examples that are stretches of tapes.

    Attributes:
        tapes: what they are stretches of.
        places: (n, 5) numbers of a tape, of the first unit and of the one after the last, and between which units (the second
            one excluded) a `Windows` of this example begins.
        labels: (n,) int64 classes, or None.
        end: the symbol that ends examples, where lengths vary.
    """

    tapes: Sequence[Tape]
    places: NDArray[np.int64]
    labels: Tensor | None = None
    end: int | None = None

    def __len__(self) -> int:
        return len(self.places)

    @property
    def x(self) -> Tensor:
        """(n, T) all examples at once: they had better fit into memory."""
        return self.select(range(len(self))).x

    def labelled(self, labels: Tensor) -> Self:
        """The same examples with other (n,) labels."""
        return replace(self, labels=labels)

    def lengths(self, spec: DataSpec) -> Tensor:
        """(n,) how many symbols each example has, its end not counted."""
        return torch.from_numpy((self.places[:, STOP] - self.places[:, START]) * _parts(self.tapes))

    def check(self, spec: DataSpec) -> None:
        """Raise ``DataError`` where an example does not fit a spec; the first one is looked at, for all are written alike."""
        if len(self):
            check_symbols(self.select([0]).x, spec)

    def select(self, rows: Tensor | Sequence[int]) -> Examples:
        """The examples at (m,) row numbers, filled up with ``end`` to one more than the longest of them."""
        rows = torch.as_tensor(rows, dtype=torch.long)
        some = self.places[rows.numpy()]
        ended = np.ones(len(some), bool)
        x = stretches(self.tapes, some[:, TAPE], some[:, START], some[:, STOP], ended, self.end)
        return Examples(x, None if self.labels is None else self.labels[rows])

    def feed(self, digest: hashlib._Hash) -> None:
        """Add the lengths of the examples, their symbols one after the other and their labels to a hash."""
        digest.update(f"{len(self)} pieces".encode())
        digest.update((self.places[:, STOP] - self.places[:, START]).data)
        for tape, start, stop in self._joined():
            for begin in range(start, stop, CHUNK):
                digest.update(np.ascontiguousarray(self.tapes[tape].read(begin, min(begin + CHUNK, stop))).data)
        feed_tensor(digest, self.labels)

    def _joined(self) -> list[list[int]]:
        """The places one after the other, with what follows on a tape put together: blocks are read in few goes then."""
        tape, start, stop = self.places[:, TAPE], self.places[:, START], self.places[:, STOP]
        breaks = np.flatnonzero((tape[1:] != tape[:-1]) | (start[1:] != stop[:-1])) + 1
        firsts, lasts = np.concatenate([[0], breaks]), np.concatenate([breaks - 1, [len(self) - 1]])
        return np.stack([tape[firsts], start[firsts], stop[lasts]], 1).tolist() if len(self) else []


@dataclass(frozen=True, eq=False)
class Windows(Redrawn):
    """Windows of a training set of pieces at offsets drawn anew whenever a trainer meets an example.

    The windows of all examples together begin at every unit of the tapes, each as likely as the others where examples are
    consecutive blocks; of an example of varying length, anywhere in it where that is longer than a window.

    Attributes:
        pieces: row by row those of ``Splits.train``.
        length: units of a window.
    """

    pieces: Pieces
    length: int

    @property
    def rule(self) -> str:  # type: ignore[override]
        """That they are windows, and how long."""
        return f"windows of {self.length}"

    def __len__(self) -> int:
        return len(self.pieces)

    def draw(self, rows: Tensor, seed: int, stream: int = 0) -> Tensor:
        """(m,) row numbers to (m, T) examples; each row is a pure function of (seed, stream, row)."""
        places = self.pieces.places[rows.cpu().numpy()]
        u = torch.cat([uniforms(seed, [row], 1, stream)[0] for row in rows.tolist()] or [torch.empty(0)]).numpy()
        start = places[:, FIRST] + np.floor(u * (places[:, LAST] - places[:, FIRST])).astype(np.int64)
        stop = start + self.length
        if self.pieces.end is None:
            return stretches(self.pieces.tapes, places[:, TAPE], start, stop, np.zeros(len(rows), bool), None)
        last = np.minimum(stop, places[:, STOP])
        return stretches(self.pieces.tapes, places[:, TAPE], start, last, stop > last, self.pieces.end)


def stretches(tapes: Sequence[Tape], which: Array, start: Array, stop: Array, ended: Array, end: int | None) -> Tensor:
    """(n, T) symbols of n stretches; where lengths vary filled up with ``end``, with one at least where ``ended``.

    uint8 wherever the symbols fit, else the next larger type.
    """
    parts = _parts(tapes)
    found = [tapes[i].read(a, b) for i, a, b in zip(which.tolist(), start.tolist(), stop.tolist(), strict=True)]
    if end is None:
        return torch.from_numpy(np.stack(found)) if found else torch.zeros(0, 0, dtype=torch.uint8)
    width = max((len(row) + parts * bool(last) for row, last in zip(found, ended, strict=True)), default=parts)
    x = np.full((len(found), width), end, smallest(end + 1))
    for place, row in zip(x, found, strict=True):
        place[: len(row)] = row
    return torch.from_numpy(x)


def _parts(tapes: Sequence[Tape]) -> int:
    return tapes[0].parts if tapes else 1
