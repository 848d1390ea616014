"""``evaluate``: the figures of a run, in words and as JSON, kept in its folder."""

from __future__ import annotations

import hashlib
import json
from dataclasses import fields
from pathlib import Path

from ancestral import evaluation
from ancestral.cli.commands import Answer, Computing, Evaluate
from ancestral.cli.runs import data_of, opened, progress, said
from ancestral.evaluation import Evaluation
from ancestral.files import write_whole
from ancestral.hub import WEIGHTS

FIGURES = "evaluation.json"


def evaluate(command: Evaluate) -> Answer:
    """Measure a run, and keep the figures in its folder."""
    found = measured(command)
    return Answer({"run": command.run, **found.to_dict()}, found.lines())


def measured(command: Evaluate) -> Evaluation:
    """The figures of a run, kept in its folder, where that can be, with the hash of the weights that they belong to."""
    model, data = opened(command, command.run), data_of(command.run, command.data, command.reading)
    with progress("evaluating") as tick:
        found = evaluation.evaluate(
            model,
            data,
            split=command.split,
            importance_samples=command.importance_samples,
            subset=command.subset,
            limit=command.limit,
            batch_size=command.batch_size,
            seed=command.seed,
            numerics=command.numerics,
            orders=command.orders,
            progress=tick,
        )
    content = {"weights": weights_of(command.run), **found.to_dict()}
    try:
        write_whole(command.run / FIGURES, json.dumps(content, indent=2, ensure_ascii=False).encode())
    except OSError as error:
        said(f"note: the figures are not kept in {command.run} ({error.strerror})")
    return found


def kept_figures(run: Path) -> Evaluation | None:
    """The figures that lie in a run's folder, where they are of its weights as they are now."""
    path = run / FIGURES
    if not path.exists():
        return None
    try:
        kept = json.loads(path.read_text(encoding="utf-8"))
        found = Evaluation(**{each.name: kept[each.name] for each in fields(Evaluation)})
        return found if kept["weights"] == weights_of(run) else None
    except (ValueError, KeyError, TypeError):
        return None  # damaged, or of another version: it will be measured again


def figures_of(command: Computing, run: Path) -> Evaluation:
    """The figures that a run has, or those of its test set if it has none."""
    found = kept_figures(run)
    if found is None:
        said(f"measuring {run}")
        found = measured(Evaluate(run=run, device=command.device, threads=command.threads))
    return found


def weights_of(run: Path) -> str:
    """SHA-256 of a run's weights, in hexadecimal; empty where there are none."""
    path = run / WEIGHTS
    return hashlib.sha256(path.read_bytes()).hexdigest() if path.exists() else ""
