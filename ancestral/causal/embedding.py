"""Symbols as rows of a table, where tokens are, and the symbol before a token."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from ancestral.causal.layer import (
    AffineLayer,
    CausalityError,
    Clock,
    Composite,
    Input,
    Labels,
    Layer,
    Reach,
    Signal,
    refuse_symbols,
)
from ancestral.causal.lower import Lowering
from ancestral.causal.program import Add, Part


class Embedding(Input):
    """Symbols 0 .. levels - 1 to rows of a table, one for each colour channel: a 1x1 map of one-hot vectors.

    (n, C, H, W) integers to (n, C features, H, W), starting standard normal. Given as real numbers, a symbol below 0 stands for
    one that is not read, which has zeros.
    """

    def __init__(self, channels: int, levels: int, features: int) -> None:
        super().__init__(channels, features)
        self.table = nn.Parameter(torch.randn(channels, levels, features))

    def forward(self, x: Tensor) -> Tensor:
        tables, symbols = self.table.unbind(), x.unbind(1)
        if x.is_floating_point():
            tables = tuple(functional.pad(table, (0, 0, 1, 0)) for table in tables)
            symbols = tuple(each.clamp_min(-1) + 1 for each in symbols)
        rows = [functional.embedding(each.long(), table) for table, each in zip(tables, symbols, strict=True)]
        return torch.cat(rows, -1).movedim(-1, 1)

    def absorb(self, symbol: Tensor, channel: int) -> Tensor:
        return functional.embedding(symbol.long(), self.table[channel])


class Unembedding(AffineLayer):
    """y = E x with the table E of an embedding of one channel, whose weights it shares: (n, c, T, 1) to (n, levels, T, 1)."""

    def __init__(self, embedding: Embedding) -> None:
        super().__init__()
        self._shared = (embedding,)  # in a tuple, so that the table is not a parameter twice
        self.features = embedding.table.shape[1]

    @property
    def table(self) -> Tensor:
        """(levels, c)."""
        return self._shared[0].table[0]

    def infer(self, inputs: Sequence[Signal]) -> tuple[Clock, Labels | None]:
        refuse_symbols(self, inputs)
        return inputs[0].clock, (0,) * self.features

    def forward(self, x: Tensor) -> Tensor:
        return functional.linear(x.movedim(1, -1), self.table).movedim(-1, 1)

    def weights(self, channel: int | None) -> tuple[Tensor, Tensor]:
        return self.table.T[None, None], self.table.new_zeros(1, self.features)


class Constant(Layer):
    """What depends on neither symbols nor context, (1, c, T, 1); called with what it is to go with, which tells the graph."""

    def __call__(self, *inputs: Any) -> Any:
        if inputs and isinstance(inputs[0], Signal):
            return inputs[0].graph.record(self, ())
        return nn.Module.__call__(self)

    def infer(self, inputs: Sequence[Signal]) -> tuple[Clock, Labels | None]:
        return Clock.ONCE, None


class Previous(Composite):
    """y[t] = x[t - 1] + start[t], nothing coming before the first: symbols' features and a constant, (n, c, T, 1).

    So a token stands for the symbol before it, and the constant for where it is, and for the beginning at t = 0.
    """

    reach = Reach(above=1, own_row=False)

    def infer(self, inputs: Sequence[Signal]) -> tuple[Clock, Labels | None]:
        symbols, start = inputs
        if start.clock is not Clock.ONCE or any(symbols.labels or ()):
            raise CausalityError("the symbol before a token is added to what is known before all tokens")
        return Clock.SITE, symbols.labels

    def forward(self, x: Tensor, start: Tensor) -> Tensor:
        return functional.pad(x[:, :, :-1], (0, 0, 1, 0)) + start

    def emit(self, lowering: Lowering, inputs: Sequence[Signal], output: Signal) -> int:
        target = lowering.claim("token", output)
        source, start = lowering.window(self.reach, inputs[0], output), lowering.buffer_of(inputs[1])
        features = len(output.labels or ())
        lowering.learn(start, features)
        parts = Part(target, 0, features), Part(source, 0, features, above=1), Part(start, 0, features)
        lowering.operations.append(Add(Clock.SITE, 0, *parts, False))
        return target
