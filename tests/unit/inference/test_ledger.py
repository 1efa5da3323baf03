from easyremote.inference.ledger import Ledger, OffsetTracker
from hypothesis import given
from hypothesis import strategies as st


@given(st.permutations(list(range(8))))
def test_nothing_is_committable_above_an_open_offset(order: list[int]) -> None:
    tracker = OffsetTracker()
    for offset in range(8):
        tracker.take(offset)
    last = 0
    done: set[int] = set()
    for offset in order:
        tracker.finish(offset)
        done.add(offset)
        last = tracker.committable() or last
        assert last == next((number for number in range(8) if number not in done), 8)


def test_a_call_of_a_lost_partition_is_not_this_nodes_after_it_came_back() -> None:
    ledger = Ledger()
    ledger.assign([0])
    old = ledger.take(0, [5])
    ledger.drop([0])
    ledger.assign([0])
    new = ledger.take(0, [5])
    assert not ledger.holds(0, old)
    assert ledger.start(0, new)
    ledger.finish(0, old, 5, ran=True)
    assert ledger.pending == 1


def test_leaving_waits_for_what_runs_and_starts_nothing_more() -> None:
    ledger = Ledger()
    ledger.assign([0])
    generation = ledger.take(0, [1, 2])
    assert ledger.start(0, generation)
    assert not ledger.leave([0], 0.0)
    assert not ledger.start(0, generation)
    ledger.finish(0, generation, 1, ran=True)
    assert ledger.leave([0], 0.0)
    assert ledger.committable() == {0: 2}
