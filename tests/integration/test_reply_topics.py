"""A call that names a wrong topic for its reply ends nobody: it is a dead letter that says why."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import uuid
from collections.abc import Iterator
from pathlib import Path

import pytest
from confluent_kafka.admin import AdminClient, NewTopic  # type: ignore[attr-defined]  # it exports them without saying so
from easyremote import CallOptions, Client
from easyremote.settings import Settings
from easyremote.topics.admin import TopicAdmin
from easyremote.topics.catalog import declarations
from easyremote.topics.records import decode_reply
from easyremote.topics.wire import headers_of
from workers import producer_to, running, tail

pytestmark = pytest.mark.broker


@pytest.fixture
def prepared(settings: Settings) -> Settings:
    TopicAdmin(settings).ensure(declarations())
    return settings


@pytest.fixture
def own_topic(prepared: Settings) -> Iterator[str]:
    name = f"callers-{uuid.uuid4().hex[:8]}"
    TopicAdmin(prepared).create(name, 1)
    yield name
    if TopicAdmin(prepared).partitions_of([name])[name] is not None:
        _delete(prepared, name)


def _delete(settings: Settings, topic: str) -> None:
    client = AdminClient({"bootstrap.servers": settings.bootstrap_servers()})
    client.delete_topics([topic], operation_timeout=10)[topic].result(10)


def _send(settings: Settings, topic: str, **call: object) -> None:
    producer = producer_to(settings.bootstrap_servers())
    producer.produce(settings.namespace + topic, json.dumps(call).encode(), partition=0)
    assert producer.flush(10) == 0


def test_calls_without_a_place_for_their_reply_are_dead_letters_unrun_and_others_are_answered(
    prepared: Settings, own_topic: str, tmp_path: Path
) -> None:
    diary = tmp_path / "diary"
    wrong = [f"{own_topic}-missing", prepared.namespace + "streams.changelog", prepared.namespace + "nodes"]
    with running(prepared, "router", "inference") as worker, Client(prepared) as client:
        for topic in ("requests", "inference.general"):
            for reply_to in wrong:
                _send(prepared, topic, function="flaky", args=[str(diary), 0], reply_to=reply_to)
        with tail(prepared, "requests.dlq") as letters:
            came = letters.wait_for(lambda letters: len(letters) == len(wrong) * 2)
        assert client.call("echo", "x", options=CallOptions(timeout_s=20)) == "x"
        _send(prepared, "requests", function="echo", args=["mine"], reply_to=own_topic, id="own")
        with tail(prepared.model_copy(update={"namespace": ""}), own_topic) as replies:
            (answer,) = replies.wait_for(bool)
        assert worker.poll() is None
    assert not diary.exists()
    said = [dict(headers_of(letter)) for letter in came]
    assert sorted(one["easyremote_error"] for one in said) == [b"MalformedRequest"] * 4 + [b"UnknownReplyTopic"] * 2
    assert decode_reply(answer.value() or b"").result == "mine"


def test_a_reply_topic_that_goes_while_the_call_runs_is_a_dead_letter_and_ends_no_node(
    prepared: Settings, own_topic: str, tmp_path: Path
) -> None:
    started, gate = tmp_path / "started", tmp_path / "gate"
    os.mkfifo(started)
    with running(prepared, "inference") as worker, Client(prepared, direct=True) as client:
        _send(prepared, "inference.general", function="hold", args=[str(started), str(gate)], reply_to=own_topic)
        gate.touch()
        _delete(prepared, own_topic)
        assert started.read_text() == "running"  # until then it waits, so it ends after the topic
        with tail(prepared, "requests.dlq") as letters:
            (letter,) = letters.wait_for(bool)
        assert own_topic.encode() in dict(headers_of(letter))["easyremote_reason"]
        assert client.call("echo", "x", options=CallOptions(timeout_s=20)) == "x"
        assert worker.poll() is None


def test_a_reply_topic_that_takes_no_reply_is_a_dead_letter_and_ends_no_node(prepared: Settings) -> None:
    strict = f"strict-{uuid.uuid4().hex[:8]}"
    client = AdminClient({"bootstrap.servers": prepared.bootstrap_servers()})
    has_no_room = {"max.message.bytes": "1"}  # a batch without a record is larger already
    client.create_topics([NewTopic(strict, 1, 1, config=has_no_room)])[strict].result(10)
    try:
        with running(prepared, "router", "inference") as worker:
            _send(prepared, "requests", function="echo", args=["x"], reply_to=strict)
            _send(prepared, "requests", function="never offered", reply_to=strict)
            with tail(prepared, "requests.dlq") as letters:
                came = letters.wait_for(lambda letters: len(letters) == 2)
            assert worker.poll() is None
    finally:
        _delete(prepared, strict)
    said = {dict(headers_of(letter))["easyremote_error"] for letter in came}
    assert said == {b"TopicError", b"UnknownFunction"}


def test_topics_create_makes_a_topic_for_replies_and_no_other(prepared: Settings) -> None:
    name = f"made-{uuid.uuid4().hex[:8]}"

    def create(*arguments: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [Path(sys.executable).with_name("easyremote"), "topics", "create", *arguments],
            env=os.environ
            | {"EASYREMOTE_KAFKA": prepared.bootstrap_servers(), "EASYREMOTE_NAMESPACE": prepared.namespace},
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )

    try:
        assert create(name, "--partitions", "3").stdout == f"{name} is created\n"
        assert TopicAdmin(prepared).partitions_of([name, "none-such"]) == {name: 3, "none-such": None}
        assert create(name).stdout == f"{name} is there already\n"
        refused = create(prepared.namespace + "nodes")
        assert (refused.returncode, refused.stdout) == (1, "")
        assert "a topic of the system itself" in refused.stderr
    finally:
        _delete(prepared, name)
