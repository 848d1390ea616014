"""Ways to draw: min-p, what samples weigh, prompts, ends and streams."""

from __future__ import annotations

import math
import sys
from typing import Any

import pytest
import torch
from tiny_chains import Chain, chain, every, sequences
from tiny_latents import awake
from torch import Tensor

from ancestral.core import Autoregressive, Conditional, OrderError
from ancestral.draw import Draw, tempered, truncated
from ancestral.families import Categorical, Logistic, LogisticMixture, Normal
from ancestral.sampling import complete, log_probs, parallel_sample, sample, stream
from ancestral.sampling.sample import METHODS
from ancestral.sampling.strategies import Rows
from ancestral.spec import DataSpec
from ancestral.symbols import DataError, ended, lengths

BITS = DataSpec("image", (1, 3, 3), levels=2, classes=3)
COLOUR = DataSpec("image", (3, 2, 2), levels=2)
WORDS = DataSpec("vector", (5,), levels=4)
SOME = torch.tensor([0.6, 0.25, 0.1, 0.05])
OPTIONS: list[dict[str, Any]] = [
    {},
    {"temperature": 0.5},
    {"temperature": 2.0, "top_k": 2},
    {"top_p": 0.7},
    {"min_p": 0.4},
    {"temperature": 1.5, "top_k": 3, "top_p": 0.9, "min_p": 0.3},
    {"temperature": 0},
]


# Definitions


@pytest.mark.parametrize(
    ("min_p", "kept"),
    [(0.0, 4), (1e-9, 4), (0.05 / 0.6, 4), (0.1, 3), (0.1 / 0.6, 3), (0.3, 2), (0.25 / 0.6, 2), (0.5, 1), (1.0, 1)],
)
def test_min_p_keeps_what_is_not_much_rarer_than_the_largest(min_p: float, kept: int) -> None:
    expected = SOME.where(torch.arange(4) < kept, 0.0)
    assert torch.allclose(truncated(SOME, min_p=min_p), expected / expected.sum(), atol=1e-15)


def test_min_p_keeps_all_of_the_largest() -> None:
    assert torch.allclose(truncated(torch.tensor([0.4, 0.2, 0.4]), min_p=1.0), torch.tensor([0.5, 0.0, 0.5]))


def test_min_p_follows_the_temperature_and_the_cuts() -> None:
    """Of (0.6, 0.25, 0.1, 0.05) at T = 0.5 the second is (0.25 / 0.6)^2 = 0.17 times the first; at T = 1 it is 0.42 times."""
    assert (truncated(tempered(SOME.log(), 0.5), min_p=0.2) > 0).sum() == 1
    assert (truncated(tempered(SOME.log(), 1.0), min_p=0.2) > 0).sum() == 2
    assert torch.allclose(truncated(SOME, top_k=3, top_p=0.99, min_p=0.2), truncated(truncated(SOME, 3, 0.99), min_p=0.2))
    assert torch.equal(truncated(SOME, top_k=1, min_p=0.01) > 0, torch.arange(4) < 1)


def test_what_keeps_everything_changes_nothing() -> None:
    law = Conditional(Categorical(4), SOME.log())
    for options in ({"top_k": 4}, {"top_k": 99}, {"top_p": 1.0}, {"min_p": 0.0}, {"min_p": 1e-12}):
        assert torch.allclose(Draw(**options).probability(law), SOME, atol=1e-15)
    assert Draw(min_p=0.0).plain and not Draw(min_p=0.1).plain


def test_corner_cases_of_ties_and_temperatures() -> None:
    ties = Conditional(Categorical(4), torch.tensor([0.1, 0.35, 0.2, 0.35]).log())
    assert Draw(temperature=0).probability(ties).tolist() == [0, 1, 0, 0]  # the lowest of equals
    assert torch.equal(Draw(top_k=1).probability(ties), Draw(temperature=0).probability(ties))  # exactly one of equals
    hole = Conditional(Categorical(3), torch.tensor([0.5, 0.0, 0.5]).log())
    for hot in (1e9, math.inf):
        assert Draw(temperature=hot).probability(hole).tolist() == pytest.approx([0.5, 0, 0.5])  # even, over the support


@pytest.mark.parametrize("min_p", [-0.1, 1.1, math.nan])
def test_min_p_has_a_range(min_p: float) -> None:
    with pytest.raises(ValueError, match=r"min_p is .*\[0, 1\]"):
        Draw(min_p=min_p)


@pytest.mark.parametrize("family", [Logistic(256), LogisticMixture(256, 3)])
@pytest.mark.parametrize("options", OPTIONS[1:6], ids=str)
def test_mixtures_are_cut_on_their_exact_probabilities(family: Any, options: dict[str, Any]) -> None:
    rows = torch.randn(4, family.size)
    pmf = family.log_pmf(rows).exp()
    powered = pmf ** (1 / options.get("temperature", 1.0))
    cut = {name: value for name, value in options.items() if name != "temperature"}
    expected = truncated(powered / powered.sum(-1, keepdim=True), **cut)
    found = Draw(**options).probability(Conditional(family, rows.float()))
    assert torch.allclose(found, expected / expected.sum(-1, keepdim=True), atol=1e-4)


@pytest.mark.parametrize(("name", "spec"), [("gated-pixelcnn", COLOUR), ("agave", BITS), ("nade", WORDS)])
def test_methods_agree_on_min_p(name: str, spec: DataSpec) -> None:
    model = awake(name, spec, 0.8)
    draws = [
        sample(model, 5, seed=4, method=method, min_p=0.3, temperature=1.5) for method in ("cached", "recompute", "parallel")
    ]
    assert torch.equal(draws[0], draws[1]) and torch.equal(draws[0], draws[2])
    assert torch.equal(parallel_sample(model, 5, seed=4, min_p=0.3, temperature=1.5).x, draws[0])
    assert not torch.equal(draws[0], sample(model, 5, seed=4, temperature=1.5))


# What samples weigh


@pytest.mark.parametrize("options", OPTIONS, ids=str)
@pytest.mark.parametrize(("name", "spec"), [("gated-pixelcnn", COLOUR), ("nade", WORDS)])
def test_altered_probabilities_sum_to_one(name: str, spec: DataSpec, options: dict[str, Any]) -> None:
    model, x = awake(name, spec, 0.8).eval(), every(spec)
    found = log_probs(model, x, batch_size=300, **options)
    assert torch.allclose(found.model, model.log_prob(x))
    assert found.altered.exp().sum().item() == pytest.approx(1, abs=1e-10)
    drawn = sample(model, 20, seed=1, **options)
    assert log_probs(model, drawn, **options).altered.isfinite().all()
    if not options:
        assert torch.equal(found.altered, found.model)


@pytest.mark.parametrize("options", OPTIONS, ids=str)
def test_altered_probabilities_of_what_ends_sum_to_one(options: dict[str, Any]) -> None:
    model = chain(4, 4, 0)
    x = sequences(model, 4)
    found = log_probs(model, x, batch_size=300, **options)
    assert torch.allclose(found.model, model.log_prob(x))
    assert found.altered.exp().sum().item() == pytest.approx(1, abs=1e-10)


def test_what_is_altered_is_the_law_of_every_site() -> None:
    model, x = chain(3, 4, 1, ends=False), torch.tensor([[2, 0, 3]])
    logits = model.network(x)[0]
    expected = 0.0
    for place, symbol in enumerate(x[0].tolist()):
        probability = (logits[place] / 0.7).softmax(-1)
        two = probability.sort(descending=True).values[:2]
        expected += math.log(probability[symbol] / two.sum()) if probability[symbol] >= two[1] else -math.inf
    assert log_probs(model, x, temperature=0.7, top_k=2).altered.item() == pytest.approx(expected)


def test_guided_probabilities_sum_to_one() -> None:
    model = awake("gated-pixelcnn", BITS, 0.8, conditional=True)
    x = every(BITS)
    labels = [1] * len(x)
    found = log_probs(model, x, labels=labels, guidance=1.5, temperature=0.8, batch_size=512)
    assert found.altered.exp().sum().item() == pytest.approx(1, abs=1e-10)
    assert found.model.exp().sum().item() == pytest.approx(1, abs=1e-10)
    assert not torch.allclose(found.model, found.altered)
    plain = log_probs(model, x, labels=labels, batch_size=512)
    assert torch.allclose(plain.model, found.model)
    with pytest.raises(ValueError, match="labels"):
        log_probs(model, x, guidance=1.0)


def test_a_latent_model_is_given_the_z_of_the_samples() -> None:
    model = awake("agave", BITS, 0.8)
    x = sample(model, 3, seed=5, first_row=2)
    found = log_probs(model, x, seed=5, first_row=2, batch_size=2)
    (_, seen), *_ = Rows(model, 3, seed=5, first_row=2).batches(3)
    assert torch.allclose(found.model, model.likelihood.log_prob(x, seen))
    assert not torch.allclose(found.model, log_probs(model, x, seed=6, first_row=2).model)


def test_a_prompt_weighs_nothing() -> None:
    model = chain(6, 4, 1, ends=False)
    x = sample(model, 3, prompt=[0, 1], top_k=2)
    found, terms = log_probs(model, x, prompt=[0, 1]), model.conditionals(x).log_prob(x)
    assert torch.allclose(found.model, terms[:, 2:].sum(1))
    assert log_probs(model, x, prompt=[0, 1], top_k=2).altered.isfinite().all()


def test_densities_are_weighed_as_they_are() -> None:
    model = awake("rnade", DataSpec("vector", (4,)), 0.5)
    x = sample(model, 3)
    found = log_probs(model, x)
    assert torch.allclose(found.model, model.log_prob(x).double()) and torch.equal(found.model, found.altered)
    with pytest.raises(DataError, match="density"):
        log_probs(model, x, temperature=0.5)
    with pytest.raises(DataError, match="not"):
        log_probs(model, x[:, :2])


def test_single_precision_is_summed_in_double() -> None:
    model = awake("gated-pixelcnn", COLOUR, 0.8)
    x = sample(model, 3)
    wide, narrow = log_probs(model, x, top_p=0.9), log_probs(model.float(), x, top_p=0.9)
    assert narrow.model.dtype == narrow.altered.dtype == torch.float64
    assert torch.allclose(wide.altered, narrow.altered, atol=1e-4) and torch.allclose(wide.model, narrow.model, atol=1e-4)


# Prompts


@pytest.mark.parametrize("method", ["cached", "recompute", "parallel"])
def test_samples_begin_with_their_prompts(method: str) -> None:
    model = chain(8, 4, 1, ends=False)
    prompts = torch.tensor([[0, 1, 3], [2, 2, 2], [1, 0, 0]])
    found = sample(model, 3, prompt=prompts, seed=3, method=method)
    assert torch.equal(found[:, :3], prompts)
    expected = complete(model, torch.nn.functional.pad(prompts, (0, 5)), torch.arange(8) < 3, seed=3)
    assert torch.equal(found, expected.x) and expected.status == "exact"
    assert torch.equal(sample(model, 3, prompt=[], seed=3, method=method), sample(model, 3, seed=3, method=method))
    same = sample(model, 3, prompt=[0, 1, 3], seed=3, method=method)
    assert torch.equal(same[0], found[0]) and same[:, :3].tolist() == [[0, 1, 3]] * 3


def test_prompts_of_images_follow_the_order() -> None:
    model = awake("gated-pixelcnn", COLOUR, 0.8)
    found = sample(model, 2, prompt=[1, 0, 1, 1], seed=2)  # the colours of the first pixel, and red of the second
    assert found[0, :, 0, 0].tolist() == [1, 0, 1] and found[:, 0, 0, 1].tolist() == [1, 1]
    guided = awake("gated-pixelcnn", BITS, 0.8, conditional=True)
    assert sample(guided, 2, prompt=[1, 1, 0], labels=[0, 1], guidance=1.0)[:, 0, 0].tolist() == [[1, 1, 0]] * 2


def test_a_whole_prompt_is_the_sample() -> None:
    assert sample(chain(3, ends=False), 2, prompt=[0, 3, 1]).tolist() == [[0, 3, 1]] * 2
    assert list(stream(chain(3, ends=False), prompt=[0, 3, 1])) == []


@pytest.mark.parametrize("pieces", [1, 2, 100])
def test_long_prompts_are_absorbed_in_pieces(pieces: int, monkeypatch: pytest.MonkeyPatch) -> None:
    expected = sample(chain(8, 4, 1), 3, prompt=[0, 1, 2, 1, 0], seed=1)
    monkeypatch.setattr(sys.modules[stream.__module__], "PIECE", pieces)
    assert torch.equal(sample(chain(8, 4, 1), 3, prompt=[0, 1, 2, 1, 0], seed=1), expected)


@pytest.mark.parametrize(
    ("prompt", "words"),
    [([4], "range"), ([[0], [1], [2]], "k"), ([3], "ends an example"), ([0] * 6, "at most 5"), ([0.5], "type")],
)
def test_prompts_that_do_not_fit_are_refused(prompt: Any, words: str) -> None:
    with pytest.raises(DataError, match=words):
        sample(chain(), 2, prompt=prompt)


# Examples that end


@pytest.mark.parametrize("method", METHODS[:3])
def test_after_the_end_there_is_nothing_else(method: str) -> None:
    model = chain(7, 4, 2)
    found = sample(model, 40, seed=1, method=method)
    assert torch.equal(found, ended(found, model.spec))
    assert len(lengths(found, model.spec).unique()) > 4
    assert torch.equal(found, sample(model, 40, seed=1))
    assert torch.equal(sample(model, 9, seed=1, first_row=31, batch_size=2, method=method), found[31:])


def test_samples_that_end_follow_the_model() -> None:
    model = chain(3, 4, 2)
    x = sequences(model, 3)
    found = sample(model, 6000, seed=1, batch_size=6000)
    counts = (found.unsqueeze(1) == x).all(2).sum(0)
    assert counts.sum() == 6000
    expected = model.log_prob(x).exp() * 6000
    assert ((counts - expected).abs() < 5 * (expected + 1).sqrt()).all()


def test_walks_stop_when_all_rows_have_ended() -> None:
    model = chain(300, 4, 2)
    assert isinstance(model.network, Chain)
    model.network.table[..., 3] += 2.0
    told: list[tuple[int, int]] = []
    found = sample(model, 3, progress=lambda *each: told.append(each))
    longest = int(lengths(found, model.spec).max())
    assert model.network.calls <= longest + 2 < 100
    assert told[-1] == (900, 900) and told == sorted(told)
    assert found.shape == (3, 300) and (found[:, longest:] == 3).all()


def test_the_native_engine_stops_where_eager_walks_do() -> None:
    spec = DataSpec("text", (None,), 4, end=3)
    model = awake("wavenet", spec, 0.5).float()
    told: list[tuple[int, int]] = []
    native = sample(model, 3, seed=2, length=200, engine="native", progress=lambda *each: told.append(each))
    assert torch.equal(native, sample(model, 3, seed=2, length=200, engine="eager"))
    longest = int(lengths(native, spec).max())
    assert len(told) <= longest + 2 < 100 and told[-1] == (600, 600)
    prompted = sample(model, 3, seed=2, length=50, prompt=[0, 1, 2], engine="native")
    assert torch.equal(prompted, sample(model, 3, seed=2, length=50, prompt=[0, 1, 2], engine="eager"))


def test_any_length_may_be_asked_for() -> None:
    model = chain(5, 4, 3)
    short, long = sample(model, 6, seed=2, length=3), sample(model, 6, seed=2, length=11)
    assert short.shape == (6, 3) and long.shape == (6, 11)
    assert torch.equal(long[:, :3], short)
    assert torch.equal(sample(model, 6, seed=2, shape=(11,)), long)
    assert torch.equal(sample(model, 6, seed=2)[:, :3], short)
    with pytest.raises(ValueError, match="both given"):
        sample(model, 1, length=3, shape=(3,))
    with pytest.raises(OrderError):
        sample(awake("nade", WORDS, 0.1), 1, length=3)


def test_only_beginnings_of_what_ends_can_be_known() -> None:
    model, x = chain(5, 4, 3), torch.tensor([[0, 2, 3, 3, 3, 3], [1, 1, 0, 0, 0, 0]])
    known = torch.arange(6) < torch.tensor([[3], [2]])
    found = complete(model, x, known, seed=1)
    assert found.status == "exact" and found.x[0].tolist() == [0, 2, 3, 3, 3, 3] and found.x[1, :2].tolist() == [1, 1]
    terms = model.conditionals(found.x).log_prob(found.x)
    assert torch.allclose(found.log_evidence, torch.stack([terms[0, :3].sum(), terms[1, :2].sum()]))
    with pytest.raises(DataError, match="begin with"):
        complete(model, x, ~known)


# Streams


@pytest.mark.parametrize("options", OPTIONS, ids=str)
def test_streams_are_samples(options: dict[str, Any]) -> None:
    for model, more in ((awake("gated-pixelcnn", COLOUR, 0.8), {}), (chain(7, 4, 2), {"prompt": [1, 0], "length": 9})):
        whole = sample(model, 3, seed=4, first_row=1, **options, **more)  # type: ignore[arg-type]
        x = torch.full_like(whole, -1).flatten(1)
        x[:, : len(more.get("prompt", ()))] = torch.tensor(more.get("prompt", ()))  # type: ignore[arg-type, call-overload]
        for site, symbols in stream(model, 3, seed=4, first_row=1, **options, **more):  # type: ignore[arg-type]
            assert (x[:, site] == -1).all()
            x[:, site] = symbols
        assert torch.equal(x.where(x >= 0, 3).view_as(whole), whole)


def test_streams_leave_nothing_behind() -> None:
    model = awake("pixelcnn++", COLOUR, 0.5).train()
    steps = stream(model)
    for _ in range(3):
        next(steps)
        assert model.training and torch.is_grad_enabled()
    steps.close()  # type: ignore[attr-defined]
    assert model.training and torch.is_grad_enabled()


def test_streams_of_latents_labels_and_engines() -> None:
    model = awake("agave", BITS, 0.8)
    drawn = torch.stack([symbols for _, symbols in stream(model, 2, seed=3)], 1)
    assert torch.equal(drawn.view(2, 1, 3, 3), sample(model, 2, seed=3))
    labelled = awake("gated-pixelcnn", BITS, 0.8, conditional=True).float()
    expected = sample(labelled, 2, seed=3, labels=[0, 2])
    for engine in ("eager", "native"):
        drawn = torch.stack([symbols for _, symbols in stream(labelled, 2, seed=3, labels=[0, 2], engine=engine)], 1)
        assert torch.equal(drawn.view(2, 1, 3, 3), expected)
    with pytest.raises(ValueError, match="n is 0"):
        next(stream(model, 0))


def test_real_values_can_be_prompted() -> None:
    model = awake("rnade", DataSpec("vector", (4,)), 0.5)
    prompt = torch.tensor([0.5, -1.25])
    found = sample(model, 2, prompt=prompt)
    assert torch.equal(found[:, :2], prompt.expand(2, 2)) and found.isfinite().all()


def test_a_network_of_ones_own_needs_no_sizes() -> None:
    """Where a network cannot be arranged its own length is taken."""

    class Still(Chain):
        def arrange(self, order: Any = None, shape: Any = None) -> Any:
            raise OrderError("it has one length")

    model = chain(4, 3, 1)
    still = Autoregressive(Still(4, 3, 1), model.family, model.spec)
    assert torch.equal(sample(still, 3, seed=1), sample(model, 3, seed=1))
    real = Autoregressive(Chain(4, 3, 1, discrete=False), Normal(), DataSpec("vector", (4,)))
    with pytest.raises(DataError):
        Draw(top_k=2).probability(Conditional(real.family, Tensor([[0.0, 1.0]])))
