"""Generators through an executor, without a broker; and what a caller makes of their records."""

from __future__ import annotations

import asyncio
import hashlib
import queue
import threading
import time
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from easyremote.errors import BlobStoreError, CallError, EasyRemoteError, RemoteError, TopicError
from easyremote.inference.execution import Executor, Job, Outcome
from easyremote.inference.functions import Function
from easyremote.inference.items import AsyncItems, Items
from easyremote.inference.node import AINodeManager
from easyremote.settings import Settings
from easyremote.topics.blobs import DirectoryStore
from easyremote.topics.records import Blob, ErrorBody, Reply, decode_reply, encode
from easyremote.topics.replying import NO_TIME
from easyremote.topics.wire import Origin, parse_call
from msgspec import UNSET, structs

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
        self.thread = threading.Thread(target=self.loop.run_forever)
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


def test_generators_of_both_kinds_are_told_from_plain_functions() -> None:
    async def coroutine() -> None: ...

    kinds = [Function("f", one) for one in (len, coroutine, count, count_later)]
    assert [(one.is_stream, one.is_async) for one in kinds] == [
        (False, False),
        (False, True),
        (True, False),
        (True, True),
    ]


@pytest.mark.parametrize("function", [count, count_later])
def test_items_come_one_by_one_and_the_end_says_how_many(function: Callable[..., Any]) -> None:
    with bench(function) as one:
        one.put(function, 200)
        items, final = one.rest()
    assert items == list(range(200))
    assert (final.status, final.seq, final.final) == ("ok", 200, True)
    assert b'"result"' not in encode(final)


@pytest.mark.parametrize("function", [count, count_later])
def test_without_stream_the_items_come_as_one_list(function: Callable[..., Any]) -> None:
    with bench(function) as one:
        one.put(function, 3, stream=False)
        reply = one.next()
    assert reply.result == [0, 1, 2]
    assert b'"final"' not in encode(reply)


def test_an_endless_generator_without_stream_is_stopped_at_the_largest_reply() -> None:
    closed = threading.Event()

    def endless() -> Iterator[str]:
        try:
            while True:
                yield "x" * 100
        finally:
            closed.set()

    with bench(endless, max_payload_bytes=1_024) as one:
        one.put(endless, stream=False)
        assert error_type(one.next()) == "PayloadTooLarge"
        assert closed.is_set()


def test_a_plain_function_asked_for_a_stream_gives_its_one_reply() -> None:
    def plain() -> int:
        return 7

    with bench(plain) as one:
        one.put(plain)
        reply = one.next()
    assert reply.result == 7
    assert b'"final"' not in encode(reply)


def test_items_below_the_number_asked_for_are_made_but_not_sent() -> None:
    with bench(count) as one:
        one.put(count, 5, from_seq=3)
        told = [one.next() for _ in range(3)]
    assert [(reply.seq, reply.result) for reply in told[:2]] == [(3, 3), (4, 4)]
    assert (told[2].seq, told[2].final) == (5, True)


@pytest.mark.parametrize("is_async", [False, True])
def test_an_error_in_the_middle_is_the_final_reply_after_the_items(is_async: bool) -> None:
    def breaks() -> Iterator[int]:
        yield 1
        raise LookupError("no more")

    async def breaks_later() -> AsyncIterator[int]:
        yield 1
        raise LookupError("no more")

    function: Callable[..., Any] = breaks_later if is_async else breaks
    with bench(function) as one:
        one.put(function)
        items, final = one.rest()
    assert items == [1]
    assert (error_type(final), final.seq, final.final) == ("LookupError", 1, True)


def test_an_item_without_a_form_in_json_ends_the_stream_with_its_number() -> None:
    def strange() -> Iterator[object]:
        yield 1
        yield object()

    with bench(strange) as one:
        one.put(strange)
        items, final = one.rest()
    assert (items, error_type(final), final.seq) == ([1], "UnencodableResult", 1)


@pytest.mark.parametrize("is_async", [False, True])
def test_a_withdrawn_stream_is_closed_and_sends_nothing_after_its_final_reply(is_async: bool) -> None:
    closed, gate = threading.Event(), threading.Event()

    def endless() -> Iterator[int]:
        try:
            yield 1
            assert gate.wait(WAIT_S)
            yield 2
        finally:
            closed.set()

    async def endless_later() -> AsyncIterator[int]:
        try:
            yield 1
            await asyncio.Event().wait()
        finally:
            closed.set()

    function: Callable[..., Any] = endless_later if is_async else endless
    with bench(function) as one:
        job = one.put(function)
        assert one.item() == 1
        one.executor.cancel(job)
        final = one.next()
        gate.set()
        assert closed.wait(WAIT_S)
    assert (error_type(final), final.seq) == ("CallCancelled", 1)


def test_a_deadline_that_passes_between_items_ends_the_stream() -> None:
    def slow(deadline_ms: int) -> Iterator[int]:
        yield 1
        while time.time() * 1000 <= deadline_ms:
            threading.Event().wait(0.01)
        yield 2

    deadline_ms = int(time.time() * 1000) + 1_000
    with bench(slow) as one:
        one.put(slow, deadline_ms, deadline_ms=deadline_ms)
        items, final = one.rest()
    assert (items, error_type(final), final.seq) == ([1], "DeadlineExceeded", 1)


@pytest.mark.parametrize("is_async", [False, True])
def test_a_fast_generator_waits_for_the_broker_after_64_items_and_may_be_withdrawn_there(is_async: bool) -> None:
    made: list[int] = []
    closed = threading.Event()

    def endless() -> Iterator[int]:
        try:
            while True:
                made.append(1)
                yield len(made)
        finally:
            closed.set()

    async def endless_later() -> AsyncIterator[int]:
        try:
            while True:
                made.append(1)
                yield len(made)
        finally:
            closed.set()

    function: Callable[..., Any] = endless_later if is_async else endless
    # While it waits it is not the function that hangs, however short its limit is.
    with bench(function, call_limit_s=0.5) as one:
        job = one.put(function)
        assert [one.item() for _ in range(64)] == list(range(1, 65))
        with pytest.raises(queue.Empty):
            one.told.get(timeout=1.0)
        assert len(made) == 64
        for _ in range(32):
            one.acknowledge.get(timeout=WAIT_S)(None)
        assert [one.item() for _ in range(32)] == list(range(65, 97))
        one.executor.cancel(job)
        assert error_type(one.next()) == "CallCancelled"
        assert closed.wait(WAIT_S)
        assert len(made) == 96


@pytest.mark.parametrize("is_async", [False, True])
def test_the_limit_is_for_the_silence_between_items_and_not_for_the_whole(is_async: bool) -> None:
    gate = threading.Event()

    def beats() -> Iterator[int]:
        for one in range(12):
            threading.Event().wait(0.1)
            yield one
        gate.wait(WAIT_S)

    async def beats_later() -> AsyncIterator[int]:
        for one in range(12):
            await asyncio.sleep(0.1)
            yield one
        await asyncio.Event().wait()

    function: Callable[..., Any] = beats_later if is_async else beats
    with bench(function, call_limit_s=1.0) as one:
        one.put(function)
        items, final = one.rest()
        gate.set()
    assert items == list(range(12))
    assert (error_type(final), final.seq) == ("CallTimeout", 12)


def test_a_stream_whose_partition_has_gone_is_closed_and_tells_nothing() -> None:
    closed, gate = threading.Event(), threading.Event()

    def two() -> Iterator[int]:
        try:
            yield 1
            assert gate.wait(WAIT_S)
            yield 2
        finally:
            closed.set()

    with bench(two) as one:
        one.put(two)
        assert one.item() == 1
        one.holds = False
        gate.set()
        assert closed.wait(WAIT_S)


def test_a_stream_whose_topic_refuses_an_item_ends_with_that() -> None:
    gate = threading.Event()

    def two() -> Iterator[int]:
        yield 1
        assert gate.wait(WAIT_S)
        yield 2

    with bench(two) as one:
        one.put(two)
        assert one.item() == 1
        one.acknowledge.get(timeout=WAIT_S)(TopicError("no such topic"))
        gate.set()
        assert error_type(one.next()) == "TopicError"


def test_streams_do_not_keep_plain_functions_from_their_threads() -> None:
    gate = threading.Event()

    def waits() -> Iterator[int]:
        yield 1
        assert gate.wait(WAIT_S)

    def plain() -> str:
        return "done"

    with bench(waits, plain) as one:
        for _ in range(8):
            one.put(waits)
        assert [one.item() for _ in range(8)] == [1] * 8
        one.put(plain)
        assert one.next().result == "done"
        gate.set()
        assert [one.next().seq for _ in range(8)] == [1] * 8


def pages(sizes: list[int]) -> Iterator[str]:
    for size in sizes:
        yield "x" * size


async def pages_later(sizes: list[int]) -> AsyncIterator[str]:
    for size in sizes:
        yield "x" * size


@pytest.mark.parametrize("function", [pages, pages_later])
def test_a_large_item_goes_by_the_store_between_the_others_and_never_on_the_event_loop(
    function: Callable[..., Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    stored: list[tuple[bytes, threading.Thread]] = []

    def put(self: DirectoryStore, key: str, content: bytes) -> None:
        stored.append((content, threading.current_thread()))

    monkeypatch.setattr(DirectoryStore, "put", put)
    with bench(function, claim_bytes=1_024, data_dir=tmp_path) as one:
        one.put(function, [1, 5_000, 2], claim_result=True)
        told = [one.next() for _ in range(4)]
        ((content, thread),) = stored
        assert thread is not one.thread
    assert content == b'"' + b"x" * 5_000 + b'"'
    blob = Blob(hashlib.sha256(content).hexdigest(), len(content))
    assert [(reply.seq, reply.result, reply.result_claim) for reply in told] == [
        (0, "x", UNSET),
        (1, UNSET, blob),
        (2, "xx", UNSET),
        (3, UNSET, UNSET),
    ]


def test_a_caller_that_does_not_know_claims_gets_large_items_in_their_records(tmp_path: Path) -> None:
    with bench(pages, claim_bytes=1_024, data_dir=tmp_path) as one:
        one.put(pages, [5_000])
        assert one.rest()[0] == ["x" * 5_000]


@pytest.mark.parametrize("function", [pages, pages_later])
def test_an_item_that_is_too_large_or_not_taken_by_the_store_ends_the_stream_with_its_number(
    function: Callable[..., Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(self: DirectoryStore, key: str, content: bytes) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(DirectoryStore, "put", full)
    with bench(function, claim_bytes=1_024, max_blob_bytes=4_000, data_dir=tmp_path) as one:
        for size, error in ((3_000, "BlobStoreError"), (5_000, "PayloadTooLarge")):
            one.put(function, [1, size, 1], claim_result=True)
            items, final = one.rest()
            assert (items, error_type(final), final.seq) == (["x"], error, 1)


class Withdrawals:
    """Stands for a session: notes what is abandoned, and has the store's blobs."""

    def __init__(self, blobs: dict[str, str] | None = None) -> None:
        self.ids: list[str] = []
        self._blobs = blobs or {}

    def fetch(self, blob: Blob, what: str) -> str:
        try:
            return self._blobs[blob.sha256]
        except KeyError as error:
            raise BlobStoreError(f"the {what} is not in the store") from error

    def abandon(self, call_id: str) -> None:
        self.ids.append(call_id)


def record(seq: int | None, result: Any = None, *, final: bool | None = False, error: ErrorBody | None = None) -> Reply:
    fields: dict[str, Any] = {"result": result} if error is None and final is not True else {}
    if seq is not None:
        fields |= {"seq": seq, "final": final}
    if error is not None:
        fields["error"] = error
    return Reply(
        id="c",
        function="f",
        status="ok" if error is None else "error",
        node_id="n",
        model=None,
        model_version=None,
        attempts=1,
        timings_ms=NO_TIME,
        **fields,
    )


def items(from_seq: int = 0) -> Items:
    return Items(Withdrawals(), "f", from_seq)  # type: ignore[arg-type]  # all that it uses of a session


def test_items_that_a_second_node_makes_again_reach_the_caller_once_and_in_order() -> None:
    received = items()
    for seq in (0, 1, 2, 0, 1, 3, 2, 3, 4):
        received.come(record(seq, f"item {seq}"))
    received.end(record(5, final=True))
    assert list(received) == [f"item {seq}" for seq in range(5)]
    assert list(received) == []


def test_the_result_of_a_plain_function_is_the_only_item() -> None:
    received = items()
    received.end(record(None, "all"))
    assert list(received) == ["all"]


def test_an_error_is_raised_after_the_items_that_came() -> None:
    received = items()
    received.come(record(0, "first"))
    received.end(record(1, final=True, error=ErrorBody("KeyError", "gone")))
    assert next(received) == "first"
    with pytest.raises(RemoteError, match="gone"):
        next(received)


def test_an_end_whose_items_went_to_an_earlier_call_says_how_to_get_them() -> None:
    received = items(from_seq=2)
    received.end(record(5, final=True))
    with pytest.raises(CallError, match=r"items 2 to 4 of f .* another id and from_seq=2"):
        next(received)


def test_leaving_the_items_withdraws_the_call() -> None:
    session = Withdrawals()
    received = Items(session, "f", 0)  # type: ignore[arg-type]  # as above
    received.id = "c"
    received.come(record(0, "first"))
    with received:
        assert next(received) == "first"
    assert session.ids == ["c"]
    with pytest.raises(StopIteration):
        next(received)


def large(seq: int, sha256: str) -> Reply:
    return structs.replace(record(seq), result=UNSET, result_claim=Blob(sha256, 1))


def test_a_large_item_is_fetched_in_its_place() -> None:
    received = Items(Withdrawals({"k": "large"}), "f", 0)  # type: ignore[arg-type]  # as above
    for one in (record(0, "first"), large(1, "k"), large(1, "k"), record(2, "last"), record(3, final=True)):
        received.come(one) if one.final is False else received.end(one)
    assert list(received) == ["first", "large", "last"]
    assert received.next_seq == 3


def test_a_large_item_that_is_not_to_be_had_ends_the_stream_and_can_be_asked_for_again() -> None:
    session = Withdrawals()
    received = Items(session, "f", 0)  # type: ignore[arg-type]  # as above
    received.id = "c"
    for one in (record(0, "first"), large(1, "gone"), record(2, "last")):
        received.come(one)
    assert next(received) == "first"
    with pytest.raises(BlobStoreError, match="item 1 of f"):
        next(received)
    assert list(received) == []
    assert (received.next_seq, session.ids) == (1, ["c"])


def test_an_asynchronous_caller_has_large_items_fetched_in_their_place_too() -> None:
    async def read(session: Any) -> list[Any]:
        async def send(received: AsyncItems) -> str:
            for one in (record(0, "first"), large(1, "k"), record(2, "last"), large(3, "gone")):
                received.come(one)
            return "c"

        received = AsyncItems(session, asyncio.get_running_loop(), "f", 0, send)
        got = [await anext(received) for _ in range(3)]
        with pytest.raises(BlobStoreError, match="item 3 of f"):
            await anext(received)
        assert [one async for one in received] == []
        return [*got, received.next_seq]

    session = Withdrawals({"k": "large"})
    assert asyncio.run(asyncio.wait_for(read(session), WAIT_S)) == ["first", "large", "last", 3]
    assert session.ids == ["c"]


def test_an_asynchronous_caller_gets_each_item_as_it_comes_from_another_thread() -> None:
    async def read() -> list[Any]:
        got: list[Any] = []

        def come(received: AsyncItems) -> None:
            for seq in range(1_000):
                received.come(record(seq, seq))
            received.end(record(1_000, final=True))

        async def send(received: AsyncItems) -> str:
            threading.Thread(target=come, args=(received,)).start()
            return "c"

        session: Any = Withdrawals()  # all that it uses of a session
        received = AsyncItems(session, asyncio.get_running_loop(), "f", 0, send)
        async for item in received:
            got.append(item)  # noqa: PERF401  # as a caller does
        return got

    assert asyncio.run(asyncio.wait_for(read(), WAIT_S)) == list(range(1_000))
