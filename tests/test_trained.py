"""What a model knows of the data it was trained on: units of real values, the notation of text and sound."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from tiny_cli import Call

import ancestral
from ancestral.data.splits import Splits
from ancestral.hub import Model
from ancestral.symbols import DataError

TABLE = np.random.default_rng(0).normal(3, 2, (60, 4))
LINES = [f"line {i} of a book" for i in range(60)]


def text() -> Splits:
    return ancestral.data(LINES, notation="bpe", vocabulary=270)


def other_text() -> Splits:
    return ancestral.data([line[::-1] for line in LINES], notation="bpe", vocabulary=270)


def table() -> Splits:
    return ancestral.data(TABLE, standardize=True)


def other_table() -> Splits:
    return ancestral.data(TABLE * 5, standardize=True)


def trained(data: Splits) -> Model:
    if data.spec.kind == "text":
        model = ancestral.build("transformer", data.spec, preset="tiny", context=64)
    else:
        model = ancestral.build("made", data.spec, preset="tiny")
    assert model.units is None and model.notation is None
    ancestral.fit(model, data, steps=1, batch_size=4, progress=False)
    return model


@pytest.mark.parametrize("data", [text(), table()], ids=["text", "table"])
def test_it_is_kept_by_files_and_by_what_is_made_of_the_model(data: Splits, tmp_path: Path) -> None:
    model = trained(data)
    assert model.units is data.units and model.notation is data.notation
    arranged = ancestral.arrange(model)
    assert arranged.notation is data.notation and arranged.units is data.units
    for folder in ("one", "two"):
        ancestral.save(model, tmp_path / folder)
        model = ancestral.load(tmp_path / folder)
        assert model.notation == data.notation
        assert (model.units is None and data.units is None) or model.units.same(data.units)
    ancestral.fit(model, data, tmp_path / "run", steps=1, batch_size=4, progress=False)
    run = ancestral.load(tmp_path / "run")
    assert (
        run.notation == data.notation
        and (run.units is None or run.units.same(data.units))
        and bool(run.units) is bool(data.units)
    )
    again = ancestral.resume(tmp_path / "run", data).model
    assert again.notation is data.notation and again.units is data.units


def test_evaluation_refuses_data_written_otherwise() -> None:
    for one, other, match in (
        (text(), other_text(), r"stand for other things .* notation=model\.notation"),
        (table(), ancestral.data(TABLE), r"other units .* units=model\.units"),
        (table(), other_table(), r"other units .* units=model\.units"),
    ):
        model = trained(one)
        with pytest.raises(DataError, match=match):
            ancestral.evaluate(model, other, limit=2)
        assert ancestral.evaluate(model, one, limit=2).nats > -1e3


def test_the_remedies_hold() -> None:
    model = trained(text())
    read = ancestral.data([line[::-1] for line in LINES], notation=model.notation)
    assert ancestral.evaluate(model, read, limit=2).bits_per_dim is not None
    model = trained(table())
    assert ancestral.evaluate(model, ancestral.data(TABLE * 5, units=model.units), limit=2).status == "exact"


def test_a_draft_has_the_notation_of_the_model() -> None:
    model, draft = trained(text()), trained(other_text())
    with pytest.raises(ValueError, match="stand for other things"):
        ancestral.sampling.speculative_sample(model, draft, 1)
    assert ancestral.sampling.speculative_sample(model, model, 1, length=4).x.shape == (1, 4)


def test_models_of_arrays_know_nothing() -> None:
    model = ancestral.build("made", ancestral.DataSpec("vector", (3,), levels=2), preset="tiny")
    ancestral.fit(model, np.random.default_rng(0).integers(0, 2, (30, 3)), steps=1, batch_size=4, progress=False)
    assert model.units is None and model.notation is None


def test_the_command_line_uses_what_was_saved(call: Call, tmp_path: Path) -> None:
    run, book, file = (tmp_path / name for name in ("run", "book.txt", "book.anc"))
    ancestral.save(trained(ancestral.data(LINES, notation="bytes", length=16, pieces="blocks")), run)
    book.write_text("\n".join(LINES))
    assert call("inspect", run)[0] == 0
    assert "bits a byte" in call("evaluate", run, "--data", book, "--limit", 3)[1]
    assert call("compress", run, book, "--out", file)[0] == call("verify", file, book, "--model", run)[0] == 0
