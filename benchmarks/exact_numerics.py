"""What do the whole numbers of files cost in bits/dim, on trained models?

The exact twin (12-bit weights and activations, integer tables) against the model's own float32 figures, on the same test items
and, where there are latents, the same noise.

    python benchmarks/exact_numerics.py RUN DATA
"""

from __future__ import annotations

import argparse
from math import log
from pathlib import Path

import torch
from record import Record

from ancestral.data import load_data
from ancestral.evaluation import evaluate
from ancestral.hub import describe, load


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("run")
    parser.add_argument("data")
    parser.add_argument("--items", type=int, default=500)
    options = parser.parse_args()
    torch.set_num_threads(1)
    found = evaluate(
        load(options.run),
        load_data(options.data),
        importance_samples=0,
        subset=options.items,
        limit=options.items,
        numerics="exact",
    )
    assert found.exact_nats is not None and found.exact_cost is not None
    scale = log(2) * found.sites
    row = {
        "items": found.exact_examples,
        "status": found.status,
        "float_bits_per_dim": round((found.exact_nats - found.exact_cost) / scale, 5),
        "exact_bits_per_dim": round(found.exact_nats / scale, 5),
        "more_percent": round(100 * found.exact_cost / (found.exact_nats - found.exact_cost), 4),
        "more_error_percent": round(100 * (found.exact_cost_error or 0) / (found.exact_nats - found.exact_cost), 4),
    }
    key = f"{Path(options.data).stem}, {describe(Path(options.run))['model']}"
    Record(Path(__file__).parent / "results" / "exact_numerics.json", __doc__.splitlines()[0]).add(key, row)


if __name__ == "__main__":
    main()
