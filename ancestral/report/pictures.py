"""The sections of a report that show images: each returns HTML, or nothing where it does not apply."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from ancestral.evaluation import Evaluation, surprisal
from ancestral.latent.codes import coded
from ancestral.latent.latent import Latent
from ancestral.networks.factorised import Factorised
from ancestral.report.figures import surprisal_maps
from ancestral.report.images import Pixels, pixels
from ancestral.report.page import drawing, figure, picture, section, strips
from ancestral.sampling import complete, interpolate, sample, traverse
from ancestral.sampling.sample import decoded_means
from ancestral.sampling.strategies import Model, Rows, context_of, inference, likelihood_of

DRAWS = 3  # reconstructions of one example
STEPS = 8  # of an interpolation
SPREAD = 2.5  # how far a traversal goes either way, in standard deviations of the prior
UNITS = 4  # latent units that are traversed
COMPLETIONS = 2  # of one example
VAE_IMAGE = {  # by whether the pixels of x are independent given z
    False: "the image that the VAE decodes, the mean of p(y|z) with location f(z),",
    True: "the image that the VAE decodes, the mean of p(x|z),",
}


@dataclass(frozen=True)
class Subject:
    """What the pictures are of.

    Attributes:
        model: of images that can be shown.
        x, labels: (n, C, H, W) examples that it was not trained on, with (n,) labels where it is conditional.
        evaluation: the figures of the model.
        samples, columns: how many to draw, and how many to show in a row.
        seed: of everything that is drawn.
    """

    model: Model
    x: Tensor
    labels: Tensor | None
    evaluation: Evaluation
    samples: int
    columns: int
    seed: int

    @property
    def sample_labels(self) -> Tensor | None:
        """Labels of the samples: every class in turn."""
        if self.labels is None:
            return None
        return torch.arange(self.samples) % (self.model.spec.classes or 1)

    def shown(self, x: Tensor) -> Pixels:
        """(n, C, H, W) symbols of the data as bytes."""
        return pixels(x, self.model.spec.levels)


def samples(subject: Subject) -> str:
    """Samples, those of models with latents below the image that z alone describes; and a sheet of all."""
    model, n, labels = subject.model, subject.samples, subject.sample_labels
    x = subject.shown(sample(model, n, seed=subject.seed, labels=labels))
    classes = f" Class by class: sample i has label i mod {model.spec.classes}." if labels is not None else ""
    caption = f"{n} samples at temperature 1, seed {subject.seed}, not selected.{classes}"
    rows = Rows(model, n, context_of(model, n, labels, None), seed=subject.seed)
    return section("Samples", guided(subject, x, vae_images(rows)), figure(picture(x, subject.columns, f"{n} samples"), caption))


def guided(subject: Subject, x: Pixels, y: Pixels | None) -> str:
    """Figure 1 of Lucas & Verbeek 2018: the image that the VAE describes above, the image drawn given the same z below."""
    if y is None:
        return ""
    few, rows = subject.columns, list[tuple[str, Pixels]]()
    for start in range(0, min(2 * few, len(x)), few):
        rows += [("y" if shows_y(subject.model) else "VAE image", y[start : start + few]), ("sample", x[start : start + few])]
    below = "the image that the autoregressive decoder draws given f(z). What the two share z decides; the rest is the decoder's."
    if factorised(subject.model):
        below = "the image whose pixels are drawn from p(x|z), each by itself."
    caption = f"Above, {vae_image(subject.model)} for a z drawn from the prior; below it, {below}"
    if shows_y(subject.model):
        caption = "Above, the auxiliary image y, which is drawn first; below it, the image that is drawn given y."
    return figure(strips(rows, "samples"), caption)


def shows_y(model: Model) -> bool:
    """Whether `vae_images` are an auxiliary image that comes before x."""
    return isinstance(model, Latent) and model.topdown.shows is not None


def vae_image(model: Model) -> str:
    """What `vae_images` are, in words."""
    return "the auxiliary image y, which comes first," if shows_y(model) else VAE_IMAGE[factorised(model)]


def vae_images(rows: Rows) -> Pixels | None:
    """(n, H, W, C) bytes: what the VAE alone sees of each row, see `decoded_means`; None where there is no such image."""
    means, model = decoded_means(rows), rows.model
    auxiliary = model.auxiliary if isinstance(model, Latent) else None
    levels = (auxiliary.likelihood if auxiliary is not None else likelihood_of(model)).spec.levels
    return None if means is None else pixels(means, levels)


def reconstructions(subject: Subject) -> str:
    """Originals, what z keeps of them, and several draws given z."""
    model, n = subject.model, len(subject.x)
    if not isinstance(model, Latent):
        return ""
    context = context_of(model, n, subject.labels, None)
    with inference(model):
        z = model.encode(subject.x, context)
    repeated = {name: values.repeat(DRAWS, *[1] * (values.dim() - 1)) for name, values in z.items()}
    labels = None if subject.labels is None else subject.labels.repeat(DRAWS)
    x = subject.shown(sample(model, DRAWS * n, z=repeated, labels=labels, seed=subject.seed))
    y = vae_images(Rows(model, n, context, z))
    rows = [("original", subject.shown(subject.x)), *([("y" if shows_y(model) else "VAE image", y)] if y is not None else [])]
    rows += [(f"draw {i + 1}", x[i * n : (i + 1) * n]) for i in range(DRAWS)]
    middle = f", {vae_image(model)}" if y is not None else ""
    mean = "x determines" if coded(model) else "is the mean of the posterior"
    caption = (
        f"Held-out examples{middle} and {DRAWS} images drawn given z, which {mean}. "
        "Where the draws agree z has decided; where they differ it left the choice open."
    )
    return section("Reconstructions", figure(strips(rows, "reconstructions"), caption))


def interpolations(subject: Subject) -> str:
    """Ways between pairs of examples."""
    pairs = len(subject.x) // 2
    if not isinstance(subject.model, Latent) or coded(subject.model) or not pairs:
        return ""
    pairs = min(pairs, DRAWS)
    a, b = subject.x[:pairs], subject.x[pairs : 2 * pairs]
    labels = None if subject.labels is None else subject.labels[:pairs]
    between = interpolate(subject.model, a, b, STEPS, seed=subject.seed, labels=labels)
    ways = torch.cat([a[None].to(between), between, b[None].to(between)]).transpose(0, 1).flatten(0, 1)
    caption = (
        f"Each row: an example, {STEPS} images decoded on the spherical way from its z to that of the example at the right end. "
        "A row draws with the same random numbers throughout, so what changes is z's doing."
    )
    sheet = picture(subject.shown(ways), STEPS + 2, f"{pairs} interpolations between held-out examples")
    return figure(sheet, caption)


def traversals(subject: Subject) -> str:
    """The units that carry most, moved one at a time."""
    model = subject.model
    if not isinstance(model, Latent) or coded(model):
        return ""
    values = torch.linspace(-SPREAD, SPREAD, STEPS + 1).tolist()
    rows: list[tuple[str, Pixels]] = []
    labels = None if subject.labels is None else subject.labels[:1]
    for group, unit, nats in most_used(subject.evaluation):
        moved = traverse(model, subject.x[:1], unit, values, group=group, seed=subject.seed, labels=labels)
        rows.append((f"{group}[{unit}], {nats:.2f} nats", subject.shown(moved[:, 0])))
    if not rows:
        return ""
    caption = (
        f"One example with one unit of z moved from -{SPREAD:g} to {SPREAD:g}, standard deviations where the prior is standard "
        "normal, the others at the mean of its posterior. The units with the largest KL, beside their names, come first."
    )
    return figure(strips(rows, "latent traversals"), caption)


def most_used(evaluation: Evaluation) -> list[tuple[str, int, float]]:
    """Group, number and KL in nats of the units of largest KL."""
    units = [(group, unit, nats) for group, values in evaluation.kl_by_unit.items() for unit, nats in enumerate(values)]
    return sorted(units, key=lambda each: -each[2])[:UNITS]


def completions(subject: Subject) -> str:
    """Images whose upper half is known, with the lower half drawn."""
    model, n = subject.model, len(subject.x)
    height = subject.x.shape[2]
    known = (torch.arange(height) < (height + 1) // 2)[:, None]
    repeated = subject.x.repeat(COMPLETIONS, 1, 1, 1)
    labels = None if subject.labels is None else subject.labels.repeat(COMPLETIONS)
    particles, rows_at_once = (64, 256) if subject.x[0].numel() <= 1024 else (16, 128)  # of large images fewer fit into memory
    done = complete(model, repeated, known, seed=subject.seed, labels=labels, particles=particles, batch_size=rows_at_once)
    veiled = np.where(known.numpy()[None, :, :, None], subject.shown(subject.x), np.uint8(128))
    rows = [("original", subject.shown(subject.x)), ("known", veiled)]
    rows += [(f"completion {i + 1}", subject.shown(done.x[i * n : (i + 1) * n])) for i in range(COMPLETIONS)]
    how = "exact: the lower half is drawn from the model's own conditional distribution"
    if done.effective_sample_size is not None:
        size = float(done.effective_sample_size.mean())
        how = (
            f"{done.status}: z is drawn given the upper half by importance resampling of {done.particles} particles, worth "
            f"{size:.1f} independent ones on average"
        )
    caption = f"Held-out examples, their upper half, and {COMPLETIONS} completions of it ({how})."
    return section("Completion", figure(strips(rows, "completions"), caption))


def surprises(subject: Subject) -> str:
    """Where the examples surprise the model."""
    model = subject.model
    nats = surprisal(model, subject.x, labels=subject.labels, seed=subject.seed).numpy()
    latent = isinstance(model, Latent)
    given = "the pixels before it and z" if latent and not factorised(model) else "z" if latent else "the pixels before it"
    status = (
        "The sum over an image is its distortion, a part of the bound" if latent else "The sum over an image is its exact cost"
    )
    caption = f"Bits that each pixel costs given {given}: dark where the model knew, light where it was surprised. {status}."
    return section(
        "Surprisal", figure(drawing(surprisal_maps(subject.shown(subject.x), nats), "images and surprisal maps"), caption)
    )


def factorised(model: Model) -> bool:
    """Whether the pixels of a latent-variable model are independent given z."""
    return isinstance(model, Latent) and isinstance(model.likelihood.network, Factorised)
