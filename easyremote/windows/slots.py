"""Open windows as rows of arrays that grow: whose they are, their bounds, and the state of each aggregate."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import numpy.typing as npt

from easyremote.windows.guarding import Guarded

if TYPE_CHECKING:
    from easyremote.windows.aggregates import Aggregator

__all__ = ["FREE", "Held", "Slots", "merge_into"]

Ints = npt.NDArray[np.int64]

FREE = 2**62
"""End of a slot that holds no window: it is never due."""
_SLOT = np.dtype([("series", "<i8"), ("start", "<i8"), ("end", "<i8")])
_UNUSED = np.array((0, 0, FREE), _SLOT)
_FIRST = 256


class Held(NamedTuple):
    """What slots hold."""

    slots: Ints
    rows: npt.NDArray[Any]
    states: list[npt.NDArray[Any]]


class Slots:
    """Slots for windows of all series.

    Parameters
    ----------
    aggregates : sequence of Aggregator
        What each window holds.
    """

    def __init__(self, aggregates: Sequence[Aggregator]) -> None:
        self._aggregates = aggregates
        self._guarded = [number for number, one in enumerate(aggregates) if isinstance(one, Guarded)]
        self.rows = np.full(_FIRST, _UNUSED)
        self.states = [aggregate.empty(_FIRST) for aggregate in aggregates]
        self._unused = list(range(_FIRST - 1, -1, -1))

    def take(self, series: Ints, start: Ints, end: Ints) -> Ints:
        """Open windows; return their slots, whose states are empty."""
        count = len(series)
        if count > len(self._unused):
            self._grow(count)
        empty = [aggregate.empty(count) for aggregate in self._aggregates]
        begin = len(self._unused) - count  # not [-count:], which is all of them for none
        slots = np.array(self._unused[begin:], np.int64)
        del self._unused[begin:]
        self.rows["series"][slots], self.rows["start"][slots], self.rows["end"][slots] = series, start, end
        for states, nothing in zip(self.states, empty, strict=True):
            states[slots] = nothing
        return slots

    def merge(self, slots: Ints, partial: Sequence[npt.NDArray[Any]]) -> None:
        """Merge partial states into slots, in their order where a slot is given several times.

        Raises
        ------
        Raised
            If a user's code does; no state has changed then.
        """
        if not self._guarded:
            merge_into(self._aggregates, self.states, slots, partial)
            return
        places, owner = np.unique(slots, return_inverse=True)
        copies = [states[places] for states in self.states]
        merge_into(self._aggregates, copies, owner, partial)
        for states, merged in zip(self.states, copies, strict=True):
            states[places] = merged

    def held(self, slots: Ints) -> Held:
        """Return what slots hold, for `put_back`."""
        return Held(slots, self.rows[slots], [states[slots] for states in self.states])

    def put_back(self, held: Held) -> None:
        """Have slots hold again what they did, also where they were released meanwhile."""
        released = set(held.slots[self.rows["end"][held.slots] == FREE].tolist())
        self._unused = [slot for slot in self._unused if slot not in released]
        self.rows[held.slots] = held.rows
        for states, known in zip(self.states, held.states, strict=True):
            states[held.slots] = known

    def release(self, slots: Ints) -> None:
        """Let windows go."""
        self.rows["end"][slots] = FREE
        self._unused.extend(slots.tolist())

    def open(self) -> Ints:
        """Return the slots that hold a window, by series and start."""
        slots = np.flatnonzero(self.rows["end"] != FREE)
        rows = self.rows[slots]
        ordered: Ints = slots[np.lexsort((rows["start"], rows["series"]))]
        return ordered

    def of_series(self, series: Ints) -> tuple[Ints, Ints]:
        """Return the slots of some series, each rising, and where each series' begin and end in them."""
        slots = self.open()
        owner = self.rows["series"][slots]
        edges = np.stack([np.searchsorted(owner, series), np.searchsorted(owner, series, side="right")], axis=1)
        return slots, edges

    def pack(self, slots: Ints) -> list[tuple[int, int, list[bytes]]]:
        """Return start, end and packed states of some slots."""
        rows = self.rows[slots]
        packed = [
            aggregate.pack(states[slots]) for aggregate, states in zip(self._aggregates, self.states, strict=True)
        ]
        columns = [list(states) for states in zip(*packed, strict=True)] if packed else [[] for _ in slots]
        return list(zip(rows["start"].tolist(), rows["end"].tolist(), columns, strict=True))

    def restore(self, series: int, packed: Sequence[tuple[int, int, list[bytes]]]) -> Ints:
        """Open a series' windows as `pack` gave them; return their slots."""
        if not packed:
            return np.zeros(0, np.int64)
        start, end = (np.array([one[place] for one in packed], np.int64) for place in (0, 1))
        slots = self.take(np.full(len(packed), series, np.int64), start, end)
        for number, aggregate in enumerate(self._aggregates):
            self.states[number][slots] = aggregate.unpack([one[2][number] for one in packed])
        return slots

    def _grow(self, needed: int) -> None:
        size = len(self.rows)
        more = max(size, needed)
        self.states = [
            np.concatenate([states, aggregate.empty(more)])
            for aggregate, states in zip(self._aggregates, self.states, strict=True)
        ]
        self.rows = np.concatenate([self.rows, np.full(more, _UNUSED)])
        self._unused.extend(range(size + more - 1, size - 1, -1))


def merge_into(
    aggregates: Sequence[Aggregator],
    states: Sequence[npt.NDArray[Any]],
    places: Ints,
    partial: Sequence[npt.NDArray[Any]],
) -> None:
    """Merge partial states into places of which some may be given several times, then in their order."""
    order = np.argsort(places, kind="stable")
    first = np.flatnonzero(np.diff(places[order], prepend=-1))
    turn = np.empty(len(places), np.int64)
    turn[order] = np.arange(len(places)) - np.repeat(first, np.diff(first, append=len(places)))
    for number in range(int(turn.max(initial=-1)) + 1):
        chosen = np.flatnonzero(turn == number)
        for aggregate, held, part in zip(aggregates, states, partial, strict=True):
            aggregate.merge(held, places[chosen], part[chosen])
