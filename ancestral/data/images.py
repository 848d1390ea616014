"""Image files, with Pillow: a folder of them is read sorted by name, subfolders as labels or as sets; one is made of pixels."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from io import BytesIO
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from ancestral.data.source import Array, Source
from ancestral.symbols import DataError

if TYPE_CHECKING:
    from PIL import Image

SUFFIXES = (".png", ".jpg", ".jpeg", ".webp", ".bmp", ".gif", ".tif", ".tiff", ".pgm", ".ppm", ".pbm")
SETS = {
    "train": "train",
    "training": "train",
    "validation": "validation",
    "valid": "validation",
    "val": "validation",
    "test": "test",
}


def read_folder(folder: Path, size: int | None = None) -> Source:
    """Every image of a folder and its subfolders.

    Subfolders ``train``, ``validation`` (``valid``, ``val``) and ``test`` are sets.  Within a set, or a folder without sets,
    the names of the subfolders are labels where every image lies in one of several.  Colour unless every image is grey.
    Transparency is shown on white, 16-bit grey becomes 8-bit, the camera's orientation is applied, of animations the
    first frame is read.

    Args:
        folder: where to look.
        size: crop the centre square, brought down to this side with an antialiased filter; else all sizes must agree.

    Raises:
        DataError: no images, a broken one (named), or mixed sizes (the first two that differ are named).
    """
    roots = sets_of(folder)
    files = {part: listed(root, SUFFIXES) for part, root in roots.items()}
    for part, some in files.items():
        if not some:
            found = ", ".join(sorted(entry.name for entry in roots[part].iterdir())[:5]) or "nothing"
            raise DataError(f"{roots[part]} holds no images ({', '.join(SUFFIXES)}); it holds {found}")
    classes = {part: classes_of(some, roots[part]) for part, some in files.items()}
    names = sorted({name for some in classes.values() for name in some})
    pixels = read_images([path for some in files.values() for path in some], size)
    ends = np.cumsum([len(some) for some in files.values()])
    x = dict(zip(files, np.split(pixels, ends[:-1]), strict=True))
    labels = {part: np.array([names.index(name) for name in some]) for part, some in classes.items() if some}
    origin = f"{folder.resolve().name} (folder of images{f', centre squares brought to {size}x{size}' if size else ''})"
    return Source(folder.resolve().name, origin, x, labels, levels=256, class_names=tuple(names))


def sets_of(folder: Path) -> dict[str, Path]:
    """The subfolders that are sets, by the names of these; the folder itself as training set where there are none."""
    inside = {
        SETS[entry.name.lower()]: entry for entry in sorted(folder.iterdir()) if entry.is_dir() and entry.name.lower() in SETS
    }
    return inside if len(inside) > 1 and "train" in inside else {"train": folder}


def listed(root: Path, suffixes: Collection[str]) -> list[Path]:
    """The files with one of these endings in a folder and its subfolders, sorted by name; without the hidden ones."""
    inside = [path for path in root.rglob("*") if path.suffix.lower() in suffixes and path.is_file()]
    seen = [path for path in inside if not any(part.startswith(".") for part in path.relative_to(root).parts)]
    return sorted(seen, key=lambda path: path.relative_to(root).as_posix())


def classes_of(files: list[Path], root: Path) -> list[str]:
    """The subfolder of each file, where every file lies in one of several; else nothing."""
    parents = [path.relative_to(root).parts[:-1] for path in files]
    names = [above[0] if above else "" for above in parents]
    return names if all(names) and len(set(names)) > 1 else []


def read_images(files: Sequence[Path], size: int | None = None) -> Array:
    """(n, H, W) bytes of image files where all are grey, else (n, H, W, 3); ``size`` takes the centre square of each.

    Raises:
        DataError: one is broken, or their sizes differ.
    """
    pixels = [_read(path, size) for path in files]
    for path, one in zip(files, pixels, strict=True):
        if one.shape[:2] != pixels[0].shape[:2]:
            (h, w), (height, width) = pixels[0].shape[:2], one.shape[:2]
            raise DataError(
                f"images differ in size: {files[0]} is {w}x{h}, {path} is {width}x{height};"
                f" give size={min(h, w, height, width)} or less to take the centre square of each"
            )
    if all(one.ndim == 2 for one in pixels):
        return np.stack(pixels)
    return np.stack([one if one.ndim == 3 else np.repeat(one[:, :, None], 3, axis=2) for one in pixels])


def png(pixels: Array, mode: str | None = None) -> bytes:
    """(H, W, 1, 3 or 4) bytes, grey, colour or colour with opacity, as the content of a PNG file.

    Args:
        mode: what Pillow calls its kind of pixels, such as "1" for one bit each; that of the bytes by default.
    """
    from PIL import Image

    image, memory = Image.fromarray(pixels[:, :, 0] if pixels.shape[2] == 1 else pixels), BytesIO()
    image.convert(mode or image.mode, dither=Image.Dither.NONE).save(memory, format="png", optimize=True)
    return memory.getvalue()


def _read(path: Path, size: int | None) -> Array:
    from PIL import Image, ImageOps  # Pillow is loaded by those who read images

    try:
        with Image.open(path) as image:
            eight = _eight_bit(ImageOps.exif_transpose(image))
    except (OSError, SyntaxError, ValueError, EOFError, Image.DecompressionBombError) as error:
        raise DataError(f"{path} cannot be read as an image ({error}); repair or remove it") from error
    short = min(eight.size)
    if size is not None:
        if short < size:
            raise DataError(
                f"{path} is {eight.width}x{eight.height}, smaller than size={size}: ask for at most {short}, or remove it"
            )
        eight = ImageOps.fit(eight, (size, size), Image.Resampling.BILINEAR)
    x = np.array(eight)
    return x[:, :, 0] if x.ndim == 3 and (x == x[:, :, :1]).all() else x


def _eight_bit(image: Image.Image) -> Image.Image:
    from PIL import Image

    if image.mode in ("I", "F"):
        raise ValueError("its pixels have 32 bits; 8 and 16 are known here")
    if image.mode.startswith("I;16"):  # Pillow's own conversion would clip at 255
        return Image.fromarray((np.asarray(image) >> 8).astype(np.uint8))
    if image.has_transparency_data:
        white = Image.new("RGBA", image.size, "white")
        return Image.alpha_composite(white, image.convert("RGBA")).convert("RGB")
    return image.convert("L" if image.mode in ("1", "L") else "RGB")
