"""Whole numbers carried in float64: the arithmetic of exact Programs in PyTorch, on any device that has float64.

Every sum stays below 2^31 and every number in between has its bits within 53, so nothing is ever rounded but on purpose, and
the order in which a library, a thread or a device adds does not matter. `self_test` makes sure of it.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from ancestral.causal.arithmetic import Arithmetic, Ready
from ancestral.causal.layer import Clock, Reach
from ancestral.causal.program import Add, Affine, Couple, Part, Point, Put, Rounding, Scaling
from ancestral.causal.tokens import Attend, Normalise, Rotate
from ancestral.families import fixed
from ancestral.walking.exact.mixture import whole_mixture
from ancestral.walking.exact.operations import Window, power
from ancestral.walking.exact.tokens import whole_attended, whole_normalised, whole_rotated

READ, GATED, KEPT = 2**12 - 1, 2**13 - 1, 2**15 - 1  # largest activations: that matrices read, that gates read, others
GATE_ARGUMENT, GATE_RESULT = 10, 11  # fraction bits
GATE = 2**GATE_RESULT - 1  # the largest result of a gate
RESULTS = {"gate": GATE_RESULT, "tanh": 12, "sigmoid": 12}  # fraction bits of functions that are bounded
CURVE = 14  # fraction bits of tanh and sigmoid
PADDED = Window((1, 1), (1, 1), (1, 1))


class NumericsError(RuntimeError):
    """This machine does not compute whole numbers exactly."""


def _curve(values: npt.NDArray[np.float64]) -> npt.NDArray[np.int16]:
    table = fixed.rounded(2**CURVE * values).astype(np.int16)  # refuses what machines could round differently
    table.flags.writeable = False
    return table


_ARGUMENTS = np.arange(-GATED - 1, GATED + 1) / 2**GATE_ARGUMENT
GATE_TANH = _curve(np.tanh(_ARGUMENTS))  # (16384,) entries, the first one at -8
GATE_SIGMOID = _curve(1 / (1 + np.exp(-_ARGUMENTS)))
EXP_MINUS_1 = _curve(np.expm1(np.minimum(_ARGUMENTS, 0)))
CURVES = GATE_TANH, GATE_SIGMOID, EXP_MINUS_1
GELU_SHARE = _curve(1 / (1 + np.exp(-np.sqrt(8 / np.pi) * (_ARGUMENTS + 0.044715 * _ARGUMENTS**3))))  # gelu(x) / x


def powers(exponents: Tensor) -> Tensor:
    """2^exponents in float64, where the library's own power may be off by a bit."""
    values = [power(exponent) for exponent in exponents.flatten().tolist()]
    return torch.tensor(values, dtype=torch.float64).view(exponents.shape)


def half_up(x: Tensor, bits: int) -> Tensor:
    """floor(x 2^-bits + 1/2)."""
    return (x * power(-bits) + 0.5).floor() if bits > 0 else x * power(-bits)


class Whole(Arithmetic):
    """Whole numbers carried in float64, for exact Programs.

    Args:
        device: where the tensors of a walk are.
    """

    def __init__(self, device: torch.device | str = "cpu") -> None:
        tables = (torch.tensor(table).to(device, torch.float64) for table in (*CURVES, GELU_SHARE))
        self.tanh, self.sigmoid, self.exp_minus_1, self.gelu_share = tables

    def ready(self, op: Affine, which: int) -> Ready:
        if op.scaling is None:
            raise ValueError("whole numbers need an exact Program: make one with walking.exact.exact")
        matrix, bias = op.weight[which].flatten(0, 1).to(self.tanh), op.bias[which].to(self.tanh)
        start, end = powers(op.scaling.init[which]).to(self.tanh), powers(-op.scaling.out[which]).to(self.tanh)
        low, high = op.scaling.low, op.scaling.high

        def affine(window: Tensor, init: Tensor | None, target: Tensor) -> None:
            total = window @ matrix + bias
            if init is not None:
                total += init * start
            target.copy_(total.mul_(end).add_(0.5).floor_().clamp_(low, high))

        return affine

    def point(self, op: Point, source: Tensor, other: Tensor | None, target: Tensor) -> None:
        bits = _known(op.scaling)
        limit = bits.limit
        if op.function == "relu":
            target.copy_(source.clamp_min(0))
            return
        if op.function == "gate" and other is not None:
            result = self._curve(self.tanh, source, bits.source) * self._curve(self.sigmoid, other, bits.other)
            target.copy_(half_up(result, 2 * CURVE - bits.target).clamp_max_(GATE))
        elif op.function == "glu" and other is not None:
            result = source * self._curve(self.sigmoid, other, bits.other)
            target.copy_(half_up(result, CURVE + bits.source - bits.target).clamp_(-limit, limit))
        elif op.function == "gelu":
            result = source * self._curve(self.gelu_share, source, bits.source)
            target.copy_(half_up(result, CURVE + bits.source - bits.target).clamp_(-limit, limit))
        elif op.function in ("tanh", "sigmoid"):
            table = self.tanh if op.function == "tanh" else self.sigmoid
            target.copy_(half_up(self._curve(table, source, bits.source), CURVE - bits.target).clamp_(-limit, limit))
        else:
            both = torch.cat([source, -source], -1) if op.function == "concat_elu" else source
            below = half_up(self._curve(self.exp_minus_1, both, bits.source), CURVE - bits.target)
            above = half_up(both, bits.source - bits.target)
            target.copy_(torch.where(both > 0, above, below).clamp_(-limit, limit))

    def _curve(self, table: Tensor, x: Tensor, fraction: int) -> Tensor:
        """Values of fraction 14 of a tabulated function at arguments of any fraction, clamped to the table."""
        return table[half_up(x, fraction - GATE_ARGUMENT).long().clamp(-GATED - 1, GATED) + GATED + 1]

    def couple(self, op: Couple, source: Tensor, symbols: Tensor, target: Tensor) -> None:
        _known(op.scaling)
        target.copy_(whole_mixture(op, source.long(), symbols.long(), self.tanh))

    def add(self, op: Add, a: Tensor, b: Tensor, target: Tensor) -> None:
        target.copy_((a + b).clamp_(0 if op.relu else -KEPT - 1, KEPT))

    def put(self, put: Put, symbol: Tensor, channel: int) -> Tensor:
        if put.table is None:
            raise ValueError("whole numbers need an exact Program: make one with walking.exact.exact")
        return put.table[channel].to(self.tanh)[symbol.long()]

    def normalise(self, op: Normalise, source: Tensor, target: Tensor) -> None:
        target.copy_(whole_normalised(op, _known(op.scaling), source.long()))

    def rotate(self, op: Rotate, source: Tensor, angles: Tensor, target: Tensor) -> None:
        target.copy_(whole_rotated(op, _known(op.scaling), source.long(), angles.long()))

    def attend(self, op: Attend, query: Tensor, keys: Tensor, values: Tensor, target: Tensor) -> None:
        target.copy_(whole_attended(op, _known(op.scaling), query, keys, values))


def _known(scaling: Rounding | None) -> Rounding:
    if scaling is None:
        raise ValueError("whole numbers need an exact Program: make one with walking.exact.exact")
    return scaling


# -- the machine ---------------------------------------------------------------------------------------------------------

Exact = npt.NDArray[np.object_]  # of Python's own integers


def self_test(device: torch.device | str = "cpu") -> None:
    """Compare sums of the largest products, and how they are rounded, with Python's own integers.

    Raises:
        NumericsError: the device has no float64, or gives other numbers.
    """
    draw = np.random.Generator(np.random.Philox(0))
    try:
        for largest, size in ((READ, (64, 384, 40)), (KEPT, (1, 300, 33)), (2**22 - 1, (7, 250, 17))):  # sums below 2^52
            n, depth, columns = size
            window, matrix = _extremes(draw, (n, depth), largest), _extremes(draw, (depth, columns), largest)
            _agree("a product of matrices", _tensor(window, device) @ _tensor(matrix, device), window @ matrix)
        image, kernel = _extremes(draw, (2, 32, 7, 8), KEPT), _extremes(draw, (9, 32, 3, 3), KEPT)
        convolved = PADDED.convolve(_tensor(image, device), _tensor(kernel, device), unfold=torch.device(device).type != "cpu")
        _agree("a convolution", convolved, _convolved(image, kernel))
        _test_affine(draw, device)
    except TypeError as error:
        raise NumericsError(f"{device} has no float64, so files need another device: {error}") from error


def _extremes(draw: np.random.Generator, shape: tuple[int, ...], largest: int) -> Exact:
    """Integers of one magnitude, two thirds of them positive."""
    return draw.choice(np.array([-largest, largest, largest]), shape).astype(object)


def _tensor(integers: Exact, device: torch.device | str) -> Tensor:
    return torch.tensor(integers.astype(np.int64)).to(torch.float64).to(device)


def _agree(what: str, found: Tensor, expected: Exact) -> None:
    if found.tolist() != expected.tolist():
        raise NumericsError(
            f"{what} of whole numbers is wrong on {found.device}: files coded there could not be decoded; use another device"
        )


def _convolved(image: Exact, kernel: Exact) -> Exact:
    padded = np.pad(image, ((0, 0), (0, 0), (1, 1), (1, 1)))
    height, width = image.shape[2:]
    shifted = [np.tensordot(kernel[..., i, j], padded[:, :, i : i + height, j : j + width], (1, 1)) for i, j in np.ndindex(3, 3)]
    total: Exact = np.sum(shifted, axis=0).swapaxes(0, 1)
    return total


def _test_affine(draw: np.random.Generator, device: torch.device | str) -> None:
    """An affine operation whose sums come near 2^31, with every shift."""
    columns = 24
    window, matrix = _extremes(draw, (5, 400), READ), _extremes(draw, (400, columns), READ)
    init, bias = _extremes(draw, (5, columns), KEPT), draw.integers(-(2**28), 2**28, columns).astype(object)
    left, right = np.arange(columns).astype(object) % 13, np.arange(columns).astype(object)
    scaling = Scaling(torch.tensor([left.tolist()]), torch.tensor([right.tolist()]), -KEPT, KEPT)
    part = Part(0, 0, columns)
    weights = _tensor(matrix[None, None], device), _tensor(bias[None], device)
    op = Affine(Clock.SITE, 0, part, 0, Reach(), part, *weights, relu=False, scaling=scaling)
    found = torch.empty(5, columns, dtype=torch.float64, device=device)
    Whole(device).ready(op, 0)(_tensor(window, device), _tensor(init, device), found)
    total = init * 2**left + bias + window @ matrix
    _agree("a rounded sum", found, np.clip((2 * total + 2**right) // (2 * 2**right), -KEPT, KEPT))
