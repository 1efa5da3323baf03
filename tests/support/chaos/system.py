"""The processes under test, started with the command that users run, and started again when they die."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path

from confluent_kafka import Consumer, TopicPartition
from confluent_kafka.admin import AdminClient, NewTopic  # type: ignore[attr-defined]  # it does not say so

from chaos.broker import Broker
from chaos.plan import IDLE_MS, LATENESS_MS, NODES, OWN_TOPICS, ROUTERS, STREAMS, WINDOW_MS, Plan

_AGAIN_S = (0.5, 1.0, 2.0, 5.0)
"""Until a process that ended is started again; longer each time if it ended by itself."""
_UP_S = 60.0
_LEAVE_S = 10.0
"""A worker that is asked to leave does so within this, by the contract."""
LINK_OF = {"node-1": "LINKA", "router-1": "LINKB", "streams-1": "LINKC"}


def now_ms() -> int:
    """Return the wall clock, ms."""
    return time.time_ns() // 1_000_000


@dataclass
class Life:
    """One process from its start to its end."""

    name: str
    pid: int
    began_ms: int
    ended_ms: int | None = None
    code: int | None = None
    asked: str | None = None
    """What the nemesis did that may have ended it; None: it ended by itself."""


@dataclass
class Worker:
    """A process that is to be there: what it is started with, and its lives so far."""

    name: str
    environment: dict[str, str]
    process: subprocess.Popen[bytes] | None = None
    lives: list[Life] = field(default_factory=list)
    lock: threading.Lock = field(default_factory=threading.Lock)

    @property
    def pid(self) -> int | None:
        """Its process, if it runs."""
        return None if self.process is None or self.process.poll() is not None else self.process.pid


class System:
    """Three nodes, two routers and three stream workers, each looked after.

    Parameters
    ----------
    plan : Plan
        Where.
    broker : Broker
        Which runs.
    """

    def __init__(self, plan: Plan, broker: Broker) -> None:
        self._plan = plan
        self._broker = broker
        self._closing = threading.Event()
        self._threads: list[threading.Thread] = []
        self.workers = {one.name: one for one in self._all()}
        plan.logs.mkdir(parents=True)
        plan.tries.mkdir()

    def start(self) -> None:
        """Make the callers' topics, start everything, and wait until all say that they are up."""
        admin = AdminClient({"bootstrap.servers": self._broker.servers()})
        for future in admin.create_topics([NewTopic(name, 4, 1) for name in OWN_TOPICS]).values():
            future.result(30)
        for worker in self.workers.values():
            thread = threading.Thread(target=self._look_after, args=(worker,), name=worker.name, daemon=True)
            thread.start()
            self._threads.append(thread)
        missing = self.await_up(self.workers)
        assert not missing, f"these did not come up: {missing}; see {self._plan.logs}"

    def signal(self, name: str, number: signal.Signals, asked: str | None = None) -> bool:
        """Send a process a signal; `asked` says that it may end by it. Say whether there was one."""
        worker = self.workers[name]
        with worker.lock:
            if worker.pid is None or worker.process is None:
                return False
            if asked is not None:
                worker.lives[-1].asked = asked
            worker.process.send_signal(number)
            return True

    def await_up(self, names: Iterable[str]) -> set[str]:
        """Wait until heartbeats of these, from their present processes, say that all their roles are up.

        Return those of which none did.
        """
        waiting = set(names)
        servers = {"bootstrap.servers": self._broker.servers(), "group.id": "chaos", "enable.auto.commit": False}
        consumer = Consumer(servers | {"auto.offset.reset": "earliest"})
        consumer.assign([TopicPartition("nodes", 0, 0)])
        deadline = time.monotonic() + _UP_S
        try:
            while waiting and time.monotonic() < deadline:
                message = consumer.poll(0.5)
                if message is None or message.error() or not message.value():
                    continue
                beat = json.loads(message.value() or b"")
                name = beat["node_id"]
                if name in waiting and beat["sent_ms"] >= self._born_ms(name) and _is_up(beat):
                    waiting.discard(name)
        finally:
            consumer.close()
        return waiting

    def dump(self) -> None:
        """End all so that each log tells where every thread stood."""
        self._closing.set()
        for name in self.workers:
            self.signal(name, signal.SIGABRT, "dump")

    def close(self) -> list[Life]:
        """Ask all to leave; return those that did not within the time, or not with 0."""
        self._closing.set()
        for name in self.workers:
            self.signal(name, signal.SIGCONT)
            self.signal(name, signal.SIGTERM, "the end")
        deadline = time.monotonic() + _LEAVE_S
        for worker in self.workers.values():
            if worker.process is None:
                continue
            try:
                worker.process.wait(max(0.1, deadline - time.monotonic()))
            except subprocess.TimeoutExpired:
                worker.process.kill()
        for thread in self._threads:
            thread.join()
        last = [worker.lives[-1] for worker in self.workers.values() if worker.lives]
        return [life for life in last if life.code != 0 and life.asked != "dump"]

    def lives(self) -> list[Life]:
        """Return every process that there was."""
        return [life for worker in self.workers.values() for life in worker.lives]

    def _born_ms(self, name: str) -> int:
        lives = self.workers[name].lives
        return lives[-1].began_ms if lives else now_ms()

    def _look_after(self, worker: Worker) -> None:
        alone = 0
        while not self._closing.is_set():
            with (self._plan.logs / f"{worker.name}.log").open("ab") as output, worker.lock:
                began_ms = now_ms()
                worker.process = subprocess.Popen(
                    [Path(sys.executable).with_name("faust"), "-A", "easyremote", "worker", "-l", "warn"],
                    env=os.environ | worker.environment,
                    stdin=subprocess.DEVNULL,
                    stdout=output,
                    stderr=output,
                    cwd=self._plan.directory,
                    start_new_session=True,
                )
                worker.lives.append(Life(worker.name, worker.process.pid, began_ms))
            code = worker.process.wait()
            with worker.lock:
                life = worker.lives[-1]
                life.ended_ms, life.code = now_ms(), code
            with (self._plan.logs / f"{worker.name}.log").open("a") as output:
                output.write(f"--- pid {life.pid} ended with {code} at {life.ended_ms}, asked: {life.asked} ---\n")
            alone = alone + 1 if life.asked is None else 0
            self._closing.wait(_AGAIN_S[min(alone, len(_AGAIN_S) - 1)])

    def _all(self) -> list[Worker]:
        node = {"EASYREMOTE_ROLES": "inference", "EASYREMOTE_FUNCTIONS": "chaos.functions"}
        node |= {"EASYREMOTE_MODELS": "chaos.model:ChaosModel"}
        streams = {"EASYREMOTE_ROLES": "streams", "EASYREMOTE_PIPELINES": "chaos.pipelines"}
        made = [self._worker(name, node) for name in NODES]
        made += [self._worker(name, {"EASYREMOTE_ROLES": "router"}) for name in ROUTERS]
        made += [
            self._worker(name, streams | {"EASYREMOTE_STANDBY": "true" if name == STREAMS[-1] else "false"})
            for name in STREAMS
        ]
        return made

    def _worker(self, name: str, environment: dict[str, str]) -> Worker:
        here = os.environ.get("PYTHONPATH", "")
        common = {
            "EASYREMOTE_KAFKA": self._broker.servers(LINK_OF.get(name)),
            "EASYREMOTE_NODE_ID": name,
            "EASYREMOTE_DATA_DIR": str(self._plan.directory / "data"),
            "EASYREMOTE_BLOBS": str(self._plan.blobs),
            "EASYREMOTE_MODELS": "",
            "EASYREMOTE_WINDOW_S": str(WINDOW_MS / 1000),
            "EASYREMOTE_LATENESS_S": str(LATENESS_MS / 1000),
            "EASYREMOTE_IDLE_S": str(IDLE_MS / 1000),
            "CHAOS_JOURNAL": str(self._plan.journal),
            "CHAOS_TRIES": str(self._plan.tries),
            "PYTHONPATH": os.pathsep.join([str(Path(__file__).parents[1]), *([here] if here else [])]),
            "PYTHONUNBUFFERED": "1",
            "PYTHONFAULTHANDLER": "1",
        }
        return Worker(name, common | environment)


def _is_up(beat: dict[str, object]) -> bool:
    roles, ready = beat.get("roles"), beat.get("ready")
    assert isinstance(roles, list)
    assert isinstance(ready, list)
    return set(roles) == set(ready) and ("inference" not in roles or bool(beat.get("partitions")))
