"""Variational lossy autoencoder: Chen et al. 2017, "Variational Lossy Autoencoder" (arXiv:1611.02731).

      x ──▶ encoder ──▶ q(z | x) ──▶ z ──▶ decoder ──▶ maps ──▶ p(x_i | window of x, maps)
                           KL with p(z), an autoregressive flow

A decoder that sees all pixels before models what it can without z, which costs nothing, and leaves z empty. One that sees a
window of them models local statistics, and z is left to carry what the window cannot show: so the window places information.
"""

from __future__ import annotations

import re

from ancestral.latent.configs import VlaeConfig
from ancestral.latent.latent import Latent
from ancestral.latent.vae import FlatTopDown
from ancestral.networks.images import image_model, listening
from ancestral.networks.local import LocalPixelCNN
from ancestral.spec import DataSpec


def vlae(config: VlaeConfig, spec: DataSpec) -> Latent:
    """The model of a `VlaeConfig`.

    The preset ``paper`` has the sizes of the paper's 7x4 model of CIFAR-10: z is 16 maps of 8 x 8, its prior six autoregressive
    steps of two hidden layers of 128 features. There the encoder and the decoder are 48 wide at the finest size, and the window
    is spread over three vertical and three horizontal layers of PixelCNN++, whose colours share a mixture; here it is read at
    once, and every colour has a mixture of its own.

    For binary images the paper takes a vector z of 64 units, four steps that only shift, 4 maps, and six masked 3x3 layers:
    ``window="13x6", maps=4, latent=64, spatial=False, prior_steps=4, prior_width=640, prior_layers=3, prior_mean_only=True,
    soft_free_bits=7.84`` comes nearest.

    Raises:
        ValueError: the data are not images of integers, or the window is not written as A x B.

    Example:
        >>> import ancestral
        >>> model = ancestral.build("vlae", DataSpec("image", (1, 28, 28), levels=2), window="7x4")
        >>> len(model.likelihood.network.receptive_field())
        31
    """
    labels = (spec.classes or 0) if config.conditional else 0
    sizes = {name: getattr(config, name) for name in ("layers", "channels", "head", "coupled")}
    sizes |= {"window": window_of(config.window), "grey": config.luma, "block": config.coarse, "grid": config.maps}
    likelihood = listening(image_model(LocalPixelCNN, config, spec, sizes))
    _, height, width = (size or 0 for size in spec.shape)
    return Latent(FlatTopDown(spec, (config.maps, height, width), config, labels), likelihood, spec, config)


def window_of(text: str) -> tuple[int, int]:
    """A and B of a window written as in the paper.

    Raises:
        ValueError: it is written otherwise.

    Example:
        >>> window_of("7x4")
        (7, 4)
    """
    found = re.fullmatch(r"(\d+)x(\d+)", text)
    if found is None:
        raise ValueError(f"window is {text!r}; write its width and the rows on top, such as 5x3")
    return int(found[1]), int(found[2])
