"""Attention to the tokens before, and to the token itself; and the rotation that tells how far apart two are."""

from __future__ import annotations

import copy
from collections.abc import Sequence
from typing import Self

import torch
from torch import Tensor, nn
from torch.nn import functional

from ancestral.causal.embedding import Constant
from ancestral.causal.layer import CausalityError, Clock, Composite, Labels, Place, Signal, refuse_symbols
from ancestral.causal.lower import Lowering
from ancestral.causal.program import Part
from ancestral.causal.tokens import Attend, Rotate


class Attention(Composite):
    """Causal attention: queries (n, h k, T, 1) and what is attended to, (n, 2 g k, T, 1), to (n, h k, T, 1).

    The second input holds g heads of keys, then as many of values; every one of them serves h / g heads of the query (Ainslie
    et al. 2023). Token t sees tokens t - window + 1 .. t, with weights softmax(q . k / sqrt(k)). A walk remembers keys and
    values of that many tokens.

    Args:
        heads, key_heads: h and g.
        size: k.
        window: None for all.
    """

    def __init__(self, heads: int, key_heads: int, size: int, window: int | None = None) -> None:
        super().__init__()
        if heads % key_heads:
            raise ValueError(f"{heads} heads cannot share {key_heads} heads of keys evenly")
        self.heads, self.key_heads, self.size, self.window = heads, key_heads, size, window

    def infer(self, inputs: Sequence[Signal]) -> tuple[Clock, Labels | None]:
        refuse_symbols(self, inputs)
        if any(signal.clock is not Clock.SITE or any(signal.labels or ()) for signal in inputs):
            raise CausalityError("attention reads features of tokens, known before their symbols are")
        return Clock.SITE, inputs[0].labels

    def reads(self, place: Place) -> set[Place]:
        first = 0 if self.window is None else place[0] - self.window + 1
        return {(row, place[1]) for row in range(first, place[0] + 1)}

    def reads_at(self, places: set[Place]) -> set[Place]:
        return super().reads_at(places if self.window else {max(places)} if places else places)  # the last one sees most

    def forward(self, query: Tensor, attended_to: Tensor, mask: Tensor | None = None) -> Tensor:
        """``mask``, (n, 1, T, T) booleans, says which tokens (columns) each token sees, instead of those before it."""
        q, k, v = (part[..., 0].mT for part in (query, *attended_to.chunk(2, 1)))
        return attended(q, k, v, self.size, self.window or q.shape[1], mask).mT[..., None]

    def emit(self, lowering: Lowering, inputs: Sequence[Signal], output: Signal) -> int:
        (channels, rows, width), half = lowering.shape, self.key_heads * self.size
        if channels > 1 or width > 1:
            raise CausalityError("attention reads tokens, one below the other: give the network the layout (1, D, 1)")
        query, source = (lowering.buffer_of(signal) for signal in inputs)
        target, window = lowering.claim("attention", output), min(rows, self.window or rows)
        lowering.reserve(source, above=window - 1)
        parts = Part(target, 0, self.heads * self.size), Part(query, 0, self.heads * self.size)
        keys, values = Part(source, 0, half), Part(source, half, half)
        lowering.operations.append(Attend(Clock.SITE, 0, *parts, keys, values, self.heads, window))
        return target


class Angles(Constant):
    """(1, k, T, 1): cosines, then sines, of t base^(-2 i / k) for token t and i = 0 .. k / 2 - 1 (Su et al. 2021).

    Args:
        size: k, features of a head.
        tokens: T.
        base: of the wavelengths.

    Raises:
        ValueError: k is odd.
    """

    def __init__(self, size: int, tokens: int, base: float = 10000.0) -> None:
        super().__init__()
        if size % 2:
            raise ValueError(f"heads of {size} features cannot be turned pair by pair: take an even number")
        self.size, self.tokens, self.base = size, tokens, base
        self.anchor = nn.Buffer(torch.zeros(()), persistent=False)

    def arranged(self, tokens: int) -> Self:
        """The same for another number of tokens."""
        view = copy.copy(self)
        view.tokens = tokens
        return view

    def forward(self) -> Tensor:
        exponents = torch.arange(0, self.size, 2, dtype=torch.float64, device="cpu") / self.size
        angles = torch.arange(self.tokens, dtype=torch.float64, device="cpu") * self.base ** -exponents[:, None]
        return torch.cat([angles.cos(), angles.sin()])[None, ..., None].to(self.anchor)


class Rotation(Composite):
    """Queries or keys turned by angles that grow with the token's number (Su et al. 2021): (n, c, T, 1) and `Angles`.

    The scalar product of two depends on how far apart they are. See `Rotate` for which features make a pair.

    Args:
        turned: the first so many features are; values that follow keys are left as they are.
        size: features of a head.
    """

    def __init__(self, turned: int, size: int) -> None:
        super().__init__()
        self.turned, self.size = turned, size

    def infer(self, inputs: Sequence[Signal]) -> tuple[Clock, Labels | None]:
        refuse_symbols(self, inputs)
        if any(inputs[0].labels or ()) or inputs[1].clock is not Clock.ONCE:
            raise CausalityError("a rotation reads features of tokens, known before their symbols are, and angles")
        return inputs[0].clock, inputs[0].labels

    def forward(self, x: Tensor, angles: Tensor) -> Tensor:
        return rotated(x.movedim(1, -1), angles.movedim(1, -1).to(x.dtype), self.turned).movedim(-1, 1)

    def emit(self, lowering: Lowering, inputs: Sequence[Signal], output: Signal) -> int:
        source, angles = (lowering.buffer_of(signal) for signal in inputs)
        target = lowering.claim("turned", output)
        lowering.learn(angles, self.size)
        for channel, part in lowering.parts(target, output.clock):
            parts = part, Part(source, 0, part.count), Part(angles, 0, self.size)
            lowering.operations.append(Rotate(output.clock, channel, *parts, self.turned))
        return target


def attended(query: Tensor, keys: Tensor, values: Tensor, size: int, window: int, mask: Tensor | None = None) -> Tensor:
    """(n, m, h k) queries of the last m of r tokens, (n, r, g k) keys and values: what each attends to, (n, m, h k).

    Args:
        size: k.
        window: how many tokens each sees, itself included.
        mask: which of them, if not those; booleans that broadcast to (n, h, m, r).
    """
    k, v = in_heads(keys, size).transpose(1, 2), in_heads(values, size).transpose(1, 2)
    if query.shape[1] == 1 and mask is None:  # heads that share keys are as good as queries of one head
        q = query.reshape(len(query), k.shape[1], -1, size)
        return functional.scaled_dot_product_attention(q, k, v).reshape(query.shape)
    q = in_heads(query, size).transpose(1, 2)
    (heads, m), (shared, r) = q.shape[1:3], k.shape[1:3]
    if m == r and window < r and mask is None:
        return in_blocks(q, k, v, window)
    causal = m == r and mask is None
    if not causal and mask is None:
        behind = torch.arange(r - m, r, device=q.device)[:, None] - torch.arange(r, device=q.device)
        mask = (behind >= 0) & (behind < window)
    y = functional.scaled_dot_product_attention(q, k, v, mask, is_causal=causal, enable_gqa=heads > shared)
    return y.transpose(1, 2).flatten(2)


def in_blocks(q: Tensor, k: Tensor, v: Tensor, window: int) -> Tensor:
    """The same where tokens see fewer than there are, q (n, h, T, k): a window of queries at a time, and two of keys."""
    n, heads, tokens, size = q.shape
    blocks = -(-tokens // window)
    more = blocks * window - tokens
    queries = functional.pad(q, (0, 0, 0, more)).view(n, heads, blocks, window, size).transpose(1, 2).flatten(0, 1)
    pairs = [functional.pad(part, (0, 0, window, more)).unfold(2, 2 * window, window) for part in (k, v)]
    near, seen = (part.permute(0, 2, 1, 4, 3).flatten(0, 1) for part in pairs)
    ahead = torch.arange(2 * window, device=q.device) - torch.arange(window, device=q.device)[:, None]
    mask = ((ahead > 0) & (ahead <= window)).repeat(blocks, 1, 1)
    mask[0, :, :window] = False  # before the first token there is nothing
    y = functional.scaled_dot_product_attention(
        queries, near, seen, mask[:, None].repeat(n, 1, 1, 1), enable_gqa=heads > k.shape[1]
    )
    return y.transpose(1, 2).reshape(n, blocks * window, heads * size)[:, :tokens]


def in_heads(x: Tensor, size: int) -> Tensor:
    """(..., h k) features as (..., h, k): a view where it can be."""
    return x.reshape(*x.shape[:-1], x.shape[-1] // size, size)


def rotated(x: Tensor, angles: Tensor, turned: int) -> Tensor:
    """(..., c) features with the first so many turned by (..., k) cosines and sines; see `Rotate`."""
    (a, b), (cos, sin) = in_heads(x[..., :turned], angles.shape[-1]).chunk(2, -1), angles.unsqueeze(-2).chunk(2, -1)
    both = torch.cat([a * cos - b * sin, b * cos + a * sin], -1).flatten(-2)
    return both if turned == x.shape[-1] else torch.cat([both, x[..., turned:]], -1)
