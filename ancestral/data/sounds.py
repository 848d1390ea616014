"""Files of sound, with soundfile, as tapes of samples: one channel, at one rate, held in memory where they are small."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ancestral.data.notation import Sound, int16
from ancestral.data.tapes import Array, Held, Samples, Tape
from ancestral.symbols import DataError

SUFFIXES = (".wav", ".flac", ".aif", ".aiff", ".ogg")
SMALL = 2**28  # bytes of symbols, or of text, below which they are held in memory

Recording = Path | Array  # a file, or its (T,) samples


@dataclass(frozen=True, eq=False)
class SoundFile(Tape):
    """The samples of a file, read from disk and written as symbols when they are asked for."""

    path: Path
    frames: int
    notation: Sound

    @property
    def parts(self) -> int:  # type: ignore[override]
        """Symbols of a sample."""
        return self.notation.parts

    def __len__(self) -> int:
        return self.frames

    def read(self, start: int, stop: int) -> Array:
        return self.notation.codes(read_samples(self.path, start, stop))


@dataclass(frozen=True)
class Header:
    """What the head of a file says: samples a channel, how many of them a second, and channels."""

    frames: int
    rate: int
    channels: int


def header(path: Path) -> Header:
    """The header of a file.

    Raises:
        DataError: it is broken, or no sound.
    """
    import soundfile

    try:
        found = soundfile.info(str(path))
    except (soundfile.SoundFileError, OSError) as error:
        raise DataError(f"{path} cannot be read as sound ({error}); repair or remove it") from error
    return Header(found.frames, found.samplerate, found.channels)


def read_samples(path: Path, start: int = 0, stop: int | None = None) -> NDArray[np.int16]:
    """(stop - start,) samples of a file; several channels are mixed into one, their mean.

    Raises:
        DataError: the file is broken, or holds samples that are not finite.
    """
    import soundfile

    try:
        with soundfile.SoundFile(str(path)) as file:
            whole = file.subtype in ("PCM_16", "PCM_U8", "PCM_S8")
            file.seek(start)
            frames = (file.frames if stop is None else stop) - start
            samples = file.read(frames, dtype="int16" if whole else "float64", always_2d=True)
    except (soundfile.SoundFileError, OSError) as error:
        raise DataError(f"{path} cannot be read as sound ({error}); repair or remove it") from error
    if len(samples) != frames:
        raise DataError(f"{path} ends after {start + len(samples):,} samples where its header says more: fetch it again")
    if not np.isfinite(samples).all():
        raise DataError(f"{path} holds NaN or infinite samples: repair or remove it")
    mixed = samples[:, 0] if samples.shape[1] == 1 else samples.mean(1, dtype=np.float64)
    return mixed if mixed.dtype == np.int16 else int16(mixed / 2**15 if whole else mixed)


def resampled(samples: Array, old: int, new: int) -> NDArray[np.int16]:
    """(T,) samples at another rate, by soxr's high-quality filter."""
    import soxr

    real = samples / 2**15 if samples.dtype == np.int16 else samples
    return int16(soxr.resample(real, old, new, quality="HQ"))


def tapes_of(
    recordings: Sequence[Recording], rate: int | None, code: str, wanted: int | None
) -> tuple[list[Tape], Sound, list[str]]:
    """Recordings as tapes of symbols, their notation, and what was done to them.

    Args:
        recordings: files, or samples as `Sound` takes them.
        rate: of samples that come without a file.
        code: how they are written; see `Sound`.
        wanted: the rate they are brought to; by default the one they all have.

    Raises:
        DataError: a file is broken, the rates differ and none is wanted, or that of samples is not told.
    """
    heads = [header(each) if isinstance(each, Path) else Header(len(each), _told(rate), 1) for each in recordings]
    rates = [head.rate for head in heads]
    other = next((i for i, each in enumerate(rates) if each != rates[0]), None)
    if wanted is None and other is not None:
        raise DataError(
            f"sounds differ in rate: {recordings[0]} has {rates[0]:,} Hz, {recordings[other]} has {rates[other]:,} Hz; give"
            f" rate={min(rates)} or another to bring all to one"
        )
    notation = Sound(wanted or rates[0], code)
    small = sum(head.frames for head in heads) * notation.parts <= SMALL
    tapes = [_tape(each, head, notation, small) for each, head in zip(recordings, heads, strict=True)]
    changed = sorted({each for each in rates if each != notation.rate})
    mixed = sum(head.channels > 1 for head in heads)
    steps = [f"resampled from {', '.join(f'{each:,}' for each in changed)} Hz"] if changed else []
    return tapes, notation, [*steps, *([f"channels of {mixed:,} files mixed into one"] if mixed else [])]


def _told(rate: int | None) -> int:
    if rate is None:
        raise DataError("samples of sound say nothing of their rate: give rate=, in samples a second")
    return rate


def _tape(recording: Recording, head: Header, notation: Sound, small: bool) -> Tape:
    if head.rate != notation.rate:
        samples = read_samples(recording) if isinstance(recording, Path) else recording
        recording = resampled(samples, head.rate, notation.rate)
    tape: Tape = SoundFile(recording, head.frames, notation) if isinstance(recording, Path) else Samples(recording, notation)
    return Held(tape.read(0, len(tape)), notation.parts) if small else tape


def wav(samples: NDArray[Any], rate: int) -> bytes:
    """(T,) int16 samples as the content of a WAV file."""
    from io import BytesIO

    import soundfile

    memory = BytesIO()
    soundfile.write(memory, samples, rate, format="WAV", subtype="PCM_16")
    return memory.getvalue()
