"""Labels as bytes: what a block of a file holds before its items."""

from __future__ import annotations

import torch
from torch import Tensor

from ancestral.coding.errors import CodecError


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
