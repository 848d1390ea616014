"""The pages of runs on text and sound: what they show is what the model draws and what the examples cost."""

from __future__ import annotations

import re
from base64 import b64decode
from dataclasses import replace
from html import unescape
from io import BytesIO
from math import log
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile
import torch
from test_report import Page

import ancestral
from ancestral.data.notation import Sound, Text
from ancestral.data.splits import Splits
from ancestral.evaluation import surprisal
from ancestral.evaluation.likeness import NEIGHBOURS
from ancestral.report import describe, report
from ancestral.report.page import visible
from ancestral.report.remake import commands
from ancestral.report.sequences import FEW
from ancestral.sampling import sample

SECTIONS = ["Figures", "Samples", "Completion", "Surprisal", "Configuration", "Provenance"]
JUDGED = [*SECTIONS[:2], "Sample quality", *SECTIONS[2:]]
MEL = {"condition": "mel", "local": 5, "hop": 16}
PROSE = "The sea is <wide> & the shore is near; é goes far.\n" * 60


def written(data: Splits, folder: Path, name: str, **settings: Any) -> tuple[Page, Any]:
    """The page of a fresh model of some data, and the model."""
    torch.manual_seed(0)
    model = ancestral.build(name, data.spec, preset="tiny", **settings)
    ancestral.save(model, folder)
    return Page(report(folder, data)), model


def text_of(html: str) -> str:
    return unescape(re.sub(r"<[^>]*>", "", html))


@pytest.mark.parametrize("notation", ["bytes", "characters", "bpe"])
def test_a_page_of_text(notation: str, tmp_path: Path) -> None:
    (tmp_path / "sea.txt").write_text(PROSE, encoding="utf-8")
    options = {"vocabulary": 300} if notation == "bpe" else {}
    data = ancestral.data(tmp_path / "sea.txt", notation=notation, length=16, **options)
    page, model = written(data, tmp_path / "run", "transformer")
    judged = len(data.test) > NEIGHBOURS
    assert page.sections == (JUDGED if judged else SECTIONS) and ("Words not in training" in page.words) == judged
    assert judged or notation == "bpe"
    assert len(page.ids) == len(set(page.ids))
    assert isinstance(data.notation, Text)
    rows = torch.linspace(0, len(data.test) - 1, min(8, len(data.test))).round().long()
    examples = data.test.select(rows).x.long()
    shown = text_of(page.html)
    for row in sample(model, min(FEW, len(examples)), seed=0):
        assert visible("".join(data.notation.pieces(row.tolist()))) in shown
    assert all("".join(data.notation.pieces(row.tolist())) in shown for row in examples[:FEW])
    bits = surprisal(model, examples[:FEW]) / log(2)
    titles = [float(found) for found in re.findall(r'title="([\d.]+) bits"', page.html)]
    assert sum(titles) == pytest.approx(float(bits.sum()), abs=0.006 * len(titles))
    assert "bits/byte" in page.words and ("bound" in page.words) == (notation == "bpe")


def test_a_page_of_lines_that_end(tmp_path: Path) -> None:
    lines = [f"{i} and {'so ' * (i % 4)}on" for i in range(40)]
    data = ancestral.data(lines, notation="characters")
    page, _ = written(data, tmp_path / "run", "transformer", places="rotary")
    assert page.sections == JUDGED
    assert "⏹" in page.words  # what the end costs is shown too


def clips(data: Splits, page: Page) -> list[np.ndarray[Any, Any]]:
    """The samples of every clip that a page plays."""
    assert isinstance(data.notation, Sound)
    sources = [value.removeprefix("data:audio/wav;base64,") for name, value in page.links if value.startswith("data:audio")]
    found = [soundfile.read(BytesIO(b64decode(source)), dtype="int16") for source in sources]
    assert {rate for _, rate in found} == {data.notation.rate}
    return [samples for samples, _ in found]


@pytest.mark.parametrize(
    ("options", "settings"),
    [
        ({}, {"conditional": True}),
        ({"notation": "pcm16"}, {}),
        ({"pieces": "files"}, {"condition": "mel", "local": 5, "hop": 16}),
    ],
)
def test_a_page_of_sound(options: dict[str, Any], settings: dict[str, Any], tmp_path: Path) -> None:
    rate, pitches = 400, [40 + 3 * i for i in range(20)]
    (tmp_path / "tones").mkdir()
    for i, pitch in enumerate(pitches):
        wave = 0.5 * np.sin(2 * np.pi * pitch * np.arange(60 + i % 5) / rate)
        soundfile.write(tmp_path / "tones" / f"{'ab'[i % 2]}-{i}.wav", wave, rate)
    cut = {} if "pieces" in options else {"pieces": "blocks", "length": 60}
    data = ancestral.data(tmp_path / "tones", label_from=("0",), **cut, **options)
    page, model = written(data, tmp_path / "run", "wavenet", **settings)
    assert page.sections == SECTIONS and len(page.ids) == len(set(page.ids))
    heard = clips(data, page)
    n = min(FEW, len(data.test))
    assert len(heard) == n + n + 3 * n  # data, samples, and of each example itself and two continuations
    assert isinstance(data.notation, Sound)
    first = data.notation.decode(data.test.x[0].long())
    assert np.array_equal(heard[0], first.numpy())
    assert np.array_equal(heard[2 * n], first.numpy())
    half = len(first) // 2
    assert all(np.array_equal(each[:half], heard[2 * n][:half]) for each in heard[2 * n + 1 : 2 * n + 3])
    if not settings:
        drawn = sample(model, n, seed=0)
        assert all(np.array_equal(each, data.notation.decode(row).numpy()) for each, row in zip(heard[n:], drawn, strict=False))
    assert ("its features" in page.words) == ("condition" in settings)


def test_sound_and_text_without_a_notation(tmp_path: Path) -> None:
    for kind in ("audio", "text"):
        spec = ancestral.DataSpec(kind, (24,), 5)
        x = torch.randint(0, 5, (12, 24), dtype=torch.uint8)
        data = ancestral.data(x)
        sets = {part: replace(getattr(data, part)) for part in ("train", "validation", "test")}
        page, _ = written(Splits(**sets, spec=spec, name="symbols", note="Symbols."), tmp_path / kind, "wavenet")
        assert page.sections == SECTIONS and "audio" not in {tag for figure in page.figures for tag in figure}


def test_models_of_sound_say_how_far_they_see() -> None:
    spec = ancestral.DataSpec("audio", (64,), 256)
    lines = describe(ancestral.build("wavenet", spec, preset="tiny"))
    assert "receptive field  7 symbols before it" in lines


def test_commands_that_make_a_run_again_know_how_text_was_read(tmp_path: Path) -> None:
    config = {
        "model": "wavenet",
        "config": {**vars(ancestral.build("wavenet", ancestral.DataSpec("audio", (8,), 256), preset="tiny").config)},
        "training": {"seed": 3},
        "stages": [{"steps": 5}],
        "data": {"source": "tones", "options": {"notation": "pcm16", "length": 60, "label_from": ["0", "1"], "rate": 400}},
    }
    train, _ = commands(tmp_path, config)
    assert "--notation pcm16" in train and "--length 60" in train and "--label-from 0 1" in train and "--rate 400" in train


def test_a_page_of_codes_of_sound(tmp_path: Path) -> None:
    """Nothing lies between codes, so there are no interpolations."""
    data = ancestral.data("notes", limit=10, pieces="blocks", length=16)
    page, _ = written(data, tmp_path / "run", "vq-vae")
    assert "Reconstructions" in page.sections and "given z, which x determines" in page.words
    assert "spherical way" not in page.words
