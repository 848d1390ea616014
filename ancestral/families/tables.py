"""Integer tables for entropy coders: probabilities made whole numbers in which no symbol is impossible.

A table divides 2^precision slots among the symbols, here four of them with precision 4::

    0           6      9  10               16
    |  symbol 0  |  1  |2 |    symbol 3     |

A coder can write every symbol, since each owns a slot, and can read every slot, since each has one owner.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F

MOST_BITS = 32  # coders work in words of 32 bits; far below the 52 at which float64 would no longer place every slot


def leaky_table(probability: Tensor, precision: int) -> Tensor:
    """(..., levels) probabilities, which need not sum to one, to (..., levels + 1) cumulative integers.

    Rule: entry i is i + floor(F_i (2^precision - levels)), F_i the probability of the symbols below i, in float64. So every
    symbol owns one slot and its share of the others, within one slot; entries increase strictly from 0 to 2^precision.

    Raises:
        ValueError: 2^precision slots are fewer than the levels or more than 2^32, or a sum is not positive and finite.

    Example:
        >>> leaky_table(torch.tensor([0.4, 0.1, 0.0, 0.5]), precision=4)
        tensor([ 0,  5,  8,  9, 16])
    """
    levels = probability.shape[-1]
    if precision > MOST_BITS or levels > 2**precision:
        least = (levels - 1).bit_length()
        raise ValueError(f"a table of {levels} levels needs a precision of {least} .. {MOST_BITS} bits, not {precision}")
    cumulative = probability.double().cumsum(-1)
    below, total = cumulative[..., :-1], cumulative[..., -1:]
    if not (total.isfinite() & (total > 0)).all():
        raise ValueError("probabilities sum to zero, infinity or NaN, so there is no table: look for non-finite parameters")
    shares = (below / total * (2**precision - levels)).floor().long()
    shares = shares.cummax(-1).values  # where prefix sums are taken in parallel, they may dip by a rounding
    table = F.pad(shares + torch.arange(1, levels, device=shares.device), (1, 1))
    table[..., -1] = 2**precision
    return table
