"""A user's pipelines in a real worker on a real broker; workers are killed, and each result is counted."""

from __future__ import annotations

import json
from collections import defaultdict
from dataclasses import replace
from functools import partial
from typing import Any

import pytest
from confluent_kafka import Message
from easyremote.cli import app
from easyremote.pipelines import registered
from easyremote.settings import Settings
from easyremote.topics.admin import TopicAdmin
from easyremote.topics.catalog import declarations
from easyremote.topics.wire import headers_of
from typer.testing import CliRunner
from workers import await_ready, kill, producer_to, running, start_worker, stop, tail

pytestmark = pytest.mark.broker

BASE = 1_650_000_000_000


def _produce(settings: Settings, topic: str, rows: list[tuple[str, dict[str, Any]]]) -> None:
    producer = producer_to(settings.bootstrap_servers())
    for key, row in rows:
        producer.produce(settings.namespace + topic, json.dumps(row).encode(), key=key)
        producer.poll(0)
    assert producer.flush(30) == 0


def _values(messages: list[Message]) -> list[dict[str, Any]]:
    return [json.loads(message.value() or b"null") for message in messages]


def _are(least: int, messages: list[Message]) -> bool:
    return len(messages) >= least


def test_a_pipeline_over_a_topic_of_ones_own_tells_results_late_records_and_what_it_cannot_read(
    settings: Settings,
) -> None:
    with running(settings, "streams", EASYREMOTE_PIPELINES="piped"):
        at = [1_000, 6_000, 20_000, 2_000]
        rows: list[dict[str, Any]] = [
            {"shop": "a", "kind": "tea", "amount": number + 1.0, "at": BASE + ms} for number, ms in enumerate(at)
        ]
        rows.insert(2, {"shop": "a", "kind": "tea", "amount": "much", "at": BASE})
        _produce(settings, "orders", [("a", row) for row in rows])
        with tail(settings, "takings") as takings, tail(settings, "orders.late") as late:
            told = _values(takings.wait_for(lambda messages: len(messages) == 3))
            (behind,) = _values(late.wait_for(lambda messages: len(messages) == 1))
        with tail(settings, "orders.dlq") as dead:
            (letter,) = dead.wait_for(lambda messages: len(messages) == 1)
    assert told[0] == {
        "shop": "a",
        "kind": "tea",
        "window_start": BASE - 5_000,
        "window_end": BASE + 5_000,
        "mean": 1.0,
        "revision": 0,
        "final": True,
    }
    assert [(one["window_start"] - BASE, one["mean"]) for one in told] == [(-5_000, 1.0), (0, 1.5), (5_000, 2.0)]
    assert behind["amount"] == 4.0
    assert (behind["lateness"]["window_start"], behind["lateness"]["reason"]) == (BASE - 5_000, "late")
    assert json.loads(letter.value() or b"")["amount"] == "much"
    assert any(b"amount" in value for _, value in headers_of(letter))


def test_a_topic_that_is_not_there_is_waited_for_while_other_pipelines_run_and_is_not_made(settings: Settings) -> None:
    admin = TopicAdmin(settings)
    admin.ensure(declarations())
    with running(settings, "streams", EASYREMOTE_PIPELINES="piped", EASYREMOTE_CREATE_SOURCES="false"):
        row = {"device_id": "d", "metric": "flow", "value": 1.0, "timestamp_ms": BASE}
        _produce(settings, "readings", [("d", row), ("d", {**row, "timestamp_ms": BASE + 60_000})])
        with tail(settings, "flows") as flows:
            assert _values(flows.wait_for(partial(_are, 1)))[0]["total"] == 1.0
        assert settings.namespace + "orders" not in admin.partitions()
        topic = replace(next(one for one in declarations() if one.name == "readings"), name="orders", partitions=1)
        admin.ensure([topic])
        order = {"shop": "a", "kind": "tea", "amount": 1.0, "at": BASE}
        _produce(settings, "orders", [("a", order), ("a", {**order, "at": BASE + 60_000})])
        with tail(settings, "takings") as takings:
            assert _values(takings.wait_for(partial(_are, 1)))[0]["mean"] == 1.0


def test_records_on_which_a_users_code_raises_end_no_worker_and_are_each_one_dead_letter_though_it_is_killed(
    settings: Settings,
) -> None:
    TopicAdmin(settings).ensure(declarations())
    environment = {"EASYREMOTE_ROLES": "streams", "EASYREMOTE_PIPELINES": "raising"}
    rounds, each = 4, 12

    def rows(number: int) -> list[tuple[str, dict[str, Any]]]:
        at = BASE + number * 1_000
        values = {place: place + 1 for place in range(each)} | {place: bad for bad, place in _BAD}
        return [("a", {"who": "a", "n": n, "timestamp_ms": at + place}) for place, n in values.items()]

    worker = start_worker(settings, **environment)
    try:
        await_ready(settings, "streams", process=worker)
        with tail(settings, "sums") as sums, tail(settings, "numbers.dlq") as dead:
            for number in range(rounds):
                _produce(settings, "numbers", rows(number))
                dead.wait_for(partial(_are, 2 * (number + 1)))
                assert worker.poll() is None, "it is the same process"
                if number == 1:
                    kill(worker)
                    worker = start_worker(settings, **environment)
            told = _values(sums.wait_for(partial(_are, rounds - 1)))
            letters = dead.wait_for(partial(_are, 2 * rounds))
        assert [one["count"] for one in told] == [each - 2] * len(told)
        assert len({one["n"] for one in told}) == 1
        counted = [(one["n"], one["timestamp_ms"]) for one in _values(letters)]
        assert sorted(counted) == sorted(
            (bad, BASE + 1_000 * number + at) for number in range(rounds) for bad, at in _BAD
        )
        headers = {(of["easyremote_stage"], of["easyremote_error"]) for of in map(dict, map(headers_of, letters))}
        assert headers == {(b"map 1", b"SystemExit"), (b"aggregate n", b"ValueError")}
    finally:
        stop(worker)


_BAD = ((-4, 2), (0, 6))


def test_each_result_of_a_pipeline_comes_once_though_workers_are_killed(settings: Settings) -> None:
    TopicAdmin(settings).ensure(declarations())
    devices, windows, each = 20, 12, 25
    expected = {(f"d{device}", BASE + window * 10_000): each for device in range(devices) for window in range(windows)}
    environment = {"EASYREMOTE_ROLES": "streams", "EASYREMOTE_PIPELINES": "piped"}
    worker = start_worker(settings, **environment)
    try:
        await_ready(settings, "streams", process=worker)
        with tail(settings, "flows") as flows:
            # One window more, which closes those before it.
            for window in range(windows + 1):
                rows = [
                    (
                        f"d{device}",
                        {"device_id": f"d{device}", "metric": metric, "value": 1.0, "timestamp_ms": event_ms},
                    )
                    for device in range(devices)
                    for event_ms in range(BASE + window * 10_000, BASE + (window + 1) * 10_000, 10_000 // each)
                    for metric in ("flow", "heat")
                ]
                _produce(settings, "readings", rows)
                if window in {3, 7}:
                    before = window * devices // 2
                    flows.wait_for(partial(_are, before))
                    kill(worker)
                    worker = start_worker(settings, **environment)
            told = _values(flows.wait_for(partial(_are, len(expected))))
        counted: dict[tuple[str, int], list[int]] = defaultdict(list)
        for one in told:
            assert one["total"] == one["count"]
            assert one["median"] == 1.0
            counted[one["device_id"], one["window_start"]].append(one["count"])
        closed = {window: counts for window, counts in counted.items() if window in expected}
        assert closed == {window: [count] for window, count in expected.items()}
    finally:
        stop(worker)


def test_a_module_of_ones_own_is_a_worker_and_each_pair_of_its_join_comes_once_though_it_is_killed(
    settings: Settings,
) -> None:
    TopicAdmin(settings).ensure(declarations())
    numbers = range(600)
    worker = start_worker(settings, "joined", EASYREMOTE_ROLES="streams")
    try:
        await_ready(settings, "streams", process=worker)
        with tail(settings, "paid") as paid:
            for first in (0, 200, 400):
                some = numbers[first : first + 200]
                # Every third order is not paid; what is paid is paid before the order's own record is read, or after.
                rows = [(number, {"number": number, "amount": 1.0, "at": BASE + number * 20}) for number in some]
                due = [(number, {**row, "at": row["at"] + 4_000}) for number, row in rows if number % 3]
                halves = (("payments", due[:60]), ("orders", rows), ("payments", due[60:]))
                for topic, part in halves:
                    _produce(settings, topic, [(str(number), row) for number, row in part])
                before = first * 2 // 3 + 60
                paid.wait_for(partial(_are, before))
                kill(worker)
                worker = start_worker(settings, "joined", EASYREMOTE_ROLES="streams")
            # An hour later: all that waits is past its interval, in each partition.
            last = [
                (str(number), {"number": number, "amount": 0.0, "at": BASE + 3_600_000})
                for number in range(10_000, 10_100)
            ]
            _produce(settings, "payments", last)
            told = _values(paid.wait_for(partial(_are, len(numbers))))
    finally:
        stop(worker)
    assert all(set(one) == {"stream_a", "stream_b", "join_key", "join_value"} for one in told)
    pairs = sorted((one["join_value"], one["stream_b"] is not None) for one in told)
    assert pairs == [(number, number % 3 != 0) for number in numbers]


def test_a_detector_of_ones_own_pipeline_tells_an_alert_that_names_its_record(settings: Settings) -> None:
    with running(settings, "streams", EASYREMOTE_PIPELINES="piped"):
        values = [20.0 + number % 3 for number in range(40)] + [90.0]
        rows: list[tuple[str, dict[str, Any]]] = [
            ("d", {"device_id": "d", "metric": "watched", "value": value, "timestamp_ms": BASE + number * 1_000})
            for number, value in enumerate(values)
        ]
        _produce(settings, "readings", rows)
        with tail(settings, "warnings") as warnings:
            (alert,) = _values(warnings.wait_for(lambda messages: len(messages) == 1))
    assert (alert["phase"], alert["value"], alert["device_id"]) == ("opened", 90.0, "d")
    assert [one["offset"] for one in alert["records"]] == [40]


def test_a_replay_tells_the_same_byte_by_byte_and_lists_what_changed_code_tells_otherwise(
    settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    with running(settings, "streams", EASYREMOTE_PIPELINES="piped"):
        rows: list[tuple[str, dict[str, Any]]] = [
            (shop, {"shop": shop, "kind": "tea", "amount": number / 7, "at": BASE + number * 700})
            for number in range(200)
            for shop in ("a", "b", "c")
        ]
        _produce(settings, "orders", rows)
        with tail(settings, "takings") as takings:
            takings.wait_for(partial(_are, 75))
    for name, value in (("KAFKA", settings.bootstrap_servers()), ("NAMESPACE", settings.namespace)):
        monkeypatch.setenv(f"EASYREMOTE_{name}", value)
    before = dict(registered)
    registered.clear()  # a command begins with none; those of other tests' modules may have the same names
    try:
        same = CliRunner().invoke(app, ["replay", "piped", "--pipeline", "orders.takings", "--into", "again"])
        assert same.exit_code == 0, same.output
        assert " results are the same, byte by byte" in same.output
        with tail(settings, "again") as again:
            assert len(again.wait_for(partial(_are, 75))) >= 75
        taken = CliRunner().invoke(app, ["replay", "piped", "--pipeline", "orders.takings", "--into", "again"])
        assert (taken.exit_code != 0, "--into" in taken.output + taken.stderr) == (True, True)
        old = registered["orders.takings"]
        changed = replace(
            old.sources[0], steps=(lambda records: [{**one, "amount": one["amount"] + 1} for one in records],)
        )
        registered["orders.takings"] = replace(old, sources=(changed,))
        bounds = ["--from", str(BASE + 20_000), "--to", str(BASE + 30_000)]
        other = CliRunner().invoke(app, ["replay", "piped", "--pipeline", "orders.takings", *bounds])
        assert other.exit_code == 1, other.output
        assert "6 were told then and are not now" in other.output
        assert "6 are told now and were not then" in other.output
    finally:
        registered.clear()
        registered.update(before)
