"""What the sequences of a compressed file are, text and sound: names, how they are written, and how they are cut.

Files are runs of symbols, the channels of a sound one each, and what no symbol tells is kept beside them. Runs longer than the
longest item of the model are cut into pieces of about one length. The pieces come in the order of their lengths, the longest
first, so that those which are decoded together end about together.

Where the items are lines of text, their ends are symbols too, and nothing else tells how long they are: they stay in order.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from itertools import accumulate, pairwise
from typing import Any

import numpy as np
import torch
from torch import Tensor

from ancestral.coding.blocks import filling
from ancestral.coding.errors import CodecError, CorruptHeader
from ancestral.coding.manifest import DTYPE, check_names, deflated, inflated
from ancestral.coding.texts import LINES
from ancestral.data.notation import SOUNDS, TEXTS, smallest
from ancestral.data.source import Array
from ancestral.spec import DataSpec
from ancestral.symbols import DataError, lengths

KEPT = "kept"  # a file that the model is not for
KINDS = (KEPT, *TEXTS, *SOUNDS, *LINES.values())


@dataclass(frozen=True)
class Clip:
    """What was compressed under one name.

    Attributes:
        name: of the file, with ``/`` between folders.
        kind: how its symbols are written, ``"kept"`` for a file that has none, or the type of an array as NumPy writes it.
        shape: (T,) or (n, T) of an array, else empty.
        runs: how many symbols each of its runs has.
        beside: how many bytes each of its parts has that are kept beside them.
        lines: how many items of the model the lines of a text are; None of everything else.
    """

    name: str
    kind: str
    shape: tuple[int, ...]
    runs: tuple[int, ...]
    beside: tuple[int, ...] = ()
    lines: int | None = None

    @property
    def target(self) -> str:
        """The name under which it is restored."""
        return self.name if self.kind in KINDS or self.name.lower().endswith(".npy") else self.name + ".npy"

    @property
    def examples(self) -> int:
        """A file is one, an array as many as it has rows."""
        return self.shape[0] if len(self.shape) == 2 else 1


@dataclass(frozen=True)
class Sequences:
    """What the files are, in their order.

    Attributes:
        spec: of the model, for items as long as the longest piece.

    Raises:
        CodecError: a name could be written outside a folder, or not on every system, or two are the same.
        DataError: an array does not fit the model.

    Example:
        >>> clips = Clip("a.txt", "bytes", (), (7,)), Clip("b.npy", "|u1", (2, 3), (3, 3))
        >>> found = Sequences(DataSpec("text", (4,), 256), clips)
        >>> found.pieces.tolist()  # run, start, length
        [[0, 3, 4], [0, 0, 3], [1, 0, 3], [2, 0, 3]]
        >>> found.examples, found.symbols
        (3, 13)
    """

    spec: DataSpec
    items: tuple[Clip, ...]

    def __post_init__(self) -> None:
        check_names([item.target for item in self.items])
        for item in self.items:
            if any(length % self.spec.parts for length in item.runs):
                raise DataError(f"{item.name}: samples have {self.spec.parts} symbols each, and the last of a row has fewer")

    @classmethod
    def of(cls, spec: DataSpec, clips: Sequence[Clip], runs: Sequence[Array]) -> Sequences:
        """With the number of items that the lines among the runs make."""
        counted, left = list[Clip](), iter(runs)
        for clip in clips:
            own = [next(left) for _ in clip.runs]
            if clip.kind in LINES.values():
                clip = replace(clip, lines=len(_stretches(own[0], spec)) if len(own[0]) else 0)
            counted.append(clip)
        return cls(spec, tuple(counted))

    @property
    def ended(self) -> bool:
        """Whether items are coded with their ends, because some are lines."""
        return any(item.lines is not None for item in self.items)

    @cached_property
    def run_of(self) -> Array:
        """(n,) which run every item of the model is of."""
        if not self.ended:
            return self.pieces[:, 0]
        counts = [
            count
            for item in self.items
            for count in ([length // self.spec.sites + 1 for length in item.runs] if item.lines is None else [item.lines])
        ]
        return np.repeat(np.arange(len(counts)), counts)

    @cached_property
    def pieces(self) -> Array:
        """(n, 3) of every item of the model, which run it is of, where it begins, and how long it is, unless their ends tell."""
        parts = self.spec.parts
        samples = np.array([length for item in self.items for length in item.runs], np.int64) // parts
        counts = -(-samples * parts // self.spec.sites)
        run = np.repeat(np.arange(len(samples)), counts)
        number = np.arange(len(run)) - np.repeat(np.cumsum(counts) - counts, counts)
        start, stop = (samples[run] * each // counts[run] * parts for each in (number, number + 1))
        order = np.argsort(start - stop, kind="stable")
        return np.stack([run, start, stop - start], 1)[order]

    @property
    def lengths(self) -> Tensor:
        """(n,) of every item of the model."""
        return torch.from_numpy(self.pieces[:, 2].copy())

    @cached_property
    def runs(self) -> tuple[range, ...]:
        """Which runs are those of each file."""
        ends = accumulate((len(item.runs) for item in self.items), initial=0)
        return tuple(range(first, end) for first, end in pairwise(ends))

    @cached_property
    def beside(self) -> tuple[range, ...]:
        """Where the bytes are that are kept for each file."""
        ends = accumulate((sum(item.beside) for item in self.items), initial=0)
        return tuple(range(first, end) for first, end in pairwise(ends))

    @property
    def total(self) -> int:
        """How many items of the model there are."""
        return len(self.run_of)

    @property
    def examples(self) -> int:
        """How many examples there are."""
        return sum(item.examples for item in self.items)

    @property
    def symbols(self) -> int:
        """How many symbols they have."""
        return sum(sum(item.runs) for item in self.items)

    @property
    def example_of_run(self) -> Array:
        """(runs,) the number of the example that each is of."""
        own = [
            place.start + np.arange(len(item.runs)) * (len(item.shape) == 2)
            for item, place in zip(self.items, self._examples, strict=True)
        ]
        return np.concatenate([np.zeros(0, np.int64), *own])

    def spread(self, known: Tensor) -> Tensor:
        """Labels of examples, (examples,), as those of the items that they are cut into, (total,)."""
        return known[torch.from_numpy(self.example_of_run[self.run_of])]

    def gathered(self, labels: Tensor, rows: Array) -> list[int]:
        """The label of every example, from (m,) those of the items ``rows``; -1 for one of which there is none."""
        found = np.full(self.examples, -1)
        found[self.example_of_run[self.run_of[rows]]] = labels.numpy()
        return [int(label) for label in found]

    def check_labels(self, labels: Sequence[int], others: Sequences, known: Tensor) -> None:
        """Compare the labels of all examples with those of the items of others, which are of the same names.

        Raises:
            CodecError: one differs.
        """
        own = {item.target: place for item, place in zip(self.items, self._examples, strict=True)}
        given = others.gathered(known, np.arange(others.total))
        for item, place in zip(others.items, others._examples, strict=True):
            there = own[item.target]
            if labels[there.start : there.stop] != given[place.start : place.stop]:
                raise CodecError(f"{item.name!r} has another label in the file than here: one was changed")

    @property
    def _examples(self) -> list[range]:
        ends = accumulate((item.examples for item in self.items), initial=0)
        return [range(first, end) for first, end in pairwise(ends)]

    def text(self) -> str:
        """The manifest as a header holds it.

        Raises:
            CodecError: there is too much of it for a header.
        """
        own = ([item.name, item.kind, item.shape, item.runs, item.beside] for item in self.items)
        counts = ([] if item.lines is None else [item.lines] for item in self.items)
        return deflated([[*entry, *count] for entry, count in zip(own, counts, strict=True)])

    @classmethod
    def from_text(cls, text: Any, spec: DataSpec) -> Sequences:
        """The manifest that ``text`` wrote.

        Raises:
            CodecError: it is damaged or too large, or its names are not safe to write.
        """
        return inflated(text, lambda entries: cls(spec, tuple(_clip(*entry) for entry in entries)))


def _clip(name: Any, kind: Any, shape: Any, runs: Any, beside: Any, lines: Any = None) -> Clip:
    sizes, lengths, kept = (
        tuple(size for size in each if type(size) is int and 0 <= size < 2**48) for each in (shape, runs, beside)
    )
    whole = (len(sizes), len(lengths), len(kept)) == (len(shape), len(runs), len(beside))
    known = lines is None if kind not in LINES.values() else type(lines) is int and 0 <= lines <= sum(lengths) + 1
    if not (isinstance(name, str) and isinstance(kind, str) and whole and known and (_fits(kind, sizes, lengths, kept))):
        raise ValueError(f"{name!r}, {kind!r}, {shape!r} is neither text nor sound nor an array")
    return Clip(name, kind, sizes, lengths, kept, lines)


def _fits(kind: str, shape: tuple[int, ...], runs: tuple[int, ...], kept: tuple[int, ...]) -> bool:
    """Whether a clip has as many runs, and as many parts beside them, as its kind says."""
    if kind not in KINDS:
        rows, width = shape if len(shape) == 2 else (1, *shape) if len(shape) == 1 else (-1, 0)
        return bool(DTYPE.fullmatch(kind)) and len(runs) == rows and max(runs, default=0) <= width and not kept
    counts = {KEPT: (0, 1), "bytes": (1, 0), "characters": (1, 1), "bpe": (1, 0), **dict.fromkeys(LINES.values(), (1, 3))}
    if kind in SOUNDS:
        return len(set(runs)) == 1 and len(kept) == 2 and not shape
    return (len(runs), len(kept)) == counts[kind] and not shape


# ---- symbols and pieces


def cut(runs: list[Array], manifest: Sequences) -> Tensor:
    """Runs of symbols as (n, T) pieces, filled up, in the smallest type that holds them."""
    spec = manifest.spec
    x = np.full((manifest.total, spec.sites), filling(spec), smallest(spec.levels or 2))
    if manifest.ended:
        own = np.split(manifest.run_of, np.flatnonzero(np.diff(manifest.run_of)) + 1) if len(x) else []
        places = [(int(rows[0]), start, stop - start) for rows in own for start, stop in _stretches(runs[rows[0]], spec).tolist()]
    else:
        places = manifest.pieces.tolist()
    for row, (run, start, length) in zip(x, places, strict=True):
        some = runs[run][start : start + length]
        row[: len(some)] = some
    return torch.from_numpy(x)


def line_stops(run: Array, spec: DataSpec) -> Array:
    """Where the lines of a run stop: after every end, one that follows the run too."""
    stops = np.flatnonzero(run == spec.end) + 1
    return stops if len(stops) and stops[-1] == len(run) else np.append(stops, len(run) + 1)


def _stretches(run: Array, spec: DataSpec) -> Array:
    """(k, 2) where the items of a run begin and end: after every end, one that follows the run too, and where an item is full."""
    stops = line_stops(run, spec)
    starts = np.append(0, stops[:-1])
    counts = -(-(stops - starts) // spec.sites)
    number = np.arange(counts.sum()) - np.repeat(np.cumsum(counts) - counts, counts)
    first = np.repeat(starts, counts) + number * spec.sites
    return np.stack([first, np.minimum(first + spec.sites, np.repeat(stops, counts))], 1)


def joined(x: Tensor, manifest: Sequences, rows: Array) -> list[Array | None]:
    """The runs that (m, T) pieces make, which are those at ``rows``; None for a run that misses one."""
    spec = manifest.spec
    if manifest.ended:
        return _joined_at_ends(x.numpy(), manifest, rows)
    runs: list[Array | None] = [np.zeros(length, smallest(spec.levels or 2)) for item in manifest.items for length in item.runs]
    for symbols, (run, start, length) in zip(x.numpy(), manifest.pieces[rows].tolist(), strict=True):
        place = runs[run]
        if place is not None:
            place[start : start + length] = symbols[:length]
    missing = np.ones(manifest.total, bool)
    missing[rows] = False
    for run in manifest.pieces[missing, 0].tolist():
        runs[run] = None
    return runs


def _joined_at_ends(x: Array, manifest: Sequences, rows: Array) -> list[Array | None]:
    """The same of items that their ends tell apart.

    Raises:
        CorruptHeader: they are other than the list of files says.
    """
    widths = np.minimum(lengths(torch.from_numpy(x), manifest.spec).numpy() + 1, manifest.spec.sites)
    sizes, have = [length for item in manifest.items for length in item.runs], manifest.run_of[rows]
    wanted = np.bincount(manifest.run_of, minlength=len(sizes))
    runs = list[Array | None]()
    for run, (size, count) in enumerate(zip(sizes, wanted, strict=True)):
        own = range(*np.searchsorted(have, [run, run + 1]).tolist())
        symbols = np.concatenate([x[:0].reshape(-1), *(x[row, : widths[row]] for row in own)])
        if len(own) == count and not size <= len(symbols) <= size + 1:
            raise CorruptHeader("the list of files is of other lines than the file holds: it was changed")
        runs.append(symbols[:size] if len(own) == count else None)
    return runs
