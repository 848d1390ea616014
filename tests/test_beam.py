"""Beam search: against enumeration, a plain reference, greedy walks and recomputation."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from tiny_chains import Chain, chain, every, sequences
from tiny_latents import awake
from torch import Tensor

from ancestral.core import Autoregressive, Context
from ancestral.families import Normal
from ancestral.latent.latent import Latent
from ancestral.sampling import beam_search, sample
from ancestral.sampling.beam import penalty
from ancestral.sampling.strategies import Recomputed, Rows
from ancestral.spec import DataSpec
from ancestral.symbols import DataError, lengths

BITS = DataSpec("image", (1, 3, 3), levels=2, classes=3)
COLOUR = DataSpec("image", (3, 2, 2), levels=2)
WORDS = DataSpec("vector", (5,), levels=3)
IMAGES = [("nade", BITS), ("gated-pixelcnn", COLOUR), ("row-lstm", BITS), ("made", WORDS), ("pixelcnn++", COLOUR)]


def recomputed(model: Autoregressive) -> Autoregressive:
    return Autoregressive(Recomputed(model.network), model.family, model.spec)


def best_of(model: Autoregressive, x: Tensor, alpha: float, many: int) -> tuple[Tensor, Tensor]:
    """The examples of the highest scores, and these, by comparing all."""
    sizes = (lengths(x, model.spec) + 1).clamp_max(x[0].numel()) if model.spec.end is not None else torch.full((len(x),), 1)
    score = model.log_prob(x) / ((5.0 + sizes) / 6) ** alpha
    order = score.argsort(descending=True)[:many]
    return x[order], score[order]


# Wide beams are exact


@pytest.mark.parametrize(("name", "spec"), IMAGES, ids=lambda each: each if isinstance(each, str) else "")
def test_a_wide_beam_finds_the_most_probable_examples(name: str, spec: DataSpec) -> None:
    model = awake(name, spec, 0.7).eval()
    x, score = best_of(model, every(spec), 0.0, 6)
    found = beam_search(model, spec.levels ** (spec.sites - 1), n_best=6)  # type: ignore[operator]
    assert torch.equal(found.x[0], x)
    assert torch.allclose(found.log_prob[0], score) and torch.equal(found.score, found.log_prob)


@pytest.mark.parametrize("seed", range(4))
@pytest.mark.parametrize("alpha", [0.0, 0.7, 2.5, -1.0])
def test_a_wide_beam_is_exact_where_examples_end(seed: int, alpha: float) -> None:
    model = chain(seed=seed, scale=1.5)
    x, score = best_of(model, sequences(model, 5), alpha, 4)
    found = beam_search(model, 4**4, n_best=4, length_penalty=alpha)
    assert torch.allclose(found.score[0], score)
    assert torch.equal(found.x[0], x)
    assert torch.allclose(found.log_prob[0], model.log_prob(x))


def test_the_search_of_a_latent_model_is_given_z() -> None:
    model = awake("agave", BITS, 0.7)
    assert isinstance(model, Latent)
    found = beam_search(model, 2**8, n=2, seed=4)
    z = Rows(model, 2, seed=4)
    for row, (_, seen) in enumerate(z.batches(1)):
        x = every(BITS)
        log_prob = model.likelihood.log_prob(x, seen and seen.repeat(len(x)))
        assert torch.equal(found.x[row, 0], x[log_prob.argmax()])
        assert torch.allclose(found.log_prob[row, 0], log_prob.max())


# Any width


def reference(model: Autoregressive, width: int, n_best: int, alpha: float, length: int) -> list[tuple[float, list[int]]]:
    """The definition in plain Python, that never stops early: (score, symbols) from the best on."""
    live: list[tuple[float, list[int]]] = [(0.0, [])]
    done: list[tuple[float, list[int]]] = []
    end = model.spec.end
    for place in range(length):
        candidates = []
        for nats, symbols in live:
            x = torch.tensor([symbols + [0] * (length - place)])
            log_pmf = model.network(x)[0, place].log_softmax(-1)
            candidates += [(nats + float(term), [*symbols, v]) for v, term in enumerate(log_pmf)]
        candidates.sort(key=lambda each: -each[0])
        last = place + 1 == length
        finished = [each for each in candidates[:width] if last or each[1][-1] == end]
        done += [(nats / penalty(place + 1, alpha), symbols) for nats, symbols in finished]
        live = [each for each in candidates if each[1][-1] != end][:width]
    return sorted(done, key=lambda each: -each[0])[:n_best]


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize(("width", "alpha"), [(1, 0.0), (2, 0.0), (3, 1.0), (5, 2.0), (7, -0.5)])
@pytest.mark.parametrize("ends", [True, False])
def test_narrow_beams_follow_the_definition(seed: int, width: int, alpha: float, ends: bool) -> None:
    model = chain(6, 4, seed, ends, 1.2)
    n_best = min(width, 3)
    expected = reference(model, width, n_best, alpha, 6)
    found = beam_search(model, width, n_best=n_best, length_penalty=alpha)
    assert torch.allclose(found.score[0], torch.tensor([score for score, _ in expected]))
    for x, (_, symbols) in zip(found.x[0].tolist(), expected, strict=True):
        assert x == symbols + [3] * (6 - len(symbols))


@pytest.mark.parametrize("seed", range(5))
def test_width_one_is_greedy(seed: int) -> None:
    for model in (chain(8, 5, seed), chain(8, 5, seed, ends=False)):
        assert torch.equal(beam_search(model, 1).x[0], sample(model, 1, temperature=0))


@pytest.mark.parametrize(("name", "spec"), IMAGES, ids=lambda each: each if isinstance(each, str) else "")
def test_width_one_is_greedy_for_images(name: str, spec: DataSpec) -> None:
    model = awake(name, spec, 0.7).eval()
    assert torch.equal(beam_search(model, 1).x[0], sample(model, 1, temperature=0))


def test_equals_are_ranked_by_their_lower_symbols() -> None:
    found = beam_search(chain(3, 3, ends=False, scale=0.0), 4, n_best=4)
    assert found.x[0].tolist() == [[0, 0, 0], [0, 0, 1], [0, 0, 2], [0, 1, 0]]


@pytest.mark.parametrize("width", [2, 5])
@pytest.mark.parametrize(("name", "spec"), IMAGES, ids=lambda each: each if isinstance(each, str) else "")
def test_cached_beams_are_those_of_recomputation(name: str, spec: DataSpec, width: int) -> None:
    """What a walk remembers follows its beam: elsewhere a cache that did not has given beams worse than greedy."""
    model = awake(name, spec, 1.0).eval()
    cached, again = beam_search(model, width, n_best=2), beam_search(recomputed(model), width, n_best=2)
    assert torch.equal(cached.x, again.x) and torch.allclose(cached.log_prob, again.log_prob)
    assert torch.allclose(cached.log_prob[0], model.log_prob(cached.x[0]))


def test_single_precision_and_the_native_engine() -> None:
    model = awake("gated-pixelcnn", COLOUR, 1.0).float()
    eager, native = (beam_search(model, 5, n_best=3, engine=engine) for engine in ("eager", "native"))
    assert torch.equal(eager.x, native.x) and torch.allclose(eager.log_prob, native.log_prob, atol=1e-4)


# Rows, prompts, lengths


def test_rows_do_not_depend_on_each_other() -> None:
    model = chain(7, 4, 3)
    prompts = torch.tensor([[0, 1], [2, 0], [1, 1], [2, 2], [0, 0]])
    together = beam_search(model, 3, n=5, n_best=2, prompt=prompts, length_penalty=1.0, batch_size=3)
    for row, prompt in enumerate(prompts):
        alone = beam_search(model, 3, n_best=2, prompt=prompt, length_penalty=1.0)
        assert torch.equal(alone.x[0], together.x[row]) and torch.allclose(alone.log_prob[0], together.log_prob[row])


@pytest.mark.parametrize("alpha", [0.0, 1.5])
def test_a_prompt_is_kept_and_not_counted(alpha: float) -> None:
    model, prompt = chain(5, 3, 1), [1, 0]
    x = sequences(model, 5)
    x = x[(x[:, :2] == torch.tensor(prompt)).all(1)]
    terms = model.conditionals(x).log_prob(x)
    sizes = (lengths(x, model.spec) + 1).clamp_max(5) - 2
    nats = torch.stack([row[2 : 2 + size].sum() for row, size in zip(terms, sizes.tolist(), strict=True)])
    score = nats / ((5.0 + sizes) / 6) ** alpha
    found = beam_search(model, 3**4, prompt=prompt, length_penalty=alpha)
    assert torch.equal(found.x[0, 0], x[score.argmax()])
    assert torch.allclose(found.log_prob[0, 0], nats[score.argmax()])


def test_labels_and_lengths() -> None:
    model = chain(4, 4, 2)
    found = beam_search(model, 4**5, n=3, labels=[0, 1, 2], length=6)
    x = sequences(model, 6)
    for label in range(3):
        log_prob = model.log_prob(x, Context(vector=torch.eye(3)[[label]].expand(len(x), 3)))
        assert torch.equal(found.x[label, 0], x[log_prob.argmax()])


def test_the_search_stops_when_nothing_live_can_win() -> None:
    model = chain(200, 4, 0)
    assert isinstance(model.network, Chain)
    model.network.table[..., 3] += 4.0  # ends soon
    found = beam_search(model, 4, n_best=2)
    assert model.network.calls < 60
    long = chain(12, 4, 0)
    assert isinstance(long.network, Chain)
    long.network.table[..., 3] += 4.0
    assert torch.equal(found.x[0, :, :12], beam_search(long, 4, n_best=2).x[0])
    told: list[tuple[int, int]] = []
    beam_search(chain(6), 2, progress=lambda *numbers: told.append(numbers))
    assert told == sorted(told)


def test_there_may_be_fewer_examples_than_wanted() -> None:
    model = chain(2, 2, 0, ends=False)
    found = beam_search(model, 9, n_best=9)
    assert found.x.shape == (1, 4, 2) and torch.allclose(found.log_prob.exp().sum(), torch.tensor(1.0))


@pytest.mark.parametrize(
    ("options", "error", "words"),
    [
        ({"width": 0}, ValueError, "width 0"),
        ({"width": 2, "n_best": 3}, ValueError, "n_best is 3"),
        ({"width": 2, "n": 0}, ValueError, "n is 0"),
        ({"width": 2.0}, ValueError, "width is 2.0; it must be a whole number"),
        ({"width": 2, "length_penalty": float("nan")}, ValueError, "length_penalty is nan"),
        ({"width": 2, "length_penalty": 2000.0}, ValueError, "an exponent from -10 to 10"),
        ({"width": 2, "prompt": [0, 1, 0, 1, 0]}, DataError, "nothing to search"),
        ({"width": 2, "prompt": [3]}, DataError, "symbol that ends"),
        ({"width": 2, "prompt": [[0], [1]]}, DataError, r"\(1, k\)"),
    ],
)
def test_what_cannot_be_searched_is_refused(options: dict[str, Any], error: type[Exception], words: str) -> None:
    with pytest.raises(error, match=words):
        beam_search(chain(), **options)


def test_real_values_have_no_beam() -> None:
    real = Autoregressive(Chain(5, 4, 0, discrete=False), Normal(), DataSpec("vector", (5,)))
    with pytest.raises(DataError, match="density"):
        beam_search(real, 2)


def test_greedy_rows_of_a_batch_are_those_of_sampling() -> None:
    model = awake("gated-pixelcnn", BITS, 0.8, conditional=True)
    greedy = sample(model, 3, labels=[0, 1, 2], temperature=0)
    assert torch.equal(beam_search(model, 1, n=3, labels=[0, 1, 2]).x[:, 0], greedy)
