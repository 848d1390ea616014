"""What a block holds before it is coded: symbols as bytes, and of sequences how many symbols each of them has."""

from __future__ import annotations

import zlib
from dataclasses import replace
from math import log2, prod

import numpy as np
import torch
from torch import Tensor

from ancestral.coding.errors import CodecError
from ancestral.draw import uniforms
from ancestral.spec import DataSpec
from ancestral.symbols import DataError
from ancestral.symbols import lengths as symbols_before_end

BLOCK_BITS = 1 << 19  # uncoded size of a block at least: its 36 bytes of overhead then are nothing
LEAST_ITEMS, MOST_ITEMS = 16, 4096  # of a block: enough to walk together, few enough for memory
CALIBRATED = 1 << 16  # symbols of sequences that a calibration looks at
CANARY = 1 << 12  # symbols of a sequence's canary, where one item does not have more
KINDS = {2**8: "<u1", 2**16: "<u2", 2**32: "<u4"}


def block_items(spec: DataSpec) -> int:
    """How many items of this kind go into a block."""
    return int(min(MOST_ITEMS, max(LEAST_ITEMS, BLOCK_BITS // (spec.sites * log2(spec.levels or 2)))))


def raw(x: Tensor, spec: DataSpec, lengths: Tensor | None = None) -> bytes:
    """(n, *shape) symbols as bytes, one, two or four little-endian ones a symbol.

    Args:
        lengths: of (n, T) symbols, how many count in each row.
    """
    counted = x if lengths is None else x[~past(lengths, x.shape[1])]
    return counted.numpy().astype(_kind(spec)).tobytes()


def raw_size(spec: DataSpec, n: int, lengths: Tensor | None = None) -> int:
    """The number of bytes that ``raw`` writes for n items."""
    symbols = n * spec.sites if lengths is None else int(lengths.sum())
    return symbols * np.dtype(_kind(spec)).itemsize


def unraw(data: bytes, spec: DataSpec, lengths: Tensor | None = None) -> Tensor:
    """The (n, *shape) symbols that ``raw`` wrote, filled up where they do not count.

    Raises:
        CodecError: a symbol is not in the alphabet.
    """
    symbols = torch.from_numpy(np.frombuffer(data, _kind(spec)).astype(np.int64))
    if symbols.numel() and int(symbols.max()) >= (spec.levels or 2):
        raise CodecError("a stored block holds symbols that are not in the alphabet: the file is damaged")
    if lengths is None:
        return symbols.view(-1, *(size or 0 for size in spec.shape))
    x = torch.full((len(lengths), spec.sites), filling(spec))
    x[~past(lengths, spec.sites)] = symbols
    return x


def _kind(spec: DataSpec) -> str:
    most = (spec.levels or 2) if spec.end is None else spec.end  # an end is told by the length
    return next(kind for size, kind in KINDS.items() if most <= size)


# ---- lengths


def filling(spec: DataSpec) -> int:
    """The symbol that stands where a sequence is over."""
    return spec.end or 0


def past(lengths: Tensor, width: int) -> Tensor:
    """(n, width) booleans, True where a sequence is over."""
    return torch.arange(width) >= lengths[:, None]


def counted(x: Tensor, spec: DataSpec) -> Tensor:
    """(n,) how many symbols of each row of (n, T) come before the ends that fill it up; T where there is no end.

    Raises:
        DataError: a row goes on after its end, which no length could tell.
    """
    found = symbols_before_end(x, spec)
    wrong = [] if spec.end is None else ((x != spec.end).sum(1) != found).nonzero()[:, 0].tolist()
    if wrong:
        raise DataError(f"row {wrong[0]} goes on after its end, symbol {spec.end}: fill it up with more of them")
    return found


def packed_lengths(lengths: Tensor) -> bytes:
    """(n,) lengths as bytes that know their own end."""
    return zlib.compress(lengths.numpy().astype("<u4").tobytes(), 9)


def unpacked_lengths(data: bytes, n: int, longest: int) -> tuple[Tensor, bytes]:
    """The (n,) lengths that ``packed_lengths`` wrote at the start of some bytes, and the bytes after it.

    Raises:
        CodecError: the bytes say something else.
    """
    inflater = zlib.decompressobj()
    try:
        found = np.frombuffer(inflater.decompress(data, 4 * n + 1)[: 4 * n], "<u4").astype(np.int64)
    except (zlib.error, ValueError) as error:
        raise CodecError(f"the lengths of the sequences are damaged: {error}") from error
    if not inflater.eof or len(found) != n or found.max(initial=0) > longest:
        raise CodecError(f"a block does not say how long its {n} sequences are: the file is damaged")
    return torch.from_numpy(found), inflater.unused_data


def calibrating(x: Tensor) -> Tensor:
    """Some of (n, T) sequences, as many as a calibration looks at, spread evenly."""
    count = min(len(x), max(1, CALIBRATED // x.shape[1]))
    return x[torch.arange(count) * len(x) // max(1, count)]


def portions(spec: DataSpec, n: int, lengths: Tensor | None) -> list[range]:
    """Which of n items go into which block: of sequences the more of them the shorter those that are left."""
    found, first = list[range](), 0
    left = None if lengths is None else lengths.flip(0).cummax(0).values.flip(0).tolist()
    while first < n:
        longest = 0 if left is None else -(-max(1, left[first]) // spec.parts) * spec.parts
        size = block_items(replace(spec, shape=(longest,)) if longest else spec)
        found.append(range(first, min(first + size, n)))
        first += size
    return found


def in_order(spec: DataSpec, lengths: Tensor) -> list[range]:
    """Which of (n,) items that stay in their order go into which block: as many as have room at the length of the longest."""
    found, first, room = list[range](), 0, BLOCK_BITS / log2(spec.levels or 2)
    while first < len(lengths):
        longest = (lengths[first : first + MOST_ITEMS] + 1).clamp(max=spec.sites).cummax(0).values
        fit = int((longest * torch.arange(1, len(longest) + 1) <= room).sum())
        found.append(range(first, min(first + max(LEAST_ITEMS, fit), len(lengths))))
        first = found[-1].stop
    return found


# ---- items that are always the same


def fixed_items(spec: DataSpec, items: int = 4) -> Tensor:
    """(items, *shape) symbols drawn evenly, always the same."""
    shape, levels = tuple(size or 0 for size in spec.shape), spec.levels or 2
    return (uniforms(0, range(items), prod(shape)) * levels).long().view(items, *shape)


def canary_items(spec: DataSpec) -> Tensor:
    """(n, *shape) symbols on which a twin is tried: four items, or of long sequences fewer."""
    return fixed_items(spec, max(1, min(4, CANARY // spec.sites)) if spec.sequence else 4)


def in_turn(n: int, spec: DataSpec) -> Tensor:
    """(n,) labels, every class in turn."""
    return torch.arange(n) % (spec.classes or 1)
