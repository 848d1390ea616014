"""``sample``, ``reconstruct``, ``complete`` and ``interpolate``: sheets of images, texts, clips, or arrays of symbols."""

from __future__ import annotations

import io
from collections.abc import Callable, Sequence
from itertools import cycle, islice
from math import log
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from ancestral import sampling
from ancestral.cli.classes import numbered
from ancestral.cli.commands import Answer, Complete, Drawing, Interpolate, Reconstruct, Sample
from ancestral.cli.kept import from_latents
from ancestral.cli.runs import items_of, opened, progress, said, things_of
from ancestral.cli.sequences import answered, as_one, beginning, continued, shown, spoken, streams
from ancestral.cli.strategies import check_strategy, searched, speculated, together, usual_number, weighed
from ancestral.data.files import read_file
from ancestral.data.images import SUFFIXES, read_images
from ancestral.data.notation import Notation, Text
from ancestral.data.splits import Units
from ancestral.draw import Draw
from ancestral.files import write_whole
from ancestral.hub import Model, describe
from ancestral.latent.latent import Latent, needs_latents
from ancestral.report.images import Pixels, drawable, grid, pixels, save_png, stacked
from ancestral.report.pictures import vae_images
from ancestral.sampling.guidance import guided
from ancestral.sampling.parallel import PASSES
from ancestral.sampling.sample import sampled
from ancestral.sampling.strategies import Rows, context_of, inference, lasting, likelihood_of, prompted, sized
from ancestral.spec import DataSpec
from ancestral.symbols import DataError

COLUMNS = 8  # images in a row, or pairs of original and reconstruction
EXAMPLES = 4  # test examples to complete where no pictures are named
CUTS = ("--top", "--min")  # what options that cut symbols off begin with
VEIL = 128  # grey of what is not there
ALONE = {"reconstruct": "reconstructions", "interpolate": "what lies on the way"}  # what arrays hold

# which pixels are known, by (H, 1) rows, (W,) columns, H and W; the hole is half as high and as wide as the image, or more
MASKS: dict[str, Callable[[Tensor, Tensor, int, int], Tensor]] = {
    "top": lambda r, c, h, w: r < (h + 1) // 2,
    "left": lambda r, c, h, w: c < (w + 1) // 2,
    "hole": lambda r, c, h, w: ~(_middle(r, h) & _middle(c, w)),
    "checkerboard": lambda r, c, h, w: (r + c) % 2 == 0,
}


def sample(command: Sample) -> Answer:
    """Draw new examples, below the image that z alone describes where that is asked for."""
    model = opened(command, command.run)
    _check_options(command, model.spec)
    check_strategy(command, model)
    begun = beginning(command, model)
    model = begun.model if command.size is None else sized(model, (model.spec.shape[0] or 0, *command.size))
    classes, n = numbered(command.run, command.labels), command.number
    if n is None:
        n = max(usual_number(command, model) if begun.notation is None else 1, len(classes))
    if n < len(classes):
        raise ValueError(f"number is {n} and there are {len(classes)} labels: leave -n out, or name fewer")
    labels = _labels(model, classes, n)
    if command.guidance and labels is not None and not describe(command.run).get("training", {}).get("label_dropout"):
        said("guidance compares with no label at all, which this model was not trained for: train it with --label-dropout")
    context = begun.context(n, context_of(model, n, labels, None))
    rows = Rows(model, n, context, seed=command.seed, temperature=command.z_temperature)
    if isinstance(begun.notation, Text) and streams(command):
        return Answer({}, (), spoken(command, begun, rows, begun.notation))
    above = vae_images(rows) if command.with_image else None
    if command.with_image and above is None:
        raise ValueError("of this model z alone describes no image: leave --with-image out")
    drawn, values, stopped = _drawn(command, rows, labels, begun.prompt)
    x, above = drawn.x, None if above is None else above[: len(drawn.x)]
    columns = min(COLUMNS if command.columns is None else command.columns, n)

    def sheet() -> Pixels:
        seen = pixels(x, model.spec.levels)
        return stacked([seen] if above is None else [_enlarged(above, seen.shape[1]), seen], columns)

    place, path = _put(command, "sample", model, x, sheet, columns)
    if stopped is not None:
        said(f"{path}: those that were done")
        raise stopped
    values = place | {"number": n, "seed": command.seed, "labels": labels} | values
    given = " given z" if isinstance(model, Latent) else ""
    line = f"{path}: {n:,} " + ("sample" + "s" * (n != 1) if command.beam is None else f"of the most probable examples{given}")
    if command.guidance:
        values["guidance"] = command.guidance
    if command.method in PASSES:
        values["passes"] = drawn.passes
        line += f" in {drawn.passes:,} passes over {model.spec.sites:,} symbols"
    if "acceptance" in values:
        line += f"; {values['acceptance']:.0%} of the draft's symbols kept, {values['symbols_per_call']:.2f} symbols a pass"
    weights = weighed(command, rows, x, begun.prompt) if command.log_prob else {}
    pairs = enumerate(zip(*weights.values(), strict=True)) if weights else ()
    lines = [f"{i}: log-probability{given} {own:.2f} nats, {altered:.2f} as it was drawn" for i, (own, altered) in pairs]
    return _told(values | weights, [line, *lines], model.spec)


def _told(values: dict[str, Any], lines: list[str], spec: DataSpec) -> Answer:
    """The answer; where it is texts, what else there is to say goes elsewhere."""
    if "texts" not in values:
        return Answer(values, lines)
    said("\n".join(line.removeprefix(": ") for line in lines))
    return Answer(values, shown(values["texts"], spec))


def _drawn(
    command: Sample, rows: Rows, labels: Sequence[int] | None, prompt: Tensor | None
) -> tuple[sampling.Sampled, dict[str, Any], sampling.Interrupted | None]:
    """The samples, and figures of how they came about; after Ctrl-C those that were done, with the interruption."""
    known = None if prompt is None else prompted(likelihood_of(rows.model), prompt, rows.n)
    draw = Draw(command.seed, command.temperature, command.top_k, command.top_p, command.min_p, known)
    sites = rows.model.spec.sites
    with progress("drawing") as tick, inference(rows.model):
        try:
            if command.beam is not None:
                return sampling.Sampled(searched(command, command.beam, rows, labels, prompt, tick), sites), {}, None
            if command.draft is not None:
                found = speculated(command, command.draft, rows, labels, prompt, tick)
                figures = {name: getattr(found, name) for name in ("acceptance", "symbols_per_call", "calls")}
                return sampling.Sampled(found.x, found.calls), figures, None
            if command.guidance:
                x = guided(rows, draw, command.guidance, command.method, together(command), command.engine, tick)
                return sampling.Sampled(x, sites), {}, None
            return sampled(rows, draw, command.method, together(command), command.engine, tick), {}, None
        except sampling.Interrupted as stop:
            if not len(stop.complete):
                raise
            return sampling.Sampled(stop.complete, 0), {}, stop


def reconstruct(command: Reconstruct) -> Answer:
    """Originals above, and below them what is drawn given the mean of the posterior of their z."""
    if command.from_latents:
        return from_latents(command)
    if command.beside:
        raise ValueError("other runs are put beside with --from-latents: add it, or leave --beside out")
    model = needs_latents(opened(command, command.run), "reconstruct")
    items = items_of(model, command.run, command.pictures, command.number, command.size, command.labels)
    with inference(model):
        context = context_of(model, len(items.x), items.labels, None)
        z = model.encode(items.x, context)
    notation = model.notation
    if notation is not None:
        same, how = lasting(model, items.x.shape[1]), Draw(command.seed, command.temperature)
        with progress("drawing") as tick, inference(model):
            x = sampled(Rows(same, len(items.x), context, z), how, "cached", 64, "auto", tick).x
        pairs = [row for pair in zip(items.x, x, strict=True) for row in pair]
        return _as_sequences(command, "reconstruct", model, x, pairs, notation, items.names, "originals and reconstructions")
    with inference(model):
        x = model.decode(z, context, command.seed, command.temperature)
    levels, columns = model.spec.levels, min(COLUMNS, len(x))
    path = _write(
        command, "reconstruct", model, x, lambda: stacked([pixels(items.x, levels), pixels(x, levels)], columns), columns
    )
    array = path.suffix.lower() == ".npy"
    what = "reconstructions, without the originals" if array else "originals, each above its reconstruction"
    return Answer({"out": path, "items": items.names}, [f"{path}: {len(x):,} {what}"])


def complete(command: Complete) -> Answer:
    """A row for every picture: what is known of it, completions, and the whole."""
    model, n = opened(command, command.run), command.number
    if n < 1:
        raise ValueError(f"number is {n}; ask for at least 1")
    _check_options(command, model.spec)
    notation = model.notation
    if notation is not None:
        return _goes_on(command, model, notation)
    known, units = _known(command.known or "top", model.spec), model.units
    items = items_of(model, command.run, command.pictures, EXAMPLES, command.size, command.labels)
    with progress("completing") as tick:
        done = sampling.complete(
            model,
            items.x.repeat_interleave(n, 0),
            known,
            seed=command.seed,
            particles=command.particles,
            batch_size=command.batch_size,
            engine=command.engine,
            labels=None if items.labels is None else items.labels.repeat_interleave(n),
            temperature=command.temperature,
            top_k=command.top_k,
            top_p=command.top_p,
            min_p=command.min_p,
            progress=tick,
        )

    def sheet() -> Pixels:
        whole, drawn = pixels(items.x, model.spec.levels), pixels(done.x, model.spec.levels)
        part = np.where(known.movedim(0, -1).numpy(), whole, np.uint8(VEIL))
        rows = [part[:, None], drawn.reshape(len(whole), n, *whole.shape[1:]), whole[:, None]]
        return np.concatenate(rows, 1).reshape(-1, *whole.shape[1:])

    x = done.x
    if model.spec.levels is None:  # what was known is given back with all its digits
        x = torch.where(known.to(x.device), items.x.double().repeat_interleave(n, 0), x.double())
    path = _write(command, "complete", model, x, sheet, n + 2)
    stretched = 0.0 if units is None else units.nats_of(known)
    evidence = (done.log_evidence.view(-1, n).logsumexp(1) - log(n) - stretched).tolist()
    values = {"out": path, "items": items.names, "status": done.status, "particles": done.particles, "log_evidence": evidence}
    if done.effective_sample_size is not None and done.least is not None:
        values["effective_sample_size"] = done.effective_sample_size.view(-1, n).mean(1).tolist()
        values["least_effective_sample_size"] = done.least.view(-1, n).amin(1).tolist()
    altered = not Draw(0, command.temperature, command.top_k, command.top_p, command.min_p).plain
    lines = [f"{path}: {_completions(n, len(items.x), model.spec)}", _trust(done)]
    if altered:
        lines.append("temperature, top-k, top-p and min-p alter the model's own distribution, of which the status speaks")
    return Answer(values, lines)


def _completions(n: int, examples: int, spec: DataSpec) -> str:
    things = things_of(spec)
    return f"{n:,} completion{'s' * (n != 1)} of {f'each of {examples:,} {things}' if examples != 1 else f'1 {things[:-1]}'}"


def _goes_on(command: Complete, model: Model, notation: Notation) -> Answer:
    """Texts or clips of which the beginning is known."""
    found, values = continued(command, model, notation, EXAMPLES), dict[str, Any]()
    if _as_array(command):
        path = _write(command, "complete", model, as_one(found.rows, model.spec), lambda: np.zeros(0, np.uint8), 1)
        values, place = {"out": path}, str(path)
    else:
        values, place = answered(command, "complete", found.rows, notation)
    values |= {"items": found.names, "status": found.status, "log_evidence": found.log_evidence}
    line = f"{place}: {_completions(command.number, len(found.names), model.spec)}"
    return _told(values, [line], model.spec)


def _trust(done: sampling.Completion) -> str:
    """The status of completions in words."""
    if done.effective_sample_size is None or done.least is None:
        return f"{done.status}: each is drawn from the model's own distribution of what is unknown given what is known"
    low, high = float(done.effective_sample_size.min()), float(done.effective_sample_size.max())
    return (
        f"{done.status}: each is one of {done.particles} particles, chosen by their weights, which are worth {low:.1f} to "
        f"{high:.1f} equally good ones at the end and {float(done.least.min()):.1f} at the least"
    )


def interpolate(command: Interpolate) -> Answer:
    """A row for every pair: one, the images on the way, and the other."""
    model = needs_latents(opened(command, command.run), "interpolate")
    items = items_of(model, command.run, command.pictures, 2 * command.number, command.size, command.labels)
    if len(items.x) % 2:
        raise DataError(f"{len(items.x)} {things_of(model.spec)} make no pairs: give an even number, or leave one out")
    a, b = items.x[0::2], items.x[1::2]
    labels = None if items.labels is None else items.labels[0::2]
    notation = model.notation
    way = sampling.interpolate(model, a, b, command.steps, seed=command.seed, labels=labels, temperature=command.temperature)
    if notation is not None:
        ways = [row for one, between, other in zip(a, way.unbind(1), b, strict=True) for row in (one, *between, other)]
        return _as_sequences(command, "interpolate", model, way, ways, notation, items.names, "pairs with what lies on the way")
    rows = torch.cat([a[None], way, b[None]]).transpose(0, 1)
    columns = rows.shape[1]
    path = _write(command, "interpolate", model, way, lambda: pixels(rows.flatten(0, 1), model.spec.levels), columns)
    what = f"{command.steps} images on the way of each{', without the originals' * (path.suffix.lower() == '.npy')}"
    return Answer({"out": path, "items": items.names}, [f"{path}: {len(a):,} pairs, {what}"])


def _as_sequences(
    command: Drawing,
    name: str,
    model: Model,
    x: Tensor,
    rows: Sequence[Tensor],
    notation: Notation,
    names: Sequence[str],
    what: str,
) -> Answer:
    """Texts or clips beside those that they were made from, in turn; as an array the new ones alone."""
    if _as_array(command):
        path = _write(command, name, model, x, lambda: np.zeros(0, np.uint8), 1)
        return Answer({"out": path, "items": names}, [f"{path}: {ALONE[name]}, without the originals"])
    values, place = answered(command, name, rows, notation)
    return _told(values | {"items": names}, [f"{place}: {what}, in turn"], model.spec)


def _check_options(command: Sample | Complete, spec: DataSpec) -> None:
    """Refuse options that mean nothing for what the model draws.

    Raises:
        ValueError: there are some; each is named.
    """
    names = ("scale", "columns", "size", "with_image", "top_k", "top_p", "min_p")
    given = {name: getattr(command, name, None) for name in names}
    flags = [f"--{name.replace('_', '-')}" for name, value in given.items() if value is not None and value is not False]
    sheets = [flag for flag in flags if not flag.startswith(CUTS) and not (flag == "--size" and spec.kind == "image")]
    if sheets and not drawable(spec):
        raise ValueError(f"{', '.join(sheets)}: for pictures, and this model is of {_things(spec)}: leave that out")
    cuts = [flag for flag in flags if flag.startswith(CUTS)]
    cuts += [f"--temperature {command.temperature:g}"] if command.temperature not in (0, 1) else []
    if cuts and spec.levels is None:
        raise ValueError(
            f"{', '.join(cuts)}: for probabilities of symbols, and this model gives densities of real values: leave that out, or"
            " take --temperature 0 for the most probable value of each"
        )
    if spec.levels is None and command.temperature == 0 and isinstance(command, Sample) and command.log_prob:
        raise ValueError("--log-prob: values of --temperature 0 were not drawn from a density: leave one of the two out")


def _things(spec: DataSpec) -> str:
    fixed = {"image": "real-valued images", "text": "text", "audio": "sound"}
    return fixed.get(spec.kind, f"{spec.kind}s of {'x'.join(map(str, spec.shape))} values")


def _labels(model: Model, wanted: Sequence[int], n: int) -> list[int] | None:
    """n labels: those wanted, over and over; else every class in turn, where the model is conditional."""
    if not wanted and model.conditional:
        wanted = range(model.spec.classes or 1)
    return list(islice(cycle(wanted), n)) if wanted else None


def _known(where: str, spec: DataSpec) -> Tensor:
    """Booleans in the shape of an example, True where a symbol is known.

    Raises:
        DataError: the file is missing or no mask, or its shape is not the model's.
    """
    mask = torch.zeros(*(size or 0 for size in spec.shape), dtype=torch.bool)
    if where in MASKS:
        if spec.kind != "image":
            raise DataError(f"only images have a {where}: give the file of a mask (--known FILE)")
        height, width = mask.shape[1:]
        return MASKS[where](torch.arange(height)[:, None], torch.arange(width), height, width).expand(mask.shape)
    read = _mask(Path(where))
    if read.shape not in (mask.shape, mask.shape[1:]):
        raise DataError(
            f"{where} is a mask of shape {tuple(read.shape)}; the model takes {tuple(mask.shape)} or {tuple(mask.shape[1:])}"
        )
    return read.expand(mask.shape)


def _middle(places: Tensor, size: int) -> Tensor:
    edge = (size + 1) // 4
    return (places >= edge) & (places < size - edge)


def _mask(path: Path) -> Tensor:
    if not path.exists():
        raise DataError(f"--known takes {', '.join(MASKS)} or the file of a mask, and there is no file {path}")
    if path.suffix.lower() in SUFFIXES:
        image = read_images([path])[0] >= 128
        return torch.from_numpy(image.any(-1) if image.ndim == 3 else image)
    values = read_file(path).x["train"]
    if not np.isin(values, (0, 1)).all():
        raise DataError(f"{path} holds values other than 0 and 1; a mask is true where a pixel is known")
    return torch.from_numpy(values.astype(np.bool_))


def _enlarged(images: Pixels, height: int) -> Pixels:
    """(n, h, w, C) bytes at a height that is a multiple of h."""
    factor = height // images.shape[1]
    return images.repeat(factor, 1).repeat(factor, 2)


def _put(
    command: Drawing, name: str, model: Model, x: Tensor, images: Callable[[], Pixels], columns: int
) -> tuple[dict[str, Any], str]:
    """Write examples as what they are; values for JSON, and where they are."""
    if model.notation is not None and not _as_array(command):
        return answered(command, name, x.cpu().unbind(), model.notation)
    path = _write(command, name, model, x, images, columns)
    return {"out": path}, str(path)


def _as_array(command: Drawing) -> bool:
    return command.out is not None and command.out.suffix.lower() == ".npy"


def _write(command: Drawing, name: str, model: Model, x: Tensor, images: Callable[[], Pixels], columns: int) -> Path:
    """Write a sheet of images as PNG, or symbols as ``.npy``, real values in their original units; the path.

    Raises:
        ValueError: the name ends in something else.
        DataError: the symbols are no images.
    """
    path = command.out or command.run / "samples" / (f"{name}.png" if drawable(model.spec) else f"{name}.npy")
    if path.suffix.lower() == ".npy":
        memory = io.BytesIO()
        np.save(memory, (x if model.units is None else _original(x, model.units)).cpu().numpy())
        write_whole(path, memory.getvalue())
        return path
    if path.suffix.lower() != ".png":
        raise ValueError(f"{path} ends in {path.suffix or 'nothing'}: name a .png for pictures or a .npy for symbols")
    if not drawable(model.spec):
        raise DataError(f"the symbols of this model are no pictures, so {path} cannot show them: name a .npy")
    return save_png(path, grid(images(), columns, scale=command.scale))


def _original(x: Tensor, units: Units) -> Tensor:
    """(n, *shape) values in the units of the data as they were given, float64; whole numbers without their noise."""
    values = units.restore(x.double())
    return values.floor() if units.dequantized else values
