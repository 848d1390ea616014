"""``evaluate``: the figures of a run, in words and as JSON, kept in its folder."""

from __future__ import annotations

from dataclasses import fields
from pathlib import Path
from typing import Any

from ancestral import evaluation
from ancestral.cli.commands import Answer, Computing, Evaluate
from ancestral.cli.keeping import keep, kept
from ancestral.cli.runs import data_of, opened, progress, said
from ancestral.cli.several import Compare
from ancestral.data.splits import Splits
from ancestral.evaluation import Evaluation
from ancestral.hub import Model

FIGURES = "evaluation.json"


def evaluate(command: Evaluate) -> Answer:
    """Measure a run, and keep the figures in its folder."""
    found = measured(command)
    return Answer({"run": command.run, **found.to_dict()}, found.lines())


def measured(command: Evaluate) -> Evaluation:
    """The figures of a run, kept in its folder where that can be."""
    model, data = opened(command, command.run), data_of(command.run, command.data, command.reading)
    found = figures(model, data, command, numerics=command.numerics, orders=command.orders)
    keep(command.run, FIGURES, found.to_dict())
    return found


def figures(model: Model, data: Splits, command: Evaluate | Compare, **options: Any) -> Evaluation:
    """What `ancestral.evaluate` finds for a command, with progress shown."""
    with progress("evaluating") as tick:
        return evaluation.evaluate(
            model,
            data,
            split=command.split,
            importance_samples=command.importance_samples,
            subset=command.subset,
            limit=command.limit,
            batch_size=command.batch_size,
            seed=command.seed,
            progress=tick,
            **options,
        )


def kept_figures(run: Path) -> Evaluation | None:
    """The figures that lie in a run's folder, where they are of its weights as they are now."""
    found = kept(run, FIGURES)
    if found is None or not all(each.name in found for each in fields(Evaluation)):
        return None  # of another version: it will be measured again
    return Evaluation(**{each.name: found[each.name] for each in fields(Evaluation)})


def weighed(found: Evaluation, k: int, subset: int) -> bool:
    """Whether figures have the importance-weighted bound of k samples on so many examples, or need none; k may be 0."""
    asked = (k or None, min(subset, found.examples))
    return found.rate is None or found.certain or (found.importance_samples, found.subset) == asked


def figures_of(command: Computing, run: Path) -> Evaluation:
    """The figures that a run has, or those of its test set if it has none."""
    found = kept_figures(run)
    if found is None:
        said(f"measuring {run}")
        found = measured(Evaluate(run=run, device=command.device, threads=command.threads))
    return found
