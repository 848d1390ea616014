"""Symbols on a stack: coded from one pass over all sites at once, decoded by a walk in which the stack settles every symbol."""

from __future__ import annotations

import torch
from torch import Tensor

from ancestral.coding.coder import Stack
from ancestral.coding.errors import CodecError
from ancestral.core import Autoregressive, Context
from ancestral.families import Integer
from ancestral.walking.engines import Lowered

LANES = 16  # rows whose tables are held in memory at once, of as many as there is room for
ROOM = 1 << 22  # entries of tables that are held at once

Known = tuple[Tensor, Tensor]  # (n, *shape) symbols, and booleans that are True where whoever decodes knows them


def push(
    stack: Stack, likelihood: Autoregressive, x: Tensor, context: Context | None = None, known: Tensor | None = None
) -> None:
    """Push (n, *shape) symbols, so that a walk over all rows at once pops them: site by site, and at a site row by row.

    Args:
        known: (n, *shape) booleans, True where a symbol is not pushed, because whoever pops knows it.
    """
    sites = list(likelihood.network.order.sites)
    starts, frequencies = (torch.zeros(len(x), len(sites), dtype=torch.long) for _ in range(2))
    lanes = max(1, min(LANES, ROOM // (len(sites) * likelihood.family.size)))
    for first in range(0, len(x), lanes):
        rows = torch.arange(first, min(first + lanes, len(x)))
        parameters = likelihood.network(x[rows], None if context is None else context.select(rows)).flatten(1, -2)
        _intervals(whole(likelihood), parameters, x[rows].flatten(1), sites, starts[rows[0] :], frequencies[rows[0] :])
    if known is None:
        stack.push(starts.T.flatten().numpy(), frequencies.T.flatten().numpy())
    else:
        pushed = ~known.flatten(1)[:, sites].T
        stack.push(starts.T[pushed].numpy(), frequencies.T[pushed].numpy())


def _intervals(family: Integer, parameters: Tensor, x: Tensor, sites: list[int], starts: Tensor, frequencies: Tensor) -> None:
    """Write the intervals of (n, D) symbols, in the order of the sites, into the first n rows of tables."""
    size = max(1, ROOM // (len(x) * max(family.size, family.levels)))
    for first in range(0, len(sites), size):
        some = sites[first : first + size]
        place = slice(0, len(x)), slice(first, first + size)
        starts[place], frequencies[place] = family.interval(parameters[:, some], x[:, some])


def pop(
    stack: Stack,
    likelihood: Autoregressive,
    n: int,
    context: Context | None = None,
    known: Known | None = None,
    end: int | None = None,
) -> Tensor:
    """(n, *shape) symbols that ``push`` pushed.

    Args:
        known: what was not pushed, by its symbols.
        end: the symbol after whose first one nothing of a row was pushed: what comes later is more of it.

    Raises:
        CodecError: the stack holds something else.
    """
    network, family = likelihood.network, whole(likelihood)
    if isinstance(network, Lowered):
        words = stack.words()
        popped = network.pop(n, context, family, words, known, end)
        if popped is not None:
            stack.become(words)
            return popped
    x = torch.full((n, *network.shape), end or 0)
    flat = x.flatten(1)
    free, over = torch.ones_like(flat, dtype=torch.bool), torch.zeros(n, dtype=torch.bool)
    if known is not None:
        flat.copy_(known[0].where(known[1], end or 0).flatten(1))
        free = ~known[1].flatten(1)
    parameters, state = network.start(n, context)
    for i, site in enumerate(network.order.sites):
        rows = free[:, site] & ~over
        flat[rows, site] = torch.from_numpy(stack.pop(family.cumulative(parameters[rows]).numpy()))
        if end is not None:
            over |= flat[:, site] == end
        if i + 1 < len(network.order.sites):
            parameters, state = network.step(state, flat[:, site])
    return x


def whole(likelihood: Autoregressive) -> Integer:
    """The family of an exact likelihood.

    Raises:
        CodecError: the likelihood is a float one, whose numbers differ from machine to machine.
    """
    if not isinstance(likelihood.family, Integer):
        raise CodecError("float likelihoods differ from machine to machine: code with the model's exact twin")
    return likelihood.family
