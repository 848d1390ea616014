"""Particles of z for rows of which some symbols are known: p(z | x_known) ~ p(z) p(x_known | z).

Importance resampling chooses among them up to their number (Rubin 1987; Robert & Casella 2004, section 14.3)::

      pilot      z_j ~ p(z), one resampled by p(x_known | z_j)  ──▶  a guess at the whole x
      particles  half z_j ~ p(z), half z_j ~ q(z | guess), one resampled by  p(x_known | z_j) p(z_j) / mixture(z_j)

The mixture bounds the weights: they never exceed p(x_known | z) by more than a factor of two. The guess is made of the
known symbols and of randomness of its own, so it makes the weights no less right, only more even.

Where x leaves no choice of z all draws from q(z | guess) are one z, and copies of it would pass for particles: there is one.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from math import log

import torch
from torch import Tensor

from ancestral.core import Autoregressive, Context
from ancestral.draw import uniforms
from ancestral.latent.latent import Latent
from ancestral.latent.topdown import Noise
from ancestral.sampling.particles import effective_size, pick
from ancestral.sampling.strategies import Scattered
from ancestral.symbols import scored

RESAMPLING = 2**32  # stream of the uniforms that pick particles of z; streams 1, 2, ... are those of the groups of z
SITES = 2**18  # whose terms are computed at once: of long sequences those of all particles would take gigabytes
GUESS = 2**62  # the guess draws as rows so far away, so that the completion's own uniforms stay unused


@dataclass(frozen=True)
class Proposals:
    """Particles of z of m rows, k of each, those of row i in the places k i .. k i + k - 1.

    Attributes:
        model: whose z.
        x, known: (m, *shape) symbols and booleans, True where a symbol is known.
        context: labels, for a conditional model.
        seed, rows: which noise; row i takes that of the global row ``rows[i]``.
        k: how many.
    """

    model: Latent
    x: Tensor
    known: Tensor
    context: Context | None
    seed: int
    rows: Sequence[int]
    k: int

    def pilot(self) -> Context:
        """Features of particles from the prior."""
        noise = self._noise(0, self.k, prior=True)
        return self.model.topdown.descend(noise, context=self._wide(self.k), n=len(self.x) * self.k).features

    def near(self, guess: Tensor) -> tuple[Tensor, dict[str, Tensor], Context]:
        """Particles from the prior and from the posterior of a guess at x: log p(z) / mixture(z), z by group, features.

        They are (m, k) numbers, (m k, *latent) values and m k rows of features.
        """
        blind = self.k - 1 if self.model.topdown.certain else self.k // 2
        share = log(blind / self.k), log(1 - blind / self.k)
        ratios, groups, features = [], [], []
        for first, count, prior in ((0, blind, True), (blind, self.k - blind, False)):
            noise = self._noise(self.k + first, count, prior)
            descent = self.model.descend(guess.repeat_interleave(count, 0), noise, self._wide(count))
            log_p, log_q = _total([group.log_p for group in descent.groups]), _total([group.log_q for group in descent.groups])
            ratios.append((log_p - torch.logaddexp(log_p + share[0], log_q + share[1])).view(-1, count))
            groups.append({group.name: group.z for group in descent.groups})
            features.append({name: part for name, part in vars(descent.features).items() if part is not None})
        z, seen = ({name: self._joined([part[name] for part in halves]) for name in halves[0]} for halves in (groups, features))
        return torch.cat(ratios, 1), z, Context(**seen)

    def resampled(self) -> tuple[dict[str, Tensor], Tensor, Tensor]:
        """One z of each row, (m, *latent) by group, (m,) log-evidence in nats, and (m,) effective sample sizes.

        log p(x_known | z) must be what `known_terms` says it is: for known prefixes, or a factorised decoder.

        Raises:
            DataError: all particles of a row give the known symbols probability zero.
        """
        likelihood, u = self.model.likelihood, uniforms(self.seed, self.rows, 2, RESAMPLING)
        features = self.pilot()
        first = pick(self._evidence(features), u[:, 0])
        draw = Scattered(self.seed, known=(self.x, self.known), rows=[GUESS + row for row in self.rows])
        guess = likelihood.walk(len(self.x), features.select(first)).run(draw)

        ratio, z, features = self.near(guess)
        weights = ratio + self._evidence(features)
        picked = pick(weights, u[:, 1])
        chosen = {name: values.index_select(0, picked) for name, values in z.items()}
        return chosen, weights.logsumexp(1) - log(self.k), effective_size(weights)

    def _evidence(self, features: Context) -> Tensor:
        x, known = (part.repeat_interleave(self.k, 0) for part in (self.x, self.known))
        return known_terms(self.model.likelihood, x, known, features).view(-1, self.k)

    def _noise(self, first: int, count: int, prior: bool) -> Noise:
        """Noise of ``count`` particles of each row; 0 .. k - 1 are the pilot's, k .. 2 k - 1 the others."""
        keys = [2 * self.k * row + first + j for row in self.rows for j in range(count)]
        return Noise(self.seed, keys, prior=prior)

    def _wide(self, count: int) -> Context | None:
        return self.context and self.context.repeat(count)

    def _joined(self, parts: Sequence[Tensor]) -> Tensor:
        """Parts that hold some particles of every row each, joined row by row."""
        return torch.cat([part.reshape(len(self.x), -1, *part.shape[1:]) for part in parts], 1).flatten(0, 1)


def known_terms(likelihood: Autoregressive, x: Tensor, known: Tensor, seen: Context | None) -> Tensor:
    """(n,) sums of log p(x_i | x_<i) over the known sites, in nats: log p(x_known) where they come before all others."""
    counts, found = scored(x, likelihood.spec), list[Tensor]()
    for some in torch.split(torch.arange(len(x), device=x.device), max(1, SITES // x[0].numel())):
        rows = x[some]
        terms = likelihood.conditionals(rows, seen and seen.select(some)).log_prob(rows)
        found.append(
            terms.where(known[some] if counts is None else known[some] & counts[some], 0.0).flatten(1).sum(1, dtype=torch.float64)
        )
    return torch.cat(found)


def _total(groups: Sequence[Tensor]) -> Tensor:
    return torch.stack([values.flatten(1).sum(1, dtype=torch.float64) for values in groups]).sum(0)
