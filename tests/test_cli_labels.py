"""Labels on the command line: files give them back and are compared with them, and their absence is said."""

from __future__ import annotations

from contextlib import chdir
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from tiny_cli import Ask, Call

import ancestral
from ancestral.coding.manifest import Item, Manifest
from ancestral.coding.pictures import labels_name, restored_labels

SPEC = ancestral.DataSpec("image", (1, 4, 4), 256, 2)
EAGER = ("--engine", "eager")


@pytest.fixture
def home(tmp_path: Path) -> Path:
    """A conditional run ``two``, and pictures ``pets`` of two classes, one of which takes four tiles."""
    torch.manual_seed(0)
    ancestral.save(ancestral.build("gated-pixelcnn", SPEC, preset="tiny", conditional=True), tmp_path / "two")
    for i, (name, size) in enumerate({"cat/a": (4, 4), "dog/b": (7, 5), "dog/c": (4, 4)}.items()):
        (tmp_path / "pets" / name).parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(np.full(size, 7 * i, np.uint8)).save(tmp_path / "pets" / f"{name}.png")
    return tmp_path


def test_a_file_gives_its_labels_back_and_is_compared_with_them(home: Path, ask: Ask, call: Call) -> None:
    file, model = home / "pets.anc", ("--model", home / "two")
    ask("compress", home / "two", home / "pets", "--out", file, *EAGER)
    told = ask("decompress", file, *model, "--out", home / "out", *EAGER)
    assert told["labels"] == [0, 1, 1] and told["files"] == 3
    assert np.load(home / "out" / "labels.npy").tolist() == [0, 1, 1]
    code, _, err = call("decompress", file, *model, "--out", home / "out", *EAGER)
    assert code == 1 and "exists" in err

    (home / "lone").mkdir()
    np.save(home / "lone" / "labels.npy", np.zeros(1))
    code, _, err = call("decompress", file, *model, "--out", home / "lone", *EAGER)
    assert code == 1 and "labels.npy exists" in err and not (home / "lone" / "cat").exists()

    found = ask("verify", file, home / "pets", *model, *EAGER)
    assert found["labels"] is True and found["compared"] == 3
    assert "3 of them were compared with their labels" in call("verify", file, home / "pets", *model, *EAGER)[1]
    assert ask("verify", file, *model, *EAGER)["labels"] is None
    assert ask("verify", file, home / "pets", "--labels", 0, 1, 1, *model, *EAGER)["labels"] is True
    code, out, err = call("verify", file, "--labels", 0, 1, 1, *model, *EAGER)
    assert (code, out) == (1, "") and "name those files (FILES), or leave --labels out" in err and "0 pictures" not in err
    for labels, reason in (((0, 0, 1), "'dog/b.png' has label 1 in the file and 0 here"), ((0, 1), "2 labels for 3 pictures")):
        code, _, err = call("verify", file, home / "pets", "--labels", *labels, *model, *EAGER)
        assert code == 1 and reason in err, err
    with chdir(home):  # where the file finds its run, whose names nobody has asked for
        code, _, err = call("verify", file, home / "pets", "--labels", "cat", "dog", "dog", *EAGER)
        assert code == 1 and "--labels cat dog dog: give numbers, or name the run" in err


def test_a_file_without_labels_has_none_to_compare(home: Path, ask: Ask, call: Call) -> None:
    file, model = home / "cat.anc", ("--model", home / "two")
    ask("compress", home / "two", home / "pets" / "cat", "--out", file, *EAGER)
    assert ask("decompress", file, *model, "--out", home / "out", *EAGER)["labels"] is None
    assert not (home / "out" / "labels.npy").exists()
    assert ask("verify", file, home / "pets" / "cat", *model, *EAGER)["labels"] is None
    code, _, err = call("verify", file, home / "pets" / "cat", "--labels", 1, *model, *EAGER)
    assert code == 1 and "holds no labels" in err


def test_labels_stay_with_examples_when_others_are_lost() -> None:
    manifest = Manifest(SPEC, (Item("a", "L", (4, 4)), Item("b", "L", (7, 5)), Item("c.npy", "|u1", (3, 4, 4))))
    labels = torch.tensor([0, 1, 1, 1, 1, 0, 1, 0])
    assert restored_labels(labels, manifest, np.arange(8)) == [0, 1, 0, 1, 0]
    rows = np.array([0, 1, 2, 4, 6, 7])  # a tile of b and the first of c are lost
    assert restored_labels(labels[torch.from_numpy(rows)], manifest, rows) == [0, 1, 0]
    assert labels_name(manifest) == "labels.npy"
    assert labels_name(Manifest(SPEC, (Item("Labels.npy", "|u1", (3, 4, 4)),))) == "labels-2.npy"


def test_pictures_without_labels_are_said_to_take_the_null_label(home: Path, call: Call) -> None:
    words = ("score", home / "two", home / "pets" / "cat")
    code, out, err = call(*words)
    assert code == 0 and err.count("\n") == 1 and "null label" in err and "null label" not in out
    assert call(*words, "--labels", 1)[2] == ""
    ancestral.save(ancestral.build("gated-pixelcnn", SPEC, preset="tiny"), home / "plain")
    assert call("score", home / "plain", home / "pets" / "cat")[2] == ""
