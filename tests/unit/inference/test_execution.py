"""Jobs through an executor, without a broker."""

from __future__ import annotations

import asyncio
import queue
import threading
import time
from collections.abc import Sequence
from typing import Any, ClassVar

import msgspec
import pytest
from easyremote.inference.functions import Function
from executing import WAIT_S, Bench, Gated, bench, event_loop


class ByLength(Gated):
    name: ClassVar[str] = "by_length"
    function: ClassVar[str] = "by_length"

    def batch_key(self, input: Any) -> int:
        return len(input) // 10


def test_an_idle_model_takes_a_call_at_once_and_then_all_that_waits_by_priority_and_deadline() -> None:
    model = Gated()
    with bench([model]) as one:
        one.put("gated", "first")
        assert model.entered.get(timeout=WAIT_S) == ["first"]
        later = int(time.time() * 1000) + 600_000
        for number in range(7):
            one.put("gated", f"low {number}", priority="low")
        one.put("gated", "later", deadline_ms=later)
        one.put("gated", "sooner", deadline_ms=later - 1)
        one.put("gated", "high", priority="high")
        model.gate.release(3)
        assert model.entered.get(timeout=WAIT_S) == ["high", "sooner", "later", *(f"low {n}" for n in range(5))]
        assert model.entered.get(timeout=WAIT_S) == ["low 5", "low 6"]
        assert all(reply.status == "ok" for reply in one.replies(11).values())


def test_a_call_whose_deadline_passes_while_it_waits_is_told_so_and_not_run() -> None:
    model = Gated()
    with bench([model]) as one:
        one.put("gated", "first")
        assert model.entered.get(timeout=WAIT_S) == ["first"]
        late = one.put("gated", "late", deadline_ms=int(time.time() * 1000))
        one.put("gated", "in time")
        model.gate.release(2)
        assert model.entered.get(timeout=WAIT_S) == ["in time"]
        replies = one.replies(3)
        error = replies.pop(late).error
        assert not isinstance(error, msgspec.UnsetType)
        assert error.type == "DeadlineExceeded"
        assert {reply.status for reply in replies.values()} == {"ok"}


def test_inputs_of_different_keys_do_not_share_a_pass() -> None:
    model = ByLength()
    with bench([model]) as one:
        one.put("by_length", "first")
        assert model.entered.get(timeout=WAIT_S) == ["first"]
        for text in ("a", "b" * 40, "c", "d" * 41):
            one.put("by_length", text)
        model.gate.release(3)
        assert model.entered.get(timeout=WAIT_S) == ["a", "c"]
        assert model.entered.get(timeout=WAIT_S) == ["b" * 40, "d" * 41]
        one.replies(5)


def test_a_poison_input_among_64_fails_alone_and_the_others_are_right() -> None:
    model = Gated()
    model.max_batch = 64
    with bench([model]) as one:
        one.put("gated", "first")
        assert model.entered.get(timeout=WAIT_S) == ["first"]
        sent = {one.put("gated", f"text {n}" if n != 20 else "poison"): n for n in range(63)}
        unreadable = one.put("gated", "unreadable")
        model.gate.release(1_000)
        replies = one.replies(65)
        assert [sent[call_id] for call_id in one.poisonous] == [20]
        assert replies.pop(unreadable).status == "error"
        failed = [call_id for call_id, reply in replies.items() if reply.status == "error"]
        assert [sent[call_id] for call_id in failed] == [20]
        assert {replies[call_id].result["result"] for call_id, n in sent.items() if n != 20} == {
            f"TEXT {n}" for n in range(63) if n != 20
        }


def test_a_model_is_removed_when_what_waits_is_done_and_its_later_calls_are_told() -> None:
    model = Gated()
    with bench([model]) as one:
        one.put("gated", "first")
        one.put("gated", "waits")
        model.gate.release(2)
        assert one.executor.remove_model("gated", WAIT_S)
        assert {reply.status for reply in one.replies(2).values()} == {"ok"}
        late = one.put("gated", "late")
        error = one.replies(1)[late].error
        assert not isinstance(error, msgspec.UnsetType)
        assert error.type == "NotOfferedHere"
        one.executor.add_model(model)
        model.gate.release()
        again = one.put("gated", "again")
        assert one.replies(1)[again].status == "ok"


@pytest.mark.parametrize("priority", ["high", "low"])
def test_functions_wait_by_priority_too(priority: str) -> None:
    gate, ran = threading.Semaphore(0), queue.SimpleQueue[str]()

    def slow(name: str) -> str:
        ran.put(name)
        assert gate.acquire(timeout=WAIT_S)
        return name

    with bench(functions=[Function("slow", slow)]) as one:
        for _ in range(4):
            one.put("slow", "holds a thread")
        assert [ran.get(timeout=WAIT_S) for _ in range(4)] == ["holds a thread"] * 4
        one.put("slow", "normal")
        one.put("slow", "other", priority=priority)
        gate.release()
        assert ran.get(timeout=WAIT_S) == ("other" if priority == "high" else "normal")
        gate.release(5)
        one.replies(6)


def test_a_call_that_waits_is_withdrawn_and_never_run() -> None:
    model = Gated()
    with bench([model]) as one:
        one.put("gated", "first")
        assert model.entered.get(timeout=WAIT_S) == ["first"]
        withdrawn = one.put("gated", "withdrawn")
        one.cancel(withdrawn)
        assert one.error_of(withdrawn, one.replies(1)) == "CallCancelled"
        one.put("gated", "stays")
        model.gate.release(2)
        assert model.entered.get(timeout=WAIT_S) == ["stays"]
        one.replies(2)


def test_a_call_withdrawn_before_it_came_is_not_run() -> None:
    def never() -> None:
        pytest.fail("it was run")

    with bench(functions=[Function("never", never)]) as one, event_loop() as loop:
        one.executor.start(loop, {"c-1"})
        assert one.put("never") == "c-1"
        assert one.error_of("c-1", one.replies(1)) == "CallCancelled"


def test_a_function_that_runs_goes_on_but_its_caller_is_told_at_once_and_once() -> None:
    gate, started = threading.Semaphore(0), threading.Event()

    def slow() -> None:
        started.set()
        assert gate.acquire(timeout=WAIT_S)

    with bench(functions=[Function("slow", slow)]) as one:
        call_id = one.put("slow")
        assert started.wait(WAIT_S)
        one.cancel(call_id)
        one.cancel(call_id)
        assert one.error_of(call_id, one.replies(1)) == "CallCancelled"
        gate.release()  # the end of `bench` sees that nothing more is told


def test_a_coroutine_that_runs_is_cancelled() -> None:
    started, stopped = threading.Event(), threading.Event()

    async def slow() -> None:
        started.set()
        try:
            await asyncio.Event().wait()
        finally:
            stopped.set()

    with bench(functions=[Function("slow", slow)]) as one, event_loop() as loop:
        one.executor.start(loop)
        call_id = one.put("slow")
        assert started.wait(WAIT_S)
        one.cancel(call_id)
        assert stopped.wait(WAIT_S)
        assert one.error_of(call_id, one.replies(1)) == "CallCancelled"


def test_a_coroutine_past_its_limit_is_cancelled_and_its_caller_told() -> None:
    stopped = threading.Event()

    async def slow() -> None:
        try:
            await asyncio.Event().wait()
        finally:
            stopped.set()

    with bench(functions=[Function("slow", slow, limit_s=0.2)]) as one, event_loop() as loop:
        one.executor.start(loop)
        call_id = one.put("slow")
        assert one.error_of(call_id, one.replies(1)) == "CallTimeout"
        assert stopped.wait(WAIT_S)


def test_a_function_that_hangs_is_told_and_what_waits_behind_it_runs_on_another_thread() -> None:
    gate = threading.Event()

    def sometimes(hangs: bool) -> str:
        if hangs:
            gate.wait(WAIT_S)
        return "done"

    with bench(functions=[Function("sometimes", sometimes, limit_s=0.2)]) as one:
        for _ in range(50):
            one.node.stats.record("sometimes", 0.00001, ok=True)  # so that all share the quick lane
        hangs = one.put("sometimes", True)
        behind = [one.put("sometimes", False) for _ in range(5)]
        replies = one.replies(6)
        assert one.error_of(hangs, replies) == "CallTimeout"
        assert {replies[call_id].result for call_id in behind} == {"done"}
        assert one.executor.hung == 1
        gate.set()  # the end of `bench` sees that what comes back late is not told


def test_of_a_pass_that_hangs_only_the_call_to_blame_is_told_so() -> None:
    class Hanging(Gated):
        def inference(self, batch: Sequence[Any]) -> Sequence[Any]:
            self.entered.put(list(batch))
            assert self.gate.acquire(timeout=WAIT_S)
            if "endless" in batch:
                never.wait(WAIT_S)
            return batch

    never = threading.Event()
    model = Hanging()
    model.limit_s = 0.3
    with bench([model]) as one:
        one.put("gated", "first")
        assert model.entered.get(timeout=WAIT_S) == ["first"]
        sent = {one.put("gated", text): text for text in ("a", "endless", "b")}
        model.gate.release(1_000)
        replies = one.replies(4)
        assert {sent[one_id] for one_id in sent if replies[one_id].status == "ok"} == {"a", "b"}
        assert (
            one.error_of(next(one_id for one_id, text in sent.items() if text == "endless"), replies) == "CallTimeout"
        )
        never.set()


def test_a_node_where_too_much_hangs_asks_for_its_end() -> None:
    gate = threading.Event()
    one = Bench([], [Function("hangs", lambda: gate.wait(WAIT_S))], hung_limit=2, call_limit_s=0.2)
    one.put("hangs")
    one.put("hangs")
    one.replies(2)
    assert one.failed.wait(WAIT_S)
    assert "EASYREMOTE_HUNG_LIMIT" in str(one.failures[0])
    gate.set()
    assert one.executor.close(WAIT_S)
