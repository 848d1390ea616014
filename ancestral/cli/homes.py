"""Which function does the work of a command, as "module:function"; the module is imported only then, because it brings torch."""

from __future__ import annotations

from ancestral.cli.commands import (
    Bench,
    Command,
    Complete,
    Compress,
    Data,
    Decompress,
    Evaluate,
    Import,
    Info,
    Inspect,
    Interpolate,
    Latents,
    Models,
    Quality,
    Reconstruct,
    Report,
    Sample,
    Score,
    Train,
    Verify,
    Warmup,
)
from ancestral.cli.several import Compare, Sweep

HOMES: dict[type[Command], str] = {
    Train: "ancestral.cli.train:train",
    Evaluate: "ancestral.cli.measure:evaluate",
    Latents: "ancestral.cli.judge:latents",
    Quality: "ancestral.cli.judge:quality",
    Sample: "ancestral.cli.draw:sample",
    Reconstruct: "ancestral.cli.draw:reconstruct",
    Complete: "ancestral.cli.draw:complete",
    Interpolate: "ancestral.cli.draw:interpolate",
    Score: "ancestral.cli.score:score",
    Import: "ancestral.cli.show:bring",
    Inspect: "ancestral.cli.show:inspect",
    Report: "ancestral.cli.show:report",
    Compare: "ancestral.cli.compare:compare",
    Sweep: "ancestral.cli.sweep:sweep",
    Compress: "ancestral.cli.compression:compress",
    Decompress: "ancestral.cli.compression:decompress",
    Verify: "ancestral.cli.compression:verify",
    Info: "ancestral.cli.info:info",
    Bench: "ancestral.cli.speed:bench",
    Warmup: "ancestral.cli.speed:warmup",
    Models: "ancestral.cli.lists:models",
    Data: "ancestral.cli.lists:data",
}
