"""An image in two stages: Kolesnikov & Lampert 2017, "PixelCNN Models with Auxiliary Variables for Natural Image Modeling".

An image y that x determines is modelled first, then x given y, each by a Gated PixelCNN::

    grey       x ──▶ y, few levels of grey                p(y)                       p(x_i | x_<i, y)
    pyramid    x ──▶ 8x8, 16x16, ...                      p(8x8) p(16x16 | 8x8) ...  p(x_i | x_<i, 16x16)

    log p(x) >= log p(y) + log p(x | y)

y is seen through unmasked convolutions, one beside every causal layer. The inequality is strict as far as p(x | y) also holds
images whose y is another one; a trained model gives them little.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional

from ancestral.core import Autoregressive, Context
from ancestral.families.base import check_count
from ancestral.latent.codes import Certain, CodePrior
from ancestral.latent.configs import check_share
from ancestral.latent.generation import Generator, Stage
from ancestral.latent.latent import Latent
from ancestral.latent.topdown import Choose, Descent, Group, TopDown, rows_of
from ancestral.latent.two_stage_configs import TwoStageConfig
from ancestral.networks.gated_pixelcnn import GatedPixelCNN
from ancestral.networks.images import image_family, image_model, listening, start_from
from ancestral.spec import DataSpec
from ancestral.symbols import LUMA

FORMS = ("pyramid", "grey")


def grey_image(x: Tensor, levels: int, colours: int) -> Tensor:
    """(n, C, H, W) symbols of ``levels`` to (n, 1, H, W) greys of ``colours``, by whole numbers alone.

    The luma, rounded half up, cut into as many equal parts: of 256 levels and 16 colours its first four bits.

    Example:
        >>> grey_image(torch.tensor([255, 0, 255]).view(1, 3, 1, 1), 256, 16).item()  # a luma of 105.3
        6
    """
    channels = x.shape[1]
    weights = torch.tensor(LUMA if channels == len(LUMA) else (1,) * channels, device=x.device)  # of others all count alike
    whole = (x.long() * weights.view(-1, 1, 1)).sum(1, keepdim=True)
    return rounded_ratio(whole, int(weights.sum())) * colours // levels


def smaller_image(x: Tensor, factor: int) -> Tensor:
    """(n, C, H, W) symbols to the means of factor x factor blocks, rounded half up, by whole numbers alone.

    Example:
        >>> smaller_image(torch.tensor([[[[0, 1], [2, 3]]]]), 2).item()  # a mean of 1.5
        2
    """
    n, channels, height, width = x.shape
    blocks = x.long().reshape(n, channels, height // factor, factor, width // factor, factor)
    return rounded_ratio(blocks.sum((3, 5)), factor**2)


def rounded_ratio(whole: Tensor, by: int) -> Tensor:
    """Whole numbers from 0 on divided by another, rounded half up."""
    return (2 * whole + by).div(2 * by, rounding_mode="floor")


def two_stage(config: TwoStageConfig, spec: DataSpec) -> Latent:
    """The model of a `TwoStageConfig`.

    Raises:
        ValueError: the data are not images of integers, there is no such form, no such auxiliary image of them, or a size makes
            no model.

    Example:
        >>> import ancestral
        >>> model = ancestral.build("two-stage", DataSpec("image", (3, 8, 8), levels=256), preset="tiny", halvings=2)
        >>> {name: tuple(y.shape) for name, y in model.encode(torch.zeros(2, 3, 8, 8, dtype=torch.long)).items()}
        {'2x2': (2, 3, 2, 2), '4x4': (2, 3, 4, 4)}
    """
    if config.form not in FORMS:
        raise ValueError(f"form is {config.form!r}; the auxiliary image is one of {', '.join(FORMS)}")
    if spec.kind != "image" or spec.levels is None:
        raise ValueError(f"two-stage models images of integers, not {spec.kind} with levels={spec.levels}")
    check_share("auxiliary_share", config.auxiliary_share)
    colours = 1 if config.form == "grey" else spec.shape[0] or 1
    check_count("auxiliary_layers", config.auxiliary_layers, 1)
    check_count("auxiliary_channels", config.auxiliary_channels, colours, ", one for every colour of the auxiliary image")
    check_count("stream", config.stream, 0)
    topdown = TwoStageTopDown(spec, config)
    sizes = {**config.decoder_sizes(), "grid": topdown.maps, "stream": config.stream}
    return Latent(topdown, listening(image_model(GatedPixelCNN, config, spec, sizes)), spec, config)


class Shown(nn.Module):
    """An auxiliary image as what comes next sees it: symbols from -1 to 1, as large as the next image.

    Where that is larger, each symbol fills a square of four places, and two maps say which of the four a place is.

    Args:
        levels: of the symbols.
        sides: height and width of the next image.
        grow: how many times larger it is, 1 or 2.
    """

    def __init__(self, levels: int, sides: tuple[int, int], grow: int) -> None:
        super().__init__()
        self.steps = levels - 1
        self.grow = nn.Upsample(scale_factor=float(grow)) if grow > 1 else None
        rows, columns = (torch.arange(side) % 2 * 2.0 - 1 for side in sides)
        places = torch.stack([rows[:, None].expand(sides), columns.expand(sides)])
        self.places = nn.Buffer(places[None], persistent=False)

    def forward(self, h: Tensor | None, z: Tensor, vector: Tensor | None) -> Tensor:
        scaled = z.to(self.places.dtype) * (2 / self.steps) - 1
        if self.grow is None:
            return scaled
        return torch.cat([self.grow(scaled), scaled.new_zeros(len(z), *self.places.shape[1:]) + self.places], 1)


class TwoStageTopDown(TopDown):
    """Auxiliary images, each with an `Autoregressive` given the one before; posteriors are certain, as x determines them.

    Args:
        spec: the data.
        config: sizes; see `TwoStageConfig`.

    Attributes:
        maps: how many maps x sees of the last one.
    """

    certain = True

    def __init__(self, spec: DataSpec, config: TwoStageConfig) -> None:
        super().__init__()
        self.form, self.levels, self.colours = config.form, spec.levels or 2, min(config.colours, spec.levels or 2)
        channels, height, width = (size or 0 for size in spec.shape)
        self.factors = (1,) if config.form == "grey" else tuple(2**k for k in range(config.halvings, 0, -1))
        self._check(spec, config, height, width)
        grey = config.form == "grey"
        levels, colours = self.colours if grey else self.levels, 1 if grey else channels
        labels = (spec.classes or 0) if config.conditional else 0
        self.maps = 1 if grey else channels + 2
        self.channels, self.steps = channels, levels - 1
        self.names = ["greys"] if grey else [f"{height // each}x{width // each}" for each in self.factors]
        self.shows = self.names[-1]
        self.priors, self.shown = nn.ModuleList(), nn.ModuleList()
        for i, factor in enumerate(self.factors):
            of = DataSpec("image", (colours, height // factor, width // factor), levels, spec.classes if labels else None)
            self.priors.append(self._prior(of, config, labels, self.maps if i else 0))
            grow = 1 if grey else 2
            self.shown.append(Shown(levels, (height // factor * grow, width // factor * grow), grow))
        self.anchor = nn.Buffer(torch.zeros(()), persistent=False)  # tells device and type

    def _check(self, spec: DataSpec, config: TwoStageConfig, height: int, width: int) -> None:
        if self.form == "grey" and not config.colours >= 2:
            raise ValueError(f"colours is {config.colours}; a grey image has at least 2 levels")
        if self.form == "grey" and spec.shape[0] == 1 and self.colours == self.levels:
            raise ValueError(
                f"the grey image of these data, of {self.levels} levels, is x itself: take fewer colours or a pyramid"
            )
        if not self.factors:
            raise ValueError(f"halvings is {config.halvings}; a pyramid has at least 1 smaller image")
        if height % self.factors[0] or width % self.factors[0]:
            raise ValueError(f"images of {height} x {width} cannot be halved {config.halvings} times: take fewer halvings")

    @staticmethod
    def _prior(of: DataSpec, config: TwoStageConfig, labels: int, grid: int) -> Autoregressive:
        family = image_family(config.family, of.levels or 2, config.components)
        sizes = {**config.auxiliary_sizes(), "vector": labels, "grid": grid, "stream": config.auxiliary_channels}
        network = GatedPixelCNN(of.shape, of.levels, family.size, **sizes)  # type: ignore[arg-type]
        start_from(family, network.head[-1])
        network.conditional = labels > 0
        return listening(Autoregressive(network, family, of))

    def images(self, x: Tensor) -> list[Tensor]:
        """Every y of (n, C, H, W) symbols, in the order in which they are settled."""
        if self.form == "grey":
            return [grey_image(x, self.levels, self.colours)]
        return [smaller_image(x, factor) for factor in self.factors]

    def descend(
        self, choose: Choose, evidence: Tensor | None = None, context: Context | None = None, n: int | None = None
    ) -> Descent:
        vector = context.vector if context else None
        rows = rows_of(evidence, vector, n)
        known: Sequence[Tensor | None] = [None] * len(self.names) if evidence is None else self.images(evidence)
        grid, groups = None, list[Group]()
        for (name, model, shown), y in zip(self._parts(), known, strict=True):
            prior, posterior = CodePrior(model, Context(vector=vector, grid=grid), rows), None if y is None else Certain(y)
            groups.append(Group(name, choose(name, prior, posterior), prior, posterior))
            grid = shown(None, groups[-1].z, vector)
        return Descent(Context(vector=vector, grid=grid), groups)

    def decided(self, x: Tensor, known: Tensor) -> dict[str, tuple[Tensor, Tensor]]:
        if self.form == "grey":
            masks = [known.all(1, keepdim=True)]
        else:
            masks = [-functional.max_pool2d(-known.double(), factor) > 0 for factor in self.factors]  # the least of each block
        images = zip(self.names, self.images(x), masks, strict=True)
        return {name: (y.masked_fill(~mask, 0), mask) for name, y, mask in images}

    def pictured(self, z: Tensor) -> Tensor:
        return (z.double() * ((self.levels - 1) / self.steps)).expand(-1, self.channels, -1, -1)

    def generator(self) -> Generator:
        return Generator(tuple(Stage(name, tuple(y.network.shape), shown, codes=y) for name, y, shown in self._parts()))

    def _parts(self) -> Iterator[tuple[str, Autoregressive, Shown]]:
        return zip(self.names, self.priors, self.shown, strict=True)  # type: ignore[arg-type]
