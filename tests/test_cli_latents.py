"""What z takes and keeps, on the command line: schemes of files, previews, and what is drawn again."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from tiny_cli import Ask, Call

import ancestral
from ancestral.coding import blocks, two_part
from ancestral.coding.codec import Opened
from ancestral.coding.container import CODED
from ancestral.coding.lossy import latent_bytes, lossy, previews
from ancestral.coding.reader import Reader
from ancestral.data.source import Array
from ancestral.hub import load
from ancestral.walking.exact.generator import ExactGenerator

SPEC = ancestral.DataSpec("image", (1, 6, 6), levels=256)
EAGER = ("--engine", "eager")
NAMES = ("a.png", "b.png", "deep/c.png")


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The current folder: runs ``vae``, ``agave`` and ``plain``, ``pictures`` of their size, and ``wide`` ones."""
    monkeypatch.chdir(tmp_path)
    for seed, (name, model) in enumerate({"vae": "vae", "agave": "agave", "plain": "gated-pixelcnn"}.items()):
        torch.manual_seed(seed)
        made = ancestral.build(model, SPEC, preset="tiny")
        with torch.no_grad():
            for parameter in made.parameters():
                parameter.add_(torch.randn(parameter.shape), alpha=0.1)
        ancestral.save(made, tmp_path / name)
    rng = np.random.default_rng(0)
    for i, name in enumerate(NAMES):
        for folder, size in (("pictures", (6, 6)), ("wide", (6, 11 + i))):
            (tmp_path / folder / name).parent.mkdir(parents=True, exist_ok=True)
            Image.fromarray(rng.integers(256, size=size, dtype=np.uint8)).save(tmp_path / folder / name)
    return tmp_path


def pictures_in(folder: str) -> Array:
    """(n, 1, 6, 6) of the three."""
    found = []
    for name in NAMES:
        with Image.open(Path(folder) / name) as image:
            found.append(np.array(image))
    return np.stack(found)[:, None].astype(np.int64)


def refusal(call: Call, *words: object) -> str:
    """The message of a command that must fail."""
    code, out, err = call(*words)
    assert (code, out) == (1, "") and err.startswith("ancestral: "), err
    return err


def test_schemes_and_what_info_says_of_them(home: Path, ask: Ask, call: Call) -> None:
    sizes = {}
    for scheme in ("bits-back", "two-part", "latents", "auto"):
        file = f"{scheme}.anc"
        told = ask("compress", "agave", "pictures", "--scheme", scheme, "--out", file, *EAGER)
        sizes[scheme], found = told["bytes"], ask("info", file)
        assert found["scheme"] == (scheme if scheme != "auto" else min(("bits-back", "two-part"), key=sizes.__getitem__))
        assert found["latent_bytes"] == latent_bytes(Reader(Path(file).read_bytes()))
        assert (found["latent_bytes"] is None) == (found["scheme"] == "bits-back")
    assert "do not come back as they were" in call("compress", "agave", "pictures", "--scheme", "latents", "--force", *EAGER)[1]
    assert sizes["latents"] < sizes["auto"] == min(sizes["bits-back"], sizes["two-part"])
    of_z, whole = (ask("info", f"{scheme}.anc") for scheme in ("latents", "two-part"))
    lines = {scheme: call("info", f"{scheme}.anc")[1] for scheme in sizes}
    assert f"an item on average: z {8 * of_z['latent_bytes'] / 3:.1f}, nothing else is kept" in lines["latents"]
    assert "3 items are stored as they are, which takes less" in lines["two-part"] and whole["stored_items"] == 3
    assert "an item on average" not in lines["bits-back"]


@pytest.mark.parametrize("run", ["vae", "agave"])
def test_pictures_come_back_from_two_parts_and_z_shows_them_first(run: str, home: Path, ask: Ask, call: Call) -> None:
    words = ("compress", run, "pictures", "--scheme", "two-part", "--out", "x.anc")
    ask(*words, *EAGER)
    told = ask("decompress", "x.anc", "--model", run, "--preview", "shown", "--out", "back", *EAGER)
    assert (told["files"], told["previews"]) == (3, 3)
    assert np.array_equal(pictures_in("back"), pictures_in("pictures"))
    opened = Opened(Reader(Path("x.anc").read_bytes()), load(run), "eager")
    assert np.array_equal(pictures_in("shown"), torch.cat(list(previews(opened))).numpy())
    assert ask("verify", "x.anc", "pictures", "--model", run, *EAGER)["compared"] == 3
    for folders, flag in ((("shown", "new"), "--preview"), (("new", "back"), "--out")):
        message = refusal(call, "decompress", "x.anc", "--model", run, "--preview", folders[0], "--out", folders[1], *EAGER)
        assert f"name another folder ({flag})" in message and "--force" in message and not Path("new").exists()


@pytest.mark.parametrize("folders", [("same", "same"), ("same", "./same/"), ("x", None), ("same/deep", "same")])
def test_previews_never_stand_where_the_files_will(folders: tuple[str, str | None], home: Path, ask: Ask, call: Call) -> None:
    shown, out = folders
    (home / "deep").mkdir()
    (home / "pictures" / "a.png").rename(home / "deep" / "c.png")
    ask("compress", "vae", "deep/c.png", "pictures/deep", "--scheme", "two-part", "--out", "x.anc", *EAGER)
    where = () if out is None else ("--out", out)
    words = ("decompress", "x.anc", "--model", "vae", "--preview", shown, *where, *EAGER)
    for more in ((), ("--force",)):
        message = refusal(call, *words, *more)
        assert "c.png would be a preview and then a file that comes back: name another folder (--preview)" in message
        assert not Path("same").exists() and not Path("x").exists()


def test_a_file_in_the_way_of_a_folder_is_found_before_previews_are_written(home: Path, ask: Ask, call: Call) -> None:
    ask("compress", "vae", "pictures", "--scheme", "two-part", "--out", "x.anc", *EAGER)
    Path("notes").write_text("in the way")
    for folders, flag in ((("new", "notes"), "--out"), (("notes", "new"), "--preview")):
        words = ("decompress", "x.anc", "--model", "vae", "--preview", folders[0], "--out", folders[1], *EAGER)
        assert f"cannot use notes, which is no folder: name another one ({flag})" in refusal(call, *words)
        assert not Path("new").exists()


def test_tiles_of_previews_are_put_together(home: Path, ask: Ask) -> None:
    ask("compress", "vae", "wide", "--scheme", "two-part", "--out", "x.anc", *EAGER)
    ask("decompress", "x.anc", "--model", "vae", "--preview", "shown", "--out", "back", *EAGER)
    for i, name in enumerate(NAMES):
        with Image.open(Path("shown") / name) as image, Image.open(Path("back") / name) as whole:
            assert image.size == whole.size == (11 + i, 6)


@pytest.mark.parametrize("levels", [2, 17, 256])
def test_previews_of_arrays_have_their_levels_and_type(levels: int, home: Path, ask: Ask) -> None:
    spec = ancestral.DataSpec("image", (1, 6, 6), levels=levels)
    ancestral.save(ancestral.build("vae", spec, preset="tiny"), "few")
    np.save("x.npy", np.random.default_rng(0).integers(levels, size=(5, 6, 6)).astype("<i2"))
    ask("compress", "few", "x.npy", "--scheme", "two-part", "--out", "x.anc", *EAGER)
    ask("decompress", "x.anc", "--model", "few", "--preview", "shown", "--out", "back", *EAGER)
    shown, back = np.load("shown/x.npy"), np.load("back/x.npy")
    assert np.array_equal(back, np.load("x.npy")) and (shown.dtype, shown.shape) == (back.dtype, back.shape)
    opened = Opened(Reader(Path("x.anc").read_bytes()), load("few"), "eager")
    seen = torch.cat(list(previews(opened)))[:, 0].double() / 255 * (levels - 1)
    assert shown.max() < levels and np.abs(shown - seen.numpy()).max() <= 0.5


@pytest.mark.parametrize("threads", [1, 2])
@pytest.mark.parametrize("run", ["vae", "agave"])
def test_previews_of_intact_blocks_are_saved_beside_damaged_ones(
    run: str, threads: int, home: Path, ask: Ask, call: Call, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(blocks, "BLOCK_BITS", 1)  # blocks of 16
    np.save("x.npy", ancestral.sample(load(run), 45, seed=2, engine="eager")[:, 0].numpy().astype(np.uint8))
    ask("compress", run, "x.npy", "pictures", "--scheme", "two-part", "--out", "x.anc", *EAGER)
    assert [block.kind for block in Reader(Path("x.anc").read_bytes())] == [CODED] * 3
    words = ("decompress", "x.anc", "--model", run, "--threads", threads, *EAGER)
    ask(*words, "--preview", "whole", "--out", "all")
    data = bytearray(Path("x.anc").read_bytes())
    data[data.index(list(Reader(bytes(data)))[1].payload) + 5] ^= 4
    Path("x.anc").write_bytes(data)

    assert "block 1 is damaged" in refusal(call, *words, "--preview", "shown", "--out", "back")
    assert not Path("shown").exists() and not Path("back").exists()
    told = ask(*words, "--preview", "shown", "--out", "back", "--errors", "skip")
    assert (told["files"], told["previews"], told["lost"]) == (4, 4, ["x.npy: 16 of 45 examples"])
    for kept, whole in (("back", "all"), ("shown", "whole")):
        left = np.delete(np.load(Path(whole) / "x.npy"), range(16, 32), 0)
        assert np.array_equal(np.load(Path(kept) / "x.npy"), left)
        assert np.array_equal(pictures_in(f"{kept}/pictures"), pictures_in(f"{whole}/pictures"))


def test_intact_blocks_without_a_preview_are_named_or_skipped(
    home: Path, ask: Ask, call: Call, monkeypatch: pytest.MonkeyPatch
) -> None:
    popped = two_part.popped

    def cut(latents: ExactGenerator, data: bytes, n: int, vector: torch.Tensor | None = None) -> torch.Tensor:
        return popped(latents, data[:-4] if n == 3 else data, n, vector)

    ask("compress", "vae", "pictures", "--scheme", "latents", "--out", "x.anc", *EAGER)
    monkeypatch.setattr(two_part, "popped", cut)
    words = ("decompress", "x.anc", "--model", "vae", "--preview", "shown", "--out", "back", *EAGER)
    assert "x.anc: block 0 is intact but" in refusal(call, *words) and not Path("shown").exists()
    told = ask(*words, "--errors", "skip")
    assert (told["files"], told["previews"], told["lost"]) == (0, 0, list(NAMES))


def test_z_alone_is_drawn_anew(home: Path, ask: Ask, call: Call) -> None:
    ask("compress", "agave", "pictures", "--scheme", "latents", "--out", "x.anc", *EAGER)
    drawn = []
    for number, seed in enumerate((0, 0, 1)):
        code, out, _ = call("decompress", "x.anc", "--model", "agave", "--seed", seed, "--out", f"out{number}", *EAGER)
        assert code == 0 and "drawn anew: the file holds z alone" in out
        drawn.append(pictures_in(f"out{number}"))
    assert np.array_equal(drawn[0], drawn[1]) and not np.array_equal(drawn[0], drawn[2])
    expected = ancestral.decompress(load("agave"), Path("x.anc").read_bytes(), seed=1, engine="eager")
    assert np.array_equal(drawn[2], expected.numpy())
    assert ask("verify", "x.anc", "--model", "agave", *EAGER)["pictures"] == 3
    assert "it holds z of 3 pictures, and the rest is drawn anew" in call("verify", "x.anc", "--model", "agave", *EAGER)[1]
    assert "nothing can be compared" in refusal(call, "verify", "x.anc", "pictures", "--model", "agave", *EAGER)


def test_what_a_model_or_a_file_has_not_is_named(home: Path, ask: Ask, call: Call) -> None:
    for scheme in ("bits-back", "two-part", "latents"):
        message = refusal(call, "compress", "plain", "pictures", "--scheme", scheme, "--out", "x.anc", *EAGER)
        assert f"no scheme '{scheme}'; it takes auto, autoregressive\n" in message and not Path("x.anc").exists()
    ask("compress", "agave", "pictures", "--scheme", "bits-back", "--out", "agave.anc", *EAGER)
    ask("compress", "plain", "pictures", "--out", "plain.anc", *EAGER)
    reasons = {"agave": "z stands by itself in two-part codes alone", "plain": "the model is autoregressive and has no z"}
    for run, reason in reasons.items():
        words = ("decompress", f"{run}.anc", "--model", run, "--preview", "shown", "--out", "back", *EAGER)
        message = refusal(call, *words)
        assert reason in message and ("two-part" in message) is (run == "agave")
    assert not Path("shown").exists() and not Path("back").exists()


def test_what_z_keeps_and_of_other_runs_beside(home: Path, ask: Ask, call: Call) -> None:
    words = ("reconstruct", "agave", "pictures", "--from-latents", "--beside", "vae", "--out", "x.png", "--seed", 3, "--scale", 2)
    told = ask(*words)
    x = torch.from_numpy(pictures_in("pictures"))
    for run, values in zip(("agave", "vae"), told["runs"], strict=True):
        found = lossy(load(run), x, seed=3)  # type: ignore[arg-type]
        assert (values["run"], values["model"], values["probe_accuracy"]) == (run, run, None)
        assert values["latent_bits"] == pytest.approx(found.bits.mean().item())
        assert values["rest_bits"] == pytest.approx(found.whole_bits.mean().item())
        assert {name: values[name] for name in found.figures} == pytest.approx(dict(found.figures))
    with Image.open("x.png") as image:
        assert image.size == (3 * 14 - 2, 3 * 14 - 2)
    code, out, _ = call(*words)
    assert code == 0 and f"{told['runs'][1]['psnr_seen']:.1f}" in out and out.count("\n") == 5
    ask("reconstruct", "vae", "pictures", "--from-latents")
    assert Path("vae/samples/from_latents.png").is_file()


def test_where_z_gives_nothing_but_what_is_drawn_that_is_shown_once(home: Path, ask: Ask, call: Call) -> None:
    ancestral.save(ancestral.build("pixelvae", SPEC, preset="tiny"), "pixelvae")
    words = ("reconstruct", "pixelvae", "pictures", "--from-latents", "--beside", "agave", "--out", "x.png", "--scale", 2)
    own, beside = ask(*words)["runs"]
    assert own["psnr_drawn"] > 0 and own["psnr_seen"] is own["ssim_seen"] is None and beside["psnr_seen"] > 0
    with Image.open("x.png") as image:
        assert image.size == (3 * 14 - 2, 2 * 14 - 2)
    assert "x.png: originals, below each what is drawn given z\n" in call(*words)[1]


def test_what_is_read_off_z_stands_beside_what_it_takes(tmp_path: Path, ask: Ask, call: Call) -> None:
    data, run = ancestral.data("digits", limit=60), tmp_path / "run"
    origin = {"source": "digits", "options": {"limit": 60}, **data.describe()}
    ancestral.save(ancestral.build("vae", data.spec, preset="tiny"), run, extra={"data": origin})
    assert ask("reconstruct", run, "--from-latents", "-n", 3)["runs"][0]["probe_accuracy"] is None
    [probe, *_] = ask("latents", run, "--limit", 60, "--few", 1)["probes"]
    assert "no probe with 50 labels a class" in call("latents", run, "--limit", 60, "--few", 50)[2]
    assert "must be at least 1" in refusal(call, "latents", run, "--few", 0)
    assert ask("reconstruct", run, "--from-latents", "-n", 3)["runs"][0]["probe_accuracy"] == probe["accuracy"]
    assert f"  {probe['accuracy']:.1%}" in call("reconstruct", run, "--from-latents", "-n", 3)[1]


def test_faults_of_what_z_keeps_are_named(home: Path, call: Call) -> None:
    assert "name a .png" in refusal(call, "reconstruct", "vae", "pictures", "--from-latents", "--out", "x.npy")
    torch.manual_seed(9)
    ancestral.save(ancestral.build("vae", ancestral.DataSpec("image", (1, 6, 6), levels=16), preset="tiny"), home / "coarse")
    words = ("reconstruct", "vae", "pictures", "--from-latents", "--beside", "coarse", "--out", "y.png")
    assert "coarse has other pictures than vae" in refusal(call, *words) and not Path("y.png").exists()
    assert "--from-latents: add it" in refusal(call, "reconstruct", "vae", "pictures", "--beside", "agave")
    assert "read again: name pictures\n" in refusal(call, "reconstruct", "vae")
    assert "there is no x.anc" in refusal(call, "info", "x.anc")
    assert "name files\n" in refusal(call, "compress", "vae") and "(--labelled)\n" in refusal(call, "latents", "vae")
    for run, more in (("plain", ()), ("vae", ("--beside", "plain"))):
        message = refusal(call, "reconstruct", run, "pictures", "--from-latents", "--out", "x.png", *more)
        assert "is for models with latents" in message and not Path("x.png").exists()
