"""Jobs of sweeps carried out in the process of the tests."""

from __future__ import annotations

import json
import sys
from contextlib import redirect_stderr
from dataclasses import dataclass

from ancestral.cli import jobs
from ancestral.cli.jobs import Job

TINY = ("--data", "digits", "--preset", "tiny", "--limit", "24", "--batch-size", "8", "--no-tensorboard", "--no-progress")
JUDGED = ("--importance-samples", "2", "--subset", "6")


@dataclass
class Ended:
    """A process that has ended."""

    returncode: int

    def poll(self) -> int:
        return self.returncode

    def terminate(self) -> None: ...

    def wait(self) -> None: ...


def here(job: Job) -> Ended:
    """Carries a job out in this process."""
    words = sys.argv
    job.log.parent.mkdir(parents=True, exist_ok=True)
    with job.log.open("a", encoding="utf-8") as log, redirect_stderr(log):
        code = jobs.main(json.dumps([list(command) for command in job.commands]))
    sys.argv = words
    return Ended(code)
