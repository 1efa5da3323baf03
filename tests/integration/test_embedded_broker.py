import os
import signal
import socket
import time
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest
from confluent_kafka import IsolationLevel, KafkaException, Producer, TopicPartition
from confluent_kafka.admin import AdminClient, NewTopic, OffsetSpec  # type: ignore[attr-defined]  # exported without saying so
from easyremote.deploy import broker as embedded
from easyremote.deploy.broker import EmbeddedBroker
from easyremote.deploy.jars import KAFKA_VERSION
from easyremote.deploy.ports import free_port
from easyremote.errors import BrokerUnavailable
from easyremote.settings import user_data_dir

pytestmark = pytest.mark.broker


@pytest.fixture
def broker(tmp_path: Path) -> Iterator[EmbeddedBroker]:
    own = EmbeddedBroker(tmp_path, jars_dir=user_data_dir() / "kafka" / KAFKA_VERSION)
    try:
        yield own
    finally:
        own.reset()


@pytest.fixture
def taken() -> Iterator[int]:
    """A port on which another program listens."""
    with socket.create_server(("127.0.0.1", 0)) as other:
        yield other.getsockname()[1]


def test_the_broker_is_found_again_keeps_its_data_and_leaves_nothing(tmp_path: Path, broker: EmbeddedBroker) -> None:
    first = broker.start()
    assert EmbeddedBroker(tmp_path).start() == first
    admin = AdminClient({"bootstrap.servers": first.bootstrap_servers})
    admin.create_topics([NewTopic("kept", num_partitions=1)])["kept"].result(10)
    assert broker.stop()
    assert not psutil.pid_exists(first.pid)
    again = broker.start()
    assert again.port == first.port
    topics = AdminClient({"bootstrap.servers": again.bootstrap_servers}).list_topics(timeout=10).topics
    assert "kept" in topics
    broker.reset()
    assert not (tmp_path / "broker").exists()
    assert not psutil.pid_exists(again.pid)


@pytest.mark.parametrize("which", ["broker", "controller"])
def test_a_port_taken_between_its_choice_and_its_use_is_chosen_again(
    broker: EmbeddedBroker, taken: int, which: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = [taken, free_port()] if which == "broker" else [free_port(), taken]
    chosen = [*first, free_port(), free_port()]
    rest = iter(chosen)
    monkeypatch.setattr(embedded, "free_port", lambda **_besides: next(rest))
    state = broker.start()
    assert state.port == chosen[2]
    assert AdminClient({"bootstrap.servers": state.bootstrap_servers}).list_topics(timeout=10).brokers
    assert next(rest, None) is None


def test_ports_that_are_always_taken_end_in_an_error_that_says_so(
    broker: EmbeddedBroker, taken: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(embedded, "_TRIES", 2)
    chosen = iter([taken, free_port(), taken, free_port()])
    monkeypatch.setattr(embedded, "free_port", lambda **_besides: next(chosen))
    with pytest.raises(BrokerUnavailable, match="BindException"):
        broker.start()
    assert broker.status() is None


def test_transactions_open_at_a_kill_hang_nowhere(tmp_path: Path, broker: EmbeddedBroker) -> None:
    servers = broker.start().bootstrap_servers
    admin = AdminClient({"bootstrap.servers": servers})
    topics = [f"hanging-{number}" for number in range(10)]
    for made in admin.create_topics([NewTopic(topic, 4, 1) for topic in topics]).values():
        made.result(10)
    for number in range(4):
        _open_a_transaction(servers, f"open-{number}", topics)
    state = broker.status()
    assert state is not None
    os.kill(state.pid, signal.SIGKILL)
    psutil.Process(state.pid).wait(10)
    servers = broker.start().bootstrap_servers
    # They hang by chance, and only where the session of the killed one ended while the new one was starting.
    assert "Fencing broker 1" in (tmp_path / "broker" / "controller.log").read_text()
    deadline = time.monotonic() + 15
    while behind := _with_what_is_not_stable(servers, topics):
        assert time.monotonic() < deadline, f"transactions hang in {sorted(behind)}"
        time.sleep(0.2)  # nobody is told that a transaction has timed out


def _open_a_transaction(servers: str, name: str, topics: list[str]) -> None:
    # Its time is over while the broker is down, so that the broker ends it as soon as it can.
    settings = {"bootstrap.servers": servers, "transactional.id": name, "transaction.timeout.ms": 1000, "log_level": 0}
    producer = Producer(settings)
    producer.init_transactions(10)
    producer.begin_transaction()
    for topic in topics:
        producer.produce(topic, b"open", partition=0)
    assert producer.flush(10) == 0


def _with_what_is_not_stable(servers: str, topics: list[str]) -> set[str]:
    admin = AdminClient({"bootstrap.servers": servers, "log_level": 0})
    end: OffsetSpec = OffsetSpec.latest()  # type: ignore[no-untyped-call]
    asked = {TopicPartition(topic, 0): end for topic in topics}
    ends = []
    for level in (IsolationLevel.READ_UNCOMMITTED, IsolationLevel.READ_COMMITTED):
        found = admin.list_offsets(asked, isolation_level=level, request_timeout=10)
        try:
            ends.append({place.topic: future.result().offset for place, future in found.items()})
        except KafkaException:
            return set(topics)  # the broker that answers does not yet lead everything
    return {topic for topic in topics if ends[1][topic] < ends[0][topic]}
