"""Completion: symbols that are known stay, the others are drawn given them.

Exact models walk over the known symbols first, which is exact where those come before all others. Of a latent-variable
model z must be drawn given the known symbols, p(z | x_known) ~ p(z) p(x_known | z), which importance resampling does up to
the number of its particles (Rubin 1987; Robert & Casella 2004, section 14.3)::

      pilot      z_j ~ p(z), one resampled by p(x_known | z_j)  ──▶  a guess at the whole x
      particles  half z_j ~ p(z), half z_j ~ q(z | guess), one resampled by  p(x_known | z_j) p(z_j) / mixture(z_j)

The mixture bounds the weights: they never exceed p(x_known | z) by more than a factor of two. The guess is made of the
known symbols and of randomness of its own, so it makes the weights no less right, only more even.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from math import log

import torch
from torch import Tensor

from ancestral.core import Autoregressive, Context, DataError, check_symbols
from ancestral.draw import Draw, inverse_cdf, uniforms
from ancestral.latent.latent import Latent
from ancestral.latent.topdown import Descent, Noise
from ancestral.networks.factorised import Factorised
from ancestral.sampling.sample import walked
from ancestral.sampling.strategies import Model, Progress, Rows, check_prefix, context_of, inference, likelihood_of

RESAMPLING = 2**32  # stream of the uniforms that pick particles; streams 1, 2, ... are those of the groups of z
GUESS = 2**62  # the guess draws as rows so far away, so that the completion's own uniforms stay unused


@dataclass(frozen=True)
class Completion:
    """Completed examples, and how far they are to be trusted.

    Attributes:
        x: (n, *shape) symbols; those that were known are as they were.
        status: ``"exact"``: drawn from p(x | known); ``"approximate"``: by importance resampling of z.
        particles: how many z each row chose from; None where it is exact.
        effective_sample_size: (n,) of how many equally good particles the weights were worth, 1 .. particles; None likewise.
    """

    x: Tensor
    status: str
    particles: int | None = None
    effective_sample_size: Tensor | None = None


def complete(
    model: Model,
    x: Tensor,
    known: Tensor,
    *,
    seed: int = 0,
    particles: int = 64,
    labels: Sequence[int] | Tensor | None = None,
    context: Context | None = None,
    temperature: float = 1.0,
    top_k: int | None = None,
    top_p: float | None = None,
    first_row: int = 0,
    batch_size: int = 64,
    engine: str = "auto",
    progress: Progress | None = None,
) -> Completion:
    """Draw the unknown symbols of x given the known ones; row i is a pure function of the seed and ``first_row + i``.

    Args:
        x: (n, *shape) symbols; what stands at unknown sites does not matter.
        known: booleans that broadcast to (n, *shape), True where the symbol is to stay.
        particles: z's to choose from in each row of a latent-variable model, at least 2; memory grows with it.
        labels, context: (n,) labels of a conditional model, or whatever else it is conditioned on; not both.
        temperature, top_k, top_p: how each unknown symbol is drawn; see `Draw`. z is chosen without them.
        batch_size: rows that walk together.
        engine: what carries the walk out; see `sample`.
        progress: is told (symbols settled, of how many) of the last walk.

    Raises:
        DataError: x or known does not fit the model, or a known site comes after an unknown one, which only a latent-variable
            model with a factorised decoder can take.
        ValueError: an argument is outside its range.

    Example:
        >>> import ancestral
        >>> model = ancestral.build("gated-pixelcnn", ancestral.DataSpec("image", (1, 4, 4), levels=2), preset="tiny")
        >>> x, top = torch.ones(2, 1, 4, 4, dtype=torch.long), torch.tensor([[True], [True], [False], [False]])
        >>> completion = complete(model, x, top)
        >>> completion.status, completion.x[:, :, :2].eq(1).all().item()
        ('exact', True)
    """
    x, known = _evidence(model, x, known)
    n = len(x)
    likelihood, latent = likelihood_of(model), model if isinstance(model, Latent) else None
    if latent is None or not isinstance(likelihood.network, Factorised):
        check_prefix(known, likelihood.network)
    if particles < 2:
        raise ValueError(f"particles is {particles}; it must be at least 2, one from the prior and one from the posterior")
    draw = Draw(seed, temperature, top_k, top_p, (x, known), first_row)
    rows = Rows(model, n, context_of(model, n, labels, context), seed=seed, first_row=first_row)
    with inference(model):
        if latent is None:
            return Completion(walked(likelihood, rows, draw, batch_size, engine, progress), "exact")
        some = max(1, batch_size // particles)
        chosen = [_resampled(latent, rows, range(i, min(i + some, n)), x, known, particles) for i in range(0, n, some)]
        z = {name: torch.cat([each[name] for each, _ in chosen]) for name in chosen[0][0]}
        rows = Rows(model, n, rows.context, z)
        done = walked(likelihood, rows, draw, batch_size, engine, progress)
    return Completion(done, "approximate", particles, torch.cat([size for _, size in chosen]))


def _evidence(model: Model, x: Tensor, known: Tensor) -> tuple[Tensor, Tensor]:
    """Symbols with zeros where they are unknown, checked, and the mask in their shape, on the model's device."""
    parameter = model.anchor
    x, known = torch.as_tensor(x, device=parameter.device), torch.as_tensor(known, device=parameter.device)
    if known.dtype != torch.bool:
        raise DataError(f"known has type {known.dtype}; it takes booleans, True where a symbol is to stay")
    try:
        known = known.broadcast_to(x.shape)
    except RuntimeError as error:
        raise DataError(f"known has shape {tuple(known.shape)}, which does not broadcast to x {tuple(x.shape)}") from error
    x = torch.where(known, x, torch.zeros_like(x))
    check_symbols(x, model.spec)
    if not len(x):
        raise DataError("x has no rows: there is nothing to complete")
    return (x.to(parameter.dtype) if model.spec.levels is None else x.long()), known


def _resampled(
    model: Latent, rows: Rows, some: range, x: Tensor, known: Tensor, particles: int
) -> tuple[dict[str, Tensor], Tensor]:
    """z of the rows ``some`` given what is known of them, (m, *latent) by group, and (m,) effective sample sizes."""
    keys = range(rows.first_row + some.start, rows.first_row + some.stop)
    here = torch.arange(some.start, some.stop, device=x.device)
    context = rows.context and rows.context.select(here)
    cloud = _Cloud(model, x[here], known[here], context, rows.seed, keys, particles)
    weights, pilot = cloud.pilot()
    guess = cloud.guess(pilot.features, cloud.pick(weights, 0))
    weights, z = cloud.particles_near(guess)
    picked = cloud.pick(weights, 1)
    size = (2 * weights.logsumexp(1) - (2 * weights).logsumexp(1)).exp()
    return {name: values.index_select(0, picked) for name, values in z.items()}, size


@dataclass(frozen=True)
class _Cloud:
    """Particles of m rows, k of each, in blocks: those of row i are k i .. k i + k - 1."""

    model: Latent
    x: Tensor
    known: Tensor
    context: Context | None
    seed: int
    rows: range
    k: int

    def noise(self, first: int, count: int, prior: bool) -> Noise:
        """Noise of ``count`` particles of each row; 0 .. k - 1 are the pilot's, k .. 2 k - 1 the others."""
        keys = [2 * self.k * row + first + j for row in self.rows for j in range(count)]
        return Noise(self.seed, keys, prior=prior)

    def evidence(self, features: Context, count: int) -> Tensor:
        """(m, count) log p(x_known | z), in nats: of a prefix by the chain rule, of a factorised decoder anywhere."""
        x, known = (part.repeat_interleave(count, 0) for part in (self.x, self.known))
        terms = self.model.likelihood.conditionals(x, features).log_prob(x).where(known, 0.0)
        return terms.flatten(1).sum(1, dtype=torch.float64).view(-1, count)

    def pilot(self) -> tuple[Tensor, Descent]:
        """(m, k) log-weights of particles from the prior, and their descent."""
        wide = self.context and self.context.repeat(self.k)
        noise = self.noise(0, self.k, prior=True)
        descent = self.model.topdown.descend(noise, context=wide, n=len(self.x) * self.k)
        return self.evidence(descent.features, self.k), descent

    def pick(self, weights: Tensor, turn: int) -> Tensor:
        """(m,) places among the m k particles, one of each row, drawn by (m, k) log-weights."""
        if not weights.logsumexp(1).isfinite().all():
            raise DataError("no particle gives the known symbols a probability above zero; are they like the data of the model?")
        u = uniforms(self.seed, self.rows, 2, RESAMPLING)[:, turn].to(weights.device)
        return inverse_cdf(weights.softmax(1), u) + self.k * torch.arange(len(weights), device=weights.device)

    def guess(self, features: Context, picked: Tensor) -> Tensor:
        """(m, *shape) the known symbols, completed by a walk that sees the picked features."""
        likelihood: Autoregressive = self.model.likelihood
        draw = Draw(self.seed, known=(self.x, self.known), first_row=GUESS + self.rows.start)
        return likelihood.walk(len(self.x), features.select(picked)).run(draw)

    def particles_near(self, guess: Tensor) -> tuple[Tensor, dict[str, Tensor]]:
        """(m, k) log-weights of particles from the prior and from the guess's posterior, and their (m k, *latent) z."""
        half = self.k // 2
        share = log(half / self.k), log(1 - half / self.k)
        weights, groups = [], []
        for first, count, prior in ((0, half, True), (half, self.k - half, False)):
            wide = self.context and self.context.repeat(count)
            descent = self.model.descend(guess.repeat_interleave(count, 0), self.noise(self.k + first, count, prior), wide)
            log_p, log_q = _total([group.log_p for group in descent.groups]), _total([group.log_q for group in descent.groups])
            ratio = log_p - torch.logaddexp(log_p + share[0], log_q + share[1])
            weights.append(self.evidence(descent.features, count) + ratio.view(-1, count))
            groups.append({group.name: group.z.reshape(-1, count, *group.z.shape[1:]) for group in descent.groups})
        return torch.cat(weights, 1), {name: torch.cat([z[name] for z in groups], 1).flatten(0, 1) for name in groups[0]}


def _total(groups: Sequence[Tensor]) -> Tensor:
    return torch.stack([values.flatten(1).sum(1, dtype=torch.float64) for values in groups]).sum(0)
