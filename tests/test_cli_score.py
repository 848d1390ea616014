"""``ancestral score``: its table, JSON and page, classes and other data outside, and what it refuses."""

from __future__ import annotations

import csv
import json
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile
import torch
from tiny_cli import Ask, Call
from tiny_sequences import Letters, markov

import ancestral
from ancestral.cli import score as command
from ancestral.cli.commands import Score
from ancestral.data.notation import Sound
from ancestral.data.splits import Examples, Splits
from ancestral.data.tapes import Pieces
from ancestral.evaluation import complexity, score, separation, surprisal
from ancestral.hub import load
from ancestral.report.images import pixels, save_png
from ancestral.report.score_files import write_html, write_json
from ancestral.spec import DataSpec


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Runs of random weights: PixelCNNs ``digits`` and ``labelled``, ``agave``, ``codes``, and the density ``real``."""
    folder = tmp_path_factory.mktemp("runs")
    torch.set_default_dtype(torch.float64)
    torch.manual_seed(0)
    runs: dict[str, tuple[str, str, dict[str, Any]]] = {
        "digits": ("gated-pixelcnn", "digits", {}),
        "labelled": ("gated-pixelcnn", "digits", {"conditional": True}),
        "agave": ("agave", "digits", {}),
        "real": ("rnade", "measurements", {}),
        "codes": ("vq-vae", "digits", {}),
    }
    for name, (kind, source, options) in runs.items():
        data = ancestral.data(source, limit=40)
        model = ancestral.build(kind, data.spec, preset="tiny", **options)
        for weights in model.parameters():
            weights.data += 0.05 * torch.randn_like(weights)
        record = {"source": source, "options": {"limit": 40}, **data.describe()}
        ancestral.save(model, folder / name, extra={"data": record})
    return folder


def table(path: Path) -> list[dict[str, str]]:
    return list(csv.DictReader(path.read_text().splitlines()))


def held_out() -> Examples:
    return ancestral.data("digits", limit=40).test


# ---- what is written


def test_table_json_and_page_say_the_same(home: Path, ask: Ask, tmp_path: Path) -> None:
    places = [word for name in ("a.csv", "a.json", "a.html") for word in ("--out", tmp_path / name)]
    told = ask("score", home / "digits", *places, "--per-symbol", "--shown", "6")
    assert told["files"] == [str(tmp_path / f"a.{kind}") for kind in ("csv", "json", "html")]
    model, x, y = load(home / "digits"), held_out().x.long(), held_out().labels
    found, weights = score(model, x, per_symbol=True), complexity(x, model.spec)
    assert weights is not None and found.symbol_bits is not None and y is not None
    rows, content = table(tmp_path / "a.csv"), json.loads((tmp_path / "a.json").read_text())
    assert len(rows) == len(content["items"]) == told["items"] == 40
    for i, (row, item) in enumerate(zip(rows, content["items"], strict=True)):
        assert row["item"] == item["item"] == f"test {i}" and row["label"] == item["label"] == str(int(y[i]))
        assert float(row["bits"]) == item["bits"] == pytest.approx(float(found.bits[i]), rel=1e-6)
        assert float(row["complexity"]) == weights[1][i] and row["codec"] == "PNG" and row["status"] == "exact"
        assert float(row["corrected"]) == pytest.approx(item["bits"] - float(weights[1][i]))
        assert np.allclose(item["symbol_bits"], found.symbol_bits[i], atol=1e-4)
        assert np.sum(item["symbol_bits"]) == pytest.approx(item["bits"], rel=1e-5)
    assert told["complexity"] == pytest.approx(float(weights[1].mean())) and told["codec"] == "PNG"
    html = (tmp_path / "a.html").read_text()
    assert html.count("<img") == 6 and not re.search(r'(src|href)="(?!data:|#)', html) and "bits a pixel" in html
    best = min(rows, key=lambda row: float(row["bits"]))
    assert html.index("Least surprising") < html.index(f"{best['item']};") < html.index("Most surprising")


def test_json_without_the_bits_of_symbols_is_small(home: Path, ask: Ask, tmp_path: Path) -> None:
    ask("score", home / "agave", "--out", tmp_path / "a.json", "--limit", "5")
    content = json.loads((tmp_path / "a.json").read_text())
    assert len(content["items"]) == 5 and "symbol_bits" not in content["items"][0] and "symbol_bits" not in content
    assert {item["status"] for item in content["items"]} == {"bound"} and content["items"][0]["importance_samples"] == 1


def test_bits_of_symbols_with_latents_are_said_to_be_given_z(home: Path, ask: Ask, tmp_path: Path) -> None:
    ask("score", home / "agave", "--out", tmp_path / "a.json", "--per-symbol", "--limit", "3", "--batch-size", "2", "--seed", "4")
    content = json.loads((tmp_path / "a.json").read_text())
    rows = [int(item["item"].split()[1]) for item in content["items"]]
    nats = surprisal(load(home / "agave"), held_out().x[rows].long(), seed=4)
    assert "one z from the posterior" in content["symbol_bits"]
    assert np.allclose([item["symbol_bits"] for item in content["items"]], nats / np.log(2), atol=1e-4)
    ask("score", home / "agave", "--out", tmp_path / "a.html", "--limit", "3")
    assert "distortion" in (tmp_path / "a.html").read_text()


def test_of_codes_importance_samples_are_said_to_have_no_meaning(home: Path, call: Call, tmp_path: Path) -> None:
    code, _, err = call("score", home / "codes", "--importance-samples", "5", "--out", tmp_path / "a.json", "--limit", "3")
    assert code == 0 and "importance samples have no meaning and were not drawn" in err
    assert json.loads((tmp_path / "a.json").read_text())["items"][0]["importance_samples"] == 1


def test_densities_have_no_corrected_score(home: Path, ask: Ask, call: Call, tmp_path: Path) -> None:
    told = ask("score", home / "real", "--out", tmp_path / "a.csv", "--out", tmp_path / "a.html", "--against", "noise")
    assert told["complexity"] is None and told["corrected"] is None and told["codec"] is None
    assert {row["corrected"] for row in table(tmp_path / "a.csv")} == {""}
    assert {each["score"] for each in told["separations"]} == {"nats", "bits_per_dim"}
    assert "bits of each value" in (tmp_path / "a.html").read_text()


# ---- inside and outside


def test_classes_outside(home: Path, ask: Ask, tmp_path: Path) -> None:
    told = ask("score", home / "digits", "--outside", "9", "3", "--out", tmp_path / "a.csv")
    x, y = held_out().x.long(), held_out().labels
    assert y is not None
    out = (y == 9) | (y == 3)
    found = score(load(home / "digits"), x, corrected=True)
    assert found.corrected is not None
    expected = {
        "nats": separation(found.nats[~out], found.nats[out]),
        "bits_per_dim": separation(found.bits_per_dim[~out], found.bits_per_dim[out]),
        "corrected": separation(found.corrected[~out], found.corrected[out]),
    }
    assert [each["score"] for each in told["separations"]] == list(expected)
    for each in told["separations"]:
        want = expected[each["score"]]
        assert (each["auroc"], each["low"], each["high"]) == pytest.approx((want.auroc, want.low, want.high), abs=1e-4)
        assert (each["set"], each["inside"], each["outside"]) == ("class 9, 3", int((~out).sum()), int(out.sum()))
    assert {row["label"] for row in table(tmp_path / "a.csv") if row["set"] == "class 9, 3"} == {"9", "3"}
    assert told["items"] == int((~out).sum())


def test_other_data_outside(home: Path, ask: Ask, call: Call, tmp_path: Path) -> None:
    for i, image in enumerate(pixels(ancestral.data("photos", limit=12, channels=1).train.x, 256)):
        save_png(tmp_path / "photos" / f"{i}.png", image)
    words = ("score", home / "digits", "--against", "noise", "--against", "flat", "--against", tmp_path / "photos", "--size", "8")
    told = ask(*words, "--out", tmp_path / "a.html", "--limit", "10")
    assert [each["set"] for each in told["sets"]] == ["digits (test)", "noise", "flat", "photos"]
    assert [each["items"] for each in told["sets"]] == [10] * 4
    html = (tmp_path / "a.html").read_text()
    assert all(f"{name}, by corrected score" in html for name in ("noise", "flat", "photos"))
    code, out, _ = call(*words, "--out", tmp_path / "a.csv")
    assert code == 0 and "noise above digits (test): AUROC" in out and "DeLong" in out


def test_an_area_below_one_half_is_said_to_be_the_wrong_way(home: Path, call: Call, tmp_path: Path) -> None:
    np.save(tmp_path / "noise.npy", np.random.default_rng(0).integers(0, 17, (30, 8, 8)))
    words = ("score", home / "digits", tmp_path / "noise.npy", "--against", "digits", "--out", tmp_path / "a.html")
    code, out, _ = call(*words)
    sentence = "By nats and bits a symbol the model finds digits (test) likelier than noise.npy: an AUROC below 0.5."
    assert code == 0 and sentence in out and sentence in (tmp_path / "a.html").read_text()


def test_nobody_is_told_classes_in_a_comparison(home: Path, call: Call, ask: Ask, tmp_path: Path) -> None:
    plain = score(load(home / "labelled"), held_out().x.long())
    code, _, err = call("score", home / "labelled", "--against", "noise", "--out", tmp_path / "a.csv")
    assert code == 0 and err.count("null label") == 2
    own = [float(row["nats"]) for row in table(tmp_path / "a.csv") if row["set"] == "digits (test)"]
    assert own == pytest.approx(plain.nats.tolist(), rel=1e-5)
    assert ask("score", home / "labelled", "--out", tmp_path / "b.csv")["nats"] != pytest.approx(np.mean(own), rel=1e-7)


def test_a_data_set_gives_its_split_with_labels(home: Path, ask: Ask, tmp_path: Path) -> None:
    x, y = held_out().x.numpy()[:, 0], held_out().labels
    assert y is not None
    names = np.array(["nought", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine"])
    np.savez(tmp_path / "set.npz", x_train=x[:20], y_train=names[y[:20]], x_test=x[20:], y_test=names[y[20:]])
    told = ask("score", home / "digits", tmp_path / "set.npz", "--levels", "17", "--out", tmp_path / "a.csv")
    rows = table(tmp_path / "a.csv")
    assert told["items"] == 20 and [row["label"] for row in rows] == names[y[20:]].tolist()
    whole = ask("score", home / "digits", tmp_path / "set.npz", "--levels", "17", "--split", "all", "--outside", "nine")
    assert sum(each["items"] for each in whole["sets"]) == 40


def test_classes_are_numbered_as_those_of_the_run(ask: Ask, tmp_path: Path) -> None:
    model = ancestral.build("wavenet", DataSpec("audio", (8,), levels=256, classes=3), preset="tiny", conditional=True)
    record = {"notation": Sound(8000).to_dict(), "class_names": ["ann", "bob", "eve"], "options": {"label_from": ["0"]}}
    ancestral.save(model, tmp_path / "run", extra={"data": record})
    for name in ("bob", "eve"):
        waves = np.random.default_rng(len(name)).integers(-9000, 9000, (3, 800)).astype(np.int16)
        for i, wave in enumerate(waves):
            soundfile.write(tmp_path / f"{name}-{i}.wav", wave, 8000)
    ask("score", tmp_path / "run", tmp_path, "--split", "all", "--out", tmp_path / "a.csv", "--limit", 9)
    x = ancestral.data(tmp_path, label_from=["0"], notation=Sound(8000), pieces="blocks", length=8)
    sets = [getattr(x, part) for part in ("train", "validation", "test")]
    nats = torch.cat([score(load(tmp_path / "run"), each.x.long(), labels=each.labels + 1).nats for each in sets])
    rows = table(tmp_path / "a.csv")
    assert {row["label"] for row in rows} == {"bob", "eve"}
    first = {"train": 0, "validation": len(sets[0]), "test": len(sets[0]) + len(sets[1])}
    places = [first[part] + int(row) for part, row in (each["item"].split() for each in rows)]
    assert [float(row["nats"]) for row in rows] == pytest.approx(nats[places].tolist(), rel=1e-5)
    ask("score", tmp_path / "run", tmp_path / "bob-0.wav", "--split", "all", "--out", tmp_path / "b.csv")  # of no folder


# ---- sequences


def test_texts_of_any_length(tmp_path: Path) -> None:
    spec = DataSpec("text", (None,), levels=257, end=256)
    texts = [b"Rose is", b"", b"a rose & <b>"]
    x = torch.full((3, 14), 256)
    for row, text in enumerate(texts):
        x[row, : len(text)] = torch.tensor(list(text))
    model = markov(spec)
    model.notation = Letters()
    task = command._Task(Score(run=tmp_path, out=(), per_symbol=True), model)
    data = Splits(*[Examples(x)] * 3, spec, "texts", "")
    sets = [task.scored(task._set(data))]
    results = task.results(sets, {})
    write_json(tmp_path / "a.json", results)
    write_html(tmp_path / "a.html", results)
    items: list[dict[str, Any]] = json.loads((tmp_path / "a.json").read_text())["items"]
    for item, text in zip(items, texts, strict=True):
        assert len(item["symbol_bits"]) == len(text) + 1 and sum(item["symbol_bits"]) == pytest.approx(item["bits"])
        assert item["symbols"] == max(1, len(text)) and item["codec"] == "zstd"
    html = (tmp_path / "a.html").read_text()
    shown = ["".join(re.findall(r'bits">(.*?)</span>', block)) for block in re.findall(r'<div class="text">(.*?)</div>', html)]
    assert sorted(shown) == sorted(["Rose is⏹", "⏹", "a rose &amp; &lt;b&gt;⏹"])


def test_no_more_is_read_than_is_scored(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "a.txt").write_text("".join("x" * i + "\n" for i in range(1, 101)))
    data = ancestral.data(tmp_path / "a.txt", pieces="lines", labels=False)
    read = list[int]()
    select = Pieces.select
    monkeypatch.setattr(Pieces, "select", lambda self, rows: read.append(len(rows)) or select(self, rows))
    task = command._Task(Score(run=tmp_path, out=(), split="all"), markov(data.spec))
    found = task._set(data).limited(7, 3)
    assert read == [] and found.x.shape[0] == 7 and sum(read) == 7
    lengths = (found.x < 256).sum(1)
    assert found.x.shape[1] <= 1 + 100 and found.x.dtype == torch.int16
    sizes = torch.cat([each.lengths(data.spec) for each in (data.train, data.validation, data.test)])
    assert torch.equal(lengths, sizes[torch.tensor(found.rows)])


def test_text_files_are_read_as_a_run_was_trained(ask: Ask, call: Call, tmp_path: Path) -> None:
    data = ancestral.data("text", length=32, limit=6)
    record = {"source": "text", "options": {"length": 32, "limit": 6}, **data.describe()}
    model = ancestral.build("wavenet", data.spec, preset="tiny")
    ancestral.save(model, tmp_path / "run", extra={"data": record})
    words = "In the harbour a rose is a rose, and 64 bytes are two blocks of it."
    (tmp_path / "rose.txt").write_text(words)
    told = ask("score", tmp_path / "run", tmp_path / "rose.txt", "--out", tmp_path / "a.html", "--out", tmp_path / "a.csv")
    x = torch.tensor([list(words[:32].encode()), list(words[32:64].encode())])
    assert told["nats"] == pytest.approx(float(score(load(tmp_path / "run"), x).nats.mean()), rel=1e-5)
    shown = re.findall(r'<div class="text">(.*?)</div>', (tmp_path / "a.html").read_text())
    assert sorted(re.sub("<.*?>", "", block) for block in shown) == sorted([words[:32], words[32:64]])
    assert "the last 3 symbols" in call("score", tmp_path / "run", tmp_path / "rose.txt", "--out", tmp_path / "a.csv")[2]
    own = ask("score", tmp_path / "run", "--out", tmp_path / "b.csv", "--against", tmp_path / "rose.txt")
    assert [each["items"] for each in own["sets"]] == [len(data.test), 2] and own["codec"] == "zstd"


def test_sound_of_two_bytes(tmp_path: Path) -> None:
    spec = DataSpec("audio", (32,), levels=256, parts=2)
    x = torch.randint(0, 256, (4, 32))
    task = command._Task(Score(run=tmp_path, out=()), markov(spec))
    results = task.results([task.scored(task._set(Splits(*[Examples(x)] * 3, spec, "sounds", "")))], {})
    write_html(tmp_path / "a.html", results)
    html = (tmp_path / "a.html").read_text()
    assert html.count("bits of each sample") == 4 and results.sets[0].scores.codec == "FLAC"


# ---- faults


@pytest.mark.parametrize(
    ("words", "reason"),
    [
        ("--out a.txt", "give one of these endings"),
        ("--per-symbol", "--per-symbol is for a .json"),
        ("--shown 0", "must be at least 1"),
        ("--outside 12", "has no class 12; it has 0, 1"),
        ("--outside 0 1 2 3 4 5 6 7 8 9", "leave some inside"),
        ("rows.npy --outside 1", "has no labels"),
        ("rows.npy digits", "one data set by itself"),
        ("rows.npy --grey", "leave all but --size"),
        ("--against noise --against noise", "a name of its own"),
        ("--against nothing.png", "no file or folder nothing.png"),
    ],
)
def test_what_is_refused(
    words: str, reason: str, home: Path, call: Call, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    np.save("rows.npy", held_out().x.numpy()[:3])
    code, out, err = call("score", home / "digits", *words.split())
    assert (code, out) == (1, "") and reason in err and "Traceback" not in err
    assert not list(tmp_path.glob("a.*"))
