"""What helps a latent-variable model whose z carries little: each remedy is one setting, with what to expect of it.

What is said of the toy was measured by ``benchmarks/collapse.py``: four pixels, of which the last repeats the first, a fair bit.
"""

from __future__ import annotations

from dataclasses import dataclass, fields
from typing import Any

from ancestral.latent.blindfold import readable
from ancestral.latent.configs import RateFields
from ancestral.latent.latent import Latent
from ancestral.latent.quantizers import VectorQuantizer
from ancestral.latent.vq_vae import CodedTopDown


@dataclass(frozen=True)
class Remedy:
    """One way to make z carry more.

    Attributes:
        name: in a few words.
        setting: the setting of the model or of the training that does it, as Python and, with dashes, the command line take it.
        expect: what to expect of it, in one clause.
    """

    name: str
    setting: str
    expect: str


OFFERS: dict[str, Remedy] = {  # by the field of a model's configuration that offers it, those that fit most often first
    "window": Remedy(
        "a smaller window",
        "window=3x1",
        "z takes over what the decoder no longer sees, at little loss of likelihood; with kl_warmup too, for without it z"
        " began with one seed of three on the toy",
    ),
    "auxiliary": Remedy(
        "the auxiliary loss",
        "auxiliary=True",
        "z carries what a coarser image or sound or a bag of words needs, whatever the decoder sees (rate 0.82 on the toy);"
        " lambda_ sets how much",
    ),
    "lambda_": Remedy(
        "a lower lambda",
        "lambda_=2",
        "z carries more of what the auxiliary loss asks for (digits: 15 nats at lambda 1, 7 at 2, 2 at 4, none at 8); below 2 the"
        " bound pays",
    ),
    "free_bits": Remedy(
        "free bits",
        "free_bits=0.1",
        "every unit, or feature map, carries about so many nats, and the decoder reads them; -ELBO rises by what it knew without"
        " z (by 0.2 of 0.7 nats on the toy)",
    ),
    "kl_warmup": Remedy(
        "a KL weight that rises from 0",
        "kl_warmup=0.3",
        "z begins before it is charged for (on the toy, with every seed, rate 0.7 where the decoder needs z, and 0.2 where it"
        " can do without)",
    ),
    "prior": Remedy(
        "a delta-VAE prior",
        "prior=delta",
        "the rate cannot fall below a floor that prior_correlation sets (0.83 nats of two units on the toy, whose decoder read"
        " them with one seed of three)",
    ),
    "soft_free_bits": Remedy(
        "soft free bits",
        "soft_free_bits=10",
        "the KL weighs less until z carries so many nats in all, where z helps at any weight (on the toy with every seed)",
    ),
    "decoder_dropout": Remedy(
        "decoder dropout",
        "decoder_dropout=0.3",
        "z is paid for by what hidden symbols would have told; give it with kl_warmup (alone it filled z with one seed of three"
        " on the toy)",
    ),
    "kl_cycles": Remedy(
        "a KL weight that rises several times",
        "kl_warmup=0.5, kl_cycles=4",
        "as rising once, with more chances to begin, for long stages: with 100 steps a cycle it filled z with two seeds of"
        " three on the toy where the decoder needs z, and with none where it does not",
    ),
    "beta": Remedy(
        "a lower KL weight",
        "beta=0.5",
        "z carries more of what pays at that weight (nothing at 0.5 on the toy); below 1 samples from the prior suffer",
    ),
    "layers": Remedy(
        "a decoder of fewer layers",
        "layers=2",
        "what lies farther away than it sees is left to z",
    ),
}
AGGRESSIVE = Remedy(
    "aggressive training of the encoder",
    "aggressive=10 (of the training)",
    "the encoder keeps up with the decoder early on, at the cost of most of those steps; on the toy it filled z with two seeds of"
    " three where the decoder needs z, and with none where it does not",
)


SCALARS = Remedy(
    "finite scalars in place of a codebook",
    "quantizer=fsq",
    "every code is as near as any other, so that none dies",
)
RESTARTS = Remedy(
    "restarts of dead codes",
    "restart=0.1",
    "codes that are not used move to where the encoder is, in every step of training",
)


def remedies(model: Latent) -> list[Remedy]:
    """What the model can take and does not take yet, those that fit most often first."""
    config: Any = RateFields() if model.config is None else model.config
    if isinstance(model.topdown, CodedTopDown):
        quantizer = model.topdown.quantizer
        found = [OFFERS["auxiliary"]] if readable(model.likelihood.network) and model.auxiliary is None else []
        if isinstance(quantizer, VectorQuantizer):
            found += [SCALARS] if quantizer.restart else [RESTARTS, SCALARS]
        return found
    if model.topdown.certain:
        return []
    have = {field.name: getattr(config, field.name) for field in fields(config)}
    network: Any = model.likelihood.network
    guided = bool(have.get("auxiliary"))
    off = {
        "auxiliary": have.get("auxiliary") is False and (model.spec.kind != "audio" or None not in model.spec.shape),
        "free_bits": have.get("free_bits") == have.get("soft_free_bits") == 0,
        "kl_warmup": have.get("kl_warmup") == 0,
        "prior": have.get("prior") not in (None, "delta") and have.get("encoder") != "resnet",
        "soft_free_bits": have.get("free_bits") == have.get("soft_free_bits") == 0,
        "decoder_dropout": readable(network) and have.get("decoder_dropout") == 0,
        "kl_cycles": have.get("kl_cycles") == 1,
        "beta": have.get("beta", 0.0) > 0.5 and not guided,  # then lambda is the weight
        "lambda_": have.get("lambda_", 0.0) > 2 and (guided or "beta" not in have),
        "layers": "window" not in have and have.get("layers", 0) > 2 and have.get("decoder") != "pixelcnn++",
        "window": "window" in have
        and len(network.receptive_field()) > 4 + ((model.spec.shape[0] or 1) > 1),  # places of the one offered
    }
    return [*(remedy for name, remedy in OFFERS.items() if off[name]), AGGRESSIVE]
