"""Samples beside examples: kernel distance, precision and recall, neighbours, and the classifier whose features they use."""

from __future__ import annotations

import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import soundfile
import torch
from sklearn.neighbors import NearestNeighbors

import ancestral
from ancestral.data.notation import Sound
from ancestral.data.splits import Examples, Splits
from ancestral.evaluation.classifier import Judge, judge_of, trained
from ancestral.evaluation.likeness import kernel_distance, nearest, precision_recall, squared_mmd
from ancestral.evaluation.quality import Quality, _nearness, quality
from ancestral.evaluation.views import view_of
from ancestral.symbols import DataError


def normals(n: int, d: int, seed: int, away: float = 0.0) -> torch.Tensor:
    return torch.randn(n, d, generator=torch.Generator().manual_seed(seed)) + away


@pytest.fixture(scope="module")
def digits() -> Splits:
    return ancestral.data("digits")


@pytest.fixture(scope="module")
def judge(digits: Splits) -> Judge:
    return trained(digits, steps=60)


def test_the_squared_discrepancy_is_the_sum_over_pairs() -> None:
    a, b = normals(5, 3, 0), normals(7, 3, 1, 0.5)

    def kernel(u: torch.Tensor, v: torch.Tensor) -> float:
        return (float(u @ v) / 3 + 1) ** 3

    inside = sum(kernel(u, v) for i, u in enumerate(a) for j, v in enumerate(a) if i != j) / 20
    inside += sum(kernel(u, v) for i, u in enumerate(b) for j, v in enumerate(b) if i != j) / 42
    assert squared_mmd(a, b) == pytest.approx(inside - 2 * sum(kernel(u, v) for u in a for v in b) / 35)
    with pytest.raises(ValueError, match="at least 2"):
        squared_mmd(a[:1], b)


def test_it_is_unbiased_and_sees_a_difference() -> None:
    same = np.array([squared_mmd(normals(20, 4, seed), normals(20, 4, 1000 + seed)) for seed in range(400)])
    assert abs(same.mean()) < 4 * same.std() / 20 and (same < 0).mean() > 0.3
    found = kernel_distance(normals(400, 4, 0), normals(400, 4, 1, 0.7))
    assert found.error is not None and found.value > 5 * found.error
    assert kernel_distance(normals(30, 4, 0), normals(30, 4, 1)).error is None


@pytest.mark.parametrize("seed", [0, 1, 2])
def test_precision_and_recall_are_those_of_balls(seed: int) -> None:
    real, made = normals(60, 2, seed).numpy(), 0.5 * normals(50, 2, seed + 9).numpy() + 0.5

    def among(points: np.ndarray, others: np.ndarray) -> float:
        radii = NearestNeighbors(n_neighbors=4).fit(others).kneighbors(others)[0][:, -1]
        return float(np.mean([(np.linalg.norm(others - point, axis=1) <= radii).any() for point in points]))

    assert precision_recall(torch.tensor(real), torch.tensor(made)) == (among(made, real), among(real, made))
    assert among(made, real) > among(real, made)
    with pytest.raises(ValueError, match="3 neighbours"):
        precision_recall(torch.tensor(real[:3]), torch.tensor(made))


def test_neighbours_are_nearest_and_copies_are_found() -> None:
    pool, queries = normals(500, 8, 0).float(), normals(20, 8, 1).float()
    queries[3] = pool[77]
    distance, places = nearest(queries, pool)
    every = (queries[:, None] - pool).norm(dim=2)
    assert torch.equal(places, every.argmin(1)) and torch.allclose(distance, every.min(1).values)
    assert places[3] == 77 and distance[3] == 0
    found, copies, shown = _nearness(queries, normals(20, 8, 2).float() + 5, pool)
    assert copies == 1 and shown[3] == 77 and found.nearer == 1.0 and found.samples < found.test


def test_the_recipe_learns_and_gives_the_same_again(digits: Splits, judge: Judge) -> None:
    assert judge.made["accuracy"] > 0.7 and judge.made["data"] == "digits"
    assert judge.features(digits.train.x).double().square().mean() == pytest.approx(1.0, abs=0.02)
    hits = (judge.classes(digits.validation.x) == digits.validation.labels).double().mean()
    assert judge.made["accuracy"] == pytest.approx(float(hits))
    few = [trained(digits, steps=2, seed=seed).hash for seed in (1, 1, 2)]
    assert few[0] == few[1] != few[2]


def test_a_classifier_is_kept_and_read_again(digits: Splits, judge: Judge, tmp_path: Path) -> None:
    path = tmp_path / "new" / "classifier.safetensors"
    judge.save(path)
    again = judge_of(path, digits)
    assert again.hash == judge.hash and again.made == judge.made
    assert torch.equal(again.features(digits.test.x), judge.features(digits.test.x))
    other = ancestral.data("digits", levels=2)
    with pytest.raises(DataError, match="take another file"):
        judge_of(path, other)
    path.write_bytes(path.read_bytes()[:500])
    with pytest.raises(DataError, match="damaged"):
        judge_of(path, digits)
    unlabelled = replace(digits, train=Examples(digits.train.x))
    with pytest.raises(DataError, match="no labels"):
        judge_of(tmp_path / "none", unlabelled)
    with pytest.raises(DataError, match="a classifier takes images"):
        trained(ancestral.data("measurements"))


def test_quality_puts_training_examples_beside_samples(digits: Splits, judge: Judge) -> None:
    torch.set_default_dtype(torch.float32)
    model = ancestral.build("vae", digits.spec, preset="tiny", conditional=True)
    found = quality(model, digits, samples=60, judge=judge)
    assert found.count == 60 and found.pool == len(digits.train) and found.classifier["weights"] == judge.hash
    assert found.samples.kid > 0.5 > abs(found.training.kid) and found.samples.precision < 0.5 < found.training.precision
    assert found.pixels.samples > found.pixels.test and found.copies == 0 and len(found.neighbours[0]) == 8
    assert found.labels is not None and Quality.from_dict(found.to_dict()) == found
    assert "Inception" in found.lines()[-1] and "caveat" in found.to_dict()
    binary = ancestral.build("vae", ancestral.DataSpec("image", (1, 8, 8), levels=2), preset="tiny")
    with pytest.raises(DataError, match="of 17 levels, the model makes"):
        quality(binary, ancestral.data("digits", levels=2), judge=judge)
    with pytest.raises(ValueError, match="samples is 3"):
        quality(model, digits, samples=3, judge=judge)


@pytest.fixture(scope="module")
def tones(tmp_path_factory: pytest.TempPathFactory) -> Splits:
    """Low and high tones of various lengths, four in five to train with."""
    folder, rate = tmp_path_factory.mktemp("tones"), 1000
    for i in range(100):
        pitch = (60 if i % 2 else 220) * (1 + 0.02 * (i % 7))
        wave = 0.5 * np.sin(2 * np.pi * pitch * np.arange(150 + 9 * (i % 5)) / rate)
        soundfile.write(folder / f"{'ab'[i % 2]}-{i}.wav", wave, rate)
    return ancestral.data(folder, label_from=("0",))


def test_sound_is_looked_at_as_spectrograms_of_one_size(tones: Splits) -> None:
    assert isinstance(tones.notation, Sound)
    view = view_of(tones.spec, tones.notation)
    x = tones.test.select(range(4)).x
    seen = view(x)
    assert seen.shape == (4, *view.size) and seen.dtype == torch.float32 and -1 <= float(seen.min()) <= float(seen.max()) <= 1.2
    end = tones.spec.end
    assert end is not None
    alone = x[:1, : int((x[0] == end).cumsum(0).eq(0).sum())]
    assert torch.allclose(view(alone)[0, 1], seen[0, 1])  # how long it is does not depend on what it is filled up with
    plain = view.plain(x)
    each = ((seen[:, None, 0] - seen[None, :, 0]) / 2).square().mean((2, 3)).sqrt()
    assert torch.allclose(torch.cdist(plain, plain), each, atol=1e-3)
    with pytest.raises(DataError, match="not text"):
        view_of(ancestral.DataSpec("text", (8,), 5), None)


def test_a_classifier_tells_sounds_apart_and_judges_samples(tones: Splits, tmp_path: Path) -> None:
    torch.set_default_dtype(torch.float32)
    judge = judge_of(tmp_path / "tones.safetensors", tones)
    assert judge.made["accuracy"] == 1 and judge.made["rate"] == 1000
    told = ancestral.build("wavenet", tones.spec, preset="tiny", conditional=True)
    found = quality(told, tones, samples=8, judge=judge)
    assert found.points == "spectrograms" and found.count == 8 and found.recognised.test == 1
    assert found.recognised.samples is not None and found.recognised.reconstructions is None
    assert found.samples.kid > abs(found.training.kid) and found.copies == 0
    assert "in spectrograms" in " ".join(found.lines()) and Quality.from_dict(found.to_dict()) == found
    vae = ancestral.build("wavenet-vae", tones.spec, preset="tiny")
    found = quality(vae, tones, samples=8, judge=judge)
    assert found.recognised.samples is None and found.recognised.reconstructions is not None
    other = ancestral.DataSpec("image", (1, 8, 8), levels=17)
    with pytest.raises(DataError, match="sound of 1,000 samples a second, the model makes images"):
        quality(ancestral.build("vae", other, preset="tiny"), ancestral.data("digits"), judge=judge)


def test_reconstructions_keep_the_class_that_they_are_shown_as(digits: Splits, judge: Judge) -> None:
    torch.set_default_dtype(torch.float32)
    vae = ancestral.build("vae", digits.spec, preset="tiny")
    vae.encode = lambda x, context=None: {"z": x}  # type: ignore[method-assign]
    seen: list[torch.Tensor] = []

    def drawn(model: object, n: int, *, z: dict[str, torch.Tensor] | None = None, **_: object) -> torch.Tensor:
        seen.append(torch.tensor(n))
        return torch.zeros(n, 1, 8, 8, dtype=torch.long) if z is None else z["z"].long()

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sys.modules[quality.__module__], "sample", drawn)
        found = quality(vae, digits, samples=70, judge=judge)
    assert found.recognised.reconstructions == 1 and sum(map(int, seen)) == 140
    truth = (judge.classes(digits.test.x) == digits.test.labels).double().mean()
    assert found.recognised.test == pytest.approx(float(truth), abs=0.06)  # of 70 of them
