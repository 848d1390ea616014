"""The exact twin of a model: its likelihood, and of a latent-variable model its latents too, in whole numbers.

Files are coded with the twin. All that it takes besides the weights is a calibration, a few small integers that examples decide
and that every file carries: so another machine makes the same twin of the same weights.
"""

from __future__ import annotations

import copy
import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from math import log, prod
from typing import Any

import torch
from torch import Tensor

from ancestral.causal.network import CausalNetwork
from ancestral.core import Autoregressive, Context, DataError, Family, Network, check_symbols
from ancestral.draw import uniforms
from ancestral.families import Integer, fixed
from ancestral.families.base import Discrete
from ancestral.families.integer import EqualMassBins
from ancestral.latent.latent import Latent
from ancestral.latent.topdown import Noise
from ancestral.latent.vae import FlatTopDown
from ancestral.networks.factorised import Factorised
from ancestral.walking.exact.calibration import Calibration, calibrate
from ancestral.walking.exact.feedforward import IntegerNet
from ancestral.walking.exact.networks import ExactFactorised, ExactNetwork
from ancestral.walking.exact.operations import Fixed, LoweringError

EXAMPLES = 64  # how many a calibration looks at
SCALED = 14  # fraction bits of scaled symbols


@dataclass(frozen=True)
class Posterior:
    """q(z | x) of every unit, cut into bins of equal prior mass.

    Attributes:
        bins: the family.
        parameters: (n, units, 2) means and log-scales.
    """

    bins: EqualMassBins
    parameters: Tensor

    @property
    def centre(self) -> Tensor:
        """(n, units) the bins of the means."""
        return self.bins.nearest(self.parameters[..., 0])

    def interval(self, chosen: Tensor) -> tuple[Tensor, Tensor]:
        """(n, units) bins to first slots and numbers of slots."""
        return self.bins.interval(self.parameters, chosen)

    def tables(self, row: int) -> Tensor:
        """(units, bins + 1) cumulative tables of one example."""
        return self.bins.cumulative(self.parameters[row])


class ExactLatents:
    """Encoder and decoder of a `FlatTopDown` in whole numbers.

    Args:
        topdown: the float one.
        encoder, decoder: their integer twins.

    Attributes:
        shape, units: of z.
        fraction: fraction bits of the features.
    """

    def __init__(self, topdown: FlatTopDown, levels: int, encoder: IntegerNet, decoder: IntegerNet) -> None:
        self.shape, self.levels, self.encoder, self.decoder = topdown.latent, levels, encoder, decoder
        self.units = prod(self.shape)
        self.fraction = decoder(Fixed(torch.zeros(1, *self.shape, dtype=torch.float64), fixed.MEAN), None).fraction

    def posterior(self, x: Tensor, bits: int) -> Posterior:
        """q(z | x) of (n, *shape) symbols, in 2^bits bins a unit."""
        found = self.encoder(self._scaled(x), None)
        location, log_scale = (Fixed(half, found.fraction) for half in found.integers.chunk(2, 1))
        both = [location.at(fixed.MEAN).integers, log_scale.at(fixed.LOG_SCALE).integers]
        return Posterior(EqualMassBins(bits), torch.stack(both, -1).flatten(1, -2).long())

    def features(self, chosen: Tensor, bits: int) -> Context:
        """What the likelihood sees of (n, units) bins."""
        z = EqualMassBins(bits).centres[chosen].double().view(len(chosen), *self.shape)
        decoded = self.decoder(Fixed(z, fixed.MEAN), None).integers
        return Context(grid=decoded) if decoded.dim() == 4 else Context(vector=decoded)

    def _scaled(self, x: Tensor) -> Fixed:
        """2 x / (levels - 1) - 1, of fraction 14, by whole numbers alone; halves are rounded up."""
        steps = self.levels - 1
        whole = ((2 * x.long() - steps) * (2 << SCALED) + steps).div(2 * steps, rounding_mode="floor")
        return Fixed(whole.double(), SCALED)


@dataclass(frozen=True)
class Twin:
    """A model in whole numbers.

    Attributes:
        likelihood: an `Autoregressive` of int64 parameters.
        latents: of a latent-variable model.
        calibration: as JSON has it; with the weights it makes the same twin anywhere.
        identity: 32 hexadecimal digits that tell twins apart.
    """

    likelihood: Autoregressive
    latents: ExactLatents | None
    calibration: dict[str, Any]
    identity: str

    @torch.no_grad()
    def cost(self, x: Tensor, seed: int = 0, rows: Sequence[int] | None = None, bits: int = 12) -> Tensor:
        """(n,) nats that coding (n, *shape) symbols takes: exact, or with latents the bound at one z from the posterior.

        Row i of z has the noise of ``rows[i]``, which is that of `Noise`.
        """
        if self.latents is None:
            return -self.likelihood.log_prob(x)
        posterior = self.latents.posterior(x, bits)
        noise = uniforms(seed, range(len(x)) if rows is None else rows, self.latents.units, stream=1)
        slots = (noise * fixed.SLOTS).long()
        chosen = posterior.bins.symbol(posterior.parameters, slots)
        rate = posterior.bins.log_prob(posterior.parameters, chosen) + bits * log(2)
        return rate.sum(1) - self.likelihood.log_prob(x, self.latents.features(chosen, bits))


def twin(model: Autoregressive | Latent, examples: Tensor, engine: str = "auto", threads: int = 1) -> Twin:
    """The twin of a model, calibrated by some examples (n, *shape): the first 64 count.

    Raises:
        LoweringError: the model has no exact form.
        DataError: its symbols are real values, or the examples do not fit.
    """
    return restored(model, calibrated(model, examples[:EXAMPLES]), engine, threads)


@torch.no_grad()
def calibrated(model: Autoregressive | Latent, x: Tensor) -> dict[str, Any]:
    """What examples decide, as JSON has it."""
    model = copy.deepcopy(model).cpu().double()
    check_symbols(x, model.spec)
    found: dict[str, Any] = {}
    likelihood, context = _likelihood(model), None
    if isinstance(model, Latent):
        topdown = flat(model)
        descent = model.descend(x, Noise(0, range(len(x))))
        context = descent.features
        encoder = IntegerNet.calibrate(topdown.encoder, topdown.scaled(x), None)
        decoder = IntegerNet.calibrate(topdown.decoder, descent.groups[0].z, None)
        found |= {"encoder": encoder.fractions, "decoder": decoder.fractions}
    network, family = likelihood.network, likelihood.family
    if isinstance(network, CausalNetwork):
        found["network"] = calibrate(network, whole_family(family), x, context).to_dict()
    return found


def restored(model: Autoregressive | Latent, calibration: Mapping[str, Any], engine: str = "auto", threads: int = 1) -> Twin:
    """The twin that `twin` made, from its calibration and the model's weights.

    Raises:
        LoweringError: the model has no exact form, or the calibration is another model's.
        DataError: its symbols are real values.
    """
    likelihood, latents, features = _likelihood(model), None, None
    if isinstance(model, Latent):
        topdown = flat(model)
        encoder = IntegerNet.from_fractions(topdown.encoder, calibration["encoder"], (True, False))
        decoder = IntegerNet.from_fractions(topdown.decoder, calibration["decoder"], (True, False))
        latents = ExactLatents(topdown, model.spec.levels or 2, encoder, decoder)
        features = latents.fraction
    family = likelihood.family
    network = _exact_network(likelihood.network, family, calibration, features, engine, threads)
    digest = hashlib.blake2b(network.checksum, digest_size=16)
    for net in () if latents is None else (latents.encoder, latents.decoder):
        digest.update(net.checksum())
    digest.update(json.dumps([model.spec.to_dict(), repr(family), calibration], sort_keys=True).encode())
    exact_likelihood = Autoregressive(network, whole_family(family), model.spec)
    return Twin(exact_likelihood, latents, dict(calibration), digest.hexdigest())


def _likelihood(model: Autoregressive | Latent) -> Autoregressive:
    return model.likelihood if isinstance(model, Latent) else model


def _exact_network(
    network: Network, family: Family, calibration: Mapping[str, Any], features: int | None, engine: str, threads: int
) -> ExactNetwork | ExactFactorised:
    if isinstance(network, Factorised) and features is not None:
        return ExactFactorised(network, whole_family(family), features)
    if isinstance(network, CausalNetwork) and isinstance(family, Discrete):
        fractions = {} if features is None else {"grid": features}
        return ExactNetwork(network, family, Calibration.from_dict(calibration["network"]), fractions, engine, threads)
    raise LoweringError(f"{type(network).__name__} has no exact form: causal networks and factorised decoders have one")


def whole_family(family: Family) -> Integer:
    """The integer twin of a family; raises ``DataError`` where it has none."""
    if not isinstance(family, Discrete):
        raise DataError(f"{family} is a density of real values, which files cannot hold: make it discrete with Binned")
    return family.integer()


def flat(model: Latent) -> FlatTopDown:
    """The top-down pass of a model whose twin is known; raises ``LoweringError`` for others."""
    if not isinstance(model.topdown, FlatTopDown):
        raise LoweringError(f"{type(model.topdown).__name__} has no exact form; one group of latents has one")
    return model.topdown
