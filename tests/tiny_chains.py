"""Small models of sequences whose every probability can be listed: a symbol depends on the two before it and on its place."""

from __future__ import annotations

import copy
from itertools import product

import torch
from torch import Tensor

from ancestral.core import Autoregressive, Context, Network
from ancestral.families import Categorical
from ancestral.spec import DataSpec, Order
from ancestral.symbols import ended


class Chain(Network):
    """Logits of a symbol by the two before it and its place, and by the label where there is one; of any length."""

    conditional = True

    def __init__(self, length: int, levels: int, seed: int, scale: float = 1.0, discrete: bool = True) -> None:
        super().__init__((length,), discrete)
        generator = torch.Generator().manual_seed(seed)
        self.table = scale * torch.randn(levels + 1, levels + 1, levels, generator=generator)
        self.places = scale * torch.randn(7, levels, generator=generator)
        self.labels = scale * torch.randn(3, levels, generator=generator)
        self.levels, self.calls = levels, 0

    def forward(self, x: Tensor, context: Context | None = None) -> Tensor:
        self.calls += 1
        before = torch.nn.functional.pad(x, (2, 0), value=self.levels)
        logits = self.table[before[:, :-2], before[:, 1:-1]] + self.places[torch.arange(x.shape[1]) % 7]
        return logits if context is None or context.vector is None else logits + (context.vector @ self.labels).unsqueeze(1)

    def arrange(self, order: Order | str | None = None, shape: tuple[int, ...] | None = None) -> Chain:
        view = copy.copy(self)
        view.shape = torch.Size(shape or self.shape)
        view.order = Order.raster(tuple(view.shape))
        return view


def chain(length: int = 5, levels: int = 4, seed: int = 0, ends: bool = True, scale: float = 1.0) -> Autoregressive:
    """A model of texts of any length, that of its network being ``length``; of exactly that length where nothing ends them."""
    spec = (
        DataSpec("text", (None,), levels, classes=3, end=levels - 1) if ends else DataSpec("text", (length,), levels, classes=3)
    )
    return Autoregressive(Chain(length, levels, seed, scale), Categorical(levels), spec)


def every(spec: DataSpec) -> Tensor:
    """(m, *shape) all that there is of a small spec."""
    shape = [size or 0 for size in spec.shape]
    return torch.tensor(list(product(range(spec.levels or 0), repeat=spec.sites))).view(-1, *shape)


def sequences(model: Autoregressive, length: int) -> Tensor:
    """(m, length) every example that there is, each once."""
    every = torch.tensor(list(product(range(model.family.levels or 0), repeat=length)))
    return ended(every, model.spec).unique(dim=0)


def independent(*probabilities: float, length: int) -> Autoregressive:
    """Symbols that are drawn alike at every site."""
    model = chain(length, len(probabilities), ends=False, scale=0.0)
    assert isinstance(model.network, Chain)
    model.network.table = model.network.table + torch.tensor(probabilities).log()
    return model
