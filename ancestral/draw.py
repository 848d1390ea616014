"""Randomness: one uniform for every (seed, row, site), and the chooser that turns uniforms into symbols."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from math import inf

import numpy as np
import torch
from torch import Tensor

from ancestral.core import Conditional
from ancestral.spec import check_real, check_seed, check_whole


def fresh_seed() -> int:
    """A number from PyTorch's own generator."""
    return int(torch.randint(2**31, ()))


def check_numbers(parameters: Tensor) -> None:
    """Raise ``ValueError`` where parameters of conditionals are NaN, of which a draw would make zeros without a word."""
    if parameters.isnan().any():
        raise ValueError(
            "the network gives NaN as parameters of its conditionals, so nothing can be drawn: its weights are likely not finite,"
            " see how its training ended"
        )


def uniforms(seed: int, rows: Sequence[int], sites: int, stream: int = 0) -> Tensor:
    """(len(rows), sites) numbers in (0, 1), each a pure function of (seed, stream, row, site).

    NumPy's Philox counter-based generator, keyed by seed and row: row 17 is the same in any batch. The numbers are the odd
    multiples of 2^-53, all equally likely, so neither 0 nor 1 is among them.

    Raises:
        ValueError: the seed is no whole number, or it or a row is not in 0 .. 2^64 - 1.
    """
    check_seed(seed)
    if rows:
        check_seed(min(rows), "the first row")
        check_seed(max(rows), "the last row, first_row + n - 1,")
    words = np.empty((len(rows), sites), np.uint64)
    counter = np.array([0, 0, stream, 0], np.uint64)
    for place, row in zip(words, rows, strict=True):
        place[:] = np.random.Philox(key=np.array([seed, row], np.uint64), counter=counter).random_raw(sites)
    return torch.from_numpy(((words >> np.uint64(12)) + 0.5) * 2.0**-52)


@dataclass
class Draw:
    """The usual chooser: every symbol is the quantile of one uniform that (seed, row, site) alone decides.

    Attributes:
        seed, first_row: which uniforms; row i of the batch takes those of row ``first_row + i``.
        temperature: log-probabilities are divided by it; 0 takes the mode.
        top_k, top_p, min_p: after the temperature keep the k most probable symbols, then the fewest that hold probability p (the
            crossing one is kept), then those at least ``min_p`` times as probable as the most probable one.
        known: (n, *shape) symbols and (n, *shape) booleans; where True the symbol is taken, not drawn.

    Raises:
        ValueError: an option is outside its range.

    Example:
        >>> from ancestral.families import Bernoulli
        >>> Draw(seed=1)(0, Conditional(Bernoulli(), torch.zeros(8, 1)))  # the same eight coins whenever this runs
        tensor([0, 0, 0, 1, 1, 1, 1, 1])
    """

    seed: int = 0
    temperature: float = 1.0
    top_k: int | None = None
    top_p: float | None = None
    min_p: float | None = None
    known: tuple[Tensor, Tensor] | None = None
    first_row: int = 0

    def __post_init__(self) -> None:
        check_seed(self.seed)
        check_seed(self.first_row, "first_row")
        check_whole(top_k=self.top_k)
        check_real(temperature=self.temperature, top_p=self.top_p, min_p=self.min_p)
        if not self.temperature >= 0:
            raise ValueError(f"temperature is {self.temperature}; it must be at least 0 (0 takes the mode)")
        if self.top_k is not None and self.top_k < 1:
            raise ValueError(f"top_k is {self.top_k}; it must be at least 1 (None keeps every symbol)")
        if self.top_p is not None and not 0 < self.top_p <= 1:
            raise ValueError(f"top_p is {self.top_p}; it must be in (0, 1] (None keeps every symbol)")
        if self.min_p is not None and not 0 <= self.min_p <= 1:
            raise ValueError(f"min_p is {self.min_p}; it must be in [0, 1] (None keeps every symbol)")
        if self.known is not None and (self.known[0].shape != self.known[1].shape or self.known[1].dtype != torch.bool):
            shapes = [tuple(part.shape) for part in self.known]
            raise ValueError(
                f"known is symbols of shape {shapes[0]} and {self.known[1].dtype} of {shapes[1]}; it takes booleans, shaped alike"
            )
        self._uniforms = torch.empty(0, 0, dtype=torch.float64)  # (sites, n), where the parameters are

    def __call__(self, site: int, conditional: Conditional) -> Tensor:
        """(n,) symbols of the site, which is its place in the flattened example."""
        drawn = self.choose(conditional, self._uniform(site, conditional.parameters))
        if self.known is None:
            return drawn
        values, known = (part.flatten(1)[:, site] for part in self.known)
        return torch.where(known, values.to(drawn.dtype), drawn)

    def _uniform(self, site: int, parameters: Tensor) -> Tensor:
        n, have = parameters.shape[0], self._uniforms
        if have.shape[0] <= site or have.shape[1] != n or have.device != parameters.device:
            check_numbers(parameters)  # where the first symbols are chosen: a look at every site would cost more than it tells
            sites = max(2 * have.shape[0], site + 1, 1024)  # a prefix of the stream does not depend on its length
            self._uniforms = self.uniforms(n, sites).T.contiguous().to(parameters.device)
        return self._uniforms[site]

    @property
    def plain(self) -> bool:
        """Whether neither temperature nor truncation has a say."""
        return self.temperature == 1 and self.top_k is None and self.top_p is None and not self.min_p

    def uniforms(self, n: int, sites: int) -> Tensor:
        """(n, sites) the uniforms of n rows, by the place of a site in the flattened example."""
        return uniforms(self.seed, range(self.first_row, self.first_row + n), sites)

    def choose(self, conditional: Conditional, u: Tensor) -> Tensor:
        """(...) symbols that the options choose at (...) uniforms of the caller's; ``known`` plays no part."""
        if self.temperature == 0:
            return conditional.mode
        if self.plain:
            return conditional.quantile(u)
        return inverse_cdf(self.probability(conditional), u)

    def probability(self, conditional: Conditional) -> Tensor:
        """(..., levels) probabilities of every symbol under the options, in float64; ``known`` plays no part.

        Raises:
            DataError: the family is continuous.
        """
        log_pmf = wide_log_pmf(conditional)
        if self.temperature == 0:
            return torch.zeros_like(log_pmf).scatter(-1, conditional.mode.unsqueeze(-1), 1.0)
        return truncated(tempered(log_pmf, self.temperature), self.top_k, self.top_p, self.min_p)


@dataclass
class Handed(Draw):
    """A draw whose uniforms are handed over.

    Attributes:
        u: (n, sites) of them, by the place of a site in the flattened example.
    """

    u: Tensor | None = None

    def uniforms(self, n: int, sites: int) -> Tensor:
        """(n, sites) those that were handed over, or those of the seed where none were."""
        return super().uniforms(n, sites) if self.u is None else self.u


def wide_log_pmf(conditional: Conditional) -> Tensor:
    """(..., levels) log-probabilities of every symbol in nats, computed in float64 whatever the type of the parameters.

    Raises:
        DataError: the family is continuous.
    """
    parameters = conditional.parameters
    return conditional.family.log_pmf(parameters.double() if parameters.is_floating_point() else parameters).double()


def tempered(log_weights: Tensor, temperature: float) -> Tensor:
    """(..., levels) unnormalised log-weights to probabilities proportional to exp(log_weights / temperature), in float64.

    What is impossible stays so at an infinite temperature too, which makes all else equally likely.
    """
    log_weights = log_weights.double()
    scaled = (log_weights - log_weights.amax(-1, keepdim=True)) / temperature
    return scaled.masked_fill(log_weights == -inf, -inf).softmax(-1)


def truncated(probability: Tensor, top_k: int | None = None, top_p: float | None = None, min_p: float | None = None) -> Tensor:
    """(..., levels) probabilities with all outside top-k removed, then all outside top-p of what is left, then all below min-p.

    Exactly k symbols stay, the lower ones of equals; then the fewest that hold probability p, the one that crosses p included
    (Holtzman et al., arXiv:1904.09751); then those whose probability is at least ``min_p`` times the largest (Nguyen et al.,
    arXiv:2407.01082). Probabilities are compared with a tolerance of 1e-12. What is left is made to sum to 1.
    """
    if top_k is None and top_p is None and not min_p:
        return probability
    ranked, order = probability.sort(stable=True, dim=-1, descending=True)
    if top_k is not None:
        ranked[..., top_k:] = 0
        ranked /= ranked.sum(-1, keepdim=True)
    if top_p is not None and top_p < 1:
        before = ranked.cumsum(-1) - ranked
        ranked = ranked.where(before <= max(top_p - 1e-12, 0.0), 0.0)  # the first symbol always stays: nothing is before it
    if min_p:
        ranked = ranked.where(ranked >= (min_p - 1e-12) * ranked[..., :1], 0.0)
    return torch.zeros_like(ranked).scatter(-1, order, ranked / ranked.sum(-1, keepdim=True))


def inverse_cdf(probability: Tensor, u: Tensor) -> Tensor:
    """(..., levels) probabilities and (...) uniforms to the symbol whose slot of the cumulative sum holds u.

    The sum need not be one. A symbol of probability 0 owns no slot, so it is never returned.
    """
    cumulative = probability.double().cumsum(-1)
    return (cumulative <= u.unsqueeze(-1) * cumulative[..., -1:]).sum(-1)  # below levels, since u < 1 leaves the last sum out
