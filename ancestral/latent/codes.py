"""Latents that are whole numbers: an autoregressive model as their prior, and a posterior that is certain."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from ancestral.core import Autoregressive, Context
from ancestral.draw import Handed
from ancestral.latent.latent import Latent
from ancestral.latent.topdown import Symbols


class CodePrior(Symbols):
    """p(z | c) = prod over i of p(z_i | z_<i, c), an `Autoregressive`: drawn by a walk with one uniform a unit, without gradient.

    Args:
        model: over z.
        context: (n, ...) what it is given, such as the latents above, or None.
        n: how many rows.
    """

    def __init__(self, model: Autoregressive, context: Context | None, n: int) -> None:
        super().__init__(torch.Size((n, *model.network.shape)), validate_args=False)
        self.model, self.context = model, context

    @property
    def levels(self) -> int:
        """How many whole numbers a unit can be."""
        return self.model.family.levels or 0

    @torch.no_grad()
    def drawn(self, u: Tensor, temperature: float = 1.0) -> Tensor:
        return self.model.walk(len(u), self.context).run(Handed(temperature=temperature, u=u.flatten(1)))

    def log_prob(self, value: Tensor) -> Tensor:
        """(n, *shape) nats of every unit given the ones before it, in one pass."""
        return self.model.conditionals(value, self.context).log_prob(value)


def coded(model: nn.Module) -> bool:
    """Whether the latents of a model are whole numbers of which x leaves no choice."""
    return isinstance(model, Latent) and model.topdown.certain


class Certain(Symbols):
    """All mass on what x determines.

    Args:
        value: (n, *shape).
    """

    def __init__(self, value: Tensor) -> None:
        super().__init__(value.shape, validate_args=False)
        self.value = value

    def drawn(self, u: Tensor, temperature: float = 1.0) -> Tensor:
        return self.value

    def log_prob(self, value: Tensor) -> Tensor:
        """(n, *shape) nats of every unit: 0, or minus infinity."""
        other = value != self.value
        return torch.zeros(other.shape, device=value.device).masked_fill(other, -torch.inf)
