"""No request to a group's coordinator outlives its time limit while the coordinator is away."""

from __future__ import annotations

import ast
import weakref
from concurrent.futures import Future
from pathlib import Path
from queue import Queue
from typing import Any

import easyremote
import pytest
from confluent_kafka import KafkaError, KafkaException
from easyremote.errors import TopicError
from easyremote.settings import Settings
from easyremote.topics import admin
from easyremote.topics.admin import TopicAdmin
from easyremote.topics.connection import COORDINATOR_LIMIT_S

SOURCES = sorted(Path(easyremote.__file__).parent.rglob("*.py"))
TO_A_COORDINATOR = frozenset(
    {
        "alter_consumer_group_offsets",
        "delete_consumer_group_offsets",
        "delete_consumer_groups",
        "describe_consumer_groups",
        "describe_transactions",
        "list_consumer_group_offsets",
    }
)
"""Methods of confluent-kafka's `AdminClient` that librdkafka sends to a coordinator."""


def test_a_request_to_a_coordinator_has_the_longest_limit() -> None:
    limits = {}
    for file in SOURCES:
        for call in (one for one in ast.walk(ast.parse(file.read_text())) if isinstance(one, ast.Call)):
            if isinstance(call.func, ast.Attribute) and call.func.attr in TO_A_COORDINATOR:
                given = [ast.unparse(one.value) for one in call.keywords if one.arg == "request_timeout"]
                limits[f"{file}:{call.lineno}"] = given
    assert set(map(tuple, limits.values())) == {("COORDINATOR_LIMIT_S",)}, f"decision 20: {limits}"


class Client:
    """Stands for a client of the broker's administration."""

    made: Queue[Client] = Queue()

    def __init__(self, _config: object) -> None:
        self.asked: Future[Any] = Future()
        self.gone = Queue[None]()
        weakref.finalize(self, self.gone.put, None)
        self.made.put(self)

    def describe_consumer_groups(self, groups: list[str], request_timeout: float) -> dict[str, Future[Any]]:
        assert request_timeout == COORDINATOR_LIMIT_S
        return {groups[0]: self.asked}


def test_a_client_with_a_request_whose_limit_is_over_is_let_go(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(admin, "AdminClient", Client)
    told: list[object] = []
    asking = TopicAdmin(Settings(kafka="none:1", node_id="test"))
    first = Client.made.get()
    asking.ask_held("g", told.append)
    asked, gone = first.asked, first.gone
    del first
    asked.set_exception(KafkaException(KafkaError(KafkaError._TIMED_OUT)))
    Client.made.get(timeout=10)
    gone.get(timeout=10)
    assert isinstance(told[0], TopicError)
