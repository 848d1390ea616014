"""The loop of a walk that settles symbols one by one, and symbols handed out as they are settled."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence

import torch
from torch import Tensor

from ancestral.core import Context, Walk
from ancestral.draw import Draw
from ancestral.latent.latent import Latents
from ancestral.sampling.particles import stepping
from ancestral.sampling.strategies import Choose, Model, Rows, context_of, inference, likelihood_of, prompted, sized
from ancestral.spec import DataSpec
from ancestral.symbols import ended

PIECE = 128  # known symbols that a walk absorbs at once: the parameters of all of them are held together

Settled = tuple[int, Tensor]  # the place of a site in the flattened example, and (n,) symbols


def settling(walk: Walk, choose: Choose, known: tuple[Tensor, Tensor] | None = None, end: int | None = None) -> Iterator[Settled]:
    """Settle what is left of a walk, handing out every site and its symbols just before they are absorbed.

    Known symbols that all rows begin with are absorbed first and not handed out. A row that has had the symbol ``end`` goes on
    with it, and when all rows have the walk stops.
    """
    over = torch.zeros(len(walk.symbols), dtype=torch.bool, device=walk.symbols.device)
    if known is not None:
        x, mask = (part.flatten(1)[:, list(walk.order.sites[walk.site :])] for part in known)
        first = x[:, : int(mask.all(0).long().cumprod(0).sum())]
        for part in torch.split(first, PIECE, 1):
            walk.extend(part)
        over = over if end is None else (first == end).any(1)
    while not walk.done and not over.all():
        site = walk.order.sites[walk.site]
        symbols = choose(site, walk.conditional)
        if end is not None:
            symbols = symbols.masked_fill(over, end)
            over = over | (symbols == end)
        yield site, symbols
        walk.settle(symbols)


def settled(
    walk: Walk,
    choose: Choose,
    spec: DataSpec,
    known: tuple[Tensor, Tensor] | None = None,
    tell: Callable[[int], None] | None = None,
) -> Tensor:
    """(n, *shape) symbols when all that was left of a walk is settled; ``tell`` is told how many each row has."""
    for _ in settling(walk, choose, known, spec.end):
        if tell is not None:
            tell(walk.site + 1)
    if tell is not None and not walk.done:
        tell(len(walk.order.sites))
    return ended(walk.symbols, spec)


def stream(
    model: Model,
    n: int = 1,
    *,
    prompt: Tensor | Sequence[int] | None = None,
    length: int | None = None,
    temperature: float = 1.0,
    top_k: int | None = None,
    top_p: float | None = None,
    min_p: float | None = None,
    seed: int = 0,
    labels: Sequence[int] | Tensor | None = None,
    context: Context | None = None,
    z: Latents | None = None,
    first_row: int = 0,
    engine: str = "auto",
) -> Iterator[Settled]:
    """The samples that `sample` gives for the same arguments, symbol by symbol as they are settled.

    Yields the place of a site in the flattened example and the (n,) symbols of all rows there, in the order of the walk, those of
    the prompt left out. Where examples end, rows that have ended repeat the symbol ``end`` until all of them have.

    Raises:
        ValueError, DataError, OrderError: as `sample` does, when the first symbol is asked for.

    Example:
        >>> import ancestral
        >>> model = ancestral.build("made", ancestral.DataSpec("vector", (5,), levels=3), preset="tiny")
        >>> [(site, symbols.shape) for site, symbols in stream(model, 2, prompt=[0, 2, 1])]
        [(3, torch.Size([2])), (4, torch.Size([2]))]
    """
    model = sized(model, None if length is None else (length,))
    likelihood = likelihood_of(model)
    rows = Rows(model, n, context_of(model, n, labels, context), z, seed, first_row)
    known = None if prompt is None else prompted(likelihood, prompt, n)
    draw = Draw(seed, temperature, top_k, top_p, min_p, known, first_row)
    with inference(model):
        _, seen = next(rows.batches(n))
        steps = settling(stepping(likelihood, engine, n).walk(n, seen), draw, known, likelihood.spec.end)
    while True:
        with inference(model):  # left again before anything is handed out
            step = next(steps, None)
        if step is None:
            return
        yield step
