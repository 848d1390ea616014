"""Sampling all sites at once, again and again, until nothing changes: the same samples in fewer, larger passes.

With its uniforms fixed a sample is the solution of x_i = quantile(u_i | x_<i), a triangular system, and Jacobi iteration
solves it: after pass p the first p sites in the order are final, so D passes always suffice, and often far fewer do
(Song et al. 2021, "Accelerating Feedforward Computation via Parallel Nonlinear Equation Solving", arXiv:2002.03629).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from ancestral.core import Autoregressive, Conditional, Context
from ancestral.draw import Draw, uniforms
from ancestral.sampling.strategies import Model, Progress, Rows, context_of, inference, likelihood_of, part_of


@dataclass(frozen=True)
class Sampled:
    """Samples of the fixed-point iteration.

    Attributes:
        x: (n, *shape) symbols.
        passes: forward passes that the slowest row took, the one that found nothing to change included.
    """

    x: Tensor
    passes: int


def fixed_point(likelihood: Autoregressive, n: int, context: Context | None, draw: Draw) -> Sampled:
    """The samples that a walk with this draw gives, by at most D passes over all sites."""
    network, family, device = likelihood.network, likelihood.family, likelihood.network.anchor.device
    sites = len(network.order.sites)
    u = uniforms(draw.seed, range(draw.first_row, draw.first_row + n), sites).to(device).view(n, *network.shape)
    kind = torch.long if family.discrete else likelihood.network.anchor.dtype
    x = torch.zeros(n, *network.shape, dtype=kind, device=device)
    moving = torch.arange(n, device=device)  # a row that a pass leaves as it is has arrived
    passes = 0
    while len(moving) and passes < sites:
        passes += 1
        parameters = network(x[moving], context and context.select(moving))
        drawn = draw.choose(Conditional(family, parameters), u[moving]).to(kind)
        if draw.known is not None:
            values, known = (part[moving] for part in draw.known)
            drawn = torch.where(known, values.to(kind), drawn)
        changed = (drawn != x[moving]).flatten(1).any(1)
        x[moving] = drawn
        moving = moving[changed]
    return Sampled(x, passes)


def parallel_sample(
    model: Model,
    n: int,
    *,
    temperature: float = 1.0,
    top_k: int | None = None,
    top_p: float | None = None,
    seed: int = 0,
    labels: Sequence[int] | Tensor | None = None,
    context: Context | None = None,
    z: Mapping[str, Tensor] | None = None,
    z_temperature: float = 1.0,
    first_row: int = 0,
    batch_size: int = 64,
    progress: Progress | None = None,
) -> Sampled:
    """What `sample` gives for the same arguments, with the number of passes that it took.

    ``progress`` is called after each batch.

    Raises:
        ValueError: an argument is outside its range or does not fit the model.
    """
    rows = Rows(model, n, context_of(model, n, labels, context), z, seed, first_row, z_temperature)
    with inference(model):
        return iterated(rows, Draw(seed, temperature, top_k, top_p, first_row=first_row), batch_size, progress)


def iterated(rows: Rows, draw: Draw, batch_size: int, progress: Progress | None = None) -> Sampled:
    """The fixed points of batches of rows, one after the other."""
    done, sites = [], rows.model.spec.sites
    for some, seen in rows.batches(batch_size):
        done.append(fixed_point(likelihood_of(rows.model), len(some), seen, part_of(draw, some)))
        if progress is not None:
            progress(some.stop * sites, rows.n * sites)
    return Sampled(torch.cat([each.x for each in done]), max(each.passes for each in done))
