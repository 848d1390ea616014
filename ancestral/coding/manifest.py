"""What the items of a compressed file are: names, shapes and types, as its header carries them."""

from __future__ import annotations

import base64
import json
import re
import unicodedata
import zlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import accumulate, pairwise
from math import prod
from pathlib import PurePosixPath
from typing import Any, TypeVar

import torch
from torch import Tensor

from ancestral.coding.container import LONGEST_HEADER
from ancestral.coding.errors import CodecError, CorruptHeader
from ancestral.spec import DataSpec
from ancestral.symbols import DataError

T = TypeVar("T")
CHANNELS = {"1": 1, "L": 1, "RGB": 3}  # the modes of Pillow that are kept
ROOM = LONGEST_HEADER * 3 // 4  # characters for a manifest, so that the header has room for the rest
LONGEST = 64 << 20  # bytes of a manifest's JSON
DTYPE = re.compile(r"\|[bui]1|[<>][ui][248]")


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
        """The shape with an axis for examples, the first, and one for channels (of vectors, their only one); and which that is.

        Raises:
            DataError: the model does not take this shape.
        """
        shape, channels, axis = self.shape, spec.shape[0], None
        if spec.kind != "image":
            axis = 1 if self.kind not in CHANNELS and shape[1:] == spec.shape else None
        elif self.kind in CHANNELS:
            shape = (1, *shape, CHANNELS[self.kind])
            axis = 3 if shape[3] == channels else None
        elif len(shape) == 3 and channels == 1:
            shape, axis = (*shape, 1), 3
        elif len(shape) == 4:
            axis = next((axis for axis in (1, 3) if shape[axis] == channels), None)
        if axis is None or 0 in shape[1:]:
            raise DataError(
                f"{self.name} has shape {self.shape}, and the model takes {_wanted(spec)}: bring it to that, or leave it out"
            )
        return shape, axis

    def batch(self, spec: DataSpec) -> tuple[int, ...]:
        """(n, C, H, W), or of vectors (n, D)."""
        shape, axis = self.layout(spec)
        return (shape[0], shape[axis], *(size for i, size in enumerate(shape) if i not in (0, axis)))

    def tiles(self, spec: DataSpec) -> int:
        """How many items of the model each of its examples takes."""
        return prod(-(-size // (tile or 1)) for size, tile in zip(self.batch(spec)[1:], spec.shape, strict=True))


def _wanted(spec: DataSpec) -> str:
    if spec.kind != "image":
        return f"(n, {', '.join(map(str, spec.shape))})"
    channels = spec.shape[0]
    return f"{'(n, H, W), ' if channels == 1 else ''}(n, {channels}, H, W) or (n, H, W, {channels})"


@dataclass(frozen=True)
class Manifest:
    """What the items of a file are, in their order.

    Raises:
        CodecError: a name could be written outside a folder, or not on every system, or two are the same.
        DataError: an item does not fit the model.

    Example:
        >>> items = Item("a/b.jpg", "L", (9, 20)), Item("c.npy", "|u1", (5, 8, 8))
        >>> Manifest(DataSpec("image", (1, 8, 8), 256), items).places
        (range(0, 6), range(6, 11))
        >>> [item.target for item in items]
        ['a/b.jpg.png', 'c.npy']
    """

    spec: DataSpec
    items: tuple[Item, ...]

    def __post_init__(self) -> None:
        check_names([item.target for item in self.items])
        for item in self.items:
            item.layout(self.spec)

    @cached_property
    def places(self) -> tuple[range, ...]:
        """Which items of the model each of ours takes."""
        ends = accumulate((item.batch(self.spec)[0] * item.tiles(self.spec) for item in self.items), initial=0)
        return tuple(range(first, end) for first, end in pairwise(ends))

    @property
    def total(self) -> int:
        """How many items of the model there are."""
        return self.places[-1].stop if self.places else 0

    @property
    def examples(self) -> int:
        """How many pictures there are; every example of an array counts as one."""
        return sum(item.batch(self.spec)[0] for item in self.items)

    @property
    def symbols(self) -> int:
        """How many symbols they have, without those that fill up tiles."""
        return sum(prod(item.batch(self.spec)) for item in self.items)

    def text(self) -> str:
        """The manifest as a header holds it: JSON, deflated, in base 64.

        Raises:
            CodecError: there are too many names for a header.
        """
        return deflated([[item.name, item.kind, item.shape] for item in self.items])

    @classmethod
    def from_text(cls, text: Any, spec: DataSpec) -> Manifest:
        """The manifest that ``text`` wrote.

        Raises:
            CodecError: it is damaged or too large, or its names are not safe to write.
        """
        return inflated(text, lambda entries: cls(spec, tuple(_item(*entry) for entry in entries)))

    def spread(self, known: Tensor) -> Tensor:
        """Labels of examples, (examples,), as those of the items that they are cut into, (total,)."""
        tiles = [item.tiles(self.spec) for item in self.items for _ in range(item.batch(self.spec)[0])]
        return known.repeat_interleave(torch.tensor(tiles, dtype=torch.long))


def deflated(entries: Sequence[Sequence[Any]]) -> str:
    """What is known of the items as a header holds it: JSON, deflated, in base 64.

    Raises:
        CodecError: there are too many for a header.
    """
    listed = json.dumps(entries, separators=(",", ":")).encode()
    text = base64.b64encode(zlib.compress(listed, 9)).decode()
    if len(text) > ROOM or len(listed) >= LONGEST:
        raise CodecError(f"the names of {len(entries):,} files are too long for one header: compress fewer files at once")
    return text


def inflated(text: Any, made: Callable[[Any], T]) -> T:
    """What is made of the entries that were given to ``deflated``.

    Raises:
        CorruptHeader: they are damaged or too large.
    """
    try:
        inflater = zlib.decompressobj()
        listed = inflater.decompress(base64.b64decode(text, validate=True), LONGEST)
        if not inflater.eof:
            raise ValueError(f"it is cut short, or longer than {LONGEST >> 20} MiB")
        return made(json.loads(listed))
    except (ValueError, TypeError, RecursionError, zlib.error) as error:
        raise CorruptHeader(f"the list of files is damaged ({error}): copy the file again") from error


def _item(name: Any, kind: Any, shape: Any) -> Item:
    sizes = tuple(size for size in shape if type(size) is int and size >= 0)
    known = len(sizes) == 2 if kind in CHANNELS else DTYPE.fullmatch(kind)
    if not isinstance(name, str) or not known or len(sizes) < len(shape):
        raise ValueError(f"{name!r}, {kind!r}, {shape!r} is neither a picture nor an array")
    return Item(name, kind, sizes)


def check_names(names: Sequence[str]) -> None:
    """Refuse names that lead out of the folder they are written to, on any system, or cannot stand beside each other."""
    seen: dict[str, str] = {}
    for name in names:
        strange = any(letter in "\\:" or unicodedata.category(letter) in ("Cc", "Cs") for letter in name)
        if strange or not all(part.strip(" .") for part in name.split("/")):  # Windows drops spaces and dots at the end
            raise CodecError(
                f"the name {name!r} is absolute, leads out of its folder, or has a character that not every system takes"
                " (backslash, colon, control characters): the file must be renamed before it is compressed"
            )
        folded = _folded(name)
        if folded in seen:
            raise CodecError(
                f"{seen[folded]!r} and {name!r} would be restored as one file, on some systems at least: rename one, or compress"
                " the folder that holds both"
            )
        seen[folded] = name
    for name in names:
        above = next((str(folder) for folder in PurePosixPath(name).parents if _folded(str(folder)) in seen), None)
        if above is not None:
            raise CodecError(f"{above!r} would be a file, and the folder of {name!r}: rename one")


def _folded(name: str) -> str:
    return unicodedata.normalize("NFC", unicodedata.normalize("NFC", name).casefold())
