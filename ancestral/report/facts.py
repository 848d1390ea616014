"""The parts of a report that are words and numbers: headline, table of figures, training curves, provenance."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from html import escape
from typing import Any

from ancestral.evaluation import Evaluation
from ancestral.evaluation.bits import bits
from ancestral.evaluation.latents import Uses
from ancestral.models import MODELS
from ancestral.report.describe import data_in_words, describe
from ancestral.report.figures import code_bars, latent_bars, learning_curves
from ancestral.report.history import History
from ancestral.report.page import badge, drawing, figure, pairs, paragraph, section, table, tag
from ancestral.report.remake import on_its_own_data
from ancestral.sampling.strategies import Model

WAYS = {
    "exact": "exact: the likelihood itself",
    "bound": "bound: ELBO, a single sample of z, KL weight 1",
    "approximate": "approximate",
}
CODED = "bound: the codes of x, and x given its codes"
PICTURED = "bound: the auxiliary image of x, and x given that"
NOISE = "bound: whole numbers with uniform noise, drawn once"


def headline(title: str, model: Model, evaluation: Evaluation) -> str:
    """Model, data, bits/dim with its status, and on what it was measured."""
    name = getattr(model.config, "name", None)
    summary = f"{MODELS[name].summary}. " if name in MODELS and model.spec.kind != "vector" else ""
    size = sum(parameter.numel() for parameter in model.parameters())
    unit = "bits/dim of a density" if evaluation.density else "bits/dim"
    data = evaluation.data
    number = tag("strong", f"{evaluation.bits_per_dim:.3f}") + tag("span", unit, class_="unit")
    share = "all" if evaluation.examples == data["available"] else f"{evaluation.examples:,} of the"
    values = data["range"] if evaluation.density else f"values {data['range']}"
    error, k, weighted = evaluation.bits_per_dim_error, evaluation.importance_samples, evaluation.iwae_bits_per_dim
    details = [
        NOISE
        if evaluation.status == "bound" and evaluation.rate is None
        else (CODED if evaluation.code_uses else PICTURED)
        if evaluation.certain
        else WAYS[evaluation.status],
        *([f"standard error {error:.4f}"] if error is not None else []),
        *([f"importance-weighted with k = {k}: {weighted:.3f}"] if weighted is not None else []),
        f"{share} {data['available']:,} examples of {data['name']}, {data['split']}, {values}",
        *([f"given features: {data['features']}"] if "features" in data else []),
    ]
    return tag(
        "header",
        tag("h1", escape(title)),
        paragraph(f"{summary[:1].upper()}{summary[1:]}{size:,} parameters; {data_in_words(model.spec)}.", "soft"),
        tag("div", number, badge(evaluation.status), class_="headline"),
        paragraph(" · ".join(details), "lead"),
        paragraph(sentence(evaluation.verdict), "verdict warning" if "remedies:" in evaluation.verdict else "verdict")
        if evaluation.verdict
        else "",
    )


def remedies(evaluation: Evaluation) -> str:
    """Where z carries little: every setting that would make it carry more, with what to expect of it."""
    if not evaluation.remedies:
        return ""
    rows = [(f"{each['name']} ({each['setting']})", each["expect"]) for each in evaluation.remedies]
    return paragraph("What would make z carry more:") + pairs(rows)


def sentence(text: str) -> str:
    """Words with a full stop; their first letter stays as it is, for it may be the name z."""
    return text if text.endswith(".") else f"{text}."


def with_error(value: float, error: float | None, digits: int = 2) -> str:
    """A number with its standard error where there is one."""
    return f"{value:,.{digits}f}" if error is None else f"{value:,.{digits}f} ± {error:.{digits}f}"


Row = tuple[str, str, str, str, str]  # name, number, unit, status, note


def figures(evaluation: Evaluation) -> str:
    """Every figure with its unit and status."""
    rows = [*_costs(evaluation), *_terms(evaluation), *_bounds(evaluation), *_latents(evaluation)]
    cells = [[escape(name), number, escape(unit), badge(status), escape(note)] for name, number, unit, status, note in rows]
    errors = paragraph("± is the standard error over the examples. Of costs, less is better.", "soft")
    return section("Figures", table(("figure", "value", "unit", "status", "what it is"), cells), errors)


def _costs(found: Evaluation) -> list[Row]:
    name = "Negative ELBO" if found.rate is not None else "Negative log-likelihood"
    symbol = with_error(found.bits_per_dim, found.bits_per_dim_error, 4)
    nats = with_error(found.nats, found.nats_error)
    return [
        (name, symbol, "bits/dim", found.status, f"mean over {found.examples:,} examples"),
        (name, nats, "nats", found.status, f"the same for an example of {found.sites:,.0f} symbols"),
        *_text_costs(found),
    ]


def _text_costs(found: Evaluation) -> list[Row]:
    if found.bits_per_byte is None or found.byte_status is None:
        return []
    note = "one spelling of the text in tokens, of many" if found.tokens else "of the text in UTF-8"
    return [("The same in bytes", f"{found.bits_per_byte:.4f}", "bits/byte", found.byte_status, note)]


def _terms(found: Evaluation) -> list[Row]:
    if found.rate is None or found.distortion is None:
        return []
    rate, distortion = with_error(found.rate, found.rate_error), with_error(found.distortion, found.distortion_error)
    rows = [
        ("Rate", rate, "nats", "bound", f"KL(q(z|x) ‖ p(z)), what z costs: {bits(found.rate):,.1f} bits"),
        ("Distortion", distortion, "nats", "bound", f"−log p(x|z), what x costs given z: {bits(found.distortion):,.1f} bits"),
    ]
    if found.certain and len(found.kl_by_group) > 1:
        note = "what this part of z costs, given those above it"
        rows += [(f"Rate of {name}", f"{nats:,.2f}", "nats", "bound", note) for name, nats in found.kl_by_group.items()]
    if found.auxiliary is not None:
        note = "−log p(y|z) of the auxiliary y: shapes training, no part of the bits of x"
        rows.append(("Auxiliary loss", f"{found.auxiliary:,.2f}", "nats", "approximate", note))
    return rows


def _bounds(found: Evaluation) -> list[Row]:
    elbo, iwae, k = found.elbo_subset_bits_per_dim, found.iwae_bits_per_dim, found.importance_samples
    if iwae is None or elbo is None or found.effective_samples is None:
        return []
    same = f"mean of {k} samples of z an example, on {found.subset:,} examples"
    weighted = f"the same samples, importance-weighted: worth {found.effective_samples:.0%} of {k} independent ones"
    elbo_words = with_error(elbo, found.elbo_subset_bits_per_dim_error, 4)
    iwae_words = with_error(iwae, found.iwae_bits_per_dim_error, 4)
    return [
        ("Negative ELBO, subset", elbo_words, "bits/dim", "bound", same),
        (f"Negative IWAE, k = {k}", iwae_words, "bits/dim", "bound", weighted),
    ]


def _latents(found: Evaluation) -> list[Row]:
    rows: list[Row] = []
    if found.active_units is not None:
        note = "units whose posterior mean varies over the examples by more than 0.01"
        rows.append(("Active units", f"{found.active_units} of {found.units}", "units", "exact", note))
    for uses in (Uses.of(name, counts) for name, counts in found.code_uses.items()):
        rows.append((f"Used {uses.noun}", f"{uses.used:,} of {uses.codes:,}", "codes", "exact", "that occur at all"))
        note = "exp of the entropy of a code: how many equally likely ones they are worth"
        rows.append((f"Perplexity of {uses.noun}", f"{uses.perplexity:,.1f}", "codes", "exact", note))
    if found.mutual_information is not None and found.mutual_information_ceiling is not None:
        most = f"{found.information_examples:,} examples, which cannot show more than {found.mutual_information_ceiling:.2f}"
        note = f"{'I(x; z | label)' if found.data['labels'] else 'I(x; z)'}, estimated from {most}"
        rows.append(("Mutual information", f"{found.mutual_information:.2f}", "nats", "approximate", note))
    if found.aggregate_kl is not None:
        which = "examples of a label" if found.data["labels"] else "examples"
        note = f"KL(q(z) ‖ p(z)): how far the codes of all {which} together are from the prior"
        note += "; less than that, as so few examples do not show all the information" if found.saturated else ""
        rows.append(("Aggregate KL", f"{found.aggregate_kl:.2f}", "nats", "approximate", note))
    if found.shuffle_cost is not None:
        note = f"lost when x is decoded with another example's z, on {found.subset:,} examples"
        rows.append(("Shuffle cost", with_error(found.shuffle_cost, found.shuffle_cost_error), "nats", "approximate", note))
    return rows


def curves(history: History, certain: bool = False, converted: bool = False) -> str:
    """Training as it went: bits/dim, and the rate where there is one.

    Args:
        certain: whether x leaves no choice of z.
        converted: whether the model's units are not those of the data, in which its figures are given.
    """
    stages = [
        (f"{stage.name} ({stage.status})" if stage.status else stage.name, stage.start, stage.end) for stage in history.stages
    ]
    names = ", then ".join(name for name, _, _ in stages)
    drawn = []
    symbols, rate = history.curves("bits_per_dim"), history.curves("rate")
    if symbols:
        silent = [stage.name for stage in history.stages if not stage.status]
        nothing = f" The stage {' and '.join(silent)} does not model x, so it has no bits of x." if silent else ""
        weight = ", KL weight 1" if any(stage.status == "bound" for stage in history.stages) else ""
        slower = "".join(
            f" Gradients blew up in the stage {name}, which went back to its averaged weights and ended at {pace:g} of its rate."
            for name, pace in history.slowed.items()
        )
        units = " They are of a density in the model's units, the figures above in the original ones." if converted else ""
        caption = f"Bits/dim over training steps{weight}. Stages: {names}.{units}{nothing}{slower}"
        drawn.append(figure(drawing(learning_curves(symbols, stages), "learning curves in bits/dim"), caption, "plot"))
    if rate:
        fall = "" if certain else " A rate that falls to zero is a collapse."
        caption = f"Rate over training steps, in nats an example: what z {'costs' if certain else 'carries at most'}.{fall}"
        drawn.append(figure(drawing(learning_curves(rate, stages, "rate (nats)"), "rate over training steps"), caption, "plot"))
    return tag("div", *drawn, class_="cards") if drawn else ""


def bars(evaluation: Evaluation) -> str:
    """KL of every unit, or how often every code is used; nothing of an auxiliary image, which has neither."""
    if not evaluation.kl_by_unit or (evaluation.certain and not evaluation.code_uses):
        return ""
    if evaluation.code_uses:
        caption = "How often every code is chosen over all examples and places, in percent: bars alike mean codes used alike."
        return figure(drawing(code_bars(evaluation.code_uses), "use of every code, sorted"), caption, "plot")
    caption = "KL of every unit of z from its prior, in nats, averaged over the examples: the sum is the rate."
    return figure(drawing(latent_bars(evaluation.kl_by_unit), "KL of every latent unit, sorted"), caption, "plot")


def configuration(model: Model, config: Mapping[str, Any]) -> str:
    """What the model is, and the settings that made it."""
    lines = [(line[:17].strip(), line[17:].strip()) for line in describe(model)]
    settings = [(name, _short(value)) for name, value in (config.get("config") or {}).items()]
    training = [(name, _short(value)) for name, value in (config.get("training") or {}).items()]
    return section(
        "Configuration",
        pairs(lines),
        details("Settings of the model", pairs(settings)) if settings else "",
        details("Settings of the training", pairs(training)) if training else "",
    )


def details(summary: str, body: str) -> str:
    """A part that opens on demand."""
    return tag("details", tag("summary", escape(summary)), body)


def provenance(config: Mapping[str, Any], history: History, evaluation: Evaluation, commands: Sequence[str]) -> str:
    """Where everything comes from, and how to make it again."""
    same = on_its_own_data(config, evaluation.data)
    others = "" if same else f"; the model was trained on others: {config['data']['hash']}"
    rows = [
        ("data", str(evaluation.data["note"])),
        ("hash of the data", f"{evaluation.data['hash']}{others}"),
        *([("training", _training(config, history))] if history.rows else []),
        ("seed of the evaluation", str(evaluation.seed)),
        ("versions", ", ".join(f"{name} {version}" for name, version in (config.get("versions") or {}).items())),
    ]
    again = tag("pre", tag("code", escape("\n".join(commands))))
    how = "Commands that make this again:" if same else "Commands that train it again; its figures are of other data:"
    how = how if commands else "Model or data came from Python, so no command makes this again."
    return section("Provenance", pairs(rows), paragraph(how, "soft"), again if commands else "")


def _training(config: Mapping[str, Any], history: History) -> str:
    seed = (config.get("training") or {}).get("seed")
    time = "" if history.seconds is None else f" in {history.seconds / 60:.1f} minutes"
    return f"{history.stages[-1].end:,} steps{time}" + ("" if seed is None else f", seed {seed}")


def _short(value: Any) -> str:
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)
