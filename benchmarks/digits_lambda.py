"""What does lambda do to the latents of an AGAVE, and what does its auxiliary loss add to a VAE with the same decoder?

The embedded digits. One decoder and one optimiser for all: a PixelCNN alone, a VAE with that PixelCNN and no auxiliary loss
(no annealing, no free bits), and AGAVE at five values of lambda; three seeds each, 1.5 CPU-minutes a run on one thread.

    python benchmarks/digits_lambda.py            # train and measure what is missing from the record (about half an hour)
    python benchmarks/digits_lambda.py --table    # the table and the figure of what is there
"""

from __future__ import annotations

import sys
import time
from pathlib import Path
from statistics import mean, stdev
from typing import Any

import torch
from matplotlib.figure import Figure
from record import Record, cpu_minutes

from ancestral.data import load_data
from ancestral.evaluation import evaluate
from ancestral.models import build
from ancestral.training import fit

RESULTS = Path(__file__).parent / "results"
MINUTES = 1.5
SEEDS = (0, 1, 2)
TRAINING: dict[str, Any] = {"clock": "cpu", "batch_size": 16, "progress": False}
MODELS: dict[str, tuple[str, dict[str, Any]]] = {
    "PixelCNN alone": ("gated-pixelcnn", {}),
    "no auxiliary loss": ("agave", {"auxiliary": False, "lambda_": 1.0}),
    **{f"AGAVE, lambda {value}": ("agave", {"lambda_": float(value)}) for value in (1, 2, 4, 8, 12)},
}
FIGURES = (
    "bits_per_dim",
    "nats",
    "iwae",
    "rate",
    "distortion",
    "shuffle_cost",
    "active_units",
    "mutual_information",
    "auxiliary",
)


def run(name: str, seed: int) -> dict[str, Any]:
    """Train and measure one model; its figures, in nats an example unless named otherwise."""
    kind, overrides = MODELS[name]
    data = load_data("digits")
    torch.manual_seed(seed)
    model = build(kind, data.spec, preset="small", **overrides)
    since = time.process_time()
    trained = fit(model, data, minutes=MINUTES, seed=seed, **TRAINING)
    spent = cpu_minutes(since)
    result = evaluate(model, data, importance_samples=50, subset=179).to_dict()
    figures = {figure: result[figure] for figure in FIGURES} | {"iwae": result["iwae"] and -result["iwae"]}
    return figures | {
        "status": result["status"],
        "nats_error": result["nats_error"],
        "verdict": result["verdict"],
        "seed": seed,
        "steps": trained.steps,
        "cpu_minutes": spent,
        "data": data.note,
    }


def table(rows: dict[str, dict[str, Any]]) -> str:
    """A Markdown table: the mean over seeds, and its standard error where there are several."""

    def cell(found: list[dict[str, Any]], figure: str, digits: int) -> str:
        values = [row[figure] for row in found if row.get(figure) is not None]
        if not values:
            return ""
        spread = f" ± {stdev(values) / len(values) ** 0.5:.{digits}f}" if len(values) > 1 else ""
        return f"{mean(values):.{digits}f}{spread}"

    columns = {"bits/dim": ("bits_per_dim", 3), "nats": ("nats", 2), "IWAE-50": ("iwae", 2), "rate": ("rate", 2)}
    columns |= {"distortion": ("distortion", 2), "shuffle cost": ("shuffle_cost", 2), "active units": ("active_units", 1)}
    lines = [f"| model | status | {' | '.join(columns)} |", "|---|---|" + "---|" * len(columns)]
    for name in MODELS:
        found = [rows[key] for key in rows if key.rsplit(", seed", 1)[0] == name]
        if found:
            cells = [cell(found, figure, digits) for figure, digits in columns.values()]
            lines.append(f"| {name} | {found[0]['status']} | {' | '.join(cells)} |")
    return "\n".join(lines)


def figure(rows: dict[str, dict[str, Any]]) -> Figure:
    """Bits/dim split into rate and distortion, and the shuffle cost, over lambda."""
    drawn = Figure(figsize=(9, 3.6), layout="constrained")
    left, right = drawn.subplots(1, 2)
    lambdas = [1, 2, 4, 8, 12]
    by = {value: [rows[key] for key in rows if key.startswith(f"AGAVE, lambda {value},")] for value in lambdas}
    for axis, name, label in (
        (left, "nats", "bound on nats a digit"),
        (right, "rate", "rate"),
        (right, "shuffle_cost", "shuffle cost"),
    ):
        values = [[row[name] for row in by[value]] for value in lambdas]
        error = [stdev(v) / len(v) ** 0.5 if len(v) > 1 else 0.0 for v in values]
        axis.errorbar(lambdas, [mean(v) for v in values], error, marker="o", capsize=3, label=label)
    alone = [row["nats"] for key, row in rows.items() if key.startswith("PixelCNN alone")]
    left.axhline(mean(alone), color="grey", linestyle="--", label="PixelCNN alone, exact")
    left.axhline(1.02 * mean(alone), color="grey", linestyle=":", label="2 % above it")
    left.set(xlabel="lambda", ylabel="nats", title="Likelihood")
    right.set(xlabel="lambda", ylabel="nats", title="What z carries")
    for axis in (left, right):
        axis.legend(frameon=False)
        axis.spines[["top", "right"]].set_visible(False)
    return drawn


def main() -> None:
    torch.set_num_threads(1)
    record = Record(RESULTS / "digits_lambda.json", __doc__.splitlines()[0])
    if "--table" not in sys.argv:
        for seed in SEEDS:
            for name in MODELS:
                key = f"{name}, seed {seed}"
                if key not in record:
                    record.add(key, run(name, seed))
    print(table(record.content["rows"]))
    figure(record.content["rows"]).savefig(RESULTS / "digits_lambda.png", dpi=120)


if __name__ == "__main__":
    main()
