"""The stream kernel against an oracle that does the same record by record, in plain Python."""

from __future__ import annotations

import math
import random
import statistics
import struct
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from fractions import Fraction
from itertools import pairwise

import numpy as np
import pytest
from easyremote.errors import WindowError
from easyremote.windows import Effects, EventTime, Kernel, Readings, Tumbling, ZScore, window_start
from hypothesis import given, settings
from hypothesis import strategies as st

NOW = 1_700_000_000_000
SIZE = 1_000
LATENESS = 500
Row = tuple[str, str, float, int]


def _columns(rows: Sequence[Row], first_offset: int = 0) -> Readings:
    return Readings(
        [(device, metric) for device, metric, _, _ in rows],
        np.array([value for _, _, value, _ in rows], np.float64),
        np.array([event_ms for _, _, _, event_ms in rows], np.int64),
        np.arange(first_offset, first_offset + len(rows)),
    )


@dataclass
class Seen:
    closed: dict[tuple[tuple[str, str], int], tuple[int, float, float, float, float]] = field(default_factory=dict)
    late: list[tuple[int, int, int, str]] = field(default_factory=list)
    anomalies: list[tuple[int, float]] = field(default_factory=list)

    def take(self, effects: Effects, first: int) -> None:
        for key, row in zip(effects.closed_keys, effects.closed, strict=True):
            assert (key, row["start"]) not in self.closed, "a window is closed once"
            self.closed[key, int(row["start"])] = (
                int(row["count"]),
                float(row["sum"] + row["lost"]),
                float(row["min"]),
                float(row["max"]),
                float(row["m2"] / row["count"]),
            )
        self.late += [(first + one.place, one.window_start, one.lateness_ms, one.reason) for one in effects.late]
        if effects.anomalies is not None:
            self.anomalies += [
                (first + place, score)
                for place, score in zip(effects.anomalies.place.tolist(), effects.anomalies.score.tolist(), strict=True)
            ]


def _run(kernel: Kernel, rows: Sequence[Row], cuts: Iterable[int] = ()) -> Seen:
    seen = Seen()
    edges = sorted({0, len(rows), *(cut for cut in cuts if cut < len(rows))})
    for first, end in pairwise(edges):
        seen.take(kernel.step(_columns(rows[first:end], first), NOW), first)
    seen.late.sort()
    seen.anomalies.sort()
    return seen


def _finish(kernel: Kernel, seen: Seen) -> Seen:
    seen.take(kernel.close_idle(NOW + 10**9), 0)
    return seen


def _oracle(rows: Sequence[Row]) -> Seen:
    seen = Seen()
    held: dict[tuple[tuple[str, str], int], list[float]] = {}
    greatest: dict[tuple[str, str], int] = {}
    for place, (device, metric, value, event_ms) in enumerate(rows):
        key = (device, metric)
        greatest[key] = max(greatest.get(key, event_ms), event_ms)
        start = window_start(event_ms, SIZE)
        behind = greatest[key] - LATENESS - (start + SIZE)
        if behind >= 0:
            seen.late.append((place, start, behind, "late"))
        else:
            held.setdefault((key, start), []).append(value)
    for window, values in held.items():
        seen.closed[window] = (
            len(values), math.fsum(values), min(values), max(values), statistics.pvariance(values)
        )  # fmt: skip
    seen.late.sort()
    return seen


def _assert_same(ours: Seen, theirs: Seen) -> None:
    assert ours.late == theirs.late
    assert ours.closed.keys() == theirs.closed.keys()
    for place, (count, total, least, most, variance) in theirs.closed.items():
        got = ours.closed[place]
        assert got[0] == count
        assert got[1] == pytest.approx(total, rel=1e-9, abs=1e-6)
        assert got[2:4] == (least, most)
        assert got[4] == pytest.approx(variance, rel=1e-6, abs=1e-6)


ROWS = st.lists(
    st.tuples(
        st.sampled_from(["a", "b", "c"]),
        st.sampled_from(["t", "p"]),
        st.floats(-1e4, 1e4),
        st.integers(NOW - 6 * SIZE, NOW),
    ),
    min_size=1,
    max_size=80,
)


@given(ROWS, st.lists(st.integers(1, 80), max_size=8))
@settings(max_examples=60, deadline=None)
def test_any_batching_gives_what_the_oracle_gives(rows: list[Row], cuts: list[int]) -> None:
    kernel = Kernel(Tumbling(SIZE), EventTime(LATENESS), None)
    _assert_same(_finish(kernel, _run(kernel, rows, cuts)), _oracle(rows))


@given(ROWS, st.randoms(use_true_random=False), st.lists(st.integers(1, 80), max_size=8))
@settings(max_examples=60, deadline=None)
def test_any_shuffle_within_the_lateness_gives_the_same_final_result(
    rows: list[Row], chance: random.Random, cuts: list[int]
) -> None:
    ordered = sorted(rows, key=lambda row: row[3])
    shuffled = sorted(rows, key=lambda row: row[3] + chance.uniform(0, LATENESS))
    first, second = (Kernel(Tumbling(SIZE), EventTime(LATENESS), None) for _ in range(2))
    straight, mixed = _finish(first, _run(first, ordered)), _finish(second, _run(second, shuffled, cuts))
    assert straight.late == mixed.late == []
    _assert_same(mixed, straight)


@given(ROWS, st.integers(0, 80), st.lists(st.integers(1, 80), max_size=4))
@settings(max_examples=50, deadline=None)
def test_a_kernel_that_is_restored_goes_on_as_the_first_would_have(rows: list[Row], cut: int, cuts: list[int]) -> None:
    time, detector = EventTime(LATENESS), ZScore(threshold=1.0, warmup=2, memory=10, calm=2)
    whole = Kernel(Tumbling(SIZE), time, detector)
    expected = _finish(whole, _run(whole, rows))

    kept: dict[bytes, bytes] = {}
    first = Kernel(Tumbling(SIZE), time, detector)
    seen = Seen()
    for begin in range(0, min(cut, len(rows)), 7):
        end = min(begin + 7, cut, len(rows))
        seen.take(first.step(_columns(rows[begin:end]), NOW), begin)
        for key, content in first.changes():
            assert content is not None
            kept[key] = content
    second = Kernel(Tumbling(SIZE), time, detector)
    for key, content in kept.items():
        second.restore(key, content)
    assert second.close_idle(NOW).closed_keys == []  # from here on silence is counted
    rest = rows[cut:]
    for begin in range(0, len(rest), 5):
        seen.take(second.step(_columns(rest[begin : begin + 5]), NOW), cut + begin)
    _finish(second, seen)
    seen.late.sort()
    seen.anomalies.sort()
    _assert_same(seen, expected)
    assert [place for place, _ in seen.anomalies] == [place for place, _ in expected.anomalies]


def test_a_device_that_catches_up_is_not_late_by_its_neighbours_clock() -> None:
    kernel = Kernel(Tumbling(SIZE), EventTime(), None)
    assert _run(kernel, [("new", "t", 1.0, NOW), ("back", "t", 2.0, NOW - 3_600_000)]).late == []


def test_a_reading_from_the_future_is_refused_and_closes_nothing() -> None:
    kernel = Kernel(Tumbling(SIZE), EventTime(), None)
    seen = _run(kernel, [("a", "t", 1.0, NOW), ("a", "t", 9.0, NOW + 400_000), ("a", "t", 2.0, NOW)])
    assert seen.late == [(1, window_start(NOW + 400_000, SIZE), 400_000, "future")]
    assert seen.closed == {}
    assert _finish(kernel, seen).closed[("a", "t"), NOW][:2] == (2, 3.0)


def test_a_silent_series_is_closed_and_what_comes_for_that_window_later_is_late() -> None:
    kernel = Kernel(Tumbling(SIZE), EventTime(0, 30_000), None)
    _run(kernel, [("a", "t", 1.0, NOW)])
    assert len(kernel.close_idle(NOW + 29_999).closed) == 0
    assert kernel.close_idle(NOW + 30_000).closed_keys == [("a", "t")]
    assert _run(kernel, [("a", "t", 1.0, NOW + 1)]).late == [(0, NOW, 0, "late")]


def test_the_time_in_which_no_worker_ran_is_no_silence() -> None:
    first, second = (Kernel(Tumbling(SIZE), EventTime(0, 30_000), None) for _ in range(2))
    _run(first, [("a", "t", 1.0, NOW)])
    for key, content in first.changes():
        assert content is not None
        second.restore(key, content)
    assert second.close_idle(NOW + 3_600_000).closed_keys == []
    assert second.close_idle(NOW + 3_630_000).closed_keys == [("a", "t")]


def test_a_series_that_is_silent_for_a_week_is_forgotten() -> None:
    kernel = Kernel(Tumbling(SIZE), EventTime(), None)
    _run(kernel, [("a", "t", 1.0, NOW)])
    kernel.close_idle(NOW + 60_000)
    assert len(kernel.changes()) == 1
    kernel.close_idle(NOW + 8 * 24 * 3_600_000)
    assert kernel.changes() == [(b'["a","t"]', None)]
    assert kernel.keys == 0


def test_variance_keeps_its_digits_far_from_zero() -> None:
    kernel = Kernel(Tumbling(SIZE), EventTime(), None)
    rows: list[Row] = [("a", "t", 1e9 + number % 2, NOW) for number in range(1_000)]
    seen = _finish(kernel, _run(kernel, rows, range(0, 1_000, 13)))
    assert seen.closed[("a", "t"), NOW][4] == pytest.approx(0.25)


# Numbers as sensors have them, of any sign and of twelve orders of magnitude.
NUMBERS = st.lists(st.integers(-(10**9), 10**9).map(lambda number: number / 1_000), min_size=1, max_size=40)


@given(numbers=NUMBERS, cuts=st.lists(st.integers(1, 40), max_size=8), restarts=st.booleans())
@settings(max_examples=120, deadline=None)
def test_any_batching_and_any_restart_give_the_same_sum_to_the_last_bit(
    numbers: list[float], cuts: list[int], *, restarts: bool
) -> None:
    kernel = Kernel(Tumbling(SIZE), EventTime(LATENESS), None)
    edges = sorted({0, len(numbers), *(cut for cut in cuts if cut < len(numbers))})
    for first, end in pairwise(edges):
        _run(kernel, [("a", "t", number, NOW) for number in numbers[first:end]])
        if restarts:
            ((key, content),) = kernel.changes()
            assert content is not None
            kernel = Kernel(Tumbling(SIZE), EventTime(LATENESS), None)
            kernel.restore(key, content)
            kernel.close_idle(NOW)
    (closed,) = kernel.close_idle(NOW + 10**9).closed
    total = float(closed["sum"] + closed["lost"])
    assert struct.pack("<d", total) == struct.pack("<d", math.fsum(numbers))
    assert struct.pack("<d", total / len(numbers)) == struct.pack("<d", math.fsum(numbers) / len(numbers))
    assert closed["m2"] / closed["count"] == pytest.approx(_variance(numbers), rel=1e-12, abs=1e-12)


def _variance(numbers: Sequence[float]) -> float:
    return float(statistics.pvariance([Fraction(number) for number in numbers]))


def test_the_average_of_seven_numbers_is_the_same_in_one_batch_and_in_seven() -> None:
    chance = random.Random(5)
    for _ in range(60):
        rows: list[Row] = [("a", "t", round(chance.gauss(80, 20), 2), NOW) for _ in range(7)]
        whole, single = (Kernel(Tumbling(SIZE), EventTime(), None) for _ in range(2))
        one, seven = _finish(whole, _run(whole, rows)), _finish(single, _run(single, rows, range(7)))
        (told,), (told_apart,) = one.closed.values(), seven.closed.values()
        assert told[:4] == told_apart[:4]
        assert told[4] == pytest.approx(told_apart[4], rel=1e-12)


def test_the_largest_numbers_are_summed_up_too() -> None:
    kernel = Kernel(Tumbling(SIZE), EventTime(), None)
    rows: list[Row] = [("a", "t", 1e200, NOW), ("a", "t", 2e200, NOW), ("b", "t", 0.5, NOW)]
    seen = _finish(kernel, _run(kernel, rows, [1]))
    assert seen.closed[("a", "t"), NOW][:4] == (2, 3e200, 1e200, 2e200)
    assert seen.closed[("b", "t"), NOW][:4] == (1, 0.5, 0.5, 0.5)


def test_state_of_another_form_says_what_to_do() -> None:
    with pytest.raises(WindowError, match="delete the changelog"):
        Kernel(Tumbling(SIZE), EventTime(), None).restore(b'["a","t"]', b"\x02")
