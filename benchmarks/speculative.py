"""How many proposals of a small draft does a model keep, and what does speculative sampling gain?

Two trained runs of the same symbols. Texts drawn alone, one thread, CPU time, medians of pairs with plain sampling in one run.
Without runs: a GPT-2 of the smallest published size with random weights and its own first block as draft, which says nothing of
acceptance, but shows the gain where the model is what costs.

    python benchmarks/speculative.py RUN DRAFT [--length 512]
    python benchmarks/speculative.py --length 64
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
from ancestral.hub import Model, load
from ancestral.walking.engines import refusal

REPEATS = 5


def random_pair(length: int) -> tuple[Model, Model]:
    """A GPT-2 of random weights, and what is left of it without the blocks after the first."""
    torch.manual_seed(0)
    spec = ancestral.DataSpec("text", (length,), levels=256)
    model, draft = (ancestral.build("transformer", spec, preset="paper", layers=layers, dropout=0.0) for layers in (12, 1))
    draft.load_state_dict({name: model.state_dict()[name] for name in draft.state_dict()})
    return model.eval(), draft.eval()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("run", nargs="?")
    parser.add_argument("draft", nargs="?")
    parser.add_argument("--length", type=int, default=512)
    options = parser.parse_args()
    torch.set_num_threads(1)
    runs = [options.run, options.draft]
    model, draft = random_pair(options.length) if None in runs else (load(runs[0]), load(runs[1]))
    names = ["GPT-2, random weights", "its first block"] if None in runs else [Path(run).name for run in runs]
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
            record.add(f"{names[0]} with {names[1]}, {engine}, gamma {gamma}", row)


if __name__ == "__main__":
    main()
