"""Toys: entropies in closed form, and draws that follow the stated probabilities."""

from __future__ import annotations

from math import log

import pytest
import torch

from ancestral.data import toys
from ancestral.spec import DataSpec
from ancestral.symbols import DataError


def binary_entropy(p: float) -> float:
    return -p * log(p) - (1 - p) * log(1 - p)


TOYS = [
    (toys.bernoulli((1, 2, 3)), 6 * 0.6108643020548935),
    (toys.bernoulli((4,), p=0.5), 4 * log(2)),
    (toys.parity(), 2 * log(2)),
    (toys.parity((1, 2, 3)), 2 * log(2)),
    (toys.markov((6,)), binary_entropy(0.25) + 5 * (0.75 * binary_entropy(0.1) + 0.25 * binary_entropy(0.3))),
    (toys.collapse(), log(2)),
]


@pytest.mark.parametrize(("toy", "entropy"), TOYS, ids=lambda value: getattr(value, "name", ""))
def test_toys_have_the_stated_entropy(toy: toys.Toy, entropy: float) -> None:
    assert toy.entropy == pytest.approx(entropy, rel=1e-12)
    assert toy.log_prob(toy.states).exp().sum().item() == pytest.approx(1, abs=1e-12)
    data = toy.splits(train=4000, seed=1)
    surprise = -toy.log_prob(data.train.x)
    spread = surprise.std().item() if surprise.std() > 0 else 0.0
    assert surprise.mean().item() == pytest.approx(entropy, abs=4 * spread / 4000**0.5 + 1e-9)  # and no state is impossible
    counts = torch.zeros(len(toy.probabilities)).index_add_(0, index(data.train.x), torch.ones(4000))
    possible = toy.probabilities > 0
    expected = 4000 * toy.probabilities[possible]
    chi = ((counts[possible] - expected) ** 2 / expected).sum().item()
    freedom = int(possible.sum()) - 1
    assert counts[~possible].sum() == 0 and chi < freedom + 5 * (2 * freedom) ** 0.5 + 5


def index(x: torch.Tensor) -> torch.Tensor:
    """The number that an example spells in binary, its first site the highest place."""
    return torch.tensor([int("".join(map(str, bits)), 2) for bits in x.flatten(1).tolist()])


def test_toys_are_repeatable_and_checked() -> None:
    toy = toys.markov((1, 2, 3))
    assert toy.spec == DataSpec("image", (1, 2, 3), levels=2)
    assert toy.splits(seed=3).hash == toy.splits(seed=3).hash != toy.splits(seed=4).hash
    assert torch.equal(toy.sample(10), toy.sample(30)[:10])
    assert not torch.equal(toy.splits().validation.x, toy.splits().test.x)
    assert toys.parity().log_prob(torch.tensor([[[[1, 1, 1]]]])).item() == -torch.inf
    assert toys.collapse((3,)).states[toys.collapse((3,)).probabilities > 0].tolist() == [[0, 0, 0], [1, 0, 1]]
    with pytest.raises(DataError, match="at least 3 sites"):
        toys.parity((2,))
    with pytest.raises(DataError, match="at most 16"):
        toys.bernoulli((1, 5, 5))
    with pytest.raises(DataError, match="a batch of shape"):
        toy.log_prob(torch.zeros(3, 6, dtype=torch.long))
