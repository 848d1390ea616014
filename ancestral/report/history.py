"""The curves of a training run, read back from its table."""

from __future__ import annotations

import csv
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import groupby
from math import nan
from pathlib import Path

from ancestral.report.figures import Curve
from ancestral.symbols import DataError

TABLE = "metrics.csv"
SPLITS = ("validation", "train")


@dataclass(frozen=True)
class Stretch:
    """A stage as it went: its name, the steps of the run between which it lies, and the status of its bits/dim.

    ``status`` is exact, bound or approximate; empty where the stage has no bits/dim of x.
    """

    name: str
    start: int
    end: int
    status: str


@dataclass(frozen=True)
class History:
    """The rows of ``metrics.csv``, as text by column."""

    rows: Sequence[dict[str, str]]

    @property
    def stages(self) -> list[Stretch]:
        """The stages, in order."""
        found: list[Stretch] = []
        for name, rows in groupby(self.rows, lambda row: row["stage"]):
            some = list(rows)
            status = next((row["status"] for row in some if row.get("status")), "")
            found.append(Stretch(name, found[-1].end if found else 0, max(int(float(row["step"])) for row in some), status))
        return found

    @property
    def slowed(self) -> dict[str, float]:
        """What part of their learning rates the stages ended with in which gradients had blown up, by name."""
        return {row["stage"]: float(row["pace"]) for row in self.rows if row.get("pace")}

    @property
    def seconds(self) -> float | None:
        """How long training took."""
        times = [float(row["seconds"]) for row in self.rows if row.get("seconds")]
        return max(times, default=None)

    def curves(self, column: str) -> list[Curve]:
        """The validation and the training curve of a column, broken between stages; none where nothing is there."""
        made = (Curve(split, *self._points(column, split)) for split in SPLITS)
        return [curve for curve in made if len(curve.steps)]

    def _points(self, column: str, split: str) -> tuple[list[float], list[float]]:
        steps, values, stage = list[float](), list[float](), ""
        for row in self.rows:
            if row["split"] != split or not row.get(column):
                continue
            if steps and row["stage"] != stage:
                steps.append(steps[-1])
                values.append(nan)
            stage = row["stage"]
            steps.append(float(row["step"]))
            values.append(float(row[column]))
        return steps, values


def read_history(folder: Path) -> History:
    """The history of a run folder; without rows where it has no table, as a model that was only saved has none.

    Raises:
        DataError: the table is damaged.
    """
    path = folder / TABLE
    if not path.exists():
        return History([])
    with path.open(encoding="utf-8", newline="") as file:
        history = History(list(csv.DictReader(file)))
    for number, problem in _problems(history):
        raise DataError(f"{path}, row {number}: {problem}; restore the table from a copy, or remove it to do without curves")
    return history


def _problems(history: History) -> Iterator[tuple[int, str]]:
    for number, row in enumerate(history.rows, 1):
        for column in ("step", "stage", "split"):
            if not row.get(column):
                yield number, f"it has no {column}"
        for column, text in row.items():
            if column not in ("stage", "split", "status") and text:
                try:
                    float(text)
                except (TypeError, ValueError):
                    yield number, f"{column} is {text!r}, which is no number"
