"""Whole numbers in float64: the gate's tables, and the test of the machine."""

from __future__ import annotations

import hashlib
import math
from dataclasses import replace

import numpy as np
import pytest
import torch

from ancestral.causal.arithmetic import Ready
from ancestral.causal.program import Affine
from ancestral.walking.exact import whole
from ancestral.walking.exact.whole import GATE_SIGMOID, GATE_TANH, NumericsError, Whole, self_test


def test_gate_tables_are_pinned() -> None:
    for table, function, pinned in (
        (GATE_TANH, math.tanh, "eb7e736189874170"),
        (GATE_SIGMOID, lambda x: 1 / (1 + math.exp(-x)), "7426364b6c9f6676"),
    ):
        assert [round(2**14 * function(i / 2**10)) for i in range(-8192, 8192)] == table.tolist()
        assert hashlib.blake2b(table.astype("<i2").tobytes(), digest_size=8).hexdigest() == pinned
    products = GATE_TANH.astype(np.int64)[:, None] * GATE_SIGMOID[None, [0, 8192, 16383]]
    assert ((np.abs(products) + 65536) >> 17).max() == 2047  # so a gate never needs more than 12 bits


def test_machines_that_round_are_found_out(monkeypatch: pytest.MonkeyPatch) -> None:
    self_test()
    monkeypatch.setattr(whole, "_tensor", lambda integers, device: torch.tensor(integers.astype(np.float32)))
    with pytest.raises(NumericsError, match="product"):
        self_test()


def test_sums_that_are_rounded_otherwise_are_found_out(monkeypatch: pytest.MonkeyPatch) -> None:
    ready = Whole.ready

    def rounding_down(self: Whole, op: Affine, which: int) -> Ready:
        assert op.scaling is not None
        return ready(self, replace(op, bias=op.bias - 2.0 ** (op.scaling.out - 1)), which)

    monkeypatch.setattr(Whole, "ready", rounding_down)
    with pytest.raises(NumericsError, match="rounded sum"):
        self_test()
