"""Pictures and arrays as the items of a compressed file, and back: nothing is rounded, cropped, converted or resized on the way.

Pictures of another size than the model's are cut into tiles of that size, row by row; the last tiles of a row and of a column
are filled up by repeating the edge.
"""

from __future__ import annotations

import io
import re
import zipfile
import zlib
from collections.abc import Iterable, Iterator, Sequence
from itertools import count
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from ancestral.coding.clips import Sequences
from ancestral.coding.errors import CodecError
from ancestral.coding.manifest import CHANNELS, Item, Manifest
from ancestral.data.images import SUFFIXES, png
from ancestral.data.source import Array
from ancestral.spec import DataSpec
from ancestral.symbols import DataError

ORIENTATION = 0x0112  # the tag by which a camera says how to turn the picture
_DEEP = re.compile(r";16[BLN]")  # how Pillow calls 16 bits that it brings down to 8


# ---- in


def collected(paths: Sequence[Path], spec: DataSpec, limit: int | None = None) -> tuple[Tensor, Manifest]:
    """Picture files, folders of them, and arrays, as (n, \\*shape) int64 symbols of a model's alphabet, and what they were.

    A pixel of a picture is a symbol k if it is round(255 k / (levels - 1)); the values of an array are symbols. The pixels of
    a picture are kept as they are stored; its metadata are not kept.

    Args:
        paths: where to look. Names are relative to a folder; where several paths are given, they begin with that of the folder.
        spec: of the model.
        limit: at most so many files, the first ones.

    Raises:
        DataError: a file is missing or broken, or the model's alphabet cannot tell it exactly; it is named.
        CodecError: a file has a name that cannot be restored everywhere.
    """
    files = [found for path in paths for found in _listed(path, len(paths) == 1)]
    return assembled((each for file, name in files[:limit] for each in _read(file, name, spec)), spec)


def assembled(sources: Iterable[tuple[Item, Array]], spec: DataSpec) -> tuple[Tensor, Manifest]:
    """Items and their symbols, as many as their shape says, in the form that ``collected`` gives them; errors as there."""
    found = list(sources)
    manifest = Manifest(spec, tuple(item for item, _ in found))
    tiles = [_cut(symbols, item, spec) for item, symbols in found]
    empty = np.zeros((0, *(size or 0 for size in spec.shape)), np.int64)
    return torch.from_numpy(np.concatenate([empty, *tiles])), manifest


def array_item(name: str, values: Array, spec: DataSpec) -> tuple[Item, Array]:
    """An array of symbols as a source of ``assembled``.

    Raises:
        DataError: its values are not symbols of the alphabet.
    """
    if spec.levels is None:
        raise DataError("the model is of real values, which files cannot hold: take one of whole levels")
    if values.dtype.kind not in "bui":
        raise DataError(f"{name} holds {values.dtype}, and only whole numbers can be kept: save symbols 0, 1, ... as integers")
    low, high = (int(values.min()), int(values.max())) if values.size else (0, 0)
    if low < 0 or high >= spec.levels:
        raise DataError(
            f"{name} has values {low} .. {high}, and the model knows 0 .. {spec.levels - 1}: take a model of such data, or bring"
            " them to its levels beforehand"
        )
    return Item(name, values.dtype.str, values.shape), values


def _listed(path: Path, alone: bool) -> list[tuple[Path, str]]:
    """The files of a path with their names."""
    if not path.exists():
        raise DataError(f"there is no file or folder {path}")
    if not path.is_dir():
        return [(path, path.name)]
    inside = [(file, file.relative_to(path)) for file in path.rglob("*") if file.suffix.lower() in SUFFIXES and file.is_file()]
    seen = [(name.as_posix(), file) for file, name in inside if not any(part.startswith(".") for part in name.parts)]
    if not seen:
        raise DataError(f"{path} holds no images ({', '.join(SUFFIXES)})")
    above = "" if alone else f"{path.resolve().name}/"
    return [(file, above + name) for name, file in sorted(seen)]


def _read(path: Path, name: str, spec: DataSpec) -> Iterator[tuple[Item, Array]]:
    if path.suffix.lower() not in (".npy", ".npz"):
        yield _picture(path, name, spec)
        return
    for key, values in arrays_in(path, name):
        yield array_item(key, values, spec)


def arrays_in(path: Path, name: str) -> Iterator[tuple[str, Array]]:
    """The arrays of a ``.npy`` or ``.npz`` file, with their names.

    Raises:
        DataError: it is broken.
    """
    try:
        with path.open("rb") as file:  # numpy.load would leave a broken archive open
            loaded = np.load(file, allow_pickle=False)
            arrays = {name: loaded} if isinstance(loaded, np.ndarray) else {f"{name[:-4]}/{key}": loaded[key] for key in loaded}
    except (ValueError, EOFError, OSError, KeyError, zipfile.BadZipFile, zlib.error) as error:
        raise DataError(f"{path} cannot be read ({error}): write it with numpy.save or numpy.savez, of plain numbers") from error
    yield from arrays.items()


def _picture(path: Path, name: str, spec: DataSpec) -> tuple[Item, Array]:
    """One picture, its symbols in the order (H, W, C).

    Raises:
        DataError: it cannot be read, or the model cannot tell it exactly.
    """
    try:
        with Image.open(path) as image:
            fault = _unfit(image, spec)  # before the pixels are read: some of what it asks for is gone then
            kind, pixels = image.mode, np.asarray(image)
    except (OSError, SyntaxError, ValueError, EOFError, Image.DecompressionBombError) as error:
        raise DataError(f"{path} cannot be read as an image ({error}): repair or remove it") from error
    if fault is not None:
        raise DataError(f"{path} {fault}")
    pixels = pixels * np.uint8(255) if kind == "1" else pixels
    levels, symbols = spec.levels or 0, np.full(256, -1)
    symbols[shown(levels)] = np.arange(levels)
    found = symbols[pixels]
    if (found < 0).any():
        row, column = np.argwhere(found < 0)[0][:2]
        raise DataError(
            f"{path} has {pixels[row, column]} in row {row}, column {column}, and the {levels} levels of the model are shown as"
            f" {', '.join(map(str, shown(levels)[:3]))} ...: only such pixels are kept exactly, so bring it to them beforehand"
        )
    return Item(name, kind, found.shape[:2]), found


def _unfit(image: Image.Image, spec: DataSpec) -> str | None:
    """Why a picture is not one that a model of this kind can tell exactly, or None."""
    fitting = [mode for mode, channels in CHANNELS.items() if spec.kind == "image" and channels == spec.shape[0]]
    if not fitting or (spec.levels or 257) > 256:
        return "is a picture, and the model takes none: hand over an array of symbols (.npy)"
    if getattr(image, "n_frames", 1) > 1:
        return "has several frames: save each as a picture of its own"
    deep = _sixteen_bits(image)
    if image.mode not in fitting or image.has_transparency_data or deep:
        extra = " with transparency" if image.has_transparency_data else " with 16 bits" if deep else ""
        return (
            f"has mode {image.mode}{extra}, and the model takes {' and '.join(fitting)}, of 8 bits at most, without palette or"
            " transparency: convert it beforehand, if what that loses may be lost"
        )
    if image.getexif().get(ORIENTATION, 1) != 1:
        return "is to be turned, by its metadata, which are not kept: turn its pixels beforehand"
    return None


def _sixteen_bits(image: Image.Image) -> bool:
    """Whether Pillow, which has no mode for 16 bits in each of several channels, is about to bring them down to 8."""
    arguments = [tile[3] for tile in getattr(image, "tile", ())]
    largest = [each[1] for each in arguments if image.format == "PPM" and isinstance(each, tuple)]
    return any(_DEEP.search(str(each)) for each in arguments) or any(value > 255 for value in largest)


def shown(levels: int) -> Array:
    """(levels,) the byte by which each symbol is shown in a picture."""
    return np.round(np.arange(levels) * (255 / (levels - 1))).astype(np.uint8)


def _cut(symbols: Array, item: Item, spec: DataSpec) -> Array:
    """Symbols as (m, \\*shape) tiles."""
    shape, axis = item.layout(spec)
    x = np.moveaxis(symbols.reshape(shape), axis, 1).astype(np.int64)
    if spec.kind != "image":
        return x
    channels, height, width = (size or 1 for size in spec.shape)
    x = np.pad(x, ((0, 0), (0, 0), (0, -x.shape[2] % height), (0, -x.shape[3] % width)), mode="edge")
    grid = x.reshape(len(x), channels, x.shape[2] // height, height, x.shape[3] // width, width)
    return grid.transpose(0, 2, 4, 1, 3, 5).reshape(-1, channels, height, width)


# ---- out


def restored_files(x: Tensor, manifest: Manifest, rows: Array | None = None) -> Iterator[tuple[str, bytes]]:
    """The name and content of every file: PNG for a picture, ``.npy`` for an array.

    Args:
        x: (n, \\*shape) symbols.
        manifest: what they are.
        rows: (n,) which of the items x has, ascending, where some are lost; a picture that misses a tile is left out, and an
            array then has fewer examples.
    """
    for item, found, whole in _found(manifest, np.arange(len(x)) if rows is None else rows):
        if len(whole) or not item.batch(manifest.spec)[0]:
            examples = _joined(x.numpy()[found], item, manifest.spec)
            if item.kind in CHANNELS:
                yield item.target, png(shown(manifest.spec.levels or 0)[examples][0], item.kind)
            else:
                yield item.target, npy(examples.reshape(len(examples), *item.shape[1:]).astype(item.kind))


def restored_labels(labels: Tensor, manifest: Manifest, rows: Array) -> list[int]:
    """The label of every example that ``restored_files`` gives back, in its order, from (n,) labels of the items ``rows``."""
    found = [labels[place[:: item.tiles(manifest.spec)]].tolist() for item, place, _ in _found(manifest, rows)]
    return [label for each in found for label in each]


def labels_name(manifest: Manifest | Sequences) -> str:
    """The file for labels, ``labels.npy`` unless one of the items has that name."""
    taken = {item.target.casefold() for item in manifest.items}
    names = ("labels.npy" if i == 1 else f"labels-{i}.npy" for i in count(1))
    return next(name for name in names if name not in taken)


def lost_files(manifest: Manifest, rows: Array) -> list[str]:
    """What cannot be restored from these rows: pictures by name, of arrays how many examples."""
    counts = [(item, len(whole), item.batch(manifest.spec)[0]) for item, _, whole in _found(manifest, rows)]
    return [
        item.name if item.kind in CHANNELS else f"{item.name}: {n - have} of {n} examples" for item, have, n in counts if have < n
    ]


def _found(manifest: Manifest, rows: Array) -> Iterator[tuple[Item, Array, Array]]:
    """Every item, where the tiles of its complete examples are among the rows, and which examples those are."""
    for item, place in zip(manifest.items, manifest.places, strict=True):
        first, end = np.searchsorted(rows, (place.start, place.stop))
        tiles = item.tiles(manifest.spec)
        examples = (rows[first:end] - place.start) // tiles
        numbers, counts = np.unique(examples, return_counts=True)
        whole = numbers[counts == tiles]
        yield item, first + np.flatnonzero(np.isin(examples, whole)), whole


def _joined(tiles: Array, item: Item, spec: DataSpec) -> Array:
    """The examples that (m, \\*shape) tiles make, in the layout of the item."""
    _, axis = item.layout(spec)
    if spec.kind == "image":
        _, channels, height, width = item.batch(spec)
        _, h, w = (size or 1 for size in spec.shape)
        down, across = -(-height // h), -(-width // w)
        grid = tiles.reshape(-1, down, across, channels, h, w).transpose(0, 3, 1, 4, 2, 5)
        tiles = grid.reshape(-1, channels, down * h, across * w)[:, :, :height, :width]
    return np.moveaxis(tiles, 1, axis)


def npy(values: Array) -> bytes:
    """An array as the content of an ``.npy`` file."""
    memory = io.BytesIO()
    np.save(memory, values, allow_pickle=False)
    return memory.getvalue()


def png_size(x: Tensor, manifest: Manifest) -> int | None:
    """Bytes that the same pictures take as PNG files; None where they are no pictures."""
    spec = manifest.spec
    kind = {1: "1" if spec.levels == 2 else "L", 3: "RGB"}.get(spec.shape[0] or 0)
    if spec.kind != "image" or kind is None or (spec.levels or 257) > 256:
        return None
    size = 0
    for item, place in zip(manifest.items, manifest.places, strict=True):
        _, axis = item.layout(spec)
        examples = np.moveaxis(_joined(x.numpy()[place.start : place.stop], item, spec), axis, 3)
        mode = item.kind if item.kind in CHANNELS else kind
        size += sum(len(png(shown(spec.levels or 0)[example], mode)) for example in examples)
    return size


def check_folder(
    manifest: Manifest | Sequences, folder: Path, overwrite: bool, beside: Sequence[str] = (), flag: str = "--out"
) -> None:
    """Say beforehand whether the files, and those written ``beside`` them, can be put into a folder, which a flag names.

    Raises:
        CodecError: a link in the folder would lead out of it, or a file exists that is not to be overwritten or in the way.
    """
    home = folder.resolve()
    for name in [*(item.target for item in manifest.items), *beside]:
        path = folder / name
        if not path.parent.resolve().is_relative_to(home):
            raise CodecError(f"{path.parent} is a link that leads out of {folder}: name another folder ({flag})")
        if path.exists() and not overwrite:
            raise CodecError(f"{path} exists: name another folder ({flag}), or replace what is there (--force)")
        above = next(each for each in path.parents if each.exists())
        if not above.is_dir():
            raise CodecError(f"cannot use {above}, which is no folder: name another one ({flag})")


def check_same(x: Tensor, manifest: Manifest, given: Tensor, given_manifest: Manifest) -> None:
    """Compare pictures with those of a file.

    Raises:
        CodecError: the file has none of that name, or another one.
    """
    own = {item.target: (item, place) for item, place in zip(manifest.items, manifest.places, strict=True)}
    for item, place in zip(given_manifest.items, given_manifest.places, strict=True):
        if item.target not in own:
            raise CodecError(f"the file holds no {item.target!r}: name the pictures as when they were compressed")
        other, there = own[item.target]
        alike = (item.kind, item.shape) == (other.kind, other.shape)
        if not alike or not torch.equal(given[place.start : place.stop], x[there.start : there.stop]):
            raise CodecError(f"{item.name!r} is not the picture that the file holds under that name: one of them was changed")


def check_labels(labels: Tensor, manifest: Manifest, given: Tensor, given_manifest: Manifest) -> None:
    """Compare (n,) labels of the items of a file with given ones, once ``check_same`` has compared their pictures.

    Raises:
        CodecError: a label differs.
    """
    own = {item.target: place for item, place in zip(manifest.items, manifest.places, strict=True)}
    for item, place in zip(given_manifest.items, given_manifest.places, strict=True):
        known, kept = given[place.start : place.stop], labels[own[item.target].start : own[item.target].stop]
        wrong = (known != kept).nonzero()[:, 0].tolist()
        if wrong:
            raise CodecError(
                f"{item.name!r} has label {int(kept[wrong[0]])} in the file and {int(known[wrong[0]])} here: one was changed"
            )
