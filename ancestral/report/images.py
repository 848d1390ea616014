"""Symbols as pictures: pixels, sheets of images, and PNG files."""

from __future__ import annotations

import os
from collections.abc import Sequence
from math import ceil
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from ancestral.data.images import png
from ancestral.files import write_whole
from ancestral.spec import DataSpec
from ancestral.symbols import DataError

Pixels = NDArray[np.uint8]

GREY = 128  # of what is not there


def drawable(spec: DataSpec) -> bool:
    """Whether examples are pictures: images of integers with 1 (grey) or 3 (red, green, blue) channels."""
    return spec.kind == "image" and spec.levels is not None and spec.shape[0] in (1, 3)


def pixels(x: Tensor, levels: int | None) -> Pixels:
    """(n, C, H, W) symbols 0 .. levels - 1, or values between them, to (n, H, W, C) bytes, the highest symbol becoming 255.

    Raises:
        DataError: not images of symbols in that range with 1 or 3 channels.

    Example:
        >>> import torch
        >>> pixels(torch.tensor([[[[0, 1, 2]]]]), levels=3).flatten().tolist()
        [0, 128, 255]
    """
    if levels is None:
        raise DataError("real-valued images have no range of pixels: bring them to whole levels 0 .. levels - 1 first")
    if x.dim() != 4:
        raise DataError(f"a tensor of shape {tuple(x.shape)} is not a batch of images (n, channels, height, width)")
    if x.shape[1] not in (1, 3):
        raise DataError(
            f"an image of {x.shape[1]} channels cannot be shown: 1 is grey and 3 are red, green, blue; pick among them"
        )
    values = x.detach().cpu().double()
    if not ((values >= 0) & (values <= levels - 1)).all():
        raise DataError(f"symbols range over {values.min():g} .. {values.max():g}; these images have 0 .. {levels - 1}")
    return (values * (255 / (levels - 1))).round().movedim(1, -1).numpy().astype(np.uint8)


def grid(images: Pixels, columns: int, *, scale: int | None = None, padding: int = 2, background: int = 128) -> Pixels:
    """(n, H, W, C) bytes to one sheet (H', W', C), filled row by row.

    Args:
        columns: images in a row.
        scale: every pixel becomes a square of this side; by default what brings the shorter side to 48 or more.
        padding: pixels between the images, of grey ``background``.

    Raises:
        ValueError: no images, or a number below its least.
    """
    if images.ndim != 4 or not len(images):
        raise ValueError(f"an array of shape {images.shape} is not a batch (n, height, width, channels) of at least one image")
    n, height, width, channels = images.shape
    scale = ceil(48 / min(height, width)) if scale is None else scale
    if columns < 1 or scale < 1 or padding < 0:
        raise ValueError(f"columns {columns} and scale {scale} must be at least 1, padding {padding} at least 0")
    rows, columns = ceil(n / columns), min(n, columns)
    down, across = height * scale + padding, width * scale + padding
    sheet = np.full((rows * down - padding, columns * across - padding, channels), background, np.uint8)
    for i, image in enumerate(images.repeat(scale, 1).repeat(scale, 2)):
        top, left = i // columns * down, i % columns * across
        sheet[top : top + height * scale, left : left + width * scale] = image
    return sheet


def stacked(strips: Sequence[Pixels], columns: int) -> Pixels:
    """The strips in rows of ``columns`` images, a row of each in turn; the last ones are filled up, so that they stay aligned.

    Raises:
        ValueError: fewer than one column.
    """
    if columns < 1:
        raise ValueError(f"columns is {columns}; it must be at least 1")
    if len(strips) == 1:
        return strips[0]
    missing = -len(strips[0]) % columns
    filled = [np.concatenate([strip, np.full_like(strip[:missing], GREY)]) for strip in strips]
    rows = [strip.reshape(-1, columns, *strip.shape[1:]) for strip in filled]
    return np.stack(rows, 1).reshape(-1, *strips[0].shape[1:])


def save_png(path: str | os.PathLike[str], image: Pixels) -> Path:
    """Write (H, W, C) bytes as a PNG file, whole or not at all; the path.

    Raises:
        OSError: the place cannot be written.
    """
    write_whole(Path(path), png(image))
    return Path(path)
