"""Sampling many sites in one pass over the whole network: the samples of a walk, in fewer, larger passes.

With its uniforms fixed a sample is the solution of x_i = quantile(u_i | x_<i), a triangular system, and there are two ways:

``parallel``   all sites at once, again and again, until nothing changes: Jacobi iteration (Song et al. 2021, "Accelerating
               Feedforward Computation via Parallel Nonlinear Equation Solving", arXiv:2002.03629). After pass p the first p
               sites in the order are final, so D passes always suffice, and often far fewer do.
``wavefront``  every site once, with all others whose inputs are settled by then; see `wavefront`. For networks with a limited
               receptive field; how many passes is known beforehand.

Jacobi iteration needs at most one pass more than the wavefront, the one that finds nothing to change, since a pass makes every
site final whose inputs are. The wavefront draws each symbol once only, which counts where quantiles cost much. Either way a pass
costs what a whole forward pass costs, so the steps of a cached walk, which compute each site once, are often faster on a CPU.

In float64 all methods give the same symbols. In float32 whole passes and steps round differently, by about 1e-5 of the largest
parameter: a symbol differs where its uniform lies that close to a boundary, and what follows it may then differ too.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from ancestral.core import Autoregressive, Conditional, Context
from ancestral.draw import Draw, check_numbers
from ancestral.latent.latent import Latents
from ancestral.sampling.strategies import Interrupted, Model, Progress, Rows, context_of, inference, likelihood_of, part_of, sized
from ancestral.sampling.wavefront import schedule
from ancestral.symbols import ended


@dataclass(frozen=True)
class Sampled:
    """Samples, and what they took.

    Attributes:
        x: (n, *shape) symbols.
        passes: how many times the network was run one after the other for the slowest row: whole passes, that which found
            nothing to change included, or the steps of a walk, one a site.
    """

    x: Tensor
    passes: int


class _Sheet:
    """Symbols of n rows on their way to being samples: x is (n, D), by the place of a site in the flattened example."""

    def __init__(self, likelihood: Autoregressive, n: int, context: Context | None, draw: Draw) -> None:
        self.network, self.family, self.context, self.draw = likelihood.network, likelihood.family, context, draw
        sites, anchor = self.network.shape.numel(), likelihood.anchor
        self.u = draw.uniforms(n, sites).to(anchor.device)
        self.x = torch.zeros(n, sites, dtype=torch.long if self.family.discrete else anchor.dtype, device=anchor.device)

    def drawn(self, rows: Tensor, sites: Tensor) -> Tensor:
        """(len(rows), len(sites)) what is drawn there given the present symbols, by one pass."""
        x, context = self.x[rows].view(-1, *self.network.shape), self.context and self.context.select(rows)
        family = self.family.at(tuple(sites.tolist()))
        conditional = Conditional(family, self.network(x, context).flatten(1, -2)[:, sites])
        check_numbers(conditional.parameters)
        here = rows[:, None], sites
        drawn = self.draw.choose(conditional, self.u[here]).to(self.x.dtype)
        if self.draw.known is None:
            return drawn
        values, known = (part.flatten(1)[here] for part in self.draw.known)
        return torch.where(known, values.to(drawn.dtype), drawn)

    def done(self, passes: int) -> Sampled:
        return Sampled(self.x.view(-1, *self.network.shape), passes)


def fixed_point(likelihood: Autoregressive, n: int, context: Context | None, draw: Draw) -> Sampled:
    """The samples that a walk with this draw gives, by at most D passes over all sites."""
    sheet = _Sheet(likelihood, n, context, draw)
    moving, everywhere = (torch.arange(size, device=sheet.x.device) for size in sheet.x.shape)
    passes = 0
    while len(moving) and passes < len(everywhere):
        passes += 1
        drawn = sheet.drawn(moving, everywhere)
        changed = (drawn != sheet.x[moving]).any(1)
        sheet.x[moving] = drawn
        moving = moving[changed]  # a row that a pass leaves as it is has arrived
    return sheet.done(passes)


def wavefront(likelihood: Autoregressive, n: int, context: Context | None, draw: Draw) -> Sampled:
    """The samples that a walk with this draw gives, a pass for every front of sites.

    Raises:
        ValueError: the network has no receptive field, or too wide a one.
    """
    fronts = schedule(likelihood.network)
    sheet = _Sheet(likelihood, n, context, draw)
    rows = torch.arange(n, device=sheet.x.device)
    for front in fronts:
        sites = front.to(sheet.x.device)
        sheet.x[:, sites] = sheet.drawn(rows, sites)
    return sheet.done(len(fronts))


PASSES = {"parallel": fixed_point, "wavefront": wavefront}


def parallel_sample(
    model: Model,
    n: int,
    *,
    method: str = "parallel",
    temperature: float = 1.0,
    top_k: int | None = None,
    top_p: float | None = None,
    min_p: float | None = None,
    seed: int = 0,
    labels: Sequence[int] | Tensor | None = None,
    context: Context | None = None,
    z: Latents | None = None,
    z_temperature: float = 1.0,
    first_row: int = 0,
    batch_size: int = 64,
    progress: Progress | None = None,
) -> Sampled:
    """What `sample` gives for the same arguments, with the number of passes that it took.

    ``method`` is ``"parallel"`` or ``"wavefront"``; ``progress`` is called after each batch.

    Raises:
        ValueError: an argument is outside its range or does not fit the model.
        Interrupted: Ctrl-C; its ``complete`` holds the batches that were done.

    Example:
        >>> import ancestral
        >>> model = ancestral.build("gated-pixelcnn", ancestral.DataSpec("image", (1, 8, 8), levels=2), preset="tiny")
        >>> parallel_sample(model, 4, method="wavefront").passes  # of 64 sites
        29
    """
    if method not in PASSES:
        raise ValueError(f"there is no parallel sampling method {method!r}; choose one of {', '.join(PASSES)}")
    model = sized(model)
    rows = Rows(model, n, context_of(model, n, labels, context), z, seed, first_row, z_temperature)
    with inference(model):
        return in_passes(rows, Draw(seed, temperature, top_k, top_p, min_p, first_row=first_row), method, batch_size, progress)


def in_passes(rows: Rows, draw: Draw, method: str, batch_size: int, progress: Progress | None = None) -> Sampled:
    """Batches of rows one after the other, by one of `PASSES`.

    Raises:
        Interrupted: Ctrl-C; it holds the batches that were done.
    """
    done: list[Sampled] = []
    likelihood = likelihood_of(rows.model)
    sites = likelihood.spec.sites
    try:
        for some, seen in rows.batches(batch_size):
            done.append(PASSES[method](likelihood, len(some), seen, part_of(draw, some)))
            if progress is not None:
                progress(some.stop * sites, rows.n * sites)
    except KeyboardInterrupt as stop:
        nothing = torch.zeros(0, *likelihood.network.shape, dtype=torch.long)
        raise Interrupted(torch.cat([each.x for each in done]) if done else nothing, rows.n) from stop
    return Sampled(ended(torch.cat([each.x for each in done]), likelihood.spec), max(each.passes for each in done))
