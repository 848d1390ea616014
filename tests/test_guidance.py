"""Labels while training and drawing: dropped at random, and led towards by classifier-free guidance."""

from __future__ import annotations

import json
import math
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from tiny_cli import asking, calling
from tiny_latents import awake, fits, states
from tiny_training import DIGITS, QUIET, model_of, same
from torch import Tensor

import ancestral
from ancestral.core import Conditional, Context
from ancestral.draw import Draw, uniforms
from ancestral.families import Categorical
from ancestral.objectives import OBJECTIVES, Batch, label_context
from ancestral.sampling import Interrupted, sample
from ancestral.sampling.guidance import Pairs, combined, guided, stacked
from ancestral.sampling.strategies import Model, Rows, inference, likelihood_of
from ancestral.spec import DataSpec
from ancestral.training.batches import Stream, to_device
from ancestral.training.config import TrainingConfig

GREY = DataSpec("image", (1, 4, 3), levels=4, classes=3)
COINS = DataSpec("image", (1, 2, 2), levels=2, classes=2)
LABELS = [0, 1, 2, 0, 1]
NAMES = ["gated-pixelcnn", "agave", "vae"]


def fresh(name: str = "gated-pixelcnn", spec: DataSpec = GREY, **overrides: Any) -> Any:
    return awake(name, spec, 0.5, conditional=True, **overrides)


def through_pairs(model: Model, labels: list[int], weight: float, **options: Any) -> Tensor:
    """What `sample` gives with this weight, also where that is 0."""
    rows = Rows(model, len(labels), label_context(torch.tensor(labels), model.spec, model.anchor), seed=4)
    with inference(model):
        return guided(rows, Draw(4, **options), weight, "cached", 64, "eager", None)


# ---- the law of guided samples


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("options", [{}, {"temperature": 1.3, "top_k": 3, "top_p": 0.95}, {"temperature": 0}])
def test_without_weight_samples_are_the_plain_ones(name: str, options: dict[str, Any]) -> None:
    model = fresh(name)
    plain = sample(model, 5, seed=4, labels=LABELS, **options)
    assert torch.equal(sample(model, 5, seed=4, labels=LABELS, guidance=0.0, **options), plain)
    assert torch.equal(through_pairs(model, LABELS, 0.0, **options), plain)
    assert not torch.equal(sample(model, 5, seed=4, labels=LABELS, guidance=3.0), sample(model, 5, seed=4, labels=LABELS))


def guided_law(model: Model, told: Context, null: Context, weight: float) -> Tensor:
    """(2^D,) probabilities of every binary example, by products over its sites of renormalised powers."""
    x, likelihood = states((1, 2, 2)), likelihood_of(model)
    with torch.no_grad():
        ways = [likelihood.conditionals(x, each.repeat(len(x))).log_pmf().exp() for each in (told, null)]
    powers = ways[0] ** (1 + weight) * ways[1] ** -weight
    chosen = powers.gather(-1, x.unsqueeze(-1)).squeeze(-1) / powers.sum(-1)
    return chosen.flatten(1).prod(1)


@pytest.mark.parametrize("weight", [0.7, 2.0])
def test_samples_follow_the_combined_law(weight: float) -> None:
    torch.manual_seed(1)
    model = awake("gated-pixelcnn", COINS, 1.0, conditional=True)
    told, null = Context(vector=torch.tensor([[0.0, 1.0]])), Context(vector=torch.zeros(1, 2))
    expected = guided_law(model, told, null, weight)
    assert float(expected.sum()) == pytest.approx(1)
    x = sample(model, 4000, seed=1, labels=[1] * 4000, guidance=weight, batch_size=4000, engine="eager")
    assert fits(x, expected) > 1e-3
    for other in (0.0, -1.0):  # the test can tell: the plain law and the one without labels do not fit
        assert fits(x, guided_law(model, told, null, other)) < 1e-3


@pytest.mark.parametrize("name", ["agave", "vae"])
def test_the_rows_of_a_pair_share_their_z(name: str) -> None:
    model = fresh(name, COINS)
    z = torch.randn(1, 2)
    with torch.no_grad():
        features = [model.features({"z": z}, Context(vector=label)) for label in (torch.tensor([[1.0, 0.0]]), torch.zeros(1, 2))]
    x = sample(model, 4000, labels=[0] * 4000, guidance=1.5, z={"z": z.expand(4000, 2)}, batch_size=4000, engine="eager")
    assert fits(x, guided_law(model, *features, 1.5)) > 1e-3


def test_z_is_drawn_as_without_guidance() -> None:
    model, noise = fresh("agave"), {"seed": 4, "first_row": 2, "labels": LABELS, "guidance": 2.0}
    seen: list[dict[str, Tensor]] = []
    original = model.topdown.descend

    def descend(choose: Any, **parts: Any) -> Any:
        descent = original(choose, **parts)
        seen.append({group.name: group.z for group in descent.groups})
        return descent

    model.topdown.descend = descend
    x = sample(model, 5, **noise)
    assert len(seen) == 2 and same(seen[0], seen[1])
    assert torch.equal(sample(model, 5, z=seen[0], **noise), x)


@pytest.mark.parametrize(("name", "group"), [("vq-vae", "codes"), ("two-stage", "greys")])
@pytest.mark.parametrize("engine", ["eager", "auto"])
def test_codes_are_guided_too(name: str, group: str, engine: str) -> None:
    spec = DataSpec("image", (3, 4, 4), levels=17, classes=3)
    model = fresh(name, spec, **({"form": "grey"} if name == "two-stage" else {"prior": "gated-pixelcnn"})).double()
    for parameter in model.topdown.parameters():
        parameter.data.add_(torch.randn(parameter.shape, generator=torch.Generator().manual_seed(1)), alpha=0.3)
    labels = label_context(torch.tensor(LABELS), spec, model.anchor)
    drawn = {}
    with inference(model):
        for weight in (0.0, 2.0):
            rows = Pairs(model, len(LABELS), labels, seed=4, weight=weight, engine=engine)
            drawn[weight] = rows.latents(model, group, 64)
        plain = Rows(model, len(LABELS), labels, seed=4)
        [(prior, z)] = [(g.prior, g.z) for g in plain.descended(model, range(5), labels).groups if g.name == group]
        both = stacked(prior.context, replace(prior.context, vector=torch.zeros_like(prior.context.vector)))
        seen = combined(prior.model.conditionals(torch.cat([drawn[2.0]] * 2), both), 2.0)
        quantiles = seen.quantile(uniforms(4, range(len(z)), z[0].numel(), stream=1).view(z.shape))
    assert torch.equal(drawn[0.0], z) and not torch.equal(drawn[2.0], z)
    assert torch.equal(drawn[2.0], quantiles)


@pytest.mark.parametrize("name", NAMES)
def test_a_row_depends_on_its_number_and_label_alone(name: str) -> None:
    model = fresh(name)
    whole = sample(model, 5, seed=9, labels=LABELS, guidance=1.5)
    assert torch.equal(sample(model, 5, seed=9, labels=LABELS, guidance=1.5, batch_size=2), whole)
    assert torch.equal(sample(model, 2, seed=9, labels=LABELS[3:], guidance=1.5, first_row=3), whole[3:])
    assert torch.equal(sample(model, 5, seed=9, labels=LABELS, guidance=1.5, method="recompute"), whole)


def test_single_precision_and_other_engines() -> None:
    model = fresh().float()
    eager = sample(model, 5, labels=LABELS, guidance=1.5, engine="eager")
    assert torch.equal(sample(model, 5, labels=LABELS, guidance=1.5, engine="native"), eager)


def test_the_label_leads() -> None:
    """Towards more guidance the label becomes surer, by the model's own reckoning."""
    model, labels = fresh(), [1] * 200
    contexts = [label_context(torch.full((200,), label), GREY, model.anchor) for label in range(3)]
    sure = []
    for weight in (0.0, 1.0, 4.0):
        x = sample(model, 200, labels=labels, guidance=weight, batch_size=200)
        with torch.no_grad():
            sure.append(torch.stack([model.log_prob(x, context) for context in contexts]).softmax(0)[1].mean().item())
    assert sure[0] < sure[1] < sure[2]


def test_impossible_symbols_stay_impossible() -> None:
    logits = torch.tensor([[0.0, -math.inf, 0.0, -math.inf], [0.0, 0.0, -math.inf, -math.inf]])
    p = combined(Conditional(Categorical(4), logits), 1.0).log_pmf().exp()
    assert torch.equal(p, torch.tensor([[0.0, 0.0, 1.0, 0.0]]))


def test_what_guidance_cannot_do_is_said() -> None:
    model = fresh()
    for fault, options in {
        "there are none": {},
        "at least 0": {"labels": LABELS, "guidance": -0.5},
        "finite": {"labels": LABELS, "guidance": math.inf},
        "guidance is '1'; it must be a number": {"labels": LABELS, "guidance": "1"},
        "made by walks": {"labels": LABELS, "method": "parallel"},
        "labels range": {"labels": [0, 1, 2, 3, 0]},
    }.items():
        with pytest.raises(ValueError, match=fault):
            sample(model, 5, **{"guidance": 1.0, **options})
    with pytest.raises(ValueError, match="conditional=False"):
        sample(awake("gated-pixelcnn", GREY, 0.5), 5, labels=LABELS, guidance=1.0)
    real = ancestral.build("vae", DataSpec("vector", (3,), classes=2), preset="tiny", conditional=True)
    with pytest.raises(ancestral.DataError, match="density"):
        sample(real, 2, labels=[0, 1], guidance=1.0)


def test_progress_and_interruption() -> None:
    model, told = fresh(), list[tuple[int, int]]()
    sample(model, 5, labels=LABELS, guidance=1.0, batch_size=2, progress=lambda done, total: told.append((done, total)))
    assert told[-1] == (60, 60) and [done for done, _ in told] == sorted(done for done, _ in told)

    def stop(done: int, total: int) -> None:
        if done > 30:
            raise KeyboardInterrupt

    with pytest.raises(Interrupted) as caught:
        sample(model, 5, labels=LABELS, guidance=1.0, batch_size=2, progress=stop)
    assert torch.equal(caught.value.complete, sample(model, 2, labels=LABELS[:2], guidance=1.0))


def test_the_command_line_guides(tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    ask = asking(calling(capsys, monkeypatch))
    ancestral.save(fresh().float(), tmp_path / "run")
    words = ("sample", tmp_path / "run", "-n", 3, "--labels", 2, 1, "--seed", 4, "--engine", "eager", "--out", tmp_path / "x.npy")
    told = ask(*words, "--guidance", 1.5)
    assert (told["labels"], told["guidance"]) == ([2, 1, 2], 1.5)
    x = sample(ancestral.load(tmp_path / "run"), 3, labels=[2, 1, 2], guidance=1.5, seed=4, engine="eager")
    assert np.array_equal(np.load(tmp_path / "x.npy"), x.numpy())
    assert "guidance" not in ask(*words)


# ---- the null label


@pytest.mark.parametrize(
    ("name", "spec", "fields"),
    [
        *((name, GREY, {}) for name in NAMES),
        ("agave", GREY, {"spatial": True}),
        ("vae", DataSpec("vector", (5,), levels=4, classes=3), {}),
    ],
)
def test_no_labels_are_labels_of_zeros(name: str, spec: DataSpec, fields: dict[str, Any]) -> None:
    """So that a network trained with labels dropped, which sees zeros, serves those who give none."""
    model, x = fresh(name, spec, **fields), torch.randint(4, (3, *spec.shape))  # type: ignore[arg-type]
    null, one = Context(vector=torch.zeros(3, 3)), Context(vector=torch.eye(3))

    def seen(context: Context | None) -> list[Tensor]:
        if not isinstance(model, ancestral.Latent):
            return [model.log_prob(x, context)]
        parts = model.elbo(x, context)
        return [parts.rate, parts.distortion]

    with torch.no_grad():
        found, zeros, ones = (seen(context) for context in (None, null, one))
    for nothing, zero, label in zip(found, zeros, ones, strict=True):
        assert torch.allclose(nothing, zero, rtol=1e-12) and not torch.allclose(nothing, label)


# ---- labels dropped at random


def stream(**overrides: Any) -> Stream:
    return replace(Stream(DIGITS, True, 8, seed=1, stage=0, first=0, steps=500, label_dropout=0.25), **overrides)


def dropped(some: Stream, step: int) -> list[bool]:
    found = some.batch(step).dropped
    assert found is not None
    return found.tolist()


def test_labels_are_dropped_by_seed_stage_step_and_row_alone() -> None:
    whole = stream()
    assert [dropped(whole, step) for step in range(20)] == [dropped(stream(), step) for step in range(20)]
    for changed in ({"seed": 2}, {"stage": 1}):
        assert [dropped(stream(**changed), step) for step in range(20)] != [dropped(whole, step) for step in range(20)]
    assert len({tuple(dropped(whole, step)) for step in range(20)}) > 5
    for step in range(20):
        parts = [dropped(stream(rank=rank, world=4), step) for rank in range(4)]
        assert [parts[row % 4][row // 4] for row in range(8)] == dropped(whole, step)
        more = stream(label_dropout=0.6)
        assert all(now or not before for before, now in zip(dropped(whole, step), dropped(more, step), strict=True))


def test_labels_are_dropped_at_the_rate_that_was_asked_for() -> None:
    found = [each for step in range(500) for each in dropped(stream(), step)]
    assert abs(sum(found) / len(found) - 0.25) < 4 * math.sqrt(0.25 * 0.75 / len(found))
    assert stream(label_dropout=0.0).batch(0).dropped is None
    assert all(dropped(stream(label_dropout=1.0), 3))
    batch = stream().batch(3)
    moved = to_device(batch, torch.device("cpu"))
    assert torch.equal(moved.dropped, batch.dropped) and (moved.rows, moved.step) == (batch.rows, batch.step)  # type: ignore[arg-type]


@pytest.mark.parametrize(("name", "objective"), [("gated-pixelcnn", "nll"), ("agave", "auxiliary_guided"), ("agave", "iwae")])
def test_dropped_rows_see_a_vector_of_zeros(name: str, objective: str, monkeypatch: pytest.MonkeyPatch) -> None:
    model, seen = fresh(name), list[Tensor]()
    part, method = (model, "log_prob") if name == "gated-pixelcnn" else (model.topdown, "descend")
    original = getattr(part, method)

    def spy(*args: Any, **named: Any) -> Any:
        context = named.get("context", args[-1])
        seen.append(context.vector)
        return original(*args, **named)

    monkeypatch.setattr(part, method, spy)
    drop = torch.tensor([False, True, False])
    batch = Batch(torch.randint(4, (3, 1, 4, 3)), torch.tensor([2, 2, 0]), dropped=drop)
    OBJECTIVES[objective](model, batch)
    wanted = torch.tensor([[0.0, 0.0, 1.0], [0.0, 0.0, 0.0], [1.0, 0.0, 0.0]])
    assert seen and all(torch.equal(vector, wanted.repeat(len(vector) // 3, 1)) for vector in seen)


def test_a_run_that_drops_every_label_learns_nothing_of_them(tmp_path: Path) -> None:
    links = {}
    for rate in (0.0, 1.0):
        model = model_of(conditional=True)
        ancestral.fit(model, DIGITS, tmp_path / str(rate), steps=3, label_dropout=rate, **QUIET)
        named = {name: weight for name, weight in model.named_parameters() if "feed.vector" in name}
        links[rate] = max(weight.abs().max().item() for weight in named.values())
        assert json.loads((tmp_path / str(rate) / "config.json").read_text())["training"]["label_dropout"] == rate
    assert links[1.0] == 0 < links[0.0]


def test_dropping_labels_that_are_not_there_is_refused() -> None:
    with pytest.raises(ValueError, match="conditional=True"):
        ancestral.fit(model_of(), DIGITS, steps=1, label_dropout=0.1, **QUIET)
    for rate in (-0.1, 1.1, math.nan):
        with pytest.raises(ValueError, match="label_dropout"):
            TrainingConfig(label_dropout=rate)
