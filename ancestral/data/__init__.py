"""Data: embedded sets, files, folders and arrays, all read into ``Splits`` of whole-number symbols.

``ancestral.data("digits")`` is short for ``ancestral.data.load_data("digits")``.
"""

from __future__ import annotations

import sys
from importlib import import_module
from types import ModuleType
from typing import TYPE_CHECKING, Any

from ancestral.data.catalogue import EMBEDDED

if TYPE_CHECKING:
    from ancestral.data import toys
    from ancestral.data.loading import load_data
    from ancestral.data.notation import Sound, Text
    from ancestral.data.splits import Examples, Grey, Splits, Units

__all__ = ["EMBEDDED", "Examples", "Grey", "Sound", "Splits", "Text", "Units", "load_data", "toys"]

# Torch comes with the first use of one of these, not with the list of names that the command line prints.
_HOMES = {
    "load_data": "loading",
    **dict.fromkeys(("Sound", "Text"), "notation"),
    **dict.fromkeys(("Examples", "Grey", "Splits", "Units"), "splits"),
}


class _Data(ModuleType):
    """This module, able to be called.

    The public API has ``ancestral.data`` as a function, while Python binds the package to the same name as soon as
    anybody imports a part of it.  One object that is both cannot be overwritten by the other.
    """

    def __call__(self, source: Any, **options: Any) -> Splits:
        """Read data; the arguments are those of ``load_data``."""
        from ancestral.data.loading import load_data

        return load_data(source, **options)

    def __getattr__(self, name: str) -> Any:
        if name == "toys":
            return import_module(f"{__name__}.toys")
        if name not in _HOMES:
            raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
        return getattr(import_module(f"{__name__}.{_HOMES[name]}"), name)


sys.modules[__name__].__class__ = _Data
