"""What does a neural autoregressive density gain over Gaussians on a small table of real values?

The embedded measurements (569 rows of 30 values; 457 train, 56 validation, 56 test rows), nats of a test row in the original
units, lower is better, with standard errors. Ours train for half a CPU-minute at most, and the weights of the best validation
likelihood count; the Gaussians are scikit-learn's, with full covariances, as many and as much added to their diagonals as
validation likes best.

    python benchmarks/measurements.py
"""

from __future__ import annotations

import copy
import time
from pathlib import Path
from typing import Any

import numpy as np
import torch
from record import Record, cpu_minutes
from sklearn.mixture import GaussianMixture

from ancestral.core import Autoregressive
from ancestral.data import load_data
from ancestral.data.splits import Splits
from ancestral.evaluation import evaluate
from ancestral.models import build
from ancestral.objectives import Batch, nll

STEPS, ROWS, EVERY = 1500, 50, 25
OURS: dict[str, dict[str, Any]] = {
    "rnade, normal": {"model": "rnade", "components": 3, "hidden": 50},
    "rnade, laplace": {"model": "rnade", "components": 3, "hidden": 50, "family": "laplace"},
    "made, normal": {"model": "made", "components": 3, "hidden": 100, "layers": 1},
}


def gaussians(data: Splits, components: list[int]) -> tuple[np.ndarray, dict[str, Any]]:
    """Nats of the test rows, and which mixture validation liked best."""
    train, validation, test = (part.x.double().numpy() for part in (data.train, data.validation, data.test))
    tried = [(k, floor) for k in components for floor in (1e-3, 1e-2, 3e-2, 1e-1)]
    fitted = [GaussianMixture(k, reg_covar=floor, n_init=3, random_state=0).fit(train) for k, floor in tried]
    best = max(range(len(tried)), key=lambda i: fitted[i].score(validation))
    assert data.units is not None
    nats = data.units.nats - fitted[best].score_samples(test)
    return nats, {"components": tried[best][0], "added_to_diagonal": tried[best][1]}


def trained(data: Splits, sizes: dict[str, Any]) -> Autoregressive:
    """The model with the weights of the best validation likelihood on the way."""
    torch.manual_seed(0)
    name, rest = sizes["model"], {key: value for key, value in sizes.items() if key != "model"}
    model = build(name, data.spec, **rest)
    optimiser = torch.optim.AdamW(model.parameters(), lr=3e-3, weight_decay=1e-1)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimiser, STEPS)
    x, held_out, best, lowest = data.train.x.float(), data.validation.x.float(), copy.deepcopy(model), np.inf
    for step in range(STEPS):
        rows = torch.randint(len(x), (ROWS,))
        optimiser.zero_grad()
        nll(model, Batch(x[rows]))["loss"].backward()
        optimiser.step()
        schedule.step()
        if step % EVERY == 0:
            with torch.no_grad():
                found = float(nll(model, Batch(held_out))["nll"])
            if found < lowest:
                best, lowest = copy.deepcopy(model), found
    return best


def main() -> None:
    torch.set_num_threads(1)
    data = load_data("measurements")
    record = Record(Path(__file__).parent / "results" / "measurements.json", __doc__.splitlines()[0])
    for name, components in (("Gaussian", [1]), ("mixture of Gaussians", [2, 3, 4, 6, 8])):
        nats, chosen = gaussians(data, components)
        error = float(nats.std(ddof=1) / len(nats) ** 0.5)
        record.add(name, {"nats": round(float(nats.mean()), 3), "nats_error": round(error, 3), **chosen})
    for name, sizes in OURS.items():
        since = time.process_time()
        found = evaluate(trained(data, sizes), data)
        figures = {"nats": round(found.nats, 3), "nats_error": round(found.nats_error, 3), "status": found.status}
        record.add(name, {**figures, **sizes, "cpu_minutes": cpu_minutes(since)})


if __name__ == "__main__":
    main()
