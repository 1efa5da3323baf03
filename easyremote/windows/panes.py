"""Tumbling and hopping windows: each record's work is done in one pane, and a window merges its panes."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from itertools import pairwise
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from easyremote.windows.guarding import Raised, whole_or_single
from easyremote.windows.resting import earliest
from easyremote.windows.rows import Closed
from easyremote.windows.slots import FREE, Slots, merge_into

if TYPE_CHECKING:
    from easyremote.windows.aggregates import Aggregator
    from easyremote.windows.assigners import Hopping

__all__ = ["Panes", "grouped"]

Ints = npt.NDArray[np.int64]
Columns = Mapping[str, npt.NDArray[Any]]
States = list[npt.NDArray[Any]]


def grouped(aggregates: Sequence[Aggregator], columns: Columns, order: Ints, first: Ints) -> States:
    """Return each aggregate's partial states of the groups of a batch, put in order first.

    Parameters
    ----------
    aggregates : sequence of Aggregator
        Which partial states.
    columns : mapping of str to ndarray, shape (n,)
        The batch.
    order : ndarray of int64, shape (m,)
        Places of the batch, group by group.
    first : ndarray of int64, shape (g,)
        Where each group begins in `order`.
    """
    sorted_columns: dict[str, npt.NDArray[Any]] = {}
    partial = []
    for aggregate in aggregates:
        name = aggregate.column
        if name is None:
            values: npt.NDArray[Any] = order
        else:
            if name not in sorted_columns:
                sorted_columns[name] = columns[name][order]
            values = sorted_columns[name]
        partial.append(aggregate.of_groups(values, first))
    return partial


class Panes:
    """The open panes of tumbling or hopping windows; a slot's end is that of its earliest window still open.

    Parameters
    ----------
    windows : Hopping
        Size and hop.
    aggregates : sequence of Aggregator
        What each window holds.
    """

    def __init__(self, windows: Hopping, aggregates: Sequence[Aggregator]) -> None:
        self._windows = windows
        self._aggregates = aggregates
        self.slots = Slots(aggregates)
        self._places: dict[tuple[int, int], int] = {}
        self._touched: set[int] = set()
        """Slots that have changed since `updated` was last asked."""

    def first_end(self, event_ms: Ints) -> Ints:
        """Return the end of the earliest window that holds each event: it is late once that one is closed."""
        size_ms, hop_ms = self._windows.size_ms, self._windows.hop_ms
        pane = event_ms - event_ms % self._windows.pane_ms
        # The last window that ends at or before the pane's begin, and the one after it.
        ends: Ints = (pane - size_ms) // hop_ms * hop_ms + size_ms + hop_ms
        return ends

    def bounds(self, event_ms: Ints) -> tuple[Ints, Ints]:
        """Return start and end of the earliest window that holds each event."""
        ends = self.first_end(event_ms)
        return ends - self._windows.size_ms, ends

    def lateness(self, event_ms: Ints, limit_ms: Ints) -> Ints:
        """Return how late each record is, ms; below 0 where it is in time."""
        late: Ints = limit_ms - self.first_end(event_ms)
        return late

    def add(self, series: Ints, event_ms: Ints, _offsets: Ints, columns: Columns) -> None:
        """Take in records that are in time."""
        pane_ms = self._windows.pane_ms
        start = event_ms - event_ms % pane_ms
        order = np.lexsort((start, series))
        ordered_series, ordered_start = series[order], start[order]
        new = np.ones(len(order), np.bool_)
        new[1:] = (ordered_series[1:] != ordered_series[:-1]) | (ordered_start[1:] != ordered_start[:-1])
        first = np.flatnonzero(new)
        partial = grouped(self._aggregates, columns, order, first)
        slots, opened = self._slots_of(ordered_series[first], ordered_start[first])
        try:
            self.slots.merge(slots, partial)
        except Raised:
            self._release(opened)
            raise
        self._touched.update(slots.tolist())

    def updated(self) -> Closed:
        """Return the open windows that have changed since the last time, as they stand now."""
        touched = np.array(sorted(self._touched), np.int64)
        self._touched.clear()
        touched = touched[self.slots.rows["end"][touched] != FREE]
        rows = self.slots.rows[touched]
        size_ms, hop_ms = self._windows.size_ms, self._windows.hop_ms
        wanted: set[tuple[int, int]] = set()
        for series, start, end in zip(*(rows[name].tolist() for name in ("series", "start", "end")), strict=True):
            wanted.update((series, later) for later in range(end, start + size_ms + 1, hop_ms))
        whole = sorted(wanted, key=lambda one: (one[1], one[0]))
        panes, owner = [], []
        for number, (series, end) in enumerate(whole):
            for start in range(end - size_ms, end, self._windows.pane_ms):
                place = self._places.get((series, start))
                if place is not None:
                    panes.append(place)
                    owner.append(number)
        ends = np.array([end for _, end in whole], np.int64)
        return self._merged(
            np.array([series for series, _ in whole], np.int64), ends, np.array(panes, np.int64), np.array(owner)
        )

    def due(self, is_due: Callable[[Ints, Ints], npt.NDArray[np.bool_]]) -> Closed:
        """Close the windows of which `is_due(series, end)` says so; return them by end and series."""
        rounds: list[Closed] = []
        while True:
            rows = self.slots.rows
            candidates = np.flatnonzero(rows["end"] != FREE)
            slots = candidates[is_due(rows["series"][candidates], rows["end"][candidates])]
            if not len(slots):
                break
            if self._windows.pane_ms == self._windows.size_ms:
                rounds.append(self._close_whole(slots))
                break
            rounds.append(self._close_earliest(slots))
        return _joined(rounds, self._aggregates)

    def open_ends(self) -> tuple[Ints, Ints]:
        """Return the series that have something open, and the end of the last window of each slot."""
        slots = np.flatnonzero(self.slots.rows["end"] != FREE)
        rows = self.slots.rows[slots]
        start = rows["start"]
        last = start - start % self._windows.hop_ms + self._windows.size_ms
        return rows["series"], last

    def wakes(self, series: Ints) -> Ints:
        """Return the event time at which something of each of some series, rising, is due first."""
        rows = self.slots.rows[self.slots.rows["end"] != FREE]
        return earliest(series, rows["series"], rows["end"])

    def drop(self, series: Ints) -> None:
        """Let go what is open of some series, untold."""
        rows = self.slots.rows
        slots = np.flatnonzero((rows["end"] != FREE) & np.isin(rows["series"], series))
        self._release(slots)

    def pack(self, series: Ints) -> list[list[tuple[int, int, list[bytes]]]]:
        """Return what is open of each of some series."""
        slots, edges = self.slots.of_series(series)
        chosen = [slots[first:end] for first, end in edges.tolist()]
        packed = self.slots.pack(np.concatenate([np.zeros(0, np.int64), *chosen]))
        cuts = np.cumsum([0, *(len(one) for one in chosen)]).tolist()
        return [packed[first:end] for first, end in pairwise(cuts)]

    def restore(self, series: int, packed: list[tuple[int, int, list[bytes]]]) -> None:
        """Put a series back as `pack` gave it."""
        slots = self.slots.restore(series, packed)
        for slot, (start, _, _) in zip(slots.tolist(), packed, strict=True):
            self._places[series, start] = slot

    def _slots_of(self, series: Ints, start: Ints) -> tuple[Ints, Ints]:
        """Return the slots of panes, and those of them that are new."""
        known = self._places
        pairs = list(zip(series.tolist(), start.tolist(), strict=True))
        missing = [number for number, pair in enumerate(pairs) if pair not in known]
        opened = np.zeros(0, np.int64)
        if missing:
            new_series, new_start = series[missing], start[missing]
            opened = self.slots.take(new_series, new_start, self.first_end(new_start))
            known.update(zip((pairs[number] for number in missing), opened.tolist(), strict=True))
        return np.array([known[pair] for pair in pairs], np.int64), opened

    def _close_whole(self, slots: Ints) -> Closed:
        # Tumbling: a window is one pane, and nothing is merged.
        rows = self.slots.rows[slots]
        closed = Closed(rows["series"], rows["start"], rows["end"], [held[slots] for held in self.slots.states])
        self._advance(slots)
        return closed

    def _close_earliest(self, slots: Ints) -> Closed:
        # All panes of a window have its end once the windows before it are closed; so one end of a series at a time.
        rows = self.slots.rows[slots]
        order = np.lexsort((rows["end"], rows["series"]))
        slots, rows = slots[order], rows[order]
        first_of_series = np.flatnonzero(np.diff(rows["series"], prepend=-1))
        count = np.diff(first_of_series, append=len(slots))
        earliest = np.repeat(rows["end"][first_of_series], count) == rows["end"]
        slots, rows = slots[earliest], rows[earliest]
        first = np.flatnonzero(np.diff(rows["series"], prepend=-1))
        owner = np.repeat(np.arange(len(first)), np.diff(first, append=len(slots)))
        closed = self._merged(rows["series"][first], rows["end"][first], slots, owner)
        self._advance(slots)
        return closed

    def _merged(self, series: Ints, end: Ints, panes: Ints, owner: Ints) -> Closed:
        """Merge panes to the windows whose numbers, rising, `owner` gives."""
        states: States = []
        errors: dict[int, Raised] = {}
        for aggregate, held in zip(self._aggregates, self.slots.states, strict=True):

            def merged(
                windows: Ints, aggregate: Aggregator = aggregate, held: npt.NDArray[Any] = held
            ) -> npt.NDArray[Any]:
                made = aggregate.empty(len(windows))
                if len(windows) == len(series):
                    merge_into([aggregate], [made], owner, [held[panes]])
                else:
                    chosen = np.isin(owner, windows)
                    merge_into([aggregate], [made], np.searchsorted(windows, owner[chosen]), [held[panes[chosen]]])
                return made

            whole, raised = whole_or_single(aggregate, len(series), merged)
            states.append(whole)
            errors |= raised
        return Closed(series, end - self._windows.size_ms, end, states, errors=errors)

    def _advance(self, slots: Ints) -> None:
        size_ms = self._windows.size_ms
        rows = self.slots.rows
        rows["end"][slots] += self._windows.hop_ms
        self._release(slots[rows["end"][slots] - size_ms > rows["start"][slots]])

    def _release(self, slots: Ints) -> None:
        rows = self.slots.rows[slots]
        for place in zip(rows["series"].tolist(), rows["start"].tolist(), strict=True):
            del self._places[place]
        self._touched.difference_update(slots.tolist())
        self.slots.release(slots)


def _joined(rounds: list[Closed], aggregates: Sequence[Aggregator]) -> Closed:
    if not rounds:
        nothing = np.zeros(0, np.int64)
        return Closed(nothing, nothing, nothing, [aggregate.empty(0) for aggregate in aggregates])
    series, start, end = (np.concatenate([getattr(one, name) for one in rounds]) for name in ("series", "start", "end"))
    states = [np.concatenate(parts) for parts in zip(*(one.states for one in rounds), strict=True)]
    order = np.lexsort((series, end))
    errors: dict[int, Raised] = {}
    if any(one.errors for one in rounds):
        place, first = np.argsort(order), 0
        for one in rounds:
            errors |= {int(place[first + number]): raised for number, raised in one.errors.items()}
            first += len(one.series)
    return Closed(series[order], start[order], end[order], [part[order] for part in states], errors=errors)
