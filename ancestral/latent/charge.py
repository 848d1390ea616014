"""What training charges for z where that is not the rate at weight 1: ways to decide how much z carries.

None of them touches evaluation, which always charges the whole rate at weight 1.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

from ancestral.latent.configs import check_least
from ancestral.networks.images import check_dropout

LEAST_GAMMA = 1e-3  # of the KL's weight under soft free bits


@dataclass(frozen=True)
class Charge:
    """What training charges for z, in place of the rate at weight 1: options of every objective of models with latents.

    Attributes:
        beta: weight of the rate (Higgins et al. 2017).
        free_bits: nats of the mean rate over the batch that are not charged for, of every unit of a vector, and of every
            feature map of a grid, summed over its places (Kingma et al. 2016, eq. 15).
        soft_free_bits: rate in nats an example that the weight makes for: it is multiplied by ``Batch.gamma``, which whoever
            trains moves by `softened` (Chen et al. 2017, appendix C).
        warmup, cycles: the weight rises from 0, once or several times; see `annealed`.
        dropout: probability that the decoder of a model in training mode does not read a symbol, of an image a pixel.

    Raises:
        ValueError: a value is outside its range.
    """

    beta: float = 1.0
    free_bits: float = 0.0
    soft_free_bits: float = 0.0
    warmup: float = 0.0
    cycles: int = 1
    dropout: float = 0.0

    def __post_init__(self) -> None:
        for name in ("beta", "free_bits", "soft_free_bits", "warmup"):
            check_least(name, getattr(self, name))
        if self.cycles < 1 or (self.cycles > 1 and not self.warmup):
            raise ValueError(f"cycles is {self.cycles}; it must be at least 1, and more than one needs a warm-up to repeat")
        check_dropout(self.dropout)

    def weight(self, step: int, steps: int, gamma: float) -> float:
        """The weight of the rate at a step of so many, with what soft free bits have made of it."""
        rising = annealed(step, steps, self.warmup, self.cycles) if self.warmup else 1.0
        return self.beta * rising * (gamma if self.soft_free_bits else 1.0)

    def rate(self, groups: Mapping[str, Tensor]) -> Tensor:
        """Nats that are charged for, at weight 1, of the KL of every unit, (n, *latent) by group."""
        maps = torch.cat([kl.mean(0).view(kl.shape[1], -1).sum(1) for kl in groups.values()])
        return maps.clamp_min(self.free_bits).sum()


def annealed(step: int, steps: int, warmup: float, cycles: int = 1) -> float:
    """The part of its weight that the rate has at a step of a stage: in each cycle it rises to 1 in a straight line, and stays.

    One cycle: Bowman et al. 2016; several, as a rule with half of each for the rise: Fu et al. 2019.

    Args:
        step, steps: how many steps of the stage came before, and how many it has, 0 where that is unknown.
        warmup: steps over which the weight rises; up to 1, that share of a cycle.
        cycles: into how many equal parts the stage is cut.

    Raises:
        ValueError: the number of steps is needed and unknown.

    Example:
        >>> [annealed(step, 8, 0.5, cycles=2) for step in range(8)]
        [0.5, 1.0, 1.0, 1.0, 0.5, 1.0, 1.0, 1.0]
    """
    if steps < 1 and (warmup <= 1 or cycles > 1):
        raise ValueError("a warm-up in cycles, or as a share of the stage, needs its number of steps: Batch(..., steps=...)")
    start = -(-(step * cycles // steps) * steps // cycles) if cycles > 1 else 0
    rise = warmup * steps / cycles if warmup <= 1 else warmup
    return min(1.0, (step - start + 1) / rise)


def softened(gamma: float, rate: float, target: float) -> float:
    """The factor of the KL's weight after a step: a tenth more where the rate is 5 % above its target, a tenth less below it.

    It is never above 1 (Chen et al. 2017, appendix C), nor below a thousandth, so that it can come back in time.

    Example:
        >>> softened(0.5, rate=9.0, target=10.0), softened(0.5, rate=10.4, target=10.0), round(softened(0.5, 10.6, 10.0), 3)
        (0.45, 0.5, 0.55)
    """
    factor = 1.1 if rate > 1.05 * target else 0.9 if rate < target else 1.0
    return min(1.0, max(LEAST_GAMMA, gamma * factor))
