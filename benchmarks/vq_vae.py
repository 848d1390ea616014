"""What do the codes of a VQ-VAE cost, and x given them, with a PixelCNN and with a Transformer as their prior?

MNIST with 256 levels, and CIFAR-10; seed 0, one thread. A row has 30 CPU-minutes: the first half for encoder, codebook and
decoder, which the priors of a data set share, the second for one prior. The bound on all test images, in bits: of the codes, and
of x given them; how many codes are in use, and their perplexity; 1,000 test images as a file, decoded and compared, and the part
of it that the codes alone take. Sheets, in rows of 16: samples, the means of x given their codes, test images and the means given
theirs; twice.

    python benchmarks/vq_vae.py mnist DATA/mnist.npz RUNS
    python benchmarks/vq_vae.py cifar10 DATA/cifar10.npz RUNS --only transformer
"""

from __future__ import annotations

import argparse
import time
from math import log
from pathlib import Path
from typing import Any

import torch
from record import Record, cpu_minutes

import ancestral
from ancestral.data import load_data
from ancestral.data.splits import Splits
from ancestral.evaluation import evaluate
from ancestral.evaluation.latents import Uses
from ancestral.hub import load
from ancestral.latent.latent import Latent
from ancestral.models import build
from ancestral.report.images import grid, pixels, save_png
from ancestral.sampling import decoded_means, sample
from ancestral.sampling.strategies import Rows
from ancestral.training import fit
from ancestral.walking.native.compiling import warmup

RESULTS = Path(__file__).parent / "results"
MINUTES = 30.0
PRIORS: dict[str, dict[str, Any]] = {"gated-pixelcnn": {}, "transformer": {"prior_channels": 64}}
SIZES: dict[str, dict[str, Any]] = {"mnist": {"codes": 64}, "cifar10": {"depth": 4}}
FIRST: dict[str, Any] = {"batch_size": 16, "learning_rate": 1e-3, "precision": "bf16", "channels_last": True}
SECOND: dict[str, Any] = {"batch_size": 32, "learning_rate": 2e-3}
SHARED = ("topdown.encoder", "topdown.quantizer", "topdown.decoder", "likelihood")
FILED = 1000  # images that are compressed


def made(name: str, data: Splits, **overrides: Any) -> Latent:
    torch.manual_seed(0)
    return build("vq-vae", data.spec, preset="small", **SIZES[name], **overrides)  # type: ignore[return-value]


def coded(name: str, data: Splits, path: str, folder: Path, minutes: float) -> None:
    """Train encoder, codebook and decoder."""
    fit(made(name, data, prior="uniform"), path, out=folder, minutes=minutes, clock="cpu", progress=False, **FIRST)


def with_prior(name: str, prior: str, data: Splits, path: str, start: Path, folder: Path, minutes: float) -> dict[str, Any]:
    """Train a prior of the codes of a model, into a folder; what that took."""
    model, taken = made(name, data, prior=prior, prior_share=1.0, **PRIORS[prior]), load(start)
    for part in SHARED:
        model.get_submodule(part).load_state_dict(taken.get_submodule(part).state_dict())
    run = fit(model, path, out=folder, minutes=minutes, clock="cpu", progress=False, **SECOND)
    parameters = sum(p.numel() for p in model.parameters())
    return {"model": "vq-vae", "sizes": SIZES[name] | PRIORS[prior], "parameters": parameters, "steps_of_the_prior": run.steps}


def measured(model: Latent, data: Splits, sheet: Path) -> dict[str, Any]:
    """Bits, uses and files of a trained model."""
    result, sites = evaluate(model, data).to_dict(), data.spec.sites * log(2)
    row: dict[str, Any] = {"status": result["status"], "bits_per_dim": result["bits_per_dim"], "examples": result["examples"]}
    row |= {"bits_per_dim_of_codes": result["rate"] / sites, "bits_per_dim_given_codes": result["distortion"] / sites}
    row |= {"bits_of_codes": result["rate"] / log(2), "codes": sum(grid.units for grid in model.topdown.grids)}
    row["verdict"] = result["verdict"]
    row |= {"uses": {key: Uses.of(key, counts).words for key, counts in result["code_uses"].items()}}
    row |= {"bytes": filed(model, data.test.x[:: len(data.test) // FILED][:FILED].long())}
    x = data.test.x[:: len(data.test) // 32][:32].long()
    parts = [sample(model, 32, seed=0), seen(Rows(model, 32)), x, seen(Rows(model, 32, z=model.encode(x)))]
    rows = torch.cat([part[:16] for part in parts] + [part[16:] for part in parts])
    save_png(sheet, grid(pixels(rows, data.spec.levels), columns=16))
    return row


def seen(rows: Rows) -> torch.Tensor:
    """(n, C, H, W) symbols next to the means of x given the codes of these rows."""
    means = decoded_means(rows)
    assert means is not None
    return means.round().long()


def filed(model: Latent, x: torch.Tensor) -> dict[str, float]:
    """Sizes of a file of these images, which is decoded and compared, and of one of their codes alone."""
    whole = ancestral.compress(model, x)
    if not torch.equal(ancestral.decompress(model, whole), x):
        raise SystemExit("the file does not decode to what was compressed")
    return {"images": len(x), "whole": len(whole), "codes": len(ancestral.compress(model, x, scheme="latents"))} | {
        "bits_per_dim": round(8 * len(whole) / x.numel(), 4)
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("name", choices=list(SIZES))
    parser.add_argument("data")
    parser.add_argument("runs", type=Path)
    parser.add_argument("--only", nargs="*", choices=list(PRIORS), default=list(PRIORS))
    parser.add_argument("--minutes", type=float, default=MINUTES)
    options = parser.parse_args()
    torch.set_num_threads(1)
    record, data = Record(RESULTS / "vq_vae.json", __doc__.splitlines()[0]), load_data(options.data)
    warmup()  # beside a training it would take processor time, by which that is measured
    first = options.runs / f"{options.name}_codes"
    if not first.exists():
        coded(options.name, data, options.data, first, options.minutes / 2)
    for prior in options.only:
        key, folder = f"{options.name}, {prior}", options.runs / f"{options.name}_{prior}"
        if key in record:
            continue
        since = time.process_time()
        row = with_prior(options.name, prior, data, options.data, first, folder, options.minutes / 2)
        row |= {"cpu_minutes": options.minutes / 2 + cpu_minutes(since)}
        sheet = RESULTS / "vq_vae" / f"{options.name}_{prior}.png"
        record.add(key, row | measured(load(folder), data, sheet) | {"data": data.note})  # type: ignore[arg-type]


if __name__ == "__main__":
    main()
