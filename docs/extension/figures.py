"""What was measured: rows of the README's table and of the records in ``benchmarks/results``, as Markdown."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from dataclasses import fields
from pathlib import Path
from typing import Any

from ancestral.evaluation import Evaluation
from ancestral.models import MODELS
from extension.models import table

ROOT = Path(__file__).resolve().parents[2]
RESULTS = ROOT / "benchmarks" / "results"
MEASURED = {field.name for field in fields(Evaluation)}  # such as the auxiliary loss, which a setting is called like


def readme() -> dict[str, list[str]]:
    """The README's table of models: name to likelihood, laws, what works, measured here, the paper's figure."""
    text = (ROOT / "README.md").read_text(encoding="utf-8")
    rows = re.findall(r"^\| `([a-z+-]+)` \| (exact|bound) \| (.*?) \| (.*?) \| (.*?) \| (.*?) \|$", text, re.MULTILINE)
    return {name: cells for name, *cells in rows}


def records(name: str) -> Iterator[tuple[str, dict[str, Any]]]:
    """The recorded likelihoods of a model, by the data's name."""
    for path in sorted(RESULTS.glob("*.json")):
        for key, row in json.loads(path.read_text(encoding="utf-8"))["rows"].items():
            if row.get("model") == name and "status" in row and {"nats", "nats_per_symbol", "bits_per_dim"} & set(row):
                yield _data(name, key, row) or path.stem, row


def _data(name: str, key: str, row: dict[str, Any]) -> str | None:
    """The data's name: it stands in keys that begin with the model, and otherwise begins the note on the data."""
    if "data" not in row:
        return None
    said = key.removeprefix(f"{name}, ")
    return said.split(",")[0] if said != key else Path(re.split("; | \\(", row["data"])[0]).stem


def figures(name: str) -> str:
    """What was reached, beside the paper's figure; how; and samples, where some were kept."""
    *_, measured, paper = readme()[name]
    found = list(records(name))
    parts = [table(["measured here", "the paper's"], [[measured, paper]])]
    if found:
        parts += ["Every record of it; figures are of test examples, with their standard errors:\n"]
        parts += [table(["data", "status", "figure", "settings, training", "command"], [_row(*each) for each in found])]
    for data in dict.fromkeys(data for data, _ in found):
        if (RESULTS / f"{name}_{data}.png").exists():
            caption = f"Samples of `{name}`, {data}, beside the record."
            parts.append(f"![{caption}](../../benchmarks/results/{name}_{data}.png)\n\n{caption}\n")
    return "\n".join(parts)


def _row(data: str, row: dict[str, Any]) -> list[str]:
    bound = "≤ " if row["status"] == "bound" else ""
    if "nats" in row:
        figure = f"{bound}{row['nats']:,.2f} ± {row['nats_error']:.2f} nats"
        figure += f"; {bound}{row['bits_per_dim']:.3f} bits/dim" if "bits_per_dim" in row else ""
        figure += f"; {bound}{row['bits_per_symbol']:.3f} bits a symbol" if "bits_per_symbol" in row else ""
    elif "nats_per_symbol" in row:
        figure = f"{row['nats_per_symbol']:.3f} nats, {row['bits_per_dim']:.3f} bits a symbol"
    else:
        figure = f"{bound}{row['bits_per_dim']:.3f} bits/dim"
    if row.get("verdict"):
        figure += f"; {row['verdict']}"
    own = {field.name for field in fields(MODELS[row["model"]].config)} & row.keys() - MEASURED
    chosen = {**{key: row[key] for key in sorted(own)}, **row.get("sizes", {}), **row.get("reading", {})}
    sizes = ", ".join(f"{key}={value}" for key, value in chosen.items())
    how = [sizes or "`small`", f"{row['steps']:,} steps" if "steps" in row else "", f"{row['cpu_minutes']:g} CPU-minutes"]
    return [data, row["status"], figure, "; ".join(part for part in how if part), f"`{row['command']}`"]


def collapse() -> str:
    """The toy on which latents collapse: what each remedy did, the least and the largest over the seeds."""
    rows = json.loads((RESULTS / "collapse.json").read_text(encoding="utf-8"))["rows"]
    by_remedy: dict[str, list[dict[str, Any]]] = {}
    for key, row in rows.items():
        by_remedy.setdefault(key.rsplit(", seed", 1)[0], []).append(row)
    head = ["decoder and remedy", "seeds", "-ELBO", "rate", "shuffle cost", "z in use"]
    return table(head, [[words, str(len(seeds)), *_ranges(seeds)] for words, seeds in by_remedy.items()])


def _ranges(seeds: list[dict[str, Any]]) -> list[str]:
    used = sum(row["verdict"].startswith("z carries") for row in seeds)
    return [*(_range([row[key] for row in seeds]) for key in ("nats", "rate", "shuffle_cost")), f"{used} of {len(seeds)}"]


def _range(values: list[float]) -> str:
    low, high = (f"{abs(value):.2f}" if abs(value) < 0.005 else f"{value:.2f}" for value in (min(values), max(values)))
    return low if low == high else f"{low} to {high}"
