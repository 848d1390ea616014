"""Latent-variable models: what the bound is made of, what the noise depends on, and that y never counts."""

from __future__ import annotations

from dataclasses import replace
from functools import partial
from itertools import product
from math import inf

import pytest
import torch
from torch.distributions import Normal

from ancestral.core import Context
from ancestral.evaluation import evaluate
from ancestral.latent.agave import auxiliary_image, stretch
from ancestral.latent.latent import Latent
from ancestral.latent.topdown import Group, Noise, given, mean
from ancestral.latent.vae import decoder_family
from ancestral.models import MODELS, build
from ancestral.networks.factorised import GAIN
from ancestral.objectives import Batch, auxiliary_elbo, auxiliary_guided, elbo, importance_weights, iwae, label_context, nll
from ancestral.sampling.sample import sample
from ancestral.spec import DataSpec
from ancestral.symbols import DataError

GREY = DataSpec("image", (1, 7, 6), levels=5, classes=3)
RGB = DataSpec("image", (3, 4, 6), levels=256)
EIGHT = DataSpec("image", (1, 8, 8), levels=17)


def symbols(spec: DataSpec, n: int = 4) -> torch.Tensor:
    return torch.randint(spec.levels or 2, (n, *spec.shape))


def test_kl_of_normals() -> None:
    """KL(N(1, 1/4) || N(0, 1)) = 0.8181472 and KL(N(1, 1) || N(0, 1)) = 1/2."""
    standard = Normal(torch.zeros(1, 2), torch.ones(1, 2))
    group = Group("z", torch.zeros(1, 2), standard, Normal(torch.ones(1, 2), torch.tensor([[0.5, 1.0]])))
    assert torch.allclose(group.kl, torch.tensor([[0.8181472, 0.5]]))


@pytest.mark.parametrize("name", ["vae", "agave"])
@pytest.mark.parametrize("spec", [GREY, RGB])
@pytest.mark.parametrize("spatial", [False, True])
def test_sizes_that_do_not_halve_evenly(name: str, spec: DataSpec, spatial: bool) -> None:
    model = build(name, spec, preset="tiny", spatial=spatial, halvings=2)
    x = symbols(spec)
    parts = model.elbo(x)  # type: ignore[union-attr]
    assert parts.bound.shape == (4,)
    z = model.encode(x)["z"]  # type: ignore[union-attr]
    assert z.shape == ((4, 2, -(-spec.shape[1] // 4), -(-spec.shape[2] // 4)) if spatial else (4, 2))  # type: ignore[operator]
    assert model.reconstruct(x).shape == x.shape  # type: ignore[union-attr]


def test_real_valued_vectors() -> None:
    model = build("vae", DataSpec("vector", (5,)), preset="tiny")
    assert torch.isfinite(model.elbo(torch.randn(3, 5)).bound).all()  # type: ignore[union-attr]


def test_the_bound_is_minus_distortion_minus_rate_and_y_is_no_part_of_it() -> None:
    model, x = build("agave", GREY, preset="tiny"), symbols(GREY)
    parts = model.elbo(x)  # type: ignore[union-attr]
    assert torch.equal(parts.bound, -(parts.distortion + parts.rate))
    model.auxiliary = None
    assert torch.equal(model.elbo(x).bound, parts.bound)  # type: ignore[union-attr]


def test_noise_depends_on_the_row_and_not_on_the_batch() -> None:
    model, x = build("agave", GREY, preset="tiny"), symbols(GREY, 5)
    whole = model.elbo(x, seed=3).bound  # type: ignore[union-attr]
    parts = [model.elbo(x[i : i + 1], seed=3, rows=[i]).bound for i in range(5)]  # type: ignore[union-attr]
    assert torch.allclose(whole, torch.cat(parts))
    one, two = (model.elbo(x, seed=seed).auxiliary for seed in (3, 4))  # type: ignore[union-attr]
    assert not torch.allclose(one, two)  # type: ignore[arg-type]


@pytest.mark.parametrize("seed", [-1, 2**70])
def test_seeds_without_noise_are_refused(seed: int) -> None:
    model, x = build("vae", GREY, preset="tiny"), symbols(GREY)
    for call in (model.elbo, model, partial(evaluate, model)):  # type: ignore[union-attr]
        with pytest.raises(ValueError, match=f"^seed is {seed}; it must be at least 0 and below 2"):
            call(x, seed=seed)  # type: ignore[operator]


def test_guided_objective_weighs_the_rate_alone() -> None:
    model, batch = build("agave", GREY, preset="tiny"), Batch(symbols(GREY), seed=2)
    terms = auxiliary_guided(model, batch, lambda_=7.0)  # type: ignore[arg-type]
    assert torch.allclose(terms["loss"], terms["distortion"] + terms["auxiliary"] + 7 * terms["rate"])
    alone = auxiliary_elbo(model, batch)  # type: ignore[arg-type]
    assert torch.allclose(alone["loss"], terms["auxiliary"] + terms["rate"])


def test_a_weight_that_cannot_be_is_named_as_it_was_given() -> None:
    for value in (-1.0, inf):
        with pytest.raises(ValueError, match=f"^lambda_ is {value}; it must be at least 0 and finite"):
            auxiliary_guided(build("agave", GREY, preset="tiny"), Batch(symbols(GREY)), lambda_=value)  # type: ignore[arg-type]


def test_both_decoders_teach_the_encoder() -> None:
    model, batch = build("agave", GREY, preset="tiny"), Batch(symbols(GREY))
    for feed in (layer.left_feed.grid.module for layer in model.likelihood.network.layers):  # type: ignore[union-attr]
        torch.nn.init.normal_(feed.weight)
    slopes = {}
    for term in ("distortion", "auxiliary"):
        model.zero_grad()
        auxiliary_guided(model, batch)[term].backward()  # type: ignore[arg-type]
        slopes[term] = sum(p.grad.abs().sum().item() for p in model.topdown.encoder.parameters() if p.grad is not None)  # type: ignore[union-attr]
    assert all(slope > 0 for slope in slopes.values())


def test_pixelcnn_alone_sees_nothing_of_z() -> None:
    model, batch = build("agave", GREY, preset="tiny"), Batch(symbols(GREY))
    value = nll(model, batch)["nll"]
    assert torch.allclose(value, -model.likelihood.log_prob(batch.x).mean())  # type: ignore[union-attr]


def test_free_bits_charge_nothing_below_the_threshold() -> None:
    model, batch = build("vae", GREY, preset="tiny"), Batch(symbols(GREY))
    plain = elbo(model, batch)  # type: ignore[arg-type]
    freed = elbo(model, batch, free_bits=10.0)  # type: ignore[arg-type]
    assert torch.allclose(freed["loss"], plain["distortion"] + 2 * 10.0)  # two units, each at its threshold
    assert torch.allclose(freed["rate"], plain["rate"])  # what is reported is the true rate


def test_free_bits_of_a_grid_are_charged_by_feature_map() -> None:
    model, batch = build("vae", GREY, preset="tiny", spatial=True), Batch(symbols(GREY))
    maps = model.elbo(batch.x).groups["z"].detach().mean(0).sum((1, 2))
    bits = float(maps.mean())  # between the two
    freed = elbo(model, batch, free_bits=bits)  # type: ignore[arg-type]
    assert float(maps.min()) < bits < float(maps.max())
    assert torch.allclose(freed["loss"], freed["distortion"] + bits + maps.max())


def test_warm_up_raises_the_weight_of_the_rate() -> None:
    model, x = build("vae", GREY, preset="tiny"), symbols(GREY)
    for step, weight in ((0, 0.1), (4, 0.5), (9, 1.0), (50, 1.0)):
        terms = elbo(model, Batch(x, step=step), beta=2.0, warmup=10)  # type: ignore[arg-type]
        assert torch.allclose(terms["loss"], terms["distortion"] + 2 * weight * terms["rate"])


def test_one_importance_sample_is_the_elbo_and_more_are_tighter() -> None:
    model, x = build("vae", GREY, preset="tiny"), symbols(GREY, 64)
    with torch.no_grad():
        one = importance_weights(model, Batch(x), 1).mean()  # type: ignore[arg-type]
        many = -iwae(model, Batch(x), 64)["iwae"]  # type: ignore[arg-type]
    assert many > one


@pytest.mark.parametrize(("colours", "factor"), [(256, 1), (16, 1), (256, 2), (32, 4)])
def test_auxiliary_image(colours: int, factor: int) -> None:
    x = torch.randint(256, (2, 3, 8, 8))
    y = auxiliary_image(x, levels=256, colours=colours, factor=factor)
    assert y.shape == (2, 3, 8 // factor, 8 // factor)
    block = x[0, 1, :factor, :factor].double().mean().round().long()
    assert y[0, 1, 0, 0] == block * colours // 256
    assert 0 <= int(y.min()) <= int(y.max()) < colours
    assert torch.equal(auxiliary_image(x.to(torch.uint8), 256, colours, factor), y)  # no overflow of small integers


def test_the_means_of_f_stand_on_the_scale_of_x_whatever_the_colours() -> None:
    """Eq. 8: with a mean m and a scale s of x, p(y) is the logistic's mass between the middles of the levels around y's."""
    model = build("agave", DataSpec("image", (1, 4, 4), levels=256), preset="tiny", colours=16)
    mean, log_scale = torch.tensor(0.3), -2.0
    torch.nn.init.constant_(model.auxiliary.likelihood.network.scaled, log_scale / GAIN)  # type: ignore[union-attr]
    x = torch.randint(256, (3, 1, 4, 4))
    found = model.auxiliary.log_prob(x, Context(grid=mean.expand(3, 1, 4, 4)))  # type: ignore[union-attr]
    y, scale = x // 16, torch.tensor(log_scale).exp() / stretch(256, 16)
    edges = [(2 * side - 256) / 255 for side in (16 * y, 16 * y + 16)]  # half a level below the first, above the last
    low, high = (torch.sigmoid((edge - mean) / scale) for edge in edges)
    expected = (high.where(y < 15, 1.0) - low.where(y > 0, 0.0)).log().flatten(1).sum(1)
    assert torch.allclose(found, expected)


@pytest.mark.parametrize("options", [{}, {"factor": 2}, {"halvings": 2, "blocks": 2, "posterior": "iaf", "conditional": True}])
def test_agave_on_a_resnet_of_latents(options: dict[str, object]) -> None:
    spec = replace(RGB, classes=3)
    model = build("agave", spec, preset="tiny", encoder="resnet", **options)
    x, labels = symbols(spec), torch.arange(4) % 3 if "conditional" in options else None
    terms = auxiliary_guided(model, Batch(x, labels))  # type: ignore[arg-type]
    terms["loss"].backward()
    idle = {name for name, p in model.topdown.named_parameters() if p.grad is None}  # type: ignore[union-attr]
    top = f"layers.{len(model.topdown.layers) - 1}.up_second"  # type: ignore[union-attr, arg-type]
    assert torch.isfinite(terms["loss"]) and idle == {f"{top}.weight", f"{top}.bias"}
    groups = model.elbo(x).groups  # type: ignore[union-attr]
    assert list(groups) == [f"z{i + 1}" for i in range(len(groups))]
    assert [kl.shape[2:] for kl in groups.values()] == sorted(kl.shape[2:] for kl in groups.values())  # coarse ones first


def test_auxiliary_image_that_does_not_fit_is_refused() -> None:
    with pytest.raises(ValueError, match="does not divide"):
        build("agave", GREY, preset="tiny", factor=4)
    with pytest.raises(ValueError, match="2 to 5"):
        build("agave", GREY, preset="tiny", colours=8)
    with pytest.raises(ValueError, match="it is a share of the steps"):
        build("agave", GREY, preset="tiny", pretraining=2.0)
    with pytest.raises(ValueError, match="images of integers"):
        build("agave", DataSpec("vector", (4,)))


@pytest.mark.parametrize(("halvings", "factor"), [(1, 2), (2, 4), (3, 4)])
def test_a_smaller_auxiliary_image_reads_every_cell_of_z(halvings: int, factor: int) -> None:
    model = build("agave", EIGHT, preset="tiny", spatial=True, halvings=halvings, factor=factor).double()
    z = torch.randn(1, *model.topdown.latent, dtype=torch.float64, requires_grad=True)  # type: ignore[union-attr, misc]
    features = model.features(z).grid  # type: ignore[union-attr]
    features.square().sum().backward()  # type: ignore[union-attr]
    assert features.shape == (1, 1, 8 // factor, 8 // factor)  # type: ignore[union-attr]
    assert z.grad is not None and (z.grad != 0).all()
    x = symbols(EIGHT, 2)
    assert torch.isfinite(model.elbo(x).bound).all()  # type: ignore[union-attr]


@pytest.mark.parametrize(("halvings", "factor"), [(0, 2), (1, 4)])
def test_an_auxiliary_image_smaller_than_a_grid_of_z_is_refused(halvings: int, factor: int) -> None:
    with pytest.raises(ValueError, match=f"factor is {factor}, .* raise halvings, lower factor, or take spatial=False"):
        build("agave", EIGHT, preset="tiny", spatial=True, halvings=halvings, factor=factor)


def test_without_auxiliary_loss_it_is_a_vae_with_a_pixelcnn() -> None:
    model = build("agave", GREY, preset="tiny", auxiliary=False, lambda_=1.0)
    assert model.auxiliary is None
    assert [(stage.name, stage.objective) for stage in model.config.stages] == [("pixelcnn", "nll"), ("joint", "elbo")]
    with pytest.raises(ValueError, match="no auxiliary"):
        auxiliary_guided(model, Batch(symbols(GREY)))  # type: ignore[arg-type]


def test_stages_share_the_run() -> None:
    stages = build("agave", GREY, preset="tiny").config.stages
    assert [stage.name for stage in stages] == ["vae", "pixelcnn", "joint"]
    assert sum(stage.share for stage in stages) == pytest.approx(1.0)


def test_labels_reach_posterior_and_likelihood() -> None:
    model, x = build("agave", GREY, preset="tiny", conditional=True), symbols(GREY)
    for parameter in model.parameters():
        torch.nn.init.normal_(parameter, std=0.2)
    one, two = (label_context(torch.full((4,), label), GREY, torch.zeros(())) for label in (0, 1))
    assert not torch.allclose(model.encode(x, one)["z"], model.encode(x, two)["z"])  # type: ignore[union-attr]
    z = {"z": torch.zeros(4, 2)}
    assert not torch.allclose(
        *(model.likelihood.log_prob(x, model.features(z, label)) for label in (one, two))  # type: ignore[union-attr]
    )


def test_labels_that_do_not_exist_are_refused() -> None:
    with pytest.raises(ValueError, match=r"0 \.\. 2"):
        label_context(torch.tensor([3]), GREY, torch.zeros(()))
    with pytest.raises(ValueError, match="no classes"):
        label_context(torch.tensor([0]), RGB, torch.zeros(()))


def test_choosers() -> None:
    prior, posterior = Normal(torch.zeros(2, 3), torch.ones(2, 3)), Normal(torch.ones(2, 3), torch.ones(2, 3) / 2)
    assert torch.equal(mean("z", prior, posterior), torch.ones(2, 3))
    assert torch.equal(given({"z": torch.ones(2, 3)})("z", prior, None), torch.ones(2, 3))
    with pytest.raises(ValueError, match="no values"):
        given({"y": torch.ones(2)})("z", prior, None)
    drawn, narrow = Noise(0, range(2))("z", prior, posterior), Noise(0, range(2), temperature=0.5)("z", prior, posterior)
    assert torch.allclose(narrow - 1, (drawn - 1) / 2)
    assert torch.allclose(Noise(0, range(2), prior=True)("z", prior, posterior), 2 * (drawn - 1))


def test_a_tensor_of_the_only_group_needs_no_name() -> None:
    model, z = build("vae", GREY, preset="tiny"), torch.randn(4, 2)
    assert torch.equal(model.decode(z, seed=3), model.decode({"z": z}, seed=3))  # type: ignore[union-attr]
    assert torch.equal(sample(model, 4, z=z, seed=3), model.decode({"z": z}, seed=3))  # type: ignore[union-attr]
    for wrong, message in (
        (torch.randn(4, 3), r"z\['z'\] has shape \(4, 3\); the model takes \(n, 2\)"),
        (z * torch.nan, "NaN"),
        (z.numpy(), "came as ndarray: give a tensor"),
        ({}, "no values for the latent group 'z'"),
    ):
        with pytest.raises(ValueError, match=message):
            model.decode(wrong)  # type: ignore[arg-type, union-attr]
        with pytest.raises(ValueError, match=message):
            sample(model, 4, z=wrong)  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="groups z2, z1"):
        build("hierarchical-pixelvae", GREY, preset="tiny").decode(z)  # type: ignore[union-attr]


@pytest.mark.parametrize("name", [name for name, each in MODELS.items() if each.status == "bound"])
def test_groups_are_called_alike_in_files_and_passes(name: str) -> None:
    sequences = {"transformer-vae": DataSpec("text", (8,), levels=5), "wavenet-vae": DataSpec("audio", (16,), levels=8)}
    model = build(name, sequences.get(name, DataSpec("image", (3, 8, 8), levels=4)), preset="tiny")
    names = [stage.name for stage in model.topdown.generator().stages]  # type: ignore[union-attr]
    assert names == [group.name for group in model.topdown.descend(Noise(0, [0]), n=1).groups]  # type: ignore[union-attr]


@pytest.mark.parametrize("name", ["vae", "iaf-vae", "hierarchical-pixelvae"])
@pytest.mark.parametrize("kind", [torch.float64, torch.float16, torch.int64])
def test_z_may_be_numbers_of_any_type(name: str, kind: torch.dtype) -> None:
    model = build(name, GREY, preset="tiny")
    z = {group: values.round() for group, values in model.encode(symbols(GREY, 2)).items()}  # type: ignore[union-attr]
    other = {group: values.to(kind) for group, values in z.items()}
    assert torch.equal(model.decode(z), model.decode(other))  # type: ignore[union-attr]
    assert torch.equal(sample(model, 2, z=z, seed=0), sample(model, 2, z=other, seed=0))


def test_a_model_is_called_as_a_module() -> None:
    model, x = build("vae", GREY, preset="tiny"), symbols(GREY)
    assert torch.equal(model(x, seed=3), model.elbo(x, seed=3).bound)  # type: ignore[union-attr]
    plain = build("made", DataSpec("vector", (4,), levels=2), preset="tiny")
    y = torch.randint(2, (3, 4))
    with torch.no_grad():
        assert torch.equal(torch.compile(plain, backend="eager")(y), plain.log_prob(y))  # type: ignore[union-attr]


def test_what_is_asked_of_the_wrong_kind_of_model_is_told() -> None:
    latent, plain, batch = build("vae", GREY, preset="tiny"), build("pixelcnn", GREY, preset="tiny"), Batch(symbols(GREY))
    with pytest.raises(AttributeError, match=r"has no log_prob.*elbo\(x\)\.bound"):
        latent.log_prob(batch.x)  # type: ignore[operator]
    assert not hasattr(latent, "walk")
    with pytest.raises(ValueError, match="nll says nothing of such a model"):
        nll(latent, batch)
    for objective in (elbo, iwae):
        with pytest.raises(ValueError, match="for models with latents, and this one has none"):
            objective(plain, batch)  # type: ignore[operator]
    with pytest.raises(ValueError, match="k is 0"):
        iwae(latent, batch, 0)  # type: ignore[arg-type]
    with pytest.raises(ValueError, match=r"no option 'betta'.* beta, free_bits"):
        elbo(latent, batch, betta=2.0)  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="rows are 2 for a batch of 3"):
        latent.elbo(batch.x[:3], rows=[0, 1])  # type: ignore[union-attr]


@pytest.mark.parametrize("name", ["vae", "made", "gated-pixelcnn"])
def test_labels_are_no_context(name: str) -> None:
    model, x, labels = build(name, GREY, preset="tiny", conditional=True), symbols(GREY, 3), torch.tensor([0, 1, 2])
    calls = [model.elbo, model.encode] if isinstance(model, Latent) else [model.log_prob, lambda x, y: model.walk(3, y)]  # type: ignore[union-attr]
    for call in (*calls, lambda x, y: sample(model, 3, context=y)):
        with pytest.raises(DataError, match=r"context is a Tensor.*label_context.*labels="):
            call(x, labels)  # type: ignore[operator]
    with pytest.raises(DataError, match="came as ndarray"):
        calls[0](x.numpy(), None)  # type: ignore[operator]


@pytest.mark.parametrize("name", ["vae", "agave", "iaf-vae", "made", "gated-pixelcnn"])
def test_a_context_has_a_row_for_every_example(name: str) -> None:
    model, x = build(name, GREY, preset="tiny", conditional=True), symbols(GREY, 6)
    calls = [model.elbo, model.encode] if isinstance(model, Latent) else [model.log_prob]  # type: ignore[union-attr]
    for call, rows in product(calls, (1, 3)):
        label = label_context(torch.zeros(rows, dtype=torch.long), GREY, torch.zeros(()))
        with pytest.raises(DataError, match=f"vector has {rows} rows for 6 examples: give each its own, as one label each"):
            call(x, label)  # type: ignore[operator]
    with pytest.raises(DataError, match="grid has 1 rows for 6 examples"):
        calls[0](x, Context(grid=torch.zeros(1, 1, 7, 6)))  # type: ignore[operator]


def test_decoders_that_do_not_fit_are_refused() -> None:
    with pytest.raises(ValueError, match="levels=5"):
        decoder_family("bernoulli", GREY)
    with pytest.raises(ValueError, match="choose auto"):
        decoder_family("student", GREY)


def test_data_that_do_not_fit_are_refused() -> None:
    with pytest.raises(ValueError, match="varies in length: take transformer-vae for text, wavenet-vae for sound"):
        build("vae", DataSpec("text", (None,), levels=6, end=5), preset="tiny")
    with pytest.raises(DataError, match="range"):
        build("vae", GREY, preset="tiny").elbo(torch.full((1, 1, 7, 6), 5))  # type: ignore[union-attr]
