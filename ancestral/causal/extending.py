"""Several sites of a walk at once, where sites lie one below the other: for a prompt, or for symbols that a draft proposed.

What a walk remembers is read and written as its steps do, so that it may go on either way.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional

from ancestral.causal.layer import Clock
from ancestral.causal.program import Affine, Couple, Operation, Part, Program
from ancestral.causal.stepping import Buffers, Stepper, carry_out, operands, window_rows
from ancestral.causal.tokens import Attend


def extendable(program: Program) -> bool:
    """Whether several sites can be computed at once: each is a row by itself, computed like all others and not by recurrence."""
    alike = all(not isinstance(op, Couple) and (not isinstance(op, Affine) or len(op.weight) == 1) for op in program.operations)
    single = all(buffer.scale == 1 and not buffer.left and not buffer.right for buffer in program.buffers)
    return program.shape[0] == program.shape[2] == 1 and alike and single and not program.recurrent


def extended(stepper: Stepper, kept: Buffers, position: int, symbols: Tensor) -> Tensor:
    """Absorb (n, k) symbols of the sites from ``position`` on; the parameters (n, k, size) of the sites after each of them."""
    rows = Rows(stepper, kept, position, symbols)
    for op in stepper.program.operations:
        rows.carry_out(op)
    rows.remember()
    return rows.values[stepper.program.output]


class Rows:
    """What is computed of k rows that follow each other, from ``first`` on.

    Attributes:
        values: by buffer, (n, k, features).
    """

    def __init__(self, stepper: Stepper, kept: Buffers, position: int, symbols: Tensor) -> None:
        self.stepper, self.kept, self.first, self.shape = stepper, kept, position + 1, symbols.shape
        self.values: dict[int, Tensor] = {}
        self.symbols = {put.target for put in stepper.program.puts}
        for put in stepper.program.puts:
            self.values[put.target] = stepper.arithmetic.put(put, symbols.flatten(), 0).view(*self.shape, -1)

    def start(self, buffer: int) -> int:
        """The row of a buffer's first value: what symbols write lies a row before what depends on them."""
        return self.first - (buffer in self.symbols)

    def past(self, part: Part, count: int) -> Tensor:
        """(n, count, features) of a part in the rows before those of ``values``, zeros before the first row of all."""
        last = self.start(part.buffer) - 1
        known = self.stepper.remembered(self.kept, part, last, min(count, last + 1))
        return functional.pad(known, (0, 0, count - known.shape[1], 0))

    def read(self, part: Part) -> Tensor:
        """(n, k, count) of a part."""
        k, features = self.shape[1], slice(part.first, part.first + part.count)
        if self.stepper.program.buffers[part.buffer].clock is Clock.ONCE:
            constant = self.kept[self.stepper.places[part.buffer].name][:, :, 0, features]
            return constant.expand(-1, k, -1) if constant.shape[1] == 1 else constant[:, self.first : self.first + k]
        values = self.values[part.buffer][..., features]
        before = self.start(part.buffer) - self.first + part.above
        return values if not before else torch.cat([self.past(part, before), values], 1)[:, :k]

    def carry_out(self, op: Operation) -> None:
        """Compute an operation's values."""
        n, k = self.shape
        like = self.kept[self.stepper.places[op.target.buffer].name]
        if isinstance(op, Attend):
            target = like.new_empty(n, k, op.target.count)
            seen = [
                torch.cat([self.past(part, min(op.window - 1, self.first)), self.read(part)], 1) for part in (op.keys, op.values)
            ]
            self.stepper.arithmetic.attend(op, self.read(op.query), seen[0], seen[1], target)
        else:
            target = like.new_empty(n * k, op.target.count)
            if isinstance(op, Affine):
                windows = torch.cat([self.read(part) for part in window_rows(op)], -1).flatten(0, 1)
                init = None if op.init is None else self.read(op.init).flatten(0, 1)
                self.stepper.arithmetic.ready(op, 0)(windows, init, target)
            else:
                carry_out(op, self.stepper.arithmetic, [*(self.read(part).flatten(0, 1) for part in operands(op)[:-1]), target])
        self.write(op.target, target.view(n, k, -1))

    def write(self, part: Part, values: Tensor) -> None:
        """Put (n, k, count) values where a part of a buffer has its own."""
        features = self.stepper.program.buffers[part.buffer].features
        if part.count < features:
            whole = self.values.setdefault(part.buffer, values.new_zeros(*self.shape, features))
            whole[..., part.first : part.first + part.count] = values
        else:
            self.values[part.buffer] = values

    def remember(self) -> None:
        """Leave what later rows read where they look for it."""
        for index, values in self.values.items():
            place = self.stepper.places[index]
            count, end = min(place.rows, values.shape[1]), self.start(index) + values.shape[1]
            slots = torch.arange(end - count, end, device=values.device) % place.rows
            self.kept[place.name][:, slots, 0] = values[:, -count:]
