"""Session windows: a key's records less than a gap apart, merged as they come."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from itertools import pairwise
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from easyremote.windows.guarding import Guarded, Raised
from easyremote.windows.panes import grouped
from easyremote.windows.resting import earliest
from easyremote.windows.rows import Closed
from easyremote.windows.slots import FREE, Held, Slots

if TYPE_CHECKING:
    from easyremote.windows.aggregates import Aggregator
    from easyremote.windows.assigners import Session

__all__ = ["Sessions"]

Ints = npt.NDArray[np.int64]
Columns = Mapping[str, npt.NDArray[Any]]
_Span = tuple[int, int, int, int]
"""Start and end of a session or of a batch's group; its slot, or -1; its group, or -1."""


_Before = tuple[dict[int, list[tuple[int, int]]], Held]
"""The open sessions of some series, and what their slots hold."""


class Sessions:
    """The open sessions of all series; a slot's end is its last record's time and the gap.

    A record behind the watermark is late, even where a session is still open: so no session that is due can grow,
    and the result does not depend on when it is closed.

    Parameters
    ----------
    windows : Session
        The gap.
    aggregates : sequence of Aggregator
        What each session holds.
    """

    def __init__(self, windows: Session, aggregates: Sequence[Aggregator]) -> None:
        self._gap_ms = windows.gap_ms
        self._aggregates = aggregates
        self._is_guarded = any(isinstance(aggregate, Guarded) for aggregate in aggregates)
        self.slots = Slots(aggregates)
        self._of_series: dict[int, list[tuple[int, int]]] = {}
        """Start and slot of each open session, rising."""

    def bounds(self, event_ms: Ints) -> tuple[Ints, Ints]:
        """Return start and end of the session that each event alone would be."""
        return event_ms, event_ms + self._gap_ms

    def lateness(self, event_ms: Ints, limit_ms: Ints) -> Ints:
        """Return how late each record is, ms; below 0 where it is in time."""
        late: Ints = limit_ms - event_ms - 1
        return late

    def add(self, series: Ints, event_ms: Ints, _offsets: Ints, columns: Columns) -> None:
        """Take in records that are in time."""
        order = np.lexsort((event_ms, series))
        ordered_series, times = series[order], event_ms[order]
        new = np.ones(len(order), np.bool_)
        new[1:] = (ordered_series[1:] != ordered_series[:-1]) | (np.diff(times) >= self._gap_ms)
        first = np.flatnonzero(new)
        ends = times[np.append(first[1:], len(order)) - 1] + self._gap_ms
        partial = grouped(self._aggregates, columns, order, first)
        before = self._held(np.unique(series).tolist()) if self._is_guarded else None
        try:
            self.slots.merge(self._joined(ordered_series[first], times[first], ends), partial)
        except Raised:
            self._put_back(before)
            raise

    def due(self, is_due: Callable[[Ints, Ints], npt.NDArray[np.bool_]]) -> Closed:
        """Close the sessions of which `is_due(series, end)` says so; return them by end and series."""
        rows = self.slots.rows
        candidates = np.flatnonzero(rows["end"] != FREE)
        slots = candidates[is_due(rows["series"][candidates], rows["end"][candidates])]
        rows = rows[slots]
        order = np.lexsort((rows["start"], rows["series"], rows["end"]))
        slots, rows = slots[order], rows[order]
        states = [held[slots] for held in self.slots.states]
        for series, start, slot in zip(rows["series"].tolist(), rows["start"].tolist(), slots.tolist(), strict=True):
            self._forget(series, start, slot)
        self.slots.release(slots)
        return Closed(rows["series"], rows["start"], rows["end"], states)

    def open_ends(self) -> tuple[Ints, Ints]:
        """Return the series and the end of each open session."""
        rows = self.slots.rows[self.slots.rows["end"] != FREE]
        return rows["series"], rows["end"]

    def wakes(self, series: Ints) -> Ints:
        """Return the event time at which something of each of some series, rising, is due first."""
        return earliest(series, *self.open_ends())

    def drop(self, series: Ints) -> None:
        """Let go what is open of some series, untold."""
        for number in series.tolist():
            slots = [slot for _, slot in self._of_series.pop(number, ())]
            self.slots.release(np.array(slots, np.int64))

    def pack(self, series: Ints) -> list[list[tuple[int, int, list[bytes]]]]:
        """Return what is open of each of some series."""
        return [
            self.slots.pack(np.array([slot for _, slot in self._of_series.get(number, ())], np.int64))
            for number in series.tolist()
        ]

    def restore(self, series: int, packed: list[tuple[int, int, list[bytes]]]) -> None:
        """Put a series back as `pack` gave it."""
        slots = self.slots.restore(series, packed)
        held = [(start, slot) for slot, (start, _, _) in zip(slots.tolist(), packed, strict=True)]
        if held:
            self._of_series[series] = sorted(held)

    def _joined(self, series: Ints, start: Ints, end: Ints) -> Ints:
        """Return for each group of a batch, by series and start, the slot of the session that it now belongs to."""
        slot_of_group = np.empty(len(series), np.int64)
        into: list[int] = []
        absorbed: list[int] = []
        for number, groups in _runs(series):
            spans = [(int(start[group]), int(end[group]), -1, group) for group in groups]
            rows = self.slots.rows
            spans += [(begin, int(rows["end"][slot]), slot, -1) for begin, slot in self._of_series.get(number, ())]
            held = []
            for cluster in _clusters(sorted(spans)):
                slot, others = self._slot_for(number, cluster)
                into += [slot] * len(others)
                absorbed += others
                slot_of_group[[group for _, _, _, group in cluster if group >= 0]] = slot
                held.append((cluster[0][0], slot))
            self._of_series[number] = held
        if absorbed:
            gone = np.array(absorbed, np.int64)
            self.slots.merge(np.array(into, np.int64), [states[gone] for states in self.slots.states])
            self.slots.release(gone)
        return slot_of_group

    def _held(self, numbers: list[int]) -> _Before:
        sessions = {number: list(self._of_series.get(number, ())) for number in numbers}
        return sessions, self.slots.held(np.array([slot for held in sessions.values() for _, slot in held], np.int64))

    def _put_back(self, before: _Before | None) -> None:
        assert before is not None, "only a user's code raises"
        sessions, held = before
        now = {slot for number in sessions for _, slot in self._of_series.get(number, ())}
        # What the failed batch opened is let go before what it merged away is there again.
        self.slots.release(np.array(sorted(now - set(held.slots.tolist())), np.int64))
        self.slots.put_back(held)
        for number, known in sessions.items():
            if known:
                self._of_series[number] = known
            else:
                self._of_series.pop(number, None)

    def _slot_for(self, series: int, cluster: list[_Span]) -> tuple[int, list[int]]:
        """Return the slot of a session that is made of some spans, and the slots that are merged into it."""
        begin, end = cluster[0][0], max(span[1] for span in cluster)
        known = [slot for _, _, slot, _ in cluster if slot >= 0]
        if not known:
            return int(self.slots.take(np.array([series]), np.array([begin]), np.array([end]))[0]), []
        self.slots.rows["start"][known[0]], self.slots.rows["end"][known[0]] = begin, end
        return known[0], known[1:]

    def _forget(self, series: int, start: int, slot: int) -> None:
        held = self._of_series[series]
        held.remove((start, slot))
        if not held:
            del self._of_series[series]


def _runs(series: Ints) -> Iterator[tuple[int, range]]:
    first = np.flatnonzero(np.diff(series, prepend=-1)).tolist()
    for begin, end in pairwise([*first, len(series)]):
        yield int(series[begin]), range(begin, end)


def _clusters(spans: list[_Span]) -> Iterator[list[_Span]]:
    """Put spans, rising by their start, together where they overlap."""
    cluster: list[_Span] = []
    end = 0
    for span in spans:
        if cluster and span[0] >= end:
            yield cluster
            cluster = []
        end = max(end, span[1]) if cluster else span[1]
        cluster.append(span)
    yield cluster
