"""The page of ``ancestral score``: what sets of examples cost, whether scores tell them apart, and examples symbol by symbol."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from html import escape
from pathlib import Path
from typing import Any

from torch import Tensor

from ancestral.evaluation.outside import SCORES, Scored, Separation
from ancestral.report.figures import histograms
from ancestral.report.page import badge, document, drawing, figure, paragraph, section, table, tag
from ancestral.report.surprise import Bits, Scale, Shower, extremes, legend
from ancestral.spec import DataSpec

SymbolBits = Callable[[Scored, Sequence[int]], Tensor]  # of some rows of a set, (m, *shape)


@dataclass(frozen=True)
class Example:
    """An example that is shown: its row in a set, where it stands in it, and the bits to show of it."""

    row: int
    place: str
    bits: Bits


@dataclass(frozen=True)
class Results:
    """What scoring found, and what of it is to be written.

    Attributes:
        run: folder of the model.
        sets: the first is that of the model's own data.
        separations: how well each score tells each other set from the first, by the name of the set.
        unit: of costs, in words.
        shower: how examples are shown.
        symbol_bits: tells the bits of every symbol of some rows of a set.
        per_symbol: whether the JSON shall have those of all.
        shown: at most so many examples of each set are on the page.
        at_once: rows whose symbols are asked for together.
    """

    run: Path
    sets: Sequence[Scored]
    separations: Mapping[str, Mapping[str, Separation]]
    unit: str
    shower: Shower
    symbol_bits: SymbolBits
    per_symbol: bool
    shown: int
    at_once: int

    @property
    def spec(self) -> DataSpec:
        """What the examples are."""
        return self.shower.spec

    def figures(self) -> dict[str, Any]:
        """What is said of whole sets, as JSON has it."""
        told = [
            {"set": name, "score": score, **found.to_dict()}
            for name, each in self.separations.items()
            for score, found in each.items()
        ]
        return {"sets": [each.summary(self.spec) for each in self.sets], "separations": told}


def page(title: str, results: Results) -> str:
    """The page, whole, as HTML that loads nothing."""
    sets, told, shower = results.sets, results.separations, results.shower
    examples = {each.name: _examples(each, results) for each in sets}
    scale = Scale.of([example.bits for example in examples[sets[0].name]], shower.unit)
    scores = sets[0].scores
    return document(
        title,
        tag("h1", escape(title)),
        tag(
            "p",
            badge(scores.status),
            escape(f" {_status(scores.importance_samples)} Costs are in {results.unit}; less is likelier."),
        ),
        section("Sets", _costs(sets, shower), _distributions(sets)),
        section("Inside or outside", _separations(told, sets), *(paragraph(words) for words in verdicts(told, sets[0].name))),
        *(_gallery(each, examples[each.name], scale, shower) for each in sets),
        tag("footer", escape(_what_is_shown(scores.importance_samples is not None))),
    )


def _status(k: int | None) -> str:
    if k is None:
        return "The likelihood of whole examples and of each symbol given those before it."
    bound = "evidence lower bound" if k == 1 else f"importance-weighted bound, k = {k}"
    return f"Upper bounds of the costs by the {bound}."


def _what_is_shown(latent: bool) -> str:
    """What the bits of a symbol are, in a sentence."""
    if not latent:
        return "The bits of a symbol are those given all symbols before it; those of an example sum to its cost."
    given = (
        "The bits of a symbol are those given the symbols before it, where the decoder sees them, and one z from the posterior"
    )
    return f"{given}; they sum to the distortion of an example at that z, which is its cost without the rate."


def _costs(sets: Sequence[Scored], shower: Shower) -> str:
    rows, codec = [], sets[0].scores.codec
    for each in sets:
        mean = each.summary(shower.spec)
        weights = [] if codec is None else [f"{mean['complexity']:,.1f}", f"{mean['corrected']:+,.1f}"]
        cells = [f"{mean['items']:,}", f"{mean['nats']:,.2f}", f"{mean['bits']:,.1f}", f"{mean['bits_per_dim']:.4f}", *weights]
        rows.append([escape(each.name), *cells])
    extra = [] if codec is None else [f"{codec}, bits", "corrected, bits"]
    note = "The corrected score is bits less those of the example as a file of that codec." if codec else ""
    return table(["mean of", "examples", "nats", "bits", "bits a symbol", *extra], rows) + paragraph(note, "soft")


def _distributions(sets: Sequence[Scored]) -> str:
    costs = {each.name: each.scores.bits_per_dim.numpy() for each in sets}
    drawn = [figure(drawing(histograms(costs, "bits a symbol"), "distribution of bits a symbol"), "Cost a symbol.", "plot")]
    corrected = {each.name: each.scores.corrected.numpy() for each in sets if each.scores.corrected is not None}
    if corrected:
        words = f"Corrected score: bits less those of {sets[0].scores.codec}."
        drawn.append(figure(drawing(histograms(corrected, "bits"), "distribution of the corrected score"), words, "plot"))
    return tag("div", *drawn, class_="cards")


def _separations(told: Mapping[str, Mapping[str, Separation]], sets: Sequence[Scored]) -> str:
    if not told:
        return ""
    rows = []
    for name, scores in told.items():
        for score, found in scores.items():
            numbers = f"{found.outside:,} examples against {found.inside:,} of {sets[0].name}"
            rows.append([escape(f"{name}, by {SCORES[score]}"), str(found), f"{1 - found.auroc:.3f}", escape(numbers)])
    note = "AUROC: how often an example from outside scores higher than one from inside; the other way round, how often lower."
    head = ("outside", "AUROC [95 %, DeLong]", "the other way round", "how many")
    return paragraph(note, "soft") + table(head, rows)


def verdicts(told: Mapping[str, Mapping[str, Separation]], inside: str) -> list[str]:
    """What the areas mean where that is not plain."""
    found = []
    for name, scores in told.items():
        wrong = [SCORES[score] for score, each in scores.items() if each.reversed]
        always = [SCORES[score] for score, each in scores.items() if each.auroc in (0, 1)]
        if wrong:
            found.append(f"By {' and '.join(wrong)} the model finds {name} likelier than {inside}: an AUROC below 0.5.")
        if always:
            found.append(
                f"By {' and '.join(always)} every pair of {name} and {inside} is in one order: DeLong has no interval then."
            )
    return found


def _examples(scored: Scored, results: Results) -> list[Example]:
    chosen = [(place, row) for place, rows in extremes(scored.scores.bits_per_dim, results.shown) for row in rows]
    bits = results.symbol_bits(scored, [row for _, row in chosen])
    return [Example(row, place, results.shower.map(scored.x[row], each)) for (place, row), each in zip(chosen, bits, strict=True)]


def _gallery(scored: Scored, examples: Sequence[Example], scale: Scale, shower: Shower) -> str:
    """Examples of a set by how surprising they are, a symbol at a time."""
    pieces = []
    for place in dict.fromkeys(example.place for example in examples):
        some = [_card(scored, example, scale, shower) for example in examples if example.place == place]
        pieces.append(tag("h3", escape(place.capitalize())) + tag("div", *some, class_=f"items {shower.spec.kind}"))
    return section(scored.name, legend(shower.spec, scale), *pieces)


def _card(scored: Scored, example: Example, scale: Scale, shower: Shower) -> str:
    row, scores = example.row, scored.scores
    words = [scored.items[row], f"{float(scores.bits[row]):,.1f} bits, {float(scores.bits_per_dim[row]):.3f} a symbol"]
    words += [f"class {scored.classes[row]}"] if scored.classes else []
    if scores.corrected is not None:
        words.append(f"corrected {float(scores.corrected[row]):+,.1f}")
    return figure(shower.show(scored.x[row], example.bits, scale, scored.items[row]), "; ".join(words))
