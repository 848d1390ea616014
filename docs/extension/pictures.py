"""What a conditional sees, measured by editing one symbol at a time, as pictures in SVG."""

from __future__ import annotations

from dataclasses import dataclass
from math import log10
from typing import Any

import torch
from torch import Tensor

from ancestral import DataSpec
from ancestral.core import Context
from ancestral.latent.latent import Latent
from ancestral.models import build
from ancestral.testing.subjects import Subject, subject

SIDE, CELL, GAP = 15, 12, 28  # cells of an image a side, pixels of a cell, pixels between panels
IMAGE = DataSpec("image", (1, SIDE, SIDE), 2)
SUBJECTS: dict[str, tuple[DataSpec, dict[str, Any]]] = {  # other data and sizes than images and the preset small
    "rnade": (DataSpec("vector", (30,), None), {}),
    "pixelcnn++": (IMAGE, {"channels": 12, "resnets": 1}),
    "wavenet": (DataSpec("audio", (48,), 256), {"layers": 4, "cycles": 2}),
    "transformer": (DataSpec("text", (48,), 32), {"layers": 2, "window": 8}),
    "two-stage": (DataSpec("image", (1, 16, 16), 4), {"halvings": 1, "layers": 2}),
    "transformer-vae": (DataSpec("text", (48,), 32), {"layers": 2}),
    "wavenet-vae": (DataSpec("audio", (48,), 256), {"layers": 4, "cycles": 2, "halvings": 3}),
}
LEAST = 1e-9  # of the largest effect: below that it is the rounding of sums


@dataclass(frozen=True)
class Panel:
    """A grid of cells: how strongly each has to do with the one in question, from 0 to 1, None where that is unknown."""

    title: str
    strengths: list[list[float]]
    site: tuple[int, int] | None = None


def seen(name: str) -> str:
    """The picture of a model with its caption, as HTML in Markdown."""
    spec, options = SUBJECTS.get(name, (IMAGE, {}))
    torch.manual_seed(0)
    under = subject(build(name, spec, preset="small", **options), n=1)
    with torch.no_grad():
        panels = [conditional(under), *(_reaches(under, under.model) if isinstance(under.model, Latent) else [])]
    return f'<figure class="seen">\n{drawn(panels)}\n<figcaption>{caption(panels, spec, options)}</figcaption>\n</figure>\n'


def conditional(under: Subject) -> Panel:
    """How much the parameters of one site move when another symbol is edited.

    Raises:
        ValueError: a later symbol moves them.
    """
    shape = under.network.shape
    sites = len(under.network.order.sites)
    site = (10 * SIDE + 7) if len(shape) == 3 else sites - 8
    x = under.x.expand(sites + 1, *shape).flatten(1).clone()
    each = torch.arange(sites)
    x[each, each] = x[each, each] + 1 if under.likelihood.family.levels is None else 1 - x[each, each].clamp(max=1)
    parameters = _parameters(under, x.view(-1, *shape), under.one_context(sites + 1))[:, site]
    moved = (parameters[:-1] - parameters[-1]).abs().amax(1)
    if (moved[site:] > LEAST * moved.max()).any():
        raise ValueError(f"{type(under.network).__name__}: a conditional sees its own symbol or a later one")
    given = ", z" if isinstance(under.model, Latent) else ""
    return Panel(f"p(x_i | x_<i{given})", _scaled(moved, shape[-1]), divmod(site, shape[-1]))


def _parameters(under: Subject, x: Tensor, context: Context | None) -> Tensor:
    """(n, D, k), some rows at a time."""
    rows = torch.split(torch.arange(len(x)), 64)
    return torch.cat([under.forward(x[i], None if context is None else context.select(i)) for i in rows])


def _scaled(moved: Tensor, width: int) -> list[list[float]]:
    """Strengths in (0, 1], by the logarithm over six decades, 0 where nothing moved."""
    most = float(moved.max()) or 1.0
    values = [0.0 if value <= LEAST * most else max(0.15, 1 + log10(value / most) / 6) for value in moved.tolist()]
    return [values[i : i + width] for i in range(0, len(values), width)]


def _reaches(under: Subject, model: Latent) -> list[Panel]:
    """Where one unit of z, the one in the middle of a group, moves the parameters, of at most three groups."""
    panels = []
    z = model.encode(under.x)
    names = list(z) if len(z) < 4 else [list(z)[i] for i in (0, len(z) // 2, -1)]
    for name in names:
        shape = z[name].shape[1:]
        edited = z[name].clone()
        middle = (0, *(size // 2 for size in shape[1:])) if len(shape) > 1 else (0,)
        edited[(0, *middle)] += 1
        before, after = (under.forward(under.x, model.features(z | {name: each})) for each in (z[name], edited))
        moved = (after - before).abs().amax((0, 2))
        units = " x ".join(map(str, shape))
        panels.append(Panel(f"one unit of {name} ({units})", _scaled(moved, under.network.shape[-1])))
    return panels


def caption(panels: list[Panel], spec: DataSpec, options: dict[str, Any]) -> str:
    """How many sites are seen, and what the colours mean."""
    panel = panels[0]
    row, column = panel.site or (0, 0)
    before = row * len(panel.strengths[0]) + column
    count = sum(value > 0 for row in panel.strengths for value in row)
    kind = {"image": "pixels", "audio": "samples", "text": "characters", "vector": "values"}[spec.kind]
    sizes = "".join(f", {name}={value}" for name, value in options.items())
    text = (
        f"Measured with random weights (small{sizes}) by editing one symbol at a time: {count} of the {before} {kind} before the"
        " marked one change its distribution (the darker, the more; by factors of ten), and none of those after it."
    )
    if len(panels) > 1:
        text += " The other panels: what one unit in the middle of a group of latents moves, and the size of the group."
    silent = [each.title for each in panels[1:] if not any(value for row in each.strengths for value in row)]
    return text + (" Empty: it has to do with x through the groups below it alone." if silent else "")


def drawn(panels: list[Panel]) -> str:
    """The panels beside one another, as SVG."""
    shapes, left, height = [], 0, 0
    for panel in panels:
        rows, columns = len(panel.strengths), len(panel.strengths[0])
        shapes += [f'<text x="{left}" y="12">{_escaped(panel.title)}</text>']
        for r, row in enumerate(panel.strengths):
            shapes += [_cell(left + c * CELL, 20 + r * CELL, value, (r, c), panel) for c, value in enumerate(row)]
        left += max(columns * CELL, 7 * len(panel.title)) + GAP
        height = max(height, 20 + rows * CELL + 2)
    return (
        f'<svg viewBox="0 0 {left - GAP} {height}" style="max-width: {left - GAP}px" role="img" aria-label="what is seen">'
        + "".join(shapes)
        + "</svg>"
    )


def _cell(x: int, y: int, strength: float, place: tuple[int, int], panel: Panel) -> str:
    kind, shade = (
        ("site", "") if place == panel.site else ("on", f' style="opacity: {strength:.2f}"') if strength else ("off", "")
    )
    if kind == "off" and panel.site is not None and place > panel.site:
        kind = "later"
    return f'<rect class="{kind}" x="{x}" y="{y}" width="{CELL - 1}" height="{CELL - 1}"{shade}/>'


def _escaped(text: str) -> str:
    return text.replace("&", "&amp;").replace("<", "&lt;")
