"""The exact twin of a model: its likelihood, and of a latent-variable model its latents too, in whole numbers.

Files are coded with the twin. All that it takes besides the weights is a calibration, a few small integers that examples decide
and that every file carries: so another machine makes the same twin of the same weights. The twin of a conditional model is told
labels, as (n, classes) vectors of zeros and ones, or it is made without them; its calibration says which.
"""

from __future__ import annotations

import copy
import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from math import log, prod
from typing import Any

import torch
from torch import Tensor

from ancestral.causal.network import CausalNetwork
from ancestral.core import Autoregressive, Context
from ancestral.draw import uniforms
from ancestral.families import fixed
from ancestral.families.integer import EqualMassBins
from ancestral.latent.latent import Latent
from ancestral.latent.topdown import Noise, seen
from ancestral.latent.vae import FlatTopDown
from ancestral.objectives import label_context
from ancestral.spec import DataSpec, Order
from ancestral.symbols import check_symbols
from ancestral.walking.exact import generator
from ancestral.walking.exact.feedforward import IntegerNet
from ancestral.walking.exact.generator import ExactGenerator
from ancestral.walking.exact.groups import label
from ancestral.walking.exact.networks import calibrated_network, exact_model
from ancestral.walking.exact.operations import Fixed, LoweringError

EXAMPLES = 64  # how many a calibration looks at
SCALED = 14  # fraction bits of scaled symbols
LABELS = "labels"  # in the calibration of a twin that is told them
AUTOREGRESSIVE, BITS_BACK, TWO_PART = "autoregressive", "bits-back", "two-part"  # schemes of files
TRIED = 4  # examples that tell how fine the grid of z is best
WORTH = 0.98  # of the bits, for which a group of z gets coarser bins


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
    """Encoder and decoder of a `FlatTopDown` in whole numbers, for bits-back.

    Args:
        topdown: the float one.
        levels: of the symbols.
        encoder, decoder: their integer twins.
        classes: how many numbers the labels have that both take; 0 where they take none.

    Attributes:
        shape, units: of z.
        fraction: fraction bits of the features.
        grid: whether the features are a grid.
    """

    def __init__(self, topdown: FlatTopDown, levels: int, encoder: IntegerNet, decoder: IntegerNet, classes: int = 0) -> None:
        self.shape, self.levels, self.encoder, self.decoder = topdown.latent, levels, encoder, decoder
        self.units = prod(self.shape)
        null = torch.zeros(1, classes) if classes else None
        found = self._decoded(torch.zeros(1, *self.shape, dtype=torch.float64), null)
        self.fraction, self.grid = found.fraction, found.integers.dim() == 4

    @property
    def checksums(self) -> list[bytes]:
        """Of everything that is computed."""
        return [self.encoder.checksum(), self.decoder.checksum()]

    def posterior(self, x: Tensor, bits: int, vector: Tensor | None = None) -> Posterior:
        """q(z | x) of (n, *shape) symbols with these labels, in 2^bits bins a unit."""
        found = self.encoder(self._scaled(x), label(vector))
        location, log_scale = (Fixed(half, found.fraction) for half in found.integers.chunk(2, 1))
        both = [location.at(fixed.MEAN).integers, log_scale.at(fixed.LOG_SCALE).integers]
        return Posterior(EqualMassBins(bits), torch.stack(both, -1).flatten(1, -2).long())

    def features(self, chosen: Tensor, bits: int, vector: Tensor | None = None) -> Context:
        """What the likelihood sees of (n, units) bins and of these labels."""
        z = EqualMassBins(bits).centres[chosen].double().view(len(chosen), *self.shape)
        return seen(self._decoded(z, vector).integers, vector)

    def _decoded(self, z: Tensor, vector: Tensor | None) -> Fixed:
        return self.decoder(Fixed(z, fixed.MEAN), label(vector))

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
        latents: of a latent-variable model: encoder and decoder for bits-back, the generative direction for two-part codes.
        calibration: as JSON has it; with the weights it makes the same twin anywhere.
        identity: 32 hexadecimal digits that tell twins apart.
    """

    likelihood: Autoregressive
    latents: ExactLatents | ExactGenerator | None
    calibration: dict[str, Any]
    identity: str

    @property
    def labelled(self) -> bool:
        """Whether it is told labels, without which it then computes nothing."""
        return LABELS in self.calibration

    @property
    def scheme(self) -> str:
        """How files are coded with it."""
        return AUTOREGRESSIVE if self.latents is None else BITS_BACK if isinstance(self.latents, ExactLatents) else TWO_PART

    @torch.no_grad()
    def cost(
        self, x: Tensor, seed: int = 0, rows: Sequence[int] | None = None, bits: int = 12, vector: Tensor | None = None
    ) -> Tensor:
        """(n,) nats that coding (n, *shape) symbols takes: exact, or with latents the bound at one z from the posterior.

        A two-part code takes those of z too; its z is not drawn but chosen, whatever the seed.

        Args:
            seed, rows: row i of z has the noise of ``rows[i]``, which is that of `Noise`.
            bits: of a unit of z.
            vector: (n, classes) labels, for a twin that is told them.

        Raises:
            ValueError: the labels are missing, or the twin was made without them.
        """
        if self.labelled == (vector is None):
            raise ValueError(f"a twin made {'with labels takes a' if self.labelled else 'without labels takes no'} vector")
        if self.latents is None:
            return -self.likelihood.log_prob(x, None if vector is None else Context(vector=vector))
        if isinstance(self.latents, ExactGenerator):
            chosen = self.latents.codes(x, vector)
            return self.latents.rate(chosen, vector) - self.likelihood.log_prob(x, self.latents.features(chosen, vector))
        posterior = self.latents.posterior(x, bits, vector)
        noise = uniforms(seed, range(len(x)) if rows is None else rows, self.latents.units, stream=1)
        slots = (noise * fixed.SLOTS).long()
        chosen = posterior.bins.symbol(posterior.parameters, slots)
        rate = posterior.bins.log_prob(posterior.parameters, chosen) + bits * log(2)
        return rate.sum(1) - self.likelihood.log_prob(x, self.latents.features(chosen, bits, vector))


def schemes(model: Autoregressive | Latent) -> tuple[str, ...]:
    """How files can be coded with a model, the one that is shortest for many items first."""
    if not isinstance(model, Latent):
        return (AUTOREGRESSIVE,)
    topdown = model.topdown
    return (BITS_BACK, TWO_PART) if isinstance(topdown, FlatTopDown) and topdown.plain else (TWO_PART,)


def twin(
    model: Autoregressive | Latent,
    examples: Tensor,
    engine: str = "auto",
    threads: int = 1,
    vector: Tensor | None = None,
    scheme: str | None = None,
) -> Twin:
    """The twin of a model, calibrated by some examples (n, *shape).

    At most 64 count, spread evenly: where examples are sorted by class, the first ones would all be of one.

    Args:
        vector: (n, classes) labels of the examples, for a conditional model: the twin is then told labels. Without them it is
            the twin of the model with the null label.
        scheme: one of ``schemes(model)``; the first by default.

    Raises:
        LoweringError: the model has no exact form.
        DataError: its symbols are real values, or the examples do not fit.
    """
    count = min(EXAMPLES, len(examples))
    some = torch.arange(count) * len(examples) // max(1, count)
    x, labels = examples[some], None if vector is None else vector[some]
    made = restored(model, calibrated(model, x, labels, scheme or schemes(model)[0]), engine, threads)
    if not isinstance(made.latents, ExactGenerator):
        return made
    spread = torch.arange(min(TRIED, count)) * count // max(1, min(TRIED, count))
    best = fitted(made, made.latents, x[spread], None if labels is None else labels[spread])
    stages = zip(made.calibration["stages"], best.stages, strict=True)
    stages_now = [{**own, "bits": list(stage.bits)} for own, stage in stages]
    return restored(model, {**made.calibration, "stages": stages_now}, engine, threads)


def fitted(made: Twin, latents: ExactGenerator, x: Tensor, vector: Tensor | None) -> ExactGenerator:
    """The latents in bins of the width that costs least: of all groups alike, then of single ones, as of those that say little.

    Their many units would each cost a little. Where coarser bins save next to nothing they stay, because z then says more.
    """

    def cost(tried: ExactGenerator) -> float:
        return replace(made, latents=tried).cost(x, vector=vector).sum().item()

    least, best = min(((cost(each), each) for each in map(latents.finer, (-1, 0, 1))), key=lambda pair: pair[0])
    several = [place for place, stage in enumerate(latents.stages) if stage.bits and len(latents.stages) > 1]
    for place in several:
        coarser = best.finer(-1, place)
        spent = cost(coarser)
        if spent < WORTH * least:
            least, best = spent, coarser
    return best


@torch.no_grad()
def calibrated(
    model: Autoregressive | Latent, x: Tensor, vector: Tensor | None = None, scheme: str = BITS_BACK
) -> dict[str, Any]:
    """What examples decide, and whether they have labels, as JSON has it."""
    followed = getattr(model.config, "condition", "none")
    if followed != "none":
        raise LoweringError(
            f"the model follows features of each example ({followed}), which files do not hold and its twin is not told: train"
            " one without (condition='none')"
        )
    model = copy.deepcopy(model).cpu().double()
    check_symbols(x, model.spec)
    found: dict[str, Any] = {} if vector is None else {LABELS: True}
    likelihood, context = _likelihood(model), None if vector is None else Context(vector=vector)
    if isinstance(model, Latent):
        descent = model.descend(x, Noise(0, range(len(x))), context)
        context = descent.features
        if scheme == TWO_PART:
            found["stages"] = generator.calibrated(model.topdown, x, vector)
        else:
            topdown = flat(model)
            encoder = IntegerNet.calibrate(topdown.encoder, topdown.scaled(x), vector)
            decoder = IntegerNet.calibrate(topdown.decoder, descent.groups[0].z, vector)
            found |= {"encoder": encoder.fractions, "decoder": decoder.fractions}
    network = calibrated_network(likelihood, x, context)
    return found if network is None else {**found, "network": network}


def restored(model: Autoregressive | Latent, calibration: Mapping[str, Any], engine: str = "auto", threads: int = 1) -> Twin:
    """The twin that `twin` made, from its calibration and the model's weights.

    Raises:
        LoweringError: the model has no exact form, or the calibration is another model's.
        DataError: its symbols are real values.
    """
    likelihood, latents = _likelihood(model), None
    fractions = {"vector": 0} if LABELS in calibration else {}
    if isinstance(model, Latent):
        latents = _exact_latents(model, calibration, engine, threads)
        fractions["grid" if latents.grid else "vector"] = latents.fraction
    network = calibration["network"] if isinstance(likelihood.network, CausalNetwork) else None
    exact = exact_model(likelihood, network, fractions, engine, threads)
    digest = hashlib.blake2b(exact.network.checksum, digest_size=16)  # type: ignore[arg-type]
    for part in () if latents is None else latents.checksums:
        digest.update(part)
    digest.update(json.dumps([model.spec.to_dict(), repr(likelihood.family), calibration], sort_keys=True).encode())
    if likelihood.network.order != Order.raster(tuple(likelihood.network.shape)):
        digest.update(json.dumps(likelihood.network.order.sites).encode())
    return Twin(exact, latents, dict(calibration), digest.hexdigest())


def label_vector(labels: Tensor | None, spec: DataSpec) -> Tensor | None:
    """(n,) labels as a twin takes them, (n, classes) zeros and ones in float64; None stays None.

    Raises:
        ValueError: the data have no classes, or a label is outside them.
    """
    context = label_context(labels, spec, torch.zeros((), dtype=torch.float64, device="cpu"))
    return None if context is None else context.vector


def _likelihood(model: Autoregressive | Latent) -> Autoregressive:
    return model.likelihood if isinstance(model, Latent) else model


def _exact_latents(model: Latent, calibration: Mapping[str, Any], engine: str, threads: int) -> ExactLatents | ExactGenerator:
    if "stages" in calibration:
        topdown, told = copy.deepcopy(model.topdown).cpu().double(), LABELS in calibration
        return generator.restored(topdown, calibration["stages"], told, model.spec.classes or 0, engine, threads)
    return _both_ways(model, calibration)


def _both_ways(model: Latent, calibration: Mapping[str, Any]) -> ExactLatents:
    topdown, given = flat(model), (True, LABELS in calibration)
    encoder = IntegerNet.from_fractions(topdown.encoder, calibration["encoder"], given)
    decoder = IntegerNet.from_fractions(topdown.decoder, calibration["decoder"], given)
    classes = (model.spec.classes or 0) if LABELS in calibration else 0
    return ExactLatents(topdown, model.spec.levels or 2, encoder, decoder, classes)


def flat(model: Latent) -> FlatTopDown:
    """The top-down pass of a model whose bits come back; raises ``LoweringError`` for others."""
    topdown = model.topdown
    if not isinstance(topdown, FlatTopDown):
        raise LoweringError(f"bits come back from one group of latents; {type(topdown).__name__} is coded in two parts")
    if not topdown.plain:
        raise LoweringError(
            "bits come back with posterior='normal' and prior='normal'; models with others are coded in two parts"
        )
    return topdown
