"""A node's memory over many calls: flat, or it leaks."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import psutil
from rich.progress import track

from easyremote.bench.report import Report, console, measured_kafka
from easyremote.bench.rpc import many, serving
from easyremote.inference.client import Client
from easyremote.topics.admin import TopicAdmin
from easyremote.topics.catalog import declarations

__all__ = ["growth", "main"]

_ROUND = 5_000
"""Calls between two looks."""
_SETTLED = 10_000
"""Calls after which what a node keeps (results, arenas, caches) is there: from here on memory must be flat."""
_MB = 1024 * 1024


def main(json_file: Path | None, calls: int) -> None:
    """Measure, print, and write."""
    report = Report()
    with measured_kafka("bench-memory-") as settings:
        TopicAdmin(settings).ensure(declarations())
        with serving(settings) as worker, Client(settings, direct=True) as client:
            taken = _watch(client, psutil.Process(worker.pid), calls)
    settled = taken[_SETTLED // _ROUND - 1]
    report.add("resident_after_10000", settled / _MB, "MB")
    report.add(f"resident_after_{len(taken) * _ROUND}", taken[-1] / _MB, "MB")
    report.add("resident_most", max(taken) / _MB, "MB")
    report.ratios["memory_growth"] = growth(taken, _SETTLED // _ROUND)
    report.finish(json_file)


def growth(taken: Sequence[float], settled: int) -> float:
    """Return by how much memory has grown since it settled, as a part of what it was then.

    Parameters
    ----------
    taken : sequence of float
        What was resident after each round, bytes.
    settled : int
        After how many rounds it counts as settled, from 1.

    Examples
    --------
    >>> growth([80, 100, 101, 104], settled=2)
    0.04
    """
    return taken[-1] / taken[settled - 1] - 1


def _watch(client: Client, worker: psutil.Process, calls: int) -> list[float]:
    taken = []
    for _ in track(range(calls // _ROUND), "calling", console=console, transient=True):
        many(client, _ROUND)
        taken.append(float(worker.memory_info().rss))
    return taken
