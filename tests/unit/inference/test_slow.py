"""A quick function that takes long for once, without a broker: it shares its thread with all other quick ones."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from easyremote.inference.functions import Function
from executing import WAIT_S, Bench, bench

OTHERS = 20


@contextmanager
def served(**settings: Any) -> Iterator[tuple[Bench, threading.Event]]:
    """A bench with a quick function, which waits for the gate if it is given "slow"."""
    gate = threading.Event()

    def quick(text: str) -> str:
        assert text != "slow" or gate.wait(WAIT_S)
        return text

    with bench(functions=[Function("quick", quick)], **settings) as one:
        for _ in range(100):
            one.node.stats.record("quick", 0.0, ok=True)
        yield one, gate


def test_it_holds_up_no_other_call_and_is_answered_when_it_is_done() -> None:
    with served() as (one, gate):
        slow = one.put("quick", "slow")
        others = {one.put("quick", f"other {number}") for number in range(OTHERS)}
        replies = one.replies(OTHERS)
        assert set(replies) == others
        assert {reply.status for reply in replies.values()} == {"ok"}
        gate.set()
        assert one.replies(1)[slow].result == "slow"


def test_several_of_them_hold_up_no_other_call() -> None:
    with served() as (one, gate):
        for _ in range(3):
            one.put("quick", "slow")
            one.put("quick", "other")
            assert [reply.result for reply in one.replies(1).values()] == ["other"]
        gate.set()
        assert [reply.result for reply in one.replies(3).values()] == ["slow"] * 3


def test_it_is_told_of_and_counted_when_it_passes_its_limit() -> None:
    before = set(threading.enumerate())
    with served(call_limit_s=0.5) as (one, gate):
        slow = one.put("quick", "slow")
        one.put("quick", "other")
        assert [reply.result for reply in one.replies(1).values()] == ["other"]
        assert one.executor.hung == 0  # it takes long, and that is all
        assert one.error_of(slow, one.replies(1)) == "CallTimeout"
        assert one.executor.hung == 1
        started = set(threading.enumerate()) - before
        assert sum(thread.name.startswith("lane quick") for thread in started) == 2
        gate.set()
        one.put("quick", "after it")
        assert [reply.result for reply in one.replies(1).values()] == ["after it"]
