"""Reads topics with plain consumers, and waits until nothing moves any more."""

from __future__ import annotations

import time
from collections.abc import Iterator

from confluent_kafka import Consumer, ConsumerGroupTopicPartitions, KafkaError, KafkaException, Message, TopicPartition
from confluent_kafka.admin import AdminClient, OffsetSpec  # type: ignore[attr-defined]  # it does not say so

_READ_S = 120.0
_ASK_S = 20.0
_STEADY_S = 5.0
_LOOK_S = 1.0
_NOT_WORK = ("nodes", "functions", "suspects", "models", "streams.changelog", "__")
"""Topics that move though nothing is done."""


def read(servers: str, topic: str) -> Iterator[Message]:
    """Yield every committed record of a topic, from its beginning to its present end, partition by partition."""
    consumer = Consumer(
        {
            "bootstrap.servers": servers,
            "group.id": "chaos-checker",
            "enable.auto.commit": False,
            "auto.offset.reset": "earliest",
            "enable.partition.eof": True,
            "isolation.level": "read_committed",
        }
    )
    try:
        found = consumer.list_topics(topic, timeout=_ASK_S).topics[topic]
        if found.error is not None:
            return
        open_ = set(found.partitions)
        consumer.assign([TopicPartition(topic, number, 0) for number in open_])
        deadline = time.monotonic() + _READ_S
        while open_:
            assert time.monotonic() < deadline, f"{topic} was not read to its end: {open_}"
            for message in consumer.consume(1_000, 1.0):
                error = message.error()
                if error is None:
                    yield message
                elif error.code() == KafkaError._PARTITION_EOF:
                    open_.discard(message.partition() or 0)
    finally:
        consumer.close()


def headers(message: Message) -> dict[str, bytes]:
    """Return a record's headers; of several of one name the last."""
    pairs: list[tuple[str, str | bytes | None]] = list(message.headers() or [])  # type: ignore[arg-type]  # the stub is wide
    return {name: value.encode() if isinstance(value, str) else value or b"" for name, value in pairs}


class Quiet:
    """Waits until all topics stand still and all that has groups is read.

    Parameters
    ----------
    servers : str
        Where.
    """

    def __init__(self, servers: str) -> None:
        self._admin = AdminClient({"bootstrap.servers": servers})

    def wait(self, timeout_s: float) -> dict[str, int]:
        """Wait for it; return what was still unread or moving if it did not come."""
        deadline = time.monotonic() + timeout_s
        before: dict[tuple[str, int], int] = {}
        since = time.monotonic()
        while True:
            try:
                ends = self._ends()
                lag = self._lag(ends)
            except KafkaException as error:  # a broker that has just come back does not know its partitions yet
                ends, lag = {}, {f"the broker cannot say: {error}": 1}
            if ends != before:
                before, since = ends, time.monotonic()
            if ends and not lag and time.monotonic() - since > _STEADY_S:
                return {}
            if time.monotonic() > deadline:
                return lag or {"topics still move": 1}
            time.sleep(_LOOK_S)  # the broker tells nobody of commits

    def _ends(self) -> dict[tuple[str, int], int]:
        topics = self._admin.list_topics(timeout=_ASK_S).topics
        latest: OffsetSpec = OffsetSpec.latest()  # type: ignore[no-untyped-call]  # the stub leaves it open
        asked = {
            TopicPartition(name, number): latest
            for name, topic in topics.items()
            if not name.startswith(_NOT_WORK) and not name.endswith(".changelog")
            for number in topic.partitions
        }
        found = self._admin.list_offsets(asked, request_timeout=_ASK_S)
        return {(one.topic, one.partition): future.result(_ASK_S).offset for one, future in found.items()}

    def _lag(self, ends: dict[tuple[str, int], int]) -> dict[str, int]:
        lag = {}
        for group in self._admin.list_consumer_groups().result(_ASK_S).valid:
            try:
                wanted = [ConsumerGroupTopicPartitions(group.group_id)]
                committed = self._admin.list_consumer_group_offsets(wanted)[group.group_id].result(_ASK_S)
            except KafkaException:  # it is just being made or gone
                continue
            stands = {(one.topic, one.partition): max(0, one.offset) for one in committed.topic_partitions or []}
            read = {topic for topic, _ in stands}
            # What a group has never committed of a topic that it reads is unread.
            for place, end in ends.items():
                if place[0] in read and end > stands.get(place, 0):
                    lag[f"{group.group_id} {place[0]}[{place[1]}]"] = end - stands.get(place, 0)
        return lag
