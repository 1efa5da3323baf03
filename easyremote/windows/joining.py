"""What all joins of two streams share: two sides, a watermark of each, state that goes once nothing can match it."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass, field
from operator import attrgetter
from typing import Any, Literal, NamedTuple

import msgspec
import numpy as np
import numpy.typing as npt

from easyremote.windows.assigners import EventTime
from easyremote.windows.keys import Keys, of_another_form
from easyremote.windows.resting import NEVER, Resting, earliest
from easyremote.windows.rows import Key, Late, Rows
from easyremote.windows.sides import Packed, Side
from easyremote.windows.watermarks import FUTURE_MS, Heard, Watermarks

__all__ = ["JOINED", "Arrived", "Join", "JoinEffects", "JoinResult"]

Ints = npt.NDArray[np.int64]
Flags = npt.NDArray[np.bool_]
JOINED = "\x00record"
"""The column of the records themselves, as bytes of JSON; no field that anyone has."""
_FORGET_MS = 7 * 24 * 3_600_000
_FORGET_EACH_MS = 3_600_000
_FORMAT = 1
_Content = tuple[Literal[1], bytes, bytes, Packed, Packed]
_MARK = b"watermark"


class JoinResult(NamedTuple):
    """A pair of records of one key; None where a side has none."""

    key: Key
    left: bytes | None
    right: bytes | None
    event_ms: int = 0
    """Of a pair the later time of both, or the left one's where the right is what stood then."""


@dataclass(frozen=True, slots=True)
class JoinEffects:
    """What a step led to."""

    results: list[JoinResult] = field(default_factory=list)
    late: list[Late] = field(default_factory=list)


class Arrived(NamedTuple):
    """Records of a batch that are in time, by series, event time and offset; arrays of shape (n,)."""

    series: Ints
    event_ms: Ints
    offsets: Ints
    records: npt.NDArray[np.object_]


class Join(ABC):
    """Two streams of one partition, joined by their key.

    Each side has a watermark of its own, from its own log alone; so which records are late, and so all results, do
    not depend on how the two logs are read past each other.

    Parameters
    ----------
    event_time : EventTime
        Lateness and idle time of both sides; whose watermark.
    """

    def __init__(self, event_time: EventTime | None = None) -> None:
        known = event_time or EventTime(watermark="partition")
        self._marks = (Watermarks(known), Watermarks(known))
        self._keys = Keys(*self._marks)
        self._sides = (Side(), Side())
        self._changed: set[int] = set()
        self._gone: list[Key] = []
        self._forget_at_ms = 0
        self.resting = Resting(self._keys, self.restore, self._let_go)

    @property
    def held(self) -> int:
        """How many records of both sides it holds."""
        return len(self._sides[0]) + len(self._sides[1])

    @property
    def keys(self) -> int:
        """How many keys it knows."""
        return len(self._keys)

    def step(self, side: int, rows: Rows, now_ms: int) -> JoinEffects:
        """Take a batch of one side in.

        Parameters
        ----------
        side : int
            0: the left, 1: the right.
        rows : Rows
            At least one, in the order of the log, the records themselves in the column `JOINED`.
        now_ms : int
            The wall clock, ms.
        """
        ahead = rows.event_ms - now_ms
        future = ahead > FUTURE_MS
        late = _late(np.flatnonzero(future), rows.event_ms, ahead, "future")
        taken = np.flatnonzero(~future)
        if not len(taken):
            return JoinEffects([], late)
        series = self._keys.numbers([rows.keys[place] for place in taken.tolist()])
        self._changed.update(np.unique(series).tolist())
        event_ms = rows.event_ms[taken]
        self._marks[1 - side].expect(series, now_ms)
        behind = np.zeros(len(ahead), np.int64)
        behind[taken] = self._marks[side].advance(series, event_ms, now_ms) - event_ms
        late += _late(taken[behind[taken] > 0], rows.event_ms, behind, "late")
        in_time = np.flatnonzero(behind[taken] <= 0)
        results: list[JoinResult] = []
        if len(in_time):
            order = in_time[np.lexsort((rows.offsets[taken[in_time]], event_ms[in_time], series[in_time]))]
            records = rows.columns[JOINED][taken[order]]
            arrived = Arrived(series[order], event_ms[order], rows.offsets[taken[order]], records)
            results = self._arrive(side, arrived)
        if not self._marks[0].by_key:
            self.resting.wake(max(marks.limit() for marks in self._marks))
        return JoinEffects(_by_time(results + self._expire()), late)

    def close_idle(self, now_ms: int, heard: Sequence[Heard] | None = None) -> list[JoinResult]:
        """Let go what waits for a side that is silent; forget keys silent for a week.

        Parameters
        ----------
        now_ms : int
            The wall clock, ms.
        heard : sequence of (int, int), optional
            How long each side was listened to; unset: without a break, until now.
        """
        known = (None, None) if heard is None else heard
        listened_ms = [marks.listened(now_ms, one) for marks, one in zip(self._marks, known, strict=True)]
        self.resting.wake(self._wakes_at(listened_ms))
        for side in (0, 1):
            waiting, until = self._waits_for(side)
            marks = self._marks[side]
            silent = marks.silent(waiting, listened_ms[side]) & (until > marks.limits(waiting))
            if silent.any():
                marks.close_up_to(waiting[silent], until[silent])
                self._changed.update(waiting[silent].tolist())
        results = _by_time(self._expire())
        self._forget(max(listened_ms))
        return results

    def changes(self) -> list[tuple[bytes, bytes | None]]:
        """Return key and content of everything that changed since the last time; None: forgotten."""
        changes: list[tuple[bytes, bytes | None]] = [(msgspec.json.encode(key), None) for key in self._gone]
        by_key = self._marks[0].by_key
        if self._changed and not by_key:
            changes.append((_MARK, msgspec.msgpack.encode([marks.pack() for marks in self._marks])))
        for number in sorted(self._changed):
            content = self._content(number)
            key = self._keys[number] if content else self._keys.drop(number)
            changes.append((msgspec.json.encode(key), content))
        self._changed.clear()
        self._gone.clear()
        return changes

    def restore(self, key: bytes, content: bytes) -> None:
        """Put back what `changes` gave.

        Raises
        ------
        WindowError
            If it was not made by this version of a join.
        """
        try:
            if key == _MARK:
                for marks, packed in zip(self._marks, msgspec.msgpack.decode(content, type=list[bytes]), strict=True):
                    marks.restore(packed)
                return
            _, *packed_marks, left, right = msgspec.msgpack.decode(content, type=_Content)
            (number,) = self._keys.numbers([tuple(msgspec.json.decode(key, type=list[Any]))]).tolist()
        except (ValueError, TypeError) as error:
            raise of_another_form(key, str(error)) from error
        for side, held in zip(self._sides, (left, right), strict=True):
            if held:
                side.restore(number, held)
        if self._marks[0].by_key:
            for marks, one in zip(self._marks, packed_marks, strict=True):
                marks.restore(one, number)

    def _let_go(self, numbers: Ints, now_ms: int) -> tuple[list[bytes], Ints]:
        wakes = earliest(numbers, *self._due_at())
        if self._marks[0].by_key:
            silent_at = np.minimum(*(marks.silent_at(numbers, now_ms) for marks in self._marks))
            seen = np.maximum(*(marks.seen_ms(numbers) for marks in self._marks))
            wakes = np.where(wakes < NEVER, silent_at, seen + _FORGET_MS)
        contents = [self._content(number) or b"" for number in numbers.tolist()]
        for side in self._sides:
            side.remove(np.isin(side.rows["series"], numbers))
        return contents, wakes

    def _content(self, number: int) -> bytes | None:
        """Return the state of a series; None if it has none that would have to be kept."""
        left, right = (side.of(number) for side in self._sides)
        by_key = self._marks[0].by_key
        if not (left or right or by_key):
            return None
        marks = [one.pack(number) if by_key else b"" for one in self._marks]
        return msgspec.msgpack.encode([_FORMAT, *marks, left, right])

    def _wakes_at(self, listened_ms: Sequence[int]) -> int:
        if self._marks[0].by_key:
            return max(listened_ms)
        pairs = zip(self._marks, listened_ms, strict=True)
        is_silent = any(bool(marks.silent(np.zeros(1, np.int64), at)[0]) for marks, at in pairs)
        return NEVER - 1 if is_silent else max(marks.limit() for marks in self._marks)

    @abstractmethod
    def _due_at(self) -> tuple[Ints, Ints]:
        """Return series, and the times at one of the watermarks from which on something of theirs is due, ms."""

    @abstractmethod
    def _arrive(self, side: int, arrived: Arrived) -> list[JoinResult]:
        """Take records of a side in; return what they lead to at once."""

    @abstractmethod
    def _expire(self) -> list[JoinResult]:
        """Let go what the watermarks have passed; return what that leads to."""

    @abstractmethod
    def _waits_for(self, side: int) -> tuple[Ints, Ints]:
        """Return series that hold something until a side's watermark has come far enough, and how far, ms."""

    def _forget(self, now_ms: int) -> None:
        if not self._marks[0].by_key or now_ms < self._forget_at_ms:
            return
        self._forget_at_ms = now_ms + _FORGET_EACH_MS
        numbers = self._keys.known()
        if not len(numbers):
            return
        seen = np.maximum(self._marks[0].seen_ms(numbers), self._marks[1].seen_ms(numbers))
        holding = np.concatenate([side.rows["series"] for side in self._sides])
        for number in np.setdiff1d(numbers[seen < now_ms - _FORGET_MS], holding).tolist():
            self._gone.append(self._keys.drop(number))
            self._changed.discard(number)


def _by_time(results: list[JoinResult]) -> list[JoinResult]:
    # Keys are worked on one after the other; who reads what is joined would take those of the others for late.
    return sorted(results, key=attrgetter("event_ms"))


def _late(places: Ints, event_ms: Ints, amount: Ints, reason: Literal["late", "future"]) -> list[Late]:
    return [
        Late(place, at, at + 1, how_late, reason)
        for place, at, how_late in zip(places.tolist(), event_ms[places].tolist(), amount[places].tolist(), strict=True)
    ]
