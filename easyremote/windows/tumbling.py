"""Open tumbling windows, and the aggregates that they hold: count, sum, min, max and variance."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import numpy as np
import numpy.typing as npt

from easyremote.errors import WindowError
from easyremote.windows.moments import LARGEST, difference_of_means, sums_of_groups, two_sum

__all__ = ["WINDOW", "Groups", "OpenWindows", "group_by_window", "window_start"]

WINDOW = np.dtype(
    [
        ("start", "<i8"),
        ("count", "<i8"),
        ("sum", "<f8"),
        ("lost", "<f8"),
        ("m2", "<f8"),
        ("min", "<f8"),
        ("max", "<f8"),
    ]
)
"""State of one window; `lost` is what rounding has taken from `sum`, `m2` the sum of squared deviations."""

_EMPTY = np.array((0, 0, 0.0, 0.0, 0.0, np.inf, -np.inf), WINDOW)
_NONE: Mapping[int, int] = {}
Rows = npt.NDArray[Any]  # Any: a structured array has no static type for its fields
Ints = npt.NDArray[np.int64]
Floats = npt.NDArray[np.float64]


def window_start(event_ms: int, size_ms: int) -> int:
    """Return the start of the tumbling window that holds an event.

    Parameters
    ----------
    event_ms : int
        Event time, ms since the Unix epoch, UTC.
    size_ms : int
        Window length, ms, > 0. Windows are `[start, start + size_ms)`.

    Returns
    -------
    int
        Start, ms; a multiple of `size_ms`.

    Raises
    ------
    WindowError
        If `size_ms` is not positive.

    References
    ----------
    Akidau et al., "The Dataflow Model", VLDB 2015.

    Examples
    --------
    >>> window_start(12_345, 10_000)
    10000
    """
    if size_ms <= 0:
        raise WindowError(f"a window of {size_ms} ms is not possible: its length must be positive")
    return event_ms - event_ms % size_ms


@dataclass(frozen=True, slots=True)
class Groups:
    """A batch's readings put together by series and window; arrays of shape (g,)."""

    series: Ints
    start: Ints
    count: Ints
    sum: Floats
    lost: Floats
    """What rounding took from `sum`."""
    m2: Floats
    min: Floats
    max: Floats


def group_by_window(series: Ints, start: Ints, values: Floats, size_ms: int) -> Groups:
    """Aggregate a batch, sorted by series, into one row for each series and window.

    Parameters
    ----------
    series : ndarray of int64, shape (n,)
        Rising.
    start : ndarray of int64, shape (n,)
        Start of each reading's window, ms.
    values : ndarray of float64, shape (n,)
        The readings.
    size_ms : int
        Window length, ms.

    References
    ----------
    The variance in two passes: Chan, Golub and LeVeque, "Algorithms for computing the sample variance", 1983.
    """
    number = (start - start.min()) // size_ms
    rank = np.cumsum(np.diff(series, prepend=series[0]) != 0)
    both = rank * (number.max() + 1) + number
    if np.any(both[1:] < both[:-1]):
        order = np.argsort(both, kind="stable")
        both, series, start, values = both[order], series[order], start[order], values[order]
    first = np.flatnonzero(np.diff(both, prepend=-1))
    count = np.diff(first, append=len(both))
    least, most = np.minimum.reduceat(values, first), np.maximum.reduceat(values, first)
    total, lost = _sums(values, first, count, np.maximum(-least, most))
    deviation = values - np.repeat(total / count, count)
    # The mean was rounded: what the deviations sum up to is taken out again.
    off = np.add.reduceat(deviation, first)
    return Groups(
        series[first],
        start[first],
        count,
        total,
        lost,
        np.maximum(np.add.reduceat(deviation * deviation, first) - off * off / count, 0.0),
        least,
        most,
    )


def _sums(values: Floats, first: Ints, count: Ints, largest: Floats) -> tuple[Floats, Floats]:
    """Return the sum of each group in two parts, the same however its readings came; `largest` is of each, unsigned."""
    if largest.max() <= LARGEST:
        return sums_of_groups(values, first, count, largest)
    total = np.add.reduceat(values, first)
    return total, np.zeros(len(total))


class OpenWindows:
    """The open windows of many series, as rows of one array that grows."""

    def __init__(self) -> None:
        self.rows: Rows = np.zeros(256, WINDOW)
        self._free = list(range(255, -1, -1))
        self.of_series: dict[int, dict[int, int]] = {}
        """Row of each open window, by series and start."""

    def merge(self, groups: Groups) -> None:
        """Add a batch's groups to their windows, opening those that are new."""
        places = self._places(groups)
        rows = self.rows
        held = rows[places]
        count = held["count"]
        both = count + groups.count
        with np.errstate(over="ignore", invalid="ignore"):  # the variance of the largest numbers is none
            delta = difference_of_means({"count": groups.count, "sum": groups.sum, "lost": groups.lost}, held)
            rows["m2"][places] += groups.m2 + delta * (count * (groups.count / both)) * delta
        rows["count"][places] = both
        total, error = two_sum(held["sum"], groups.sum)
        rows["sum"][places], rows["lost"][places] = two_sum(total, error + held["lost"] + groups.lost)
        rows["min"][places] = np.minimum(rows["min"][places], groups.min)
        rows["max"][places] = np.maximum(rows["max"][places], groups.max)

    def add(self, series: int, row: Any) -> None:  # Any: a row of the structured array
        """Put a window back that was kept elsewhere."""
        place = self._open(series, int(row["start"]))
        self.rows[place] = row

    def take_out(self, windows: list[tuple[int, int]]) -> Rows:
        """Close windows, each given as (series, start); return a copy of their rows."""
        places = []
        for series, start in windows:
            held = self.of_series[series]
            places.append(held.pop(start))
            if not held:
                del self.of_series[series]
        rows = self.rows[places]
        self._free.extend(places)
        return rows

    def packed(self, series: Sequence[int]) -> list[bytes]:
        """Return the bytes of each of some series' open windows."""
        held = [self.of_series.get(number, _NONE).values() for number in series]
        rows = self.rows[[place for places in held for place in places]].tobytes()
        ends = np.cumsum([0, *map(len, held)]) * WINDOW.itemsize
        return [rows[begin:end] for begin, end in pairwise(ends.tolist())]

    def _places(self, groups: Groups) -> Ints:
        places, opened = [], []
        of_series = self.of_series
        for number, (series, start) in enumerate(zip(groups.series.tolist(), groups.start.tolist(), strict=True)):
            held = of_series.get(series)
            place = None if held is None else held.get(start)
            if place is None:
                place = self._open(series, start)
                opened.append(number)
            places.append(place)
        found = np.array(places, np.int64)
        if opened:
            fresh = np.full(len(opened), _EMPTY)
            fresh["start"] = groups.start[opened]
            self.rows[found[opened]] = fresh
        return found

    def _open(self, series: int, start: int) -> int:
        if not self._free:
            size = len(self.rows)
            self.rows = np.concatenate([self.rows, np.zeros(size, WINDOW)])
            self._free.extend(range(2 * size - 1, size - 1, -1))
        place = self._free.pop()
        self.of_series.setdefault(series, {})[start] = place
        return place
