"""VAE of sound with a WaveNet as its decoder: after Chorowski et al. 2019 (arXiv:1901.08810).

::

    x ──▶ encoder ──▶ q(z | x) ──▶ z ──▶ decoder ──▶ features ──┬──▶ p(x_t | x_<t, features)     a WaveNet
                         KL with p(z)                          └──▶ p(y | features)             coarser sound, factorised

z is one vector, which enters every gate (``global``); or one for every 2^halvings samples, decoded to features that accompany the
samples as a spectrogram would (``local``); or ``both``, of which the features tell together.

There is the auxiliary loss of Lucas & Verbeek 2018, here of sound: y is x at a lower rate, every ``factor`` samples their mean,
and at fewer even levels of the companded scale. It can only be explained through z.

The preset ``paper`` has 20 layers of 368 features, and z of 64 units. There the encoder reads mel-cepstral features, z comes 50
times a second, and the decoder is told the speaker.
"""

from __future__ import annotations

from functools import partial

from torch import Tensor

from ancestral.core import Autoregressive
from ancestral.families import Bernoulli, Categorical
from ancestral.families.base import check_count
from ancestral.latent.latent import Auxiliary, Latent
from ancestral.latent.sequence_configs import WaveNetVaeConfig
from ancestral.latent.sequence_encoders import Readout, joined
from ancestral.latent.sequences import SequenceTopDown, labels_of
from ancestral.networks.images import listening
from ancestral.networks.wavenet import wavenet
from ancestral.spec import DataSpec

FORMS = ("global", "local", "both")


def coarser(x: Tensor, spec: DataSpec, colours: int, factor: int) -> Tensor:
    """y(x): (n, T) symbols of sound to (n, T / parts / factor), the means of so many samples at ``colours`` even levels.

    A mean is rounded down to a whole number first.

    Example:
        >>> import torch
        >>> coarser(torch.tensor([[0, 255, 200, 200]]), DataSpec("audio", (4,), 256), colours=4, factor=2)
        tensor([[1, 3]])
    """
    samples, levels = joined(x, spec)
    whole = samples.shape[1] // factor * factor
    mean = samples[:, :whole].reshape(len(x), -1, factor).sum(2) // factor
    return mean * colours // levels


def lower_rate(spec: DataSpec, colours: int, factor: int, features: int, span: int | None) -> Auxiliary:
    """p(y | z), every symbol of `coarser` by itself.

    Args:
        colours, factor: even levels of y, and samples of x that one of its symbols is the mean of.
        features: of what z is decoded to.
        span: samples that a place of a grid of them lasts; None of a vector.

    Raises:
        ValueError: y cannot be had of these data.
    """
    samples = (spec.shape[0] or 0) // spec.parts
    if None in spec.shape:
        raise ValueError("the auxiliary sound needs examples of one length: cut the data into blocks (--pieces blocks)")
    if not 2 <= colours <= joined_levels(spec) or not 1 <= factor <= samples:
        raise ValueError(f"colours={colours} and factor={factor} make no coarser sound of {samples} samples of these levels")
    if span is not None and span % factor:
        raise ValueError(f"factor is {factor}, of which a place of {span} samples is no multiple")
    y = DataSpec("audio", (samples // factor,), colours)
    family = Bernoulli() if colours == 2 else Categorical(colours)
    network = Readout(samples // factor, family.size, features, None if span is None else span // factor)
    return Auxiliary(Autoregressive(network, family, y), partial(coarser, spec=spec, colours=colours, factor=factor))


def joined_levels(spec: DataSpec) -> int:
    """How many values a sample of all its parts can have."""
    return int(((spec.levels or 2) - (spec.end is not None)) ** spec.parts)


def wavenet_vae(config: WaveNetVaeConfig, spec: DataSpec) -> Latent:
    """The model of a `WaveNetVaeConfig`.

    Raises:
        ValueError: the data are no sequences of integers, there is no such form, or a size makes no sense.

    Example:
        >>> import ancestral, torch
        >>> model = ancestral.build("wavenet-vae", DataSpec("audio", (12,), levels=17), preset="tiny", form="both")
        >>> {name: tuple(z.shape) for name, z in model.encode(torch.zeros(2, 12, dtype=torch.long)).items()}
        {'z': (2, 2), 'local': (2, 2, 6, 1)}
    """
    if config.form not in FORMS:
        raise ValueError(f"form is {config.form!r}; z is one of {', '.join(FORMS)}")
    local = config.form != "global"
    check_count("maps", config.maps, 1 if local else 0)
    labels = labels_of(config, spec, config.conditional, beside=not local)
    topdown = SequenceTopDown(spec, config, labels, whole=config.form != "local", maps=config.maps if local else 0)
    decoder = wavenet(config.decoder(local), spec, 0 if local else config.latent)
    features, span = (config.maps, 2**config.halvings) if local else (config.latent + labels, None)
    auxiliary = lower_rate(spec, config.colours, config.factor, features, span) if config.auxiliary else None
    return Latent(topdown, listening(decoder), spec, config, auxiliary)
