"""A decoder that models all sites as independent given the context: the trivial case of an ancestral network."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from ancestral.core import Context, Network, State, StateError

GAIN = 10.0  # of free parameters: one that is its own weight moves by a learning rate a step, so a log-scale limps behind means


class Factorised(Network):
    """p(x | c) = prod_i p(x_i | c): (n, *shape) symbols, which it ignores, to (n, *shape, size) parameters.

    The first parameters of a site come from ``context.grid`` (n, C k, H, W) or ``context.vector`` (n, D k), those of a
    channel together; the last ``learned`` are free, one value a channel shared by all places, such as a log-scale.

    Args:
        shape: (C, H, W) or (D,).
        size: parameters of one conditional.
        learned: how many of them are free.
        start: what the free ones start from.
        discrete: whether symbols are integers.
    """

    def __init__(self, shape: tuple[int, ...], size: int, learned: int = 0, start: float = -1.0, discrete: bool = True) -> None:
        super().__init__(shape, discrete)
        self.given = size - learned
        per_channel = (shape[0], 1, 1) if len(shape) == 3 else (shape[0],)
        self.scaled = nn.Parameter(torch.full((*per_channel, learned), start / GAIN)) if learned else None

    @property
    def free(self) -> Tensor | None:
        """(C, 1, 1, learned) or (D, learned) free parameters, None if there are none."""
        return None if self.scaled is None else GAIN * self.scaled

    def forward(self, x: Tensor, context: Context | None = None) -> Tensor:
        return self._sites(x.shape[0], context)

    def start(self, n: int, context: Context | None = None, rollback: int = 0) -> tuple[Tensor, State]:
        parameters = self._sites(n, context).flatten(1, -2).detach()
        return parameters[:, self.order.sites[0]], State({"parameters": parameters}, rollback)

    def step(self, state: State, symbol: Tensor) -> tuple[Tensor, State]:
        buffers, position = state.consume(), state.position + 1
        if position >= len(self.order.sites):
            raise StateError("the last site has no next one: its symbol needs no step")
        return buffers["parameters"][:, self.order.sites[position]], state.successor(buffers, position)

    def _sites(self, n: int, context: Context | None) -> Tensor:
        source = self._source(context)
        given = source.reshape(n, self.shape[0], self.given, *source.shape[2:]).movedim(2, -1)
        free = self.free
        return given if free is None else torch.cat([given, free.expand(n, *self.shape, -1)], -1)

    def _source(self, context: Context | None) -> Tensor:
        source = None if context is None else context.grid if len(self.shape) == 3 else context.vector
        if source is None:
            raise ValueError(
                "a factorised decoder takes all it knows from what z was decoded to, and got nothing: nll says nothing of such a"
                " model, take the bound of the whole instead, as objectives.elbo does"
            )
        return source


class Uniform(Network):
    """p(x_i) = 1 / levels at every site: (n, *shape) symbols, which it ignores, to (n, *shape, levels) zeros.

    Args:
        shape: sizes of one example.
        levels: the alphabet.
    """

    def __init__(self, shape: tuple[int, ...], levels: int) -> None:
        super().__init__(shape)
        self.levels = levels

    def forward(self, x: Tensor, context: Context | None = None) -> Tensor:
        return self.anchor.expand(len(x), *self.shape, self.levels)
