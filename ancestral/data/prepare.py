"""From the arrays of a source to symbols: layout, type, range, labels, size, colour, levels, units.

Arrays are (n, C, H, W) or (n, D).  Everything that is rounded is rounded once, in the order of the functions below.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence
from dataclasses import replace

import numpy as np
import torch

from ancestral.data.source import PARTS, Array, Source
from ancestral.data.splits import Units
from ancestral.symbols import LUMA, DataError

CHUNK = 4096  # rows at a time where a step needs wider numbers than the data


def arranged(source: Source) -> Source:
    """The source with images as (n, C, H, W), all sets alike, whole numbers or real ones that float32 holds.

    Raises:
        DataError: no examples, a rank or type that is no image and no table, real-valued images, NaN, sets of other shapes.
    """
    x = {part: _arranged(values, f"{source.origin}, {part}") for part, values in source.x.items()}
    train = x["train"]
    for part, values in x.items():
        if values.shape[1:] != train.shape[1:] or (values.dtype.kind == "f") != (train.dtype.kind == "f"):
            raise DataError(
                f"{source.origin}: an example of train is {train.shape[1:]} {train.dtype}, one of {part} is"
                f" {values.shape[1:]} {values.dtype}; all sets must be alike"
            )
    return replace(source, x=x)


def _arranged(x: Array, where: str) -> Array:
    if x.size == 0:
        raise DataError(f"{where}: shape {x.shape} holds no examples")
    if x.dtype.kind not in "buif":
        raise DataError(f"{where}: type {x.dtype} is neither whole numbers nor real ones")
    x, kind = _layout(x, where), x.dtype
    if kind.kind == "f":
        _check_finite(x, where)
    if kind.kind == "f" and x.ndim == 4:
        raise DataError(
            f"{where}: real-valued images ({kind}); symbols are whole numbers, so undo the scaling first, for instance"
            " (255 * x).round().astype('uint8') where x lies in [0, 1]"
        )
    return x


def _layout(x: Array, where: str) -> Array:
    if x.ndim == 2:
        return x
    if x.ndim == 3:
        return x[:, None]
    if x.ndim == 4 and x.shape[1] in (1, 3):  # where both ends could be the colours, the library's own layout is meant
        return x
    if x.ndim == 4 and x.shape[3] in (1, 3):
        return np.moveaxis(x, 3, 1)
    raise DataError(
        f"{where}: shape {x.shape} is none of (n, D), (n, H, W), (n, H, W, C) and (n, C, H, W) with 1 or 3 colours C;"
        " reshape it, and drop a fourth (alpha) channel; a single dimension is text, of uint8 with notation='bytes', or sound, of"
        " int16 or real samples with rate="
    )


def _check_finite(x: Array, where: str) -> None:
    with np.errstate(over="ignore"):
        x = x.astype(np.float32)
    bad = np.flatnonzero(~np.isfinite(x.reshape(len(x), -1)).all(1))
    if len(bad):
        raise DataError(f"{where}: {len(bad):,} rows hold NaN or infinite values, first row {bad[0]}; remove or replace them")


def with_alphabet(source: Source, wanted: int | None) -> Source:
    """The source with ``levels`` known and the smallest type that holds its symbols; ``wanted`` is the caller's ``levels``.

    A source that does not say its levels has as many as the caller wants if its values lie in that range already, else 2
    (nothing above 1), 256 or 65,536.

    Raises:
        DataError: a value is negative or beyond the alphabet.
    """
    if source.x["train"].dtype.kind == "f":
        return source
    low, high = min(int(x.min()) for x in source.x.values()), max(int(x.max()) for x in source.x.values())
    levels, steps = source.levels, source.steps
    if levels is None:
        levels = next((size for size in (wanted or 0, 2, 256, 65536) if high < size), 65536)
        plain = levels in (wanted, high + 1)  # nothing to tell: asked for, or all of them may well be there
        steps = steps if plain else (*steps, f"levels guessed as {levels} of values up to {high}")
    if low < 0 or high >= levels:
        raise DataError(f"{source.origin}: values range over {low} .. {high}; symbols must lie in 0 .. {levels - 1}")
    kind = np.uint8 if levels <= 256 else np.int64
    x = {part: values.astype(kind, copy=False) for part, values in source.x.items()}
    return replace(source, x=x, levels=levels, steps=steps)


def with_labels(source: Source, keep: bool) -> Source:
    """The source with int64 labels (n,) per set and the number of classes; names are numbered in sorted order.

    A single class says nothing and counts as no labels.

    Raises:
        DataError: labels of another length, shape or type, or below zero.
    """
    labels = {part: np.asarray(values) for part, values in source.labels.items()} if keep else {}
    labels = {part: y[:, 0] if y.ndim == 2 and y.shape[1] == 1 else y for part, y in labels.items()}
    for part, y in labels.items():
        if y.shape != (len(source.x[part]),):
            raise DataError(
                f"{source.origin}: labels of {part} have shape {y.shape} for {len(source.x[part]):,} examples; give one each"
            )
    names = source.class_names
    if any(y.dtype.kind == "U" for y in labels.values()):
        names = tuple(sorted({str(name) for y in labels.values() for name in np.unique(y)}))
        labels = {part: np.searchsorted(np.array(names), y.astype(str)) for part, y in labels.items()}
    for part, y in labels.items():
        if y.dtype.kind not in "uib" or int(y.min()) < 0:
            raise DataError(f"{source.origin}: labels of {part} ({y.dtype}) must be names or whole numbers from 0")
    labels = {part: y.astype(np.int64) for part, y in labels.items()}
    classes = max((int(y.max()) + 1 for y in labels.values()), default=1)
    if classes == 1:
        return replace(source, labels={}, class_names=())
    return replace(source, labels=labels, class_names=names, classes=max(classes, len(names)))


def without(source: Source, classes: Sequence[str]) -> Source:
    """The source without the examples of these classes, by name or number; the others keep their numbers.

    Raises:
        DataError: there are no labels, there is no such class, or a set is left with nothing.
    """
    if source.classes is None:
        raise DataError(f"{source.origin}: leave_out names classes, and there are no labels")
    names = source.class_names or tuple(map(str, range(source.classes)))
    unknown = [name for name in classes if name not in names and not (name.isdigit() and int(name) < source.classes)]
    if unknown:
        raise DataError(f"{source.origin}: leave_out is {', '.join(unknown)}, and the classes are {', '.join(names)}")
    numbers = [names.index(name) if name in names else int(name) for name in classes]
    rows = {part: np.flatnonzero(~np.isin(labels, numbers)) for part, labels in source.labels.items()}
    empty = [part for part, some in rows.items() if not len(some)]
    if empty:
        raise DataError(f"{source.origin}: without {', '.join(classes)} nothing is left of {' and '.join(empty)}")
    return source.take(rows, f"classes {', '.join(names[number] for number in numbers)} left out")


def fitted(source: Source, size: int | None, resize: int | None) -> Source:
    """The source cropped to squares (``size``) and shrunk (``resize``).

    Raises:
        DataError: the examples are no images, or are smaller than that.
    """
    for side, crop in ((size, True), (resize, False)):
        if side is None:
            continue
        before = _images(source, "size and resize").shape[2:]
        x = {part: _centre(shrunk(values, side), side) if crop else shrunk(values, side) for part, values in source.x.items()}
        if x["train"].shape[2:] != before:
            step = "shrunk and cropped" if crop else "shrunk"
            after = "x".join(map(str, x["train"].shape[2:]))
            source = replace(source, x=x, steps=(*source.steps, f"{step} from {before[0]}x{before[1]} to {after}"))
    return source


def shrunk(x: Array, side: int) -> Array:
    """(n, C, H, W) images with the shorter side brought down to ``side``.

    By a whole factor: the mean of each block, rounded to the nearest, halves up.  Otherwise an antialiased triangle filter.

    Raises:
        DataError: the images are smaller than that.
    """
    height, width = x.shape[2:]
    short = min(height, width)
    if side > short:
        raise DataError(f"images of {height}x{width} cannot be brought to {side}: sizes only go down; ask for at most {short}")
    if side == short:
        return x
    factor = short // side
    exact = short % side == 0 and height % factor == 0 and width % factor == 0
    if exact:
        return _by_chunks(x, lambda part: _block_mean(part, factor))
    target = (round(height * side / short), round(width * side / short))
    return _by_chunks(x, lambda part: _filtered(part, target))


def _by_chunks(x: Array, step: Callable[[Array], Array]) -> Array:
    return np.concatenate([step(x[i : i + CHUNK]).astype(x.dtype) for i in range(0, len(x), CHUNK)])


def _block_mean(x: Array, factor: int) -> Array:
    n, channels, height, width = x.shape
    blocks = x.reshape(n, channels, height // factor, factor, width // factor, factor)
    area = factor * factor
    total: Array = blocks.sum((3, 5), dtype=np.int64)
    return (2 * total + area) // (2 * area)


def _filtered(x: Array, target: tuple[int, int]) -> Array:
    values = torch.from_numpy(x.astype(np.float64))
    return torch.nn.functional.interpolate(values, target, mode="bilinear", antialias=True).round().numpy()


def _centre(x: Array, side: int) -> Array:
    top, left = (x.shape[2] - side) // 2, (x.shape[3] - side) // 2
    return np.ascontiguousarray(x[:, :, top : top + side, left : left + side])


def coloured(source: Source, channels: int | None) -> Source:
    """The source with 1 or 3 channels: grey is 0.299 R + 0.587 G + 0.114 B (ITU-R BT.601), rounded; colour repeats grey."""
    if channels is None or channels == _images(source, "channels").shape[1]:
        return source
    change: Callable[[Array], Array] = _luma if channels == 1 else lambda x: np.repeat(x, 3, axis=1)
    x = {part: _by_chunks(values, change) for part, values in source.x.items()}
    return replace(source, x=x, steps=(*source.steps, "made grey" if channels == 1 else "grey repeated as three colours"))


def _luma(x: Array) -> Array:
    weights = np.array(LUMA).reshape(1, 3, 1, 1)
    total: Array = (x * weights).sum(1, keepdims=True)
    return (total + sum(LUMA) // 2) // sum(LUMA)


def quantised(source: Source, levels: int | None) -> Source:
    """The source with ``levels`` symbols: v becomes floor(v * levels / source levels).

    Raises:
        DataError: the data are real-valued, or have fewer levels than that.
    """
    if levels is None or levels == source.levels:
        return source
    if source.levels is None:
        raise DataError(f"{source.origin} is real-valued and has no levels to reduce")
    if levels > source.levels:
        raise DataError(f"{source.origin} has {source.levels} levels; levels={levels} would invent some, ask for fewer")
    table = (np.arange(source.levels) * levels // source.levels).astype(np.uint8 if levels <= 256 else np.int64)
    step = f"reduced from {source.levels} levels"
    return replace(source, x={part: table[x] for part, x in source.x.items()}, levels=levels, steps=(*source.steps, step))


def tabulated(source: Source, columns: tuple[int | None, ...]) -> Source:
    """The source as real numbers, where ``columns`` says which of them are whole; see `DataSpec`.

    Raises:
        DataError: there are columns and the examples are no vectors of so many values, or have one alphabet already.
    """
    if not columns:
        return source
    train = source.x["train"]
    if train.ndim != 2 or train.shape[1] != len(columns) or source.levels is not None:
        raise DataError(f"{source.origin}: columns={columns} are for tables of so many columns, each with levels of its own")
    return replace(source, x={part: x.astype(np.float64) for part, x in source.x.items()})


def converted(source: Source, units: Units) -> Source:
    """Real values in other units than their own, such as those of the data that a model was trained on.

    Raises:
        DataError: the units are of examples of another shape.
    """
    _check_units(source, units)
    if source.units is not None and source.units.same(units):
        return source
    x = {part: torch.from_numpy(values.astype(np.float64)) for part, values in source.x.items()}
    originals = x if source.units is None else {part: source.units.restore(values) for part, values in x.items()}
    values = {part: units.convert(original).numpy() for part, original in originals.items()}
    return replace(source, x=values, levels=None, units=units, steps=(*source.steps, _said(units, "in the units of a model")))


def standardized(source: Source, whole: Collection[int] = ()) -> Source:
    """Real values with mean 0 and standard deviation 1 on the training set, to six digits; ``Source.units`` undoes it.

    Args:
        whole: columns that hold whole numbers, which stay as they are.

    Raises:
        DataError: the source is in other units already or holds whole numbers, or a column never changes.
    """
    if source.units is not None or source.x["train"].dtype.kind != "f":
        why = "holds whole numbers, which have no unit: dequantize them too" if source.units is None else "has its units already"
        raise DataError(f"{source.origin} {why}; standardize is for real values")
    units = _standard(source, False, whole)
    x = {part: units.convert(torch.from_numpy(values)).numpy() for part, values in source.x.items()}
    return replace(source, x=x, units=units, steps=(*source.steps, _said(units, "standardised on train")))


def dequantized(source: Source, standard: bool, units: Units | None = None) -> Source:
    """Whole numbers with the ``units`` that they get once noise is added: [0, 1), or ``standard`` ones, with the noise.

    Args:
        units: those of other data, in place of their own.

    Raises:
        DataError: the source is real-valued.
    """
    if source.levels is None:
        raise DataError(f"{source.origin} is real-valued; dequantize is for whole numbers")
    if units is not None:
        _check_units(source, units)
        return replace(source, units=units, steps=(*source.steps, _said(units, "in the units of a model with noise")))
    sites = source.x["train"].shape[1:]
    plain = Units(torch.zeros(sites, dtype=torch.float64), torch.full(sites, float(source.levels), dtype=torch.float64), True)
    units = _standard(source, True) if standard else plain
    step = "standardised on train with noise" if standard else f"divided by {source.levels} with noise"
    return replace(source, units=units, steps=(*source.steps, _said(units, step)))


def _check_units(source: Source, units: Units) -> None:
    shape, wanted = source.x["train"].shape[1:], tuple(units.mean.shape)
    if shape != wanted:
        raise DataError(f"{source.origin}: an example is {shape}, and the units are those of examples of {wanted}")


def _standard(source: Source, noise: bool, whole: Collection[int] = ()) -> Units:
    """Mean and standard deviation of every site of the training set; uniform noise adds 1/2 to means and 1/12 to variances."""
    train = source.x["train"]
    mean = train.mean(0, dtype=np.float64)
    variance = sum(((train[i : i + CHUNK] - mean) ** 2).sum(0) for i in range(0, len(train), CHUNK)) / len(train)
    still = [i for i in np.flatnonzero(np.ptp(train, axis=0) == 0).tolist() if not noise and i not in whole]
    if still:
        raise DataError(f"{source.origin}: column {still[0]} has one value in all of train, so it has no scale; leave it out")
    mean, scale = _six_digits(mean + noise / 2), _six_digits(np.sqrt(variance + noise / 12))
    mean[list(whole)], scale[list(whole)] = 0.0, 1.0
    return Units(torch.from_numpy(mean), torch.from_numpy(scale), noise)


def _six_digits(x: Array) -> Array:
    digits = [float(f"{value:.6g}") for value in x.flat]  # sums differ in the last bit between processors; the data must not
    return np.array(digits).reshape(x.shape)


def _said(units: Units, step: str) -> str:
    return f"{step} (in the original units log p is {-units.nats:+.4f} nats per row more)"


def counted(source: Source) -> str:
    """How many examples each set has, in words for the note."""
    return ", ".join(f"{len(source.x[part]):,} {part}" for part in PARTS) + " examples"


def _images(source: Source, option: str) -> Array:
    train = source.x["train"]
    if train.ndim != 4:
        raise DataError(f"{source.origin} holds vectors of {train.shape[1]} values; {option} are for images")
    return train
