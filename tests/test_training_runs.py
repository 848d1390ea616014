"""Training runs: a stopped run is the same run, a folder holds all of it, and what is wrong is said before time is lost."""

from __future__ import annotations

import csv
import os
import random
import subprocess
import sys
from dataclasses import replace
from math import log
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from tiny_training import DIGITS, QUIET, CtrlC, model_of, same
from torch import Tensor

import ancestral
from ancestral.data import Examples, load_data
from ancestral.hub import Model, describe, load, save
from ancestral.objectives import OBJECTIVES, Batch, Terms, nll
from ancestral.spec import Stage
from ancestral.training import Interrupted, Run, TrainingError, fit, fitting, resume
from ancestral.training.batches import batch_rows
from ancestral.training.callbacks import Records
from ancestral.training.folder import read_checkpoint
from ancestral.training.stages import Planned

# Stopping and going on


TWENTY: dict[str, Any] = {**QUIET, "steps": 20, "log_every": 3, "seed": 4, "data_options": {"limit": 40}}


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Run:
    """A run of three stages that nobody stops."""
    return fit(model_of("agave"), "digits", tmp_path_factory.mktemp("plain") / "run", **TWENTY)


@pytest.mark.parametrize(
    ("objective", "at", "step"), [("auxiliary_elbo", 2, 2), ("nll", 2, 5), ("nll", 7, 10), ("auxiliary_guided", 4, 14)]
)
def test_a_run_that_was_stopped_is_the_same_run(
    objective: str, at: int, step: int, whole: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    stopped = tmp_path / "stopped run"
    with monkeypatch.context() as patch:
        patch.setitem(OBJECTIVES, objective, CtrlC(objective, at))
        with pytest.raises(
            Interrupted, match=f"stopped after step {step} of 20; go on with: .* --resume '.*stopped run'"
        ) as caught:
            fit(model_of("agave"), "digits", stopped, **TWENTY)
    assert caught.value.folder == stopped
    load(stopped)
    torch.manual_seed(99)
    rest = resume(stopped, progress=False)
    assert same(whole.model.state_dict(), rest.model.state_dict())
    states = [read_checkpoint(run.path) for run in (whole, rest) if run.path is not None]
    assert same(states[0]["model"], states[1]["model"])
    for mine, theirs in zip(*(state["optimiser"]["state"].values() for state in states), strict=True):
        assert same(mine, theirs)
    assert [{**row, "seconds": 0} for row in whole.history] == [{**row, "seconds": 0} for row in rest.history]


def test_a_finished_run_has_nothing_left_to_do(tmp_path: Path) -> None:
    whole = fit(model_of(), "digits", tmp_path / "run", steps=3, **QUIET)
    again = resume(tmp_path / "run")
    assert same(whole.model.state_dict(), again.model.state_dict())
    assert (again.steps, again.history) == (3, whole.history)


def test_impatience_keeps_the_last_checkpoint(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(OBJECTIVES, "nll", CtrlC("nll", 5, times=2))
    with pytest.raises(Interrupted, match="stopped at once; go on with") as caught:
        fit(model_of(), DIGITS, tmp_path / "run", steps=9, checkpoint_every=2, **QUIET)
    assert read_checkpoint(tmp_path / "run")["step"] == 4
    assert caught.value.folder == tmp_path / "run"


@pytest.mark.parametrize("settings", [{"steps": 5}, {"minutes": 1.0}])
def test_without_a_folder_nothing_is_saved(settings: dict[str, Any], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(OBJECTIVES, "nll", CtrlC("nll", 2))
    with pytest.raises(Interrupted, match="nothing was saved") as caught:
        fit(model_of(), DIGITS, **settings, **QUIET)
    assert caught.value.folder is None


def test_what_cannot_resume_says_why(tmp_path: Path) -> None:
    folder = tmp_path / "run"
    fit(model_of(), DIGITS, folder, steps=3, **QUIET)  # the name is embedded, but it names all of the digits
    with pytest.raises(TrainingError, match=r"'digits' came as an array or Splits"):
        resume(folder)
    with pytest.raises(ancestral.DataError, match=r"their hash differs.*resume\(folder, data=\.\.\.\)"):
        resume(folder, "digits")
    assert resume(folder, DIGITS, progress=False).steps == 3
    with pytest.raises(ValueError, match=r"keeps this setting.*; what may change is .*threads"):
        resume(folder, DIGITS, seed=1)
    with pytest.raises(ValueError, match=r"steps: .*to train longer.*fit\(load\(folder\), data, steps=\.\.\.\)"):
        resume(folder, DIGITS, steps=9)
    with pytest.raises(FileNotFoundError, match=r"did you mean .*run"):
        resume(tmp_path / "rum")
    checkpoint = folder / "checkpoints" / "last.ckpt"
    whole = checkpoint.read_bytes()
    for size in (0, 7, len(whole) // 2):
        checkpoint.write_bytes(whole[:size])
        with pytest.raises(TrainingError, match=r"last\.ckpt is damaged"):
            resume(folder, DIGITS)
    checkpoint.unlink()
    with pytest.raises(TrainingError, match="nothing to resume"):
        resume(folder, DIGITS)
    save(model_of(), tmp_path / "saved")
    with pytest.raises(TrainingError, match="not a training run"):
        resume(tmp_path / "saved")
    fit(model_of(), replace(DIGITS, name="mine"), tmp_path / "mine", steps=1, **QUIET)
    with pytest.raises(TrainingError, match=r"'mine' came as an array or Splits"):
        resume(tmp_path / "mine")


def test_your_own_network_trains_and_resumes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    made = model_of()
    own = ancestral.build(spec=DIGITS.spec, network=made.network, family=made.family)
    monkeypatch.setitem(OBJECTIVES, "nll", CtrlC("nll", 3))
    with pytest.raises(Interrupted):
        fit(own, DIGITS, tmp_path / "run", steps=6, **QUIET)
    fresh = model_of(seed=1)
    run = resume(tmp_path / "run", DIGITS, ancestral.build(spec=DIGITS.spec, network=fresh.network, family=fresh.family))
    assert same(run.model.state_dict(), fit(model_of(), DIGITS, steps=6, **QUIET).model.state_dict())


# The folder


def test_a_run_folder_holds_all_that_matters(tmp_path: Path) -> None:
    folder = tmp_path / "runs" / "x"
    run = fit(model_of("vae"), DIGITS, folder, steps=12, log_every=5, validate_every=4, **{**QUIET, "tensorboard": True})
    assert sorted(path.name for path in folder.iterdir()) == [
        "checkpoints", "config.json", "metrics.csv", "model.safetensors", "tensorboard",
    ]  # fmt: skip
    loaded = load(folder)
    assert torch.equal(loaded.elbo(DIGITS.test.x).bound, run.model.elbo(DIGITS.test.x).bound)
    entries = describe(folder)
    assert (entries["model"], entries["training"]["batch_size"], entries["stages"][0]["steps"]) == ("vae", 8, 12)
    assert entries["data"]["hash"] == DIGITS.hash
    assert entries["data"]["sizes"] == {"train": 40, "validation": 40, "test": 40}
    rows = list(csv.DictReader((folder / "metrics.csv").read_text().splitlines()))
    assert [(row["split"], row["step"]) for row in rows] == [
        ("validation", "4"), ("train", "5"), ("validation", "8"), ("train", "10"), ("train", "12"), ("validation", "12"),
    ]  # fmt: skip
    assert rows == [{name: str(value) for name, value in row.items()} for row in run.history]
    last = run.history[-1]
    assert last["bits_per_dim"] == pytest.approx((last["distortion"] + last["rate"]) / 64 / log(2))
    assert last["status"] == "bound"
    assert any((folder / "tensorboard").iterdir())


def test_training_rows_are_means_since_the_row_before() -> None:
    records, planned = Records(DIGITS.spec), Planned(Stage("a", "nll"), 1, 100, 10)
    for value in (1.0, 2.0, 6.0):
        records.add({"loss": torch.tensor(value), "nll": torch.tensor(value)})
    records.flush(planned, 3, 1.23456)
    row = {"step": 103, "stage": "a", "split": "train", "loss": 3.0, "nll": 3.0, "status": "exact", "seconds": 1.235}
    assert records.rows == [{**row, "bits_per_dim": pytest.approx(3 / 64 / log(2))}]
    assert (records.sums, records.count) == ({}, 0)


def test_a_figure_far_above_the_best_of_its_stage_is_a_loss() -> None:
    records, first, second = Records(DIGITS.spec), Planned(Stage("a", "nll"), 0, 0, 10), Planned(Stage("b", "nll"), 1, 10, 10)

    def noted(planned: Planned, step: int, nats: float, split: str = "validation") -> int | None:
        found = records.lost(records.note(planned, step, split, {"nll": nats}, 0.0))
        return found and found["step"]

    assert [noted(first, step, nats) for step, nats in enumerate((90.0, 60.0, 80.0, 89.0, 91.0, 400.0, 61.0))] == [
        *(None, None, None, None),
        *(1, 1, None),
    ]
    assert noted(second, 1, 400.0) is None and noted(first, 8, 400.0, "train") is None
    density = Records(replace(DIGITS.spec, levels=None))
    rows = [density.note(first, step, "validation", {"nll": nats}, 0.0) for step, nats in enumerate((-1.0, 40.0, 90.0))]
    assert [density.lost(row) is not None for row in rows] == [False, False, True]  # a bit a dimension, beside half of little


def test_a_run_that_diverges_is_told_so(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    figures = iter([80.0, 500.0])
    monkeypatch.setattr("ancestral.training.session.validate", lambda *_: {"distortion": next(figures), "rate": 1.0})
    fit(model_of("vae"), DIGITS, steps=4, learning_rate=0.25, **QUIET | {"progress": True, "validate_every": 2})
    told = " ".join(capsys.readouterr().err.split())
    assert "far worse than at step 2, as if training had diverged: a learning_rate below 0.25 may help" in told


def test_a_folder_that_is_not_empty_is_refused_or_replaced(tmp_path: Path) -> None:
    folder = tmp_path / "run"
    fit(model_of(), DIGITS, folder, steps=2, **QUIET)
    (folder / "notes.txt").write_text("mine")
    (folder / "report.html").write_text("of the old run")
    with pytest.raises(FileExistsError, match=r"not empty: resume it \(--resume .*\), or replace the run in it \(--force"):
        fit(model_of(), DIGITS, folder, steps=2, **QUIET)
    fit(model_of("vae"), DIGITS, folder, steps=2, overwrite=True, **QUIET)
    assert describe(folder)["model"] == "vae"
    assert sorted(path.name for path in folder.iterdir()) == [
        "checkpoints", "config.json", "metrics.csv", "model.safetensors", "notes.txt",
    ]  # fmt: skip
    other = tmp_path / "other"
    (other / "samples").mkdir(parents=True)
    with pytest.raises(FileExistsError, match="choose another"):
        fit(model_of(), DIGITS, other, steps=2, **QUIET)
    fit(model_of(), DIGITS, other, steps=2, overwrite=True, **QUIET)
    assert (other / "samples").exists()  # it was not a run's


def test_a_target_that_cannot_be_written_is_refused_before_training(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def never(*_: Any, **__: Any) -> None:
        raise AssertionError("training began")

    monkeypatch.setattr(fitting, "_run", never)
    (tmp_path / "file").write_text("x")
    for target in (tmp_path / "file", tmp_path / "file" / "run"):
        with pytest.raises(OSError, match=r"cannot write the run to .*choose another folder or make room"):
            fit(model_of(), DIGITS, target, steps=2, **QUIET)
    monkeypatch.setattr("shutil.disk_usage", lambda path: SimpleNamespace(free=1000))
    with pytest.raises(OSError, match=r"needs about 0\.1 MB, and 0\.0 MB are free"):
        fit(model_of(), DIGITS, tmp_path / "run", steps=2, **QUIET)


# Faults


def broken(at: int, how: str) -> Any:
    """The negative log-likelihood until the batch of step ``at``, whose loss or gradient is not a number."""

    def objective(model: Any, batch: Batch) -> Terms:
        terms = nll(model, batch)
        if batch.step == at and torch.is_grad_enabled():
            bias = model.network.head[1].bias
            wrong = bias.sum() * float("nan") if how == "loss" else (bias - bias.detach()).abs().sqrt().sum()
            return {"loss": terms["loss"] + wrong, "nll": terms["nll"], "extra": wrong}
        return terms

    return objective


@pytest.mark.parametrize(
    ("how", "what"),
    [("loss", "loss is nan and extra is nan"), ("gradient", r"the gradient of network\.head\.1\.bias is not finite")],
)
def test_a_figure_that_is_not_finite_stops_the_run(how: str, what: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(OBJECTIVES, "nll", broken(5, how))
    with pytest.raises(TrainingError, match=f"stage 'likelihood', step 6 of 9: {what}; .* examples .*kept in .*run") as caught:
        fit(model_of(), DIGITS, tmp_path / "run", steps=9, checkpoint_every=2, **QUIET)
    assert list(caught.value.rows) == batch_rows(40, 8, 0, 0, 5)
    kept = read_checkpoint(tmp_path / "run")
    assert kept["step"] == 4
    assert all(value.isfinite().all() for value in kept["model"].values())


def test_out_of_memory_names_the_batch_that_fits(monkeypatch: pytest.MonkeyPatch) -> None:
    def hungry(model: Model, batch: Batch) -> Terms:
        if len(batch.x) > 5:
            raise RuntimeError("[enforce fail] DefaultCPUAllocator: not enough memory: you tried to allocate 9 bytes.")
        return nll(model, batch)

    monkeypatch.setitem(OBJECTIVES, "nll", hungry)
    model = model_of()
    with pytest.raises(TrainingError, match="out of memory with batch_size=20; 5 fits: set batch_size=5"):
        fit(model, DIGITS, steps=3, **{**QUIET, "batch_size": 20})
    assert all(parameter.grad is None for parameter in model.parameters())


def test_other_errors_pass_through(monkeypatch: pytest.MonkeyPatch) -> None:
    def wrong(model: Model, batch: Batch) -> Terms:
        raise RuntimeError("of your own")

    monkeypatch.setitem(OBJECTIVES, "nll", wrong)
    with pytest.raises(RuntimeError, match=r"^of your own$"):
        fit(model_of(), DIGITS, steps=3, **QUIET)


def test_data_that_do_not_fit_the_model_are_refused() -> None:
    other = load_data("digits", binarize="threshold", limit=40)
    with pytest.raises(ancestral.DataError, match=r"levels is 2 where the model has 17$"):
        fit(model_of(), other, steps=2, **QUIET)
    with pytest.raises(ancestral.DataError, match=r"levels is 256 .*data_options=\{'levels': 17\}"):
        fit(model_of(), DIGITS.train.x, steps=2, **QUIET)
    unlabelled = load_data("digits", limit=40, labels=False)
    with pytest.raises(ancestral.DataError, match="classes is None where the model has 10"):
        fit(model_of(conditional=True), unlabelled, steps=2, **QUIET)
    bare = replace(DIGITS, train=Examples(DIGITS.train.x))
    with pytest.raises(ancestral.DataError, match=r"no labels: build it with conditional=False"):
        fit(model_of(conditional=True), bare, steps=2, **QUIET)
    fit(model_of(), unlabelled, steps=1, **QUIET)


def test_the_source_of_splits_is_named_only_where_it_gives_them_again(tmp_path: Path) -> None:
    for options, source in (({}, "digits"), ({"binarize": "threshold"}, None)):
        data = load_data("digits", **options)
        run = fit(model_of(data=data), data, tmp_path / str(source), steps=1, **QUIET)
        assert describe(run.path)["data"]["source"] == source  # type: ignore[arg-type]


@pytest.mark.slow
def test_two_processes_clip_alike(tmp_path: Path) -> None:
    """Their examples differ in length, and they must not."""
    script = tmp_path / "train.py"
    script.write_text(
        "import os, sys, torch, ancestral\n"
        "data = ancestral.data(['ab' * (1 + 9 * (i % 2)) for i in range(30)], notation='characters')\n"
        "torch.manual_seed(0)\n"
        "model = ancestral.build('transformer', data.spec, preset='tiny', context=32)\n"
        "ancestral.fit(model, data, steps=4, batch_size=2, clip=1e-4, progress=False)\n"
        "torch.save(model.state_dict(), f'{sys.argv[1]}/{os.environ[\"RANK\"]}.pt')\n"
    )
    port = str(random.randint(20000, 40000))
    launcher = [sys.executable, "-m", "torch.distributed.run", "--nproc-per-node", "2", "--master-port", port]
    root = str(Path(ancestral.__file__).parent.parent)
    subprocess.run([*launcher, str(script), str(tmp_path)], check=True, env={**os.environ, "PYTHONPATH": root})
    one, other = (torch.load(tmp_path / f"{rank}.pt") for rank in range(2))
    for name, value in one.items():
        torch.testing.assert_close(value, other[name], rtol=0, atol=0)


@pytest.mark.slow
def test_two_processes_make_the_same_run(tmp_path: Path) -> None:
    script = tmp_path / "train.py"
    script.write_text(
        "import sys, torch, ancestral\n"
        "torch.set_default_dtype(torch.float64)\n"
        "data = ancestral.data('digits')\n"
        "model = ancestral.build('agave', data.spec, preset='tiny')\n"
        "model.load_state_dict(ancestral.load(sys.argv[1]).state_dict())\n"
        "ancestral.fit(model, data, sys.argv[2], steps=9, batch_size=8, progress=False)\n"
    )
    data = load_data("digits")
    model = model_of("agave", data)
    save(model, tmp_path / "start")
    launcher = [
        sys.executable,
        "-m",
        "torch.distributed.run",
        "--nproc-per-node",
        "2",
        "--master-port",
        str(random.randint(20000, 40000)),
    ]
    root = str(Path(ancestral.__file__).parent.parent)
    words = [*launcher, str(script), str(tmp_path / "start"), str(tmp_path / "run")]
    subprocess.run(words, check=True, env={**os.environ, "PYTHONPATH": root})
    alone: dict[str, Tensor] = fit(model, data, steps=9, **QUIET).model.state_dict()
    for name, value in load(tmp_path / "run").state_dict().items():
        torch.testing.assert_close(value, alone[name], rtol=0, atol=1e-12)
