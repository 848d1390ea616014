"""Integer twins of the discrete families: from integer parameters to intervals of 2^24 slots, the same on every machine.

Networks that are carried out in integers give each parameter as a 16-bit integer of known fraction. A twin makes of them,
without any floating-point number, the table that an entropy coder needs, here with few slots::

    0   1                    8     10        14  15
    | - |      symbol 0      |  1  |    2    | - |

Every symbol owns one slot and its share of the others, so that none is impossible. The slots at both ends belong to nobody:
an encoder that knows only one symbol's interval can hand the coder three intervals, none of which is empty.

The rule: with F_j the weight of the symbols below j, S the weight of all, both integers, and T = 2^24, entry j is
1 + j + floor(F_j r / 2^30), where r = floor((T - 2 - levels) 2^30 / S); entry 0 is 1 and the last one T - 1.
"""

from __future__ import annotations

from abc import abstractmethod
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional as F

from ancestral.core import Family
from ancestral.families import fixed
from ancestral.families.base import check_count, thirds
from ancestral.families.fixed import SLOTS, Integers
from ancestral.symbols import DataError

RATE = 30  # fraction bits of r; S is at least 2^24, so that F r stays below 2^54
MOST_WEIGHTS = 1024  # above, r keeps less than 20 bits
MOST_LEVELS = 1 << 16  # one slot for each is 0.4 % of all slots
WIDEST = 8.0  # 16-bit means reach no further
CURVES = {"logistic": fixed.logistic, "normal": fixed.normal}


class Integer(Family):
    """A discrete family whose parameters are integers: (..., k) integers stand for integer * 2^-fraction.

    Parameters are within 16 bits, of any integer type; symbols are 0 .. levels - 1; slots are 0 .. 2^24 - 1. All that is
    given back is int64.

    As a `Family` it gives what a coder spends, so the probabilities of all symbols sum to 1 - 2^-23.

    Attributes:
        levels: size of the alphabet.
    """

    levels: int

    @property
    @abstractmethod
    def fractions(self) -> tuple[int, ...]:
        """Fraction bits of each of the k parameters."""

    @property
    def size(self) -> int:  # type: ignore[override]
        """k, the number of parameters of one conditional."""
        return len(self.fractions)

    @abstractmethod
    def cumulative(self, parameters: Tensor) -> Tensor:
        """(..., k) to (..., levels + 1) entries from 1 to 2^24 - 1, strictly increasing.

        Raises:
            DataError: parameters are not integers.
        """

    @abstractmethod
    def tables(self) -> dict[str, Integers]:
        """The function tables that this family reads, by name; ``fixed.checksum`` tells whether they are the right ones."""

    def interval(self, parameters: Tensor, symbols: Tensor) -> tuple[Tensor, Tensor]:
        """(..., k) and (...) symbols to (...) first slots and (...) numbers of slots, at least one.

        Raises:
            DataError: parameters are not integers.
        """
        table, symbols = self.cumulative(parameters), symbols.long().unsqueeze(-1)
        start, end = (table.gather(-1, place).squeeze(-1) for place in (symbols, symbols + 1))
        return start, end - start

    def log_prob(self, parameters: Tensor, symbols: Tensor) -> Tensor:
        """(..., k) and (...) symbols to (...) nats, float64: log(slots of the symbol / 2^24), what a coder spends.

        Raises:
            DataError: parameters are not integers.
        """
        return torch.log(self.interval(parameters, symbols)[1].double() / SLOTS)

    def symbol(self, parameters: Tensor, slots: Tensor) -> Tensor:
        """(..., k) and (...) slots to (...) symbols that own them; slots 0 and 2^24 - 1 go to the first and the last symbol.

        Raises:
            DataError: parameters are not integers.
        """
        return (self.cumulative(parameters)[..., 1:-1] <= slots.unsqueeze(-1)).sum(-1)

    def log_pmf(self, parameters: Tensor) -> Tensor:
        """(..., k) to (..., levels) nats, float64."""
        return torch.log(self.cumulative(parameters).diff(dim=-1).double() / SLOTS)

    def quantile(self, parameters: Tensor, u: Tensor) -> Tensor:
        """(..., k) and (...) uniforms to the symbols that own slot floor(u 2^24)."""
        return self.symbol(parameters, (u.double() * SLOTS).long())

    def mode(self, parameters: Tensor) -> Tensor:
        """(..., k) to the symbols with the most slots, the lowest of equals."""
        return self.cumulative(parameters).diff(dim=-1).argmax(-1)

    def table(self, parameters: Tensor, precision: int) -> Tensor:
        """(..., k) to (..., levels + 1) entries as in ``cumulative``, the two free slots given to the outermost symbols.

        Raises:
            ValueError: the precision is not 24.
        """
        if precision != fixed.PRECISION:
            raise ValueError(f"precision is {precision}; integer tables have {fixed.PRECISION} bits")
        inner = self.cumulative(parameters)[..., 1:-1]
        return torch.cat([torch.zeros_like(inner[..., :1]), inner, torch.full_like(inner[..., :1], SLOTS)], -1)

    def _entries(self, places: Tensor, below: Tensor, total: Tensor) -> Tensor:
        """Entries at places 0 .. levels, from the weight below each and the weight of all; the arguments broadcast."""
        rate = torch.full_like(total, (SLOTS - 2 - self.levels) << RATE) // total
        entries = 1 + places + ((below * rate) >> RATE)
        return entries.masked_fill(places >= self.levels, SLOTS - 1)

    def _whole(self, parameters: Tensor) -> Tensor:
        if parameters.is_floating_point() or parameters.shape[-1:] != (self.size,):
            raise DataError(
                f"{self} takes integers of shape (..., {self.size}), not {parameters.dtype} of {tuple(parameters.shape)}: "
                f"round the parameters to fixed point, whose fraction bits are its fractions"
            )
        return parameters.long()


@dataclass(frozen=True)
class IntegerBernoulli(Integer):
    """The twin of ``Bernoulli``: one logit of fraction 10; p(0) is the tabulated sigmoid of its negative.

    Example:
        >>> IntegerBernoulli().interval(torch.tensor([[0], [2048]]), torch.tensor([1, 1]))  # logits 0 and 2
        (tensor([8388608, 1999894]), tensor([ 8388607, 14777321]))
    """

    levels = 2

    @property
    def fractions(self) -> tuple[int, ...]:
        """Fraction bits of the logit."""
        return (fixed.LOGIT,)

    def cumulative(self, parameters: Tensor) -> Tensor:
        """(..., 1) logits to (..., 3) entries."""
        arguments = -self._whole(parameters) * (1 << (fixed.ARGUMENT - fixed.LOGIT))
        zeros = fixed.interpolate(fixed.on(arguments.device, fixed.logistic), arguments)
        total = torch.full_like(zeros, SLOTS)
        return self._entries(torch.arange(3, device=zeros.device), F.pad(zeros, (1, 1)), total)

    def tables(self) -> dict[str, Integers]:
        """The logistic curve."""
        return {"logistic": fixed.logistic()}


@dataclass(frozen=True)
class IntegerCategorical(Integer):
    """The twin of ``Categorical``: a logit of fraction 10 for each symbol, whose weight is the tabulated exponential.

    Attributes:
        levels: size of the alphabet, and number of parameters.

    Raises:
        ValueError: fewer than 2 levels or more than 1024.

    Example:
        >>> IntegerCategorical(3).cumulative(torch.tensor([0, 0, -32768]))  # the last one is out of all proportion
        tensor([       1,  8388607, 16777214, 16777215])
    """

    levels: int

    def __post_init__(self) -> None:
        check_range("levels", self.levels, 2, MOST_WEIGHTS)

    @property
    def fractions(self) -> tuple[int, ...]:
        """Fraction bits of each logit."""
        return (fixed.LOGIT,) * self.levels

    def cumulative(self, parameters: Tensor) -> Tensor:
        """(..., levels) logits to (..., levels + 1) entries."""
        below = F.pad(fixed.weights(self._whole(parameters)).cumsum(-1), (1, 0))
        return self._entries(torch.arange(self.levels + 1, device=below.device), below, below[..., -1:])

    def interval(self, parameters: Tensor, symbols: Tensor) -> tuple[Tensor, Tensor]:
        """As for every twin, from the sums at two places alone."""
        summed = fixed.weights(self._whole(parameters)).cumsum(-1)
        symbols, total = symbols.long(), summed[..., -1]
        end = summed.gather(-1, symbols.unsqueeze(-1)).squeeze(-1)
        before = summed.gather(-1, (symbols - 1).clamp_min(0).unsqueeze(-1)).squeeze(-1)
        start = self._entries(symbols, before.masked_fill(symbols == 0, 0), total)
        return start, self._entries(symbols + 1, end, total) - start

    def tables(self) -> dict[str, Integers]:
        """The exponential."""
        return {"exponential": fixed.exponential()}


@dataclass(frozen=True)
class IntegerBins(Integer):
    """The twin of the families that cut a density into bins: the logistic ones, and ``Binned`` normals.

    Parameters are [mean, log-scale], or for a mixture of K [K logits, K means, K log-scales], of fractions 10 for logits and
    log-scales and 12 for means. Log-scales are clamped to -7 .. 6. The weight below edge e is the sum over components of
    exp(logit) cdf((e - mean) exp(-log-scale)), everything from tables.

    Attributes:
        curve: which distribution function, ``"logistic"`` or ``"normal"``.
        levels: number of bins.
        components: K; ``None`` for a single density, which has no logit.
        low, high: where the lowest and the highest symbol stand, as in ``Binned``.

    Raises:
        ValueError: a field is not in its range: 2 .. 65536 levels, 1 .. 1024 components, -8 <= low < high <= 8.

    Example:
        >>> family = IntegerBins("logistic", levels=256)
        >>> family.log_prob(torch.tensor([0, -2048]), torch.tensor([0, 127, 255]))  # mean 0, log-scale -2
        tensor([-7.3608, -4.2344, -7.3606])
    """

    curve: str
    levels: int
    components: int | None = None
    low: float = -1.0
    high: float = 1.0

    def __post_init__(self) -> None:
        if self.curve not in CURVES:
            raise ValueError(f"curve is {self.curve!r}; it must be one of {', '.join(CURVES)}")
        check_range("levels", self.levels, 2, MOST_LEVELS)
        check_range("components", 1 if self.components is None else self.components, 1, MOST_WEIGHTS)
        if not -WIDEST <= self.low < self.high <= WIDEST:
            raise ValueError(f"bins from {self.low} to {self.high} are not within -8 .. 8, as far as 16-bit means reach: rescale")

    @property
    def fractions(self) -> tuple[int, ...]:
        """Fraction bits of [mean, log-scale] or of [K logits, K means, K log-scales]."""
        if self.components is None:
            return fixed.MEAN, fixed.LOG_SCALE
        return tuple(bits for bits in (fixed.LOGIT, fixed.MEAN, fixed.LOG_SCALE) for _ in range(self.components))

    def cumulative(self, parameters: Tensor) -> Tensor:
        """(..., k) to (..., levels + 1) entries."""
        return self._at(self._parts(parameters.unsqueeze(-2)), torch.arange(self.levels + 1, device=parameters.device))

    def interval(self, parameters: Tensor, symbols: Tensor) -> tuple[Tensor, Tensor]:
        """As for every twin, from two edges alone."""
        parts = self._parts(parameters)
        start, end = self._at(parts, symbols.long()), self._at(parts, symbols.long() + 1)
        return start, end - start

    def symbol(self, parameters: Tensor, slots: Tensor) -> Tensor:
        """As for every twin, by halving: log2(levels) edges instead of all."""
        parts = self._parts(parameters)
        owned = slots.clamp_max(SLOTS - 2)  # the last slot of all is the last entry, which no symbol starts at
        found = torch.zeros_like(slots, dtype=torch.long)
        for bit in reversed(range((self.levels - 1).bit_length())):
            place = found + (1 << bit)
            found = torch.where(self._at(parts, place) <= owned, place, found)
        return found

    def tables(self) -> dict[str, Integers]:
        """The curve, the inverse scales, the edges (edge j is entry j - 1), and for a mixture the exponential."""
        read = {
            self.curve: CURVES[self.curve](),
            "inverse_scale": fixed.inverse_scale(),
            "edges": fixed.edges(self.levels, self.low, self.high),
        }
        return read if self.components is None else read | {"exponential": fixed.exponential()}

    def _edges(self, device: torch.device) -> Tensor:
        return fixed.on(device, fixed.edges, self.levels, self.low, self.high)

    def _parts(self, parameters: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """(..., k) to (..., K) weights, means of the edges' fraction, and inverse scales."""
        parameters = self._whole(parameters)
        if self.components is None:
            means, log_scales = parameters.unsqueeze(-1).unbind(-2)
            logits = torch.zeros_like(means)
        else:
            logits, means, log_scales = thirds(parameters, self.components)
        return fixed.weights(logits), means * (1 << (fixed.EDGE - fixed.MEAN)), fixed.inverse_scales(log_scales)

    def _at(self, parts: tuple[Tensor, Tensor, Tensor], places: Tensor) -> Tensor:
        """(..., K) parts and (...) places 0, 1, ... to (...) entries there; places above the levels have the last one."""
        weights, means, inverse = parts
        edges = self._edges(places.device)[places.clamp(1, self.levels - 1) - 1]
        arguments = ((edges.unsqueeze(-1) - means) * inverse) >> (fixed.EDGE + fixed.INVERSE - fixed.ARGUMENT)
        shares = fixed.interpolate(fixed.on(places.device, CURVES[self.curve]), arguments)
        below = ((weights * shares).sum(-1) >> fixed.PRECISION).masked_fill(places == 0, 0)
        return self._entries(places, below, weights.sum(-1))


class EqualMassBins(IntegerBins):
    """A normal density, cut into 2^bits bins that are equally likely under the standard normal: a posterior for coding.

    Under the prior, a bin takes exactly ``bits`` bits (Townsend et al. 2019, arXiv:1901.04866, section 2.5). Parameters are
    [mean, log-scale] as for ``IntegerBins``.

    Example:
        >>> bins = EqualMassBins(bits=2)
        >>> bins.nearest(torch.tensor([-8192, -40, 40, 8192])), bins.centres
        (tensor([0, 1, 2, 3]), tensor([-4712, -1305,  1305,  4712]))
    """

    def __init__(self, bits: int) -> None:
        super().__init__("normal", 1 << bits)

    @property
    def bits(self) -> int:
        """What a bin takes under the prior."""
        return self.levels.bit_length() - 1

    @property
    def centres(self) -> Tensor:
        """(2^bits,) the medians of the bins under the standard normal, of fraction 12."""
        return torch.tensor(fixed.centres(self.bits), dtype=torch.int64)

    def nearest(self, means: Tensor) -> Tensor:
        """(...) values of fraction 12 to the bins that hold them."""
        edges = self._edges(means.device)
        return torch.searchsorted(edges, means.long() * (1 << (fixed.EDGE - fixed.MEAN)), right=True)

    def tables(self) -> dict[str, Integers]:
        """The curve, the inverse scales, the edges and the values of the bins."""
        own = {"edges": fixed.quantiles(self.bits), "centres": fixed.centres(self.bits)}
        return super().tables() | own

    def _edges(self, device: torch.device) -> Tensor:
        return fixed.on(device, fixed.quantiles, self.bits)


def check_range(name: str, count: int, least: int, most: int) -> None:
    """Raise ``ValueError`` where integer tables of so many levels or components make no sense or run out of digits."""
    check_count(name, count, least)
    if count > most:
        raise ValueError(f"{name} is {count}; integer tables take at most {most}")
