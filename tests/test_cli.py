"""The command line: every command on tiny runs, next to what the library gives, and what is refused with which exit code."""

from __future__ import annotations

import csv
import json
import shlex
import shutil
import sys
from dataclasses import asdict, replace
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from tiny_cli import Ask, Call

import ancestral
from ancestral import cli
from ancestral.cli.commands import Answer, Models, Train
from ancestral.cli.parsing import parse
from ancestral.data.splits import Examples
from ancestral.evaluation import evaluate, score
from ancestral.hub import describe, load
from ancestral.models import MODELS, configure
from ancestral.report.images import pixels, save_png
from ancestral.report.pictures import vae_images
from ancestral.report.remake import PLACES, commands
from ancestral.sampling import complete, interpolate, sample
from ancestral.sampling.strategies import Rows
from ancestral.training.config import TrainingConfig

TINY = ("--data", "digits", "--preset", "tiny", "--limit", "40", "--batch-size", "8", "--no-tensorboard", "--no-progress")


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the runs ``agave`` and ``labelled``, a PixelCNN that knows classes."""
    folder = tmp_path_factory.mktemp("runs")
    torch.set_default_dtype(torch.float64)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(cli, "keep_memory", lambda: None)
        for name, model in (("agave", ["agave"]), ("labelled", ["gated-pixelcnn", "--conditional"])):
            patch.setattr(sys, "argv", ["ancestral", "train", *model, *TINY, "--out", str(folder / name), "--steps", "3"])
            assert cli.main() == 0
    return folder


def held_out() -> Examples:
    return ancestral.data("digits", limit=40).test


# ---- what the commands do, next to what the library gives


def test_train_says_and_keeps_what_was_done(ask: Ask, tmp_path: Path) -> None:
    told = ask("train", "gated-pixelcnn", *TINY, "--out", tmp_path / "a", "--steps", "2", "--seed", "5", "--levels", "4")
    ask("train", "gated-pixelcnn", *TINY, "--out", tmp_path / "b", "--steps", "2", "--seed", "5", "--levels", "4")
    ask("train", "gated-pixelcnn", *TINY, "--out", tmp_path / "c", "--steps", "2", "--seed", "6", "--levels", "4")
    assert (told["run"], told["steps"], told["validation"]["status"]) == (str(tmp_path / "a"), 2, "exact")
    kept = json.loads((tmp_path / "a" / "config.json").read_text())
    assert kept["data"]["options"] == {"levels": 4, "limit": 40} and kept["spec"]["levels"] == 4
    weights = {name: (tmp_path / name / "model.safetensors").read_bytes() for name in "abc"}
    assert weights["a"] == weights["b"] != weights["c"]  # the seed decides the fresh weights too


def test_evaluate_keeps_its_figures_and_compare_reads_them(runs: Path, ask: Ask, call: Call, tmp_path: Path) -> None:
    run = Path(shutil.copytree(runs / "agave", tmp_path / "run"))
    told = ask("evaluate", run, "--importance-samples", "3", "--subset", "10", "--seed", "4")
    found = evaluate(load(run), held_out(), importance_samples=3, subset=10, seed=4)
    figures = ("bits_per_dim", "rate", "distortion", "iwae", "shuffle_cost", "verdict", "examples")
    assert {name: told[name] for name in figures} == {name: getattr(found, name) for name in figures}
    assert told["data"]["split"] == "test"

    kept = json.loads((run / "evaluation.json").read_text())
    kept.pop("weights")
    assert {"run": str(run), **kept} == told
    compared = ask("compare", run, runs / "labelled", "--seed", "4")
    assert compared["runs"][0] == told and compared["runs"][1]["status"] == "exact"
    code, out, _ = call("compare", run, runs / "labelled", "--seed", "4")
    assert code == 0 and f"{told['bits_per_dim']:.4f} ±" in out and "gated-pixelcnn" in out

    shutil.copy(runs / "labelled" / "config.json", run)  # another model moves in: the figures are no longer its own
    shutil.copy(runs / "labelled" / "model.safetensors", run)
    assert ask("compare", run)["runs"][0]["bits_per_dim"] == compared["runs"][1]["bits_per_dim"]


def test_sample_draws_what_the_library_draws(runs: Path, ask: Ask, tmp_path: Path) -> None:
    words = ("sample", runs / "labelled", "-n", "5", "--seed", "3", "--top-k", "4", "--labels", "7", "2")
    symbols, sheet = tmp_path / "new" / "x.npy", tmp_path / "x.png"
    assert ask(*words, "--out", symbols) == {"out": str(symbols), "number": 5, "seed": 3, "labels": [7, 2, 7, 2, 7]}
    x = sample(load(runs / "labelled"), 5, seed=3, top_k=4, labels=[7, 2, 7, 2, 7])
    assert np.array_equal(np.load(symbols), x.numpy())
    ask(*words, "--out", sheet, "--scale", "1", "--columns", "3")
    picture = np.asarray(Image.open(sheet))
    assert picture.shape == (2 * 8 + 2, 3 * 8 + 2 * 2)
    assert np.array_equal(picture[10:, 10:18], pixels(x, 17)[4, :, :, 0])


def test_sample_shows_the_image_of_z_above_each_sample(runs: Path, ask: Ask) -> None:
    told = ask("sample", runs / "agave", "-n", "3", "--with-image", "--columns", "2", "--scale", "1")
    assert told["out"] == str(runs / "agave" / "samples" / "sample.png")
    picture = np.asarray(Image.open(told["out"]))
    assert picture.shape == (4 * 8 + 3 * 2, 2 * 8 + 2)
    model = load(runs / "agave")
    above = vae_images(Rows(model, 3))
    assert above is not None and np.array_equal(picture[20:28, :8], above[2, :, :, 0])
    assert np.array_equal(picture[30:38, :8], pixels(sample(model, 3), 17)[2, :, :, 0])
    assert (picture[20:, 10:] == 128).all()  # nothing beside the third


def test_arrays_are_said_to_hold_what_is_new_alone(runs: Path, call: Call, tmp_path: Path) -> None:
    for name, wanted in {
        "reconstruct": ("4 originals, each above its reconstruction", "4 reconstructions, without the originals"),
        "interpolate": ("4 pairs, 3 images on the way of each", "4 pairs, 3 images on the way of each, without the originals"),
    }.items():
        steps = ("--steps", 3) * (name == "interpolate")
        for ending, what in zip(("png", "npy"), wanted, strict=True):
            path = tmp_path / f"{name}.{ending}"
            assert call(name, runs / "agave", "-n", 4, *steps, "--out", path)[1] == f"{path}: {what}\n"
    assert len(np.load(tmp_path / "reconstruct.npy")) == 4


def test_reconstruct_and_interpolate_take_test_examples_or_pictures(runs: Path, ask: Ask, tmp_path: Path) -> None:
    x, model = held_out().x, load(runs / "agave")
    told = ask("reconstruct", runs / "agave", "-n", "3", "--scale", "1", "--out", tmp_path / "r.png")
    assert told["items"] == ["test 0", "test 13", "test 26"]  # of 40, evenly spread
    picture = np.asarray(Image.open(tmp_path / "r.png"))
    assert np.array_equal(picture[:8, 10:18], pixels(x, 17)[13, :, :, 0])
    assert np.array_equal(picture[10:, 10:18], pixels(model.reconstruct(x[[0, 13, 26]].long()), 17)[1, :, :, 0])

    for i in range(4):
        save_png(tmp_path / "pictures" / f"{i}.png", pixels(x, 17)[i])
    ask("interpolate", runs / "agave", tmp_path / "pictures", "--steps", "5", "--out", tmp_path / "way.npy")
    way = interpolate(model, x[[0, 2]].long(), x[[1, 3]].long(), 5)
    assert np.array_equal(np.load(tmp_path / "way.npy"), way.numpy())


@pytest.mark.parametrize("known", ["top", "mask.npy", "mask.png"])
def test_complete_keeps_what_is_known(known: str, runs: Path, ask: Ask, tmp_path: Path) -> None:
    x, mask = held_out().x[:2], np.arange(8)[:, None].repeat(8, 1) < 4
    np.save(tmp_path / "mask.npy", mask)
    save_png(tmp_path / "mask.png", (mask * np.uint8(255))[:, :, None])
    np.save(tmp_path / "x.npy", x.numpy())
    where = known if known == "top" else tmp_path / known
    words = ("complete", runs / "agave", tmp_path / "x.npy", "--known", where, "-n", "2", "--particles", "4", "--seed", "9")
    told = ask(*words, "--out", tmp_path / "done.npy")
    done = np.load(tmp_path / "done.npy")
    assert told["status"] == "approximate" and all(1 <= size <= 4 for size in told["effective_sample_size"])
    assert np.array_equal(done[:, :, :4], x.numpy().repeat(2, 0)[:, :, :4])
    twice = x.repeat_interleave(2, 0).long()
    assert np.array_equal(done, complete(load(runs / "agave"), twice, torch.from_numpy(mask), particles=4, seed=9).x.numpy())
    ask(*words, "--out", tmp_path / "done.png", "--scale", "1")
    picture = np.asarray(Image.open(tmp_path / "done.png"))
    assert picture.shape == (18, 38) and (picture[4:8, :8] == 128).all()
    assert np.array_equal(picture[:8, 30:], pixels(x, 17)[0, :, :, 0])


def test_score_costs_a_picture_what_its_symbols_cost(runs: Path, ask: Ask, tmp_path: Path) -> None:
    x = held_out().x[:3]
    for i, image in enumerate(pixels(x, 17)):
        save_png(tmp_path / f"{i}.png", image)
    found = score(load(runs / "labelled"), x.long(), labels=[1, 2, 3])
    told = ask("score", runs / "labelled", *(tmp_path / f"{i}.png" for i in range(3)), "--labels", "1", "2", "3")
    assert told["nats"] == pytest.approx(float(found.nats.mean())) and told["status"] == "exact"
    rows = list(csv.DictReader(Path(told["scores"]).read_text().splitlines()))
    assert [row["item"] for row in rows] == [str(tmp_path / f"{i}.png") for i in range(3)]
    assert [float(row["nats"]) for row in rows] == pytest.approx(found.nats.tolist(), rel=1e-12)
    assert [float(row["bits"]) for row in rows] == pytest.approx((found.nats / np.log(2)).tolist())
    whole = Path(ask("score", runs / "agave")["scores"]).read_text()
    assert whole.count("\n") == 41  # the test set, and the head


def test_inspect_and_report(runs: Path, ask: Ask, call: Call, tmp_path: Path) -> None:
    run = runs / "agave"
    told, parameters = ask("inspect", run), sum(p.numel() for p in load(run).parameters())
    assert told["model"] == "agave" and told["config"]["lambda_"] == configure("agave", "tiny").lambda_
    assert told["description"]["parameters"].startswith(f"{parameters:,} ")
    assert "data" in told and "digits" in call("inspect", run)[1]
    written = ask("report", run, "--out", tmp_path / "page.html")
    figure = ask("compare", run)["runs"][0]["bits_per_dim"]
    assert written["evaluation"]["bits_per_dim"] == figure
    assert f"{figure:.3f}" in (tmp_path / "page.html").read_text()


def test_latents_and_quality_are_kept_and_told(runs: Path, ask: Ask, call: Call, tmp_path: Path) -> None:
    run, own = runs / "agave", tmp_path / "own.safetensors"
    found = ask("latents", run, "--few", "1", "--limit", "30")
    assert {each["features"] for each in found["probes"]} >= {"posterior means", "z as drawn", "x itself"}
    judged = ask("quality", run, "--samples", "20", "--classifier", own)
    assert judged["count"] == 20 and own.exists()
    assert ask("quality", run, "--samples", "20", "--classifier", own)["samples"] == judged["samples"]
    more = ancestral.data("digits", limit=30).train
    np.savez(tmp_path / "more.npz", train_images=more.x.numpy(), train_labels=np.asarray(more.labels))
    other = ask("latents", run, "--labelled", tmp_path / "more.npz", "--few", "1")
    assert other["data"]["name"] != found["data"]["name"] and other["examples"]["train"] < 30
    figures = ask("evaluate", run)
    told = ask("inspect", run)
    assert told["latents"]["probes"] == other["probes"] and told["quality"]["samples"] == judged["samples"]
    assert told["summary"]["rate"] == figures["rate"] and told["summary"]["kid"] == judged["samples"]["kid"]
    page = tmp_path / "page.html"
    ask("report", run, "--out", page)
    assert f"{other['examples']['test']} test examples of {other['data']['name']}" in page.read_text()
    assert judged["classifier"]["weights"][:12] in page.read_text()
    code, _, err = call("latents", runs / "labelled")
    assert code == 1 and "take a VAE" in err


def test_dry_run_plans_and_writes_nothing(ask: Ask, call: Call, tmp_path: Path) -> None:
    words = ("train", "agave", *TINY, "--out", tmp_path / "run", "--steps", "20", "--minutes", "0.02", "--dry-run")
    told = ask(*words)
    assert not (tmp_path / "run").exists()
    assert sum(stage["steps"] for stage in told["stages"]) == 20 and told["steps_per_epoch"] == 5
    assert told["seconds"] == pytest.approx(sum(stage["steps"] * stage["seconds_per_step"] for stage in told["stages"]))
    assert told["memory_bytes"] > 4 * told["parameters"] > 0
    assert "an epoch of 5 steps takes" in call(*words)[1]


def test_warm_start_takes_weights_of_the_same_settings(runs: Path, call: Call, ask: Ask, tmp_path: Path) -> None:
    words = ("train", "agave", *TINY, "--steps", "3", "--from", runs / "agave")
    ask(*words, "--out", tmp_path / "same", "--learning-rate", "1e-300", "--ema", "0")
    for name, weight in load(runs / "agave").state_dict().items():
        assert torch.equal(load(tmp_path / "same").state_dict()[name], weight), name
    code, _, err = call(*words, "--out", tmp_path / "other", "--layers", "3")
    assert code == 1 and "do not fit" in err and not (tmp_path / "other").exists()


def test_joint_tuning_of_one_pretrained_pair(call: Call, ask: Ask, tmp_path: Path) -> None:
    """Lambda and colours start from the whole pair, another resolution from its PixelCNN and a VAE of its own."""
    words = ("train", "agave", *TINY, "--learning-rate", "1e-300", "--ema", "0")
    ask(*words, "--steps", "4", "--pretraining", "1", "--out", tmp_path / "pair")
    start = ("--steps", "3", "--from", tmp_path / "pair")
    ask(*words, *start, "--pretraining", "0", "--lambda", "12", "--colours", "4", "--out", tmp_path / "coarse")
    own = ("--pretrain", "vae", "--factor", "2")
    ask(*words, *start, "--parts", "likelihood", *own, "--out", tmp_path / "small")
    stages = {name: json.loads((tmp_path / name / "config.json").read_text())["stages"] for name in ("pair", "coarse", "small")}
    names = {name: [stage["stage"]["name"] for stage in each] for name, each in stages.items()}
    assert names == {"pair": ["vae", "pixelcnn"], "coarse": ["joint"], "small": ["vae", "joint"]}
    weights = {name: load(tmp_path / name).state_dict() for name in names}
    for name, weight in weights["pair"].items():
        for run in ("coarse", "small") if name.startswith("likelihood.") else ("coarse",):
            assert torch.allclose(weights[run][name], weight, rtol=0, atol=1e-200), (run, name)
    code, _, err = call(*words, *start, *own, "--out", tmp_path / "none")
    assert code == 1 and "--parts" in err
    code, _, err = call(*words, *start, "--parts", "decoder", "--out", tmp_path / "none")
    assert code == 1 and "no part 'decoder'" in err

    again = shlex.split(commands(tmp_path / "small", describe(tmp_path / "small"))[0])
    assert again[again.index("--from") + 1 :][:3] == [str(tmp_path / "pair"), "--parts", "likelihood"]


def test_parts_that_a_run_lacks_are_refused(runs: Path, call: Call, ask: Ask, tmp_path: Path) -> None:
    ask("train", "vae", *TINY, "--steps", "1", "--out", tmp_path / "vae")
    code, _, err = call("train", "agave", *TINY, "--from", tmp_path / "vae", "--parts", "auxiliary", "--out", tmp_path / "none")
    assert code == 1 and f"the model of {tmp_path / 'vae'} has no part 'auxiliary'" in err and not (tmp_path / "none").exists()


def test_resume_goes_on_with_a_run(runs: Path, ask: Ask, tmp_path: Path) -> None:
    run = Path(shutil.copytree(runs / "agave", tmp_path / "run"))
    assert ask("train", "--resume", run)["steps"] == 3


@pytest.mark.parametrize("name", ["agave", "labelled"])
def test_the_commands_of_a_report_make_its_run_again(name: str, runs: Path) -> None:
    config = describe(runs / name)
    train, report = (shlex.split(line)[1:] for line in commands(runs / name, config))
    command = parse(train)
    assert isinstance(command, Train) and command.new is not None
    assert asdict(command.new.model) == config["config"]
    assert command.new.reading.options() == config["data"]["options"]
    places = {key: getattr(TrainingConfig(), key) for key in (*PLACES, "minutes")}
    assert replace(command.new.training, **places) == replace(TrainingConfig(**config["training"]), **places)
    assert parse(report).run == runs / name  # type: ignore[attr-defined]


@pytest.mark.parametrize(
    ("words", "hint"),
    [("train", "gated-pixelcnn"), ("train agave --data digits --out x --resume y", "leave all but --resume out")],
)
def test_train_takes_either_a_model_or_a_run(words: str, hint: str, call: Call) -> None:
    code, out, err = call(*words.split())
    assert (code, out) == (2, "") and hint in err and "Traceback" not in err


def test_data_and_models_are_listed(ask: Ask, call: Call) -> None:
    assert {row["name"]: row["status"] for row in ask("models")["models"]} == {n: e.status for n, e in MODELS.items()}
    assert "digits" in ask("data")["data"]
    assert ask("data", "digits", "--levels", "4") == ancestral.data("digits", levels=4).describe()
    assert "10 classes" in call("data", "digits")[1]


# ---- faults


def prepared(folder: Path, agave: Path) -> None:
    """Files that are not what they should be, and a run whose weights were cut short."""
    shutil.copytree(agave, folder / "cut")
    weights = folder / "cut" / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:-100])
    (folder / "file").write_text("in the way")
    (folder / "empty").mkdir()
    table = np.zeros((20, 3))
    table[7, 1] = np.nan
    np.save(folder / "nan.npy", table)
    np.save(folder / "none.npy", np.zeros((0, 8, 8), np.uint8))
    np.save(folder / "mask.npy", np.ones((4, 4), bool))
    np.save(folder / "grey.npy", np.full((8, 8), 7))
    save_png(folder / "large.png", np.zeros((16, 16, 1), np.uint8))
    np.save(folder / "odd.npy", np.zeros((3, 8, 8), np.uint8))


@pytest.mark.parametrize(
    ("words", "reason"),
    [
        ("train agave --data digts --out new --steps 3", "did you mean 'digits'?"),
        ("train agave --data digits --out agave --steps 3", "not empty"),
        ("train agave --data digits --out file/run --steps 3", "cannot write the run to file"),
        ("train agave --data digits --out new --steps 2 --preset tiny", "3 stages"),
        ("train agave --data digits --out new --steps 3 --family normal", "family 'normal' does not fit"),
        ("train agave --data nan.npy --out new --steps 3", "first row 7"),
        ("train agave --data none.npy --out new --steps 3", "holds no examples"),
        ("train agave --data empty --out new --steps 3", "no images"),
        ("train agave --data measurements --out new --steps 3", "models images"),
        ("train --resume new", "there is no folder new"),
        ("evaluate cut", "is damaged"),
        ("evaluate agaev", "did you mean agave?"),
        ("evaluate empty", "has no config.json"),
        ("evaluate agave --data photos", "read the data as they were read for training"),
        ("evaluate agave --levels 4", "name them (--data)"),
        ("evaluate agave --device cuda", "torch finds no cuda device here"),
        ("evaluate agave --threads 0", "threads is 0"),
        ("complete agave grey.npy", "grey.npy"),
        ("complete agave odd.npy --known mask.npy", "mask of shape (4, 4)"),
        ("complete agave odd.npy --known grey.npy", "other than 0 and 1"),
        ("complete agave --known bottom", "there is no file bottom"),
        ("score agave large.png", "--size 8"),
        ("score agave nothing.png", "there is no file or folder nothing.png"),
        ("interpolate agave odd.npy", "even number"),
        ("reconstruct agave -n 0", "number is 0"),
        ("complete agave -n -1", "number is -1"),
        ("score labelled odd.npy --labels 1 2", "2 labels for 3 pictures"),
        ("interpolate labelled", "has none"),
        ("reconstruct labelled", "has none"),
        ("sample labelled --with-image", "leave --with-image out"),
        ("sample agave --labels 3", "built without them"),
        ("sample labelled --labels 10", "0 .. 9"),
        ("sample agave --out x.jpg", "name a .png"),
        ("sample agave --out file/x.png", "cannot use file"),
        ("sample agave --with-image --columns 0", "columns is 0"),
    ],
)
def test_faults_are_named_with_exit_code_1(
    words: str, reason: str, runs: Path, call: Call, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    if "cuda" in words and torch.cuda.is_available():
        pytest.skip("there is a cuda device here")
    for name in ("agave", "labelled"):
        (tmp_path / name).symlink_to(runs / name)
    prepared(tmp_path, runs / "agave")
    monkeypatch.chdir(tmp_path)
    code, out, err = call(*words.split())
    assert (code, out) == (1, "")
    said = err.splitlines()
    assert said[-1].startswith("ancestral: ") and reason in said[-1]
    assert "Traceback" not in err
    assert not (tmp_path / "new" / "config.json").exists()


@pytest.mark.parametrize(
    ("fault", "code", "traceback"),
    [(KeyboardInterrupt(), 130, False), (ValueError("two\nlines"), 1, False), (RuntimeError("a mistake of ours"), 1, True)],
)
def test_only_faults_of_the_program_show_their_traceback(
    fault: BaseException, code: int, traceback: bool, call: Call, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(command: object) -> Answer:
        raise fault

    monkeypatch.setattr(cli, "perform", fail)
    found, out, err = call("models")
    assert (found, out, "Traceback" in err) == (code, "", traceback)
    assert err.splitlines()[-1] == "ancestral: " + {130: "interrupted"}.get(code, " ".join(str(fault).split()))
    assert "Traceback" in call("models", "--debug")[2]


def test_standard_output_is_the_answer_alone(ask: Ask, monkeypatch: pytest.MonkeyPatch) -> None:
    def chatty(command: Models) -> Answer:
        print("a library talks")
        return Answer({"number": float("inf"), "place": Path("x"), "parts": (1, {"nan": float("nan")})}, ["words"])

    monkeypatch.setattr(cli, "perform", chatty)
    assert ask("models") == {"number": None, "place": "x", "parts": [1, {"nan": None}]}
