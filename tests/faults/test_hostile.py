"""A record of each kind that once ended a worker, in every topic that is read: each is accounted for."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import hostile
import pytest
from easyremote import CallOptions, Client
from easyremote.settings import Settings
from hostile import Hostile
from system import system
from unkind import letters_of, produce, produce_nameless, require_all_works

pytestmark = [pytest.mark.broker, pytest.mark.faults, pytest.mark.timeout(180)]

EVERYTHING = "router,streams,inference"
FINE = {"fine", "5 MB by zstd", "an unknown field nested 2,000 deep"}
"""Readings that may be read: nobody looks at what is beside their fields."""
WORKER = {
    "EASYREMOTE_PIPELINES": "piped",
    "EASYREMOTE_MODEL_CLASSES": "versioned:Another",
    "EASYREMOTE_LATENESS_S": "0",
    "EASYREMOTE_HEARTBEAT_MS": "200",
}


def _calls() -> list[Hostile]:
    large = b'{"function": "echo", "args": ["' + b"a" * 5_000_000 + b'"]}'
    topics = ("requests", "inference.general", "inference.nlp")
    return [one for topic in topics for one in [*hostile.calls(topic), Hostile(topic, "5 MB by zstd", large)]]


def _readings() -> list[Hostile]:
    fine = b'{"device_id": "big", "metric": "flow", "value": 1, "timestamp_ms": 1, "x": "' + b"a" * 5_000_000 + b'"}'
    topics = ("readings", "orders")
    return [
        one
        for topic in topics
        for one in [*hostile.readings(topic), *hostile.odd_readings(topic), Hostile(topic, "5 MB by zstd", fine)]
    ]


def test_no_record_of_44_kinds_ends_a_worker_and_each_is_accounted_for(settings: Settings, tmp_path: Path) -> None:
    with system(settings, functions="served") as running:
        for name in ("one", "two"):
            running.launch(name, *EVERYTHING.split(","), **WORKER)
        running.await_up("one", "two")
        calls = produce(settings, _calls())
        waited = produce(settings, hostile.calls("requests.retry.1s"))
        readings = produce(settings, _readings())
        produce(settings, [*hostile.heartbeats(), *hostile.controls(), *hostile.answers()])
        for partition in range(4):
            produce(settings, hostile.states(), partition)
        produce_nameless(settings, "requests", b'{"function": "echo", "args": ["a"]}')
        require_all_works(settings, list(running.processes.values()), tmp_path)
        # Nobody serves that pool here; and a call that a direct client has made too large is run and answered.
        answered = ("inference.general", "5 MB by zstd")
        read = {
            place: one
            for place, one in calls.items()
            if place[0] != "inference.nlp" and (one.topic, one.kind) != answered
        }
        letters = letters_of(settings, "requests.dlq", len(read) + len(waited) + 1)
        assert {place: read[place].kind for place in read if letters[place] != 1} == {}
        assert sum(letters.values()) == len(read) + len(waited) + 1
        odd = {place for place, one in readings.items() if place[0] == "readings" and one.kind not in FINE}
        dead = letters_of(settings, "readings.dlq", len(odd))
        assert {place: readings[place].kind for place in odd if dead[place] < 1} == {}
        # What is read again at a start, and what compaction keeps, keeps nobody from starting.
        for name in ("one", "two"):
            running.stop(name)
        for name in ("one", "two"):
            running.launch(name, *EVERYTHING.split(","), **WORKER)
        running.await_up("one", "two")
        require_all_works(settings, list(running.processes.values()), tmp_path)


@contextmanager
def _forging(settings: Settings, **told: Any) -> Iterator[None]:
    """Tell of a quick node that is none, ten times a second, until the block ends."""
    forged = hostile.fine_heartbeat(functions=["echo"], cost_ms={"echo": 0.001}, **told)
    stop = threading.Event()

    def forge() -> None:
        while not stop.wait(0.1):
            produce(settings, [forged])

    forger = threading.Thread(target=forge)
    forger.start()
    try:
        yield
    finally:
        stop.set()
        forger.join()


def _require_answers(settings: Settings, calls: int) -> None:
    with Client(settings) as client, Client(settings, direct=True) as direct:
        for number in range(calls):
            asked, text = direct if number % 2 else client, str(number)
            assert asked.call("echo", text, options=CallOptions(timeout_s=5)) == text


def test_a_forged_quick_node_of_a_pool_that_nobody_serves_draws_no_call(settings: Settings) -> None:
    with system(settings, functions="served") as running:
        running.launch("one", "router", "inference")
        running.await_up("one")
        with _forging(settings, pool="ghosts"):
            _require_answers(settings, 40)


def test_a_forged_quick_node_that_names_another_s_partitions_draws_no_call(settings: Settings) -> None:
    with system(settings, functions="served") as running:
        running.launch("one", "router", "inference")
        running.launch("two", "inference", EASYREMOTE_FUNCTIONS="marking")
        running.await_up("one", "two")
        other = next(beat for beat in running.view() if beat.node_id == "two")
        # Who reads those partitions has no such function, and passes each call on to the router, which chose it.
        with _forging(settings, partitions=other.partitions):
            _require_answers(settings, 40)
