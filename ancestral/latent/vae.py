"""Variational autoencoder: Kingma & Welling 2014, with a convolutional ResNet (images) or a perceptron (vectors).

x ──▶ encoder ──▶ q(z | x) ──▶ z ──▶ decoder ──▶ features ──▶ p(x | z), every site by itself
                     KL with p(z)
"""

from __future__ import annotations

from math import prod

import torch
from torch import Tensor, nn
from torch.distributions import Distribution

from ancestral.core import Autoregressive, Context, Family
from ancestral.families import Bernoulli, Binned, Columns, Logistic
from ancestral.families import Normal as NormalFamily
from ancestral.latent.configs import EncoderFields, VaeConfig
from ancestral.latent.encoders import Handed, ImageDecoder, ImageEncoder, VectorNet, scaled, sides
from ancestral.latent.generation import Decoding, Generator
from ancestral.latent.latent import Latent
from ancestral.latent.posteriors import posterior_of
from ancestral.latent.priors import prior_of
from ancestral.latent.topdown import Choose, Descent, Group, TopDown, rows_of, seen
from ancestral.networks.factorised import Factorised
from ancestral.spec import DataSpec


class FlatTopDown(TopDown):
    """One group of latents with the posterior and the prior that the fields name.

    Args:
        spec: the data; x is scaled to [-1, 1] before it is encoded.
        outputs: (c, h, w) of the features that it decodes to, (d,) for vectors, or () to hand z itself on, as a vector.
        fields: sizes; see `EncoderFields`.
        vector: size of a label's vector, 0 for none.

    Attributes:
        latent: the shape of z.
        plain: whether the posterior is a diagonal normal and the prior standard normal.

    Raises:
        ValueError: there is no such posterior or prior, or examples vary in length.
    """

    def __init__(self, spec: DataSpec, outputs: tuple[int, ...], fields: EncoderFields, vector: int = 0) -> None:
        super().__init__()
        if None in spec.shape:
            raise ValueError(
                f"this model takes examples of one size, and {spec.kind} of shape {spec.shape} varies in length: take"
                " transformer-vae for text, wavenet-vae for sound, or read blocks of one length (pieces='blocks')"
            )
        self.levels, self.encoder, self.decoder = spec.levels, nn.Module(), nn.Module()
        shape = tuple(size or 0 for size in spec.shape)
        image = spec.kind == "image"
        cells = sides(shape[1], shape[2], fields.halvings)[-1] if image and fields.spatial else (0, 0)
        self.latent: tuple[int, ...] = (fields.latent, *cells) if any(cells) else (fields.latent,)
        self.plain = fields.posterior == fields.prior == "normal"
        posterior = posterior_of(fields, self.latent)
        if image:
            sizes = (fields.width, fields.blocks, fields.halvings, fields.spatial, vector)
            self.encoder = ImageEncoder((shape[0], shape[1], shape[2]), posterior.outputs, *sizes)
            self.decoder = (
                ImageDecoder((outputs[0], outputs[1], outputs[2]), fields.latent, *sizes, cells) if outputs else Handed(vector)
            )
        else:
            self.encoder = VectorNet(spec.sites, posterior.outputs, fields.width, fields.blocks, vector)
            self.decoder = VectorNet(fields.latent, prod(outputs), fields.width, fields.blocks, vector)
        self.posterior, self.prior = posterior, prior_of(fields, self.latent, vector)
        self.anchor = nn.Buffer(torch.zeros(()), persistent=False)  # tells device and type

    @property
    def units(self) -> int:
        """How many numbers z is."""
        return prod(self.latent)

    def descend(
        self, choose: Choose, evidence: Tensor | None = None, context: Context | None = None, n: int | None = None
    ) -> Descent:
        vector = context.vector if context else None
        posterior = None if evidence is None else self._posterior(evidence, vector)
        rows = rows_of(evidence, vector, n)
        prior = self.prior(self.anchor.expand(rows, *self.latent), vector)
        z = choose("z", prior, posterior)
        return Descent(seen(self.decoder(z, vector), vector), [Group("z", z, prior, posterior)])

    def generator(self) -> Generator:
        return Generator((self.prior.stage("z", self.latent, Decoding(self.decoder)),))

    def scaled(self, x: Tensor) -> Tensor:
        """What the encoder is given of (n, *shape) symbols: values in [-1, 1], or real values as they are."""
        return scaled(x, self.levels, self.anchor.dtype)

    def _posterior(self, x: Tensor, vector: Tensor | None) -> Distribution:
        found: Distribution = self.posterior(self.encoder(self.scaled(x), vector).to(self.anchor.dtype))
        return found


def decoder_family(name: str, spec: DataSpec) -> tuple[Family, int]:
    """The family of a factorised decoder, and how many of its parameters are free rather than decoded.

    ``auto``: normal for real values, Bernoulli for two levels, discretized logistic otherwise; of a table with whole columns a
    family each, all of whose parameters are decoded, as those of a place mean other things from column to column.

    Raises:
        ValueError: the family does not fit the data.
    """
    levels = spec.levels
    if spec.whole_columns:
        if name != "auto":
            raise ValueError(f"decoder {name!r} does not fit columns={spec.columns}, which take a family each: choose auto")
        return Columns.of(spec.columns, NormalFamily()), 0
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
    network = Factorised(shape, family.size, learned, discrete=family.discrete)
    return Latent(topdown, Autoregressive(network, family, spec), spec, config)
