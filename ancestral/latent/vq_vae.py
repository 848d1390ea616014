"""VQ-VAE: van den Oord, Vinyals & Kavukcuoglu 2017, "Neural Discrete Representation Learning" (arXiv:1711.00937).

::

    x ──▶ encoder ──▶ vectors ──▶ the nearest of a codebook ──▶ codes k ──▶ their vectors ──▶ decoder ──▶ p(x | k)
                                                                  ▲
                          p(k) = prod over the grid of p(k_i | k_<i): a PixelCNN, an LSTM or a Transformer

The encoder leaves no doubt about the codes, so log p(x) >= log p(x | k) + log p(k) at the codes of x: what both cost together is
a bound, and what a file of both takes. Training has two stages: encoder, codebook and decoder, then the prior of the codes.

With a second, coarser grid of codes t it is VQ-VAE-2: Razavi, van den Oord & Vinyals 2019, "Generating Diverse High-Fidelity
Images with VQ-VAE-2" (arXiv:1906.00446), algorithm 1::

    x ──▶ encoder ──┬─────────────────────────────────────────▶ join ──▶ codes k ──▶ vectors ──┬──▶ decoder ──▶ p(x | t, k)
                    └──▶ top encoder ──▶ codes t ──▶ decoded ────┴─────────────────────────────┘
                                                        └──▶ p(k | t), beside p(t)
"""

from __future__ import annotations

from collections.abc import Sequence as Several
from dataclasses import replace

import torch
from torch import Tensor, nn

from ancestral.core import Context
from ancestral.families.base import check_count
from ancestral.latent.code_configs import VqVaeConfig
from ancestral.latent.code_decoders import autoregressive, auxiliary_of_codes, decoder_of_codes, likelihood_of_codes
from ancestral.latent.code_grids import CodeGrid, Nearest, Top, quantizer_of
from ancestral.latent.code_priors import prior_of_codes
from ancestral.latent.configs import check_share
from ancestral.latent.encoders import ImageEncoder, scaled, sides
from ancestral.latent.generation import Generator, Stage
from ancestral.latent.latent import Latent
from ancestral.latent.quantizers import finite_levels
from ancestral.latent.topdown import Choose, Descent, Group, TopDown, rows_of, seen
from ancestral.spec import DataSpec


def vq_vae(config: VqVaeConfig, spec: DataSpec) -> Latent:
    """The model of a `VqVaeConfig`.

    The prior is an `Autoregressive` over images of codes, so all that works with one does with it: ``topdown.prior`` can be
    sampled, searched, and completed where some codes are known. With two grids (``top_halvings``) ``topdown.top_prior`` is the
    law of the top, and ``topdown.prior`` that of the finer codes in the context ``topdown.told(top)``.

    Sound of a fixed length is taken as an image of one row, so that the codes are, too: of them a Transformer sees all before.

    Raises:
        ValueError: the data are no images and no such sound in whole numbers, a size makes no model, there is no such
            quantiser, prior or decoder, or the prior cannot be one of such codes.

    Example:
        >>> import ancestral
        >>> model = ancestral.build("vq-vae", DataSpec("image", (1, 8, 8), levels=17), preset="tiny")
        >>> codes = model.encode(torch.zeros(2, 1, 8, 8, dtype=torch.long))["codes"]
        >>> codes.shape, ancestral.complete(model.topdown.prior, codes, known=codes == codes[0, 0, 0, 0]).x.shape
        (torch.Size([2, 1, 4, 4]), torch.Size([2, 1, 4, 4]))
    """
    if spec.kind not in ("image", "audio") or None in spec.shape or spec.parts > 1 or spec.end is not None:
        cut = ": read it in blocks (--pieces blocks --length 2048 --notation mulaw)" if spec.kind == "audio" else ""
        raise ValueError(
            f"vq-vae models images, and audio of a fixed length with one symbol a sample, not {spec.kind} of shape"
            f" {spec.shape}{cut}"
        )
    if spec.levels is None:
        raise ValueError(
            "vq-vae takes images and sound in whole numbers, and these are real values: read them without dequantize, or take vae"
        )
    check_share("prior_share", config.prior_share)
    if config.prior_share == 1 and not config.learned_priors:
        raise ValueError("prior_share=1 trains the prior alone, and a uniform one learns nothing: take another, or less")
    if config.top_prior != "auto" and not config.top_halvings:
        raise ValueError(f"top_prior is {config.top_prior!r}, and there is no top: give top_halvings=1 or more, or leave it out")
    finite_levels(config.scalars)  # though a codebook does not read them: what is misspelt was meant
    _check_sizes(config, spec)
    likelihood, auxiliary = likelihood_of_codes(config, spec), auxiliary_of_codes(config, spec)
    return Latent(CodedTopDown(spec, config), likelihood, spec, config, auxiliary)


def _check_sizes(config: VqVaeConfig, spec: DataSpec) -> None:
    """Of all parts, by the names that the configuration has for them."""
    for name, least in {"commitment": 0, "width": 1, "blocks": 0, "halvings": 0, "depth": 1}.items():
        check_count(name, getattr(config, name), least)
    if autoregressive(config, spec):
        check_count("decoder_layers", config.decoder_layers, 1)
        colours, why = (spec.shape[0] or 1, ", one for every colour") if spec.kind == "image" else (1, "")
        check_count("decoder_channels", config.decoder_channels, colours, why)
    names = {config.prior, config.prior_of_top if config.top_halvings else config.prior} - {"uniform"}
    if names:
        apart = ", one for every code of a place (depth)" if names - {"transformer"} else ""
        check_count("prior_layers", config.prior_layers, 1)
        check_count("prior_channels", config.prior_channels, config.depth if apart else 1, apart)


class Joined(nn.Module):
    """A decoder of vectors beside what a coarser grid shows, if there is one, as the ``merge`` of a stage.

    Args:
        decoder: (n, d, h, w), with labels or none, to the features.
    """

    def __init__(self, decoder: nn.Module) -> None:
        super().__init__()
        self.decoder = decoder

    def forward(self, h: Tensor | None, z: Tensor, vector: Tensor | None) -> Tensor:
        out: Tensor = self.decoder(z if h is None else torch.cat([z, h], 1), vector)
        return out


class CodedTopDown(TopDown):
    """One grid of codes, which a quantiser makes of what an encoder gives, or two of which the coarser comes first.

    Args:
        spec: the data.
        config: sizes.

    Attributes:
        shape: of the codes of one example, (m, h, w), those of the finer grid.
        quantizer, prior: of these codes; the prior is told those of the other.
        top, top_prior: the coarser grid and its law, or None.

    Raises:
        ValueError: there is no such quantiser or prior.
    """

    certain = True

    def __init__(self, spec: DataSpec, config: VqVaeConfig) -> None:
        super().__init__()
        colours, height, width = (1, 1, spec.sites) if spec.kind == "audio" else (side or 0 for side in spec.shape)
        self.levels, self.quantizer, self.plane = spec.levels, quantizer_of(config), (colours, height, width)
        classes = spec.classes if config.conditional else None
        plane = sides(height, width, config.halvings)[-1]
        self.shape = (config.depth, *plane)
        features = config.depth * self.quantizer.features
        sizes = (config.width, config.blocks, config.halvings, True, classes or 0)
        self.top = Top(config, plane, classes or 0) if config.top_halvings else None
        maps = 0 if self.top is None else self.top.maps
        self.encoder = ImageEncoder(self.plane, features if self.top is None else config.width, *sizes)
        self.decoder = decoder_of_codes(config, spec, features + maps, plane, self.plane, classes or 0)
        codes = DataSpec("image", self.shape, self.quantizer.codes, classes)
        self.prior = prior_of_codes(config.prior, config, codes, maps)
        self.top_prior = (
            None if self.top is None else prior_of_codes(config.prior_of_top, config, replace(codes, shape=self.top.shape))
        )
        self.anchor = nn.Buffer(torch.zeros(()), persistent=False)  # tells device and type

    @property
    def grids(self) -> tuple[CodeGrid, ...]:
        """The grids of codes, in the order in which they are settled."""
        codes = CodeGrid("codes", self.shape, self.quantizer, self.prior)
        if self.top is None or self.top_prior is None:
            return (codes,)
        return CodeGrid("top", self.top.shape, self.top.quantizer, self.top_prior), codes

    def settled(
        self, choose: Choose, evidence: Tensor | None = None, context: Context | None = None, n: int | None = None
    ) -> tuple[list[Group], Tensor | None, Tensor]:
        """The groups as they were settled, what the top shows, if there is one, and the vectors of the finer codes.

        Args:
            choose, evidence, context, n: see ``descend``.
        """
        vector = context.vector if context else None
        rows = rows_of(evidence, vector, n)
        encoded = None if evidence is None else self._encoded(evidence, vector)
        groups, shown = list[Group](), None
        if self.top is not None:
            above = None if encoded is None else self.top.encoder(encoded, vector).to(self.anchor.dtype)
            group, vectors = self.grids[0].settled(choose, above, context, rows)
            groups, shown = [group], self.top.decoder(None, vectors, vector)
            encoded = None if encoded is None else self.top.joined(encoded, shown, vector)
            context = Context(vector=vector, grid=shown)
        encoded = None if encoded is None else encoded.to(self.anchor.dtype)
        group, vectors = self.grids[-1].settled(choose, encoded, context, rows)
        return [*groups, group], shown, vectors

    def _encoded(self, x: Tensor, vector: Tensor | None) -> Tensor:
        out: Tensor = self.encoder(scaled(x, self.levels, self.anchor.dtype).view(-1, *self.plane), vector)
        return out

    def descend(
        self, choose: Choose, evidence: Tensor | None = None, context: Context | None = None, n: int | None = None
    ) -> Descent:
        groups, shown, vectors = self.settled(choose, evidence, context, n)
        vector = context.vector if context else None
        return Descent(seen(Joined(self.decoder)(shown, vectors, vector), vector), groups)

    def told(self, top: Tensor, vector: Tensor | None = None) -> Context:
        """What the prior of the finer grid is told, of (n, m, h, w) codes of the top and of labels.

        Raises:
            ValueError: there is no top.
        """
        if self.top is None:
            raise ValueError(
                "this model has one grid of codes, whose prior is told nothing of another: build it with top_halvings"
            )
        return Context(vector=vector, grid=self.top.decoder(None, self.top.quantizer.vectors(top), vector))

    def nearest(self, groups: Several[Group]) -> list[tuple[CodeGrid, Nearest]]:
        """Every grid with what the evidence was quantised to in it.

        Raises:
            ValueError: there was none.
        """
        posteriors = [group.posterior for group in groups if isinstance(group.posterior, Nearest)]
        if len(posteriors) < len(self.grids):
            raise ValueError("the codes were settled without evidence, so nothing was quantised")
        return list(zip(self.grids, posteriors, strict=True))

    def generator(self) -> Generator:
        merges = [Joined(self.decoder)] if self.top is None else [self.top.decoder, Joined(self.decoder)]
        return Generator(
            tuple(
                Stage(grid.name, grid.shape, merge, codes=grid.prior, vectors=grid.quantizer.vectors)
                for grid, merge in zip(self.grids, merges, strict=True)
            )
        )

    def numbers(self, name: str, z: Tensor) -> Tensor:
        return next(grid for grid in self.grids if grid.name == name).quantizer.vectors(z)
