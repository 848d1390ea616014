"""PixelVAE: Gulrajani et al. 2017, "PixelVAE: A Latent Variable Model for Natural Images" (arXiv:1611.05013).

z says what an image is as a whole, a Gated PixelCNN of few layers fills in the rest. z can enter it in two ways::

    vector      z ──────────────────────────────▶ every gated layer, by a linear map      "without upsampling"
    upsample    z ──▶ decoder ──▶ maps ──▶ beside the symbols, into the first layer

The hierarchy has a second group of latents, and a PixelCNN between the two::

    x ──▶ encoder ──┬──▶ q(z1 | x), a grid                z2 ──▶ decoder ──▶ p(z1 | z2) = prod over places of p(z1_i | z1_<i, z2)
                    └──▶ encoder ──▶ q(z2 | x), a vector                      z1 ──▶ decoder ──▶ maps ──▶ p(x | z1)
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.distributions import Distribution, Normal

from ancestral.core import Autoregressive, Context, Network
from ancestral.families import Normal as NormalFamily
from ancestral.latent.configs import HierarchicalPixelVaeConfig, PixelVaeConfig
from ancestral.latent.encoders import ImageDecoder, ImageEncoder, evened, scaled, sides
from ancestral.latent.flows import settle
from ancestral.latent.generation import Decoding, Generator, Stage, Step
from ancestral.latent.latent import Latent
from ancestral.latent.posteriors import Diagonal
from ancestral.latent.priors import normal
from ancestral.latent.topdown import Choose, Descent, Group, Mapped, TopDown, rows_of
from ancestral.latent.vae import FlatTopDown
from ancestral.networks.gated_pixelcnn import GatedPixelCNN
from ancestral.networks.images import image_model, listening
from ancestral.spec import DataSpec

FORMS = ("vector", "upsample")


def pixelvae(config: PixelVaeConfig, spec: DataSpec) -> Latent:
    """The model of a `PixelVaeConfig`.

    Raises:
        ValueError: the data are not images of integers, or there is no such form.

    Example:
        >>> import ancestral
        >>> model = ancestral.build("pixelvae", DataSpec("image", (1, 8, 8), levels=2), preset="tiny", form="upsample")
        >>> sorted(model.encode(torch.zeros(2, 1, 8, 8, dtype=torch.long)))
        ['z']
    """
    if config.form not in FORMS:
        raise ValueError(f"form is {config.form!r}; z enters the decoder as one of {', '.join(FORMS)}")
    labels, maps = (spec.classes or 0) if config.conditional else 0, (config.maps, *_sides(spec))
    topdown = FlatTopDown(spec, () if config.form == "vector" else maps, config, labels)
    evened(topdown.decoder)
    if config.form == "vector":
        sizes = {**config.decoder_sizes(), "vector": topdown.units + labels}
    else:
        sizes = {**config.decoder_sizes(), "vector": labels, "grid": config.maps, "beside": True}
    likelihood = listening(image_model(GatedPixelCNN, config, spec, sizes))
    return Latent(topdown, likelihood, spec, config)


def hierarchical_pixelvae(config: HierarchicalPixelVaeConfig, spec: DataSpec) -> Latent:
    """The model of a `HierarchicalPixelVaeConfig`.

    Raises:
        ValueError: the data are not images of integers.

    Example:
        >>> import ancestral
        >>> model = ancestral.build("hierarchical-pixelvae", DataSpec("image", (1, 8, 8), levels=2), preset="tiny")
        >>> {name: tuple(z.shape) for name, z in model.encode(torch.zeros(2, 1, 8, 8, dtype=torch.long)).items()}
        {'z2': (2, 2), 'z1': (2, 2, 4, 4)}
    """
    labels = (spec.classes or 0) if config.conditional else 0
    sizes = {**config.decoder_sizes(), "vector": labels, "grid": config.maps, "beside": True}
    likelihood = listening(image_model(GatedPixelCNN, config, spec, sizes))
    return Latent(HierarchicalTopDown(spec, config, labels), likelihood, spec, config)


def _sides(spec: DataSpec) -> tuple[int, int]:
    if spec.kind != "image":
        raise ValueError(f"a PixelVAE models images of integers, not {spec.kind} with levels={spec.levels}")
    return spec.shape[1] or 0, spec.shape[2] or 0


class AutoregressiveNormal(Mapped):
    """p(z | c) = prod over i of N(z_i; m_i, s_i), m and s of a unit from the units before it: an `Autoregressive` as a prior.

    Drawn without gradient.

    Args:
        model: a network of real values with a normal family.
        context: (n, ...) what it is given, such as the latents above.
        n: how many rows.
    """

    def __init__(self, model: Autoregressive, context: Context, n: int) -> None:
        zeros = model.anchor.expand(n, *model.network.shape)
        super().__init__(normal(zeros, zeros + 1))
        self.model, self.context = model, context

    def conditioned(self, z: Tensor) -> Normal:
        """Every unit's own normal given the units of z before it, (n, *shape): teacher forced, in one pass."""
        location, log_scale = self.model.network(z, self.context).to(z.dtype).unbind(-1)  # of networks in half precision
        return normal(location, log_scale.exp())

    @torch.no_grad()
    def carried(self, noise: Tensor) -> Tensor:
        """The z of which every unit lies ``noise`` scales above its mean given the units before it."""

        def improved(z: Tensor) -> Tensor:
            given = self.conditioned(z)
            return given.loc + given.scale * noise

        return settle(improved, torch.zeros_like(noise))

    def log_prob(self, value: Tensor) -> Tensor:
        """(n, *shape) nats of every unit given the ones before it."""
        nats: Tensor = self.conditioned(value).log_prob(value)  # type: ignore[no-untyped-call]
        return nats


class Places(nn.Module):
    """What p(z1 | z2) says of every unit given the ones before it, for files: see `generation.Step`.

    Args:
        network: over z1, with a mean and a log-scale of every unit.
    """

    def __init__(self, network: Network) -> None:
        super().__init__()
        self.network = network

    def forward(self, h: Tensor | None, z: Tensor, vector: Tensor | None) -> Tensor:
        out: Tensor = self.network.body(z, vector, h)  # type: ignore[operator]
        return torch.cat([out[:, ::2], out[:, 1::2]], 1)


class HierarchicalTopDown(TopDown):
    """A vector z2 with a standard normal prior above a grid z1 whose prior given z2 is a PixelCNN.

    The maps of z1 at one place are independent given the places before and z2. Both posteriors are diagonal normals that read
    features of x: that of z2 does not wait for z1.

    Args:
        spec: the data.
        config: sizes; see `HierarchicalPixelVaeConfig`.
        vector: size of a label's vector, 0 for none.
    """

    def __init__(self, spec: DataSpec, config: HierarchicalPixelVaeConfig, vector: int = 0) -> None:
        super().__init__()
        height, width = _sides(spec)
        coarse = sides(height, width, config.halvings)[-1]
        self.levels, self.top, self.grid = spec.levels, config.top, (config.latent, *coarse)
        sizes, above = (
            (config.width, config.blocks, config.halvings, True, vector),
            (config.width, config.blocks, 1, False, vector),
        )
        self.features = ImageEncoder((spec.shape[0] or 0, height, width), config.width, *sizes)
        self.below = nn.Conv2d(config.width, 2 * config.latent, 1)
        self.above = ImageEncoder((config.width, *coarse), 2 * config.top, *above)
        self.middle = ImageDecoder((config.width, *coarse), config.top, *above)
        network = GatedPixelCNN(self.grid, None, 2, **config.prior_sizes(), grid=config.width, vector=vector, coupled=False)
        self.prior = listening(Autoregressive(network, NormalFamily(), DataSpec("image", self.grid)))
        self.decoder = ImageDecoder((config.maps, height, width), config.latent, *sizes)
        for decoder in (self.middle, self.decoder):
            evened(decoder)
        self.anchor = nn.Buffer(torch.zeros(()), persistent=False)  # tells device and type

    def descend(
        self, choose: Choose, evidence: Tensor | None = None, context: Context | None = None, n: int | None = None
    ) -> Descent:
        vector = context.vector if context else None
        rows = rows_of(evidence, vector, n)
        below, above = (None, None) if evidence is None else self._posteriors(evidence, vector)
        zeros = self.anchor.expand(rows, self.top)
        top = normal(zeros, zeros + 1)
        z2 = choose("z2", top, above)
        prior = AutoregressiveNormal(self.prior, Context(vector=vector, grid=self.middle(z2, vector)), rows)
        z1 = choose("z1", prior, below)
        features = Context(vector=vector, grid=self.decoder(z1, vector))
        return Descent(features, [Group("z2", z2, top, above), Group("z1", z1, prior, below)])

    def generator(self) -> Generator:
        prior = Step(Places(self.prior.network), causal=True)
        below = Stage("z1", self.grid, Decoding(self.decoder), (prior,))
        return Generator((Stage("z2", (self.top,), Decoding(self.middle)), below))

    def _posteriors(self, x: Tensor, vector: Tensor | None) -> tuple[Distribution, Distribution]:
        features = self.features(scaled(x, self.levels, self.anchor.dtype), vector)
        below, above = (part.to(self.anchor.dtype) for part in (self.below(features), self.above(features, vector)))
        return diagonal(below), diagonal(above)


def diagonal(numbers: Tensor) -> Distribution:
    """Normals by themselves of (n, 2 d, ...) numbers: d means, d log-scales."""
    return Diagonal(numbers.shape[1] // 2, normal)(numbers)  # type: ignore[no-any-return]
