"""Pictures and arrays as the items of a compressed file, and back: nothing is rounded, cropped, converted or resized on the way.

Pictures of another size than the model's are cut into tiles of that size, row by row; the last tiles of a row and of a column
are filled up by repeating the edge. What the items were is written down in a manifest, which a file carries in its header.
"""

from __future__ import annotations

import base64
import io
import json
import re
import unicodedata
import zlib
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from math import ceil, prod
from pathlib import Path, PurePosixPath
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from ancestral.coding.container import LONGEST_HEADER
from ancestral.coding.errors import CodecError, CorruptHeader
from ancestral.core import DataError
from ancestral.data.files import read_arrays
from ancestral.data.images import SUFFIXES
from ancestral.data.source import Array
from ancestral.spec import DataSpec

KEY = "files"  # of the header
CHANNELS = {"1": 1, "L": 1, "RGB": 3}  # Pillow's modes that are kept
ROOM = LONGEST_HEADER * 3 // 4  # characters for a manifest, so that the header has room for the rest
LONGEST = 64 << 20  # bytes of a manifest's JSON
ORIENTATION = 0x0112  # the tag by which a camera says how the picture is to be turned
_DTYPE = re.compile(r"[<>|][bui][1248]")
_DEEP = re.compile(r";16[BLN]")  # Pillow's name for 16 bits that it brings down to 8


@dataclass(frozen=True)
class Item:
    """What was compressed under one name.

    Attributes:
        name: of the file, with ``/`` between folders.
        kind: the mode of a picture, ``"1"``, ``"L"`` or ``"RGB"``, or the type of an array as NumPy writes it, such as ``"<i8"``.
        shape: (height, width) of a picture; (n, ...) of an array.
    """

    name: str
    kind: str
    shape: tuple[int, ...]

    @property
    def target(self) -> str:
        """The name under which it is restored: that of a PNG file or of an ``.npy``."""
        suffix = ".png" if self.kind in CHANNELS else ".npy"
        return self.name if self.name.lower().endswith(suffix) else self.name + suffix

    def layout(self, spec: DataSpec) -> tuple[tuple[int, ...], int]:
        """The shape with an axis for examples and one for channels, and which axis the latter is; vectors have the former alone.

        Raises:
            DataError: a model of this kind does not take that shape.
        """
        channels, full = spec.shape[0], self.shape
        if self.kind in CHANNELS:
            return (1, *self.shape, CHANNELS[self.kind]), 3
        if spec.kind == "image" and len(full) == 3 and channels == 1:
            full = (*full, 1)
        if 0 not in full[1:]:
            for axis in (1, 3) if spec.kind == "image" else ():
                if len(full) == 4 and full[axis] == channels and len(self.shape) >= axis:
                    return full, axis
            if spec.kind != "image" and full[1:] == spec.shape:
                return full, 1
        raise DataError(f"{self.name} is an array of shape {self.shape}; this model takes {_wanted(spec)}: {ALONE}")

    def batch(self, spec: DataSpec) -> tuple[int, ...]:
        """(n, C, H, W) of an image model, (n, D) of others."""
        shape, axis = self.layout(spec)
        return (shape[0], shape[axis], *(size for i, size in enumerate(shape) if i not in (0, axis)))

    def tiles(self, spec: DataSpec) -> int:
        """How many items of the model each of its examples takes."""
        return prod(ceil(size / (tile or size)) for size, tile in zip(self.batch(spec)[1:], spec.shape, strict=True))


ALONE = "bring it to that shape, or leave it out (labels and the like go into a file of their own)"


def _wanted(spec: DataSpec) -> str:
    if spec.kind != "image":
        return f"(n, {', '.join(map(str, spec.shape))})"
    channels = spec.shape[0]
    return f"{'(n, H, W), ' if channels == 1 else ''}(n, {channels}, H, W) or (n, H, W, {channels})"


@dataclass(frozen=True)
class Manifest:
    """What the items of a file are, in their order.

    Raises:
        CodecError: a name could be written outside a folder, or not on every system; or two are the same.
        DataError: an array does not fit the model.
    """

    spec: DataSpec
    items: tuple[Item, ...]

    def __post_init__(self) -> None:
        _check_names([item.target for item in self.items])
        self.ends  # noqa: B018 -- every shape is looked at

    @cached_property
    def ends(self) -> tuple[int, ...]:
        """Where the tiles of each item end among those of all."""
        counts = [item.batch(self.spec)[0] * item.tiles(self.spec) for item in self.items]
        return tuple(int(end) for end in np.cumsum(np.array(counts, dtype=object)))

    @property
    def total(self) -> int:
        """How many items of the model there are."""
        return self.ends[-1] if self.ends else 0

    @property
    def examples(self) -> int:
        """How many pictures there are, each example of an array counted as one."""
        return sum(item.batch(self.spec)[0] for item in self.items)

    @property
    def symbols(self) -> int:
        """How many symbols they have, those that fill up tiles left out."""
        return sum(prod(item.batch(self.spec)) for item in self.items)

    def text(self) -> str:
        """The manifest as a header holds it: JSON, deflated, in base 64.

        Raises:
            CodecError: there are too many names for a header.
        """
        listed = json.dumps([[item.name, item.kind, item.shape] for item in self.items], separators=(",", ":"))
        text = base64.b64encode(zlib.compress(listed.encode(), 9)).decode()
        if len(text) > ROOM or len(listed) > LONGEST:
            raise CodecError(
                f"the names of {len(self.items):,} files are too long for one file: compress fewer at once, or them as one array"
            )
        return text

    @classmethod
    def from_text(cls, text: Any, spec: DataSpec) -> Manifest:
        """The manifest that ``text`` wrote.

        Raises:
            CodecError: it is damaged, too large, or its names are not safe to write.
        """
        try:
            inflater = zlib.decompressobj()
            listed = inflater.decompress(base64.b64decode(text, validate=True), LONGEST)
            if not inflater.eof:
                raise ValueError(f"it has more than {LONGEST >> 20} MiB, or is cut short")
            return cls(spec, tuple(_item(*entry) for entry in json.loads(listed)))
        except (ValueError, TypeError, RecursionError, zlib.error) as error:  # DataError is a ValueError
            raise CorruptHeader(f"the list of files is damaged ({error}): copy the file again") from error


def _item(name: Any, kind: Any, shape: Any) -> Item:
    picture = kind in CHANNELS
    if not isinstance(name, str) or not (picture or _DTYPE.fullmatch(kind)) or not all(type(size) is int for size in shape):
        raise ValueError(f"{name!r} is neither a picture nor an array")
    if min(shape, default=0) < picture or (picture and len(shape) != 2):
        raise ValueError(f"{name!r} has shape {shape}")
    return Item(name, kind, tuple(shape))


def _check_names(names: Sequence[str]) -> None:
    """Refuse names that leave the folder they are written to, on any system, or that cannot stand beside each other."""
    seen: dict[str, str] = {}
    for name in names:
        strange = [c for c in name if c in "\\:" or unicodedata.category(c) in ("Cc", "Cs")]
        if strange or not all(part.strip(" .") for part in name.split("/")):  # Windows drops spaces and dots at an end
            raise CodecError(
                f"the name {name!r} is absolute, leads out of its folder, or has a character that no name may have on every "
                "system (backslash, colon, control characters): rename the file before it is compressed"
            )
        key = _same(name)
        if key in seen:
            raise CodecError(
                f"two files would be restored as {seen[key]!r} and {name!r}, which not every system tells apart: rename one, or "
                "compress the folder that holds both"
            )
        seen[key] = name
    for name in names:
        if above := next((seen[_same(str(each))] for each in PurePosixPath(name).parents if _same(str(each)) in seen), None):
            raise CodecError(f"{above!r} would be a file and the folder of {name!r}: rename one")


def _same(name: str) -> str:
    return unicodedata.normalize("NFC", unicodedata.normalize("NFC", name).casefold())


# ---- in


def collected(paths: Sequence[Path], spec: DataSpec, limit: int | None = None) -> tuple[Tensor, Manifest]:
    """Picture files, folders of them, and arrays, as (n, \\*shape) int64 symbols of a model's alphabet and what they were.

    A pixel v of a picture stands for the symbol that is shown as v, one of round(255 k / (levels - 1)); the values of an array
    are symbols. Of a picture its pixels as stored are kept, not its metadata.

    Args:
        paths: where to look. Names are relative to a single folder; of several paths, each keeps its last part.
        spec: of the model.
        limit: at most so many files, the first ones.

    Raises:
        DataError: a file is missing, broken, or cannot be told exactly in the model's alphabet; it is named.
        CodecError: a file has a name that could not be restored everywhere.
    """
    files = [found for path in paths for found in _listed(path, path if len(paths) == 1 else path.parent)]
    return assembled((each for file, name in files[:limit] for each in _read(file, name, spec)), spec)


def assembled(sources: Iterable[tuple[Item, Array]], spec: DataSpec) -> tuple[Tensor, Manifest]:
    """Items with their symbols, in the shape of the item, as ``collected`` gives them.

    Raises:
        DataError, CodecError: as ``collected``.
    """
    found = list(sources)
    manifest = Manifest(spec, tuple(item for item, _ in found))
    tiles = [_cut(symbols.reshape(item.layout(spec)[0]), item, spec) for item, symbols in found]
    shape = tuple(size or 0 for size in spec.shape)
    return torch.from_numpy(np.concatenate([np.zeros((0, *shape), np.int64), *tiles])), manifest


def array(name: str, values: Array, spec: DataSpec) -> tuple[Item, Array]:
    """An array of symbols as an item.

    Raises:
        DataError: its values are no symbols of the alphabet.
    """
    if values.dtype.kind not in "bui":
        raise DataError(f"{name} holds {values.dtype}, and only whole numbers are kept exactly: save symbols 0, 1, ... as integers")
    low, high = (int(values.min()), int(values.max())) if values.size else (0, 0)
    levels = spec.levels or 0
    if low < 0 or high >= levels:
        raise DataError(
            f"{name} has values from {low} to {high}, and the model knows 0 .. {levels - 1}: compress it with a model of its levels"
        )
    return Item(name, values.dtype.str, values.shape), values


def _listed(path: Path, base: Path) -> list[tuple[Path, str]]:
    """Files with their names."""
    if path.is_file():
        return [(path, path.name)]
    if not path.exists():
        raise DataError(f"there is no file or folder {path}")
    inside = [file for file in path.rglob("*") if file.suffix.lower() in SUFFIXES and file.is_file()]
    names = {file.relative_to(base if base != path.parent else base).as_posix(): file for file in inside}
    seen = sorted(name for name, file in names.items() if not any(p.startswith(".") for p in file.relative_to(path).parts))
    if not seen:
        raise DataError(f"{path} holds no images ({', '.join(SUFFIXES)})")
    return [(names[name], name) for name in seen]
