"""``bench`` and ``warmup``: how fast a model is here, and the compiler's work done beforehand."""

from __future__ import annotations

import time
from dataclasses import asdict

from ancestral import bench as benchmarks
from ancestral.cli.commands import Answer, Bench, Warmup
from ancestral.cli.runs import opened, said, table

HEAD = ("what", "batch", "ms", "an example", "x forward")


def bench(command: Bench) -> Answer:
    """Time the forward pass, every way of sampling and coding of a model, in one run."""
    model = opened(command, command.run)
    timings = benchmarks.bench(model, command.batch_sizes, command.repeats, said)
    rows = [(each.what, str(each.batch), *(f"{value:,.2f}" for value in _columns(each))) for each in timings]
    lines = table([HEAD, *rows])
    note = f"CPU time, medians of {command.repeats}"
    if any("recomputation" in each.what for each in timings):
        note += "; recomputation is reckoned up from its first symbols"
    return Answer({"run": command.run, "timings": [asdict(each) for each in timings]}, [*lines, note])


def _columns(each: benchmarks.Timing) -> tuple[float, float, float]:
    return 1e3 * each.seconds, 1e3 * each.seconds / each.batch, each.ratio


def warmup(command: Warmup) -> Answer:
    """Compile the native engine, which later processes then load."""
    from ancestral.walking.native.compiling import warmup as compile_now  # brings numba

    since = time.perf_counter()
    compile_now()
    seconds = time.perf_counter() - since
    return Answer({"seconds": seconds}, [f"the native engine is ready ({seconds:.1f} s)"])
