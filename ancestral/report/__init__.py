"""Seeing a model: pictures, figures, a description in words, and the report of a run."""

from __future__ import annotations

from ancestral.report.describe import describe
from ancestral.report.images import grid, pixels, save_png
from ancestral.report.write import report

__all__ = ["describe", "grid", "pixels", "report", "save_png"]
