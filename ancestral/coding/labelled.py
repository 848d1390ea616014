"""Labels as bytes: whether a file holds them, and what each of its blocks then holds before its items."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from ancestral.coding.errors import CodecError, CorruptHeader
from ancestral.spec import DataSpec
from ancestral.walking.twin import LABELS


def labelled_header(header: Mapping[str, Any], spec: DataSpec) -> bool:
    """Whether a file holds the labels of its items, which is whether its twin is told them.

    Raises:
        CorruptHeader: it says so, and such items have none.
    """
    calibration = header.get("calibration")
    if not isinstance(calibration, Mapping) or LABELS not in calibration:
        return False
    if calibration[LABELS] is not True or spec.classes is None:
        raise CorruptHeader("the header tells of labels that its items cannot have: it was not written by this program")
    return True


def label_bytes(n: int, classes: int) -> int:
    """How many bytes n labels take: those of a number of n digits in base ``classes``."""
    largest: int = classes**n - 1
    return (largest.bit_length() + 7) // 8


def packed(labels: Tensor, classes: int) -> bytes:
    """(n,) labels as the digits of one number, the first one the highest: log2(classes) bits each.

    Example:
        >>> packed(torch.tensor([1, 2, 3, 4]), 10) == (1234).to_bytes(2, "little")
        True
    """
    number = 0
    for label in labels.tolist():
        number = number * classes + label
    return number.to_bytes(label_bytes(len(labels), classes), "little")


def unpacked(data: bytes, n: int, classes: int) -> Tensor:
    """The (n,) int64 labels that ``packed`` wrote.

    Raises:
        CodecError: the bytes are of more or fewer labels, or of other classes.
    """
    number, digits = int.from_bytes(data, "little"), []
    for _ in range(n):
        number, digit = divmod(number, classes)
        digits.append(digit)
    if number or len(data) != label_bytes(n, classes):
        raise CodecError(f"{len(data)} bytes do not hold {n} labels of {classes} classes: the file is damaged")
    return torch.tensor(digits[::-1], dtype=torch.long)
