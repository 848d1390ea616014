"""A family for each column of a table."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor

from ancestral.core import Family
from ancestral.families.base import Continuous
from ancestral.families.bernoulli import Bernoulli
from ancestral.families.categorical import Categorical
from ancestral.symbols import DataError


@dataclass(frozen=True)
class Columns(Family):
    """Columns of different kinds: site i of a vector is distributed as family i says.

    Here, unlike in other families, parameters are (..., D, k) and symbols (..., D), whole examples; k is that of the family
    that reads the most, the others leave the rest unread. Symbols are real numbers, whole ones where a column is discrete,
    and a log-probability is a density just where its column's is. ``at`` gives the family of one column.

    Attributes:
        families: one for each of the D sites.

    Raises:
        ValueError: there are no families.
        DataError: parameters have another number of sites.

    Example:
        >>> from ancestral.families import Bernoulli, Columns, Normal
        >>> family = Columns((Bernoulli(), Normal()))
        >>> family.log_prob(torch.zeros(2, 2), torch.tensor([1.0, 0.0]))
        tensor([-0.6931, -0.9189])
        >>> family.at(1)
        Normal()
    """

    families: tuple[Family, ...]
    size: int = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "families", tuple(self.families))
        if not self.families:
            raise ValueError("columns need a family each, and there are none")
        object.__setattr__(self, "size", max(family.size for family in self.families))

    @classmethod
    def of(cls, levels: Sequence[int | None], real: Continuous) -> Columns:
        """The usual families of ``DataSpec.columns``: Bernoulli, categorical from 3 levels on, ``real`` where there are none."""
        return cls(tuple(real if count is None else Bernoulli() if count == 2 else Categorical(count) for count in levels))

    def at(self, sites: int | tuple[int, ...]) -> Family:
        """The family of one site, or `Columns` of several."""
        return self.families[sites] if isinstance(sites, int) else Columns(tuple(self.families[site] for site in sites))

    def log_prob(self, parameters: Tensor, symbols: Tensor) -> Tensor:
        """(..., D, k) parameters and (..., D) symbols to (..., D) log-probabilities or log-densities, in nats."""
        return self._each(parameters, lambda family, some, sites: family.log_prob(some, symbols[..., sites]))

    def quantile(self, parameters: Tensor, u: Tensor) -> Tensor:
        """(..., D, k) parameters and (..., D) uniforms to (..., D) symbols."""
        return self._each(parameters, lambda family, some, sites: family.quantile(some, u[..., sites]))

    def mode(self, parameters: Tensor) -> Tensor:
        """(..., D, k) parameters to (..., D) most probable symbols of each column."""
        return self._each(parameters, lambda family, some, sites: family.mode(some))

    def log_pmf(self, parameters: Tensor) -> Tensor:
        """Columns have alphabets of their own, or none.

        Raises:
            DataError: always.
        """
        raise DataError("columns have no probabilities in common: take those of one column with at(site).log_pmf")

    def table(self, parameters: Tensor, precision: int) -> Tensor:
        """Columns have alphabets of their own, or none.

        Raises:
            DataError: always.
        """
        raise DataError("columns have no integer tables in common: take those of one column with at(site).table")

    def _each(self, parameters: Tensor, act: Callable[[Family, Tensor, list[int]], Tensor]) -> Tensor:
        """(..., D) what ``act`` makes of all columns of a family at once, for every family that there is."""
        if parameters.dim() < 2 or parameters.shape[-2] != len(self.families):
            raise DataError(f"parameters of shape {tuple(parameters.shape)} are not (..., {len(self.families)}, {self.size})")
        alike: dict[Family, list[int]] = {}
        for site, family in enumerate(self.families):
            alike.setdefault(family, []).append(site)
        parts = [act(family, parameters[..., sites, : family.size], sites) for family, sites in alike.items()]
        places = torch.tensor([site for sites in alike.values() for site in sites], device=parameters.device)
        return torch.cat([part.to(parameters.dtype) for part in parts], -1)[..., places.argsort()]
