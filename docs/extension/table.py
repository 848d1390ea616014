"""The table of all models, as Markdown."""

from __future__ import annotations

from ancestral.models import MODELS
from extension.figures import readme
from extension.models import PAGES
from extension.models import table as markdown


def models() -> str:
    """Every model with a link to its page, its status, and the figures of the README."""
    known = readme()
    rows = [[f"[`{name}`]({PAGES[name]}.md)", entry.status, entry.summary, *known[name][2:]] for name, entry in MODELS.items()]
    return markdown(["model", "likelihood", "in a line", "measured here", "the paper's figure"], rows)
