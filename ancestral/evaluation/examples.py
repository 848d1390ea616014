"""Which examples are judged, in which batches, and what is said of them beside every figure."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from ancestral.core import Context
from ancestral.data.features import mel_of
from ancestral.data.loading import load_data
from ancestral.data.notation import Notation, Text, unlike
from ancestral.data.source import LIMIT, PARTS, permutation
from ancestral.data.splits import Examples, ExampleSet, Splits, Units
from ancestral.data.tapes import Pieces
from ancestral.objectives import Batch, with_grid
from ancestral.sampling.strategies import Model, Progress, context_of
from ancestral.spec import DataSpec, check_whole
from ancestral.symbols import DataError, trimmed

AT_ONCE = 256  # examples that are read together where only their bytes are counted
SUBSET = 2  # what a permutation is for, beside those of ``data.source``
Data = Splits | Examples | Pieces | Tensor | NDArray[Any] | str | os.PathLike[str]
Tick = Callable[[int], None]


@dataclass(frozen=True, eq=False)
class Chosen:
    """Examples of a set, read batch by batch.

    Attributes:
        examples, places: the set, and where in it the n examples are.
        rows: n row numbers, which decide their noise.
        units: how their values were made of the original ones, or None.
        notation: how their symbols are written, or None.
        told: whether models are told the labels.
    """

    examples: ExampleSet
    places: Sequence[int]
    rows: Sequence[int]
    units: Units | None = None
    notation: Notation | None = None
    told: bool = True

    def __len__(self) -> int:
        return len(self.places)

    @property
    def x(self) -> Tensor:
        """(n, *shape) symbols of all of them."""
        return self.examples.select(self.places).x

    @property
    def labels(self) -> Tensor | None:
        """(n,) classes that models are told, or None."""
        labels = self.examples.labels
        return None if labels is None or not self.told else labels[torch.as_tensor(self.places, device=labels.device)]

    def take(self, places: Sequence[int]) -> Chosen:
        """The examples at these places, in this order."""
        some = [[numbers[place] for place in places] for numbers in (self.places, self.rows)]
        return replace(self, places=some[0], rows=some[1])

    def lengths(self, spec: DataSpec) -> Tensor:
        """(n,) how many symbols each has, its end not counted."""
        return self.examples.lengths(spec).cpu()[torch.as_tensor(self.places, dtype=torch.long)]

    def bytes(self, spec: DataSpec) -> int | None:
        """How many bytes of text they are together; None where they are none."""
        if not isinstance(self.notation, Text):
            return None
        if self.notation.code == "bytes":
            return int(self.lengths(spec).sum())
        widths = torch.from_numpy(np.append(self.notation.widths, 0))  # nothing for the end
        some = (self.places[i : i + AT_ONCE] for i in range(0, len(self), AT_ONCE))
        return sum(int(widths[self.examples.select(places).x.long()].sum()) for places in some)

    def batches(self, model: Model, seed: int, size: int) -> Iterator[tuple[Batch, Context | None]]:
        """Batches as the model takes them: on its device, whole numbers wide enough to reckon with, labels as a context."""
        check_whole(batch_size=size)
        if size < 1:
            raise ValueError(f"batch_size is {size}; it must be at least 1")
        like, mel = model.anchor, mel_of(model.config, self.notation)
        for start in range(0, len(self), size):
            rows = self.rows[start : start + size]
            found = self.examples.select(self.places[start : start + size])
            labels = found.labels.to(like.device) if found.labels is not None and self.told else None
            x = found.x.to(like) if model.spec.levels is None else trimmed(found.x.to(like.device, torch.long), model.spec)
            grid = None if mel is None else mel(x)
            context = with_grid(context_of(model, len(x), labels, None), grid, like)
            yield Batch(x, labels, seed, rows, grid=grid), context


def chosen_examples(model: Model, data: Data, split: str, limit: int | None, seed: int) -> tuple[Chosen, dict[str, Any]]:
    """The examples to judge a model on, and a note on them.

    Args:
        data: `Splits`, or what ``load_data`` makes `Splits` of when it is a name or a path, of which one set is taken; or
            `Examples`, `Pieces`, a tensor or an array, taken whole.
        limit: at most so many, a seeded choice.

    Raises:
        DataError: there are no examples, or they are not what the model is a model of.
        ValueError: there is no such split, or limit is below 1.
    """
    if limit is not None and limit < 1:
        raise ValueError(f"limit is {limit}; it must be at least 1; leave it out to take all examples")
    data = load_data(data) if isinstance(data, (str, os.PathLike)) else data
    units, notation = (data.units, data.notation) if isinstance(data, Splits) else (None, None)
    if isinstance(data, Splits):
        if split not in PARTS:
            raise ValueError(f"there is no split {split!r}; choose one of {', '.join(PARTS)}")
        _check_spec(data.spec, model.spec, data.name)
        _check_written(data, model)
        examples: ExampleSet = getattr(data, split)
        note = _note_of(data, split)
    else:
        examples = data if isinstance(data, Examples | Pieces) else Examples(_tensor(data, model.spec))
        note = _note_of_array(examples.x, model.spec)
    examples.check(model.spec)
    if not len(examples):
        raise DataError("there are no examples to evaluate on")
    rows = list(range(len(examples)) if limit is None else sorted(permutation(len(examples), seed, LIMIT)[:limit].tolist()))
    if None in model.spec.shape:  # batches of examples of about one length compute little for what they are filled up with
        rows.sort(key=examples.lengths(model.spec).tolist().__getitem__)
    told = examples.labels is not None and model.conditional
    followed = getattr(model.config, "condition", "none")
    note |= {"examples": len(rows), "available": len(examples), "labels": told}
    note |= {} if followed == "none" else {"features": followed}
    return Chosen(examples, rows, rows, units, notation, told), note


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
    if (data.shape, data.levels, data.columns, data.parts) != (model.shape, model.levels, model.columns, model.parts):
        mine, wanted = (f" and columns={spec.columns}" if spec.columns else "" for spec in (data, model))
        options = "notation=, pieces=, length=, rate=" if model.sequence else "levels=, binarize=, size=, channels="
        raise DataError(
            f"{name} has examples of shape {data.shape} with levels={data.levels}{mine}, and the model takes {model.shape} with"
            f" levels={model.levels}{wanted}: read the data as they were read for training ({options})"
        )


def _check_written(data: Splits, model: Model) -> None:
    """Refuse symbols that stand for something else than those that the model was trained on, where that is known."""
    if fault := unlike(data.notation, model.notation):
        raise DataError(f"{data.name}: symbols {fault}: give the call that read the data notation=model.notation")
    if model.units is not None and (data.units is None or not data.units.same(model.units)):
        raise DataError(
            f"{data.name} is in other units than those that the model was trained in: give the call that read the data"
            " units=model.units, in place of standardize or dequantize"
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
    if data.notation is not None:
        note["notation"] = data.notation.in_words()
    content = {} if data.content == data.hash else {"content": data.content}  # by which earlier versions called the data
    return {**note, "note": data.note, "hash": data.hash, **content}


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
