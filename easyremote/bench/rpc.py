"""Calls of 100 bytes: the floor, direct (the client chooses the partition) and routed (through `requests`)."""

from __future__ import annotations

import queue
import statistics
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import Future
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Protocol

from easyremote.bench.floor import REPLIES, REQUESTS, FloorClient, closing, p50
from easyremote.bench.programs import log_of, worker
from easyremote.bench.report import Report, measured_kafka, step
from easyremote.deploy.status import system_status
from easyremote.errors import ConfigError
from easyremote.inference.client import CallOptions, Client
from easyremote.settings import Settings
from easyremote.topics.admin import TopicAdmin
from easyremote.topics.catalog import TopicDeclaration, declarations

__all__ = ["main", "many", "serving"]

OUTSTANDING = 256
_READY_S = 60.0
_ROUNDS = 8
_PAYLOAD = "x" * 100
_OPTIONS = CallOptions(timeout_s=30)


def main(json_file: Path | None, calls: int) -> None:
    """Measure, print, and write."""
    report = Report()
    with (
        measured_kafka("bench-rpc-") as settings,
        _floor(settings) as floor,
        step("starting the worker"),
        serving(settings),
        Client(settings, direct=True) as direct,
        Client(settings) as routed,
    ):
        ways: list[_Way] = [_Floor(floor), _Ours("direct", direct), _Ours("routed", routed)]
        for way in ways:
            with step(f"{way.name}: warming up"):
                way.one_at_a_time(calls // 4)
                way.many(calls)
        _measure(report, ways, calls)
    for name in ("direct", "routed"):
        for kind in ("p50", "rate"):
            report.ratios[f"{name}_{kind}_to_floor"] = report.value(f"{name}_{kind}") / report.value(f"floor_{kind}")
    report.finish(json_file)


def _measure(report: Report, ways: Sequence[_Way], calls: int) -> None:
    # In turn, a little of each: the machine's own pace changes by a third from minute to minute.
    times: dict[str, list[float]] = {way.name: [] for way in ways}
    rates: dict[str, list[float]] = {way.name: [] for way in ways}
    for number in range(1, _ROUNDS + 1):
        with step(f"round {number} of {_ROUNDS}"):
            for way in ways:
                times[way.name] += way.one_at_a_time(calls // _ROUNDS)
            for way in ways:
                # Whether the floor's records travel together is chance, so one pass says little.
                rates[way.name].append(way.many(calls * 10 // _ROUNDS))
    for way in ways:
        report.add(f"{way.name}_p50", p50(times[way.name]), "ms")
        report.add(f"{way.name}_rate", statistics.median(rates[way.name]), "calls/s")


class _Way(Protocol):
    """A way to call the echo."""

    name: str

    def one_at_a_time(self, calls: int) -> list[float]:
        """Return the time of each call, s."""
        ...

    def many(self, calls: int) -> float:
        """Return calls per second with 256 outstanding."""
        ...


class _Floor:
    name = "floor"

    def __init__(self, client: FloorClient) -> None:
        self._client = client

    def one_at_a_time(self, calls: int) -> list[float]:
        return self._client.one_at_a_time(_PAYLOAD.encode(), calls)

    def many(self, calls: int) -> float:
        return self._client.many(_PAYLOAD.encode(), calls, OUTSTANDING)


class _Ours:
    def __init__(self, name: str, client: Client) -> None:
        self.name = name
        self._client = client

    def one_at_a_time(self, calls: int) -> list[float]:
        times = []
        for _ in range(calls):
            started = time.perf_counter()
            self._client.call("echo", _PAYLOAD, options=_OPTIONS)
            times.append(time.perf_counter() - started)
        return times

    def many(self, calls: int) -> float:
        return many(self._client, calls)


@contextmanager
def _floor(settings: Settings) -> Iterator[FloorClient]:
    kafka = settings.bootstrap_servers()
    TopicAdmin(settings.model_copy(update={"namespace": ""})).ensure(
        TopicDeclaration(name=name, partitions=1, key="number", value="bytes", written_by="bench", read_by="bench")
        for name in (REQUESTS, REPLIES)
    )
    TopicAdmin(settings).ensure(declarations())
    server = subprocess.Popen([sys.executable, "-m", "easyremote.bench.floor", kafka], stdout=subprocess.PIPE)
    try:
        assert server.stdout is not None
        server.stdout.readline()
        with closing(FloorClient(kafka)) as client:
            yield client
    finally:
        server.kill()
        server.wait()


def many(client: Client, calls: int) -> float:
    """Call the echo so often with 256 calls outstanding; return calls per second.

    Raises
    ------
    ConfigError
        If a call failed.
    """
    slots: queue.SimpleQueue[None] = queue.SimpleQueue()  # a tenth of a semaphore's cost, which is not to be measured
    failed: list[object] = []
    started = time.perf_counter()

    def ended(done: Future[Any]) -> None:
        if done.exception() is not None:
            failed.append(done)
        slots.put(None)

    for number in range(calls):
        if number >= OUTSTANDING:
            slots.get()
        client.submit("echo", _PAYLOAD, options=_OPTIONS).add_done_callback(ended)
    for _ in range(min(calls, OUTSTANDING)):
        slots.get()
    took_s = time.perf_counter() - started
    if failed:
        raise ConfigError(f"{len(failed)} of {calls} calls failed, the first: {failed[0]}")
    return calls / took_s


@contextmanager
def serving(settings: Settings) -> Iterator[subprocess.Popen[bytes]]:
    """Run a worker that routes and answers echoes until the block ends.

    Raises
    ------
    ConfigError
        If it does not start; the message has the end of its log.
    """
    environment = {
        "EASYREMOTE_ROLES": "router,inference",
        "EASYREMOTE_MODELS": "",
        "EASYREMOTE_FUNCTIONS": "easyremote.bench.echo",
    }
    with worker(settings, environment) as process:
        deadline = time.monotonic() + _READY_S
        while not _is_up(settings):
            if process.poll() is not None or time.monotonic() > deadline:
                raise ConfigError(f"the worker does not start: {log_of(settings).read_text(errors='replace')[-2_000:]}")
        yield process


def _is_up(settings: Settings) -> bool:
    workers = system_status(settings)["workers"]
    return any({"router", "inference"} <= set(one["ready"]) and one["partitions"] for one in workers)
