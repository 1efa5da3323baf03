"""Keys that memory has no room for rest elsewhere: nothing that is told depends on it, and few are held."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from itertools import pairwise
from typing import Any, Protocol

import numpy as np
import pytest
from easyremote.windows import AsOfJoin, EventTime, IntervalJoin, Join, Kernel, Readings, Rows, ZScore
from easyremote.windows.aggregates import Count, Sum
from easyremote.windows.assigners import Assigner, CountWindow, Hopping, Session, Sliding, Tumbling
from easyremote.windows.detectors import AlertRule, Detecting
from easyremote.windows.detectors import ZScore as Scored
from easyremote.windows.joining import JOINED
from easyremote.windows.windowed import Windowed
from hypothesis import given, settings
from hypothesis import strategies as st
from shelves import MemoryShelf

NOW = 1_700_000_000_000
WEEK = 7 * 24 * 3_600_000
MOST = 2
Event = tuple[str, int, int]
"""Key, event time behind now, ms, and value."""
Steps = Callable[[Sequence[Event], int, int], list[Any]]

EVENTS = st.lists(
    st.tuples(st.sampled_from("abcdefgh"), st.integers(0, 4_000), st.integers(-9, 9)), min_size=1, max_size=60
)
CUTS = st.lists(st.integers(1, 60), max_size=10)
EVENT_TIMES = {name: EventTime(500, "30s", name) for name in ("key", "partition")}
WINDOWS: dict[str, Assigner] = {
    "tumbling": Tumbling(1_000),
    "hopping": Hopping(1_000, 300),
    "sliding": Sliding(1_000),
    "session": Session(300),
    "count": CountWindow(3, 2),
}


class _Runs(Protocol):
    """A kernel and how it is stepped, so that one body tests them all."""

    kernel: Any

    def step(self, events: Sequence[Event], first: int, now_ms: int) -> list[Any]: ...
    def idle(self, now_ms: int) -> list[Any]: ...


def _rows(events: Sequence[Event], first: int) -> Rows:
    records = np.empty(len(events), object)
    records[:] = [f"{key}{behind}/{value}".encode() for key, behind, value in events]
    return Rows(
        [(key,) for key, _, _ in events],
        np.array([NOW - behind for _, behind, _ in events], np.int64),
        np.arange(first, first + len(events)),
        {"value": np.array([value for _, _, value in events], np.float64), JOINED: records},
    )


class _OfWindows:
    def __init__(self, windows: Assigner, event_time: EventTime) -> None:
        self.kernel = Windowed(windows, {"n": Count(), "sum": Sum("value")}, event_time)

    def step(self, events: Sequence[Event], first: int, now_ms: int) -> list[Any]:
        effects = self.kernel.step(_rows(events, first), now_ms)
        return [*map(repr, effects.results), *((first + one.place, one.reason) for one in effects.late)]

    def idle(self, now_ms: int) -> list[Any]:
        return list(map(repr, self.kernel.close_idle(now_ms)))


class _OfJoin:
    def __init__(self, join: Join) -> None:
        self.kernel = join

    def step(self, events: Sequence[Event], first: int, now_ms: int) -> list[Any]:
        told: list[Any] = []
        for side in (0, 1):
            of_side = [event for event in events if event[2] % 2 == side]
            if of_side:
                effects = self.kernel.step(side, _rows(of_side, first), now_ms)
                told += [*effects.results, *((side, first + one.place) for one in effects.late)]
        return told

    def idle(self, now_ms: int) -> list[Any]:
        return list(self.kernel.close_idle(now_ms))


class _OfDetector:
    def __init__(self) -> None:
        self.kernel = Detecting(Scored(threshold=2, window=5), AlertRule(), "value")

    def step(self, events: Sequence[Event], first: int, now_ms: int) -> list[Any]:
        return list(map(repr, self.kernel.step(_rows(events, first), now_ms).alerts))

    def idle(self, now_ms: int) -> list[Any]:
        self.kernel.forget(now_ms)
        return []


class _OfReadings:
    def __init__(self) -> None:
        self.kernel = Kernel(Tumbling(1_000), EventTime(500, 30_000), ZScore(1.0, memory=10, warmup=2, calm=2))

    def step(self, events: Sequence[Event], first: int, now_ms: int) -> list[Any]:
        rows = _rows(events, first)
        keys = [(key, "m") for key, _, _ in events]
        effects = self.kernel.step(Readings(keys, rows.columns["value"], rows.event_ms, rows.offsets), now_ms)
        told: list[Any] = list(zip(effects.closed_keys, effects.closed.tolist(), strict=True))
        told += [(first + late.place, late.reason) for late in effects.late]
        if effects.anomalies is not None:
            told += [("anomaly", first + place) for place in effects.anomalies.place.tolist()]
        return told

    def idle(self, now_ms: int) -> list[Any]:
        effects = self.kernel.close_idle(now_ms)
        return list(zip(effects.closed_keys, effects.closed.tolist(), strict=True))


KINDS: dict[str, Callable[[], _Runs]] = {
    **{
        f"{kind} by {by}": lambda windows=windows, time=time: _OfWindows(windows, time)  # type: ignore[misc]
        for kind, windows in WINDOWS.items()
        for by, time in EVENT_TIMES.items()
    },
    **{
        f"interval join by {by}": lambda time=time: _OfJoin(IntervalJoin(200, 300, "outer", time))  # type: ignore[misc]
        for by, time in EVENT_TIMES.items()
    },
    **{
        f"join with a table by {by}": lambda time=time: _OfJoin(AsOfJoin(None, "left", time))  # type: ignore[misc]
        for by, time in EVENT_TIMES.items()
    },
    **{
        f"as-of join by {by}": lambda time=time: _OfJoin(AsOfJoin(400, "left", time))  # type: ignore[misc]
        for by, time in EVENT_TIMES.items()
    },
    "detector": _OfDetector,
    "readings": _OfReadings,
}


def _told(
    make: Callable[[], _Runs], events: Sequence[Event], cuts: Sequence[int], *, resting: bool, crash: bool
) -> list[str]:
    """Return all that is told, sorted, of a log that comes in batches, a second apart, and ends in silence."""
    shelf = MemoryShelf()
    runs = make()
    if resting:
        runs.kernel.resting.on(shelf, MOST)
    kept: dict[bytes, bytes | None] = {}
    told: list[Any] = []
    now_ms = NOW
    edges = sorted({0, len(events), *(cut for cut in cuts if cut < len(events))})
    for first, end in pairwise(edges):
        told += runs.step(events[first:end], first, now_ms)
        now_ms += 1_000
        told += runs.idle(now_ms)
        kept |= runs.kernel.changes()
        if crash:
            runs, shelf = make(), MemoryShelf()
            if resting:
                runs.kernel.resting.on(shelf, MOST)
            for key, content in kept.items():
                if content is not None:
                    runs.kernel.restore(key, content)
        if resting:
            runs.kernel.resting.rest(now_ms)
            assert runs.kernel.keys <= MOST
    for _ in range(4):
        now_ms += 60_000
        told += runs.idle(now_ms)
    runs.kernel.changes()
    told += runs.idle(now_ms + 2 * WEEK)
    if resting and not isinstance(runs, _OfJoin):
        assert [one for one in shelf.rested.values() if one.wake < now_ms] == []
    return sorted(map(repr, told))


@pytest.mark.parametrize("kind", KINDS)
@settings(max_examples=25, deadline=None)
@given(events=EVENTS, cuts=CUTS, crash=st.booleans())
def test_what_is_told_does_not_depend_on_which_keys_rest(
    kind: str, events: list[Event], cuts: list[int], *, crash: bool
) -> None:
    make = KINDS[kind]
    everything = _told(make, events, cuts, resting=False, crash=crash)
    assert _told(make, events, cuts, resting=True, crash=crash) == everything


@pytest.mark.parametrize("kind", KINDS)
def test_most_keys_rest_and_each_comes_back_for_its_own_record(kind: str) -> None:
    runs, shelf = KINDS[kind](), MemoryShelf()
    runs.kernel.resting.on(shelf, MOST)
    for number in range(50):
        runs.step([(f"key-{number}", 0, number)], number, NOW)
        runs.kernel.changes()
        runs.kernel.resting.rest(NOW)
    assert runs.kernel.keys <= MOST
    assert runs.kernel.keys + len(shelf.rested) == 50
    runs.step([("key-7", 0, 1)], 50, NOW)
    resting = {key for key in shelf.rested if b"key-7" in key}
    assert resting == set()
    assert runs.kernel.keys + len(shelf.rested) == 50


def test_keys_that_are_silent_for_a_week_are_forgotten_though_they_rest() -> None:
    runs, shelf = _OfReadings(), MemoryShelf()
    runs.kernel.resting.on(shelf, MOST)
    for number in range(9):
        runs.step([(f"key-{number}", 0, 1)], number, NOW)
        runs.kernel.changes()
        runs.kernel.resting.rest(NOW)
    runs.idle(NOW + 60_000)
    runs.kernel.changes()
    runs.idle(NOW + 2 * WEEK)
    assert {key for key, content in runs.kernel.changes() if content is None} == {
        f'["key-{number}","m"]'.encode() for number in range(9)
    }
    assert shelf.rested == {}


@pytest.mark.parametrize("kind", [f"{one} by partition" for one in WINDOWS if one != "count"])
def test_what_rests_is_told_as_soon_as_the_others_time_says_so(kind: str) -> None:
    runs, shelf = KINDS[kind](), MemoryShelf()
    runs.kernel.resting.on(shelf, MOST)
    for number in range(9):
        runs.step([(f"key-{number}", 9_000, 1)], number, NOW)
        runs.kernel.changes()
        runs.kernel.resting.rest(NOW)
    assert len(shelf.rested) == 9 - runs.kernel.keys > 0
    told = "".join(runs.step([("another", 0, 1)], 9, NOW))
    assert [number for number in range(9) if f"key-{number}" not in told] == []
