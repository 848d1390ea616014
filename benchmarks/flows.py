"""What do small normalising flows reach on CIFAR-10, in the budget that the models here get?

NICE (Dinh et al. 2014) and Real NVP (Dinh et al. 2017), two rows of a table that autoregressive models are often compared in,
with the couplings of `zuko` (extra ``flows``). Flows are densities: noise u, uniform from 0 to 1, is added to the symbols, and

    log2 P(x) >= E over u of log2 p(x + u)

so what is recorded is a bound, of one draw of u a test image. What stands between x + u and the flow counts with its
log-determinant: for NICE it is whitening, for Real NVP a logit of 0.05 + 0.9 (x + u) / 256. Smaller than published, and without
batch normalisation.

    python benchmarks/flows.py nice DATA/cifar10.npz --minutes 10
    python benchmarks/flows.py real-nvp DATA/cifar10.npz --minutes 30
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable
from functools import partial
from math import log, prod
from pathlib import Path

import torch
from record import Record, cpu_minutes
from torch import Tensor, nn
from torch.distributions import Independent
from zuko.flows import ElementWiseTransform, GeneralCouplingTransform
from zuko.lazy import Flow, LazyTransform, UnconditionalDistribution
from zuko.transforms import AdditiveTransform, CouplingTransform, DependentTransform, MonotonicAffineTransform

from ancestral.data import load_data
from ancestral.latent.priors import Logistic, normal

ROWS, RATE, ALPHA, LEAST = 64, 1e-3, 0.05, 1e-3  # the last is added to the variances that whitening divides by
Preparation = Callable[[Tensor], tuple[Tensor, Tensor]]  # (n, D) numbers in 0 .. 1 to numbers, and (n,) log-determinants


def base(law: Callable[[Tensor, Tensor], torch.distributions.Distribution], sites: int) -> UnconditionalDistribution:
    """Units by themselves, of location 0 and scale 1."""
    both = torch.zeros(sites), torch.ones(sites)
    return UnconditionalDistribution(lambda location, scale: Independent(law(location, scale), 1), *both, buffer=True)


def nice(shape: tuple[int, ...], hidden: int = 1000) -> Flow:
    """Four additive couplings of even with odd places by perceptrons, then a scale of each place; logistic base."""
    sites = prod(shape)
    sizes = {"univariate": AdditiveTransform, "shapes": ((),), "hidden_features": (hidden, hidden)}
    couplings = [GeneralCouplingTransform(sites, mask=torch.arange(sites) % 2 == i % 2, **sizes) for i in range(4)]
    return Flow([*couplings, ElementWiseTransform(sites)], base(Logistic, sites))


def real_nvp(shape: tuple[int, ...], width: int = 32, blocks: int = 2) -> Flow:
    """Affine couplings by ResNets, three scales: checkerboards, squares of four pixels to channels, halves of the channels.

    After each squeeze and its couplings half of the channels are left as they are.
    """
    places, couplings = torch.arange(prod(shape)).view(shape), list[LazyTransform]()
    for scale in range(3):
        channels, height, width_now = places.shape
        board = (torch.arange(height)[:, None] + torch.arange(width_now)).remainder(2).bool().expand(channels, -1, -1)
        couplings += [ConvCoupling(prod(shape), places, board ^ bool(i % 2), width, blocks) for i in range(3 + (scale == 2))]
        if scale < 2:
            places = nn.functional.pixel_unshuffle(places[None].double(), 2)[0].long()
            half = (torch.arange(len(places)) * 2 < len(places))[:, None, None].expand(places.shape)
            couplings += [ConvCoupling(prod(shape), places, half ^ bool(i % 2), width, blocks) for i in range(3)]
            places = places[: len(places) // 2]
    return Flow(couplings, base(normal, prod(shape)))


class ConvCoupling(LazyTransform):
    """An affine coupling whose shifts and scales a ResNet computes from the image that it leaves as it is.

    Args:
        sites: D.
        places: (c, h, w) which of them make up the image.
        moved: (c, h, w) which of those it changes.
        width, blocks: sizes of the ResNet.
    """

    def __init__(self, sites: int, places: Tensor, moved: Tensor, width: int, blocks: int) -> None:
        super().__init__()
        self.net = nn.Sequential(nn.Conv2d(2 * len(places), width, 3, padding=1), *(Block(width) for _ in range(blocks)))
        self.head = nn.Conv2d(width, 2 * len(places), 1)
        nn.init.zeros_(self.head.weight)
        constant = torch.ones(sites, dtype=torch.bool)
        constant[places[moved]] = False
        for name, value in (("places", places), ("constant", constant), ("kept", ~moved)):
            self.register_buffer(name, value)
        self.register_buffer("changed", places[moved].sort()[1])  # couplings take places in their own order

    def forward(self, c: Tensor | None = None) -> CouplingTransform:
        return CouplingTransform(self.meta, self.constant)

    def meta(self, constant: Tensor) -> DependentTransform:
        whole = constant.new_zeros(len(constant), len(self.constant))
        whole[:, self.constant] = constant
        kept = self.kept.expand(len(whole), *self.kept.shape).to(whole)
        found = self.head(self.net(torch.cat([whole[:, self.places], kept], 1)))
        shift, log_scale = (part[:, ~self.kept][:, self.changed] for part in found.chunk(2, 1))
        return DependentTransform(MonotonicAffineTransform(shift, log_scale), 1)


class Block(nn.Module):
    """x + a function of x."""

    def __init__(self, width: int) -> None:
        super().__init__()
        convolutions = nn.Conv2d(width, width, 3, padding=1), nn.Conv2d(width, width, 1)
        self.body = nn.Sequential(nn.ReLU(), convolutions[0], nn.ReLU(), convolutions[1])

    def forward(self, x: Tensor) -> Tensor:
        return x + self.body(x)


def logits(x: Tensor) -> tuple[Tensor, Tensor]:
    inner = ALPHA + (1 - 2 * ALPHA) * x
    return inner.logit(), (log(1 - 2 * ALPHA) - inner.log() - (1 - inner).log()).sum(1)


def whitening(x: Tensor) -> Preparation:
    """ZCA: rotation to principal components, division by their standard deviations, rotation back."""
    centre = x.mean(0)
    variances, axes = torch.linalg.eigh((x - centre).T.double() @ (x - centre).double() / len(x))
    scale = (variances + LEAST).rsqrt()
    matrix, size = ((axes * scale) @ axes.T).float(), scale.log().sum().float()
    return lambda x: ((x - centre) @ matrix, size.expand(len(x)))


def bits(flow: Flow, prepare: Preparation, x: Tensor, levels: int, generator: torch.Generator) -> Tensor:
    """(n,) bits/dim of (n, D) symbols, an upper bound of their cost at one draw of the noise."""
    noisy = (x + torch.rand(x.shape, generator=generator)) / levels
    given, size = prepare(noisy)
    return (log(levels) - (flow().log_prob(given) + size) / x.shape[1]) / log(2)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("model", choices=("nice", "real-nvp"))
    parser.add_argument("path")
    parser.add_argument("--minutes", type=float, default=30.0, help="CPU-minutes of training")
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    torch.set_num_threads(1)
    torch.manual_seed(options.seed)
    generator, data = torch.Generator().manual_seed(options.seed), load_data(options.path)
    x, held_out, levels = data.train.x.flatten(1), data.test.x.flatten(1), data.spec.levels
    since = time.process_time()
    flow = nice(data.spec.shape) if options.model == "nice" else real_nvp(data.spec.shape)
    cost = partial(bits, flow, whitening(x[:20000] / levels) if options.model == "nice" else logits, levels=levels)
    optimiser, step, spent = torch.optim.Adam(flow.parameters(), lr=RATE), 0, 0.0
    while spent < options.minutes:
        for group in optimiser.param_groups:
            group["lr"] = RATE * (1 - spent / options.minutes)
        optimiser.zero_grad()
        loss = cost(x[torch.randint(len(x), (ROWS,), generator=generator)], generator=generator).mean()
        loss.backward()
        nn.utils.clip_grad_norm_(flow.parameters(), 1.0)
        optimiser.step()
        step, spent = step + 1, (time.process_time() - since) / 60
    with torch.no_grad():
        each = torch.cat([cost(part, generator=generator) for part in held_out.split(100)])
    row = {"model": options.model, "bits_per_dim": round(float(each.mean()), 4), "status": "bound", "steps": step}
    row |= {"error": round(float(each.std() / len(each) ** 0.5), 4), "examples": len(each), "seed": options.seed}
    row |= {"parameters": sum(p.numel() for p in flow.parameters()), "cpu_minutes": cpu_minutes(since), "data": data.note}
    record = Record(Path(__file__).parent / "results" / "flows.json", __doc__.splitlines()[0])
    record.add(f"{options.model}, {options.minutes:g} minutes, seed {options.seed}", row)


if __name__ == "__main__":
    main()
