"""Text and sound compressed from the command line: byte for byte what they were, and every fault by its name."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from tiny_cli import Ask, Call, calling
from tiny_clips import BLOCKS, SOUND, TEXT, wav, wavenet

import ancestral
from ancestral.coding.reader import Reader
from ancestral.data.notation import Notation, Sound, Text

ALPHABET = "abcdefghijklmnopqrstuvwxyz .\n"
RUNS: dict[str, tuple[ancestral.DataSpec, Notation | None]] = {
    "bytes": (TEXT, Text()),
    "blocks": (BLOCKS, Text()),
    "letters": (ancestral.DataSpec("text", (30,), levels=len(ALPHABET)), Text("characters", ALPHABET)),
    "tokens": (ancestral.DataSpec("text", (20,), levels=300), Text.bpe(["the cat sat on the mat, " * 9], 300)),
    "pcm16": (SOUND, Sound(8000, "pcm16")),
    "mulaw": (ancestral.DataSpec("audio", (None,), levels=257, end=256), Sound(8000, "mulaw")),
    "unknown": (ancestral.DataSpec("audio", (50,), levels=256), None),
}
RUNS["tokens"] = (ancestral.DataSpec("text", (20,), levels=RUNS["tokens"][1].levels), RUNS["tokens"][1])  # type: ignore[union-attr]


@pytest.fixture
def call(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> Call:
    """Runs a command in this process, with the eager engine: exit code, standard output and standard error."""
    run = calling(capsys, monkeypatch)
    return lambda *words: run(*words, *([] if "info" in words else ["--engine", "eager"]))


@pytest.fixture
def refused(call: Call) -> Callable[..., str]:
    """The message of a command that must fail."""

    def run(*words: object) -> str:
        code, out, err = call(*words)
        assert (code, out) == (1, "") and "Traceback" not in err, err
        return err

    return run


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a run of each kind."""
    folder = tmp_path_factory.mktemp("made")
    for seed, (name, (spec, notation)) in enumerate(RUNS.items()):
        record = {"data": {"notation": notation.to_dict()}} if notation else {}
        ancestral.save(wavenet(spec, seed), folder / "runs" / name, extra=record)
    return folder


@pytest.fixture
def place(made: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The current folder, with the runs in ``runs``."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "runs").symlink_to(made / "runs")
    return tmp_path


def write(folder: Path, files: dict[str, bytes]) -> Path:
    for name, content in files.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(content)
    return folder


def content(folder: Path) -> dict[str, bytes]:
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in sorted(folder.rglob("*")) if path.is_file()}


def noise(n: int, seed: int = 0) -> bytes:
    return np.random.default_rng(seed).bytes(n)


TEXTS = {
    "empty.txt": b"",
    "one": b"\xff",
    "every/byte.bin": bytes(range(256)) + noise(70),
    "every/a.txt": b"the cat sat on the mat.\n" * 5,
    "unicode.md": "Grüße, 写 and \U0001f600 among plain letters, and more of them.\r\n".encode() * 2,
    "broken.txt": b"plain letters, then \xed\xa0\x80 and \xc3 which are no text",
    "mark.txt": "\ufeffthe beginning\0".encode(),
}


@pytest.mark.parametrize("run", ["bytes", "blocks", "letters", "tokens"])
def test_a_folder_of_texts_comes_back(run: str, place: Path, ask: Ask) -> None:
    folder = write(place / "texts", TEXTS)
    told = ask("compress", f"runs/{run}", "texts", "--out", "x.anc")
    size = sum(map(len, TEXTS.values()))
    assert (told["files"], told["pictures"], told["original_bytes"], told["png_bytes"]) == (7, 7, size, None)
    assert told["ratio"] == pytest.approx(size / told["bytes"]) and told["bytes"] < size + 2000
    assert ask("verify", "x.anc", "texts")["compared"] == 7
    back = ask("decompress", "x.anc", "--out", "back")
    assert (back["files"], back["lost"], back["damage"]) == (7, [], [])
    assert content(place / "back") == content(folder)
    about = ask("info", "x.anc")
    assert about["whole"] and sorted(about["files"]) == sorted(TEXTS)


@pytest.mark.parametrize("channels", [1, 2])
def test_sounds_come_back_byte_for_byte(channels: int, place: Path, ask: Ask) -> None:
    odd = b"LIST" + (3).to_bytes(4, "little") + b"abc\0" + b"junk" + bytes(4)
    files = {
        "plain.wav": wav(noise(2 * channels * 101), channels=channels),
        "odd.wav": wav(noise(2 * channels * 75 + 1), channels=channels, before=odd, after=odd + b"tail"),
        "short.wav": wav(noise(400), channels=channels)[:-77],
        "none.wav": wav(b"", channels=channels),
        "streamed.wav": wav(noise(80), channels=channels).replace(b"data\x50\0\0\0", b"data\xff\xff\xff\xff"),
        "deep.wav": wav(noise(60), bits=24),
        "float.wav": wav(noise(64), tag=3, bits=32),
        "cut.wav": wav(noise(64))[:30],
        "notes.txt": b"no sound at all",
    }
    folder = write(place / "sounds", files)
    code = ask("compress", "runs/pcm16", "sounds", "--out", "x.anc")
    assert code["files"] == 9
    ask("decompress", "x.anc", "--out", "back")
    assert content(place / "back") == content(folder)
    assert ask("verify", "x.anc", "sounds")["compared"] == 9


def test_what_the_model_is_not_for_is_named(place: Path, call: Call) -> None:
    write(place, {"deep.wav": wav(noise(60), bits=24)})
    code, out, _ = call("compress", "runs/pcm16", "deep.wav", "--out", "x.anc")
    assert code == 0 and "compressed without it: deep.wav" in out


def test_companded_bytes_are_brought_into_order(place: Path, ask: Ask, refused: Callable[..., str]) -> None:
    write(place, {"a.wav": wav(bytes(range(256)) + noise(55), tag=7, bits=8), "b.wav": wav(noise(50))})
    ask("compress", "runs/mulaw", "a.wav", "--out", "x.anc")
    ask("decompress", "x.anc", "--out", "back")
    assert (place / "back" / "a.wav").read_bytes() == (place / "a.wav").read_bytes()
    assert "--notation pcm16" in refused("compress", "runs/mulaw", "b.wav", "--out", "y.anc")
    assert not Path("y.anc").exists()


def test_arrays_of_symbols_come_back(place: Path, ask: Ask, refused: Callable[..., str]) -> None:
    rng = np.random.default_rng(0)
    arrays = {"row": rng.integers(256, size=90), "rows": rng.integers(256, size=(5, 33), dtype=np.uint8)}
    ended = np.full((3, 20), 256, np.int16)
    ended[0, :7], ended[2] = 5, 9
    for name, values in {**arrays, "ended": ended}.items():
        np.save(f"{name}.npy", values)
    ask("compress", "runs/bytes", "row.npy", "rows.npy", "ended.npy", "--out", "x.anc")
    ask("decompress", "x.anc", "--out", "back")
    for name, values in {**arrays, "ended": ended}.items():
        found = np.load(place / "back" / f"{name}.npy")
        assert np.array_equal(found, values) and found.dtype == values.dtype
    ask("verify", "x.anc", "row.npy", "rows.npy", "ended.npy")
    np.save("wide.npy", rng.integers(256, size=(2, 2, 2)))
    assert "(n, T)" in refused("compress", "runs/bytes", "wide.npy", "--out", "y.anc")
    np.save("odd.npy", rng.integers(256, size=31))
    assert "2 symbols each" in refused("compress", "runs/pcm16", "odd.npy", "--out", "y.anc")
    write(place, {"a.wav": wav(noise(50))})
    assert "arrays of symbols" in refused("compress", "runs/unknown", "a.wav", "--out", "y.anc")


@pytest.mark.parametrize("block", [1, 16, 64, 1000])
def test_blocks_may_have_any_length(block: int, place: Path, ask: Ask) -> None:
    write(place, {"a.txt": noise(150), "b.txt": noise(7)})
    told = ask("compress", "runs/bytes", "a.txt", "b.txt", "--block", block, "--out", "x.anc")
    assert told["items"] == sum(-(-n // block) for n in (150, 7))
    ask("verify", "x.anc", "a.txt", "b.txt")


def test_changes_and_damage_are_told(place: Path, ask: Ask, refused: Callable[..., str]) -> None:
    write(place / "u", {"c.txt": b"plain letters.\n" * 30, "d.txt": "ü and plain letters all the way".encode()})
    ask("compress", "runs/letters", "u", "--out", "y.anc")
    write(place / "u", {"d.txt": "ö and plain letters all the way".encode()})
    assert "'d.txt' is not what" in refused("verify", "y.anc", "u")
    data, rng = Path("y.anc").read_bytes(), np.random.default_rng(1)
    for place_of_bit in rng.integers(8 * len(data), size=6).tolist():
        changed = bytearray(data)
        changed[place_of_bit // 8] ^= 1 << place_of_bit % 8
        Path("z.anc").write_bytes(changed)
        refused("verify", "z.anc")
    Path("z.anc").write_bytes(data[:-40])
    refused("verify", "z.anc")


def test_a_model_of_other_data_is_told_from_the_right_one(place: Path, ask: Ask, refused: Callable[..., str]) -> None:
    image = ancestral.build("gated-pixelcnn", ancestral.DataSpec("image", (1, 4, 4), levels=256), preset="tiny")
    ancestral.save(image, "runs/image")
    write(place, {"a.txt": b"some letters."})
    ask("compress", "runs/bytes", "a.txt", "--out", "x.anc")
    said = "x.anc was made with a model of text; runs/{} is of {}: name the run"
    assert said.format("image", "pictures") in refused("decompress", "x.anc", "--model", "runs/image")
    assert said.format("pcm16", "sound") in refused("verify", "x.anc", "--model", "runs/pcm16")
    for other in (image.float(), wavenet(SOUND)):
        with pytest.raises(ancestral.CodecError, match="made with model of DataSpec"):
            ancestral.decompress(other, Path("x.anc").read_bytes(), engine="eager")


def test_files_are_weighed_by_bytes_samples_and_symbols(place: Path, ask: Ask, call: Call) -> None:
    write(place, {"a.txt": "plain letters, ü and all.".encode(), "none.txt": b"", "a.wav": wav(noise(50))})
    np.save("rows.npy", np.random.default_rng(0).integers(256, size=(3, 8)))
    for run, name, unit, count in (
        ("letters", "a.txt", "byte", 26),
        ("bytes", "a.txt", "byte", 26),
        ("pcm16", "a.wav", "sample", 25),
        ("bytes", "rows.npy", "symbol", 24),
        ("bytes", "none.txt", "", 0),
    ):
        told, found = (
            ask(*words) for words in (("compress", f"runs/{run}", name, "--out", "x.anc", "--force"), ("info", "x.anc"))
        )
        units = {name: figure for name, figure in told.items() if name.startswith("bits_per_") and figure is not None}
        assert units == ({f"bits_per_{unit}": pytest.approx(8 * told["bytes"] / count)} if unit else {})
        assert units.items() <= found.items() and found["bits_per_dim"] is None
        said = f"{8 * told['bytes'] / count:.4f} bits a {unit}\n" if unit else ""
        out = call("info", "x.anc")[1]
        assert f"in all    {said}" in out if unit else " bits" not in out
        assert (
            call("compress", f"runs/{run}", name, "--out", "x.anc", "--force")[1].split("\n")[0].endswith(said.strip() or "bytes")
        )


def test_what_is_whole_of_a_damaged_file_is_saved(place: Path, ask: Ask) -> None:
    write(place / "u", {"a.txt": b"plain letters.\n" * 30, "b.txt": "ü and plain letters all the way".encode()})
    ask("compress", "runs/letters", "u", "--out", "x.anc")
    data = bytearray(Path("x.anc").read_bytes())
    assert [block.items for block in Reader(bytes(data))][-1] == 0
    data[data.rindex(b"BK") + 34] ^= 1  # the bytes beside the symbols
    Path("x.anc").write_bytes(data)
    told = ask("decompress", "x.anc", "--errors", "skip", "--out", "back")
    assert (told["files"], told["lost"]) == (1, ["b.txt"])
    assert (place / "back" / "a.txt").read_bytes() == b"plain letters.\n" * 30


def test_another_process_decodes_with_the_model_in_the_file(place: Path, ask: Ask, tmp_path: Path) -> None:
    write(place, {"a.txt": TEXTS["unicode.md"]})
    ask("compress", "runs/letters", "a.txt", "--embed-model", "--out", "x.anc")
    (tmp_path / "else").mkdir()
    words = [sys.executable, "-m", "ancestral", "decompress", str(place / "x.anc"), "--out", "b", "--engine", "eager"]
    subprocess.run(words, check=True, cwd=tmp_path / "else", env={**os.environ, "OMP_NUM_THREADS": "2"}, capture_output=True)
    assert (tmp_path / "else" / "b" / "a.txt").read_bytes() == TEXTS["unicode.md"]
