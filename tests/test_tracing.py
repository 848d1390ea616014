"""Tracing by torch.fx leaves the rest of the process alone."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

from ancestral.walking.exact.feedforward import IntegerNet
from ancestral.walking.tracing import graph_of


def test_the_functions_of_math_are_left_to_others() -> None:
    """torch.fx replaces them meanwhile, for all threads: numba, at work in another one, would not know them."""
    seen, log = [], math.log

    def twice(x: Tensor) -> Tensor:
        seen.append(math.log)
        return x * 2

    class Twice(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            return twice(x)

    assert torch.equal(graph_of(twice)(torch.ones(2)), torch.full((2,), 2.0)) and len(seen) == 1
    IntegerNet.calibrate(Twice(), torch.randn(5, 3))
    assert len(seen) > 1 and all(each is log for each in seen)
