"""The importance-weighted bound: log of the mean of k weights w = p(x, z) / q(z | x), z from the posterior.

k = 1 is the evidence lower bound; in expectation the bound rises with k towards log p(x), which it misses by O(1/k)
(Burda et al. 2016, "Importance Weighted Autoencoders", arXiv:1509.00519).
"""

from __future__ import annotations

from dataclasses import dataclass
from math import log

import torch
from torch import Tensor

from ancestral.evaluation.examples import Chosen, Tick
from ancestral.latent.latent import Latent
from ancestral.objectives import importance_weights


@dataclass(frozen=True)
class Bounds:
    """Bounds of log p(x) on n examples from the same k samples of each, float64.

    Attributes:
        elbo: (n,) mean of the log-weights, in nats.
        iwae: (n,) log of the mean weight, in nats, never below it.
        effective: (n,) effective sample size over k: 1 where all weights are equal, 1/k where one has it all.
    """

    elbo: Tensor
    iwae: Tensor
    effective: Tensor


def bounds(model: Latent, chosen: Chosen, k: int, seed: int, batch_size: int, tick: Tick) -> Bounds:
    """Both bounds for every example; at most ``batch_size`` of the k times n decodings happen together."""
    weights = []
    for batch, _ in chosen.batches(model, seed, max(1, batch_size // k)):
        weights.append(importance_weights(model, batch, k, at_once=batch_size).double().cpu())
        tick(len(batch.x) * k)
    return bounds_of(torch.cat(weights))


def bounds_of(log_weights: Tensor) -> Bounds:
    """The bounds that (n, k) log-weights give, in nats.

    Example:
        >>> bounds_of(torch.tensor([[0.0, 0.0], [0.0, -40.0]])).effective
        tensor([1.0000, 0.5000])
    """
    k = log_weights.shape[1]
    total = log_weights.logsumexp(1)
    effective = (2 * total - (2 * log_weights).logsumexp(1)).exp() / k
    return Bounds(log_weights.mean(1), total - log(k), effective)
