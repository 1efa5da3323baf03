"""The broker goes away under load and comes back; every call that it took is accounted for."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from easyremote.deploy.broker import BROKER_PROPERTIES, EmbeddedBroker
from easyremote.deploy.jars import KAFKA_VERSION
from easyremote.settings import Settings, user_data_dir
from easyremote.topics.admin import TopicAdmin
from easyremote.topics.catalog import REPLIES, declarations
from easyremote.topics.follower import Follower
from easyremote.topics.known_brokers import KnownBrokers
from easyremote.topics.producer import RecordProducer
from history import History, judge
from load import load, seeded
from system import system
from workers import kill_broker

pytestmark = [pytest.mark.broker, pytest.mark.faults, pytest.mark.timeout(200)]


@pytest.fixture
def broker(tmp_path: Path) -> Iterator[EmbeddedBroker]:
    """A broker of the test's own."""
    own = EmbeddedBroker(tmp_path / "kafka", jars_dir=user_data_dir() / "kafka" / KAFKA_VERSION)
    try:
        yield own
    finally:
        own.reset()


@pytest.mark.parametrize("end", [EmbeddedBroker.stop, kill_broker], ids=["SIGTERM", "kill -9"])
def test_a_broker_restarted_under_load_costs_no_caller_its_one_reply(
    broker: EmbeddedBroker, tmp_path: Path, end: object
) -> None:
    assert callable(end)
    seed, chance = seeded()
    history, journal = History(), tmp_path / "journal"
    first = broker.start()
    settings = Settings(kafka=first.bootstrap_servers, namespace="own-", data_dir=tmp_path, node_id="test")
    with system(settings) as running:
        running.launch("router", "router")
        running.launch("node", "inference")
        running.await_up("router", "node")
        with load(settings, history, journal, every_s=0.001) as calls:
            assert history.wait_ended(500 + chance.randrange(1_000), 60)
            end(broker)
            assert broker.start().port == first.port
            assert history.wait_ended(len(history.ended) + 2_000, 60)
            calls.stop()
        verdict = judge(settings, history, journal=journal, seed=seed)
    verdict.require(one_record=False)


class _Sending:
    """A producer that sends all the time, and whether a record of its was acknowledged."""

    def __init__(self, settings: Settings) -> None:
        self._topic = settings.namespace + REPLIES
        self._producer = RecordProducer(settings)
        self._pending = 0
        self.heard = threading.Event()

    def send(self) -> None:
        if self._pending < 100:
            self._pending += 1
            self._producer.send(self._topic, b"x", partition=0, on_delivery=self._told)

    def close(self) -> None:
        self._producer.close(0.0)

    def _told(self, error: object, _message: object) -> None:
        self._pending -= 1
        if error is None:
            self.heard.set()


class _Reading:
    """A follower, and whether records came."""

    def __init__(self, settings: Settings) -> None:
        self.heard = threading.Event()
        self._follower = Follower(settings, settings.namespace + REPLIES, self._take, start="end")

    def close(self) -> None:
        self._follower.close()

    def _take(self, _messages: object) -> None:
        self.heard.set()


@contextmanager
def _busy_clients(settings: Settings) -> Iterator[list[_Sending | _Reading]]:
    TopicAdmin(settings).ensure(declarations())
    sending = [_Sending(settings) for _ in range(30)]
    clients: list[_Sending | _Reading] = [*sending, *(_Reading(settings) for _ in range(5))]
    enough = threading.Event()

    def load_all() -> None:
        while not enough.wait(0.002):
            for one in sending:
                one.send()

    loading = threading.Thread(target=load_all)
    loading.start()
    try:
        yield clients
    finally:
        enough.set()
        loading.join()
        for client in clients:
            client.close()


@pytest.fixture
def forgetful(monkeypatch: pytest.MonkeyPatch) -> threading.Event:
    """Set when a client has forgotten every broker."""
    any_has = threading.Event()
    look = KnownBrokers.look

    def noting(known: KnownBrokers, report: str) -> None:
        look(known, report)
        if known.are_forgotten:
            any_has.set()

    monkeypatch.setattr(KnownBrokers, "look", noting)
    return any_has


@pytest.mark.alone
def test_clients_that_are_told_of_no_broker_by_one_on_its_way_out_find_it_again(
    broker: EmbeddedBroker, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, forgetful: threading.Event
) -> None:
    # As another Kafka does; the embedded one says nothing of the kind.
    monkeypatch.setitem(BROKER_PROPERTIES, "controlled.shutdown.enable", "true")
    settings = Settings(kafka=broker.start().bootstrap_servers, namespace="own-", data_dir=tmp_path, node_id="test")
    with _busy_clients(settings) as clients:
        for _ in range(3):
            forgetful.wait(2)
            broker.stop()
            for client in clients:
                client.heard.clear()
            broker.start()
            until_s = time.monotonic() + 25
            behind = [client for client in clients if not client.heard.wait(max(0.0, until_s - time.monotonic()))]
            assert not behind, f"{len(behind)} of {len(clients)} have not found the broker again"
            if forgetful.is_set():
                break
