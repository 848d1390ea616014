"""Where latents must collapse, where they need not, and what each remedy does about it: a toy whose optima are known.

Four pixels in a row: the first is a fair bit, the last repeats it, the two between are 0. One small decoder for all, a
`LocalPixelCNN` of the ``vlae`` preset ``tiny`` with two latent units: its window shows the decoder either everything before a
pixel or the one pixel before. Three seeds. By derivation, in nats an example:

- a decoder that sees everything needs no z: -ELBO = ln 2 at rate 0, the entropy; whatever z carries is paid for in vain;
- one that cannot see the first pixel at the last: 2 ln 2 at rate 0, ln 2 at rate ln 2 if z carries the bit free of errors. With
  one unit of a normal posterior and prior it cannot: the best (quadrature, below) is 0.9076 at rate 0.691; a mixture prior can;
- at a KL weight beta the bit costs beta ln 2 in z and 2 ln 2 outside, so z is empty from beta = 2 on, with normals too;
- a delta-VAE prior of two units with correlation 0.9 has a rate of at least 0.8304.

    python benchmarks/collapse.py            # run what is missing from the record (about five CPU-minutes)
    python benchmarks/collapse.py --table    # the table of what is there
"""

from __future__ import annotations

import sys
import time
from math import log
from pathlib import Path
from statistics import mean
from typing import Any

import torch
from record import Record, cpu_minutes

from ancestral.data.toys import collapse
from ancestral.evaluation import evaluate
from ancestral.models import build
from ancestral.training import fit

RESULTS = Path(__file__).parent / "results" / "collapse.json"
SEEDS = (0, 1, 2)
STEPS = 400
DECODER: dict[str, Any] = {"layers": 2, "channels": 16, "head": 16, "maps": 8, "width": 16, "prior": "normal", "kl_warmup": 0.0}
ALL, ONE = {**DECODER, "window": "9x1"}, {**DECODER, "window": "3x1"}  # pixels on the left: four, which is all, or one
AGAVE: dict[str, Any] = {"lambda_": 1.0, "first_kernel": 7, "channels": 8, "head": 8, "stream": 4}
BIT = log(2)

Row = tuple[str, dict[str, Any], dict[str, Any]]  # model, its settings, those of the training
ROWS: dict[str, Row] = {
    "sees all": ("vlae", ALL, {}),
    "sees one": ("vlae", ONE, {}),
    "sees one, annealing": ("vlae", {**ONE, "kl_warmup": 0.5}, {}),
    "sees one, annealing, beta 2.2": ("vlae", {**ONE, "kl_warmup": 0.5, "beta": 2.2}, {}),
    "sees one, annealing, mixture prior": ("vlae", {**ONE, "kl_warmup": 0.5, "prior": "mixture", "prior_components": 2}, {}),
    "sees one, cyclical annealing": ("vlae", {**ONE, "kl_warmup": 0.5, "kl_cycles": 4}, {}),
    "sees one, aggressive encoder": ("vlae", ONE, {"aggressive": 5}),
    "sees all, annealing": ("vlae", {**ALL, "kl_warmup": 0.5}, {}),
    "sees all, cyclical annealing": ("vlae", {**ALL, "kl_warmup": 0.5, "kl_cycles": 4}, {}),
    "sees all, aggressive encoder": ("vlae", ALL, {"aggressive": 5}),
    "sees all, beta 0.5": ("vlae", {**ALL, "beta": 0.5}, {}),
    "sees all, free bits 0.35 a unit": ("vlae", {**ALL, "free_bits": 0.35}, {}),
    "sees all, soft free bits ln 2": ("vlae", {**ALL, "soft_free_bits": BIT}, {}),
    "sees all, delta-VAE prior 0.9": ("vlae", {**ALL, "prior": "delta", "prior_correlation": 0.9}, {}),
    "sees all, decoder dropout 0.5": ("vlae", {**ALL, "decoder_dropout": 0.5}, {}),
    "sees all, auxiliary image": ("agave", AGAVE, {}),
}
DERIVED: dict[str, str] = {
    "sees all": f"{BIT:.4f} at rate 0",
    "sees one": f"{2 * BIT:.4f} at rate 0 is a saddle",
    "sees one, annealing, beta 2.2": f"{2 * BIT:.4f} at rate 0",
    "sees one, annealing, mixture prior": f"{BIT:.4f} at rate {BIT:.4f}",
    "sees all, delta-VAE prior 0.9": "rate at least 0.8304",
    "sees all, soft free bits ln 2": f"rate {BIT:.4f}",
    "sees all, free bits 0.35 a unit": "rate at least 0.70 at no charge",
}


def best() -> tuple[float, float]:
    """Rate and distortion of the best -ELBO of one unit with posteriors N(+-m, s^2) and prior N(0, 1), from a grid of m and s.

    Each of the two pixels costs the entropy of the bit given z, from quadrature over z.
    """
    m, log_s = torch.linspace(0, 1.5, 151)[:, None], torch.linspace(-1.5, 0, 151)
    points, s = torch.linspace(-8, 8, 401), log_s.exp()
    odds = 2 * m[..., None] * (m[..., None] + s[:, None] * points) / s[:, None] ** 2
    distortion = 2 * torch.nn.functional.softplus(-odds) @ torch.softmax(-(points**2) / 2, 0)
    rate = (m**2 + s**2 - 1) / 2 - log_s
    place = int((rate + distortion).argmin())
    return float(rate.flatten()[place]), float(distortion.flatten()[place])


def run(name: str, seed: int) -> dict[str, Any]:
    """Train and measure one model; figures in nats an example."""
    data = collapse((1, 1, 4)).splits(train=512, validation=128, test=512)
    kind, settings, training = ROWS[name]
    since = time.process_time()
    torch.manual_seed(seed)
    model = build(kind, data.spec, preset="tiny", **settings)
    usual: dict[str, Any] = {"steps": STEPS, "batch_size": 64, "learning_rate": 1e-2, "ema": 0.9, "progress": False, "seed": seed}
    fit(model, data, **usual, **training)
    found = evaluate(model, data, importance_samples=0, batch_size=256)
    figures = {"nats": found.nats, "rate": found.rate, "distortion": found.distortion, "shuffle_cost": found.shuffle_cost}
    figures["mutual_information"] = found.mutual_information
    rounded = {key: None if value is None else round(value, 4) for key, value in figures.items()}
    return {**rounded, "verdict": (found.verdict or "").split(":")[0], "seed": seed, "cpu_minutes": cpu_minutes(since)}


def table(rows: dict[str, dict[str, Any]]) -> str:
    """A Markdown table, derived numbers beside the measured ones: mean and range over the seeds."""

    def cell(found: list[dict[str, Any]], figure: str) -> str:
        values = [row[figure] for row in found]
        return f"{mean(values):.3f} ({min(values):.2f} to {max(values):.2f})"

    columns = {"-ELBO": "nats", "rate": "rate", "distortion": "distortion", "shuffle cost": "shuffle_cost"}
    lines = [f"| decoder and remedy | {' | '.join(columns)} | derived -ELBO |", "|---|" + "---|" * (len(columns) + 1)]
    rate, distortion = best()
    normal = f"{rate + distortion:.4f} at rate {rate:.4f}, normal posterior"
    for name in ROWS:
        found = [rows[key] for key in rows if key.rsplit(", seed", 1)[0] == name]
        if found:
            derived = DERIVED.get(name, normal if name.startswith("sees one") else DERIVED["sees all"])
            lines.append(f"| {name} | {' | '.join(cell(found, figure) for figure in columns.values())} | {derived} |")
    return "\n".join(lines)


def main() -> None:
    torch.set_num_threads(1)
    record = Record(RESULTS, __doc__.splitlines()[0])
    if "--table" not in sys.argv:
        for seed in SEEDS:
            for name in ROWS:
                key = f"{name}, seed {seed}"
                if key not in record:
                    record.add(key, run(name, seed))
    print(table(record.content["rows"]))


if __name__ == "__main__":
    main()
