"""AGAVE: Lucas & Verbeek 2018, "Auxiliary Guided Autoregressive Variational Autoencoders".

      x ──▶ encoder ──▶ q(z | x) ──▶ z ──▶ decoder ──▶ f(z) ──┬──▶ p(y | z)             auxiliary image, factorised
                           KL with p(z)                      └──▶ p(x_i | x_<i, f(z))  Gated PixelCNN, whole x

f(z) is an image: the means of the logistics that model y, with one learned scale a channel. Because y can only be explained
through z, z carries what y needs, however strong the autoregressive decoder is; lambda on the KL sets how much.
"""

from __future__ import annotations

from functools import partial

from torch import Tensor, nn

from ancestral.core import Autoregressive
from ancestral.families import Logistic
from ancestral.latent.configs import AgaveConfig
from ancestral.latent.latent import Auxiliary, Latent
from ancestral.latent.vae import FlatTopDown
from ancestral.networks.factorised import Factorised
from ancestral.networks.gated_pixelcnn import GatedPixelCNN
from ancestral.networks.images import image_family
from ancestral.spec import DataSpec


def auxiliary_image(x: Tensor, levels: int, colours: int, factor: int) -> Tensor:
    """y(x): (n, C, H, W) symbols of ``levels`` to the mean of factor x factor blocks, at ``colours`` even levels.

    Eq. 8 of the paper with c = levels / colours; the mean of a block is rounded to the nearest symbol first.
    """
    if factor > 1:
        x = nn.functional.avg_pool2d(x.double(), factor).round().long()
    return x.long() * colours // levels


def agave(config: AgaveConfig, spec: DataSpec) -> Latent:
    """The model of an `AgaveConfig`.

    Raises:
        ValueError: the data are not images of integers, or the auxiliary image does not fit them.
    """
    if spec.kind != "image" or spec.levels is None:
        raise ValueError(f"agave models images of integers, not {spec.kind} with levels={spec.levels}")
    channels, height, width = (size or 0 for size in spec.shape)
    colours, factor = config.colours or spec.levels, config.factor
    if not 2 <= colours <= spec.levels:
        raise ValueError(f"colours is {colours}; the auxiliary image can have 2 to {spec.levels} levels of these data")
    if height % factor or width % factor:
        raise ValueError(f"factor is {factor}, which does not divide images of {height} x {width}")
    small = (channels, height // factor, width // factor)
    vector = (spec.classes or 0) if config.conditional else 0
    topdown = FlatTopDown(spec, small, config, vector)
    family = image_family(config.family, spec.levels, config.components)
    network = GatedPixelCNN(
        (channels, height, width),
        spec.levels,
        family.size,
        vector=vector,
        grid=channels,
        stream=config.stream,
        upsample=factor,
        **config.decoder_sizes(),
    )
    auxiliary = None
    if config.auxiliary:
        y = DataSpec("image", small, colours)
        likelihood = Autoregressive(Factorised(small, 2, learned=1), Logistic(colours), y)
        auxiliary = Auxiliary(likelihood, partial(auxiliary_image, levels=spec.levels, colours=colours, factor=factor))
    return Latent(topdown, Autoregressive(network, family, spec), spec, config, auxiliary)
