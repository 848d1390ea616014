"""PixelCNN++ (Salimans, Karpathy, Chen & Kingma 2017, arXiv:1701.05517): gated residual layers at three resolutions.

::

    symbols ──▶ layers ──▶ halve ──▶ layers ──▶ halve ──▶ layers          two streams side by side:
                  │                    │                    │             u   the rows above
                  ▼ shortcuts          ▼                    ▼             ul  those and what is left of the pixel; reads u too
    numbers ◀── layers ◀── double ◀── layers ◀── double ◀── layers

A pixel's features know nothing of the pixel itself, so that its colours are predicted together: a mixture over whole pixels,
which `ChannelMixture` takes apart into one a colour. Every weight matrix is g V / |V|, row by row (Salimans & Kingma 2016), and
``initialise`` sets g and the biases so that features of a first batch have mean 0 and variance 1.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import cached_property, partial
from itertools import repeat
from typing import TypeVar

import torch
from torch import Tensor, nn
from torch.nn import functional
from torch.nn.utils.parametrizations import weight_norm
from torch.nn.utils.parametrize import is_parametrized

from ancestral.causal import (
    AffineLayer,
    CausalNetwork,
    ChannelMixture,
    Clock,
    Embedding,
    Input,
    Labels,
    Reach,
    Scale,
    Signal,
    Transposed,
    WindowAffine,
    concat_elu,
    elu,
    glu,
)
from ancestral.core import Autoregressive, Context
from ancestral.families import LogisticMixture
from ancestral.families.base import check_count
from ancestral.networks.configs import PixelCNNPlusPlusConfig
from ancestral.networks.images import Feed, check_dropout, image_family
from ancestral.networks.streams import Stream
from ancestral.spec import DataSpec

RESOLUTIONS = 3
GAIN = "parametrizations.weight.original0"  # g, as PyTorch calls it
SMALL = 0.1  # spread of what a residual layer adds, at first
FLAT = 1e-8  # variance, as a share of the mean square, from which on a feature is not the same everywhere
Sizes = tuple[int, int]  # of the vector and of the grid of a context
Parts = tuple[Tensor | None, Tensor | None]  # these themselves
Normed = TypeVar("Normed", bound=nn.Module)
ABOVE, BESIDE = Reach(above=1, left=1, right=1), Reach(above=1, left=1)  # 2x3 of u, 2x2 of ul


def pixelcnnpp(
    config: PixelCNNPlusPlusConfig, spec: DataSpec, grid: int = 0, stream: int = 32, upsample: int = 1, embedding: int = 0
) -> Autoregressive:
    """The model of a `PixelCNNPlusPlusConfig`; what else it takes as a decoder or of codes `PixelCNNPlusPlus` says.

    Raises:
        ValueError: the data are not images of integers with 1 or 3 colour channels, the family does not fit them, or a grid has
            no stream, or a size is out of its range.
    """
    if spec.kind != "image" or spec.levels is None or spec.shape[0] not in (1, 3):
        raise ValueError(
            f"pixelcnn++ models images of integers with 1 or 3 colour channels, not {spec.kind} of shape {spec.shape} with"
            f" levels={spec.levels}"
        )
    check_count("channels", config.channels, 1)
    check_count("resnets", config.resnets, 1)
    check_dropout(config.dropout)
    colours, height, width = (size or 0 for size in spec.shape)
    chosen = "logistic" if colours == 3 and config.family == "auto" else config.family
    family = image_family(chosen, spec.levels, config.components)
    if colours == 3 and not isinstance(family, LogisticMixture):
        raise ValueError(f"pixelcnn++ predicts the three colours of a pixel by a mixture of logistics, not {config.family}")
    if grid and stream < 1:
        raise ValueError(f"stream is {stream}; pixelcnn++ reads a grid through at least 1 feature at each resolution")
    network = PixelCNNPlusPlus(
        (colours, height, width),
        spec.levels,
        family.size,
        channels=config.channels,
        resnets=config.resnets,
        dropout=config.dropout,
        vector=(spec.classes or 0) if config.conditional else 0,
        grid=grid,
        stream=stream,
        upsample=upsample,
        embedding=embedding,
    )
    return Autoregressive(network, family, spec, config)


class PixelCNNPlusPlus(CausalNetwork):
    """Two streams of gated residual layers, down to a quarter of the resolution and up again; see the picture above.

    (n, C, H, W) symbols to (n, C, H, W, size) parameters; with three colours those of `ChannelMixture`. Images are filled up to
    a multiple of 4 at the right and below with places that no feature takes for pixels.

    Args:
        shape: (C, H, W).
        levels: the alphabet of the symbols.
        size: parameters of one conditional.
        channels: features F of each stream.
        resnets: layers at every resolution on the way down; on the way up as many, then one more at the larger ones.
        dropout: probability that a feature inside a layer is dropped, in training mode.
        vector: size of ``context.vector``, added in every layer.
        grid: features of ``context.grid`` (n, grid, H, W).
        stream: features of the convolutions over the grid, one a layer, that every layer reads.
        upsample: how many times smaller than the image the grid is, each way.
        embedding: features of a table that symbols are looked up in, for those that are names and no quantities; 0 scales them.
    """

    initialised: Tensor

    def __init__(
        self,
        shape: tuple[int, int, int],
        levels: int,
        size: int,
        *,
        channels: int = 160,
        resnets: int = 5,
        dropout: float = 0.5,
        vector: int = 0,
        grid: int = 0,
        stream: int = 32,
        upsample: int = 1,
        embedding: int = 0,
    ) -> None:
        super().__init__(shape)
        colours, f, context = shape[0], channels, (vector, stream if grid else 0)
        self.marked = Marked(colours, levels, embedding)
        read = len(self.marked.labels)
        self.above = normed(WindowAffine(read, f, Reach(2, 1, 1, own_row=False)))
        self.over = normed(WindowAffine(read, f, Reach(1, 1, 1, own_row=False)))
        self.left = normed(WindowAffine(read, f, Reach(above=1, left=1, own_site=False)))
        counts = [resnets, *[resnets + 1] * (RESOLUTIONS - 1)]  # a shortcut for each layer below, and for the one that halves
        self.down = nn.ModuleList(pairs(resnets, f, dropout, context) for _ in counts)
        self.up = nn.ModuleList(pairs(count, f, dropout, context, shortcut=True) for count in counts)
        self.stream = Stream(grid, stream, [resnets] * RESOLUTIONS, counts, upsample) if grid else None
        self.halvings = nn.ModuleList(halving(f) for _ in counts[1:])
        self.doublings = nn.ModuleList(doubling(f) for _ in counts[1:])
        self.elu = elu()
        self.out = normed(WindowAffine(f, 10 * size // 3 if colours == 3 else size, Reach()))
        self.scale = Scale(colours, levels)
        self.mixture = ChannelMixture(levels, size // 3) if colours == 3 else None
        self.register_buffer("initialised", torch.tensor(False))

    def body(self, x: Tensor, vector: Tensor | None, grid: Tensor | None) -> Tensor:
        if grid is not None and self.stream is None:
            raise ValueError("the context has a grid, but this network takes none")
        fed = repeat(None) if grid is None or self.stream is None else iter(self.stream(grid, self.layout[1:]))
        symbols = self.marked(x)
        u, ul = Features(self.above(symbols)), Features(self.over(symbols) + self.left(symbols))
        passed = [(u, ul)]
        for level, layers in enumerate(self.down):
            if level:
                passed.append(resized(self.halvings[level - 1], *passed[-1]))
            for pair in layers:  # type: ignore[attr-defined]
                passed.append(pair(*passed[-1], (vector, next(fed))))
        u, ul = passed.pop()
        for level, layers in enumerate(self.up):
            if level:
                u, ul = resized(self.doublings[level - 1], u, ul)
            for pair in layers:  # type: ignore[attr-defined]
                u, ul = pair(u, ul, (vector, next(fed)), passed.pop())
        numbers = cropped(self.out(self.elu(ul.plain)), x)
        return numbers if self.mixture is None else self.mixture(numbers, self.scale(x))

    @torch.no_grad()
    def initialise(self, x: Tensor, context: Context | None = None) -> None:
        """Set g and the biases so that over (n, C, H, W) symbols what each layer gives has mean 0 and variance 1.

        To be called once, before training; where it was called before, also before the weights were saved, it does nothing.
        What a residual layer adds gets a tenth of that spread.
        """
        if self.initialised:
            return
        small = [module.second for module in self.modules() if isinstance(module, Resnet)]
        layers = [module for module in self.modules() if is_parametrized(module, "weight")]
        hooks = [
            layer.register_forward_hook(partial(standardise, SMALL if any(layer is each for each in small) else 1.0))
            for layer in layers
        ]
        try:
            self(x, context)
        finally:
            for hook in hooks:
                hook.remove()
        self.initialised.fill_(True)


# -- layers of two streams ---------------------------------------------------------------------------------------------------


class Features:
    """What a stream holds, and the same as layers read it: computed once, read up to three times."""

    function = concat_elu()

    def __init__(self, plain: Tensor) -> None:
        self.plain = plain

    @cached_property
    def active(self) -> Tensor:
        """ELU of the features, then of their negatives."""
        return self.function(self.plain)  # type: ignore[no-any-return]


class Pair(nn.Module):
    """A residual layer of each stream; that of ul reads the new u, and on the way up both read a shortcut.

    Args:
        features: F.
        dropout: probability that a feature is dropped.
        context: sizes of the vector and of the grid that every layer reads.
        shortcut: whether ``forward`` is given one.
    """

    def __init__(self, features: int, dropout: float, context: Sizes, shortcut: bool) -> None:
        super().__init__()
        self.u = Resnet(features, ABOVE, int(shortcut), dropout, context)
        self.ul = Resnet(features, BESIDE, 1 + shortcut, dropout, context)

    def forward(
        self, u: Features, ul: Features, context: Parts, shortcut: tuple[Features, ...] = ()
    ) -> tuple[Features, Features]:
        u = self.u(u, shortcut[:1], context)
        return u, self.ul(ul, (u, *shortcut[1:]), context)


class Resnet(nn.Module):
    """x + a * sigmoid(b), (a, b) = second(concat_elu(first(concat_elu(x)) + link(concat_elu(others)))) + V vector + W grid.

    Args:
        features: F.
        reach: the window of ``first`` and ``second``.
        others: how many other streams it reads at its own place.
        dropout: probability that an argument of ``second`` is dropped, in training mode.
        context: sizes of the vector and of the grid.
    """

    def __init__(self, features: int, reach: Reach, others: int, dropout: float, context: Sizes) -> None:
        super().__init__()
        self.first = normed(WindowAffine(2 * features, features, reach))
        self.second = normed(WindowAffine(2 * features, 2 * features, reach), SMALL)
        self.link = normed(Joint((2 * features,) * others, features)) if others else None
        self.feed = Feed(*context, 2 * features)
        if self.feed.vector is not None:
            nn.init.normal_(self.feed.vector.module.weight, std=0.05)  # type: ignore[arg-type]
        self.activate, self.dropout, self.gate = concat_elu(), nn.Dropout(dropout), glu()

    def forward(self, x: Features, others: Sequence[Features], context: Parts) -> Features:
        y = self.first(x.active)
        if self.link is not None:
            y = y + self.link(*(other.active for other in others))
        y = self.activate(y)
        if not isinstance(y, Signal):  # a Program is of the network as it predicts
            y = self.dropout(y)
        return Features(x.plain + self.gate(self.feed(self.second(y), *context)))


def pairs(count: int, features: int, dropout: float, context: Sizes, shortcut: bool = False) -> nn.ModuleList:
    """The layers of one resolution."""
    return nn.ModuleList(Pair(features, dropout, context, shortcut) for _ in range(count))


def halving(features: int) -> nn.ModuleList:
    """To half the resolution: one layer for each stream."""
    return nn.ModuleList(normed(WindowAffine(features, features, reach, shrink=2)) for reach in (ABOVE, BESIDE))


def doubling(features: int) -> nn.ModuleList:
    """To twice the resolution: one layer for each stream."""
    return nn.ModuleList(normed(Transposed(features, features, side), axis=1) for side in (1, 0))


def resized(layers: nn.Module, u: Features, ul: Features) -> tuple[Features, Features]:
    """Both streams at another resolution."""
    one, other = layers.children()
    return Features(one(u.plain)), Features(other(ul.plain))


# -- weights -----------------------------------------------------------------------------------------------------------------


def normed(layer: Normed, gain: float = 1.0, axis: int = 0) -> Normed:
    """The layer with weight g V / |V|, a g for every output along ``axis`` of the weight, each ``gain`` at first."""
    nn.init.normal_(layer.get_parameter("weight"), std=0.05)
    nn.init.zeros_(layer.get_parameter("bias"))
    weight_norm(layer, dim=axis)
    nn.init.constant_(layer.get_parameter(GAIN), gain)
    return layer


def standardise(spread: float, layer: nn.Module, given: object, y: Tensor) -> Tensor:
    """Change g and the bias of a layer that just gave y, (n, features, H, W), so that it would have had mean 0 and this spread.

    What it would have given is returned, for the layers behind it. A feature that is the same everywhere has no spread to set,
    such as at a resolution of one place, which sees nothing before it: of that the bias alone changes.
    """
    mean, variance = y.mean((0, 2, 3)), y.var((0, 2, 3), correction=0)
    varies = variance > FLAT * y.square().mean((0, 2, 3))
    factor = torch.where(varies, spread * torch.rsqrt(variance + 1e-10), 1.0)
    gain, bias = layer.get_parameter(GAIN), layer.get_parameter("bias")
    gain.mul_(factor.view(gain.shape))
    bias.sub_(mean).mul_(factor)
    return (y - mean[:, None, None]) * factor[:, None, None]


class Joint(nn.Module):
    """A 1x1 map of several inputs side by side: one matrix, so that each of its rows has one norm, and one bias.

    Args:
        before: features of each input.
        after: features that go out.
    """

    def __init__(self, before: tuple[int, ...], after: int) -> None:
        super().__init__()
        self.before = before
        self.weight = nn.Parameter(torch.empty(after, sum(before), 1, 1))
        self.bias = nn.Parameter(torch.empty(after))

    def forward(self, *inputs: Tensor) -> Tensor:
        weights = torch.split(self.weight, list(self.before), 1)
        y = Piece(weights[0], self.bias)(inputs[0])
        for weight, x in zip(weights[1:], inputs[1:], strict=True):
            y = y + Piece(weight, None)(x)
        return y  # type: ignore[no-any-return]


class Piece(AffineLayer):
    """A 1x1 map by a part of another module's matrix, (after, before, 1, 1), which it has no parameters of its own for."""

    def __init__(self, weight: Tensor, bias: Tensor | None) -> None:
        super().__init__()
        self.matrix, self.offset, self.features = weight, bias, len(weight)

    def infer(self, inputs: Sequence[Signal]) -> tuple[Clock, Labels | None]:
        return inputs[0].clock, inputs[0].labels and (0,) * self.features

    def forward(self, x: Tensor) -> Tensor:
        return functional.conv2d(x, self.matrix, self.offset)

    def weights(self, channel: int | None) -> tuple[Tensor, Tensor]:
        bias = self.matrix.new_zeros(self.features) if self.offset is None else self.offset
        return self.matrix[None, None, :, :, 0, 0].mT, bias[None]


# -- the edges of the image --------------------------------------------------------------------------------------------------


class Marked(Input):
    """Symbols, scaled or looked up, and a feature that is 1 where there is a pixel: (n, C, H, W) to (n, C e + 1, H', W').

    H' and W' are filled up to a multiple of 4 with zeros: a feature of 0 tells the border from the data.
    """

    fills = True

    def __init__(self, colours: int, levels: int, embedding: int = 0) -> None:
        super().__init__(colours, embedding or 1)
        self.labels = (*self.labels, colours - 1)
        self.scale = Embedding(colours, levels, embedding) if embedding else Scale(colours, levels)

    def forward(self, x: Tensor) -> Tensor:
        known = functional.pad(self.scale(x), (0, 0, 0, 0, 0, 1), value=1.0)
        right, below = (-size % 2 ** (RESOLUTIONS - 1) for size in (x.shape[3], x.shape[2]))
        return functional.pad(known, (0, right, 0, below))

    def absorb(self, symbol: Tensor, channel: int) -> Tensor:
        value = self.scale.absorb(symbol, channel)
        return functional.pad(value, (0, 1), value=1.0) if channel == self.labels[-1] else value


def cropped(y: Tensor, x: Tensor) -> Tensor:
    """Without the places that ``Marked`` filled up; of a signal there are none."""
    return y if isinstance(y, Signal) else y[..., : x.shape[2], : x.shape[3]]
