"""A run as it goes: stage after stage, with figures, checkpoints and a clean end whenever it is asked to stop."""

from __future__ import annotations

import threading
import time
from pathlib import Path
from typing import Any

from torch.optim import Optimizer

from ancestral.data.splits import Splits
from ancestral.files import write_whole
from ancestral.hub import Model, write_weights
from ancestral.training.callbacks import CLOCKS, Average, Records, Show, summary_writer
from ancestral.training.config import TrainingConfig
from ancestral.training.control import Control
from ancestral.training.faults import Interrupted, TrainingError
from ancestral.training.folder import TABLE, write_checkpoint
from ancestral.training.loop import RANK, Tick, run_stage
from ancestral.training.stages import VALIDATIONS, Planned, peak, validate

FEW = 10  # steps of a stage
SAVE_SECONDS = 120.0  # between checkpoints where their number of steps is not set


class Session:
    """Trains a model through its planned stages.

    Args:
        model, data, config, stages: what is trained, how, and for how many steps.
        folder: where files go; None for none.
        stop: set from outside to end the run after the step under way.
        started: what the run's clock showed when it began.
    """

    def __init__(
        self,
        model: Model,
        data: Splits,
        config: TrainingConfig,
        stages: list[Planned],
        folder: Path | None,
        stop: threading.Event,
        started: float,
    ) -> None:
        self.model, self.data, self.config, self.stages = model, data, config, stages
        self.folder, self.stop, self.started = folder if RANK == 0 else None, stop, started
        self.total = stages[-1].before + stages[-1].steps
        self.average = Average(model, config.ema)
        self.records = Records(model.spec)
        self.show = Show(stages, model.spec, config.progress and RANK == 0)
        self.saved = time.monotonic()

    @property
    def seconds(self) -> float:
        """Time that the run has taken so far, by its clock."""
        return CLOCKS[self.config.clock]() - self.started

    def train(self, checkpoint: dict[str, Any] | None = None) -> None:
        """Train to the end, from a checkpoint or from the beginning; the model then holds the averaged weights.

        Raises:
            TrainingError: a figure is not finite, or memory runs out.
            Interrupted: ``stop`` was set; everything is saved.
        """
        stage, first = (0, 0) if checkpoint is None else self._restore(checkpoint)
        if self.folder is not None and self.config.tensorboard:
            self.records.writer = summary_writer(self.folder, self.stages[stage].before + first)
        self.show.plan(self.stages)
        if self.config.steps is None and self.total < FEW * len(self.stages):
            self.show.say("the minutes leave very few steps: give more of them, or take smaller batches (--batch-size)")
        try:
            with self.show.bar:
                for planned in self.stages[stage:]:
                    self._stage(planned, first, checkpoint)
                    first, checkpoint = 0, None
        except TrainingError as error:
            kept = "" if self.folder is None else f"; the last good checkpoint is kept in {self.folder}"
            raise TrainingError(f"{error}{kept}", error.rows) from error
        finally:
            if self.records.writer is not None:
                self.records.writer.close()
        self.model.load_state_dict(self.average.model.state_dict())

    def _stage(self, planned: Planned, first: int, checkpoint: dict[str, Any] | None) -> None:
        if first == 0:
            if planned.index:  # what a stage leaves to the next are its averaged weights
                self.average.hand_back()
            self.average.restart()
        if first == planned.steps:
            return
        self.control, state = Control(self.model, planned, self.data, self.config), None
        if checkpoint is not None:
            if "control" in checkpoint:  # as all have that were written since there is such a thing
                self.control.restore(checkpoint["control"])
            state = checkpoint["optimiser"]
        if planned.index == first == 0:
            self._save(planned, 0, None)

        def after(tick: Tick) -> None:
            self._after(planned, tick)

        run_stage(self.model, planned, self.data, self.config, [self.average, after], first, state, self.control)

    def _after(self, planned: Planned, tick: Tick) -> None:
        step, last = tick.step, tick.step == planned.steps
        self.records.add(tick.terms)
        if tick.blown:
            self._slow(planned, tick)
        if self.control.measure(step) and RANK == 0:
            self.show.say(f"step {planned.before + step:,}: what z tells no longer rises; all weights train together from here")
        if RANK == 0:
            self.show.step(planned, tick)
        if self._moment(planned, step, self.config.log_every, self._times(planned, 100)):
            self.records.flush(planned, step, self.seconds, self.control.pace.factor)
        if self._moment(planned, step, self.config.validate_every, planned.judged or self._times(planned, VALIDATIONS)):
            self._validate(planned, step)
        stopping = self.stop.is_set() and not (last and planned is self.stages[-1])
        if last or stopping or self._due(step):
            self._save(planned, step, tick.optimiser)
        if stopping:
            raise Interrupted(f"after step {planned.before + step:,} of {self.total:,}", self.folder)

    def _slow(self, planned: Planned, tick: Tick) -> None:
        """Go back to the averaged weights, and to buffers from before, with no momentum, and on at half the rate.

        Raises:
            TrainingError: that has been of no use before.
        """
        self.control.pace.slow()
        if self.control.pace.spent:
            raise TrainingError(
                f"{planned.place(tick.step)}: gradients blow up however low the learning rate; it may be the data, or how the"
                " model starts"
            )
        self.average.rescue()
        for state in tick.optimiser.state.values():
            state["exp_avg"].zero_()
        if RANK == 0:
            self.show.say(
                f"step {planned.before + tick.step:,}: gradients blow up; training goes back to the averaged weights, and on at"
                f" {self.control.pace.factor:g} of its learning rate: one below {peak(self.config, planned):g} may be"
                " better from the start"
            )

    def _moment(self, planned: Planned, step: int, every: int | None, times: int) -> bool:
        """Whether a step is the last of its stage, or one of every so many, or of so many in the stage."""
        if every is not None:
            return step % every == 0 or step == planned.steps
        return step * times // planned.steps > (step - 1) * times // planned.steps

    def _times(self, planned: Planned, times: int) -> int:
        """How many of so many times a run fall into a stage."""
        return max(1, round(times * planned.steps / self.total))

    def _due(self, step: int) -> bool:
        if self.config.checkpoint_every is not None:
            return step % self.config.checkpoint_every == 0
        return time.monotonic() - self.saved > SAVE_SECONDS

    def _validate(self, planned: Planned, step: int) -> None:
        if RANK == 0 and len(self.data.validation):
            terms = validate(self.average.model, planned, self.data, self.config, step, self.control.gamma)
            row = self.records.note(planned, step, "validation", terms, self.seconds)
            self.show.line(row)
            if best := self.records.lost(row):
                self.show.say(
                    f"far worse than at step {best['step']:,}, as if training had diverged: a learning_rate below"
                    f" {peak(self.config, planned):g} may help"
                )

    def _save(self, planned: Planned, step: int, optimiser: Optimizer | None) -> None:
        self.saved = time.monotonic()
        if self.folder is None:
            return
        state = {
            "stage": planned.index,
            "step": step,
            "seconds": self.seconds,
            "model": self.model.state_dict(),
            "average": self.average.model.state_dict(),
            "kept": self.average.kept,
            "optimiser": None if optimiser is None else optimiser.state_dict(),
            "control": self.control.state(),
            "rows": self.records.rows,
            "sums": self.records.sums,
            "count": self.records.count,
        }
        write_weights(self.average.model, self.folder)
        write_whole(self.folder / TABLE, self.records.table())
        write_checkpoint(self.folder, state)

    def _restore(self, state: dict[str, Any]) -> tuple[int, int]:
        self.model.load_state_dict(state["model"])
        self.average.model.load_state_dict(state["average"])
        self.average.kept = state.get("kept") or [self.average.copies()] * 2  # of runs from before there were copies
        device = self.model.anchor.device
        self.records.rows, self.records.count = state["rows"], state["count"]
        self.records.sums = {name: value.to(device) for name, value in state["sums"].items()}
        self.started -= state["seconds"]
        return state["stage"], state["step"]
