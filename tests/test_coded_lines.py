"""Files of text whose lines are items: they cost what their likelihood says, ends and all, and come back byte for byte."""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import replace
from io import BytesIO
from math import log
from pathlib import Path

import numpy as np
import pytest
import torch
from tiny_cli import Ask, Call, calling
from tiny_clips import wavenet

import ancestral
from ancestral.coding import codec
from ancestral.coding.beside import Kept
from ancestral.coding.blocks import in_order
from ancestral.coding.clips import Clip, Sequences, cut, joined
from ancestral.coding.container import Block
from ancestral.coding.cutting import cut_to
from ancestral.coding.errors import CodecError, CorruptHeader, DecodeMismatch
from ancestral.coding.reader import Reader
from ancestral.coding.sequences import Restored
from ancestral.coding.texts import LINES, of_text, text_of
from ancestral.data.notation import Text
from ancestral.data.source import Array
from ancestral.hub import load, notation_of
from ancestral.walking.twin import twin

LETTERS = Text("characters", "abcé ")
SPEC = ancestral.DataSpec("text", (None,), levels=6, end=5)
LONG = "abc é" * 30
STORY = f"abc\n\nca é\r\nb €\n\r\n{LONG}\n\n\nb\nab"


def lines(n: int, seed: int = 0, longest: int = 12) -> bytes:
    """A text of so many lines that are not empty."""
    some = random.Random(seed)
    return "".join(
        "".join(some.choice(LETTERS.alphabet) for _ in range(some.randint(1, longest))) + "\n" for _ in range(n)
    ).encode()


# ---- texts


@pytest.mark.parametrize("notation", [Text(), LETTERS, Text("characters", "ab\n\r"), Text.bpe(["abc é\nabc" * 5], 280)])
def test_every_text_comes_back_from_its_lines(notation: Text) -> None:
    some = random.Random(0)
    for i in range(300):
        letters = ["aabbcc é\n\n\r€", "aaaabbbbbb    \n"][i % 2]
        data = "".join(some.choice(letters) for _ in range(some.randrange(80))).encode()
        data += b"\xff" * (i % 7 == 0 and notation.code != "bpe")
        for how in (True, False):
            told = of_text(data, notation, how)
            if told is not None:
                run, parts = told
                assert run.max(initial=0) <= notation.levels
                assert text_of(LINES[notation.code] if how else notation.code, run, parts, notation) == data


def test_lines_that_hold_something_are_what_is_coded() -> None:
    """Without carriage returns before their newlines, as examples are read; what comes after the last newline has no end."""
    told = of_text(b"a\n\nb \r\n\n\nc", LETTERS, True)
    assert told is not None
    run, (strangers, returned, empty) = told
    assert run.tolist() == [0, 5, 1, 4, 5, 2] and strangers == b""
    assert np.frombuffer(returned, "<u4").tolist() == [2] and np.frombuffer(empty, "<u4").tolist() == [1, 2, 1]  # gaps
    with_end = of_text(b"a\n", Text(), True)
    assert with_end is not None and with_end[0].tolist() == [97, 256]


# ---- items


def listed(texts: Sequence[bytes], width: int) -> tuple[Sequences, list[Array]]:
    told = [each for text in texts if (each := of_text(text, LETTERS, True)) is not None]
    clips = [Clip(f"{i}.txt", "characters lines", (), (len(run),), tuple(map(len, parts))) for i, (run, parts) in enumerate(told)]
    rows = np.array([0, 1, 2, 3, 4, 0, 1])
    runs = [*(run for run, _ in told), rows, rows[:0]]
    spec = ancestral.DataSpec("text", (width,), levels=6, end=5)
    return Sequences.of(spec, [*clips, Clip("x.npy", "<i8", (2, 7), (7, 0))], runs), runs


@pytest.mark.parametrize("width", [2, 3, 7, 8, 200])
def test_items_are_lines_and_the_runs_come_back(width: int) -> None:
    manifest, runs = listed([STORY.encode(), b"", b"abc\n", b"\n\n"], width)
    x, rows = cut(runs, manifest), np.arange(manifest.total)
    assert x.shape == (manifest.total, width) and manifest.ended
    assert [item.lines for item in manifest.items[1:]] == [0, -(-4 // width), 0, None]
    if width == 200:
        assert manifest.items[0].lines == 6 and x[1].tolist() == [2, 0, 4, 3, *[5] * 196]
    assert Sequences.from_text(manifest.text(), manifest.spec) == manifest
    for run, found in zip(runs, joined(x, manifest, rows), strict=True):
        assert found is not None and np.array_equal(run, found)
    lost = joined(x[1:], manifest, rows[1:])
    assert [i for i, run in enumerate(lost) if run is None] == [0]
    with pytest.raises(CodecError, match="of other lines"):
        joined(x.roll(1, 1).masked_fill(torch.arange(width) == 0, 5), manifest, rows)


def test_items_are_as_long_as_the_longest_line_where_the_model_takes_that() -> None:
    model = wavenet(SPEC)
    assert cut_to(model, [], None, 150).spec.shape == (150,)
    assert cut_to(model, [], 20, 150).spec.shape == (20,) and cut_to(model, [], 200, 150).spec.shape == (150,)
    own = ancestral.build("transformer", SPEC, preset="tiny")
    assert cut_to(own, [], None, 150).spec.sites < 150  # learned places: lines that are longer are cut


# ---- blocks


@pytest.mark.parametrize("engine", ["eager", pytest.param("native", marks=pytest.mark.slow)])
@pytest.mark.parametrize("name", ["wavenet", "transformer-vae"])
def test_lines_cost_what_the_model_says_of_them_with_their_ends(name: str, engine: str) -> None:
    torch.manual_seed(0)
    model = wavenet(SPEC) if name == "wavenet" else ancestral.build(name, SPEC, preset="tiny", places="rotary").float()
    manifest, runs = listed([lines(400)], 13)
    model = ancestral.arrange(model, shape=(13,))
    x = cut(runs, manifest)
    file = BytesIO()
    codec.write(file, model, x, ended=True, engine="eager")
    opened = codec.Opened(Reader(file.getvalue()), model, engine)
    assert torch.equal(torch.cat([items for _, items in opened.blocks()]), x.long())
    [(_, items, size)] = Reader(file.getvalue()).info().blocks.values()
    exact = twin(model, x.long(), engine="eager")
    nats = exact.cost(x.long())
    assert items == len(x) and abs(8 * size - float(nats.sum()) / log(2)) < 8 * 24


def test_a_long_line_leaves_the_blocks_of_others_alone() -> None:
    spec = ancestral.DataSpec("text", (20001,), levels=6, end=5)
    lengths = torch.tensor([40] * 3000 + [20000] + [40] * 5000)
    sizes = [len(each) for each in in_order(spec, lengths)]
    assert sum(sizes) == len(lengths) and max(sizes) <= 4096
    assert sizes[0] == 3000 and sizes[1] == 16 and sizes[2] == 4096


# ---- commands


@pytest.fixture
def call(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> Call:
    run = calling(capsys, monkeypatch)
    return lambda *words: run(*words, *([] if words[0] in ("info", "score") else ["--engine", "eager"]))


@pytest.fixture
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The current folder, with a run of lines and a folder of files."""
    monkeypatch.chdir(tmp_path)
    torch.manual_seed(0)
    record = {"notation": LETTERS.to_dict(), "options": {"pieces": "lines"}}
    ancestral.save(wavenet(SPEC), "runs/lines", extra={"data": record})
    contents = {"a.txt": lines(40), "b/story.txt": STORY.encode(), "c.bin": bytes(range(256)), "none.txt": b"", "n": b"\n\n"}
    for name, content in contents.items():
        (tmp_path / "texts" / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "texts" / name).write_bytes(content)
    return tmp_path


def assert_same(folder: str, other: str) -> None:
    for file in Path(other).rglob("*"):
        assert file.is_dir() or (Path(folder) / file.relative_to(other)).read_bytes() == file.read_bytes(), file


@pytest.mark.parametrize("options", [(), ("--block", 1), ("--block", 9), ("--embed-model",)])
def test_a_folder_comes_back(options: tuple[object, ...], place: Path, ask: Ask) -> None:
    np.save("rows.npy", np.array([[0, 1, 5, 5], [2, 3, 4, 0]]))
    told = ask("compress", "runs/lines", "texts", "rows.npy", "--out", "x.anc", *options)
    found = ask("info", "x.anc")
    assert told["files"] == 6 and found["whole"] and found["items"] == told["items"] >= 40 + 6 + 2
    assert ask("verify", "x.anc", "texts", "rows.npy")["compared"] == 7
    ask("decompress", "x.anc", "--out", "back")
    assert_same("back/texts", "texts")
    assert np.array_equal(np.load("back/rows.npy"), np.load("rows.npy"))
    Path("texts/a.txt").write_bytes(lines(40, seed=1))
    with pytest.raises(AssertionError, match="one of them was changed"):
        ask("verify", "x.anc", "texts", "rows.npy")


def test_a_text_takes_what_its_score_says(place: Path, ask: Ask) -> None:
    """Of lines, as they were trained on: not of pieces that go on from one line to the next."""
    Path("text.txt").write_bytes(lines(2000, longest=30))
    ask("compress", "runs/lines", "text.txt", "--out", "x.anc")
    found, scored = ask("info", "x.anc"), ask("score", "runs/lines", "text.txt", "--out", "s.csv")
    bits = scored["nats"] * scored["items"] / log(2)
    assert found["items"] == scored["items"] == 2000
    assert 8 * found["payload_bytes"] < 1.01 * bits + 8 * 40


def test_damage_loses_the_texts_that_it_hits(place: Path, ask: Ask, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("ancestral.coding.blocks.BLOCK_BITS", 1)
    ask("compress", "runs/lines", "texts", "--out", "x.anc")
    data = bytearray(Path("x.anc").read_bytes())
    blocks = list(Reader(bytes(data)))
    data[bytes(data).index(blocks[1].payload) + 3] ^= 1
    Path("x.anc").write_bytes(data)
    told = ask("decompress", "x.anc", "--out", "back", "--errors", "skip")
    assert told["lost"] == ["a.txt"] and told["files"] == 4
    Path("texts/a.txt").unlink()
    assert_same("back", "texts")


def test_headers_that_contradict_themselves_are_refused(place: Path, call: Call) -> None:
    model, notation = load("runs/lines"), notation_of("runs/lines")
    assert notation == LETTERS
    manifest, runs = listed([b"ab\nc\n"], 4)
    x = cut(runs, manifest)
    model = ancestral.arrange(model, shape=(4,))
    for ended, ends in ((False, None), (True, [1, 1]), (True, "2"), (True, [0, len(x)])):
        header = {"files": manifest.text(), **({} if ends is None else {"ends": ends})}
        with Path("x.anc").open("wb") as file:
            codec.write(file, model, x, ended=ended, header=header, engine="eager")
        code, _, err = call("info", "x.anc")
        assert code == 1 and ("whether items are lines" in err or "in which blocks its" in err)


def test_a_block_that_says_something_else_is_found(place: Path) -> None:
    manifest, runs = listed([lines(30)], 13)
    model, x = ancestral.arrange(load("runs/lines"), shape=(13,)), cut(runs, manifest)
    file = BytesIO()
    codec.write(file, model, x, ended=True, engine="eager")
    opened = codec.Opened(Reader(file.getvalue()), model, "eager")
    [block] = opened.reader
    for payload in (b"\0\0\0\0" + block.payload[4:], b"\xff" * 8, block.payload[:4], b"\16" + block.payload[1:]):
        with pytest.raises(DecodeMismatch):
            opened.decoded(Block(0, block.kind, block.items, payload, block.digest))


def test_what_is_kept_beside_and_does_not_fit_is_named(place: Path) -> None:
    manifest, runs = listed([STORY.encode()], 200)
    clip = manifest.items[0]
    for sizes in (clip.beside, (clip.beside[0], clip.beside[1] - 1, clip.beside[2] + 1)):  # places far behind the text; odd ones
        restored = Restored(manifest, list(runs), Kept({}, 0), LETTERS)
        with pytest.raises(CorruptHeader, match="does not fit what is kept beside it"):
            restored._content(replace(clip, beside=sizes), runs[:1], b"\x63" * sum(sizes))


def test_only_sequences_that_end_are_coded_with_their_ends(place: Path) -> None:
    image = ancestral.build("gated-pixelcnn", ancestral.DataSpec("image", (1, 4, 4), levels=2), preset="tiny")
    with pytest.raises(ValueError, match="have no end"):
        codec.write(BytesIO(), image, torch.zeros(2, 1, 4, 4, dtype=torch.long), ended=True)
    file = BytesIO()
    codec.write(file, image, torch.zeros(2, 1, 4, 4, dtype=torch.long), header={"ends": [2]}, engine="eager")
    with pytest.raises(CorruptHeader, match="and they have none"):
        codec.Opened(Reader(file.getvalue()), image, "eager")


def test_files_that_are_kept_as_they_are_are_compared_so(place: Path, ask: Ask) -> None:
    """One strange character in 42 is too many for lines, 40 of them empty, and not for one run."""
    newlines = Text("characters", "ab\n")
    record = {"notation": newlines.to_dict(), "options": {"pieces": "lines"}}
    ancestral.save(wavenet(ancestral.DataSpec("text", (None,), levels=4, end=3)), "runs/short", extra={"data": record})
    Path("text.txt").write_bytes(b"\n" * 40 + "é".encode())
    ask("compress", "runs/short", "text.txt", "--out", "x.anc")
    assert ask("verify", "x.anc", "text.txt")["compared"] == 1


def test_arrays_of_a_run_that_says_no_notation(place: Path, ask: Ask) -> None:
    ancestral.save(wavenet(SPEC), "runs/bare")
    np.save("rows.npy", np.array([[0, 1, 5, 5], [2, 3, 4, 0]]))
    ask("compress", "runs/bare", "rows.npy", "--out", "x.anc")
    assert ask("verify", "x.anc", "rows.npy")["compared"] == 2
