"""An executor that runs generators without a broker; the test is the broker and the caller."""

from __future__ import annotations

import asyncio
import queue
import threading
import time
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

from easyremote.errors import EasyRemoteError
from easyremote.inference.execution import Executor, Job, Outcome
from easyremote.inference.functions import Function
from easyremote.inference.node import AINodeManager
from easyremote.settings import Settings
from easyremote.topics.records import ErrorBody, Reply, decode_reply, encode
from easyremote.topics.wire import Origin, parse_call

WAIT_S = 20


class Bench:
    """An executor, the items that it sent, unacknowledged, and the outcomes that it told."""

    def __init__(self, functions: Sequence[Callable[..., Any]], **settings: Any) -> None:
        self.told: queue.SimpleQueue[Reply] = queue.SimpleQueue()
        self.acknowledge: queue.SimpleQueue[Callable[[EasyRemoteError | None], None]] = queue.SimpleQueue()
        self.failures: list[Exception] = []
        self.holds = True
        self.node = AINodeManager("general", [], [Function(one.__name__, one) for one in functions])
        self.executor = Executor(
            Settings(kafka="none:1", node_id="node", **settings),
            self.node,
            answer=lambda _job, outcome: self._tell(outcome),
            wanted=lambda _job: True,
            failed=self.failures.append,
            send_item=self._send,
        )
        self.loop = asyncio.new_event_loop()
        self.thread = threading.Thread(target=self.loop.run_forever, daemon=True)  # a test that fails ends too
        self.thread.start()
        self.executor.start(self.loop)

    def _tell(self, outcome: Outcome) -> None:
        self.told.put(decode_reply(outcome.reply))

    def _send(self, _job: Job, record: bytes, acknowledged: Callable[[EasyRemoteError | None], None]) -> bool:
        if not self.holds:
            return False
        self.told.put(decode_reply(record))
        self.acknowledge.put(acknowledged)
        return True

    def put(self, function: Callable[..., Any], *args: Any, **fields: Any) -> Job:
        body = {"function": function.__name__, "args": args, "id": "c", "stream": True} | fields
        job = Job(parse_call(encode(body), [], Origin("t", 0, 0, 0)), 0, 1, 0, time.time() * 1000)
        self.executor.put(job)
        return job

    def next(self) -> Reply:
        return self.told.get(timeout=WAIT_S)

    def item(self) -> Any:
        reply = self.next()
        assert reply.final is False
        return reply.result

    def acknowledged(self, records: int) -> list[Reply]:
        """Return what comes next; items are acknowledged."""
        told = []
        for _ in range(records):
            told.append(self.next())
            if told[-1].final is False:
                self.acknowledge.get(timeout=WAIT_S)(None)
        return told

    def rest(self) -> tuple[list[Any], Reply]:
        """Acknowledge all that comes until the final reply."""
        items: list[Any] = []
        while True:
            reply = self.next()
            if reply.final is not False:
                return items, reply
            assert reply.seq == len(items)
            items.append(reply.result)
            self.acknowledge.get(timeout=WAIT_S)(None)

    def close(self) -> None:
        assert self.executor.close(WAIT_S)
        self.loop.call_soon_threadsafe(self.loop.stop)
        self.thread.join()
        self.loop.close()
        assert self.told.empty()
        assert self.failures == []


@contextmanager
def bench(*functions: Callable[..., Any], **settings: Any) -> Iterator[Bench]:
    made = Bench(functions, **settings)
    yield made
    made.close()


def error_type(reply: Reply) -> str:
    assert isinstance(reply.error, ErrorBody)
    return reply.error.type


def count(number: int) -> Iterator[int]:
    yield from range(number)


async def count_later(number: int) -> AsyncIterator[int]:
    for one in range(number):
        await asyncio.sleep(0)
        yield one
