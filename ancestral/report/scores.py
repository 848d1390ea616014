"""The page of ``ancestral score``: what sets of examples cost, whether scores tell them apart, and examples symbol by symbol."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from html import escape

from torch import Tensor

from ancestral.evaluation.outside import SCORES, Scored, Separation
from ancestral.report.figures import histograms
from ancestral.report.page import badge, document, drawing, figure, paragraph, section, table, tag
from ancestral.report.surprise import Bits, Scale, Shower, extremes, legend

SymbolBits = Callable[[Scored, Sequence[int]], Tensor]  # of some rows of a set, (m, *shape)


@dataclass(frozen=True)
class Example:
    """An example that is shown: its row in a set, where it stands in it, and the bits to show of it."""

    row: int
    place: str
    bits: Bits


def page(
    title: str,
    sets: Sequence[Scored],
    told: Mapping[str, Mapping[str, Separation]],
    unit: str,
    shower: Shower,
    symbol_bits: SymbolBits,
    shown: int,
) -> str:
    """The page, whole, as HTML that loads nothing.

    Args:
        sets: the first is that of the model's own data.
        told: how well each score tells each other set from the first, by the name of the set.
        unit: of costs, in words.
        shown: at most so many examples of each set, with the bits of their symbols.

    Raises:
        ValueError: ``shown`` is below 1.
    """
    if shown < 1:
        raise ValueError(f"shown is {shown}; a set is shown by at least 1 example")
    examples = {each.name: _examples(each, shower, symbol_bits, shown) for each in sets}
    scale = Scale.of([example.bits for some in examples.values() for example in some], shower.unit)
    scores = sets[0].scores
    return document(
        title,
        tag("h1", escape(title)),
        tag("p", badge(scores.status), escape(f" {_status(scores.importance_samples)} Costs are in {unit}; less is likelier.")),
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
            numbers = f"{found.outside:,} against {found.inside:,} examples of {sets[0].name}"
            rows.append([escape(name), str(found), f"{1 - found.auroc:.3f}", escape(f"by {SCORES[score]}; {numbers}")])
    return table(("outside", "AUROC [95 %, DeLong]", "the other way round", "by which score"), rows)


def verdicts(told: Mapping[str, Mapping[str, Separation]], inside: str) -> list[str]:
    """What the areas mean where that is not plain."""
    found = []
    for name, scores in told.items():
        wrong = [SCORES[score] for score, each in scores.items() if each.reversed]
        if wrong:
            found.append(f"By {', '.join(wrong)} the model finds {name} more likely than {inside}: an AUROC below 0.5.")
        if any(each.auroc in (0, 1) for each in scores.values()):
            found.append(f"Of {name} and {inside} no pair is in the other order somewhere, so that DeLong gives no interval.")
    return found


def _examples(scored: Scored, shower: Shower, symbol_bits: SymbolBits, shown: int) -> list[Example]:
    chosen = [(place, row) for place, rows in extremes(scored.scores.bits_per_dim, shown) for row in rows]
    bits = symbol_bits(scored, [row for _, row in chosen])
    return [Example(row, place, shower.map(scored.x[row], each)) for (place, row), each in zip(chosen, bits, strict=True)]


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
