"""A streams worker's memory while it works at full rate for minutes: flat, or it leaks."""

from __future__ import annotations

import statistics
from collections.abc import Sequence
from pathlib import Path

import psutil

from easyremote.bench.memory import growth
from easyremote.bench.programs import log_of, worker
from easyremote.bench.readings import Commits, Writer
from easyremote.bench.report import Report, measured_kafka, progress
from easyremote.clock import monotonic_s
from easyremote.errors import ConfigError
from easyremote.topics.admin import TopicAdmin
from easyremote.topics.catalog import READINGS, STREAMS_CHANGELOG, declarations
from easyremote.topics.follower import Follower

__all__ = ["main"]

_MB = 1024 * 1024
_LOOK_S = 5.0
_PART = 12
"""Looks in a minute: what is compared are the medians of minutes."""
_SETTLED = 2
"""Minutes after which what a worker keeps is there."""
_BACKLOG = 2_000_000
"""Readings that wait for the worker at most, so that it never waits for them."""


def main(json_file: Path | None, minutes: int) -> None:
    """Measure, print, and write."""
    report = Report()
    with measured_kafka("bench-stream-memory-") as settings:
        TopicAdmin(settings).ensure(declarations())
        commits = Commits()
        follower = Follower(settings, settings.namespace + STREAMS_CHANGELOG, commits.take, start="beginning")
        environment = {"EASYREMOTE_ROLES": "streams", "EASYREMOTE_LATENESS_S": "0"}
        try:
            with worker(settings, environment) as process:
                taken = _watch(Writer(settings, READINGS), psutil.Process(process.pid), commits, minutes)
        finally:
            follower.close()
        if not commits.total:
            raise ConfigError(f"the worker took nothing: see {log_of(settings)}")
    by_minute = [statistics.median(taken[at : at + _PART]) for at in range(0, minutes * _PART, _PART)]
    report.add("readings", commits.total, "")
    report.add("rate", commits.total / (minutes * 60), "readings/s")
    report.add(f"resident_in_minute_{_SETTLED}", by_minute[_SETTLED - 1] / _MB, "MB")
    report.add(f"resident_in_minute_{minutes}", by_minute[-1] / _MB, "MB")
    report.add("resident_most", max(taken) / _MB, "MB")
    report.ratios["memory_growth"] = growth(by_minute, _SETTLED)
    report.finish(json_file)


def _watch(readings: Writer, process: psutil.Process, commits: Commits, minutes: int) -> Sequence[float]:
    taken: list[float] = []
    with progress(f"windows at full rate for {minutes} minutes", minutes * _PART) as one_more:
        look_at = monotonic_s() + _LOOK_S
        while len(taken) < minutes * _PART:
            if readings.written - commits.total < _BACKLOG:
                readings.write(20_000)
            else:
                commits.changed.wait(_LOOK_S)
                commits.changed.clear()
            if monotonic_s() >= look_at:
                look_at += _LOOK_S
                taken.append(float(process.memory_info().rss))
                one_more()
    return taken
