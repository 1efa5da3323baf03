"""What the administration of topics does when the broker refuses to answer."""

from __future__ import annotations

import threading
from collections.abc import Iterable
from concurrent.futures import Future
from types import SimpleNamespace
from typing import Any

import pytest
from confluent_kafka import KafkaError, KafkaException, TopicPartition
from easyremote.errors import TopicError
from easyremote.settings import Settings
from easyremote.topics import admin
from easyremote.topics.admin import TopicAdmin, wait_for_ends
from easyremote.topics.catalog import declarations


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


class _SlowToKnow:
    """Stands for a broker that has topics made, or says that they are there, and knows of them after a while."""

    def __init__(self, there: Iterable[str] = ()) -> None:
        self.made: set[str] = set(there)
        self.asked = 0

    def poll(self, _timeout_s: float) -> None: ...

    def list_topics(self, timeout: float) -> Any:
        known = self.made if self.asked >= 3 else set()
        return SimpleNamespace(topics={name: SimpleNamespace(partitions=[0] * 9) for name in known})

    def create_topics(self, new: Iterable[Any], **_how: Any) -> dict[str, Future[Any]]:
        answers: dict[str, Future[Any]] = {one.topic: Future() for one in new}
        for name, answer in answers.items():
            if name in self.made:
                answer.set_exception(KafkaException(KafkaError(KafkaError.TOPIC_ALREADY_EXISTS)))
            else:
                answer.set_result(None)
        self.made |= set(answers)
        return answers

    def describe_topics(self, asked: Any, **_how: Any) -> dict[str, Future[Any]]:
        self.asked += 1
        answers: dict[str, Future[Any]] = {name: Future() for name in self.made}
        for answer in answers.values():
            if self.asked >= 3:
                answer.set_result(SimpleNamespace(partitions=[0] * 9))
            else:
                answer.set_exception(KafkaException(KafkaError(KafkaError.UNKNOWN_TOPIC_OR_PART)))
        return answers

    def describe_configs(self, resources: Iterable[Any]) -> dict[Any, Future[Any]]:
        answers: dict[Any, Future[Any]] = {one: Future() for one in resources}
        for answer in answers.values():
            entry = SimpleNamespace(value="another", source=1)
            answer.set_result(dict.fromkeys(ALERTS.config(), entry))
        return answers


ALERTS = next(one for one in declarations() if one.name == "alerts")


def test_topics_are_made_when_the_broker_knows_of_them(monkeypatch: pytest.MonkeyPatch) -> None:
    client = _SlowToKnow()
    monkeypatch.setattr(admin, "AdminClient", lambda _config: client)
    assert TopicAdmin(Settings(kafka="none:1", namespace="x-")).ensure([ALERTS]) == ["x-alerts"]
    assert client.asked == 3


def test_a_topic_that_another_has_just_made_is_checked_too(monkeypatch: pytest.MonkeyPatch) -> None:
    client = _SlowToKnow(["x-alerts"])
    monkeypatch.setattr(admin, "AdminClient", lambda _config: client)
    with pytest.raises(TopicError, match=r"x-alerts: partitions 9, declared 4"):
        TopicAdmin(Settings(kafka="none:1", namespace="x-")).ensure([ALERTS])
