"""VQ-VAE: van den Oord, Vinyals & Kavukcuoglu 2017, "Neural Discrete Representation Learning" (arXiv:1711.00937).

::

    x ──▶ encoder ──▶ vectors ──▶ the nearest of a codebook ──▶ codes k ──▶ their vectors ──▶ decoder ──▶ p(x | k)
                                                                  ▲
                          p(k) = prod over the grid of p(k_i | k_<i): a PixelCNN or a Transformer

The encoder leaves no doubt about the codes, so log p(x) >= log p(x | k) + log p(k) at the codes of x: what both cost together is
a bound, and what a file of both takes. Training has two stages: encoder, codebook and decoder, then the prior of the codes.
"""

from __future__ import annotations

from math import prod

import torch
from torch import Tensor, nn

from ancestral.core import Autoregressive, Context
from ancestral.families import Categorical
from ancestral.latent.codes import Certain, CodePrior
from ancestral.latent.configs import VqVaeConfig
from ancestral.latent.encoders import ImageDecoder, ImageEncoder, scaled, sides
from ancestral.latent.generation import Decoding, Generator, Stage
from ancestral.latent.latent import Latent
from ancestral.latent.quantizers import FiniteScalar, Quantizer, VectorQuantizer, finite_levels, straight_through
from ancestral.latent.topdown import Choose, Descent, Group, TopDown, rows_of, seen
from ancestral.latent.vae import decoder_family
from ancestral.networks.configs import GatedPixelCNNConfig, PixelCNNConfig, TransformerConfig
from ancestral.networks.factorised import Factorised, Uniform
from ancestral.networks.gated_pixelcnn import GatedPixelCNN
from ancestral.networks.images import image_model
from ancestral.networks.pixelcnn import PixelCNN
from ancestral.networks.transformer import transformer
from ancestral.spec import DataSpec

PRIORS = ("gated-pixelcnn", "pixelcnn", "transformer", "uniform")
HEADS = 4  # of attention, at most


def vq_vae(config: VqVaeConfig, spec: DataSpec) -> Latent:
    """The model of a `VqVaeConfig`.

    The prior is an `Autoregressive` over images of codes, so all that works with one does with it: ``topdown.prior`` can be
    sampled, searched, and completed where some codes are known.

    Sound of a fixed length is taken as an image of one row, so that the codes are, too: of them a Transformer sees all before.

    Raises:
        ValueError: the data are no images and no such sound, or there is no such quantiser, prior or decoder.

    Example:
        >>> import ancestral
        >>> model = ancestral.build("vq-vae", DataSpec("image", (1, 8, 8), levels=17), preset="tiny")
        >>> codes = model.encode(torch.zeros(2, 1, 8, 8, dtype=torch.long))["codes"]
        >>> codes.shape, ancestral.complete(model.topdown.prior, codes, known=codes == codes[0, 0, 0, 0]).x.shape
        (torch.Size([2, 1, 4, 4]), torch.Size([2, 1, 4, 4]))
    """
    if spec.kind not in ("image", "audio") or None in spec.shape or spec.parts > 1 or spec.end is not None:
        raise ValueError(
            f"vq-vae models images, and audio of a fixed length with one symbol a sample, not {spec.kind} of shape {spec.shape}"
        )
    family, learned = decoder_family(config.decoder, spec)
    shape = tuple(size or 0 for size in spec.shape)
    topdown = CodedTopDown(spec, family.size - learned, config)
    return Latent(topdown, Autoregressive(Factorised(shape, family.size, learned), family, spec), spec, config)


class Nearest(Certain):
    """All mass on the codes whose vectors are nearest to what an encoder gives.

    Args:
        bounded: (n, m d, h, w) what was quantised.
        codes: (n, m, h, w).
    """

    def __init__(self, bounded: Tensor, codes: Tensor) -> None:
        super().__init__(codes)
        self.bounded = bounded


class Sequence(nn.Module):
    """A decoder to (n, k, 1, T) maps, its output as a vector: (n, T k), the numbers of a place together."""

    def __init__(self, decoder: nn.Module) -> None:
        super().__init__()
        self.decoder = decoder

    def forward(self, z: Tensor, vector: Tensor | None) -> Tensor:
        out: Tensor = self.decoder(z, vector)
        return out.flatten(1)


class CodedTopDown(TopDown):
    """One grid of codes, which a quantiser makes of what an encoder gives.

    Args:
        spec: the data.
        outputs: maps, of each channel, that the vectors of the codes are decoded to; one alone of sound.
        config: sizes.

    Attributes:
        group: the name of the group.
        shape: of the codes of one example, (m, h, w).

    Raises:
        ValueError: there is no such quantiser or prior.
    """

    group = "codes"
    certain = True

    def __init__(self, spec: DataSpec, outputs: int, config: VqVaeConfig) -> None:
        super().__init__()
        sequence = spec.kind != "image"
        colours, height, width = (1, 1, spec.sites) if sequence else (size or 0 for size in spec.shape)
        self.levels, self.quantizer, self.plane = spec.levels, quantizer_of(config), (colours, height, width)
        vector = (spec.classes or 0) if config.conditional else 0
        self.shape = (config.depth, *sides(height, width, config.halvings)[-1])
        features = config.depth * self.quantizer.features
        sizes = (config.width, config.blocks, config.halvings, True, vector)
        self.encoder = ImageEncoder(self.plane, features, *sizes)
        decoder = ImageDecoder((outputs * colours, height, width), features, *sizes)
        self.decoder = Sequence(decoder) if sequence else decoder
        codes = DataSpec("image", self.shape, self.quantizer.codes, spec.classes if config.conditional else None)
        self.prior = prior_of_codes(config, codes)
        self.anchor = nn.Buffer(torch.zeros(()), persistent=False)  # tells device and type

    @property
    def units(self) -> int:
        """How many codes an example has."""
        return prod(self.shape)

    def posterior(self, x: Tensor, vector: Tensor | None = None) -> Nearest:
        """The codes of (n, *shape) symbols, with their labels where the model is conditional."""
        seen = scaled(x, self.levels, self.anchor.dtype).view(-1, *self.plane)
        bounded = self.quantizer.bounded(self.encoder(seen, vector).to(self.anchor.dtype))
        return Nearest(bounded, self.quantizer.nearest(bounded))

    def descend(
        self, choose: Choose, evidence: Tensor | None = None, context: Context | None = None, n: int | None = None
    ) -> Descent:
        vector = context.vector if context else None
        posterior = None if evidence is None else self.posterior(evidence, vector)
        rows = rows_of(evidence, vector, n)
        prior = CodePrior(self.prior, context, rows)
        codes = choose(self.group, prior, posterior)
        if posterior is None:
            self._check(codes)
        vectors = self.quantizer.vectors(codes)
        if posterior is not None:
            vectors = straight_through(posterior.bounded, vectors)
        return Descent(seen(self.decoder(vectors, vector), vector), [Group(self.group, codes, prior, posterior)])

    def _check(self, codes: Tensor) -> None:
        low, high = (int(edge) for edge in codes.aminmax()) if codes.numel() else (0, 0)
        if low < 0 or high >= self.quantizer.codes:
            raise ValueError(f"codes range over {low} .. {high}; there are 0 .. {self.quantizer.codes - 1}")

    def nearest(self, descent: Descent) -> Nearest:
        """What the evidence of a descent was quantised to.

        Raises:
            ValueError: there was none.
        """
        (group,) = descent.groups
        if not isinstance(group.posterior, Nearest):
            raise ValueError("the codes were settled without evidence, so nothing was quantised")
        return group.posterior

    def generator(self) -> Generator:
        decoding = Decoding(self.decoder)
        return Generator((Stage(self.group, self.shape, decoding, codes=self.prior, vectors=self.quantizer.vectors),))

    def numbers(self, name: str, z: Tensor) -> Tensor:
        return self.quantizer.vectors(z)


def quantizer_of(config: VqVaeConfig) -> Quantizer:
    """The quantiser that a configuration names.

    Raises:
        ValueError: there is none.
    """
    if config.quantizer == "vq":
        return VectorQuantizer(config.codes, config.features, config.codebook_decay, config.restart)
    if config.quantizer == "fsq":
        return FiniteScalar(finite_levels(config.scalars))
    raise ValueError(f"there is no quantizer {config.quantizer!r}; choose vq or fsq")


def prior_of_codes(config: VqVaeConfig, spec: DataSpec) -> Autoregressive:
    """The prior over images of codes, ``spec``, that a configuration names: its networks look codes up in a table.

    Raises:
        ValueError: there is none.
    """
    layers, wide, conditional = config.prior_layers, config.prior_channels, config.conditional
    pixels = {"layers": layers, "channels": wide, "first_kernel": 5, "kernel": 3, "head": 2 * wide}
    if config.prior == "uniform":
        shape, levels = tuple(size or 0 for size in spec.shape), spec.levels or 2
        return Autoregressive(Uniform(shape, levels), Categorical(levels), spec)
    if config.prior == "transformer":
        heads = next(heads for heads in range(HEADS, 0, -1) if wide % heads == 0)
        sizes = TransformerConfig(
            layers=layers, width=wide, heads=heads, dropout=0.0, family="categorical", conditional=conditional
        )
        made = transformer(sizes, spec)
    elif config.prior == "gated-pixelcnn":
        gated = GatedPixelCNNConfig(**pixels, family="categorical", conditional=conditional)
        made = image_model(GatedPixelCNN, gated, spec, {**gated.decoder_sizes(), "embedding": wide})
    elif config.prior == "pixelcnn":
        masked = PixelCNNConfig(**pixels, family="categorical", conditional=conditional)
        made = image_model(PixelCNN, masked, spec, {**pixels, "embedding": wide})
    else:
        raise ValueError(f"there is no prior {config.prior!r} of codes; choose one of {', '.join(PRIORS)}")
    return Autoregressive(made.network, made.family, spec)
