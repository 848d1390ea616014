"""From vectors to codes and back: the nearest of learned vectors, or numbers rounded one by one.

Neither has a gradient, so that of the code's vector is handed to the encoder as it is, straight through (Bengio et al. 2013,
arXiv:1308.3432).
"""

from __future__ import annotations

import re
from abc import ABC, abstractmethod
from collections.abc import Sequence
from math import atanh, prod
from typing import Any

import torch
from torch import Tensor, distributed, nn
from torch.nn import functional

from ancestral.draw import uniforms

RESTARTS = 2**37  # stream of the uniforms that choose where dead codes go; it never changes, nor do the numbers that come of it
SMOOTHING = 1e-5  # added to the count of every code
INSIDE = 1e-3  # how much less than whole the interval is that finite scalars are rounded from


class _Straight(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, encoded: Tensor, vectors: Tensor) -> Tensor:
        return vectors.clone()

    @staticmethod
    def backward(ctx: Any, *slopes: Tensor) -> tuple[Tensor, None]:
        return slopes[0], None


def straight_through(encoded: Tensor, vectors: Tensor) -> Tensor:
    """The vectors as they are, with a gradient that goes to what they were chosen for.

    Example:
        >>> encoded = torch.tensor([0.9, -0.2], requires_grad=True)
        >>> (straight_through(encoded, encoded.round()) * torch.tensor([3.0, 5.0])).sum().backward()
        >>> encoded.grad
        tensor([3., 5.])
    """
    found: Tensor = _Straight.apply(encoded, vectors)  # type: ignore[no-untyped-call]
    return found


def usage(codes: Tensor, count: int) -> Tensor:
    """(count,) how often each code occurs."""
    return torch.bincount(codes.flatten(), minlength=count)


def perplexity(counts: Tensor) -> Tensor:
    """exp of the entropy of codes that occur so often: how many equally likely ones they are worth.

    Example:
        >>> round(perplexity(torch.tensor([4, 2, 1, 1])).item(), 4)
        3.3636
    """
    share = counts.double() / counts.sum().clamp_min(1)
    worth: Tensor = torch.special.entr(share).sum().exp()
    return worth


class Quantizer(nn.Module, ABC):
    """A set of vectors with numbers 0 .. codes - 1, and which of them stands for what an encoder gives.

    Attributes:
        codes: how many there are.
        features: numbers of a vector.
    """

    codes: int
    features: int

    def bounded(self, encoded: Tensor) -> Tensor:
        """What is quantised of (n, m features, h, w) numbers of an encoder, in the same shape."""
        return encoded

    @abstractmethod
    def nearest(self, bounded: Tensor) -> Tensor:
        """(n, m features, h, w) to the codes (n, m, h, w) whose vectors are nearest, the lowest of equals."""

    @abstractmethod
    def vectors(self, codes: Tensor) -> Tensor:
        """(n, m, h, w) codes to their vectors (n, m features, h, w)."""

    def distance(self, bounded: Tensor, codes: Tensor) -> Tensor:
        """(n,) squared distances of what was quantised from the vectors of its codes, summed, for the encoder to make small."""
        return (bounded - self.vectors(codes).detach()).square().flatten(1).sum(1)

    def learn(self, bounded: Tensor, codes: Tensor, seed: int) -> None:
        """Move vectors to where their codes are used, in a step of training with this seed; where nothing is learned, nothing."""


class VectorQuantizer(Quantizer):
    """The nearest vector of a codebook, each a moving average of what it is nearest to (van den Oord et al. 2017, appendix A.1).

    N <- d N + (1 - d) n and M <- d M + (1 - d) sum of the n vectors it was nearest to, over 1 - d^t for the zeros that both
    began with; then the vector is M / N, with counts smoothed so that none is 0. A code used less than a part ``restart`` of an
    even share moves to a random output of the encoder, as all unused ones do in the first step, and has an even share of the
    count from there.

    Args:
        codes: K, how many vectors.
        features: of a vector.
        decay: d of the averages.
        restart: see above; 0 for never.

    Raises:
        ValueError: a value is outside its range.
    """

    codebook: Tensor
    counts: Tensor
    sums: Tensor
    steps: Tensor

    def __init__(self, codes: int, features: int, decay: float = 0.99, restart: float = 0.1) -> None:
        super().__init__()
        if codes < 2 or features < 1:
            raise ValueError(f"a codebook of {codes} vectors of {features} numbers: it needs at least 2, and at least 1")
        if not (0 <= decay < 1 and 0 <= restart < 1):
            raise ValueError(f"decay and restart are {decay} and {restart}; both must be at least 0 and below 1")
        self.codes, self.features, self.decay, self.restart = codes, features, decay, restart
        bound = (3 / features) ** 0.5
        self.register_buffer("codebook", torch.empty(codes, features).uniform_(-bound, bound))
        self.register_buffer("counts", torch.zeros(codes))
        self.register_buffer("sums", torch.zeros(codes, features))
        self.register_buffer("steps", torch.zeros((), dtype=torch.long))

    @torch.no_grad()
    def nearest(self, bounded: Tensor) -> Tensor:
        n, channels, height, width = bounded.shape
        vectors = self._rows(bounded)
        with torch.autocast(bounded.device.type, enabled=False):  # half precision would confuse neighbours
            affinity = torch.addmm(-self.codebook.square().sum(1) / 2, vectors, self.codebook.T)
        return affinity.argmax(1).view(n, height, width, channels // self.features).movedim(-1, 1).contiguous()

    def vectors(self, codes: Tensor) -> Tensor:
        return functional.embedding(codes.movedim(1, -1), self.codebook).flatten(3).movedim(-1, 1)

    def _rows(self, encoded: Tensor) -> Tensor:
        """(n, m features, h, w) to (n h w m, features), in the type of the codebook."""
        return encoded.detach().movedim(1, -1).reshape(-1, self.features).to(self.codebook)

    @torch.no_grad()
    def learn(self, bounded: Tensor, codes: Tensor, seed: int) -> None:
        rows, chosen = self._rows(bounded), codes.movedim(1, -1).flatten()
        used = torch.zeros_like(self.counts).index_add_(0, chosen, torch.ones_like(rows[:, 0]))
        sums = torch.zeros_like(self.sums).index_add_(0, chosen, rows)
        moved = self._drawn(rows, seed)
        if distributed.is_available() and distributed.is_initialized():  # all processes keep one codebook
            distributed.all_reduce(used)
            distributed.all_reduce(sums)
            distributed.broadcast(moved, 0)
        self.steps += 1
        self.counts.lerp_(used, 1 - self.decay)
        self.sums.lerp_(sums, 1 - self.decay)
        grown = 1 - self.decay ** self.steps.to(self.counts)
        even = self.counts.sum() / self.codes
        dead = (self.counts < self.restart * even)[:, None]
        self.counts.copy_(torch.where(dead[:, 0], even, self.counts))
        self.sums.copy_(torch.where(dead, even * moved, self.sums))
        counts = self.counts / grown
        total = counts.sum()
        smoothed = (counts + SMOOTHING) / (total + self.codes * SMOOTHING) * total
        seen = counts[:, None] > 0  # a code that was never used stays where it is
        self.codebook.copy_(torch.where(seen, self.sums / grown / smoothed[:, None], self.codebook))

    def _drawn(self, rows: Tensor, seed: int) -> Tensor:
        """(codes, features) outputs of the encoder, one for every code that may need it."""
        u = uniforms(seed, [0], self.codes, RESTARTS)[0]
        return rows[(u * len(rows)).long().to(rows.device)]


class FiniteScalar(Quantizer):
    """Every number brought into an interval and rounded, code and vector being the same thing (Mentzer et al. 2023, FSQ).

    A number x of L levels becomes the nearest of L whole numbers to (L - 1) / 2 tanh(x + s) - o, where o is a half for even L
    and s makes x = 0 become 0; vectors are those whole numbers over L / 2, rounded down. The code counts them, the first number
    of a vector fastest. Nothing is learned, no code dies, and none needs to be pulled to its vector (arXiv:2309.15505).

    Args:
        levels: L of each number of a vector.

    Raises:
        ValueError: a number of fewer than 2 levels, or fewer than 2 codes.

    Example:
        >>> quantizer = FiniteScalar((3, 2))
        >>> quantizer.vectors(torch.arange(6).view(1, 6, 1, 1))[0, :, 0, 0].view(6, 2).tolist()
        [[-1.0, -1.0], [0.0, -1.0], [1.0, -1.0], [-1.0, 0.0], [0.0, 0.0], [1.0, 0.0]]
    """

    sizes: Tensor
    steps: Tensor

    def __init__(self, levels: Sequence[int]) -> None:
        super().__init__()
        if not levels or min(levels) < 2:
            raise ValueError(f"levels are {tuple(levels)}; every number of a vector needs at least 2")
        self.codes, self.features = prod(levels), len(levels)
        self.register_buffer("sizes", torch.tensor(levels), persistent=False)
        self.register_buffer("steps", torch.tensor([prod(levels[:i]) for i in range(len(levels))]), persistent=False)
        half = [(size - 1) * (1 - INSIDE) / 2 for size in levels]
        offset = [0.0 if size % 2 else 0.5 for size in levels]
        shift = [atanh(o / h) if h > o else 0.0 for o, h in zip(offset, half, strict=True)]
        for name, values in (("reach", half), ("offset", offset), ("shift", shift)):
            self.register_buffer(name, torch.tensor(values), persistent=False)
        self.reach: Tensor
        self.offset: Tensor
        self.shift: Tensor

    def bounded(self, encoded: Tensor) -> Tensor:
        whole = (self._apart(encoded) + self.shift).tanh() * self.reach - self.offset
        return (whole / (self.sizes // 2)).movedim(-1, 2).flatten(1, 2)

    @torch.no_grad()
    def nearest(self, bounded: Tensor) -> Tensor:
        whole = (self._apart(bounded) * (self.sizes // 2)).round().long()
        return ((whole + self.sizes // 2) * self.steps).sum(-1)

    def _apart(self, encoded: Tensor) -> Tensor:
        """(n, m features, h, w) to (n, m, h, w, features)."""
        n, channels, height, width = encoded.shape
        return encoded.view(n, channels // self.features, self.features, height, width).movedim(2, -1)

    def vectors(self, codes: Tensor) -> Tensor:
        whole = codes.unsqueeze(-1) // self.steps % self.sizes - self.sizes // 2
        return (whole.to(self.reach) / (self.sizes // 2)).movedim(-1, 2).flatten(1, 2)

    def distance(self, bounded: Tensor, codes: Tensor) -> Tensor:
        return bounded.new_zeros(len(bounded))


def finite_levels(text: str) -> tuple[int, ...]:
    """The levels of finite scalars, written as 8x5x5x5.

    Raises:
        ValueError: they are written otherwise.

    Example:
        >>> finite_levels("8x5x5x5")
        (8, 5, 5, 5)
    """
    if re.fullmatch(r"\d+(x\d+)*", text) is None:
        raise ValueError(f"scalars is {text!r}; write the levels of each number of a vector, such as 8x5x5x5")
    return tuple(map(int, text.split("x")))
