"""How far does a small CPU budget get on text and on sound?

One thread. Tiny Shakespeare as characters, the usual 90/10 split (a folder with train.txt and validation.txt): nats a character
are those of consecutive blocks, each begun with nothing before it. Spoken digits (a folder with train and test, files called
DIGIT_SPEAKER_TAKE.wav): whole clips and their ends, given digit and speaker. Both exact.

    python benchmarks/sequences.py transformer tinyshakespeare DATA/tinyshakespeare --minutes 10 --keep RUN
    python benchmarks/sequences.py wavenet spoken_digits DATA/spoken_digits --minutes 30 --keep RUN
"""

from __future__ import annotations

import argparse
import json
import time
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from record import Record, cpu_minutes

from ancestral.data import load_data
from ancestral.data.notation import Text
from ancestral.evaluation import evaluate
from ancestral.models import build
from ancestral.sampling import sample
from ancestral.training import fit

RESULTS = Path(__file__).parent / "results"
SHOWN = 1000  # symbols of a sample that the record keeps


@dataclass(frozen=True)
class Run:
    """How the data are read, the sizes of a model, and how it trains."""

    data: dict[str, Any]
    sizes: dict[str, Any]
    training: dict[str, Any]


RUNS: dict[tuple[str, str], Run] = {
    ("transformer", "tinyshakespeare"): Run(
        {"notation": "characters", "length": 128},
        {"places": "rotary"},
        {"batch_size": 12, "optimiser": "adam", "learning_rate": 2e-3},
    ),
    ("wavenet", "spoken_digits"): Run(
        {"label_from": ["0", "1"]},
        {"conditional": True},
        {"batch_size": 4, "optimiser": "adam", "learning_rate": 2e-3},
    ),
}


def pair(text: str) -> tuple[str, Any]:
    """The two sides of NAME=VALUE; the value is a number where it can be read as one."""
    name, _, value = text.partition("=")
    try:
        return name, json.loads(value)
    except json.JSONDecodeError:
        return name, value


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("model")
    parser.add_argument("name", choices=tuple(dict.fromkeys(name for _, name in RUNS)))
    parser.add_argument("path")
    parser.add_argument("--minutes", type=float, default=10.0)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--sizes", nargs="*", type=pair, default=[], metavar="NAME=VALUE", help="in place of those in the table")
    parser.add_argument("--reading", nargs="*", type=pair, default=[], metavar="NAME=VALUE", help="likewise, of the data")
    parser.add_argument("--keep", help="folder for the run")
    options = parser.parse_args()
    torch.set_num_threads(1)
    run = RUNS[options.model, options.name]
    run = replace(run, data=run.data | dict(options.reading), sizes=run.sizes | dict(options.sizes))
    data = load_data(options.path, **run.data)
    torch.manual_seed(options.seed)
    model = build(options.model, data.spec, preset="small", **run.sizes)
    since = time.process_time()
    limits = {"minutes": options.minutes, "clock": "cpu"}
    source: dict[str, Any] = {"data_options": run.data}
    trained = fit(model, options.path, out=options.keep, seed=options.seed, progress=False, **source, **limits, **run.training)
    row: dict[str, Any] = {
        "model": options.model,
        "sizes": run.sizes,
        "parameters": sum(p.numel() for p in model.parameters()),
        "reading": run.data,
        "training": run.training,
        "seed": options.seed,
        "steps": trained.steps,
        "cpu_minutes": cpu_minutes(since),
    }
    since = time.process_time()
    result = evaluate(model, data)
    row |= {"evaluation_cpu_minutes": cpu_minutes(since), "status": result.status, "examples": result.examples}
    row |= {"nats_per_symbol": result.nats_per_symbol, "bits_per_dim": result.bits_per_dim, "bits_per_byte": result.bits_per_byte}
    if isinstance(data.notation, Text):
        row["sample"] = str(data.notation.decode(sample(model, 1, length=SHOWN, seed=options.seed)[0]))
    changed = "".join(f", {name} {value}" for name, value in (*options.reading, *options.sizes))
    Record(RESULTS / "sequences.json", __doc__.splitlines()[0]).add(
        f"{options.model}, {options.name}{changed}, {options.minutes:g} minutes, seed {options.seed}", row | {"data": data.note}
    )


if __name__ == "__main__":
    main()
