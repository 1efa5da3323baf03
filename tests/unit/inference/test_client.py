"""What a Python caller gets from its client, without a broker."""

from __future__ import annotations

import asyncio
import inspect
import threading
import time
import traceback
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import easyremote
import msgspec
import numpy as np
import pytest
from easyremote import AsyncClient, CallOptions, Client, DeadlineExceeded, InvalidArguments, RemoteError, errors
from easyremote.inference import session as module
from easyremote.inference.functions import Function
from easyremote.settings import Settings
from easyremote.topics.json_form import bytes_places, refuse_no_number
from easyremote.topics.records import ErrorBody, Reply, Request, decode_request, encode
from easyremote.topics.replying import NO_TIME
from easyremote.topics.wire import CORRELATION_ID
from executing import bench

NAN, INF = float("nan"), float("inf")
STACK = "Traceback (most recent call last):\n  File \"shop.py\", line 7, in sell\nKeyError: 'x'\n"


@dataclass
class Holder:
    held: Any


class _Message:
    def __init__(self, call_id: bytes, value: bytes) -> None:
        self._call_id, self._value = call_id, value

    def headers(self) -> list[tuple[str, bytes]]:
        return [(CORRELATION_ID, self._call_id)]

    def value(self) -> bytes:
        return self._value


class _Wire:
    """Stands for the topics: notes what is sent, and answers as it is told to."""

    def __init__(self) -> None:
        self.requests: list[Request] = []
        self.answer: dict[str, Any] | None = None
        self._receive: Callable[[Sequence[Any]], None] = lambda _: None

    def follower(self, _settings: Settings, _topic: str, receive: Callable[..., None], **_where: Any) -> _Wire:
        self._receive = receive
        return self

    def producer(self, _settings: Settings, **_tells: Any) -> _Wire:
        return self

    def send(self, _topic: str, value: bytes, *, headers: list[tuple[str, bytes]], **_rest: Any) -> None:
        self.requests.append(decode_request(value))
        if self.answer is None:
            return
        told: Any = {"status": "ok" if "result" in self.answer else "error"} | self.answer
        reply = Reply(
            id="c", function="f", node_id="n", model=None, model_version=None, attempts=1, timings_ms=NO_TIME, **told
        )
        self._receive([_Message(dict(headers)[CORRELATION_ID], encode(reply))])

    def read_until(self, _done: Callable[[], bool], _ends_s: float) -> None: ...

    def wake(self) -> None: ...

    def close(self) -> None: ...


@pytest.fixture
def wire(monkeypatch: pytest.MonkeyPatch) -> _Wire:
    wire = _Wire()
    monkeypatch.setattr(module, "Follower", wire.follower)
    monkeypatch.setattr(module, "RecordProducer", wire.producer)
    return wire


@pytest.fixture
def settings(tmp_path: Path) -> Settings:
    return Settings(kafka="none:1", data_dir=tmp_path)


@pytest.fixture
def client(wire: _Wire, settings: Settings) -> Iterator[Client]:
    with Client(settings) as client:
        yield client


def test_a_timeout_of_the_call_wins_over_the_options_and_is_no_argument(client: Client, wire: _Wire) -> None:
    wire.answer = {"result": 1}
    client.call("f", 1, timeout=5, options=CallOptions(timeout_s=9, target="t"))
    client.call("f", a=2, options=CallOptions(timeout_s=9, kwargs={"timeout": 3, "options": 4}))
    first, second = wire.requests
    assert (first.timeout_s, first.target, first.kwargs) == (5, "t", {})
    assert second.timeout_s == 9
    assert {name: msgspec.json.decode(one) for name, one in second.kwargs.items()} == {
        "a": 2,
        "timeout": 3,
        "options": 4,
    }
    with pytest.raises(InvalidArguments, match="'a' is given twice"):
        client.call("f", a=2, options=CallOptions(kwargs={"a": 3}))


@pytest.mark.parametrize("timeout", [-1, NAN, INF, "5", 1e300])
def test_a_timeout_that_is_none_is_an_error_that_says_what_it_takes(client: Client, timeout: Any) -> None:
    with pytest.raises(InvalidArguments, match="give seconds, from 0"):
        client.call("f", timeout=timeout)


@pytest.mark.parametrize("timeout", [0.0, 0.05, 0.4])
def test_without_an_answer_a_call_ends_within_a_fifth_of_a_second_of_its_timeout(
    client: Client, timeout: float
) -> None:
    for ask in (
        lambda: client.call("f", timeout=timeout),
        lambda: client.submit("f", timeout=timeout).result(),
        lambda: list(client.stream("f", timeout=timeout)),
    ):
        for attempt in range(5):  # the machine may be busy for once
            began = time.monotonic()
            with pytest.raises(TimeoutError, match=f"no reply to f within {timeout:g} s") as told:
                ask()
            took_s = time.monotonic() - began
            assert isinstance(told.value, DeadlineExceeded)
            assert timeout <= took_s
            if took_s < timeout + 0.2:
                break
            assert attempt < 4, took_s


def test_a_store_that_hangs_holds_no_call_beyond_its_timeout(
    client: Client, wire: _Wire, settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    gate = threading.Event()
    monkeypatch.setattr(client._session._desk, "check_in", lambda *_: gate.wait(20))
    large = "x" * (settings.claim_bytes + 1)

    async def ask() -> None:
        async with AsyncClient(settings) as other:
            other._session._desk.check_in = lambda *_: gate.wait(20)  # type: ignore[union-attr,method-assign]
            try:
                await other.call("f", large, timeout=0.1)
            finally:
                gate.set()

    for attempt in (lambda: client.call("f", large, timeout=0.1), lambda: asyncio.run(ask())):
        began = time.monotonic()
        with pytest.raises(DeadlineExceeded, match="the call was not sent"):
            attempt()
        assert time.monotonic() - began < 0.5
    assert wire.requests == []


def test_a_future_has_the_result_or_raises_the_error_and_has_the_whole_reply(client: Client, wire: _Wire) -> None:
    wire.answer = {"result": 7}
    future = client.submit("f")
    assert (future.result(), future.reply().node_id) == (7, "n")
    wire.answer = {"error": ErrorBody("KeyError", "'x'")}
    future = client.submit("f")
    with pytest.raises(RemoteError, match="'x'"):
        future.result()
    assert future.reply().status == "error"


def test_bytes_come_back_as_bytes_wherever_they_stand(client: Client, wire: _Wire) -> None:
    wire.answer = {"result": {"a": "eA==", "b": [["eQ==", "eg=="], 1]}, "bytes_at": [["a"], ["b", 0, None]]}
    assert client.call("f") == {"a": b"x", "b": [[b"y", b"z"], 1]}
    wire.answer = {"result": "eA==", "bytes_at": [[]]}
    assert client.submit("f").result() == b"x"
    assert wire.requests[0].bytes_at
    wire.answer = {"result": 1, "bytes_at": [["a"]]}
    with pytest.raises(errors.CallError, match=r"cannot be read: no base64 text at \.a"):
        client.call("f")


def test_a_node_says_where_bytes_stand_to_who_asks_and_to_nobody_else() -> None:
    def nested() -> Any:
        return {"one": b"x", 2: [bytearray(b"y"), memoryview(b"z")], "deep": [{"k": (1, b"w")}], "no": "eA=="}

    def items() -> Iterator[Any]:
        yield b"x"
        yield {"a": b"y"}

    with bench(functions=[Function("nested", nested), Function("items", items)]) as one:
        asked, plain = one.put("nested", bytes_at=True), one.put("nested")
        replies = one.replies(2)
        assert replies[asked].bytes_at == [["one"], ["2", None], ["deep", 0, "k", 1]]
        assert replies[plain].bytes_at is msgspec.UNSET
        assert replies[asked].result == replies[plain].result
        asked = one.put("items", bytes_at=True)
        assert one.replies(1)[asked].bytes_at == [[0], [1, "a"]]


@pytest.mark.parametrize(
    ("argument", "place"),
    [
        (NAN, r"args\[0\] is nan"),
        ({"scores": [1.0, None, -INF]}, r"args\[0\]\.scores\[2\] is -inf"),
        (np.array([[1.0, 2.0], [3.0, NAN]]), r"args\[0\]\[1\]\[1\] is nan"),
        ([{"a b": np.float32(INF)}], r'args\[0\]\[0\]\["a b"\] is inf'),
    ],
)
def test_an_argument_that_is_no_number_of_json_is_an_error_that_names_its_place(
    client: Client, wire: _Wire, argument: Any, place: str
) -> None:
    with pytest.raises(InvalidArguments, match=place):
        client.call("f", argument)
    assert wire.requests == []


def test_a_result_that_is_no_number_of_json_is_an_error_that_names_its_place() -> None:
    bad = {"scores": [1.0, 2.0, None, NAN]}
    functions = [
        Function("whole", lambda: bad),
        Function("array", lambda: np.array([1.0, INF])),
        Function("good", lambda: {"none": None, "text": "null", "scores": [1.0, None]}),
    ]

    def items() -> Iterator[Any]:
        yield 1.0
        yield [NAN]

    with bench(functions=[*functions, Function("items", items)]) as one:
        told = {name: one.put(name) for name in ("whole", "array", "good", "items")}
        replies = one.replies(4)
        messages = {name: getattr(replies[call].error, "message", "") for name, call in told.items()}
    assert "result.scores[3] is nan" in messages["whole"]
    assert "result[1] is inf" in messages["array"]
    assert "result[1][0] is nan" in messages["items"]
    assert messages["good"] == ""


def test_a_remote_error_shows_where_the_function_raised(client: Client, wire: _Wire) -> None:
    wire.answer = {"error": ErrorBody("KeyError", "'x'", traceback=STACK)}
    with pytest.raises(RemoteError) as told:
        client.call("f")
    assert (told.value.type, told.value.traceback) == ("KeyError", STACK)
    printed = "".join(traceback.format_exception(told.value))
    assert 'On node n:\nTraceback (most recent call last):\n  File "shop.py", line 7, in sell\nKeyError' in printed
    wire.answer = {"error": ErrorBody("KeyError", "'x'")}
    with pytest.raises(RemoteError) as told:
        client.call("f")
    assert (told.value.traceback, getattr(told.value, "__notes__", [])) == (None, [])


def test_every_error_is_importable_from_the_package() -> None:
    named = {name for name in errors.__all__ if inspect.isclass(getattr(errors, name))}
    assert named <= set(easyremote.__all__)
    assert all(getattr(easyremote, name) is getattr(errors, name) for name in named)
    assert issubclass(DeadlineExceeded, TimeoutError)


@pytest.mark.parametrize(
    "inner", [b"x", [b"x"], {"a": (1, b"x")}, {"a": datetime(2026, 1, 1, tzinfo=UTC), "b": b"x"}, Holder(b"x")]
)
@pytest.mark.parametrize("number", [NAN, [1.0, INF], {"a": (1, -INF)}, {"a": 1e308, "b": [1e308, NAN]}, Holder(NAN)])
def test_bytes_and_what_is_no_number_are_found_however_deep(inner: Any, number: Any) -> None:
    value: Any = {"plain": [1, 1.5, None, "text", {"x": ()}], "in": [{"k": inner}]}
    assert [place[:3] for place in bytes_places(value)] == [("in", 0, "k")]
    refuse_no_number(value, "result")
    refuse_no_number({"large": [1e308, 1e308]}, "result")
    with pytest.raises(ValueError, match=r"result\.in\[1\]"):
        refuse_no_number({"in": [1.5, {"k": number}]}, "result")
