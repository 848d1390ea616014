"""Jobs: commands of the command line carried out in processes of their own, several jobs beside one another."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from ancestral import cli
from ancestral.training.interruptions import interruptions

POLL_SECONDS = 0.1


@dataclass(frozen=True, eq=False)
class Job:
    """Commands that one process carries out in turn, up to the first that fails.

    Attributes:
        name: what it is called.
        commands: the words of each.
        log: the file that gets what they say, after what is there already.
        threads: on a CPU.
    """

    name: str
    commands: Sequence[Sequence[str]]
    log: Path
    threads: int


def carry_out(jobs: Sequence[Job], processes: int, ended: Callable[[Job, str | None], None]) -> None:
    """Carry jobs out, so many at the same time; one that fails leaves the others alone.

    Where this is interrupted, so are the jobs: those that train save their runs first.

    Args:
        ended: is told each job that has ended, and why it failed or None.

    Raises:
        KeyboardInterrupt: by Ctrl-C, or by a request to terminate.
    """
    waiting, running = list(jobs), dict[Job, subprocess.Popen[bytes]]()
    with interruptions(KeyboardInterrupt) as asked:
        try:
            while waiting or running:
                while waiting and len(running) < processes and not asked.is_set():
                    job = waiting.pop(0)
                    running[job] = start(job)
                if asked.wait(POLL_SECONDS):
                    raise KeyboardInterrupt
                for job in [job for job, child in running.items() if child.poll() is not None]:
                    ended(job, fault(job, running.pop(job).returncode))
        finally:
            for child in running.values():
                child.terminate()
            for child in running.values():
                child.wait()


def start(job: Job) -> subprocess.Popen[bytes]:
    """The process of a job, in a session of its own, so that Ctrl-C does not reach it twice."""
    job.log.parent.mkdir(parents=True, exist_ok=True)
    words = json.dumps([list(command) for command in job.commands])
    with job.log.open("ab") as log:
        return subprocess.Popen(
            [sys.executable, "-c", f"import sys; from {__name__} import main; sys.exit(main(sys.argv[1]))", words],
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
            env={**os.environ, "OMP_NUM_THREADS": str(job.threads)},
            start_new_session=True,
        )


def fault(job: Job, code: int) -> str | None:
    """Why a job failed that ended with an exit code, in the words of its log; None where it did not fail."""
    if code == 0:
        return None
    said = job.log.read_text(encoding="utf-8", errors="replace").splitlines() if job.log.exists() else []
    named = [line.removeprefix("ancestral: ") for line in said if line.startswith("ancestral: ")]
    if code < 0:
        return f"ended by signal {-code}, as where memory runs out; see {job.log}"
    return named[-1] if named else f"ended with exit code {code}; see {job.log}"


def main(commands: str) -> int:
    """Carry the commands out, given as JSON, up to the first that fails; its exit code, or 0."""
    for words in json.loads(commands):
        sys.argv = ["ancestral", *words]
        print("$", *sys.argv, file=sys.stderr, flush=True)
        if code := cli.main():
            return code
    return 0
