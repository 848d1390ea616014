"""How small do files get, beside PNG, WebP and JPEG XL of the same items?

A run compresses the first test items of real data into one ``.anc``, container included, which is decoded again and compared.
The classical codecs code every item by itself, lossless, and are decoded and compared too. Bits per sub-pixel.

    python benchmarks/compression.py RUN digits
    python benchmarks/compression.py RUN DATA/mnist.npz --items 1000
    python benchmarks/compression.py RUN DATA/cifar10.npz --items 1000
"""

from __future__ import annotations

import argparse
import io
import time
from collections.abc import Callable
from math import log
from pathlib import Path
from typing import Any

import imagecodecs
import numpy as np
import torch
from record import Record
from torch import Tensor

from ancestral.coding.codec import decompress, write
from ancestral.coding.reader import Reader
from ancestral.data import load_data
from ancestral.hub import describe, load
from ancestral.walking.native.compiling import warmup
from ancestral.walking.twin import twin

CLASSICAL: dict[str, tuple[Callable[..., bytes], Callable[[bytes], Any]]] = {
    "PNG": (lambda x: imagecodecs.png_encode(x, level=9), imagecodecs.png_decode),
    "WebP": (lambda x: imagecodecs.webp_encode(x, lossless=True, level=6), imagecodecs.webp_decode),
    "JPEG XL effort 7": (lambda x: imagecodecs.jpegxl_encode(x, lossless=True, effort=7), imagecodecs.jpegxl_decode),
}


def classical_bytes(name: str, images: np.ndarray) -> int:
    """The bytes of all (n, H, W) grey or (n, H, W, 3) colour images, each by itself, decoded and compared."""
    encode, decode = CLASSICAL[name]
    grey = images.ndim == 3
    total = 0
    for image in images:
        given = np.ascontiguousarray(np.stack([image] * 3, -1) if grey and name == "WebP" else image)  # it has no grey
        data = encode(given)
        if not np.array_equal(np.asarray(decode(data)).reshape(given.shape), given):
            raise SystemExit(f"{name} does not give back what it was given")
        total += len(data)
    return total


def coded(model: Any, x: Tensor, examples: Tensor) -> dict[str, Any]:
    """Compress, decode and compare; sizes, times and what the exact twin says that it should take."""
    warmup(exact=True)  # what is compiled once a machine is no part of coding
    file, since = io.BytesIO(), time.process_time()
    write(file, model, x, examples=examples)
    encoding, data = time.process_time() - since, file.getvalue()
    since = time.process_time()
    same = torch.equal(decompress(model, data), x)
    decoding = time.process_time() - since
    if not same:
        raise SystemExit("the file does not decode to what was compressed")
    info, sites = Reader(data).info(), x[0].numel()
    ideal = float(twin(model, examples).cost(x).sum()) / log(2)
    scale = len(x) * sites
    return {
        "anc": round(8 * len(data) / scale, 4),
        "payload": round(8 * info.payload / scale, 4),
        "exact model, one z": round(ideal / scale, 4),
        "blocks": len(info.blocks),
        "overhead_bytes": info.overhead,
        "encode_cpu_s": round(encoding, 2),
        "decode_cpu_s": round(decoding, 2),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("run")
    parser.add_argument("data")
    parser.add_argument("--items", type=int, default=10_000)
    options = parser.parse_args()
    torch.set_num_threads(1)
    model, data = load(options.run), load_data(options.data)
    x, levels = data.test.x[: options.items].long(), model.spec.levels or 2
    row = {"model": describe(Path(options.run))["model"], "items": len(x), **coded(model, x, data.train.x[:64].long())}
    values = x.double() * (255 / (levels - 1))
    images = values.round().to(torch.uint8).movedim(1, -1).squeeze(-1).numpy()
    for name in CLASSICAL:
        row[name] = round(8 * classical_bytes(name, images) / x.numel(), 4)
    key = f"{Path(options.data).stem}, {row['model']}"
    Record(Path(__file__).parent / "results" / "compression.json", __doc__.splitlines()[0]).add(key, row)


if __name__ == "__main__":
    main()
