"""What the laws are tried on: a copy of a model with weights moved a little, random symbols, and a context."""

from __future__ import annotations

import copy
import json
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from functools import cached_property
from itertools import product
from math import log

import torch
from torch import Tensor

from ancestral.coding.bits_back import BITS
from ancestral.core import Autoregressive, Context, Network
from ancestral.latent.codes import CodePrior
from ancestral.latent.latent import Latent
from ancestral.latent.topdown import Noise
from ancestral.objectives import label_context
from ancestral.sampling.sample import sample
from ancestral.sampling.strategies import arrange
from ancestral.symbols import DataError, ended
from ancestral.walking.engines import Lowered, refusal
from ancestral.walking.exact.generator import ExactGenerator
from ancestral.walking.exact.operations import LoweringError
from ancestral.walking.twin import Twin, restored, twin

ENUMERABLE = 2**12  # states that a law will go through one by one
SYMBOLS = 2**12  # of the samples that are coded: enough for the bytes of a file's own to matter little
SHORT = 32  # samples of the sequences that a model of any length is tried on
EXACT = 1e-10  # how far float64 arithmetic in another order may be off, relative to the largest parameter


class LawBroken(AssertionError):
    """A model breaks a law; the message says where and by how much."""


class NotApplicable(Exception):
    """A law says nothing of this model; the message says why."""


def require(holds: bool, complaint: str) -> None:
    """Raise ``LawBroken`` unless the condition holds."""
    if not holds:
        raise LawBroken(complaint)


@dataclass(frozen=True)
class Coded:
    """The exact twin of a model.

    Attributes:
        items: (n, *shape) samples, by which it is calibrated.
        twins: the same twin in every engine that can carry it out, the fastest last; for the first scheme that the model has.
        engines: their names, and why another cannot.
    """

    items: Tensor
    twins: list[Twin]
    engines: str

    def context(self, x: Tensor) -> Context | None:
        """What the likelihood sees when symbols are coded with the latents in the middle of their posterior."""
        latents = self.twins[0].latents
        if isinstance(latents, ExactGenerator):
            return latents.features(latents.codes(x))
        return None if latents is None else latents.features(latents.posterior(x, BITS).centre, BITS)


@dataclass(frozen=True)
class Subject:
    """A model under test: the copy, its likelihood, random symbols (n, *shape) and a context for them.

    Attributes:
        codes: by the names of their groups, the same of the models that are priors of codes.
    """

    model: Autoregressive | Latent
    likelihood: Autoregressive
    x: Tensor
    context: Context | None
    generator: torch.Generator
    codes: Mapping[str, Subject] = field(default_factory=dict)

    @property
    def network(self) -> Network:
        return self.likelihood.network

    @property
    def flat(self) -> Tensor:
        """(n, D) the symbols in the order in which they are settled."""
        return self.x.flatten(1)[:, list(self.network.order.sites)]

    def forward(self, x: Tensor, context: Context | None = None) -> Tensor:
        """(n, D, k) parameters of every site, in order."""
        parameters: Tensor = self.network(x, context or self.context)
        return parameters.flatten(1, -2)[:, list(self.network.order.sites)]

    @cached_property
    def coded(self) -> Coded:
        """The exact twin of the model; raises ``NotApplicable`` where there is none."""
        return _coded(self)

    def states(self) -> Tensor | None:
        """(m, *shape) every possible x, or None where there are too many; those that differ after their end alone are one."""
        levels, sites = self.likelihood.family.levels, len(self.network.order.sites)
        if levels is None or sites * log(levels) > log(ENUMERABLE) + 1e-9:
            return None
        every = torch.tensor(list(product(range(levels), repeat=sites))).view(-1, *self.network.shape)
        return every[(ended(every, self.likelihood.spec) == every).flatten(1).all(1)]

    def one_context(self, n: int) -> Context | None:
        """The context of the first row, n times."""
        return None if self.context is None else self.context.select(torch.zeros(n, dtype=torch.long))


def _coded(subject: Subject) -> Coded:
    """The exact twin of a model in every engine; raises ``NotApplicable`` where there is none."""
    model, n = subject.model, max(64, SYMBOLS // subject.x[0].numel())
    if isinstance(model, Autoregressive) and subject.context is not None and not model.conditional:
        raise NotApplicable("files hold no context, and this model was given one")
    try:
        twin(model, subject.x, "eager")  # before samples are drawn, which may take a network without a twin long
    except (LoweringError, DataError) as reason:
        raise NotApplicable(str(reason)) from reason
    items = sample(model, n, seed=1, batch_size=n, engine="eager")
    eager = twin(model, items, "eager")
    found = Coded(items, [eager], "eager")
    network = eager.likelihood.network
    if not isinstance(network, Lowered):
        return found
    cannot = refusal(network.prepared(found.context(items[:1]))[0], network.anchor)
    if cannot:
        return replace(found, engines=f"eager; native cannot: {cannot}")
    native = restored(model, json.loads(json.dumps(eager.calibration)), "native")
    return Coded(items, [eager, native], "eager = native")


def _four(part: Tensor, n: int) -> Tensor:
    if len(part) != n:
        raise ValueError(f"the context has {len(part)} rows: the laws are tried on {n}")
    return part


def random_symbols(likelihood: Autoregressive, n: int, generator: torch.Generator) -> Tensor:
    """(n, *shape) symbols drawn evenly, or standard normal values where they are real."""
    shape, levels = (n, *likelihood.network.shape), likelihood.family.levels
    if levels is None:
        x = torch.randn(shape, generator=generator, dtype=torch.float64)
        for column, count in likelihood.spec.whole_columns.items():
            x[:, column] = torch.randint(count, (n,), generator=generator).to(x)
        return x
    return torch.randint(levels, shape, generator=generator)


def subject(model: Autoregressive | Latent, context: Context | None = None, seed: int = 0, n: int = 4) -> Subject:
    """A copy of a model, moved a little and in float64, with data to test it on.

    Raises:
        ValueError: the context has another number of rows.
    """
    generator = torch.Generator().manual_seed(seed)
    probe = copy.deepcopy(model).to("cpu", torch.float64).eval()
    if None in model.spec.shape and isinstance(probe, Autoregressive):
        probe = arrange(probe, shape=(min(probe.network.shape[0], SHORT * model.spec.parts),))
    with torch.no_grad():
        for parameter in probe.parameters():
            parameter.add_(torch.randn(parameter.shape, generator=generator, dtype=torch.float64), alpha=0.05)
    if context is None and model.conditional:
        context = label_context(torch.arange(n) % (model.spec.classes or 1), model.spec, torch.zeros((), dtype=torch.float64))
    if context is not None:
        context = context.map(lambda part: part.double() if part.is_floating_point() else part)
        context.map(lambda part: _four(part, n))
    if isinstance(probe, Latent):
        with torch.no_grad():
            descent = probe.topdown.descend(Noise(seed, range(n)), context=context, n=n)
        x = random_symbols(probe.likelihood, n, generator)
        priors = {group.name: group.prior for group in descent.groups if isinstance(group.prior, CodePrior)}
        codes = {
            name: Subject(prior.model, prior.model, random_symbols(prior.model, n, generator), prior.context, generator)
            for name, prior in priors.items()
        }
        return Subject(probe, probe.likelihood, x, descent.features, generator, codes)
    return Subject(probe, probe, random_symbols(probe, n, generator), context, generator)
