"""A Program carried out for all sites at once: what likelihoods and encoders need.

The same operations in the same order as a walk, each over whole images: a window is the image, padded and shifted.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor
from torch.nn import functional

from ancestral.causal.arithmetic import Arithmetic
from ancestral.causal.layer import Clock, Reach
from ancestral.causal.program import Affine, Operation, Part, Program
from ancestral.causal.stepping import Stepper, carry_out, filled, operands
from ancestral.causal.tokens import Attend

Values = dict[int, Tensor]
Finished = Callable[[int, Tensor], None]


@torch.no_grad()
def computed(program: Program, arithmetic: Arithmetic, x: Tensor, once: Values, finished: Finished | None = None) -> Values:
    """Every buffer of a Program, (n, rows, columns, features), by its index; coarse ones have fewer places, filled up ones more.

    Args:
        program: what a network was lowered to.
        arithmetic: how its operations are carried out.
        x: (n, C, H, W) symbols.
        once: the values of the context's signals, by their index.
        finished: is handed every buffer but that of the parameters once no operation reads it any more, and it is let go; by
            default all are kept.
    """
    if program.recurrent:
        return _walked(program, arithmetic, x, once)
    n, channels, height, width = x.shape
    values = {fill.target: filled(fill, once, program).expand(n, -1, -1, -1).permute(0, 2, 3, 1) for fill in program.fills}
    for put in program.puts:
        features = [arithmetic.put(put, x[:, c].flatten(), c) for c in range(channels)]
        known = torch.cat(features, -1).view(n, height, width, program.buffers[put.target].features)
        values[put.target] = functional.pad(known, (0, 0, 0, program.columns - width))
    like = values[program.puts[0].target]
    last = {buffer: i for i, op in enumerate(program.operations) for buffer in touched(op) if buffer != program.output}
    for i, op in enumerate(program.operations):
        target, scale = op.target.buffer, program.scale(op)
        if target not in values:  # colour channels write their parts one after another
            sides = -(-height // scale), program.columns // scale
            values[target] = like.new_zeros(n, *sides, program.buffers[target].features)
        _carry_out(op, arithmetic, program, values)
        for buffer in touched(op) if finished else ():
            if last.get(buffer) == i:
                finished(buffer, values.pop(buffer))  # type: ignore[misc]
    return values


def touched(op: Operation) -> set[int]:
    """The buffers that an operation reads or writes."""
    parts = [op.target, *([op.init] if op.init else [])] if isinstance(op, Affine) else operands(op)
    return {part.buffer for part in parts} | ({op.source} if isinstance(op, Affine) else set())


def let_go(buffer: int, values: Tensor) -> None:
    """For ``computed``: nobody wants a finished buffer."""


def _walked(program: Program, arithmetic: Arithmetic, x: Tensor, once: Values) -> Values:
    """The same by a walk that keeps everything: what a recurrence needs."""
    n, _, height, _ = x.shape
    ordered = x.permute(0, 2, 3, 1).flatten(1)
    like = torch.zeros((), dtype=arithmetic.put(program.puts[0], ordered[:1, 0], 0).dtype, device=x.device)
    stepper = Stepper(program, arithmetic, whole=True)
    _, kept = stepper.start(n, once, like)
    for position in range(ordered.shape[1]):
        stepper.absorb(kept, position, ordered[:, position])
        if position + 1 < ordered.shape[1]:
            stepper.advance(kept, position + 1)
    values = {}
    for index, (place, buffer) in enumerate(zip(stepper.places, program.buffers, strict=True)):
        rows, columns = -(-height // place.scale), program.columns // place.scale
        full = kept[place.name]
        once_only = buffer.clock is Clock.ONCE
        values[index] = full if once_only else full[:, :rows, buffer.left : buffer.left + columns]
    return values


def parameters(program: Program, values: Values) -> Tensor:
    """(n, C, H, W, k): the parameters among the buffers that ``computed`` gave."""
    channels, _, width = program.shape
    output = values[program.output][:, :, :width]
    return output.reshape(*output.shape[:3], channels, output.shape[3] // channels).movedim(3, 1)


def _carry_out(op: Operation, arithmetic: Arithmetic, program: Program, values: Values) -> None:
    shape = values[op.target.buffer].shape
    if isinstance(op, Attend):  # all tokens at once; an example's lie one below the other
        carry_out(op, arithmetic, [_places(part, program, values, shape)[:, :, 0] for part in operands(op)])
        return
    if not isinstance(op, Affine):
        carry_out(op, arithmetic, [_places(part, program, values, shape).flatten(0, 2) for part in operands(op)])
        return
    target, (rows, columns) = _places(op.target, program, values, shape), op.phases
    init = None if op.init is None else _places(op.init, program, values, shape)
    for which in range(len(op.weight)):
        first, left = which // columns, which % columns
        some = target[:, first::rows, left::columns]
        before = None if init is None else init[:, first::rows, left::columns].flatten(0, 2)
        windows = _windows(op, program, values, (first, left), some.shape)
        result = some if len(op.weight) == 1 else torch.empty_like(some, memory_format=torch.contiguous_format)
        arithmetic.ready(op, which)(windows, before, result.flatten(0, 2))
        if result is not some:
            some.copy_(result)


def _places(part: Part, program: Program, values: Values, shape: torch.Size) -> Tensor:
    """(n, rows, columns, features) of a part at the places of a target: a view, unless it is elsewhere or the same at all."""
    features = values[part.buffer][..., part.first : part.first + part.count]
    if program.buffers[part.buffer].clock is Clock.ONCE and features.shape[1:3] == (1, 1):  # not symbols, of which there is one
        return features.expand(-1, *shape[1:3], -1)
    if part.above:
        features = functional.pad(features, (0, 0, 0, 0, part.above, 0))[:, : features.shape[1]]
    return functional.pad(features, (0, 0, 0, shape[2] - features.shape[2])) if features.shape[2] < shape[2] else features


def _windows(op: Affine, program: Program, values: Values, start: tuple[int, int], shape: torch.Size) -> Tensor:
    """(n m, K) what an affine operation reads at every so manyth place: of each row of a window, the first values."""
    source, (first, left) = values[op.source][..., op.first :], start
    _, rows, length, _ = op.weight.shape
    ours, theirs = program.scale(op), program.buffers[op.source].scale
    if op.reach == Reach() and op.phases == (1, 1) and ours == theirs:
        return source[..., :length].flatten(0, 2)
    features, reach = source.shape[3], op.reach
    padded = functional.pad(source, (0, 0, reach.left, max(reach.right, 0), reach.above, 0))
    starting = padded.flatten(2).unfold(2, length, features) if length else padded.new_zeros(*padded.shape[:3], 0)
    at = [start * ours // theirs for start in (first, left)]
    steps = [max(1, phases * ours // theirs) for phases in op.phases]
    m_rows, m_columns = shape[1:3]
    above = range(0, rows * reach.dilation, reach.dilation)
    windows = [starting[:, at[0] + row :: steps[0], at[1] :: steps[1]][:, :m_rows, :m_columns] for row in above]
    return torch.cat(windows, -1).flatten(0, 2)
