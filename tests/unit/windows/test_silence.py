"""Silence counts only while the log is read to its end: in every kernel, on both sides of a join, for keys on disk."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import pytest
from easyremote.topics.progress import Heard
from easyremote.windows import (
    CountWindow,
    EventTime,
    Hopping,
    IntervalJoin,
    Kernel,
    Readings,
    Rows,
    Session,
    Sliding,
    Sum,
    Tumbling,
)
from easyremote.windows.joining import JOINED
from easyremote.windows.windowed import Windowed
from shelves import MemoryShelf

NOW = 1_700_000_000_000
IDLE_MS = 30_000
Tell = Callable[[int, Heard], int]
"""Lets a kernel look at the time; returns how many results that led to."""


def _built_in(*, rests: bool = False) -> Tell:
    kernel = Kernel(Tumbling(1_000), EventTime(0, IDLE_MS), None)
    if rests:
        kernel.resting.on(MemoryShelf(), 1)
    keys, times = [("a", "m"), ("b", "m"), ("c", "m")], np.full(3, NOW)
    kernel.step(Readings(keys, np.ones(3), times, np.arange(3)), NOW)
    if rests:
        kernel.changes()
        kernel.resting.rest(NOW)
        assert kernel.keys < 3
    return lambda now_ms, heard: len(kernel.close_idle(now_ms, heard).closed)


def _windowed(windows: Any, watermark: Any, *, rests: bool = False) -> Tell:
    kernel = Windowed(windows, {"sum": Sum("value")}, EventTime(0, IDLE_MS, watermark))
    if rests:
        kernel.resting.on(MemoryShelf(), 1)
    rows = Rows([("a",), ("b",), ("c",)], np.full(3, NOW), np.arange(3), {"value": np.ones(3)})
    kernel.step(rows, NOW)
    if rests:
        kernel.changes()
        kernel.resting.rest(NOW)
        assert kernel.keys < 3
    return lambda now_ms, heard: len(kernel.close_idle(now_ms, heard))


KERNELS: dict[str, Callable[[], Tell]] = {
    "built-in": _built_in,
    "built-in, on disk": lambda: _built_in(rests=True),
    **{
        f"{type(windows).__name__}, {watermark}{', on disk' if rests else ''}": lambda windows=windows,  # type: ignore[misc]
        watermark=watermark,
        rests=rests: _windowed(windows, watermark, rests=rests)
        for windows in (Tumbling(1_000), Hopping(2_000, 2_000), Sliding(1_000), Session(1_000), CountWindow(1))
        for watermark in ("key", "partition")
        for rests in (False, True)
    },
}


@pytest.mark.parametrize("make", KERNELS.values(), ids=KERNELS)
def test_nothing_is_closed_for_the_time_in_which_records_stood_unread(make: Callable[[], Tell]) -> None:
    tell = make()
    assert tell(NOW, Heard(NOW, 0)) == 0
    assert tell(NOW + 3_600_000, Heard(NOW, 0)) == 0  # not read on for an hour
    hour = NOW + 3_600_000
    assert tell(hour, Heard(hour, 3_600_000)) == 0  # it is at the end again
    assert tell(hour + IDLE_MS, Heard(hour + IDLE_MS - 1, 3_600_000)) == 0
    assert tell(hour + IDLE_MS, Heard(hour + IDLE_MS, 3_600_000)) == 3


@pytest.mark.parametrize("make", KERNELS.values(), ids=KERNELS)
def test_nothing_is_closed_before_the_end_was_ever_reached(make: Callable[[], Tell]) -> None:
    tell = make()
    assert tell(NOW, Heard(0, 0)) == 0
    assert tell(NOW + 3_600_000, Heard(0, 0)) == 0


def _rows(key: str, at: int) -> Rows:
    record = np.empty(1, object)
    record[0] = b"{}"
    return Rows([(key,)], np.array([at]), np.array([0]), {JOINED: record})


@pytest.mark.parametrize("watermark", ["key", "partition"])
@pytest.mark.parametrize("side", [0, 1])
def test_what_waits_for_a_side_waits_while_that_side_stands_unread(side: int, watermark: Any) -> None:
    def heard(of_the_other: Heard, now_ms: int) -> Sequence[Heard]:
        return [Heard(now_ms, 0), of_the_other][:: 1 if side == 0 else -1]

    join = IntervalJoin("1s", "1s", "outer", EventTime(0, IDLE_MS, watermark))
    join.step(side, _rows("a", NOW), NOW)
    assert join.close_idle(NOW, heard(Heard(NOW, 0), NOW)) == []
    hour = NOW + 3_600_000
    assert join.close_idle(hour, heard(Heard(NOW, 0), hour)) == []
    assert join.close_idle(hour, heard(Heard(hour, 3_600_000), hour)) == []
    until = hour + IDLE_MS
    assert join.close_idle(until, heard(Heard(until - 1, 3_600_000), until)) == []
    assert len(join.close_idle(until, heard(Heard(until, 3_600_000), until))) == 1
