"""The runs of a sweep: their settings, folders and commands, and what is left to do of each."""

from __future__ import annotations

import os
import shlex
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import asdict, dataclass, replace
from itertools import product
from pathlib import Path
from typing import Any

from ancestral.cli.jobs import Job
from ancestral.cli.measure import kept_figures, weighed
from ancestral.cli.several import Grid, Sweep
from ancestral.cli.train import begun
from ancestral.data.splits import Splits
from ancestral.hub import CONFIG, LoadError, describe
from ancestral.report.history import read_history
from ancestral.report.remake import options, settings
from ancestral.report.sweeps import Trial, value_in_words, values_in_words
from ancestral.training.config import TrainingConfig
from ancestral.training.fitting import HARMLESS
from ancestral.training.folder import CHECKPOINT

HINT = "choose another folder (--out), or make its runs anew (--force)"


@dataclass(frozen=True)
class Planned:
    """One run of the grid.

    Attributes:
        folder: of the run.
        values: the settings that are swept, without the seed.
        model, training: all settings.
        words: of the command that makes it.
        start: whose weights it begins with, as its configuration keeps it; None where they are fresh.
    """

    folder: Path
    values: dict[str, Any]
    model: Any
    training: TrainingConfig
    words: list[str]
    start: dict[str, Any] | None

    @property
    def command(self) -> str:
        """The command line that makes it."""
        return shlex.join(["ancestral", *self.words])


def planned(command: Sweep, grid: Grid[Any], out: Path, data: Splits) -> list[Planned]:
    """The runs of the grid, those of one setting together, in the folders that have them already or in new ones.

    Raises:
        ValueError: a setting has no value, or one that is outside its range; or parts are named of no run.
    """
    if grid.parts and grid.from_ is None:
        raise ValueError("--parts names parts of another run's model: say of which (--from RUN)")
    start = None if grid.from_ is None else begun(grid.from_, grid.parts)
    swept = {**grid.model.values, **grid.training.values}
    for name, values in swept.items():
        if not values:
            raise ValueError(f"--{name.rstrip('_').replace('_', '-')} has no value: give it one or several")
    axes = [name for name in (*grid.model.axes, *grid.training.axes) if name != "seed"]
    wanted = dict[Path, tuple[dict[str, Any], Any, TrainingConfig]]()
    for settings_, training in product(grid.model.combinations(), grid.training.combinations()):
        values, config = {name: {**settings_, **training}[name] for name in axes}, TrainingConfig(**training)
        named = out / values_in_words({**values, "seed": config.seed}).replace(os.sep, "-")
        wanted[named] = values, grid.model.kind(**settings_), config
    made, there = [], {} if command.force else _there(out)
    for named, (values, model, config) in wanted.items():
        free = {path: have for path, have in there.items() if path == named or path not in wanted}
        folder = _folder(named, free, _wanted(model, config, data), start, data)
        there.pop(folder, None)  # what counts as one run, such as batches larger than the training set, makes several here
        made.append(Planned(folder, values, model, config, _words(command, grid, folder, model, config), start))
    made.sort(key=lambda each: [swept[name].index(value) for name, value in each.values.items()])
    return made


def _there(out: Path) -> dict[Path, dict[str, Any]]:
    """The runs in a folder, with their configurations."""
    found = dict[Path, dict[str, Any]]()
    for path in sorted(out.glob(f"*/{CONFIG}")):
        with suppress(LoadError):  # one that is damaged is no run that could be kept
            found[path.parent] = describe(path.parent)
    return found


def _folder(
    named: Path, there: Mapping[Path, dict[str, Any]], wanted: Mapping[str, Any], start: dict[str, Any] | None, data: Splits
) -> Path:
    """Where a run is: names tell only what was swept, so that another sweep may have given it another one."""
    same = [path for path, have in there.items() if have.get("from") == start and _other(have, wanted, data) is None]
    return named if named in same or not same else same[0]


def _words(command: Sweep, grid: Grid[Any], folder: Path, model: Any, training: TrainingConfig) -> list[str]:
    usual = asdict(TrainingConfig())
    changed = {name: value for name, value in asdict(training).items() if value != usual[name] or name == "seed"}
    reading = grid.reading.options()
    reading = {**reading, "grey": True} if reading.pop("channels", None) else reading
    start = {"from": grid.from_, "parts": grid.parts or None}
    made = {"data": grid.data, "out": folder, **start, **reading, **settings(model.name, asdict(model)), **changed}
    return ["train", model.name, *shlex.split(" ".join(options(made))), *_computing(command)]


def _computing(command: Sweep) -> list[str]:
    return ["--device", command.device, "--threads", str(command.threads or 1)]


def job_of(command: Sweep, run: Planned, data: Splits) -> Job | None:
    """What is left to do of a run, or None."""
    todo = []
    if command.force or not (run.folder / CONFIG).exists():
        todo.append([*run.words, *(["--force"] if command.force else [])])
    else:
        _check_same(run, data)
        if not trained(run.folder):
            begun = (run.folder / CHECKPOINT).exists()
            todo.append(["train", "--resume", str(run.folder), *_computing(command)] if begun else [*run.words, "--force"])
    if todo or not _judged(command, run.folder, data):
        judge = {"split": command.split, "importance_samples": command.importance_samples, "subset": command.subset}
        todo.append(["evaluate", str(run.folder), *shlex.split(" ".join(options(judge))), *_computing(command)])
    log = run.folder.parent / "logs" / f"{run.folder.name}.txt"
    return Job(run.folder.name, todo, log, command.threads or 1) if todo else None


def _check_same(run: Planned, data: Splits) -> None:
    """Refuse a run of other settings or data that is in the way.

    Raises:
        ValueError: there is one.
    """
    entries = describe(run.folder)
    wanted = _wanted(run.model, run.training, data)
    if entries.get("from") != run.start:
        raise ValueError(f"{run.folder} holds a run that began with other weights: {HINT}")
    name = _other(entries, wanted, data)
    if name is not None:
        raise ValueError(
            f"{run.folder} holds a run with {name.rstrip('_')} {value_in_words(_recorded(entries, data).get(name))} in place of"
            f" {value_in_words(wanted[name])}: {HINT}"
        )


def _wanted(model: Any, training: TrainingConfig, data: Splits) -> dict[str, Any]:
    """What makes a run what it is, by name."""
    ours = replace(training, batch_size=min(training.batch_size, len(data.train)))
    return {**asdict(model), **asdict(ours), "model": model.name, "data": data.hash}


def _recorded(entries: Mapping[str, Any], data: Splits) -> dict[str, Any]:
    """The same of a run that is there."""
    have = {**(entries["config"] or {}), **entries.get("training", {}), "model": entries["model"]}
    recorded = (entries.get("data") or {}).get("hash")
    have["data"] = data.hash if recorded is not None and data.recorded_as(recorded) else recorded
    return have


def _other(entries: Mapping[str, Any], wanted: Mapping[str, Any], data: Splits) -> str | None:
    """What a run that is there has otherwise than is wanted, or None."""
    have = _recorded(entries, data)
    return next((name for name, value in wanted.items() if name not in HARMLESS and have.get(name) != value), None)


def trained(folder: Path) -> bool:
    """Whether the run of a folder went through all its steps."""
    stages, history = describe(folder).get("stages") or [], read_history(folder)
    return bool(history.rows) and history.stages[-1].end >= sum(stage["steps"] for stage in stages)


def _judged(command: Sweep, folder: Path, data: Splits) -> bool:
    """Whether a run has the figures that the sweep asks for."""
    found = kept_figures(folder)
    if found is None or (found.data["hash"], found.data["split"]) != (data.hash, command.split):
        return False
    whole = found.examples == found.data["available"] and found.orders == 1
    return whole and weighed(found, command.importance_samples, command.subset)


def trial_of(run: Planned, error: str | None) -> Trial:
    """What there is to say of a run, whose job failed for a reason or did not."""
    found = kept_figures(run.folder) if error is None else None
    history = read_history(run.folder)
    return Trial(
        run=run.folder.name,
        values=run.values,
        seed=run.training.seed,
        command=run.command,
        error=error,
        evaluation=None if found is None else found.to_dict(),
        steps=history.stages[-1].end if history.rows else None,
        seconds=history.seconds,
    )
