"""Latents of text and sound: what z reaches, what fills up a batch, bags of words, and rate and distortion by enumeration."""

from __future__ import annotations

from itertools import product
from math import log
from typing import Any

import pytest
import torch
from tiny_latents import awake, waken
from tiny_sequence_vaes import CLIP, CLIPS, FORMS, LINES, PAIRS, SHORT, made, some
from torch import Tensor

import ancestral.objectives
from ancestral.coding.codec import compress, decompress
from ancestral.core import Autoregressive, Context, OrderError
from ancestral.data.source import permutation
from ancestral.data.splits import Examples
from ancestral.evaluation import evaluate, score
from ancestral.evaluation.bits import ratio_error
from ancestral.evaluation.examples import SUBSET, Chosen
from ancestral.evaluation.iwae import bounds
from ancestral.latent.blindfold import Blindfold, blindfolded
from ancestral.latent.latent import Latent
from ancestral.latent.sequence_encoders import Pool, SequenceEncoder, joined, waveform
from ancestral.latent.topdown import Noise
from ancestral.latent.transformer_vae import bag
from ancestral.latent.wavenet_vae import coarser
from ancestral.models import build, configure
from ancestral.objectives import Batch, auxiliary_guided, elbo
from ancestral.sampling import complete, interpolate, proposals, sample, stream
from ancestral.sampling.strategies import arrange
from ancestral.spec import DataSpec
from ancestral.symbols import ended, lengths


def test_bits_a_symbol_are_reckoned_with_the_symbols_of_those_examples() -> None:
    """Lengths make nats scatter, not bits a symbol; and those of a subset are reckoned with its own lengths."""
    model, generator = made("layers"), torch.Generator().manual_seed(1)
    ends = torch.randint(1, 12, (60, 1), generator=generator)
    x = torch.randint(4, (60, 12), generator=generator).where(torch.arange(12) < ends, 4)
    found, count = evaluate(model, x, importance_samples=3, subset=8), lengths(x, LINES)
    nats = score(model, x).nats
    assert found.bits_per_dim_error == pytest.approx((ratio_error(nats, count) or 0.0) / log(2), rel=1e-6)
    by_length = sorted(range(60), key=count.tolist().__getitem__)
    places = [by_length[place] for place in permutation(60, 0, SUBSET)[:8]]
    with torch.no_grad():
        bound = bounds(model, Chosen(Examples(x), places, places), 3, 0, 64, lambda amount: None)
    for value, error, nats in (
        (found.iwae_bits_per_dim, found.iwae_bits_per_dim_error, -bound.iwae),
        (found.elbo_subset_bits_per_dim, found.elbo_subset_bits_per_dim_error, -bound.elbo),
    ):
        assert value == pytest.approx(float(nats.sum() / count[places].sum()) / log(2))
        assert error == pytest.approx((ratio_error(nats, count[places]) or 0.0) / log(2))


# -- what z reaches --------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("form", FORMS)
def test_every_symbol_sees_z_and_no_later_symbol(form: str) -> None:
    model = made(form)
    x = ended(some(model), model.spec)
    descent = model.descend(x, Noise(0, range(len(x))))
    z = {group.name: group.z.detach().requires_grad_() for group in descent.groups}
    network = model.likelihood.network.arrange(shape=tuple(x.shape[1:]))
    parameters = network(x, model.features(z))
    last = parameters.shape[1] - 1
    for site in range(parameters.shape[1]):
        slopes = torch.autograd.grad(parameters[:, site].square().sum(), list(z.values()), retain_graph=site < last)
        assert all(bool((slope != 0).any()) for slope in slopes), site
    for site in range(1, parameters.shape[1]):
        changed = x.clone()
        changed[:, site:] = (changed[:, site:] + 1) % (model.spec.levels or 2)
        assert torch.equal(network(changed, model.features(z))[:, : site + 1], parameters[:, : site + 1])


def test_a_place_of_z_reaches_the_samples_that_it_lasts_and_those_its_decoder_brings_it_to() -> None:
    model = made("local", blocks=0)
    z = torch.zeros(1, 2, 4, 1, requires_grad=True)
    features = model.features({"z": z})
    for place in range(4):
        [slope] = torch.autograd.grad(features.grid[:, :, place].square().sum(), [z], retain_graph=True)  # type: ignore[index]
        assert slope[0, :, :, 0].abs().amax(0).nonzero()[:, 0].tolist() == [p for p in range(4) if abs(p - place) <= 1]
    assert model.likelihood.network.turned(features).grid.shape == (1, 3, 16, 1)  # type: ignore[operator]


@pytest.mark.parametrize(("form", "count"), [("prefix", 1), ("layers", 0), ("cross", 2)])
def test_a_prefix_is_at_the_first_token_alone_and_follows_the_length(form: str, count: int) -> None:
    network = made(form).likelihood.network
    for length in (5, 9):
        prefixes = network.arrange(shape=(length,)).prefixes
        assert len(prefixes) == count  # type: ignore[arg-type]
        for each in prefixes:  # type: ignore[union-attr]
            added = each(torch.ones(1, 2))  # type: ignore[operator]
            assert added.shape == (1, 8, length, 1) and bool(added[:, :, 0].any()) and not bool(added[:, :, 1:].any())


# -- what fills up a batch, or comes after the end -------------------------------------------------------------------------------


@pytest.mark.parametrize("form", ["prefix", "layers", "global"])
def test_how_far_a_batch_is_filled_up_changes_nothing(form: str) -> None:
    model, end = made(form), FORMS[form][1].end or 0
    x = some(model)
    wide = torch.cat([x, torch.full((len(x), 3), end)], 1)
    for narrow, other in zip(model.elbo(x).groups.values(), model.elbo(wide).groups.values(), strict=True):
        assert torch.allclose(narrow, other, atol=1e-12)
    assert torch.allclose(model.elbo(x).bound, model.elbo(wide).bound, atol=1e-10)
    after = x.clone()
    after[::2, 7:] = 1  # behind the end of those that end early
    assert torch.allclose(model.encode(after)["z"], model.encode(x)["z"], atol=1e-12)


@pytest.mark.parametrize("sites", [1, 2, 3, 7, 8])
def test_encoders_take_any_length(sites: int) -> None:
    encoder, pool = SequenceEncoder(LINES, 6, 1, 2, 0), Pool(6, 3)
    waken(encoder, 0.5)
    x = torch.randint(5, (3, sites))
    h, there = encoder(x, None)
    assert h.shape == (3, 6, -(-sites // 4), 1) and there.shape == (3, 1, -(-sites // 4), 1)
    counted = (lengths(x, LINES) + 1).clamp_max(sites)
    assert there.sum((1, 2, 3)).long().tolist() == (-(-counted // 4)).tolist()
    assert not bool((h * (1 - there)).any()) and bool(pool(h, there).isfinite().all())


def test_where_a_symbol_stands_matters() -> None:
    model = made("layers", halvings=1, blocks=0)
    x = torch.tensor([[0, 1, 2, 3, 0, 0, 0, 0], [0, 0, 0, 0, 0, 1, 2, 3]])
    assert not torch.allclose(*model.encode(x)["z"])


def test_parts_are_put_together() -> None:
    assert joined(torch.tensor([[3, 7, 0, 1]]), PAIRS)[0].tolist() == [[31, 1]]
    assert waveform(torch.tensor([[0, 0, 7, 7]]), PAIRS).tolist() == [[-1.0, 1.0]]
    assert waveform(torch.tensor([[0, 7, 8, 8]]), CLIPS).tolist() == [[-1.0, 1.0, -1.0, -1.0]]


# -- rate and distortion ---------------------------------------------------------------------------------------------------------


def states() -> Tensor:
    every = torch.tensor(list(product(range(3), repeat=4)))
    return every[(ended(every, SHORT) == every).all(1)]


@pytest.mark.parametrize("form", ["prefix", "layers"])
def test_the_bound_lies_below_the_probability_by_enumeration_and_quadrature(form: str) -> None:
    """Over all texts of up to four symbols: p(x) from a grid of z sums to 1, and -(rate + distortion) bounds its logarithm."""
    model: Latent = awake("transformer-vae", SHORT, 0.5, form=form, latent=1)
    x, z = states(), torch.linspace(-8, 8, 401)[:, None]
    weight = torch.exp(-z[:, 0].square() / 2) / (2 * torch.pi) ** 0.5 * 0.04
    with torch.no_grad():
        features = model.features({"z": z})
        given = torch.stack([model.likelihood.log_prob(row.expand(len(z), -1), features) for row in x])
        probability = given.exp() @ weight
        assert float(probability.sum()) == pytest.approx(1, abs=1e-9)
        found = [model.elbo(x, seed=seed) for seed in range(64)]
    bound = torch.stack([each.bound for each in found])
    assert bool((bound.mean(0) <= probability.log() + 4 * bound.std(0) / 8).all())
    posterior = model.descend(x, Noise(0, range(len(x)))).groups[0].posterior
    assert posterior is not None
    density = posterior.log_prob(z[:, None]).exp()[..., 0] * 0.04  # (z, x)
    prior = -z.square() / 2 - log(2 * torch.pi) / 2
    rate = (density * (posterior.log_prob(z[:, None])[..., 0] - prior)).sum(0)
    distortion = -(density.T * given).sum(1)
    assert torch.allclose(found[0].rate, rate, atol=1e-6)
    mean = torch.stack([each.distortion for each in found])
    assert bool(((mean.mean(0) - distortion).abs() <= 5 * mean.std(0) / 8 + 1e-9).all())


@pytest.mark.parametrize("form", ["layers", "local", "both"])
@pytest.mark.parametrize(
    ("posterior", "prior"),
    [("logistic", "logistic"), ("iaf", "normal"), ("normal", "mixture"), ("iaf", "flow"), ("normal", "delta")],
)
def test_every_posterior_and_prior_goes_with_every_form(form: str, posterior: str, prior: str) -> None:
    name, spec, settings = FORMS[form]
    model = build(name, spec, preset="tiny", posterior=posterior, prior=prior, **settings)
    x = ended(some(model), model.spec)
    found = model.elbo(x)
    assert bool(found.bound.isfinite().all())
    for group, kl in found.groups.items():
        assert kl.shape[1:] == dict(zip(found.groups, [level.shape for level in model.topdown.groups], strict=True))[group]  # type: ignore[union-attr, operator]
    assert sample(model, 2, length=x.shape[1]).shape == (2, x.shape[1])
    blob = compress(model, x[:1], engine="eager")
    assert torch.equal(decompress(model, blob, engine="eager"), x[:1])


# -- auxiliary guidance ----------------------------------------------------------------------------------------------------------


def test_a_bag_counts_what_stands_before_the_end() -> None:
    x = torch.tensor([[0, 0, 0, 3, 4, 4, 4], [1, 2, 1, 2, 1, 2, 1], [4, 4, 4, 4, 4, 4, 4]])
    assert bag(x, LINES, 4).tolist() == [[3, 0, 0, 1], [0, 3, 3, 0], [0, 0, 0, 0]]
    assert bag(x, LINES, 2).tolist() == [[1, 0, 0, 1], [0, 1, 1, 0], [0, 0, 0, 0]]
    assert torch.equal(bag(x[:, torch.randperm(3)], LINES, 4), bag(x[:, :3], LINES, 4))  # it has no order


@pytest.mark.parametrize("counts", [2, 3])
def test_the_likelihood_of_bags_sums_to_1(counts: int) -> None:
    model = made("layers", auxiliary=True, counts=counts)
    assert model.auxiliary is not None
    waken(model.auxiliary, 1.0)
    every = torch.tensor(list(product(range(counts), repeat=4)))
    features = Context(vector=torch.randn(1, 2).expand(len(every), -1))
    total = model.auxiliary.likelihood.log_prob(every, features).exp().sum().item()
    assert total == pytest.approx(1, abs=1e-12)


def test_coarser_sound_by_hand() -> None:
    x = torch.tensor([[0, 1, 7, 7, 4, 3, 2, 2, 0, 0, 0, 0, 5, 7, 7, 7]])
    assert coarser(x, CLIP, colours=8, factor=2).tolist() == [[0, 7, 3, 2, 0, 0, 6, 7]]
    assert coarser(x, CLIP, colours=2, factor=4).tolist() == [[0, 0, 0, 1]]
    assert coarser(x[:, :8], DataSpec("audio", (8,), levels=8, parts=2), colours=64, factor=2).tolist() == [[32, 26]]


@pytest.mark.parametrize("form", ["layers", "global", "local", "both"])
def test_an_auxiliary_loss_teaches_z_what_y_needs(form: str) -> None:
    """A few steps with it, from the start: z carries more, and y costs less; the bits of x are counted without it."""
    name, spec, settings = FORMS[form]
    spec = CLIP if spec is CLIPS else spec
    model = build(name, spec, preset="tiny", auxiliary=True, **settings)
    x = some(model, 16)
    optimiser = torch.optim.Adam(model.parameters(), lr=0.02)
    batch = Batch(x)
    first = auxiliary_guided(model, batch, 0.1)
    for step in range(30):
        optimiser.zero_grad()
        auxiliary_guided(model, Batch(x, seed=step), 0.1)["loss"].backward()
        optimiser.step()
    last = auxiliary_guided(model, batch, 0.1)
    assert last["auxiliary"].item() < first["auxiliary"].item() and last["rate"].item() > 0.5
    assert torch.allclose(elbo(model, batch)["loss"], last["distortion"] + last["rate"])


@pytest.mark.parametrize("sites", [72, 65, 128])
def test_coarser_sound_is_read_off_the_place_that_it_belongs_to(sites: int) -> None:
    spec = DataSpec("audio", (sites,), 8)
    model = build("wavenet-vae", spec, preset="tiny", form="local", halvings=6, factor=8, auxiliary=True)
    assert isinstance(model, Latent) and model.auxiliary is not None
    network = model.auxiliary.likelihood.network
    grid = torch.randn(1, model.config.maps, 2, 1)
    other = grid.clone()
    other[:, :, 1] += 1
    y = torch.zeros(1, sites // 8, dtype=torch.long)
    moved = (network(y, Context(grid=grid)) != network(y, Context(grid=other))).flatten(2).any(2)[0]
    assert moved.tolist() == [i >= 8 for i in range(sites // 8)]  # a place lasts 64 samples, 8 symbols of y


def test_plain_by_default_and_stages_as_the_paper_has_them_where_asked_for() -> None:
    plain = configure("transformer-vae", "small", beta=0.5)
    assert [(stage.objective, stage.options["beta"]) for stage in plain.stages] == [("elbo", 0.5)]
    guided = configure("transformer-vae", "small", auxiliary=True, pretraining=0.5)
    assert [(stage.name, stage.objective) for stage in guided.stages] == [
        ("vae", "auxiliary_elbo"),
        ("decoder", "nll"),
        ("joint", "auxiliary_guided"),
    ]
    assert guided.stages[-1].options["lambda_"] == 2.0
    model = build("wavenet-vae", CLIP, preset="tiny", auxiliary=True, form="local", pretraining=0.5)
    for stage in model.config.stages:
        loss = ancestral.objectives.OBJECTIVES[stage.objective](model, Batch(some(model)), **stage.options)["loss"]  # type: ignore[arg-type]
        assert bool(loss.isfinite())


# -- symbols that are not read ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("form", FORMS)
def test_symbols_that_are_not_read_change_nothing(form: str) -> None:
    model = made(form)
    x = ended(some(model), model.spec)
    blind = blindfolded(model.likelihood, x, 0.5, seed=3, rows=range(len(x))).network
    assert isinstance(blind, Blindfold) and 0 < blind.hidden.sum() < blind.hidden.numel()
    by_sample = blind.hidden.unflatten(1, (-1, model.spec.parts))  # type: ignore[no-untyped-call]
    assert bool((by_sample == by_sample[..., :1]).all())  # of a sample all parts
    features = model.features(model.encode(x))
    other = torch.where(blind.hidden, (model.spec.levels or 2) - 1 - x, x)
    assert torch.equal(blind(x, features), blind(other, features))
    assert not torch.allclose(blind.network(x, features), blind.network(other, features))
    none = Blindfold(blind.network, torch.zeros_like(blind.hidden), model.spec.levels)
    assert torch.allclose(none(x, features), blind.network(x, features))


@pytest.mark.parametrize("form", ["layers", "global"])
def test_word_dropout_is_of_training(form: str) -> None:
    model = made(form)
    batch = Batch(some(model), seed=0)
    told = elbo(model, batch, dropout=0.7)["distortion"]
    assert not torch.allclose(told, elbo(model, batch)["distortion"])
    model.eval()
    assert torch.allclose(elbo(model, batch, dropout=0.7)["distortion"], elbo(model, batch)["distortion"])


# -- the contract ----------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("form", ["prefix", "layers", "global"])
def test_any_length_is_drawn(form: str) -> None:
    model = made(form)
    x = sample(model, 3, length=14, seed=1)
    assert x.shape == (3, 14) and torch.equal(x, ended(x, model.spec))
    assert torch.equal(sample(model, 3, length=14, seed=1, method="recompute"), x)
    own = torch.stack([symbols for _, symbols in stream(model, 3, length=14, seed=1)], 1)
    assert torch.equal(own, x[:, : own.shape[1]])
    y = some(model, 2)
    way = interpolate(model, y[:1], y[1:], 3, seed=0)
    assert torch.equal(way, ended(way, model.spec))
    again = model.reconstruct(y)
    assert torch.equal(again, ended(again, model.spec))
    least = model.likelihood.network.shape[0] or 0
    assert model.reconstruct(some(model, 2, 5)).shape == (2, least) and model.reconstruct(some(model, 2, 2000)).shape == (2, 2000)


def test_another_length_of_sound_leaves_its_coarser_one_out() -> None:
    """What y is of the new length nobody has learned; it is no part of the bits."""
    model = build("wavenet-vae", DataSpec("audio", (12,), 16), preset="tiny", auxiliary=True)
    x = torch.randint(16, (3, 20), generator=torch.Generator().manual_seed(0))
    longer = arrange(model, shape=(20,))
    assert isinstance(longer, Latent) and longer.auxiliary is None
    assert evaluate(longer, x).nats > 0 and score(longer, x).nats.shape == (3,)
    same = arrange(model, shape=(12,))
    assert isinstance(same, Latent) and same.auxiliary is not None


def test_a_grid_of_z_belongs_to_one_length() -> None:
    with pytest.raises(OrderError, match="form='global', which takes any"):
        arrange(made("local"), shape=(32,))
    with pytest.raises(ValueError, match="cut the data into blocks"):
        build("wavenet-vae", CLIPS, preset="tiny", form="local")


@pytest.mark.parametrize(
    ("name", "spec", "overrides", "message"),
    [
        ("transformer-vae", LINES, {"form": "nowhere"}, "prefix, layers"),
        ("transformer-vae", DataSpec("image", (1, 4, 4), 2), {}, "text or sound"),
        ("transformer-vae", LINES, {"spatial": True}, "spatial"),
        ("transformer-vae", LINES, {"halvings": 0}, "halvings"),
        ("transformer-vae", LINES, {"auxiliary": True, "counts": 1}, "counts is 1"),
        ("transformer-vae", LINES, {"pretraining": 0.5}, "auxiliary=True"),
        ("transformer-vae", LINES, {"pretrain": "pixelcnn"}, "both, vae, decoder"),
        ("transformer-vae", LINES, {"auxiliary": True, "pretraining": 2.0}, "pretraining is 2.0; it is a share of the steps"),
        ("wavenet-vae", CLIP, {"auxiliary": True, "pretraining": -1.0}, "pretraining is -1.0; it is a share of the steps"),
        ("wavenet-vae", CLIP, {"form": "local", "maps": 0}, "maps is 0; it must be at least 1"),
        ("wavenet-vae", CLIP, {"form": "both", "maps": 0}, "maps is 0; it must be at least 1"),
        ("wavenet-vae", CLIP, {"form": "nowhere"}, "global, local, both"),
        ("wavenet-vae", CLIPS, {"auxiliary": True}, "--pieces blocks"),
        ("wavenet-vae", CLIP, {"auxiliary": True, "colours": 9}, "colours=9"),
        ("wavenet-vae", CLIP, {"auxiliary": True, "form": "local", "factor": 4}, "no multiple"),
    ],
)
def test_settings_that_make_no_sense(name: str, spec: DataSpec, overrides: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        build(name, spec, preset="tiny", **overrides)


def test_figures_of_lines() -> None:
    model = made("layers")
    found = evaluate(model, some(model, 12), importance_samples=4, subset=8)
    assert found.status == "bound" and found.nats == pytest.approx(found.rate + found.distortion)  # type: ignore[operator]
    assert found.shuffle_cost is not None and found.sites == pytest.approx(8.0)


@pytest.mark.parametrize("form", FORMS)
def test_files_hold_z_and_then_what_comes_before_the_end(form: str) -> None:
    model = made(form)
    x = ended(some(model, 6), model.spec)
    blob = compress(model, x, engine="eager")
    assert torch.equal(decompress(model, blob, engine="eager"), x)
    if model.spec.end is not None:  # what fills up costs nothing
        wide = torch.cat([x, torch.full((len(x), 150), model.spec.end)], 1)  # for which there are narrower twins
        more = compress(model, wide, engine="eager")
        assert torch.equal(decompress(model, more, engine="eager"), wide) and len(more) < len(blob) + 16


@pytest.mark.parametrize("form", ["layers", "both"])
def test_particles_of_long_sequences_are_weighed_a_few_at_a_time(form: str, monkeypatch: pytest.MonkeyPatch) -> None:
    model, rows = made(form), list[int]()
    x = some(model, 3)
    known = torch.arange(x.shape[1]) < 4
    whole = complete(model, x, known, particles=6)
    plain = Autoregressive.conditionals
    monkeypatch.setattr(Autoregressive, "conditionals", lambda self, x, seen: (rows.append(len(x)), plain(self, x, seen))[1])
    monkeypatch.setattr(proposals, "SITES", 2 * x.shape[1])
    parts = complete(model, x, known, particles=6)
    assert max(rows) <= 3 and torch.equal(parts.x, whole.x)
    assert torch.allclose(parts.log_evidence, whole.log_evidence, rtol=1e-12, atol=0)
