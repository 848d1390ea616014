"""A Program carried out for all sites at once: what likelihoods and encoders need.

The same operations in the same order as a walk, each over whole images: a window is the image, padded and shifted.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional

from ancestral.causal.arithmetic import Arithmetic
from ancestral.causal.program import Add, Affine, Operation, Part, Point, Program
from ancestral.causal.stepping import filled

Values = dict[int, Tensor]


@torch.no_grad()
def computed(program: Program, arithmetic: Arithmetic, x: Tensor, once: Values) -> Values:
    """Every buffer of a Program, (n, H, W, features), by its index.

    Args:
        program: what a network was lowered to.
        arithmetic: how its operations are carried out.
        x: (n, C, H, W) symbols.
        once: the values of the context's signals, by their index.
    """
    n, channels, height, width = x.shape
    values = {fill.target: filled(fill, once).permute(0, 2, 3, 1).expand(n, height, width, -1) for fill in program.fills}
    for put in program.puts:
        features = [arithmetic.put(put, x[:, c].flatten(), c) for c in range(channels)]
        values[put.target] = torch.cat(features, -1).view(n, height, width, program.buffers[put.target].features)
    like = values[program.puts[0].target]
    for op in program.operations:
        target = op.target.buffer
        if target not in values:  # colour channels write their parts one after another
            values[target] = like.new_empty(n, height, width, program.buffers[target].features)
        _carry_out(op, arithmetic, values)
    return values


def parameters(program: Program, values: Values) -> Tensor:
    """(n, C, H, W, k): the parameters among the buffers that ``computed`` gave."""
    output = values[program.output]
    channels = program.shape[0]
    return output.view(*output.shape[:3], channels, output.shape[3] // channels).movedim(3, 1)


def _carry_out(op: Operation, arithmetic: Arithmetic, values: Values) -> None:
    target = _sites(op.target, values)
    if isinstance(op, Point):
        arithmetic.point(op, _sites(op.source, values), target)
    elif isinstance(op, Add):
        arithmetic.add(op, _sites(op.a, values), _sites(op.b, values), target)
    else:
        init = None if op.init is None else _sites(op.init, values)
        arithmetic.ready(op)(_windows(op, values[op.source]), init, target)


def _sites(part: Part, values: Values) -> Tensor:
    """(n H W, features) of a part: a view, unless it is the same everywhere."""
    return values[part.buffer][..., part.first : part.first + part.count].flatten(0, 2)


def _windows(op: Affine, source: Tensor) -> Tensor:
    """(n H W, K) what an affine operation reads: of each row of a window, the first values, features innermost."""
    _, height, width, features = source.shape
    rows, length, _ = op.weight.shape
    padded = functional.pad(source, (0, 0, op.reach.left, op.reach.right, op.reach.above, 0))
    starting = padded.flatten(2).unfold(2, length, features)[:, :, :width]
    return torch.cat([starting[:, row : row + height] for row in range(rows)], -1).flatten(0, 2)
