"""Two-part codes: z in whole numbers under every prior, files of them, and what z alone keeps."""

from __future__ import annotations

import math
import subprocess
import sys
from dataclasses import replace
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import scipy.stats
import torch
from tiny_latents import coins, fixed
from torch import Tensor

import ancestral
from ancestral.coding.codec import Opened, compress, decompress
from ancestral.coding.errors import CodecError, DecodeMismatch
from ancestral.coding.lossy import latent_bytes, lossy, previews
from ancestral.coding.reader import Reader
from ancestral.coding.schemes import FEW
from ancestral.coding.two_part import decode, encode, parts, popped, pushed
from ancestral.evaluation.fidelity import psnr, ssim
from ancestral.latent.latent import Latent
from ancestral.sampling.sample import decoded_means, sample
from ancestral.sampling.strategies import Rows
from ancestral.walking.exact.generator import COARSEST, ExactGenerator
from ancestral.walking.exact.operations import LoweringError
from ancestral.walking.twin import BITS_BACK, TWO_PART, Twin, fitted, restored, schemes, twin

SPEC = ancestral.DataSpec("image", (1, 6, 6), levels=4, classes=3)
POSTERIORS, PRIORS = ("normal", "logistic", "iaf"), ("normal", "logistic", "mixture", "flow", "delta")

MODELS: list[tuple[str, dict[str, Any]]] = [
    ("vae", {}),
    ("vae", {"posterior": "iaf", "prior": "flow"}),
    ("iaf-vae", {"blocks": 2}),
    ("pixelvae", {}),
    ("pixelvae", {"form": "upsample", "spatial": True}),
    ("vlae", {}),
    ("agave", {}),
    ("agave", {"encoder": "resnet", "blocks": 2, "posterior": "iaf"}),
]


def model_of(name: str = "vae", **options: Any) -> Latent:
    """A tiny model whose decoder takes z to heart, and whose posterior is narrow."""
    torch.manual_seed(0)
    model = ancestral.build(name, SPEC, preset="tiny", **options).double()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(torch.randn(parameter.shape), alpha=0.1)
    assert isinstance(model, Latent)
    return model


def both(model: Latent, n: int = 12, labels: Tensor | None = None) -> tuple[Twin, ExactGenerator, Tensor, Tensor | None]:
    """The two-part twin, with samples, and labels as it takes them."""
    x = sample(model, n, seed=1, labels=labels, engine="eager")
    vector = None if labels is None else torch.nn.functional.one_hot(labels, 3).double()
    made = twin(model, x, "eager", vector=vector, scheme=TWO_PART)
    assert isinstance(made.latents, ExactGenerator)
    return made, made.latents, x, vector


@pytest.mark.parametrize(("posterior", "prior"), list(product(POSTERIORS, PRIORS)))
def test_every_posterior_and_prior_comes_back(posterior: str, prior: str) -> None:
    spatial = prior in ("flow", "delta") and posterior != "iaf"
    model = model_of(posterior=posterior, prior=prior, spatial=spatial)
    made, latents, x, _ = both(model)
    payload = encode(made, latents, x)
    assert torch.equal(decode(made, latents, payload, len(x)), x)
    assert 8 * len(payload) <= made.cost(x).sum().item() / math.log(2) + 8 * 16


@pytest.mark.parametrize("prior", PRIORS)
def test_labels_reach_z_and_x(prior: str) -> None:
    labels = torch.arange(12) % 3
    made, latents, x, vector = both(model_of(prior=prior, conditional=True), labels=labels)
    payload = encode(made, latents, x, vector)
    assert torch.equal(decode(made, latents, payload, len(x), vector), x)


@pytest.mark.parametrize(("prior", "spatial"), list(product(PRIORS, (False, True))))
def test_bins_lead_to_the_z_and_the_features_of_the_model(prior: str, spatial: bool) -> None:
    model = model_of(prior=prior, spatial=spatial)
    _, latents, x, _ = both(model)
    latents = latents.finer(12)  # as fine as it goes
    z = latents.latents(latents.codes(x))["z"]
    assert (z - model.encode(x)["z"]).abs().max() < 0.02
    found, expected = latents.features(latents.codes(x)).grid, model.features({"z": z}).grid
    assert found is not None and expected is not None
    assert (found * 2.0**-latents.fraction - expected).abs().max() < 2e-3 * expected.abs().max()


def test_noise_of_a_flow_is_what_the_bins_say() -> None:
    model = model_of(prior="flow", spatial=True)
    _, latents, _, _ = both(model)
    codes = latents.drawn(torch.rand(5, latents.units))
    [stage] = latents.stages
    bits = torch.tensor(stage.bits).view(-1, *[1] * (len(stage.stage.shape) - 1)).expand(stage.stage.shape).flatten()
    noise, _ = model.topdown.prior.steps(latents.latents(codes)["z"])  # type: ignore[union-attr, operator]
    assert (noise.flatten(1) - (codes / 2.0**bits - 8)).abs().max() < 0.02


def test_bins_cost_their_mass() -> None:
    _, latents, x, _ = both(model_of(latent=3))
    latents = latents.finer(3)
    codes = latents.codes(x)
    width = torch.tensor([2.0**-bits for bits in latents.stages[0].bits])
    e = (codes * width - 8).numpy()
    mass = scipy.stats.norm.cdf(e + width.numpy() / 2) - scipy.stats.norm.cdf(e - width.numpy() / 2)
    assert np.allclose(latents.rate(codes).numpy(), -np.log(mass).sum(1), atol=1e-3)


def test_a_unit_that_says_nothing_costs_nothing() -> None:
    model = model_of(latent=4)
    head: Any = model.topdown.encoder.head[1]  # type: ignore[union-attr, index]
    with torch.no_grad():
        head.weight.zero_()
        head.bias.zero_()
    _, latents, x, _ = both(model)
    assert latents.stages[0].bits == (COARSEST,) * 4
    assert (latents.rate(latents.codes(x)) < 0.01).all()


def test_bins_come_back_whatever_they_are() -> None:
    _, latents, _, _ = both(model_of(prior="mixture"))
    codes = torch.cat([latents.drawn(torch.rand(300, latents.units)), torch.zeros(1, latents.units, dtype=torch.long)])
    assert torch.equal(popped(latents, pushed(latents, codes), len(codes)), codes)


def test_same_numbers_in_any_batch_and_from_the_calibration() -> None:
    model = model_of("agave", prior="flow")
    made, latents, _, _ = both(model)
    codes = latents.drawn(torch.rand(7, latents.units))
    again = restored(model, made.calibration, "eager")
    assert isinstance(again.latents, ExactGenerator) and again.identity == made.identity
    whole = latents.features(codes).grid
    assert whole is not None
    for row in range(7):
        alone = again.latents.features(codes[row : row + 1]).grid
        assert alone is not None and torch.equal(alone[0], whole[row])


def test_schemes_say_what_there_is() -> None:
    assert schemes(model_of()) == (BITS_BACK, TWO_PART)
    assert schemes(model_of(prior="flow")) == (TWO_PART,)
    with pytest.raises(ValueError, match="no scheme 'bits-back'; it takes auto, two-part, latents"):
        compress(model_of(prior="flow"), torch.zeros(1, 1, 6, 6, dtype=torch.long), scheme=BITS_BACK)


# -- files ---------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("n", [0, 9])
@pytest.mark.parametrize(("name", "options"), MODELS)
def test_files(name: str, options: dict[str, Any], n: int) -> None:
    model = model_of(name, **options)
    x = sample(model, 9, seed=2, engine="eager")[:n]
    data = compress(model, x, scheme=TWO_PART, engine="eager")
    assert Reader(data).header["scheme"] == TWO_PART
    assert torch.equal(decompress(model, data, engine="eager"), x)


@pytest.mark.parametrize("name", ["vae", "agave"])
def test_of_two_schemes_few_items_get_the_shorter(name: str) -> None:
    model = model_of(name)
    x = sample(model, 9, seed=2, engine="eager")
    small = min(len(compress(model, x, scheme=scheme, engine="eager")) for scheme in schemes(model))
    assert len(x) <= FEW and len(compress(model, x, engine="eager")) == small


def test_latents_alone_are_few_bytes_and_the_rest_is_drawn() -> None:
    model = model_of("agave", latent=3)
    x = sample(model, 9, seed=2, engine="eager")
    whole = compress(model, x, scheme=TWO_PART, engine="eager")
    alone = compress(model, x, scheme="latents", engine="eager")
    size = latent_bytes(Reader(whole))
    assert size is not None and size < len(parts(next(iter(Reader(whole))).payload)[1])
    assert latent_bytes(Reader(alone)) in (size, 2 * 9 * 3) and len(alone) < len(whole)
    drawn = [decompress(model, alone, seed=seed, engine="eager") for seed in (0, 0, 1)]
    assert torch.equal(drawn[0], drawn[1]) and not torch.equal(drawn[0], drawn[2])


def test_labels_stay_in_files_of_z_alone() -> None:
    model, labels = model_of(conditional=True), torch.arange(9) % 3
    x = sample(model, 9, labels=labels, engine="eager")
    opened = Opened(Reader(compress(model, x, labels=labels, scheme="latents", engine="eager")), model, "eager")
    assert sum(len(items) for _, items in opened.blocks()) == 9
    assert opened.labels is not None and torch.equal(opened.labels, labels)


@pytest.mark.parametrize("scheme", [TWO_PART, "latents"])
def test_preview_is_the_mean_that_z_tells(scheme: str) -> None:
    model = model_of(latent=3)
    x = sample(model, 9, seed=2, engine="eager")
    opened = Opened(Reader(compress(model, x, scheme=scheme, engine="eager")), model, "eager")
    latents = opened.twin.latents
    assert isinstance(latents, ExactGenerator)
    means = decoded_means(Rows(model, 9, None, latents.latents(latents.codes(x))))
    assert means is not None
    assert torch.equal(torch.cat(list(previews(opened))), (means * 85).round().long())


def test_preview_needs_z_first() -> None:
    model = model_of()
    data = compress(model, sample(model, 3, engine="eager"), scheme=BITS_BACK, engine="eager")
    with pytest.raises(CodecError, match="z stands by itself in two-part codes alone, and this is bits-back"):
        list(previews(Opened(Reader(data), model, "eager")))
    assert latent_bytes(Reader(data)) is None


def test_damage_is_told() -> None:
    model = model_of(prior="flow")
    made, latents, x, _ = both(model)
    payload = encode(made, latents, x)
    for broken in (payload[:3], payload[:9], payload[:-2], bytes([255]) + payload[1:]):
        with pytest.raises(CodecError):
            items = decode(made, latents, broken, len(x))
            assert torch.equal(items, x)
    data = bytearray(compress(model, x, engine="eager"))
    data[-60] ^= 1
    with pytest.raises(CodecError):
        decompress(model, bytes(data), engine="eager")
    assert len(decompress(model, bytes(data), errors="skip", engine="eager")) == 0
    opened = Opened(Reader(compress(model, x, engine="eager")), model, "eager")
    block = next(iter(opened.reader))
    with pytest.raises(DecodeMismatch):
        opened.decoded(type(block)(block.index, block.kind, block.items, block.payload, b"12345678"))


def test_another_process_reads_it(tmp_path: Path) -> None:
    model = model_of(posterior="iaf", prior="flow")
    x = sample(model, 5, seed=2, engine="eager")
    ancestral.save(model, tmp_path / "run")
    (tmp_path / "x.anc").write_bytes(compress(ancestral.load(tmp_path / "run"), x, engine="eager"))
    code = (
        "import sys, torch, ancestral; torch.set_num_threads(2)\n"
        "x = ancestral.decompress(ancestral.load(sys.argv[1]), open(sys.argv[2], 'rb').read(), engine='eager')\n"
        "print(x.flatten().tolist())"
    )
    ran = subprocess.run([sys.executable, "-c", code, tmp_path / "run", tmp_path / "x.anc"], capture_output=True, text=True)
    assert ran.stdout.strip() == str(x.flatten().tolist()), ran.stderr


def test_bins_of_single_groups_are_coarser_where_that_is_cheaper() -> None:
    made, latents, x, _ = both(model_of("iaf-vae", blocks=2))
    fine = latents.finer(3)

    def cost(tried: ExactGenerator) -> float:
        return replace(made, latents=tried).cost(x).sum().item()

    found = fitted(made, fine, x, None)
    assert cost(found) < 0.98 * min(cost(fine.finer(bits)) for bits in (-1, 0, 1))
    assert [stage.bits for stage in found.stages] == [stage.bits for stage in fine.finer(-2).stages]  # each by one once more
    first, second = fine.finer(-1, 1).stages
    assert first.bits == fine.stages[0].bits and second.bits == tuple(own - 1 for own in fine.stages[1].bits)


# -- what z keeps --------------------------------------------------------------------------------------------------------


def test_lossy_counts_what_a_file_takes() -> None:
    model = model_of("agave", latent=3)
    x = sample(model, 9, seed=2, engine="eager")
    found = lossy(model, x)
    size = latent_bytes(Reader(compress(model, x, scheme=TWO_PART, engine="eager")))
    assert size is not None and abs(found.bits.sum().item() / 8 - size) < 5
    assert found.seen is not None and found.drawn.shape == found.seen.shape == x.shape
    assert torch.equal(found.drawn, sample(model, 9, z=found.z))
    assert found.figures["psnr_drawn"] == psnr(x * 85, found.drawn * 85)


def test_psnr() -> None:
    assert psnr(torch.zeros(1, 1, 2, 2), torch.tensor([[[[255, 0], [0, 0]]]])) == pytest.approx(10 * math.log10(4))
    assert psnr(torch.ones(1, 1, 2, 2), torch.ones(1, 1, 2, 2)) == math.inf


def test_ssim_by_its_definition() -> None:
    a = (torch.rand(2, 3, 14, 12) * 255).round()
    b = (a + 40 * torch.randn(a.shape)).clamp(0, 255).round()
    bell = np.exp(-(np.arange(-5, 6) ** 2) / (2 * 1.5**2))
    weight, found = np.outer(bell, bell) / bell.sum() ** 2, list[float]()
    for one, other in zip(a[1].numpy(), b[1].numpy(), strict=True):
        for top, left in product(range(4), range(2)):
            p, q = (each[top : top + 11, left : left + 11] for each in (one, other))
            mp, mq = (weight * p).sum(), (weight * q).sum()
            vp, vq, c = (weight * (p - mp) ** 2).sum(), (weight * (q - mq) ** 2).sum(), (weight * (p - mp) * (q - mq)).sum()
            c1, c2 = 2.55**2, 7.65**2
            found.append((2 * mp * mq + c1) * (2 * c + c2) / ((mp**2 + mq**2 + c1) * (vp + vq + c2)))
    assert ssim(a, b)[1].item() == pytest.approx(np.mean(found), abs=1e-9)
    assert ssim(a, a).tolist() == pytest.approx([1, 1])


def test_a_model_that_was_not_taken_apart_is_refused() -> None:
    with pytest.raises(LoweringError, match="Flat has no generator"):
        twin(coins(fixed(0.0, 1.0)), torch.zeros(1, 3, dtype=torch.long))
