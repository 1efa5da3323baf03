"""Accounts for every reading: its windows, computed anew from the log, or why no window has it."""

from __future__ import annotations

import json
import math
from collections import Counter, defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

from confluent_kafka import Message

from chaos.plan import HOP_MS, HOP_SIZE_MS, IDLE_MS, LATENESS_MS, POISON, SUMS_MS, WINDOW_MS
from chaos.topics import headers, read
from chaos.verdict import Verdict

_FUTURE_MS = 5 * 60_000
_SLACK_MS = 3_000
"""Silence so much short of the idle time may have been taken for it, by another clock or a tick later."""
_PIPELINE = "easyremote_pipeline"

Place = tuple[int, int]
"""Partition and offset of a reading."""
Window = tuple[str, int]
"""Device and start."""


@dataclass(frozen=True)
class Reader:
    """One reader of `readings`: its windows, and where it tells them."""

    name: str
    size_ms: int
    hop_ms: int
    topic: str
    refuses_poison: bool = False


READERS = (
    Reader("", WINDOW_MS, WINDOW_MS, "aggregates"),
    Reader("sums", SUMS_MS, SUMS_MS, "chaos.sums", refuses_poison=True),
    Reader("hops", HOP_SIZE_MS, HOP_MS, "chaos.hops"),
)


@dataclass
class _Series:
    """What a reader knows of a device."""

    greatest_ms: int = -(2**62)
    heard_ms: int = 0
    may_be_closed_ms: int = -(2**62)
    """End of what silence may have closed."""


@dataclass
class Expected:
    """What a reader must have told."""

    windows: dict[Window, list[float]] = field(default_factory=lambda: defaultdict(list))
    late: set[Place] = field(default_factory=set)
    dead: set[Place] = field(default_factory=set)
    open_windows: set[Window] = field(default_factory=set)
    """Windows of which silence may have left something out: an outage was as long as the idle time."""
    open_places: set[Place] = field(default_factory=set)


@dataclass(frozen=True)
class Reading:
    """A record of the log; `device` is None of one that is no reading."""

    place: Place
    arrived_ms: int
    device: str | None
    value: float
    event_ms: int


def log(servers: str) -> list[Reading]:
    """Return all readings in the order of their partitions."""
    found = [_reading(message) for message in read(servers, "readings")]
    return sorted(found, key=lambda one: one.place)


def _reading(message: Message) -> Reading:
    place = (message.partition() or 0, message.offset() or 0)
    arrived_ms = message.timestamp()[1]
    try:
        body = json.loads(message.value() or b"")
        return Reading(place, arrived_ms, body["device_id"], body["value"], body["timestamp_ms"])
    except (ValueError, KeyError, TypeError):
        return Reading(place, arrived_ms, None, 0.0, 0)


def expect(readings: Sequence[Reading], reader: Reader) -> Expected:
    """Compute what a reader must tell of a log: by event time alone, reading by reading."""
    expected = Expected()
    series: dict[str, _Series] = defaultdict(_Series)
    for one in readings:
        if one.device is None or (reader.refuses_poison and one.value == POISON):
            expected.dead.add(one.place)
        elif one.event_ms - one.arrived_ms > _FUTURE_MS:
            expected.late.add(one.place)
        else:
            _take(expected, series[one.device], one, reader)
    return expected


def _take(expected: Expected, known: _Series, one: Reading, reader: Reader) -> None:
    if known.heard_ms and one.arrived_ms - known.heard_ms > IDLE_MS - _SLACK_MS:
        newest = known.greatest_ms - known.greatest_ms % reader.hop_ms
        known.may_be_closed_ms = newest + reader.size_ms
    known.heard_ms = one.arrived_ms
    known.greatest_ms = max(known.greatest_ms, one.event_ms)
    starts = list(_starts(one.event_ms, reader))
    first_end_ms = starts[0] + reader.size_ms
    assert one.device is not None
    if first_end_ms <= known.greatest_ms - LATENESS_MS:
        expected.late.add(one.place)
        return
    if first_end_ms <= known.may_be_closed_ms:
        expected.open_places.add(one.place)
        expected.open_windows |= {(one.device, start) for start in starts}
    for start in starts:
        expected.windows[one.device, start].append(one.value)


def _starts(event_ms: int, reader: Reader) -> Iterator[int]:
    """Yield the starts of the windows that hold an event, the earliest first."""
    last = event_ms - event_ms % reader.hop_ms
    first = (event_ms - reader.size_ms) // reader.hop_ms * reader.hop_ms + reader.hop_ms
    yield from range(first, last + 1, reader.hop_ms)


def judge(servers: str) -> Verdict:
    """Say which windows, late records and dead letters are not what the log says."""
    verdict = Verdict()
    readings = log(servers)
    late, dead = _beside(servers, "readings.late"), _beside(servers, "readings.dlq")
    facts: dict[str, Any] = {"readings": len(readings)}
    for reader in READERS:
        expected = expect(readings, reader)
        name = reader.name or "built-in"
        _judge_windows(verdict, name, expected, list(read(servers, reader.topic)))
        for what, wanted, found in (("late", expected.late, late), ("dead letters", expected.dead, dead)):
            _judge_places(verdict, f"{name}: {what}", wanted, found[reader.name], expected.open_places)
        facts[name] = {
            "windows": len(expected.windows),
            "late": len(expected.late),
            "dead letters": len(expected.dead),
            "left to the clock": len(expected.open_windows),
        }
    _judge_alerts(verdict, servers)
    verdict.facts["streams"] = facts
    return verdict


def _judge_windows(verdict: Verdict, name: str, expected: Expected, told: Sequence[Message]) -> None:
    rows: dict[Window, list[dict[str, Any]]] = defaultdict(list)
    for message in told:
        row = json.loads(message.value() or b"")
        if row.get("final", True):
            rows[row["device_id"], row["window_start"]].append(row)
    unclear = expected.open_windows
    lost = expected.windows.keys() - rows.keys() - unclear
    verdict.find(f"{name}: windows lost", [f"{one} of {len(expected.windows[one])}" for one in sorted(lost)])
    double = [f"{one}: {found}" for one, found in sorted(rows.items()) if len(found) > 1]
    verdict.find(f"{name}: windows told twice", double)
    wrong = [
        f"{one}: told {row}, the log says {_facts(expected.windows.get(one, []))}"
        for one, found in sorted(rows.items())
        for row in found
        if one not in unclear and not _is_right(row, expected.windows.get(one, []))
    ]
    verdict.find(f"{name}: windows wrong", wrong)


def _facts(values: Sequence[float]) -> dict[str, float]:
    if not values:
        return {"count": 0}
    return {"count": len(values), "sum": sum(values), "min": min(values), "max": max(values)}


def _is_right(row: dict[str, Any], values: Sequence[float]) -> bool:
    if row["count"] != len(values):
        return False
    total, mean = sum(values), sum(values) / len(values)
    facts = {"sum": total, "total": total, "min": min(values), "max": max(values), "top": max(values)}
    variance = sum((value - mean) ** 2 for value in values) / len(values)
    return all(row[key] == value for key, value in facts.items() if key in row) and math.isclose(
        row.get("variance", variance), variance, rel_tol=1e-9, abs_tol=1e-9
    )


def _beside(servers: str, topic: str) -> dict[str, Counter[Place]]:
    """Return where the records of a topic beside `readings` stood there, by who put them aside."""
    found: dict[str, Counter[Place]] = defaultdict(Counter)
    for message in read(servers, topic):
        said = headers(message)
        reader = said.get(_PIPELINE, b"").decode()
        if "easyremote_source_offset" in said:
            place = int(said["easyremote_source_partition"]), int(said["easyremote_source_offset"])
        else:
            source = json.loads(message.value() or b"")["lateness"]["source"]
            place = source["partition"], source["offset"]
        found[reader][place] += 1
    return found


def _judge_places(verdict: Verdict, what: str, wanted: set[Place], found: Counter[Place], unclear: set[Place]) -> None:
    verdict.find(f"{what} missing", [str(one) for one in sorted(wanted - found.keys())])
    verdict.find(f"{what} that are none", [str(one) for one in sorted(found.keys() - wanted - unclear)])
    verdict.find(f"{what} told twice", [str(one) for one, count in sorted(found.items()) if count > 1])


def _judge_alerts(verdict: Verdict, servers: str) -> None:
    told = Counter(json.loads(message.value() or b"")["id"] for message in read(servers, "alerts"))
    verdict.find("alerts told twice", [one for one, count in sorted(told.items()) if count > 1])
