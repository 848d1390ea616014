"""Compression from the command line: what comes back, which model is found, and how damage is told."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable
from io import BytesIO
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from tiny_cli import Ask, Call, calling

import ancestral
from ancestral.coding import blocks as block_sizes
from ancestral.coding import codec
from ancestral.coding.container import Block
from ancestral.coding.errors import DecodeMismatch
from ancestral.coding.manifest import Item, Manifest
from ancestral.coding.reader import Reader
from ancestral.data.source import Array
from ancestral.hub import load

GREY, COLOUR = ancestral.DataSpec("image", (1, 6, 6), levels=256), ancestral.DataSpec("image", (3, 4, 4), levels=256)


@pytest.fixture
def call(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> Call:
    """Runs a command in this process, with the eager engine: exit code, standard output and standard error."""
    run = calling(capsys, monkeypatch)

    def run_eager(*words: object) -> tuple[int, str, str]:
        return run(*words, *([] if "info" in words or "--engine" in words else ["--engine", "eager"]))

    return run_eager


@pytest.fixture
def refused(call: Call) -> Callable[..., str]:
    """The message of a command that must fail."""

    def run(*words: object) -> str:
        code, out, err = call(*words)
        assert (code, out) == (1, "") and "Traceback" not in err and err.startswith("ancestral: "), err
        return err

    return run


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the runs ``grey``, ``colour``, ``latent`` and ``digits``, which knows its data."""
    folder = tmp_path_factory.mktemp("made")
    data = ancestral.data("digits", limit=40)
    record = {"source": "digits", "options": {"limit": 40}, "hash": data.hash, "note": data.note}
    for seed, (name, model, spec) in enumerate(
        [
            ("grey", "gated-pixelcnn", GREY),
            ("colour", "gated-pixelcnn", COLOUR),
            ("latent", "agave", COLOUR),
            ("digits", "gated-pixelcnn", data.spec),
        ]
    ):
        torch.manual_seed(seed)
        ancestral.save(ancestral.build(model, spec, preset="tiny"), folder / "runs" / name, extra={"data": record})
    return folder


@pytest.fixture
def place(made: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The current folder, with the runs in ``runs`` and pictures in ``grey`` and ``colour``."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "runs").mkdir()
    for run in (made / "runs").iterdir():
        (tmp_path / "runs" / run.name).symlink_to(run)
    rng = np.random.default_rng(0)
    for name, size in {"a.png": (6, 6), "deep/er/ü ß.png": (13, 4), "deep/写.bmp": (5, 7), "z.png": (9, 30)}.items():
        (tmp_path / "grey" / name).parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(rng.integers(256, size=size, dtype=np.uint8)).save(tmp_path / "grey" / name)
    (tmp_path / "colour").mkdir()
    for name in ("a.png", "b.png"):
        Image.fromarray(rng.integers(256, size=(7, 5, 3), dtype=np.uint8)).save(tmp_path / "colour" / name)
    return tmp_path


def pixels_in(folder: Path) -> dict[str, tuple[str, Array]]:
    """Mode and pixels of every file, by name without what was appended to it."""
    found = {}
    for path in folder.rglob("*"):
        if path.is_file():
            with Image.open(path) as image:
                found[path.relative_to(folder).as_posix().replace(".bmp.png", ".bmp")] = (image.mode, np.array(image))
    return found


def assert_same(folder: Path, other: Path) -> None:
    have, want = pixels_in(folder), pixels_in(other)
    assert have.keys() == want.keys()
    for name, (mode, values) in want.items():
        assert have[name][0] == mode and np.array_equal(have[name][1], values), name


# ---- there and back


@pytest.mark.parametrize(("run", "pictures"), [("grey", "grey"), ("colour", "colour"), ("latent", "colour")])
def test_a_folder_of_pictures_comes_back(run: str, pictures: str, place: Path, ask: Ask) -> None:
    told = ask("compress", f"runs/{run}", pictures, "--out", "new/x.anc")
    files = len(pixels_in(place / pictures))
    assert (told["out"], told["files"], told["pictures"], told["model_bytes"]) == ("new/x.anc", files, files, 0)
    assert told["bytes"] == Path("new/x.anc").stat().st_size
    symbols = sum(values.size for _, values in pixels_in(place / pictures).values())
    assert told["bits_per_dim"] == pytest.approx(8 * told["bytes"] / symbols)
    assert told["ratio"] == pytest.approx(told["png_bytes"] / told["bytes"])

    back = ask("decompress", "new/x.anc")
    assert (back["out"], back["files"], back["lost"], back["damage"]) == ("new/x", files, [], [])
    assert_same(place / "new" / "x", place / pictures)
    assert told["png_bytes"] == sum(path.stat().st_size for path in (place / "new" / "x").rglob("*.png"))
    assert ask("verify", "new/x.anc", pictures)["compared"] == files
    assert ask("verify", "new/x.anc", "new/x")["compared"] == files


def test_arrays_and_single_pictures_come_back(place: Path, ask: Ask) -> None:
    rng = np.random.default_rng(1)
    for name, values in {
        "b": rng.integers(256, size=(5, 6, 6), dtype=np.uint8),
        "w": rng.integers(256, size=(2, 1, 8, 3)),
    }.items():
        np.save(f"{name}.npy", values)
    told = ask("compress", "runs/grey", "b.npy", "w.npy", "grey/a.png", "--out", "x.anc")
    assert (told["files"], told["pictures"]) == (3, 8)
    ask("decompress", "x.anc", "--out", "back")
    for name in ("b.npy", "w.npy"):
        got, want = np.load(Path("back") / name), np.load(name)
        assert got.dtype == want.dtype and np.array_equal(got, want)
    assert Path("back/a.png").exists()
    assert ask("compress", "runs/grey", "grey", "--limit", "2", "--out", "y.anc")["files"] == 2


def test_by_default_the_test_examples_are_compressed(place: Path, call: Call, ask: Ask) -> None:
    code, out, _ = call("compress", "runs/digits")
    size = Path("runs/digits/test.anc").stat().st_size
    assert code == 0 and f"40 pictures in {size:,} bytes, {size / 320:.4f} bits/dim" in out and "as PNG files" in out
    ask("decompress", "runs/digits/test.anc", "--out", "back")
    assert np.array_equal(np.load("back/test.npy"), ancestral.data("digits", limit=40).test.x.numpy())
    Path("runs/digits/test.anc").unlink()
    ask("compress", "runs/digits", "--limit", "3", "--out", "x.anc")
    assert ask("info", "x.anc")["pictures"] == 3


def test_a_file_of_the_library_becomes_an_array(place: Path, ask: Ask) -> None:
    model = load("runs/grey")
    x = torch.randint(256, (4, 1, 6, 6))
    Path("x.anc").write_bytes(ancestral.compress(model, x, engine="eager"))
    ask("decompress", "x.anc", "--model", "runs/grey", "--out", "back")
    assert np.array_equal(np.load("back/x.npy"), x.numpy())
    assert ask("info", "x.anc")["files"] == ["x.npy"]


@pytest.mark.slow
def test_engines_make_the_same_file(place: Path, call: Call) -> None:
    for engine in ("native", "eager", "auto"):
        assert call("compress", "runs/grey", "grey", "--out", f"{engine}.anc", "--engine", engine)[0] == 0
        assert Path(f"{engine}.anc").read_bytes() == Path("native.anc").read_bytes()
    assert call("verify", "eager.anc", "grey", "--engine", "native")[0] == 0


def test_info_needs_no_model(place: Path, ask: Ask, call: Call) -> None:
    told = ask("compress", "runs/colour", "colour", "--out", "x.anc", "--embed-model")
    for run in Path("runs").iterdir():
        run.unlink()
    found = ask("info", "x.anc")
    assert {name: found[name] for name in ("bytes", "items", "pictures", "model_bytes", "bits_per_dim")} == {
        name: told[name] for name in ("bytes", "items", "pictures", "model_bytes", "bits_per_dim")
    }
    assert (found["whole"], found["files"], found["run"]) == (True, ["a.png", "b.png"], "colour")
    assert (found["scheme"], found["version"]) == ("autoregressive", ancestral.__version__)
    assert found["payload_bytes"] + found["overhead_bytes"] + found["model_bytes"] == found["bytes"]
    assert "whole     yes" in call("info", "x.anc")[1]


# ---- which model


def test_the_model_is_found_by_hint_weights_name_or_in_the_file(
    place: Path, made: Path, ask: Ask, refused: Callable[..., str]
) -> None:
    ask("compress", "runs/grey", "grey", "--out", "x.anc")
    ask("compress", "runs/grey", "grey", "--out", "own.anc", "--embed-model")
    assert ask("verify", "x.anc")["pictures"] == 4  # runs/grey, its name
    Path("runs/grey").rename("runs/renamed")
    ask("verify", "x.anc")  # its weights
    Path("runs/renamed").rename("grey-run")
    (place / "grey").rename("pictures")
    Path("grey").symlink_to("runs/colour")  # the name, and other weights
    message = refused("verify", "x.anc")
    assert "looked for run 'grey' here and in" in message and "--model RUN" in message and "3 runs" in message
    assert "made with model" in refused("verify", "x.anc", "--model", "runs/latent")
    assert "there is no folder nowhere" in refused("verify", "x.anc", "--model", "nowhere")
    ask("verify", "x.anc", "pictures", "--model", "grey-run")
    ask("verify", "own.anc", "pictures")
    other = load(made / "runs" / "grey")
    with torch.no_grad():
        next(other.parameters()).add_(0.5)
    ancestral.save(other, "changed")
    assert "made with model" in refused("verify", "own.anc", "--model", "changed")


@pytest.mark.slow
def test_an_embedded_model_decodes_far_from_its_run(place: Path, ask: Ask) -> None:
    ask("compress", "runs/latent", "colour", "--out", "x.anc", "--embed-model")
    data = Path("x.anc").read_bytes()
    assert str(place).encode() not in data and b'"data"' not in data
    (place / "far").mkdir()
    (place / "far" / "x.anc").write_bytes(data)
    words = [sys.executable, "-c", "import sys; from ancestral.cli import main; sys.exit(main())"]
    home = str(Path(ancestral.__file__).parent.parent)
    done = subprocess.run(
        [*words, "decompress", "x.anc", "--engine", "eager"],
        cwd=place / "far",
        env={**os.environ, "PYTHONPATH": home},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    assert_same(place / "far" / "x", place / "colour")


# ---- faults


@pytest.mark.parametrize(
    ("words", "reason"),
    [
        ("compress runs/grey colour", "mode RGB"),
        ("compress runs/colour grey", "mode L"),
        ("compress runs/grey nothing.png", "there is no file or folder nothing.png"),
        ("compress runs/grey grey --limit 0", "limit is 0"),
        ("compress runs/grey grey --device cuda", "leave --device out"),
        ("compress runs/grey grey --threads 0", "threads is 0"),
        ("compress runs/gray grey", "did you mean runs/grey?"),
        ("compress runs/grey none.npy", "nothing to compress"),
        ("compress runs/grey grey --out x.anc", "x.anc exists"),
        ("compress runs/grey grey --out grey --force", "grey is a folder"),
        ("compress runs/grey grey --out x.anc/y.anc", "cannot use x.anc"),
        ("decompress x.anc --out grey", "exists: name another folder"),
        ("decompress x.anc --out notes", "cannot use notes"),
        ("decompress nothing.anc", "there is no nothing.anc"),
        ("decompress ending", "name the folder"),
        ("decompress x.anc --device mps", "leave --device out"),
        ("verify notes", "another kind of file"),
        ("info notes", "notes: the data begin with"),
        ("verify empty", "empty: the file is empty"),
        ("verify x.anc colour/a.png", "mode RGB"),
        ("verify x.anc grey/deep", "holds no 'er/ü ß.png'"),
        ("verify x.anc other", "'a.png' is not the picture"),
    ],
)
def test_faults_are_named(words: str, reason: str, place: Path, ask: Ask, refused: Callable[..., str]) -> None:
    np.save("none.npy", np.zeros((0, 6, 6), np.uint8))
    Path("notes").write_text("in the way")
    Path("empty").touch()
    Path("other").mkdir()
    Image.fromarray(np.zeros((6, 6), np.uint8)).save("other/a.png")
    ask("compress", "runs/grey", "grey", "--out", "x.anc")
    Path("ending").write_bytes(Path("x.anc").read_bytes())
    before = {path: path.read_bytes() for path in place.rglob("*") if path.is_file()}
    assert reason in refused(*words.split())
    assert {path: path.read_bytes() for path in place.rglob("*") if path.is_file()} == before


def test_what_is_there_is_replaced_only_by_force(place: Path, ask: Ask, refused: Callable[..., str]) -> None:
    ask("compress", "runs/grey", "grey", "--out", "x.anc")
    ask("compress", "runs/grey", "grey/a.png", "--out", "x.anc", "--force")
    assert ask("decompress", "x.anc", "--out", "back")["files"] == 1
    Path("back/a.png").write_text("mine")
    assert "--force" in refused("decompress", "x.anc", "--out", "back") and Path("back/a.png").read_text() == "mine"
    ask("decompress", "x.anc", "--out", "back", "--force")
    with Image.open("back/a.png") as image:
        assert image.size == (6, 6)


@pytest.fixture
def blocks(place: Path, ask: Ask, monkeypatch: pytest.MonkeyPatch) -> bytes:
    """A file of three blocks, of 16 tiles and fewer: an array of 20 examples, a picture of 14 tiles and one of one."""
    monkeypatch.setattr(block_sizes, "BLOCK_BITS", 1)
    rng = np.random.default_rng(2)
    np.save("x.npy", rng.integers(256, size=(20, 6, 6), dtype=np.uint8))
    Image.fromarray(rng.integers(256, size=(12, 42), dtype=np.uint8)).save("wide.png")
    ask("compress", "runs/grey", "x.npy", "wide.png", "grey/a.png", "--out", "b.anc")
    data = Path("b.anc").read_bytes()
    assert [block.items for block in Reader(data)] == [16, 16, 3]
    return data


def place_of(data: bytes, index: int) -> int:
    """Where the payload of a block begins."""
    return data.index(list(Reader(BytesIO(data)))[index].payload)


@pytest.mark.parametrize("threads", [1, 2])
def test_what_is_intact_can_be_salvaged(blocks: bytes, ask: Ask, refused: Callable[..., str], threads: int) -> None:
    changed = bytearray(blocks)
    changed[place_of(blocks, 1) + 5] ^= 4
    Path("b.anc").write_bytes(changed)
    assert "b.anc: block 1 is damaged" in refused("verify", "b.anc")
    message = refused("decompress", "b.anc", "--out", "back")
    assert "b.anc: block 1 is damaged" in message and "--errors skip`" in message and "errors=" not in message
    assert not Path("back").exists()
    told = ask("info", "b.anc")
    assert (told["whole"], told["blocks"], told["bits_per_dim"]) == (False, 2, None) and len(told["damage"]) == 1
    told = ask("decompress", "b.anc", "--out", "back", "--errors", "skip", "--threads", threads)
    assert (told["files"], told["lost"]) == (2, ["x.npy: 4 of 20 examples", "wide.png"])
    assert "checksum" in told["damage"][0]
    assert np.array_equal(np.load("back/x.npy"), np.load("x.npy")[:16])
    assert not Path("back/wide.png").exists() and Path("back/a.png").exists()


@pytest.mark.parametrize("threads", [1, 2])
def test_blocks_that_decode_to_something_else_are_skipped(
    blocks: bytes, ask: Ask, refused: Callable[..., str], monkeypatch: pytest.MonkeyPatch, threads: int
) -> None:
    decoded = codec.Opened.decoded

    def wrong(opened: codec.Opened, block: Block) -> torch.Tensor:
        if block.index == 2:
            raise DecodeMismatch(2)
        return decoded(opened, block)

    monkeypatch.setattr(codec.Opened, "decoded", wrong)
    assert "block 2 is intact but" in refused("verify", "b.anc")
    skipping = ("--out", "back", "--errors", "skip", "--threads", threads)
    assert ask("decompress", "b.anc", *skipping)["lost"] == ["wide.png", "a.png"]


def test_a_list_of_files_must_fit_its_items(place: Path, refused: Callable[..., str]) -> None:
    manifest = Manifest(GREY, (Item("a.png", "L", (6, 12)),))
    with Path("x.anc").open("wb") as file:
        codec.write(
            file, load("runs/grey"), torch.zeros(3, *GREY.shape).long(), header={"files": manifest.text()}, engine="eager"
        )
    for words in (["verify", "x.anc", "--model", "runs/grey"], ["info", "x.anc"]):
        assert "is of 2 items and the header of 3" in refused(*words)


def test_no_damage_gives_other_pictures(blocks: bytes, refused: Callable[..., str], call: Call) -> None:
    rng = np.random.default_rng(4)
    for cut in [0, 7, 15, len(blocks) - 1, *rng.integers(len(blocks), size=3).tolist()]:
        Path("b.anc").write_bytes(blocks[:cut])
        refused("verify", "b.anc")
    for bit in rng.integers(8 * len(blocks), size=12).tolist():
        changed = bytearray(blocks)
        changed[bit // 8] ^= 1 << bit % 8
        Path("b.anc").write_bytes(changed)
        refused("verify", "b.anc")
    Path("b.anc").write_bytes(blocks[: place_of(blocks, 1) + 9])
    code, out, _ = call("decompress", "b.anc", "--out", "back", "--errors", "skip")
    assert code == 0 and "lost: wide.png" in out and "damaged: the file is cut short; complete blocks before that: 1\n" in out
    assert np.array_equal(np.load("back/x.npy"), np.load("x.npy")[:16])
