"""A broker that is not there yet, dies, or does not answer ends no worker: the same processes go on."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import psutil
import pytest
from easyremote import CallOptions, Client
from easyremote.clock import now_ms
from easyremote.deploy.broker import BROKER_PROPERTIES, EmbeddedBroker
from easyremote.deploy.jars import KAFKA_VERSION
from easyremote.settings import Settings, user_data_dir
from easyremote.topics.admin import TopicAdmin
from easyremote.topics.catalog import declarations
from proxy import advertise, free_port, proxy
from workers import await_ready, producer_to, stop, tail

pytestmark = [pytest.mark.broker, pytest.mark.faults, pytest.mark.timeout(180)]

ROLES = ("router", "streams", "inference", "edge")
AWAY_S = float(os.environ.get("AWAY_S", "12"))
"""Longer than a request to the broker may take."""
SUPPORT = Path(__file__).parents[1] / "support"


class Worker:
    """A worker of all roles and a pipeline of a user's, and what it has said."""

    def __init__(self, data_dir: Path, kafka: str | None = None) -> None:
        self._said = data_dir / "said.log"
        environment = {name: value for name, value in os.environ.items() if name != "EASYREMOTE_KAFKA"}
        environment |= {
            "EASYREMOTE_DATA_DIR": str(data_dir),
            "EASYREMOTE_NODE_ID": "worker",
            "EASYREMOTE_FUNCTIONS": "served",
            "EASYREMOTE_PIPELINES": "piped",
            "EASYREMOTE_MODELS": "",
            "EASYREMOTE_IDLE_S": "1",
            "EASYREMOTE_WINDOW_S": "1",
            "EASYREMOTE_LATENESS_S": "0",
            "PYTHONPATH": os.pathsep.join([os.environ.get("PYTHONPATH", ""), str(SUPPORT)]),
        }
        with self._said.open("wb") as output:
            self.process = subprocess.Popen(
                [Path(sys.executable).with_name("faust"), "-A", "easyremote", "worker", "-l", "warn"],
                env=environment | ({} if kafka is None else {"EASYREMOTE_KAFKA": kafka}),
                stdout=output,
                stderr=output,
            )

    @property
    def said(self) -> list[str]:
        return self._said.read_text(errors="replace").splitlines()

    def has_said(self, what: str) -> int:
        return sum(what in line for line in self.said)

    def has_met_no_error(self) -> None:
        """See that nothing failed: what a broker that is away leads to is expected."""
        assert not any("Traceback" in line or "[error" in line for line in self.said), "\n".join(self.said[-200:])

    def await_said(self, what: str, within_s: float = 60) -> None:
        deadline = time.monotonic() + within_s
        while not self.has_said(what):
            assert self.process.poll() is None, self.said[-20:]
            assert time.monotonic() < deadline, self.said[-20:]
            time.sleep(0.05)


@contextmanager
def working(data_dir: Path, kafka: str | None = None) -> Iterator[Worker]:
    worker = Worker(data_dir, kafka)
    try:
        yield worker
        assert worker.process.poll() is None, worker.said[-20:]
        stop(worker.process)
    finally:
        if worker.process.poll() is None:
            worker.process.kill()
            worker.process.wait()


@pytest.fixture
def broker(tmp_path: Path) -> Iterator[EmbeddedBroker]:
    """A broker of the test's own, where a worker of this data directory looks for one; not started."""
    own = EmbeddedBroker(tmp_path, jars_dir=user_data_dir() / "kafka" / KAFKA_VERSION, port=free_port())
    try:
        yield own
    finally:
        own.reset()


def serves(settings: Settings) -> None:
    """Have a call answered, and a window closed."""
    with Client(settings) as client, tail(settings, "aggregates") as aggregates:
        assert client.call("echo", "here", options=CallOptions(timeout_s=60)) == "here"
        producer = producer_to(settings.bootstrap_servers())
        assert aggregates.caught_up()
        before = len(aggregates.messages)
        producer.produce(
            "readings", b'{"device_id": "d", "metric": "flow", "value": 1, "timestamp_ms": %d}' % now_ms(), key="d"
        )
        assert producer.flush(30) == 0
        aggregates.wait_for(lambda messages: len(messages) > before, 60)


def kill(broker: EmbeddedBroker) -> None:
    state = broker.status()
    assert state is not None
    os.kill(state.pid, signal.SIGKILL)
    psutil.Process(state.pid).wait(20)


def test_a_worker_that_is_started_before_its_broker_waits_for_it_and_serves(
    broker: EmbeddedBroker, tmp_path: Path
) -> None:
    with working(tmp_path) as worker:
        worker.await_said("this worker waits for Kafka")
        settings = Settings(kafka=broker.start().bootstrap_servers, data_dir=tmp_path, node_id="test")
        await_ready(settings, *ROLES, process=worker.process)
        serves(settings)
        assert worker.has_said("this worker waits for Kafka") == 1
        assert worker.has_said("no Kafka is known") == 1
        assert worker.has_said("Kafka answers; this worker starts") == 1


def test_a_worker_that_waits_for_its_broker_leaves_when_it_is_asked_to(tmp_path: Path) -> None:
    with working(tmp_path) as worker:
        worker.await_said("this worker waits for Kafka")


def test_a_worker_outlives_its_broker_and_says_so_once(broker: EmbeddedBroker, tmp_path: Path) -> None:
    settings = Settings(kafka=broker.start().bootstrap_servers, data_dir=tmp_path, node_id="test")
    TopicAdmin(settings).ensure(declarations())
    with working(tmp_path, settings.kafka) as worker:
        await_ready(settings, *ROLES, process=worker.process)
        serves(settings)
        kill(broker)
        worker.await_said("Kafka is away")
        time.sleep(AWAY_S)
        broker.start()
        serves(settings)
        worker.await_said("Kafka is back")
        assert worker.has_said("Kafka is away") == 1
        assert worker.has_said("%3|") == 0
        worker.has_met_no_error()


def test_a_broker_that_does_not_answer_at_the_start_or_later_is_waited_for(
    broker: EmbeddedBroker, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    port = free_port()
    monkeypatch.setitem(BROKER_PROPERTIES, "advertised.listeners", advertise(port)["advertised.listeners"])
    with proxy(broker.start().port, port) as between:
        between.stall()
        settings = Settings(kafka=between.address, data_dir=tmp_path, node_id="test")
        with working(tmp_path, between.address) as worker:
            worker.await_said("this worker waits for Kafka")
            between.resume()
            await_ready(settings, *ROLES, process=worker.process)
            between.stall()
            time.sleep(AWAY_S)
            between.resume()
            serves(settings)
            worker.has_met_no_error()
