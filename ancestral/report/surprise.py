"""Single examples with what each of their symbols costs: pictures, waveforms, text and vectors, on one scale of colour."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from html import escape

import numpy as np
from matplotlib import colormaps
from numpy.typing import NDArray
from torch import Tensor

from ancestral.data.splits import Units
from ancestral.evaluation.complexity import Writing, samples, whole_numbers
from ancestral.report.figures import surprisal_over
from ancestral.report.images import Pixels, pixels
from ancestral.report.page import drawing, picture, tag, visible
from ancestral.spec import DataSpec
from ancestral.symbols import lengths

STEPS = 10  # shades of a text
LONGEST = 2000  # symbols of a text that are shown
UNKNOWN, LONGEST_CHARACTER = "\ufffd", 4  # what stands for bytes that are no character; bytes of UTF-8
Bits = NDArray[np.float64]


@dataclass(frozen=True)
class Scale:
    """The bits that the darkest and the lightest colour of a page stand for, and what has so many: a pixel, a symbol."""

    low: float
    high: float
    what: str

    @classmethod
    def of(cls, maps: Sequence[Bits], what: str) -> Scale:
        """A scale from zero, or from what is below it with densities, up to where one in a thousand is above."""
        values = np.concatenate([each.ravel() for each in maps])
        low = min(0.0, float(np.quantile(values, 0.001)))
        return cls(low, max(float(np.quantile(values, 0.999)), low + 1e-6), what)

    def place(self, bits: Bits) -> Bits:
        """(...) bits to 0 .. 1."""
        found: Bits = ((bits - self.low) / (self.high - self.low)).clip(0, 1)
        return found

    def colours(self, bits: Bits) -> Pixels:
        """(H, W) bits to (H, W, 3) bytes."""
        found: Pixels = colormaps["magma"](self.place(bits), bytes=True)[..., :3]
        return found


@dataclass(frozen=True)
class Shower:
    """How the examples of a model are shown.

    Attributes:
        spec: what they are.
        units: how they were made of whole numbers, where they were.
        notation: how their symbols stand for text, where it is known.
    """

    spec: DataSpec
    units: Units | None = None
    notation: Writing | None = None

    @property
    def unit(self) -> str:
        """What the colours of an example tell the bits of."""
        return {"image": "a pixel", "audio": "a sample", "text": "a symbol", "vector": "a value"}[self.spec.kind]

    def map(self, x: Tensor, bits: Tensor) -> Bits:
        """The bits to show of one example (*shape): (H, W) of pixels, else (T,) up to its end, parts of a sample added up."""
        if self.spec.kind == "image":
            return bits.double().sum(0).numpy()
        length = int(lengths(x[None], self.spec)[0])
        kept = bits.double()[: length + (length < len(bits))].numpy()  # the end was paid for too
        return np.add.reduceat(kept, np.arange(0, len(kept), self.spec.parts))

    def show(self, x: Tensor, bits: Bits, scale: Scale, name: str) -> str:
        """One example (*shape) with its map, as HTML."""
        if self.spec.kind == "image":
            return self._image(x, bits, scale, name)
        if self.spec.kind == "text":
            return self._text(x, bits, scale)
        place = "sample" if self.spec.kind == "audio" else "value"
        drawn = surprisal_over(self._wave(x, len(bits)), bits, (scale.low, scale.high), place)
        return drawing(drawn, f"{name}: bits of each {place}")

    def _wave(self, x: Tensor, count: int) -> Bits | None:
        """(count,) samples of sound, silent where it has ended."""
        if self.spec.kind != "audio":
            return None
        kept = x[: int(lengths(x[None], self.spec)[0])]
        if self.spec.levels is None:
            wave = kept.numpy()
        else:
            wave = samples(kept.numpy(), self.spec) if self.notation is None else np.asarray(self.notation.decode(kept))
        return np.pad(wave.astype(np.float64), (0, count - len(wave)))

    def _image(self, x: Tensor, bits: Bits, scale: Scale, name: str) -> str:
        shown, whole = [scale.colours(bits)], whole_numbers(x[None], self.spec, self.units)
        levels = self.spec.levels or 256
        if whole is not None and x.shape[0] in (1, 3) and int(whole.max()) < levels:
            image = pixels(whole, levels)[0]
            shown.insert(0, image if image.shape[2] == 3 else image.repeat(3, 2))
        alt = f"{name} and its surprisal" if len(shown) > 1 else f"surprisal of {name}"
        return picture(np.stack(shown), len(shown), alt)

    def _text(self, x: Tensor, bits: Bits, scale: Scale) -> str:
        length = int(lengths(x[None], self.spec)[0])
        spans = [shaded(piece, cost, scale) for piece, cost in self._pieces(x[:length][:LONGEST], bits)]
        if length > LONGEST:
            spans.append(tag("span", f" … {length - LONGEST:,} more symbols", class_="soft"))
        elif length < len(x):
            spans.append(shaded("⏹", float(bits[length]), scale))
        return tag("div", *spans, class_="text")

    def _pieces(self, x: Tensor, bits: Bits) -> Iterator[tuple[str, float]]:
        """The symbols of a text as characters with their bits, several of them together where one is no whole character."""
        start = 0
        for end, symbol in enumerate(x.tolist(), 1):
            text = f"{symbol} " if self.notation is None else _decoded(self.notation.decode(x[start:end]))
            if text.endswith(UNKNOWN) and end - start < LONGEST_CHARACTER and end < len(x):
                continue
            yield text, float(bits[start:end].sum())
            start = end


def _decoded(text: str | bytes) -> str:
    return text if isinstance(text, str) else text.decode(errors="replace")


def shaded(text: str, bits: float, scale: Scale) -> str:
    """Text on a shade of what it cost."""
    step = round(float(scale.place(np.array(bits))) * STEPS)
    return tag("span", escape(visible(text)), class_=f"s{step}", title=f"{bits:.2f} bits")


def legend(spec: DataSpec, scale: Scale) -> str:
    """What the colours mean."""
    low, high = f"{scale.low:.1f}", f"{scale.high:.1f} bits {scale.what} and more"
    if spec.kind == "text":
        steps = [tag("span", " ", class_=f"s{step}") for step in range(STEPS + 1)]
        return tag("p", f"{low} ", tag("span", *steps, class_="text"), f" {high}", class_="legend")
    if spec.kind != "image":
        return ""
    stops = ", ".join("rgb({}, {}, {})".format(*each) for each in scale.colours(np.linspace(scale.low, scale.high, 9)))
    bar = tag("span", class_="bar", style=f"background: linear-gradient(to right, {stops})")
    return tag("p", f"{low} ", bar, f" {high}", class_="legend")


def extremes(costs: Tensor, count: int) -> list[tuple[str, list[int]]]:
    """The places of at most ``count`` of (n,) costs: the lowest, those in the middle and the highest, each from low to high.

    Example:
        >>> import torch
        >>> extremes(torch.tensor([5.0, 1.0, 4.0, 2.0, 3.0]), 3)
        [('least surprising', [1]), ('in the middle', [4]), ('most surprising', [0])]
    """
    ranked = costs.argsort(stable=True).tolist()
    if len(ranked) <= count:
        return [("all, the least surprising first", ranked)]
    few = max(1, count // 3)
    middle = (len(ranked) - few) // 2
    found = [("in the middle", ranked[middle : middle + few]), ("most surprising", ranked[-few:])]
    return [("least surprising", ranked[: max(1, count - 2 * few)]), *found]
