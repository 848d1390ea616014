"""How much faster is cached sampling than recomputing the network at every pixel, in plain PyTorch?

28x28 grey images, 256 levels, Gated PixelCNN of 7 layers and 64 channels, the same weights and the same run, one thread, CPU
time. A cached image is walked whole. Recomputation costs the same at every pixel, so its first pixels are timed and scaled up.

    python benchmarks/sampling_speed.py
"""

from __future__ import annotations

import time
from pathlib import Path
from statistics import median

import torch
from record import Record

from ancestral.core import Autoregressive, Conditional, Network
from ancestral.draw import Draw
from ancestral.models import build
from ancestral.spec import DataSpec

REPEATS = 5
RECOMPUTED = {1: 16, 16: 4}  # pixels of the slow walk that are timed, by batch size


def cached_seconds(model: Autoregressive, batch: int) -> float:
    start = time.process_time()
    model.walk(batch).run(Draw(seed=0))
    return time.process_time() - start


@torch.no_grad()
def recomputed_seconds(model: Autoregressive, batch: int) -> float:
    """The seconds that a walk would take whose every step is a forward pass over the whole image."""
    draw, pixels = Draw(seed=0), RECOMPUTED[batch]
    start = time.process_time()
    parameters, state = Network.start(model.network, batch)
    for site in range(pixels):
        parameters, state = Network.step(model.network, state, draw(site, Conditional(model.family, parameters)))
    return (time.process_time() - start) / (pixels + 1) * len(model.network.order.sites)


def main() -> None:
    torch.set_num_threads(1)
    torch.manual_seed(0)
    sizes = {"layers": 7, "channels": 64, "head": 128, "family": "categorical"}
    model = build("gated-pixelcnn", DataSpec("image", (1, 28, 28), levels=256), **sizes)
    record = Record(Path(__file__).parent / "results" / "sampling_speed.json", __doc__.splitlines()[0])
    for batch in RECOMPUTED:
        pairs = [(cached_seconds(model, batch), recomputed_seconds(model, batch)) for _ in range(REPEATS)]
        cached, slow = (median(side) for side in zip(*pairs, strict=True))
        ratio = median(slow / fast for fast, slow in pairs)
        record.add(f"batch {batch}", {"cached_s": round(cached, 4), "recomputed_s": round(slow, 2), "ratio": round(ratio, 1)})


if __name__ == "__main__":
    main()
