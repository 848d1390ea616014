"""VQ-VAE: the model by enumeration, its two stages, figures, samples and completions."""

from __future__ import annotations

import math
from collections.abc import Callable
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from tiny_cli import Call
from tiny_codes import SMALL, model_of, symbols, topdown_of
from tiny_training import DIGITS, QUIET, CtrlC, same
from torch import Tensor

import ancestral
from ancestral.evaluation import evaluate
from ancestral.evaluation.codes import codes as probed
from ancestral.evaluation.examples import chosen_examples
from ancestral.evaluation.latents import Carried, Uses, verdict
from ancestral.evaluation.paired import costs
from ancestral.latent.codes import CodePrior
from ancestral.latent.topdown import Noise, mean
from ancestral.objectives import OBJECTIVES, Batch, code_prior, quantized
from ancestral.report import report
from ancestral.report.describe import describe
from ancestral.sampling.complete import complete
from ancestral.sampling.interpolate import interpolate, shift, traverse
from ancestral.sampling.proposals import Proposals, known_terms
from ancestral.sampling.sample import sample
from ancestral.training import Interrupted, fit, resume
from ancestral.training.folder import read_checkpoint

# The model


@torch.no_grad()
@pytest.mark.parametrize(("prior", "conditional"), [("gated-pixelcnn", True), ("transformer", False), ("uniform", False)])
def test_codes_and_symbols_are_a_distribution_and_the_bound_holds(prior: str, conditional: bool) -> None:
    model = model_of(SMALL, prior=prior, conditional=conditional)
    topdown = topdown_of(model)
    vector = torch.eye(3)[1:2] if conditional else None
    codes = torch.tensor(list(product(range(3), repeat=math.prod(topdown.shape)))).view(-1, *topdown.shape)
    context = None if vector is None else ancestral.Context(vector=vector.expand(len(codes), 3))
    log_p = topdown.prior.log_prob(codes, context)
    assert math.isclose(float(log_p.exp().sum()), 1, rel_tol=1e-12)
    x = torch.tensor(list(product(range(2), repeat=8))).view(-1, 1, 2, 4)
    joint = []
    for row, nats in zip(codes, log_p, strict=True):
        seen = None if vector is None else ancestral.Context(vector=vector.expand(len(x), 3))
        features = model.features({"codes": row.expand(len(x), *row.shape)}, seen)
        joint.append(nats + model.likelihood.log_prob(x, features))
    exact = torch.stack(joint).logsumexp(0)
    assert math.isclose(float(exact.exp().sum()), 1, rel_tol=1e-12)
    labels = None if vector is None else ancestral.Context(vector=vector.expand(len(x), 3))
    elbo = model.elbo(x, labels)
    assert (elbo.bound <= exact + 1e-12).all() and (elbo.bound < exact - 1e-6).any()
    at = (codes.flatten(1)[None] == model.encode(x, labels)["codes"].flatten(1)[:, None]).all(2).long().argmax(1)
    assert torch.allclose(elbo.bound, torch.stack(joint)[at, torch.arange(len(x))])  # codes and x given codes, no less


@torch.no_grad()
def test_codes_are_drawn_as_the_prior_says() -> None:
    prior = topdown_of(model_of(SMALL)).prior
    n = 4000
    group = CodePrior(prior, None, n)
    drawn = Noise(3, range(n))("codes", group, None)
    states = torch.tensor(list(product(range(3), repeat=2))).view(-1, 1, 1, 2)
    expected = n * prior.log_prob(states).exp()
    found = torch.stack([(drawn == state).flatten(1).all(1).sum() for state in states])
    assert float(((found - expected) ** 2 / expected).sum()) < 27.9  # the upper 0.05 % of eight degrees of freedom
    alone = Noise(3, [17])("codes", CodePrior(prior, None, 1), None)
    assert torch.equal(alone[0], drawn[17])


@torch.no_grad()
def test_temperature_makes_codes_greedy() -> None:
    prior = topdown_of(model_of()).prior
    group = CodePrior(prior, None, 5)
    greedy = prior.walk(5).run(ancestral.Draw(temperature=0))
    assert torch.equal(group.mean, greedy)
    assert torch.equal(Noise(0, range(5), temperature=0.0)("codes", group, None), greedy)
    warm, cool = (group.log_prob(Noise(0, range(5), temperature=t)("codes", group, None)).sum() for t in (1.0, 0.3))
    assert cool > warm


def test_samples_do_not_depend_on_the_batch_or_the_engine() -> None:
    model = model_of(prior="gated-pixelcnn")
    x = sample(model, 5, seed=2)
    assert torch.equal(x[3:4], sample(model, 1, seed=2, first_row=3))
    assert torch.equal(x, sample(model, 5, seed=2, method="recompute")) and torch.equal(x, sample(model, 5, seed=2, batch_size=2))
    assert torch.equal(sample(model.float(), 5, seed=2, engine="native"), sample(model, 5, seed=2, engine="eager"))


@pytest.mark.parametrize("quantizer", ["vq", "fsq"])
def test_numbers_that_are_no_codes_are_refused(quantizer: str) -> None:
    model = model_of(quantizer=quantizer, codes=6)
    z = torch.tensor([-1, 7, 0]).repeat(3).view(1, 1, 3, 3)
    with pytest.raises(ValueError, match=r"z\['codes'\] ranges over -1 \.\. 7; it takes whole numbers 0 \.\. 5"):
        model.decode(z)
    for wrong in (z.clamp(0, 5).double(), z > 0):
        with pytest.raises(ValueError, match=r"z\['codes'\] has type torch\.\w+; it takes whole numbers 0 \.\. 5: z\.long\(\)"):
            model.decode(wrong)
    assert torch.equal(model.decode(z.clamp(0, 5).to(torch.uint8)), model.decode(z.clamp(0, 5)))


@pytest.mark.parametrize(
    ("options", "what"),
    [
        ({"quantizer": "pq"}, "choose vq or fsq"),
        (
            {"prior": "made"},
            r"choose one of gated-pixelcnn, pixelcnn, pixelcnn\+\+, row-lstm, diagonal-bilstm, transformer, unif",
        ),
        ({"prior": "pixelcnn++", "depth": 2}, "one code a place, not depth=2; of more do gated-pixelcnn, pixelcnn, row-lstm"),
        ({"top_halvings": -1}, "coarser by at least 1"),
        ({"top_halvings": 1, "top_prior": "made"}, "there is no prior 'made' of codes"),
        ({"quantizer": "fsq", "scalars": "8,5"}, "such as 8x5x5x5"),
        ({"quantizer": "fsq", "scalars": "8x1"}, "needs at least 2"),
        ({"codes": 1}, "at least 2"),
        ({"codebook_decay": 1.0}, "below 1"),
        ({"prior_share": 2.0}, "a share of the steps, from 0 to 1"),
        ({"top_prior": "transformer"}, "'transformer', and there is no top: give top_halvings=1 or more"),
        ({"top_prior": "made"}, "'made', and there is no top"),
        ({"quantizer": "vq", "scalars": "abc"}, "scalars is 'abc'; write the levels of each number of a vector, such as 8x5x5x5"),
        ({"commitment": -1.0}, "commitment is -1.0; it must be at least 0"),
        ({"width": 0}, "width is 0; it must be at least 1"),
        ({"blocks": -1}, "blocks is -1; it must be at least 0"),
        ({"halvings": -1}, "halvings is -1; it must be at least 0"),
        ({"depth": 0}, "depth is 0; it must be at least 1"),
        ({"depth": 8}, r"prior_channels is 6; it must be at least 8, one for every code of a place \(depth\)"),
        ({"prior": "pixelcnn++", "prior_channels": 0}, "prior_channels is 0; it must be at least 1"),
        ({"prior": "transformer", "prior_layers": 0}, "prior_layers is 0; it must be at least 1"),
        ({"prior_share": 1.0, "prior": "uniform"}, "a uniform one learns nothing"),
    ],
)
def test_what_cannot_be_built_is_refused(options: dict[str, Any], what: str) -> None:
    with pytest.raises(ValueError, match=what):
        model_of(**options)
    with pytest.raises(ValueError, match="models images, and audio of a fixed length with one symbol a sample, not text"):
        ancestral.build("vq-vae", ancestral.DataSpec("text", (6,), levels=4))
    with pytest.raises(ValueError, match="read it in blocks"):
        ancestral.build("vq-vae", ancestral.DataSpec("audio", (None,), levels=257, end=256))
    with pytest.raises(ValueError, match="these are real values: read them without dequantize, or take vae"):
        ancestral.build("vq-vae", ancestral.DataSpec("image", (1, 8, 8)))


# Training


def test_the_encoder_learns_what_the_vectors_of_its_codes_would() -> None:
    model, x = model_of(), symbols()
    topdown = topdown_of(model)
    [(_, posterior)] = topdown.nearest(model.descend(x, mean).groups)
    vectors = topdown.quantizer.vectors(posterior.value).requires_grad_()
    cost = -model.likelihood.log_prob(x, model.descend(x, mean).features).sum()
    bounded = torch.autograd.grad(cost, list(topdown.encoder.parameters()), allow_unused=True)
    decoded = model.topdown.decoder(vectors, None)  # type: ignore[operator]
    (slope,) = torch.autograd.grad(-model.likelihood.log_prob(x, ancestral.Context(grid=decoded)).sum(), vectors)
    expected = torch.autograd.grad(posterior.bounded, list(topdown.encoder.parameters()), slope, allow_unused=True)
    assert all(torch.allclose(a, b) for a, b in zip(bounded, expected, strict=True) if a is not None and b is not None)
    assert any(gradient is not None and gradient.abs().max() > 0 for gradient in bounded)


@torch.no_grad()
def test_the_objective_is_the_sum_that_it_says() -> None:
    model, x = model_of(), symbols()
    terms = quantized(model, Batch(x), commitment=0.25)
    [(_, posterior)] = topdown_of(model).nearest(model.descend(x, mean).groups)
    vectors = topdown_of(model).quantizer.vectors(posterior.value)
    far = float((posterior.bounded - vectors).square().sum()) / len(x)  # summed over an example, as the distortion is
    assert math.isclose(float(terms["commitment"]), far)
    assert math.isclose(float(terms["loss"]), float(terms["distortion"]) + 0.25 * far)
    assert math.isclose(float(terms["rate"]), 9 * math.log(3))
    assert math.isclose(float(terms["distortion"]), float(model.elbo(x).distortion.mean()))


def test_only_training_moves_the_codebook() -> None:
    model, x = model_of(), symbols()
    book: Tensor = topdown_of(model).quantizer.codebook  # type: ignore[assignment]
    before = book.clone()
    quantized(model, Batch(x))
    model.train()
    code_prior(model, Batch(x))
    model.elbo(x)
    assert torch.equal(book, before)
    quantized(model, Batch(x))
    assert not torch.equal(book, before)


@pytest.mark.parametrize("quantizer", ["vq", "fsq"])
def test_each_stage_trains_its_part(quantizer: str) -> None:
    model = model_of(DIGITS.spec, quantizer=quantizer)
    assert [stage.name for stage in model.config.stages] == ["codes", "prior"]
    before = {name: value.clone() for name, value in model.state_dict().items()}
    run = fit(model, DIGITS, steps=6, **QUIET, ema=0.0)
    changed = {name for name, value in model.state_dict().items() if not torch.equal(value, before[name])}
    for part in ("topdown.encoder", "topdown.decoder", "topdown.prior"):
        assert any(name.startswith(part) for name in changed)
    rows = [row for row in run.history if row["split"] == "validation"]
    assert {row["stage"] for row in rows} == {"codes", "prior"} and all(row["status"] == "bound" for row in rows)


def test_a_prior_trains_on_the_codes_of_another_run() -> None:
    model = model_of(DIGITS.spec, prior_share=1.0)
    assert [stage.name for stage in model.config.stages] == ["prior"]
    assert [stage.name for stage in model_of(prior="uniform").config.stages] == ["codes"]
    before = {name: value.clone() for name, value in model.state_dict().items()}
    fit(model, DIGITS, steps=3, **QUIET)
    changed = {name for name, value in model.state_dict().items() if not torch.equal(value, before[name])}
    assert changed and all(name.startswith("topdown.prior.") for name in changed)


def test_another_prior_begins_with_the_codes_of_a_run(call: Call, tmp_path: Path) -> None:
    words = ("train", "vq-vae", "--data", "digits", "--preset", "tiny", "--limit", 40, "--steps", 3, "--no-progress")
    code, _, err = call(*words, "--prior", "uniform", "--out", tmp_path / "codes")
    assert code == 0, err
    parts = ("topdown.encoder", "topdown.quantizer", "topdown.decoder", "likelihood")
    start = ("--from", tmp_path / "codes", "--parts", *parts, "--prior-share", 1)
    code, _, err = call(*words, "--prior", "transformer", *start, "--out", tmp_path / "prior")
    assert code == 0, err
    one, two = (ancestral.load(tmp_path / name).state_dict() for name in ("codes", "prior"))
    assert all(torch.equal(value, two[name]) for name, value in one.items()) and len(two) > len(one)


@pytest.mark.parametrize(("objective", "at"), [("quantized", 3), ("code_prior", 2)])
def test_a_run_that_was_stopped_is_the_same_run(objective: str, at: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    settings: dict[str, Any] = {**QUIET, "steps": 8, "seed": 4, "data_options": {"limit": 40}}
    whole = fit(fresh(), "digits", tmp_path / "whole", **settings)
    with monkeypatch.context() as patch:
        patch.setitem(OBJECTIVES, objective, CtrlC(objective, at))
        with pytest.raises(Interrupted):
            fit(fresh(), "digits", tmp_path / "stopped", **settings)
    rest = resume(tmp_path / "stopped", progress=False)
    assert same(whole.model.state_dict(), rest.model.state_dict())
    states = [read_checkpoint(tmp_path / name)["model"] for name in ("whole", "stopped")]
    assert same(*states) and "topdown.quantizer.counts" in states[0]


def fresh() -> Any:
    torch.manual_seed(0)
    return ancestral.build("vq-vae", DIGITS.spec, preset="tiny")


def test_an_encoder_ahead_of_the_rest_is_refused() -> None:
    with pytest.raises(ValueError, match="x leaves no choice of z"):
        fit(fresh(), DIGITS, steps=4, aggressive=2, **QUIET)


# Figures


@pytest.mark.parametrize("quantizer", ["vq", "fsq"])
def test_no_examples_have_no_codes(quantizer: str) -> None:
    assert model_of(quantizer=quantizer).encode(symbols(0))["codes"].shape == (0, 1, 3, 3)


@torch.no_grad()
def test_figures_of_codes() -> None:
    model = model_of(DIGITS.spec)
    found, plain = (evaluate(model, DIGITS, importance_samples=k, limit=30) for k in (50, 0))
    assert found == plain and found.iwae is None and found.importance_samples is None
    assert found.active_units is None and found.mutual_information is None and found.status == "bound"
    chosen, _ = chosen_examples(model, DIGITS, "test", 30, 0)
    x = chosen.examples.select(chosen.places).x.long()
    codes, elbo = model.encode(x)["codes"], model.elbo(x)
    counts = [int((codes == j).sum()) for j in range(3)]
    assert found.code_uses == {"codes": counts} and found.codes_used == {"codes": sum(count > 0 for count in counts)}
    share = np.array([count for count in counts if count]) / sum(counts)
    assert math.isclose(found.perplexity["codes"], float(np.exp(-(share * np.log(share)).sum())))
    assert math.isclose(found.rate or 0, float(elbo.rate.mean())) and math.isclose(found.nats, -float(elbo.bound.mean()))
    assert "3 codes used, perplexity" in (found.verdict or "") and "importance samples have no meaning" in "\n".join(
        found.lines()
    )
    told = costs(model, chosen, 5, 10, 0, 8, lambda _: None)
    assert told.weighted is not None and told.weighted.mean() > 0


def test_one_code_for_all_is_a_collapse() -> None:
    uses = [Uses.of("codes", [99, 0, 1])]
    said = verdict(Carried(200.0, 30.0, 5.0, 0, 0, uses))
    assert said.startswith("collapsed: the encoder hardly chooses among the codes") and "2 of 3 codes used" in said
    assert "collapsed" not in verdict(Carried(200.0, 30.0, 5.0, 0, 0, [Uses.of("codes", [50, 0, 50])]))


def test_probes_read_vectors() -> None:
    model = model_of(DIGITS.spec)
    chosen, _ = chosen_examples(model, DIGITS, "test", 8, 0)
    found = probed(model, chosen, seed=0, batch_size=4, tick=lambda _: None)
    x = chosen.examples.select(chosen.places).x.long()
    expected = topdown_of(model).quantizer.vectors(model.encode(x)["codes"]).flatten(1)
    assert torch.equal(found.means["codes"], expected) and torch.equal(found.drawn["codes"], expected)


def test_a_description_tells_of_codes() -> None:
    lines = describe(model_of(depth=2, top_halvings=1, top_prior="uniform"))
    assert any(line.startswith("top") and "2 x 2 x 2 of 3" in line and line.endswith("uniform prior") for line in lines)
    assert any(line.startswith("codes") and "2 x 3 x 3 of 3, learned vectors of 2 numbers; prior sees" in line for line in lines)
    assert any(
        "finite scalars" in line and "uniform prior" in line for line in describe(model_of(quantizer="fsq", prior="uniform"))
    )


def test_a_report_shows_what_codes_have(tmp_path: Path) -> None:
    model = fresh()
    ancestral.save(model, tmp_path / "run")
    page = report(tmp_path / "run", DIGITS, samples=8, examples=2).read_text(encoding="utf-8")
    for words in ("Used codes", "Perplexity of codes", "How often every code is chosen", "the codes of x, and x given its codes"):
        assert words in page
    gone = ("Active units", "Mutual information", "spherical way", "One example with one unit", "importance-weighted")
    for words in (*gone, "z as drawn", "mean of the posterior"):
        assert words not in page


# Completion, and ways that there are not


@torch.no_grad()
def test_completion_keeps_what_is_known() -> None:
    model, x = model_of(), symbols(3)
    known = torch.zeros_like(x, dtype=torch.bool)
    known[:, :, :3] = True
    found = complete(model, x, known, seed=1)
    assert found.status == "approximate" and torch.equal(found.x[known], x[known])
    codes = model.encode(x)["codes"]
    some = torch.zeros_like(codes, dtype=torch.bool)
    some[:, :, 1:] = True
    drawn = complete(topdown_of(model).prior, codes, some, seed=1)
    assert torch.equal(drawn.x[some], codes[some])


@torch.no_grad()
def test_completion_follows_the_posterior_of_x() -> None:
    model = model_of(SMALL, spread=0.6)
    x = torch.zeros(1, 1, 2, 4, dtype=torch.long)
    known = torch.zeros_like(x, dtype=torch.bool)
    known[:, :, 0] = True
    states = torch.tensor(list(product(range(2), repeat=8))).view(-1, 1, 2, 4)
    states = states[(states[:, :, 0] == 0).flatten(1).all(1)]
    codes = torch.tensor(list(product(range(3), repeat=2))).view(-1, 1, 1, 2)
    log_p = topdown_of(model).prior.log_prob(codes)
    rows = [model.features({"codes": row.expand(len(states), 1, 1, 2)}) for row in codes]
    joint = torch.stack([nats + model.likelihood.log_prob(states, seen) for nats, seen in zip(log_p, rows, strict=True)])
    expected = joint.logsumexp(0).softmax(0)
    n = 300
    found = complete(model, x.expand(n, 1, 2, 4), known.expand(n, 1, 2, 4), seed=0, particles=32).x
    ones = (expected[:, None] * states.flatten(1)).sum(0)
    error = (ones * (1 - ones) / n).sqrt()
    assert ((found.flatten(1).double().mean(0) - ones).abs() <= 4.5 * error).all()


@torch.no_grad()
def test_the_guess_gives_one_particle_and_evidence_is_unbiased() -> None:
    model, x, n = model_of(SMALL, spread=0.6), symbols(1, SMALL), 400
    known = torch.zeros_like(x, dtype=torch.bool)
    known[:, :, 0] = True
    codes = torch.tensor(list(product(range(3), repeat=2))).view(-1, 1, 1, 2)
    prior = topdown_of(model).prior.log_prob(codes)
    seen = model.features({"codes": codes})
    exact = (prior + known_terms(model.likelihood, x.expand(9, 1, 2, 4), known.expand(9, 1, 2, 4), seen)).logsumexp(0)
    found = complete(model, x.expand(n, 1, 2, 4), known, seed=0, particles=8).log_evidence.sub(exact).exp()
    assert abs(found.mean() - 1) < 4.5 * found.std() / n**0.5

    wide = model_of(codes=64, spread=0.05)
    rows = symbols(3)
    _, z, _ = Proposals(wide, rows, torch.ones_like(rows, dtype=torch.bool), None, 0, range(3), 8).near(rows)
    same = (z["codes"].view(3, 8, -1) == wide.encode(rows)["codes"].view(3, 1, -1)).all(2)
    assert same.sum(1).tolist() == [1, 1, 1] and len(z["codes"].unique(dim=0)) == 24


def test_there_is_nothing_between_codes() -> None:
    model, x = model_of(), symbols(2)
    ways: list[Callable[[], Tensor]] = [
        lambda: interpolate(model, x, x),
        lambda: traverse(model, x, 0, [1.0], group="codes"),
        lambda: shift(model, x, {}, [1.0]),
    ]
    for way in ways:
        with pytest.raises(ValueError, match="codes, with nothing in between"):
            way()
