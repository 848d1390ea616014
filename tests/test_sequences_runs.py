"""Runs on text and sound: what is trained on and measured, symbol by symbol, and new files read as the run was trained."""

from __future__ import annotations

import copy
import json
from math import log
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile
import torch
from tiny_cli import asking, calling
from torch import Tensor, nn

import ancestral
from ancestral.core import Context, Network
from ancestral.data import Examples, Splits, load_data
from ancestral.data.notation import Sound, Text
from ancestral.evaluation import evaluate
from ancestral.evaluation.bits import ratio_error
from ancestral.families import Categorical
from ancestral.hub import LoadError, describe, load, notation_of
from ancestral.spec import DataSpec, Order
from ancestral.symbols import DataError, trimmed
from ancestral.training import fit, resume
from ancestral.training.batches import Stream, validation_batches

QUIET: dict[str, Any] = {"progress": False, "tensorboard": False, "batch_size": 8}


class Bigram(Network):
    """Each symbol given the one before it: a network of any length, whose likelihood can be worked out by hand."""

    def __init__(self, levels: int, length: int = 8) -> None:
        super().__init__((length,))
        self.table = nn.Parameter(torch.randn(levels + 1, levels, generator=torch.Generator().manual_seed(1)))

    def forward(self, x: Tensor, context: Context | None = None) -> Tensor:
        first = torch.full_like(x[:, :1], self.table.shape[1])
        return self.table[torch.cat([first, x[:, :-1]], 1)]

    def arrange(self, order: Any = None, shape: tuple[int, ...] | None = None) -> Network:
        view = copy.copy(self)
        view.shape = torch.Size(shape or self.shape)
        view.order = Order.raster(tuple(view.shape))
        return view

    def nats(self, symbols: list[int]) -> float:
        """-log p of symbols, one after the other."""
        table, before, total = self.table.detach().log_softmax(1), len(self.table) - 1, 0.0
        for symbol in symbols:
            total -= float(table[before, symbol])
            before = symbol
        return total


def lines(data: Splits, part: str) -> list[list[int]]:
    """The symbols of every example of a set, their end left out."""
    assert data.spec.end is not None
    return [row[: row.index(data.spec.end)] for row in getattr(data, part).x.tolist()]


@pytest.fixture
def poem(tmp_path: Path) -> Path:
    path = tmp_path / "poem.txt"
    path.write_text("".join(f"{'öha '[: i % 5]}{'x' * (i % 13)}{i}\n" for i in range(150)), encoding="utf-8")
    return path


@pytest.mark.parametrize("notation", ["bytes", "characters", "bpe"])
def test_what_varying_lengths_cost(notation: str, poem: Path) -> None:
    data = load_data(poem, notation=notation, pieces="lines", vocabulary=270 if notation == "bpe" else None)
    levels, end = data.spec.levels or 0, data.spec.end
    model = ancestral.build(spec=data.spec, network=Bigram(levels), family=Categorical(levels))
    found = evaluate(model, data, batch_size=4)
    costs = [model.network.nats([*line, end]) for line in lines(data, "test")]  # type: ignore[union-attr, operator, list-item]
    sizes = [len(line) for line in lines(data, "test")]
    assert found.nats == pytest.approx(sum(costs) / len(costs), abs=1e-9) and found.status == "exact"
    assert found.bits_per_dim == pytest.approx(sum(costs) / sum(sizes) / log(2)) and found.sites == sum(sizes) / len(sizes)
    assert found.nats_per_symbol == pytest.approx(sum(costs) / sum(sizes))
    texts = [data.notation.decode(line) for line in lines(data, "test")]  # type: ignore[union-attr]
    count = sum(len(text if isinstance(text, bytes) else text.encode()) for text in texts)
    assert found.bits_per_byte == pytest.approx(sum(costs) / count / log(2))
    assert found.byte_status == ("bound" if notation == "bpe" else "exact") and f"({found.byte_status}" in found.lines()[1]
    other = evaluate(model, data, batch_size=100)
    assert other.nats == pytest.approx(found.nats, abs=1e-12)
    assert other.bits_per_dim_error == pytest.approx(found.bits_per_dim_error)
    assert evaluate(model, data.test).nats == found.nats
    padded = Examples(torch.cat([data.test.x, torch.full((len(data.test), 9), end)], 1))
    assert evaluate(model, padded).bits_per_dim == pytest.approx(found.bits_per_dim, abs=1e-12)
    assert json.loads(json.dumps(found.to_dict()))["bits_per_byte"] == found.bits_per_byte


def test_the_error_of_a_ratio() -> None:
    generator = torch.Generator().manual_seed(2)
    ratios, errors = [], []
    for _ in range(2000):
        counts = torch.randint(1, 30, (40,), generator=generator)
        amounts = 2.0 * counts + torch.randn(40, generator=generator) * counts.double().sqrt()
        ratios.append(float(amounts.sum() / counts.sum()))
        errors.append(ratio_error(amounts, counts) or 0.0)
    assert np.mean(errors) == pytest.approx(np.std(ratios), rel=0.05)
    assert ratio_error(torch.ones(1), torch.ones(1)) is None and ratio_error(torch.ones(2), torch.zeros(2)) is None


def test_batches_are_as_long_as_their_longest_and_windows_pure(poem: Path) -> None:
    data = load_data(poem, pieces="lines")
    stream = Stream(data, False, 8, 3, 0, 0, 20)
    for step in range(20):
        x = stream.batch(step).x
        assert int((x != 256).sum(1).max()) == x.shape[1] - 1 and (x[:, -1] == 256).all() and x.dtype == torch.long
    widths = [batch.x.shape[1] for batch in validation_batches(data, False, 3, 0, 0)]
    assert widths == sorted(widths) and widths[0] < widths[-1]
    windows = load_data(poem, length=20)
    whole, half = (Stream(windows, False, 8, 3, 0, 0, 20, rank, world) for rank, world in ((0, 1), (1, 2)))
    assert torch.equal(whole.batch(7).x[1::2], half.batch(7).x) and not torch.equal(whole.batch(7).x, whole.batch(8).x)
    text = poem.read_bytes()
    assert all(bytes(row.tolist()) in text for row in whole.batch(7).x)
    spec = DataSpec("audio", (None,), levels=257, end=256, parts=2)
    assert trimmed(torch.tensor([[1, 2, 256, 256, 256, 256]]), spec).tolist() == [[1, 2, 256, 256]]


def test_training_learns_what_follows_what_and_goes_on_as_it_was(poem: Path, tmp_path: Path) -> None:
    poem.write_text("ab\nabab\nababab\n" * 40)
    data = load_data(poem, notation="characters", pieces="lines")
    options = {"pieces": "lines", "notation": "characters"}

    def model() -> Any:
        return ancestral.build(spec=data.spec, network=Bigram(3), family=Categorical(3))

    run = fit(model(), poem, tmp_path / "run", steps=150, learning_rate=0.2, data_options=options, **QUIET)
    last = run.history[-1]
    assert last["symbols"] == pytest.approx(float(data.validation.lengths(data.spec).double().mean()))
    assert last["bits_per_dim"] == pytest.approx(last["nll"] / last["symbols"] / log(2))
    # of a line all that a bigram does not know is after each b, of which there are two on average, whether it was the last
    found = evaluate(run.model, data)
    assert found.nats == pytest.approx(2 * log(2), abs=0.1) and notation_of(tmp_path / "run") == data.notation
    kept = fit(model(), poem, tmp_path / "kept", steps=1, data_options={**options, "notation": data.notation}, **QUIET)
    assert resume(tmp_path / "kept", model=model()).steps == kept.steps == 1  # the notation is among the options recorded
    fresh = model()
    with pytest.raises(DataError, match="end is 256"):
        fit(fresh, load_data(poem, pieces="lines"), steps=1, **QUIET)
    again = resume(tmp_path / "run", model=fresh)
    assert again.steps == 150 and evaluate(again.model, data).nats == found.nats
    config = tmp_path / "run" / "config.json"
    earlier = config.read_text(encoding="utf-8").replace(data.hash, data.content)  # as runs recorded it that knew no notation
    assert earlier != config.read_text(encoding="utf-8")
    config.write_text(earlier)
    assert resume(tmp_path / "run", model=fresh).steps == 150
    config.write_text(
        config.read_text(encoding="utf-8").replace('"characters"', '"letters"', 1).replace('"code": "characters"', '"code": 3')
    )
    with pytest.raises(LoadError, match="notation"):
        notation_of(tmp_path / "run")


def test_the_command_line_reads_files_as_the_run_was_trained(
    poem: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    call = calling(capsys, monkeypatch)
    ask = asking(call)
    few = ("--preset", "tiny", "--steps", "2", "--batch-size", "4", "--no-progress", "--no-tensorboard")
    cut = ("--notation", "characters", "--length", "6")
    ask("train", "made", "--data", poem, *cut, *few, "--out", tmp_path / "run")
    data = load_data(poem, notation="characters", length=6)
    assert describe(tmp_path / "run")["data"]["hash"] == data.hash and notation_of(tmp_path / "run") == data.notation
    found = ask("evaluate", tmp_path / "run", "--split", "train")
    assert found["bits_per_dim"] == pytest.approx(evaluate(load(tmp_path / "run"), data, split="train").bits_per_dim)
    other = tmp_path / "other.txt"
    other.write_text("xxö 1\nha " * 60, encoding="utf-8")
    found = ask("evaluate", tmp_path / "run", "--data", other)
    mine = load_data(other, notation=data.notation, length=6)
    assert found["data"]["hash"] == mine.hash and mine.spec.levels == data.spec.levels
    whole = ask("score", tmp_path / "run", other, "--split", "all")
    assert whole["items"] == sum(len(getattr(mine, part)) for part in ("train", "validation", "test"))
    other.write_text("never seen: Z" * 60)
    code, _, err = call("evaluate", tmp_path / "run", "--data", other)
    assert code == 1 and "is not among the" in err
    for i in range(12):
        soundfile.write(tmp_path / f"{i % 2}_{'ab'[i // 2 % 2]}_{i}.wav", np.zeros(40 + i, np.int16), 8000)
    options = ("--label-from", "0", "1", "--rate", "4000", "--notation", "pcm16", "--limit", "2")
    shown = ask("data", tmp_path, *options)
    assert shown["class_names"] == ["0_a", "0_b", "1_a", "1_b"] and shown["notation"] == {"rate": 4000, "code": "pcm16"}
    assert shown["spec"]["parts"] == 2 and shown["sizes"] == {"train": 2, "validation": 1, "test": 1}


def test_notations_of_runs_without_data(tmp_path: Path) -> None:
    spec = DataSpec("text", (5,), levels=256)
    ancestral.save(ancestral.build("made", spec, preset="tiny"), tmp_path / "saved")
    assert notation_of(tmp_path / "saved") is None
    ancestral.save(
        ancestral.build("made", spec, preset="tiny"), tmp_path / "told", extra={"data": {"notation": Sound(9).to_dict()}}
    )
    assert notation_of(tmp_path / "told") == Sound(9) != Text()
