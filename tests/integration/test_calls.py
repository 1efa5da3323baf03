"""Calls through a real worker on a real broker."""

from __future__ import annotations

import json
import os
import re
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from confluent_kafka import Consumer, Message, TopicPartition
from easyremote import CallOptions, Client
from easyremote.errors import DeadlineExceeded, InvalidArguments, NoNodeAvailable, RemoteError, UnknownFunction
from easyremote.settings import Settings
from easyremote.topics.admin import TopicAdmin
from easyremote.topics.catalog import declarations
from easyremote.topics.records import decode_reply
from easyremote.topics.wire import headers_of
from workers import await_ready, kill, producer_to, running, start_worker, stop, tail

pytestmark = pytest.mark.broker
SOON = CallOptions(timeout_s=20)


@pytest.fixture
def worker(settings: Settings) -> Iterator[Settings]:
    TopicAdmin(settings).ensure(declarations())
    with running(settings, "router", "inference"):
        yield settings


def _next(settings: Settings, topic: str, partition: int = 0) -> Message:
    consumer = Consumer({"bootstrap.servers": settings.bootstrap_servers(), "group.id": "plain"})
    consumer.assign([TopicPartition(settings.namespace + topic, partition, 0)])
    try:
        message = consumer.poll(20)
        assert message is not None
        assert message.error() is None
        return message
    finally:
        consumer.close()


def test_a_call_is_answered_and_an_error_is_told(worker: Settings) -> None:
    with Client(worker) as client:
        with pytest.raises(UnknownFunction):
            client.call("nowhere", options=SOON)
        assert client.call("echo", "hello", options=SOON) == "hello"
        assert client.call("shout", text="hello", options=SOON) == "HELLO"
        with pytest.raises(InvalidArguments, match="text"):
            client.call("echo", 1, options=SOON)
        with pytest.raises(RemoteError, match="lost"):
            client.call("fail", "lost", options=SOON)
    with Client(worker, direct=True) as client:
        assert [client.call("echo", str(number), options=SOON) for number in range(20)] == [
            str(number) for number in range(20)
        ]


def test_a_python_caller_gets_bytes_and_tracebacks_and_its_timeouts_are_kept(worker: Settings, tmp_path: Path) -> None:
    gate = tmp_path / "gate"
    with Client(worker) as client:
        assert client.call("picture", 3, b"xy", options=SOON) == {"pixels": [b"\0\0\0", b"xy"], "name": "none"}
        with pytest.raises(RemoteError) as told:
            client.submit("fail", "lost", options=SOON).result()
        assert told.value.traceback is not None
        assert re.fullmatch(
            r'Traceback \(most recent call last\):\n  File ".*served.py", line \d+, in fail\n.*\nLookupError: lost\n',
            told.value.traceback,
            re.DOTALL,
        )
        for target, error in (("nobody", NoNodeAvailable), (None, TimeoutError)):
            took_s = []
            for _ in range(3):  # the machine may be busy for once
                began = time.monotonic()
                with pytest.raises((error, DeadlineExceeded)):
                    client.call("pass_gate", str(gate), timeout=1, options=CallOptions(target=target))
                took_s.append(time.monotonic() - began)
                if min(took_s) < 1.2:
                    break
            assert 1 <= min(took_s) < 1.2
        gate.touch()


def test_a_malformed_record_is_a_dead_letter_with_its_reason_and_origin(worker: Settings) -> None:
    producer = producer_to(worker.bootstrap_servers())
    producer.produce(
        worker.namespace + "requests",
        b"{not json",
        partition=0,
        headers=[
            ("kafka_correlationId", b"c-1"),
            ("kafka_replyTopic", (worker.namespace + "replies").encode()),
            ("kafka_replyPartition", (3).to_bytes(4, "big")),
        ],
    )
    assert producer.flush(10) == 0
    letter = _next(worker, "requests.dlq")
    headers = dict(headers_of(letter))
    assert letter.value() == b"{not json"
    assert headers["easyremote_source_topic"] == (worker.namespace + "requests").encode()
    assert (headers["easyremote_source_partition"], headers["easyremote_source_offset"]) == (b"0", b"0")
    assert b"not a request" in headers["easyremote_reason"]
    answer = _next(worker, "replies", 3)
    assert dict(headers_of(answer))["kafka_correlationId"] == b"c-1"
    reply = decode_reply(answer.value() or b"")
    assert reply.status == "error"


def test_a_request_as_kcat_sends_it_is_answered_as_kcat_reads_it(worker: Settings) -> None:
    # kcat -b ... -t requests <<< '{"function": "echo", "args": ["hi"], "id": "k-1"}'; kcat -b ... -t replies -e
    producer = producer_to(worker.bootstrap_servers())
    producer.produce(worker.namespace + "requests", b'{"function": "echo", "args": ["hi"], "id": "k-1"}')
    assert producer.flush(10) == 0
    consumer = Consumer(
        {"bootstrap.servers": worker.bootstrap_servers(), "group.id": "kcat", "auto.offset.reset": "earliest"}
    )
    consumer.subscribe([worker.namespace + "replies"])
    try:
        message = consumer.poll(20)
    finally:
        consumer.close()
    assert message is not None
    reply = json.loads(message.value() or b"")
    assert set(reply) == {
        "id", "function", "status", "result", "node_id", "model", "model_version", "attempts", "timings_ms",
    }  # fmt: skip
    assert (reply["id"], reply["function"], reply["status"], reply["result"]) == ("k-1", "echo", "ok", "hi")
    assert set(reply["timings_ms"]) == {"queued", "routed", "waited", "executed", "total"}


def test_a_correlation_id_comes_back_byte_for_byte_to_the_partition_asked_for(worker: Settings) -> None:
    producer = producer_to(worker.bootstrap_servers())
    correlation_id = bytes(range(256))[-16:]
    producer.produce(
        worker.namespace + "requests",
        b'{"function": "echo", "args": ["hi"]}',
        headers=[
            ("kafka_correlationId", correlation_id),
            ("kafka_replyTopic", (worker.namespace + "replies").encode()),
            ("kafka_replyPartition", (11).to_bytes(4, "big")),
            ("traceparent", b"00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"),
        ],
    )
    assert producer.flush(10) == 0
    headers = dict(headers_of(_next(worker, "replies", 11)))
    assert headers["kafka_correlationId"] == correlation_id
    assert headers["traceparent"].startswith(b"00-0af7651916cd43dd8448eb211c80319c")


def test_a_call_without_a_node_waits_and_is_told_so_after_its_deadline(worker: Settings) -> None:
    with Client(worker) as client:
        assert client.call("echo", "x", options=SOON) == "x"
        for _ in range(5):  # where the machine is busy the word may come after the client's last one
            with pytest.raises((NoNodeAvailable, DeadlineExceeded), match="echo") as told:
                client.call("echo", "x", options=CallOptions(timeout_s=0.5, target="nobody"))
            if isinstance(told.value, NoNodeAvailable):
                break
        else:
            pytest.fail("in five calls no node's absence was told")


def test_a_call_waits_for_the_node_that_it_needs(worker: Settings) -> None:
    with Client(worker) as client:
        later = client.submit("echo", "x", options=CallOptions(timeout_s=40, target="late-node"))
        with running(worker, "inference", EASYREMOTE_NODE_ID="late-node"):
            assert later.reply(40).node_id == "late-node"


@pytest.mark.faults
def test_a_worker_killed_between_request_and_reply_leaves_one_reply_after_the_restart(
    settings: Settings, tmp_path: Path
) -> None:
    TopicAdmin(settings).ensure(declarations())
    started, gate = tmp_path / "started", tmp_path / "gate"
    os.mkfifo(started)
    roles = {"EASYREMOTE_ROLES": "router,inference"}
    first = start_worker(settings, **roles)
    try:
        await_ready(settings, "router", "inference")
        with Client(settings) as client:
            reply = client.submit("hold", str(started), str(gate), options=CallOptions(timeout_s=60, id="held"))
            assert started.read_text() == "running"  # blocks until the function runs
            kill(first)
            gate.touch()
            started.unlink()
            started.touch()
            second = start_worker(settings, **roles)
            try:
                answer = reply.reply(60)
                assert (answer.status, answer.result) == ("ok", "done")
            finally:
                stop(second)
        with tail(settings, "replies") as replies:
            assert len(replies.wait_for(bool)) == 1
            assert replies.messages[0].key() == b"held"
    finally:
        kill(first)
