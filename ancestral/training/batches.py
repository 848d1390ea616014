"""Which examples a step sees and what noise it has: pure functions of (seed, stage, step, row), whoever asks and when.

The batches of a stage are cut from an endless stream of permutations of the training set: no example comes twice before
every other has come once, and no batch is short.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from functools import lru_cache

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from ancestral.data.features import Mel
from ancestral.data.splits import Examples, Splits
from ancestral.draw import uniforms
from ancestral.objectives import Batch
from ancestral.spec import DataSpec
from ancestral.symbols import trimmed

ORDER, NOISE, SUBSET = 1, 2, 3  # what Philox words are for; never changes, nor do the numbers that come of it
DROPPED = 2**33  # stream of the uniforms that drop labels; 0 binarises, and streams 1, 2, ... are those of the groups of z
VALIDATION = 500  # examples, at most, that a run is judged on while it trains


def words(count: int, seed: int, stage: int, number: int, purpose: int) -> NDArray[np.uint64]:
    """(count,) words of 64 random bits that the other arguments alone decide."""
    counter = np.array([0, 0, number, purpose], np.uint64)
    return np.asarray(np.random.Philox(key=np.array([seed, stage], np.uint64), counter=counter).random_raw(count))


@lru_cache(maxsize=4)
def permutation(n: int, seed: int, stage: int, epoch: int, purpose: int = ORDER) -> NDArray[np.int64]:
    """0 .. n - 1 in the order in which an epoch visits them."""
    return np.argsort(words(n, seed, stage, epoch, purpose), kind="stable")


def batch_rows(n: int, batch_size: int, seed: int, stage: int, step: int) -> list[int]:
    """The rows of the training set that a step sees: (batch_size,) of n."""
    places = range(step * batch_size, (step + 1) * batch_size)
    return [int(permutation(n, seed, stage, place // n)[place % n]) for place in places]


def noise_seed(seed: int, stage: int, step: int) -> int:
    """The seed of everything random within a step, below 2^63."""
    return int(words(1, seed, stage, step, NOISE)[0] >> np.uint64(1))


@dataclass(frozen=True)
class Stream:
    """The batches of one stage, from step ``first`` to ``steps``: every process takes its share of each.

    Attributes:
        data: where they come from; drawn anew at every use where ``data.redrawn`` is there.
        labelled: whether the model takes labels.
        features: what the model follows of sound, or None.
        batch_size: rows of a batch over all processes.
        label_dropout: probability that a row's label is dropped.
        rank, world: which of how many processes this is; it takes rows rank, rank + world, ... of each batch.
    """

    data: Splits
    labelled: bool
    batch_size: int
    seed: int
    stage: int
    first: int
    steps: int
    rank: int = 0
    world: int = 1
    label_dropout: float = 0.0
    features: Mel | None = None

    def __len__(self) -> int:
        return self.steps - self.first

    def __iter__(self) -> Iterator[Batch]:
        return map(self.batch, range(self.first, self.steps))

    def rows(self, step: int) -> list[int]:
        """The rows of the training set that make up a step's whole batch."""
        return batch_rows(len(self.data.train), self.batch_size, self.seed, self.stage, step)

    def batch(self, step: int) -> Batch:
        """This process's share of a step's batch."""
        seed = noise_seed(self.seed, self.stage, step)
        here = range(self.rank, self.batch_size, self.world)
        rows = torch.tensor(self.rows(step))[self.rank :: self.world]
        train, redrawn = self.data.train, self.data.redrawn
        if redrawn is None:
            examples = train.select(rows)
        else:
            examples = Examples(redrawn.draw(rows, seed), None if train.labels is None else train.labels[rows])
        labels = examples.labels if self.labelled else None
        dropped = uniforms(seed, here, 1, DROPPED)[:, 0] < self.label_dropout if self.label_dropout else None
        x = symbols(examples.x, self.data.spec)
        return Batch(x, labels, seed, here, step, dropped, None if self.features is None else self.features(x))


def validation_batches(
    data: Splits, labelled: bool, batch_size: int, seed: int, step: int, features: Mel | None = None
) -> Iterator[Batch]:
    """At most 500 validation examples, the same with the same noise whenever they are asked for; ``step`` is told.

    Where lengths vary the short ones come first, so that little is computed for what they are filled up with.
    """
    noise = noise_seed(seed, 0, 2**63)  # out of reach of steps
    rows = np.sort(permutation(len(data.validation), seed, 0, 0, SUBSET)[:VALIDATION]).tolist()
    if None in data.spec.shape:
        rows.sort(key=data.validation.lengths(data.spec).tolist().__getitem__)
    for start in range(0, len(rows), batch_size):
        some = rows[start : start + batch_size]
        examples = data.validation.select(some)
        labels = examples.labels if labelled else None
        x = symbols(examples.x, data.spec)
        yield Batch(x, labels, noise, some, step, grid=None if features is None else features(x))


def symbols(x: Tensor, spec: DataSpec) -> Tensor:
    """Whole numbers as int64, so that nothing computed from them overflows, and no longer than they are; real values as given."""
    return x if x.is_floating_point() else trimmed(x, spec).long()


def to_device(batch: Batch, device: torch.device) -> Batch:
    """The batch on a device."""
    others = {name: getattr(batch, name) for name in ("labels", "dropped", "grid")}
    there = {name: part.to(device, non_blocking=True) for name, part in others.items() if part is not None}
    return replace(batch, x=batch.x.to(device, non_blocking=True), **there)
