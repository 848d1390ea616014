"""Sweeps: the grid of runs, what is kept and what is done again, tables next to the runs themselves, figures, processes."""

from __future__ import annotations

import csv
import json
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from statistics import mean, stdev

import pytest
import torch
from tiny_cli import Ask, Call
from tiny_sweep import JUDGED, TINY, Ended, here

import ancestral
from ancestral import cli
from ancestral.cli import jobs
from ancestral.cli.jobs import Job, carry_out, fault
from ancestral.cli.parsing import parse
from ancestral.cli.several import Sweep
from ancestral.evaluation import evaluate
from ancestral.training.session import Session

GRID = ("sweep", "vae", *TINY, *JUDGED, "--beta", "0.5", "2", "--seed", "0", "1", "--steps", "3")
NAMES = [f"beta={beta},seed={seed}" for beta in ("0.5", "2") for seed in (0, 1)]


Refuse = Callable[..., list[Job]]


@pytest.fixture
def refusing(call: Call, monkeypatch: pytest.MonkeyPatch) -> Refuse:
    """What runs a sweep none of whose jobs is carried out; the jobs that would have been."""

    def run(*words: object) -> list[Job]:
        seen = list[Job]()

        def start(job: Job) -> Ended:
            seen.append(job)
            return Ended(3)

        with monkeypatch.context() as patch:
            patch.setattr(jobs, "start", start)
            assert call(*words)[0] == 1
        return seen

    return run


@pytest.fixture(scope="module")
def swept(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a sweep of ``GRID``."""
    torch.set_default_dtype(torch.float64)
    folder = tmp_path_factory.mktemp("sweeps") / "beta"
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(cli, "keep_memory", lambda: None)
        patch.setattr(jobs, "start", here)
        patch.setattr(sys, "argv", ["ancestral", *GRID, "--out", str(folder)])
        assert cli.main() == 0
    return folder


@pytest.fixture
def copy(swept: Path, tmp_path: Path) -> Path:
    """A copy of that folder."""
    return Path(shutil.copytree(swept, tmp_path / "beta"))


def test_a_sweep_is_a_grid_of_ordinary_runs(swept: Path, ask: Ask, tmp_path: Path) -> None:
    record = json.loads((swept / "sweep.json").read_text())
    assert [trial["run"] for trial in record["trials"]] == NAMES and record["axes"] == ["beta"]
    data = ancestral.data("digits", limit=24)
    for trial in record["trials"]:
        found = evaluate(ancestral.load(swept / trial["run"]), data, importance_samples=2, subset=6)
        assert trial["evaluation"] == json.loads(json.dumps(found.to_dict()))
        assert (trial["steps"], trial["error"]) == (3, None)
    words = record["trials"][3]["command"].split()[1:]
    words[words.index("--out") + 1] = str(tmp_path / "again")
    ask(*words)
    again, there = (folder / "model.safetensors" for folder in (tmp_path / "again", swept / NAMES[3]))
    assert again.read_bytes() == there.read_bytes()
    assert ancestral.load(swept / NAMES[3]).config.beta == 2.0  # type: ignore[union-attr]


def test_points_are_means_over_the_seeds(swept: Path) -> None:
    record = json.loads((swept / "sweep.json").read_text())
    assert [point["values"] for point in record["points"]] == [{"beta": 0.5}, {"beta": 2.0}]
    for number, point in enumerate(record["points"]):
        pair = [trial["evaluation"] for trial in record["trials"][2 * number : 2 * number + 2]]
        assert (point["runs"], point["status"]) == (2, "bound")
        for name in ("rate", "distortion", "iwae", "bits_per_dim"):
            values = [each[name] for each in pair]
            found = point["figures"][name]
            assert (found["value"], found["error"]) == pytest.approx((mean(values), stdev(values) / 2**0.5))


def test_table_figure_and_page_show_the_runs(swept: Path) -> None:
    rows = list(csv.DictReader((swept / "sweep.csv").read_text().splitlines()))
    record = json.loads((swept / "sweep.json").read_text())
    assert [(row["run"], float(row["beta"]), int(row["run_seed"])) for row in rows] == [
        (name, beta, seed) for name, (beta, seed) in zip(NAMES, [(b, s) for b in (0.5, 2.0) for s in (0, 1)], strict=True)
    ]
    assert [float(row["rate"]) for row in rows] == [trial["evaluation"]["rate"] for trial in record["trials"]]
    svg, page = ((swept / name).read_text() for name in ("sweep.svg", "sweep.html"))
    assert "<!-- beta 0.5" in svg and "<!-- rate (nats) -->" in svg
    rate = record["points"][1]["figures"]["rate"]
    assert f"{rate['value']:,.2f} ± {rate['error']:,.2f}" in page and "beta=2" in page and "ancestral train vae" in page


def test_what_is_there_is_kept(copy: Path, started: list[Job], ask: Ask, call: Call, refusing: Refuse) -> None:
    before = {path: path.stat().st_mtime_ns for path in copy.rglob("model.safetensors")}
    told = ask(*GRID, "--out", copy)
    assert not started and [trial["run"] for trial in told["trials"]] == NAMES
    (copy / NAMES[0] / "evaluation.json").unlink()
    shutil.rmtree(copy / NAMES[2])
    ask(*GRID, "--out", copy)
    assert [(job.name, [words[0] for words in job.commands]) for job in started] == [
        (NAMES[0], ["evaluate"]),
        (NAMES[2], ["train", "evaluate"]),
    ]
    after = {path: path.stat().st_mtime_ns for path in copy.rglob("model.safetensors")}
    assert {path for path in before if before[path] != after[path]} == {copy / NAMES[2] / "model.safetensors"}
    place = GRID.index("--seed")
    assert [job.name for job in refusing(*GRID[:place], "8", *GRID[place:], "--out", copy)] == ["beta=8,seed=0", "beta=8,seed=1"]
    assert [job.commands[0][:2] for job in refusing(*GRID, "--subset", "7", "--out", copy)] == [
        ["evaluate", str(copy / name)] for name in NAMES
    ]


def test_a_run_that_was_stopped_goes_on_to_the_same_weights(
    copy: Path, started: list[Job], ask: Ask, call: Call, monkeypatch: pytest.MonkeyPatch
) -> None:
    weights = copy / NAMES[1] / "model.safetensors"
    before = weights.read_bytes()
    words = json.loads((copy / "sweep.json").read_text())["trials"][1]["command"].split()[1:]
    shutil.rmtree(weights.parent)
    words[words.index("--out") + 1] = str(weights.parent)

    def due(self: Session, step: int) -> bool:
        signal.raise_signal(signal.SIGTERM)
        return True

    with monkeypatch.context() as patch:
        patch.setattr(Session, "_due", due)
        assert call(*words)[0] == 130 and weights.read_bytes() != before
    (copy / NAMES[2] / "checkpoints" / "last.ckpt").unlink()  # stopped before it was saved for the first time
    (copy / NAMES[2] / "metrics.csv").unlink()
    told = ask(*GRID, "--out", copy)
    first, second = started
    assert first.commands[0][:3] == ["train", "--resume", str(copy / NAMES[1])]
    assert second.commands[0][:2] == ["train", "vae"] and "--force" in second.commands[0]
    assert [trial["steps"] for trial in told["trials"]] == [3] * 4
    assert weights.read_bytes() == before


def test_a_failure_leaves_the_other_runs_alone(tmp_path: Path, started: list[Job], call: Call, refusing: Refuse) -> None:
    words = ("sweep", "agave", *TINY, *JUDGED, "--steps", "2", "3", "--out", tmp_path / "s")  # two steps for three stages
    code, out, err = call(*words, "--json")
    good, bad = sorted(json.loads(out)["trials"], key=lambda trial: trial["error"] is not None)
    assert (code, bad["values"], good["values"]) == (1, {"steps": 2}, {"steps": 3})
    assert "3 stages" in bad["error"] and bad["evaluation"] is None and good["evaluation"]["rate"] >= 0
    assert "steps=2,seed=0: failed: " in err
    page = (tmp_path / "s" / "sweep.html").read_text()
    assert "Failed" in page and "3 stages" in page
    assert [job.name for job in refusing(*words)] == ["steps=2,seed=0"]  # it is tried once more


def test_an_interruption_keeps_what_is_there(
    tmp_path: Path, started: list[Job], call: Call, monkeypatch: pytest.MonkeyPatch
) -> None:
    start = jobs.start

    def stop(job: Job) -> object:
        if started:
            raise KeyboardInterrupt
        return start(job)

    words = ("sweep", "vae", *TINY, *JUDGED, "--beta", "1", "2", "--steps", "2", "--processes", "1", "--out", tmp_path / "s")
    with monkeypatch.context() as patch:
        patch.setattr(jobs, "start", stop)
        code, out, err = call(*words)
    assert (code, out) == (130, "") and "the same command goes on" in err
    assert call(*words)[0] == 0 and [job.name for job in started] == ["beta=1,seed=0", "beta=2,seed=0"]


def test_runs_of_other_settings_are_not_mixed_in(copy: Path, started: list[Job], call: Call, refusing: Refuse) -> None:
    code, _, err = call(*GRID, "--latent", "3", "--out", copy)
    assert code == 1 and "holds a run with latent 2 in place of 3" in err and not started
    code, _, err = call(*GRID, "--limit", "20", "--out", copy)
    assert code == 1 and "--force" in err
    todo = refusing(*GRID, "--latent", "3", "--out", copy, "--force")
    assert [job.name for job in todo] == NAMES and all("--force" in job.commands[0] for job in todo)


def test_all_runs_begin_with_the_weights_of_one(swept: Path, tmp_path: Path, started: list[Job], ask: Ask) -> None:
    words = ("--from", swept / NAMES[0], "--learning-rate", "1e-300", "--ema", "0", "--steps", "2")
    ask("sweep", "vae", *TINY, *JUDGED, "--beta", "1", "4", *words, "--out", tmp_path / "s")
    weights = [ancestral.load(folder).state_dict() for folder in (swept / NAMES[0], *sorted((tmp_path / "s").glob("beta=*")))]
    assert len(weights) == 3 and all(torch.equal(weights[0][name], each[name]) for each in weights[1:] for name in each)


def test_runs_that_began_with_other_weights_are_not_mixed_in(swept: Path, tmp_path: Path, ask: Ask, call: Call) -> None:
    words = ("sweep", "vae", *TINY, *JUDGED, "--beta", "1", "--steps", "2", "--out", tmp_path / "s", "--processes", "1")
    start = ("--from", swept / NAMES[0], "--parts", "topdown")
    assert f"{NAMES[0]} --parts topdown" in ask(*words, *start, "--dry-run")["runs"][0]["command"]
    ask(*words)
    assert "began with other weights" in call(*words, *start)[2]
    ask(*words, *start, "--force")
    for other in ((), start[:2], ("--from", swept / NAMES[1], *start[2:])):
        assert "began with other weights" in call(*words, *other)[2], other
    ask(*words, *start)
    assert "--from RUN" in call(*words, *start[2:])[2]


def test_dry_run_lists_the_commands(tmp_path: Path, started: list[Job], ask: Ask, call: Call) -> None:
    told = ask(*GRID, "--out", tmp_path / "s", "--dry-run", "--no-conditional", "--levels", "4")
    assert [run["run"] for run in told["runs"]] == NAMES and not started and not (tmp_path / "s").exists()
    code, out, _ = call(*told["runs"][1]["command"].split()[1:], "--dry-run")
    assert code == 0 and "training steps" not in out


def test_switches_are_swept_like_other_settings() -> None:
    given = "--auxiliary True False --no-conditional --spatial --minutes 1 2 2"
    command = parse(["sweep", "agave", "--data", "digits", "--out", "s", *given.split()])
    assert isinstance(command, Sweep) and command.grid is not None
    values = command.grid.model.values
    assert (values["auxiliary"], values["conditional"], values["spatial"]) == ((True, False), (False,), (True,))
    assert command.grid.model.axes == ["auxiliary"] and command.grid.training.values["minutes"] == (1.0, 2.0)
    assert command.grid.training.values["steps"] == (None,)


@pytest.mark.parametrize(
    ("words", "code", "hint"),
    [
        ("sweep", 2, "sweep what?"),
        ("sweep agve --data digits --out s", 2, "did you mean 'agave'?"),
        ("sweep vae --data digits --beta 1 2", 2, "--out FOLDER"),
        ("sweep vae --data digits --out s --figure a b", 2, "leave the model"),
        ("sweep --figure a b", 2, "--out FILE"),
        ("sweep vae --data digits --out s --beta many", 2, "many"),
        ("sweep vae --data digits --out s --beta", 1, "--beta has no value"),
        ("sweep vae --data digits --out s --batch-size 0 1", 1, "batch_size is 0"),
        ("sweep vae --data digist --out s", 1, "did you mean 'digits'?"),
        ("sweep vae --data digits --out s --processes 0", 1, "processes is 0"),
        ("sweep --figure nowhere --out x.svg", 1, "there is no folder nowhere"),
        ("sweep --figure nowhere --out x.gif", 1, "name a .svg, .png"),
    ],
)
def test_faults_are_named(
    words: str, code: int, hint: str, call: Call, started: list[Job], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("COLUMNS", "200")
    found, out, err = call(*words.split())
    assert (found, out) == (code, "") and hint in " ".join(err.split()) and "Traceback" not in err
    assert not started and not (tmp_path / "s").exists()


# ---- several on one set of axes


def test_families_share_a_figure(swept: Path, tmp_path: Path, ask: Ask, call: Call) -> None:
    ask("train", "gated-pixelcnn", *TINY, "--steps", "2", "--out", tmp_path / "pixels")
    code, _, err = call("sweep", "--figure", swept, tmp_path / "pixels", "--out", tmp_path / "x.svg")
    assert code == 1 and "has no figures" in err
    exact = ask("evaluate", tmp_path / "pixels")
    told = ask("sweep", "--figure", swept, tmp_path / "pixels", "--out", tmp_path / "x.svg")
    assert [point["name"] for point in told["points"]] == ["beta, beta=0.5", "beta, beta=2", "pixels"]
    assert told["points"][2]["figures"]["nats"]["value"] == exact["nats"]
    assert "<!-- pixels -->" in (tmp_path / "x.svg").read_text()
    for name, start in (("x.png", b"\x89PNG"), ("x.html", b"<!doctype html>")):
        ask("sweep", "--figure", swept, tmp_path / "pixels", "--out", tmp_path / name)
        assert (tmp_path / name).read_bytes().startswith(start)
    ask("evaluate", tmp_path / "pixels", "--split", "validation")
    code, _, err = call("sweep", "--figure", swept, tmp_path / "pixels", "--out", tmp_path / "x.svg")
    assert code == 1 and "the validation set and not the test set" in err


def test_figures_of_other_examples_are_refused(swept: Path, tmp_path: Path, ask: Ask, call: Call) -> None:
    runs = {name: tmp_path / name for name in ("pixels", "made")}
    for name, kind in (("pixels", "gated-pixelcnn"), ("made", "made")):
        ask("train", kind, *TINY, "--steps", "2", "--out", runs[name])
        ask("evaluate", runs[name])
    draw = ("sweep", "--figure", swept, runs["made"], runs["pixels"], "--out", tmp_path / "x.html")
    ask("evaluate", runs["pixels"], "--limit", "9")
    code, _, err = call(*draw)
    n = len(ancestral.data("digits", limit=24).test)
    assert code == 1 and f"{runs['pixels']} was judged on 9 of {n} examples (seed 0) and {swept} on all {n} examples" in err
    assert f"(ancestral evaluate {runs['pixels']})" in err and not (tmp_path / "x.html").exists()
    ask("evaluate", runs["made"], "--limit", "9", "--seed", "1")
    code, _, err = call("sweep", "--figure", *runs.values(), "--out", tmp_path / "x.html")
    assert code == 1 and "(seed 1)" in err and all(f"ancestral evaluate {run}" in err for run in runs.values())
    ask("evaluate", runs["made"])
    ask("evaluate", runs["pixels"], "--orders", "2")
    names = [point["name"] for point in ask(*draw)["points"]]
    assert names[-2:] == ["made", "pixels (mean over 2 orders)"]
    assert "pixels (mean over 2 orders)" in (tmp_path / "x.html").read_text()


def test_bounds_of_several_kinds_are_told_apart(swept: Path, copy: Path, tmp_path: Path, call: Call) -> None:
    draw = ("sweep", "--figure", swept, copy / NAMES[0], "--out", tmp_path / "x.html")
    code, out, _ = call(*draw)
    assert code == 0 and out.count("IWAE-2 on 6") == 1 and "subset: IWAE-2 on 6." in out
    call("evaluate", copy / NAMES[0], "--importance-samples", "3", "--subset", "5")
    code, out, _ = call(*draw)
    page = (tmp_path / "x.html").read_text()
    assert [text.count(words) for text in (out, page) for words in (", IWAE-2 on 6", ", IWAE-3 on 5")] == [2, 1, 2, 1]


# ---- processes


def sleeping(seconds: float, code: int = 0) -> subprocess.Popen[bytes]:
    return subprocess.Popen([sys.executable, "-S", "-c", f"import sys, time; time.sleep({seconds}); sys.exit({code})"])


def test_so_many_jobs_run_at_the_same_time(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    children = list[subprocess.Popen[bytes]]()
    most = 0

    def start(job: Job) -> subprocess.Popen[bytes]:
        nonlocal most
        children.append(sleeping(0.2, code=3 * (job.name == "b")))
        most = max(most, sum(child.poll() is None for child in children))
        return children[-1]

    monkeypatch.setattr(jobs, "start", start)
    (tmp_path / "b.txt").write_text("ancestral: an older fault\nancestral: no room\nmore\n")
    every = [Job(name, [], tmp_path / f"{name}.txt", 1) for name in "abcd"]
    ended = dict[str, str | None]()
    carry_out(every, 2, lambda job, error: ended.update({job.name: error}))
    assert ended == {"a": None, "b": "no room", "c": None, "d": None} and most == 2


@pytest.fixture
def children() -> Iterator[list[subprocess.Popen[bytes]]]:
    found = list[subprocess.Popen[bytes]]()
    yield found
    for child in found:
        child.kill()
        child.wait()


def test_a_request_to_terminate_ends_the_jobs(
    tmp_path: Path, children: list[subprocess.Popen[bytes]], monkeypatch: pytest.MonkeyPatch
) -> None:
    def start(job: Job) -> subprocess.Popen[bytes]:
        children.append(sleeping(60))
        if len(children) == 2:
            signal.raise_signal(signal.SIGTERM)
        return children[-1]

    before, handler = time.monotonic(), signal.getsignal(signal.SIGTERM)
    monkeypatch.setattr(jobs, "start", start)
    with pytest.raises(KeyboardInterrupt):
        carry_out([Job(name, [], tmp_path / name, 1) for name in "ab"], 2, lambda job, error: None)
    assert [child.returncode for child in children] == [-signal.SIGTERM] * 2 and time.monotonic() - before < 30
    assert signal.getsignal(signal.SIGTERM) is handler


def test_how_a_job_failed_is_told_from_its_log(tmp_path: Path) -> None:
    job = Job("a", [], tmp_path / "a.txt", 1)
    assert fault(job, 0) is None and "signal 9" in str(fault(job, -9)) and "exit code 2" in str(fault(job, 2))


@pytest.mark.slow
def test_real_processes_train_beside_one_another_and_go_on(tmp_path: Path) -> None:
    words = ("vae", *TINY, *JUDGED, "--beta", "1", "2", "--out", str(tmp_path / "s"), "--processes", "2", "--threads", "1")
    command = [sys.executable, "-m", "ancestral", "sweep", *words]
    child = subprocess.Popen([*command, "--steps", "30000"], stderr=subprocess.PIPE, text=True)
    wait_for(lambda: len(list((tmp_path / "s").glob("beta=*/config.json"))) == 2)
    child.terminate()
    assert "the same command goes on" in child.communicate(timeout=120)[1] and child.returncode == 130
    saved = list((tmp_path / "s").glob("beta=*/checkpoints/last.ckpt"))
    assert len(saved) == 2
    for folder in (path.parent.parent for path in saved):
        shutil.rmtree(folder)
    done = subprocess.run([*command, "--steps", "4", "--json"], capture_output=True, text=True, check=True)
    assert [trial["steps"] for trial in json.loads(done.stdout)["trials"]] == [4, 4]


def wait_for(there: Callable[[], bool], seconds: float = 120) -> None:
    end = time.monotonic() + seconds
    while not there():
        assert time.monotonic() < end
        time.sleep(0.2)
