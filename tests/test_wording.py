"""How varied drawn texts are, and what of them training texts hold."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import pytest
import torch
from tiny_cli import asking, calling

import ancestral
from ancestral.data.notation import Text
from ancestral.data.splits import Examples, Splits
from ancestral.evaluation.wording import Wording, _repeated, _variety, grams, wording, words_of
from ancestral.report.judged import sample_wording
from ancestral.sampling.strategies import Model
from ancestral.symbols import DataError

LINES = ["the cat sat on the mat .", "a dog saw the cat", "the dog sat on a mat !", "no cat saw no dog"]


def texts(lines: list[str], notation: Text, length: int) -> Examples:
    rows = torch.full((len(lines), length), notation.levels)
    for row, line in zip(rows, lines, strict=True):
        row[: len(line)] = notation.encode(line)
    return Examples(rows)


def splits(train: list[str], test: list[str]) -> Splits:
    notation, length = Text.characters("".join(train + test)), 1 + max(map(len, train + test))
    spec = ancestral.DataSpec("text", (None,), levels=notation.levels + 1, end=notation.levels)
    sets = (texts(train, notation, length), texts(train[:1], notation, length), texts(test, notation, length))
    return Splits(*sets, spec, "lines", "Lines of a test.", notation=notation)


def untrained(data: Splits) -> Model:
    torch.manual_seed(0)
    return ancestral.build("transformer", data.spec, preset="tiny", places="rotary")


def test_words_and_marks_are_told_apart() -> None:
    assert words_of("KING: don't, I say -- don’t!") == ["king", ":", "don't", ",", "i", "say", "-", "-", "don’t", "!"]
    assert list(grams(["a", "b", "c"], 2)) == [("a", "b"), ("b", "c")] and not list(grams(["a"], 2))


def test_shares_are_those_of_a_count_by_hand() -> None:
    known = {1: {hash(("the",))}, 2: {hash(("the", "cat"))}}
    found = _variety([["the", "cat", "the"], ["cat"]], {1: 4, 2: 2}, known)
    assert found.distinct == {1: 0.5, 2: 1.0}
    assert found.unseen == {1: 0.5, 2: 0.5} and found.words == 2
    assert _variety([["a", "a", "b", "c"]], {1: 2}, None).distinct == {1: 0.5}  # of the first two alone
    assert _repeated(["x"] * 8) == pytest.approx(0.8) and _repeated(list("abcdefgh")) == 0 == _repeated(["x"])


def test_sets_are_compared_over_as_many_runs() -> None:
    data = splits(LINES, ["the cat sat on a cat .", "no mat"])
    found = wording(untrained(data), data, samples=2)
    held_out = [words_of(line) for line in ("the cat sat on a cat .", "no mat")]
    assert found.count == 2 and found.pool == sum(len(line.split()) for line in LINES)
    train = Counter(gram for line in LINES for gram in grams(words_of(line), 3))
    every = [gram for words in held_out for gram in grams(words, 3)]
    assert found.test.unseen is not None and found.training.unseen is None
    shares = {n: share for n, share in found.test.unseen.items() if n == 3}
    assert shares in ({}, {3: sum(gram not in train for gram in every) / len(every)})  # none where samples have no three words
    assert found.test.words == 4.5 and found.test_copies == 0
    assert Wording.from_dict(found.to_dict()) == found
    again = Wording.from_dict({**found.to_dict(), "test": {**found.to_dict()["test"], "distinct": {"1": 0.25}}})
    assert again.test.distinct == {1: 0.25}  # names of JSON
    assert found.lines()[0].endswith("2 texts of each set")


def test_copies_of_training_texts_are_found() -> None:
    data = splits(LINES, [LINES[2], LINES[0]])
    found = wording(untrained(data), data, samples=2, seed=3)
    assert found.test_copies == 1 and found.copies == 0
    assert found.test.unseen is not None and set(found.test.unseen.values()) == {0.0}
    assert found.samples.unseen is not None and found.samples.unseen[1] > 0.5


def test_what_is_no_text_is_refused() -> None:
    digits = ancestral.data("digits")
    model = ancestral.build("vae", digits.spec, preset="tiny")
    with pytest.raises(DataError, match="no text whose notation is known"):
        wording(model, digits)
    data = splits(LINES, LINES[:1])
    with pytest.raises(ValueError, match="samples is 0"):
        wording(untrained(data), data, samples=0)


def test_the_command_keeps_it_and_a_page_shows_it(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    torch.set_default_dtype(torch.float32)
    options = {"notation": "characters", "length": 48}
    data, run = ancestral.data("text", **options), tmp_path / "run"
    model = ancestral.build("transformer", data.spec, preset="tiny", context=48)
    assert data.notation is not None
    record = {"source": "text", "options": options, "notation": data.notation.to_dict(), "hash": data.hash, "note": data.note}
    ancestral.save(model, run, extra={"data": record})
    call = calling(capsys, monkeypatch)
    ask = asking(call)
    found = ask("quality", run, "--samples", "6")
    assert found["count"] == 6 and found["samples"]["words"] > 1
    assert ask("inspect", run)["quality"]["samples"] == found["samples"]
    code, _, err = call("quality", run, "--classifier", tmp_path / "weights")
    assert code == 1 and "without a classifier" in err
    page = sample_wording(Wording.from_dict(found))
    assert "Words not in training" in page and "6 texts of each set" in page
