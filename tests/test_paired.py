"""Paired differences: against costs added up by hand, what they mean, and what `compare` refuses."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from tiny_cli import Ask, Call

import ancestral
from ancestral.data.source import permutation
from ancestral.evaluation.examples import SUBSET, chosen_examples
from ancestral.evaluation.iwae import bounds
from ancestral.evaluation.paired import Difference, compare

LIMIT = 30


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Runs of fresh weights on a few digits: ``pixels``, ``vae`` and ``other``, which have read the same, and ``coarse``."""
    torch.set_default_dtype(torch.float64)
    folder = tmp_path_factory.mktemp("runs")
    kinds: dict[str, tuple[str, dict[str, Any], dict[str, Any]]] = {
        "pixels": ("gated-pixelcnn", {}, {}),
        "labelled": ("gated-pixelcnn", {"conditional": True}, {}),
        "vae": ("vae", {}, {}),
        "other": ("vae", {"latent": 3}, {}),
        "coarse": ("vae", {}, {"levels": 4}),
        "fewer": ("vae", {}, {"limit": 20}),
    }
    for seed, (name, (kind, changes, reading)) in enumerate(kinds.items()):
        options = {"limit": LIMIT, **reading}
        data = ancestral.data("digits", **options)
        torch.manual_seed(seed)
        model = ancestral.build(kind, data.spec, preset="tiny", **changes)
        ancestral.save(model, folder / name, extra={"data": {"source": "digits", "options": options, **data.describe()}})
    return folder


def by_hand(second: np.ndarray, first: np.ndarray) -> tuple[float, float]:
    """Mean and standard error of differences."""
    away = second - first
    return float(away.mean()), float(away.std(ddof=1) / np.sqrt(len(away)))


def nats(run: Path, x: torch.Tensor, seed: int) -> np.ndarray:
    """The cost of every row, one by one."""
    model = ancestral.load(run)
    with torch.no_grad():
        if isinstance(model, ancestral.Latent):
            return np.array([-float(model.elbo(x[i : i + 1], seed=seed, rows=[i]).bound) for i in range(len(x))])
        return np.array([-float(model.log_prob(x[i : i + 1])) for i in range(len(x))])


@pytest.mark.parametrize(
    ("first", "second", "status", "word"),
    [
        ("pixels", "vae", "bound", "at most"),
        ("vae", "pixels", "bound", "at least"),
        ("vae", "other", "approximate", "how loose"),
        ("pixels", "labelled", "exact", "exact costs"),
    ],
)
def test_compare_pairs_the_costs_of_the_same_examples(
    first: str, second: str, status: str, word: str, runs: Path, ask: Ask
) -> None:
    told = ask("compare", runs / first, runs / second, "--data", "digits", "--limit", "20", "--seed", "7", "--batch-size", "6")
    [found] = told["differences"]
    test = ancestral.data("digits").test
    rows = sorted(permutation(len(test), 7, 1)[:20].tolist())
    assert found["examples"] == 20 and (found["status"], word in found["meaning"]) == (status, True)
    assert (found["run"], found["than"]) == (str(runs / second), str(runs / first))
    if "labelled" in (first, second):
        return
    whole = np.concatenate([nats(runs / name, test.x.long(), 7)[None] for name in (first, second)])[:, rows]
    mean, error = by_hand(whole[1], whole[0])
    assert (found["nats"], found["nats_error"]) == pytest.approx((mean, error), rel=1e-9)
    assert found["standard_errors"] == pytest.approx(mean / error, rel=1e-9)
    assert found["bits_per_dim"] == pytest.approx(mean / 64 / np.log(2), rel=1e-9)


def test_pairing_makes_the_error_smaller(runs: Path) -> None:
    data, model = ancestral.data("digits", limit=LIMIT), ancestral.load(runs / "pixels")
    nearly = ancestral.load(runs / "pixels")
    with torch.no_grad():
        for parameter in nearly.parameters():
            parameter.mul_(1.01)
    found = compare(model, nearly, data)
    apart = ancestral.evaluate(model, data).nats_error
    assert found.nats_error is not None and apart is not None and found.nats_error < 0.2 * apart


def test_differences_are_antisymmetric_and_split_into_terms(runs: Path) -> None:
    data = ancestral.data("digits", limit=LIMIT)
    a, b = (ancestral.load(runs / name) for name in ("vae", "other"))
    there, back, none = compare(a, b, data, seed=3), compare(b, a, data, seed=3), compare(a, a, data, seed=3)
    assert there.nats == pytest.approx(-back.nats) and there.nats_error == pytest.approx(back.nats_error)
    assert there.rate is not None and there.distortion is not None
    assert there.nats == pytest.approx(there.rate + there.distortion)
    assert (none.nats, none.nats_error, none.standard_errors) == (0.0, 0.0, None)


def test_importance_weighted_bounds_are_compared_on_the_subset(runs: Path) -> None:
    data, k = ancestral.data("digits", limit=LIMIT), 4
    pixels, vae = (ancestral.load(runs / name) for name in ("pixels", "vae"))
    found = compare(pixels, vae, data, importance_samples=k, subset=10, seed=2)
    some = permutation(LIMIT, 2, SUBSET).tolist()[:10]
    chosen, _ = chosen_examples(vae, data, "test", None, 2)
    with torch.no_grad():
        bound = bounds(vae, chosen.take(some), k, 2, 64, lambda done: None).iwae  # type: ignore[arg-type]
    exact = nats(runs / "pixels", data.test.x.long(), 0)[some]
    assert (found.weighted, found.weighted_error) == pytest.approx(by_hand(-bound.numpy(), exact))
    assert (found.importance_samples, found.subset) == (k, 10)
    assert any(f"IWAE-{k} on 10" in line for line in found.lines())


def test_words_tell_what_is_told_apart() -> None:
    close = Difference(nats=-0.1, nats_error=0.2, examples=9, sites=4, statuses=("exact", "exact"), seed=0)
    far = Difference(nats=-1.0, nats_error=0.2, examples=9, sites=4, statuses=("exact", "bound"), seed=0)
    assert "b less a: -0.10 ± 0.20 nats (0.5 standard errors, which does not tell them apart)" in close.lines("a", "b")[0]
    assert "(5.0 standard errors), -0.3607 bits/dim; a bound less an exact cost" in far.lines("a", "b")[0]


def test_the_table_has_all_runs_and_says_who_is_told_labels(runs: Path, call: Call, tmp_path: Path) -> None:
    folder = Path(shutil.copytree(runs, tmp_path / "runs"))
    code, out, err = call("compare", *(folder / name for name in ("pixels", "labelled", "vae")))
    assert code == 0 and f"{folder / 'labelled'} is told the labels" in err
    lines = out.splitlines()
    assert lines[0].split()[:2] == ["run", "model"] and [line.count(f" less {folder / 'pixels'}: ") for line in lines[-2:]] == [
        1,
        1,
    ]


def test_the_table_shows_what_is_asked_for(runs: Path, ask: Ask, call: Call, tmp_path: Path) -> None:
    vae, other = (Path(shutil.copytree(runs / name, tmp_path / name)) for name in ("vae", "other"))
    ask("evaluate", vae, "--importance-samples", "3", "--subset", "20")
    ask("evaluate", other, "--importance-samples", "5", "--subset", "25")
    kept = [(run / "evaluation.json").read_bytes() for run in (vae, other)]
    code, out, err = call("compare", vae, other)
    assert code == 0 and "measuring" not in err
    assert ", IWAE-3 on 20 " in out and ", IWAE-5 on 25 " in out and "not the same of all" in out
    words = ("compare", vae, other, "--importance-samples", "4", "--subset", "15")
    told = ask(*words)
    assert [(each["importance_samples"], each["subset"]) for each in told["runs"]] == [(4, 15)] * 2
    [found] = told["differences"]
    assert found["weighted"] == pytest.approx(told["runs"][0]["iwae"] - told["runs"][1]["iwae"])
    assert "on a subset: IWAE-4 on 15" in call(*words)[1]
    told = ask("compare", vae, other, "--seed", "3")
    assert [each["seed"] for each in told["runs"]] == [3, 3]
    assert told["differences"][0]["nats"] == pytest.approx(told["runs"][1]["nats"] - told["runs"][0]["nats"])
    assert kept == [(run / "evaluation.json").read_bytes() for run in (vae, other)]


def test_figures_are_kept_as_they_were_asked_for(runs: Path, ask: Ask, call: Call, tmp_path: Path) -> None:
    vae, pixels = (Path(shutil.copytree(runs / name, tmp_path / name)) for name in ("vae", "pixels"))
    asked = ("--importance-samples", "4", "--subset", "15", "--seed", "3")
    first = ask("compare", vae, pixels, *asked)["runs"]
    assert (first[0]["importance_samples"], first[0]["subset"], first[0]["seed"]) == (4, 15, 3)
    assert first[0] == ask("compare", vae, *asked)["runs"][0] and "measuring" not in call("compare", vae, pixels, *asked)[2]
    _, out, err = call("compare", vae, pixels, "--seed", "5")  # an exact cost has no noise
    assert f"measuring {vae}" in err and f"measuring {pixels}" not in err and "IWAE in" not in out


@pytest.mark.parametrize(
    ("words", "reason"),
    [
        (("pixels", "coarse"), "shape and symbols"),
        (("vae", "fewer"), "holds other examples"),
        (("vae", "other", "--importance-samples", "-1"), "importance_samples is -1"),
        (("vae", "other", "--subset", "0"), "subset is 0"),
        (("vae", "nothing"), "there is no folder"),
    ],
)
def test_what_cannot_be_compared_is_refused(words: tuple[str, ...], reason: str, runs: Path, call: Call) -> None:
    code, out, err = call("compare", *(runs / word if word.isalpha() else word for word in words))
    assert (code, out) == (1, "") and reason in err.splitlines()[-1]


def test_the_same_data_named_for_both_makes_them_comparable(runs: Path, ask: Ask) -> None:
    [found] = ask("compare", runs / "vae", runs / "fewer", "--data", "digits", "--limit", "8")["differences"]
    assert found["examples"] == 8


def test_other_units_are_refused(tmp_path: Path, call: Call) -> None:
    np.save(tmp_path / "table.npy", np.random.default_rng(0).normal(3.0, 2.0, (60, 3)))
    source = str(tmp_path / "table.npy")
    for name, options in (("plain", {}), ("standard", {"standardize": True})):
        data = ancestral.data(source, **options)
        model = ancestral.build("rnade", data.spec, preset="tiny")
        ancestral.save(model, tmp_path / name, extra={"data": {"source": source, "options": options, **data.describe()}})
    code, _, err = call("compare", tmp_path / "plain", tmp_path / "standard")
    assert code == 1 and "the units of its data are standardised (" in err and "as they were given" in err
