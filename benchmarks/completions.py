"""What do completions look like, and how far can they be trusted, by the mask and by the model?

Ten test images at even distances; top half, left half, all but a hole in the middle, and every second pixel are known. One sheet
a model: for each mask what is known, three completions, and the truth. The record tells their status, and of particles their
effective sample size (of all at the end, and the least on the way) and the mean log-probability of what is known.

    python benchmarks/completions.py DATA/binarized_mnist.npz RUN ... [--particles 256]
"""

from __future__ import annotations

import argparse
import time
from pathlib import Path
from typing import Any

import numpy as np
import torch
from record import Record
from torch import Tensor

from ancestral.data import load_data
from ancestral.hub import describe, load
from ancestral.report.images import grid, pixels, save_png
from ancestral.sampling import complete

RESULTS = Path(__file__).parent / "results"
ITEMS, EACH = 10, 3


def masks(height: int, width: int) -> dict[str, Tensor]:
    """(H, W) booleans by name, True where a pixel is known."""
    r, c = torch.meshgrid(torch.arange(height), torch.arange(width), indexing="ij")
    middle = (r >= height // 4) & (r < height - height // 4) & (c >= width // 4) & (c < width - width // 4)
    return {"top half": r < height // 2, "left half": c < width // 2, "hole": ~middle, "every second": (r + c) % 2 == 0}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("data")
    parser.add_argument("runs", nargs="+")
    parser.add_argument("--particles", type=int, default=256)
    options = parser.parse_args()
    torch.set_num_threads(1)
    data = load_data(options.data)
    x = data.test.x[:: len(data.test) // ITEMS][:ITEMS].long()
    whole = pixels(x, data.spec.levels)
    record = Record(RESULTS / "completions.json", __doc__.splitlines()[0])
    for run in options.runs:
        name, blocks = describe(Path(run))["model"], []
        for mask, known in masks(*x.shape[2:]).items():
            since = time.process_time()
            done = complete(load(run), x.repeat_interleave(EACH, 0), known, particles=options.particles, batch_size=256)
            row: dict[str, Any] = {"status": done.status, "cpu_s": round(time.process_time() - since, 1)}
            row["log_evidence"] = round(float(done.log_evidence.mean()), 2)
            if done.effective_sample_size is not None and done.least is not None:
                row |= {"particles": done.particles, "effective": round(float(done.effective_sample_size.mean()), 1)}
                row |= {"least_effective": round(float(done.least.min()), 1)}
            record.add(f"{name}, {mask}", row)
            veiled = np.where(known[..., None].numpy(), whole, np.uint8(128))
            drawn = pixels(done.x, data.spec.levels).reshape(ITEMS, EACH, *whole.shape[1:])
            blocks.append(np.concatenate([veiled[:, None], drawn, whole[:, None]], 1))
        sheet = np.concatenate(blocks, 1).reshape(-1, *whole.shape[1:])
        save_png(RESULTS / f"completions_{name}.png", grid(sheet, columns=len(blocks) * (EACH + 2)))


if __name__ == "__main__":
    main()
