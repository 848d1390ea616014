"""WaveNet: its equations written out, what it sees, its contexts, samples of two parts, and sequences of any length."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor
from torch.nn import functional

import ancestral
from ancestral.causal import CausalityError, GridAffine, Reach, TimeAffine
from ancestral.causal.layer import Clock, Graph
from ancestral.core import Autoregressive, Context, OrderError
from ancestral.draw import Draw
from ancestral.models import build
from ancestral.networks.wavenet import WaveNet
from ancestral.objectives import Batch, nll
from ancestral.spec import DataSpec, Order
from ancestral.symbols import ended
from ancestral.testing import check
from ancestral.walking.engines import Lowered
from ancestral.walking.exact.calibration import calibrate
from ancestral.walking.exact.operations import LoweringError
from ancestral.walking.twin import twin

CLIP = DataSpec("audio", (40,), levels=5, classes=3)
BYTES = DataSpec("audio", (40,), levels=8, parts=2)
TEXT = DataSpec("text", (None,), levels=6, end=5)


def made(spec: DataSpec = CLIP, **settings: Any) -> Autoregressive:
    """A tiny model whose contexts count, too."""
    model: Any = build("wavenet", spec, preset="tiny", **settings)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter += 0.3 * torch.randn_like(parameter)
    return model  # type: ignore[no-any-return]


def symbols(spec: DataSpec, n: int = 3, length: int | None = None) -> Tensor:
    return torch.randint(spec.levels or 2, (n, length or spec.shape[0] or 1))


# -- the equations ---------------------------------------------------------------------------------------------------------------


def by_hand(network: WaveNet, x: Tensor, context: Context, t: int) -> Tensor:
    """(n, size) parameters of sample t of one part, sample by sample, from the weights alone; context at the samples' rate."""
    streams: list[list[Tensor]] = [[] for _ in range(len(network.layers) + 1)]
    zero = torch.zeros(len(x), network.first.past.features)
    table: Any = network.input
    for now in range(t + 1):
        taps = network.first.past.weight[..., 0].unbind(2)  # the last one reads the sample before
        value = network.first.past.bias.expand(len(x), -1)
        for back, tap in enumerate(reversed(taps), 1):
            if now - back >= 0:
                value = value + table.table[0, x[:, now - back]] @ tap.T
        streams[0].append(value)
        skip = network.skips[0].bias.expand(len(x), -1)
        for i, layer in enumerate(network.layers):
            taps, apart = layer.window.past.weight[..., 0].unbind(2), layer.window.past.reach.dilation
            sums = layer.window.past.bias.expand(len(x), -1)
            for back, tap in enumerate(reversed(taps)):
                before = now - back * apart
                sums = sums + (streams[i][before] if before >= 0 else zero) @ tap.T
            if context.vector is not None:
                sums = sums + context.vector @ layer.feed.vector.module.weight.T
            if context.grid is not None:
                sums = sums + context.grid[:, :, now, 0] @ layer.grid.weight[..., 0, 0].T
            a, b = sums.chunk(2, 1)
            z = torch.tanh(a) * torch.sigmoid(b)  # side by side, not one after the other
            streams[i + 1].append(streams[i][now] + z @ layer.out.weight[..., 0, 0].T)
            skip = skip + z @ network.skips[i].weight[..., 0, 0].T
    _, hidden, _, output = network.head
    return functional.linear(
        functional.linear(skip.relu(), hidden.weight[..., 0, 0], hidden.bias).relu(), output.weight[..., 0, 0], output.bias
    )


@pytest.mark.parametrize(("kernel", "first"), [(2, 1), (3, 2)])
def test_parameters_are_those_of_the_equations(kernel: int, first: int) -> None:
    model = made(kernel=kernel, first_kernel=first, conditional=True, local=2)
    x, context = symbols(CLIP), Context(vector=torch.eye(3), grid=torch.randn(3, 2, 40, 1))
    network: Any = model.network
    for given in (context, Context(), Context(vector=context.vector)):
        found = network(x, given)
        for t in (0, 1, 7, 39):
            assert torch.allclose(found[:, t], by_hand(network, x, given, t), atol=1e-12)


# -- what is seen ----------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("kernel", "layers", "cycles", "first", "samples"),
    [
        (3, 10, 1, 1, 2047),
        (3, 12, 1, 1, 8191),
        (2, 10, 1, 1, 1024),
        (2, 10, 3, 1, 3070),
        (2, 10, 3, 2, 3071),
    ],
)
def test_receptive_fields_are_the_published_ones(kernel: int, layers: int, cycles: int, first: int, samples: int) -> None:
    model = made(kernel=kernel, layers=layers, cycles=cycles, first_kernel=first)
    assert model.network.receptive_field() == {(-back, 0) for back in range(1, samples + 1)}  # type: ignore[attr-defined]


@pytest.mark.parametrize("settings", [{}, {"kernel": 3, "first_kernel": 3}, {"cycles": 3, "symbols": "scaled"}])
def test_what_is_declared_is_what_the_slopes_reach(settings: dict[str, Any]) -> None:
    model = made(DataSpec("audio", (40,), levels=5), **settings)
    seen: list[Tensor] = []

    def noted(layer: Any, given: Any, out: Tensor) -> Tensor:
        seen.append(out.detach().requires_grad_())
        return seen[0]

    network: Any = model.network
    hook = network.input.register_forward_hook(noted)
    (slope,) = torch.autograd.grad(model.network(symbols(CLIP))[:, 39].sum(), seen)
    hook.remove()
    measured = {(int(t) - 39, 0) for t in slope.abs().sum((0, 1, 3)).nonzero()}
    assert measured == model.network.receptive_field()  # type: ignore[attr-defined]


def test_the_second_byte_sees_the_first_and_no_more_of_its_own_sample() -> None:
    model = made(BYTES, skip=32, head=32)
    x = symbols(BYTES)
    before = model.network(x)
    for changed in range(30, 34):
        other = x.clone()
        other[:, changed] = (other[:, changed] + 1) % 8
        moved = (model.network(other) != before).any(2).any(0)
        assert moved.nonzero().min() == changed + 1  # the next symbol of all, whichever part it is


@pytest.mark.parametrize("strict", [False, True])
@pytest.mark.parametrize("labels", [(0, 0, 0, 0), (0, 0, 1, 1)])
def test_a_window_along_time_is_its_sum(labels: tuple[int, ...], strict: bool) -> None:
    layer = TimeAffine(labels, labels, kernel=3, dilation=4, strict=strict)
    x = torch.randn(2, 4, 21, 1)
    past, present = layer.past.weight[..., 0], torch.zeros(4, 4)
    if layer.present is not None:
        present = layer.present.masked[..., 0, 0]
    elif not strict:
        past, present = past[..., :-1], past[..., -1]
    bias = layer.past.bias if layer.present is None else layer.present.bias
    wanted = torch.einsum("oc,nct->not", present, x[..., 0]) + bias[:, None]
    for back, tap in enumerate(past.flip(2).unbind(2), 1):
        wanted += torch.einsum("oc,nct->not", tap, functional.pad(x[..., 0], (4 * back, 0))[..., :21])
    assert torch.allclose(layer(x)[..., 0], wanted)
    if len(set(labels)) > 1:
        assert not present[:2, 2:].any() and bool(present[2:, :2].any()) and bool(present[2:, 2:].any()) is not strict


def test_windows_that_cannot_be() -> None:
    with pytest.raises(ValueError, match="rows 3 apart cannot begin 4 rows above"):
        Reach(above=4, dilation=3)
    with pytest.raises(ValueError, match="at least 2 places"):
        TimeAffine((0, 1), (0, 1), kernel=1)
    signal = Graph().add(Clock.SITE, (0, 0))
    with pytest.raises(CausalityError, match="reads the context alone"):
        GridAffine(2, (0,))(signal)


# -- contexts --------------------------------------------------------------------------------------------------------------------


def test_features_at_a_lower_rate_are_repeated() -> None:
    model = made(local=2, hop=8)
    x, frames = symbols(CLIP), torch.randn(3, 2, 5, 1)
    whole = Context(grid=frames.repeat_interleave(8, 2))
    assert torch.equal(model.log_prob(x, Context(grid=frames)), model.log_prob(x, whole))
    longer = Context(grid=torch.cat([frames, torch.randn(3, 2, 2, 1)], 2))  # a spectrogram may last longer than the clip
    assert torch.equal(model.log_prob(x, longer), model.log_prob(x, whole))
    short = ancestral.arrange(model, shape=(4,))  # of fewer samples than the spectrogram has places
    first = Context(grid=frames[:, :, :1].expand(-1, -1, 4, -1))
    assert torch.equal(short.log_prob(x[:, :4], Context(grid=frames)), short.log_prob(x[:, :4], first))


@pytest.mark.parametrize("hop", [4, 5])
def test_a_learned_spread_starts_as_linear_interpolation(hop: int) -> None:
    spread: Any = build("wavenet", CLIP, preset="tiny", local=2, hop=hop, upsample="learned").network
    frames = torch.randn(1, 2, 8, 1)
    wanted = functional.interpolate(frames, size=(8 * hop, 1), mode="bilinear")
    found = spread.spread(frames)
    assert found.shape == wanted.shape
    inside = slice(hop, -hop)  # beyond the outermost places there is nothing, which the interpolation repeats
    assert torch.allclose(found[:, :, inside], wanted[:, :, inside])


def test_a_learned_spread_has_no_exact_form() -> None:
    context = Context(grid=torch.randn(3, 2, 5, 1))
    for upsample in ("repeat", "learned"):
        model = made(local=2, hop=8, upsample=upsample)
        family: Any = model.family
        if upsample == "repeat":
            assert calibrate(model.network, family.integer(), symbols(CLIP), context)  # type: ignore[arg-type]
            continue
        with pytest.raises(LoweringError, match="upsample='repeat'"):
            calibrate(model.network, family.integer(), symbols(CLIP), context)  # type: ignore[arg-type]
        assert twin(model, symbols(CLIP))  # which is told no features


def test_programs_of_sequences_count_symbols() -> None:
    assert "multiply-adds a symbol" in str(made().network.lowered())  # type: ignore[operator]
    model = build("wavenet", DataSpec("audio", (8,), 256, parts=2), preset="tiny")
    assert "multiply-adds for 2 symbols" in str(model.network.lowered())
    image = build("gated-pixelcnn", DataSpec("image", (1, 4, 4), 2), preset="tiny")
    assert "multiply-adds a pixel" in str(image.network.lowered())


@pytest.mark.parametrize("settings", [{"upsample": "learned"}, {"upsample": "repeat"}])
@pytest.mark.parametrize("spec", [CLIP, BYTES])
def test_laws_with_every_context(spec: DataSpec, settings: dict[str, str]) -> None:
    wide = {"skip": 16, "head": 16}  # so that some units of every part are above zero, and let slopes through
    model: Any = build("wavenet", spec, preset="tiny", local=2, hop=4, conditional=spec is CLIP, **wide, **settings)
    samples = 40 // spec.parts
    vector = torch.eye(3)[torch.arange(4) % 3] if spec is CLIP else None
    report = check(model, Context(vector=vector, grid=torch.randn(4, 2, samples // 4, 1)))
    report.raise_if_failed()
    passed = {outcome.law for outcome in report.outcomes if outcome.status == "passed"}
    assert {"causal", "context", "stepwise", "lowered", "sampled"} <= passed


def test_contexts_that_do_not_fit() -> None:
    model, x = made(local=2, hop=8), symbols(CLIP)
    with pytest.raises(ValueError, match=r"takes \(n, 2, places, 1\)"):
        model.log_prob(x, Context(grid=torch.randn(3, 3, 5, 1)))
    with pytest.raises(ValueError, match="lasts 32 of 40 samples: give a place for every 8"):
        model.log_prob(x, Context(grid=torch.randn(3, 2, 4, 1)))
    with pytest.raises(ValueError, match="made without: give it local="):
        made().log_prob(x, Context(grid=torch.randn(3, 2, 40, 1)))
    with pytest.raises(ValueError, match="has a vector"):
        made().log_prob(x, Context(vector=torch.eye(3)))


# -- lengths ---------------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("spec", [CLIP, BYTES, TEXT])
def test_other_lengths_share_the_weights(spec: DataSpec) -> None:
    model = made(spec)
    short, x = ancestral.arrange(model, shape=(24,)), symbols(spec, length=36)
    long = ancestral.arrange(model, shape=(36,))
    assert torch.equal(short.network(x[:, :24]), long.network(x)[:, :24])
    parameters = {parameter.data_ptr() for parameter in model.parameters()}
    assert {parameter.data_ptr() for parameter in long.parameters()} == parameters


def test_a_model_of_any_length_takes_the_batch_as_it_is() -> None:
    model = made(TEXT)
    x = ended(symbols(TEXT, length=19), TEXT)
    assert torch.equal(model.log_prob(x), ancestral.arrange(model, shape=(19,)).log_prob(x))
    filled = functional.pad(x, (0, 7), value=5)
    counted = x.eq(5).any(1)  # the others go on where the shorter batch ended
    assert torch.allclose(model.log_prob(x)[counted], model.log_prob(filled)[counted])


def test_what_sequences_cannot_be() -> None:
    model = made(BYTES).network
    with pytest.raises(OrderError, match="a multiple of 2 symbols"):
        model.arrange(shape=(7,))
    with pytest.raises(OrderError, match="no other order"):
        model.arrange(Order.shuffled((40,), 1))
    assert model.arrange("raster").order == model.order
    with pytest.raises(OrderError, match="no other order"):
        model.arrange("rows-upward")


# -- long walks ------------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("spec", [DataSpec("audio", (150,), levels=5), DataSpec("audio", (150,), levels=8, parts=2)])
def test_engines_agree_after_the_memory_came_round_many_times(spec: DataSpec) -> None:
    model = made(spec, layers=4, kernel=3)
    x = symbols(spec, 2)
    network: Any = model.network
    wanted = network(x).detach()
    for engine, kind, within in (("eager", torch.float64, 1e-10), ("native", torch.float32, 1e-5)):
        lowered = Lowered(network.to(kind), spec.levels or 2, engine)
        given, state = lowered.start(2)
        seen = [given]
        for symbol in x[:, :-1].unbind(1):
            given, state = lowered.step(state, symbol)
            seen.append(given)
        for found in (torch.stack(seen, 1), lowered(x)):
            assert found.shape == wanted.shape
            assert (found - wanted).abs().max() <= within * max(1.0, float(wanted.abs().max()))


def test_whole_numbers_agree_after_the_memory_came_round_many_times() -> None:
    spec = DataSpec("audio", (120,), levels=8, parts=2)
    model, x = made(spec, layers=4), symbols(spec, 3)
    eager, native = (twin(model, x, engine).likelihood.network for engine in ("eager", "native"))
    wanted = eager(x)
    assert torch.equal(native(x), wanted)
    walk = twin(model, x, "native").likelihood.walk(3)
    assert torch.equal(walk.extend(x).parameters, wanted)


def test_a_walk_goes_back_over_the_place_where_its_memory_begins_anew() -> None:
    model, x = made(layers=3), symbols(CLIP)
    wanted, walk = model.network(x), model.walk(3, rollback=9)
    while not walk.done:
        ahead = min(9, 40 - walk.site)
        walk.extend(torch.zeros(3, ahead, dtype=torch.long))
        walk.rollback(ahead)
        assert torch.allclose(walk.conditional.parameters, wanted[:, walk.site], atol=1e-10)
        walk.settle(x[:, walk.site])


def test_memory_does_not_grow_with_the_length() -> None:
    model = made(layers=5)
    short, long = (model.network.arrange(shape=(t,)).lowered() for t in (40, 16000))  # type: ignore[attr-defined]
    assert short.state == long.state and len(short.operations) == len(long.operations)
    _, state = model.network.arrange(shape=(16000,)).start(1)
    assert sum(buffer.numel() for buffer in state.buffers.values()) == long.state


def test_native_walks_are_those_of_the_steps() -> None:
    model = made(DataSpec("audio", (200,), levels=5)).float()
    drawn = ancestral.sample(model, 3, seed=2, engine="native")
    assert torch.equal(drawn, model.walk(3).run(Draw(seed=2)))


def test_half_precision_is_near() -> None:
    model, x = made().float(), symbols(CLIP)
    with torch.autocast("cpu", torch.bfloat16):
        half = model.log_prob(x)
    assert half.dtype == torch.float32
    assert torch.allclose(half, model.log_prob(x), rtol=0.02)


# -- the model -------------------------------------------------------------------------------------------------------------------


def test_it_learns_what_came_many_samples_ago() -> None:
    torch.manual_seed(0)
    spec = DataSpec("audio", (36,), levels=3)
    model: Any = build("wavenet", spec, preset="tiny", layers=3, cycles=1, channels=8, gates=8)
    x = torch.randint(3, (48, 7)).repeat(1, 6)[:, :36]  # a period of 7, within the 8 samples that are seen
    optimiser = torch.optim.Adam(model.parameters(), 0.03)
    for _ in range(40):
        optimiser.zero_grad()
        nll(model, Batch(x))["loss"].backward()
        optimiser.step()
    nats = -model.conditionals(x).log_prob(x).mean(0)
    assert nats[8:].mean() < 0.3 * nats[:7].mean()


@pytest.mark.parametrize(
    ("spec", "settings", "message"),
    [
        (DataSpec("image", (1, 4, 4), levels=2), {}, "models sequences of integers"),
        (DataSpec("vector", (4,)), {}, "models sequences of integers"),
        (CLIP, {"kernel": 1}, "kernel is 1; it must be at least 2"),
        (BYTES, {"skip": 1}, "skip is 1; it must be at least 2"),
        (CLIP, {"symbols": "raw"}, "choose embedding or scaled"),
        (CLIP, {"upsample": "cubic"}, "choose repeat or learned"),
        (BYTES, {"family": "logistic"}, "needs levels in order"),
        (TEXT, {"family": "logistic"}, "needs levels in order"),
    ],
)
def test_what_cannot_be_built(spec: DataSpec, settings: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        build("wavenet", spec, preset="tiny", **settings)
