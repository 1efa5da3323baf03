"""Where replies may go is known before a call is run, and asking costs the broker little."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import pytest
from easyremote.errors import BrokerUnavailable, MalformedRequest, UnknownReplyTopic
from easyremote.settings import Settings
from easyremote.topics.catalog import declarations
from easyremote.topics.reply_topics import ReplyTopics
from easyremote.topics.wire import Address


class Broker:
    """Stands for the broker's answers about its topics."""

    def __init__(self, **partitions: int) -> None:
        self.topics: dict[str, int] = {name.replace("_", "-"): number for name, number in partitions.items()}
        self.asked: list[list[str]] = []
        self.is_there = True

    def partitions_of(self, topics: Iterable[str]) -> dict[str, int | None]:
        self.asked.append(list(topics))
        if not self.is_there:
            raise BrokerUnavailable("no Kafka answers")
        return {name: self.topics.get(name) for name in self.asked[-1]}

    def create(self, topic: str, partitions: int) -> bool:
        self.topics[topic] = partitions
        return True


class Clock:
    now_s = 0.0

    def __call__(self) -> float:
        return self.now_s


def _to(topic: str, partition: int | None = None) -> Address:
    return Address(topic, partition, None)


def _fault(topics: ReplyTopics, *addresses: Address) -> Any:
    topics.learn(topics.unseen(addresses))
    return topics.fault(addresses[-1])


def _topics(broker: Broker, clock: Clock | None = None, **said: Any) -> ReplyTopics:
    return ReplyTopics(Settings(kafka="none:1", **said), ["minutes"], admin=lambda: broker, clock=clock or Clock())


SYSTEM = [one.name for one in declarations("mine") if one.name != "replies"]


@pytest.mark.parametrize("namespace", ["", "prod."])
@pytest.mark.parametrize("name", [*SYSTEM, "minutes", "pipelines.mine.changelog", "inference.any"])
def test_no_reply_goes_to_a_topic_of_this_system_and_nobody_is_asked(namespace: str, name: str) -> None:
    broker = Broker()
    fault = _fault(_topics(broker, namespace=namespace, reply_topics=".*"), _to(namespace + name))
    assert isinstance(fault, MalformedRequest)
    assert f"{namespace}replies" in str(fault)
    assert not broker.asked


@pytest.mark.parametrize("name", SYSTEM)
def test_no_reply_goes_to_a_topic_of_another_system(name: str) -> None:
    broker = Broker(**{f"other_{one}": 4 for one in (*SYSTEM, "replies")})
    topics = _topics(broker, namespace="prod.")
    assert isinstance(_fault(topics, _to(f"other-{name}")), MalformedRequest)
    assert isinstance(_fault(topics, _to("other-replies")), MalformedRequest)


def test_a_name_that_could_be_anybodys_is_a_systems_only_where_there_is_one() -> None:
    broker = Broker(my_results=1, my_replies=1, billing_alerts=2)
    assert [_fault(_topics(broker), _to(name)) for name in ("my-results", "my-replies", "billing-alerts")] == [None] * 3


@pytest.mark.parametrize(
    "name", ["__consumer_offsets", "__transaction_state", "", ".", "..", "a b", "a\0", "a/b", "ä", "x" * 250, "a\n"]
)
def test_what_kafka_keeps_for_itself_or_does_not_take_is_refused_by_its_name(name: str) -> None:
    broker = Broker()
    assert isinstance(_fault(_topics(broker), _to(name)), MalformedRequest)
    assert not broker.asked


def test_a_name_of_a_megabyte_is_not_repeated_and_not_remembered() -> None:
    topics = _topics(Broker())
    assert len(str(_fault(topics, _to("x" * 1_000_000)))) < 300
    assert len(topics._known) == 1


def test_a_setting_allows_topics_and_no_others() -> None:
    broker = Broker(my_replies=1, news=1)
    broker.topics["team.dlq"] = 1
    topics = _topics(broker, reply_topics=r"my-.*|team\.dlq|nodes")
    assert _fault(topics, _to("my-replies")) is None
    assert _fault(topics, _to("team.dlq")) is None
    assert _fault(topics, _to("replies")) is None
    assert "EASYREMOTE_REPLY_TOPICS" in str(_fault(topics, _to("news")))
    assert isinstance(_fault(topics, _to("nodes")), MalformedRequest)


def test_a_topic_that_is_missing_is_told_with_the_cure_until_it_is_made() -> None:
    broker, clock = Broker(), Clock()
    topics = _topics(broker, clock)
    fault = _fault(topics, _to("mine"))
    assert isinstance(fault, UnknownReplyTopic)
    assert "easyremote topics create mine" in str(fault)
    broker.topics["mine"] = 1
    assert _fault(topics, _to("mine")) is not None
    clock.now_s += 3
    assert _fault(topics, _to("mine")) is None


@pytest.mark.parametrize(("name", "partition"), [("mine", 2), ("mine", -1), ("replies", 16), ("replies", -5)])
def test_a_partition_that_the_topic_does_not_have_is_told(name: str, partition: int) -> None:
    fault = _fault(_topics(Broker(mine=2)), _to(name, partition))
    assert isinstance(fault, UnknownReplyTopic)
    assert f"partition {partition} of {name}" in str(fault)
    assert _fault(_topics(Broker(mine=2)), _to("mine", 1)) is None


def test_a_topic_that_goes_is_missed_within_a_minute() -> None:
    broker, clock = Broker(mine=1), Clock()
    topics = _topics(broker, clock)
    assert _fault(topics, _to("mine")) is None
    del broker.topics["mine"]
    clock.now_s += 61
    assert isinstance(_fault(topics, _to("mine")), UnknownReplyTopic)


def test_a_batch_of_unknown_topics_asks_once_and_known_ones_do_not_ask() -> None:
    broker = Broker(mine=1)
    topics = _topics(broker)
    many = [_to(f"unknown-{number}") for number in range(3_000)]
    assert isinstance(_fault(topics, _to("mine"), *many), UnknownReplyTopic)
    assert len(broker.asked) == 1
    assert not topics.unseen([_to("mine"), _to("replies"), *many])


def test_what_is_remembered_is_bounded_and_replies_stays() -> None:
    topics = _topics(Broker())
    for start in range(0, 60_000, 3_000):
        topics.learn(topics.unseen([_to(f"unknown-{start + number}") for number in range(3_000)]))
    assert len(topics._known) == 20_000
    assert not topics.unseen([_to("replies")])


def test_while_the_broker_does_not_say_calls_go_on_and_it_is_not_asked_for_each() -> None:
    broker, clock = Broker(mine=1), Clock()
    topics = _topics(broker, clock)
    broker.is_there = False
    assert _fault(topics, _to("mine")) is None
    assert _fault(topics, _to("mine", 7)) is None
    assert len(broker.asked) == 1
    broker.is_there = True
    clock.now_s += 6
    assert isinstance(_fault(topics, _to("mine", 7)), UnknownReplyTopic)


def test_a_missing_topic_is_made_where_the_settings_say_so() -> None:
    broker = Broker(**{f"other_{one}": 1 for one in ("requests", "nodes", "results")})
    topics = _topics(broker, create_reply_topics=3)
    assert _fault(topics, _to("mine", 2)) is None
    assert broker.topics["mine"] == 3
    assert isinstance(_fault(topics, _to("other-nodes")), MalformedRequest)
    assert isinstance(_fault(topics, _to("nodes")), MalformedRequest)
    assert "other-replies" not in broker.topics
