"""A causal network with a small window: the decoder of a Variational Lossy Autoencoder (Chen et al. 2017, arXiv:1611.02731).

::

                  A wide
      ┌───────────────────────┐
      │  .    .    .    .    .│ B rows      h ──gate──▶ h ──┬─ 1x1, gate, 1x1 ─ + ──▶ ... ──▶ elu, 1x1, elu, 1x1
      │  .    .    .    .    .│             ▲               └────────────────────┘
      └─────────────┬────┬────┘             │                         ▲
          left  .  .│ x  │         window of symbols     context (and the pixel's earlier colours)
                    └────┘

What the window does not show has to come from the context, so that a latent z is left to say what an image is as a whole. All
depth is in 1x1 layers: no stack of layers widens the window. It may show less still: the luma of its pixels instead of their
colours, or the means of squares of pixels instead of the pixels, which hides details and shows what is far away.
"""

from __future__ import annotations

from math import sqrt

import torch
from torch import Tensor, nn

from ancestral.causal import CausalNetwork, Labels, LeftAffine, Reach, Scale, WindowAffine, elu, gate, spread
from ancestral.networks.images import Feed
from ancestral.symbols import LUMA as THOUSANDTHS

LUMA = tuple(share / sum(THOUSANDTHS) for share in THOUSANDTHS)  # of red, green and blue in a pixel's brightness


class LocalPixelCNN(CausalNetwork):
    """p(x_i | window above and left of x_i, context): (n, C, H, W) symbols to (n, C, H, W, size) parameters.

    The window is A wide and B rows high on top of a pixel, and ceil((A - 1) / 2) pixels to its left.

    Args:
        shape: (C, H, W).
        levels: the alphabet of the symbols.
        size: parameters of one conditional.
        window: (A, B).
        layers, channels, head: 1x1 layers after the window, their features, features of the head.
        coupled: whether the colours of a pixel see the ones before them; else they are independent given window and context.
        grey: show only the luma 0.299 R + 0.587 G + 0.114 B of the window's pixels.
        block: the window is made of squares of block x block pixels, to the left of strips 1 x block, and shows only their means.
        vector, grid: sizes of the parts of the context, which every layer adds.

    Raises:
        ValueError: the window is empty, or grey without three colours.

    Example:
        >>> network = LocalPixelCNN((1, 28, 28), levels=2, size=1, window=(5, 3), layers=1, channels=4, head=4)
        >>> len(network.receptive_field())  # 15 pixels on top, 2 to the left
        17
    """

    def __init__(
        self,
        shape: tuple[int, int, int],
        levels: int,
        size: int,
        *,
        window: tuple[int, int] = (5, 3),
        layers: int = 4,
        channels: int = 64,
        head: int = 128,
        coupled: bool = True,
        grey: bool = False,
        block: int = 1,
        vector: int = 0,
        grid: int = 0,
    ) -> None:
        super().__init__(shape)
        colours = shape[0]
        self.scale = Scale(colours, levels)
        parts = reaches(*window, block)
        self.windows = nn.ModuleList(SummaryWindow(colours, 2 * channels, reach, grey, block, len(parts) == 1) for reach in parts)
        self.feed, self.gate = Feed(vector, grid, 2 * channels), gate()
        plain, labels = (0,) * channels, spread(channels, colours) if coupled else (0,) * channels
        self.layers = nn.ModuleList(
            LocalLayer(labels if i else plain, labels, self.scale.labels if labels != plain and not i else (), vector, grid)
            for i in range(layers)
        )
        hidden, outputs = spread(head, colours) if labels != plain else (0,) * head, spread(colours * size, colours)
        self.head = nn.Sequential(elu(), LeftAffine(labels, hidden), elu(), LeftAffine(hidden, outputs))

    def body(self, x: Tensor, vector: Tensor | None, grid: Tensor | None) -> Tensor:
        symbols = self.scale(x)
        seen = self.windows[0](symbols)
        for window in list(self.windows)[1:]:
            seen = seen + window(symbols)
        h = self.gate(self.feed(seen, vector, grid))
        for layer in self.layers:
            h = layer(h, symbols, vector, grid)
        return self.head(h)  # type: ignore[no-any-return]


class LocalLayer(nn.Module):
    """h + W (tanh(a) * sigmoid(b)), (a, b) = M h + context, of every pixel by itself.

    Args:
        before, labels: colour channels of the features that come in and go out; where they differ h is not added.
        symbols: colour channels of the symbols' features, where the colours of a pixel are to see the ones before them.
        vector, grid: sizes of the context.
    """

    def __init__(self, before: Labels, labels: Labels, symbols: Labels, vector: int, grid: int) -> None:
        super().__init__()
        pairs = (*labels, *labels)
        self.residual = before == labels
        self.mix, self.out = LeftAffine(before, pairs), LeftAffine(labels, labels)
        self.own = LeftAffine(symbols, pairs, strict=True) if symbols else None
        self.feed, self.gate = Feed(vector, grid, len(pairs)), gate()

    def forward(self, h: Tensor, symbols: Tensor, vector: Tensor | None, grid: Tensor | None) -> Tensor:
        mixed = self.mix(h) if self.own is None else self.mix(h) + self.own(symbols)
        out: Tensor = self.out(self.gate(self.feed(mixed, vector, grid)))
        return out + h if self.residual else out


class SummaryWindow(WindowAffine):
    """A window of symbols that sees squares of pixels by their means, and colours by their luma where ``grey``.

    An ordinary window whose weights are tied, so that no engine needs to know.

    Args:
        colours, features: that come in and go out.
        reach: the window, which shows rows above or the row so far.
        grey, block: see `LocalPixelCNN`.
        sitewise: see `WindowAffine`.

    Raises:
        ValueError: grey without three colours.
    """

    luma: Tensor | None

    def __init__(
        self, colours: int, features: int, reach: Reach, grey: bool = False, block: int = 1, sitewise: bool = False
    ) -> None:
        super().__init__(colours, features, reach, sitewise=sitewise)
        if grey and colours != len(LUMA):
            raise ValueError(f"a grey window is of images of three colours, not of {colours}")
        self.register_buffer("luma", torch.tensor(LUMA)[:, None, None] if grey else None, persistent=False)
        self.block = (block if reach.above else 1, block)
        rows, columns = (side // step for side, step in zip(self.weight.shape[2:], self.block, strict=True))
        bound = 1 / sqrt(rows * columns * (1 if grey else colours))
        self.weight = nn.Parameter(torch.empty(features, 1 if grey else colours, rows, columns).uniform_(-bound, bound))

    @property
    def kernel(self) -> Tensor:
        weight = self.weight if self.luma is None else self.weight * self.luma
        rows, columns = self.block
        return weight.repeat_interleave(rows, 2).repeat_interleave(columns, 3) / (rows * columns)


def reaches(width: int, rows: int, block: int = 1) -> list[Reach]:
    """The two parts of a window: the rows above, and the row so far, of which each may be empty.

    Raises:
        ValueError: both are.

    Example:
        >>> [len(reach.offsets()) for reach in reaches(7, 4)]
        [28, 3]
    """
    if width < 1 or rows < 0 or block < 1 or (width, rows) == (1, 0):
        raise ValueError(
            f"a window {width} wide, {rows} rows high, of squares of {block}, shows nothing; 5 wide and 3 high is usual"
        )
    left = width // 2  # ceil((width - 1) / 2)
    right = width - 1 - left
    above = Reach(block * rows, block * left + (block - 1) // 2, block * right + block // 2, own_row=False)
    return ([above] if rows else []) + ([Reach(left=block * left, own_site=False)] if left else [])
