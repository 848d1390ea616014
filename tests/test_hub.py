"""Saving and loading: what comes back is what went in, and what cannot be loaded says why."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import ancestral
from ancestral import hub
from ancestral.core import Autoregressive, Context, Network
from ancestral.families import Bernoulli
from ancestral.spec import DataSpec

SPEC = DataSpec("image", (1, 8, 8), levels=17, classes=10)


def saved(folder: Path, name: str = "gated-pixelcnn", **overrides: Any) -> hub.Model:
    model = ancestral.build(name, SPEC, preset="tiny", **overrides)
    hub.save(model, folder)
    return model


def edit(folder: Path, **changes: Any) -> None:
    path = folder / "config.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), **changes}))


@pytest.mark.parametrize(
    ("name", "overrides"),
    [("gated-pixelcnn", {"layers": 3, "conditional": True}), ("vae", {"beta": 2.0}), ("agave", {"colours": 4, "factor": 2})],
)
def test_what_comes_back_is_what_went_in(name: str, overrides: dict[str, Any], tmp_path: Path) -> None:
    model = saved(tmp_path / "runs" / "x", name, **overrides)
    loaded = hub.load(tmp_path / "runs" / "x")
    assert (loaded.spec, loaded.config, loaded.training) == (model.spec, model.config, False)
    assert all(torch.equal(loaded.state_dict()[key], value) for key, value in model.state_dict().items())
    assert sorted(path.name for path in (tmp_path / "runs" / "x").iterdir()) == ["config.json", "model.safetensors"]


@pytest.mark.parametrize(
    "spec",
    [
        SPEC,
        DataSpec("text", (None,), 2, end=1),
        DataSpec("text", (4,), 5, end=4),
        DataSpec("audio", (8,), 256, parts=2),
        DataSpec("vector", (2,), None, columns=(3, None)),
    ],
)
def test_specs_come_back(spec: DataSpec) -> None:
    assert DataSpec.from_dict(json.loads(json.dumps(spec.to_dict()))) == spec


def test_weights_keep_their_type(tmp_path: Path) -> None:
    model = ancestral.build("vae", SPEC, preset="tiny").float()
    hub.save(model, tmp_path)
    loaded = hub.load(tmp_path)
    x = torch.randint(17, (3, 1, 8, 8))
    assert loaded.anchor.dtype == torch.float32
    assert torch.equal(loaded.elbo(x).bound, model.elbo(x).bound)


@pytest.mark.parametrize(("shape", "order"), [((1, 3, 5), None), ((1, 6, 4), "columns-upward"), ((1, 2, 6), "rows-leftward")])
def test_a_model_that_was_arranged_for_another_size_comes_back(shape: tuple[int, ...], order: str | None, tmp_path: Path) -> None:
    """With all of its weights, also those of rows and columns that it has no more."""
    model = ancestral.build("transformer", DataSpec("image", (1, 4, 6), levels=3), preset="tiny")
    arranged, x = ancestral.arrange(model, order, shape), torch.randint(3, (3, *shape))
    hub.save(arranged, tmp_path / "smaller")
    loaded = hub.load(tmp_path / "smaller")
    assert isinstance(loaded, Autoregressive) and loaded.spec == arranged.spec
    assert torch.equal(loaded.log_prob(x), arranged.eval().log_prob(x))
    hub.save(ancestral.arrange(loaded, "raster", (1, 4, 6)), tmp_path / "whole")
    whole = hub.load(tmp_path / "whole")
    assert whole.spec == model.spec and "built" not in hub.describe(tmp_path / "whole")
    again = hub.load(tmp_path / "smaller", model=ancestral.arrange(model, order, shape))
    assert isinstance(again, Autoregressive)
    assert torch.equal(again.log_prob(x), loaded.log_prob(x))


def test_extra_entries_are_kept_and_described(tmp_path: Path) -> None:
    hub.save(ancestral.build("vae", SPEC, preset="tiny"), tmp_path, extra={"data": {"name": "digits"}})
    fields = hub.describe(tmp_path)
    assert (fields["model"], fields["data"], fields["spec"]["levels"]) == ("vae", {"name": "digits"}, 17)
    assert fields["versions"].keys() == {"ancestral", "torch", "python"}


class Logits(Network):
    """One free logit a site, used twice."""

    def __init__(self) -> None:
        super().__init__((3,))
        self.logits = nn.Parameter(torch.randn(3, 1))
        self.tied = self.logits

    def forward(self, x: Tensor, context: Context | None = None) -> Tensor:
        return self.logits.expand(len(x), 3, 1)


def test_your_own_network_is_handed_over(tmp_path: Path) -> None:
    model = Autoregressive(Logits(), Bernoulli(), DataSpec("vector", (3,), levels=2))
    hub.save(model, tmp_path)
    assert hub.describe(tmp_path)["model"] is None
    x = torch.tensor([[0, 1, 1]])
    assert torch.equal(hub.load(tmp_path, network=Logits(), family=Bernoulli()).log_prob(x), model.log_prob(x))
    with pytest.raises(hub.LoadError, match=r"network=\.\.\., family="):
        hub.load(tmp_path)
    saved(tmp_path / "named")
    with pytest.raises(hub.LoadError, match="leave network and family out"):
        hub.load(tmp_path / "named", network=Logits(), family=Bernoulli())


def test_no_folder_names_the_nearest(tmp_path: Path) -> None:
    saved(tmp_path / "digits")
    with pytest.raises(FileNotFoundError, match=r"no folder .*digit; did you mean .*/digits\?$"):
        hub.load(tmp_path / "digit")
    (tmp_path / "empty").mkdir()
    with pytest.raises(FileNotFoundError, match=r"empty has no config\.json"):
        hub.load(tmp_path / "empty")
    with pytest.raises(FileNotFoundError, match="there is no folder"):
        hub.load(tmp_path / "nowhere" / "at" / "all")


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"model": "gated-pixelcn"}, "did you mean 'gated-pixelcnn'"),
        ({"config": {"layer": 3}}, "no setting 'layer'; did you mean 'layers'"),
        ({"config": {"layers": "3"}}, "layers is '3'"),
        ({"config": None}, "config.json"),
        ({"spec": {"kind": "image"}}, "shape"),
        ({"format": 2, "versions": {"ancestral": "9.0"}}, "written by ancestral 9.0, .* upgrade"),
    ],
)
def test_a_configuration_that_cannot_be_is_refused(changes: dict[str, Any], message: str, tmp_path: Path) -> None:
    saved(tmp_path)
    edit(tmp_path, **changes)
    with pytest.raises(hub.LoadError, match=message):
        hub.load(tmp_path)


@pytest.mark.parametrize("text", ['{"format": 1, "mod', "[1, 2]", "{}", "\x00"])
def test_a_damaged_configuration_is_refused(text: str, tmp_path: Path) -> None:
    saved(tmp_path)
    (tmp_path / "config.json").write_text(text)
    with pytest.raises(hub.LoadError, match=r"config\.json is"):
        hub.load(tmp_path)


def test_weights_that_do_not_fit_are_refused(tmp_path: Path) -> None:
    saved(tmp_path)
    weights = tmp_path / "model.safetensors"
    whole = weights.read_bytes()
    for size in (0, 5, len(whole) // 2, len(whole) - 1):
        weights.write_bytes(whole[:size])
        with pytest.raises(hub.LoadError, match=r"model\.safetensors is damaged"):
            hub.load(tmp_path)
    weights.write_bytes(whole)
    edit(tmp_path, config={**hub.describe(tmp_path)["config"], "head": 7})
    with pytest.raises(hub.LoadError, match=r"weight network\.head\.1\.\S+ is \(6, .* in the file and \(7, "):
        hub.load(tmp_path)
    edit(tmp_path, config={**hub.describe(tmp_path)["config"], "head": 6, "layers": 3})
    with pytest.raises(hub.LoadError, match=r"weight network\.layers\.2\.\S+ is missing in the file"):
        hub.load(tmp_path)
    weights.unlink()
    with pytest.raises(FileNotFoundError, match=r"has no model\.safetensors"):
        hub.load(tmp_path)


def test_files_appear_whole_or_not_at_all(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "a" / "file"
    hub.write_whole(path, b"old")

    def full(descriptor: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(OSError, match="No space left"):
        hub.write_whole(path, b"new")
    assert path.read_bytes() == b"old"
    assert [each.name for each in path.parent.iterdir()] == ["file"]
