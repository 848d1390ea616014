"""Each switch that decides how much z carries: that it does what its equation says, to every model, and survives a stop."""

from __future__ import annotations

from dataclasses import fields, replace
from math import inf, log
from pathlib import Path
from typing import Any

import pytest
import torch
from tiny_training import DIGITS, QUIET, CtrlC, model_of, same
from torch import Tensor

from ancestral.data.splits import Examples
from ancestral.evaluation.remedies import AGGRESSIVE, OFFERS, remedies
from ancestral.latent.blindfold import Blindfold, blindfolded
from ancestral.latent.charge import LEAST_GAMMA, Charge, annealed, softened
from ancestral.latent.configs import ChargeFields
from ancestral.latent.latent import Latent
from ancestral.models import MODELS, build, configure
from ancestral.objectives import OBJECTIVES, Batch, elbo
from ancestral.spec import DataSpec, Stage
from ancestral.training import Interrupted, TrainingConfig, fit, resume
from ancestral.training import control as controls
from ancestral.training.control import PATIENCE, Control, inference_weights, information
from ancestral.training.folder import read_checkpoint
from ancestral.training.loop import Tick, run_stage
from ancestral.training.pace import Pace
from ancestral.training.stages import Planned, validate

RGB = DataSpec("image", (3, 4, 4), levels=5)
SEQUENCES = {"transformer-vae": DataSpec("text", (8,), levels=17), "wavenet-vae": DataSpec("audio", (8,), levels=17)}
LATENT = [name for name, entry in MODELS.items() if issubclass(entry.config, ChargeFields)]


def latent(name: str = "agave", spec: DataSpec = DIGITS.spec, **overrides: Any) -> Latent:
    torch.manual_seed(0)
    model = build(name, SEQUENCES.get(name, spec), preset="tiny", **overrides)
    assert isinstance(model, Latent)
    return model


def some(n: int = 4) -> Tensor:
    return DIGITS.train.x[:n].long()


# Annealing


@pytest.mark.parametrize(
    ("steps", "warmup", "cycles", "expected"),
    [
        (0, 4.0, 1, [0.25, 0.5, 0.75, 1, 1, 1]),  # in steps, of a stage whose end is unknown
        (6, 0.5, 1, [1 / 3, 2 / 3, 1, 1, 1, 1]),  # as a share
        (6, 1.0, 1, [1 / 6, 2 / 6, 3 / 6, 4 / 6, 5 / 6, 1]),
        (6, 0.5, 2, [1 / 1.5, 1, 1, 1 / 1.5, 1, 1]),  # two cycles of three steps
        (6, 2.0, 2, [0.5, 1, 1, 0.5, 1, 1]),
        (5, 2.0, 2, [0.5, 1, 1, 0.5, 1]),  # of two and a half steps: the second begins at the next whole one
    ],
)
def test_the_weight_of_the_rate_by_hand(steps: int, warmup: float, cycles: int, expected: list[float]) -> None:
    assert [annealed(step, steps, warmup, cycles) for step in range(len(expected))] == pytest.approx(expected)


def test_a_share_of_a_stage_of_unknown_length_is_refused() -> None:
    for warmup, cycles in ((0.5, 1), (3.0, 2)):
        with pytest.raises(ValueError, match="steps="):
            annealed(0, 0, warmup, cycles)


def test_training_knows_the_length_of_its_stage() -> None:
    run = fit(latent(auxiliary=False, pretraining=0.0, lambda_=1.0, kl_warmup=0.5), DIGITS, steps=8, log_every=1, **QUIET)
    weights = [row["weight"] for row in run.history if row["split"] == "train"]
    assert weights == pytest.approx([0.25, 0.5, 0.75, 1, 1, 1, 1, 1])


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"beta": -1.0}, "beta is -1"),
        ({"beta": inf}, "beta is inf; it must be at least 0 and finite"),
        ({"free_bits": inf}, "free_bits is inf"),
        ({"soft_free_bits": inf}, "soft_free_bits is inf"),
        ({"warmup": inf}, "warmup is inf"),
        ({"cycles": 2}, "needs a warm-up"),
        ({"cycles": 0}, "at least 1"),
        ({"dropout": 1.0}, "below 1"),
    ],
)
def test_charges_that_cannot_be_are_refused(options: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        Charge(**options)


@pytest.mark.parametrize("name", LATENT)
def test_every_switch_reaches_every_model(name: str) -> None:
    values = {"free_bits": 0.25, "soft_free_bits": 3.0, "kl_warmup": 5.0, "kl_cycles": 2}
    config = configure(name, "tiny", **values)
    charging = [stage for stage in config.stages if stage.objective != "nll"]
    assert charging
    for stage in charging:
        expected = {"free_bits": 0.25, "soft_free_bits": 3.0, "warmup": 5.0, "cycles": 2}
        assert expected.items() <= dict(stage.options).items()


# Soft free bits


def test_the_weight_follows_the_rate() -> None:
    assert softened(0.5, 10.0, 10.0) == softened(0.5, 10.5, 10.0) == 0.5  # no less than it should be, and no 5 % more
    assert softened(0.5, 10.51, 10.0) == pytest.approx(0.55)
    assert softened(0.5, 9.99, 10.0) == pytest.approx(0.45)
    assert softened(0.99, 99.0, 10.0) == 1.0 and softened(LEAST_GAMMA, 0.0, 10.0) == LEAST_GAMMA


def test_gamma_weighs_the_rate_where_soft_free_bits_are_asked_for() -> None:
    model, batch = latent("vae"), Batch(some(), gamma=0.25)
    plain, soft = elbo(model, batch), elbo(model, batch, beta=2.0, soft_free_bits=1.0)
    assert torch.allclose(plain["loss"], plain["distortion"] + plain["rate"])
    assert torch.allclose(soft["loss"], plain["distortion"] + 0.5 * plain["rate"]) and float(soft["weight"]) == 0.5


def test_training_moves_gamma_as_the_rule_says() -> None:
    target, gamma = 6.0, 1.0
    run = fit(latent("vae", soft_free_bits=target), DIGITS, steps=12, log_every=1, learning_rate=0.02, **QUIET)
    rows = [row for row in run.history if row["split"] == "train"]
    for row in rows:
        assert row["weight"] == pytest.approx(gamma)
        gamma = softened(gamma, row["rate"], target)
    assert len({row["weight"] for row in rows}) > 1


# Decoder dropout


def test_what_is_not_read_changes_nothing() -> None:
    model, x = latent(spec=RGB), torch.randint(5, (3, 3, 4, 4), generator=torch.Generator().manual_seed(0))
    network = model.likelihood.network
    blind = blindfolded(model.likelihood, x, 0.5, seed=3, rows=[7, 8, 9]).network
    assert isinstance(blind, Blindfold) and 0 < blind.hidden.sum() < blind.hidden.numel()
    hidden = blind.hidden.expand_as(x)  # of a pixel all colours
    assert hidden.shape == x.shape and (hidden[:, :1] == hidden).all()
    features = model.features(model.encode(x))
    other = torch.where(hidden, 4 - x, x)
    assert torch.equal(blind(x, features), blind(other, features))
    assert not torch.allclose(network(x, features), network(other, features))
    assert torch.allclose(network(x, features), Blindfold(network, torch.zeros_like(hidden), 5)(x, features))


def test_what_is_hidden_depends_on_seed_and_row_alone() -> None:
    model, x = latent(), some(6)
    hidden = [blindfolded(model.likelihood, x[rows], 0.3, 5, rows).network.hidden for rows in ([0, 1, 2, 3], [2, 3], [3])]
    assert torch.equal(hidden[0][2:], hidden[1]) and torch.equal(hidden[1][1:], hidden[2])  # type: ignore[arg-type, index]
    assert not torch.equal(hidden[0], blindfolded(model.likelihood, x[:4], 0.3, 6, range(4)).network.hidden)  # type: ignore[arg-type]
    wide = blindfolded(model.likelihood, x[:1].expand(200, -1, -1, -1), 0.3, 0, range(200)).network.hidden
    assert float(wide.double().mean()) == pytest.approx(0.3, abs=0.02)  # type: ignore[operator]


def test_a_missing_symbol_is_the_zero_that_lies_beyond_the_border() -> None:
    """An image whose pixels are all hidden reads as one of which there is nothing."""
    network = latent(spec=DataSpec("image", (1, 3, 3), levels=2)).likelihood.network
    assert float(network.scale(torch.full((1, 1, 1, 1), 0.5))) == 0  # type: ignore[operator]
    assert Blindfold(network, torch.ones(1, 1, 1, 1).bool(), 2).stand_in == 0.5


def test_dropout_is_of_training_alone() -> None:
    model, batch = latent(auxiliary=False), Batch(some(), seed=1)
    plain = elbo(model.eval(), batch)
    assert same(plain, elbo(model, batch, dropout=0.5))
    blind = elbo(model.train(), batch, dropout=0.5)
    assert torch.equal(plain["rate"], blind["rate"]) and not torch.equal(plain["distortion"], blind["distortion"])
    planned = Planned(Stage("joint", "elbo", {"dropout": 0.5}), 0, 0, 4)
    bare = Planned(Stage("joint", "elbo"), 0, 0, 4)
    config = TrainingConfig()
    assert validate(model.eval(), planned, DIGITS, config, 0) == validate(model, bare, DIGITS, config, 0)


def test_a_decoder_that_reads_nothing_can_drop_nothing() -> None:
    with pytest.raises(ValueError, match="sees z alone"):
        elbo(latent("vae"), Batch(some()), dropout=0.5)


# Aggressive training of the encoder


@pytest.mark.parametrize("overrides", [{}, {"conditional": True}])
def test_weights_of_inference_are_those_of_the_encoder(overrides: dict[str, Any]) -> None:
    for name in ("vae", "agave"):
        model = latent(name, **overrides)
        found = {id(weight) for weight in inference_weights(model)}
        assert found == {id(weight) for weight in model.topdown.encoder.parameters()}  # type: ignore[union-attr]


def test_weights_of_inference_are_all_there_are_where_z_is_handed_on() -> None:
    """A standard prior learns nothing, and neither does a top-down pass that leaves reading z to the likelihood."""
    model = latent("pixelvae", form="vector")
    assert inference_weights(model) == list(model.topdown.parameters())


def test_the_encoder_goes_ahead() -> None:
    model = latent("vae")
    config = TrainingConfig(batch_size=8, aggressive=2, steps=6)
    planned = Planned(model.config.stages[0], 0, 0, 6)
    encoder, decoder = (list(part.parameters()) for part in (model.topdown.encoder, model.topdown.decoder))  # type: ignore[union-attr]
    moved, before = list[tuple[bool, bool]](), [[w.detach().clone() for w in part] for part in (encoder, decoder)]

    def watch(tick: Tick) -> None:
        now = [[w.detach().clone() for w in part] for part in (encoder, decoder)]
        changed = [any(not torch.equal(a, b) for a, b in zip(*pair, strict=True)) for pair in zip(now, before, strict=True)]
        moved.append((changed[0], changed[1]))
        before[:] = now

    run_stage(model, planned, DIGITS, config, [watch])
    assert moved == [(True, False), (True, False), (False, True)] * 2


def test_the_gradients_that_are_judged_are_all_of_them(monkeypatch: pytest.MonkeyPatch) -> None:
    """What blows up is told by one and the same norm while weights rest and after."""
    norms: dict[int, list[float]] = {}
    for ahead in (0, 2):
        seen, model = norms.setdefault(ahead, []), latent("vae")
        monkeypatch.setattr(Pace, "blown", lambda _, norm, seen=seen: bool(seen.append(norm)))
        planned = Planned(model.config.stages[0], 0, 0, 3)
        run_stage(model, planned, DIGITS, TrainingConfig(batch_size=8, aggressive=ahead, steps=3), [])
    assert len(norms[2]) == 3 and norms[0][0] == norms[2][0] and norms[0][2] != norms[2][2]


def test_the_lead_ends_when_what_z_tells_no_longer_rises(monkeypatch: pytest.MonkeyPatch) -> None:
    told = iter([0.1, 0.5, 0.4, 0.6, 0.6, 0.2, 0.5])
    monkeypatch.setattr(controls, "information", lambda *_: next(told))
    model = latent("vae")
    control = Control(model, Planned(model.config.stages[0], 0, 0, 50), DIGITS, TrainingConfig(aggressive=3))
    ends = [step for step in range(1, 51) if control.measure(step)]
    assert ends == [14] and not control.aggressive  # every second step; the fourth is the best, and three do not exceed it
    assert (control.best, control.waited) == (0.6, PATIENCE)
    assert not any(control.rests(weight, step) for weight in model.parameters() for step in range(4))


def test_the_rate_stands_in_for_information_that_cannot_be_had(monkeypatch: pytest.MonkeyPatch) -> None:
    model, config = latent("vae"), TrainingConfig()
    assert 0 <= information(model, DIGITS, config) <= log(len(DIGITS.validation))
    monkeypatch.setattr(controls, "mutual_information", lambda *_: None)
    rate = model.elbo(DIGITS.validation.x.long()).rate.mean()
    assert information(model, DIGITS, config) == pytest.approx(float(rate.detach()))


def test_the_rate_stands_in_for_information_given_labels_that_all_differ() -> None:
    y = DIGITS.validation.labels
    assert y is not None
    places = [int((y == label).nonzero()[0]) for label in range(10)]
    data = replace(DIGITS, validation=Examples(DIGITS.validation.x[places], y[places]))
    assert information(latent("vae", conditional=True), data, TrainingConfig(seed=3)) > 0


def test_a_stage_of_the_decoder_alone_is_not_aggressive() -> None:
    model, config = latent(), TrainingConfig(aggressive=3)
    stages = [Control(model, Planned(stage, 0, 0, 9), DIGITS, config).aggressive for stage in model.config.stages]
    assert stages == [True, False, True]


def test_models_without_latents_cannot_be_aggressive() -> None:
    with pytest.raises(ValueError, match="models with latents"):
        fit(model_of(), DIGITS, steps=3, aggressive=2, **QUIET)


# Stopping and going on


def test_a_stopped_run_keeps_its_gamma_and_its_lead(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    settings: dict[str, Any] = {**QUIET, "steps": 30, "aggressive": 1, "learning_rate": 0.02, "log_every": 4}
    whole = fit(latent("vae", soft_free_bits=4.0), DIGITS, tmp_path / "whole", **settings)
    with monkeypatch.context() as patch:
        patch.setitem(OBJECTIVES, "elbo", CtrlC("elbo", 9))
        with pytest.raises(Interrupted):
            fit(latent("vae", soft_free_bits=4.0), DIGITS, tmp_path / "stopped", **settings)
    kept = read_checkpoint(tmp_path / "stopped")["control"]
    assert kept["gamma"] != 1 and kept["best"] > 0
    rest = resume(tmp_path / "stopped", DIGITS, progress=False)
    assert same(whole.model.state_dict(), rest.model.state_dict())
    assert read_checkpoint(tmp_path / "whole")["control"] == read_checkpoint(tmp_path / "stopped")["control"]


# Remedies


@pytest.mark.parametrize("name", LATENT)
def test_remedies_are_what_a_model_can_take(name: str) -> None:
    found = remedies(latent(name))
    assert len(found) >= 4 and found[-1] == AGGRESSIVE
    known = {field.name for field in fields(configure(name))}
    for remedy in found[:-1]:
        assert {part.split("=")[0] for part in remedy.setting.split(", ")} <= known, remedy
    assert ("decoder dropout" in {remedy.name for remedy in found}) is (name not in ("vae", "beta-vae", "iaf-vae"))


def test_remedies_that_are_taken_are_not_offered_again() -> None:
    taken: dict[str, Any] = {"free_bits": 0.1, "kl_warmup": 0.5, "kl_cycles": 2, "decoder_dropout": 0.1, "layers": 2}
    assert remedies(latent(**taken)) in ([AGGRESSIVE], [OFFERS["prior"], AGGRESSIVE])


@pytest.mark.parametrize(
    ("name", "spec", "settings", "useless"),
    [
        ("agave", DIGITS.spec, {"encoder": "resnet"}, "prior"),  # normal given what is above
        ("agave", DIGITS.spec, {"decoder": "pixelcnn++", "layers": 4}, "layers"),  # which has resnets
        ("wavenet-vae", DataSpec("audio", (None,), levels=9, end=8), {}, "auxiliary"),  # of one length
        ("transformer-vae", DataSpec("text", (8,), levels=5), {"auxiliary": True}, "beta"),  # lambda is the weight
        ("transformer-vae", DataSpec("text", (8,), levels=5), {"lambda_": 4.0}, "lambda_"),  # and here beta
    ],
)
def test_what_a_model_would_refuse_or_ignore_is_no_remedy(
    name: str, spec: DataSpec, settings: dict[str, Any], useless: str
) -> None:
    assert OFFERS[useless] not in remedies(build(name, spec, preset="tiny", **settings))


@pytest.mark.parametrize(("window", "offered"), [("5x3", True), ("3x2", True), ("3x1", False), ("2x1", False)])
def test_a_smaller_window_is_one_of_fewer_pixels(window: str, offered: bool) -> None:
    assert (OFFERS["window"] in remedies(latent("vlae", window=window))) is offered
    colour = build("vlae", DataSpec("image", (3, 8, 8), levels=4), preset="tiny", window=window)
    assert (OFFERS["window"] in remedies(colour)) is offered


def test_a_large_lambda_is_offered_to_be_lowered_first() -> None:
    assert remedies(latent("agave", lambda_=12.0))[0] is OFFERS["lambda_"]
    assert OFFERS["lambda_"] not in remedies(latent("agave", lambda_=2.0))
