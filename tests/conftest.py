"""What tests of the command line have in common."""

from __future__ import annotations

import pytest
from tiny_cli import Ask, Call, asking, calling


@pytest.fixture
def call(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> Call:
    """Runs a command in this process: exit code, standard output and standard error."""
    return calling(capsys, monkeypatch)


@pytest.fixture
def ask(call: Call) -> Ask:
    """What a command that must succeed says with --json."""
    return asking(call)
