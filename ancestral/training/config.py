"""How a model is trained: what can be chosen, one line each. Free of torch."""

from __future__ import annotations

from dataclasses import dataclass
from operator import index

from ancestral.spec import check_real, check_whole

CHOICES = {
    "clock": ("wall", "cpu"),
    "optimiser": ("adamax", "adam"),
    "decay": ("cosine", "linear", "none"),
    "precision": ("32", "bf16"),
}
LEAST = {
    "steps": 1,
    "batch_size": 1,
    "warmup": 0,
    "aggressive": 0,
    "seed": 0,
    "validate_every": 1,
    "log_every": 1,
    "checkpoint_every": 1,
    "threads": 1,
}


@dataclass(frozen=True, kw_only=True)
class TrainingConfig:
    """Everything about a training run but the model and the data.

    Raises:
        ValueError: a value is outside its range.
    """

    minutes: float | None = 5.0  # time in all, by the clock; a short timing at the start turns it into steps
    clock: str = "wall"  # or cpu: user and system time of all threads, which does not mind what else the machine does
    steps: int | None = None  # optimiser steps of all stages together; wins over minutes
    batch_size: int = 32  # examples a step, all processes together; at most as many as there are
    optimiser: str = "adam"  # adam, measured better in the same time (LOG.md), or adamax, as the papers have it
    learning_rate: float = 2e-3  # at its peak, for stages that have none of their own
    warmup: int = 100  # steps over which it rises at the start of a stage, at most a tenth of the stage
    decay: str = "cosine"  # how it falls to zero over each stage: cosine, linear, or none, as the papers have it
    ema: float = 0.999  # the averaged weights keep so much of themselves a step; 0 for no averaging
    label_dropout: float = 0.0  # probability that a conditional model does not see a label, as guidance needs it; 0.1 is usual
    aggressive: int = 0  # encoder steps before each step of the rest, until I(x; z) stops rising (He et al. 2019); 10 to 100
    clip: float = 5.0  # largest gradient norm in nats per site, several times what is usual, so that it cuts spikes alone
    precision: str = "32"  # bf16: the network in bfloat16 where that is safe, likelihoods in 32 bits all the same
    channels_last: bool = False  # weights of convolutions in the order that some devices prefer
    accelerator: str | None = None  # cpu, cuda, mps, or auto: where to train; None is where the model is
    threads: int | None = None  # of torch on a CPU; None leaves the number as it is
    seed: int = 0  # of batches, noise and dropout
    validate_every: int | None = None  # steps; None for ten times a run, and always at the end of a stage
    log_every: int | None = None  # steps of which each training row of the table is the mean; None for a hundred rows a run
    checkpoint_every: int | None = None  # steps; None for every two minutes, and always at the end of a stage
    tensorboard: bool = True  # write curves for TensorBoard, where that is installed
    progress: bool = True  # show progress on standard error

    def __post_init__(self) -> None:
        for name, known in CHOICES.items():
            if getattr(self, name) not in known:
                raise ValueError(f"{name} is {getattr(self, name)!r}; it must be one of {', '.join(known)}")
        for name, least in LEAST.items():
            value = getattr(self, name)
            check_whole(**{name: value})
            if value is None:
                continue
            object.__setattr__(self, name, index(value))  # of NumPy's types too, which JSON has none of
            if value < least:
                raise ValueError(f"{name} is {value}; it must be at least {least}")
        check_real(**{name: getattr(self, name) for name in ("minutes", "learning_rate", "clip", "ema", "label_dropout")})
        if self.steps is None and not (self.minutes is not None and self.minutes > 0):
            raise ValueError(f"minutes is {self.minutes}; give more than 0, or a number of steps")
        if not (self.learning_rate > 0 and self.clip > 0 and 0 <= self.ema < 1):
            values = f"{self.learning_rate}, {self.clip} and {self.ema}"
            raise ValueError(f"learning_rate, clip and ema are {values}; the first two must be above 0, ema in [0, 1)")
        if not 0 <= self.label_dropout <= 1:
            raise ValueError(f"label_dropout is {self.label_dropout}; it must be in [0, 1], 0 to drop no label")
        if self.seed >= 2**63:
            raise ValueError(f"seed is {self.seed}; it must be below 2^63")
