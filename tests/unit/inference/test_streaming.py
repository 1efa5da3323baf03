"""Generators through an executor, without a broker."""

from __future__ import annotations

import asyncio
import hashlib
import queue
import threading
import time
from collections.abc import AsyncIterator, Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from easyremote.errors import TopicError
from easyremote.inference.functions import Function
from easyremote.topics.blobs import DirectoryStore
from easyremote.topics.records import Blob, encode
from msgspec import UNSET
from stream_bench import WAIT_S, bench, count, count_later, error_type


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
        told = one.acknowledged(3)
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


@pytest.mark.parametrize("function", [count, count_later])
def test_the_end_is_not_told_before_the_broker_has_all_items(function: Callable[..., Any]) -> None:
    with bench(function, call_limit_s=0.5) as one:
        one.put(function, 3)
        assert [one.item() for _ in range(3)] == [0, 1, 2]
        acknowledge = [one.acknowledge.get(timeout=WAIT_S) for _ in range(3)]
        with pytest.raises(queue.Empty):
            one.told.get(timeout=1.0)
        acknowledge[1](None)
        acknowledge[2](None)
        assert one.told.empty()
        acknowledge[0](None)
        final = one.next()
    assert (final.status, final.seq, final.final) == ("ok", 3, True)


@pytest.mark.parametrize("function", [count, count_later])
def test_a_stream_of_which_the_broker_did_not_take_an_item_does_not_end_well(function: Callable[..., Any]) -> None:
    with bench(function) as one:
        one.put(function, 3)
        assert [one.item() for _ in range(3)] == [0, 1, 2]
        for error in (TopicError("too late"), None, None):
            one.acknowledge.get(timeout=WAIT_S)(error)
        assert error_type(one.next()) == "TopicError"


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
        assert [item.result for item in one.acknowledged(8)] == [1] * 8
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
        told = one.acknowledged(4)
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
