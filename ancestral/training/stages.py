"""The stages of a run: which there are, how many steps each has, what trains in it, and how fast."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from math import cos, log, pi
from typing import Any

import torch
from torch.optim import Optimizer

from ancestral.data.features import mel_of
from ancestral.data.splits import Splits
from ancestral.hub import Model, parts_of
from ancestral.latent.latent import Latent
from ancestral.models import nearest
from ancestral.objectives import OBJECTIVES, Batch, Terms
from ancestral.spec import DataSpec, Stage
from ancestral.symbols import DataError, lengths
from ancestral.training.batches import to_device, validation_batches
from ancestral.training.config import TrainingConfig

VALIDATIONS = 10  # in a run, where nothing is said


@dataclass(frozen=True)
class Planned:
    """A stage of a run that knows its place.

    Attributes:
        stage: what trains and how.
        index: its number, from 0.
        before: steps of the run that come before it.
        steps: its own steps.
        seconds: what one step took when it was timed, None where it was not.
        timed: with how many examples, where those were fewer than a batch and the seconds were reckoned from theirs.
        judged: how often it is validated, where that takes too much of the minutes to be as often as usual.
    """

    stage: Stage
    index: int
    before: int
    steps: int
    seconds: float | None = None
    timed: int | None = None
    judged: int | None = None

    def place(self, step: int) -> str:
        """Where a step of the stage is, in words."""
        return f"stage {self.stage.name!r}, step {step} of {self.steps}"

    def to_dict(self) -> dict[str, Any]:
        """The fields as JSON has them; the inverse of ``from_dict``."""
        stage = {**vars(self.stage), "options": dict(self.stage.options), "parts": list(self.stage.parts)}
        return {**vars(self), "stage": stage}

    @classmethod
    def from_dict(cls, fields: dict[str, Any]) -> Planned:
        """The stage that ``to_dict`` wrote."""
        stage = Stage(**{**fields["stage"], "parts": tuple(fields["stage"]["parts"])})
        return cls(**{**fields, "stage": stage})


def stages_of(model: Model) -> tuple[Stage, ...]:
    """The stages of a model's configuration; of your own network, its likelihood or bound all of the way.

    Raises:
        ValueError: an objective or a part that does not exist, or no share of the steps.
    """
    alone = Stage("elbo", "elbo") if isinstance(model, Latent) else Stage("likelihood", "nll")
    stages: tuple[Stage, ...] = (alone,) if model.config is None else model.config.stages
    parts = parts_of(model)
    for stage in stages:
        if stage.objective not in OBJECTIVES:
            raise ValueError(
                f"stage {stage.name!r}: no objective {stage.objective!r}; {nearest(stage.objective, list(OBJECTIVES))}"
            )
        for part in stage.parts:
            if part not in parts:
                raise ValueError(f"stage {stage.name!r}: the model has no part {part!r}; {nearest(part, parts)}")
        if not stage.share > 0:
            raise ValueError(f"stage {stage.name!r} has share {stage.share} of the steps; it must be above 0")
    return stages


def divided(total: int, stages: Sequence[Stage], seconds: Sequence[float] | None = None) -> list[Planned]:
    """All steps shared out over the stages, each at its share to the nearest step and at least one; ``seconds`` of theirs.

    Raises:
        ValueError: there are fewer steps than stages.
    """
    if total < len(stages):
        raise ValueError(f"steps is {total}; the model trains in {len(stages)} stages, each of which needs at least one")
    whole, planned, share, start = sum(stage.share for stage in stages), list[Planned](), 0.0, 0
    for index, stage in enumerate(stages):
        share += stage.share
        end = min(max(round(total * share / whole), start + 1), total - (len(stages) - 1 - index))
        planned.append(Planned(stage, index, start, end - start, None if seconds is None else seconds[index]))
        start = end
    return planned


@contextmanager
def training_only(model: Model, parts: Sequence[str]) -> Iterator[None]:
    """Within the context only these parts of the model have gradients; what was frozen before stays so."""
    free = [parameter for parameter in model.parameters() if parameter.requires_grad]
    chosen = {id(p) for part in parts for p in model.get_submodule(part).parameters()}
    try:
        for parameter in free:
            parameter.requires_grad_(not parts or id(parameter) in chosen)
        yield
    finally:
        for parameter in free:
            parameter.requires_grad_(True)


def optimiser(model: Model, config: TrainingConfig) -> Optimizer:
    """A fresh optimiser of all parameters that have gradients (Adamax and Adam: Kingma & Ba 2015).

    Raises:
        ValueError: there are none.
    """
    parameters = [parameter for parameter in model.parameters() if parameter.requires_grad]
    if not parameters:
        raise ValueError("nothing in this stage has gradients: every parameter is frozen")
    if config.optimiser == "adamax":
        return torch.optim.Adamax(parameters, lr=config.learning_rate)
    fused = parameters[0].device.type in ("cpu", "cuda")  # three times as fast on a CPU
    return torch.optim.Adam(parameters, lr=config.learning_rate, fused=fused)


def peak(config: TrainingConfig, planned: Planned) -> float:
    """The largest learning rate of a stage."""
    return planned.stage.learning_rate or config.learning_rate


def rate(config: TrainingConfig, planned: Planned, step: int) -> float:
    """The learning rate of a step of a stage: it rises over the warm-up, and falls to zero at the end."""
    warmup = min(config.warmup, planned.steps // 10)
    done = step / planned.steps
    falling = {"none": 1.0, "linear": 1 - done, "cosine": (1 + cos(pi * done)) / 2}[config.decay]
    return peak(config, planned) * falling * min(1.0, (step + 1) / (warmup + 1))


def check(model: Model, data: Splits) -> None:
    """Raise ``DataError`` where data do not suit a model: other shape or alphabet, no labels, no examples."""
    names = ["kind", "shape", "levels", "columns", "end", "parts", *(["classes"] if model.conditional else [])]
    ours, theirs = ({name: getattr(spec, name) for name in names} for spec in (model.spec, data.spec))
    different = [f"{name} is {theirs[name]} where the model has {ours[name]}" for name in names if ours[name] != theirs[name]]
    if different:
        fewer = not data.spec.sequence and (data.spec.levels or 0) > (model.spec.levels or data.spec.levels or 0)
        hint = f"; data_options={{'levels': {model.spec.levels}}} reads them so" if fewer else ""
        raise DataError(f"the data {data.name!r} do not fit the model: {'; '.join(different)}{hint}")
    if len(data.train) == 0:
        raise DataError(f"the data {data.name!r} have no training examples")
    if model.conditional and any(some.labels is None for some in (data.train, data.validation) if len(some)):
        raise DataError(
            f"the model is conditional, and the data {data.name!r} have no labels: build it with conditional=False, or say"
            " what classes the files of a folder have (label_from, --label-from)"
        )


def bits_per_dim(terms: Mapping[str, float], spec: DataSpec) -> tuple[float, str] | None:
    """The bits/dim of x that an objective's terms amount to, with their status; None where they are not of x.

    Where lengths vary, ``terms`` have the mean number of symbols: bits are paid for the end of an example, which is not counted.
    """
    if "nll" in terms:
        nats, status = terms["nll"], "exact"
    elif "distortion" in terms and "rate" in terms:
        nats, status = terms["distortion"] + terms["rate"], "bound"  # the rate at weight 1, whatever it has in training
    elif "iwae" in terms:
        nats, status = terms["iwae"], "bound"
    elif found := terms.keys() & {"orderless", "shuffled"}:
        nats, status = terms[found.pop()], "approximate"  # a mean over orders that its own estimate scatters around
    else:
        return None
    return nats / ((spec.sites if spec.end is None else max(terms["symbols"], 1.0)) * log(2)), status


def terms_of(model: Model, planned: Planned, batch: Batch, gamma: float = 1.0) -> Terms:
    """What a stage's objective gives for a batch, and where lengths vary ``symbols``, the mean number of them in an example."""
    batch = replace(batch, steps=planned.steps, gamma=gamma)
    terms = OBJECTIVES[planned.stage.objective](model, batch, **planned.stage.options)
    if model.spec.end is None:
        return terms
    return {**terms, "symbols": lengths(batch.x, model.spec).to(terms["loss"].dtype).mean()}


@torch.no_grad()
def validate(
    model: Model, planned: Planned, data: Splits, config: TrainingConfig, step: int, gamma: float = 1.0
) -> dict[str, float]:
    """The terms of a stage's objective on the validation subset, in nats an example: sums over sums."""
    sums, count, device = dict[str, float](), 0, model.anchor.device
    features = mel_of(model.config, data.notation)
    for batch in validation_batches(data, model.conditional, config.batch_size, config.seed, step, features):
        terms = terms_of(model, planned, to_device(batch, device), gamma)
        count += len(batch.x)
        for name, value in terms.items():
            sums[name] = sums.get(name, 0.0) + float(value) * len(batch.x)
    return {name: total / count for name, total in sums.items()}
