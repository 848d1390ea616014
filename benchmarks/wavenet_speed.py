"""How many samples a second does a cached WaveNet draw, in each engine and numerics, and what does its likelihood take?

The shape that public implementations are timed with: 10 layers x 3 cycles, 32 features, 256 of the skip and head, 256 levels,
3,070 samples seen. One thread, CPU time, of whole walks with the draw; median and best of several. Of two bytes a sample, samples
are counted, not symbols.

    python benchmarks/wavenet_speed.py [ROW ...]
"""

from __future__ import annotations

import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from typing import Any

import torch
from record import Record

from ancestral.core import Autoregressive
from ancestral.draw import Draw
from ancestral.models import build
from ancestral.sampling import sample
from ancestral.spec import DataSpec
from ancestral.walking.engines import Lowered
from ancestral.walking.twin import twin


@dataclass(frozen=True)
class Row:
    """What is timed: a walk of so many samples, or with ``likelihood`` all of them at once."""

    engine: str
    samples: int
    batch: int = 1
    parts: int = 1
    exact: bool = False
    likelihood: bool = False
    repeats: int = 7


ROWS = {
    "native, batch 1": Row("native", 16000),
    "native, batch 16": Row("native", 4000, 16),
    "native, two bytes": Row("native", 16000, parts=2),
    "native, whole numbers": Row("native", 16000, exact=True),
    "eager, batch 1": Row("eager", 4000, repeats=5),
    "eager, batch 16": Row("eager", 2000, 16, repeats=5),
    "forward pass": Row("torch", 16000, likelihood=True),
    "native likelihood": Row("native", 16000, likelihood=True),
    "native likelihood, batch 16": Row("native", 4000, 16, likelihood=True),
    "native likelihood, whole numbers": Row("native", 16000, exact=True, likelihood=True),
}


def model_of(row: Row) -> Autoregressive:
    """The shape, with fresh weights."""
    torch.manual_seed(0)
    spec = DataSpec("audio", (row.samples * row.parts,), levels=256, parts=row.parts)
    sizes: dict[str, Any] = {"layers": 10, "cycles": 3, "channels": 32, "gates": 32, "skip": 256, "head": 256}
    model = build("wavenet", spec, preset="small", **sizes)
    if not isinstance(model, Autoregressive):
        raise TypeError("a WaveNet has no latents")
    return model.eval()


def work_of(row: Row, model: Autoregressive) -> Callable[[], object]:
    """What is timed."""
    x = torch.randint(256, (row.batch, row.samples * row.parts))
    if row.exact:
        likelihood = twin(model, x, row.engine).likelihood
        whole: Any = likelihood.network
        return (lambda: whole(x)) if row.likelihood else lambda: whole.run(row.batch, None, likelihood.family, Draw(seed=0))
    if not row.likelihood:
        return lambda: sample(model, row.batch, seed=0, engine=row.engine)
    source: Any = model.network
    network = source if row.engine == "torch" else Lowered(source, 256, row.engine)
    return lambda: network(x)


@torch.no_grad()
def main() -> None:
    torch.set_num_threads(1)
    record = Record(Path(__file__).parent / "results" / "wavenet_speed.json", __doc__.splitlines()[0])
    for name in sys.argv[1:] or ROWS:
        row = ROWS[name]
        model = model_of(row)
        work, seconds = work_of(row, model), []
        work()  # compiles, and lowers
        for _ in range(row.repeats):
            start = time.process_time()
            work()
            seconds.append(time.process_time() - start)
        total = row.samples * row.batch
        figures = {"engine": row.engine, "batch": row.batch, "samples": row.samples, "parts": row.parts, "exact": row.exact}
        figures |= {"parameters": sum(p.numel() for p in model.parameters())}
        figures |= {"us_per_step": round(median(seconds) / row.samples * 1e6, 1)}
        figures |= {"samples_per_s": round(total / median(seconds)), "best_samples_per_s": round(total / min(seconds))}
        record.add(name, figures)


if __name__ == "__main__":
    main()
