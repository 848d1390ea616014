"""The public names: where each is explained, and the explanation of those that no page of a module has."""

from __future__ import annotations

import re
from pathlib import Path
from types import ModuleType
from typing import Any

import ancestral
from extension.models import table

PAGES = Path(__file__).resolve().parents[1] / "api"


def public() -> dict[str, Any]:
    """Every public name that is not a module, with what it stands for."""
    found = {name: getattr(ancestral, name) for name in ancestral.__all__}
    return {name: each for name, each in found.items() if not isinstance(each, ModuleType)}


def modules() -> set[str]:
    """The modules that have a page."""
    return {name for page in PAGES.glob("*.md") for name in re.findall(r"automodule:: (\S+)", page.read_text(encoding="utf-8"))}


def home(each: Any) -> str:
    """The full name of a class or function."""
    return f"{each.__module__}.{each.__qualname__}"


def kind(each: Any) -> str:
    """As Sphinx calls it."""
    if isinstance(each, type):
        return "exception" if issubclass(each, BaseException) else "class"
    return "function"


def names() -> str:
    """A table of all public names with the first sentence of each."""
    rows = []
    for name, each in public().items():
        role = {"class": "class", "exception": "exc", "function": "func"}[kind(each)]
        first = re.split(r"(?<=[.])(?<!al[.])\s", " ".join((each.__doc__ or "").split("\n\n")[0].split()))[0]
        rows.append([f"{{py:{role}}}`{name} <{home(each)}>`", first.replace("``", "`").replace("*", "\\*").replace("<", "&lt;")])
    return table(["name", "what it is"], rows)


def elsewhere() -> str:
    """The reference of those names whose module has no page."""
    known = modules()
    chosen = [f".. auto{kind(each)}:: {home(each)}" for each in public().values() if each.__module__ not in known]
    return "```{eval-rst}\n" + "\n\n".join(chosen) + "\n```\n"
