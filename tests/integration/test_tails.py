"""What was sent before is found where it stands; real records, read by their time."""

from __future__ import annotations

import queue
from collections.abc import Collection, Iterator, Mapping, Sequence

import pytest
from easyremote.clock import wall_ms
from easyremote.settings import Settings
from easyremote.topics.admin import TopicAdmin
from easyremote.topics.catalog import REPLIES, REQUESTS, declarations
from easyremote.topics.producer import RecordProducer
from easyremote.topics.records import RecordRef
from easyremote.topics.tails import Tails

pytestmark = pytest.mark.broker

Found = tuple[Mapping[bytes, Sequence[RecordRef]], Collection[str]]
WAIT_S = 30


class Looking:
    """Asks, and waits for the answer."""

    def __init__(self, settings: Settings) -> None:
        TopicAdmin(settings).ensure(declarations())
        self.replies, self.requests = settings.namespace + REPLIES, settings.namespace + REQUESTS
        self._producer = RecordProducer(settings)
        self.tails = Tails(settings)

    def send(self, topic: str, mark: bytes, partition: int = 0) -> RecordRef:
        headers = [("easyremote_source", mark)]
        return self._producer.deliver_blocking(topic, b"x", headers=headers, partition=partition)

    def ask(self, places: Sequence[tuple[str, int | None]], *marks: bytes, since_ms: float = 0.0) -> Found:
        told: queue.SimpleQueue[Found] = queue.SimpleQueue()
        self.tails.ask(places, since_ms, marks, lambda found, missing: told.put((found, missing)))
        return told.get(timeout=WAIT_S)

    def close(self) -> None:
        self.tails.close()
        self._producer.close()


@pytest.fixture
def looking(settings: Settings) -> Iterator[Looking]:
    one = Looking(settings)
    yield one
    one.close()


def test_records_are_found_by_their_marks_and_what_came_since_the_last_look_too(looking: Looking) -> None:
    first = looking.send(looking.replies, b"a/0/1", partition=3)
    other = looking.send(looking.requests, b"a/0/1")
    everywhere = [(looking.replies, None), (looking.requests, None)]
    assert looking.ask(everywhere, b"a/0/1", b"a/0/2") == ({b"a/0/1": [first, other]}, set())
    second = looking.send(looking.replies, b"a/0/2", partition=3)
    assert looking.ask([(looking.replies, 3)], b"a/0/2", since_ms=wall_ms()) == ({b"a/0/2": [second]}, set())
    assert looking.ask([(looking.replies, 4)], b"a/0/2") == ({}, set())
    assert looking.ask([(looking.replies.removesuffix("s") + "*", None)], b"a/0/2") == ({b"a/0/2": [second]}, set())


def test_a_topic_that_is_not_there_is_said_so_and_keeps_nobody_else_waiting(looking: Looking) -> None:
    there = looking.send(looking.replies, b"a/0/1")
    told: queue.SimpleQueue[Found] = queue.SimpleQueue()
    looking.tails.ask([("nowhere", None)], 0.0, [b"a/0/1"], lambda found, missing: told.put((found, missing)))
    assert looking.ask([(looking.replies, None)], b"a/0/1") == ({b"a/0/1": [there]}, set())
    assert told.empty()  # a topic may have been made just now, so it is waited for a little
    assert told.get(timeout=WAIT_S) == ({}, {"nowhere"})
