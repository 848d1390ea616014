"""What was found of a run, kept as JSON in its folder together with the hash of the weights that it belongs to."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ancestral.cli.runs import said
from ancestral.files import write_whole
from ancestral.hub import WEIGHTS


def keep(run: Path, name: str, found: Mapping[str, Any]) -> None:
    """Keep it under a name, where the folder can be written to; a note on standard error where not."""
    content = {"weights": weights_of(run), **found}
    try:
        write_whole(run / name, json.dumps(content, indent=2, ensure_ascii=False).encode())
    except OSError as error:
        said(f"note: {name} is not kept in {run} ({error.strerror})")


def kept(run: Path, name: str) -> dict[str, Any] | None:
    """What is kept under a name; None where nothing is, or it is damaged, or belongs to other weights than are there now."""
    try:
        found: dict[str, Any] = json.loads((run / name).read_text(encoding="utf-8"))
        return found if found["weights"] == weights_of(run) else None
    except (OSError, ValueError, KeyError, TypeError):
        return None


def weights_of(run: Path) -> str:
    """SHA-256 of a run's weights, in hexadecimal; empty where there are none."""
    path = run / WEIGHTS
    return hashlib.sha256(path.read_bytes()).hexdigest() if path.exists() else ""
