"""The pieces that a report is made of: pictures, figures, history, descriptions and commands."""

from __future__ import annotations

import re
from dataclasses import asdict
from itertools import combinations
from math import isnan, log
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from matplotlib.text import Annotation
from PIL import Image

import ancestral
from ancestral.latent.topdown import Noise
from ancestral.models import configure
from ancestral.report import describe, grid, pixels, save_png
from ancestral.report.figures import Curve, latent_bars, learning_curves, surprisal_maps
from ancestral.report.history import History, read_history
from ancestral.report.pictures import vae_images
from ancestral.report.remake import commands, options, settings, training
from ancestral.report.sweeps import Point
from ancestral.report.tradeoff import Line, rate_distortion
from ancestral.sampling.strategies import Rows
from ancestral.spec import DataSpec
from ancestral.symbols import DataError
from ancestral.training.config import TrainingConfig

# pictures


def test_symbols_become_bytes() -> None:
    x = torch.arange(24).view(2, 3, 2, 2)
    shown = pixels(x, 24)
    assert shown.shape == (2, 2, 2, 3) and shown.dtype == np.uint8
    for n, c, h, w in [(0, 0, 0, 0), (0, 2, 1, 0), (1, 1, 0, 1), (1, 2, 1, 1)]:
        assert shown[n, h, w, c] == round(int(x[n, c, h, w]) * 255 / 23)
    assert pixels(torch.tensor([[[[0, 1]]]], dtype=torch.uint8), 2).flatten().tolist() == [0, 255]


@pytest.mark.parametrize(
    ("x", "levels", "message"),
    [
        (torch.zeros(1, 2, 4, 4), 2, "2 channels"),
        (torch.zeros(1, 1, 4, 4), None, "real-valued"),
        (torch.zeros(1, 4, 4), 2, "not a batch"),
        (torch.full((1, 1, 4, 4), 2), 2, "range over 2 .. 2"),
        (torch.full((1, 1, 4, 4), -1), 2, "range over -1"),
        (torch.full((1, 1, 4, 4), float("nan")), 2, "range over nan"),
    ],
)
def test_what_is_no_picture_is_refused(x: torch.Tensor, levels: int | None, message: str) -> None:
    with pytest.raises(DataError, match=message):
        pixels(x, levels)


@pytest.mark.parametrize("channels", [1, 3])
def test_a_grid_holds_every_image_at_its_place(channels: int) -> None:
    images = np.random.default_rng(0).integers(0, 256, (5, 3, 4, channels), np.uint8)
    sheet = grid(images, 2, scale=2, padding=1, background=7)
    assert sheet.shape == (3 * 6 + 2, 2 * 8 + 1, channels)
    for i, image in enumerate(images):
        top, left = i // 2 * 7, i % 2 * 9
        for pixel in np.ndindex(6, 8):
            assert (sheet[top + pixel[0], left + pixel[1]] == image[pixel[0] // 2, pixel[1] // 2]).all()
    assert (sheet[6] == 7).all() and (sheet[:, 8] == 7).all() and (sheet[14:, 9:] == 7).all()
    assert min(grid(images, 2, padding=0).shape[:2]) // 2 >= 48  # small images are enlarged until they can be seen
    assert grid(images[:1], 9, scale=1).shape == images.shape[1:]


@pytest.mark.parametrize("change", [{"columns": 0}, {"scale": 0}, {"padding": -1}, {"images": np.zeros((0, 2, 2, 1), np.uint8)}])
def test_a_grid_of_nothing_is_refused(change: dict[str, object]) -> None:
    with pytest.raises(ValueError, match="at least"):
        grid(**{"images": np.zeros((1, 2, 2, 1), np.uint8), "columns": 1, **change})  # type: ignore[arg-type]


@pytest.mark.parametrize("channels", [1, 3])
def test_a_png_keeps_every_pixel(channels: int, tmp_path: Path) -> None:
    image = np.random.default_rng(0).integers(0, 256, (5, 7, channels), np.uint8)
    path = save_png(tmp_path / "samples" / "grid.png", image)
    assert (np.asarray(Image.open(path)).reshape(image.shape) == image).all()


def test_the_image_above_a_sample_is_that_of_its_z() -> None:
    model = ancestral.build("agave", DataSpec("image", (1, 4, 4), levels=5), preset="tiny", colours=3, factor=2)
    above = vae_images(Rows(model, 3, seed=4))
    with torch.no_grad():
        descent = model.topdown.descend(Noise(4, range(3), prior=True), n=3)
        network = model.auxiliary.likelihood.network
        parameters = network(torch.zeros(3, 1, 2, 2, dtype=torch.long), model.auxiliary.context(descent.features))
        mean = sum(
            y * model.auxiliary.likelihood.family.log_prob(parameters, torch.full((3, 1, 2, 2), y)).exp() for y in range(3)
        )
    assert above is not None and above.shape == (3, 2, 2, 1)
    assert np.abs(above[..., 0] - mean[:, 0].numpy() * 255 / 2).max() <= 0.5
    assert vae_images(Rows(ancestral.build("agave", model.spec, preset="tiny", auxiliary=False), 3)) is None


# figures


def test_curves_are_drawn_with_the_boundaries_of_their_stages() -> None:
    curves = [Curve("validation", [1, 2, 4], [3.0, 2.0, 1.0]), Curve("train", [1, 3, 4], [4.0, 2.5, 0.5])]
    figure = learning_curves(curves, [("first", 0, 2), ("second", 2, 4)])
    [axes] = figure.axes
    first, second, boundary = axes.get_lines()
    assert first.get_xydata().tolist() == [[1, 3], [2, 2], [4, 1]] and second.get_ydata().tolist() == [4, 2.5, 0.5]
    assert boundary.get_xdata() == [2, 2]
    assert {text.get_text(): text.get_position()[0] for text in axes.texts} == {"first": 1, "second": 3}
    assert axes.get_ylabel() == "bits/dim" and axes.get_xlim() == (0, 4)
    low, high = axes.get_ylim()
    assert low < 0.5 and high >= 3


def test_bars_are_sorted_within_their_group() -> None:
    figure = latent_bars({"top": [0.1, 2.0, 0.5], "bottom": [0.0] * 200})
    top, bottom = figure.axes
    assert [bar.get_height() for bar in top.patches] == [2.0, 0.5, 0.1]
    assert len(bottom.patches) == 0 and len(bottom.collections) == 1
    assert "top" in top.get_xlabel() and "nats" in top.get_ylabel()


def test_surprisal_is_shown_in_bits_a_pixel() -> None:
    nats = np.random.default_rng(0).random((2, 3, 4, 5))
    figure = surprisal_maps(np.zeros((2, 4, 5, 3), np.uint8), nats)
    maps = [axes.images[0].get_array() for axes in figure.axes[2:4]]
    for i, shown in enumerate(maps):
        assert np.allclose(shown, nats[i].sum(0) / log(2))
    assert figure.axes[-1].get_ylabel() == "bits"


# history


TABLE = """step,stage,split,loss,rate,nll,bits_per_dim,status,seconds
5,vae,train,9.0,1.5,,,,2.0
5,vae,validation,8.0,1.0,,,,2.5
9,joint,train,7.0,0.5,,2.25,bound,4.0
10,joint,train,6.0,0.25,,2.0,bound,6.0
10,joint,validation,6.5,0.75,,2.125,bound,66.0
"""


def test_history_is_read_back(tmp_path: Path) -> None:
    (tmp_path / "metrics.csv").write_text(TABLE)
    history = read_history(tmp_path)
    assert [(stage.name, stage.start, stage.end, stage.status) for stage in history.stages] == [
        ("vae", 0, 5, ""),
        ("joint", 5, 10, "bound"),
    ]
    assert history.seconds == 66
    validation, train = history.curves("bits_per_dim")
    assert (validation.label, list(validation.steps), list(validation.values)) == ("validation", [10], [2.125])
    assert (train.label, list(train.steps), list(train.values)) == ("train", [9, 10], [2.25, 2])
    _, rate = history.curves("rate")
    assert list(rate.steps) == [5, 5, 9, 10] and isnan(rate.values[1]) and rate.values[2:] == [0.5, 0.25]
    assert history.curves("nll") == history.curves("no such column") == []
    empty = read_history(tmp_path / "elsewhere")
    assert empty == History([]) and empty.stages == [] and empty.seconds is None


@pytest.mark.parametrize(
    ("before", "after", "message"), [("2.25", "two", "row 3: bits_per_dim is 'two'"), ("9,joint", "9,", "row 3: it has no stage")]
)
def test_a_damaged_history_is_refused(before: str, after: str, message: str, tmp_path: Path) -> None:
    (tmp_path / "metrics.csv").write_text(TABLE.replace(before, after))
    with pytest.raises(DataError, match=message):
        read_history(tmp_path)


# words


def test_a_description_counts_parameters_and_pixels(tmp_path: Path) -> None:
    spec = DataSpec("image", (1, 4, 4), levels=3)
    model = ancestral.build("agave", spec, preset="tiny")
    lines = {line[:17].strip(): line[17:] for line in describe(model)}
    total = sum(p.numel() for p in model.parameters())
    assert lines["parameters"].startswith(f"{total:,} (float64, {8 * total / 1000:.1f} kB): topdown ")
    assert (
        sum(int(n.replace(",", "")) for n in re.findall(r"(?:topdown|likelihood|auxiliary) ([\d,]+)", lines["parameters"]))
        == total
    )
    assert lines["model"] == "agave, lower bound of the likelihood" and lines["data"] == "image 1 x 4 x 4, 3 levels: 16 symbols"
    assert lines["stages"] == "vae (auxiliary_elbo) 15 %, pixelcnn (nll) 35 %, joint (auxiliary_guided) 50 %"
    # two layers whose windows reach 1 each way see 2 rows above, and as far to the sides
    assert lines["receptive field"] == "2 rows above x 5 columns, 12 pixels"
    wide = ancestral.build("gated-pixelcnn", spec, preset="tiny", first_kernel=7, layers=4)
    assert describe(wide)[4].endswith(": everything before a pixel")
    ancestral.save(model, tmp_path)
    assert (
        describe(tmp_path)[-1]
        == f"weight file      model.safetensors, {(tmp_path / 'model.safetensors').stat().st_size / 1000:.1f} kB"
    )


def test_commands_make_the_configuration_again() -> None:
    config = configure("agave", "tiny", lambda_=5.0, auxiliary=False)
    found = settings("agave", asdict(config))
    assert found == {"preset": "tiny", "lambda_": 5.0, "auxiliary": False}
    assert configure("agave", **found) == config
    assert settings("agave", asdict(configure("agave"))) == {}
    assert options(found) == ["--preset tiny", "--lambda 5.0", "--no-auxiliary"]
    entries = {"training": {**asdict(TrainingConfig(seed=3, ema=0.5)), "threads": 2}, "stages": [{"steps": 4}, {"steps": 5}]}
    assert training(entries) == {"ema": 0.5, "minutes": None, "steps": 9, "seed": 3}
    assert commands(Path("run"), {"model": None}) == []
    whole = {
        "model": "agave",
        "config": asdict(config),
        **entries,
        "data": {"source": "my photos", "options": {"channels": 1, "size": 8}},
    }
    train, again = commands(Path("runs/x y"), whole)
    assert train.startswith("ancestral train agave --data 'my photos' --out 'runs/x y' --size 8 --grey --preset tiny")
    assert again == "ancestral report 'runs/x y'"
    assert commands(Path("run"), {**whole, "data": {"source": "my photos", "options": {"seed": 3}}}) == []


@pytest.mark.parametrize(
    ("name", "asked"),
    [
        ("vae", {}),
        ("vae", {"importance_samples": 0}),
        ("vae", {"split": "validation", "limit": 20, "importance_samples": 3, "subset": 5, "seed": 2}),
        ("made", {}),
        ("row-lstm", {"limit": 20, "orders": 2}),
        ("made", {"numerics": "exact", "subset": 3}),
    ],
)
def test_the_command_that_measured_is_named(name: str, asked: dict[str, Any]) -> None:
    data = ancestral.data("digits")
    model = ancestral.build(name, data.spec, preset="tiny")
    whole = {"importance_samples": 2, "subset": 4} if name == "vae" else {}
    found = ancestral.evaluate(model, data, **{**whole, **asked})
    entries = {"training": asdict(TrainingConfig()), "stages": [{"steps": 4}], "data": {"source": "digits", "hash": data.hash}}
    told = commands(Path("run"), {"model": name, "config": asdict(configure(name, "tiny")), **entries}, found)
    flags = options({**whole, **asked})
    assert [set(line.split()[3:]) for line in told[1:-1]] == ([set(" ".join(flags).split())] if flags else [])
    others = {**entries, "data": {"source": "digits", "hash": "another"}}
    assert len(commands(Path("run"), {"model": name, "config": asdict(configure(name, "tiny")), **others}, found)) == 2


def test_labels_of_rate_and_distortion_cover_neither_points_nor_one_another() -> None:
    """Those of one family of latent-variable models, and of another close by."""
    places = {"first": [(2.3, 82.4), (4.7, 79.4), (17.6, 68.3)], "second": [(8.0, 76.4), (9.3, 76.1)], "third": [(7.4, 77.4)]}

    def point(rate: float, distortion: float) -> Point:
        return Point.of({}, [{"rate": rate, "distortion": distortion, "nats": rate + distortion, "status": "bound"}])

    lines = [Line(name, [(f"setting {x}", point(x, y)) for x, y in spots]) for name, spots in places.items()]
    axes = rate_distortion(lines).axes[0]
    boxes = [text.get_window_extent() for text in axes.texts if isinstance(text, Annotation)]
    spots = axes.transData.transform([spot for line in places.values() for spot in line])
    assert len(boxes) == len(spots) and not any(box.contains(*spot) for box in boxes for spot in spots)
    assert not any(one.overlaps(other) for one, other in combinations(boxes, 2))
