"""NADE, RNADE and DeepNADE: one hidden vector a site, from a sum that runs over the sites before it.

      a_1 = c      a_(d+1) = a_d + W_d x_d      h_d = f(a_d)      parameters of site d = b_d + V_d h_d

NADE (Larochelle & Murray 2011) and RNADE (Uria, Murray & Larochelle 2013) settle sites in one order. DeepNADE (Uria, Murray &
Larochelle 2014) is trained to give any site from any others: its sum also has a matrix for *which* sites are known, and more
layers follow it. No mask is at work here; those are MADE's.
"""

from __future__ import annotations

import copy
from abc import abstractmethod

import torch
from torch import Tensor, nn
from torch.nn import functional

from ancestral.causal import CausalNetwork, LeftAffine, RunningSum, Signal, SiteAffine, Unit, relu, sigmoid
from ancestral.causal.sequence import Recursion
from ancestral.core import Autoregressive, Context, Family, OrderError
from ancestral.families import Columns, LaplaceMixture, NormalMixture
from ancestral.networks.configs import DeepNADEConfig, NADEConfig, RNADEConfig
from ancestral.networks.images import Feed, check_ordered, image_family, start_from
from ancestral.spec import SYMMETRIES, DataSpec, Order

ACTIVATIONS = {"relu": relu, "sigmoid": sigmoid}


def nade(config: NADEConfig, spec: DataSpec) -> Autoregressive:
    """The model of a `NADEConfig`, for integers of any fixed shape.

    Raises:
        ValueError: real values, or a length that varies.
    """
    if spec.levels is None:
        raise ValueError("nade models integers; rnade models real values and mixed columns")
    return _model(NADE, config, spec)


def rnade(config: RNADEConfig, spec: DataSpec) -> Autoregressive:
    """The model of an `RNADEConfig`, for real values, standardised best, and for mixed columns.

    Raises:
        ValueError: integers, or a length that varies.
    """
    if spec.levels is not None:
        raise ValueError(f"rnade models real values, not {spec.levels} levels; nade models integers")
    return _model(NADE, config, spec)


def deep_nade(config: DeepNADEConfig, spec: DataSpec) -> Autoregressive:
    """The model of a `DeepNADEConfig`, for data of any fixed shape.

    Raises:
        ValueError: a length that varies, or examples that may end early.
    """
    return _model(DeepNADE, config, spec)


def _model(kind: type[NADE], config: NADEConfig | RNADEConfig | DeepNADEConfig, spec: DataSpec) -> Autoregressive:
    family = site_family(config.family, spec, config.components)
    vector = (spec.classes or 0) if config.conditional else 0
    layers = getattr(config, "layers", 1)
    if min(config.hidden, layers) < 1:
        raise ValueError(f"{config.name} needs at least 1 hidden layer of at least 1 feature, not {layers} of {config.hidden}")
    shape = fixed_shape(spec, kind.any_order)
    network = kind(shape, spec.levels, family.size, config.hidden, layers, config.activation, vector, family.discrete)
    start_from(family, network.output)
    return Autoregressive(network, family, spec, config)


def fixed_shape(spec: DataSpec, any_order: bool = False) -> tuple[int, ...]:
    """The shape of an example.

    Raises:
        ValueError: it varies, or the model is to know several orders and examples may end early: what comes after an end counts
            nothing, and in another order that would be settled first.
    """
    if any_order and spec.end is not None:
        raise ValueError(f"a model of several orders takes examples of one length, where every symbol counts; end is {spec.end}")
    shape = tuple(size for size in spec.shape if size is not None)
    if len(shape) < len(spec.shape):
        raise ValueError(f"a model with weights of its own for every site needs a fixed shape, not {spec.shape}")
    return shape


def site_family(name: str, spec: DataSpec, components: int) -> Family:
    """The family of the conditionals: `image_family` of integers, a mixture of ``normal`` or ``laplace`` of real values.

    ``auto`` is normal there, and a categorical where levels have no order. A table of mixed columns takes the mixture for the
    real ones.

    Raises:
        ValueError: no such family, or it does not fit the data.
    """
    if spec.levels is not None:
        softmax = not check_ordered(name, spec) and name == "auto" and spec.levels > 2
        return image_family("categorical" if softmax else name, spec.levels, components)
    if name not in ("auto", "normal", "laplace"):
        raise ValueError(f"family {name!r} does not fit real values; choose auto, normal or laplace")
    real = LaplaceMixture(components) if name == "laplace" else NormalMixture(components)
    return Columns.of(spec.columns, real) if spec.columns else real


class SiteNetwork(CausalNetwork):
    """A network with weights for every site: it knows one shape, and every order if it was made for any."""

    @abstractmethod
    def ordered(self, order: Order) -> SiteNetwork:
        """A view of this network, its weights shared, that settles sites in another order."""

    def arrange(self, order: Order | str | None = None, shape: tuple[int, ...] | None = None) -> SiteNetwork:
        """A view of this network, its weights shared, that settles sites in another order.

        Args:
            order: any, or the name of one of the eight of an image.
            shape: this network's own.

        Raises:
            OrderError: another shape, not a permutation of the sites, or a network that was made for one order.
        """
        own = tuple(self.shape)
        if shape is not None and tuple(shape) != own:
            raise OrderError(f"{type(self).__name__} has weights for every site of {own}, so it cannot take {tuple(shape)}")
        if order is None:
            return self.ordered(self.order) if self.any_order else self
        if not self.any_order:
            raise OrderError(f"{type(self).__name__} was made for one order; deep-nade and made with several orders take any")
        if isinstance(order, str):
            if order != "raster" and (order not in SYMMETRIES or len(own) != 3):
                raise OrderError(f"there is no order {order!r} of sites {own}; images have {', '.join(SYMMETRIES)}")
            order = Order.raster(own) if order == "raster" else Order.turned(own, SYMMETRIES[order])
        if not isinstance(order, Order) or sorted(order.sites) != list(range(len(self.order.sites))):
            raise OrderError(f"the order is not an Order that is a permutation of the {len(self.order.sites)} sites")
        return self.ordered(order)

    def view(self, order: Order) -> SiteNetwork:
        """A copy that shares all weights and may be given other layers."""
        view = copy.copy(self)
        view._modules, view._programs, view.order = dict(self._modules), {}, order
        return view

    @property
    def _as_given(self) -> bool:
        return False  # the layers see a walk, whatever the shape


class NADE(SiteNetwork):
    """a_d = c + sum over sites s before d of W_s x_s; parameters b_d + V_d f(a_d): (n, *shape) to (n, *shape, size).

    Larochelle & Murray 2011, eqs. 4 to 6. One hidden layer; `DeepNADE` has more.

    Args:
        shape: sizes of an example, settled in raster order.
        levels: the alphabet, whose symbols enter as 0 to 1; None for real values.
        size: parameters of one conditional.
        hidden: H, features of a hidden layer.
        layers: hidden layers.
        activation: ``"relu"`` or ``"sigmoid"``.
        vector: size of ``context.vector``, added to the sum.
        discrete: whether symbols are integers.

    Raises:
        ValueError: there is no such activation.

    Example:
        >>> NADE((4,), levels=2, size=1, hidden=3)(torch.zeros(2, 4)).shape
        torch.Size([2, 4, 1])
    """

    flagged = False

    def __init__(
        self,
        shape: tuple[int, ...],
        levels: int | None,
        size: int,
        hidden: int = 500,
        layers: int = 1,
        activation: str = "relu",
        vector: int = 0,
        discrete: bool = True,
    ) -> None:
        sites = torch.Size(shape).numel()
        super().__init__(shape, discrete, layout=(1, sites, 1))
        if activation not in ACTIVATIONS:
            raise ValueError(f"activation {activation!r} is none of {', '.join(ACTIVATIONS)}")
        units = (0,) * hidden
        self.scale = Unit(1, levels, self.flagged)
        self.sum = RunningSum(len(self.scale.labels), hidden, sites)
        self.feed = Feed(vector, 0, hidden)
        self.activation = ACTIVATIONS[activation]()
        self.deeper = nn.ModuleList(LeftAffine(units, units) for _ in range(layers - 1))
        self.output = SiteAffine(hidden, size, sites, scaled=activation == "relu" and levels is None)

    def ordered(self, order: Order) -> NADE:
        view = self.view(order)
        view.sum, view.output = self.sum.arranged(order.sites), self.output.arranged(order.sites)
        return view  # type: ignore[return-value]

    def body(self, x: Tensor, vector: Tensor | None, grid: Tensor | None) -> Tensor:
        x = self.scale(x)
        if isinstance(x, Signal):
            return self.output(self._hidden(self.feed(self.sum(x), vector, grid)))
        with torch.autocast(x.device.type, enabled=False):  # a long sum, whose small terms half precision would lose
            start = self.feed(self.sum.bias.expand(len(x), -1)[..., None, None], vector, grid)[..., 0, 0]
            return self._outputs(x[..., 0].movedim(1, 2), start).permute(2, 1, 0)[..., None]

    def _outputs(self, x: Tensor, start: Tensor) -> Tensor:
        """(n, D, c) values and (n, h) what the sums start from to (D, k, n) parameters."""
        weight, bias = self.output.matrices
        if not self.deeper:
            return Recursion.apply(x, start, self.sum.matrices, weight, bias, self.activation.name)  # type: ignore[no-any-return, no-untyped-call]

        def outputs(sums: Tensor, sites: slice) -> Tensor:
            hidden = self._hidden(sums.flatten(0, 1)[..., None, None])
            return torch.baddbmm(bias[sites, :, None], weight[sites].mT, hidden.view_as(sums).mT)

        return self.sum.scan(x, start, outputs)

    def _hidden(self, sums: Tensor) -> Tensor:
        """The last hidden layer, of sums at one site or many."""
        hidden = self.activation(sums)
        for layer in self.deeper:
            hidden = self.activation(layer(hidden))
        return hidden  # type: ignore[no-any-return]


class DeepNADE(NADE):
    """A network of [x * m; m] that gives every site from any others, m telling which are known; so it walks in any order.

    Uria, Murray & Larochelle 2014. Arguments as `NADE`; train it by ``objectives.orderless``.

    Example:
        >>> network = DeepNADE((1, 2, 2), levels=2, size=1, hidden=3, layers=2)
        >>> network.arrange("rows-upward").order.sites
        (2, 3, 0, 1)
    """

    flagged = any_order = True

    def given(self, x: Tensor, known: Tensor, context: Context | None = None) -> Tensor:
        """(n, *shape, k) parameters of every site given the known ones, in one pass; those of known sites mean nothing.

        Args:
            x: (n, *shape) symbols, of which only known ones are looked at.
            known: (n, *shape) booleans, or what broadcasts to them.
        """
        known = known.expand(x.shape).flatten(1)
        seen = self.scale(x.flatten(1).masked_fill(~known, 0)[:, None, :, None])[..., 0].movedim(1, 2) * known[..., None]
        sums = functional.linear(seen.flatten(1), self.sum.weight.flatten(0, 1).T, self.sum.bias)[..., None, None]
        context = context or Context()
        hidden = self._hidden(self.feed(sums, context.vector, context.grid))[..., 0, 0]
        weight = self.output.weight.mT if self.output.gain is None else (self.output.weight * self.output.gain).mT
        return functional.linear(hidden, weight.flatten(0, 1), self.output.bias.flatten()).view(*x.shape, -1)
