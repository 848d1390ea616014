"""The report of a run: one page that needs nothing but itself."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from functools import partial
from html import escape
from pathlib import Path
from typing import Any

import torch

from ancestral.data.loading import load_data
from ancestral.data.notation import Sound, Text
from ancestral.data.splits import Splits
from ancestral.evaluation import Evaluation, Quality, Study, Wording, evaluate, quality, study, wording
from ancestral.evaluation.classifier import judge_of, trained
from ancestral.evaluation.likeness import NEIGHBOURS
from ancestral.files import write_whole
from ancestral.hub import describe as read_config
from ancestral.hub import load, versions
from ancestral.latent.latent import Latent
from ancestral.report import sequences
from ancestral.report.facts import bars, configuration, curves, figures, headline, provenance, remedies
from ancestral.report.history import read_history
from ancestral.report.images import drawable
from ancestral.report.judged import sample_quality, sample_wording
from ancestral.report.page import document, section, tag
from ancestral.report.pictures import Subject, completions, interpolations, reconstructions, samples, surprises, traversals
from ancestral.report.remake import commands
from ancestral.report.sequences import Sequences
from ancestral.report.study import classes, readings
from ancestral.sampling.strategies import Model
from ancestral.symbols import DataError

NAME = "report.html"
CLASSIFIER = "classifier.safetensors"
ROWS = 4  # of the sheet of samples
PICTURES: dict[str, Callable[[Subject], str]] = {
    "samples": samples,
    "reconstructions": reconstructions,
    "traversals": traversals,
    "interpolations": interpolations,
    "completions": completions,
    "surprisal maps": surprises,
}

CARRIED = ("readings", "classes", "traversals", "interpolations")
SEQUENCES: dict[str, Callable[[Sequences], str]] = {
    "samples": sequences.samples,
    "reconstructions": sequences.reconstructions,
    "interpolations": sequences.interpolations,
    "completions": sequences.completions,
    "surprisal maps": sequences.surprises,
}


def report(
    folder: str | os.PathLike[str],
    data: Any = None,
    *,
    model: Model | None = None,
    evaluation: Evaluation | None = None,
    labelled: Any = None,
    studied: Study | None = None,
    judged: Quality | Wording | None = None,
    samples: int = 256,
    out: str | os.PathLike[str] | None = None,
    examples: int = 8,
    importance_samples: int = 50,
    seed: int = 0,
    progress: Callable[[str], None] | None = None,
) -> Path:
    """Write the report of a run, a single HTML page that loads nothing from elsewhere; its path.

    It has the figures with their status, the verdict, samples, reconstructions, latents, completions, surprisal, learning
    curves, configuration and provenance, as far as they apply to the model.

    Args:
        folder: of the run.
        data: what ``load_data`` takes; by default what the run was trained on, where the folder can tell.
        model: with its weights, where it was made of your own network, which the folder cannot make again.
        evaluation: figures that are there already; otherwise the test set is evaluated.
        labelled: data with labels of the model's kind, for what is read off z and for the classifier; by default ``data``.
        studied, judged: what is known of z and of samples already; otherwise it is found here, where there are labels or words.
            The classifier for samples is that in ``classifier.safetensors`` of the folder, or is trained and kept there.
        samples: how many are drawn to judge them; 0 leaves that out.
        out: file to write; by default ``report.html`` in the folder.
        examples: images in a row.
        importance_samples: k of the evaluation.
        seed: of samples and everything else that is drawn.
        progress: is told what comes next, in words.

    Raises:
        FileNotFoundError, LoadError: the folder is not that of a run, or is damaged.
        DataError: the data are unknown, or do not fit the model.
        ValueError: ``examples`` is below 1.
        OSError: the page cannot be written.
    """
    if examples < 1:
        raise ValueError(f"examples is {examples}; a row has at least 1")
    folder, say = Path(folder), progress or (lambda words: None)
    config, history = read_config(folder), read_history(folder)
    model = load(folder) if model is None else model
    splits = _data(config, data)
    say("measuring")
    evaluation = evaluate(model, splits, importance_samples=importance_samples, seed=seed) if evaluation is None else evaluation
    subject = _subject(model, splits, evaluation, examples, seed)
    labelled = splits if labelled is None else load_data(labelled)
    if studied is None and isinstance(model, Latent) and _told_apart(labelled):
        say("probing z")
        studied = study(model, labelled, seed=seed)
    if judged is None and samples and len(splits.test) > NEIGHBOURS:
        judged = _judged(model, splits, labelled, samples, seed, folder / CLASSIFIER, say)
    pictures = _drawn(subject, say) | _labelled(subject, studied, judged, splits, labelled)
    title = f"{config['model'] or 'a model of your own'} on {evaluation.data['name']}"
    page = document(
        title,
        headline(title, model, evaluation),
        figures(evaluation),
        section("Training", curves(history, evaluation.certain, model.units is not None)),
        *(pictures.get(name, "") for name in ("samples", "sample quality", "reconstructions")),
        section("What z carries", remedies(evaluation), bars(evaluation), *(pictures.get(name, "") for name in CARRIED)),
        *(pictures.get(name, "") for name in ("completions", "surprisal maps")),
        configuration(model, config),
        provenance(config, history, evaluation, commands(folder, config, evaluation)),
        tag("footer", escape(f"Written by ancestral {versions()['ancestral']} from {folder.name}.")),
    )
    path = Path(out) if out is not None else folder / NAME
    write_whole(path, page.encode())
    return path


def _data(config: Mapping[str, Any], data: Any) -> Splits:
    if data is not None:
        return load_data(data)
    record = config.get("data") or {}
    if record.get("source") is None:
        raise DataError("the run's folder does not say where its data can be read again: hand them over (data=..., --data)")
    return load_data(record["source"], **record.get("options", {}))


def _subject(model: Model, data: Splits, evaluation: Evaluation, count: int, seed: int) -> Subject | Sequences | None:
    """What is shown, with examples at even distances, so that a set sorted by class shows them all; None of vectors."""
    sequence = model.spec.sequence and model.spec.levels is not None
    if not (sequence or drawable(model.spec)):
        return None
    held_out = next((part for part in (data.test, data.validation) if len(part)), data.train)
    rows = torch.linspace(0, len(held_out) - 1, min(count, len(held_out))).round().long()
    examples = held_out.select(rows)
    labels = examples.labels if model.conditional else None
    x = examples.x.long().to(model.anchor.device)
    if sequence:
        return Sequences(model, sequences.held_out(x, model.spec), labels, data.notation, seed)
    return Subject(model, x, labels, evaluation, ROWS * count, count, seed)


def _told_apart(data: Splits) -> bool:
    """Whether training examples have labels, of several classes, and test examples some of these."""
    train, test = data.train.labels, data.test.labels
    return train is not None and test is not None and len(torch.unique(train)) > 1 and bool(torch.isin(test, train).any())


def _judged(
    model: Model, data: Splits, labelled: Splits, samples: int, seed: int, path: Path, say: Callable[[str], None]
) -> Quality | Wording | None:
    """What samples are like, where there are words, or classes to train a classifier with, which ``path`` is for."""
    if isinstance(data.notation, Text):
        say("judging samples")
        return wording(model, data, samples=samples, seed=seed)
    if not _told_apart(labelled) or not (drawable(model.spec) or isinstance(data.notation, Sound)):
        return None
    say("judging samples")
    judge = judge_of(path, labelled) if path.exists() or os.access(path.parent, os.W_OK) else trained(labelled)
    return quality(model, data, judge=judge, samples=samples, seed=seed)


def _labelled(
    subject: Subject | Sequences | None, studied: Study | None, judged: Quality | Wording | None, data: Splits, labelled: Splits
) -> dict[str, str]:
    """The parts that need classes."""
    found = {} if studied is None else {"readings": readings(studied)}
    if isinstance(subject, Subject) and studied is not None and _told_apart(labelled):
        found["classes"] = classes(subject, studied, labelled)
    if isinstance(judged, Wording):
        found["sample quality"] = sample_wording(judged)
    elif judged is not None:
        found["sample quality"] = sample_quality(subject, judged, data)
    return found


def _drawn(subject: Subject | Sequences | None, say: Callable[[str], None]) -> dict[str, str]:
    sections = dict[str, Callable[[], str]]()
    if isinstance(subject, Subject):
        sections = {name: partial(draw, subject) for name, draw in PICTURES.items()}
    elif isinstance(subject, Sequences):
        sections = {name: partial(draw, subject) for name, draw in SEQUENCES.items()}
    found = {}
    for name, draw in sections.items():
        say(f"drawing {name}")
        found[name] = draw()
    return found
