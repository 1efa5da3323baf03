"""Quantiles: exact while there are few numbers, then by logarithmic bins of a bounded relative error."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import TYPE_CHECKING, Any

import msgspec
import numpy as np
import numpy.typing as npt

from easyremote.errors import WindowError
from easyremote.windows.moments import numbers_of

if TYPE_CHECKING:
    from easyremote.windows.aggregates import Aggregator

__all__ = ["EXACT", "RELATIVE_ERROR", "Median", "Quantile"]

Ints = npt.NDArray[np.int64]
States = npt.NDArray[Any]
"""Of `_Numbers`, as objects."""

EXACT = 512
"""Numbers of a window up to which its quantiles are exact."""
RELATIVE_ERROR = 0.005
"""Most error of a quantile of more numbers, as a share of its absolute value."""

_LOG_GAMMA = math.log((1 + RELATIVE_ERROR) / (1 - RELATIVE_ERROR))
_ZERO = 1 << 20
"""Above the number of any bin's absolute index: a bin's key is its index and this, with the number's sign."""


class _Numbers(msgspec.Struct, array_like=True):
    """All numbers, or how many are in each bin; which of both depends on their count alone."""

    values: list[float] = msgspec.field(default_factory=list)
    bins: dict[int, int] = msgspec.field(default_factory=dict)

    def add(self, values: list[float], bins: dict[int, int]) -> None:
        if not self.bins and not bins and len(self.values) + len(values) <= EXACT:
            self.values = self.values + values
            return
        counts = dict(self.bins)
        for more in (bins, _binned(self.values), _binned(values)):
            for key, count in more.items():
                counts[key] = counts.get(key, 0) + count
        self.values, self.bins = [], counts

    def quantile(self, q: float) -> float | None:
        if self.values:
            return float(np.quantile(np.array(self.values), q))
        if not self.bins:
            return None
        keys = sorted(self.bins)
        ranks = np.cumsum([self.bins[key] for key in keys])
        return _middle(keys[int(np.searchsorted(ranks, math.floor(q * (ranks[-1] - 1)), side="right"))])


_decode_numbers = msgspec.msgpack.Decoder(_Numbers).decode


def _binned(values: list[float]) -> dict[int, int]:
    numbers = np.array(values, np.float64)
    sizes = np.abs(numbers)
    index = np.ceil(np.log(np.where(sizes > 0, sizes, 1.0)) / _LOG_GAMMA).astype(np.int64) + _ZERO
    keys, counts = np.unique(np.where(sizes > 0, np.sign(numbers).astype(np.int64) * index, 0), return_counts=True)
    return dict(zip(keys.tolist(), counts.tolist(), strict=True))


def _middle(key: int) -> float:
    if key == 0:
        return 0.0
    return math.copysign(math.exp((abs(key) - _ZERO) * _LOG_GAMMA) * (1 - RELATIVE_ERROR), key)


@dataclass(frozen=True)
class _State:
    column: str

    def empty(self, n: int) -> States:
        states = np.empty(n, object)
        for place in range(n):
            states[place] = _Numbers()
        return states

    def of_groups(self, values: npt.NDArray[Any], first: Ints) -> States:
        states = self.empty(len(first))
        for place, group in enumerate(_groups(values, first)):
            states[place].add(group, {})
        return states

    def merge(self, states: States, places: Ints, partial: States) -> None:
        for place, part in zip(places.tolist(), partial, strict=True):
            # A new object: states are handed on to results while windows go on.
            held: _Numbers = states.item(place)
            whole = _Numbers(held.values, held.bins)
            whole.add(part.values, part.bins)
            states[place] = whole

    def pack(self, states: States) -> list[bytes]:
        return [msgspec.msgpack.encode(state) for state in states]

    def unpack(self, packed: Sequence[bytes]) -> States:
        states = np.empty(len(packed), object)
        try:
            for place, one in enumerate(packed):
                states[place] = _decode_numbers(one)
        except msgspec.MsgspecError as error:
            raise WindowError(f"the state of a quantile has another form: {error}") from error
        return states


def _groups(values: npt.NDArray[Any], first: Ints) -> Iterator[list[float]]:
    numbers, counts = numbers_of(values)
    counts = counts & np.isfinite(numbers)
    for begin, end in pairwise([*first.tolist(), len(values)]):
        yield numbers[begin:end][counts[begin:end]].tolist()


@dataclass(frozen=True)
class Quantile:
    """A quantile of a column's finite numbers; None where there is none.

    Exact, interpolated as numpy does it, up to 512 numbers; then within 0.5% of its absolute value, by bins whose
    counts do not depend on the order or the grouping of the numbers. (KLL's do: it draws lots.)

    Parameters
    ----------
    column : str
        The field; what is no number in it is left out.
    q : float
        From 0 to 1: 0.5 is the median.

    Raises
    ------
    WindowError
        If q is outside.

    References
    ----------
    Masson, Rim and Lee, "DDSketch: A Fast and Fully-Mergeable Quantile Sketch", VLDB 2019.
    """

    column: str
    q: float

    def __post_init__(self) -> None:
        if not 0 <= self.q <= 1:
            raise WindowError(f"a quantile of {self.q} is not possible: q is from 0 to 1, 0.99 for the 99th percentile")

    @property
    def state(self) -> Aggregator:
        """What all quantiles of the column share."""
        return _State(self.column)

    def results(self, states: States) -> list[float | None]:
        """Return the quantile of each state."""
        return [state.quantile(self.q) for state in states]


class Median(Quantile):
    """The median of a column's finite numbers.

    Parameters
    ----------
    column : str
        The field.
    """

    def __init__(self, column: str) -> None:
        super().__init__(column, 0.5)
