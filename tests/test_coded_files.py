"""Files of models with codes: the codes first, what they cost, pictures of them alone."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from tiny_codes import model_of, symbols, topdown_of

import ancestral
from ancestral.coding.codec import Opened
from ancestral.coding.lossy import lossy, previews
from ancestral.coding.reader import Reader
from ancestral.coding.schemes import LATENTS
from ancestral.coding.two_part import decode, encode
from ancestral.sampling.sample import sample
from ancestral.walking.exact.generator import ExactGenerator
from ancestral.walking.exact.operations import LoweringError
from ancestral.walking.twin import restored, schemes, twin


@pytest.mark.parametrize(
    "options", [{}, {"conditional": True}, {"prior": "uniform"}, {"quantizer": "fsq", "prior": "transformer"}]
)
def test_two_parts_come_back_and_take_what_they_cost(options: dict[str, Any]) -> None:
    model, labels = model_of(**options), torch.arange(40) % 3
    told = labels if "conditional" in options else None
    x = sample(model, 40, seed=1, labels=told, engine="eager")
    vector = None if told is None else torch.nn.functional.one_hot(told, 3).double()
    assert schemes(model) == ("two-part",)
    made = twin(model, x, "eager", vector=vector)
    assert isinstance(made.latents, ExactGenerator)
    payload = encode(made, made.latents, x, vector)
    assert torch.equal(decode(made, made.latents, payload, len(x), vector), x)
    nats, elbo = made.cost(x, vector=vector), model.elbo(x, None if vector is None else ancestral.Context(vector=vector))
    assert abs(8 * len(payload) - float(nats.sum()) / math.log(2)) < 8 * 16
    assert float(nats.sum()) < -1.002 * float(elbo.bound.detach().sum())  # less where tables give rare symbols more than they had
    assert torch.allclose(made.latents.rate(made.latents.codes(x, vector), vector), elbo.rate, rtol=5e-3)
    codes = model.encode(x, None if vector is None else ancestral.Context(vector=vector))["codes"]
    assert torch.equal(made.latents.codes(x, vector), codes.flatten(1))
    again = restored(model, made.calibration, "eager")
    assert again.identity == made.identity
    with torch.no_grad():
        next(topdown_of(model).prior.parameters(), model.topdown.decoder.head.weight).add_(1e-3)  # type: ignore[union-attr]
    assert restored(model, made.calibration, "eager").identity != made.identity


def test_another_codebook_is_another_twin() -> None:
    model, x = model_of(), symbols()
    made = twin(model, x, "eager")
    topdown_of(model).quantizer.codebook[1] += 0.01  # type: ignore[index, operator]
    assert restored(model, made.calibration, "eager").identity != made.identity


@torch.no_grad()
def test_files_begin_with_codes() -> None:
    model = model_of(conditional=True).float()
    labels = torch.arange(10) % 3
    x = sample(model, 10, seed=1, labels=labels)
    blob = ancestral.compress(model, x, labels=labels)
    assert torch.equal(ancestral.decompress(model, blob), x)
    shown = torch.cat(list(previews(Opened(Reader(blob), model, "eager"))))
    kept = lossy(model, x, labels)
    assert kept.seen is not None
    assert torch.equal(shown, kept.seen)
    vector = torch.nn.functional.one_hot(labels, 3).float()
    expected = model.encode(x, ancestral.Context(vector=vector))["codes"]
    assert torch.equal(kept.z["codes"], expected) and kept.z["codes"].dtype == torch.long
    alone = ancestral.compress(model, x, labels=labels, scheme=LATENTS)
    assert len(alone) < len(blob)
    assert torch.equal(ancestral.decompress(model, alone), sample(model, 10, labels=labels, z={"codes": expected}))


def test_more_codes_than_files_take() -> None:
    model = model_of(codes=1025)
    with pytest.raises(LoweringError, match="files take symbols of fewer kinds"):
        twin(model, symbols(), "eager")
