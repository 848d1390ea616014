"""The idx format of MNIST: four bytes of magic, big-endian sizes, then the numbers; gzipped or not.

Format: http://yann.lecun.com/exdb/mnist (LeCun, Cortes and Burges).
"""

from __future__ import annotations

import gzip
import zlib
from math import prod
from pathlib import Path

import numpy as np

from ancestral.data.source import Array, Source
from ancestral.symbols import DataError

TYPES = {0x08: ">u1", 0x09: ">i1", 0x0B: ">i2", 0x0C: ">i4", 0x0D: ">f4", 0x0E: ">f8"}  # third byte of the file
GZIP = b"\x1f\x8b"
PREFIXES = {"train": "train", "test": "t10k"}


def looks_like_idx(path: Path) -> bool:
    """Whether a file starts as idx does."""
    try:
        with path.open("rb") as file:
            zipped = file.read(2) == GZIP
        with gzip.open(path) if zipped else path.open("rb") as file:
            magic = file.read(4)
    except (OSError, EOFError, zlib.error):
        return False
    return len(magic) == 4 and magic[:2] == b"\0\0" and magic[2] in TYPES and magic[3] > 0


def read_idx(path: Path) -> Array:
    """The array of an idx file.

    Raises:
        DataError: the file is no idx file, or has fewer or more bytes than its sizes say.
    """
    try:
        blob = path.read_bytes()
        blob = gzip.decompress(blob) if blob[:2] == GZIP else blob
    except (OSError, EOFError, zlib.error) as error:
        raise DataError(f"{path} cannot be read ({error}); it may be cut off: fetch it again") from error
    if len(blob) < 4 or blob[:2] != b"\0\0" or blob[2] not in TYPES or len(blob) < 4 + 4 * blob[3]:
        raise DataError(f"{path} does not start as an idx file does; expected two zero bytes, a type and the sizes")
    kind, start = np.dtype(TYPES[blob[2]]), 4 + 4 * blob[3]
    shape = tuple(int(size) for size in np.frombuffer(blob, ">u4", blob[3], 4))
    expected = start + prod(shape) * kind.itemsize
    if len(blob) != expected:
        raise DataError(
            f"{path} has {len(blob):,} bytes where shape {shape} needs {expected:,}; it may be cut off: fetch it again"
        )
    return np.frombuffer(blob, kind, offset=start).reshape(shape).astype(kind.newbyteorder("="))


def holds_idx(folder: Path) -> bool:
    """Whether a folder holds MNIST's training images under their usual name."""
    return _find(folder, "train", "images", 3) is not None


def read_idx_folder(folder: Path) -> Source:
    """The idx files of a folder that are there: ``train-images-idx3-ubyte``, ``t10k-labels-idx1-ubyte`` and so on.

    Raises:
        DataError: a file is broken.
    """
    images = {part: _find(folder, prefix, "images", 3) for part, prefix in PREFIXES.items()}
    labels = {part: _find(folder, prefix, "labels", 1) for part, prefix in PREFIXES.items()}
    x = {part: read_idx(path) for part, path in images.items() if path is not None}
    y = {part: read_idx(path) for part, path in labels.items() if path is not None and part in x}
    return Source(folder.resolve().name, f"{folder.resolve().name} (idx files)", x, y)


def _find(folder: Path, prefix: str, what: str, rank: int) -> Path | None:
    names = [f"{prefix}-{what}{mark}idx{rank}-ubyte{end}" for mark in "-." for end in ("", ".gz")]
    return next((folder / name for name in names if (folder / name).is_file()), None)
