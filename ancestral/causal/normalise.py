"""Normalisation of the features of a place by their own mean and variance."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional

from ancestral.causal.layer import CausalityError, Clock, Composite, Labels, Signal, refuse_symbols
from ancestral.causal.lower import Lowering
from ancestral.causal.program import Part
from ancestral.causal.tokens import Normalise

EPSILON = 1e-5


class Normalisation(Composite):
    """gain (x - mean) / sqrt(variance + 1e-5) + bias over the features of a place (Ba, Kiros & Hinton 2016), (n, c, H, W).

    The variance is that of the population. Without ``centred`` gain x / sqrt(mean of x^2 + 1e-5), RMSNorm, which has no bias
    (Zhang & Sennrich 2019).

    Args:
        features: c.
        centred: whether the mean is taken away.
    """

    def __init__(self, features: int, centred: bool = True) -> None:
        super().__init__()
        self.gain = nn.Parameter(torch.ones(features))
        self.bias = nn.Parameter(torch.zeros(features)) if centred else None

    def infer(self, inputs: Sequence[Signal]) -> tuple[Clock, Labels | None]:
        refuse_symbols(self, inputs)
        if any(inputs[0].labels or ()):
            raise CausalityError("a normalisation reads all features of a place: they must be known before its first symbol is")
        return inputs[0].clock, inputs[0].labels

    def forward(self, x: Tensor) -> Tensor:
        return normalised(x.movedim(1, -1), self.gain, self.bias, self.bias is not None, EPSILON).movedim(-1, 1)

    def emit(self, lowering: Lowering, inputs: Sequence[Signal], output: Signal) -> int:
        features = len(self.gain)
        source = lowering.buffer_of(inputs[0])
        target = lowering.claim("norm", output, features)
        gain = self.gain.detach()
        shift = torch.zeros_like(gain) if self.bias is None else self.bias.detach()
        for channel, part in lowering.parts(target, output.clock):
            op = Normalise(output.clock, channel, part, Part(source, 0, features), gain, shift, self.bias is not None, EPSILON)
            lowering.operations.append(op)
        return target


def normalised(x: Tensor, gain: Tensor, shift: Tensor | None, centred: bool, epsilon: float) -> Tensor:
    """(..., c) features normalised; see `Normalisation`. The shift is used where they are centred."""
    if centred:
        return functional.layer_norm(x, gain.shape, gain, shift, epsilon)
    return functional.rms_norm(x, gain.shape, gain, epsilon)
