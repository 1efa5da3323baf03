"""The broker goes away under load and comes back; every call that it took is accounted for."""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest
from easyremote.deploy.broker import EmbeddedBroker
from easyremote.deploy.jars import KAFKA_VERSION
from easyremote.settings import Settings, user_data_dir
from history import History, judge
from load import load, seeded
from system import system

pytestmark = [pytest.mark.broker, pytest.mark.faults, pytest.mark.timeout(200)]


@pytest.fixture
def broker(tmp_path: Path) -> Iterator[EmbeddedBroker]:
    """A broker of the test's own."""
    own = EmbeddedBroker(tmp_path / "kafka", jars_dir=user_data_dir() / "kafka" / KAFKA_VERSION)
    try:
        yield own
    finally:
        own.reset()


def _kill(broker: EmbeddedBroker) -> None:
    state = broker.status()
    assert state is not None
    os.kill(state.pid, signal.SIGKILL)
    psutil.Process(state.pid).wait(20)


@pytest.mark.parametrize("end", [EmbeddedBroker.stop, _kill], ids=["SIGTERM", "kill -9"])
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
