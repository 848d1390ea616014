"""A latent-variable model: z from a top-down pass, then x from an ancestral model that sees what was decoded."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor, nn

from ancestral.core import Autoregressive, Context
from ancestral.draw import Draw, fresh_seed
from ancestral.latent.topdown import Choose, Descent, Noise, TopDown, given, mean
from ancestral.spec import DataSpec, Trained
from ancestral.symbols import DataError, check_context, check_symbols, check_tensor, ended

Latents = Mapping[str, Tensor] | Tensor  # of every group by name, or of the only one


@dataclass(frozen=True)
class Elbo:
    """log p(x) >= -(distortion + rate), example by example.

    Attributes:
        distortion: (n,) -log p(x | z) at one z drawn from the posterior, in nats.
        rate: (n,) KL(q(z | x) || p(z)), in nats.
        groups: the KL of every unit, (n, *latent) nats, by group.
        auxiliary: (n,) -log p(y(x) | z) in nats where the model has an auxiliary loss; it is no part of the bits of x.
    """

    distortion: Tensor
    rate: Tensor
    groups: Mapping[str, Tensor]
    auxiliary: Tensor | None = None

    @property
    def bound(self) -> Tensor:
        """(n,) the evidence lower bound of log p(x), in nats."""
        return -(self.distortion + self.rate)


class Auxiliary(nn.Module):
    """A second, factorised reading of the features: the likelihood of y(x), an image, a sound or counts that x determines.

    It shapes training (Lucas & Verbeek 2018, eq. 7) and is never counted in the bits of x.

    Args:
        likelihood: p(y | features), an `Autoregressive` with a factorised network.
        target: (n, *shape) symbols x to the symbols y.
        gain: what the features are multiplied by for y, whose scale may be another than that of x.
    """

    def __init__(self, likelihood: Autoregressive, target: Callable[[Tensor], Tensor], gain: float = 1.0) -> None:
        super().__init__()
        self.likelihood, self.target, self.gain = likelihood, target, gain

    def context(self, features: Context) -> Context:
        """What the likelihood of y sees of what z was decoded to."""
        grid = features.grid
        return features if grid is None or self.gain == 1 else replace(features, grid=grid * self.gain)

    def log_prob(self, x: Tensor, features: Context) -> Tensor:
        """(n,) log p(y(x) | features), in nats."""
        return self.likelihood.log_prob(self.target(x), self.context(features))


class Latent(Trained, nn.Module):
    """p(x) = integral of p(z) p(x | z): a `TopDown` and a likelihood that sees its features. Final.

    Args:
        topdown: prior, encoder and decoder.
        likelihood: any `Autoregressive` with the features as context; a factorised decoder is its trivial case.
        spec, config: what the data are, and what built the model.
        auxiliary: a second likelihood on the same features, for training alone.

    Example:
        >>> import ancestral
        >>> model = ancestral.build("vae", DataSpec("image", (1, 8, 8), levels=17), preset="tiny")
        >>> model.elbo(torch.zeros(2, 1, 8, 8, dtype=torch.long)).bound.shape
        torch.Size([2])
    """

    def __init__(
        self, topdown: TopDown, likelihood: Autoregressive, spec: DataSpec, config: Any = None, auxiliary: Auxiliary | None = None
    ) -> None:
        super().__init__()
        self.topdown, self.likelihood, self.auxiliary = topdown, likelihood, auxiliary
        self.spec, self.config = spec, config

    @property
    def anchor(self) -> Tensor:
        """A zero on the model's device and of its type."""
        return self.likelihood.anchor

    @property
    def conditional(self) -> bool:
        """Whether it takes labels: its configuration says so, or a top-down pass of your own."""
        return bool(getattr(self.config, "conditional", self.topdown.conditional))

    def descend(self, x: Tensor, choose: Choose, context: Context | None = None) -> Descent:
        """The top-down pass with (n, *shape) symbols as evidence.

        Raises:
            DataError: x does not fit the spec.
        """
        check_symbols(x, self.spec, context)
        return self.topdown.descend(choose, evidence=x, context=context)

    def elbo(self, x: Tensor, context: Context | None = None, seed: int = 0, rows: Sequence[int] | None = None) -> Elbo:
        """Rate and distortion of (n, *shape) symbols at one posterior sample each.

        Args:
            context: labels, for a conditional model.
            seed, rows: which noise; row i takes that of ``rows[i]`` (i by default).

        Raises:
            DataError: x does not fit the spec.
        """
        descent = self.descend(x, Noise(seed, range(len(x)) if rows is None else rows), context)
        groups = {group.name: group.kl for group in descent.groups}
        rate = torch.stack([kl.flatten(1).sum(1) for kl in groups.values()]).sum(0)
        auxiliary = None if self.auxiliary is None else -self.auxiliary.log_prob(x, descent.features)
        return Elbo(-self.likelihood.log_prob(x, descent.features), rate, groups, auxiliary)

    def forward(
        self, x: Tensor, context: Context | None = None, seed: int | None = None, rows: Sequence[int] | None = None
    ) -> Tensor:
        """(n,) lower bounds of log p(x), in nats, of `elbo`, by default with other noise each time: for what wraps a module."""
        return self.elbo(x, context, fresh_seed() if seed is None else seed, rows).bound

    def __getattr__(self, name: str) -> Any:
        if name in ("log_prob", "conditionals", "walk"):
            raise AttributeError(
                f"a model with latents has no {name}, because p(x) is an integral over z: elbo(x).bound is below log p(x),"
                " ancestral.objectives.iwae and ancestral.score bound it more tightly, and model.likelihood has p(x | z)"
            )
        return super().__getattr__(name)

    def encode(self, x: Tensor, context: Context | None = None) -> dict[str, Tensor]:
        """Posterior means of every group, (n, *latent), by name.

        Raises:
            DataError: x does not fit the spec.
        """
        return {group.name: group.z for group in self.descend(x, mean, context).groups}

    def by_group(self, z: Latents) -> Mapping[str, Tensor]:
        """Latents by the name of their group, which a tensor need not tell where there is but one.

        Raises:
            DataError: there is no tensor, or NaN or infinite values are in it.
            ValueError: there are several groups.
        """
        if not isinstance(z, Mapping):
            try:
                names = [stage.name for stage in self.topdown.generator().stages]
            except NotImplementedError as error:
                raise ValueError("which groups of latents this model has is not known: give a tensor of each by name") from error
            if len(names) > 1:
                raise ValueError(f"this model has latents in the groups {', '.join(names)}: give a tensor of each by its name")
            z = {names[0]: z}
        for name, values in z.items():
            check_tensor(values, f"z[{name!r}]")
            if not values.isfinite().all():
                raise DataError(f"z[{name!r}] holds NaN or infinite values; remove or replace them")
        return z

    def features(self, z: Latents, context: Context | None = None) -> Context:
        """What the likelihood sees of latents handed over, by group or those of the only one.

        Raises:
            ValueError: they are not those of this model.
        """
        check_context(context)
        z = self.by_group(z)
        return self.topdown.descend(given(z), context=context, n=len(next(iter(z.values()), ()))).features

    @torch.no_grad()
    def decode(self, z: Latents, context: Context | None = None, seed: int = 0, temperature: float = 1.0) -> Tensor:
        """(n, *shape) symbols drawn from p(x | z); where lengths vary as long as the network's own, filled up after their end."""
        return self._drawn(z, context, Draw(seed, temperature))

    @torch.no_grad()
    def reconstruct(self, x: Tensor, context: Context | None = None, seed: int = 0, temperature: float = 1.0) -> Tensor:
        """(n, *shape) symbols drawn from p(x' | z) at x's posterior mean: what z kept, the rest as the decoder imagines it.

        Where lengths vary there is room for as many symbols as x has, and at least the network's own length.
        """
        least = x.shape[1] if None in self.spec.shape else 0
        return self._drawn(self.encode(x, context), context, Draw(seed, temperature), least)

    def _drawn(self, z: Latents, context: Context | None, draw: Draw, least: int = 0) -> Tensor:
        z, likelihood = self.by_group(z), self.likelihood
        if least > (likelihood.network.shape[0] or 0):
            likelihood = Autoregressive(likelihood.network.arrange(shape=(least,)), likelihood.family, likelihood.spec)
        return ended(likelihood.walk(len(next(iter(z.values()), ())), self.features(z, context)).run(draw), self.spec)


def needs_latents(model: Autoregressive | Latent, what: str) -> Latent:
    """The model, known to have latents.

    Raises:
        ValueError: it has none.
    """
    if isinstance(model, Autoregressive):
        raise ValueError(f"{what} is for models with latents, and this one has none: take a VAE such as agave")
    return model  # or what torch.compile made of one
