"""What tests of the command line have in common."""

from __future__ import annotations

import pytest
from tiny_cli import Ask, Call, asking, calling
from tiny_sweep import Ended, here

from ancestral.cli import jobs
from ancestral.cli.jobs import Job


@pytest.fixture
def call(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> Call:
    """Runs a command in this process: exit code, standard output and standard error."""
    return calling(capsys, monkeypatch)


@pytest.fixture
def ask(call: Call) -> Ask:
    """What a command that must succeed says with --json."""
    return asking(call)


@pytest.fixture
def started(monkeypatch: pytest.MonkeyPatch) -> list[Job]:
    """Jobs are carried out in this process; those that were."""
    seen = list[Job]()

    def start(job: Job) -> Ended:
        seen.append(job)
        return here(job)

    monkeypatch.setattr(jobs, "start", start)
    monkeypatch.setattr(jobs, "POLL_SECONDS", 0.0)
    return seen
