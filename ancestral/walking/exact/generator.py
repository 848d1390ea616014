"""A generative direction in whole numbers: from bins of e, group by group, to z and to the features, the same everywhere.

Every unit of e lies on a grid from -8 to 8 whose steps are 2^-bits, with as many bits a channel as its posterior needs: a step of
about three and a half standard deviations costs least, where coarser bins save as many bits of e as they cost bits of x. A unit
that says nothing then gets one bin for nearly all values, and costs nothing.

What is chosen is the bin of the posterior's mean, unit by unit, given what the bins above and before it have become.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from math import log, log2, prod
from typing import Any

import torch
from torch import Tensor
from torch.distributions import Distribution

from ancestral.core import Context
from ancestral.families import fixed
from ancestral.families.base import thirds
from ancestral.families.integer import IntegerBins
from ancestral.latent.generation import Generator, Stage, Step
from ancestral.latent.topdown import Noise, TopDown
from ancestral.walking.exact.feedforward import IntegerNet
from ancestral.walking.exact.operations import Fixed, LoweringError, power

WIDEST = 8.0  # e lies within -8 .. 8
COARSEST, FINEST = -3, 8  # bits of a step of the grid
STEP = 12**0.5  # of the grid, in standard deviations: log2(step) bits saved less (step^2 / 24) nats lost are most here
DRAWS = 8  # of each posterior that tell how wide it is
FARTHEST = 24  # bits of z, besides which it has those of fixed.MEAN behind the point
ROWS = 64  # encoded together
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

    def _binned(self, e: Tensor) -> Tensor:
        """The bins of real values e."""
        return ((e.clamp(-WIDEST, WIDEST) + WIDEST) * 2.0 ** self._bits() + 0.5).floor().long()


class ExactGenerator:
    """The `Generator` of a top-down pass in whole numbers.

    Args:
        topdown: the float one, whose posteriors choose bins.
        stages: the groups, from the top.
        start: shape of the first h, or None.
        classes: how many numbers the labels have; 0 where there are none.

    Attributes:
        units: of all groups together.
        fraction: fraction bits of the features.
        grid: whether the features are a grid.
    """

    def __init__(
        self, topdown: TopDown, stages: Sequence[ExactStage], start: tuple[int, ...] | None = None, classes: int = 0
    ) -> None:
        self.topdown, self.stages, self.start, self.classes = topdown, tuple(stages), start, classes
        self.units = sum(stage.units for stage in stages)
        found = self._features(torch.zeros(1, self.units), torch.zeros(1, classes) if classes else None)
        self.fraction, self.grid = found.fraction, found.integers.dim() == 4

    @property
    def nets(self) -> list[IntegerNet]:
        """Everything that is computed."""
        return [net for stage in self.stages for net in (*(step.net for step in stage.steps), stage.merge)]

    def finer(self, bits: int) -> ExactGenerator:
        """The same with so many bits more in every step of the grids."""
        stages = [replace(each, bits=tuple(_within(own + bits) for own in each.bits)) for each in self.stages]
        return ExactGenerator(self.topdown, stages, self.start, self.classes)

    def features(self, codes: Tensor, vector: Tensor | None = None) -> Context:
        """What the likelihood sees of (n, units) bins and of these labels."""
        found = self._features(codes, vector).integers
        return Context(vector=vector, grid=found) if self.grid else Context(vector=found)

    def _features(self, codes: Tensor, vector: Tensor | None) -> Fixed:
        *_, (_, h) = self._carried(codes, vector)
        return h

    def latents(self, codes: Tensor, vector: Tensor | None = None) -> dict[str, Tensor]:
        """z of (n, units) bins by group, in float64."""
        return {stage.stage.name: z.values() for stage, (z, _) in zip(self.stages, self._carried(codes, vector), strict=True)}

    def _carried(self, codes: Tensor, vector: Tensor | None) -> Iterator[tuple[Fixed, Fixed]]:
        """z of every group, and h after it."""
        h, labels = self._first(len(codes)), _label(vector)
        for stage, own in zip(self.stages, torch.split(codes, [stage.units for stage in self.stages], 1), strict=True):
            z = stage.settled(h, own.view(-1, *stage.stage.shape), labels)
            h = stage.merge(h, z, labels)
            yield z, h

    def _first(self, n: int) -> Fixed | None:
        return None if self.start is None else Fixed(torch.zeros(n, *self.start, dtype=torch.float64), 0)

    @torch.no_grad()
    def codes(self, x: Tensor, vector: Tensor | None = None) -> Tensor:
        """(n, units) bins for (n, *shape) symbols with these labels, as the float posteriors choose them."""
        parts = [torch.zeros(0, self.units, dtype=torch.long)]
        for first in range(0, len(x), ROWS):
            some = slice(first, first + ROWS)
            parts.append(self._chosen(x[some], None if vector is None else vector[some]))
        return torch.cat(parts)

    def _chosen(self, x: Tensor, vector: Tensor | None) -> Tensor:
        left, found, labels = iter(self.stages), list[Tensor](), _label(vector)
        h = self._first(len(x))

        def choose(name: str, prior: Distribution, posterior: Distribution | None) -> Tensor:
            nonlocal h
            stage = next(left)
            codes = stage.nearest(h, (posterior or prior).mean.double(), labels)
            z = stage.settled(h, codes, labels)
            h = stage.merge(h, z, labels)
            found.append(codes.flatten(1))
            return z.values()

        self.topdown.descend(choose, x, None if vector is None else Context(vector=vector.double()))
        return torch.cat(found, 1)

    def intervals(self, codes: Tensor) -> Iterator[tuple[Tensor, Tensor]]:
        """First slots and numbers of slots of (n, units) bins, those with one table after the other."""
        for places, family, parameters in self._classes():
            yield family.interval(parameters, codes[:, places])

    def tables(self, n: int) -> Iterator[tuple[tuple[slice, Tensor], Tensor]]:
        """Rows and units of n examples in the order of ``intervals``, with their cumulative tables (rows * units, bins + 1)."""
        for places, family, parameters in self._classes():
            table = family.cumulative(parameters)
            rows = max(1, AT_ONCE // table.numel())
            for first in range(0, n, rows):
                some = slice(first, min(first + rows, n))
                yield (some, places), table.repeat(some.stop - first, 1)

    def _classes(self) -> Iterator[tuple[Tensor, IntegerBins, Tensor]]:
        first = 0
        for stage in self.stages:
            yield from ((first + some, family, parameters) for some, family, parameters in stage.classes())
            first += stage.units

    def rate(self, codes: Tensor, vector: Tensor | None = None) -> Tensor:
        """(n,) nats that (n, units) bins cost, whatever the labels."""
        parts = [torch.log(frequency.double() / fixed.SLOTS).sum(1) for _, frequency in self.intervals(codes)]
        return -torch.stack(parts).sum(0)

    def drawn(self, u: Tensor) -> Tensor:
        """(n, units) bins that own the slots of (n, units) uniforms: draws of e."""
        codes = torch.zeros(u.shape, dtype=torch.long)
        for places, family, parameters in self._classes():
            codes[:, places] = family.quantile(parameters.expand(len(u), -1, -1), u[:, places])
        return codes


# -- calibration ---------------------------------------------------------------------------------------------------------


def calibrated(topdown: TopDown, x: Tensor, vector: Tensor | None) -> list[dict[str, Any]]:
    """What examples decide of every stage: the fractions of its nets, and bits by channel.

    Raises:
        LoweringError: it has no exact form.
    """
    generator, context = generator_of(topdown), None if vector is None else Context(vector=vector)
    left, found = iter(generator.stages), list[dict[str, Any]]()
    noises = [Noise(seed, range(len(x))) for seed in range(DRAWS)]
    h = None if generator.start is None else torch.zeros(len(x), *generator.start, dtype=torch.float64)

    def choose(name: str, prior: Distribution, posterior: Distribution | None) -> Tensor:
        nonlocal h
        stage, draws = next(left), [noise(name, prior, posterior).double() for noise in noises]
        z = draws[0]
        steps = [_step(step, h, given, vector) for step, given in stage.made_of(h, z, vector)]
        merge = IntegerNet.calibrate(stage.merge, h, z, vector)
        found.append({"steps": steps[::-1], "merge": merge.fractions, "bits": _bits_of(stage, h, draws, vector)})
        h = stage.merge(h, z, vector)
        return z

    topdown.descend(choose, x, context)
    return found


def _step(step: Step, h: Tensor | None, z: Tensor, vector: Tensor | None) -> dict[str, int]:
    return IntegerNet.calibrate(step.net, h, z if step.causal else None, vector).fractions


def _bits_of(stage: Stage, h: Tensor | None, draws: Sequence[Tensor], vector: Tensor | None) -> list[int]:
    """Bits by channel, from how wide the posterior of e is."""
    e = torch.stack([_undone(stage, h, z, vector) for z in draws])
    width = e.var(0).clamp_min(1e-12).log().transpose(0, 1).flatten(1).mean(1) / 2
    return [_within(round(-(each / log(2) + log2(STEP)))) for each in width.tolist()]


def _undone(stage: Stage, h: Tensor | None, z: Tensor, vector: Tensor | None) -> Tensor:
    for step in reversed(stage.steps):
        z = step.undone(h, z, vector)
    return z


def restored(topdown: TopDown, calibration: Sequence[dict[str, Any]], vector: bool = False, classes: int = 0) -> ExactGenerator:
    """The generator in whole numbers, from what `calibrated` found.

    Raises:
        LoweringError: it has no exact form, or the calibration is another one's.
    """
    generator = generator_of(topdown)
    if len(calibration) != len(generator.stages):
        raise LoweringError(f"a calibration of {len(calibration)} groups is another model's: there are {len(generator.stages)}")
    stages, there = list[ExactStage](), generator.start is not None
    for stage, own in zip(generator.stages, calibration, strict=True):
        if len(own["bits"]) != stage.shape[0] or not all(COARSEST <= each <= FINEST for each in own["bits"]):
            raise LoweringError(f"the bits of group {stage.name!r} are those of another model")
        nets = [
            IntegerNet.from_fractions(step.net, fractions, (there, step.causal, vector))
            for step, fractions in zip(stage.steps, own["steps"], strict=True)
        ]
        steps = tuple(ExactStep(net, step.causal) for net, step in zip(nets, stage.steps, strict=True))
        merge = IntegerNet.from_fractions(stage.merge, own["merge"], (there, True, vector))
        stages.append(ExactStage(stage, steps, merge, tuple(own["bits"])))
        there = True
    return ExactGenerator(topdown, stages, generator.start, classes if vector else 0)


def generator_of(topdown: TopDown) -> Generator:
    """The generative direction; raises ``LoweringError`` where there is none."""
    try:
        return topdown.generator()
    except NotImplementedError as error:
        raise LoweringError(str(error)) from error


def _within(bits: int) -> int:
    return max(COARSEST, min(FINEST, bits))


def _whole(z: Tensor) -> Fixed:
    return Fixed.of(z, fixed.MEAN, FARTHEST)


def _label(vector: Tensor | None) -> Fixed | None:
    return None if vector is None else Fixed(vector.double(), 0)
