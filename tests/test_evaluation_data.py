"""Evaluation: examples keep their noise whatever the batch, data are named, single examples add up to the whole."""

from __future__ import annotations

import json
from math import log
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from tiny_latents import awake
from torch import Tensor

from ancestral.core import Context
from ancestral.data import load_data
from ancestral.data.source import LIMIT, permutation
from ancestral.data.splits import Examples
from ancestral.evaluation import evaluate, score, surprisal
from ancestral.evaluation.examples import SUBSET
from ancestral.latent.topdown import Noise
from ancestral.models import build
from ancestral.objectives import Batch, importance_weights
from ancestral.spec import DataSpec
from ancestral.symbols import DataError

GREY = DataSpec("image", (1, 4, 4), levels=5, classes=3)


def fresh(name: str, spec: DataSpec = GREY, **overrides: Any) -> Any:
    return awake(name, spec, 0.3, **overrides)


def grey(n: int) -> Tensor:
    return torch.randint(5, (n, 1, 4, 4))


# -- examples, batches, noise --------------------------------------------------------------------------------------------


@pytest.mark.parametrize("options", [{"conditional": True}, {"spatial": True, "factor": 2}])
def test_nothing_depends_on_the_batch_size(options: dict[str, Any]) -> None:
    model, data = fresh("agave", **options), Examples(grey(7), torch.arange(7) % 3)
    found = [evaluate(model, data, importance_samples=5, subset=5, batch_size=size).to_dict() for size in (1, 3, 64)]
    for other in found[1:]:
        assert other.keys() == found[0].keys()
        for key, value in found[0].items():
            if key in ("kl_by_unit", "kl_by_group"):
                assert other[key]["z"] == pytest.approx(value["z"], rel=1e-10, abs=1e-12)
            else:
                assert other[key] == (pytest.approx(value, rel=1e-10, abs=1e-12) if isinstance(value, float) else value), key


def test_another_seed_is_another_sample() -> None:
    model, x = fresh("agave"), grey(5)
    one, two = (evaluate(model, x, importance_samples=2, seed=seed) for seed in (0, 1))
    assert one.distortion != two.distortion and one.rate == pytest.approx(two.rate)


def test_figures_are_those_of_the_elbo_with_a_weight_of_one() -> None:
    model, x = fresh("agave", lambda_=8.0), grey(6)
    found = evaluate(model, x, importance_samples=0)
    with torch.no_grad():
        parts = model.elbo(x)
    assert found.rate == pytest.approx(float(parts.rate.mean()))
    assert found.distortion == pytest.approx(float(parts.distortion.mean()))
    assert found.nats == found.rate + found.distortion == -found.elbo  # type: ignore[operator]
    assert found.auxiliary == pytest.approx(float(parts.auxiliary.mean()))
    assert found.nats_error == pytest.approx(float(parts.bound.std()) / 6**0.5)
    assert found.iwae is None and found.shuffle_cost is not None and found.subset == 6


def test_a_limit_chooses_examples_that_keep_their_noise() -> None:
    model, x = fresh("agave"), grey(20)
    found = evaluate(model, x, limit=6, subset=4, importance_samples=3)
    chosen = permutation(20, 0, LIMIT)[:6]
    assert found.nats == pytest.approx(float(score(model, x).nats[chosen].mean()))
    assert (found.examples, found.subset, found.data["available"]) == (6, 4, 20)
    some = sorted(chosen.tolist())
    rows = [some[place] for place in permutation(6, 0, SUBSET)[:4]]
    weights = importance_weights(model, Batch(x[rows], rows=rows, seed=0), 3).detach()
    assert found.elbo_subset == pytest.approx(float(weights.mean()))
    assert found.iwae == pytest.approx(float((weights.logsumexp(1) - log(3)).mean()))
    share = weights.softmax(1)
    assert found.effective_samples == pytest.approx(float((1 / share.square().sum(1)).mean()) / 3)


@pytest.mark.parametrize("at_once", [None, 1, 3, 4, 100])
def test_importance_weights_have_the_noise_of_their_own_rows(at_once: int | None) -> None:
    model, x, rows, k = fresh("agave", conditional=True), grey(2), [5, 11], 7
    batch = Batch(x, torch.tensor([2, 0]), seed=3, rows=rows)
    found = importance_weights(model, batch, k, at_once)
    labels = torch.tensor([[0.0, 0.0, 1.0], [1.0, 0.0, 0.0]])
    for i, row in enumerate(rows):
        for j in range(k):
            descent = model.descend(x[i : i + 1], Noise(3, [row * k + j]), Context(vector=labels[i : i + 1]))
            group = descent.groups[0]
            expected = model.likelihood.log_prob(x[i : i + 1], descent.features) + (group.log_p - group.log_q).sum(1)
            assert found[i, j].item() == pytest.approx(expected.item(), rel=1e-12)


def test_single_precision_is_summed_in_double() -> None:
    model, x = fresh("agave"), grey(5)
    double, single = evaluate(model, x, importance_samples=3), evaluate(model.float(), x, importance_samples=3)
    for name in ("nats", "rate", "iwae", "shuffle_cost", "mutual_information"):
        assert getattr(single, name) == pytest.approx(getattr(double, name), rel=1e-4, abs=1e-4), name
    assert score(model, x).nats.dtype == surprisal(model, x).dtype == torch.float64


def test_one_example() -> None:
    found = evaluate(fresh("agave"), grey(1), importance_samples=3)
    assert (found.nats_error, found.shuffle_cost, found.shuffle_cost_error, found.mutual_information) == (None, None, None, 0.0)
    assert found.verdict is not None and found.active_units == 0
    assert "±" not in "".join(found.lines())
    json.dumps(found.to_dict(), allow_nan=False)


def test_progress_ends_where_it_said() -> None:
    told: list[tuple[int, int]] = []
    evaluate(fresh("agave"), grey(7), importance_samples=5, subset=4, batch_size=3, progress=lambda *pair: told.append(pair))
    assert told == sorted(told) and told[-1] == (7 + 4 * 5 + 4, 7 + 4 * 5 + 4)
    told.clear()
    evaluate(fresh("gated-pixelcnn"), grey(7), batch_size=3, progress=lambda *pair: told.append(pair))
    assert told == [(3, 7), (6, 7), (7, 7)]


@pytest.mark.parametrize("labels", [[0, 0, 1, 2], [0, 1, 2, 3]])
def test_progress_ends_where_it_said_where_some_are_alone_with_their_label(labels: list[int]) -> None:
    spec, told = DataSpec("image", GREY.shape, GREY.levels, classes=4), list[tuple[int, int]]()
    examples = Examples(grey(4), torch.tensor(labels))
    found = evaluate(
        fresh("agave", spec, conditional=True), examples, importance_samples=2, progress=lambda *pair: told.append(pair)
    )
    assert told[-1] == (4 + 4 * 2 + 4,) * 2 and (found.shuffle_cost is None) == (len(set(labels)) == 4)


def test_the_model_is_left_as_it_was() -> None:
    model = fresh("agave")
    model.train()
    evaluate(model, grey(3), importance_samples=2)
    assert model.training and all(weight.requires_grad and weight.grad is None for weight in model.parameters())


def test_small_numbers_are_widened() -> None:
    """Data come as uint8, in which the reduction to fewer colours would overflow."""
    model, x = fresh("agave", DataSpec("image", (1, 4, 4), levels=256), colours=64), torch.randint(256, (3, 1, 4, 4))
    assert evaluate(model, x.byte(), importance_samples=2).auxiliary == evaluate(model, x, importance_samples=2).auxiliary


def test_labels_count_for_models_that_were_made_for_them() -> None:
    model, x, labels = fresh("gated-pixelcnn", conditional=True), grey(4), torch.tensor([0, 1, 2, 2])
    labelled, bare = evaluate(model, Examples(x, labels)), evaluate(model, x)
    assert labelled.data["labels"] and not bare.data["labels"] and labelled.nats != bare.nats
    assert torch.allclose(score(model, x, labels=labels).nats.mean(), torch.tensor(labelled.nats))
    assert evaluate(fresh("gated-pixelcnn"), Examples(x, labels)).data["labels"] is False


# -- data ----------------------------------------------------------------------------------------------------------------


def test_the_note_beside_the_figures() -> None:
    data = load_data("digits", binarize="threshold", limit=12)
    found = evaluate(fresh("vae", data.spec), data, split="validation", importance_samples=3)
    note = found.data
    assert (note["name"], note["split"], note["range"], note["examples"]) == ("digits", "validation", "0 .. 1", 12)
    assert note["hash"] == data.hash and "binarised by v >= 8.5" in note["binarisation"] and note["note"] == data.note
    text = "\n".join(found.lines())
    for said in ("(bound: ELBO)", "IWAE-3", "same 12 examples", "all 12 examples of digits (validation, 0 .. 1)", data.note):
        assert said in text
    json.dumps(found.to_dict(), allow_nan=False)


def test_names_paths_and_arrays(tmp_path: Path) -> None:
    model = fresh("gated-pixelcnn", load_data("digits").spec)
    named = evaluate(model, "digits", limit=3)
    assert named.nats == evaluate(model, load_data("digits"), limit=3).nats
    digits = load_data("digits").test.x.numpy()
    np.save(tmp_path / "digits.npy", digits)
    with pytest.raises(DataError, match=r"levels=17.*as they were read for training"):  # nothing in the file says 17
        evaluate(model, tmp_path / "digits.npy")
    whole, tensor = evaluate(model, digits), evaluate(model, torch.from_numpy(digits))
    assert whole == tensor and whole.data["split"] == "as given" and whole.examples == len(digits)


def test_text_of_another_alphabet_is_to_be_read_otherwise() -> None:
    lines = ["one line", "another", "a third"]
    text = load_data(lines, notation="characters")
    with pytest.raises(DataError, match=r"levels=257, .*as they were read for training \(notation=, pieces=, length=, rate=\)"):
        evaluate(build("transformer", text.spec, preset="tiny", context=16), load_data(lines))


@pytest.mark.parametrize(
    ("data", "options", "message"),
    [
        (grey(2), {"importance_samples": -1}, "importance_samples"),
        (grey(2), {"subset": 0}, "subset"),
        (grey(2), {"limit": 0}, "limit"),
        (grey(2), {"batch_size": 0}, "batch_size"),
        (grey(0), {}, "no examples"),
        (grey(2) + 1, {}, "range over"),
        (grey(2).double(), {}, "integers"),
        (torch.zeros(2, 1, 5, 4, dtype=torch.long), {}, "batch of shape"),
        ([[0]], {}, "type list"),
        ("no such data", {}, "no data called"),
        (load_data("digits"), {}, "digits has examples of shape"),
        (load_data(grey(10).numpy(), levels=5), {"split": "exam"}, "there is no split 'exam'"),
    ],
)
def test_what_cannot_be_evaluated(data: Any, options: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        evaluate(fresh("gated-pixelcnn"), data, **options)


def test_real_values() -> None:
    data = load_data("measurements", limit=15)
    model = build("vae", data.spec, preset="tiny")
    found = evaluate(model, data, importance_samples=3)
    assert found.density and found.status == "bound" and found.verdict is not None and " of " not in found.verdict.split(";")[0]
    assert data.units is not None and f"{-data.units.nats:+.4f} nats" in found.data["units"]
    assert "of a density" in found.lines()[0] and "Units: the original" in found.lines()[-1]
    array = evaluate(model, data.test.x.double(), importance_samples=3)
    assert found.nats == pytest.approx(array.nats + data.units.nats) and found.rate == pytest.approx(array.rate)
    assert found.iwae == pytest.approx(array.iwae - data.units.nats) and found.elbo == pytest.approx(array.elbo - data.units.nats)


# -- single examples and symbols -----------------------------------------------------------------------------------------


def test_surprisal_sums_to_the_score() -> None:
    model, x = fresh("gated-pixelcnn"), grey(5)
    map_, scores = surprisal(model, x, batch_size=2), score(model, x, batch_size=3)
    assert map_.shape == x.shape and torch.allclose(map_.flatten(1).sum(1), scores.nats)
    assert torch.allclose(scores.nats, -model.log_prob(x))
    assert torch.allclose(scores.bits_per_dim, scores.nats / (16 * log(2)))
    assert (scores.status, scores.importance_samples) == ("exact", None)
    assert torch.allclose(map_[0, 0, 0, 0], -model.conditionals(x).log_prob(x)[0, 0, 0, 0])


def test_surprisal_given_latents_sums_to_the_distortion() -> None:
    model, x = fresh("agave"), grey(5)
    parts = model.elbo(x, seed=2)
    assert torch.allclose(surprisal(model, x, seed=2, batch_size=2).flatten(1).sum(1), parts.distortion)
    scores = score(model, x, seed=2)
    assert torch.allclose(scores.nats, -parts.bound) and (scores.status, scores.importance_samples) == ("bound", 1)


def test_scores_of_nothing() -> None:
    with pytest.raises(DataError, match="no rows"):
        score(fresh("agave"), grey(0))
    with pytest.raises(ValueError, match="at least 1"):
        score(fresh("agave"), grey(2), importance_samples=0)


# -- whole numbers --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["transformer", "wavenet", "transformer-vae"])
def test_exact_numerics_of_examples_of_any_length(name: str) -> None:
    """Longer ones than the network was made for among them, in batches that end where their longest does."""
    model = fresh(
        name, DataSpec("text", (None,), levels=5, end=4), **({} if name == "wavenet" else {"context": 8, "places": "rotary"})
    )
    x = torch.full((6, 20), 4)
    for row, length in zip(x, (3, 0, 19, 5, 7, 1), strict=True):
        row[:length] = torch.randint(4, (length,))
    found = evaluate(model, x, importance_samples=0, numerics="exact", batch_size=2)
    assert found.exact_nats is not None and found.exact_cost is not None
    assert found.exact_nats == pytest.approx(found.nats, rel=0.1 if name == "transformer-vae" else 0.002)
    assert ("chosen" in "".join(found.lines())) == (found.exact_scheme == "two-part") == (name == "transformer-vae")
