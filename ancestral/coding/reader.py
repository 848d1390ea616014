"""Reading ``.anc`` files, intact and damaged ones: every fault has its name, and the blocks around it can be had.

Reading needs no seeking, keeps one block in memory and trusts no length before as many bytes are there.
"""

from __future__ import annotations

import json
import re
import struct
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from io import BytesIO
from typing import Any, BinaryIO, Literal

from ancestral.coding.container import (
    BLOCK,
    CRC,
    FILE,
    HAS_WEIGHTS,
    LONGEST_HEADER,
    MAGIC,
    MAJOR,
    TRAILER,
    WEIGHTS,
    Block,
    canonical,
    digest,
)
from ancestral.coding.errors import (
    CodecError,
    CorruptBlock,
    CorruptHeader,
    CorruptTrailer,
    NotAnAncFile,
    TruncatedFile,
    UnsupportedVersion,
)

_TAG = re.compile(b"BK|EN")
_PIECE = 1 << 20  # bytes that are read at once
_WINDOW = 1 << 12  # bytes that are searched at once: few, since the search starts anew behind every match


@dataclass(frozen=True)
class Damage:
    """What ``errors="skip"`` went past: the indices of the blocks that are lost, as far as can be told, and why."""

    lost: range
    reason: str


@dataclass(frozen=True)
class Info:
    """What a file consists of; sizes in bytes.

    Attributes:
        header: what the writer said about the data.
        blocks: (kind, items, bytes of the payload) by index; damaged blocks are absent.
        damage: what is wrong with the file.
        weights: size of the embedded weights, 0 where there are none.
        size: everything that was read.
    """

    header: dict[str, Any]
    blocks: dict[int, tuple[int, int, int]]
    damage: tuple[Damage, ...]
    weights: int
    size: int

    @property
    def items(self) -> int:
        """How many items the blocks hold."""
        return sum(items for _, items, _ in self.blocks.values())

    @property
    def payload(self) -> int:
        """The size of all payloads."""
        return sum(size for _, _, size in self.blocks.values())

    @property
    def kept(self) -> int:
        """The size of the payloads that hold no items: of bytes kept beside them."""
        return sum(size for _, items, size in self.blocks.values() if not items)

    @property
    def overhead(self) -> int:
        """What is neither payload nor weights: what the format and the header take, and of a damaged file what is lost, too."""
        return self.size - self.payload - self.weights


class Reader:
    """Reads a file once, from its start to its end: the header at once, then block by block as it is iterated over.

    Attributes:
        header: what the writer said about the data.
        weights: the embedded weights of the model, or None.
        damage: with ``errors="skip"``, what was wrong so far.

    Args:
        source: the bytes of a file, or a file open for reading bytes, which stays open and need not be seekable.
        errors: "strict" raises at the first fault; "skip" records it, goes on with the next intact block, and never raises
            after the header. Which blocks are missing is then in ``damage`` and in ``Block.index``.

    Raises:
        NotAnAncFile, UnsupportedVersion, CorruptHeader: the file cannot be read at all.
        CorruptBlock, CorruptTrailer: a block or the end of the file is damaged.
        TruncatedFile: it stops before its end.
    """

    def __init__(self, source: bytes | BinaryIO, errors: Literal["strict", "skip"] = "strict") -> None:
        if errors not in ("strict", "skip"):
            raise ValueError(f'errors is {errors!r}; it is "strict" or "skip"')
        self._source = _Source(BytesIO(source) if isinstance(source, bytes) else source)
        self._skip = errors == "skip"
        self._next = 0
        self._items = 0
        self._digests: list[bytes] = []
        self.damage: list[Damage] = []
        flags = self._read_header()
        self.weights = self._read_weights() if flags & HAS_WEIGHTS else None

    def __iter__(self) -> Iterator[Block]:
        while True:
            try:
                block = self._read_block()
            except CodecError as error:
                if not self._skip:
                    raise
                if not self._resume(error):
                    return
                continue
            if block is None:
                return
            yield block

    def info(self) -> Info:
        """What the file consists of; reads the blocks that are left, and decodes none."""
        blocks = {block.index: (block.kind, block.items, len(block.payload)) for block in self}
        return Info(self.header, blocks, tuple(self.damage), len(self.weights or b""), self._source.position)

    def _read_header(self) -> int:
        """Pass the header; the flags that it sets."""
        _check_magic(self._source.peek(len(MAGIC)))
        _, major, minor, flags, length = FILE.unpack(self._peek(FILE.size))
        if major != MAJOR:
            raise UnsupportedVersion(f"the file has format {major}.{minor}, this reader knows format {MAJOR}: upgrade ancestral")
        if length > LONGEST_HEADER:
            raise CorruptHeader(f"the header claims {length} bytes and none has more than {LONGEST_HEADER}: copy the file again")
        start = self._peek(FILE.size + length + CRC.size)
        text, (self._seed,) = start[: -CRC.size], CRC.unpack(start[-CRC.size :])
        if zlib.crc32(text) != self._seed:
            raise CorruptHeader("the header does not fit its checksum: the file was changed; copy it again")
        if flags & ~HAS_WEIGHTS:
            raise UnsupportedVersion(f"the file sets flags {flags:#06x}, some unknown to this reader: upgrade ancestral")
        self.header = _parse(text[FILE.size :])
        self._source.skip(len(start))
        return int(flags)

    def _read_weights(self) -> bytes | None:
        fault = CorruptHeader("the embedded weights are damaged: copy the file again, or hand the model over")
        try:
            _, length, checksum = self._fields(WEIGHTS, b"MO", fault)
            return self._content(WEIGHTS, length, checksum, fault)
        except (CorruptHeader, TruncatedFile) as error:
            if not self._skip:
                raise
            self.damage.append(Damage(range(0), str(error)))
            self._seek()
            return None

    def _read_block(self) -> Block | None:
        """The block that begins here, or None where the file ends as it should."""
        tag, index = self._source.peek(2), self._next
        if tag == b"EN":
            self._read_trailer()
            return None
        if tag not in (b"BK", b"B", b"E", b""):
            raise CorruptBlock(index, "neither a block nor the end of the file begins where it should")
        fields = self._fields(BLOCK, b"BK", CorruptBlock(index, "its header does not fit its checksum"))
        _, kind, found, items, length, checksum, of_data = fields
        if found != index:
            raise CorruptBlock(index, f"block {found} stands in its place")
        payload = self._content(BLOCK, length, checksum, CorruptBlock(index, "its payload does not fit its checksum"))
        self._next += 1
        self._items += items
        self._digests.append(of_data)
        return Block(index, kind, items, payload, of_data)

    def _read_trailer(self) -> None:
        fault = CorruptTrailer("the end of the file is damaged: the blocks before it are intact, what else there was is lost")
        _, blocks, items, total = self._fields(TRAILER, b"EN", fault)
        if blocks > self._next:
            raise CorruptBlock(self._next, f"the file ends in its place, and says that it has {blocks} blocks")
        self._source.skip(TRAILER.size + CRC.size)
        complete = len(self._digests) == self._next
        if complete and (blocks, items, total) != (self._next, self._items, digest(b"".join(self._digests))):
            raise CorruptTrailer("the end of the file contradicts its blocks: they are not those that were written")
        if self._source.peek(1):
            raise CorruptTrailer("the file goes on after its end: something was appended to it; remove it")

    def _peek(self, size: int) -> bytes:
        start = self._source.peek(size)
        if len(start) < size:
            raise TruncatedFile(self._next)
        return start

    def _fields(self, record: struct.Struct, tag: bytes, fault: CodecError) -> tuple[Any, ...]:
        """The fields of the record that begins here; ``fault`` is raised if it is damaged."""
        start = self._peek(record.size + CRC.size)
        if not self._intact(record, tag, start):
            raise fault
        return record.unpack_from(start)

    def _content(self, record: struct.Struct, length: int, checksum: int, fault: CodecError) -> bytes:
        """Pass the record that begins here; what follows its fields."""
        start = record.size + CRC.size
        content = self._peek(start + length)[start:]
        if zlib.crc32(content) != checksum:
            raise fault
        self._source.skip(start + length)
        return content

    def _intact(self, record: struct.Struct, tag: bytes, start: bytes) -> bool:
        fields, crc = start[: record.size], start[record.size : record.size + CRC.size]
        return start[: len(tag)] == tag and crc == CRC.pack(zlib.crc32(fields, self._seed))

    def _resume(self, error: CodecError) -> bool:
        """Go on after a fault; whether anything is left to read."""
        first, found = self._next, self._seek()
        end = max(first, found) if found is not None else first + isinstance(error, CorruptBlock)
        self.damage.append(
            Damage(range(first, end), error.cause if isinstance(error, CorruptBlock | TruncatedFile) else str(error))
        )
        self._next = end
        return found is not None

    def _seek(self) -> int | None:
        """Pass everything before the next intact record: the index of the block there, or how many the trailer there counts."""
        moved = False
        while start := self._source.peek(BLOCK.size + CRC.size):
            if self._intact(TRAILER, b"EN", start):
                return int(TRAILER.unpack_from(start)[1])
            if self._intact(BLOCK, b"BK", start):
                index = int(BLOCK.unpack_from(start)[2])
                if index > self._next or (moved and index == self._next):  # the damaged block itself has not moved
                    return index
            self._source.pass_to(_TAG)
            moved = True
        return None


class _Source:
    """What is left of a file; bytes are read as they are asked for, so that a wrong length cannot fill the memory."""

    def __init__(self, file: BinaryIO) -> None:
        self._file, self._buffer, self.position = file, bytearray(), 0

    def peek(self, size: int) -> bytes:
        """The next bytes, fewer where the file ends; they stay."""
        while (missing := size - len(self._buffer)) > 0 and (piece := self._file.read(min(missing, _PIECE))):
            self._buffer += piece
        return bytes(self._buffer[:size])

    def skip(self, size: int) -> None:
        """Pass bytes that ``peek`` gave."""
        del self._buffer[:size]
        self.position += size

    def pass_to(self, pattern: re.Pattern[bytes]) -> None:
        """Pass at least a byte, up to where the next two bytes match, or all but the last where none do."""
        self.skip(1)
        while len(window := self.peek(_WINDOW)) > 1:
            if match := pattern.search(window):
                self.skip(match.start())
                return
            self.skip(len(window) - 1)  # a match may begin with the last byte


def _check_magic(start: bytes) -> None:
    if not start:
        raise NotAnAncFile("the file is empty, so it was never written, or not copied: copy it again")
    if MAGIC.startswith(start):  # all of it, or a file that is cut short
        return
    if start[1:4] == MAGIC[1:4]:
        raise NotAnAncFile("the first bytes are those of an .anc file transferred as text: copy it again, as binary data")
    raise NotAnAncFile(f"the data begin with {start!r} and an .anc file with {MAGIC!r}: this is another kind of file")


def _parse(deflated: bytes) -> dict[str, Any]:
    inflater = zlib.decompressobj()
    try:
        text = inflater.decompress(deflated, LONGEST_HEADER + 1)
        header = json.loads(text)
        if len(text) <= LONGEST_HEADER and inflater.eof and isinstance(header, dict) and canonical(header) == text:
            return header
    except (ValueError, RecursionError, zlib.error):
        pass
    raise CorruptHeader("the header has its checksum but is not canonical JSON, deflated: no version of ancestral wrote it")
