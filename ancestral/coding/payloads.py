"""The payload of a block: its symbols on the stack of the entropy coder, with the twin of a model."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
import torch
from torch import Tensor

from ancestral.coding import autoregressive, bits_back, two_part
from ancestral.coding.blocks import canary_items, counted, filling, in_turn, packed_lengths, past, raw
from ancestral.coding.coder import Stack
from ancestral.coding.container import digest
from ancestral.coding.errors import CodecError
from ancestral.coding.labelled import packed
from ancestral.coding.widths import Widths
from ancestral.core import Context
from ancestral.draw import uniforms
from ancestral.spec import DataSpec
from ancestral.walking.exact.generator import ExactGenerator
from ancestral.walking.twin import ExactLatents, Twin, label_vector

LONGEST = 4  # bytes that say how long the longest sequence of a block is


@dataclass(frozen=True, eq=False)
class Part:
    """The items of a block.

    Attributes:
        x: (n, *shape) symbols.
        labels: (n,) classes, or None.
        lengths: (n,) of sequences, how many symbols of each count.
        ended: whether sequences are coded with the first end of each, which tells how long it is, instead of with their lengths.
    """

    x: Tensor
    labels: Tensor | None = None
    lengths: Tensor | None = None
    ended: bool = field(default=False, kw_only=True)

    @classmethod
    def popped(cls, payload: bytes, n: int, labels: Tensor | None, spec: DataSpec, widths: Widths) -> Part:
        """Sequences that were coded with their ends, without their labels.

        Raises:
            CodecError: the payload holds something else.
        """
        most = int.from_bytes(payload[:LONGEST], "little")
        if not 0 < most <= spec.sites:
            raise CodecError(f"a block says that its longest sequence has {most} symbols of {spec.sites}: the file is damaged")
        x = payload_items(widths.of(most), payload[LONGEST:], n, labels, width=spec.sites, end=spec.end)
        return cls(x, labels, counted(x, spec), ended=True)

    def before(self, spec: DataSpec) -> bytes:
        """What stands before the payload: labels and lengths."""
        known = b"" if self.labels is None else packed(self.labels, spec.classes or 0)
        return known if self.lengths is None else known + packed_lengths(self.lengths)

    def data(self, spec: DataSpec) -> bytes:
        """All that a reader must get back."""
        return self.before(spec) + raw(self.x, spec, self.lengths)

    def coded(self, spec: DataSpec, widths: Widths) -> bytes:
        """The same, coded."""
        if not self.ended or self.lengths is None:
            return self.before(spec) + encoded(widths.of(longest(self.lengths)), self.x, self.labels, self.lengths)
        most = min(int(self.lengths.max()) + 1, spec.sites)
        known = b"" if self.labels is None else packed(self.labels, spec.classes or 0)
        return known + most.to_bytes(LONGEST, "little") + encoded(widths.of(most), self.x, self.labels, self.lengths + 1)


@dataclass(frozen=True, eq=False)
class LatentPart:
    """The latents of the items of a block, without the items.

    Attributes:
        x: (n, units) bins.
        labels: (n,) classes, or None.
    """

    x: Tensor
    labels: Tensor | None = None

    @classmethod
    def of(cls, part: Part, spec: DataSpec, exact: Twin) -> LatentPart:
        """What the posterior chooses for some items."""
        return cls(generator_of(exact).codes(part.x, label_vector(part.labels, spec)), part.labels)

    def data(self, spec: DataSpec) -> bytes:
        """All that a reader must get back."""
        return Part(self.x, self.labels).before(spec) + self.x.numpy().astype("<u2").tobytes()

    def coded(self, spec: DataSpec, widths: Widths) -> bytes:
        """The same, coded."""
        codes = two_part.pushed(generator_of(widths.of(None)), self.x, label_vector(self.labels, spec))
        return Part(self.x, self.labels).before(spec) + codes

    @classmethod
    def stored(cls, payload: bytes, n: int, labels: Tensor | None, exact: Twin) -> LatentPart:
        """From bins as they are.

        Raises:
            CodecError: they are not those of so many items.
        """
        units = generator_of(exact).units
        if len(payload) != 2 * n * units:
            raise CodecError(f"a stored block of {len(payload)} bytes does not hold the latents of {n} items")
        return cls(torch.from_numpy(np.frombuffer(payload, "<u2").astype(np.int64)).view(n, units), labels)


def generator_of(exact: Twin) -> ExactGenerator:
    """The latents of a two-part code.

    Raises:
        CodecError: in this code z does not stand by itself, or there is none.
    """
    if exact.latents is None:
        raise CodecError("the model is autoregressive and has no z, so there is none in its files that could be previewed")
    if not isinstance(exact.latents, ExactGenerator):
        raise CodecError(f"z stands by itself in two-part codes alone, and this is {exact.scheme}: compress with scheme two-part")
    return exact.latents


def longest(lengths: Tensor | None) -> int | None:
    """The greatest of some lengths, where there are any."""
    return None if lengths is None else int(lengths.max())


def encoded(exact: Twin, x: Tensor, labels: Tensor | None = None, lengths: Tensor | None = None) -> bytes:
    """(n, *shape) symbols as bytes.

    Args:
        labels: (n,) classes, where the twin is told them.
        lengths: (n,) of (n, T) symbols, how many of each row are coded, if it has as many; the others are those that fill up. T
            may be more than what the twin takes.
    """
    spec = exact.likelihood.spec
    vector, known = label_vector(labels, spec), None
    if isinstance(exact.latents, ExactLatents):
        return bits_back.encode(exact, exact.latents, x, vector)
    if lengths is not None:
        known = past(lengths, spec.sites)
        x = x[:, : spec.sites].masked_fill(known, filling(spec))
    if exact.latents is not None:
        return two_part.encode(exact, exact.latents, x, vector, known=known)
    stack = Stack()
    autoregressive.push(stack, exact.likelihood, x, None if vector is None else Context(vector=vector), known)
    return stack.to_bytes()


def payload_items(
    exact: Twin,
    payload: bytes,
    n: int,
    labels: Tensor | None = None,
    lengths: Tensor | None = None,
    width: int | None = None,
    end: int | None = None,
) -> Tensor:
    """The (n, *shape) symbols of a payload, the inverse of ``encoded`` with the same labels and lengths.

    Args:
        width: to which sequences are filled up, if that is more than the twin takes.
        end: the symbol up to which each was coded, where that tells the lengths.

    Raises:
        CodecError: the payload holds something else.
    """
    spec = exact.likelihood.spec
    vector, known = label_vector(labels, spec), None
    if isinstance(exact.latents, ExactLatents):
        return bits_back.decode(exact, exact.latents, payload, n, vector)
    if lengths is not None:
        known = torch.full((n, spec.sites), filling(spec)), past(lengths, spec.sites)
    if exact.latents is not None:
        items = two_part.decode(exact, exact.latents, payload, n, vector, known, end)
    else:
        stack = Stack.from_bytes(payload)
        items = autoregressive.pop(stack, exact.likelihood, n, None if vector is None else Context(vector=vector), known, end)
        if not stack.empty:
            raise CodecError("bits are left over: the data are damaged, or they were made with another model")
    if width is None or width == spec.sites:
        return items
    return torch.nn.functional.pad(items, (0, width - spec.sites), value=filling(spec))


def canary(exact: Twin) -> str:
    """16 hexadecimal digits of what a twin makes of some fixed items, with every class in turn where it is told labels.

    Of a two-part code the latents are fixed too: the float posterior that chooses them is no part of the twin.
    """
    x = canary_items(exact.likelihood.spec)
    labels = in_turn(len(x), exact.likelihood.spec) if exact.labelled else None
    if not isinstance(exact.latents, ExactGenerator):
        return digest(encoded(exact, x, labels)).hex()
    vector = label_vector(labels, exact.likelihood.spec)
    codes = exact.latents.drawn(uniforms(0, range(len(x)), exact.latents.units, stream=1), vector)
    return digest(two_part.encode(exact, exact.latents, x, vector, codes)).hex()
