"""How a recorded figure is written down: with its command, seed, budget, machine and date, a row at a time."""

from __future__ import annotations

import json
import os
import platform
import shlex
import sys
import time
from datetime import date
from pathlib import Path
from typing import Any

import torch


def machine() -> str:
    """The kind of machine, in words."""
    name = platform.processor() or platform.machine()
    for line in Path("/proc/cpuinfo").read_text().splitlines() if Path("/proc/cpuinfo").exists() else ():
        if line.startswith("model name"):
            name = line.split(":", 1)[1].strip()
            break
    return f"{name}, {os.cpu_count()} CPUs, {torch.get_num_threads()} thread, PyTorch {torch.__version__}"


def command() -> str:
    """The command line that was given; where files lie on this machine is nobody else's business."""
    words = [f"DATA/{Path(word).name}" if Path(word).is_absolute() else word for word in sys.argv[1:]]
    return shlex.join(["python", f"benchmarks/{Path(sys.argv[0]).name}", *words])


class Record:
    """A JSON file of rows, each with a key; a row that is there already need not be run again."""

    def __init__(self, path: Path, question: str) -> None:
        self.path = path
        self.content: dict[str, Any] = {"question": question, "rows": {}}
        if path.exists():
            self.content = json.loads(path.read_text())

    def __contains__(self, key: str) -> bool:
        return key in self.content["rows"]

    def add(self, key: str, row: dict[str, Any]) -> None:
        """Write a row, with the command line that asked for it; the file appears whole."""
        stamp = {"command": command(), "machine": machine(), "date": date.today().isoformat()}
        if self.path.exists():  # another process may have added rows meanwhile
            self.content["rows"] |= json.loads(self.path.read_text())["rows"]
        self.content["rows"][key] = row | stamp
        self.path.parent.mkdir(parents=True, exist_ok=True)
        temporary = self.path.with_suffix(f".{os.getpid()}.tmp")
        temporary.write_text(json.dumps(self.content, indent=1) + "\n")
        os.replace(temporary, self.path)
        print(f"{key}: {json.dumps(row)}", file=sys.stderr, flush=True)


def cpu_minutes(since: float) -> float:
    """CPU-minutes, user and system of all threads, since a reading of ``time.process_time()``."""
    return round((time.process_time() - since) / 60, 2)
