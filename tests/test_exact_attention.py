"""Normalisation, rotation and attention in whole numbers: near what floats give, within their bounds, and alike in every way."""

from __future__ import annotations

import copy
import math

import pytest
import torch
from test_native_attention import CASES, transformer
from tiny_layers import token_toys, weighted
from torch import Tensor

import ancestral
from ancestral.causal import Angles
from ancestral.causal.attention import attended, rotated
from ancestral.causal.layer import Clock
from ancestral.causal.normalise import normalised
from ancestral.causal.program import Part, Rounding
from ancestral.causal.tokens import Attend, Normalise, Rotate
from ancestral.core import Autoregressive
from ancestral.families import Categorical
from ancestral.spec import DataSpec
from ancestral.walking.exact import calibration as calibrating
from ancestral.walking.exact.calibration import calibrate
from ancestral.walking.exact.networks import ExactNetwork
from ancestral.walking.exact.operations import LoweringError
from ancestral.walking.exact.program import exact
from ancestral.walking.exact.tokens import (
    GUARD,
    MOST_ROWS,
    _shares,
    exact_angles,
    exact_attend,
    exact_normalise,
    whole_attended,
    whole_normalised,
    whole_rotated,
)
from ancestral.walking.exact.whole import GELU_SHARE, KEPT, READ
from ancestral.walking.twin import calibrated, restored, twin

SITE = Clock.SITE


# -- the operations by themselves ----------------------------------------------------------------------------------------------


def normalise(n: int, centred: bool, gain: Tensor | None = None, epsilon: float = 1e-5) -> Normalise:
    part, gain = Part(0, 0, n), torch.randn(n) if gain is None else gain
    shift = torch.randn(n) if centred else torch.zeros(n)
    return Normalise(SITE, 0, part, part, gain, shift, centred, epsilon)


@pytest.mark.parametrize("centred", [True, False])
@pytest.mark.parametrize("n", [1, 2, 7, 64, 384, 8192])
@pytest.mark.parametrize("size", [3.0, 100.0, 8000.0])
def test_normalised_features_are_within_a_unit_of_the_floats(n: int, size: float, centred: bool) -> None:
    op, source, target = normalise(n, centred), 8, 9
    whole = exact_normalise(op, source, target, KEPT)
    x = (torch.randn(6, n) * size).round().clamp(-KEPT, KEPT)
    x[0], x[1] = KEPT, 0
    x[2, : n // 2] = -KEPT
    assert whole.scaling is not None
    y = whole_normalised(whole, whole.scaling, x.long())
    want = normalised(x / 2**source, op.gain, op.shift, centred, op.epsilon) * 2**target
    error = (y - want.clamp(-KEPT, KEPT)).abs()
    root = (x.var(-1, correction=0, keepdim=True) if centred else x.square().mean(-1, keepdim=True)) + op.epsilon * 4**source
    mean = op.gain.abs() * 2**target * 2.0 ** -(GUARD + 1) / root.sqrt()  # what rounding the mean adds
    assert (error <= 0.51 + want.abs() * 2.0**-13 + mean).all()


def test_the_largest_gains_and_squares_stay_within_64_bits() -> None:
    n = 8192
    op = normalise(n, True, torch.full((n,), 50.0))
    whole = exact_normalise(op, 15, 3, KEPT)
    x = torch.full((2, n), -KEPT)
    x[0, ::2], x[1, 0] = KEPT, KEPT
    assert whole.scaling is not None
    want = (normalised(x / 2.0**15, op.gain, op.shift, True, 1e-5) * 2**3).clamp(-KEPT, KEPT)
    assert (whole_normalised(whole, whole.scaling, x) - want).abs().max() <= 2


def test_what_no_gain_can_be_is_refused() -> None:
    for op in (normalise(4, True, torch.full((4,), 1e9)), normalise(4, True, torch.tensor([1.0, math.nan, 1, 1]))):
        with pytest.raises(LoweringError):
            exact_normalise(op, 8, 9, KEPT)
    with pytest.raises(LoweringError, match="epsilon"):
        exact_normalise(normalise(4, True, epsilon=1e9), 8, 9, KEPT)


@pytest.mark.parametrize(("size", "base"), [(2, 10000.0), (64, 10000.0), (128, 500.0)])
def test_cosines_and_sines_are_within_a_unit(size: int, base: float) -> None:
    angles = Angles(size, 5000, base)
    whole, exact = exact_angles(angles), angles() * 2**14
    assert (whole - exact).abs().max() < 0.5 + 5000 * 2.0**-28 * 2**14
    assert torch.equal(whole[:, : size // 2, 0], torch.full_like(whole[:, : size // 2, 0], 2**14))


def test_turned_features_are_within_a_unit_of_the_floats() -> None:
    part, angles = Part(0, 0, 20), exact_angles(Angles(8, 30))[0, :, :, 0].T.long()
    op = Rotate(SITE, 0, part, part, Part(1, 0, 8), 16)
    x = torch.randint(-KEPT, KEPT + 1, (30, 20))
    for source, target in ((10, 9), (10, 10), (9, 10)):
        y = whole_rotated(op, Rounding(source, 14, target, KEPT), x, angles)
        want = rotated(x / 2**source, angles / 2**14, 16) * 2**target
        assert (y - want.clamp(-KEPT, KEPT)).abs().max() <= 0.5


def attend(heads: int, key_heads: int, size: int, window: int) -> Attend:
    query, keys = Part(0, 0, heads * size), Part(1, 0, key_heads * size)
    return Attend(SITE, 0, Part(2, 0, heads * size), query, keys, Part(1, key_heads * size, key_heads * size), heads, window)


@pytest.mark.parametrize("window", [1, 13, 300])
def test_attention_is_near_that_of_the_floats(window: int) -> None:
    op, bits, t = attend(4, 2, 16, window), Rounding(9, 10, 10, READ), 300
    q, k, v = torch.randn(2, t, 64) * 700, torch.randn(2, t, 32) * 1000, torch.randn(2, t, 32) * 500
    q, k, v = (part.round().clamp(-READ, READ) for part in (q, k, v))
    y = whole_attended(op, bits, q, k, v)
    want = attended(q / 2**9, k / 2**10, v / 2**10, 16, window) * 2**10
    assert (y - want).abs().max() < 2
    last = [whole_attended(op, bits, q[:, r : r + 1], k[:, max(0, r + 1 - window) : r + 1], v[:, max(0, r + 1 - window) : r + 1])
            for r in range(t)]  # fmt: skip
    assert torch.equal(torch.cat(last, 1), y)


@pytest.mark.parametrize("spread", [0, 1, 1000, 10**6])
def test_sums_of_values_cannot_leave_32_bits(spread: int) -> None:
    """Whatever the scores are, also of the most rows there may be."""
    op, bits = attend(1, 1, 64, MOST_ROWS), Rounding(10, 10, 10, READ)
    scores = torch.randint(-spread, spread + 1, (3, MOST_ROWS)) << 4
    scores[1, 1:] = scores[1, 0] - (scores[1, 1:] & 255)
    shares = _shares(op, bits, scores, torch.ones_like(scores, dtype=torch.bool))
    assert (shares >= 0).all() and (shares.sum(-1) > 0).all()
    assert int(shares.sum(-1).max()) * KEPT < 2**31
    even = _shares(op, bits, torch.zeros(1, MOST_ROWS, dtype=torch.long), torch.ones(1, MOST_ROWS, dtype=torch.bool))
    assert 0 < int(even.sum()) * KEPT < 2**31


def test_attention_without_an_exact_form_is_refused() -> None:
    with pytest.raises(LoweringError, match="window"):
        exact_attend(attend(1, 1, 4, MOST_ROWS + 1), Rounding(10, 10, 10, READ))
    with pytest.raises(LoweringError, match="so large"):
        exact_attend(attend(1, 1, 4, 5), Rounding(-3, -3, 0, READ))


def test_the_table_of_the_gelu() -> None:
    x = torch.arange(-8192, 8192) / 1024
    want = torch.nn.functional.gelu(x, approximate="tanh")
    assert (x * torch.tensor(GELU_SHARE) / 2**14 - want).abs().max() < 8 * 2.0**-15


# -- networks --------------------------------------------------------------------------------------------------------------------


def steps(network: ExactNetwork, x: Tensor) -> Tensor:
    parameters, state = network.start(len(x))
    seen = [parameters]
    for symbol in x[:, :-1].unbind(1):
        parameters, state = network.step(state, symbol)
        seen.append(parameters)
    return torch.stack(seen, 1)


@pytest.mark.parametrize("case", CASES)
def test_every_engine_and_batch_gives_the_same_whole_numbers(case: str) -> None:
    network, family = transformer(case), Categorical(7)
    x = torch.randint(7, (4, *network.shape))
    calibration = calibrate(network, family.integer(), x)
    eager, native, two = (
        ExactNetwork(network, family, calibration, {}, engine, threads)
        for engine, threads in (("eager", 1), ("native", 1), ("native", 2))
    )
    want = eager(x)
    assert eager.checksum == native.checksum
    for each in (native, two):
        assert torch.equal(each(x), want)
        assert torch.equal(steps(each, x), want)
    assert torch.equal(steps(eager, x[:2]), want[:2])
    assert torch.equal(native(x[3:]), want[3:])
    assert (want / 2**10 - network(x)).abs().mean() < 0.02 * network(x).std()


def test_a_model_costs_what_its_floats_say() -> None:
    model = ancestral.build("transformer", DataSpec("text", (60,), levels=11), preset="tiny", context=60, width=32, layers=2)
    with torch.no_grad():
        for parameter in model.network.parameters():
            parameter.add_(torch.randn_like(parameter) * 0.1)
    x = ancestral.sample(model, 24, seed=3, engine="eager")
    found = twin(model.double(), x, "eager")
    with torch.no_grad():
        nats = -model.log_prob(x).sum()
    assert abs(float(found.cost(x).sum() / nats) - 1) < 0.002


def test_calibrating_a_few_examples_at_a_time_changes_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    network, x = weighted(token_toys()["tokens, turned"], 0.5), torch.randint(3, (5, 9))
    want = calibrate(network, Categorical(3).integer(), x)
    monkeypatch.setattr(calibrating, "PLACES", 1)
    assert calibrate(network, Categorical(3).integer(), x) == want


def test_symbols_that_no_example_has_are_not_clamped() -> None:
    network, family = weighted(token_toys()["tokens"], 0.3), Categorical(3)
    with torch.no_grad():
        network.parts["embedding"].table[0, 2] *= 50  # type: ignore[union-attr, index, operator]
        table = network.parts["embedding"].table[0]  # type: ignore[union-attr, index]
    calibration = calibrate(network, family.integer(), torch.randint(2, (6, 9)))
    (put,) = exact(network.lowered(), family.integer(), calibration).puts
    assert put.table is not None
    assert (put.table[0] / 2.0 ** calibration.buffers[put.target] - table).abs().max() <= 2.0 ** -calibration.buffers[put.target]


def test_a_twin_is_told_by_its_constants_too() -> None:
    model = ancestral.build("transformer", DataSpec("text", (8,), levels=4), preset="tiny").double()
    assert isinstance(model, Autoregressive)
    x = torch.randint(4, (5, 8))
    calibration = calibrated(model, x)
    before, moved = restored(model, calibration), copy.deepcopy(model)
    with torch.no_grad():
        moved.network.places.targets["place"][5] += 0.01  # type: ignore[union-attr, operator]
    assert restored(moved, calibration).identity != before.identity
    assert restored(model, calibration).identity == before.identity
