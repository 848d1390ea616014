"""``inspect`` and ``report``: what a run is, in lines and as a page; ``import``: a run of weights from elsewhere."""

from __future__ import annotations

import torch

from ancestral import report as reports
from ancestral.bench import multiply_rate
from ancestral.causal import CausalNetwork
from ancestral.cli.commands import Answer, Import, Inspect, Report
from ancestral.cli.judge import kept_findings
from ancestral.cli.measure import figures_of, kept_figures
from ancestral.cli.runs import data_of, said, threads_of
from ancestral.data.loading import load_data
from ancestral.evaluation import summary
from ancestral.hub import Model, describe, load, save
from ancestral.networks.gpt2 import from_gpt2, tokenizer
from ancestral.sampling.strategies import Rows, likelihood_of
from ancestral.training.folder import prepare


def inspect(command: Inspect) -> Answer:
    """What the folder of a run says: model, size, receptive field, stages, data, settings, and figures where there are some."""
    config, figures = describe(command.run), kept_figures(command.run)
    lines = reports.describe(command.run)
    values = {"run": command.run, **config, "description": {line[:17].strip(): line[17:] for line in lines}}
    if note := (config.get("data") or {}).get("note"):
        lines = [*lines, f"{'trained on':<17}{note}"]
    if figures is not None:
        values["evaluation"] = figures.to_dict()
        lines = [*lines, *(f"{'' if i else 'figures':<17}{line}" for i, line in enumerate(figures.lines()[:-1]))]
    known = kept_findings(command.run)
    for name, each in (("latents", known.study), ("quality", known.judged)):
        if each is not None:
            values[name] = each.to_dict()
            lines = [*lines, *(f"{'' if i else name:<17}{line}" for i, line in enumerate(each.lines()))]
    if figures is not None:
        values["summary"] = summary(figures, known.study, known.judged)
    if command.program:
        values["program"] = listed = program_of(load(command.run))
        lines = [*lines, *listed]
    return Answer(values, lines)


def bring(command: Import) -> Answer:
    """Write a GPT-2 from elsewhere as a run, with how its symbols are written."""
    model, notation = from_gpt2(command.folder), tokenizer(command.folder)
    prepare(command.out, model, command.force)
    made_of: dict[str, object] = {
        "name": command.folder.name,
        "note": f"weights of {command.folder.name}",
        "source": None,
        "options": {},
    }
    save(model, command.out, extra={"data": made_of | ({} if notation is None else {"notation": notation.to_dict()})})
    words = "no tokenizer, so texts are symbols" if notation is None else notation.in_words()
    count = sum(parameter.numel() for parameter in model.parameters())
    return Answer({"run": command.out, "parameters": count}, [f"{command.out}: {count:,} parameters; {words}"])


def program_of(model: Model) -> list[str]:
    """The lines of the Program that a model's likelihood walks by, and the least that this machine needs for it.

    Raises:
        ValueError: it is not made of causal layers, so it has none.
    """
    likelihood = likelihood_of(model)
    if not isinstance(likelihood.network, CausalNetwork):
        raise ValueError(f"{type(likelihood.network).__name__} is not made of causal layers, so it has no Program to list")
    with torch.no_grad():
        [(_, seen)] = Rows(model, 1).batches(1)
        program = likelihood.network.lowered(seen)
    (_, height, width), rate = program.shape, multiply_rate()
    least = height * width * program.multiply_adds / rate
    return [
        *str(program).splitlines(),
        f"a step reads {program.weights * 4:,} bytes of float32 weights, and an example remembers {program.state * 4:,} bytes",
        f"floor on one thread here: {1e3 * least:.2f} ms an example, at {rate / 1e9:.0f} billion float32 multiply-adds a second",
    ]


def report(command: Report) -> Answer:
    """Write the page of a run; figures that are there already are not measured again."""
    own = command.data is None
    found, known = figures_of(command, command.run) if own else None, kept_findings(command.run)
    torch.set_num_threads(threads_of(command, load(command.run)))
    path = reports.report(
        command.run,
        data_of(command.run, command.data, command.reading),
        evaluation=found,
        labelled=None if known.labelled is None else load_data(known.labelled["source"], **known.labelled["options"]),
        studied=known.study if own else None,
        judged=known.judged if own else None,
        samples=command.samples,
        out=command.out,
        seed=command.seed,
        progress=said,
    )
    lines = [
        *([] if found is None else found.lines()[:1]),
        *([found.verdict] if found and found.verdict else []),
        f"report: {path}",
    ]
    return Answer({"report": path, "evaluation": None if found is None else found.to_dict()}, lines)
