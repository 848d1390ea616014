"""Training: ``fit`` a model to data, ``resume`` a run that was stopped, ``plan`` one without running it.

Lightning does the loop. It is imported in this package alone, and only once one of these functions is used.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

from ancestral.training.config import TrainingConfig

if TYPE_CHECKING:
    from ancestral.training.faults import Interrupted, TrainingError
    from ancestral.training.fitting import Run, fit, plan, resume

__all__ = ["Interrupted", "Run", "TrainingConfig", "TrainingError", "fit", "plan", "resume"]

_HOMES = {
    "Interrupted": "faults",
    "TrainingError": "faults",
    "Run": "fitting",
    "fit": "fitting",
    "plan": "fitting",
    "resume": "fitting",
}


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"{__name__}.{_HOMES[name]}"), name)
