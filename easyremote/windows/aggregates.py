"""What a window says of its records: count, sum, mean, extremes, variance."""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt

from easyremote.errors import WindowError
from easyremote.windows.moments import Moments

__all__ = [
    "Aggregate",
    "Aggregator",
    "Count",
    "Invalid",
    "Max",
    "Mean",
    "Min",
    "NumericCount",
    "StdDev",
    "Sum",
    "Variance",
]

Ints = npt.NDArray[np.int64]
States = npt.NDArray[Any]
"""One state for each place, of whatever dtype the aggregator uses. Any: each has its own."""


class Aggregator(Protocol):
    """A state that is computed for groups of a batch and merged: the arithmetic of one or several aggregates."""

    @property
    def column(self) -> str | None:
        """The column that it reads; None: records alone count."""
        ...

    def empty(self, n: int) -> States:
        """Return n states of nothing."""
        ...

    def of_groups(self, values: npt.NDArray[Any], first: Ints) -> States:
        """Return the state of each group of a batch, of which `first` says where it begins."""
        ...

    def merge(self, states: States, places: Ints, partial: States) -> None:
        """Merge partial states into places of `states`, each given once."""
        ...

    def pack(self, states: States) -> list[bytes]:
        """Return each state as bytes."""
        ...

    def unpack(self, packed: Sequence[bytes]) -> States:
        """Return states from what `pack` gave; a WindowError if they are of another form."""
        ...


class Aggregate(Protocol):
    """What a user asks for; equal states of a pipeline are kept once."""

    @property
    def state(self) -> Aggregator:
        """The state that it is read from."""
        ...

    def results(self, states: States) -> list[Any]:
        """Return its result for each state: something that JSON can hold."""
        ...


@dataclass(frozen=True)
class _Records:
    """The number of records."""

    column: None = None

    def empty(self, n: int) -> States:
        return np.zeros(n, np.int64)

    def of_groups(self, values: npt.NDArray[Any], first: Ints) -> States:
        return np.diff(first, append=len(values))

    def merge(self, states: States, places: Ints, partial: States) -> None:
        states[places] += partial

    def pack(self, states: States) -> list[bytes]:
        return [b"%d" % state for state in states.tolist()]

    def unpack(self, packed: Sequence[bytes]) -> States:
        try:
            return np.array([int(one) for one in packed], np.int64)
        except ValueError as error:
            raise WindowError("the state of a count is a number: this is that of another aggregate") from error


@dataclass(frozen=True)
class Count:
    """How many records there are, whatever they hold."""

    @property
    def state(self) -> Aggregator:
        """The number of records."""
        return _Records()

    def results(self, states: States) -> list[int]:
        """Return the counts."""
        counts: list[int] = states.tolist()
        return counts


@dataclass(frozen=True)
class _OfColumn:
    """An aggregate of a column's numbers.

    Parameters
    ----------
    column : str
        The field; what is no number in it is left out, NaN and the infinities are counted by `Invalid`.
    """

    column: str

    @property
    def state(self) -> Aggregator:
        """What all aggregates of this column's numbers share."""
        return Moments(self.column)


class _OfNumbers(_OfColumn, ABC):
    """What is made of a column's numbers; None where there is none."""

    def results(self, states: States) -> list[float | None]:
        """Return the result of each state, None where it holds no number."""
        found = self._of(states).tolist()
        return [one if count else None for one, count in zip(found, states["count"].tolist(), strict=True)]

    @abstractmethod
    def _of(self, states: States) -> States:
        """Return the result of each state that holds a number."""


class NumericCount(_OfColumn):
    """How many finite numbers there are."""

    def results(self, states: States) -> list[int]:
        """Return the counts."""
        counts: list[int] = states["count"].tolist()
        return counts


class Invalid(_OfColumn):
    """How many NaN, infinities and numbers beyond 1e150 the other aggregates left out."""

    def results(self, states: States) -> list[int]:
        """Return the counts."""
        counts: list[int] = states["invalid"].tolist()
        return counts


class Sum(_OfNumbers):
    """The sum, rounded once."""

    def _of(self, states: States) -> States:
        return np.asarray(states["sum"] + states["lost"])


class Mean(_OfNumbers):
    """The arithmetic mean."""

    def _of(self, states: States) -> States:
        return np.asarray((states["sum"] + states["lost"]) / np.maximum(states["count"], 1))


class Min(_OfNumbers):
    """The least."""

    def _of(self, states: States) -> States:
        return np.asarray(states["min"])


class Max(_OfNumbers):
    """The greatest."""

    def _of(self, states: States) -> States:
        return np.asarray(states["max"])


class Variance(_OfNumbers):
    """The population's variance, in the square of the column's unit."""

    def _of(self, states: States) -> States:
        return np.asarray(states["m2"] / np.maximum(states["count"], 1))


class StdDev(_OfNumbers):
    """The population's standard deviation."""

    def _of(self, states: States) -> States:
        # numpy's root of many differs from that of one in the last bit, and results must not depend on how many.
        return np.array([math.sqrt(one) for one in (states["m2"] / np.maximum(states["count"], 1)).tolist()])
