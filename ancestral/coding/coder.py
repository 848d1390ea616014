"""The entropy coder: a stack of integers on which a symbol takes as many bits as its probability says.

Asymmetric numeral systems (Duda, arXiv:1311.2540) keep everything on the stack in one number x. A symbol that owns f of the
T = 2^24 slots, from slot s on, is pushed and popped by ::

    push   x  ->  T (x // f) + s + x % f
    pop    x  ->  f (x // T) + x % T - s        and the symbol is the one that owns slot x % T

so that it adds log2(T / f) bits, up to rounding. While x is 2^32 or more its lowest 32 bits move to a list of words and back.
The empty stack is x = T, the least number that no push leaves smaller: a pop that ends below T took what was never pushed.
The arithmetic is that of the library ``constriction``; slots and frequencies are exactly the integers given here.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import constriction  # type: ignore[import-untyped]
import numpy as np
from numpy.typing import NDArray

from ancestral.coding.errors import CodecError

PRECISION = 24
SLOTS = 1 << PRECISION  # T

Integers = NDArray[np.int64]

# It rescales weights to SLOTS - A and adds one slot to each of the A symbols. Whole weights, in float64, that have this sum
# already are not changed: the weight f - 1 becomes f slots. `perfect=False` keeps it from moving slots about afterwards.
_WEIGHTED = constriction.stream.model.Categorical(perfect=False)


class Stack:
    """A stack of symbols, each with its own distribution in slots of 2^-24.

    Symbols own slots 1 .. T - 2 (T = 2^24): the two outer ones stay free, so that a push can do with the interval of its
    symbol where a pop needs the table. What was pushed last is popped first; arrays are pushed from their end, so that a pop
    gives them back in their order.

    After a ``CodecError`` what is left on the stack is undefined.

    Example:
        >>> stack = Stack()
        >>> stack.push(np.array([1, 9_000_000]), np.array([8_999_999, 7_777_215]))
        >>> stack.push_uniform(np.array([5, 7]), bits=3)
        >>> stack.pop_uniform(2, bits=3)
        array([5, 7])
        >>> stack.pop(np.array([[1, 9_000_000, 2**24 - 1]] * 2))
        array([0, 1])
        >>> stack.empty
        True
    """

    def __init__(self) -> None:
        self._coder = _coder(np.array([SLOTS], np.uint32))

    @classmethod
    def from_bytes(cls, data: bytes) -> Stack:
        """The stack that ``to_bytes`` wrote.

        Raises:
            CodecError: no stack is written so.
        """
        if not data or not data[-1] or len(data) < 4:
            raise CodecError(f"{len(data)} bytes that do not end as those of a stack do: they were cut short or changed")
        stack = cls()
        stack._coder = _coder(np.frombuffer(data + bytes(-len(data) % 4), "<u4").astype(np.uint32))
        return stack

    def to_bytes(self) -> bytes:
        """Everything on the stack as bytes, the same on every machine: 32-bit little-endian words without their last zeros."""
        data: bytes = self._coder.get_compressed().astype("<u4").tobytes()
        return data.rstrip(b"\0")

    @property
    def bits(self) -> int:
        """How much is on the stack, in whole bits; below 0 where too much was popped."""
        words, rest = self._coder.pos()
        return 32 * int(words) + int(rest).bit_length() - SLOTS.bit_length()

    @property
    def empty(self) -> bool:
        """Whether the stack is as it began."""
        return bool(self._coder.pos() == (0, SLOTS))

    def push(self, starts: Integers, frequencies: Integers) -> None:
        """Push symbols, given by (n,) first slots and (n,) numbers of slots.

        Raises:
            CodecError: an interval is empty or leaves slots 1 .. T - 2, or the arrays do not fit together.
        """
        starts, frequencies = _integers(starts, "starts", 1), _integers(frequencies, "frequencies", 1)
        if starts.shape != frequencies.shape:
            raise CodecError(f"{len(starts)} starts do not fit {len(frequencies)} frequencies")
        if not ((starts >= 1) & (starts < SLOTS) & (frequencies >= 1) & (frequencies < SLOTS - starts)).all():
            raise CodecError(f"starts and frequencies must be at least 1, and their sums at most {SLOTS - 1}")
        above = SLOTS - starts - frequencies
        # to the symbol, everything below it is one other symbol, and everything above it another
        weights = np.stack([starts, frequencies, above], 1).astype(np.float64) - 1
        with _translated("push"):
            self._coder.encode_reverse(np.ones(len(starts), np.int32), _WEIGHTED, weights)

    def pop(self, tables: Integers) -> Integers:
        """Pop (n,) symbols, given their (n, levels + 1) cumulative tables: symbol v owns slots table[v] .. table[v + 1] - 1.

        Raises:
            CodecError: a table does not rise strictly from 1 to T - 1, or there was less on the stack than was popped.
        """
        tables = _integers(tables, "tables", 2)
        frequencies = np.diff(tables, prepend=0, append=SLOTS)  # those of the outer slots too
        inside = frequencies.min(initial=1) >= 1 and frequencies.max(initial=1) < SLOTS
        if not (inside and (frequencies[:, [0, -1]] == 1).all()):
            raise CodecError(f"a cumulative table must rise strictly from 1 to {SLOTS - 1}")
        with _translated("pop"):
            symbols = np.asarray(self._coder.decode(_WEIGHTED, frequencies - 1.0), np.int64) - 1
        self._check_bottom()
        if ((symbols < 0) | (symbols == tables.shape[1] - 1)).any():
            raise CodecError("popped a slot that no symbol owns: the data are damaged, or the tables are not those of the push")
        return symbols

    def push_uniform(self, values: Integers, bits: int) -> None:
        """Push (n,) integers in 0 .. 2^bits - 1, all equally likely; ``bits`` is 1 .. 23.

        Raises:
            CodecError: a value or ``bits`` is out of range.
        """
        values, model = _integers(values, "values", 1), _uniform(bits)
        if values.size and not 0 <= values.min() <= values.max() < 1 << bits:
            raise CodecError(f"values range over {values.min()} .. {values.max()}; {bits} bits hold 0 .. {(1 << bits) - 1}")
        with _translated("push"):
            self._coder.encode_reverse(values.astype(np.int32), model)

    def pop_uniform(self, n: int, bits: int) -> Integers:
        """Pop n integers that were pushed with as many bits.

        Raises:
            CodecError: ``bits`` is out of range, or there was less on the stack than was popped.
        """
        model = _uniform(bits)
        with _translated("pop"):
            values = np.asarray(self._coder.decode(model, n), np.int64)
        self._check_bottom()
        return values

    def words(self) -> NDArray[np.uint64]:
        """x, how many words there are, and the words, the last one on top: what compiled code pops from.

        The array is what is left of it afterwards; ``become`` takes it back.
        """
        words = [int(word) for word in self._coder.get_compressed()[-2:]]  # fewer than 32 bits are one word or none
        below = self._coder.get_compressed()[:-2].astype(np.uint64)
        top = sum(word << 32 * place for place, word in enumerate(words))
        return np.concatenate([np.array([top, len(below)], np.uint64), below])

    def become(self, words: NDArray[np.uint64]) -> None:
        """Be what ``words`` gave and compiled code left.

        Raises:
            CodecError: more was popped than there was.
        """
        top, count = int(words[0]), int(words[1])
        ends = [word for word in (top & 0xFFFFFFFF, top >> 32) if word or top >> 32]
        self._coder = _coder(np.array([*words[2 : 2 + count], *ends], np.uint32))
        self._check_bottom()

    def _check_bottom(self) -> None:
        if self.bits < 0:
            raise CodecError("popped more than is on the stack: the data were cut short, or other symbols were pushed")


def _coder(words: NDArray[np.uint32]) -> Any:
    with _translated("read the stack"):
        return constriction.stream.stack.AnsCoder(words)


def _uniform(bits: int) -> Any:
    if not 1 <= bits < PRECISION:
        raise CodecError(f"bits is {bits}; it must be 1 .. {PRECISION - 1}")
    return constriction.stream.model.Uniform(1 << bits)


def _integers(array: Integers, name: str, axes: int) -> Integers:
    array = np.asarray(array)
    if array.ndim != axes or array.dtype != np.int64:
        raise CodecError(f"{name} is {array.dtype} of shape {array.shape}; it must be int64 with {axes} axes")
    return array


@contextmanager
def _translated(action: str) -> Iterator[None]:
    """Whatever the library raises becomes a ``CodecError``: a fault in its Rust code is not even an ``Exception``."""
    try:
        yield
    except (KeyboardInterrupt, SystemExit):
        raise
    except BaseException as error:
        raise CodecError(f"the entropy coder could not {action}: {type(error).__name__}: {error}") from error
