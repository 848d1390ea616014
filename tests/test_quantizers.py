"""Quantisers against plain loops: gradients, nearest vectors, a codebook that moves, dead codes, finite scalars."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch

from ancestral.draw import uniforms
from ancestral.latent.quantizers import RESTARTS, FiniteScalar, VectorQuantizer, perplexity, straight_through


def test_the_gradient_goes_straight_through() -> None:
    encoded, vectors = torch.randn(2, 4, 3, 3, requires_grad=True), torch.randn(2, 4, 3, 3, requires_grad=True)
    found = straight_through(encoded, vectors)
    assert torch.equal(found, vectors)
    slope = torch.randn_like(found)
    found.backward(slope)
    assert torch.equal(encoded.grad, slope) and vectors.grad is None  # type: ignore[arg-type]


def test_the_nearest_vector_is_the_nearest() -> None:
    quantizer = VectorQuantizer(7, 3)
    encoded = torch.randn(4, 6, 2, 5)
    codes = quantizer.nearest(encoded)
    assert codes.shape == (4, 2, 2, 5)
    for n, m, h, w in np.ndindex(*codes.shape):
        apart = [float((encoded[n, 3 * m : 3 * m + 3, h, w] - vector).square().sum()) for vector in quantizer.codebook]
        assert codes[n, m, h, w] == int(np.argmin(apart))
    far = sum(
        float((encoded[0, 3 * m : 3 * m + 3, h, w] - quantizer.codebook[codes[0, m, h, w]]).square().sum())
        for m, h, w in np.ndindex(2, 2, 5)
    )
    assert math.isclose(float(quantizer.distance(encoded, codes)[0]), far)
    assert torch.equal(quantizer.nearest(quantizer.vectors(codes)), codes)


@pytest.mark.parametrize(("decay", "restart"), [(0.99, 0.0), (0.9, 0.4), (0.5, 0.1)])
def test_a_codebook_moves_as_a_plain_loop_says(decay: float, restart: float) -> None:
    quantizer = VectorQuantizer(5, 2, decay, restart)
    book, counts, sums = quantizer.codebook.clone().tolist(), [0.0] * 5, [[0.0, 0.0] for _ in range(5)]
    for step in range(1, 6):
        encoded = torch.randn(3, 2, 2, 2, generator=torch.Generator().manual_seed(step)) + step
        codes = quantizer.nearest(encoded)
        quantizer.learn(encoded, codes, seed=step)
        rows = encoded.movedim(1, -1).reshape(-1, 2).tolist()
        drawn = (uniforms(step, [0], 5, RESTARTS)[0] * len(rows)).long().tolist()
        chosen = codes.flatten().tolist()
        for j in range(5):
            mine = [row for row, code in zip(rows, chosen, strict=True) if code == j]
            counts[j] = decay * counts[j] + (1 - decay) * len(mine)
            sums[j] = [decay * s + (1 - decay) * sum(row[d] for row in mine) for d, s in enumerate(sums[j])]
        even = sum(counts) / 5
        for j in range(5):
            if counts[j] < restart * even:
                counts[j], sums[j] = even, [even * value for value in rows[drawn[j]]]
        grown = 1 - decay**step
        total = sum(counts) / grown
        for j in range(5):
            if counts[j] > 0:
                smoothed = (counts[j] / grown + 1e-5) / (total + 5e-5) * total
                book[j] = [value / grown / smoothed for value in sums[j]]
        assert torch.allclose(quantizer.codebook, torch.tensor(book), rtol=1e-9)


def test_without_memory_it_is_a_step_of_k_means() -> None:
    quantizer, rows = VectorQuantizer(3, 2, decay=0.0, restart=0.0), torch.randn(40, 2)
    encoded = rows[:, :, None, None]
    codes = quantizer.nearest(encoded)
    expected = torch.stack([rows[codes.flatten() == j].mean(0) for j in range(3)])
    quantizer.learn(encoded, codes, seed=0)
    assert torch.allclose(quantizer.codebook, expected, atol=1e-4)  # as far as smoothed counts allow


def test_dead_codes_come_to_where_the_encoder_is() -> None:
    quantizer = VectorQuantizer(16, 2, restart=0.1)
    encoded = torch.randn(50, 2, 1, 1) + 30  # far from all vectors: one of them is nearest to everything
    used = set(quantizer.nearest(encoded).flatten().tolist())
    assert len(used) < 3
    quantizer.learn(encoded, quantizer.nearest(encoded), seed=5)
    assert len(quantizer.nearest(encoded).unique()) > 8
    rows = encoded.flatten(1)
    moved = [j for j in range(16) if j not in used]
    near = torch.cdist(quantizer.codebook[moved], rows).min(1).values
    assert near.max() < 1e-3
    again = VectorQuantizer(16, 2, restart=0.1)
    again.load_state_dict({name: torch.zeros_like(value) for name, value in quantizer.state_dict().items()})
    states = []
    for _ in range(2):  # the same seed, the same vectors
        again.load_state_dict(
            {**again.state_dict(), "counts": torch.zeros(16), "sums": torch.zeros(16, 2), "steps": torch.zeros(())}
        )
        again.codebook.zero_()
        again.learn(encoded, again.nearest(encoded), seed=7)
        states.append(again.codebook.clone())
    assert torch.equal(*states)


def test_codes_that_live_stay() -> None:
    quantizer = VectorQuantizer(2, 1, restart=0.5)
    quantizer.codebook.copy_(torch.tensor([[-1.0], [1.0]]))
    encoded = torch.tensor([-1.0, -1.0, 1.0, 1.0]).view(4, 1, 1, 1)
    for seed in range(5):
        quantizer.learn(encoded, quantizer.nearest(encoded), seed)
    assert torch.allclose(quantizer.codebook.flatten(), torch.tensor([-1.0, 1.0]), atol=1e-4)


@pytest.mark.parametrize("levels", [(3,), (2, 3), (8, 5, 5, 5), (4, 2, 7)])
def test_finite_scalars_count_all_their_vectors(levels: tuple[int, ...]) -> None:
    quantizer = FiniteScalar(levels)
    codes = torch.arange(quantizer.codes).view(-1, 1, 1, 1)
    vectors = quantizer.vectors(codes)
    assert vectors.shape == (math.prod(levels), len(levels), 1, 1) and vectors.abs().max() <= 1
    assert torch.equal(quantizer.nearest(vectors), codes)
    assert len({tuple(row) for row in vectors[:, :, 0, 0].tolist()}) == quantizer.codes
    line = torch.linspace(-9, 9, 901).view(-1, 1, 1, 1).expand(-1, len(levels), 1, 1)
    reached = quantizer.vectors(quantizer.nearest(quantizer.bounded(line)))
    assert [len(reached[:, i].unique()) for i in range(len(levels))] == list(levels)
    middle = quantizer.vectors(quantizer.nearest(quantizer.bounded(torch.full((1, len(levels), 1, 1), 1e-6))))
    assert all(value == 0 for size, value in zip(levels, middle.flatten().tolist(), strict=True) if size > 2)


def test_finite_scalars_round_to_the_nearest() -> None:
    quantizer = FiniteScalar((5, 4))
    encoded = torch.randn(30, 4, 1, 1) * 2
    bounded = quantizer.bounded(encoded)
    every = quantizer.vectors(torch.arange(20).view(-1, 1, 1, 1)).flatten(1)
    found = quantizer.nearest(bounded)
    apart = torch.cdist(bounded.view(-1, 2), every)
    assert torch.equal(apart.argmin(1).view(30, 2), found.flatten(1))


def test_perplexity() -> None:
    assert math.isclose(float(perplexity(torch.tensor([4, 2, 1, 1, 0]))), 3.3635857, rel_tol=1e-7)
    assert float(perplexity(torch.tensor([7, 0]))) == 1
