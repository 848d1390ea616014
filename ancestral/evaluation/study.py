"""`study`: what can be read off z of labelled examples, beside what can be read off the examples themselves."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

from ancestral.data.loading import load_data
from ancestral.data.source import PARTS, permutation
from ancestral.data.splits import Splits
from ancestral.evaluation.attributes import class_means
from ancestral.evaluation.codes import classes_of, codes
from ancestral.evaluation.examples import SUBSET, Chosen, Tick, chosen_examples, counter
from ancestral.evaluation.probes import COMPONENTS, Labelled, Probe, chance, probes
from ancestral.latent.codes import coded
from ancestral.latent.latent import Latent
from ancestral.sampling.strategies import Progress, inference
from ancestral.symbols import DataError

FEW = (1, 10, 100)
MEANS, DRAWN, RAW = "posterior means", "z as drawn", "x itself"
MOST_GROUPS = 8  # with a probe of their own
MOST_AVERAGED = 2000  # examples for the mean codes of classes


@dataclass(frozen=True, kw_only=True)
class Study:
    """What a linear classifier reads of the class, and where classes lie among the codes.

    Attributes:
        probes: of ``"posterior means"``; of ``"z as drawn"``, one sample of the posterior, in which nothing survives that its
            noise covers, where x leaves a choice of z; of ``"x itself"``, also with only as many principal components as z has
            numbers, where these are fewer; and of single groups of z where there are several. Each with all labels, the first
            three also with few.
        chance: accuracy of always saying the most frequent class.
        between: by group, the share of the variance of posterior means that is between classes.
        classes: those that there are; ``class_names`` what they are called, where the data say.
        distances: between the mean codes of classes.
        examples: of each of the three sets that were used.
        data: name and hash of the labelled data.
        seed: of all that was drawn.
    """

    probes: Sequence[Probe]
    chance: float
    between: Mapping[str, float]
    classes: Sequence[int]
    class_names: Sequence[str]
    distances: Sequence[Sequence[float]]
    examples: Mapping[str, int]
    data: Mapping[str, Any]
    seed: int

    def accuracy(self, features: str, labels: int | None = None) -> Probe | None:
        """The probe of some features with so many labels a class, None standing for all; None where it was not made."""
        return next((each for each in self.probes if (each.features, each.labels) == (features, labels)), None)

    def to_dict(self) -> dict[str, Any]:
        """Every attribute, as JSON has them."""
        return asdict(self)

    @classmethod
    def from_dict(cls, fields: Mapping[str, Any]) -> Study:
        """The study that ``to_dict`` wrote.

        Raises:
            KeyError, TypeError: it was not written so.
        """
        found = {name: fields[name] for name in cls.__dataclass_fields__}
        return cls(**{**found, "probes": [Probe(**each) for each in found["probes"]]})

    def lines(self) -> list[str]:
        """The figures in words."""
        named = [
            f"{each.features}{_few(each.labels)}:"
            f" {each.accuracy:.1%} ± {each.error:.1%} ({each.dimensions} numbers, {each.examples:,} labels)"
            for each in self.probes
        ]
        shares = ", ".join(f"{name} {share:.1%}" for name, share in self.between.items())
        return [
            f"linear probes of {self.data['name']}, {self.examples['test']:,} test examples; chance {self.chance:.1%}",
            *named,
            f"of more than {COMPONENTS} numbers, such as pixels, the first {COMPONENTS} principal components are read",
            f"variance of posterior means between classes: {shares}",
        ]


def study(
    model: Latent,
    data: Splits | str | os.PathLike[str],
    *,
    limit: int = 3000,
    few: Sequence[int] = FEW,
    batch_size: int = 64,
    seed: int = 0,
    progress: Progress | None = None,
) -> Study:
    """Probe the codes of labelled data, and find the mean code of every class.

    A conditional model is told no labels here, for they would be in its codes already.

    Args:
        data: `Splits`, a name or a path, with labels and of the model's kind; it need not be what the model was trained on.
        limit: at most so many training and test examples, and a fifth as many validation examples; a seeded choice.
        few: numbers of labels a class, for the few-label probes.
        progress: is told (examples encoded, of how many).

    Raises:
        DataError: the data have no labels, one class only, or other classes to learn from than to test on; or they are not what
            the model is a model of.
        ValueError: ``limit`` is below 5, or a number of labels below 1.

    Example:
        >>> import ancestral
        >>> data = ancestral.data("digits")
        >>> found = study(ancestral.build("vae", data.spec, preset="tiny"), data, limit=100, few=(1,))
        >>> found.accuracy("z as drawn").dimensions, len(found.classes)
        (2, 10)
    """
    if any(labels < 1 for labels in few):
        raise ValueError(f"few is {list(few)}; each number of labels a class must be at least 1")
    if limit < 5:
        raise ValueError(f"limit is {limit}; it must be at least 5, of which one is for validation")
    data = load_data(data)
    most = {"train": limit, "validation": limit // 5, "test": limit}
    sets, notes = {}, {}
    for part in PARTS:
        sets[part], notes[part] = chosen_examples(model, data, part, most[part], seed)
    y = {part: classes_of(chosen).numpy() for part, chosen in sets.items()}
    if not np.isin(y["test"], y["train"]).any():
        raise DataError(
            f"{data.name}: no class of a test example has a training example, as where a folder sorted by class is cut in order,"
            " so nothing can be read of them: part them otherwise, or give another labelled set (labelled=, --labelled)"
        )
    some = permutation(len(sets["train"]), seed, SUBSET)[:MOST_AVERAGED].tolist()
    averaged = sets["train"].take(sorted(some))  # of all places, for examples may lie by class or by length
    tick = counter(progress, sum(map(len, sets.values())) + len(averaged))
    with inference(model):
        features = _features(model, sets, batch_size, seed, tick)
        means = class_means(model, averaged, batch_size=batch_size, tick=tick)
    found = []
    for name, values in features.items():
        three = [Labelled(_array(values[part]), y[part]) for part in PARTS]
        found += probes(name, *three, few=few if name in (MEANS, DRAWN) else (), seed=seed)
    raw = _alike({part: chosen.x for part, chosen in sets.items()}, model.spec.end)
    found += _raw({part: Labelled(_array(x), y[part]) for part, x in raw.items()}, found[0].dimensions, few, seed)
    return Study(
        probes=found,
        chance=chance(y["train"], y["test"]),
        between=means.between,
        classes=means.classes,
        class_names=list(data.class_names),
        distances=means.distances.tolist(),
        examples={part: len(chosen) for part, chosen in sets.items()},
        data={name: notes["test"][name] for name in ("name", "note", "hash")},
        seed=seed,
    )


def _features(model: Latent, sets: Mapping[str, Chosen], batch_size: int, seed: int, tick: Tick) -> dict[str, dict[str, Tensor]]:
    """(n, d) codes by what they are called and by set: all groups together, and every single one of several."""
    whole = (MEANS,) if coded(model) else (MEANS, DRAWN)
    found: dict[str, dict[str, Tensor]] = {name: {} for name in whole}
    for part, chosen in sets.items():
        seen = codes(model, chosen, seed=seed, batch_size=batch_size, tick=tick)
        for name, each in zip(whole, (seen.means, seen.drawn), strict=False):
            found[name][part] = torch.cat(list(each.values()), 1)
        if 1 < len(seen.drawn) <= MOST_GROUPS:
            for group, values in seen.drawn.items():
                found.setdefault(f"{group} as drawn", {})[part] = values
    return found


def _raw(sets: Mapping[str, Labelled], numbers: int, few: Sequence[int], seed: int) -> list[Probe]:
    """The baselines: the examples themselves, and as many of their principal components as z has numbers."""
    three = [sets[part] for part in PARTS]
    width = min(sets["train"].x.shape[1], COMPONENTS)
    found = probes(RAW, *three, few=few, scaled=False, seed=seed)
    if numbers < width:
        found += probes(f"{RAW}, {numbers} principal components", *three, scaled=False, components=numbers, seed=seed)
    return found


def _alike(sets: Mapping[str, Tensor], end: int | None) -> Mapping[str, Tensor]:
    """The same examples, all as long as the longest of all sets where lengths vary."""
    if end is None:
        return sets
    longest = max(x.shape[1] for x in sets.values())
    return {part: functional.pad(x, (0, longest - x.shape[1]), value=end) for part, x in sets.items()}


def _array(x: Tensor) -> np.ndarray[Any, np.dtype[np.float64]]:
    return x.detach().cpu().flatten(1).double().numpy()


def _few(labels: int | None) -> str:
    return "" if labels is None else f", {labels} label{'' if labels == 1 else 's'} a class"
