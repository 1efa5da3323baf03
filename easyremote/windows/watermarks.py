"""How far event time has come: for each key, or for a whole partition."""

from __future__ import annotations

import msgspec
import numpy as np
import numpy.typing as npt

from easyremote.windows.assigners import EventTime

__all__ = ["FUTURE_MS", "Heard", "Watermarks"]

FUTURE_MS = 5 * 60_000
"""A record further ahead of the wall clock is refused: one bad clock must not close windows for ever."""

_NEVER = -(2**62)
_TIME_BITS = 48
_TIME_MASK = (1 << _TIME_BITS) - 1
_MARK = np.dtype([("greatest_ms", "<i8"), ("closed_ms", "<i8"), ("seen_ms", "<i8")])
"""Greatest event time; end of the last window closed for silence; wall clock when something last came."""
_FRESH = np.array((_NEVER, _NEVER, 0), _MARK)

Ints = npt.NDArray[np.int64]
Heard = tuple[int, int]
"""Until when, by the wall clock, all that was written had been read, 0: never yet; and for how long it had not, ms."""


class Watermarks:
    """The limits below which windows are closed; `limits` of series go by their number.

    Parameters
    ----------
    event_time : EventTime
        Lateness, idle time, and whether each key has its own.
    """

    def __init__(self, event_time: EventTime) -> None:
        self._event_time = event_time
        self.by_key = event_time.watermark == "key"
        self._marks = np.full(0 if self.by_key else 1, _FRESH)
        self._since_ms: int | None = None
        self._missed_ms = 0

    def grow(self, series: int) -> None:
        """Make room for so many series."""
        missing = series - len(self._marks)
        if self.by_key and missing > 0:
            self._marks = np.concatenate([self._marks, np.full(max(256, missing, len(self._marks)), _FRESH)])

    def advance(self, series: Ints, event_ms: Ints, now_ms: int) -> Ints:
        """Take the times of a batch in; return for each record the limit that stood when it came, itself included.

        Parameters
        ----------
        series : ndarray of int64, shape (n,)
            Number of each record's series, in the order of the log.
        event_ms : ndarray of int64, shape (n,)
            Event times, ms, below 2**48.
        now_ms : int
            The wall clock, ms.
        """
        self._began(now_ms)
        owner = series if self.by_key else np.zeros(len(series), np.int64)
        order = np.argsort(owner, kind="stable")
        first = np.flatnonzero(np.diff(owner[order], prepend=-1))
        owners = owner[order[first]]
        count = np.diff(first, append=len(order))
        # A running maximum of each owner, in one pass: the owner's rank above the bits of the time.
        rank = np.repeat(np.arange(len(first)), count)
        running = np.maximum.accumulate((rank << _TIME_BITS) | event_ms[order]) & _TIME_MASK
        running = np.maximum(running, np.repeat(self._marks["greatest_ms"][owners], count))
        self._marks["greatest_ms"][owners] = running[first + count - 1]
        self._marks["seen_ms"][owners] = now_ms - self._missed_ms
        limits = np.empty(len(order), np.int64)
        limits[order] = np.maximum(
            running - self._event_time.lateness_ms, np.repeat(self._marks["closed_ms"][owners], count)
        )
        return limits

    def held(self, series: Ints) -> tuple[Ints, npt.NDArray[np.void]]:
        """Return what is known of some series, or of their partition, for `put_back`."""
        owners = np.unique(series) if self.by_key else np.zeros(1, np.int64)
        return owners, self._marks[owners]

    def put_back(self, held: tuple[Ints, npt.NDArray[np.void]]) -> None:
        """Have time stand where it stood."""
        owners, marks = held
        self._marks[owners] = marks

    def unheard(self, series: Ints) -> Ints:
        """Return those of some series of which nothing has come yet, where each has a watermark."""
        if not self.by_key:
            return series[:0]
        unheard: Ints = series[self._marks["greatest_ms"][series] == _NEVER]
        return unheard

    def limits(self, series: Ints) -> Ints:
        """Return the limit that now stands for each of some series."""
        marks = self._marks[series if self.by_key else np.zeros(len(series), np.int64)]
        limits: Ints = np.maximum(marks["greatest_ms"] - self._event_time.lateness_ms, marks["closed_ms"])
        return limits

    def limit(self) -> int:
        """Return the limit that now stands for the partition."""
        return int(self.limits(np.zeros(1, np.int64))[0])

    def listened(self, now_ms: int, heard: Heard | None) -> int:
        """Note how long has been listened to the log; return the time that silence is judged by, ms.

        It stands still while records may stand unread in the log: nobody is silent for that.

        Parameters
        ----------
        now_ms : int
            The wall clock, ms.
        heard : tuple of (int, int), optional
            Unset: without a break, until now.
        """
        self._began(now_ms)
        if heard is None:
            return now_ms - self._missed_ms
        until_ms, self._missed_ms = heard
        return until_ms - self._missed_ms

    def silent(self, series: Ints, listened_ms: int) -> npt.NDArray[np.bool_]:
        """Say of each of some series whether it, or its partition, has been silent for the idle time."""
        silent: npt.NDArray[np.bool_] = self.silent_at(series, listened_ms) <= listened_ms
        return silent

    def silent_at(self, series: Ints, now_ms: int) -> Ints:
        """Return when each of some series will have been silent for the idle time, as `listened` counts."""
        # While no process ran nobody can have heard anything: silence counts from when this one began.
        at: Ints = np.maximum(self.seen_ms(series), self._began(now_ms)) + self._event_time.idle_ms
        return at

    def _began(self, now_ms: int) -> int:
        if self._since_ms is None:
            self._since_ms = now_ms
        return self._since_ms

    def close_up_to(self, series: Ints, end_ms: Ints) -> None:
        """Note that windows of some series are closed up to an end, ms, whatever event time says."""
        owner = series if self.by_key else np.zeros(len(series), np.int64)
        np.maximum.at(self._marks["closed_ms"], owner, end_ms)

    def expect(self, series: Ints, now_ms: int) -> None:
        """Let the silence of series of which nothing has come yet begin now."""
        owner = np.unique(series) if self.by_key else np.zeros(1, np.int64)
        fresh = owner[self._marks["seen_ms"][owner] == 0]
        self._marks["seen_ms"][fresh] = now_ms - self._missed_ms

    def reset(self, series: int) -> None:
        """Begin anew with a series' number that another key gets."""
        if self.by_key:
            self._marks[series] = _FRESH

    def seen_ms(self, series: Ints) -> Ints:
        """Return when something of each of some series, or of their partition, last came, as `listened` counts."""
        seen: Ints = self._marks["seen_ms"][series if self.by_key else np.zeros(len(series), np.int64)]
        return seen

    def pack(self, series: int = 0) -> bytes:
        """Return the mark of a series, or of the partition."""
        return msgspec.msgpack.encode(self._marks[series].tolist())

    def restore(self, packed: bytes, series: int = 0) -> None:
        """Put a mark back."""
        self._marks[series] = np.array(msgspec.msgpack.decode(packed, type=tuple[int, int, int]), _MARK)
