"""I(x; z) of any model with latents, from a pass for every pair of a code and an example."""

from __future__ import annotations

import torch

from ancestral.evaluation.examples import Chosen
from ancestral.evaluation.latents import information
from ancestral.latent.latent import Latent
from ancestral.latent.topdown import Noise, given

MOST_PAIRED = 64  # examples, so that there are 4,096 pairs; the ceiling is their log, 4.16 nats


def paired_information(model: Latent, chosen: Chosen, seed: int) -> float:
    """I(x; z) in nats of all groups of z together, estimated as `information` does, on N examples by N passes of N rows.

    A code that a flow cannot bring back for another example counts as one of density zero.
    """
    [(batch, context)] = chosen.batches(model, seed, len(chosen))
    z = {group.name: group.z for group in model.descend(batch.x, Noise(seed, batch.rows or ()), context).groups}
    columns = []
    for place in range(len(batch.x)):
        rows = torch.full((len(batch.x),), place, device=batch.x.device)
        groups = model.descend(batch.x[rows], given(z), context and context.select(rows)).groups
        columns.append(torch.stack([group.log_q.flatten(1).sum(1, dtype=torch.float64) for group in groups]).sum(0))
    return information(torch.stack(columns, 1).nan_to_num(nan=-torch.inf), chosen.labels)
