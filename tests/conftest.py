"""One real Kafka for the whole run, and a namespace of its own for each test."""

from __future__ import annotations

import fcntl
import os
import uuid
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import beside
import pytest
import structlog
from easyremote.deploy.broker import EmbeddedBroker
from easyremote.deploy.jars import KAFKA_VERSION, ensure_jars
from easyremote.folders import private_folder
from easyremote.settings import Settings, load_settings, user_data_dir
from hypothesis import settings as properties
from sweeping import Sweeper

# A property holds however busy the machine is; unit tests take seconds altogether.
properties.register_profile("untimed", deadline=None, max_examples=50)
properties.load_profile("untimed")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    beside.in_turn(items)


def pytest_runtestloop(session: pytest.Session) -> None:
    # Where tests run at once, the one of them that gets the test of it starts it.
    is_one_of_several = hasattr(session.config, "workerinput")
    if not is_one_of_several and any(map(beside.is_chaos, session.items)) and not session.config.option.collectonly:
        session.config.stash[beside.CHAOS] = beside.start()


def pytest_sessionfinish(session: pytest.Session) -> None:
    if beside.CHAOS in session.config.stash:
        beside.end(session.config.stash[beside.CHAOS])


@pytest.fixture(scope="session")
def kafka(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    configured = os.environ.get("EASYREMOTE_KAFKA")
    if configured:
        yield configured
        return
    jars = user_data_dir() / "kafka" / KAFKA_VERSION
    private_folder(jars)
    with (jars / "fetching.lock").open("w") as lock:  # of tests that run at once one fetches
        fcntl.flock(lock, fcntl.LOCK_EX)
        ensure_jars(jars)
    broker = EmbeddedBroker(tmp_path_factory.mktemp("kafka"), jars_dir=jars)
    try:
        yield broker.start().bootstrap_servers
    finally:
        if request.session.testsfailed:
            broker.stop()  # somebody will want to look at what it says
        else:
            broker.reset()  # else one of the next runs deletes its 10,000 files


@pytest.fixture(autouse=True)
def _as_in_a_new_process() -> Iterator[None]:
    """A process reads its settings once and says once where its log goes; what one test has set is not another's."""
    load_settings.cache_clear()
    yield
    load_settings.cache_clear()
    structlog.reset_defaults()


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
