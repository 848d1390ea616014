"""The stack of integers: what textbook rANS in Python integers does, and no more than was pushed can be popped."""

from __future__ import annotations

import subprocess
import sys
from bisect import bisect_right
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from ancestral.coding import PRECISION, SLOTS, CodecError, Stack
from ancestral.coding.coder import Integers

N = 300


class Textbook:
    """rANS by its formulas: state x in [2^32, 2^64) while words lie below it, x >= 2^24 otherwise."""

    def __init__(self) -> None:
        self.x, self.words = 1 << 24, list[int]()

    def push(self, start: int, frequency: int) -> None:
        if self.x >= frequency << 40:
            self.words.append(self.x & 0xFFFFFFFF)
            self.x >>= 32
        self.x = (self.x // frequency << 24) + start + self.x % frequency

    def pop(self, table: list[int]) -> int:
        slot = self.x & 0xFFFFFF
        symbol = bisect_right(table, slot) - 1
        self.x = (table[symbol + 1] - table[symbol]) * (self.x >> 24) + slot - table[symbol]
        if self.x < 1 << 32 and self.words:
            self.x = self.x << 32 | self.words.pop()
        return symbol

    def to_bytes(self) -> bytes:
        return b"".join(word.to_bytes(4, "little") for word in [*self.words, self.x & 0xFFFFFFFF, self.x >> 32]).rstrip(b"\0")


def uneven(rng: np.random.Generator, levels: int) -> Integers:
    """Cut points anywhere."""
    cuts = np.sort(rng.choice(SLOTS - 3, levels - 1, replace=False, shuffle=False)) + 2
    return np.concatenate([[1], cuts, [SLOTS - 1]])


def peaked(rng: np.random.Generator, levels: int) -> Integers:
    """One symbol has all slots but one for each of the others."""
    frequencies = np.ones(levels, np.int64)
    frequencies[rng.integers(levels)] += SLOTS - 2 - levels
    return np.concatenate([[0], frequencies.cumsum()]) + 1


def even(rng: np.random.Generator, levels: int) -> Integers:
    return np.linspace(1, SLOTS - 1, levels + 1).astype(np.int64)


KINDS = [(uneven, 2), (uneven, 17), (uneven, 256), (peaked, 2), (peaked, 256), (peaked, 1024), (even, 1), (even, 2), (even, 256)]
Kind = Callable[[np.random.Generator, int], Integers]
every_kind = pytest.mark.parametrize(("kind", "levels"), KINDS)


def drawn(kind: Kind, levels: int, n: int = N, seed: int = 0) -> tuple[Integers, Integers, Integers, Integers]:
    """(n, levels + 1) tables, (n,) symbols of any probability, and their starts and frequencies."""
    rng = np.random.default_rng([seed, levels])
    few = np.stack([kind(rng, levels) for _ in range(20)])
    tables = few[rng.integers(len(few), size=n)]
    symbols = rng.integers(levels, size=n)
    starts, ends = tables[np.arange(n), symbols], tables[np.arange(n), symbols + 1]
    return tables, symbols, starts, ends - starts


@every_kind
def test_the_state_is_that_of_the_formulas(kind: Kind, levels: int) -> None:
    tables, _, starts, frequencies = drawn(kind, levels)
    stack, textbook = Stack(), Textbook()
    for part in (slice(200, N), slice(1, 200), slice(0, 1)):  # the last is pushed first
        stack.push(starts[part], frequencies[part])
        for start, frequency in zip(starts[part][::-1].tolist(), frequencies[part][::-1].tolist(), strict=True):
            textbook.push(start, frequency)
        assert stack.to_bytes() == textbook.to_bytes()
    for part in (slice(0, 150), slice(150, N)):
        assert stack.pop(tables[part]).tolist() == [textbook.pop(table) for table in tables[part].tolist()]
        assert stack.to_bytes() == textbook.to_bytes()
    assert stack.empty


@every_kind
def test_what_was_pushed_is_popped_in_order(kind: Kind, levels: int) -> None:
    tables, symbols, starts, frequencies = drawn(kind, levels, seed=1)
    stack = Stack()
    stack.push(starts, frequencies)
    stack = Stack.from_bytes(stack.to_bytes())
    one_by_one = np.concatenate([stack.pop(tables[i : i + 1]) for i in range(10)])
    rest = stack.pop(tables[10:])
    assert (one_by_one.dtype, rest.dtype) == (np.int64, np.int64)
    assert np.array_equal(np.concatenate([one_by_one, rest]), symbols)
    assert stack.empty and stack.bits == 0


@pytest.mark.parametrize("bits", [1, 8, 12, 23])
def test_uniform_integers_are_symbols_with_equal_slots(bits: int) -> None:
    values = np.random.default_rng(bits).integers(1 << bits, size=N)
    stack, textbook = Stack(), Textbook()
    stack.push_uniform(values, bits)
    for value in values[::-1].tolist():
        textbook.push(value << 24 - bits, 1 << 24 - bits)
    assert stack.to_bytes() == textbook.to_bytes()
    assert stack.bits == pytest.approx(N * bits, abs=2)
    assert np.array_equal(stack.pop_uniform(N, bits), values)
    assert stack.empty


@pytest.mark.parametrize(("kind", "levels"), [(uneven, 2), (uneven, 256), (peaked, 256)])
def test_the_size_is_the_information(kind: Kind, levels: int) -> None:
    _, _, starts, frequencies = drawn(kind, levels, n=3000)
    information = float((PRECISION - np.log2(frequencies)).sum())
    stack = Stack()
    stack.push(starts, frequencies)
    assert information - 1 < stack.bits < information * (1 + 1e-4) + 2
    assert 8 * len(stack.to_bytes()) <= stack.bits + PRECISION + 8


def test_pushing_what_was_popped_restores_any_stack() -> None:
    data = np.random.default_rng(0).bytes(999) + b"\1"
    tables, *_ = drawn(uneven, 17)
    stack = Stack.from_bytes(data)
    symbols = stack.pop(tables)
    assert stack.bits < Stack.from_bytes(data).bits
    lower = tables[np.arange(N), symbols]
    stack.push(lower, tables[np.arange(N), symbols + 1] - lower)
    assert stack.to_bytes() == data


def test_bytes_of_a_small_stack() -> None:
    """Files are made of these bytes: if this fails, old ones cannot be read."""
    stack = Stack()
    assert stack.to_bytes().hex() == "00000001"
    stack.push(np.array([1, 1_000_000, 9_000_000]), np.array([999_999, 8_000_000, 7_777_215]))
    stack.push_uniform(np.array([5, 1023]), 10)
    assert stack.to_bytes().hex() == "5b5f01ffa38005"


@pytest.mark.parametrize("n", [0, 1, 7, 300])
def test_no_more_can_be_popped_than_was_pushed(n: int) -> None:
    tables, _, starts, frequencies = drawn(uneven, 17, n=n + 1)
    stack = Stack()
    stack.push(starts[:n], frequencies[:n])
    data = stack.to_bytes()
    with pytest.raises(CodecError, match="more than is on the stack"):
        stack.pop(tables)
    stack = Stack.from_bytes(data)
    stack.pop(tables[:n])
    assert stack.empty
    with pytest.raises(CodecError, match="more than is on the stack"):
        stack.pop_uniform(1, 1)


def test_a_stack_without_its_bottom_runs_out() -> None:
    tables, _, starts, frequencies = drawn(uneven, 256)
    stack = Stack()
    stack.push(starts, frequencies)
    data = stack.to_bytes()
    for missing in range(4, len(data) - 4, 4):
        with pytest.raises(CodecError, match="more than is on the stack"):
            Stack.from_bytes(data[missing:]).pop(tables)


def test_a_slot_without_a_symbol_is_noticed() -> None:
    for slot in (0, SLOTS - 1):
        stack = Stack.from_bytes((5 << 60 | slot).to_bytes(8, "little"))
        with pytest.raises(CodecError, match="no symbol owns"):
            stack.pop(np.array([[1, 77, SLOTS - 1]]))


def test_nothing_can_be_pushed_and_popped() -> None:
    none = np.zeros(0, np.int64)
    stack = Stack()
    stack.push(none, none)
    stack.push_uniform(none, 4)
    assert stack.empty
    assert stack.pop(np.zeros((0, 5), np.int64)).shape == stack.pop_uniform(0, 4).shape == (0,)


T = SLOTS
BIG = 1 << 62


@pytest.mark.parametrize(
    ("starts", "frequencies"),
    [([0], [5]), ([1], [0]), ([-3], [9]), ([1], [T - 1]), ([T - 1], [1]), ([BIG], [BIG]), ([1], [-(2**63)]), ([1, 2], [3])],
)
def test_intervals_outside_the_slots_are_refused(starts: list[int], frequencies: list[int]) -> None:
    with pytest.raises(CodecError):
        Stack().push(np.array(starts), np.array(frequencies))


TABLES = [[0, 5, T - 1], [1, 5, T], [1, 5, 5, T - 1], [1, 9, 5, T - 1], [T - 1], [1], [1, -(2**63), -1, T - 1], []]


@pytest.mark.parametrize("table", TABLES)
def test_tables_that_do_not_rise_are_refused(table: list[int]) -> None:
    stack = Stack.from_bytes(b"12345678")
    with pytest.raises(CodecError, match="rise strictly"):
        stack.pop(np.array([[1, 5, T - 1] if len(table) == 3 else table, table], np.int64))
    assert stack.to_bytes() == b"12345678"


@pytest.mark.parametrize("array", [np.ones(3), np.ones((3, 1), np.int64), np.ones(3, np.int32)])
def test_other_arrays_are_refused(array: NDArray[Any]) -> None:
    with pytest.raises(CodecError, match="int64"):
        Stack().push(array, array)
    with pytest.raises(CodecError, match="int64"):
        Stack().push_uniform(array, 3)


def test_uniform_limits() -> None:
    for value, bits in [(8, 3), (-1, 3), (0, 0), (0, 24), (1 << 32, 23)]:
        with pytest.raises(CodecError):
            Stack().push_uniform(np.array([value]), bits)


@pytest.mark.parametrize("data", [b"", b"abc", b"abcd\0", b"\0" * 8])
def test_bytes_that_are_no_stack_are_refused(data: bytes) -> None:
    with pytest.raises(CodecError, match="do not end as"):
        Stack.from_bytes(data)


class Panic(BaseException):
    """As Rust code raises it: not an Exception."""


@pytest.mark.parametrize(("raised", "expected"), [(Panic, CodecError), (KeyError, CodecError), (KeyboardInterrupt,) * 2])
def test_faults_of_the_library_have_our_name(raised: type[BaseException], expected: type[BaseException]) -> None:
    class Broken:
        def encode_reverse(self, *_: object) -> None:
            raise raised("inside")

    stack = Stack()
    stack._coder = Broken()
    with pytest.raises(expected, match="inside"):
        stack.push(np.array([1]), np.array([1]))


def test_importing_the_package_does_not_import_the_coder() -> None:
    probe = """
import sys, ancestral
assert "constriction" not in sys.modules
import ancestral.coding
assert "torch" not in sys.modules
"""
    assert subprocess.run([sys.executable, "-c", probe], capture_output=True, text=True).stderr == ""
