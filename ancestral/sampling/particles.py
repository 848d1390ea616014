"""Sequential Monte Carlo: symbols given others that come later in the order of a walk.

Every row has k particles, which are walks of their own. At an unknown site each draws its symbol from the model's
conditional; at a known one all take the known symbol, and the weight of each is multiplied by the probability that its own
past gave to that symbol. Before a row draws again its particles are resampled, if the weights have become uneven::

      known      unknown      known       unknown               end
      one walk ▶ k draw     ▶ k weigh   ▶ resample, k draw ... ▶ pick one by its weight

This is the bootstrap filter (Gordon, Salmond & Smith 1993) with resampling where the effective sample size is below k / 2
(Liu & Chen 1995), and the mean of the weights is an unbiased estimate of p(x_known) (Del Moral 2004, "Feynman-Kac Formulae").
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from math import log

import torch
from torch import Tensor

from ancestral.core import Autoregressive, Walk
from ancestral.draw import Draw, inverse_cdf, uniforms
from ancestral.symbols import DataError
from ancestral.walking.engines import lowered

SYMBOLS, PARENTS = 2**33, 2**34  # streams of the uniforms that settle particles' symbols, and that resample and pick
BELOW_ONE = 1 - 2.0**-53


@dataclass(frozen=True)
class Filtered:
    """What m rows of particles end in.

    Attributes:
        x: (m, *shape) symbols, of one particle of each row.
        log_evidence: (m,) logarithm of an unbiased estimate of p(x_known), in nats.
        effective_sample_size, least: (m,) of how many equally good particles the weights were worth: at the end, and when
            they were worth least.
    """

    x: Tensor
    log_evidence: Tensor
    effective_sample_size: Tensor
    least: Tensor


def effective_size(weights: Tensor) -> Tensor:
    """(m, k) log-weights to (m,) (sum w)^2 / sum w^2, which is k where all are alike and 1 where one has it all."""
    return 1 / weights.softmax(1).square().sum(1)


def pick(weights: Tensor, u: Tensor) -> Tensor:
    """(m,) places among m k particles in blocks, one of each row, chosen at (m,) uniforms by (m, k) log-weights.

    Raises:
        DataError: a row has no weight above zero.
    """
    _check_alive(weights)
    m, k = weights.shape
    return inverse_cdf(weights.softmax(1), u.to(weights.device)) + k * torch.arange(m, device=weights.device)


def systematic(weights: Tensor, u: Tensor) -> Tensor:
    """(m, k) places in each row, k of them a row with place j expected k w_j times, by (m, k) log-weights at (m,) uniforms.

    No place comes up more often than k w_j rounded up, or less often than rounded down (Carpenter, Clifford & Fearnhead 1999).

    Example:
        >>> systematic(torch.tensor([[0.5, 0.0, 0.25, 0.25]]).log(), torch.tensor([0.3]))
        tensor([[0, 0, 2, 3]])
    """
    k = weights.shape[1]
    cumulative = weights.double().softmax(1).cumsum(1)
    comb = (torch.arange(k, device=weights.device) + u.to(weights.device).unsqueeze(1)) / k
    return torch.searchsorted(cumulative / cumulative[:, -1:], comb.double().clamp_max(BELOW_ONE), right=True)


def stepping(likelihood: Autoregressive, engine: str, n: int) -> Autoregressive:
    """The same likelihood, whose walks of n rows an engine carries out step by step; see `sample` for their names.

    Raises:
        EngineError: the engine is unknown, or it was asked for by name and cannot.
    """
    fast = lowered(likelihood, engine, n)
    return likelihood if fast is None else Autoregressive(fast, likelihood.family, likelihood.spec)


def filtered(
    walk: Walk,
    x: Tensor,
    known: Tensor,
    rows: Sequence[int],
    k: int,
    draw: Draw,
    weights: Tensor | None = None,
    turn: int = 0,
    tell: Callable[[int], None] | None = None,
) -> Filtered:
    """Settle the unknown symbols of m rows by k particles each.

    Args:
        walk: of m rows; of m k, those of a row together, where particles see different things from the start.
        x, known: (m, *shape) symbols and booleans, True where a symbol stays.
        rows: the global numbers of the m rows, which decide their uniforms.
        draw: the seed, and how unknown symbols are drawn; its own rows and known symbols play no part.
        weights: (m, k) log-weights of the particles at the start; all 0 by default.
        turn: another number takes other uniforms.
        tell: is told how many sites are settled.

    Raises:
        DataError: all particles of a row give the known symbols probability zero.
    """
    sites, device = walk.order.sites, x.device
    keys = [k * row + j for row in rows for j in range(k)]
    u = uniforms(draw.seed, keys, len(sites), SYMBOLS + turn).T.contiguous().to(device)
    resampling = uniforms(draw.seed, rows, len(sites) + 1, PARENTS + turn).T.to(device)
    cloud = _Cloud(walk, torch.zeros(len(x), 1, dtype=torch.float64, device=device) if weights is None else weights, k)
    for place, site in enumerate(sites):
        given, values = known.flatten(1)[:, site], x.flatten(1)[:, site]
        if not given.all():
            cloud.ready(~given, resampling[place])
        cloud.settle(given, values, draw, u[site])
        if tell is not None:
            tell(place + 1)
    log_evidence = cloud.weights.logsumexp(1) - log(cloud.weights.shape[1])
    picked = walk.symbols.index_select(0, pick(cloud.weights, resampling[-1]))
    return Filtered(picked, log_evidence, effective_size(cloud.weights), cloud.least)


class _Cloud:
    """Particles of m rows on their walk: (m, k) log-weights, or (m, 1) as long as those of a row are all the same.

    The weights of a row that is resampled become their mean, so that the mean of the weights always estimates p(x_known).
    """

    def __init__(self, walk: Walk, weights: Tensor, k: int) -> None:
        self.walk, self.weights, self.k = walk, weights, k
        self.least = torch.full_like(weights[:, 0], k)
        self.weighed()

    def weighed(self) -> None:
        """Take note of weights that have changed."""
        _check_alive(self.weights)
        if self.weights.shape[1] == self.k:
            self.least = torch.minimum(self.least, effective_size(self.weights))

    def ready(self, rows: Tensor, u: Tensor) -> None:
        """See that the particles of the rows that are True may draw: there are k, and none of them is worth little."""
        m, k, first = len(self.weights), self.k, torch.arange(len(self.weights), device=self.weights.device).unsqueeze(1)
        if self.weights.shape[1] < k:
            self.walk.select(first.expand(m, k).flatten())
            self.weights = self.weights.expand(m, k)
        uneven = (rows & (effective_size(self.weights) < k / 2)).unsqueeze(1)
        if uneven.any():
            parents = torch.where(uneven, systematic(self.weights, u), torch.arange(k, device=u.device))
            self.walk.select((k * first + parents).flatten())
            self.weights = torch.where(uneven, self.weights.logsumexp(1, keepdim=True) - log(k), self.weights)

    def settle(self, given: Tensor, values: Tensor, draw: Draw, u: Tensor) -> None:
        """Give the next symbol: the (m,) values where given, else what is drawn at (m k,) uniforms."""
        each, conditional = self.weights.shape[1], self.walk.conditional
        symbols, here = values.repeat_interleave(each), given.repeat_interleave(each)
        if not given.all():
            symbols = torch.where(here, symbols, draw.choose(conditional, u).to(symbols.dtype))
        if given.any():
            gain = conditional.log_prob(symbols).where(here, 0.0).double()
            self.weights = self.weights + gain.view(-1, each)
            self.weighed()
        self.walk.settle(symbols)


def _check_alive(weights: Tensor) -> None:
    if not weights.logsumexp(1).isfinite().all():
        raise DataError("no particle gives the known symbols a probability above zero; are they like the data of the model?")
