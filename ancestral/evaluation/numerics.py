"""What whole numbers cost: the bits of the exact twin, which files are coded with, beside those of the model itself."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from ancestral.core import Context
from ancestral.evaluation.bits import Mean, example_nats
from ancestral.evaluation.examples import Chosen, Tick
from ancestral.latent.latent import Latent
from ancestral.latent.topdown import Noise
from ancestral.sampling.strategies import Model
from ancestral.walking.twin import label_vector, twin

NUMERICS = ("float", "exact")


def numerics_cost(model: Model, some: Chosen, seed: int, batch_size: int, tick: Tick) -> dict[str, float | int | None]:
    """Mean nats of the twin on some examples, and how many more they are than the model's, at the same noise.

    Both are told the labels of the examples, where a conditional model is given some.
    """
    exact = twin(model, some.x.long(), threads=torch.get_num_threads(), vector=label_vector(some.labels, model.spec))
    theirs, ours = [], []
    for batch, context in some.batches(model, seed, batch_size):
        theirs.append(exact.cost(batch.x.cpu(), seed, batch.rows, vector=label_vector(batch.labels, model.spec)))
        ours.append(_nats(model, batch.x, seed, batch.rows or (), context).cpu())
        tick(len(batch.x))
    nats, more = torch.cat(theirs), Mean.of(torch.cat(theirs) - torch.cat(ours))
    return {
        "exact_nats": Mean.of(nats).value,
        "exact_cost": more.value,
        "exact_cost_error": more.error,
        "exact_examples": len(nats),
    }


def _nats(model: Model, x: Tensor, seed: int, rows: Sequence[int], context: Context | None) -> Tensor:
    if not isinstance(model, Latent):
        return example_nats(model, x, context)
    descent = model.descend(x, Noise(seed, rows), context)
    ratio = [(group.log_q - group.log_p).flatten(1).sum(1, dtype=torch.float64) for group in descent.groups]
    return torch.stack(ratio).sum(0) + example_nats(model.likelihood, x, descent.features)
