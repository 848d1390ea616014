"""Rate and distortion, example by example: what z costs, and what x costs once z is known.

R = KL(q(z | x) || p(z)) and D = -log p(x | z) at one z from the posterior; -(R + D) is the evidence lower bound, and
H(x) - D <= I(x; z) <= R (Alemi et al. 2018, "Fixing a Broken ELBO", arXiv:1711.00464). The weight of R is 1 whatever the
model was trained with, and the auxiliary loss is apart from both.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

from ancestral.evaluation.bits import Moments, example_nats
from ancestral.evaluation.codes import centres
from ancestral.evaluation.examples import Chosen, Tick
from ancestral.latent.codes import CodePrior
from ancestral.latent.latent import Latent
from ancestral.latent.quantizers import usage
from ancestral.latent.topdown import Noise


@dataclass(frozen=True)
class RateDistortion:
    """The terms of the bound on a set of n examples, float64, in nats.

    Attributes:
        rate, distortion, auxiliary: (n,); the last -log p(y | z), or None without an auxiliary loss.
        kl: mean rate of every unit by group; units of a grid are summed over its cells, one number a feature map.
        means: mean and variance over the examples of every unit's posterior mean, by group, cell by cell, lower groups being
            given the means above; codes have none.
        uses: (K,) how often each of K codes was chosen, by group, of models that have codes; auxiliary images have none.
    """

    rate: Tensor
    distortion: Tensor
    auxiliary: Tensor | None
    kl: Mapping[str, Tensor]
    means: Mapping[str, Moments]
    uses: Mapping[str, Tensor]


def rate_distortion(model: Latent, chosen: Chosen, seed: int, batch_size: int, tick: Tick) -> RateDistortion:
    """Both terms for every example, with the noise of its own row."""
    rates, distortions, auxiliaries = [], [], []
    kl: dict[str, Moments] = {}
    means: dict[str, Moments] = {}
    uses: dict[str, Tensor] = {}
    for batch, context in chosen.batches(model, seed, batch_size):
        descent = model.descend(batch.x, Noise(seed, batch.rows or ()), context)
        rates.append(torch.stack([group.kl.flatten(1).sum(1, dtype=torch.float64) for group in descent.groups]).sum(0))
        distortions.append(example_nats(model.likelihood, batch.x, descent.features))
        if model.auxiliary is not None:
            seen, second = model.auxiliary.context(descent.features), model.auxiliary
            auxiliaries.append(example_nats(second.likelihood, second.target(batch.x), seen))
        for group in descent.groups:
            by_unit = group.kl if group.kl.dim() == 2 else group.kl.flatten(2).sum(2, dtype=torch.float64)
            kl.setdefault(group.name, Moments()).add(by_unit)
            if isinstance(group.prior, CodePrior) and model.topdown.shows is None:  # levels of a picture are no names to use
                uses[group.name] = uses.get(group.name, 0) + usage(group.z, group.prior.levels).cpu()
        if not model.topdown.certain:
            for name, centre in centres(model, batch.x, context, descent.groups).items():
                means.setdefault(name, Moments()).add(centre.flatten(1))
        tick(len(batch.x))
    rate, distortion = torch.cat(rates).cpu(), torch.cat(distortions).cpu()
    auxiliary = torch.cat(auxiliaries).cpu() if auxiliaries else None
    return RateDistortion(rate, distortion, auxiliary, {name: each.mean for name, each in kl.items()}, means, uses)
