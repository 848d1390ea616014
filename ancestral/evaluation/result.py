"""What `evaluate` found, as numbers, as JSON has them, and in lines to read."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

from ancestral.evaluation.bits import bits, bits_per_dim
from ancestral.evaluation.latents import Uses

CERTAIN = "x leaves no choice of z, so importance samples have no meaning and were not drawn"
NEAR = 0.1  # nats from its ceiling a mutual information says that the examples are too few


@dataclass(frozen=True, kw_only=True)
class Evaluation:
    """Figures of a model on a set of examples: means over them, in nats where nothing else is said, and standard errors.

    Everything from ``rate`` to ``verdict`` is for latent-variable models and None, zero or empty elsewhere; all that is said of
    a subset is measured on its examples.

    Attributes:
        status: ``"exact"``: nats is -log p(x); ``"bound"``: it is rate + distortion, minus the evidence lower bound, or -log p of
            whole numbers with noise, from a density (`Units`), or both.
        nats, nats_error: cost of an example.
        examples, sites: how many were judged, and symbols of each, on average where lengths vary; the symbol that ends an
            example is paid for and not counted.
        symbol_error, elbo_subset_symbol_error, iwae_symbol_error: the standard errors of what a symbol costs, where lengths vary.
        bytes: mean size of an example of text; None of other data.
        tokens: whether its symbols are tokens of a BPE, so that a text has many spellings and what one of them costs is a bound
            of what the text costs.
        density: whether the data are real-valued, so that nats and bits are those of a density in the original units of the
            data: standardised `Splits` are converted back, an array is taken as it is.
        data: name, split, range, binarisation, note, hash, examples and available of what was judged.
        seed: of the noise and the choices.
        rate, distortion, auxiliary: KL(q(z | x) || p(z)), -log p(x | z), and -log p(y | z), which is no part of nats.
        kl_by_unit: mean rate of every unit by group; of a grid of latents, of every feature map.
        active_units, units: units whose posterior mean varies over the data by more than 0.01, and all units; None where x
            leaves no choice of z, as of codes and of auxiliary images that come first. What has no meaning there is None, too:
            all that is made of several samples of z, and the mutual information.
        code_uses: how often each code was chosen over all examples and places, by group, where z is made of codes.
        subset, subset_sites: number of examples in the seeded subset, and symbols of each, on average where lengths vary.
        importance_samples: k.
        elbo_subset, iwae: lower bounds of log p(x) from the same k samples: the mean of the log-weights, the log of the mean.
        effective_samples: effective sample size of the k weights over k, mean over the subset.
        shuffle_cost: how much larger the distortion is with another example's z, of the same label where the model is told
            labels; None where there is no other.
        mutual_information: I(x; z), estimated on ``information_examples`` posteriors (at most 64 of several groups or of flows),
            never above the log of their number, ``mutual_information_ceiling``; ``aggregate_kl`` is the rate of those examples
            less it: KL(q(z) || p(z)). Where the model is told labels all three are given the label, as p(z) may be.
        verdict: one sentence on what z carries.
        remedies: where that is little, every `Remedy` that the model can take, those that fit most often first.
        exact_nats: cost of an example in exact numerics, with which files are coded; ``exact_cost`` is how much more that is
            than in floating point, for the same ``exact_examples`` and the same noise. None where it was not asked for.
        exact_scheme: of those files: ``autoregressive``, ``bits-back``, or ``two-part``, which chooses z and does not draw it.
        orders, ordering: nats is -log of the mean of p(x) over so many orders, and which they are.
        order_nats: mean over these orders of the cost in one alone, at least nats; None where there is one order.
    """

    status: str
    nats: float
    nats_error: float | None
    examples: int
    sites: float
    density: bool
    data: Mapping[str, Any]
    seed: int
    rate: float | None = None
    rate_error: float | None = None
    distortion: float | None = None
    distortion_error: float | None = None
    auxiliary: float | None = None
    kl_by_unit: Mapping[str, list[float]] = field(default_factory=dict)
    active_units: int | None = None
    units: int | None = None
    code_uses: Mapping[str, list[int]] = field(default_factory=dict)
    subset: int = 0
    subset_sites: float
    importance_samples: int | None = None
    elbo_subset: float | None = None
    elbo_subset_error: float | None = None
    iwae: float | None = None
    iwae_error: float | None = None
    effective_samples: float | None = None
    shuffle_cost: float | None = None
    shuffle_cost_error: float | None = None
    mutual_information: float | None = None
    mutual_information_ceiling: float | None = None
    aggregate_kl: float | None = None
    information_examples: int = 0
    verdict: str | None = None
    remedies: Sequence[Mapping[str, str]] = ()
    exact_nats: float | None = None
    exact_cost: float | None = None
    exact_cost_error: float | None = None
    exact_examples: int = 0
    exact_scheme: str | None = None
    orders: int = 1
    ordering: str | None = None
    order_nats: float | None = None
    symbol_error: float | None = None
    elbo_subset_symbol_error: float | None = None
    iwae_symbol_error: float | None = None
    bytes: float | None = None
    tokens: bool = False

    @property
    def bits_per_dim(self) -> float:
        """``nats`` in bits a symbol."""
        return bits_per_dim(self.nats, self.sites)

    @property
    def nats_per_symbol(self) -> float:
        """``nats`` over ``sites``."""
        return self.nats / self.sites

    @property
    def bits_per_byte(self) -> float | None:
        """``nats`` in bits a byte of text."""
        return bits(self.nats) / self.bytes if self.bytes else None

    @property
    def byte_status(self) -> str | None:
        """The status of ``bits_per_byte``."""
        return None if self.bytes is None else "bound" if self.tokens else self.status

    @property
    def bits_per_dim_error(self) -> float | None:
        """The standard error of ``bits_per_dim``."""
        if self.symbol_error is not None:
            return bits(self.symbol_error)
        return None if self.nats_error is None else bits_per_dim(self.nats_error, self.sites)

    @property
    def elbo(self) -> float | None:
        """The evidence lower bound on all examples, in nats."""
        return None if self.rate is None else -self.nats

    @property
    def iwae_bits_per_dim(self) -> float | None:
        """The importance-weighted bound of the subset, in bits a symbol."""
        return None if self.iwae is None else bits_per_dim(-self.iwae, self.subset_sites)

    @property
    def iwae_bits_per_dim_error(self) -> float | None:
        """Its standard error."""
        return self._of_subset(self.iwae_error, self.iwae_symbol_error)

    @property
    def elbo_subset_bits_per_dim(self) -> float | None:
        """The evidence lower bound of the subset, in bits a symbol."""
        return None if self.elbo_subset is None else bits_per_dim(-self.elbo_subset, self.subset_sites)

    @property
    def elbo_subset_bits_per_dim_error(self) -> float | None:
        """Its standard error."""
        return self._of_subset(self.elbo_subset_error, self.elbo_subset_symbol_error)

    def _of_subset(self, error: float | None, symbol_error: float | None) -> float | None:
        if symbol_error is not None:
            return bits(symbol_error)
        return None if error is None else bits_per_dim(error, self.subset_sites)

    @property
    def rate_bits(self) -> float | None:
        """``rate`` in bits an example."""
        return None if self.rate is None else bits(self.rate)

    @property
    def distortion_bits(self) -> float | None:
        """``distortion`` in bits an example."""
        return None if self.distortion is None else bits(self.distortion)

    @property
    def certain(self) -> bool:
        """Whether there is a z of which x leaves no choice."""
        return self.rate is not None and self.active_units is None

    @property
    def saturated(self) -> bool:
        """Whether z tells nearly all examples apart: then there may be more mutual information, and less ``aggregate_kl``."""
        ceiling, found = self.mutual_information_ceiling, self.mutual_information
        return ceiling is not None and found is not None and found > ceiling - NEAR

    @property
    def kl_by_group(self) -> dict[str, float]:
        """Mean rate of every group."""
        return {name: sum(units) for name, units in self.kl_by_unit.items()}

    @property
    def codes_used(self) -> dict[str, int]:
        """How many different codes occur, by group."""
        return {name: sum(count > 0 for count in counts) for name, counts in self.code_uses.items()}

    @property
    def perplexity(self) -> dict[str, float]:
        """exp of the entropy of a code in nats, by group: how many equally likely codes they are worth."""
        return {name: Uses.of(name, counts).perplexity for name, counts in self.code_uses.items()}

    def to_dict(self) -> dict[str, Any]:
        """Every attribute and property, as JSON has them."""
        derived = [name for name, value in vars(Evaluation).items() if isinstance(value, property)]
        return {**asdict(self), **{name: getattr(self, name) for name in derived}}

    def lines(self) -> list[str]:
        """The figures in words, each with its status and on how many examples."""
        which = "ELBO" if self.rate is not None else "dequantised"
        bound = f" (bound: {which})" if self.status == "bound" else f" ({self.status})"
        unit = "bits/dim of a density" if self.density else "bits/dim"
        lines = [
            f"{_with_error(self.bits_per_dim, self.bits_per_dim_error, 4)} {unit}{bound},"
            f" {_with_error(self.nats, self.nats_error)} nats an example; {self._whose()}"
        ]
        if self.bits_per_byte is not None:
            why = ": one spelling of many" if self.tokens else ""
            lines.append(
                f"{self.bits_per_byte:.4f} bits a byte ({self.byte_status}{why}); {self.nats_per_symbol:.4f} nats a symbol"
            )
        if self.rate is not None:
            lines += [*self._terms(), *self._subset_lines(), self.verdict or ""]
        if self.order_nats is not None:
            alone = f"one of them alone costs {self.order_nats:.2f} nats on average"
            lines.append(f"the mean of p(x) over {self.orders} orders ({self.ordering}); {alone}")
        if self.exact_nats is not None and self.exact_cost is not None:
            lines.append(self._exact(self.exact_nats, self.exact_cost))
        return [*lines, f"data: {self.data['note']}" + (f" Units: {self.data['units']}." if "units" in self.data else "")]

    def _exact(self, nats: float, cost: float) -> str:
        share, error = cost / (nats - cost), self.exact_cost_error
        spread = "" if error is None else f" ± {error / (nats - cost):.3%}"
        chosen = ", z chosen for a file in two parts and not drawn" if self.exact_scheme == "two-part" else ""
        dims = f"{bits_per_dim(nats, self.subset_sites):.4f} bits/dim"
        return f"exact numerics: {dims}, {share:+.3%}{spread} ({self.exact_examples:,} examples{chosen})"

    def _whose(self) -> str:
        available = self.data["available"]
        share = "all" if self.examples == available else f"{self.examples:,} of"
        labels = ", with labels" if self.data["labels"] else ""
        told = f"{labels}, given features: {self.data['features']}" if "features" in self.data else labels
        return f"{share} {available:,} examples of {self.data['name']} ({self.data['split']}, {self.data['range']}{told})"

    def _terms(self) -> list[str]:
        terms = (("rate", self.rate, self.rate_error), ("distortion", self.distortion, self.distortion_error))
        said = [
            f"{name} {_with_error(value, error)} nats ({bits(value):.2f} bits)"
            for name, value, error in terms
            if value is not None
        ]
        lines = [" + ".join(said)]
        if self.auxiliary is not None:
            lines.append(f"auxiliary loss {self.auxiliary:.2f} nats, no part of the bits above")
        return lines

    def _subset_lines(self) -> list[str]:
        lines = []
        if self.certain:
            lines.append(CERTAIN)
        elbo, iwae = self.elbo_subset_bits_per_dim, self.iwae_bits_per_dim
        if iwae is not None and elbo is not None and self.effective_samples is not None:
            said = [
                f"ELBO {_with_error(elbo, self.elbo_subset_bits_per_dim_error, 4)}",
                f"IWAE-{self.importance_samples} {_with_error(iwae, self.iwae_bits_per_dim_error, 4)}",
            ]
            lines.append(
                f"{' and '.join(said)} bits/dim (bounds) on the same {self.subset:,} examples; effective sample size"
                f" {self.effective_samples:.0%} of {self.importance_samples}"
            )
        if self.shuffle_cost is not None:
            cost = _with_error(self.shuffle_cost, self.shuffle_cost_error)
            lines.append(f"another example's z costs {cost} nats ({self.subset:,} examples)")
        if self.mutual_information is not None and self.aggregate_kl is not None:
            given = " given the label" if self.data["labels"] else ""
            lines.append(
                f"mutual information{given} {self.mutual_information:.2f} nats (estimate, at most"
                f" {self.mutual_information_ceiling:.2f} from {self.information_examples:,} examples), aggregate KL"
                f"{' at most' * self.saturated} {_with_error(self.aggregate_kl, None)} nats"
            )
        return lines


def _with_error(value: float, error: float | None, digits: int = 2) -> str:
    value = round(value, digits) + 0.0  # no -0.00
    return f"{value:.{digits}f}" if error is None else f"{value:.{digits}f} ± {error:.{digits}f}"
