"""Training: batches and stages are what they say, and the loop is the plain loop."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
import threading
from copy import deepcopy
from dataclasses import replace
from math import cos, log, pi
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from tiny_training import DIGITS, QUIET, model_of, same

import ancestral
from ancestral.data import Examples, Splits, load_data, toys
from ancestral.hub import describe
from ancestral.objectives import Terms, nll
from ancestral.spec import Stage
from ancestral.training import Run, TrainingConfig, fit, fitting, plan
from ancestral.training.batches import Stream, batch_rows, noise_seed
from ancestral.training.callbacks import Average
from ancestral.training.loop import run_stage
from ancestral.training.stages import Planned, bits_per_dim, divided, rate, stages_of, validate


def judged(run: Run) -> list[dict[str, Any]]:
    return [row for row in run.history if row["split"] == "validation"]


# Batches


def test_every_example_comes_once_an_epoch_and_no_batch_is_short() -> None:
    n, size = 10, 4
    stream = [row for step in range(25) for row in batch_rows(n, size, 3, 1, step)]
    epochs = [stream[start : start + n] for start in range(0, 100, n)]
    assert all(sorted(epoch) == list(range(n)) for epoch in epochs)
    assert len({tuple(epoch) for epoch in epochs}) > 5
    assert batch_rows(n, size, 3, 1, 7) == stream[28:32]
    assert batch_rows(100, 50, 3, 1, 0) != batch_rows(100, 50, 4, 1, 0) != batch_rows(100, 50, 3, 2, 0)


def test_processes_share_a_batch() -> None:
    whole = Stream(DIGITS, True, 8, seed=1, stage=0, first=5, steps=9)
    parts = [replace(whole, rank=rank, world=4) for rank in range(4)]
    assert len(whole) == len(list(whole)) == 4
    for step in range(5, 9):
        batch, shares = whole.batch(step), [part.batch(step) for part in parts]
        assert torch.equal(batch.x, DIGITS.train.x[whole.rows(step)].long())
        for share in shares:
            rows = list(share.rows or [])
            assert torch.equal(share.x, batch.x[rows])
            assert batch.labels is not None and share.labels is not None
            assert torch.equal(share.labels, batch.labels[rows])
            assert (share.seed, share.step) == (batch.seed, step)
        assert sorted(row for share in shares for row in share.rows or []) == list(range(8))


def test_noise_differs_by_seed_stage_and_step_alone() -> None:
    seeds = {noise_seed(seed, stage, step) for seed in range(3) for stage in range(3) for step in range(30)}
    assert len(seeds) == 270
    assert all(0 <= seed < 2**63 for seed in seeds)


def test_dynamic_binarisation_draws_anew_every_step() -> None:
    data = load_data("digits", binarize="dynamic", limit=8)
    stream = Stream(data, False, 8, seed=0, stage=0, first=0, steps=9)
    first, again, second = stream.batch(0), stream.batch(0), stream.batch(1)
    order = [torch.tensor(stream.rows(step)).argsort() for step in (0, 1)]
    assert torch.equal(first.x, again.x)
    assert not torch.equal(first.x[order[0]], second.x[order[1]])
    assert data.redrawn is not None
    certain = (data.redrawn.x == 0) | (data.redrawn.x == 16)
    assert torch.equal(second.x[order[1]][certain], (data.redrawn.x[certain] == 16).long())


# Stages


def test_steps_are_shared_out() -> None:
    stages = [Stage("a", "nll", share=0.15), Stage("b", "nll", share=0.35), Stage("c", "nll", share=0.5)]
    for total in (3, 4, 10, 997):
        planned = divided(total, stages)
        assert sum(each.steps for each in planned) == total
        assert [each.before for each in planned] == [sum(e.steps for e in planned[:i]) for i in range(3)]
        assert min(each.steps for each in planned) >= 1
        assert all(abs(each.steps - each.stage.share * total) <= max(1, 3 - 0.15 * total) for each in planned)
    with pytest.raises(ValueError, match="3 stages, each of which needs at least one"):
        divided(2, stages)
    assert Planned.from_dict(json.loads(json.dumps(planned[1].to_dict()))) == planned[1]


def test_the_learning_rate_rises_and_falls() -> None:
    planned = Planned(Stage("a", "nll", learning_rate=0.5), 0, 0, 40)
    config = TrainingConfig(warmup=100)  # at most a tenth of the stage: 4 steps
    assert [rate(config, planned, 0), rate(config, planned, 20), rate(config, planned, 39)] == pytest.approx(
        [0.5 / 5, 0.5 * 0.5, 0.5 * (1 + cos(pi * 39 / 40)) / 2]
    )
    assert rate(TrainingConfig(warmup=0, decay="linear"), planned, 10) == pytest.approx(0.5 * 0.75)
    assert rate(TrainingConfig(warmup=0, decay="none"), planned, 39) == 0.5
    assert rate(TrainingConfig(warmup=0, learning_rate=0.1), Planned(Stage("a", "nll"), 0, 0, 40), 0) == 0.1


def test_only_the_parts_of_a_stage_train() -> None:
    model = model_of("agave")
    model.likelihood.network.head[1].bias.requires_grad_(False)  # frozen by the user: stays so
    for planned in divided(9, stages_of(model)):
        before = deepcopy(model.state_dict())
        run_stage(model, planned, DIGITS, TrainingConfig(batch_size=8))
        moved = {name.split(".")[0] for name, value in model.state_dict().items() if not torch.equal(value, before[name])}
        assert moved == set(planned.stage.parts or ("topdown", "likelihood", "auxiliary"))
        assert torch.equal(model.state_dict()["likelihood.network.head.1.bias"], before["likelihood.network.head.1.bias"])
    assert [name for name, p in model.named_parameters() if not p.requires_grad] == ["likelihood.network.head.1.bias"]


def test_stages_that_cannot_be_are_refused() -> None:
    model = model_of("vae")
    for stage, message in [
        (Stage("a", "elba"), "no objective 'elba'; did you mean 'elbo'"),
        (Stage("a", "elbo", parts=("topdwn",)), "no part 'topdwn'; did you mean 'topdown'"),
        (Stage("a", "elbo", share=0.0), "share 0.0"),
    ]:
        model.config = SimpleNamespace(stages=(stage,))
        with pytest.raises(ValueError, match=message):
            stages_of(model)


def test_bits_per_dim_are_of_x_and_never_of_the_auxiliary_image() -> None:
    spec = DIGITS.spec
    terms = {"loss": 900.0, "distortion": 50.0, "rate": 14.0, "auxiliary": 70.0}
    assert bits_per_dim(terms, spec) == (pytest.approx(1 / log(2)), "bound")
    assert bits_per_dim({"loss": 128.0, "nll": 128.0}, spec) == (pytest.approx(2 / log(2)), "exact")
    for orders in ("orderless", "shuffled"):
        assert bits_per_dim({"loss": 64.0, orders: 64.0}, spec) == (pytest.approx(1 / log(2)), "approximate")
    assert bits_per_dim({"loss": 64.0, "iwae": 64.0}, spec) == (pytest.approx(1 / log(2)), "bound")
    assert bits_per_dim({"loss": 84.0, "auxiliary": 70.0, "rate": 14.0}, spec) is None


def test_validation_is_a_mean_over_examples_with_fixed_noise() -> None:
    model, config = model_of("vae"), TrainingConfig(batch_size=3)  # 40 examples: the last batch is short
    planned = divided(5, stages_of(model))[0]
    terms = validate(model, planned, DIGITS, config, 0)
    assert terms == validate(model, planned, DIGITS, config, 4)
    assert terms["distortion"] == pytest.approx(validate(model, planned, DIGITS, TrainingConfig(batch_size=40), 0)["distortion"])
    assert terms != validate(model, planned, DIGITS, TrainingConfig(batch_size=3, seed=1), 0)


# The loop


@pytest.mark.parametrize(("name", "kind"), [("adamax", torch.optim.Adamax), ("adam", torch.optim.Adam)])
def test_fit_is_this_plain_loop(name: str, kind: type[torch.optim.Optimizer]) -> None:
    """The optimiser, clipping, learning rate and averaging written out once more, with nothing of ours but the batches."""
    steps, clip = 12, 0.02  # so low that it cuts
    model = model_of()
    plain, average = deepcopy(model), deepcopy(model)
    optimiser = kind(plain.parameters())  # type: ignore[call-arg]
    for batch in Stream(DIGITS, False, 8, seed=5, stage=0, first=0, steps=steps):
        optimiser.zero_grad()
        nll(plain, batch)["loss"].backward()  # type: ignore[no-untyped-call]
        assert float(torch.nn.utils.clip_grad_norm_(plain.parameters(), clip * 64)) > clip * 64
        optimiser.param_groups[0]["lr"] = 0.01 * min(1, (batch.step + 1) / 2) * (1 + cos(pi * batch.step / steps)) / 2
        optimiser.step()
        decay = min(0.5, (2 + batch.step) / (11 + batch.step))
        for kept, new in zip(average.parameters(), plain.parameters(), strict=True):
            kept.data = decay * kept.data + (1 - decay) * new.data
    run = fit(model, DIGITS, steps=steps, seed=5, optimiser=name, clip=clip, learning_rate=0.01, ema=0.5, **QUIET)
    assert run.model is model and not model.training
    for mine, theirs in zip(model.parameters(), average.parameters(), strict=True):
        torch.testing.assert_close(mine, theirs, rtol=0, atol=1e-12)
    assert any(not torch.equal(a, b) for a, b in zip(plain.parameters(), model.parameters(), strict=True))


def test_the_average_starts_anew_with_every_stage() -> None:
    model = model_of("agave")
    average = Average(model, 0.999)
    stages = divided(6, stages_of(model))
    for planned in stages[:2]:
        average.restart()
        run_stage(model, planned, DIGITS, TrainingConfig(batch_size=8), [average])
    parts = model.state_dict(), average.model.state_dict()
    settled = [name for name in parts[0] if name.startswith("topdown")]  # trained in the first stage: raw weights since
    assert all(torch.equal(parts[0][name], parts[1][name]) for name in settled)
    assert not torch.equal(*(part["likelihood.network.head.1.bias"] for part in parts))


def test_a_stage_leaves_its_averaged_weights_to_the_next() -> None:
    model = ancestral.build("two-stage", DIGITS.spec, preset="tiny", form="pyramid", halvings=1, auxiliary_share=0.5)
    rows = fit(model, DIGITS, steps=40, validate_every=20, decay="none", learning_rate=0.01, **QUIET).history
    rates = [row["rate"] for row in rows if row["split"] == "validation"]
    assert len(rates) > 1 and rates[-1] == pytest.approx(rates[0], rel=1e-6)  # of the auxiliary image, which settles first


def test_a_model_reaches_the_entropy_of_a_toy() -> None:
    toy = toys.bernoulli((1, 2, 3), p=0.3)
    data = toy.splits(train=2000)
    model = model_of(data=data)
    fit(model, data, steps=100, learning_rate=0.03, **{**QUIET, "batch_size": 64})
    with torch.no_grad():
        cross_entropy = -float((toy.probabilities * model.log_prob(toy.states)).sum())
    assert toy.entropy <= cross_entropy < 1.02 * toy.entropy


def test_labels_reach_a_conditional_model() -> None:
    x = torch.zeros(64, 1, 2, 2, dtype=torch.uint8)
    labels = torch.arange(64) % 2
    x[labels == 1] = 1
    some = Examples(x, labels)
    data = Splits(some, some, some, replace(toys.bernoulli((1, 2, 2)).spec, classes=2), "labelled", "")
    bits = {}
    for conditional in (True, False):
        run = fit(model_of(data=data, seed=2, conditional=conditional), data, steps=60, learning_rate=0.05, ema=0.9, **QUIET)
        bits[conditional] = judged(run)[-1]["bits_per_dim"]
    assert bits[True] < 0.1
    assert bits[False] > 0.25  # one bit an example, four sites, is what the label knows


def test_half_precision_is_for_the_network_alone() -> None:
    torch.set_default_dtype(torch.float32)
    seen: dict[str, torch.dtype] = {}
    weights = {}
    for precision in ("32", "bf16"):
        model = model_of("agave")
        convolution = model.topdown.encoder.stem
        convolution.register_forward_hook(lambda module, args, out: seen.update(convolution=out.dtype))
        terms: list[Terms] = []
        planned = divided(1, [Stage("joint", "auxiliary_guided")])[0]
        run_stage(model, planned, DIGITS, TrainingConfig(precision=precision), [lambda tick, kept=terms: kept.append(tick.terms)])
        assert seen["convolution"] == (torch.bfloat16 if precision == "bf16" else torch.float32)
        assert {value.dtype for value in terms[0].values()} == {torch.float32}
        weights[precision] = float(terms[0]["distortion"])
    assert weights["bf16"] == pytest.approx(weights["32"], rel=0.01)
    assert weights["bf16"] != weights["32"]


@pytest.mark.parametrize("settings", [{"channels_last": True}, {"accelerator": "auto"}])
def test_settings_of_speed_change_no_figure(settings: dict[str, Any]) -> None:
    figures = [fit(model_of(), DIGITS, steps=4, **QUIET, **extra).history[-1]["nll"] for extra in ({}, settings)]
    assert figures[0] == pytest.approx(figures[1], rel=1e-10)


def test_adam_is_adam() -> None:
    model = model_of()
    plain = deepcopy(model)
    run_stage(
        model, divided(3, stages_of(model))[0], DIGITS, TrainingConfig(optimiser="adam", batch_size=8, decay="none", warmup=0)
    )
    optimiser = torch.optim.Adam(plain.parameters(), lr=2e-3, fused=False)
    for batch in Stream(DIGITS, False, 8, seed=0, stage=0, first=0, steps=3):
        optimiser.zero_grad()
        nll(plain, batch)["loss"].backward()  # type: ignore[no-untyped-call]
        optimiser.step()
    for mine, theirs in zip(model.parameters(), plain.parameters(), strict=True):
        torch.testing.assert_close(mine, theirs, rtol=0, atol=1e-10)


def test_a_run_disturbs_nothing_around_it(
    capfd: pytest.CaptureFixture[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    torch.manual_seed(7)
    model, handler = model_of(seed=7), signal.getsignal(signal.SIGINT)
    before, threads = torch.get_rng_state(), list[int]()
    monkeypatch.setattr(torch, "set_num_threads", threads.append)
    run = fit(model, DIGITS, steps=3, threads=2, **QUIET)
    assert torch.equal(torch.get_rng_state(), before)
    assert threads == [2, 1]
    assert signal.getsignal(signal.SIGINT) is handler
    assert list(tmp_path.iterdir()) == []
    assert capfd.readouterr() == ("", "")
    assert (run.path, repr(run).startswith("Run(not saved: 3 steps in ")) == (None, True)


def test_progress_goes_to_standard_error(capfd: pytest.CaptureFixture[str]) -> None:
    run = fit(model_of("agave"), DIGITS, steps=10, **{**QUIET, "progress": True})
    out, err = capfd.readouterr()
    assert out == ""
    assert "training steps: vae 2, pixelcnn 3, joint 5" in err
    assert f"step 10 (joint): validation {judged(run)[-1]['bits_per_dim']:.4f} bits/dim (bound)" in err
    assert "step 2 (vae): validation loss" in err


def test_a_small_training_set_makes_a_small_batch() -> None:
    data = load_data("digits", limit=5)
    run = fit(model_of(data=data), data, steps=2, **{**QUIET, "batch_size": 64})
    assert run.steps == 2
    empty = replace(data, train=data.train.select([]))
    with pytest.raises(ancestral.DataError, match="no training examples"):
        fit(model_of(), empty, steps=2, **QUIET)
    assert judged(fit(model_of(), replace(data, validation=empty.train), steps=2, **QUIET)) == []


# Minutes


def test_minutes_become_steps(monkeypatch: pytest.MonkeyPatch) -> None:
    costs = {"vae": (0.1, 0.5, 0.0), "pixelcnn": (0.2, 1.0, 0.0), "joint": (0.4, 2.0, 7.0)}
    monkeypatch.setattr(fitting, "_timed", lambda model, planned, *rest: costs[planned.stage.name])
    monkeypatch.setattr(fitting, "_guessed", lambda *rest: None)
    stages = plan(model_of("agave"), DIGITS, minutes=10.0)
    step = 0.15 * 0.1 + 0.35 * 0.2 + 0.5 * 0.4
    validations = 0.5 * (1 + 1.5) + 1.0 * (1 + 3.5) + 2.0 * (1 + 5)  # at each stage's end, and ten over the run
    assert sum(each.steps for each in stages) == pytest.approx((600 - validations - 7) / step, abs=3)
    assert [each.seconds for each in stages] == [0.1, 0.2, 0.4]
    assert [each.steps for each in plan(model_of("agave"), DIGITS, minutes=1e-6)] == [1, 1, 1]
    assert [each.steps for each in plan(model_of("agave"), DIGITS, steps=100)] == [15, 35, 50]
    assert [each.timed for each in stages] == [each.judged for each in stages] == [None] * 3


def test_validations_that_take_long_are_fewer(monkeypatch: pytest.MonkeyPatch) -> None:
    """In a minute some 15 seconds of them, of which 6 at the ends of stages; what else there is goes into steps."""
    costs = {"vae": (0.1, 1.0, 0.0), "pixelcnn": (0.2, 2.0, 0.0), "joint": (0.4, 3.0, 0.0)}
    monkeypatch.setattr(fitting, "_timed", lambda model, planned, *rest: costs[planned.stage.name])
    stages = plan(model_of("agave"), DIGITS, minutes=1.0, clock="cpu")
    one = 0.15 * 1.0 + 0.35 * 2.0 + 0.5 * 3.0
    assert [each.judged for each in stages] == [max(1, round((15 - 6) / one * share)) for share in (0.15, 0.35, 0.5)] == [1, 1, 2]
    assert sum(each.steps for each in stages) == pytest.approx(45 / (0.15 * 0.1 + 0.35 * 0.2 + 0.5 * 0.4), abs=3)
    monkeypatch.setattr(fitting, "_timed", lambda *rest: (0.1, 0.0, 0.0))  # as without validation examples
    assert sum(each.steps for each in plan(model_of("agave"), DIGITS, minutes=1e-6)) == 3
    asked = plan(model_of("agave"), DIGITS, minutes=1.0, clock="cpu", validate_every=5)
    assert [each.judged for each in asked] == [None] * 3


def test_long_steps_are_reckoned_from_those_of_fewer_examples(monkeypatch: pytest.MonkeyPatch) -> None:
    sizes = list[int]()

    def run_stage(model: Any, planned: Any, data: Any, config: Any, listeners: Any) -> None:
        sizes.append(config.batch_size)
        listeners[-1].times = [0.0, 0.2 * config.batch_size]

    monkeypatch.setattr(fitting, "run_stage", run_stage)
    monkeypatch.setattr(fitting, "validate", lambda *rest: None)
    [stage] = plan(model_of(), DIGITS, steps=10, batch_size=32)
    assert sizes == [1, 8] and (stage.timed, stage.seconds) == (8, pytest.approx(6.4))
    assert Planned.from_dict(stage.to_dict()) == stage
    [stage] = plan(model_of(), DIGITS, steps=10, batch_size=2)
    assert sizes[2:] == [1, 2] and stage.timed is None and stage.seconds == pytest.approx(0.4)
    fit_sizes = len(sizes)
    fitting._planned(model_of(), DIGITS, fitting._suited(model_of(), DIGITS, TrainingConfig(steps=1)), 0.0, threading.Event())
    assert len(sizes) == fit_sizes + 1 and sizes[-1] > 8  # a run itself times whole batches


def test_timing_leaves_no_trace(tmp_path: Path) -> None:
    run = fit(model_of("agave"), DIGITS, tmp_path / "run", minutes=0.04, clock="cpu", **QUIET)  # 2.4 seconds of this process
    assert 1.2 < run.seconds < 4.8
    assert run.steps == sum(stage["steps"] for stage in describe(tmp_path / "run")["stages"])
    again = fit(model_of("agave"), DIGITS, steps=run.steps, **QUIET)
    assert same(run.model.state_dict(), again.model.state_dict())


# Settings


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"batchsize": 3}, "no setting 'batchsize'; did you mean 'batch_size'"),
        ({"batch_size": 0}, "batch_size is 0"),
        ({"optimiser": "sgd"}, "must be one of adamax, adam"),
        ({"minutes": -1.0}, "minutes is -1.0"),
        ({"steps": 0}, "steps is 0"),
        ({"ema": 1.0}, "ema"),
        ({"steps": 1.5}, "steps is 1.5; it must be a whole number"),
        ({"steps": "5"}, "steps is '5'; it must be a whole number"),
        ({"steps": True}, "steps is True; it must be a whole number"),
        ({"batch_size": 2.5}, "batch_size is 2.5; it must be a whole number"),
        ({"seed": 1.5}, "seed is 1.5; it must be a whole number"),
        ({"validate_every": 1.5}, "validate_every is 1.5; it must be a whole number"),
        ({"minutes": "5"}, "minutes is '5'; it must be a number"),
        ({"accelerator": "abacus"}, "cannot train with accelerator='abacus'"),
    ],
)
def test_settings_that_cannot_be_are_refused(settings: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        fit(model_of(), DIGITS, **settings)


def test_a_model_without_free_weights_is_refused() -> None:
    with pytest.raises(ValueError, match="every parameter is frozen"):
        fit(model_of().requires_grad_(False), DIGITS, steps=2, **QUIET)


def test_settings_need_no_torch() -> None:
    code = "import sys, ancestral.training; ancestral.training.TrainingConfig(); sys.exit('torch' in sys.modules)"
    subprocess.run([sys.executable, "-c", code], check=True)
