"""What became of every record: each led to one thing and no more, by the topics and by the worker's own count."""

from __future__ import annotations

import json
import threading
import time
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from contextlib import ExitStack
from functools import partial
from typing import Any, NamedTuple

from confluent_kafka import Message
from easyremote.agents.streams import ReadingsTask
from easyremote.pipelines.task import PipelineTask
from easyremote.settings import Settings
from easyremote.topics.admin import TopicAdmin
from easyremote.topics.dead_letters import Handled
from easyremote.topics.letters import source_of
from easyremote.topics.limits import Unreadable, attempt
from easyremote.topics.marks import FINGERPRINT, fingerprint_of
from easyremote.topics.model_control import decode_order
from easyremote.topics.records import (
    Followed,
    Heartbeat,
    decode_cancellation,
    decode_death,
    decode_heartbeat,
    decode_offer,
)
from easyremote.topics.transactions import committed_offsets
from easyremote.topics.wire import SENT_MS, SOURCE, MalformedCall, Origin, headers_of, read_call, sent_header
from msgspec.json import Decoder
from workers import tail

PATIENCE_S = 90.0
_AGAIN_S = 0.2
CALLS = ("requests", "requests.retry.1s", "requests.retry.10s", "requests.retry.60s", "inference.general")
Place = tuple[str, int, int]


class Topics:
    """All records of some topics, read once."""

    def __init__(self, settings: Settings, names: Iterable[str]) -> None:
        self._settings = settings
        with ExitStack() as opened:
            tails = {name: opened.enter_context(tail(settings, name)) for name in names}
            assert all(one.caught_up() for one in tails.values())
            self.of = {name: list(one.messages) for name, one in tails.items()}

    def place(self, name: str, message: Message) -> Place:
        """Return where a record stands."""
        return name, message.partition() or 0, message.offset() or 0

    def placed(self, text: str) -> Place:
        """Return the place that a record names, as `topic/partition/offset`."""
        name, partition, offset = text.rsplit("/", 2)
        return name.removeprefix(self._settings.namespace), int(partition), int(offset)


def ends_of(settings: Settings, names: Iterable[str]) -> dict[tuple[str, int], int]:
    """Return where the partitions of these topics end, by their full names."""
    admin, prefix = TopicAdmin(settings), settings.namespace
    there = admin.partitions()
    return admin.ends([(prefix + name, number) for name in names for number in range(there[prefix + name])])


def await_settled(settings: Settings, groups: Mapping[str, str]) -> None:
    """Wait until these groups have committed all that stands in their topics, and nothing more comes of it."""
    prefix, deadline = settings.namespace, time.monotonic() + PATIENCE_S
    while True:
        ends = ends_of(settings, set(groups.values()))
        behind: dict[tuple[str, tuple[str, int]], tuple[int | None, int]] = {}
        for group, topic in groups.items():
            mine = {place: end for place, end in ends.items() if place[0] == prefix + topic and end}
            stand = committed_offsets(settings, f"{prefix}easyremote.{group}", list(mine))
            behind |= {
                (group, place): (stand.get(place), end) for place, end in mine.items() if stand.get(place) != end
            }
        if not behind and ends_of(settings, set(groups.values())) == ends:
            return
        assert time.monotonic() < deadline, f"not committed, and the ends: {behind}"
        threading.Event().wait(_AGAIN_S)


class _Outcomes(NamedTuple):
    letters: Counter[Place]
    sent_on: Counter[Place]
    """Records of calls that were sent because of the one at a place."""
    refused: Counter[Place]
    """Replies of routers, which name the record."""
    answered: Counter[tuple[bytes, bytes, bytes]]
    """Replies of nodes, by the call's id, which sending of it, and what was asked."""


def require_calls_accounted(settings: Settings, forged: set[Place]) -> Counter[str]:
    """Hold each record of the topics of calls to one outcome; `forged` are those of `replies` that a test wrote."""
    topics = Topics(settings, [*CALLS, "replies", "requests.dlq"])
    found = _Outcomes(Counter(), Counter(), Counter(), Counter())
    for message in topics.of["requests.dlq"]:
        found.letters[topics.placed((source_of(dict(headers_of(message))) or b"").decode())] += 1
    for name in (*CALLS, "replies"):
        for message in topics.of[name]:
            if topics.place(name, message) not in forged:
                _note(found, topics, name, message)
    kinds: Counter[str] = Counter()
    wrong: dict[Place, str] = {}
    asked: Counter[tuple[bytes, bytes, bytes]] = Counter()
    for name in CALLS:
        for message in topics.of[name]:
            place = topics.place(name, message)
            origin = Origin(settings.namespace + name, place[1], place[2], message.timestamp()[1])
            call = read_call(message.value(), headers_of(message), origin, settings.namespace)
            letters, on, refused = found.letters[place], found.sent_on[place], found.refused[place]
            if letters or on or refused:
                kind = "dead letter" if letters else "sent on" if on else "refused"
                is_one = (letters + on == 1 and refused <= 1) or (not letters and not on and refused == 1)
            elif isinstance(call, MalformedCall) or not name.startswith("inference."):
                kind, is_one = "lost", False
            else:
                answer = (call.id.encode(), sent_header(call.sent_ms), fingerprint_of(call))
                kind, is_one = "answered", found.answered[answer] >= 1
                asked[answer] += 1
            kinds[kind] += 1
            if not is_one:
                wrong[place] = f"{kind}: {letters} dead letters, sent on {on} times, refused {refused} times: {call!r}"
    assert not wrong, f"{len(wrong)} of {kinds}: {[*wrong.items()][:5]}"
    many = {answer: count for answer, count in found.answered.items() if count > max(1, asked[answer])}
    assert not many, f"more replies than sendings: {[*many.items()][:5]}"
    return kinds


def _note(found: _Outcomes, topics: Topics, name: str, message: Message) -> None:
    headers, key = dict(headers_of(message)), message.key()
    source = headers.get(SOURCE)
    if name != "replies":
        if source is not None:
            found.sent_on[topics.placed(source.decode())] += 1
    elif source is not None:
        found.refused[topics.placed(source.decode())] += 1
    elif FINGERPRINT in headers and isinstance(key, bytes):
        found.answered[key, headers[SENT_MS], headers[FINGERPRINT]] += 1


def require_rows_accounted(settings: Settings, topic: str, results: str, pipeline: str | None) -> Counter[str]:
    """Hold each record of a stream's topic to a window that is closed, the late topic, or the dead letters.

    Windows close by silence, which is waited for.
    """
    count = sum(ends_of(settings, [topic]).values())
    header = None if pipeline is None else pipeline.encode()
    with (
        tail(settings, results) as told,
        tail(settings, f"{topic}.late") as late,
        tail(settings, f"{topic}.dlq") as dead,
    ):

        def came() -> Counter[str]:
            # Lists grow meanwhile: only what has come is looked at.
            kinds = Counter({"in windows": sum(_counts(list(told.messages)))})
            kinds["late"] = sum(_pipeline_of(one) == header for one in list(late.messages))
            kinds["dead letters"] = sum(_pipeline_of(one) == header for one in list(dead.messages))
            return kinds

        deadline = time.monotonic() + PATIENCE_S
        while sum((kinds := came()).values()) < count:
            assert time.monotonic() < deadline, f"{count} records of {topic} were read, and led to {kinds}"
            threading.Event().wait(_AGAIN_S)
        assert sum(kinds.values()) == count, f"{count} records of {topic} were read, and led to {kinds}"
        sources = Counter(source_of(dict(headers_of(one))) for one in dead.messages if _pipeline_of(one) == header)
        assert not [source for source, times in sources.items() if times > 1]
        return kinds


def _counts(messages: list[Message]) -> Iterator[int]:
    for one in messages:
        result = json.loads(one.value() or b"{}")
        if result.get("final", True):
            yield result["count"]


def _pipeline_of(message: Message) -> bytes | None:
    return dict(headers_of(message)).get("easyremote_pipeline")


def _is_read(topic: str, message: Message) -> bool:
    """Say whether a record of a control topic can be heeded, by what the topic's page of the protocol says."""
    key, value, headers = message.key(), message.value(), dict(headers_of(message))
    nameless = "easyremote_lost_headers" in headers
    if topic in {"results", "replies"}:
        answers = isinstance(key, bytes) and FINGERPRINT in headers
        return not nameless and (answers or topic == "replies")
    decode: Any = {
        "nodes": decode_heartbeat, "cancellations": decode_cancellation, "models": decode_order,
        "suspects": decode_death, "functions": decode_offer,
    }[topic]  # fmt: skip
    if value is None:
        return True
    read = attempt(decode, value)
    if isinstance(read, Unreadable):
        return False
    name = key.decode(errors="replace") if isinstance(key, bytes) else str(key)
    return not isinstance(read, Heartbeat) or read.node_id == name


def expected(settings: Settings, topics: Iterable[str]) -> dict[str, Followed]:
    """Return what a process that has read these control topics to their ends must have counted."""
    read = Topics(settings, topics)
    return {
        name: Followed(len(messages), sum(not _is_read(name, one) for one in messages))
        for name, messages in read.of.items()
    }


def expected_handled(settings: Settings, topic: str) -> Followed:
    """Return the same of a topic that says what was done with dead letters, of which the last of each key counts."""
    latest = _latest(Topics(settings, [topic]).of[topic])
    decode = Decoder(Handled).decode
    return Followed(len(latest), sum(isinstance(attempt(decode, one), Unreadable) for one in latest.values()))


def expected_states(settings: Settings, changelog: str, task: ReadingsTask | PipelineTask) -> Followed:
    """Return the same of a changelog whose records are put back by a task."""
    records = Topics(settings, [changelog]).of[changelog]
    read = passed = 0
    for number in {one.partition() for one in records}:
        for key, value in _latest(one for one in records if one.partition() == number).items():
            read += 1
            if key.partition(b".")[0] == b"position":
                passed += not (value.isdigit() and len(value) < 20)
            else:
                passed += isinstance(attempt(partial(task.restore, key), value), Unreadable)
    return Followed(read, passed)


def _latest(messages: Iterable[Message]) -> dict[bytes, bytes]:
    latest: dict[bytes, bytes] = {}
    for one in messages:
        key, value = one.key(), one.value()
        if isinstance(key, bytes):
            latest.pop(key, None)
            if value is not None:
                latest[key] = value
    return latest
