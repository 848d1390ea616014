"""``score``: the cost of every example as a table, as JSON and as a page, and whether it tells what is outside the data."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from math import log
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from ancestral import evaluation
from ancestral.cli.classes import NULL, class_names, numbered, untold
from ancestral.cli.commands import Answer, Score
from ancestral.cli.reading import Reading
from ancestral.cli.runs import data_of, one_each, opened, progress, read_items, said
from ancestral.data.catalogue import EMBEDDED
from ancestral.data.idx import holds_idx
from ancestral.data.source import LIMIT, PARTS, permutation
from ancestral.data.splits import Examples, ExampleSet, Splits
from ancestral.evaluation.outside import MADE, SCORES, Scored, Separation, separations
from ancestral.evaluation.result import CERTAIN
from ancestral.hub import Model
from ancestral.latent.codes import coded
from ancestral.report.score_files import WRITERS
from ancestral.report.scores import Results, verdicts
from ancestral.report.surprise import Shower
from ancestral.symbols import DataError

TABLE = "scores.csv"
Told = Mapping[str, Mapping[str, Separation]]


@dataclass(frozen=True, eq=False)
class Found:
    """Examples of one origin, before they are scored: their name, names, symbols, labels and the names of labels.

    Attributes:
        sets, rows: what holds them, one after the other, and where they are in that, counted over all; nothing is read before
            ``x`` is asked for.
        filling: the symbol that examples of varying length are filled up with.
    """

    name: str
    items: Sequence[str]
    sets: Sequence[ExampleSet]
    rows: Sequence[int]
    labels: Tensor | None = None
    class_names: Sequence[str] = ()
    outside: bool = False
    filling: int = 0

    @cached_property
    def x(self) -> Tensor:
        """(n, *shape) symbols, of the smallest type that their sets have."""
        found, first = list[Tensor](), 0
        for each in self.sets:
            some = [row - first for row in self.rows if first <= row < first + len(each)]
            found += [each.select(some).x] if some else []
            first += len(each)
        longest = max(x.shape[-1] for x in found)
        return torch.cat([F.pad(x, (0, longest - x.shape[-1]), value=self.filling) for x in found])

    def select(self, places: Sequence[int], **changes: Any) -> Found:
        """The examples at these places, which ascend."""
        labels = None if self.labels is None else self.labels[torch.tensor(places, dtype=torch.long)]
        items, rows = [self.items[place] for place in places], [self.rows[place] for place in places]
        return replace(self, items=items, rows=rows, labels=labels, **changes)

    def limited(self, limit: int | None, seed: int) -> Found:
        """At most so many of them, a seeded choice."""
        places = permutation(len(self.rows), seed, LIMIT)[:limit].tolist()
        return self if limit is None or limit >= len(self.rows) else self.select(sorted(places))

    @property
    def classes(self) -> list[str]:
        """The class of each, by name or number; empty where none are known."""
        numbers = [] if self.labels is None else self.labels.tolist()
        return [self.class_names[number] if self.class_names else str(number) for number in numbers]


def score(command: Score) -> Answer:
    """Score examples, write what was asked for, and say on standard output what they cost and how well that tells them apart."""
    places = command.out or (command.run / TABLE,)
    _check(command, places)
    model = opened(command, command.run)
    if command.importance_samples > 1 and coded(model):
        said(f"note: {CERTAIN}")
    task = _Task(command, model)
    sets = [task.scored(each) for each in task.found()]
    inside, outside = sets[0], sets[1:]
    told = {each.name: separations(inside, each) for each in outside}
    results = task.results(sets, told)
    for place in places:
        if command.per_symbol and place.suffix == ".json":
            said(f"writing the bits of every symbol into {place}")
        WRITERS[place.suffix](place, results)
    own = {name: value for name, value in inside.summary(model.spec).items() if name not in ("set", "outside")}
    about = {name: getattr(inside.scores, name) for name in ("status", "importance_samples", "codec")}
    values = {"scores": places[0], "files": list(places), **own, "unit": results.unit, **about, **results.figures()}
    return Answer(values, [*_costs(places, results), *_apart(told, inside.name)])


def _check(command: Score, places: Sequence[Path]) -> None:
    """Refuse what could only fail after the work."""
    for place in places:
        if place.suffix not in WRITERS:
            raise ValueError(f"--out {place}: scores are written as {', '.join(WRITERS)}; give one of these endings")
    if command.per_symbol and not any(place.suffix == ".json" for place in places):
        raise ValueError("--per-symbol is for a .json: name one (--out FILE.json)")
    if command.shown < 1 or (command.limit is not None and command.limit < 1):
        raise ValueError(f"shown is {command.shown} and limit {command.limit}; they must be at least 1")


@dataclass
class _Task:
    """What a command asks of a model."""

    command: Score
    model: Model

    def found(self) -> list[Found]:
        """The examples of the model's own kind first, then each set of others; all of one command are limited alike."""
        command = self.command
        given = numbered(command.run, command.labels)
        if command.data:
            own = self._read(command.data, command.split, given)
        else:
            own = self._set(data_of(command.run, None, Reading(), "name some"), given)
        inside, *outside = _parted(own, command.outside)
        inside = inside.limited(command.limit, command.seed)
        for word in command.against:
            if word in MADE:
                x = MADE[word](inside.x, self.model.spec, command.seed, self.model.units)
                made = Found(word, [f"{word} {row}" for row in range(len(x))], [Examples(x)], range(len(x)), outside=True)
                outside.append(made)
            else:
                outside.append(replace(self._read([word], None), outside=True))
        names = [each.name for each in outside]
        if len({inside.name, *names}) <= len(names):
            raise ValueError(f"{inside.name} against {', '.join(names)}: each must have a name of its own")
        return [inside, *(each.limited(command.limit, command.seed) for each in outside)]

    def _read(self, words: Sequence[str], split: str | None, given: Sequence[int] = ()) -> Found:
        """A data set, of which the split is taken, or files, taken whole; of the classes that are given, if any are."""
        command, spec = self.command, self.model.spec
        if split is not None or any(_is_set(word) for word in words):
            if len(words) > 1:
                raise DataError(f"{' '.join(words)}: give one data set by itself, or several files and folders without --split")
            return self._set(data_of(command.run, words[0], command.reading), given)
        if set(command.reading.options()) - {"size"}:
            raise DataError(
                "files are brought to the model's colours and levels by themselves: of such flags leave all but --size"
            )
        found = read_items([Path(word) for word in words], command.run, spec, command.reading.size)
        name, rows = Path(words[0]).name if len(words) == 1 else f"{len(words)} files and folders", range(len(found.names))
        labels = one_each(given, found.owners, spec) if given else found.labels
        return Found(name, found.names, [found.examples], rows, labels, class_names(command.run), filling=spec.end or 0)

    def _set(self, data: Splits, given: Sequence[int] = ()) -> Found:
        split = self.command.split or "test"
        sets = {name: getattr(data, name) for name in PARTS if split in (name, "all") and len(getattr(data, name))}
        if not sets:
            raise DataError(f"{data.name} has no {split} examples: take others (--split)")
        labels = [each.labels for each in sets.values() if each.labels is not None]
        names = [f"{name} {row}" for name, each in sets.items() for row in range(len(each))]
        y = one_each(given, range(len(names)), data.spec) if given else torch.cat(labels) if labels else None
        parts, filling = list(sets.values()), data.spec.end or 0
        return Found(f"{data.name} ({split})", names, parts, range(len(names)), y, data.class_names, filling=filling)

    def scored(self, found: Found) -> Scored:
        """What a set costs; in a comparison nobody is told the classes, which the outside has none of."""
        command, told = self.command, self._told(found)
        with progress(f"scoring {found.name}") as tick:
            scores = evaluation.score(
                self.model,
                found.x,
                labels=told,
                importance_samples=command.importance_samples,
                seed=command.seed,
                batch_size=command.batch_size,
                units=self.model.units,
                corrected=True,
                notation=self.model.notation,
                progress=tick,
            )
        return Scored(found.name, found.items, found.x, found.classes, told, scores, found.outside)

    def _told(self, found: Found) -> Tensor | None:
        if not self.model.conditional:
            return None
        if self.command.against or self.command.outside:
            said(f"note: the model knows classes; to compare, it is told none, of {found.name} either ({NULL})")
            return None
        if found.labels is None:
            said(untold(self.command.run))
        return found.labels

    def results(self, sets: Sequence[Scored], told: Told) -> Results:
        """Everything found, for what is written of it."""
        command, density = self.command, sets[0].scores.density
        unit = f"nats of a density{'' if self.model.units is None else ' in the original units'}" if density else "nats"
        shower = Shower(self.model.spec, self.model.units, self.model.notation)
        of = (command.run, sets, told, unit, shower, self.symbol_bits)
        return Results(*of, command.per_symbol, command.shown, command.batch_size)

    def symbol_bits(self, scored: Scored, rows: Sequence[int]) -> Tensor:
        """(m, *shape) bits of every symbol of some rows."""
        index = torch.tensor(rows, dtype=torch.long)
        labels = None if scored.labels is None else scored.labels[index]
        nats = evaluation.surprisal(
            self.model,
            scored.x[index],
            labels=labels,
            seed=self.command.seed,
            batch_size=self.command.batch_size,
            units=self.model.units,
            rows=list(rows),
            notation=self.model.notation,
        )
        return nats / log(2)


def _is_set(word: str) -> bool:
    path = Path(word)
    return word in EMBEDDED or path.suffix == ".npz" or (path.is_dir() and holds_idx(path))


def _parted(found: Found, outside: Sequence[str]) -> list[Found]:
    """The examples of all other classes, and those of the classes that count as outside."""
    if not outside:
        return [found]
    if found.labels is None:
        raise DataError(f"{found.name} has no labels, so no class of it can count as outside: give them (--labels)")
    named = list(zip(found.classes, map(str, found.labels.tolist()), strict=True))
    known = sorted({name for each in named for name in each})
    unknown = [name for name in outside if name not in known]
    if unknown:
        raise DataError(f"{found.name} has no class {unknown[0]}; it has {', '.join(known)}")
    rows: dict[bool, list[int]] = {False: [], True: []}
    for row, each in enumerate(named):
        rows[not set(each).isdisjoint(outside)].append(row)
    if not rows[False]:
        raise DataError(f"every class of {found.name} counts as outside: leave some inside")
    rest = found.select(rows[False], name=f"{found.name} without {', '.join(outside)}")
    return [rest, found.select(rows[True], name=f"class {', '.join(outside)}", outside=True)]


def _costs(places: Sequence[Path], results: Results) -> Iterator[str]:
    """A line for every set."""
    for number, each in enumerate(results.sets):
        mean, found = each.summary(results.spec), each.scores
        of = f"{', '.join(map(str, places))}: " if not number else f"{each.name}: "
        line = f"{of}{mean['items']:,} items, on average {mean['nats']:.2f} {results.unit} ({found.status})"
        weighed = []
        if found.codec is not None:
            weighed = [f"{found.codec} takes {mean['complexity']:.1f} bits", f"corrected score {mean['corrected']:+.1f}"]
        yield "; ".join([line, f"{mean['bits_per_dim']:.4f} bits a symbol", *weighed])


def _apart(told: Told, inside: str) -> Iterator[str]:
    """A line for every set outside with the areas of all scores, and what they mean."""
    for name, scores in told.items():
        areas = ", ".join(f"{found} by {SCORES[score]}" for score, found in scores.items())
        yield f"{name} above {inside}: AUROC {areas}"
    if told:
        yield "brackets: 95 % intervals by DeLong; an AUROC of a is 1 - a the other way round"
    yield from verdicts(told, inside)
