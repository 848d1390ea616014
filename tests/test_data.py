"""Data: every source round trips, every fault is named, every split and draw is repeatable."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch

import ancestral
from ancestral.data import EMBEDDED, Examples, Grey, Splits, load_data
from ancestral.data.source import Source, divide, permutation
from ancestral.spec import DataSpec
from ancestral.symbols import DataError

PARTS = ("train", "validation", "test")


def pixels(*shape: int, levels: int = 256) -> np.ndarray:
    """Random symbols, the same for the same shape, in which the largest one is sure to appear."""
    x = np.random.Generator(np.random.Philox(sum(shape))).integers(0, levels, shape).astype(np.uint8)
    x.flat[0] = levels - 1
    return x


def rows(data: Splits) -> np.ndarray:
    """Every example of the three sets, flat, in lexicographic order."""
    every = torch.cat([getattr(data, part).x for part in PARTS]).flatten(1).numpy()
    return every[np.lexsort(every.T[::-1])]


def in_order(x: np.ndarray) -> np.ndarray:
    flat = x.reshape(len(x), -1)
    return flat[np.lexsort(flat.T[::-1])]


def sizes(data: Splits) -> list[int]:
    return [len(getattr(data, part)) for part in PARTS]


# Embedded data


def test_digits_are_scikit_learns_and_stay_as_they_are() -> None:
    from sklearn.datasets import load_digits

    data = ancestral.data("digits")
    assert data.spec == DataSpec("image", (1, 8, 8), levels=17, classes=10)
    assert sizes(data) == [1439, 179, 179]
    assert (rows(data) == in_order(load_digits().images.astype(np.uint8))).all()
    image = load_digits().images.reshape(-1, 64) == data.test.x[7].flatten().numpy()
    assert load_digits().target[image.all(1)].tolist() == [data.test.labels[7].item()]
    assert data.hash == "7fd19a882fd2c7d109bbdc5bdf2ccd00e27b5d7e8ad4bf4dae0506ad597e5296"  # published figures rest on it
    assert ancestral.data("digits", seed=5).hash == data.hash


def test_no_pixel_of_the_photographs_is_in_two_sets(monkeypatch: pytest.MonkeyPatch) -> None:
    import sklearn.datasets

    number = np.arange(2 * 427 * 640)  # every pixel gets its own colour
    fake = np.stack([number >> 16, number >> 8 & 255, number & 255], -1).astype(np.uint8).reshape(2, 427, 640, 3)
    monkeypatch.setattr(sklearn.datasets, "load_sample_images", lambda: SimpleNamespace(images=list(fake)))
    data = load_data("photos")
    assert data.spec == DataSpec("image", (3, 32, 32), levels=256)
    assert sizes(data) == [2400, 300, 300]
    weights = torch.tensor([65536, 256, 1]).view(3, 1, 1)
    seen = [set((getattr(data, part).x * weights).sum(1).flatten().tolist()) for part in PARTS]
    assert not seen[0] & seen[1] and not seen[0] & seen[2] and not seen[1] & seen[2]
    assert [len(places) for places in seen] == [96 * 64 * 64, 12 * 64 * 64, 12 * 64 * 64]
    first = (data.train.x[0] * weights).sum(0)
    assert (first.diff(dim=0) == 640).all() and (first.diff(dim=1) == 1).all()  # a crop is a piece of the picture, upright


def test_measurements_are_standardised_and_can_be_converted_back() -> None:
    from sklearn.datasets import load_breast_cancer

    data = load_data("measurements")
    x, units = data.train.x, data.units
    assert data.spec == DataSpec("vector", (30,), levels=None, classes=2) and x.dtype == torch.float32
    assert data.class_names == ("malignant", "benign") and units is not None
    assert x.double().mean(0).abs().max() < 2e-5 and (x.double().std(0, correction=0) - 1).abs().max() < 1e-5
    restored = np.concatenate([units.restore(getattr(data, part).x.double()).numpy() for part in PARTS])
    original = load_breast_cancer().data
    assert np.allclose(in_order(restored), in_order(original), rtol=1e-5, atol=1e-6)
    normal = torch.distributions.Normal(0.0, 1.0).log_prob(x.double()).sum(1) - units.nats
    there = torch.distributions.Normal(units.mean, units.scale).log_prob(units.restore(x.double())).sum(1)
    assert torch.allclose(normal, there, rtol=1e-12)
    assert f"{-units.nats:+.4f} nats" in data.note


@pytest.mark.parametrize("name", EMBEDDED)
def test_embedded_data_say_what_they_are(name: str) -> None:
    data = load_data(name, limit=7)
    described = data.describe()
    assert described["sizes"] == {"train": 7, "validation": 7, "test": 7} and described["name"] == name
    assert DataSpec.from_dict(described["spec"]) == data.spec and described["hash"] == data.hash
    assert data.note.endswith("7 train, 7 validation, 7 test examples.")


def test_the_list_of_names_costs_no_heavy_import() -> None:
    code = """
import sys, ancestral.data
from ancestral.data.catalogue import EMBEDDED
assert EMBEDDED and not {"torch", "sklearn", "PIL"} & set(sys.modules)
ancestral.data.load_data
assert "torch" in sys.modules and not {"sklearn", "PIL"} & set(sys.modules)
assert ancestral.data("digits", limit=1).spec.levels == 17 and "PIL" not in sys.modules
import ancestral.data.splits
assert ancestral.data is sys.modules["ancestral.data"] and callable(ancestral.data)
"""
    subprocess.run([sys.executable, "-c", code], check=True)


# Cutting


@pytest.mark.parametrize("n", [3, 9, 10, 101, 1797])
def test_cut_sets_share_no_row_and_lose_none(n: int) -> None:
    cut = divide(Source("rows", "rows", {"train": np.arange(n)}, {"train": np.arange(n) + 1}), seed=3)
    held = max(1, n // 10)
    assert [len(cut.x[part]) for part in PARTS] == [n - 2 * held, held, held]
    assert sorted(np.concatenate([cut.x[part] for part in PARTS]).tolist()) == list(range(n))
    assert all((cut.labels[part] == cut.x[part] + 1).all() for part in PARTS)


@pytest.mark.parametrize(("n", "held"), [(100, 10), (60_000, 5000)])
def test_a_missing_validation_set_comes_from_the_training_set(n: int, held: int) -> None:
    cut = divide(Source("rows", "rows", {"train": np.arange(n), "test": np.arange(7)}), seed=0)
    assert cut.x["validation"].tolist() == permutation(n, 0, 0)[-held:].tolist()
    assert sorted([*cut.x["train"], *cut.x["validation"]]) == list(range(n)) and cut.x["test"].tolist() == list(range(7))


def test_permutations_are_pinned() -> None:
    first = permutation(10, 0, 0).tolist()
    assert first == [0, 2, 9, 1, 8, 5, 4, 3, 6, 7]
    assert permutation(10, 1, 0).tolist() != first != permutation(10, 0, 1).tolist()


# Arrays and files


@pytest.mark.parametrize("shape", [(20, 5, 4), (20, 1, 5, 4), (20, 5, 4, 1), (20, 3, 5, 4), (20, 5, 4, 3)])
@pytest.mark.parametrize("way", ["npy", "array", "tensor", "int64", "big-endian"])
def test_images_of_every_layout(shape: tuple[int, ...], way: str, tmp_path: Path) -> None:
    x = pixels(*shape)
    source: Any = {"tensor": torch.from_numpy(x), "int64": x.astype(np.int64), "big-endian": x.astype(">i4")}.get(way, x)
    if way == "npy":
        source = tmp_path / "some.npy"
        np.save(source, x)
    data = load_data(source)
    channels = 3 if 3 in shape else 1
    first = x if len(shape) == 4 and shape[1] == channels else x.reshape(20, 5, 4, channels).transpose(0, 3, 1, 2)
    assert data.spec == DataSpec("image", (channels, 5, 4), levels=256) and data.train.x.dtype == torch.uint8
    assert sizes(data) == [16, 2, 2] and (rows(data) == in_order(first)).all()


def test_the_array_is_not_shared_with_the_data() -> None:
    x = pixels(20, 4, 4)
    data = load_data(x)
    before = data.train.x.clone()
    x[:] = 0
    assert torch.equal(data.train.x, before)


@pytest.mark.parametrize(
    ("x", "levels", "kind"),
    [
        (pixels(20, 3, 3, levels=2).astype(bool), 2, "image"),
        (pixels(20, 3, 3, levels=2), 2, "image"),
        (pixels(20, 6, levels=2), 2, "vector"),
        (pixels(20, 3, 3, levels=3), 256, "image"),
        (pixels(20, 3, 3).astype(np.uint16) * 257, 65536, "image"),
        (pixels(20, 6) / 7 - 20, None, "vector"),
    ],
)
def test_the_alphabet_is_read_from_the_values(x: np.ndarray, levels: int | None, kind: str) -> None:
    data = load_data(x)
    assert (data.spec.levels, data.spec.kind) == (levels, kind)
    assert data.train.x.dtype == {None: torch.float32, 65536: torch.int64}.get(levels, torch.uint8)
    assert np.allclose(rows(data), in_order(x.astype(np.float32)))


def test_a_guess_is_said_and_overruled() -> None:
    x = pixels(20, 3, 3, levels=17)
    assert "levels guessed as 256 of values up to 16" in load_data(x).note
    told = load_data(x, levels=17)
    assert told.spec.levels == 17 and "guessed" not in told.note and np.array_equal(rows(told), in_order(x))


@pytest.mark.parametrize("give", [np.asarray, torch.from_numpy, list])
def test_arrays_come_with_their_labels(give: Callable[[Any], Any]) -> None:
    x, y = pixels(40, 3, 3), np.arange(40) % 4
    x[:, 0, 0] = y
    data = load_data((x, give(y)))
    assert data.spec.classes == 4
    for part in (data.train, data.validation, data.test):
        assert part.labels is not None and torch.equal(part.labels, part.x[:, 0, 0, 0].long())
    named = load_data((torch.from_numpy(x), np.array(["ant", "bee", "cat", "dog"])[y]))
    assert named.class_names == ("ant", "bee", "cat", "dog") and named.train.labels is not None
    assert torch.equal(named.train.labels, named.train.x[:, 0, 0, 0].long())


# Options


def test_levels_and_threshold() -> None:
    x = np.arange(256, dtype=np.uint8).reshape(256, 1, 1)
    v, few = load_data(x).train.x.long(), load_data(x, levels=5)
    assert few.spec.levels == 5 and torch.equal(few.train.x.long(), v * 5 // 256)
    half = load_data(x, binarize="threshold")
    assert half.spec.levels == 2 and torch.equal(half.train.x.long(), (v >= 128).long()) and "v >= 128" in half.note
    digits = load_data("digits")
    assert torch.equal(load_data("digits", binarize="threshold").test.x.bool(), digits.test.x >= 9)
    assert load_data(digits.train.x, levels=17).spec.levels == 17 and load_data(digits.train.x, levels=17).train.x.max() == 16
    assert load_data(np.zeros((5, 2, 2), dtype=np.uint8), levels=256).spec.levels == 256


def test_sampled_binarisation_is_drawn_once_with_the_right_chances() -> None:
    x = np.repeat(np.array([0, 51, 204, 255], dtype=np.uint8)[None, :], 5000, 0).reshape(5000, 2, 2)
    data = load_data(x, binarize="sample")
    mean = data.train.x.double().mean(0).flatten()
    assert mean[0] == 0 and mean[3] == 1
    assert (mean - torch.tensor([0.0, 0.2, 0.8, 1.0])).abs().max() < 5 * (0.16 / 4000) ** 0.5
    assert load_data(x, binarize="sample").hash == data.hash != load_data(x, binarize="sample", seed=1).hash
    assert data.redrawn is None and not torch.equal(data.validation.x, data.test.x) and "Bernoulli(v / 255)" in data.note


def test_dynamic_binarisation_keeps_the_grey_values() -> None:
    x = pixels(300, 6, 6)
    data, grey = load_data(x, binarize="dynamic"), load_data(x)
    assert data.spec.levels == 2 and isinstance(data.redrawn, Grey) and torch.equal(data.redrawn.x, grey.train.x)
    assert torch.equal(data.train.x, load_data(x, binarize="sample").train.x)
    drawn = data.redrawn.draw(torch.tensor([5, 2, 9]), seed=4, stream=1)
    assert drawn.dtype == torch.uint8 and drawn.shape == (3, 1, 6, 6)
    assert torch.equal(drawn[1:2], data.redrawn.draw(torch.tensor([2]), seed=4, stream=1))  # whatever the batch
    assert not torch.equal(drawn, data.redrawn.draw(torch.tensor([5, 2, 9]), seed=4, stream=2))
    mean = torch.stack([data.redrawn.draw(torch.arange(240), 0, stream) for stream in range(20)]).double().mean()
    assert abs(mean - grey.train.x.double().mean() / 255) < 0.005
    assert data.redrawn.draw(torch.arange(0), 0).shape == (0, 1, 6, 6)


def test_resize_by_a_whole_factor_is_the_rounded_mean() -> None:
    x = pixels(5, 3, 6, 9)
    small = load_data(x, resize=2)
    expected = np.zeros((5, 3, 2, 3))
    for i, j in np.ndindex(2, 3):
        expected[:, :, i, j] = np.floor(x[:, :, 3 * i : 3 * i + 3, 3 * j : 3 * j + 3].mean((2, 3)) + 0.5)
    assert small.spec.shape == (3, 2, 3) and (rows(small) == in_order(expected)).all() and "from 6x9 to 2x3" in small.note


def test_resize_by_another_factor_keeps_flat_images_and_ramps() -> None:
    flat = np.repeat(np.arange(20, dtype=np.uint8)[:, None], 30, 1).reshape(20, 5, 6)
    small = load_data(flat, resize=3)
    assert small.spec.shape == (1, 3, 4) and sorted(rows(small)[:, 5].tolist()) == list(range(20))
    assert (rows(small) == rows(small)[:, :1]).all()
    ramp = np.broadcast_to(np.arange(25) * 10, (3, 25, 25)).astype(np.uint8)
    middle = load_data(ramp, resize=10).train.x[0, 0, 5, 2:8].double()
    assert (middle - (torch.arange(2, 8) * 25 + 7.5)).abs().max() <= 0.5  # the value at each new pixel's centre


def test_classes_that_are_left_out() -> None:
    whole, some = load_data("digits"), load_data("digits", leave_out=[9, "0"])
    assert some.spec == whole.spec and some.hash != whole.hash
    for part, kept in ((whole.train, some.train), (whole.validation, some.validation), (whole.test, some.test)):
        assert part.labels is not None and kept.labels is not None
        rows = (part.labels != 9) & (part.labels != 0)
        assert torch.equal(kept.labels, part.labels[rows]) and torch.equal(kept.x, part.x[rows])
    assert "classes 9, 0 left out" in some.note
    tones = load_data("notes")
    names = tones.class_names
    left = load_data("notes", leave_out=[names[0]])
    assert left.class_names == names and left.train.labels is not None
    assert set(left.train.labels.tolist()) == set(range(1, len(names)))


def test_limit_is_a_seeded_choice_that_grows() -> None:
    x, y = pixels(200, 3, 3), np.sort(np.arange(200) % 4)  # sorted by class, as some files are
    few, more = load_data(x, limit=5), load_data(x, limit=15)
    assert sizes(few) == [5, 5, 5] and sizes(load_data(x, limit=1000)) == [160, 20, 20]
    assert all(torch.equal(getattr(few, part).x, getattr(more, part).x[:5]) for part in PARTS)
    assert load_data(x, limit=5, seed=1).hash != few.hash
    assert load_data("digits", limit=2).spec.classes == 10
    cut = divide(Source("", "", {"train": x}, {"train": y}), 0)
    assert len(set(cut.labels["test"].tolist())) == 4


def test_splits_come_back_as_they_are() -> None:
    data = load_data("digits")
    assert load_data(data) is data
    with pytest.raises(DataError, match="loaded already"):
        load_data(data, levels=2)


def test_the_hash_is_of_the_content() -> None:
    x, y = torch.zeros(2, 1, 1, 2, dtype=torch.uint8), torch.tensor([0, 1])
    spec = DataSpec("image", (1, 1, 2), levels=2, classes=2)
    part, other = Examples(x, y), Examples(x + torch.tensor([0, 1], dtype=torch.uint8), y)
    one = Splits(part, part, part, spec, "a", "first").hash
    assert one == "07400371a0aa20039bc54eeb36b65b3f304442d4b46aff0b7935ab6f0d9f05cf"
    assert one == Splits(part, part, part, spec, "b", "second").hash
    assert len({one, *(Splits(*three, spec, "", "").hash for three in [(other, part, part), (part, other, part)])}) == 3
    assert Splits(part, part, Examples(x, 1 - y), spec, "", "").hash != one != Splits(part, part, Examples(x), spec, "", "").hash


def test_examples_select_and_check() -> None:
    some = Examples(torch.arange(6).view(3, 2), torch.tensor([7, 8, 9]))
    assert len(some) == 3 and some.select([2, 0]).labels.tolist() == [9, 7]
    assert some.select(torch.tensor([1])).x.tolist() == [[2, 3]]
    with pytest.raises(DataError, match="for 3 examples"):
        Examples(some.x, torch.tensor([1]))
    with pytest.raises(DataError, match=r"symbols range over 0 .. 5"):
        Splits(some, some, some, DataSpec("vector", (2,), levels=3), "", "")


# Faults


@pytest.mark.parametrize(
    ("source", "options", "message"),
    [
        ("digit", {}, "no data called 'digit': did you mean 'digits'.*digits, photos, measurements"),
        ("zzz", {}, "no data called 'zzz'; embedded are digits"),
        ("nowhere/mnist.npz", {}, "no file or folder 'nowhere/mnist.npz'"),
        (Path("digits.npz"), {}, "no file or folder 'digits.npz'"),
        (17, {}, "data of type int; give a name, a path"),
        ([], {}, "a list of 0 strings that holds no text"),
        (["", ""], {}, "a list of 2 strings that holds no text"),
        ([pixels(9, 4, 4), [0] * 9], {}, r"data of type list; .* \(x, y\) of one with its labels"),
        ((pixels(9, 4, 4), [0] * 8), {}, r"labels of train have shape \(8,\) for 9 examples"),
        (pixels(9, 4, 4), {"labels": np.arange(9)}, r"give those of an array beside it, as data\(\(x, y\)\)"),
        ([np.zeros(9, np.int16)] * 4, {}, r"needs its rate: data\(waves, rate=16000\)"),
        (np.zeros((0, 4, 4), dtype=np.uint8), {}, "holds no examples"),
        (np.zeros((2, 4, 4), dtype=np.uint8), {}, "has 2 examples, too few.*at least 3"),
        (np.zeros(9, dtype=np.uint8), {}, r"shape \(9,\) is none of"),
        (np.zeros((9, 4, 4, 4), dtype=np.uint8), {}, r"shape \(9, 4, 4, 4\) is none of.*alpha"),
        (np.zeros((9, 4, 4)), {}, r"real-valued images \(float64\).*255 \* x"),
        (torch.zeros(9, 1, 4, 4, dtype=torch.bfloat16), {}, "real-valued images"),
        (np.array([[1.0], [np.nan], [2.0], [np.inf]]), {}, "2 rows hold NaN or infinite values, first row 1"),
        (np.array([["a"], ["b"]]), {}, "type <U1 is neither"),
        (np.array([[-3], [4], [5]]), {}, "range over -3 .. 5"),
        (np.array([[0], [4], [70_000]]), {}, r"range over 0 .. 70000; symbols must lie in 0 .. 65535"),
        ("digits", {"levels": 18}, "has 17 levels; levels=18"),
        ("digits", {"levels": 1}, "levels is 1; it must be a whole number, at least 2"),
        ("digits", {"limit": 0}, "limit is 0"),
        ("digits", {"leave_out": ["ten"]}, "leave_out is ten, and the classes are 0, 1"),
        ("digits", {"leave_out": range(10)}, "nothing is left of train"),
        ("photos", {"leave_out": [1]}, "there are no labels"),
        ("digits", {"limit": 2.5}, "limit is 2.5; it must be a whole number"),
        ("digits", {"seed": -1}, "seed is -1"),
        ("digits", {"channels": 4}, "channels is 4; it must be 1"),
        ("digits", {"binarize": "stochastic"}, "binarize is 'stochastic'; it must be one of threshold, sample, dynamic"),
        ("digits", {"resize": 9}, "sizes only go down; ask for at most 8"),
        ("measurements", {"levels": 2}, "is real-valued and has no levels"),
        ("measurements", {"binarize": "sample"}, "is real-valued; binarize is for grey levels"),
        ("measurements", {"resize": 2}, "holds vectors of 30 values; size and resize are for images"),
        ("measurements", {"channels": 1}, "channels are for images"),
    ],
)
def test_faults_of_sources_and_options(source: Any, options: dict[str, Any], message: str) -> None:
    with pytest.raises(DataError, match=message):
        load_data(source, **options)
