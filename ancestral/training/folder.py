"""The folder of a run: looked at before training, so that nothing is lost after it, and its checkpoint."""

from __future__ import annotations

import io
import pickle
import shutil
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

import torch

from ancestral.files import write_whole
from ancestral.hub import CONFIG, WEIGHTS, Model
from ancestral.training.faults import TrainingError

CHECKPOINT, TABLE = "checkpoints/last.ckpt", "metrics.csv"
WRITTEN_LATER = ("evaluation.json", "scores.csv", "report.html", "samples")  # about a run, by whoever looks at it
OWN = (CONFIG, WEIGHTS, TABLE, "checkpoints", "tensorboard", *WRITTEN_LATER)  # what belongs to a run
COPIES = 10  # of the weights: raw, averaged, two of the optimiser's, averaged by themselves; twice while files are replaced


def prepare(folder: Path, model: Model, overwrite: bool) -> Path:
    """Prove that a run will fit into its folder, from which an earlier run is removed on ``overwrite``.

    The folder is made when something is written, so that a run that stops before leaves none.

    Raises:
        FileExistsError: the folder holds something, and ``overwrite`` does not say that it may go.
        OSError: the folder cannot be made or written, or its disk has too little room.
    """
    if folder.is_dir() and any(folder.iterdir()) and not overwrite:
        how = f"resume it (--resume {folder})" if (folder / CHECKPOINT).exists() else "choose another"
        raise FileExistsError(f"{folder} is not empty: {how}, or replace the run in it (--force, overwrite=True)")
    size = sum(tensor.numel() * tensor.element_size() for tensor in model.state_dict().values())
    probe, missing = folder / ".probe", [each for each in (folder, *folder.parents) if not each.exists()]
    try:
        folder.mkdir(parents=True, exist_ok=True)
        free = shutil.disk_usage(folder).free
        if free < COPIES * size:
            raise OSError(f"the run needs about {COPIES * size / 1e6:,.1f} MB, and {free / 1e6:,.1f} MB are free")
        write_whole(probe, bytes(size))
        probe.unlink()
    except OSError as error:
        raise OSError(f"cannot write the run to {folder} ({error}): choose another folder or make room") from error
    finally:
        _forget(missing)
    if (folder / CONFIG).exists():
        for name in OWN:
            _remove(folder / name)
        _forget([folder])
    return folder


def _forget(folders: Sequence[Path]) -> None:
    """Remove folders, the inner ones first, as far as they are there and empty."""
    for folder in folders:
        with suppress(OSError):
            folder.rmdir()


def _remove(path: Path) -> None:
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)


def write_checkpoint(folder: Path, state: dict[str, Any]) -> None:
    """Write tensors, numbers and texts such that ``torch.load(..., weights_only=True)`` reads them, whole or not at all."""
    buffer = io.BytesIO()
    torch.save(state, buffer)
    write_whole(folder / CHECKPOINT, buffer.getvalue())


def read_checkpoint(folder: Path) -> dict[str, Any]:
    """What ``write_checkpoint`` wrote.

    Raises:
        TrainingError: there is none, or it is damaged.
    """
    path = folder / CHECKPOINT
    if not path.exists():
        raise TrainingError(f"there is no {path}, so there is nothing to resume: training has not begun in {folder}")
    try:
        state: dict[str, Any] = torch.load(path, map_location="cpu", weights_only=True)
    except (RuntimeError, OSError, EOFError, ValueError, KeyError, pickle.UnpicklingError) as error:
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise TrainingError(f"{path} is damaged ({reason}); restore it from a copy, or train anew with --force") from error
    return state
