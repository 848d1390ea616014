"""Decoding inside the engine: the same symbols and the same stack as the library pops, step by step."""

from __future__ import annotations

import numpy as np
import pytest
import torch

import ancestral
from ancestral.coding import autoregressive
from ancestral.coding.coder import Stack
from ancestral.coding.errors import CodecError
from ancestral.walking.twin import twin

SPECS = [
    ("bernoulli", ancestral.DataSpec("image", (1, 7, 6), levels=2)),
    ("categorical", ancestral.DataSpec("image", (1, 5, 5), levels=40)),
    ("logistic", ancestral.DataSpec("image", (3, 4, 5), levels=256)),
]


@pytest.mark.parametrize(("family", "spec"), SPECS)
@pytest.mark.parametrize("n", [1, 5, 40])
def test_the_engine_pops_as_the_library_does(family: str, spec: ancestral.DataSpec, n: int) -> None:
    torch.manual_seed(n)
    model = ancestral.build("gated-pixelcnn", spec, preset="tiny", family=family).float()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.mul_(2).add_(torch.randn_like(parameter), alpha=0.1)
    x = torch.randint(spec.levels or 2, (n, *spec.shape))  # type: ignore[arg-type]
    native, eager = (twin(model, x, engine).likelihood for engine in ("native", "eager"))
    stack = Stack()
    stack.push_uniform(np.arange(50), bits=9)  # something below, of more than two words
    autoregressive.push(stack, eager, x)
    data = stack.to_bytes()
    for likelihood in (native, eager):
        stack = Stack.from_bytes(data)
        assert torch.equal(autoregressive.pop(stack, likelihood, n), x)
        assert stack.pop_uniform(50, bits=9).tolist() == list(range(50))
        assert stack.empty


@pytest.mark.parametrize("cut", [0, 1, 4, 7])
def test_popping_too_much_is_found(cut: int) -> None:
    model = ancestral.build("gated-pixelcnn", SPECS[0][1], preset="tiny").float()
    x = torch.randint(2, (9, 1, 7, 6))
    native = twin(model, x, "native").likelihood
    stack = Stack()
    autoregressive.push(stack, native, x[:5])
    short = Stack.from_bytes(stack.to_bytes()[cut:])
    with pytest.raises(CodecError):
        autoregressive.pop(short, native, 9)


@pytest.mark.parametrize("words", [[2**24], [1 << 31], [7, 9], [1, 2, 3, 4], [0, 0, 0, 1], [5, 0, 1]])
def test_words_become_what_they_were(words: list[int]) -> None:
    stack = Stack.from_bytes(np.array(words, "<u4").tobytes().rstrip(b"\0"))
    copy = Stack()
    copy.become(stack.words())
    assert copy.to_bytes() == stack.to_bytes()
    assert copy.bits == stack.bits
