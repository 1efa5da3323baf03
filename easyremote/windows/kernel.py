"""The stream kernel of one partition: readings in; closed windows, late readings, anomalies and changed state out."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

import msgspec
import numpy as np
import numpy.typing as npt

from easyremote.errors import WindowError
from easyremote.windows.assigners import EventTime, Tumbling
from easyremote.windows.keys import Keys
from easyremote.windows.readings import Readings
from easyremote.windows.resting import Resting
from easyremote.windows.tumbling import WINDOW, OpenWindows, group_by_window
from easyremote.windows.watermarks import Heard
from easyremote.windows.zscore import BASELINE, Anomalies, ZScore

__all__ = ["Effects", "Kernel", "Late"]

SERIES = np.dtype([("greatest_ms", "<i8"), ("closed_ms", "<i8"), ("seen_ms", "<i8"), *BASELINE])
"""State of one series: greatest event time, end of the last window closed for silence, wall clock when last seen."""

_FUTURE_MS = 5 * 60_000
"""A reading further ahead of the wall clock is refused: one bad clock must not close its windows for ever."""
_FORGET_MS = 7 * 24 * 3_600_000
_NEVER = -(2**62)
_TIME_BITS = 48
_TIME_MASK = (1 << _TIME_BITS) - 1
_FORMAT = b"\x01"
_FRESH = np.zeros((), SERIES)
_FRESH["greatest_ms"] = _FRESH["closed_ms"] = _NEVER


@dataclass(frozen=True, slots=True)
class Late:
    """A reading that no window takes, by its place in the batch."""

    place: int
    window_start: int
    lateness_ms: int
    """How far behind what its series' windows still take (`late`), or ahead of the wall clock (`future`)."""
    reason: Literal["late", "future"]


@dataclass(frozen=True, slots=True)
class Effects:
    """What a step led to; `closed` are rows of `WINDOW`, `closed_keys` whose they are."""

    closed: npt.NDArray[Any]  # Any: a structured array has no static type for its fields
    closed_keys: list[tuple[str, str]]
    late: list[Late]
    anomalies: Anomalies | None


class Kernel:
    """Tumbling windows and a detector for every series (device and metric) of one partition.

    Each series has a watermark of its own, so a device that catches up after hours without a link is neither late
    by its neighbours' clocks nor makes them late. The result does not depend on how the log is cut into batches.

    Parameters
    ----------
    windows : Tumbling
        Their length.
    event_time : EventTime
        Lateness and idle time; the watermark is each series' own.
    detector : ZScore or None
        None: no anomalies.
    """

    def __init__(self, windows: Tumbling, event_time: EventTime, detector: ZScore | None) -> None:
        self._windows = windows
        self._event_time = event_time
        self._detector = detector
        self._keys = Keys(self)
        self._series = np.zeros(0, SERIES)
        self._open = OpenWindows()
        self._changed: set[int] = set()
        self._gone: list[tuple[Any, ...]] = []
        self._since_ms: int | None = None
        self._missed_ms = 0
        self.resting = Resting(self._keys, self.restore, self._let_go)

    @property
    def keys(self) -> int:
        """How many series it knows."""
        return len(self._keys)

    def grow(self, number: int) -> None:
        """Make room for so many series."""
        missing = number - len(self._series)
        if missing > 0:
            self._series = np.concatenate([self._series, np.full(max(256, missing, len(self._series)), _FRESH)])

    def reset(self, number: int) -> None:
        """Begin anew with a number that another series gets."""
        self._series[number] = _FRESH

    def step(self, readings: Readings, now_ms: int) -> Effects:
        """Take a batch in.

        Parameters
        ----------
        readings : Readings
            At least one, in the order of the log.
        now_ms : int
            The wall clock, ms.
        """
        self._since_ms = now_ms if self._since_ms is None else self._since_ms
        late: list[Late] = []
        ahead = readings.event_ms - now_ms
        if ahead.max() > _FUTURE_MS:
            late += self._late(np.flatnonzero(ahead > _FUTURE_MS), readings, ahead[ahead > _FUTURE_MS], "future")
            kept = np.flatnonzero(ahead <= _FUTURE_MS)
            if not len(kept):
                return self._effects([], late, None)
            ids = np.full(len(ahead), -1, np.int64)
            ids[kept] = self._keys.numbers([readings.keys[place] for place in kept.tolist()])
            order = kept[np.argsort(ids[kept], kind="stable")]
        else:
            ids = self._keys.numbers(readings.keys)
            order = np.argsort(ids, kind="stable")
        series, event_ms = ids[order], readings.event_ms[order]
        first = np.flatnonzero(np.diff(series, prepend=-1))
        touched = series[first]
        self._changed.update(touched.tolist())
        limit = self._watermarks(series, event_ms, first, touched, now_ms)
        start = event_ms - event_ms % self._windows.size_ms
        behind = limit - (start + self._windows.size_ms)
        if behind.max() >= 0:
            dropped = behind >= 0
            late += self._late(order[dropped], readings, behind[dropped], "late")
            order, series, start = order[~dropped], series[~dropped], start[~dropped]
        anomalies = None
        if len(order):
            values = readings.values[order]
            self._open.merge(group_by_window(series, start, values, self._windows.size_ms))
            if self._detector is not None:
                anomalies = self._detect(self._detector, series, values, order)
        return self._effects(self._due(touched), late, anomalies)

    def close_idle(self, now_ms: int, heard: Heard | None = None) -> Effects:
        """Close the windows of series that are silent, and forget series that have been silent for a week.

        Parameters
        ----------
        now_ms : int
            The wall clock, ms.
        heard : tuple of (int, int), optional
            How long the partition was listened to; unset: without a break, until now.
        """
        # While no process ran nobody can have heard anything: silence counts from when this one first asked.
        self._since_ms = now_ms if self._since_ms is None else self._since_ms
        until_ms, self._missed_ms = heard or (now_ms, self._missed_ms)
        # This time stands still while readings may stand unread in the log: nobody is silent for that.
        listened_ms = until_ms - self._missed_ms
        self.resting.wake(listened_ms)
        holding = np.fromiter(self._open.of_series, np.int64, len(self._open.of_series))
        last = np.maximum(self._series["seen_ms"][holding], self._since_ms)
        silent = holding[listened_ms - last >= self._event_time.idle_ms].tolist()
        due = []
        for number in silent:
            starts = sorted(self._open.of_series[number])
            due += [(number, start) for start in starts]
            self._series["closed_ms"][number] = starts[-1] + self._windows.size_ms
        self._changed.update(silent)
        self._forget(listened_ms)
        return self._effects(due, [], None)

    def changes(self) -> list[tuple[bytes, bytes | None]]:
        """Return key and content of every series that changed since the last time; None for one that is forgotten."""
        changed = sorted(self._changed)
        changes: list[tuple[bytes, bytes | None]] = [(msgspec.json.encode(key), None) for key in self._gone]
        keys = map(msgspec.json.encode, self._keys.of(changed))
        changes += zip(keys, self._contents(changed), strict=True)
        self._changed.clear()
        self._gone.clear()
        return changes

    def restore(self, key: bytes, content: bytes) -> None:
        """Put a series back as `changes` gave it.

        Raises
        ------
        WindowError
            If it was not made by this version of this class.
        """
        size = SERIES.itemsize
        if content[:1] != _FORMAT or (len(content) - 1 - size) % WINDOW.itemsize:
            raise WindowError(
                f"the state of series {key!r} has another form ({len(content)} bytes): delete the changelog topic and "
                "reset the group to read the readings again"
            )
        device_id, metric = msgspec.json.decode(key, type=tuple[str, str])
        (number,) = self._keys.numbers([(device_id, metric)]).tolist()
        self._series[number] = np.frombuffer(content, SERIES, 1, 1)[0]
        for row in np.frombuffer(content, WINDOW, offset=1 + size):
            self._open.add(number, row)

    def _let_go(self, numbers: npt.NDArray[np.int64], now_ms: int) -> tuple[list[bytes], npt.NDArray[np.int64]]:
        contents = self._contents(numbers.tolist())
        seen: npt.NDArray[np.int64] = self._series["seen_ms"][numbers]
        wakes = seen + _FORGET_MS
        held = self._open.of_series
        for place, number in enumerate(numbers.tolist()):
            if number in held:
                wakes[place] = max(int(seen[place]), self._since_ms or now_ms) + self._event_time.idle_ms
                self._open.take_out([(number, start) for start in list(held[number])])
        return contents, wakes

    def _contents(self, numbers: list[int]) -> list[bytes]:
        """Return the state of some series."""
        rows, size = self._series[numbers].tobytes(), SERIES.itemsize
        return [
            _FORMAT + rows[place * size : (place + 1) * size] + windows
            for place, windows in enumerate(self._open.packed(numbers))
        ]

    def _watermarks(  # the columns of the batch
        self,
        series: npt.NDArray[np.int64],
        event_ms: npt.NDArray[np.int64],
        first: npt.NDArray[np.int64],
        touched: npt.NDArray[np.int64],
        now_ms: int,
    ) -> npt.NDArray[np.int64]:
        # A running maximum within each series, in one pass: the series' rank above the bits of the time.
        count = np.diff(first, append=len(series))
        rank = np.repeat(np.arange(len(first)), count)
        running = np.maximum.accumulate((rank << _TIME_BITS) | event_ms) & _TIME_MASK
        running = np.maximum(running, np.repeat(self._series["greatest_ms"][touched], count))
        self._series["greatest_ms"][touched] = running[first + count - 1]
        self._series["seen_ms"][touched] = now_ms - self._missed_ms
        closed: npt.NDArray[np.int64] = np.repeat(self._series["closed_ms"][touched], count)
        limit: npt.NDArray[np.int64] = np.maximum(running - self._event_time.lateness_ms, closed)
        return limit

    def _detect(
        self,
        detector: ZScore,
        series: npt.NDArray[np.int64],
        values: npt.NDArray[np.float64],
        order: npt.NDArray[np.int64],
    ) -> Anomalies | None:
        first = np.flatnonzero(np.diff(series, prepend=-1))
        touched = series[first]
        baseline = self._series[touched]
        found = detector.step(baseline, first, values)
        self._series[touched] = baseline
        if not len(found.place):
            return None
        return Anomalies(order[found.place], found.expected, found.std_dev, found.score)

    def _due(self, touched: npt.NDArray[np.int64]) -> list[tuple[int, int]]:
        limit = self._series["greatest_ms"][touched] - self._event_time.lateness_ms - self._windows.size_ms
        due = []
        of_series = self._open.of_series
        for number, last_start in zip(touched.tolist(), limit.tolist(), strict=True):
            held = of_series.get(number)
            if held is None:
                continue
            starts = [start for start in held if start <= last_start]
            if starts:
                due += [(number, start) for start in sorted(starts)]
        return due

    def _effects(self, due: list[tuple[int, int]], late: list[Late], anomalies: Anomalies | None) -> Effects:
        return Effects(self._open.take_out(due), [self._keys[number] for number, _ in due], late, anomalies)

    def _late(
        self,
        places: npt.NDArray[np.int64],
        readings: Readings,
        lateness: npt.NDArray[np.int64],
        reason: Literal["late", "future"],
    ) -> list[Late]:
        size_ms = self._windows.size_ms
        return [
            Late(place, int(event_ms - event_ms % size_ms), int(amount), reason)
            for place, event_ms, amount in zip(
                places.tolist(), readings.event_ms[places].tolist(), lateness.tolist(), strict=True
            )
        ]

    def _forget(self, now_ms: int) -> None:
        numbers = self._keys.known()
        seen = self._series["seen_ms"][numbers]
        for number in numbers[(seen > 0) & (seen < now_ms - _FORGET_MS)].tolist():
            if number not in self._open.of_series:
                self._gone.append(self._keys.drop(number))
                self._changed.discard(number)
