"""What ``sample`` does besides drawing: search, drafts, and what its examples weigh."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import fields
from pathlib import Path

import torch
from torch import Tensor

from ancestral import sampling
from ancestral.cli.commands import Sample
from ancestral.cli.runs import opened
from ancestral.hub import Model
from ancestral.latent.latent import Latent
from ancestral.sampling.strategies import Progress, Rows


def check_strategy(command: Sample, model: Model) -> None:
    """Refuse options that have no say in what is asked for.

    Raises:
        ValueError: there are some; each is named.
    """
    if command.beam is not None:
        void, why = (
            "temperature top_k top_p min_p guidance method z_temperature draft gamma like",
            "--beam searches and draws nothing",
        )
    elif command.draft is not None:
        void, why = "guidance method z_temperature length_penalty like", "they have no say in what --draft proposes"
    else:
        void, why = "length_penalty gamma", "the one is of --beam, the other of --draft, which are not there"
    usual = {field.name: field.default for field in fields(Sample)}
    flags = [f"--{name.replace('_', '-')}" for name in void.split() if getattr(command, name) != usual[name]]
    if flags:
        raise ValueError(f"{', '.join(flags)}: {why}: leave that out")
    if command.z_temperature != usual["z_temperature"] and not isinstance(model, Latent):
        raise ValueError("--z-temperature: this model has no latents: leave that out")


def together(command: Sample) -> int:
    """How many rows walk together: by default few where each of them is many beginnings, or waits for the others."""
    usual = 8 if command.beam is not None else 16 if command.draft is not None else 64
    return usual if command.batch_size is None else command.batch_size


def usual_number(command: Sample, model: Model) -> int:
    """How many images or rows are made where nothing is said: of a search that finds the same every time, one of a kind."""
    if command.beam is None or isinstance(model, Latent):
        return 16
    return len(command.labels) or (model.spec.classes or 1 if model.conditional else 1)


def searched(
    command: Sample, width: int, of: Rows, labels: Sequence[int] | None, prompt: Tensor | None, tick: Progress
) -> Tensor:
    """(n, *shape) the most probable examples: where several rows are to be of one label, or of none, its best ones in turn."""
    model, n = of.model, of.n
    rows = list(range(n)) if isinstance(model, Latent) else list(labels or [0] * n)
    apart = list(dict.fromkeys(rows))
    wanted = max(rows.count(row) for row in apart)
    if wanted > width:
        raise ValueError(f"--beam {width} finds no more than {width} examples of a kind, and {wanted} are asked for with -n {n}")
    some = None if labels is None else [labels[rows.index(row)] for row in apart]
    found = sampling.beam_search(
        model,
        width,
        n=len(apart),
        n_best=wanted,
        length_penalty=command.length_penalty,
        prompt=prompt,
        labels=some,
        seed=command.seed,
        batch_size=together(command),
        engine=command.engine,
        progress=tick,
    )
    there = int(found.score.isfinite().sum(1).min())
    if there < wanted:
        raise ValueError(f"there are only {there} examples of a kind, and {wanted} are asked for with -n {n}")
    return torch.stack([found.x[apart.index(row), rows[:i].count(row)] for i, row in enumerate(rows)])


def speculated(
    command: Sample, folder: Path, rows: Rows, labels: Sequence[int] | None, prompt: Tensor | None, tick: Progress
) -> sampling.Speculated:
    """Samples that a draft has proposed."""
    return sampling.speculative_sample(
        rows.model,
        opened(command, folder),
        rows.n,
        gamma=command.gamma,
        temperature=command.temperature,
        top_k=command.top_k,
        top_p=command.top_p,
        min_p=command.min_p,
        seed=command.seed,
        labels=labels,
        prompt=prompt,
        batch_size=together(command),
        engine=command.engine,
        progress=tick,
    )


def weighed(command: Sample, rows: Rows, x: Tensor, prompt: Tensor | None) -> dict[str, list[float]]:
    """The log-probability of every example in nats, of values in the units of the data as they were given."""
    found = sampling.log_probs(
        rows.model,
        x,
        temperature=1.0 if command.beam is not None else command.temperature,
        top_k=command.top_k,
        top_p=command.top_p,
        min_p=command.min_p,
        seed=command.seed,
        context=rows.context,
        prompt=prompt,
        guidance=command.guidance,
        z_temperature=command.z_temperature,
    )
    units = rows.model.units
    stretched = 0.0 if units is None else units.nats_of(torch.ones(x.shape[1:], dtype=torch.bool))
    return {"log_prob": (found.model - stretched).tolist(), "altered_log_prob": (found.altered - stretched).tolist()}
