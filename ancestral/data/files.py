"""One file: NumPy's ``.npy`` and ``.npz``, or idx."""

from __future__ import annotations

import zipfile
import zlib
from pathlib import Path

import numpy as np
from numpy.lib.npyio import NpzFile

from ancestral.data.idx import looks_like_idx, read_idx
from ancestral.data.images import SUFFIXES
from ancestral.data.source import Array, Source
from ancestral.symbols import DataError

# How an .npz may call its sets.  The first spelling that is there counts.
SPELLINGS = {"train": ("train",), "validation": ("validation", "valid", "val"), "test": ("test",)}
IMAGES, LABELS = ("{}_images", "x_{}", "{}"), ("{}_labels", "y_{}")
WHOLE_IMAGES, WHOLE_LABELS = ("images", "x", "arr_0"), ("labels", "y")


def read_file(path: Path) -> Source:
    """The arrays of a file; pickled objects are refused, because loading them would run code.

    Raises:
        DataError: the file is broken or of an unknown format, or lacks the arrays that are looked for.
    """
    if path.suffix.lower() in (".npy", ".npz"):
        loaded = _opened(path)
        return _from_npz(path, loaded) if isinstance(loaded, dict) else Source(path.stem, path.name, {"train": loaded})
    if looks_like_idx(path):
        return Source(path.name, path.name, {"train": read_idx(path)})
    if path.suffix.lower() in SUFFIXES:
        raise DataError(f"{path} is a single image, which is no data set: give the folder that holds the images")
    raise DataError(f"{path} is neither .npy nor .npz nor idx, and no folder of images: these are the formats known here")


def _opened(path: Path) -> Array | dict[str, Array]:
    try:
        with path.open("rb") as file:  # numpy.load would leave a broken archive open
            loaded: Array | NpzFile = np.load(file, allow_pickle=False)
            return loaded if isinstance(loaded, np.ndarray) else {key: loaded[key] for key in loaded.files}
    except (ValueError, EOFError, OSError, KeyError, zipfile.BadZipFile, zlib.error) as error:
        raise DataError(
            f"{path} cannot be read ({error}); it must be written by numpy.save or numpy.savez from plain numbers, not objects"
        ) from error


def _from_npz(path: Path, arrays: dict[str, Array]) -> Source:
    x, labels = {}, {}
    for part, names in SPELLINGS.items():
        if (key := _first(arrays, IMAGES, names)) is not None:
            x[part] = arrays[key]
            if (key := _first(arrays, LABELS, names)) is not None:
                labels[part] = arrays[key]
    if not x and (key := _first(arrays, WHOLE_IMAGES)) is not None:
        x["train"] = arrays[key]
        if (key := _first(arrays, WHOLE_LABELS)) is not None:
            labels["train"] = arrays[key]
    if "train" not in x:
        raise DataError(
            f"{path} holds {', '.join(arrays) or 'no arrays'}; looked for train_images, [valid_images,] test_images"
            " (also x_train or train, and so on), or for x or images"
        )
    return Source(path.stem, path.name, x, labels, levels=_levels(path, arrays))


def _first(arrays: dict[str, Array], patterns: tuple[str, ...], names: tuple[str, ...] = ("",)) -> str | None:
    keys = [pattern.format(name) for name in names for pattern in patterns]
    return next((key for key in keys if key in arrays), None)


def _levels(path: Path, arrays: dict[str, Array]) -> int | None:
    if "levels" not in arrays:
        return None
    levels = arrays["levels"]
    if levels.size != 1 or levels.dtype.kind not in "ui" or int(levels.reshape(())) < 2:
        raise DataError(f"{path}: levels is {levels!r}; it must be one whole number, at least 2")
    return int(levels.reshape(()))
