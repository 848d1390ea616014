"""``fit``, ``resume`` and ``plan``: from a model and data to a run."""

from __future__ import annotations

import os
import threading
from collections.abc import Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager
from copy import deepcopy
from dataclasses import asdict, dataclass, fields, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from ancestral.data.catalogue import EMBEDDED
from ancestral.data.loading import load_data
from ancestral.data.notation import Sound, Text
from ancestral.data.source import Array
from ancestral.data.splits import Splits
from ancestral.hub import Folder, Model, construct, describe, fill, write_config
from ancestral.latent.codes import coded
from ancestral.latent.latent import Latent
from ancestral.models import nearest
from ancestral.objectives import label_context
from ancestral.sampling.strategies import likelihood_of
from ancestral.symbols import DataError
from ancestral.training.batches import VALIDATION, Stream, to_device
from ancestral.training.callbacks import CLOCKS, Average, Row, Stopwatch, shown
from ancestral.training.config import TrainingConfig
from ancestral.training.control import CHECKS, Control, information
from ancestral.training.faults import Interrupted, TrainingError
from ancestral.training.folder import CHECKPOINT, prepare, read_checkpoint
from ancestral.training.interruptions import interruptions
from ancestral.training.loop import RANK, WORLD, run_stage
from ancestral.training.session import Session
from ancestral.training.stages import VALIDATIONS, Planned, check, divided, stages_of, validate

Data = str | os.PathLike[str] | Array | Tensor | tuple[Any, Any] | Sequence[str] | Sequence[Array] | Splits
SETTINGS = [field.name for field in fields(TrainingConfig)]
HARMLESS = ["progress", "threads", "accelerator", "checkpoint_every", "tensorboard"]  # what may change when a run goes on
ENDLESS = 10**9  # steps of a stage that a stopwatch ends
SLOW = 0.5  # seconds of a step from which on it tells how long one of more examples takes
REHEARSAL = 0.04  # part of the minutes that goes into timing
JUDGING = 0.25  # part of the minutes that validations may take before there are fewer of them


@dataclass(frozen=True, repr=False)
class Run:
    """What ``fit`` did.

    Attributes:
        path: the run's folder, None where nothing was written.
        model: the model that was given, now with averaged weights, ready to evaluate.
        steps: optimiser steps of all stages.
        seconds: time by the run's clock (the wall's unless ``clock`` says cpu), timing and validation included.
        history: the rows of ``metrics.csv``, in nats an example but for ``bits_per_dim``.
    """

    path: Path | None
    model: Model
    steps: int
    seconds: float
    history: list[Row]

    def __repr__(self) -> str:
        judged = [row for row in self.history if row["split"] == "validation"]
        figure = f", validation {shown(judged[-1], self.model.spec)}" if judged else ""
        return f"Run({self.path or 'not saved'}: {self.steps:,} steps in {self.seconds:.1f} s{figure})"


def fit(
    model: Model,
    data: Data,
    out: Folder | None = None,
    minutes: float | None = None,
    seed: int | None = None,
    config: TrainingConfig | None = None,
    *,
    data_options: Mapping[str, Any] | None = None,
    start: Mapping[str, Any] | None = None,
    overwrite: bool = False,
    **overrides: Any,
) -> Run:
    """Train a model, stage by stage; with the same steps and seed it is the same run, also when stopped and resumed.

    A training set smaller than a batch makes the batch as small. Between steps nothing but the step's number decides what
    the next one sees, so the steps that ``minutes`` turned into give the same run again (up to the number of threads).
    Where gradients blow up, the run goes back to its averaged weights and on at half the learning rate, and says so.

    Args:
        model: trained in place, on its device; its configuration says in which stages.
        data: a name, path, array or ``Splits``, see ``ancestral.data.load_data``.
        out: folder for the run; None writes nothing.
        minutes: wall-clock time (5 unless ``config`` has another), which a short timing at the start turns into steps.
        seed: of everything random (0 unless ``config`` has another).
        config: all settings; single ones can be given as keywords beside it.
        data_options: more arguments of ``load_data``; they are recorded with the name or path, so that the run can resume.
        start: whose weights the model has been given, for the record: ``run``, and ``parts`` where not all of them.
        overwrite: replace a run that is in ``out``.

    Raises:
        DataError: the data do not fit the model, or lack the labels that it conditions on.
        ValueError: a setting is unknown (the nearest is named) or outside its range.
        FileExistsError, OSError: ``out`` is not empty, or cannot be written.
        TrainingError: a figure is not finite, or memory runs out (the batch that would fit is named).
        Interrupted: by Ctrl-C, after saving.

    Example:
        >>> import ancestral
        >>> data = ancestral.data("digits")
        >>> model = ancestral.build("gated-pixelcnn", data.spec, preset="tiny")
        >>> run = ancestral.fit(model, data, steps=3, batch_size=8, progress=False)
        >>> run.steps, run.history[-1]["status"]
        (3, 'exact')
    """
    given = {name: value for name, value in (("minutes", minutes), ("seed", seed)) if value is not None}
    config = _settled(config or TrainingConfig(), {**given, **overrides}, SETTINGS)
    started = CLOCKS[config.clock]()
    splits = load_data(data, **(data_options or {}))
    config = _suited(model, splits, config)
    stages = [] if config.steps is None else divided(config.steps, stages_of(model))
    folder = prepare(Path(out), model, overwrite) if out is not None and RANK == 0 else None
    with _surroundings(model, config, folder) as stop:
        config = replace(config, accelerator=model.anchor.device.type)
        _initialise(model, splits, config)
        stages = stages or _planned(model, splits, config, started, stop)
        if folder is not None:
            record = {"source": _source(data), "options": _options(data_options or {}), **splits.describe()}
            made = {"training": asdict(config), "stages": [s.to_dict() for s in stages], "data": record}
            write_config(model, folder, made if start is None else {**made, "from": dict(start)})
        return _run(Session(model, splits, config, stages, folder, stop, started))


def resume(folder: Folder, data: Data | None = None, model: Model | None = None, **overrides: Any) -> Run:
    """Go on with a run that was stopped, to where it would have ended, with the weights it would have had.

    Args:
        folder: of the run.
        data: as given to ``fit``, where that was neither a name nor a path.
        model: with fresh weights, where it was made of your own network.
        overrides: ``progress``, ``threads``, ``accelerator``, ``checkpoint_every`` or ``tensorboard``, if they should change.

    Raises:
        FileNotFoundError, LoadError: there is no such run, or its files are damaged.
        TrainingError: there is no checkpoint, or it is damaged; and what ``fit`` raises.
        DataError: the data have changed since the run began.
    """
    path = Path(folder)
    entries = describe(path)
    if "training" not in entries:
        raise TrainingError(f"{path} holds a model that was saved, not a training run, so there is nothing to resume")
    checkpoint = read_checkpoint(path)
    model = construct(path) if model is None else model
    fill(model, checkpoint["model"], path / CHECKPOINT)
    config = _settled(_settled(TrainingConfig(), entries["training"], SETTINGS), overrides, HARMLESS)
    started = CLOCKS[config.clock]()
    splits = _same_data(entries["data"], data)
    check(model, splits)
    stages = [Planned.from_dict(stage) for stage in entries["stages"]]
    with _surroundings(model, config, path) as stop:
        return _run(Session(model, splits, config, stages, path, stop, started), checkpoint)


def plan(model: Model, data: Data, config: TrainingConfig | None = None, **overrides: Any) -> list[Planned]:
    """What ``fit`` would do: the stages with their steps, and the seconds that one step of each takes here; the model stays.

    Where a step takes long, one of fewer examples is timed instead, and those of more are taken to last as many times longer.

    Raises:
        DataError, ValueError: as ``fit`` does.
    """
    config = _settled(config or TrainingConfig(), overrides, SETTINGS)
    started = CLOCKS[config.clock]()
    splits = load_data(data)
    config = _suited(model, splits, config)
    with _surroundings(model, config, None) as stop:
        return _planned(model, splits, config, started, stop, brief=True)


def _run(session: Session, checkpoint: dict[str, Any] | None = None) -> Run:
    session.model.units, session.model.notation = session.data.units, session.data.notation
    session.train(checkpoint)
    return Run(session.folder, session.model.eval(), session.total, session.seconds, session.records.rows)


def _settled(config: TrainingConfig, overrides: Mapping[str, Any], known: Collection[str]) -> TrainingConfig:
    for name in overrides:
        if name not in known and name in SETTINGS:
            longer = "; to train longer, begin another with its weights: fit(load(folder), data, steps=...)"
            fixed = f"{name}: a run that goes on keeps this setting{longer if name in ('steps', 'minutes') else ''}"
            raise ValueError(f"{fixed}; what may change is {', '.join(known)}")
        if name not in known:
            raise ValueError(f"there is no setting {name!r}; {nearest(name, list(known))}")
    return replace(config, **overrides)


def _suited(model: Model, data: Splits, config: TrainingConfig) -> TrainingConfig:
    check(model, data)
    if config.label_dropout and not model.conditional:
        raise ValueError(
            f"label_dropout is {config.label_dropout}, and the model takes no labels: build it with conditional=True, or leave"
            " label_dropout out"
        )
    if config.aggressive and not (isinstance(model, Latent) and len(data.validation)):
        raise ValueError(
            f"aggressive is {config.aggressive}: that is for models with latents, and for data with validation examples, on which"
            " it measures how much z tells; leave it out"
        )
    if config.aggressive and coded(model):
        raise ValueError(
            f"aggressive is {config.aggressive}: that is for posteriors which are charged for while they learn, and in this model"
            " x leaves no choice of z; leave it out"
        )
    config = replace(config, batch_size=min(config.batch_size, len(data.train)))
    if config.batch_size % WORLD:
        raise ValueError(f"batch_size is {config.batch_size}; {WORLD} processes share it, so it must be a multiple of that")
    if WORLD > 1 and config.steps is None:
        raise ValueError("several processes cannot agree on minutes: give steps")
    return config


@contextmanager
def _surroundings(model: Model, config: TrainingConfig, folder: Path | None) -> Iterator[threading.Event]:
    """Put the model where it trains; threads, random numbers and signals are as before when the run is over."""
    _place(model, config)
    device, threads = model.anchor.device, torch.get_num_threads()

    def at_once() -> Interrupted:
        return Interrupted("at once", folder if folder is not None and (folder / CHECKPOINT).exists() else None)

    with torch.random.fork_rng([device] if device.type == "cuda" else []), interruptions(at_once) as stop:
        try:
            torch.set_num_threads(config.threads or threads)
            yield stop
        finally:
            torch.set_num_threads(threads)


def _place(model: Model, config: TrainingConfig) -> None:
    kind = config.accelerator
    if kind == "auto":
        found = torch.accelerator.current_accelerator(check_available=True)
        kind = "cpu" if found is None else found.type
    if kind is not None and kind != model.anchor.device.type:
        try:
            model.to(kind)
        except (RuntimeError, AssertionError) as error:
            raise ValueError(f"cannot train with accelerator={kind!r} here: {error}") from error
    if config.channels_last:
        model.to(memory_format=torch.channels_last)  # type: ignore[call-overload]


def _initialise(model: Model, data: Splits, config: TrainingConfig) -> None:
    """Show the first batch to a network that sets its weights by one, which it does but once in its life."""
    initialise = getattr(likelihood_of(model).network, "initialise", None)
    if initialise is not None:
        batch = Stream(data, model.conditional, config.batch_size, config.seed, 0, 0, 1).batch(0)
        torch.manual_seed(batch.seed)  # of dropout; the surroundings put the generators back
        model.train()
        batch = to_device(batch, model.anchor.device)
        initialise(batch.x, label_context(batch.labels, model.spec, model.anchor))


def _planned(
    model: Model, data: Splits, config: TrainingConfig, started: float, stop: threading.Event, brief: bool = False
) -> list[Planned]:
    """The stages with as many steps as fit into what is left of the minutes, or as were asked for, timed on a copy.

    Args:
        brief: whether to time no long steps but those of fewer examples.
    """
    stages, timed, few = stages_of(model), list[tuple[float, float, float]](), list[int | None]()
    whole = sum(stage.share for stage in stages)
    limit = min(5.0, REHEARSAL * 60 * (config.minutes or 1.0) / len(stages))
    for index, stage in enumerate(stages):
        planned = Planned(stage, index, 0, ENDLESS)
        guess = _guessed(model, planned, data, config, stop) if brief else None
        timed.append(_timed(model, planned, data, config, limit, stop) if guess is None else guess[0])
        few.append(None if guess is None else guess[1])
    per_step = sum(stage.share / whole * step for stage, (step, _, _) in zip(stages, timed, strict=True))
    ends = sum(once + lead for _, once, lead in timed)
    another = sum(stage.share / whole * once for stage, (_, once, _) in zip(stages, timed, strict=True))
    total, times = config.steps, float(VALIDATIONS)
    if total is None:
        spare = 60 * (config.minutes or 0.0) - (CLOCKS[config.clock]() - started)
        if another and ends + times * another > JUDGING * spare and config.validate_every is None:
            times = max(0.0, JUDGING * spare - ends) / another
        total = max(len(stages), int((spare - ends - times * another) / per_step))
    found = divided(total, stages, [step for step, _, _ in timed])
    judged = [None if times == VALIDATIONS else max(1, round(times * stage.share / whole)) for stage in stages]
    return [replace(each, timed=m, judged=n) for each, m, n in zip(found, few, judged, strict=True)]


def _guessed(
    model: Model, planned: Planned, data: Splits, config: TrainingConfig, stop: threading.Event
) -> tuple[tuple[float, float, float], int] | None:
    """Seconds of a step and of a validation as those of fewer examples suggest, and how many; None where a batch is quick."""
    examples = WORLD
    while examples < config.batch_size:
        copy, watch = deepcopy(model), Stopwatch(0.0, config.clock, stop, least=2)
        run_stage(copy, planned, data, replace(config, batch_size=examples), [Average(copy, config.ema), watch])
        if watch.seconds > SLOW:
            each = watch.seconds / examples
            judged = each / 3 * min(VALIDATION, len(data.validation))  # a step also goes back, which takes twice as long
            return (each * config.batch_size, judged, 0.0), examples
        examples *= 8
    return None


def _timed(
    model: Model, planned: Planned, data: Splits, config: TrainingConfig, limit: float, stop: threading.Event
) -> tuple[float, float, float]:
    """Seconds of a step, of a validation, and of all measurements that the encoder's lead may take."""
    copy = deepcopy(model)
    average, watch = Average(copy, config.ema), Stopwatch(limit, config.clock, stop)
    run_stage(copy, planned, data, config, [average, watch])
    before = watch.clock()
    validate(average.model, planned, data, config, 0)
    once, before = watch.clock() - before, watch.clock()
    if not Control(copy, planned, data, config).aggressive:
        return watch.seconds, once, 0.0
    information(copy, data, config)
    return watch.seconds, once, CHECKS * (watch.clock() - before)


def _source(data: Data) -> str | None:
    """A name or path by which ``load_data`` finds the data again, or None."""
    if isinstance(data, Splits):
        return data.name if data.name in EMBEDDED and load_data(data.name).hash == data.hash else None
    if not isinstance(data, (str, os.PathLike)):
        return None
    name = os.fspath(data)
    return name if name in EMBEDDED or not Path(name).expanduser().exists() else str(Path(name).expanduser().resolve())


def _options(given: Mapping[str, Any]) -> dict[str, Any]:
    """Arguments of ``load_data`` as JSON has them."""
    return {name: value.to_dict() if isinstance(value, Text | Sound) else value for name, value in given.items()}


def _same_data(record: Mapping[str, Any], data: Data | None) -> Splits:
    how = "hand them over: resume(folder, data=...)"
    if data is None and record["source"] is None:
        raise TrainingError(f"the data {record['name']!r} came as an array or Splits, which the run did not keep; {how}")
    splits = load_data(record["source"], **record["options"]) if data is None else load_data(data)
    if not splits.recorded_as(record["hash"]):
        raise DataError(f"the data {splits.name!r} are not what the run began with (their hash differs); {how}")
    return splits
