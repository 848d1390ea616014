"""Files made with a model: they decode to what they were made of, cost what the model says, and own up to every fault."""

from __future__ import annotations

import json
from io import BytesIO
from math import log

import pytest
import torch
from torch import Tensor

import ancestral
from ancestral.coding import blocks, codec, payloads
from ancestral.coding.codec import compress, decompress
from ancestral.coding.container import Writer
from ancestral.coding.errors import CodecError, CorruptHeader, DecodeMismatch, NumericsError, WrongModel
from ancestral.coding.reader import Reader
from ancestral.walking.twin import twin

GREY, COLOUR = ancestral.DataSpec("image", (1, 5, 6), levels=17), ancestral.DataSpec("image", (3, 4, 4), levels=256)
BINARY = ancestral.DataSpec("image", (1, 6, 6), levels=2)
CASES = [
    ("gated-pixelcnn", GREY, {}),
    ("gated-pixelcnn", COLOUR, {}),
    ("gated-pixelcnn", BINARY, {}),
    ("vae", COLOUR, {}),
    ("vae", BINARY, {}),
    ("vae", GREY, {"decoder": "normal"}),
    ("agave", GREY, {}),
    ("agave", COLOUR, {"factor": 2, "spatial": True}),
]


def made(name: str, spec: ancestral.DataSpec, fields: dict[str, object], scale: float = 2.0) -> ancestral.Latent:
    """A tiny model whose weights are large enough to say something."""
    torch.manual_seed(0)
    model = ancestral.build(name, spec, preset="tiny", **fields).float()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.mul_(scale).add_(torch.randn_like(parameter), alpha=0.05)
    return model  # type: ignore[return-value]


def symbols(spec: ancestral.DataSpec, n: int, seed: int = 0) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.randint(spec.levels or 2, (n, *spec.shape), generator=generator)  # type: ignore[arg-type]


@pytest.mark.parametrize(("name", "spec", "fields"), CASES)
@pytest.mark.parametrize("n", [0, 1, 20])
def test_a_file_decodes_to_what_it_was_made_of(name: str, spec: ancestral.DataSpec, fields: dict[str, object], n: int) -> None:
    model, x = made(name, spec, fields), symbols(spec, n)
    data = compress(model, x, engine="eager")
    assert torch.equal(decompress(model, data, engine="eager"), x)
    assert torch.equal(decompress(made(name, spec, fields), data, engine="eager"), x)  # another copy of the same weights


@pytest.mark.parametrize(("name", "spec", "fields"), CASES[:3])
def test_symbols_cost_what_the_exact_model_says(name: str, spec: ancestral.DataSpec, fields: dict[str, object]) -> None:
    model = made(name, spec, fields, scale=1.0)
    x = ancestral.sample(model, 400, seed=1)
    exact = twin(model, x, engine="eager")
    ideal = exact.cost(x).sum().item() / log(2) / 8
    assert len(payloads.encoded(exact, x)) <= 1.001 * ideal + 40


@pytest.mark.parametrize(("name", "spec", "fields"), CASES[3:])
def test_bits_come_back(name: str, spec: ancestral.DataSpec, fields: dict[str, object]) -> None:
    """What items beyond the first sixteen add is their single-sample bound, within 1 % (and the noise of that one sample)."""
    model = made(name, spec, fields, scale=1.0)
    x = ancestral.sample(model, 400, seed=1)
    exact = twin(model, x, engine="eager")
    added = (len(payloads.encoded(exact, x)) - len(payloads.encoded(exact, x[:16]))) * 8
    bounds = torch.stack([exact.cost(x[16:], seed=seed).sum() / log(2) for seed in range(4)])
    assert abs(added / bounds.mean() - 1) < 0.01 + 4 * (bounds.std() / bounds.mean())


def test_rare_symbols_are_stored_rather_than_blown_up() -> None:
    model = made("gated-pixelcnn", COLOUR, {}, scale=12.0)
    x = symbols(COLOUR, 64)
    data = compress(model, x, engine="eager")
    assert torch.equal(decompress(model, data, engine="eager"), x)
    assert Reader(data).info().payload <= x.numel()


def test_another_model_is_refused() -> None:
    data = compress(made("gated-pixelcnn", GREY, {}), symbols(GREY, 4), engine="eager")
    with pytest.raises(WrongModel):
        decompress(made("gated-pixelcnn", GREY, {}, scale=1.9), data, engine="eager")
    with pytest.raises(WrongModel):
        decompress(made("vae", GREY, {}), data, engine="eager")
    with pytest.raises(WrongModel):
        decompress(made("gated-pixelcnn", BINARY, {}), data, engine="eager")


def test_models_without_an_exact_twin_say_so() -> None:
    real = ancestral.build("vae", ancestral.DataSpec("vector", (3,)), preset="tiny")
    with pytest.raises(ancestral.DataError, match="real values"):
        compress(real, torch.randn(4, 3))


def test_a_machine_with_other_numbers_finds_out_before_it_decodes(monkeypatch: pytest.MonkeyPatch) -> None:
    model = made("gated-pixelcnn", GREY, {})
    data = compress(model, symbols(GREY, 4), engine="eager")
    monkeypatch.setattr(codec, "canary", lambda exact: "0" * 16)
    with pytest.raises(NumericsError, match="other numbers"):
        decompress(model, data, engine="eager")


def test_every_fault_of_a_small_file_is_found(monkeypatch: pytest.MonkeyPatch) -> None:
    """Every truncation and a thousand flips: a named error, or the right data; never other data."""
    model, x = made("agave", GREY, {}), symbols(GREY, 3)
    data = compress(model, x, engine="eager")
    exact, right = codec.restored(model, Reader(data).header["calibration"], "eager"), Reader(data).header["canary"]
    monkeypatch.setattr(codec, "restored", lambda model, calibration, *rest: exact)  # the same every time, and slow to make
    monkeypatch.setattr(codec, "canary", lambda exact: right)
    assert torch.equal(decompress(model, data, engine="eager"), x)
    for length in range(len(data)):
        with pytest.raises(CodecError):
            decompress(model, data[:length], engine="eager")
    generator = torch.Generator().manual_seed(0)
    for _ in range(1000):
        damaged = bytearray(data)
        place, bit = int(torch.randint(len(data), (), generator=generator)), int(torch.randint(8, (), generator=generator))
        damaged[place] ^= 1 << bit
        with pytest.raises(CodecError):
            decompress(model, bytes(damaged), engine="eager")


def test_damage_behind_valid_checksums_is_found() -> None:
    """A payload exchanged for another valid one: the digest of the data tells."""
    model, x = made("gated-pixelcnn", GREY, {}), symbols(GREY, 3)
    exact = twin(model, x, engine="eager")
    header = Reader(compress(model, x, engine="eager")).header
    file = BytesIO()
    with Writer(file, header) as writer:
        writer.add(3, blocks.raw(x, GREY), payloads.encoded(exact, symbols(GREY, 3, seed=1)))
    with pytest.raises(DecodeMismatch):
        decompress(model, file.getvalue(), engine="eager")


@pytest.mark.parametrize("missing", ["spec", "calibration", "model", "canary"])
def test_a_header_that_says_too_little_is_refused(missing: str) -> None:
    model = made("gated-pixelcnn", GREY, {})
    header = Reader(compress(model, symbols(GREY, 2), engine="eager")).header
    file = BytesIO()
    with Writer(file, {name: value for name, value in json.loads(json.dumps(header)).items() if name != missing}):
        pass
    with pytest.raises(CorruptHeader, match=missing):
        decompress(model, file.getvalue(), engine="eager")


@pytest.mark.parametrize("spec", [None, [], {"kind": "image"}, {"kind": "smell", "shape": [1], "levels": 2}])
def test_a_header_with_nonsense_is_refused(spec: object) -> None:
    model = made("gated-pixelcnn", GREY, {})
    header = Reader(compress(model, symbols(GREY, 2), engine="eager")).header
    file = BytesIO()
    with Writer(file, header | {"spec": spec}):
        pass
    with pytest.raises(CorruptHeader, match="what the items are"):
        decompress(model, file.getvalue(), engine="eager")


def test_salvage_gives_the_blocks_that_are_whole(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(blocks, "block_items", lambda spec: 4)
    model, x = made("gated-pixelcnn", GREY, {}), symbols(GREY, 12)
    data = bytearray(compress(model, x, engine="eager"))
    middle = data.index(b"BK", data.index(b"BK", data.index(b"BK") + 1))
    data[middle + 60] ^= 1
    with pytest.raises(CodecError):
        decompress(model, bytes(data), engine="eager")
    saved = decompress(model, bytes(data), errors="skip", engine="eager")
    assert torch.equal(saved, torch.cat([x[:4], x[8:]]))


@pytest.mark.parametrize("name", ["gated-pixelcnn", "agave"])
def test_threads_share_the_blocks(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(blocks, "block_items", lambda spec: 3)
    model, x, told = made(name, GREY, {}), symbols(GREY, 17), []
    data = compress(model, x, engine="eager")
    assert compress(model, x, engine="eager", threads=3, progress=lambda done, total: told.append(done)) == data
    assert torch.equal(decompress(model, data, engine="native", threads=3), x)
    assert told == [3, 6, 9, 12, 15, 17]


@pytest.mark.slow
def test_a_slot_that_no_bin_owns_is_gone_around() -> None:
    """Posteriors far from the prior pop the free slots at the ends now and then: fewer items are tried, then none."""
    spec = ancestral.DataSpec("image", (1, 16, 16), levels=2)
    model = made("vae", spec, {"latent": 32, "spatial": True}, scale=1.0)
    x = symbols(spec, 60)
    assert torch.equal(decompress(model, compress(model, x, engine="eager"), engine="eager"), x)


def test_no_items_cost_nothing() -> None:
    for name in ("gated-pixelcnn", "agave"):
        model = made(name, GREY, {})
        exact = twin(model, symbols(GREY, 4), engine="eager")
        assert exact.cost(symbols(GREY, 0)).shape == (0,)
