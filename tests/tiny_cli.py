"""Commands run in the process of the tests."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from typing import Any

import pytest

from ancestral import cli

Call = Callable[..., tuple[int, str, str]]
Ask = Callable[..., Any]


def calling(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> Call:
    """What runs a command: exit code, standard output and standard error."""
    monkeypatch.setenv("COLUMNS", "120")
    monkeypatch.setattr(cli, "keep_memory", lambda: None)  # the other tests' process stays as it is

    def run(*words: object) -> tuple[int, str, str]:
        monkeypatch.setattr(sys, "argv", ["ancestral", *map(str, words)])
        capsys.readouterr()
        try:
            code = cli.main()
        except SystemExit as stop:
            code = int(stop.code or 0)
        captured = capsys.readouterr()
        return code, captured.out, captured.err

    return run


def asking(call: Call) -> Ask:
    """What runs a command that must succeed, with --json: one object, and nothing beside it."""

    def run(*words: object) -> Any:
        code, out, err = call(*words, "--json")
        assert code == 0, err
        assert out.count("\n") == 1
        return json.loads(out)

    return run
