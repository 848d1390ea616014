"""An LSTM over places that are done together, step after step, with a backward pass of its own."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

Shifts = tuple[int, ...]


class Scan(torch.autograd.Function):
    """h_t = o tanh(c_t), c_t = f c_{t-1} + i g, with o, f, i, g from x_t plus a matrix times h_{t-1} at the places near by.

    (T, P, n, 4 c) input terms of T steps and P places, a (k c, 4 c) matrix, and the k shifts, each -1, 0 or 1, of the places
    that it reads, to (T, P, n, c) hidden values; h and c are zero before the first step and beyond the outermost places.

    Autograd would note a dozen operations a step; here the gradient of the matrix is one product over all steps.
    """

    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor, shifts: Shifts) -> Tensor:
        (steps, places, n), c = x.shape[:3], weight.shape[1] // 4
        gates, cells = x.new_empty(x.shape), x.new_zeros(steps + 1, places, n, c)
        hidden = x.new_zeros(steps + 1, places + 2, n, c)
        for t in range(steps):
            window = torch.cat([near(hidden[t], shift) for shift in shifts], -1)
            gates[t].copy_(x[t]).view(-1, 4 * c).addmm_(window.view(-1, len(weight)), weight)
            gates[t, ..., : 3 * c].sigmoid_()
            gates[t, ..., 3 * c :].tanh_()
            o, f, i, g = gates[t].chunk(4, -1)
            torch.addcmul(i * g, f, cells[t], out=cells[t + 1])
            torch.mul(o, cells[t + 1].tanh(), out=near(hidden[t + 1], 0))
        ctx.save_for_backward(weight, gates, cells, hidden)
        ctx.shifts = shifts
        return near(hidden[1:], 0).contiguous()

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, slope: Tensor) -> tuple[Tensor, Tensor, None]:
        weight, gates, cells, hidden = ctx.saved_tensors
        back, to_x = weight.T.contiguous(), torch.empty_like(gates)
        to_hidden, to_cell = torch.zeros_like(hidden[0]), torch.zeros_like(cells[0])
        for t in reversed(range(len(gates))):
            (o, f, i, g), (to_o, to_f, to_i, to_g) = gates[t].chunk(4, -1), to_x[t].chunk(4, -1)
            to_h, tanh = slope[t] + near(to_hidden, 0), cells[t + 1].tanh()
            to_cell.addcmul_(to_h * o, 1 - tanh * tanh)
            torch.mul(to_h * tanh, o * (1 - o), out=to_o)
            torch.mul(to_cell * cells[t], f * (1 - f), out=to_f)
            torch.mul(to_cell * g, i * (1 - i), out=to_i)
            torch.mul(to_cell * i, 1 - g * g, out=to_g)
            to_cell.mul_(f)
            to_hidden.zero_()
            window = (to_x[t].flatten(0, 1) @ back).view(*to_cell.shape[:2], back.shape[1])
            for shift, part in zip(ctx.shifts, window.chunk(len(ctx.shifts), -1), strict=True):
                near(to_hidden, shift).add_(part)
        flat = to_x.flatten(0, 2)
        parts = [near(hidden[:-1], shift).flatten(0, 2).T @ flat for shift in ctx.shifts]
        return to_x, torch.cat(parts), None


def near(hidden: Tensor, shift: int) -> Tensor:
    """(..., P, n, c) values of the place that is so far from each, of (..., P + 2, n, c) with a margin: a view."""
    return hidden.narrow(-3, 1 + shift, hidden.shape[-3] - 2)
