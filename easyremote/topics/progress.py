"""How far partitions are read, against where they end: whether silence can be heard, and what does not move. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import NamedTuple

__all__ = ["Heard", "Progress", "Stall"]

Place = tuple[str, int]
"""Full name of a topic, and a partition."""

_UNKNOWN = -1
_BREAK_MS = 3_000
"""Longest time between two moments at which a partition was read to its end that counts as one time of listening."""
_STALLED_S = 10.0
_BETWEEN_LOOKS_S = 2.0
"""Most that one look adds to the time in which nothing moved: while the process was stopped nothing could."""


class Heard(NamedTuple):
    """How long one has listened to a partition, by the wall clock, ms."""

    until_ms: int
    """Until when all that had been written was read; 0: never yet."""
    missed_ms: int
    """For how long, since it was given, that was not so."""


class Stall(NamedTuple):
    """A partition that has records and is not read on."""

    topic: str
    partition: int
    position: int | None
    end: int


@dataclass
class _Reading:
    position: int | None
    """Next offset to read, where it is known."""
    until_ms: int = 0
    missed_ms: int = 0
    waits_for: tuple[int, int] | None = None
    """When it was asked where the partition ends, and the answer, which has not been reached yet."""
    newest: tuple[int, int] | None = None
    looked_at: int | None = None
    """Position at the last comparison; unset: there was none."""
    still_s: float = 0.0

    def reached(self, mark: tuple[int, int] | None) -> bool:
        # Of a partition to which nothing was ever written no position is told.
        return mark is not None and (mark[1] == 0 or (self.position is not None and self.position >= mark[1]))

    def listened_until(self, now_ms: int) -> None:
        since_ms = now_ms - self.until_ms
        if self.until_ms and since_ms > _BREAK_MS:
            self.missed_ms += since_ms
        self.until_ms = now_ms


class Progress:
    """Compares positions with ends.

    Silence means something only of what has been read to its end. Under load the end is always a little further, so
    what counts is an end of a moment ago: once it is reached, all that was written until then is read.

    Examples
    --------
    >>> progress = Progress()
    >>> progress.give({("t", 0): 5})
    >>> progress.compare(1_000, {("t", 0): 7}, 1.0)
    []
    >>> progress.heard()["t", 0]
    Heard(until_ms=0, missed_ms=0)
    >>> progress.read("t", 0, 7)
    >>> progress.heard()["t", 0]
    Heard(until_ms=1000, missed_ms=0)
    """

    def __init__(self) -> None:
        self._readings: dict[Place, _Reading] = {}
        self._drained: set[str] = set()
        self._compared_s = 0.0

    @property
    def places(self) -> list[Place]:
        """What is read."""
        return list(self._readings)

    def give(self, starts: Mapping[Place, int | None]) -> None:
        """Note partitions that are read from here on; None or below 0: where it begins is not known."""
        self._readings |= {
            place: _Reading(start if start is not None and start >= 0 else None) for place, start in starts.items()
        }

    def take(self, partitions: Iterable[int]) -> None:
        """Note partitions, of whatever topic, that are read no more."""
        gone = set(partitions)
        self._readings = {place: one for place, one in self._readings.items() if place[1] not in gone}

    def read(self, topic: str, partition: int, next_offset: int) -> None:
        """Note that everything before an offset has been handed on, or is none of our records."""
        reading = self._readings.get((topic, partition))
        if reading is not None and (reading.position is None or reading.position < next_offset):
            reading.position = next_offset

    def drained(self, topics: Iterable[str]) -> None:
        """Note that the client has no record of topics in hand: what does not move then waits for no other's turn."""
        self._drained.update(topics)

    def compare(self, asked_ms: int, ends: Mapping[Place, int], now_s: float) -> list[Stall]:
        """Take in where partitions ended when that was asked; return those that have not moved for 10 s.

        Parameters
        ----------
        asked_ms : int
            When, by the wall clock.
        ends : mapping of (str, int) to int
            The offset after the last record that can be read.
        now_s : float
            A clock that never goes back, s.
        """
        passed_s = min(now_s - self._compared_s, _BETWEEN_LOOKS_S)
        self._compared_s = now_s
        stalls = []
        for place, end in ends.items():
            reading = self._readings.get(place)
            if reading is None:
                continue
            is_first = reading.looked_at is None
            reading.newest = (asked_ms, end)
            if reading.waits_for is None:
                reading.waits_for = reading.newest
            position = _UNKNOWN if reading.position is None else reading.position
            if is_first or reading.reached(reading.newest) or position != reading.looked_at:
                reading.still_s = 0.0
            elif place[0] in self._drained:
                reading.still_s += passed_s
            reading.looked_at = position
            if reading.still_s >= _STALLED_S:
                reading.still_s = 0.0
                stalls.append(Stall(*place, reading.position, end))
        self._drained.clear()
        return stalls

    def heard(self) -> dict[Place, Heard]:
        """Return how long each partition has been listened to."""
        for reading in self._readings.values():
            if reading.reached(reading.newest):
                assert reading.newest is not None
                reading.listened_until(reading.newest[0])
                reading.newest = reading.waits_for = None
            elif reading.reached(reading.waits_for):
                assert reading.waits_for is not None
                reading.listened_until(reading.waits_for[0])
                reading.waits_for = reading.newest
        return {place: Heard(one.until_ms, one.missed_ms) for place, one in self._readings.items()}
