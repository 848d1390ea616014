"""Is Adam better than Adamax, which the papers use, for an AGAVE in the same CPU time?

The embedded digits, lambda 2, learning rate 0.002 for both, batches of 16, 1.5 CPU-minutes a run on one thread, two seeds.

    python benchmarks/optimiser.py
"""

from __future__ import annotations

import sys
import time
from pathlib import Path

import torch
from record import Record, cpu_minutes

from ancestral.data import load_data
from ancestral.evaluation import evaluate
from ancestral.models import build
from ancestral.training import fit

RUNS = [(name, seed) for seed in (0, 1) for name in ("adamax", "adam")]


def main() -> None:
    torch.set_num_threads(1)
    record = Record(Path(__file__).parent / "results" / "optimiser.json", __doc__.splitlines()[0])
    data = load_data("digits")
    for name, seed in RUNS:
        key = f"{name}, seed {seed}"
        if key in record or (len(sys.argv) > 1 and name not in sys.argv):
            continue
        torch.manual_seed(seed)
        model = build("agave", data.spec, lambda_=2.0)
        since = time.process_time()
        trained = fit(model, data, minutes=1.5, clock="cpu", seed=seed, batch_size=16, optimiser=name, progress=False)
        spent = cpu_minutes(since)
        result = evaluate(model, data, importance_samples=0)
        figures = {"nats": result.nats, "bits_per_dim": result.bits_per_dim, "status": result.status, "rate": result.rate}
        record.add(key, figures | {"steps": trained.steps, "seed": seed, "cpu_minutes": spent})


if __name__ == "__main__":
    main()
