"""Speculative sampling: the law of the model whatever the draft, one sample for one seed and row, and what was gained."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
import scipy.stats
import torch
from tiny_chains import Chain, chain, every, independent, sequences
from tiny_latents import awake
from torch import Tensor

from ancestral.core import Autoregressive, Context, Network, State
from ancestral.draw import Draw, inverse_cdf, uniforms
from ancestral.families import Normal
from ancestral.objectives import label_context
from ancestral.sampling import arrange, log_probs, sample, speculative_sample
from ancestral.sampling.speculative import ACCEPT, REPLACE, judge
from ancestral.spec import DataSpec
from ancestral.symbols import DataError, ended

BITS = DataSpec("image", (1, 3, 3), levels=2, classes=3)
COLOUR = DataSpec("image", (3, 2, 2), levels=2)
P, Q = torch.tensor([0.5, 0.3, 0.2]), torch.tensor([0.2, 0.5, 0.3])


def chi_square(found: Tensor, x: Tensor, probability: Tensor) -> float:
    """How likely such counts are among rows that are drawn from (m, *shape) x with these probabilities; rare ones are pooled."""
    places = {tuple(row): i for i, row in enumerate(x.flatten(1).tolist())}
    counts = torch.bincount(torch.tensor([places[tuple(row)] for row in found.flatten(1).tolist()]), minlength=len(x)).double()
    expected = probability * len(found)
    assert (counts[expected == 0] == 0).all()
    rare = expected < 5
    pairs = [torch.cat([part[~rare], part[rare].sum()[None]]) for part in (counts, expected)]
    kept = pairs[1] > 0
    return float(scipy.stats.chisquare(pairs[0][kept].numpy(), pairs[1][kept].numpy()).pvalue)


# One symbol


def test_a_judged_symbol_follows_the_model() -> None:
    """q min(1, p / q) + (1 - alpha) residual = p, over a grid of uniforms that stands for all of them."""
    grid = (torch.arange(400) + 0.5) / 400
    u, again = (part.flatten() for part in torch.meshgrid(grid, grid, indexing="ij"))
    law, kept = torch.zeros(3), 0.0
    for proposed in range(3):
        symbols, accepted = judge(P.expand(len(u), 3), Q.expand(len(u), 3), torch.full((len(u),), proposed), u, again)
        law += Q[proposed] * torch.bincount(symbols, minlength=3) / len(u)
        kept += float(Q[proposed] * accepted.double().mean())
        assert (symbols[~accepted] == 0).all()  # the residual is (1, 0, 0)
    assert torch.allclose(law, P, atol=2e-3) and kept == pytest.approx(0.7, abs=2e-3)


def test_what_the_draft_cannot_tell_from_the_model_is_always_kept() -> None:
    u = torch.tensor([1 - 2.0**-53])
    symbols, accepted = judge(P[None], P[None], torch.tensor([1]), u, u)
    assert symbols.item() == 1 and accepted.item()
    assert judge(P[None], P[None] * (1 + 1e-15), torch.tensor([1]), u, u)[0].item() == 2  # rejected, with nothing in p - q
    never = torch.tensor([[0.0, 1.0, 0.0]])  # a proposal of probability 0 under both laws gives way
    assert judge(never, never, torch.tensor([2]), u, u)[0].item() == 1


@pytest.mark.parametrize("gamma", [1, 4])
def test_a_pass_gains_the_known_number_of_symbols(gamma: int) -> None:
    """(1 - alpha^(gamma + 1)) / (1 - alpha) of independent symbols, 2.7731 for gamma 4 and alpha 0.7."""
    model, draft = (independent(*each.tolist(), length=6000) for each in (P, Q))
    flat = [Autoregressive(Fixed(each.network), each.family, each.spec) for each in (model, draft)]
    drawn = speculative_sample(*flat, 1, gamma=gamma, seed=3)
    expected = (1 - 0.7 ** (gamma + 1)) / 0.3
    assert drawn.acceptance == pytest.approx(0.7, abs=0.03)
    assert drawn.symbols_per_call == pytest.approx(expected, abs=0.12)
    assert drawn.judged == 6000
    assert scipy.stats.chisquare(torch.bincount(drawn.x[0]).numpy(), (P * 6000).numpy()).pvalue > 1e-3


class Fixed(Network):
    """A chain that does not look back, whose steps cost nothing."""

    def __init__(self, network: Any) -> None:
        super().__init__(tuple(network.shape))
        self.row = network.table[0, 0]

    def forward(self, x: Tensor, context: Context | None = None) -> Tensor:
        return self.row.expand(*x.shape, -1)

    def start(self, n: int, context: Context | None = None, rollback: int = 0) -> tuple[Tensor, State]:
        return self.row.expand(n, -1), State({}, rollback)

    def step(self, state: State, symbol: Tensor) -> tuple[Tensor, State]:
        return self.row.expand(len(symbol), -1), state.successor(state.consume(), state.position + 1)


# Whole samples


def reference(model: Autoregressive, draft: Autoregressive, n: int, seed: int, options: dict[str, Any]) -> Tensor:
    """Site by site, one judgement each: what speculation must give, however it is cut into rounds."""
    sites = list(model.network.order.sites)
    x, draw = torch.zeros(n, len(sites), dtype=torch.long), Draw(seed, **options)
    u, again = (uniforms(seed, range(n), len(sites), which) for which in (ACCEPT, REPLACE))
    for site in sites:
        laws = []
        for each in (model, draft):
            conditional = each.walk(n).conditional
            parameters = each.network(x.view(n, *model.network.shape)).flatten(1, -2)[:, site]
            laws.append(type(conditional)(each.family, parameters))
        p, q = (draw.probability(law) for law in laws)
        x[:, site] = judge(p, q, draw(site, laws[1]), u[:, site], again[:, site])[0]
    return x.view(n, *model.network.shape)


PAIRS = {
    "images": ("gated-pixelcnn", "nade", BITS),
    "colours": ("gated-pixelcnn", "pixelcnn", COLOUR),
    "recurrent": ("row-lstm", "made", BITS),
    "vectors": ("made", "nade", DataSpec("vector", (5,), levels=4)),
}
OPTIONS: list[dict[str, Any]] = [{}, {"temperature": 0.6, "top_k": 3}, {"top_p": 0.8}, {"min_p": 0.3}, {"temperature": 0}]


@pytest.mark.parametrize("pair", PAIRS)
@pytest.mark.parametrize("options", OPTIONS, ids=str)
def test_rounds_and_batches_play_no_part(pair: str, options: dict[str, Any]) -> None:
    name, other, spec = PAIRS[pair]
    model, draft = awake(name, spec, 0.8).eval(), awake(other, spec, 0.8).eval()
    expected = reference(model, draft, 5, 2, options)
    for gamma, batch_size in ((1, 5), (3, 2), (20, 1)):
        drawn = speculative_sample(model, draft, 5, gamma=gamma, seed=2, batch_size=batch_size, **options)
        assert torch.equal(drawn.x, expected)
        assert drawn.judged == drawn.x.numel()  # every symbol is judged once
    assert torch.equal(speculative_sample(model, draft, 2, seed=2, first_row=3, **options).x, expected[3:])


@pytest.mark.parametrize(("pair", "options"), [("images", OPTIONS[0]), ("colours", OPTIONS[1]), ("vectors", OPTIONS[3])])
def test_samples_follow_the_model(pair: str, options: dict[str, Any]) -> None:
    name, other, spec = PAIRS[pair]
    model, draft = awake(name, spec, 0.8).eval(), awake(other, spec, 0.8).eval()
    x = every(spec)
    drawn = speculative_sample(model, draft, 4000, seed=1, batch_size=4000, **options)
    assert 0.1 < drawn.acceptance < 0.99
    assert chi_square(drawn.x, x, log_probs(model, x, batch_size=512, **options).altered.exp()) > 1e-3


def test_samples_that_end_follow_the_model() -> None:
    model, draft = chain(4, 3, 0), chain(4, 3, 1)
    x = sequences(model, 4)
    drawn = speculative_sample(model, draft, 4000, seed=1, batch_size=500)
    assert torch.equal(drawn.x, ended(drawn.x, model.spec))
    assert chi_square(drawn.x, x, model.log_prob(x).exp()) > 1e-3
    expected = ended(reference(arrange(model, shape=(4,)), draft, 40, 1, {}), model.spec)
    assert torch.equal(drawn.x[:40], expected)


def test_a_model_that_is_its_own_draft_samples_as_ever() -> None:
    for model in (awake("gated-pixelcnn", BITS, 0.8), chain(9, 4, 2)):
        drawn = speculative_sample(model, model, 6, gamma=30, seed=7, batch_size=4)
        assert torch.equal(drawn.x, sample(model, 6, seed=7))
        assert drawn.acceptance == 1 and drawn.calls == 6  # one pass a row
        assert drawn.symbols_per_call > 1


@pytest.mark.parametrize("seed", range(4))
def test_greedy_samples_are_the_modes_of_the_model(seed: int) -> None:
    model, draft = chain(12, 5, seed), chain(12, 5, seed + 10)
    assert torch.equal(speculative_sample(model, draft, 2, temperature=0).x, sample(model, 2, temperature=0))


def test_a_prompt_and_a_length() -> None:
    model, draft = chain(6, 4, 2), chain(5, 4, 3)
    prompts = torch.tensor([[0, 1, 1], [2, 0, 2]])
    drawn = speculative_sample(model, draft, 2, prompt=prompts, length=8, seed=3)
    assert drawn.x.shape == (2, 8) and torch.equal(drawn.x[:, :3], prompts)
    assert torch.equal(speculative_sample(model, model, 2, prompt=prompts, seed=3).x, sample(model, 2, prompt=prompts, seed=3))
    whole = speculative_sample(model, draft, 1, prompt=[0] * 6)
    assert whole.x.tolist() == [[0] * 6] and (whole.calls, whole.acceptance, whole.symbols_per_call) == (0, 0.0, 0.0)


def test_a_draft_takes_the_length_of_the_model() -> None:
    model, draft = chain(9, seed=1, ends=False), chain(6, ends=False)
    drawn = speculative_sample(model, draft, 4, seed=3)
    assert torch.equal(drawn.x, reference(model, arrange(draft, shape=(9,)), 4, 3, {}))


def test_labels_go_to_those_who_take_them() -> None:
    model = awake("gated-pixelcnn", BITS, 0.8, conditional=True)
    plain = awake("nade", BITS, 0.8)
    drawn = speculative_sample(model, plain, 3, labels=[0, 1, 2])
    told = label_context(torch.tensor([0, 1, 2]), BITS, model.anchor)
    assert torch.equal(speculative_sample(model, plain, 3, context=told).x, drawn.x)
    four = awake("gated-pixelcnn", replace(BITS, classes=4), 0.8, conditional=True)
    with pytest.raises(ValueError, match="knows 4 classes and the model 3"):
        speculative_sample(model, four, 3, labels=[0, 1, 2])
    assert speculative_sample(model, four, 3).x.shape == (3, 1, 3, 3)  # neither is told a label
    drawn = speculative_sample(model, model, 3, labels=[0, 1, 2], seed=5)
    assert torch.equal(drawn.x, sample(model, 3, labels=[0, 1, 2], seed=5)) and drawn.acceptance == 1


def test_features_go_to_those_who_follow_them() -> None:
    spec = DataSpec("audio", (8,), 4)
    model, draft = awake("wavenet", spec, 0.8, local=2, hop=4), awake("wavenet", spec, 0.8)
    features = Context(grid=torch.randn(3, 2, 2, 1))
    assert speculative_sample(model, draft, 3, context=features).acceptance < 1
    drawn = speculative_sample(model, model, 3, context=features, seed=5)
    assert torch.equal(drawn.x, sample(model, 3, context=features, seed=5)) and drawn.acceptance == 1


def test_latent_models_and_the_native_engine() -> None:
    model, draft = awake("agave", BITS, 0.8), awake("nade", BITS, 0.8)
    assert torch.equal(speculative_sample(model, model, 4, seed=5).x, sample(model, 4, seed=5))
    model, draft = awake("gated-pixelcnn", BITS, 0.8).float(), draft.float()
    eager, native = (speculative_sample(model, draft, 4, seed=5, engine=engine) for engine in ("eager", "native"))
    assert torch.equal(eager.x, native.x) and eager.judged == native.judged


def test_a_transformer_is_judged_in_one_pass_a_round() -> None:
    spec = DataSpec("text", (None,), 5, end=4)
    model, draft = awake("transformer", spec, 0.3).eval(), awake("wavenet", spec, 0.3).eval()
    drawn = speculative_sample(model, draft, 3, prompt=[0, 1, 2], length=12, seed=2, batch_size=1)
    assert drawn.x[:, :3].tolist() == [[0, 1, 2]] * 3
    own = speculative_sample(model, model, 3, prompt=[0, 1, 2], length=12, seed=2, gamma=11)
    assert torch.equal(own.x, sample(model, 3, prompt=[0, 1, 2], length=12, seed=2)) and own.calls == 3
    unprompted = speculative_sample(model, draft, 3, length=12, seed=2, batch_size=2)
    expected = reference(arrange(model, shape=(12,)), arrange(draft, shape=(12,)), 3, 2, {})
    assert torch.equal(unprompted.x, ended(expected, spec))


def test_progress_grows_to_the_whole() -> None:
    told: list[tuple[int, int]] = []
    speculative_sample(chain(ends=False), chain(seed=1, ends=False), 3, batch_size=2, progress=lambda *each: told.append(each))
    assert told == sorted(told) and told[-1] == (15, 15)


def test_what_does_not_fit_is_refused() -> None:
    model = chain(ends=False)
    for other, words in (
        (chain(5, 3, ends=False), "of levels 3 and the model of 4"),
        (chain(5), "of end 3 and the model of None"),
    ):
        with pytest.raises(ValueError, match=words):
            speculative_sample(model, other, 1)
    five, four = (awake("made", DataSpec("vector", (size,), levels=4), 0.5) for size in (5, 4))
    with pytest.raises(ValueError, match=r"of shape \(4,\) and the model of \(5,\).*length="):
        speculative_sample(five, four, 1)
    short = awake("transformer", DataSpec("text", (8,), 4), 0.5, context=8)
    with pytest.raises(ValueError, match=r"of shape \(8,\) and the model of \(12,\).*places='rotary'.*length="):
        speculative_sample(chain(12, ends=False), short, 1)
    turned = arrange(awake("gated-pixelcnn", BITS, 0.5), "columns")
    with pytest.raises(ValueError, match="another order"):
        speculative_sample(awake("nade", BITS, 0.5), turned, 1)
    with pytest.raises(ValueError, match="gamma is 0"):
        speculative_sample(model, model, 1, gamma=0)
    for wrong in ("gamma", "batch_size"):
        with pytest.raises(ValueError, match=f"{wrong} is 1.5; it must be a whole number"):
            speculative_sample(model, model, 1, **{wrong: 1.5})
    with pytest.raises(ValueError, match="n is 0"):
        speculative_sample(model, model, 0)
    real = Autoregressive(Chain(5, 4, 0, discrete=False), Normal(), DataSpec("vector", (5,)))
    with pytest.raises(DataError, match="density"):
        speculative_sample(real, real, 1)


def test_replacements_never_fall_outside_the_alphabet() -> None:
    p, q = torch.rand(500, 7).softmax(-1), torch.rand(500, 7).softmax(-1)
    u = torch.rand(500)
    symbols, kept = judge(p, q, inverse_cdf(q, torch.rand(500)), u, torch.full((500,), 1 - 2.0**-53))
    assert symbols.max() < 7 and not kept.all()
    assert ((p - q).gather(1, symbols[:, None])[~kept] > 0).all()
