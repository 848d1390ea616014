"""The table of all models, and that of the laws that they keep, as Markdown."""

from __future__ import annotations

from ancestral.models import MODELS
from ancestral.testing import LAWS
from extension.figures import readme
from extension.models import PAGES
from extension.models import table as markdown


def models() -> str:
    """Every model with a link to its page, its status, and the laws and figures of the README."""
    rows = []
    for name, entry in MODELS.items():
        _, kept, _, measured, paper = readme()[name]
        rows.append([f"[`{name}`]({PAGES[name]}.md)", entry.status, kept, entry.summary, measured, paper])
    return markdown(["model", "likelihood", "laws", "in a line", "measured here", "the paper's figure"], rows)


def laws() -> str:
    """Every law with its statement, in the order of `LAWS`."""
    return markdown(["law", "what holds"], [[f"`{name}`", (law.__doc__ or "").strip()] for name, law in LAWS.items()])
