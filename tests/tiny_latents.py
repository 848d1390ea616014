"""Latent-variable models with one or two numbers for z, so small that p(x) has a closed form or is a sum over a grid of z."""

from __future__ import annotations

from collections.abc import Callable
from math import prod
from typing import Any

import scipy.stats
import torch
from torch import Tensor, nn
from torch.distributions import Normal

from ancestral.core import Autoregressive, Context
from ancestral.families import Bernoulli
from ancestral.families import Normal as NormalFamily
from ancestral.latent.latent import Latent
from ancestral.latent.topdown import Choose, Descent, Group, TopDown
from ancestral.models import build
from ancestral.networks.factorised import GAIN, Factorised
from ancestral.networks.gated_pixelcnn import GatedPixelCNN
from ancestral.spec import DataSpec

Posterior = Callable[[Tensor], tuple[Tensor, Tensor]]  # (n, *shape) symbols to (n, d) means and standard deviations


class Flat(TopDown):
    """z ~ N(0, 1), d of them; the likelihood sees ``decoder(z)`` as the vector of its context."""

    def __init__(self, posterior: Posterior, decoder: nn.Module, units: int = 1) -> None:
        super().__init__()
        self.posterior, self.decoder, self.units = posterior, decoder, units

    def descend(
        self, choose: Choose, evidence: Tensor | None = None, context: Context | None = None, n: int | None = None
    ) -> Descent:
        rows = len(evidence) if evidence is not None else n or 1
        prior = Normal(torch.zeros(rows, self.units), torch.ones(rows, self.units))
        posterior = None if evidence is None else Normal(*(part.expand(rows, self.units) for part in self.posterior(evidence)))
        z = choose("z", prior, posterior)
        return Descent(Context(vector=self.decoder(z)), [Group("z", z, prior, posterior)])


class Chain(TopDown):
    """z1 ~ N(0, 1), z2 ~ N(z1, 1) and x ~ N(z2, 1), with the true posteriors: log p(x) = log N(x; 0, 3)."""

    def descend(
        self, choose: Choose, evidence: Tensor | None = None, context: Context | None = None, n: int | None = None
    ) -> Descent:
        zeros = torch.zeros(len(evidence) if evidence is not None else n or 1, 1)
        prior = Normal(zeros, 1.0)
        top = None if evidence is None else Normal(evidence / 3, (2 / 3) ** 0.5)
        z1 = choose("z1", prior, top)
        lower = Normal(z1, 1.0)
        bottom = None if evidence is None else Normal((evidence + z1) / 2, 0.5**0.5)
        z2 = choose("z2", lower, bottom)
        return Descent(Context(vector=z2), [Group("z1", z1, prior, top), Group("z2", z2, lower, bottom)])


def fixed(mean: float, scale: float) -> Posterior:
    """A posterior that does not look at x."""
    return lambda x: (torch.full((len(x), 1), mean), torch.full((len(x), 1), scale))


def gaussian(topdown: TopDown, sites: int = 1) -> Latent:
    """Real numbers x ~ N(what is decoded, 1)."""
    spec = DataSpec("vector", (sites,))
    network = Factorised((sites,), 2, learned=1, start=0.0, discrete=False)
    return Latent(topdown, Autoregressive(network, NormalFamily(), spec), spec)


def coins(posterior: Posterior, slopes: tuple[float, ...] = (2.0, -1.0, 0.7), units: int = 1) -> Latent:
    """Coins that are independent given z, with logits slope * z + a little."""
    spec = DataSpec("vector", (len(slopes),), levels=2)
    decoder = nn.Linear(units, len(slopes))
    with torch.no_grad():
        decoder.weight.zero_()[:, 0] = torch.tensor(slopes)
        decoder.bias.copy_(torch.linspace(-0.3, 0.4, len(slopes)))
    return Latent(Flat(posterior, decoder, units), Autoregressive(Factorised(spec.shape, 1), Bernoulli(), spec), spec)


def pixels(posterior: Posterior, shape: tuple[int, int, int] = (1, 2, 2)) -> Latent:
    """Binary pixels, each drawn given z and the ones before it."""
    spec = DataSpec("image", shape, levels=2)
    network = GatedPixelCNN(shape, 2, shape[0], layers=2, channels=4, first_kernel=3, head=4, vector=1)
    waken(network, 0.6)
    decoder = nn.Linear(1, 1)
    nn.init.constant_(decoder.weight, 2.0)
    return Latent(Flat(posterior, decoder), Autoregressive(network, Bernoulli(), spec), spec)


def waken(network: nn.Module, scale: float = 1.0) -> None:
    """Draw all weights anew, far enough from zero for every input to matter."""
    for name, weight in network.named_parameters():
        nn.init.normal_(weight, std=scale / GAIN if name.endswith("scaled") else scale)


def states(shape: tuple[int, ...]) -> Tensor:
    """(2^D, *shape) every binary example."""
    sites = prod(shape)
    return (torch.arange(2**sites)[:, None] >> torch.arange(sites) & 1).view(-1, *shape)


def joint(model: Latent, x: Tensor) -> tuple[Tensor, Tensor]:
    """(n, 1601) p(x | z) and (1601,) p(z) dz on a grid of z from -8 to 8."""
    z = torch.linspace(-8, 8, 1601)
    features = model.features({"z": z[:, None]})
    with torch.no_grad():
        columns = [model.likelihood.log_prob(row.expand(len(z), *row.shape), features) for row in x]
    return torch.stack(columns).exp(), Normal(0.0, 1.0).log_prob(z).exp() * 0.01


def probabilities(model: Latent, x: Tensor) -> Tensor:
    """(n,) p(x), by the trapezoid rule, which is exact to rounding for functions as smooth as these."""
    given_z, weight = joint(model, x)
    return given_z @ weight


def fits(x: Tensor, expected: Tensor) -> float:
    """p-value of Pearson's test of (n, *shape) binary samples against the probabilities of `states`."""
    places = 2 ** torch.arange(prod(x.shape[1:]))
    counts = torch.bincount((x.flatten(1) * places).sum(1), minlength=len(expected)).double()
    possible = expected > 0
    assert counts[~possible].sum() == 0
    return float(scipy.stats.chisquare(counts[possible], len(x) * expected[possible] / expected.sum()).pvalue)


def awake(name: str, spec: DataSpec, scale: float, **overrides: Any) -> Any:
    """A tiny model whose likelihood takes its context to heart: its weights are far from zero, those of the context too."""
    model = build(name, spec, preset="tiny", **overrides)
    waken(model.likelihood if isinstance(model, Latent) else model, scale)
    return model
