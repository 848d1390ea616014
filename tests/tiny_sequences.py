"""A model of sequences with hand-made probabilities, and notations, for tests of what is said of them."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from ancestral.core import Autoregressive, Context, Network
from ancestral.families import Categorical
from ancestral.spec import DataSpec


class Markov(Network):
    """Every symbol depends on the one before it, by a table of logits (levels + 1, levels), whose last row is for the first."""

    def __init__(self, length: int, levels: int, seed: int = 0) -> None:
        super().__init__((length,))
        drawn = torch.randn(levels + 1, levels, generator=torch.Generator().manual_seed(seed))
        self.table = torch.nn.Buffer(drawn.to(torch.get_default_dtype()))

    def forward(self, x: Tensor, context: Context | None = None) -> Tensor:
        before = torch.nn.functional.pad(x[:, :-1], (1, 0), value=len(self.table) - 1)
        return self.table[before]

    def arrange(self, order: Any = None, shape: tuple[int, ...] | None = None) -> Network:
        other = Markov(*(shape or self.shape), self.table.shape[1])
        other.table = self.table
        return other


def markov(spec: DataSpec, length: int = 6) -> Autoregressive:
    """A model of such sequences."""
    levels = spec.levels or 0
    return Autoregressive(Markov(spec.shape[0] or length, levels), Categorical(levels), spec)


class Letters:
    """Symbols are bytes."""

    def decode(self, symbols: Tensor) -> bytes:
        return bytes(symbols.tolist())
