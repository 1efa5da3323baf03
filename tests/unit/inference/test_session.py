"""What a client makes of replies that it cannot read, without a broker."""

from __future__ import annotations

import queue
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest
from easyremote.errors import CallError, EasyRemoteError
from easyremote.inference import session as module
from easyremote.inference.session import CallOptions, Session
from easyremote.settings import Settings
from easyremote.topics.claims import ClaimDesk
from easyremote.topics.records import Reply, encode
from easyremote.topics.replying import NO_TIME
from easyremote.topics.wire import CORRELATION_ID

WAIT_S = 20
NO_TEXT = b'{"id": "\xff"}'


def _reply(**outcome: Any) -> bytes:
    who: dict[str, Any] = {"id": "c", "function": "f", "node_id": "n", "model": None, "model_version": None}
    return encode(Reply(**who, status="ok", attempts=1, timings_ms=NO_TIME, **outcome))


class _Message:
    def __init__(self, call_id: str, value: bytes) -> None:
        self._call_id = call_id
        self._value = value

    def headers(self) -> list[tuple[str, bytes]]:
        return [(CORRELATION_ID, self._call_id.encode())]

    def value(self) -> bytes:
        return self._value


class _Wire:
    """Stands for the topics: takes what is sent, and brings replies."""

    def __init__(self) -> None:
        self.bring: Callable[[Sequence[Any]], None] = lambda _: None

    def follower(self, _settings: Settings, _topic: str, receive: Callable[..., None], **_where: Any) -> _Wire:
        self.bring = receive
        return self

    def producer(self, _settings: Settings, **_tells: Any) -> _Wire:
        return self

    def send(self, *_record: Any, **_rest: Any) -> None: ...

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
def session(wire: _Wire, settings: Settings) -> Iterator[Session]:
    session = Session(settings, direct=False)
    yield session
    session.close()


def _submit(session: Session, call_id: str) -> queue.SimpleQueue[Reply | EasyRemoteError]:
    ended: queue.SimpleQueue[Reply | EasyRemoteError] = queue.SimpleQueue()
    session.submit("f", [], {}, CallOptions(id=call_id), ended.put)
    return ended


@pytest.mark.parametrize("value", [NO_TEXT, b"{", b"", b"[]"])
def test_a_reply_that_is_no_text_or_no_reply_is_an_error_to_its_caller_and_ends_no_client(
    session: Session, wire: _Wire, value: bytes
) -> None:
    bad, good = _submit(session, "bad"), _submit(session, "good")
    wire.bring([_Message("bad", value), _Message("good", _reply(result=1))])
    error, reply = bad.get(timeout=WAIT_S), good.get(timeout=WAIT_S)
    assert isinstance(error, CallError)
    assert "the reply cannot be read" in str(error)
    assert isinstance(reply, Reply)
    assert reply.result == 1


@pytest.mark.parametrize("content", [NO_TEXT, b"{"])
def test_a_large_result_that_is_no_text_or_no_json_is_an_error_to_its_caller(
    session: Session, wire: _Wire, settings: Settings, content: bytes
) -> None:
    blob = ClaimDesk(settings).put(content, "result")
    ended = _submit(session, "large")
    wire.bring([_Message("large", _reply(result_claim=blob))])
    error = ended.get(timeout=WAIT_S)
    assert isinstance(error, CallError)
    assert "the result of f cannot be read" in str(error)
