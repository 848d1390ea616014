"""Data sets of our own: prose that lies beside this file, and notes that are synthesised."""

from __future__ import annotations

import hashlib
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from ancestral.data.notation import int16
from ancestral.data.source import CUT, permutation
from ancestral.symbols import DataError

PROSE = "e9bddf219d978ce17d35238238c21a58375f82082400818f277d5f0f77cd7923"  # SHA-256 of prose.txt
SEED = 0  # of the notes and their sets; never changes
RATE, NOTE, NOTES = 8000, 1024, 960  # samples a second, samples of a note, notes
CLASSES = ("C", "C sharp", "D", "D sharp", "E", "F", "F sharp", "G", "G sharp", "A", "A sharp", "B")
SHARES = {"train": slice(0, 768), "validation": slice(768, 864), "test": slice(864, 960)}


def prose() -> bytes:
    """Some pages of English, written for this package: on chance, codes and models, and on a town by a river.

    Raises:
        DataError: the file is not as it was written.
    """
    text = (Path(__file__).parent / "prose.txt").read_bytes()
    if hashlib.sha256(text).hexdigest() != PROSE:
        raise DataError("the embedded text has been changed, and figures on it compare with no others: install the package again")
    return text


def notes() -> tuple[list[NDArray[np.int16]], list[int], dict[str, list[int]]]:
    """(1024,) samples of 960 notes, the pitch class of each, and which make up the three sets.

    A note is a sum of harmonics of a pitch of the equal-tempered scale (C3 to B5, at most a tenth of a semitone off) with the
    amplitudes 1/k of a sawtooth, 1/k for odd k of a square or 1/k^2 for odd k of a triangle, below 3,800 Hz; it is struck within
    10 ms and dies away. Timbre, octave, phase, loudness and decay are drawn, 80 notes for each pitch class.
    """
    u = (np.random.Philox(key=np.array([SEED, NOTES], np.uint64)).random_raw((NOTES, 6)) >> np.uint64(11)) * 2.0**-53
    pitches = np.arange(NOTES) % 12
    samples = [int16(_note(int(pitch), *draw)) for pitch, draw in zip(pitches, u.tolist(), strict=True)]
    order = permutation(NOTES, SEED, CUT)
    return samples, pitches.tolist(), {part: order[some].tolist() for part, some in SHARES.items()}


def _note(
    pitch: int, timbre: float, octave: float, detuned: float, phase: float, loud: float, decay: float
) -> NDArray[np.float64]:
    key = 12 * int(3 * octave) + pitch - 21 + 0.2 * (detuned - 0.5)  # semitones above A4 = 440 Hz
    frequency, time = 440 * 2 ** (key / 12), np.arange(NOTE) / RATE
    step, power = ((1, 1), (2, 1), (2, 2))[int(3 * timbre)]
    harmonics = np.arange(1, 3800 / frequency, step)
    waves = np.sin(2 * np.pi * (frequency * np.outer(harmonics, time) + phase * harmonics[:, None])) / harmonics[:, None] ** power
    envelope = np.minimum(1, time / 0.01) * np.exp(-time * (5 + 25 * decay))
    return np.asarray((0.1 + 0.3 * loud) * envelope * waves.sum(0))
