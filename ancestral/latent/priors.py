"""What z is before x is seen: standard normal and logistic, mixtures, autoregressive flows, and chains that commit a rate.

The standard ones and the chain are as they are; mixtures and flows are learned, and take labels as posteriors do.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from math import log, log1p, prod
from typing import TypeVar

import torch
from torch import Tensor, nn
from torch.distributions import Distribution, Normal, register_kl
from torch.nn import functional

from ancestral.families import NormalMixture
from ancestral.families.base import thirds
from ancestral.families.normal import normal_log_prob
from ancestral.latent.configs import EncoderFields
from ancestral.latent.flows import ForwardFlow, Steps, Undone
from ancestral.latent.generation import Stage, Step
from ancestral.latent.topdown import Mapped

Made = TypeVar("Made")


def normal(location: Tensor, scale: Tensor) -> Normal:
    """Independent normals."""
    return Normal(location, scale, validate_args=False)


class Logistic(Distribution):
    """Independent logistic densities of (n, ...) locations and scales; the standard deviation is pi / sqrt(3) scales.

    Example:
        >>> Logistic(torch.zeros(1), torch.ones(1)).log_prob(torch.zeros(1))
        tensor([-1.3863])
    """

    arg_constraints = {}  # noqa: RUF012  (torch wants a mapping there)

    def __init__(self, location: Tensor, scale: Tensor) -> None:
        super().__init__(location.shape, validate_args=False)
        self.location, self.scale = location, scale

    @property
    def mean(self) -> Tensor:
        """The locations."""
        return self.location

    def icdf(self, value: Tensor) -> Tensor:
        """Quantiles of uniforms, one a unit."""
        return self.location + self.scale * torch.logit(value)

    def log_prob(self, value: Tensor) -> Tensor:
        """Log-density of every unit, in nats."""
        x = (value - self.location) / self.scale
        return functional.logsigmoid(x) + functional.logsigmoid(-x) - self.scale.log()


class Mixture(Distribution):
    """Units by themselves, each a mixture of K normals; drawn without gradient, by bisection.

    Args:
        parameters: (n, *shape, 3 K) [logits, means, log-scales], as `NormalMixture` has them.
    """

    arg_constraints = {}  # noqa: RUF012  (torch wants a mapping there)

    def __init__(self, parameters: Tensor) -> None:
        super().__init__(parameters.shape[:-1], validate_args=False)
        self.parameters, self.family = parameters, NormalMixture(parameters.shape[-1] // 3)

    @property
    def mean(self) -> Tensor:
        """The mean of every unit."""
        logits, means, _ = thirds(self.parameters, self.family.components)
        return (logits.softmax(-1) * means).sum(-1)

    @torch.no_grad()
    def icdf(self, value: Tensor) -> Tensor:
        """Quantiles of uniforms, one a unit."""
        return self.family.quantile(self.parameters, value)

    def log_prob(self, value: Tensor) -> Tensor:
        """Log-density of every unit, in nats."""
        return self.family.log_prob(self.parameters, value)


class Chain(Mapped):
    """z_t = alpha z_{t-1} + sqrt(1 - alpha^2) e_t, every z_t standard normal by itself (Razavi et al. 2019, "delta-VAEs").

    The d units of (n, d) latents follow one another; of (n, d, H, W) ones each map is a chain of its own, in raster order.

    Args:
        base: the standard normal e, (n, *shape).
        alpha: the correlation of neighbours, from 0 to below 1.
    """

    def __init__(self, base: Distribution, alpha: float) -> None:
        super().__init__(base)
        self.alpha = alpha
        self.scale = torch.full_like(base.mean, (1 - alpha**2) ** 0.5)
        self._along(self.scale)[..., 0] = 1  # the first has nobody before it

    def carried(self, noise: Tensor) -> Tensor:
        """Chains of (n, *shape) standard normal numbers."""
        first, *rest = self._along(noise * self.scale).unbind(-1)
        z = [first]
        for step in rest:
            z.append(step + self.alpha * z[-1])
        return torch.stack(z, -1).view_as(noise)

    def log_prob(self, value: Tensor) -> Tensor:
        """log p(z_t | z_{t-1}) of every unit, in nats."""
        return normal_log_prob(value, self.alpha * self.before(value), self.scale.log())

    def before(self, z: Tensor) -> Tensor:
        """The unit before each, 0 before the first."""
        return functional.pad(self._along(z)[..., :-1], (1, 0)).view_as(z)

    @staticmethod
    def _along(z: Tensor) -> Tensor:
        return z.flatten(2) if z.dim() > 2 else z


@register_kl(Normal, Chain)  # type: ignore[no-untyped-call, untyped-decorator]
def _from_normals_to_chain(q: Normal, p: Chain) -> Tensor:
    """E_q[log q(z_t) - log p(z_t | z_{t-1})] of every unit, z_t and z_{t-1} being independent under q."""
    off = (q.loc - p.alpha * p.before(q.loc)).square() + q.scale.square() + (p.alpha * p.before(q.scale)).square()
    return (off / p.scale.square() - 1) / 2 + p.scale.log() - q.scale.log()


def committed_rate(n: int, alpha: float) -> float:
    """The least KL, in nats, of any n independent normals from a `Chain` of n (Razavi et al. 2019, section 2.1).

    Raises:
        ValueError: no unit, or a correlation that is not from 0 to below 1.

    Example:
        >>> round(committed_rate(8, 0.9), 7)
        2.6103461
    """
    _check_correlation(alpha)
    if n < 1:
        raise ValueError(f"n is {n}; a chain has at least 1 unit")
    return ((n - 2) * log1p(alpha**2) - log(1 - alpha**2)) / 2 if n > 1 else 0.0


def _check_correlation(alpha: float) -> None:
    if not 0 <= alpha < 1:
        raise ValueError(f"the correlation of neighbouring units is {alpha}; it must be at least 0 and below 1")


class Prior(nn.Module, ABC):
    """p(z), given labels where there are some."""

    @abstractmethod
    def forward(self, zeros: Tensor, vector: Tensor | None) -> Distribution:
        """The distribution of latents of the shape, type and device of ``zeros``, with (n, vector) labels or none."""

    @abstractmethod
    def stage(self, name: str, shape: tuple[int, ...], merge: nn.Module) -> Stage:
        """The same for files: a group of this name, whose z of this shape ``merge`` takes."""


class Standard(Prior):
    """Independent units of location 0 and scale 1, whatever the labels are.

    Args:
        kind: (locations, scales) to a distribution.
    """

    def __init__(self, kind: Callable[[Tensor, Tensor], Distribution]) -> None:
        super().__init__()
        self.kind = kind

    def forward(self, zeros: Tensor, vector: Tensor | None) -> Distribution:
        return self.kind(zeros, zeros + 1)

    def stage(self, name: str, shape: tuple[int, ...], merge: nn.Module) -> Stage:
        return Stage(name, shape, merge, law="normal" if self.kind is normal else "logistic")


class MixturePrior(Prior):
    """A learned mixture of normals for every unit, of a grid for every map; labels shift all its parameters.

    It starts near the standard normal: components of equal weight and scale, at the quantiles of it.

    Args:
        units: d, of a vector or of each cell of a grid.
        components: K.
        vector: size of a label's vector, 0 for none.
    """

    def __init__(self, units: int, components: int, vector: int = 0) -> None:
        super().__init__()
        means = torch.special.ndtri((torch.arange(components) + 0.5) / components)
        spread = (1 - means.square().mean()).clamp_min(0.01).log() / 2  # so that the variance is 1 altogether
        start = torch.stack([torch.zeros(components), means, spread.expand(components)])
        self.numbers = nn.Parameter(start.flatten().repeat(units, 1))
        self.label = nn.Linear(vector, self.numbers.numel(), bias=False) if vector else None
        if self.label is not None:
            nn.init.zeros_(self.label.weight)

    def forward(self, zeros: Tensor, vector: Tensor | None) -> Distribution:
        numbers = self.numbers[None]
        if self.label is not None and vector is not None:
            numbers = numbers + self.label(vector).view(-1, *self.numbers.shape)
        places = zeros.dim() - 2
        return Mixture(numbers.view(*numbers.shape[:2], *[1] * places, -1).expand(*zeros.shape, -1))

    def stage(self, name: str, shape: tuple[int, ...], merge: nn.Module) -> Stage:
        """As for others, but without the labels: files take the mixture that is there without them."""
        return Stage(name, shape, merge, mixture=self.numbers.view(len(self.numbers), *[1] * (len(shape) - 1), -1))


class FlowPrior(Prior):
    """An autoregressive flow from z to standard normal noise (Chen et al. 2017); its steps see the labels.

    Args:
        shape: of z.
        fields: ``prior_steps`` and the other sizes of the steps.
        vector: size of a label's vector, 0 for none.
    """

    def __init__(self, shape: tuple[int, ...], fields: EncoderFields, vector: int = 0) -> None:
        super().__init__()
        sizes = (fields.prior_steps, fields.prior_width, fields.prior_layers)
        self.steps = Steps(shape, *sizes, vector, fields.prior_mean_only)

    def forward(self, zeros: Tensor, vector: Tensor | None) -> Distribution:
        context = None if vector is None else vector.view(*vector.shape, *[1] * (zeros.dim() - 2))
        return ForwardFlow(normal(zeros, zeros + 1), self.steps, context)

    def stage(self, name: str, shape: tuple[int, ...], merge: nn.Module) -> Stage:
        return Stage(name, shape, merge, tuple(Step(Undone(step), causal=True) for step in reversed(list(self.steps))))  # type: ignore[arg-type]


class ChainPrior(Prior):
    """A `Chain`: posteriors of independent normals stay `committed_rate` or more away from it, so z is never idle.

    So does any posterior of independent units; an inverse flow need not, as its units may depend on each other.

    Args:
        alpha: the correlation of neighbours.

    Raises:
        ValueError: it is not from 0 to below 1.
    """

    def __init__(self, alpha: float) -> None:
        super().__init__()
        _check_correlation(alpha)
        self.alpha = alpha

    def forward(self, zeros: Tensor, vector: Tensor | None) -> Distribution:
        return Chain(normal(zeros, zeros + 1), self.alpha)

    def stage(self, name: str, shape: tuple[int, ...], merge: nn.Module) -> Stage:
        if prod(shape[1:] or shape) == 1:  # chains of one unit, which has nobody before it
            return Stage(name, shape, merge)
        return Stage(name, shape, merge, (Step(Link(self.alpha, shape), causal=True),))


class Link(nn.Module):
    """A `Chain` as a step for files: where a unit lies given the one before it, and the log of its scale.

    Args:
        alpha: the correlation of neighbours.
        shape: of z.
    """

    def __init__(self, alpha: float, shape: tuple[int, ...]) -> None:
        super().__init__()
        chain = Chain(normal(torch.zeros(1, *shape), torch.ones(1, *shape)), alpha)
        self.shape, self.alpha = shape, alpha
        self.log_scale = nn.Buffer(chain.scale[0].log(), persistent=False)

    def forward(self, h: Tensor | None, z: Tensor, vector: Tensor | None) -> Tensor:
        along = z if len(self.shape) == 1 else z.flatten(2)
        location = functional.pad(along[..., :-1], (1, 0)).view(len(z), *self.shape) * self.alpha
        return torch.cat([location, location * 0.0 + self.log_scale], 1)


PRIORS: dict[str, Callable[[tuple[int, ...], EncoderFields, int], Prior]] = {
    "normal": lambda shape, fields, vector: Standard(normal),
    "logistic": lambda shape, fields, vector: Standard(Logistic),
    "mixture": lambda shape, fields, vector: MixturePrior(shape[0], fields.prior_components, vector),
    "flow": FlowPrior,
    "delta": lambda shape, fields, vector: ChainPrior(fields.prior_correlation),
}


def prior_of(fields: EncoderFields, shape: tuple[int, ...], vector: int = 0) -> Prior:
    """The prior that a configuration names, of (n, *shape) latents.

    Args:
        vector: size of a label's vector, 0 for none.

    Raises:
        ValueError: there is none of that name, or its sizes make no sense.
    """
    return choice("prior", fields.prior, PRIORS)(shape, fields, vector)


def choice(what: str, name: str, table: Mapping[str, Made]) -> Made:
    """What a table has under a name.

    Raises:
        ValueError: nothing.
    """
    if name not in table:
        raise ValueError(f"there is no {what} {name!r}; there are: {', '.join(table)}")
    return table[name]
