"""The drawn figures of a report, each a matplotlib Figure.

They are made with matplotlib's objects alone, without pyplot and its global state, so that they need no screen and threads
do not disturb each other. The page maps the colours below to those of its theme.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from math import log

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.mlab import specgram
from matplotlib.ticker import FuncFormatter, MaxNLocator
from numpy.typing import NDArray

from ancestral.report.images import Pixels

INK, FAINT = "#22262b", "#c9cdd2"  # text and axes; grid lines
FIRST, SECOND = "#2f6db5", "#d1782c"  # data; data to compare with
PIECES = 480  # pieces that a long example is drawn in
WINDOW = 256  # samples of a spectrogram's window
BARS = 96  # more units than this are drawn as an area
GROUPS = 4  # of more groups of latents than this all units are drawn together
Values = NDArray[np.floating]


@dataclass(frozen=True)
class Curve:
    """One line of a plot over training steps.

    Attributes:
        label: what the legend calls it.
        steps, values: its points; both of one length.
    """

    label: str
    steps: Sequence[float]
    values: Sequence[float]


def learning_curves(curves: Sequence[Curve], stages: Sequence[tuple[str, float, float]], unit: str = "bits/dim") -> Figure:
    """Lines over training steps, the first one in front.

    Args:
        stages: name, first and last step of every stage, in order; their boundaries are drawn where there are several.
        unit: what the values are in.
    """
    figure = sheet(4.8, 2.7)
    axes = figure.subplots()
    style(axes)
    for order, (curve, colour) in enumerate(zip(curves, (FIRST, SECOND), strict=False)):
        marker = "o" if len(curve.steps) < 40 else ""
        how = {"marker": marker, "markersize": 3, "linewidth": 1.4, "zorder": 3 - order}
        axes.plot(curve.steps, curve.values, color=colour, label=curve.label, **how)  # type: ignore[arg-type]
    _cut_above(axes, [curve.values for curve in curves])
    if len(stages) > 1:
        above = axes.get_xaxis_transform()
        for name, start, end in stages:
            axes.text((start + end) / 2, 1.02, name, transform=above, ha="center", va="bottom", color=INK, fontsize=8)
        for _, start, _ in stages[1:]:
            axes.axvline(start, color=INK, linewidth=0.8, linestyle=(0, (3, 3)))
    if stages:
        axes.set_xlim(0, stages[-1][2])
    axes.set_xlabel("training step")
    axes.set_ylabel(unit)
    if len(curves) > 1:
        axes.legend(frameon=False, labelcolor=INK, fontsize=8)
    return figure


def latent_bars(kl_by_unit: Mapping[str, Sequence[float]]) -> Figure:
    """KL of every latent unit in nats, sorted within its group; of many groups that of each, and of all their units together."""
    ranked = {f"units of {name}, from the most to the least used": _ranked(values) for name, values in kl_by_unit.items()}
    if len(kl_by_unit) > GROUPS:
        by_group = np.array([np.sum(values) for values in kl_by_unit.values()])
        everything = _ranked([value for values in kl_by_unit.values() for value in values])
        ranked = {"groups, from the top down": by_group, "units of all groups, from the most to the least used": everything}
    return _bars(ranked, "KL (nats)")


def code_bars(uses: Mapping[str, Sequence[int]]) -> Figure:
    """How often every code is used, in percent, sorted within its group."""
    shares = {name: 100 * _ranked(counts) / max(1, sum(counts)) for name, counts in uses.items()}
    return _bars({f"{name}, from the most to the least used": values for name, values in shares.items()}, "share (%)")


def _bars(ranked: Mapping[str, NDArray[np.floating]], unit: str) -> Figure:
    figure = sheet(4.8, 0.5 + 2.2 * len(ranked))
    panels = figure.subplots(len(ranked), 1, squeeze=False)[:, 0]
    for axes, (name, values) in zip(panels, ranked.items(), strict=True):
        style(axes)
        places = np.arange(1, len(values) + 1)
        if len(values) > BARS:
            axes.fill_between(places, values, step="mid", color=FIRST, linewidth=0)
        else:
            axes.bar(places, values, color=FIRST, width=0.8)
        axes.set_xlim(0.4, len(values) + 0.6)
        axes.set_ylim(0, max(1.08 * float(values.max(initial=0)), 0.01))
        axes.xaxis.set_major_locator(MaxNLocator(8, integer=True))
        axes.set_xlabel(name)
        axes.set_ylabel(unit)
    return figure


def _ranked(values: Sequence[float]) -> NDArray[np.floating]:
    return np.sort(np.asarray(values, float).ravel())[::-1]


def accuracies(probes: Mapping[str, Sequence[tuple[float, float, float]]], chance: float) -> Figure:
    """Accuracy of probes over the number of labels that they were fitted with, on a logarithmic axis.

    Args:
        probes: by what they read, (labels, accuracy, standard error) from few labels to many; at most three.
        chance: the accuracy of guessing, drawn as a line.
    """
    figure = sheet(4.8, 2.7)
    axes = figure.subplots()
    style(axes)
    styles = ((FIRST, "-", "o"), (FIRST, (0, (3, 2)), "s"), (SECOND, "-", "^"))
    for (name, points), (colour, line, marker) in zip(probes.items(), styles, strict=False):
        labels, values, errors = (np.array(column) for column in zip(*points, strict=True))
        look = {"color": colour, "linestyle": line, "marker": marker, "markersize": 4, "linewidth": 1.4, "elinewidth": 1}
        axes.errorbar(labels, 100 * values, 100 * errors, label=name, **look)  # type: ignore[arg-type]
    axes.axhline(100 * chance, color=INK, linewidth=0.8, linestyle=(0, (1, 2)), label="chance")
    axes.set_xscale("log")
    axes.minorticks_off()
    axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:,.0f}"))
    axes.set_ylim(0, 103)
    axes.set_xlabel("labels in all")
    axes.set_ylabel("accuracy (%)")
    axes.legend(frameon=False, labelcolor=INK, fontsize=8)
    return figure


def surprisal_maps(images: Pixels, nats: NDArray[np.floating]) -> Figure:
    """Images above their surprisal maps with a colour bar in bits a pixel.

    Args:
        images: (n, H, W, C) bytes.
        nats: (n, C, H, W) minus log-probabilities; those of a pixel's channels are added.
    """
    bits = np.asarray(nats, float).sum(1) / log(2)
    n, height, width = bits.shape
    side = 0.72
    figure = sheet(side * n + 0.6, 2 * side * height / width + 0.1)
    figure.get_layout_engine().set(w_pad=0.015, h_pad=0.015, wspace=0.01, hspace=0.01)  # type: ignore[union-attr, call-arg]
    panels = figure.subplots(2, n, squeeze=False)
    top = float(np.quantile(bits, 0.999)) or 1.0
    shown = images.repeat(3, axis=3) if images.shape[3] == 1 else images
    for axes in panels.flat:
        axes.set_axis_off()
    for i in range(n):
        panels[0, i].imshow(shown[i], interpolation="none")
        drawn = panels[1, i].imshow(bits[i], interpolation="none", cmap="magma", vmin=0, vmax=top)
    bar = figure.colorbar(drawn, ax=panels.ravel().tolist(), fraction=0.05, aspect=16, pad=0.02, extend="max")
    bar.set_label("bits", color=INK, fontsize=8)
    bar.ax.tick_params(colors=INK, labelsize=8)
    bar.outline.set_visible(False)
    return figure


def histograms(values: Mapping[str, Values], unit: str) -> Figure:
    """How a score is distributed in several sets, each with its share in common bins; the first set is filled."""
    figure = sheet(4.8, 2.4)
    axes = figure.subplots()
    style(axes)
    low, high = (float(quantile) for quantile in np.quantile(np.concatenate(list(values.values())), (0, 1)))
    edges = np.linspace(low, max(high, low + 1e-9), 41)
    for order, (name, each) in enumerate(values.items()):
        share = np.histogram(each, edges)[0] / len(each)
        if order == 0:
            axes.stairs(share, edges, fill=True, color=FIRST, alpha=0.55, label=name)
        else:
            line = ("-", (0, (4, 2)), (0, (1, 1)))[(order - 1) % 3]
            axes.stairs(share, edges, color=SECOND, linewidth=1.3, linestyle=line, label=name)
    axes.set_xlabel(unit)
    axes.set_ylabel("share of the set")
    axes.legend(frameon=False, labelcolor=INK, fontsize=8)
    return figure


def surprisal_over(
    wave: NDArray[np.floating] | None, bits: NDArray[np.floating], limits: tuple[float, float], unit: str
) -> Figure:
    """The bits of one example's symbols in their order, below the waveform where it has one.

    Long examples are drawn in pieces: of the wave the range within each, of the bits the mean.

    Args:
        wave: (T,) samples.
        bits: (T,) of each sample, or of each value.
        limits: of the axis of bits, common to all figures of a page.
        unit: what the places on the lower axis are.
    """
    figure = sheet(7.2, 1.3 if wave is None else 1.9)
    panels = figure.subplots(1 if wave is None else 2, 1, sharex=True, squeeze=False)[:, 0]
    count = max(1, -(-len(bits) // PIECES))
    starts = np.arange(0, len(bits), count)
    if wave is not None:
        above, below = np.maximum.reduceat(wave, starts), np.minimum.reduceat(wave, starts)
        panels[0].fill_between(starts, below, above, color=INK, linewidth=0.6, step="post")
        panels[0].set_axis_off()
    means = np.add.reduceat(bits, starts) / np.diff([*starts, len(bits)])
    panels[-1].stairs(means, [*starts, len(bits)], fill=True, color=FIRST, linewidth=0)
    style(panels[-1])
    panels[-1].set_xlim(0, max(len(bits), 1))
    panels[-1].set_ylim(*limits)
    panels[-1].set_xlabel(unit)
    panels[-1].set_ylabel("bits")
    return figure


def clips(waves: Sequence[NDArray[np.floating]], rate: int) -> Figure:
    """Waveforms of sound side by side, each above its spectrogram: decibels below the loudest of all, down to -80.

    Args:
        waves: (T,) samples in [-1, 1] each.
        rate: samples a second.
    """
    figure = sheet(2.4 * len(waves), 2.2)
    panels = figure.subplots(2, len(waves), squeeze=False, sharex="col", height_ratios=(1, 2))
    padded = [np.pad(wave, (0, max(0, 2 * WINDOW - len(wave)))) for wave in waves]
    spectra = [np.asarray(specgram(wave, WINDOW, rate, noverlap=WINDOW // 2)[0]) for wave in padded]
    loudest = max(max(float(each.max()) for each in spectra), 1e-12)
    for i, (wave, spectrum) in enumerate(zip(waves, spectra, strict=True)):
        seconds = len(wave) / rate
        starts = np.arange(0, len(wave), max(1, -(-len(wave) // PIECES)))
        above, below = np.maximum.reduceat(wave, starts), np.minimum.reduceat(wave, starts)
        panels[0, i].fill_between(starts / rate, below, above, color=INK, linewidth=0.6, step="post")
        panels[0, i].set_ylim(-1, 1)
        panels[0, i].set_axis_off()
        decibels = 10 * np.log10(np.maximum(spectrum / loudest, 1e-8))
        extent = (0.0, max(seconds, 2 * WINDOW / rate), 0.0, rate / 2000)
        panels[1, i].imshow(decibels, cmap="magma", vmin=-80, vmax=0, origin="lower", aspect="auto", extent=extent)
        style(panels[1, i])
        panels[1, i].grid(visible=False)
        panels[1, i].set_xlabel("seconds")
    panels[1, 0].set_ylabel("kHz")
    return figure


def sheet(width: float, height: float) -> Figure:
    """An empty figure, so many inches wide and high, that lets the page shine through."""
    figure = Figure(figsize=(width, height), layout="constrained")
    figure.set_facecolor("none")
    return figure


def style(axes: Axes) -> None:
    """Make axes look as all do."""
    axes.set_facecolor("none")
    for side in ("top", "right", "left"):
        axes.spines[side].set_visible(False)
    axes.spines["bottom"].set_color(INK)
    axes.tick_params(colors=INK, labelsize=8, length=0)
    axes.grid(axis="y", color=FAINT, linewidth=0.6)
    axes.set_axisbelow(True)
    for label in (axes.xaxis.label, axes.yaxis.label):
        label.set_color(INK)
        label.set_fontsize(8)


def _cut_above(axes: Axes, curves: Sequence[Sequence[float]]) -> None:
    """Leave the first steep descent out of sight, so that what comes after can be read."""
    values = np.concatenate([np.asarray(each, float) for each in curves] or [np.zeros(0)])
    values = values[np.isfinite(values)]
    if len(values) > 3:
        low, high = values.min(), np.quantile(values, 0.9)
        room = (high - low) or abs(low) or 1.0
        axes.set_ylim(low - 0.1 * room, min(float(values.max()) + 0.05 * room, high + 0.8 * room))
