"""The documentation: examples run, commands parse, every model has its page, notebooks run, links lead somewhere."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import fields
from html.parser import HTMLParser
from pathlib import Path
from urllib.parse import unquote, urlsplit

import pytest
import torch
from examples import blocks, commands

from ancestral.cli.parsing import parse
from ancestral.models import MODELS, entry

ROOT = Path(__file__).resolve().parent.parent
DOCS = ROOT / "docs"
PAGES = {str(path.relative_to(DOCS)): path for path in sorted(DOCS.rglob("*.md"))}
PYTHON = [name for name, page in PAGES.items() if any(blocks(page, "python"))]
COMMANDS = [(name, command) for name, page in PAGES.items() for command in commands(page)]
SECTIONS = ["Equation", "Structure", "When to take it", "Pitfalls", "Recipe", "Figures", "Settings", "References"]
NOTEBOOKS = sorted((DOCS / "notebooks").glob("*.ipynb"))


@pytest.mark.parametrize("name", PYTHON)
def test_python(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The blocks of a page run in order in one namespace, as a user's would: float32, in a folder of their own."""
    monkeypatch.chdir(tmp_path)
    torch.set_default_dtype(torch.float32)
    namespace: dict[str, object] = {"__name__": "__main__"}
    for _, line, text in blocks(PAGES[name], "python"):
        exec(compile("\n" * line + text, str(PAGES[name]), "exec"), namespace)  # blank lines, so that tracebacks show the page's


@pytest.mark.parametrize(("name", "command"), COMMANDS, ids=lambda each: each if isinstance(each, str) else " ".join(each))
def test_command(name: str, command: list[str]) -> None:
    """The real parser takes it."""
    parse(command)


def slug(model: str) -> str:
    return model.replace("+", "p")


@pytest.mark.parametrize("model", MODELS)
def test_every_model_has_its_page(model: str) -> None:
    """Adding one: copy a page of its kind in docs/models/, and write what needs a mind; the rest is made from the package."""
    page = DOCS / "models" / f"{slug(model)}.md"
    assert page.exists(), f"write {page.relative_to(ROOT)}; docs/models/vae.md is one to start from"
    text = page.read_text(encoding="utf-8")
    assert re.findall(r"^## (.*)$", text, re.MULTILINE) == SECTIONS
    made = ["facts", "diagram", "seen", "figures", "settings"]
    assert re.findall(r"^<!-- made: (.*) -->$", text, re.MULTILINE) == made
    recipe = [words for name, words in COMMANDS if PAGES[name] == page]
    assert any(words[:2] in (["train", model], ["sweep", model]) for words in recipe), "its recipe trains another model"


def test_every_page_of_a_model_is_of_one() -> None:
    pages = {path.stem for path in (DOCS / "models").glob("*.md")} - {"index"}
    assert pages == {slug(model) for model in MODELS}


@pytest.fixture
def extension(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(str(DOCS))


@pytest.mark.usefixtures("extension")
def test_pieces_are_made_of_the_package() -> None:
    from extension import commands as helps
    from extension import figures, models

    settings = models.settings("gated-pixelcnn")
    assert "| `first_kernel` | 3 | 7 | 5 | window of the first layer, odd |" in settings
    assert settings.count("\n") == 2 + len(fields(entry("gated-pixelcnn").config))
    facts = models.facts("rnade")
    assert "**exact**" in facts and "vectors of real values" in facts and "real values have no probability" in facts
    assert "bits-back" in models.facts("vae") and "there is no walk" in models.facts("vae")
    assert set(figures.readme()) == set(MODELS), "the README's table of models is not that of the package"
    assert "87.06 ± 0.23 nats" in figures.figures("nade") and "88.33 nats" in figures.figures("nade")
    rows = [line for line in figures.figures("agave").splitlines() if "z carries" in line and line.count("|") == 6]
    assert [row.split(" | ")[0] for row in rows] == ["| binarized-mnist", *["| cifar10"] * 2, *["| binarized_mnist_labelled"] * 3]
    assert "auxiliary=False" in rows[5] and not any("auxiliary=" in row for row in rows[:5])  # the figure is no setting
    assert "sees one, annealing | 3 |" in figures.collapse()
    assert "usage: ancestral verify" in helps.help_text("verify") and "\033" not in helps.help_text("verify")


@pytest.mark.usefixtures("extension")
def test_pictures_show_what_is_seen() -> None:
    """The counts of SPEC: a Gated PixelCNN sees a rectangle above, a window model its window, a factorised one nothing."""
    from extension import pictures

    assert "112 of the 157 pixels" in pictures.seen("gated-pixelcnn")  # 7 rows of 15, and 7 to the left
    assert "17 of the 157 pixels" in pictures.seen("vlae")  # 5 x 3 on top, 2 to the left
    assert "0 of the 157 pixels" in pictures.seen("vae")
    assert "31 of the 40 samples" in pictures.seen("wavenet")  # 1 + 2 (1 + 2 + 4 + 8)


@pytest.mark.usefixtures("extension")
def test_a_network_that_sees_ahead_gets_no_picture() -> None:
    from extension import pictures

    from ancestral import DataSpec, build
    from ancestral.core import Context, Network
    from ancestral.families import Bernoulli
    from ancestral.testing.subjects import subject

    class Leaky(Network):
        def forward(self, x: torch.Tensor, context: Context | None = None) -> torch.Tensor:
            return x.flatten(1).sum(1).to(self.anchor)[:, None, None, None, None].expand(*x.shape, 1)

    leaky = build(network=Leaky((1, 15, 15)), family=Bernoulli(), spec=DataSpec("image", (1, 15, 15), 2))
    with pytest.raises(ValueError, match="a later one"):
        pictures.conditional(subject(leaky, n=1))


@pytest.mark.slow
@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_notebook(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """It runs from the top, and holds no outputs of an earlier run."""
    import nbformat
    from nbclient import NotebookClient

    monkeypatch.setenv("PYTHONPATH", str(ROOT))
    book = nbformat.read(path, as_version=4)
    assert not any(cell.get("outputs") or cell.get("execution_count") for cell in book.cells)
    NotebookClient(book, timeout=300, kernel_name="python3").execute()


class Page(HTMLParser):
    """The links, anchors and loaded files of a page."""

    def __init__(self, path: Path) -> None:
        super().__init__()
        self.links, self.anchors, self.loaded = list[str](), set[str](), list[str]()
        self.feed(path.read_text(encoding="utf-8"))

    def handle_starttag(self, tag: str, attributes: list[tuple[str, str | None]]) -> None:
        given = {key: value for key, value in attributes if value is not None}
        self.anchors |= {given[key] for key in ("id", "name") if key in given}
        if tag == "a" and "href" in given:
            self.links.append(given["href"])
        elif tag in ("img", "script", "link") and given.get("rel") != "canonical":
            self.loaded += [given[key] for key in ("src", "href") if key in given]


def faults(site: Path) -> Iterator[str]:
    """Links that lead nowhere, and files that a page would fetch from elsewhere."""
    pages = {path.resolve(): Page(path) for path in site.rglob("*.html")}
    for path, page in pages.items():
        for link in page.links + page.loaded:
            parts = urlsplit(link)
            if parts.scheme or parts.netloc:
                if link in page.loaded and parts.scheme != "data":
                    yield f"{path.name} loads {link}"
                continue
            target = (path.parent / unquote(parts.path)).resolve() if parts.path else path
            if not target.exists():
                yield f"{path.name} links to {link}, which is not there"
            elif target in pages and parts.fragment and unquote(parts.fragment) not in pages[target].anchors:
                yield f"{path.name} links to {link}, which has no such anchor"


def test_faults_are_found(tmp_path: Path) -> None:
    (tmp_path / "a.html").write_text(
        '<p id="here"><a href="#here"><a href="b.html#no"><a href="c.html"><script src="https://x/y.js">'
    )
    (tmp_path / "b.html").write_text("<p>")
    assert [fault.split()[-1] for fault in faults(tmp_path)] == ["anchor", "there", "https://x/y.js"]


@pytest.mark.slow
def test_the_site_is_built_without_warnings_and_links_lead_somewhere(tmp_path: Path) -> None:
    """As ``make docs``, but for the notebooks, which have tests of their own."""
    command = [sys.executable, "-m", "sphinx", "-E", "-W", "--keep-going", "-q", "-D", "nb_execution_mode=off"]
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    done = subprocess.run([*command, str(DOCS), str(tmp_path)], capture_output=True, text=True, env=environment, check=False)
    assert done.returncode == 0, done.stderr
    assert list(faults(tmp_path)) == []
    assert {path.stem for path in (tmp_path / "models").glob("*.html")} == {"index", *map(slug, MODELS)}
