"""What a reader hands over: plain arrays with their origin, and the one rule by which missing sets are cut from them."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ancestral.data.splits import Units
from ancestral.spec import check_seed
from ancestral.symbols import DataError

Array = NDArray[Any]
PARTS = ("train", "validation", "test")
CUT, LIMIT = 0, 1  # what a permutation is for: two purposes with one seed must not give one permutation


@dataclass(frozen=True)
class Source:
    """Arrays of a source, not yet arranged or quantised.

    Attributes:
        name, origin: for ``Splits.name``, and the first words of its note.
        x: set name to (n, ...) array; ``"train"`` is always there, what is missing gets cut from it.
        labels: set name to (n,) array, for the sets that have labels.
        levels: size of the alphabet where the source says so, else None.
        class_names: name of each label, or empty.
        classes: number of labels, or None as long as there are none.
        steps: what was done to the data so far, in words for the note.
        units: how real values were standardised, or how whole ones will be dequantised, or None.
    """

    name: str
    origin: str
    x: dict[str, Array]
    labels: dict[str, Array] = field(default_factory=dict)
    levels: int | None = None
    class_names: tuple[str, ...] = ()
    classes: int | None = None
    steps: tuple[str, ...] = ()
    units: Units | None = None

    def take(self, rows: dict[str, Array], step: str) -> Source:
        """The source with every set replaced by rows of ``"train"`` or of itself: the new set at (m,) row numbers."""
        x = {part: self.x.get(part, self.x["train"])[some] for part, some in rows.items()}
        homes = {part: part if part in self.x else "train" for part in rows}
        labels = {part: self.labels[homes[part]][some] for part, some in rows.items() if homes[part] in self.labels}
        return replace(self, x={**self.x, **x}, labels={**self.labels, **labels}, steps=(*self.steps, step))


def permutation(n: int, seed: int, purpose: int) -> Array:
    """0 .. n - 1 in an order that (n, seed, purpose) alone decides.

    Ranks of raw Philox words, because NumPy promises those for good and ``Generator.permutation`` only for a version.

    Raises:
        ValueError: the seed is no whole number in 0 .. 2^64 - 1.
    """
    check_seed(seed)
    words = np.random.Philox(key=np.array([seed, purpose], dtype=np.uint64)).random_raw(n)
    return np.argsort(np.asarray(words), kind="stable")


def divide(source: Source, seed: int) -> Source:
    """The source with all three sets.

    With ``"train"`` alone: 80/10/10 by a seeded permutation.  Where only one set is missing it is the last 10 % (at most
    5,000) of a seeded permutation of ``"train"``.

    Raises:
        DataError: there are too few examples to cut.
    """
    missing = [part for part in PARTS if part not in source.x]
    if not missing:
        return source
    n = len(source.x["train"])
    size = max(1, n // 10 if len(missing) == 2 else min(n // 10, 5000))
    kept = n - size * len(missing)
    if kept < 1:
        raise DataError(f"{source.origin} has {n} examples, too few to cut {' and '.join(missing)} from: give at least 3")
    order = permutation(n, seed, CUT)
    rows = {part: order[kept + i * size : kept + (i + 1) * size] for i, part in enumerate(missing)}
    last = f"{missing[0]} is the last 10 % (at most 5,000) of a permutation of train with seed {seed}"
    step = f"split 80/10/10 by a permutation with seed {seed}" if len(missing) == 2 else last
    return source.take({**rows, "train": order[:kept]}, step)


def limited(source: Source, n: int, seed: int) -> Source:
    """The first n of a seeded permutation of each set, because files are often sorted by class."""
    rows = {part: permutation(len(x), seed, LIMIT)[:n] for part, x in source.x.items()}
    return source.take(rows, f"at most {n:,} of each set, drawn with seed {seed}")
