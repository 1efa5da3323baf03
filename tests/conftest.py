"""One real Kafka for the whole run, and a namespace of its own for each test."""

from __future__ import annotations

import os
import uuid
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import beside
import pytest
from easyremote.deploy.broker import EmbeddedBroker
from easyremote.deploy.jars import KAFKA_VERSION
from easyremote.settings import Settings, load_settings, user_data_dir
from hypothesis import settings as properties
from sweeping import Sweeper

# A property holds however busy the machine is; unit tests take seconds altogether.
properties.register_profile("untimed", deadline=None, max_examples=50)
properties.load_profile("untimed")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    beside.in_turn(items)


def pytest_runtestloop(session: pytest.Session) -> None:
    if any(map(beside.is_chaos, session.items)) and not session.config.option.collectonly:
        session.config.stash[beside.CHAOS] = beside.start()


def pytest_sessionfinish(session: pytest.Session) -> None:
    if beside.CHAOS in session.config.stash:
        beside.end(session.config.stash[beside.CHAOS])


@pytest.fixture(scope="session")
def kafka(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    configured = os.environ.get("EASYREMOTE_KAFKA")
    if configured:
        yield configured
        return
    broker = EmbeddedBroker(tmp_path_factory.mktemp("kafka"), jars_dir=user_data_dir() / "kafka" / KAFKA_VERSION)
    try:
        yield broker.start().bootstrap_servers
    finally:
        broker.stop()


@pytest.fixture(autouse=True)
def _settings_read_anew() -> Iterator[None]:
    """A process reads its settings once; what one test has set must not be another's."""
    load_settings.cache_clear()
    yield
    load_settings.cache_clear()


@pytest.fixture(scope="session")
def sweeper(kafka: str) -> Iterator[Sweeper]:
    with closing(Sweeper(kafka)) as found:
        yield found


@pytest.fixture
def settings(kafka: str, tmp_path: Path, sweeper: Sweeper) -> Iterator[Settings]:
    """A namespace that is the test's alone; what is in it is deleted when the test ends."""
    namespace = f"t{uuid.uuid4().hex[:8]}-"
    yield Settings(kafka=kafka, namespace=namespace, data_dir=tmp_path, node_id="test")
    sweeper.sweep(namespace)
