"""What all discrete families share, and what all continuous ones share."""

from __future__ import annotations

from abc import abstractmethod
from typing import TYPE_CHECKING

from torch import Tensor

from ancestral.core import DataError, Family
from ancestral.families.tables import leaky_table

if TYPE_CHECKING:
    from ancestral.families.integer import Integer


class Discrete(Family):
    """A family over 0 .. levels - 1: its probabilities give the mode and the tables."""

    levels: int

    def mode(self, parameters: Tensor) -> Tensor:
        """(..., k) to (...) most probable symbols, the lowest of equals."""
        return self.log_pmf(parameters).argmax(-1)

    def table(self, parameters: Tensor, precision: int) -> Tensor:
        """(..., k) to (..., levels + 1) cumulative integers from 0 to 2^precision, strictly increasing; see ``leaky_table``.

        Raises:
            ValueError: 2^precision slots are fewer than the levels, or more than 2^32.
        """
        return leaky_table(self.log_pmf(parameters.double()).exp(), precision)

    def integer(self) -> Integer:
        """The integer twin, whose tables are the same on every machine: what files are coded with.

        Raises:
            DataError: the family has none.
            ValueError: its levels, components or range are more than the twin takes.
        """
        raise DataError(
            f"{self} has no integer twin, so files cannot be coded with it; "
            f"Bernoulli, Categorical, Logistic, LogisticMixture and Binned normals have one"
        )


class Continuous(Family):
    """A density on the real line; ``log_interval`` is what ``Binned`` makes bins of."""

    @abstractmethod
    def log_interval(self, parameters: Tensor, low: Tensor, high: Tensor) -> Tensor:
        """(..., k) parameters and (...) ends low < high to (...) log-probabilities in between, in nats.

        Ends may be infinite; gradients with respect to the parameters stay finite all the same.
        """

    def log_pmf(self, parameters: Tensor) -> Tensor:
        """A density has no probabilities.

        Raises:
            DataError: always.
        """
        raise self._not_discrete("probabilities of symbols")

    def table(self, parameters: Tensor, precision: int) -> Tensor:
        """A density has no table.

        Raises:
            DataError: always.
        """
        raise self._not_discrete("integer tables")

    def _not_discrete(self, what: str) -> DataError:
        return DataError(f"{self} is a density, which has no {what}; make it discrete with Binned({self}, levels)")


def thirds(parameters: Tensor, components: int) -> tuple[Tensor, Tensor, Tensor]:
    """(..., 3 K) parameters of a mixture of K to its logits, means and log-scales, (..., K) each."""
    logits, means, log_scales = parameters.view(*parameters.shape[:-1], 3, components).unbind(-2)
    return logits, means, log_scales


def check_count(name: str, count: int, least: int) -> None:
    """Raise ``ValueError`` where a family is given fewer levels or components than make sense."""
    if count < least:
        raise ValueError(f"{name} is {count}; it must be at least {least}")
