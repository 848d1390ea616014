"""Twins of a model for sequences shorter than the longest of a file, so that short ones do not cost what that one does."""

from __future__ import annotations

from ancestral.core import OrderError
from ancestral.sampling.strategies import Model, arrange
from ancestral.walking.twin import Twin, restored

LEAST = 64  # symbols, below which nothing is gained


class Widths:
    """The twin of a model, and those for sequences half as long, a quarter, and so on, made as they are asked for.

    All of them compute the same: a symbol is told by those before it, not by how many will follow. Of a model whose network
    takes no other length there is one.

    Args:
        model: for sequences as long as the longest, or of anything else.
        whole: its twin.
        engine, threads: what computes.
    """

    def __init__(self, model: Model, whole: Twin, engine: str, threads: int) -> None:
        self.whole, self._model, self._with = whole, model, (engine, threads)
        self._made: dict[int, Twin] = {}

    def of(self, longest: int | None) -> Twin:
        """The twin for sequences of up to so many symbols; None asks for the first one."""
        width = full = 0 if longest is None else self._model.spec.sites
        while longest is not None and (half := self._half(width)) < width and half >= max(longest, LEAST):
            width = half
        if width == full:
            return self.whole
        if width not in self._made:
            self._made[width] = self._narrow(width)
        return self._made[width]

    def _half(self, width: int) -> int:
        parts = self._model.spec.parts
        return -(-width // (2 * parts)) * parts

    def _narrow(self, width: int) -> Twin:
        try:
            return restored(arrange(self._model, shape=(width,)), self.whole.calibration, *self._with)
        except OrderError:
            return self.whole
