"""Texts as runs of symbols with what no symbol tells, and back byte for byte.

A text is bytes, characters of an alphabet or tokens, in one run or as its lines. Of characters those that the alphabet lacks are
kept beside it, with their places. As lines it is what models of lines were trained on: the symbol that ends an example stands for
the newline, and kept beside are also which lines hold nothing, for those are no examples, and which end in a carriage return.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from ancestral.data.notation import TEXTS, Text, decoded, smallest
from ancestral.data.source import Array
from ancestral.symbols import DataError

LINES = {code: f"{code} lines" for code in TEXTS}  # kinds of files whose lines are items, by notation
NEWLINE = ord("\n")

Told = tuple[Array, tuple[bytes, ...]]  # a run of symbols, and the parts that are kept beside it


def of_text(data: bytes, notation: Text, lines: bool = False) -> Told | None:
    """A text as one run of symbols; None where what would have to be kept beside it is longer, or tokens do not give it back.

    Args:
        lines: whether its lines are items; symbol ``notation.levels`` then ends each, but the last one where no newline does.
    """
    if lines:
        return _of_lines(data, notation)
    if notation.code == "bytes":
        return notation.codes(data), ()
    return _of_characters(data, notation) if notation.code == "characters" else _of_tokens(data, notation)


def text_of(kind: str, run: Array, parts: Sequence[bytes], notation: Text) -> bytes:
    """The text of a kind, a notation or its ``LINES``, that ``of_text`` made these of."""
    if kind in LINES.values():
        return _with_lines(_ended(run, parts[0], notation), *(_places(part) for part in parts[1:]))
    text = notation.decode(run)
    if isinstance(text, bytes):
        return text
    return _with_strangers(text, parts[0]) if kind == "characters" else text.encode()


# ---- characters and tokens


def _of_characters(data: bytes, notation: Text, end: int | None = None) -> Told | None:
    """What the alphabet has, newlines as ``end`` where there is one, and for each of the others its place and its code."""
    points = _points(data.decode("utf-8", "surrogateescape"))
    ends = (points == NEWLINE) & (end is not None)
    strange = np.flatnonzero(~np.isin(points, _points(notation.alphabet)) & ~ends)
    if 8 * len(strange) >= max(1, len(data)):
        return None
    known, ends = np.delete(points, strange), np.delete(ends, strange)
    run = np.full(len(known), end or 0, smallest(notation.levels + (end is not None)))
    run[~ends] = notation.codes(known[~ends].tobytes().decode("utf-32-le"))
    return run, (_gaps(strange) + points[strange].tobytes(),)


def _points(text: str) -> Array:
    return np.frombuffer(text.encode("utf-32-le", "surrogatepass"), "<u4")


def _with_strangers(text: str, beside: bytes) -> bytes:
    """A text with the characters that its alphabet lacks."""
    half = len(beside) // 2
    places, strange, known = _places(beside[:half]), np.frombuffer(beside[half:], "<u4"), _points(text)
    return _among(known, places, strange).tobytes().decode("utf-32-le", "surrogatepass").encode("utf-8", "surrogateescape")


def _of_tokens(data: bytes, notation: Text) -> Told | None:
    """Tokens, where they give the text back."""
    try:
        text = decoded(data)
    except DataError:
        return None
    codes = notation.codes(text)
    return (codes, ()) if notation.decode(codes) == text else None


def _gaps(places: Array) -> bytes:
    """Ascending places by how far each is from the one before it, which says the same in fewer bits."""
    return np.diff(places, prepend=0).astype("<u4").tobytes()


def _places(gaps: bytes) -> Array:
    """The inverse of ``_gaps``."""
    return np.cumsum(np.frombuffer(gaps, "<u4"), dtype=np.int64)


def _among(others: Array, places: Array, values: Array | bytes) -> Array:
    """Values at their places, and in all other places the others in their order."""
    whole = np.empty(len(others) + len(places), others.dtype)
    rest = np.ones(len(whole), bool)
    rest[places] = False
    whole[places], whole[rest] = values, others
    return whole


# ---- lines


def _of_lines(data: bytes, notation: Text) -> Told | None:
    """Lines that hold something, and beside them their strange characters, the carriage returns, and the empty lines."""
    *lines, last = data.split(b"\n")
    returned = [i for i, line in enumerate(lines) if line.endswith(b"\r")]
    lines = [line.removesuffix(b"\r") for line in lines]
    empty, kept = [i for i, line in enumerate(lines) if not line], [line for line in lines if line]
    found = _in_ends([*kept, last], notation)
    if found is None:
        return None
    run, strangers = found
    return run, (strangers, *(_gaps(np.array(places, np.int64)) for places in (returned, empty)))


def _in_ends(lines: Sequence[bytes], notation: Text) -> tuple[Array, bytes] | None:
    """Lines with ends between them, and their strange characters."""
    end = notation.levels
    if notation.code == "characters":
        told = _of_characters(b"\n".join(lines), notation, end)
        return None if told is None else (told[0], told[1][0])
    coded = [of_text(line, notation) for line in lines]
    runs = [np.append(each[0], end) for each in coded if each is not None]
    return None if len(runs) < len(coded) else (np.concatenate(runs)[:-1].astype(smallest(end + 1)), b"")


def _ended(run: Array, strangers: bytes, notation: Text) -> bytes:
    """The inverse of ``_in_ends``, with newlines between the lines."""
    texts = [notation.decode(each[each != notation.levels]) for each in np.split(run, np.flatnonzero(run == notation.levels) + 1)]
    lines = [text if isinstance(text, bytes) else text.encode() for text in texts]
    joined = b"\n".join(lines)
    return _with_strangers(joined.decode(), strangers) if notation.code == "characters" else joined


def _with_lines(text: bytes, returned: Array, empty: Array) -> bytes:
    """A text with its empty lines and carriage returns."""
    *kept, last = text.split(b"\n")
    lines = _among(np.array(kept, object), empty, b"")
    for place in returned:
        lines[place] += b"\r"
    return b"\n".join([*lines, last])
