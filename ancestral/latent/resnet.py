"""The top-down ResNet of Kingma et al. 2016, "Improving Variational Inference with Inverse Autoregressive Flow".

::

    x ──▶ stem ──▶ layer n ──▶ ... ──▶ layer 1          up: each keeps what it has to say of its own posterior
                      ┊                   ┊
    features ◀── head ◀── layer n ◀── ... ◀── layer 1 ◀── a learned constant
                             │                   │       down: prior, posterior (from both ways), z
                            z_n                 z_1

Inference and generation share the way down, so a posterior knows all that its prior knows (section 4.3 and appendix C.3 there).
The layers are those of the published code: 3x3 convolutions of ELUs, residues times 0.1, means and log-scales of both ways added.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.distributions import Distribution, Normal
from torch.nn import functional

from ancestral.core import Context
from ancestral.latent.encoders import scaled, sides
from ancestral.latent.flows import InverseFlow, Steps
from ancestral.latent.generation import Generator, Stage, Step
from ancestral.latent.topdown import Choose, Descent, Group, TopDown, rows_of
from ancestral.spec import DataSpec

RESIDUE = 0.1  # weight of what a layer adds
LOG_SCALES = (-8.0, 8.0)
SMALL = 0.1  # spread of means and log-scales at first, against that of other features: priors and posteriors begin alike


@dataclass(frozen=True)
class Upward:
    """What a layer has seen on the way up, all (n, ..., h, w): its word on the posterior's mean and log-scale, and a context.

    The context has no features where there is no flow.
    """

    mean: Tensor
    log_scale: Tensor
    context: Tensor


class Layer(nn.Module):
    """One group of latents, seen on the way up and settled on the way down; above the top layer nobody reads the way up.

    Args:
        size: (h, w) of z and of what comes from above.
        finer: (h, w) of what comes from below; where it is another, the way up halves and the way down doubles.
        latent, width: features of z and of the ResNet.
        flow: whether the posterior takes a step of inverse autoregressive flow.
    """

    def __init__(self, size: tuple[int, int], finer: tuple[int, int], latent: int, width: int, flow: bool) -> None:
        super().__init__()
        self.size, self.finer = size, finer
        self.up_parts = [latent, latent, width * flow, width]
        self.down_parts = [latent] * 4 + [width * flow, width]
        self.up_first = nn.Conv2d(width, sum(self.up_parts), 3, 1 if size == finer else 2, 1)
        self.up_second = nn.Conv2d(width, width, 3, padding=1)
        self.down_first = nn.Conv2d(width, sum(self.down_parts), 3, padding=1)
        self.down_second = Window(latent + width, width, 3, size, finer)
        self.flow = Steps((latent, *size), 1, width, layers=2, context=width) if flow else None
        with torch.no_grad():
            for numbers in (self.up_first.weight[: 2 * latent], self.down_first.weight[: 4 * latent]):
                numbers *= SMALL

    def up(self, x: Tensor) -> tuple[Tensor, Upward]:
        """(n, width, *finer) from below to (n, width, *size), and what the way down needs of it."""
        parts = self.up_first(functional.elu(x)).split(self.up_parts, 1)
        h = self.up_second(functional.elu(parts[3]))
        return resized(x, self.size) + RESIDUE * h, Upward(*parts[:3])

    def down(self, x: Tensor, name: str, choose: Choose, seen: Upward | None) -> tuple[Tensor, Group]:
        """(n, width, *size) from above to (n, width, *finer), and z as ``choose`` settled it."""
        parts = self.down_first(functional.elu(x)).split(self.down_parts, 1)
        mean, log_scale, more_mean, more_log_scale, context, h = parts
        prior = normal(mean, log_scale)
        posterior = None
        if seen is not None:
            posterior = self.posterior(seen.mean + more_mean, seen.log_scale + more_log_scale, seen.context + context)
        z = choose(name, prior, posterior)
        h = self.down_second(functional.elu(torch.cat([z, h], 1)))
        return resized(x, self.finer) + RESIDUE * h, Group(name, z, prior, posterior)

    def posterior(self, mean: Tensor, log_scale: Tensor, context: Tensor) -> Distribution:
        """q(z | x, what is above)."""
        base = normal(mean, log_scale)
        return base if self.flow is None else InverseFlow(base, self.flow, context)


class ResNetTopDown(TopDown):
    """Groups z1, z2, ... of latents from the top, each a grid, under bidirectional inference; see the picture above.

    Args:
        spec: images; integers are scaled to [-1, 1] before they are encoded, real values are taken as they are.
        outputs: (c, h, w) of the features that it decodes to.
        latent, width, blocks: features of each z and of the ResNet, and layers at each size.
        halvings: how many sizes have latents: the image halved once, twice, ...
        posterior: normal, or iaf: a step of inverse autoregressive flow in each layer, with a context from both ways.
        vector: size of a label's vector, 0 for none. It is added at both ends.

    Raises:
        ValueError: there would be no layer, or there is no such posterior.
    """

    def __init__(
        self,
        spec: DataSpec,
        outputs: tuple[int, int, int],
        *,
        latent: int,
        width: int,
        blocks: int,
        halvings: int,
        posterior: str = "normal",
        vector: int = 0,
    ) -> None:
        super().__init__()
        if posterior not in ("normal", "iaf"):
            raise ValueError(f"posterior is {posterior!r}; a ResNet of latents takes normal or iaf")
        if halvings < 1 or blocks < 1:
            raise ValueError(f"a ResNet of latents takes at least 1 block at 1 size, not {blocks} at halvings={halvings}")
        channels, *image = (size or 0 for size in spec.shape)
        sizes = sides(image[0], image[1], halvings)
        steps = [(sizes[level], sizes[level - (level > 1 and not i)]) for level in range(1, halvings + 1) for i in range(blocks)]
        self.levels, self.top = spec.levels, sizes[-1]
        self.stem = nn.Conv2d(channels, width, 5, 2, 2)
        self.layers = nn.ModuleList(Layer(size, finer, latent, width, posterior == "iaf") for size, finer in steps)
        self.start = nn.Parameter(torch.zeros(width, 1, 1))
        self.labels = nn.ModuleList(nn.Linear(vector, width, bias=False) for _ in ("up", "down")) if vector else None
        self.head = Window(width, outputs[0], 5, sizes[1], outputs[1:])

    def descend(
        self, choose: Choose, evidence: Tensor | None = None, context: Context | None = None, n: int | None = None
    ) -> Descent:
        vector = context.vector if context else None
        rows = rows_of(evidence, vector, n)
        up, down = (0, 0) if self.labels is None or vector is None else (label(vector)[..., None, None] for label in self.labels)
        seen = [None] * len(self.layers) if evidence is None else self._ascend(evidence, up)
        h, groups = (self.start + down).expand(rows, -1, *self.top), list[Group]()
        for layer, upward in zip(reversed(self.layers), reversed(seen), strict=True):
            h, group = layer.down(h, f"z{len(groups) + 1}", choose, upward)  # type: ignore[operator]
            groups.append(group)
        return Descent(Context(vector=vector, grid=self.head(functional.elu(h))), groups)

    def generator(self) -> Generator:
        label = None if self.labels is None else self.labels[1]
        layers: list[Layer] = list(reversed(self.layers))  # type: ignore[arg-type]
        stages = list[Stage]()
        for i, layer in enumerate(layers):
            start, own = (None, None) if i else (self.start, label)
            merge = Merged(layer, start, own, self.head if i + 1 == len(layers) else None)
            stages.append(Stage(f"z{i + 1}", (layer.down_parts[0], *layer.size), merge, (Step(Told(layer, start, own)),)))
        return Generator(tuple(stages), (len(self.start), *self.top))

    def _ascend(self, x: Tensor, label: Tensor | int) -> list[Upward]:
        h, seen = self.stem(scaled(x, self.levels, self.start.dtype)) + label, list[Upward]()
        for layer in self.layers:
            h, upward = layer.up(h)  # type: ignore[operator]
            seen.append(upward)
        return seen


class Downward(nn.Module):
    """A layer on the way down, for files: what it is given and reads.

    Args:
        layer: which.
        start, label: what zeros are turned into above the top layer.
    """

    def __init__(self, layer: Layer, start: Tensor | None, label: nn.Module | None) -> None:
        super().__init__()
        self.layer, self.start, self.label = layer, start, label

    def given(self, h: Tensor, vector: Tensor | None) -> Tensor:
        """What the layer is given, of what comes from above."""
        h = h if self.start is None else h + self.start
        return h if self.label is None or vector is None else h + self.label(vector)[..., None, None]

    def read(self, x: Tensor) -> list[Tensor]:
        """What the layer reads from that."""
        return self.layer.down_first(functional.elu(x)).split(self.layer.down_parts, 1)  # type: ignore[no-any-return]


class Told(Downward):
    """The prior of a layer: see `generation.Step`."""

    def forward(self, h: Tensor, z: Tensor | None, vector: Tensor | None) -> Tensor:
        parts = self.read(self.given(h, vector))
        return torch.cat([parts[0], parts[1]], 1)


class Merged(Downward):
    """What a layer makes of z, or the features that a head reads from that: see `generation.Stage`."""

    def __init__(self, layer: Layer, start: Tensor | None, label: nn.Module | None, head: nn.Module | None) -> None:
        super().__init__(layer, start, label)
        self.head = head

    def forward(self, h: Tensor, z: Tensor, vector: Tensor | None) -> Tensor:
        x, layer = self.given(h, vector), self.layer
        y: Tensor = RESIDUE * layer.down_second(functional.elu(torch.cat([z, self.read(x)[5]], 1)))
        out = y + (x if layer.size == layer.finer else functional.interpolate(x, size=layer.finer, mode="nearest"))
        return out if self.head is None else self.head(functional.elu(out))


class Window(nn.Module):
    """A convolution to places of another number: a transposed one to twice as many each way, else they are resized before.

    Args:
        before, after: features that come in and go out.
        kernel: side of the window, odd.
        size, target: (h, w) of what comes in and goes out.
    """

    def __init__(self, before: int, after: int, kernel: int, size: tuple[int, int], target: tuple[int, int]) -> None:
        super().__init__()
        self.target, self.doubles, self.same = target, size != target and size == sides(*target, 1)[1], size == target
        kind = nn.ConvTranspose2d if self.doubles else nn.Conv2d
        self.layer = kind(before, after, kernel, 2 if self.doubles else 1, kernel // 2)

    def forward(self, x: Tensor) -> Tensor:
        y: Tensor = self.layer(x, self.target) if self.doubles else self.layer(x if self.same else resized(x, self.target))
        return y


def resized(x: Tensor, size: tuple[int, int]) -> Tensor:
    """(n, c, h, w) at another size: places repeated where they become more, else averaged."""
    if x.shape[2:] == size:
        return x
    if size[0] >= x.shape[2]:
        return functional.interpolate(x, size=size, mode="nearest")
    return functional.adaptive_avg_pool2d(x, size)


def normal(mean: Tensor, log_scale: Tensor) -> Normal:
    """Independent normals, in at least float32; log-scales beyond 8 either way count as 8."""
    mean, log_scale = (part.float() if part.element_size() < 4 else part for part in (mean, log_scale))
    return Normal(mean, log_scale.clamp(*LOG_SCALES).exp(), validate_args=False)
