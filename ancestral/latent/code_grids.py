"""Grids of codes: what one consists of, how its codes are settled, and a coarser one that comes before another."""

from __future__ import annotations

from dataclasses import dataclass
from math import prod

import torch
from torch import Tensor, nn
from torch.nn import functional

from ancestral.core import Autoregressive, Context
from ancestral.latent.code_configs import VqVaeConfig
from ancestral.latent.codes import Certain, CodePrior
from ancestral.latent.encoders import ImageDecoder, ImageEncoder, sides
from ancestral.latent.quantizers import FiniteScalar, Quantizer, VectorQuantizer, finite_levels, straight_through
from ancestral.latent.topdown import Choose, Group


class Nearest(Certain):
    """All mass on the codes whose vectors are nearest to what an encoder gives.

    Args:
        bounded: (n, m d, h, w) what was quantised.
        codes: (n, m, h, w).
    """

    def __init__(self, bounded: Tensor, codes: Tensor) -> None:
        super().__init__(codes)
        self.bounded = bounded


@dataclass(frozen=True, eq=False)
class CodeGrid:
    """A grid of codes.

    Attributes:
        name: of the group of latents.
        shape: of the codes of one example, (m, h, w).
        quantizer: what makes them of vectors.
        prior: their law.
    """

    name: str
    shape: tuple[int, int, int]
    quantizer: Quantizer
    prior: Autoregressive

    @property
    def units(self) -> int:
        """How many codes an example has."""
        return prod(self.shape)

    def settled(self, choose: Choose, encoded: Tensor | None, context: Context | None, rows: int) -> tuple[Group, Tensor]:
        """The group as it was settled, and the vectors (n, m d, h, w) of its codes.

        Args:
            encoded: (n, m d, h, w) what an encoder gives, which the gradient goes straight through to; None without evidence.
            context: what the prior is told.
            rows: n.
        """
        posterior = None
        if encoded is not None:
            bounded = self.quantizer.bounded(encoded)
            posterior = Nearest(bounded, self.quantizer.nearest(bounded))
        prior = CodePrior(self.prior, context, rows)
        codes = choose(self.name, prior, posterior)
        vectors = self.quantizer.vectors(codes)
        vectors = vectors if posterior is None else straight_through(posterior.bounded, vectors)
        return Group(self.name, codes, prior, posterior), vectors


class Lifted(nn.Module):
    """Vectors of a coarse grid as a finer one sees them, as the ``merge`` of a stage: decoded, and each filling its square.

    Args:
        decoder: (n, d, h, w) vectors, with labels or none, to (n, c, H, W).
        sides: H and W.
    """

    def __init__(self, decoder: nn.Module, sides: tuple[int, int]) -> None:
        super().__init__()
        self.decoder, self.sides = decoder, sides

    def forward(self, h: Tensor | None, z: Tensor, vector: Tensor | None) -> Tensor:
        """(n, c + d, H, W)."""
        return torch.cat([self.decoder(z, vector), functional.interpolate(z, size=self.sides, mode="nearest")], 1)


class Top(nn.Module):
    """The coarser of two grids of codes (Razavi, van den Oord & Vinyals 2019), all but its prior.

    Its encoder goes on from the features of the finer one, which is quantised with the decoded top in view.

    Args:
        config: sizes.
        plane: height and width of the finer grid.
        vector: numbers of a label; 0 for none.

    Attributes:
        shape: of its codes, (m, h, w).
        maps: features of what the finer grid, its prior and the decoder of x are shown.

    Raises:
        ValueError: it is finer than the other.
    """

    def __init__(self, config: VqVaeConfig, plane: tuple[int, int], vector: int) -> None:
        super().__init__()
        if config.top_halvings < 0:
            raise ValueError(f"top_halvings is {config.top_halvings}; the top is coarser by at least 1, and 0 is for none")
        self.quantizer = quantizer_of(config)
        self.shape = (config.depth, *sides(*plane, config.top_halvings)[-1])
        features = config.depth * self.quantizer.features
        self.maps = config.width + features
        sizes = (config.width, config.blocks, config.top_halvings, True, vector)
        self.encoder = ImageEncoder((config.width, *plane), features, *sizes)
        self.decoder = Lifted(ImageDecoder((config.width, *plane), features, *sizes), plane)
        self.join = ImageEncoder((config.width + self.maps, *plane), features, config.width, config.blocks, 0, True, vector)

    def joined(self, encoded: Tensor, shown: Tensor, vector: Tensor | None) -> Tensor:
        """What is quantised below, (n, m d, H, W), of the finer encoder's features and of what it is shown."""
        out: Tensor = self.join(torch.cat([encoded, shown], 1), vector)
        return out


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
