"""VAE of sentences: Bowman et al. 2016, "Generating Sentences from a Continuous Space", with a Transformer as in Optimus (2020).

::

    x ──▶ encoder ──▶ q(z | x) ──▶ z ──┬──▶ p(x_t | x_<t, z)        a causal Transformer
                         KL with p(z)  └──▶ p(y | z)                y: which symbols x has, and how often

z enters the decoder as a summand of the first token, which all others attend to (``prefix``); of every token in every block
(``layers``); or of the first one in every block (``cross``), where all others then attend to it by a key and a value that the
block makes of z, which is the memory of Optimus.

A decoder that strong models text without z, which is then left empty. Besides word dropout, and what else decides how much z
carries, there is auxiliary guidance (Lucas & Verbeek 2018), here of a bag of words: y says of every symbol of the alphabet how
often it stands in x, and can be explained through z alone.

The encoder is convolutional, and pools what it finds by attention. The preset ``paper`` has the sizes of Optimus' GPT-2 decoder
and of its z; there the encoder is BERT, and both start from published weights.
"""

from __future__ import annotations

from functools import partial

import torch
from torch import Tensor

from ancestral.core import Autoregressive
from ancestral.families import Bernoulli, Categorical
from ancestral.latent.latent import Auxiliary, Latent
from ancestral.latent.sequence_configs import TransformerVaeConfig
from ancestral.latent.sequence_encoders import Readout
from ancestral.latent.sequences import SequenceTopDown, labels_of
from ancestral.networks.transformer import transformer
from ancestral.spec import DataSpec
from ancestral.symbols import scored

FORMS = ("prefix", "layers", "cross")


def bag(x: Tensor, spec: DataSpec, counts: int) -> Tensor:
    """y(x): (n, T) symbols to (n, V), how often each symbol of the alphabet stands in them, at most ``counts`` - 1 times.

    The end of an example is no symbol of the alphabet, and what comes after it does not count.

    Example:
        >>> bag(torch.tensor([[1, 0, 1, 2, 2]]), DataSpec("text", (5,), 3, end=2), counts=4)
        tensor([[1, 2]])
    """
    levels, there = spec.levels or 2, scored(x, spec)
    ones = torch.ones_like(x) if there is None else there.to(x.dtype)
    found = torch.zeros(len(x), levels, dtype=x.dtype, device=x.device).scatter_add(1, x, ones)
    return found[:, : levels - (spec.end is not None)].clamp_max(counts - 1)


def bag_of_words(spec: DataSpec, features: int, counts: int) -> Auxiliary:
    """p(y | z) = prod over the alphabet of p(y_v | z): exact, and normalised over all (counts) ^ V values of y.

    Args:
        features: of the vector that the likelihood reads.

    Raises:
        ValueError: counts is below 2.
    """
    if counts < 2:
        raise ValueError(f"counts is {counts}; a symbol stands in x or not, which is 2, or is counted further")
    symbols = (spec.levels or 2) - (spec.end is not None)
    family = Bernoulli() if counts == 2 else Categorical(counts)
    y = DataSpec("vector", (symbols,), levels=counts)
    return Auxiliary(Autoregressive(Readout(symbols, family.size, features), family, y), partial(bag, spec=spec, counts=counts))


def transformer_vae(config: TransformerVaeConfig, spec: DataSpec) -> Latent:
    """The model of a `TransformerVaeConfig`.

    Raises:
        ValueError: the data are neither text nor sound, there is no such form, or a size makes no sense.

    Example:
        >>> import ancestral
        >>> spec = DataSpec("text", (None,), levels=5, end=4)
        >>> model = ancestral.build("transformer-vae", spec, preset="tiny", form="prefix")
        >>> model.encode(torch.tensor([[0, 3, 4, 4], [2, 2, 1, 4]]))["z"].shape
        torch.Size([2, 2])
    """
    if config.form not in FORMS:
        raise ValueError(f"form is {config.form!r}; z enters the decoder as one of {', '.join(FORMS)}")
    labels = labels_of(config, spec, config.conditional, beside=True)
    topdown = SequenceTopDown(spec, config, labels, whole=True)
    decoder = transformer(config.decoder(), spec, config.latent, config.form)
    likelihood = Autoregressive(decoder.network, decoder.family, spec)  # whose configuration is that of the whole model
    auxiliary = bag_of_words(spec, config.latent + labels, config.counts) if config.auxiliary else None
    return Latent(topdown, likelihood, spec, config, auxiliary)
