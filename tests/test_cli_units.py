"""Real-valued data on the command line: what is read is converted to a run's units, what is written is converted back."""

from __future__ import annotations

import csv
import json
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from tiny_cli import Ask, Call

import ancestral
from ancestral import cli
from ancestral.cli.commands import Train
from ancestral.cli.parsing import parse
from ancestral.data import load_data
from ancestral.data.splits import Units
from ancestral.evaluation import score
from ancestral.hub import LoadError, describe, load, save, units_of
from ancestral.report.remake import commands
from ancestral.sampling import complete
from ancestral.spec import DataSpec
from ancestral.symbols import DataError

QUIET = ("--preset", "tiny", "--batch-size", "8", "--steps", "3", "--no-tensorboard", "--no-progress")


def mixed_table(n: int = 60) -> np.ndarray:
    """A bit, one of five, and two real values of very different sizes."""
    rng = np.random.default_rng(3)
    return np.stack([rng.integers(0, 2, n), rng.integers(0, 5, n), rng.normal(900, 40, n), rng.normal(0, 1e-3, n)], 1)


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Runs on standardised, mixed and dequantised tables, with the files of these tables."""
    folder = tmp_path_factory.mktemp("units")
    torch.set_default_dtype(torch.float64)
    np.save(folder / "mixed.npy", mixed_table())
    np.save(folder / "whole.npy", np.random.default_rng(4).integers(0, 17, (60, 5)))
    made = {
        "real": ["--data", "measurements"],
        "mixed": ["--data", str(folder / "mixed.npy"), "--columns", "2", "5", "-", "0", "--standardize"],
        "noisy": ["--data", str(folder / "whole.npy"), "--dequantize", "--standardize"],
    }
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(cli, "keep_memory", lambda: None)
        for name, words in made.items():
            patch.setattr(sys, "argv", ["ancestral", "train", "rnade", *words, *QUIET, "--out", str(folder / name)])
            assert cli.main() == 0
    return folder


def originals(name: str, home: Path, part: str = "test") -> np.ndarray:
    """The rows of a set in the units that they came in, as the loader alone cuts them."""
    if name == "real":
        data = ancestral.data("measurements")
        assert data.units is not None
        return data.units.restore(getattr(data, part).x.double()).numpy()
    data = load_data(home / f"{'whole' if name == 'noisy' else name}.npy")
    return getattr(data, part).x.double().numpy()


# ---- the record


@pytest.mark.parametrize("name", ["real", "mixed", "noisy"])
def test_a_run_remembers_units_and_how_data_were_read(name: str, home: Path) -> None:
    config, units = describe(home / name), units_of(home / name)
    data = load_data(config["data"]["source"], **config["data"]["options"])
    assert units is not None and data.units is not None and units.same(data.units)
    assert data.hash == config["data"]["hash"]
    train = originals(name, home, "train")
    if name == "mixed":
        assert config["data"]["options"] == {"columns": [2, 5, None, None], "standardize": True}
        assert units.mean[:2].tolist() == [0, 0] and units.scale[:2].tolist() == [1, 1]
        assert units.mean[2:].numpy() == pytest.approx(train[:, 2:].mean(0), rel=1e-4, abs=1e-9)
    if name == "noisy":
        assert config["data"]["options"] == {"dequantize": True, "standardize": True} and units.dequantized
    [made, _] = commands(home / name, config)
    command = parse(made.split()[1:])
    assert isinstance(command, Train) and command.new is not None
    assert command.new.reading.options() == config["data"]["options"]


def test_units_that_are_damaged_are_named(home: Path, tmp_path: Path) -> None:
    record = {**describe(home / "real")["data"], "units": {"mean": [0.0]}}
    save(load(home / "real"), tmp_path, extra={"data": record})
    with pytest.raises(LoadError, match="units of the data are damaged"):
        units_of(tmp_path)


def test_data_are_read_in_units_of_other_data() -> None:
    data, rows = ancestral.data("measurements"), originals("real", Path())
    assert data.units is not None
    again = load_data(rows, units=data.units)
    assert again.units is data.units and again.test.x.shape[1:] == (30,)
    assert torch.equal(load_data("measurements", units=data.units).test.x, data.test.x)
    shifted = Units(data.units.mean + data.units.scale, data.units.scale)
    torch.testing.assert_close(load_data("measurements", units=shifted).test.x, data.test.x - 1, rtol=0, atol=1e-5)
    with pytest.raises(DataError, match="leave standardize and dequantize out"):
        load_data(rows, units=data.units, standardize=True)
    with pytest.raises(DataError, match="units are those of examples of"):
        load_data(rows[:, :3], units=data.units)


def test_units_of_some_sites_sum_to_those_of_all() -> None:
    units = Units(torch.zeros(3), torch.tensor([2.0, 0.5, 10.0]))
    known = torch.tensor([True, False, True])
    assert units.nats_of(known) == pytest.approx(np.log(20)) and units.nats_of(~known) == pytest.approx(np.log(0.5))
    again = Units.from_dict(json.loads(json.dumps(units.to_dict())))
    assert again.same(units) and not again.same(Units(units.mean, units.scale, True))


# ---- the commands


@pytest.mark.parametrize("name", ["real", "mixed", "noisy"])
def test_score_and_evaluate_agree_on_test_items_and_on_files(name: str, home: Path, ask: Ask, call: Call, tmp_path: Path) -> None:
    rows = originals(name, home)
    np.save(tmp_path / "rows.npy", rows.astype(np.int64) if name == "noisy" else rows)
    found = ask("evaluate", home / name)
    own = ask("score", home / name, "--out", tmp_path / "own.csv")
    read = ask("score", home / name, tmp_path / "rows.npy", "--out", tmp_path / "read.csv")
    assert own["nats"] == pytest.approx(found["nats"], rel=1e-6)
    assert read["nats"] == pytest.approx(found["nats"], rel=1e-5)
    unit = "nats" if name == "noisy" else "nats of a density in the original units"
    assert (own["unit"], own["status"]) == (unit, found["status"]) and read["items"] == found["examples"]
    with (tmp_path / "read.csv").open() as file:
        assert {row["unit"] for row in csv.DictReader(file)} == {unit}
    assert f"{unit} ({found['status']})" in call("score", home / name)[1]


def test_a_density_in_the_original_units_is_that_of_the_change_of_variables(home: Path, ask: Ask, tmp_path: Path) -> None:
    rows, units = originals("real", home)[:4], units_of(home / "real")
    assert units is not None
    np.save(tmp_path / "rows.npy", rows)
    model = load(home / "real")
    inside = -model.log_prob(units.convert(torch.from_numpy(rows)).to(model.anchor))  # type: ignore[operator]
    expected = inside.detach().double() + units.scale.log().sum()
    assert ask("score", home / "real", tmp_path / "rows.npy")["nats"] == pytest.approx(float(expected.mean()), rel=1e-6)


@pytest.mark.parametrize("name", ["real", "mixed"])
def test_evaluate_converts_a_raw_table(name: str, home: Path, ask: Ask, tmp_path: Path) -> None:
    np.savez(tmp_path / "raw.npz", **{f"x_{part}": originals(name, home, part) for part in ("train", "validation", "test")})
    raw = ask("evaluate", home / name, "--data", tmp_path / "raw.npz")
    assert raw["nats"] == pytest.approx(ask("evaluate", home / name)["nats"], rel=1e-5)


@pytest.mark.parametrize("name", ["real", "mixed", "noisy"])
def test_samples_have_the_original_units(name: str, home: Path, ask: Ask, tmp_path: Path) -> None:
    ask("sample", home / name, "-n", "64", "--out", tmp_path / "x.npy")
    x, train, units = np.load(tmp_path / "x.npy"), originals(name, home, "train"), units_of(home / name)
    assert units is not None and x.shape == (64, train.shape[1])
    inside = units.convert(torch.from_numpy(x))[:, -1]
    assert abs(inside.mean()) < 2 and 0.1 < inside.std() < 10  # an untrained model is near its own units' zero
    if name == "mixed":
        assert np.isin(x[:, 0], (0, 1)).all() and np.isin(x[:, 1], range(5)).all() and abs(x[:, 2].mean() - 900) < 100
    if name == "noisy":
        assert np.array_equal(x, np.floor(x))


@pytest.mark.parametrize("name", ["real", "mixed", "noisy"])
def test_complete_keeps_raw_values_and_converts_the_evidence(name: str, home: Path, ask: Ask, tmp_path: Path) -> None:
    rows, units, model = originals(name, home)[:3], units_of(home / name), load(home / name)
    known = np.arange(rows.shape[1]) < 3
    np.save(tmp_path / "rows.npy", rows.astype(np.int64) if name == "noisy" else rows)
    np.save(tmp_path / "known.npy", known)
    told = ask(
        "complete", home / name, tmp_path / "rows.npy", "--known", tmp_path / "known.npy", "-n", "2", "--out", tmp_path / "x.npy"
    )
    done = np.load(tmp_path / "x.npy")
    assert np.allclose(done[:, :3], rows.repeat(2, 0)[:, :3], rtol=1e-12, atol=1e-15)
    assert units is not None
    if name != "noisy":  # whose noise is not known here
        inside = complete(model, units.convert(torch.from_numpy(rows)).to(model.anchor), torch.from_numpy(known))
        expected = inside.log_evidence.double() - units.scale[:3].log().sum()
        assert told["log_evidence"] == pytest.approx(expected.tolist(), rel=1e-5)


def test_evidence_of_everything_is_the_score(home: Path, ask: Ask, tmp_path: Path) -> None:
    np.save(tmp_path / "rows.npy", originals("mixed", home)[:3])
    np.save(tmp_path / "known.npy", np.ones(4, bool))
    told = ask("complete", home / "mixed", tmp_path / "rows.npy", "--known", tmp_path / "known.npy", "-n", "1")
    assert -np.mean(told["log_evidence"]) == pytest.approx(ask("score", home / "mixed", tmp_path / "rows.npy")["nats"], rel=1e-6)


def test_training_says_that_bits_are_those_of_a_density(home: Path, call: Call, tmp_path: Path) -> None:
    words = ("train", "rnade", "--data", "measurements", *QUIET[:-1], "--limit", "20", "--out", tmp_path / "run")
    code, out, err = call(*words)
    assert code == 0 and "bits/dim of a density" in out and "bits/dim of a density" in err
    assert "of a density" not in call("train", "nade", "--data", home / "whole.npy", *QUIET, "--out", tmp_path / "nade")[1]


def test_resume_reads_the_data_alike(home: Path, ask: Ask) -> None:
    assert ask("train", "--resume", home / "mixed")["steps"] == 3


# ---- faults


@pytest.mark.parametrize(
    ("words", "reason"),
    [
        ("sample real --scale 2", "--scale: for pictures, and this model is of vectors of 30 values"),
        ("sample real --columns 4 --with-image", "--columns, --with-image: for pictures"),
        ("sample real --size 4 4", "--size: for pictures"),
        ("complete real --known known.npy --size 8", "--size: for pictures"),
        ("complete real --known known.npy --scale 8", "--scale: for pictures"),
        ("sample real --temperature 0.7", "--temperature 0.7: for probabilities of symbols"),
        ("sample real --temperature 0 --log-prob", "leave one of the two out"),
        ("sample mixed --top-k 3", "--top-k: for probabilities of symbols"),
        ("complete real --known known.npy --top-p 0.5", "take --temperature 0 for the most probable value"),
        ("sample nade --columns 4", "this model is of vectors of 5 values"),
        ("score real huge.npy", "likely in other units"),
        ("evaluate real --data huge.npy", "likely in other units"),
        ("evaluate real --data mixed.npy", "units are those of examples of (30,)"),
        ("train rnade --data huge.npy --out new/run --steps 4", "standardise the data (--standardize"),
        ("train rnade --data huge.npy --out new/run --minutes 0.01", "standardise the data (--standardize"),
        ("train rnade --data mixed.npy --columns 2 5 --out new/run", "are for tables of so many columns"),
    ],
)
def test_faults_are_named(
    words: str, reason: str, home: Path, call: Call, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("real", "mixed", "mixed.npy"):
        (tmp_path / name).symlink_to(home / name)
    if "nade" in words.split():
        save(ancestral.build("nade", DataSpec("vector", (5,), levels=2), preset="tiny"), tmp_path / "nade")
    np.save(tmp_path / "known.npy", np.arange(30) < 3)
    np.save(tmp_path / "huge.npy", 1e25 * (1 + np.arange(600.0).reshape(20, 30)))
    monkeypatch.chdir(tmp_path)
    extra = ("--preset", "tiny", "--no-tensorboard") if words.startswith("train") else ()
    code, out, err = call(*words.split(), *extra)
    assert (code, out) == (1, "")
    said = err.splitlines()[-1]
    assert reason in said and "Traceback" not in err
    if "--minutes" in words or "--columns" in words:
        assert not (tmp_path / "new").exists()


def test_the_mode_of_a_density_can_be_drawn(home: Path, ask: Ask, tmp_path: Path) -> None:
    ask("sample", home / "real", "-n", "2", "--temperature", "0", "--out", tmp_path / "x.npy")
    x = np.load(tmp_path / "x.npy")
    assert np.array_equal(x[0], x[1])


def test_costs_of_whole_numbers_that_are_not_finite_are_refused() -> None:
    model = ancestral.build("nade", DataSpec("vector", (5,), levels=2), preset="tiny")
    with torch.no_grad():
        next(model.parameters()).fill_(float("nan"))
    with pytest.raises(DataError, match=r"first row 0: .*probability 0, or its weights are not finite"):
        score(model, torch.ones(3, 5, dtype=torch.long))
    with pytest.raises(DataError, match="weights are not finite"):
        ancestral.evaluate(model, torch.ones(3, 5, dtype=torch.long))
