"""How long the items are that long sequences are cut into: each begins without a context, and all of a block go together."""

from __future__ import annotations

from collections.abc import Sequence

import torch

from ancestral.coding.blocks import past
from ancestral.coding.clips import Clip, Sequences, cut
from ancestral.core import Autoregressive, OrderError
from ancestral.data.source import Array
from ancestral.sampling.strategies import Model, arrange, context_of, inference, likelihood_of

LONGEST = 1 << 14  # symbols of an item, unless the model's own are longer: enough for what is lost at its beginning
SAMPLE = 1 << 14  # symbols on which lengths are tried
GAIN = 0.001  # of the bits, for which an item becomes longer


def cut_to(model: Model, runs: Sequence[Array], block: int | None = None, line: int | None = None) -> Model:
    """The model for the items that runs of symbols are cut into.

    They are as long as the model's own examples or, where that makes a sample of the runs cheaper, up to 64 times as long, but
    not longer than the longest run. Models that take one length alone have no choice.

    Args:
        block: how many symbols an item has at most; chosen by default.
        line: the symbols of the longest line with its end, where every line is an item: they are cut where that is too long.

    Raises:
        ValueError: ``block`` is below 1.
        OrderError: the model does not take so many.
    """
    if block is not None and block < 1:
        raise ValueError(f"block is {block}; an item has at least 1 symbol")
    parts, own = model.spec.parts, likelihood_of(model).network.shape.numel()
    longest = max([parts, *(len(run) for run in runs)]) if line is None else line
    if block is not None:
        return _sized(model, min(-(-block // parts) * parts, longest))
    if line is not None:
        return _taken(model, min(line, max(own, LONGEST))) or _taken(model, min(line, own)) or model
    lengths = [own * 4**k for k in range(4) if k == 0 or own * 4**k <= LONGEST]
    found = [each for length in sorted({min(length, longest) for length in lengths}) if (each := _taken(model, length))]
    if not found:
        return model
    sample = max(runs, key=len)[: SAMPLE // parts * parts] if len(found) > 1 else None
    best, least = found[0], None
    for each in found if sample is not None else ():
        nats = _cost(each, sample)
        if least is None or nats < least * (1 - GAIN):
            best, least = each, nats
    return best


def _sized(model: Model, length: int) -> Model:
    return model if model.spec.shape == (length,) else arrange(model, shape=(length,))


def _taken(model: Model, length: int) -> Model | None:
    try:
        return _sized(model, length)
    except OrderError:
        return None


def _cost(model: Model, run: Array | None) -> float:
    """The nats that a run costs, cut for a model."""
    if run is None or not isinstance(model, Autoregressive):
        return 0.0
    manifest = Sequences(model.spec, (Clip("run", "bytes", (), (len(run),)),))
    x, lengths, total = cut([run], manifest).to(model.anchor.device), manifest.lengths, 0.0
    with inference(model):
        for rows in torch.split(torch.arange(len(x)), max(1, SAMPLE // model.spec.sites)):
            nats = model.conditionals(x[rows].long(), context_of(model, len(rows), None, None)).log_prob(x[rows].long())
            total -= float(nats.cpu()[~past(lengths[rows], model.spec.sites)].sum())
    return total
