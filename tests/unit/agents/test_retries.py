"""The delay topics, with the broker's two sides played by the test."""

from __future__ import annotations

import asyncio
import threading
from typing import Any, cast

from easyremote.agents.retries import Retries
from easyremote.clock import now_ms
from easyremote.settings import Settings
from easyremote.topics.doneset import Place
from easyremote.topics.events import Assigned, Batch, Revoked
from easyremote.topics.tenure import Tenure
from tailed import Written

DELAY_MS = 50
TOPIC = "requests.retry.1s"


class _Message:
    def __init__(self, offset: int, written_ms: int) -> None:
        self._offset = offset
        self._written_ms = written_ms

    def offset(self) -> int:
        return self._offset

    def timestamp(self) -> tuple[int, int]:
        return 2, self._written_ms

    def value(self) -> bytes:
        return b"%d" % self._offset

    def key(self) -> bytes:
        return b"call"

    def headers(self) -> list[tuple[str, bytes]]:
        return [("easyremote_id", b"call")]


class _Producer:
    def __init__(self) -> None:
        self.sent: list[tuple[int, bytes, Any]] = []
        self.came = asyncio.Event()

    def send(self, topic: str, value: bytes, *, key: bytes, headers: Any, on_delivery: Any, wanted: Any) -> None:
        assert topic == "requests"
        assert dict(headers)["easyremote_id"] == b"call"
        self.sent.append((now_ms(), value, on_delivery))
        self.came.set()


class _Source:
    def __init__(self) -> None:
        self.tenure = Tenure(1e9)
        self.committed: dict[int, int] = {}
        self.done = 0

    def commit(self, places: dict[int, Place]) -> None:
        self.committed |= {partition: place.offset for partition, place in places.items()}

    def finished(self) -> None:
        self.done += 1


def _parts(tails: Any = None) -> tuple[Retries, Any, Any]:
    producer = _Producer()
    retries = Retries(Settings(), cast(Any, producer), cast(Any, tails), TOPIC, DELAY_MS, _fail)
    return retries, producer, _Source()


def _fail(error: Exception) -> None:
    raise error


def _batch(*messages: _Message, partition: int = 0) -> Batch[Any]:
    first, last = messages[0].offset(), messages[-1].offset()
    return Batch("requests.retry.1s", partition, first, last + 1, list(messages))


def test_a_call_comes_back_when_its_delay_is_over_and_not_before() -> None:
    async def play() -> None:
        retries, producer, source = _parts()
        await retries.handle(Assigned((0,)), source)
        written_ms = now_ms()
        await retries.handle(_batch(_Message(5, written_ms - DELAY_MS), _Message(6, written_ms)), source)
        assert [value for _, value, _ in producer.sent] == [b"5"]
        producer.came.clear()
        await asyncio.wait_for(producer.came.wait(), 2)
        assert producer.sent[1][0] >= written_ms + DELAY_MS
        assert source.done == 1

    asyncio.run(play())


def test_nothing_is_committed_before_what_stands_before_it_is_acknowledged() -> None:
    async def play() -> None:
        retries, producer, source = _parts()
        await retries.handle(Assigned((0,)), source)
        await retries.handle(_batch(_Message(5, 0), _Message(6, 0)), source)
        (_, _, first), (_, _, second) = producer.sent
        second(None, None)
        assert source.committed.get(0, 5) == 5
        first(None, None)
        assert source.committed == {0: 7}

    asyncio.run(play())


def test_a_partition_that_goes_is_let_go_at_once_and_its_calls_stay_in_the_topic() -> None:
    async def play() -> None:
        retries, producer, source = _parts()
        await retries.handle(Assigned((0,)), source)
        await retries.handle(_batch(_Message(5, now_ms())), source)
        revoked = Revoked((0,), lost=False)
        await retries.handle(revoked, source)
        assert revoked.done.is_set()
        assert source.committed.get(0, 5) == 5
        await retries.handle(Assigned((1,)), source)
        await retries.handle(_batch(_Message(9, now_ms()), partition=1), source)
        await asyncio.wait_for(producer.came.wait(), 10)  # due after the one that is gone
        assert [value for _, value, _ in producer.sent] == [b"9"]

    asyncio.run(play())


def test_what_the_one_before_has_sent_back_is_not_sent_again() -> None:
    async def play() -> None:
        written = Written()
        written.put("requests", b"requests.retry.1s/0/0")
        retries, producer, source = _parts(written)
        retries.claim((0,), {}, threading.Event())
        await retries.handle(Assigned((0,)), source)
        due_ms = now_ms() - 2 * DELAY_MS
        await retries.handle(_batch(_Message(0, due_ms), _Message(1, due_ms)), source)
        assert [value for _, value, _ in producer.sent] == [b"1"]
        producer.sent[0][2](None, None)
        assert source.committed == {0: 2}

    asyncio.run(play())
