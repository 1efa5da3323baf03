"""Every request to the broker is made again while what it is told passes by itself."""

from __future__ import annotations

import threading
from collections.abc import Callable
from concurrent.futures import Future
from types import SimpleNamespace
from typing import Any

import pytest
from confluent_kafka import KafkaError, KafkaException, TopicPartition
from easyremote.errors import BrokerUnavailable, TopicError
from easyremote.settings import Settings
from easyremote.topics import admin, deliveries, producer, transactions
from easyremote.topics.admin import TopicAdmin
from easyremote.topics.catalog import TopicDeclaration
from easyremote.topics.deliveries import AtLeastOnce, Output
from easyremote.topics.producer import RecordProducer
from easyremote.topics.retry import Backoff
from easyremote.topics.transactions import Transactions, committed_offsets

SETTINGS = Settings(kafka="none:1", node_id="test")
TOPIC = TopicDeclaration(name="t", partitions=1, key="k", value="v", written_by="w", read_by="r")
PASSING = ["_TRANSPORT", "_TIMED_OUT", "COORDINATOR_LOAD_IN_PROGRESS", "COORDINATOR_NOT_AVAILABLE", "NOT_COORDINATOR"]
OFFSETS = {("in", 0): 7}
OUTPUT = Output("out", None, b"v")


def says(name: str) -> KafkaException:
    return KafkaException(KafkaError(getattr(KafkaError, name)))


class Failing:
    """Raises once at each request, then does it."""

    def __init__(self, name: str) -> None:
        self._name = name
        self.asked: list[str] = []

    def meets(self, request: str) -> None:
        self.asked.append(request)
        if self.asked.count(request) == 1:
            raise says(self._name)

    def future(self, request: str, result: Any) -> Future[Any]:
        done: Future[Any] = Future()
        try:
            self.meets(request)
        except KafkaException as error:
            done.set_exception(error)
        else:
            done.set_result(result)
        return done


class Admin(Failing):
    """Stands for the client of the broker's administration."""

    def poll(self, _timeout_s: float) -> None: ...

    def list_topics(self, timeout: float) -> Any:
        self.meets("list_topics")
        return SimpleNamespace(topics={"t": SimpleNamespace(partitions={0: None})}, brokers={1: None})

    def create_topics(self, new: list[Any], operation_timeout: float) -> dict[str, Future[None]]:
        return {one.topic: self.future("create_topics", None) for one in new}

    def describe_configs(self, resources: list[Any]) -> dict[Any, Future[Any]]:
        told = {name: SimpleNamespace(value=value, source=None) for name, value in TOPIC.config().items()}
        return {one: self.future("describe_configs", told) for one in resources}

    def incremental_alter_configs(self, resources: list[Any]) -> dict[Any, Future[None]]:
        return {one: self.future("alter_configs", None) for one in resources}

    def list_offsets(self, asked: dict[TopicPartition, Any], request_timeout: float) -> dict[Any, Future[Any]]:
        return {one: self.future("list_offsets", SimpleNamespace(offset=9)) for one in asked}

    def list_consumer_group_offsets(self, asked: list[Any], **_how: Any) -> dict[str, Future[Any]]:
        found = SimpleNamespace(topic_partitions=[TopicPartition("in", 0, 7)])
        return {"g": self.future("group_offsets", found)}


@pytest.mark.parametrize("name", [*PASSING, "NOT_LEADER_FOR_PARTITION", "LEADER_NOT_AVAILABLE", "_ALL_BROKERS_DOWN"])
@pytest.mark.parametrize(
    ("ask", "requests"),
    [
        (lambda one: one.partitions(), {"list_topics"}),
        (lambda one: one.ensure([TOPIC]), {"list_topics", "describe_configs"}),
        (lambda one: one._create({"new": TOPIC}), {"create_topics"}),
        (lambda one: one.set_group_session("g"), {"alter_configs"}),
        (lambda one: one.ends([("t", 0)]), {"list_offsets"}),
    ],
    ids=["partitions", "ensure", "create", "set_group_session", "ends"],
)
def test_the_administration_is_asked_again(
    monkeypatch: pytest.MonkeyPatch, name: str, ask: Callable[[TopicAdmin], Any], requests: set[str]
) -> None:
    client = Admin(name)
    monkeypatch.setattr(admin, "AdminClient", lambda _config: client)
    monkeypatch.setattr(Backoff, "wait_s", lambda *_: 0.0)
    ask(TopicAdmin(SETTINGS))
    assert {request: client.asked.count(request) for request in requests} == dict.fromkeys(requests, 2)


@pytest.mark.parametrize("name", [*PASSING, "UNSTABLE_OFFSET_COMMIT"])
def test_where_a_group_stands_is_asked_again(monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    client = Admin(name)
    monkeypatch.setattr(transactions, "AdminClient", lambda _config: client)
    monkeypatch.setattr(Backoff, "wait_s", lambda *_: 0.0)
    assert committed_offsets(SETTINGS, "g", [("in", 0)]) == OFFSETS


def test_a_worker_that_ends_does_not_wait_for_where_its_group_stands(monkeypatch: pytest.MonkeyPatch) -> None:
    stopping = threading.Event()
    asked: list[str] = []

    class Undecided:
        def __init__(self, _config: Any) -> None: ...

        def list_consumer_group_offsets(self, *_: Any, **_more: Any) -> dict[str, Any]:
            asked.append("once")
            stopping.set()
            raise KafkaException(KafkaError(KafkaError.UNSTABLE_OFFSET_COMMIT))

    monkeypatch.setattr(transactions, "AdminClient", Undecided)
    with pytest.raises(BrokerUnavailable, match="where group g stands"):
        committed_offsets(SETTINGS, "g", [("in", 0)], stopping)
    assert asked == ["once"]


class Transacting(Failing):
    """Stands for a producer in transactions; a new one of the same id is the same object."""

    def __init__(self, name: str, at: str) -> None:
        super().__init__(name)
        self._at = at
        self.made = 0
        self.committed: list[str | None] = []
        self._open: list[str | None] = []
        self.hangs: threading.Event | None = None

    def make(self, _config: Any) -> Transacting:
        self.made += 1
        return self

    def meets(self, request: str) -> None:
        self.asked.append(request)
        if request == self._at and self.asked.count(request) == 1:
            if self.hangs is not None:
                self.hangs.wait()
            raise says(self._name)

    def init_transactions(self, _timeout_s: float) -> None:
        self.meets("init")

    def begin_transaction(self) -> None:
        self._open = []

    def produce(self, topic: str, *_rest: Any, **_named: Any) -> None:
        self._open.append(topic)

    def send_offsets_to_transaction(self, *_what: Any) -> None:
        self.meets("offsets")

    def commit_transaction(self, _timeout_s: float) -> None:
        self.meets("commit")
        self.committed += self._open

    def abort_transaction(self, _timeout_s: float) -> None:
        self._open = []


@pytest.mark.parametrize("name", PASSING)
@pytest.mark.parametrize("at", ["init", "offsets", "commit"])
def test_a_transaction_is_tried_until_it_is_committed_once(monkeypatch: pytest.MonkeyPatch, name: str, at: str) -> None:
    client = Transacting(name, at)
    monkeypatch.setattr(transactions, "Producer", client.make)
    monkeypatch.setattr(transactions, "_committed", lambda *_: [])
    monkeypatch.setattr(Backoff, "wait_s", lambda *_: 0.0)
    Transactions(SETTINGS, "id", "g").commit([OUTPUT], [], OFFSETS, None)
    assert client.committed == ["out"]
    assert client.made == 2  # after a time that is over only a new one may begin


def test_a_client_that_does_not_come_back_is_left_behind(monkeypatch: pytest.MonkeyPatch) -> None:
    client = Transacting("_TIMED_OUT", "offsets")
    client.hangs = threading.Event()
    monkeypatch.setattr(transactions, "Producer", client.make)
    monkeypatch.setattr(transactions, "_committed", lambda *_: [])
    monkeypatch.setattr(transactions, "_CALL_S", 0.01)
    monkeypatch.setattr(transactions, "_LEEWAY_S", 0.0)
    Transactions(SETTINGS, "id", "g").commit([OUTPUT], [], OFFSETS, None)
    assert client.made == 2
    assert client.committed == ["out"]
    client.hangs.set()


def test_a_worker_that_ends_waits_for_no_commit(monkeypatch: pytest.MonkeyPatch) -> None:
    client = Transacting("_TRANSPORT", "init")
    monkeypatch.setattr(client, "init_transactions", lambda _timeout_s: (_ for _ in ()).throw(says("_TRANSPORT")))
    monkeypatch.setattr(transactions, "Producer", client.make)
    commits = Transactions(SETTINGS, "id", "g")
    commits.give_up()
    with pytest.raises(BrokerUnavailable):
        commits.commit([OUTPUT], [], OFFSETS, None)


class Sending:
    """Stands for a producer whose records wait for the broker."""

    def __init__(self, config: dict[str, Any]) -> None:
        self.config = config
        self.kept: list[tuple[Any, Any]] = []
        self.comes_back = 2

    def produce(self, topic: str, value: Any, *rest: Any, **how: Any) -> None:
        self.kept.append((value, how.get("on_delivery") or (rest[-1] if rest else None)))

    def poll(self, _timeout_s: float) -> None: ...

    def flush(self, _timeout_s: float) -> int:
        self.comes_back -= 1
        return 1 if self.comes_back > 0 else 0

    def close(self) -> None: ...

    def __len__(self) -> int:
        return 0


def test_results_wait_for_a_broker_that_is_away_and_not_for_ever_when_the_worker_ends(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(deliveries, "Producer", Sending)
    sends = AtLeastOnce(SETTINGS)
    assert sends._producer.config["delivery.timeout.ms"] == 0  # type: ignore[attr-defined]
    sends.commit([OUTPUT], [], OFFSETS, None)
    assert [value for value, _ in sends._producer.kept] == [b"v"]  # type: ignore[attr-defined]
    sends._producer.comes_back = 9  # type: ignore[attr-defined]
    sends.give_up()
    with pytest.raises(BrokerUnavailable):
        sends.commit([OUTPUT], [], OFFSETS, None)


def test_what_a_client_of_a_worker_gives_back_goes_out_again_and_nobody_is_told(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(producer, "Producer", Sending)
    sends = RecordProducer(SETTINGS, patient=True)
    client: Any = sends._prompt.client
    assert client.config["delivery.timeout.ms"] == 0
    told: list[Any] = []
    sends.send("t", b"v", on_delivery=lambda error, _message: told.append(error))
    client.kept[0][1](KafkaError(KafkaError._PURGE_QUEUE), None)
    for _ in range(1_000):
        if len(client.kept) == 2:
            break
        threading.Event().wait(0.01)
    assert [value for value, _ in client.kept] == [b"v", b"v"]
    assert not told
    client.kept[1][1](None, None)
    assert told == [None]
    client.kept[1][1](KafkaError(KafkaError.TOPIC_AUTHORIZATION_FAILED), None)
    assert len(told) == 2  # what does not pass is told
    sends.close()


def test_what_stays_wrong_is_told_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    client = Admin("TOPIC_AUTHORIZATION_FAILED")
    monkeypatch.setattr(admin, "AdminClient", lambda _config: client)
    with pytest.raises(TopicError):
        TopicAdmin(SETTINGS).ends([("t", 0)])
    assert client.asked == ["list_offsets"]
