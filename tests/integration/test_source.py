"""The batch source on real Kafka: who reads, and who does no more."""

from __future__ import annotations

import asyncio
import queue
import threading

import pytest
from confluent_kafka import Producer
from easyremote.settings import Settings
from easyremote.topics.admin import TopicAdmin
from easyremote.topics.catalog import REQUESTS, declarations
from easyremote.topics.events import Batch, SourceEvent
from easyremote.topics.profiles import CALLS
from easyremote.topics.source import BatchSource

pytestmark = pytest.mark.broker

WAIT_S = 30.0


def test_a_reader_that_was_relieved_reads_no_more_when_it_comes_back(settings: Settings) -> None:
    TopicAdmin(settings).ensure(declarations())
    topic = settings.namespace + REQUESTS
    producer = Producer({"bootstrap.servers": settings.bootstrap_servers(), "linger.ms": 0})
    came: queue.SimpleQueue[tuple[list[bytes | None], threading.Thread]] = queue.SimpleQueue()
    back = threading.Event()

    def receive(event: SourceEvent[list[bytes | None]]) -> None:
        if isinstance(event, Batch):
            came.put((event.content, threading.current_thread()))
            if event.content == [b"slow"]:
                assert back.wait(WAIT_S)
            source.finished()

    def send(value: bytes) -> threading.Thread:
        producer.produce(topic, value, key="k")
        assert producer.flush(10) == 0
        content, thread = came.get(timeout=WAIT_S)
        assert content == [value]
        return thread

    def session() -> None:
        first = send(b"slow")
        source.relieve()
        second = send(b"while it is held up")
        assert second is not first
        back.set()
        first.join(WAIT_S)
        assert not first.is_alive()
        assert {send(b"%d" % number) for number in range(20)} == {second}

    source = BatchSource(
        settings, topic, f"{settings.namespace}g", CALLS, lambda _, many: [one.value() for one in many], receive
    )

    async def run() -> None:
        await source.start()
        await source.joined()
        try:
            await asyncio.to_thread(session)
        finally:
            await source.stop()

    asyncio.run(run())
