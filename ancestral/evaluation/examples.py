"""Which examples are judged, in which batches, and what is said of them beside every figure."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from ancestral.core import Context
from ancestral.data.loading import load_data
from ancestral.data.source import LIMIT, PARTS, permutation
from ancestral.data.splits import Examples, Splits, Units
from ancestral.objectives import Batch
from ancestral.sampling.strategies import Model, Progress, context_of
from ancestral.spec import DataSpec
from ancestral.symbols import DataError, check_symbols

SUBSET = 2  # what a permutation is for, beside those of ``data.source``
Data = Splits | Examples | Tensor | NDArray[Any] | str | os.PathLike[str]
Tick = Callable[[int], None]


@dataclass(frozen=True, eq=False)
class Chosen:
    """Examples with their row numbers in the set that they were taken from, which decide their noise.

    Attributes:
        x, labels: (n, *shape) symbols and (n,) classes or None.
        rows: n row numbers.
        units: how their values were made of the original ones, or None.
    """

    x: Tensor
    labels: Tensor | None
    rows: Sequence[int]
    units: Units | None = None

    def __len__(self) -> int:
        return len(self.x)

    def take(self, places: Sequence[int]) -> Chosen:
        """The examples at these places, in this order."""
        index = torch.as_tensor(places, dtype=torch.long, device=self.x.device)
        labels = None if self.labels is None else self.labels[index]
        return Chosen(self.x[index], labels, [self.rows[place] for place in places], self.units)

    def batches(self, model: Model, seed: int, size: int) -> Iterator[tuple[Batch, Context | None]]:
        """Batches as the model takes them: on its device, whole numbers wide enough to reckon with, labels as a context."""
        if size < 1:
            raise ValueError(f"batch_size is {size}; it must be at least 1")
        like = model.anchor
        for start in range(0, len(self), size):
            x, rows = self.x[start : start + size], self.rows[start : start + size]
            labels = None if self.labels is None else self.labels[start : start + size].to(like.device)
            x = x.to(like) if model.spec.levels is None else x.to(like.device, torch.long)
            yield Batch(x, labels, seed, rows), context_of(model, len(x), labels, None)


def chosen_examples(model: Model, data: Data, split: str, limit: int | None, seed: int) -> tuple[Chosen, dict[str, Any]]:
    """The examples to judge a model on, and a note on them.

    Args:
        data: `Splits`, or what ``load_data`` makes `Splits` of when it is a name or a path, of which one set is taken; or
            `Examples`, a tensor or an array, taken whole.
        limit: at most so many, a seeded choice.

    Raises:
        DataError: there are no examples, or they are not what the model is a model of.
        ValueError: there is no such split, or limit is below 1.
    """
    if limit is not None and limit < 1:
        raise ValueError(f"limit is {limit}; it must be at least 1 (None takes all examples)")
    data = load_data(data) if isinstance(data, (str, os.PathLike)) else data
    units = data.units if isinstance(data, Splits) else None
    if isinstance(data, Splits):
        if split not in PARTS:
            raise ValueError(f"there is no split {split!r}; choose one of {', '.join(PARTS)}")
        _check_spec(data.spec, model.spec, data.name)
        examples: Examples = getattr(data, split)
        note = _note_of(data, split)
    else:
        examples = data if isinstance(data, Examples) else Examples(_tensor(data, model.spec))
        note = _note_of_array(examples.x, model.spec)
    check_symbols(examples.x, model.spec)
    if not len(examples):
        raise DataError("there are no examples to evaluate on")
    rows = range(len(examples)) if limit is None else sorted(permutation(len(examples), seed, LIMIT)[:limit].tolist())
    labels = examples.labels if getattr(model.config, "conditional", False) else None
    note |= {"examples": len(rows), "available": len(examples), "labels": labels is not None}
    return Chosen(examples.x, labels, range(len(examples)), units).take(list(rows)), note


def check_costs(nats: Tensor, chosen: Chosen, spec: DataSpec) -> None:
    """Refuse costs that are not finite, because any mean with them says nothing.

    Args:
        nats: (..., n) costs of the examples.

    Raises:
        DataError: there are some; the message says what is likely wrong.
    """
    wrong = (~nats.cpu().isfinite()).reshape(-1, len(chosen)).any(0).nonzero()[:, 0].tolist()
    if not wrong:
        return
    found = f"{len(wrong):,} of {len(chosen):,} examples cost no finite number of nats, first row {chosen.rows[wrong[0]]}"
    if spec.density:
        size = float(chosen.x[wrong[0]].abs().max())
        raise DataError(
            f"{found}, whose values reach {size:.4g} in size: they are likely in other units than those that the model was"
            " trained in; train on standardised data (standardize=True, --standardize) and convert others by the same units"
        )
    raise DataError(
        f"{found}: the model gives some of its symbols probability 0, or its weights are not finite; see how its training ended"
    )


def counter(progress: Progress | None, total: int) -> Tick:
    """A function that adds to the work done, and tells (done, of how much)."""
    done = 0

    def tick(amount: int) -> None:
        nonlocal done
        done += amount
        if progress is not None:
            progress(done, total)

    return tick


def _check_spec(data: DataSpec, model: DataSpec, name: str) -> None:
    if (data.shape, data.levels, data.columns) != (model.shape, model.levels, model.columns):
        mine, wanted = (f" and columns={spec.columns}" if spec.columns else "" for spec in (data, model))
        raise DataError(
            f"{name} has examples of shape {data.shape} with levels={data.levels}{mine}, and the model takes {model.shape} with"
            f" levels={model.levels}{wanted}: read the data as they were read for training (levels=, binarize=, size=, channels=)"
        )


def _tensor(data: Any, spec: DataSpec) -> Tensor:
    if not isinstance(data, Tensor | np.ndarray):
        raise DataError(f"data of type {type(data).__name__}; give a name, a path, Splits, Examples, a tensor or an array")
    x = torch.as_tensor(data)
    return x.float() if spec.levels is None and not x.is_floating_point() else x


def _note_of(data: Splits, split: str) -> dict[str, Any]:
    drawn = [step for step in data.note.rstrip(".").split("; ") if "binarised" in step]
    note = {"name": data.name, "split": split, "range": _range(data.spec), "binarisation": drawn[0] if drawn else None}
    if data.units is not None:
        note["units"] = f"the original ones; in those of the model {-data.units.nats:+.4f} nats an example"
    return {**note, "note": data.note, "hash": data.hash}


def _note_of_array(x: Tensor, spec: DataSpec) -> dict[str, Any]:
    content = x.detach().cpu().contiguous()
    digest = hashlib.sha256(f"{content.dtype} {tuple(content.shape)}".encode())
    digest.update(content.numpy().reshape(-1).data)
    note = {"name": "array", "split": "as given", "range": _range(spec), "binarisation": None}
    return {**note, "note": f"array of shape {tuple(x.shape)}, its origin unknown", "hash": digest.hexdigest()}


def _range(spec: DataSpec) -> str:
    if spec.whole_columns:
        return f"{len(spec.whole_columns)} of {spec.sites} columns whole numbers"
    return "real values" if spec.levels is None else f"0 .. {spec.levels - 1}"
