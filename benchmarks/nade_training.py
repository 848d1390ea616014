"""How much faster does NADE train than a loop over the dimensions would?

784 binary sites, 500 hidden units, batches of 100, forward and backward pass, float32, one thread, CPU time, medians of pairs
in one run. The loop is what the recursion says, a few operations a dimension, left to automatic differentiation: once with a
row of each matrix taken where it is needed, once with all rows taken beforehand.

    python benchmarks/nade_training.py
"""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path
from statistics import median

import torch
from record import Record
from torch import Tensor
from torch.nn import functional

from ancestral.networks.nade import NADE

SITES, HIDDEN, BATCH, REPEATS = 784, 500, 100, 7


def by_rows(network: NADE, x: Tensor) -> Tensor:
    """The loop, whose rows are taken where they are needed."""
    w, v, b = network.sum.weight[:, 0], network.output.weight[..., 0], network.output.bias[:, 0]
    a, y = network.sum.bias.expand(len(x), -1), []
    for d in range(SITES):
        y.append(torch.sigmoid(a) @ v[d] + b[d])
        a = a + x[:, d : d + 1] * w[d]
    return torch.stack(y, 1)


def by_unbound_rows(network: NADE, x: Tensor) -> Tensor:
    """The loop, whose rows are taken beforehand, which spares its backward pass many sums."""
    w, v, b = network.sum.weight[:, 0].unbind(), network.output.weight[..., 0].unbind(), network.output.bias[:, 0].unbind()
    a, y = network.sum.bias.expand(len(x), -1), []
    for d, symbol in enumerate(x.unbind(1)):
        y.append(torch.sigmoid(a) @ v[d] + b[d])
        a = a + symbol[:, None] * w[d]
    return torch.stack(y, 1)


def seconds(network: NADE, x: Tensor, logits: Callable[[NADE, Tensor], Tensor]) -> float:
    network.zero_grad()
    since = time.process_time()
    functional.binary_cross_entropy_with_logits(logits(network, x.float()), x.float()).backward()
    return time.process_time() - since


def main() -> None:
    torch.set_num_threads(1)
    torch.manual_seed(0)
    network, x = NADE((SITES,), 2, 1, HIDDEN, activation="sigmoid"), torch.randint(2, (BATCH, SITES))
    record = Record(Path(__file__).parent / "results" / "nade_training.json", __doc__.splitlines()[0])
    for name, loop in (("rows taken in the loop", by_rows), ("rows taken beforehand", by_unbound_rows)):
        ours = lambda network, x: network(x.long())[..., 0]  # noqa: E731
        assert torch.allclose(ours(network, x), loop(network, x.float()), atol=1e-4)
        pairs = [(seconds(network, x, loop), seconds(network, x, ours)) for _ in range(REPEATS)]
        slow, fast = (median(side) for side in zip(*pairs, strict=True))
        ratio = median(loop_s / ours_s for loop_s, ours_s in pairs)
        record.add(name, {"loop_s": round(slow, 3), "ours_s": round(fast, 3), "ratio": round(ratio, 2)})


if __name__ == "__main__":
    main()
