"""`wording`: how varied drawn texts are, how much of them training texts hold, beside texts that were not drawn."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from statistics import fmean, median
from typing import Any

from ancestral.data.loading import load_data
from ancestral.data.notation import Text
from ancestral.data.source import permutation
from ancestral.data.splits import ExampleSet, Splits
from ancestral.evaluation.examples import SUBSET, chosen_examples
from ancestral.evaluation.quality import draws
from ancestral.sampling.strategies import Model, Progress
from ancestral.symbols import DataError

LENGTHS = (1, 2, 3, 4, 8)  # of n-grams
LOOP = 4  # length of those that are counted where they come again in one text
MOST_WORDS = 2_000_000  # of training texts that are looked through
AT_ONCE = 1024  # training texts that are read together
WORD = re.compile(r"\w+(?:['\u2019]\w+)*|[^\w\s]")
Words = Sequence[str]
Grams = Iterator[tuple[str, ...]]


def words_of(text: str) -> list[str]:
    """Words in lower case, and every mark by itself.

    Example:
        >>> words_of("'Tis not; I'll go.")
        ["'", 'tis', 'not', ';', "i'll", 'go', '.']
    """
    return WORD.findall(text.lower())


def grams(words: Words, n: int) -> Grams:
    """All runs of n words."""
    return zip(*(words[i:] for i in range(n)), strict=False)


@dataclass(frozen=True, kw_only=True)
class Variety:
    """What a set of texts is like.

    Attributes:
        distinct: by n, the share of its n-grams that differ from one another (Li et al. 2016, arXiv:1510.03055), over as many
            n-grams in every set that it is compared with; an n is left out where a set has none.
        unseen: by n, the share of its n-grams that no training text has; of the training texts themselves None.
        repeated: mean share of a text's 4-grams that it had before: loops.
        words: median number of words of a text.
    """

    distinct: Mapping[int, float]
    unseen: Mapping[int, float] | None
    repeated: float
    words: float


@dataclass(frozen=True, kw_only=True)
class Wording:
    """Drawn texts, beside as many test and training texts.

    Attributes:
        samples, test, training: what each set is like; n-grams are of words and punctuation marks, in lower case.
        copies: share of the samples that are a training text word for word; of the test texts ``test_copies``.
        count: texts of each set; ``pool``: training words that were looked through.
        seed: of the samples; row i of the seed is sample i.
        data: name and hash of the data.
    """

    samples: Variety
    test: Variety
    training: Variety
    copies: float
    test_copies: float
    count: int
    pool: int
    seed: int
    data: Mapping[str, Any]

    def to_dict(self) -> dict[str, Any]:
        """Every attribute, as JSON has them."""
        return asdict(self)

    @classmethod
    def from_dict(cls, fields: Mapping[str, Any]) -> Wording:
        """The figures that ``to_dict`` wrote.

        Raises:
            KeyError, TypeError: it was not written so.
        """
        found = {name: fields[name] for name in cls.__dataclass_fields__}
        for name in ("samples", "test", "training"):
            shares = {key: _numbered(found[name][key]) for key in ("distinct", "unseen")}
            found[name] = Variety(**{**found[name], **shares})
        return cls(**found)

    def lines(self) -> list[str]:
        """The figures in words."""
        sets = {"samples": self.samples, "test texts": self.test, "training texts": self.training}
        told = [
            f"{name}: distinct {_listed(each.distinct)}"
            + ("" if each.unseen is None else f"; not in training {_listed(each.unseen)}")
            + f"; said again {each.repeated:.1%}; {each.words:g} words (median)"
            for name, each in sets.items()
        ]
        return [
            f"shares of n-grams of words, n = {', '.join(map(str, self.test.distinct))}; {self.count:,} texts of each set",
            *told,
            f"copies of one of the training texts: samples {self.copies:.1%}, test texts {self.test_copies:.1%}",
        ]


def wording(
    model: Model,
    data: Splits | str | os.PathLike[str],
    *,
    samples: int = 512,
    seed: int = 0,
    batch_size: int = 64,
    progress: Progress | None = None,
) -> Wording:
    """Draw texts and tell how varied they are and what of them is in training texts, beside test texts.

    A model that has learned a text by heart repeats its long n-grams, and one that knows few phrases its short ones; test texts
    say what is usual. Words that no training text has are mostly misspelt where symbols are characters.

    Args:
        data: what the model was trained on.
        samples: how many, at most as many as there are test texts and training texts.
        progress: is told (symbols drawn, of how many).

    Raises:
        DataError: the data are no text whose notation is known, or hold no words.
        ValueError: ``samples`` is below 1.

    Example:
        >>> import ancestral
        >>> data = ancestral.data("text", notation="characters", length=32)
        >>> model = ancestral.build("transformer", data.spec, preset="tiny", context=32)
        >>> found = wording(model, data, samples=4)
        >>> found.count, found.test.distinct[1] > 0.3
        (4, True)
    """
    if samples < 1:
        raise ValueError(f"samples is {samples}; it must be at least 1")
    data = load_data(data)
    notation = data.notation
    if not isinstance(notation, Text):
        raise DataError(f"{data.name} is no text whose notation is known, so that it has no words")
    n = min(samples, len(data.test), len(data.train))
    test, note = chosen_examples(model, data, "test", None, seed)
    test = test.take(permutation(len(test), seed, SUBSET)[:n].tolist())
    drawn = [_read(notation, row) for row in draws(model, test, seed, batch_size, progress)]
    held_out = [_read(notation, row) for row in test.x]
    own = permutation(len(data.train), seed, SUBSET)[:n].tolist()
    known, whole, pool = _known(notation, data.train)
    sets = drawn, held_out, [_read(notation, row) for row in data.train.select(own).x]
    most = {k: min(sum(max(0, len(words) - k + 1) for words in some) for some in sets) for k in LENGTHS}
    if not most[1]:
        raise DataError("there are no words in the samples, or none in the data: these figures are of words")
    found = [_variety(some, most, None if some is sets[2] else known) for some in sets]
    return Wording(
        samples=found[0],
        test=found[1],
        training=found[2],
        copies=fmean(tuple(words) in whole for words in drawn),
        test_copies=fmean(tuple(words) in whole for words in held_out),
        count=n,
        pool=pool,
        seed=seed,
        data={name: note[name] for name in ("name", "note", "hash")},
    )


def _read(notation: Text, row: Any) -> list[str]:
    text = notation.decode(row)
    return words_of(text if isinstance(text, str) else text.decode("utf-8", errors="replace"))


def _known(notation: Text, train: ExampleSet) -> tuple[dict[int, set[int]], set[tuple[str, ...]], int]:
    """Hashes of the n-grams of training texts by n, the texts as words, and how many words that were."""
    known: dict[int, set[int]] = {k: set() for k in LENGTHS}
    whole, pool = set[tuple[str, ...]](), 0
    for start in range(0, len(train), AT_ONCE):
        for row in train.select(range(start, min(start + AT_ONCE, len(train)))).x:
            words = _read(notation, row)
            whole.add(tuple(words))
            pool += len(words)
            for k in LENGTHS:
                known[k].update(map(hash, grams(words, k)))
        if pool > MOST_WORDS:
            break
    return known, whole, pool


def _variety(texts: Sequence[Words], most: Mapping[int, int], known: Mapping[int, set[int]] | None) -> Variety:
    distinct, unseen = dict[int, float](), dict[int, float]()
    for k, count in most.items():
        every = [gram for words in texts for gram in grams(words, k)]
        if count:
            distinct[k] = len(set(every[:count])) / count
            unseen[k] = 0.0 if known is None else fmean(hash(gram) not in known[k] for gram in every)
    return Variety(
        distinct=distinct,
        unseen=None if known is None else unseen,
        repeated=fmean(_repeated(words) for words in texts),
        words=median(map(len, texts)),
    )


def _repeated(words: Words) -> float:
    every = list(grams(words, LOOP))
    return 1 - len(set(every)) / len(every) if every else 0.0


def _numbered(shares: Mapping[Any, float] | None) -> dict[int, float] | None:
    """JSON has names where there were numbers."""
    return None if shares is None else {int(name): share for name, share in shares.items()}


def _listed(shares: Mapping[int, float]) -> str:
    return ", ".join(f"{share:.1%}" for share in shares.values())
