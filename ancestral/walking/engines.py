"""Which engine carries a Program out, and networks that hand their work to one."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn

from ancestral.causal.arithmetic import Arithmetic, Floating
from ancestral.causal.network import CausalNetwork, Engine, Walked
from ancestral.causal.program import Program
from ancestral.causal.stepping import Stepper, once_values
from ancestral.core import Autoregressive, Conditional, Context, Family
from ancestral.draw import Draw, check_numbers
from ancestral.spec import DataSpec
from ancestral.walking.parallel import computed, let_go, parameters

if TYPE_CHECKING:
    from ancestral.walking.compiled import Compiled
    from ancestral.walking.native.engine import Native

Words = npt.NDArray[np.uint64]
COMPILING = 15.0  # seconds that an engine may take to be compiled
CALL, MULTIPLY_ADDS = 8e-6, 2e10  # what an eager operation takes, and how much it does in a second
ENGINES = ("auto", "native", "compiled", "eager")


class EngineError(ValueError):
    """The engine that was asked for cannot do this; the message says why and what can."""


def eager_seconds(program: Program, n: int) -> float:
    """Roughly what walks of n examples take in PyTorch."""
    _, height, width = program.shape
    calls = height * width * len(program.operations) * CALL
    return calls + height * width * n * program.multiply_adds / MULTIPLY_ADDS


def refusal(program: Program, like: Tensor) -> str | None:
    """Why the native engine cannot run a Program on the device of ``like``, or None."""
    if like.device.type != "cpu":
        return f"it runs on a CPU, and the model is on {like.device}"
    try:
        from ancestral.walking.native.engine import supported  # brings numba, which takes a while
    except (ImportError, RuntimeError) as error:  # the latter where it finds no folder to keep compiled code in
        return f"numba cannot be used here ({error})"
    return supported(program)


class Lowered(Walked):
    """A causal network whose Program an engine carries out: the same parameters, faster.

    Args:
        network: whose weights it shares.
        levels: the alphabet of the symbols.
        engine: ``"native"`` (CPU, float32), ``"compiled"`` (torch.compile; any device that it knows), ``"eager"`` (PyTorch), or
            ``"auto"``: native where it can, compiled on CUDA where that is worth the wait, eager otherwise.
        threads: how many threads share a batch, in the native engine.

    Raises:
        EngineError: the engine is unknown; later, that the one asked for cannot run this network.
    """

    arithmetic: Arithmetic = Floating()

    def __init__(self, network: CausalNetwork, levels: int, engine: str = "auto", threads: int = 1) -> None:
        super().__init__(tuple(network.shape), network.discrete)
        if engine not in ENGINES:
            raise EngineError(f"there is no engine {engine!r}; choose one of {', '.join(ENGINES)}")
        self.source, self.levels, self.chosen, self.threads = network, levels, engine, threads
        self.order, self.anchor = network.order, nn.Buffer(torch.zeros_like(network.anchor), persistent=False)

    def prepared(self, context: Context | None) -> tuple[Program, dict[int, Tensor]]:
        """The Program for these parts of a context, and the values of all signals that are computed once a walk."""
        program = self.source.lowered(context)
        return program, once_values(program, self.source.turned(context))

    def native(self, program: Program, rollback: int = 0, n: int = 1, options: bool = False) -> Native | None:
        """The native engine for a Program, or None where eager is wanted, or the only one that can, or done sooner.

        Until the engine is compiled, which takes some seconds once a machine, small work is left to eager meanwhile.

        Args:
            n: how many examples there will be.
            options: whether it is to draw with a temperature, top-k or top-p.

        Raises:
            EngineError: it was asked for by name and cannot.
        """
        reason = "" if self.chosen in ("eager", "compiled") else refusal(program, self.anchor)
        if reason is not None:
            if self.chosen == "native":
                raise EngineError(f"the native engine cannot run this network: {reason}; engine='eager' can")
            return None
        from ancestral.walking.native.compiling import ready
        from ancestral.walking.native.engine import Native

        if self.chosen == "auto" and not ready(program, eager_seconds(program, n) > COMPILING, options):
            return None
        return Native(program, self.levels, rollback, self.threads)

    def compiles(self, program: Program, n: int = 1) -> bool:
        """Whether the compiled engine is to run a Program: not where another is wanted, or the only one that can, or done sooner.

        Args:
            n: how many examples there will be.

        Raises:
            EngineError: it was asked for by name and cannot.
        """
        auto = self.chosen == "auto" and self.anchor.is_cuda and eager_seconds(program, n) > COMPILING
        if self.chosen != "compiled" and not auto:
            return False
        from ancestral.walking.compiled import refusal

        reason = refusal(program, self.anchor)
        if reason is not None and self.chosen == "compiled":
            raise EngineError(f"the compiled engine cannot run this network: {reason}; engine='eager' can")
        return reason is None

    def compiled(self, program: Program, rollback: int = 0) -> Compiled | None:
        """The compiled engine for a Program, or None; errors and reasons are those of ``compiles``."""
        if not self.compiles(program):
            return None
        from ancestral.walking.compiled import Compiled

        return Compiled(program, rollback)

    @torch.no_grad()
    def forward(self, x: Tensor, context: Context | None = None) -> Tensor:
        program, once = self.prepared(context)
        native = self.native(program, n=len(x))
        if native is not None:
            return self.source.restored(native.parallel(self.source.laid_out(x), once))
        if self.chosen == "compiled":
            self.compiles(program)  # all sites at once are eager's work; what it refuses, it refuses here too
        values = computed(program, self.arithmetic, self.source.laid_out(x), once, let_go)
        return self.source.restored(parameters(program, values))

    def engine(self, context: Context | None, rollback: int) -> tuple[Engine, dict[int, Tensor]]:
        program, once = self.prepared(context)
        engine = self.native(program, rollback) or self.compiled(program, rollback)
        return engine or Stepper(program, self.arithmetic, rollback), once

    @torch.no_grad()
    def run(
        self,
        n: int,
        context: Context | None,
        family: Family,
        draw: Draw,
        progress: Callable[[int], None] | None = None,
        end: int | None = None,
    ) -> Tensor | None:
        """(n, *shape) symbols of whole walks, with the chooser inside the engine where it can; None where eager steps do it.

        Args:
            progress: is told how many symbols every example has by now.
            end: the symbol that ends an example, whose later symbols are of no interest.
        """
        program, once = self.prepared(context)
        if self.compiles(program, n):
            return self._walked(n, context, family, draw, progress)
        native = self.native(program, n=n, options=not draw.plain)
        if native is None or not native.draws(family):
            return None
        for part in (native.start(1, {key: part[:1] for key, part in once.items()}, self.anchor)[0], *once.values()):
            check_numbers(part)
        u = draw.uniforms(n, len(self.order.sites))[:, list(self.order.sites)]
        if draw.known is not None:
            draw = replace(draw, known=(self.source.laid_out(draw.known[0]), self.source.laid_out(draw.known[1])))
        return self.source.restored(native.run(n, once, self.anchor, family, u, draw, progress, end))

    def _walked(
        self, n: int, context: Context | None, family: Family, draw: Draw, progress: Callable[[int], None] | None
    ) -> Tensor:
        """(n, *shape) symbols that compiled steps and a draw settle in turn."""
        network = Lowered(self.source, self.levels, "compiled")
        spec = DataSpec("image" if len(self.shape) == 3 else "vector", tuple(self.shape), self.levels)
        walk = Autoregressive(network, family, spec).walk(n, context)

        def choose(site: int, conditional: Conditional) -> Tensor:
            if progress is not None:
                progress(walk.site + 1)
            return draw(site, conditional)

        return walk.run(choose)

    @torch.no_grad()
    def pop(
        self,
        n: int,
        context: Context | None,
        family: Family,
        stack: Words,
        known: tuple[Tensor, Tensor] | None = None,
        end: int | None = None,
    ) -> Tensor | None:
        """(n, *shape) symbols popped from an entropy coder's stack inside the engine, or None where no engine can.

        Args:
            stack: its words; see ``coding.coder.Stack.words``. What is left of it is in it afterwards.
            known: (n, *shape) symbols, and booleans that are True where they are known, and not popped.
            end: the symbol after which a row has but more of it, which are not popped.
        """
        program, once = self.prepared(context)
        native = self.native(program, n=n)
        if native is None or not program.exact or not native.draws(family) or not (end is None or native.returns):
            return None
        x, given = known or (torch.zeros(n, *self.shape, dtype=kind) for kind in (torch.long, torch.bool))
        return self.source.restored(
            native.pop(n, once, self.anchor, family, stack, (self.source.laid_out(x), self.source.laid_out(given)), end)
        )


def lowered(likelihood: Autoregressive, engine: str = "auto", n: int = 1) -> Lowered | None:
    """The network of a likelihood, lowered for an engine that settles whole walks of n rows; None where eager steps do it.

    Raises:
        EngineError: the engine is unknown, or it was asked for by name and cannot.
    """
    network, levels = likelihood.network, likelihood.family.levels
    if not isinstance(network, CausalNetwork) or levels is None:
        if engine in ("native", "compiled"):
            raise EngineError(f"the {engine} engine runs causal networks of discrete symbols, not {type(network).__name__}")
        return None
    return None if engine == "eager" else Lowered(network, levels, engine, torch.get_num_threads())
