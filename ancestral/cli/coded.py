"""What the commands on compressed files share: the file, the model that made it, and its items."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import accumulate, pairwise
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import safetensors.torch
import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor

from ancestral.cli.commands import Coding, Decompress, Verify
from ancestral.cli.runs import KINDS, progress, threads_of
from ancestral.coding.beside import SIZE, Kept
from ancestral.coding.blocks import MOST_ITEMS, portions
from ancestral.coding.clips import Clip, Sequences
from ancestral.coding.codec import ENDS, Opened, spec_of
from ancestral.coding.container import Block
from ancestral.coding.errors import CodecError, CorruptHeader, DecodeMismatch
from ancestral.coding.manifest import Item, Manifest
from ancestral.coding.pictures import labels_name
from ancestral.coding.reader import Damage, Reader
from ancestral.coding.sharing import shared_out
from ancestral.data.notation import smallest
from ancestral.data.source import Array
from ancestral.hub import CONFIG, WEIGHTS, LoadError, Model, describe, load, notation_of
from ancestral.spec import DataSpec

FILES, HINT, DIGEST, VERSION, PLAIN = "files", "hint", "weights", "version", "bytes"  # what we add to the header
PORTABLE = ("format", "model", "config", "spec", "versions")  # of config.json: what a model needs, and nothing of its maker
UNITS = ("dim", "byte", "sample", "symbol")  # by which the bits of files are counted
RUNS = Path("runs")

Listing = Manifest | Sequences


@dataclass(frozen=True, eq=False)
class File:
    """A compressed file with the model that decodes it, and what it holds."""

    opened: Opened
    manifest: Listing


def ready(command: Coding, model: Model) -> Model:
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
def about(path: Path) -> Iterator[None]:
    """Faults of a compressed file with its name, and what to do about them in the words of the command line.

    Raises:
        CodecError: the fault.
    """
    try:
        yield
    except CodecError as error:
        if type(error) is CodecError:  # which names what it is about
            raise
        words = str(error).replace('errors="skip"', "`ancestral decompress --errors skip`")
        raise CodecError(f"{path}: {words}") from error


@contextmanager
def file_of(command: Decompress | Verify, path: Path, errors: Any = "strict") -> Iterator[File]:
    """A compressed file with the model that decodes it."""
    with about(path), path.open("rb") as file:
        reader = Reader(file, errors)
        manifest = listing(reader.header, spec_of(reader.header), path)
        model = _model(command.model, reader, path)
        ready(command, model)
        _check_kind(manifest.spec, model, command.model or f"the run {reader.header.get(HINT)}", path)
        seed = command.seed if isinstance(command, Decompress) else 0
        yield File(Opened(reader, model, command.engine, threads_of(command, model), seed), manifest)


def _check_kind(spec: DataSpec, model: Model, run: Path | str, path: Path) -> None:
    """Refuse a model of other data than a file is of.

    Raises:
        CodecError: it is one; both kinds are named.
    """
    if spec.kind != model.spec.kind:
        raise CodecError(
            f"{path} was made with a model of {KINDS[spec.kind]}; {run} is of {KINDS[model.spec.kind]}: name the run that made it"
            " (--model RUN)"
        )


def listing(header: dict[str, Any], spec: DataSpec, path: Path) -> Listing:
    """What the items are; of a file without a list, one array of symbols."""
    n, sequences = header.get("items"), spec.sequence
    if not isinstance(n, int) or n < 0 or None in spec.shape:
        raise CorruptHeader("the header does not say how many items there are: it was not written by this program")
    if FILES not in header:
        name, shape = f"{path.stem}.npy", (n, *(size or 0 for size in spec.shape))
        return (
            Sequences(spec, (Clip(name, "<i8", shape, shape[1:] * n),))
            if sequences
            else Manifest(spec, (Item(name, "<i8", shape),))
        )
    manifest: Listing = (Sequences if sequences else Manifest).from_text(header[FILES], spec)
    blocks = header.get(ENDS)
    if isinstance(manifest, Sequences) and manifest.ended is (blocks is None):
        raise CorruptHeader("the list of files and the header do not agree whether items are lines: the file was changed")
    sizes = blocks if isinstance(blocks, list) else []
    if blocks is not None and not (all(type(size) is int and 0 < size <= MOST_ITEMS for size in sizes) and sum(sizes) == n):
        raise CorruptHeader(f"the header does not say in which blocks its {n:,} items are: it was not written by this program")
    if isinstance(manifest, Sequences) and manifest.symbols > n * spec.sites:  # before pieces are counted, which takes memory
        raise CorruptHeader(f"the list of files is of {manifest.symbols:,} symbols, more than {n:,} items have: it was changed")
    if manifest.total != n:
        raise CorruptHeader(f"the list of files is of {manifest.total:,} items and the header of {n:,}: the file was changed")
    return manifest


def amount(manifest: Listing, n: int) -> str:
    """So many pictures or the like."""
    word = "picture" if isinstance(manifest, Manifest) else "sound" if manifest.spec.kind == "audio" else "text"
    return f"{n:,} {word}{'s' if n != 1 or word == 'picture' else ''}"


def cost(manifest: Listing, size: int, plain: Any) -> tuple[str, float] | None:
    """What the bits of so many bytes are counted by, and how many that makes; None where nothing was coded.

    Text is weighed by the bytes that it was, sound by its samples, and whatever has but symbols by those.

    Args:
        plain: the size of the files, if it is known.
    """
    if not manifest.symbols:
        return None
    if isinstance(manifest, Manifest):
        return "dim", 8 * size / manifest.symbols
    if manifest.spec.kind == "audio":
        return "sample", 8 * size / (manifest.symbols // manifest.spec.parts)
    known = isinstance(plain, int) and plain > 0 and not any(item.shape for item in manifest.items)
    return ("byte", 8 * size / plain) if known else ("symbol", 8 * size / manifest.symbols)


def per_unit(found: tuple[str, float] | None) -> dict[str, float | None]:
    """The same as JSON has it: a figure for each unit, null for those that do not apply."""
    return {f"bits_per_{unit}": found[1] if found and found[0] == unit else None for unit in UNITS}


def in_words(found: tuple[str, float] | None) -> str:
    """The same, to be read."""
    unit, bits = found or ("", 0.0)
    return "" if found is None else f"{bits:.4f} bits/dim" if unit == "dim" else f"{bits:.4f} bits a {unit}"


def decoded(
    file: File, salvage: bool, one: Callable[[Block], Tensor] | None = None, doing: str = "decompressing"
) -> tuple[Tensor, Array]:
    """The items that can be decoded, and which ones they are; those of sequences in the smallest type that holds them.

    Args:
        one: what makes the items of a block, in place of decoding it.

    Raises:
        CodecError: a block is damaged, or there are fewer than the header says, and nothing is to be salvaged.
    """
    opened, total, parts = file.opened, file.manifest.total, _blocks(file)
    make = opened.decoded if one is None else one
    kind = torch.from_numpy(np.zeros(0, smallest(opened.spec.levels or 2))).dtype if opened.spec.sequence else torch.long
    found, rows = [torch.zeros(0, *opened.shape, dtype=kind)], [np.zeros(0, np.int64)]

    def attempt(block: Block) -> Tensor | DecodeMismatch:
        try:
            if parts is not None and block.items != (len(parts[block.index]) if block.index < len(parts) else 0):
                raise DecodeMismatch(block.index)
            return make(block).to(kind)
        except DecodeMismatch as error:
            return error

    with progress(doing) as tick:
        for block, items in shared_out(attempt, opened.reader, opened.threads):
            if isinstance(items, DecodeMismatch):
                if not salvage:
                    raise items
                opened.reader.damage.append(Damage(range(block.index, block.index + 1), str(items)))
            elif block.items:
                first = sum(map(len, found)) if parts is None else parts[block.index].start
                found.append(items)
                rows.append(np.arange(first, first + block.items))
                tick(first + block.items, total)
    x = torch.cat(found)
    if not salvage and (len(x) < total or len(opened.beside) < _blocks_beside(file.manifest)):
        raise CorruptHeader(f"the file has {len(x):,} of the {total:,} items that its header says: it was changed")
    return x, np.concatenate(rows)


def beside_of(file: File) -> tuple[str, ...]:
    """The names of what is written beside the files that come back: their labels, where there are any."""
    return (labels_name(file.manifest),) if file.opened.labelled else ()


def kept_of(file: File) -> Kept:
    """What was kept beside the symbols that were decoded."""
    return Kept(file.opened.beside, len(_blocks(file) or ()))


def _blocks(file: File) -> list[range] | None:
    """Which items are in which block; None of sequences whose lengths the blocks alone know."""
    if isinstance(file.manifest, Sequences) and ENDS in file.opened.reader.header:
        ends = list(accumulate(file.opened.reader.header[ENDS], initial=0))
        return [range(first, end) for first, end in pairwise(ends)]
    lengths = file.manifest.lengths if isinstance(file.manifest, Sequences) else None
    if lengths is not None and FILES not in file.opened.reader.header:
        return None
    return portions(file.opened.spec, file.manifest.total, lengths)


def _blocks_beside(manifest: Listing) -> int:
    size = manifest.beside[-1].stop if isinstance(manifest, Sequences) and manifest.beside else 0
    return -(-size // SIZE)


# ---- models


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
        if (run / WEIGHTS).is_file() and digest_of(run / WEIGHTS) == digest:
            return load(run)
    looked = f"run {hint!r} here and in {RUNS.resolve()}" if near else str(RUNS.resolve())
    raise CodecError(
        f"{path} needs the model {reader.header.get('model')} that made it, and it is not there: looked for {looked}, and for its"
        f" weights in {len(around):,} runs there; name the folder of its run (--model RUN)"
    )


def digest_of(path: Path) -> str:
    """64 hexadecimal digits by which weights are recognised."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def packed(run: Path) -> bytes:
    """A run as one safetensors file with its configuration as metadata."""
    config, notation = {key: value for key, value in describe(run).items() if key in PORTABLE}, notation_of(run)
    if notation is not None:
        config["data"] = {"notation": notation.to_dict()}
    return safetensors.torch.save(safetensors.torch.load_file(run / WEIGHTS), {"config": json.dumps(config)})


def _unpacked(weights: bytes) -> Model:
    """The model that ``packed`` wrote.

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
