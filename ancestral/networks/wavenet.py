"""WaveNet: van den Oord et al. 2016, "WaveNet: A Generative Model for Raw Audio" (arXiv:1609.03499).

      symbols ──▶ table ──▶ earlier samples ──▶ x ─┬─ taps 1, 2, 4, ... apart, + context ──▶ gate ──▶ z ─┬─ 1x1 ──▶ + x ──▶ ...
                                                   └─────────────────────────────────────────────────────│───────────▲
                                                                                                         └─ 1x1 ──▶ sum
      sum of all layers ──▶ relu, 1x1, relu, 1x1 ──▶ parameters

What predicts sample t sees samples t - R .. t - 1, where R = first_kernel + (kernel - 1) times the sum of 1, 2, 4, ... over all
layers. A walk remembers of every layer as many x as its window is long.

Samples of several parts, such as two bytes, have features for each part, of which those of a later part also see the earlier
parts of their own sample. So a sample of two bytes costs little more than one of one byte.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional

from ancestral.causal import (
    CausalNetwork,
    Embedding,
    GridAffine,
    Labels,
    LeftAffine,
    Scale,
    Signal,
    TimeAffine,
    gate,
    relu,
    spread,
)
from ancestral.core import Autoregressive, Context
from ancestral.networks.configs import WaveNetConfig
from ancestral.networks.images import Feed, check_ordered, image_family, start_from
from ancestral.spec import DataSpec

LENGTH = 1024  # samples of a network for sequences of any length, until it is arranged for others


def wavenet(config: WaveNetConfig, spec: DataSpec, latents: int = 0) -> Autoregressive:
    """The model of a `WaveNetConfig`, for sequences of integers.

    Args:
        latents: numbers that ``context.vector`` begins with, before the label.

    Raises:
        ValueError: the data are of another kind, the family does not fit them, or a size is too small.
    """
    if len(spec.shape) != 1 or spec.levels is None:
        raise ValueError(f"wavenet models sequences of integers, not {spec.kind} of shape {spec.shape}, levels={spec.levels}")
    _check_sizes(config, spec.parts)
    check_ordered(config.family, spec)
    automatic = config.family == "auto" and spec.levels > 2
    family = image_family("categorical" if automatic else config.family, spec.levels, config.components)
    length = spec.shape[0] or LENGTH * spec.parts
    sizes = {name: getattr(config, name) for name in SIZES}
    vector = latents + ((spec.classes or 0) if config.conditional else 0)
    local, hop = config.grid
    made = WaveNet(length, spec.levels, family.size, parts=spec.parts, vector=vector, local=local, hop=hop, **sizes)
    start_from(family, made.head[-1])
    return Autoregressive(made, family, spec, config)


SIZES = ("layers", "cycles", "kernel", "first_kernel", "channels", "gates", "skip", "head", "symbols", "upsample")

CHOICES = {"symbols": ("embedding", "scaled"), "condition": ("none", "mel"), "upsample": ("repeat", "learned")}


def _check_sizes(config: WaveNetConfig, parts: int) -> None:
    least = {"layers": 1, "cycles": 1, "kernel": 2, "first_kernel": 1, "local": 0, "hop": 1}
    least |= dict.fromkeys(("channels", "gates", "skip", "head"), parts)
    for name, smallest in least.items():
        if getattr(config, name) < smallest:
            raise ValueError(f"wavenet: {name} is {getattr(config, name)}; it must be at least {smallest}")
    for name, choices in CHOICES.items():
        if getattr(config, name) not in choices:
            raise ValueError(f"wavenet: {name} is {getattr(config, name)!r}; choose {' or '.join(choices)}")


class WaveNet(CausalNetwork):
    """x' = x + W (tanh(a) * sigmoid(b)), (a, b) = window of x + context, layer by layer; parameters from the sum of all layers.

    (n, T) symbols to (n, T, size) parameters, for any T (`arrange`).

    Args:
        length: T, a multiple of ``parts``.
        levels: the alphabet of the symbols.
        size: parameters of one conditional.
        parts: symbols of one sample, the most significant first.
        layers, cycles, kernel, first_kernel, channels, gates, skip, head, symbols: see `WaveNetConfig`.
        vector: size of ``context.vector``, added inside every gate.
        local: features of ``context.grid`` (n, local, places, 1), added inside every gate: as many places as samples, or one for
            every ``hop`` samples, which are repeated, or spread by a transposed convolution where ``upsample`` is "learned".

    Example:
        >>> network = WaveNet(8, levels=5, size=5, layers=2, cycles=2, channels=4, gates=4, skip=6, head=6)
        >>> sorted(network.receptive_field())[0], len(network.receptive_field())
        ((-7, 0), 7)
    """

    def __init__(
        self,
        length: int,
        levels: int,
        size: int,
        *,
        parts: int = 1,
        layers: int = 10,
        cycles: int = 3,
        kernel: int = 2,
        first_kernel: int = 1,
        channels: int = 32,
        gates: int = 32,
        skip: int = 256,
        head: int = 256,
        symbols: str = "embedding",
        vector: int = 0,
        local: int = 0,
        hop: int = 1,
        upsample: str = "repeat",
    ) -> None:
        super().__init__((length,), layout=(parts, length // parts, 1))
        labels, inside, skips, hidden, outputs = (spread(f, parts) for f in (channels, gates, skip, head, parts * size))
        self.local, self.hop = local, hop
        self.spread = Spread(local, hop) if local and hop > 1 and upsample == "learned" else None
        self.reckons = self.spread is not None
        self.input = Embedding(parts, levels, channels // parts) if symbols == "embedding" else Scale(parts, levels)
        self.first = TimeAffine(self.input.labels, labels, first_kernel, strict=True)
        self.layers = nn.ModuleList(
            WaveLayer(labels, inside, kernel, 2**i, vector, local) for _ in range(cycles) for i in range(layers)
        )
        self.skips = nn.ModuleList(LeftAffine(inside, skips, bias=i == 0) for i in range(len(self.layers)))  # one bias for all
        self.head = nn.Sequential(relu(), LeftAffine(skips, hidden), relu(), LeftAffine(hidden, outputs))

    def body(self, x: Tensor, vector: Tensor | None, grid: Tensor | None) -> Tensor:
        x, gated = self.first(self.input(x)), []
        for layer in self.layers:
            x, z = layer(x, vector, grid)
            gated.append(z)
        return self.head(summed(gated, self.skips))  # type: ignore[no-any-return,arg-type]

    def turned(self, context: Context | None) -> Context | None:
        """The context with its grid at the rate of the samples.

        Raises:
            ValueError: the grid has other features, or too few places.
        """
        if context is None or context.grid is None:
            return context
        grid, samples = context.grid, self.layout[1]
        if grid.dim() != 4 or grid.shape[1] != self.local or grid.shape[3] != 1:
            raise ValueError(f"the context's grid is {tuple(grid.shape)}; this network takes (n, {self.local}, places, 1)")
        if self.hop > 1 and grid.shape[2] != samples:  # fewer places, or more than a clip so short has samples
            grid = grid.repeat_interleave(self.hop, 2) if self.spread is None else self.spread(grid)
        if grid.shape[2] < samples:
            raise ValueError(f"the context's grid lasts {grid.shape[2]} of {samples} samples: give a place for every {self.hop}")
        return Context(context.vector, grid[:, :, :samples], context.memory, context.memory_mask)


class WaveLayer(nn.Module):
    """One layer; see the picture above.

    Args:
        labels, inside: parts of the features that go on, and of those inside the gate.
        kernel, dilation: taps of the window, and how far apart they are.
        vector, local: sizes of the context.
    """

    def __init__(self, labels: Labels, inside: Labels, kernel: int, dilation: int, vector: int, local: int) -> None:
        super().__init__()
        pairs = (*inside, *inside)
        self.window = TimeAffine(labels, pairs, kernel, dilation)
        self.feed = Feed(vector, 0, len(pairs))
        self.grid = GridAffine(local, pairs) if local else None
        self.gate, self.out = gate(), LeftAffine(inside, labels, bias=False)  # what a bias would add, the next windows have

    def forward(self, x: Tensor, vector: Tensor | None, grid: Tensor | None) -> tuple[Tensor, Tensor]:
        seen = self.feed(self.window(x), vector, None)
        if grid is not None:
            if self.grid is None:
                raise ValueError("the context has a grid, but this network was made without: give it local=... features")
            seen = seen + self.grid(grid)
        z = self.gate(seen)
        return self.out(z) + x, z


class Spread(nn.ConvTranspose2d):
    """Every place becomes ``hop`` samples, which also see half of each neighbour: (n, f, P, 1) to (n, f, P hop, 1).

    It starts as linear interpolation.
    """

    def __init__(self, features: int, hop: int) -> None:
        margin = (hop + 1) // 2
        super().__init__(features, features, (2 * hop, 1), (hop, 1), (margin, 0), (hop % 2, 0), bias=False)
        distance = (torch.arange(2 * hop) - margin + 0.5) / hop - 0.5  # of a sample from the middle of the place, in places
        with torch.no_grad():
            self.weight.copy_(torch.eye(features)[..., None, None] * (1 - distance.abs())[:, None])


def summed(gated: Sequence[Tensor], layers: Sequence[LeftAffine]) -> Tensor:
    """The sum of a 1x1 layer of each, of which the first has the bias.

    Of tensors one product of matrices, which training spends a third of the time on that many sums take.
    """
    if isinstance(gated[0], Signal):
        total, *more = (layer(z) for layer, z in zip(layers, gated, strict=True))
        return sum(more, total)
    return functional.conv2d(torch.cat(list(gated), 1), torch.cat([layer.masked for layer in layers], 1), layers[0].bias)
