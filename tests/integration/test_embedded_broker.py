from pathlib import Path

import psutil
import pytest
from confluent_kafka.admin import AdminClient, NewTopic  # type: ignore[attr-defined]  # exported without saying so
from easyremote.deploy.broker import EmbeddedBroker
from easyremote.deploy.jars import KAFKA_VERSION
from easyremote.settings import user_data_dir

pytestmark = pytest.mark.broker


def test_the_broker_is_found_again_keeps_its_data_and_leaves_nothing(tmp_path: Path) -> None:
    broker = EmbeddedBroker(tmp_path, jars_dir=user_data_dir() / "kafka" / KAFKA_VERSION)
    try:
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
    finally:
        broker.reset()
    assert not (tmp_path / "broker").exists()
    assert not psutil.pid_exists(again.pid)
