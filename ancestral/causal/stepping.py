"""The cached walk of a graph: every layer runs as often as its clock says, on what it must remember and no more.

What a layer reads from elsewhere (a window, or a value of a coarser clock) is kept in a store: a buffer
(n, rows, columns, features) in which rows come round again (row r lives in slot r mod rows) and zero columns pad both sides.
Everything in it is addressed by position, so going back k symbols needs nothing but k symbols' worth of extra rows.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from ancestral.causal.layer import CausalityError, Clock, Graph, Input, Node, Signal

Place = tuple[int, int, int]  # row, column, colour channel
Buffers = dict[str, Tensor]
Fetch = Callable[[dict[int, Tensor], Buffers, Place], Tensor]


@dataclass
class Store:
    """Where a signal is kept: its slots, its padding, and for values read site by site the order of their features."""

    name: str
    signal: Signal
    rows: int
    groups: list[slice]  # where the features of each colour channel lie, once they are sorted by channel
    left: int = 0
    right: int = 0
    order: Tensor | None = None


@dataclass(frozen=True)
class Work:
    """A node made ready: its packed weights, how it comes by its inputs, and where its output is kept."""

    node: Node
    packed: list[Any]
    fetches: tuple[Fetch, ...]


class Stepper:
    """A graph made ready to walk over the sites of a (C, H, W) example.

    Args:
        graph, output: what the network recorded; the output has k features for every colour channel.
        shape: (C, H, W).
        rollback: how many symbols a state may have to go back.
    """

    def __init__(self, graph: Graph, output: Signal, shape: tuple[int, int, int], rollback: int) -> None:
        if output.clock is not Clock.SITE:
            raise CausalityError("the parameters do not depend on the symbols: there is nothing to walk over")
        self.channels, _, self.width = shape
        self.output = output
        self.extra_rows = -(-rollback // (self.channels * self.width))
        self.stores: dict[tuple[int, bool], Store] = {}
        self.inputs = [node for node in graph.nodes if isinstance(node.layer, Input)]
        self.once = [node for node in graph.nodes if node.output.clock is Clock.ONCE]
        rest = [node for node in graph.nodes if not isinstance(node.layer, Input)]
        self.row_work = [self._work(node) for node in rest if node.output.clock is Clock.ROW]
        self.site_work = [self._work(node) for node in rest if node.output.clock is Clock.SITE]
        self.kept_by = {clock: self._kept(clock) for clock in Clock}

    # -- drawing up the plan ---------------------------------------------------------------------------------------------

    def _work(self, node: Node) -> Work:
        clock = node.output.clock
        fetches = tuple(self._fetch(signal, node) for signal in node.inputs)
        return Work(node, node.layer.pack(clock, self.channels if clock is Clock.SITE else 1), fetches)

    def _fetch(self, signal: Signal, node: Node) -> Fetch:
        """How ``node`` comes by a signal: a window of what was kept, a value of a coarser clock, or one just computed."""
        clock = node.output.clock
        if node.layer.remembers:
            return self._row_window(signal, node) if clock is Clock.ROW else self._site_window(signal, node)
        if signal.clock is clock:
            return lambda now, kept, place: now[signal.index]
        return self._coarser(signal, clock)

    def _store(self, signal: Signal, by_site: bool = False) -> Store:
        key = (signal.index, by_site)
        if key not in self.stores:
            order = torch.tensor(signal.labels).argsort(stable=True) if by_site and signal.labels else None
            name = f"{signal.index}{'s' if by_site else ''}"
            self.stores[key] = Store(name, signal, 1 + self.extra_rows, self._groups(signal), order=order)
        return self.stores[key]

    def _coarser(self, signal: Signal, clock: Clock) -> Fetch:
        store = self._store(signal, by_site=clock is Clock.SITE)
        name, groups = store.name, store.groups

        def row(now: dict[int, Tensor], kept: Buffers, place: Place) -> Tensor:
            return kept[name][:, place[0] % kept[name].shape[1]]

        def site(now: dict[int, Tensor], kept: Buffers, place: Place) -> Tensor:
            buffer, (r, w, c) = kept[name], place
            return buffer[:, r % buffer.shape[1], w % buffer.shape[2], groups[c]]

        return row if clock is Clock.ROW else site

    def _site_window(self, signal: Signal, node: Node) -> Fetch:
        reach, store = node.layer.reach, self._store(signal)
        store.left = max(store.left, reach.left)
        seen = [node.layer.seen(channel) for channel in range(self.channels)]

        def fetch(now: dict[int, Tensor], kept: Buffers, place: Place) -> Tensor:
            buffer, (r, w, c) = kept[store.name], place
            here = store.left + w
            window = buffer[:, r % buffer.shape[1], here - reach.left : here + reach.own_site]
            return window.flatten(1)[:, : seen[c]]

        return fetch

    def _row_window(self, signal: Signal, node: Node) -> Fetch:
        reach, store = node.layer.reach, self._store(signal)
        store.left, store.right = max(store.left, reach.left), max(store.right, reach.right)
        store.rows = max(store.rows, reach.above + 1 + self.extra_rows)
        count = reach.above + reach.own_row

        def fetch(now: dict[int, Tensor], kept: Buffers, place: Place) -> Tensor:
            buffer = kept[store.name][:, :, store.left - reach.left : store.left + self.width + reach.right]
            first = (place[0] - reach.above) % store.rows
            if first + count <= store.rows:
                return buffer[:, first : first + count]
            return torch.cat([buffer[:, first:], buffer[:, : first + count - store.rows]], 1)

        return fetch

    def _kept(self, clock: Clock) -> dict[int, list[Store]]:
        kept: dict[int, list[Store]] = {}
        for store in self.stores.values():
            if store.signal.clock is clock:
                kept.setdefault(store.signal.index, []).append(store)
        return kept

    def _groups(self, signal: Signal) -> list[slice]:
        labels = signal.labels
        if labels is None or self.channels == 1:
            return [slice(None)] * self.channels
        ends = [sum(label <= channel for label in labels) for channel in range(self.channels)]
        return [slice(start, end) for start, end in zip([0, *ends], ends, strict=False)]

    # -- walking ---------------------------------------------------------------------------------------------------------

    def start(self, n: int, context: dict[int, Tensor], like: Tensor) -> tuple[Tensor, Buffers]:
        """Parameters (n, k) of the first site, and the buffers of n rows that have seen nothing.

        ``context`` holds the tensors of the context's signals; ``like`` tells device and type.
        """
        once = dict(context)
        for node in self.once:
            once[node.output.index] = node.layer(*(once[signal.index] for signal in node.inputs))
        kept: Buffers = {}
        for index, stores in self.kept_by[Clock.ONCE].items():
            for store in stores:
                value = once[index].permute(0, 2, 3, 1)
                kept[store.name] = (value if store.order is None else value[..., store.order]).contiguous()
        for stores in self.kept_by[Clock.SITE].values():
            for store in stores:
                size = (n, store.rows, store.left + self.width + store.right, len(store.signal.labels or ()))
                kept[store.name] = like.new_zeros(size)
        return self.advance(kept, 0), kept

    def absorb(self, kept: Buffers, position: int, symbol: Tensor) -> None:
        """Write (n,) symbols of the site at ``position`` where the layers above look for them."""
        (r, w), c = divmod(position // self.channels, self.width), position % self.channels
        for node in self.inputs:
            for store in self.kept_by[Clock.SITE].get(node.output.index, ()):
                features = node.layer.absorb(symbol, c)  # type: ignore[operator]
                kept[store.name][:, r % store.rows, store.left + w, store.groups[c]] = features

    def advance(self, kept: Buffers, position: int) -> Tensor:
        """Compute whatever the site at ``position`` is the first to need; its parameters (n, k)."""
        (r, w), c = divmod(position // self.channels, self.width), position % self.channels
        now: dict[int, Tensor] = {}
        if w == 0 and c == 0:
            self._advance_row(now, kept, r)
        keep = self.kept_by[Clock.SITE]
        for work in self.site_work:
            node = work.node
            value = node.layer.site(work.packed[c], *[fetch(now, kept, (r, w, c)) for fetch in work.fetches])
            now[node.output.index] = value
            for store in keep.get(node.output.index, ()):
                kept[store.name][:, r % store.rows, store.left + w, store.groups[c]] = value
        return now[self.output.index]

    def _advance_row(self, now: dict[int, Tensor], kept: Buffers, r: int) -> None:
        keep = self.kept_by[Clock.ROW]
        for work in self.row_work:
            node = work.node
            value = node.layer.row(work.packed[0], *[fetch(now, kept, (r, 0, 0)) for fetch in work.fetches])
            now[node.output.index] = value
            for store in keep.get(node.output.index, ()):
                if store.name not in kept:
                    size = (len(value), store.rows, store.left + self.width + store.right, value.shape[-1])
                    kept[store.name] = value.new_zeros(size)
                ordered = value if store.order is None else value[..., store.order]
                kept[store.name][:, r % store.rows, store.left : store.left + self.width] = ordered
