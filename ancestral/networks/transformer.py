"""Causal Transformers (Vaswani et al. 2017, arXiv:1706.03762) of GPT-2's kind (Radford et al. 2019), and later options.

::

    symbol before ─▶ row of a table ─┐
                    where it stands ─+─┬─ norm, attention ─ + ─┬─ norm, 4x wide, gelu ─ + ─▶ ... ─▶ norm ─▶ the table's rows
                                       └────────────────────┘  └────────────────────────┘

One token a symbol, which holds the symbol *before*: so the first one, that of the beginning, gives p(x_1), and every symbol has a
proper probability. Images are read sub-pixel by sub-pixel (row, column, channel), each axis with vectors of its own.

Trained under all orders, a token also says which site it is to predict, and where the symbol stands that it holds; any subset
of the sites can then be completed exactly.
"""

from __future__ import annotations

import copy
from dataclasses import replace
from typing import Self

import torch
from torch import Tensor, nn
from torch.nn import functional

from ancestral.causal import (
    Angles,
    Attention,
    Embedding,
    LeftAffine,
    Normalisation,
    Once,
    Previous,
    Rotation,
    Signal,
    Unembedding,
    gelu,
)
from ancestral.causal.network import symmetry_of
from ancestral.core import Autoregressive, Context, OrderError
from ancestral.families import Categorical
from ancestral.families.base import check_count
from ancestral.networks.configs import TransformerConfig
from ancestral.networks.images import Feed, check_dropout, check_ordered, image_family, start_from
from ancestral.networks.nade import SiteNetwork, fixed_shape
from ancestral.networks.places import BEGINNING, SPREAD, Places
from ancestral.spec import DataSpec, Order, Symmetry


def transformer(
    config: TransformerConfig, spec: DataSpec, latents: int = 0, form: str = "tokens", grid: int = 0
) -> Autoregressive:
    """The model of a `TransformerConfig`, for integers of any kind.

    Args:
        latents: numbers that ``context.vector`` begins with, before the label.
        form: how that vector enters; see `Transformer`.
        grid: features of ``context.grid``, of images.

    Raises:
        ValueError: real values, or settings that contradict each other or the data.
    """
    if spec.levels is None:
        raise ValueError("transformer models integers, not real values: quantise them")
    for name, allowed in (("places", ("learned", "rotary")), ("norm", ("layer", "rms")), ("start", ("vector", "last"))):
        if getattr(config, name) not in allowed:
            raise ValueError(f"{name}={getattr(config, name)!r} is none of {', '.join(allowed)}")
    check_count("context", config.context, 1, ", the length of the longest sequence that learned places are for")
    check_dropout(config.dropout)
    if min(config.layers, config.width, config.heads) < 1 or config.width % config.heads:
        raise ValueError(
            f"transformer needs at least 1 layer and a width that its heads share evenly, not {config.layers} layers and a width"
            f" of {config.width} for {config.heads} heads"
        )
    if min(config.key_heads, config.window) < 0:
        raise ValueError(f"key_heads={config.key_heads}, window={config.window}: neither can be negative, and 0 stands for all")
    if config.any_order and (config.places == "rotary" or config.window):
        raise ValueError("any_order=True needs places='learned' and window=0: which sites are known is told by their places")
    check_ordered(config.family, spec)
    shape = fixed_shape(spec, config.any_order) if config.any_order or None not in spec.shape else (config.context,)
    chosen = "categorical" if config.family == "auto" and spec.levels > 2 else config.family
    family = image_family(chosen, spec.levels, config.components)
    tied = isinstance(family, Categorical)
    vector = latents + (spec.classes or 0) * config.conditional
    network = Transformer(shape, spec.levels, 0 if tied else family.size, config, vector, spec.parts, form, grid)
    if not tied:
        start_from(family, network.output)
    return Autoregressive(network, family, spec, config)


class Transformer(SiteNetwork):
    """Tokens that attend to those before: (n, *shape) symbols to (n, *shape, size) parameters.

    Args:
        shape: (C, H, W), or (T,), of which it takes others too.
        levels: the alphabet of the symbols.
        size: parameters of one conditional; 0 for logits of all levels, which the table of the symbols then gives.
        sizes: all else that can be chosen.
        vector: size of ``context.vector``.
        parts: how many symbols of a sequence belong together, each of a kind of its own.
        form: how the vector enters: ``"tokens"`` (added to every token; it starts at zero), ``"prefix"`` (added to the first
            token alone, which all others attend to), ``"layers"`` (added to every token in every block), or ``"cross"`` (added to
            the first token in every block, so that it is attended to there directly, by keys and values of its own).

        grid: features of ``context.grid`` (n, grid, H, W), which are added to the tokens that predict their place.

    Raises:
        ValueError: heads do not share keys evenly, or cannot be turned; a sequence longer than its places.

    Example:
        >>> sizes = TransformerConfig(**TransformerConfig.presets["tiny"])
        >>> network = Transformer((6,), levels=5, size=0, sizes=sizes)
        >>> network(torch.zeros(2, 6, dtype=torch.long)).shape
        torch.Size([2, 6, 5])
        >>> network.arrange(shape=(12,)).shape
        torch.Size([12])
    """

    built: tuple[int, ...] | None = None  # the image that there are vectors for the rows and columns of

    def __init__(
        self,
        shape: tuple[int, ...],
        levels: int,
        size: int,
        sizes: TransformerConfig,
        vector: int = 0,
        parts: int = 1,
        form: str = "tokens",
        grid: int = 0,
    ) -> None:
        sites = torch.Size(shape).numel()
        super().__init__(shape, layout=(1, sites, 1))
        width, head, rotary = sizes.width, sizes.width // sizes.heads, sizes.places == "rotary"
        self.any_order, self.parts, self.form = sizes.any_order, parts, form
        self.embedding, self.previous = Embedding(1, levels, width), Previous()
        self.places = Places(self._axes(shape, sizes), width, self.any_order, self.embedding if sizes.start == "last" else None)
        self.angles = Angles(head, sites) if rotary else None
        self.feed, self.dropout = Feed(vector if form == "tokens" else 0, grid, width), Dropout(sizes.dropout)
        slots = {"prefix": 1, "cross": sizes.layers}.get(form, 0)
        self.prefixes = nn.ModuleList(Once(First(vector, width)) for _ in range(slots))  # before the first blocks
        self.blocks = nn.ModuleList(Block(sizes, vector if form == "layers" else 0) for _ in range(sizes.layers))
        self.norm = Normalisation(width, sizes.norm == "layer")
        self.output = LeftAffine((0,) * width, (0,) * size) if size else Unembedding(self.embedding)
        self._scatter(sizes.layers)
        if len(shape) == 3 and not rotary:
            self.built = tuple(shape)
        self._lay(tuple(shape), Symmetry())

    def _axes(self, shape: tuple[int, ...], sizes: TransformerConfig) -> dict[str, int]:
        """The axes that tokens have vectors for, with how many."""
        if len(shape) == 3:
            places, kinds = {"row": shape[1], "column": shape[2]}, {"channel": shape[0]}
        else:
            places, kinds = {"place": shape[0] if self.any_order else sizes.context}, {"part": self.parts}
        several = {name: count for name, count in kinds.items() if count > 1}
        return several if sizes.places == "rotary" else places | several

    @torch.no_grad()
    def _scatter(self, layers: int) -> None:
        """Weights as GPT-2's: normal, what blocks add smaller the more blocks there are, biases zero."""
        for layer in self.modules():
            if isinstance(layer, LeftAffine):
                nn.init.normal_(layer.weight, std=SPREAD)
                if layer.bias is not None:
                    nn.init.zeros_(layer.bias)
        for name, weight in self.blocks.named_parameters():
            if name.endswith(("mix.weight", "down.weight")):
                weight.div_((2 * layers) ** 0.5)
        nn.init.normal_(self.embedding.table, std=SPREAD)

    # -- orders and lengths --------------------------------------------------------------------------------------------------

    def arrange(self, order: Order | str | None = None, shape: tuple[int, ...] | None = None) -> Transformer:
        """The same network, its weights shared, for examples of another size or in another order.

        Args:
            order: of images one of the eight symmetries; any, if it was made for all of them.
            shape: other lengths, heights and widths than its own, as far as there are vectors for their places; rotary places
                take any. Not if it was made for all orders.

        Raises:
            OrderError: it cannot.
        """
        if self.any_order:
            return super().arrange(order, shape)  # type: ignore[return-value]
        size = tuple(self.shape if shape is None else shape)
        image = len(self.shape) == 3
        fits = len(size) == len(self.shape) and (size[0] == self.shape[0] or not image)
        if not fits or not all(isinstance(side, int) and side > 0 for side in size):
            raise OrderError(f"this transformer takes {'images of as many channels' if image else 'sequences'}, not {size}")
        if not image and size[0] % self.parts:
            raise OrderError(f"this transformer takes sequences of a multiple of {self.parts} symbols, not {size[0]}")
        if not image and order not in (None, "raster", Order.raster(size)):
            raise OrderError("this transformer reads sequences from left to right; one with any_order=True takes every order")
        symmetry = self.symmetry if order is None or not image else symmetry_of(order, size)
        view: Transformer = self.view(self.order)  # type: ignore[assignment]
        view._lay(size, symmetry)
        return view

    def ordered(self, order: Order) -> Transformer:
        view: Transformer = self.view(order)  # type: ignore[assignment]
        view.places = self.places.arranged(tuple(self.shape), order, self.parts)
        return view

    def _lay(self, size: tuple[int, ...], symmetry: Symmetry) -> None:
        """Take examples of another size or turned; tokens are told where they are in the turned image."""
        self.shape, self.symmetry = torch.Size(size), symmetry
        self.layout = (1, self.shape.numel(), 1)
        self.order = Order.turned(size, symmetry) if len(size) == 3 else Order.raster(size)
        seen = (size[0], size[2], size[1]) if symmetry.transposed else size
        self.places = self.places.arranged(seen, Order.raster(seen), self.parts)
        self.angles = self.angles and self.angles.arranged(self.layout[1])
        self.prefixes = nn.ModuleList(Once(each.module.arranged(self.layout[1])) for each in self.prefixes)  # type: ignore[union-attr, operator]

    def turned(self, context: Context | None) -> Context | None:
        context = super().turned(context)
        if context is None or context.grid is None or len(self.shape) < 3:
            return context
        return replace(context, grid=context.grid.flatten(2).repeat_interleave(self.shape[0], 2)[..., None])

    # -- what it computes ----------------------------------------------------------------------------------------------------

    def body(self, x: Tensor, vector: Tensor | None, grid: Tensor | None) -> Tensor:
        start = self.feed(self.places(x), vector if self.form == "tokens" else None, grid)
        angles = None if self.angles is None else self.angles(x)
        return self._through(self.previous(self.embedding(x), start), angles, vector=vector)

    def _through(self, h: Tensor, angles: Tensor | None, mask: Tensor | None = None, vector: Tensor | None = None) -> Tensor:
        """Tokens to parameters, (n, c, T, 1) to (n, k, T, 1)."""
        h = self.dropout(h)
        for i, block in enumerate(self.blocks):
            if vector is not None and i < len(self.prefixes):
                h = h + self.prefixes[i](vector)
            h = block(h, angles, mask, vector if self.form == "layers" else None)
        return self.output(self.norm(h))  # type: ignore[no-any-return]

    def along(self, x: Tensor, orders: Tensor, context: Context | None = None) -> Tensor:
        """(n, *shape, k) parameters of every site given those before it in an order of each row's own.

        Args:
            x: (n, *shape) symbols.
            orders: (n, D) permutations of the sites.
        """
        before = orders.roll(1, 1)
        before[:, 0] = BEGINNING
        return self._told(x, orders, before, None, context)

    def given(self, x: Tensor, known: Tensor, context: Context | None = None) -> Tensor:
        """(n, *shape, k) parameters of every site given the known ones, in one pass; those of known sites mean something else.

        They are the next conditionals of an order in which the known sites come first, in the order of the example.

        Args:
            x: (n, *shape) symbols, of which only known ones are looked at.
            known: (n, *shape) booleans, or what broadcasts to them.
        """
        known = known.expand(x.shape).flatten(1)
        orders, count = (~known).long().argsort(dim=1, stable=True), known.sum(1)[:, None]
        token = torch.arange(known.shape[1], device=x.device)
        last = torch.minimum(token, count) - 1  # tokens of unknown sites all hold the last known symbol
        before = orders.gather(1, last.clamp_min(0)).masked_fill(last < 0, BEGINNING)
        earlier = (token <= token[:, None]) & (token < count[:, None])  # and see the known ones, and themselves
        mask = earlier | (token == token[:, None])
        return self._told(x, orders, before, mask[:, None], context)

    def _told(self, x: Tensor, sites: Tensor, before: Tensor, mask: Tensor | None, context: Context | None) -> Tensor:
        """(n, *shape, k): token t predicts the site ``sites[t]`` and holds the symbol of ``before[t]``, (n, D) both."""
        nothing, context = before == BEGINNING, context or Context()
        symbols = x.flatten(1).gather(1, before.clamp_min(0)).masked_fill(nothing, 0)
        held = self.embedding(symbols[:, None, :, None]).masked_fill(nothing[:, None, :, None], 0)
        where = self.places.vectors(sites, before).mT[..., None]
        y = self._through(self.feed(held + where, context.vector, context.grid), None, mask)[..., 0].mT
        return torch.zeros_like(y).scatter(1, sites[..., None].expand_as(y), y).view(*x.shape, -1)


def scatter(layer: nn.Linear) -> None:
    """Start a map of latents so that what it gives of standard normal ones is as large as a token."""
    nn.init.normal_(layer.weight, std=SPREAD / layer.in_features**0.5)


class First(nn.Module):
    """(n, d) vectors to (n, c, T, 1): a linear map of them at the first token, zeros at the others.

    Args:
        vector, features: d and c.
    """

    def __init__(self, vector: int, features: int) -> None:
        super().__init__()
        self.linear, self.others = nn.Linear(vector, features, bias=False), 0
        scatter(self.linear)

    def arranged(self, tokens: int) -> Self:
        """The same for another number of tokens, T, its weights shared."""
        view = copy.copy(self)
        view.others = tokens - 1
        return view

    def forward(self, x: Tensor) -> Tensor:
        return functional.pad(self.linear(x)[:, :, None, None], (0, 0, 0, self.others))


class Block(nn.Module):
    """h' = h + attention(norm h); h' + down(gelu(up(norm h'))).

    Args:
        sizes: width, heads, window and the rest.
        vector: size of a vector that is added to h first, 0 for none.
    """

    def __init__(self, sizes: TransformerConfig, vector: int = 0) -> None:
        super().__init__()
        width, head, centred = sizes.width, sizes.width // sizes.heads, sizes.norm == "layer"
        shared = sizes.key_heads or sizes.heads
        units = (0,) * width
        self.first, self.second = Normalisation(width, centred), Normalisation(width, centred)
        self.query, self.keys = LeftAffine(units, units), LeftAffine(units, (0,) * (2 * shared * head))
        self.attention = Attention(sizes.heads, shared, head, sizes.window or None)
        self.turn_query, self.turn_keys = Rotation(width, head), Rotation(shared * head, head)
        self.mix = LeftAffine(units, units)
        self.up, self.gelu, self.down = LeftAffine(units, units * 4), gelu(), LeftAffine(units * 4, units)
        self.feed, self.dropout = Feed(vector, 0, width), Dropout(sizes.dropout)
        if self.feed.vector is not None:
            scatter(self.feed.vector.module)  # type: ignore[arg-type]

    def forward(self, h: Tensor, angles: Tensor | None, mask: Tensor | None, vector: Tensor | None) -> Tensor:
        h = self.feed(h, vector, None)
        y = self.first(h)
        query, keys = self.query(y), self.keys(y)
        if angles is not None:
            query, keys = self.turn_query(query, angles), self.turn_keys(keys, angles)
        h = self.dropout(self.mix(self.attention(query, keys, mask))) + h
        return self.dropout(self.down(self.gelu(self.up(self.second(h))))) + h  # type: ignore[no-any-return]


class Dropout(nn.Dropout):
    """`torch.nn.Dropout`, of which a Program knows nothing: that is of the network as it predicts."""

    def forward(self, x: Tensor) -> Tensor:
        return x if isinstance(x, Signal) else super().forward(x)
