"""Linear probes: how well a class can be read off features that were learned without it.

Features are standardised on the training set (of many only the first principal components are kept), a multinomial logistic
regression is fitted with the l2 penalty that does best on the validation set, and the test set is looked at once.
"""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from math import sqrt
from typing import Any

import numpy as np
from numpy.typing import NDArray
from sklearn.decomposition import PCA
from sklearn.exceptions import ConvergenceWarning
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import Pipeline, make_pipeline
from sklearn.preprocessing import StandardScaler

from ancestral.symbols import DataError

PENALTIES = (1e4, 1e3, 100.0, 10.0, 1.0, 0.1)  # l2: loss summed over examples + l2 / 2 |weights|^2
COMPONENTS = 128  # of more features than this only so many principal components are read
DRAWS = 5  # choices of the labelled examples of a few-label probe
ITERATIONS = 300
Values = NDArray[np.floating]
Classes = NDArray[np.integer]


@dataclass(frozen=True, eq=False)
class Labelled:
    """Features of examples with their classes.

    Attributes:
        x: (n, d).
        y: (n,) classes.
    """

    x: Values
    y: Classes


@dataclass(frozen=True)
class Probe:
    """What a linear classifier reads.

    Attributes:
        features: of what.
        accuracy: share of the test examples whose class it tells.
        error: its standard error: over test examples where all labels were used, else over choices of the labelled examples.
        labels: of each class that it was fitted with; None where all were used.
        examples: that it was fitted with.
        dimensions: numbers an example that it reads, after the reduction to principal components.
        l2: the penalty chosen on the validation set.
    """

    features: str
    accuracy: float
    error: float
    labels: int | None
    examples: int
    dimensions: int
    l2: float

    def to_dict(self) -> dict[str, Any]:
        """The attributes, as JSON has them."""
        return asdict(self)


def probes(
    features: str,
    train: Labelled,
    validation: Labelled,
    test: Labelled,
    *,
    few: Sequence[int] = (),
    scaled: bool = True,
    components: int = COMPONENTS,
    seed: int = 0,
) -> list[Probe]:
    """A probe with all labels, then one with each number of labels a class that all classes have.

    Standardisation and principal components are fitted on all training features, for these need no labels; few-label probes
    choose their penalty by the mean over draws on the whole validation set.

    Args:
        features: what they are called.
        few: numbers of labels a class.
        scaled: whether features are standardised before the principal components are taken, too: not those of one unit
            already, such as pixels.
        components: the most that are kept.
        seed: of the choice of labelled examples.

    Raises:
        DataError: the training examples are of one class.

    Example:
        >>> rng = np.random.default_rng(0)
        >>> y = rng.integers(0, 2, 300)
        >>> sets = [Labelled(y[rows, None] + 0.1 * rng.normal(size=(100, 1)), y[rows]) for rows in np.arange(300).reshape(3, -1)]
        >>> [(probe.labels, probe.accuracy) for probe in probes("toy", *sets, few=(5,))]
        [(None, 1.0), (5, 1.0)]
    """
    counts = np.unique_counts(train.y).counts
    if len(counts) < 2:
        raise DataError("all training examples are of one class: a probe needs at least two")
    change = reduction(train.x, scaled, components)
    read = [Labelled(change.transform(each.x), each.y) for each in (train, validation, test)]
    accuracy, l2 = _best([read[0]], read[1], read[2])
    width, errors = read[0].x.shape[1], sqrt(accuracy[0] * (1 - accuracy[0]) / len(test.y))
    found = [Probe(features, accuracy[0], errors, None, len(train.y), width, l2)]
    for labels in few:
        if labels <= counts.min() and labels * len(counts) < len(train.y):
            chosen = [some(read[0], labels, np.random.default_rng((seed, labels, draw))) for draw in range(DRAWS)]
            each, l2 = _best(chosen, read[1], read[2])
            error = float(np.std(each, ddof=1)) / sqrt(DRAWS)
            found.append(Probe(features, float(np.mean(each)), error, labels, labels * len(counts), width, l2))
    return found


def reduction(x: Values, scaled: bool, components: int) -> Pipeline:
    """What makes probe features of (n, d) features, fitted on them."""
    steps = [StandardScaler()] if scaled else []
    if x.shape[1] > components:
        steps.append(PCA(min(components, len(x)), random_state=0))
    return make_pipeline(*steps, StandardScaler()).fit(x)


def some(train: Labelled, labels: int, rng: np.random.Generator) -> Labelled:
    """So many examples of each class, chosen at random."""
    order = rng.permutation(len(train.y))
    rows = np.concatenate([order[train.y[order] == label][:labels] for label in np.unique(train.y)])
    return Labelled(train.x[rows], train.y[rows])


def chance(train: Classes, test: Classes) -> float:
    """Share of the test examples that are of the class most frequent in training.

    Example:
        >>> chance(np.array([0, 0, 1]), np.array([0, 1, 1, 1]))
        0.25
    """
    values, counts = np.unique(train, return_counts=True)
    return float(np.mean(test == values[counts.argmax()]))


def _best(fits: Sequence[Labelled], validation: Labelled, test: Labelled) -> tuple[list[float], float]:
    """Test accuracies of all fits with the penalty of the best mean validation accuracy, the stronger one where two are even."""
    machines = [LogisticRegression(warm_start=True, max_iter=ITERATIONS) for _ in fits]
    best, accuracies, chosen = -1.0, list[float](), 0.0
    for l2 in PENALTIES:  # from strong to weak, each starting where the one before it ended
        for machine, train in zip(machines, fits, strict=True):
            with warnings.catch_warnings():
                warnings.simplefilter("ignore", ConvergenceWarning)  # hundreds of iterations from a warm start are enough
                machine.set_params(C=1 / l2).fit(train.x, train.y)
        found = float(np.mean([machine.score(validation.x, validation.y) for machine in machines]))
        if found > best:
            best, chosen = found, l2
            accuracies = [float(machine.score(test.x, test.y)) for machine in machines]
    return accuracies, chosen
