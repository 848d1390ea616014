"""Files of conditional models: their labels are kept, help the model, and cost no more than they must."""

from __future__ import annotations

import json
from io import BytesIO
from math import log, log2
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from tiny_cli import asking, calling
from tiny_latents import awake, waken
from torch import Tensor

import ancestral
from ancestral.coding import CODED, STORED, CodecError, Reader, blocks, codec, payloads
from ancestral.coding.codec import Opened, compress, decompress
from ancestral.coding.container import Writer
from ancestral.coding.errors import CorruptHeader, WrongModel
from ancestral.coding.labelled import label_bytes, packed, unpacked
from ancestral.core import Context
from ancestral.data.splits import Examples
from ancestral.objectives import label_context
from ancestral.sampling import sample
from ancestral.walking.twin import LABELS, Twin, label_vector, restored, twin

GREY, COLOUR = ancestral.DataSpec("image", (1, 5, 6), 17, 3), ancestral.DataSpec("image", (3, 4, 4), 256, 10)
BINARY, LIST = ancestral.DataSpec("image", (1, 6, 6), 2, 2), ancestral.DataSpec("vector", (6,), 5, 3)
CASES = [
    ("gated-pixelcnn", GREY, {}),
    ("gated-pixelcnn", COLOUR, {}),
    ("vae", BINARY, {}),
    ("vae", LIST, {}),
    ("agave", GREY, {}),
    ("agave", COLOUR, {"factor": 2, "spatial": True, "stream": 4}),
]


def made(name: str, spec: ancestral.DataSpec, fields: dict[str, object], seed: int = 0) -> ancestral.Latent:
    torch.manual_seed(seed)
    return awake(name, spec, 0.3, conditional=True, **fields).float()  # type: ignore[no-any-return]


def items(spec: ancestral.DataSpec, n: int) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(n)
    x = torch.randint(spec.levels or 2, (n, *spec.shape), generator=generator)  # type: ignore[arg-type]
    return x, torch.randint(spec.classes or 2, (n,), generator=generator)


def told(model: ancestral.Latent, x: Tensor, labels: Tensor) -> Twin:
    return twin(model, x, "eager", vector=label_vector(labels, model.spec))


def kinds(data: bytes) -> list[int]:
    return [block.kind for block in Reader(data)]


# ---- labels as bytes


@pytest.mark.parametrize(("n", "classes"), [(0, 10), (1, 2), (7, 10), (3, 256), (4096, 10), (50, 1000)])
def test_labels_take_their_share_of_bits(n: int, classes: int) -> None:
    labels = torch.randint(classes, (n,), generator=torch.Generator().manual_seed(n))
    data = packed(labels, classes)
    assert torch.equal(unpacked(data, n, classes), labels) and len(data) == label_bytes(n, classes)
    assert n * log2(classes) / 8 <= len(data) + 1e-9 and len(data) < n * log2(classes) / 8 + 1
    for last in (torch.full((n,), classes - 1), torch.zeros(n, dtype=torch.long)):
        assert torch.equal(unpacked(packed(last, classes), n, classes), last)


def test_bytes_that_are_no_labels_are_refused() -> None:
    for data in (b"\xff\xff", b"\xe7", b"\x00\x00\x00"):  # 65,535 is more than 999; one byte; three
        with pytest.raises(CodecError, match="do not hold 3 labels"):
            unpacked(data, 3, 10)


# ---- whole files


@pytest.mark.parametrize(("name", "spec", "fields"), CASES)
@pytest.mark.parametrize("n", [0, 9])
def test_a_file_gives_back_items_and_labels(
    name: str, spec: ancestral.DataSpec, fields: dict[str, object], n: int, tmp_path: Path
) -> None:
    model, (x, labels) = made(name, spec, fields), items(spec, n)
    data = compress(model, x, labels=labels, engine="eager")
    assert torch.equal(decompress(model, data, engine="eager"), x)
    (tmp_path / "items.anc").write_bytes(data)
    back, kept = decompress(model, tmp_path / "items.anc", with_labels=True, engine="eager")
    assert torch.equal(back, x) and kept is not None and torch.equal(kept, labels)
    opened = Opened(Reader(data), made(name, spec, fields), "eager")
    assert opened.labelled
    found = [part for _, part in opened.blocks()]
    assert torch.equal(torch.cat([x[:0], *found]), x)
    assert opened.labels is not None and torch.equal(opened.labels, labels)


@pytest.mark.parametrize(("name", "spec", "fields"), [CASES[1], CASES[5]])
def test_engines_and_threads_agree(
    name: str, spec: ancestral.DataSpec, fields: dict[str, object], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(blocks, "block_items", lambda spec: 5)
    model, labels = made(name, spec, fields), torch.arange(17) % 10
    x = sample(model, 17, labels=labels)
    data = compress(model, x, labels=labels.tolist(), engine="eager")
    assert kinds(data) == [CODED] * 4
    assert compress(model, x, labels=labels, engine="native", threads=3) == data
    opened = Opened(Reader(data), model, "native", 3)
    assert torch.equal(torch.cat([part for _, part in opened.blocks()]), x)
    assert opened.labels is not None and torch.equal(opened.labels, labels)


def test_items_cost_what_the_model_says_given_their_labels() -> None:
    model, labels = made("gated-pixelcnn", GREY, {}), torch.arange(300) % 3
    x = sample(model, 300, seed=1, labels=labels, batch_size=300, engine="eager")
    exact = told(model, x, labels)
    with torch.no_grad():
        ideal = -exact.likelihood.log_prob(x, Context(vector=label_vector(labels, GREY))).sum().item() / log(2) / 8
        float_ideal = -model.log_prob(x, label_context(labels, GREY, model.anchor)).sum().item() / log(2) / 8  # type: ignore[attr-defined]
    assert len(payloads.encoded(exact, x, labels)) <= 1.001 * ideal + 40
    assert ideal == pytest.approx(float_ideal, rel=0.005)


@pytest.mark.parametrize(("name", "spec", "fields"), CASES)
def test_the_twin_tells_the_cost_given_labels(name: str, spec: ancestral.DataSpec, fields: dict[str, object]) -> None:
    """Nearly that of the model at the same noise, as `evaluate` says; the calibration alone makes the same twin again."""
    model, (x, labels) = made(name, spec, fields), items(spec, 20)
    exact, vector = told(model, x, labels), label_vector(labels, spec)
    assert exact.labelled and vector is not None
    theirs = exact.cost(x, vector=vector)
    assert torch.equal(exact.cost(x[3:5], rows=[3, 4], vector=vector[3:5]), theirs[3:5])
    found = ancestral.evaluate(model, Examples(x, labels), importance_samples=0, numerics="exact")
    other = (exact.cost(x, vector=1 - vector) - theirs).abs().mean().item()
    assert found.exact_nats == pytest.approx(theirs.mean().item(), rel=1e-5)
    assert found.exact_cost is not None and abs(found.exact_cost) < 0.1 * other
    again = restored(made(name, spec, fields), json.loads(json.dumps(exact.calibration)), "eager")
    assert again.identity == exact.identity and torch.equal(again.cost(x, vector=vector), theirs)
    null = twin(model, x, "eager")
    assert not null.labelled and null.identity != exact.identity
    with pytest.raises(ValueError, match="without labels takes no"):
        null.cost(x, vector=vector)
    with pytest.raises(ValueError, match="with labels takes a"):
        exact.cost(x)


@pytest.mark.parametrize(("name", "seed", "share"), [("gated-pixelcnn", 3, 0.9), ("agave", 8, 0.95)])
def test_labels_that_matter_make_files_smaller(name: str, seed: int, share: float) -> None:
    """Samples of a model whose label decides much: told it, their file is smaller, labels and all; told others, larger."""
    torch.manual_seed(seed)
    model = awake(name, BINARY, 1.0, conditional=True).float()
    labels = torch.arange(200) % 2
    x = sample(model, 200, seed=1, labels=labels, batch_size=200, engine="eager")
    right, null, wrong = (len(compress(model, x, labels=each, engine="eager")) for each in (labels, None, 1 - labels))
    assert right < share * null and right < wrong


def test_without_labels_files_are_as_they_were() -> None:
    model, (x, _) = made("gated-pixelcnn", GREY, {}), items(GREY, 4)
    opened = Opened(Reader(compress(model, x, engine="eager")), model, "eager")
    assert LABELS not in opened.reader.header["calibration"] and not opened.labelled and opened.labels is None


def test_labels_of_stored_blocks_are_kept() -> None:
    model, (x, labels) = made("gated-pixelcnn", COLOUR, {}), items(COLOUR, 64)
    waken(model, 5.0)
    data = compress(model, x, labels=labels, engine="eager")
    assert kinds(data) == [STORED]
    opened = Opened(Reader(data), model, "eager")
    assert torch.equal(torch.cat([part for _, part in opened.blocks()]), x)
    assert opened.labels is not None and torch.equal(opened.labels, labels)


def test_classes_in_a_row_calibrate_as_classes_in_turn() -> None:
    """Of items sorted by class all classes calibrate the twin, not the first alone."""
    model, labels = made("gated-pixelcnn", GREY, {}), torch.arange(192) // 64
    x, _ = items(GREY, 192)
    assert told(model, x, labels).calibration == told(model, x[::3], labels[::3]).calibration


def test_the_command_line_takes_labels_from_the_data_or_the_folders(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    call = calling(capsys, monkeypatch)
    ask = asking(call)
    data = ancestral.data("digits", limit=12)
    record = {"source": "digits", "options": {"limit": 12}, "hash": data.hash, "note": data.note}
    torch.manual_seed(0)
    ancestral.save(
        ancestral.build("gated-pixelcnn", data.spec, preset="tiny", conditional=True), tmp_path / "run", extra={"data": record}
    )
    small = ancestral.DataSpec("image", (1, 4, 4), 256, 2)
    ancestral.save(ancestral.build("gated-pixelcnn", small, preset="tiny", conditional=True), tmp_path / "two")
    for name, size in {"cat/a": (4, 4), "dog/b": (7, 5), "dog/c": (4, 4)}.items():
        (tmp_path / "pets" / name).parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(np.full(size, 7, np.uint8)).save(tmp_path / "pets" / f"{name}.png")

    def labels(run: str, *words: object) -> list[int]:
        told = ask("compress", tmp_path / run, *words, "--out", tmp_path / "x.anc", "--force", "--engine", "eager")
        assert told["labels"] and ask("info", tmp_path / "x.anc")["labels"]
        opened = Opened(Reader((tmp_path / "x.anc").read_bytes()), ancestral.load(tmp_path / run), "eager")
        assert sum(len(part) for _, part in opened.blocks()) == told["items"]
        assert opened.labels is not None
        return opened.labels.tolist()

    assert data.test.labels is not None
    assert labels("run") == data.test.labels.tolist()
    assert labels("run", "--limit", 3) == data.test.labels[:3].tolist()
    assert labels("two", tmp_path / "pets") == [0, 1, 1, 1, 1, 1]  # 7 x 5 pixels take four tiles
    assert labels("two", tmp_path / "pets", "--labels", 1, 0, 1) == [1, 0, 0, 0, 0, 1]
    code, _, err = call("compress", tmp_path / "two", tmp_path / "pets", "--labels", 1, "--out", tmp_path / "y.anc")
    assert code == 1 and "1 labels for 3 pictures" in err
    told = ask("compress", tmp_path / "two", tmp_path / "pets" / "cat", "--out", tmp_path / "y.anc", "--engine", "eager")
    assert not told["labels"] and not ask("info", tmp_path / "y.anc")["labels"]


# ---- faults


def test_labels_that_do_not_fit_are_refused() -> None:
    model, (x, labels) = made("gated-pixelcnn", GREY, {}), items(GREY, 4)
    for fault, wrong in {"one entry a row": labels[:3], "labels range": labels + 2}.items():
        with pytest.raises(ValueError, match=fault):
            compress(model, x, labels=wrong)
    with pytest.raises(ValueError, match="conditional=False"):
        compress(ancestral.build("gated-pixelcnn", GREY, preset="tiny"), x, labels=labels)


def test_another_model_is_refused() -> None:
    model, (x, labels) = made("gated-pixelcnn", GREY, {}), items(GREY, 4)
    data = compress(model, x, labels=labels, engine="eager")
    plain = ancestral.build("gated-pixelcnn", GREY, preset="tiny").float()
    for other in (plain, made("gated-pixelcnn", GREY, {}, seed=1), made("agave", GREY, {})):
        with pytest.raises(WrongModel):
            decompress(other, data, engine="eager")


@pytest.mark.parametrize("name", ["gated-pixelcnn", "agave"])
def test_every_fault_of_a_small_file_is_found(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    model, (x, labels) = made(name, GREY, {}), items(GREY, 3)
    data = compress(model, x, labels=labels, engine="eager")
    exact, right = restored(model, Reader(data).header["calibration"], "eager"), Reader(data).header["canary"]
    monkeypatch.setattr(codec, "restored", lambda *_: exact)  # the same every time, and slow to make
    monkeypatch.setattr(codec, "canary", lambda exact: right)
    monkeypatch.setattr(codec.whole, "self_test", lambda: None)
    assert torch.equal(decompress(model, data, engine="eager"), x)
    for length in [*range(0, len(data), 9), *range(len(data) - 100, len(data))]:
        with pytest.raises(CodecError):
            decompress(model, data[:length], engine="eager")
    generator = torch.Generator().manual_seed(0)
    for _ in range(100):
        damaged = bytearray(data)
        damaged[int(torch.randint(len(data), (), generator=generator))] ^= 1 << int(torch.randint(8, (), generator=generator))
        with pytest.raises(CodecError):
            decompress(model, bytes(damaged), engine="eager")


def rewritten(data: bytes, header: dict[str, object], cut: int = 0) -> bytes:
    """The file with another header, or with a payload that lacks its first bytes."""
    reader, file = Reader(data), BytesIO()
    with Writer(file, reader.header | header) as writer:
        for block in reader:
            writer.add(block.items, b"\0" * 10_000, block.payload[cut:])
    return file.getvalue()


def test_damage_behind_valid_checksums_is_found() -> None:
    model, (x, labels) = made("gated-pixelcnn", GREY, {}), items(GREY, 12)
    waken(model, 0.01)
    data = compress(model, sample(model, 12, labels=labels), labels=labels, engine="eager")
    assert kinds(data) == [CODED]
    for header, cut in (({}, 1), ({}, len(x)), ({}, 9_999)):
        with pytest.raises(CodecError):
            decompress(model, rewritten(data, header, cut), engine="eager")
    calibration = Reader(data).header["calibration"]
    for nonsense in ("yes", 3, None, False):
        with pytest.raises(CorruptHeader, match="labels"):
            decompress(model, rewritten(data, {"calibration": calibration | {LABELS: nonsense}}), engine="eager")
    without = {key: value for key, value in calibration.items() if key != LABELS}
    for other in (without, [LABELS], LABELS, 3, None):
        with pytest.raises(WrongModel):
            decompress(model, rewritten(data, {"calibration": other}), engine="eager")
    bare = ancestral.DataSpec("image", (1, 5, 6), 17)
    plain = ancestral.build("gated-pixelcnn", bare, preset="tiny")
    with pytest.raises(CorruptHeader, match="labels"):
        decompress(plain, rewritten(data, {"spec": bare.to_dict()}), engine="eager")


def test_salvage_keeps_labels_beside_their_items(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(blocks, "block_items", lambda spec: 4)
    model, (x, labels) = made("gated-pixelcnn", GREY, {}), items(GREY, 12)
    data = bytearray(compress(model, x, labels=labels, engine="eager"))
    middle = data.index(b"BK", data.index(b"BK", data.index(b"BK") + 1))
    data[middle + 60] ^= 1
    opened = Opened(Reader(bytes(data), "skip"), model, "eager")
    found = torch.cat([part for _, part in opened.blocks()])
    assert torch.equal(found, torch.cat([x[:4], x[8:]]))
    assert opened.labels is not None and torch.equal(opened.labels, torch.cat([labels[:4], labels[8:]]))
