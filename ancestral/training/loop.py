"""One stage through Lightning's loop: the only file that knows Lightning."""

from __future__ import annotations

import logging
import os
import signal
import threading
import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import Any

import torch
from lightning.fabric.plugins.environments.lightning import LightningEnvironment
from lightning.fabric.utilities.warnings import PossibleUserWarning
from lightning.pytorch import LightningModule, Trainer
from lightning.pytorch.callbacks import Callback
from torch import Tensor
from torch.optim import Optimizer

from ancestral.data.features import mel_of
from ancestral.data.splits import Splits
from ancestral.hub import Model
from ancestral.objectives import Batch, Terms
from ancestral.training.batches import Stream, to_device
from ancestral.training.config import TrainingConfig
from ancestral.training.control import Control
from ancestral.training.faults import TrainingError
from ancestral.training.stages import Planned, optimiser, rate, terms_of, training_only

# torchrun starts the processes of a distributed run and tells them so; without it there is one.
LAUNCHED = torch.distributed.is_torchelastic_launched()
RANK, WORLD, LOCAL_WORLD = (
    int(os.environ[name]) if LAUNCHED else alone for name, alone in (("RANK", 0), ("WORLD_SIZE", 1), ("LOCAL_WORLD_SIZE", 1))
)


@dataclass(frozen=True)
class Tick:
    """A step that has just been taken.

    Attributes:
        step: steps of the stage so far.
        terms: what the objective gave, detached, in nats an example.
        optimiser: as it is now.
        blown: whether it was not taken after all, because gradients blow up; see `ancestral.training.pace.Pace`.
    """

    step: int
    terms: Terms
    optimiser: Optimizer
    blown: bool = False


Listener = Callable[[Tick], bool | None]  # called after every step; True ends the stage


def run_stage(
    model: Model,
    planned: Planned,
    data: Splits,
    config: TrainingConfig,
    listeners: Sequence[Listener] = (),
    first: int = 0,
    state: dict[str, Any] | None = None,
    control: Control | None = None,
) -> None:
    """Train the stage's parts of a model from step ``first`` on, the optimiser starting from ``state``.

    ``control`` has what was learned in the steps before, a fresh one where it is None.

    Raises:
        TrainingError: a loss or gradient is not finite, or memory runs out.
    """
    cut = (config.batch_size, config.seed, planned.index, first, planned.steps, RANK, WORLD)
    features = mel_of(model.config, data.notation)
    stream = Stream(data, model.conditional, *cut, label_dropout=config.label_dropout, features=features)
    device, control = model.anchor.device, control or Control(model, planned, data, config)
    with training_only(model, planned.stage.parts), _quiet():
        trainer = Trainer(
            accelerator=device.type,
            devices=LOCAL_WORLD if WORLD > 1 else [device.index or 0] if device.type == "cuda" else 1,
            num_nodes=WORLD // LOCAL_WORLD,
            plugins=[LightningEnvironment()] if WORLD == 1 else None,  # one process, also where a cluster offers more
            strategy="ddp_find_unused_parameters_true" if WORLD > 1 else "auto",
            precision="bf16-mixed" if config.precision == "bf16" else "32-true",
            callbacks=[_Notify(listeners)],
            max_epochs=1,  # the stream is one long epoch
            num_sanity_val_steps=0,
            logger=False,
            enable_checkpointing=False,
            enable_progress_bar=False,
            enable_model_summary=False,
            use_distributed_sampler=False,
        )
        short = False
        try:
            trainer.fit(_Adapter(model.train(), planned, config, stream, state, control), stream)
        except RuntimeError as error:
            short = _out_of_memory(error)
            if not short:
                raise
        finally:
            model.to(device)  # Lightning leaves it on the CPU
        if short:  # only here has the error let go of the memory it kept
            raise TrainingError(_smaller(model, planned, stream))


class _Adapter(LightningModule):
    """What Lightning asks about a stage."""

    def __init__(
        self,
        model: Model,
        planned: Planned,
        config: TrainingConfig,
        stream: Stream,
        state: dict[str, Any] | None,
        control: Control,
    ) -> None:
        super().__init__()
        self.model, self.planned, self.config, self.stream, self.state = model, planned, config, stream, state
        self.control, self.blown = control, False

    def configure_optimizers(self) -> Optimizer:
        made = optimiser(self.model, self.config)
        if self.state is not None:
            made.load_state_dict(self.state)
        return made

    def transfer_batch_to_device(self, batch: Batch, device: torch.device, dataloader_idx: int) -> Batch:
        return to_device(batch, device)

    def on_train_batch_start(self, batch: Batch, batch_idx: int) -> None:
        self.step = batch.step
        _seed(batch.seed, self.device)
        for group in self.trainer.optimizers[0].param_groups:
            group["lr"] = self.control.pace.factor * rate(self.config, self.planned, batch.step)

    def training_step(self, batch: Batch, batch_idx: int) -> Terms:
        terms = terms_of(self.model, self.planned, batch, self.control.gamma)
        self.symbols = max(1.0, self._mean(terms["symbols"])) if "symbols" in terms else self.model.spec.sites
        if not torch.isfinite(terms["loss"]):
            values = {name: float(value.detach()) for name, value in terms.items() if not torch.isfinite(value)}
            raise self._fault(" and ".join(f"{name} is {value}" for name, value in values.items()))
        if self.control.target and "rate" in terms:
            self.control.charge(self._mean(terms["rate"]))
        return terms

    def configure_gradient_clipping(self, optimizer: Optimizer, *_: Any, **__: Any) -> None:
        parameters = [parameter for group in optimizer.param_groups for parameter in group["params"]]
        norm = torch.nn.utils.get_total_norm(parameter.grad for parameter in parameters if parameter.grad is not None)
        if not torch.isfinite(norm):
            gradients = ((name, parameter.grad) for name, parameter in self.model.named_parameters())
            name = next(
                (name for name, grad in gradients if grad is not None and not grad.isfinite().all()), "all parts together"
            )
            raise self._fault(f"the gradient of {name} is not finite")
        self.blown = self.control.pace.blown(float(norm))
        if self.blown:
            optimizer.zero_grad()  # without gradients it passes over all parameters
            return
        if self.control.aggressive:  # what is usual was told by all gradients, whichever weights rest
            for parameter in parameters:
                if self.control.rests(parameter, self.step):
                    parameter.grad = None
            norm = torch.nn.utils.get_total_norm(parameter.grad for parameter in parameters if parameter.grad is not None)
        torch.nn.utils.clip_grads_with_norm_(parameters, self.config.clip * self.symbols, norm)

    def _mean(self, value: Tensor) -> float:
        """The mean over all processes, which must clip alike to stay alike."""
        return float(self.trainer.strategy.reduce(value.detach(), reduce_op="mean"))

    def _fault(self, what: str) -> TrainingError:
        rows = self.stream.rows(self.step)
        some = ", ".join(map(str, rows[:8])) + (", ..." if len(rows) > 8 else "")
        remedy = "a lower learning_rate or clip may help; so may a look at these examples"
        if self.model.spec.density and self.stream.data.units is None:
            size = float(self.stream.data.train.x[rows].abs().max())
            remedy = f"their values reach {size:.4g} in size: standardise the data (--standardize, standardize=True), or {remedy}"
        return TrainingError(
            f"{self.planned.place(self.step + 1)}: {what}; the batch holds training examples {some}; {remedy}", rows
        )


class _Notify(Callback):
    def __init__(self, listeners: Sequence[Listener]) -> None:
        self.listeners = listeners
        self.terminate = signal.getsignal(signal.SIGTERM) or signal.SIG_DFL

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        if threading.current_thread() is threading.main_thread():  # Lightning's handler would end the run before it is saved
            signal.signal(signal.SIGTERM, self.terminate)

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Batch, batch_idx: int
    ) -> None:
        terms = {name: value.detach() for name, value in outputs.items()}
        tick = Tick(batch.step + 1, terms, trainer.optimizers[0], bool(pl_module.blown))
        for listener in self.listeners:
            trainer.should_stop |= listener(tick) is True


def _seed(seed: int, device: torch.device) -> None:
    """Seed what draws from torch's own generators; ``torch.manual_seed`` would take a millisecond to ask after every device."""
    torch.default_generator.manual_seed(seed)
    if device.type == "cuda":
        torch.cuda.manual_seed(seed)


def _out_of_memory(error: RuntimeError) -> bool:
    words = ("not enough memory", "DefaultCPUAllocator")
    return isinstance(error, torch.OutOfMemoryError) or any(word in str(error) for word in words)


def _smaller(model: Model, planned: Planned, stream: Stream) -> str:
    """What to do when a batch is too large: the half, quarter, ... is tried until it fits."""
    device, size = model.anchor.device, stream.batch_size // 2
    while size:
        try:
            batch = to_device(replace(stream, batch_size=size).batch(0), device)
            terms_of(model, planned, batch)["loss"].backward()  # type: ignore[no-untyped-call]
            break
        except RuntimeError as error:
            if not _out_of_memory(error):
                raise
            size //= 2
        finally:
            model.zero_grad()
    remedy = f"{size} fits: set batch_size={size}" if size else "not even one example fits: choose a smaller model"
    return f"stage {planned.stage.name!r} runs out of memory with batch_size={stream.batch_size}; {remedy}"


@contextmanager
def _quiet() -> Iterator[None]:
    """Lightning's advice is for those who write its loops; the user of ours can do nothing about it."""
    loggers = [logging.getLogger(name) for name in ("lightning.pytorch", "lightning.fabric")]
    levels = [logger.level for logger in loggers]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", PossibleUserWarning)
        warnings.filterwarnings("ignore", ".*LeafSpec.*", FutureWarning)
        try:
            for logger in loggers:
                logger.setLevel(logging.ERROR)
            yield
        finally:
            for logger, level in zip(loggers, levels, strict=True):
                logger.setLevel(level)
