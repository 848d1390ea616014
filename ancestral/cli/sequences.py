"""Text and sound on the command line: what examples begin with, how long they become, and where they go."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import zip_longest
from math import inf
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence

from ancestral import sampling
from ancestral.cli.classes import numbered, told, untold
from ancestral.cli.commands import Complete, Drawing, Lasting, Sample
from ancestral.cli.runs import items_of, one_each, progress, said, written_as
from ancestral.core import Context, OrderError
from ancestral.data.features import mel_of
from ancestral.data.notation import Notation, Sound, Text, up_to_end
from ancestral.data.sequences import files_of
from ancestral.data.sounds import tapes_of, wav
from ancestral.files import write_whole
from ancestral.hub import Model
from ancestral.objectives import with_grid
from ancestral.sampling.strategies import Rows, context_of, likelihood_of, sized
from ancestral.spec import DataSpec
from ancestral.symbols import DataError, lengths

RULE = "----"  # between texts of several lines
OTHERS = (".npy", ".npz", ".png", ".wav", ".flac", ".anc")  # endings that promise something else than text


@dataclass(frozen=True)
class Beginning:
    """What drawn examples start from.

    Attributes:
        model: of examples as long as they shall become.
        notation: how these are written; None of other data than text and sound.
        prompt: (k,) symbols that they begin with, or None.
        features: (1, f, places, 1) what they follow, or None.
    """

    model: Model
    notation: Notation | None = None
    prompt: Tensor | None = None
    features: Tensor | None = None

    def context(self, n: int, labels: Context | None) -> Context | None:
        """What n examples are conditioned on, besides the labels."""
        return labels if self.features is None else with_grid(labels, self.features.expand(n, -1, -1, -1), self.model.anchor)


def beginning(command: Sample, model: Model) -> Beginning:
    """What the command line says of a prompt, of features and of the length.

    Raises:
        ValueError: an option is for other models, or two contradict each other.
        DataError: a file cannot be read, or the prompt cannot be written in the notation of the run.
        OrderError: the network cannot take that length.
    """
    notation = model.notation
    given = [name for name in ("prompt", "prompt_file", "like", "length", "seconds") if getattr(command, name) is not None]
    if notation is None:
        if given:
            raise ValueError(f"{_flags(given)}: for runs on text or sound, which this is not: leave that out")
        return Beginning(model)
    prompt, features, length = _prompt(command, notation), None, _length(command, notation)
    if command.like is not None:
        clip, mel = clip_of(command.like, notation), mel_of(model.config, notation)
        if mel is None:
            raise ValueError("--like: this model follows no features: train one with --condition mel")
        length = length or len(clip)
        features = mel(clip[None], length)
    sized_model = sized(model, None if length is None else (length,))
    sites = likelihood_of(sized_model).spec.sites
    if prompt is not None and len(prompt) >= sites:
        raise ValueError(f"the prompt has {len(prompt):,} symbols, and the whole {sites:,}: ask for more (--length)")
    return Beginning(sized_model, notation, prompt, features)


def _prompt(command: Sample, notation: Notation) -> Tensor | None:
    if command.prompt is not None and command.prompt_file is not None:
        raise ValueError("--prompt and --prompt-file were both given: one of them will do")
    path = command.prompt_file
    if isinstance(notation, Sound):
        path = Path(command.prompt) if command.prompt is not None else path
        return None if path is None else clip_of(path, notation)
    if path is not None:
        return notation.encode(path.read_bytes())
    return notation.encode(command.prompt) if command.prompt else None


def clip_of(path: Path, notation: Notation) -> Tensor:
    """(T,) symbols of a sound file at the rate of a run.

    Raises:
        DataError: the run is not on sound, or the file is missing or broken.
    """
    if not isinstance(notation, Sound):
        raise DataError(f"{path} would be a sound, and this run is on text")
    if not path.is_file():
        raise DataError(f"there is no sound file {path}")
    [tape], _, _ = tapes_of([path], None, notation.code, notation.rate)
    return torch.from_numpy(tape.read(0, len(tape)).astype(np.int64))


def _length(command: Lasting, notation: Notation) -> int | None:
    """How many symbols the command line asks for.

    Raises:
        ValueError: it asks twice, for less than one, or for seconds of a text.
    """
    if command.length is not None and command.seconds is not None:
        raise ValueError("--length and --seconds were both given: one of them will do")
    wanted = command.length
    if command.seconds is not None:
        if not isinstance(notation, Sound):
            raise ValueError("--seconds: a text has none: ask for symbols (--length)")
        wanted = round(command.seconds * notation.rate)
    if wanted is not None and wanted < 1:
        raise ValueError(f"{_flags(['length' if command.seconds is None else 'seconds'])}: ask for at least one symbol")
    return None if wanted is None else wanted * notation.parts


def _flags(names: Sequence[str]) -> str:
    return ", ".join(f"--{name.replace('_', '-')}" for name in names)


# -- text as it is drawn -------------------------------------------------------------------------------------------------------


def streams(command: Sample) -> bool:
    """Whether texts can be written while they are drawn."""
    special = command.beam is not None or command.draft is not None or command.guidance or command.log_prob
    return not (special or command.json or command.out is not None or command.method != "cached")


def spoken(command: Sample, begun: Beginning, rows: Rows, notation: Text) -> Iterator[str]:
    """The texts of rows that are drawn one after the other, with what they begin with, in pieces as symbols are settled."""
    for row in range(rows.n):
        drawn = sampling.stream(
            rows.model,
            prompt=begun.prompt,
            temperature=command.temperature,
            top_k=command.top_k,
            top_p=command.top_p,
            min_p=command.min_p,
            seed=command.seed,
            context=rows.context and rows.context.select(torch.tensor([row])),
            first_row=row,
            engine=command.engine,
        )
        first = [] if begun.prompt is None else begun.prompt.tolist()
        yield from between(row, rows.model.spec)
        yield from notation.pieces(_symbols(first, drawn, rows.model.spec.end))
        yield "\n"


def _symbols(first: Iterable[int], drawn: Iterable[tuple[int, Tensor]], end: int | None) -> Iterator[int]:
    yield from first
    for _, symbol in drawn:
        if int(symbol) == end:
            return
        yield int(symbol)


def between(row: int, spec: DataSpec) -> list[str]:
    """What stands before a text that others precede: a line, unless texts are lines themselves."""
    return [f"{RULE}\n"] if row and spec.end is None else []


# -- where they go -------------------------------------------------------------------------------------------------------------


def aloud(command: Drawing, notation: Notation | None) -> bool:
    """Whether examples are texts to be shown rather than files to be written."""
    return isinstance(notation, Text) and command.out is None


def as_one(rows: Sequence[Tensor], spec: DataSpec) -> Tensor:
    """(n, T) symbols of n examples, shorter ones filled up with their end.

    Raises:
        ValueError: their lengths differ, and nothing ends an example.
    """
    if spec.end is None and len({len(row) for row in rows}) > 1:
        raise ValueError("these are of several lengths, so they make no .npy: ask for one (--length), or name another ending")
    return pad_sequence(list(rows), batch_first=True, padding_value=spec.end or 0)


def texts_of(rows: Sequence[Tensor], notation: Text) -> list[str]:
    """(T,) symbols each as texts up to their end; bytes that are no UTF-8 show the replacement character."""
    return ["".join(notation.pieces(up_to_end(row, notation.levels).tolist())) for row in rows]


def shown(texts: Sequence[str], spec: DataSpec) -> list[str]:
    """Texts as lines to print."""
    return [line for i, text in enumerate(texts) for line in [*(each.rstrip("\n") for each in between(i, spec)), text]]


def written(path: Path, rows: Sequence[Tensor], notation: Notation) -> list[Path]:
    """Write symbols of texts or clips as files, numbered where there are several; their paths.

    Raises:
        ValueError: the name ends in what does not go with them.
    """
    what, ending = ("sound", ".wav") if isinstance(notation, Sound) else ("text", ".txt")
    suffix = path.suffix.lower()
    if suffix in OTHERS if what == "text" else suffix not in ("", ending):
        raise ValueError(f"{path} ends in {path.suffix}: name a {ending} for {what}, a .npy for symbols, or a folder")
    paths = _numbered(path, len(rows), ending)
    for place, row in zip(paths, rows, strict=True):
        write_whole(place, _content(row, notation))
    return paths


def _content(row: Tensor, notation: Notation) -> bytes:
    found = notation.decode(row)
    if isinstance(found, Tensor) and isinstance(notation, Sound):
        return wav(found.numpy(), notation.rate)
    return found if isinstance(found, bytes) else str(found).encode()


def _numbered(path: Path, n: int, ending: str) -> list[Path]:
    """n places: in a folder, where the name has no ending, else beside each other."""
    width = len(str(n))
    if not path.suffix:
        return [path / f"{i:0{width}}{ending}" for i in range(1, n + 1)]
    return [path] if n == 1 else [path.with_stem(f"{path.stem}-{i:0{width}}") for i in range(1, n + 1)]


# -- how texts and clips go on -------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Continued:
    """Texts or clips that were completed.

    Attributes:
        names: of the m that were known in part.
        rows: m n examples, n of each in turn, as symbols.
        log_evidence: (m,) log-probability of what was known, in nats.
        status: ``"exact"``, or ``"approximate"`` if one of them is.
    """

    names: list[str]
    rows: list[Tensor]
    log_evidence: list[float]
    status: str


def continued(command: Complete, model: Model, notation: Notation, examples: int) -> Continued:
    """Draw how texts or clips go on; each is walked by itself, for their lengths differ. Those too short for that are left out.

    Raises:
        ValueError: nothing would be known, or all of every one.
        DataError: a file cannot be read, or the model cannot complete it.
    """
    n, found, statuses, short = command.number, Continued([], [], [], "exact"), set(), list[str]()
    for i, (name, x, label) in enumerate(_clips(command, model, notation, examples)):
        total = _length(command, notation) or _total(model, len(x), notation)
        k = _count(command.known or "first:50%", notation, min(len(x), total))
        if k < 1:
            raise ValueError(
                f"--known {command.known}: then nothing is known of {name}: name more, or draw it (ancestral sample)"
            )
        if k > len(x) or k >= total:
            short.append(f"{name} has {len(x):,} symbols of at most {total:,}, and {k:,} are to be known: name fewer (--known)")
            continue
        whole, known = torch.zeros(n, total, dtype=torch.long), torch.arange(total) < k
        whole[:, :k] = x[:k]
        with progress(f"completing {name}") as tick:
            done = sampling.complete(
                sized(model, (total,)),
                whole,
                known,
                seed=command.seed,
                first_row=i * n,
                context=_context(model, notation, x, label, n, total),
                temperature=command.temperature,
                top_k=command.top_k,
                top_p=command.top_p,
                min_p=command.min_p,
                batch_size=command.batch_size,
                engine=command.engine,
                progress=tick,
            )
        found.names.append(name)
        found.rows.extend(done.x.cpu().unbind())
        found.log_evidence.append(float(done.log_evidence[0]))
        statuses.add(done.status)
    if short and not found.names:
        raise ValueError(short[0])
    if short:
        said(f"note: {len(short):,} of {len(short) + len(found.names):,} are left out; the first of them, {short[0]}")
    return found if statuses <= {"exact"} else replace(found, status="approximate")


def _context(model: Model, notation: Notation, x: Tensor, label: int | None, n: int, total: int) -> Context | None:
    """What n completions of (T,) symbols are conditioned on: the label, and features of the clip itself."""
    mel = mel_of(model.config, notation)
    grid = None if mel is None else mel(x[None], total).expand(n, -1, -1, -1)
    return with_grid(context_of(model, n, None if label is None else [label] * n, None), grid, model.anchor)


def _clips(command: Complete, model: Model, notation: Notation, examples: int) -> Iterator[tuple[str, Tensor, int | None]]:
    """Name, (T,) symbols and label of whole files, of their lines where the model is of lines, or of test examples."""
    if not command.pictures or written_as(command.run)["pieces"] == "lines":
        items = items_of(model, command.run, command.pictures, examples, None, command.labels)
        rows = [x[:length] for x, length in zip(items.x.cpu(), lengths(items.x, model.spec).tolist(), strict=True)]
        yield from zip(items.names, rows, [None] * len(rows) if items.labels is None else items.labels.tolist(), strict=True)
        return
    places = [(path, files_of(path, model.spec.kind)) for path in command.pictures]
    paths, labels = [path for _, files in places for path in files], numbered(command.run, command.labels)
    if labels:
        labels = one_each(labels, range(len(paths)), model.spec).tolist()
    elif model.conditional:
        labels = told(command.run, places) or []
        if not labels:
            said(untold(command.run))
    for path, label in zip_longest(paths, labels):
        yield str(path), clip_of(path, notation) if isinstance(notation, Sound) else notation.encode(path.read_bytes()), label


def _total(model: Model, own: int, notation: Notation) -> int:
    """How long a completed example becomes where nothing is said: a clip as long as it was, a text no longer than usual."""
    usual = likelihood_of(model).network.shape[0]
    try:
        sized(model, (own,))
    except OrderError:  # its latents are of one length
        return usual
    if model.spec.end is not None:
        return max(usual, own + notation.parts)
    return min(own, usual) if isinstance(notation, Text) else own


def _count(known: str, notation: Notation, own: int) -> int:
    """How many symbols are known of an example that has so many.

    Raises:
        ValueError: that is not said in a way that text or sound knows.
    """
    word, _, amount = known.partition(":")
    number, unit = amount.rstrip("s%"), amount[len(amount.rstrip("s%")) :]
    try:
        value = float(number)
    except ValueError:
        value = -1.0
    sound = isinstance(notation, Sound)
    if word != "first" or not 0 <= value < inf or unit not in ("", "%", *(["s"] if sound else [])):
        ways = f"first:200 ({'samples' if sound else 'symbols'}), first:50%{' or first:1.5s' if sound else ''}"
        raise ValueError(f"--known {known}: of {'sound' if sound else 'text'} say how much of its beginning is known: {ways}")
    if unit == "%":
        units = max(1, own // notation.parts * value / 100) if value else 0  # some of the shortest, too
    else:
        units = value * notation.rate if isinstance(notation, Sound) and unit == "s" else value
    return round(units) * notation.parts


def answered(command: Drawing, name: str, rows: Sequence[Tensor], notation: Notation) -> tuple[dict[str, Any], str]:
    """Write texts or clips where the command line says, and what to say of it: values for JSON, and the place."""
    if aloud(command, notation) and isinstance(notation, Text):
        return {"texts": texts_of(rows, notation)}, ""
    paths = written(command.out or command.run / "samples" / f"{name}.wav", rows, notation)
    return ({"out": paths[0]}, str(paths[0])) if len(paths) == 1 else ({"out": paths}, f"{paths[0]} to {paths[-1].name}")
