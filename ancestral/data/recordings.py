"""Which sources are text or sound, and what they hold: files, folders, strings and samples, as tapes with their labels."""

from __future__ import annotations

import csv
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np

from ancestral.data import images
from ancestral.data.homemade import CLASSES, NOTE, RATE, notes, prose
from ancestral.data.images import SETS, classes_of, listed, sets_of
from ancestral.data.notation import SOUNDS, Notation, Sound, Text, notation_from_dict
from ancestral.data.sounds import SMALL, SUFFIXES, Recording, tapes_of
from ancestral.data.source import PARTS, Array
from ancestral.data.tapes import BytesFile, Held, Tape
from ancestral.symbols import DataError

PIECES = ("blocks", "lines", "files")
WRITTEN = (".txt",)
ARRAYS = (".npy", ".npz")
TABLE = "labels.csv"
SAMPLES = (np.int16, np.float32, np.float64)
CHANNELS = 8  # the most that a recording has; longer rows are sounds
IN_ORDER = "cut in order: 80 % train, 10 % validation, 10 % test"  # the embedded text is short, so that the usual 5 % are little


@dataclass(frozen=True)
class Cutting:
    """How text and sound become examples; the fields are arguments of ``load_data``.

    Raises:
        DataError: one is outside its range.
    """

    notation: str | Notation | Mapping[str, Any] | None = None
    vocabulary: int | None = None
    length: int | None = None
    pieces: str | None = None
    rate: int | None = None
    label_from: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        if isinstance(self.notation, Mapping):
            object.__setattr__(self, "notation", notation_from_dict(self.notation))
        for name in ("vocabulary", "length", "rate"):
            value = getattr(self, name)
            if value is not None and (isinstance(value, bool) or not isinstance(value, int) or value < 1):
                raise DataError(f"{name} is {value!r}; it must be a whole number, at least 1")
        if self.pieces not in (None, *PIECES):
            raise DataError(f"pieces is {self.pieces!r}; it must be one of {', '.join(PIECES)}")
        if self.vocabulary is not None and self.notation != "bpe":
            raise DataError("vocabulary is the number of tokens of a BPE that is trained: it goes with notation='bpe'")


def sound_code(cutting: Cutting) -> tuple[str, int | None]:
    """How sound is to be written, and at which rate, if that is said.

    Raises:
        DataError: the notation is one of text, or there is no such one.
    """
    wanted = "mulaw" if cutting.notation is None else cutting.notation
    if isinstance(wanted, Sound):
        return wanted.code, wanted.rate
    if isinstance(wanted, Text):
        raise DataError(f"this is sound, and the notation is one of text ({wanted.in_words()}): give text")
    if wanted not in SOUNDS:
        raise DataError(f"the notation of sound is {wanted!r}; it must be one of {', '.join(SOUNDS)}")
    return str(wanted), cutting.rate


@dataclass(frozen=True)
class Found:
    """What a source of text or sound holds.

    Attributes:
        kind: ``"text"`` or ``"audio"``.
        name, origin: for ``Splits.name``, and the first words of its note.
        tapes: a tape for each file or the like: bytes of text, symbols of sound.
        sets: the tapes of each set; ``"train"`` is always there.
        pieces: what examples are where nothing is said.
        notation: of sound; that of a text is made when its sets are known.
        labels: the class of each tape by name, "" where it is not known, or by number; or none.
        steps: what was done to the data so far, in words for the note.
        length: of a block where nothing is said, or None for what is usual.
    """

    kind: str
    name: str
    origin: str
    tapes: Sequence[Tape]
    sets: dict[str, list[int]]
    pieces: str
    notation: Notation | None = None
    labels: tuple[str | int, ...] = ()
    steps: tuple[str, ...] = ()
    length: int | None = None


def find(source: Any, cutting: Cutting) -> Found | None:
    """What a source holds, where that is text or sound, and None where it is something else.

    Text is a string in a list, ``.txt`` files, any file that is asked for in a notation of text, and one-dimensional arrays
    of bytes in such a notation; sound is files in the formats of ``sounds.SUFFIXES``, and one-dimensional arrays with a rate,
    one or a list of them, which may be the rows of an array. A list may be in a pair with the labels of what it holds.

    Raises:
        DataError: a file is broken, or an option does not fit.
    """
    if isinstance(source, tuple) and len(source) == 2 and isinstance(source[0], (list, np.ndarray)):
        found = find(source[0], cutting)
        return None if found is None else _labelled(found, source[1])
    if isinstance(source, (list, tuple)) and all(isinstance(each, str) for each in source):
        if not any(source):
            raise DataError(f"a list of {len(source)} strings that holds no text: give at least 3 strings with something in them")
        tapes = [Held(np.frombuffer(text.encode(), np.uint8)) for text in source]
        return _text("strings", f"{len(source):,} strings", tapes, {"train": list(range(len(source)))}, "files")
    if isinstance(source, list) and all(isinstance(each, np.ndarray) and each.ndim == 1 for each in source):
        return _of_waves(source, cutting)
    if isinstance(source, np.ndarray):
        return _of_array(source, "array", f"array of shape {source.shape}", cutting)
    if not isinstance(source, (str, Path)):
        return None
    if isinstance(source, str) and source in OWN:
        return OWN[source](cutting)
    path = Path(source).expanduser()
    if path.is_dir():
        return _of_folder(path, cutting)
    suffix = path.suffix.lower()
    if not path.is_file() or suffix in images.SUFFIXES:
        return None
    if suffix in ARRAYS:
        return _of_array(_mapped(path), path.stem, path.name, cutting)
    if suffix in SUFFIXES:
        return _sound(path.stem, path.name, [path], {"train": [0]}, cutting)
    if suffix in WRITTEN or _of_text(cutting):
        return _text(path.stem, f"{path.name} ({path.stat().st_size:,} bytes)", _text_tapes([path]), {"train": [0]}, "blocks")
    return None


def _labelled(found: Found, labels: Any) -> Found:
    """The same with a label of each text or sound, a name or a whole number."""
    given = np.asarray(labels)
    if given.shape != (len(found.tapes),) or given.dtype.kind not in "Uiub":
        raise DataError(
            f"{found.origin}: the labels beside them have shape {given.shape} and type {given.dtype}: give each of the"
            f" {len(found.tapes):,} a name or a whole number"
        )
    return replace(found, labels=tuple(given.tolist()))


def _mapped(path: Path) -> Array:
    """The array of an ``.npy``, read as it is used; an empty one where that cannot be, as in other files."""
    try:
        return np.asanyarray(np.load(path, mmap_mode="r", allow_pickle=False)) if path.suffix == ".npy" else np.zeros((0, 0))
    except (ValueError, EOFError, OSError):
        return np.zeros((0, 0))


def _of_text(cutting: Cutting) -> bool:
    return cutting.notation is not None and not isinstance(cutting.notation, Sound) and cutting.notation not in SOUNDS


def _of_sound(cutting: Cutting) -> bool:
    return cutting.rate is not None or isinstance(cutting.notation, Sound)


def _text(name: str, origin: str, tapes: Sequence[Tape], sets: dict[str, list[int]], pieces: str) -> Found:
    return Found("text", name, origin, tapes, sets, pieces)


def _text_tapes(files: Sequence[Path]) -> list[Tape]:
    sizes = [path.stat().st_size for path in files]
    tapes: list[Tape] = [BytesFile(path, size) for path, size in zip(files, sizes, strict=True)]
    return [Held(tape.read(0, len(tape))) for tape in tapes] if sum(sizes) <= SMALL else tapes


def _sound(
    name: str,
    origin: str,
    recordings: Sequence[Recording],
    sets: dict[str, list[int]],
    cutting: Cutting,
    rate: int | None = None,
    labels: tuple[str, ...] = (),
    length: int | None = None,
) -> Found:
    code, wanted = sound_code(cutting)
    tapes, notation, steps = tapes_of(recordings, rate or cutting.rate or wanted, code, wanted)
    pieces = "files" if len(recordings) > 1 and length is None else "blocks"
    return Found("audio", name, origin, tapes, sets, pieces, notation, labels, tuple(steps), length)


def _of_array(x: Array, name: str, origin: str, cutting: Cutting) -> Found | None:
    if x.ndim == 2 and _of_sound(cutting) and x.dtype in SAMPLES:
        if x.shape[1] <= CHANNELS:
            raise DataError(f"{origin}: rows are sounds, and these look like channels: give one, x[:, 0], or their mean")
        return _of_waves(list(x), cutting)
    if x.ndim != 1 or not ((_of_text(cutting) and x.dtype == np.uint8) or (_of_sound(cutting) and x.dtype in SAMPLES)):
        return None
    if _of_text(cutting):
        return _text(name, f"{origin} ({len(x):,} bytes)", [Held(x)], {"train": [0]}, "blocks")
    return _sound(name, origin, [x], {"train": [0]}, cutting)


def _of_waves(waves: list[Array], cutting: Cutting) -> Found:
    if not _of_sound(cutting) or any(wave.dtype not in SAMPLES for wave in waves):
        raise DataError(
            "a list of one-dimensional arrays is sound, of int16 or real samples, and needs its rate: data(waves, rate=16000),"
            " or with labels data((waves, labels), rate=16000)"
        )
    return _sound("sounds", f"{len(waves):,} sounds", waves, {"train": list(range(len(waves)))}, cutting)


def _of_folder(folder: Path, cutting: Cutting) -> Found | None:
    """What the files of a folder hold; images and the files of MNIST are for others to read."""
    name = folder.resolve().name
    for suffixes in (SUFFIXES, WRITTEN):
        roots, files = _by_sets(folder, suffixes)
        if not all(files.values()) or (suffixes is WRITTEN and not _of_text(cutting) and listed(folder, images.SUFFIXES)):
            continue
        every = [path for some in files.values() for path in some]
        ends = np.cumsum([len(some) for some in files.values()]).tolist()
        sets = {part: list(range(end - len(files[part]), end)) for part, end in zip(files, ends, strict=True)}
        labels = _labels(folder, roots, files, cutting.label_from)
        origin = f"{name} (folder of {len(every):,} {'sounds' if suffixes is SUFFIXES else 'texts'})"
        if suffixes is SUFFIXES:
            return _sound(name, origin, every, sets, cutting, labels=labels)
        return Found("text", name, origin, _text_tapes(every), sets, "blocks", labels=labels)
    return None


def _by_sets(folder: Path, suffixes: Sequence[str]) -> tuple[dict[str, Path], dict[str, list[Path]]]:
    """Where the files of each set lie, and these: subfolders called as sets are, or files called so, or all in one."""
    roots = sets_of(folder)
    files = {part: listed(root, suffixes) for part, root in roots.items()}
    if len(files) == 1:
        named = {SETS[path.stem.lower()]: [path] for path in files["train"] if path.stem.lower() in SETS}
        if len(named) == len(files["train"]) > 1 and "train" in named:
            return dict.fromkeys(named, folder), {part: named[part] for part in PARTS if part in named}
    return roots, files


def _labels(folder: Path, roots: dict[str, Path], files: dict[str, list[Path]], label_from: tuple[str, ...]) -> tuple[str, ...]:
    """The class of each file by name: of columns of ``labels.csv``, parts of the file's name, or its subfolder; "" if none."""
    table = _table(folder / TABLE)
    if not label_from and not table:
        return tuple(name for part, some in files.items() for name in classes_of(some, roots[part]) or [""] * len(some))
    words = label_from or tuple(name for name in next(iter(table.values())) if name != "file")
    return tuple("_".join(_word(path, folder, table, word) for word in words) for some in files.values() for path in some)


def labels_of(folder: Path, files: Sequence[Path], label_from: tuple[str, ...]) -> tuple[str, ...]:
    """The class by name of each of these files of a folder, as those of a data set are read; "" if unknown."""
    try:
        return _labels(folder, {"train": folder}, {"train": list(files)}, label_from)
    except DataError:
        return ("",) * len(files)


def _table(path: Path) -> dict[str, dict[str, str]]:
    if not path.is_file():
        return {}
    try:
        with path.open(encoding="utf-8-sig", newline="") as file:
            rows = list(csv.DictReader(file))
    except (UnicodeDecodeError, csv.Error) as error:
        raise DataError(f"{path} is no table in UTF-8 ({error})") from error
    if not rows or any("file" not in row or None in row or None in row.values() for row in rows):
        raise DataError(f"{path}: the first line must name the columns, file among them, and every line must fill all of them")
    return {row["file"]: row for row in rows}


def _word(path: Path, folder: Path, table: dict[str, dict[str, str]], word: str) -> str:
    """One part of a file's label: what a number stands for in its name, or a word in the table."""
    if word == "folder":
        return path.parent.name
    if word.isdigit():
        parts = re.split("[-_]", path.stem)
        if int(word) >= len(parts):
            raise DataError(f"{path}: the name has {len(parts)} parts between - and _, counted from 0, and no part {word}")
        return parts[int(word)]
    row = table.get(path.relative_to(folder).as_posix(), table.get(path.name))
    if row is None or word not in row:
        what = f"no line for {path.name}" if row is None else f"the columns {', '.join(row)} and not {word!r}"
        raise DataError(
            f"{folder / TABLE} has {what}; labels come from its columns (label_from=NAME), from parts of file names between -"
            " and _ (label_from=0, 1, ...) or from subfolders (label_from=folder)"
        )
    return row[word]


def _prose(cutting: Cutting) -> Found:
    text = np.frombuffer(prose(), np.uint8)
    cuts = [len(text) * share // 10 for share in (0, 8, 9, 10)]
    tapes = [Held(text[start:stop]) for start, stop in pairwise(cuts)]
    origin = f"prose of our own, in English ({len(text):,} bytes)"
    return Found("text", "text", origin, tapes, {part: [i] for i, part in enumerate(PARTS)}, "blocks", steps=(IN_ORDER,))


def _notes(cutting: Cutting) -> Found:
    samples, pitches, sets = notes()
    labels = tuple(f"{pitch:02d} {CLASSES[pitch]}" for pitch in pitches)
    origin = f"{len(samples):,} synthesised notes"
    return _sound("notes", origin, samples, sets, cutting, RATE, labels, NOTE)


OWN: dict[str, Callable[[Cutting], Found]] = {"text": _prose, "notes": _notes}
