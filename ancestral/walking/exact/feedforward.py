"""Feed-forward networks carried out in integers: encoders, decoders, and whatever else runs once over a context.

Such a network needs no fast engine, only the same numbers on every machine. It is traced by torch.fx, and every node of the
graph becomes an exact operation. How many fraction bits a value gets is decided by data; all else follows from the weights.
"""

from __future__ import annotations

import copy
import hashlib
import inspect
import math
import operator
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, fx, nn
from torch.nn import functional

from ancestral.walking.exact.operations import (
    BITS,
    FINEST,
    Concatenate,
    Constant,
    Fixed,
    LoweringError,
    Plain,
    Product,
    Shape,
    Sum,
    affine,
    nearest,
    table,
)
from ancestral.walking.tracing import Tracer

# What a node of a graph may call: class of module, function, or name of a method.
POSITIVE_IDENTITY = {nn.ReLU, torch.relu, functional.relu, "relu", nn.ELU, functional.elu}
POINTWISE = POSITIVE_IDENTITY | {
    *(nn.Tanh, torch.tanh, functional.tanh, "tanh", nn.Sigmoid, torch.sigmoid, functional.sigmoid, "sigmoid"),
    *(nn.GELU, functional.gelu, nn.SiLU, functional.silu),
    *(torch.exp, "exp", torch.expm1, "expm1", nn.Softplus, functional.softplus, nn.LogSigmoid, functional.logsigmoid),
}
PLAIN = {operator.neg, torch.neg, "neg", torch.clamp, "clamp"}
SUMS = {operator.add, torch.add, "add"}
DIFFERENCES = {operator.sub, torch.sub, "sub"}
PRODUCTS = {operator.mul, torch.mul, "mul"}
ARITHMETIC = SUMS | DIFFERENCES | PRODUCTS  # of two tensors, or of a tensor and a number
JOINS = ARITHMETIC | {torch.cat, torch.concat}
RESIZES = {nn.Upsample, functional.interpolate}
MOVES = RESIZES | {
    *(operator.getitem, getattr, torch.chunk, torch.split, torch.flatten, torch.reshape, nn.Flatten, functional.pad),
    *(functional.pixel_shuffle, nn.PixelShuffle),
    *("chunk", "flatten", "unflatten", "reshape", "view", "size", "new_zeros", "expand", "unsqueeze", "split", "flip"),
}
AFFINE = {functional.linear, torch.conv2d, functional.conv2d}  # of weights that do not depend on the input
APART = 36  # how many fraction bits the terms of a sum may differ by: it stays below 2^52
ROWS = 999_999_937  # what len() of a traced tensor is, until its number of rows is put there


# -- tracing -------------------------------------------------------------------------------------------------------------


class Traced(fx.Proxy):
    """A tensor in a module that is being traced. len() must be a number at once, so it is a stand-in."""

    def __len__(self) -> int:
        return ROWS

    def to(self, *_: Any, **__: Any) -> Traced:
        """Itself: the traced copy has one type."""
        return self


class LengthTracer(Tracer):
    """A tracer for which a tensor has a length."""

    def proxy(self, node: fx.Node) -> fx.Proxy:
        return Traced(node, self)


def trace(module: nn.Module, given: Sequence[bool]) -> fx.GraphModule:
    """The graph of a module's copy, in float64 and evaluation mode, for any number of rows.

    Args:
        given: which inputs are tensors; the others are None.

    Raises:
        LoweringError: what the module does depends on numbers.
        ValueError: it has another number of inputs, or none is given.
    """
    tracer, kind = LengthTracer(), type(module).__name__
    root = copy.deepcopy(module).double().eval()
    root = nn.Sequential(root) if tracer.is_leaf_module(root, "") else root
    names = list(inspect.signature(root.forward).parameters)
    if len(names) != len(given) or not any(given):
        raise ValueError(f"{kind} has {len(names)} inputs ({', '.join(names)}): give each a tensor or None, and not only None")
    try:
        graph = tracer.trace(root, {name: None for name, there in zip(names, given, strict=True) if not there})
    except fx.proxy.TraceError as error:
        raise LoweringError(f"{kind} has no integer twin: what it does depends on numbers ({error})") from error
    _count_rows(graph, inputs_of(graph)[list(given).index(True)])
    traced = fx.GraphModule(tracer.root, graph, kind)
    _fold(traced)
    graph.eliminate_dead_code(lambda node: node.op in ("placeholder", "output"))
    return traced


def inputs_of(graph: fx.Graph) -> list[fx.Node]:
    """Its inputs, in order."""
    return [node for node in graph.nodes if node.op == "placeholder"]


def _count_rows(graph: fx.Graph, source: fx.Node) -> None:
    """Put the number of rows of ``source`` wherever its stand-in is."""
    with graph.inserting_after(inputs_of(graph)[-1]):
        rows = graph.call_method("size", (source, 0))
    for node in graph.nodes:
        if node is not rows:
            node.args, node.kwargs = fx.node.map_aggregate((node.args, node.kwargs), lambda each: rows if each == ROWS else each)


def _fold(traced: fx.GraphModule) -> None:
    """Make layers of the affine functions whose weights are constants, such as those with a mask."""
    values: dict[fx.Node, Any] = {}
    for node in traced.graph.nodes:
        sources = node.all_input_nodes
        if node.op == "get_attr":
            values[node] = operator.attrgetter(node.target)(traced).detach()
        elif node.op == "call_function" and sources and all(each in values for each in sources):
            args, kwargs = fx.node.map_arg((node.args, node.kwargs), values.__getitem__)
            values[node] = node.target(*args, **kwargs)
        elif node.target in AFFINE and all(each in values for each in sources[1:]):
            args, kwargs = fx.node.map_arg((node.args[1:], node.kwargs), values.__getitem__)
            name = f"folded_{node.name}"
            traced.add_submodule(name, _layer(node.target, *args, **kwargs))
            with traced.graph.inserting_before(node):
                node.replace_all_uses_with(traced.graph.call_module(name, (sources[0],)))


def _layer(function: Any, weight: Tensor, bias: Tensor | None = None, *args: Any, **kwargs: Any) -> nn.Module:
    """The layer that an affine function of these weights is."""
    options = dict(zip(("stride", "padding", "dilation", "groups"), args, strict=False)) | kwargs
    if function is functional.linear:
        layer: nn.Linear | nn.Conv2d = nn.Linear(weight.shape[1], weight.shape[0], bias is not None)
    else:
        inputs = weight.shape[1] * options.get("groups", 1)
        sides = weight.shape[2], weight.shape[3]
        layer = nn.Conv2d(inputs, weight.shape[0], sides, bias=bias is not None, **options)
    layer.weight = nn.Parameter(weight, requires_grad=False)
    layer.bias = None if bias is None else nn.Parameter(bias, requires_grad=False)
    return layer


class Magnitudes(fx.Interpreter):
    """Runs a traced module, and notes the largest magnitude in every tensor."""

    def __init__(self, traced: fx.GraphModule) -> None:
        super().__init__(traced)
        self.largest: dict[str, float] = {}

    def run_node(self, n: fx.Node) -> Any:
        value = super().run_node(n)
        if isinstance(value, Tensor):
            self.largest[n.name] = float(value.abs().max())
        return value


def fraction_for(largest: float) -> int:
    """The fraction bits for magnitudes up to ``largest``, with one bit to spare."""
    if not math.isfinite(largest):
        raise LoweringError("the examples lead to numbers that are not finite")
    return min(BITS - 2 - math.frexp(largest)[1], FINEST)


# -- from the graph to integers ------------------------------------------------------------------------------------------


@dataclass(frozen=True, eq=False)
class Step:
    """One operation and what it is called with; nodes of the graph stand for their values."""

    node: fx.Node
    operation: Callable[..., Any]
    args: tuple[Any, ...]
    kwargs: Mapping[str, Any]


class Lowering:
    """From the nodes of a traced module to steps.

    Args:
        fractions: the fraction bits of every node that computes something.
    """

    def __init__(self, traced: fx.GraphModule, fractions: Mapping[str, int]) -> None:
        self.traced = traced
        self.fractions = dict(fractions)  # grows by those of the nodes that only move numbers about

    def step(self, node: fx.Node) -> Step:
        """What computes a node.

        Raises:
            LoweringError: nothing exact does.
        """
        try:
            return self._move(node) if kind_of(self.traced, node) in MOVES else self._compute(node)
        except LoweringError as error:
            kind = kind_of(self.traced, node)
            where = f"{type(self.traced).__name__}.{node.name} ({getattr(kind, '__name__', kind)})"
            raise LoweringError(f"{where} has no integer twin: {error}") from None

    def _move(self, node: fx.Node) -> Step:
        self.fractions[node.name] = self.fractions[node.all_input_nodes[0].name]
        if kind_of(self.traced, node) is functional.pad:
            fields = inspect.signature(functional.pad).bind(*node.args, **node.kwargs).arguments
            if fields.get("value") or fields.get("mode", "constant") != "constant":
                raise LoweringError("only padding by zeros is exact")
        if kind_of(self.traced, node) not in RESIZES:
            return Step(node, Shape(self._callee(node)), node.args, node.kwargs)
        if node.op == "call_module":
            fields = vars(self._callee(node))
        else:
            fields = inspect.signature(functional.interpolate).bind(*node.args, **node.kwargs).arguments
        size, factor, mode = fields.get("size"), fields.get("scale_factor"), fields.get("mode", "nearest")
        if mode != "nearest" or not (factor is None or (isinstance(factor, int | float) and float(factor).is_integer())):
            raise LoweringError("only mode='nearest' is exact, with a size or one whole scale_factor")
        return Step(node, Shape(nearest), (node.all_input_nodes[0], size, factor and int(factor)), {})

    def _compute(self, node: fx.Node) -> Step:
        kind, target, sources = kind_of(self.traced, node), self.fractions[node.name], node.all_input_nodes
        if node.op == "get_attr":
            constant = Fixed.of(self._callee(node).detach().cpu(), target)
            read = next(each for each in inputs_of(self.traced.graph) if each.users)
            return Step(node, Constant(constant.integers, target), (read,), {})
        if kind in (nn.Linear, nn.Conv2d, nn.ConvTranspose2d):
            return Step(node, affine(self._callee(node), self.fractions[sources[0].name], target), node.args, node.kwargs)
        if kind in POINTWISE:
            entries = table(self._pointwise(node), kind in POSITIVE_IDENTITY, self.fractions[sources[0].name], target)
            return Step(node, entries, (sources[0],), {})
        if kind in PLAIN or (kind in ARITHMETIC and len(node.all_input_nodes) == 1 and not _squares(node)):
            return Step(node, self._plain(node, target), (sources[0],), {})
        if kind in JOINS:
            return self._join(node, kind, [self.fractions[source.name] for source in sources], target)
        raise LoweringError("it is not among the operations of an IntegerNet")

    def _join(self, node: fx.Node, kind: object, bits: Sequence[int], target: int) -> Step:
        if max(bits) - min(bits) > APART:
            raise LoweringError(f"what it joins differs by more than {APART} fraction bits: calibrate it anew")
        if kind not in ARITHMETIC:
            return Step(node, Concatenate(target), node.args, node.kwargs)
        if node.kwargs:
            raise LoweringError(f"it is called with {', '.join(node.kwargs)}")
        operation = Product(target) if kind in PRODUCTS else Sum(target, -1 if kind in DIFFERENCES else 1)
        return Step(node, operation, node.args, {})

    def _plain(self, node: fx.Node, target: int) -> Plain:
        """A function of one tensor and of numbers."""
        function, read = self._callee(node), node.all_input_nodes[0]
        flat = [*node.args, *node.kwargs.values()]
        numbers = [math.nan if each is read or each is None else float(each) for each in flat]  # type: ignore[arg-type]

        def apply(x: Tensor) -> Tensor:
            args, kwargs = fx.node.map_arg((node.args, node.kwargs), lambda _: x)
            result: Tensor = function(*args, **kwargs)
            return result

        return Plain(apply, torch.tensor(numbers, dtype=torch.float64), target)

    def _callee(self, node: fx.Node) -> Any:
        """The module, constant, function or method of tensors that a node names."""
        if node.op in ("call_module", "get_attr"):
            return operator.attrgetter(str(node.target))(self.traced)
        return getattr(Tensor, str(node.target)) if node.op == "call_method" else node.target

    def _pointwise(self, node: fx.Node) -> Callable[[Tensor], Tensor]:
        """A function of every element by itself, with its settings."""
        function = self._callee(node)
        rest, settings = node.args[1:], {name: value for name, value in node.kwargs.items() if name != "input"}
        if getattr(function, "inplace", False) or any(each is True for each in (*rest, settings.get("inplace"))):
            raise LoweringError("it overwrites its input: leave inplace out")
        return lambda x: function(x, *rest, **settings)


def _squares(node: fx.Node) -> bool:
    """Whether both operands are the same tensor."""
    return all(isinstance(each, fx.Node) for each in node.args) and len(node.args) > 1


def kind_of(traced: fx.GraphModule, node: fx.Node) -> Any:
    """What a node calls, or what else it is."""
    if node.op == "call_module":
        return type(traced.get_submodule(str(node.target)))
    return node.target if node.op.startswith("call") else node.op


class IntegerNet:
    """The integer twin of a module: the same result, bit for bit, for any batch, thread count, library and device.

    The module may be made of nn.Linear, nn.Conv2d and nn.ConvTranspose2d, the first two also as functions with constant weights,
    of elu, relu, tanh, sigmoid, gelu, silu, exp, expm1, softplus and logsigmoid, sums, differences and products of tensors or
    with numbers, clamp, cat, nearest resizing, constants, and what only moves numbers about. The twin has the weights that the
    module had when it was made.

    Attributes:
        fractions: the fraction bits of every value, by the name of its node in the traced graph. They are all that calibration
            decides: `from_fractions` makes the same net of them and the weights.

    Example:
        >>> module = nn.Sequential(nn.Linear(3, 8), nn.ELU(), nn.Linear(8, 2))
        >>> x = torch.randn(100, 3)
        >>> net = IntegerNet.calibrate(module, x)
        >>> bool((net(Fixed.of(x, 12)).values() - module(x)).abs().max() < 1e-3)
        True
    """

    def __init__(self, traced: fx.GraphModule, fractions: Mapping[str, int], given: Sequence[bool]) -> None:
        settled = [node.name for node in traced.graph.nodes if _settles(traced, node)]
        if odd := sorted(set(settled) ^ set(fractions)):
            raise LoweringError(f"these fractions are those of another module: {', '.join(odd)} are in only one of the two")
        lowering = Lowering(traced, fractions)
        self.fractions = {name: fractions[name] for name in settled}
        self._inputs, self._given = inputs_of(traced.graph), list(given)
        [self._output] = [node.args[0] for node in traced.graph.nodes if node.op == "output"]
        self._steps = [lowering.step(node) for node in traced.graph.nodes if node.op not in ("placeholder", "output")]

    @classmethod
    @torch.no_grad()
    def calibrate(cls, module: nn.Module, *examples: Tensor | None) -> IntegerNet:
        """The twin that fits examples: every value gets as many fraction bits as its largest magnitude leaves, less one.

        Args:
            module: in any type; it is left as it is.
            examples: the inputs of ``module``, some rows of each; None for those that the twin is to be without.

        Raises:
            LoweringError: the module has an operation without an exact form, or numbers out of bounds.
            ValueError: it has another number of inputs.
        """
        given = [example is not None for example in examples]
        twin = trace(module, given)
        measured = Magnitudes(twin)
        measured.run(*(None if example is None else example.double() for example in examples))
        settled = [node.name for node in twin.graph.nodes if _settles(twin, node)]
        return cls(twin, {name: fraction_for(measured.largest[name]) for name in settled}, given)

    @classmethod
    def from_fractions(cls, module: nn.Module, fractions: Mapping[str, int], given: Sequence[bool]) -> IntegerNet:
        """The twin that `calibrate` made, from its fractions and the module's weights.

        Args:
            given: which inputs are tensors; the others are None.

        Raises:
            LoweringError: the fractions are those of another module, or as for `calibrate`.
            ValueError: the module has another number of inputs.
        """
        return cls(trace(module, given), fractions, given)

    def __call__(self, *inputs: Fixed | None) -> Fixed:
        """The module's result for fixed-point inputs, brought to the fractions of its inputs first.

        Raises:
            ValueError: an input is None where the net was made for a tensor, or the other way round.
        """
        if [each is not None for each in inputs] != self._given:
            raise ValueError(f"this net was made for inputs that are there: {self._given}, with False for None")
        values: dict[fx.Node, Any] = {
            node: value.at(self.fractions[node.name])
            for node, value in zip(self._inputs, inputs, strict=True)
            if value is not None and node.users
        }
        for step in self._steps:
            args, kwargs = fx.node.map_arg((step.args, step.kwargs), values.__getitem__)
            values[step.node] = step.operation(*args, **kwargs)
        result: Fixed = values[self._output]
        return result

    def checksum(self) -> bytes:
        """8 bytes that tell nets apart: BLAKE2b of every fraction, weight, bias, scale, table and constant."""
        digest = hashlib.blake2b(torch.tensor(list(self.fractions.values())).numpy().astype("<i4").tobytes(), digest_size=8)
        for step in self._steps:
            for part in vars(step.operation).values():
                if isinstance(part, Tensor):
                    digest.update(part.double().numpy().astype("<f8").tobytes())
        return digest.digest()


def _settles(traced: fx.GraphModule, node: fx.Node) -> bool:
    """Whether a node has fraction bits of its own."""
    return node.op != "output" and len(node.users) > 0 and kind_of(traced, node) not in MOVES
