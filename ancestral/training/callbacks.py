"""What listens to the steps of a run: the averaged weights, the table of figures, the progress bar."""

from __future__ import annotations

import csv
import io
import threading
import time
from collections.abc import Mapping, Sequence
from copy import deepcopy
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TimeRemainingColumn
from torch import Tensor

from ancestral.hub import Model
from ancestral.objectives import Terms
from ancestral.spec import DataSpec
from ancestral.training.faults import Interrupted
from ancestral.training.loop import Tick
from ancestral.training.stages import Planned, bits_per_dim

if TYPE_CHECKING:
    from torch.utils.tensorboard import SummaryWriter

Row = dict[str, Any]
APART = 50  # steps between copies of the buffers: of two the older one is from before gradients began to blow up
CLOCKS = {"wall": time.monotonic, "cpu": time.process_time}


class Average:
    """A second model whose weights are the exponential moving average of those of a stage so far.

    w' <- d w' + (1 - d) w after step t = 1, 2, ... of the stage, with d = min(decay, (1 + t) / (10 + t)): early on the
    average is short, so that it forgets where the stage began. Buffers that are learned, such as a codebook, are averages by
    themselves, and outputs that blow up spoil them in one step: of those there are copies, the older of them 50 to 99 steps old.

    Attributes:
        kept: the two copies.
    """

    def __init__(self, model: Model, decay: float) -> None:
        self.source, self.decay = model, decay
        self._model = deepcopy(model).requires_grad_(False).eval()
        self._mine: list[Tensor] = list(self._model.parameters())
        self._theirs: list[Tensor] = list(model.parameters())
        saved = model.state_dict()
        self._learned = [name for name, _ in model.named_buffers() if name in saved]
        self.kept = [self.copies()] * 2

    @property
    def model(self) -> Model:
        """The averaged model; buffers are those of the source."""
        for kept, buffer in zip(self._model.buffers(), self.source.buffers(), strict=True):
            kept.copy_(buffer)
        return self._model

    def restart(self) -> None:
        """Take the weights as they are, and average from here."""
        self._model.load_state_dict(self.source.state_dict())
        self.kept = [self.copies()] * 2

    @torch.no_grad()
    def hand_back(self) -> None:
        """Make it the weights of the source."""
        torch._foreach_copy_(self._theirs, self._mine)

    @torch.no_grad()
    def rescue(self) -> None:
        """Make the source what it was before gradients blew up: with these weights, and the older copy of its buffers."""
        self.hand_back()
        self.kept = self.kept[:1] * 2
        for name, value in self._buffers().items():
            value.copy_(self.kept[0][name])

    def _buffers(self) -> dict[str, Tensor]:
        """Those that are learned; another device makes them other tensors."""
        own = dict(self.source.named_buffers())
        return {name: own[name] for name in self._learned}

    def copies(self) -> dict[str, Tensor]:
        """The learned buffers as they are now."""
        return {name: value.clone() for name, value in self._buffers().items()}

    @torch.no_grad()
    def __call__(self, tick: Tick) -> None:
        decay = min(self.decay, (1 + tick.step) / (10 + tick.step))
        torch._foreach_lerp_(self._mine, self._theirs, 1 - decay)  # what is frozen is equal in both, and stays so
        if tick.step % APART == 0:
            self.kept = [self.kept[1], self.copies()]


class Records:
    """The figures of a run, a row each, in nats an example but for ``bits_per_dim``.

    Training rows are means since the row before, so that a curve of them is smooth.
    """

    def __init__(self, spec: DataSpec, writer: SummaryWriter | None = None) -> None:
        self.spec, self.writer = spec, writer
        self.rows: list[Row] = []
        self.sums: Terms = {}
        self.count = 0

    def add(self, terms: Terms) -> None:
        """Count a training step in."""
        for name, value in terms.items():
            self.sums[name] = self.sums[name] + value if name in self.sums else value.clone()
        self.count += 1

    def flush(self, planned: Planned, step: int, seconds: float, pace: float = 1.0) -> None:
        """Make a training row of the steps that were added; it has the pace where the stage has slowed down, see `Pace`."""
        means = {name: float(total) / self.count for name, total in self.sums.items()}
        means |= {} if pace == 1 else {"pace": pace}
        self.sums, self.count = {}, 0
        self.note(planned, step, "train", means, seconds)

    def note(self, planned: Planned, step: int, split: str, terms: dict[str, float], seconds: float) -> Row:
        """Add a row, and return it; ``step`` counts within the stage, the row's within the run."""
        bits, status = bits_per_dim(terms, self.spec) or (None, None)
        place = {"step": planned.before + step, "stage": planned.stage.name, "split": split}
        self.rows.append({**place, **terms, "bits_per_dim": bits, "status": status, "seconds": round(seconds, 3)})
        if self.writer is not None:
            for name, value in {**terms, "bits_per_dim": bits}.items():
                if value is not None:
                    self.writer.add_scalar(f"{split}/{name}", value, place["step"])
        return self.rows[-1]

    def lost(self, row: Row) -> Row | None:
        """The best row before this one of its stage and split, if this one is far worse, as after an optimiser's step too far."""
        same = ("stage", "split")
        before = [each for each in self.rows if all(each[name] == row[name] for name in same) and each["step"] < row["step"]]
        before = [each for each in before if each["bits_per_dim"] is not None]
        if not before or row["bits_per_dim"] is None:
            return None
        best = min(before, key=lambda each: float(each["bits_per_dim"]))
        most = abs(best["bits_per_dim"]) / 2 + self.spec.density  # which may be about 0
        return best if row["bits_per_dim"] - best["bits_per_dim"] > most else None

    def table(self) -> bytes:
        """Every row as CSV, a column for each term that occurs."""
        first, last = ["step", "stage", "split"], ["bits_per_dim", "status", "seconds"]
        terms = [name for name in dict.fromkeys(name for row in self.rows for name in row) if name not in (*first, *last)]
        text = io.StringIO()
        table = csv.DictWriter(text, [*first, *terms, *last], lineterminator="\n")
        table.writeheader()
        table.writerows(self.rows)
        return text.getvalue().encode()


def shown(terms: Mapping[str, Any], spec: DataSpec) -> str:
    """The terms of an objective in words: bits/dim of x, or nats where the stage has none."""
    bits, density = bits_per_dim(terms, spec), " of a density in the model's units" if spec.density else ""
    return f"loss {terms['loss']:.4g} nats" if bits is None else f"{bits[0]:.4f} bits/dim{density} ({bits[1]})"


class Show:
    """Progress on standard error: a bar in a terminal, and a line for every validation anywhere."""

    def __init__(self, stages: Sequence[Planned], spec: DataSpec, visible: bool) -> None:
        self.spec, self.console = spec, Console(stderr=True, quiet=not visible)
        columns = ("{task.description}", BarColumn(), MofNCompleteColumn(), TimeRemainingColumn(), "{task.fields[figure]}")
        hidden = not (visible and self.console.is_terminal)
        self.bar = Progress(*columns, console=self.console, disable=hidden, refresh_per_second=4, redirect_stdout=False)
        self.task = self.bar.add_task("", total=sum(planned.steps for planned in stages), figure="")
        self.drawn = 0.0

    def plan(self, stages: Sequence[Planned]) -> None:
        """Say what is to be done."""
        steps = ", ".join(f"{planned.stage.name} {planned.steps:,}" for planned in stages)
        self.say(f"training steps: {steps}")

    def step(self, planned: Planned, tick: Tick) -> None:
        """Move the bar, a few times a second."""
        if self.bar.disable or time.monotonic() - self.drawn < 0.25:
            return
        self.drawn = time.monotonic()
        figure = shown({name: float(value) for name, value in tick.terms.items()}, self.spec)
        self.bar.update(self.task, description=planned.stage.name, completed=planned.before + tick.step, figure=figure)

    def line(self, row: Row) -> None:
        """Print a validation row."""
        self.say(f"step {row['step']:,} ({row['stage']}): validation {shown(row, self.spec)}")

    def say(self, words: str) -> None:
        """Print a line."""
        self.console.print(words, highlight=False, soft_wrap=True)


class Stopwatch:
    """Ends a stage after some seconds and at least so many steps, and knows how long a step of it took."""

    def __init__(self, limit: float, clock: str, stop: threading.Event, least: int = 4) -> None:
        self.limit, self.clock, self.stop, self.least = limit, CLOCKS[clock], stop, least
        self.times: list[float] = []

    def __call__(self, tick: Tick) -> bool:
        self.times.append(self.clock())
        if self.stop.is_set():
            raise Interrupted("before training began", None)
        return len(self.times) >= self.least and self.times[-1] - self.times[0] > self.limit

    @property
    def seconds(self) -> float:
        """The mean step, the first left out."""
        return (self.times[-1] - self.times[0]) / (len(self.times) - 1)


def summary_writer(folder: Path, step: int) -> SummaryWriter | None:
    """A writer of TensorBoard's files that forgets what came after ``step``; None where it is not installed."""
    try:
        from torch.utils.tensorboard import SummaryWriter
    except ImportError:
        return None
    return SummaryWriter(str(folder / "tensorboard"), purge_step=step)
