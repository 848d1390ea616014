"""Networks of tokens in the native engine: what PyTorch gives, in blocks of rows and row by row to the bit."""

from __future__ import annotations

import copy
from dataclasses import replace

import numba
import numpy as np
import pytest
import torch
from tiny_layers import token_toys, weighted
from tiny_natives import CPU, by_site, given, walked
from torch import Tensor

from ancestral.causal import CausalNetwork
from ancestral.causal.program import Affine
from ancestral.causal.tokens import Attend, Normalise, Rotate
from ancestral.models import build
from ancestral.networks.configs import TransformerConfig
from ancestral.networks.transformer import Transformer
from ancestral.spec import DataSpec
from ancestral.walking.native import engine
from ancestral.walking.native.engine import Native
from ancestral.walking.native.heads import blended, scored
from ancestral.walking.native.layout import Layout, seldom
from ancestral.walking.native.tiles import LANES, VECTORS
from ancestral.walking.native.weights import LayoutError, Tiling, Weights

CASES = {
    "several blocks": (150, {"width": 24, "heads": 3}),
    "shared keys, turned": (70, {"width": 48, "heads": 6, "key_heads": 2, "places": "rotary", "norm": "rms"}),
    "a window": (150, {"width": 16, "heads": 2, "window": 21}),
    "a window of one": (66, {"width": 16, "heads": 4, "window": 1, "key_heads": 1}),
    "long heads": (65, {"width": 210, "heads": 2}),
    "heads of one": (20, {"width": 3, "heads": 3}),
}


def transformer(case: str) -> Transformer:
    """Enlarged weights, so that attention is far from even."""
    tokens, sizes = CASES[case]
    config = TransformerConfig(**{"layers": 2, "context": tokens, "dropout": 0.0, **sizes})
    network = Transformer((tokens,), 7, 0, config)
    with torch.no_grad():
        for name, parameter in network.named_parameters():
            parameter.add_(torch.randn_like(parameter) * (0.2 if "gain" in name else 0.3))
    return network


def narrowed(network: CausalNetwork) -> tuple[CausalNetwork, Native, Tensor]:
    narrow = copy.deepcopy(network).float()
    return narrow, Native(narrow.lowered(), 7), torch.randint(7, (3, *network.layout))


@pytest.mark.parametrize("case", CASES)
def test_rows_in_blocks_and_one_by_one_are_pytorchs(case: str) -> None:
    network = transformer(case)
    narrow, native, x = narrowed(network)
    with torch.no_grad():
        once, want = given(narrow, None), network(x.flatten(1))[:, None, :, None]
    at_once = native.parallel(x, once)
    assert float((at_once - want).abs().max()) < 1e-5 * max(1, float(want.abs().max()))
    assert torch.equal(walked(native, x, once), by_site(at_once))
    assert torch.equal(native.parallel(x[1:2], once), at_once[1:2])


def test_long_examples_are_walked_where_blocks_would_take_too_much(monkeypatch: pytest.MonkeyPatch) -> None:
    narrow, native, x = narrowed(transformer("a window"))
    with torch.no_grad():
        once = given(narrow, None)
    want = native.parallel(x, once)
    monkeypatch.setattr(engine, "MOST_BLOCK", 0)
    assert torch.equal(native.parallel(x, once), want)


@pytest.mark.parametrize("parts", [1, 2])
def test_dilated_windows_in_blocks_are_those_one_by_one(parts: int) -> None:
    spec = DataSpec("audio", (150,), levels=5, parts=parts)
    network = build("wavenet", spec, preset="tiny").network
    assert isinstance(network, CausalNetwork)
    weighted(network, 0.4)
    narrow = copy.deepcopy(network).float()
    native, x = Native(narrow.lowered(), 5), torch.randint(5, (3, *network.layout))
    with torch.no_grad():
        once = given(narrow, None)
    assert torch.equal(by_site(native.parallel(x, once)), walked(native, x, once))


@pytest.mark.parametrize("name", ["tokens, shared keys", "tokens, shared window"])
def test_steps_back_are_exact(name: str) -> None:
    network = weighted(token_toys()[name], 0.5).float()
    with torch.no_grad():
        once = given(network, None)
    native, x, back = Native(network.lowered(), 3, rollback=3), torch.randint(3, (2, *network.layout)), 3
    flat, want = x.flatten(1), by_site(native.parallel(x, once))
    _, kept = native.start(2, once, CPU)
    for i in range(flat.shape[1] - 1):
        for j in range(i, min(i + back, flat.shape[1] - 1)):  # a wrong turn
            native.absorb(kept, j, torch.randint(3, (2,)))
            native.advance(kept, j + 1)
        native.absorb(kept, i, flat[:, i])
        assert torch.equal(native.advance(kept, i + 1), want[:, i + 1]), f"token {i + 1}"


# -- inner loops -----------------------------------------------------------------------------------------------------------------


@numba.njit
def products(state: np.ndarray, q: int, k: int, step: int, size: int, scores: np.ndarray) -> None:
    scored(state, q, state, k, scores, 1, step, len(scores) - 1, size)


@numba.njit
def sums_of(state: np.ndarray, v: int, step: int, size: int, weights: np.ndarray, sums: np.ndarray) -> None:
    blended(state, v, weights, 0, sums, 1, step, len(weights), size)


@pytest.mark.parametrize("size", [1, 3, 16, 17, 40, 64, 100, 128, 200])
@pytest.mark.parametrize("kind", [np.float32, np.int16])
def test_inner_loops_touch_their_own_features_alone(kind: type, size: int) -> None:
    draw, rows, step = np.random.default_rng(size), 5, 256
    state = draw.integers(-4000, 4000, 10 + rows * step).astype(kind)
    exact = kind is np.int16
    own: np.ndarray = np.concatenate([np.arange(size) + 10 + row * step for row in range(rows)])
    others = np.setdiff1d(np.arange(10 + size, len(state)), own)
    if not exact:
        state[others] = np.nan
    seen = state[own].reshape(rows, size).astype(float)
    scores = np.full(rows + 1, 7, np.int64 if exact else np.float32)
    products(state, 10, 10, step, size, scores)
    want = seen @ seen[0]
    assert scores[0] == 7
    assert np.abs(scores[1:] - want).max() <= (0 if exact else 1e-6 * np.abs(seen).max() ** 2 * size)
    weights = draw.integers(0, 300, rows).astype(np.int32 if exact else np.float32)
    sums: np.ndarray = np.ones(1 + size + 64, weights.dtype)
    sums_of(state, 10, step, size, weights, sums)
    assert np.abs(sums[1 : 1 + size] - 1 - weights @ seen).max() <= (0 if exact else 1e-6 * weights.sum() * 4000)


def test_the_largest_products_of_whole_numbers_do_not_overflow() -> None:
    state: np.ndarray = np.concatenate([np.full(512, 4095), np.full(512, -32767)]).astype(np.int16)
    scores = np.zeros(2, np.int64)
    products(state, 0, 512, 0, 512, scores)
    assert scores[1] == -4095 * 32767 * 512


# -- what is compiled, and what


def test_what_tokens_need_is_compiled_for_networks_of_tokens_alone() -> None:
    image = DataSpec("image", (1, 4, 4), levels=4)
    for name, want in (("gated-pixelcnn", (False, False)), ("pixelcnn++", (True, False)), ("transformer", (False, True))):
        network = build(name, replace(image, shape=(3, 4, 4)) if "++" in name else image, preset="tiny").network
        assert isinstance(network, CausalNetwork)
        assert seldom(network.lowered()) == want


def test_operands_outside_of_their_buffers_are_refused() -> None:
    network = weighted(token_toys()["tokens, shared keys"], 0.5).float()
    program = network.lowered()

    def laid_out(old: object, new: object) -> None:
        operations = tuple(new if op is old else op for op in program.operations)
        changed = replace(program, operations=operations)  # type: ignore[arg-type]
        tiling = Tiling(LANES, VECTORS)
        Layout(changed, Weights(changed, 3, tiling), {fill.target: (9, 1) for fill in program.fills})

    attend, turn, norm = (next(op for op in program.operations if isinstance(op, kind)) for kind in (Attend, Rotate, Normalise))
    laid_out(attend, attend)
    assert isinstance(attend, Attend) and isinstance(turn, Rotate) and isinstance(norm, Normalise)
    for op, changed in [
        (attend, replace(attend, window=10)),
        (attend, replace(attend, heads=3)),
        (attend, replace(attend, values=replace(attend.values, first=attend.values.first + 1))),
        (attend, replace(attend, keys=replace(attend.keys, above=1))),
        (attend, replace(attend, query=replace(attend.query, count=4))),
        (attend, replace(attend, values=replace(attend.values, buffer=attend.query.buffer))),
        (attend, replace(attend, target=attend.query)),
        (turn, replace(turn, turned=5)),
        (turn, replace(turn, turned=16)),
        (norm, replace(norm, source=replace(norm.source, count=7))),
    ]:
        with pytest.raises(LayoutError):
            laid_out(op, changed)
    assert any(isinstance(op, Affine) for op in program.operations)
