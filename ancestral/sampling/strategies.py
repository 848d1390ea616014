"""What sampling needs beyond `Draw`: models made ready, what each row of a run sees, and draws for rows in any order."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace

import torch
from torch import Tensor, nn

from ancestral.core import Autoregressive, Conditional, Context, DataError, Network
from ancestral.draw import Draw, uniforms
from ancestral.latent.latent import Latent
from ancestral.latent.topdown import Noise
from ancestral.objectives import label_context

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


def needs_latents(model: Model, what: str) -> Latent:
    """The model, known to have latents.

    Raises:
        ValueError: it has none.
    """
    if isinstance(model, Latent):
        return model
    raise ValueError(f"{what} moves through latents, and an autoregressive model by itself has none: take a VAE such as agave")


def context_of(model: Model, n: int, labels: Sequence[int] | Tensor | None, context: Context | None) -> Context | None:
    """What n rows are conditioned on: (n,) labels or a context, checked, on the model's device.

    Raises:
        ValueError: both are given, their rows are not n, or the model was built without labels.
    """
    like = model.anchor
    if labels is not None and context is not None:
        raise ValueError("labels and context were both given: put the labels into the context, or leave it out")
    if labels is not None:
        if getattr(model.config, "conditional", None) is False:
            raise ValueError("labels were given, but the model was built without them (conditional=False)")
        context = label_context(torch.as_tensor(labels, device=like.device), model.spec, like)
    if context is not None:
        context = context.map(lambda part: part.to(like.device))
        context.map(lambda part: _rows(part, n, "labels" if labels is not None else "the context"))
    return context


@dataclass(frozen=True)
class Rows:
    """What the likelihood sees in each of n rows: their context and, of a latent-variable model, the features of their z.

    Attributes:
        model, n, context: whose rows, how many, and their (n, ...) context.
        z: (n, *latent) values by group; None draws them from the prior.
        seed, first_row: the noise of that prior; row i takes that of row ``first_row + i``.
        temperature: scales the spread of z.
    """

    model: Model
    n: int
    context: Context | None = None
    z: Mapping[str, Tensor] | None = None
    seed: int = 0
    first_row: int = 0
    temperature: float = 1.0

    def __post_init__(self) -> None:
        if self.n < 1:
            raise ValueError(f"n is {self.n}; ask for at least 1")
        if not self.temperature >= 0:
            raise ValueError(f"z_temperature is {self.temperature}; it must be at least 0 (0 takes the prior's median)")
        if self.z is not None:
            needs_latents(self.model, "z")
            for name, values in self.z.items():
                _rows(values, self.n, f"z[{name!r}]")

    def batches(self, size: int) -> Iterator[tuple[range, Context | None]]:
        """Ranges of at most ``size`` rows, with what the likelihood sees in them."""
        if size < 1:
            raise ValueError(f"batch_size is {size}; it must be at least 1")
        for start in range(0, self.n, size):
            rows = range(start, min(start + size, self.n))
            yield rows, self._seen(rows)

    def _seen(self, rows: range) -> Context | None:
        like = self.model.anchor
        here = torch.arange(rows.start, rows.stop, device=like.device)
        context = self.context and self.context.select(here)
        if not isinstance(self.model, Latent):
            return context
        if self.z is not None:
            return self.model.features({name: values.to(like).index_select(0, here) for name, values in self.z.items()}, context)
        keys = range(self.first_row + rows.start, self.first_row + rows.stop)
        noise = Noise(self.seed, keys, self.temperature, prior=True)
        return self.model.topdown.descend(noise, context=context, n=len(rows)).features


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


def counted(choose: Choose, progress: Progress | None, before: int, total: int) -> Choose:
    """A chooser that reports (symbols settled, of how many); without ``progress`` it is left alone."""
    if progress is None:
        return choose
    done = before

    def choose_and_tell(site: int, conditional: Conditional) -> Tensor:
        nonlocal done
        symbols = choose(site, conditional)
        done += len(symbols)
        progress(done, total)
        return symbols

    return choose_and_tell


def check_prefix(known: Tensor, network: Network) -> None:
    """Raise ``DataError`` where, in a row of (n, *shape) booleans, a known site comes after an unknown one in the order."""
    settled = known.flatten(1)[:, list(network.order.sites)]
    late = (settled[:, 1:] & ~settled[:, :-1]).nonzero()
    if len(late):
        row, place = late[0].tolist()
        site = torch.unravel_index(torch.tensor(network.order.sites[place + 1]), network.shape)
        raise DataError(
            f"row {row} knows site {tuple(int(i) for i in site)}, which comes after an unknown one in the order of this model."
            " Evidence after a hole needs a model of any order or sequential Monte Carlo, which are not offered yet; known sites"
            " must come before all unknown ones, as the top rows of an image do"
        )
