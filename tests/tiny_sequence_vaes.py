"""Latent-variable models of text and sound, so small that everything can be gone through, and symbols for them."""

from __future__ import annotations

from typing import Any

import torch
from tiny_latents import awake, waken
from torch import Tensor

from ancestral.latent.latent import Latent
from ancestral.spec import DataSpec

LINES = DataSpec("text", (None,), levels=5, end=4)
SHORT = DataSpec("text", (4,), levels=3, end=2)
CLIP = DataSpec("audio", (16,), levels=8)
CLIPS = DataSpec("audio", (None,), levels=9, end=8)
PAIRS = DataSpec("audio", (16,), levels=8, parts=2)
FORMS: dict[str, tuple[str, DataSpec, dict[str, Any]]] = {
    "prefix": ("transformer-vae", LINES, {"form": "prefix"}),
    "layers": ("transformer-vae", LINES, {"form": "layers"}),
    "cross": ("transformer-vae", LINES, {"form": "cross"}),
    "global": ("wavenet-vae", CLIPS, {}),
    "local": ("wavenet-vae", CLIP, {"form": "local", "halvings": 2}),
    "both": ("wavenet-vae", PAIRS, {"form": "both", "halvings": 2}),
}


def made(form: str, scale: float = 0.5, **overrides: Any) -> Latent:
    name, spec, settings = FORMS[form]
    model: Latent = awake(name, spec, scale, **settings, **overrides)
    waken(model.topdown, 0.5)
    return model


def some(model: Latent, n: int = 4, width: int = 12, seed: int = 0) -> Tensor:
    """(n, T) symbols; of lengths that vary every second one ends early."""
    spec, generator = model.spec, torch.Generator().manual_seed(seed)
    sites = spec.shape[0] or width
    x = torch.randint((spec.levels or 2) - (spec.end is not None), (n, sites), generator=generator)
    if spec.end is not None:
        x[:, -1] = spec.end
        x[::2, 5:] = spec.end
    return x
