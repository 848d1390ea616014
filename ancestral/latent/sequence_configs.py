"""Configurations of the latent-variable models of text and sound: what can be chosen, one line each. Free of torch."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, fields
from typing import ClassVar

from ancestral.latent.configs import LEAST, EncoderFields, GuidedFields, RateFields
from ancestral.networks.configs import Presets, TransformerConfig, WaveFields, WaveNetConfig


@dataclass(frozen=True, kw_only=True)
class SequenceVaeFields(GuidedFields, RateFields, EncoderFields):
    """What the models of sequences share: the encoder, z, what training charges for it, and auxiliary guidance as an option."""

    least: ClassVar[Mapping[str, int]] = {**LEAST, "halvings": 1}

    auxiliary: bool = False  # guide training by a second likelihood, of y(x); without it this is a plain VAE
    lambda_: float = 2.0  # weight of the KL with that; without it the weight is beta
    pretraining: float = 0.0  # with that: share of the steps in which VAE and decoder train apart


@dataclass(frozen=True, kw_only=True)
class TransformerVaeConfig(SequenceVaeFields):
    """VAE of sentences with a causal Transformer as its decoder (after Bowman et al. 2016, and Li et al. 2020, "Optimus")."""

    name: ClassVar[str] = "transformer-vae"
    presets: ClassVar[Presets] = {
        "tiny": {"layers": 2, "channels": 8, "heads": 2, "context": 16, "latent": 2, "width": 8},
        "small": {},
        "paper": {"layers": 12, "channels": 768, "heads": 12, "context": 1024, "places": "learned", "width": 768, "dropout": 0.1},
    }

    form: str = "layers"  # how z enters: prefix (at the first token), layers (at all of every block), cross (at the first)
    layers: int = 3  # blocks of the decoder
    channels: int = 128  # features of a token
    heads: int = 4  # heads of attention, which share them
    places: str = "rotary"  # rotary, which knows distances and takes any length, or learned: vectors of every place
    context: int = 256  # how many places have vectors; the length of samples where lengths vary
    norm: str = "layer"  # layer or rms
    dropout: float = 0.0  # probability that a feature of a token, or of what a block adds to it, is dropped in training
    conditional: bool = False  # condition on the labels of the data
    width: int = 64  # features of the encoder
    blocks: int = 1  # its residual blocks at each rate
    halvings: int = 1  # how often the sequence is halved before what is left is pooled
    counts: int = 4  # with auxiliary: y tells of every symbol whether it stands in x 0, 1, .. or at least counts - 1 times

    def decoder(self) -> TransformerConfig:
        """The decoder's own configuration."""
        names = ("layers", "heads", "places", "context", "norm", "dropout", "conditional")
        return TransformerConfig(width=self.channels, **{name: getattr(self, name) for name in names})


@dataclass(frozen=True, kw_only=True)
class WaveNetVaeConfig(SequenceVaeFields, WaveFields):
    """VAE of sound with a WaveNet as its decoder (after Chorowski et al. 2019)."""

    name: ClassVar[str] = "wavenet-vae"
    presets: ClassVar[Presets] = {
        "tiny": {
            "layers": 2,
            "cycles": 1,
            "channels": 4,
            "gates": 4,
            "skip": 8,
            "head": 8,
            "components": 2,
            "latent": 2,
            "width": 8,
            "halvings": 1,
            "maps": 3,
            "factor": 2,
            "colours": 4,
        },
        "small": {"layers": 8, "cycles": 1, "skip": 96, "head": 96, "latent": 16},
        "paper": {
            "cycles": 2,
            "channels": 368,
            "gates": 368,
            "head": 256,
            "form": "local",
            "latent": 64,
            "width": 768,
            "blocks": 2,
            "halvings": 8,  # 62.5 z a second at 16 kHz; in the paper 50
            "maps": 128,
        },
    }

    least: ClassVar[Mapping[str, int]] = {**SequenceVaeFields.least, "maps": 0}  # of which global z needs none

    form: str = "global"  # z is one vector (global), one for every 2 ** halvings samples (local), or both
    width: int = 48  # features of the encoder, and of the decoder of local z
    blocks: int = 1  # their residual blocks at each rate
    halvings: int = 6  # how often the rate is halved before it is pooled to a global z, or read off as a local one
    maps: int = 32  # features that local z is decoded to, which accompany the samples
    colours: int = 16  # with auxiliary: even levels of y
    factor: int = 8  # with auxiliary: a symbol of y is the mean of so many samples

    def decoder(self, local: bool) -> WaveNetConfig:
        """The decoder's own configuration, with or without features that accompany the samples."""
        sizes = {field.name: getattr(self, field.name) for field in fields(WaveFields)}
        return WaveNetConfig(**sizes, local=self.maps, hop=2**self.halvings) if local else WaveNetConfig(**sizes)
