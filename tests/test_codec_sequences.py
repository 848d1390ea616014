"""Sequences in files made with a model: as long as they are, cut or not, in every engine."""

from __future__ import annotations

from io import BytesIO
from math import log

import numpy as np
import pytest
import torch
from tiny_clips import BLOCKS, SOUND, TEXT, wavenet
from torch import Tensor

import ancestral
from ancestral.coding import autoregressive, beside, blocks, codec, payloads
from ancestral.coding.blocks import portions
from ancestral.coding.clips import Clip, Sequences, cut, joined
from ancestral.coding.codec import compress, decompress
from ancestral.coding.coder import Stack
from ancestral.coding.container import Block, Writer
from ancestral.coding.cutting import cut_to
from ancestral.coding.errors import CodecError, DecodeMismatch, WrongModel
from ancestral.coding.manifest import Item
from ancestral.coding.reader import Reader
from ancestral.coding.sequences import array_clip
from ancestral.coding.widths import Widths
from ancestral.core import OrderError
from ancestral.sampling.strategies import arrange
from ancestral.symbols import DataError
from ancestral.walking.twin import twin


def ended(n: int, width: int, seed: int = 0, longest: int | None = None) -> Tensor:
    """(n, width) bytes of any length, none and all of the width among them, filled up with ends."""
    generator = torch.Generator().manual_seed(seed)
    x = torch.randint(256, (n, width), generator=generator)
    lengths = torch.randint((longest or width) + 1, (n,), generator=generator)
    lengths[:2] = torch.tensor([0, width])[: len(lengths)]
    return x.masked_fill(torch.arange(width) >= lengths[:, None], 256)


@pytest.mark.parametrize("n", [0, 1, 2, 40])
def test_sequences_come_back_as_long_as_they_are(n: int) -> None:
    model, x = wavenet(TEXT), ended(n, 90)
    data = compress(model, x, engine="eager")
    assert torch.equal(decompress(model, data, engine="eager"), x)
    assert Reader(data).header["spec"]["shape"] == [90]


@pytest.mark.parametrize("spec", [BLOCKS, SOUND, ancestral.DataSpec("audio", (12,), levels=3)])
def test_sequences_of_one_length_come_back(spec: ancestral.DataSpec) -> None:
    x = blocks.fixed_items(spec, 30)
    assert torch.equal(decompress(wavenet(spec), compress(wavenet(spec), x, engine="eager"), engine="eager"), x)


@pytest.mark.slow
@pytest.mark.parametrize(("spec", "n"), [(TEXT, 1), (TEXT, 20), (SOUND, 5)])
def test_the_engine_pops_what_is_not_known(spec: ancestral.DataSpec, n: int) -> None:
    model = arrange(wavenet(spec), shape=(64,))
    x, lengths = torch.randint(256, (n, 64)), torch.arange(n) * 2 % 66
    native, eager = (twin(model, x, engine).likelihood for engine in ("native", "eager"))
    over = blocks.past(lengths, 64)
    stack = Stack()
    autoregressive.push(stack, eager, x, known=over)
    data = stack.to_bytes()
    for likelihood in (native, eager):
        stack = Stack.from_bytes(data)
        assert torch.equal(autoregressive.pop(stack, likelihood, n, known=(x, over)), x)
        assert stack.empty


def test_any_network_codes_beginnings() -> None:
    """One of a single length and any order too: what is over is known to both sides."""
    spec = ancestral.DataSpec("text", (11,), levels=6, end=5)
    model, x = ancestral.build("made", spec, preset="tiny").float(), torch.randint(5, (30, 11))
    x = x.masked_fill(torch.arange(11) >= torch.randint(12, (30, 1)), 5)
    assert torch.equal(decompress(model, compress(model, x, engine="eager"), engine="eager"), x)


def test_symbols_cost_what_the_model_says_and_what_fills_up_nothing() -> None:
    model = arrange(wavenet(TEXT), shape=(60,))
    x = ended(50, 60)
    exact, lengths = twin(model, x, engine="eager"), blocks.counted(x, TEXT)
    nats = -exact.likelihood.conditionals(x).log_prob(x)[~blocks.past(lengths, 60)].sum().item()
    assert abs(len(payloads.encoded(exact, x, lengths=lengths)) - nats / log(2) / 8) <= 40


def test_short_sequences_are_coded_by_a_narrow_twin() -> None:
    """A shorter network gives the same bytes."""
    model = arrange(wavenet(TEXT), shape=(1000,))
    x, lengths = torch.randint(256, (6, 1000)), torch.tensor([100, 90, 3, 0, 100, 70])
    whole = twin(model, x, engine="eager")
    narrow = Widths(model, whole, "eager", 1).of(100)
    assert narrow.likelihood.spec.sites == 125
    assert payloads.encoded(narrow, x, lengths=lengths) == payloads.encoded(whole, x, lengths=lengths)
    assert Widths(model, whole, "eager", 1).of(501) is whole


def test_blocks_hold_more_of_what_is_short() -> None:
    spec = ancestral.DataSpec("text", (2**14,), levels=256)
    lengths = torch.tensor([2**14] * 20 + [100] * 5000)
    found = portions(spec, len(lengths), lengths)
    assert [len(each) for each in found[:2]] == [16, 16] and len(found[2]) == 655
    assert [i for each in found for i in each] == list(range(len(lengths)))
    assert len(portions(spec, 50, lengths.flip(0)[:50])[0]) == 50
    assert len(portions(spec, 5020, lengths.flip(0))[0]) == 16  # long ones are still to come: memory is bounded


def test_what_goes_on_after_its_end_is_refused() -> None:
    x = ended(3, 20)
    x[0, 7] = 9
    with pytest.raises(DataError, match="row 0 goes on after its end"):
        compress(wavenet(TEXT), x, engine="eager")
    with pytest.raises(DataError, match="no symbols"):
        compress(wavenet(TEXT), x[:, :0], engine="eager")


def test_an_array_that_goes_on_after_its_end_is_refused() -> None:
    values = ended(3, 20).numpy()
    values[0, 7] = 9  # a stored block would keep it in a byte, and the end before it would come back as 0
    with pytest.raises(DataError, match=r"a\.npy: row 0 goes on after its end"):
        array_clip(Item("a.npy", "<i8", values.shape), values, TEXT)


def test_arrays_without_symbols_have_rows() -> None:
    clip, runs = array_clip(Item("a.npy", "<i8", (3, 0)), np.zeros((3, 0), np.int64), TEXT)
    assert clip.runs == (0, 0, 0) and [len(run) for run in runs] == [0, 0, 0]


def test_another_model_is_refused() -> None:
    data = compress(wavenet(TEXT), ended(3, 20), engine="eager")
    for other in (wavenet(TEXT, seed=1), wavenet(BLOCKS)):
        with pytest.raises(WrongModel):
            decompress(other, data, engine="eager")


def test_labels_of_sequences_come_back() -> None:
    spec = ancestral.DataSpec("text", (None,), levels=257, classes=5, end=256)
    model, x, labels = wavenet(spec, conditional=True), ended(20, 30), torch.arange(20) % 5
    data = compress(model, x, labels=labels, engine="eager")
    opened = codec.Opened(Reader(data), model, "eager")
    assert torch.equal(torch.cat([items for _, items in opened.blocks()]), x)
    assert opened.labels is not None and torch.equal(opened.labels, labels)


@pytest.mark.parametrize("lengths", [[3, 2, 99], [3, 2]])
def test_lengths_that_cannot_be_are_found(lengths: list[int]) -> None:
    model, x = wavenet(TEXT), ended(3, 20)
    data = BytesIO()
    with Writer(data, Reader(compress(model, x, engine="eager")).header) as writer:
        part = payloads.Part(x, None, torch.tensor(lengths))
        writer.add(3, b"x" * 200, part.before(TEXT) + b"\1" * 30)
    with pytest.raises(DecodeMismatch):
        decompress(model, data.getvalue(), engine="eager")


# ---- cutting


@pytest.mark.parametrize("seed", range(5))
def test_pieces_hold_every_symbol_once(seed: int) -> None:
    rng = np.random.default_rng(seed)
    parts = 1 + seed % 2
    spec = ancestral.DataSpec("audio", (parts * int(rng.integers(1, 9)),), levels=256, parts=parts)
    runs = [rng.integers(256, size=parts * int(n)) for n in rng.integers(0, 40, size=6)]
    manifest = Sequences(spec, tuple(Clip(str(i), "pcm16", (), (len(run),), (0, 0)) for i, run in enumerate(runs)))
    x, rows = cut(runs, manifest), np.arange(manifest.total)
    assert x.shape == (manifest.total, spec.sites) and int(manifest.lengths.sum()) == manifest.symbols
    assert (manifest.lengths % parts == 0).all() and (manifest.lengths.diff() <= 0).all()
    for run, found in zip(runs, joined(x, manifest, rows), strict=True):
        assert found is not None and np.array_equal(run, found)
    lost = joined(x[1:], manifest, rows[1:])
    assert [i for i, run in enumerate(lost) if run is None] == [manifest.pieces[0, 0]]
    assert Sequences.from_text(manifest.text(), spec) == manifest


def test_items_are_as_long_as_pays() -> None:
    """A model that looks far back takes long items; one of a single length has no choice; the user has the last word."""
    run = np.tile(np.arange(64), 200)
    model = ancestral.build("wavenet", ancestral.DataSpec("text", (16,), levels=64), preset="tiny", symbols="scaled").float()
    assert cut_to(model, [run], block=100).spec.shape == (100,)
    assert cut_to(model, [run[:9]]).spec.shape == (9,)
    assert cut_to(model, [run]).spec.sites in (16, 64, 256, 1024)
    single = ancestral.build("made", ancestral.DataSpec("text", (16,), levels=64), preset="tiny")
    assert cut_to(single, [run]) is single
    with pytest.raises(OrderError):
        cut_to(single, [run], block=100)
    with pytest.raises(ValueError, match="block is 0"):
        cut_to(model, [run], block=0)


# ---- beside the symbols


def test_bytes_beside_the_symbols_come_back() -> None:
    rng = np.random.default_rng(0)
    data = rng.bytes(beside.SIZE + 5) + bytes(beside.SIZE)
    file = BytesIO()
    with Writer(file, {}) as writer:
        for plain, compressed in beside.divided(data):
            writer.add(0, plain, compressed, beside.BESIDE)
    found = {block.index: beside.restored(block) for block in Reader(file.getvalue())}
    kept = beside.Kept(found, 0)
    for start, stop in [(0, len(data)), (0, 0), (5, 9), (beside.SIZE - 1, beside.SIZE + 1), (len(data), len(data))]:
        assert kept.cut(start, stop) == data[start:stop]
    assert kept.cut(0, len(data) + 1) is None
    partly = beside.Kept({0: found[0], 2: found[2]}, 0)
    assert partly.cut(3, 9) == data[3:9] and partly.cut(beside.SIZE - 1, beside.SIZE + 1) is None
    with pytest.raises(CodecError):
        beside.restored(Block(0, beside.BESIDE, 0, b"no such stream", b""))


def test_files_beside_leave_symbols_alone() -> None:
    model, x = wavenet(TEXT), ended(3, 20)
    file = BytesIO()
    codec.write(file, model, x, kept=b"kept" * 50, engine="eager")
    opened = codec.Opened(Reader(file.getvalue()), model, "eager")
    assert torch.equal(torch.cat([items for _, items in opened.blocks()]), x)
    assert opened.beside == {1: b"kept" * 50}
    assert torch.equal(decompress(model, file.getvalue(), engine="eager"), x)
