"""The data sets that need neither a file nor a network, by name; free of torch, so that listing them is quick."""

from __future__ import annotations

EMBEDDED: dict[str, str] = {
    "digits": "1,797 handwritten digits, 1x8x8, 17 grey levels, 10 classes (UCI, by way of scikit-learn)",
    "photos": "3,000 colour crops of scikit-learn's two photographs, 3x32x32, 256 levels: for tests, not for trends",
    "measurements": "569 rows of 30 real-valued measurements of cell nuclei, 2 classes (UCI, by way of scikit-learn)",
    "text": "prose in English of our own, 21,541 bytes, in blocks of 256: for tests and first steps",
    "notes": "960 synthesised notes, 1,024 samples of mu-law at 8 kHz, 12 classes: the pitch",
}
