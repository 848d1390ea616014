"""The report of a run, piece by piece and as a page."""

from __future__ import annotations

import json
import os
import re
import shlex
from base64 import b64decode
from dataclasses import asdict, replace
from html.parser import HTMLParser
from io import BytesIO
from math import log
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

import ancestral
from ancestral.cli.parsing import parse
from ancestral.data.splits import Splits
from ancestral.evaluation import Evaluation, evaluate
from ancestral.networks.gated_pixelcnn import GatedPixelCNN
from ancestral.report import report, save_png
from ancestral.report.remake import PLACES
from ancestral.symbols import DataError
from ancestral.training.config import TrainingConfig

FEW = {"limit": 16}
SECTIONS = [
    *("Figures", "Training", "Samples", "Sample quality", "Reconstructions", "What z carries"),
    *("Completion", "Surprisal", "Configuration", "Provenance"),
]
VOID = {"meta", "link", "img"}  # elements of HTML without an end


class Page(HTMLParser):
    """What a test asks about a page; elements must close in the order in which they opened."""

    def __init__(self, path: Path) -> None:
        super().__init__()
        self.open: list[str] = []
        self.sections: list[str] = []
        self.ids: list[str] = []
        self.links: list[tuple[str, str]] = []
        self.sheets: list[Image.Image] = []
        self.alts: list[str] = []
        self.figures: list[list[str]] = []
        self.words = ""
        self.html = path.read_text(encoding="utf-8")
        self.feed(self.html)
        self.close()
        assert self.open == []

    def handle_starttag(self, tag: str, attributes: list[tuple[str, str | None]]) -> None:
        values = {name: value or "" for name, value in attributes}
        if tag not in VOID:
            self.open.append(tag)
        if tag == "figure":
            self.figures.append([])
        elif "figure" in self.open:
            self.figures[-1].append(tag)
        if "id" in values:
            self.ids.append(values["id"])
        self.links += [(name, value) for name, value in values.items() if name in ("src", "href", "xlink:href")]
        self.links += [("url", found) for value in values.values() for found in re.findall(r"url\(([^)]*)\)", value)]
        if tag == "img":
            self.alts.append(values["alt"])
            self.sheets.append(
                Image.open(BytesIO(b64decode(values["src"].removeprefix("data:image/png;base64,")))).convert("RGBA")
            )

    def handle_startendtag(self, tag: str, attributes: list[tuple[str, str | None]]) -> None:
        self.handle_starttag(tag, attributes)
        if tag not in VOID:
            self.open.pop()

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        if self.open[-1:] == ["h2"]:
            self.sections.append(data)
        if "style" not in self.open:
            self.words += data


def saved(folder: Path, name: str, data: Splits, source: str | None = None, **overrides: object) -> Path:
    """A folder with an untrained model, as a run of no steps would leave it."""
    torch.manual_seed(0)
    model = ancestral.build(name, data.spec, preset="tiny", **overrides)
    record = {"source": source, "options": FEW, **data.describe()}
    ancestral.save(model, folder, extra={"data": record})
    return folder


@pytest.fixture(scope="module")
def digits() -> Splits:
    return ancestral.data("digits", **FEW)


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An AGAVE after six steps of training."""
    torch.set_default_dtype(torch.float32)
    torch.manual_seed(0)
    folder = tmp_path_factory.mktemp("runs") / "digits"
    model = ancestral.build("agave", ancestral.data("digits").spec, preset="tiny", latent=3)
    few = TrainingConfig(steps=6, batch_size=8, log_every=1, validate_every=1, tensorboard=False, progress=False)
    ancestral.fit(model, "digits", folder, config=few, data_options=FEW)
    return folder


@pytest.fixture(scope="module")
def vectors(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return saved(tmp_path_factory.mktemp("vectors"), "vae", ancestral.data("measurements", **FEW), "measurements")


@pytest.fixture(scope="module")
def evaluation(run: Path, digits: Splits) -> Evaluation:
    return evaluate(ancestral.load(run), digits, importance_samples=3)


@pytest.fixture(scope="module")
def page(run: Path) -> Page:
    heard: list[str] = []
    path = report(run, examples=3, importance_samples=3, progress=heard.append)
    assert path == run / "report.html"
    assert heard[0] == "measuring" and "drawing completions" in heard
    return Page(path)


def test_a_page_has_every_section_and_needs_nothing_else(page: Page) -> None:
    assert page.sections == SECTIONS
    assert "http" not in page.html and "<script" not in page.html
    assert len(page.html) < 3e6
    ids = set(page.ids)
    assert len(ids) == len(page.ids) > 0
    for kind, target in page.links:
        assert target.startswith("data:") or (kind != "src" and target[0] == "#" and target[1:] in ids), (kind, target)


def test_no_figure_is_empty_and_all_pictures_are_described(page: Page) -> None:
    for tags in page.figures:
        assert "figcaption" in tags and {"img", "svg"} & set(tags)
    assert len(page.sheets) == len(page.alts) > 10
    assert all(page.alts)
    for sheet in page.sheets:
        assert min(sheet.size) >= 40 and np.asarray(sheet)[..., :3].std() > 0
    assert page.html.count('role="img" aria-label="') == page.html.count("<svg") == 5


def test_a_page_tells_the_figures_of_the_evaluation_with_unit_and_status(page: Page, evaluation: Evaluation) -> None:
    rows = [re.sub("<[^>]*>", "|", row) for row in re.findall(r"<tr>.*?</tr>", page.html)]

    def row(*words: str) -> str:
        [found] = [row for row in rows if all(word in row for word in words)]
        return found

    assert f"{evaluation.bits_per_dim:.4f} ± {evaluation.bits_per_dim_error:.4f}|" in row(
        "|Negative ELBO|", "|bits/dim|", "|bound|"
    )
    assert f"|{evaluation.nats:,.2f} ± " in row("|Negative ELBO|", "|nats|", "|bound|")
    assert f"|{evaluation.rate:.2f} ± " in row("|Rate|", "|nats|", "|bound|")
    assert f"|{evaluation.distortion:,.2f} ± " in row("|Distortion|", "|nats|", "|bound|")
    assert f"|{-evaluation.elbo_subset / log(2) / 64:.4f} ± " in row("|Negative ELBO, subset|", "|bits/dim|", "|bound|")
    assert f"|{-evaluation.iwae / log(2) / 64:.4f} ± " in row("|Negative IWAE, k = 3|", "|bits/dim|", "|bound|")
    assert f"|{evaluation.active_units} of 3|" in row("|Active units|", "|exact|")
    assert f"cannot show more than {log(16):.2f}" in row(
        "|Mutual information|", f"|{evaluation.mutual_information:.2f}|", "|approximate|"
    )
    assert f"|{evaluation.aggregate_kl:.2f}|" in row("|Aggregate KL|")
    assert f"|{evaluation.shuffle_cost:.2f} ± " in row("|Shuffle cost|", "|nats|", "|approximate|")
    assert evaluation.verdict is not None and evaluation.verdict in page.words
    assert f"<strong>{evaluation.bits_per_dim:.3f}</strong>" in page.html
    assert "bound: ELBO, a single sample of z, KL weight 1" in page.words


def test_a_page_tells_what_is_read_off_z_and_how_samples_compare(page: Page, run: Path) -> None:
    for words in ("posterior means", "z as drawn", "x itself", "Attribute vectors", "The mean of the codes of each class", "KID"):
        assert words in page.words
    assert "not comparable with the literature's figures" in page.words
    assert {"decoded class means: VAE image", "samples and their nearest training examples: nearest, features"} <= set(page.alts)
    assert (run / "classifier.safetensors").exists()


def test_a_page_says_where_it_comes_from(page: Page, run: Path, digits: Splits) -> None:
    assert digits.hash in page.words and digits.note in page.words
    assert "6 steps in" in page.words and f"torch {torch.__version__}" in page.words
    train, again = re.findall(r"ancestral (?:train|report) .*", page.words)
    assert again == f"ancestral report {run}"
    new = parse(shlex.split(train)[1:]).new
    entries = json.loads((run / "config.json").read_text())
    assert (asdict(new.model), new.data, new.out) == (entries["config"], "digits", run)
    assert new.reading.options() == FEW and new.training.steps == 6
    changed = {name for name, value in asdict(new.training).items() if value != entries["training"][name]}
    assert changed <= {*PLACES, "minutes"}


def test_the_same_run_gives_the_same_page(run: Path, evaluation: Evaluation, tmp_path: Path) -> None:
    first, second = (
        report(run, evaluation=evaluation, examples=1, out=tmp_path / "deep" / name).read_bytes() for name in ("a.html", "b.html")
    )
    assert first == second


def test_what_does_not_apply_to_an_exact_model_is_left_out(digits: Splits, tmp_path: Path) -> None:
    folder = saved(tmp_path / "run", "gated-pixelcnn", digits, "digits", conditional=True)
    page = Page(report(folder, examples=2))
    assert page.sections == ["Figures", "Samples", "Sample quality", "Completion", "Surprisal", "Configuration", "Provenance"]
    assert 'class="badge exact"' in page.html and 'class="badge bound' not in page.html
    assert 'class="verdict' not in page.html
    assert "exact: the likelihood itself" in page.words and "the lower half is drawn from the model's own" in page.words
    assert "sample i has label i mod 10" in page.words
    assert "no command makes this again" in page.words


def test_a_factorised_decoder_shows_its_mean_and_no_autoregressive_image(digits: Splits, tmp_path: Path) -> None:
    page = Page(report(saved(tmp_path / "run", "vae", digits, "digits"), examples=2, importance_samples=2))
    assert page.sections == [name for name in SECTIONS if name != "Training"]
    assert "the mean of p(x|z)" in page.words and "autoregressive decoder" not in page.words


def test_vectors_have_a_page_without_pictures(vectors: Path) -> None:
    page = Page(report(vectors, ancestral.data("measurements", **FEW), importance_samples=2))
    assert page.sections == ["Figures", "What z carries", "Configuration", "Provenance"]
    assert "What would make z carry more:" in page.words and "a lower KL weight (beta=0.5)" in page.words
    assert page.sheets == [] and "bits/dim of a density" in page.words


def test_a_model_of_your_own_network_has_a_page(digits: Splits, tmp_path: Path) -> None:
    network = GatedPixelCNN((1, 8, 8), 17, 17, layers=1, channels=4, first_kernel=3, head=4)
    model = ancestral.build(
        network=network, family=ancestral.build("gated-pixelcnn", digits.spec, preset="tiny").family, spec=digits.spec
    )
    ancestral.save(model, tmp_path)
    page = Page(report(tmp_path, digits, model=model, examples=1))
    assert "a model of your own on digits" in page.words and "no command makes this again" in page.words


def test_text_is_escaped(vectors: Path, evaluation: Evaluation) -> None:
    hostile = replace(
        evaluation, data={**evaluation.data, "name": '<img src="x">&', "note": "</main><script>"}, verdict="a < b & c"
    )
    page = Page(report(vectors, evaluation=hostile))
    assert 'vae on <img src="x">&' in page.words and "</main><script>" in page.words and "a < b & c." in page.words


def test_data_other_than_those_of_training_are_said_to_be(vectors: Path) -> None:
    page = Page(report(vectors, ancestral.data("measurements", limit=12), importance_samples=2))
    assert "the model was trained on others" in page.words


def test_a_page_appears_whole_or_not_at_all(
    vectors: Path, evaluation: Evaluation, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "page.html"
    path.write_text("what was there")

    def full(*_: object) -> None:
        raise OSError("no space left")

    monkeypatch.setattr(os, "replace", full)
    with pytest.raises(OSError, match="no space left"):
        report(vectors, evaluation=evaluation, out=path)
    with pytest.raises(OSError, match="no space left"):
        save_png(tmp_path / "page.html", np.zeros((2, 2, 1), np.uint8))
    assert path.read_text() == "what was there" and list(tmp_path.iterdir()) == [path]


def test_wrong_folders_and_arguments_are_refused(run: Path, digits: Splits, tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match="there is no folder"):
        report(tmp_path / "nowhere")
    with pytest.raises(FileNotFoundError, match="not the folder of a model"):
        report(tmp_path)
    with pytest.raises(ValueError, match="examples is 0"):
        report(run, examples=0)
    with pytest.raises(DataError, match="hand them over"):
        report(saved(tmp_path / "array", "vae", digits))
    with pytest.raises(DataError, match=r"model takes \(1, 8, 8\)"):
        report(run, "photos")
    assert not (tmp_path / "array" / "report.html").exists()
