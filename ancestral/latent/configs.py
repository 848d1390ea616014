"""Configurations of the latent-variable models: what can be chosen, one line each. Free of torch."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from math import inf
from typing import Any, ClassVar

from ancestral.networks.configs import PixelFields, Presets
from ancestral.spec import Stage

ONE = ("latent", "width", "top", "maps", "posterior_width", "posterior_layers", "prior_components", "prior_width", "prior_layers")
NONE = ("blocks", "halvings", "posterior_steps", "posterior_context", "prior_steps", "stream")
WEIGHTS = ("beta", "lambda_", "free_bits", "soft_free_bits", "kl_warmup")
LEAST = dict.fromkeys((*ONE, "prior_channels", "factor", "resnets", "kl_cycles"), 1) | dict.fromkeys((*NONE, *WEIGHTS), 0)


def check_share(name: str, share: float) -> None:
    """Raise ``ValueError`` where a setting that is a share of the steps is none."""
    if not 0 <= share <= 1:
        raise ValueError(f"{name} is {share}; it is a share of the steps, from 0 to 1")


def check_least(name: str, value: float, least: float = 0) -> None:
    """Raise ``ValueError`` where a setting is less than makes sense, or infinite."""
    if not least <= value < inf:
        raise ValueError(f"{name} is {value}; it must be at least {least}" + " and finite" * isinstance(value, float))


@dataclass(frozen=True, kw_only=True)
class EncoderFields:
    """Sizes of the ResNet (images) or perceptron (vectors) between x and z, both ways."""

    latent: int = 32  # units of z; features of each cell where z is a grid
    spatial: bool = False  # z is a grid at the coarsest size instead of a vector
    width: int = 48  # features of the encoder and the decoder
    blocks: int = 1  # residual blocks a size
    halvings: int = 2  # how often the image is halved on the way to z
    posterior: str = "normal"  # normal, logistic, or iaf: a normal carried on by autoregressive steps (Kingma et al. 2016)
    posterior_steps: int = 2  # of iaf, every other one in reversed order
    posterior_width: int = 64  # hidden units of a step; features where z is a grid
    posterior_layers: int = 1  # hidden layers of a step
    posterior_context: int = 16  # numbers of the encoder that every step sees; features of each cell where z is a grid
    posterior_mean_only: bool = False  # steps shift, and scale nothing
    prior: str = "normal"  # normal, logistic, mixture, flow (Chen et al. 2017), or delta (Razavi et al. 2019)
    prior_components: int = 10  # of mixture: normals a unit, or a feature map
    prior_steps: int = 2  # of flow, and what follows as of iaf
    prior_width: int = 64  # hidden units of a step; features where z is a grid
    prior_layers: int = 1  # hidden layers of a step
    prior_mean_only: bool = False  # steps shift, and scale nothing
    prior_correlation: float = 0.9  # of delta: between neighbouring units, or cells; the higher, the more nats z must carry


@dataclass(frozen=True, kw_only=True)
class ChargeFields:
    """What training charges for z beside a weight; evaluation always charges the whole rate at weight 1.

    Every configuration of continuous latents has these fields, so its sizes are checked here, too: ``least`` has what a setting
    of a name must be at least.

    Raises:
        ValueError: one is less, or infinite.
    """

    least: ClassVar[Mapping[str, int]] = LEAST

    free_bits: float = 0.0  # nats of each latent unit, or feature map of a grid, on average, that training does not charge for
    soft_free_bits: float = 0.0  # nats that z is to carry: training lowers the weight of the KL until it does; 0 for no such aim
    kl_warmup: float = 0.0  # steps over which the weight of the KL rises from 0; up to 1, that share of a stage or cycle
    kl_cycles: int = 1  # how often it rises in each stage
    decoder_dropout: float = 0.0  # probability that the decoder does not read a pixel or symbol, in training alone; 0.1 to 0.5

    def __post_init__(self) -> None:
        for name, least in self.least.items():
            check_least(name, getattr(self, name, least), least)

    def rate_options(self) -> dict[str, float]:
        """Options of the objectives of models with latents; see `ancestral.objectives.Charge`."""
        return {
            "free_bits": self.free_bits,
            "soft_free_bits": self.soft_free_bits,
            "warmup": self.kl_warmup,
            "cycles": self.kl_cycles,
            "dropout": self.decoder_dropout,
        }


@dataclass(frozen=True, kw_only=True)
class RateFields(ChargeFields):
    """What training charges for z, with its weight, and the stage that does."""

    beta: float = 1.0  # weight of the KL in training; evaluation always takes 1

    def rate_options(self) -> dict[str, float]:
        """Options of the objective ``elbo``; see `ancestral.objectives.Charge`."""
        return {"beta": self.beta, **super().rate_options()}

    @property
    def stages(self) -> tuple[Stage, ...]:
        """How it trains: the evidence lower bound, all of the way."""
        return (Stage("elbo", "elbo", self.rate_options()),)


@dataclass(frozen=True, kw_only=True)
class VaeConfig(RateFields, EncoderFields):
    """Variational autoencoder with a factorised decoder (Kingma & Welling 2014)."""

    name: ClassVar[str] = "vae"
    presets: ClassVar[Presets] = {
        "tiny": {"latent": 2, "width": 8, "halvings": 1},
        "small": {},
        "paper": {"latent": 64, "width": 96, "blocks": 3},
    }

    decoder: str = "auto"  # bernoulli, logistic, normal, or auto: what fits the data
    conditional: bool = False  # condition on the labels of the data


@dataclass(frozen=True, kw_only=True)
class BetaVaeConfig(VaeConfig):
    """beta-VAE (Higgins et al. 2017): a VAE that weighs the KL more, for z whose units tell apart what varies in the data.

    ``paper`` has the sizes published for dSprites, four halvings on the way to ten units, in residual blocks.
    """

    name: ClassVar[str] = "beta-vae"
    presets: ClassVar[Presets] = {
        "tiny": {"latent": 2, "width": 8, "halvings": 1},
        "small": {},
        "paper": {"latent": 10, "width": 64, "halvings": 4},
    }

    beta: float = 4.0  # weight of the KL in training; evaluation always takes 1


@dataclass(frozen=True, kw_only=True)
class IafVaeConfig(RateFields):
    """Top-down ResNet VAE with a factorised decoder and inverse autoregressive flow (Kingma et al. 2016)."""

    name: ClassVar[str] = "iaf-vae"
    presets: ClassVar[Presets] = {
        "tiny": {"latent": 2, "width": 6, "blocks": 1, "halvings": 1},
        "small": {},
        "paper": {"latent": 32, "width": 160, "blocks": 20, "halvings": 1},
    }

    latent: int = 4  # features of each z, which are grids
    width: int = 24  # features of the ResNet
    blocks: int = 2  # layers, each with a z, at each size
    halvings: int = 2  # sizes with latents: the image halved once, twice, ...
    posterior: str = "iaf"  # iaf (one step of inverse autoregressive flow a layer) or normal
    free_bits: float = 0.1  # nats of each feature map, on average, that training does not charge for
    decoder: str = "auto"  # bernoulli, logistic, normal, or auto: what fits the data
    conditional: bool = False  # condition on the labels of the data


@dataclass(frozen=True, kw_only=True)
class PixelVaeConfig(RateFields, PixelFields, EncoderFields):
    """PixelVAE (Gulrajani et al. 2017): a VAE whose decoder is a Gated PixelCNN of few layers."""

    name: ClassVar[str] = "pixelvae"
    presets: ClassVar[Presets] = {
        "tiny": {
            "layers": 2,
            "channels": 6,
            "first_kernel": 3,
            "head": 6,
            "latent": 2,
            "width": 8,
            "halvings": 1,
            "components": 2,
            "maps": 3,
        },
        "small": {"layers": 4, "channels": 32, "head": 64, "width": 32, "latent": 16, "kl_warmup": 0.2},
        "paper": {  # binary images, the form without upsampling; 200,000 steps, batches of 100
            "layers": 13,
            "channels": 16,
            "kernel": 5,
            "head": 16,
            "latent": 16,
            "width": 64,
            "blocks": 2,
            "kl_warmup": 10000.0,
        },
    }

    form: str = "vector"  # how z enters the decoder: vector (in every gated layer), or upsample (maps beside the image)
    maps: int = 32  # features of those maps


@dataclass(frozen=True, kw_only=True)
class HierarchicalPixelVaeConfig(RateFields, PixelFields):
    """PixelVAE with two groups of latents (Gulrajani et al. 2017): a vector z2, and a grid z1 with a PixelCNN as its prior."""

    name: ClassVar[str] = "hierarchical-pixelvae"
    presets: ClassVar[Presets] = {
        "tiny": {
            "layers": 2,
            "channels": 6,
            "first_kernel": 3,
            "head": 6,
            "components": 2,
            "latent": 2,
            "top": 2,
            "width": 8,
            "halvings": 1,
            "maps": 3,
            "prior_layers": 2,
            "prior_channels": 4,
        },
        "small": {"layers": 3, "channels": 32, "head": 64, "width": 32, "latent": 4, "top": 16, "kl_warmup": 0.2},
        "paper": {  # 64 x 64 colours; 400,000 steps, batches of 48
            "layers": 5,
            "channels": 384,
            "kernel": 5,
            "head": 384,
            "latent": 64,
            "top": 512,
            "width": 384,
            "blocks": 3,
            "maps": 384,
            "prior_layers": 8,
            "prior_channels": 384,
            "family": "categorical",
            "kl_warmup": 10000.0,
        },
    }

    latent: int = 16  # feature maps of z1
    top: int = 32  # units of z2
    width: int = 48  # features of the encoders and decoders
    blocks: int = 1  # residual blocks a size
    halvings: int = 2  # how often the image is halved on the way to z1
    maps: int = 32  # features of what z1 is decoded to, beside the image
    prior_layers: int = 3  # gated layers of p(z1 | z2)
    prior_channels: int = 32  # features of each of its two stacks, and of its head

    def prior_sizes(self) -> dict[str, Any]:
        """The sizes of the Gated PixelCNN over z1, by name."""
        wide = self.prior_channels
        return {"layers": self.prior_layers, "channels": wide, "first_kernel": 5, "kernel": 3, "head": wide}


@dataclass(frozen=True, kw_only=True)
class VlaeConfig(RateFields, EncoderFields):
    """Variational lossy autoencoder (Chen et al. 2017): the decoder sees a small window, so z must carry the rest."""

    name: ClassVar[str] = "vlae"
    presets: ClassVar[Presets] = {
        "tiny": {
            "layers": 2,
            "channels": 6,
            "head": 6,
            "components": 2,
            "window": "3x1",
            "maps": 3,
            "latent": 2,
            "width": 8,
            "halvings": 1,
        },
        "small": {"width": 32, "kl_warmup": 0.2},
        "paper": {  # CIFAR-10; see `ancestral.latent.vlae.vlae` for what differs, and for binary images
            "window": "7x4",
            "layers": 6,
            "channels": 64,
            "components": 10,
            "maps": 48,
            "latent": 16,
            "spatial": True,
            "width": 96,
            "blocks": 3,
            "prior_steps": 6,
            "prior_width": 128,
            "prior_layers": 2,
            "soft_free_bits": 30.72,  # 0.01 nats a dimension, which the paper gives for binary images
        },
    }

    prior: str = "flow"  # flow (Chen et al. 2017), or as of the other models: normal, logistic, mixture, delta
    window: str = "5x3"  # pixels that the decoder sees: A wide, B rows on top, and ceil((A - 1) / 2) to the left
    luma: bool = False  # it sees only how bright they are, 0.299 R + 0.587 G + 0.114 B
    coarse: int = 1  # it sees squares of so many pixels a side by their means: what is far away without its details
    coupled: bool = True  # the colours of a pixel see the ones before them
    layers: int = 4  # 1x1 gated layers after the window
    channels: int = 64  # their features
    head: int = 128  # features of the 1x1 layer before the output
    maps: int = 32  # features that z is decoded to, at every pixel
    family: str = "auto"  # bernoulli, categorical, logistic (a mixture), or auto: see `image_family`
    components: int = 5  # components of the logistic mixture
    conditional: bool = False  # condition on the labels of the data


@dataclass(frozen=True, kw_only=True)
class GuidedFields(ChargeFields):
    """Auxiliary guidance (Lucas & Verbeek 2018): what a second, factorised likelihood of y(x) makes of training."""

    pretrained: ClassVar[str] = "decoder"  # what the stage is called in which the decoder of x trains without z

    lambda_: float = 2.0  # weight of the KL in the joint stage (eq. 7); evaluation always takes 1
    auxiliary: bool = True  # whether there is an auxiliary loss; without it the KL still weighs lambda_: 1 is the ELBO
    pretraining: float = 0.5  # share of the steps in which VAE and decoder train apart; 1 for a pair that other runs start from
    pretrain: str = "both"  # which of them: both, vae, or the decoder

    @property
    def stages(self) -> tuple[Stage, ...]:
        """How it trains: the VAE on y, the decoder on x alone, then both together; without auxiliary loss, together."""
        apart = [
            Stage("vae", "auxiliary_elbo", self.rate_options(), parts=("topdown", "auxiliary"), share=0.3),
            Stage(self.pretrained, "nll", parts=("likelihood",), share=0.7),
        ]
        apart = [stage for stage in apart if self.pretrain in ("both", stage.name) and (self.auxiliary or stage.name != "vae")]
        whole = sum(stage.share for stage in apart)
        before = [replace(stage, share=stage.share / whole * self.pretraining) for stage in apart]
        joint = Stage("joint", "auxiliary_guided" if self.auxiliary else "elbo", self._weight(), share=1 - self.pretraining)
        return tuple(stage for stage in (*before, joint) if stage.share > 0)

    def _weight(self) -> dict[str, float]:
        return {"lambda_" if self.auxiliary else "beta": self.lambda_, **self.rate_options()}


@dataclass(frozen=True, kw_only=True)
class AgaveConfig(GuidedFields, PixelFields, EncoderFields):
    """Auxiliary-guided autoregressive VAE (Lucas & Verbeek 2018)."""

    name: ClassVar[str] = "agave"
    pretrained: ClassVar[str] = "pixelcnn"
    presets: ClassVar[Presets] = {
        "tiny": {
            "layers": 2,
            "channels": 6,
            "first_kernel": 3,
            "head": 6,
            "latent": 2,
            "width": 8,
            "halvings": 1,
            "components": 2,
        },
        "small": {"layers": 5, "channels": 32, "head": 64, "width": 32, "stream": 16},
        "paper": {
            "encoder": "resnet",
            "posterior": "iaf",
            "latent": 32,
            "width": 160,
            "blocks": 20,
            "halvings": 1,
            "decoder": "pixelcnn++",
            "channels": 160,
            "resnets": 5,
            "dropout": 0.5,
            "components": 10,
            "stream": 160,  # not in the paper: as wide as the layers beside it
            "lambda_": 12.0,
        },
    }

    encoder: str = "flat"  # flat (one group of latents), or resnet: a grid of latents in each layer, as the paper has it
    decoder: str = "gated-pixelcnn"  # or pixelcnn++, which the paper has: it takes channels, components and what follows
    resnets: int = 2  # of pixelcnn++: layers at each of three resolutions on the way down; see `PixelCNNPlusPlusConfig`
    dropout: float = 0.0  # of pixelcnn++: probability that a feature inside a layer is dropped in training
    colours: int = 0  # levels b of the auxiliary image; 0 for as many as the data have
    factor: int = 1  # the auxiliary image is smaller by this factor, both ways
    stream: int = 32  # features of the unmasked convolutions over f(z) beside the causal layers
    pretrain: str = "both"  # which of VAE and PixelCNN train apart: both, vae, or pixelcnn
