from easyremote.inference.cancellations import Cancelled
from hypothesis import given
from hypothesis import strategies as st


@given(st.lists(st.tuples(st.sampled_from("abcdef"), st.integers(0, 50)), max_size=30))
def test_the_newest_ids_are_kept_and_no_more_than_the_bounds(steps: list[tuple[str, int]]) -> None:
    cancelled = Cancelled(max_ids=3, max_age_ms=100)
    now_ms = 0
    for call_id, later_ms in steps:
        now_ms += later_ms
        cancelled.add(call_id, now_ms)
        assert cancelled.holds(call_id, now_ms)
        assert len(cancelled.ids) <= 3
        assert all(now_ms - at_ms < 100 for at_ms in cancelled.ids.values())


def test_an_id_counts_until_its_age_ends_though_nothing_new_comes() -> None:
    cancelled = Cancelled(max_ids=3, max_age_ms=100)
    cancelled.add("a", 0)
    assert cancelled.holds("a", 99)
    assert not cancelled.holds("a", 100)
