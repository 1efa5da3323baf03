"""Calls that never end, of however few functions, leave threads for the calls of others."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from easyremote.inference.functions import Function
from easyremote.inference.jobs import Job
from easyremote.inference.shares import Shares
from easyremote.topics.records import ErrorBody
from easyremote.topics.wire import Origin, parse_call
from executing import WAIT_S, bench


def _job(function: str, number: int = 0, **fields: Any) -> Job:
    text = ", ".join(f'"{name}": {value}' for name, value in fields.items())
    body = f'{{"function": "{function}", "id": "{function}-{number}"{text and ", " + text}}}'
    return Job(parse_call(body.encode(), [], Origin("t", 0, number, 0)), 0, 1, number, float(number))


def _never(job: Job) -> None:
    pytest.fail(f"{job} is not late")


def _shares(expired: Callable[[Job], None] = _never, now_ms: float = 0.0) -> Shares:
    return Shares(expired, lambda: now_ms, threads=8, share=2)


def _take_all(shares: Shares) -> list[str]:
    taken = []
    while shares._may_take():  # `take` would wait
        taken += [job.call.function for job in shares.take() or []]
    return taken


def test_a_function_has_its_share_and_the_next_in_rank_is_taken_in_its_place() -> None:
    shares = _shares()
    for number in range(5):
        shares.put(_job("a", number))
    for number in range(5, 8):
        shares.put(_job("b", number))
    assert _take_all(shares) == ["a", "a", "b", "b"]
    shares.done([_job("b")])
    assert _take_all(shares) == ["b"]


def test_while_half_of_the_threads_are_busy_a_function_that_has_one_begins_no_other() -> None:
    shares = _shares()
    for name in "abcdefgh":
        for number in range(2):
            shares.put(_job(name, number))
    assert sorted(_take_all(shares)) == sorted("aabbcdef")
    shares.done([_job("a")])
    assert _take_all(shares) == ["g"]


def test_what_is_too_late_is_told_though_no_thread_is_free() -> None:
    told: list[Job] = []
    shares = _shares(expired=told.append, now_ms=10_000.0)
    for number in range(2):
        shares.put(_job("a", number))
    assert _take_all(shares) == ["a", "a"]
    shares.put(_job("a", 2, deadline_ms=9_999))
    shares.put(_job("a", 3, deadline_ms=10_001))
    shares.expire()
    assert [job.call.id for job in told] == ["a-2"]


def test_closed_it_gives_out_what_waits_and_then_nothing() -> None:
    shares = _shares()
    for number in range(3):
        shares.put(_job("a", number))
    shares.close()
    assert not shares.put(_job("b"))
    assert _take_all(shares)[:2] == ["a", "a"]
    shares.done([_job("a")])
    assert shares.take() is not None
    assert shares.take() is None


def test_functions_that_sleep_keep_no_other_call_waiting() -> None:
    gate = threading.Event()
    sleepers = [Function(f"sleeps {number}", lambda: gate.wait(WAIT_S)) for number in range(3)]
    with bench(functions=[*sleepers, Function("other", lambda: "other")]) as one:
        for sleeper in sleepers:
            for _ in range(8):
                one.put(sleeper.name)
        for _ in range(10):
            call = one.put("other")
            assert one.replies(1)[call].result == "other"
        late = one.put("sleeps 0", deadline_ms=int(time.time() * 1000) + 200)
        error = one.replies(1)[late].error
        assert isinstance(error, ErrorBody)
        assert error.type == "DeadlineExceeded"
        assert "on this node for its turn" in error.message
        gate.set()
        one.replies(24)


def test_streams_without_an_end_keep_no_other_stream_waiting() -> None:
    gate = threading.Event()

    def endless() -> Iterator[int]:
        while not gate.wait(0.01):
            yield 1

    def three() -> Iterator[int]:
        yield from range(3)

    with bench(functions=[Function("endless", endless), Function("three", three)], max_payload_bytes=1_000_000) as one:
        for _ in range(12):
            one.put("endless")
        call = one.put("three")
        assert one.replies(1)[call].result == [0, 1, 2]
        gate.set()
        one.replies(12)


def test_a_quick_function_that_sleeps_takes_no_more_threads_than_its_share() -> None:
    started, gate = threading.Semaphore(0), threading.Event()

    def quick() -> bool:
        started.release()
        return gate.wait(WAIT_S)

    with bench(functions=[Function("quick", quick)], function_threads=16) as one:
        for _ in range(100):
            one.node.stats.record("quick", 0.0, ok=True)
        for _ in range(30):
            one.put("quick")
        for _ in range(3):  # one on the thread of all quick ones, and two that are the share
            assert started.acquire(timeout=WAIT_S)
        late = one.put("quick", deadline_ms=int(time.time() * 1000) + 300)
        assert late in one.replies(1)
        gate.set()
        one.replies(30)
