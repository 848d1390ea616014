"""The generative direction of a `TopDown`, taken apart into modules of which integer twins can be made: what files need.

A file holds e, numbers with a fixed law, unit by unit. Everything else is computed from them, from the top group on::

    h = zeros
    for every stage:    z = e;    for every step:    z <- location(h, z) + exp(log_scale(h, z)) z
                        h = merge(h, z)
    features = the last h

An encoder is not needed for that: it only chooses e.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from ancestral.core import Autoregressive

LAWS = ("normal", "logistic")


@dataclass(frozen=True, eq=False)
class Step:
    """An affine step of every unit, z_i -> location_i + exp(log_scale_i) z_i, from what comes before it to what it gives.

    Attributes:
        net: (h, z, label vector) to (n, 2 c, ...) locations and log-scales side by side, for z of shape (n, c, ...). What is
            not there is None.
        causal: whether ``net`` reads what the step gives, and of it for every unit only earlier ones, in some order. Otherwise
            it is given no z.
    """

    net: nn.Module
    causal: bool = False

    def parameters(self, h: Tensor | None, z: Tensor, vector: Tensor | None) -> tuple[Tensor, Tensor]:
        """Locations and log-scales of z's shape, where z is what the step gave."""
        location, log_scale = self.net(h, z if self.causal else None, vector).chunk(2, 1)
        return location, log_scale

    def undone(self, h: Tensor | None, z: Tensor, vector: Tensor | None) -> Tensor:
        """What the step made z of."""
        location, log_scale = self.parameters(h, z, vector)
        return (z - location) * torch.exp(-log_scale)


@dataclass(frozen=True, eq=False)
class Stage:
    """One group of latents.

    Attributes:
        name: of the group.
        shape: of z of one example.
        merge: (h, z, label vector) to the next h, or to the features.
        steps: what makes z of e.
        law: of e: standard ``"normal"`` or ``"logistic"``.
        mixture: (..., 3 K) logits, means and log-scales of K densities of that law, broadcast to units: the law of e instead.
        codes: the law of z where that is whole numbers: an `Autoregressive` that sees h as its grid. There are no steps then.
        vectors: (n, c, ...) codes to (n, d, ...) numbers that stand for them, which ``merge`` takes for z.
    """

    name: str
    shape: tuple[int, ...]
    merge: nn.Module
    steps: tuple[Step, ...] = ()
    law: str = "normal"
    mixture: Tensor | None = None
    codes: Autoregressive | None = None
    vectors: Callable[[Tensor], Tensor] | None = None

    def read(self, z: Tensor) -> Tensor:
        """What ``merge`` takes for z."""
        return z if self.vectors is None else self.vectors(z)

    def made_of(self, h: Tensor | None, z: Tensor, vector: Tensor | None) -> Iterator[tuple[Step, Tensor]]:
        """Every step with what it gave, from the last one back."""
        for step in reversed(self.steps):
            yield step, z
            z = step.undone(h, z, vector)


@dataclass(frozen=True, eq=False)
class Generator:
    """All groups, from the top.

    Attributes:
        stages: the groups.
        start: shape, without rows, of the zeros that are the first h; None where the first stage is given none.
    """

    stages: tuple[Stage, ...]
    start: tuple[int, ...] | None = None


class Decoding(nn.Module):
    """A decoder of z alone, as the ``merge`` of a stage.

    Args:
        decoder: (z, label vector) to the features.
    """

    def __init__(self, decoder: nn.Module) -> None:
        super().__init__()
        self.decoder = decoder

    def forward(self, h: Tensor | None, z: Tensor, vector: Tensor | None) -> Tensor:
        out: Tensor = self.decoder(z, vector)
        return out
