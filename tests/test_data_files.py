"""Data files: what is written in each format is read back, and every broken file is named."""

from __future__ import annotations

import gzip
import re
import struct
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from test_data import PARTS, in_order, pixels, rows, sizes

from ancestral.data import load_data
from ancestral.data.idx import read_idx
from ancestral.data.source import permutation
from ancestral.spec import DataSpec
from ancestral.symbols import DataError

NAMES = [
    {"train": "train_images", "validation": "valid_images", "test": "test_images"},
    {"train": "x_train", "validation": "x_val", "test": "x_test"},
    {"train": "train", "validation": "validation", "test": "test"},
]


@pytest.mark.parametrize("names", NAMES, ids=["images", "x", "plain"])
@pytest.mark.parametrize("save", [np.savez, np.savez_compressed])
def test_npz_with_sets(names: dict[str, str], save: Any, tmp_path: Path) -> None:
    x = {part: pixels(n, 4, 4) for part, n in zip(PARTS, (12, 5, 6), strict=True)}
    y = {part: np.arange(len(values)) % 4 for part, values in x.items()}
    label = {part: name.replace("images", "labels").replace("x_", "y_") for part, name in names.items()}
    label = label if names is not NAMES[2] else {part: f"{name}_labels" for part, name in names.items()}
    save(tmp_path / "sets.npz", **{names[p]: x[p] for p in PARTS}, **{label[p]: y[p].reshape(-1, 1) for p in PARTS})
    data = load_data(str(tmp_path / "sets.npz"))
    assert data.name == "sets" and data.spec == DataSpec("image", (1, 4, 4), levels=256, classes=4)
    for part in PARTS:
        assert (getattr(data, part).x.squeeze(1).numpy() == x[part]).all()
        assert getattr(data, part).labels.tolist() == y[part].tolist() and getattr(data, part).labels.dtype == torch.int64
    bare = load_data(tmp_path / "sets.npz", labels=False)
    assert bare.train.labels is None and bare.spec.classes is None and bare.hash != data.hash


@pytest.mark.parametrize("keys", [("x", "y"), ("images", "labels")])
def test_npz_without_sets_named_labels_and_levels(keys: tuple[str, str], tmp_path: Path) -> None:
    x, y = pixels(30, 4, 4, levels=17), np.array(["cat", "ant", "bee"])[np.arange(30) % 3]
    np.savez(tmp_path / "all.npz", **{keys[0]: x, keys[1]: y, "levels": 17})
    data = load_data(tmp_path / "all.npz")
    assert data.spec == DataSpec("image", (1, 4, 4), levels=17, classes=3) and data.class_names == ("ant", "bee", "cat")
    assert sizes(data) == [24, 3, 3] and (rows(data) == in_order(x)).all()
    for example, label in zip(data.test.x, data.test.labels, strict=True):
        assert y[(x == example.numpy()).all((1, 2))] == data.class_names[label]


def write_idx(path: Path, x: np.ndarray, kind: int = 0x08) -> Path:
    """idx as its description has it: zero, zero, type, rank, big-endian sizes, big-endian numbers."""
    blob = bytes([0, 0, kind, x.ndim]) + struct.pack(f">{x.ndim}I", *x.shape) + x.astype(x.dtype.newbyteorder(">")).tobytes()
    path.write_bytes(gzip.compress(blob) if path.suffix == ".gz" else blob)
    return path


@pytest.mark.parametrize(("end", "mark"), [("", "-"), (".gz", "-"), ("", ".")])
def test_idx_folder(end: str, mark: str, tmp_path: Path) -> None:
    x, y = {"train": pixels(50, 5, 4), "t10k": pixels(9, 5, 4)}, {"train": np.arange(50) % 10, "t10k": np.arange(9)}
    for part in x:
        write_idx(tmp_path / f"{part}-images{mark}idx3-ubyte{end}", x[part])
        write_idx(tmp_path / f"{part}-labels{mark}idx1-ubyte{end}", y[part].astype(np.uint8))
    data = load_data(tmp_path)
    assert data.spec == DataSpec("image", (1, 5, 4), levels=256, classes=10) and sizes(data) == [45, 5, 9]
    assert (data.test.x.squeeze(1).numpy() == x["t10k"]).all() and data.test.labels.tolist() == list(range(9))
    order = permutation(50, 0, 0)
    assert (data.train.x.squeeze(1).numpy() == x["train"][order[:45]]).all()
    assert data.validation.labels.tolist() == y["train"][order[45:]].tolist()


def test_one_idx_file_and_wider_numbers(tmp_path: Path) -> None:
    x = pixels(20, 3, 3).astype(np.int32) * 200
    path = write_idx(tmp_path / "some-idx3-int", x, 0x0C)
    data = load_data(path)
    assert (read_idx(path) == x).all() and read_idx(path).dtype == np.int32  # in the machine's own byte order
    assert data.spec.levels == 65536 and (rows(data) == in_order(x)).all()


# Folders of images


def save_image(path: Path, x: np.ndarray, **options: Any) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(x).save(path, **options)
    return path


def test_folder_of_images_sorted_by_name(tmp_path: Path) -> None:
    x = pixels(20, 6, 5, 3)
    endings = ("png", "bmp", "webp", "tiff", "ppm")
    for i in range(20):
        save_image(tmp_path / f"{i:02d}.{endings[i % 5]}", x[i], **({"lossless": True} if i % 5 == 2 else {}))
    (tmp_path / "notes.txt").write_text("no image")
    (tmp_path / "._00.png").write_bytes(b"what another system leaves behind")
    data = load_data(tmp_path)
    assert data.spec == DataSpec("image", (3, 6, 5), levels=256) and (rows(data) == in_order(x.transpose(0, 3, 1, 2))).all()
    assert (data.train.x[0].numpy() == x[permutation(20, 0, 0)[0]].transpose(2, 0, 1)).all()


def test_grey_and_colour(tmp_path: Path) -> None:
    x = pixels(12, 4, 4)
    for i in range(12):
        save_image(tmp_path / f"{i:02d}.png", x[i] if i % 2 else np.repeat(x[i, :, :, None], 3, 2))
    grey = load_data(tmp_path)
    assert grey.spec.shape == (1, 4, 4) and (rows(grey) == in_order(x)).all()
    assert load_data(tmp_path, channels=3).spec.shape == (3, 4, 4)
    save_image(tmp_path / "12.png", np.full((4, 4, 3), [255, 0, 0], dtype=np.uint8))
    assert load_data(tmp_path).spec.shape == (3, 4, 4)
    assert (load_data(tmp_path, channels=1).train.x == 76).flatten(1).all(1).any()  # 0.299 * 255 = 76.2


def test_subfolders_are_labels_or_sets(tmp_path: Path) -> None:
    for part in ("train", "val", "test"):
        for label, name in enumerate(("ant", "bee")):
            for i in range(3):
                save_image(tmp_path / part / name / f"{i}.png", np.full((3, 3), 10 * label + i, dtype=np.uint8))
    data = load_data(tmp_path)
    assert sizes(data) == [6, 6, 6] and data.class_names == ("ant", "bee") and data.spec.classes == 2
    assert data.train.labels.tolist() == [0, 0, 0, 1, 1, 1] and data.train.x[:, 0, 0, 0].tolist() == [0, 1, 2, 10, 11, 12]
    alone = load_data(tmp_path / "train")
    assert sizes(alone) == [4, 1, 1] and (alone.train.labels == (alone.train.x[:, 0, 0, 0] >= 10)).all()
    save_image(tmp_path / "train" / "loose.png", np.zeros((3, 3), dtype=np.uint8))
    assert load_data(tmp_path / "train").spec.classes is None


def test_size_takes_the_centre_square(tmp_path: Path) -> None:
    wide, tall = np.zeros((8, 16), dtype=np.uint8), np.zeros((24, 8), dtype=np.uint8)
    wide[:, 4:12], tall[8:16] = 200, 200
    for i in range(4):
        save_image(tmp_path / f"{i}.png", wide if i % 2 else tall)
    assert (load_data(tmp_path, size=8).train.x == 200).all()
    assert load_data(tmp_path, size=4).spec.shape == (1, 4, 4)
    with pytest.raises(
        DataError, match=re.escape(f"{tmp_path / '0.png'} is 8x24") + ".*" + re.escape("1.png is 16x8") + ".*size=8"
    ):
        load_data(tmp_path)
    with pytest.raises(DataError, match="smaller than size=9: ask for at most 8"):
        load_data(tmp_path, size=9)


def test_modes_that_are_not_plain(tmp_path: Path) -> None:
    deep = np.arange(4, dtype=np.uint16).reshape(2, 2) * 20_000
    clear = np.zeros((2, 2, 4), dtype=np.uint8)
    clear[0, 0] = (9, 9, 9, 255)
    save_image(tmp_path / "a.png", deep)
    save_image(tmp_path / "b.png", clear)
    Image.fromarray(np.eye(2, dtype=bool)).save(tmp_path / "c.png")
    Image.fromarray(np.eye(2, dtype=np.uint8) * 7).convert("P").save(tmp_path / "d.png")
    expected = [[0, 78, 156, 234], [9, 255, 255, 255], [255, 0, 0, 255], [7, 0, 0, 7]]
    assert rows(load_data(tmp_path)).tolist() == sorted(expected)
    turned = Image.Exif()
    turned[0x0112] = 6  # to be shown a quarter turn clockwise
    for name in "abcd":
        save_image(tmp_path / f"{name}.png", np.array([[1, 2, 3], [4, 5, 6]], dtype=np.uint8), exif=turned)
    assert load_data(tmp_path).train.x[0, 0].tolist() == [[4, 1], [5, 2], [6, 3]]


def npz(**arrays: Any) -> Any:
    return lambda path: np.savez(path, **arrays)


IMAGES, SHORT = np.zeros((9, 2, 2), dtype=np.uint8), np.zeros(8, dtype=np.int64)


@pytest.mark.parametrize(
    ("name", "write", "message"),
    [
        ("a.npy", lambda path: path.write_bytes(b"nonsense"), "a.npy cannot be read"),
        ("a.npy", lambda path: path.write_bytes(b""), "a.npy cannot be read"),
        ("a.npy", lambda path: np.save(path, np.array([{}, []], dtype=object)), "cannot be read .*not objects"),
        ("a.npz", npz(x=np.array([{}], dtype=object)), "cannot be read .*not objects"),
        ("a.npz", lambda path: path.write_bytes(b"PK\3\4 and no more"), "a.npz cannot be read"),
        ("a.npz", npz(pictures=IMAGES), "holds pictures; looked for train_images"),
        ("a.npz", npz(test_images=IMAGES), "holds test_images; looked for train_images"),
        ("a.npz", npz(x=IMAGES, levels=1), "levels is .*at least 2"),
        ("a.npz", npz(x=IMAGES + 5, levels=4), "range over 5 .. 5; symbols must lie in 0 .. 3"),
        ("a.npz", npz(x=IMAGES, y=SHORT), r"labels of train have shape \(8,\) for 9 examples"),
        ("a.npz", npz(x=IMAGES, y=np.zeros((9, 4))), r"labels of train have shape \(9, 4\)"),
        ("a.npz", npz(x=IMAGES, y=np.full(9, 0.5)), r"labels of train \(float64\) must be names or whole numbers"),
        ("a.npz", npz(x=IMAGES, y=np.full(9, -1)), "whole numbers from 0"),
        ("a.npz", npz(train=IMAGES, test=IMAGES[:, 1:]), r"train is \(1, 2, 2\) uint8, one of test is \(1, 1, 2\)"),
        ("a-idx3-ubyte", lambda path: write_idx(path, IMAGES).write_bytes(path.read_bytes()[:-1]), "has 51 bytes.*needs 52"),
        ("a.gz", lambda path: write_idx(path, IMAGES).write_bytes(path.read_bytes()[:-9]), "a.gz cannot be read.*cut off"),
        ("a.png", lambda path: path.write_bytes(b""), "is a single image"),
        ("a.csv", lambda path: path.write_text("1,2"), "is neither .npy nor .npz nor idx"),
        ("folder/a.npy", lambda path: np.save(path, IMAGES), "holds no images .*it holds a.npy"),
        ("folder/a.png", lambda path: path.write_bytes(b"no picture"), r"a\.png cannot be read as an image"),
        ("folder/a.tiff", lambda path: save_image(path, np.zeros((2, 2), dtype=np.float32)), "its pixels have 32 bits"),
    ],
)
def test_faults_of_files(name: str, write: Any, message: str, tmp_path: Path) -> None:
    path = tmp_path / name
    path.parent.mkdir(exist_ok=True)
    write(path)
    with pytest.raises(DataError, match=message) as caught:
        load_data(path if path.parent == tmp_path else path.parent)
    assert path.parent.name in str(caught.value) or path.name in str(caught.value)


def test_a_cut_off_image_is_named(tmp_path: Path) -> None:
    for name in ("a.png", "b.png"):
        save_image(tmp_path / name, pixels(64, 64))
    (tmp_path / "b.png").write_bytes((tmp_path / "b.png").read_bytes()[:1000])
    with pytest.raises(DataError, match=r"b\.png cannot be read as an image"):
        load_data(tmp_path)
