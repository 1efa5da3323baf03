"""Joins: what comes out depends on what is in the two logs alone, and nothing is held that nobody can want."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import pytest
from easyremote.errors import WindowError
from easyremote.windows import AsOfJoin, EventTime, IntervalJoin, Join, JoinResult, Rows
from easyremote.windows.interval_join import How
from easyremote.windows.joining import JOINED
from easyremote.windows.watermarks import FUTURE_MS
from hypothesis import given, settings
from hypothesis import strategies as st

NOW = 1_700_000_000_000
LATENESS = 40


@dataclass(frozen=True)
class _Record:
    key: str
    at: int
    offset: int

    @property
    def content(self) -> bytes:
        return f"{self.key}/{self.at}/{self.offset}".encode()


def _rows(records: Sequence[_Record]) -> Rows:
    content = np.empty(len(records), object)
    content[:] = [one.content for one in records]
    times = np.array([one.at for one in records], np.int64)
    offsets = np.array([one.offset for one in records], np.int64)
    return Rows([(one.key,) for one in records], times, offsets, {JOINED: content})


def _log(events: Sequence[tuple[str, int]]) -> list[_Record]:
    return [_Record(key, NOW + at, offset) for offset, (key, at) in enumerate(events)]


def _in_time(log: Sequence[_Record], *, by_key: bool) -> tuple[list[_Record], list[_Record]]:
    greatest: dict[str, int] = {}
    kept: list[_Record] = []
    late: list[_Record] = []
    for one in log:
        owner = one.key if by_key else ""
        greatest[owner] = max(greatest.get(owner, 0), one.at)
        (late if one.at < greatest[owner] - LATENESS else kept).append(one)
    return kept, late


def _pairs(left: Sequence[_Record], right: Sequence[_Record], before: int, after: int, how: str) -> Counter[object]:
    def match(a: _Record, b: _Record) -> bool:
        return a.key == b.key and a.at - before <= b.at <= a.at + after

    pairs: list[tuple[bytes | None, bytes | None]] = [
        (a.content, b.content) for a in left for b in right if match(a, b)
    ]
    if how in {"left", "outer"}:
        pairs += [(a.content, None) for a in left if not any(match(a, b) for b in right)]
    if how == "outer":
        pairs += [(None, b.content) for b in right if not any(match(a, b) for a in left)]
    return Counter(pairs)


def _latest(left: Sequence[_Record], right: Sequence[_Record], tolerance: int | None, how: str) -> Counter[object]:
    told: list[tuple[bytes, bytes | None]] = []
    for a in left:
        before = [
            b for b in right if b.key == a.key and b.at <= a.at and (tolerance is None or a.at - b.at <= tolerance)
        ]
        if before:
            told.append((a.content, max(before, key=lambda one: (one.at, one.offset)).content))
        elif how == "left":
            told.append((a.content, None))
    return Counter(told)


EVENTS = st.lists(st.tuples(st.sampled_from("abc"), st.integers(0, 200)), max_size=30)


def _run(
    make: Callable[[], Join], logs: Sequence[Sequence[_Record]], draw: st.DataObject
) -> tuple[Counter[object], list[set[int]], Join]:
    """Feed two logs in any batches, in any interleaving, with a restart after any of them; let all end."""
    kernel = make()
    kept: dict[bytes, bytes] = {}
    results: list[JoinResult] = []
    late: list[set[int]] = [set(), set()]
    read = [0, 0]
    while any(place < len(log) for place, log in zip(read, logs, strict=True)):
        open_sides = [side for side in (0, 1) if read[side] < len(logs[side])]
        side = draw.draw(st.sampled_from(open_sides))
        size = draw.draw(st.integers(1, 8))
        batch = logs[side][read[side] : read[side] + size]
        read[side] += len(batch)
        effects = kernel.step(side, _rows(batch), NOW)
        results += effects.results
        late[side] |= {batch[one.place].offset for one in effects.late}
        for key, content in kernel.changes():
            if content is None:
                kept.pop(key, None)
            else:
                kept[key] = content
        if draw.draw(st.booleans()):
            kernel = make()
            for key, content in kept.items():
                kernel.restore(key, content)
    results += kernel.close_idle(NOW)  # from here on it is silent
    results += kernel.close_idle(NOW + 60_000)
    results += kernel.close_idle(NOW + 120_000)
    return Counter((one.left, one.right) for one in results), late, kernel


@pytest.mark.parametrize("by_key", [True, False], ids=["by key", "by partition"])
@pytest.mark.parametrize("how", ["inner", "left", "outer"])
@settings(max_examples=25, deadline=None)
@given(events=st.tuples(EVENTS, EVENTS), bounds=st.tuples(st.integers(0, 30), st.integers(0, 30)), draw=st.data())
def test_an_interval_join_gives_the_pairs_in_time_whatever_the_interleaving_the_batches_and_the_restarts(
    how: How, by_key: bool, events: tuple[list[tuple[str, int]], ...], bounds: tuple[int, int], draw: st.DataObject
) -> None:
    logs = [_log(one) for one in events]
    event_time = EventTime(LATENESS, "30s", "key" if by_key else "partition")
    told, late, kernel = _run(lambda: IntervalJoin(*bounds, how, event_time), logs, draw)
    (left, left_late), (right, right_late) = (_in_time(log, by_key=by_key) for log in logs)
    assert told == _pairs(left, right, *bounds, how)
    assert late == [{one.offset for one in left_late}, {one.offset for one in right_late}]
    assert kernel.held == 0


@pytest.mark.parametrize("by_key", [True, False], ids=["by key", "by partition"])
@pytest.mark.parametrize("how", ["inner", "left"])
@settings(max_examples=25, deadline=None)
@given(events=st.tuples(EVENTS, EVENTS), tolerance=st.none() | st.integers(0, 60), draw=st.data())
def test_an_as_of_join_and_one_with_a_table_give_the_latest_in_time_whatever_comes_first(
    how: How, by_key: bool, events: tuple[list[tuple[str, int]], ...], tolerance: int | None, draw: st.DataObject
) -> None:
    logs = [_log(one) for one in events]
    event_time = EventTime(LATENESS, "30s", "key" if by_key else "partition")
    assert how != "outer"
    told, late, _ = _run(lambda: AsOfJoin(tolerance, how, event_time), logs, draw)
    (left, left_late), (right, right_late) = (_in_time(log, by_key=by_key) for log in logs)
    assert told == _latest(left, right, tolerance, how)
    assert late == [{one.offset for one in left_late}, {one.offset for one in right_late}]


def test_a_table_holds_one_version_of_each_key_once_the_others_are_passed() -> None:
    table = AsOfJoin(event_time=EventTime(watermark="partition"))
    for version in range(50):
        at = version * 10
        table.step(1, _rows([_Record(key, NOW + at, version) for key in "abcde"]), NOW)
        table.step(0, _rows([_Record("a", NOW + at, version)]), NOW)
    assert table.held == 5 + 1  # the version of each key that counts, and the last question, which waits


def test_what_is_held_for_a_table_is_not_written_again_while_nothing_happens() -> None:
    table = AsOfJoin()
    table.step(1, _rows([_Record(key, NOW, 0) for key in "abc"]), NOW)
    table.close_idle(NOW)
    table.close_idle(NOW + 60_000)
    assert table.changes()
    assert [table.close_idle(NOW + 60_000 + second * 1_000) for second in range(5)] == [[]] * 5
    assert table.changes() == []


def test_keys_that_come_once_leave_nothing_behind_in_a_join_by_partition() -> None:
    join = IntervalJoin("5ms", "5ms", "left")
    kept: dict[bytes, bytes] = {}
    for number in range(200):
        for side in (0, 1):
            join.step(side, _rows([_Record(f"k{number}", NOW + number * 10, number)]), NOW)
        for key, content in join.changes():
            if content is None:
                del kept[key]
            else:
                kept[key] = content
    assert join.keys < 5
    assert len(kept) < 5 + 1  # and the watermarks


def test_a_side_that_has_not_spoken_yet_is_waited_for_from_when_the_key_was_first_seen() -> None:
    join = IntervalJoin("5s", "5s", "left", EventTime(idle="30s"))
    join.close_idle(NOW - 3_600_000)  # it has run for an hour
    join.step(0, _rows([_Record("a", NOW, 0)]), NOW)
    assert join.close_idle(NOW + 29_000) == []
    effects = join.step(1, _rows([_Record("a", NOW - 4_000, 0)]), NOW + 29_500)
    assert [(one.left is None, one.right is None) for one in effects.results] == [(False, False)]


def test_a_clock_that_is_ahead_is_told_and_moves_no_watermark_of_a_join() -> None:
    join = IntervalJoin("5ms", "5ms", "outer")
    ahead = _Record("a", NOW + FUTURE_MS + 1, 0)
    assert [one.reason for one in join.step(0, _rows([ahead]), NOW).late] == ["future"]
    assert join.step(0, _rows([_Record("a", NOW, 1)]), NOW).late == []


def test_state_of_another_kind_is_refused() -> None:
    windowed = IntervalJoin("5ms", "5ms")
    with pytest.raises(WindowError, match="another name"):
        windowed.restore(b'["a"]', b"\x93\x01\x02\x03")


@pytest.mark.parametrize("make", [lambda: IntervalJoin("1s", "1s", "right"), lambda: AsOfJoin("1s", "outer")])  # type: ignore[arg-type]
def test_a_kind_of_join_that_is_none_is_refused(make: Callable[[], object]) -> None:
    with pytest.raises(WindowError, match="how="):
        make()
