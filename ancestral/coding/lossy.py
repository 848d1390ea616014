"""Pictures of z alone: what two-part codes begin with, and all that a file of latents holds.

A decoder that is autoregressive draws what z left open, as it was in the data but not as it was in this picture; so z may take
few bits and the picture still look whole (Chen et al. 2017, "Variational Lossy Autoencoder").
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from math import log

import torch
from torch import Tensor
from torch.nn import functional

from ancestral.coding import two_part
from ancestral.coding.blocks import MOST_ITEMS, block_items, unpacked_lengths
from ancestral.coding.codec import ENDS, Opened, spec_of
from ancestral.coding.container import STORED, Block
from ancestral.coding.errors import CodecError, DecodeMismatch
from ancestral.coding.labelled import label_bytes, labelled_header
from ancestral.coding.payloads import LONGEST, LatentPart, generator_of
from ancestral.coding.reader import Reader
from ancestral.coding.schemes import LATENTS
from ancestral.evaluation.fidelity import psnr, ssim
from ancestral.latent.latent import Latent
from ancestral.latent.topdown import placed
from ancestral.sampling.sample import decoded_means, sample
from ancestral.sampling.strategies import Rows, context_of
from ancestral.spec import DataSpec
from ancestral.symbols import DataError
from ancestral.walking.twin import TWO_PART, label_vector, twin

BYTES = 256  # levels of the pictures that are shown


@dataclass(frozen=True, eq=False)
class Lossy:
    """What z keeps of some pictures.

    Attributes:
        bits: (n,) that z takes in a file.
        whole_bits: (n,) that x takes besides, for the picture as it was.
        z: by group.
        drawn: (n, *shape) symbols drawn given z.
        seen: (n, *shape) bytes, the picture that z alone gives, or None where all that there is to see is ``drawn``.
        figures: ``psnr`` and ``ssim`` of each with the originals, by name.
    """

    bits: Tensor
    whole_bits: Tensor
    z: Mapping[str, Tensor]
    drawn: Tensor
    seen: Tensor | None
    figures: Mapping[str, float]


@torch.no_grad()
def lossy(model: Latent, x: Tensor, labels: Sequence[int] | Tensor | None = None, seed: int = 0, threads: int = 1) -> Lossy:
    """Reduce (n, C, H, W) symbols to z as files hold it, and draw them again.

    Args:
        labels: (n,) classes, for a conditional model.
        seed: of what is drawn.

    Raises:
        DataError: x are no pictures of integers that fit the model.
        LoweringError: the model has no exact twin.
    """
    check_pictures(model.spec)
    known = None if labels is None else torch.as_tensor(labels).cpu().long()
    vector, x = label_vector(known, model.spec), x.cpu().long()
    exact = twin(model, x, threads=threads, vector=vector, scheme=TWO_PART)
    latents = generator_of(exact)
    codes = latents.codes(x, vector)
    rest = -exact.likelihood.log_prob(x, latents.features(codes, vector))
    z = {name: placed(each, model.anchor) for name, each in latents.latents(codes, vector).items()}
    drawn = sample(model, len(x), labels=known, z=z, seed=seed).cpu()
    seen, originals = means_seen(model, z, known), bytes_of(x, model.spec.levels or 2)
    shown = {"drawn": bytes_of(drawn, model.spec.levels or 2), **({} if seen is None else {"seen": seen})}
    figures = {
        f"{measure}_{name}": value
        for name, each in shown.items()
        for measure, value in (("psnr", psnr(originals, each)), ("ssim", ssim(originals, each).mean().item()))
    }
    return Lossy(latents.rate(codes, vector) / log(2), rest / log(2), z, drawn, seen, figures)


def picture(model: Latent, z: Mapping[str, Tensor], labels: Tensor | None = None, seed: int = 0, first_row: int = 0) -> Tensor:
    """(n, *shape) bytes: the picture that z alone gives.

    It is the mean of p(x | z) where pixels are independent given z, the mean of the auxiliary image where the model has one,
    and otherwise what the decoder draws.
    """
    seen = means_seen(model, z, labels)
    if seen is not None:
        return seen
    drawn = sample(model, len(next(iter(z.values()))), labels=labels, z=z, seed=seed, first_row=first_row)
    return bytes_of(drawn.cpu(), model.spec.levels or 2)


def means_seen(model: Latent, z: Mapping[str, Tensor], labels: Tensor | None = None) -> Tensor | None:
    """(n, *shape) bytes of ``picture`` that is drawn from nothing; None of a model whose pictures of z are its samples."""
    n = len(next(iter(z.values())))
    means = decoded_means(Rows(model, n, context_of(model, n, labels, None), z))
    if means is None:
        return None
    told = model if model.auxiliary is None else model.auxiliary.likelihood
    height, width = (size or 0 for size in model.spec.shape[1:])
    return functional.interpolate(bytes_of(means.cpu(), told.spec.levels or 2).double(), size=(height, width)).long()


def previews(opened: Opened) -> Iterator[Tensor]:
    """(items, *shape) bytes of every block, from z alone: x is not decoded.

    Raises:
        DataError: the items are no pictures.
        CodecError: the file does not begin with z, or is damaged.
    """
    check_previews(opened)
    for block in opened.reader:
        yield previewed(opened, block)


def previewed(opened: Opened, block: Block) -> Tensor:
    """(items, *shape) bytes of one block of a file that ``check_previews`` let pass.

    Raises:
        DecodeMismatch: it holds something else.
    """
    alone = opened.reader.header["scheme"] == LATENTS
    if not block.items or (block.kind == STORED and not alone):
        return bytes_of(opened.decoded(block), opened.spec.levels or 2)
    if block.items > MOST_ITEMS:
        raise DecodeMismatch(block.index)
    try:
        labels, payload = opened.known(block)
        if block.kind == STORED:
            codes = LatentPart.stored(payload, block.items, labels, opened.twin).x
        else:
            first = payload if alone else two_part.parts(payload)[0]
            codes = two_part.popped(generator_of(opened.twin), first, block.items, label_vector(labels, opened.spec))
    except CodecError as error:
        raise DecodeMismatch(block.index) from error
    return picture(_latent(opened), opened.z(codes, labels), labels, opened.seed, block.index * block_items(opened.spec))


def check_previews(opened: Opened) -> None:
    """Say beforehand whether the items of a file can be shown by z alone; errors as of ``previews``."""
    check_pictures(opened.spec)
    generator_of(opened.twin)
    _latent(opened)


def _latent(opened: Opened) -> Latent:
    if not isinstance(opened.model, Latent):
        raise CodecError("only models with latents have pictures of z alone")
    return opened.model


def latent_bytes(reader: Reader) -> int | None:
    """How many bytes z takes in the blocks that are left to read; None where it does not stand by itself."""
    header = reader.header
    alone, spec = header.get("scheme") == LATENTS, spec_of(header)
    if not alone and header.get("scheme") != TWO_PART:
        return None
    labels, size = labelled_header(header, spec), 0
    for block in reader:
        if not block.items:  # what is kept beside the symbols
            continue
        before = label_bytes(block.items, spec.classes or 0) if labels else 0
        if alone:
            size += len(block.payload) - before
        elif block.kind != STORED:
            payload = block.payload[before:]
            if ENDS in header:
                payload = payload[LONGEST:]
            elif spec.sequence:
                _, payload = unpacked_lengths(payload, block.items, spec.sites)
            size += len(two_part.parts(payload)[0])
    return size


def bytes_of(x: Tensor, levels: int) -> Tensor:
    """Symbols, or means of them, as bytes 0 .. 255."""
    return (x.double() * ((BYTES - 1) / (levels - 1))).round().long()


def of_bytes(x: Tensor, levels: int) -> Tensor:
    """Bytes as the nearest symbols 0 .. levels - 1: the inverse of ``bytes_of`` for up to 256 levels."""
    return (x.double() * ((levels - 1) / (BYTES - 1))).round().long()


def shown_spec(spec: DataSpec) -> DataSpec:
    """What ``picture`` gives."""
    return replace(spec, levels=BYTES)


def check_pictures(spec: DataSpec) -> None:
    """Raise ``DataError`` unless the data are pictures of integers."""
    if spec.kind != "image" or spec.levels is None:
        raise DataError(f"only pictures of integers can be shown by z alone, not {spec.kind} with levels={spec.levels}")
