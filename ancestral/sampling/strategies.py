"""What sampling needs beyond `Draw`: models made ready, what each row of a run sees, and draws for rows in any order."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import overload

import torch
from torch import Tensor, nn

from ancestral.core import Autoregressive, Conditional, Context, Network, OrderError
from ancestral.draw import Draw, Handed, uniforms
from ancestral.latent.codes import CodePrior, coded
from ancestral.latent.latent import Latent, Latents, needs_latents
from ancestral.latent.topdown import Descent, Noise, Symbols, given, placed
from ancestral.objectives import label_context
from ancestral.spec import Order, check_real, check_whole
from ancestral.symbols import DataError, check_context, check_symbols
from ancestral.walking.engines import lowered

Model = Autoregressive | Latent
Progress = Callable[[int, int], None]
Choose = Callable[[int, Conditional], Tensor]


class Interrupted(KeyboardInterrupt):
    """Ctrl-C while samples were drawn.

    Attributes:
        complete: (m, *shape) the first rows, which were done by then.
        n: how many had been asked for.
    """

    def __init__(self, complete: Tensor, n: int) -> None:
        super().__init__(f"interrupted after {len(complete):,} of {n:,} samples")
        self.complete, self.n = complete, n


@contextmanager
def inference(model: nn.Module) -> Iterator[None]:
    """Evaluation mode without gradients; afterwards every submodule is back in the mode that it was in."""
    modes = [(module, module.training) for module in model.modules()]
    model.eval()
    try:
        with torch.no_grad():
            yield
    finally:
        for module, training in modes:
            module.training = training


def likelihood_of(model: Model) -> Autoregressive:
    """What gives the symbols their distributions: the model itself, or what stands behind its latents."""
    return model.likelihood if isinstance(model, Latent) else model


def needs_numbers(model: Model, what: str) -> Latent:
    """The model, known to have latents that are numbers, between which there are others.

    Raises:
        ValueError: it has none, or x leaves no choice of them.
    """
    latent = needs_latents(model, what)
    if coded(latent):
        pictures = latent.topdown.shows is not None
        those = "an image of whole numbers that x determines" if pictures else "codes, with nothing in between"
        anew = "" if pictures else ", or complete(model.topdown.prior, codes, known) to draw some codes anew"
        raise ValueError(f"{what} moves through latents that are numbers, and those of this model are {those}: take a VAE{anew}")
    return latent


@overload
def arrange(model: Autoregressive, order: Order | str | None = None, shape: Sequence[int] | None = None) -> Autoregressive: ...
@overload
def arrange(model: Model, order: Order | str | None = None, shape: Sequence[int] | None = None) -> Model: ...
def arrange(model: Model, order: Order | str | None = None, shape: Sequence[int] | None = None) -> Model:
    """The same model, its weights shared, for symbols settled in another order or examples of another shape.

    Convolutional and recurrent models of images take any height and width, larger than in training too, and the eight
    symmetries of the raster order; those of any order take every `Order`. What was learned of one size or order need not hold
    in another.

    Models with latents take other lengths where z is of a sequence as a whole.

    Raises:
        OrderError: no such order, the network cannot, or there are latents that belong to one shape or one order.

    Example:
        >>> import ancestral
        >>> model = ancestral.build("row-lstm", ancestral.DataSpec("image", (1, 4, 4), levels=2), preset="tiny")
        >>> arrange(model, "columns-leftward", (1, 6, 9)).log_prob(torch.zeros(2, 1, 6, 9, dtype=torch.long)).shape
        torch.Size([2])
    """
    if not (order is None or isinstance(order, Order | str)):
        raise OrderError(f"the order is {order!r}; give an Order of all sites, Order((2, 0, 1, ...)), or the name of one")
    made: Model
    if isinstance(model, Latent):
        if order is not None:
            raise OrderError("the latents of this model belong to one order: only models without take others")
        if shape is None:
            return model
        topdown, likelihood = model.topdown.arranged(tuple(shape)), arrange(model.likelihood, shape=shape)
        alike = None in model.spec.shape or tuple(shape) == model.spec.shape
        auxiliary = model.auxiliary if alike else None  # y may be of one length, and it is for training alone
        made = Latent(topdown, likelihood, replace(model.spec, shape=tuple(shape)), model.config, auxiliary)
    else:
        own = order is None and (shape is None or tuple(shape) == model.network.shape)
        network = model.network if own else model.network.arrange(order, None if shape is None else tuple(shape))
        spec = model.spec if shape is None else replace(model.spec, shape=tuple(shape))
        made = Autoregressive(network, model.family, spec, model.config)
    made.units, made.notation = model.units, model.notation
    return made


def sized(model: Model, shape: Sequence[int] | None = None) -> Model:
    """The model for examples of one shape: that which is given, else its own, and that of its network where lengths vary.

    Raises:
        OrderError: its network cannot take that shape.
    """
    if shape is None:
        shape = likelihood_of(model).network.shape
    return model if tuple(shape) == model.spec.shape else arrange(model, shape=shape)


def lasting(model: Model, sites: int) -> Model:
    """The model for sequences as long as its network's own, or of so many symbols if those are more, where lengths vary.

    Raises:
        OrderError: its network cannot take so many.
    """
    return sized(model, (max(likelihood_of(model).network.shape[0], sites),)) if None in model.spec.shape else model


def prompted(likelihood: Autoregressive, prompt: Tensor | Sequence[int], n: int) -> tuple[Tensor, Tensor]:
    """What is known of n rows that begin with a prompt: (n, *shape) symbols, and booleans that are True at its sites.

    Args:
        prompt: (k,) or (n, k) symbols of the first k sites in the order of the walk.

    Raises:
        DataError: the prompt does not fit the model, or holds the symbol that ends an example.
    """
    network, spec = likelihood.network, likelihood.spec
    if isinstance(prompt, str):
        raise DataError(
            f"the prompt is the string {prompt!r}: write it in symbols, notation.encode(prompt) of the data or the run"
        )
    given = torch.as_tensor(prompt, device=likelihood.anchor.device)
    given = given if given.numel() else given.long()  # an empty list has no type
    given = given.expand(n, -1) if given.dim() == 1 else given
    if given.dim() != 2 or len(given) != n or given.shape[1] > len(network.order.sites):
        raise DataError(
            f"a prompt of shape {tuple(given.shape)} is not (k,) or ({n}, k) with k at most {len(network.order.sites)}, the"
            " symbols of an example"
        )
    if spec.end is not None and (given == spec.end).any():
        raise DataError(f"the prompt holds {spec.end}, the symbol that ends an example: leave it out")
    x = torch.zeros(n, network.shape.numel(), dtype=given.dtype, device=given.device)
    sites = list(network.order.sites[: given.shape[1]])
    x[:, sites], known = given, torch.zeros_like(x, dtype=torch.bool)
    known[:, sites] = True
    x = x.view(n, *network.shape)
    check_symbols(x, spec)
    return x, known.view_as(x)


def context_of(model: Model, n: int, labels: Sequence[int] | Tensor | None, context: Context | None) -> Context | None:
    """What n rows are conditioned on: (n,) labels or a context, checked, on the model's device.

    Raises:
        ValueError: both are given, their rows are not n, or the model was built without labels.
    """
    like = model.anchor
    if labels is not None and context is not None:
        raise ValueError("labels and context were both given: put the labels into the context, or leave it out")
    if labels is not None:
        if not model.conditional:
            own = "its network does not say that it takes them (conditional = True)"
            how = own if model.config is None else "the model was built without them (conditional=False)"
            raise ValueError(f"labels were given, but {how}")
        context = label_context(torch.as_tensor(labels, device=like.device), model.spec, like)
    if context is not None:
        check_context(context)
        context = context.map(lambda part: part.to(like.device))
        context.map(lambda part: _rows(part, n, "labels" if labels is not None else "the context"))
    return context


@dataclass
class Walking(Noise):
    """Noise for whose codes an engine walks."""

    engine: str = "eager"

    def symbols(self, chosen: Symbols, u: Tensor) -> Tensor:
        fast = lowered(chosen.model, self.engine, len(u)) if isinstance(chosen, CodePrior) else None
        if fast is not None and isinstance(chosen, CodePrior):
            draw = Handed(temperature=self.temperature, u=u.flatten(1))
            drawn = fast.run(len(u), chosen.context, chosen.model.family, draw)
            if drawn is not None:
                return drawn
        return super().symbols(chosen, u)


@dataclass(frozen=True)
class Rows:
    """What the likelihood sees in each of n rows: their context and, of a latent-variable model, the features of their z.

    Attributes:
        model, n, context: whose rows, how many, and their (n, ...) context.
        z: (n, *latent) values by group, or those of the only one; None draws them from the prior.
        seed, first_row: the noise of that prior; row i takes that of row ``first_row + i``.
        temperature: scales the spread of z.
        engine: what carries walks over codes out, where z is made of them; see `sample`.
    """

    model: Model
    n: int
    context: Context | None = None
    z: Latents | None = None
    seed: int = 0
    first_row: int = 0
    temperature: float = 1.0
    engine: str = "eager"

    def __post_init__(self) -> None:
        check_whole(n=self.n, first_row=self.first_row)
        if self.n < 1:
            raise ValueError(f"n is {self.n}; ask for at least 1")
        check_real(z_temperature=self.temperature)
        if not self.temperature >= 0:
            raise ValueError(f"z_temperature is {self.temperature}; it must be at least 0 (0 takes the prior's median)")
        if self.z is not None:
            z = needs_latents(self.model, "z").by_group(self.z)
            object.__setattr__(self, "z", z)
            for name, values in z.items():
                _rows(values, self.n, f"z[{name!r}]")

    def batches(self, size: int) -> Iterator[tuple[range, Context | None]]:
        """Ranges of at most ``size`` rows, with what the likelihood sees in them."""
        check_whole(batch_size=size)
        if size < 1:
            raise ValueError(f"batch_size is {size}; it must be at least 1")
        for start in range(0, self.n, size):
            rows = range(start, min(start + size, self.n))
            yield rows, self._seen(rows)

    def latents(self, model: Latent, name: str, size: int) -> Tensor:
        """(n, *latent) z of a group, as given or drawn."""
        if isinstance(self.z, Mapping):
            return placed(self.z[name], model.anchor)
        parts = []
        for start in range(0, self.n, size):
            rows = range(start, min(start + size, self.n))
            here = torch.arange(rows.start, rows.stop, device=model.anchor.device)
            groups = self.descended(model, rows, self.context and self.context.select(here)).groups
            parts += [group.z for group in groups if group.name == name]
        return torch.cat(parts)

    def _seen(self, rows: range) -> Context | None:
        here = torch.arange(rows.start, rows.stop, device=self.model.anchor.device)
        context = self.context and self.context.select(here)
        return self.descended(self.model, rows, context).features if isinstance(self.model, Latent) else context

    def descended(self, model: Latent, rows: range, context: Context | None) -> Descent:
        """The z of these rows, as given or drawn, and what is decoded of them."""
        if isinstance(self.z, Mapping):
            here = given({name: placed(z[rows.start : rows.stop], model.anchor) for name, z in self.z.items()})
            return model.topdown.descend(here, context=context, n=len(rows))
        keys = range(self.first_row + rows.start, self.first_row + rows.stop)
        return model.topdown.descend(self._noise(keys), context=context, n=len(rows))

    def _noise(self, keys: range) -> Noise:
        """What draws z of the rows of these numbers."""
        return Walking(self.seed, keys, self.temperature, prior=True, engine=self.engine)


def _rows(part: Tensor, n: int, what: str) -> Tensor:
    if part.dim() == 0 or len(part) != n:
        raise ValueError(f"{what} has shape {tuple(part.shape)} for {n} rows: give one entry a row")
    return part


class Recomputed(Network):
    """A network with the `start` and `step` that every `Network` has: a whole forward pass for each symbol."""

    def __init__(self, network: Network) -> None:
        super().__init__(tuple(network.shape), network.discrete)
        self.network, self.order, self.anchor = network, network.order, network.anchor

    def forward(self, x: Tensor, context: Context | None = None) -> Tensor:
        y: Tensor = self.network(x, context)
        return y


def part_of(draw: Draw, rows: range) -> Draw:
    """The draw of some rows of a run, and of what is known in them."""
    known = draw.known and (draw.known[0][rows.start : rows.stop], draw.known[1][rows.start : rows.stop])
    return replace(draw, first_row=draw.first_row + rows.start, known=known)


def draw_rows(draw: Draw, rows: Sequence[int], sites: int, device: torch.device) -> Choose:
    """The chooser of a draw for rows in any order, with repetitions: rows of one number get the same uniforms."""
    u = uniforms(draw.seed, rows, sites).T.contiguous().to(device)
    return lambda site, conditional: draw.choose(conditional, u[site])


def telling(progress: Progress | None, rows: range, n: int, sites: int) -> Callable[[int], None] | None:
    """What takes how many symbols each of some rows of a run has, and tells (symbols settled, of how many) of all n rows."""
    return None if progress is None else lambda settled: progress(sites * rows.start + len(rows) * settled, sites * n)


def prefixes(known: Tensor, network: Network) -> Tensor:
    """(n,) whether, in that row of (n, *shape) booleans, all known sites come before all unknown ones in the order."""
    settled = known.flatten(1)[:, list(network.order.sites)]
    return ~(settled[:, 1:] & ~settled[:, :-1]).any(1)


def known_first(known: Tensor, order: Order) -> Order:
    """The order with the known sites of (*shape) booleans before all others, either kind in the order that it had."""
    mask = known.flatten().tolist()
    return Order(tuple(sorted(order.sites, key=lambda site: not mask[site])))  # sorting is stable


@dataclass
class Scattered(Draw):
    """A draw for rows whose numbers do not follow each other: row i takes the uniforms of row ``rows[first_row + i]``."""

    rows: Sequence[int] = ()

    def uniforms(self, n: int, sites: int) -> Tensor:
        """(n, sites) the uniforms of n rows, by the place of a site in the flattened example."""
        return uniforms(self.seed, self.rows[self.first_row : self.first_row + n], sites)
