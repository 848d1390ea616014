"""What ``ancestral score`` writes: a table, JSON and a page of the same figures, each file whole or not at all."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from ancestral.evaluation.score import counted_symbols
from ancestral.files import whole, write_whole
from ancestral.report.scores import Results, page
from ancestral.symbols import scored


def rows(results: Results) -> Iterator[dict[str, Any]]:
    """What is said of every example, in order."""
    for each in results.sets:
        found = each.scores
        empty = [None] * len(each.items)
        weights = [empty if values is None else values.tolist() for values in (found.complexity, found.corrected)]
        named = zip(each.items, each.classes or empty, counted_symbols(each.x, results.spec).tolist(), strict=True)
        costs = zip(found.nats.tolist(), found.bits.tolist(), found.bits_per_dim.tolist(), *weights, strict=True)
        for (item, label, symbols), (nats, bits, per_symbol, size, corrected) in zip(named, costs, strict=True):
            yield {
                "item": item,
                "set": each.name,
                "label": label,
                "symbols": symbols,
                "nats": nats,
                "bits": bits,
                "bits_per_dim": per_symbol,
                "complexity": size,
                "corrected": corrected,
                "codec": found.codec,
                "status": found.status,
                "importance_samples": found.importance_samples,
                "unit": results.unit,
            }


def write_csv(place: Path, results: Results) -> None:
    """A row for every example."""
    text, found = io.StringIO(), list(rows(results))
    table = csv.DictWriter(text, list(found[0]), lineterminator="\n")
    table.writeheader()
    table.writerows(found)
    write_whole(place, text.getvalue().encode())


def write_json(place: Path, results: Results) -> None:
    """The same, with the figures of whole sets; an example at a time, because the bits of all symbols need not fit in memory."""
    head = {"run": str(results.run), **results.figures()}
    if results.per_symbol:
        given = ", each given one z from the posterior" if results.sets[0].scores.importance_samples else ""
        head["symbol_bits"] = f"bits of the symbols of an item, in the shape of an example and up to its end{given}"
    symbols = _symbols(results) if results.per_symbol else None
    with whole(place) as file:
        file.write(json.dumps(head, ensure_ascii=False)[:-1].encode() + b', "items": [')
        for number, row in enumerate(rows(results)):
            row |= {"symbol_bits": next(symbols)} if symbols is not None else {}
            file.write((b",\n" if number else b"\n") + json.dumps(row, ensure_ascii=False).encode())
        file.write(b"\n]}\n")


def write_html(place: Path, results: Results) -> None:
    """The page."""
    title = f"Scores of {results.sets[0].name} by {results.run.resolve().name}"
    write_whole(place, page(title, results).encode())


WRITERS: dict[str, Callable[[Path, Results], None]] = {".csv": write_csv, ".json": write_json, ".html": write_html}


def _symbols(results: Results) -> Iterator[Any]:
    """The bits of every symbol of every example, some examples at a time."""
    for each in results.sets:
        for start in range(0, len(each.items), results.at_once):
            some = range(start, min(start + results.at_once, len(each.items)))
            counts = scored(each.x[some.start : some.stop], results.spec)
            for row, bits in enumerate(results.symbol_bits(each, some)):
                yield (bits if counts is None else bits[counts[row].to(bits.device)]).tolist()
