"""What the tests of training share: a few digits, quiet settings, tiny models with fixed weights, Ctrl-C."""

from __future__ import annotations

import signal
from typing import Any

import torch

import ancestral
from ancestral.data import Splits, load_data
from ancestral.hub import Model
from ancestral.objectives import OBJECTIVES, Batch, Terms

DIGITS = load_data("digits", limit=40)
QUIET: dict[str, Any] = {"progress": False, "batch_size": 8, "tensorboard": False}


def model_of(name: str = "gated-pixelcnn", data: Splits = DIGITS, seed: int = 0, **overrides: Any) -> Model:
    torch.manual_seed(seed)
    return ancestral.build(name, data.spec, preset="tiny", **overrides)


def same(a: dict[str, Any], b: dict[str, Any]) -> bool:
    return a.keys() == b.keys() and all(torch.equal(a[name], b[name]) for name in a)


class CtrlC:
    """An objective during whose call number ``at`` somebody presses Ctrl-C."""

    def __init__(self, name: str, at: int, times: int = 1) -> None:
        self.objective, self.at, self.times, self.calls = OBJECTIVES[name], at, times, 0

    def __call__(self, model: Model, batch: Batch, **options: float) -> Terms:
        if torch.is_grad_enabled():
            self.calls += 1
            if self.calls == self.at:
                for _ in range(self.times):
                    signal.raise_signal(signal.SIGINT)
        return self.objective(model, batch, **options)
