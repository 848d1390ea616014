"""Symbols as rows of a table."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional

from ancestral.causal.layer import Input


class Embedding(Input):
    """Symbols 0 .. levels - 1 to rows of a table, one for each colour channel: a 1x1 map of one-hot vectors.

    (n, C, H, W) integers to (n, C features, H, W), starting standard normal.
    """

    def __init__(self, channels: int, levels: int, features: int) -> None:
        super().__init__(channels, features)
        self.table = nn.Parameter(torch.randn(channels, levels, features))

    def forward(self, x: Tensor) -> Tensor:
        rows = [functional.embedding(symbols.long(), table) for table, symbols in zip(self.table, x.unbind(1), strict=True)]
        return torch.cat(rows, -1).movedim(-1, 1)

    def absorb(self, symbol: Tensor, channel: int) -> Tensor:
        return functional.embedding(symbol.long(), self.table[channel])
