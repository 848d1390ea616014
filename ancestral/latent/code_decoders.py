"""What x is drawn from once its codes are decoded: every symbol by itself, or each given the ones before it as well.

By itself, a symbol knows no more than its codes do, so samples have noise where codes leave something open: of sound all over.
An autoregressive decoder draws what fits what it has drawn (van den Oord et al. 2017, whose decoder of sound is a WaveNet). But
it can do without codes; while it learns what it sees, the encoder is told nothing, and ends with one code for everything. So
there is the auxiliary loss of Lucas & Verbeek 2018, here of codes: a likelihood that sees what they are decoded to, and nothing
else.
"""

from __future__ import annotations

from typing import Any

from torch import Tensor, nn

from ancestral.core import Autoregressive
from ancestral.latent.code_configs import AUTOREGRESSIVE, VqVaeConfig
from ancestral.latent.encoders import ImageDecoder, evened
from ancestral.latent.latent import Auxiliary
from ancestral.latent.vae import decoder_family
from ancestral.latent.wavenet_vae import lower_rate
from ancestral.networks.configs import GatedPixelCNNConfig, WaveNetConfig
from ancestral.networks.factorised import Factorised
from ancestral.networks.gated_pixelcnn import GatedPixelCNN
from ancestral.networks.images import image_model, listening
from ancestral.networks.wavenet import wavenet
from ancestral.spec import DataSpec

FIRST = 5  # window of the first layer of a Gated PixelCNN
COLOURS, FACTOR = 16, 8  # of the auxiliary sound: even levels, and samples that one of its symbols is the mean of


def autoregressive(config: VqVaeConfig, spec: DataSpec) -> bool:
    """Whether x is drawn symbol after symbol.

    Raises:
        ValueError: the decoder is one for other data.
    """
    able = AUTOREGRESSIVE[spec.kind]
    if config.decoder in AUTOREGRESSIVE.values() and config.decoder != able:
        raise ValueError(f"decoder {config.decoder!r} is not for {spec.kind}: take {able}, or auto")
    return config.decoder == able


def alone(config: VqVaeConfig, spec: DataSpec) -> Autoregressive:
    """p(x | codes), every symbol by itself; where the decoder is autoregressive, with whatever family fits the data.

    Raises:
        ValueError: there is no such decoder.
    """
    try:
        family, _ = decoder_family("auto" if autoregressive(config, spec) else config.decoder, spec)
    except ValueError as error:
        raise ValueError(f"{error}, {AUTOREGRESSIVE[spec.kind]}") from None
    return Autoregressive(Factorised(tuple(size or 0 for size in spec.shape), family.size), family, spec)


def likelihood_of_codes(config: VqVaeConfig, spec: DataSpec) -> Autoregressive:
    """p(x | what `decoder_of_codes` makes of the codes).

    Raises:
        ValueError: there is no such decoder, or the data are none for it.
    """
    single, wide = alone(config, spec), config.decoder_channels
    if not autoregressive(config, spec):
        return single
    common: dict[str, Any] = {"layers": config.decoder_layers, "channels": wide, "conditional": config.conditional}
    if spec.kind == "audio":
        sizes = {"cycles": 1, "gates": wide, "skip": 3 * wide, "head": 3 * wide, "local": wide, "hop": 2**config.halvings}
        return listening(wavenet(WaveNetConfig(**common | sizes), spec))
    pixels = GatedPixelCNNConfig(**common, first_kernel=FIRST, head=2 * wide)
    seen = {"grid": single.family.size * (spec.shape[0] or 0), "stream": wide}
    return listening(image_model(GatedPixelCNN, pixels, spec, pixels.decoder_sizes() | seen))


def auxiliary_of_codes(config: VqVaeConfig, spec: DataSpec) -> Auxiliary | None:
    """p(y | what the codes are decoded to): y is x, or a coarser sound; None where the decoder needs no such guidance.

    Raises:
        ValueError: there is no such decoder, or y cannot be had of these data.
    """
    if not (autoregressive(config, spec) and config.auxiliary):
        return None
    if spec.kind == "image":
        return Auxiliary(alone(config, spec), itself)
    span, longest = 2**config.halvings, 2 ** ((spec.shape[0] or 1).bit_length() - 1)  # a place of the grid holds whole means
    return lower_rate(spec, min(COLOURS, spec.levels or 2), min(FACTOR, span, longest), config.decoder_channels, span)


def itself(x: Tensor) -> Tensor:
    """y(x) = x."""
    return x


def decoder_of_codes(
    config: VqVaeConfig, spec: DataSpec, inputs: int, plane: tuple[int, int], whole: tuple[int, int, int], vector: int
) -> nn.Module:
    """What turns (n, inputs, *plane) vectors, with labels or none, into what the likelihoods read.

    But for a WaveNet that are the parameters of every symbol by itself: scales, too, as codes know where x is flat.

    Args:
        plane: height and width of the grid of codes.
        whole: channels, height and width of x, where sound is an image of one row.
        vector: size of a label's vector, 0 for none.
    """
    later, sound = autoregressive(config, spec), spec.kind == "audio"
    if later and sound:  # a WaveNet repeats what it is given
        outputs, halvings = (config.decoder_channels, *plane), 0
    else:
        outputs, halvings = (alone(config, spec).family.size * whole[0], *whole[1:]), config.halvings
    decoder = ImageDecoder(outputs, inputs, config.width, config.blocks, halvings, True, vector)
    if later:
        evened(decoder)
    return Laid(decoder, places=later) if sound else decoder


class Laid(nn.Module):
    """A decoder to (n, k, 1, P) maps, its output laid out as that of a sequence.

    Args:
        places: as a grid along it, (n, k, P, 1), instead of a vector, (n, P k), the numbers of a place together.
    """

    def __init__(self, decoder: nn.Module, places: bool) -> None:
        super().__init__()
        self.decoder, self.places = decoder, places

    def forward(self, z: Tensor, vector: Tensor | None) -> Tensor:
        out: Tensor = self.decoder(z, vector)
        maps = out.flatten(2)
        return maps.unsqueeze(3) if self.places else maps.mT.flatten(1)
