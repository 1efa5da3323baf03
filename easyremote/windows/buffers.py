"""Windows that look at single records again: sliding ones and those of so many records."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import msgspec
import numpy as np
import numpy.typing as npt

from easyremote.windows.guarding import Guarded, Raised, whole_or_single
from easyremote.windows.panes import grouped
from easyremote.windows.resting import earliest
from easyremote.windows.rows import Closed

if TYPE_CHECKING:
    from easyremote.windows.aggregates import Aggregator
    from easyremote.windows.assigners import CountWindow, Sliding

__all__ = ["Counted", "Slid"]

Ints = npt.NDArray[np.int64]
Columns = Mapping[str, npt.NDArray[Any]]
_HELD = np.dtype([("series", "<i8"), ("event_ms", "<i8"), ("offset", "<i8"), ("told", "?")])


class _Records:
    """The records that a window still needs, in the order of series, event time and offset.

    A record behind the watermark is late: so what is due is complete, whenever it is asked for.
    """

    def __init__(self, aggregates: Sequence[Aggregator]) -> None:
        self._aggregates = aggregates
        self._held = np.zeros(0, _HELD)
        self.columns: dict[str, npt.NDArray[Any]] = {}
        """Of what is held."""
        self._restored: list[tuple[npt.NDArray[Any], Columns]] = []
        """Series put back that nobody has looked at yet: all of them are put in order at once."""

    @property
    def held(self) -> npt.NDArray[Any]:
        """Rows of `_HELD`; `told` of a record whose own turn has come and that is kept for those after it."""
        if self._restored:
            rows, columns = zip(*self._restored, strict=True)
            self._restored = []
            self._put(
                np.concatenate(rows), {name: np.concatenate([one[name] for one in columns]) for name in columns[0]}
            )
        return self._held

    def lateness(self, event_ms: Ints, limit_ms: Ints) -> Ints:
        """Return how late each record is, ms; below 0 where it is in time."""
        late: Ints = limit_ms - event_ms - 1
        return late

    def add(self, series: Ints, event_ms: Ints, offsets: Ints, columns: Columns) -> None:
        """Take in records that are in time."""
        new = np.zeros(len(series), _HELD)
        new["series"], new["event_ms"], new["offset"] = series, event_ms, offsets
        self._put(new, columns)

    def open_ends(self) -> tuple[Ints, Ints]:
        """Return the series and the end of each record whose turn has not come."""
        waiting = self.held[~self.held["told"]]
        return waiting["series"], waiting["event_ms"] + 1

    def drop(self, series: Ints) -> None:
        """Let go what is held of some series, untold."""
        self._keep(~np.isin(self.held["series"], series))

    def pack(self, series: Ints) -> list[bytes]:
        """Return what is held of each of some series."""
        owner = self.held["series"]
        edges = zip(np.searchsorted(owner, series), np.searchsorted(owner, series, side="right"), strict=True)
        packed = []
        for first, end in edges:
            rows = [list(row)[1:] for row in self.held[first:end].tolist()]
            columns = {name: column[first:end].tolist() for name, column in self.columns.items()}
            packed.append(msgspec.msgpack.encode([rows, columns]) if rows else b"")
        return packed

    def restore(self, series: int, packed: bytes) -> None:
        """Put a series back as `pack` gave it."""
        if not packed:
            return
        rows, values = msgspec.msgpack.decode(packed, type=tuple[list[tuple[int, int, bool]], dict[str, list[Any]]])
        new = np.array([(series, *row) for row in rows], _HELD)
        self._restored.append((new, {name: _column(column) for name, column in values.items()}))

    def _put(self, new: npt.NDArray[Any], columns: Columns) -> None:
        held = np.concatenate([self.held, new])
        order = np.lexsort((held["offset"], held["event_ms"], held["series"]))
        self._held = held[order]
        for name in {name for aggregate in self._aggregates if (name := aggregate.column) is not None}:
            known = self.columns.get(name, columns[name][:0])
            self.columns[name] = np.concatenate([known, columns[name]])[order]

    def _keep(self, kept: npt.NDArray[np.bool_]) -> None:
        self._held = self.held[kept]
        self.columns = {name: column[kept] for name, column in self.columns.items()}

    def _states(self, begin: Ints, end: Ints) -> tuple[list[npt.NDArray[Any]], dict[int, Raised]]:
        """Return the states of windows that hold the records `[begin, end)`, and what a user's code raised instead."""
        if not len(begin):
            return [aggregate.empty(0) for aggregate in self._aggregates], {}
        guarded = any(isinstance(aggregate, Guarded) for aggregate in self._aggregates)
        order, first = _spread(begin, end)
        if not guarded:
            return grouped(self._aggregates, self.columns, order, first), {}
        states: list[npt.NDArray[Any]] = []
        errors: dict[int, Raised] = {}
        for aggregate in self._aggregates:

            def made(windows: Ints, aggregate: Aggregator = aggregate) -> npt.NDArray[Any]:
                return grouped([aggregate], self.columns, *_spread(begin[windows], end[windows]))[0]

            whole, raised = whole_or_single(aggregate, len(begin), made)
            states.append(whole)
            errors |= raised
        return states, errors


def _spread(begin: Ints, end: Ints) -> tuple[Ints, Ints]:
    """Return the places `[begin, end)` of each of some windows, and where each window begins among them."""
    count = end - begin
    first = np.cumsum(count) - count
    return np.arange(int(count.sum())) - np.repeat(first, count) + np.repeat(begin, count), first


def _column(values: list[Any]) -> npt.NDArray[Any]:
    if all(isinstance(value, float) for value in values):
        return np.array(values, np.float64)
    column = np.empty(len(values), object)
    column[:] = values
    return column


class Slid(_Records):
    """Sliding windows: for each time of a record, `(t - size, t]`.

    Parameters
    ----------
    windows : Sliding
        How far back they reach.
    aggregates : sequence of Aggregator
        What each window holds.
    """

    def __init__(self, windows: Sliding, aggregates: Sequence[Aggregator]) -> None:
        super().__init__(aggregates)
        self._size_ms = windows.size_ms

    def bounds(self, event_ms: Ints) -> tuple[Ints, Ints]:
        """Return start and end of the window that ends with each event."""
        return event_ms - self._size_ms + 1, event_ms + 1

    def wakes(self, series: Ints) -> Ints:
        """Return the event time at which something of each of some series, rising, is due or spent first."""
        held = self.held
        return earliest(series, held["series"], held["event_ms"] + np.where(held["told"], self._size_ms, 1))

    def due(self, is_due: Callable[[Ints, Ints], npt.NDArray[np.bool_]]) -> Closed:
        """Close the windows of which `is_due(series, end)` says so; return them by end and series."""
        held = self.held
        series, times = held["series"], held["event_ms"]
        ready = ~held["told"] & is_due(series, times + 1)
        # Records of one time share one window, which ends behind the last of them.
        last = np.ones(len(held), np.bool_)
        last[:-1] = (series[1:] != series[:-1]) | (times[1:] != times[:-1])
        closing = np.flatnonzero(ready & last)
        first_of_series = np.searchsorted(series, series[closing]).tolist()
        begin = np.array(
            [
                np.searchsorted(times[first:place], times[place] - self._size_ms, side="right") + first
                for place, first in zip(closing.tolist(), first_of_series, strict=True)
            ],
            np.int64,
        )
        order = np.lexsort((series[closing], times[closing]))
        closing, begin = closing[order], begin[order]
        end = times[closing] + 1
        states, errors = self._states(begin, closing + 1)
        bounds = (series[closing], end - self._size_ms, end)
        self.held["told"] |= ready
        # A record that comes may be of the limit's own time, and its window reaches back from there.
        spent = self.held["told"] & is_due(series, times + self._size_ms)
        let_go = np.unique(series[spent]).tolist()
        if let_go:
            self._keep(~spent)
        return Closed(*bounds, states, let_go, errors)


class Counted(_Records):
    """Windows of so many records, in the order of event time.

    Parameters
    ----------
    windows : CountWindow
        Size and hop, records.
    aggregates : sequence of Aggregator
        What each window holds.
    """

    def __init__(self, windows: CountWindow, aggregates: Sequence[Aggregator]) -> None:
        super().__init__(aggregates)
        self._windows = windows

    def bounds(self, event_ms: Ints) -> tuple[Ints, Ints]:
        """Return the bounds of each event alone."""
        return event_ms, event_ms + 1

    def wakes(self, series: Ints) -> Ints:
        """Return the event time at which the turn of a record of each of some series, rising, comes first."""
        return earliest(series, *self.open_ends())

    def due(self, is_due: Callable[[Ints, Ints], npt.NDArray[np.bool_]]) -> Closed:
        """Close the full windows whose last record `is_due(series, end)`; return them by end and series."""
        held = self.held
        series, times = held["series"], held["event_ms"]
        held["told"] |= is_due(series, times + 1)
        size, hop = self._windows.size, self._windows.hop
        first = np.flatnonzero(np.diff(series, prepend=-1))
        kept = np.ones(len(held), np.bool_)
        begins: list[npt.NDArray[np.int64]] = [np.zeros(0, np.int64)]
        # What has been told is each series' beginning; a window begins at each hop of it.
        told = np.add.reduceat(held["told"].astype(np.int64), first) if len(first) else np.zeros(0, np.int64)
        for begin, count in zip(first[told >= size].tolist(), told[told >= size].tolist(), strict=True):
            windows = (count - size) // hop + 1
            begins.append(begin + hop * np.arange(windows))
            kept[begin : begin + hop * windows] = False
        begin = np.concatenate(begins)
        last = begin + size - 1
        order = np.lexsort((series[last], times[last]))
        begin, last = begin[order], last[order]
        states, errors = self._states(begin, last + 1)
        closed = Closed(series[last], times[begin], times[last] + 1, states, errors=errors)
        if not kept.all():
            self._keep(kept)
        return closed
