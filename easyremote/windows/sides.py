"""What a join holds of one side: its records by key and event time, until no record of the other side can want them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

__all__ = ["Held", "Side"]

Ints = npt.NDArray[np.int64]
Flags = npt.NDArray[np.bool_]
_ROW = np.dtype([("series", "<i8"), ("event_ms", "<i8"), ("offset", "<i8"), ("matched", "?")])
_TIME_BITS = 48
_LAST_MS = (1 << _TIME_BITS) - 1
_AT_ONCE = 8_192
"""Queries that are answered together: the rank of a series stands above the time in 63 bits."""

Packed = list[tuple[int, int, bool, bytes]]
"""Event time, offset, whether it has matched, record."""


class Held(NamedTuple):
    """Records of a side: rows of shape (n,) with `series`, `event_ms`, `offset`, `matched`, and the records."""

    rows: npt.NDArray[Any]  # Any: a structured array has no static type for its fields
    records: npt.NDArray[np.object_]


class Side:
    """The records that one side of a join holds, by series, event time and offset."""

    def __init__(self) -> None:
        self._rows = np.zeros(0, _ROW)
        self._records = np.empty(0, object)
        self._restored: list[tuple[int, Packed]] = []
        """Series put back that nobody has looked at yet: all of them are put in order at once."""

    def __len__(self) -> int:
        return len(self.rows)

    @property
    def rows(self) -> npt.NDArray[Any]:
        """Series, event time, offset and whether it has matched, of each record."""
        self._settle()
        return self._rows

    @property
    def records(self) -> npt.NDArray[np.object_]:
        """The records."""
        self._settle()
        return self._records

    def add(
        self, series: Ints, event_ms: Ints, offsets: Ints, records: npt.NDArray[np.object_], matched: Flags
    ) -> None:
        """Take records in."""
        new = np.zeros(len(series), _ROW)
        new["series"], new["event_ms"], new["offset"], new["matched"] = series, event_ms, offsets, matched
        rows, held = np.concatenate([self.rows, new]), np.concatenate([self.records, records])
        order = np.lexsort((rows["offset"], rows["event_ms"], rows["series"]))
        self._rows, self._records = rows[order], held[order]

    def remove(self, gone: Flags) -> Held:
        """Let records go; return them."""
        taken = Held(self.rows[gone], self.records[gone])
        if len(taken.rows):
            self._rows, self._records = self.rows[~gone], self.records[~gone]
        return taken

    def spans(self, series: Ints, low_ms: Ints, high_ms: Ints) -> tuple[Ints, Ints]:
        """Return for each query where what is held of its series in `[low, high]` begins, and where it ends.

        Parameters
        ----------
        series, low_ms, high_ms : ndarray of int64, shape (n,)
            Whose, and the bounds, ms.
        """
        first, last = np.zeros(len(series), np.int64), np.zeros(len(series), np.int64)
        for begin in range(0, len(series), _AT_ONCE):
            part = slice(begin, begin + _AT_ONCE)
            first[part], last[part] = self._spans(series[part], low_ms[part], high_ms[part])
        return first, last

    def of(self, series: int) -> Packed:
        """Return what is held of a series."""
        first, last = np.searchsorted(self.rows["series"], [series, series + 1]).tolist()
        rows = self.rows[first:last]
        columns = (rows[name].tolist() for name in ("event_ms", "offset", "matched"))
        return list(zip(*columns, self.records[first:last].tolist(), strict=True))

    def restore(self, series: int, packed: Packed) -> None:
        """Put back what `of` gave."""
        self._restored.append((series, packed))

    def _settle(self) -> None:
        if not self._restored:
            return
        restored, self._restored = self._restored, []
        times, offsets, matched, records = zip(*(row for _, packed in restored for row in packed), strict=True)
        self.add(
            np.repeat([series for series, _ in restored], [len(packed) for _, packed in restored]),
            np.array(times, np.int64),
            np.array(offsets, np.int64),
            as_objects(records),
            np.array(matched, np.bool_),
        )

    def _spans(self, series: Ints, low_ms: Ints, high_ms: Ints) -> tuple[Ints, Ints]:
        asked, rank = np.unique(series, return_inverse=True)
        owner = self.rows["series"]
        place = np.minimum(np.searchsorted(asked, owner), len(asked) - 1)
        wanted = np.flatnonzero(asked[place] == owner)
        keys = (place[wanted] << _TIME_BITS) | self.rows["event_ms"][wanted]
        above = rank.astype(np.int64) << _TIME_BITS
        first = np.searchsorted(keys, above | np.clip(low_ms, 0, _LAST_MS))
        last = np.searchsorted(keys, above | np.clip(high_ms, 0, _LAST_MS), side="right")
        last = np.where(high_ms < 0, first, np.maximum(last, first))
        # What is wanted of one series stands together, so a span of places is a span of rows.
        ends = np.append(wanted, 0)
        begin = ends[np.minimum(first, len(wanted))]
        return begin, begin + (last - first)


def as_objects(records: Sequence[bytes]) -> npt.NDArray[np.object_]:
    """Return records as an array of objects."""
    column = np.empty(len(records), object)
    column[:] = records
    return column
