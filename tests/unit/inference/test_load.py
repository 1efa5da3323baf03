from __future__ import annotations

from typing import Any

from easyremote.inference.load import NodeLoad
from easyremote.topics.records import Heartbeat

RTT_MS = 4.0


def _beat(sent_ms: int, in_flight: int = 0, **told: Any) -> Heartbeat:
    return Heartbeat(node_id="a", sent_ms=sent_ms, roles=[], ready=[], in_flight=in_flight, **told)


def test_a_heartbeat_replaces_what_was_counted() -> None:
    load = NodeLoad()
    for now in range(5):
        load.sent(now)
    assert load.in_flight(5) == 5
    load.beat(_beat(sent_ms=100, in_flight=2), 101, RTT_MS)
    assert load.in_flight(101) == 2


def test_calls_sent_within_a_heartbeats_age_are_not_forgotten() -> None:
    load = NodeLoad()
    load.beat(_beat(sent_ms=1_000), 1_001, RTT_MS)  # the quickest: 1 ms by these clocks
    load.sent(1_450)
    load.sent(1_520)
    load.sent(1_560)
    # Sent at 1,500 and 80 ms on its way: the call of 1,450 is in it or answered, those after it are not.
    load.beat(_beat(sent_ms=1_500, in_flight=1), 1_581, RTT_MS)
    assert load.in_flight(1_581) == 1 + 2


def test_a_heartbeats_age_does_not_depend_on_the_nodes_clock() -> None:
    for hours in (-1, 1):
        skew = hours * 3_600_000
        load = NodeLoad()
        load.beat(_beat(sent_ms=1_000 + skew), 1_001, RTT_MS)
        load.sent(1_450)
        load.sent(1_520)
        load.beat(_beat(sent_ms=1_500 + skew, in_flight=0), 1_581, RTT_MS)
        assert load.in_flight(1_581) == 1


def test_a_call_that_was_on_its_way_when_the_heartbeat_left_is_counted() -> None:
    load = NodeLoad()
    load.beat(_beat(sent_ms=0), 1, RTT_MS)
    load.sent(499)
    load.beat(_beat(sent_ms=500, in_flight=0), 501, RTT_MS)
    assert load.in_flight(501) == 1
    load.beat(_beat(sent_ms=1_000, in_flight=0), 1_001, RTT_MS)
    assert load.in_flight(1_001) == 0


def test_without_replies_what_the_node_has_probably_done_is_taken_off() -> None:
    load = NodeLoad()
    load.beat(_beat(sent_ms=0, cost_ms={"f": 10.0}, mean_response_s=0.010), 0, 0)
    for _ in range(5):
        load.sent(0)
    assert [load.in_flight(now) for now in (0, 9, 10, 25, 49, 50, 90)] == [5, 5, 4, 3, 1, 0, 0]


def test_while_costs_are_unknown_nothing_is_taken_off() -> None:
    load = NodeLoad()
    load.beat(_beat(sent_ms=0, in_flight=3), 0, 0)
    assert load.in_flight(400) == 3


def test_a_sender_never_believes_in_fewer_calls_than_it_waits_for() -> None:
    load = NodeLoad()
    load.beat(_beat(sent_ms=0, cost_ms={"f": 10.0}, mean_response_s=0.010), 0, 0)
    for _ in range(4):
        load.sent(0)
    load.replied(10, in_flight=3, round_trip_ms=0)
    # The node stands still, and says nothing.
    assert load.in_flight(5_000) == 3


def test_a_reply_tells_of_the_calls_of_others() -> None:
    load = NodeLoad()
    load.beat(_beat(sent_ms=0, cost_ms={"f": 10.0}), 0, RTT_MS)
    load.sent(10)
    load.sent(30)
    load.replied(32, in_flight=7, round_trip_ms=RTT_MS)
    assert load.in_flight(32) == 7 + 1  # the call of 30 was not there yet


def test_what_others_send_is_learned_and_keeps_the_node_busy() -> None:
    load = NodeLoad()
    for number in range(10):
        # Half of its time goes to calls that were not sent from here.
        load.beat(
            _beat(sent_ms=500 * number, cost_ms={"f": 10.0}, mean_response_s=0.010, total_requests=25 * number),
            500 * number,
            0,
        )
    for _ in range(10):
        load.sent(4_500)
    assert load.in_flight(4_500 + 100) in (5, 6)


def test_a_node_that_runs_several_calls_at_once_is_waited_for_less() -> None:
    load = NodeLoad()
    for number in range(20):
        done = 200 * number  # 4 at once of 10 ms each
        beat = _beat(500 * number, 8, cost_ms={"f": 10.0}, mean_response_s=0.010, total_requests=done)
        load.beat(beat, 500 * number, 0)
    assert 3.5 < load.lanes < 4.5
    assert load.in_flight(9_500) == 8
    assert 16 < load.wait_ms(9_500) < 24


def test_a_node_that_was_started_again_is_counted_from_its_start() -> None:
    load = NodeLoad()
    load.beat(_beat(sent_ms=0, cost_ms={"f": 10.0}, mean_response_s=0.010, total_requests=1_000, in_flight=9), 0, 0)
    load.beat(_beat(sent_ms=500), 500, 0)
    assert load.in_flight(500) == 0
