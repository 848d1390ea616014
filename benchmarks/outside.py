"""Does likelihood tell what is outside the data that a model was trained on, and does the corrected score tell it better?

A run judges test examples of its own data against others: classes that were left out of its training, other pictures, noise,
and images of one colour. The cost, and the cost less the bits of a PNG, FLAC or zstd of the same example (Serrà et al. 2020,
arXiv:1909.11480), each with its AUROC and the 95 % interval by DeLong. Folders of pictures larger than the examples are cut into
crops at seeded places, at their own resolution, and shrunk whole.

    python benchmarks/outside.py RUN DATA/cifar10.npz --against noise flat DATA/kodak
    python benchmarks/outside.py RUN DATA/mnist.npz --outside 9
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch
from record import Record, cpu_minutes
from torch import Tensor

from ancestral.data import load_data
from ancestral.data.images import SUFFIXES, read_images
from ancestral.evaluation import score
from ancestral.evaluation.outside import MADE, Scored, separations
from ancestral.hub import Model, load
from ancestral.symbols import check_symbols

RESULTS = Path(__file__).parent / "results"


def crops(folder: Path, side: int, each: int, seed: int) -> Tensor:
    """(n, 3, side, side) squares from seeded places of every picture."""
    draw, found = np.random.default_rng(seed), []
    for path in sorted(path for path in folder.rglob("*") if path.suffix.lower() in SUFFIXES):
        picture = read_images([path])[0]
        for _ in range(each):
            top, left = (int(draw.integers(size - side + 1)) for size in picture.shape[:2])
            found.append(picture[top : top + side, left : left + side])
    return torch.from_numpy(np.stack(found)).movedim(-1, 1)


def others(word: str, inside: Tensor, model: Model, options: argparse.Namespace) -> Iterator[tuple[str, Tensor]]:
    """The examples that a word of ``--against`` stands for, with their names."""
    if word in MADE:
        yield word, MADE[word](inside, model.spec, options.seed)
        return
    side, data = model.spec.shape[-1] or 0, load_data(word, size=model.spec.shape[-1])
    shrunk = torch.cat([part.x for part in (data.train, data.validation, data.test)])
    yield f"{data.name}, shrunk", shrunk[: options.limit]
    yield f"{data.name}, crops", crops(Path(word), side, -(-options.limit // len(shrunk)), options.seed)[: options.limit]


def scored(name: str, x: Tensor, model: Model, outside: bool = False) -> Scored:
    check_symbols(x, model.spec)
    return Scored(name, [f"{name} {row}" for row in range(len(x))], x, [], None, score(model, x, corrected=True), outside)


def row(inside: Scored, outside: Scored, model: Model) -> dict[str, Any]:
    """What tells two sets apart, and their means."""
    told = {name: each.to_dict() for name, each in separations(inside, outside).items()}
    means = {"inside": inside.summary(model.spec), "outside": outside.summary(model.spec)}
    return {"auroc": told, "means": means, "codec": inside.scores.codec, "status": inside.scores.status}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("run", type=Path)
    parser.add_argument("data")
    parser.add_argument("--against", nargs="*", default=[], help="noise, flat, or folders of pictures")
    parser.add_argument("--outside", type=int, nargs="*", default=[], help="classes that the run was not trained on")
    parser.add_argument("--limit", type=int, default=500, help="at most so many examples of each set")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--results", type=Path, default=RESULTS / "outside.json")
    options = parser.parse_args()
    torch.set_num_threads(1)
    model, since = load(options.run), time.process_time()
    data = load_data(options.data)
    test = data.test.select(torch.from_numpy(np.random.default_rng(options.seed).permutation(len(data.test))))
    if options.outside and test.labels is None:
        parser.error("the data have no labels: --outside names classes of theirs")
    foreign = torch.isin(test.labels, torch.tensor(options.outside)) if test.labels is not None else torch.zeros(len(test)) > 0
    inside = scored(f"{data.name}, test", test.x[~foreign][: options.limit], model)
    sets = [(f"classes {', '.join(map(str, options.outside))}", test.x[foreign][: options.limit])] if options.outside else []
    sets += [found for word in options.against for found in others(word, inside.x, model, options)]
    record = Record(options.results, __doc__.splitlines()[0])
    for name, x in sets:
        told = row(inside, scored(name, x, model, outside=True), model)
        about = {"run": options.run.name, "seed": options.seed, "data": data.note, "cpu_minutes": cpu_minutes(since)}
        record.add(f"{options.run.name}, {inside.name} against {name}", told | about)


if __name__ == "__main__":
    main()
