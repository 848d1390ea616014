"""Symbols on a stack: coded from one pass over all sites at once, decoded by a walk in which the stack settles every symbol."""

from __future__ import annotations

import torch
from torch import Tensor

from ancestral.coding.coder import Stack
from ancestral.coding.errors import CodecError
from ancestral.core import Autoregressive, Context
from ancestral.families import Integer
from ancestral.walking.engines import Lowered

LANES = 16  # rows whose tables are held in memory at once


def push(stack: Stack, likelihood: Autoregressive, x: Tensor, context: Context | None = None) -> None:
    """Push (n, *shape) symbols, so that a walk over all rows at once pops them: site by site, and at a site row by row."""
    family, sites = whole(likelihood), torch.tensor(likelihood.network.order.sites)
    starts, frequencies = [], []
    for first in range(0, len(x), LANES):
        rows = torch.arange(first, min(first + LANES, len(x)))
        parameters = likelihood.network(x[rows], None if context is None else context.select(rows))
        start, frequency = family.interval(parameters.flatten(1, -2)[:, sites], x[rows].flatten(1)[:, sites])
        starts.append(start)
        frequencies.append(frequency)
    if starts:
        stack.push(torch.cat(starts).T.flatten().numpy(), torch.cat(frequencies).T.flatten().numpy())


def pop(stack: Stack, likelihood: Autoregressive, n: int, context: Context | None = None) -> Tensor:
    """(n, *shape) symbols that ``push`` pushed.

    Raises:
        CodecError: the stack holds something else.
    """
    network, family = likelihood.network, whole(likelihood)
    if isinstance(network, Lowered):
        words = stack.words()
        popped = network.pop(n, context, family, words)
        if popped is not None:
            stack.become(words)
            return popped
    x = torch.zeros(n, *network.shape, dtype=torch.long)
    parameters, state = network.start(n, context)
    for i, site in enumerate(network.order.sites):
        symbols = torch.from_numpy(stack.pop(family.cumulative(parameters).numpy()))
        x.flatten(1)[:, site] = symbols
        if i + 1 < len(network.order.sites):
            parameters, state = network.step(state, symbols)
    return x


def whole(likelihood: Autoregressive) -> Integer:
    """The family of an exact likelihood.

    Raises:
        CodecError: the likelihood is a float one, whose numbers differ from machine to machine.
    """
    if not isinstance(likelihood.family, Integer):
        raise CodecError("float likelihoods differ from machine to machine: code with the model's exact twin")
    return likelihood.family
