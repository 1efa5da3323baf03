"""Whatever a user's code does, each call has its one reply and its log line, and the node is as able as before."""

from __future__ import annotations

import asyncio
import dataclasses
import sys
import threading
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from functools import partial
from typing import Any, ClassVar

import msgspec
import numpy as np
import pytest
import structlog
from easyremote import BaseAIModel
from easyremote.inference.functions import Function
from easyremote.topics.records import ErrorBody, Reply
from executing import Bench, bench, event_loop


class Mute(Exception):
    """Raises when it is asked for anything."""

    def __str__(self) -> str:
        raise SystemExit("no")

    def __repr__(self) -> str:
        raise KeyboardInterrupt

    @property
    def retriable(self) -> bool:
        raise GeneratorExit


class Meta(type):
    @property
    def __name__(cls) -> str:  # type: ignore[override]
        raise SystemExit


class Nameless(Exception, metaclass=Meta):
    pass


def _endless() -> Any:
    return _endless()


def _cyclic() -> list[Any]:
    cycle: list[Any] = []
    cycle.append(cycle)
    return cycle


def _raising(error: BaseException) -> Callable[[], Any]:
    def broken() -> Any:
        raise error

    return broken


def _leave() -> None:
    sys.exit(3)


RAISED: list[tuple[str, Callable[[], Any]]] = [
    ("SystemExit", _leave),
    ("KeyboardInterrupt", _raising(KeyboardInterrupt())),
    ("GeneratorExit", _raising(GeneratorExit())),
    ("CancelledError", _raising(asyncio.CancelledError())),
    ("StopIteration", _raising(StopIteration(1))),
    ("StopAsyncIteration", _raising(StopAsyncIteration())),
    ("RecursionError", _endless),
    ("MemoryError", _raising(MemoryError())),
    ("Mute", _raising(Mute())),
    ("Nameless", _raising(Nameless("x"))),
    ("KeyError", _raising(KeyError("x" * 10_000_000))),
    ("ValueError", _raising(ValueError("\ud800"))),
    ("odd\nname", _raising(type("odd\nname", (Exception,), {})())),
    ("ExceptionGroup", _raising(ExceptionGroup("many", [SystemError(), OSError()]))),
]
RETURNED: list[Callable[[], Any]] = [
    _cyclic,
    lambda: "\ud800",
    lambda: {"a": ["\ud800"]},
    object,
    lambda: [np.float64(1), threading.Lock()],
    lambda: float("nan"),
    lambda: np.array([1.0, float("inf")]),
]
# PEP 479: what a generator and a coroutine make of these themselves.
OF_A_FRAME = {"StopIteration": "RuntimeError", "StopAsyncIteration": "StopAsyncIteration"}
OF_AN_ASYNC_GENERATOR = OF_A_FRAME | {"StopAsyncIteration": "RuntimeError"}


def _coroutine(does: Callable[[], Any]) -> Callable[[], Any]:
    async def broken() -> Any:
        await asyncio.sleep(0)
        return does()

    return broken


def _generator(does: Callable[[], Any]) -> Callable[[], Any]:
    def broken() -> Iterator[Any]:
        yield 1
        yield does()

    return broken


def _async_generator(does: Callable[[], Any]) -> Callable[[], Any]:
    async def broken() -> AsyncIterator[Any]:
        yield 1
        yield does()

    return broken


def _call(does: Callable[[], Any]) -> Any:
    return does()


def _plain(does: Callable[[], Any]) -> Callable[[], Any]:
    return does


KINDS: dict[str, tuple[Callable[[Callable[[], Any]], Callable[[], Any]], dict[str, str]]] = {
    "function": (_plain, {}),
    "coroutine": (_coroutine, OF_A_FRAME),
    "generator": (_generator, OF_A_FRAME),
    "async generator": (_async_generator, OF_AN_ASYNC_GENERATOR),
}


def _lanes() -> set[str]:
    return {one.name for one in threading.enumerate() if one.name.startswith("lane ") and one.is_alive()}


def _error(reply: Reply) -> ErrorBody:
    assert isinstance(reply.error, ErrorBody), reply
    return reply.error


def _quick(one: Bench) -> None:
    for _ in range(8):
        one.put("quick")
    assert {reply.result for reply in one.replies(8).values()} == {"quick"}


@pytest.mark.parametrize("kind", KINDS)
def test_whatever_a_function_raises_or_returns_has_its_reply_and_its_log_line_and_costs_no_thread(kind: str) -> None:
    made, otherwise = KINDS[kind]
    expected = [(otherwise.get(name, name), does) for name, does in RAISED]
    expected += [("UnencodableResult", does) for does in RETURNED]
    functions = [Function(f"f{number}", made(does)) for number, (_, does) in enumerate(expected)]
    with bench(functions=[*functions, Function("quick", lambda: "quick")]) as one, event_loop() as loop:
        one.executor.start(loop)
        before = _lanes()
        with structlog.testing.capture_logs() as lines:
            for number, (name, _) in enumerate(expected):
                call = one.put(f"f{number}")
                error = _error(one.replies(1)[call])
                assert (error.type, call, error.retriable) == (name, call, False)
                assert len(error.message) < 5_000
        told = [line["call"] for line in lines if line["event"] == "a function raised"]
        assert told == [f"c-{number + 1}" for number in range(len(expected))]
        _quick(one)
        assert before <= _lanes()


class Broken(BaseAIModel):
    """Does something in one of its methods."""

    name: ClassVar[str] = "broken"
    function: ClassVar[str] = "broken"

    def __init__(self) -> None:
        super().__init__()
        self.does: dict[str, Callable[[], Any]] = {}

    def _do(self, method: str, otherwise: Any = None) -> Any:
        return self.does[method]() if method in self.does else otherwise

    def load_model(self) -> Any:
        return self._do("load_model")

    def preprocess(self, input: Any) -> Any:
        return self._do("preprocess", input)

    def inference(self, batch: Sequence[Any]) -> Sequence[Any]:
        outputs: Sequence[Any] = self._do("inference", batch)
        return outputs

    def postprocess(self, output: Any) -> tuple[Any, float]:
        return self._do("postprocess", output), 1.0

    def batch_key(self, input: Any) -> Any:
        return self._do("batch_key")


@pytest.mark.parametrize("method", ["load_model", "preprocess", "inference", "postprocess"])
def test_whatever_a_model_raises_in_any_of_its_methods_has_its_reply_and_costs_no_thread(method: str) -> None:
    model = Broken()
    with bench([model], [Function("quick", lambda: "quick")]) as one:
        before = _lanes()
        for name, does in RAISED:
            model.does = {method: does}
            call = one.put("broken", 1)
            error = _error(one.replies(1)[call])
            if method == "load_model" and error.type == "ModelError":
                assert f"load_model raised {name}" in error.message
            else:
                assert error.type == name
        model.does = {}
        for _ in range(12):
            one.put("broken", 2)
        assert {reply.result["result"] for reply in one.replies(12).values()} == {2}
        _quick(one)
        assert before <= _lanes()


@pytest.mark.parametrize("does", [*(does for _, does in RAISED), list])
def test_whatever_a_batch_key_does_the_call_is_run(does: Callable[[], Any]) -> None:
    model = Broken()
    model.does = {"batch_key": does}
    with bench([model]) as one:
        call = one.put("broken", 1)
        assert one.replies(1)[call].result["result"] == 1


@pytest.mark.parametrize("method", ["postprocess", "inference"])
def test_a_model_whose_result_has_no_form_in_json_tells_each_caller(method: str) -> None:
    model = Broken()
    for does in RETURNED:
        model.does = {method: partial(list, map(_call, [does])) if method == "inference" else does}
        with bench([model]) as one:
            call = one.put("broken", 1)
            error = _error(one.replies(1)[call])
            assert error.type == "UnencodableResult"


def test_a_type_of_the_users_that_raises_when_an_argument_is_read_ends_only_that_call() -> None:
    @dataclasses.dataclass
    class Checked:
        number: int

        def __post_init__(self) -> None:
            raise SystemExit(self.number)

    def takes(one: Any) -> int:
        return 1

    takes.__annotations__["one"] = Checked
    with bench(functions=[Function("takes", takes), Function("quick", lambda: "quick")]) as one:
        call = one.put("takes", {"number": 1})
        assert _error(one.replies(1)[call]).type == "SystemExit"
        _quick(one)


def test_a_coroutine_that_waits_for_what_is_cancelled_is_told_so_and_stops_no_loop() -> None:
    async def waits() -> None:
        inner = asyncio.ensure_future(asyncio.sleep(60))
        asyncio.get_running_loop().call_soon(inner.cancel)
        await inner

    with bench(functions=[Function("waits", waits)]) as one, event_loop() as loop:
        one.executor.start(loop)
        for _ in range(12):
            call = one.put("waits")
            assert _error(one.replies(1)[call]).type == "CancelledError"
        assert loop.is_running()


def test_a_result_that_other_threads_change_is_answered_as_it_was_at_one_moment() -> None:
    shared: list[Any] = []
    over = threading.Event()

    def change() -> None:
        while not over.is_set():
            shared.extend([np.float64(1), {"a": [np.int64(2)]}, "x"] * 50)
            shared.clear()

    changing = threading.Thread(target=change)
    changing.start()
    try:
        with bench(functions=[Function("shared", lambda: shared)]) as one:
            for _ in range(300):
                one.put("shared")
            lengths = {len(reply.result) % 150 for reply in one.replies(300).values()}
    finally:
        over.set()
        changing.join()
    assert lengths == {0}


def test_where_a_function_or_a_model_raised_is_told_from_there_on() -> None:
    def inner() -> None:
        raise LookupError("lost")

    def outer() -> None:
        inner()

    async def coroutine() -> None:
        inner()

    model = Broken()
    model.does = {"postprocess": inner}
    functions = [Function("outer", outer), Function("coroutine", coroutine), Function("strict", lambda number: number)]
    with bench([model], functions) as one, event_loop() as loop, structlog.testing.capture_logs() as lines:
        one.executor.start(loop)
        first = {"outer": "in outer", "coroutine": "in coroutine", "broken": "in postprocess"}
        for name, frame in first.items():
            call = one.put(name, *([1] if name == "broken" else []))
            told = _error(one.replies(1)[call]).traceback
            assert isinstance(told, str)
            _, top, *_, last = told.strip().splitlines()
            assert top.endswith(frame)
            assert last == "LookupError: lost"
            assert [line["stack"] for line in lines if line.get("call") == call] == [told]
        call = one.put("strict")
        assert _error(one.replies(1)[call]).traceback is msgspec.UNSET  # no function has raised
    with bench(functions=functions, tracebacks=False) as one:
        call = one.put("outer")
        assert _error(one.replies(1)[call]).traceback is msgspec.UNSET


def test_a_coroutine_that_blocks_its_event_loop_costs_its_caller_an_error_and_the_worker_nothing() -> None:
    gate, waits = threading.Event(), threading.Event()

    async def blocks() -> None:
        gate.wait(20)

    async def good() -> str:
        await asyncio.sleep(0)
        return "good"

    async def pending() -> None:
        waits.set()
        await asyncio.sleep(60)

    functions = [Function("blocks", blocks, limit_s=0.3), Function("good", good), Function("pending", pending)]
    with bench(functions=functions) as one:
        one.executor.start()
        call = one.put("good")
        assert one.replies(1)[call].result == "good"
        other = one.put("pending")
        assert waits.wait(20)
        blocking = one.put("blocks")
        replies = one.replies(2)
        assert {_error(replies[call]).type for call in (blocking, other)} == {"CallTimeout"}
        assert "blocked its loop" in _error(replies[other]).message
        assert one.executor.hung == 1
        call = one.put("good")
        assert one.replies(1)[call].result == "good"
        gate.set()
