"""A replay of JSON readings of 1,000 devices on 4 partitions into 10 s tumbling windows, and what else streams do.

Measured are raw `consume` (the floor); this engine, as a worker with the role `streams`, from its first commit to its
last, exactly once, aggregates and changelog written; a plain Faust agent with a table that does the same sums; peers
where their packages are. Then pipelines over such readings: hopping windows, sessions, a join, a detector, a million
keys, two workers; and how long a reading takes to its result.
"""

from __future__ import annotations

import os
import statistics
from pathlib import Path
from typing import TYPE_CHECKING

from easyremote.bench.programs import worker
from easyremote.bench.readings import Commits, consume_rate, fill
from easyremote.bench.report import Report, measured_kafka, step
from easyremote.bench.stream_latency import LATENCY_RATE, latency
from easyremote.bench.stream_peers import PEERS, measure_peers
from easyremote.bench.stream_pipelines import measure_pipelines
from easyremote.errors import ConfigError
from easyremote.topics.admin import TopicAdmin
from easyremote.topics.catalog import READINGS, STREAMS_CHANGELOG, declarations
from easyremote.topics.follower import Follower

if TYPE_CHECKING:
    from easyremote.settings import Settings

__all__ = ["main"]

_FAUST_READINGS = 100_000
"""Of the plain Faust agent and the peers: their rate does not depend on how many there are."""
_LIMIT_S = 300.0
_TURNS = 3
"""Of the engine and raw consuming, of which the median counts: a shared machine's own pace changes."""


def main(json_file: Path | None, readings: int, peers: Path | None = None) -> None:
    """Measure, print, and write."""
    report = Report()
    few = min(readings, _FAUST_READINGS)
    with measured_kafka("") as kafka:
        warm, detector, faust, kinds, *engines = (
            kafka.model_copy(update={"namespace": f"bench-{name}-{os.getpid()}-"})
            for name in ("warm", "detector", "faust", "kinds", *(f"engine-{turn}" for turn in range(_TURNS)))
        )
        for settings, count in ((faust, few), *((one, readings) for one in (warm, detector, *engines))):
            with step(f"writing {count:,} readings"):
                TopicAdmin(settings).ensure(declarations())
                fill(settings, READINGS, count)
        # A broker that has just begun is slower, and who comes first would pay for it.
        with step("this engine, so that the broker is warm"):
            report.add("engine_rate_of_a_cold_broker", _engine(warm, readings, threshold=0), "readings/s")
        consumed, computed = [], []
        for turn, engine in enumerate(engines, 1):
            with step(f"raw consume and this engine, turn {turn} of {_TURNS}"):
                consumed.append(consume_rate(engine, READINGS, readings))
                computed.append(_engine(engine, readings, threshold=0))
        report.add("consume_rate", statistics.median(consumed), "readings/s")
        report.add("engine_rate", statistics.median(computed), "readings/s")
        report.add("engine_rate_slowest_turn", min(computed), "readings/s")
        report.add("engine_rate_fastest_turn", max(computed), "readings/s")
        with step("this engine with the detector"):
            report.add("engine_with_detector_rate", _engine(detector, readings, threshold=4), "readings/s")
        measure_peers(report, (faust, few), (warm, readings), peers)
        measure_pipelines(report, kinds, readings)
        with step(f"latency at {LATENCY_RATE:,} readings/s"):
            p50, p99 = latency(kafka.model_copy(update={"namespace": f"bench-latency-{os.getpid()}-"}))
        report.add("latency_p50", p50, "ms")
        report.add("latency_p99", p99, "ms")
    figures = {name: value for name, value, _ in report.results}
    for name in ("consume", *PEERS):
        if f"{name}_rate" in figures:
            report.ratios[f"rate_to_{name}"] = figures["engine_rate"] / figures[f"{name}_rate"]
    report.finish(json_file)


def _engine(settings: Settings, readings: int, *, threshold: int) -> float:
    commits = Commits(readings)
    follower = Follower(settings, settings.namespace + STREAMS_CHANGELOG, commits.take, start="beginning")
    environment = {
        "EASYREMOTE_ROLES": "streams",
        "EASYREMOTE_WINDOW_S": "10",
        "EASYREMOTE_LATENESS_S": "0",
        "EASYREMOTE_Z_THRESHOLD": str(threshold),
    }
    try:
        with worker(settings, environment):
            if not commits.done.wait(_LIMIT_S):
                raise ConfigError(f"the engine was not done after {_LIMIT_S:g} s")
            return commits.rate()
    finally:
        follower.close()
