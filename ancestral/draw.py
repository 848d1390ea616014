"""Randomness: one uniform for every (seed, row, site), and the chooser that turns uniforms into symbols."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from ancestral.core import Conditional


def uniforms(seed: int, rows: range, sites: int, stream: int = 0) -> Tensor:
    """(len(rows), sites) numbers in (0, 1), each a pure function of (seed, stream, row, site).

    NumPy's Philox counter-based generator, keyed by seed and row: row 17 is the same in any batch.
    """
    draws = [np.random.Generator(np.random.Philox(key=[seed, row], counter=[0, 0, stream, 0])).random(sites) for row in rows]
    return torch.from_numpy(np.stack(draws) if draws else np.zeros((0, sites))) + 2.0**-54


@dataclass
class Draw:
    """The usual chooser: every symbol is the quantile of one uniform that (seed, row, site) alone decides.

    Attributes:
        seed, first_row: which uniforms; row i of the batch takes those of row ``first_row + i``.
        temperature: log-probabilities are divided by it; 0 takes the mode.
        top_k, top_p: keep the k most probable symbols, then the fewest that hold probability p (the crossing one is kept).
        known: (n, *shape) symbols and (n, *shape) booleans; where True the symbol is taken, not drawn.

    Raises:
        ValueError: an option is outside its range.
    """

    seed: int = 0
    temperature: float = 1.0
    top_k: int | None = None
    top_p: float | None = None
    known: tuple[Tensor, Tensor] | None = None
    first_row: int = 0

    def __post_init__(self) -> None:
        if self.temperature < 0 or (self.top_k is not None and self.top_k < 1) or not 0 < (self.top_p or 1.0) <= 1:
            raise ValueError("temperature must be at least 0, top_k at least 1, top_p in (0, 1]")
        self._uniforms = torch.empty(0, 0, dtype=torch.float64)

    def __call__(self, site: int, conditional: Conditional) -> Tensor:
        n = conditional.parameters.shape[0]
        drawn = self._choose(conditional, self._uniform(n, site).to(conditional.parameters.device))
        if self.known is None:
            return drawn
        values, known = (part.flatten(1)[:, site] for part in self.known)
        return torch.where(known, values.to(drawn.dtype), drawn)

    def _uniform(self, n: int, site: int) -> Tensor:
        if self._uniforms.shape[0] != n or self._uniforms.shape[1] <= site:
            sites = max(2 * self._uniforms.shape[1], site + 1, 1024)  # a prefix of the stream does not depend on its length
            self._uniforms = uniforms(self.seed, range(self.first_row, self.first_row + n), sites)
        return self._uniforms[:, site]

    def _choose(self, conditional: Conditional, u: Tensor) -> Tensor:
        if self.temperature == 0:
            return conditional.mode
        if self.temperature == 1 and self.top_k is None and self.top_p is None:
            return conditional.quantile(u)
        weights = truncated(conditional.log_pmf() / self.temperature, self.top_k, self.top_p)
        return inverse_cdf(weights, u)


def truncated(log_weights: Tensor, top_k: int | None, top_p: float | None) -> Tensor:
    """(..., levels) unnormalised log-weights to probabilities with everything outside top-k, then top-p, removed."""
    ranked, order = log_weights.double().sort(-1, descending=True, stable=True)
    probability = ranked.softmax(-1)
    if top_k is not None:
        probability[..., top_k:] = 0
        probability /= probability.sum(-1, keepdim=True)
    if top_p is not None:
        before = probability.cumsum(-1) - probability
        probability = probability.where(before < top_p - 1e-12, 0.0)  # the first symbol always stays: nothing is before it
        probability[..., 0] = probability[..., 0].clamp_min(torch.finfo(torch.float64).tiny)
    return torch.zeros_like(probability).scatter(-1, order, probability / probability.sum(-1, keepdim=True))


def inverse_cdf(probability: Tensor, u: Tensor) -> Tensor:
    """(..., levels) probabilities and (...) uniforms to the symbol whose slot of the cumulative sum holds u."""
    cumulative = probability.double().cumsum(-1)
    symbol = (cumulative <= u.unsqueeze(-1) * cumulative[..., -1:]).sum(-1)
    return symbol.clamp_max(probability.shape[-1] - 1)
