"""What do the latents of each kind of model carry, and at what cost, in the same ten CPU-minutes?

Static binarized MNIST with its labels (see `benchmarks/binarized_labels.py`), seed 0, one thread; nats a digit. Models with an
autoregressive decoder share it, but for the VLAEs, whose point is their window: a Gated PixelCNN of 8 layers, 32 features and
5x5 windows. The evidence lower bound on all test digits; that of 50 samples on 500 of them; probes on 3,000.

    python benchmarks/latents.py DATA/labelled.npz RUNS [--only NAME ...]    # train and measure what is missing
    python benchmarks/latents.py DATA/labelled.npz RUNS --minutes 20 --only NAME  # a longer run, in a row of its own
    python benchmarks/latents.py DATA/labelled.npz RUNS --pairs NAME NAME    # paired differences on all test digits
    python benchmarks/latents.py DATA/labelled.npz RUNS --table              # a Markdown table of what is there
    python benchmarks/latents.py DATA/labelled.npz RUNS --figure             # rate against distortion, by family
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from record import Record, cpu_minutes

import ancestral
from ancestral.data import load_data
from ancestral.data.splits import Splits
from ancestral.evaluation import evaluate, study
from ancestral.hub import load
from ancestral.latent.latent import Latent
from ancestral.models import build
from ancestral.report.images import grid, pixels, save_png
from ancestral.report.sweep_page import save_figure
from ancestral.report.sweeps import Point
from ancestral.report.tradeoff import Line, rate_distortion
from ancestral.sampling import sample
from ancestral.training import fit
from ancestral.walking.native.compiling import warmup

RESULTS = Path(__file__).parent / "results"
MINUTES, LONGER = 10.0, " in "  # what a row is called whose model trained for other than the usual minutes
DECODER = {"layers": 8, "kernel": 5, "channels": 32, "head": 64}
CONVOLUTIONS = {"width": 24, "halvings": 3}  # in a minute and a half 102 nats; a width of 48, halved twice, 108
TRAINING: dict[str, Any] = {
    "clock": "cpu",
    "batch_size": 16,
    "learning_rate": 2e-3,
    "precision": "bf16",
    "channels_last": True,
    "progress": False,
}
FASTER = {"vae": {"learning_rate": 3e-3}, "beta-vae": {"learning_rate": 3e-3}}  # at 4e-3 one diverged, however clipped
MODELS: dict[str, tuple[str, dict[str, Any]]] = {
    "Gated PixelCNN, no z": ("gated-pixelcnn", DECODER),
    "conv VAE": ("vae", CONVOLUTIONS),
    **{f"beta-VAE, beta {beta:g}": ("beta-vae", CONVOLUTIONS | {"beta": beta}) for beta in (0.5, 2.0, 4.0)},
    "IAF-VAE": ("iaf-vae", {}),
    "IAF-VAE without flow": ("iaf-vae", {"posterior": "normal"}),
    "IAF-VAE without free bits": ("iaf-vae", {"free_bits": 0.0}),
    "PixelVAE, vector": ("pixelvae", DECODER),
    "PixelVAE, upsample": ("pixelvae", DECODER | {"form": "upsample"}),
    "PixelVAE, hierarchical": ("hierarchical-pixelvae", DECODER),
    "PixelVAE, vector, without annealing": ("pixelvae", DECODER | {"kl_warmup": 0.0}),
    "VLAE 5x3": ("vlae", {}),
    "VLAE 5x3, normal prior": ("vlae", {"prior": "normal"}),
    "VLAE 7x4": ("vlae", {"window": "7x4"}),
    "VLAE 7x4, normal prior": ("vlae", {"window": "7x4", "prior": "normal"}),
    "AGAVE, lambda 2": ("agave", DECODER | {"lambda_": 2.0}),
    "AGAVE, lambda 6": ("agave", DECODER | {"lambda_": 6.0}),
    "AGAVE without auxiliary loss": ("agave", DECODER | {"auxiliary": False, "lambda_": 1.0}),
}
FAMILIES: dict[str, tuple[str, dict[str, str]]] = {  # of the figure: what the points differ in, and their rows
    "VAE": ("beta", {"0.5": "beta-VAE, beta 0.5", "1": "conv VAE", "2": "beta-VAE, beta 2", "4": "beta-VAE, beta 4"}),
    "IAF-VAE": ("", {"": "IAF-VAE", "no flow": "IAF-VAE without flow", "no free bits": "IAF-VAE without free bits"}),
    "PixelVAE": ("", {form: f"PixelVAE, {form}" for form in ("vector", "upsample", "hierarchical")}),
    "VLAE": ("window", {window: f"VLAE {window}" for window in ("7x4", "5x3")}),
    "VLAE, normal prior": ("window", {window: f"VLAE {window}, normal prior" for window in ("7x4", "5x3")}),
    "AGAVE": ("lambda", {"2": "AGAVE, lambda 2", "6": "AGAVE, lambda 6"}),
}
COLUMNS = {
    "cpu_minutes": "CPU-min",
    "nats": "nats, all",
    "elbo_subset": "nats, 500",
    "iwae": "IWAE-50, 500",
    "rate": "rate",
    "distortion": "distortion",
    "shuffle_cost": "shuffle cost",
    "active": "active units",
    "probe": "probe, %",
}


def folder_of(name: str) -> str:
    return "".join(letter if letter.isalnum() else "_" for letter in name)


def trained(name: str, data: Splits, path: str, folder: Path, minutes: float) -> dict[str, Any]:
    """Train a model of the table into a folder; what that took."""
    kind, sizes = MODELS[name]
    torch.manual_seed(0)
    model = build(kind, data.spec, preset="small", **sizes)
    since = time.process_time()
    run = fit(model, path, out=folder, seed=0, minutes=minutes, **TRAINING | FASTER.get(kind, {}))
    parameters = sum(p.numel() for p in model.parameters())
    return {"model": kind, "sizes": sizes, "parameters": parameters, "steps": run.steps, "cpu_minutes": cpu_minutes(since)}


def measured(name: str, data: Splits, folder: Path) -> dict[str, Any]:
    """What a trained model gives on the test digits."""
    model, since = load(folder), time.process_time()
    result = evaluate(model, data, importance_samples=50, subset=500).to_dict()
    row = {key: value for key, value in result.items() if key != "kl_by_unit"}
    if isinstance(model, Latent):
        found = study(model, data, few=(10,))
        row |= {"probes": [probe.to_dict() for probe in found.probes], "chance": found.chance}
    drawn = [sample(model, 32, seed=0)]
    if isinstance(model, Latent):
        x = data.test.x[:: len(data.test) // 32][:32].long()  # the digits stand sorted by class
        drawn = [*drawn, x, model.reconstruct(x)]
    sheet = torch.cat([part[:16] for part in drawn] + [part[16:] for part in drawn])
    save_png(RESULTS / "latents" / f"{folder_of(name)}.png", grid(pixels(sheet, data.spec.levels), columns=16))
    return row | {"evaluation_cpu_minutes": cpu_minutes(since)}


def place(name: str) -> tuple[int, str]:
    """Where a row stands: with its model, longer runs after that of the usual length."""
    return list(MODELS).index(name.split(LONGER)[0]), name


def table(rows: Mapping[str, dict[str, Any]]) -> str:
    """The rows of the record in the order of the models, in Markdown."""
    lines = ["| model | status | " + " | ".join(COLUMNS.values()) + " |", "|---" * (len(COLUMNS) + 2) + "|"]
    for name in sorted((name for name in rows if "cpu_minutes" in rows[name]), key=place):
        row = rows[name]
        values = {key: f"{row[key]:.2f}" for key in COLUMNS if isinstance(row.get(key), float)}
        values["nats"] += f" ± {row['nats_error']:.2f}"
        for key in ("elbo_subset", "iwae"):
            if key in values:
                values[key] = f"{-row[key]:.2f}"
        if row.get("units"):
            values["active"] = f"{row['active_units']} of {row['units']}"
            probe = next(each for each in row["probes"] if each["labels"] is None)
            values["probe"] = f"{100 * probe['accuracy']:.1f}"
        lines.append(f"| {name} | {row['status']} | " + " | ".join(values.get(key, "") for key in COLUMNS) + " |")
    return "\n".join(lines)


def lines(rows: Mapping[str, dict[str, Any]]) -> list[Line]:
    """The families that have rows, as lines of the figure of rate and distortion."""
    found = []
    for family, (setting, names) in FAMILIES.items():
        points = [(label, Point.of({}, [rows[name]])) for label, name in names.items() if name in rows]
        found += [Line(family, points, setting)] if points else []
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("data")
    parser.add_argument("runs", type=Path, help="folder that the runs are kept in")
    parser.add_argument("--only", nargs="*", choices=list(MODELS), default=list(MODELS))
    parser.add_argument("--pairs", nargs=2, choices=list(MODELS))
    parser.add_argument("--minutes", type=float, default=MINUTES)
    parser.add_argument("--table", action="store_true")
    parser.add_argument("--figure", action="store_true")
    options = parser.parse_args()
    torch.set_num_threads(1)
    record = Record(RESULTS / "latents.json", __doc__.splitlines()[0])
    if options.table:
        print(table(record.content["rows"]))
    if options.figure:
        save_figure(rate_distortion(lines(record.content["rows"])), RESULTS / "latents.png")
    if options.table or options.figure:
        return
    data = load_data(options.data)
    warmup(exact=False)  # beside a training it would take processor time, by which that is measured
    if options.pairs:
        first, second = (load(options.runs / folder_of(name)) for name in options.pairs)
        found = ancestral.compare(first, second, data).to_dict()
        record.add(f"{options.pairs[1]} less {options.pairs[0]}", found)
        return
    for name in options.only:
        suffix = "" if options.minutes == MINUTES else f"{LONGER}{options.minutes:g} minutes"
        if name + suffix not in record:
            folder = options.runs / folder_of(name + suffix)
            row = trained(name, data, options.data, folder, options.minutes)
            record.add(name + suffix, row | measured(name + suffix, data, folder) | {"data": data.note})


if __name__ == "__main__":
    main()
