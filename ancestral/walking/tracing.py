"""Tracing by torch.fx that leaves the rest of the process alone."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from torch import fx


class Tracer(fx.Tracer):
    """The tracer of torch.fx, without its habit to replace the functions of ``math`` by its own as long as it traces.

    Other threads would see them there: numba, compiling the native engine beside whatever else is done, finds no ``math.log``.
    """

    def __init__(self) -> None:
        super().__init__(autowrap_modules=())  # type: ignore[arg-type]  # declared as a tuple of one


def graph_of(function: Callable[..., Any]) -> fx.GraphModule:
    """What a function does with tensors, as a graph: ``fx.symbolic_trace`` by that tracer."""
    tracer = Tracer()
    graph = tracer.trace(function)
    return fx.GraphModule(tracer.root, graph, function.__name__)
