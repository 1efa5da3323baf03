"""Jobs through an executor, without a broker."""

from __future__ import annotations

import queue
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any, ClassVar

import msgspec
import pytest
from easyremote import BaseAIModel
from easyremote.inference.execution import Executor, Job, Outcome
from easyremote.inference.functions import Function
from easyremote.inference.node import AINodeManager
from easyremote.topics.records import Reply, decode_reply
from easyremote.topics.wire import Origin, parse_call

WAIT_S = 20


class Gated(BaseAIModel):
    """Waits at a gate before each pass and notes what the pass holds."""

    name: ClassVar[str] = "gated"
    function: ClassVar[str] = "gated"
    max_batch = 8

    def __init__(self) -> None:
        super().__init__()
        self.gate = threading.Semaphore(0)
        self.entered: queue.SimpleQueue[list[Any]] = queue.SimpleQueue()

    def load_model(self) -> Any:
        return str

    def preprocess(self, input: Any) -> Any:
        if input == "unreadable":
            raise ValueError("unreadable")
        return input

    def inference(self, batch: Sequence[Any]) -> Sequence[Any]:
        self.entered.put(list(batch))
        assert self.gate.acquire(timeout=WAIT_S)
        if "poison" in batch:
            raise RuntimeError("poison")
        return [str(one).upper() for one in batch]

    def postprocess(self, output: Any) -> tuple[Any, float]:
        return output, 1.0


class ByLength(Gated):
    name: ClassVar[str] = "by_length"
    function: ClassVar[str] = "by_length"

    def batch_key(self, input: Any) -> int:
        return len(input) // 10


class Bench:
    """An executor and the outcomes that it told."""

    def __init__(self, models: Sequence[BaseAIModel], functions: Sequence[Function]) -> None:
        self.outcomes: queue.SimpleQueue[tuple[Job, Outcome]] = queue.SimpleQueue()
        self.failures: list[Exception] = []
        self.node = AINodeManager("general", models, functions)
        self.executor = Executor(
            self.node,
            "node",
            100_000,
            answer=lambda job, outcome: self.outcomes.put((job, outcome)),
            wanted=lambda _job: True,
            failed=self.failures.append,
        )
        self._count = 0

    def put(self, function: str, *args: Any, **fields: Any) -> str:
        self._count += 1
        body = {"function": function, "args": args, "id": f"c-{self._count}"} | fields
        call = parse_call(msgspec.json.encode(body), [], Origin("t", 0, self._count, 0))
        self.executor.put(Job(call, 0, 1, self._count, time.time() * 1000))
        return call.id

    def replies(self, count: int) -> dict[str, Reply]:
        got = [self.outcomes.get(timeout=WAIT_S) for _ in range(count)]
        replies = {job.call.id: decode_reply(outcome.reply) for job, outcome in got}
        assert len(replies) == count
        return replies


@contextmanager
def bench(models: Sequence[BaseAIModel] = (), functions: Sequence[Function] = ()) -> Iterator[Bench]:
    made = Bench(models, functions)
    yield made
    assert made.executor.close(WAIT_S)
    assert made.outcomes.empty()
    assert made.failures == []


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
        assert error.type == "UnknownFunction"
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
