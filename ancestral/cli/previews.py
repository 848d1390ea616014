"""The pictures that z alone gives, of compressed files: they are there before anything else is decoded."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path

import numpy as np

from ancestral.cli.coded import beside_of, decoded, file_of
from ancestral.cli.commands import Decompress
from ancestral.coding.errors import CodecError
from ancestral.coding.lossy import check_previews, of_bytes, previewed, shown_spec
from ancestral.coding.manifest import CHANNELS, Item, Manifest
from ancestral.coding.pictures import check_folder, restored_files
from ancestral.files import write_whole

KINDS = {"1": "L"}  # pictures of two levels have a mean in between


def preview(command: Decompress, folder: Path, out: Path) -> int:
    """Write the pictures that z alone gives; how many files they are. Arrays have the type and the levels of what was compressed.

    Nothing is written unless both they and the files themselves have room, in ``folder`` and in ``out``.
    With ``errors="skip"`` what lies in damaged blocks is left out, as of the files themselves.

    Raises:
        DataError: the file holds no pictures.
        CodecError: it does not begin with z, is damaged, or a file is there already, or is to be there afterwards.
    """
    with file_of(command, command.file, command.errors) as file:
        check_previews(file.opened)
        items = tuple(
            replace(item, kind=KINDS.get(item.kind, item.kind)) for item in file.manifest.items if isinstance(item, Item)
        )
        manifest = Manifest(shown_spec(file.manifest.spec), items)
        beside = beside_of(file)
        _check_apart(manifest, folder, out, beside)
        check_folder(manifest, folder, command.force, flag="--preview")
        check_folder(manifest, out, command.force, beside)
        one = partial(previewed, file.opened)
        x, rows = decoded(file, command.errors == "skip", one, "previewing")
    for item, place in zip(items, manifest.places, strict=True):
        if item.kind not in CHANNELS:
            some = slice(*np.searchsorted(rows, (place.start, place.stop)))
            x[some] = of_bytes(x[some], file.manifest.spec.levels or 2)
    written = 0
    for name, content in restored_files(x, manifest, rows):
        write_whole(folder / name, content)
        written += 1
    return written


def _check_apart(manifest: Manifest, folder: Path, out: Path, beside: Sequence[str]) -> None:
    """Say beforehand whether previews in ``folder`` and the files in ``out`` would have the same places.

    Raises:
        CodecError: some would; one is named.
    """
    names = [item.target for item in manifest.items]
    taken = {(out / name).resolve() for name in [*names, *beside]}
    for path in (folder / name for name in names):
        if path.resolve() in taken:
            raise CodecError(f"{path} would be a preview and then a file that comes back: name another folder (--preview)")
