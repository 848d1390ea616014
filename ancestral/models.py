"""Model names, their configurations and constructors: one explicit table, and `build`."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, fields, replace
from difflib import get_close_matches
from importlib import import_module
from typing import TYPE_CHECKING, Any

from ancestral.latent.code_configs import VqVaeConfig
from ancestral.latent.configs import (
    AgaveConfig,
    BetaVaeConfig,
    HierarchicalPixelVaeConfig,
    IafVaeConfig,
    PixelVaeConfig,
    VaeConfig,
    VlaeConfig,
)
from ancestral.latent.sequence_configs import TransformerVaeConfig, WaveNetVaeConfig
from ancestral.latent.two_stage_configs import TwoStageConfig
from ancestral.networks.configs import (
    DeepNADEConfig,
    DiagonalBiLSTMConfig,
    GatedPixelCNNConfig,
    MADEConfig,
    NADEConfig,
    PixelCNNConfig,
    PixelCNNPlusPlusConfig,
    RNADEConfig,
    RowLSTMConfig,
    TransformerConfig,
    WaveNetConfig,
)
from ancestral.spec import DataSpec

if TYPE_CHECKING:
    from ancestral.core import Autoregressive, Family, Network
    from ancestral.latent.latent import Latent

Config = (
    GatedPixelCNNConfig
    | VaeConfig
    | BetaVaeConfig
    | IafVaeConfig
    | AgaveConfig
    | PixelVaeConfig
    | HierarchicalPixelVaeConfig
    | VlaeConfig
    | VqVaeConfig
    | TwoStageConfig
    | PixelCNNConfig
    | PixelCNNPlusPlusConfig
    | NADEConfig
    | RNADEConfig
    | DeepNADEConfig
    | MADEConfig
    | RowLSTMConfig
    | DiagonalBiLSTMConfig
    | WaveNetConfig
    | TransformerConfig
    | TransformerVaeConfig
    | WaveNetVaeConfig
)


@dataclass(frozen=True)
class Entry:
    """A model of the table: its configuration, the constructor as "module:function", and what its likelihood is."""

    config: type[Any]
    constructor: str
    status: str
    summary: str


MODELS: dict[str, Entry] = {
    "nade": Entry(NADEConfig, "ancestral.networks.nade:nade", "exact", "a running sum over sites, a hidden layer at each"),
    "rnade": Entry(RNADEConfig, "ancestral.networks.nade:rnade", "exact", "NADE of real values: a mixture of densities a site"),
    "deep-nade": Entry(DeepNADEConfig, "ancestral.networks.nade:deep_nade", "exact", "any site from any others, in any order"),
    "made": Entry(MADEConfig, "ancestral.networks.made:made", "exact", "a perceptron under masks, several orders as an option"),
    "gated-pixelcnn": Entry(
        GatedPixelCNNConfig,
        "ancestral.networks.gated_pixelcnn:gated_pixelcnn",
        "exact",
        "two-stack gated convolutions, no blind spot",
    ),
    "pixelcnn": Entry(
        PixelCNNConfig, "ancestral.networks.pixelcnn:pixelcnn", "exact", "masked convolutions, residual blocks, a blind spot"
    ),
    "pixelcnn++": Entry(
        PixelCNNPlusPlusConfig,
        "ancestral.networks.pixelcnnpp:pixelcnnpp",
        "exact",
        "gated layers at three resolutions, a mixture over whole pixels",
    ),
    "row-lstm": Entry(
        RowLSTMConfig, "ancestral.networks.pixelrnn:pixelrnn", "exact", "LSTMs row by row, seeing a triangle above"
    ),
    "diagonal-bilstm": Entry(
        DiagonalBiLSTMConfig,
        "ancestral.networks.pixelrnn:pixelrnn",
        "exact",
        "LSTMs along diagonals from both sides, seeing all that came before",
    ),
    "wavenet": Entry(
        WaveNetConfig, "ancestral.networks.wavenet:wavenet", "exact", "gated windows along time, twice as far apart at each layer"
    ),
    "transformer": Entry(
        TransformerConfig,
        "ancestral.networks.transformer:transformer",
        "exact",
        "attention to all symbols before, for text, audio and images; all orders as an option",
    ),
    "vae": Entry(VaeConfig, "ancestral.latent.vae:vae", "bound", "convolutional ResNet VAE, every pixel by itself given z"),
    "beta-vae": Entry(BetaVaeConfig, "ancestral.latent.vae:vae", "bound", "the VAE with the KL at another weight in training"),
    "iaf-vae": Entry(
        IafVaeConfig, "ancestral.latent.iaf_vae:iaf_vae", "bound", "top-down ResNet VAE of many groups, inverse flow posterior"
    ),
    "pixelvae": Entry(
        PixelVaeConfig, "ancestral.latent.pixelvae:pixelvae", "bound", "VAE with a PixelCNN decoder of few layers that reads z"
    ),
    "hierarchical-pixelvae": Entry(
        HierarchicalPixelVaeConfig,
        "ancestral.latent.pixelvae:hierarchical_pixelvae",
        "bound",
        "two groups of latents, the lower one a grid with a PixelCNN as its prior",
    ),
    "vlae": Entry(
        VlaeConfig, "ancestral.latent.vlae:vlae", "bound", "VAE whose decoder sees a small window, so that z carries the rest"
    ),
    "vq-vae": Entry(
        VqVaeConfig, "ancestral.latent.vq_vae:vq_vae", "bound", "a grid of codes, with an autoregressive model as their prior"
    ),
    "agave": Entry(
        AgaveConfig, "ancestral.latent.agave:agave", "bound", "VAE with a PixelCNN decoder, z kept in use by an auxiliary image"
    ),
    "two-stage": Entry(
        TwoStageConfig,
        "ancestral.latent.two_stage:two_stage",
        "bound",
        "a grey or smaller image of x first, then x given it, each by a PixelCNN",
    ),
    "transformer-vae": Entry(
        TransformerVaeConfig,
        "ancestral.latent.transformer_vae:transformer_vae",
        "bound",
        "VAE of text with a Transformer decoder, z kept in use by a bag of words as an option",
    ),
    "wavenet-vae": Entry(
        WaveNetVaeConfig,
        "ancestral.latent.wavenet_vae:wavenet_vae",
        "bound",
        "VAE of sound with a WaveNet decoder, z of a clip, along it or both, coarser sound as an option",
    ),
}


def nearest(word: str, choices: list[str]) -> str:
    """A hint for a misspelt word: the nearest choice if one is near, and all of them."""
    close = get_close_matches(word, choices, n=1, cutoff=0.5)
    return (f"did you mean {close[0]!r}? " if close else "") + f"There are: {', '.join(sorted(choices))}."


def entry(name: str) -> Entry:
    """The table's entry of a model name.

    Raises:
        ValueError: no such model; the nearest name is offered.
    """
    if name not in MODELS:
        raise ValueError(f"there is no model {name!r}; {nearest(name, list(MODELS))}")
    return MODELS[name]


def configure(name: str, preset: str = "small", **overrides: Any) -> Any:
    """The configuration of a model: a preset with some values replaced.

    Raises:
        ValueError: no such model, preset or key (the nearest is offered), or a value of another type.
    """
    kind = entry(name).config
    if preset not in kind.presets:
        raise ValueError(f"{name} has no preset {preset!r}; {nearest(preset, list(kind.presets))}")
    return _replaced(kind(**kind.presets[preset]), overrides)


def _replaced(config: Any, values: Mapping[str, Any]) -> Any:
    """A configuration with other values; errors as ``configure`` has them."""
    known = {field.name for field in fields(config)}
    for key, value in values.items():
        if key not in known:
            raise ValueError(f"{config.name} has no setting {key!r}; {nearest(key, list(known))}")
        wanted = type(getattr(config, key))
        if not isinstance(value, (int, float) if wanted is float else wanted) or isinstance(value, bool) is not (wanted is bool):
            raise ValueError(f"{config.name}: {key} is {value!r}; it takes a value of type {wanted.__name__}")
    return replace(config, **values)


def build(
    model: str | Config | None = None,
    spec: DataSpec | None = None,
    *,
    preset: str | None = None,
    network: Network | None = None,
    family: Family | str | None = None,
    **overrides: Any,
) -> Autoregressive | Latent:
    """A model with fresh weights, by name, by configuration, or of your own network and family.

    Args:
        model: a name of `MODELS` or one of their configurations.
        spec: what the data are.
        preset: of a name; ``tiny`` is small enough to enumerate, ``small``, the default, trains on a CPU in minutes, ``paper`` is
            the published size.
        network, family: your own; then no name is given.
        overrides: single values of the configuration; with a name, ``family`` is one of them and a string.

    Raises:
        ValueError: unknown names or keys, or a model that does not fit the spec.

    Example:
        >>> type(build("gated-pixelcnn", DataSpec("image", (1, 8, 8), levels=17), preset="tiny", layers=3)).__name__
        'Autoregressive'
    """
    if not isinstance(spec, DataSpec):
        raise ValueError("build needs a DataSpec: what one example is; ancestral.data(...).spec has that of a data set")
    if model is None:
        if network is None or family is None or isinstance(family, str):
            raise ValueError("build needs a model's name, its configuration, or both network= and family=, which is a Family")
        from ancestral.core import Autoregressive

        own_model = Autoregressive(network, family, spec)
        if any(own != size for own, size in zip(network.shape, spec.shape, strict=True) if size is not None):
            raise ValueError(f"the network is of examples {tuple(network.shape)}, and the data have {spec.shape}")
        return own_model
    if network is not None or not (family is None or isinstance(family, str)):
        raise ValueError("network= and family= of your own make a model by themselves: leave the model's name out")
    if family is not None:
        overrides["family"] = family
    if isinstance(model, str):
        config = configure(model, preset or "small", **overrides)
    elif preset is not None or isinstance(model, type):
        raise ValueError("a preset goes with a model's name: give that, or a configuration, which is complete, by itself")
    else:
        config = _replaced(model, overrides)
    if getattr(config, "conditional", False) and spec.classes is None:
        raise ValueError(f"{config.name}: conditional=True, and the data have no classes (DataSpec(classes=...)): leave it out")
    module, function = entry(config.name).constructor.split(":")
    made: Autoregressive | Latent = getattr(import_module(module), function)(config, spec)
    return made
