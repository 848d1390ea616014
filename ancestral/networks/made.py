"""MADE: Germain et al. 2015, "Masked Autoencoder for Distribution Estimation".

      symbols ──<──▶ hidden ──≤──▶ hidden ──≤──▶ parameters       a unit labelled m sees the m first sites of an order
         └───────────────────<─────────────────────▲             direct connections

One matrix a layer, of which the labels of the units leave what makes an order of the sites causal. Other orders and labels of
the same weights are other members of an ensemble; which one is meant is always said, never counted.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

import torch
from torch import Tensor, nn

from ancestral.causal import GradedAffine, Labels, Unit, relu
from ancestral.core import Autoregressive, Context, Network
from ancestral.draw import uniforms
from ancestral.networks.configs import MADEConfig
from ancestral.networks.images import Feed, start_from
from ancestral.networks.nade import SiteNetwork, fixed_shape, site_family
from ancestral.spec import DataSpec, Order

SEED = 1234  # of orders and labels, which belong to a model as its sizes do


@dataclass(frozen=True)
class Masking:
    """What the masks of a MADE follow from.

    Attributes:
        order: of the sites.
        labels: of every hidden layer's units: how many sites, the first of the order, a unit sees.
    """

    order: Order
    labels: tuple[Labels, ...]

    @property
    def places(self) -> Labels:
        """The place in the order of every site."""
        places = [0] * len(self.order.sites)
        for place, site in enumerate(self.order.sites):
            places[site] = place
        return tuple(places)


def masking(shape: tuple[int, ...], hidden: Sequence[int], number: int = 0, connectivity: bool = True) -> Masking:
    """One of the maskings of a model, a pure function of the arguments.

    The first has the raster order, and labels spread evenly; the others have random orders and, with ``connectivity``, random
    labels. Labels lie between the least of the layer before and D - 1 (1 in the first layer).
    """
    order = Order.shuffled(shape, (SEED << 32) + number) if number else Order.raster(shape)
    last = len(order.sites) - 1
    least, labels = min(1, last), []  # a single site leaves units nothing to see
    for layer, units in enumerate(hidden):
        evenly = (torch.arange(units, dtype=torch.float64) + 0.5) / units
        u = uniforms(SEED, [number], units, stream=layer)[0] if number and connectivity else evenly
        labels.append(tuple((least + (u * (last + 1 - least)).floor().long()).tolist()))
        least = min(labels[-1])
    return Masking(order, tuple(labels))


def made(config: MADEConfig, spec: DataSpec) -> Autoregressive:
    """The model of a `MADEConfig`, for data of any fixed shape.

    Raises:
        ValueError: a length that varies, no order or layer, or several orders where examples may end early.
    """
    if min(config.orders, config.layers, config.hidden) < 1:
        raise ValueError(
            f"made needs at least 1 order, 1 layer and 1 unit, not {config.orders}, {config.layers} and {config.hidden}"
        )
    shape, family = fixed_shape(spec, config.orders > 1), site_family(config.family, spec, config.components)
    hidden = (config.hidden,) * config.layers
    maskings = [masking(shape, hidden, number, config.connectivity) for number in range(config.orders)]
    vector = (spec.classes or 0) if config.conditional else 0
    network = MADE(shape, spec.levels, family.size, maskings, direct=config.direct, vector=vector, discrete=family.discrete)
    start_from(family, network.output)
    return Autoregressive(network, family, spec, config)


class MADE(SiteNetwork):
    """A perceptron under masks: (n, *shape) symbols to (n, *shape, size) parameters, in one pass.

    Args:
        shape: sizes of an example.
        levels: the alphabet, whose symbols enter as 0 to 1; None for real values.
        size: parameters of one conditional.
        maskings: at least one; the first is this network's own, and with several it takes any order.
        direct: whether the input is connected with the output directly, too.
        vector: size of ``context.vector``, added in every layer.
        discrete: whether symbols are integers.

    Example:
        >>> masks = [masking((1, 2, 2), (8, 8), number) for number in range(3)]
        >>> network = MADE((1, 2, 2), levels=2, size=1, maskings=masks)
        >>> [network.masked(number).order == Order.raster((1, 2, 2)) for number in range(3)]
        [True, False, False]
    """

    member: int | None = None  # the masking whose labels a view has, in the order of that or in another

    def __init__(
        self,
        shape: tuple[int, ...],
        levels: int | None,
        size: int,
        maskings: Sequence[Masking],
        direct: bool = True,
        vector: int = 0,
        discrete: bool = True,
    ) -> None:
        sites = torch.Size(shape).numel()
        super().__init__(shape, discrete, layout=(sites, 1, 1))
        first = self.masking = maskings[0]
        self.size, self.maskings, self.any_order, self.order = size, tuple(maskings), len(maskings) > 1, first.order
        units = [first.places, *first.labels]
        self.scale, self.activation = Unit(sites, levels), relu()
        self.hidden = nn.ModuleList(
            GradedAffine(before, after, strict=not layer) for layer, (before, after) in enumerate(pairwise(units))
        )
        self.feeds = nn.ModuleList(Feed(vector, 0, len(labels)) for labels in first.labels)
        outputs = tuple(place for place in first.places for _ in range(size))
        self.output = GradedAffine(first.labels[-1], outputs)
        self.direct = GradedAffine(first.places, outputs, strict=True, bias=False) if direct else None

    def masked(self, number: int) -> MADE:
        """The member of the ensemble with this masking: a view, its weights shared."""
        view = self._under(self.maskings[number])
        view.member = number
        return view

    def members(self, count: int, seed: int = 0) -> list[Network]:
        """Its maskings, at most so many; the seed plays no part."""
        return [self.masked(number) for number in range(min(count, len(self.maskings)))]

    def ordered(self, order: Order) -> MADE:
        return self._under(Masking(order, self.masking.labels))  # still of the same member, whose labels these are

    def _under(self, masking: Masking) -> MADE:
        view: MADE = self.view(masking.order)  # type: ignore[assignment]
        view.masking = masking
        places = masking.places
        units, outputs = [places, *masking.labels], tuple(place for place in places for _ in range(self.size))
        pairs = zip(self.hidden, pairwise(units), strict=True)
        view.hidden = nn.ModuleList(layer.relabelled(*labels) for layer, labels in pairs)  # type: ignore[operator]
        view.output = self.output.relabelled(masking.labels[-1], outputs)
        view.direct = None if self.direct is None else self.direct.relabelled(places, outputs)
        return view

    def forward(self, x: Tensor, context: Context | None = None) -> Tensor:
        context = context or Context()
        y = self.body(x.flatten(1)[..., None, None], context.vector, context.grid)  # units know their labels: in any order
        return y.view(*x.shape, self.size)

    def body(self, x: Tensor, vector: Tensor | None, grid: Tensor | None) -> Tensor:
        symbols = hidden = self.scale(x)
        for layer, feed in zip(self.hidden, self.feeds, strict=True):
            hidden = self.activation(feed(layer(hidden), vector, grid))
        y = self.output(hidden)
        return y if self.direct is None else y + self.direct(symbols)  # type: ignore[no-any-return]
