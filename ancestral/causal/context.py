"""What is computed once a walk, from the context alone."""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor, nn

from ancestral.causal.layer import CausalityError, Clock, Labels, Layer, Signal


class Once(Layer):
    """Any module over the context: a dense map of the vector, any convolution of the grid, a resampling.

    (n, d) comes out as (n, c, 1, 1), the same for every site.

    Args:
        module: what it is.
        shrink, grow: how many times coarser or finer the places of its output are than those of its input, each way.
    """

    def __init__(self, module: nn.Module, shrink: int = 1, grow: int = 1) -> None:
        super().__init__()
        self.module, self.shrink, self.grow = module, shrink, grow

    def infer(self, inputs: Sequence[Signal]) -> tuple[Clock, Labels | None]:
        if any(signal.clock is not Clock.ONCE for signal in inputs):
            raise CausalityError("a context layer may read the context alone: anything else would let a site see later ones")
        return Clock.ONCE, None

    def forward(self, x: Tensor) -> Tensor:
        y: Tensor = self.module(x)
        if isinstance(self.module, nn.Conv2d):  # known without a look at y, which a tracer cannot take
            return y
        return y[:, :, None, None] if isinstance(self.module, nn.Linear) or y.dim() == 2 else y
