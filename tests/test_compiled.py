"""The compiled engine: its functions against the Stepper, uncompiled everywhere and compiled where there is a compiler."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterator

import pytest
import torch
from tiny_natives import CASES, Branched, context_of, given, network, symbols
from torch import Tensor

import ancestral
from ancestral.causal.arithmetic import Floating
from ancestral.causal.network import CausalNetwork, Engine
from ancestral.causal.stepping import Stepper
from ancestral.core import Context, StateError
from ancestral.walking import compiled, engines
from ancestral.walking.compiled import COMPILER, Compiled, refusal
from ancestral.walking.engines import EngineError, Lowered

needs_compiler = pytest.mark.skipif(shutil.which(COMPILER) is None, reason=f"needs the C++ compiler {COMPILER}")


@pytest.fixture
def uncompiled(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[str]]:
    """The functions as they are traced, so that what they compute is checked in milliseconds; the mode of each."""
    modes: list[str] = []
    monkeypatch.setattr(compiled, "_STEPS", {})
    monkeypatch.setattr(compiled.torch, "compile", lambda graph, mode: modes.append(mode) or graph)
    yield modes


def along(engine: Engine, x: Tensor, once: dict[int, Tensor], like: Tensor) -> Tensor:
    """The parameters (D, n, k) that a walk along the data gives."""
    parameters, kept = engine.start(len(x), once, like)
    seen = [parameters]
    for position, symbol in enumerate(by_position(x)[:-1]):
        engine.absorb(kept, position, symbol)
        seen.append(engine.advance(kept, position + 1))
    return torch.stack(seen)


def by_position(x: Tensor) -> Tensor:
    """(n, C, H, W) to (D, n): row, column, channel."""
    return x.permute(2, 3, 1, 0).flatten(0, 2)


@torch.no_grad()
def difference(net: CausalNetwork, x: Tensor, context: Context | None = None, rollback: int = 0) -> float:
    """How far the engines are apart, relative to the largest parameter."""
    program, once = net.lowered(context), given(net, context)
    eager = along(Stepper(program, Floating(), rollback), x, once, net.anchor)
    return float((along(Compiled(program, rollback), x, once, net.anchor) - eager).abs().max() / eager.abs().max().clamp_min(1))


@pytest.mark.parametrize(("shape", "levels", "sizes", "kind"), CASES)
@pytest.mark.parametrize("rollback", [0, 7])
def test_functions_are_the_steppers(
    shape: tuple[int, int, int], levels: int, sizes: dict[str, int], kind: str | None, rollback: int, uncompiled: list[str]
) -> None:
    net = network(shape, levels, size=5, **sizes).double()
    context = context_of(kind, shape, 3)
    context = None if context is None else context.map(Tensor.double)
    assert difference(net, symbols(net, levels, 3), context, rollback) < 1e-10
    assert difference(net.float(), symbols(net, levels, 1), None) < 1e-5
    assert set(uncompiled) == {"default"}


@pytest.mark.parametrize(("channels", "features"), [(1, 1), (1, 33), (3, 20)])
def test_relus_and_sums_are_carried_out(channels: int, features: int, uncompiled: list[str]) -> None:
    net = Branched(channels, features).double()
    assert difference(net, symbols(net, 4, 5)) < 1e-10


def test_programs_of_one_structure_share_their_functions(uncompiled: list[str]) -> None:
    for _ in range(2):  # other weights
        net = network((3, 4, 5), 4, size=5).double()
        assert difference(net, symbols(net, 4, 3)) < 1e-10
    assert len(uncompiled) == 3
    assert difference(net.float(), symbols(net, 4, 3)) < 1e-5
    assert len(uncompiled) == 6


@torch.no_grad()
def check_states(net: CausalNetwork, close: Callable[[Tensor, Tensor], None]) -> None:
    """Select and rollback, and either engine going on with the other's state, against the network's forward."""
    x = symbols(net, 4, 4)
    truth, flat = by_site(net(x)), by_position(x)
    network = Lowered(net, 4, "compiled")
    parameters, state = network.start(4, rollback=9)
    for position in range(11):
        close(parameters, truth[position])
        parameters, state = network.step(state, flat[position])
    state = state.rollback(9)
    parents = torch.tensor([3, 1, 1])
    state = state.select(parents)
    state.plan = Stepper(net.lowered(), Floating(), 9)
    state.plan.start(1, {}, net.anchor)  # makes its operations ready; the walk goes on with the state as it is
    engines = [state.plan, network.start(1, rollback=9)[1].plan]
    for position in range(2, len(flat) - 1):
        state.plan = engines[position // 4 % 2]
        parameters, state = network.step(state, flat[position][parents])
        close(parameters, truth[position + 1][parents])
    with pytest.raises(StateError):
        network.step(state, flat[-1][parents])


def by_site(parameters: Tensor) -> Tensor:
    """(n, C, H, W, k) to (D, n, k): row, column, channel."""
    return parameters.permute(2, 3, 1, 0, 4).flatten(0, 2)


def test_states_are_the_steppers(uncompiled: list[str]) -> None:
    for shape in ((1, 5, 4), (3, 4, 3)):
        check_states(network(shape, 4, size=5).double(), lambda a, b: torch.testing.assert_close(a, b, rtol=0, atol=1e-10))


class Told:
    """Remembers the last report of progress."""

    def __call__(self, *done: int) -> None:
        self.last = done


def test_samples_are_those_of_eager_steps(uncompiled: list[str]) -> None:
    for name, shape in (("gated-pixelcnn", (3, 4, 4)), ("agave", (1, 5, 4))):
        model, told = ancestral.build(name, ancestral.DataSpec("image", shape, levels=17), preset="tiny"), Told()
        drawn = ancestral.sample(model, 5, seed=3, batch_size=3, engine="compiled", progress=told)
        assert torch.equal(drawn, ancestral.sample(model, 5, seed=3, engine="eager"))
        assert told.last == (5 * model.spec.sites, 5 * model.spec.sites)
        assert len(uncompiled) > 0
    known = torch.tensor([[True]] * 2 + [[False]] * 3)
    done, eager = (ancestral.complete(model, drawn, known, seed=1, engine=engine).x for engine in ("compiled", "eager"))
    assert torch.equal(done, eager)
    assert torch.equal(done[:, :, :2], drawn[:, :, :2])


def test_what_it_cannot_do_it_says(monkeypatch: pytest.MonkeyPatch) -> None:
    model = ancestral.build("gated-pixelcnn", ancestral.DataSpec("image", (1, 4, 4), levels=3), preset="tiny")
    network, program = model.network, model.network.lowered()  # type: ignore[attr-defined, operator]
    assert "torch.bfloat16" in str(refusal(program, network.anchor.bfloat16()))
    assert "meta" in str(refusal(program, network.anchor.to("meta")))
    with pytest.raises(EngineError, match="causal networks"):
        ancestral.sample(ancestral.build("vae", model.spec, preset="tiny"), 2, engine="compiled")
    with pytest.raises(EngineError, match=r"whole numbers.*engine='eager'"):
        ancestral.compress(model, torch.zeros(2, 1, 4, 4, dtype=torch.long), engine="compiled")
    monkeypatch.setattr(compiled, "COMPILER", "no-such-compiler")
    with pytest.raises(EngineError, match=r"C\+\+ compiler no-such-compiler, which is not found.*engine='eager' can"):
        ancestral.sample(model, 2, engine="compiled")


def test_auto_leaves_a_cpu_to_others(monkeypatch: pytest.MonkeyPatch) -> None:
    model = ancestral.build("gated-pixelcnn", ancestral.DataSpec("image", (1, 4, 4), levels=3), preset="tiny")
    monkeypatch.setattr(engines, "COMPILING", -1.0)
    program = model.network.lowered()  # type: ignore[operator]
    assert Lowered(model.network, 3, "auto").compiled(program) is None  # type: ignore[arg-type]
    assert Lowered(model.network, 3, "eager").compiled(program) is None  # type: ignore[arg-type]


@pytest.mark.slow
@needs_compiler
@pytest.mark.filterwarnings("ignore:`torch.jit:DeprecationWarning")  # torch's own, when it loads its compiler
def test_compiled_states_are_the_steppers() -> None:
    net = network((1, 5, 4), 4, size=5, channels=8)
    check_states(net, lambda a, b: torch.testing.assert_close(a, b, rtol=1e-5, atol=1e-5))


@pytest.mark.slow
@needs_compiler
@pytest.mark.filterwarnings("ignore:`torch.jit:DeprecationWarning")  # torch's own, when it loads its compiler
def test_one_compilation_serves_all_sites_batches_and_weights() -> None:
    for n in (5, 2, 33):
        net = Branched(1, 4).double()
        assert difference(net, symbols(net, 4, n)) < 1e-10
        if n == 5:
            before = graphs()
    assert graphs() == before > 0


@pytest.mark.slow
@needs_compiler
@pytest.mark.filterwarnings("ignore:`torch.jit:DeprecationWarning")  # torch's own, when it loads its compiler
def test_a_failing_compiler_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(compiled, "_STEPS", {})
    net = network((1, 3, 4), 4, size=7, channels=8)
    with (
        torch._inductor.config.patch({"cpp.cxx": ("no-such-compiler",), "force_disable_caches": True}),
        pytest.raises(EngineError, match=r"torch\.compile fails here.*engine='eager'"),
    ):
        difference(net, symbols(net, 4, 3))


def graphs() -> int:
    """How many functions torch.compile has made in this process."""
    return torch._dynamo.utils.counters["stats"]["unique_graphs"]
