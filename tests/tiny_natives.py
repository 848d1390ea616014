"""Small networks for the native engine, and walks along data."""

from __future__ import annotations

import copy

import torch
from torch import Tensor

from ancestral.causal import AboveAffine, CausalNetwork, LeftAffine, Scale, gate, relu, spread
from ancestral.causal.stepping import once_values
from ancestral.core import Context
from ancestral.families import Bernoulli, Categorical, Logistic, LogisticMixture
from ancestral.networks.gated_pixelcnn import GatedPixelCNN
from ancestral.walking.native.engine import Native

CPU = torch.zeros(())
SMALL = {"layers": 2, "first_kernel": 5}


def network(shape: tuple[int, int, int], levels: int, size: int, scale: float = 1.0, **sizes: int) -> GatedPixelCNN:
    """A float32 network whose weights are enlarged, so that its parameters differ clearly from site to site."""
    made = GatedPixelCNN(shape, levels, size, **SMALL | sizes)
    with torch.no_grad():
        for parameter in made.parameters():
            parameter.copy_((parameter + (parameter == 0) * torch.randn_like(parameter) / 4) * scale)
    return made.float()


class Branched(CausalNetwork):
    """Values that are read twice, so that relus and sums stay operations of their own, by rows and by sites."""

    def __init__(self, channels: int, features: int) -> None:
        super().__init__((channels, 4, 5))
        labels = spread(features, channels)
        self.scale, self.gate = Scale(channels, 4), gate()
        self.above, self.wide = AboveAffine(channels, 2 * features, 3, strict=True), AboveAffine(features, features, 3)
        self.left = LeftAffine(self.scale.labels, (*labels, *labels), 2, strict=True)
        self.one, self.out = LeftAffine(labels, labels, 1), LeftAffine(labels, spread(5 * channels, channels))
        self.link = LeftAffine((0,) * features, (0,) * features)

    def body(self, x: Tensor, vector: Tensor | None, grid: Tensor | None) -> Tensor:
        s = self.scale(x)
        v = self.gate(self.above(s))
        v = relu()(relu()(self.wide(relu()(v))) + v)
        h = self.gate(self.left(s))
        g = relu()(self.one(relu()(h)))
        total: Tensor = self.out(relu()(h + g) + self.link(relu()(v)))
        return total


def given(net: CausalNetwork, context: Context | None) -> dict[int, Tensor]:
    return once_values(net.lowered(context), context)


def symbols(net: CausalNetwork, levels: int, n: int) -> Tensor:
    return torch.randint(levels, (n, *net.shape))


def wide_parameters(net: CausalNetwork, x: Tensor, context: Context | None = None) -> Tensor:
    """The parameters in float64."""
    with torch.no_grad():
        wide: Tensor = copy.deepcopy(net).double()(x, None if context is None else context.map(Tensor.double))
    return wide


def walked(native: Native, x: Tensor, once: dict[int, Tensor]) -> Tensor:
    """The parameters (n, D, k) that a walk along the data gives, sites in the order of the walk."""
    flat = x.permute(0, 2, 3, 1).flatten(1)
    parameters, kept = native.start(len(x), once, CPU)
    seen = [parameters]
    for i in range(flat.shape[1] - 1):
        native.absorb(kept, i, flat[:, i])
        seen.append(native.advance(kept, i + 1))
    return torch.stack(seen, 1)


def by_site(parameters: Tensor) -> Tensor:
    """(n, C, H, W, k) to (n, D, k) in the order of a walk."""
    return parameters.permute(0, 2, 3, 1, 4).flatten(1, 3)


CASES = [
    ((1, 6, 5), 4, {"channels": 6, "head": 7}, None),
    ((1, 5, 4), 2, {"channels": 1, "head": 1, "first_kernel": 3}, None),
    ((1, 4, 9), 8, {"channels": 70, "head": 33, "kernel": 5, "first_kernel": 9}, None),
    ((3, 5, 6), 4, {"channels": 64, "head": 20}, None),
    ((3, 4, 1), 4, {"channels": 3, "head": 3, "vector": 3, "grid": 2}, "both"),
    ((2, 5, 4), 3, {"channels": 9, "head": 5, "vector": 3}, "vector"),
    ((1, 4, 5), 3, {"channels": 17, "head": 5, "grid": 2, "stream": 3}, "grid"),
    ((3, 4, 5), 4, {"channels": 44, "head": 30, "vector": 3, "grid": 2}, "both"),
]


def context_of(kind: str | None, shape: tuple[int, int, int], n: int) -> Context | None:
    if kind is None:
        return None
    vector, grid = torch.randn(n, 3).float(), torch.randn(n, 2, *shape[1:]).float()
    return Context(vector=vector if kind != "grid" else None, grid=grid if kind != "vector" else None)


FAMILIES = [Bernoulli(), Categorical(5), Categorical(40), Logistic(256), LogisticMixture(17, 3), LogisticMixture(256, 2)]
OPTIONS = [
    {},
    {"temperature": 0.0},
    {"temperature": 0.7},
    {"temperature": 3.0, "top_k": 4},
    {"top_k": 1},
    {"top_p": 0.6},
    {"min_p": 0.3},
    {"temperature": 1.5, "top_k": 20, "top_p": 0.8},
    {"temperature": 1.5, "top_k": 20, "top_p": 0.9, "min_p": 0.2},
]
