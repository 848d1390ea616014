"""The data sets of ``catalogue.EMBEDDED``, out of what scikit-learn carries with it.

Their splits depend on nothing but this file: figures of one year compare with those of the next.
scikit-learn is imported inside the functions, because it is slow to load.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from ancestral.data.prepare import standardized
from ancestral.data.source import CUT, Array, Source, divide, permutation

SEED = 0  # of every permutation here; never changes
TILE, CROP, STRIDE = 64, 32, 8
TILES = {"train": slice(0, 96), "validation": slice(96, 108), "test": slice(108, 120)}


def digits() -> Source:
    """1,797 handwritten digits of 8x8 pixels with values 0 .. 16 (Alpaydin and Kaynak, UCI, 1998)."""
    from sklearn.datasets import load_digits

    found = load_digits()
    x, labels = found.images.astype(np.uint8), found.target
    origin = "Optical recognition of handwritten digits (UCI, test part), 1x8x8, by way of scikit-learn"
    return divide(Source("digits", origin, {"train": x}, {"train": labels}, levels=17), SEED)


def photos() -> Source:
    """Crops of 32x32 pixels of scikit-learn's two photographs; no pixel is in two sets.

    Each photograph (but for its lowest 43 rows) is cut into 6 rows of 10 tiles of 64x64 pixels, of which a fixed
    permutation gives every set its own.  A tile gives 25 crops, 8 pixels apart; they overlap, so 300 test crops show only
    12 places.  The pixels are what the installed JPEG decoder makes of the files; ``Splits.hash`` tells.
    """
    from sklearn.datasets import load_sample_images

    pictures = load_sample_images().images
    tiles = [
        picture[top : top + TILE, left : left + TILE]
        for picture in pictures
        for top in range(0, 6 * TILE, TILE)
        for left in range(0, 10 * TILE, TILE)
    ]
    order = permutation(len(tiles), SEED, CUT)
    x = {part: np.concatenate([_crops(tiles[i]) for i in order[some]]) for part, some in TILES.items()}
    x = {part: crops[permutation(len(crops), SEED, CUT)] for part, crops in x.items()}
    origin = "Crops of scikit-learn's two photographs (china.jpg, flower.jpg), 3x32x32"
    return Source("photos", origin, x, levels=256, steps=("each set from 64x64 tiles of its own",))


def _crops(tile: Array) -> Array:
    places = range(0, TILE - CROP + 1, STRIDE)
    return np.stack([tile[top : top + CROP, left : left + CROP] for top in places for left in places])


def measurements() -> Source:
    """569 rows of 30 measurements of cell nuclei (Wolberg, Mangasarian, Street and Street, UCI, 1995), standardised.

    Each column has mean 0 and standard deviation 1 on the training set, to six digits; ``Splits.units`` undoes it.
    """
    from sklearn.datasets import load_breast_cancer

    found = load_breast_cancer()
    origin = "Breast cancer Wisconsin (diagnostic) (UCI), 30 real values a row, by way of scikit-learn"
    names = tuple(str(name) for name in found.target_names)
    raw = Source("measurements", origin, {"train": found.data}, {"train": found.target}, class_names=names)
    return standardized(divide(raw, SEED))


READERS: dict[str, Callable[[], Source]] = {"digits": digits, "photos": photos, "measurements": measurements}
