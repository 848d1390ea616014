"""What the pages have that is made of the package itself: facts, settings, pictures, records and help, never copied by hand.

A page asks for a piece by a line of its own, ``<!-- made: settings -->``; pieces of a model are for the model of the page.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import PurePosixPath
from typing import Any

from sphinx.application import Sphinx

from extension import commands, docstrings, figures, mathml, models, pictures, reference, table

MARK = re.compile(r"^<!-- made: ([a-z-]+) -->$", re.MULTILINE)
OF_A_MODEL: dict[str, Callable[[str], str]] = {
    "facts": models.facts,
    "settings": models.settings,
    "diagram": models.diagram,
    "seen": pictures.seen,
    "figures": figures.figures,
}
OF_ALL: dict[str, Callable[[], str]] = {
    "commands": commands.commands,
    "training": models.training,
    "models": table.models,
    "laws": table.laws,
    "collapse": figures.collapse,
    "names": reference.names,
    "elsewhere": reference.elsewhere,
}


def expanded(document: str, text: str) -> str:
    """The text of a page with its pieces in place.

    Raises:
        KeyError: there is no such piece, or a page of no model asks for one of a model.
    """

    def piece(mark: re.Match[str]) -> str:
        if mark[1] in OF_ALL:
            return OF_ALL[mark[1]]()
        return OF_A_MODEL[mark[1]](models.BY_PAGE[PurePosixPath(document).name])

    return MARK.sub(piece, text)


def _read(app: Sphinx, document: str, content: list[str]) -> None:
    content[0] = expanded(document, content[0])


def setup(app: Sphinx) -> dict[str, Any]:
    """Called by Sphinx."""
    app.connect("source-read", _read)
    mathml.setup(app)
    docstrings.setup(app)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
