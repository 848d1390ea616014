"""Sampling by whole passes, to a fixed point or along a wavefront: the samples of the walk, in as many passes as is said."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from tiny_cli import asking, calling
from tiny_latents import awake, fits, states
from torch import Tensor

import ancestral
from ancestral.core import Autoregressive, Context, Network
from ancestral.draw import Draw
from ancestral.families import Bernoulli, Normal
from ancestral.sampling import METHODS, Interrupted, parallel_sample, sample
from ancestral.sampling.parallel import PASSES
from ancestral.sampling.strategies import inference, likelihood_of
from ancestral.sampling.wavefront import Field, fronts, schedule, slope
from ancestral.spec import SYMMETRIES, DataSpec

GREY = DataSpec("image", (1, 5, 4), levels=4, classes=3)
RGB = DataSpec("image", (3, 5, 4), levels=5)
WIDE = DataSpec("image", (1, 3, 9), levels=2)

MODELS: list[tuple[str, DataSpec, dict[str, Any], int]] = [  # and the slope that their windows make by hand
    ("gated-pixelcnn", GREY, {}, 3),
    ("gated-pixelcnn", GREY, {"layers": 1}, 2),
    ("gated-pixelcnn", RGB, {"channels": 9}, 3),
    ("gated-pixelcnn", WIDE, {"first_kernel": 7}, 5),
    ("gated-pixelcnn", WIDE, {"first_kernel": 5, "kernel": 5, "layers": 3}, 7),
    ("agave", GREY, {}, 3),
    ("agave", RGB, {"layers": 1}, 2),
]
EACH = pytest.mark.parametrize(
    ("name", "spec", "sizes", "steep"), MODELS, ids=[f"{name}-{spec.shape}-{steep}" for name, spec, _, steep in MODELS]
)
METHOD = pytest.mark.parametrize("method", PASSES)


def fresh(name: str, spec: DataSpec, **overrides: Any) -> Any:
    return awake(name, spec, 0.5, **overrides)


# -- the schedule --------------------------------------------------------------------------------------------------------


def random_problems(count: int) -> Iterator[tuple[Field, tuple[int, int, int]]]:
    """Sets of pixels before the own one, also such as lead out of the image or leave gaps, and sizes of images."""
    source = np.random.default_rng(0)
    for _ in range(count):
        channels, height, width = (int(size) for size in source.integers(1, (4, 8, 9)))
        reach = int(source.integers(1, 12))
        cells = [(r, c) for r in range(-source.integers(1, 5), 1) for c in range(-reach, reach + 1) if (r, c) <= (0, 0)]
        yield {cell for cell in cells if source.random() < source.choice([0.1, 0.9])}, (channels, height, width)


def inside(field: Field, height: int, width: int) -> Iterator[tuple[tuple[int, int], tuple[int, int]]]:
    """Every pixel with every other one that it reads."""
    for r, w in np.ndindex(height, width):
        for dr, dc in field - {(0, 0)}:
            if r + dr >= 0 and 0 <= w + dc < width:
                yield (r, w), (r + dr, w + dc)


def test_no_site_is_settled_before_what_it_reads() -> None:
    for field, shape in random_problems(80):
        channels, height, width = shape
        turn = torch.full((height, width, channels), -1)
        found = fronts(field, shape)
        for i, numbers in enumerate(found):
            assert len(numbers) and (turn.view(-1)[numbers] == -1).all()
            turn.view(-1)[numbers] = i
        assert (turn >= 0).all()
        assert (turn[..., 1:] > turn[..., :-1]).all()  # of a pixel, colour after colour
        for reader, read in inside(field, height, width):
            assert turn[reader][0] > turn[read][-1]
        assert len(found) == (slope(field, shape) * (height - 1) + width) * channels <= channels * height * width


def test_the_slope_is_the_smallest() -> None:
    for field, (_, height, width) in random_problems(80):
        pairs = list(inside(field, height, width))
        fits = [s for s in range(width + 1) if all(a[1] + s * a[0] > b[1] + s * b[0] for a, b in pairs)]
        assert slope(field, (1, height, width)) == fits[0]


@EACH
def test_fronts_are_enough_for_the_network_itself(name: str, spec: DataSpec, sizes: dict[str, Any], steep: int) -> None:
    """Garbage at every site that is not settled yet leaves the parameters of a front alone: nothing declared is trusted."""
    network = likelihood_of(fresh(name, spec, **sizes)).network
    x, later = (torch.randint(spec.levels or 0, (2, spec.sites)) for _ in range(2))
    full = network(x.view(-1, *network.shape)).flatten(1, -2)
    found, settled = schedule(network), torch.zeros(spec.sites, dtype=torch.bool)
    for sites in found:
        now = network(torch.where(settled, x, later).view(-1, *network.shape)).flatten(1, -2)
        assert torch.allclose(now[:, sites], full[:, sites], rtol=0, atol=1e-12)
        settled[sites] = True
    assert settled.all()


@pytest.mark.parametrize("order", SYMMETRIES)
def test_every_symmetry_and_other_sizes(order: str) -> None:
    model = fresh("gated-pixelcnn", DataSpec("image", (2, 4, 6), levels=3))
    network = model.network.arrange(order, (2, 6, 5))
    view = Autoregressive(network, model.family, DataSpec("image", (2, 6, 5), levels=3))
    wave = parallel_sample(view, 3, method="wavefront")
    rows, columns = (5, 6) if order.startswith("columns") else (6, 5)
    assert wave.passes == 2 * (3 * (rows - 1) + columns) < 60
    assert torch.equal(wave.x, sample(view, 3)) and torch.equal(parallel_sample(view, 3).x, wave.x)


# -- the samples ---------------------------------------------------------------------------------------------------------


@EACH
@pytest.mark.parametrize("options", [{}, {"temperature": 1.3, "top_k": 3, "top_p": 0.95}, {"temperature": 0.0}])
def test_samples_are_those_of_the_walk(
    name: str, spec: DataSpec, sizes: dict[str, Any], steep: int, options: dict[str, Any]
) -> None:
    model = fresh(name, spec, **sizes)
    cached = sample(model, 5, seed=4, **options)
    wave = parallel_sample(model, 5, seed=4, method="wavefront", **options)
    fixed = parallel_sample(model, 5, seed=4, method="parallel", **options)
    channels, height, width = model.spec.shape
    assert torch.equal(wave.x, cached) and torch.equal(fixed.x, cached)
    assert wave.passes == (steep * (height - 1) + width) * channels < spec.sites
    assert fixed.passes <= wave.passes + 1
    assert len(cached.unique()) > 1 or not options.get("temperature", 1)


@METHOD
@pytest.mark.parametrize("name", ["gated-pixelcnn", "agave"])
def test_a_row_depends_on_its_number_alone(name: str, method: str) -> None:
    model = fresh(name, GREY)
    whole = sample(model, 7, seed=9, method=method)
    assert torch.equal(sample(model, 7, seed=9, method=method, batch_size=3), whole)
    assert torch.equal(sample(model, 2, seed=9, method=method, first_row=5), whole[5:])
    assert not torch.equal(sample(model, 7, seed=10, method=method), whole)


@METHOD
def test_known_symbols_stay(method: str) -> None:
    """Wherever they are: each draw sees the known symbols before it, as in a walk with the same draw."""
    model = fresh("gated-pixelcnn", RGB)
    known = torch.rand(4, *RGB.shape) < 0.4  # type: ignore[arg-type]
    draw = Draw(5, 1.2, known=(sample(model, 4, seed=1), known), first_row=2)
    with inference(model):
        found = PASSES[method](model, 4, None, draw).x
        assert torch.equal(found, model.walk(4).run(draw))
    assert torch.equal(found[known], sample(model, 4, seed=1)[known])
    assert not torch.equal(found[known], sample(model, 4, seed=5, first_row=2, temperature=1.2)[known])


@METHOD
def test_labels_contexts_and_latents(method: str) -> None:
    model = fresh("agave", GREY, conditional=True)
    labels, z = torch.tensor([0, 1, 2, 0, 1]), {"z": torch.randn(5, 2)}
    context = Context(vector=torch.nn.functional.one_hot(labels, 3).double())
    for options in ({"labels": labels}, {"context": context, "z": z}, {"labels": labels, "z_temperature": 0.3}):
        cached = sample(model, 5, seed=1, **options)  # type: ignore[arg-type]
        assert torch.equal(sample(model, 5, seed=1, method=method, batch_size=2, **options), cached)  # type: ignore[arg-type]
    assert not torch.equal(sample(model, 5, seed=1, labels=[2] * 5, method=method), sample(model, 5, seed=1, labels=labels))


@METHOD
def test_single_precision(method: str) -> None:
    """Equal where no uniform lies within a rounding error of a boundary, as with this seed."""
    model = fresh("agave", GREY).float()
    assert torch.equal(sample(model, 6, seed=1, method=method), sample(model, 6, seed=1, engine="eager"))


def test_fixed_points_follow_the_likelihood() -> None:
    model = fresh("gated-pixelcnn", DataSpec("image", (1, 2, 3), levels=2))
    expected = model.log_prob(states((1, 2, 3))).exp().detach()
    assert fits(sample(model, 3000, seed=1, method="parallel", batch_size=1000), expected) > 1e-3


class Sums(Network):
    """x_i ~ N(what came before, 1): real values, by the default start and step."""

    def forward(self, x: Tensor, context: Context | None = None) -> Tensor:
        before = x.cumsum(1) - x
        return torch.stack([before, torch.zeros_like(before)], -1)


def test_fixed_points_of_real_values() -> None:
    model = Autoregressive(Sums((6,), discrete=False), Normal(), DataSpec("vector", (6,)))
    assert torch.allclose(sample(model, 4, seed=1, method="parallel"), sample(model, 4, seed=1))


def test_passes_of_simple_models() -> None:
    assert parallel_sample(fresh("vae", GREY), 4).passes == 2  # one pass settles independent pixels, another one sees it
    assert parallel_sample(fresh("gated-pixelcnn", DataSpec("image", (1, 1, 1), levels=2)), 4).passes == 1


class Counted(Network):
    """A network that counts its passes."""

    def __init__(self, network: Network) -> None:
        super().__init__(tuple(network.shape))
        self.network, self.calls = network, 0

    def forward(self, x: Tensor, context: Context | None = None) -> Tensor:
        self.calls += 1
        y: Tensor = self.network(x, context)
        return y


@METHOD
def test_passes_are_those_made(method: str, monkeypatch: pytest.MonkeyPatch) -> None:
    model = fresh("gated-pixelcnn", GREY)
    counted = Counted(model.network)
    monkeypatch.setattr("ancestral.sampling.parallel.schedule", lambda _: schedule(model.network))
    found = parallel_sample(Autoregressive(counted, model.family, model.spec), 4, method=method)
    assert found.passes == counted.calls > 1


@METHOD
def test_progress_and_interruption_by_batches(method: str) -> None:
    model, told = fresh("gated-pixelcnn", GREY), list[tuple[int, int]]()
    whole = sample(model, 5, batch_size=2, method=method, progress=lambda done, total: told.append((done, total)))
    assert told == [(40, 100), (80, 100), (100, 100)]

    def stop(done: int, total: int) -> None:
        if done == 80:
            raise KeyboardInterrupt

    with pytest.raises(Interrupted, match="4 of 5") as caught:
        sample(model, 5, batch_size=2, method=method, progress=stop)
    assert torch.equal(caught.value.complete, whole[:4])


# -- refusals and the command line ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("fact", [{"recurrent": True}, {"coarsest": 2}])
def test_fields_that_differ_from_pixel_to_pixel_are_refused(fact: dict[str, Any], monkeypatch: pytest.MonkeyPatch) -> None:
    model = fresh("gated-pixelcnn", GREY)
    program = SimpleNamespace(**{"recurrent": False, "coarsest": 1, **fact})
    monkeypatch.setattr(model.network, "lowered", lambda: program)
    with pytest.raises(ValueError, match="recurrences" if program.recurrent else "coarse layers"):
        schedule(model.network)


def test_refusals() -> None:
    narrow = DataSpec("image", (1, 6, 3), levels=2)
    for wide in (fresh("gated-pixelcnn", narrow), fresh("gated-pixelcnn", DataSpec("image", (1, 1, 9), levels=2))):
        with pytest.raises(ValueError, match=r"gains nothing; take method='parallel' or method='cached'"):
            sample(wide, 2, method="wavefront")
    sums = Autoregressive(Sums((6,)), Bernoulli(), DataSpec("vector", (6,), levels=2))
    for other, name in ((sums, "Sums"), (fresh("vae", GREY), "Factorised")):
        with pytest.raises(ValueError, match=f"{name} does not tell its receptive field.*method='parallel'"):
            sample(other, 2, method="wavefront")
    with pytest.raises(ValueError, match="choose one of parallel, wavefront"):
        parallel_sample(sums, 2, method="cached")
    with pytest.raises(ValueError, match="choose one of cached, recompute, parallel, wavefront"):
        sample(sums, 2, method="quick")
    assert METHODS == ("cached", "recompute", "parallel", "wavefront")


def test_the_command_line_tells_the_passes(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    call = calling(capsys, monkeypatch)
    ask, run, out = asking(call), tmp_path / "run", tmp_path / "x.npy"
    ancestral.save(fresh("agave", GREY), run)
    model = ancestral.load(run)
    for method in PASSES:
        found = parallel_sample(model, 3, seed=2, method=method)
        told = ask("sample", run, "-n", "3", "--seed", "2", "--method", method, "--out", out)
        assert told["passes"] == found.passes and np.array_equal(np.load(out), found.x.numpy())
    code, text, _ = call("sample", run, "-n", "3", "--method", "wavefront", "--out", out)
    assert code == 0 and text == f"{out}: 3 samples in 16 passes over 20 symbols\n"
    assert "passes" not in ask("sample", run, "-n", "3", "--out", out)
