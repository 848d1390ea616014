"""The commands that make a run and its report again, read off the run's configuration."""

from __future__ import annotations

import shlex
from collections.abc import Mapping
from dataclasses import asdict
from inspect import signature
from pathlib import Path
from typing import Any

from ancestral.evaluation import Evaluation, evaluate
from ancestral.models import MODELS, configure
from ancestral.training.config import TrainingConfig

READING = (
    "size",
    "resize",
    "levels",
    "binarize",
    "limit",
    "leave_out",
    "grey",
    "columns",
    "dequantize",
    "standardize",
    *("notation", "vocabulary", "length", "pieces", "rate", "label_from"),
)  # what the command line knows of reading data
PLACES = ("progress", "threads", "accelerator", "checkpoint_every", "tensorboard", "log_every")  # where and how it ran, not what


def commands(folder: Path, config: Mapping[str, Any], evaluation: Evaluation | None = None) -> list[str]:
    """Those that train and report, and between them what measures in another way than `report` does by itself.

    None where the model or the data came from Python, so that no command knows them.

    The number of steps stands in place of the minutes, because it gives the same run on another machine too.
    """
    data = config.get("data") or {}
    reading = {name: value for name, value in (data.get("options") or {}).items() if value is not None}
    if reading.get("channels") == 1:
        reading = {**{name: value for name, value in reading.items() if name != "channels"}, "grey": True}
    known = config["model"] in MODELS and config.get("stages") and data.get("source") and reading.keys() <= set(READING)
    if not known:
        return []
    out = shlex.quote(str(folder))
    made = [*options(settings(config["model"], config["config"])), *options(training(config))]
    start = config.get("from") or {}
    before = options({"data": data["source"], "from": start.get("run"), "parts": start.get("parts") or None})
    words = ["ancestral train", config["model"], *before, f"--out {out}", *options(reading), *made]
    measured = []
    if evaluation is not None and on_its_own_data(config, evaluation.data):
        measured = options(_measured(evaluation))
    return [
        " ".join(words),
        *([" ".join([f"ancestral evaluate {out}", *measured])] if measured else []),
        f"ancestral report {out}",
    ]


def _measured(evaluation: Evaluation) -> dict[str, Any]:
    """The arguments of ``evaluate`` that were not the usual ones."""
    usual = {name: argument.default for name, argument in signature(evaluate).parameters.items()}
    subset = evaluation.subset or evaluation.exact_examples
    whole = not subset or subset == min(usual["subset"], evaluation.examples)
    without = evaluation.rate is not None and not evaluation.certain and evaluation.importance_samples is None
    asked = {
        "split": evaluation.data["split"],
        "limit": evaluation.examples if evaluation.examples < evaluation.data["available"] else None,
        "importance_samples": 0 if without else evaluation.importance_samples or usual["importance_samples"],
        "subset": usual["subset"] if whole else subset,
        "seed": evaluation.seed,
        "numerics": "float" if evaluation.exact_nats is None else "exact",
        "orders": evaluation.orders,
    }
    return {name: value for name, value in asked.items() if value != usual[name]}


def on_its_own_data(config: Mapping[str, Any], judged: Mapping[str, Any]) -> bool:
    """Whether the ``data`` of an evaluation are those that a run was trained on, or nothing is known of these."""
    return (config.get("data") or {}).get("hash") in (None, judged["hash"], judged.get("content"))


def settings(model: str, config: Mapping[str, Any]) -> dict[str, Any]:
    """The preset that is nearest to a configuration, unless that is ``small``, and what differs from it."""
    presets = {name: asdict(configure(model, name)) for name in MODELS[model].config.presets}
    changes = {name: {key: value for key, value in config.items() if preset[key] != value} for name, preset in presets.items()}
    nearest = min(changes, key=lambda name: (len(changes[name]), name != "small"))
    return {**({} if nearest == "small" else {"preset": nearest}), **changes[nearest]}


def training(config: Mapping[str, Any]) -> dict[str, Any]:
    """The steps and the seed of a run, and the settings of its training that are not the usual ones."""
    usual = asdict(TrainingConfig())
    changed = {name: value for name, value in config["training"].items() if name not in PLACES and usual.get(name) != value}
    steps = sum(stage["steps"] for stage in config["stages"])
    return {**changed, "minutes": None, "steps": steps, "seed": config["training"]["seed"]}


def options(values: Mapping[str, Any]) -> list[str]:
    """Settings as the command line takes them, those that are None left out.

    Example:
        >>> options({"first_kernel": 3, "lambda_": 2.0, "auxiliary": False, "minutes": None})
        ['--first-kernel 3', '--lambda 2.0', '--no-auxiliary']
    """
    written = []
    for name, value in values.items():
        flag = name.rstrip("_").replace("_", "-")
        if isinstance(value, bool):
            written.append(f"--{flag}" if value else f"--no-{flag}")
        elif isinstance(value, list | tuple):
            written.append(" ".join([f"--{flag}", *("-" if each is None else str(each) for each in value)]))
        elif value is not None:
            written.append(f"--{flag} {shlex.quote(str(value))}")
    return written
