"""A top-down pass over groups of latents: the twin of a walk, with z in place of symbols.

`descend` visits the groups from the top; at each one ``choose`` is shown the prior and, where there is evidence, the
posterior, and settles z. Inference, generation, decoding and coding are this one pass; they differ in ``choose``.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from math import prod

import torch
from torch import Tensor, nn
from torch.distributions import Distribution, kl_divergence

from ancestral.core import Context, OrderError
from ancestral.draw import uniforms
from ancestral.latent.generation import Generator


class Mapped(Distribution, ABC):
    """What becomes of independent units when a map carries them somewhere else: flows and chains.

    Args:
        base: units by themselves, (n, *shape), with ``mean``, ``icdf`` and ``log_prob``.
    """

    arg_constraints = {}  # noqa: RUF012  (torch wants a mapping there)

    def __init__(self, base: Distribution) -> None:
        super().__init__(base.batch_shape, validate_args=False)
        self.base = base

    @abstractmethod
    def carried(self, noise: Tensor) -> Tensor:
        """(n, *shape) values of the base to values of this."""

    @property
    def mean(self) -> Tensor:
        """The centre: where the mean of the base goes."""
        return self.carried(self.base.mean)

    def icdf(self, value: Tensor) -> Tensor:
        """(n, *shape) uniforms, one a unit, to draws: where the quantiles of the base go."""
        return self.carried(self.base.icdf(value))


class Symbols(Distribution, ABC):
    """A distribution of whole numbers, such as the codes of a quantiser: they are drawn, and have no mean and no spread."""

    arg_constraints = {}  # noqa: RUF012  (torch wants a mapping there)

    @property
    def levels(self) -> int | None:
        """How many whole numbers a unit can be, from 0 on; None where that is not known."""
        return None

    @abstractmethod
    def drawn(self, u: Tensor, temperature: float = 1.0) -> Tensor:
        """(n, *shape) uniforms, one a unit, to symbols.

        Args:
            temperature: log-probabilities of every unit given those before it are divided by it; 0 takes the most probable.
        """

    @property
    def mean(self) -> Tensor:
        """The centre: of every unit, in turn, the most probable symbol given those before it."""
        return self.drawn(torch.full(self.batch_shape, 0.5, dtype=torch.float64), 0.0)

    def icdf(self, value: Tensor) -> Tensor:
        """(n, *shape) uniforms, one a unit, to draws."""
        return self.drawn(value)


@dataclass(frozen=True)
class Group:
    """One group of latents as it was settled.

    Attributes:
        name: how reports call it.
        z: (n, *latent) what was chosen.
        prior, posterior: p(z | groups above) and q(z | x, groups above); the posterior is None without evidence.
    """

    name: str
    z: Tensor
    prior: Distribution
    posterior: Distribution | None

    @cached_property
    def log_p(self) -> Tensor:
        """log p(z) of every unit, in nats, with z's shape where the prior factorises."""
        return self.prior.log_prob(self.z)

    @cached_property
    def log_q(self) -> Tensor:
        """log q(z | x) of every unit, in nats, likewise."""
        if self.posterior is None:
            raise ValueError(f"group {self.name!r} was settled without evidence, so it has no posterior")
        return self.posterior.log_prob(self.z)

    @cached_property
    def kl(self) -> Tensor:
        """KL(q || p) of every unit in nats: the closed form where there is one, else log q - log p at z.

        Of an autoregressive prior that offers ``conditioned(z)``, the closed form of every unit given the units of z before it.
        """
        if self.posterior is None:
            raise ValueError(f"group {self.name!r} was settled without evidence, so it has no rate")
        conditioned = getattr(self.prior, "conditioned", None)  # of an autoregressive prior, factorised given z
        prior = self.prior if conditioned is None else conditioned(self.z)
        try:
            return kl_divergence(self.posterior, prior)
        except NotImplementedError:
            return self.log_q - self.log_p


@dataclass(frozen=True)
class Descent:
    """The outcome of a top-down pass: features for the likelihood, and every group from the top."""

    features: Context
    groups: list[Group]


Choose = Callable[[str, Distribution, Distribution | None], Tensor]


class TopDown(nn.Module, ABC):
    """Prior, encoder and decoder of a latent-variable model.

    Attributes:
        certain: whether z is whole numbers of which x leaves no choice.
        shows: the name of a group whose z is a picture itself; see ``pictured``.
        conditional: whether ``context.vector`` holds labels of the data; as `Network` has it.
    """

    certain: bool = False
    shows: str | None = None
    conditional: bool = False

    @abstractmethod
    def descend(
        self, choose: Choose, evidence: Tensor | None = None, context: Context | None = None, n: int | None = None
    ) -> Descent:
        """Settle every group of z by ``choose(name, prior, posterior)``, then decode.

        Args:
            evidence: (n, *shape) symbols x that the posteriors look at; None for the prior alone.
            context: labels for prior, posterior and likelihood.
            n: how many rows to draw where neither evidence nor context tells.
        """

    def arranged(self, shape: tuple[int, ...]) -> TopDown:
        """The same for examples of another shape.

        Raises:
            OrderError: its latents belong to one.
        """
        sizes = " x ".join(map(str, shape))
        raise OrderError(
            f"the latents of this model belong to examples of the size it was trained on, not to ones of {sizes}: cut or pad them"
            " to that, or take a model without latents"
        )

    def generator(self) -> Generator:
        """The generative direction alone, for files.

        Raises:
            NotImplementedError: it was not taken apart, so files cannot be made with this model.
        """
        raise NotImplementedError(f"{type(self).__name__} has no generator()")

    def decided(self, x: Tensor, known: Tensor) -> dict[str, tuple[Tensor, Tensor]] | None:
        """What symbols decide of z where only some of them are known; None where they must all be.

        Args:
            x, known: (n, *shape) symbols, and booleans that are True where a symbol is known.

        Returns:
            By group (n, *latent) values, and booleans that are True where they are decided.
        """
        return None

    def pictured(self, z: Tensor) -> Tensor:
        """(n, C, h, w) the picture that z of the group ``shows`` is, on the scale of x and in float64.

        Raises:
            NotImplementedError: no group is one.
        """
        raise NotImplementedError(f"the latents of {type(self).__name__} are no picture")

    def numbers(self, name: str, z: Tensor) -> Tensor:
        """What z of a group says, as numbers of which means and distances make sense: of codes their vectors."""
        return z if z.is_floating_point() else z.float()


def rows_of(evidence: Tensor | None, vector: Tensor | None, n: int | None) -> int:
    """How many rows a pass settles: one for each example, or for each label, or n, or 1."""
    return len(evidence) if evidence is not None else len(vector) if vector is not None else n or 1


def seen(decoded: Tensor, vector: Tensor | None) -> Context:
    """What z was decoded to, as the likelihood takes it: maps beside the labels' vector, or numbers in its place."""
    return Context(vector=vector, grid=decoded) if decoded.dim() == 4 else Context(vector=decoded)


@dataclass
class Noise:
    """z as a quantile of uniforms that (seed, row, group) alone decide: reparameterised, and the same in any batch.

    Attributes:
        seed: which noise.
        rows: the global row of each row of the batch.
        temperature: scales the spread of what is drawn, of a flow that of its base, and of symbols divides log-probabilities; 0
            takes the centre.
        prior: draw from the prior even where there is a posterior.
    """

    seed: int
    rows: Sequence[int]
    temperature: float = 1.0
    prior: bool = False
    _groups: int = 0

    def __call__(self, name: str, prior: Distribution, posterior: Distribution | None) -> Tensor:
        self._groups += 1
        chosen = prior if posterior is None or self.prior else posterior
        if chosen.batch_shape[0] not in (1, len(self.rows)):
            raise ValueError(f"rows are {len(self.rows)} for a batch of {chosen.batch_shape[0]}: give the number of each row")
        shape = (len(self.rows), *chosen.batch_shape[1:])
        u = uniforms(self.seed, self.rows, prod(shape[1:]), stream=self._groups)
        if isinstance(chosen, Symbols):
            return self.symbols(chosen, u.view(shape))
        base = unmapped(chosen)
        centre = base.mean
        edge = torch.finfo(centre.dtype).eps / 2  # rounding must not bring u to 0 or 1, where z is infinite
        z = base.icdf(u.view(shape).to(centre).clamp(edge, 1 - edge))
        z = z if self.temperature == 1 else centre + self.temperature * (z - centre)
        return chosen.carried(z) if isinstance(chosen, Mapped) else z

    def symbols(self, chosen: Symbols, u: Tensor) -> Tensor:
        """Symbols of a distribution of them, at (n, *shape) uniforms."""
        return chosen.drawn(u, self.temperature)


def unmapped(distribution: Distribution) -> Distribution:
    """The units by themselves that a distribution is a map of, or the distribution."""
    return distribution.base if isinstance(distribution, Mapped) else distribution


def mean(name: str, prior: Distribution, posterior: Distribution | None) -> Tensor:
    """Settle z at the mean of the posterior, or of the prior where there is no evidence."""
    return (posterior or prior).mean


def placed(z: Tensor, like: Tensor) -> Tensor:
    """Latents where ``like`` is, and of its type unless they are whole numbers."""
    return z.to(like) if z.is_floating_point() else z.to(like.device)


def given(values: Mapping[str, Tensor]) -> Choose:
    """Settle every group at the values handed over, by name, of which codes are whole numbers in their range.

    Others may be numbers of any type, anywhere: they are taken as a draw from the prior would be.
    """

    def choose(name: str, prior: Distribution, posterior: Distribution | None) -> Tensor:
        if name not in values:
            raise ValueError(f"no values for the latent group {name!r}; there are {', '.join(values) or 'none'}")
        z, wanted = values[name], tuple(prior.batch_shape[1:])
        if tuple(z.shape[1:]) != wanted:
            raise ValueError(f"z[{name!r}] has shape {tuple(z.shape)}; the model takes (n, {', '.join(map(str, wanted))})")
        if isinstance(prior, Symbols):
            return z if prior.levels is None else _codes(name, z, prior.levels)
        return z.to(unmapped(prior).mean)

    return choose


def _codes(name: str, z: Tensor, levels: int) -> Tensor:
    """z as a quantiser and a prior of codes take it."""
    takes = f"it takes whole numbers 0 .. {levels - 1}"
    if z.is_floating_point() or z.dtype == torch.bool:
        raise ValueError(f"z[{name!r}] has type {z.dtype}; {takes}: z.long() makes them of numbers that are whole")
    if z.numel() and (int(z.min()) < 0 or int(z.max()) >= levels):
        raise ValueError(f"z[{name!r}] ranges over {int(z.min())} .. {int(z.max())}; {takes}, such as model.encode(x) gives")
    return z.long()
