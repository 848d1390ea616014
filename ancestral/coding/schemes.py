"""How a file is coded: symbol by symbol; with latents in bits-back or in two parts, or only their part of it."""

from __future__ import annotations

import zlib

from torch import Tensor

from ancestral.coding.blocks import raw_size
from ancestral.coding.container import canonical
from ancestral.coding.payloads import encoded
from ancestral.sampling.strategies import Model
from ancestral.walking.twin import TWO_PART, Twin, label_vector, schemes, twin

AUTO, LATENTS = "auto", "latents"
FEW = 64  # items for which every scheme is tried; of more, the first one that a model has is the shortest


def twin_of(
    model: Model, x: Tensor, labels: Tensor | None, examples: Tensor, known: Tensor | None, scheme: str, engine: str, threads: int
) -> Twin:
    """The twin that (n, *shape) symbols with these labels are coded with.

    Args:
        examples, known: what calibrates it, and the labels of that.
        scheme: one that the model has, ``"latents"``, or ``"auto"`` for the shortest.

    Raises:
        ValueError: the model has no such scheme.
        LoweringError: it has no twin.
    """
    possible, vector = schemes(model), label_vector(known, model.spec)
    wanted = TWO_PART if scheme == LATENTS else scheme
    if wanted not in (AUTO, *possible):
        takes = (AUTO, *possible, *([LATENTS] if TWO_PART in possible else []))
        raise ValueError(f"this model has no scheme {scheme!r}; it takes {', '.join(takes)}")
    some = possible if wanted == AUTO and 0 < len(x) <= FEW else possible[:1] if wanted == AUTO else (wanted,)
    twins = [twin(model, examples, engine, threads, vector, each) for each in some]
    return twins[0] if len(twins) == 1 else min(twins, key=lambda each: _size(each, x, labels))


def _size(exact: Twin, x: Tensor, labels: Tensor | None) -> int:
    """The bytes of a file that depend on the scheme, of items that make one block: what is coded, and the calibration."""
    payload = min(len(encoded(exact, x, labels)), raw_size(exact.likelihood.spec, len(x)))
    return payload + len(zlib.compress(canonical(exact.calibration), 9))
