"""The broker of a run: EasyRemote's settings for it, a listener for each link, killed and started on the same data."""

from __future__ import annotations

import base64
import os
import signal
import socket
import subprocess
import threading
import time
import uuid
from pathlib import Path

from confluent_kafka import KafkaException
from confluent_kafka.admin import AdminClient
from easyremote.deploy.broker import BROKER_PROPERTIES
from easyremote.deploy.former import end_former_session
from easyremote.deploy.jars import KAFKA_VERSION, ensure_jars
from easyremote.deploy.java import find_java
from easyremote.deploy.ports import free_port
from easyremote.settings import user_data_dir
from proxy import TcpProxy

LINKS = ("LINKA", "LINKB", "LINKC")
_UP_S = 90.0
_JAVA = ["-Xmx512m", "-Xms128m", "-XX:+UseSerialGC", "-XX:TieredStopAtLevel=1", "-Xshare:auto"]
_SAID = ["-Dorg.slf4j.simpleLogger.defaultLogLevel=warn", "-Dorg.slf4j.simpleLogger.showDateTime=true"]


class Broker:
    """A broker that is reached directly, or through a link of which each may be cut.

    Parameters
    ----------
    directory : Path
        Its data and log.
    """

    def __init__(self, directory: Path) -> None:
        directory.mkdir(parents=True)
        self._log = directory / "broker.log"
        self.port = free_port()
        ports = {name: free_port() for name in LINKS}
        self.links = {name: TcpProxy(port, free_port(besides=port)) for name, port in ports.items()}
        self._properties = directory / "server.properties"
        self._settings = self._chosen(directory / "data", free_port(), ports)
        self._properties.write_text("".join(f"{name}={value}\n" for name, value in self._settings.items()))
        jars = ensure_jars(user_data_dir() / "kafka" / KAFKA_VERSION)
        self._java = [find_java(), *_JAVA, *_SAID, "-cp", os.pathsep.join(map(str, jars))]
        self._process: subprocess.Popen[bytes] | None = None
        self._up = threading.Event()
        said = subprocess.run(
            [*self._java, "kafka.tools.StorageTool", "format", "-t", _cluster(), "-c", str(self._properties)],
            capture_output=True,
            text=True,
            check=False,
        )
        assert said.returncode == 0, said.stderr or said.stdout

    def servers(self, link: str | None = None) -> str:
        """Return where it is reached, directly or through a link."""
        return f"127.0.0.1:{self.port if link is None else self.links[link].port}"

    @property
    def pid(self) -> int | None:
        """Its process, if it runs."""
        return None if self._process is None or self._process.poll() is not None else self._process.pid

    def start(self) -> None:
        """Start it; return when it answers."""
        end_former_session(self._java, self._settings, self._log.parent)
        with self._log.open("ab") as output:
            self._process = subprocess.Popen(
                [*self._java, "kafka.Kafka", str(self._properties)],
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=output,
                start_new_session=True,
            )
        deadline = time.monotonic() + _UP_S
        while not self._answers():
            assert self._process.poll() is None, f"the broker ended: {self._log}"
            assert time.monotonic() < deadline, f"the broker does not answer: {self._log}"
            time.sleep(0.1)  # it tells nobody that it is up

    def kill(self) -> None:
        """End it as a crash would."""
        assert self._process is not None
        self._process.kill()
        self._process.wait()

    def signal(self, number: signal.Signals) -> None:
        """Send it a signal, if it runs."""
        if self._process is not None and self._process.poll() is None:
            self._process.send_signal(number)

    def close(self) -> None:
        """End it, and the links."""
        for link in self.links.values():
            link.close()
        if self.pid is not None:
            self.signal(signal.SIGCONT)
            self.kill()

    def _answers(self) -> bool:
        with socket.socket() as probe:
            if probe.connect_ex(("127.0.0.1", self.port)) != 0:
                return False
        try:
            AdminClient({"bootstrap.servers": self.servers(), "log_level": 0}).list_topics(timeout=2)
        except KafkaException:
            return False
        return True

    def _chosen(self, data: Path, controller: int, ports: dict[str, int]) -> dict[str, str]:
        listeners = {"PLAINTEXT": self.port, "CONTROLLER": controller} | ports
        advertised = {"PLAINTEXT": self.port} | {name: link.port for name, link in self.links.items()}
        return {
            "process.roles": "broker,controller",
            "node.id": "1",
            "controller.quorum.voters": f"1@127.0.0.1:{controller}",
            "listeners": ",".join(f"{name}://127.0.0.1:{port}" for name, port in listeners.items()),
            "advertised.listeners": ",".join(f"{name}://127.0.0.1:{port}" for name, port in advertised.items()),
            "controller.listener.names": "CONTROLLER",
            "inter.broker.listener.name": "PLAINTEXT",
            "listener.security.protocol.map": ",".join(f"{name}:PLAINTEXT" for name in listeners),
            "log.dirs": str(data),
            **BROKER_PROPERTIES,
        }


def _cluster() -> str:
    return base64.urlsafe_b64encode(uuid.uuid4().bytes).decode().rstrip("=").replace("-", "A")
