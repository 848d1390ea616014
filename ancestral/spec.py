"""What data are, in which order their symbols are settled, and how a training run is cut into stages.

Free of torch, so that configurations and the command line's help load quickly.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from math import prod
from operator import index
from random import Random
from typing import Any, SupportsFloat

KINDS = ("image", "audio", "text", "vector")
SEQUENCES = ("audio", "text")  # those whose examples may be shorter than others


def check_whole(**given: object) -> None:
    """Raise ``ValueError`` where an argument that counts or numbers something, and is not None, is no whole number."""
    for name, value in given.items():
        if not (value is None or _whole(value)):
            raise ValueError(f"{name} is {value!r}; it must be a whole number")


def _whole(value: Any) -> bool:
    try:
        index(value)
    except TypeError:
        return False
    return not isinstance(value, bool)


def check_seed(seed: Any, name: str = "seed") -> None:
    """Raise ``ValueError`` where there is no noise of a seed."""
    check_whole(**{name: seed})
    if not 0 <= seed < 2**64:
        raise ValueError(f"{name} is {seed}; it must be at least 0 and below 2^64")


def check_real(**given: object) -> None:
    """Raise ``ValueError`` where an argument that measures something, and is not None, is no number."""
    for name, value in given.items():
        if not (value is None or isinstance(value, SupportsFloat)):
            raise ValueError(f"{name} is {value!r}; it must be a number")


@dataclass(frozen=True)
class DataSpec:
    """The kind, shape and alphabet of one example.

    Attributes:
        kind: ``"image"`` (C, H, W), ``"audio"`` (T,), ``"text"`` (T,) or ``"vector"`` (D,).
        shape: sizes of one example; ``None`` stands for a length that varies.
        levels: number of values of a symbol, which are 0 .. levels - 1; ``None`` for real values.
        classes: number of labels where the data have them, else ``None``.
        columns: levels of each column of a vector, ``None`` where it is real, if not all columns are; symbols are real numbers
            then, also the whole ones, and ``levels`` is ``None``.
        end: the symbol that ends an example, the highest level, where lengths vary; it also fills up shorter examples of a
            batch, and only the first of each counts. None where every symbol counts.
        parts: how many symbols make up one sample of audio, the most significant first: 2 for 16 bits as two bytes.

    Raises:
        ValueError: a field is outside what is listed above.

    Example:
        >>> DataSpec("image", (1, 28, 28), levels=256).sites
        784
        >>> DataSpec("vector", (3,), columns=(2, 5, None)).whole_columns  # a bit, one of five, a real value
        {0: 2, 1: 5}
    """

    kind: str
    shape: tuple[int | None, ...]
    levels: int | None = None
    classes: int | None = None
    columns: tuple[int | None, ...] = ()
    end: int | None = None
    parts: int = 1

    def __post_init__(self) -> None:
        object.__setattr__(self, "shape", tuple(self.shape))
        object.__setattr__(self, "columns", tuple(self.columns))
        if self.kind not in KINDS:
            raise ValueError(f"kind is {self.kind!r}; it must be one of {', '.join(KINDS)}")
        dimensions = 3 if self.kind == "image" else 1
        if len(self.shape) != dimensions:
            raise ValueError(f"an example of kind {self.kind!r} has {dimensions} dimensions, not shape {self.shape}")
        self._keep_whole()
        if any(size is not None and size < 1 for size in self.shape):
            raise ValueError(f"shape {self.shape} has a size below 1")
        if self.levels is not None and self.levels < 2:
            raise ValueError(f"levels is {self.levels}; a symbol needs at least 2 values (None for real values)")
        if self.classes is not None and self.classes < 2:
            raise ValueError(f"classes is {self.classes}; labels need at least 2 (None for no labels)")
        self._check_sequence()
        if self.columns and (self.kind != "vector" or self.levels is not None or self.shape != (len(self.columns),)):
            raise ValueError(
                f"columns={self.columns} are of a vector of {len(self.columns)} values with levels=None, not of kind"
                f" {self.kind!r}, shape {self.shape} and levels={self.levels}"
            )
        if any(levels < 2 for levels in self.whole_columns.values()):
            raise ValueError(f"columns={self.columns} has a column of fewer than 2 levels (None for real values)")

    def _keep_whole(self) -> None:
        """Numbers of NumPy's and PyTorch's types become Python's, which can be written as JSON."""
        for name in ("shape", "columns"):
            given = getattr(self, name)
            check_whole(**{f"{name}[{i}]": value for i, value in enumerate(given)})
            object.__setattr__(self, name, tuple(None if value is None else index(value) for value in given))
        for name in ("levels", "classes", "end", "parts"):
            value = getattr(self, name)
            check_whole(**{name: value})
            object.__setattr__(self, name, None if value is None else index(value))

    def _check_sequence(self) -> None:
        if self.end is not None and not (self.sequence and self.levels is not None and self.end == self.levels - 1):
            raise ValueError(
                f"end is {self.end}; it is the highest level of audio or text, not of {self.kind} with levels={self.levels}"
            )
        if None in self.shape and self.end is None:
            raise ValueError("a length that varies needs the symbol that ends an example: give end=levels - 1")
        if self.parts < 1 or (self.parts > 1 and (self.kind != "audio" or (self.shape[0] or 0) % self.parts)):
            raise ValueError(f"parts is {self.parts}; audio of so many symbols a sample has a multiple of them, not {self.shape}")

    @property
    def whole_columns(self) -> dict[int, int]:
        """The levels of those columns that hold whole numbers, where ``columns`` tells them apart."""
        return {i: levels for i, levels in enumerate(self.columns) if levels is not None}

    @property
    def sequence(self) -> bool:
        """Whether it is text or sound."""
        return self.kind in SEQUENCES

    @property
    def density(self) -> bool:
        """Whether a site is real-valued, so that likelihoods are densities and depend on its unit."""
        return self.levels is None and (not self.columns or None in self.columns)

    @property
    def sites(self) -> int:
        """Number of scalar symbols of one example: the D of bits/dim.

        Raises:
            ValueError: the length varies, so there is no such number.
        """
        sizes = [size for size in self.shape if size is not None]
        if len(sizes) < len(self.shape):
            raise ValueError(f"shape {self.shape} has a varying length: count the symbols of each example instead")
        return prod(sizes)

    def to_dict(self) -> dict[str, Any]:
        """The fields as JSON has them; the inverse of ``from_dict``."""
        always = {"kind": self.kind, "shape": list(self.shape), "levels": self.levels, "classes": self.classes}
        usual: dict[str, Any] = {"columns": [], "end": None, "parts": 1}
        extra = {"columns": list(self.columns), "end": self.end, "parts": self.parts}
        return always | {name: value for name, value in extra.items() if value != usual[name]}

    @classmethod
    def from_dict(cls, fields: Mapping[str, Any]) -> DataSpec:
        """The spec that ``to_dict`` wrote."""
        tuples = {name: tuple(fields[name]) for name in ("shape", "columns") if name in fields}
        return cls(**{**fields, **tuples})


class Trained:
    """What a model knows of the data it was trained on: None before it was trained or loaded, and where they have none.

    ``fit`` and ``load`` say so; a loop of your own sets them.

    Attributes:
        units: how its real values were made of the original ones, as ``Splits.units`` says.
        notation: how its symbols stand for text or sound, as ``Splits.notation`` says.
    """

    units: Any = None
    notation: Any = None


@dataclass(frozen=True)
class Symmetry:
    """How an image is turned before it is read row by row: one of the eight symmetries of a grid.

    Attributes:
        upward: the last row becomes the first.
        leftward: the last column becomes the first.
        transposed: after that, columns become rows.
    """

    upward: bool = False
    leftward: bool = False
    transposed: bool = False

    @property
    def name(self) -> str:
        """What orders are called, such as ``"columns-upward"``; ``"raster"`` for rows from the top left."""
        words = ["columns" if self.transposed else "rows"]
        words += [word for word, wanted in (("upward", self.upward), ("leftward", self.leftward)) if wanted]
        return "raster" if words == ["rows"] else "-".join(words)


SYMMETRIES = {s.name: s for s in (Symmetry(bool(i & 1), bool(i & 2), bool(i & 4)) for i in range(8))}


@dataclass(frozen=True)
class Order:
    """Which site is settled i-th.

    Attributes:
        sites: a permutation of 0 .. D - 1, positions in an example flattened row-major.

    Example:
        >>> Order.raster((2, 1, 2)).sites  # two colours, one row, two columns: colours of a pixel come together
        (0, 2, 1, 3)
        >>> Order.turned((1, 2, 3), Symmetry(leftward=True)).sites
        (2, 1, 0, 5, 4, 3)
    """

    sites: tuple[int, ...]

    @classmethod
    def raster(cls, shape: tuple[int, ...]) -> Order:
        """Row, then column, then channel for (C, H, W); left to right for (T,) and (D,)."""
        return cls(tuple(range(shape[0]))) if len(shape) == 1 else cls.turned(shape, Symmetry())

    @classmethod
    def turned(cls, shape: tuple[int, ...], symmetry: Symmetry) -> Order:
        """The raster order of a (C, H, W) image that was turned."""
        channels, height, width = shape
        rows = range(height)[:: -1 if symmetry.upward else 1]
        columns = range(width)[:: -1 if symmetry.leftward else 1]
        pixels = ((r, w) for w in columns for r in rows) if symmetry.transposed else ((r, w) for r in rows for w in columns)
        return cls(tuple((c * height + r) * width + w for r, w in pixels for c in range(channels)))

    @classmethod
    def shuffled(cls, shape: tuple[int, ...], seed: int) -> Order:
        """A random permutation, a pure function of the seed."""
        sites = list(range(prod(shape)))
        Random(seed).shuffle(sites)
        return cls(tuple(sites))


@dataclass(frozen=True)
class Stage:
    """One part of a training run.

    Attributes:
        name: what progress bars and logs call it.
        objective: a name in ``ancestral.objectives.OBJECTIVES``.
        options: keyword arguments of the objective, such as ``{"lambda_": 2.0}``.
        parts: names of the model's submodules that train, such as ``"topdown.prior"``; empty means all of them.
        share: part of the run's steps, relative to the other stages' shares.
        learning_rate: peak learning rate; ``None`` takes the trainer's.
    """

    name: str
    objective: str
    options: Mapping[str, float] = field(default_factory=dict)
    parts: tuple[str, ...] = ()
    share: float = 1.0
    learning_rate: float | None = None
