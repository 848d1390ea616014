"""What do the latents of text and of sound carry, plain, with the means against collapse, and with an auxiliary?

Tiny Shakespeare's lines as characters, by Transformer VAEs, and spoken digits in quarters of a second, 2,048 mu-law samples, by
WaveNet VAEs of one z for each, and by codes along them; seed 0, one thread, 30 CPU-minutes a row. The bound of all test examples,
and what z carries of it; how much worse the decoder does with another example's z; of lines also what words samples have, and
lines between two lines; of clips what a linear classifier reads of digit and speaker, and whether reconstructions are heard as
the same.

    python benchmarks/sequence_latents.py DATA/tinyshakespeare RUNS --only "text, plain" "text, kit" "text, bag of words"
    python benchmarks/sequence_latents.py DATA/spoken_digits RUNS --only "sound, plain" "sound, coarser sound" "sound, codes"
    python benchmarks/sequence_latents.py . RUNS --table
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Mapping
from math import log
from pathlib import Path
from typing import Any

import torch
from record import Record, cpu_minutes

from ancestral.data import load_data
from ancestral.data.notation import Text
from ancestral.data.splits import Splits
from ancestral.evaluation import evaluate, quality, study, wording
from ancestral.evaluation.classifier import trained
from ancestral.hub import load
from ancestral.latent.latent import Latent
from ancestral.models import build
from ancestral.sampling import interpolate, sample
from ancestral.training import fit
from ancestral.walking.native.compiling import warmup

RESULTS = Path(__file__).parent / "results"
MINUTES = 30.0
LINES: dict[str, Any] = {"notation": "characters", "pieces": "lines"}
CLIPS: dict[str, Any] = {"label_from": ["0"], "pieces": "blocks", "length": 2048}
KIT = {"kl_warmup": 0.25, "free_bits": 0.25, "decoder_dropout": 0.2}
CODES = {"decoder": "wavenet", "decoder_channels": 32, "halvings": 5, "codes": 128, "prior": "transformer", "prior_channels": 64}
MODELS: dict[str, tuple[str, dict[str, Any]]] = {
    "text, no z": ("transformer", {"places": "rotary", "width": 128}),
    "text, plain": ("transformer-vae", {}),
    "text, kit": ("transformer-vae", KIT),
    "text, bag of words": ("transformer-vae", {"auxiliary": True}),
    "text, bag of words, lambda 1": ("transformer-vae", {"auxiliary": True, "lambda_": 1.0}),
    "sound, no z": ("wavenet", {"layers": 8, "cycles": 1, "skip": 96, "head": 96}),
    "sound, plain": ("wavenet-vae", {}),
    "sound, coarser sound": ("wavenet-vae", {"auxiliary": True}),
    "sound, codes": ("vq-vae", CODES),
}
TRAINING: dict[str, Any] = {"clock": "cpu", "optimiser": "adam", "learning_rate": 2e-3, "progress": False}
SIZES = {"text": {"batch_size": 32}, "sound": {"batch_size": 4}}
JUDGED = {"text": 512, "sound": 120}  # examples that are drawn or reconstructed
BETWEEN, PAIRS = 6, 3
COLUMNS = {
    "cpu_minutes": "CPU-min",
    "bits_per_symbol": "bits a symbol",
    "rate_bits": "bits in z",
    "shuffle_cost_bits": "shuffle cost, bits",
    "active_units": "active units",
}


def reading(name: str) -> dict[str, Any]:
    return LINES if name.startswith("text") else CLIPS


def measured(name: str, model: Any, data: Splits, path: str) -> dict[str, Any]:
    """What a trained model gives on the test examples."""
    result = evaluate(model, data, importance_samples=0, subset=300).to_dict()
    row: dict[str, Any] = {key: result[key] for key in ("status", "examples", "nats", "nats_error", "sites")}
    row["bits_per_symbol"] = result["bits_per_dim"]
    if isinstance(model, Latent):
        row |= {key: result[key] for key in ("rate", "distortion", "shuffle_cost", "active_units", "units", "verdict")}
        row |= {f"{key}_bits": result[key] / log(2) for key in ("rate", "distortion", "shuffle_cost")}
        row |= {"mutual_information": result["mutual_information"], "auxiliary": result["auxiliary"]}
    if isinstance(data.notation, Text):
        return row | {"wording": wording(model, data, samples=JUDGED["text"]).to_dict()} | written(model, data, data.notation)
    return row | (heard(model, path) if isinstance(model, Latent) else {})


def written(model: Any, data: Splits, notation: Text) -> dict[str, Any]:
    """Samples, and lines between lines."""
    texts = [str(notation.decode(row)) for row in sample(model, 8, seed=0)]
    if not isinstance(model, Latent):
        return {"samples": texts}
    lengths = data.test.lengths(data.spec)
    long = [i for i in range(len(data.test)) if 30 <= lengths[i] <= 50]  # of about one length, spread over the set
    chosen = data.test.select([long[i * len(long) // (2 * PAIRS)] for i in range(2 * PAIRS)]).x.long()
    way = interpolate(model, chosen[:PAIRS], chosen[PAIRS:], BETWEEN, temperature=0.5)
    ends = [[str(notation.decode(chosen[i])), str(notation.decode(chosen[PAIRS + i]))] for i in range(PAIRS)]
    between = [[str(notation.decode(row)) for row in way[:, i]] for i in range(PAIRS)]
    return {"samples": texts, "interpolations": [{"ends": e, "between": b} for e, b in zip(ends, between, strict=True)]}


def heard(model: Latent, path: str) -> dict[str, Any]:
    """What is read of digit and speaker, off z and off reconstructions."""
    found: dict[str, Any] = {}
    for what, place in (("digit", "0"), ("speaker", "1")):
        data = load_data(path, **CLIPS | {"label_from": [place]})
        probes = study(model, data, few=(10,))
        judged = quality(model, data, samples=JUDGED["sound"], judge=trained(data))
        found[what] = {
            "probes": [probe.to_dict() for probe in probes.probes],
            "chance": probes.chance,
            "recognised": vars(judged.recognised),
            "kid": judged.samples.kid,
            "kid_of_training": judged.training.kid,
        }
    return found


def table(rows: Mapping[str, dict[str, Any]]) -> str:
    """The rows of the record in the order of the models, in Markdown."""
    lines = ["| model | status | " + " | ".join(COLUMNS.values()) + " |", "|---" * (len(COLUMNS) + 2) + "|"]
    for name in (name for name in MODELS if name in rows):
        row = rows[name]
        values = {key: f"{row[key]:.3f}" if isinstance(row.get(key), float) else str(row.get(key, "")) for key in COLUMNS}
        lines.append(f"| {name} | {row['status']} | " + " | ".join(values.values()) + " |")
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("data")
    parser.add_argument("runs", type=Path)
    parser.add_argument("--only", nargs="*", choices=list(MODELS), default=[])
    parser.add_argument("--minutes", type=float, default=MINUTES)
    parser.add_argument("--table", action="store_true")
    options = parser.parse_args()
    torch.set_num_threads(1)
    record = Record(RESULTS / "sequence_latents.json", __doc__.splitlines()[0])
    if options.table:
        print(table(record.content["rows"]))
        return
    warmup(exact=False)  # beside a training it would take processor time, by which that is measured
    for name in options.only:
        if name in record:
            continue
        kind, sizes = MODELS[name]
        data, folder = load_data(options.data, **reading(name)), options.runs / "".join(c if c.isalnum() else "_" for c in name)
        torch.manual_seed(0)
        model, since = build(kind, data.spec, preset="small", **sizes), time.process_time()
        training = TRAINING | SIZES[name.split(",")[0]]
        run = fit(model, options.data, out=folder, minutes=options.minutes, seed=0, data_options=reading(name), **training)
        row = {"model": kind, "sizes": sizes, "training": training, "steps": run.steps, "cpu_minutes": cpu_minutes(since)}
        row["parameters"], since = sum(p.numel() for p in model.parameters()), time.process_time()
        row |= measured(name, load(folder), data, options.data)
        record.add(name, row | {"evaluation_cpu_minutes": cpu_minutes(since), "data": data.note})


if __name__ == "__main__":
    main()
