"""PixelCNN (van den Oord, Kalchbrenner & Kavukcuoglu 2016, arXiv:1601.06759): masked convolutions in residual blocks.

::

    symbols ──▶ 7x7 A ──┬─ relu, 1x1 (2h -> h), relu, 3x3 B, relu, 1x1 (h -> 2h) ─ + ──▶ ... ──▶ 2 x (relu, 1x1) ──▶ relu, 1x1
                        └───────────────────────────────────────────────────────────┘

A masked window reads the rows above, and its own row up to its site. Its corners do not make up for what the mask takes away:
pixels above and far to the right are never seen, however deep the network is, since a row up gains one window's half width at
most. `GatedPixelCNN` has no such blind spot.
"""

from __future__ import annotations

from math import sqrt

import torch
from torch import Tensor, nn
from torch.nn import functional

from ancestral.causal import CausalNetwork, Embedding, Labels, LeftAffine, Reach, Scale, Signal, WindowAffine, relu, spread
from ancestral.core import Autoregressive
from ancestral.networks.configs import PixelCNNConfig
from ancestral.networks.images import Feed, image_model
from ancestral.spec import DataSpec


def pixelcnn(config: PixelCNNConfig, spec: DataSpec) -> Autoregressive:
    """The model of a `PixelCNNConfig`.

    Raises:
        ValueError: the data are not images of integers, or have more colours than a layer has features.
    """
    sizes = {name: getattr(config, name) for name in ("layers", "channels", "first_kernel", "kernel", "head")}
    return image_model(PixelCNN, config, spec, sizes, auto="categorical")


class PixelCNN(CausalNetwork):
    """x' = x + W2 relu(masked window of relu(W1 relu(x)) + V vector + U grid), block by block.

    (n, C, H, W) symbols to (n, C, H, W, size) parameters. Features are shared among the colour channels, and those of a
    channel see only the channels before it at their own pixel.

    Args:
        shape: (C, H, W).
        levels: the alphabet of the symbols.
        size: parameters of one conditional.
        layers, channels, first_kernel, kernel, head: residual blocks, features h inside them, window sizes, features of the 1x1
            head.
        vector: size of ``context.vector``, added in every layer.
        grid: features of ``context.grid`` (n, grid, H, W), likewise.
        embedding: features of a table that symbols are looked up in, for those that are names and no quantities; 0 scales them.

    Example:
        >>> network = PixelCNN((1, 9, 9), levels=2, size=1, layers=1, channels=2, first_kernel=3, head=2)
        >>> sorted(network.receptive_field())[-4:]  # above and to the right, a column more for a row more
        [(-1, 0), (-1, 1), (0, -2), (0, -1)]
    """

    def __init__(
        self,
        shape: tuple[int, int, int],
        levels: int,
        size: int,
        *,
        layers: int = 15,
        channels: int = 128,
        first_kernel: int = 7,
        kernel: int = 3,
        head: int = 1024,
        vector: int = 0,
        grid: int = 0,
        embedding: int = 0,
    ) -> None:
        super().__init__(shape)
        colours = shape[0]
        wide, hidden = spread(2 * channels, colours), spread(head, colours)
        self.scale, self.relu = Embedding(colours, levels, embedding) if embedding else Scale(colours, levels), relu()
        self.first = MaskedWindow(self.scale.labels, wide, first_kernel, strict=True)
        self.feed = Feed(vector, grid, 2 * channels)
        self.blocks = nn.ModuleList(Block(wide, spread(channels, colours), kernel, vector, grid) for _ in range(layers))
        self.head = nn.Sequential(
            *(relu(), LeftAffine(wide, hidden)),
            *(relu(), LeftAffine(hidden, hidden)),
            *(relu(), LeftAffine(hidden, spread(colours * size, colours))),
        )

    def body(self, x: Tensor, vector: Tensor | None, grid: Tensor | None) -> Tensor:
        h = self.feed(self.first(self.scale(x)), vector, grid)
        for block in self.blocks:
            h = block(h, vector, grid)
        return self.head(h)  # type: ignore[no-any-return]


class Block(nn.Module):
    """A residual block; see the picture above.

    Args:
        wide, narrow: colour channels of the features outside and inside.
        kernel: side of the window.
        vector, grid: sizes of the context that it adds.
    """

    def __init__(self, wide: Labels, narrow: Labels, kernel: int, vector: int, grid: int) -> None:
        super().__init__()
        self.relu = relu()
        self.before, self.after = LeftAffine(wide, narrow), LeftAffine(narrow, wide)
        self.window = MaskedWindow(narrow, narrow, kernel)
        self.feed = Feed(vector, grid, len(narrow))

    def forward(self, x: Tensor, vector: Tensor | None, grid: Tensor | None) -> Tensor:
        seen = self.window(self.relu(self.before(self.relu(x))))
        return self.after(self.relu(self.feed(seen, vector, grid))) + x  # type: ignore[no-any-return]


class MaskedWindow(nn.Module):
    """A convolution of k x k that sees the rows above and, in its own row, what is left of its site and the site itself.

    The site itself is graded by colour channel (mask B), or below it when ``strict`` (mask A). Only what may be seen has weights.
    One convolution for tensors; a walk computes the rows above once a row and the rest once a site.

    Args:
        before, after: the colour channel of every input and output feature.
        kernel: k.
        strict: the first layer of a network, which must not see the symbol that it predicts.

    Raises:
        ValueError: the kernel is even, or sees no row above.
    """

    def __init__(self, before: Labels, after: Labels, kernel: int, strict: bool = False) -> None:
        super().__init__()
        if kernel % 2 == 0 or kernel < 3:
            raise ValueError(f"kernel is {kernel}; a masked window around a pixel is odd and at least 3")
        self.reach = half = kernel // 2
        self.above = WindowAffine(len(before), len(after), Reach(half, half, half, own_row=False), bias=False)
        self.left = LeftAffine(before, after, half, strict)
        bound = 1 / sqrt(len(before) * (kernel * half + half + 1))  # one window of both parts
        for parameter in self.parameters():
            nn.init.uniform_(parameter, -bound, bound)

    @property
    def kernel(self) -> Tensor:
        """(features, features, k // 2 + 1, k): the rows that are seen, the own row last, zero where the mask is."""
        left = self.left.masked
        own = functional.pad(left, (0, 2 * self.reach + 1 - left.shape[3]))
        return torch.cat([self.above.weight, own], 2)

    def forward(self, x: Tensor) -> Tensor:
        if isinstance(x, Signal):
            return self.left(x) + self.above(x)
        return functional.conv2d(functional.pad(x, (self.reach, self.reach, self.reach, 0)), self.kernel, self.left.bias)
