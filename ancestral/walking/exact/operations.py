"""Fixed-point tensors, and the operations on them that every machine carries out alike.

Whole numbers are carried in float64. Every sum of them stays below 2^52, where float64 is exact, so the order in which a library,
a thread or a device adds does not matter::

    float      y = elu(W x + b)
    integers   a = W' x' + b'                          16-bit weights and activations, a power of two for every output channel
               y' = TABLE[clamp(floor(a 2^-s + 1/2))]  s: the fraction bits of a, less those of the result
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

BITS = 16  # of activations and weights
FINEST = 24  # fraction bits that a value may get: 6e-8 is fine enough, and tables keep their margin
FINEST_SUM = 40  # fraction bits that a sum of products may get, so that a channel of tiny weights leaves its bias room
EXACT = 2.0**52  # float64 holds every half below
MARGIN = 1e-10  # float64 functions err by 1e-11 of a table's unit at most: a few ulp of 2^15


class LoweringError(ValueError):
    """A module has no integer twin: it does something that has no exact form, or its numbers are out of bounds."""


def power(exponent: int) -> float:
    """2^exponent, exactly."""
    return math.ldexp(1.0, exponent)


def rounded(x: Tensor, bits: int = BITS) -> Tensor:
    """floor(x + 1/2), clamped to -+(2^(bits - 1) - 1)."""
    limit = 2 ** (bits - 1) - 1
    return (x + 0.5).floor().clamp(-limit, limit)


@dataclass(frozen=True, eq=False)
class Fixed:
    """A fixed-point tensor: its value is integers * 2^-fraction.

    Attributes:
        integers: whole numbers, in float64.
        fraction: bits behind the point.

    Example:
        >>> Fixed.of(torch.tensor([0.5, -1.3]), fraction=4)
        Fixed(integers=tensor([  8., -21.]), fraction=4)
    """

    integers: Tensor
    fraction: int

    @classmethod
    def of(cls, values: Tensor, fraction: int, bits: int = BITS) -> Fixed:
        """Values rounded half up, and clamped to -+(2^(bits - 1) - 1) units.

        Raises:
            ValueError: a value is not a number.
        """
        if values.isnan().any():
            raise ValueError("a value is not a number (NaN), so it has no fixed-point form")
        return cls(rounded(values.double() * power(fraction), bits), fraction)

    def at(self, fraction: int, bits: int = BITS) -> Fixed:
        """The same values with another number of fraction bits, rounded half up and clamped."""
        return Fixed(rounded(self.integers * power(fraction - self.fraction), bits), fraction)

    def values(self) -> Tensor:
        """The values, in float64."""
        return self.integers * power(-self.fraction)


# -- operations ----------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, eq=False)
class Window:
    """How a convolution moves over an image."""

    stride: tuple[int, ...]
    padding: tuple[int, ...]
    dilation: tuple[int, ...]

    def convolve(self, x: Tensor, weight: Tensor, unfold: bool) -> Tensor:
        """(n, C, H, W) and (N, C, h, w) to (n, N, H', W'); ``unfold`` makes it one matrix product."""
        if not unfold:
            return functional.conv2d(x, weight, None, self.stride, self.padding, self.dilation)
        columns = functional.unfold(x, weight.shape[2:], self.dilation, self.padding, self.stride)
        moves = zip(x.shape[2:], weight.shape[2:], self.stride, self.padding, self.dilation, strict=True)
        sides = [(size + 2 * pad - step * (side - 1) - 1) // stride + 1 for size, side, stride, pad, step in moves]
        return (weight.flatten(1) @ columns).view(len(x), len(weight), *sides)


@dataclass(frozen=True, eq=False)
class Spreading:
    """How a transposed convolution moves: a convolution over the image with zeros put between its places."""

    stride: tuple[int, ...]
    padding: tuple[int, ...]
    output_padding: tuple[int, ...]
    dilation: tuple[int, ...]

    def convolve(self, x: Tensor, weight: Tensor, unfold: bool, size: Sequence[int] | None = None) -> Tensor:
        """(n, C, H, W) and (N, C, h, w) to (n, N, *size)."""
        moves = zip(x.shape[2:], weight.shape[2:], self.stride, self.padding, self.output_padding, self.dilation, strict=True)
        pads, gaps = list[int](), list[int]()
        for axis, (side, window, stride, pad, more, step) in enumerate(moves):
            reach = step * (window - 1)
            more = more if size is None else size[axis] - ((side - 1) * stride - 2 * pad + reach + 1)
            gaps.append((side - 1) * stride + 1)
            pads = [reach - pad, reach - pad + more, *pads]
        spread = x.new_zeros(*x.shape[:2], *gaps)
        spread[..., :: self.stride[0], :: self.stride[1]] = x
        inner = Window((1, 1), (0, 0), self.dilation)
        return inner.convolve(functional.pad(spread, pads), weight.flip(2, 3), unfold)


@dataclass(frozen=True, eq=False)
class Affine:
    """A dense map or a convolution: floor((weight x + bias) scale + 1/2), clamped; scales are powers of two."""

    weight: Tensor
    bias: Tensor
    scale: Tensor
    window: Window | Spreading | None
    fraction: int

    def __call__(self, x: Fixed, *size: Sequence[int]) -> Fixed:
        a = x.integers
        weight, bias, scale = (tensor.to(a.device) for tensor in (self.weight, self.bias, self.scale))
        if self.window is None:
            sums = functional.linear(a, weight)
        else:  # cuDNN may convolve by transforms that are not exact, the CPU's float64 convolution is a matrix product
            sums = self.window.convolve(a, weight, a.device.type != "cpu", *size)
        return Fixed(rounded((sums + bias) * scale), self.fraction)


@dataclass(frozen=True, eq=False)
class Table:
    """A function of every element by itself: its 2^16 results, the first for -2^15."""

    entries: Tensor
    fraction: int

    def __call__(self, x: Fixed) -> Fixed:
        return Fixed(self.entries.to(x.integers.device)[x.integers.long() + 2 ** (BITS - 1)].double(), self.fraction)


@dataclass(frozen=True, eq=False)
class Constant:
    """A tensor of the module itself, put where its input is."""

    integers: Tensor
    fraction: int

    def __call__(self, x: Fixed) -> Fixed:
        return Fixed(self.integers.to(x.integers.device), self.fraction)


@dataclass(frozen=True)
class Sum:
    """a + b, or a - b where ``sign`` is -1, broadcast."""

    fraction: int
    sign: int = 1

    def __call__(self, a: Fixed, b: Fixed) -> Fixed:
        finer = max(a.fraction, b.fraction)
        total = a.integers * power(finer - a.fraction) + self.sign * b.integers * power(finer - b.fraction)
        return Fixed(total, finer).at(self.fraction)


@dataclass(frozen=True)
class Product:
    """a b, broadcast: below 2^31 before it is rounded."""

    fraction: int

    def __call__(self, a: Fixed, b: Fixed) -> Fixed:
        return Fixed(a.integers * b.integers, a.fraction + b.fraction).at(self.fraction)


@dataclass(frozen=True, eq=False)
class Plain:
    """A function of every element that takes sums, products and bounds of float64 alone, which no machine rounds otherwise.

    Attributes:
        numbers: that it has in it, which tell it from others.
    """

    function: Callable[[Tensor], Tensor]
    numbers: Tensor
    fraction: int

    def __call__(self, x: Fixed) -> Fixed:
        return Fixed.of(self.function(x.values()), self.fraction)


@dataclass(frozen=True)
class Concatenate:
    """Tensors side by side, brought to one fraction."""

    fraction: int

    def __call__(self, tensors: Sequence[Fixed], dim: int = 0) -> Fixed:
        return Fixed(torch.cat([each.at(self.fraction).integers for each in tensors], dim), self.fraction)


@dataclass(frozen=True)
class Shape:
    """Whatever only moves numbers about, or asks for sizes: the function itself, on the integers."""

    function: Callable[..., Any]

    def __call__(self, x: Any, *args: Any, **kwargs: Any) -> Any:
        if not isinstance(x, Fixed):
            return self.function(x, *args, **kwargs)
        return fixed(self.function(x.integers, *args, **kwargs), x.fraction)


def fixed(value: Any, fraction: int) -> Any:
    """Every tensor in ``value`` as a `Fixed`; sizes stay what they are."""
    if isinstance(value, tuple | list):
        return tuple(fixed(each, fraction) for each in value)
    return Fixed(value, fraction) if isinstance(value, Tensor) else value


def nearest(x: Tensor, size: int | Sequence[int] | None, factor: int | None) -> Tensor:
    """(n, C, ...) resized by copying: position i of ``after`` takes i * before // after, which no library rounds otherwise."""
    before = x.shape[2:]
    if factor is not None:
        size = [side * factor for side in before]
    after = [size] * len(before) if isinstance(size, int) else list(size or before)
    for axis, (old, new) in enumerate(zip(before, after, strict=True), start=2):
        x = x.index_select(axis, torch.arange(new, device=x.device) * old // new)
    return x


# -- from weights and functions to operations ----------------------------------------------------------------------------


def affine(layer: nn.Linear | nn.Conv2d | nn.ConvTranspose2d, source: int, target: int) -> Affine:
    """The integer twin of a layer between activations of ``source`` and ``target`` fraction bits.

    Raises:
        LoweringError: weights are not finite, or a sum could reach 2^52.
    """
    weight = layer.weight.detach().double().cpu()
    weight = weight.transpose(0, 1) if isinstance(layer, nn.ConvTranspose2d) else weight
    bias = weight.new_zeros(len(weight)) if layer.bias is None else layer.bias.detach().double().cpu()
    if not (weight.isfinite().all() and bias.isfinite().all()):
        raise LoweringError("it has weights that are not finite")
    exponents = torch.frexp(weight.abs().flatten(1).amax(1)).exponent  # |w| < 2^exponent
    bits = (BITS - 1 - exponents).clamp(max=FINEST_SUM - source).tolist()
    column = (-1, *(1 for _ in weight.shape[1:]))
    weight = rounded(weight * _powers(bits).view(column))
    bias = (bias * _powers([source + bit for bit in bits]) + 0.5).floor()
    scale = _powers([target - source - bit for bit in bits])
    largest = weight.abs().flatten(1).sum(1) * (2 ** (BITS - 1) - 1) + bias.abs() + 0.5 / scale
    if not largest.max() < EXACT:
        raise LoweringError(f"its sums could reach {largest.max():.3g}, and only those below 2^52 are exact: calibrate it anew")
    return Affine(weight, bias.view(column[:-1]), scale.view(column[:-1]), _window(layer), target)


def _powers(exponents: Sequence[int]) -> Tensor:
    return torch.tensor([power(exponent) for exponent in exponents], dtype=torch.float64)


def _window(layer: nn.Linear | nn.Conv2d | nn.ConvTranspose2d) -> Window | Spreading | None:
    if isinstance(layer, nn.Linear):
        return None
    if layer.groups != 1 or layer.padding_mode != "zeros" or isinstance(layer.padding, str):
        raise LoweringError("a convolution must have one group and padding by a number of zeros")
    if isinstance(layer, nn.ConvTranspose2d):
        return Spreading(layer.stride, layer.padding, layer.output_padding, layer.dilation)
    return Window(layer.stride, layer.padding, layer.dilation)


def table(function: Callable[[Tensor], Tensor], identity: bool, source: int, target: int) -> Table:
    """A function between ``source`` and ``target`` fraction bits; where ``identity``, it leaves what is not negative as it is.

    Raises:
        LoweringError: an entry lies so close to where rounding turns that another library could round it otherwise.
    """
    x = torch.arange(-(2 ** (BITS - 1)), 2 ** (BITS - 1), dtype=torch.float64) * power(-source)
    computed = (x < 0) | (not identity)
    limit = 2 ** (BITS - 1) - 1
    y = torch.where(computed, function(x), x).mul(power(target)).clamp(-limit, limit)
    margin = (y - y.floor() - 0.5).abs()[computed].min()
    if not margin >= MARGIN:
        raise LoweringError(f"an entry of its table is {margin:.1e} units from where rounding turns: calibrate it anew")
    return Table(rounded(y).to(torch.int16), target)
