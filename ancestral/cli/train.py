"""``train``: begin a run, go on with one, or say what one would take."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from dataclasses import replace
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import torch

from ancestral.cli.commands import Answer, New, Train
from ancestral.cli.parsing import refuse
from ancestral.cli.runs import device_of, threads_of
from ancestral.data.loading import load_data
from ancestral.data.splits import Splits
from ancestral.hub import WEIGHTS, LoadError, Model, fill, load, parts_of
from ancestral.models import MODELS, build, nearest
from ancestral.report.describe import amount, describe
from ancestral.training import Run, fit, plan, resume
from ancestral.training.callbacks import shown
from ancestral.training.config import TrainingConfig
from ancestral.training.stages import Planned


def train(command: Train) -> Answer:
    """Train as the command line says.

    Raises:
        SystemExit: 2 where there is neither a model nor a run to go on with, or both.
    """
    if command.new is not None and command.resume is not None:
        raise refuse("a run that goes on has its model and settings: leave all but --resume out")
    if command.resume is not None:
        changed: dict[str, Any] = {} if command.threads is None else {"threads": command.threads}
        return _told(resume(command.resume, accelerator=device_of(command), **changed))
    if command.new is None:
        raise refuse(f"train what? Name a model ({', '.join(MODELS)}), or a run to go on with (--resume RUN)")
    return _begin(command, command.new)


def _begin(command: Train, new: New[Any]) -> Answer:
    options = new.reading.options()
    data = load_data(new.data, **options)
    torch.manual_seed(new.training.seed)  # of the fresh weights
    model = build(new.model, data.spec)
    if new.from_ is not None:
        _warm(model, new.from_, new.parts)
    elif new.parts:
        raise refuse("--parts names parts of another run's model: say of which (--from RUN)")
    config = replace(new.training, accelerator=device_of(command), threads=threads_of(command, model))
    if new.dry_run:
        return _estimate(model, data, config)
    start = None if new.from_ is None else begun(new.from_, new.parts)
    return _told(fit(model, new.data, new.out, config=config, data_options=options, start=start, overwrite=new.force))


def begun(run: Path, parts: Sequence[str]) -> dict[str, Any]:
    """Whose weights a run began with, as its configuration keeps it."""
    return {"run": str(run), "parts": list(parts)}


def _warm(model: Model, run: Path, parts: Sequence[str]) -> None:
    """Give a model the weights of a run, or those of some parts."""
    other = load(run)
    weights = other.state_dict()
    for part in parts:
        for whose, each in (("the model", model), (f"the model of {run}", other)):
            there = parts_of(each)
            if part not in there:
                raise ValueError(f"{whose} has no part {part!r}; {nearest(part, there)}")
    taken = {name: value for name, value in weights.items() if not parts or name.startswith(tuple(f"{part}." for part in parts))}
    try:
        fill(model, {**model.state_dict(), **taken} if parts else taken, run / WEIGHTS)
    except LoadError as error:
        raise ValueError(
            f"the weights of {run} do not fit: give the model its settings and data of its shape, or take some --parts ({error})"
        ) from error


def _told(run: Run) -> Answer:
    judged = [row for row in run.history if row["split"] == "validation"]
    figure = f", validation {shown(judged[-1], run.model.spec)}" if judged else ""
    values = {"run": run.path, "steps": run.steps, "seconds": run.seconds, "validation": judged[-1] if judged else None}
    return Answer(values, [f"{run.path}: {run.steps:,} steps in {run.seconds:.0f} s{figure}"])


def _estimate(model: Model, data: Splits, config: TrainingConfig) -> Answer:
    """What training would take: a few steps of every stage are timed, on a copy."""
    planned = plan(model, data, config)
    epoch = max(1, len(data.train) // min(config.batch_size, len(data.train)))
    memory = peak_memory(model.anchor.device)
    seconds = sum(stage.steps * (stage.seconds or 0.0) for stage in planned)
    ends = datetime.now().astimezone() + timedelta(seconds=seconds)
    fewest = min((each.timed for each in planned if each.timed is not None), default=None)
    few = "" if fewest is None else f"of {fewest} of the {config.batch_size} examples of a batch, which take more, "
    lines = [
        *describe(model),
        *([] if memory is None else [f"{'memory':<17}{amount(memory)}, the peak while steps {few}were timed"]),
        *(f"{f'stage {stage.stage.name}':<17}{_pace(stage, epoch)}" for stage in planned),
        f"{'time':<17}{seconds / 60:.1f} minutes and what validation takes: begun now it ends at {ends:%H:%M on %d %B}",
    ]
    values = {
        "parameters": sum(parameter.numel() for parameter in model.parameters()),
        "memory_bytes": memory,
        "steps_per_epoch": epoch,
        "stages": [
            {"name": each.stage.name, "steps": each.steps, "seconds_per_step": each.seconds, "timed": each.timed}
            for each in planned
        ],
        "seconds": seconds,
        "ends": ends.isoformat(timespec="seconds"),
        "description": {line[:17].strip(): line[17:] for line in describe(model)},
    }
    return Answer(values, lines)


def _pace(planned: Planned, epoch: int) -> str:
    each = planned.seconds or 0.0
    return f"{planned.steps:,} steps of {1000 * each:.1f} ms; an epoch of {epoch:,} steps takes {epoch * each:.1f} s"


def peak_memory(device: torch.device) -> int | None:
    """Bytes that this process has held at most, on a GPU those of the GPU; None where the system does not tell."""
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device)
    if sys.platform == "win32":
        return None
    import resource  # not on Windows

    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else 1024 * peak
