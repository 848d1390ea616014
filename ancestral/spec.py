"""What data are, in which order their symbols are settled, and how a training run is cut into stages.

Free of torch, so that configurations and the command line's help load quickly.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from math import prod
from typing import Any

KINDS = ("image", "audio", "text", "vector")


@dataclass(frozen=True)
class DataSpec:
    """The kind, shape and alphabet of one example.

    Attributes:
        kind: ``"image"`` (C, H, W), ``"audio"`` (T,), ``"text"`` (T,) or ``"vector"`` (D,).
        shape: sizes of one example; ``None`` stands for a length that varies.
        levels: number of values of a symbol, which are 0 .. levels - 1; ``None`` for real values.
        classes: number of labels where the data have them, else ``None``.

    Raises:
        ValueError: a field is outside what is listed above.

    Example:
        >>> DataSpec("image", (1, 28, 28), levels=256).sites
        784
    """

    kind: str
    shape: tuple[int | None, ...]
    levels: int | None = None
    classes: int | None = None

    def __post_init__(self) -> None:
        object.__setattr__(self, "shape", tuple(self.shape))
        if self.kind not in KINDS:
            raise ValueError(f"kind is {self.kind!r}; it must be one of {', '.join(KINDS)}")
        dimensions = 3 if self.kind == "image" else 1
        if len(self.shape) != dimensions:
            raise ValueError(f"an example of kind {self.kind!r} has {dimensions} dimensions, not shape {self.shape}")
        if any(size is not None and size < 1 for size in self.shape):
            raise ValueError(f"shape {self.shape} has a size below 1")
        if self.levels is not None and self.levels < 2:
            raise ValueError(f"levels is {self.levels}; a symbol needs at least 2 values (None for real values)")
        if self.classes is not None and self.classes < 2:
            raise ValueError(f"classes is {self.classes}; labels need at least 2 (None for no labels)")

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
        return {"kind": self.kind, "shape": list(self.shape), "levels": self.levels, "classes": self.classes}

    @classmethod
    def from_dict(cls, fields: Mapping[str, Any]) -> DataSpec:
        """The spec that ``to_dict`` wrote."""
        return cls(fields["kind"], tuple(fields["shape"]), fields["levels"], fields.get("classes"))


@dataclass(frozen=True)
class Order:
    """Which site is settled i-th.

    Attributes:
        sites: a permutation of 0 .. D - 1, positions in an example flattened row-major.

    Example:
        >>> Order.raster((2, 1, 2)).sites  # two colours, one row, two columns: colours of a pixel come together
        (0, 2, 1, 3)
    """

    sites: tuple[int, ...]

    @classmethod
    def raster(cls, shape: tuple[int, ...]) -> Order:
        """Row, then column, then channel for (C, H, W); left to right for (T,) and (D,)."""
        if len(shape) == 1:
            return cls(tuple(range(shape[0])))
        channels, height, width = shape
        area = height * width
        return cls(tuple(c * area + pixel for pixel in range(area) for c in range(channels)))


@dataclass(frozen=True)
class Stage:
    """One part of a training run.

    Attributes:
        name: what progress bars and logs call it.
        objective: a name in ``ancestral.objectives.OBJECTIVES``.
        options: keyword arguments of the objective, such as ``{"lambda_": 2.0}``.
        parts: names of the model's submodules that train; empty means all of them.
        share: part of the run's steps, relative to the other stages' shares.
        learning_rate: peak learning rate; ``None`` takes the trainer's.
    """

    name: str
    objective: str
    options: Mapping[str, float] = field(default_factory=dict)
    parts: tuple[str, ...] = ()
    share: float = 1.0
    learning_rate: float | None = None
