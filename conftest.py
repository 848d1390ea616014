"""What tests and doctests have in common: one thread, float64, fixed seeds, figures without a screen."""

from __future__ import annotations

import os

os.environ.setdefault("OMP_NUM_THREADS", "1")  # before torch, and for the processes that tests start
os.environ.setdefault("MPLBACKEND", "Agg")

import random
from collections.abc import Iterator

import numpy as np
import pytest
import torch

torch.set_num_threads(1)
torch.set_default_dtype(torch.float64)  # already while tests are collected, so that parameters made there are float64


@pytest.fixture(autouse=True)
def _same_start() -> Iterator[None]:
    """Every test and doctest starts alike, and so do the fixtures of a module, which are made before this one."""
    _start()
    yield
    _start()


def _start() -> None:
    torch.set_default_dtype(torch.float64)
    torch.manual_seed(0)
    np.random.seed(0)  # noqa: NPY002 -- libraries may draw from the global generator
    random.seed(0)
