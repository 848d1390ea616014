"""The table of models, and the words it finds for mistakes."""

from __future__ import annotations

import json
from dataclasses import replace
from math import inf, nan

import numpy as np
import pytest
import torch

import ancestral
from ancestral.models import MODELS, build, configure
from ancestral.spec import DataSpec, Stage

SPEC = DataSpec("image", (1, 8, 8), levels=17)
CLIP, LINES = DataSpec("audio", (8,), levels=17), DataSpec("text", (None,), levels=17, end=16)
OWN = {"rnade": DataSpec("vector", (5,)), "wavenet": CLIP, "wavenet-vae": CLIP, "transformer-vae": LINES}  # that take no images


@pytest.mark.parametrize("name", MODELS)
@pytest.mark.parametrize("preset", ["tiny", "small"])
def test_every_model_builds_and_carries_its_spec_and_configuration(name: str, preset: str) -> None:
    spec = OWN.get(name, SPEC)
    model = build(name, spec, preset=preset)
    assert model.spec == spec
    assert model.config == configure(name, preset)
    assert all(isinstance(stage, Stage) for stage in model.config.stages)


@pytest.mark.parametrize(
    ("name", "preset", "overrides", "message"),
    [
        ("gated-pixlcnn", "small", {}, "did you mean 'gated-pixelcnn'"),
        ("agave", "smal", {}, "did you mean 'small'"),
        ("agave", "small", {"lamda_": 2.0}, "did you mean 'lambda_'"),
        ("gated-pixelcnn", "small", {"layers": "many"}, "takes a value of type int"),
        ("agave", "small", {"auxiliary": 1}, "takes a value of type bool"),
    ],
)
def test_mistakes_are_named_with_what_was_probably_meant(
    name: str, preset: str, overrides: dict[str, object], message: str
) -> None:
    with pytest.raises(ValueError, match=message):
        build(name, SPEC, preset=preset, **overrides)


@pytest.mark.parametrize(
    ("name", "settings"),
    [
        ("vae", {"latent": 0, "width": 0, "blocks": -2, "halvings": -3, "posterior_steps": -5, "prior_width": 0}),
        ("beta-vae", {"latent": -1, "posterior_width": 0, "posterior_context": -2, "prior_components": 0, "beta": inf}),
        ("agave", {"latent": 0, "resnets": -1, "factor": 0, "stream": -1, "lambda_": -1.0, "kl_cycles": 0}),
        ("iaf-vae", {"latent": 0, "width": 0, "free_bits": inf}),
        ("pixelvae", {"latent": 0, "maps": 0, "soft_free_bits": inf}),
        ("hierarchical-pixelvae", {"latent": 0, "top": 0, "prior_layers": 0, "prior_channels": 0}),
        ("vlae", {"latent": 0, "maps": 0, "kl_warmup": nan}),
        ("wavenet-vae", {"halvings": 0, "maps": -1}),
        ("transformer-vae", {"halvings": 0, "latent": 0}),
    ],
)
def test_settings_that_make_no_model_of_latents_are_refused(name: str, settings: dict[str, float]) -> None:
    for setting, value in settings.items():
        with pytest.raises(ValueError, match=f"^{setting} is {value}; it must be at least"):
            build(name, OWN.get(name, SPEC), preset="tiny", **{setting: value})


def test_build_by_configuration() -> None:
    config = replace(configure("agave", "tiny"), latent=3)
    assert build(config, SPEC, lambda_=4.0).config == replace(config, lambda_=4.0)


def test_build_says_what_it_lacks() -> None:
    with pytest.raises(ValueError, match="DataSpec"):
        build("agave")
    with pytest.raises(ValueError, match="network= and family="):
        build(None, SPEC)


def test_every_public_name_is_there() -> None:
    for name in ancestral.__all__:
        assert getattr(ancestral, name) is not None
    with pytest.raises(AttributeError, match="no attribute 'trian'"):
        _ = ancestral.trian  # type: ignore[attr-defined]


@pytest.mark.parametrize(
    ("kind", "shape", "levels", "message"),
    [
        ("picture", (1, 2, 2), 2, "one of image"),
        ("image", (2, 2), 2, "3 dimensions"),
        ("vector", (0,), 2, "below 1"),
        ("vector", (3,), 2.0, "levels is 2.0; it must be a whole number"),
        ("vector", (3.0,), 2, "shape\\[0\\] is 3.0; it must be a whole number"),
        ("vector", (3,), 1, "at least 2"),
    ],
)
def test_specs_that_make_no_sense_are_refused(kind: str, shape: tuple[int, ...], levels: int, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        DataSpec(kind, shape, levels)


def test_a_spec_survives_json() -> None:
    spec = DataSpec("text", (None,), 256, classes=3, end=255)
    assert DataSpec.from_dict(spec.to_dict()) == spec
    counted = DataSpec("vector", tuple(np.array([3])), torch.tensor(4))  # type: ignore[arg-type]
    assert json.dumps(counted.to_dict()) == json.dumps(DataSpec("vector", (3,), 4).to_dict())
    with pytest.raises(ValueError, match="varying"):
        _ = spec.sites


def test_seeds_fix_the_weights() -> None:
    torch.manual_seed(5)
    first = build("agave", SPEC, preset="tiny").state_dict()
    torch.manual_seed(5)
    second = build("agave", SPEC, preset="tiny").state_dict()
    assert all(torch.equal(first[name], second[name]) for name in first)
