"""The core: a network gives the parameters of every conditional, a family makes them distributions, a walk settles symbols.

An ancestral model gives, for every symbol of an image, a waveform or a text, the distribution of that symbol given the
ones before it (and a context). Likelihood, sampling, completion, search and lossless compression are one walk over those
distributions; they differ only in who settles each symbol: the data, a random number, a constraint, a score, a bitstream.

Shapes: n rows of a batch, ``*shape`` the sizes of one example, D its number of sites, k parameters of one conditional.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from ancestral.spec import DataSpec, Order, Trained
from ancestral.symbols import check_context, check_parts, check_symbols, scored


class StateError(RuntimeError):
    """A walk or its state was used in a way that could only give wrong results."""


class OrderError(ValueError):
    """A network cannot settle symbols in the order that was asked for; the message says which can."""


@dataclass(frozen=True)
class Context:
    """What every conditional may look at besides the symbols before it; a part that is None contributes zero.

    Attributes:
        vector: (n, d) one vector an example, such as a one-hot label.
        grid: (n, d, H, W) features aligned with the sites, such as a decoded latent.
        memory: (n, m, d) a set to attend to, with ``memory_mask`` (n, m) True where it holds something.
    """

    vector: Tensor | None = None
    grid: Tensor | None = None
    memory: Tensor | None = None
    memory_mask: Tensor | None = None

    def map(self, function: Callable[[Tensor], Tensor]) -> Context:
        """The context with ``function`` applied to every part that is there."""
        return Context(**{name: None if value is None else function(value) for name, value in vars(self).items()})

    def select(self, rows: Tensor) -> Context:
        """The context of the given rows, (m,) indices."""
        return self.map(lambda value: value.index_select(0, rows))

    def repeat(self, k: int) -> Context:
        """Every row k times in a row: (n, ...) to (n k, ...)."""
        return self.map(lambda value: value.repeat_interleave(k, 0))


class State:
    """What a walk remembers: named buffers whose first axis is the row, and how many symbols it has absorbed.

    A state is a value that is used up: ``Network.step`` takes its buffers over, and using it again raises ``StateError``.
    """

    def __init__(self, buffers: dict[str, Tensor], rollback: int = 0, plan: Any = None) -> None:
        self.buffers = buffers
        self.position = 0
        self.reserve = rollback
        self.plan = plan  # what the network prepared for this walk, such as packed weights; the same for all rows
        self._furthest = 0
        self._live = True

    def consume(self) -> dict[str, Tensor]:
        """Hand the buffers over; from here on the state is spent.

        Raises:
            StateError: it was spent before.
        """
        if not self._live:
            raise StateError("this state was consumed by an earlier step; keep the one that it returned, or select a copy")
        self._live = False
        return self.buffers

    def successor(self, buffers: dict[str, Tensor], position: int) -> State:
        """The state after a change: same plan and reserve, new buffers and position."""
        after = State(buffers, self.reserve, self.plan)
        after.position, after._furthest = position, max(self._furthest, position)
        return after

    def select(self, parents: Tensor) -> State:
        """Row i of the result is a copy of row ``parents[i]``, (m,) indices: beams and particles are made of this."""
        if not self._live:
            raise StateError("this state was consumed by an earlier step, so its rows cannot be copied")
        return self.successor({name: buffer.index_select(0, parents) for name, buffer in self.buffers.items()}, self.position)

    def rollback(self, k: int) -> State:
        """Forget the last k symbols, exactly.

        Raises:
            StateError: more than ``start(rollback=...)`` reserved, or more than was absorbed.
        """
        target = self.position - k
        if k < 0 or target < max(0, self._furthest - self.reserve):
            raise StateError(f"cannot roll back {k} of {self.position} symbols: start(rollback={self.reserve}) reserved no more")
        return self.successor(self.consume(), target)


class Network(nn.Module, ABC):
    """Parameters of p(x_i | x_<i, c) at every site i.  Laws, checked for every subclass:

    ``causal``    forward(x)[i] ignores x[j] for every j at or after i in ``order``
    ``stepwise``  start, step, step, ... give forward(x)[0], [1], [2], ... in ``order``

    A subclass gives ``forward``; ``start`` and ``step`` then recompute, slowly and exactly, until it gives them too. The order is
    that of a raster: row by row from the top, and the colours of a pixel, (C, H, W), one after the other before the next pixel.

    Args:
        shape: sizes of one example.
        discrete: whether symbols are integers; else they are real values.

    Attributes:
        any_order: whether ``arrange`` takes every order.
        conditional: whether ``context.vector`` is a label, one-hot, or zeros where none is known; training hands them over.
    """

    any_order: bool = False
    conditional: bool = False

    def __init__(self, shape: tuple[int, ...], discrete: bool = True) -> None:
        super().__init__()
        self.shape, self.discrete = torch.Size(shape), discrete
        self.order = Order.raster(tuple(shape))
        self.anchor = nn.Buffer(torch.zeros(()), persistent=False)  # tells device and type, also of a network without weights

    @abstractmethod
    def forward(self, x: Tensor, context: Context | None = None) -> Tensor:
        """(n, *shape) symbols to (n, *shape, k) parameters, all sites at once."""

    def arrange(self, order: Order | str | None = None, shape: tuple[int, ...] | None = None) -> Network:
        """A view of this network, its weights shared, that settles sites in another order or takes examples of another shape.

        Raises:
            OrderError: it cannot; convolutional and recurrent networks of images take their symmetries and other sizes, those
                with ``any_order`` every order.
        """
        raise OrderError(f"{type(self).__name__} was made for one order and one shape; convolutional networks take others")

    def start(self, n: int, context: Context | None = None, rollback: int = 0) -> tuple[Tensor, State]:
        """(n, k) parameters of the first site, and a state that has seen nothing.

        ``rollback`` reserves what ``State.rollback`` of up to that many symbols needs.
        """
        kind = torch.long if self.discrete else self.anchor.dtype
        buffers = {"symbols": torch.zeros(n, *self.shape, dtype=kind, device=self.anchor.device)}
        if context is not None:
            buffers |= {name: part for name, part in vars(context).items() if part is not None}
        return self._recompute(buffers, 0), State(buffers, rollback)

    def step(self, state: State, symbol: Tensor) -> tuple[Tensor, State]:
        """Absorb (n,) symbols of the current site; (n, k) parameters of the next one, and the state to go on with.

        Raises:
            StateError: the state was consumed before, or there is no next site.
        """
        buffers, position = state.consume(), state.position + 1
        if position >= len(self.order.sites):
            raise StateError("the last site has no next one: its symbol needs no step")
        buffers["symbols"].flatten(1)[:, self.order.sites[position - 1]] = symbol
        return self._recompute(buffers, position), state.successor(buffers, position)

    def extend(self, state: State, symbols: Tensor) -> tuple[Tensor, State]:
        """Absorb (n, k) symbols, k at least 1; (n, k, size) parameters of the site after each, and the state to go on with."""
        found = []
        for symbol in symbols.unbind(1):
            parameters, state = self.step(state, symbol)
            found.append(parameters)
        return torch.stack(found, 1), state

    def _recompute(self, buffers: dict[str, Tensor], position: int) -> Tensor:
        context = {name: part for name, part in buffers.items() if name != "symbols"}
        parameters: Tensor = self(buffers["symbols"], Context(**context) if context else None)
        return parameters.flatten(1, -2)[:, self.order.sites[position]]


class Family(ABC):
    """A one-dimensional distribution whose k parameters the network gives.

    Attributes:
        size: k, the number of parameters of one conditional.
        levels: the alphabet is 0 .. levels - 1; ``None`` for a density on the real line.
    """

    size: int
    levels: int | None = None

    @property
    def discrete(self) -> bool:
        """Whether symbols are integers, so that there are probabilities, tables and files."""
        return self.levels is not None

    def at(self, sites: int | tuple[int, ...]) -> Family:
        """The family of a site, or of several: this one, unless it has one for each (``Columns``)."""
        return self

    @abstractmethod
    def log_prob(self, parameters: Tensor, symbols: Tensor) -> Tensor:
        """(..., k) parameters and (...) symbols to (...) log-probabilities or log-densities, in nats."""

    @abstractmethod
    def log_pmf(self, parameters: Tensor) -> Tensor:
        """(..., k) to (..., levels) log-probabilities of every symbol, in nats; a continuous family raises ``DataError``."""

    @abstractmethod
    def quantile(self, parameters: Tensor, u: Tensor) -> Tensor:
        """(..., k) and (...) uniforms in (0, 1) to (...) symbols: the inverse of the distribution function."""

    @abstractmethod
    def mode(self, parameters: Tensor) -> Tensor:
        """(..., k) to (...) most probable symbols, the lowest of equals."""

    @abstractmethod
    def table(self, parameters: Tensor, precision: int) -> Tensor:
        """(..., k) to (..., levels + 1) cumulative integers from 0 to 2^precision, strictly increasing."""


@dataclass(frozen=True)
class Conditional:
    """The distributions of a batch of symbols: a family with its parameters (..., k)."""

    family: Family
    parameters: Tensor

    def log_prob(self, symbols: Tensor) -> Tensor:
        """(...) log-probabilities of (...) symbols, in nats."""
        return self.family.log_prob(self.parameters, symbols)

    def log_pmf(self) -> Tensor:
        """(..., levels) log-probabilities of every symbol, in nats."""
        return self.family.log_pmf(self.parameters)

    def quantile(self, u: Tensor) -> Tensor:
        """(...) symbols at (...) uniforms in (0, 1)."""
        return self.family.quantile(self.parameters, u)

    @property
    def mode(self) -> Tensor:
        """(...) most probable symbols."""
        return self.family.mode(self.parameters)

    def table(self, precision: int) -> Tensor:
        """(..., levels + 1) cumulative integers from 0 to 2^precision, strictly increasing."""
        return self.family.table(self.parameters, precision)


class Autoregressive(Trained, nn.Module):
    """p(x | c) = prod_i p(x_i | x_<i, c): a network and a family. Final: tweak it by another network or family.

    Raises:
        TypeError, ValueError: the network or the family is none, or they do not fit each other and the spec.

    Example:
        >>> import ancestral
        >>> model = ancestral.build("gated-pixelcnn", DataSpec("image", (1, 4, 4), levels=2), preset="tiny")
        >>> model.log_prob(torch.zeros(3, 1, 4, 4, dtype=torch.long)).shape
        torch.Size([3])
    """

    def __init__(self, network: Network, family: Family, spec: DataSpec, config: Any = None) -> None:
        super().__init__()
        check_parts({Network: network, Family: family}, spec)
        self.network, self.family, self.spec, self.config = network, family, spec, config

    @property
    def anchor(self) -> Tensor:
        """A zero on the model's device and of its type."""
        return self.network.anchor

    @property
    def conditional(self) -> bool:
        """Whether it takes labels: its configuration says so, or a network of your own."""
        return bool(getattr(self.config, "conditional", self.network.conditional))

    def conditionals(self, x: Tensor, context: Context | None = None) -> Conditional:
        """The distribution of every symbol of (n, *shape) given the ones before it.

        Raises:
            DataError: x does not fit the spec.
        """
        check_symbols(x, self.spec, context)
        varies = None in self.spec.shape and x.shape[1:] != self.network.shape
        parameters = (self.network.arrange(shape=tuple(x.shape[1:])) if varies else self.network)(x, context)
        if (size := parameters.shape[-1]) != self.family.size:
            raise ValueError(f"the network gives {size} parameters a site, {self.family} reads {self.family.size}")
        if parameters.element_size() < 4:  # half precision is for the network: likelihoods are summed in at least float32
            parameters = parameters.float()
        return Conditional(self.family, parameters)

    def log_prob(self, x: Tensor, context: Context | None = None) -> Tensor:
        """(n, *shape) symbols to (n,) log-likelihoods, in nats; what comes after the end of an example counts nothing.

        Raises:
            DataError: x does not fit the spec.
        """
        nats, counts = self.conditionals(x, context).log_prob(x), scored(x, self.spec)
        return (nats if counts is None else nats.where(counts, 0.0)).flatten(1).sum(1)

    forward = log_prob  # for what wraps a module and calls it: DistributedDataParallel, torch.compile

    def walk(self, n: int, context: Context | None = None, rollback: int = 0) -> Walk:
        """A walk over the sites of n examples; where lengths vary, of the network's own (``ancestral.arrange`` gives others)."""
        return Walk(self, n, context, rollback)


class Walk:
    """A walk over the sites of n examples: at every site a conditional, then somebody settles its symbol.

    Attributes:
        site: how many symbols are settled; the next one is ``order.sites[site]``.
        symbols: (n, *shape) what is settled so far, zero elsewhere.
    """

    def __init__(self, model: Autoregressive, n: int, context: Context | None = None, rollback: int = 0) -> None:
        check_context(context)
        self._network, self._family = model.network, model.family
        self.order = model.network.order
        self.site = 0
        parameters, self._state = model.network.start(n, context, rollback)
        self._parameters: deque[Tensor] = deque([parameters], maxlen=rollback + 1)
        kind = torch.long if self._family.discrete else parameters.dtype
        self.symbols = torch.zeros(n, *model.network.shape, dtype=kind, device=parameters.device)

    @property
    def done(self) -> bool:
        """Whether every symbol is settled."""
        return self.site == len(self.order.sites)

    @property
    def conditional(self) -> Conditional:
        """The distribution of the next symbol of each row."""
        if self.done:
            raise StateError("every site is settled, so there is no next conditional")
        family = self._family.at(self.order.sites[self.site])
        return Conditional(family, self._parameters[-1][..., : family.size])  # of several families the largest reads them all

    def settle(self, symbols: Tensor) -> None:
        """Give the next symbol of each row, (n,)."""
        if self.done:
            raise StateError("every site is settled already")
        symbols = symbols.to(self.symbols.dtype)
        self.symbols.flatten(1)[:, self.order.sites[self.site]] = symbols
        self.site += 1
        if not self.done:
            parameters, self._state = self._network.step(self._state, symbols)
            self._parameters.append(parameters)

    def extend(self, symbols: Tensor) -> Conditional:
        """Settle k symbols of each row at once, (n, k); the conditionals that they were settled under, (n, k, ...)."""
        here = self.order.sites[self.site : self.site + symbols.shape[1]]
        if len(here) < symbols.shape[1]:
            raise StateError(f"{symbols.shape[1]} symbols for the {len(here)} sites that are left")
        symbols, seen = symbols.to(self.symbols.dtype), [self._parameters[-1][:, None]]
        self.symbols.flatten(1)[:, list(here)] = symbols
        absorbed = symbols[:, : len(self.order.sites) - 1 - self.site]  # the last symbol of all is settled without a step
        self.site += len(here)
        if absorbed.shape[1]:
            parameters, self._state = self._network.extend(self._state, absorbed)
            self._parameters.extend(parameters.unbind(1))
            seen.append(parameters)
        return Conditional(self._family.at(here), torch.cat(seen, 1)[:, : len(here)])

    def select(self, parents: Tensor) -> None:
        """Replace row i by a copy of row ``parents[i]``, (m,) indices."""
        self._state = self._state.select(parents)
        self._parameters = deque((p.index_select(0, parents) for p in self._parameters), self._parameters.maxlen)
        self.symbols = self.symbols.index_select(0, parents)

    def rollback(self, k: int) -> None:
        """Unsettle the last k symbols, at most as many as the walk was started with.

        Raises:
            StateError: more than that.
        """
        steps = self._parameters.maxlen or 1
        if not 0 <= k <= min(self.site, steps - 1):
            raise StateError(f"cannot roll back {k} of {self.site} symbols: the walk reserved {steps - 1}")
        absorbed = k - 1 if self.done and k else k  # the last symbol of all is settled without a step
        self._state = self._state.rollback(absorbed)
        for _ in range(absorbed):
            self._parameters.pop()
        self.site -= k
        self.symbols.flatten(1)[:, list(self.order.sites[self.site : self.site + k])] = 0

    def run(self, choose: Callable[[int, Conditional], Tensor]) -> Tensor:
        """Let ``choose(site, conditional) -> (n,)`` settle every site that is left; (n, *shape) symbols."""
        while not self.done:
            self.settle(choose(self.order.sites[self.site], self.conditional))
        return self.symbols
