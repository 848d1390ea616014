"""Bytes kept beside the symbols: heads of sound files, characters that an alphabet lacks, files that no model is for."""

from __future__ import annotations

import lzma
from collections.abc import Iterator, Mapping
from dataclasses import dataclass

from ancestral.coding.container import STORED, Block
from ancestral.coding.errors import DecodeMismatch

BESIDE = 2  # kind of block
SIZE = 1 << 20  # bytes of a block, the last one apart
FILTERS = [{"id": lzma.FILTER_LZMA2, "preset": 9 | lzma.PRESET_EXTREME, "dict_size": SIZE}]  # without heads of their own


def divided(data: bytes) -> Iterator[tuple[bytes, bytes]]:
    """Bytes as those of blocks, plain and compressed."""
    for first in range(0, len(data), SIZE):
        part = data[first : first + SIZE]
        yield part, lzma.compress(part, lzma.FORMAT_RAW, filters=FILTERS)


def restored(block: Block) -> bytes:
    """The plain bytes of a block.

    Raises:
        DecodeMismatch: they are not those that were compressed.
    """
    data = block.payload
    if block.kind != STORED:
        try:
            data = lzma.LZMADecompressor(lzma.FORMAT_RAW, filters=FILTERS).decompress(data, SIZE + 1)
        except lzma.LZMAError as error:
            raise DecodeMismatch(block.index) from error
    block.check(data)
    return data


@dataclass(frozen=True)
class Kept:
    """What was kept beside the symbols, as far as it could be read.

    Attributes:
        blocks: their bytes, by the index of the block.
        first: the index of the first of them.
    """

    blocks: Mapping[int, bytes]
    first: int

    def cut(self, start: int, stop: int) -> bytes | None:
        """Bytes start .. stop - 1, or None where a block with some of them is lost."""
        numbers = range(start // SIZE, -(-stop // SIZE) if stop > start else start // SIZE)
        found = b"".join(self.blocks.get(self.first + number, b"") for number in numbers)
        offset = start - numbers.start * SIZE
        cut = found[offset : offset + stop - start]
        whole = all(self.first + number in self.blocks for number in numbers)
        return cut if whole and len(cut) == stop - start else None
