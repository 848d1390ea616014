"""What a classifier looks at: pictures as they are, and sound as spectrograms of one size."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional

from ancestral.data.features import Mel
from ancestral.data.notation import Notation, Sound
from ancestral.spec import DataSpec
from ancestral.symbols import DataError, lengths

BANDS, FRAMES = 32, 32  # of a spectrogram, whatever the length of the sound
HOPS = 125  # frames a second before that
LEAST_SECONDS = 1 / 16


@dataclass(frozen=True)
class Picture:
    """Images of whole levels.

    Attributes:
        spec: of them.
    """

    spec: DataSpec
    points = "pixels"

    @property
    def size(self) -> tuple[int, int, int]:
        """(C, H, W) of what is looked at."""
        channels, height, width = (size or 0 for size in self.spec.shape)
        return channels, height, width

    @property
    def words(self) -> str:
        """What is looked at, in words."""
        return f"images {list(self.spec.shape)} of {self.spec.levels} levels"

    @property
    def told(self) -> Mapping[str, Any]:
        """What two views must agree in."""
        return {"shape": list(self.spec.shape), "levels": self.spec.levels}

    def __call__(self, x: Tensor) -> Tensor:
        """(n, C, H, W) symbols to as many numbers from -1 to 1."""
        return x.float() * (2 / ((self.spec.levels or 2) - 1)) - 1

    def plain(self, x: Tensor) -> Tensor:
        """(n, D) vectors whose Euclidean distance is the root mean square difference of pixels in [0, 1]."""
        vectors: Tensor = self(x).flatten(1) * (0.5 / x[0].numel() ** 0.5)
        return vectors


@dataclass(frozen=True)
class Spectrogram:
    """Sound of any length: its log-mel spectrogram, squeezed or stretched to 32 frames, and a map of how long it is.

    Attributes:
        spec: of the symbols.
        sound: how they are written.
    """

    spec: DataSpec
    sound: Sound
    points = "spectrograms"

    @property
    def size(self) -> tuple[int, int, int]:
        """(2, bands, frames) of what is looked at."""
        return 2, min(BANDS, self.hop // 2), FRAMES

    @property
    def hop(self) -> int:
        """Samples from frame to frame."""
        return max(4, self.sound.rate // HOPS)

    @property
    def words(self) -> str:
        """What is looked at, in words."""
        return f"sound of {self.sound.rate:,} samples a second"

    @property
    def told(self) -> Mapping[str, Any]:
        """What two views must agree in; how the symbols are written makes no difference."""
        return {"shape": list(self.size), "levels": None, "rate": self.sound.rate}

    def __call__(self, x: Tensor) -> Tensor:
        """(n, T) symbols to (n, 2, bands, 32) numbers: from -1 for silence to 1, and a quarter of the log2 of the seconds."""
        samples = lengths(x, self.spec).cpu() // self.sound.parts
        frames = (-(-samples // self.hop)).clamp_min(1).tolist()
        spectra = Mel(self.sound, self.size[1], self.hop)(x.cpu())[..., 0]
        rows = [
            functional.interpolate(each[None, :, :n], size=FRAMES, mode="linear", align_corners=False)
            for each, n in zip(spectra, frames, strict=True)
        ]
        seconds = (samples / self.sound.rate).clamp_min(LEAST_SECONDS).log2() / 4
        shapes = torch.cat(rows) * 2 - 1
        return torch.stack([shapes, seconds.to(shapes)[:, None, None].expand_as(shapes)], 1)

    def plain(self, x: Tensor) -> Tensor:
        """(n, D) vectors whose Euclidean distance is the root mean square difference of points from 0 (silence) to 1."""
        shapes = self(x)[:, 0].flatten(1)
        vectors: Tensor = shapes * (0.5 / shapes.shape[1] ** 0.5)
        return vectors


View = Picture | Spectrogram


def agrees(view: View, made: Mapping[str, Any]) -> bool:
    """Whether a classifier, as the record of it says, looks at data so."""
    return all(made.get(name) == value for name, value in view.told.items())


def view_of(spec: DataSpec, notation: Notation | None) -> View:
    """How data are looked at.

    Raises:
        DataError: they are neither images of whole levels nor sound whose notation is known.
    """
    if spec.kind == "image" and spec.levels is not None:
        return Picture(spec)
    if isinstance(notation, Sound):
        return Spectrogram(spec, notation)
    raise DataError(
        f"a classifier takes images of whole levels, and sound whose notation is known, not {spec.kind} with levels={spec.levels}"
    )
