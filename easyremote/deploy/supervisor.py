"""Runs the whole system on one machine: Kafka, topics, worker.

Each part starts when the one before it is ready; what dies is restarted; all are stopped in reverse.
"""

from __future__ import annotations

import os
import queue
import subprocess
import sys
import threading
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

import psutil
import structlog

from easyremote.clock import monotonic_s
from easyremote.deploy.broker import EmbeddedBroker
from easyremote.errors import ConfigError, EasyRemoteError
from easyremote.folders import private_folder
from easyremote.inference.nodes import NodeWatch
from easyremote.settings import Settings
from easyremote.topics.admin import TopicAdmin
from easyremote.topics.catalog import declarations

__all__ = ["PartState", "Supervisor"]

log = structlog.get_logger(__name__)

_READY_S = 180.0
_ASKED_S = 5.0
_BACKOFF_S = (0.5, 1.0, 2.0, 5.0, 10.0, 30.0)
_STEADY_S = 60.0
"""A part that ran so long before it died is restarted as if it had never died."""
_LOG_TAIL_LINES = 12


@dataclass
class PartState:
    """How one part of the system is doing."""

    name: str
    state: str
    detail: str = ""
    restarts: int = 0


class Supervisor:
    """The system on one machine.

    Use it as a context manager: leaving stops everything that it started.

    Parameters
    ----------
    settings : Settings
        Where Kafka is, if it is elsewhere; the data directory.
    environment : mapping of str to str
        `EASYREMOTE_...` variables of the worker beyond this process's own.
    jars_dir : Path, optional
        Where the jars of Kafka are kept; below the data directory if unset.
    """

    def __init__(
        self,
        settings: Settings,
        environment: Mapping[str, str] | None = None,
        *,
        jars_dir: Path | None = None,
    ) -> None:
        self._given = settings
        self._environment = dict(environment or {})
        self._changed: Callable[[], None] = lambda: None
        self._broker = None if settings.kafka else EmbeddedBroker(settings.data_dir, jars_dir=jars_dir)
        self._owns_broker = False
        self._worker: subprocess.Popen[bytes] | None = None
        self._started_s = 0.0
        self._exits: queue.SimpleQueue[str | None] = queue.SimpleQueue()
        self._stopping = threading.Event()
        self.kafka = PartState("kafka", "waiting")
        self.topics = PartState("topics", "waiting")
        self.worker = PartState("worker", "waiting")
        self.settings = settings
        """The settings with Kafka's address, once it runs."""

    @property
    def parts(self) -> list[PartState]:
        """All parts, in the order of their start."""
        return [self.kafka, self.topics, self.worker]

    @property
    def log_file(self) -> Path:
        """Where the worker's output goes."""
        return self._given.data_dir / "worker" / "worker.log"

    def when_changed(self, tell: Callable[[], None]) -> None:
        """Call `tell` after each change of a part's state."""
        self._changed = tell

    def __enter__(self) -> Supervisor:
        return self

    def __exit__(self, *_error: object) -> None:
        self.close()

    def start(self) -> None:
        """Start everything; return when it is ready.

        Raises
        ------
        EasyRemoteError
            If a part cannot be started; what was started before it is stopped by `close`.
        """
        self._start_kafka()
        self._say(self.topics, "creating")
        created = TopicAdmin(self.settings).ensure(declarations(self.settings.pool_name))
        self._say(self.topics, "ready", f"{len(created)} created" if created else "as declared")
        self._start_worker()
        self.wait_ready()

    def wait_ready(self) -> None:
        """Wait until the worker says that all its roles are up.

        Raises
        ------
        ConfigError
            If it ends before, or is not ready after three minutes; the message has its last log lines.
        """
        beat = threading.Event()
        watch = NodeWatch(self.settings, changed=beat.set)
        deadline = monotonic_s() + _READY_S
        try:
            while not self._is_ready(watch):
                beat.clear()
                if self._worker is not None and self._worker.poll() is not None:
                    raise ConfigError(f"the worker ended with code {self._worker.returncode}:\n{self._log_tail()}")
                if monotonic_s() > deadline:
                    raise ConfigError(f"the worker is not ready after {_READY_S:g} s:\n{self._log_tail()}")
                beat.wait(0.5)
        finally:
            watch.close()
        self._say(self.worker, "ready", f"pid {self._worker.pid}" if self._worker else "")

    def watch(self) -> None:
        """Restart what dies, until `stop` is called from a signal handler or another thread."""
        while True:
            name = self._exits.get()
            if name is None or self._stopping.is_set():
                return
            try:
                self._restart(name)
            except EasyRemoteError as error:
                log.warning("a part cannot be restarted; trying on", part=name, error=str(error))
                self._exits.put(name)

    def stop(self) -> None:
        """End `watch`."""
        self._stopping.set()
        self._exits.put(None)

    def close(self) -> None:
        """Stop everything that was started, in reverse: asked first, killed after 5 s."""
        self.stop()
        if self._worker is not None and self._worker.poll() is None:
            self._say(self.worker, "stopping")
            self._worker.terminate()
            try:
                self._worker.wait(_ASKED_S)
            except subprocess.TimeoutExpired:
                log.warning("the worker did not leave in time and is killed", waited_s=_ASKED_S)
                self._worker.kill()
                self._worker.wait()
        if self._worker is not None:
            self._say(self.worker, "stopped")
        if self._broker is not None and self._owns_broker:
            self._say(self.kafka, "stopping")
            self._broker.stop(_ASKED_S)
            self._say(self.kafka, "stopped")

    def _start_kafka(self) -> None:
        if self._broker is None:
            self._say(self.kafka, "elsewhere", self._given.bootstrap_servers())
            return
        self._say(self.kafka, "starting")
        found = self._broker.status() is not None
        state = self._broker.start(fetching=lambda: self._say(self.kafka, "fetching", "Apache Kafka, 54 MB"))
        self._owns_broker = self._owns_broker or not found
        self.settings = self._given.model_copy(update={"kafka": state.bootstrap_servers})
        self._say(self.kafka, "ready", f"{state.bootstrap_servers}, pid {state.pid}")
        self._tell_end("kafka", psutil.Process(state.pid).wait)

    def _start_worker(self) -> None:
        self._say(self.worker, "starting")
        private_folder(self.log_file.parent)
        with self.log_file.open("wb") as output:
            self._worker = subprocess.Popen(
                [Path(sys.executable).with_name("faust"), "-A", "easyremote", "worker", "-l", "warn"],
                env=os.environ
                | {
                    "EASYREMOTE_KAFKA": self.settings.bootstrap_servers(),
                    "EASYREMOTE_DATA_DIR": str(self._given.data_dir),
                    # The same id after a restart: what the last one left open in Kafka is ended at once.
                    "EASYREMOTE_NODE_ID": self._given.node_id,
                }
                | self._environment,
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=output,
                # Ctrl+C is for this program, which then stops the worker.
                start_new_session=True,
            )
        self._started_s = monotonic_s()
        self._tell_end("worker", self._worker.wait)

    def _restart(self, name: str) -> None:
        part = self.kafka if name == "kafka" else self.worker
        if name == "worker" and self._worker is not None and self._worker.poll() is None:
            return
        if monotonic_s() - self._started_s > _STEADY_S:
            part.restarts = 0
        pause_s = _BACKOFF_S[min(part.restarts, len(_BACKOFF_S) - 1)]
        part.restarts += 1
        self._say(part, "died", f"starting again in {pause_s:g} s")
        if self._stopping.wait(pause_s):
            return
        if name == "kafka":
            self._start_kafka()
        else:
            self._start_worker()
            self.wait_ready()

    def _tell_end(self, name: str, wait: Callable[[], object]) -> None:
        def tell() -> None:
            wait()
            self._exits.put(name)

        threading.Thread(target=tell, name=f"end of {name}", daemon=True).start()

    def _is_ready(self, watch: NodeWatch) -> bool:
        started_ms = self._started_ms()
        return any(
            beat.node_id == self._given.node_id and beat.sent_ms >= started_ms and set(beat.ready) == set(beat.roles)
            for beat in watch.live()
        )

    def _started_ms(self) -> float:
        assert self._worker is not None
        try:
            return float(psutil.Process(self._worker.pid).create_time()) * 1000
        except psutil.NoSuchProcess:
            return float("inf")

    def _say(self, part: PartState, state: str, detail: str = "") -> None:
        part.state, part.detail = state, detail
        self._changed()

    def _log_tail(self) -> str:
        return "\n".join(self.log_file.read_text(errors="replace").splitlines()[-_LOG_TAIL_LINES:])
