"""``reconstruct --from-latents``: what z keeps of pictures, in how many bits."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from ancestral.cli.commands import Answer, Reconstruct
from ancestral.cli.judge import kept_findings
from ancestral.cli.runs import Items, items_of, opened, table, threads_of
from ancestral.coding.lossy import Lossy, lossy
from ancestral.evaluation.study import MEANS
from ancestral.hub import describe
from ancestral.latent.latent import Latent, needs_latents
from ancestral.report.images import grid, pixels, save_png, stacked
from ancestral.symbols import DataError

COLUMNS = 8  # images in a row
FIGURES = ("psnr_drawn", "ssim_drawn", "psnr_seen", "ssim_seen")  # of the pictures, the latter two where z alone gives one
HEAD = ("run", "model", "bits of z", "of x given z", "PSNR drawn", "SSIM", "PSNR of z alone", "SSIM", "class read off z")


def from_latents(command: Reconstruct) -> Answer:
    """Originals, the pictures that z alone gives, and what is drawn given z; with figures, also of other runs on the same.

    Raises:
        ValueError: a run has no latents, or the sheet is no PNG.
        DataError: the data are no pictures of integers, or not the same of all runs.
    """
    path = command.out or command.run / "samples" / "from_latents.png"
    if path.suffix.lower() != ".png":
        raise ValueError(f"{path} ends in {path.suffix or 'nothing'}: name a .png")
    rows, values = list[tuple[str, ...]](), list[dict[str, Any]]()
    models = {run: needs_latents(opened(command, run), "reconstruct") for run in (command.run, *command.beside)}
    which = (command.pictures, command.number, command.size, command.labels)
    items = {run: items_of(model, run, *which) for run, model in models.items()}
    for run, each in items.items():
        if not each.x.equal(items[command.run].x):
            raise DataError(f"{run} has other pictures than {command.run}, or other levels of them, which compares nothing")
    for run, model in models.items():
        figures = _figures(command, items[run], model, None if rows else path)
        name = describe(run)["model"] or "your own"
        read = _read(run)
        values.append({"run": run, "model": name, **figures, "probe_accuracy": read})
        cells = ["" if value is None else f"{value:.{3 if 'ssim' in key else 1}f}" for key, value in figures.items()]
        rows.append((str(run), name, *cells, "" if read is None else f"{read:.1%}"))
    alone = "" if values[0]["psnr_seen"] is None else "the picture that z alone gives, and "
    lines = [f"{path}: originals, below each {alone}what is drawn given z", *table([HEAD, *rows])]
    units = "of a picture; PSNR in decibels, of the mean squared error of all; classes as the command latents found them"
    return Answer({"out": path, "runs": values}, [*lines, units])


def _read(run: Path) -> float | None:
    """The accuracy of a probe of posterior means, which a file keeps nearly; None where nobody has looked for it."""
    study = kept_findings(run).study
    found = None if study is None else study.accuracy(MEANS)
    return None if found is None else found.accuracy


def _figures(command: Reconstruct, items: Items, model: Latent, sheet: Path | None) -> dict[str, float | None]:
    """What z takes and keeps; the pictures go onto a sheet."""
    found = lossy(model, items.x, items.labels, command.seed, threads_of(command, model))
    if sheet is not None:
        seen = [] if found.seen is None else [pixels(found.seen, 256)]
        strips = [pixels(items.x, model.spec.levels), *seen, pixels(found.drawn, model.spec.levels)]
        columns = min(COLUMNS, len(items.x))
        save_png(sheet, grid(stacked(strips, columns), columns, scale=command.scale))
    return _told(found)


def _told(found: Lossy) -> dict[str, float | None]:
    means = {"latent_bits": found.bits.mean().item(), "rest_bits": found.whole_bits.mean().item()}
    return {**means, **{name: found.figures.get(name) for name in FIGURES}}
