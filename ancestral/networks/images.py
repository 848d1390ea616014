"""What the networks of images share: their families, how a context enters, and their constructors' checks."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Protocol

import torch
from torch import Tensor, nn

from ancestral.causal import CausalNetwork, Once
from ancestral.core import Autoregressive, Family
from ancestral.families import Bernoulli, Categorical, LaplaceMixture, LogisticMixture, NormalMixture
from ancestral.spec import DataSpec


class ImageConfig(Protocol):
    """What every configuration of an image network has."""

    @property
    def name(self) -> str: ...

    @property
    def channels(self) -> int: ...

    @property
    def head(self) -> int: ...

    @property
    def family(self) -> str: ...

    @property
    def components(self) -> int: ...

    @property
    def conditional(self) -> bool: ...


def image_family(name: str, levels: int, components: int) -> Family:
    """The family that an image network's conditionals have.

    ``auto``: Bernoulli for two levels, a categorical up to 32, a mixture of discretized logistics above: it knows that
    neighbouring levels are alike, which a softmax must learn.

    Raises:
        ValueError: no such family, or it does not fit the levels.
    """
    chosen = name if name != "auto" else "bernoulli" if levels == 2 else "categorical" if levels <= 32 else "logistic"
    if chosen == "bernoulli" and levels == 2:
        return Bernoulli()
    if chosen == "categorical":
        return Categorical(levels)
    if chosen == "logistic":
        return LogisticMixture(levels, components)
    raise ValueError(
        f"family {name!r} does not fit {levels} levels; choose auto, categorical, logistic or, for 2 levels, bernoulli"
    )


def check_ordered(family: str, spec: DataSpec) -> bool:
    """Whether neighbouring levels are alike: those of text, of parts of samples and of an end are not.

    Raises:
        ValueError: they are not, and the family is a mixture of logistics, to which they would be.
    """
    ordered = spec.kind != "text" and spec.parts == 1 and spec.end is None
    if family == "logistic" and not ordered:
        raise ValueError(
            "a mixture of logistics needs levels in order, so no text, no parts of samples and no end: take a categorical"
        )
    return ordered


def check_dropout(dropout: float) -> None:
    """Raise ``ValueError`` where a probability of dropping what a network reads leaves nothing, or is none."""
    if not 0 <= dropout < 1:
        raise ValueError(f"dropout is {dropout}; it must be at least 0 and below 1")


def starting_bias(family: Family, sites: int) -> Tensor:
    """(sites, k) parameters to start from: the components of a mixture side by side over the range of the data, else zeros.

    The range is [-1, 1] of levels and [-3, 3] of real values, which are taken to be standardised (Uria et al. 2013). From
    elsewhere a network first moves towards the best constant, and faster by its features than by a bias: they run away and
    saturate the gates that they go into.
    """
    start = torch.zeros(sites, family.size)
    for site in range(sites):
        one = family.at(site)
        if isinstance(one, LogisticMixture | NormalMixture | LaplaceMixture):
            k = one.components
            gap = (2.0 if one.discrete else 6.0) / (k + 1)
            start[site, k : 2 * k] = gap * (torch.arange(k) - (k - 1) / 2)
            start[site, 2 * k : 3 * k] = torch.tensor(gap).log()
    return start


@torch.no_grad()
def start_from(family: Family, output: nn.Module) -> None:
    """Move the bias of an output layer, the k parameters of every channel or site side by side, to those of `starting_bias`."""
    bias = output.get_parameter("bias")
    bias.add_(starting_bias(family, bias.numel() // family.size).view_as(bias))


def image_model(
    network: Callable[..., CausalNetwork], config: ImageConfig, spec: DataSpec, sizes: dict[str, Any], auto: str = "auto"
) -> Autoregressive:
    """The model of a network ``network(shape, levels, size, vector=..., **sizes)`` of a configuration.

    Args:
        sizes: what else the network takes; ``vector`` too where the context's has more than a label.
        auto: what the family ``auto`` stands for where there are more than two levels.

    Raises:
        ValueError: the data are not images of integers, or have more colours than a layer has features.
    """
    if spec.kind != "image" or spec.levels is None:
        raise ValueError(f"{config.name} models images of integers, not {spec.kind} with levels={spec.levels}")
    if sizes.get("layers", 1) < 1:
        raise ValueError(f"{config.name} needs at least 1 layer, not {sizes['layers']}")
    colours, height, width = (size or 0 for size in spec.shape)
    if min(config.channels, config.head) < colours:
        raise ValueError(f"channels={config.channels} and head={config.head} must be at least {colours}, one for every colour")
    chosen = auto if config.family == "auto" and spec.levels > 2 else config.family
    family = image_family(chosen, spec.levels, config.components)
    vector = (spec.classes or 0) if config.conditional else 0
    made = network((colours, height, width), spec.levels, family.size, **({"vector": vector} | sizes))
    start_from(family, made.head[-1])  # type: ignore[index, arg-type]
    return Autoregressive(made, family, spec, config)


class Feed(nn.Module):
    """y + V vector + W grid: what the context adds to a layer; without bias, so that a missing part adds nothing.

    It starts at zero: a network trained without the context is left undisturbed at first. See `listening` for latents.
    """

    def __init__(self, vector: int, grid: int, features: int) -> None:
        super().__init__()
        self.vector = Once(nn.Linear(vector, features, bias=False)) if vector else None
        self.grid = Once(nn.Conv2d(grid, features, 1, bias=False)) if grid else None
        for layer in (self.vector, self.grid):
            if layer is not None:
                nn.init.zeros_(layer.module.weight)  # type: ignore[arg-type]

    def forward(self, y: Tensor, vector: Tensor | None, grid: Tensor | None) -> Tensor:
        for name, layer, part in (("vector", self.vector, vector), ("grid", self.grid, grid)):
            if part is not None and layer is None:
                raise ValueError(f"the context has a {name}, but this network was made without: give it {name}=... features")
            y = y if part is None or layer is None else y + layer(part)
        return y


def listening(model: Autoregressive) -> Autoregressive:
    """The same as a decoder: its feeds start as layers usually do, for latents that are learned with it from the first step.

    A feed of zeros passes no gradient on, so an encoder would be charged for z before anyone has listened to it. The
    configuration is that of the whole model, so it is not the decoder's.
    """
    for feed in model.network.modules():
        if isinstance(feed, Feed):
            for layer in (feed.vector, feed.grid):
                if layer is not None:
                    layer.module.reset_parameters()  # type: ignore[operator]
    return Autoregressive(model.network, model.family, model.spec)
