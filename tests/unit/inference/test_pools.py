"""A heartbeat counts with the partitions that its node serves: who holds what, the broker knows."""

from __future__ import annotations

from collections.abc import Callable

from easyremote.errors import TopicError
from easyremote.inference.pools import Pools
from easyremote.topics.admin import Held


class _Broker:
    def __init__(self) -> None:
        self.members: dict[str, dict[str, set[int]]] = {}
        self.asked: list[str] = []
        self.away = False

    def ask(self, pool: str, told: Callable[[Held | TopicError], None]) -> None:
        self.asked.append(pool)
        held = {node: frozenset(numbers) for node, numbers in self.members.get(pool, {}).items()}
        told(TopicError("no Kafka answers") if self.away else held)


class _Clock:
    now_s = 100.0

    def __call__(self) -> float:
        return self.now_s


def test_a_pool_that_nobody_serves_draws_no_call_and_one_that_is_served_does_at_once() -> None:
    broker, clock = _Broker(), _Clock()
    pools = Pools(broker.ask, clock=clock)
    assert pools.served("ghosts", "n", [0, 1]) == []
    broker.members["ghosts"] = {"n": {0, 1, 2, 3}}
    clock.now_s += 0.6
    assert pools.served("ghosts", "n", [0, 1, 99]) == [0, 1]


def test_the_broker_is_asked_now_and_then_however_many_heartbeats_come() -> None:
    broker, clock = _Broker(), _Clock()
    broker.members["nlp"] = {"n": set(range(8))}
    pools = Pools(broker.ask, clock=clock)
    for _ in range(1_000):
        assert pools.served("nlp", "n", [3]) == [3]
        pools.served("ghosts", "n", [1])
        pools.served("nlp", "n", [99])
        clock.now_s += 0.001
    assert len(broker.asked) <= 6
    for number in range(1_000):
        pools.served(f"ghosts-{number}", "n", [0])
    assert len(broker.asked) <= 20


def test_partitions_that_move_count_until_the_group_has_no_members() -> None:
    broker, clock = _Broker(), _Clock()
    broker.members["nlp"] = {"n": {0, 1}}
    pools = Pools(broker.ask, clock=clock)
    assert pools.served("nlp", "n", [0, 1]) == [0, 1]
    broker.members["nlp"] = {"n": {1}}
    clock.now_s += 6
    assert pools.served("nlp", "n", [0]) == [0]
    broker.members["nlp"] = {}
    clock.now_s += 6
    assert pools.served("nlp", "n", [0, 1]) == []


def test_a_node_that_holds_nothing_does_not_count_with_what_another_holds() -> None:
    broker, clock = _Broker(), _Clock()
    broker.members["nlp"] = {"one": {0, 1}, "two": {2, 3}}
    pools = Pools(broker.ask, clock=clock)
    assert pools.served("nlp", "forged", [0, 1, 2, 3]) == []
    assert pools.served("nlp", "one", [0, 1, 2]) == [0, 1]
    broker.members["nlp"] = {"two": {2, 3}, "three": {0, 1}}
    clock.now_s += 0.6
    assert pools.served("nlp", "three", [0, 1]) == [0, 1]
    assert pools.served("nlp", "one", [0, 1]) == []  # it is no member any more


def test_while_the_broker_does_not_say_what_was_known_counts_and_a_heartbeat_is_believed() -> None:
    broker, clock = _Broker(), _Clock()
    broker.members["nlp"] = {"n": {0}}
    pools = Pools(broker.ask, clock=clock)
    assert pools.served("nlp", "n", [0]) == [0]
    broker.away = True
    clock.now_s += 60
    assert pools.served("nlp", "n", [0, 1]) == [0]
    clock.now_s += 1
    assert pools.served("vision", "n", [0]) == [0]
    assert pools.wait_answered(0)


def test_a_broker_that_says_nothing_is_asked_now_and_then_and_heartbeats_are_believed_after_2_s() -> None:
    clock = _Clock()
    waiting: list[Callable[[Held | TopicError], None]] = []
    pools = Pools(lambda _pool, told: waiting.append(told), clock=clock)
    for _ in range(19):
        assert pools.served("nlp", "n", [0]) == []
        clock.now_s += 0.1
    assert len(waiting) == 1
    clock.now_s += 0.2
    assert pools.served("nlp", "n", [0]) == [0]
    clock.now_s += 60
    assert pools.served("nlp", "n", [0]) == [0]
    assert pools.served("nlp", "n", [0]) == [0]
    assert len(waiting) == 2
    waiting[1]({"n": frozenset({1})})
    assert pools.served("nlp", "n", [0, 1]) == [1]
    assert pools.wait_answered(0)


def test_a_few_forged_pools_at_the_start_do_not_keep_a_real_one_from_being_known() -> None:
    broker = _Broker()
    broker.members["nlp"] = {"n": {0}}
    pools = Pools(broker.ask, clock=_Clock())
    for number in range(10):
        assert pools.served(f"ghosts-{number}", "n", [0]) == []
    assert pools.served("nlp", "n", [0]) == [0]
