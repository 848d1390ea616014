"""The laws of files: whole numbers that are the same everywhere, and bytes that give back what was coded."""

from __future__ import annotations

from dataclasses import replace
from itertools import product
from math import log

import torch
from torch import Tensor

from ancestral.coding.bits_back import BITS
from ancestral.coding.errors import CodecError
from ancestral.coding.payloads import encoded, payload_items
from ancestral.core import Autoregressive, Conditional, Context
from ancestral.draw import uniforms
from ancestral.latent.latent import Latent
from ancestral.objectives import Batch, importance_weights
from ancestral.testing.structure import steps
from ancestral.testing.subjects import Coded, LawBroken, Subject, require
from ancestral.walking.exact.generator import ExactGenerator
from ancestral.walking.twin import BITS_BACK, Twin

FEW = 16  # items; the first ones of a block find nothing on the stack to choose latents with
OVERHEAD = 40  # bytes that a block may take besides what its symbols cost


def exact(subject: Subject) -> str:
    """The integer twin gives the same whole numbers in every engine and batch, all sites at once and step by step."""
    found = subject.coded
    first, x = found.twins[0], torch.cat([subject.x, found.items[:4]])
    everything = replace(subject, likelihood=first.likelihood, x=x, context=found.context(x))
    wanted, read = everything.forward(x), _whole_latents(first, x)
    for each, rows in product(found.twins, (torch.arange(len(x)), torch.tensor([1]))):
        require(each.identity == first.identity, "the same weights and calibration make another twin")
        require(torch.equal(_whole_latents(each, x[rows], rows), read[rows]), "the latents of a row depend on the batch")
        under = replace(subject, likelihood=each.likelihood, x=x[rows], context=found.context(x[rows]))
        for way, parameters in (("at once", under.forward(under.x)), ("in steps", steps(under, under.flat))):
            other = f"{len(rows)} rows {way}, twin {found.twins.index(each) + 1} of {found.engines}"
            require(torch.equal(parameters, wanted[rows]), f"other whole numbers: {other}")
    nats = _nats(subject.model, found.items).sum().item()
    more = first.cost(found.items).sum().item() / nats - 1
    return f"{found.engines}, bit for bit; samples take {more:+.3%} bits of float64's"


def _whole_latents(twin: Twin, x: Tensor, rows: Tensor | None = None) -> Tensor:
    """(n, ...) what a twin computes of the latents of x: parameters of the posterior, or what bins lead to."""
    if isinstance(twin.latents, ExactGenerator):
        numbers = range(len(x)) if rows is None else rows.tolist()
        features = twin.latents.features(twin.latents.drawn(uniforms(0, numbers, twin.latents.units)))
        return features.grid if features.grid is not None else features.vector  # type: ignore[return-value]
    return torch.zeros(len(x), 0, 2) if twin.latents is None else twin.latents.posterior(x, BITS).parameters


def _nats(model: Autoregressive | Latent, x: Tensor) -> Tensor:
    """(n,) nats of a float model at the noise that `Twin.cost` takes."""
    return -importance_weights(model, Batch(x, seed=0), 1)[:, 0] if isinstance(model, Latent) else -model.log_prob(x)


def lossless(subject: Subject) -> str:
    """What was coded is decoded, the coder ends where it began, and bytes are what the twin says that they cost."""
    found = subject.coded
    rare = found.twins[-1].likelihood.walk(FEW, found.context(found.items[:FEW])).run(_rarest)
    for what, x in (("the rarest symbols", rare), ("one item", found.items[:1]), ("no items", found.items[:0])):
        _payload(found, x, what)
    size = len(_payload(found, found.items, "samples"))
    if found.twins[0].scheme == BITS_BACK:
        return _net(found, size)
    return f"{len(found.items)} samples take {size} bytes, as the twin says"


def _rarest(site: int, conditional: Conditional) -> Tensor:
    """(n,) symbols with the fewest slots."""
    return conditional.log_pmf().argmin(-1)


def _payload(found: Coded, x: Tensor, what: str) -> bytes:
    """What (n, *shape) symbols are coded as, after decoding it; few items are decoded in every engine."""
    twins = found.twins if len(x) <= FEW else found.twins[-1:]
    try:
        payload = encoded(found.twins[-1], x)
        same = all(torch.equal(payload_items(each, payload, len(x)), x) for each in twins)
    except CodecError as error:
        raise LawBroken(f"{what} cannot be coded: {error}") from error
    require(same, f"{what}: decoding gives other symbols")
    if found.twins[0].scheme != BITS_BACK:
        ideal = _bits(found.twins[0], x, found.context(x)) / 8 if len(x) else 0.0
        require(len(payload) <= 1.001 * ideal + OVERHEAD, f"{what} take {len(payload)} bytes; the twin says {ideal:.0f}")
    return payload


def _bits(exact: Twin, x: Tensor, context: Context | None) -> float:
    """What all symbols cost, also those that fill up an example after its end, and their latents."""
    rate = exact.latents.rate(exact.latents.codes(x)).sum().item() if isinstance(exact.latents, ExactGenerator) else 0.0
    return rate / log(2) - exact.likelihood.conditionals(x, context).log_prob(x).sum().item() / log(2)


def _net(found: Coded, size: int, seeds: int = 8) -> str:
    """Compare what the items beyond the first `FEW` add with the mean of their single-sample bounds, give or take its noise."""
    first, x = found.twins[0], found.items
    added = size - len(encoded(found.twins[-1], x[:FEW]))
    bounds = torch.stack([first.cost(x[FEW:], seed) for seed in range(seeds)]) / log(2) / 8
    expected = bounds.mean(0).sum().item()
    noise = bounds.var(0).sum().sqrt().item() * (1 + 1 / seeds) ** 0.5
    figures = f"items beyond the first {FEW} add {added} bytes; their bound is {expected:.0f}, with a noise of {noise:.0f}"
    require(abs(added - expected) <= 0.01 * expected + OVERHEAD + 4 * noise, figures)
    return figures
