"""The section of a report on samples: how they compare with examples."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import chain, repeat

import torch

from ancestral.data.splits import Splits
from ancestral.evaluation.quality import CAVEAT, SHOWN, Likeness, Quality
from ancestral.evaluation.wording import Variety, Wording
from ancestral.report.page import figure, paragraph, section, strips, table
from ancestral.report.pictures import Subject
from ancestral.report.sequences import Sequences
from ancestral.sampling import sample

TITLE = "Sample quality"


def sample_quality(subject: Subject | Sequences | None, quality: Quality, data: Splits) -> str:
    """How samples compare with test examples, and of images the training examples nearest to some."""
    made, own = quality.samples, quality.training
    rows = [
        ["KID", _kid(made), _kid(own), "kernel distance to test examples, unbiased: about 0 where both are of one distribution"],
        ["Precision", f"{made.precision:.1%}", f"{own.precision:.1%}", "share that lies among test examples"],
        ["Recall", f"{made.recall:.1%}", f"{own.recall:.1%}", "share of the test examples that lie among them"],
    ]
    for what, near in ((quality.points, quality.pixels), ("features", quality.features)):
        note = f"median; the reference is that of test examples, than which {near.nearer:.0%} of the samples are nearer"
        rows.append([f"Nearest training example, {what}", f"{near.samples:.4f}", f"{near.test:.4f}", note])
    rows.append(["Copies", f"{quality.copies}", "", f"samples equal to one of {quality.pool:,} training examples"])
    rows += _recognised(quality)
    words = (
        f"{quality.count:,} samples, and as many training examples, each against {quality.count:,} test examples. {CAVEAT} Its"
        f" accuracy is {quality.classifier['accuracy']:.1%}, its hash {quality.classifier['weights'][:12]}."
    )
    shown = _neighbours(subject, quality, data) if isinstance(subject, Subject) else ""
    return section(TITLE, table(("figure", "samples", "training examples", "what it is"), rows), paragraph(words, "soft"), shown)


def _recognised(quality: Quality) -> list[list[str]]:
    """What the classifier takes samples and reconstructions for."""
    found, rows = quality.recognised, list[list[str]]()
    if found.samples is not None and found.test is not None:
        rows.append(
            ["Class recognised", f"{found.samples:.1%}", "", f"of samples drawn as it; of test examples {found.test:.1%}"]
        )
    if found.reconstructions is not None:
        rows.append(
            ["Class kept", f"{found.reconstructions:.1%}", "", "of reconstructed test examples: taken for what the original is"]
        )
    return rows


def sample_wording(wording: Wording) -> str:
    """How varied drawn texts are, and how much of them training texts hold."""
    sets = (wording.samples, wording.test, wording.training)
    rows = [
        [f"Distinct runs of {n} words" if n > 1 else "Distinct words", *(f"{each.distinct[n]:.1%}" for each in sets), note]
        for n, note in zip(wording.test.distinct, _noted("of as many in each set"), strict=False)
    ]
    rows += [
        [f"Runs of {n} not in training" if n > 1 else "Words not in training", *(_unseen(each, n) for each in sets), note]
        for n, note in zip(wording.test.distinct, _noted("none: all are copied; many: misspelt, or made up"), strict=False)
    ]
    rows.append(
        ["Said again", *(f"{each.repeated:.1%}" for each in sets), "runs of 4 words that the same text had before: loops"]
    )
    rows.append(["Words", *(f"{each.words:g}" for each in sets), "of a text, median"])
    rows.append(
        ["Copies", f"{wording.copies:.1%}", f"{wording.test_copies:.1%}", "", "texts that are a training text word for word"]
    )
    words = (
        f"{wording.count:,} texts of each set; words in lower case, and punctuation marks. Samples, seed {wording.seed}, beside"
        f" {wording.pool:,} words of training texts."
    )
    heads = ("figure", "samples", "test texts", "training texts", "what it is")
    return section(TITLE, table(heads, rows), paragraph(words, "soft"))


def _noted(words: str) -> Iterator[str]:
    """A note beside the first of some rows."""
    return chain([words], repeat(""))


def _unseen(variety: Variety, n: int) -> str:
    return "" if variety.unseen is None else f"{variety.unseen[n]:.1%}"


def _kid(found: Likeness) -> str:
    return f"{found.kid:.4f}" + ("" if found.kid_error is None else f" ± {found.kid_error:.4f}")


def _neighbours(subject: Subject, quality: Quality, data: Splits) -> str:
    n = min(SHOWN, subject.columns, quality.count)
    labels = None if quality.labels is None else torch.tensor(quality.labels[:n])
    drawn = sample(subject.model, n, labels=labels, seed=quality.seed)
    rows = [("sample", subject.shown(drawn))]
    for how, places in zip(("pixels", "features"), quality.neighbours, strict=True):
        rows.append((f"nearest, {how}", subject.shown(data.train.select(list(places[:n])).x)))
    caption = "Samples above the training examples nearest to them, by the difference of pixels and by that of features."
    return figure(strips(rows, "samples and their nearest training examples"), caption)
