"""Rate against distortion: drawn figures of sweeps, in the style of the other figures of a report."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.text import Annotation
from matplotlib.ticker import MaxNLocator
from matplotlib.transforms import Bbox

from ancestral.evaluation.bits import Mean
from ancestral.report.figures import FAINT, FIRST, INK, SECOND, sheet, style
from ancestral.report.sweeps import Point

COLOURS = (FIRST, SECOND, "#3a9468", "#9a6bc4", "#c2506b", "#8a8238")
MARKERS = "osD^vP"
NEAR = 0.03  # of an axis: points that are nearer share one label
CORNERS = ((5, 5), (5, -5), (-5, 5), (-5, -5))  # where a label may be, in typographic points from what it names
Limits = tuple[float, float]
Place = tuple[float, float]


@dataclass(frozen=True)
class Line:
    """Points that are joined.

    Attributes:
        label: what the legend calls them.
        points: with their labels, in order: the values of a setting.
        setting: which, or nothing where none is swept.
    """

    label: str
    points: Sequence[tuple[str, Point]]
    setting: str = ""


def coordinates(point: Point) -> tuple[Mean, Mean]:
    """Rate and distortion; of a model without latents 0, for it has none, and its cost."""
    nothing = Mean(0.0, None)
    return point.figures.get("rate", nothing), point.figures.get("distortion", point.figures["nats"])


def rate_distortion(lines: Sequence[Line]) -> Figure:
    """Distortion over rate in nats, with standard errors, on lines of equal cost: rate + distortion, minus the ELBO.

    Each point has its label, where it covers least; those that lie together share one.
    """
    figure = sheet(5.2, 3.7)
    axes = figure.subplots()
    style(axes)
    axes.grid(visible=False)
    places = [coordinates(point) for line in lines for _, point in line.points]
    across, up = (_limits([place[axis] for place in places]) for axis in (0, 1))
    axes.set_xlim(*across)
    axes.set_ylim(*up)
    _equal_costs(axes, across, up)
    named = list[tuple[Place, str, str]]()
    for number, line in enumerate(lines):
        colour, marker = COLOURS[number % len(COLOURS)], MARKERS[number % len(MARKERS)]
        named += [(place, label, colour) for place, label in _labels(line, across, up)]
        spots = [coordinates(point) for _, point in line.points]
        x, y = ([spot[axis].value for spot in spots] for axis in (0, 1))
        errors = [[spot[axis].error or 0.0 for spot in spots] for axis in (0, 1)]
        axes.errorbar(
            x,
            y,
            errors[1],
            errors[0],
            color=colour,
            marker=marker,
            markersize=4.5,
            linewidth=1.1,
            elinewidth=0.8,
            label=line.label,
        )
    axes.set_xlabel("rate (nats)")
    axes.set_ylabel("distortion (nats)")
    if len(lines) > 1:
        axes.legend(frameon=False, labelcolor=INK, fontsize=8)
    figure.draw_without_rendering()  # only then is it known where everything is
    _annotate(axes, named, [(rate.value, distortion.value) for rate, distortion in places])
    return figure


def _annotate(axes: Axes, named: Sequence[tuple[Place, str, str]], points: Sequence[Place]) -> None:
    """Write labels in their colours beside their places, each in the corner where it covers least of points and words."""
    legend = axes.get_legend()
    taken = [Bbox.from_bounds(x - 2, y - 2, 4, 4) for x, y in axes.transData.transform(points)]
    taken += [] if legend is None else [legend.get_window_extent()]
    for place, label, colour in named:
        text = axes.annotate(label, place, CORNERS[0], textcoords="offset points", color=colour, fontsize=8)
        covered = {corner: sum(_moved(text, corner).overlaps(box) for box in taken) for corner in CORNERS}
        taken.append(_moved(text, min(CORNERS, key=covered.__getitem__)))  # of equally good corners the first


def _moved(text: Annotation, corner: tuple[int, int]) -> Bbox:
    """Put a label into a corner of its place; where it then is."""
    right, above = corner
    text.set(position=corner, ha="left" if right > 0 else "right", va="bottom" if above > 0 else "top")
    return text.get_window_extent()


def _limits(values: Sequence[Mean]) -> Limits:
    low = min(each.value - (each.error or 0.0) for each in values)
    high = max(each.value + (each.error or 0.0) for each in values)
    room = max(high - low, 0.02 * abs(high), 0.1)
    return low - 0.1 * room, high + 0.15 * room


def _equal_costs(axes: Axes, across: Limits, up: Limits) -> None:
    """Lines on which rate + distortion is the same, each with that sum where it enters from the left or from above."""
    for total in MaxNLocator(14).tick_values(across[0] + up[0], across[1] + up[1]):
        start, end = max(across[0], total - up[1]), min(across[1], total - up[0])
        if start >= end:
            continue
        axes.plot([start, end], [total - start, total - end], color=FAINT, linewidth=0.7, zorder=0)
        if end - start > 0.1 * (across[1] - across[0]):
            inside = start + 0.015 * (across[1] - across[0])
            text = {"rotation": -45, "rotation_mode": "anchor", "transform_rotates_text": True, "va": "bottom", "alpha": 0.6}
            axes.text(inside, total - inside, f"{total:,g}", color=INK, fontsize=7, zorder=0, **text)  # type: ignore[arg-type]


def _labels(line: Line, across: Limits, up: Limits) -> list[tuple[Place, str]]:
    """Where labels go, and what they say: one for all neighbours on the line that lie together; the first names the setting."""
    found = list[tuple[Place, str]]()
    for number, (value, point) in enumerate(line.points):
        label = f"{line.setting} {value}".strip() if number == 0 else value
        rate, distortion = (mean.value for mean in coordinates(point))
        if found:
            (x, y), said = found[-1]
            near = abs(rate - x) < NEAR * (across[1] - across[0]) and abs(distortion - y) < NEAR * (up[1] - up[0])
            if near and label and said:
                found[-1] = ((x, y), f"{said}, {label}")
                continue
        found.append(((rate, distortion), label))
    return [each for each in found if each[1]]


def cost_split(lines: Sequence[Line]) -> Figure:
    """Bits/dim over the values of a setting, split into what z costs, the shaded part, and what x costs given z."""
    figure = sheet(4.8, 2.9)
    axes = figure.subplots()
    style(axes)
    ticks = list(dict.fromkeys(label for line in lines for label, _ in line.points))
    for number, line in enumerate(lines):
        colour = COLOURS[number % len(COLOURS)]
        places = [ticks.index(label) for label, _ in line.points]
        whole = [point.figures["bits_per_dim"] for _, point in line.points]
        total, errors = np.array([each.value for each in whole]), [each.error or 0.0 for each in whole]
        label = line.label if len(lines) > 1 else "rate + distortion"
        axes.errorbar(places, total, errors, color=colour, marker="o", markersize=4, linewidth=1.4, label=label)
        if all("rate" in point.figures for _, point in line.points):
            share = [1 - point.figures["rate"].value / point.figures["nats"].value for _, point in line.points]
            given = None if len(lines) > 1 else "distortion"
            axes.plot(places, total * share, color=colour, linestyle=(0, (3, 2)), linewidth=1.1, label=given)
            axes.fill_between(places, total * share, total, color=colour, alpha=0.15, linewidth=0)
    axes.set_xticks(range(len(ticks)), ticks)
    axes.set_xlabel(", ".join(dict.fromkeys(line.setting for line in lines)))
    axes.set_ylabel("bits/dim")
    if any("rate" in point.figures for line in lines for _, point in line.points) or len(lines) > 1:
        axes.legend(frameon=False, labelcolor=INK, fontsize=8)
    return figure
