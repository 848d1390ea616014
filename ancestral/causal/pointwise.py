"""Functions of a site by itself, and the layer that reads the symbols."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

import torch
from torch import Tensor, fx
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


def halves(x: Tensor, axis: int) -> tuple[Tensor, Tensor]:
    """The two halves of the features."""
    a, b = x.chunk(2, axis)
    traced = isinstance(x, fx.Proxy)
    if not traced and x.dim() == 4 and not x.is_contiguous():  # there, halves laid out side by side take twice as long
        a, b = (half.contiguous(memory_format=torch.channels_last) for half in (a, b))
    return a, b


def _gate(a: Tensor, b: Tensor) -> Tensor:
    return torch.tanh(a) * torch.sigmoid(b)


def _glu(a: Tensor, b: Tensor) -> Tensor:
    return a * torch.sigmoid(b)


def _concat_elu(x: Tensor, axis: int) -> Tensor:
    return functional.elu(torch.cat([x, -x], axis))


PAIRS: dict[str, Callable[[Tensor, Tensor], Tensor]] = {"gate": _gate, "glu": _glu}  # by the names that Programs use
FUNCTIONS: dict[str, Callable[[Tensor], Tensor]] = {
    "relu": functional.relu,
    "elu": functional.elu,
    "tanh": torch.tanh,
    "sigmoid": torch.sigmoid,
    "gelu": partial(functional.gelu, approximate="tanh"),
}
DOUBLES: dict[str, Callable[[Tensor, int], Tensor]] = {"concat_elu": _concat_elu}


def _of_halves(name: str, x: Tensor, axis: int) -> Tensor:
    return PAIRS[name](*halves(x, axis))


def _of_each(name: str, x: Tensor, axis: int) -> Tensor:
    return FUNCTIONS[name](x)


def _pairs(name: str) -> Pointwise:
    return Pointwise(name, partial(_of_halves, name))


def _each(name: str) -> Pointwise:
    return Pointwise(name, partial(_of_each, name))


def gate() -> Pointwise:
    """tanh(a) * sigmoid(b) of the two halves of the features (van den Oord et al. 2016b, eq. 2)."""
    return _pairs("gate")


def glu() -> Pointwise:
    """a * sigmoid(b) of the two halves of the features, the gate of PixelCNN++ (Salimans et al. 2017)."""
    return _pairs("glu")


def relu() -> Pointwise:
    """max(x, 0)."""
    return _each("relu")


def elu() -> Pointwise:
    """x above 0, exp(x) - 1 below."""
    return _each("elu")


def tanh() -> Pointwise:
    """tanh(x)."""
    return _each("tanh")


def sigmoid() -> Pointwise:
    """1 / (1 + exp(-x))."""
    return _each("sigmoid")


def gelu() -> Pointwise:
    """x / 2 (1 + tanh(sqrt(2 / pi) (x + 0.044715 x^3))), the GELU of GPT-2 (Hendrycks & Gimpel 2016)."""
    return _each("gelu")


def concat_elu() -> Pointwise:
    """elu(x), then elu(-x): twice as many features (Salimans et al. 2017)."""
    return Pointwise("concat_elu", _concat_elu)
