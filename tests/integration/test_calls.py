"""Calls through a real worker on a real broker."""

from __future__ import annotations

import os
import subprocess
import sys
import threading
import uuid
from collections.abc import Iterator
from pathlib import Path

import pytest
from confluent_kafka import Consumer, Message, Producer, TopicPartition
from easyremote import CallOptions, Client
from easyremote.errors import InvalidArguments, RemoteError, UnknownFunction
from easyremote.inference.nodes import NodeWatch
from easyremote.settings import Settings
from easyremote.topics.admin import TopicAdmin
from easyremote.topics.catalog import declarations
from easyremote.topics.follower import Follower
from easyremote.topics.records import decode_reply

pytestmark = pytest.mark.broker
SOON = CallOptions(timeout_s=20)


def _start_worker(settings: Settings) -> subprocess.Popen[bytes]:
    return subprocess.Popen(
        [Path(sys.executable).with_name("faust"), "-A", "easyremote", "worker", "-l", "warn"],
        env=os.environ
        | {
            "EASYREMOTE_KAFKA": settings.bootstrap_servers(),
            "EASYREMOTE_NAMESPACE": settings.namespace,
            "EASYREMOTE_DATA_DIR": str(settings.data_dir),
            "EASYREMOTE_FUNCTIONS": "served",
            "EASYREMOTE_MODELS": "",
            "EASYREMOTE_NODE_ID": f"worker-{uuid.uuid4().hex[:6]}",
            "PYTHONPATH": str(Path(__file__).parent),
        },
    )


def _stop(process: subprocess.Popen[bytes]) -> None:
    process.terminate()
    try:
        process.wait(20)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()


@pytest.fixture
def worker(settings: Settings) -> Iterator[Settings]:
    TopicAdmin(settings).ensure(declarations())
    process = _start_worker(settings)
    try:
        _await_ready(settings)
        yield settings
    finally:
        _stop(process)


def _await_ready(settings: Settings) -> None:
    beat = threading.Event()
    watch = NodeWatch(settings, changed=beat.set)
    try:
        for _ in range(100):
            beat.clear()
            if any(set(one.ready) == {"inference", "router"} and one.partitions for one in watch.live()):
                return
            beat.wait(0.5)
        pytest.fail("the worker is not ready after 50 s")
    finally:
        watch.close()


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


def test_a_malformed_record_is_a_dead_letter_with_its_reason_and_origin(worker: Settings) -> None:
    producer = Producer({"bootstrap.servers": worker.bootstrap_servers()})
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
    headers = dict(letter.headers() or [])
    assert letter.value() == b"{not json"
    assert headers["easyremote_source_topic"] == (worker.namespace + "requests").encode()
    assert (headers["easyremote_source_partition"], headers["easyremote_source_offset"]) == (b"0", b"0")
    assert b"not a request" in (headers["easyremote_reason"] or b"")
    answer = _next(worker, "replies", 3)
    assert dict(answer.headers() or [])["kafka_correlationId"] == b"c-1"
    reply = decode_reply(answer.value() or b"")
    assert reply.status == "error"


@pytest.mark.faults
def test_a_worker_killed_between_request_and_reply_leaves_one_reply_after_the_restart(
    settings: Settings, tmp_path: Path
) -> None:
    TopicAdmin(settings).ensure(declarations())
    started, gate = tmp_path / "started", tmp_path / "gate"
    os.mkfifo(started)
    first = _start_worker(settings)
    try:
        _await_ready(settings)
        with Client(settings) as client:
            reply = client.submit("hold", str(started), str(gate), options=CallOptions(timeout_s=60, id="held"))
            assert started.read_text() == "running"  # blocks until the function runs
            first.kill()
            first.wait()
            gate.touch()
            started.unlink()
            started.touch()
            second = _start_worker(settings)
            try:
                answer = reply.result(60)
                assert not isinstance(answer, Exception)
                assert (answer.status, answer.result) == ("ok", "done")
            finally:
                _stop(second)
        assert _count(settings, "replies", b"held") == 1
    finally:
        first.kill()
        first.wait()


def _count(settings: Settings, topic: str, key: bytes) -> int:
    found = 0
    messages: list[Message] = []
    follower = Follower(settings, settings.namespace + topic, messages.extend, start="beginning")
    try:
        assert follower.wait_caught_up(20)
        found = sum(message.key() == key for message in messages)
    finally:
        follower.close()
    return found
