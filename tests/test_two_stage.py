"""Images in two stages: what the auxiliary images are, that the bound is one, and that files begin with them."""

from __future__ import annotations

import json
import re
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

import ancestral
from ancestral.coding import two_part
from ancestral.core import Autoregressive, Context
from ancestral.data.splits import Examples, Splits
from ancestral.evaluation.latents import Carried, verdict
from ancestral.evaluation.study import study
from ancestral.latent.codes import Certain, CodePrior
from ancestral.latent.latent import Latent
from ancestral.latent.topdown import Noise, given
from ancestral.latent.two_stage import TwoStageTopDown, grey_image, smaller_image
from ancestral.objectives import Batch, distortion, importance_weights, rate
from ancestral.report import report
from ancestral.spec import DataSpec
from ancestral.walking.exact.generator import ExactGenerator
from ancestral.walking.twin import Twin, restored, twin

BITS = DataSpec("image", (1, 4, 4), levels=2, classes=3)
RGB = DataSpec("image", (3, 8, 8), levels=256)
FORMS: dict[str, tuple[DataSpec, dict[str, Any]]] = {
    "pyramid": (RGB, {"halvings": 2}),
    "grey": (RGB, {"form": "grey"}),
    "by label": (BITS, {"conditional": True}),
}


def made(spec: DataSpec, **overrides: Any) -> Latent:
    """A tiny model whose weights are nowhere zero, so that nothing is unused by chance."""
    torch.manual_seed(1)
    model = ancestral.build("two-stage", spec, preset="tiny", **overrides)
    assert isinstance(model, Latent)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(torch.randn(parameter.shape), alpha=0.1)
    return model.eval()


def symbols(spec: DataSpec, n: int = 3) -> Tensor:
    return torch.randint(spec.levels or 2, (n, *spec.shape), generator=torch.Generator().manual_seed(0))


def joint(model: Latent, x: Tensor) -> Tensor:
    """(2, n) log p(x, y) of 2 x 2 bits for both y of one place."""
    found = []
    for value in range(2):
        descent = model.topdown.descend(given({"1x1": torch.full((len(x), 1, 1, 1), value)}), n=len(x))
        found.append(descent.groups[0].log_p.flatten(1).sum(1) + model.likelihood.log_prob(x, descent.features))
    return torch.stack(found)


def test_the_grey_image_is_the_first_four_bits_of_the_luma() -> None:
    x = symbols(RGB, 50)
    r, g, b = (channel.numpy().astype(object) for channel in x.unbind(1))
    luma = (2 * (299 * r + 587 * g + 114 * b) + 1000) // 2000
    assert np.array_equal(grey_image(x, 256, 16)[:, 0].numpy(), (luma >> 4).astype(int))
    every = torch.arange(256).view(-1, 1, 1, 1)
    assert torch.equal(grey_image(every.expand(-1, 3, 1, 1), 256, 256), every)  # what has no colour keeps its grey


def test_smaller_images_are_exact_means_rounded_half_up() -> None:
    x = symbols(RGB, 20)
    for factor in (2, 4):
        blocks = x.numpy().reshape(20, 3, 8 // factor, factor, 8 // factor, factor).transpose(0, 1, 2, 4, 3, 5)
        means = blocks.reshape(*blocks.shape[:4], -1).sum(-1)
        wanted = [(2 * int(total) + factor**2) // (2 * factor**2) for total in means.flatten()]
        assert smaller_image(x, factor).flatten().tolist() == wanted
    assert smaller_image(torch.tensor([[[[0, 0], [1, 1]]]]), 2).item() == 1


@pytest.mark.parametrize("form", FORMS)
def test_rate_and_distortion_are_what_the_models_say_of_y_and_of_x(form: str) -> None:
    spec, overrides = FORMS[form]
    model, x = made(spec, **overrides), symbols(spec)
    labels = torch.arange(3) if spec.classes else None
    context = None if labels is None else ancestral.Context(vector=torch.eye(3))
    z, found = model.encode(x, context), model.elbo(x, context)
    topdown, h, nats = model.topdown, None, torch.zeros(3)
    assert isinstance(topdown, TwoStageTopDown)
    for name, prior, shown in zip(topdown.names, topdown.priors, topdown.shown, strict=True):
        seen = ancestral.Context(vector=None if context is None else context.vector, grid=h)
        nats -= prior.log_prob(z[name], seen)  # type: ignore[operator]
        h = shown(None, z[name], None)
    assert torch.allclose(found.rate, nats, atol=1e-9)
    assert torch.allclose(found.distortion, -model.likelihood.log_prob(x, model.features(z, context)), atol=1e-9)
    terms = rate(model, Batch(x, labels)), distortion(model, Batch(x, labels))
    for each in terms:
        assert each["rate"].item() == pytest.approx(found.rate.mean().item())
        assert each["distortion"].item() == pytest.approx(found.distortion.mean().item())
    assert torch.equal(terms[0]["loss"], terms[0]["rate"]) and torch.equal(terms[1]["loss"], terms[1]["distortion"])


def test_the_bound_lies_below_the_likelihood_by_what_other_images_y_explain() -> None:
    """p(x, y) over all 2^4 images x and both y of one place sums to 1, and every bound is one term of log p(x)."""
    spec = DataSpec("image", (1, 2, 2), levels=2)
    model = made(spec)
    x = torch.tensor(list(product(range(2), repeat=4))).view(-1, 1, 2, 2)
    both = joint(model, x)
    log_p = both.logsumexp(0)
    assert log_p.exp().sum().item() == pytest.approx(1, abs=1e-12)
    bounds = model.elbo(x).bound
    assert (bounds < log_p).all()
    own = smaller_image(x, 2).flatten()
    assert torch.allclose(bounds, both[own, torch.arange(len(x))])
    assert torch.allclose(importance_weights(model, Batch(x), 3), bounds[:, None])  # more samples are the same sample


def test_every_place_of_a_larger_image_is_told_from_its_neighbours() -> None:
    """A smaller image of one value all over still lets the parameters of the four places of a square differ."""
    model = made(BITS)
    flat = model.features({"2x2": torch.zeros(1, 1, 2, 2, dtype=torch.long)})
    assert len(flat.grid.flatten(2).squeeze(0).T[:8].unique(dim=0)) == 4  # type: ignore[union-attr]


@pytest.mark.parametrize("form", FORMS)
def test_each_stage_trains_its_own_part(form: str) -> None:
    spec, overrides = FORMS[form]
    model = made(spec, **overrides).train()
    batch = Batch(symbols(spec), torch.arange(3) if spec.classes else None)
    for objective, part in ((rate, "topdown"), (distortion, "likelihood")):
        model.zero_grad()
        terms = objective(model, batch)
        assert len(terms) == 2  # the other term is not computed
        terms["loss"].backward()
        moved = {name.split(".")[0] for name, p in model.named_parameters() if p.grad is not None and p.grad.any()}
        idle = {name for name, p in model.get_submodule(part).named_parameters() if p.grad is None or not p.grad.any()}
        assert moved == {part}
        assert {name for name in idle if ".out." not in name} == set()  # of the last gated layer the skip alone is read
    assert [stage.parts for stage in model.config.stages] == [("topdown",), ("likelihood",)]


@pytest.mark.parametrize("form", FORMS)
def test_samples_are_rows_of_their_own_and_follow_the_prior(form: str) -> None:
    spec, overrides = FORMS[form]
    model = made(spec, **overrides)
    both = [model.topdown.descend(Noise(5, rows), n=len(rows)).groups for rows in (range(4), range(2, 4))]
    for whole, part in zip(*both, strict=True):
        assert torch.equal(whole.z[2:], part.z)
        assert isinstance(whole.prior, CodePrior) and whole.z.dtype == torch.long
    u = torch.rand(4, *both[0][0].z.shape[1:])
    prior = both[0][0].prior
    assert isinstance(prior, CodePrior)
    drawn = prior.icdf(u)
    assert torch.equal(drawn, prior.model.conditionals(drawn, prior.context).quantile(u))
    modes = prior.model.conditionals(prior.mean, prior.context).mode
    assert torch.equal(prior.mean, modes)


def test_what_x_determines_is_certain() -> None:
    y = torch.tensor([[0, 3]])
    assert Certain(y).log_prob(torch.tensor([[0, 2]])).tolist() == [[0.0, -torch.inf]]
    assert torch.equal(Certain(y).mean, y) and torch.equal(Certain(y).icdf(torch.rand(1, 2)), y)


@pytest.mark.parametrize("form", FORMS)
def test_files_begin_with_the_auxiliary_image(form: str) -> None:
    spec, overrides = FORMS[form]
    model, x = made(spec, **overrides), symbols(spec, 5)
    vector = torch.eye(3)[torch.arange(5) % 3] if spec.classes else None
    exact = twin(model, x, "eager", vector=vector)
    payload = two_part.encode(exact, _generator(exact), x, vector)
    again = restored(model, json.loads(json.dumps(exact.calibration)), "native")
    assert again.identity == exact.identity
    first = two_part.popped(_generator(again), two_part.parts(payload)[0], 5, vector)
    topdown = model.topdown
    assert isinstance(topdown, TwoStageTopDown)
    assert torch.equal(first, torch.cat([y.flatten(1) for y in topdown.images(x)], 1))
    assert torch.equal(two_part.decode(again, _generator(again), payload, 5, vector), x)
    spent = exact.cost(x, vector=vector).sum().item() / np.log(2)
    assert 8 * len(payload) <= spent + 8 * two_part.SIZE + 2 * 64 + 32  # two stacks, each of whole words


def _generator(exact: Twin) -> ExactGenerator:
    assert isinstance(exact.latents, ExactGenerator)
    return exact.latents


@torch.no_grad()
def test_the_model_of_y_is_told_labels_by_itself() -> None:
    model = made(BITS, conditional=True)
    prior = model.topdown.priors[0]  # type: ignore[index, union-attr]
    assert isinstance(prior, Autoregressive) and prior.conditional and prior.spec.classes == 3
    y, labels = torch.randint(2, (3, *prior.network.shape)), torch.tensor([0, 1, 2])
    told = float(-prior.log_prob(y, Context(vector=torch.eye(3)[labels])).mean())
    assert ancestral.evaluate(prior, Examples(y, labels)).nats == pytest.approx(told, rel=1e-5)
    assert not made(BITS).topdown.priors[0].conditional  # type: ignore[index, union-attr]


def test_other_data_are_refused() -> None:
    cases: list[tuple[DataSpec, dict[str, Any], str]] = [
        (BITS, {"form": "grey"}, "x itself"),
        (BITS, {"form": "blue"}, "pyramid, grey"),
        (BITS, {"halvings": 3}, "cannot be halved 3 times"),
        (BITS, {"halvings": 0}, "at least 1 smaller image"),
        (RGB, {"form": "grey", "colours": 1}, "at least 2 levels"),
        (RGB, {"auxiliary_share": 1.5}, "from 0 to 1"),
        (RGB, {"auxiliary_layers": 0}, "auxiliary_layers is 0; it must be at least 1"),
        (RGB, {"auxiliary_channels": 2}, "auxiliary_channels is 2; it must be at least 3, one for every colour"),
        (RGB, {"form": "grey", "auxiliary_channels": 0}, "auxiliary_channels is 0; it must be at least 1"),
        (RGB, {"stream": -1}, "stream is -1; it must be at least 0"),
        (DataSpec("vector", (4,), levels=2), {}, "models images"),
    ]
    for spec, overrides, complaint in cases:
        with pytest.raises(ValueError, match=complaint):
            ancestral.build("two-stage", spec, preset="tiny", **overrides)


def test_numbers_that_are_no_symbols_of_y_are_refused() -> None:
    model = made(RGB, form="grey")
    z = model.encode(symbols(RGB, 2))
    with pytest.raises(ValueError, match=r"z\['greys'\] ranges over 99 \.\. 99; it takes whole numbers 0 \.\. 15"):
        model.decode({name: torch.full_like(y, 99) for name, y in z.items()})
    with pytest.raises(ValueError, match=r"z\['greys'\] has type torch.float64; it takes whole numbers 0 \.\. 15"):
        ancestral.sample(model, 2, z={name: y.double() + 0.5 for name, y in z.items()})


@pytest.mark.parametrize("place", [[0, 1], [2, 3]])
def test_completions_follow_the_joint_distribution(place: list[int]) -> None:
    """Of 2 x 2 bits with a row known no y is decided, so that all is drawn from p(x, y | known); by enumeration."""
    model = made(DataSpec("image", (1, 2, 2), levels=2))
    states = torch.tensor(list(product(range(2), repeat=4))).view(-1, 1, 2, 2)
    log_p, known = joint(model, states).logsumexp(0), torch.zeros(4, dtype=torch.bool)
    known[place] = True
    fits = (states.flatten(1)[:, known] == torch.tensor([1, 0])).all(1)
    n = 300
    x = torch.zeros(n, 4, dtype=torch.long)
    x[:, known] = torch.tensor([1, 0])
    found = ancestral.complete(model, x.view(n, 1, 2, 2), known.view(1, 2, 2), particles=8, seed=3)
    assert found.log_evidence.exp().mean().log().item() == pytest.approx(log_p[fits].logsumexp(0).item(), abs=0.03)
    wanted = log_p[fits].softmax(0)
    counts = torch.stack([(found.x == state).flatten(1).all(1).sum() for state in states[fits]])
    assert counts.sum() == n
    assert ((counts / n - wanted).abs() < 4 * (wanted * (1 - wanted) / n).sqrt()).all()


def test_what_is_known_of_x_decides_part_of_y() -> None:
    for form in ("pyramid", "grey"):
        spec, overrides = FORMS[form]
        model, x = made(spec, **overrides), symbols(spec, 2)
        topdown = model.topdown
        assert isinstance(topdown, TwoStageTopDown)
        known = torch.zeros_like(x, dtype=torch.bool)
        known[:, :, :4] = True
        for (y, where), whole in zip(topdown.decided(x.where(known, 0), known).values(), topdown.images(x), strict=True):
            top = where.shape[2] // 2
            assert where[:, :, :top].all() and not where[:, :, top:].any()
            assert torch.equal(y, whole.where(where, 0))
        known[0, 0, 0, 0] = False
        assert not any(where[0, 0, 0, 0] for _, where in topdown.decided(x.where(known, 0), known).values())
        done = ancestral.complete(model, x, known, particles=2)
        assert torch.equal(done.x[known], x[known]) and done.status == "approximate"


def test_pictures_of_few_levels_are_not_taken_for_a_collapse() -> None:
    """Even where all are of one level: what the decoder makes of them is what counts."""
    found = ancestral.evaluate(made(BITS), torch.zeros(4, 1, 4, 4, dtype=torch.long))
    assert found.status == "bound" and found.importance_samples is None
    assert found.verdict is not None and found.verdict.endswith("z is a picture that x determines")
    assert not found.remedies and "chooses" not in found.verdict


def test_pictures_that_hardly_vary_are_not_taken_for_a_collapse() -> None:
    """They cost little then, which is no choice of the model's; that a decoder does not read them still shows."""
    assert verdict(Carried(30.0, 0.2, 5.0, 0, 0)) == "z carries 0.29 of 43.3 bits; z is a picture that x determines"
    assert "that the decoder hardly reads" in verdict(Carried(30.0, 0.2, 0.0, 0, 0))


def test_figures_and_pages_speak_of_a_picture(tmp_path: Path) -> None:
    """Its levels are no codes, nothing is drawn from a posterior, and units that could be active there are none."""
    data = ancestral.data("digits", limit=24)
    model = ancestral.build("two-stage", data.spec, preset="tiny", halvings=2)
    found = ancestral.evaluate(model, data)
    assert found.certain and not found.code_uses and found.mutual_information is None
    assert "x leaves no choice of z" in "\n".join(found.lines())
    ancestral.save(model, tmp_path)
    page = report(tmp_path, data, samples=0, examples=2).read_text(encoding="utf-8")
    said = ("the auxiliary image of x, and x given that", "given z, which x determines", "the image that is drawn given y")
    for words in (*said, "Rate of 2x2", "Rate of 4x4"):
        assert words in page
    for words in ("codes", "Perplexity", "Active units", "VAE image", "mean of the posterior", "z as drawn", "KL of every"):
        assert words not in re.sub("codes of all examples", "", page), words


def test_pictures_of_many_symbols_are_probed() -> None:
    spec = DataSpec("image", (1, 72, 72), levels=5, classes=2)
    x = torch.randint(5, (24, *spec.shape), generator=torch.Generator().manual_seed(0))
    some = Examples(x, torch.arange(24) % 2)
    data = Splits(some, some, some, spec, "noise", "noise")
    found = study(made(spec, form="grey", colours=2), data, limit=24, few=())
    assert found.probes


def test_there_is_no_way_between_pictures() -> None:
    x = symbols(BITS, 2)
    with pytest.raises(ValueError, match=r"an image of whole numbers that x determines: take a VAE$"):
        ancestral.sampling.interpolate(made(BITS), x, x)
