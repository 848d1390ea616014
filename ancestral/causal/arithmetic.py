"""How the operations of a Program are carried out in PyTorch: floating point here, whole numbers in `walking.exact`."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable

import torch
from torch import Tensor
from torch.nn import functional

from ancestral.causal.attention import attended, rotated
from ancestral.causal.channels import coupled
from ancestral.causal.normalise import normalised
from ancestral.causal.pointwise import DOUBLES, FUNCTIONS, PAIRS
from ancestral.causal.program import Add, Affine, Couple, Point, Put
from ancestral.causal.tokens import Attend, Normalise, Rotate

Ready = Callable[[Tensor, Tensor | None, Tensor], None]  # (..., K) window, (..., N) init, (..., N) target


class Arithmetic(ABC):
    """One meaning of the operations; each writes into its target, (..., features), which may be a view."""

    @abstractmethod
    def ready(self, op: Affine, which: int) -> Ready:
        """An affine operation with one of its sets of weights laid out."""

    @abstractmethod
    def point(self, op: Point, source: Tensor, other: Tensor | None, target: Tensor) -> None:
        """target = function(source), or function(source, other)."""

    @abstractmethod
    def couple(self, op: Couple, source: Tensor, symbols: Tensor, target: Tensor) -> None:
        """target = what a colour takes from the mixtures of a pixel."""

    @abstractmethod
    def add(self, op: Add, a: Tensor, b: Tensor, target: Tensor) -> None:
        """target = a + b."""

    @abstractmethod
    def put(self, put: Put, symbol: Tensor, channel: int) -> Tensor:
        """(n,) symbols of a colour channel to their (n, features)."""

    @abstractmethod
    def normalise(self, op: Normalise, source: Tensor, target: Tensor) -> None:
        """target = source, normalised."""

    @abstractmethod
    def rotate(self, op: Rotate, source: Tensor, angles: Tensor, target: Tensor) -> None:
        """target = source, turned."""

    @abstractmethod
    def attend(self, op: Attend, query: Tensor, keys: Tensor, values: Tensor, target: Tensor) -> None:
        """target (n, m, N) = attention of the last m of r rows, whose queries are (n, m, N), to all r, (n, r, M).

        Of one query, m = 1, the keys may come in any order, for only those that it sees are among them.
        """


class Floating(Arithmetic):
    """Floating point, in the type of the weights."""

    def ready(self, op: Affine, which: int) -> Ready:
        matrix, bias = op.weight[which].flatten(0, 1), op.bias[which]
        plain = not bias.any()  # then what the sum starts from can take the bias's place

        def affine(window: Tensor, init: Tensor | None, target: Tensor) -> None:
            if window.dim() == 3:
                y = torch.addmm(bias, window.reshape(-1, matrix.shape[0]), matrix).view(target.shape)
                target.copy_(y if init is None else y.add_(init))
            elif init is not None and plain:
                torch.addmm(init, window, matrix, out=target)
            else:
                torch.addmm(bias, window, matrix, out=target)
                if init is not None:
                    target.add_(init)
            if op.relu:
                target.relu_()

        return affine

    def point(self, op: Point, source: Tensor, other: Tensor | None, target: Tensor) -> None:
        if op.function == "gate" and other is not None:  # the one that takes its time, without a copy
            torch.mul(torch.tanh(source), torch.sigmoid(other), out=target)
        elif other is not None:
            target.copy_(PAIRS[op.function](source, other))
        elif op.function in DOUBLES:
            target.copy_(DOUBLES[op.function](source, -1))
        else:
            target.copy_(FUNCTIONS[op.function](source))

    def couple(self, op: Couple, source: Tensor, symbols: Tensor, target: Tensor) -> None:
        target.copy_(coupled(source, symbols, op.channel, op.components, op.levels))

    def add(self, op: Add, a: Tensor, b: Tensor, target: Tensor) -> None:
        torch.add(a, b, out=target)
        if op.relu:
            target.copy_(functional.relu(target))

    def put(self, put: Put, symbol: Tensor, channel: int) -> Tensor:
        return put.layer.absorb(symbol, channel)

    def normalise(self, op: Normalise, source: Tensor, target: Tensor) -> None:
        target.copy_(normalised(source, op.gain, op.shift, op.centred, op.epsilon))

    def rotate(self, op: Rotate, source: Tensor, angles: Tensor, target: Tensor) -> None:
        target.copy_(rotated(source, angles, op.turned))

    def attend(self, op: Attend, query: Tensor, keys: Tensor, values: Tensor, target: Tensor) -> None:
        target.copy_(attended(query, keys, values, op.size, op.window))
