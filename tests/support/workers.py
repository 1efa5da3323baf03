"""Starts real workers for tests, and reads what they leave in the topics."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import psutil
import pytest
from confluent_kafka import Message, Producer
from confluent_kafka.admin import AdminClient, NewTopic  # type: ignore[attr-defined]  # it exports it unsaid
from easyremote.deploy.broker import EmbeddedBroker
from easyremote.errors import TopicError
from easyremote.inference.nodes import NodeWatch
from easyremote.settings import Settings
from easyremote.topics.follower import Follower

STOP_S = 10
"""A worker leaves within this, by the contract."""


def producer_to(servers: str) -> Producer:
    """Return a plain producer of which a record that is sent again comes neither twice nor behind a later one."""
    return Producer({"bootstrap.servers": servers, "enable.idempotence": True})


def start_worker(settings: Settings, module: str = "easyremote", **environment: str) -> subprocess.Popen[bytes]:
    """Start `faust -A easyremote worker`, or with a module of one's own, the functions of `served`, and no models."""
    return subprocess.Popen(
        [Path(sys.executable).with_name("faust"), "-A", module, "worker", "-l", "warn"],
        env=os.environ
        | {
            "EASYREMOTE_KAFKA": settings.bootstrap_servers(),
            "EASYREMOTE_NAMESPACE": settings.namespace,
            "EASYREMOTE_DATA_DIR": str(settings.data_dir),
            "EASYREMOTE_FUNCTIONS": "served",
            "EASYREMOTE_MODELS": "",
            "EASYREMOTE_CREATE_SOURCES": "true",
            "EASYREMOTE_NODE_ID": f"worker-{uuid.uuid4().hex[:6]}",
            "PYTHONPATH": str(Path(__file__).parent),
        }
        | environment,
    )


def stop(process: subprocess.Popen[bytes]) -> None:
    """Ask a worker to leave; it must do so in time, and in peace."""
    process.terminate()
    try:
        process.wait(STOP_S)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()
        pytest.fail(f"the worker was still there {STOP_S} s after SIGTERM")


def kill(process: subprocess.Popen[bytes]) -> None:
    """End a worker as a crash would."""
    process.kill()
    process.wait()


def make_topic(settings: Settings, name: str, partitions: int) -> None:
    """Make a topic of a test's own."""
    admin, topic = AdminClient({"bootstrap.servers": settings.bootstrap_servers()}), settings.namespace + name
    admin.create_topics([NewTopic(topic, partitions)])[topic].result(30)


def kill_broker(broker: EmbeddedBroker) -> None:
    """End a broker as a crash would."""
    state = broker.status()
    assert state is not None
    os.kill(state.pid, signal.SIGKILL)
    psutil.Process(state.pid).wait(20)


def await_ready(
    settings: Settings, *roles: str, process: subprocess.Popen[bytes] | None = None, timeout_s: float = 90
) -> None:
    """Wait until some live worker says that all these roles are up; `process`, if given, must not end before."""

    def is_ready(watch: NodeWatch) -> bool:
        return any(set(roles) <= set(one.ready) for one in watch.live())

    beat = threading.Event()
    watch: NodeWatch | None = None
    not_there = ""
    try:
        for _ in range(int(timeout_s * 2)):
            beat.clear()
            if process is not None and process.poll() is not None:
                pytest.fail(f"the worker ended with code {process.returncode} before it was ready")
            try:
                watch = watch or NodeWatch(settings, changed=beat.set)
            except TopicError as error:
                not_there = str(error)  # a worker on a busy machine has not made the topic of heartbeats yet
            else:
                if is_ready(watch):
                    return
            beat.wait(0.5)
        pytest.fail(f"no worker is ready as {roles} after {timeout_s} s {not_there}")
    finally:
        if watch is not None:
            watch.close()


@contextmanager
def running(settings: Settings, *roles: str, **environment: str) -> Iterator[subprocess.Popen[bytes]]:
    """Run a worker of some roles until the block ends."""
    process = start_worker(settings, EASYREMOTE_ROLES=",".join(roles), **environment)
    try:
        await_ready(settings, *roles, process=process)
        yield process
    finally:
        if process.poll() is None:
            stop(process)


class Tail:
    """Follows a topic from its beginning and keeps what is committed there."""

    def __init__(self, settings: Settings, topic: str) -> None:
        self.messages: list[Message] = []
        self._came = threading.Condition()
        self._follower = Follower(settings, settings.namespace + topic, self._take, start="beginning")

    def _take(self, messages: Any) -> None:
        with self._came:
            self.messages.extend(messages)
            self._came.notify_all()

    def wait_for(self, enough: Callable[[list[Message]], bool], timeout_s: float = 30) -> list[Message]:
        """Return the messages as soon as they are enough."""
        with self._came:
            if not self._came.wait_for(lambda: enough(self.messages), timeout_s):
                pytest.fail(f"{len(self.messages)} records after {timeout_s} s are not what was waited for")
            return list(self.messages)

    def caught_up(self) -> bool:
        """Wait until all that stood there at the start has come; say whether it has."""
        return self._follower.wait_caught_up(30)

    def close(self) -> None:
        self._follower.close()


@contextmanager
def tail(settings: Settings, topic: str) -> Iterator[Tail]:
    """Follow a topic from its beginning until the block ends."""
    followed = Tail(settings, topic)
    try:
        yield followed
    finally:
        followed.close()
