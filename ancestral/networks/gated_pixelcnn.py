"""Gated PixelCNN: van den Oord et al. 2016b, "Conditional Image Generation with PixelCNN Decoders".

      symbols ──┬── rows above ──▶ v ──gate──▶ v ──gate──▶ ...      vertical stack: everything in the rows above
                │                  │ 1x1       │ 1x1
                └── left ────────▶ h ──gate──▶ h ──gate──▶ ...      horizontal stack: the row so far
                                   └─ skip ────┴─ skip ────┴──▶ relu, 1x1, relu, 1x1 ──▶ parameters

Two stacks see everything above and to the left: there is no blind spot. The vertical stack knows no symbol of its own row,
so a walk computes it once a row.
"""

from __future__ import annotations

from torch import Tensor, nn

from ancestral.causal import AboveAffine, CausalNetwork, Embedding, Labels, LeftAffine, Once, Scale, gate, relu, spread
from ancestral.core import Autoregressive
from ancestral.networks.configs import GatedPixelCNNConfig
from ancestral.networks.images import Feed, image_model
from ancestral.spec import DataSpec


def gated_pixelcnn(config: GatedPixelCNNConfig, spec: DataSpec) -> Autoregressive:
    """The model of a `GatedPixelCNNConfig`.

    Raises:
        ValueError: the data are not images of integers, or have more colours than a layer has features.
    """
    return image_model(GatedPixelCNN, config, spec, config.decoder_sizes())


class GatedPixelCNN(CausalNetwork):
    """h' = h + W (tanh(a) * sigmoid(b)), (a, b) = left window of h + link(v) + context, layer by layer.

    (n, C, H, W) symbols to (n, C, H, W, size) parameters. Features are shared among the colour channels, and those of a
    channel see only the channels before it at their own pixel.

    Args:
        shape: (C, H, W).
        levels: the alphabet of the symbols; None for real values.
        size: parameters of one conditional.
        layers, channels, first_kernel, kernel, head: depth, features p of each stack, window sizes, features of the 1x1 head.
        vector: size of ``context.vector``, added in every layer.
        grid: features of ``context.grid`` (n, grid, H, W).
        stream: features of a stack of unmasked 3x3 convolutions over the grid, one a layer, beside the causal ones (Lucas &
            Verbeek 2018, section 4.1); 0 hands the grid itself to every layer.
        upsample: how many times smaller than the image the grid is, each way.
        beside: whether the grid enters beside the symbols, in the first layer alone, as maps of the image would.
        coupled: whether the channels of a pixel see the ones before them; else they are independent given the pixels before.
        embedding: features of a table that symbols are looked up in, for those that are names and no quantities; 0 scales them.

    Raises:
        ValueError: a window is even, or too small.

    Example:
        >>> network = GatedPixelCNN((1, 5, 4), levels=2, size=1, layers=2, channels=4, first_kernel=3, head=4)
        >>> sorted(network.receptive_field())[:3]
        [(-2, -2), (-2, -1), (-2, 0)]
    """

    def __init__(
        self,
        shape: tuple[int, int, int],
        levels: int | None,
        size: int,
        *,
        layers: int = 7,
        channels: int = 64,
        first_kernel: int = 7,
        kernel: int = 3,
        head: int = 128,
        vector: int = 0,
        grid: int = 0,
        stream: int = 0,
        upsample: int = 1,
        beside: bool = False,
        coupled: bool = True,
        embedding: int = 0,
    ) -> None:
        super().__init__(shape, levels is not None)
        for name, window, least in (("first_kernel", first_kernel, 3), ("kernel", kernel, 1)):
            if window % 2 == 0 or window < least:
                raise ValueError(f"{name} is {window}; a window around a pixel is odd and at least {least}")
        self.beside = beside
        self.resize = Once(nn.Upsample(scale_factor=float(upsample))) if upsample > 1 else None
        colours, groups = shape[0], shape[0] if coupled else 1
        labels, outputs = spread(channels, groups), spread(colours * size, colours)
        self.scale = Embedding(colours, levels or 0, embedding) if embedding else Scale(colours, levels)
        self.stream = nn.ModuleList(
            Once(nn.Conv2d(stream if i else grid, stream, 3, padding=1)) for i in range(layers if grid and stream else 0)
        )
        seen = [0 if beside and i else grid and (stream or grid) for i in range(layers)]
        self.layers = nn.ModuleList(
            GatedLayer(labels if i else self.scale.labels, labels, kernel if i else first_kernel, not i, vector, seen[i])
            for i in range(layers)
        )
        hidden = spread(head, groups)
        self.head = nn.Sequential(relu(), LeftAffine(labels, hidden), relu(), LeftAffine(hidden, outputs))

    def body(self, x: Tensor, vector: Tensor | None, grid: Tensor | None) -> Tensor:
        v = h = self.scale(x)
        skips = None
        if self.resize is not None and grid is not None:
            grid = self.resize(grid)
        for i, layer in enumerate(self.layers):
            if self.stream and grid is not None:
                grid = relu()(self.stream[i](grid))
            v, h, skip = layer(v, h, vector, None if self.beside and i else grid)
            skips = skip if skips is None else skips + skip
        return self.head(skips)  # type: ignore[no-any-return]


class GatedLayer(nn.Module):
    """One layer of both stacks; see the picture above.

    Args:
        before, labels: colour channels of the features that come in and go out.
        kernel: side of the window.
        first: it reads the symbols, which it must not see at its own site, and has no residual connection.
        vector, grid: sizes of the context that every layer adds to both stacks.
    """

    def __init__(self, before: Labels, labels: Labels, kernel: int, first: bool, vector: int, grid: int) -> None:
        super().__init__()
        features, pairs = len(labels), (*labels, *labels)
        self.first = first
        self.above = AboveAffine(len(before), 2 * features, kernel, strict=first)
        self.left = LeftAffine(before, pairs, kernel // 2, strict=first)
        self.link = LeftAffine((0,) * 2 * features, (0,) * 2 * features)
        self.above_feed, self.left_feed = Feed(vector, grid, 2 * features), Feed(vector, grid, 2 * features)
        self.gate = gate()
        self.out, self.skip = LeftAffine(labels, labels), LeftAffine(labels, labels)

    def forward(self, v: Tensor, h: Tensor, vector: Tensor | None, grid: Tensor | None) -> tuple[Tensor, Tensor, Tensor]:
        a = self.above_feed(self.above(v), vector, grid)
        b = self.left(h) + self.left_feed(self.link(a), vector, grid)
        gated = self.gate(b)
        out = self.out(gated)
        return self.gate(a), out if self.first else out + h, self.skip(gated)
