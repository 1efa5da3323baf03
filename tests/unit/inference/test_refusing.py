"""A call that deaths are to be laid on is ended by whoever comes first, its refusal or who withdraws it."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from easyremote.inference.functions import Function
from easyremote.inference.jobs import Job
from easyremote.inference.node import AINodeManager
from easyremote.inference.service import NodeService
from easyremote.settings import Settings
from easyremote.topics import source
from easyremote.topics.records import Reply, decode_reply
from easyremote.topics.wire import Origin, parse_call
from msgspec import UnsetType

WAIT_S = 20


class Sent:
    """Stands for the producer of a broker that takes every record at once."""

    def __init__(self) -> None:
        self.records: list[tuple[str, bytes]] = []

    def send(self, topic: str, value: bytes, *, on_delivery: Callable[[None, Any], None], **_: object) -> None:
        self.records.append((topic, value))
        on_delivery(None, None)


class Idle:
    """Stands for a consumer, the withdrawn calls and the answers of other nodes: there are none."""

    def __init__(self, *_: object) -> None:
        return


def echo(text: str) -> str:
    return text


def _ends(data_dir: Path, *ends: Callable[[NodeService, Job], None]) -> tuple[list[str], list[Reply], bool]:
    """Take a call and end it in these ways; return the topics written to, the replies, and whether it is committed."""

    async def run() -> tuple[list[str], list[Reply], bool]:
        sent: Any = Sent()
        nobody: Any = Idle()
        settings = Settings(kafka="none:1", node_id="node", data_dir=data_dir)
        node = AINodeManager("general", [], [Function("echo", echo)])
        service = NodeService(settings, node, sent, lambda: None, nobody, nobody, nobody)
        service.ledger.assign([0])
        body = json.dumps({"function": "echo", "args": ["x"], "id": "c"}).encode()
        generation, _ = service.ledger.take(0, [0])
        job = Job(parse_call(body, [], Origin("t", 0, 0, 0)), 0, generation, 0, 0.0, value=body)
        for end in ends:
            end(service, job)
        assert await asyncio.to_thread(service.executor.close, WAIT_S)
        topics = [topic for topic, _ in sent.records]
        replies = [decode_reply(value) for topic, value in sent.records if topic == "replies"]
        return topics, replies, service.ledger.pending == 0

    return asyncio.run(asyncio.wait_for(run(), WAIT_S))


def _withdraw(service: NodeService, job: Job) -> None:
    service.executor.cancel(job)


def _refuse(service: NodeService, job: Job) -> None:
    service._refuse(job, 2)


@pytest.mark.parametrize(
    ("ends", "topics", "told"),
    [
        ((_refuse, _withdraw), ["requests.dlq", "replies"], "CrashSuspect"),
        ((_withdraw, _refuse), ["replies"], "CallCancelled"),
    ],
)
def test_a_call_that_is_refused_and_withdrawn_is_told_once_by_who_came_first(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, ends: Any, topics: list[str], told: str
) -> None:
    monkeypatch.setattr(source, "Consumer", Idle)
    written, replies, is_done = _ends(tmp_path, *ends)
    assert written == topics
    (reply,) = replies
    assert not isinstance(reply.error, UnsetType)
    assert (reply.error.type, is_done) == (told, True)
