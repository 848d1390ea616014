"""Items with labels: the twin of a conditional model that is told them, and the labels themselves as bytes."""

from __future__ import annotations

import copy
import hashlib
import json
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor

from ancestral.causal.network import CausalNetwork
from ancestral.coding.errors import CodecError
from ancestral.core import Autoregressive, Context, check_symbols
from ancestral.families.base import Discrete
from ancestral.latent.latent import Latent
from ancestral.latent.topdown import Noise
from ancestral.latent.vae import FlatTopDown
from ancestral.networks.factorised import Factorised
from ancestral.objectives import label_context
from ancestral.sampling.strategies import Model, likelihood_of
from ancestral.spec import DataSpec
from ancestral.walking.exact.calibration import Calibration, calibrate
from ancestral.walking.exact.feedforward import IntegerNet
from ancestral.walking.exact.networks import ExactFactorised, ExactNetwork
from ancestral.walking.exact.operations import Fixed, LoweringError
from ancestral.walking.twin import EXAMPLES, ExactLatents, Twin, flat, whole_family

# ---- labels as bytes


def label_bytes(n: int, classes: int) -> int:
    """How many bytes n labels take: those of a number of n digits in base ``classes``."""
    largest: int = classes**n - 1
    return (largest.bit_length() + 7) // 8


def packed(labels: Tensor, classes: int) -> bytes:
    """(n,) labels as the digits of one number, the first one the highest: log2(classes) bits each.

    Example:
        >>> packed(torch.tensor([1, 2, 3, 4]), 10) == (1234).to_bytes(2, "little")
        True
    """
    number = 0
    for label in labels.tolist():
        number = number * classes + label
    return number.to_bytes(label_bytes(len(labels), classes), "little")


def unpacked(data: bytes, n: int, classes: int) -> Tensor:
    """The (n,) int64 labels that ``packed`` wrote.

    Raises:
        CodecError: the bytes are of more or fewer labels, or of other classes.
    """
    number, digits = int.from_bytes(data, "little"), []
    for _ in range(n):
        number, digit = divmod(number, classes)
        digits.append(digit)
    if number or len(data) != label_bytes(n, classes):
        raise CodecError(f"{len(data)} bytes do not hold {n} labels of {classes} classes: the file is damaged")
    return torch.tensor(digits[::-1], dtype=torch.long)


def vectors(labels: Tensor, spec: DataSpec) -> Tensor:
    """(n,) labels as (n, classes) zeros and ones in float64."""
    context = label_context(labels, spec, torch.zeros((), dtype=torch.float64))
    vector = None if context is None else context.vector
    return torch.zeros(0, 0) if vector is None else vector


def in_turn(n: int, spec: DataSpec) -> Tensor:
    """(n,) labels, every class in turn."""
    return torch.arange(n) % (spec.classes or 1)


# ---- the twin that is told labels


class Told(IntegerNet):
    """A net of two inputs whose second one is bound: the (n, classes) vectors of its rows' labels.

    Args:
        net: of the two inputs.
        vector: for every row of the first input.
    """

    def __init__(self, net: IntegerNet, vector: Tensor) -> None:
        vars(self).update(vars(net))
        self.vector = vector

    def __call__(self, *inputs: Fixed | None) -> Fixed:
        return super().__call__(inputs[0], Fixed(self.vector, 0))


class LabelledLatents(ExactLatents):
    """Encoder and decoder of a conditional `FlatTopDown` in whole numbers.

    Args:
        encoder, decoder: nets that take labels beside x and z.

    Attributes:
        vector: (n, classes) the labels of the rows; ``told`` sets it.
    """

    def __init__(self, topdown: FlatTopDown, spec: DataSpec, encoder: IntegerNet, decoder: IntegerNet) -> None:
        self.vector = torch.zeros(1, spec.classes or 0, dtype=torch.float64)
        super().__init__(topdown, spec.levels or 2, Told(encoder, self.vector), Told(decoder, self.vector))

    def told(self, vector: Tensor) -> LabelledLatents:
        """The latents of rows with these labels, (n, classes)."""
        other = copy.copy(self)
        other.encoder, other.decoder, other.vector = Told(self.encoder, vector), Told(self.decoder, vector), vector
        return other

    def features(self, chosen: Tensor, bits: int) -> Context:
        """What the likelihood sees of (n, units) bins and of the labels."""
        decoded = super().features(chosen, bits)
        return decoded if decoded.grid is None else replace(decoded, vector=self.vector)


class LabelledTwin(Twin):
    """The twin of a conditional model that is told labels, without which it computes nothing: ``cost`` is not for it."""


def told(latents: ExactLatents, vector: Tensor | None) -> ExactLatents:
    """The latents of rows with these labels; without labels, as they are."""
    return latents if vector is None or not isinstance(latents, LabelledLatents) else latents.told(vector)


def labelled_twin(model: Model, x: Tensor, labels: Tensor, engine: str = "auto", threads: int = 1) -> LabelledTwin:
    """The twin of a conditional model that is told labels, calibrated by (n, *shape) examples and their (n,) labels.

    At most 64 count, spread evenly: in folders of classes the first ones would all have one label.

    Raises:
        LoweringError: the model has no exact form.
        DataError: its symbols are real values, or the examples do not fit.
    """
    count = min(EXAMPLES, len(x))
    some = torch.arange(count) * len(x) // max(1, count)
    return labelled_restored(model, _calibrated(model, x[some], vectors(labels[some], model.spec)), engine, threads)


@torch.no_grad()
def _calibrated(model: Model, x: Tensor, vector: Tensor) -> dict[str, Any]:
    """What examples decide, as JSON has it."""
    model = copy.deepcopy(model).cpu().double()
    check_symbols(x, model.spec)
    found: dict[str, Any] = {}
    likelihood, context = likelihood_of(model), Context(vector=vector)
    if isinstance(model, Latent):
        topdown, descent = flat(model), model.descend(x, Noise(0, range(len(x))), context)
        context = descent.features
        encoder = IntegerNet.calibrate(topdown.encoder, topdown.scaled(x), vector)
        decoder = IntegerNet.calibrate(topdown.decoder, descent.groups[0].z, vector)
        found |= {"encoder": encoder.fractions, "decoder": decoder.fractions}
    if isinstance(likelihood.network, CausalNetwork):
        found["network"] = calibrate(likelihood.network, whole_family(likelihood.family), x, context).to_dict()
    return found


def labelled_restored(model: Model, calibration: Mapping[str, Any], engine: str = "auto", threads: int = 1) -> LabelledTwin:
    """The twin that `labelled_twin` made, from its calibration and the model's weights.

    Raises:
        LoweringError: the model has no exact form, or the calibration is another model's.
        DataError: its symbols are real values.
    """
    likelihood, latents, fractions = likelihood_of(model), None, {"vector": 0}
    if isinstance(model, Latent):
        topdown = flat(model)
        encoder = IntegerNet.from_fractions(topdown.encoder, calibration["encoder"], (True, True))
        decoder = IntegerNet.from_fractions(topdown.decoder, calibration["decoder"], (True, True))
        latents = LabelledLatents(topdown, model.spec, encoder, decoder)
        fractions["grid"] = latents.fraction
    network, family = likelihood.network, likelihood.family
    exact: ExactNetwork | ExactFactorised
    if isinstance(network, Factorised) and latents is not None:
        exact = ExactFactorised(network, whole_family(family), latents.fraction)
    elif isinstance(network, CausalNetwork) and isinstance(family, Discrete):
        exact = ExactNetwork(network, family, Calibration.from_dict(calibration["network"]), fractions, engine, threads)
    else:
        raise LoweringError(f"{type(network).__name__} has no exact form that is told labels")
    digest = hashlib.blake2b(b"labels" + exact.checksum, digest_size=16)
    for net in () if latents is None else (latents.encoder, latents.decoder):
        digest.update(net.checksum())
    digest.update(json.dumps([model.spec.to_dict(), repr(family), calibration], sort_keys=True).encode())
    return LabelledTwin(Autoregressive(exact, whole_family(family), model.spec), latents, dict(calibration), digest.hexdigest())
