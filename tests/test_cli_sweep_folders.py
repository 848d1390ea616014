"""Folders of sweeps: which run stands where, what is left to do of it, and whose folder it is."""

from __future__ import annotations

from pathlib import Path

import pytest
from tiny_cli import Ask
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
