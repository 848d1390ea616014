"""What whole numbers cost: the bits of the exact twin, which files are coded with, beside those of the model itself."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor
from torch.nn.functional import pad

from ancestral.core import Context
from ancestral.evaluation.bits import Mean, example_nats
from ancestral.evaluation.examples import Chosen, Tick
from ancestral.latent.latent import Latent
from ancestral.latent.topdown import Noise
from ancestral.sampling.strategies import Model, sized
from ancestral.symbols import trimmed
from ancestral.walking.twin import label_vector, twin

NUMERICS = ("float", "exact")


def numerics_cost(model: Model, some: Chosen, seed: int, batch_size: int, tick: Tick) -> dict[str, float | int | str | None]:
    """Mean nats of the twin on some examples, and how many more they are than the model's, at the same noise.

    Both are told the labels of the examples, where a conditional model is given some. The twin of a two-part code does not draw
    its z but chooses it, so that the difference is not of numbers alone.
    """
    x, end = trimmed(some.x.long(), model.spec), model.spec.end or 0
    whole = sized(model, x.shape[1:])  # whose sequences are all as long as the longest: what comes after an end costs nothing
    exact = twin(whole, x, threads=torch.get_num_threads(), vector=label_vector(some.labels, model.spec))
    theirs, ours = [], []
    for batch, context in some.batches(model, seed, batch_size):
        filled = pad(batch.x.cpu(), (0, x.shape[-1] - batch.x.shape[-1]), value=end)
        theirs.append(exact.cost(filled, seed, batch.rows, vector=label_vector(batch.labels, model.spec)))
        ours.append(_nats(model, batch.x, seed, batch.rows or (), context).cpu())
        tick(len(batch.x))
    nats, more = torch.cat(theirs), Mean.of(torch.cat(theirs) - torch.cat(ours))
    return {
        "exact_nats": Mean.of(nats).value,
        "exact_cost": more.value,
        "exact_cost_error": more.error,
        "exact_examples": len(nats),
        "exact_scheme": exact.scheme,
    }


def _nats(model: Model, x: Tensor, seed: int, rows: Sequence[int], context: Context | None) -> Tensor:
    if not isinstance(model, Latent):
        return example_nats(model, x, context)
    descent = model.descend(x, Noise(seed, rows), context)
    ratio = [(group.log_q - group.log_p).flatten(1).sum(1, dtype=torch.float64) for group in descent.groups]
    return torch.stack(ratio).sum(0) + example_nats(model.likelihood, x, descent.features)
