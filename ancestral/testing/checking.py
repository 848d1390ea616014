"""All laws, put to a model one after another."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass

import torch

from ancestral.core import Autoregressive, Context
from ancestral.latent.latent import Latent
from ancestral.testing.distributions import bound, normalised, sampled, search, table
from ancestral.testing.files import exact, lossless
from ancestral.testing.structure import batch, causal, context, lowered, stepwise
from ancestral.testing.subjects import LawBroken, NotApplicable, Subject, subject


@dataclass(frozen=True)
class Outcome:
    """What became of one law: ``passed``, ``failed`` or ``not applicable``, and the measured figure or the reason."""

    law: str
    status: str
    detail: str


@dataclass(frozen=True)
class Report:
    """The outcomes of all laws, in the order of `LAWS`."""

    outcomes: tuple[Outcome, ...]

    @property
    def failed(self) -> tuple[Outcome, ...]:
        """The laws that were broken."""
        return tuple(outcome for outcome in self.outcomes if outcome.status == "failed")

    def raise_if_failed(self) -> None:
        """Raise ``LawBroken`` that names every broken law."""
        if self.failed:
            raise LawBroken("; ".join(f"{outcome.law}: {outcome.detail}" for outcome in self.failed))

    def __str__(self) -> str:
        return "\n".join(f"{outcome.law:<11} {outcome.status:<15} {outcome.detail}" for outcome in self.outcomes)


LAWS: dict[str, Callable[[Subject], str]] = {
    law.__name__: law
    for law in (causal, batch, context, stepwise, normalised, sampled, search, table, bound, lowered, exact, lossless)
}


OF_PRIORS = (causal, batch, stepwise, normalised)  # what is asked of the priors of codes, too


@torch.no_grad()
def _judge(law: Callable[[Subject], str], under: Subject) -> Outcome:
    try:
        with torch.enable_grad() if law is causal else torch.no_grad():
            detail = law(under)
            for name, prior in under.codes.items() if law in OF_PRIORS else ():
                _of_prior(law, name, prior)
            return Outcome(law.__name__, "passed", detail)
    except NotApplicable as reason:
        return Outcome(law.__name__, "not applicable", str(reason))
    except LawBroken as complaint:
        return Outcome(law.__name__, "failed", str(complaint))
    except Exception as error:  # of a network or family of somebody's own: the other laws still say something
        return Outcome(law.__name__, "failed", f"raised {type(error).__name__}: {error}")


def _of_prior(law: Callable[[Subject], str], name: str, prior: Subject) -> None:
    try:
        with suppress(NotApplicable):
            law(prior)
    except LawBroken as complaint:
        raise LawBroken(f"the prior of {name}: {complaint}") from complaint


def check(model: Autoregressive | Latent, context: Context | None = None, seed: int = 0) -> Report:
    """Put every law to a model, on a copy of it in float64, its weights moved a little; to the priors of its codes, too.

    Args:
        model: any model of the library or of your own; one that takes numbers of its own type takes that of its ``anchor``.
        context: four rows of context, where the model takes one that it does not make itself.
        seed: of the random symbols that the laws are tried on.

    Raises:
        ValueError: the context has another number of rows.

    Example:
        >>> import ancestral
        >>> model = ancestral.build("gated-pixelcnn", ancestral.DataSpec("image", (1, 3, 3), levels=2), preset="tiny")
        >>> check(model).failed
        ()
    """
    under = subject(model, context, seed)
    return Report(tuple(_judge(law, under) for law in LAWS.values()))
