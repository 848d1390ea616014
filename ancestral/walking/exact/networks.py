"""Networks whose parameters are whole numbers, the same on every machine: what files are coded with."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn

from ancestral.causal.network import CausalNetwork
from ancestral.causal.program import Program
from ancestral.core import Autoregressive, Context, Family, State
from ancestral.families import Integer
from ancestral.families.base import Discrete
from ancestral.networks.factorised import Factorised, Uniform
from ancestral.symbols import DataError
from ancestral.walking.engines import Lowered
from ancestral.walking.exact.calibration import Calibration, calibrate
from ancestral.walking.exact.context import ExactContext
from ancestral.walking.exact.operations import Fixed, LoweringError
from ancestral.walking.exact.program import checksum, exact
from ancestral.walking.exact.whole import Whole


class ExactNetwork(Lowered):
    """A causal network in whole numbers: (n, *shape) symbols to (n, *shape, k) int64 parameters, the same everywhere.

    Args:
        network: in any type.
        family: the float family, whose integer twin's parameters it is to give.
        calibration: what examples decided.
        fractions: of the parts of the context that it takes, by name; they come as whole numbers.
        engine, threads: as for `Lowered`.

    Raises:
        LoweringError: the network has no exact form, or the calibration is another one's.
    """

    def __init__(
        self,
        network: CausalNetwork,
        family: Discrete,
        calibration: Calibration,
        fractions: Mapping[str, int],
        engine: str = "auto",
        threads: int = 1,
    ) -> None:
        super().__init__(network, family.levels, engine, threads)
        whole = family.integer()
        self.arithmetic, self.fractions = Whole(), dict(fractions)
        self.anchor = nn.Buffer(torch.zeros((), dtype=torch.float64), persistent=False)
        program = network.lowered(Context(**{name: torch.zeros(()) for name in fractions}))
        self._over_context = ExactContext(program, whole, calibration)
        self._program: Program = exact(program, whole, calibration)
        self.checksum = checksum(self._program) + self._over_context.checksum()

    def prepared(self, context: Context | None) -> tuple[Program, dict[int, Tensor]]:
        context = self.source.turned(context)
        given = {name: Fixed(getattr(context, name).double(), bits) for name, bits in self.fractions.items()}
        return self._program, self._over_context(given)

    def forward(self, x: Tensor, context: Context | None = None) -> Tensor:
        return super().forward(x, context).long()

    def start(self, n: int, context: Context | None = None, rollback: int = 0) -> tuple[Tensor, State]:
        parameters, state = super().start(n, context, rollback)
        return parameters.long(), state

    def step(self, state: State, symbol: Tensor) -> tuple[Tensor, State]:
        parameters, state = super().step(state, symbol)
        return parameters.long(), state

    def extend(self, state: State, symbols: Tensor) -> tuple[Tensor, State]:
        parameters, state = super().extend(state, symbols)
        return parameters.long(), state


def exact_model(
    model: Autoregressive,
    calibration: Mapping[str, Any] | None,
    fractions: Mapping[str, int],
    engine: str = "auto",
    threads: int = 1,
) -> Autoregressive:
    """The twin of a model without latents, whose parameters are whole numbers.

    Args:
        calibration: what examples decided, as `calibrated_network` has it.
        fractions: of the parts of the context that it takes, by name.

    Raises:
        LoweringError: it has no exact form, or the calibration is another one's.
        DataError: its symbols are real values.
    """
    family = whole_family(model.family)
    exact: ExactNetwork | ExactFactorised | ExactUniform
    if isinstance(model.network, Factorised) and fractions:
        exact = ExactFactorised(model.network, family, fractions.get("grid", fractions.get("vector", 0)))
    elif isinstance(model.network, Uniform):
        exact = ExactUniform(tuple(model.network.shape), model.network.levels)
    elif isinstance(model.network, CausalNetwork) and isinstance(model.family, Discrete) and calibration is not None:
        found = Calibration.from_dict(calibration)
        exact = ExactNetwork(model.network, model.family, found, fractions, engine, threads)
    else:
        kind = type(model.network).__name__
        raise LoweringError(f"{kind} has no exact form: causal networks and factorised decoders have one")
    return Autoregressive(exact, family, model.spec)


def calibrated_network(model: Autoregressive, x: Tensor, context: Context | None) -> dict[str, Any] | None:
    """What (n, *shape) symbols decide of a model's twin, as JSON has it; None where there is nothing to decide."""
    if not isinstance(model.network, CausalNetwork):
        return None
    return calibrate(model.network, whole_family(model.family), x, context).to_dict()


def whole_family(family: Family) -> Integer:
    """The integer twin of a family; raises ``DataError`` where it has none, and ``LoweringError`` where it is too large."""
    if not isinstance(family, Discrete):
        raise DataError(f"{family} is a density of real values, which files cannot hold: make it discrete with Binned")
    try:
        return family.integer()
    except ValueError as error:
        raise LoweringError(f"files take symbols of fewer kinds: {error}") from error


class ExactUniform(Uniform):
    """A uniform distribution in whole numbers."""

    checksum = b"uniform"

    def forward(self, x: Tensor, context: Context | None = None) -> Tensor:
        return super().forward(x, context).long()


class ExactFactorised(Factorised):
    """A factorised decoder in whole numbers: the features are its parameters, brought to the family's fractions.

    Args:
        network: the float one.
        family: the integer twin whose parameters it is to give.
        fraction: of the features.
    """

    def __init__(self, network: Factorised, family: Integer, fraction: int) -> None:
        super().__init__(tuple(network.shape), family.size)
        self.given, self.fraction, self.fractions = network.given, fraction, family.fractions
        free = torch.zeros(0) if network.free is None else network.free.detach()
        learned = enumerate(family.fractions[network.given :])
        self.constants = [Fixed.of(free[..., i], bits).integers.long() for i, bits in learned]
        content = [fraction, self.given, self.fractions, [each.tolist() for each in self.constants]]
        self.checksum = hashlib.blake2b(repr(content).encode(), digest_size=16).digest()

    def _sites(self, n: int, context: Context | None) -> Tensor:
        source = self._source(context)
        given = source.reshape(n, self.shape[0], self.given, *source.shape[2:]).movedim(2, -1).double()
        decoded = enumerate(self.fractions[: self.given])
        parts = [Fixed(given[..., i], self.fraction).at(bits).integers.long() for i, bits in decoded]
        return torch.stack([*parts, *(each.expand(n, *self.shape) for each in self.constants)], -1)
