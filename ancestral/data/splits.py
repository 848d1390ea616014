"""Examples, and the three sets that a model is trained, chosen and judged on."""

from __future__ import annotations

import hashlib
import json
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any, Protocol, Self

import torch
from torch import Tensor

from ancestral.data.notation import Notation
from ancestral.draw import uniforms
from ancestral.spec import DataSpec
from ancestral.symbols import DataError, check_symbols, lengths


class ExampleSet(Protocol):
    """A set of examples: tensors (`Examples`), or what is read when it is asked for (`Pieces`)."""

    @property
    def x(self) -> Tensor:
        """(n, \\*shape) symbols of all examples."""

    @property
    def labels(self) -> Tensor | None:
        """(n,) int64 classes, or None."""

    def __len__(self) -> int:
        """How many examples there are."""

    def select(self, rows: Tensor | Sequence[int]) -> Examples:
        """The examples at (m,) row numbers, in that order."""

    def labelled(self, labels: Tensor) -> Self:
        """The same examples with other (n,) labels."""

    def lengths(self, spec: DataSpec) -> Tensor:
        """(n,) how many symbols each example has, its end not counted."""

    def check(self, spec: DataSpec) -> None:
        """Raise ``DataError`` where the examples do not fit a spec."""

    def feed(self, digest: hashlib._Hash) -> None:
        """Add what the examples hold to a hash."""


@dataclass(frozen=True, eq=False)
class Examples:
    """A set of examples in memory.

    Attributes:
        x: (n, \\*shape) symbols 0 .. levels - 1, uint8 wherever they fit, or float32 where the data are real-valued.
        labels: (n,) int64 classes, or None.

    Raises:
        DataError: there are more or fewer labels than examples.

    Example:
        >>> Examples(torch.tensor([[0, 1], [1, 1], [0, 0]])).select([2, 0]).x.tolist()
        [[0, 0], [0, 1]]
    """

    x: Tensor
    labels: Tensor | None = None

    def __post_init__(self) -> None:
        if self.labels is not None and tuple(self.labels.shape) != (len(self.x),):
            raise DataError(f"labels of shape {tuple(self.labels.shape)} for {len(self.x):,} examples: give one label each")

    def __len__(self) -> int:
        return len(self.x)

    def select(self, rows: Tensor | Sequence[int]) -> Examples:
        """The examples at (m,) row numbers, in that order."""
        rows = torch.as_tensor(rows, dtype=torch.long, device=self.x.device)
        labels = None if self.labels is None else self.labels.index_select(0, rows)
        return Examples(self.x.index_select(0, rows), labels)

    def labelled(self, labels: Tensor) -> Self:
        """The same examples with other (n,) labels."""
        return replace(self, labels=labels)

    def lengths(self, spec: DataSpec) -> Tensor:
        """(n,) how many symbols each example has, its end not counted."""
        return lengths(self.x.flatten(1), spec)

    def check(self, spec: DataSpec) -> None:
        """Raise ``DataError`` where the examples do not fit a spec."""
        check_symbols(self.x, spec)

    def feed(self, digest: hashlib._Hash) -> None:
        """Add the symbols and labels to a hash."""
        feed_tensor(digest, self.x)
        feed_tensor(digest, self.labels)


def feed_tensor(digest: hashlib._Hash, tensor: Tensor | None) -> None:
    """Add a tensor's type, shape and content to a hash, or that there is none."""
    if tensor is None:
        digest.update(b"none")
        return
    digest.update(f"{tensor.dtype} {tuple(tensor.shape)}".encode())
    digest.update(tensor.detach().cpu().contiguous().numpy().reshape(-1).data)


@dataclass(frozen=True, eq=False)
class Units:
    """The change of units of real-valued data: x = (original - mean) / scale.

    Attributes:
        mean, scale: (\\*shape) float64, in the units of the original.
        dequantized: the originals are whole numbers v with noise, v + u, u uniform in [0, 1). Then the mean of -log p(original)
            over u is an upper bound of -log P(v), P the integral of p from v to v + 1 (Theis et al., arXiv:1511.01844).
    """

    mean: Tensor
    scale: Tensor
    dequantized: bool = False

    @property
    def nats(self) -> float:
        """log p(original) = log p(x) - nats, for densities of one example."""
        return float(self.scale.log().sum())

    def nats_of(self, known: Tensor) -> float:
        """The same for the density of some sites alone: booleans that broadcast to \\*shape, True where a site counts."""
        return float(self.scale.log().where(known.to(self.scale.device), 0.0).sum())

    def convert(self, original: Tensor) -> Tensor:
        """(n, \\*shape) originals to x, in float64."""
        return (original.double() - self.mean.to(original.device)) / self.scale.to(original.device)

    def restore(self, x: Tensor) -> Tensor:
        """(n, \\*shape) values x to the original units; where these are dequantised, ``floor`` gives whole numbers."""
        return x * self.scale.to(x) + self.mean.to(x)

    def same(self, other: Units) -> bool:
        """Whether another change of units is this one."""
        alike = torch.equal(self.mean, other.mean) and torch.equal(self.scale, other.scale)
        return alike and self.dequantized == other.dequantized

    def to_dict(self) -> dict[str, Any]:
        """The attributes as JSON has them; the inverse of ``from_dict``."""
        return {"mean": self.mean.tolist(), "scale": self.scale.tolist(), "dequantized": self.dequantized}

    @classmethod
    def from_dict(cls, fields: Mapping[str, Any]) -> Units:
        """The units that ``to_dict`` wrote."""
        mean, scale = (torch.tensor(fields[name], dtype=torch.float64) for name in ("mean", "scale"))
        return cls(mean, scale, bool(fields["dequantized"]))


class Redrawn(ABC):
    """Training examples that a trainer draws anew whenever it meets them: noise, or windows of something longer."""

    rule: str = ""  # what decides the draws besides the training set and its values before noise, for the hash of the data

    @abstractmethod
    def __len__(self) -> int:
        """How many there are: those of ``Splits.train``."""

    @abstractmethod
    def draw(self, rows: Tensor, seed: int, stream: int = 0) -> Tensor:
        """(m,) row numbers to (m, \\*shape) examples; each row is a pure function of (seed, stream, row)."""


@dataclass(frozen=True, eq=False)
class Noisy(Redrawn):
    """Training examples before noise.

    Attributes:
        x: (n, \\*shape) whole numbers, row by row those of ``Splits.train``.
    """

    x: Tensor

    def __len__(self) -> int:
        return len(self.x)

    @abstractmethod
    def noisy(self, x: Tensor, u: Tensor) -> Tensor:
        """(m, \\*shape) rows of x and uniforms in (0, 1), float64, to what a model is trained on."""

    def draw(self, rows: Tensor, seed: int, stream: int = 0) -> Tensor:
        """(m,) row numbers to (m, \\*shape) examples; each row is a pure function of (seed, stream, row)."""
        return torch.cat(
            [self._draw(some, seed, stream) for some in torch.split(rows, 1024)]
        )  # the uniforms take 8 bytes a pixel

    def _draw(self, rows: Tensor, seed: int, stream: int) -> Tensor:
        x = self.x.index_select(0, rows.to(self.x.device))
        sites = x[0].numel() if len(x) else 0
        u = torch.cat([uniforms(seed, range(row, row + 1), sites, stream) for row in rows.tolist()] or [torch.empty(0, 0)])
        return self.noisy(x, u.view(x.shape).to(x.device))


@dataclass(frozen=True, eq=False)
class Grey(Noisy):
    """Grey values 0 .. levels - 1, to be binarised: a pixel is 1 with probability v / (levels - 1).

    Attributes:
        levels: number of grey values.
    """

    levels: int

    def noisy(self, x: Tensor, u: Tensor) -> Tensor:
        """(m, \\*shape) zeros and ones, uint8."""
        return (u * (self.levels - 1) <= x).to(torch.uint8)


@dataclass(frozen=True, eq=False)
class Dequantized(Noisy):
    """Whole numbers v, to be modelled by a density: x is v + u in the model's units, u uniform in [0, 1).

    Attributes:
        units: those units.
    """

    units: Units

    def noisy(self, x: Tensor, u: Tensor) -> Tensor:
        """(m, \\*shape) values, float32."""
        return self.units.convert(x + u).float()


@dataclass(frozen=True, eq=False)
class Splits:
    """Data cut into three sets that share no example unless the note says so.

    Attributes:
        train, validation, test: to learn from, to choose with, to report on.
        spec: kind, shape and alphabet of one example.
        name: what figures and run folders call the data.
        note: one sentence: origin, range, binarisation, split rule, number of examples.
        class_names: name of each label where the source has names, else empty.
        units: how real-valued data were standardised or dequantised, or None where they are as they were given.
        redrawn: what a trainer takes in the place of ``train``, where that is drawn anew at every use: binarised with
            ``"dynamic"``, dequantised, or windows of long texts and sounds; or None.
        notation: how the symbols of text or sound are written, or None.

    Raises:
        DataError: a set does not fit the spec.

    Example:
        >>> from ancestral.data import load_data
        >>> data = load_data("digits")
        >>> data.spec.shape, data.spec.levels, len(data.train)
        ((1, 8, 8), 17, 1439)
    """

    train: ExampleSet
    validation: ExampleSet
    test: ExampleSet
    spec: DataSpec
    name: str
    note: str
    class_names: tuple[str, ...] = ()
    units: Units | None = None
    redrawn: Redrawn | None = None
    notation: Notation | None = None

    def __post_init__(self) -> None:
        for part in self._parts.values():
            part.check(self.spec)
        if self.redrawn is not None and len(self.redrawn) != len(self.train):
            raise DataError(
                f"{len(self.redrawn):,} examples to draw anew for a training set of {len(self.train):,}: give as many"
            )

    @property
    def _parts(self) -> dict[str, ExampleSet]:
        return {"train": self.train, "validation": self.validation, "test": self.test}

    @cached_property
    def hash(self) -> str:
        """SHA-256 of the content in hexadecimal: spec, symbols and their notation, labels, values before noise, how windows are
        drawn; name and note do not count."""
        more = [] if self.notation is None else [json.dumps(self.notation.to_dict(), sort_keys=True)]
        more += [self.redrawn.rule] if self.redrawn is not None and self.redrawn.rule else []
        return hashlib.sha256("\n".join([self.content, *more]).encode()).hexdigest() if more else self.content

    @cached_property
    def content(self) -> str:
        """The same without notation and windows, as earlier runs recorded it."""
        spec = self.spec
        more = [part for part in (spec.columns, spec.end, spec.parts) if part not in ((), None, 1)]
        digest = hashlib.sha256(repr((spec.kind, spec.shape, spec.levels, spec.classes, *more)).encode())
        for part in self._parts.values():
            part.feed(digest)
        feed_tensor(digest, self.redrawn.x if isinstance(self.redrawn, Noisy) else None)
        return digest.hexdigest()

    def recorded_as(self, found: str) -> bool:
        """Whether a run that recorded this hash was trained on these data."""
        return found in (self.hash, self.content)

    def with_classes(self, names: Sequence[str]) -> Splits:
        """The same data with classes numbered as in a list of names, such as that of a run; names not in it come after them.

        Labels stay as they are where there is no name in common.
        """
        if set(names).isdisjoint(self.class_names) or tuple(names) == self.class_names:
            return self
        every = (*names, *(name for name in self.class_names if name not in names))
        number = torch.tensor([every.index(name) for name in self.class_names])
        train, validation, test = (
            each if each.labels is None else each.labelled(number[each.labels]) for each in self._parts.values()
        )
        spec = replace(self.spec, classes=len(every))
        return replace(self, train=train, validation=validation, test=test, spec=spec, class_names=every)

    def describe(self) -> dict[str, Any]:
        """What a run folder records of its data, as JSON has it."""
        return {
            "name": self.name,
            "note": self.note,
            "spec": self.spec.to_dict(),
            "sizes": {name: len(part) for name, part in self._parts.items()},
            "class_names": list(self.class_names),
            "hash": self.hash,
            **({} if self.units is None else {"units": self.units.to_dict()}),
            **({} if self.notation is None else {"notation": self.notation.to_dict()}),
        }
