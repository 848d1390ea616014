"""How many bits an example takes in a codec of everyday use, which a likelihood can be corrected by.

Likelihoods of images follow how complex the images are: a smooth one costs few bits under a model that never saw its like. The
corrected score S(x) = -log2 p(x) - L(x), L(x) the bits of x in a lossless codec that knows no data, is the log of a ratio of
two models, and takes that part out (Serrà et al. 2020, "Input complexity and out-of-distribution detection with
likelihood-based generative models", arXiv:1909.11480).
"""

from __future__ import annotations

from collections.abc import Callable
from io import BytesIO
from typing import Any, Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from ancestral.data.images import png
from ancestral.data.splits import Units
from ancestral.spec import DataSpec
from ancestral.symbols import lengths

Symbols = NDArray[np.integer[Any]]
RATE = 16000  # of FLAC files, in Hz: a number in their heads, on which their sizes do not depend
LEVEL = 19  # of zstd


class Writing(Protocol):
    """What turns symbols back into what they were made of; `ancestral.data.notation` has those of text and sound."""

    def decode(self, symbols: Any) -> Any:
        """(T,) symbols to a text, bytes or samples."""


def complexity(
    x: Tensor, spec: DataSpec, *, units: Units | None = None, notation: Writing | None = None
) -> tuple[str, Tensor] | None:
    """The name of the codec and (n,) the bits of every example in it, the whole file with its head, float64.

    PNG for images of up to 256 levels, FLAC for audio of up to 65,536, zstd at level 19 for everything else: the bytes of a
    text, where the notation tells them, or of the symbols. None where the values are real and have no lossless code.

    Args:
        x: (n, *shape) symbols; what comes after the end of an example is left out.
        units: how x was made of whole numbers, where it was (`Units`).
        notation: how symbols stand for text.

    Example:
        >>> codec, bits = complexity(torch.zeros(2, 1, 28, 28, dtype=torch.long), DataSpec("image", (1, 28, 28), levels=256))
        >>> codec, bool(bits[0] < 8 * 28 * 28 / 8)
        ('PNG', True)
    """
    whole = whole_numbers(x, spec, units)
    if whole is None:
        return None
    codec, size = _codec(spec, _alphabet(whole, spec), notation)
    rows, kept = whole.cpu().numpy(), lengths(whole, spec).tolist()
    found = [size(row if spec.end is None else row[:length]) for row, length in zip(rows, kept, strict=True)]
    return codec, 8 * torch.tensor(found, dtype=torch.float64)


def whole_numbers(x: Tensor, spec: DataSpec, units: Units | None) -> Tensor | None:
    """The whole numbers that examples are or were before noise was added; None where they are real."""
    if spec.levels is not None:
        return x
    if units is not None and units.dequantized:
        return units.restore(x.double()).floor().clamp(min=0).long()
    return None if spec.density else x.long()


def samples(symbols: Symbols, spec: DataSpec) -> Symbols:
    """(T,) symbols of audio as (T / parts,) samples around zero; an unfinished last sample is filled up with zeros."""
    base = _levels(spec)
    padded = np.pad(symbols.astype(np.int64), (0, -len(symbols) % spec.parts)).reshape(-1, spec.parts)
    centred: Symbols = padded @ (base ** np.arange(spec.parts)[::-1]) - base**spec.parts // 2
    return centred


def _levels(spec: DataSpec) -> int:
    """The values of a symbol that is part of an example; 0 where they are not whole numbers."""
    return 0 if spec.levels is None else spec.levels - (spec.end is not None)


def _alphabet(whole: Tensor, spec: DataSpec) -> int:
    """How many values there are: what the spec says, so that sets compare, or a whole byte or two of numbers that had noise."""
    said = _levels(spec) or max(spec.whole_columns.values(), default=0)
    return said or (256 if int(whole.max()) < 256 else 65536)


def _codec(spec: DataSpec, alphabet: int, notation: Writing | None) -> tuple[str, Callable[[Symbols], int]]:
    if spec.kind == "image" and spec.shape[0] in (1, 3) and alphabet <= 256:
        return "PNG", lambda row: len(_picture(row, alphabet == 2))
    if spec.kind == "audio" and _levels(spec) ** spec.parts <= 65536:
        return "FLAC", lambda row: len(_sound(samples(row, spec), _levels(spec) ** spec.parts <= 256))
    from zstandard import ZstdCompressor

    compressor = ZstdCompressor(level=LEVEL)
    width = next(kind for kind in (np.uint8, np.uint16, np.int64) if alphabet - 1 <= np.iinfo(kind).max)
    if spec.kind == "text" and notation is not None:
        return "zstd", lambda row: len(compressor.compress(_bytes(notation.decode(torch.from_numpy(row)))))
    return "zstd", lambda row: len(compressor.compress(row.astype(width).tobytes()))


def _picture(row: Symbols, bits: bool) -> bytes:
    pixels = (row * 255 if bits else row).astype(np.uint8)
    return png(np.moveaxis(pixels, 0, -1), "1" if bits and len(row) == 1 else None)


def _sound(wave: Symbols, narrow: bool) -> bytes:
    from soundfile import write

    if not len(wave):  # of which soundfile writes nothing at all: the head of a file, without the frame after it
        whole = _sound(np.zeros(1, np.int64), narrow)
        return whole[: whole.rindex(b"\xff\xf8")]
    memory = BytesIO()  # soundfile takes 8 bits as the upper ones of 16
    values = (wave * 256 if narrow else wave).astype(np.int16)
    write(memory, values, RATE, format="FLAC", subtype="PCM_S8" if narrow else "PCM_16", compression_level=1.0)
    return memory.getvalue()


def _bytes(text: str | bytes) -> bytes:
    return text.encode() if isinstance(text, str) else text
