"""Affine maps of a window: to the left of a site (and of the site itself), and in the rows above it."""

from __future__ import annotations

from collections.abc import Sequence
from math import sqrt

import torch
from torch import Tensor, nn
from torch.nn import functional

from ancestral.causal.layer import AffineLayer, CausalityError, Clock, Labels, Reach, Signal, refuse_symbols


def spread(features: int, channels: int) -> Labels:
    """Contiguous labels that share ``features`` among colour channels as evenly as can be.

    Example:
        >>> spread(5, 3)
        (0, 0, 1, 1, 2)
    """
    return tuple(i * channels // features for i in range(features))


class LeftAffine(AffineLayer):
    """y[w] = b + sum over j in 0 .. left of W_j x[w - j], the present site graded by colour channel.

    At the present site (j = 0) features labelled c read labels up to c (mask B), or below c when ``strict`` (mask A, van den
    Oord et al. 2016a); ``left=0`` is the 1x1 convolution.  (n, c, H, W) to (n, c', H, W).

    Args:
        before, after: the colour channel of every input and output feature.
        left: columns seen to the left of the site.
        strict: the first layer of a network, which must not see the symbol that it predicts.
    """

    mask: Tensor | None

    def __init__(self, before: Labels, after: Labels, left: int = 0, strict: bool = False) -> None:
        super().__init__()
        if list(before) != sorted(before):
            raise CausalityError("the features that an affine layer reads must be sorted by colour channel")
        self.before, self.after, self.strict, self.features = before, after, strict, len(after)
        self.single = len({*before, *after}) == 1  # one colour channel: nothing to grade
        taps = left if strict and self.single else left + 1
        self.reach = Reach(left=left, own_site=not (strict and self.single))
        source, target = torch.tensor(before), torch.tensor(after)[:, None]
        mask = torch.ones(len(after), len(before), 1, taps)
        mask[..., 0, -1] = (source < target if strict else source <= target).float()
        self.register_buffer("mask", None if self.single else mask, persistent=False)
        bound = 1 / sqrt(max(1, taps * len(before)))
        self.weight = nn.Parameter(torch.empty(len(after), len(before), 1, taps).uniform_(-bound, bound))
        self.bias = nn.Parameter(torch.empty(len(after)).uniform_(-bound, bound))

    def infer(self, inputs: Sequence[Signal]) -> tuple[Clock, Labels | None]:
        signal = inputs[0]
        if not self.strict:
            refuse_symbols(self, inputs)
        if signal.clock is Clock.SITE:
            if signal.labels != self.before:
                raise CausalityError("an affine layer reads features whose colour channels are not the ones it was made for")
            return Clock.SITE, self.after
        if self.reach.left or not self.single:
            raise CausalityError("a window to the left, or a graded one, reads features that change with every site")
        return signal.clock, None

    def forward(self, x: Tensor) -> Tensor:
        weight = self.weight if self.mask is None else self.weight * self.mask
        if self.reach.left:
            x = functional.pad(x, (self.reach.left, 0))
        return functional.conv2d(x, weight, self.bias)[..., : x.shape[-1] - self.reach.left]

    def weights(self, channel: int | None) -> tuple[Tensor, Tensor]:
        weight = self.weight if self.mask is None else self.weight * self.mask
        flat = weight[:, :, 0].permute(2, 1, 0).flatten(0, 1)  # (taps * c, c'): the window of a site, left to right
        if channel is None or self.single:
            return flat[None], self.bias
        own = sum(label < channel if self.strict else label <= channel for label in self.before)
        chosen = [i for i, label in enumerate(self.after) if label == channel]
        return flat[None, : self.reach.left * len(self.before) + own, chosen], self.bias[chosen]


class AboveAffine(AffineLayer):
    """y[r, w] = b + sum over rows above and columns w - right .. w + right of W x: the vertical stack of a Gated PixelCNN.

    A kernel of k x k cut to the rows that may be seen: ``strict`` reads rows r - k // 2 .. r - 1 (of symbols, so every colour
    channel of a row above is seen), otherwise r - k // 2 .. r (of features that know no row but those above).
    """

    def __init__(self, before: int, after: int, kernel: int, strict: bool = False) -> None:
        super().__init__()
        if kernel % 2 == 0 or (strict and kernel == 1):
            raise ValueError(f"kernel is {kernel}; a window around a column is odd, and a strict one at least 3")
        half = kernel // 2
        self.strict, self.features = strict, after
        self.reach = Reach(above=half, left=half, right=half, own_row=not strict)
        rows = half if strict else half + 1
        bound = 1 / sqrt(rows * kernel * before)
        self.weight = nn.Parameter(torch.empty(after, before, rows, kernel).uniform_(-bound, bound))
        self.bias = nn.Parameter(torch.empty(after).uniform_(-bound, bound))

    def infer(self, inputs: Sequence[Signal]) -> tuple[Clock, Labels | None]:
        if not self.strict and inputs[0].clock is Clock.SITE:
            raise CausalityError("a window over its own row reads features of that row: only rows above are known")
        return Clock.ROW, None

    def forward(self, x: Tensor) -> Tensor:
        above, side = self.reach.above, self.reach.right
        y = functional.conv2d(functional.pad(x, (side, side, above, 0)), self.weight, self.bias)
        return y[:, :, : x.shape[2]]  # strict: the window ends one row above, so the last row of windows is of no use

    def weights(self, channel: int | None) -> tuple[Tensor, Tensor]:
        return self.weight.permute(2, 3, 1, 0).flatten(1, 2), self.bias
