"""Codes in whole numbers: their prior as a twin of its own, and what their vectors are decoded to, the same everywhere.

Nothing of a code is rounded: the float encoder chooses it, and all that a file needs is its number. Only the vectors are.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from ancestral.core import Autoregressive, Context
from ancestral.families import Integer, fixed
from ancestral.families.base import Discrete
from ancestral.latent.vq_vae import CodedTopDown
from ancestral.networks.factorised import Uniform
from ancestral.walking.exact.calibration import Calibration, calibrate
from ancestral.walking.exact.feedforward import IntegerNet
from ancestral.walking.exact.generator import ExactGenerator
from ancestral.walking.exact.networks import ExactNetwork
from ancestral.walking.exact.operations import Fixed, LoweringError

ROWS = 64  # encoded together
WIDE = 24  # bits of a number of a vector, besides which it has those of fixed.MEAN behind the point


class ExactUniform(Uniform):
    """A uniform distribution in whole numbers."""

    checksum = b"uniform"

    def forward(self, x: Tensor, context: Context | None = None) -> Tensor:
        return super().forward(x, context).long()


class ExactCodes:
    """The generative direction of a `CodedTopDown` in whole numbers.

    Args:
        topdown: the float one, in float64, whose encoder chooses codes.
        prior: of the codes, with whole numbers as parameters.
        decoder: the twin of the decoder of their vectors.
        classes: how many numbers the labels have; 0 where there are none.

    Attributes:
        units: codes of one example.
        fraction: fraction bits of the features.
        grid: whether the features are a grid.
    """

    def __init__(self, topdown: CodedTopDown, prior: Autoregressive, decoder: IntegerNet, classes: int = 0) -> None:
        self.topdown, self.prior, self.decoder, self.classes = topdown, prior, decoder, classes
        self.units = topdown.units
        count = topdown.quantizer.codes
        self._book = topdown.quantizer.vectors(torch.arange(count).view(count, 1, 1, 1))[:, :, 0, 0]
        null = torch.zeros(1, classes) if classes else None
        found = self._decoded(torch.zeros(1, self.units, dtype=torch.long), null)
        self.fraction, self.grid = found.fraction, found.integers.dim() == 4

    def checksum(self) -> bytes:
        """What tells twins apart."""
        book = Fixed.of(self._book, fixed.MEAN, WIDE).integers.numpy().astype("<f8").tobytes()
        network: Any = self.prior.network
        of_prior: bytes = network.checksum
        return of_prior + self.decoder.checksum() + hashlib.blake2b(book, digest_size=8).digest()

    def features(self, codes: Tensor, vector: Tensor | None = None) -> Context:
        """What the likelihood sees of (n, units) codes and of these labels."""
        found = self._decoded(codes, vector).integers
        return Context(vector=vector, grid=found) if self.grid else Context(vector=found)

    def _decoded(self, codes: Tensor, vector: Tensor | None) -> Fixed:
        vectors = Fixed.of(self.topdown.quantizer.vectors(self.grid_of(codes)), fixed.MEAN, WIDE)
        return self.decoder(vectors, None if vector is None else Fixed(vector.double(), 0))

    def grid_of(self, codes: Tensor) -> Tensor:
        """(n, units) codes as (n, m, h, w)."""
        return codes.view(-1, *self.topdown.shape)

    def latents(self, codes: Tensor, vector: Tensor | None = None) -> dict[str, Tensor]:
        """(n, units) codes as the grids that they are, by group."""
        return {self.topdown.group: self.grid_of(codes)}

    @torch.no_grad()
    def codes(self, x: Tensor, vector: Tensor | None = None) -> Tensor:
        """(n, units) codes of (n, *shape) symbols with these labels, as the float encoder chooses them."""
        parts = [torch.zeros(0, self.units, dtype=torch.long)]
        for first in range(0, len(x), ROWS):
            some = slice(first, first + ROWS)
            parts.append(self.topdown.posterior(x[some], None if vector is None else vector[some].double()).codes.flatten(1))
        return torch.cat(parts)

    def rate(self, codes: Tensor, vector: Tensor | None = None) -> Tensor:
        """(n,) nats that (n, units) codes cost."""
        return -self.prior.log_prob(self.grid_of(codes), self.context(vector))

    def context(self, vector: Tensor | None) -> Context | None:
        """What the prior sees of labels."""
        return None if vector is None else Context(vector=vector)

    def drawn(self, u: Tensor) -> Tensor:
        """(n, units) codes, all equally likely, at (n, units) uniforms."""
        return (u * self.topdown.quantizer.codes).long()


FirstPart = ExactGenerator | ExactCodes  # what two-part codes begin with


def calibrated(topdown: CodedTopDown, x: Tensor, vector: Tensor | None) -> dict[str, Any]:
    """What examples decide: the fractions of the decoder and of the prior.

    Raises:
        LoweringError: one of them has no exact form.
    """
    codes, prior = topdown.posterior(x, vector).codes, topdown.prior
    decoder = IntegerNet.calibrate(topdown.decoder, topdown.quantizer.vectors(codes), vector)
    found: dict[str, Any] = {"decoder": decoder.fractions}
    if not isinstance(prior.network, Uniform):
        context = None if vector is None else Context(vector=vector)
        found["prior"] = calibrate(prior.network, _whole(prior), codes, context).to_dict()  # type: ignore[arg-type]
    return found


def restored(
    topdown: CodedTopDown,
    calibration: Mapping[str, Any],
    vector: bool = False,
    classes: int = 0,
    engine: str = "auto",
    threads: int = 1,
) -> ExactCodes:
    """The codes in whole numbers, from what `calibrated` found.

    Raises:
        LoweringError: there is no exact form, or the calibration is another model's.
    """
    prior, whole, network = topdown.prior, _whole(topdown.prior), topdown.prior.network
    if isinstance(network, Uniform):
        exact: Any = ExactUniform(tuple(network.shape), network.levels)
    else:
        given = {"vector": 0} if vector else {}
        known = Calibration.from_dict(calibration["prior"])
        exact = ExactNetwork(network, prior.family, known, given, engine, threads)  # type: ignore[arg-type]
    decoder = IntegerNet.from_fractions(topdown.decoder, calibration["decoder"], (True, vector))
    return ExactCodes(topdown, Autoregressive(exact, whole, prior.spec), decoder, classes if vector else 0)


def _whole(prior: Autoregressive) -> Integer:
    """The integer twin of the prior's family.

    Raises:
        LoweringError: there are too many codes.
    """
    if not isinstance(prior.family, Discrete):
        raise LoweringError(f"{prior.family} has no integer twin")
    try:
        return prior.family.integer()
    except ValueError as error:
        raise LoweringError(f"files take codes of fewer kinds: {error}") from error
