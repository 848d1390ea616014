"""Paired differences: two models judged on the same examples with the same noise.

Most of what makes one example cost more than another is in both costs and cancels in their difference, whose standard error is
therefore much smaller than those of the two means. Costs are in nats, and every difference is the second cost less the first, so
that less than 0 favours the second model.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

from torch import Tensor

from ancestral.data.source import permutation
from ancestral.evaluation.bits import Mean, bits_per_dim
from ancestral.evaluation.examples import SUBSET, Chosen, Data, Tick, check_costs, chosen_examples, counter
from ancestral.evaluation.iwae import bounds
from ancestral.evaluation.rate_distortion import rate_distortion
from ancestral.evaluation.score import exact_nats, status_of
from ancestral.latent.codes import coded
from ancestral.latent.latent import Latent
from ancestral.sampling.strategies import Model, Progress, inference
from ancestral.spec import check_whole

TOLD_APART = 2.0  # standard errors from which on a difference is called one


@dataclass(frozen=True, eq=False)
class Costs:
    """What each of n examples costs a model, in nats, float64.

    Attributes:
        nats: (n,) -log p(x), or rate + distortion, an upper bound of it.
        rate, distortion: (n,) the two terms of a latent-variable model; else None.
        weighted: (m,) the importance-weighted bound of -log p(x) on the seeded subset, or -log p(x) itself where that is known;
            None where it was not asked for.
        importance_samples: k of that bound; 0 where it was not asked for.
        sites: symbols of an example, on average where lengths vary.
        status: ``"exact"`` or ``"bound"``.
        seed: of the noise and of the subset.
    """

    nats: Tensor
    rate: Tensor | None
    distortion: Tensor | None
    weighted: Tensor | None
    importance_samples: int
    sites: float
    status: str
    seed: int


@dataclass(frozen=True, kw_only=True)
class Difference:
    """How much more an example costs a second model than a first, on average, in nats; errors are standard errors.

    Attributes:
        nats, nats_error: mean difference of the costs.
        examples, sites: how many were judged, and symbols of each.
        statuses: of the first and of the second cost.
        rate, rate_error, distortion, distortion_error: mean differences of the terms, where both models have latents.
        importance_samples, subset: k of the importance-weighted bound and the number of examples in its seeded subset.
        weighted, weighted_error: mean difference of that bound of -log p(x); None where it was not asked for.
        seed: of the noise and of the subset.
    """

    nats: float
    nats_error: float | None
    examples: int
    sites: float
    statuses: tuple[str, str]
    seed: int
    rate: float | None = None
    rate_error: float | None = None
    distortion: float | None = None
    distortion_error: float | None = None
    importance_samples: int = 0
    subset: int = 0
    weighted: float | None = None
    weighted_error: float | None = None

    @property
    def status(self) -> str:
        """``"exact"`` of two exact costs, ``"bound"`` where one is a bound, ``"approximate"`` where both are."""
        return ("exact", "bound", "approximate")[self.statuses.count("bound")]

    @property
    def meaning(self) -> str:
        """What the difference says of the true costs, in words."""
        return {
            ("exact", "exact"): "a difference of exact costs",
            ("exact", "bound"): "a bound less an exact cost: the true difference is at most that",
            ("bound", "exact"): "an exact cost less a bound: the true difference is at least that",
            ("bound", "bound"): "a difference of bounds: how loose each is, it does not tell",
        }[self.statuses]

    @property
    def bits_per_dim(self) -> float:
        """``nats`` in bits a symbol."""
        return bits_per_dim(self.nats, self.sites)

    @property
    def bits_per_dim_error(self) -> float | None:
        """``nats_error`` in bits a symbol."""
        return None if self.nats_error is None else bits_per_dim(self.nats_error, self.sites)

    @property
    def standard_errors(self) -> float | None:
        """How many standard errors the difference is from 0; None where there is no error."""
        return in_errors(self.nats, self.nats_error)

    @property
    def weighted_standard_errors(self) -> float | None:
        """The same of ``weighted``."""
        return None if self.weighted is None else in_errors(self.weighted, self.weighted_error)

    def to_dict(self) -> dict[str, Any]:
        """Every attribute and property, as JSON has them."""
        derived = [name for name, value in vars(Difference).items() if isinstance(value, property)]
        return {**asdict(self), **{name: getattr(self, name) for name in derived}}

    def lines(self, first: str = "the first", second: str = "the second") -> list[str]:
        """The difference in words, with its meaning."""
        size = f"{self.bits_per_dim:+.4f} bits/dim"
        lines = [f"{second} less {first}: {_words(self.nats, self.nats_error)}, {size}; {self.meaning}"]
        if self.rate is not None and self.distortion is not None:
            terms = (("rate", self.rate, self.rate_error), ("distortion", self.distortion, self.distortion_error))
            lines.append("  of which " + " and ".join(f"{name} {_signed(value, error)}" for name, value, error in terms))
        if self.weighted is not None:
            bound = f"IWAE-{self.importance_samples} on {self.subset:,} of the examples"
            lines.append(f"  {bound}: {_words(self.weighted, self.weighted_error)}")
        return lines


def in_errors(value: float, error: float | None) -> float | None:
    """A difference in standard errors; None where there is no error, or none above 0."""
    return value / error if error else None


def _signed(value: float, error: float | None) -> str:
    return f"{value:+.2f}" if error is None else f"{value:+.2f} ± {error:.2f}"


def _words(value: float, error: float | None) -> str:
    distance = in_errors(value, error)
    if distance is None:
        return f"{_signed(value, error)} nats"
    apart = "" if abs(distance) >= TOLD_APART else ", which does not tell them apart"
    return f"{_signed(value, error)} nats ({abs(distance):.1f} standard errors{apart})"


def costs(model: Model, chosen: Chosen, k: int, m: int, seed: int, batch_size: int, tick: Tick) -> Costs:
    """What the examples cost a model; k samples for the bound of the first m of a seeded order, where k is not 0.

    Raises:
        DataError: a cost is not finite.
    """
    rate = distortion = weighted = None
    some = permutation(len(chosen), seed, SUBSET).tolist()[:m]
    with inference(model):
        if isinstance(model, Latent):
            terms = rate_distortion(model, chosen, seed, batch_size, tick)
            rate, distortion = terms.rate, terms.distortion
            nats = rate + distortion
        else:
            nats = exact_nats(model, chosen, batch_size, tick)
        check_costs(nats, chosen, model.spec)
        if k:
            several = isinstance(model, Latent) and not coded(model)  # else one sample is as good as many
            found = bounds(model, chosen.take(some), k, seed, batch_size, tick) if several else None  # type: ignore[arg-type]
            weighted = nats[some] if found is None else -found.iwae
    bounded = chosen.units is not None and chosen.units.dequantized
    sites = model.spec.sites if model.spec.end is None else max(1.0, float(chosen.lengths(model.spec).double().mean()))
    return Costs(nats, rate, distortion, weighted, k, sites, "bound" if bounded else status_of(model), seed)


def difference(first: Costs, second: Costs) -> Difference:
    """The mean of the second costs less the first, example by example."""

    def mean(of: str) -> dict[str, float | None]:
        one, two = getattr(first, of), getattr(second, of)
        if one is None or two is None:
            return {}
        found = Mean.of(two - one)
        return {of: found.value, f"{of}_error": found.error}

    return Difference(
        examples=len(first.nats),
        sites=first.sites,
        statuses=(first.status, second.status),
        seed=first.seed,
        importance_samples=first.importance_samples,
        subset=0 if first.weighted is None else len(first.weighted),
        **{name: value for of in ("nats", "rate", "distortion", "weighted") for name, value in mean(of).items()},  # type: ignore[arg-type]
    )


def compare(
    first: Model,
    second: Model,
    data: Data,
    *,
    split: str = "test",
    importance_samples: int = 0,
    subset: int = 500,
    limit: int | None = None,
    batch_size: int = 64,
    seed: int = 0,
    progress: Progress | None = None,
) -> Difference:
    """How much more an example costs the second model than the first, paired: the same examples, the same noise.

    Args:
        data: as `evaluate` takes them.
        importance_samples: k of an importance-weighted bound that is compared too, on a seeded subset; 0 leaves it out.
        subset: examples for that bound.
        limit: at most so many examples, a seeded choice.
        batch_size: examples, or samples of them, that are decoded together.
        progress: is told (decodings done, of how many).

    Raises:
        DataError: there are no examples, they are not what a model is a model of, or a cost is not finite.
        ValueError: an argument is outside its range.

    Example:
        >>> import ancestral
        >>> data = ancestral.data("digits")
        >>> a, b = (ancestral.build(name, data.spec, preset="tiny") for name in ("gated-pixelcnn", "vae"))
        >>> found = compare(a, b, data, limit=20)
        >>> found.status, found.examples, found.meaning
        ('bound', 20, 'a bound less an exact cost: the true difference is at most that')
    """
    check_sizes(importance_samples, subset)
    seen = [chosen_examples(model, data, split, limit, seed)[0] for model in (first, second)]
    m = min(subset, len(seen[0]))
    tick = counter(progress, sum(work(model, len(seen[0]), importance_samples, m) for model in (first, second)))
    found = [
        costs(model, chosen, importance_samples, m, seed, batch_size, tick)
        for model, chosen in zip((first, second), seen, strict=True)
    ]
    return difference(*found)


def work(model: Model, n: int, k: int, m: int) -> int:
    """How many decodings `costs` takes."""
    return n + (m * k if isinstance(model, Latent) and not coded(model) else 0)


def check_sizes(importance_samples: int, subset: int) -> None:
    """Refuse numbers of samples and examples that mean nothing.

    Raises:
        ValueError: one is outside its range.
    """
    for name, value, least in (("importance_samples", importance_samples, 0), ("subset", subset, 1)):
        check_whole(**{name: value})
        if value < least:
            raise ValueError(f"{name} is {value}; it must be at least {least}")
