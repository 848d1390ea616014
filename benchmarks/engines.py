"""How fast is each engine, against one PyTorch forward pass of the same batch?

Gated PixelCNNs of 7 layers with random weights: 64 and 128 channels; 28x28 grey with a softmax over 256 levels, and 32x32 colour
with a mixture of 5 logistics. Whole images are sampled, drawing included, in float32 and in exact numerics; "parallel" computes
the parameters of all sites at once. One thread, CPU time. Every repetition times the forward pass anew, just before, and a ratio
is the median of the repetitions'. Recomputation is one forward pass a symbol. A plain forward pass of the same architecture can
be timed beside ours: --plain names a file whose ``build(colours, channels)`` makes the plain network of (n, C, H, W) floats.

With --coding, encoding and decoding are timed over sampling with the same engine and numerics; with --threads, two threads are
compared with one, by wall time.

    python benchmarks/engines.py
    python benchmarks/engines.py --only 64 --batches 1 16
"""

from __future__ import annotations

import argparse
import importlib.util
import time
from collections.abc import Callable
from pathlib import Path
from statistics import median
from typing import Any

import torch
from record import Record
from torch import nn

from ancestral.coding import codec
from ancestral.core import Autoregressive
from ancestral.draw import Draw
from ancestral.models import build
from ancestral.spec import DataSpec
from ancestral.walking.engines import Lowered
from ancestral.walking.twin import twin

RECORD = Record(Path(__file__).parent / "results" / "engines.json", __doc__.splitlines()[0])
IMAGES = {"28x28x1": (1, 28, 28), "32x32x3": (3, 32, 32)}
Work = Callable[[], Any]


def seconds(work: Work, clock: Callable[[], float] = time.process_time) -> float:
    start = clock()
    work()
    return clock() - start


def ratios(works: dict[str, Work], repeats: int) -> dict[str, float]:
    """The median time of each work over that of the first, which is timed before each."""
    [(name, first), *others] = works.items()
    found: dict[str, list[float]] = {other: [] for other, _ in others}
    firsts = []
    for _, work in [*works.items()]:
        work()  # what is done only once is not counted
    for _ in range(repeats):
        for other, work in others:
            firsts.append(seconds(first))
            found[other].append(seconds(work) / firsts[-1])
    return {f"{name}_ms": round(1e3 * median(firsts), 2)} | {other: round(median(each), 3) for other, each in found.items()}


@torch.inference_mode()
def compared(model: Autoregressive, plain: nn.Module | None, batch: int, repeats: int) -> dict[str, float]:
    network, family, levels = model.network, model.family, model.spec.levels or 2
    x, draw = torch.randint(levels, (batch, *network.shape)), Draw(0)
    scaled = x.float() * (2 / (levels - 1)) - 1
    fast, exact = Lowered(network, levels, "native"), twin(model, x, "native").likelihood
    works: dict[str, Work] = {
        "forward": lambda: network(x),
        "native": lambda: fast.run(batch, None, family, draw),
        "native parallel": lambda: fast(x),
        "exact": lambda: exact.network.run(batch, None, exact.family, draw),
        "exact parallel": lambda: exact.network(x),
        "eager": lambda: model.walk(batch).run(draw),
    }
    if plain is not None:
        works["plain forward"] = lambda: plain(scaled)
    if batch > 16:
        del works["eager"]
    return ratios(works, repeats)


@torch.inference_mode()
def coding(model: Autoregressive, batch: int, repeats: int) -> dict[str, float]:
    """Encoding and decoding, over sampling, all in exact numerics by the native engine."""
    x, draw = torch.randint(model.spec.levels or 2, (batch, *model.network.shape)), Draw(0)
    exact = twin(model, x, "native")
    drawn = exact.likelihood.network.run(batch, None, exact.likelihood.family, draw)
    payload = codec.encoded(exact, drawn)
    works: dict[str, Work] = {
        "sampling": lambda: exact.likelihood.network.run(batch, None, exact.likelihood.family, draw),
        "encoding": lambda: codec.encoded(exact, drawn),
        "decoding": lambda: codec.payload_items(exact, payload, batch),
    }
    return ratios(works, repeats)


def threaded(model: Autoregressive, batch: int, repeats: int) -> dict[str, float]:
    """Wall time with two threads over that with one."""
    levels, x = model.spec.levels or 2, torch.randint(model.spec.levels or 2, (batch, *model.network.shape))
    works: dict[str, Work] = {}
    for threads in (1, 2):
        fast = Lowered(model.network, levels, "native", threads)
        exact = twin(model, x, "native", threads).likelihood
        works[f"native {threads}"] = lambda fast=fast: fast.run(batch, None, model.family, Draw(0))
        works[f"exact {threads}"] = lambda exact=exact: exact.network.run(batch, None, exact.family, Draw(0))
    for work in works.values():
        work()
    times = {name: median(seconds(work, time.perf_counter) for _ in range(repeats)) for name, work in works.items()}
    return {f"{kind}, one thread over two": round(times[f"{kind} 1"] / times[f"{kind} 2"], 2) for kind in ("native", "exact")}


def plain_network(path: str | None, colours: int, channels: int) -> nn.Module | None:
    if path is None:
        return None
    spec = importlib.util.spec_from_file_location("plain", path)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    made: nn.Module = module.build(colours, channels)
    return made.eval()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--only", type=int, nargs="*", default=[64, 128], help="channels")
    parser.add_argument("--images", nargs="*", default=list(IMAGES))
    parser.add_argument("--batches", type=int, nargs="*", default=[1, 16, 64])
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--plain")
    parser.add_argument("--coding", action="store_true", help="time encoding and decoding instead")
    parser.add_argument("--threads", action="store_true", help="compare two threads with one instead")
    options = parser.parse_args()
    torch.set_num_threads(1)
    for channels in options.only:
        for image in options.images:
            shape = IMAGES[image]
            torch.manual_seed(0)
            family = {"family": "categorical"} if shape[0] == 1 else {"family": "logistic", "components": 5}
            sizes = {"layers": 7, "channels": channels, "head": 128}
            model = build("gated-pixelcnn", DataSpec("image", shape, levels=256), **sizes, **family).eval()
            for batch in options.batches:
                key = f"{image}, {channels} channels, batch {batch}"
                if options.threads:
                    RECORD.add(f"{key}, threads", threaded(model, batch, options.repeats))
                    continue
                if options.coding:
                    RECORD.add(f"{key}, coding", coding(model, batch, options.repeats))
                    continue
                plain = plain_network(options.plain, shape[0], channels)
                row = compared(model, plain, batch, options.repeats)
                sites = len(model.network.order.sites)
                row |= {f"recompute over {kind}": round(sites / row[kind], 1) for kind in ("native", "eager") if kind in row}
                RECORD.add(key, row)


if __name__ == "__main__":
    main()
