"""An executor without a broker, and a model that waits at a gate."""

from __future__ import annotations

import asyncio
import queue
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any, ClassVar

import msgspec
from easyremote import BaseAIModel
from easyremote.inference.execution import Executor, Job, Outcome
from easyremote.inference.functions import Function
from easyremote.inference.node import AINodeManager
from easyremote.settings import Settings
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


class Bench:
    """An executor and the outcomes that it told."""

    def __init__(self, models: Sequence[BaseAIModel], functions: Sequence[Function], **settings: Any) -> None:
        self.outcomes: queue.SimpleQueue[tuple[Job, Outcome]] = queue.SimpleQueue()
        self.failures: list[Exception] = []
        self.failed = threading.Event()
        self.node = AINodeManager("general", models, functions)
        self.executor = Executor(
            Settings(kafka="none:1", node_id="node", **settings),
            self.node,
            answer=lambda job, outcome: self.outcomes.put((job, outcome)),
            wanted=lambda _job: True,
            failed=self._fail,
        )
        self._count = 0
        self._jobs: dict[str, Job] = {}
        self.poisonous: list[str] = []

    def _fail(self, error: Exception) -> None:
        self.failures.append(error)
        self.failed.set()

    def cancel(self, call_id: str) -> None:
        self.executor.cancel(self._jobs[call_id])

    @staticmethod
    def error_of(call_id: str, replies: dict[str, Reply]) -> str:
        error = replies[call_id].error
        assert not isinstance(error, msgspec.UnsetType)
        return error.type

    def put(self, function: str, *args: Any, **fields: Any) -> str:
        self._count += 1
        body = {"function": function, "args": args, "id": f"c-{self._count}"} | fields
        call = parse_call(msgspec.json.encode(body), [], Origin("t", 0, self._count, 0))
        job = self._jobs[call.id] = Job(call, 0, 1, self._count, time.time() * 1000)
        self.executor.put(job)
        return call.id

    def replies(self, count: int) -> dict[str, Reply]:
        got = [self.outcomes.get(timeout=WAIT_S) for _ in range(count)]
        self.poisonous = [job.call.id for job, outcome in got if outcome.poison]
        replies = {job.call.id: decode_reply(outcome.reply) for job, outcome in got}
        assert len(replies) == count
        return replies


@contextmanager
def bench(models: Sequence[BaseAIModel] = (), functions: Sequence[Function] = (), **settings: Any) -> Iterator[Bench]:
    made = Bench(models, functions, **settings)
    yield made
    assert made.executor.close(WAIT_S)
    assert made.outcomes.empty()
    assert made.failures == []


@contextmanager
def event_loop() -> Iterator[asyncio.AbstractEventLoop]:
    loop = asyncio.new_event_loop()
    thread = threading.Thread(target=loop.run_forever, daemon=True)  # a test that fails ends too
    thread.start()
    yield loop
    loop.call_soon_threadsafe(loop.stop)
    thread.join()
    loop.close()
