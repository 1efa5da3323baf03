import socket
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest
from confluent_kafka.admin import AdminClient, NewTopic  # type: ignore[attr-defined]  # exported without saying so
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
