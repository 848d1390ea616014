"""Convolutional ResNets between images and latents, and small perceptrons for vectors.

These are not walks: they run once, so any convolution will do. Nothing is normalised over the batch.
"""

from __future__ import annotations

from math import prod

import torch
from torch import Tensor, nn
from torch.nn import functional


class Residual(nn.Module):
    """x + conv(elu(conv(elu(x)))), the second convolution starting small; (n, width, H, W) to the same.

    Args:
        width: features.
        kernel: sides of the windows, odd.
    """

    def __init__(self, width: int, kernel: tuple[int, int] = (3, 3)) -> None:
        super().__init__()
        padding = (kernel[0] // 2, kernel[1] // 2)
        self.first = nn.Conv2d(width, width, kernel, padding=padding)
        self.second = nn.Conv2d(width, width, kernel, padding=padding)
        nn.init.normal_(self.second.weight, std=1e-3)
        nn.init.zeros_(self.second.bias)  # type: ignore[arg-type]

    def forward(self, x: Tensor) -> Tensor:
        h: Tensor = self.second(functional.elu(self.first(functional.elu(x))))
        return x + h


def scaled(x: Tensor, levels: int | None, dtype: torch.dtype) -> Tensor:
    """What encoders are given of (n, *shape) symbols: values in [-1, 1], or real values (``levels`` None) as they are."""
    x = x.to(dtype)
    return x if levels is None else x * (2 / (levels - 1)) - 1


def sides(height: int, width: int, levels: int) -> list[tuple[int, int]]:
    """Image sizes from the finest down, halved (rounding up) ``levels`` times."""
    sizes = [(height, width)]
    for _ in range(levels):
        sizes.append(((sizes[-1][0] + 1) // 2, (sizes[-1][1] + 1) // 2))
    return sizes


class Even(nn.Module):
    """A convolution or linear layer whose weights are its parameters over the root of its inputs (Karras et al. 2018).

    An optimiser that moves every parameter as far as any other, as Adam does, moves an output the farther the more inputs it
    has. Where layer follows layer the features of z so run away in the first dozens of steps, towards whatever constant serves
    the loss, and saturate the gates that they go into. Factors take that out.
    """

    def __init__(self, layer: nn.Conv2d | nn.Linear) -> None:
        super().__init__()
        self.layer, self.gain = layer, layer.weight[0].numel() ** -0.5
        with torch.no_grad():
            for parameter in layer.parameters():
                parameter.div_(self.gain)

    def forward(self, x: Tensor) -> Tensor:
        layer = self.layer
        weight, bias = layer.weight * self.gain, layer.bias * self.gain
        if isinstance(layer, nn.Conv2d):
            return functional.conv2d(x, weight, bias, layer.stride, layer.padding)
        return functional.linear(x, weight, bias)


def evened(module: nn.Module) -> None:
    """Put `Even` around every convolution and every linear layer with a bias inside of a module."""
    for name, child in list(module.named_children()):
        if isinstance(child, nn.Conv2d | nn.Linear) and child.bias is not None:
            setattr(module, name, Even(child))
        else:
            evened(child)


class ImageEncoder(nn.Module):
    """(n, C, H, W) scaled pixels, with (n, vector) labels or none, to (n, outputs) or (n, outputs, h, w).

    Args:
        shape: (C, H, W).
        outputs: numbers out; a grid of them at the coarsest size where ``spatial``.
        width, blocks, levels: features, residual blocks a level, and how often the size is halved.
    """

    def __init__(
        self, shape: tuple[int, int, int], outputs: int, width: int, blocks: int, levels: int, spatial: bool, vector: int
    ) -> None:
        super().__init__()
        stages: list[nn.Module] = []
        for level in range(levels + 1):
            stages += [nn.Conv2d(width, width, 3, stride=2, padding=1)] if level else []
            stages += [Residual(width) for _ in range(blocks)]
        self.stem = nn.Conv2d(shape[0], width, 3, padding=1)
        self.label = nn.Linear(vector, width, bias=False) if vector else None  # zeros are the null label
        self.stages = nn.Sequential(*stages)
        area = prod(sides(*shape[1:], levels)[-1])
        self.head = nn.Conv2d(width, outputs, 1) if spatial else nn.Sequential(nn.Flatten(), nn.Linear(width * area, outputs))

    def forward(self, x: Tensor, vector: Tensor | None) -> Tensor:
        h = self.stem(x)
        if vector is not None and self.label is not None:
            h = h + self.label(vector)[:, :, None, None]
        out: Tensor = self.head(functional.elu(self.stages(h)))
        return out


class ImageDecoder(nn.Module):
    """(n, latent) or (n, latent, h, w), with (n, vector) labels or none, to (n, outputs, H, W): the encoder mirrored.

    Args:
        outputs: (C, H, W).
        cells: (h, w) where the encoder looks at larger images than these outputs: no size on the way is below that of z, which
            would leave cells unread. (0, 0) where z is a vector, or as coarse as the outputs make it.
    """

    def __init__(
        self,
        outputs: tuple[int, int, int],
        latent: int,
        width: int,
        blocks: int,
        levels: int,
        spatial: bool,
        vector: int,
        cells: tuple[int, int] = (0, 0),
    ) -> None:
        super().__init__()
        self.sizes = [(max(h, cells[0]), max(w, cells[1])) for h, w in sides(*outputs[1:], levels)[::-1]]
        self.width, self.spatial = width, spatial
        self.stem = nn.Conv2d(latent, width, 1) if spatial else nn.Linear(latent, width * prod(self.sizes[0]))
        self.label = nn.Linear(vector, width, bias=False) if vector else None  # zeros are the null label
        self.stages = nn.ModuleList(nn.Sequential(*(Residual(width) for _ in range(blocks))) for _ in self.sizes)
        self.grow = nn.ModuleList(nn.Conv2d(width, width, 3, padding=1) for _ in self.sizes[1:])
        self.head = nn.Conv2d(width, outputs[0], 3, padding=1)

    def forward(self, z: Tensor, vector: Tensor | None) -> Tensor:
        h: Tensor = self.stem(z)
        if not self.spatial:
            h = h.view(len(h), self.width, *self.sizes[0])
        if vector is not None and self.label is not None:
            h = h + self.label(vector)[:, :, None, None]
        h = self.stages[0](h)
        for size, grow, stage in zip(self.sizes[1:], self.grow, list(self.stages)[1:], strict=True):
            h = stage(grow(functional.interpolate(h, size=size, mode="nearest")))
        out: Tensor = self.head(functional.elu(h))
        return out


class VectorNet(nn.Module):
    """(n, inputs) with (n, vector) labels or none to (n, outputs): ``blocks`` hidden layers of ``width`` ELU units."""

    def __init__(self, inputs: int, outputs: int, width: int, blocks: int, vector: int) -> None:
        super().__init__()
        layers: list[nn.Module] = [nn.Linear(inputs + vector, width)]
        for _ in range(blocks):
            layers += [nn.ELU(), nn.Linear(width, width)]
        self.vector = vector
        self.layers = nn.Sequential(*layers, nn.ELU(), nn.Linear(width, outputs))

    def forward(self, x: Tensor, vector: Tensor | None) -> Tensor:
        if self.vector:
            x = torch.cat([x, x.new_zeros(len(x), self.vector) if vector is None else vector], 1)
        out: Tensor = self.layers(x)
        return out


class Handed(nn.Module):
    """(n, *latent) with (n, vector) labels or none to (n, d): z and the label side by side, where a decoder reads z itself."""

    def __init__(self, vector: int) -> None:
        super().__init__()
        self.vector = vector

    def forward(self, z: Tensor, vector: Tensor | None) -> Tensor:
        z = z.flatten(1)
        return torch.cat([z, z.new_zeros(len(z), self.vector) if vector is None else vector], 1) if self.vector else z
