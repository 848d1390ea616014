"""Configuration of the models of an image in two stages. Free of torch."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

from ancestral.networks.configs import PixelFields, Presets
from ancestral.spec import Stage


@dataclass(frozen=True, kw_only=True)
class TwoStageConfig(PixelFields):
    """PixelCNN with auxiliary variables (Kolesnikov & Lampert 2017): a small image that x determines first, then x given it.

    It takes none of what training charges for latents: the auxiliary image is no choice of the model's. ``paper`` has the form
    of the best figure published, in layers of the Gated PixelCNN instead of those of PixelCNN++.
    """

    name: ClassVar[str] = "two-stage"
    presets: ClassVar[Presets] = {
        "tiny": {
            "halvings": 1,
            "layers": 2,
            "channels": 6,
            "first_kernel": 3,
            "head": 6,
            "components": 2,
            "stream": 4,
            "auxiliary_layers": 2,
            "auxiliary_channels": 6,
        },
        "small": {"layers": 5, "channels": 32, "head": 64, "stream": 16, "auxiliary_channels": 24},
        "paper": {
            "form": "grey",
            "layers": 15,
            "channels": 160,
            "components": 10,
            "stream": 160,
            "auxiliary_layers": 15,
            "auxiliary_channels": 160,
        },
    }

    form: str = "pyramid"  # pyramid (the image made smaller, each size given the one below), or grey (the image in few greys)
    halvings: int = 2  # of the pyramid: how many smaller sizes there are, each half of the one above
    colours: int = 16  # levels of the grey image
    stream: int = 32  # features of the unmasked convolutions over the auxiliary image, one a layer
    auxiliary_layers: int = 4  # gated layers of each auxiliary image's own PixelCNN
    auxiliary_channels: int = 32  # features of each of its two stacks, of its head, and of its own stream
    auxiliary_share: float = 0.3  # of the steps that train those; the others train x given them

    def auxiliary_sizes(self) -> dict[str, Any]:
        """The sizes of the Gated PixelCNNs over auxiliary images, by name."""
        wide = self.auxiliary_channels
        windows = {"first_kernel": self.first_kernel, "kernel": self.kernel}
        return {"layers": self.auxiliary_layers, "channels": wide, "head": wide, **windows}

    @property
    def stages(self) -> tuple[Stage, ...]:
        """How it trains: both parts by their own likelihood, one after the other, as neither needs the other."""
        auxiliary = Stage("auxiliary", "rate", parts=("topdown",), share=self.auxiliary_share)
        image = Stage("image", "distortion", parts=("likelihood",), share=1 - self.auxiliary_share)
        return tuple(stage for stage in (auxiliary, image) if stage.share > 0)
