"""Large arguments and results through an executor, without a broker."""

from __future__ import annotations

import asyncio
import queue
import threading
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, ClassVar

import msgspec
import pytest
from easyremote import BaseAIModel
from easyremote.errors import BlobStoreError
from easyremote.inference.execution import Executor, Job, Outcome
from easyremote.inference.functions import Function
from easyremote.inference.node import AINodeManager
from easyremote.settings import Settings
from easyremote.topics.blobs import DirectoryStore
from easyremote.topics.claims import Arguments, ClaimDesk
from easyremote.topics.records import Blob, Request, decode_reply, encode
from easyremote.topics.wire import Origin, parse_call
from msgspec import Raw

WAIT_S = 20
LARGE = "x" * 5_000


class Lengths(BaseAIModel):
    name: ClassVar[str] = "lengths"
    function: ClassVar[str] = "lengths"

    def __init__(self) -> None:
        super().__init__()
        self.asked: list[int] = []

    def load_model(self) -> Any:
        return len

    def batch_key(self, input: Any) -> int:
        self.asked.append(len(input))
        return 0

    def preprocess(self, input: Any) -> Any:
        return input

    def inference(self, batch: Sequence[Any]) -> Sequence[Any]:
        return [len(one) for one in batch]

    def postprocess(self, output: Any) -> tuple[Any, float]:
        return output, 1.0


def echo(text: str) -> str:
    return text


def repeat(text: str) -> str:
    return text * 5


async def echo_async(text: str) -> str:
    await asyncio.sleep(0.05)  # so that it ends on the loop
    return text


class Bench:
    def __init__(self, data_dir: Path) -> None:
        self.settings = Settings(kafka="none:1", node_id="node", data_dir=data_dir, claim_bytes=1_024)
        self.desk = ClaimDesk(self.settings)
        self.outcomes: queue.SimpleQueue[tuple[str, Outcome]] = queue.SimpleQueue()
        self.lengths = Lengths()
        functions = [Function(one.__name__, one) for one in (echo, repeat, echo_async)]
        functions.append(Function("repeat_again", repeat, retry_on=(BlobStoreError,)))
        node = AINodeManager("general", [self.lengths], functions)
        self.executor = Executor(
            self.settings,
            node,
            answer=lambda _job, outcome: self.outcomes.put((threading.current_thread().name, outcome)),
            wanted=lambda _job: True,
            failed=lambda error: pytest.fail(str(error)),
        )
        self.loop = asyncio.new_event_loop()
        self.thread = threading.Thread(target=self.loop.run_forever, name="the loop")
        self.thread.start()
        self.executor.start(self.loop)

    def run(self, function: str, text: str, *, claim_result: bool = True) -> tuple[str, Outcome]:
        given = Arguments([Raw(encode(text))], {})
        sent = self.desk.check_in(function, given) if self.desk.has_large(given) else given
        request = Request(function=function, args=sent.args, claims=sent.claims, claim_result=claim_result)
        call = parse_call(encode(request), [], Origin("t", 0, 0, 0))
        self.executor.put(Job(call, 0, 1, 0, time.time() * 1000))
        return self.outcomes.get(timeout=WAIT_S)

    def close(self) -> None:
        assert self.executor.close(WAIT_S)
        self.loop.call_soon_threadsafe(self.loop.stop)
        self.thread.join()
        self.loop.close()


@pytest.fixture
def bench(tmp_path: Path) -> Iterator[Bench]:
    made = Bench(tmp_path)
    yield made
    made.close()


@pytest.mark.parametrize("function", ["echo", "echo_async"])
def test_a_large_argument_and_result_go_by_the_store_and_never_on_the_event_loop(bench: Bench, function: str) -> None:
    thread, outcome = bench.run(function, LARGE)
    reply = decode_reply(outcome.reply)
    assert isinstance(reply.result_claim, Blob)
    assert b'"result":' not in outcome.reply
    assert msgspec.json.decode(bench.desk.get(reply.result_claim, "result")) == LARGE
    assert thread != "the loop"


def test_a_small_result_stays_in_the_record(bench: Bench) -> None:
    reply = decode_reply(bench.run("echo", "small")[1].reply)
    assert (reply.result, reply.result_claim) == ("small", msgspec.UNSET)


def test_a_caller_that_does_not_know_claims_gets_its_result_in_the_record(bench: Bench) -> None:
    assert decode_reply(bench.run("echo", LARGE, claim_result=False)[1].reply).result == LARGE


def test_a_model_computes_a_large_argument(bench: Bench) -> None:
    assert decode_reply(bench.run("lengths", LARGE)[1].reply).result["result"] == len(LARGE)
    assert decode_reply(bench.run("lengths", "small")[1].reply).result["result"] == 5
    assert bench.lengths.asked == [5]  # the other one would have had to be fetched where calls come in


@pytest.mark.parametrize(("function", "again"), [("repeat", False), ("repeat_again", True)])
def test_a_result_that_the_store_does_not_take_is_an_error_and_run_again_only_if_the_function_says_so(
    bench: Bench, monkeypatch: pytest.MonkeyPatch, function: str, again: bool
) -> None:
    def full(self: DirectoryStore, key: str, content: bytes) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(DirectoryStore, "put", full)
    outcome = bench.run(function, "x" * 900)[1]
    error = decode_reply(outcome.reply).error
    assert not isinstance(error, msgspec.UnsetType)
    assert (error.type, "No space left" in error.message) == ("BlobStoreError", True)
    assert (error.retriable, outcome.retriable) == (again, again)
