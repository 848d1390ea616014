"""A small classifier of our own, whose features samples are compared in.

Its recipe is `trained`: a few convolutions, trained on the labelled training set at hand for about a minute. What is measured
in its features can be compared between models of the same data that were judged with the same weights, which their hash tells;
it has nothing to do with the literature's figures, which use an Inception network trained on ImageNet.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Mapping
from dataclasses import dataclass, replace
from math import prod
from pathlib import Path
from typing import Any

import safetensors
import safetensors.torch
import torch
from torch import Tensor, nn

from ancestral.data.splits import Splits
from ancestral.draw import uniforms
from ancestral.evaluation.views import View, agrees, view_of
from ancestral.files import write_whole
from ancestral.sampling.strategies import Progress
from ancestral.symbols import DataError

FEATURES = 64
STEPS, BATCH, RATE = 1500, 64, 2e-3
PASSES = 40  # at most over the training set
AT_ONCE = 512
KEY = "classifier"  # of the metadata in its file


class Classifier(nn.Module):
    """Maps to features and classes: three convolutions, the first with stride 2 from 16 points a side on, and two layers.

    Args:
        size: (C, H, W) of the maps.
        classes: how many.
    """

    def __init__(self, size: tuple[int, int, int], classes: int) -> None:
        super().__init__()
        channels, height, width = size
        strides = (2 if min(height, width) >= 16 else 1, 2, 2)
        self.classes = classes
        self.body = nn.Sequential(
            nn.Conv2d(channels, 32, 3, strides[0], 1),
            nn.ReLU(),
            nn.Conv2d(32, 64, 3, strides[1], 1),
            nn.ReLU(),
            nn.Conv2d(64, 64, 3, strides[2], 1),
            nn.ReLU(),
            nn.AdaptiveAvgPool2d((min(4, -(-height // prod(strides))), min(4, -(-width // prod(strides))))),
            nn.Flatten(),
            nn.LazyLinear(FEATURES),
            nn.ReLU(),
        )
        self.head = nn.Linear(FEATURES, classes)
        self.scale = nn.Buffer(torch.ones(()))
        self.float()(torch.zeros(1, channels, height, width, dtype=torch.float32))  # sizes what is sized lazily

    def features(self, maps: Tensor) -> Tensor:
        """(n, 64) features of (n, C, H, W) maps from -1 to 1; their mean square over the training set is 1."""
        values: Tensor = self.body(maps)
        return values / self.scale

    def forward(self, maps: Tensor) -> Tensor:
        """(n, classes) logits of (n, C, H, W) maps from -1 to 1."""
        logits: Tensor = self.head(self.features(maps) * self.scale)
        return logits


@dataclass(frozen=True, eq=False)
class Judge:
    """A trained classifier.

    Attributes:
        classifier: what it is.
        view: how it looks at symbols.
        made: how: name and hash of the data, seed, steps, and its accuracy on the validation set.
    """

    classifier: Classifier
    view: View
    made: Mapping[str, Any]

    @property
    def hash(self) -> str:
        """SHA-256 of its weights, in hexadecimal."""
        digest = hashlib.sha256()
        for name, values in sorted(self.classifier.state_dict().items()):
            digest.update(name.encode())
            digest.update(values.contiguous().numpy().tobytes())
        return digest.hexdigest()

    @torch.no_grad()
    def features(self, x: Tensor) -> Tensor:
        """(n, 64) features of (n, *shape) symbols."""
        return torch.cat([self.classifier.features(self.view(part.cpu())) for part in torch.split(x, AT_ONCE)])

    @torch.no_grad()
    def classes(self, x: Tensor) -> Tensor:
        """(n,) the class that it takes each of (n, *shape) symbols for."""
        return torch.cat([self.classifier(self.view(part.cpu())).argmax(1) for part in torch.split(x, AT_ONCE)])

    def save(self, path: str | os.PathLike[str]) -> None:
        """Write weights and how they were made into one file, which appears whole or not at all."""
        metadata = {KEY: json.dumps(dict(self.made))}
        weights = {name: values.contiguous() for name, values in self.classifier.state_dict().items()}
        write_whole(Path(path), safetensors.torch.save(weights, metadata))


def trained(data: Splits, *, seed: int = 0, steps: int = STEPS, progress: Progress | None = None) -> Judge:
    """The recipe: a `Classifier` trained by Adam with a cosine schedule on labelled images, or on sound.

    Args:
        data: images of symbols, or sound, with labels.
        seed: of the first weights and the batches.
        steps: of 64 examples; fewer where that would be more than 40 passes over them.
        progress: is told (steps done, of how many).

    Raises:
        DataError: the data are neither images of symbols nor sound, or have no labels.
    """
    view, labels = view_of(data.spec, data.notation), _labels(data)
    steps = min(steps, max(1, PASSES * len(labels) // BATCH))
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        classifier = Classifier(view.size, int(labels.max()) + 1)
    optimiser = torch.optim.Adam(classifier.parameters(), lr=RATE)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimiser, steps)
    for step in range(steps):
        rows = (uniforms(seed, [step], BATCH)[0] * len(labels)).long()
        loss = nn.functional.cross_entropy(classifier(view(data.train.select(rows).x)), labels[rows])
        optimiser.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]
        optimiser.step()
        schedule.step()
        if progress is not None:
            progress(step + 1, steps)
    return _judged(Judge(classifier.eval().requires_grad_(False), view, {"seed": seed, "steps": steps}), data)


def _judged(judge: Judge, data: Splits) -> Judge:
    """Features brought to one scale, and how well the classifier does."""
    some = data.train.select(range(min(2048, len(data.train)))).x
    judge.classifier.scale.copy_(judge.features(some).double().square().mean().sqrt().clamp_min(1e-6))
    held_out = data.validation if len(data.validation) else data.train
    truth = held_out.labels if held_out.labels is not None else torch.zeros(0)
    accuracy = float((judge.classes(held_out.x) == truth.cpu()).double().mean())
    told = {"data": data.name, "hash": data.hash, "accuracy": accuracy, **judge.made, **judge.view.told}
    return replace(judge, made={**told, "classes": judge.classifier.classes})


def _labels(data: Splits) -> Tensor:
    if data.train.labels is None or not len(data.train):
        raise DataError(f"{data.name} has no labels to train a classifier with: name a labelled set (labelled=, --labelled)")
    return data.train.labels.cpu()


def judge_of(path: str | os.PathLike[str], data: Splits, *, progress: Progress | None = None) -> Judge:
    """The classifier in a file; where there is none yet, one is trained on the data and written there.

    Raises:
        DataError: there is none, and the data have no labels; or it is of other data than these, or damaged.
    """
    path = Path(path)
    if path.exists():
        return _read(path, view_of(data.spec, data.notation))
    judge = trained(data, progress=progress)
    judge.save(path)
    return judge


def _read(path: Path, view: View) -> Judge:
    try:
        with safetensors.safe_open(path, "pt") as file:
            made = json.loads(file.metadata()[KEY])
            weights = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 -- not a mapping
        if not agrees(view, made):
            raise DataError(f"{path} is a classifier of other data than {view.words}: take another file")
        classifier = Classifier(view.size, made["classes"])
        classifier.load_state_dict(weights)
    except (safetensors.SafetensorError, KeyError, TypeError, RuntimeError) as error:
        raise DataError(f"{path} is no classifier, or is damaged ({error}): remove it, and it will be trained again") from error
    return Judge(classifier.eval().requires_grad_(False), view, made)
