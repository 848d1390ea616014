"""Windows along time, rows of one place each, (n, c, T, 1): what WaveNet is made of."""

from __future__ import annotations

from collections.abc import Sequence
from math import sqrt

import torch
from torch import Tensor, nn
from torch.nn import functional

from ancestral.causal.layer import AffineLayer, CausalityError, Clock, Labels, Reach, Signal
from ancestral.causal.window2d import LeftAffine, WindowAffine, along_rows


class TimeAffine(nn.Module):
    """y[t] = b + sum over j of W_j x[t - j dilation], j = 0 .. kernel - 1, the present place graded by channel.

    Where samples have several parts, which are the channels, features labelled c read labels up to c at their own place, and all
    earlier places whole: those are done once a sample, for all parts.  (n, c, T, 1) to (n, c', T, 1).

    Args:
        before, after: the channel of every input and output feature.
        kernel: places that are read; of a strict window those before the present one.
        dilation: from one of them to the next.
        strict: the first layer of a network, which must not see the symbol that it predicts.

    Raises:
        ValueError: nothing is read.

    Example:
        >>> TimeAffine((0, 0), (0,) * 3, kernel=2, dilation=4)(torch.zeros(1, 2, 9, 1)).shape
        torch.Size([1, 3, 9, 1])
    """

    def __init__(self, before: Labels, after: Labels, kernel: int, dilation: int = 1, strict: bool = False) -> None:
        super().__init__()
        several = len({*before, *after}) > 1
        if kernel < 1 + (several and not strict):
            raise ValueError(f"kernel is {kernel}; a window along time reads at least {1 + (several and not strict)} places")
        apart = several or strict  # whether the own place is read by a layer of its own, or not at all
        self.past = WindowAffine(
            len(before),
            len(after),
            Reach(above=(kernel - 1 + strict) * dilation, own_row=not apart, dilation=dilation),
            bias=not several,
            sitewise=not several,
        )
        self.present = LeftAffine(before, after, strict=strict) if several else None
        bound = 1 / sqrt(len(before) * (kernel + (strict and several)))
        for parameter in self.parameters():
            nn.init.uniform_(parameter, -bound, bound)

    def forward(self, x: Tensor) -> Tensor:
        if self.present is None:
            return self.past(x)  # type: ignore[no-any-return]
        if isinstance(x, Signal):
            return self.present(x) + self.past(x)
        kernel = torch.cat([self.past.weight, self.present.masked], 2)
        return along_rows(x, kernel, self.present.bias, self.past.reach)


class GridAffine(AffineLayer):
    """y[t] = W g[t] of features of the context, (n, c, T, 1), without bias: what is not given adds nothing.

    Computed when the site is, so that a walk keeps the features themselves, once, and not what each layer makes of them. It
    starts at zero: a network trained without the context is left undisturbed at first.

    Args:
        before: features that come in.
        after: the channel of every output feature.
    """

    def __init__(self, before: int, after: Labels) -> None:
        super().__init__()
        self.after, self.features = after, len(after)
        self.weight = nn.Parameter(torch.zeros(len(after), before, 1, 1))

    def infer(self, inputs: Sequence[Signal]) -> tuple[Clock, Labels | None]:
        if inputs[0].clock is not Clock.ONCE:
            raise CausalityError("a map of the context reads the context alone: for features of the network there is LeftAffine")
        return Clock.SITE, self.after

    def forward(self, x: Tensor) -> Tensor:
        return functional.conv2d(x, self.weight)

    def weights(self, channel: int | None) -> tuple[Tensor, Tensor]:
        chosen = [i for i, label in enumerate(self.after) if channel in (None, label)]
        return self.weight[chosen, :, 0, 0].T[None, None], self.weight.new_zeros(1, len(chosen))
