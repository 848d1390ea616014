"""The operations of a Program that networks of tokens need: normalisation, rotation and attention.

A token is a site of a layout (1, T, 1), where sites lie one below the other: row t is token t.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from torch import Tensor

if TYPE_CHECKING:
    from ancestral.causal.layer import Clock
    from ancestral.causal.program import Part, Rounding


@dataclass(frozen=True, eq=False)
class Normalise:
    """target = gain (source - mean) / sqrt(mean of (source - mean)^2 + epsilon) + shift, means over the features of a place.

    Attributes:
        gain, shift: (N,).
        centred: whether the mean is that of the features; else it is 0, and the denominator their root mean square.
        scaling: in exact numerics, of which ``other`` is the gains' fraction; see `walking.exact.tokens`.
    """

    clock: Clock
    channel: int
    target: Part
    source: Part
    gain: Tensor
    shift: Tensor
    centred: bool
    epsilon: float
    backwards: bool = False
    scaling: Rounding | None = None


@dataclass(frozen=True, eq=False)
class Rotate:
    """Pairs of the first ``turned`` features turned by angles, the other features as they are.

    Features come in heads of as many as there are in ``angles``, which holds cosines, then sines, k / 2 of each. Feature i of a
    head and feature i + k / 2 make a pair: (a, b) becomes (a cos - b sin, b cos + a sin). ``scaling`` is that of exact numerics.
    """

    clock: Clock
    channel: int
    target: Part
    source: Part
    angles: Part
    turned: int
    backwards: bool = False
    scaling: Rounding | None = None


@dataclass(frozen=True, eq=False)
class Attend:
    """For every head a mean of the values of the last ``window`` rows, weighted by the softmax of query . key / sqrt(k).

    The rows are those up to the operation's own, which the buffers of ``keys`` and ``values`` remember; rows before the first do
    not count. Head h has features h k .. (h + 1) k - 1 of query and target; of keys and values there may be fewer heads, each
    then shared by as many heads of the query, one after the other.

    Attributes:
        heads: of the query.
        window: how many rows count, the own one included; as many as there are where all do.
        scaling: in exact numerics, of which ``other`` is the fraction of keys and values.
    """

    clock: Clock
    channel: int
    target: Part
    query: Part
    keys: Part
    values: Part
    heads: int
    window: int
    backwards: bool = False
    scaling: Rounding | None = None

    @property
    def size(self) -> int:
        """k, the features of a head."""
        return self.query.count // self.heads

    def multiply_adds(self, rows: int) -> float:
        """Products at one place, on average over so many rows."""
        seen = min(self.window, rows)
        return 2 * self.query.count * seen * (1 - (seen - 1) / (2 * rows))


TokenOperation = Normalise | Rotate | Attend
