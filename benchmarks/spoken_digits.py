"""What has a WaveNet learned of spoken digits: bits beside simple models and xz, and are its digits heard as such?

The run is one of `benchmarks/sequences.py`, told digit and speaker. Bits a mu-law sample of the test clips beside counts:
order 0, and order 2 smoothed by lower orders, both counted on the training clips, and xz -9e. Then two clips of every digit and
speaker are drawn whole, and a logistic regression on log-mel features, trained on the training clips, names digit and speaker of
real test clips and of drawn ones. The sound of one drawn clip a digit, and spectrograms beside real ones, go with the record.

    python benchmarks/spoken_digits.py RUN DATA/spoken_digits
"""

from __future__ import annotations

import argparse
import lzma
import time
from collections import Counter
from math import log2
from pathlib import Path
from typing import Any

import numpy as np
import torch
from record import Record, cpu_minutes
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from torch import Tensor

from ancestral.data import load_data
from ancestral.data.features import Mel
from ancestral.data.notation import Sound
from ancestral.data.sounds import wav
from ancestral.data.splits import Splits
from ancestral.evaluation import score
from ancestral.files import write_whole
from ancestral.hub import load
from ancestral.report.images import save_png
from ancestral.sampling import sample
from ancestral.symbols import lengths

RESULTS = Path(__file__).parent / "results"
EACH = 2  # clips drawn of every class
LONGEST = 8192  # samples of a drawn clip
PLACES = 16  # that a clip's spectrogram is averaged over, whatever its length
SMOOTHING = 16.0  # how much a lower order counts beside what was seen


def clips(x: Tensor, data: Splits) -> list[np.ndarray]:
    """The symbols of every example up to its end."""
    return [row[:n].numpy() for row, n in zip(x, lengths(x, data.spec).tolist(), strict=True)]


def counted_bits(train: list[np.ndarray], test: list[np.ndarray], order: int, levels: int) -> float:
    """Bits a symbol of test clips under counts of training clips, each order smoothed by the one below."""
    tables: list[tuple[Counter[tuple[int, ...]], Counter[tuple[int, ...]]]] = []
    for k in range(order + 1):
        pairs, contexts = Counter[tuple[int, ...]](), Counter[tuple[int, ...]]()
        for clip in train:
            grams = zip(*(clip[i : len(clip) - k + i].tolist() for i in range(k + 1)), strict=True)
            pairs.update(grams)
        for gram, count in pairs.items():
            contexts[gram[:-1]] += count
        tables.append((pairs, contexts))
    bits, count = 0.0, 0
    for clip in test:
        symbols = clip.tolist()
        for t, symbol in enumerate(symbols):
            p = 1 / levels
            for k in range(min(order, t) + 1):
                context = tuple(symbols[t - k : t])
                pairs, contexts = tables[k]
                p = (pairs[(*context, symbol)] + SMOOTHING * p) / (contexts[context] + SMOOTHING)
            bits -= log2(p)
        count += len(symbols)
    return bits / count


def features(x: Tensor, data: Splits, mel: Mel) -> np.ndarray:
    """(n, bands PLACES + 1): log-mel spectrograms brought to one length, and how long the clips are."""
    rows = []
    for clip in clips(x, data):
        spectrum = mel(torch.from_numpy(clip.astype(np.int64))[None])[0, :, :, 0]
        short = torch.nn.functional.interpolate(spectrum[None], size=PLACES, mode="linear", align_corners=False)
        rows.append(torch.cat([short.flatten(), torch.tensor([len(clip) / mel.sound.rate])]).numpy())
    return np.stack(rows)


def recognised(data: Splits, drawn: Tensor, classes: Tensor, mel: Mel) -> dict[str, Any]:
    """Shares of test clips and of drawn clips whose digit and speaker are named right."""
    names = [name.split("_") for name in data.class_names]
    inputs = [features(part, data, mel) for part in (data.train.x, data.test.x, drawn)]
    labels = [(y if y is not None else classes).tolist() for y in (data.train.labels, data.test.labels, classes)]
    found: dict[str, Any] = {}
    for place, what in enumerate(("digit", "speaker")):
        wanted = [[names[label][place] for label in some] for some in labels]
        told = make_pipeline(StandardScaler(), LogisticRegression(C=0.05, max_iter=500)).fit(inputs[0], wanted[0])
        found[what] = {
            "chance": round(1 / len(set(wanted[0])), 3),
            "real test clips": round(float(told.score(inputs[1], wanted[1])), 3),
            "drawn clips": round(float(told.score(inputs[2], wanted[2])), 3),
        }
    return found


def sheet(columns: list[list[Tensor]], width: int) -> np.ndarray:
    """Spectrograms in columns, one clip below the other, low sounds at the bottom; (H, W, 3) uint8."""
    stacked = []
    for column in columns:
        cells = [np.pad(cell.flip(0).numpy()[:, :width], ((1, 1), (0, max(0, width - cell.shape[1])))) for cell in column]
        stacked.append(np.pad(np.concatenate(cells), ((0, 0), (2, 2))))
    whole = (np.concatenate(stacked, 1).clip(0, 1) * 255).astype(np.uint8)
    return np.repeat(np.repeat(whole, 2, 0), 3, 1)[..., None].repeat(3, 2)


def shown(data: Splits, drawn: Tensor, classes: Tensor, mel: Mel, name: str) -> None:
    """Write spectrograms of a real and two drawn clips a digit, and the sound of one drawn clip a digit."""
    fine = Mel(mel.sound, 40, 64)
    digits = [name.split("_")[0] for name in data.class_names]
    real, made, sound = [], [[], []], []
    labels = data.test.labels if data.test.labels is not None else classes
    for digit in sorted(set(digits)):
        known = next(i for i, label in enumerate(labels.tolist()) if digits[label] == digit)
        real.append(fine(torch.from_numpy(clips(data.test.x[known : known + 1], data)[0].astype(np.int64))[None])[0, :, :, 0])
        rows = [i for i, label in enumerate(classes.tolist()) if digits[label] == digit]
        for column, row in zip(made, rows[:: len(rows) // 2][:2], strict=True):
            column.append(fine(torch.from_numpy(clips(drawn[row : row + 1], data)[0])[None])[0, :, :, 0])
        sound.append(mel.sound.decode(torch.from_numpy(clips(drawn[rows[0] : rows[0] + 1], data)[0])).numpy())
        sound.append(np.zeros(mel.sound.rate // 4, np.int16))
    save_png(RESULTS / f"{name}.png", sheet([real, *made], 96))
    write_whole(RESULTS / f"{name}.wav", wav(np.concatenate(sound).astype(np.int16), mel.sound.rate))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("run")
    parser.add_argument("data")
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    torch.set_num_threads(1)
    model, data, since = load(options.run), load_data(options.data, label_from=["0", "1"]), time.process_time()
    if not isinstance(data.notation, Sound):
        parser.error("the data are no sound")
    mel = Mel(data.notation, 32, 64)
    train, test = (clips(part.x, data) for part in (data.train, data.test))
    found = score(model, data.test.x, labels=data.test.labels)
    total = sum(map(len, test))
    row: dict[str, Any] = {"status": found.status, "bits_per_sample": round(float(found.bits.sum()) / total, 4)}
    levels = data.notation.levels
    row |= {f"order {order}": round(counted_bits(train, test, order, levels), 4) for order in (0, 1, 2)}
    packed = lzma.compress(np.concatenate(test).astype(np.uint8).tobytes(), preset=9 | lzma.PRESET_EXTREME)
    row |= {"xz -9e, all clips in one": round(8 * len(packed) / total, 4), "cpu_minutes": cpu_minutes(since)}
    classes = torch.arange(len(data.class_names)).repeat_interleave(EACH)
    since = time.process_time()
    drawn = sample(model, len(classes), labels=classes, length=LONGEST, seed=options.seed)
    seconds = lengths(drawn, data.spec).double() / data.notation.rate
    row |= {
        "drawn_clips": len(drawn),
        "drawing_cpu_minutes": cpu_minutes(since),
        "unended": int((seconds * 8000 >= LONGEST).sum()),
    }
    row |= {"median_seconds": {"real": round(float(np.median([len(c) for c in test])) / data.notation.rate, 3)}}
    row["median_seconds"]["drawn"] = round(float(seconds.median()), 3)
    row |= {"recognised": recognised(data, drawn, classes, mel)}
    shown(data, drawn, classes, mel, "spoken_digits")
    Record(RESULTS / "spoken_digits.json", __doc__.splitlines()[0]).add(
        Path(options.run).name, row | {"seed": options.seed, "data": data.note}
    )


if __name__ == "__main__":
    main()
