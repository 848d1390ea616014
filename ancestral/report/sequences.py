"""The sections of a report that show text and sound: each returns HTML."""

from __future__ import annotations

from base64 import b64encode
from collections.abc import Sequence
from dataclasses import dataclass
from html import escape
from math import log

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from ancestral.core import Context
from ancestral.data.features import mel_of
from ancestral.data.notation import Notation, Sound, Text
from ancestral.data.sounds import wav
from ancestral.evaluation import surprisal
from ancestral.evaluation.complexity import samples as centred
from ancestral.latent.codes import coded
from ancestral.latent.latent import Latent
from ancestral.objectives import with_grid
from ancestral.report.figures import clips
from ancestral.report.page import drawing, figure, paragraph, section, tag, visible
from ancestral.report.surprise import LONGEST, Scale, Shower, legend
from ancestral.sampling import complete, interpolate, sample
from ancestral.sampling.strategies import Model, context_of, inference, sized
from ancestral.spec import DataSpec
from ancestral.symbols import lengths

FEW = 4  # samples, and examples that are completed or shown symbol by symbol
MOST = {"text": LONGEST, "audio": 2**15}  # symbols of a sample, and of an example that is shown
PLAYED = 2**20  # bytes of a clip that can be heard
COMPLETIONS = DRAWS = 2  # of one example
STEPS = 6  # between two examples
RATE = 8000  # of drawings of sound whose rate is not known


@dataclass(frozen=True)
class Sequences:
    """What the sections are of.

    Attributes:
        model: of text or sound in whole numbers.
        x, labels: (n, T) examples that it was not trained on, with (n,) labels where it is conditional.
        notation: how they are written, where that is known.
        seed: of everything that is drawn.
    """

    model: Model
    x: Tensor
    labels: Tensor | None
    notation: Notation | None
    seed: int

    @property
    def text(self) -> bool:
        """Whether the examples are text."""
        return self.model.spec.kind == "text"

    def context(self) -> Context | None:
        """What the examples are conditioned on, labels and features."""
        labels, mel = context_of(self.model, len(self.x), self.labels, None), mel_of(self.model.config, self.notation)
        return with_grid(labels, None if mel is None else mel(self.x), self.model.anchor)

    @property
    def sized(self) -> Model:
        """The model for examples as long as these."""
        return sized(self.model, tuple(self.x.shape[1:]))

    def upto(self, row: Tensor) -> Tensor:
        """The symbols of (T,) up to their end."""
        return row[: int(lengths(row[None], self.model.spec)[0])].cpu()

    def written(self, row: Tensor) -> str:
        """(T,) symbols as text."""
        kept = self.upto(row).tolist()
        return visible("".join(self.notation.pieces(kept)) if isinstance(self.notation, Text) else " ".join(map(str, kept)))

    def wave(self, row: Tensor) -> NDArray[np.floating]:
        """(T,) symbols as samples of sound in [-1, 1], one at least."""
        kept, spec = self.upto(row), self.model.spec
        if isinstance(self.notation, Sound):
            whole = self.notation.decode(kept).numpy() / 2.0**15
        else:
            whole = centred(kept.numpy(), spec) / (((spec.levels or 2) - (spec.end is not None)) ** spec.parts / 2)
        return np.asarray(whole if len(whole) else np.zeros(1))

    def heard(self, rows: Sequence[tuple[str, Tensor]], caption: str) -> str:
        """Clips with their names: drawn, and to be played where they are short."""
        rate = self.notation.rate if isinstance(self.notation, Sound) else RATE
        drawn = drawing(clips([self.wave(row) for _, row in rows], rate), ", ".join(name for name, _ in rows))
        players = "".join(self._player(name, row) for name, row in rows)
        return figure(drawn + tag("div", players, class_="players"), caption)

    def beside(self, groups: Sequence[Sequence[tuple[str, Tensor]]]) -> list[str]:
        """Groups of examples with their names, as text or to be heard."""
        if not self.text:
            return [self.heard(rows, f"Example {i}.") for i, rows in enumerate(groups, 1)]
        bodies = [
            "".join(tag("div", tag("span", escape(f"{name}: "), class_="soft"), escape(self.written(row))) for name, row in rows)
            for rows in groups
        ]
        return [figure(tag("div", body, class_="text"), f"example {i}") for i, body in enumerate(bodies, 1)]

    def _player(self, name: str, row: Tensor) -> str:
        label = tag("span", escape(name), class_="soft")
        if not isinstance(self.notation, Sound):
            return tag("label", label)
        content = wav(self.notation.decode(self.upto(row)).numpy(), self.notation.rate)
        if len(content) > PLAYED:
            return tag("label", label)
        source = f"data:audio/wav;base64,{b64encode(content).decode()}"
        return tag("label", label, tag("audio", controls="", preload="none", src=source))


def samples(subject: Sequences) -> str:
    """Samples, of sound beside examples."""
    model, n = subject.model, min(FEW, len(subject.x))
    context = subject.context()
    context = context and context.select(torch.arange(n, device=model.anchor.device))
    drawn = sample(subject.sized, n, seed=subject.seed, context=context)
    follow = "" if context is None else " Sample i has what example i is conditioned on"
    follow += "" if not follow else ", its label." if context and context.grid is None else ", its features among it."
    caption = f"{n} samples at temperature 1, seed {subject.seed}, not selected.{follow}"
    if subject.text:
        bodies = [tag("div", escape(subject.written(row)), class_="text") for row in drawn]
        texts = [figure(body, f"sample {i}") for i, body in enumerate(bodies, 1)]
        return section("Samples", paragraph(caption, "soft"), tag("div", *texts, class_="items text"))
    pairs = [("data", subject.x), ("sample", drawn)]
    named = [(name, [(f"{name} {i}", row) for i, row in enumerate(x[:n], 1)]) for name, x in pairs]
    shown = [subject.heard(rows, f"{name.capitalize()}.") for name, rows in named]
    return section("Samples", paragraph(caption, "soft"), *shown)


def completions(subject: Sequences) -> str:
    """Examples whose first half is known, with the second half drawn."""
    n = min(FEW, len(subject.x))
    parts, x, context = subject.model.spec.parts, subject.x[:n], subject.context()
    halves = lengths(x, subject.model.spec) // (2 * parts) * parts
    known = torch.arange(x.shape[1], device=x.device) < halves[:, None]
    context = context and context.select(torch.arange(n, device=subject.model.anchor.device)).repeat(COMPLETIONS)
    whole = x.repeat_interleave(COMPLETIONS, 0), known.repeat_interleave(COMPLETIONS, 0)
    done = complete(subject.sized, *whole, context=context, seed=subject.seed)
    caption = f"Held-out examples of which the first half is known, and {COMPLETIONS} continuations of it ({done.status})."
    rows = done.x.view(n, COMPLETIONS, -1)
    if not subject.text:
        names = ["data", *(f"continuation {j + 1}" for j in range(COMPLETIONS))]
        shown = [
            subject.heard(list(zip(names, [x[i], *rows[i]], strict=True)), f"Example {i + 1}: the first half is known.")
            for i in range(n)
        ]
        return section("Completion", paragraph(caption, "soft"), *shown)
    shown = []
    for i, half in enumerate(halves.tolist()):
        ways = [tag("mark", escape(subject.written(row[half:]))) for row in rows[i]]
        known_part = escape(subject.written(x[i, :half]))
        shown += [figure(tag("div", known_part, way, class_="text"), f"example {i + 1}") for way in ways]
    return section("Completion", paragraph(caption, "soft"), tag("div", *shown, class_="items text"))


def reconstructions(subject: Sequences) -> str:
    """Examples beside what is drawn given the mean of the posterior of their z."""
    model, n = subject.model, min(FEW, len(subject.x))
    if not isinstance(model, Latent):
        return ""
    labels = None if subject.labels is None else subject.labels[:n]
    with inference(model):
        z = model.encode(subject.x[:n], context_of(model, n, labels, None))
    repeated = {name: values.repeat_interleave(DRAWS, 0) for name, values in z.items()}
    again = None if labels is None else labels.repeat_interleave(DRAWS)
    drawn = sample(subject.sized, n * DRAWS, z=repeated, labels=again, seed=subject.seed).view(n, DRAWS, -1)
    mean = "x determines" if coded(model) else "is the mean of the posterior"
    caption = f"Held-out examples, and {DRAWS} drawn given z, which {mean}: what they share z has kept."
    names = ["data", *(f"draw {j + 1}" for j in range(DRAWS))]
    rows = [list(zip(names, [subject.x[i], *drawn[i]], strict=True)) for i in range(n)]
    return section("Reconstructions", paragraph(caption, "soft"), *subject.beside(rows))


def interpolations(subject: Sequences) -> str:
    """What lies between examples."""
    model, pairs = subject.model, min(FEW, len(subject.x)) // 2
    if not isinstance(model, Latent) or coded(model) or not pairs:
        return ""
    a, b = subject.x[:pairs], subject.x[pairs : 2 * pairs]
    labels = None if subject.labels is None else subject.labels[:pairs]
    way = interpolate(subject.sized, a, b, STEPS, seed=subject.seed, labels=labels)
    caption = f"Pairs of held-out examples, and {STEPS} decoded on the spherical way from the z of one to that of the other."
    names = ["data", *(f"step {j + 1}" for j in range(STEPS)), "data"]
    rows = [list(zip(names, [a[i], *way[:, i], b[i]], strict=True)) for i in range(pairs)]
    return "".join([paragraph(caption, "soft"), *subject.beside(rows)])


def surprises(subject: Sequences) -> str:
    """Where the examples surprise the model."""
    n = min(FEW, len(subject.x))
    x, labels = subject.x[:n], None if subject.labels is None else subject.labels[:n]
    bits = surprisal(subject.model, x, labels=labels, seed=subject.seed, notation=subject.notation) / log(2)
    shower = Shower(subject.model.spec, notation=subject.notation)
    maps = [shower.map(row, each) for row, each in zip(x.cpu(), bits, strict=True)]
    scale = Scale.of(maps, shower.unit)
    pairs = enumerate(zip(x.cpu(), maps, strict=True), 1)
    shown = [figure(shower.show(row, each, scale, f"example {i}"), f"example {i}") for i, (row, each) in pairs]
    what = "symbol" if subject.text else "sample"
    given = "those before it. The sum over an example is its exact cost."
    if isinstance(subject.model, Latent):
        given = "those before it and z. The sum over an example is its distortion, a part of the bound."
    caption = f"Bits that each {what} of held-out examples costs given {given}"
    items = tag("div", *shown, class_=f"items {subject.model.spec.kind}")
    return section("Surprisal", paragraph(caption, "soft"), legend(subject.model.spec, scale), items)


def held_out(x: Tensor, spec: DataSpec) -> Tensor:
    """(n, T) examples no longer than what is shown of them, where the model takes other lengths."""
    return x if spec.end is None else x[:, : MOST[spec.kind]]
