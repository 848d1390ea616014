"""The native engine: against PyTorch in float64, against `Draw`, and against itself in every other order."""

from __future__ import annotations

import copy
from dataclasses import replace

import numpy as np
import pytest
import torch
from tiny_natives import (
    CASES,
    CPU,
    FAMILIES,
    OPTIONS,
    Branched,
    by_site,
    context_of,
    given,
    network,
    symbols,
    walked,
    wide_parameters,
)
from torch import Tensor

from ancestral.causal.layer import Reach
from ancestral.causal.program import Affine, Operation, Part, Point
from ancestral.core import Conditional, Family
from ancestral.draw import Draw
from ancestral.families import Binned, Categorical, Normal
from ancestral.networks.gated_pixelcnn import GatedPixelCNN
from ancestral.walking.native import interpreter
from ancestral.walking.native.compiling import warmup
from ancestral.walking.native.engine import CALLER, EXPONENTS, GATES, Native, Work, mixture_tables
from ancestral.walking.native.layout import Layout, supported
from ancestral.walking.native.weights import LayoutError, Tiling, Weights


@pytest.mark.parametrize(("shape", "levels", "sizes", "kind"), CASES)
@pytest.mark.parametrize("n", [1, 3, 17])
def test_all_sites_and_every_step_are_the_networks_own(
    shape: tuple[int, int, int], levels: int, sizes: dict[str, int], kind: str | None, n: int
) -> None:
    """Within float32 of the float64 network; and a walk gives the bits of the parallel form."""
    net = network(shape, levels, size=5, **sizes)
    context = context_of(kind, shape, n)
    x, once = symbols(net, levels, n), given(net, context)
    native = Native(net.lowered(context), levels)
    everywhere = native.parallel(x, once)
    truth = wide_parameters(net, x, context)
    assert everywhere.dtype == torch.float32
    assert everywhere.shape == truth.shape
    assert float((everywhere - truth).abs().max()) < 2e-6 * max(1.0, float(truth.abs().max()))
    assert torch.equal(walked(native, x, once), by_site(everywhere))


@pytest.mark.parametrize(("channels", "features"), [(1, 1), (1, 33), (3, 20)])
def test_relus_and_sums_are_carried_out(channels: int, features: int) -> None:
    net = Branched(channels, features).float()
    x, program = symbols(net, 4, 17), net.lowered()
    kinds = {
        type(op).__name__ + getattr(op, "function", "") + op.clock.name + str(getattr(op, "relu", ""))
        for op in program.operations
    }
    assert {"PointreluROW", "PointreluSITE", "AddROWTrue", "AddSITETrue"} <= kinds
    native = Native(program, 4)
    everywhere, truth = native.parallel(x, {}), wide_parameters(net, x)
    assert float((everywhere - truth).abs().max()) < 2e-6 * max(1.0, float(truth.abs().max()))
    assert torch.equal(walked(native, x, {}), by_site(everywhere))


def test_an_example_does_not_depend_on_its_batch_or_on_threads() -> None:
    net = network((3, 5, 4), 4, size=6, channels=21, head=10)
    x, program = symbols(net, 4, 35), net.lowered()
    alone = torch.cat([Native(program, 4).parallel(x[i : i + 1], {}) for i in (0, 16, 34)])
    for threads in (1, 2, 3):
        native = Native(program, 4, threads=threads)
        everywhere = native.parallel(x, {})
        assert torch.equal(everywhere[[0, 16, 34]], alone)
        assert torch.equal(walked(native, x, {}), by_site(everywhere))


@pytest.mark.parametrize("rollback", [1, 5, 17])
def test_states_go_back_and_copy_rows(rollback: int) -> None:
    net = network((3, 4, 5), 4, size=2, channels=7, head=6)
    x = symbols(net, 4, 2)
    native = Native(net.lowered(), 4, rollback=rollback)
    want, flat = by_site(native.parallel(x, {})), x.permute(0, 2, 3, 1).flatten(1)
    _, kept = native.start(2, {}, CPU)
    for i in range(flat.shape[1] - 1):
        for j in range(i, min(i + rollback, flat.shape[1] - 1)):  # a wrong turn
            native.absorb(kept, j, torch.randint(4, (2,)))
            native.advance(kept, j + 1)
        native.absorb(kept, i, flat[:, i])
        assert torch.equal(native.advance(kept, i + 1), want[:, i + 1]), f"site {i + 1}"
    parents = torch.tensor([1, 1, 0])
    copied = {"state": kept["state"].index_select(0, parents)}
    assert torch.equal(native.advance(copied, flat.shape[1] - 1), want[parents, -1])


# -- drawing -----------------------------------------------------------------------------------------------------------------


def walked_by_draw(net: GatedPixelCNN, family: Family, drawn: Tensor, draw: Draw, u: Tensor) -> tuple[Tensor, Tensor]:
    """Symbols (n, D) that ``Draw`` chooses along given symbols, and whether a choice was within 1e-4 of another."""
    parameters = by_site(wide_parameters(net, drawn))
    nearby = u, (u - 1e-4).clamp_min(1e-9), (u + 1e-4).clamp_max(1 - 1e-9)
    chosen, lower, higher = (draw.choose(Conditional(family, parameters), v) for v in nearby)
    return chosen, (lower != chosen) | (higher != chosen)


@pytest.mark.parametrize("options", OPTIONS, ids=str)
@pytest.mark.parametrize("family", FAMILIES, ids=str)
def test_whole_walks_choose_as_draw_does(family: Family, options: dict[str, float]) -> None:
    """Teacher-forced along the symbols that were drawn, so that one near tie does not spoil the rest."""
    levels = family.levels or 0
    net = network((2, 3, 4), levels, family.size, scale=2.0, channels=12, head=9)
    u, draw = torch.rand(18, 24), Draw(**options)  # type: ignore[arg-type]
    drawn = Native(net.lowered(), levels).run(18, {}, CPU, family, u, draw)
    want, near = walked_by_draw(net, family, drawn, draw, u)
    got = drawn.permute(0, 2, 3, 1).flatten(1)
    assert drawn.dtype == torch.int64
    assert bool(((got == want) | near).all())
    assert float(near.double().mean()) < 0.1
    if options.get("temperature") != 0 and options.get("top_k") != 1:
        assert len(got.unique()) > 1


def test_known_symbols_are_kept_and_threads_change_nothing() -> None:
    net, family = network((3, 4, 5), 4, size=4, channels=10, head=8), Categorical(4)
    known = symbols(net, 4, 20), torch.rand(20, 3, 4, 5) < 0.3
    u, told, program = torch.rand(20, 60), list[int](), net.lowered()
    drawn = Native(program, 4).run(20, {}, CPU, family, u, Draw(known=known), told.append)
    assert told == sorted(told)
    assert told[-1] == 60
    assert torch.equal(drawn[known[1]], known[0][known[1]])
    assert torch.equal(Native(program, 4, threads=2).run(20, {}, CPU, family, u, Draw(known=known)), drawn)
    want, near = walked_by_draw(net, family, drawn, Draw(), u)
    free = ~known[1].permute(0, 2, 3, 1).flatten(1)
    assert bool(((drawn.permute(0, 2, 3, 1).flatten(1) == want) | near)[free].all())


# -- parts -------------------------------------------------------------------------------------------------------------------


def test_gates_are_as_exact_as_float32_is() -> None:
    a, b = (torch.randn(2, 4000) * torch.tensor([[3.0], [30.0]])).repeat(1, 2).chunk(2, 1)
    a[0, :6] = torch.tensor([0.0, -0.0, 1e-30, 200.0, -200.0, 3e38])
    state = torch.cat([a.flatten(), b.flatten(), torch.zeros(a.numel())]).float().numpy()
    floats = torch.from_numpy(state).double()
    table = np.zeros(1, interpreter.layout.OPERATION)
    table[["code", "count", "target", "source", "other"]] = (interpreter.layout.GATE, a.numel(), 2 * a.numel(), 0, a.numel())
    for one in ("target_slots", "source_slots", "other_slots", "rows", "columns"):
        table[one] = 1
    carry_out_row(table, state)
    one, two, got = floats[: a.numel()], floats[a.numel() : 2 * a.numel()], torch.from_numpy(state)[2 * a.numel() :]
    assert float((got - torch.tanh(one) * torch.sigmoid(two)).abs().max()) < 2e-7


def carry_out_row(table: np.ndarray, state: np.ndarray) -> None:
    """Carry out a table of row operations over a row of one site."""
    none, output = np.zeros(0, np.float32), np.zeros(1, interpreter.layout.OPERATION)
    starts, puts = np.zeros(2, np.int64), output[None]
    tables = table, np.array([[0, len(table), 0]]), output[:0].copy(), starts, puts, output
    plan = interpreter.Plan(*tables, none, none, GATES, EXPONENTS, mixture_tables(0), len(state), 1, 1, 1, 1, False, False)
    nothing = torch.zeros(0, 0, 0).float().numpy()
    Work(plan, state, CALLER, result=nothing).do(interpreter.Span(0, 1, 0, 1, 0, 0))


def test_no_examples_are_no_trouble() -> None:
    native = Native(network((1, 3, 3), 4, size=4).lowered(), 4)
    assert native.parallel(torch.zeros(0, 1, 3, 3, dtype=torch.long), {}).shape == (0, 1, 3, 3, 4)
    assert native.run(0, {}, CPU, Categorical(4), torch.rand(0, 9), Draw()).shape == (0, 1, 3, 3)
    assert native.start(0, {}, CPU)[0].shape == (0, 4)


def test_nan_is_not_hidden() -> None:
    net = network((1, 3, 3), 4, size=2)
    with torch.no_grad():
        net.layers[0].above.bias[0] = torch.nan  # type: ignore[union-attr, operator]
    assert bool(Native(net.lowered(), 4).parallel(symbols(net, 4, 2), {}).isnan().all())


def test_programs_that_it_cannot_run_are_named() -> None:
    net = network((1, 3, 3), 4, size=2)
    program = net.lowered()
    assert supported(program) is None
    assert "float64" in (supported(copy.deepcopy(net).double().lowered()) or "")
    with pytest.raises(LayoutError, match="float32"):
        Native(copy.deepcopy(net).double().lowered(), 4)
    strange = [replace(op, function="sine") if isinstance(op, Point) else op for op in program.operations]
    assert "sine" in (supported(replace(program, operations=tuple(strange))) or "")
    native = Native(program, 4)
    with pytest.raises(ValueError, match=r"0 \.\. 3"):
        native.parallel(torch.full((1, 1, 3, 3), 4), {})
    _, kept = native.start(2, {}, CPU)
    with pytest.raises(ValueError, match=r"0 \.\. 3"):
        native.absorb(kept, 0, torch.tensor([0, -1]))
    with pytest.raises(ValueError, match="3 symbols for a state of 2 rows"):
        native.absorb(kept, 0, torch.zeros(3, dtype=torch.long))
    with pytest.raises(ValueError, match="another context"):
        native.advance({"state": torch.zeros(2, 9).float()}, 0)
    with pytest.raises(ValueError, match="shape"):
        native.parallel(torch.zeros(1, 1, 3, 4, dtype=torch.long), {})
    with pytest.raises(ValueError, match="one for each symbol"):
        native.run(1, {}, CPU, Categorical(2), torch.rand(1, 8), Draw())
    assert not native.draws(Binned(Normal(), 4))
    assert not native.draws(Categorical(4).integer())
    with pytest.raises(LayoutError, match="cannot draw"):
        native.run(1, {}, CPU, Binned(Normal(), 4), torch.rand(1, 9), Draw())


def test_operations_that_would_read_elsewhere_are_refused() -> None:
    program = network((1, 3, 3), 4, size=2).lowered()
    tiling = Tiling(4, 2)

    def laid_out(op: Operation, changed: Operation) -> None:
        operations = tuple(changed if each is op else each for each in program.operations)
        strange = replace(program, operations=operations)
        Layout(strange, Weights(strange, 4, tiling), {})

    rows = next(op for op in program.operations if isinstance(op, Affine) and op.reach.above)
    left = next(op for op in program.operations if isinstance(op, Affine) and op.init is not None)
    gate = next(op for op in program.operations if isinstance(op, Point))
    laid_out(rows, rows)
    for op, changed in [
        (rows, replace(rows, reach=replace(rows.reach, above=9))),
        (rows, replace(rows, reach=Reach(rows.reach.above, 9, 9, rows.reach.own_row))),
        (rows, replace(rows, source=rows.target.buffer)),
        (rows, replace(rows, target=replace(rows.target, first=1))),
        (left, replace(left, init=left.target)),
        (left, replace(left, init=Part(left.init.buffer, 5, left.init.count))),
        (left, replace(left, weight=left.weight.repeat(1, 1, 9, 1))),
        (gate, replace(gate, source=replace(gate.source, count=gate.source.count - 1))),
    ]:
        with pytest.raises(LayoutError):
            laid_out(op, changed)


def test_one_compilation_serves_every_model() -> None:
    """After all other tests, or none: each kind of numbers has been compiled once, for the sources as they are."""
    warmup()
    assert 6 <= len(interpreter.walk.signatures) <= 12  # by numbers, by what is compiled apart, and by options where drawn with
    assert all(f"default={interpreter.STAMP}" in str(signature[-1]) for signature in interpreter.walk.signatures)
