"""Sampling by walks: one sample for one seed and row; samples against enumeration; ways through latent space."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from tiny_latents import Posterior, awake, coins, fits, fixed, pixels, probabilities, states
from torch import Tensor

from ancestral.core import Autoregressive, Context, Network
from ancestral.draw import uniforms
from ancestral.families import Normal
from ancestral.latent.latent import Latent
from ancestral.sampling import beam_search, decoded_means, interpolate, sample, traverse
from ancestral.sampling.interpolate import slerp
from ancestral.sampling.strategies import Rows
from ancestral.spec import DataSpec

GREY = DataSpec("image", (1, 5, 4), levels=4, classes=3)
RGB = DataSpec("image", (3, 3, 4), levels=5)
WALKS = ("cached", "recompute")  # test_parallel_sampling.py has the other methods


def fresh(name: str, spec: DataSpec, **overrides: Any) -> Any:
    return awake(name, spec, 0.5, **overrides)


MODELS = [("gated-pixelcnn", GREY), ("gated-pixelcnn", RGB), ("agave", GREY), ("agave", RGB), ("vae", GREY)]


@pytest.mark.parametrize(
    ("name", "spec"), MODELS, ids=lambda each: each if isinstance(each, str) else f"{each.shape[0]} channels"
)
@pytest.mark.parametrize("options", [{}, {"temperature": 1.3, "top_k": 3, "top_p": 0.95}, {"temperature": 0}])
def test_methods_agree(name: str, spec: DataSpec, options: dict[str, Any]) -> None:
    model = fresh(name, spec)
    cached, recomputed = (sample(model, 5, seed=4, method=method, **options) for method in WALKS)
    assert torch.equal(cached, recomputed)
    assert len(cached.unique()) > 1 or options.get("temperature") == 0


@pytest.mark.parametrize("method", WALKS)
@pytest.mark.parametrize("name", ["gated-pixelcnn", "agave"])
def test_a_row_depends_on_its_number_alone(name: str, method: str) -> None:
    model = fresh(name, GREY)
    whole = sample(model, 7, seed=9, method=method)
    assert torch.equal(sample(model, 7, seed=9, method=method, batch_size=3), whole)
    assert torch.equal(sample(model, 2, seed=9, method=method, first_row=5), whole[5:])
    assert not torch.equal(sample(model, 7, seed=10, method=method), whole)


class Sums(Network):
    """x_i ~ N(what came before, 1): real values, by the default start and step."""

    def forward(self, x: Tensor, context: Context | None = None) -> Tensor:
        before = x.cumsum(1) - x
        return torch.stack([before, torch.zeros_like(before)], -1)


def test_methods_agree_on_real_values() -> None:
    model = Autoregressive(Sums((6,), discrete=False), Normal(), DataSpec("vector", (6,)))
    cached, recomputed = (sample(model, 4, seed=1, method=method) for method in WALKS)
    noise = torch.special.ndtri(uniforms(1, range(4), 6))
    for i in range(6):
        assert torch.allclose(cached[:, i], cached[:, :i].sum(1) + noise[:, i])
    assert torch.equal(cached, recomputed)


def test_single_precision() -> None:
    model = fresh("agave", GREY).float()
    cached, recomputed = (sample(model, 6, seed=1, method=method) for method in WALKS)
    assert torch.equal(cached, recomputed)
    assert interpolate(model, cached[:2], cached[2:4], steps=3).shape == (3, 2, 1, 5, 4)


def test_samples_are_the_quantiles_of_their_own_conditionals() -> None:
    model = fresh("gated-pixelcnn", GREY)
    x = sample(model, 6, seed=2)
    u = uniforms(2, range(6), 20).view(6, 1, 5, 4)
    assert torch.equal(model.conditionals(x).quantile(u), x)


@pytest.mark.parametrize("method", WALKS)
def test_samples_follow_the_likelihood(method: str) -> None:
    model = fresh("gated-pixelcnn", DataSpec("image", (1, 2, 3), levels=2))
    expected = model.log_prob(states((1, 2, 3))).exp().detach()
    assert fits(sample(model, 3000, seed=1, method=method, batch_size=1000), expected) > 1e-3


@pytest.mark.parametrize("built", [coins, pixels])
def test_samples_with_latents_follow_the_likelihood(built: Callable[[Posterior], Latent]) -> None:
    model = built(fixed(0.0, 1.0))
    everything = states(tuple(model.likelihood.network.shape))
    expected = probabilities(model, everything)
    assert expected.sum() == pytest.approx(1, abs=1e-12)
    assert fits(sample(model, 3000, seed=1, batch_size=1000), expected) > 1e-3
    median = sample(model, 3000, z_temperature=0.0, batch_size=1000)
    at_zero = model.likelihood.log_prob(everything, model.features({"z": torch.zeros(len(everything), 1)})).exp().detach()
    assert fits(median, at_zero) > 1e-3 > fits(median, expected)


def test_progress_counts_symbols() -> None:
    model, told = fresh("gated-pixelcnn", GREY), list[tuple[int, int]]()
    sample(model, 5, batch_size=2, progress=lambda done, total: told.append((done, total)))
    assert told == sorted(told) and len(told) == 3 * 20 and told[-1] == (100, 100)


def test_modes_and_gradients_are_left_alone() -> None:
    model = fresh("agave", GREY)
    model.train()
    model.topdown.encoder.eval()
    before = [module.training for module in model.modules()]
    assert not sample(model, 2).requires_grad
    assert [module.training for module in model.modules()] == before
    with pytest.raises(ValueError, match="top_k"):
        sample(model, 2, top_k=0)
    assert [module.training for module in model.modules()] == before


def test_labels_and_contexts() -> None:
    model = fresh("agave", GREY, conditional=True)
    labels = torch.tensor([0, 1, 2, 0, 1])
    by_label = sample(model, 5, labels=labels, seed=1)
    vector = torch.nn.functional.one_hot(labels, 3).double()
    assert torch.equal(sample(model, 5, context=Context(vector=vector), seed=1, batch_size=2), by_label)
    assert torch.equal(sample(model, 1, labels=[1], seed=1, first_row=4), by_label[4:])
    assert not torch.equal(sample(model, 5, labels=[2] * 5, seed=1), by_label)
    with pytest.raises(ValueError, match="both"):
        sample(model, 5, labels=labels, context=Context(vector=vector))
    with pytest.raises(ValueError, match=r"labels has shape .* for 4 rows"):
        sample(model, 4, labels=labels)
    with pytest.raises(ValueError, match="conditional=False"):
        sample(fresh("agave", GREY), 5, labels=labels)


def test_latents_handed_over() -> None:
    model = fresh("agave", GREY)
    z = {"z": torch.randn(4, 2)}
    x = sample(model, 4, z=z, seed=5)
    assert torch.equal(x, model.decode(z, seed=5))
    assert torch.equal(sample(model, 4, z=z, seed=5, batch_size=3), x)
    with pytest.raises(ValueError, match="for 3 rows"):
        sample(model, 3, z=z)
    with pytest.raises(ValueError, match="has none"):
        sample(fresh("gated-pixelcnn", GREY), 4, z=z)


def test_the_vae_image_is_the_mean_that_z_gives() -> None:
    model = fresh("agave", GREY, colours=2)
    y = decoded_means(Rows(model, 5, seed=3), batch_size=2)
    z = {"z": torch.distributions.Normal(0.0, 1.0).icdf(uniforms(3, range(5), 2, stream=1))}
    seen = model.auxiliary.context(model.features(z))
    found = model.auxiliary.likelihood.conditionals(torch.zeros(5, 1, 5, 4, dtype=torch.long), seen)
    assert y is not None and torch.allclose(y, found.log_prob(torch.ones(5, 1, 5, 4)).exp())  # of two levels, p(1)
    plain = decoded_means(Rows(fresh("vae", GREY), 2))
    assert plain is not None and plain.shape == (2, 1, 5, 4)
    assert decoded_means(Rows(fresh("gated-pixelcnn", GREY), 2)) is None
    assert decoded_means(Rows(fresh("agave", GREY, auxiliary=False), 2)) is None


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"n": 0}, "n is 0"),
        ({"batch_size": 0}, "batch_size is 0"),
        ({"method": "quick"}, "choose one of cached, recompute, parallel"),
        ({"z_temperature": -1.0}, "z_temperature"),
        ({"seed": -1}, "seed"),
        ({"seed": 0.5}, "seed is 0.5; it must be a whole number"),
        ({"top_k": 2.5}, "top_k is 2.5; it must be a whole number"),
        ({"first_row": 0.5}, "first_row is 0.5; it must be a whole number"),
        ({"n": 2.5}, "n is 2.5; it must be a whole number"),
        ({"n": True}, "n is True; it must be a whole number"),
        ({"batch_size": 1.5}, "batch_size is 1.5; it must be a whole number"),
        ({"temperature": "1"}, "^temperature is '1'; it must be a number"),
        ({"top_p": "0.5"}, "top_p is '0.5'; it must be a number"),
        ({"z_temperature": "1"}, "z_temperature is '1'; it must be a number"),
        ({"first_row": 2**64}, "first_row is 18446744073709551616; it must be at least 0 and below 2\\^64"),
        ({"first_row": 2**64 - 1}, r"first_row \+ n - 1, is 18446744073709551616; it must be"),
        ({"prompt": "the"}, r"string 'the': .*notation\.encode"),
    ],
)
def test_wrong_arguments(wrong: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        sample(fresh("agave", GREY), **{"n": 2, **wrong})


@pytest.mark.parametrize("options", [{"engine": "eager"}, {"engine": "native"}, {"method": "parallel"}, {"method": "recompute"}])
def test_a_network_that_gives_nan_is_refused(options: dict[str, Any]) -> None:
    model = fresh("made", DataSpec("vector", (4,), levels=3)).float()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.fill_(torch.nan)
    with pytest.raises(ValueError, match="gives NaN"):
        sample(model, 2, **options)
    with pytest.raises(ValueError, match="gives NaN"):
        beam_search(model, 2)


# -- moves through latent space ------------------------------------------------------------------------------------------


def test_slerp_keeps_the_length_and_meets_its_ends() -> None:
    a, b = torch.randn(2, 6, 3, 2, 2)
    b *= (a.flatten(1).norm(dim=1) / b.flatten(1).norm(dim=1)).view(6, 1, 1, 1)
    assert torch.allclose(slerp(a, b, 0.0), a) and torch.allclose(slerp(a, b, 1.0), b)
    assert torch.allclose(slerp(a, b, 0.3).flatten(1).norm(dim=1), a.flatten(1).norm(dim=1))
    line = torch.tensor([[1.0, 2.0]])
    assert torch.allclose(slerp(line, 3 * line, 0.5), 2 * line)  # one direction: a straight line
    assert torch.allclose(slerp(line, -line, 0.25), line / 2)
    assert torch.equal(slerp(0 * line, 0 * line, 0.5), 0 * line)


def test_interpolation_starts_and_ends_at_the_codes() -> None:
    model = fresh("agave", GREY)
    a, b = sample(model, 3, seed=1), sample(model, 3, seed=2)
    way = interpolate(model, a, b, steps=5, seed=6)
    assert way.shape == (5, 3, 1, 5, 4)
    assert torch.equal(way[0], sample(model, 3, z=model.encode(a), seed=6))
    assert torch.equal(way[4], sample(model, 3, z=model.encode(b), seed=6))
    assert torch.equal(interpolate(model, a, b, steps=5, seed=6, batch_size=4), way)
    assert all(torch.equal(step, way[0]) for step in interpolate(model, a, a, steps=3, seed=6))


def test_traversal_moves_one_unit() -> None:
    model = fresh("agave", GREY, spatial=True)
    x = sample(model, 2, seed=1)
    seen = traverse(model, x, 1, [-2.0, 0.5], seed=3, batch_size=3)
    z = model.encode(x)["z"].clone()
    z[:, 1] = 0.5
    assert seen.shape == (2, 2, 1, 5, 4)
    assert torch.equal(seen[1], sample(model, 2, z={"z": z}, seed=3))
    for wrong, message in (({"unit": 2}, "0 .. 1"), ({"group": "y"}, "there is z"), ({"values": []}, "empty")):
        with pytest.raises(ValueError, match=message):
            traverse(model, x, **{"unit": 0, "values": [0.0], **wrong})  # type: ignore[arg-type]


def test_only_latents_can_be_moved_through() -> None:
    model, x = fresh("gated-pixelcnn", GREY), torch.zeros(2, 1, 5, 4, dtype=torch.long)
    with pytest.raises(ValueError, match="interpolate is for models with latents"):
        interpolate(model, x, x)
    with pytest.raises(ValueError, match="traverse is for models with latents"):
        traverse(model, x, 0, [0.0])
    with pytest.raises(ValueError, match="3 rows and b 2"):
        interpolate(fresh("agave", GREY), torch.zeros(3, 1, 5, 4, dtype=torch.long), x)
    with pytest.raises(ValueError, match="steps is 1"):
        interpolate(fresh("agave", GREY), x, x, steps=1)


def test_conditional_moves() -> None:
    model = fresh("agave", GREY, conditional=True)
    x, labels = torch.randint(4, (2, 1, 5, 4)), [0, 2]
    vector = Context(vector=torch.nn.functional.one_hot(torch.tensor(labels), 3).double())
    way = interpolate(model, x, x, steps=2, labels=labels, seed=1)
    assert torch.equal(way[1], sample(model, 2, z=model.encode(x, vector), labels=labels, seed=1))
