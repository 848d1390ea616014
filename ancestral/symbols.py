"""Symbols as tensors: whether they fit a spec, and which of them count where lengths vary."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from ancestral.spec import DataSpec

LUMA = (299, 587, 114)  # thousandths of red, green and blue in a pixel's brightness (ITU-R BT.601)


class DataError(ValueError):
    """Data do not fit the model: the message names what is wrong and what would fit."""


def check_tensor(value: object, what: str) -> None:
    """Raise ``DataError`` where something else, such as an array of NumPy, stands in the place of a tensor."""
    if not isinstance(value, Tensor):
        raise DataError(f"{what} came as {type(value).__name__}: give a tensor, which torch.as_tensor makes of arrays and lists")


def check_context(context: object) -> None:
    """Raise ``DataError`` where labels, or anything else that has no parts, stand in the place of a context."""
    if context is not None and not hasattr(context, "vector"):
        raise DataError(
            f"the context is a {type(context).__name__}: labels become one by ancestral.objectives.label_context(labels,"
            " model.spec, model.anchor), and functions such as ancestral.sample take them as labels="
        )


def check_parts(parts: Mapping[type, Any], spec: DataSpec) -> None:
    """Raise ``TypeError`` or ``ValueError`` where a network and a family, by their types, do not fit each other or the spec."""
    for kind, part in parts.items():
        if not isinstance(part, kind):
            what = f"the class {part.__name__}: make one" if isinstance(part, type) else f"a {type(part).__name__}"
            raise TypeError(f"a model takes a {kind.__name__} of ancestral.core, and this is {what}")
    network, family = parts.values()
    name, shape = type(network).__name__, tuple(network.shape)
    if family.levels != spec.levels:
        raise ValueError(f"{family} is of levels={family.levels}, and the data have levels={spec.levels}")
    if network.discrete is not family.discrete:
        symbols = "integers" if network.discrete else "real values"
        raise ValueError(f"{name} takes {symbols} (discrete={network.discrete}), and {family} is of the others")
    if len(shape) != len(spec.shape):
        raise ValueError(f"{name} is of examples {shape}, and the data have {spec.shape}")


def check_symbols(x: Tensor, spec: DataSpec, context: object = None) -> None:
    """Raise ``DataError`` where (n, *shape) does not fit the spec: shape, type, range, NaN; or the context does not fit x."""
    check_tensor(x, "the symbols")
    check_context(context)
    for part, value in () if context is None else vars(context).items():
        if value is not None and len(value) != len(x):
            raise DataError(
                f"the context's {part} has {len(value)} rows for {len(x)} examples: give each its own, as one label each"
            )
    if x.dim() != len(spec.shape) + 1 or any(e not in (None, s) for e, s in zip(spec.shape, x.shape[1:], strict=True)):
        raise DataError(
            f"a batch of shape {tuple(x.shape)} is not (n, {', '.join(map(str, spec.shape))}), which this model takes"
        )
    if spec.levels is None:
        if not torch.isfinite(x).all():
            raise DataError("the data hold NaN or infinite values; remove or replace them")
        _check_columns(x, spec)
    elif x.is_floating_point() or x.dtype == torch.bool:
        raise DataError(f"symbols have type {x.dtype}; this model takes integers 0 .. {spec.levels - 1}: quantise or cast them")
    elif x.numel() and (int(x.min()) < 0 or int(x.max()) >= spec.levels):
        raise DataError(f"symbols range over {int(x.min())} .. {int(x.max())}; this model takes 0 .. {spec.levels - 1}")


def _check_columns(x: Tensor, spec: DataSpec) -> None:
    for i, levels in spec.whole_columns.items():
        column = x[:, i]
        wrong = column[(column != column.floor()) | (column < 0) | (column >= levels)]
        if len(wrong):
            raise DataError(f"column {i} holds {float(wrong[0]):g}; it takes whole numbers 0 .. {levels - 1}")


def scored(x: Tensor, spec: DataSpec) -> Tensor | None:
    """(n, T) booleans: True up to the first ``end`` of each row, that one included; None where every symbol counts."""
    if spec.end is None:
        return None
    ended = (x == spec.end).long()
    return ended.cumsum(-1) - ended == 0


def lengths(x: Tensor, spec: DataSpec) -> Tensor:
    """(n,) how many symbols of each row of (n, T) come before its first ``end``; T where there is none."""
    return torch.full((len(x),), x.shape[-1], device=x.device) if spec.end is None else (x == spec.end).cumsum(-1).eq(0).sum(-1)


def trimmed(x: Tensor, spec: DataSpec) -> Tensor:
    """(n, T) symbols without what all rows are only filled up with; of varying lengths alone, for others have a length to keep.

    Every row that ends keeps its end, and samples keep all their parts.
    """
    if spec.end is None or None not in spec.shape:
        return x
    longest = int(lengths(x, spec).max()) if len(x) else 0
    return x[:, : -(-(longest + 1) // spec.parts) * spec.parts]


def ended(x: Tensor, spec: DataSpec) -> Tensor:
    """(n, T) symbols with ``end`` in the place of all that comes after the first one."""
    counts = scored(x, spec)
    return x if counts is None or spec.end is None else x.masked_fill(~counts, spec.end)
