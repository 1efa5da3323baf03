"""The former self of a one-broker Kafka: its session is ended before the broker starts again (docs/decisions/0019)."""

from __future__ import annotations

import subprocess
import time
from collections.abc import Mapping, Sequence
from pathlib import Path

from easyremote.clock import monotonic_s
from easyremote.errors import BrokerUnavailable

__all__ = ["end_former_session"]

_LIMIT_S = 60.0
_LOOK_S = 0.02
_NONE_LEFT_S = 2.0
"""A controller that has been up for twenty sessions and has ended none had none to end."""
_UP = "Kafka Server started"
_FENCED = "Fencing broker"
# The next look at the sessions, when nothing that was written waits for being committed.
_COMMITTED = "Completing read-only operation maybeFenceStaleBroker"
_TOLD = {
    "kafka.server.KafkaRaftServer": "info",
    "org.apache.kafka.controller.ReplicationControlManager": "info",
    "org.apache.kafka.controller.QuorumController": "debug",
}
_CONTROLLER_PROPERTIES = {
    "process.roles": "controller",
    "listener.security.protocol.map": "CONTROLLER:PLAINTEXT",
    "broker.session.timeout.ms": "100",
    "broker.heartbeat.interval.ms": "20",
}
_KEPT = ("node.id", "controller.quorum.voters", "controller.listener.names", "log.dirs")


def end_former_session(java: Sequence[str], properties: Mapping[str, str], scratch: Path) -> None:
    """Let the controller alone end the session of the broker that ran on this data; return when that is written.

    A broker that starts while the session of its former self lasts leads its partitions for a moment, loses them when
    that session ends, and skips then what ends transactions in them.

    Parameters
    ----------
    java : sequence of str
        The command that runs a class of Kafka, without the class.
    properties : mapping
        Those of the broker; its controller's listener must be called CONTROLLER.
    scratch : Path
        Where the controller's properties and log are written.

    Raises
    ------
    BrokerUnavailable
        If the controller ends or does not come up; the message has its last log lines.
    """
    own = {name: properties[name] for name in _KEPT} | _CONTROLLER_PROPERTIES
    own["listeners"] = next(one for one in properties["listeners"].split(",") if one.startswith("CONTROLLER:"))
    settings, log = scratch / "controller.properties", scratch / "controller.log"
    settings.write_text("".join(f"{name}={value}\n" for name, value in own.items()))
    levels = [f"-Dorg.slf4j.simpleLogger.log.{name}={level}" for name, level in _TOLD.items()]
    command = [java[0], *levels, *java[1:], "kafka.Kafka", str(settings)]
    with log.open("wb") as output:
        process = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=output, stderr=output, cwd=scratch)
    try:
        _await_end(process, log)
    finally:
        # What it was started for is on disk.
        process.kill()
        process.wait()


def _await_end(process: subprocess.Popen[bytes], log: Path) -> None:
    deadline = monotonic_s() + _LIMIT_S
    none_left_at: float | None = None
    while process.poll() is None and monotonic_s() < deadline:
        said = log.read_text(errors="replace")
        _, fenced, after = said.partition(_FENCED)
        if fenced and _COMMITTED in after:
            return
        if none_left_at is None and _UP in said:
            none_left_at = monotonic_s() + _NONE_LEFT_S
        if none_left_at is not None and not fenced and monotonic_s() > none_left_at:
            return
        # There is no event to wait for: the controller only writes its log.
        time.sleep(_LOOK_S)
    ended = process.poll()
    what = f"ended with code {ended}" if ended is not None else f"was not done within {_LIMIT_S:g} s"
    told = [line for line in log.read_text(errors="replace").splitlines() if not line.startswith(("\tat ", "\t... "))]
    tail = "\n".join(told[-8:])
    raise BrokerUnavailable(f"the controller that ends the former broker's session {what}; {log} ends with:\n{tail}")
