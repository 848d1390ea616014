"""Configuration of the model whose latents are codes: what can be chosen, one line each. Free of torch."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import ClassVar

from ancestral.networks.configs import Presets
from ancestral.spec import Stage

AUTOREGRESSIVE = {"image": "gated-pixelcnn", "audio": "wavenet"}  # decoders, by the kind of data that they are of


@dataclass(frozen=True, kw_only=True)
class VqVaeConfig:
    """VQ-VAE (van den Oord, Vinyals & Kavukcuoglu 2017): z is a grid of codes, with an autoregressive model as their prior.

    With ``top_halvings`` it is VQ-VAE-2 (Razavi, van den Oord & Vinyals 2019): a second, coarser grid of codes comes first.
    """

    name: ClassVar[str] = "vq-vae"
    presets: ClassVar[Presets] = {
        "tiny": {"codes": 3, "features": 2, "scalars": "3x2", "width": 8, "halvings": 1, "prior_layers": 2, "prior_channels": 6}
        | {"decoder_layers": 2, "decoder_channels": 6},
        "small": {},
        "paper": {  # CIFAR-10: 8 x 8 x 10 codes; batches of 128, 250,000 steps. What a vector has it does not say, nor the prior
            "codes": 512,
            "features": 64,
            "depth": 10,
            "width": 256,
            "blocks": 2,
            "prior_layers": 12,
            "prior_channels": 256,
        },
    }

    quantizer: str = "vq"  # vq: the nearest vector of a codebook, or fsq: numbers rounded by themselves (Mentzer et al. 2023)
    codes: int = 256  # of vq: vectors of the codebook; files take at most 1024
    features: int = 16  # of vq: numbers of a vector
    scalars: str = "8x6x5"  # of fsq: levels of each number of a vector, whose product is the number of codes
    depth: int = 1  # codes at each place of the grid
    codebook_decay: float = 0.99  # of vq: how much of itself the moving average of a vector keeps a step
    commitment: float = 0.25  # of vq: nats that the encoder pays for a squared distance of 1 from its vector
    restart: float = 0.1  # of vq: a code used less than this part of an even share moves to where the encoder is; 0 for never
    width: int = 48  # features of the encoder and the decoder
    blocks: int = 1  # residual blocks a size
    halvings: int = 2  # how often the image is halved on the way to the grid
    top_halvings: int = 0  # how often that is halved again to a second, coarser grid, the top (VQ-VAE-2); 0 for one grid alone
    decoder: str = "auto"  # each symbol by itself: bernoulli, logistic, normal; after others: gated-pixelcnn, wavenet; or auto
    decoder_layers: int = 8  # of gated-pixelcnn and wavenet, whose windows have taps 1, 2, 4, ... samples apart
    decoder_channels: int = 32  # their features
    auxiliary: bool = True  # of those two: a second likelihood, which sees the codes alone, keeps them in use in training
    prior: str = "gated-pixelcnn"  # of codes; or pixelcnn, pixelcnn++, row-lstm, diagonal-bilstm, transformer, uniform (fixed)
    top_prior: str = "auto"  # of those of the top: one of these, or auto: the same
    prior_layers: int = 4  # gated layers, residual blocks, LSTMs, blocks of attention; of pixelcnn++ those at each resolution
    prior_channels: int = 48  # features of a layer, and of the table that codes are looked up in
    prior_share: float = 0.6  # share of the steps that train the prior, after the others; 1 for codes of another run
    conditional: bool = False  # condition on the labels of the data: prior, encoder and decoder

    @property
    def guided(self) -> bool:
        """Whether there is an auxiliary loss."""
        return self.auxiliary and self.decoder in AUTOREGRESSIVE.values()

    @property
    def prior_of_top(self) -> str:
        """The prior of the top's codes."""
        return self.prior if self.top_prior == "auto" else self.top_prior

    @property
    def learned_priors(self) -> tuple[str, ...]:
        """The parts that are priors of codes, but for those that have nothing to learn."""
        priors = {"topdown.prior": self.prior} | ({"topdown.top_prior": self.prior_of_top} if self.top_halvings else {})
        return tuple(part for part, name in priors.items() if name != "uniform")

    @property
    def stages(self) -> tuple[Stage, ...]:
        """How it trains: the codes with encoder and decoder, then their prior alone."""
        parts = ("topdown.encoder", "topdown.decoder", *["topdown.top"] * bool(self.top_halvings), "likelihood")
        parts += ("auxiliary",) * self.guided
        codes = Stage("codes", "quantized", {"commitment": self.commitment}, parts, 1 - self.prior_share)
        if not self.learned_priors:
            return (replace(codes, share=1.0),)
        prior = Stage("prior", "code_prior", parts=self.learned_priors, share=self.prior_share)
        return tuple(stage for stage in (codes, prior) if stage.share > 0)
