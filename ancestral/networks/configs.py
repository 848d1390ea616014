"""Configurations of the autoregressive models: what can be chosen, one line each. Free of torch."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

from ancestral.spec import Stage

Presets = dict[str, dict[str, Any]]


class ByLikelihood:
    """A configuration of a model that trains by its likelihood, all of the way."""

    @property
    def stages(self) -> tuple[Stage, ...]:
        """How it trains."""
        return (Stage("likelihood", "nll"),)


@dataclass(frozen=True, kw_only=True)
class PixelFields:
    """Sizes of a Gated PixelCNN, alone or as the decoder of a latent-variable model."""

    layers: int = 7  # gated layers
    channels: int = 64  # features of each of the two stacks
    first_kernel: int = 7  # window of the first layer, odd
    kernel: int = 3  # window of the other layers, odd
    head: int = 128  # features of the 1x1 layer before the output
    family: str = "auto"  # bernoulli, categorical, logistic (a mixture), or auto: see `image_family`
    components: int = 5  # components of the logistic mixture
    conditional: bool = False  # condition on the labels of the data

    def decoder_sizes(self) -> dict[str, Any]:
        """The sizes that the network takes, by name."""
        return {name: getattr(self, name) for name in ("layers", "channels", "first_kernel", "kernel", "head")}


@dataclass(frozen=True, kw_only=True)
class GatedPixelCNNConfig(ByLikelihood, PixelFields):
    """Gated PixelCNN (van den Oord et al. 2016b)."""

    name: ClassVar[str] = "gated-pixelcnn"
    presets: ClassVar[Presets] = {
        "tiny": {"layers": 2, "channels": 6, "first_kernel": 3, "head": 6, "components": 2},
        "small": {"layers": 5, "channels": 32, "head": 64},
        "paper": {"layers": 20, "channels": 384, "first_kernel": 5, "kernel": 5, "head": 1024, "family": "categorical"},
    }


@dataclass(frozen=True, kw_only=True)
class PixelCNNConfig(ByLikelihood):
    """PixelCNN (van den Oord, Kalchbrenner & Kavukcuoglu 2016)."""

    name: ClassVar[str] = "pixelcnn"
    presets: ClassVar[Presets] = {
        "tiny": {"layers": 2, "channels": 6, "first_kernel": 3, "head": 6, "components": 2},
        "small": {"layers": 7, "channels": 32, "head": 64},
        "paper": {},
    }

    layers: int = 15  # residual blocks
    channels: int = 128  # features inside a block; twice as many outside
    first_kernel: int = 7  # window of the first layer, odd
    kernel: int = 3  # window of the blocks, odd
    head: int = 1024  # features of each of the two 1x1 layers before the output
    family: str = "auto"  # bernoulli, categorical, logistic (a mixture), or auto: a softmax, of two levels a Bernoulli
    components: int = 5  # components of the logistic mixture
    conditional: bool = False  # condition on the labels of the data


@dataclass(frozen=True, kw_only=True)
class PixelCNNPlusPlusConfig(ByLikelihood):
    """PixelCNN++ (Salimans et al. 2017)."""

    name: ClassVar[str] = "pixelcnn++"
    presets: ClassVar[Presets] = {
        "tiny": {"channels": 3, "resnets": 1, "components": 2},
        "small": {"channels": 40, "resnets": 2, "components": 5, "dropout": 0.0},
        "paper": {},
    }

    channels: int = 160  # features of each of the two streams
    resnets: int = 5  # layers at each of the three resolutions on the way down; 1 more at the two larger ones on the way up
    family: str = "auto"  # with three colours a logistic mixture over whole pixels; with one see `image_family`
    components: int = 10  # components of the logistic mixture
    dropout: float = 0.5  # probability that a feature inside a layer is dropped in training; 0 for short runs
    conditional: bool = False  # condition on the labels of the data


@dataclass(frozen=True, kw_only=True)
class WaveFields:
    """Sizes of a WaveNet, alone or as the decoder of a latent-variable model."""

    layers: int = 10  # layers of a cycle, whose windows have taps 1, 2, 4, ... samples apart
    cycles: int = 3  # how often that is repeated
    kernel: int = 2  # taps of a window, the present sample among them
    first_kernel: int = 1  # samples before the present one that the first layer reads
    channels: int = 32  # features that go on from layer to layer
    gates: int = 32  # features of the gates inside a layer
    skip: int = 256  # features of the sum over all layers
    head: int = 256  # features of the 1x1 layer between that sum and the output
    symbols: str = "embedding"  # how symbols enter: embedding (rows of a table, as a one-hot vector's map) or scaled (to -1 .. 1)
    family: str = "auto"  # bernoulli, categorical, logistic (a mixture), or auto: a softmax, of two levels a Bernoulli
    components: int = 10  # components of the logistic mixture
    conditional: bool = False  # condition on the labels of the data


@dataclass(frozen=True, kw_only=True)
class WaveNetConfig(ByLikelihood, WaveFields):
    """WaveNet (van den Oord et al. 2016)."""

    name: ClassVar[str] = "wavenet"
    presets: ClassVar[Presets] = {
        "tiny": {"layers": 2, "cycles": 2, "channels": 4, "gates": 4, "skip": 8, "head": 8, "components": 2},
        "small": {"layers": 9, "cycles": 2, "skip": 128, "head": 128},
        "paper": {"cycles": 5, "first_kernel": 2, "skip": 512, "head": 512},  # widths are not in the paper: a public choice
    }

    condition: str = "none"  # none, or mel: follow the log-mel spectrogram of each clip
    local: int = 0  # features of a grid that accompanies the samples; 0 for none, and for 40 bands of a spectrogram
    hop: int = 1  # samples that one place of that grid lasts; of a spectrogram 128 where nothing is said
    upsample: str = "repeat"  # how it is brought to the rate of the samples: repeat, or learned (a transposed convolution)

    @property
    def grid(self) -> tuple[int, int]:
        """Features of the grid, and samples that a place of it lasts."""
        return (self.local or 40, self.hop if self.hop > 1 else 128) if self.condition == "mel" else (self.local, self.hop)


@dataclass(frozen=True, kw_only=True)
class NADEConfig(ByLikelihood):
    """Neural autoregressive distribution estimator of integers (Larochelle & Murray 2011)."""

    hidden: int = 500  # features of the hidden layer
    activation: str = "sigmoid"  # sigmoid or relu
    family: str = "auto"  # bernoulli, categorical, logistic (a mixture), or auto: see `site_family`
    components: int = 5  # components of the logistic mixture
    conditional: bool = False  # condition on the labels of the data

    name: ClassVar[str] = "nade"
    presets: ClassVar[Presets] = {"tiny": {"hidden": 6, "components": 2}, "small": {}, "paper": {}}


@dataclass(frozen=True, kw_only=True)
class RNADEConfig(ByLikelihood):
    """NADE of real values, a mixture of densities a site (Uria, Murray & Larochelle 2013)."""

    hidden: int = 128  # features of the hidden layer
    activation: str = "relu"  # relu or sigmoid
    family: str = "auto"  # normal or laplace, mixtures of them; auto is normal
    components: int = 10  # components of the mixture
    conditional: bool = False  # condition on the labels of the data

    name: ClassVar[str] = "rnade"
    presets: ClassVar[Presets] = {"tiny": {"hidden": 6, "components": 2}, "small": {}, "paper": {"hidden": 512, "components": 20}}


@dataclass(frozen=True, kw_only=True)
class DeepNADEConfig:
    """Order-agnostic NADE of any depth (Uria, Murray & Larochelle 2014)."""

    hidden: int = 500  # features of every hidden layer
    layers: int = 2  # hidden layers
    activation: str = "relu"  # relu or sigmoid
    family: str = "auto"  # of integers as nade's, of real values as rnade's
    components: int = 5  # components of a mixture
    conditional: bool = False  # condition on the labels of the data

    name: ClassVar[str] = "deep-nade"
    presets: ClassVar[Presets] = {"tiny": {"hidden": 6, "components": 2}, "small": {}, "paper": {}}

    @property
    def stages(self) -> tuple[Stage, ...]:
        """How it trains: any site from any others, all of the way."""
        return (Stage("orderless", "orderless"),)


@dataclass(frozen=True, kw_only=True)
class MADEConfig:
    """Masked autoencoder for distribution estimation (Germain et al. 2015)."""

    hidden: int = 1024  # units of every hidden layer
    layers: int = 2  # hidden layers
    direct: bool = True  # connect the input with the output directly, too
    orders: int = 1  # orders that training cycles through, each with masks of its own; the first is the raster order
    connectivity: bool = True  # units have other labels under every order
    family: str = "auto"  # of integers as nade's, of real values as rnade's
    components: int = 5  # components of a mixture
    conditional: bool = False  # condition on the labels of the data

    name: ClassVar[str] = "made"
    presets: ClassVar[Presets] = {
        "tiny": {"hidden": 9, "components": 2},
        "small": {},
        "paper": {"hidden": 8000, "orders": 32},
    }

    @property
    def stages(self) -> tuple[Stage, ...]:
        """How it trains: the likelihood, under each order in turn where there are several."""
        return (Stage("likelihood", "ensemble_nll" if self.orders > 1 else "nll"),)


@dataclass(frozen=True, kw_only=True)
class PixelRNNFields:
    """Sizes of a Row LSTM or a Diagonal BiLSTM."""

    layers: int = 12  # residual layers, each an LSTM or one of either direction
    channels: int = 128  # hidden values of an LSTM; twice as many features outside
    first_kernel: int = 7  # window of the first layer, odd
    head: int = 1024  # features of each of the two 1x1 layers before the output
    family: str = "auto"  # bernoulli, categorical, logistic (a mixture), or auto: a softmax, of two levels a Bernoulli
    components: int = 5  # components of the logistic mixture
    conditional: bool = False  # condition on the labels of the data


@dataclass(frozen=True, kw_only=True)
class RowLSTMConfig(ByLikelihood, PixelRNNFields):
    """Row LSTM (van den Oord, Kalchbrenner & Kavukcuoglu 2016)."""

    name: ClassVar[str] = "row-lstm"
    presets: ClassVar[Presets] = {
        "tiny": {"layers": 2, "channels": 3, "first_kernel": 3, "head": 6, "components": 2},
        "small": {"layers": 4, "channels": 32, "head": 64},
        "paper": {},
    }


@dataclass(frozen=True, kw_only=True)
class DiagonalBiLSTMConfig(ByLikelihood, PixelRNNFields):
    """Diagonal BiLSTM (van den Oord, Kalchbrenner & Kavukcuoglu 2016)."""

    name: ClassVar[str] = "diagonal-bilstm"
    presets: ClassVar[Presets] = {
        "tiny": {"layers": 2, "channels": 3, "first_kernel": 3, "head": 6, "components": 2},
        "small": {"layers": 3, "channels": 24, "head": 64},
        "paper": {},
    }


@dataclass(frozen=True, kw_only=True)
class TransformerConfig:
    """Causal Transformer of GPT-2's kind (Radford et al. 2019), with options that came later."""

    name: ClassVar[str] = "transformer"
    presets: ClassVar[Presets] = {
        "tiny": {"layers": 2, "width": 8, "heads": 2, "context": 16, "dropout": 0.0, "components": 2},
        "small": {"layers": 4, "width": 128, "heads": 4, "context": 256, "dropout": 0.0},
        "paper": {"start": "last"},
    }

    layers: int = 12  # blocks, each attention and a perceptron of one hidden layer
    width: int = 768  # features of a token; the hidden layers have four times as many
    heads: int = 12  # heads of attention, which share the width
    key_heads: int = 0  # heads of keys and values, each serving as many heads of the queries; 0 for one to each
    places: str = "learned"  # vectors of every place, of images row, column and channel; or rotary, which knows distances
    context: int = 1024  # how many places of a sequence have vectors; the length of samples where lengths vary
    window: int = 0  # how many tokens a block looks at, the own one included; 0 for all
    norm: str = "layer"  # layer or rms
    start: str = "vector"  # what stands before the first symbol: a vector, or last, that of the highest level, as in GPT-2
    any_order: bool = False  # train under random orders, to complete whatever is unknown
    dropout: float = 0.1  # probability that a feature of a token, or of what a block adds to it, is dropped in training
    family: str = "auto"  # bernoulli, categorical, logistic (a mixture), or auto: a softmax, of two levels a Bernoulli
    components: int = 5  # components of the logistic mixture
    conditional: bool = False  # condition on the labels of the data

    @property
    def stages(self) -> tuple[Stage, ...]:
        """How it trains: the likelihood, under an order of each example's own if it is to know all of them."""
        return (Stage("shuffled", "shuffled") if self.any_order else Stage("likelihood", "nll"),)
