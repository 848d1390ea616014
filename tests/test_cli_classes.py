"""Classes on the command line: by name or number, one a file or one a piece, and read off files as they were in training."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from tiny_cli import Ask, Call

import ancestral
from ancestral.cli.classes import numbered
from ancestral.data.notation import Sound, Text
from ancestral.data.sounds import wav
from ancestral.hub import describe
from ancestral.report.images import save_png

RATE, LENGTH = 800, 16
EAGER = ("--engine", "eager")


def kept(folder: Path, name: str, spec: ancestral.DataSpec, data: dict[str, object], **settings: object) -> None:
    """A conditional model as a run keeps it, whose labels make a difference."""
    model = ancestral.build(name, spec, preset="tiny", conditional=True, **settings)
    for weight in model.parameters():
        torch.nn.init.normal_(weight, 0, 0.3)
    ancestral.save(model, folder, extra={"data": {"class_names": ["one", "two"], **data}})


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Runs on clips, lines, pictures and codes of two classes; and folders of what they are of."""
    folder = tmp_path_factory.mktemp("home")
    torch.manual_seed(0)
    torch.set_default_dtype(torch.float64)
    sound, letters = Sound(RATE), Text.characters("abc ")
    clips = ancestral.DataSpec("audio", (LENGTH,), 256, 2)
    written = {"notation": sound.to_dict(), "options": {"label_from": ["0"]}}
    kept(folder / "clips", "wavenet", clips, written)
    kept(folder / "along", "wavenet-vae", clips, written, form="local", halvings=2)
    exactly = Sound(RATE, "pcm16")
    spec = ancestral.DataSpec("audio", (2 * LENGTH,), 256, 2, parts=2)
    kept(folder / "pcm", "wavenet", spec, {"notation": exactly.to_dict(), "options": {"label_from": ["0"]}})
    lines = ancestral.DataSpec("text", (None,), letters.levels + 1, 2, end=letters.levels)
    written = {"notation": letters.to_dict(), "options": {"pieces": "lines"}}
    kept(folder / "lines", "transformer", lines, written, places="rotary")
    kept(folder / "grey", "gated-pixelcnn", ancestral.DataSpec("image", (1, 4, 4), 256, 2), {})
    for number, name in enumerate(("one", "two")):
        for place in ("sounds", "texts", "pictures"):
            (folder / place / name).mkdir(parents=True)
        samples = np.random.default_rng(number).integers(-9000, 9000, 3 * LENGTH, dtype=np.int16)
        (folder / "sounds" / name / f"{name}_{number}.wav").write_bytes(wav(samples, RATE))
        (folder / "texts" / name / "a.txt").write_text("ab cab\nb\ncc abba\n")
        save_png(folder / "pictures" / name / "a.png", np.full((4, 4, 1), 40 + 90 * number, np.uint8))
    return folder


def costs(path: Path) -> list[float]:
    rows = [line.split(",") for line in path.read_text().splitlines()]
    place = rows[0].index("nats")
    return [float(row[place]) for row in rows[1:]]


def test_files_tell_their_classes_as_they_did_in_training(home: Path, ask: Ask, call: Call, tmp_path: Path) -> None:
    for run, place in (("clips", "sounds"), ("lines", "texts"), ("grey", "pictures")):
        code, _, err = call("score", home / run, home / place, "--out", tmp_path / "told.csv")
        assert code == 0 and "null label" not in err
        pieces = 1 if run == "grey" else 3
        each = [word for word in ("one", "two") for _ in range(pieces)]
        ask("score", home / run, home / place, "--labels", *each, "--out", tmp_path / "said.csv")
        ask("score", home / run, home / place, "--labels", *reversed(each), "--out", tmp_path / "other.csv")
        assert costs(tmp_path / "told.csv") == costs(tmp_path / "said.csv") != costs(tmp_path / "other.csv")
    assert "null label" in call("score", home / "grey", home / "pictures" / "one", "--out", tmp_path / "a.csv")[2]


def test_labels_are_of_files_or_of_their_pieces(home: Path, ask: Ask, call: Call, tmp_path: Path) -> None:
    for labels in (("two", "one"), (1, 0), (1, 1, 1, 0, 0, 0)):
        ask("score", home / "clips", home / "sounds", "--labels", *labels, "--out", tmp_path / "a.csv")
        assert len(costs(tmp_path / "a.csv")) == 6
    code, _, err = call("score", home / "clips", home / "sounds", "--labels", 0, 1, 1, "--out", tmp_path / "a.csv")
    assert code == 1 and "3 labels for 6 clips of 2 files" in err
    code, _, err = call("score", home / "clips", home / "sounds", "--labels", "three", "--out", tmp_path / "a.csv")
    assert code == 1 and "are 0 one, 1 two" in err


def test_every_label_is_drawn(home: Path, ask: Ask, call: Call, tmp_path: Path) -> None:
    assert ask("sample", home / "lines", "--labels", "two", 0, *EAGER)["labels"] == [1, 0]
    assert ask("sample", home / "clips", "--labels", "two", "one", *EAGER, "--out", tmp_path / "a.wav")["number"] == 2
    assert ask("sample", home / "grey", "--labels", "two", *EAGER, "--out", tmp_path / "a.png")["labels"] == [1] * 16
    code, _, err = call("sample", home / "lines", "--labels", 1, 0, "-n", 1, *EAGER)
    assert code == 1 and "number is 1 and there are 2 labels" in err


def test_what_is_too_short_to_be_completed_is_left_out(home: Path, ask: Ask, call: Call) -> None:
    words = ("complete", home / "lines", home / "texts", "-n", 1, *EAGER, "--known")
    code, out, err = call(*words, "first:3")
    assert code == 0 and len(out.splitlines()) == 4 and "2 of 6 are left out" in err and "has 1 symbols" in err
    assert "null label" not in err  # their folders say
    assert "and 90 are to be known" in call(*words, "first:90")[2] and "nothing is known" in call(*words, "first:0")[2]


def test_clips_are_completed_up_to_the_length_that_latents_have(home: Path, ask: Ask, tmp_path: Path) -> None:
    told = ask("complete", home / "along", home / "sounds", "-n", 1, *EAGER, "--known", "first:4", "--out", tmp_path / "a.wav")
    assert len(told["out"]) == 2


def test_data_of_another_kind_are_told_from_those_of_the_run(home: Path, call: Call) -> None:
    for run, data, words in (
        ("lines", "digits", "digits holds no text, and"),
        ("clips", home / "texts", "holds text, and"),
        ("grey", home / "texts", "is of pictures"),
    ):
        code, _, err = call("evaluate", home / run, "--data", data)
        assert code == 1 and words in err


def test_labelled_text_is_read_as_that_of_the_run(home: Path, ask: Ask, tmp_path: Path) -> None:
    letters = Text.characters("abc ")
    spec = ancestral.DataSpec("text", (None,), letters.levels + 1, end=letters.levels)
    model = ancestral.build("transformer-vae", spec, preset="tiny")
    ancestral.save(model, tmp_path / "run", extra={"data": {"notation": letters.to_dict(), "options": {"pieces": "lines"}}})
    for name, line in (("one", "ab cab\n"), ("two", "cc abba\n")):
        (tmp_path / "labelled" / name).mkdir(parents=True)
        (tmp_path / "labelled" / name / "a.txt").write_text(line * 40)
    found = ask("latents", tmp_path / "run", "--labelled", tmp_path / "labelled", "--few", 2)
    assert {probe["examples"] for probe in found["probes"]} == {64, 4}
    kept_there = json.loads((tmp_path / "run" / "latents.json").read_text())["labelled"]["options"]
    assert kept_there["pieces"] == "lines" and kept_there["notation"] == letters.to_dict()


def test_files_are_compressed_with_the_classes_that_they_tell(home: Path, ask: Ask, call: Call, tmp_path: Path) -> None:
    files = [home / "sounds" / name / f"{name}_{i}.wav" for i, name in enumerate(("one", "two"))]
    for i, paths in enumerate((files, [home / "sounds"])):
        assert ask("compress", home / "pcm", *paths, "--out", tmp_path / f"{i}.anc", *EAGER)["labels"] is True
        ask("decompress", tmp_path / f"{i}.anc", "--model", home / "pcm", "--out", tmp_path / f"{i}", *EAGER)
        assert np.load(next((tmp_path / f"{i}").glob("*labels.npy"))).tolist() == [0, 1]
    ask("compress", home / "pcm", *files, "--labels", "one", 1, "--out", tmp_path / "c.anc", *EAGER)
    assert (tmp_path / "c.anc").read_bytes() == (tmp_path / "0.anc").read_bytes()
    ask("verify", tmp_path / "c.anc", *files, "--labels", "one", 1, "--model", home / "pcm", *EAGER)
    assert ask("verify", tmp_path / "c.anc", *files, "--model", home / "pcm", *EAGER)["labels"] is True
    code, _, err = call("verify", tmp_path / "c.anc", *files, "--labels", "two", 1, "--model", home / "pcm", *EAGER)
    assert code == 1 and "has another label" in err
    (tmp_path / "other.wav").write_bytes(files[0].read_bytes())
    assert "the null label" in call("compress", home / "pcm", tmp_path / "other.wav", "--out", tmp_path / "d.anc", *EAGER)[2]


def test_what_lies_beside_labelled_files_is_no_class(home: Path, ask: Ask, tmp_path: Path) -> None:
    """A table of labels, and a folder of another class beside one of the run's: two of them, as the run has classes."""
    (tmp_path / "tabled").mkdir()
    for name in ("a", "b"):
        (tmp_path / "tabled" / f"{name}.wav").write_bytes((home / "sounds" / "one" / "one_0.wav").read_bytes())
    (tmp_path / "tabled" / "labels.csv").write_text("file,class\na.wav,two\nb.wav,one\n")
    written = describe(home / "pcm")["data"] | {"options": {"label_from": ["class"]}}
    kept(tmp_path / "run", "wavenet", ancestral.DataSpec("audio", (2 * LENGTH,), 256, 2, parts=2), written)
    assert ask("compress", tmp_path / "run", tmp_path / "tabled", "--out", tmp_path / "a.anc", *EAGER)["labels"] is True
    ask("decompress", tmp_path / "a.anc", "--model", tmp_path / "run", "--out", tmp_path / "back", *EAGER)
    assert np.load(next((tmp_path / "back").glob("*labels.npy"))).tolist() == [1, 0, -1]
    for name in ("bird", "one"):
        (tmp_path / "pets" / name).mkdir(parents=True)
        (tmp_path / "pets" / name / "a.png").write_bytes((home / "pictures" / "one" / "a.png").read_bytes())
    assert ask("compress", home / "grey", tmp_path / "pets", "--out", tmp_path / "b.anc", *EAGER)["labels"] is False
    (tmp_path / "pets" / "one" / "labels.csv").write_bytes(b"\xff\xfe of something else")
    ask("score", home / "grey", tmp_path / "pets" / "one" / "a.png", "--out", tmp_path / "b.csv")


def test_classes_that_there_are_not(home: Path, tmp_path: Path) -> None:
    assert numbered(home / "lines", ["one", "1", "0"]) == [0, 1, 0]
    for word in ("2", "three", "-1", "²"):
        with pytest.raises(ValueError, match=r"are 0 one, 1 two"):
            numbered(home / "lines", [word])
    kept(tmp_path / "run", "gated-pixelcnn", ancestral.DataSpec("image", (1, 4, 4), 256, 3), {"class_names": ["1", "2", "5"]})
    assert numbered(tmp_path / "run", ["5", "1"]) == [2, 0]
    with pytest.raises(ValueError, match="are 1, 2, 5"):  # and not the first one
        numbered(tmp_path / "run", ["0"])
