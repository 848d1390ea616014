"""Two-part codes: all z of a block first, then x under p(x | z).

z costs its precision besides its KL, since nothing gives the choice of it back: about a bit for every unit that says something.
For that any posterior and any prior will do, single items are no worse than many, and the first part alone tells what z knows.
"""

from __future__ import annotations

import torch
from torch import Tensor

from ancestral.coding import autoregressive
from ancestral.coding.coder import Stack
from ancestral.coding.errors import CodecError
from ancestral.walking.exact.generator import Exact, ExactGenerator
from ancestral.walking.exact.groups import ExactCodes, label
from ancestral.walking.exact.operations import Fixed
from ancestral.walking.twin import Twin

SIZE = 4  # bytes that say how many the first part has


def encode(
    twin: Twin,
    latents: ExactGenerator,
    x: Tensor,
    vector: Tensor | None = None,
    codes: Tensor | None = None,
    known: Tensor | None = None,
) -> bytes:
    """(n, *shape) symbols as bytes: how many those of z are, z, and x.

    Args:
        vector: (n, classes) labels, for a twin that is told them.
        codes: (n, units) bins of z; those that the posterior chooses by default.
        known: (n, *shape) booleans, True where whoever decodes knows a symbol.
    """
    codes = latents.codes(x, vector) if codes is None else codes
    first, stack = pushed(latents, codes, vector), Stack()
    autoregressive.push(stack, twin.likelihood, x, latents.features(codes, vector), known)
    return len(first).to_bytes(SIZE, "little") + first + stack.to_bytes()


def decode(
    twin: Twin,
    latents: ExactGenerator,
    payload: bytes,
    n: int,
    vector: Tensor | None = None,
    known: autoregressive.Known | None = None,
    end: int | None = None,
) -> Tensor:
    """The (n, *shape) symbols that ``encode`` was given, with the same labels and, by its symbols, what was known.

    Args:
        end: the symbol after whose first one whoever decodes knows that there are but more of it.

    Raises:
        CodecError: the payload holds something else.
    """
    first, second = parts(payload)
    stack = Stack.from_bytes(second)
    features = latents.features(popped(latents, first, n, vector), vector)
    items = autoregressive.pop(stack, twin.likelihood, n, features, known, end)
    _check_empty(stack)
    return items


def parts(payload: bytes) -> tuple[bytes, bytes]:
    """z and x of a payload.

    Raises:
        CodecError: it is shorter than it says.
    """
    end = SIZE + int.from_bytes(payload[:SIZE], "little")
    if len(payload) < end:
        raise CodecError(f"the payload ends within the bits of z, {end - len(payload)} bytes too early: it is damaged")
    return payload[SIZE:end], payload[end:]


def pushed(latents: ExactGenerator, codes: Tensor, vector: Tensor | None = None) -> bytes:
    """(n, units) bins as bytes, of rows with these labels."""
    stack, labels = Stack(), label(vector)
    for each in reversed(list(latents.carried(codes, vector))):
        if isinstance(each.stage, ExactCodes):
            z = each.codes.view(-1, *each.stage.stage.shape)
            autoregressive.push(stack, each.stage.prior, z, each.stage.context(each.above, labels))
        else:
            for starts, frequencies in reversed(list(each.stage.intervals(each.codes))):
                stack.push(starts.flatten().numpy(), frequencies.flatten().numpy())
    return stack.to_bytes()


def popped(latents: ExactGenerator, data: bytes, n: int, vector: Tensor | None = None) -> Tensor:
    """The (n, units) bins that ``pushed`` was given.

    Raises:
        CodecError: the bytes hold something else.
    """
    stack = Stack.from_bytes(data)

    def choose(stage: Exact, h: Fixed | None, labels: Fixed | None) -> Tensor:
        if isinstance(stage, ExactCodes):
            return autoregressive.pop(stack, stage.prior, n, stage.context(h, labels)).flatten(1)
        codes = torch.zeros(n, stage.units, dtype=torch.long)
        for (rows, places), tables in stage.tables(n):
            codes[rows, places] = torch.from_numpy(stack.pop(tables.numpy())).view(-1, len(places))
        return codes

    codes = torch.cat([each.codes for each in latents.settle(choose, n, vector)], 1)
    _check_empty(stack)
    return codes


def _check_empty(stack: Stack) -> None:
    if not stack.empty:
        raise CodecError("bits are left over: the data are damaged, or they were made with another model")
