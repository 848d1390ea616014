"""Which digits does the static binarized MNIST show? It comes shuffled and without labels, which probes of latents need.

Every binary image was drawn from a grey one of MNIST, pixel by pixel: the grey image under which it is likeliest is taken for
its origin. Written is the binarized set with those labels; said is how many grey images were found twice, and how often the best
image of another digit comes within 10 nats.

    python benchmarks/binarized_labels.py DATA/binarized_mnist.npz DATA/mnist.npz LABELLED.npz
"""

from __future__ import annotations

import argparse
import io
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from ancestral.files import write_whole

AT_ONCE = 500
LEAST = 1e-4  # probability that a white pixel comes from a black one: none should


def matched(binary: Tensor, grey: Tensor, labels: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """(n,) numbers of the grey images, their labels, and by how many nats they are likelier than any image of another digit."""
    p = (grey.float() / 255).clamp(LEAST, 1 - LEAST)
    weight, bias = (p.log() - (1 - p).log()).T, (1 - p).log().sum(1)
    places, gaps = [], []
    for some in binary.float().split(AT_ONCE):
        likely = some @ weight + bias
        best, place = likely.max(1)
        likely[labels[None] == labels[place][:, None]] = -torch.inf
        places.append(place)
        gaps.append(best - likely.max(1).values)
    found = torch.cat(places)
    return found, labels[found], torch.cat(gaps)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("binarized")
    parser.add_argument("mnist")
    parser.add_argument("out", type=Path)
    options = parser.parse_args()
    binary, mnist = np.load(options.binarized), np.load(options.mnist)
    arrays = {name: binary[name] for name in binary}
    for part, origin in (("train", "train"), ("valid", "train"), ("test", "test")):
        x = torch.from_numpy(binary[f"{part}_images"]).flatten(1)
        grey, labels = (torch.from_numpy(mnist[f"{origin}_{what}"]) for what in ("images", "labels"))
        places, found, gaps = matched(x, grey.flatten(1), labels)
        arrays[f"{part}_labels"] = found.numpy()
        twice = len(places) - len(places.unique())
        print(
            f"{part}: {len(x):,} images, {twice} grey ones found twice, {int((gaps < 10).sum())} within 10 nats of another digit"
        )
    memory = io.BytesIO()
    np.savez_compressed(memory, **arrays)
    write_whole(options.out, memory.getvalue())


if __name__ == "__main__":
    main()
