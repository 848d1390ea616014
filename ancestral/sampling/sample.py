"""Samples of any model: z from its prior where there is one, then every symbol as the quantile of its own uniform."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from ancestral.core import Autoregressive, Context
from ancestral.draw import Draw
from ancestral.latent.codes import coded
from ancestral.latent.latent import Latent, Latents
from ancestral.networks.factorised import Factorised
from ancestral.sampling.guidance import guided
from ancestral.sampling.parallel import PASSES, Sampled, in_passes
from ancestral.sampling.strategies import (
    Interrupted,
    Model,
    Progress,
    Recomputed,
    Rows,
    context_of,
    inference,
    likelihood_of,
    part_of,
    prompted,
    sized,
    telling,
)
from ancestral.sampling.stream import settled
from ancestral.symbols import ended
from ancestral.walking.engines import lowered

METHODS = ("cached", "recompute", *PASSES)


def sample(
    model: Model,
    n: int,
    *,
    temperature: float = 1.0,
    top_k: int | None = None,
    top_p: float | None = None,
    min_p: float | None = None,
    seed: int = 0,
    method: str = "cached",
    labels: Sequence[int] | Tensor | None = None,
    guidance: float = 0.0,
    context: Context | None = None,
    z: Latents | None = None,
    z_temperature: float = 1.0,
    first_row: int = 0,
    batch_size: int = 64,
    engine: str = "auto",
    shape: Sequence[int] | None = None,
    length: int | None = None,
    prompt: Tensor | Sequence[int] | None = None,
    progress: Progress | None = None,
) -> Tensor:
    """(n, *shape) samples; row i is a pure function of the model, the seed and ``first_row + i``, whatever the batch size.

    Args:
        temperature, top_k, top_p, min_p: how each symbol is drawn; see `Draw`. Tempering the conditionals is not tempering p(x).
        method: ``"cached"`` remembers what the next symbol needs, ``"recompute"`` makes a whole forward pass a symbol,
            ``"parallel"`` iterates over all sites at once, ``"wavefront"`` settles at once what a limited receptive field
            leaves independent; all give the same samples. See `parallel_sample` for the number of passes.
        labels, context: (n,) labels of a conditional model, or whatever else it is conditioned on; not both.
        guidance: w of log p_w = (1 + w) log p(symbol | label) - w log p(symbol) + constant (Ho & Salimans 2022), before the
            temperature; needs labels, and a model trained with ``label_dropout``. 0 is plain conditional sampling; where others
            write a scale s of which 1 is plain, w = s - 1. Each row is walked twice, with and without its label; z, where it is
            codes with an autoregressive prior, likewise.
        z: latents by group, (n, *latent), or those of the only group; drawn from the prior by default.
        z_temperature: scales the spread of the z drawn; 0 takes the prior's median.
        first_row: number of the first row, to go on with an earlier run.
        batch_size: rows that walk together.
        engine: what carries cached walks out: ``"native"`` (CPU, float32), ``"compiled"`` (by torch.compile), ``"eager"``
            (PyTorch) or ``"auto"``: the fastest that can.
        shape: (C, H, W) of images of another size than the model's, where its network takes others; see `arrange`, which also
            gives models in another order.
        length: how many symbols of audio or text, where the network takes other lengths than its own. Examples that end earlier
            are filled up with the symbol ``end``.
        prompt: (k,) or (n, k) symbols that the samples begin with, in the order in which symbols are settled.
        progress: is told (symbols settled, of how many).

    Raises:
        ValueError: an argument is outside its range or does not fit the model.
        DataError: the prompt does not fit the model.
        OrderError: a shape or a length that its network cannot take.
        Interrupted: Ctrl-C; its ``complete`` holds the batches that were done.

    Example:
        >>> import ancestral
        >>> model = ancestral.build("agave", ancestral.DataSpec("image", (1, 4, 4), levels=2), preset="tiny")
        >>> sample(model, 3, seed=1).shape
        torch.Size([3, 1, 4, 4])
        >>> torch.equal(sample(model, 3, seed=1)[2:], sample(model, 1, seed=1, first_row=2, method="parallel"))
        True
    """
    if length is not None and shape is not None:
        raise ValueError("length and shape were both given: a length is the shape of audio or text, so one of them will do")
    model = sized(model, shape if length is None else (length,))
    rows = Rows(
        model,
        n,
        context_of(model, n, labels, context),
        z,
        seed,
        first_row,
        z_temperature,
        engine if method == "cached" else "eager",
    )
    known = None if prompt is None else prompted(likelihood_of(model), prompt, n)
    draw = Draw(seed, temperature, top_k, top_p, min_p, known, first_row)
    with inference(model):
        if guidance:
            return guided(rows, draw, guidance, method, batch_size, engine, progress)
        return sampled(rows, draw, method, batch_size, engine, progress).x


def sampled(rows: Rows, draw: Draw, method: str, batch_size: int, engine: str, progress: Progress | None) -> Sampled:
    """Samples of rows that are described already, by one of `METHODS`."""
    if method not in METHODS:
        raise ValueError(f"there is no sampling method {method!r}; choose one of {', '.join(METHODS)}")
    if method in PASSES:
        return in_passes(rows, draw, method, batch_size, progress)
    likelihood = likelihood_of(rows.model)
    if method == "recompute":
        likelihood = Autoregressive(Recomputed(likelihood.network), likelihood.family, likelihood.spec)
        engine = "eager"
    return Sampled(walked(likelihood, rows, draw, batch_size, engine, progress), likelihood.spec.sites)


def walked(likelihood: Autoregressive, rows: Rows, draw: Draw, batch_size: int, engine: str, progress: Progress | None) -> Tensor:
    """(n, *shape) symbols that walks over batches of rows settle with a draw, known symbols and all, up to the end of each.

    Raises:
        Interrupted: Ctrl-C; it holds the batches that were done.
    """
    parts: list[Tensor] = []
    apart = coded(rows.model) and isinstance(likelihood.network, Factorised)
    fast = None if apart else lowered(likelihood, engine, rows.n)  # of codes it is their prior that walks
    try:
        for some, seen in rows.batches(batch_size):
            own, tell = part_of(draw, some), telling(progress, some, rows.n, likelihood.spec.sites)
            x = None if fast is None else fast.run(len(some), seen, likelihood.family, own, tell, likelihood.spec.end)
            if x is None:
                x = settled(likelihood.walk(len(some), seen), own, likelihood.spec, own.known, tell)
            parts.append(ended(x, likelihood.spec))
    except KeyboardInterrupt as stop:
        done = torch.cat(parts) if parts else torch.zeros(0, *likelihood.network.shape, dtype=torch.long)
        raise Interrupted(done, rows.n) from stop
    return torch.cat(parts)


def decoded_means(rows: Rows, batch_size: int = 8) -> Tensor | None:
    """(n, *shape) what the VAE alone sees of each row: the mean of p(y | z), or of p(x | z) where pixels are independent.

    Where z is a picture itself it is that, whatever its size.

    None where all that is decoded is the context of an autoregressive model. The mean, because the mode of a wide logistic is
    black or white: its outermost levels hold its tails.
    """
    model = rows.model
    if not isinstance(model, Latent):
        return None
    if model.topdown.shows is not None:
        with inference(model):
            return model.topdown.pictured(rows.latents(model, model.topdown.shows, batch_size))
    likelihood = model.likelihood if model.auxiliary is None else model.auxiliary.likelihood
    if not isinstance(likelihood.network, Factorised) or likelihood.family.levels is None:
        return None
    values = torch.arange(likelihood.family.levels, dtype=torch.float64, device=model.anchor.device)
    means = []
    with inference(model):
        for some, seen in rows.batches(batch_size):
            unread = torch.zeros(len(some), *likelihood.network.shape, dtype=torch.long, device=model.anchor.device)
            seen = seen if seen is None or model.auxiliary is None else model.auxiliary.context(seen)
            means.append(likelihood.conditionals(unread, seen).log_pmf().double().exp() @ values)
    return torch.cat(means).clamp(0, likelihood.family.levels - 1)
