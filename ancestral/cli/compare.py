"""``compare``: the figures of several runs side by side, and paired differences of their costs."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from ancestral.cli.commands import Answer, Evaluate
from ancestral.cli.measure import figures, kept_figures, measured, weighed
from ancestral.cli.runs import data_of, opened, progress, said, table
from ancestral.cli.several import Compare
from ancestral.data.splits import ExampleSet, Splits, Units
from ancestral.evaluation import Evaluation
from ancestral.evaluation.examples import chosen_examples, counter
from ancestral.evaluation.paired import Costs, check_sizes, costs, difference, work
from ancestral.hub import describe
from ancestral.report.sweeps import bound_in_words, bounds_in_words
from ancestral.symbols import DataError

HEAD = ("run", "model", "bits/dim", "status", "IWAE", "rate", "distortion", "shuffle cost", "active units", "examples")


def compare(command: Compare) -> Answer:
    """Put the figures of runs side by side, and the costs of all but the first against the first one's.

    Raises:
        DataError: the runs are not of the same examples, written the same way.
        ValueError: a number is outside its range.
    """
    check_sizes(command.importance_samples, command.subset)
    data = {run: data_of(run, command.data, command.reading) for run in command.runs}
    first, *others = command.runs
    for run in others:
        check_same(first, data[first], run, data[run], command.split)
    found = {run: _figures(command, run, data[run]) for run in data}
    bounds = [bound for bound in (bound_in_words(each.to_dict()) for each in found.values()) if bound]
    several = len(set(bounds)) > 1
    rows = [_row(run, each, several) for run, each in found.items()]
    values: dict[str, Any] = {"runs": [{"run": run, **each.to_dict()} for run, each in found.items()], "differences": []}
    which = f"; IWAE in bits/dim, on a subset: {bounds_in_words(bounds)}" if bounds else ""
    lines = [*table([HEAD, *rows]), f"costs in nats an example{which}"]
    if not others:
        return Answer(values, lines)
    spent = {run: _costs(command, run, data[run]) for run in data}
    n = found[first].examples
    lines.append(f"differences on the same {n:,} examples with the same noise; less than 0 favours the run that is named first:")
    for run in others:
        paired = difference(spent[first], spent[run])
        values["differences"].append({"run": run, "than": first, **paired.to_dict()})
        lines += paired.lines(str(first), str(run))
    return Answer(values, lines)


def check_same(first: Path, data: Splits, run: Path, theirs: Splits, split: str) -> None:
    """Refuse runs whose costs are not costs of the same thing.

    Raises:
        DataError: they are of other examples, or of the same ones in other symbols or units; the message says which.
    """
    for what, mine, other in (
        ("shape and symbols", _written(data), _written(theirs)),
        ("units", _units(data.units), _units(theirs.units)),
        ("notation", data.notation and data.notation.in_words(), theirs.notation and theirs.notation.in_words()),
    ):
        if mine != other:
            raise DataError(
                f"{run} cannot be compared with {first}: the {what} of its data are {other or 'as they were given'}, and not"
                f" {mine or 'as they were given'}"
            )
    if _digest(getattr(data, split)) != _digest(getattr(theirs, split)):
        raise DataError(
            f"{run} cannot be compared with {first}: its {split} set holds other examples ({theirs.note} / {data.note});"
            " name data for both (--data)"
        )
    trained_on = [(describe(each).get("data") or {}).get("hash") for each in (first, run)]
    if trained_on[0] != trained_on[1]:
        said(f"note: {run} was trained on other data than {first}")
    told = [bool((describe(each).get("config") or {}).get("conditional")) for each in (first, run)]
    if told[0] != told[1]:
        said(f"note: {run if told[1] else first} is told the labels of the examples, and the other is not")


def _written(data: Splits) -> str:
    spec = data.spec
    columns = f", columns {spec.columns}" if spec.columns else ""
    return f"{spec.kind} {spec.shape}, levels={spec.levels}{columns}" + (f" in {spec.parts} parts" if spec.parts > 1 else "")


def _units(units: Units | None) -> str | None:
    """Units in words; a hash stands for the numbers, of which there may be many."""
    if units is None:
        return None
    digest = hashlib.sha256(repr(units.to_dict()).encode()).hexdigest()[:8]
    return f"{'dequantised' if units.dequantized else 'standardised'} ({units.nats:+.3f} nats, {digest})"


def _digest(examples: ExampleSet) -> bytes:
    digest = hashlib.sha256()
    examples.feed(digest)
    return digest.digest()


def _figures(command: Compare, run: Path, data: Splits) -> Evaluation:
    """The figures that a run has of what is asked for; measured where it has none, and kept where it had none of any."""
    found = kept_figures(run)
    if found is not None and _fits(found, command, data):
        return found
    said(f"measuring {run}")
    if found is None and (command.data, command.split, command.limit) == (None, "test", None):
        fresh = Evaluate(run=run, subset=command.subset, batch_size=command.batch_size, seed=command.seed)
        k = command.importance_samples or fresh.importance_samples
        return measured(replace(fresh, importance_samples=k, device=command.device, threads=command.threads))
    return figures(opened(command, run), data, command)


def _fits(found: Evaluation, command: Compare, data: Splits) -> bool:
    """Whether figures are those that would be measured: of these examples, with this noise and this bound if one is asked for."""
    same = (found.data["hash"], found.data["split"], found.orders) == (data.hash, command.split, 1)
    whole = command.limit is None and found.examples == found.data["available"]
    k, latent = command.importance_samples, found.rate is not None
    return same and whole and (not latent or (found.seed == command.seed and (not k or weighed(found, k, command.subset))))


def _costs(command: Compare, run: Path, data: Splits) -> Costs:
    model, k = opened(command, run), command.importance_samples
    chosen, _ = chosen_examples(model, data, command.split, command.limit, command.seed)
    m = min(command.subset, len(chosen))
    with progress(f"comparing {run}") as told:
        return costs(model, chosen, k, m, command.seed, command.batch_size, counter(told, work(model, len(chosen), k, m)))


def _row(run: Path, found: Evaluation, several: bool) -> Sequence[str]:
    """The cells of a run; that of IWAE says which bound it is where there are several."""
    error = found.bits_per_dim_error
    bits = f"{found.bits_per_dim:.4f}" + ("" if error is None else f" ± {error:.4f}")
    units = "" if found.units is None else f"{found.active_units} of {found.units}"
    costs = [found.iwae_bits_per_dim, found.rate, found.distortion, found.shuffle_cost]
    cells = ["" if cost is None else f"{cost:z.{2 if i else 4}f}" for i, cost in enumerate(costs)]
    cells[0] += f", {bound_in_words(found.to_dict())}" if several and cells[0] else ""
    judged = f"{found.examples:,} {found.data['name']} {found.data['split']}"
    return [str(run), describe(run)["model"] or "your own", bits, found.status, *cells, units, judged]
