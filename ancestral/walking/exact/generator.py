"""A generative direction in whole numbers: from bins of e, group by group, to z and to the features, the same everywhere.

Every unit of e lies on a grid from -8 to 8 whose steps are 2^-bits, with as many bits a channel as its posterior needs: a step of
about three and a half standard deviations costs least, where coarser bins save as many bits of e as they cost bits of x. A unit
that says nothing then gets one bin for nearly all values, and costs nothing.

What is chosen is the bin of the posterior's mean, unit by unit, given what the bins above and before it have become.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from math import log, log2
from typing import Any

import torch
from torch import Tensor
from torch.distributions import Distribution

from ancestral.core import Context
from ancestral.latent.generation import Generator, Stage, Step
from ancestral.latent.topdown import Noise, TopDown, seen
from ancestral.walking.exact.feedforward import IntegerNet
from ancestral.walking.exact.groups import ExactCodes, ExactStage, ExactStep, label
from ancestral.walking.exact.networks import calibrated_network, exact_model
from ancestral.walking.exact.operations import Fixed, LoweringError

COARSEST, FINEST = -3, 8  # bits of a step of the grid
STEP = 12**0.5  # of the grid, in standard deviations: log2(step) bits saved less (step^2 / 24) nats lost are most here
DRAWS = 8  # of each posterior that tell how wide it is
ROWS = 64  # encoded together


Exact = ExactStage | ExactCodes


@dataclass(frozen=True, eq=False)
class Settled:
    """A group as it was settled.

    Attributes:
        stage: which one.
        codes: (n, units) bins, or whole numbers.
        above: h before it.
        z, h: what they became.
    """

    stage: Exact
    codes: Tensor
    above: Fixed | None
    z: Fixed
    h: Fixed


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

    def __init__(self, topdown: TopDown, stages: Sequence[Exact], start: tuple[int, ...] | None = None, classes: int = 0) -> None:
        self.topdown, self.stages, self.start, self.classes = topdown, tuple(stages), start, classes
        self.units = sum(stage.units for stage in stages)
        found = self._features(torch.zeros(1, self.units, dtype=torch.long), torch.zeros(1, classes) if classes else None)
        self.fraction, self.grid = found.fraction, found.integers.dim() == 4

    @property
    def checksums(self) -> list[bytes]:
        """Of everything that is computed."""
        return [each for stage in self.stages for each in stage.checksums]

    def finer(self, bits: int, place: int | None = None) -> ExactGenerator:
        """The same with so many bits more in every step of the grids, or of the grid of one stage."""
        stages = [
            replace(each, bits=tuple(_within(own + bits) for own in each.bits)) if place in (None, i) else each
            for i, each in enumerate(self.stages)
        ]
        return ExactGenerator(self.topdown, stages, self.start, self.classes)

    def features(self, codes: Tensor, vector: Tensor | None = None) -> Context:
        """What the likelihood sees of (n, units) bins and of these labels."""
        return seen(self._features(codes, vector).integers, vector)

    def _features(self, codes: Tensor, vector: Tensor | None) -> Fixed:
        *_, last = self.carried(codes, vector)
        return last.h

    def latents(self, codes: Tensor, vector: Tensor | None = None) -> dict[str, Tensor]:
        """z of (n, units) bins by group, in float64."""
        return {each.stage.stage.name: each.stage.values(each.codes, each.z) for each in self.carried(codes, vector)}

    def carried(self, codes: Tensor, vector: Tensor | None = None) -> Iterator[Settled]:
        """Every group, from the top, of (n, units) bins."""
        parts = iter(torch.split(codes, [stage.units for stage in self.stages], 1))
        return self.settle(lambda stage, h, labels: next(parts), len(codes), vector)

    def settle(
        self, choose: Callable[[Exact, Fixed | None, Fixed | None], Tensor], n: int, vector: Tensor | None = None
    ) -> Iterator[Settled]:
        """Every group, from the top, of n rows: ``choose(stage, h, labels)`` gives its (n, units) bins."""
        h, labels = self._first(n), label(vector)
        for stage in self.stages:
            codes, above = choose(stage, h, labels), h
            z = stage.settled(above, codes.view(-1, *stage.stage.shape), labels)
            h = stage.merge(above, z, labels)
            yield Settled(stage, codes, above, z, h)

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
        left, found, labels = iter(self.stages), list[Tensor](), label(vector)
        h = self._first(len(x))

        def choose(name: str, prior: Distribution, posterior: Distribution | None) -> Tensor:
            nonlocal h
            stage = next(left)
            codes = stage.nearest(h, (posterior or prior).mean.double(), labels)
            z = stage.settled(h, codes, labels)
            h = stage.merge(h, z, labels)
            found.append(codes.flatten(1))
            return stage.values(codes, z)

        self.topdown.descend(choose, x, None if vector is None else Context(vector=vector.double()))
        return torch.cat(found, 1)

    def rate(self, codes: Tensor, vector: Tensor | None = None) -> Tensor:
        """(n,) nats that (n, units) bins cost."""
        labels = label(vector)
        return torch.stack([each.stage.rate(each.codes, each.above, labels) for each in self.carried(codes, vector)]).sum(0)

    def drawn(self, u: Tensor, vector: Tensor | None = None) -> Tensor:
        """(n, units) bins that own the slots of (n, units) uniforms: draws of e."""
        parts = iter(torch.split(u, [stage.units for stage in self.stages], 1))
        settled = self.settle(lambda stage, h, labels: stage.drawn(next(parts), h, labels), len(u), vector)
        return torch.cat([each.codes for each in settled], 1)


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
        stage, settled = next(left), posterior or prior
        if stage.codes is not None:
            z, seen = settled.mean, Context(vector=vector, grid=h)
            merge = IntegerNet.calibrate(stage.merge, h, stage.read(z), vector)
            network = calibrated_network(stage.codes, z, seen)
            found.append({"network": network, "merge": merge.fractions, "bits": []})
            h = stage.merge(h, stage.read(z), vector)
            return z
        draws = [noise(name, prior, posterior).double() for noise in noises]
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


def restored(
    topdown: TopDown,
    calibration: Sequence[dict[str, Any]],
    vector: bool = False,
    classes: int = 0,
    engine: str = "auto",
    threads: int = 1,
) -> ExactGenerator:
    """The generator in whole numbers, from what `calibrated` found.

    Raises:
        LoweringError: it has no exact form, or the calibration is another one's.
    """
    generator = generator_of(topdown)
    if len(calibration) != len(generator.stages):
        raise LoweringError(f"a calibration of {len(calibration)} groups is another model's: there are {len(generator.stages)}")
    labels = label(torch.zeros(1, classes)) if vector else None
    stages, h = list[Exact](), None if generator.start is None else Fixed(torch.zeros(1, *generator.start).double(), 0)
    for stage, own in zip(generator.stages, calibration, strict=True):
        merge = IntegerNet.from_fractions(stage.merge, own["merge"], (h is not None, True, vector))
        if stage.codes is None:
            stages.append(_stage(stage, own, merge, h is not None, vector))
        else:
            fractions = ({"vector": 0} if vector else {}) | ({} if h is None else {"grid": h.fraction})
            stages.append(ExactCodes(stage, exact_model(stage.codes, own["network"], fractions, engine, threads), merge))
        h = merge(h, stages[-1].settled(h, torch.zeros(1, *stage.shape).long(), labels), labels)
    return ExactGenerator(topdown, stages, generator.start, classes if vector else 0)


def _stage(stage: Stage, own: dict[str, Any], merge: IntegerNet, there: bool, vector: bool) -> ExactStage:
    if len(own["bits"]) != stage.shape[0] or not all(COARSEST <= each <= FINEST for each in own["bits"]):
        raise LoweringError(f"the bits of group {stage.name!r} are those of another model")
    nets = [
        IntegerNet.from_fractions(step.net, fractions, (there, step.causal, vector))
        for step, fractions in zip(stage.steps, own["steps"], strict=True)
    ]
    steps = tuple(ExactStep(net, step.causal) for net, step in zip(nets, stage.steps, strict=True))
    return ExactStage(stage, steps, merge, tuple(own["bits"]))


def generator_of(topdown: TopDown) -> Generator:
    """The generative direction; raises ``LoweringError`` where there is none."""
    try:
        return topdown.generator()
    except NotImplementedError as error:
        raise LoweringError(str(error)) from error


def _within(bits: int) -> int:
    return max(COARSEST, min(FINEST, bits))
