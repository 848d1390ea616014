"""Bits back: latents cost their KL, not their precision, because choosing them spends bits that decoding gives back.

Townsend et al. 2019 (arXiv:1901.04866), with bins of equal prior mass and no random bits to begin with::

    push a group of items        pop z ~ q(z | x) from the stack        push x under p(x | z)       push z under p(z)
    pop it again                 push z under q(z | x)                  pop x under p(x | z)        pop z under p(z)

The first items find nothing on the stack to choose z with: they take the bin of the posterior mean, in as few bits as pay.
How many items go together is written down for every group, so that a decoder need not know how full the stack was.
"""

from __future__ import annotations

import torch
from torch import Tensor

from ancestral.coding import autoregressive
from ancestral.coding.coder import PRECISION, Stack
from ancestral.coding.errors import CodecError
from ancestral.walking.twin import ExactLatents, Posterior, Twin

BITS = 12  # of a latent unit whose bits come back
COARSE = (2, 3, 4, 5, 6, 8, 10)  # of one whose bits do not
MOST_LANES = 64
TWO_PART = 0x80  # marks a group whose z was not chosen with bits from the stack


def encode(twin: Twin, latents: ExactLatents, x: Tensor, vector: Tensor | None = None) -> bytes:
    """(n, *shape) symbols as bytes: how many bits the first latents have, the groups, and the stack.

    Args:
        vector: (n, classes) labels, for a twin that is told them.
    """
    stack, groups, done = Stack(), bytearray(), 0
    coarse = _coarse_bits(twin, latents, x[:1], _rows(vector, 0, 1)) if len(x) else COARSE[0]
    while done < len(x):
        freely = _freely(stack, latents, x[done:], _rows(vector, done, len(x)))
        if freely is None:
            bits, chosen = coarse, latents.posterior(x[done : done + 1], coarse, _rows(vector, done, done + 1)).centre
        else:
            bits, (stack, chosen) = BITS, freely
        end = done + len(chosen)
        autoregressive.push(stack, twin.likelihood, x[done:end], latents.features(chosen, bits, _rows(vector, done, end)))
        stack.push_uniform(chosen.flatten().numpy(), bits)
        groups.append(len(chosen) | (TWO_PART if freely is None else 0))
        done = end
    return bytes([coarse]) + len(groups).to_bytes(4, "little") + bytes(groups) + stack.to_bytes()


def decode(twin: Twin, latents: ExactLatents, payload: bytes, n: int, vector: Tensor | None = None) -> Tensor:
    """The (n, *shape) symbols that ``encode`` was given, with the same labels.

    Raises:
        CodecError: the payload holds something else.
    """
    coarse, groups, stack = _opened(payload, n)
    parts, end = list[Tensor](), n
    for group in reversed(groups):
        lanes, alone = group & ~TWO_PART, bool(group & TWO_PART)
        bits, labels, end = coarse if alone else BITS, _rows(vector, end - lanes, end), end - lanes
        chosen = torch.from_numpy(stack.pop_uniform(lanes * latents.units, bits)).view(lanes, latents.units)
        items = autoregressive.pop(stack, twin.likelihood, lanes, latents.features(chosen, bits, labels))
        if not alone:
            start, frequency = latents.posterior(items, bits, labels).interval(chosen)
            stack.push(start.flatten().numpy(), frequency.flatten().numpy())
        parts.insert(0, items)
    if not stack.empty:
        raise CodecError("bits are left over: the data are damaged, or they were made with another model")
    return torch.cat(parts) if parts else torch.zeros(0, *twin.likelihood.network.shape, dtype=torch.long)


def _opened(payload: bytes, n: int) -> tuple[int, bytes, Stack]:
    """The bits of the first latents, the groups and the stack of a payload."""
    count = int.from_bytes(payload[1:5], "little")
    groups = payload[5 : 5 + count]
    if len(groups) != count or sum(group & ~TWO_PART for group in groups) != n or payload[0] not in COARSE:
        raise CodecError(f"the payload does not describe {n} items: it is damaged")
    return payload[0], groups, Stack.from_bytes(payload[5 + count :])


def _rows(vector: Tensor | None, start: int, end: int) -> Tensor | None:
    """Some of the labels, where there are any."""
    return None if vector is None else vector[start:end]


def _freely(stack: Stack, latents: ExactLatents, left: Tensor, vector: Tensor | None) -> tuple[Stack, Tensor] | None:
    """The stack and the bins after as many items as can have chosen them with bits from it; None where not even one can.

    A choice fails where the bits run out, or where they happen to say a slot that no bin owns: then fewer items are tried.
    """
    sure = max(0, stack.bits) // (PRECISION * latents.units)
    lanes = min(MOST_LANES, len(left), 1 << max(0, sure.bit_length() - 1))
    while lanes:
        copy = Stack.from_bytes(stack.to_bytes())
        try:
            return copy, _popped(copy, latents.posterior(left[:lanes], BITS, _rows(vector, 0, lanes)))
        except CodecError:
            lanes //= 2
    return None


def _popped(stack: Stack, posterior: Posterior) -> Tensor:
    """(n, units) bins chosen by what is on the stack, one row after the other: pushing all rows at once undoes it."""
    rows = [stack.pop(posterior.tables(row).numpy()) for row in range(len(posterior.parameters))]
    return torch.stack([torch.from_numpy(row) for row in rows])


def _coarse_bits(twin: Twin, latents: ExactLatents, item: Tensor, vector: Tensor | None) -> int:
    """As many bits a unit as make the first item shortest."""

    def cost(bits: int) -> int:
        stack, chosen = Stack(), latents.posterior(item, bits, vector).centre
        autoregressive.push(stack, twin.likelihood, item, latents.features(chosen, bits, vector))
        return stack.bits + bits * chosen.numel()

    return min(COARSE, key=cost)
