"""Quick functions on the thread that read their calls, without a broker."""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

from easyremote.inference.functions import Function
from easyremote.inference.inline import Inline
from easyremote.inference.jobs import Job
from easyremote.inference.lanes import Hand, Lane
from easyremote.inference.queues import Fifo
from easyremote.topics.wire import Origin, parse_call
from executing import WAIT_S, Bench, bench


class Quick:
    """A function that is quick, until its gate is closed."""

    def __init__(self) -> None:
        self.gate = threading.Event()
        self.gate.set()
        self.threads: list[threading.Thread] = []

    def run(self, text: str) -> str:
        self.threads.append(threading.current_thread())
        assert self.gate.wait(WAIT_S)
        return text


@contextmanager
def served(**settings: Any) -> Iterator[tuple[Bench, Quick, threading.Event]]:
    """A bench whose function is known to be quick, and what is set when another thread is to read."""
    quick, relieved = Quick(), threading.Event()
    with bench(functions=[Function("quick", quick.run)], **settings) as one:
        one.executor.start(asyncio.new_event_loop(), relieve=relieved.set)
        one.put("quick", "first", here=True)  # it may take long, as far as is known
        one.replies(1)
        assert quick.threads.pop() is not threading.current_thread()
        learn_quick(one)
        yield one, quick, relieved


def learn_quick(one: Bench) -> None:
    """Have the node forget that the function ever took long."""
    for _ in range(100):
        one.node.stats.record("quick", 0.0, ok=True)


def run_here(one: Bench, quick: Quick, text: str) -> None:
    """Have a call run on this thread, as soon as what ran before has gone from the lane."""
    deadline = time.monotonic() + WAIT_S
    thread = None
    while thread is not threading.current_thread() and time.monotonic() < deadline:
        call_id = one.put("quick", text, here=True)
        assert one.replies(1)[call_id].result == text
        thread = quick.threads[-1]
    assert thread is threading.current_thread()


def test_a_quick_function_runs_on_the_thread_that_read_its_call() -> None:
    with served() as (one, quick, relieved):
        for text in ("a", "b"):
            call_id = one.put("quick", text, here=True)
            assert quick.threads.pop() is threading.current_thread()
            assert one.replies(1)[call_id].result == text
        assert not relieved.is_set()


def test_it_runs_elsewhere_where_its_reader_has_more_in_hand_or_others_of_its_kind_run() -> None:
    with served() as (one, quick, _):
        one.put("quick", "not here")
        one.replies(1)
        assert quick.threads.pop() is not threading.current_thread()
        quick.gate.clear()
        one.put("quick", "holds the lane")
        one.put("quick", "waits behind it", here=True)
        quick.gate.set()
        one.replies(2)
        assert threading.current_thread() not in quick.threads


def test_if_it_takes_long_another_thread_reads_and_it_is_answered_when_it_is_done() -> None:
    with served() as (one, quick, relieved):
        quick.gate.clear()
        reader = threading.Thread(target=one.put, args=("quick", "slow"), kwargs={"here": True})
        reader.start()
        assert relieved.wait(WAIT_S)
        # Whoever reads now goes on, and does not wait for it.
        one.put("quick", "next", here=True)
        quick.gate.set()
        reader.join(WAIT_S)
        assert {reply.result for reply in one.replies(2).values()} == {"slow", "next"}
        assert quick.threads[-1] is not threading.current_thread()
        relieved.clear()
        learn_quick(one)
        run_here(one, quick, "later")
        assert not relieved.is_set()


def test_if_it_hangs_past_its_limit_its_caller_is_told_and_it_is_counted() -> None:
    with served(call_limit_s=0.3) as (one, quick, relieved):
        quick.gate.clear()
        reader = threading.Thread(target=one.put, args=("quick", "stuck"), kwargs={"here": True})
        reader.start()
        assert relieved.wait(WAIT_S)
        (call_id, reply) = next(iter(one.replies(1).items()))
        assert one.error_of(call_id, {call_id: reply}) == "CallTimeout"
        assert one.executor.hung == 1
        quick.gate.set()
        reader.join(WAIT_S)
        assert one.executor.hung == 0
        learn_quick(one)
        run_here(one, quick, "later")


def test_the_lane_counts_a_thread_that_takes_long_until_it_is_done() -> None:
    started, gate = threading.Event(), threading.Event()

    def run(jobs: Sequence[Job], hand: Hand) -> None:
        hand.doing = jobs
        started.set()
        assert gate.wait(WAIT_S)

    lane = Lane("quick", Fifo(1), run, failed=_never)
    relieved: list[int] = []
    inline = Inline(lane, run, relieve=lambda: relieved.append(1))
    call = parse_call(b'{"function": "f", "id": "c"}', [], Origin("t", 0, 0, 0))
    reader = threading.Thread(target=inline.run, args=(Job(call, 0, 1, 0, 0.0),))
    reader.start()
    assert started.wait(WAIT_S)
    inline.look()
    assert (relieved, len(lane.hands)) == ([], 1)
    inline.look()
    assert (relieved, len(lane.hands)) == ([1], 2)
    gate.set()
    reader.join(WAIT_S)
    assert len(lane.hands) == 1
    assert lane.close(WAIT_S)


def _never(error: Exception) -> None:
    raise AssertionError(error)
