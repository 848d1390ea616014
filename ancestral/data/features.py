"""Features of sound that samples can follow: the log-mel spectrogram, by librosa, which comes with ``ancestral[audio]``."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from ancestral.data.notation import Notation, Sound
from ancestral.symbols import DataError

FLOOR = 1e-4  # of amplitudes: 80 dB below a full sine wave
FRAMES = 4  # hops that one frame of the spectrogram reaches over


@dataclass(frozen=True)
class Mel:
    """Log-mel spectrograms, 0 for silence and about 1 for a sine wave of full amplitude.

    Attributes:
        sound: how the symbols are written.
        bands: mel bands, from 0 Hz to half the rate.
        hop: samples from frame to frame; frame i is centred on samples i hop .. (i + 1) hop - 1.

    Raises:
        DataError: librosa is not installed.

    Example:
        >>> Mel(Sound(8000), bands=5, hop=64)(torch.full((2, 1000), 128)).shape
        torch.Size([2, 5, 16, 1])
    """

    sound: Sound
    bands: int
    hop: int

    def __post_init__(self) -> None:
        try:
            import librosa  # noqa: F401
        except ImportError as error:
            raise DataError("a mel spectrogram needs librosa: pip install 'ancestral[audio]'") from error

    def __call__(self, x: Tensor, symbols: int | None = None) -> Tensor:
        """(n, parts T) symbols to (n, bands, ceil(T / hop), 1) features, float32; silence after the end of an example.

        Args:
            symbols: how many the features are to accompany, if not those of x.
        """
        from numba.core.compiler_lock import global_compiler_lock

        count = (symbols or x.shape[1]) // self.sound.parts
        waves = np.zeros((len(x), count), np.float32)
        for wave, row in zip(waves, x, strict=True):
            samples = self.sound.decode(row).numpy() / np.float32(2**15)
            wave[: len(samples)] = samples[:count]
        size = FRAMES * self.hop
        margin = (size - self.hop) // 2
        padded = np.pad(waves, ((0, 0), (margin, size - self.hop - margin + -count % self.hop)))
        with global_compiler_lock:  # librosa tells numba of its functions at its first use; another thread may be compiling
            from librosa.feature import melspectrogram

            spectrum = melspectrogram(
                y=padded,
                sr=self.sound.rate,
                n_fft=size,
                hop_length=self.hop,
                center=False,
                power=1.0,
                n_mels=self.bands,
                norm=None,
            )
        loud = np.maximum(spectrum * (4 / size), FLOOR)  # a Hann window sums to half its size, and a sine has two halves
        return torch.from_numpy((1 - np.log10(loud) / np.log10(FLOOR)).astype(np.float32))[..., None]


def mel_of(config: Any, notation: Notation | None) -> Mel | None:
    """The features that a model of some configuration follows; None where it follows none.

    Raises:
        DataError: it does, and its data are not sound in a known notation.
    """
    if getattr(config, "condition", "none") != "mel":
        return None
    if not isinstance(notation, Sound):
        raise DataError(
            "condition='mel' is for sound whose notation is known, as that of Splits of files is: give such data, or notation= to"
            " score; or build the model without it"
        )
    return Mel(notation, *config.grid)
