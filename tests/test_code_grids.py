"""VQ-VAE-2: two grids of codes, the coarser first, against the same written out by hand."""

from __future__ import annotations

import math
import re
from itertools import product
from pathlib import Path
from typing import Any

import pytest
import torch
from tiny_cli import Call
from tiny_codes import SMALL, model_of, symbols, topdown_of
from tiny_training import DIGITS, QUIET, CtrlC, same
from torch import Tensor

import ancestral
from ancestral.coding.codec import Opened
from ancestral.coding.container import CODED
from ancestral.coding.lossy import lossy, previews
from ancestral.coding.reader import Reader
from ancestral.coding.schemes import LATENTS
from ancestral.coding.two_part import decode, encode
from ancestral.core import Autoregressive
from ancestral.evaluation import evaluate
from ancestral.evaluation.latents import Carried, Uses, verdict
from ancestral.latent.code_grids import Top
from ancestral.latent.code_priors import PRIORS
from ancestral.latent.latent import Latent
from ancestral.latent.topdown import given, mean
from ancestral.objectives import OBJECTIVES, Batch, code_prior, quantized
from ancestral.sampling.complete import complete
from ancestral.sampling.sample import sample
from ancestral.spec import DataSpec
from ancestral.training import Interrupted, fit, resume
from ancestral.walking.exact.generator import ExactGenerator
from ancestral.walking.twin import restored, twin


def two(spec: DataSpec | None = None, **options: Any) -> Latent:
    return model_of(*[] if spec is None else [spec], **{"top_halvings": 1, **options})


def top_of(model: Latent) -> Top:
    top = topdown_of(model).top
    assert top is not None
    return top


def prior_of_top(model: Latent) -> Autoregressive:
    prior = topdown_of(model).top_prior
    assert prior is not None
    return prior


def seen(model: Latent, codes: Tensor, vector: Tensor | None = None) -> Tensor:
    """What a finer grid of (H, W) places is shown of the top: its vectors decoded, and each in the places that it stands for."""
    top, (_, height, width) = top_of(model), topdown_of(model).shape
    vectors = top.quantizer.vectors(codes)
    sizes = zip(codes.shape[2:], (height, width), strict=True)
    rows, columns = ([place * coarse // fine for place in range(fine)] for coarse, fine in sizes)
    return torch.cat([top.decoder.decoder(vectors, vector), vectors[:, :, rows][:, :, :, columns]], 1)


def terms(model: Latent, x: Tensor, top: Tensor, codes: Tensor, vector: Tensor | None = None) -> Tensor:
    """(n, 3) log p(top), log p(codes | top) and log p(x | both)."""
    topdown, grid = topdown_of(model), seen(model, top, vector)
    rate = prior_of_top(model).log_prob(top, None if vector is None else ancestral.Context(vector=vector))
    more = topdown.prior.log_prob(codes, ancestral.Context(vector=vector, grid=grid))
    decoded = topdown.decoder(torch.cat([topdown.quantizer.vectors(codes), grid], 1), vector)
    return torch.stack([rate, more, model.likelihood.log_prob(x, ancestral.Context(grid=decoded))], 1)


@torch.no_grad()
@pytest.mark.parametrize(("prior", "conditional"), [("gated-pixelcnn", True), ("transformer", False)])
def test_both_grids_and_symbols_are_a_distribution_and_the_bound_holds(prior: str, conditional: bool) -> None:
    model = two(SMALL, prior=prior, conditional=conditional)
    states = [torch.tensor(every) for every in product(range(3), repeat=3)]
    x = torch.tensor(list(product(range(2), repeat=8))).view(-1, 1, 2, 4)
    vector = torch.eye(3)[1:2].expand(len(x), 3) if conditional else None
    rows = [(state[:1].expand(len(x), 1).view(-1, 1, 1, 1), state[1:].expand(len(x), 2).view(-1, 1, 1, 2)) for state in states]
    joint = torch.stack([terms(model, x, *each, vector).sum(1) for each in rows])
    exact = joint.logsumexp(0)
    assert math.isclose(float(exact.exp().sum()), 1, rel_tol=1e-12)
    context = None if vector is None else ancestral.Context(vector=vector)
    elbo, z = model.elbo(x, context), model.encode(x, context)
    assert (elbo.bound <= exact + 1e-12).all() and (elbo.bound < exact - 1e-6).any()
    assert list(z) == ["top", "codes"] and len(z["top"].unique()) > 1
    costs = -terms(model, x, z["top"], z["codes"], vector)
    assert torch.allclose(elbo.rate, costs[:, :2].sum(1)) and torch.allclose(elbo.distortion, costs[:, 2])
    assert all(torch.allclose(kl.flatten(1).sum(1), costs[:, i]) for i, kl in enumerate(elbo.groups.values()))


@torch.no_grad()
def test_the_finer_grid_is_quantised_with_the_decoded_top_in_view() -> None:
    model, x = two(), symbols()
    topdown, top = topdown_of(model), top_of(model)
    encoded = topdown.encoder(x * (2 / 3) - 1, None)
    above = top.quantizer.nearest(top.encoder(encoded, None))
    below = topdown.quantizer.nearest(top.join(torch.cat([encoded, seen(model, above)], 1), None))
    z = model.encode(x)
    assert torch.equal(z["top"], above) and torch.equal(z["codes"], below)
    assert topdown.shape == (1, 3, 3) and top.shape == (1, 2, 2)


@torch.no_grad()
@pytest.mark.parametrize("prior", [name for name in PRIORS if name != "uniform"])
def test_the_finer_prior_is_told_the_top_and_not_the_other_way_round(prior: str) -> None:
    model, x = two(prior=prior), symbols()
    z = model.encode(x)
    other = {name: (codes + 1) % 3 for name, codes in z.items()}
    plain, upper, lower = (
        {group.name: group.log_p for group in model.topdown.descend(given(each), n=len(x)).groups}
        for each in (z, z | {"top": other["top"]}, z | {"codes": other["codes"]})
    )
    moved = (plain["codes"] - upper["codes"]).abs().gt(1e-9)
    assert moved.double().mean() > 0.9 and moved[..., 0, 0].any()  # of every code but by chance, and the first one, too
    assert torch.equal(plain["top"], lower["top"])


# Training


def test_both_encoders_learn_what_the_vectors_of_their_codes_would() -> None:
    model, x = two(), symbols()
    topdown, top = topdown_of(model), top_of(model)
    parts = [topdown.encoder, top.encoder, top.join, top.decoder, topdown.decoder]
    parameters = [parameter for part in parts for parameter in part.parameters()]
    cost = -model.likelihood.log_prob(x, model.descend(x, mean).features).sum()
    found = torch.autograd.grad(cost, parameters)
    encoded = topdown.encoder(x * (2 / 3) - 1, None)
    above = top.encoder(encoded, None)
    vectors = above + (top.quantizer.vectors(top.quantizer.nearest(above)) - above).detach()
    shown = top.decoder(None, vectors, None)
    below = top.join(torch.cat([encoded, shown], 1), None)
    finer = below + (topdown.quantizer.vectors(topdown.quantizer.nearest(below)) - below).detach()
    decoded = topdown.decoder(torch.cat([finer, shown], 1), None)
    expected = torch.autograd.grad(-model.likelihood.log_prob(x, ancestral.Context(grid=decoded)).sum(), parameters)
    assert all(torch.allclose(a, b) for a, b in zip(found, expected, strict=True))
    for part in parts:
        own = {id(parameter) for parameter in part.parameters()}
        assert any(slope.abs().max() > 1e-9 for slope, each in zip(found, parameters, strict=True) if id(each) in own)


@torch.no_grad()
def test_objectives_count_both_grids() -> None:
    model, x = two(), symbols()
    found, z, elbo = quantized(model, Batch(x), commitment=0.25), model.encode(x), model.elbo(x)
    pairs = topdown_of(model).nearest(model.descend(x, mean).groups)
    far = sum(float((each.bounded - grid.quantizer.vectors(z[grid.name])).square().sum()) for grid, each in pairs) / len(x)
    assert [grid.name for grid, _ in pairs] == ["top", "codes"] and math.isclose(float(found["commitment"]), far)
    assert math.isclose(float(found["loss"]), float(found["distortion"]) + 0.25 * far)
    assert math.isclose(float(found["rate"]), (4 + 9) * math.log(3))
    for name, column in (("top", "perplexity_top"), ("codes", "perplexity")):
        share = z[name].flatten().bincount() / z[name].numel()
        assert math.isclose(float(found[column]), float(torch.special.entr(share).sum().exp()))
    told = code_prior(model, Batch(x))
    assert math.isclose(float(told["loss"]), float(elbo.rate.mean())) and math.isclose(
        float(told["distortion"]), float(elbo.distortion.mean())
    )


def test_training_moves_both_codebooks_and_revives_dead_codes_in_each() -> None:
    model = two(codes=16).train()
    x = symbols(40)
    books = [grid.quantizer.codebook.clone() for grid in topdown_of(model).grids]  # type: ignore[union-attr, operator]
    quantized(model.eval(), Batch(x))
    code_prior(model.train(), Batch(x))
    assert all(torch.equal(grid.quantizer.codebook, book) for grid, book in zip(topdown_of(model).grids, books, strict=True))  # type: ignore[arg-type]
    for seed in range(30):
        found = quantized(model, Batch(x, seed=seed))
    assert float(found["perplexity"]) > 4 and float(found["perplexity_top"]) > 4
    assert not torch.equal(*(grid.quantizer.codebook for grid in topdown_of(model).grids))  # type: ignore[arg-type]


def test_each_stage_trains_its_parts_of_both_grids() -> None:
    model = two(DIGITS.spec)
    before = {name: value.clone() for name, value in model.state_dict().items()}
    learned = {name for stage in model.config.stages for name in stage.parts if stage.name == "prior"}
    assert learned == {"topdown.prior", "topdown.top_prior"}
    run = fit(model, DIGITS, steps=6, **QUIET, ema=0.0)
    changed = {name for name, value in model.state_dict().items() if not torch.equal(value, before[name])}
    parts = ("encoder", "decoder", "quantizer", "prior", "top_prior", "top.encoder", "top.decoder", "top.join", "top.quantizer")
    assert all(any(name.startswith(f"topdown.{part}.") for name in changed) for part in parts)
    assert {row["stage"] for row in run.history if row["split"] == "validation"} == {"codes", "prior"}


@pytest.mark.parametrize(
    ("priors", "parts"),
    [
        ({"prior": "uniform"}, ()),
        ({"prior": "uniform", "top_prior": "transformer"}, ("topdown.top_prior",)),
        ({"top_prior": "uniform"}, ("topdown.prior",)),
    ],
)
def test_a_prior_without_weights_is_not_trained(priors: dict[str, str], parts: tuple[str, ...]) -> None:
    stages = two(**priors).config.stages
    assert [stage.parts for stage in stages[1:]] == ([parts] if parts else []) and math.isclose(
        sum(stage.share for stage in stages), 1
    )


def fresh() -> Any:
    torch.manual_seed(0)
    return ancestral.build("vq-vae", DIGITS.spec, preset="tiny", top_halvings=1)


def test_a_run_that_was_stopped_is_the_same_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    settings: dict[str, Any] = {**QUIET, "steps": 8, "seed": 4, "data_options": {"limit": 40}}
    whole = fit(fresh(), "digits", tmp_path / "whole", **settings)
    with monkeypatch.context() as patch:
        patch.setitem(OBJECTIVES, "quantized", CtrlC("quantized", 3))
        with pytest.raises(Interrupted):
            fit(fresh(), "digits", tmp_path / "stopped", **settings)
    assert same(whole.model.state_dict(), resume(tmp_path / "stopped", progress=False).model.state_dict())


# Commands


def test_commands_know_both_grids(call: Call, tmp_path: Path) -> None:
    words = ("train", "vq-vae", "--data", "digits", "--preset", "tiny", "--limit", 40, "--steps", 3, "--no-progress")
    words = (*words, "--top-halvings", 1)
    code, _, err = call(*words, "--prior", "uniform", "--out", tmp_path / "codes")
    assert code == 0, err
    parts = ("topdown.encoder", "topdown.quantizer", "topdown.decoder", "topdown.top", "likelihood")
    start = ("--from", tmp_path / "codes", "--parts", *parts, "--prior-share", 1)
    code, _, err = call(*words, "--prior", "row-lstm", "--top-prior", "transformer", *start, "--out", tmp_path / "prior")
    assert code == 0, err
    one, other = (ancestral.load(tmp_path / name).state_dict() for name in ("codes", "prior"))
    assert all(torch.equal(value, other[name]) for name, value in one.items()) and len(other) > len(one)
    code, out, err = call("inspect", tmp_path / "prior")
    assert code == 0 and "top" in out and "codes" in out, err


@torch.no_grad()
def test_figures_tell_of_both_grids() -> None:
    found = evaluate(two(DIGITS.spec), DIGITS, limit=30)
    assert list(found.code_uses) == ["top", "codes"] and [sum(uses) for uses in found.code_uses.values()] == [30 * 4, 30 * 16]
    assert "top codes used, perplexity" in (found.verdict or "") and "3 codes used" in (found.verdict or "")


def test_one_idle_grid_of_two_is_no_collapse() -> None:
    busy: dict[str, Any] = {"used": 250, "codes": 256, "perplexity": 180.0}
    idle: dict[str, Any] = {"used": 1, "codes": 256, "perplexity": 1.0}
    for uses, named in (
        ([Uses("top", **idle), Uses("codes", **busy)], r"the top codes are hardly chosen: try one grid \(top_halvings=0\)"),
        ([Uses("top", **busy), Uses("codes", **idle)], "the codes are hardly chosen: try one grid, as coarse as the top"),
    ):
        carried = Carried(nats=97, rate=30, shuffle_cost=45, active=0, units=0, uses=uses)
        assert not carried.little and re.fullmatch(f"z carries 43.3 of 140 bits; .*; {named}", verdict(carried))
    both = Carried(nats=97, rate=30, shuffle_cost=45, active=0, units=0, uses=[Uses("top", **idle), Uses("codes", **idle)])
    assert verdict(both).startswith("collapsed: the encoder hardly chooses among the codes") and "try" not in verdict(both)


@torch.no_grad()
def test_completion_draws_codes_of_both_grids() -> None:
    model, x = two(), symbols(3)
    known = torch.zeros_like(x, dtype=torch.bool)
    known[:, :, :3] = True
    found = complete(model, x, known, seed=0, particles=8)
    assert torch.equal(found.x[known], x[known]) and found.status == "approximate"
    z = model.encode(x)
    context = topdown_of(model).told(z["top"])
    assert context.grid is not None and torch.allclose(context.grid, seen(model, z["top"]))
    some = torch.zeros_like(z["codes"], dtype=torch.bool)
    some[:, :, :2] = True
    drawn = complete(topdown_of(model).prior, z["codes"], some, seed=1, context=context)  # codes of the finer grid, given the top
    assert torch.equal(drawn.x[some], z["codes"][some]) and drawn.status == "exact"
    with pytest.raises(ValueError, match="build it with top_halvings"):
        topdown_of(model_of()).told(z["top"])


# Files


@pytest.mark.parametrize(
    "options",
    [
        {"conditional": True},
        {"prior": "transformer", "depth": 2},
        {"prior": "diagonal-bilstm", "top_prior": "uniform", "quantizer": "fsq"},
    ],
)
def test_two_parts_come_back_and_take_what_they_cost(options: dict[str, Any]) -> None:
    model, labels = two(**options, spread=0.05), torch.arange(24) % 3
    told = labels if "conditional" in options else None
    x = sample(model, 24, seed=1, labels=told, engine="eager")
    vector = None if told is None else torch.nn.functional.one_hot(told, 3).double()
    context = None if vector is None else ancestral.Context(vector=vector)
    made = twin(model, x, "eager", vector=vector)
    assert isinstance(made.latents, ExactGenerator)
    payload = encode(made, made.latents, x, vector)
    assert torch.equal(decode(made, made.latents, payload, len(x), vector), x)
    nats = float(made.cost(x, vector=vector).sum())
    assert abs(8 * len(payload) - nats / math.log(2)) < 8 * 16
    with torch.no_grad():
        assert abs(nats / -float(model.elbo(x, context).bound.sum()) - 1) < 5e-3
    codes = torch.cat([each.flatten(1) for each in model.encode(x, context).values()], 1)
    assert torch.equal(made.latents.codes(x, vector), codes)
    assert restored(model, made.calibration, "eager").identity == made.identity
    with torch.no_grad():
        next(top_of(model).decoder.parameters()).add_(1e-2)
    assert restored(model, made.calibration, "eager").identity != made.identity


@torch.no_grad()
def test_files_begin_with_both_grids() -> None:
    model = two().float()
    head = model.topdown.decoder.get_submodule("head")  # type: ignore[operator, union-attr]
    head.weight.mul_(0.2)
    head.bias.copy_(torch.tensor([-1.0, -2.0]))  # mostly dark, which is worth coding
    x = sample(model, 6, seed=1)
    blob = ancestral.compress(model, x)
    assert torch.equal(ancestral.decompress(model, blob), x)
    assert {block.kind for block in Reader(blob)} == {CODED}
    kept = lossy(model, x)
    assert kept.seen is not None
    assert torch.equal(torch.cat(list(previews(Opened(Reader(blob), model, "eager")))), kept.seen)
    assert all(torch.equal(kept.z[name], codes) for name, codes in model.encode(x).items())
    alone = ancestral.compress(model, x, scheme=LATENTS)
    assert torch.equal(ancestral.decompress(model, alone), sample(model, 6, z=kept.z))


@torch.no_grad()
def test_sound_has_two_grids_too() -> None:
    model = two(DataSpec("audio", (12,), levels=16))
    x = sample(model, 5, seed=0)
    assert {name: tuple(codes.shape[1:]) for name, codes in model.encode(x).items()} == {"top": (1, 1, 3), "codes": (1, 1, 6)}
    assert torch.equal(ancestral.decompress(model, ancestral.compress(model, x)), x)
