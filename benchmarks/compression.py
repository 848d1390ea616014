"""How small do files get, beside PNG, WebP and JPEG XL of the same images, xz and zstd of a text, FLAC of a sound?

A run compresses the first test items of real data into one ``.anc``, container included, which is decoded again and compared.
The classical codecs code every item by itself, lossless, and are decoded and compared too. Bits per sub-pixel.

Files of text or sound, or folders of them, are compressed by the command line, decoded by another process and compared byte for
byte; xz -9e and zstd -19 code them one by one and all together, and FLAC the samples of WAV files. Bytes.

    python benchmarks/compression.py RUN digits
    python benchmarks/compression.py RUN DATA/mnist.npz --items 1000
    python benchmarks/compression.py RUN DATA/cifar10.npz --items 1000
    python benchmarks/compression.py RUN DATA/input.txt --share 90 95
    python benchmarks/compression.py RUN DATA/sounds --items 100
"""

from __future__ import annotations

import argparse
import io
import json
import lzma
import os
import subprocess
import sys
import time
from collections.abc import Callable
from math import log
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import imagecodecs
import numpy as np
import soundfile
import torch
import zstandard
from record import Record
from torch import Tensor

from ancestral.coding.codec import decompress, write
from ancestral.coding.reader import Reader
from ancestral.data import load_data
from ancestral.hub import describe, load
from ancestral.spec import SEQUENCES
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


def classical_sizes(files: list[Path]) -> dict[str, int]:
    """The bytes that files take in codecs of everyday use."""
    contents = [path.read_bytes() for path in files]
    codecs: dict[str, Callable[[bytes], bytes]] = {
        "xz -9e": lambda data: lzma.compress(data, preset=9 | lzma.PRESET_EXTREME),
        "zstd -19": zstandard.ZstdCompressor(level=19).compress,
    }
    sizes = {name: sum(len(encode(data)) for data in contents) for name, encode in codecs.items()}
    if len(files) > 1:
        sizes |= {f"{name}, all together": len(encode(b"".join(contents))) for name, encode in codecs.items()}
    if all(path.suffix == ".wav" for path in files):
        sizes["FLAC"] = sum(map(flac_size, files))
    return sizes


def flac_size(path: Path) -> int:
    """The bytes of a sound as FLAC at its highest level, decoded and compared."""
    samples, rate = soundfile.read(str(path), dtype="int16")
    memory = io.BytesIO()
    soundfile.write(memory, samples, rate, format="FLAC", subtype="PCM_16", compression_level=1.0)
    if not np.array_equal(soundfile.read(io.BytesIO(memory.getvalue()), dtype="int16")[0], samples):
        raise SystemExit("FLAC does not give back what it was given")
    return len(memory.getvalue())


def chosen_files(source: Path, share: tuple[float, float], items: int, folder: Path) -> list[Path]:
    """The first files of a folder, or of one file the bytes between two hundredths of it, copied to where they are compressed."""
    found = sorted(path for path in source.rglob("*") if path.is_file())[:items] if source.is_dir() else [source]
    for path in found:
        data = path.read_bytes()
        low, high = (int(len(data) * each / 100) for each in (share if path is source else (0, 100)))
        copy = folder / (path.relative_to(source) if path is not source else path.name)
        copy.parent.mkdir(parents=True, exist_ok=True)
        copy.write_bytes(data[low:high])
    return sorted(path for path in folder.rglob("*") if path.is_file())


def coded_files(run: Path, files: list[Path], folder: Path, work: Path) -> dict[str, Any]:
    """Compress with one process, decode with another, and compare."""
    times, start = [], [sys.executable, "-m", "ancestral"]
    for words in (
        ["compress", run, folder, "--out", work / "x.anc", "--json"],
        ["decompress", work / "x.anc", "--model", run, "--out", work / "back", "--json"],
    ):
        before = os.times()
        told = subprocess.run([*start, *map(str, words), "--threads", "1"], check=True, capture_output=True, text=True).stdout
        after = os.times()
        times.append(round(after.children_user + after.children_system - before.children_user - before.children_system, 2))
    if json.loads(told)["files"] != len(files):
        raise SystemExit("files are missing")
    for path in files:
        if (work / "back" / path.relative_to(folder)).read_bytes() != path.read_bytes():
            raise SystemExit(f"{path.name} does not come back as it was")
    with (work / "x.anc").open("rb") as file:
        info = Reader(file).info()
    return {
        "original": sum(path.stat().st_size for path in files),
        "anc": info.size,
        "payload": info.payload,
        "overhead_bytes": info.overhead,
        "items": info.items,
        "item_symbols": info.header["spec"]["shape"][0],
        "encode_cpu_s": times[0],
        "decode_cpu_s": times[1],
    }


def sequences(options: argparse.Namespace) -> dict[str, Any]:
    """The row of files of text or sound."""
    with TemporaryDirectory() as name:
        folder, work = Path(name) / "files", Path(name)
        files = chosen_files(Path(options.data), tuple(options.share), options.items, folder)
        sizes = coded_files(Path(options.run), files, folder, work)
        return {"model": describe(Path(options.run))["model"], "files": len(files), **sizes, **classical_sizes(files)}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("run")
    parser.add_argument("data")
    parser.add_argument("--items", type=int, default=10_000)
    parser.add_argument("--share", type=float, nargs=2, default=(0, 100), help="of one file of text, in percent: from, to")
    options = parser.parse_args()
    torch.set_num_threads(1)
    record = Record(Path(__file__).parent / "results" / "compression.json", __doc__.splitlines()[0])
    if describe(Path(options.run))["spec"]["kind"] in SEQUENCES:
        row = sequences(options)
        record.add(f"{Path(options.data).stem}, {row['model']}", row)
        return
    model, data = load(options.run), load_data(options.data)
    x, levels = data.test.x[: options.items].long(), model.spec.levels or 2
    row = {"model": describe(Path(options.run))["model"], "items": len(x), **coded(model, x, data.train.x[:64].long())}
    values = x.double() * (255 / (levels - 1))
    images = values.round().to(torch.uint8).movedim(1, -1).squeeze(-1).numpy()
    for name in CLASSICAL:
        row[name] = round(8 * classical_bytes(name, images) / x.numel(), 4)
    key = f"{Path(options.data).stem}, {row['model']}"
    record.add(key, row)


if __name__ == "__main__":
    main()
