"""The law of codes: an autoregressive network of images, which looks them up in a table, as they are names and no quantities."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

from ancestral.causal import CausalNetwork
from ancestral.core import Autoregressive
from ancestral.families import Categorical
from ancestral.latent.code_configs import VqVaeConfig
from ancestral.networks.configs import (
    DiagonalBiLSTMConfig,
    GatedPixelCNNConfig,
    PixelCNNConfig,
    PixelCNNPlusPlusConfig,
    RowLSTMConfig,
    TransformerConfig,
)
from ancestral.networks.factorised import Uniform
from ancestral.networks.gated_pixelcnn import GatedPixelCNN
from ancestral.networks.images import image_model, listening
from ancestral.networks.pixelcnn import PixelCNN
from ancestral.networks.pixelcnnpp import pixelcnnpp
from ancestral.networks.pixelrnn import PixelRNN
from ancestral.networks.transformer import transformer
from ancestral.spec import DataSpec

HEADS = 4  # of attention, at most
WINDOW = 5  # of a first layer
Make = Callable[[VqVaeConfig, DataSpec, int], Autoregressive]  # of sizes, of what codes there are, and of the features of a grid


def masked(
    network: Callable[..., CausalNetwork], sizes: Callable[..., Any], config: VqVaeConfig, spec: DataSpec, grid: int
) -> Autoregressive:
    """A network of layers over the image of codes, from the configuration ``sizes`` that it has as a model of images."""
    wide = config.prior_channels
    head = {"layers": config.prior_layers, "channels": wide, "first_kernel": WINDOW, "head": 2 * wide}
    more = {"embedding": wide, "grid": grid} | ({"stream": wide} if network is GatedPixelCNN else {})
    return image_model(network, sizes(**head, family="categorical", conditional=config.conditional), spec, head | more)


def resnets(config: VqVaeConfig, spec: DataSpec, grid: int) -> Autoregressive:
    """PixelCNN++ with a softmax, of one code a place."""
    if config.depth > 1:
        able = ", ".join(name for name in PRIORS if name != "pixelcnn++")
        raise ValueError(f"pixelcnn++ models one code a place, not depth={config.depth}; of more do {able}")
    sizes = PixelCNNPlusPlusConfig(
        channels=config.prior_channels,
        resnets=config.prior_layers,
        dropout=0.0,
        family="categorical",
        conditional=config.conditional,
    )
    return pixelcnnpp(sizes, spec, grid, config.prior_channels, embedding=config.prior_channels)


def attention(config: VqVaeConfig, spec: DataSpec, grid: int) -> Autoregressive:
    """A Transformer of as many heads as share its width."""
    wide = config.prior_channels
    heads = next(heads for heads in range(HEADS, 0, -1) if wide % heads == 0)
    sizes = TransformerConfig(
        layers=config.prior_layers,
        width=wide,
        heads=heads,
        dropout=0.0,
        family="categorical",
        conditional=config.conditional,
    )
    return transformer(sizes, spec, grid=grid)


def even(config: VqVaeConfig, spec: DataSpec, grid: int) -> Autoregressive:
    """All codes equally likely, whatever the grid."""
    shape, levels = tuple(size or 0 for size in spec.shape), spec.levels or 2
    return Autoregressive(Uniform(shape, levels), Categorical(levels), spec)


PRIORS: dict[str, Make] = {
    "gated-pixelcnn": partial(masked, GatedPixelCNN, GatedPixelCNNConfig),
    "pixelcnn": partial(masked, PixelCNN, PixelCNNConfig),
    "pixelcnn++": resnets,
    "row-lstm": partial(masked, partial(PixelRNN, diagonal=False), RowLSTMConfig),
    "diagonal-bilstm": partial(masked, partial(PixelRNN, diagonal=True), DiagonalBiLSTMConfig),
    "transformer": attention,
    "uniform": even,
}


def prior_of_codes(name: str, config: VqVaeConfig, spec: DataSpec, grid: int = 0) -> Autoregressive:
    """The prior over images of codes, ``spec``, that has this name.

    Args:
        grid: features of the grid that it is told, such as decoded codes of a coarser grid.

    Raises:
        ValueError: there is none, or it cannot be one of such codes.
    """
    if name not in PRIORS:
        raise ValueError(f"there is no prior {name!r} of codes; choose one of {', '.join(PRIORS)}")
    made = PRIORS[name](config, spec, grid)
    made.network.conditional = made.conditional  # its configuration, of images, stays behind
    return listening(made) if grid else Autoregressive(made.network, made.family, spec)
