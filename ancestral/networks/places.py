"""Where a token of a Transformer stands: vectors of rows, columns and channels, or of places and parts."""

from __future__ import annotations

import copy
from typing import Self

import torch
from torch import Tensor, nn

from ancestral.causal import Constant, Embedding
from ancestral.core import OrderError
from ancestral.spec import Order

SPREAD, SPREAD_OF_PLACES = 0.02, 0.01  # of weights at first
BEGINNING = -1  # in the place of a site: there is none before


class Places(Constant):
    """What tells a token where it is: a vector for each axis, and at the first token one for the beginning.

    Args:
        axes: by name, how many vectors each has.
        features: of a vector.
        sources: whether tokens also tell where the symbol stands that they hold.
        last: the table whose last row is that of the beginning; None for a vector of its own.
    """

    def __init__(self, axes: dict[str, int], features: int, sources: bool, last: Embedding | None) -> None:
        super().__init__()
        self.targets = nn.ParameterDict({name: SPREAD_OF_PLACES * torch.randn(count, features) for name, count in axes.items()})
        self.sources = nn.ParameterDict(
            {name: torch.randn_like(table) * SPREAD_OF_PLACES for name, table in self.targets.items()} if sources else {}
        )
        self.start = nn.Parameter(SPREAD * torch.randn(features)) if last is None else None
        self._last = (last,)  # in a tuple, so that the table is not a parameter twice
        self.coordinates: dict[str, Tensor] = {}  # (D,) of every site, by axis
        self.sites = torch.zeros(0, dtype=torch.long, device="cpu")  # in the order of the walk

    def arranged(self, shape: tuple[int, ...], order: Order, parts: int) -> Self:
        """The same for another shape or order, its vectors shared.

        Raises:
            OrderError: there are more places than vectors.
        """
        view = copy.copy(self)
        view.coordinates, view.sites = coordinates(shape, parts), torch.tensor(order.sites, device="cpu")
        for name, table in self.targets.items():
            count = int(view.coordinates[name].max()) + 1
            if count > len(table):
                raise OrderError(
                    f"this transformer has vectors for {len(table)} places of the axis {name!r}, not {count}: make it with more,"
                    f" context={count} of a sequence, or with places='rotary', which takes any length (--context {count},"
                    " --places rotary)"
                )
        return view

    @property
    def beginning(self) -> Tensor:
        """(c,) what stands before the first symbol."""
        last = self._last[0]
        return self.start if last is None else last.table[0, -1]  # type: ignore[return-value]

    def forward(self) -> Tensor:
        before = self.sites.roll(1)
        before[:1] = BEGINNING
        return self.vectors(self.sites, before).T[None, ..., None]

    def vectors(self, sites: Tensor, before: Tensor) -> Tensor:
        """(..., T, c) of tokens that predict ``sites`` and hold the symbols of the sites ``before``, (..., T) both."""
        first = (before == BEGINNING)[..., None].to(self.beginning.device)
        total = first * self.beginning
        for name, table in self.targets.items():
            total = total + table[self.coordinates[name].to(sites.device)[sites]]
        for name, table in self.sources.items():
            held = table[self.coordinates[name].to(sites.device)[before.clamp_min(0)]]
            total = total + held.masked_fill(first, 0)
        return total


def coordinates(shape: tuple[int, ...], parts: int) -> dict[str, Tensor]:
    """(D,) row, column and channel of every site of a flattened image; place and part of those of a sequence."""
    site = torch.arange(torch.Size(shape).numel(), device="cpu")
    if len(shape) == 1:
        return {"place": site, "part": site % parts}
    _, height, width = shape
    return {"row": site // width % height, "column": site % width, "channel": site // (height * width)}
