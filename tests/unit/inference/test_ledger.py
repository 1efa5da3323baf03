from easyremote.inference.ledger import Ledger, OffsetTracker
from easyremote.topics.doneset import DoneSet, Place, decode_done
from hypothesis import given
from hypothesis import strategies as st


@given(st.permutations(list(range(8))))
def test_nothing_is_committable_above_an_open_offset(order: list[int]) -> None:
    tracker = OffsetTracker()
    for offset in range(8):
        tracker.take(offset)
    place = Place(0)
    done: set[int] = set()
    for offset in order:
        tracker.finish(offset)
        done.add(offset)
        place = tracker.committable() or place
        lowest = next((number for number in range(8) if number not in done), 8)
        assert place.offset == lowest
        told = decode_done(lowest, place.metadata)
        assert {number for number in range(20) if number in told} == {number for number in done if number > lowest}


def test_a_call_of_a_lost_partition_is_not_this_nodes_after_it_came_back() -> None:
    ledger = Ledger()
    ledger.assign([0])
    old, _ = ledger.take(0, [5])
    ledger.drop([0])
    ledger.assign([0])
    new, _ = ledger.take(0, [5])
    assert not ledger.holds(0, old)
    assert ledger.start(0, new)
    ledger.finish(0, old, 5, ran=True)
    assert ledger.pending == 1


def test_leaving_waits_for_what_runs_and_starts_nothing_more() -> None:
    ledger = Ledger()
    ledger.assign([0])
    generation, _ = ledger.take(0, [1, 2])
    assert ledger.start(0, generation)
    assert not ledger.leave([0], 0.0)
    assert not ledger.start(0, generation)
    ledger.finish(0, generation, 1, ran=True)
    assert ledger.leave([0], 0.0)
    assert ledger.committable() == {0: Place(2)}


def test_what_the_one_before_has_answered_is_not_taken_again_and_is_passed_on() -> None:
    ledger = Ledger()
    ledger.assign([0], {0: DoneSet([(7, 9), (20, 30)])})
    generation, answered = ledger.take(0, range(5, 10))
    assert answered == {7, 8}
    assert ledger.pending == 3
    place = ledger.committable()[0]
    assert place.offset == 5
    assert list(decode_done(5, place.metadata).runs()) == [(7, 9), (20, 30)]
    for offset in (5, 6, 9):
        ledger.finish(0, generation, offset, ran=False)
    place = ledger.committable()[0]
    assert place.offset == 10
    assert list(decode_done(10, place.metadata).runs()) == [(20, 30)]


def test_a_partition_whose_lowest_record_has_gone_is_still_committed() -> None:
    ledger = Ledger()
    ledger.assign([0], {0: DoneSet([(7, 9)])})
    assert ledger.take(0, [7, 8])[1] == {7, 8}
    assert ledger.committable() == {0: Place(9)}


def test_a_batch_of_the_router_counts_as_open_until_all_of_it_is_done() -> None:
    ledger = Ledger()
    ledger.assign([0])
    generation = ledger.take_batch(0, 0, 10)
    ledger.take_batch(0, 10, 20)
    assert ledger.committable() == {}
    ledger.finish(0, generation, 10, ran=False)
    place = ledger.committable()[0]
    assert place.offset == 0
    assert list(decode_done(0, place.metadata).runs()) == [(10, 20)]
