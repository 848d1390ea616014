"""Row LSTM and Diagonal BiLSTM: van den Oord, Kalchbrenner & Kavukcuoglu 2016, "Pixel Recurrent Neural Networks".

::

    symbols ──▶ 7x7 A ──┬─ input term ──▶ LSTM over the image ──▶ 1x1 (h -> 2h) ─ + ──▶ ... ──▶ 2 x (relu, 1x1) ──▶ relu, 1x1
                        └─────────────────────────────────────────────────────────┘

The Row LSTM reads the three hidden values above, so that a pixel sees a triangle that widens by a column a row, and its own row
through the input terms. The Diagonal BiLSTM reads its left and its upper neighbour; a second one comes from the right, through
the rows above alone: together they see everything before a pixel, already in the first layer.
"""

from __future__ import annotations

from torch import Tensor, nn

from ancestral.causal import LSTM, CausalNetwork, Embedding, Labels, LeftAffine, Reach, Scale, WindowAffine, relu, spread
from ancestral.core import Autoregressive
from ancestral.networks.configs import DiagonalBiLSTMConfig, RowLSTMConfig
from ancestral.networks.images import Feed, image_model
from ancestral.networks.pixelcnn import MaskedWindow
from ancestral.spec import DataSpec


def pixelrnn(config: RowLSTMConfig | DiagonalBiLSTMConfig, spec: DataSpec) -> Autoregressive:
    """The model of a `RowLSTMConfig` or a `DiagonalBiLSTMConfig`.

    Raises:
        ValueError: the data are not images of integers, or have more colours than a layer has features.
    """
    sizes = {name: getattr(config, name) for name in ("layers", "channels", "first_kernel", "head")}
    return image_model(PixelRNN, config, spec, sizes | {"diagonal": isinstance(config, DiagonalBiLSTMConfig)}, auto="categorical")


class PixelRNN(CausalNetwork):
    """x' = x + W LSTM(V x), layer by layer.

    (n, C, H, W) symbols to (n, C, H, W, size) parameters. Features are shared among the colour channels, and those of a
    channel see only the channels before it at their own pixel.

    Args:
        shape: (C, H, W).
        levels: the alphabet of the symbols.
        size: parameters of one conditional.
        diagonal: whether it is a Diagonal BiLSTM; else it is a Row LSTM.
        layers, channels, first_kernel, head: depth, hidden values h of an LSTM, window of the first layer, features of the 1x1
            head.
        vector: size of ``context.vector``, added in every layer.
        grid: features of ``context.grid`` (n, grid, H, W), likewise.
        embedding: features of a table that symbols are looked up in, for those that are names and no quantities; 0 scales them.

    Example:
        >>> network = PixelRNN((1, 3, 11), levels=2, size=1, diagonal=False, layers=1, channels=2, first_kernel=3, head=2)
        >>> [sorted(column for row, column in network.receptive_field() if row == above) for above in (-1, -2)]
        [[-3, -2, -1, 0, 1], [-4, -3, -2, -1, 0, 1, 2]]
    """

    def __init__(
        self,
        shape: tuple[int, int, int],
        levels: int,
        size: int,
        *,
        diagonal: bool,
        layers: int = 12,
        channels: int = 128,
        first_kernel: int = 7,
        head: int = 1024,
        vector: int = 0,
        grid: int = 0,
        embedding: int = 0,
    ) -> None:
        super().__init__(shape)
        colours = shape[0]
        wide, narrow, hidden = (spread(features, colours) for features in (2 * channels, channels, head))
        self.scale = Embedding(colours, levels, embedding) if embedding else Scale(colours, levels)
        self.first = MaskedWindow(self.scale.labels, wide, first_kernel, strict=True)
        self.feed = Feed(vector, grid, 2 * channels)
        self.layers = nn.ModuleList(
            Diagonal(self.scale.labels, wide, narrow, vector, grid) if diagonal else Row(wide, narrow, vector, grid)
            for _ in range(layers)
        )
        self.diagonal = diagonal
        self.head = nn.Sequential(
            *(relu(), LeftAffine(wide, hidden)),
            *(relu(), LeftAffine(hidden, hidden)),
            *(relu(), LeftAffine(hidden, spread(colours * size, colours))),
        )

    def body(self, x: Tensor, vector: Tensor | None, grid: Tensor | None) -> Tensor:
        symbols = self.scale(x)
        h = self.feed(self.first(symbols), vector, grid)
        for layer in self.layers:
            h = layer(h, symbols, vector, grid) if self.diagonal else layer(h, vector, grid)
        return self.head(h)  # type: ignore[no-any-return]


class Row(nn.Module):
    """x + W LSTM over rows, whose input term reads the site and its left neighbour.

    Args:
        wide, narrow: colour channels of the features outside, and of the hidden values.
        vector, grid: sizes of the context that it adds.
    """

    def __init__(self, wide: Labels, narrow: Labels, vector: int, grid: int) -> None:
        super().__init__()
        self.term, self.feed = LeftAffine(wide, narrow * 4, left=1), Feed(vector, grid, 4 * len(narrow))
        self.lstm, self.out = LSTM(narrow, "row"), LeftAffine(narrow, wide)

    def forward(self, x: Tensor, vector: Tensor | None, grid: Tensor | None) -> Tensor:
        return self.out(self.lstm(self.feed(self.term(x), vector, grid))) + x  # type: ignore[no-any-return]


class Diagonal(nn.Module):
    """x + W LSTM from the left + W' LSTM from the right, which is a row behind: its input term reads the row above.

    The paper computes the second on the mirrored image and shifts what it gives down by a row. That row is known whole, so
    nothing of it is graded, and its symbols are read, too: no feature of a row knows its last pixel, which would go unseen.

    Args:
        symbols, wide, narrow: colour channels of what symbols are read as, of the features outside, and of the hidden values.
        vector, grid: sizes of the context that it adds.
    """

    def __init__(self, symbols: Labels, wide: Labels, narrow: Labels, vector: int, grid: int) -> None:
        super().__init__()
        h, above = len(narrow), Reach(above=1, own_row=False)
        self.term, self.feed = LeftAffine(wide, narrow * 4), Feed(vector, grid, 4 * h)
        self.lstm, self.out = LSTM(narrow, "diagonal"), LeftAffine(narrow, wide)
        self.back_term = WindowAffine(len(wide), 4 * h, above)
        self.back_symbols = WindowAffine(len(symbols), 4 * h, above, bias=False)
        self.back_feed = Feed(vector, grid, 4 * h)
        self.back_lstm, self.back_out = LSTM(narrow, "reverse"), WindowAffine(h, len(wide), Reach(), bias=False)

    def forward(self, x: Tensor, symbols: Tensor, vector: Tensor | None, grid: Tensor | None) -> Tensor:
        ahead = self.out(self.lstm(self.feed(self.term(x), vector, grid)))
        back = self.back_feed(self.back_term(x) + self.back_symbols(symbols), vector, grid)
        back = self.back_out(self.back_lstm(back))
        return ahead + back + x  # type: ignore[no-any-return]
