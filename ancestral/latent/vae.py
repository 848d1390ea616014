"""Variational autoencoder: Kingma & Welling 2014, with a convolutional ResNet (images) or a perceptron (vectors).

x ──▶ encoder ──▶ q(z | x) ──▶ z ──▶ decoder ──▶ features ──▶ p(x | z), every site by itself
                     KL with p(z) = N(0, 1)
"""

from __future__ import annotations

from math import prod

import torch
from torch import Tensor, nn
from torch.distributions import Normal

from ancestral.core import Autoregressive, Context, Family
from ancestral.families import Bernoulli, Binned, Logistic
from ancestral.families import Normal as NormalFamily
from ancestral.latent.configs import EncoderFields, VaeConfig
from ancestral.latent.encoders import ImageDecoder, ImageEncoder, VectorNet, sides
from ancestral.latent.latent import Latent
from ancestral.latent.topdown import Choose, Descent, Group, TopDown
from ancestral.networks.factorised import Factorised
from ancestral.spec import DataSpec


class FlatTopDown(TopDown):
    """One group of latents with a standard normal prior and a diagonal normal posterior.

    Args:
        spec: the data; x is scaled to [-1, 1] before it is encoded.
        outputs: (c, h, w) of the features that it decodes to, or (d,) for vectors.
        fields: sizes; see `EncoderFields`.
        vector: size of a label's vector, 0 for none.
    """

    def __init__(self, spec: DataSpec, outputs: tuple[int, ...], fields: EncoderFields, vector: int = 0) -> None:
        super().__init__()
        self.levels, self.encoder, self.decoder = spec.levels, nn.Module(), nn.Module()
        if len(outputs) == 3:
            channels, height, width = (size or 0 for size in spec.shape)
            sizes = (fields.width, fields.blocks, fields.halvings, fields.spatial, vector)
            self.latent: tuple[int, ...] = (
                (fields.latent, *sides(height, width, fields.halvings)[-1]) if fields.spatial else (fields.latent,)
            )
            self.encoder = ImageEncoder((channels, height, width), 2 * fields.latent, *sizes)
            self.decoder = ImageDecoder((outputs[0], outputs[1], outputs[2]), fields.latent, *sizes)
        else:
            self.latent = (fields.latent,)
            self.encoder = VectorNet(spec.sites, 2 * fields.latent, fields.width, fields.blocks, vector)
            self.decoder = VectorNet(fields.latent, prod(outputs), fields.width, fields.blocks, vector)
        self.anchor = nn.Buffer(torch.zeros(()), persistent=False)  # tells device and type

    def descend(
        self, choose: Choose, evidence: Tensor | None = None, context: Context | None = None, n: int | None = None
    ) -> Descent:
        vector = context.vector if context else None
        posterior = None if evidence is None else self._posterior(evidence, vector)
        rows = len(evidence) if evidence is not None else len(vector) if vector is not None else n or 1
        zeros = self.anchor.expand(rows, *self.latent)
        prior = Normal(zeros, zeros + 1, validate_args=False)
        z = choose("z", prior, posterior)
        decoded = self.decoder(z, vector)
        features = Context(vector=vector, grid=decoded) if decoded.dim() == 4 else Context(vector=decoded)
        return Descent(features, [Group("z", z, prior, posterior)])

    def scaled(self, x: Tensor) -> Tensor:
        """What the encoder is given of (n, *shape) symbols: values in [-1, 1], or real values as they are."""
        x = x.to(self.anchor.dtype)
        return x if self.levels is None else x * (2 / (self.levels - 1)) - 1

    def _posterior(self, x: Tensor, vector: Tensor | None) -> Normal:
        location, log_scale = self.encoder(self.scaled(x), vector).to(self.anchor.dtype).chunk(2, 1)
        return Normal(location, log_scale.clamp(-8, 8).exp(), validate_args=False)


def decoder_family(name: str, spec: DataSpec) -> tuple[Family, int]:
    """The family of a factorised decoder, and how many of its parameters are free rather than decoded.

    ``auto``: normal for real values, Bernoulli for two levels, discretized logistic otherwise.

    Raises:
        ValueError: the family does not fit the data.
    """
    levels = spec.levels
    chosen = name if name != "auto" else "normal" if levels is None else "bernoulli" if levels == 2 else "logistic"
    if chosen == "bernoulli" and levels == 2:
        return Bernoulli(), 0
    if chosen == "logistic" and levels is not None:
        return Logistic(levels), 1
    if chosen == "normal":
        return (NormalFamily() if levels is None else Binned(NormalFamily(), levels)), 1
    fitting = "normal" if levels is None else "logistic, normal" + (", bernoulli" if levels == 2 else "")
    raise ValueError(f"decoder {name!r} does not fit data with levels={levels}; choose auto or one of: {fitting}")


def vae(config: VaeConfig, spec: DataSpec) -> Latent:
    """The model of a `VaeConfig`."""
    family, learned = decoder_family(config.decoder, spec)
    shape = tuple(size or 0 for size in spec.shape)
    given = (family.size - learned) * shape[0]
    vector = (spec.classes or 0) if config.conditional else 0
    topdown = FlatTopDown(spec, (given, *shape[1:]), config, vector)
    network = Factorised(shape, family.size, learned)
    return Latent(topdown, Autoregressive(network, family, spec), spec, config)
