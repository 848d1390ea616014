"""Configurations of the autoregressive models: what can be chosen, one line each. Free of torch."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

from ancestral.spec import Stage

Presets = dict[str, dict[str, Any]]


@dataclass(frozen=True, kw_only=True)
class PixelFields:
    """Sizes of a Gated PixelCNN, alone or as the decoder of a latent-variable model."""

    layers: int = 7  # gated layers
    channels: int = 64  # features of each of the two stacks
    first_kernel: int = 7  # window of the first layer, odd
    kernel: int = 3  # window of the other layers, odd
    head: int = 128  # features of the 1x1 layer before the output
    family: str = "auto"  # bernoulli, categorical, logistic (a mixture), or auto: see `image_family`
    components: int = 5  # components of the logistic mixture
    conditional: bool = False  # condition on the labels of the data

    def decoder_sizes(self) -> dict[str, int]:
        """The sizes that the network takes, by name."""
        return {name: getattr(self, name) for name in ("layers", "channels", "first_kernel", "kernel", "head")}


@dataclass(frozen=True, kw_only=True)
class GatedPixelCNNConfig(PixelFields):
    """Gated PixelCNN (van den Oord et al. 2016b)."""

    name: ClassVar[str] = "gated-pixelcnn"
    presets: ClassVar[Presets] = {
        "tiny": {"layers": 2, "channels": 6, "first_kernel": 3, "head": 6, "components": 2},
        "small": {"layers": 5, "channels": 32, "head": 64},
        "paper": {"layers": 20, "channels": 384, "first_kernel": 5, "kernel": 5, "head": 1024, "family": "categorical"},
    }

    @property
    def stages(self) -> tuple[Stage, ...]:
        """How it trains: the likelihood, all of the way."""
        return (Stage("likelihood", "nll"),)
