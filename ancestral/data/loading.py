"""``load_data``: whatever the source, the same steps in the same order."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields
from difflib import get_close_matches
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from ancestral.data.catalogue import EMBEDDED
from ancestral.data.embedded import READERS
from ancestral.data.files import read_file
from ancestral.data.idx import holds_idx, read_idx_folder
from ancestral.data.images import read_folder
from ancestral.data.notation import Notation
from ancestral.data.prepare import (
    arranged,
    coloured,
    converted,
    counted,
    dequantized,
    fitted,
    quantised,
    standardized,
    tabulated,
    with_alphabet,
    with_labels,
    without,
)
from ancestral.data.recordings import Cutting, find
from ancestral.data.sequences import load_sequences
from ancestral.data.source import PARTS, Array, Source, divide, limited
from ancestral.data.splits import Dequantized, Examples, Grey, Noisy, Splits, Units
from ancestral.spec import DataSpec
from ancestral.symbols import DataError

BINARIZE = ("threshold", "sample", "dynamic")
STREAMS = {part: 2**62 + i for i, part in enumerate(PARTS)}  # of the uniforms; out of reach of streams that count steps


@dataclass(frozen=True)
class _Options:
    levels: int | None = None
    binarize: str | None = None
    resize: int | None = None
    size: int | None = None
    channels: int | None = None
    limit: int | None = None
    leave_out: tuple[str, ...] = ()
    seed: int = 0
    labels: bool = True
    columns: tuple[int | None, ...] = ()
    dequantize: bool = False
    standardize: bool = False
    units: Units | None = None

    def __post_init__(self) -> None:
        lowest = {"levels": 2, "resize": 1, "size": 1, "limit": 1, "seed": 0}
        for name, least in lowest.items():
            value = getattr(self, name)
            if value is not None and (isinstance(value, bool) or not isinstance(value, int) or value < least):
                raise DataError(f"{name} is {value!r}; it must be a whole number, at least {least}")
        if not isinstance(self.labels, bool):
            raise DataError(
                "labels says whether to keep labels that there are: give those of an array beside it, as data((x, y))"
            )
        if self.channels not in (None, 1, 3):
            raise DataError(f"channels is {self.channels!r}; it must be 1 (grey) or 3 (colour)")
        if self.binarize not in (None, *BINARIZE):
            raise DataError(f"binarize is {self.binarize!r}; it must be one of {', '.join(BINARIZE)}")
        if self.dequantize and (self.binarize or self.columns):
            raise DataError("dequantize makes every symbol real-valued: leave binarize and columns out")
        if self.units is not None and (self.standardize or self.dequantize != self.units.dequantized):
            raise DataError("units of other data are given already: leave standardize and dequantize out")


def load_data(
    source: str | os.PathLike[str] | Array | Tensor | tuple[Any, Any] | Sequence[str] | Sequence[Array] | Splits,
    *,
    levels: int | None = None,
    binarize: str | None = None,
    resize: int | None = None,
    size: int | None = None,
    channels: int | None = None,
    limit: int | None = None,
    leave_out: Sequence[str | int] = (),
    seed: int = 0,
    labels: bool = True,
    columns: Sequence[int | None] = (),
    dequantize: bool = False,
    standardize: bool = False,
    units: Units | None = None,
    notation: str | Notation | Mapping[str, Any] | None = None,
    vocabulary: int | None = None,
    length: int | None = None,
    pieces: str | None = None,
    rate: int | None = None,
    label_from: Sequence[str] = (),
) -> Splits:
    """Read data into three sets of symbols.

    Sets that a source has are kept; ``ancestral.data.source.divide`` says how missing ones are cut from the training set. The
    options apply in this order: columns, labels, leave_out, limit, size, resize, channels, levels, binarize or dequantize,
    standardize. Of text and sound only labels, leave_out, limit and seed apply, and those from notation on, which are for
    them alone. They are read from disk while they are used where they have more than 2^28 bytes, but for text in other
    notations than bytes, and sound whose rate changes. Blocks of a source without sets are cut in order, the last 5 % for
    test, the 5 % before for validation; with a validation set alone it also serves as test set. Files called ``train.txt``,
    ``validation.txt`` and ``test.txt`` are sets.

    Args:
        source: a name in ``EMBEDDED``; a path to a ``.npy``, ``.npz`` or idx file (gzipped or not), to a folder that holds
            the four idx files of MNIST, or to a folder of images; an array or tensor (n, D), (n, H, W), (n, C, H, W) or
            (n, H, W, C), or a pair of one and its (n,) labels, whole numbers or names; or a ``Splits``, which is returned as it
            is. Text: a ``.txt`` file, any file with a notation of text, a folder of texts, a list of strings, (N,) bytes. Sound:
            a WAV, FLAC, AIFF or Ogg file, a folder of them, (N,) int16 or real samples in [-1, 1] with their ``rate``, (n, N)
            of several, or a list of such arrays; lists, too, may be in a pair with their labels. Long arrays are best given as
            ``.npy``, which is read as used.
        levels: reduce to this many levels, floor(v * levels / source levels). The levels of a source that does not say them, such
            as an array, are guessed: 2 where nothing is above 1, 256 where nothing is above 255, else 65,536. Where its values
            lie in 0 .. levels - 1 already they are taken as they are: so ``levels=17`` says that there are 17.
        binarize: ``"threshold"``: 1 where v is at least half of the range; ``"sample"``: 1 with probability
            v / (levels - 1), drawn once; ``"dynamic"``: the same, and ``Splits.redrawn`` lets the trainer draw anew.
        resize: bring the shorter side of the images down to this many pixels.
        size: crop the centre square out of the images, brought down to this side; needed where sizes are mixed.
        channels: 1 for grey, 3 for colour; by default colour unless every image of a folder is grey.
        limit: at most so many examples of each set, a seeded choice.
        leave_out: classes, by name or number, whose examples no set keeps; the other classes keep their numbers.
        seed: of the splits, the limit and the binarisation; splits of embedded data stay as they are.
        labels: whether to keep labels where there are some.
        columns: of a table, the levels of each column that holds whole numbers, and None for each real one.
        dequantize: whole numbers v become (v + u) / levels, u uniform in [0, 1), for models that are densities: drawn once,
            and anew by the trainer through ``Splits.redrawn``. The density of v + u bounds P(v); see `Units`.
        standardize: real values get mean 0 and standard deviation 1 on the training set; ``Splits.units`` undoes it.
        units: the units of other data, such as those that a model was trained on, in place of units of their own; where they
            are dequantised, so are these data.
        notation: of text ``"bytes"`` (the default), ``"characters"``, ``"bpe"`` (trained on the training set) or the path of a
            ``tokenizer.json``; of sound ``"mulaw"`` (the default), ``"pcm16"`` or ``"pcm8"``; or a `Text` or `Sound`, such as
            that of a run, also as the fields of its ``to_dict``.
        vocabulary: tokens of the BPE, 1,024 if nothing is said.
        length: of a block, 256 symbols of text or 4,096 samples of sound if nothing is said; training sees windows of it at any
            offset. Of files and lines it bounds what training sees of each: all of a text, 4,096 samples of a sound.
        pieces: what an example is: ``"blocks"`` of one length (the default of text and single files), or of varying length,
            with an end, ``"lines"`` of text, without the newline and a carriage return before it, or whole ``"files"`` (the
            default of several sounds, and of strings).
        rate: samples a second to which sound is brought; or those of samples that come without a file.
        label_from: what classes the files of a folder have: columns of its ``labels.csv`` (``file,label`` or more), parts of
            their names between - and _, counted from ``"0"``, or ``"folder"``; several make one class together. By default
            ``labels.csv``, where it is there, or subfolders.

    Raises:
        DataError: the source is unknown, missing, broken, empty or not of a kind above, or an option does not fit it.

    Example:
        >>> load_data("digits", binarize="threshold").spec
        DataSpec(kind='image', shape=(1, 8, 8), levels=2, classes=10, columns=(), end=None, parts=1)
    """
    cutting = Cutting(notation, vocabulary, length, pieces, rate, tuple(map(str, label_from)))
    table = tuple(columns)
    dequantize = dequantize or (units is not None and units.dequantized)
    left_out = tuple(map(str, leave_out))
    options = _Options(
        levels, binarize, resize, size, channels, limit, left_out, seed, labels, table, dequantize, standardize, units
    )
    if isinstance(source, Splits):
        if options != _Options() or cutting != Cutting():
            raise DataError("these data are loaded already; give the options to the call that read them")
        return source
    source = _plain(source)
    found = find(source, cutting)
    if found is not None:
        _check_sequence(options, found.origin)
        if cutting.label_from and not (found.labels and isinstance(source, (str, os.PathLike)) and source not in EMBEDDED):
            raise DataError(f"{found.origin}: label_from says what classes the files of a folder have: leave it out")
        return load_sequences(found, cutting, limit, left_out, seed, labels)
    raw = tabulated(arranged(_read(source, size)), table)
    if cutting != Cutting():
        raise DataError(f"{raw.origin} is neither text nor sound: leave notation, length, pieces, rate and label_from out")
    raw = raw if units is None or dequantize else converted(raw, units)
    raw = divide(with_labels(with_alphabet(raw, levels), labels), seed)
    raw = without(raw, left_out) if left_out else raw
    raw = limited(raw, limit, seed) if limit is not None else raw
    raw = quantised(coloured(fitted(raw, size, resize), channels), levels)
    if dequantize:
        raw = dequantized(raw, standardize, units)
    elif standardize:
        raw = standardized(raw, [i for i, count in enumerate(table) if count is not None])
    return _finished(raw, options)


def _plain(source: Any) -> Any:
    """The source with tensors as arrays, those in a pair or a list, too."""
    if isinstance(source, tuple):
        return tuple(map(_plain, source))
    if isinstance(source, list):
        return [_plain(each) for each in source]
    if not isinstance(source, Tensor):
        return source
    return (source.float() if source.is_floating_point() else source).detach().cpu().numpy()


def _check_sequence(options: _Options, origin: str) -> None:
    """Refuse options that text and sound do not take."""
    plain = _Options(limit=options.limit, leave_out=options.leave_out, seed=options.seed, labels=options.labels)
    if options != plain:
        names = [each.name for each in fields(_Options) if getattr(options, each.name) != getattr(plain, each.name)]
        raise DataError(f"{origin} is text or sound, which takes no {', '.join(names)}: leave that out")


def _read(source: Any, size: int | None) -> Source:
    if isinstance(source, np.ndarray):
        return Source("array", f"array of shape {source.shape}", {"train": source})
    if isinstance(source, tuple) and len(source) == 2 and isinstance(source[0], np.ndarray):
        x, y = source
        return Source("array", f"array of shape {x.shape} with labels", {"train": x}, {"train": np.asarray(y)})
    if isinstance(source, str) and source in READERS:
        return READERS[source]()
    if not isinstance(source, (str, os.PathLike)):
        kind = type(source).__name__
        raise DataError(
            f"data of type {kind}; give a name, a path, an array or a tensor, (x, y) of one with its labels, or Splits"
        )
    path = Path(source).expanduser()
    if not path.exists():
        raise _missing(os.fspath(source))
    if path.is_file():
        return read_file(path)
    return read_idx_folder(path) if holds_idx(path) else read_folder(path, size)


def _missing(name: str) -> DataError:
    listing = f"embedded are {', '.join(EMBEDDED)}; anything else must be the path of a file or folder"
    if "/" in name or os.sep in name or Path(name).suffix:
        return DataError(f"there is no file or folder {name!r} (looked from {Path.cwd()}); {listing}")
    near = get_close_matches(name, EMBEDDED, n=1)
    return DataError(f"there are no data called {name!r}{f': did you mean {near[0]!r}?' if near else ''}; {listing}")


def _finished(raw: Source, options: _Options) -> Splits:
    x = {part: torch.from_numpy(np.require(raw.x[part], requirements=["C", "W"])) for part in PARTS}
    x = {part: values.float() if values.is_floating_point() else values for part, values in x.items()}
    levels, values = raw.levels, "real values" if raw.levels is None else f"{raw.levels} levels"
    redrawn: Noisy | None = None
    if options.binarize is not None:
        if levels is None:
            raise DataError(f"{raw.origin} is real-valued; binarize is for grey levels")
        greys = {part: Grey(x[part], levels) for part in PARTS}
        x = {part: _binary(greys[part], part, options) for part in PARTS}
        redrawn = greys["train"] if options.binarize == "dynamic" else None
        levels, values = 2, f"{values} binarised by {_rule(options, levels)}"
    if options.dequantize and raw.units is not None:
        whole = {part: Dequantized(x[part], raw.units) for part in PARTS}
        x = {part: _drawn(whole[part], part, options) for part in PARTS}
        redrawn, levels = whole["train"], None
        values = f"{values} dequantised with uniform noise, drawn anew in training and once with seed {options.seed}"
    y = {part: torch.from_numpy(labels) for part, labels in raw.labels.items()}
    kind = "image" if x["train"].dim() == 4 else "vector"
    spec = DataSpec(kind, tuple(x["train"].shape[1:]), levels, raw.classes, options.columns)
    note = "; ".join((raw.origin, *raw.steps, values, counted(raw))) + "."
    train, validation, test = (Examples(x[part], y.get(part)) for part in PARTS)
    return Splits(train, validation, test, spec, raw.name, note, raw.class_names, raw.units, redrawn)


def _binary(grey: Grey, part: str, options: _Options) -> Tensor:
    if options.binarize == "threshold":
        return (2 * grey.x.long() >= grey.levels).to(torch.uint8)
    return _drawn(grey, part, options)


def _drawn(before: Noisy, part: str, options: _Options) -> Tensor:
    return before.draw(torch.arange(len(before.x)), options.seed, STREAMS[part])


def _rule(options: _Options, levels: int) -> str:
    if options.binarize == "threshold":
        return f"v >= {levels / 2:g}"
    dynamic = "anew at every use in training and " if options.binarize == "dynamic" else ""
    return f"Bernoulli(v / {levels - 1}), drawn {dynamic}once with seed {options.seed}"
