"""Functions of a site by itself, and the layer that reads the symbols."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor
from torch.nn import functional

from ancestral.causal.layer import Input, Pointwise


class Scale(Input):
    """Symbols 0 .. levels - 1 to [-1, 1], one feature a colour channel; real values (levels None) stay as they are.

    Nothing is 0 in the middle of two levels, so zero padding tells the border from the data.
    """

    gain: Tensor
    shift: Tensor

    def __init__(self, channels: int, levels: int | None) -> None:
        super().__init__(channels, 1)
        self.register_buffer("gain", torch.tensor(1.0 if levels is None else 2 / (levels - 1)), persistent=False)
        self.register_buffer("shift", torch.tensor(0.0 if levels is None else -1.0), persistent=False)

    def forward(self, x: Tensor) -> Tensor:
        return x.to(self.gain.dtype) * self.gain + self.shift

    def absorb(self, symbol: Tensor, channel: int) -> Tensor:
        return self(symbol).unsqueeze(1)  # type: ignore[no-any-return]


def _gate(x: Tensor, axis: int) -> Tensor:
    a, b = x.chunk(2, axis)
    if x.dim() == 4 and not x.is_contiguous():  # channels last: halves laid out side by side take twice as long as their copies
        a, b = (half.contiguous(memory_format=torch.channels_last) for half in (a, b))
    return torch.tanh(a) * torch.sigmoid(b)


def _relu(x: Tensor, axis: int) -> Tensor:
    return functional.relu(x)


FUNCTIONS: dict[str, Callable[[Tensor, int], Tensor]] = {"gate": _gate, "relu": _relu}  # by the name that Programs use


def gate() -> Pointwise:
    """tanh(a) * sigmoid(b) of the two halves of the features (van den Oord et al. 2016b, eq. 2)."""
    return Pointwise("gate", _gate)


def relu() -> Pointwise:
    """max(x, 0)."""
    return Pointwise("relu", _relu)
