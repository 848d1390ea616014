"""The sections of a report on what can be read off z, and where classes lie in it."""

from __future__ import annotations

from html import escape

import torch
from torch import Tensor

from ancestral.data.splits import Splits
from ancestral.evaluation.attributes import ClassMeans, class_means
from ancestral.evaluation.examples import chosen_examples
from ancestral.evaluation.probes import COMPONENTS, DRAWS, Probe
from ancestral.evaluation.study import DRAWN, MEANS, MOST_AVERAGED, RAW, Study
from ancestral.latent.codes import coded
from ancestral.latent.latent import Latent
from ancestral.report.figures import accuracies
from ancestral.report.images import Pixels
from ancestral.report.page import drawing, figure, paragraph, strips, table, tag
from ancestral.report.pictures import Subject, vae_images
from ancestral.sampling import sample, shift
from ancestral.sampling.strategies import Rows, inference

CLASSES = 10  # whose means are shown
MOVED = 4  # examples that are moved from their class to another
SHARES = (0.0, 0.25, 0.5, 0.75, 1.0, 1.25)  # of the way


def readings(study: Study) -> str:
    """What linear classifiers read of the class: a table, and accuracy over labels."""
    whole = [each for each in study.probes if each.labels is None]
    rows = [[escape(each.features), _percent(each), escape(_reads(each))] for each in whole]
    rows.append(["chance", f"{study.chance:.1%}", "always the class that is most frequent in training"])
    shares = ", ".join(f"{share:.1%} of {name}" for name, share in study.between.items())
    noise = (
        " What is read off the posterior means but not off z as drawn is covered by the posterior's noise: decoders are shown"
        " draws."
        if study.accuracy(DRAWN)
        else ""
    )
    words = (
        f"Accuracy on {study.examples['test']:,} test examples of {study.data['name']}, with the standard error over them, of"
        f" multinomial logistic regression whose penalty was chosen on {study.examples['validation']:,} validation examples; of"
        f" more than {COMPONENTS} numbers it reads the first {COMPONENTS} principal components."
        f"{noise} Share of the variance of posterior means that is between classes: {shares}."
    )
    curves = {name: _points(study, name) for name in (MEANS, DRAWN, RAW) if study.accuracy(name)}
    drawn = ""
    if any(len(points) > 1 for points in curves.values()):
        caption = (
            f"The same with few labels: mean and standard error over {DRAWS} choices of the labelled examples, as many of each"
            " class; the last point of each line has all labels."
        )
        drawn = figure(drawing(accuracies(curves, study.chance), "accuracy of probes over labels"), caption, "plot")
    heading = tag("h3", "What a linear classifier reads")
    return heading + table(("read", "accuracy", "how"), rows) + paragraph(words, "soft") + drawn


def _percent(probe: Probe) -> str:
    return f"{probe.accuracy:.1%} ± {probe.error:.1%}"


def _reads(probe: Probe) -> str:
    return f"{probe.dimensions} numbers an example, {probe.examples:,} labels, l2 penalty {probe.l2:g}"


def _points(study: Study, features: str) -> list[tuple[float, float, float]]:
    found = [(each.examples, each.accuracy, each.error) for each in study.probes if each.features == features]
    return sorted(found)


def classes(subject: Subject, study: Study, data: Splits) -> str:
    """What the mean code of every class is decoded to, and examples moved along the differences of two of them."""
    model = subject.model
    if not isinstance(model, Latent) or coded(model):  # the mean of vectors of codes is no code's vector
        return ""
    chosen, _ = chosen_examples(model, data, "train", MOST_AVERAGED, study.seed)
    with inference(model):
        means = class_means(model, chosen, batch_size=64, tick=lambda amount: None)
    return tag("h3", "Classes") + _decoded(subject, means, data) + _moved(subject, means, data)


def _decoded(subject: Subject, means: ClassMeans, data: Splits) -> str:
    """Images of the mean codes, one a class."""
    n = min(CLASSES, len(means.classes))
    z = {name: values[:n].to(subject.model.anchor) for name, values in means.means.items()}
    y = vae_images(Rows(subject.model, n, None, z))
    rows: list[tuple[str, Pixels]] = [] if y is None else [("VAE image", y)]
    rows += [
        (f"draw {i + 1}", subject.shown(sample(subject.model, n, z=z, seed=subject.seed + i)))
        for i in range(1 if y is None else 2)
    ]
    names = ", ".join(_name(label, data) for label in means.classes[:n])
    caption = f"The mean of the codes of each class, decoded: {names}. A class that shows nothing of itself is none to z."
    return figure(strips(rows, "decoded class means"), caption)


def _moved(subject: Subject, means: ClassMeans, data: Splits) -> str:
    """Examples of some classes, each moved by the difference of its class and the next."""
    labels = data.test.labels
    pairs = [(a, b) for a, b in zip(means.classes, means.classes[1:], strict=False) if labels is not None and (labels == a).any()]
    pairs = pairs[:: max(1, len(pairs) // MOVED)][:MOVED]
    if labels is None or not pairs:
        return ""
    x = data.test.select([int((labels == a).nonzero()[0]) for a, _ in pairs]).x.long()
    directions = [means.direction(*pair) for pair in pairs]
    by = {name: torch.stack([each[name] for each in directions]) for name in means.means}
    moved: Tensor = shift(subject.model, x, by, SHARES, seed=subject.seed)
    rows = [
        (f"{_name(a, data)} → {_name(b, data)}", subject.shown(torch.cat([x[i : i + 1].to(moved), moved[:, i]])))
        for i, (a, b) in enumerate(pairs)
    ]
    caption = (
        "Attribute vectors: a test example, then images decoded from its code plus "
        f"{', '.join(f'{share:g}' for share in SHARES)} times the difference of the mean codes of two classes. A row draws with"
        " the same random numbers throughout."
    )
    return figure(strips(rows, "attribute vectors"), caption)


def _name(label: int, data: Splits) -> str:
    return data.class_names[label] if label < len(data.class_names) else str(label)
