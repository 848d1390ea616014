"""Moves through latent space: between two examples, along one unit, and by an attribute vector."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor

from ancestral.core import Context
from ancestral.draw import Draw
from ancestral.latent.latent import Latent
from ancestral.sampling.particles import stepping
from ancestral.sampling.strategies import Model, Rows, context_of, draw_rows, inference, lasting, likelihood_of, needs_numbers
from ancestral.sampling.stream import settled
from ancestral.symbols import check_symbols


def interpolate(
    model: Model,
    a: Tensor,
    b: Tensor,
    steps: int = 8,
    *,
    seed: int = 0,
    labels: Sequence[int] | Tensor | None = None,
    temperature: float = 1.0,
    batch_size: int = 64,
) -> Tensor:
    """(steps, n, *shape) symbols decoded between the posterior means of a and of b, each (n, *shape).

    The way is spherical (White 2016, "Sampling Generative Networks", arXiv:1609.04468): in many dimensions the codes lie
    far from the prior's mean, and a straight line between two of them would pass through its emptier middle. All steps of a
    row draw with the same uniforms, so that what changes along the way is z's doing.

    Raises:
        ValueError: the model has no latents, or steps is below 2.
        DataError: a or b does not fit the model.

    Example:
        >>> import ancestral
        >>> model = ancestral.build("vae", ancestral.DataSpec("image", (1, 4, 4), levels=2), preset="tiny")
        >>> dark, light = torch.zeros(1, 1, 4, 4, dtype=torch.long), torch.ones(1, 1, 4, 4, dtype=torch.long)
        >>> interpolate(model, dark, light, steps=5).shape
        torch.Size([5, 1, 1, 4, 4])
    """
    latent = needs_numbers(model, "interpolate")
    if steps < 2:
        raise ValueError(f"steps is {steps}; it must be at least 2, one at either end")
    if len(a) != len(b):
        raise ValueError(f"a has {len(a)} rows and b {len(b)}: give them alike, one pair a row")
    context = context_of(model, len(a), labels, None)
    with inference(model):
        ends = latent.encode(_here(latent, a), context), latent.encode(_here(latent, b), context)
        shares = torch.linspace(0, 1, steps, dtype=torch.float64).tolist()
        z = {name: torch.stack([slerp(ends[0][name], ends[1][name], t) for t in shares]) for name in ends[0]}
        return _decoded(latent, z, context, Draw(seed, temperature), batch_size, max(a.shape[-1], b.shape[-1]))


def slerp(a: Tensor, b: Tensor, t: float) -> Tensor:
    """The point at share t of the way from a to b on the great circle, row by row of (n, *latent) vectors.

    sin((1 - t) w) / sin w a + sin(t w) / sin w b, w the angle between them; a straight line where that is 0 or pi.

    Example:
        >>> slerp(torch.tensor([[1.0, 0.0]]), torch.tensor([[0.0, 1.0]]), 0.5)
        tensor([[0.7071, 0.7071]])
    """
    flat_a, flat_b = a.flatten(1).double(), b.flatten(1).double()
    angle = torch.nn.functional.cosine_similarity(flat_a, flat_b).clamp(-1, 1).acos().unsqueeze(1)
    sine = angle.sin()
    straight = sine < 1e-6
    sine = sine.masked_fill(straight, 1.0)
    from_a = torch.where(straight, 1 - t, ((1 - t) * angle).sin() / sine)
    from_b = torch.where(straight, t, (t * angle).sin() / sine)
    return (from_a * flat_a + from_b * flat_b).view_as(a).to(a.dtype)


def traverse(
    model: Model,
    x: Tensor,
    unit: int,
    values: Sequence[float] | Tensor,
    *,
    group: str = "z",
    seed: int = 0,
    labels: Sequence[int] | Tensor | None = None,
    temperature: float = 1.0,
    batch_size: int = 64,
) -> Tensor:
    """(len(values), n, *shape) symbols decoded from the posterior means of x, (n, *shape), with one latent unit moved.

    Args:
        unit: which one; of a grid of latents a feature map, set alike everywhere.
        values: what it is set to, in the units of z: those of the prior's standard deviation where that is one.
        group: the group of latents that the unit belongs to.

    Raises:
        ValueError: the model has no latents, or no such group or unit.
        DataError: x does not fit the model.
    """
    latent = needs_numbers(model, "traverse")
    context = context_of(model, len(x), labels, None)
    settings = torch.as_tensor(values).tolist()
    if not settings:
        raise ValueError("values is empty: give what the unit is set to")
    with inference(model):
        means = latent.encode(_here(latent, x), context)
        if group not in means:
            raise ValueError(f"there is no latent group {group!r}; there is {', '.join(means)}")
        units = means[group].shape[1]
        if not 0 <= unit < units:
            raise ValueError(f"there is no unit {unit} in group {group!r}; it has 0 .. {units - 1}")
        z = {name: mean.expand(len(settings), *mean.shape).clone() for name, mean in means.items()}
        for place, setting in zip(z[group], settings, strict=True):
            place[:, unit] = setting
        return _decoded(latent, z, context, Draw(seed, temperature), batch_size, x.shape[-1])


def shift(
    model: Model,
    x: Tensor,
    by: Mapping[str, Tensor],
    shares: Sequence[float] | Tensor,
    *,
    seed: int = 0,
    labels: Sequence[int] | Tensor | None = None,
    temperature: float = 1.0,
    batch_size: int = 64,
) -> Tensor:
    """(len(shares), n, *shape) symbols decoded from the posterior means of x, (n, *shape), plus share times a vector.

    With the difference of two classes' mean codes as the vector this adds an attribute (Larsen et al. 2016,
    arXiv:1512.09300); see `ancestral.evaluation.attributes.ClassMeans`.

    Args:
        by: (*latent) vectors by group, the same for all rows, or (n, *latent); groups that it lacks stay.

    Raises:
        ValueError: the model has no latents, or no such group; or there are no shares.
        DataError: x does not fit the model.
    """
    latent = needs_numbers(model, "shift")
    context = context_of(model, len(x), labels, None)
    steps = torch.as_tensor(shares).tolist()
    if not steps:
        raise ValueError("shares is empty: give how much of the vector is added")
    with inference(model):
        z = latent.encode(_here(latent, x), context)
        if unknown := [name for name in by if name not in z]:
            raise ValueError(f"there is no latent group {unknown[0]!r}; there is {', '.join(z)}")
        vectors = {name: by[name].to(mean) if name in by else torch.zeros_like(mean) for name, mean in z.items()}
        z = {name: torch.stack([mean + share * vectors[name] for share in steps]) for name, mean in z.items()}
        return _decoded(latent, z, context, Draw(seed, temperature), batch_size, x.shape[-1])


def _here(model: Latent, x: Tensor) -> Tensor:
    check_symbols(x, model.spec)
    return x.to(model.anchor.device)


def _decoded(
    latent: Latent, z: Mapping[str, Tensor], context: Context | None, draw: Draw, batch_size: int, longest: int
) -> Tensor:
    """(steps, n, *shape) symbols of latents (steps, n, *latent); row i has its own uniforms, the same in every step.

    Where lengths vary there is room for ``longest`` symbols at least.
    """
    model = lasting(latent, longest)
    likelihood = likelihood_of(model)
    steps, n = next(iter(z.values())).shape[:2]
    device = model.anchor.device
    wide = context and context.select(torch.arange(n, device=device).repeat(steps))
    rows = Rows(model, steps * n, wide, {name: values.flatten(0, 1) for name, values in z.items()})
    parts = []
    for some, seen in rows.batches(batch_size):
        choose = draw_rows(draw, [row % n for row in some], likelihood.network.shape.numel(), device)
        parts.append(settled(stepping(likelihood, "auto", len(some)).walk(len(some), seen), choose, model.spec))
    x = torch.cat(parts)
    return x.view(steps, n, *x.shape[1:])
