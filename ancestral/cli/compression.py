"""``compress``, ``decompress``, ``verify`` and ``info``: pictures, text and sound in one file, and back exactly."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from ancestral.cli.classes import class_names, numbered, told_by, untold
from ancestral.cli.coded import (
    DIGEST,
    FILES,
    HINT,
    PLAIN,
    VERSION,
    File,
    Listing,
    amount,
    beside_of,
    cost,
    decoded,
    digest_of,
    file_of,
    in_words,
    kept_of,
    packed,
    per_unit,
    ready,
)
from ancestral.cli.commands import Answer, Compress, Decompress, Verify
from ancestral.cli.previews import preview
from ancestral.cli.reading import Reading
from ancestral.cli.runs import data_of, progress, said, threads_of, written_as
from ancestral.coding.clips import KEPT, Sequences, cut
from ancestral.coding.codec import ENDS, write
from ancestral.coding.cutting import cut_to
from ancestral.coding.errors import CodecError
from ancestral.coding.manifest import Manifest
from ancestral.coding.pictures import (
    array_item,
    assembled,
    check_folder,
    check_labels,
    check_same,
    collected,
    lost_files,
    npy,
    png_size,
    restored_files,
    restored_labels,
)
from ancestral.coding.schemes import LATENTS
from ancestral.coding.sequences import Found, Restored, array_clip
from ancestral.coding.sequences import collected as collected_sequences
from ancestral.data.source import Array
from ancestral.data.splits import Examples
from ancestral.files import whole, write_whole
from ancestral.hub import WEIGHTS, Model, load, versions
from ancestral.symbols import DataError


@dataclass(frozen=True, eq=False)
class Packed:
    """What is to be compressed.

    Attributes:
        model: for items of this length.
        x: (n, *shape) symbols, with their (n,) lengths where they are sequences.
        manifest: what they are.
        labels: (n,) classes of a conditional model, where they are known.
        kept: bytes beside the symbols.
        plain: the codec they are compared with, and the bytes that they take in it.
    """

    model: Model
    x: Tensor
    manifest: Listing
    labels: Tensor | None
    lengths: Tensor | None
    kept: bytes
    plain: tuple[str, int] | None


def compress(command: Compress) -> Answer:
    """Write a file, and say what it takes beside PNG files, or beside the files themselves."""
    model = ready(command, load(command.run))
    path = command.out or command.run / f"{_name(command)}.anc"
    _check_place(path, command.force)
    if command.limit is not None and command.limit < 1:
        raise ValueError(f"limit is {command.limit}; it must be at least 1")
    this = _sequences(command, model) if model.spec.sequence else _pictures(command, model)
    header = {
        FILES: this.manifest.text(),
        HINT: command.run.resolve().name,
        DIGEST: digest_of(command.run / WEIGHTS),
        VERSION: versions()["ancestral"],
        **({PLAIN: this.plain[1]} if this.plain is not None and isinstance(this.manifest, Sequences) else {}),
    }
    weights = packed(command.run) if command.embed_model else None
    with whole(path) as file, progress("compressing") as tick:
        write(
            file,
            this.model,
            this.x,
            labels=this.labels,
            header=header,
            weights=weights,
            lengths=this.lengths,
            ended=isinstance(this.manifest, Sequences) and this.manifest.ended,
            kept=this.kept,
            scheme=command.scheme,
            engine=command.engine,
            threads=threads_of(command, model),
            progress=tick,
        )
    return _written(path, this, len(weights or b""), command.scheme == LATENTS)


def _written(path: Path, this: Packed, embedded: int, alone: bool) -> Answer:
    """What a file takes."""
    size, manifest = path.stat().st_size, this.manifest
    codec, plain = this.plain or ("", None)
    per = cost(manifest, size, plain)
    values = {
        "out": path,
        "files": len(manifest.items),
        "pictures": manifest.examples,
        "items": len(this.x),
        "labels": this.labels is not None,
        "bytes": size,
        "model_bytes": embedded,
        **per_unit(per),
        "png_bytes": plain if codec == "PNG" else None,
        "original_bytes": None if codec == "PNG" else plain,
        "ratio": None if plain is None else plain / size,
    }
    what = amount(manifest, manifest.examples)
    model = f" ({embedded:,} of them the model)" if embedded else ""
    lines = [f"{path}: {what} in {size:,} bytes{model}{f', {in_words(per)}' if per else ''}"]
    if alone:
        lines.append("z alone: what it leaves open is drawn anew, so they do not come back as they were")
    if plain is not None:
        how = "as PNG files they take" if codec == "PNG" else "uncompressed they take"
        lines.append(f"{how} {plain:,} bytes, {plain / size:.2f} times as much")
    if isinstance(manifest, Sequences) and (names := [item.name for item in manifest.items if item.kind == "kept"]):
        lines.append(f"the model is not for {len(names):,} of them, which were compressed without it: {', '.join(names[:5])}")
    return Answer(values, lines)


def _name(command: Compress) -> str:
    if not command.files:
        return "test"
    return command.files[0].resolve().stem if len(command.files) == 1 else "pictures"


def _pictures(command: Compress, model: Model) -> Packed:
    """Pictures, arrays, or test examples.

    Raises:
        DataError: there is nothing, or something that the model cannot tell exactly.
        ValueError: there is not one label for each picture.
    """
    known = None
    if command.files:
        x, manifest = collected(command.files, model.spec, command.limit)
    else:
        test = _test(command)
        x, manifest = assembled([array_item("test.npy", test.x.numpy(), model.spec)], model.spec)
        known = test.labels
    if not len(x):
        raise DataError("there is nothing to compress: the arrays hold no examples")
    png = png_size(x, manifest)
    labels = _labels(command, model, manifest, known)
    return Packed(model, x, manifest, labels, None, b"", None if png is None else ("PNG", png))


def _sequences(command: Compress, model: Model) -> Packed:
    """Files of text or sound, arrays, or test examples; errors as for pictures."""
    if command.scheme == LATENTS:
        raise ValueError(
            "--scheme latents: how long texts and sounds are, and what their alphabet lacks, would not fit what is drawn anew:"
            " take two-part, or `ancestral reconstruct`"
        )
    known = None
    if command.files:
        lines = written_as(command.run).get("pieces") == "lines"
        found = collected_sequences(command.files, model.spec, model.notation, command.limit, lines)
    else:
        test = _test(command)
        clip, runs = array_clip(*array_item("test.npy", test.x.numpy(), model.spec), model.spec)
        found, known = Found((clip,), list(runs), b"", test.x.nbytes), test.labels
    model = cut_to(model, found.runs, command.block, found.longest_line(model.spec))
    manifest = Sequences.of(model.spec, found.clips, found.runs)
    x, labels = cut(found.runs, manifest), _labels(command, model, manifest, known)
    return Packed(model, x, manifest, labels, None if manifest.ended else manifest.lengths, found.kept, ("files", found.plain))


def _test(command: Compress) -> Examples:
    """The test examples of a run, not more than the limit says."""
    test = data_of(command.run, None, Reading(), "name files").test
    return test.select(range(min(len(test), command.limit or len(test))))


def _labels(command: Compress, model: Model, manifest: Listing, known: Tensor | None) -> Tensor | None:
    """(n,) labels of the items where the model is conditional, or labels are given, and they are known."""
    if command.labels:
        known = torch.tensor(numbered(command.run, command.labels))
    elif command.files:
        known = _of_files(command.files, manifest, command.run) if model.conditional else None
        if model.conditional and known is None:
            said(untold(command.run))
    return _of_items(known, manifest) if known is not None and (command.labels or model.conditional) else None


def _of_items(known: Tensor, manifest: Listing) -> Tensor:
    """(n,) labels of pictures as those of the items that they are cut into.

    Raises:
        ValueError: there is not one label for each picture.
    """
    if len(known) != manifest.examples:
        raise ValueError(f"{len(known)} labels for {amount(manifest, manifest.examples)}: give one each")
    return manifest.spread(known)


def _of_files(paths: Sequence[Path], manifest: Listing, run: Path | None) -> Tensor | None:
    """(n,) what class each picture or the like tells to be of, as those of a run's data did; None where one tells none.

    Of a run whose classes have no names, and where the run is not known: which subfolder of a folder, if there is one a class.
    """
    if run is not None and class_names(run):
        found = told_by(run, paths, manifest.items) if manifest.examples == len(manifest.items) else None
        return None if found is None else torch.tensor(found)
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
    shown = None if command.preview is None else preview(command, command.preview, folder)
    with file_of(command, command.file, command.errors) as file:
        beside = beside_of(file)
        check_folder(file.manifest, folder, command.force, beside)
        contents, labels, lost = _contents(file, *decoded(file, command.errors == "skip"))
        damage = [each.reason for each in file.opened.reader.damage]
        alone = file.opened.reader.header["scheme"] == LATENTS
    written = []
    for name, content in contents:
        write_whole(folder / name, content)
        written.append(name)
    for name in beside:
        write_whole(folder / name, npy(np.array(labels)))
    values = {"out": folder, "files": len(written), "labels": labels, "lost": lost, "damage": damage, "previews": shown}
    lines = [
        *(f"{command.preview}: {number:,} preview{'s' * (number != 1)}, of z alone" for number in (shown,) if number is not None),
        f"{folder}: {len(written):,} file{'s' * (len(written) != 1)}{', drawn anew: the file holds z alone' * alone}",
        *(f"{folder / name}: the class of each of their {amount(file.manifest, len(labels or ()))}" for name in beside),
        *(f"damaged: {reason}" for reason in damage),
        *(f"lost: {each}" for each in lost),
    ]
    return Answer(values, lines)


def _contents(file: File, x: Tensor, rows: Array) -> tuple[Iterator[tuple[str, bytes]], list[int] | None, list[str]]:
    """The names and contents of the files that decoded items make, the labels of their examples, and what is lost."""
    manifest, labels = file.manifest, file.opened.labels
    if isinstance(manifest, Sequences):
        restored = Restored.of(x, manifest, rows, kept_of(file), file.opened.model.notation)
        return restored.files(), None if labels is None else manifest.gathered(labels, rows), restored.lost()
    own = None if labels is None else restored_labels(labels, manifest, rows)
    return restored_files(x, manifest, rows), own, lost_files(manifest, rows)


def verify(command: Verify) -> Answer:
    """Decode everything, and compare it with the files and labels where they are given.

    Raises:
        CodecError: the file or what it is compared with differ.
        ValueError: labels are given without the files that they are of, or not one for each, or the file holds none.
    """
    with file_of(command, command.file) as file:
        spec, notation = file.manifest.spec, file.opened.model.notation
        if command.files and file.opened.reader.header["scheme"] == LATENTS:
            raise CodecError(f"{command.file} holds z alone, from which the pictures are drawn anew: nothing can be compared")
        sequences, ended = spec.sequence, ENDS in file.opened.reader.header
        kept = {item.name for item in file.manifest.items if item.kind == KEPT}
        given = collected_sequences(command.files, spec, notation, lines=ended, kept=kept) if sequences else None
        x, others = collected(command.files, spec) if given is None else (None, Sequences.of(spec, given.clips, given.runs))
        known = _known_labels(command, file, others)
        found, rows = decoded(file, salvage=False)
    if isinstance(file.manifest, Manifest) and isinstance(others, Manifest) and x is not None:
        check_same(found, file.manifest, x, others)
        if known is not None and file.opened.labels is not None:
            check_labels(file.opened.labels, file.manifest, known, others)
    if isinstance(file.manifest, Sequences) and isinstance(others, Sequences) and given is not None:
        Restored.of(found, file.manifest, rows, kept_of(file), notation).check(given, others)
        if known is not None and file.opened.labels is not None:
            file.manifest.check_labels(file.manifest.gathered(file.opened.labels, rows), others, known)
    labels = file.opened.labelled if known is not None else None
    values = {"file": command.file, "pictures": file.manifest.examples, "compared": others.examples, "labels": labels}
    those, alone = amount(file.manifest, file.manifest.examples), file.opened.reader.header["scheme"] == LATENTS
    what = f"{those} decode to what was compressed" if not alone else f"it holds z of {those}, and the rest is drawn anew"
    lines = [f"{command.file} is whole: {what}"]
    if command.files:
        lines.append(f"{others.examples:,} of them were compared{' with their labels' * bool(labels)}: they are the same")
    return Answer(values, lines)


def _known_labels(command: Verify, file: File, others: Listing) -> Tensor | None:
    """(n,) labels to compare with, of items or of sequences, where the file holds labels and those are known."""
    if command.labels and not file.opened.labelled:
        raise ValueError(f"{command.file} holds no labels to compare with: leave --labels out")
    if command.labels and not command.files:
        raise ValueError("--labels are compared together with what they are of: name those files (FILES), or leave --labels out")
    if not file.opened.labelled or not (command.labels or command.files):
        return None
    if command.labels:
        run, words = command.model, command.labels
        if run is None and not all(word.isdecimal() for word in words):
            raise ValueError(f"--labels {' '.join(words)}: give numbers, or name the run that knows these names (--model RUN)")
        given = [int(word) for word in words] if run is None else numbered(run, words)
        return _of_items(torch.tensor(given), others)
    known = _of_files(command.files, others, command.model)
    return None if known is None else _of_items(known, others)
