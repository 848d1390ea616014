"""A group of latents in whole numbers: bins of e on a grid, with the steps that make z of it, or codes that are z itself."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from math import prod

import torch
from torch import Tensor

from ancestral.core import Autoregressive, Context
from ancestral.families import fixed
from ancestral.families.base import thirds
from ancestral.families.integer import IntegerBins
from ancestral.latent.generation import Stage
from ancestral.walking.exact.feedforward import IntegerNet
from ancestral.walking.exact.operations import Fixed, power

WIDEST = 8.0  # e lies within -8 .. 8
FARTHEST = 24  # bits of z, besides which it has those of fixed.MEAN behind the point
AT_ONCE = 1 << 20  # entries of tables that are held together


@dataclass(frozen=True, eq=False)
class ExactStep:
    """A `Step` in whole numbers."""

    net: IntegerNet
    causal: bool

    def parameters(self, h: Fixed | None, z: Fixed | None, vector: Fixed | None) -> tuple[Tensor, Tensor]:
        """Locations and scales, whole numbers of fraction 12."""
        found = self.net(h, z if self.causal else None, vector)
        location, log_scale = (Fixed(half, found.fraction) for half in found.integers.chunk(2, 1))
        scale = fixed.inverse_scales(-log_scale.at(fixed.LOG_SCALE).integers.long())
        return location.at(fixed.MEAN, FARTHEST).integers, scale.double()

    def undone(self, h: Fixed | None, z: Tensor, vector: Fixed | None) -> Tensor:
        """What the step makes real values z of, nearly."""
        location, scale = self.parameters(h, _whole(z), vector)
        return (z - location * power(-fixed.MEAN)) / (scale * power(-fixed.INVERSE))

    def settled(self, settle: Callable[[Tensor, Tensor], Tensor], h: Fixed | None, z: Fixed, vector: Fixed | None) -> Fixed:
        """z = location + scale ``settle(location, scale)``, of which a causal net reads the z that it leads to.

        After k turns the first k units are right, so that there are at most as many turns as units; it ends as soon as nothing
        changes any more.
        """
        for _ in range(z.integers.shape[1:].numel() if self.causal else 1):
            before, (location, scale) = z, self.parameters(h, z, vector)
            grown = Fixed(settle(location, scale) * scale, fixed.MEAN + fixed.INVERSE).at(fixed.MEAN, 2 * FARTHEST)
            z = Fixed(location + grown.integers, fixed.MEAN).at(fixed.MEAN, FARTHEST)
            if torch.equal(before.integers, z.integers):
                break
        return z


@dataclass(frozen=True, eq=False)
class ExactStage:
    """A `Stage` in whole numbers.

    Attributes:
        stage: the float one.
        steps, merge: integer twins of what it consists of.
        bits: of a step of the grid of e, by channel.
    """

    stage: Stage
    steps: tuple[ExactStep, ...]
    merge: IntegerNet
    bits: tuple[int, ...]

    @property
    def units(self) -> int:
        """How many there are."""
        return prod(self.stage.shape)

    @property
    def checksums(self) -> list[bytes]:
        """Of everything that is computed."""
        return [net.checksum() for net in (*(step.net for step in self.steps), self.merge)]

    def intervals(self, codes: Tensor) -> Iterator[tuple[Tensor, Tensor]]:
        """First slots and numbers of slots of (n, units) bins, those with one table after the other."""
        for places, family, parameters in self.classes():
            yield family.interval(parameters, codes[:, places])

    def tables(self, n: int) -> Iterator[tuple[tuple[slice, Tensor], Tensor]]:
        """Rows and units of n examples in the order of ``intervals``, with their cumulative tables (rows * units, bins + 1)."""
        for places, family, parameters in self.classes():
            table = family.cumulative(parameters)
            rows = max(1, AT_ONCE // table.numel())
            for first in range(0, n, rows):
                some = slice(first, min(first + rows, n))
                yield (some, places), table.repeat(some.stop - first, 1)

    def rate(self, codes: Tensor, h: Fixed | None, vector: Fixed | None) -> Tensor:
        """(n,) nats that (n, units) bins cost, whatever is above."""
        parts = [torch.log(frequency.double() / fixed.SLOTS).sum(1) for _, frequency in self.intervals(codes)]
        return -torch.stack(parts).sum(0)

    def drawn(self, u: Tensor, h: Fixed | None, vector: Fixed | None) -> Tensor:
        """(n, units) bins that own the slots of (n, units) uniforms: draws of e."""
        codes = torch.zeros(u.shape, dtype=torch.long)
        for places, family, parameters in self.classes():
            codes[:, places] = family.quantile(parameters.expand(len(u), -1, -1), u[:, places])
        return codes

    def classes(self) -> Iterator[tuple[Tensor, IntegerBins, Tensor]]:
        """Units with steps of as many bits: which they are, their family, and its (units, k) parameters."""
        of_units = self._bits().expand(self.stage.shape).flatten()
        for bits in sorted(set(self.bits)):
            some = (of_units == bits).nonzero()[:, 0]
            parameters = self._law(some)
            count = parameters.shape[1] // 3 if self.stage.mixture is not None else None
            yield some, IntegerBins(self.stage.law, 2 ** (bits + 4) + 1, count, -WIDEST, WIDEST), parameters

    def _law(self, some: Tensor) -> Tensor:
        if self.stage.mixture is None:
            return torch.zeros(len(some), 2, dtype=torch.long)
        given = self.stage.mixture.detach().cpu().double()
        count = given.shape[-1] // 3
        parts = zip(thirds(given, count), (fixed.LOGIT, fixed.MEAN, fixed.LOG_SCALE), strict=True)
        whole = torch.cat([Fixed.of(part, fraction).integers for part, fraction in parts], -1)
        return whole.expand(*self.stage.shape, -1).flatten(0, -2)[some].long()

    def _bits(self) -> Tensor:
        return torch.tensor(self.bits).view(-1, *(1 for _ in self.stage.shape[1:]))

    def settled(self, h: Fixed | None, codes: Tensor, vector: Fixed | None) -> Fixed:
        """z of (n, *latent) bins."""
        z = Fixed(self._e(codes), fixed.MEAN)
        for step in self.steps:
            z = step.settled(lambda location, scale, e=z: e.integers, h, z, vector)  # type: ignore[misc]
        return z

    def _e(self, codes: Tensor) -> Tensor:
        """The middles of bins, of fraction 12."""
        size = 2.0 ** (fixed.MEAN - self._bits())
        return codes.double() * size - WIDEST * power(fixed.MEAN)

    def nearest(self, h: Fixed | None, z: Tensor, vector: Fixed | None) -> Tensor:
        """(n, *latent) bins that come nearest to real values z."""
        for step in reversed(self.steps[1:]):
            z = step.undone(h, z, vector)
        if not self.steps:
            return self._binned(z)
        codes = torch.zeros(0)

        def settle(location: Tensor, scale: Tensor) -> Tensor:
            nonlocal codes
            codes = self._binned((z - location * power(-fixed.MEAN)) / (scale * power(-fixed.INVERSE)))
            return self._e(codes)

        self.steps[0].settled(settle, h, _whole(z), vector)
        return codes

    def values(self, codes: Tensor, z: Fixed) -> Tensor:
        """z as the model has it."""
        return z.values()

    def _binned(self, e: Tensor) -> Tensor:
        """The bins of real values e."""
        return ((e.clamp(-WIDEST, WIDEST) + WIDEST) * 2.0 ** self._bits() + 0.5).floor().long()


@dataclass(frozen=True, eq=False)
class ExactCodes:
    """A `Stage` of whole numbers: its codes are z itself.

    Attributes:
        stage: the float one.
        prior: p(z | h), of int64 parameters.
        merge: the integer twin of the stage's.
        bits: of no grid.
    """

    stage: Stage
    prior: Autoregressive
    merge: IntegerNet
    bits: tuple[int, ...] = ()

    @property
    def units(self) -> int:
        """How many there are."""
        return prod(self.stage.shape)

    @property
    def checksums(self) -> list[bytes]:
        """Of everything that is computed."""
        every = torch.arange(self.prior.family.levels or 0).view(-1, *(1 for _ in self.stage.shape))
        read = self._read(every).integers.numpy().astype("<f8").tobytes()
        return [self.prior.network.checksum, self.merge.checksum(), hashlib.blake2b(read, digest_size=8).digest()]  # type: ignore[list-item]

    def context(self, h: Fixed | None, vector: Fixed | None) -> Context:
        """What the prior sees."""
        return Context(vector=None if vector is None else vector.integers, grid=None if h is None else h.integers)

    def settled(self, h: Fixed | None, codes: Tensor, vector: Fixed | None) -> Fixed:
        """What is read of (n, *latent) codes."""
        return self._read(codes)

    def _read(self, codes: Tensor) -> Fixed:
        if self.stage.vectors is None:
            return Fixed(codes.double(), 0)
        return Fixed.of(self.stage.vectors(codes), fixed.MEAN, FARTHEST)

    def nearest(self, h: Fixed | None, z: Tensor, vector: Fixed | None) -> Tensor:
        """(n, *latent) codes of z."""
        return z.long()

    def values(self, codes: Tensor, z: Fixed) -> Tensor:
        """z as the model has it."""
        return codes.view(-1, *self.stage.shape)

    def rate(self, codes: Tensor, h: Fixed | None, vector: Fixed | None) -> Tensor:
        """(n,) nats that (n, units) codes cost."""
        return -self.prior.log_prob(codes.view(-1, *self.stage.shape), self.context(h, vector))

    def drawn(self, u: Tensor, h: Fixed | None, vector: Fixed | None) -> Tensor:
        """(n, units) codes that own the slots of (n, units) uniforms."""
        walk = self.prior.walk(len(u), self.context(h, vector))
        return walk.run(lambda site, conditional: conditional.quantile(u[:, site])).flatten(1)


def _whole(z: Tensor) -> Fixed:
    return Fixed.of(z, fixed.MEAN, FARTHEST)


def label(vector: Tensor | None) -> Fixed | None:
    """Labels as integer nets take them."""
    return None if vector is None else Fixed(vector.double(), 0)
