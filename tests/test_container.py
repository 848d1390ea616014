"""The ``.anc`` file: what was written is read, every fault is named, and nothing wrong is ever given out."""

from __future__ import annotations

import copy
import random
import struct
import tracemalloc
import zlib
from contextlib import suppress
from hashlib import blake2b
from io import BytesIO
from pathlib import Path
from typing import Any

import pytest

from ancestral.coding import CODED, STORED, Block, CodecError, CorruptBlock, Reader, TruncatedFile, Writer, digest, errors
from ancestral.files import whole

HEADER = {"shape": [3, 4], "kind": "image", "ü": 1.5}
BLOCK_HEAD, TRAILER = 32, 26  # bytes


def written(*blocks: tuple[int, bytes, bytes | None], header: dict[str, Any] = HEADER, weights: bytes | None = None) -> bytes:
    file = BytesIO()
    with Writer(file, header, weights) as writer:
        for items, data, coded in blocks:
            writer.add(items, data, coded)
    return file.getvalue()


def some(seed: int = 0, n: int = 6) -> list[tuple[int, bytes, bytes | None]]:
    rng = random.Random(seed)
    blocks = [(rng.randrange(9), rng.randbytes(rng.randrange(90)), rng.randbytes(rng.randrange(60))) for _ in range(n)]
    return [(items, data, coded if rng.random() < 0.8 else None) for items, data, coded in blocks]


BLOCKS = some()
WEIGHTS = random.Random(1).randbytes(50)
FILE = written(*BLOCKS, weights=WEIGHTS)
CONTENT = list(Reader(FILE))


READER = Reader(FILE)
ENDS = [READER._source.position for _ in READER]  # of each block
STARTS = [end - BLOCK_HEAD - len(block.payload) for end, block in zip(ENDS, CONTENT, strict=True)]


def salvaged(data: bytes) -> tuple[list[Block], list[int], list[str]]:
    """The blocks that can be read, the indices that are lost, and why."""
    reader = Reader(data, errors="skip")
    blocks = list(reader)
    return blocks, [index for damage in reader.damage for index in damage.lost], [damage.reason for damage in reader.damage]


def without(*lost: int) -> list[Block]:
    return [block for block in CONTENT if block.index not in lost]


def flip(data: bytes, *bits: int) -> bytes:
    changed = bytearray(data)
    for bit in bits:
        changed[bit // 8] ^= 1 << bit % 8
    return bytes(changed)


def sealed(data: bytes, place: int, value: bytes) -> bytes:
    """A file with other bytes in its header, of 16 bytes and JSON, whose checksum is right again; nothing follows it."""
    changed = data[:place] + value + data[place + len(value) :]
    end = 16 + struct.unpack_from("<I", data, 12)[0]
    return changed[:end] + struct.pack("<I", zlib.crc32(changed[:end]))


@pytest.mark.parametrize("seed", range(20))
def test_what_was_written_is_read(seed: int) -> None:
    blocks, weights = some(seed, n=seed), random.Random(seed).choice([None, b"", WEIGHTS])
    reader = Reader(written(*blocks, weights=weights))
    assert (reader.header, reader.weights) == (HEADER, weights)
    got = list(reader)
    assert reader.damage == []
    assert [(block.index, block.items) for block in got] == [(i, items) for i, (items, _, _) in enumerate(blocks)]
    for block, (_, data, coded) in zip(got, blocks, strict=True):
        assert block.digest == digest(data) == blake2b(data, digest_size=8).digest()
        shorter = coded is not None and len(coded) < len(data)
        assert (block.kind, block.payload) == ((CODED, coded) if shorter else (STORED, data))


def test_a_file_of_nothing() -> None:
    reader, data = Reader(written(header={})), written(header={})
    assert len(data) == 16 + len(zlib.compress(b"{}", 9)) + 4 + TRAILER
    assert (reader.header, reader.weights, list(reader)) == ({}, None, [])


GOLDEN = """
89414e430d0a1a0a010001002100000078daab56cacecc4b51b2523abc474947a93823b12055c92ada28b6160070590885acf829d14d4f0200000000
000000dc7b874c30fc86016d6f424b0100000000000200000003000000668aca114e2225e139356f647195ddb374776f424b00000100000001000000
03000000c2412435d8bb14d833d59559b124cef5616263454e020000000300000000000000a26d9728e87857bcf0b7fc8c
"""


def test_the_bytes_of_a_file() -> None:
    """Pinned: if this fails, files that were written before cannot be read."""
    reader = Reader(bytes.fromhex(GOLDEN))
    assert (reader.header, reader.weights) == ({"shape": [2], "kind": "ü"}, b"mo")
    read = [(block.index, block.kind, block.items, block.payload) for block in reader]
    assert read == [(0, CODED, 2, b"two"), (1, STORED, 1, b"abc")]


def test_the_layout_by_hand() -> None:
    text = zlib.compress(b'{"a":[1,null]}', 9)
    start = b"\x89ANC\r\n\x1a\n" + bytes([1, 0]) + struct.pack("<HI", 1, len(text)) + text
    seed = zlib.crc32(start)

    def record(fields: bytes, content: bytes = b"") -> bytes:
        return fields + struct.pack("<I", zlib.crc32(fields, seed)) + content

    of_data = blake2b(b"\0" * 9, digest_size=8).digest()
    expected = start + struct.pack("<I", seed)
    expected += record(b"MO" + struct.pack("<QI", 1, zlib.crc32(b"w")), b"w")
    expected += record(b"BK" + struct.pack("<HIIII", 1, 0, 9, 2, zlib.crc32(b"xy")) + of_data, b"xy")
    expected += record(b"EN" + struct.pack("<IQ", 1, 9) + blake2b(of_data, digest_size=8).digest())
    assert written((9, b"\0" * 9, b"xy"), header={"a": (1, None)}, weights=b"w") == expected


def test_truncation_at_every_length() -> None:
    for length in range(len(FILE)):
        with pytest.raises(errors.NotAnAncFile if length == 0 else TruncatedFile) as caught:
            list(Reader(FILE[:length]))
        if isinstance(caught.value, TruncatedFile):
            complete = sum(end <= length for end in ENDS)
            assert caught.value.complete_blocks == complete and f"before that: {complete}" in str(caught.value)


def test_salvage_at_every_length() -> None:
    for length in range(STARTS[0], len(FILE)):
        complete = sum(end <= length for end in ENDS)
        blocks, lost, reasons = salvaged(FILE[:length])
        assert blocks == CONTENT[:complete]
        assert lost == [] and len(reasons) == 1 and "cut short" in reasons[0]


def test_flipped_bits_are_noticed() -> None:
    rng = random.Random(2)
    for trial in range(2000):
        bits = rng.sample(range(8 * len(FILE)), 1 if trial % 2 else rng.randrange(2, 9))
        with pytest.raises(CodecError):
            list(Reader(flip(FILE, *bits)))


def test_flipped_bits_leave_the_other_blocks() -> None:
    rng = random.Random(3)
    for _ in range(500):
        bits = rng.sample(range(8 * STARTS[0] - 8 * 50, 8 * len(FILE)), rng.randrange(1, 5))  # behind the header
        hit = {index for index, end in enumerate(ENDS) if any(STARTS[index] * 8 <= bit < end * 8 for bit in bits)}
        blocks, lost, reasons = salvaged(flip(FILE, *bits))
        assert blocks == without(*hit)
        end_hit = any(bit >= ENDS[-1] * 8 for bit in bits)  # then it may look like a damaged block, and counts none
        assert reasons and (end_hit or hit == set(lost)) and set(lost) <= hit | {len(CONTENT)}


def test_random_bytes_after_an_intact_header_never_crash() -> None:
    rng = random.Random(4)
    for _ in range(300):
        data = FILE[: STARTS[0]] + b"".join(rng.choice([b"BK", b"EN", b"B", rng.randbytes(9), FILE[200:260]]) for _ in range(20))
        with pytest.raises(CodecError):
            list(Reader(data))
        blocks, _, reasons = salvaged(data)
        assert reasons and all(block in CONTENT for block in blocks)


@pytest.mark.parametrize("index", range(len(CONTENT)))
@pytest.mark.parametrize("place", [0, 4, 12, BLOCK_HEAD - 1, BLOCK_HEAD])
def test_a_damaged_block_is_named_and_the_others_are_read(index: int, place: int) -> None:
    if place == BLOCK_HEAD and not CONTENT[index].payload:
        pytest.skip("nothing there")
    data = flip(FILE, 8 * (STARTS[index] + place))
    with pytest.raises(CorruptBlock) as caught:
        list(Reader(data))
    assert caught.value.index == index and f"block {index}" in str(caught.value)
    blocks, lost, reasons = salvaged(data)
    assert (blocks, lost) == (without(index), [index])
    assert reasons == [caught.value.cause]


@pytest.mark.parametrize("size", [1, 20, 40])
def test_missing_and_inserted_bytes(size: int) -> None:
    cut = FILE[: STARTS[2] + 5] + FILE[STARTS[2] + 5 + size :]
    overlap = [index for index in range(2, 6) if STARTS[index] < STARTS[2] + 5 + size]
    assert salvaged(cut)[:2] == (without(*overlap), overlap)
    inside = FILE[: STARTS[2] + 5] + b"E" * size + FILE[STARTS[2] + 5 :]
    assert salvaged(inside)[:2] == (without(2), [2])
    between = FILE[: STARTS[2]] + b"B" * size + FILE[STARTS[2] :]
    assert salvaged(between)[:2] == (CONTENT, [])
    for data in (cut, inside, between):
        with pytest.raises(CorruptBlock):
            list(Reader(data))


def test_blocks_left_out_repeated_or_exchanged() -> None:
    pieces = [FILE[start:end] for start, end in zip(STARTS, ENDS, strict=True)]

    def joined(*order: int) -> bytes:
        return FILE[: STARTS[0]] + b"".join(pieces[index] for index in order) + FILE[ENDS[-1] :]

    for order, lost in [((0, 1, 4, 5), [2, 3]), ((0, 1, 2), [3, 4, 5]), ((), [0, 1, 2, 3, 4, 5]), ((1, 0, 2, 3, 4, 5), [0])]:
        with pytest.raises(CorruptBlock) as caught:
            list(Reader(joined(*order)))
        assert caught.value.index == lost[0]
        assert salvaged(joined(*order))[:2] == (without(*lost), lost)
    assert salvaged(joined(0, 1, 1, 2, 3, 4, 5))[:2] == (CONTENT, [])


def test_blocks_of_other_files_are_not_taken() -> None:
    """A file in which another file is stored, whose own blocks would fit where the damaged one was."""
    inner = written(*((1, b"inner", None),) * 3, header={"name": "inner"})
    data = written((1, b"first", None), (1, inner, None), (1, b"last", None))
    blocks, lost, _ = salvaged(flip(data, 8 * (data.index(inner) - 3)))
    assert ([block.payload for block in blocks], lost) == ([b"first", b"last"], [1])


@pytest.mark.parametrize("size", [4094, 4095, 4096, 4097, 8190, 8191, 8192])
def test_the_next_block_is_found_wherever_it_begins(size: int) -> None:
    data = FILE[: STARTS[2]] + b"?" * size + FILE[STARTS[2] :]
    assert salvaged(data)[:2] == (CONTENT, [])


@pytest.mark.parametrize("place", [0, 5, 13, 17, 20])
def test_damaged_weights(place: int) -> None:
    data = flip(FILE, 8 * (FILE.index(b"MO") + place))
    with pytest.raises(CodecError, match=r"weights|cut short"):
        Reader(data)
    reader = Reader(data, errors="skip")
    assert reader.weights is None
    assert list(reader) == CONTENT
    assert len(reader.damage) == 1


def test_a_contradicting_end() -> None:
    other = written(*BLOCKS[:-1], (BLOCKS[-1][0], b"other", None), weights=WEIGHTS)  # the same header
    longer = FILE[: ENDS[-1]] + other[-TRAILER:]
    fewer = FILE[: ENDS[-1]] + written(*BLOCKS[:3], weights=WEIGHTS)[-TRAILER:]
    for data, words in [(longer, "contradicts"), (fewer, "contradicts"), (FILE + b"\n", "goes on"), (FILE + FILE, "goes on")]:
        with pytest.raises(errors.CorruptTrailer, match=words):
            list(Reader(data))
        blocks, lost, reasons = salvaged(data)
        assert (blocks, lost) == (CONTENT, []) and words in reasons[0]


CHANGES = [(b"\r\n", b"\n"), (b"\n", b"\r\n"), (b"\x1a", b""), (b"\x89", b"\x09")]


@pytest.mark.parametrize(("old", "new"), CHANGES)
def test_a_transfer_as_text_is_named(old: bytes, new: bytes) -> None:
    with pytest.raises(errors.NotAnAncFile, match="as text"):
        Reader(FILE.replace(old, new))


@pytest.mark.parametrize("data", [b"", b"\x89PNG\r\n\x1a\n" + bytes(99), b"hello, world", bytes(500), b"A"])
def test_other_files_are_refused(data: bytes) -> None:
    with pytest.raises(errors.NotAnAncFile, match=r"another kind|is empty"):
        Reader(data)


def test_versions_and_flags() -> None:
    for major in (0, 2, 255):
        with pytest.raises(errors.UnsupportedVersion, match="upgrade"):
            Reader(sealed(FILE, 8, bytes([major])))
    for flags in (2, 3, 0x8000):
        with pytest.raises(errors.UnsupportedVersion, match="upgrade"):
            Reader(sealed(FILE, 10, struct.pack("<H", flags)))
    assert Reader(sealed(FILE, 9, b"\x07\0\0")).header == HEADER  # a newer minor version, without flags


@pytest.mark.parametrize(
    "text", [b"", b"[]", b"{ }", b'{"a":NaN}', b'{"a":1e999}', b'{"a":1,"a":1}', b"\xff\xfe", b"[" * 100_000, b'{"b":1,"a":2}']
)
def test_headers_that_nobody_writes(text: bytes) -> None:
    deflated = zlib.compress(text)
    for content in (deflated, text, deflated[:-3], zlib.compress(b" " * 2**26)):  # the last one is far longer than it looks
        start = FILE[:10] + struct.pack("<HI", 0, len(content)) + content
        with pytest.raises(errors.CorruptHeader, match="canonical"):
            Reader(start + struct.pack("<I", zlib.crc32(start)))


def test_headers_that_cannot_be_written() -> None:
    with pytest.raises(ValueError, match="1048577 bytes"):
        Writer(BytesIO(), {"a": "x" * (2**20 - 7)})
    with pytest.raises(ValueError, match="JSON"):
        Writer(BytesIO(), {"a": float("nan")})
    longest = {"a": "x" * (2**20 - 8)}
    assert Reader(written(header=longest)).header == longest
    assert Reader(written(header={"x": {9: 1, 10: 2}})).header == {"x": {"9": 1, "10": 2}}  # as numbers, 9 comes first


@pytest.mark.parametrize(("items", "kind"), [(-1, 1), (2**32, 1), (1, 0), (1, 2**16)])
def test_numbers_that_do_not_fit_are_refused(items: int, kind: int) -> None:
    file = BytesIO()
    with Writer(file, {}) as writer:
        with pytest.raises(ValueError, match="does not fit"):
            writer.add(items, b"data", b"", kind)
        writer.add(2**32 - 1, b"data", b"", 2**16 - 1)
    assert [(block.items, block.kind) for block in Reader(file.getvalue())] == [(2**32 - 1, 2**16 - 1)]


class Pipe:
    """A file that can only be read on, and never much at once."""

    def __init__(self, data: bytes) -> None:
        self.file = BytesIO(data)
        self.most = 0

    def read(self, size: int) -> bytes:
        self.most = max(self.most, size)
        return self.file.read(min(size, 7))


def test_a_pipe_can_be_read() -> None:
    reader = Reader(Pipe(FILE))  # type: ignore[arg-type]
    assert (reader.weights, list(reader)) == (WEIGHTS, CONTENT)


def claims(record: bytes, flags: int) -> bytes:
    """A file whose checksums are right, with one record after its header."""
    start = FILE[:10] + struct.pack("<HI", flags, 2) + b"{}"
    seed = zlib.crc32(start)
    return start + struct.pack("<I", seed) + record + struct.pack("<I", zlib.crc32(record, seed)) + b"few"


@pytest.mark.parametrize(
    "data",
    [
        FILE[:12] + b"\xff" * 4 + FILE[16:],
        claims(b"BK" + struct.pack("<HIIII", 1, 0, 2**32 - 1, 2**32 - 1, 0) + bytes(8), 0),
        claims(b"MO" + struct.pack("<QI", 2**64 - 1, 0), 1),
        claims(b"BK" + struct.pack("<HIIII", 1, 2**32 - 1, 1, 3, 0) + bytes(8), 0),
        claims(b"EN" + struct.pack("<IQ", 2**32 - 1, 2**64 - 1) + bytes(8), 0),
    ],
)
def test_claims_are_not_believed(data: bytes) -> None:
    """4 GiB of header, of a payload, of weights; 2^32 blocks."""
    pipe = Pipe(data)
    tracemalloc.start()
    try:
        with pytest.raises(CodecError):
            list(Reader(pipe))  # type: ignore[arg-type]
        with suppress(errors.CorruptHeader):
            list(Reader(data, errors="skip"))
        assert tracemalloc.get_traced_memory()[1] < 1 << 20
    finally:
        tracemalloc.stop()
    assert pipe.most <= 1 << 20


def test_info() -> None:
    info = Reader(FILE).info()
    assert (info.header, info.damage, info.weights, info.size) == (HEADER, (), 50, len(FILE))
    assert info.blocks == {block.index: (block.kind, block.items, len(block.payload)) for block in CONTENT}
    assert info.items == sum(items for items, _, _ in BLOCKS)
    assert info.payload == sum(len(block.payload) for block in CONTENT)
    assert info.overhead == STARTS[0] - 50 + BLOCK_HEAD * len(CONTENT) + TRAILER
    damaged = Reader(flip(FILE, 8 * STARTS[1]), errors="skip").info()
    assert (list(damaged.blocks), damaged.damage[0].lost, damaged.size) == ([0, 2, 3, 4, 5], range(1, 2), len(FILE))


def test_decoded_data_are_checked() -> None:
    block = CONTENT[2]
    block.check(BLOCKS[2][1])
    with pytest.raises(errors.DecodeMismatch, match="block 2") as caught:
        block.check(BLOCKS[2][1] + b"\0")
    assert caught.value.index == 2


def test_an_unfinished_file_has_no_end() -> None:
    file = BytesIO()
    with pytest.raises(RuntimeError), Writer(file, {}) as writer:
        writer.add(1, b"x")
        raise RuntimeError
    with pytest.raises(TruncatedFile, match="1"):
        list(Reader(file.getvalue()))


def test_a_file_is_there_whole_or_not_at_all(tmp_path: Path) -> None:
    path = tmp_path / "new" / "x.anc"
    with whole(path) as file:
        file.write(b"old")
        assert not path.exists()
    with pytest.raises(RuntimeError), whole(path) as file:
        file.write(b"new")
        raise RuntimeError
    assert [(each.name, each.read_bytes()) for each in path.parent.iterdir()] == [("x.anc", b"old")]


TYPES = [CorruptBlock(3, "why"), TruncatedFile(2), errors.DecodeMismatch(1), errors.WrongModel("aa", "bb")]


@pytest.mark.parametrize("error", TYPES)
def test_errors_can_be_handed_to_another_process(error: CodecError) -> None:
    twin = copy.copy(error)
    assert (type(twin), str(twin), vars(twin)) == (type(error), str(error), vars(error))
