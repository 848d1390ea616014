"""``sweep``: runs at every combination of settings, in processes beside one another, with one table and one figure."""

from __future__ import annotations

import os
import shlex
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from ancestral.cli.commands import Answer, Evaluate
from ancestral.cli.grid import HINT, Planned, job_of, planned, trial_of
from ancestral.cli.jobs import Job, carry_out
from ancestral.cli.measure import kept_figures
from ancestral.cli.parsing import refuse
from ancestral.cli.runs import device_of, said, table
from ancestral.cli.several import Grid, Sweep
from ancestral.data.loading import load_data
from ancestral.data.splits import Splits
from ancestral.evaluation import Evaluation
from ancestral.files import write_whole
from ancestral.hub import describe
from ancestral.models import MODELS
from ancestral.report.remake import on_its_own_data, options
from ancestral.report.sweep_page import (
    FORMATS,
    Family,
    families_page,
    family_of,
    figures_of,
    notes_of,
    save_figure,
    sweep_page,
    table_of,
)
from ancestral.report.sweeps import RECORD, Point, Record, read_record
from ancestral.report.tradeoff import Line
from ancestral.symbols import DataError

FIGURE, PAGE = "sweep.svg", "sweep.html"


def sweep(command: Sweep) -> Answer:
    """Train and measure a grid of runs, or draw what sweeps found.

    Raises:
        SystemExit: 2 where neither a model nor a figure is asked for, or both.
    """
    if command.figure and command.grid is not None:
        raise refuse("--figure draws sweeps that are there: leave the model and its settings out")
    if not command.figure and command.grid is None:
        raise refuse(f"sweep what? Name a model ({', '.join(MODELS)}), or sweeps to draw (--figure FOLDER FOLDER)")
    if command.out is None:
        raise refuse("say where: --out FOLDER" if command.grid else "say where: --out FILE (.svg, .png, .pdf or .html)")
    return _draw(command.figure, command.out) if command.grid is None else _carry_out(command, command.grid, command.out)


def _carry_out(command: Sweep, grid: Grid[Any], out: Path) -> Answer:
    data = load_data(grid.data, **grid.reading.options())
    runs = planned(command, grid, out, data)
    if not command.force:
        _check_record(out, runs[0].model.name, data)
    found = [job_of(command, run, data) for run in runs]
    jobs, at_once = [job for job in found if job is not None], _processes(command)
    said(
        f"{len(runs)} runs, of which {len(runs) - len(jobs)} are there; {min(at_once, len(jobs))} at a time"
        if jobs
        else f"all {len(runs)} runs are there"
    )
    if command.dry_run:
        return _planned(runs, found)
    errors, count = dict[str, str | None](), len(jobs)

    def ended(job: Job, error: str | None) -> None:
        errors[job.name] = error
        figures = kept_figures(out / job.name)
        words = f"failed: {error}" if error else figures.lines()[0] if figures else "done"
        said(f"[{len(errors)} of {count}] {job.name}: {words}")

    try:
        carry_out(jobs, at_once, ended)
    except KeyboardInterrupt:
        said("the runs are saved: the same command goes on with them")
        raise
    axes = list(runs[0].values)
    trials = [trial_of(run, errors.get(run.folder.name)) for run in runs]
    note = {"name": data.name, "note": data.note, "hash": data.hash}
    record = Record(model=runs[0].model.name, axes=axes, data=note, split=command.split, trials=trials)
    return _written(record, out)


def _planned(runs: Sequence[Planned], jobs: Sequence[Job | None]) -> Answer:
    """What is left to do of each run, as commands."""
    todo = [[] if job is None else [shlex.join(["ancestral", *words]) for words in job.commands] for job in jobs]
    each = [{"run": run.folder.name, "command": run.command, "todo": left} for run, left in zip(runs, todo, strict=True)]
    return Answer({"runs": each}, [line for left in todo for line in left])


def _check_record(out: Path, model: str, data: Splits) -> None:
    """Refuse a folder whose sweep is of another model or of other data: its table would be lost.

    Raises:
        ValueError: it is.
    """
    if not (out / RECORD).exists():
        return
    try:
        there = read_record(out)
    except DataError:
        return  # nobody can read it
    if there.model != model or not data.recorded_as(there.data["hash"]):
        raise ValueError(f"{out} holds a sweep of {there.model} on {there.data['name']} ({there.data['note']}): {HINT}")


def _processes(command: Sweep) -> int:
    if command.processes is not None:
        if command.processes < 1:
            raise ValueError(f"processes is {command.processes}; it must be at least 1")
        return command.processes
    if device_of(command) != "cpu":
        return 1
    there = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return max(1, there // (command.threads or 1))


def _written(record: Record, out: Path) -> Answer:
    record.write(out)
    write_whole(out / PAGE, sweep_page(record).encode())
    families = [family_of(record, "")]
    if record.points:
        figure = next(iter(figures_of(families).values()))
        save_figure(figure, out / FIGURE)
    for trial in record.failed:
        said(f"{trial.run} failed: {trial.error}")
    values = {"out": out, "page": out / PAGE, **record.to_dict()}
    lines = [*_table(families[0].rows), f"{out / PAGE}, and {RECORD}, sweep.csv and {FIGURE} beside it"]
    return Answer(values, lines, code=1 if record.failed else 0)


def _table(rows: Sequence[tuple[str, Point, str]]) -> list[str]:
    if not rows:
        return []
    head, cells = table_of([(name, point, "") for name, point, _ in rows])
    return [*table([head, *cells]), notes_of(rows)]


def _draw(folders: Sequence[Path], out: Path) -> Answer:
    """Sweeps and single runs on one set of axes.

    Raises:
        ValueError: they were not judged on the same examples, or the file is of no kind that can be drawn into.
        FileNotFoundError: a folder holds neither a sweep nor a run that was evaluated.
    """
    if out.suffix not in (*FORMATS, ".html"):
        raise ValueError(f"cannot draw into {out}: name a {', '.join(FORMATS)} or .html file")
    names = (
        [folder.name for folder in folders]
        if len({each.resolve().name for each in folders}) == len(folders)
        else map(str, folders)
    )
    found = [_family(folder, name) for folder, name in zip(folders, names, strict=True)]
    families = [family for family, _ in found]
    judged = [(folder, each) for folder, (_, measured) in zip(folders, found, strict=True) for each in measured]
    for folder, each in judged[1:]:
        _check_same(*judged[0], folder, each)
    data = judged[0][1]["data"]
    if out.suffix == ".html":
        write_whole(out, families_page(families, data).encode())
    else:
        save_figure(next(iter(figures_of(families).values())), out)
    rows = [
        (", ".join(part for part in (family.name, name) if part), point, "")
        for family in families
        for name, point, _ in family.rows
    ]
    points = [{"name": name, **asdict(point)} for name, point, _ in rows]
    return Answer({"out": out, "points": points}, [*_table(rows), f"figure: {out}"])


def _check_same(first: Path, ours: Mapping[str, Any], folder: Path, theirs: Mapping[str, Any]) -> None:
    """Refuse figures that are not of the same examples.

    Raises:
        ValueError: they are not; the message says which are, and how to measure them alike.
    """
    (data, other), split = (ours["data"], theirs["data"]), ours["data"]["split"]
    if other["hash"] != data["hash"]:
        raise ValueError(f"{folder} was judged on other data than {first}: {other['note']} / {data['note']}")
    if other["split"] != split:
        raise ValueError(
            f"{folder} was judged on the {other['split']} set and not the {split} set, as {first} was: measure it on that"
            f" ({_measuring(folder, theirs, split)})"
        )
    if _examples(theirs) != _examples(ours):
        again = [_measuring(path, each, split) for path, each in ((first, ours), (folder, theirs)) if _limited(each)]
        raise ValueError(
            f"{folder} was judged on {_examples(theirs)} and {first} on {_examples(ours)}: measure on all ({'; '.join(again)})"
        )


def _limited(figures: Mapping[str, Any]) -> bool:
    return bool(figures["examples"] < figures["data"]["available"])


def _examples(figures: Mapping[str, Any]) -> str:
    """Which examples of a set figures are of: the seed says which they are where they are not all."""
    if not _limited(figures):
        return f"all {figures['examples']:,} examples"
    return f"{figures['examples']:,} of {figures['data']['available']:,} examples (seed {figures['seed']})"


def _measuring(folder: Path, figures: Mapping[str, Any], split: str) -> str:
    """The command that measures a run or a sweep on all examples of a set."""
    if (folder / RECORD).exists():
        return f"the command of {folder} with --split {split}"
    asked = {"split": split, "importance_samples": figures["importance_samples"], "orders": figures["orders"]}
    usual = {"split": "test", "importance_samples": Evaluate.importance_samples, "orders": 1}
    changed = {name: value for name, value in asked.items() if value not in (None, usual[name])}
    words = " ".join([shlex.join(["ancestral", "evaluate", str(folder)]), *options(changed)])
    return words + ("" if on_its_own_data(describe(folder), figures["data"]) else ", with the same --data as before")


def _family(folder: Path, name: str) -> tuple[Family, Sequence[Mapping[str, Any]]]:
    """The points of a folder, and the figures that they were made of."""
    if (folder / RECORD).exists():
        record = read_record(folder)
        if not record.points:
            raise ValueError(f"no run of the sweep in {folder} was judged: give its command once more")
        return family_of(record, name), [trial.evaluation for trial in record.done if trial.evaluation]
    describe(folder)
    found = kept_figures(folder)
    if found is None:
        raise ValueError(
            f"{folder} has no figures of its weights: measure it first (ancestral evaluate {shlex.quote(str(folder))})"
        )
    return _alone(name, found), [found.to_dict()]


def _alone(name: str, found: Evaluation) -> Family:
    name = f"{name} (mean over {found.orders} orders)" if found.orders > 1 else name
    point = Point.of({}, [found.to_dict()])
    return Family(name, [Line(name, [("", point)])], [("", point, found.verdict or "")])
