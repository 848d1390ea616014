"""Do the trends of the AGAVE paper's figures 3 to 6 show in minutes on a CPU?

CIFAR-10 brought down to 16x16, its ResNet of latents with inverse autoregressive flow, a Gated PixelCNN; seed 0, one thread.
VAE and PixelCNN are pretrained once, apart; every point goes on from that pair with 8 CPU-minutes of joint tuning. Figure 4:
lambda against bits/dim, split into KL and reconstruction, by the PixelCNN and by the auxiliary decoder; figure 5: levels of
the auxiliary image; figure 6: its side, with a VAE pretrained for it. Bits/dim are those of x, KL weight 1, on test images.

    python benchmarks/agave_figures.py DATA/cifar10.npz RUNS pair             # once
    python benchmarks/agave_figures.py DATA/cifar10.npz RUNS points           # what is missing of them
    python benchmarks/agave_figures.py DATA/cifar10.npz RUNS figures          # from the record
"""

from __future__ import annotations

import argparse
import time
from math import log
from pathlib import Path
from typing import Any

import torch
from matplotlib.figure import Figure
from record import Record, cpu_minutes

from ancestral.data import load_data
from ancestral.data.splits import Splits
from ancestral.evaluation import evaluate
from ancestral.hub import load
from ancestral.latent.latent import Latent
from ancestral.models import build
from ancestral.report.images import grid, pixels, save_png
from ancestral.sampling import sample
from ancestral.sampling.sample import decoded_means
from ancestral.sampling.strategies import Rows
from ancestral.training import fit
from ancestral.walking.native.compiling import warmup

RESULTS = Path(__file__).parent / "results"
READING = {"size": 16}
SIZES: dict[str, Any] = {
    "encoder": "resnet",
    "posterior": "iaf",
    "latent": 8,
    "width": 32,
    "blocks": 3,
    "halvings": 1,
    "free_bits": 0.1,
    "channels": 48,
    "layers": 6,
    "stream": 16,
}
TRAINING: dict[str, Any] = {"clock": "cpu", "batch_size": 16, "precision": "bf16", "channels_last": True, "progress": False}
APART, JOINT, AGAIN = 24.0, 8.0, 4.0  # CPU-minutes of the pair, of a point, and of a VAE for another side
BEST = 4.0  # lambda of figures 5 and 6
POINTS: dict[str, dict[str, Any]] = {
    **{f"lambda {value}": {"lambda_": float(value)} for value in (1, 2, 4, 8, 12)},
    **{f"{colours} levels": {"lambda_": BEST, "colours": colours} for colours in (128, 64, 32, 16)},
    **{f"side {16 // factor}": {"lambda_": BEST, "factor": factor} for factor in (2, 4)},
}
SAME = f"lambda {BEST:g}"  # is 256 levels and side 16 too
TESTED = 2000


def made(data: Splits, **overrides: Any) -> Latent:
    torch.manual_seed(0)
    return build("agave", data.spec, preset="small", **{**SIZES, **overrides})  # type: ignore[return-value]


def pair(data: Splits, path: str, folder: Path, minutes: float) -> None:
    """Train the VAE and the PixelCNN apart."""
    fit(made(data, pretraining=1.0), path, out=folder, minutes=minutes, data_options=READING, learning_rate=2e-3, **TRAINING)


def point(data: Splits, path: str, folder: Path, start: Path, overrides: dict[str, Any], minutes: float) -> tuple[Latent, int]:
    """Tune the pair jointly; where the auxiliary image has another side, after training a VAE for it."""
    again = AGAIN * minutes / JOINT if "factor" in overrides else 0.0
    model = made(data, **overrides, pretraining=again / (again + minutes), pretrain="vae" if again else "both")
    taken = load(start).state_dict()
    model.load_state_dict(
        {name: value for name, value in taken.items() if not again or name.startswith("likelihood.")}, strict=not again
    )
    run = fit(model, path, out=folder, minutes=again + minutes, data_options=READING, learning_rate=5e-4, **TRAINING)
    return model, run.steps


def sheet(model: Latent, data: Splits, name: str) -> None:
    """Figure 3: f(z) and samples of it above, test images, f(z) of theirs and reconstructions below."""
    x = data.test.x[:16].long()
    z = model.encode(x)
    rows = [Rows(model, 16, seed=0), Rows(model, 16, z=z)]
    means = [torch.zeros_like(x) if found is None else found.round().long() for found in (decoded_means(each) for each in rows)]
    factor = x.shape[-1] // means[0].shape[-1]
    large = [
        (each * (255 // (model.auxiliary.likelihood.spec.levels - 1))).repeat_interleave(factor, 2).repeat_interleave(factor, 3)
        for each in means
    ]  # type: ignore[union-attr]
    parts = [large[0], sample(model, 16, seed=0), x, large[1], model.reconstruct(x)]
    save_png(RESULTS / "agave_figures" / f"{name.replace(' ', '_')}.png", grid(pixels(torch.cat(parts), 256), columns=16))


def figures(rows: dict[str, dict[str, Any]]) -> None:
    """Stacked bars of KL and reconstruction, one panel a figure of the paper."""
    chosen = {
        "lambda": [f"lambda {value}" for value in (1, 2, 4, 8, 12)],
        "levels of y": [SAME, *(f"{colours} levels" for colours in (128, 64, 32, 16))],
        "side of y": [SAME, "side 8", "side 4"],
    }
    names = {"lambda": ["1", "2", "4", "8", "12"], "levels of y": ["256", "128", "64", "32", "16"], "side of y": ["16", "8", "4"]}
    figure = Figure(figsize=(12, 4), layout="constrained")
    axes = figure.subplots(1, 3)
    for axis, (title, keys) in zip(axes, chosen.items(), strict=True):
        there = [(label, rows[key]) for label, key in zip(names[title], keys, strict=True) if key in rows]
        labels = [label for label, _ in there]
        rates, distortions = ([row[what] for _, row in there] for what in ("rate_bits", "distortion_bits"))
        axis.bar(labels, distortions, label="reconstruction by the PixelCNN")
        axis.bar(labels, rates, bottom=distortions, label="KL")
        if title == "lambda":
            axis.plot(
                labels, [row["auxiliary_bits"] + row["rate_bits"] for _, row in there], "k.--", label="auxiliary decoder + KL"
            )
        axis.set_xlabel(title)
        axis.set_ylim(bottom=0.8 * min(distortions))
    axes[0].set_ylabel("bits/dim")
    figure.legend(*axes[0].get_legend_handles_labels(), loc="outside upper center", ncols=3)
    figure.savefig(RESULTS / "agave_figures.png", dpi=110)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("data")
    parser.add_argument("runs", type=Path)
    parser.add_argument("what", choices=("pair", "points", "figures"))
    parser.add_argument("--only", nargs="*", choices=list(POINTS), default=list(POINTS))
    parser.add_argument("--share", type=float, default=1.0, help="of all minutes, for a rehearsal")
    options = parser.parse_args()
    torch.set_num_threads(1)
    record = Record(RESULTS / "agave_figures.json", __doc__.splitlines()[0])
    if options.what == "figures":
        figures(record.content["rows"])
        return
    data = load_data(options.data, **READING)
    warmup(exact=False)  # beside a training it would take processor time, by which that is measured
    if options.what == "pair":
        pair(data, options.data, options.runs / "pair", APART * options.share)
        return
    for name in options.only:
        if name in record:
            continue
        since = time.process_time()
        folder = options.runs / name.replace(" ", "_")
        model, steps = point(data, options.data, folder, options.runs / "pair", POINTS[name], JOINT * options.share)
        row: dict[str, Any] = {"settings": POINTS[name], "steps": steps, "cpu_minutes": cpu_minutes(since)}
        result = evaluate(model, data, importance_samples=0, limit=TESTED).to_dict()
        kept = ("bits_per_dim", "rate", "distortion", "auxiliary", "shuffle_cost", "active_units", "units", "verdict", "examples")
        row |= {key: result[key] for key in kept} | {"status": result["status"], "data": data.note}
        for key in ("rate", "distortion", "auxiliary"):
            row[f"{key}_bits"] = result[key] / log(2) / data.spec.sites
        record.add(name, row)
        sheet(model, data, name)


if __name__ == "__main__":
    main()
