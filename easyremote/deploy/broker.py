"""The embedded broker: real Apache Kafka in KRaft mode, one process, its data kept between runs."""

from __future__ import annotations

import contextlib
import fcntl
import os
import shutil
import signal
import subprocess
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import msgspec
import psutil
import structlog

from easyremote.clock import monotonic_s, now_ms
from easyremote.deploy.former import end_former_session
from easyremote.deploy.jars import KAFKA_VERSION, ensure_jars
from easyremote.deploy.java import find_java
from easyremote.deploy.ports import free_port, is_free, listens
from easyremote.errors import BrokerUnavailable, ConfigError
from easyremote.folders import private_folder
from easyremote.topics.admin import answers

__all__ = ["BROKER_PROPERTIES", "BrokerState", "EmbeddedBroker"]

log = structlog.get_logger(__name__)

BROKER_PROPERTIES = {
    "auto.create.topics.enable": "false",
    "group.initial.rebalance.delay.ms": "0",
    # Lower bounds for sessions, so that a dead worker's partitions are back within 2 s.
    "group.consumer.min.session.timeout.ms": "1000",
    "group.consumer.min.heartbeat.interval.ms": "100",
    # The session of a former self is ended before the start (former.py). One that ended while the broker is only slow
    # would take its partitions from it, and their transactions would hang (docs/decisions/0019).
    "broker.session.timeout.ms": "30000",
    "broker.heartbeat.interval.ms": "300",
    "message.max.bytes": str(4 * 1024 * 1024),
    "offsets.topic.replication.factor": "1",
    "offsets.topic.num.partitions": "4",
    "transaction.state.log.replication.factor": "1",
    "transaction.state.log.min.isr": "1",
    "transaction.state.log.num.partitions": "4",
    # There is nobody to hand anything over to, and a broker on its way out says that there are no brokers: clients of
    # librdkafka that hear it forget this one for good (docs/decisions/0017).
    "controlled.shutdown.enable": "false",
    # What a killed worker left open is ended when its 10 s are over, and not up to 10 s later: others wait for it.
    "transaction.abort.timed.out.transaction.cleanup.interval.ms": "500",
    "share.coordinator.state.topic.replication.factor": "1",
    "share.coordinator.state.topic.min.isr": "1",
    "log.cleaner.dedupe.buffer.size": str(16 * 1024 * 1024),
    "num.io.threads": "4",
    "num.network.threads": "3",
}

_START_S = 60.0
_TRIES = 5
"""Starts with ports that are free when they are chosen and taken when Java binds them, about a second later."""
_LOOK_S = 0.05
_PROBE_S = 0.02
_BIND_FAILED = "java.net.BindException"
_MARKER = "easyremote-broker"
_LOG_TAIL_LINES = 8


class _PortTaken(BrokerUnavailable):
    """Another program had one of its ports by the time it bound them."""


class BrokerState(msgspec.Struct, frozen=True):
    """How to reach the broker that runs, and which process it is."""

    bootstrap_servers: str
    port: int
    pid: int
    started_ms: int
    version: str
    log_file: str


_decode_state = msgspec.json.Decoder(BrokerState).decode


class EmbeddedBroker:
    """Starts, finds and stops the one broker of a data directory.

    It listens on loopback only, and outlives the program that started it until `stop` is called.

    Parameters
    ----------
    data_dir : Path
        `broker/` below it holds the topics, the log and the state file.
    jars_dir : Path, optional
        Where the jars are kept; `kafka/<version>` below `data_dir` if unset.
    port : int, optional
        Where it listens; unset: the last one if it is free, else a free one.
    heap_mb : int
        Java's heap, MB.
    """

    def __init__(
        self, data_dir: Path, *, jars_dir: Path | None = None, port: int | None = None, heap_mb: int = 512
    ) -> None:
        self._home = data_dir / "broker"
        self._jars_dir = jars_dir or data_dir / "kafka" / KAFKA_VERSION
        self._port = port
        self._heap_mb = heap_mb
        self._state_file = self._home / "state.json"
        self._log_file = self._home / "broker.log"

    def start(self, fetching: Callable[[], None] = lambda: None) -> BrokerState:
        """Start the broker, or find the one that runs; return when it answers.

        Parameters
        ----------
        fetching : callable
            Told when the jars have to be fetched first, which takes some seconds.

        Raises
        ------
        ConfigError
            If Java or the jars are missing, or the port is in use.
        BrokerUnavailable
            If the broker ends or does not answer; the message has its last log lines.
        """
        private_folder(self._home)
        (self._home / _MARKER).touch()
        with self._locked():
            running = self.status()
            if running is not None:
                return running
            java = find_java()
            jars = ensure_jars(self._jars_dir, fetching=fetching)
            command = [java, *self._java_options(), "-cp", os.pathsep.join(map(str, jars))]
            for _ in range(_TRIES - 1):
                try:
                    return self._start_on(command, *self._ports())
                except _PortTaken as taken:
                    log.warning("a port was taken before the broker had it; starting again", error=str(taken))
            return self._start_on(command, *self._ports())

    def status(self) -> BrokerState | None:
        """Return the running broker, or None; what a dead one left behind is removed."""
        try:
            state = _decode_state(self._state_file.read_bytes())
        except FileNotFoundError:
            return None
        except msgspec.MsgspecError as error:
            log.warning("the broker's state file cannot be read and is removed", error=str(error))
            self._state_file.unlink(missing_ok=True)
            return None
        if self._process(state.pid) is None:
            log.info("the broker of the state file has ended; starting afresh", pid=state.pid)
            (self._home / "last_port").write_text(str(state.port))
            self._state_file.unlink(missing_ok=True)
            return None
        return state

    def stop(self, timeout_s: float = 15.0) -> bool:
        """Stop the broker, asked first and killed after `timeout_s`; say whether one was running.

        Raises
        ------
        ConfigError
            If it is there even then.
        """
        state = self.status()
        process = None if state is None else self._process(state.pid)
        if state is None or process is None:
            return False
        (self._home / "last_port").write_text(str(state.port))
        with contextlib.suppress(psutil.NoSuchProcess):
            process.terminate()
            if not has_ended(process, timeout_s):
                log.warning("the broker did not stop in time and is killed", pid=state.pid, waited_s=timeout_s)
                process.kill()
                if not has_ended(process, timeout_s):
                    raise ConfigError(f"the broker, process {state.pid}, cannot be ended: end it, then try again")
        self._state_file.unlink(missing_ok=True)
        return True

    def reset(self) -> None:
        """Stop the broker and delete its data: every topic and every record.

        Raises
        ------
        ConfigError
            If the directory is not one that this class made.
        """
        self.stop()
        if not self._home.exists():
            return
        if not (self._home / _MARKER).exists():
            raise ConfigError(f"{self._home} was not made by the embedded broker; delete it yourself if you mean it")
        shutil.rmtree(self._home)

    @contextlib.contextmanager
    def _locked(self) -> Iterator[None]:
        # Two programs that start the broker at once: the second waits and then finds it running.
        with (self._home / "lock").open("w") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            yield

    def _process(self, pid: int) -> psutil.Process | None:
        try:
            process = psutil.Process(pid)
            ours = str(self._home / "server.properties") in process.cmdline()
        except (psutil.NoSuchProcess, psutil.AccessDenied, psutil.ZombieProcess):
            return None
        return process if ours and process.status() != psutil.STATUS_ZOMBIE else None

    def _ports(self) -> tuple[int, int]:
        if self._port is not None:
            if not is_free(self._port):
                raise ConfigError(
                    f"port {self._port} is in use by another program: stop that one, or start the broker with "
                    "another --port"
                )
            return self._port, free_port(besides=self._port)
        try:
            last = int((self._home / "last_port").read_text())
        except (OSError, ValueError):
            last = 0
        port = last if last and is_free(last) else free_port()
        return port, free_port(besides=port)

    def _start_on(self, command: list[str], port: int, controller_port: int) -> BrokerState:
        properties = self._write_properties(port, controller_port)
        if not self._format(command, properties):
            self._end_former_session(command, port, controller_port)
        said_before = self._log_file.stat().st_size if self._log_file.exists() else 0
        process = self._launch(command, properties)
        state = BrokerState(f"127.0.0.1:{port}", port, process.pid, now_ms(), KAFKA_VERSION, str(self._log_file))
        self._await_answer(process, state, said_before)
        self._write_state(state)
        return state

    def _java_options(self) -> list[str]:
        return [
            f"-Xmx{self._heap_mb}m",
            "-Xms128m",
            "-XX:+UseSerialGC",
            "-XX:TieredStopAtLevel=1",
            "-Xshare:auto",
            "--enable-native-access=ALL-UNNAMED",
            "-Dorg.slf4j.simpleLogger.defaultLogLevel=warn",
            "-Dorg.slf4j.simpleLogger.showDateTime=true",
            "-Dorg.slf4j.simpleLogger.dateTimeFormat=yyyy-MM-dd'T'HH:mm:ss.SSS",
        ]

    def _properties(self, port: int, controller_port: int) -> dict[str, str]:
        return {
            "process.roles": "broker,controller",
            "node.id": "1",
            "controller.quorum.voters": f"1@127.0.0.1:{controller_port}",
            "listeners": f"PLAINTEXT://127.0.0.1:{port},CONTROLLER://127.0.0.1:{controller_port}",
            "advertised.listeners": f"PLAINTEXT://127.0.0.1:{port}",
            "controller.listener.names": "CONTROLLER",
            "listener.security.protocol.map": "PLAINTEXT:PLAINTEXT,CONTROLLER:PLAINTEXT",
            "log.dirs": str(self._home / "data"),
            **BROKER_PROPERTIES,
        }

    def _write_properties(self, port: int, controller_port: int) -> Path:
        properties = self._properties(port, controller_port)
        path = self._home / "server.properties"
        path.write_text("".join(f"{name}={value}\n" for name, value in properties.items()))
        return path

    def _format(self, command: list[str], properties: Path) -> bool:
        """Make the data directory, unless a broker has run on it; say whether it was made."""
        if (self._home / "data" / "meta.properties").exists():
            return False
        shutil.rmtree(self._home / "data", ignore_errors=True)
        said = subprocess.run(
            [*command, "kafka.tools.StorageTool", "format", "-t", _cluster_id(), "-c", str(properties)],
            capture_output=True,
            text=True,
            timeout=_START_S,
            check=False,
        )
        if said.returncode != 0:
            raise BrokerUnavailable(f"the broker's storage cannot be formatted: {(said.stderr or said.stdout).strip()}")
        return True

    def _end_former_session(self, command: list[str], port: int, controller_port: int) -> None:
        try:
            end_former_session(command, self._properties(port, controller_port), self._home)
        except BrokerUnavailable as error:
            if _BIND_FAILED in str(error):
                raise _PortTaken(str(error)) from error
            raise

    def _launch(self, command: list[str], properties: Path) -> subprocess.Popen[bytes]:
        with self._log_file.open("ab") as output:
            return subprocess.Popen(
                [*command, "kafka.Kafka", str(properties)],
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=output,
                cwd=self._home,
                # Ctrl+C in the terminal is for the program that uses the broker, which then stops it.
                start_new_session=True,
            )

    def _await_answer(self, process: subprocess.Popen[bytes], state: BrokerState, said_before: int) -> None:
        deadline = monotonic_s() + _START_S
        try:
            while process.poll() is None and monotonic_s() < deadline:
                if listens(process.pid, state.port) and answers(state.bootstrap_servers, 1.0):
                    return
                # There is no event to wait for: the broker only begins to listen.
                time.sleep(_PROBE_S)
        except BaseException:
            process.kill()
            raise
        ended = process.poll()
        if ended is None:
            os.killpg(process.pid, signal.SIGKILL)
            process.wait()
        what = f"ended with code {ended}" if ended is not None else f"did not answer within {_START_S:g} s"
        said = self._log_file.read_bytes()[said_before:].decode(errors="replace")
        # Java's frames hide the causes between them.
        told = [line for line in said.splitlines() if not line.startswith(("\tat ", "\t... "))]
        tail = "\n".join(told[-_LOG_TAIL_LINES:])
        failure = _PortTaken if _BIND_FAILED in said else BrokerUnavailable
        raise failure(f"the embedded broker {what}; its log {self._log_file} ends with:\n{tail}")

    def _write_state(self, state: BrokerState) -> None:
        scratch = self._state_file.with_suffix(".part")
        scratch.write_bytes(msgspec.json.encode(state))
        scratch.replace(self._state_file)


def _cluster_id() -> str:
    import base64
    import uuid

    return base64.urlsafe_b64encode(uuid.uuid4().bytes).decode().rstrip("=").replace("-", "A")


def has_ended(process: psutil.Process, timeout_s: float) -> bool:
    """Wait until a process has ended; say whether it has.

    One whose parent does not look after it, as the first process of a container may not, stays in the table of
    processes when it has: that counts as ended.
    """
    deadline = monotonic_s() + timeout_s
    while True:
        try:
            process.wait(_LOOK_S)
        except psutil.TimeoutExpired:
            # One whose first thread has ended may have others yet, and its port with them.
            if process.status() == psutil.STATUS_ZOMBIE and process.num_threads() <= 1:
                with contextlib.suppress(psutil.TimeoutExpired):
                    process.wait(0)  # a child of this process is looked after here
                return True
            if monotonic_s() > deadline:
                return False
        else:
            return True
