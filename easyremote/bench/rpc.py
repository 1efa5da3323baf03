"""Calls of 100 bytes: the floor, direct (the client chooses the partition) and routed (through `requests`)."""

from __future__ import annotations

import queue
import statistics
import subprocess
import sys
import time
from collections.abc import Iterator
from concurrent.futures import Future
from contextlib import contextmanager
from pathlib import Path

from easyremote.bench.floor import REPLIES, REQUESTS, FloorClient, closing, p50
from easyremote.bench.programs import log_of, worker
from easyremote.bench.report import Report, measured_kafka, step
from easyremote.deploy.status import system_status
from easyremote.errors import ConfigError
from easyremote.inference.client import CallOptions, Client
from easyremote.settings import Settings
from easyremote.topics.admin import TopicAdmin
from easyremote.topics.catalog import TopicDeclaration, declarations
from easyremote.topics.records import Reply

__all__ = ["main", "many", "serving"]

OUTSTANDING = 256
_READY_S = 60.0
_FLOOR_PASSES = 5
_PAYLOAD = "x" * 100
_OPTIONS = CallOptions(timeout_s=30)


def main(json_file: Path | None, calls: int) -> None:
    """Measure, print, and write."""
    report = Report()
    with measured_kafka("bench-rpc-") as settings:
        _measure_floor(settings, report, calls)
        TopicAdmin(settings).ensure(declarations())
        with step("starting the worker"), serving(settings):
            for name in ("direct", "routed"):
                _measure_client(settings, report, name, calls)
    figures = {name: value for name, value, _ in report.results}
    for name in ("direct", "routed"):
        report.ratios[f"{name}_p50_to_floor"] = figures[f"{name}_p50"] / figures["floor_p50"]
        report.ratios[f"{name}_rate_to_floor"] = figures[f"{name}_rate"] / figures["floor_rate"]
    report.finish(json_file)


def _measure_floor(settings: Settings, report: Report, calls: int) -> None:
    kafka = settings.bootstrap_servers()
    admin = TopicAdmin(settings.model_copy(update={"namespace": ""}))
    admin.ensure(
        TopicDeclaration(name=name, partitions=1, key="number", value="bytes", written_by="bench", read_by="bench")
        for name in (REQUESTS, REPLIES)
    )
    payload = _PAYLOAD.encode()
    server = subprocess.Popen([sys.executable, "-m", "easyremote.bench.floor", kafka], stdout=subprocess.PIPE)
    try:
        assert server.stdout is not None
        server.stdout.readline()
        with step("the floor"), closing(FloorClient(kafka)) as client:
            client.one_at_a_time(payload, calls // 4)
            report.add("floor_p50", p50(client.one_at_a_time(payload, calls)), "ms")
            client.many(payload, calls, OUTSTANDING)
            # Whether its records travel together is chance, so one pass says little.
            passes = [client.many(payload, calls * 10, OUTSTANDING) for _ in range(_FLOOR_PASSES)]
            report.add("floor_rate", statistics.median(passes), "calls/s")
            report.add("floor_rate_best", max(passes), "calls/s")
    finally:
        server.kill()
        server.wait()


def _measure_client(settings: Settings, report: Report, name: str, calls: int) -> None:
    with step(f"{name} calls"), Client(settings, direct=name == "direct") as client:
        _one_at_a_time(client, calls // 4)
        report.add(f"{name}_p50", p50(_one_at_a_time(client, calls)), "ms")
        many(client, calls)
        report.add(f"{name}_rate", many(client, calls * 10), "calls/s")


def _one_at_a_time(client: Client, calls: int) -> list[float]:
    times = []
    for _ in range(calls):
        started = time.perf_counter()
        client.call("echo", _PAYLOAD, options=_OPTIONS)
        times.append(time.perf_counter() - started)
    return times


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

    def ended(done: Future[Reply]) -> None:
        if done.exception() is not None or done.result().status != "ok":
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
