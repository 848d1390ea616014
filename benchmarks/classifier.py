"""How good is the classifier in whose features samples are judged, and what are the figures of real examples in them?

The recipe is `ancestral.evaluation.classifier.trained`. It is carried out on the embedded digits, or on a labelled file such as
MNIST's or CIFAR-10's; recorded are its accuracy on the test set, the hash of its weights, its time, and KID, precision and
recall of training examples against test examples, which no model need pass. With a folder the weights are written there too.

    python benchmarks/classifier.py                                   # digits
    python benchmarks/classifier.py DATA/mnist.npz --binarize sample
    python benchmarks/classifier.py DATA/cifar10.npz --out WEIGHTS
"""

from __future__ import annotations

import argparse
import time
from pathlib import Path

import torch
from record import Record

from ancestral.data import load_data
from ancestral.data.source import permutation
from ancestral.evaluation.classifier import trained
from ancestral.evaluation.quality import Likeness

RESULTS = Path(__file__).parent / "results"
COUNT = 512


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data", nargs="?", default="digits")
    parser.add_argument("--binarize", choices=("threshold", "sample"))
    parser.add_argument("--out", type=Path, help="folder for the weights")
    options = parser.parse_args()
    torch.set_num_threads(1)
    data = load_data(options.data, binarize=options.binarize)
    start = time.process_time()
    judge = trained(data)
    seconds = time.process_time() - start
    count = min(COUNT, len(data.test))
    some = [part.select(permutation(len(part), 0, 2)[:count].tolist()).x for part in (data.train, data.test)]
    alike = Likeness.of(*(judge.features(x) for x in some))
    row = {
        "note": data.note,
        "steps": judge.made["steps"],
        "parameters": sum(each.numel() for each in judge.classifier.parameters()),
        "accuracy_test": float((judge.classes(data.test.x) == data.test.labels).double().mean()),
        "weights": judge.hash,
        "cpu_seconds": round(seconds, 1),
        "training_examples_against_test": {"count": count, **vars(alike)},
    }
    name = f"{data.name}, {data.spec.levels} levels"
    Record(RESULTS / "classifier.json", "How good is the classifier in whose features samples are judged?").add(name, row)
    if options.out:
        judge.save(options.out / f"{data.name}-{data.spec.levels}.safetensors")


if __name__ == "__main__":
    main()
