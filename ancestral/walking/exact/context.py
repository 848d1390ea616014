"""What runs once over the context, in whole numbers."""

from __future__ import annotations

import copy
import hashlib
import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

from ancestral.causal.attention import Angles
from ancestral.causal.context import Once
from ancestral.causal.embedding import Constant
from ancestral.causal.layer import Node, Pointwise
from ancestral.causal.layer import Sum as SumLayer
from ancestral.causal.program import Fill, Program
from ancestral.families.integer import Integer
from ancestral.walking.exact.calibration import Calibration, formats, once_nodes
from ancestral.walking.exact.feedforward import IntegerNet
from ancestral.walking.exact.operations import Fixed, LoweringError, Sum, power
from ancestral.walking.exact.tokens import ANGLE, exact_angles


class ExactContext:
    """What runs once over the context, in whole numbers.

    Args:
        program: as the network was lowered, not its exact form.
        family, calibration: those of the exact form.

    Raises:
        LoweringError: a layer over the context has no exact form, or the calibration is another network's.
    """

    def __init__(self, program: Program, family: Integer, calibration: Calibration) -> None:
        nodes = once_nodes(program)
        if len(nodes) != len(calibration.once):
            raise LoweringError("this calibration is another network's: calibrate this one")
        self.program, self.calibration = program, calibration
        self._limits = [form.limit for form in formats(program, family.levels)]
        self._steps = [(node, _once_step(node, bits)) for node, bits in zip(nodes, calibration.once, strict=True)]

    def __call__(self, parts: Mapping[str, Fixed]) -> dict[int, Tensor]:
        """The parts of a context, by name, to (n, features, H, W) or (n, features, 1, 1) integers for every buffer to fill.

        Raises:
            ValueError: the parts are not those that the Program reads.
        """
        if parts.keys() != self.program.context.keys():
            raise ValueError(f"the context has {sorted(parts)}; this Program reads {sorted(self.program.context)}")
        values = {signal.index: parts[name] for name, signal in self.program.context.items()}
        for node, step in self._steps:
            values[node.output.index] = step(*(values[signal.index] for signal in node.inputs))
        return {fill.target: self._filled(fill, [values[signal.index] for signal in fill.signals]) for fill in self.program.fills}

    def _filled(self, fill: Fill, terms: list[Fixed]) -> Tensor:
        finest = max(term.fraction for term in terms)
        total = terms[0].integers * power(finest - terms[0].fraction)
        for term in terms[1:]:
            total = total + term.integers * power(finest - term.fraction)
        bits = self._limits[fill.target].bit_length() + 1
        integers = Fixed(total, finest).at(self.calibration.buffers[fill.target], bits).integers
        return integers if fill.order is None else integers[:, fill.order]

    def checksum(self) -> bytes:
        """16 bytes that tell them apart: BLAKE2b of what is computed, and of the calibration."""
        digest = hashlib.blake2b(json.dumps(self.calibration.to_dict(), sort_keys=True).encode(), digest_size=16)
        for node, step in self._steps:
            digest.update(type(node.layer).__name__.encode() + (step.net.checksum() if isinstance(step, ExactOnce) else b""))
            if isinstance(step, ExactConstant):
                digest.update(step.value.integers.to(torch.int32).numpy().astype("<i4").tobytes())
        return digest.digest()


@dataclass(frozen=True)
class ExactOnce:
    """A module over the context, with what it makes of a vector spread over the sites."""

    net: IntegerNet

    def __call__(self, x: Fixed) -> Fixed:
        y = self.net(x)
        return Fixed(y.integers[:, :, None, None], y.fraction) if y.integers.dim() == 2 else y


@dataclass(frozen=True)
class ExactConstant:
    """What depends on nothing."""

    value: Fixed

    def __call__(self) -> Fixed:
        return self.value


def _constant(layer: Constant, fraction: int) -> ExactConstant:
    if isinstance(layer, Angles):
        return ExactConstant(Fixed(exact_angles(layer), ANGLE))
    return ExactConstant(Fixed.of(copy.deepcopy(layer).double().cpu()().detach(), fraction))


def _exact_relu(x: Fixed) -> Fixed:
    return Fixed(x.integers.clamp_min(0), x.fraction)


def _once_step(node: Node, fractions: Mapping[str, int]) -> Callable[..., Fixed]:
    if isinstance(node.layer, Once):
        return ExactOnce(IntegerNet.from_fractions(node.layer.module, fractions, [True] * len(node.inputs)))
    if isinstance(node.layer, SumLayer):
        return Sum(fractions["sum"])
    if isinstance(node.layer, Constant):
        return _constant(node.layer, fractions["constant"])
    if isinstance(node.layer, Pointwise) and node.layer.name == "relu":
        return _exact_relu
    raise LoweringError(
        f"{type(node.layer).__name__} over the context has no exact form; Once, constants, relu and sums have one"
    )
