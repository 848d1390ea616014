"""Completion: what is known stays, and the rest follows its conditional distribution, by enumeration."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from tiny_cli import asking, calling
from tiny_latents import Flat, awake, coins, fits, fixed, gaussian, pixels, probabilities, states
from torch import Tensor

from ancestral.cli.draw import MASKS
from ancestral.draw import Draw
from ancestral.hub import save
from ancestral.latent.latent import Latent
from ancestral.sampling import complete, sample
from ancestral.sampling.complete import Completion
from ancestral.sampling.parallel import fixed_point
from ancestral.spec import DataSpec
from ancestral.symbols import DataError

GREY = DataSpec("image", (1, 5, 4), levels=4, classes=3)
RGB = DataSpec("image", (3, 3, 4), levels=5)


def fresh(name: str, spec: DataSpec, **overrides: Any) -> Any:
    return awake(name, spec, 0.5, **overrides)


def top(shape: tuple[int, ...], rows: int) -> Tensor:
    known = torch.zeros(shape, dtype=torch.bool)
    known[..., :rows, :] = True
    return known


def test_exact_completion_follows_the_conditional_distribution() -> None:
    model = fresh("gated-pixelcnn", DataSpec("image", (1, 2, 3), levels=2))
    everything = states((1, 2, 3))
    known = torch.tensor([True, True, False, False, False, False]).view(1, 2, 3)
    x = torch.tensor([1, 0, -7, 99, 0, 0]).view(1, 1, 2, 3).expand(3000, 1, 2, 3)  # what is unknown does not matter
    done = complete(model, x, known, seed=2, batch_size=1000)
    assert (done.status, done.particles, done.effective_sample_size) == ("exact", None, None)
    agrees = ((everything == x[0]) | ~known).flatten(1).all(1)
    assert fits(done.x, model.log_prob(everything).exp().detach() * agrees) > 1e-3


def test_completion_of_rows_with_prefixes_of_their_own() -> None:
    model = fresh("gated-pixelcnn", RGB)
    x = sample(model, 4, seed=1)
    known = torch.zeros(4, 36, dtype=torch.bool)
    for row, settled in enumerate((0, 7, 20, 36)):
        known[row, list(model.network.order.sites[:settled])] = True
    known = known.view_as(x)
    done = complete(model, x, known, seed=8)
    assert torch.equal(done.x[known], x[known])
    assert torch.equal(done.x[0], sample(model, 1, seed=8)[0]) and torch.equal(done.x[3], x[3])
    assert torch.equal(complete(model, x, known, seed=8, batch_size=3).x, done.x)
    assert torch.equal(complete(model, x[2:], known[2:], seed=8, first_row=2).x, done.x[2:])
    assert torch.equal(complete(model, x, known, seed=1).x, x)  # with the uniforms that made x


def test_the_status_says_which_rows_can_be_exact() -> None:
    x = torch.zeros(2, 1, 5, 4, dtype=torch.long)
    known = top((2, 1, 5, 4), 2)
    assert complete(fresh("gated-pixelcnn", GREY), x, known).status == "exact"
    known[1, 0, 3, 2] = True
    for name in ("gated-pixelcnn", "agave", "vae"):
        done = complete(fresh(name, GREY), x, known, particles=2)
        assert (done.status, done.particles) == ("approximate", 2)


def test_evidence_of_what_is_exact_is_exact() -> None:
    model, everything = fresh("gated-pixelcnn", DataSpec("image", (1, 2, 3), levels=2)), states((1, 2, 3))
    known = torch.tensor([[True, True, True], [False, False, False]])
    found = complete(model, everything[:20], known).log_evidence
    for x, evidence in zip(everything[:20], found, strict=True):
        agrees = ((everything == x) | ~known).flatten(1).all(1)
        assert float(evidence) == pytest.approx(float(model.log_prob(everything[agrees]).detach().logsumexp(0)))


@pytest.mark.parametrize(
    ("x", "known", "message"),
    [
        (torch.zeros(2, 1, 5, 4, dtype=torch.long), torch.ones(5, 4, dtype=torch.long), "takes booleans"),
        (torch.zeros(2, 1, 5, 4, dtype=torch.long), torch.ones(3, 4, dtype=torch.bool), "does not broadcast"),
        (torch.full((2, 1, 5, 4), 9), torch.ones(5, 4, dtype=torch.bool), "range over 9"),
        (torch.zeros(2, 1, 4, 4, dtype=torch.long), torch.ones(4, 4, dtype=torch.bool), "batch of shape"),
        (torch.zeros(0, 1, 5, 4, dtype=torch.long), torch.ones(5, 4, dtype=torch.bool), "no rows"),
    ],
)
def test_evidence_that_does_not_fit(x: Tensor, known: Tensor, message: str) -> None:
    with pytest.raises(DataError, match=message):
        complete(fresh("gated-pixelcnn", GREY), x, known)


def approximate(model: Latent, evidence: list[int | None], n: int = 600, particles: int = 32) -> tuple[Completion, Tensor]:
    """n completions of one example, None where it is unknown, and the exact probabilities of all states given the rest."""
    shape = tuple(model.likelihood.network.shape)
    known = torch.tensor([value is not None for value in evidence]).view(shape)
    x = torch.tensor([value or 0 for value in evidence]).view(shape)
    done = complete(model, x.expand(n, *shape), known, seed=3, particles=particles, batch_size=particles * 250)
    everything = states(shape)
    agrees = ((everything == x) | ~known).flatten(1).all(1)
    expected = probabilities(model, everything) * agrees
    return done, expected / expected.sum()


def astray(x: Tensor) -> tuple[Tensor, Tensor]:
    """A posterior that leans the wrong way and is too sure of it; only the weights can set it right."""
    mean = 1.2 - 2 * x.flatten(1).double().mean(1, keepdim=True)
    return mean, torch.full_like(mean, 0.5)


@pytest.mark.parametrize("evidence", [[1, None, 1], [None, 0, None], [None, None, None]])
def test_completion_through_latents_of_any_subset(evidence: list[int | None]) -> None:
    done, expected = approximate(coins(astray, slopes=(3.0, -2.0, 1.5)), evidence)
    assert fits(done.x, expected) > 1e-3
    assert done.status == "approximate" and done.particles == 32
    size = done.effective_sample_size
    assert size is not None and bool(((size >= 1) & (size <= 32 + 1e-9)).all())


def test_completion_through_latents_of_a_prefix() -> None:
    done, expected = approximate(pixels(astray), [1, 0, None, None])
    assert fits(done.x, expected) > 1e-3


def test_weights_are_even_where_the_proposal_is_the_posterior() -> None:
    """Nothing known and q = p: every particle is as good as any other."""
    model = coins(fixed(0.0, 1.0))
    done = complete(model, torch.zeros(4, 3, dtype=torch.long), torch.tensor(False), particles=10)
    assert done.effective_sample_size is not None
    assert torch.allclose(done.effective_sample_size, torch.full((4,), 10.0))


def test_completion_through_latents_is_a_function_of_the_row() -> None:
    model = fresh("agave", GREY)
    x = sample(model, 5, seed=1)
    whole = complete(model, x, top((1, 5, 4), 3), seed=4, particles=7)
    assert torch.equal(whole.x[:, :, :3], x[:, :, :3])
    parts = complete(model, x, top((1, 5, 4), 3), seed=4, particles=7, batch_size=2)
    assert torch.equal(whole.x, parts.x)
    late = complete(model, x[3:], top((1, 5, 4), 3), seed=4, particles=7, first_row=3)
    assert torch.equal(whole.x[3:], late.x)
    assert whole.effective_sample_size is not None and late.effective_sample_size is not None
    assert torch.allclose(whole.effective_sample_size[3:], late.effective_sample_size)
    for options, hint in (({"particles": 1}, "at least 2"), ({"batch_size": 0}, "at least 1"), ({"first_row": -1}, "at least 0")):
        with pytest.raises(ValueError, match=hint):
            complete(model, x, top((1, 5, 4), 3), **options)


def test_completion_in_single_precision() -> None:
    model = fresh("agave", GREY).float()
    x = sample(model, 3, seed=1)
    done = complete(model, x, top((1, 5, 4), 2), particles=4)
    assert torch.equal(done.x[:, :, :2], x[:, :, :2])


def test_completion_of_real_values() -> None:
    """x ~ N(z, 1) in two sites of which one is known: the other's mean is half of it, its variance 3/2."""
    decoder = torch.nn.Linear(1, 2, bias=False)
    torch.nn.init.ones_(decoder.weight)
    topdown = Flat(lambda x: (x.mean(1, keepdim=True) * 2 / 3, torch.tensor(3**-0.5)), decoder)
    model = gaussian(topdown, sites=2)
    x = torch.tensor([[1.6, float("nan")]]).expand(600, 2)
    done = complete(model, x, torch.tensor([True, False]), particles=24, batch_size=24 * 300).x
    assert (done[:, 0] == 1.6).all()
    assert done[:, 1].mean() == pytest.approx(0.8, abs=4 * (1.5 / 600) ** 0.5)
    assert done[:, 1].var() == pytest.approx(1.5, rel=4 * (2 / 600) ** 0.5)


def test_parallel_completion_keeps_what_is_known() -> None:
    """The fixed point of a draw with known symbols is the walk's completion."""
    model = fresh("gated-pixelcnn", RGB)
    x, known = sample(model, 3, seed=1), top((3, 3, 3, 4), 1)
    with torch.no_grad():
        found = fixed_point(model, 3, None, Draw(5, known=(x, known))).x
    assert torch.equal(found, complete(model, x, known, seed=5).x)


# -- from the command line -----------------------------------------------------------------------------------------------------

PICTURES = {
    "top": ("#####", "#####", "#####", ".....", "....."),
    "left": ("###..",) * 5,
    "hole": ("#####", "#...#", "#...#", "#...#", "#####"),
    "checkerboard": ("#.#.#", ".#.#.", "#.#.#", ".#.#.", "#.#.#"),
}


@pytest.mark.parametrize("name", PICTURES)
def test_names_of_masks(name: str, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    model = fresh("gated-pixelcnn", DataSpec("image", (1, 5, 5), levels=4))
    x, known = sample(model, 2, seed=1), torch.tensor([[cell == "#" for cell in row] for row in PICTURES[name]])
    np.save(tmp_path / "x.npy", x.numpy())
    save(model, tmp_path / "run")
    call = calling(capsys, monkeypatch)
    words = ("complete", tmp_path / "run", tmp_path / "x.npy", "--known", name, "-n", "3", "--particles", "4", "--seed", "9")
    told = asking(call)(*words, "--out", tmp_path / "done.npy")
    done = complete(model, x.repeat_interleave(3, 0), known, seed=9, particles=4)
    assert np.array_equal(np.load(tmp_path / "done.npy"), done.x.numpy())
    assert told["status"] == done.status == ("exact" if name == "top" else "approximate")
    assert told["particles"] == done.particles and len(told["log_evidence"]) == 2
    assert ("least_effective_sample_size" in told) == (name != "top")
    lines = call(*words, "--out", tmp_path / "done.png")[1].splitlines()
    assert "3 completions of each of 2 pictures" in lines[0]
    assert lines[1].startswith("exact: each is drawn" if name == "top" else "approximate: each is one of 4 particles")


def test_small_images_have_holes() -> None:
    for height, width in ((1, 1), (2, 3), (3, 3), (4, 7), (28, 28)):
        hole = ~MASKS["hole"](torch.arange(height)[:, None], torch.arange(width), height, width)
        rows, columns = hole.any(1).sum(), hole.any(0).sum()
        assert (height / 2 - 1 <= rows <= max(1, height / 2 + 1)) and (width / 2 - 1 <= columns <= max(1, width / 2 + 1))
        assert hole.sum() == rows * columns and torch.equal(hole, hole.flip(0, 1))
