"""Gradients that blow up: when that is noticed, and how training goes on."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from tiny_training import DIGITS, QUIET, CtrlC, model_of, same

from ancestral.hub import Model
from ancestral.latent.latent import Latent
from ancestral.latent.quantizers import VectorQuantizer
from ancestral.objectives import OBJECTIVES, Batch, Terms, nll, quantized
from ancestral.report import report
from ancestral.report.history import read_history
from ancestral.training import Interrupted, TrainingError, fit, resume
from ancestral.training.callbacks import Average
from ancestral.training.pace import FIRST, MOST, Pace

SOME: dict[str, Any] = QUIET | {"steps": 140, "log_every": 140, "validate_every": 140, "learning_rate": 1e-3}


class Blowing:
    """The cost, with gradients a billion times as long in some steps."""

    def __init__(self, *steps: int) -> None:
        self.steps = steps

    def __call__(self, model: Model, batch: Batch, **options: float) -> Terms:
        terms = nll(model, batch)
        return {**terms, "loss": terms["loss"] * (1e9 if batch.step in self.steps else 1)}


class Spoiling:
    """What trains codes, with gradients and a codebook that are far away in one step."""

    def __init__(self, step: int) -> None:
        self.step = step

    def __call__(self, model: Latent, batch: Batch, **options: float) -> Terms:
        terms = quantized(model, batch, **options)
        if batch.step != self.step or not model.training:
            return terms
        quantizer = model.topdown.quantizer
        assert isinstance(quantizer, VectorQuantizer)
        for value in (quantizer.codebook, quantizer.sums):
            value.fill_(1e6)
        return {**terms, "loss": terms["loss"] * 1e9}


def noticed(norms: list[float]) -> list[int]:
    """Steps at which gradients of these lengths are found to blow up."""
    pace = Pace()
    return [step for step, norm in enumerate(norms) if pace.blown(norm)]


def test_what_grows_step_by_step_is_noticed_in_a_few() -> None:
    """The lengths are those of a convolutional VAE, which was lost three steps later."""
    usual = [200.0 + 100 * (step % 3) for step in range(300)]
    assert noticed([*usual, 7727, 1150, 30903, 28391, 234313]) == [304]


@pytest.mark.parametrize(
    "norms",
    [
        [200.0] * 300 + [1e6] + [200.0] * 300,  # an example out of the ordinary
        [1.02**step for step in range(300)],  # four hundredfold, but not at once
        [1e8 * 0.9**step for step in range(300)],
        [1e-3] * (FIRST - 1) + [1e6],  # nobody knows yet what is usual
        [0.0] * 300,
    ],
)
def test_what_is_no_blow_up_is_not_taken_for_one(norms: list[float]) -> None:
    assert noticed(norms) == []


def test_it_slows_down_only_so_often() -> None:
    pace = Pace()
    for _ in range(MOST):
        pace.slow()
        assert not pace.spent
    pace.slow()
    assert pace.spent and pace.factor == 0.5 ** (MOST + 1)


def test_training_goes_back_to_its_average_and_on_at_half_the_rate(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    seen: list[tuple[float, bool]] = []
    then = Average.__call__

    def listen(average: Average, tick: Any) -> None:
        then(average, tick)
        if tick.step == 121:  # the step after which it has gone back
            momenta = [state["exp_avg"] for state in tick.optimiser.state.values()]
            assert tick.blown and any(momentum.any() for momentum in momenta)
            monkeypatch.setattr(average, "hand_back", handed(average))
        seen.append((tick.optimiser.param_groups[0]["lr"], tick.blown))

    def handed(average: Average) -> Any:
        def hand_back() -> None:
            before = [parameter.clone() for parameter in average.source.parameters()]
            Average.hand_back(average)
            after = list(average.source.parameters())
            assert same(average.model.state_dict(), average.source.state_dict())
            assert not all(torch.equal(one, other) for one, other in zip(before, after, strict=True))

        return hand_back

    monkeypatch.setattr(Average, "__call__", listen)
    monkeypatch.setitem(OBJECTIVES, "nll", Blowing(120))
    fit(model_of(), DIGITS, **SOME | {"progress": True, "decay": "none", "warmup": 0})
    seen = seen[-140:]  # of the run itself
    assert [rate for rate, _ in seen] == [1e-3] * 121 + [5e-4] * 19
    assert [step for step, (_, blown) in enumerate(seen) if blown] == [120]
    told = " ".join(capsys.readouterr().err.split())
    assert "step 121: gradients blow up; training goes back to the averaged weights, and on at 0.5 of its learning rate" in told


def test_a_run_that_slowed_down_can_be_stopped_and_resumed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(OBJECTIVES, "nll", Blowing(120))
    whole = fit(model_of(), "digits", tmp_path / "whole", **SOME)
    stopping = CtrlC("nll", 126)
    with monkeypatch.context() as patch:
        patch.setitem(OBJECTIVES, "nll", stopping)
        with pytest.raises(Interrupted, match="after step 126 of 140"):
            fit(model_of(), "digits", tmp_path / "stopped", **SOME)
    assert same(whole.model.state_dict(), resume(tmp_path / "stopped", progress=False).model.state_dict())
    for name in ("whole", "stopped"):
        assert read_history(tmp_path / name).slowed == {"likelihood": 0.5}
    page = report(tmp_path / "whole", samples=4, examples=2).read_text(encoding="utf-8")
    assert (
        "Gradients blew up in the stage likelihood, which went back to its averaged weights and ended at 0.5 of its rate." in page
    )


def test_a_codebook_goes_back_to_what_it_was_before(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(OBJECTIVES, "quantized", Spoiling(120))
    some, seen, then = SOME | {"checkpoint_every": 110}, list[dict[str, torch.Tensor]](), Average.rescue

    def rescue(average: Average) -> None:
        older = average.kept[0]
        then(average)
        buffers = dict(average.source.named_buffers())
        assert all(torch.equal(buffers[name], value) for name, value in older.items())
        seen.append(older)

    monkeypatch.setattr(Average, "rescue", rescue)
    whole = fit(model_of("vq-vae", prior="uniform"), "digits", tmp_path / "whole", **some)
    assert [int(older["topdown.quantizer.steps"]) for older in seen] == [50]
    final = whole.model.state_dict()
    assert int(final["topdown.quantizer.steps"]) == 50 + 19 and float(final["topdown.quantizer.codebook"].abs().max()) < 100
    with monkeypatch.context() as patch:
        patch.setitem(OBJECTIVES, "quantized", CtrlC("quantized", 111))
        with pytest.raises(Interrupted):
            fit(model_of("vq-vae", prior="uniform"), "digits", tmp_path / "stopped", **some)
    assert same(final, resume(tmp_path / "stopped", progress=False).model.state_dict())


def test_a_run_in_which_nothing_blew_up_says_nothing_of_its_pace(tmp_path: Path) -> None:
    fit(model_of(), "digits", tmp_path / "run", **QUIET | {"steps": 2})
    assert read_history(tmp_path / "run").slowed == {} and "pace" not in (tmp_path / "run" / "metrics.csv").read_text()


def test_what_blows_up_again_and_again_is_a_fault(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(OBJECTIVES, "nll", Blowing(*range(105, 140)))
    monkeypatch.setattr(Pace, "spent", property(lambda pace: pace.factor < 0.2))
    with pytest.raises(TrainingError, match=r"stage 'likelihood', step 1\d\d of 140: gradients blow up however low the learning"):
        fit(model_of(), DIGITS, **SOME)
