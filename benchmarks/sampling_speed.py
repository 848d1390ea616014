"""How much faster is cached sampling than recomputing the network for every symbol, model by model?

The same weights and the same run, one thread, CPU time, medians of pairs. A cached image is walked whole, in plain PyTorch
(eager) or by the native engine. Recomputation costs the same for every symbol, so its first ones are timed and scaled up.

    python benchmarks/sampling_speed.py [ROW ...]
"""

from __future__ import annotations

import sys
import time
from dataclasses import dataclass, field
from pathlib import Path
from statistics import median
from typing import Any

import torch
from record import Record

from ancestral.core import Autoregressive, Conditional, Network
from ancestral.draw import Draw
from ancestral.models import build
from ancestral.sampling import sample
from ancestral.spec import DataSpec


@dataclass(frozen=True)
class Row:
    """A model, how it is walked, and how much of the slow walk is timed."""

    model: str
    spec: DataSpec
    batch: int = 1
    engine: str = "native"
    preset: str = "small"
    sizes: dict[str, Any] = field(default_factory=dict)
    recomputed: int = 16
    repeats: int = 5


BINARY, GREY, COLOUR = (
    DataSpec("image", (1, 28, 28), levels=2),
    DataSpec("image", (1, 28, 28), levels=256),
    DataSpec("image", (3, 32, 32), levels=256),
)
SEVEN = {"layers": 7, "channels": 64, "head": 128, "family": "categorical"}
ROWS = {
    "batch 1": Row("gated-pixelcnn", GREY, engine="eager", sizes=SEVEN),
    "batch 16": Row("gated-pixelcnn", GREY, 16, "eager", sizes=SEVEN, recomputed=4),
    "nade": Row("nade", BINARY),
    "made": Row("made", BINARY, recomputed=40),
    "pixelcnn": Row("pixelcnn", GREY),
    "pixelcnn++": Row("pixelcnn++", COLOUR),
    "pixelcnn++ paper": Row("pixelcnn++", COLOUR, engine="eager", preset="paper", recomputed=2, repeats=3),
    "row-lstm": Row("row-lstm", BINARY),
    "diagonal-bilstm": Row("diagonal-bilstm", BINARY),
}


def cached_seconds(model: Autoregressive, row: Row) -> float:
    start = time.process_time()
    sample(model, row.batch, seed=0, engine=row.engine)
    return time.process_time() - start


@torch.no_grad()
def recomputed_seconds(model: Autoregressive, row: Row) -> float:
    """The seconds that a walk would take whose every step is a forward pass over the whole image."""
    draw, sites = Draw(seed=0), model.network.order.sites
    start = time.process_time()
    parameters, state = Network.start(model.network, row.batch)
    for i in range(row.recomputed):
        parameters, state = Network.step(model.network, state, draw(sites[i], Conditional(model.family, parameters)))
    return (time.process_time() - start) / (row.recomputed + 1) * len(sites)


def main() -> None:
    torch.set_num_threads(1)
    record = Record(Path(__file__).parent / "results" / "sampling_speed.json", __doc__.splitlines()[0])
    for name in sys.argv[1:] or ROWS:
        row = ROWS[name]
        torch.manual_seed(0)
        model = build(row.model, row.spec, preset=row.preset, **row.sizes).eval()
        cached_seconds(model, row)  # compiles, and lowers
        pairs = [(cached_seconds(model, row), recomputed_seconds(model, row)) for _ in range(row.repeats)]
        cached, slow = (median(side) for side in zip(*pairs, strict=True))
        ratio = median(slow / fast for fast, slow in pairs)
        figures = {"model": row.model, "preset": row.preset, "batch": row.batch, "engine": row.engine}
        figures |= {"parameters": sum(p.numel() for p in model.parameters())}
        record.add(name, figures | {"cached_s": round(cached, 4), "recomputed_s": round(slow, 2), "ratio": round(ratio, 1)})


if __name__ == "__main__":
    main()
