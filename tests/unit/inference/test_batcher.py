import math
from typing import Literal, NamedTuple

import pytest
from easyremote.inference.batcher import AGEING_MS, Batcher
from hypothesis import given
from hypothesis import strategies as st

Priority = Literal["high", "normal", "low"]
PRIORITIES: list[Priority] = ["high", "normal", "low"]
LANES: dict[Priority, int] = {"high": 0, "normal": 1, "low": 2}


class Waiting(NamedTuple):
    number: int
    came_ms: int
    priority: Priority
    deadline_ms: int | None
    size_bytes: int
    key: str | None

    def place(self) -> tuple[int, float, int]:
        deadline = math.inf if self.deadline_ms is None else self.deadline_ms
        return (LANES[self.priority] + self.came_ms // AGEING_MS, deadline, self.number)


calls = st.lists(
    st.tuples(
        st.integers(0, 5_000),
        st.sampled_from(PRIORITIES),
        st.none() | st.integers(0, 20_000),
        st.integers(0, 50),
        st.sampled_from([None, "short", "long"]),
    ),
    max_size=40,
).map(lambda many: [Waiting(number, *one) for number, one in enumerate(many)])


def _filled(waiting: list[Waiting], max_items: int = 8, max_bytes: int = 100) -> Batcher[Waiting]:
    batcher: Batcher[Waiting] = Batcher(max_items=max_items, max_bytes=max_bytes)
    for one in waiting:
        batcher.put(
            one,
            one.came_ms,
            priority=one.priority,
            deadline_ms=one.deadline_ms,
            size_bytes=one.size_bytes,
            key=one.key,
        )
    return batcher


@given(calls, st.integers(1, 8), st.integers(0, 120), st.integers(0, 20_000))
def test_nothing_is_lost_or_given_twice_and_every_batch_is_within_its_bounds(
    waiting: list[Waiting], max_items: int, max_bytes: int, now_ms: int
) -> None:
    batcher = _filled(waiting, max_items, max_bytes)
    assert len(batcher) == len(waiting)
    given_out: list[Waiting] = []
    while len(batcher):
        taken = batcher.take(now_ms)
        assert taken.batch or not len(batcher)
        assert len(taken.batch) <= max_items
        assert len(taken.batch) <= 1 or sum(one.size_bytes for one in taken.batch) <= max_bytes
        assert len({one.key for one in taken.batch}) <= 1
        assert all(one.deadline_ms is not None and one.deadline_ms <= now_ms for one in taken.expired)
        assert all(one.deadline_ms is None or one.deadline_ms > now_ms for one in taken.batch)
        given_out += taken.batch + taken.expired
    assert sorted(given_out) == waiting
    assert batcher.take(now_ms).batch == []


@given(calls)
def test_what_is_taken_is_before_all_that_stays_of_its_key_and_begins_with_the_first_of_all(
    waiting: list[Waiting],
) -> None:
    batcher = _filled(waiting, max_items=3)
    left = set(waiting)
    while len(batcher):
        taken = batcher.take(-1)
        assert taken.batch[0] == min(left, key=Waiting.place)
        left -= set(taken.batch)
        assert taken.batch == sorted(taken.batch, key=Waiting.place)
        same_key = [one for one in left if one.key == taken.batch[0].key]
        assert all(taken.batch[-1].place() < one.place() for one in same_key)


def test_all_that_waits_is_taken_at_once_when_it_fits() -> None:
    waiting = [Waiting(number, 0, "normal", None, 10, None) for number in range(8)]
    batcher = _filled(waiting, max_items=8, max_bytes=80)
    assert batcher.take(0).batch == waiting


def test_a_call_larger_than_the_bound_goes_alone() -> None:
    batcher = _filled([Waiting(0, 0, "normal", None, 500, None), Waiting(1, 0, "normal", None, 1, None)])
    assert [one.number for one in batcher.take(0).batch] == [0]
    assert [one.number for one in batcher.take(0).batch] == [1]


@pytest.mark.parametrize("priority", ["low", "normal"])
def test_a_call_is_not_starved_by_endless_calls_of_a_higher_lane(priority: Priority) -> None:
    batcher: Batcher[str] = Batcher(max_items=1, max_bytes=1_000)
    batcher.put("patient", AGEING_MS - 1, priority=priority)
    now_ms = 0
    for now_ms in range(AGEING_MS, 10 * AGEING_MS, 50):
        batcher.put("urgent", now_ms, priority="high", deadline_ms=now_ms + 1_000)
        batcher.put("urgent", now_ms, priority="high", deadline_ms=now_ms + 1_000)
        if batcher.take(now_ms).batch == ["patient"]:
            break
    # Behind those of three slices, of which half were taken as they came.
    assert now_ms <= (LANES[priority] + 1) * 2 * AGEING_MS


def test_the_earliest_deadline_goes_first_and_one_that_passed_is_not_run() -> None:
    batcher: Batcher[str] = Batcher(max_items=2, max_bytes=1_000)
    for name, deadline_ms in (("none", None), ("late", 300), ("soon", 200), ("over", 100)):
        batcher.put(name, 0, deadline_ms=deadline_ms)
    taken = batcher.take(100)
    assert (taken.expired, taken.batch) == (["over"], ["soon", "late"])
