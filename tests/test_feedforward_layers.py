"""Integer twins of what latent hierarchies are made of: masked layers, transposed convolutions, arithmetic."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional

from ancestral.walking.exact.feedforward import IntegerNet
from ancestral.walking.exact.operations import Fixed

CLOSE = 2e-3  # of the largest output: what a twin may differ from the floats


class Function(nn.Module):
    """A function as a module."""

    def __init__(self, function: Callable[[Tensor], Tensor]) -> None:
        super().__init__()
        self.function = function

    def forward(self, x: Tensor) -> Tensor:
        return self.function(x)


class Masked(nn.Module):
    """Layers whose weights have masks, given to the functions."""

    def __init__(self) -> None:
        super().__init__()
        self.conv, self.dense = nn.Conv2d(4, 3, 3), nn.Linear(6, 2)
        self.mask = nn.Buffer(torch.rand(3, 4, 3, 3).round())

    def forward(self, x: Tensor) -> Tensor:
        x = functional.conv2d(functional.pad(x, (1, 1, 1, 0)), self.conv.weight * self.mask, self.conv.bias)
        return functional.linear(x[:, :, :2].flatten(1)[:, :6], self.dense.weight, bias=self.dense.bias)


class Doubled(nn.Module):
    """A transposed convolution to a size."""

    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.ConvTranspose2d(4, 3, 3, 2, 1)

    def forward(self, x: Tensor) -> Tensor:
        y: Tensor = self.layer(x, (5, 8))
        return y


SUPPORTED = {
    "masked": Masked(),
    "transposed": nn.ConvTranspose2d(4, 3, 5, stride=2, padding=2, output_padding=1),
    "transposed to": Doubled(),
    "gated": Function(lambda x: x.tanh() * torch.sigmoid(x) - x * x),
    "numbers": Function(lambda x: 0.1 * x + 1.5 - (2 - x).clamp(max=1.0)),
    "logarithms": Function(lambda x: functional.softplus(x) + functional.logsigmoid(x) + torch.exp(x.tanh())),
}


@pytest.mark.parametrize("name", SUPPORTED)
@pytest.mark.parametrize("gain", [1e-3, 1.0, 6.0])
def test_supported(name: str, gain: float) -> None:
    x = torch.randn(50, 4, 3, 4) * gain
    net = IntegerNet.calibrate(SUPPORTED[name], x)
    q = Fixed.of(x, net.fractions[next(iter(net.fractions))])
    expected = SUPPORTED[name](q.values())
    assert (net(q).values() - expected).abs().max() < CLOSE * expected.abs().max()
