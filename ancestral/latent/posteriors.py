"""What an encoder's numbers say of z: diagonal normals and logistics, and normals carried on by an inverse flow."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable

from torch import Tensor, nn
from torch.distributions import Distribution

from ancestral.latent.configs import EncoderFields
from ancestral.latent.flows import InverseFlow, Steps
from ancestral.latent.priors import Logistic, choice, normal


class Posterior(nn.Module, ABC):
    """(n, outputs, ...) numbers of an encoder to q(z | x).

    Attributes:
        outputs: how many numbers a vector of latents, or a cell of a grid of them, is read from.
    """

    outputs: int

    @abstractmethod
    def forward(self, numbers: Tensor) -> Distribution:
        """The distribution of (n, d, ...) latents."""


class Diagonal(Posterior):
    """Units by themselves: numbers are [d locations, d log-scales].

    Args:
        units: d, of a vector or of each cell of a grid.
        kind: (locations, scales) to a distribution.
    """

    def __init__(self, units: int, kind: Callable[[Tensor, Tensor], Distribution]) -> None:
        super().__init__()
        self.kind, self.outputs = kind, 2 * units

    def forward(self, numbers: Tensor) -> Distribution:
        location, log_scale = numbers.chunk(2, 1)
        return self.kind(location, log_scale.clamp(-8, 8).exp())


class InverseAutoregressive(Posterior):
    """A diagonal normal carried on by autoregressive steps (Kingma et al. 2016): numbers are [d means, d log-scales, context].

    Args:
        shape: of z.
        fields: ``posterior_steps`` and the other sizes of the steps.
    """

    def __init__(self, shape: tuple[int, ...], fields: EncoderFields) -> None:
        super().__init__()
        context = fields.posterior_context
        self.base = Diagonal(shape[0], normal)
        self.outputs = self.base.outputs + context
        sizes = (fields.posterior_steps, fields.posterior_width, fields.posterior_layers)
        self.steps = Steps(shape, *sizes, context, fields.posterior_mean_only)

    def forward(self, numbers: Tensor) -> Distribution:
        own = self.base.outputs
        return InverseFlow(self.base(numbers[:, :own]), self.steps, numbers[:, own:])


POSTERIORS: dict[str, Callable[[tuple[int, ...], EncoderFields], Posterior]] = {
    "normal": lambda shape, fields: Diagonal(shape[0], normal),
    "logistic": lambda shape, fields: Diagonal(shape[0], Logistic),
    "iaf": InverseAutoregressive,
}


def posterior_of(fields: EncoderFields, shape: tuple[int, ...]) -> Posterior:
    """The posterior that a configuration names, of (n, *shape) latents.

    Raises:
        ValueError: there is none of that name.
    """
    return choice("posterior", fields.posterior, POSTERIORS)(shape, fields)
