"""`quality`: how samples compare with examples, beside how training examples do; and whether they are copies of these."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional

from ancestral.core import Context
from ancestral.data.loading import load_data
from ancestral.data.source import permutation
from ancestral.data.splits import Splits
from ancestral.evaluation.classifier import Judge, trained
from ancestral.evaluation.codes import classes_of
from ancestral.evaluation.examples import SUBSET, Chosen, chosen_examples
from ancestral.evaluation.likeness import NEIGHBOURS, Distance, kernel_distance, nearest, precision_recall
from ancestral.evaluation.views import agrees, view_of
from ancestral.latent.latent import Latent
from ancestral.sampling.sample import sample
from ancestral.sampling.strategies import Model, Progress, inference, sized
from ancestral.symbols import DataError

SHOWN = 8  # samples whose nearest neighbours are told one by one
POOLS = {"audio": 4096}  # training examples that are compared with one by one, where these can be long
COPY = 1e-6  # a distance at which an example is one of the training set
CAVEAT = (
    "In features of a small classifier of our own, made for data of this kind: not comparable with the literature's figures in"
    " Inception features, nor between classifiers of other hashes."
)


@dataclass(frozen=True)
class Likeness:
    """How a set of examples compares with as many test examples, in a classifier's features.

    Attributes:
        kid, kid_error: kernel distance (unbiased, so that it may be below 0), and its standard error over blocks.
        precision: share of the set that lies among test examples; recall: share of the test examples that lie among the set.
    """

    kid: float
    kid_error: float | None
    precision: float
    recall: float

    @classmethod
    def of(cls, made: Tensor, real: Tensor) -> Likeness:
        """That of (n, d) features to (n, d) features of test examples."""
        distance: Distance = kernel_distance(made, real)
        return cls(distance.value, distance.error, *precision_recall(real, made))


@dataclass(frozen=True)
class Nearness:
    """How far a set of examples is from the nearest training example each.

    Attributes:
        samples, test: median distance of samples and of as many test examples.
        nearer: share of the samples that are nearer to a training example than half of the test examples are.
    """

    samples: float
    test: float
    nearer: float


@dataclass(frozen=True)
class Recognised:
    """How often the classifier takes what a model draws for what it is meant to be.

    Attributes:
        test: share of the test examples that it takes for the class that they are of; None where it was trained on others.
        samples: share of the samples that it takes for the class that they were drawn as; None where they had none.
        reconstructions: share of reconstructed test examples that it takes for what it takes the original for; None of models
            without latents, or that are told the class.
    """

    test: float | None
    samples: float | None
    reconstructions: float | None

    def lines(self) -> list[str]:
        """The shares in words."""
        named = {
            "test examples taken for their class": self.test,
            "samples for the one they were drawn as": self.samples,
            "reconstructions for that of the original": self.reconstructions,
        }
        told = [f"{words}: {share:.1%}" for words, share in named.items() if share is not None]
        return [f"by the classifier {', '.join(told)}"] if told else []


@dataclass(frozen=True, kw_only=True)
class Quality:
    """Figures of samples, each beside the same of training examples or test examples.

    Attributes:
        samples: `Likeness` of the samples; ``training``: that of as many training examples, the line that no model need pass.
        points: what examples are compared by, one by one: ``"pixels"``, or of sound ``"spectrograms"``.
        pixels, features: `Nearness` by the root mean square difference of those points in [0, 1], and in the features.
        recognised: how often the classifier sees the class that it should.
        copies: samples that are equal to a training example.
        neighbours: places in the training set of the nearest examples of the first samples: by pixels, by features; ``labels``
            are those that a conditional model drew these samples with.
        count: samples, and test examples; ``pool``: training examples.
        classifier: how it was made, its accuracy and hash.
        seed: of the samples; row i of the seed is sample i.
        data: name and hash of the data.
    """

    samples: Likeness
    training: Likeness
    points: str
    pixels: Nearness
    features: Nearness
    recognised: Recognised
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
        return cls(**{**found, **likeness, **nearness, "recognised": Recognised(**found["recognised"])})

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
            f"median distance to the nearest of {self.pool:,} training examples: samples {self.pixels.samples:.4f} in"
            f" {self.points}, test examples {self.pixels.test:.4f}; {self.copies} copies",
            *self.recognised.lines(),
            f"classifier: {self.classifier['accuracy']:.1%} on validation, hash {self.classifier['weights'][:12]}",
            CAVEAT,
        ]


def check_number(samples: int) -> None:
    """Raise ``ValueError`` where samples are fewer than have neighbours."""
    if samples <= NEIGHBOURS:
        raise ValueError(f"samples is {samples}; it must be at least {NEIGHBOURS + 1}")


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
    """Draw samples of images or sound and compare them with test examples; those of a conditional model have their labels.

    Of text see `wording`.

    Args:
        data: what the model was trained on.
        samples: how many, at most as many as there are test examples and training examples.
        judge: whose features to use; by default a classifier is `trained` on the data, which must have labels.
        progress: is told (symbols drawn, of how many).

    Raises:
        DataError: the data are neither labelled images nor labelled sound and there is no judge, or they are not enough.
        ValueError: ``samples`` is below 4.
    """
    check_number(samples)
    data = load_data(data)
    judge = _fitting(trained(data) if judge is None else judge, model, data)
    n = min(samples, len(data.test), len(data.train))
    if n <= NEIGHBOURS:
        raise DataError(f"{data.name} has {n} examples to compare with; it takes at least {NEIGHBOURS + 1}")
    test, note = chosen_examples(model, data, "test", None, seed)
    test = test.take(permutation(len(test), seed, SUBSET)[:n].tolist())
    others = data.train.select(permutation(len(data.train), seed, SUBSET)[:n].tolist()).x
    drawn = draws(model, test, seed, batch_size, progress)
    made, real, own = (judge.features(x) for x in (drawn, test.x.cpu(), others.cpu()))
    pool = data.train.select(range(min(len(data.train), POOLS.get(model.spec.kind, len(data.train))))).x.cpu()
    plain = [judge.view.plain(x) for x in (drawn, test.x.cpu(), pool)]
    near = [_nearness(*plain), _nearness(made, real, judge.features(pool))]
    return Quality(
        samples=Likeness.of(made, real),
        training=Likeness.of(own, real),
        points=judge.view.points,
        pixels=near[0][0],
        features=near[1][0],
        recognised=_recognised(model, judge, test, drawn, judge.made["hash"] == data.hash, batch_size, seed),
        copies=near[0][1],
        neighbours=[each[2] for each in near],
        labels=None if test.labels is None else test.labels[:SHOWN].tolist(),
        count=n,
        pool=len(pool),
        classifier={**judge.made, "weights": judge.hash},
        seed=seed,
        data={name: note[name] for name in ("name", "note", "hash")},
    )


def _fitting(judge: Judge, model: Model, data: Splits) -> Judge:
    """The classifier, looking at symbols as the model writes them."""
    view = view_of(model.spec, data.notation)
    if not agrees(view, judge.made):
        raise DataError(
            f"the classifier takes {judge.view.words}, the model makes {view.words}: train it on labelled data"
            " that are read as the model's were"
        )
    return replace(judge, view=view)


def draws(
    model: Model, test: Chosen, seed: int, batch_size: int, progress: Progress | None = None, again: bool = False
) -> Tensor:
    """(n, *shape) samples told what test examples tell, and where lengths vary as long as these at most; or these ``again``."""
    parts: list[Tensor] = []
    for batch, context in test.batches(model, seed, batch_size):
        here, first = sized(model, tuple(batch.x.shape[1:])), sum(map(len, parts))
        z = _codes(here, batch.x, context) if again else None
        tick = None if progress is None else _counting(progress, first, len(batch.x), len(test))
        drawn = sample(here, len(batch.x), context=context, z=z, seed=seed, first_row=first, progress=tick)
        parts.append(drawn.cpu())
    longest = max(part.shape[-1] for part in parts)
    return torch.cat([functional.pad(part, (0, longest - part.shape[-1]), value=model.spec.end or 0) for part in parts])


def _codes(model: Model, x: Tensor, context: Context | None) -> dict[str, Tensor] | None:
    """Posterior means, of a model with latents."""
    if not isinstance(model, Latent):
        return None
    with inference(model):
        return model.encode(x, context)


def _counting(progress: Progress, first: int, some: int, n: int) -> Progress:
    """What tells of some rows' symbols as of all."""
    return lambda done, of: progress(of // some * first + done, of // some * n)


def _recognised(model: Model, judge: Judge, test: Chosen, drawn: Tensor, same: bool, batch_size: int, seed: int) -> Recognised:
    """Classes as the judge sees them, beside those that are so; ``same`` says whether it knows them by the same numbers."""
    seen, again = judge.classes(test.x), None
    if isinstance(model, Latent) and not test.told:
        again = judge.classes(draws(model, test, seed, batch_size, again=True))
    wanted = classes_of(test) if same and test.examples.labels is not None else None
    return Recognised(
        test=None if wanted is None else _agreement(seen, wanted),
        samples=None if wanted is None or not test.told else _agreement(judge.classes(drawn), wanted),
        reconstructions=None if again is None else _agreement(again, seen),
    )


def _agreement(a: Tensor, b: Tensor) -> float:
    return float((a == b).double().mean())


def _nearness(made: Tensor, real: Tensor, pool: Tensor) -> tuple[Nearness, int, list[int]]:
    """How near both are to a pool, how many of the made are in it, and the neighbours of the first of these."""
    samples, places = nearest(made, pool)
    test, _ = nearest(real, pool)
    found = Nearness(float(samples.median()), float(test.median()), float((samples < test.median()).double().mean()))
    return found, int((samples < COPY).sum()), places[:SHOWN].tolist()
