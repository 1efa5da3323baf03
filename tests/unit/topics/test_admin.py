"""What the administration of topics does when the broker refuses to answer."""

from __future__ import annotations

import threading
from collections.abc import Iterable
from concurrent.futures import Future
from types import SimpleNamespace
from typing import Any

import pytest
from confluent_kafka import KafkaError, KafkaException, TopicPartition
from easyremote.settings import Settings
from easyremote.topics import admin
from easyremote.topics.admin import TopicAdmin, wait_for_ends


class _Client:
    """Stands for a client that knows the leader epochs of when it was made: after a broker's death they are refused."""

    made = 0

    def __init__(self, _config: object) -> None:
        type(self).made += 1
        self._is_old = type(self).made == 1

    def poll(self, _timeout_s: float) -> None: ...

    def list_offsets(self, asked: Iterable[TopicPartition], **_how: Any) -> dict[TopicPartition, Future[Any]]:
        answers: dict[TopicPartition, Future[Any]] = {one: Future() for one in asked}
        for answer in answers.values():
            if self._is_old:
                answer.set_exception(KafkaException(KafkaError(KafkaError.FENCED_LEADER_EPOCH)))
            else:
                answer.set_result(SimpleNamespace(offset=7))
        return answers


def test_ends_are_told_after_a_broker_s_death_though_the_leader_epochs_have_changed(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(_Client, "made", 0)
    monkeypatch.setattr(admin, "AdminClient", _Client)
    asking = TopicAdmin(Settings(kafka="none:1", node_id="node"))
    assert wait_for_ends(asking, [("calls", 0)], threading.Event()) == {("calls", 0): 7}
