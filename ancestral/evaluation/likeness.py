"""How near two sets of feature vectors are: as distributions, by what each covers of the other, and point by point."""

from __future__ import annotations

from dataclasses import dataclass
from math import sqrt

import torch
from torch import Tensor

NEIGHBOURS = 3  # whose distance is the radius of a point's ball; Kynkäänniemi et al. 2019
BLOCKS, SMALLEST, USUAL = 10, 20, 100  # at most so many blocks; two of at least 20 vectors, more of 100
AT_ONCE = 2**24  # distances computed together


@dataclass(frozen=True)
class Distance:
    """A kernel distance with its standard error over blocks, None where there is one block only."""

    value: float
    error: float | None


def polynomial(a: Tensor, b: Tensor) -> Tensor:
    """(n, m) kernel (a.b / d + 1)^3 of (n, d) and (m, d) vectors."""
    return (a @ b.T / a.shape[1] + 1) ** 3


def squared_mmd(a: Tensor, b: Tensor) -> float:
    """The unbiased estimate of the squared maximum mean discrepancy with the cubic kernel, from (n, d) and (m, d) vectors.

    Unbiased, so that it is below 0 half of the time where both are of one distribution (Gretton et al. 2012, eq. 3).

    Raises:
        ValueError: fewer than two vectors on a side.
    """
    if min(len(a), len(b)) < 2:
        raise ValueError(f"{len(a)} and {len(b)} vectors: the estimate takes at least 2 on either side")
    a, b = a.double(), b.double()
    inside = [
        (kernel.sum() - kernel.trace()) / (len(kernel) * (len(kernel) - 1)) for kernel in (polynomial(a, a), polynomial(b, b))
    ]
    return float(inside[0] + inside[1] - 2 * polynomial(a, b).mean())


def kernel_distance(a: Tensor, b: Tensor) -> Distance:
    """KID: the mean of `squared_mmd` over disjoint blocks of (n, d) and (m, d) vectors (Bińkowski et al. 2018).

    Two to ten blocks of about 100 vectors, one where two would have fewer than 20; the order of the vectors should be random.

    Example:
        >>> points = torch.arange(200.0).remainder(7)[:, None]
        >>> kernel_distance(points, points.flip(0)).value < 0 < kernel_distance(points, points + 1).value
        True
    """
    least = min(len(a), len(b))
    blocks = 1 if least < 2 * SMALLEST else max(2, min(BLOCKS, least // USUAL))
    pairs = zip(a.tensor_split(blocks), b.tensor_split(blocks), strict=True)
    values = torch.tensor([squared_mmd(*pair) for pair in pairs], dtype=torch.float64)
    return Distance(float(values.mean()), float(values.std()) / sqrt(blocks) if blocks > 1 else None)


def precision_recall(real: Tensor, made: Tensor, k: int = NEIGHBOURS) -> tuple[float, float]:
    """Share of made vectors among the real ones, and of real ones among the made, (n, d) and (m, d).

    A vector is among others where it lies within the distance of one of them to its k-th nearest neighbour (Kynkäänniemi et al.
    2019, "Improved Precision and Recall Metric for Assessing Generative Models"). Both shares depend on n and m: compare equals.

    Raises:
        ValueError: not more than k vectors on a side.

    Example:
        >>> near, far = torch.randn(50, 2), torch.randn(50, 2) + 100
        >>> precision_recall(torch.cat([near, far]), near)[0], precision_recall(near, far)
        (1.0, (0.0, 0.0))
    """
    if min(len(real), len(made)) <= k:
        raise ValueError(f"{len(real)} and {len(made)} vectors: {k} neighbours take more than {k} on either side")
    return _among(made, real, k), _among(real, made, k)


def _among(points: Tensor, others: Tensor, k: int) -> float:
    """Share of points within the ball of any of the others."""
    radii = distances(others, others).kthvalue(k + 1, 1).values  # the nearest is the vector itself
    return float((distances(points, others) <= radii).any(1).double().mean())


def nearest(queries: Tensor, pool: Tensor) -> tuple[Tensor, Tensor]:
    """(n,) Euclidean distance of each (n, d) query to the nearest of (m, d) vectors, and which that is."""
    some = max(1, AT_ONCE // len(pool))
    places = torch.cat([distances(part, pool).argmin(1) for part in torch.split(queries, some)])
    return (queries - pool[places]).norm(dim=1), places  # anew, because products of matrices leave a rest where two are equal


def distances(a: Tensor, b: Tensor) -> Tensor:
    """(n, m) Euclidean distances of (n, d) and (m, d) vectors, in their own precision."""
    return torch.cdist(a, b, compute_mode="donot_use_mm_for_euclid_dist" if len(a) * len(b) < 2**20 else "use_mm_for_euclid_dist")
