"""Where classes lie among the codes: the mean code of each, and how much of the codes' variance is between them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

from ancestral.evaluation.codes import classes_of, untold
from ancestral.evaluation.examples import Chosen, Tick
from ancestral.latent.latent import Latent
from ancestral.latent.topdown import mean


@dataclass(frozen=True, eq=False)
class ClassMeans:
    """Posterior means averaged class by class.

    Attributes:
        classes: the classes that have examples, in order.
        means: (classes, *latent) by group.
        between: by group, the share of the variance of posterior means that lies between classes: 0 where z does not tell
            them apart, 1 where it tells nothing else.
    """

    classes: list[int]
    means: Mapping[str, Tensor]
    between: Mapping[str, float]

    def direction(self, source: int, target: int) -> dict[str, Tensor]:
        """(*latent) by group: the attribute vector, from the mean of one class to that of another.

        Raises:
            ValueError: there are no examples of one of them.
        """
        for label in (source, target):
            if label not in self.classes:
                raise ValueError(f"class {label} has no mean; there are {', '.join(map(str, self.classes))}")
        a, b = self.classes.index(source), self.classes.index(target)
        return {name: means[b] - means[a] for name, means in self.means.items()}

    @property
    def distances(self) -> Tensor:
        """(classes, classes) Euclidean distances of the means, all groups together."""
        flat = torch.cat([means.flatten(1) for means in self.means.values()], 1)
        return torch.cdist(flat, flat, compute_mode="donot_use_mm_for_euclid_dist")


def class_means(model: Latent, chosen: Chosen, *, batch_size: int, tick: Tick) -> ClassMeans:
    """The mean code of every class of the examples; conditional models are not told it.

    Raises:
        DataError: the examples have no labels.
    """
    found, places = torch.unique(classes_of(chosen), return_inverse=True)
    counts = torch.bincount(places).double()
    sums: dict[str, Tensor] = {}
    squares: dict[str, Tensor] = {}
    done = 0
    for batch, context in untold(chosen).batches(model, 0, batch_size):
        here = places[done : done + len(batch.x)]
        for group in model.descend(batch.x, mean, context).groups:
            z = model.topdown.numbers(group.name, group.z).cpu().double()
            sums.setdefault(group.name, z.new_zeros(len(found), *z.shape[1:])).index_add_(0, here, z)
            squares[group.name] = squares.get(group.name, torch.zeros(()).double()) + z.square().sum(0)
        done += len(here)
        tick(len(here))
    means = {name: total / counts.view(-1, *[1] * (total.dim() - 1)) for name, total in sums.items()}
    between = {name: _between(means[name], counts, squares[name]) for name in means}
    return ClassMeans(found.tolist(), means, between)


def _between(means: Tensor, counts: Tensor, squares: Tensor) -> float:
    """Sum over units of the variance between classes over that of all examples; 0 where nothing varies."""
    weights = (counts / counts.sum()).view(-1, *[1] * (means.dim() - 1))
    centre = (weights * means).sum(0)
    whole = float((squares / counts.sum() - centre.square()).sum())
    return float((weights * (means - centre).square()).sum()) / whole if whole > 1e-12 else 0.0
