"""The windowed kernel against oracles that sort the input and do the same in plain Python."""

from __future__ import annotations

import random
from collections import defaultdict
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from itertools import pairwise
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from easyremote.errors import WindowError
from easyremote.windows.assigners import Assigner, CountWindow, EventTime, Hopping, Session, Sliding, Tumbling
from easyremote.windows.rows import Rows
from easyremote.windows.windowed import Emission, Windowed, WindowedEffects
from hypothesis import given, settings
from hypothesis import strategies as st

NOW = 1_700_000_000_000
LATENESS = 500
Row = tuple[str, int, int]
"""Key, value, event time."""
Make = Callable[[], Windowed]
Told = dict[tuple[str, int, int], tuple[int, int]]
"""Number of records and their sum, by key, start and end."""

WINDOWS: dict[str, Assigner] = {
    "tumbling": Tumbling(1_000),
    "hopping": Hopping(1_000, 300),
    "hopping of one pane": Hopping(900, 300),
    "sliding": Sliding(1_000),
    "session": Session(300),
    "count": CountWindow(3),
    "count with a hop": CountWindow(5, 2),
}


class Total:
    """Number and sum of integers: exact, so that results can be compared as they are."""

    column = "value"

    @property
    def state(self) -> Total:
        return self

    def empty(self, n: int) -> npt.NDArray[Any]:
        return np.zeros((n, 2), np.int64)

    def of_groups(self, values: Any, first: npt.NDArray[np.int64]) -> npt.NDArray[Any]:
        whole = np.asarray(values).astype(np.int64)
        return np.stack([np.diff(first, append=len(whole)), np.add.reduceat(whole, first)], axis=1)

    def merge(self, states: npt.NDArray[Any], places: npt.NDArray[np.int64], partial: npt.NDArray[Any]) -> None:
        assert len(set(places.tolist())) == len(places), "a place is given once"
        states[places] += partial

    def results(self, states: npt.NDArray[Any]) -> list[object]:
        return [tuple(state) for state in states.tolist()]

    def pack(self, states: npt.NDArray[Any]) -> list[bytes]:
        return [state.tobytes() for state in states]

    def unpack(self, packed: Sequence[bytes]) -> npt.NDArray[Any]:
        return np.frombuffer(b"".join(packed), np.int64).reshape(-1, 2)


def _kernel(
    windows: Assigner, emission: Emission = "close", *, lateness: int = LATENESS, watermark: Any = "key"
) -> Windowed:
    return Windowed(windows, {"total": Total()}, EventTime(lateness, "30s", watermark), emission)


def _columns(rows: Sequence[Row], first: int = 0) -> Rows:
    return Rows(
        [(key,) for key, _, _ in rows],
        np.array([event_ms for _, _, event_ms in rows], np.int64),
        np.arange(first, first + len(rows)),
        {"value": np.array([value for _, value, _ in rows], np.float64)},
    )


@dataclass
class Seen:
    final: Told = field(default_factory=dict)
    late: list[int] = field(default_factory=list)

    def take(self, effects: WindowedEffects, first: int = 0) -> None:
        for one in effects.results:
            if one.final:
                window = (one.key[0], one.start, one.end)
                assert window not in self.final, "a window is final once"
                self.final[window] = one.values["total"]
        self.late += [first + late.place for late in effects.late]


def _run(make: Make, rows: Sequence[Row], cuts: Iterable[int] = (), *, crash: bool = False) -> Seen:
    """Step through the rows in batches, each in a kernel of its own where it crashes, and close what is open."""
    seen, kernel = Seen(), make()
    kept: dict[bytes, bytes] = {}
    edges = sorted({0, len(rows), *(cut for cut in cuts if cut < len(rows))})
    for first, end in pairwise(edges):
        seen.take(kernel.step(_columns(rows[first:end], first), NOW), first)
        if crash:
            kernel = _reborn(kernel, kept, make)
    seen.take(WindowedEffects(kernel.close_idle(NOW + 10**9), []))
    return seen


def _reborn(kernel: Windowed, kept: dict[bytes, bytes], make: Make, now_ms: int = NOW) -> Windowed:
    """Return a kernel that begins with what another one gave the changelog."""
    for key, content in kernel.changes():
        if content is None:
            kept.pop(key, None)
        else:
            kept[key] = content
    fresh = make()
    for key, content in kept.items():
        fresh.restore(key, content)
    assert not len(fresh.close_idle(now_ms))  # from here on silence is counted
    return fresh


def _oracle(windows: Assigner, rows: Sequence[Row]) -> Told:
    """What any order of the rows must come to; rows of one key and time in their order here."""
    by_key: dict[str, list[tuple[int, int]]] = defaultdict(list)
    for key, value, event_ms in sorted(rows, key=lambda row: row[2]):
        by_key[key].append((event_ms, value))
    held: dict[tuple[str, int, int], list[int]] = {}
    for key, records in by_key.items():
        for window, values in _ORACLES[type(windows)](windows, records):
            held[key, *window] = values
    return {window: (len(values), sum(values)) for window, values in held.items()}


Records = list[tuple[int, int]]
Window = tuple[tuple[int, int], list[int]]


def _aligned(windows: Any, records: Records) -> list[Window]:
    held: dict[tuple[int, int], list[int]] = defaultdict(list)
    for event_ms, value in records:
        start = event_ms - event_ms % windows.hop_ms
        while start > event_ms - windows.size_ms:
            held[start, start + windows.size_ms].append(value)
            start -= windows.hop_ms
    return list(held.items())


def _slid(windows: Any, records: Records) -> list[Window]:
    return [
        (
            (last - windows.size_ms + 1, last + 1),
            [value for event_ms, value in records if last - windows.size_ms < event_ms <= last],
        )
        for last in {event_ms for event_ms, _ in records}
    ]


def _sessions(windows: Any, records: Records) -> list[Window]:
    sessions: list[Records] = []
    for record in records:
        if sessions and record[0] - sessions[-1][-1][0] < windows.gap_ms:
            sessions[-1].append(record)
        else:
            sessions.append([record])
    return [((one[0][0], one[-1][0] + windows.gap_ms), [value for _, value in one]) for one in sessions]


def _counted(windows: Any, records: Records) -> list[Window]:
    begins = range(0, len(records) - windows.size + 1, windows.hop)
    full = [records[begin : begin + windows.size] for begin in begins]
    return [((one[0][0], one[-1][0] + 1), [value for _, value in one]) for one in full]


_ORACLES: dict[type, Callable[[Any, Records], list[Window]]] = {
    Tumbling: _aligned,
    Hopping: _aligned,
    Sliding: _slid,
    Session: _sessions,
    CountWindow: _counted,
}

# Times of one key differ: of equal ones the offsets decide, which a shuffle changes.
ROWS = st.lists(
    st.tuples(st.sampled_from("abc"), st.integers(-1_000, 1_000), st.integers(NOW - 6_000, NOW)),
    min_size=1,
    max_size=80,
    unique_by=lambda row: (row[0], row[2]),
)
CUTS = st.lists(st.integers(1, 80), max_size=8)


@pytest.mark.parametrize("watermark", ["key", "partition"])
@pytest.mark.parametrize("windows", WINDOWS.values(), ids=WINDOWS)
@given(rows=ROWS, chance=st.randoms(use_true_random=False), cuts=CUTS, crash=st.booleans())
@settings(max_examples=30, deadline=None)
def test_any_shuffle_within_the_lateness_any_batching_and_any_crash_give_what_the_sorted_input_gives(
    windows: Assigner, watermark: str, rows: list[Row], chance: random.Random, cuts: list[int], *, crash: bool
) -> None:
    shuffled = sorted(rows, key=lambda row: row[2] + chance.uniform(0, LATENESS))
    seen = _run(lambda: _kernel(windows, watermark=watermark), shuffled, cuts, crash=crash)
    assert seen.late == []
    assert seen.final == _oracle(windows, rows)


@pytest.mark.parametrize("watermark", ["key", "partition"])
@pytest.mark.parametrize("windows", WINDOWS.values(), ids=WINDOWS)
@given(rows=ROWS, cuts=CUTS)
@settings(max_examples=30, deadline=None)
def test_any_order_and_batching_calls_late_what_comes_behind_the_watermark_and_counts_the_others(
    windows: Assigner, watermark: str, rows: list[Row], cuts: list[int]
) -> None:
    late: list[int] = []
    in_time: list[Row] = []
    greatest: dict[str, int] = {}
    for place, row in enumerate(rows):
        key, _, event_ms = row
        owner = key if watermark == "key" else ""
        greatest[owner] = max(greatest.get(owner, event_ms), event_ms)
        limit = greatest[owner] - LATENESS
        if isinstance(windows, Hopping):
            first = min(end for (_, end), _ in _aligned(windows, [(event_ms, 0)]))
            is_late = limit >= first
        else:
            is_late = limit > event_ms
        if is_late:
            late.append(place)
        else:
            in_time.append(row)
    seen = _run(lambda: _kernel(windows, watermark=watermark), rows, cuts)
    assert sorted(seen.late) == late
    assert seen.final == _oracle(windows, in_time)


@pytest.mark.parametrize("windows", WINDOWS.values(), ids=WINDOWS)
def test_a_clock_that_is_ahead_is_told_and_moves_no_watermark(windows: Assigner) -> None:
    kernel = _kernel(windows)
    first = kernel.step(_columns([("a", 1, NOW - 1_000), ("a", 5, NOW + 300_001), ("a", 2, NOW - 1_200)]), NOW)
    (told,) = first.late
    assert (told.place, told.reason, told.lateness_ms) == (1, "future", 300_001)
    assert told.start <= NOW + 300_001 < told.end
    assert not len(first.results)
    in_time = kernel.step(_columns([("a", 1, NOW + 300_000)], 3), NOW)
    assert in_time.late == []


def test_late_records_beside_ones_that_are_ahead_are_told_by_their_own_places() -> None:
    kernel = _kernel(Tumbling("1s"), lateness=0)
    rows = [("a", 1, NOW + 300_001), ("a", 2, NOW), ("a", 4, NOW + 400_000), ("a", 8, NOW - 5_000)]
    told = kernel.step(_columns(rows), NOW).late
    assert sorted((late.place, late.reason) for late in told) == [(0, "future"), (2, "future"), (3, "late")]


def test_a_late_record_is_told_with_its_window_and_how_late_it_is() -> None:
    kernel = _kernel(Tumbling("1s"))
    kernel.step(_columns([("a", 1, 10_000)]), NOW)
    (late,) = kernel.step(_columns([("a", 1, 8_200)], 1), NOW).late
    assert (late.start, late.end, late.lateness_ms, late.reason) == (8_000, 9_000, 500, "late")


@pytest.mark.parametrize("windows", [Tumbling(1_000), Hopping(1_000, 500)])
def test_results_on_update_count_their_revisions_and_the_last_is_final(windows: Assigner) -> None:
    kernel = _kernel(windows, "both")
    told = list(kernel.step(_columns([("a", 1, 10_100)]), NOW).results)
    reborn = _reborn(kernel, {}, lambda: _kernel(windows, "both"))
    told += list(reborn.step(_columns([("a", 2, 10_200)], 1), NOW).results)
    told += list(reborn.step(_columns([("a", 4, 12_000)], 2), NOW).results)
    of_window = [(one.revision, one.final, one.values["total"]) for one in told if one.start == 10_000]
    assert of_window == [(0, False, (1, 1)), (1, False, (2, 3)), (2, True, (2, 3))]
    only = _kernel(windows, "update")
    told = list(only.step(_columns([("a", 1, 10_100)]), NOW).results)
    told += list(only.step(_columns([("a", 4, 12_000)], 1), NOW).results)
    assert [one.final for one in told if one.start == 10_000] == [False]


def test_sessions_that_a_record_joins_are_one() -> None:
    kernel = _kernel(Session(300), lateness=5_000)
    kernel.step(_columns([("a", 1, 10_000), ("a", 2, 10_500)]), NOW)
    kernel.step(_columns([("a", 4, 10_250)], 2), NOW)
    (whole,) = kernel.close_idle(NOW + 10**9)
    assert (whole.start, whole.end, whole.values["total"]) == (10_000, 10_800, (3, 7))


def test_time_is_integer_ms_so_that_summer_time_and_leap_seconds_move_no_window() -> None:
    # The last hour of summer time in Berlin, 2022-10-30 02:00 twice, and the leap second at the end of 2016.
    for around_ms in (1_667_091_600_000, 1_483_228_800_000):
        times = range(around_ms - 7_200_000, around_ms + 7_200_000, 60_000)
        seen = _run(lambda: _kernel(Tumbling("1h")), [("a", 1, event_ms) for event_ms in times])
        assert {end - start for _, start, end in seen.final} == {3_600_000}
        assert sorted(seen.final.values()) == [(60, 60)] * 4


def test_silence_closes_windows_but_not_that_of_a_worker_that_did_not_run() -> None:
    kernel = _kernel(Tumbling(1_000))
    kernel.step(_columns([("a", 1, 10_100)]), NOW)
    assert not len(kernel.close_idle(NOW + 29_999))
    hour = NOW + 3_600_000
    later = _reborn(kernel, {}, lambda: _kernel(Tumbling(1_000)), hour)
    assert later.step(_columns([("a", 2, 10_200)], 1), hour).late == []
    (whole,) = later.close_idle(hour + 30_000)
    assert whole.values["total"] == (2, 3)
    (late,) = later.step(_columns([("a", 2, 10_300)], 2), hour + 30_000).late
    assert late.lateness_ms == 0


@pytest.mark.parametrize("windows", WINDOWS.values(), ids=WINDOWS)
def test_a_key_of_which_silence_has_closed_everything_is_restored_and_goes_on(windows: Assigner) -> None:
    kept: dict[bytes, bytes] = {}
    kernel = _kernel(windows)
    kernel.step(_columns([("a", 1, NOW - 6_000), ("b", 1, NOW - 6_000)]), NOW)
    kernel = _reborn(kernel, kept, lambda: _kernel(windows))
    kernel.close_idle(NOW + 30_000)
    later = _reborn(kernel, kept, lambda: _kernel(windows), NOW + 30_000)
    assert len(kept) == 2
    rows = [("a", 2, NOW + place) for place in range(6)]
    assert later.step(_columns(rows, 2), NOW + 30_000).late == []
    assert {one.key for one in later.close_idle(NOW + 60_000)} == {("a",)}


@pytest.mark.parametrize("windows", WINDOWS.values(), ids=WINDOWS)
def test_keys_that_come_once_are_closed_by_the_time_of_the_others_and_forgotten(windows: Assigner) -> None:
    kernel = _kernel(windows, watermark="partition")
    kept: set[bytes] = set()
    most = 0
    for number in range(300):
        event_ms = NOW - 600_000 + number * 1_000
        kernel.step(_columns([(f"key-{number}", place, event_ms + place) for place in range(6)]), NOW)
        for key, content in kernel.changes():
            (kept.discard if content is None else kept.add)(key)
        most = max(most, kernel.keys)
    if not isinstance(windows, CountWindow):  # whose windows wait for more
        assert most <= 6
        assert len(kept) <= 7


def test_a_key_silent_for_a_week_is_forgotten() -> None:
    kernel = _kernel(Tumbling(1_000))
    kernel.step(_columns([("a", 1, NOW - 5_000)]), NOW)
    kernel.close_idle(NOW + 60_000)
    kernel.changes()
    kernel.close_idle(NOW + 8 * 24 * 3_600_000)
    assert kernel.changes() == [(b'["a"]', None)]
    assert kernel.keys == 0


def test_state_of_another_pipeline_is_refused_with_what_to_do() -> None:
    kernel = _kernel(Tumbling(1_000))
    for content in (b"", b"\x93\x01\x02\x03", b"\xc1"):
        with pytest.raises(WindowError, match="another name"):
            kernel.restore(b'["a"]', content)


@pytest.mark.parametrize("windows", [Session(300), Sliding(1_000), CountWindow(3)])
def test_windows_known_only_when_they_close_are_not_told_on_update(windows: Assigner) -> None:
    with pytest.raises(WindowError, match="emission='close'"):
        _kernel(windows, "update")


@pytest.mark.parametrize(
    ("make", "hint"),
    [
        (lambda: Tumbling("0s"), "positive"),
        (lambda: Hopping("10s", "20s"), "gaps"),
        (lambda: Hopping("10s", 0), "positive"),
        (lambda: Session("-1s"), "length of time"),
        (lambda: Sliding("10 parsecs"), "units"),
        (lambda: Sliding("0.0001s"), "whole number"),
        (lambda: CountWindow(0), "positive"),
        (lambda: CountWindow(3, 4), "at most"),
        (lambda: EventTime(watermark="device"), "partition"),  # type: ignore[arg-type]  # the mistake that is tested
        (lambda: EventTime(idle=0), "positive"),
    ],
)
def test_a_window_that_is_not_possible_says_so(make: Callable[[], object], hint: str) -> None:
    with pytest.raises(WindowError, match=hint):
        make()
