"""Strategies on the command line: what ``sample`` searches, proposes and weighs, next to what the library gives."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from tiny_cli import Ask, Call

import ancestral
from ancestral.data.notation import Text
from ancestral.hub import load
from ancestral.sampling import beam_search, log_probs, sample, speculative_sample

SPEC = ancestral.DataSpec("image", (1, 4, 4), 4, 3)
EAGER = ("--engine", "eager")


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Runs of the same images: ``plain`` and ``two``, which knows labels, ``agave``, and ``other``, of fewer levels."""
    folder = tmp_path_factory.mktemp("home")
    torch.manual_seed(0)
    torch.set_default_dtype(torch.float64)
    for name, model in (
        ("plain", ancestral.build("nade", SPEC, preset="tiny")),
        ("two", ancestral.build("gated-pixelcnn", SPEC, preset="tiny", conditional=True)),
        ("agave", ancestral.build("agave", SPEC, preset="tiny")),
        ("other", ancestral.build("nade", ancestral.DataSpec("image", (1, 4, 4), 3), preset="tiny")),
    ):
        ancestral.save(model, folder / name)
    return folder


def test_min_p_and_log_probabilities(home: Path, ask: Ask, call: Call, tmp_path: Path) -> None:
    words = ("sample", home / "two", "-n", 4, "--seed", 3, "--min-p", 0.5, "--temperature", 0.8, "--log-prob", *EAGER)
    told = ask(*words, "--out", tmp_path / "x.npy")
    model, labels = load(home / "two"), [0, 1, 2, 0]
    options = {"min_p": 0.5, "temperature": 0.8, "labels": labels}
    x = sample(model, 4, seed=3, **options)  # type: ignore[arg-type]
    assert np.array_equal(np.load(tmp_path / "x.npy"), x.numpy())
    found = log_probs(model, x, **options)  # type: ignore[arg-type]
    assert found.to_dict() == {"model": found.model.tolist(), "altered": found.altered.tolist()}
    assert told["log_prob"] == pytest.approx(found.model.tolist())
    assert told["altered_log_prob"] == pytest.approx(found.altered.tolist())
    code, out, _ = call(*words, "--out", tmp_path / "y.npy")
    assert code == 0 and f"3: log-probability {found.model[3]:.2f} nats, {found.altered[3]:.2f} as it was drawn" in out


def test_latents_and_guidance_are_weighed_as_they_were_drawn(home: Path, ask: Ask, call: Call, tmp_path: Path) -> None:
    out = call("sample", home / "agave", "-n", 1, "--log-prob", "--out", tmp_path / "x.npy", *EAGER)[1]
    assert "0: log-probability given z " in out
    out = call("sample", home / "agave", "-n", 1, "--beam", 2, "--out", tmp_path / "x.npy", *EAGER)[1]
    assert "of the most probable examples given z" in out
    told = ask("sample", home / "agave", "-n", 3, "--seed", 2, "--log-prob", "--out", tmp_path / "x.npy", *EAGER)
    model = load(home / "agave")
    assert told["log_prob"] == pytest.approx(log_probs(model, sample(model, 3, seed=2), seed=2).model.tolist())
    words = ("--guidance", 2, "--log-prob", "--labels", 1, "--out", tmp_path / "x.npy")
    told = ask("sample", home / "two", "-n", 2, *words, *EAGER)
    model = load(home / "two")
    found = log_probs(model, torch.from_numpy(np.load(tmp_path / "x.npy")), labels=[1, 1], guidance=2.0)
    assert told["altered_log_prob"] == pytest.approx(found.altered.tolist())


def test_beams_give_the_best_of_every_label(home: Path, ask: Ask, tmp_path: Path) -> None:
    out = tmp_path / "x.npy"
    told = ask("sample", home / "plain", "-n", 3, "--beam", 5, "--log-prob", "--out", out, *EAGER)
    found = beam_search(load(home / "plain"), 5, n_best=3)
    assert np.array_equal(np.load(out), found.x[0].numpy())
    for name in ("log_prob", "altered_log_prob"):
        assert told[name] == pytest.approx(found.log_prob[0].tolist())

    ask("sample", home / "two", "-n", 5, "--beam", 4, "--out", out, *EAGER)
    found = beam_search(load(home / "two"), 4, n=3, labels=[0, 1, 2], n_best=2)
    assert np.array_equal(np.load(out), found.x[[0, 1, 2, 0, 1], [0, 0, 0, 1, 1]].numpy())

    ask("sample", home / "agave", "-n", 2, "--beam", 1, "--seed", 4, "--out", out, *EAGER)
    assert np.array_equal(np.load(out), sample(load(home / "agave"), 2, seed=4, temperature=0).numpy())


def test_drafts_propose(home: Path, ask: Ask, call: Call, tmp_path: Path) -> None:
    out, model, draft = tmp_path / "x.npy", load(home / "two"), load(home / "plain")
    words = ("sample", home / "two", "-n", 3, "--draft", home / "plain", "--gamma", 2, "--top-k", 3, "--seed", 6, *EAGER)
    told = ask(*words, "--out", out)
    found = speculative_sample(model, draft, 3, gamma=2, top_k=3, seed=6, labels=[0, 1, 2])
    assert np.array_equal(np.load(out), found.x.numpy())
    assert (told["acceptance"], told["symbols_per_call"]) == (found.acceptance, found.symbols_per_call)
    code, text, _ = call(*words, "--out", tmp_path / "x.png")
    assert code == 0 and f"{found.symbols_per_call:.2f} symbols a pass" in text


def test_a_search_gives_one_of_a_kind_where_nothing_is_said(home: Path, ask: Ask, tmp_path: Path) -> None:
    out = tmp_path / "x.npy"
    for run, words, count in (("plain", (), 1), ("two", (), 3), ("two", ("--labels", 1, 2), 2), ("agave", (), 16)):
        told = ask("sample", home / run, "--beam", 1, *words, "--out", out, *EAGER)
        assert told["number"] == len(np.load(out)) == count


@pytest.mark.parametrize("how", ["--beam", "--draft", "--guidance"])
def test_rows_walk_together_as_was_asked(how: str, home: Path, ask: Ask, call: Call, tmp_path: Path) -> None:
    value = {"--beam": 2, "--draft": home / "plain", "--guidance": 1}[how]
    words = ("sample", home / "two", how, value, "-n", 3, *EAGER)
    ask(*words, "--batch-size", 2, "--out", tmp_path / "x.npy")
    ask(*words, "--out", tmp_path / "y.npy")
    assert np.array_equal(np.load(tmp_path / "x.npy"), np.load(tmp_path / "y.npy"))
    code, _, err = call(*words, "--batch-size", 0, "--out", tmp_path / "x.npy")
    assert code == 1 and "batch_size is 0" in err


def test_a_draft_writes_in_the_same_notation(call: Call, tmp_path: Path) -> None:
    model = ancestral.build("wavenet", ancestral.DataSpec("text", (6,), 3), preset="tiny")
    for name, alphabet in (("a", "abc"), ("x", "xyz")):
        ancestral.save(model, tmp_path / name, extra={"data": {"notation": Text("characters", alphabet).to_dict()}})
    words = ("sample", tmp_path / "a", *EAGER, "--draft")
    assert call(*words, tmp_path / "a")[0] == 0
    code, _, err = call(*words, tmp_path / "x")
    assert code == 1 and "symbols stand for other things" in err and "in the same notation" in err


@pytest.mark.parametrize(
    ("words", "hint"),
    [
        (("--beam", 4, "-n", 5), "5 are asked for"),
        (("--beam", 4, "-n", 2, "--top-p", 0.5), "--top-p: --beam searches"),
        (("--beam", 2, "-n", 2, "--draft", "DRAFT"), "--draft: --beam searches"),
        (("--draft", "DRAFT", "--method", "parallel"), "--method: they have no say"),
        (("--draft", "OTHER"), "of levels 3 and the model of 4"),
        (("--length-penalty", 1), "--length-penalty: "),
        (("--min-p", 2), "min_p is 2.0"),
        (("--z-temperature", 0.5), "--z-temperature: this model has no latents"),
    ],
)
def test_what_means_nothing_is_refused(words: tuple[object, ...], hint: str, home: Path, call: Call, tmp_path: Path) -> None:
    runs = {"DRAFT": home / "two", "OTHER": home / "other"}
    named = [runs.get(word, word) if isinstance(word, str) else word for word in words]
    code, _, err = call("sample", home / "plain", *named, "--out", tmp_path / "x.npy")
    assert code == 1 and hint in err
