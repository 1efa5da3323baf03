"""A client that has forgotten every broker is replaced by one that goes on where it stood (docs/decisions/0017)."""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import Callable, Sequence
from typing import Any

import pytest
from confluent_kafka import Message
from confluent_kafka.admin import AdminClient, NewTopic  # type: ignore[attr-defined]  # exported without saying so
from easyremote.errors import BrokerUnavailable
from easyremote.settings import Settings
from easyremote.topics import known_brokers
from easyremote.topics.changelog import Copy, Standby
from easyremote.topics.companion import Companion
from easyremote.topics.doneset import Place
from easyremote.topics.events import Assigned, Batch, Revoked
from easyremote.topics.follower import Follower
from easyremote.topics.known_brokers import KnownBrokers
from easyremote.topics.lookup import RecordReader
from easyremote.topics.producer import RecordProducer
from easyremote.topics.profiles import CALLS
from easyremote.topics.records import RecordRef
from easyremote.topics.source import BatchSource
from workers import producer_to

pytestmark = pytest.mark.broker

SOON_S = 30.0


class Amnesia:
    """Has every client that is there when it strikes report that it knows no broker."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self._changed = threading.Condition()
        self._seen: set[KnownBrokers] = set()
        self._struck: set[KnownBrokers] = set()
        look = KnownBrokers.look

        def forgetful(known: KnownBrokers, report: str) -> None:
            look(known, '{"brokers": {}}' if known in self._struck else report)
            with self._changed:
                self._seen.add(known)
                self._changed.notify_all()

        monkeypatch.setattr(known_brokers, "_REPORT_MS", 50)
        monkeypatch.setattr(KnownBrokers, "look", forgetful)

    def strike(self, clients: int) -> None:
        """Strike when so many report, and wait until they know no broker any more."""
        with self._changed:
            assert self._changed.wait_for(lambda: len(self._seen - self._struck) >= clients, SOON_S)
            self._struck |= self._seen
            assert self._changed.wait_for(lambda: all(known.are_forgotten for known in self._struck), SOON_S)

    def wait_replaced(self, clients: int) -> None:
        """Wait until so many others report."""
        with self._changed:
            assert self._changed.wait_for(lambda: len(self._seen - self._struck) >= clients, SOON_S)


@pytest.fixture
def amnesia(monkeypatch: pytest.MonkeyPatch) -> Amnesia:
    return Amnesia(monkeypatch)


@pytest.fixture
def topics(settings: Settings) -> tuple[str, str]:
    """Two topics of one partition."""
    names = (settings.namespace + "left", settings.namespace + "right")
    made = AdminClient({"bootstrap.servers": settings.bootstrap_servers()})
    for future in made.create_topics([NewTopic(name, 1, 1) for name in names]).values():
        future.result(10)
    return names


class Got:
    """What has come, and waits for more."""

    def __init__(self) -> None:
        self.all: list[Any] = []
        self._came = threading.Condition()

    def take(self, *what: Any) -> None:
        with self._came:
            self.all.extend(what)
            self._came.notify_all()

    def wait_for(self, enough: Callable[[], bool]) -> None:
        with self._came:
            assert self._came.wait_for(enough, SOON_S), self.all


def _write(settings: Settings, topic: str, *values: bytes) -> None:
    producer = producer_to(settings.bootstrap_servers())
    for value in values:
        producer.produce(topic, value, partition=0)
    assert producer.flush(10) == 0


@pytest.mark.parametrize("start", ["beginning", "end"])
def test_a_follower_reads_on_where_it_stood(
    settings: Settings, topics: tuple[str, str], amnesia: Amnesia, start: Any
) -> None:
    topic, got = topics[0], Got()
    _write(settings, topic, b"before")

    def receive(messages: Sequence[Message]) -> None:
        got.take(*(message.value() for message in messages))

    expected = [b"before"] if start == "beginning" else []
    follower = Follower(settings, topic, receive, start=start)
    try:
        got.wait_for(lambda: got.all == expected)
        amnesia.strike(1)
        amnesia.wait_replaced(1)
        _write(settings, topic, b"then")
        got.wait_for(lambda: got.all == [*expected, b"then"])
        amnesia.strike(1)
        amnesia.wait_replaced(1)
        _write(settings, topic, b"last")
        got.wait_for(lambda: len(got.all) == len(expected) + 2)
    finally:
        follower.close()
    assert got.all == [*expected, b"then", b"last"]


def test_a_producer_sends_on(settings: Settings, topics: tuple[str, str], amnesia: Amnesia) -> None:
    producer = RecordProducer(settings)
    producer.deliver_blocking(topics[0], b"before", partition=0)
    amnesia.strike(2)
    amnesia.wait_replaced(2)
    assert producer.deliver_blocking(topics[0], b"after", partition=0, in_order=True).offset == 1
    assert producer.deliver_blocking(topics[0], b"last", partition=0).offset == 2
    assert producer.close() == 0


def test_what_a_producer_could_not_send_is_told_at_once(amnesia: Amnesia) -> None:
    producer = RecordProducer(Settings(kafka="127.0.0.1:1"))
    told = Got()

    def wait() -> None:
        try:
            producer.deliver_blocking("anything", b"x")
        except BrokerUnavailable as error:
            told.take(error)

    waiting = threading.Thread(target=wait)
    waiting.start()
    began = time.monotonic()
    amnesia.strike(2)
    waiting.join(SOON_S)
    assert time.monotonic() - began < 20  # and not when its 30 s are over
    assert "was not acknowledged" in str(told.all[0])
    assert producer.close() == 0


@pytest.fixture
def joined(settings: Settings, topics: tuple[str, str]) -> tuple[BatchSource[list[bytes]], Got]:
    """A source of one topic and beside it another, and what it has handed on."""
    got = Got()

    def decode(_partition: int, messages: Sequence[Message]) -> list[bytes]:
        return [message.value() or b"" for message in messages]

    def emit(event: Any) -> None:
        if isinstance(event, Batch):
            got.take(*event.content)
            if event.topic == topics[0]:
                source.commit({event.partition: Place(event.next_offset)})
            source.finished()
        elif isinstance(event, Revoked):
            got.take("lost" if event.lost else "revoked")
            event.done.set()
        elif isinstance(event, Assigned) and event.partitions:
            got.take("given")

    beside = Companion(settings, "both", {topics[1]: decode}, CALLS)
    source = BatchSource(settings, topics[0], settings.namespace + "both", CALLS, decode, emit, beside=beside)
    return source, got


def test_a_source_joins_anew_and_reads_on_from_what_is_committed(
    settings: Settings, topics: tuple[str, str], amnesia: Amnesia, joined: tuple[BatchSource[list[bytes]], Got]
) -> None:
    source, got = joined

    def use() -> None:
        got.wait_for(lambda: "given" in got.all)
        _write(settings, topics[0], b"one")
        got.wait_for(lambda: b"one" in got.all)
        amnesia.strike(2)
        amnesia.wait_replaced(2)
        _write(settings, topics[0], b"two")
        got.wait_for(lambda: b"two" in got.all)

    async def run() -> None:
        await source.start()
        try:
            await asyncio.to_thread(use)
        finally:
            await source.stop()

    asyncio.run(run())
    assert got.all == ["given", b"one", "lost", "given", b"two", "revoked"]


def test_a_companion_reads_on_where_it_stood(settings: Settings, topics: tuple[str, str], amnesia: Amnesia) -> None:
    beside = Companion(
        settings, "both", {name: lambda _number, found: [one.value() for one in found] for name in topics}, CALLS
    )
    got: list[bytes | None] = []

    def read_until(count: int) -> None:
        deadline = time.monotonic() + SOON_S
        while len(got) < count and time.monotonic() < deadline:
            got.extend(value for batch in beside.read() for value in batch.content)

    _write(settings, topics[0], b"skipped", b"one")
    beside.give([0], {(topics[0], 0): 1})
    read_until(1)
    reading = threading.Thread(target=read_until, args=(3,))
    reading.start()
    amnesia.strike(1)
    amnesia.wait_replaced(1)
    _write(settings, topics[0], b"two")
    _write(settings, topics[1], b"other")
    reading.join()
    beside.close()
    assert (got[0], sorted(filter(None, got))) == (b"one", [b"one", b"other", b"two"])


def test_who_stands_by_reads_on_where_it_stood(settings: Settings, topics: tuple[str, str], amnesia: Amnesia) -> None:
    got = Got()

    class Watched(dict[bytes, bytes]):
        """Tells what is put in."""

        def __setitem__(self, key: bytes, value: bytes) -> None:
            got.take((key, value))
            super().__setitem__(key, value)

    def write(value: bytes) -> None:
        producer = producer_to(settings.bootstrap_servers())
        producer.produce(topics[0], value, b"key", partition=0)
        assert producer.flush(10) == 0

    standby = Standby(settings, topics[0], lambda _number: Copy(Watched()))
    try:
        write(b"1")
        got.wait_for(lambda: got.all == [(b"key", b"1")])
        amnesia.strike(1)
        amnesia.wait_replaced(1)
        write(b"2")
        got.wait_for(lambda: got.all == [(b"key", b"1"), (b"key", b"2")])
        assert standby.take([0])[0].latest == {b"key": b"2"}
    finally:
        standby.close()


def test_a_reader_of_single_records_finds_the_next_one(
    settings: Settings, topics: tuple[str, str], amnesia: Amnesia
) -> None:
    _write(settings, topics[0], *(b"%d" % number for number in range(3)))
    reader, got = RecordReader(settings), Got()

    def ask(offset: int) -> None:
        reader.ask(RecordRef(topics[0], 0, offset), lambda message: got.take(message and message.value()))

    try:
        ask(0)
        got.wait_for(lambda: got.all == [b"0"])
        ask(3)  # not there yet: it is waited for, and the client reports meanwhile
        amnesia.strike(1)
        _write(settings, topics[0], b"3")
        ask(2)
        got.wait_for(lambda: len(got.all) == 3)
        ask(4)
        amnesia.wait_replaced(1)
        _write(settings, topics[0], b"4")
        got.wait_for(lambda: len(got.all) == 4)
    finally:
        reader.close()
    assert got.all == [b"0", b"3", b"2", b"4"]
