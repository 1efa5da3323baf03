"""Reading a topic to where it ended, whatever it looks like there."""

from __future__ import annotations

import queue
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from statistics import median

import pytest
from confluent_kafka import Message, Producer
from easyremote.errors import TopicError
from easyremote.settings import Settings
from easyremote.topics.admin import TopicAdmin
from easyremote.topics.catalog import CANCELLATIONS, declarations
from easyremote.topics.follower import GATHER_S, Follower, follow_records
from easyremote.topics.records import Cancellation, decode_cancellation
from workers import producer_to

pytestmark = pytest.mark.broker

SOON_S = 5.0


@pytest.fixture
def nodes(settings: Settings) -> str:
    """The topic of the heartbeats, which has one partition."""
    TopicAdmin(settings).ensure(declarations())
    return settings.namespace + "nodes"


@contextmanager
def _following(settings: Settings, topic: str) -> Iterator[tuple[Follower, list[bytes | None]]]:
    seen: list[bytes | None] = []

    def receive(messages: Sequence[Message]) -> None:
        seen.extend(message.value() for message in messages)

    follower = Follower(settings, topic, receive, start="beginning")
    try:
        yield follower, seen
    finally:
        follower.close()


def test_an_empty_topic_is_read_to_its_end_at_once(settings: Settings, nodes: str) -> None:
    with _following(settings, nodes) as (follower, _):
        assert follower.caught_up


def test_a_topic_to_which_records_come_all_the_time_is_read_to_where_it_ended(settings: Settings, nodes: str) -> None:
    producer = producer_to(settings.bootstrap_servers())
    producer.produce(nodes, b"first", key="a")
    assert producer.flush(10) == 0
    enough = threading.Event()

    def beat() -> None:
        # Oftener than a fetch waits (0.5 s), so that none ever finds the end.
        while not enough.wait(0.05):
            producer.produce(nodes, b"more", key="a")
            producer.flush(10)

    beating = threading.Thread(target=beat)
    beating.start()
    try:
        with _following(settings, nodes) as (follower, seen):
            assert follower.wait_caught_up(SOON_S)
            assert seen[0] == b"first"
    finally:
        enough.set()
        beating.join()


def test_a_topic_that_ends_with_what_was_never_committed_is_read_to_its_end(settings: Settings, nodes: str) -> None:
    producer = Producer({"bootstrap.servers": settings.bootstrap_servers(), "transactional.id": nodes})
    producer.init_transactions(10)
    for value, end in ((b"kept", producer.commit_transaction), (b"undone", producer.abort_transaction)):
        producer.begin_transaction()
        producer.produce(nodes, value, key="a")
        producer.flush(10)
        end(10)
    with _following(settings, nodes) as (follower, seen):
        assert follower.wait_caught_up(SOON_S)
        assert seen == [b"kept"]


def test_who_gathers_has_each_record_soon_after_its_rest(settings: Settings, nodes: str) -> None:
    came: queue.SimpleQueue[float] = queue.SimpleQueue()
    producer = producer_to(settings.bootstrap_servers())
    follower = Follower(settings, nodes, lambda _: came.put(time.monotonic()), start="end", gather=True)
    lags_s = []
    try:
        for _ in range(11):
            producer.produce(nodes, b"one", key="a")
            assert producer.flush(10) == 0
            sent_s = time.monotonic()
            lags_s.append(came.get(timeout=SOON_S) - sent_s)
    finally:
        follower.close()
    assert median(lags_s) < 4 * GATHER_S, lags_s  # a client left to itself looks once a second


def test_a_record_that_is_no_text_is_left_out_and_those_after_it_are_read(settings: Settings) -> None:
    TopicAdmin(settings).ensure(declarations())
    producer = producer_to(settings.bootstrap_servers())
    for value in (b'{"id": "\xff"}', b"{", b'{"id": "good"}'):
        producer.produce(settings.namespace + CANCELLATIONS, value, key=b"k")
    assert producer.flush(10) == 0
    came: queue.SimpleQueue[object] = queue.SimpleQueue()
    follower = follow_records(
        settings, CANCELLATIONS, decode_cancellation, lambda _key, record, _at_ms: came.put(record)
    )
    try:
        assert came.get(timeout=SOON_S) == Cancellation("good")
    finally:
        follower.close()


class _Waiter:
    """Somebody who waits for one record at a time, and knows on which thread each came."""

    def __init__(self) -> None:
        self.waits = False
        self.came: queue.SimpleQueue[tuple[bytes | None, int]] = queue.SimpleQueue()

    def receive(self, messages: Sequence[Message]) -> None:
        for message in messages:
            self.waits = False
            self.came.put((message.value(), threading.get_ident()))


@contextmanager
def _lent(settings: Settings, topic: str) -> Iterator[tuple[Follower, _Waiter, Producer]]:
    """A follower from which a thread that waits has read itself."""
    waiter = _Waiter()
    producer = Producer({"bootstrap.servers": settings.bootstrap_servers(), "linger.ms": 0})
    follower = Follower(settings, topic, waiter.receive, start="end", awaited=lambda: waiter.waits)
    try:
        here = 0
        deadline = time.monotonic() + SOON_S
        while here != threading.get_ident() and time.monotonic() < deadline:
            waiter.waits = True
            producer.produce(topic, b"own", key="a")
            producer.flush(10)
            follower.read_until(lambda: not waiter.came.empty())
            _, here = waiter.came.get(timeout=SOON_S)
        assert here == threading.get_ident()
        yield follower, waiter, producer
    finally:
        follower.close()


def test_who_waits_reads_on_its_own_thread(settings: Settings, nodes: str) -> None:
    with _lent(settings, nodes):
        pass  # it has


def test_when_who_read_has_its_record_the_followers_thread_reads_for_those_who_wait(
    settings: Settings, nodes: str
) -> None:
    lags_s = []
    with _lent(settings, nodes) as (follower, waiter, producer):
        for _ in range(20):
            waiter.waits = True
            follower.wake()
            producer.produce(nodes, b"other's", key="a")
            producer.flush(10)
            sent_s = time.monotonic()
            value, thread = waiter.came.get(timeout=SOON_S)
            lags_s.append(time.monotonic() - sent_s)
            assert value == b"other's"
            assert thread != threading.get_ident()
    assert median(lags_s) < 0.1, lags_s  # left asleep it looks five times a second


def test_while_nobody_waits_what_comes_is_read_all_the_same(settings: Settings, nodes: str) -> None:
    with _lent(settings, nodes) as (_, waiter, producer):
        for number in range(5):
            producer.produce(nodes, b"%d" % number, key="a")
        producer.flush(10)
        assert [waiter.came.get(timeout=SOON_S)[0] for _ in range(5)] == [b"%d" % number for number in range(5)]


def test_who_reads_itself_ends_when_the_follower_is_closed(settings: Settings, nodes: str) -> None:
    with _lent(settings, nodes) as (follower, waiter, _):
        waiter.waits = True
        reading = threading.Thread(target=follower.read_until, args=(lambda: False,))
        reading.start()
        follower.close()
        reading.join(SOON_S)
        assert not reading.is_alive()


def test_while_nothing_comes_and_nobody_waits_it_takes_no_time_of_the_cores(settings: Settings, nodes: str) -> None:
    follower = Follower(settings, nodes, lambda _: None, start="end", awaited=lambda: False)
    try:
        began_s = time.process_time()
        threading.Event().wait(1.0)
        assert time.process_time() - began_s < 0.5
        with _lent(settings, nodes):
            began_s = time.process_time()
            threading.Event().wait(1.0)
            assert time.process_time() - began_s < 0.5
    finally:
        follower.close()


def test_a_topic_of_which_the_broker_has_not_heard_yet_is_waited_for_and_one_that_never_comes_is_named(
    settings: Settings,
) -> None:
    topic = settings.namespace + "nodes"
    with pytest.raises(TopicError, match=f"{topic} does not exist"):
        Follower(settings, topic, lambda _: None, start="end")
    making = threading.Timer(0.5, TopicAdmin(settings).ensure, [declarations()])
    making.start()
    try:
        Follower(settings, topic, lambda _: None, start="end").close()
    finally:
        making.join()
