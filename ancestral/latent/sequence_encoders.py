"""Convolutions along sequences of any length, between symbols and latents.

A sequence lies as (n, features, places, 1), one place below the other. Places after the end of an example hold zeros in every
layer, and pools leave them out, so that how far a batch is filled up changes nothing. These networks run once, so that any
convolution will do.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional

from ancestral.core import Context, Network
from ancestral.latent.encoders import Residual
from ancestral.spec import DataSpec
from ancestral.symbols import scored

ALONG = (3, 1)  # a window over places
HEADS = 4  # ways in which a pool looks at a sequence
LONGEST = 10000.0  # places of a wave that tells a pool where it is


def halved(places: int, times: int) -> int:
    """How many places are left of some that are halved, rounding up, so often."""
    return -(-places // (1 << times))


class Within(Residual):
    """The same along places, some of which are in no sequence and stay zero."""

    def forward(self, x: Tensor, there: Tensor) -> Tensor:  # type: ignore[override]
        """``there``, (n, 1, P, 1), is 1 for places in a sequence, else 0."""
        y: Tensor = self.second(functional.elu(self.first(functional.elu(x))) * there)
        return x + y * there


class SequenceEncoder(nn.Module):
    """(n, T) symbols, with (n, vector) labels or none, to (n, width, P, 1) features, and (n, 1, P, 1) ones where there are some.

    Text enters by a table, sound as numbers from -1 to 1, its parts put together.

    Args:
        spec: the data.
        width, blocks, halvings: features, residual blocks at each rate, and how often the rate is halved.
        vector: size of a label's vector, 0 for none.
    """

    def __init__(self, spec: DataSpec, width: int, blocks: int, halvings: int, vector: int) -> None:
        super().__init__()
        self.spec = spec
        self.table = nn.Embedding(spec.levels or 2, width) if spec.kind == "text" else None
        self.stem = nn.Conv2d(width if spec.kind == "text" else 1, width, (5, 1), padding=(2, 0))
        self.label = nn.Linear(vector, width, bias=False) if vector else None  # zeros are the null label
        self.shrink = nn.ModuleList(nn.Conv2d(width, width, ALONG, (2, 1), (1, 0)) for _ in range(halvings))
        self.stages = nn.ModuleList(nn.ModuleList(Within(width, ALONG) for _ in range(blocks)) for _ in range(halvings))

    def forward(self, x: Tensor, vector: Tensor | None) -> tuple[Tensor, Tensor]:
        values, there = self.values(x)
        h = self.stem(values * there)
        if vector is not None and self.label is not None:
            h = h + self.label(vector)[:, :, None, None]
        h = h * there
        for shrink, stage in zip(self.shrink, self.stages, strict=True):
            there = there[:, :, ::2]  # the first of every two is there whenever the second is
            h = shrink(functional.elu(h)) * there
            for block in stage:  # type: ignore[attr-defined]
                h = block(h, there)
        return h, there

    def values(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """(n, c, T / parts, 1) what a place holds, and (n, 1, T / parts, 1) ones up to the end, that included."""
        counts, parts, dtype = scored(x, self.spec), self.spec.parts, self.stem.weight.dtype
        there = torch.ones_like(x) if counts is None else counts
        there = there.view(len(x), -1, parts).amax(2).to(dtype)[:, None, :, None]
        if self.table is not None:
            return self.table(x).mT[..., None], there
        return waveform(x, self.spec).to(dtype)[:, None, :, None], there


def joined(x: Tensor, spec: DataSpec) -> tuple[Tensor, int]:
    """(n, T / parts) samples in whole numbers, their parts put together, and how many levels they have; an end is the lowest."""
    base = (spec.levels or 2) - (spec.end is not None)
    symbols = x.long() if spec.end is None else x.long().masked_fill(x == spec.end, 0)
    value = torch.zeros_like(symbols[:, :: spec.parts])
    for part in symbols.view(len(x), -1, spec.parts).unbind(2):
        value = value * base + part
    return value, base**spec.parts


def waveform(x: Tensor, spec: DataSpec) -> Tensor:
    """(n, T) symbols of sound as (n, T / parts) numbers from -1 to 1, in float64."""
    value, levels = joined(x, spec)
    return value.double() * (2 / (levels - 1)) - 1


class Pool(nn.Module):
    """(n, width, P, 1) features of a sequence to (n, outputs): means of them, each with weights of its own that sum to 1.

    Waves of many lengths are added first, so that it can matter where a feature stands.

    Args:
        width: of the features.
        outputs: numbers out.
    """

    def __init__(self, width: int, outputs: int) -> None:
        super().__init__()
        self.weights, self.values = nn.Conv2d(width, HEADS, 1), nn.Conv2d(width, width, 1)
        self.out = nn.Linear(HEADS * width, outputs)

    def forward(self, h: Tensor, there: Tensor) -> Tensor:
        h = h + _waves(h.shape[1], h.shape[2]).to(h)[None, :, :, None]
        weights = self.weights(h).masked_fill(there == 0, -torch.inf).softmax(2)
        pooled = torch.einsum("nhpo,ncpo->nhc", weights, functional.elu(self.values(h)))
        out: Tensor = self.out(pooled.flatten(1))
        return out


def _waves(features: int, places: int) -> Tensor:
    """(features, places) sines and cosines of where a place is (Vaswani et al. 2017, section 3.5)."""
    lengths = LONGEST ** (torch.arange(features // 2, dtype=torch.float64) / max(1, features // 2))
    angles = torch.arange(places, dtype=torch.float64) / lengths[:, None]
    return functional.pad(torch.cat([angles.sin(), angles.cos()]), (0, 0, 0, features % 2))


class Places(nn.Module):
    """(n, width, P, 1) features of a sequence to (n, outputs, P, 1) numbers, place by place."""

    def __init__(self, width: int, outputs: int) -> None:
        super().__init__()
        self.out = nn.Conv2d(width, outputs, 1)

    def forward(self, h: Tensor, there: Tensor) -> Tensor:
        out: Tensor = self.out(functional.elu(h))
        return out


class PlacesDecoder(nn.Module):
    """(n, latent, P, 1), with (n, above) numbers of z above it or none and (n, vector) labels or none, to (n, outputs, P, 1).

    Args:
        outputs, latent, width, blocks: features out, in and between, and residual blocks.
        above: of a z that all places share, 0 for none.
        vector: size of a label's vector, 0 for none.
    """

    def __init__(self, outputs: int, latent: int, width: int, blocks: int, above: int, vector: int) -> None:
        super().__init__()
        self.stem = nn.Conv2d(latent, width, (3, 1), padding=(1, 0))
        self.above = nn.Linear(above, width, bias=False) if above else None
        self.label = nn.Linear(vector, width, bias=False) if vector else None  # zeros are the null label
        self.blocks = nn.Sequential(*(Residual(width, ALONG) for _ in range(blocks)))
        self.head = nn.Conv2d(width, outputs, 1)

    def forward(self, h: Tensor | None, z: Tensor, vector: Tensor | None) -> Tensor:
        y = self.stem(z)
        if h is not None and self.above is not None:
            y = y + self.above(h)[:, :, None, None]
        if vector is not None and self.label is not None:
            y = y + self.label(vector)[:, :, None, None]
        out: Tensor = self.head(functional.elu(self.blocks(y)))
        return out


class Readout(Network):
    """p(y | c) = prod_i p(y_i | c): (n, D) symbols, which it ignores, to (n, D, size) parameters.

    Those of every symbol are a linear map of ``context.vector``; or of the place of ``context.grid`` that the symbol belongs to,
    of which each has as many.

    Args:
        sites: D.
        size: parameters of one conditional.
        features: of the vector, or of the grid.
        each: symbols of a place of the grid, of which the last may have fewer; None for a vector.
    """

    def __init__(self, sites: int, size: int, features: int, each: int | None = None) -> None:
        super().__init__((sites,))
        self.size = size
        self.out = nn.Linear(features, sites * size) if each is None else nn.Conv2d(features, each * size, 1)

    def forward(self, x: Tensor, context: Context | None = None) -> Tensor:
        source = None if context is None else context.vector if isinstance(self.out, nn.Linear) else context.grid
        if source is None:
            raise ValueError("this network takes all it knows from the context, and got none")
        numbers: Tensor = self.out(source)
        ordered = numbers if numbers.dim() == 2 else numbers[..., 0].mT
        return ordered.reshape(len(numbers), -1, self.size)[:, : self.shape[0]]
