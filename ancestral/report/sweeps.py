"""Sweeps: the runs of a model at several settings, as a record, and as points that stand for the runs of several seeds."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from itertools import groupby
from pathlib import Path
from typing import Any

import torch

from ancestral.evaluation.bits import Mean
from ancestral.files import write_whole
from ancestral.symbols import DataError

RECORD, TABLE = "sweep.json", "sweep.csv"
FORMAT = 1
COSTS = {
    "bits_per_dim": "bits_per_dim_error",
    "nats": "nats_error",
    "rate": "rate_error",
    "distortion": "distortion_error",
    "iwae": "iwae_error",
    "shuffle_cost": "shuffle_cost_error",
    "mutual_information": None,
    "active_units": None,
}  # figures of an evaluation, and what holds their standard errors over its examples


@dataclass(frozen=True, kw_only=True)
class Trial:
    """One run of a sweep.

    Attributes:
        run: name of its folder within that of the sweep.
        values: the settings that were swept, by name; without the seed.
        seed: of the run.
        command: the command line that makes it.
        error: why it failed, or None.
        evaluation: its figures as `Evaluation.to_dict` has them, or None.
        steps, seconds: of its training.
    """

    run: str
    values: Mapping[str, Any]
    seed: int
    command: str
    error: str | None = None
    evaluation: Mapping[str, Any] | None = None
    steps: int | None = None
    seconds: float | None = None


@dataclass(frozen=True, kw_only=True)
class Point:
    """The runs of one setting, which differ in their seeds alone.

    Attributes:
        values: the settings that were swept, by name.
        runs: how many there are.
        units: of z, or None.
        status: exact or bound.
        figures: the mean over the runs of each of `COSTS` that there is, with its standard error: over the seeds where there
            are several, else over the examples. ``iwae`` is a bound of log p(x), in nats.
        bound: which one that is, as `bound_in_words` says it.
    """

    values: Mapping[str, Any]
    runs: int
    units: int | None
    status: str
    figures: Mapping[str, Mean]
    bound: str = ""

    @classmethod
    def of(cls, values: Mapping[str, Any], evaluations: Sequence[Mapping[str, Any]]) -> Point:
        """The mean of runs."""
        first = evaluations[0]
        known = [name for name in COSTS if all(each.get(name) is not None for each in evaluations)]
        figures = {name: _mean([each[name] for each in evaluations], first.get(COSTS[name] or "")) for name in known}
        units, bound = first.get("units"), bound_in_words(first)
        return cls(values=values, runs=len(evaluations), units=units, status=first["status"], figures=figures, bound=bound)


def _mean(values: Sequence[float], alone: float | None) -> Mean:
    return Mean.of(torch.tensor(values, dtype=torch.float64)) if len(values) > 1 else Mean(float(values[0]), alone)


@dataclass(frozen=True, kw_only=True)
class Record:
    """What a sweep did.

    Attributes:
        model: its name.
        axes: the settings that were swept, without the seed.
        data: name, note and hash of the data.
        split: which examples were judged.
        trials: its runs, in the order of the grid.
    """

    model: str
    axes: Sequence[str]
    data: Mapping[str, Any]
    split: str
    trials: Sequence[Trial]

    @property
    def done(self) -> list[Trial]:
        """The runs that were trained and judged."""
        return [trial for trial in self.trials if trial.evaluation is not None and trial.error is None]

    @property
    def failed(self) -> list[Trial]:
        """The runs that were not."""
        return [trial for trial in self.trials if trial.error is not None]

    @property
    def points(self) -> list[Point]:
        """A point for every setting with a run that was judged, in the order of the grid."""
        groups = groupby(self.done, lambda trial: dict(trial.values))
        return [Point.of(values, [trial.evaluation for trial in some if trial.evaluation]) for values, some in groups]

    def to_dict(self) -> dict[str, Any]:
        """The record as JSON has it."""
        return {"format": FORMAT, **asdict(self), "points": [asdict(point) for point in self.points]}

    @classmethod
    def from_dict(cls, fields: Mapping[str, Any]) -> Record:
        """What ``to_dict`` gave."""
        trials = [Trial(**trial) for trial in fields["trials"]]
        return cls(**{name: fields[name] for name in ("model", "axes", "data", "split")}, trials=trials)

    def write(self, folder: Path) -> None:
        """Write ``sweep.json``, and ``sweep.csv`` with a row for every run, each file whole or not at all."""
        write_whole(folder / RECORD, json.dumps(self.to_dict(), indent=2, ensure_ascii=False).encode())
        write_whole(folder / TABLE, self._table().encode())

    def _table(self) -> str:
        rows = [self._row(trial) for trial in self.trials]
        text = io.StringIO()
        table = csv.DictWriter(text, list(dict.fromkeys(name for row in rows for name in row)), lineterminator="\n")
        table.writeheader()
        table.writerows(rows)
        return text.getvalue()

    def _row(self, trial: Trial) -> dict[str, Any]:
        figures = {name: value for name, value in (trial.evaluation or {}).items() if not isinstance(value, Mapping | list)}
        own = {"run": trial.run, **trial.values, "run_seed": trial.seed, "steps": trial.steps, "seconds": trial.seconds}
        return {**own, "error": trial.error, **figures, "data": self.data["name"], "split": self.split}


def read_record(folder: Path) -> Record:
    """What `Record.write` wrote.

    Raises:
        DataError: it is damaged, or of another version.
        OSError: it cannot be read.
    """
    path = folder / RECORD
    try:
        fields = json.loads(path.read_text(encoding="utf-8"))
        if fields["format"] != FORMAT:
            raise DataError(f"{path} was written by another version of ancestral: give the command of the sweep once more")
        return Record.from_dict(fields)
    except (ValueError, KeyError, TypeError) as error:
        if isinstance(error, DataError):
            raise
        raise DataError(f"{path} is damaged ({error!r}): give the command of the sweep once more, it keeps the runs") from error


def bound_in_words(figures: Mapping[str, Any]) -> str:
    """Which importance-weighted bound an evaluation has, of how many samples on how many examples; empty where it has none.

    Example:
        >>> bound_in_words({"iwae": -90.0, "importance_samples": 3, "subset": 20, "seed": 0})
        'IWAE-3 on 20'
    """
    iwae, k, subset, seed = (figures.get(name) for name in ("iwae", "importance_samples", "subset", "seed"))
    if iwae is None or k is None or subset is None:
        return ""
    return f"IWAE-{k} on {subset:,}" + (f" (seed {seed})" if seed else "")


def bounds_in_words(bounds: Sequence[str]) -> str:
    """Which bound the figures of a table are, as `bound_in_words` says it, or that each of its cells says so."""
    return "not the same of all, as the cells say" if len(set(bounds)) > 1 else bounds[0]


def value_in_words(value: Any) -> str:
    """A value of a setting as a name or a label has it.

    Example:
        >>> [value_in_words(value) for value in (2.0, 0.25, 8, "logistic", True, None)]
        ['2', '0.25', '8', 'logistic', 'on', 'none']
    """
    if value is None or isinstance(value, bool):
        return "none" if value is None else "on" if value else "off"
    return str(value).removesuffix(".0") if isinstance(value, float) else str(value)


def values_in_words(values: Mapping[str, Any]) -> str:
    """Settings by name as a name or a label has them.

    Example:
        >>> values_in_words({"lambda_": 2.0, "layers": 5})
        'lambda=2,layers=5'
    """
    return ",".join(f"{name.rstrip('_')}={value_in_words(value)}" for name, value in values.items())
