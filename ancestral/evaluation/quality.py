"""`quality`: how samples compare with examples, beside how training examples do; and whether they are copies of these."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from torch import Tensor

from ancestral.data.loading import load_data
from ancestral.data.source import permutation
from ancestral.data.splits import Splits
from ancestral.evaluation.classifier import Judge, trained
from ancestral.evaluation.examples import SUBSET, chosen_examples
from ancestral.evaluation.likeness import NEIGHBOURS, Distance, kernel_distance, nearest, precision_recall
from ancestral.sampling.sample import sample
from ancestral.sampling.strategies import Model, Progress
from ancestral.symbols import DataError

SHOWN = 8  # samples whose nearest neighbours are told one by one
COPY = 1e-6  # a distance at which an image is one of the training set
CAVEAT = (
    "In features of a small classifier of our own, made for data of this kind: not comparable with the literature's figures in"
    " Inception features, nor between classifiers of other hashes."
)


@dataclass(frozen=True)
class Likeness:
    """How a set of images compares with as many test images, in a classifier's features.

    Attributes:
        kid, kid_error: kernel distance (unbiased, so that it may be below 0), and its standard error over blocks.
        precision: share of the images that lie among test images; recall: share of the test images that lie among them.
    """

    kid: float
    kid_error: float | None
    precision: float
    recall: float

    @classmethod
    def of(cls, made: Tensor, real: Tensor) -> Likeness:
        """That of (n, d) features to (n, d) features of test images."""
        distance: Distance = kernel_distance(made, real)
        return cls(distance.value, distance.error, *precision_recall(real, made))


@dataclass(frozen=True)
class Nearness:
    """How far a set of images is from the nearest training image each.

    Attributes:
        samples, test: median distance of samples and of as many test images.
        nearer: share of the samples that are nearer to a training image than half of the test images are.
    """

    samples: float
    test: float
    nearer: float


@dataclass(frozen=True, kw_only=True)
class Quality:
    """Figures of samples, each beside the same of training examples or test examples.

    Attributes:
        samples: `Likeness` of the samples; ``training``: that of as many training examples, the line that no model need pass.
        pixels, features: `Nearness` by the root mean square difference of pixels in [0, 1], and in the features.
        copies: samples that are equal to a training example.
        neighbours: places in the training set of the nearest examples of the first samples: by pixels, by features; ``labels``
            are those that a conditional model drew these samples with.
        count: samples, and test images; ``pool``: training images.
        classifier: how it was made, its accuracy and hash.
        seed: of the samples; row i of the seed is sample i.
        data: name and hash of the data.
    """

    samples: Likeness
    training: Likeness
    pixels: Nearness
    features: Nearness
    copies: int
    neighbours: Sequence[Sequence[int]]
    labels: Sequence[int] | None
    count: int
    pool: int
    classifier: Mapping[str, Any]
    seed: int
    data: Mapping[str, Any]

    def to_dict(self) -> dict[str, Any]:
        """Every attribute, as JSON has them, and the caveat that belongs to them."""
        return {**asdict(self), "caveat": CAVEAT}

    @classmethod
    def from_dict(cls, fields: Mapping[str, Any]) -> Quality:
        """The figures that ``to_dict`` wrote.

        Raises:
            KeyError, TypeError: it was not written so.
        """
        found = {name: fields[name] for name in cls.__dataclass_fields__}
        likeness = {name: Likeness(**found[name]) for name in ("samples", "training")}
        nearness = {name: Nearness(**found[name]) for name in ("pixels", "features")}
        return cls(**{**found, **likeness, **nearness})

    def lines(self) -> list[str]:
        """The figures in words."""
        rows = (("samples", self.samples), ("training examples", self.training))
        return [
            *(
                f"{name} against test examples, {self.count:,} each: KID {each.kid:.4f}"
                f"{'' if each.kid_error is None else f' ± {each.kid_error:.4f}'}, precision {each.precision:.1%},"
                f" recall {each.recall:.1%}"
                for name, each in rows
            ),
            f"median distance to the nearest of {self.pool:,} training examples: samples {self.pixels.samples:.4f} in pixels,"
            f" test examples {self.pixels.test:.4f}; {self.copies} copies",
            f"classifier: {self.classifier['accuracy']:.1%} on validation, hash {self.classifier['weights'][:12]}",
            CAVEAT,
        ]


def quality(
    model: Model,
    data: Splits | str | os.PathLike[str],
    *,
    samples: int = 512,
    judge: Judge | None = None,
    seed: int = 0,
    batch_size: int = 64,
    progress: Progress | None = None,
) -> Quality:
    """Draw samples and compare them with test examples; those of a conditional model have the labels of these.

    Args:
        data: what the model was trained on.
        samples: how many, at most as many as there are test examples and training examples.
        judge: whose features to use; by default a classifier is `trained` on the data, which must have labels.
        progress: is told (symbols drawn, of how many).

    Raises:
        DataError: the data are no labelled images and there is no judge, or there are not enough of them.
        ValueError: ``samples`` is below 4.
    """
    if samples <= NEIGHBOURS:
        raise ValueError(f"samples is {samples}; it must be at least {NEIGHBOURS + 1}")
    data = load_data(data)
    judge = trained(data) if judge is None else judge
    if (judge.made["shape"], judge.made["levels"]) != (list(model.spec.shape), model.spec.levels):
        raise DataError(
            f"the classifier takes images {judge.made['shape']} of {judge.made['levels']} levels, the model makes"
            f" {list(model.spec.shape)} of {model.spec.levels}: train it on labelled data read as the model's were"
        )
    n = min(samples, len(data.test), len(data.train))
    if n <= NEIGHBOURS:
        raise DataError(f"{data.name} has {n} examples to compare with; it takes at least {NEIGHBOURS + 1}")
    test, note = chosen_examples(model, data, "test", None, seed)
    test = test.take(permutation(len(test), seed, SUBSET)[:n].tolist())
    others = data.train.select(permutation(len(data.train), seed, SUBSET)[:n].tolist()).x
    labels = test.labels
    drawn = sample(model, n, labels=labels, seed=seed, batch_size=batch_size, progress=progress).cpu()
    sets = (drawn, test.x.cpu(), others.cpu())
    made, real, own = (judge.features(x) for x in sets)
    pixels = [_flat(x, model.spec.levels or 2) for x in (*sets[:2], data.train.x.cpu())]
    near = [_nearness(*pixels), _nearness(made, real, judge.features(data.train.x))]
    return Quality(
        samples=Likeness.of(made, real),
        training=Likeness.of(own, real),
        pixels=near[0][0],
        features=near[1][0],
        copies=near[0][1],
        neighbours=[each[2] for each in near],
        labels=None if labels is None else labels[:SHOWN].tolist(),
        count=n,
        pool=len(data.train),
        classifier={**judge.made, "weights": judge.hash},
        seed=seed,
        data={name: note[name] for name in ("name", "note", "hash")},
    )


def _nearness(made: Tensor, real: Tensor, pool: Tensor) -> tuple[Nearness, int, list[int]]:
    """How near both are to a pool, how many of the made are in it, and the neighbours of the first of these."""
    samples, places = nearest(made, pool)
    test, _ = nearest(real, pool)
    found = Nearness(float(samples.median()), float(test.median()), float((samples < test.median()).double().mean()))
    return found, int((samples < COPY).sum()), places[:SHOWN].tolist()


def _flat(x: Tensor, levels: int) -> Tensor:
    """(n, D) vectors whose Euclidean distance is the root mean square difference of pixels in [0, 1]."""
    values: Tensor = x.flatten(1).float() / ((levels - 1) * x[0].numel() ** 0.5)
    return values
