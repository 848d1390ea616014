"""Why a run stops before its end."""

from __future__ import annotations

import shlex
from collections.abc import Sequence
from pathlib import Path


class TrainingError(RuntimeError):
    """Training cannot go on: the message names stage, step, cause and remedy.

    Attributes:
        rows: rows of the training set that were in the batch, where the fault is one of numbers.
    """

    def __init__(self, message: str, rows: Sequence[int] = ()) -> None:
        super().__init__(message)
        self.rows = tuple(rows)


class Interrupted(Exception):
    """Somebody asked the run to stop. What was saved is in its folder, and the message has the command that goes on.

    Attributes:
        folder: the run's folder, None where nothing was saved.
    """

    def __init__(self, where: str, folder: Path | None) -> None:
        self.folder = folder
        saved = "nothing was saved" if folder is None else f"go on with: ancestral train --resume {shlex.quote(str(folder))}"
        super().__init__(f"stopped {where}; {saved}")
