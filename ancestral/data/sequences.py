"""Text and sound: what a source of them holds, and how examples are cut from it.

Text is divided into sets before it is written as symbols, so that nothing is learned, a BPE for instance, of what a model is
judged on; only the alphabet of characters is that of all three sets.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch

from ancestral.data.images import listed
from ancestral.data.notation import TEXTS, Notation, Text, decoded, smallest
from ancestral.data.prepare import counted, with_labels, without
from ancestral.data.recordings import WRITTEN, Cutting, Found, find
from ancestral.data.sounds import SUFFIXES
from ancestral.data.source import PARTS, Array, Source, divide, limited
from ancestral.data.splits import Splits
from ancestral.data.tapes import CHUNK, FIRST, LAST, START, STOP, TAPE, Held, Pieces, Tape, Windows
from ancestral.spec import DataSpec
from ancestral.symbols import DataError

LENGTHS = {"text": 256, "audio": 4096}  # units, where nothing is said
VOCABULARY = 1024  # tokens of a BPE, where nothing is said
NEWLINE, RETURN = b"\n\r"


def load_sequences(
    found: Found, cutting: Cutting, limit: int | None, leave_out: Sequence[str], seed: int, labels: bool
) -> Splits:
    """The three sets of a source of text or sound; `load_data` describes them.

    Raises:
        DataError: an option does not fit the source, or there is too little of it.
    """
    pieces = cutting.pieces or found.pieces
    if pieces == "lines" and found.kind != "text":
        raise DataError(f"{found.origin}: lines are of text; sound is cut into blocks, or its files are the examples")
    length = cutting.length or found.length or (None if pieces != "blocks" and found.kind == "text" else LENGTHS[found.kind])
    source = _divided(found, pieces, length or 0, seed)
    tapes, notation = dict.fromkeys(PARTS, found.tapes), found.notation
    if notation is None:
        source, tapes, notation = _written(source, found.tapes, cutting)
    source = _in_blocks(source, length or 0) if pieces == "blocks" else _whole(source, length, pieces)
    source = with_labels(source, labels)
    source = without(source, leave_out) if leave_out else source
    source = limited(source, limit, seed) if limit is not None else source
    end = None if pieces == "blocks" else notation.levels
    shape = (None,) if end is not None else ((length or 0) * notation.parts,)
    levels = notation.levels + (end is not None)
    spec = DataSpec(found.kind, shape, levels, source.classes, end=end, parts=notation.parts)
    y = {part: torch.from_numpy(labels) for part, labels in source.labels.items()}
    train, validation, test = (Pieces(tapes[part], source.x[part], y.get(part), end) for part in PARTS)
    windows = None if length is None or (np.diff(train.places[:, FIRST:]) == 1).all() else Windows(train, length)
    said = [f"in training windows of {length:,} at any offset"] if windows is not None else []
    alphabet = f"{notation.in_words()}{'' if end is None else ' and an end'}"
    note = "; ".join((source.origin, *source.steps, *said, alphabet, counted(source))) + "."
    return Splits(train, validation, test, spec, found.name, note, source.class_names, redrawn=windows, notation=notation)


def _divided(found: Found, pieces: str, length: int, seed: int) -> Source:
    """Three sets of places: all of what the source has of each, or cut from it; blocks are of this length."""
    whole = {
        part: np.array([(i, 0, len(found.tapes[i]), 0, 0) for i in some], np.int64).reshape(-1, 5)
        for part, some in found.sets.items()
    }
    steps = found.steps
    if pieces == "blocks":
        whole, step = _in_order(whole, found, length)
        steps = (*steps, step) if step else steps
    elif pieces == "lines":
        whole = {part: _lines(found.tapes, places) for part, places in whole.items()}
    labels = {part: np.array(found.labels)[places[:, TAPE]] for part, places in whole.items() if found.labels}
    labels = {part: names for part, names in labels.items() if (names != "").all()}
    source = Source(found.name, found.origin, whole, labels, steps=steps)
    return source if pieces == "blocks" else divide(source, seed)


def _in_order(whole: dict[str, Array], found: Found, length: int) -> tuple[dict[str, Array], str]:
    """The sets that are missing, cut from the end of the training set: nothing is shuffled.

    Of classes that all are long enough, each by itself, as files are often sorted by class.
    """
    if "validation" in whole and "test" in whole:
        return whole, ""
    if "validation" in whole:
        return {**whole, "test": whole["validation"]}, "test is validation again, for want of a third set"
    places = whole["train"]
    classes = np.array(found.labels if found.labels and "" not in found.labels else [""] * len(found.tapes))[places[:, TAPE]]
    alike = [places[classes == name] for name in sorted(set(classes.tolist()))]
    if min(int((some[:, STOP] - some[:, START]).sum()) for some in alike) < 20 * length:  # of which the least share is 5 %
        alike = [places]
    shares = [("train", 0, 95), ("validation", 95, 100)] if "test" in whole else []
    shares = shares or [("train", 0, 90), ("validation", 90, 95), ("test", 95, 100)]
    cut = {part: np.concatenate([_part(some, found, low, high) for some in alike]) for part, low, high in shares}
    said = ", ".join(f"{high - low} % {part}" for part, low, high in shares)
    return {**whole, **cut}, f"{'each class ' if len(alike) > 1 else ''}cut in order: {said}"


def _part(places: Array, found: Found, low: int, high: int) -> Array:
    """The places of so many per cent of the units, counted over all places; text is not cut within a character."""
    start, stop = places[:, START], places[:, STOP]
    ends = np.cumsum(stop - start)
    before, (low, high) = ends - (stop - start), (int(ends[-1]) * share // 100 for share in (low, high))
    edges = np.stack([np.clip(start + edge - before, start, stop) for edge in (low, high)], 1)
    if found.notation is None:
        edges = np.array(
            [
                [_character(found.tapes[row[TAPE]], edge) for edge in some]
                for row, some in zip(places, edges.tolist(), strict=True)
            ]
        )
    some = places.copy()
    some[:, START:FIRST] = edges
    return some[some[:, STOP] > some[:, START]]


def _character(tape: Tape, place: int) -> int:
    """The place of the first byte from there on that begins a character of UTF-8."""
    following = tape.read(place, min(place + 4, len(tape)))
    begins = np.flatnonzero((following & 0xC0) != 0x80)
    return place + (int(begins[0]) if len(begins) else 0)


def _lines(tapes: Sequence[Tape], places: Array) -> Array:
    """The places of the lines that hold something, without what ends them: a newline, and a carriage return before it."""
    found = []
    for tape, start, stop in places[:, :FIRST].tolist():
        newlines, returns = _where(tapes[tape], start, stop, NEWLINE), _where(tapes[tape], start, stop, RETURN)
        starts, ends = np.concatenate([[start], newlines + 1]), np.concatenate([newlines, [stop]])
        ends = ends - np.isin(ends - 1, returns)
        rows = np.zeros((len(ends), 5), np.int64)
        rows[:, TAPE], rows[:, START], rows[:, STOP] = tape, starts, ends
        found.append(rows[ends > starts])
    return np.concatenate(found) if found else np.zeros((0, 5), np.int64)


def _where(tape: Tape, start: int, stop: int, byte: int) -> Array:
    """The places of a byte, from start to before stop."""
    chunks = (np.flatnonzero(tape.read(i, min(i + CHUNK, stop)) == byte) + i for i in range(start, stop, CHUNK))
    return np.concatenate([np.zeros(0, np.int64), *chunks])


def _written(source: Source, tapes: Sequence[Tape], cutting: Cutting) -> tuple[Source, dict[str, Sequence[Tape]], Text]:
    """Text in its notation: bytes stay where they are, what else there is becomes one tape of each set."""
    notation = _text_notation(source, tapes, cutting)
    if notation.code == "bytes":
        return source, dict.fromkeys(PARTS, tapes), notation
    coded = {part: _coded(notation, tapes, places) for part, places in source.x.items()}
    x = {part: places for part, (places, _) in coded.items()}
    return replace(source, x=x), {part: [tape] for part, (_, tape) in coded.items()}, notation


def _coded(notation: Text, tapes: Sequence[Tape], places: Array) -> tuple[Array, Tape]:
    """One tape with the symbols of the text at these places, and where they are on it."""
    codes = [notation.codes(text) for text in _texts(tapes, places)]
    ends = np.cumsum([len(each) for each in codes], dtype=np.int64)
    new = np.zeros_like(places)
    new[:, START], new[:, STOP] = np.concatenate([[0], ends])[:-1], ends
    return new, Held(np.concatenate([np.zeros(0, smallest(notation.levels)), *codes]))


def _text_notation(source: Source, tapes: Sequence[Tape], cutting: Cutting) -> Text:
    wanted = cutting.notation
    if isinstance(wanted, Text):
        return wanted
    if wanted is None or wanted == "bytes":
        return Text()
    if wanted == "characters":
        return Text.characters("".join({c for places in source.x.values() for text in _texts(tapes, places) for c in set(text)}))
    if wanted == "bpe":
        return Text.bpe(_texts(tapes, source.x["train"]), cutting.vocabulary or VOCABULARY)
    if isinstance(wanted, str) and wanted.endswith(".json") and Path(wanted).expanduser().is_file():
        return Text("bpe", tokenizer=Path(wanted).expanduser().read_text(encoding="utf-8"))
    raise DataError(
        f"{source.origin}: the notation of a text is {wanted!r}; it must be one of {', '.join(TEXTS)}, or the path of a"
        " tokenizer.json"
    )


@dataclass(frozen=True, eq=False)
class Read:
    """Examples of files, read when they are asked for.

    Attributes:
        examples: n of them.
        names: of each: its file, with a number where that holds several.
        left: how many symbols at the ends of files make no whole block.
    """

    examples: Pieces
    names: list[str]
    left: int


def read_sequences(paths: Sequence[Path], spec: DataSpec, notation: Notation, lines: bool = False) -> Read:
    """Files of text or sound, and folders of them, as symbols of a model.

    Where lengths vary every file is an example, or every line of it; else every block of its length.

    Raises:
        DataError: a file is missing, broken or of another kind, or shorter than a block.
    """
    tapes, runs, names, left = list[Tape](), list[Array](), list[str](), 0
    for path in [file for place in paths for file in files_of(place, spec.kind)]:
        found = find(path, Cutting(notation))
        if found is None or found.kind != spec.kind:
            raise DataError(f"{path} is no {spec.kind}, which this model is of")
        tape, some, lost = _runs(found.tapes[0], notation, spec, lines)
        if not len(some):
            least = "no symbol" if spec.end is not None else f"fewer than the {spec.sites:,} symbols of an example"
            raise DataError(f"{path} holds {least}")
        some[:, TAPE] = len(tapes)
        tapes.append(tape)
        runs.append(some)
        names += [str(path)] if len(some) == 1 else [f"{path} {i}" for i in range(len(some))]
        left += lost
    return Read(Pieces(tapes, np.concatenate(runs), end=spec.end), names, left)


def files_of(path: Path, kind: str) -> list[Path]:
    """The files of text or sound in a folder, in order, or the file itself.

    Raises:
        DataError: there is no such place, or no such file in it.
    """
    if not path.exists():
        raise DataError(f"there is no file or folder {path}")
    suffixes = SUFFIXES if kind == "audio" else WRITTEN
    files = listed(path, suffixes) if path.is_dir() else [path]
    if not files:
        raise DataError(f"{path} holds no {kind} ({', '.join(suffixes)})")
    return files


def _runs(tape: Tape, notation: Notation, spec: DataSpec, lines: bool) -> tuple[Tape, Array, int]:
    """The symbols of a file, the places of it all, of each of its lines or of each block, and how many are in none of these."""
    places = np.array([[0, 0, len(tape), 0, 0]], np.int64)
    places = _lines([tape], places) if lines else places
    if isinstance(notation, Text) and notation.code != "bytes":
        places, tape = _coded(notation, [tape], places)
    if spec.end is not None:
        return tape, places, 0
    size = spec.sites // tape.parts
    starts = np.arange(len(tape) // size) * size
    blocks = np.zeros((len(starts), 5), np.int64)
    blocks[:, START], blocks[:, STOP] = starts, starts + size
    return tape, blocks, len(tape) % size * tape.parts


def _texts(tapes: Sequence[Tape], places: Array) -> Iterator[str]:
    return (decoded(tapes[tape].read(start, stop).tobytes()) for tape, start, stop in places[:, :FIRST].tolist())


def _in_blocks(source: Source, length: int) -> Source:
    """Consecutive blocks of so many units; what is left at the end of a place is dropped."""
    lost, x, labels = 0, dict[str, Array](), dict[str, Array]()
    for part, places in source.x.items():
        sizes = places[:, STOP] - places[:, START]
        counts = sizes // length
        rows = np.repeat(np.arange(len(places)), counts)
        number = np.arange(len(rows)) - np.repeat(np.cumsum(counts) - counts, counts)
        x[part] = some = places[rows]
        some[:, STOP] = some[:, START] + (number + 1) * length
        offsets = sizes - length + 1  # where a window may begin, shared out evenly to the blocks
        some[:, LAST] = some[:, START] + (number + 1) * offsets[rows] // counts[rows]
        some[:, FIRST] = some[:, START] + number * offsets[rows] // counts[rows]
        some[:, START] += number * length
        lost += int((sizes - counts * length).sum())
        if part in source.labels:
            labels[part] = source.labels[part][rows]
        if not len(some):
            raise DataError(
                f"{source.origin}: {part} has {int(sizes.sum()):,} symbols or samples and no block of {length:,}: give a"
                " smaller length, or more data"
            )
    step = f"blocks of {length:,}" + (f", {lost:,} at the ends left out" if lost else "")
    return replace(source, x=x, labels=labels, steps=(*source.steps, step))


def _whole(source: Source, length: int | None, pieces: str) -> Source:
    """Examples as long as they are, and where windows of the longer ones may begin: the last holds their end."""
    x = dict[str, Array]()
    for part, places in source.x.items():
        x[part] = some = places.copy()
        sizes = places[:, STOP] - places[:, START]
        offsets = 1 if length is None else np.maximum(1, sizes + 2 - length)
        some[:, FIRST], some[:, LAST] = places[:, START], places[:, START] + offsets
    longest = max(int((places[:, STOP] - places[:, START]).max(initial=0)) for places in x.values())
    return replace(source, x=x, steps=(*source.steps, f"examples are {pieces}, up to {longest:,} long"))
