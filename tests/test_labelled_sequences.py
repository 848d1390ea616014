"""Labels of text and sound: of tables, folders and names, and beside lists and arrays."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile
import torch
from test_sequences_data import clip

from ancestral.data import load_data
from ancestral.symbols import DataError


def test_a_set_without_subfolders_has_no_labels(tmp_path: Path) -> None:
    for place in ("test", "train/no", "train/yes"):
        (tmp_path / place).mkdir(parents=True)
        for i in range(5):
            soundfile.write(tmp_path / place / f"{i}.wav", clip(0.01, 200), 8000)
    data = load_data(tmp_path)
    assert data.test.labels is None and data.class_names == ("no", "yes")
    assert data.train.labels is not None and set(data.train.labels.tolist()) == {0, 1}


def test_labels_of_a_table_and_of_folders(tmp_path: Path) -> None:
    for part in ("train", "test"):
        for word in ("yes", "no"):
            (tmp_path / part / word).mkdir(parents=True)
            for i in range(5):
                soundfile.write(tmp_path / part / word / f"{part}{word}{i}.wav", clip(0.01, 200), 8000)
    data = load_data(tmp_path)
    assert data.class_names == ("no", "yes") and len(data.test) == 10 and sorted(data.test.labels.tolist()) == [0] * 5 + [1] * 5  # type: ignore[union-attr]
    assert load_data(tmp_path, labels=False).spec.classes is None
    names = [path.relative_to(tmp_path).as_posix() for path in sorted(tmp_path.rglob("*.wav"))]
    lines = [f"{name},{i % 3},{'ab'[i % 2]}" for i, name in enumerate(names)]
    (tmp_path / "labels.csv").write_text("\n".join(["file,size,kind", *lines]))
    assert load_data(tmp_path).class_names == ("0_a", "0_b", "1_a", "1_b", "2_a", "2_b")
    assert load_data(tmp_path, label_from=["kind", "folder"]).class_names == ("a_no", "a_yes", "b_no", "b_yes")
    with pytest.raises(DataError, match="not 'colour'"):
        load_data(tmp_path, label_from=["colour"])
    with pytest.raises(DataError, match="no part 7"):
        load_data(tmp_path, label_from=["7"])
    (tmp_path / "labels.csv").write_text("\n".join(["file,size,kind", *lines[:-1]]))
    with pytest.raises(DataError, match=r"no line for trainyes4\.wav"):
        load_data(tmp_path)


def test_blocks_of_labelled_files_are_cut_class_by_class(tmp_path: Path) -> None:
    """Sorted by class, the last class would else be all that is validated and tested on."""
    for name in ("one", "two"):
        (tmp_path / name).mkdir()
        for i in range(3):
            (tmp_path / name / f"{i}.txt").write_text(f"{name} {i} " * 60)
    data = load_data(tmp_path, length=8)
    for part in (data.train, data.validation, data.test):
        assert set(part.labels.tolist()) == {0, 1}
    assert "each class cut in order: 90 % train" in data.note
    found = "".join(bytes(row.tolist()).decode() for row in data.test.x)
    assert "one 2" in found and "two 2" in found and "one 1" not in found  # the ends of the last files
    (tmp_path / "one" / "0.txt").write_text("short")
    for i in (1, 2):
        (tmp_path / "one" / f"{i}.txt").unlink()
    assert "; cut in order" in load_data(tmp_path, length=8).note  # of so little no set would get a block


CLASSES = [i % 3 for i in range(40)]
WAVES = [clip(0.01 + i / 800, 100 + i) for i in range(40)]
WORDS = [f"line {i}" for i in range(40)]


@pytest.mark.parametrize("labels", [CLASSES, np.array(CLASSES), torch.tensor(CLASSES), ["abc"[i] for i in CLASSES]])
@pytest.mark.parametrize(
    ("source", "options"), [(WAVES, {"rate": 8000, "notation": "pcm16"}), (WORDS, {})], ids=["sounds", "strings"]
)
def test_a_list_may_be_in_a_pair_with_labels(source: list[Any], options: dict[str, Any], labels: Any) -> None:
    data = load_data((source, labels), **options)
    assert data.spec.classes == 3 and data.class_names in ((), ("a", "b", "c")) and data.notation is not None
    found = {}
    for part in (data.train, data.validation, data.test):
        assert part.labels is not None
        for row, label in zip(part.x, part.labels.tolist(), strict=True):
            each = data.notation.decode(row)
            found[each.decode() if isinstance(each, bytes) else tuple(torch.as_tensor(each).tolist())] = label
    assert found == {each if isinstance(each, str) else tuple(each.tolist()): i for each, i in zip(source, CLASSES, strict=True)}


def test_rows_of_an_array_are_sounds_and_options_of_labels_hold() -> None:
    rows = np.stack([wave[:80] for wave in WAVES])
    data = load_data((rows, CLASSES), rate=8000, pieces="blocks", length=16, leave_out=["1"])
    assert "each class cut in order" in data.note
    assert data.train.labels is not None and set(data.train.labels.tolist()) == {0, 2}
    listed = load_data([*rows], rate=8000)
    assert load_data(torch.from_numpy(rows), rate=8000).hash == listed.hash != load_data((rows, CLASSES), rate=8000).hash
    assert load_data((rows, CLASSES), rate=8000, labels=False).hash == listed.hash


@pytest.mark.parametrize(
    ("source", "options", "match"),
    [
        ((WAVES, CLASSES[1:]), {"rate": 8000}, r"labels beside them have shape \(39,\) .* give each of the 40"),
        ((WORDS, [0.5] * 40), {}, "type float64"),
        ((WORDS, "a" * 40), {}, r"shape \(\)"),
        ((WAVES[0], CLASSES), {"rate": 8000}, "give each of the 1 a name"),
        (np.zeros((1000, 2), np.float32), {"rate": 8000}, r"look like channels: give one, x\[:, 0\]"),
        ((WAVES, CLASSES), {}, r"needs its rate: .* data\(\(waves, labels\), rate=16000\)"),
        ((WAVES, CLASSES), {"rate": 8000, "label_from": ["0"]}, "label_from says what classes the files"),
        ((WORDS, [-1] * 40), {}, "whole numbers from 0"),
    ],
)
def test_labels_that_do_not_fit_are_refused(source: Any, options: dict[str, Any], match: str) -> None:
    with pytest.raises(DataError, match=match):
        load_data(source, **options)
