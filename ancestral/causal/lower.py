"""From the graph that a network drew of itself to a Program: sums fused into the affine maps that feed them, features sorted.

A sum of several terms becomes a chain: what changes seldom is added first, at its own clock, and every affine map starts from
the sum so far. So residual, skip and link connections cost no operation of their own, and neither does a relu behind a map.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import replace

import torch
from torch import Tensor

from ancestral.causal.joined import joined
from ancestral.causal.layer import (
    AffineLayer,
    CausalityError,
    Clock,
    Composite,
    Input,
    Labels,
    Node,
    Pointwise,
    Reach,
    Signal,
    Sum,
)
from ancestral.causal.program import Add, Affine, Buffer, Fill, Operation, Part, Point, Program, Put

BLOCK = 16  # colour channels that are taken together where they are many


def lower(context: dict[str, Signal], output: Signal, shape: tuple[int, int, int]) -> Program:
    """The Program of a recorded graph.

    Args:
        context: the signals by which the parts of a context enter.
        output: the parameters, k features for every colour channel.
        shape: (C, H, W).

    Raises:
        CausalityError: the parameters do not depend on the symbols, or a layer is not among the primitives.
    """
    if output.clock is not Clock.SITE:
        raise CausalityError("the parameters do not depend on the symbols: there is nothing to walk over")
    lowering = Lowering(output, shape)
    target = lowering.buffer_of(output)
    coarsest, filled = max(buffer.scale for buffer in lowering.buffers), any(put.layer.fills for put in lowering.puts)
    if (shape[1] % coarsest or shape[2] % coarsest) and not filled:
        raise CausalityError(f"coarse layers take images whose sides are multiples of {coarsest}, or an input that fills them up")
    program = Program(
        shape,
        graph=output.graph,
        result=output,
        context=context,
        buffers=tuple(lowering.buffers),
        puts=tuple(lowering.puts),
        fills=tuple(lowering.fills),
        operations=tuple(lowering.operations),
        output=target,
        recurrent=lowering.recurrent,
    )
    return joined(program) if shape[0] == shape[2] == 1 else program  # of images, files were made with programs as they are


class Lowering:
    """The Program in the making; ``buffer_of`` asks for a value, and whatever it needs is emitted first.

    Attributes:
        shape, buffers, puts, fills, operations, recurrent: of the Program.
    """

    def __init__(self, output: Signal, shape: tuple[int, int, int]) -> None:
        self.shape, self.channels = shape, shape[0]
        self.producer: dict[int, Node] = {node.output.index: node for node in output.graph.nodes}
        self.uses = Counter(signal.index for node in output.graph.nodes for signal in node.inputs)
        self.uses[output.index] += 1
        self.buffers: list[Buffer] = []
        self.puts: list[Put] = []
        self.fills: list[Fill] = []
        self.operations: list[Operation] = []
        self.recurrent = False
        self._made: dict[tuple[int, Labels | None], int] = {}

    # -- values and where they are kept ----------------------------------------------------------------------------------

    def buffer_of(self, signal: Signal, labels: Labels | None = None) -> int:
        """The buffer that holds a signal, computed before; for a coarse signal in the order that ``labels`` asks for."""
        labels = signal.labels if signal.clock is Clock.SITE else labels
        key = (signal.index, labels if self._mixed(labels) else None)
        if key not in self._made:
            self._made[key] = self._emit(signal, labels)
        return self._made[key]

    def _mixed(self, labels: Labels | None) -> bool:
        return labels is not None and list(labels) != sorted(labels)

    def _order(self, labels: Labels | None) -> Tensor | None:
        """Which feature comes where once they are sorted by colour channel; None where they are."""
        return torch.tensor(labels).argsort(stable=True) if self._mixed(labels) else None

    def _emit(self, signal: Signal, labels: Labels | None) -> int:
        node = self.producer.get(signal.index)
        if signal.clock is Clock.ONCE:
            return self._fill((signal,), labels)
        if node is None:
            raise CausalityError("the symbols must enter by an input layer, such as Scale")
        layer = node.layer
        if isinstance(layer, Composite):
            return layer.emit(self, node.inputs, signal)
        if isinstance(layer, Input):
            target = self._new(type(layer).__name__.lower(), Clock.SITE, layer.labels)
            self.puts.append(Put(layer, target))
            return target
        if isinstance(layer, AffineLayer | Sum):
            return self._sum(signal, signal.clock, labels, relu=False)
        if isinstance(layer, Pointwise):
            source = node.inputs[0]
            if layer.name == "relu" and self.uses[source.index] == 1 and self._fusable(source):
                return self._sum(source, signal.clock, labels, relu=True)
            return self._point(layer, source, signal, labels)
        raise CausalityError(f"{type(layer).__name__} is not among the primitives that a Program is made of")

    def claim(self, name: str, signal: Signal, features: int = 0) -> int:
        """A buffer for a signal, made before what writes it: a recurrence asks for it on the way."""
        target = self._new(name, signal.clock, signal.labels, features, signal.scale)
        self._made[signal.index, signal.labels if self._mixed(signal.labels) else None] = target
        return target

    def like(self, buffer: int, name: str) -> int:
        """A buffer for as many features, by the same clock."""
        model = self.buffers[buffer]
        self.buffers.append(replace(model, name=self._name(name)))
        return len(self.buffers) - 1

    def reserve(self, buffer: int, above: int = 0, left: int = 0, right: int = 0) -> None:
        """Have a buffer keep what is read so many rows above and columns to the left and right."""
        kept = self.buffers[buffer]
        kept.rows, kept.wide = max(kept.rows, above + 1), True
        kept.left, kept.right = max(kept.left, left), max(kept.right, right)

    def parts(self, target: int, clock: Clock) -> list[tuple[int, Part]]:
        """The colour channels in which a buffer is written, each with its features."""
        buffer = self.buffers[target]
        if clock is not Clock.SITE:
            return [(0, Part(target, 0, buffer.features))]
        groups = [(c, buffer.group(c)) for c in range(self.channels)]
        return [(c, Part(target, group.start, group.stop - group.start)) for c, group in groups if group.stop > group.start]

    def _name(self, name: str) -> str:
        names = Counter(buffer.name.rstrip("0123456789") for buffer in self.buffers)
        return f"{name}{names[name] + 1}"

    def _new(self, name: str, clock: Clock, labels: Labels | None, features: int = 0, scale: int = 1) -> int:
        features = features if labels is None else len(labels)
        ends = (features,) * self.channels
        if labels is not None:
            ends = tuple(sum(label <= c for label in labels) for c in range(self.channels))
        self.buffers.append(Buffer(self._name(name), clock, features, ends, wide=clock is not Clock.SITE, scale=scale))
        return len(self.buffers) - 1

    def _fill(self, signals: tuple[Signal, ...], labels: Labels | None) -> int:
        target = self._new("context", Clock.ONCE, labels, scale=max(signal.scale for signal in signals))
        self.fills.append(Fill(signals, target, self._order(labels)))
        return target

    def learn(self, buffer: int | None, features: int) -> None:
        """A buffer of the context learns from who reads it how many features it has."""
        if buffer is not None and self.buffers[buffer].clock is Clock.ONCE:
            self.buffers[buffer].features = features

    # -- operations ------------------------------------------------------------------------------------------------------

    def _fusable(self, signal: Signal) -> bool:
        return signal.clock is not Clock.ONCE and isinstance(self.producer[signal.index].layer, AffineLayer | Sum)

    def _terms(self, signal: Signal) -> list[Signal]:
        """What is summed to a signal, sums of sums laid open."""
        node = self.producer.get(signal.index)
        if node is None or not isinstance(node.layer, Sum):
            return [signal]
        inner = [
            self._terms(term) if self.uses[term.index] == 1 and term.clock is not Clock.ONCE else [term] for term in node.inputs
        ]
        return [term for terms in inner for term in terms]

    def _sum(self, signal: Signal, clock: Clock, labels: Labels | None, relu: bool) -> int:
        return self._chain(self._terms(signal), clock, labels, relu)

    def _chain(self, terms: Sequence[Signal], clock: Clock, labels: Labels | None, relu: bool) -> int:
        """Add terms of a clock and coarser: the coarser ones first, at their own clock, then the affine maps one by one."""
        coarse = [term for term in terms if term.clock < clock]
        total = self._coarse(coarse, labels) if coarse else None
        maps: list[tuple[AffineLayer, Signal, Signal]] = []
        others = []
        for term in terms:
            node = self.producer.get(term.index)
            if term.clock is not clock:
                continue
            if node is not None and isinstance(node.layer, AffineLayer) and (len(terms) == 1 or self.uses[term.index] == 1):
                maps.append((node.layer, node.inputs[0], term))
            else:
                others.append(self.buffer_of(term, labels))
        for i, other in enumerate(others):
            last = not maps and i == len(others) - 1
            total = other if total is None else self._add(clock, labels, total, other, relu and last)
        apart = all(layer.reach == Reach() for layer, _, _ in maps)  # no window: what a channel reads lies in its own place
        if clock is Clock.SITE and self.channels >= 2 * BLOCK and maps and not others and apart:
            return self._in_blocks(maps, labels, total, relu)
        for i, (layer, source, term) in enumerate(maps):
            total = self._affine(layer, source, term, labels, total, relu and i == len(maps) - 1)
        if total is None:
            raise CausalityError("a sum of nothing")
        return total

    def _coarse(self, terms: Sequence[Signal], labels: Labels | None) -> int:
        if all(term.clock is Clock.ONCE for term in terms):
            return self._fill(tuple(terms), labels) if len(terms) > 1 else self.buffer_of(terms[0], labels)
        if len(terms) == 1:
            return self.buffer_of(terms[0], labels)
        return self._chain(terms, Clock.ROW, labels, relu=False)

    def _affine(
        self, layer: AffineLayer, before: Signal, output: Signal, labels: Labels | None, init: int | None, relu: bool
    ) -> int:
        clock = output.clock
        source = self.window(layer.reach, before, output)
        target = self._new("a", clock, labels, layer.features, output.scale)
        self.learn(init, layer.features)
        order = self._order(labels) if clock is Clock.ROW else None
        for channel, part in self.parts(target, clock):
            weight, bias = layer.weights(channel if clock is Clock.SITE else None)
            if order is not None:
                weight, bias = weight[..., order], bias[..., order]
            first = None if init is None else Part(init, part.first, part.count)
            numbers = weight.detach().contiguous(), bias.detach()
            self.learn(source, weight.shape[2])
            self.operations.append(
                Affine(clock, channel, part, source, layer.reach, first, *numbers, relu, None, layer.phases, layer.backwards)
            )
        return target

    def _in_blocks(
        self, maps: Sequence[tuple[AffineLayer, Signal, Signal]], labels: Labels | None, total: int | None, relu: bool
    ) -> int:
        """A sum of graded maps where colour channels are many, each with few features.

        Before the first channel of a block its features take, all together, what the channels before the block give; so an
        operation of a channel is left with a few products, instead of many for one or two features.
        """
        sources = [self.window(layer.reach, source, term) for layer, source, term in maps]
        early, late = ([self._new(name, Clock.SITE, labels) for _ in maps] for name in ("before", "a"))
        for target in early:
            self.buffers[target].carried = True
        self.learn(total, len(labels or ()))
        groups = [self.buffers[late[0]].group(channel) for channel in range(self.channels)]
        for first in range(0, self.channels, BLOCK):
            block = [c for c in range(first, min(first + BLOCK, self.channels)) if groups[c].start < groups[c].stop]
            if not block:
                continue
            begin, count = groups[block[0]].start, groups[block[-1]].stop - groups[block[0]].start
            weights = [[layer.weights(channel) for channel in block] for layer, _, _ in maps]
            passed = [self.buffers[source].ends[first - 1] if first else 0 for source in sources]
            start = total
            for target, source, own, known in zip(early, sources, weights, passed, strict=True):
                if first:
                    matrix, bias = (torch.cat(parts, -1) for parts in zip(*((w[:, :, :known], b) for w, b in own), strict=True))
                    start = self._put(Part(target, begin, count), first, source, start, matrix, bias)
            for place, channel in enumerate(block):
                init, group = start, groups[channel]
                for i, (target, source, own, known) in enumerate(zip(late, sources, weights, passed, strict=True)):
                    weight, bias = own[place]
                    part = Part(target, group.start, group.stop - group.start)
                    bias = torch.zeros_like(bias) if first else bias
                    bent = relu and i == len(maps) - 1
                    init = self._put(part, channel, source, init, weight[:, :, known:], bias, bent, known)
        return late[-1]

    def _put(
        self,
        part: Part,
        channel: int,
        source: int,
        init: int | None,
        weight: Tensor,
        bias: Tensor,
        relu: bool = False,
        first: int = 0,
    ) -> int:
        """An affine map of a part of one place's features; its target."""
        if part.count:
            start = None if init is None else Part(init, part.first, part.count)
            numbers = weight.detach().contiguous(), bias.detach()
            self.operations.append(Affine(Clock.SITE, channel, part, source, Reach(), start, *numbers, relu, first=first))
        return part.buffer

    def window(self, reach: Reach, signal: Signal, output: Signal) -> int:
        """The buffer that windows are read from to make an output, large enough for them."""
        source = self.buffer_of(signal)
        buffer = self.buffers[source]
        buffer.rows = max(buffer.rows, reach.above + 1)
        buffer.left, buffer.right = max(buffer.left, reach.left), max(buffer.right, reach.right)
        buffer.wide = buffer.wide or output.clock < signal.clock or output.scale != signal.scale or reach != Reach()
        buffer.carried = buffer.carried or (output.clock is Clock.SITE and self.channels > 1)
        return source

    def _point(self, layer: Pointwise, before: Signal, signal: Signal, labels: Labels | None) -> int:
        if self._mixed(labels) and signal.clock is not Clock.SITE:
            raise CausalityError(f"{layer.name} of a row is added to graded features: put a 1x1 affine map between them")
        source = self.buffer_of(before, before.labels if signal.clock is Clock.SITE else None)
        pairs, doubles = layer.pairs + 1, layer.doubles + 1
        target = self._new(layer.name, signal.clock, labels, self.buffers[source].features * doubles // pairs, signal.scale)
        for channel, part in self.parts(target, signal.clock):
            start = self.buffers[source].group(channel).start if signal.clock is Clock.SITE else 0
            read = Part(source, start, part.count // doubles)
            other = Part(source, start + part.count, part.count) if layer.pairs else None
            self.operations.append(Point(signal.clock, channel, part, read, layer.name, other))
        return target

    def _add(self, clock: Clock, labels: Labels | None, a: int, b: int, relu: bool) -> int:
        features = max(self.buffers[a].features, self.buffers[b].features)
        scale = max(self.buffers[a].scale, self.buffers[b].scale)
        target = self._new("sum", clock, labels, features, scale)
        self.learn(a, features)
        self.learn(b, features)
        for channel, part in self.parts(target, clock):
            one, other = (Part(buffer, part.first, part.count) for buffer in (a, b))
            self.operations.append(Add(clock, channel, part, one, other, relu))
        return target
