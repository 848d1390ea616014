"""Decoders of codes that draw symbol after symbol, and the auxiliary loss that keeps codes in use under them."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from tiny_codes import SPEC, model_of, symbols
from tiny_training import QUIET

import ancestral
from ancestral.coding.lossy import lossy
from ancestral.evaluation.remedies import remedies
from ancestral.latent.latent import Latent
from ancestral.networks.factorised import Factorised
from ancestral.objectives import Batch, quantized
from ancestral.sampling import sample
from ancestral.training import fit

CLIP = ancestral.DataSpec("audio", (24,), levels=9, classes=2)
RGB = ancestral.DataSpec("image", (3, 4, 4), levels=4)
AUTOREGRESSIVE = [(SPEC, "gated-pixelcnn"), (CLIP, "wavenet")]


@torch.no_grad()
@pytest.mark.parametrize(("spec", "decoder"), AUTOREGRESSIVE)
def test_the_auxiliary_loss_is_added_and_is_no_part_of_the_bound(spec: ancestral.DataSpec, decoder: str) -> None:
    model, x = model_of(spec, decoder=decoder), symbols(spec=spec)
    terms, elbo = quantized(model, Batch(x), commitment=0.25), model.elbo(x)
    assert elbo.auxiliary is not None and math.isclose(float(terms["auxiliary"]), float(elbo.auxiliary.mean()))
    assert math.isclose(
        float(terms["loss"]), float(terms["distortion"]) + 0.25 * float(terms["commitment"]) + float(terms["auxiliary"])
    )
    assert torch.allclose(elbo.bound, -(elbo.distortion + elbo.rate))
    plain = model_of(spec, decoder=decoder, auxiliary=False)
    assert plain.auxiliary is None and "auxiliary" not in quantized(plain, Batch(x))
    assert model_of(spec).auxiliary is None  # nothing of x is to be had without codes, so none is needed


@torch.no_grad()
@pytest.mark.parametrize(("spec", "decoder"), AUTOREGRESSIVE)
def test_symbols_depend_on_the_ones_before_and_on_their_codes(spec: ancestral.DataSpec, decoder: str) -> None:
    model, x = model_of(spec, decoder=decoder), symbols(spec=spec)
    assert not isinstance(model.likelihood.network, Factorised)
    codes = model.encode(x)["codes"]
    other = x.clone().flatten(1)
    other[:, 0] = (other[:, 0] + 1) % (spec.levels or 2)
    seen, told = model.features({"codes": codes}), model.features({"codes": (codes + 1) % 3})
    numbers = [model.likelihood.network(each.view_as(x), seen).flatten(1) for each in (x, other)]
    assert not torch.allclose(*numbers) and not torch.allclose(numbers[0], model.likelihood.network(x, told).flatten(1))


@torch.no_grad()
@pytest.mark.parametrize("decoder", ["auto", "wavenet"])
def test_a_code_of_sound_says_something_of_its_own_place(decoder: str) -> None:
    spec = ancestral.DataSpec("audio", (64,), levels=9)
    model = model_of(spec, decoder=decoder)
    codes = torch.zeros(1, 1, 1, 32, dtype=torch.long)
    other = codes.clone()
    other[..., 16] = 1  # of samples 32 and 33
    x = torch.zeros(1, 64, dtype=torch.long)
    one, two = (model.likelihood.network(x, model.features({"codes": each})) for each in (codes, other))
    changed = (one != two).any(-1).nonzero()[:, 1]
    assert 32 in changed and 33 in changed
    assert changed.min() >= 32 - 10 and changed.max() <= 33 + 10  # as far as the windows of the decoder reach


@torch.no_grad()
def test_pictures_of_codes_are_the_means_of_the_auxiliary_image() -> None:
    model, x = model_of(decoder="gated-pixelcnn"), symbols(3)
    found = lossy(model, x)
    assert model.auxiliary is not None
    log_pmf = model.auxiliary.likelihood.conditionals(x, model.features(found.z)).log_pmf()
    means = log_pmf.exp() @ torch.arange(4, dtype=torch.float64)
    assert found.seen is not None and torch.equal(found.seen, (means * 85).round().long())
    assert {"psnr_drawn", "psnr_seen"} <= set(found.figures)


def test_sound_is_drawn_alike_by_every_engine_and_comes_back_from_a_file() -> None:
    model, x = model_of(CLIP, decoder="wavenet").float(), symbols(4, CLIP)
    drawn = sample(model, 3, seed=1, engine="native")
    assert torch.equal(drawn, sample(model, 3, seed=1, engine="eager"))
    assert torch.equal(ancestral.decompress(model, ancestral.compress(model, x)), x)


@torch.no_grad()
@pytest.mark.parametrize(("length", "means"), [(1, 1), (5, 4), (7, 4), (12, 8)])
def test_the_auxiliary_sound_of_a_short_one_is_of_shorter_means(length: int, means: int) -> None:
    spec = ancestral.DataSpec("audio", (length,), levels=16)
    model, x = model_of(spec, decoder="wavenet", halvings=3), symbols(spec=spec)
    found = model.elbo(x).auxiliary
    assert model.auxiliary is not None and found is not None and found.isfinite().all()
    y = model.auxiliary.target(x)
    assert y.shape[1] == length // means and y[0, 0] == x[0, :means].sum() // means


@pytest.mark.parametrize(
    ("spec", "options", "what"),
    [
        (SPEC, {"decoder": "wavenet"}, "'wavenet' is not for image: take gated-pixelcnn, or auto"),
        (CLIP, {"decoder": "gated-pixelcnn"}, "'gated-pixelcnn' is not for audio: take wavenet, or auto"),
        (SPEC, {"decoder": "made"}, "choose auto or one of: logistic, normal, gated-pixelcnn"),
        (CLIP, {"decoder": "made"}, "choose auto or one of: logistic, normal, wavenet"),
        (SPEC, {"decoder": "gated-pixelcnn", "decoder_layers": 0}, "decoder_layers is 0; it must be at least 1"),
        (
            RGB,
            {"decoder": "gated-pixelcnn", "decoder_channels": 2},
            "decoder_channels is 2; it must be at least 3, one for every",
        ),
        (CLIP, {"decoder": "wavenet", "decoder_channels": 0}, "decoder_channels is 0; it must be at least 1"),
    ],
)
def test_decoders_of_other_data_are_refused(spec: ancestral.DataSpec, options: dict[str, Any], what: str) -> None:
    with pytest.raises(ValueError, match=what):
        model_of(spec, **options)


def test_training_makes_the_auxiliary_likelihood_and_what_it_sees() -> None:
    x = torch.arange(4).repeat(64)[:, None, None, None].expand(-1, 1, 4, 4).contiguous()  # one level an image
    torch.manual_seed(0)
    model = ancestral.build("vq-vae", ancestral.DataSpec("image", (1, 4, 4), levels=4), preset="tiny", decoder="gated-pixelcnn")
    assert isinstance(model, Latent)
    fit(model, ancestral.data(x.numpy(), levels=4), steps=400, seed=0, **QUIET | {"batch_size": 16, "learning_rate": 5e-3})
    even = 16 * math.log(4)
    found = model.elbo(x[:4]).auxiliary
    assert found is not None and found.mean() < even / 2
    clips = model_of(CLIP, decoder="wavenet").float()
    auxiliary, stage = clips.auxiliary, clips.config.stages[0]
    assert auxiliary is not None and "auxiliary" in stage.parts
    quantized(clips, Batch(symbols(spec=CLIP)))["loss"].backward()  # type: ignore[no-untyped-call]
    slopes = [part.grad for part in auxiliary.parameters()]
    assert slopes and all(slope is not None and slope.abs().max() > 0 for slope in slopes)


def test_a_collapse_under_a_decoder_that_reads_symbols_names_the_auxiliary_loss() -> None:
    unguided, guided = (model_of(decoder="gated-pixelcnn", auxiliary=each) for each in (False, True))
    assert [each.setting for each in remedies(unguided)] == ["auxiliary=True", "quantizer=fsq"]
    assert [each.setting for each in remedies(guided)] == ["quantizer=fsq"]
