"""``compress``, ``decompress``, ``verify`` and ``info``: pictures in one file, and back pixel for pixel."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import safetensors.torch
import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor

from ancestral.cli.commands import Answer, Coding, Compress, Decompress, Info, Reading, Verify
from ancestral.cli.runs import data_of, progress, threads_of
from ancestral.coding.codec import Opened, block_items, labelled_header, shared_out, spec_of, write
from ancestral.coding.container import Block
from ancestral.coding.errors import CodecError, CorruptHeader, DecodeMismatch
from ancestral.coding.manifest import Item, Manifest
from ancestral.coding.pictures import (
    array_item,
    assembled,
    check_folder,
    check_labels,
    check_same,
    collected,
    labels_name,
    lost_files,
    npy,
    png_size,
    restored_files,
    restored_labels,
)
from ancestral.coding.reader import Damage, Reader
from ancestral.data.source import Array
from ancestral.files import whole, write_whole
from ancestral.hub import CONFIG, WEIGHTS, LoadError, Model, describe, load, versions
from ancestral.spec import DataSpec
from ancestral.symbols import DataError

FILES, HINT, DIGEST, VERSION = "files", "hint", "weights", "version"  # what we add to the header
PORTABLE = ("format", "model", "config", "spec", "versions")  # of config.json: what a model needs, and nothing of its maker
RUNS = Path("runs")


def compress(command: Compress) -> Answer:
    """Write a file, and say what it takes beside PNG files."""
    model = _ready(command, load(command.run))
    path = command.out or command.run / f"{_name(command)}.anc"
    _check_place(path, command.force)
    x, manifest, labels = _items(command, model)
    header = {
        FILES: manifest.text(),
        HINT: command.run.resolve().name,
        DIGEST: _digest(command.run / WEIGHTS),
        VERSION: versions()["ancestral"],
    }
    weights = _packed(command.run) if command.embed_model else None
    threads = threads_of(command, model)
    with whole(path) as file, progress("compressing") as tick:
        write(
            file, model, x, labels=labels, header=header, weights=weights, engine=command.engine, threads=threads, progress=tick
        )
    size, png = path.stat().st_size, png_size(x, manifest)
    values = {
        "out": path,
        "files": len(manifest.items),
        "pictures": manifest.examples,
        "items": len(x),
        "labels": labels is not None,
        "bytes": size,
        "model_bytes": len(weights or b""),
        "bits_per_dim": 8 * size / manifest.symbols,
        "png_bytes": png,
        "ratio": None if png is None else png / size,
    }
    embedded = f" ({len(weights):,} of them the model)" if weights else ""
    lines = [f"{path}: {manifest.examples:,} pictures in {size:,} bytes{embedded}, {values['bits_per_dim']:.4f} bits/dim"]
    if png is not None:
        lines.append(f"as PNG files they take {png:,} bytes, {png / size:.2f} times as much")
    return Answer(values, lines)


def _name(command: Compress) -> str:
    if not command.pictures:
        return "test"
    return command.pictures[0].resolve().stem if len(command.pictures) == 1 else "pictures"


def _items(command: Compress, model: Model) -> tuple[Tensor, Manifest, Tensor | None]:
    """What is to be compressed, and (n,) labels of its items where the model is conditional and they are known.

    Raises:
        DataError: there is nothing, or something that the model cannot tell exactly.
        ValueError: the limit is below 1, or there is not one label for each picture.
    """
    limit, known = command.limit, torch.tensor(command.labels) if command.labels else None
    if limit is not None and limit < 1:
        raise ValueError(f"limit is {limit}; it must be at least 1")
    if command.pictures:
        x, manifest = collected(command.pictures, model.spec, limit)
        known = _of_folders(command.pictures, manifest) if known is None else known
    else:
        test = data_of(command.run, None, Reading()).test
        x, manifest = assembled([array_item("test.npy", test.x[:limit].numpy(), model.spec)], model.spec)
        known = known if known is not None or test.labels is None else test.labels[:limit]
    if not len(x):
        raise DataError("there is nothing to compress: the arrays hold no examples")
    if known is None or not (command.labels or getattr(model.config, "conditional", False)):
        return x, manifest, None
    return x, manifest, _of_tiles(known, manifest)


def _of_tiles(known: Tensor, manifest: Manifest) -> Tensor:
    """(n,) labels of pictures as those of the items that they are cut into.

    Raises:
        ValueError: there is not one label for each picture.
    """
    if len(known) != manifest.examples:
        raise ValueError(f"{len(known)} labels for {manifest.examples} pictures: give one each")
    tiles = [item.tiles(manifest.spec) for item in manifest.items for _ in range(item.batch(manifest.spec)[0])]
    return known.repeat_interleave(torch.tensor(tiles, dtype=torch.long))


def _of_folders(paths: Sequence[Path], manifest: Manifest) -> Tensor | None:
    """(n,) which subfolder of a folder each picture lies in, by name, as data are read; None unless there is one a class."""
    folders = sorted(entry.name for entry in paths[0].iterdir() if entry.is_dir()) if paths[0].is_dir() else []
    names = [item.name.split("/")[0] for item in manifest.items]
    if len(paths) > 1 or len(folders) != manifest.spec.classes or not set(names) <= set(folders):
        return None
    return torch.tensor([folders.index(name) for name in names])


def _check_place(path: Path, force: bool) -> None:
    if path.is_dir():
        raise CodecError(f"{path} is a folder: name the file to write (--out)")
    if path.exists() and not force:
        raise CodecError(f"{path} exists: name another file (--out), or replace it (--force)")


def decompress(command: Decompress) -> Answer:
    """Restore files into a folder.

    Raises:
        ValueError: the name of the file suggests no folder.
    """
    if command.out is None and not command.file.suffix:
        raise ValueError(f"{command.file} has no ending to leave out: name the folder (--out)")
    folder = command.out or command.file.with_suffix("")
    with _opened(command, command.file, command.errors) as (opened, manifest):
        beside = (labels_name(manifest),) if opened.labelled else ()
        check_folder(manifest, folder, command.force, beside)
        x, rows = _decoded(opened, manifest, command.errors == "skip")
    labels = None if opened.labels is None else restored_labels(opened.labels, manifest, rows)
    written = []
    for name, content in restored_files(x, manifest, rows):
        write_whole(folder / name, content)
        written.append(name)
    for name in beside:
        write_whole(folder / name, npy(np.array(labels)))
    lost, damage = lost_files(manifest, rows), [each.reason for each in opened.reader.damage]
    values = {"out": folder, "files": len(written), "labels": labels, "lost": lost, "damage": damage}
    lines = [
        f"{folder}: {len(written):,} files",
        *(f"{folder / name}: the class of each of their {len(labels or ()):,} pictures" for name in beside),
        *(f"damaged: {reason}" for reason in damage),
        *(f"lost: {each}" for each in lost),
    ]
    return Answer(values, lines)


def verify(command: Verify) -> Answer:
    """Decode everything, and compare it with the pictures and labels where they are given.

    Raises:
        CodecError: the file or what it is compared with differ.
        ValueError: labels are given without pictures, or not one for each, or the file holds none.
    """
    with _opened(command, command.file) as (opened, manifest):
        given, others = collected(command.pictures, manifest.spec)
        known = _known_labels(command, opened, others)
        x, _ = _decoded(opened, manifest, salvage=False)
    check_same(x, manifest, given, others)
    if known is not None and opened.labels is not None:
        check_labels(opened.labels, manifest, known, others)
    labels = opened.labelled if known is not None else None
    values = {"file": command.file, "pictures": manifest.examples, "compared": others.examples, "labels": labels}
    lines = [f"{command.file} is whole: {manifest.examples:,} pictures decode to what was compressed"]
    if command.pictures:
        lines.append(f"{others.examples:,} of them were compared{' with their labels' * bool(labels)}: they are the same")
    return Answer(values, lines)


def _known_labels(command: Verify, opened: Opened, others: Manifest) -> Tensor | None:
    """(n,) labels of the items to compare with, where the file holds labels and those are known."""
    if command.labels and not opened.labelled:
        raise ValueError(f"{command.file} holds no labels to compare with: leave --labels out")
    if not opened.labelled or not (command.labels or command.pictures):
        return None
    known = torch.tensor(command.labels) if command.labels else _of_folders(command.pictures, others)
    return None if known is None else _of_tiles(known, others)


def info(command: Info) -> Answer:
    """What the header and the blocks of a file say."""
    with command.file.open("rb") as file:
        found = Reader(file, "skip").info()
    header, spec = found.header, spec_of(found.header)
    manifest = _manifest(header, spec, command.file)
    bits, damage = 8 * found.size / max(1, manifest.symbols), [each.reason for each in found.damage]
    values = {
        "file": command.file,
        "bytes": found.size,
        "whole": not damage,
        "damage": damage,
        "files": [item.target for item in manifest.items],
        "pictures": manifest.examples,
        "items": header.get("items"),
        "spec": spec.to_dict(),
        "labels": labelled_header(header, spec),
        "scheme": header.get("scheme"),
        "model": header.get("model"),
        "run": header.get(HINT),
        "version": header.get(VERSION),
        "blocks": len(found.blocks),
        "payload_bytes": found.payload,
        "overhead_bytes": found.overhead,
        "model_bytes": found.weights,
        "bits_per_dim": None if damage else bits,
    }
    return Answer(values, _told(values))


def _told(values: dict[str, Any]) -> list[str]:
    spec, embedded, bits = values["spec"], values["model_bytes"], values["bits_per_dim"]
    shape = "x".join(map(str, spec["shape"]))
    rows = {
        "holds": f"{values['pictures']:,} pictures in {len(values['files']):,} files, {values['items']:,} items",
        "items": f"{spec['kind']} {shape}, {spec['levels']} levels{', with labels' if values['labels'] else ''}",
        "model": f"{values['model']}, of run {values['run'] or 'unknown'}",
        "scheme": f"{values['scheme']}, ancestral {values['version'] or 'of unknown version'}",
        "blocks": f"{values['blocks']:,}, {values['payload_bytes']:,} bytes of payload",
        "bytes": f"{values['bytes']:,}: {values['overhead_bytes']:,} of overhead, {embedded:,} of an embedded model",
        "bits/dim": "unknown" if bits is None else f"{bits:.4f}",
        "whole": "yes" if values["whole"] else f"no: {'; '.join(values['damage'])}",
    }
    return [f"{name:<10}{words}" for name, words in rows.items()]


# ---- files and their models


def _ready(command: Coding, model: Model) -> Model:
    """The model, with the threads that were asked for.

    Raises:
        ValueError: another device than the CPU was asked for.
    """
    if command.device not in ("auto", "cpu"):
        raise ValueError(
            f"files are coded on the CPU, whose whole numbers are exact, and not on {command.device}: leave --device out"
        )
    torch.set_num_threads(threads_of(command, model))
    return model


@contextmanager
def _opened(command: Decompress | Verify, path: Path, errors: Any = "strict") -> Iterator[tuple[Opened, Manifest]]:
    """A file with the model that decodes it."""
    with path.open("rb") as file:
        reader = Reader(file, errors)
        manifest = _manifest(reader.header, spec_of(reader.header), path)
        model = _ready(command, _model(command.model, reader, path))
        yield Opened(reader, model, command.engine, threads_of(command, model)), manifest


def _manifest(header: dict[str, Any], spec: DataSpec, path: Path) -> Manifest:
    """What the items are; of a file without a list, one array of symbols."""
    n = header.get("items")
    if not isinstance(n, int) or n < 0:
        raise CorruptHeader(f"the header does not say how many items there are: {path} was not written by this program")
    if FILES not in header:
        return Manifest(spec, (Item(f"{path.stem}.npy", "<i8", (n, *(size or 0 for size in spec.shape))),))
    manifest = Manifest.from_text(header[FILES], spec)
    if manifest.total != n:
        raise CorruptHeader(f"the list of files is of {manifest.total:,} items and the header of {n:,}: the file was changed")
    return manifest


def _decoded(opened: Opened, manifest: Manifest, salvage: bool) -> tuple[Tensor, Array]:
    """The items that can be decoded, and which ones they are."""
    size, total = block_items(opened.spec), manifest.total
    parts, rows = [torch.zeros(0, *opened.shape, dtype=torch.long)], [np.zeros(0, np.int64)]

    def attempt(block: Block) -> Tensor | DecodeMismatch:
        try:
            if block.items != min(size, total - block.index * size):
                raise DecodeMismatch(block.index)
            return opened.decoded(block)
        except DecodeMismatch as error:
            return error

    with progress("decompressing") as tick:
        for block, items in shared_out(attempt, opened.reader, opened.threads):
            first = block.index * size
            if isinstance(items, DecodeMismatch):
                if not salvage:
                    raise items
                opened.reader.damage.append(Damage(range(block.index, block.index + 1), str(items)))
                continue
            parts.append(items)
            rows.append(np.arange(first, first + block.items))
            tick(first + block.items, total)
    x, found = torch.cat(parts), np.concatenate(rows)
    if len(x) < total and not salvage:
        raise CorruptHeader(f"the file has {len(x):,} of the {total:,} items that its header says: it was changed")
    return x, found


def _model(named: Path | None, reader: Reader, path: Path) -> Model:
    """The model that made a file: the one named, the one in the file, or the one of a run nearby.

    Raises:
        CodecError: it is nowhere; the message says where it was looked for.
    """
    if named is not None:
        return load(named)
    if reader.weights is not None:
        return _unpacked(reader.weights)
    hint, digest = str(reader.header.get(HINT) or ""), reader.header.get(DIGEST)
    near = [Path(hint), RUNS / hint] if hint == Path(hint).name and hint not in ("", "..") else []
    around = [file.parent for depth in ("*", "*/*") for file in sorted(RUNS.glob(f"{depth}/{WEIGHTS}"))]
    for run in [*near, *around]:
        if (run / WEIGHTS).is_file() and _digest(run / WEIGHTS) == digest:
            return load(run)
    looked = f"run {hint!r} here and in {RUNS.resolve()}" if near else str(RUNS.resolve())
    raise CodecError(
        f"{path} needs the model {reader.header.get('model')} that made it, and it is not there: looked for {looked}, and for its"
        f" weights in {len(around):,} runs there; name the folder of its run (--model RUN)"
    )


def _digest(path: Path) -> str:
    """64 hexadecimal digits by which weights are recognised."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _packed(run: Path) -> bytes:
    """A run as one safetensors file with its configuration as metadata."""
    config = {key: value for key, value in describe(run).items() if key in PORTABLE}
    return safetensors.torch.save(safetensors.torch.load_file(run / WEIGHTS), {"config": json.dumps(config)})


def _unpacked(weights: bytes) -> Model:
    """The model that ``_packed`` wrote.

    Raises:
        CorruptHeader: it is none that this version knows.
    """
    with TemporaryDirectory() as name:
        folder = Path(name)
        (folder / WEIGHTS).write_bytes(weights)
        try:
            with safe_open(folder / WEIGHTS, "pt") as file:
                (folder / CONFIG).write_text(file.metadata()["config"], encoding="utf-8")
            return load(folder)
        except (SafetensorError, LoadError, KeyError, TypeError) as error:
            raise CorruptHeader(
                f"the model in the file cannot be used ({error}): name the run that made it (--model RUN)"
            ) from error
