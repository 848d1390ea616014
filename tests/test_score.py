"""Scores of single examples: bits of symbols, sizes in codecs, how well they tell data apart, and the page that shows them."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from importlib import import_module
from io import BytesIO
from math import log

import numpy as np
import pytest
import torch
from PIL import Image
from sklearn.metrics import roc_auc_score
from tiny_sequences import Letters, markov
from torch import Tensor

import ancestral
from ancestral.data.images import png
from ancestral.data.loading import load_data
from ancestral.data.splits import Units
from ancestral.evaluation import complexity, score, separation, surprisal
from ancestral.evaluation.complexity import samples, whole_numbers
from ancestral.evaluation.outside import QUANTILE, Scored, flat, noise
from ancestral.evaluation.paired import check_sizes
from ancestral.report.surprise import LONGEST, Scale, Shower, extremes
from ancestral.spec import DataSpec

TEXT = DataSpec("text", (None,), levels=5, end=4)
IMAGE = DataSpec("image", (1, 4, 4), levels=2)


def image_model(name: str = "gated-pixelcnn") -> ancestral.Autoregressive | ancestral.Latent:
    return ancestral.build(name, IMAGE, preset="tiny")


# -- bits of symbols -------------------------------------------------------------------------------------------------------


def test_bits_of_symbols_sum_to_those_of_the_example() -> None:
    x = torch.randint(0, 2, (5, 1, 4, 4))
    found = score(image_model(), x, per_symbol=True, batch_size=2)
    assert found.symbol_bits is not None and found.complexity is None
    assert torch.allclose(found.symbol_bits.flatten(1).sum(1), found.bits)
    assert torch.allclose(found.bits, found.nats / log(2)) and score(image_model(), x).symbol_bits is None
    told = json.loads(json.dumps(found.to_dict()))
    assert told["bits"] == found.bits.tolist() and told["status"] == "exact" and told["corrected"] is None


def test_bits_of_symbols_with_latents_sum_to_the_distortion() -> None:
    model, x = image_model("agave"), torch.randint(0, 2, (5, 1, 4, 4))
    for weights in model.parameters():  # as it is made, its decoder does not see z yet
        weights.data += 0.1 * torch.randn_like(weights)
    found = score(model, x, per_symbol=True, seed=3)
    assert found.symbol_bits is not None
    assert torch.allclose(found.symbol_bits.flatten(1).sum(1) * log(2), model.elbo(x, seed=3).distortion)
    rows = [4, 1]
    again = surprisal(model, x[rows], seed=3, rows=rows)
    assert torch.allclose(again / log(2), found.symbol_bits[rows]) and not torch.allclose(
        again, surprisal(model, x[rows], seed=3)
    )


def test_of_models_with_codes_importance_samples_are_ignored() -> None:
    model, x, settled = image_model("vq-vae"), torch.randint(0, 2, (5, 1, 4, 4)), list[tuple[int, int]]()
    many = score(model, x, importance_samples=5, progress=lambda done, of: settled.append((done, of)))
    assert many.to_dict() == score(model, x).to_dict() and many.importance_samples == 1 and settled[-1] == (5, 5)


def test_importance_samples_are_counted() -> None:
    x = torch.zeros(2, 1, 4, 4, dtype=torch.long)
    for wrong, why in ((0, "it must be at least 1"), (1.5, "it must be a whole number")):
        with pytest.raises(ValueError, match=f"importance_samples is {wrong}; {why}"):
            score(image_model("vae"), x, importance_samples=wrong)  # type: ignore[arg-type]
    with pytest.raises(ValueError, match=r"importance_samples is 1\.5; it must be a whole number"):
        check_sizes(1.5, 1)  # type: ignore[arg-type]


def by_hand(x: list[int]) -> list[float]:
    """-log p of the symbols of a text and of its end, from the table of the Markov model."""
    table = markov(TEXT).network.table.log_softmax(-1).tolist()
    before = [5, *x]
    return [-table[a][b] for a, b in zip(before, [*x, 4], strict=True)]


def test_a_text_pays_for_its_end_once_and_is_counted_without_it() -> None:
    texts = [[0, 1, 2], [], [3, 3, 3, 3, 0, 1, 2]]
    x = torch.tensor([text + [4] * (9 - len(text)) for text in texts])
    found = score(markov(TEXT), x, per_symbol=True, batch_size=2)
    costs = [sum(by_hand(text)) for text in texts]
    assert found.nats.tolist() == pytest.approx(costs)
    assert found.bits_per_dim.tolist() == pytest.approx([c / log(2) / n for c, n in zip(costs, (3, 1, 7), strict=True)])
    assert found.symbol_bits is not None and found.symbol_bits.shape == x.shape
    for row, text in enumerate(texts):
        assert (found.symbol_bits[row] * log(2)).tolist() == pytest.approx(by_hand(text) + [0.0] * (8 - len(text)))


def test_bits_of_real_values_are_those_in_their_own_units() -> None:
    data = ancestral.data("measurements", limit=6)
    model, x = ancestral.build("rnade", data.spec, preset="tiny").double(), data.train.x.double()
    found = score(model, x, units=data.units, per_symbol=True, corrected=True)
    assert found.symbol_bits is not None and torch.allclose(found.symbol_bits.sum(1), found.bits)
    assert found.density and (found.complexity, found.codec, found.corrected) == (None, None, None)


# -- codecs ----------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("spec", [IMAGE, DataSpec("image", (3, 5, 7), levels=256), DataSpec("image", (1, 8, 8), levels=17)])
def test_an_image_weighs_what_its_png_does(spec: DataSpec, monkeypatch: pytest.MonkeyPatch) -> None:
    x, files = torch.randint(0, spec.levels or 0, (3, *spec.shape)), list[bytes]()
    monkeypatch.setattr(import_module("ancestral.evaluation.complexity"), "png", lambda *given: keep(png(*given)))

    def keep(file: bytes) -> bytes:
        files.append(file)
        return file

    found = complexity(x, spec)
    assert found is not None and found[0] == "PNG" and found[1].tolist() == [8 * len(file) for file in files]
    for image, file in zip(x, files, strict=True):  # the file holds the symbols, so that its length is that of a code of them
        read = np.atleast_3d(np.asarray(Image.open(BytesIO(file)))).astype(int)
        assert np.array_equal(np.moveaxis(read, -1, 0), image.numpy())


@pytest.mark.parametrize(("levels", "parts"), [(256, 1), (257, 1), (16, 1), (256, 2), (65536, 1)])
def test_sound_weighs_what_its_flac_does(levels: int, parts: int) -> None:
    soundfile = pytest.importorskip("soundfile")
    end = 256 if levels == 257 else None
    spec = DataSpec("audio", (64,), levels=levels, parts=parts, end=end)
    x = torch.randint(0, levels - (end is not None), (2, 64))
    if end is not None:
        x[1, 20:] = end
    found = complexity(x, spec)
    for row, bits in zip(x, found[1].tolist() if found else [], strict=True):
        wave, memory = samples((row if end is None else row[row != end]).numpy(), spec), BytesIO()
        narrow = levels <= 257 and parts == 1
        written = (wave * 256 if narrow else wave).astype(np.int16)
        kind = "PCM_S8" if narrow else "PCM_16"
        soundfile.write(memory, written, 16000, format="FLAC", subtype=kind, compression_level=1.0)
        assert bits == 8 * len(memory.getvalue())
        assert np.array_equal(soundfile.read(BytesIO(memory.getvalue()), dtype="int16")[0], written)
    assert found is not None and found[0] == "FLAC"


def test_samples_of_two_bytes_are_read_high_byte_first() -> None:
    spec = DataSpec("audio", (6,), levels=256, parts=2)
    assert samples(np.array([128, 0, 0, 0, 255, 255, 129]), spec).tolist() == [0, -32768, 32767, 256]


def test_a_text_weighs_its_bytes_in_zstd() -> None:
    from zstandard import ZstdDecompressor

    spec = DataSpec("text", (None,), levels=257, end=256)
    x = torch.full((2, 300), 256)
    x[0, :4], x[1] = torch.tensor([82, 111, 115, 101]), 97
    plain, read = complexity(x, spec), complexity(x, spec, notation=Letters())
    assert plain is not None and read is not None and read[0] == "zstd"
    assert torch.equal(plain[1], read[1]) and read[1][1] < 300  # one letter over and over

    class Words:  # a notation whose text is longer than its symbols
        def decode(self, symbols: Tensor) -> str:
            return "".join(f"{int(symbol)}, " for symbol in symbols)

    longer = complexity(x, spec, notation=Words())
    assert longer is not None and longer[1][0] > read[1][0]
    assert ZstdDecompressor  # the codec is there wherever the package is


def test_whole_numbers_come_back_from_their_noise() -> None:
    units, v = Units(torch.tensor([3.0, 90.0]), torch.tensor([2.0, 40.0]), True), torch.randint(0, 256, (50, 2))
    x = units.convert(v + torch.rand(50, 2).clamp(1e-6, 1 - 1e-6)).float()
    spec = DataSpec("vector", (2,))
    whole = whole_numbers(x, spec, units)
    assert whole is not None and torch.equal(whole, v)
    found = complexity(x, spec, units=units)
    assert found is not None and found[0] == "zstd"
    assert complexity(x, spec) is None


def test_the_corrected_score_takes_the_codec_off() -> None:
    x = torch.randint(0, 2, (4, 1, 4, 4))
    found = score(image_model(), x, corrected=True)
    assert found.complexity is not None and found.corrected is not None
    assert torch.allclose(found.corrected, found.bits - found.complexity)


# -- inside and outside ----------------------------------------------------------------------------------------------------


def pairwise(inside: Tensor, outside: Tensor) -> tuple[float, float]:
    """The area and DeLong's variance, pair by pair."""
    psi = [[1.0 if o > i else 0.5 if o == i else 0.0 for i in inside.tolist()] for o in outside.tolist()]
    table = np.array(psi)
    v10, v01 = table.mean(1), table.mean(0)
    return float(table.mean()), float(v10.var(ddof=1) / len(v10) + v01.var(ddof=1) / len(v01))


@pytest.mark.parametrize("seed", range(8))
def test_the_area_is_the_share_of_pairs_in_order(seed: int) -> None:
    torch.manual_seed(seed)
    inside, outside = torch.randint(0, 12, (9 + seed,)).double(), torch.randint(3, 15, (14,)).double()  # with ties
    found, (area, variance) = separation(inside, outside), pairwise(inside, outside)
    inside_out = np.arange(23 + seed) >= 9 + seed
    assert found.auroc == pytest.approx(roc_auc_score(inside_out, torch.cat([inside, outside]).numpy()))
    assert found.auroc == pytest.approx(area) and (found.inside, found.outside) == (9 + seed, 14)
    assert found.low == pytest.approx(max(0, area - QUANTILE * variance**0.5))
    assert found.high == pytest.approx(min(1, area + QUANTILE * variance**0.5))
    other = separation(outside, inside)
    assert other.auroc == pytest.approx(1 - area) and other.low == pytest.approx(1 - (found.high or 0))
    assert found.reversed is (area < 0.5)


def test_an_area_and_its_interval_by_hand() -> None:
    found = separation(torch.tensor([1.0, 2.0, 3.0]), torch.tensor([2.0, 4.0]))
    error = (0.125 / 2 + 0.0625 / 3) ** 0.5  # V = 1/2, 1; W = 1, 3/4, 1/2
    assert found.auroc == 0.75 and found.low == pytest.approx(0.75 - 1.959964 * error, abs=1e-6) and found.high == 1.0


def test_the_interval_covers_what_it_says() -> None:
    truth = 0.5 * (1 + torch.erf(torch.tensor(1.0 / 2)).item())  # P(N(1, 1) > N(0, 1))
    generator, hits = torch.Generator().manual_seed(0), 0
    for _ in range(400):
        a, b = torch.randn(60, generator=generator), 1 + torch.randn(40, generator=generator)
        found = separation(a, b)
        hits += found.low is not None and found.high is not None and found.low <= truth <= found.high
    assert 0.91 < hits / 400 < 0.98


def test_what_has_no_interval_says_so() -> None:
    always = separation(torch.tensor([1.0, 2.0]), torch.tensor([3.0, 4.0]))
    assert (always.auroc, always.low, always.high, str(always)) == (1.0, None, None, "1.000")
    assert separation(torch.tensor([1.0]), torch.tensor([1.0, 0.0])).low is None
    with pytest.raises(ValueError, match="0 outside"):
        separation(torch.tensor([1.0]), torch.tensor([]))
    with pytest.raises(ValueError, match="no order"):
        separation(torch.tensor([1.0]), torch.tensor([float("nan")]))


@pytest.mark.parametrize("make", [noise, flat])
@pytest.mark.parametrize(
    "spec",
    [DataSpec("image", (3, 4, 4), levels=256), TEXT, DataSpec("vector", (3,)), DataSpec("vector", (2,), columns=(3, None))],
)
def test_what_is_made_fits_the_model(make: Callable[..., Tensor], spec: DataSpec) -> None:
    like = torch.zeros(40, *[size or 6 for size in spec.shape], dtype=torch.double if spec.levels is None else torch.long)
    if spec.end is not None:
        like[:20, 2:] = spec.end
    x = make(like, spec, 3)
    ancestral.symbols.check_symbols(x, spec)
    assert x.shape == like.shape and torch.equal(x, make(like, spec, 3)) and not torch.equal(x, make(like, spec, 4))
    if spec.end is not None:
        assert torch.equal(x == spec.end, like == spec.end)


def test_noise_takes_all_values_and_flat_images_one() -> None:
    spec = DataSpec("image", (3, 4, 4), levels=8)
    x = noise(torch.zeros(500, 3, 4, 4, dtype=torch.long), spec)
    assert torch.bincount(x.flatten(), minlength=8).double().sub(3000).abs().max() < 6 * 3000**0.5
    y = flat(torch.zeros(50, 3, 4, 4, dtype=torch.long), spec)
    assert torch.equal(y, y[:, :, :1, :1].expand_as(y)) and not torch.equal(y[:, 0], y[:, 1])


def test_a_set_is_summed_up_over_all_symbols() -> None:
    x = torch.tensor([[0, 1, 4, 4], [0, 1, 2, 3]])
    found = score(markov(TEXT), x, corrected=True)
    told = Scored("texts", ["a", "b"], x, [], None, found).summary(TEXT)
    assert told["bits_per_dim"] == pytest.approx(float(found.bits.sum()) / 6)
    assert told["corrected"] == pytest.approx(told["bits"] - told["complexity"])


# -- the page --------------------------------------------------------------------------------------------------------------


def test_extremes_are_the_least_the_middle_and_the_most() -> None:
    costs = torch.arange(100.0).flip(0)
    found = dict(extremes(costs, 12))
    assert found["least surprising"] == [99, 98, 97, 96] and found["most surprising"] == [3, 2, 1, 0]
    assert sorted(found["in the middle"]) == [50, 51, 52, 53] or sorted(found["in the middle"]) == [48, 49, 50, 51]
    assert extremes(costs[:3], 5) == [("all, the least surprising first", [2, 1, 0])]
    assert sum(len(rows) for _, rows in extremes(costs, 13)) == 13
    assert sum(len(rows) for _, rows in extremes(costs, 1)) >= 1


def test_a_text_is_coloured_by_what_it_cost() -> None:
    spec = DataSpec("text", (None,), levels=257, end=256)
    letters = list("<é>".encode())
    x = torch.tensor([*letters, 256, 256])
    bits = torch.tensor([0.0, 1.0, 2.0, 10.0, 5.0, 0.0])
    shower = Shower(spec, notation=Letters())
    html = shower.show(x, shower.map(x, bits), Scale(0.0, 10.0, "a symbol"), "text")
    found = re.findall(r'<span class="s(\d+)" title="([\d.]+) bits">(.*?)</span>', html)
    assert found == [("0", "0.00", "&lt;"), ("3", "3.00", "é"), ("10", "10.00", "&gt;"), ("5", "5.00", "⏹")]
    numbers = Shower(spec).show(x, shower.map(x, bits), Scale(0.0, 10.0, "a symbol"), "text")
    assert re.findall(r">(\d+) <", numbers) == [str(letter) for letter in letters]
    long = torch.full((LONGEST + 7,), 97)
    assert "7 more symbols" in shower.show(long, np.zeros(len(long)), Scale(0.0, 1.0, ""), "text")


def test_a_sound_without_samples_takes_the_head_of_a_file() -> None:
    x = torch.full((2, 6), 256)
    x[1, :2] = 128
    codec, (none, some) = complexity(x, DataSpec("audio", (None,), levels=257, end=256)) or ("", (0, 0))
    assert codec == "FLAC" and 8 * 42 <= none < some  # the least that the format takes


def test_parts_of_a_sample_are_added_and_its_end_is_shown() -> None:
    spec = DataSpec("audio", (None,), levels=257, end=256, parts=1)
    assert Shower(spec).map(torch.tensor([1, 2, 256, 256]), torch.tensor([1.0, 2.0, 4.0, 0.0])).tolist() == [1, 2, 4]
    spec = DataSpec("audio", (4,), levels=256, parts=2)
    bits = Shower(spec).map(torch.tensor([1, 2, 3, 4]), torch.tensor([1.0, 2.0, 4.0, 8.0]))
    assert bits.tolist() == [3, 12]
    assert "<svg" in Shower(spec).show(torch.tensor([1, 2, 3, 4]), bits, Scale(0.0, 12.0, "a sample"), "clip")


def test_a_scale_leaves_one_in_a_thousand_out() -> None:
    scale = Scale.of([np.append(np.full(9999, 2.0), 900.0)], "a pixel")
    assert (scale.low, scale.high) == (0.0, pytest.approx(2.0)) and scale.place(np.array([900.0]))[0] == 1
    below = Scale.of([np.array([-3.0, 1.0])], "a value")
    assert below.low < -2.9 and below.place(np.array([below.low]))[0] == 0


@pytest.mark.parametrize("standardize", [False, True])
def test_noise_of_dequantised_data_is_weighed_as_they_are(standardize: bool) -> None:
    data = load_data("photos", dequantize=True, standardize=standardize, limit=8)
    for made in (noise, flat):
        x = made(data.test.x, data.spec, 0, data.units)
        whole = whole_numbers(x, data.spec, data.units)
        assert whole is not None and int(whole.min()) >= 0 and int(whole.max()) < 256 and x.dtype == data.test.x.dtype
        found = complexity(x, data.spec, units=data.units)
        assert found is not None and found[0] == "PNG"
