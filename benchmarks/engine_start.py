"""How long does the native engine take to be there: compiled for the first time on a machine, and in later processes?

Each figure is the wall time of ``warmup`` in a process of its own, import of numba included, for one kind of numbers.

    python benchmarks/engine_start.py
"""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
from pathlib import Path
from statistics import median

from record import Record

START = """
import sys, time, torch
since = time.perf_counter()
from ancestral.walking.native.compiling import warmup
warmup(sys.argv[1] == "exact", rare=False, tokens=False)
print(time.perf_counter() - since)
"""


def seconds(kind: str, cache: str) -> float:
    command = [sys.executable, "-c", START, kind]
    return float(subprocess.run(command, env={**os.environ, "NUMBA_CACHE_DIR": cache}, stdout=subprocess.PIPE, check=True).stdout)


def main() -> None:
    record = Record(Path(__file__).parent / "results" / "engine_start.json", __doc__.splitlines()[0])
    for kind in ("float", "exact"):
        with tempfile.TemporaryDirectory() as cache:
            first = seconds(kind, cache)
            later = median(seconds(kind, cache) for _ in range(5))
        record.add(kind, {"first_s": round(first, 2), "later_s": round(later, 2)})


if __name__ == "__main__":
    main()
