"""The masked matrix of MADE: sites as colour channels, units that see the sites before their label."""

from __future__ import annotations

import copy
from collections.abc import Sequence
from functools import cached_property
from itertools import accumulate
from math import sqrt
from typing import Self

import torch
from torch import Tensor, nn
from torch.nn import functional

from ancestral.causal.layer import AffineLayer, CausalityError, Clock, Labels, Signal, refuse_symbols


class GradedAffine(AffineLayer):
    """y = b + (W * M) x over labelled units, M[i, j] = 1 where before[j] <= after[i], or before[j] < after[i] if ``strict``.

    (n, c, 1, 1) to (n, c', 1, 1). Germain et al. 2015, eqs. 8 and 9, with the first layer strict: a unit labelled m sees the
    first m sites, and site p, counted from 0, may read units labelled up to p. Labels come in any order and belong to the
    units; `relabelled` gives the same weights other ones.

    Args:
        before, after: the label of every unit that comes in and goes out.
        strict: whether units read smaller labels only: what reads the symbols themselves.
        bias: whether there is one.
    """

    def __init__(self, before: Labels, after: Labels, strict: bool = False, bias: bool = True) -> None:
        super().__init__()
        self.before, self.after, self.strict, self.features = before, after, strict, len(after)
        bound = 1 / sqrt(len(before))
        self.weight = nn.Parameter(torch.empty(len(after), len(before)).uniform_(-bound, bound))
        self.bias = nn.Parameter(torch.zeros(len(after))) if bias else None

    def relabelled(self, before: Labels, after: Labels) -> Self:
        """The same layer, its weights shared, with other labels."""
        view = copy.copy(self)
        view.__dict__.pop("_sorted", None)
        view.before, view.after = before, after
        return view

    def infer(self, inputs: Sequence[Signal]) -> tuple[Clock, Labels | None]:
        signal = inputs[0]
        if not self.strict:
            refuse_symbols(self, inputs)
        if signal.clock is not Clock.SITE or sorted(signal.labels or ()) != sorted(self.before):
            raise CausalityError("a graded map reads units whose labels are not the ones it was made for")
        return Clock.SITE, self.after

    @property
    def mask(self) -> Tensor:
        """(c', c) booleans: which weights count."""
        source, target = (torch.tensor(labels, device=self.weight.device) for labels in (self.before, self.after))
        return source < target[:, None] if self.strict else source <= target[:, None]

    def forward(self, x: Tensor) -> Tensor:
        return functional.linear(x[..., 0, 0], self.weight * self.mask, self.bias)[..., None, None]

    @cached_property
    def _sorted(self) -> tuple[Tensor, Tensor, list[int], list[int]]:
        """Units sorted by label, in and out, and where those of every label end."""
        orders = [torch.tensor(labels).argsort(stable=True) for labels in (self.before, self.after)]
        last = max(*self.before, *self.after) + 1
        counts = [torch.tensor(labels).bincount(minlength=last).tolist() for labels in (self.before, self.after)]
        return orders[0], orders[1], *(list(accumulate(count, initial=0)) for count in counts)  # type: ignore[return-value]

    def weights(self, channel: int | None) -> tuple[Tensor, Tensor]:
        columns, rows, seen, made = self._sorted
        if channel is None:
            raise CausalityError("a graded map is computed label by label")
        chosen = rows[made[channel] : made[channel + 1]].to(self.weight.device)
        read = columns[: seen[channel + (not self.strict)]].to(self.weight.device)
        bias = self.weight.new_zeros(len(chosen)) if self.bias is None else self.bias[chosen]
        return self.weight[chosen[:, None], read].T[None, None], bias[None]
