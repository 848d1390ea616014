"""Autoregressive flows over latents: inverse flows (posteriors drawn in one pass) and forward flows (priors scored in one pass).

One step maps z to y = sigma * z + (1 - sigma) * m, where m and sigma of a unit see only the units before it (Kingma et al.
2016, "Improving Variational Inference with Inverse Autoregressive Flow", eqs. 12 to 14). From z to y it is one pass; from y to z
a unit needs the ones before it. Which end the noise stands at makes the difference:

    posterior   noise ──▶ base q(. | x) ──steps──▶ z            drawn in one pass, and what was drawn is scored with it
    prior       noise ◀──steps── z                              scored in one pass, drawn unit by unit (Chen et al. 2017)

A flow between prior and posterior may be counted at either of them: with the same noise both give the same bound.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable
from itertools import pairwise

import torch
from torch import Tensor, nn
from torch.distributions import Distribution
from torch.nn import functional

from ancestral.causal import GradedAffine, spread
from ancestral.latent.topdown import Mapped
from ancestral.networks.pixelcnn import MaskedWindow

NEAR_ONE = 2.0  # where s starts: sigma = sigmoid(2) = 0.88, so that a new step changes little
SMALL = 0.1  # what weights of the last layer start at, as a share of the usual size
FARTHEST = 1e6  # no latent lies beyond; keeps what a search for the inverse tries finite


class Step(nn.Module, ABC):
    """y_i = sigma_i z_i + (1 - sigma_i) m_i, where m_i and sigma_i = sigmoid(s_i) see only the z before i, and a context.

    Args:
        dims: the dimensions along which units follow one another.
        context_dims: the dimensions of the context that go with them.
        reverse: whether units follow one another from the last to the first.
        mean_only: y_i = z_i + m_i, which preserves volume.
    """

    def __init__(self, dims: tuple[int, ...], context_dims: tuple[int, ...], reverse: bool, mean_only: bool) -> None:
        super().__init__()
        self.dims, self.context_dims, self.reverse, self.mean_only = dims, context_dims, reverse, mean_only

    @abstractmethod
    def body(self, z: Tensor, context: Tensor | None) -> Tensor:
        """(n, d, ...) latents to (n, d or 2 d, ...): m and, unless ``mean_only``, s, strictly autoregressive."""

    def forward(self, z: Tensor, context: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """(n, d, ...) latents to y, and log(dy_i / dz_i) of every unit: their sum is the log-determinant."""
        shift, log_scale = self._affine(z, context)
        return z * log_scale.exp() + shift, log_scale

    @torch.no_grad()
    def inverse(self, y: Tensor, context: Tensor | None = None) -> Tensor:
        """The z that `forward` maps to y, without gradient."""

        def improved(z: Tensor) -> Tensor:
            shift, log_scale = self._affine(z, context)
            return (y - shift) * torch.exp(-log_scale)

        return settle(improved, y)

    def _affine(self, z: Tensor, context: Tensor | None) -> tuple[Tensor, Tensor]:
        if self.reverse:
            out = self.body(z.flip(self.dims), None if context is None else context.flip(self.context_dims)).to(z.dtype)
            parts = [part.flip(self.dims) for part in torch.split(out, z.shape[1], 1)]
        else:
            parts = list(torch.split(self.body(z, context).to(z.dtype), z.shape[1], 1))
        if self.mean_only:
            return parts[0], torch.zeros_like(z)
        log_scale = functional.logsigmoid(parts[1] + NEAR_ONE)
        return -torch.expm1(log_scale) * parts[0], log_scale


class Undone(nn.Module):
    """What a step of a prior's flow does on the way from noise to z, for files: see `generation.Step`.

    Args:
        step: from z to noise; its context is the label.
    """

    def __init__(self, step: Step) -> None:
        super().__init__()
        self.step, self.ahead = step, list(step.dims)

    def forward(self, h: Tensor | None, z: Tensor, vector: Tensor | None) -> Tensor:
        """z_i = (noise_i - shift_i) / sigma_i: locations and log-scales of z."""
        context = vector if vector is None or not self.step.context_dims else vector[..., None, None]
        out = self.step.body(z.flip(self.ahead) if self.step.reverse else z, context)
        if self.step.mean_only:
            location, log_scale = -out, out * 0.0
        else:
            shift, s = out.chunk(2, 1)
            sigma = functional.logsigmoid(s + NEAR_ONE)
            location, log_scale = torch.expm1(sigma) * shift * torch.exp(-sigma), -sigma
        if self.step.reverse:
            location, log_scale = location.flip(self.ahead), log_scale.flip(self.ahead)
        return torch.cat([location, log_scale], 1)


def settle(improved: Callable[[Tensor], Tensor], start: Tensor) -> Tensor:
    """The fixed point of a map in which every unit depends on earlier units alone, searched for all units at once.

    After k turns the first k units are right, so there are at most as many turns as units. It ends as soon as nothing changes,
    which takes far fewer where units depend little on ones far before them. What would lie beyond ``FARTHEST`` lies there: a long
    chain of units can carry one draw in many out of the range of floats, and a decoder would make NaN of it.
    """
    z = found = start
    for _ in range(start[0].numel()):
        found = improved(z)
        before, z = z, found.nan_to_num(0.0).clamp(-FARTHEST, FARTHEST)  # infinite, it would spoil earlier units: 0 * inf
        if torch.equal(before, z):
            break
    return found.clamp(-FARTHEST, FARTHEST)


class VectorStep(Step):
    """A step over (n, d) latents, one after another: the masked perceptron of MADE, with ELU units.

    Args:
        units: d.
        width, layers: hidden units of a layer, and how many hidden layers.
        context: size of the (n, context) vectors that the first hidden layer sees, 0 for none.
        reverse, mean_only: see `Step`.

    Raises:
        ValueError: no hidden layer.
    """

    def __init__(
        self, units: int, width: int, layers: int = 1, context: int = 0, reverse: bool = False, mean_only: bool = False
    ) -> None:
        super().__init__((1,), (), reverse, mean_only)
        _check(layers)
        least = 0 if context else min(1, units - 1)  # a unit that sees no z is of use where it sees the context
        hidden = tuple(least + i * (units - least) // width for i in range(width))
        places = tuple(range(units))
        labels = [places, *[hidden] * layers]
        self.hidden = nn.ModuleList(GradedAffine(*pair, strict=not i) for i, pair in enumerate(pairwise(labels)))
        self.feed = nn.Linear(context, width, bias=False) if context else None
        self.output = GradedAffine(hidden, places * (1 if mean_only else 2))
        _shrink(self.output)

    def body(self, z: Tensor, context: Tensor | None) -> Tensor:
        fed = self.feed(context)[..., None, None] if self.feed is not None and context is not None else None
        return _through(self.hidden, self.output, z[..., None, None], fed)[..., 0, 0]


class GridStep(Step):
    """A step over (n, d, H, W) latents in raster order, the d maps of a place one after another: masked convolutions, ELU.

    Args:
        maps: d.
        width, layers: features of a hidden layer, and how many hidden layers.
        context: features of the (n, context, H, W) grid, or (n, context, 1, 1) for all places alike, that the first hidden
            layer sees; 0 for none.
        kernel: side of the windows, of which the rows above and what lies to the left are seen.
        reverse, mean_only: see `Step`.

    Raises:
        ValueError: no hidden layer, or an even kernel.
    """

    def __init__(
        self,
        maps: int,
        width: int,
        layers: int = 1,
        context: int = 0,
        reverse: bool = False,
        mean_only: bool = False,
        kernel: int = 3,
    ) -> None:
        super().__init__((1, 2, 3), (2, 3), reverse, mean_only)
        _check(layers)
        hidden, places = spread(width, maps), tuple(range(maps))
        labels = [places, *[hidden] * layers]
        self.hidden = nn.ModuleList(MaskedWindow(*pair, kernel, strict=not i) for i, pair in enumerate(pairwise(labels)))
        self.feed = nn.Conv2d(context, width, 1, bias=False) if context else None
        self.output = MaskedWindow(hidden, places * (1 if mean_only else 2), kernel)
        _shrink(self.output)

    def body(self, z: Tensor, context: Tensor | None) -> Tensor:
        fed = self.feed(context) if self.feed is not None and context is not None else None
        return _through(self.hidden, self.output, z, fed)


def _check(layers: int) -> None:
    if layers < 1:
        raise ValueError(f"an autoregressive step needs at least 1 hidden layer, not {layers}")


def _shrink(output: nn.Module) -> None:
    with torch.no_grad():
        for parameter in output.parameters():
            parameter.mul_(SMALL)


def _through(hidden: nn.ModuleList, output: nn.Module, z: Tensor, fed: Tensor | None) -> Tensor:
    for i, layer in enumerate(hidden):
        z = layer(z) if i or fed is None else layer(z) + fed  # the context knows nothing of z, so it may enter here
        z = functional.elu(z)
    out: Tensor = output(z)
    return out


class Steps(nn.ModuleList):
    """Steps one after another, every other one in reversed order, for latents of one shape.

    Args:
        shape: (d,) for vectors, (d, H, W) for grids.
        count: how many steps.
        width, layers: hidden units or features of a step, and its hidden layers.
        context: size or features of the context, 0 for none; see `VectorStep` and `GridStep`.
        mean_only: whether steps only shift.

    Example:
        >>> steps = Steps((3,), count=2, width=8)
        >>> y, log_det = steps(torch.zeros(5, 3))
        >>> y.shape, torch.allclose(steps.inverse(y), torch.zeros(5, 3), atol=1e-6)
        (torch.Size([5, 3]), True)
    """

    def __init__(
        self, shape: tuple[int, ...], count: int, width: int, layers: int = 1, context: int = 0, mean_only: bool = False
    ) -> None:
        kind = VectorStep if len(shape) == 1 else GridStep
        super().__init__(kind(shape[0], width, layers, context, bool(i % 2), mean_only) for i in range(count))

    def forward(self, z: Tensor, context: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """(n, *shape) latents through all steps, and the sum of log(dy_i / dz_i) over the steps, (n, *shape)."""
        total = torch.zeros_like(z)
        for step in self:
            z, log_det = step(z, context)
            total = total + log_det
        return z, total

    def inverse(self, y: Tensor, context: Tensor | None = None) -> Tensor:
        """The z that `forward` maps to y, without gradient."""
        for step in reversed(list(self)):
            y = step.inverse(y, context)  # type: ignore[operator]
        return y


class InverseFlow(Mapped):
    """The distribution of y = steps(z), z from a base of independent units: drawn in one pass, reparameterised.

    ``log_prob`` has the shape of y; its sum over the units is the log-density (of one step, the terms are those of the chain
    rule along its order). What was drawn last is scored from what drawing it found out; any other y is first inverted, without
    gradient.

    Args:
        base: units by themselves, (n, *shape), with ``mean``, ``icdf`` and ``log_prob``.
        steps: the flow.
        context: what the steps see besides z.
    """

    def __init__(self, base: Distribution, steps: Steps, context: Tensor | None = None) -> None:
        super().__init__(base)
        self.steps, self.context = steps, context
        self._last: tuple[Tensor, Tensor] | None = None

    def carried(self, noise: Tensor) -> Tensor:
        """Values of the base through the steps."""
        self._last = self._through(noise)
        return self._last[0]

    @property
    def mean(self) -> Tensor:
        """Where the mean of the base goes; what was drawn before stays the last draw."""
        return self._through(self.base.mean)[0]

    def log_prob(self, value: Tensor) -> Tensor:
        """(n, *shape) nats; see above."""
        if self._last is not None and self._last[0] is value:
            return self._last[1]
        with torch.no_grad():
            return self._through(self.steps.inverse(value, self.context))[1]

    def _through(self, noise: Tensor) -> tuple[Tensor, Tensor]:
        y, log_det = self.steps(noise, self.context)
        return y, self.base.log_prob(noise) - log_det


class ForwardFlow(Mapped):
    """The distribution of z where steps(z) is from a base of independent units: scored in one pass.

    ``log_prob`` has the shape of z; its sum over the units is the log-density (of one step, the terms are those of the chain
    rule along its order). Drawing inverts the steps, without gradient.

    Args:
        base: units by themselves, (n, *shape), with ``mean``, ``icdf`` and ``log_prob``.
        steps: the flow, from z to the base.
        context: what the steps see besides z.
    """

    def __init__(self, base: Distribution, steps: Steps, context: Tensor | None = None) -> None:
        super().__init__(base)
        self.steps, self.context = steps, context

    def carried(self, noise: Tensor) -> Tensor:
        """Values of the base back through the steps."""
        return self.steps.inverse(noise, self.context)

    def log_prob(self, value: Tensor) -> Tensor:
        """(n, *shape) nats; see above."""
        noise, log_det = self.steps(value, self.context)
        total: Tensor = self.base.log_prob(noise) + log_det
        return total
