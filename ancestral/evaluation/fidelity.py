"""How near pictures come to others: peak signal-to-noise ratio and structural similarity."""

from __future__ import annotations

from math import log10

import torch
from torch import Tensor
from torch.nn import functional

WINDOW, SPREAD = 11, 1.5  # pixels, of Wang et al. 2004, section III B; the window of smaller images is the largest that fits
K1, K2 = 0.01, 0.03


def psnr(a: Tensor, b: Tensor, peak: float = 255.0) -> float:
    """Decibels, 10 log10(peak^2 / mean squared error), of (n, C, H, W) pictures, the mean over all of them; inf if alike.

    Example:
        >>> round(psnr(torch.zeros(1, 1, 2, 2), torch.full((1, 1, 2, 2), 25.5)), 6)
        20.0
    """
    error = (a.double() - b.double()).square().mean().item()
    return 10 * log10(peak**2 / error) if error else float("inf")


def ssim(a: Tensor, b: Tensor, peak: float = 255.0) -> Tensor:
    """(n,) mean structural similarity of (n, C, H, W) pictures, 1 where they are alike.

    Wang, Bovik, Sheikh & Simoncelli 2004, "Image quality assessment: from error visibility to structural similarity", eq. 13,
    over all windows that lie within the picture.
    """
    side = min(WINDOW, *((size - 1) // 2 * 2 + 1 for size in a.shape[2:]))
    places = torch.arange(side, dtype=torch.float64, device=a.device) - side // 2
    bell = torch.exp(-places.square() / (2 * SPREAD**2))
    window = torch.outer(bell, bell) / bell.sum().square()

    def mean(x: Tensor) -> Tensor:
        return functional.conv2d(x, window.expand(x.shape[1], 1, side, side), groups=x.shape[1])

    a, b = a.double(), b.double()
    mean_a, mean_b = mean(a), mean(b)
    spread_a, spread_b = mean(a * a) - mean_a.square(), mean(b * b) - mean_b.square()
    together = mean(a * b) - mean_a * mean_b
    c1, c2 = (K1 * peak) ** 2, (K2 * peak) ** 2
    light = (2 * mean_a * mean_b + c1) / (mean_a.square() + mean_b.square() + c1)
    structure = (2 * together + c2) / (spread_a + spread_b + c2)
    return (light * structure).flatten(1).mean(1)
