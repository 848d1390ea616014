"""Exact joints over a few binary sites, whose entropy is known: the best that any model of them can reach.

What a model loses on a toy beyond its entropy is the model's own, to the last digit, so tests and first experiments use them.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from math import prod

import torch
from torch import Tensor

from ancestral.data.splits import Examples, Splits
from ancestral.draw import uniforms
from ancestral.spec import DataSpec
from ancestral.symbols import DataError, check_symbols

MOST = 16  # sites; a toy lists its 2^D states


@dataclass(frozen=True, eq=False)
class Toy:
    """A distribution over binary examples as the list of its states.

    Attributes:
        name: what it is called.
        spec: kind ``"image"`` for a shape (1, H, W), ``"vector"`` for (D,); two levels.
        probabilities: (2^D,) float64, of the states in the order of ``states``.

    Example:
        >>> toy = parity((3,))
        >>> round(toy.entropy, 4), len(toy.splits(train=100).train)
        (1.3863, 100)
    """

    name: str
    spec: DataSpec
    probabilities: Tensor

    @property
    def states(self) -> Tensor:
        """(2^D, \\*shape) every example, uint8, the first site changing slowest."""
        return _states(self.spec.sites).view(-1, *(size or 0 for size in self.spec.shape))

    @property
    def entropy(self) -> float:
        """H(x) in nats: the smallest mean of -log p that a model can have on fresh examples."""
        return float(torch.special.entr(self.probabilities).sum())

    def log_prob(self, x: Tensor) -> Tensor:
        """(n, \\*shape) symbols to (n,) exact log-probabilities, in nats.

        Raises:
            DataError: x does not fit the spec.
        """
        check_symbols(x, self.spec)
        places = 2 ** torch.arange(self.spec.sites - 1, -1, -1)
        return self.probabilities.log()[(x.flatten(1).long() * places).sum(1)]

    def sample(self, n: int, seed: int = 0, stream: int = 0) -> Tensor:
        """(n, \\*shape) independent draws, uint8; each row is a pure function of (seed, stream, row)."""
        u = uniforms(seed, range(n), 1, stream).squeeze(1)
        state = torch.searchsorted(self.probabilities.cumsum(0), u, right=True)
        likely = self.probabilities.nonzero().squeeze(1)
        return self.states[state.clamp_max(int(likely[-1]))]  # the sum may end a rounding below 1

    def splits(self, train: int = 1000, validation: int = 100, test: int = 100, seed: int = 0) -> Splits:
        """Independent draws as training, validation and test set."""
        sizes = {"train": train, "validation": validation, "test": test}
        first, second, third = (Examples(self.sample(n, seed, stream)) for stream, n in enumerate(sizes.values()))
        note = f"Draws from the toy {self.name!r} (entropy {self.entropy:.6f} nats) with seed {seed}; 2 levels"
        counts = ", ".join(f"{n:,} {part}" for part, n in sizes.items())
        return Splits(first, second, third, self.spec, self.name, f"{note}; {counts} examples.")


def bernoulli(shape: tuple[int, ...] = (1, 2, 3), p: float = 0.3) -> Toy:
    """Independent sites, each 1 with probability p: entropy D h(p), h(p) = -p log p - (1 - p) log(1 - p)."""
    return _toy("bernoulli", shape, lambda x: torch.where(x == 1, p, 1 - p).double().prod(1))


def parity(shape: tuple[int, ...] = (1, 1, 3)) -> Toy:
    """Two fair bits, a third that is their exclusive or, zeros behind: entropy 2 log 2, invisible to any pair of sites.

    Raises:
        DataError: fewer than three sites.
    """
    _at_least(3, shape, "parity")
    return _toy("parity", shape, lambda x: ((x[:, 0] ^ x[:, 1]) == x[:, 2]) * (x[:, 3:] == 0).all(1) / 4)


def markov(shape: tuple[int, ...] = (1, 1, 6), up: float = 0.1, down: float = 0.3) -> Toy:
    """A stationary two-state chain along the sites: 0 turns 1 with probability ``up``, 1 turns 0 with ``down``.

    With s = up / (up + down), the share of ones, the entropy is h(s) + (D - 1) ((1 - s) h(up) + s h(down)).
    """
    share = up / (up + down)

    def probability(x: Tensor) -> Tensor:
        turn = torch.tensor([[1 - up, up], [down, 1 - down]], dtype=torch.float64)
        first = torch.tensor([1 - share, share], dtype=torch.float64)
        return first[x[:, 0].long()] * turn[x[:, :-1].long(), x[:, 1:].long()].prod(1)

    return _toy("markov", shape, probability)


def collapse(shape: tuple[int, ...] = (1, 1, 6)) -> Toy:
    """A fair first bit, repeated at the last site, zeros between: entropy log 2.

    A decoder that sees everything before a site needs no latent and lets it collapse: -ELBO = log 2 at rate 0.  One whose
    window cannot reach from the last site to the first pays 2 log 2 at rate 0, and log 2 if z carries the bit.

    Raises:
        DataError: fewer than two sites.
    """
    _at_least(2, shape, "collapse")
    return _toy("collapse", shape, lambda x: (x[:, 0] == x[:, -1]) * (x[:, 1:-1] == 0).all(1) / 2)


def _toy(name: str, shape: tuple[int, ...], probability: Callable[[Tensor], Tensor]) -> Toy:
    sites = prod(shape)
    if sites > MOST:
        raise DataError(f"a toy of shape {shape} has {sites} sites; its 2^{sites} states are listed, so take at most {MOST}")
    spec = DataSpec("image" if len(shape) == 3 else "vector", shape, levels=2)
    return Toy(name, spec, probability(_states(sites)).double())


def _states(sites: int) -> Tensor:
    places = torch.arange(sites - 1, -1, -1)
    return (torch.arange(2**sites).unsqueeze(1) >> places & 1).to(torch.uint8)


def _at_least(sites: int, shape: tuple[int, ...], name: str) -> None:
    if prod(shape) < sites:
        raise DataError(f"the toy {name!r} needs at least {sites} sites; shape {shape} has {prod(shape)}")
