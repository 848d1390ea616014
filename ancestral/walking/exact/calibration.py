"""What the buffers of an exact Program may hold: what the Program itself decides, and what examples do."""

from __future__ import annotations

import copy
import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from ancestral.causal.arithmetic import Floating
from ancestral.causal.context import Once
from ancestral.causal.embedding import Constant, Embedding
from ancestral.causal.layer import Clock, Node
from ancestral.causal.layer import Sum as SumLayer
from ancestral.causal.network import CausalNetwork
from ancestral.causal.program import Add, Affine, Couple, Point, Program, Put
from ancestral.causal.stepping import once_values
from ancestral.causal.tokens import Attend, Rotate, TokenOperation
from ancestral.core import Context
from ancestral.families.integer import Integer
from ancestral.walking.exact.feedforward import IntegerNet, fraction_for
from ancestral.walking.exact.operations import LoweringError, power
from ancestral.walking.exact.tokens import ANGLE
from ancestral.walking.exact.whole import GATE_ARGUMENT, GATED, KEPT, READ, RESULTS
from ancestral.walking.parallel import computed

WEIGHT_BITS = 11  # of the largest weight of an output, besides its sign
FINEST = 15  # fraction bits that a buffer may get
SPARE = 1  # bits left for values larger than those of the examples; costs less than 0.01 % of the bits of an image
HEADROOM = 4  # bits by which sums are finer than where they start and end, since weights may have to drop some
PLACES = 2**15  # of the examples that are looked at together, so that long ones fit into memory
LEVELS = 4096  # more of them activations cannot tell apart


@dataclass(frozen=True)
class Format:
    """What a buffer may hold. Those that are added to each other are alike, and so are a relu and what it reads.

    Attributes:
        group: the first of the buffers that are alike.
        limit: the largest magnitude.
        fraction: fraction bits; None where examples decide. Columns of the parameters have those of the family, and 0 here.
    """

    group: int
    limit: int
    fraction: int | None = None


def formats(program: Program, levels: int) -> list[Format]:
    """The format of every buffer: what those who write and read it ask for.

    Raises:
        LoweringError: they ask for different ones.
    """
    groups = _groups(program)
    asked: dict[int, set[tuple[int, int | None]]] = {group: set() for group in groups}
    read = {groups[op.source] for op in program.operations if isinstance(op, Affine)}
    read |= {groups[op.query.buffer] for op in program.operations if isinstance(op, Attend)}
    for put in program.puts:
        if groups[put.target] in read:  # what is only added to something is as that is
            asked[groups[put.target]].add((READ, READ.bit_length() - _put_exponent(put, levels, program)))
    single = {group for group in groups if groups.count(group) == 1}
    for op in program.operations:
        if isinstance(op, Rotate):
            asked[groups[op.angles.buffer]].add((KEPT, ANGLE))
        if isinstance(op, Couple):
            asked[groups[op.source.buffer]].add((KEPT, 0))
        elif isinstance(op, Point) and op.function in RESULTS:
            alone = groups[op.target.buffer] in single
            bits = RESULTS[op.function]
            asked[groups[op.target.buffer]].add((READ if alone else KEPT, bits))  # what it is added to may be larger
        if isinstance(op, Point) and op.function == "gate":
            arguments = {part.buffer for part in (op.source, op.other) if part is not None} & single
            for buffer in arguments:
                asked[buffer].add((GATED, GATE_ARGUMENT))
    output = groups[program.output]
    if asked[output] or output in read or groups.count(output) > 1:
        raise LoweringError("the parameters must come from affine maps and go nowhere else: end the network with such a map")
    asked[output] = {(KEPT, 0)}
    written = {op.target.buffer for op in program.operations if not isinstance(op, Affine)}
    for mixture in (op.source.buffer for op in program.operations if isinstance(op, Couple)):
        if mixture in written or mixture not in single or mixture in read or len(asked[mixture]) > 1:
            raise LoweringError("the numbers of a channel mixture must come from an affine map and go nowhere else")
    if any(len(each) > 1 for each in asked.values()):
        raise LoweringError("what a function gives is added to what has another scale: put an affine map in between")
    return [Format(group, *next(iter(asked[group]), (READ if group in read else KEPT, None))) for group in groups]


def _groups(program: Program) -> list[int]:
    """For every buffer the first of those that are alike."""
    groups = list(range(len(program.buffers)))
    for op in program.operations:
        if isinstance(op, Affine | Couple | TokenOperation) or (isinstance(op, Point) and op.function != "relu"):
            continue
        parts = (op.target, op.a, op.b) if isinstance(op, Add) else (op.target, op.source)
        alike = {groups[part.buffer] for part in parts}
        groups = [min(alike) if group in alike else group for group in groups]
    return groups


@torch.no_grad()
def put_values(put: Put, levels: int, channels: int) -> list[Tensor]:
    """(levels, features) for every channel: what the symbols become, in float64."""
    if levels > LEVELS and not isinstance(put.layer, Embedding):
        raise LoweringError(f"symbols have {levels} levels, but activations tell only {LEVELS} apart")
    layer, symbols = copy.deepcopy(put.layer).double().cpu(), torch.arange(levels)
    return [layer.absorb(symbols, channel) for channel in range(channels)]


def _put_exponent(put: Put, levels: int, program: Program) -> int:
    largest = max(float(values.abs().max()) for values in put_values(put, levels, program.shape[0]))
    return math.frexp(largest * (1 + power(-WEIGHT_BITS)))[1]  # 1 and what float32 makes of it are alike


def largest_weights(weight: Tensor) -> Tensor:
    """(sets, N) largest magnitude of each output's weights, 0 where it has none."""
    return torch.cat([weight.new_zeros(len(weight), 1, weight.shape[-1]), weight.flatten(1, 2).abs()], 1).amax(1)


def weight_bits(weight: Tensor) -> Tensor:
    """(sets, N) fraction bits that leave the largest weight of every output 11 bits and a sign."""
    exponents = torch.frexp(largest_weights(weight.double()) * (4096 / 4095)).exponent.long()
    return WEIGHT_BITS - exponents  # none is rounded up to 2^11


# -- what examples decide ------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Calibration:
    """All that examples decide; with the same weights it gives the same exact Program anywhere.

    Attributes:
        buffers: fraction bits of every buffer.
        once: for every node that runs once over the context, the fraction bits of its values by name.
    """

    buffers: tuple[int, ...]
    once: tuple[Mapping[str, int], ...] = ()

    def to_dict(self) -> dict[str, Any]:
        """The fields as JSON has them; the inverse of ``from_dict``."""
        return {"buffers": list(self.buffers), "once": [dict(fractions) for fractions in self.once]}

    @classmethod
    def from_dict(cls, fields: Mapping[str, Any]) -> Calibration:
        """The calibration that ``to_dict`` wrote."""
        return cls(tuple(fields["buffers"]), tuple(fields["once"]))


@torch.no_grad()
def calibrate(network: CausalNetwork, family: Integer, x: Tensor, context: Context | None = None) -> Calibration:
    """Fraction bits that hold the largest magnitudes which examples lead to; values beyond are clamped.

    Args:
        network: in any type; it is left as it is.
        family: the integer twin of the family whose parameters the network gives.
        x: (n, *shape) symbols.
        context: of these examples, with the parts that the exact Program is to have.

    Raises:
        LoweringError: the network has no exact form, or the examples lead to numbers that are not finite.
        ValueError: there are no examples.
    """
    if not len(x):
        raise ValueError("calibration needs examples: some of those that the network was trained with")
    context = None if context is None else context.map(lambda part: part.cpu().double())
    if context is not None and context.grid is not None and network.reckons:
        raise LoweringError(
            f"{type(network).__name__} spreads its grid over the symbols by learned weights, which has no exact form: take"
            " upsample='repeat'"
        )
    program = copy.deepcopy(network).cpu().double().lowered(context)
    largest, shared = _exponents(network, program, x.cpu(), context), formats(program, family.levels)
    for put in program.puts:  # rare symbols too
        largest[put.target] = max(largest[put.target], _put_exponent(put, family.levels, program))
    free: dict[int, int] = {}
    for buffer, form in enumerate(shared):
        bits = form.limit.bit_length() - SPARE - largest[buffer]
        if form.fraction is None:
            free[form.group] = min(free.get(form.group, FINEST), bits)
    _coarsen(program, shared, free)
    once = once_values(program, network.turned(context))
    fractions = (free[form.group] if form.fraction is None else form.fraction for form in shared)
    return Calibration(tuple(fractions), tuple(_once_fractions(node, once) for node in once_nodes(program)))


def _exponents(network: CausalNetwork, program: Program, x: Tensor, context: Context | None) -> list[int]:
    """Of every buffer the smallest e for which all magnitudes are below 2^e; examples are taken a few at a time."""
    found: dict[int, list[int]] = {}

    def note(buffer: int, values: Tensor) -> None:
        found.setdefault(buffer, []).append(_exponent(values))

    for rows in torch.split(torch.arange(len(x)), max(1, PLACES // x[0].numel())):
        once = once_values(program, network.turned(None if context is None else context.select(rows)))
        for left in computed(program, Floating(), network.laid_out(x[rows]), once, note).items():
            note(*left)
    return [max(found[buffer]) for buffer in range(len(program.buffers))]


def _exponent(values: Tensor) -> int:
    """The smallest e for which all magnitudes are below 2^e."""
    largest = float(values.abs().max())
    if not math.isfinite(largest):
        raise LoweringError("the examples lead to numbers that are not finite: was the network trained?")
    return math.frexp(largest)[1]


def _coarsen(program: Program, shared: list[Format], free: dict[int, int]) -> None:
    """Take fraction bits from buffers that have more of them than the sums which start or end there."""
    settled = False
    while not settled:
        settled = True
        for op in program.operations:
            if not isinstance(op, Affine):
                continue
            form = shared[op.source]
            source = free[form.group] if form.fraction is None else form.fraction
            finest = source + int(weight_bits(op.weight).min()) - HEADROOM
            for group in (shared[part.buffer].group for part in (op.target, op.init) if part is not None):
                if free.get(group, finest) > finest:
                    free[group], settled = finest, False


def once_nodes(program: Program) -> list[Node]:
    """The nodes that run once over the context."""
    return [node for node in program.graph.nodes if node.output.clock is Clock.ONCE]


def _once_fractions(node: Node, once: dict[int, Tensor]) -> dict[str, int]:
    """The fraction bits of a node's values, by examples of them."""
    if isinstance(node.layer, Once):
        return IntegerNet.calibrate(node.layer.module, *(once[signal.index] for signal in node.inputs)).fractions
    if isinstance(node.layer, SumLayer | Constant):
        name = "sum" if isinstance(node.layer, SumLayer) else "constant"
        return {name: fraction_for(float(once[node.output.index].abs().max()))}
    return {}
