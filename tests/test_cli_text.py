"""Text on the command line: what is streamed, written, continued and refused, next to what the library gives."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from tiny_cli import Ask, Call
from torch import Tensor

import ancestral
from ancestral.core import Autoregressive
from ancestral.data.notation import Notation, Text
from ancestral.hub import load
from ancestral.sampling import complete, log_probs, sample

WORDS = "The sea, the séa, the ship and the shore: €5 a day.\n"
LETTERS = Text.characters(WORDS)
TOKENS = Text.bpe([WORDS * 3], 280)
EAGER = ("--engine", "eager")


def saved(folder: Path, notation: Notation, end: bool, **settings: object) -> None:
    """A fresh Transformer of text in a notation, as a run keeps it."""
    levels = notation.levels + end
    spec = ancestral.DataSpec("text", (None,) if end else (12,), levels, end=notation.levels if end else None)
    model = ancestral.build("transformer", spec, preset="tiny", **settings)
    ancestral.save(model, folder, extra={"data": {"notation": notation.to_dict(), "options": {}}})


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Runs on bytes, on tokens, and on lines of characters, of any length and with an end."""
    folder = tmp_path_factory.mktemp("home")
    torch.manual_seed(0)
    torch.set_default_dtype(torch.float64)
    saved(folder / "bytes", Text(), False)
    saved(folder / "tokens", TOKENS, False)
    saved(folder / "lines", LETTERS, True, places="rotary")
    return folder


def drawn(run: Path, n: int, **options: object) -> Tensor:
    model = load(run)
    assert isinstance(model, Autoregressive)
    return sample(model, n, engine="eager", **options)  # type: ignore[arg-type]


@pytest.mark.parametrize(("name", "notation"), [("bytes", Text()), ("tokens", TOKENS), ("lines", LETTERS)])
def test_texts_are_streamed_as_the_library_draws_them(
    name: str, notation: Text, home: Path, ask: Ask, call: Call, tmp_path: Path
) -> None:
    words = ("sample", home / name, "-n", 3, "--seed", 4, "--prompt", "The s", *EAGER)
    x = drawn(home / name, 3, seed=4, prompt=notation.encode("The s"))
    plain = [notation.decode(row) for row in x]
    texts = [each if isinstance(each, str) else each.decode("utf-8", "replace") for each in plain]
    code, out, err = call(*words)
    assert (code, err) == (0, "")
    assert out == ("" if name == "lines" else "----\n").join(f"{text}\n" for text in texts)
    assert all(text.startswith("The s") for text in texts)
    assert ask(*words)["texts"] == texts

    told = ask(*words, "--out", tmp_path / "new" / "x.txt")
    contents = [Path(path).read_bytes() for path in told["out"]]
    assert [Path(path).name for path in told["out"]] == ["x-1.txt", "x-2.txt", "x-3.txt"]
    assert contents == [each if isinstance(each, bytes) else each.encode() for each in plain]
    ask(*words, "--out", tmp_path / "x.npy")
    assert np.array_equal(np.load(tmp_path / "x.npy"), x.numpy())


def test_pieces_come_one_by_one_and_never_in_the_middle_of_a_character(home: Path) -> None:
    for notation in (Text(), TOKENS, LETTERS):
        pieces = list(notation.pieces(notation.encode(WORDS).tolist()))
        assert "".join(pieces) == WORDS and len(pieces) > 12 and "�" not in "".join(pieces)
    assert list(Text().pieces("€é".encode())) == ["", "", "€", "", "é", ""]
    assert list(Text().pieces(b"a\xe2\x82")) == ["a", "", "", "�"]  # cut off: what is left over shows


def test_symbols_reach_standard_output_before_the_next_is_drawn(home: Path, call: Call, monkeypatch: pytest.MonkeyPatch) -> None:
    from ancestral import sampling

    def interrupted(*_: object, **__: object) -> object:
        yield 0, torch.tensor([104])
        yield 1, torch.tensor([105])
        raise KeyboardInterrupt

    monkeypatch.setattr(sampling, "stream", interrupted)
    code, out, err = call("sample", home / "bytes")
    assert (code, out) == (130, "hi") and "interrupted" in err


def test_lengths_prompts_from_files_and_what_texts_weigh(home: Path, ask: Ask, tmp_path: Path) -> None:
    (tmp_path / "begin.txt").write_bytes("€5".encode())
    words = ("sample", home / "lines", "--prompt-file", tmp_path / "begin.txt", "--length", 9, "--log-prob", *EAGER)
    told, model = ask(*words), load(home / "lines")
    x = drawn(home / "lines", 1, prompt=LETTERS.encode("€5"), length=9)
    assert told["texts"] == [LETTERS.decode(x[0])]
    assert isinstance(model, Autoregressive)
    found = log_probs(model, x, prompt=LETTERS.encode("€5"))
    assert told["log_prob"] == pytest.approx(found.model.tolist())


def test_texts_go_on_where_their_beginning_is_known(home: Path, ask: Ask, tmp_path: Path) -> None:
    (tmp_path / "sea.txt").write_text(WORDS)
    words = ("complete", home / "lines", tmp_path / "sea.txt", "--known", "first:25%", "-n", 2, "--seed", 3, *EAGER)
    told, k, model = ask(*words), round(len(WORDS) / 4), load(home / "lines")
    total = len(WORDS) + 1
    known = LETTERS.encode(WORDS[:k])
    x = torch.zeros(2, total, dtype=torch.long)
    x[:, :k] = known
    done = complete(model, x, torch.arange(total) < k, seed=3, engine="eager")
    assert told["texts"] == [LETTERS.decode(row) for row in done.x]
    assert all(text.startswith(WORDS[:k]) for text in told["texts"])
    assert told["status"] == "exact" and told["log_evidence"] == pytest.approx(done.log_evidence[:1].tolist())
    ask(*words, "--out", tmp_path / "x.npy")
    assert np.array_equal(np.load(tmp_path / "x.npy"), done.x.numpy())


@pytest.mark.parametrize(
    ("words", "reason"),
    [
        (("sample", "bytes", "--prompt", "x" * 12), "ask for more"),
        (("sample", "bytes", "--length", "17"), "16 places"),
        (("sample", "bytes", "--length", "0"), "--length: ask for at least one"),
        (("sample", "bytes", "--seconds", "1"), "a text has none"),
        (("sample", "bytes", "--prompt", "a", "--prompt-file", "b"), "one of them"),
        (("sample", "bytes", "--columns", "2"), "--columns: for pictures"),
        (("sample", "lines", "--prompt", "%"), "'%'"),
        (("sample", "bytes", "--like", "x.wav"), "this run is on text"),
        (("complete", "lines", "README", "--known", "top"), "--known top: of text"),
        (("complete", "lines", "README", "--known", "first:2s"), "first:2s"),
        (("complete", "lines", "README", "--known", "first:0"), "nothing is known"),
        (("complete", "lines", "README", "--known", "first:inf"), "how much of its beginning"),
        (("complete", "lines", "README", "--known", "first:nan"), "how much of its beginning"),
        (("reconstruct", "bytes"), "has none"),
        (("complete", "lines", "README", "--known", "first:2", "--out", "x.png"), "name a .txt for text, a .npy for symbols"),
        (("sample", "lines", "--out", "x.wav"), "name a .txt for text"),
    ],
)
def test_what_has_no_meaning_is_refused(words: tuple[str, ...], reason: str, home: Path, call: Call, tmp_path: Path) -> None:
    (tmp_path / "sea.txt").write_text(WORDS)
    command, run, *others = words
    code, out, err = call(command, home / run, *(tmp_path / "sea.txt" if word == "README" else word for word in others))
    assert (code, out) == (1, "") and reason in err
