"""AGAVE: Lucas & Verbeek 2018, "Auxiliary Guided Autoregressive Variational Autoencoders".

      x ──▶ encoder ──▶ q(z | x) ──▶ z ──▶ decoder ──▶ f(z) ──┬──▶ p(y | z)             auxiliary image, factorised
                           KL with p(z)                      └──▶ p(x_i | x_<i, f(z))  a PixelCNN, whole x

f(z) is an image: the means of the logistics that model y, with one learned scale a channel. Because y can only be explained
through z, z carries what y needs, however strong the autoregressive decoder is; lambda on the KL sets how much.

The paper has a ResNet of latents with inverse autoregressive flow, and PixelCNN++ (the preset ``paper``); the default is one
group of latents and a Gated PixelCNN, which train in minutes. VAE and PixelCNN are trained apart, then together. One such pair
can serve many runs: lambda and colours change no weight's shape; a lower resolution takes the pair's PixelCNN, and a VAE of its
own.
"""

from __future__ import annotations

from dataclasses import fields
from functools import partial

from torch import Tensor, nn

from ancestral.core import Autoregressive
from ancestral.families import Logistic
from ancestral.latent.configs import AgaveConfig, EncoderFields, check_share
from ancestral.latent.latent import Auxiliary, Latent
from ancestral.latent.resnet import ResNetTopDown
from ancestral.latent.topdown import TopDown
from ancestral.latent.vae import FlatTopDown
from ancestral.networks.configs import PixelCNNPlusPlusConfig
from ancestral.networks.factorised import Factorised
from ancestral.networks.gated_pixelcnn import GatedPixelCNN
from ancestral.networks.images import image_family, start_from
from ancestral.networks.pixelcnnpp import pixelcnnpp
from ancestral.spec import DataSpec


def auxiliary_image(x: Tensor, levels: int, colours: int, factor: int) -> Tensor:
    """y(x): (n, C, H, W) symbols of ``levels`` to the mean of factor x factor blocks, at ``colours`` even levels.

    Eq. 8 of the paper with c = levels / colours; the mean of a block is rounded to the nearest symbol first.
    """
    if factor > 1:
        x = nn.functional.avg_pool2d(x.double(), factor).round().long()
    return x.long() * colours // levels


def stretch(levels: int, colours: int) -> float:
    """What means on the scale of x are multiplied by to be means on the scale of y.

    Either scale has its first and last symbol at -1 and 1, but a level of y stands in the middle of those of x that make it. So
    f(z) is on the scale of x whatever y is, as in the paper, and models of different y can start from the same weights.

    Example:
        >>> stretch(256, 256), round(stretch(256, 2), 4)
        (1.0, 1.9922)
    """
    return (levels - 1) / levels * colours / (colours - 1)


def agave(config: AgaveConfig, spec: DataSpec) -> Latent:
    """The model of an `AgaveConfig`.

    Raises:
        ValueError: the data are not images of integers, the auxiliary image does not fit them, or there is no such encoder or
            decoder.
    """
    if spec.kind != "image" or spec.levels is None:
        raise ValueError(f"agave models images of integers, not {spec.kind} with levels={spec.levels}")
    channels, height, width = (size or 0 for size in spec.shape)
    colours, factor = config.colours or spec.levels, config.factor
    if not 2 <= colours <= spec.levels:
        raise ValueError(f"colours is {colours}; the auxiliary image can have 2 to {spec.levels} levels of these data")
    if config.pretrain not in (("both", "vae", "pixelcnn") if config.auxiliary else ("both", "pixelcnn")):
        raise ValueError(f"pretrain is {config.pretrain!r}; agave takes both, pixelcnn or, with an auxiliary loss, vae")
    check_share("pretraining", config.pretraining)
    if height % factor or width % factor:
        raise ValueError(f"factor is {factor}, which does not divide images of {height} x {width}")
    small = (channels, height // factor, width // factor)
    auxiliary = None
    if config.auxiliary:
        y = DataSpec("image", small, colours)
        likelihood = Autoregressive(Factorised(small, 2, learned=1), Logistic(colours), y)
        target = partial(auxiliary_image, levels=spec.levels, colours=colours, factor=factor)
        auxiliary = Auxiliary(likelihood, target, stretch(spec.levels, colours))
    return Latent(topdown_of(config, spec, small), decoder_of(config, spec), spec, config, auxiliary)


def topdown_of(config: AgaveConfig, spec: DataSpec, outputs: tuple[int, int, int]) -> TopDown:
    """Prior, encoder and decoder between x and f(z), an image of the shape ``outputs``."""
    vector = (spec.classes or 0) if config.conditional else 0
    if config.encoder == "flat":
        if config.spatial and config.factor > (least := 2**config.halvings):
            raise ValueError(
                f"factor is {config.factor}, and z is a grid {least} times smaller than x: y must be no smaller than z;"
                " raise halvings, lower factor, or take spatial=False"
            )
        return FlatTopDown(spec, outputs, config, vector)
    if config.encoder != "resnet":
        raise ValueError(f"encoder is {config.encoder!r}; agave takes flat or resnet")
    if config.prior != "normal":
        raise ValueError(f"prior is {config.prior!r}; in a ResNet of latents each is normal given those above it")
    taken = ("latent", "width", "blocks", "halvings", "posterior")
    for field in fields(EncoderFields):
        if field.name not in (*taken, "prior") and getattr(config, field.name) != field.default:
            raise ValueError(f"{field.name} is {getattr(config, field.name)!r}; of these sizes a resnet takes {', '.join(taken)}")
    sizes = {name: getattr(config, name) for name in taken}
    return ResNetTopDown(spec, outputs, vector=vector, **sizes)


def decoder_of(config: AgaveConfig, spec: DataSpec) -> Autoregressive:
    """p(x_i | x_<i, f(z))."""
    channels, height, width = (size or 0 for size in spec.shape)
    if config.decoder == "pixelcnn++":
        names = ("channels", "resnets", "dropout", "family", "components", "conditional")
        sizes = PixelCNNPlusPlusConfig(**{name: getattr(config, name) for name in names})
        alone = pixelcnnpp(sizes, spec, channels, config.stream, config.factor)
        return Autoregressive(alone.network, alone.family, spec)  # whose configuration is that of the whole model
    if config.decoder != "gated-pixelcnn":
        raise ValueError(f"decoder is {config.decoder!r}; agave takes gated-pixelcnn or pixelcnn++")
    family = image_family(config.family, spec.levels or 2, config.components)
    network = GatedPixelCNN(
        (channels, height, width),
        spec.levels,
        family.size,
        vector=(spec.classes or 0) if config.conditional else 0,
        grid=channels,
        stream=config.stream,
        upsample=config.factor,
        **config.decoder_sizes(),
    )
    start_from(family, network.head[-1])
    return Autoregressive(network, family, spec)
