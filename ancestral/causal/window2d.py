"""Affine maps of a window: to the left of a site (and of the site itself), and in the rows above it."""

from __future__ import annotations

from collections.abc import Sequence
from math import sqrt

import torch
from torch import Tensor, fx, nn
from torch.nn import functional

from ancestral.causal.layer import AffineLayer, CausalityError, Clock, Labels, Place, Reach, Signal, refuse_symbols


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
        bias: whether there is one.
    """

    mask: Tensor | None

    def __init__(self, before: Labels, after: Labels, left: int = 0, strict: bool = False, bias: bool = True) -> None:
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
        self.bias = nn.Parameter(torch.empty(len(after)).uniform_(-bound, bound)) if bias else None

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

    @property
    def masked(self) -> Tensor:
        """(c', c, 1, taps) weights, zero where the mask is."""
        return self.weight if self.mask is None else self.weight * self.mask

    def forward(self, x: Tensor) -> Tensor:
        weight, width = self.masked, x.shape[3]
        if not self.reach.left:
            if not isinstance(x, fx.Proxy) and width == 1 == x.stride(1):  # tokens or vectors, features innermost: a plain matrix
                return functional.linear(x.movedim(1, -1), weight[..., 0, 0], self.bias).movedim(-1, 1)
            return functional.conv2d(x, weight, self.bias)
        return functional.conv2d(functional.pad(x, (self.reach.left, 0)), weight, self.bias)[..., :width]

    def weights(self, channel: int | None) -> tuple[Tensor, Tensor]:
        flat = self.masked[:, :, 0].permute(2, 1, 0).flatten(0, 1)  # (taps * c, c'): the window of a site, left to right
        bias = self.weight.new_zeros(self.features) if self.bias is None else self.bias
        if channel is None or self.single:
            return flat[None, None], bias[None]
        own = sum(label < channel if self.strict else label <= channel for label in self.before)
        chosen = [i for i, label in enumerate(self.after) if label == channel]
        return flat[None, None, : self.reach.left * len(self.before) + own, chosen], bias[None, chosen]


class WindowAffine(AffineLayer):
    """y[r, w] = b + sum over the window ``reach`` of W x, all features alike: nothing is graded by colour channel.

    A window that ends with its own site and reads it knows no more than the site does; one that reads to the right must leave
    its own row out, or read features that know no row but those above.  (n, c, H, W) to (n, c', H / shrink, W / shrink).

    Args:
        before, after: features that come in and go out.
        reach: the window.
        shrink: rows and columns from one window to the next.
        bias: whether there is one.
        sitewise: whether a window that leaves its own row out is computed site by site all the same: where rows have one place,
            as in sequences, that takes as long, and gives what can be added to features of a site.

    Raises:
        ValueError: the window is empty.
    """

    def __init__(self, before: int, after: int, reach: Reach, shrink: int = 1, bias: bool = True, sitewise: bool = False) -> None:
        super().__init__()
        self.reach, self.features, self.shrink, self.sitewise = reach, after, shrink, sitewise
        self.backwards = reach.right > 0 and reach.left < 0  # it reads only what lies to the right in its own row
        rows, columns = reach.rows, reach.left + reach.right + reach.own_site
        if rows < 1 or columns < 1:
            raise ValueError(f"the window of {reach} is empty")
        bound = 1 / sqrt(rows * columns * before)
        self.weight = nn.Parameter(torch.empty(after, before, rows, columns).uniform_(-bound, bound))
        self.bias = nn.Parameter(torch.empty(after).uniform_(-bound, bound)) if bias else None

    def infer(self, inputs: Sequence[Signal]) -> tuple[Clock, Labels | None]:
        signal, reach = inputs[0], self.reach
        if reach.own_row and reach.own_site:
            refuse_symbols(self, inputs)
        if not reach.own_row:
            return (Clock.SITE, (0,) * self.features) if self.sitewise else (Clock.ROW, None)
        if signal.clock is not Clock.SITE:
            return signal.clock, None
        if reach.right > 0:
            raise CausalityError("a window over its own row reads features of that row: only rows above are known")
        if len({*(signal.labels or ())}) > 1 and reach.own_site:
            raise CausalityError("a window that is not graded reads the colour channels of its own site")
        return Clock.SITE, (0,) * self.features

    @property
    def kernel(self) -> Tensor:
        """(after, before, rows, columns) weights of the window."""
        return self.weight

    def forward(self, x: Tensor) -> Tensor:
        height, width = x.shape[2:]
        reach, kernel = self.reach, self.kernel
        narrow = reach.left + reach.right + reach.own_site == 1 == self.shrink
        if narrow and width == 1:  # a sequence: PyTorch is faster there, above all on the way back
            return along_rows(x, kernel, self.bias, reach)
        x = functional.pad(x, (reach.left, reach.right, reach.above, 0))
        y = functional.conv2d(x, kernel, self.bias, self.shrink, dilation=(reach.dilation, 1))
        if self.shrink == 1:
            return y[:, :, :height, :width]
        return y[:, :, : -(-height // self.shrink), : -(-width // self.shrink)]

    def weights(self, channel: int | None) -> tuple[Tensor, Tensor]:
        flat = self.kernel.permute(2, 3, 1, 0).flatten(1, 2)[None]
        return flat, self.weight.new_zeros(1, self.features) if self.bias is None else self.bias[None]


def along_rows(x: Tensor, weight: Tensor, bias: Tensor | None, reach: Reach) -> Tensor:
    """(n, c, T, 1) convolved with (c', c, rows, 1) weights of a window that reaches back: (n, c', T, 1)."""
    padded = functional.pad(x[..., 0], (reach.above, 0))
    y = functional.conv1d(padded, weight[..., 0], bias, dilation=reach.dilation)
    return y[..., : x.shape[2], None]


class AboveAffine(WindowAffine):
    """y[r, w] = b + sum over rows above and columns w - right .. w + right of W x: the vertical stack of a Gated PixelCNN.

    A kernel of k x k cut to the rows that may be seen: ``strict`` reads rows r - k // 2 .. r - 1 (of symbols, so every colour
    channel of a row above is seen), otherwise r - k // 2 .. r (of features that know no row but those above).
    """

    def __init__(self, before: int, after: int, kernel: int, strict: bool = False) -> None:
        if kernel % 2 == 0 or (strict and kernel == 1):
            raise ValueError(f"kernel is {kernel}; a window around a column is odd, and a strict one at least 3")
        half = kernel // 2
        super().__init__(before, after, Reach(above=half, left=half, right=half, own_row=not strict))


class Transposed(AffineLayer):
    """A transposed convolution of stride 2: every place becomes a square of 2 x 2, (n, c, H, W) to (n, c', 2 H, 2 W).

    y[2 i + a, 2 j + b - side] takes W[a, b] x[i, j]. A kernel of 2 x 2 (``side=0``) gives each square a matrix for each of its
    places; one of 2 x 3 (``side=1``) also lets odd columns read the place to the right (Salimans et al. 2017, whose
    convolutions are cropped so).
    """

    grow, phases = 2, (2, 2)

    def __init__(self, before: int, after: int, side: int) -> None:
        super().__init__()
        self.features, self.reach = after, Reach(right=side)
        bound = 1 / sqrt(before * (1 + side / 2))
        self.weight = nn.Parameter(torch.empty(before, after, 2, 2 + side).uniform_(-bound, bound))
        self.bias = nn.Parameter(torch.empty(after).uniform_(-bound, bound))

    def infer(self, inputs: Sequence[Signal]) -> tuple[Clock, Labels | None]:
        refuse_symbols(self, inputs)
        if inputs[0].clock is not Clock.SITE:
            return inputs[0].clock, None
        if self.reach.right:
            raise CausalityError("a window to the right reads features that change with every site")
        return Clock.SITE, (0,) * self.features

    def reads(self, place: Place) -> set[Place]:
        row, column = place[0] // 2, place[1] // 2
        return {(row, column), (row, column + self.reach.right * (place[1] % 2))}

    def forward(self, x: Tensor) -> Tensor:
        side = self.reach.right
        y = functional.conv_transpose2d(x, self.weight, self.bias, stride=2)
        return y[..., side : side + 2 * x.shape[3]]

    def weights(self, channel: int | None) -> tuple[Tensor, Tensor]:
        side, kernel = self.reach.right, self.weight.permute(2, 3, 0, 1)  # (2, 2 + side, c, c')
        sets = []
        for a in range(2):
            if not side:
                sets += [kernel[a, b][None] for b in range(2)]
            else:  # an even column is the middle of the kernel, an odd one its end and the start of the next place's
                sets += [torch.cat([kernel[a, 1], torch.zeros_like(kernel[a, 1])])[None]]
                sets += [torch.cat([kernel[a, 2], kernel[a, 0]])[None]]
        return torch.stack(sets), self.bias.expand(4, -1)
