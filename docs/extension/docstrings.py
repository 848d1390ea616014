"""Docstrings are plain text with Google's sections: what reStructuredText would read into them is kept from it."""

from __future__ import annotations

import re
from typing import Any

from sphinx.application import Sphinx

CODE = re.compile(r"(``.*?``|`[^`]*`)")
MARKS = re.compile(r"\*(?!\w[\w ]*\*)(?<!\w\*)|\|")  # a star that does not emphasise, as in (n, *shape), and |x|


def _plain(app: Sphinx, what: str, name: str, obj: Any, options: Any, lines: list[str]) -> None:
    example = False
    for i, line in enumerate(lines):
        example = line.lstrip().startswith((">>>", "...")) or (example and bool(line.strip()))
        if not example:
            parts = CODE.split(line)
            lines[i] = "".join(part if part.startswith("`") else MARKS.sub(r"\\\g<0>", part) for part in parts)
            lines[i] = re.sub(r"(?<=\w)`(?=s\b)", r"`\\ ", lines[i])  # the plural of a name
            lines[i] = re.sub(r"(: )(\w\.)$", r"\1\\\2", lines[i])  # "size: k." begins no list
    if what == "module":
        lines[:] = _drawings(lines)


def _drawings(lines: list[str]) -> list[str]:
    """Indented lines of a module's docstring are pictures and equations, to be shown as they stand."""
    found: list[str] = []
    for i, line in enumerate(lines):
        before = next((each for each in reversed(found) if each.strip()), "")
        begins = line.startswith(" ") and not before.startswith(" ") and not (i and lines[i - 1].strip())
        found += ["::", "", line] if begins and not before.rstrip().endswith("::") else [line]
        if line.startswith(" "):
            found[-1] = re.sub(r"\\([*|])", r"\1", line)
    return found


def _foreign(app: Sphinx, what: str, name: str, obj: Any, skip: bool, options: Any) -> bool | None:
    """Leave out what other packages brought."""
    own = str(getattr(obj, "__module__", None)).startswith("ancestral")
    return True if callable(obj) and not own else None


def setup(app: Sphinx) -> None:
    """Before Napoleon reads the sections."""
    app.connect("autodoc-process-docstring", _plain, priority=400)
    app.connect("autodoc-skip-member", _foreign)
