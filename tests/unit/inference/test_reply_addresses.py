"""A router and a node alike refuse, unrun, a call whose reply may go nowhere, and tell what is no request."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any

import pytest
from easyremote.agents.arrived import decode_arrived
from easyremote.agents.router import Router
from easyremote.inference.functions import Function
from easyremote.inference.node import AINodeManager
from easyremote.inference.service import NodeService
from easyremote.settings import Settings
from easyremote.topics import source
from easyremote.topics.events import Batch
from easyremote.topics.records import Reply, decode_reply
from easyremote.topics.reply_topics import ReplyTopics
from easyremote.topics.tenure import Tenure
from msgspec import UnsetType

TRACE = b"00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"


class Record:
    """Stands for a call's record."""

    def __init__(self, value: bytes, headers: Sequence[tuple[str, bytes]] = (), offset: int = 0) -> None:
        self._value, self._headers, self._offset = value, list(headers), offset

    def value(self) -> bytes:
        return self._value

    def key(self) -> bytes:
        return b"key"

    def headers(self) -> list[tuple[str, bytes]]:
        return self._headers

    def offset(self) -> int:
        return self._offset

    def timestamp(self) -> tuple[int, int]:
        return 1, 0


class Sent:
    """Stands for the producer of a broker that takes every record at once."""

    def __init__(self) -> None:
        self.records: list[tuple[str, bytes, dict[str, bytes]]] = []

    def send(
        self,
        topic: str,
        value: bytes,
        *,
        on_delivery: Callable[[None, Any], None],
        headers: list[tuple[str, bytes]],
        **_: object,
    ) -> None:
        self.records.append((topic, value, dict(headers)))
        on_delivery(None, None)


class Nothing:
    """Stands for a consumer, the withdrawn calls, the answers of other nodes, a source: there is nothing."""

    def __init__(self, *_: object) -> None:
        return

    def __getattr__(self, _name: str) -> Any:
        return lambda *_args: None


class Member(Nothing):
    """Stands for a source that is a member of its group beyond doubt."""

    tenure = Tenure(1e9)


class Broker:
    """Stands for a broker that has the topic `mine`, of two partitions."""

    def partitions_of(self, topics: Iterable[str]) -> dict[str, int | None]:
        return {name: {"mine": 2}.get(name) for name in topics}

    def create(self, topic: str, partitions: int) -> bool:
        raise AssertionError(topic)


def _fail(error: Exception) -> None:
    raise error


def _echo(text: str) -> str:
    return text


def _routed(settings: Settings, records: Sequence[Record]) -> Sent:
    sent: Any = Sent()
    nothing: Any = Nothing()
    topics = ReplyTopics(settings, admin=Broker)
    router = Router(settings, sent, nothing, nothing, _fail, frozenset(), topics)
    messages: Any = records
    arrived = decode_arrived("requests", "")(0, messages)
    member: Any = Member()
    asyncio.run(router.handle(Batch("requests", 0, 0, len(records), arrived), member))
    return sent  # type: ignore[no-any-return]  # it is handed over as what it stands for


def _served(settings: Settings, records: Sequence[Record]) -> Sent:
    sent: Any = Sent()
    nothing: Any = Nothing()
    node = AINodeManager("general", [], [Function("echo", _echo)])
    topics = ReplyTopics(settings, admin=Broker)
    service = NodeService(settings, node, sent, lambda: None, nothing, nothing, nothing, topics)
    service.ledger.assign([0])
    messages: Any = records
    assert service._decode(0, messages) == []
    assert service.ledger.pending == 0
    service.executor.close(20)
    return sent  # type: ignore[no-any-return]


@pytest.fixture(params=[_routed, _served], ids=["router", "node"])
def refused(
    request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Callable[..., list[tuple[str, bytes, dict[str, bytes]]]]:
    """Return what hands records over that are all to be refused, and returns what is sent for them."""
    monkeypatch.setattr(source, "Consumer", Nothing)
    settings = Settings(kafka="none:1", node_id="node", data_dir=tmp_path)

    def hand_over(*records: Record) -> list[tuple[str, bytes, dict[str, bytes]]]:
        numbered = [Record(one.value(), one.headers(), offset) for offset, one in enumerate(records)]
        return request.param(settings, numbered).records  # type: ignore[no-any-return]

    return hand_over


def _call(reply_to: str) -> bytes:
    return json.dumps({"function": "echo", "args": ["x"], "reply_to": reply_to}).encode()


@pytest.mark.parametrize(
    ("topic", "error"),
    [
        ("streams.changelog", b"MalformedRequest"),
        ("nodes", b"MalformedRequest"),
        ("a\0b", b"MalformedRequest"),
        ("", b"MalformedRequest"),
        ("nowhere", b"UnknownReplyTopic"),
    ],
)
def test_a_call_whose_reply_may_go_nowhere_is_one_dead_letter_and_nothing_else(
    refused: Any, topic: str, error: bytes
) -> None:
    ((where, value, headers),) = refused(Record(_call(topic)))
    assert (where, value) == ("requests.dlq", _call(topic))
    assert headers["easyremote_error"] == error
    assert headers["easyremote_reason"]


def test_a_header_that_names_a_partition_too_many_is_refused(refused: Any) -> None:
    headers = [("kafka_replyTopic", b"mine"), ("kafka_replyPartition", (2).to_bytes(4, "big"))]
    ((where, _, said),) = refused(Record(b'{"function": "echo"}', headers))
    assert (where, said["easyremote_error"]) == ("requests.dlq", b"UnknownReplyTopic")


def test_what_is_no_request_is_told_as_the_protocol_names_it_with_its_trace(refused: Any) -> None:
    headers = [("kafka_replyTopic", b"mine"), ("kafka_correlationId", b"\xff1"), ("traceparent", TRACE)]
    sent = refused(Record(b"{", headers))
    assert [topic for topic, _, _ in sent] == ["requests.dlq", "mine"]
    reply: Reply = decode_reply(sent[1][1])
    assert not isinstance(reply.error, UnsetType)
    assert reply.error.type == "MalformedRequest"
    assert (sent[1][2]["kafka_correlationId"], sent[1][2]["traceparent"]) == (b"\xff1", TRACE)
    assert sent[0][2]["easyremote_error"] == b"MalformedRequest"


@pytest.mark.parametrize("topic", [b"nodes", b"nowhere", b"inference.nlp"])
def test_what_is_no_request_and_wants_its_reply_where_none_may_go_is_a_dead_letter_alone(
    refused: Any, topic: bytes
) -> None:
    assert [topic for topic, _, _ in refused(Record(b"{", [("kafka_replyTopic", topic)]))] == ["requests.dlq"]


def test_each_refused_record_of_a_batch_is_dead_lettered_once(refused: Any) -> None:
    records = [Record(_call(topic)) for topic in ("nodes", "nowhere", "models", "nowhere")] + [Record(b"{")]
    sent = refused(*records)
    assert [said["easyremote_source_offset"] for _, _, said in sent] == [b"0", b"1", b"2", b"3", b"4"]
    assert {topic for topic, _, _ in sent} == {"requests.dlq"}


def test_a_call_that_a_router_refuses_is_answered_with_its_trace(tmp_path: Path) -> None:
    settings = Settings(kafka="none:1", node_id="node", data_dir=tmp_path)
    sent = _routed(settings, [Record(b'{"function": "unknown"}', [("traceparent", TRACE)])]).records
    assert [topic for topic, _, _ in sent] == ["requests.dlq", "replies"]
    assert sent[1][2]["traceparent"] == TRACE
