"""`summary`: a run in one flat record, for tables of many."""

from __future__ import annotations

from typing import Any

from ancestral.evaluation.quality import Quality
from ancestral.evaluation.result import Evaluation
from ancestral.evaluation.study import DRAWN, FEW, MEANS, Study
from ancestral.evaluation.wording import Wording

COSTS = (
    *("status", "examples", "nats", "nats_error", "bits_per_dim", "rate", "rate_error", "distortion", "distortion_error"),
    *("importance_samples", "iwae", "iwae_error", "mutual_information", "aggregate_kl", "shuffle_cost", "shuffle_cost_error"),
    *("active_units", "units"),
)


def summary(evaluation: Evaluation, study: Study | None = None, quality: Quality | Wording | None = None) -> dict[str, Any]:
    """Costs in nats, rate and distortion apart, and what is known of z and of samples, as numbers by name; None is unknown.

    ``rate_share`` is rate over nats, of whole numbers. ``probe_means`` and ``probe_drawn`` are accuracies with all labels,
    ``probe_means_10`` with ten a class, each with ``_error``; ``kid``, ``precision`` and ``recall`` are those of samples, where
    these are not text.
    """
    found = {name: getattr(evaluation, name) for name in COSTS}
    shared = evaluation.rate is not None and not evaluation.density
    found["rate_share"] = evaluation.rate / evaluation.nats if shared and evaluation.rate is not None else None
    for name, features in (("probe_means", MEANS), ("probe_drawn", DRAWN)):
        for labels in (None, *FEW):
            probe = None if study is None else study.accuracy(features, labels)
            key = name if labels is None else f"{name}_{labels}"
            found |= {key: probe and probe.accuracy, f"{key}_error": probe and probe.error}
    likeness = None if quality is None else quality.samples
    return found | {name: getattr(likeness, name, None) for name in ("kid", "kid_error", "precision", "recall")}
