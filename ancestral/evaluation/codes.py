"""Codes of examples as plain vectors, for whatever reads z from outside: probes, class means, neighbours."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor
from torch.nn.functional import adaptive_avg_pool2d

from ancestral.core import Context
from ancestral.evaluation.examples import Chosen, Tick
from ancestral.latent.latent import Latent
from ancestral.latent.topdown import Group, Noise
from ancestral.symbols import DataError

MOST_ENTRIES = 4096  # of a group that are looked at: larger grids are averaged down to fewer cells


def classes_of(chosen: Chosen) -> Tensor:
    """(n,) the class of each example, whether or not models are told.

    Raises:
        DataError: they have none.
    """
    labels = chosen.examples.labels
    if labels is None:
        raise DataError("the examples have no labels: name a labelled set of the same kind (labelled=, --labelled)")
    return labels.cpu()[torch.as_tensor(chosen.places, dtype=torch.long)]


def untold(chosen: Chosen) -> Chosen:
    """The same examples without the labels that a conditional model is told, which would be in its codes already."""
    return replace(chosen, told=False)


@dataclass(frozen=True, eq=False)
class Codes:
    """(n, d) codes of n examples by group, on the CPU; a grid of more than 4,096 numbers is averaged down to fewer cells.

    Attributes:
        means: of the posteriors; those of lower groups are given the means above.
        drawn: one draw from the posteriors.
    """

    means: dict[str, Tensor]
    drawn: dict[str, Tensor]


def codes(model: Latent, chosen: Chosen, *, seed: int, batch_size: int, tick: Tick) -> Codes:
    """The codes of examples; a conditional model is not told their labels."""
    means: dict[str, list[Tensor]] = {}
    drawn: dict[str, list[Tensor]] = {}
    for batch, context in untold(chosen).batches(model, seed, batch_size):
        groups = model.descend(batch.x, Noise(seed, batch.rows or ()), context).groups
        for group in groups:
            drawn.setdefault(group.name, []).append(pooled(model.topdown.numbers(group.name, group.z)).cpu())
        for name, z in centres(model, batch.x, context, groups).items():
            means.setdefault(name, []).append(pooled(model.topdown.numbers(name, z)).cpu())
        tick(len(batch.x))
    return Codes(*({name: torch.cat(parts) for name, parts in found.items()} for found in (means, drawn)))


def centres(model: Latent, x: Tensor, context: Context | None, groups: Sequence[Group]) -> dict[str, Tensor]:
    """Posterior means of x by group, those of lower groups given the means above, as x alone then decides them.

    Args:
        groups: what a pass over x settled; where there is one group alone it tells the means.
    """
    alone = groups[0].posterior if len(groups) == 1 else None  # which saves a second pass
    return model.encode(x, context) if alone is None else {groups[0].name: alone.mean}


def pooled(z: Tensor, most: int = MOST_ENTRIES) -> Tensor:
    """(n, *latent) codes as (n, d) vectors; a grid of more than ``most`` numbers is averaged down to as many cells as fit.

    Example:
        >>> pooled(torch.ones(2, 8, 16, 16), most=128).shape
        torch.Size([2, 128])
    """
    if z.dim() == 4 and z[0].numel() > most:
        cells = max(1, int(most / z.shape[1]))
        side = int(cells**0.5)
        height, width = (min(side, size) for size in z.shape[2:])
        if height < side:  # what a short side leaves over is the long one's: sequences are a grid of one row or one column
            width = min(cells // height, z.shape[3])
        elif width < side:
            height = min(cells // width, z.shape[2])
        z = adaptive_avg_pool2d(z, (height, width))
    return z.flatten(1)
