"""What can be read off z: probes, the mean codes of classes, and moves between them."""

from __future__ import annotations

from dataclasses import replace
from importlib import import_module
from math import log

import numpy as np
import pytest
import torch
from scipy.stats import norm
from tiny_latents import Chain, Flat, coins, gaussian
from torch import Tensor, nn

import ancestral
from ancestral.data.source import PARTS
from ancestral.data.splits import Examples, Splits
from ancestral.draw import Draw
from ancestral.evaluation.attributes import class_means
from ancestral.evaluation.codes import classes_of, codes, pooled
from ancestral.evaluation.examples import Chosen
from ancestral.evaluation.latents import mutual_information
from ancestral.evaluation.pairs import paired_information
from ancestral.evaluation.probes import COMPONENTS, DRAWS, Labelled, chance, probes
from ancestral.evaluation.study import DRAWN, MEANS, RAW, Study, study
from ancestral.evaluation.summary import summary
from ancestral.latent.latent import Latent
from ancestral.sampling import shift
from ancestral.spec import DataSpec
from ancestral.symbols import DataError

COINS = DataSpec("vector", (3,), levels=2, classes=2)


def cut(x: np.ndarray, y: np.ndarray) -> list[Labelled]:
    """Three sets of equal size."""
    return [Labelled(a, b) for a, b in zip(np.split(x, 3), np.split(y, 3), strict=True)]


def tossed(n: int = 400, seed: int = 0) -> Splits:
    """Coins of which the first is the class."""
    x = torch.randint(2, (n, 3), generator=torch.Generator().manual_seed(seed))
    sets = [Examples(part.to(torch.uint8), part[:, 0].clone()) for part in torch.split(x, [n // 2, n // 4, n // 4])]
    return Splits(*sets, COINS, "coins", "fair coins.", ("tails", "heads"))


def seeing(size: float, scale: float) -> Latent:
    """A code of the first coin, -size or size, with so much noise."""
    return coins(lambda x: (size * (2.0 * x[:, :1] - 1), torch.full((len(x), 1), scale)))


def all_of(x: Tensor, y: Tensor) -> Chosen:
    return Chosen(Examples(x, y), range(len(x)), range(len(x)))


@pytest.mark.parametrize("seed", [0, 1])
def test_a_probe_of_two_normals_is_as_good_as_the_best_rule(seed: int) -> None:
    rng = np.random.default_rng(seed)
    y = rng.integers(0, 2, 6000)
    x = rng.normal(size=(6000, 5))
    x[:, 2] += 2.0 * y
    [found] = probes("normals", *cut(x, y))
    assert abs(found.accuracy - norm.cdf(1.0)) < 4 * found.error
    assert found.error == pytest.approx((found.accuracy * (1 - found.accuracy) / 2000) ** 0.5)
    [rescaled] = probes("normals", *cut(x * [1e-4, 1, 1e3, 1, 7], y))
    assert rescaled.accuracy == pytest.approx(found.accuracy, abs=1e-3)


def test_the_penalty_is_chosen_without_the_test_set() -> None:
    rng = np.random.default_rng(0)
    y = rng.integers(0, 3, 300)
    noise = rng.normal(size=(300, 80))  # as many weights as examples: a weak penalty lets them be learned
    noise[:, 0] += 3 * y
    train, validation, test = cut(noise, y)
    [found] = probes("noisy", train, validation, test)
    [blind] = probes("noisy", train, validation, Labelled(test.x, rng.permutation(test.y)))
    assert found.l2 == blind.l2 and found.l2 >= 1
    assert found.accuracy > blind.accuracy + 0.1


def test_few_labels_are_as_many_of_each_class_and_tell_less() -> None:
    rng = np.random.default_rng(0)
    y = rng.choice(4, 1200, p=[0.4, 0.3, 0.2, 0.1])
    x = rng.normal(size=(1200, 6)) + 1.2 * np.eye(4, 6)[y]
    whole, one, ten = probes("blobs", *cut(x, y), few=(1, 10, 1000))  # no class has a thousand
    assert [(each.labels, each.examples) for each in (whole, one, ten)] == [(None, 400), (1, 4), (10, 40)]
    assert one.accuracy < ten.accuracy < whole.accuracy and one.error > 0
    again = probes("blobs", *cut(x, y), few=(1,), seed=1)[1]
    assert again.accuracy != one.accuracy
    assert DRAWS > 1


def test_many_features_are_reduced_and_one_class_is_refused() -> None:
    rng = np.random.default_rng(0)
    y = rng.integers(0, 2, 600)
    hidden = rng.normal(size=(600, 3))
    hidden[:, 0] += 6 * y
    wide = hidden @ rng.normal(size=(3, 400)) + 0.1 * rng.normal(size=(600, 400))
    [found] = probes("wide", *cut(wide, y))
    assert found.dimensions == COMPONENTS and found.accuracy > 0.95
    with pytest.raises(DataError, match="one class"):
        probes("none", *cut(wide, np.zeros(600, int)))
    assert chance(np.array([1, 1, 0]), np.array([1, 0, 0, 0])) == 0.25


def test_what_noise_covers_is_in_the_means_and_not_in_z() -> None:
    hidden = study(seeing(0.01, 1.0), tossed(), few=(1, 5))
    assert hidden.accuracy(MEANS).accuracy == 1.0  # type: ignore[union-attr]
    assert hidden.accuracy(DRAWN).accuracy < 0.7  # type: ignore[union-attr]
    plain = study(seeing(1.0, 0.1), tossed(), few=(1, 5))
    assert plain.accuracy(DRAWN, 1).accuracy == 1.0  # type: ignore[union-attr]
    assert plain.between == {"z": pytest.approx(1.0)} and plain.class_names == ["tails", "heads"]
    assert plain.distances[0][1] == pytest.approx(2.0)
    assert {(each.features, each.labels) for each in plain.probes} >= {
        (RAW, None),
        (RAW, 5),
        (f"{RAW}, 1 principal components", None),
    }
    assert Study.from_dict(plain.to_dict()) == plain
    assert "chance" in plain.lines()[0]


def test_a_collapsed_model_shows_nothing() -> None:
    nothing = study(coins(lambda x: (torch.zeros(len(x), 1), torch.ones(len(x), 1))), tossed(), few=())
    assert nothing.between == {"z": 0.0}
    for features in (MEANS, DRAWN):
        found = nothing.accuracy(features)
        assert found is not None and found.accuracy < 0.7


def test_groups_have_probes_of_their_own() -> None:
    generator = torch.Generator().manual_seed(0)
    y = torch.randint(2, (400,), generator=generator)
    x = torch.randn(400, 1, generator=generator) + 8.0 * y[:, None]
    sets = [Examples(*part) for part in zip(torch.split(x, [200, 100, 100]), torch.split(y, [200, 100, 100]), strict=True)]
    spec = DataSpec("vector", (1,), classes=2)
    found = study(gaussian(Chain()), Splits(*sets, spec, "pairs", "two normals."), few=())
    lower, upper = (found.accuracy(f"{name} as drawn") for name in ("z2", "z1"))
    assert lower is not None and upper is not None and lower.accuracy > 0.95 and upper.accuracy > 0.9
    assert found.between.keys() == {"z1", "z2"}


def test_codes_are_posterior_means_and_draws() -> None:
    x = torch.tensor([[0, 0, 1], [1, 0, 1]]).repeat(500, 1)
    found = codes(seeing(2.0, 0.5), all_of(x, x[:, 0]), seed=3, batch_size=64, tick=lambda amount: None)
    assert torch.equal(found.means["z"], (4.0 * x[:, :1] - 2))
    away = found.drawn["z"] - found.means["z"]
    assert away.std() == pytest.approx(0.5, abs=0.05) and away.mean() == pytest.approx(0.0, abs=0.05)


@pytest.mark.parametrize(
    ("shape", "cells"), [((16, 16), (3, 3)), ((1, 64), (1, 12)), ((64, 1), (12, 1)), ((2, 64), (2, 6)), ((40, 2), (6, 2))]
)
def test_grids_of_any_sides_are_averaged_down_to_as_many_cells_as_fit(shape: tuple[int, int], cells: tuple[int, int]) -> None:
    """Of a sequence that lies in one row no cell is told twice in the place of others."""
    found = pooled(torch.arange(2.0 * 4 * shape[0] * shape[1]).view(2, 4, *shape), most=48)
    assert found.shape == (2, 4 * cells[0] * cells[1])
    assert all(len(row.unique()) == len(row) for row in found)


def test_class_means_and_the_variance_between_them() -> None:
    generator = torch.Generator().manual_seed(1)
    x, y = torch.randn(60, 1, generator=generator), torch.randint(3, (60,), generator=generator) * 2
    model = gaussian(Flat(lambda x: (torch.cat([x, 3 * x], 1), torch.ones(len(x), 2)), nn.Linear(2, 1), units=2))
    found = class_means(model, all_of(x + y[:, None], y), batch_size=7, tick=lambda amount: None)
    z = torch.cat([x + y[:, None], 3 * (x + y[:, None])], 1)
    means = torch.stack([z[y == label].mean(0) for label in (0, 2, 4)])
    assert found.classes == [0, 2, 4]
    assert torch.allclose(found.means["z"], means)
    spread = sum(((y == label).double().mean() * (means[i] - z.mean(0)).square().sum()) for i, label in enumerate((0, 2, 4)))
    assert found.between["z"] == pytest.approx(float(spread / z.var(0, unbiased=False).sum()))
    assert torch.allclose(found.direction(0, 4)["z"], means[2] - means[0])
    assert found.distances[0, 2] == pytest.approx(float((means[2] - means[0]).norm()))
    with pytest.raises(ValueError, match="class 1 has no mean"):
        found.direction(0, 1)


def test_shifts_add_shares_of_a_vector() -> None:
    model = ancestral.build("vae", ancestral.DataSpec("image", (1, 4, 4), levels=2), preset="tiny")
    for weight in model.parameters():
        nn.init.normal_(weight, std=0.5)
    x = torch.randint(2, (2, 1, 4, 4))
    by = {"z": torch.tensor([3.0, -2.0])}
    with torch.no_grad():
        z = model.encode(x)["z"]
        wanted = [model.likelihood.walk(2, model.features({"z": z + share * by["z"]})).run(Draw(5)) for share in (0.0, 1.5)]
    assert torch.equal(shift(model, x, by, (0.0, 1.5), seed=5), torch.stack(wanted))
    with pytest.raises(ValueError, match="no latent group 'y'"):
        shift(model, x, {"y": by["z"]}, (1.0,))
    with pytest.raises(ValueError, match="shares is empty"):
        shift(model, x, by, ())


def test_summaries_are_flat_and_tell_what_is_known() -> None:
    data = tossed()
    model = seeing(1.0, 0.1)
    evaluation = ancestral.evaluate(model, data, importance_samples=2, subset=20)
    alone = summary(evaluation)
    assert alone["nats"] == alone["rate"] + alone["distortion"] and alone["probe_drawn"] is None and alone["kid"] is None
    assert alone["rate_share"] == pytest.approx(alone["rate"] / alone["nats"])
    known = summary(evaluation, study(model, data, few=(10,)))
    assert known["probe_drawn"] == known["probe_means_10"] == 1.0 and known["probe_means_1"] is None
    assert known.keys() == alone.keys() and not any(isinstance(value, dict | list) for value in known.values())


def test_information_from_pairs_is_that_of_one_group_and_knows_several() -> None:
    x = torch.randn(40, 1, generator=torch.Generator().manual_seed(0)) * 3**0.5
    chosen = Chosen(Examples(x), range(40), range(40))
    flat = gaussian(Flat(lambda x: (x / 2, torch.full_like(x, 0.7)), nn.Linear(1, 1)))
    with torch.no_grad():
        known = mutual_information(flat, chosen, 0, 16)
        assert known is not None and paired_information(flat, chosen, 0) == pytest.approx(known)
        # q(z1, z2 | x) is the exact posterior of x ~ N(0, 3), so that I(x; z1, z2) = log(3 / 1) / 2
        wide = torch.randn(4, 40, 1, generator=torch.Generator().manual_seed(1)) * 3**0.5
        found = [paired_information(gaussian(Chain()), Chosen(Examples(each), range(40), range(40)), 0) for each in wide]
    assert sum(found) / 4 == pytest.approx(log(3) / 2, abs=0.15)


def test_evaluate_tells_the_information_of_several_groups() -> None:
    found = ancestral.evaluate(gaussian(Chain()), torch.randn(30, 1) * 3**0.5, importance_samples=0)
    assert found.information_examples == 30 and found.mutual_information is not None and found.aggregate_kl is not None
    assert 0 < found.mutual_information < log(30)


def test_mean_codes_are_of_examples_from_everywhere(monkeypatch: pytest.MonkeyPatch) -> None:
    """Of training examples that lie by class, fewer than all still show every class."""
    monkeypatch.setattr(import_module("ancestral.evaluation.study"), "MOST_AVERAGED", 50)
    data = tossed()
    order = data.train.x[:, 0].long().argsort(stable=True)
    by_class = replace(data, train=Examples(data.train.x[order], data.train.x[order, 0].long()))
    assert study(seeing(2.0, 0.5), by_class, few=()).classes == [0, 1]


def test_data_without_labels_are_refused() -> None:
    x = torch.zeros(9, 3, dtype=torch.uint8)
    with pytest.raises(DataError, match="no labels"):
        classes_of(Chosen(Examples(x), range(9), range(9)))
    bare = Splits(Examples(x), Examples(x), Examples(x), DataSpec("vector", (3,), levels=2), "bare", "none.")
    with pytest.raises(DataError, match="--labelled"):
        study(seeing(1.0, 1.0), bare)
    with pytest.raises(ValueError, match="limit is 4"):
        study(seeing(1.0, 1.0), tossed(), limit=4)


def test_classes_that_training_has_none_of_are_refused() -> None:
    """As of a folder sorted by class that is cut in order: an accuracy of 0 % would say nothing of z."""
    sets = [Examples(torch.randint(2, (40, 3)).to(torch.uint8), torch.arange(40) % 2 + 2 * (part == "test")) for part in PARTS]
    data = Splits(*sets, DataSpec("vector", (3,), levels=2, classes=4), "sorted", "sorted.")
    with pytest.raises(DataError, match="no class of a test example has a training example"):
        study(seeing(1.0, 1.0), data)
