"""What the tests of training share: a few digits, quiet settings, tiny models with fixed weights."""

from __future__ import annotations

from typing import Any

import torch

import ancestral
from ancestral.data import Splits, load_data
from ancestral.hub import Model

DIGITS = load_data("digits", limit=40)
QUIET: dict[str, Any] = {"progress": False, "batch_size": 8, "tensorboard": False}


def model_of(name: str = "gated-pixelcnn", data: Splits = DIGITS, seed: int = 0, **overrides: Any) -> Model:
    torch.manual_seed(seed)
    return ancestral.build(name, data.spec, preset="tiny", **overrides)


def same(a: dict[str, Any], b: dict[str, Any]) -> bool:
    return a.keys() == b.keys() and all(torch.equal(a[name], b[name]) for name in a)
