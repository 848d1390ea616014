"""Latents of text and sound on the command line: what is made again, what lies between, files, figures and pages."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from tiny_cli import Ask, Call

import ancestral
from ancestral.coding.reader import Reader
from ancestral.data.notation import Text
from ancestral.data.sounds import wav
from ancestral.evaluation.study import study
from ancestral.hub import load
from ancestral.latent.latent import Latent
from ancestral.report import report
from ancestral.sampling import interpolate, sample

LINES = ("the sea", "a ship", "the shore", "a day at sea", "sea", "the day")
LETTERS = Text.characters("".join(LINES))


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Fresh runs on lines of text, ``lines``, and on blocks of sound, ``clips``, with files of both."""
    folder = tmp_path_factory.mktemp("home")
    torch.manual_seed(0)
    torch.set_default_dtype(torch.float64)
    (folder / "lines.txt").write_text("\n".join(LINES * 20))
    (folder / "few.txt").write_text("\n".join(LINES[:4]))
    rng = np.random.default_rng(0)
    for name in ("0_a", "1_b", "0_c", "1_d", "0_e", "1_f", "0_g", "1_h"):
        (folder / "sounds").mkdir(exist_ok=True)
        (folder / "sounds" / f"{name}.wav").write_bytes(wav(rng.integers(-3000, 3000, 320).astype(np.int16), 8000))
    text = {"notation": LETTERS.to_dict(), "pieces": "lines"}
    data = ancestral.data(str(folder / "lines.txt"), **text)
    writer = ancestral.build("transformer-vae", data.spec, preset="tiny", auxiliary=True)
    record = {"data": {**data.describe(), "source": str(folder / "lines.txt"), "options": text}}
    ancestral.save(writer, folder / "lines", extra=record)
    sound = {"notation": "pcm16", "rate": 8000, "pieces": "blocks", "length": 32, "label_from": ["0"]}
    data = ancestral.data(str(folder / "sounds"), **sound)
    player = ancestral.build("wavenet-vae", data.spec, preset="tiny", form="both", auxiliary=True)
    record = {"data": {**data.describe(), "source": str(folder / "sounds"), "options": sound}}
    ancestral.save(player, folder / "clips", extra=record)
    return folder


def model_of(run: Path) -> Latent:
    model = load(run)
    assert isinstance(model, Latent)
    return model


def test_lines_are_drawn_made_again_and_bridged(home: Path, ask: Ask, call: Call) -> None:
    run, model = home / "lines", model_of(home / "lines")
    code, out, err = call("sample", run, "-n", 3, "--seed", 2, "--engine", "eager")
    x = sample(model, 3, seed=2, engine="eager")
    assert (code, err) == (0, "") and out == "".join(f"{LETTERS.decode(row)}\n" for row in x)
    assert ask("sample", run, "-n", 3, "--seed", 2, "--engine", "eager")["texts"] == [LETTERS.decode(row) for row in x]

    told = ask("reconstruct", run, home / "few.txt")
    assert told["texts"][::2] == list(LINES[:4]) and len(told["texts"]) == 8
    path = home / "again.npy"
    for name, what in {"reconstruct": "reconstructions", "interpolate": "what lies on the way"}.items():
        assert call(name, run, home / "few.txt", "--out", path)[1] == f"{path}: {what}, without the originals\n"
    ways = ask("interpolate", run, home / "few.txt", "--steps", 3)["texts"]
    assert len(ways) == 10 and [ways[i] for i in (0, 4, 5, 9)] == list(LINES[:4])
    a, b = (
        torch.stack([torch.nn.functional.pad(LETTERS.encode(line), (0, 16 - len(line)), value=LETTERS.levels)])
        for line in LINES[:2]
    )
    assert ways[1:4] == [LETTERS.decode(row[0]) for row in interpolate(model, a, b, 3)]


def test_lines_of_a_file_are_completed_each_by_itself(home: Path, ask: Ask, call: Call) -> None:
    run, few = home / "lines", home / "few.txt"
    told = ask("complete", run, few, "--known", "first:1%", "-n", 2, "--engine", "eager")
    assert len(told["texts"]) == 8 and [text[0] for text in told["texts"][::2]] == [line[0] for line in LINES[:4]]
    assert len(told["items"]) == 4 and all("few.txt" in name for name in told["items"])
    code, out, err = call("interpolate", run, home / "lines.txt", "--labels", 1, 1)
    assert (code, out) == (1, "") and "2 labels for 120 texts of 1 file" in err


def test_lengths_that_a_grid_does_not_take_are_refused_with_the_one_it_takes(home: Path, call: Call) -> None:
    code, out, err = call("complete", home / "clips", home / "sounds" / "0_a.wav", "--known", "first:10", "--length", 320)
    assert (code, out) == (1, "") and "belongs to the length 32, not 320: ask for that one (--length 32)" in err


def test_sounds_are_made_again_and_bridged(home: Path, ask: Ask, tmp_path: Path) -> None:
    run = home / "clips"
    told = ask("reconstruct", run, home / "sounds" / "0_a.wav", "--out", tmp_path / "again.wav")
    assert len(told["out"]) == 20 and all(Path(path).exists() for path in told["out"])
    told = ask("interpolate", run, "-n", 2, "--steps", 4, "--out", tmp_path / "way.npy")
    assert np.load(tmp_path / "way.npy").shape == (4, 2, 64)
    assert len(ask("interpolate", run, "-n", 1, "--steps", 4, "--out", tmp_path / "ways")["out"]) == 6


@pytest.mark.parametrize(("run", "files"), [("lines", "few.txt"), ("clips", "sounds")])
def test_files_hold_z_and_say_how_much_of_them_it_is(
    run: str, files: str, home: Path, ask: Ask, call: Call, tmp_path: Path
) -> None:
    made = tmp_path / "made.anc"
    ask("compress", home / run, home / files, "--out", made, "--engine", "eager")
    about = ask("info", made)
    assert about["scheme"] == "two-part" and 0 <= about["latent_bytes"] < made.stat().st_size
    assert (run == "clips") == (about["stored_items"] > 0) == (about["latent_bytes"] == 0)  # noise is stored as it is
    of_z, rest = (8 * size / about["items"] for size in (about["latent_bytes"], about["payload_bytes"] - about["latent_bytes"]))
    bits = "are stored as they are, which takes less" if run == "clips" else f"z {of_z:.1f}, x given z {rest:.1f}\n"
    assert bits in call("info", made)[1]
    ask("decompress", made, "--out", tmp_path / "back", "--model", home / run, "--engine", "eager")
    for path in (home / files).rglob("*.wav") if run == "clips" else [home / files]:
        assert (tmp_path / "back" / path.name).read_bytes() == path.read_bytes()


def test_what_is_kept_beside_is_not_x_and_damaged_files_have_no_averages(
    home: Path, ask: Ask, call: Call, tmp_path: Path
) -> None:
    made = tmp_path / "made.anc"
    (tmp_path / "strange.txt").write_text("the sea\n" * 40 + "".join(chr(0x100 + i % 7 + i) + "sea the sea\n" for i in range(40)))
    ask("compress", home / "lines", tmp_path / "strange.txt", "--out", made, "--engine", "eager")
    found, blocks = ask("info", made), list(Reader(made.read_bytes()))
    assert found["kept_bytes"] == sum(len(block.payload) for block in blocks if not block.items) > 40
    of_z = found["latent_bytes"]
    rest = sum(len(block.payload) for block in blocks if block.items) - of_z
    said = call("info", made)[1]
    assert f"z {8 * of_z / 80:.1f}, x given z {8 * rest / 80:.1f}\n" in said
    assert f"bytes of payload, {found['kept_bytes']:,} of them kept beside the symbols\n" in said

    data = made.read_bytes()
    made.write_bytes(data[: data.index(blocks[0].payload) + 9])
    found, said = ask("info", made), call("info", made)[1]
    assert (found["overhead_bytes"], found["payload_bytes"], found["unread_bytes"]) == (None, 0, found["bytes"])
    assert "on average" not in said and "of overhead" not in said
    assert f"bytes     {found['bytes']:,}: {found['bytes']:,} of headers, lost or unread" in said


def test_what_is_drawn_anew_is_no_file_of_text(home: Path, call: Call, tmp_path: Path) -> None:
    code, out, err = call("compress", home / "lines", home / "few.txt", "--scheme", "latents", "--out", tmp_path / "z.anc")
    assert (code, out) == (1, "") and "take two-part" in err


def test_probes_of_clips_of_any_length(home: Path) -> None:
    data = ancestral.data(str(home / "sounds"), pieces="files", label_from=["0"], length=64)
    assert data.spec.shape == (None,)
    found = study(ancestral.build("wavenet-vae", data.spec, preset="tiny"), data, few=())
    assert found.probes[0].dimensions == 2 and found.probes[-1].dimensions >= 2


@pytest.mark.parametrize("run", ["lines", "clips"])
def test_figures_and_pages(run: str, home: Path, ask: Ask, tmp_path: Path) -> None:
    found = ask("evaluate", home / run, "--importance-samples", 2, "--limit", 8, "--subset", 4)
    assert found["status"] == "bound" and found["auxiliary"] > 0 and found["verdict"]
    ask("score", home / run, "--limit", 3, "--out", tmp_path / "scores.csv")
    assert (tmp_path / "scores.csv").read_text().count("\n") >= 3
    text = report(home / run, out=tmp_path / "page.html", importance_samples=1).read_text()
    assert ("probe" in text) is (run == "clips")  # which has labels
    assert "Reconstructions" in text and "spherical way" in text and "a part of the bound" in text
