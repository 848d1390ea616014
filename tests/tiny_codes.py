"""Models whose latents are codes, so small that everything can be gone through."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

import ancestral
from ancestral.latent.latent import Latent
from ancestral.latent.vq_vae import CodedTopDown

SMALL = ancestral.DataSpec("image", (1, 2, 4), levels=2, classes=3)
SPEC = ancestral.DataSpec("image", (1, 6, 6), levels=4, classes=3)


def model_of(spec: ancestral.DataSpec = SPEC, spread: float = 0.2, **options: Any) -> Latent:
    """A tiny model of some decision, in evaluation mode."""
    torch.manual_seed(0)
    model = ancestral.build("vq-vae", spec, preset="tiny", **options).double().eval()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(torch.randn(parameter.shape), alpha=spread)
    assert isinstance(model, Latent)
    return model


def topdown_of(model: Latent) -> CodedTopDown:
    assert isinstance(model.topdown, CodedTopDown)
    return model.topdown


def symbols(n: int = 6, spec: ancestral.DataSpec = SPEC, seed: int = 0) -> Tensor:
    shape = tuple(size or 0 for size in spec.shape)
    return torch.randint(spec.levels or 2, (n, *shape), generator=torch.Generator().manual_seed(seed))
