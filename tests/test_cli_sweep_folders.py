"""Folders of sweeps: which run stands where, what is left to do of it, and whose folder it is."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from tiny_cli import Ask, Call
from tiny_sweep import JUDGED, TINY

from ancestral.cli.jobs import Job
from ancestral.training.config import TrainingConfig

MADE = ("sweep", "made", *TINY, *JUDGED, "--steps", "2")


@pytest.fixture
def folder(tmp_path: Path, started: list[Job], ask: Ask) -> Path:
    """The folder of a sweep with one value of one setting."""
    ask(*MADE, "--hidden", "8", "--out", tmp_path / "s")
    started.clear()
    return tmp_path / "s"


def test_a_setting_with_one_value_may_get_more(folder: Path, started: list[Job], ask: Ask) -> None:
    told = ask(*MADE, "--hidden", "8", "16", "--out", folder)
    assert [job.name for job in started] == ["hidden=16,seed=0"]
    assert [(trial["run"], trial["values"]) for trial in told["trials"]] == [
        ("seed=0", {"hidden": 8}),
        ("hidden=16,seed=0", {"hidden": 16}),
    ]
    assert "--out " + str(folder / "seed=0") in told["trials"][0]["command"]
    started.clear()
    told = ask(*MADE, "--hidden", "16", "--out", folder)  # and fewer
    assert not started and [trial["run"] for trial in told["trials"]] == ["hidden=16,seed=0"]
    usual = TrainingConfig().learning_rate
    ask(*MADE, "--hidden", "8", "16", "--learning-rate", "0.1", usual, "--out", folder)
    assert [job.name for job in started] == [f"hidden={hidden},learning_rate=0.1,seed=0" for hidden in (8, 16)]
    assert len(list(folder.glob("*/config.json"))) == 4


def test_a_run_that_is_damaged_is_passed_over(folder: Path, started: list[Job], ask: Ask) -> None:
    (folder / "seed=0" / "config.json").write_text("{")
    ask(*MADE, "--hidden", "8", "16", "--out", folder)
    assert [job.name for job in started] == ["hidden=8,seed=0", "hidden=16,seed=0"]


def test_runs_with_other_weights_to_begin_with_are_others(folder: Path, started: list[Job], ask: Ask) -> None:
    ask(*MADE, "--hidden", "8", "--steps", "2", "3", "--from", folder / "seed=0", "--out", folder)
    assert [job.name for job in started] == ["steps=2,seed=0", "steps=3,seed=0"]


@pytest.mark.parametrize(
    ("words", "there"),
    [
        (("sweep", "vae", *TINY, *JUDGED, "--beta", "1", "2", "--steps", "2"), "a sweep of made on digits"),
        ((*MADE, "--levels", "4", "--hidden", "16", "32"), "a sweep of made on digits"),
    ],
)
def test_a_sweep_is_not_replaced_by_another(
    words: tuple[str, ...], there: str, folder: Path, started: list[Job], call: Call
) -> None:
    before = {path: path.read_bytes() for path in folder.glob("sweep.*")}
    for dry in ((), ("--dry-run",)):
        code, out, err = call(*words, *dry, "--out", folder)
        assert (code, out) == (1, "") and there in err and "--out" in err and "--force" in err
    assert not started and len(before) == 4 and before == {path: path.read_bytes() for path in folder.glob("sweep.*")}


def test_a_sweep_is_replaced_by_force_or_where_it_cannot_be_read(folder: Path, started: list[Job], ask: Ask) -> None:
    words = ("sweep", "gated-pixelcnn", *TINY, *JUDGED, "--steps", "1", "2")
    ask(*words, "--out", folder, "--force")
    assert json.loads((folder / "sweep.json").read_text())["model"] == "gated-pixelcnn" and len(started) == 2
    (folder / "sweep.json").write_text("{")
    assert ask(*MADE, "--hidden", "8", "--out", folder)["model"] == "made"


def test_a_dry_run_says_what_is_left_to_do(folder: Path, started: list[Job], ask: Ask, call: Call) -> None:
    words = (*MADE, "--hidden", "8", "16", "--out", folder, "--dry-run")
    train, judge = call(*words)[1].splitlines()
    assert train.startswith("ancestral train made") and "hidden=16,seed=0" in train and "--hidden 16" in train
    assert judge.startswith("ancestral evaluate") and "hidden=16,seed=0" in judge and "--importance-samples 2" in judge
    assert [len(run["todo"]) for run in ask(*words)["runs"]] == [0, 2]
    done = (*MADE, "--hidden", "8", "--out", folder, "--dry-run")
    code, out, err = call(*done)
    assert (code, out.strip()) == (0, "") and "all 1 runs are there" in err
    (folder / "seed=0" / "evaluation.json").unlink()
    [line] = call(*done)[1].splitlines()
    assert line.startswith(f"ancestral evaluate {folder / 'seed=0'} ") and not started


def test_codes_need_no_importance_samples(tmp_path: Path, started: list[Job], ask: Ask) -> None:
    words = ("sweep", "vq-vae", *TINY, *JUDGED, "--steps", "2", "--out", tmp_path / "s")
    ask(*words)
    assert len(started) == 1 and [run["todo"] for run in ask(*words, "--dry-run")["runs"]] == [[]]


@pytest.mark.parametrize("force", [(), ("--force",)])
def test_runs_of_one_sweep_never_share_a_folder(force: tuple[str, ...], folder: Path, started: list[Job], ask: Ask) -> None:
    ask(*MADE, "--hidden", "8", "--batch-size", "500", "--out", folder, "--force")  # as many as there are examples
    started.clear()
    told = ask(*MADE, "--hidden", "8", "--batch-size", "600", "700", "--out", folder, *force)
    names = [trial["run"] for trial in told["trials"]]
    assert len(set(names)) == 2 and len({job.name for job in started}) == len(started) == (2 if force else 1)
