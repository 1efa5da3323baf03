"""Models through Kafka: throughput of 64 callers, one call at a time, the tail at half load, against the bare model."""

from __future__ import annotations

import queue
import statistics
import time
from collections.abc import Iterable, Iterator
from concurrent.futures import Future
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from easyremote.bench.bare import KINDS, NODE_TYPES, BareModel, Kind, inputs
from easyremote.bench.programs import log_of, worker
from easyremote.bench.queueing import arrivals, ideal_p99_s
from easyremote.bench.report import Report, measured_kafka, step
from easyremote.deploy.status import system_status
from easyremote.errors import ConfigError
from easyremote.inference.client import CallOptions, Client
from easyremote.inference.models.devices import instances_on, pass_threads
from easyremote.settings import Settings
from easyremote.topics.admin import TopicAdmin
from easyremote.topics.catalog import declarations

__all__ = ["main"]

CALLERS = 64
_ROUNDS = 3
_BATCHES = (1, 2, 4, 8, 16, 32, 64)
_UNITS = {
    "bare_single": "ms",
    "bare_rate": "items/s",
    "bare_loops_rate": "items/s",
    "one_at_a_time": "items/s",
    "callers_64": "items/s",
    "p50_at_half_load": "ms",
    "p99_at_half_load": "ms",
    "p99_in_bursts": "ms",
    "ideal_p99": "ms",
    "ideal_p99_in_bursts": "ms",
}
_RATIOS = {
    "throughput_to_bare_batch": ("callers_64", "bare_rate"),
    "throughput_to_bare_loops": ("callers_64", "bare_loops_rate"),
    "throughput_to_one_at_a_time": ("callers_64", "one_at_a_time"),
    "p99_to_bare_single": ("p99_at_half_load", "bare_single"),
    "p99_in_bursts_to_bare_single": ("p99_in_bursts", "bare_single"),
    "ideal_p99_in_bursts_to_bare_single": ("ideal_p99_in_bursts", "bare_single"),
}
_FUNCTIONS: dict[Kind, str] = {"sentiment": "text_sentiment_analysis", "image": "image_classification"}
_OPTIONS = CallOptions(timeout_s=60)
_READY_S = 120.0
_SUFFIXES: dict[Kind, str] = {"sentiment": "", "image": "_image"}


def main(json_file: Path | None, seconds: float, kinds: tuple[Kind, ...] = KINDS) -> None:
    """Measure each kind of model for `seconds` at each load, print, and write."""
    report = Report()
    with measured_kafka("bench-inference-") as settings:
        TopicAdmin(settings).ensure(declarations())
        for kind in kinds:
            _measure(settings, report, kind, seconds / _ROUNDS)
    report.finish(json_file)


def _measure(settings: Settings, report: Report, kind: Kind, seconds: float) -> None:
    """Take turns between the bare model and the one behind Kafka, so that a noisy machine is as noisy for both."""
    threads = instances_on("cpu") * pass_threads()
    with closing(BareModel(kind, threads=threads)) as one, closing(BareModel(kind)) as several:
        with step(f"{kind}: which batches suit the bare model best, in one loop and in several"):
            loop, loops = (_Bare(model, _best_batch(model, seconds)) for model in (one, several))
        with step(f"{kind}: starting the worker"), _serving(settings, kind), Client(settings, direct=True) as client:
            calls = _Calls(client, _FUNCTIONS[kind], inputs(kind))
            calls.closed_loop(1, seconds / 2)
            calls.closed_loop(CALLERS, seconds / 2)
            rounds = [_round(loop, loops, calls, seconds) for _ in range(_ROUNDS)]
    for name, unit in _UNITS.items():
        report.add(f"{kind}_{name}", _median(one[name] for one in rounds), unit)
    report.add(f"{kind}_bare_batch", loop.batch, "items")
    report.add(f"{kind}_bare_loops_batch", loops.batch, "items")
    suffix = _SUFFIXES[kind]
    for ratio, (upper, lower) in _RATIOS.items():
        report.ratios[ratio + suffix] = _median(one[upper] / one[lower] for one in rounds)


class _Bare(NamedTuple):
    model: BareModel
    batch: int
    """At which it does the most."""

    def rate(self, seconds: float) -> float:
        return self.model.run(self.batch, seconds)[0]


def _best_batch(model: BareModel, seconds: float) -> int:
    model.run(8, seconds)
    rates = {batch: model.run(batch, seconds / 2)[0] for batch in _BATCHES}
    return max(rates, key=lambda batch: rates[batch])


def _round(one: _Bare, several: _Bare, calls: _Calls, seconds: float) -> dict[str, float]:
    found = {"bare_single": one.model.run(1, seconds)[1], "one_at_a_time": calls.closed_loop(1, seconds)}
    found["bare_rate"] = one.rate(seconds)
    found["callers_64"] = calls.closed_loop(CALLERS, seconds)
    found["bare_loops_rate"] = several.rate(seconds)
    half, single_s = found["callers_64"] / 2, found["bare_single"] / 1000
    instances = instances_on("cpu")
    a_pass_s = instances * several.batch / found["bare_loops_rate"]
    each_more_s = max(0.0, a_pass_s - single_s) / max(1, several.batch - 1)
    for bursty, suffix, ideal in ((False, "at_half_load", "ideal_p99"), (True, "in_bursts", "ideal_p99_in_bursts")):
        times = calls.open_loop(half, 2 * seconds, bursty=bursty)
        found[f"p50_{suffix}"] = float(np.median(times)) * 1000
        found[f"p99_{suffix}"] = float(np.percentile(times, 99)) * 1000
        found[ideal] = ideal_p99_s(half, single_s, each_more_s, instances, bursty=bursty) * 1000
    return found


def _median(values: Iterable[float]) -> float:
    return statistics.median(list(values))


class _Calls:
    """Calls of one function with inputs in turn."""

    def __init__(self, client: Client, function: str, given: list[str]) -> None:
        self._client = client
        self._function = function
        self._given = given
        self._next = 0
        self._ended: queue.SimpleQueue[tuple[float, Future[Any]]] = queue.SimpleQueue()

    def closed_loop(self, callers: int, seconds: float) -> float:
        """Return items per second with so many callers, each of whom calls again as soon as it is answered."""
        ends = time.perf_counter() + seconds
        started = time.perf_counter()
        for _ in range(callers):
            self._send(started)
        answered = 0
        while time.perf_counter() < ends:
            self._answer()
            answered += 1
            self._send(started)
        took_s = time.perf_counter() - started
        for _ in range(callers):
            self._answer()
        return answered / took_s

    def open_loop(self, rate: float, seconds: float, *, bursty: bool) -> list[float]:
        """Return each call's time, s, from the moment at which it was due, at `rate` per second."""
        started = time.perf_counter()
        sent = 0
        for due in arrivals(rate, seconds, bursty=bursty):
            time.sleep(max(0.0, started + due - time.perf_counter()))
            self._send(started + due)
            sent += 1
        return [self._answer() for _ in range(sent)]

    def _send(self, since: float) -> None:
        given = self._given[self._next % len(self._given)]
        self._next += 1
        future = self._client.submit(self._function, given, options=_OPTIONS)
        future.add_done_callback(lambda done: self._ended.put((time.perf_counter() - since, done)))

    def _answer(self) -> float:
        took_s, done = self._ended.get()
        error = done.exception()
        if error is not None:
            raise ConfigError(f"a call of {self._function} failed: {error}")
        return took_s


@contextmanager
def _serving(settings: Settings, kind: Kind) -> Iterator[None]:
    with worker(settings, {"EASYREMOTE_ROLES": "inference", "EASYREMOTE_NODE_TYPE": NODE_TYPES[kind]}) as process:
        deadline = time.monotonic() + _READY_S
        while not _is_up(settings, kind):
            if process.poll() is not None or time.monotonic() > deadline:
                raise ConfigError(f"the worker does not start: {log_of(settings).read_text(errors='replace')[-2_000:]}")
        yield


def _is_up(settings: Settings, kind: Kind) -> bool:
    workers = system_status(settings)["workers"]
    return any(
        "inference" in one["ready"] and one["partitions"] and _FUNCTIONS[kind] in one["functions"] for one in workers
    )
