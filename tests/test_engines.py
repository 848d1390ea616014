"""Engines behind the public calls: the same symbols from each, and clear words where one cannot."""

from __future__ import annotations

from typing import Any

import pytest
import torch

import ancestral
from ancestral.bench import BOUND, FORWARD, bench, multiply_rate
from ancestral.sampling import Interrupted
from ancestral.walking.engines import EngineError, Lowered, lowered

GREY = ancestral.DataSpec("image", (1, 6, 5), levels=17)
COLOUR = ancestral.DataSpec("image", (3, 4, 4), levels=256)


def made(name: str, spec: ancestral.DataSpec, **fields: object) -> ancestral.Autoregressive | ancestral.Latent:
    torch.manual_seed(0)
    model = ancestral.build(name, spec, preset="tiny", **fields).float()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.mul_(2).add_(torch.randn_like(parameter), alpha=0.05)
    return model


@pytest.mark.parametrize(("name", "spec"), [("gated-pixelcnn", GREY), ("gated-pixelcnn", COLOUR), ("agave", COLOUR)])
def test_engines_draw_the_same_samples(name: str, spec: ancestral.DataSpec) -> None:
    model, told = made(name, spec), []
    native = ancestral.sample(model, 19, seed=3, engine="native", batch_size=8, progress=lambda *done: told.append(done))
    eager = ancestral.sample(model, 19, seed=3, engine="eager")
    assert (native != eager).flatten(1).any(1).sum() <= 1  # a uniform next to a boundary may fall to either side
    assert told[-1] == (19 * spec.sites, 19 * spec.sites)
    assert torch.equal(native[17:], ancestral.sample(model, 2, seed=3, first_row=17, engine="native"))


def test_known_symbols_stay_in_every_engine() -> None:
    model, x = made("gated-pixelcnn", GREY), torch.full((4, 1, 6, 5), 7)
    known = torch.tensor([[True], [True], [True], [False], [False], [False]])
    native, eager = (ancestral.complete(model, x, known, engine=engine).x for engine in ("native", "eager"))
    assert (native[:, :, :3] == 7).all()
    assert torch.equal(native, eager)


def test_options_of_a_draw_hold_in_every_engine() -> None:
    model = made("gated-pixelcnn", GREY)
    for options in ({"temperature": 0.0}, {"temperature": 0.7, "top_k": 3}, {"top_p": 0.6}):
        native, eager = (ancestral.sample(model, 6, engine=engine, **options) for engine in ("native", "eager"))
        assert torch.equal(native, eager), options


def test_auto_takes_what_can() -> None:
    wide = made("gated-pixelcnn", GREY).double()
    assert torch.equal(ancestral.sample(wide, 3), ancestral.sample(wide, 3, engine="eager"))
    with pytest.raises(EngineError, match="float32"):
        ancestral.sample(wide, 3, engine="native")
    with pytest.raises(EngineError, match="there is no engine"):
        ancestral.sample(wide, 3, engine="warp")
    with pytest.raises(EngineError, match="causal networks"):
        ancestral.sample(made("vae", GREY), 3, engine="native")


@pytest.mark.parametrize("engine", ["native", "eager"])
def test_a_lowered_network_is_the_network(engine: str) -> None:
    model = made("gated-pixelcnn", COLOUR)
    x = torch.randint(256, (5, 3, 4, 4))
    network = Lowered(model.network, 256, engine)  # type: ignore[arg-type]
    torch.testing.assert_close(network(x), model.network(x), rtol=1e-5, atol=1e-5)
    parameters, state = network.start(5)
    torch.testing.assert_close(parameters, model.network(x)[:, 0, 0, 0], rtol=1e-5, atol=1e-5)
    parameters, _ = network.step(state, x[:, 0, 0, 0])
    torch.testing.assert_close(parameters, model.network(x)[:, 1, 0, 0], rtol=1e-5, atol=1e-5)


def test_a_weight_that_changes_changes_the_walk() -> None:
    model = made("gated-pixelcnn", GREY)
    before = ancestral.sample(model, 8, engine="native")
    with torch.no_grad():
        next(model.parameters()).data.mul_(-3)  # behind the back of autograd's counters
    assert not torch.equal(before, ancestral.sample(model, 8, engine="native"))
    assert torch.equal(ancestral.sample(model, 8, engine="eager"), ancestral.sample(model, 8, engine="native"))


def test_lowered_is_none_where_eager_steps_do_it() -> None:
    assert lowered(made("gated-pixelcnn", GREY), "eager") is None  # type: ignore[arg-type]
    assert lowered(made("vae", GREY).likelihood) is None  # type: ignore[union-attr]


@pytest.mark.parametrize("name", ["gated-pixelcnn", "agave"])
def test_bench_times_every_way(name: str) -> None:
    found = bench(made(name, GREY), batch_sizes=(1, 3), repeats=1)
    assert [each.batch for each in found] == [1] * 7 + [3] * 7
    assert {each.ratio for each in found if each.what == FORWARD} == {1.0}
    assert all(each.seconds > 0 for each in found)
    assert multiply_rate(side=32, repeats=2) > 0


@pytest.mark.parametrize("options", [{"batch_sizes": (0,)}, {"batch_sizes": ()}, {"repeats": 0}])
def test_bench_times_something(options: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match="give numbers of at least 1"):
        bench(made("nade", GREY), **options)


@pytest.mark.parametrize("name", ["vae", "vq-vae"])
def test_bench_times_z_and_x_together_where_x_has_no_walk(name: str) -> None:
    found = bench(made(name, GREY), batch_sizes=(2,), repeats=1)
    assert [each.what for each in found] == [
        BOUND,
        "sampling, z and x",
        "reconstruction from z",
        "encoding, exact numerics",
        "decoding, exact numerics",
    ]
    assert found[0].ratio == 1.0 and all(each.seconds > 0 for each in found)


def test_bench_refuses_real_values() -> None:
    with pytest.raises(ancestral.DataError, match="of real values"):
        bench(made("rnade", ancestral.DataSpec("vector", (3,))))


def test_bench_refuses_a_network_without_a_walk() -> None:
    likelihood = made("vae", GREY).likelihood  # type: ignore[union-attr]
    with pytest.raises(ancestral.DataError, match="no walk to time"):
        bench(likelihood)


@pytest.mark.parametrize("engine", ["native", "eager"])
def test_an_interruption_keeps_what_is_complete(engine: str) -> None:
    model = made("gated-pixelcnn", GREY)

    def stop(done: int, total: int) -> None:
        if done > total / 2:
            raise KeyboardInterrupt

    with pytest.raises(Interrupted, match="8 of 16") as caught:
        ancestral.sample(model, 16, batch_size=4, engine=engine, progress=stop)
    assert torch.equal(caught.value.complete, ancestral.sample(model, 8, engine=engine))
