"""The command line. ``ancestral --help`` lists the commands; each is declared in ``commands`` and done elsewhere.

Exit codes: 0 done, 1 a fault that is named on standard error, 2 wrong usage, 130 interrupted. With ``--json`` standard output
carries one JSON object and nothing else.
"""

from __future__ import annotations

import ctypes
import json
import math
import os
import sys
import traceback
from collections.abc import Mapping
from contextlib import redirect_stdout
from importlib import import_module
from typing import Any

from ancestral.cli.commands import Answer, Command
from ancestral.cli.homes import HOMES
from ancestral.cli.parsing import parse


def main() -> int:
    """Run the command that ``sys.argv`` asks for; the exit code.

    Raises:
        SystemExit: 2 after wrong usage, 0 after help.
    """
    command = parse(sys.argv[1:])
    keep_memory()
    out = sys.stdout
    try:
        with redirect_stdout(sys.stderr):  # whatever a library prints, standard output is for the answer
            answer = perform(command)
            for piece in answer.pieces:
                out.write(piece)
                out.flush()
            if command.json or answer.lines:
                said = json.dumps(plain(answer.values), ensure_ascii=False) if command.json else "\n".join(answer.lines)
                print(said, file=out, flush=True)
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), out.fileno())  # who read it has had enough, and Python would flush once more
        return 0
    except (Exception, KeyboardInterrupt) as error:
        return _fault(error, command.debug)
    return answer.code


def perform(command: Command) -> Answer:
    """Do what a command says."""
    module, function = HOMES[type(command)].split(":")
    answer: Answer = getattr(import_module(module), function)(command)
    return answer


def _fault(error: BaseException, debug: bool) -> int:
    """Say what went wrong; the exit code. Errors that neither we nor the system named are faults of the program: they show."""
    interrupted = isinstance(error, KeyboardInterrupt) or type(error).__name__ == "Interrupted"
    memory = type(error).__name__ == "OutOfMemoryError"
    named = isinstance(error, (ValueError, OSError)) or type(error).__module__.startswith("ancestral.")
    if debug or not (interrupted or memory or named):
        traceback.print_exception(error, file=sys.stderr)
    message = " ".join(str(error).split()) or ("interrupted" if interrupted else type(error).__name__)
    if memory:
        message = f"the device ran out of memory: take fewer at once (--batch-size) or another device ({message})"
    elif isinstance(error, FileNotFoundError) and error.filename is not None:
        message = f"there is no {error.filename}: see to its name and to the folder it is to be in"
    elif isinstance(error, OSError) and error.filename is not None:
        message = f"cannot use {error.filename} ({error.strerror}): choose another place, or see to its permissions"
    print(f"ancestral: {message}", file=sys.stderr)
    return 130 if interrupted else 1


def plain(value: Any) -> Any:
    """A value as JSON has it: paths as text, and null where a number is not finite."""
    if isinstance(value, Mapping):
        return {str(key): plain(part) for key, part in value.items()}
    if isinstance(value, (list, tuple)):
        return [plain(part) for part in value]
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    return os.fspath(value) if isinstance(value, os.PathLike) else value


def keep_memory() -> None:
    """Let glibc keep freed memory instead of giving it back to Linux.

    Training small convolutions allocates and frees the same large buffers in every step. By default each of them is mapped
    anew, and a good part of the time goes into page faults.
    """
    settings = {"MALLOC_MMAP_MAX_": (-4, 0), "MALLOC_TRIM_THRESHOLD_": (-1, 2**31 - 1), "MALLOC_TOP_PAD_": (-2, 2**28)}
    if not sys.platform.startswith("linux") or any(name in os.environ for name in settings):
        return
    library = ctypes.CDLL(None)
    if hasattr(library, "mallopt"):  # other C libraries than glibc may have none
        for parameter, value in settings.values():
            library.mallopt(parameter, value)
