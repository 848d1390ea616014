"""``latents`` and ``quality``: what can be read off z, and how samples compare with examples; both are kept in the run."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ancestral import evaluation
from ancestral.cli.commands import Answer, Latents, Quality
from ancestral.cli.keeping import keep, kept
from ancestral.cli.reading import Reading
from ancestral.cli.runs import data_of, opened, progress, said, written_as
from ancestral.data.loading import load_data
from ancestral.data.notation import Text
from ancestral.data.splits import Splits
from ancestral.evaluation.classifier import judge_of
from ancestral.evaluation.quality import Quality as Judged
from ancestral.evaluation.quality import check_number
from ancestral.evaluation.study import Study
from ancestral.evaluation.wording import Wording
from ancestral.hub import describe
from ancestral.latent.latent import needs_latents
from ancestral.report.write import CLASSIFIER

LATENTS, QUALITY = "latents.json", "quality.json"


@dataclass(frozen=True)
class Findings:
    """What `latents` and `quality` found of a run as it is now, and where the labels came from.

    Attributes:
        study, judged: what they found, or None; ``judged`` is a `Wording` of text.
        labelled: source and options of other labelled data than the run's own, or None.
    """

    study: Study | None
    judged: Judged | Wording | None
    labelled: Mapping[str, Any] | None


def latents(command: Latents) -> Answer:
    """Probe the latents of a run.

    Raises:
        ValueError: the model has no latents.
        DataError: there are no labels.
    """
    model = needs_latents(opened(command, command.run), "latents")
    data, origin = _labelled(command.run, command.labelled, command.reading)
    with progress("encoding") as tick:
        found = evaluation.study(
            model,
            data,
            limit=command.limit,
            few=command.few,
            batch_size=command.batch_size,
            seed=command.seed,
            progress=tick,
        )
    made = {each.labels for each in found.probes}
    for few in (each for each in command.few if each not in made):
        said(f"no probe with {few:,} labels a class: some class has fewer, or that is all the labels there are (--limit)")
    keep(command.run, LATENTS, {"labelled": origin, **found.to_dict()})
    return Answer({"run": command.run, **found.to_dict()}, found.lines())


def quality(command: Quality) -> Answer:
    """Judge the samples of a run.

    Raises:
        DataError: there are no labels for the classifier, or the run is of vectors.
        ValueError: a classifier is named for text, which needs none, or the samples are too few.
    """
    model, data = opened(command, command.run), data_of(command.run, None, Reading(), "quality compares samples with them")
    drawing = {"samples": command.samples, "seed": command.seed, "batch_size": command.batch_size}
    if isinstance(data.notation, Text):
        if command.labelled or command.classifier:
            raise ValueError("text is judged by its words, without a classifier: leave --labelled and --classifier out")
        with progress("drawing") as tick:
            told = evaluation.wording(model, data, **drawing, progress=tick)
        keep(command.run, QUALITY, told.to_dict())
        return Answer({"run": command.run, **told.to_dict()}, told.lines())
    check_number(command.samples)
    labelled, origin = _labelled(command.run, command.labelled, command.reading)
    with progress("training the classifier") as tick:
        judge = judge_of(command.classifier or command.run / CLASSIFIER, labelled, progress=tick)
    with progress("drawing") as tick:
        found = evaluation.quality(model, data, judge=judge, **drawing, progress=tick)
    keep(command.run, QUALITY, {"labelled": origin, **found.to_dict()})
    return Answer({"run": command.run, **found.to_dict()}, found.lines())


def kept_findings(run: Path) -> Findings:
    """What lies in a run's folder of both, where it is of its weights as they are now."""
    study, judged = kept(run, LATENTS), kept(run, QUALITY)
    sources = [each["labelled"] for each in (study, judged) if each and each.get("labelled")]
    try:
        return Findings(
            None if study is None else Study.from_dict(study),
            None if judged is None else (Wording if "repeated" in judged.get("samples", {}) else Judged).from_dict(judged),
            sources[0] if sources else None,
        )
    except (KeyError, TypeError):
        return Findings(None, None, None)  # of another version: it will be found again


def _labelled(run: Path, source: str | None, reading: Reading) -> tuple[Splits, dict[str, Any] | None]:
    """Labelled data and how they can be read again: brought to the run's levels unless it is said how; by default its own."""
    if source is None:
        return data_of(run, None, reading, "name labelled data (--labelled)"), None
    written = written_as(run, source)
    if written:
        written |= {"notation": written["notation"].to_dict()}
        return data_of(run, source, reading), {"source": source, "options": written | reading.options()}
    options, levels = reading.options(), describe(run)["spec"]["levels"]
    data = load_data(source, **options)
    if data.spec.levels != levels and levels is not None and not {"levels", "binarize"} & options.keys():
        options |= {"binarize": "sample"} if levels == 2 else {"levels": levels}
        data = load_data(source, **options)
    return data, {"source": source, "options": options}
