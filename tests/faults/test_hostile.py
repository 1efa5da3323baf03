"""A record of each kind that once ended a worker, in every topic that is read: each is accounted for."""

from __future__ import annotations

import threading
from pathlib import Path

import grammar
import hostile
import pytest
from easyremote import CallOptions, Client
from easyremote.settings import Settings
from hostile import Hostile
from system import system
from unkind import await_dealt_with, letters_of, places_of, produce, produce_nameless, require_all_works
from workers import tail

pytestmark = [pytest.mark.broker, pytest.mark.faults, pytest.mark.timeout(180)]

EVERYTHING = "router,streams,inference"
FINE = {"fine", "5 MB by zstd", "an unknown field nested 2,000 deep"}
"""Readings that may be read: nobody looks at what is beside their fields."""
SEED, RECORDS = 11, 5_000
GROUPS = {
    "router": "requests",
    "inference.general": "inference.general",
    "streams": "readings",
    "pipeline.orders.takings": "orders",
}
"""Which group has to have committed all of which topic: it commits what is answered, or a dead letter, and no more."""
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


def test_a_forged_quick_node_of_a_pool_that_nobody_serves_draws_no_call(settings: Settings) -> None:
    forged = next(one for one in hostile.heartbeats() if one.kind == "a pool that nobody serves")
    stop = threading.Event()

    def forge() -> None:
        while not stop.wait(0.1):
            produce(settings, [forged._replace(value=(forged.value or b"").replace(b'"stamp"', b'"echo"'))])

    with system(settings, functions="served") as running:
        running.launch("one", "router", "inference")
        running.await_up("one")
        forger = threading.Thread(target=forge)
        forger.start()
        try:
            with Client(settings) as client, Client(settings, direct=True) as direct:
                for number in range(40):
                    text = str(number)
                    assert (direct if number % 2 else client).call(
                        "echo", text, options=CallOptions(timeout_s=5)
                    ) == text
        finally:
            stop.set()
            forger.join()


def test_thousands_of_records_by_the_grammar_end_no_worker_and_all_are_dealt_with(
    settings: Settings, tmp_path: Path
) -> None:
    with system(settings, functions="served") as running:
        running.launch("one", *EVERYTHING.split(","), **WORKER)
        running.await_up("one")
        process = running.processes["one"].pid
        # Of the topics for the system's own use many records say the same: enough is enough.
        produce(settings, grammar.records(SEED, RECORDS))
        require_all_works(settings, list(running.processes.values()), tmp_path)
        await_dealt_with(settings, GROUPS)
        with tail(settings, "requests.dlq") as dead:
            assert dead.caught_up()
            assert {place: count for place, count in places_of(settings, dead.messages).items() if count > 1} == {}
        assert running.processes["one"].pid == process
        assert running.processes["one"].poll() is None
