"""Recurrences: what a site computes is read again at later sites. In the graph, a layer's output is among its own inputs."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional

from ancestral.causal.layer import CausalityError, Clock, Composite, Labels, Layer, Reach, Signal
from ancestral.causal.lower import Lowering
from ancestral.causal.program import Add, Part, Point
from ancestral.causal.scan import Scan, Shifts
from ancestral.causal.window2d import WindowAffine


class Cell(Composite):
    """The elementwise part of an LSTM: c = f c' + i g, h = o tanh(c), with the logits of o, f, i and tanh's argument g given.

    Args:
        features: of h.
        above, left: where c' is found: so many rows above and columns to the left of the site.
    """

    def __init__(self, features: int, above: int, left: int) -> None:
        super().__init__()
        self.features, self.above, self.left = features, above, left

    def infer(self, inputs: Sequence[Signal]) -> tuple[Clock, Labels | None]:
        labels = inputs[0].labels
        return inputs[0].clock, labels and labels[: len(labels) // 4]

    def emit(self, lowering: Lowering, inputs: Sequence[Signal], output: Signal) -> int:
        h = lowering.claim("h", output, self.features)
        gates = lowering.buffer_of(inputs[0])
        added, kept, c = (lowering.like(h, name) for name in ("added", "kept", "c"))
        lowering.reserve(c, self.above, self.left)
        lowering.recurrent = True
        for channel, part in lowering.parts(h, output.clock):
            m, start = part.count, 4 * part.first if output.clock is Clock.SITE else 0
            o, f, i, g = (Part(gates, start + quarter * m, m) for quarter in range(4))
            at = output.clock, channel
            back = output.clock is Clock.ROW
            new, old = Part(c, part.first, m), Part(c, part.first, m, self.above, self.left)
            first, second = Part(added, part.first, m), Part(kept, part.first, m)
            lowering.operations += [
                Point(*at, first, g, "gate", i, back),
                Point(*at, second, old, "glu", f, back),
                Add(*at, new, first, second, False, back),
                Point(*at, part, new, "gate", o, back),
            ]
        return h


class LSTM(Layer):
    """A convolutional LSTM over the places of an image (van den Oord et al. 2016a, eq. 3), whose input term is given.

    (n, 4 c, H, W) input terms of o, f, i, g to (n, c, H, W) hidden values. Directions:

    - ``row``: h of the row above at columns w - 1 .. w + 1, c of the row above at w: whole rows at once.
    - ``diagonal``: h of the left and the upper neighbour, c of the left one: whole diagonals at once.
    - ``reverse``: as diagonal from the right. Its input must know no row but those above, as the paper's does once it is
      shifted down by one row; so a walk does the whole row, from right to left, before its first site.

    Args:
        labels: the colour channel of every hidden value, contiguous.
        direction: one of the above.
    """

    def __init__(self, labels: Labels, direction: str) -> None:
        super().__init__()
        h = len(labels)
        side = int(direction == "row")
        self.labels, self.direction = labels, direction
        self.above = Graded(h, labels * 4, Reach(above=1, left=side, right=side, own_row=False))
        toward = {"diagonal": Reach(left=1, own_site=False), "reverse": Reach(left=-1, right=1)}.get(direction)
        self.beside = None if toward is None else Graded(h, labels * 4, toward)
        self.cell = Cell(h, *{"row": (1, 0), "diagonal": (0, 1), "reverse": (0, -1)}[direction])

    def __call__(self, *inputs: Any) -> Any:
        return self.draw(inputs[0]) if isinstance(inputs[0], Signal) else super().__call__(*inputs)

    def infer(self, inputs: Sequence[Signal]) -> tuple[Clock, Labels | None]:
        return (Clock.ROW, None) if self.direction == "reverse" else (Clock.SITE, self.labels)

    def draw(self, x: Signal) -> Signal:
        """The recurrence as a graph: sums of the input term and windows of the output."""
        clock, labels = self.infer((x,))
        if clock < x.clock:
            raise CausalityError("the reverse direction reads whole rows: its input must know no row but those above")
        h = x.graph.add(clock, labels, x.scale)
        gates = x + self.above(h)
        gates = gates if self.beside is None else gates + self.beside(h)
        return x.graph.close(self.cell, (gates,), h)

    def forward(self, x: Tensor) -> Tensor:
        x = x.to(self.above.weight.dtype)  # also where maps are taken in half precision: c is a sum over many steps
        with torch.autocast(x.device.type, enabled=False):
            if self.beside is None:
                return scanned(x.permute(2, 3, 0, 1), (self.above,), (-1, 0, 1)).permute(2, 3, 0, 1)
            if self.direction == "diagonal":
                return self._diagonals(x, self.beside)
            return self._diagonals(x.flip(3), self.beside).flip(3)

    def _diagonals(self, x: Tensor, beside: Graded) -> Tensor:
        hidden = scanned(skew(x.permute(2, 3, 0, 1)), (beside, self.above), (0, -1))
        return unskew(hidden, x.shape[3]).permute(2, 3, 0, 1)


def scanned(x: Tensor, layers: Sequence[Graded], shifts: Shifts) -> Tensor:
    """(T, P, n, 4 c) input terms to (T, P, n, c) hidden values: see `Scan`, whose shifts are the windows' columns in turn."""
    weight = torch.cat([part for layer in layers for part in layer.weight[:, :, 0].unbind(2)], 1).T
    hidden: Tensor = Scan.apply(x, weight, shifts)  # type: ignore[no-untyped-call]
    return hidden


class Graded(WindowAffine):
    """A window of hidden values without a bias, whose outputs are graded: earlier sites are known whole, so all of it is read."""

    def __init__(self, before: int, labels: Labels, reach: Reach) -> None:
        super().__init__(before, len(labels), reach, bias=False)
        self.labels = labels

    def infer(self, inputs: Sequence[Signal]) -> tuple[Clock, Labels | None]:
        clock = Clock.ROW if not self.reach.own_row else inputs[0].clock
        return clock, self.labels if clock is Clock.SITE else None

    def weights(self, channel: int | None) -> tuple[Tensor, Tensor]:
        weight, bias = super().weights(channel)
        if channel is None:
            return weight, bias
        chosen = [i for i, label in enumerate(self.labels) if label == channel]
        return weight[..., chosen], bias[..., chosen]


def skew(x: Tensor) -> Tensor:
    """(H, W, n, c) to (W + H - 1, H, n, c): step t holds a diagonal, column t - r of row r at place r, zero outside the image.

    A recurrence without a bias stays zero before the first column, and nothing inside reads what is behind the last one.
    """
    height, width = x.shape[:2]
    steps = width + height - 1
    padded = functional.pad(x, (0, 0, 0, 0, 0, height)).flatten(0, 1)[: height * steps]
    return padded.view(height, steps, *x.shape[2:]).transpose(0, 1)


def unskew(y: Tensor, width: int) -> Tensor:
    """The inverse of ``skew``."""
    _, height, n, c = y.shape
    return y.as_strided((height, width, n, c), ((height + 1) * n * c, height * n * c, c, 1))
