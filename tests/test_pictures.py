"""Pictures as items of a compressed file: every pixel and name comes back, what cannot be kept exactly is refused by name."""

from __future__ import annotations

import base64
import json
import zlib
from io import BytesIO
from pathlib import Path, PurePosixPath
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

import ancestral
from ancestral.coding import manifest as manifests
from ancestral.coding.errors import CodecError, CorruptHeader
from ancestral.coding.manifest import CHANNELS, Item, Manifest
from ancestral.coding.pictures import (
    array_item,
    assembled,
    check_folder,
    check_same,
    collected,
    lost_files,
    png_size,
    restored_files,
    shown,
)
from ancestral.data.source import Array
from ancestral.report.images import pixels
from ancestral.spec import DataSpec
from ancestral.symbols import DataError

GREY, COLOUR = DataSpec("image", (1, 8, 8), levels=256), DataSpec("image", (3, 4, 6), levels=256)
NAMES = ["a.png", "deep/er/ä ö.PNG", "deep/写真.bmp", "x.y.png", "z.tiff"]


def picture(rng: np.random.Generator, mode: str, levels: int = 256) -> Array:
    """Bytes of a random size, each the look of a symbol."""
    height, width = rng.integers(1, 20, 2)
    size = (height, width, 3) if mode == "RGB" else (height, width)
    return np.round(rng.integers(levels, size=size) * (255 / (levels - 1))).astype(np.uint8)


def saved(path: Path, values: Array, mode: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(values).convert(mode, dither=Image.Dither.NONE).save(path)


def read(content: bytes) -> tuple[str, Array]:
    with Image.open(BytesIO(content)) as image:
        return image.mode, np.array(image.convert("L") if image.mode == "1" else image)


def shipped(x: torch.Tensor, manifest: Manifest) -> dict[str, bytes]:
    """Files restored from what a header would carry."""
    return dict(restored_files(x, Manifest.from_text(manifest.text(), manifest.spec)))


@pytest.mark.parametrize("seed", range(12))
def test_pictures_come_back_with_names_modes_and_pixels(seed: int, tmp_path: Path) -> None:
    rng = np.random.default_rng(seed)
    channels, levels = int(rng.choice([1, 3])), int(rng.choice([2, 4, 51, 256]))
    spec = DataSpec("image", (channels, int(rng.integers(1, 9)), int(rng.integers(1, 9))), levels)
    modes = ["RGB" if channels == 3 else str(rng.choice(["1", "L"])) for _ in NAMES]
    made = {name: picture(rng, mode, 2 if mode == "1" else levels) for name, mode in zip(NAMES, modes, strict=True)}
    for (name, values), mode in zip(made.items(), modes, strict=True):
        saved(tmp_path / name, values, mode)
    x, manifest = collected([tmp_path], spec)
    assert x.dtype == torch.long and tuple(x.shape[1:]) == spec.shape and len(x) == manifest.total
    assert manifest.symbols == sum(values.size for values in made.values()) and manifest.examples == len(made)
    found = shipped(x, manifest)
    assert set(found) == {name if name.lower().endswith("png") else f"{name}.png" for name in NAMES}
    for (name, values), mode in zip(made.items(), modes, strict=True):
        kind, got = read(found.get(name) or found[f"{name}.png"])
        assert kind == mode and np.array_equal(got, values), name
    assert png_size(x, manifest) == sum(map(len, found.values()))


def test_tiles_go_row_by_row_and_repeat_the_edge(tmp_path: Path) -> None:
    values = picture(np.random.default_rng(0), "RGB")
    saved(tmp_path / "a.png", values, "RGB")
    x, _ = collected([tmp_path / "a.png"], COLOUR)
    _, h, w = COLOUR.shape
    down, across = -(-values.shape[0] // h), -(-values.shape[1] // w)
    assert len(x) == down * across > 2
    for number, tile in enumerate(x.numpy()):
        rows = np.minimum(number // across * h + np.arange(h), values.shape[0] - 1)
        columns = np.minimum(number % across * w + np.arange(w), values.shape[1] - 1)
        assert np.array_equal(tile, np.moveaxis(values[rows][:, columns], 2, 0))


def test_symbols_are_shown_as_everywhere_else() -> None:
    for levels in range(2, 257):
        assert np.array_equal(shown(levels), pixels(torch.arange(levels).view(1, 1, 1, -1), levels).flatten())


@pytest.mark.parametrize(
    ("spec", "shape", "kind"),
    [
        (GREY, (5, 8, 8), "|u1"),
        (GREY, (5, 9, 20), "<i8"),
        (GREY, (0, 8, 8), "|u1"),
        (GREY, (5, 1, 8, 8), "<u2"),
        (GREY, (5, 8, 7, 1), "|b1"),
        (GREY, (2, 1, 5), ">i4"),
        (COLOUR, (5, 3, 4, 6), "<i8"),
        (COLOUR, (5, 9, 6, 3), "|u1"),
        (DataSpec("image", (5, 3, 3), levels=300), (2, 5, 4, 4), "<u2"),
        (DataSpec("vector", (7,), levels=5), (6, 7), "<i8"),
    ],
)
def test_arrays_come_back_with_type_shape_and_values(spec: DataSpec, shape: tuple[int, ...], kind: str, tmp_path: Path) -> None:
    values = np.random.default_rng(1).integers(min(spec.levels or 0, 128), size=shape).astype(kind)
    np.save(tmp_path / "ä.npy", values)
    x, manifest = collected([tmp_path / "ä.npy"], spec)
    got = np.load(BytesIO(shipped(x, manifest)["ä.npy"]), allow_pickle=False)
    assert (got.dtype.str, got.shape, manifest.examples) == (kind, shape, shape[0]) and np.array_equal(got, values)
    assert (png_size(x, manifest) is None) is (spec not in (GREY, COLOUR))


def test_members_of_an_npz_become_files_of_a_folder(tmp_path: Path) -> None:
    x, y = np.arange(128).reshape(2, 8, 8), np.arange(64, dtype=np.uint8).reshape(1, 1, 8, 8)
    np.savez(tmp_path / "both.npz", x=x, y=y)
    found = {name: np.load(BytesIO(content)) for name, content in shipped(*collected([tmp_path / "both.npz"], GREY)).items()}
    assert list(found) == ["both/x.npy", "both/y.npy"]
    assert np.array_equal(found["both/x.npy"], x) and np.array_equal(found["both/y.npy"], y)


def test_names_of_several_paths_begin_with_their_folder(tmp_path: Path) -> None:
    for name in ("a/x.png", "b/x.png", ".hidden.png", "a/.hidden/y.png", "a/notes.txt"):
        saved(tmp_path / "x.png", np.zeros((2, 2), np.uint8), "L")
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_bytes((tmp_path / "x.png").read_bytes())
    several = [tmp_path / "b", tmp_path / "x.png", tmp_path / "a"]
    assert [item.name for item in collected(several, GREY)[1].items] == ["b/x.png", "x.png", "a/x.png"]
    assert [item.name for item in collected([tmp_path], GREY)[1].items] == ["a/x.png", "b/x.png", "x.png"]
    assert [item.name for item in collected([tmp_path], GREY, limit=2)[1].items] == ["a/x.png", "b/x.png"]
    with pytest.raises(CodecError, match="restored as one file"):
        collected([tmp_path / "a" / "x.png", tmp_path / "b" / "x.png"], GREY)


# ---- what is refused


def odd_files(folder: Path) -> None:
    """Pictures and arrays that cannot be kept exactly, or not by every model."""
    ramp, deep = np.arange(64, dtype=np.uint8).reshape(8, 8), np.arange(64, dtype=np.uint16).reshape(8, 8) * 999
    grey, colour = Image.fromarray(ramp), Image.fromarray(np.stack([ramp] * 3, 2))
    for name, image in {
        "grey": grey,
        "rgb": colour,
        "rgba": colour.convert("RGBA"),
        "la": grey.convert("LA"),
        "palette": colour.convert("P"),
        "sixteen": Image.fromarray(deep),
    }.items():
        image.save(folder / f"{name}.png")
    grey.save(folder / "key.png", transparency=3)
    grey.save(folder / "frames.tif", save_all=True, append_images=[grey])
    exif = Image.Exif()
    exif[0x0112] = 6
    grey.save(folder / "turned.jpg", exif=exif)
    colour.convert("CMYK").save(folder / "cmyk.jpg")
    (folder / "rgb16.ppm").write_bytes(b"P6 2 1 65535\n" + bytes(range(12)))
    (folder / "rgb16.png").write_bytes(png_of_16_bits())
    (folder / "broken.png").write_bytes((folder / "grey.png").read_bytes()[:50])
    (folder / "empty").mkdir()
    for name, values in {"real": np.zeros((2, 8, 8)), "high": np.full((2, 8, 8), 256), "low": np.full((2, 8, 8), -1)}.items():
        np.save(folder / f"{name}.npy", values)
    np.save(folder / "flat.npy", np.zeros((2, 8), np.uint8))
    np.save(folder / "objects.npy", np.array([{}]), allow_pickle=True)
    np.savez(folder / "labelled.npz", x=np.zeros((2, 8, 8), np.uint8), y=np.zeros(2, np.uint8))


def png_of_16_bits() -> bytes:
    """A colour picture that Pillow can read but not write: it says RGB, and keeps the upper 8 of 16 bits."""

    def chunk(name: bytes, data: bytes) -> bytes:
        return len(data).to_bytes(4, "big") + name + data + zlib.crc32(name + data).to_bytes(4, "big")

    head = b"".join(size.to_bytes(4, "big") for size in (2, 1)) + bytes([16, 2, 0, 0, 0])
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", head) + chunk(b"IDAT", zlib.compress(bytes(range(13)))) + chunk(b"IEND", b"")


@pytest.mark.parametrize(
    ("name", "spec", "reason"),
    [
        ("rgb.png", GREY, "mode RGB, and the model takes 1 and L"),
        ("grey.png", COLOUR, "mode L, and the model takes RGB"),
        ("rgba.png", COLOUR, "mode RGBA with transparency"),
        ("la.png", GREY, "mode LA with transparency"),
        ("key.png", GREY, "mode L with transparency"),
        ("palette.png", COLOUR, "mode P"),
        ("sixteen.png", GREY, "mode I;16"),
        ("rgb16.png", COLOUR, "16 bits"),
        ("rgb16.ppm", COLOUR, "16 bits"),
        ("cmyk.jpg", COLOUR, "mode CMYK"),
        ("frames.tif", GREY, "several frames"),
        ("turned.jpg", GREY, "turn its pixels"),
        ("broken.png", GREY, "repair or remove it"),
        ("grey.png", DataSpec("image", (1, 8, 8), levels=17), "has 1 in row 0, column 1, and the 17 levels .* 0, 16, 32"),
        ("grey.png", DataSpec("image", (1, 8, 8), levels=300), "hand over an array"),
        ("grey.png", DataSpec("vector", (64,), levels=256), "hand over an array"),
        ("real.npy", GREY, "only whole numbers"),
        ("high.npy", GREY, "values 256 .. 256, and the model knows 0 .. 255"),
        ("low.npy", GREY, "values -1 .. -1"),
        ("flat.npy", GREY, r"shape \(2, 8\), and the model takes \(n, H, W\), \(n, 1, H, W\)"),
        ("labelled.npz", GREY, "labelled/y.* leave it out"),
        ("objects.npy", GREY, "plain numbers"),
        ("real.npy", DataSpec("image", (1, 8, 8)), "real values"),
        ("nothing.png", GREY, "there is no file or folder"),
        ("empty", GREY, "holds no images"),
    ],
)
def test_what_cannot_be_kept_exactly_is_refused_by_name(name: str, spec: DataSpec, reason: str, tmp_path: Path) -> None:
    odd_files(tmp_path)
    with pytest.raises(DataError, match=reason) as caught:
        collected([tmp_path / name], spec)
    assert spec.levels is None or PurePosixPath(name).stem in str(caught.value)


ESCAPING = ["/etc/x.png", "../x.png", "a/../../x.png", "a/./x.png", "a//x.png", "../..", ".. /x.png", "a/. ./x.png"]
STRANGE = ["C:/x.png", "C:x.png", "x.png:s.png", "a\\..\\x.png", "a\nb.png", "a\0.png", "\x1b[2J.png", "\x7f.png", "\ud800.png"]


@pytest.mark.parametrize("name", ESCAPING + STRANGE)
def test_names_that_lead_out_of_the_folder_are_refused(name: str) -> None:
    with pytest.raises(CodecError, match="must be renamed"):
        Manifest.from_text(text_of([[name, "L", [8, 8]]]), GREY)


@pytest.mark.parametrize(
    "names",
    [
        ("a.png", "a.png"),
        ("a.png", "A.PNG"),
        ("x/straße.png", "X/STRASSE.png"),
        ("\u00e4.png", "a\u0308.png"),
        ("a.jpg", "a.jpg.png"),
        ("a.png", "a.png/b.png"),
        ("A.png/b.png", "a.PNG"),
    ],
)
def test_names_that_are_one_on_some_system_are_refused(names: tuple[str, str]) -> None:
    with pytest.raises(CodecError, match="rename one"):
        Manifest(GREY, tuple(Item(name, "L", (8, 8)) for name in names))


def text_of(content: object) -> str:
    return base64.b64encode(zlib.compress(json.dumps(content).encode())).decode()


@pytest.mark.parametrize(
    "text",
    [
        None,
        7,
        "ä",
        "no base 64!",
        base64.b64encode(b"no zlib").decode(),
        text_of(None),
        text_of({"a": 1}),
        text_of([1]),
        text_of([["a"]]),
        text_of([[1, "L", [8, 8]]]),
        text_of([["a", ["L"], [8, 8]]]),
        text_of([["a", "L", [8]]]),
        text_of([["a", "L", [8, 8, 3]]]),
        text_of([["a", "L", [8, -8]]]),
        text_of([["a", "L", [0, 8]]]),
        text_of([["a", "L", [8, True]]]),
        text_of([["a", "L", [8, 8.0]]]),
        text_of([["a", "L", 8]]),
        text_of([["a", "RGB", [8, 8]]]),
        text_of([["a", "RGBA", [8, 8]]]),
        text_of([["a", "|O8", [1, 8, 8]]]),
        text_of([["a", "<f4", [1, 8, 8]]]),
        text_of([["a", "|u1", [2, 3]]]),
        text_of([["a", "|u1", []]]),
        text_of([["a", "|u1", [-1, 8, 8]]]),
        base64.b64encode(zlib.compress(b"[" * 100_000)).decode(),
        text_of([["a", "L", [8, 8]]])[:-8],
    ],
)
def test_a_damaged_manifest_is_named(text: Any) -> None:
    with pytest.raises(CorruptHeader, match="list of files is damaged"):
        Manifest.from_text(text, GREY)


def test_a_manifest_cannot_fill_the_memory() -> None:
    bomb = base64.b64encode(zlib.compress(b" " * (manifests.LONGEST + (1 << 20)), 1)).decode()
    assert len(bomb) < 1 << 20
    with pytest.raises(CorruptHeader, match="longer than 64 MiB"):
        Manifest.from_text(bomb, GREY)


def test_too_many_names_are_refused_when_writing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(manifests, "ROOM", 300)
    items = [Item(f"{number * 7919}.png", "L", (8, 8)) for number in range(200)]
    with pytest.raises(CodecError, match="200 files are too long"):
        Manifest(GREY, tuple(items)).text()


# ---- out


def some_files(folder: Path) -> tuple[torch.Tensor, Manifest]:
    """A picture of six tiles, an array of four examples of two tiles each, and a picture of one tile."""
    rng = np.random.default_rng(3)
    saved(folder / "six.png", rng.integers(256, size=(16, 20), dtype=np.uint8), "L")
    np.save(folder / "x.npy", rng.integers(256, size=(4, 8, 9), dtype=np.uint8))
    saved(folder / "one.png", rng.integers(256, size=(3, 3), dtype=np.uint8), "L")
    return collected([folder / name for name in ("six.png", "x.npy", "one.png")], GREY)


@pytest.mark.parametrize("seed", range(10))
def test_only_what_is_complete_is_restored(seed: int, tmp_path: Path) -> None:
    x, manifest = some_files(tmp_path)
    assert manifest.total == len(x) == 15
    rows = np.flatnonzero(np.random.default_rng(seed).random(15) < 0.8)
    have = set(rows.tolist())
    found, whole = dict(restored_files(x[rows], manifest, rows)), dict(restored_files(x, manifest))
    wanted = {name for name, tiles in (("six.png", range(6)), ("one.png", [14])) if have.issuperset(tiles)}
    examples = [i for i in range(4) if have.issuperset([6 + 2 * i, 7 + 2 * i])]
    assert set(found) == wanted | ({"x.npy"} if examples else set())
    assert all(found[name] == whole[name] for name in wanted)
    if examples:
        assert np.array_equal(np.load(BytesIO(found["x.npy"])), np.load(tmp_path / "x.npy")[examples])
    lost = lost_files(manifest, rows)
    assert [name for name in lost if name.endswith(".png")] == [name for name in ("six.png", "one.png") if name not in wanted]
    assert (f"x.npy: {4 - len(examples)} of 4 examples" in lost) is (len(examples) < 4)


def test_nothing_is_restored_outside_the_folder_or_over_a_file(tmp_path: Path) -> None:
    manifest, folder = Manifest(GREY, (Item("a/x.png", "L", (8, 8)), Item("y.png", "L", (8, 8)))), tmp_path / "out"
    check_folder(manifest, folder, overwrite=False)
    (tmp_path / "elsewhere").mkdir()
    folder.mkdir()
    (folder / "a").symlink_to(tmp_path / "elsewhere")
    with pytest.raises(CodecError, match="leads out of"):
        check_folder(manifest, folder, overwrite=True)
    (folder / "a").unlink()
    (folder / "y.png").touch()
    with pytest.raises(CodecError, match=r"y\.png exists: .*--force"):
        check_folder(manifest, folder, overwrite=False)
    check_folder(manifest, folder, overwrite=True)


def test_pictures_are_compared_by_name_form_and_pixels() -> None:
    values = np.arange(128, dtype=np.uint8).reshape(2, 8, 8)

    def of(name: str, values: Array) -> tuple[torch.Tensor, Manifest]:
        return assembled([array_item("first.npy", values[:1], GREY), array_item(name, values, GREY)], GREY)

    own = of("x.npy", values)
    check_same(*own, *of("x.npy", values.copy()))
    check_same(*own, *assembled([array_item("x", values, GREY)], GREY))  # the suffix is there when it is restored
    for name, other, reason in [
        ("y.npy", values, "holds no 'y.npy'"),
        ("x.npy", values ^ (values == 77), "was changed"),
        ("x.npy", values.astype(np.int64), "was changed"),
        ("x.npy", values.reshape(2, 1, 8, 8), "was changed"),
    ]:
        with pytest.raises(CodecError, match=reason):
            check_same(*own, *of(name, other))


def test_the_public_names_are_those_of_the_codec() -> None:
    model = ancestral.build("gated-pixelcnn", DataSpec("image", (1, 4, 4), levels=2), preset="tiny")
    x = torch.randint(2, (20, 1, 4, 4))
    data = ancestral.compress(model, x, engine="eager")
    assert torch.equal(ancestral.decompress(model, data, engine="eager"), x)
    with pytest.raises(ancestral.CodecError, match="cut short"):
        ancestral.decompress(model, data[:-1], engine="eager")
    assert set(CHANNELS.values()) == {1, 3}
