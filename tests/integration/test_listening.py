"""A source of a stream knows on a real broker when it has read all there is, and reads on when its client does not."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
from confluent_kafka import Producer, TopicPartition
from confluent_kafka.admin import AdminClient, NewTopic  # type: ignore[attr-defined]  # exported without saying so
from easyremote.clock import now_ms
from easyremote.settings import Settings
from easyremote.topics import progress
from easyremote.topics.companion import Companion
from easyremote.topics.events import Assigned, Batch, Revoked, SourceEvent, Tick
from easyremote.topics.profiles import STREAMS
from easyremote.topics.progress import Heard
from easyremote.topics.source import BatchSource
from workers import producer_to

pytestmark = pytest.mark.broker

SOON_S = 30.0
PROFILE = replace(STREAMS, tick_s=0.05)


def _decode(_partition: int, messages: Any) -> list[bytes]:
    return [message.value() for message in messages]


class Reader:
    """A source of the partition 0 of a topic, and of one beside it."""

    def __init__(self, settings: Settings) -> None:
        self.topics = (settings.namespace + "left", settings.namespace + "right")
        client = AdminClient({"bootstrap.servers": settings.bootstrap_servers()})
        for future in client.create_topics([NewTopic(name, 1, 1) for name in self.topics]).values():
            future.result(10)
        self.values: list[bytes] = []
        self.heard: dict[str, Heard] = {}
        self.given = 0
        self._changed = threading.Condition()
        beside = Companion(settings, "g", {self.topics[1]: _decode}, PROFILE)
        group = settings.namespace + "g"
        self.source: BatchSource[list[bytes]] = BatchSource(
            settings, self.topics[0], group, PROFILE, _decode, self._take, beside=beside
        )

    def _take(self, event: SourceEvent[list[bytes]]) -> None:
        with self._changed:
            if isinstance(event, Batch):
                self.values += event.content
                self.source.finished()
            elif isinstance(event, Tick):
                self.heard = {topic: heard for (topic, _), heard in event.heard.items()}
                self.source.finished()
            elif isinstance(event, Revoked):
                event.done.set()
            elif isinstance(event, Assigned):
                self.given += len(event.partitions)
            self._changed.notify_all()

    def wait_for(self, enough: Callable[[], bool]) -> None:
        with self._changed:
            assert self._changed.wait_for(enough, SOON_S), (self.values, self.heard)

    def run(self, use: Callable[[], None]) -> None:
        async def while_it_runs() -> None:
            await self.source.start()
            try:
                await asyncio.to_thread(use)
            finally:
                await self.source.stop()

        asyncio.run(while_it_runs())


def test_the_end_is_known_behind_markers_of_transactions_and_not_behind_what_is_unread(settings: Settings) -> None:
    reader = Reader(settings)
    producer = Producer({"bootstrap.servers": settings.bootstrap_servers(), "transactional.id": reader.topics[0]})
    producer.init_transactions(30)
    for topic in reader.topics:
        for end in (producer.commit_transaction, producer.abort_transaction):
            producer.begin_transaction()
            producer.produce(topic, b"one", partition=0)
            assert producer.flush(30) == 0
            end(30)

    def use() -> None:
        for topic in reader.topics:
            reader.wait_for(lambda topic=topic: reader.heard.get(topic, Heard(0, 0)).until_ms > 0)  # type: ignore[misc]
        assert reader.values == [b"one", b"one"]
        until = reader.heard[reader.topics[1]].until_ms
        reader.wait_for(lambda: reader.heard[reader.topics[1]].until_ms > until)
        # The client has stalled: what is written now stands unread, and the time of this topic stands still.
        reader.source._consumer.pause([TopicPartition(reader.topics[0], 0)])
        plain = producer_to(settings.bootstrap_servers())
        plain.produce(reader.topics[0], b"two", partition=0)
        assert plain.flush(30) == 0
        written_ms = now_ms()
        reader.wait_for(lambda: reader.heard[reader.topics[1]].until_ms > written_ms + 2_000)
        assert reader.heard[reader.topics[0]].until_ms <= written_ms
        assert reader.values == [b"one", b"one"]

    reader.run(use)


@pytest.mark.parametrize("side", [0, 1], ids=["the group's", "the one beside it"])
def test_a_partition_that_a_client_does_not_read_on_is_read_by_another_one(
    settings: Settings, monkeypatch: pytest.MonkeyPatch, side: int
) -> None:
    monkeypatch.setattr(progress, "_STALLED_S", 1.0)
    reader = Reader(settings)
    topic = reader.topics[side]
    producer = producer_to(settings.bootstrap_servers())

    def use() -> None:
        reader.wait_for(lambda: reader.given == 1)
        producer.produce(topic, b"one", partition=0)
        assert producer.flush(30) == 0
        reader.wait_for(lambda: reader.values == [b"one"])
        beside = reader.source._beside
        assert beside is not None
        client = reader.source._consumer if side == 0 else beside._consumer
        client.pause([TopicPartition(topic, 0)])
        producer.produce(topic, b"two", partition=0)
        assert producer.flush(30) == 0
        reader.wait_for(lambda: b"two" in reader.values)

    reader.run(use)
    # Nothing was committed: the group's is read from its beginning.
    assert reader.values == ([b"one", b"one", b"two"] if side == 0 else [b"one", b"two"])
    assert reader.given == (2 if side == 0 else 1)
