"""``models`` and ``data``: what there is. Lists come without torch."""

from __future__ import annotations

from ancestral.cli.commands import Answer, Data, Models
from ancestral.data.catalogue import EMBEDDED
from ancestral.models import MODELS


def models(command: Models) -> Answer:
    """The table of models, with the status of their likelihood."""
    rows = [
        {"name": name, "status": each.status, "summary": each.summary, "presets": [*each.config.presets]}
        for name, each in MODELS.items()
    ]
    return Answer({"models": rows}, [f"{row['name']:<16}{row['status']:<8}{row['summary']}" for row in rows])


def data(command: Data) -> Answer:
    """The embedded data, or what a source holds."""
    if command.source is None:
        return Answer({"data": EMBEDDED}, [f"{name:<14}{summary}" for name, summary in EMBEDDED.items()])
    from ancestral.data.loading import load_data  # brings torch
    from ancestral.report.describe import data_in_words

    found = load_data(command.source, **command.reading.options())
    names = f"classes: {', '.join(found.class_names)}" if found.class_names else ""
    return Answer(
        found.describe(), [line for line in (data_in_words(found.spec), found.note, names, f"hash: {found.hash}") if line]
    )
