"""What others do with the readings of `easyremote bench stream`: Faust, Quix Streams, Bytewax, Kafka Streams."""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from easyremote.bench.programs import log_of, worker
from easyremote.bench.readings import PARTITIONS, bench_topic
from easyremote.bench.report import Report, console, step
from easyremote.errors import ConfigError
from easyremote.topics.admin import TopicAdmin
from easyremote.topics.catalog import READINGS

if TYPE_CHECKING:
    from easyremote.settings import Settings

__all__ = ["PEERS", "measure_peers"]

PEERS = ("faust", "quix", "bytewax", "kafka_streams_eos")
"""Names in the report, where they were measured."""
_FOLDER = Path(__file__).parents[2] / "bench" / "peers"
_KAFKA_STREAMS = _FOLDER / "kafka_streams"
_LIMIT_S = 300.0


def measure_peers(
    report: Report, few: tuple[Settings, int], all_of_them: tuple[Settings, int], python: Path | None
) -> None:
    """Add the rate of each peer that is there, and say which is not.

    Parameters
    ----------
    report : Report
        Gets the figures.
    few, all_of_them : (Settings, int)
        Where readings are, and how many: few for those whose rate does not depend on it, all for a program that gets
        faster as it runs.
    python : Path or None
        With the packages of `requirements/stream-peers.txt`.
    """
    settings, count = few
    with step(f"a plain Faust agent, {count:,} of them"):
        report.add("faust_rate", _faust(settings, count), "readings/s")
    if python is None:
        console.print("Quix Streams and Bytewax are not measured: give their Python, --peers")
    else:
        for name in ("quix", "bytewax"):
            with step(f"{name}, {count:,} of them"):
                rate = _rate(name, [python, _FOLDER / f"{name}_stream.py"], settings, count)
                report.add(f"{name}_rate", rate, "readings/s")
    maven, java = shutil.which("mvn"), shutil.which("java")
    if maven is None or java is None or not _KAFKA_STREAMS.exists():
        console.print("Kafka Streams is not measured: it needs Maven, Java and a checkout of this project")
        return
    settings, count = all_of_them
    with step("building the Kafka Streams program"):
        _run("Maven", [maven, "-q", "-B", "-f", _KAFKA_STREAMS, "package"], {})
    with step(f"Kafka Streams, exactly once, {count:,} of them"):
        built = _KAFKA_STREAMS / "target"
        command = [java, "-Xmx1g", "-cp", f"{built / 'peer.jar'}:{built / 'lib'}/*", "Peer"]
        TopicAdmin(settings).ensure([bench_topic(f"{READINGS}.kafka-streams")])
        report.add("kafka_streams_eos_rate", _rate("kafka_streams", command, settings, count), "readings/s")


def _faust(settings: Settings, readings: int) -> float:
    result = settings.data_dir / "plain-faust.txt"
    result.unlink(missing_ok=True)
    environment = {
        "BENCH_TOPIC": settings.namespace + READINGS,
        "BENCH_READINGS": str(readings),
        "BENCH_PARTITIONS": str(PARTITIONS),
        "BENCH_RESULT": str(result),
    }
    with worker(settings, environment, "easyremote.bench.plain_faust") as process:
        process.wait(_LIMIT_S)
    if not result.exists():
        raise ConfigError(f"the plain Faust agent ended without a result: see {log_of(settings)}")
    return float(result.read_text())


def _rate(name: str, command: Sequence[str | Path], settings: Settings, readings: int) -> float:
    result = settings.data_dir / f"{name}.txt"
    result.unlink(missing_ok=True)
    environment = {
        "EASYREMOTE_KAFKA": settings.bootstrap_servers(),
        "BENCH_TOPIC": settings.namespace + READINGS,
        "BENCH_READINGS": str(readings),
        "BENCH_RESULT": str(result),
        "BENCH_STATE": str(settings.data_dir / f"{name}-state"),
    }
    said = _run(name, command, environment)
    if not result.exists():
        raise ConfigError(f"{name} ended without a figure: {said[-500:]}")
    return float(result.read_text())


def _run(name: str, command: Sequence[str | Path], environment: Mapping[str, str]) -> str:
    ended = subprocess.run(
        command, env=os.environ | environment, capture_output=True, text=True, timeout=_LIMIT_S, check=False
    )
    if ended.returncode:
        raise ConfigError(f"{name} ended with code {ended.returncode}: {(ended.stderr or ended.stdout)[-500:]}")
    return ended.stderr
