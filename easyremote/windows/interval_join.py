"""Pairs of records of two streams whose event times are near each other."""

from __future__ import annotations

from typing import Literal

import numpy as np
import numpy.typing as npt

from easyremote.errors import WindowError
from easyremote.windows.assigners import EventTime
from easyremote.windows.durations import Duration, duration_ms
from easyremote.windows.joining import Arrived, Join, JoinResult
from easyremote.windows.sides import Held

__all__ = ["How", "IntervalJoin"]

Ints = npt.NDArray[np.int64]
How = Literal["inner", "left", "outer"]


class IntervalJoin(Join):
    """Each record of the left with each of the right of its key that is within an interval around it.

    A pair is told as soon as both are there. A record that has none (`left`: of the left, `outer`: of both) is told
    once, when the other side's watermark has passed its interval, so that none can come. What is held of a side goes
    then, too.

    Parameters
    ----------
    before, after : str, int (ms) or timedelta
        A right record at `t` matches a left one at `u` where `u - before <= t <= u + after`.
    how : {"inner", "left", "outer"}
        Which records are told that have no match.
    event_time : EventTime
        Of both sides; unset: no lateness, one watermark for a side's partition.

    Raises
    ------
    WindowError
        If `how` is none of them.
    """

    def __init__(
        self, before: Duration, after: Duration, how: How = "inner", event_time: EventTime | None = None
    ) -> None:
        super().__init__(event_time)
        if how not in {"inner", "left", "outer"}:
            raise WindowError(f"how={how!r}: a join within an interval is 'inner', 'left' or 'outer'")
        before_ms, after_ms = duration_ms(before), duration_ms(after)
        # How far into the other side's past and future a record of each side reaches.
        self._reach = ((before_ms, after_ms), (after_ms, before_ms))
        self._alone = {"inner": (False, False), "left": (True, False), "outer": (True, True)}[how]

    def _arrive(self, side: int, arrived: Arrived) -> list[JoinResult]:
        past_ms, future_ms = self._reach[side]
        other = self._sides[1 - side]
        first, last = other.spans(arrived.series, arrived.event_ms - past_ms, arrived.event_ms + future_ms)
        count = last - first
        mine = np.repeat(np.arange(len(count)), count)
        theirs = np.arange(len(mine)) - np.repeat(np.cumsum(count) - count, count) + np.repeat(first, count)
        newly = theirs[~other.rows["matched"][theirs]]
        other.rows["matched"][newly] = True
        pairs = (arrived.records[mine].tolist(), other.records[theirs].tolist())
        left, right = pairs if side == 0 else pairs[::-1]
        numbers = arrived.series[mine].tolist()
        times = np.maximum(arrived.event_ms[mine], other.rows["event_ms"][theirs]).tolist()
        columns = zip(numbers, left, right, times, strict=True)
        results = [JoinResult(self._keys[one], a, b, at) for one, a, b, at in columns]
        self._sides[side].add(*arrived, matched=count > 0)
        return results

    def _expire(self) -> list[JoinResult]:
        results: list[JoinResult] = []
        for side in (0, 1):
            rows = self._sides[side].rows
            passed = self._marks[1 - side].limits(rows["series"]) > rows["event_ms"] + self._reach[side][1]
            if passed.any():
                gone = self._sides[side].remove(passed)
                self._changed.update(np.unique(gone.rows["series"]).tolist())
                if self._alone[side]:
                    results += self._without_match(side, gone)
        return results

    def _without_match(self, side: int, gone: Held) -> list[JoinResult]:
        single = np.flatnonzero(~gone.rows["matched"])
        numbers, records = gone.rows["series"][single].tolist(), gone.records[single].tolist()
        pairs = ((record, None) if side == 0 else (None, record) for record in records)
        times = gone.rows["event_ms"][single].tolist()
        columns = zip(numbers, pairs, times, strict=True)
        return [JoinResult(self._keys[number], a, b, at) for number, (a, b), at in columns]

    def _due_at(self) -> tuple[Ints, Ints]:
        (first, first_at), (second, second_at) = (self._waits_for(side) for side in (0, 1))
        return np.concatenate([first, second]), np.concatenate([first_at, second_at])

    def _waits_for(self, side: int) -> tuple[Ints, Ints]:
        rows = self._sides[1 - side].rows
        return rows["series"], rows["event_ms"] + self._reach[1 - side][1] + 1
