"""Files of text and sound as the items of a compressed file, and back byte for byte.

A text is its symbols in the notation of the model (`coding.texts`). A sound is the samples of a WAV file in that notation,
channel by channel; its head and whatever follows the samples are kept beside them. All other files are kept as they are,
compressed without a model.
"""

from __future__ import annotations

import struct
from collections.abc import Container, Iterator, Sequence
from dataclasses import dataclass
from itertools import accumulate, pairwise
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from ancestral.coding.beside import Kept
from ancestral.coding.blocks import counted, filling
from ancestral.coding.clips import KEPT, Clip, Sequences, joined, line_stops
from ancestral.coding.errors import CodecError, CorruptHeader
from ancestral.coding.manifest import Item
from ancestral.coding.pictures import array_item, arrays_in, npy
from ancestral.coding.texts import LINES, of_text, text_of
from ancestral.data.notation import Notation, Sound, Text
from ancestral.data.source import Array
from ancestral.spec import DataSpec
from ancestral.symbols import DataError

ARRAYS = (".npy", ".npz")
FORMATS = {(1, 16): "pcm16", (1, 8): "pcm8", (7, 8): "mulaw"}  # tags of WAV files, with bits
EXTENSIBLE = 0xFFFE  # the tag of those whose tag comes later


@dataclass(frozen=True, eq=False)
class Found:
    """What was read: the clips, their runs of symbols one after the other, what is kept beside them, and the bytes it was."""

    clips: tuple[Clip, ...]
    runs: list[Array]
    kept: bytes
    plain: int

    def longest_line(self, spec: DataSpec) -> int | None:
        """How many symbols the longest line or row has with its end; None where no lines are among them."""
        if not any(clip.kind in LINES.values() for clip in self.clips):
            return None
        return max(int(np.diff(line_stops(run, spec), prepend=0).max()) for run in self.runs)


@dataclass(frozen=True, eq=False)
class _Coded:
    """A file: its kind, its runs, and the parts that are kept beside them."""

    kind: str
    runs: tuple[Array, ...]
    beside: tuple[bytes, ...] = ()


# ---- in


def collected(
    paths: Sequence[Path],
    spec: DataSpec,
    notation: Notation | None,
    limit: int | None = None,
    lines: bool = False,
    kept: Container[str] = (),
) -> Found:
    """Files, folders of them, and arrays of symbols, in the alphabet of a model.

    Args:
        paths: where to look. Names are relative to a folder; where several paths are given, they begin with that of the folder.
            Files whose names begin with a dot are left out of folders.
        spec: of the model.
        notation: how its symbols are written; None if that is not known, and files of sound cannot be read.
        limit: at most so many files, the first ones.
        lines: whether every line of a text is an example of the model.
        kept: names of files to be kept as they are, without the model.

    Raises:
        DataError: a file is missing or broken, or of sound that the model would keep with less precision; it is named.
    """
    notation = notation or _told(spec)
    files = [found for path in paths for found in _listed(path, len(paths) == 1)]
    clips, runs, beyond, plain = list[Clip](), list[Array](), bytearray(), 0
    for path, name, inside in files[:limit]:
        if path.suffix.lower() in ARRAYS and not inside:
            some = [array_clip(*array_item(key, values, spec), spec) for key, values in arrays_in(path, name)]
        else:
            coded = _Coded(KEPT, (), (path.read_bytes(),)) if name in kept else _coded(path, notation, lines)
            beside = tuple(len(part) for part in coded.beside)
            some = [(Clip(name, coded.kind, (), tuple(len(run) for run in coded.runs), beside), coded.runs)]
            beyond += b"".join(coded.beside)
        plain += path.stat().st_size
        clips += [clip for clip, _ in some]
        runs += [run for _, own in some for run in own]
    return Found(tuple(clips), runs, bytes(beyond), plain)


def array_clip(item: Item, values: Array, spec: DataSpec) -> tuple[Clip, tuple[Array, ...]]:
    """An array of symbols, (T,) or (n, T), with its rows as runs, without the ends that fill them up.

    Raises:
        DataError: it has another shape, or a row goes on after its end.
    """
    if values.ndim not in (1, 2):
        raise DataError(f"{item.name} has shape {values.shape}, and the model takes (n, T) or (T,) symbols: bring it to that")
    rows = values if values.ndim == 2 else values[None]
    try:
        whole = counted(torch.from_numpy(rows.astype(np.int64)), spec).tolist()
    except DataError as error:
        raise DataError(f"{item.name}: {error}") from error
    runs = tuple(row[:length] for row, length in zip(rows, whole, strict=True))
    return Clip(item.name, item.kind, item.shape, tuple(len(run) for run in runs)), runs


def _told(spec: DataSpec) -> Notation | None:
    """The notation of a model that says none, where its symbols can mean but one thing."""
    alphabet = (spec.levels or 0) - (spec.end is not None)
    if spec.kind == "text":
        return Text() if alphabet == 256 else None
    return Sound(1, "pcm16") if spec.parts == 2 and alphabet == 256 else None


def _listed(path: Path, alone: bool) -> list[tuple[Path, str, bool]]:
    """The files of a path with their names, and whether they lie in a folder that was named."""
    if not path.exists():
        raise DataError(f"there is no file or folder {path}")
    if not path.is_dir():
        return [(path, path.name, False)]
    inside = [(file, file.relative_to(path)) for file in path.rglob("*") if file.is_file()]
    seen = [(name.as_posix(), file) for file, name in inside if not any(part.startswith(".") for part in name.parts)]
    if not seen:
        raise DataError(f"{path} holds no files")
    above = "" if alone else f"{path.resolve().name}/"
    return [(file, above + name, True) for name, file in sorted(seen)]


def _coded(path: Path, notation: Notation | None, lines: bool) -> _Coded:
    if notation is None:
        raise DataError(
            f"{path}: the run does not say how its symbols are written, since it was trained on arrays: hand over arrays of"
            " symbols (.npy)"
        )
    data = path.read_bytes()
    if isinstance(notation, Sound):
        return _of_sound(data, notation, path) or _Coded(KEPT, (), (data,))
    told = of_text(data, notation, lines)
    kind = LINES[notation.code] if lines else notation.code
    return _Coded(KEPT, (), (data,)) if told is None else _Coded(kind, (told[0],), told[1])


def _of_sound(data: bytes, notation: Sound, path: Path) -> _Coded | None:
    """The channels of a WAV file, and what stands before and after its samples; None for other files.

    Raises:
        DataError: the model would keep half of each sample.
    """
    code, channels, start, stop = _samples(data)
    if code == "pcm16" and notation.code != code:
        raise DataError(
            f"{path} has samples of 16 bits, and the model knows 8-bit ones ({notation.code}), which would keep only some of"
            " that: take a run trained with --notation pcm16, which keeps every bit"
        )
    if code != notation.code:
        return None
    rows = np.frombuffer(data[start:stop], "<i2" if code == "pcm16" else np.uint8).reshape(-1, channels).T
    return _Coded(code, tuple(_symbols(row, notation) for row in rows), (data[:start], data[stop:]))


def _samples(data: bytes) -> tuple[str | None, int, int, int]:
    """How the samples of a WAV file are written, how many channels they have, and where they begin and end."""
    form, place = b"", 12
    if data[:4] not in (b"RIFF", b"RF64") or data[8:12] != b"WAVE":
        return None, 0, 0, 0
    while len(data) >= place + 8:
        name, size = struct.unpack_from("<4sI", data, place)
        if name == b"data" and len(form) >= 16:
            tag, channels, bits = *struct.unpack_from("<HH", form), *struct.unpack_from("<H", form, 14)
            tag = struct.unpack_from("<H", form, 24)[0] if tag == EXTENSIBLE and len(form) >= 26 else tag
            width = channels * bits // 8
            there = min(size, len(data) - place - 8)
            code = FORMATS.get((tag, bits)) if channels else None
            return code, channels, place + 8, place + 8 + (there // width * width if width else 0)
        form = data[place + 8 : place + 8 + size] if name == b"fmt " else form
        place += 8 + size + size % 2
    return None, 0, 0, 0


def _symbols(samples: Array, notation: Sound) -> Array:
    """One channel as symbols: companded bytes, which count down from both ends, are brought into the order of their values."""
    if notation.code == "pcm16":
        return notation.codes(np.ascontiguousarray(samples, np.int16))
    return _ordered(samples) if notation.code == "mulaw" else samples


def _ordered(values: Array) -> Array:
    """Companded bytes, 8 bits, in the order of what they stand for; and back."""
    values = values.astype(np.int16)
    return np.where(values < 128, values, 383 - values).astype(np.uint8)


# ---- out


@dataclass(frozen=True, eq=False)
class Restored:
    """What can be had of a compressed file.

    Attributes:
        manifest: what it holds.
        runs: of symbols; None for those of which a piece is lost.
        kept: what was kept beside them.
        notation: how the symbols are written.
    """

    manifest: Sequences
    runs: list[Array | None]
    kept: Kept
    notation: Notation | None

    @classmethod
    def of(cls, x: Tensor, manifest: Sequences, rows: Array, kept: Kept, notation: Notation | None) -> Restored:
        """From (m, T) pieces, which are those at ``rows``."""
        return cls(manifest, joined(x, manifest, rows), kept, notation or _told(manifest.spec))

    def files(self) -> Iterator[tuple[str, bytes]]:
        """The name and content of every file that is whole; of an array those rows that are."""
        for item, content in zip(self.manifest.items, self._contents(), strict=True):
            if content is not None:
                yield item.target, content

    def lost(self) -> list[str]:
        """What cannot be restored: files by name, of arrays how many rows."""
        found = list[str]()
        for item, content, runs in zip(self.manifest.items, self._contents(), self._runs(), strict=True):
            missing = sum(run is None for run in runs)
            if len(item.shape) == 2 and missing:
                found.append(f"{item.name}: {missing} of {len(runs)} examples")
            elif content is None:
                found.append(item.name)
        return found

    def check(self, given: Found, others: Sequences) -> None:
        """Compare files, and the manifest of them, with those that were compressed.

        Raises:
            CodecError: there is none of that name, or another one.
        """
        parts = zip(self.manifest.items, self._runs(), self._beside(), strict=True)
        own = {item.target: (item, runs, beside) for item, runs, beside in parts}
        for item, run, place in zip(others.items, others.runs, others.beside, strict=True):
            if item.target not in own:
                raise CodecError(f"the file holds no {item.target!r}: name the files as when they were compressed")
            clip, runs, beside = own[item.target]
            alike = clip == item and beside == given.kept[place.start : place.stop]
            pairs = zip(given.runs[run.start : run.stop], runs, strict=False)
            if not alike or not all(each is not None and np.array_equal(one, each) for one, each in pairs):
                raise CodecError(f"{item.name!r} is not what the file holds under that name: one of them was changed")

    def _runs(self) -> Iterator[list[Array | None]]:
        return (self.runs[place.start : place.stop] for place in self.manifest.runs)

    def _beside(self) -> Iterator[bytes | None]:
        return (self.kept.cut(place.start, place.stop) for place in self.manifest.beside)

    def _contents(self) -> Iterator[bytes | None]:
        for item, runs, beside in zip(self.manifest.items, self._runs(), self._beside(), strict=True):
            whole = [run for run in runs if run is not None]
            if len(item.shape) == 2 and (whole or not runs):
                yield npy(_rows(whole, item, self.manifest.spec))
            elif len(whole) < len(runs) or beside is None:
                yield None
            else:
                yield npy(_rows(whole, item, self.manifest.spec)[0]) if item.shape else self._content(item, whole, beside)

    def _content(self, item: Clip, runs: list[Array], beside: bytes) -> bytes:
        """One file.

        Raises:
            CodecError: it is written in a way that the run does not know.
        """
        if item.kind == KEPT:
            return beside
        notation = self.notation
        if notation is None or item.kind not in (notation.code, LINES.get(notation.code)):
            raise CodecError(
                f"{item.name!r} is written in {item.kind}, which the model's run does not tell of: name it (--model)"
            )
        ends = list(accumulate(item.beside, initial=0))
        parts = [beside[start:stop] for start, stop in pairwise(ends)]
        if not isinstance(notation, Text):
            return parts[0] + np.stack([_values(run, item.kind) for run in runs], 1).tobytes() + parts[1]
        try:
            return text_of(item.kind, runs[0], parts, notation)
        except (ValueError, IndexError) as error:
            raise CorruptHeader(f"{item.name!r} does not fit what is kept beside it ({error}): the file was changed") from error


def _rows(runs: list[Array], item: Clip, spec: DataSpec) -> Array:
    """(n, T) an array of rows, filled up."""
    x = np.full((len(runs), item.shape[-1]), filling(spec), np.int64)
    for place, run in zip(x, runs, strict=True):
        place[: len(run)] = run
    return x.astype(item.kind)


def _values(symbols: Array, code: str) -> Array:
    """The inverse of ``_symbols``: one channel as a WAV file holds it."""
    if code == "pcm16":
        return symbols.astype(np.uint8).view(">u2").astype("<u2") ^ np.uint16(0x8000)
    return _ordered(symbols) if code == "mulaw" else symbols.astype(np.uint8)
