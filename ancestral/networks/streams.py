"""Features of a context's grid beside a network of three resolutions: ordinary convolutions, for they may see all of it."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from ancestral.causal import Once


class Stream(nn.Module):
    """One unmasked 3x3 convolution for each layer of the network, at its resolution (Lucas & Verbeek 2018, section 4.1).

    Each adds to the features before it; on the way up they begin as the finer ones of the way down and the coarser ones, doubled.

    Args:
        grid: features of the grid.
        features: of each convolution.
        down, up: how many layers there are at each resolution, one way and the other.
        upsample: how many times smaller than the image the grid is, each way.
    """

    def __init__(self, grid: int, features: int, down: Sequence[int], up: Sequence[int], upsample: int = 1) -> None:
        super().__init__()
        self.grid = grid
        self.resize = Once(nn.Upsample(scale_factor=float(upsample))) if upsample > 1 else None
        self.enter = Once(nn.Conv2d(grid, features, 3, padding=1))
        self.down, self.up = convolutions(features, down), convolutions(features, up)
        self.halvings = nn.ModuleList(Once(nn.Conv2d(features, features, 3, 2, 1), shrink=2) for _ in down[1:])
        self.doubling, self.elu = Once(nn.Upsample(scale_factor=2.0), grow=2), Once(nn.ELU())

    def forward(self, grid: Tensor, size: tuple[int, int]) -> list[Tensor]:
        """(n, grid, h, w) to (n, features, ...) for each layer of an image of (H, W), filled up to whole coarse places."""
        grid = grid if self.resize is None else self.resize(grid)
        below, right = (-side % 2 ** len(self.halvings) for side in size)
        x = self.enter(Once(Filled(self.grid, size, below, right))(grid) if below or right else grid)
        found, passed = list[Tensor](), list[Tensor]()
        for level, layers in enumerate(self.down):
            x = self.halvings[level - 1](self.elu(x)) if level else x
            x = self._through(layers, x, found)
            passed.append(x)
        for level, layers in enumerate(self.up):
            x = self.doubling(x) + passed[-1 - level] if level else x
            x = self._through(layers, x, found)
        return found

    def _through(self, layers: nn.Module, x: Tensor, found: list[Tensor]) -> Tensor:
        for layer in layers.children():
            x = x + layer(self.elu(x))
            found.append(x)
        return x


def convolutions(features: int, counts: Sequence[int]) -> nn.ModuleList:
    """So many convolutions at each resolution."""
    return nn.ModuleList(
        nn.ModuleList(Once(nn.Conv2d(features, features, 3, padding=1)) for _ in range(count)) for count in counts
    )


class Filled(nn.Module):
    """(n, channels, H, W) with rows of zeros below and columns of zeros at the right."""

    def __init__(self, channels: int, size: tuple[int, int], below: int, right: int) -> None:
        super().__init__()
        self.channels, self.size, self.below, self.right = channels, size, below, right

    def forward(self, x: Tensor) -> Tensor:
        height, width = self.size
        if self.right:
            x = torch.cat([x, x.new_zeros(len(x), self.channels, height, self.right)], 3)
        if self.below:
            x = torch.cat([x, x.new_zeros(len(x), self.channels, self.below, width + self.right)], 2)
        return x
