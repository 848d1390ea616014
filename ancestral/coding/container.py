"""The ``.anc`` file: a header that says how the data were made, and blocks of data that check themselves.

The JSON is canonical (sorted keys, no spaces). Every number is little-endian; ``crc`` is CRC-32, ``digest`` BLAKE2b of 8 bytes::

    file      magic 89 'A' 'N' 'C' 0D 0A 1A 0A | u8 major | u8 minor | u16 flags | u32 n | n bytes: JSON, deflated | u32 crc
    weights   'MO' | u64 n | u32 crc of the weights | u32 crc' | n bytes                         present where flag 1 says so
    block     'BK' | u16 kind | u32 index | u32 items | u32 n | u32 crc of the payload | digest of the data | u32 crc' | n bytes
    trailer   'EN' | u32 blocks | u64 items | digest of the digests of all blocks | u32 crc'

The crc of the header is over all bytes before it. A crc' is over the bytes of its own record before it and starts from the crc
of the header, so that a record taken from another file is not valid here. The magic is made like that of PNG: a transfer as
text changes it. Writing needs no seeking, so that a file can be a pipe.
"""

from __future__ import annotations

import json
import struct
import zlib
from collections.abc import Mapping
from dataclasses import dataclass
from hashlib import blake2b
from types import TracebackType
from typing import Any, BinaryIO

from ancestral.coding.errors import DecodeMismatch

MAGIC = b"\x89ANC\r\n\x1a\n"
MAJOR, MINOR = 1, 0
HAS_WEIGHTS = 1  # the flags that there are
LONGEST_HEADER = 1 << 20  # bytes of JSON
STORED, CODED = 0, 1  # kinds of block: the data as they are, coded by the model

FILE = struct.Struct("<8sBBHI")
WEIGHTS = struct.Struct("<2sQI")
BLOCK = struct.Struct("<2sHIIII8s")
TRAILER = struct.Struct("<2sIQ8s")
CRC = struct.Struct("<I")


def digest(data: bytes) -> bytes:
    """The 8 bytes by which decoded data are recognised."""
    return blake2b(data, digest_size=8).digest()


@dataclass(frozen=True)
class Block:
    """One block of a file.

    Attributes:
        index: its place among the blocks.
        kind: ``STORED``, ``CODED`` or a greater number that only the codec knows.
        items: how many items it holds.
        payload: the bytes that its kind says how to decode.
        digest: of the data that the payload decodes to.
    """

    index: int
    kind: int
    items: int
    payload: bytes
    digest: bytes

    def check(self, data: bytes) -> None:
        """Compare decoded data with those that were encoded.

        Raises:
            DecodeMismatch: they are others.
        """
        if digest(data) != self.digest:
            raise DecodeMismatch(self.index)


class Writer:
    """Writes a file block by block; as a context manager it ends the file unless an exception passes through.

    Args:
        file: open for writing bytes; it stays open.
        header: what a reader must know about the data, as JSON has it.
        weights: of the model, to be embedded.

    Raises:
        ValueError: the header is longer than 1 MiB or holds a number that JSON has not.
        TypeError: it holds something else that JSON has not.

    Example:
        >>> from io import BytesIO
        >>> from ancestral.coding.reader import Reader
        >>> file = BytesIO()
        >>> with Writer(file, {"items": "bytes"}) as writer:
        ...     writer.add(3, b"raw")
        >>> [(block.items, block.payload) for block in Reader(file.getvalue())]
        [(3, b'raw')]
    """

    def __init__(self, file: BinaryIO, header: Mapping[str, Any], weights: bytes | None = None) -> None:
        text = canonical(json.loads(canonical(dict(header))))  # twice, since only then are all keys strings and sorted as such
        if len(text) > LONGEST_HEADER:
            raise ValueError(f"the header takes {len(text)} bytes of JSON; the format has room for {LONGEST_HEADER}")
        text = zlib.compress(text, 9)
        start = FILE.pack(MAGIC, MAJOR, MINOR, 0 if weights is None else HAS_WEIGHTS, len(text)) + text
        self._file, self._seed = file, zlib.crc32(start)
        self._digests: list[bytes] = []
        self._items = 0
        file.write(start + CRC.pack(self._seed))
        if weights is not None:
            self._record(WEIGHTS.pack(b"MO", len(weights), zlib.crc32(weights)), weights)

    def add(self, items: int, data: bytes, coded: bytes | None = None, kind: int = CODED) -> None:
        """Write the next block.

        Args:
            items: how many items it holds.
            data: what a reader must get back.
            coded: the same, coded; where it is not shorter, the data are stored as they are.
            kind: how it was coded.

        Raises:
            ValueError: a number does not fit its place in the file.
        """
        short = coded is not None and len(coded) < len(data)
        payload = coded if coded is not None and short else data
        if not 0 <= items < 1 << 32 or max(len(payload), len(self._digests)) >= 1 << 32 or not CODED <= kind < 1 << 16:
            raise ValueError(
                f"a block of kind {kind} with {items} items and {len(payload)} bytes does not fit the format, nor do more than "
                "2^32 - 1 blocks, items or bytes, or kinds beside 1 .. 65535: divide the data"
            )
        self._digests.append(digest(data))
        fields = (kind if short else STORED, len(self._digests) - 1, items, len(payload), zlib.crc32(payload))
        self._record(BLOCK.pack(b"BK", *fields, self._digests[-1]), payload)
        self._items += items

    def close(self) -> None:
        """Write the trailer, without which a file counts as cut short."""
        self._record(TRAILER.pack(b"EN", len(self._digests), self._items, digest(b"".join(self._digests))))

    def _record(self, start: bytes, content: bytes = b"") -> None:
        self._file.write(start + CRC.pack(zlib.crc32(start, self._seed)))
        self._file.write(content)

    def __enter__(self) -> Writer:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        if kind is None:
            self.close()


def canonical(header: Any) -> bytes:
    """The one way in which a header is written."""
    return json.dumps(header, sort_keys=True, separators=(",", ":"), ensure_ascii=False, allow_nan=False).encode()
