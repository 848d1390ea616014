"""The help of every command, as the command line itself gives it."""

from __future__ import annotations

import os
from contextlib import redirect_stdout
from io import StringIO

from ancestral.cli.parsing import NAMES, parse


def help_text(*words: str) -> str:
    """What ``ancestral WORDS --help`` prints on a terminal of 92 columns without colours."""
    before, out = dict(os.environ), StringIO()
    os.environ.update(COLUMNS="92", NO_COLOR="1", TERM="dumb")
    try:
        with redirect_stdout(out):
            parse([*words, "--help"])
    except SystemExit:
        pass
    finally:
        os.environ.clear()
        os.environ.update(before)
    return "\n".join(line.rstrip() for line in out.getvalue().strip().splitlines())


def commands() -> str:
    """A section for every command."""
    return "\n".join(f"## ancestral {name}\n\n```text\n{help_text(name)}\n```\n" for name in NAMES)
