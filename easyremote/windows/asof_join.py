"""Each record of a stream with the latest one of another that is not after it: as-of joins, and joins with a table."""

from __future__ import annotations

from typing import Literal

import numpy as np
import numpy.typing as npt

from easyremote.errors import WindowError
from easyremote.windows.assigners import EventTime
from easyremote.windows.durations import Duration, duration_ms
from easyremote.windows.joining import Arrived, Join, JoinResult
from easyremote.windows.sides import Held

__all__ = ["AsOfJoin"]

Ints = npt.NDArray[np.int64]


class AsOfJoin(Join):
    """Each record of the left with the latest of the right of its key at its event time or before it.

    A left record waits until the right's watermark has passed its time, so that the answer does not depend on which
    came first. Of the right is held what a left record in time may still want: with a tolerance what is within it,
    without one at least the latest of each key, which makes the right a table whose versions go by event time. Of
    several right records of one time the last of the log counts.

    Parameters
    ----------
    tolerance : str, int (ms) or timedelta, optional
        How old the right record may be; unset: any age, as a table's row.
    how : {"inner", "left"}
        Whether a left record without a match is told.
    event_time : EventTime
        Of both sides; unset: no lateness, one watermark for a side's partition.

    Raises
    ------
    WindowError
        If `how` is none of them.
    """

    def __init__(
        self,
        tolerance: Duration | None = None,
        how: Literal["inner", "left"] = "inner",
        event_time: EventTime | None = None,
    ) -> None:
        super().__init__(event_time)
        if how not in {"inner", "left"}:
            raise WindowError(f"how={how!r}: an as-of join, or one with a table, is 'inner' or 'left'")
        self._tolerance_ms = None if tolerance is None else duration_ms(tolerance)
        self._tells_alone = how == "left"

    def _arrive(self, side: int, arrived: Arrived) -> list[JoinResult]:
        self._sides[side].add(*arrived, matched=np.zeros(len(arrived.series), np.bool_))
        return []

    def _expire(self) -> list[JoinResult]:
        left, right = self._sides
        ripe = self._marks[1].limits(left.rows["series"]) > left.rows["event_ms"]
        results = self._answered(left.remove(ripe)) if ripe.any() else []
        gone = self._unwanted() if len(right) else np.zeros(0, np.bool_)
        if gone.any():
            self._changed.update(np.unique(right.remove(gone).rows["series"]).tolist())
        return results

    def _answered(self, asking: Held) -> list[JoinResult]:
        rows = asking.rows
        series, event_ms = rows["series"], rows["event_ms"]
        self._changed.update(np.unique(series).tolist())
        low = np.zeros(len(rows), np.int64) if self._tolerance_ms is None else event_ms - self._tolerance_ms
        first, last = self._sides[1].spans(series, low, event_ms)
        results = []
        columns = (series.tolist(), asking.records.tolist(), first.tolist(), last.tolist(), event_ms.tolist())
        for number, record, begin, end, at in zip(*columns, strict=True):
            if end > begin:
                results.append(JoinResult(self._keys[number], record, self._sides[1].records.item(end - 1), at))
            elif self._tells_alone:
                results.append(JoinResult(self._keys[number], record, None, at))
        return results

    def _unwanted(self) -> npt.NDArray[np.bool_]:
        """Say which right records no left one can want: a later one is not after the first that may ask."""
        rows = self._sides[1].rows
        series, event_ms = rows["series"], rows["event_ms"]
        horizon = self._horizon(series)
        followed = np.zeros(len(rows), np.bool_)
        followed[:-1] = (series[1:] == series[:-1]) & (event_ms[1:] <= horizon[1:])
        if self._tolerance_ms is None:
            return followed
        too_old: npt.NDArray[np.bool_] = event_ms < horizon - self._tolerance_ms
        return followed | too_old

    def _horizon(self, series: Ints) -> Ints:
        """Return the earliest time of which a left record of each series waits or may yet come in time."""
        limits = self._marks[0].limits(series)
        waiting = self._sides[0].rows
        if len(waiting):
            # Rows go by series and time: the first of a series is its earliest.
            owners, first = np.unique(waiting["series"], return_index=True)
            place = np.minimum(np.searchsorted(owners, series), len(owners) - 1)
            earliest = np.where(owners[place] == series, waiting["event_ms"][first[place]], limits)
            limits = np.minimum(limits, earliest)
        return limits

    def _due_at(self) -> tuple[Ints, Ints]:
        waiting, until = self._waits_for(1)
        if self._tolerance_ms is None:
            return waiting, until  # a row of a table is due never
        rows = self._sides[1].rows
        too_old = rows["event_ms"] + self._tolerance_ms + 1
        return np.concatenate([waiting, rows["series"]]), np.concatenate([until, too_old])

    def _waits_for(self, side: int) -> tuple[Ints, Ints]:
        if side == 1:
            rows = self._sides[0].rows
            return rows["series"], rows["event_ms"] + 1
        # A left side that is silent keeps no more of the right than what counts from now on.
        rows = self._sides[1].rows
        return rows["series"], self._marks[1].limits(rows["series"])
