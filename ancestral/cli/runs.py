"""What the commands share: a run opened where it shall compute, its data, files as symbols, and progress."""

from __future__ import annotations

import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from rich.console import Console
from rich.progress import BarColumn, TextColumn, TimeRemainingColumn
from rich.progress import Progress as Bar
from torch import Tensor, nn

from ancestral.cli.classes import numbered, told, untold
from ancestral.cli.commands import Computing
from ancestral.cli.reading import Reading
from ancestral.data.catalogue import EMBEDDED
from ancestral.data.files import read_file
from ancestral.data.images import SUFFIXES, read_images
from ancestral.data.loading import STREAMS, load_data
from ancestral.data.notation import Notation
from ancestral.data.prepare import arranged, coloured, fitted, quantised, with_alphabet
from ancestral.data.recordings import Cutting, Found, find
from ancestral.data.sequences import files_of, read_sequences
from ancestral.data.source import Source
from ancestral.data.splits import Examples, ExampleSet, Splits, Units
from ancestral.data.tapes import TAPE
from ancestral.draw import uniforms
from ancestral.hub import Model, describe, load, notation_of, units_of
from ancestral.sampling.strategies import Progress
from ancestral.spec import SEQUENCES, DataSpec
from ancestral.symbols import DataError

KINDS = {"image": "pictures", "text": "text", "audio": "sound", "vector": "rows of numbers"}
SMALL = 1_000_000  # parameters below which a second thread costs more than it brings


def opened(command: Computing, folder: Path) -> Model:
    """The model of a run, on the device and with the threads that were asked for."""
    model = load(folder).to(device_of(command))
    torch.set_num_threads(threads_of(command, model))
    return model


def device_of(command: Computing) -> str:
    """Where a command computes.

    Raises:
        ValueError: there is no such device here.
    """
    there = {"cpu": True, "cuda": torch.cuda.is_available(), "mps": torch.backends.mps.is_available()}
    if command.device == "auto":
        return "cuda" if there["cuda"] else "cpu"
    if not there[command.device]:
        raise ValueError(f"torch finds no {command.device} device here: leave --device out, or take --device cpu")
    return command.device


def threads_of(command: Computing, model: nn.Module) -> int:
    """On how many CPU threads a command computes.

    Raises:
        ValueError: fewer than one was asked for.
    """
    if command.threads is None:
        return 1 if sum(parameter.numel() for parameter in model.parameters()) < SMALL else torch.get_num_threads()
    if command.threads < 1:
        raise ValueError(f"threads is {command.threads}; it must be at least 1")
    return command.threads


def data_of(folder: Path, data: str | None, reading: Reading, remedy: str = "name them (--data)") -> Splits:
    """The data named on the command line, in the units of a run and with its numbers of classes, or those it was trained on.

    Args:
        remedy: what to do where a run does not say where its data are.

    Raises:
        DataError: the run does not say where they are, or they cannot be read.
    """
    if data is not None:
        fields, written = describe(folder), written_as(folder, data)
        columns = fields["spec"].get("columns", ())
        kind, notation = fields["spec"]["kind"], written.get("notation")
        try:
            found = load_data(data, columns=columns, units=units_of(folder), **written, **reading.options())
        except DataError:
            _check_kind(data, folder, kind, notation, find(data, Cutting(notation)))
            raise
        _check_kind(data, folder, kind, notation, found.spec)
        return found.with_classes((fields.get("data") or {}).get("class_names", ()))
    if reading.options():
        raise DataError(f"{', '.join(reading.options())} say how other data are read: {remedy}")
    record = describe(folder).get("data") or {}
    if record.get("source") is None:
        raise DataError(f"{folder} does not say where its data can be read again: {remedy}")
    found = load_data(record["source"], **record["options"])
    if not found.recorded_as(record["hash"]):
        said(f"note: the data {found.name!r} are not quite what the run was trained on: their hash differs")
    return found


def _check_kind(data: str, folder: Path, kind: str, notation: Notation | None, found: Found | DataSpec | None) -> None:
    """Refuse data of another kind than a run's, in place of what else would be complained of in them."""
    have = None if found is None or found.kind not in SEQUENCES else found.kind
    there = data in EMBEDDED or Path(data).expanduser().exists()
    bare = kind in SEQUENCES and notation is None  # of arrays, as its examples were
    if there and not bare and have != (kind if kind in SEQUENCES else None):
        raise DataError(f"{data} holds {KINDS[have] if have else 'no ' + KINDS[kind]}, and {folder} is of {KINDS[kind]}")


def written_as(folder: Path, data: str | None = None) -> dict[str, Any]:
    """The arguments of ``load_data`` by which other text or sound becomes examples as those of a run are.

    Args:
        data: what is to be read, if that is known: only files in folders tell their classes.
    """
    fields, notation = describe(folder), notation_of(folder)
    if notation is None:
        return {}
    spec, options = DataSpec.from_dict(fields["spec"]), fields["data"].get("options", {})
    labelled = data is None or Path(data).expanduser().is_dir()
    kept = {name: options[name] for name in ("length", *(["label_from"] if labelled else [])) if name in options}
    if spec.end is None:
        return {**kept, "notation": notation, "pieces": "blocks", "length": spec.sites // spec.parts}
    return {**kept, "notation": notation, "pieces": options.get("pieces", "files")}


@dataclass(frozen=True, eq=False)
class Items:
    """Examples that a command works on.

    Attributes:
        x: (n, *shape) symbols, where the model is; real values are in its units, those of files in float64.
        names: n of them: a file, or a row of a set.
        labels: (n,) classes for a conditional model, or None.
    """

    x: Tensor
    names: Sequence[str]
    labels: Tensor | None = None


def items_of(
    model: Model, folder: Path, pictures: Sequence[Path], count: int | None, size: int | None, labels: Sequence[str] = ()
) -> Items:
    """The pictures or rows named on the command line, or ``count`` test examples of a run, evenly spread; with their labels.

    Spread, because the examples of many a set stand sorted by class.

    Raises:
        DataError: they cannot be read, or do not fit the model.
        ValueError: ``count`` is below 1, there is no such class, or not one label for each.
    """
    if count is not None and count < 1:
        raise ValueError(f"number is {count}; ask for at least 1")
    if pictures:
        found = read_items(pictures, folder, model.spec, size)
        whole, names, owners, own = found.examples, found.names, found.owners, found.labels
    else:
        test = data_of(folder, None, Reading(), f"name {things_of(model.spec)}").test
        number = min(count or len(test), len(test))
        rows = [place * len(test) // number for place in range(number)]
        whole, names, owners = test.select(rows), [f"test {row}" for row in rows], range(number)
        own = whole.labels
    y = one_each(numbered(folder, labels), owners, model.spec) if labels else own if model.conditional else None
    if model.conditional and y is None and pictures:
        said(untold(folder))
    x, device = whole.x if model.spec.levels is None else whole.x.long(), model.anchor.device
    return Items(x.to(device), names, None if y is None else y.to(device))


def things_of(spec: DataSpec) -> str:
    """What examples are called, several of them."""
    return {"image": "pictures", "text": "texts", "audio": "clips"}.get(spec.kind, "rows")


@dataclass(frozen=True, eq=False)
class Listed:
    """Examples of files, or of a set.

    Attributes:
        examples: n of them.
        names: of each.
        owners: which file each is of, counted from 0; files may hold several.
        labels: (n,) their classes, where these are known.
    """

    examples: ExampleSet
    names: Sequence[str]
    owners: Sequence[int]
    labels: Tensor | None = None


def one_each(given: Sequence[int], owners: Sequence[int], spec: DataSpec) -> Tensor:
    """(n,) the classes that are given, one for each of n examples or one for each file that they are of.

    Raises:
        ValueError: there are more or fewer.
    """
    n, files = len(owners), max(owners, default=-1) + 1
    if len(given) not in (files, n):
        of = f" of {files:,} file{'s' * (files != 1)}" if n != files else ""
        things = things_of(spec) if n != 1 else things_of(spec).removesuffix("s")
        raise ValueError(f"{len(given):,} labels for {n:,} {things}{of}: give one each")
    return torch.tensor(given)[torch.as_tensor(owners) if len(given) == files else torch.arange(n)]


def read_items(paths: Sequence[Path], folder: Path, spec: DataSpec, size: int | None) -> Listed:
    """Files and folders, all of each, as a run's examples are written, with the name of each and its class if the files tell it.

    Raises:
        DataError: one is missing, broken or of another shape or kind than the model's.
    """
    how = written_as(folder)
    if not how:
        found = read_pictures(paths, spec, size, units_of(folder))
        shown = [(path, _images(path)) for path in paths]
        classes = told(folder, shown) if all(files for _, files in shown) else None
        labels = None if classes is None else torch.tensor(classes)
        return Listed(Examples(found.x), found.names, range(len(found.names)), labels)
    places = [(path, files_of(path, spec.kind)) for path in paths]
    read = read_sequences([file for _, files in places for file in files], spec, how["notation"], how["pieces"] == "lines")
    if read.left:
        said(
            f"note: the last {read.left:,} symbols in all, at the ends of files, make no whole block of {spec.sites:,}: left out"
        )
    owners, classes = read.examples.places[:, TAPE], told(folder, places)
    labels = None if classes is None else torch.tensor(classes)[torch.as_tensor(owners)]
    return Listed(read.examples, read.names, owners.tolist(), labels)


def read_pictures(paths: Sequence[Path], spec: DataSpec, size: int | None, units: Units | None = None) -> Items:
    """Image files, folders of them and arrays as symbols of a model's alphabet, or in its units, in the order given.

    Raises:
        DataError: a file is missing, broken or of another shape than the model's.
    """
    found = [_read(path, spec, size) for path in paths]
    x = torch.cat([each.x for each in found])
    if units is not None:
        noise = uniforms(0, range(len(x)), x[0].numel(), STREAMS["test"]).view(x.shape) if units.dequantized else 0.0
        x = units.convert(x + noise)  # the noise is that of a test set of these rows
    return Items(x, [name for each in found for name in each.names])


def _read(path: Path, spec: DataSpec, size: int | None) -> Items:
    if not path.exists():
        raise DataError(f"there is no file or folder {path}")
    files = _images(path)
    if path.is_dir() and not files:
        raise DataError(f"{path} holds no images ({', '.join(SUFFIXES)})")
    if files:
        source = Source(path.name, str(path), {"train": read_images(files, size)}, levels=256)
        return Items(_fitted(source, spec, size), [str(file) for file in files])
    source = read_file(path)
    x = _fitted(replace(source, origin=str(path), x={"train": np.concatenate(list(source.x.values()))}), spec, size)
    return Items(x, [f"{path} {row}" for row in range(len(x))])


def _images(path: Path) -> list[Path]:
    """The image files of a folder, in order, or the file itself; none of an array."""
    return [file for file in (sorted(path.rglob("*")) if path.is_dir() else [path]) if file.suffix.lower() in SUFFIXES]


def _fitted(source: Source, spec: DataSpec, size: int | None) -> Tensor:
    source = arranged(source)
    source = source if spec.levels is None else with_alphabet(source, spec.levels)
    if spec.kind == "image":
        source = coloured(fitted(source, size, None), spec.shape[0])
    x = torch.from_numpy(np.array(quantised(source, spec.levels).x["train"]))
    if tuple(x.shape[1:]) != spec.shape:
        wanted, have = ("x".join(map(str, shape)) for shape in (spec.shape, x.shape[1:]))
        square = spec.kind == "image" and spec.shape[1] == spec.shape[2]
        remedy = f": --size {spec.shape[1]} takes the centre square of each and brings it down to that" if square else ""
        raise DataError(f"{source.origin} is {have}, and the model takes {wanted}{remedy}")
    return x if spec.levels is None else x.long()


@contextmanager
def progress(words: str) -> Iterator[Progress]:
    """A bar on standard error, where somebody looks, to be told (done, of how many)."""
    console = Console(stderr=True)
    columns = (TextColumn("{task.description}"), BarColumn(), TimeRemainingColumn())
    with Bar(*columns, console=console, transient=True, disable=not console.is_terminal) as bar:
        task = bar.add_task(words)
        yield lambda done, total: bar.update(task, completed=done, total=total)


def said(words: str) -> None:
    """Say on standard error what comes next."""
    print(words, file=sys.stderr)


def table(rows: Sequence[Sequence[str]]) -> list[str]:
    """Rows of cells as lines with even columns, the first one to the left and the others to the right."""
    widths = [max(len(cell) for cell in column) for column in zip(*rows, strict=True)]
    return [
        "  ".join(cell.rjust(width) if i else cell.ljust(width) for i, (cell, width) in enumerate(zip(row, widths, strict=True)))
        for row in rows
    ]
