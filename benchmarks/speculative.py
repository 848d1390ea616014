"""How many proposals of a small draft does a model keep, and what does speculative sampling gain?

Two trained runs of the same symbols. Texts drawn alone, one thread, CPU time, medians of pairs with plain sampling in one run.

    python benchmarks/speculative.py RUN DRAFT [--length 512]
"""

from __future__ import annotations

import argparse
import time
from pathlib import Path
from statistics import median
from typing import Any

import torch
from record import Record

import ancestral
from ancestral.hub import load
from ancestral.walking.engines import refusal

REPEATS = 5


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("run")
    parser.add_argument("draft")
    parser.add_argument("--length", type=int, default=512)
    options = parser.parse_args()
    torch.set_num_threads(1)
    model, draft = load(options.run), load(options.draft)
    sizes = [sum(p.numel() for p in each.parameters()) for each in (model, draft)]
    record = Record(Path(__file__).parent / "results" / "speculative.json", __doc__.splitlines()[0])
    native = refusal(model.network.lowered(), model.network.anchor) is None
    for engine in ("eager", "native") if native else ("eager",):
        ancestral.sample(model, 1, length=options.length, engine=engine)
        for gamma in (1, 2, 4, 8):
            pairs, rounds = [], []
            for seed in range(REPEATS):
                begun = time.process_time()
                ancestral.sample(model, 1, length=options.length, engine=engine, seed=seed)
                plain = time.process_time()
                rounds.append(
                    ancestral.speculative_sample(model, draft, 1, gamma=gamma, length=options.length, engine=engine, seed=seed)
                )
                pairs.append((plain - begun, time.process_time() - plain))
            judged, accepted, calls = (sum(getattr(each, name) for each in rounds) for name in ("judged", "accepted", "calls"))
            row: dict[str, Any] = {"parameters": sizes[0], "draft_parameters": sizes[1], "symbols": options.length}
            row |= {"acceptance": round(accepted / judged, 3), "symbols_per_call": round(judged / calls, 2)}
            row |= {"plain_s": round(median(a for a, _ in pairs), 3), "speculative_s": round(median(b for _, b in pairs), 3)}
            row["gain"] = round(median(a / b for a, b in pairs), 2)
            record.add(f"{Path(options.run).name} with {Path(options.draft).name}, {engine}, gamma {gamma}", row)


if __name__ == "__main__":
    main()
