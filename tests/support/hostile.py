"""Records that somebody could write by hand: the 44 kinds that once ended a worker, and their neighbours."""

from __future__ import annotations

import json
from typing import Any, NamedTuple

NOW_MS = 1_700_000_000_000
DEEP = b"[" * 2_000 + b"]" * 2_000
UNTERMINATED = b"[" * 2_000
LATIN = "Stra\xdfe".encode("latin-1")
ASTRAL = "\U0001f600"
MINUS_ONE = (-1).to_bytes(4, "big", signed=True)


class Hostile(NamedTuple):
    """One record: its topic without the namespace, what is odd about it, and itself."""

    topic: str
    kind: str
    value: bytes | None
    key: bytes | None = None
    headers: tuple[tuple[str, bytes], ...] = ()


def _json(**fields: Any) -> bytes:
    return json.dumps(fields, ensure_ascii=False).encode()


def _call(**fields: Any) -> bytes:
    return _json(function="stamp", args=["/dev/null", "x", 0], **fields)


def calls(topic: str) -> list[Hostile]:
    """Return what is wrong with a call, for one of the topics that carry calls."""
    call = _call()
    bodies = {
        "arguments nested 2,000 deep": b'{"function": "stamp", "args": [' + DEEP + b"]}",
        "an unknown field nested 2,000 deep": b'{"function": "stamp", "x": ' + DEEP + b"}",
        "nested and unterminated": b'{"function": "stamp", "args": ' + UNTERMINATED,
        "objects nested 2,000 deep": b'{"function": "stamp", "kwargs": {"a": ' + b'{"a":' * 2_000,
        "a timeout of 1e306 s": _call(timeout_s=1e306),
        "a negative timeout": _call(timeout_s=-1),
        "a deadline of -10^400": _call()[:-1] + b', "deadline_ms": -1' + b"0" * 400 + b"}",
        "a deadline of 10^18 ms": _call(deadline_ms=10**18),
        "a first item of 2^70": _call(from_seq=2**70),
        "a reply topic with NUL": _call(reply_to="a\0b"),
        "a reply topic of 300 letters": _call(reply_to="a" * 300),
        "a function name of 300 letters": _json(function="f" * 300),
        "a function name of 470,000 astral characters": _json(function=ASTRAL * 470_000),
        "an empty function name": _json(function=""),
        "an id of 100 kB": _call(id="i" * 100_000),
        "a target of 100 kB": _call(target="t" * 100_000),
        "no JSON": b"\xff\xfe\x00",
        "nothing": b"",
        "a list": b"[]",
        "a key that is no text": b'{"function": "stamp", "kwargs": {"' + LATIN + b'": 1}}',
        "a lone surrogate": b'{"function": "\\ud800"}',
        "half a claim": b'{"function": "stamp", "claims": [{"sha256": "x"}]}',
    }
    headers = {
        "a sent time of inf": (("easyremote_sent_ms", b"inf"),),
        "a sent time of nan": (("easyremote_sent_ms", b"nan"),),
        "a sent time of 1e400": (("easyremote_sent_ms", b"1e400"),),
        "a deadline of 400 digits": (("easyremote_deadline_ms", b"9" * 400),),
        "a deadline of 5,000 digits": (("easyremote_deadline_ms", b"9" * 5_000),),
        "attempt 10^30": (("easyremote_attempt", b"1" + b"0" * 30),),
        "attempt 0": (("easyremote_attempt", b"0"),),
        "a routed time of -inf": (("easyremote_routed_ms", b"-inf"),),
        "a reply partition of -1": (("kafka_replyPartition", MINUS_ONE),),
        "a reply partition of 3 bytes": (("kafka_replyPartition", b"\0\0\1"),),
        "a reply topic header with NUL": (("kafka_replyTopic", b"a\0b"),),
        "a reply topic header that is no text": (("kafka_replyTopic", LATIN),),
        "an id header that is no text": (("easyremote_id", LATIN),),
        "a correlation id of 1 MB": (("kafka_correlationId", b"c" * 1_000_000),),
        "a node to avoid of 1 MB": (("easyremote_avoid", b"a" * 1_000_000),),
    }
    return [Hostile(topic, kind, value) for kind, value in bodies.items()] + [
        Hostile(topic, kind, call, headers=given) for kind, given in headers.items()
    ]


def readings(topic: str = "readings") -> list[Hostile]:
    """Return what is wrong with a reading; late and future ones, which are fine but for a field beside, are apart."""
    fine = {"device_id": "pump", "metric": "flow", "value": 1.0, "timestamp_ms": NOW_MS}
    bodies = {
        "an unknown field nested 2,000 deep": _json(**fine)[:-1] + b', "x": ' + DEEP + b"}",
        "nested and unterminated": _json(**fine)[:-1] + b', "x": ' + UNTERMINATED,
        "a value of 10^400": _json(**fine | {"value": 0})[:-1] + b', "value": 1' + b"0" * 400 + b"}",
        "a time of 10^30": _json(**fine | {"timestamp_ms": 10**30}),
        "a device of 1.1 MB": _json(**fine | {"device_id": "d" * 1_100_000}),
        "a metric of 100 kB": _json(**fine | {"metric": "m" * 100_000}),
        "a device that is no text": b'{"device_id": "' + LATIN + b'", "metric": "m", "value": 1, "timestamp_ms": 1}',
        "no JSON": b"\xff\xfe\x00",
        "nothing": b"",
        "a list": b"[]",
    }
    return [Hostile(topic, kind, value) for kind, value in bodies.items()]


def odd_readings(topic: str = "readings") -> list[Hostile]:
    """Return readings that are fine but for a field that nobody looks at until they are late, or from the future."""
    field = b', "' + LATIN + b'": 1}'
    late = {"device_id": "pump", "metric": "flow", "value": 1.0, "timestamp_ms": 1}
    future = late | {"timestamp_ms": 2**47}
    return [
        Hostile(topic, "fine", _json(**late | {"timestamp_ms": NOW_MS}), b"pump"),
        Hostile(topic, "a late one with a key that is no text", _json(**late)[:-1] + field, b"pump"),
        Hostile(topic, "a future one with a key that is no text", _json(**future)[:-1] + field, b"pump"),
    ]


_HEARTBEAT: dict[str, Any] = {
    "node_id": "forged", "sent_ms": NOW_MS, "roles": ["inference"], "ready": ["inference"], "node_type": "general",
    "pool": "general", "partitions": [0], "functions": ["stamp"], "cost_ms": {"stamp": 0.001},
}  # fmt: skip


def fine_heartbeat(**fields: Any) -> Hostile:
    """Return a heartbeat with nothing wrong but that its node is none; `fields` are others than usual."""
    told = _HEARTBEAT | fields
    return Hostile("nodes", "forged", _json(**told), told["node_id"].encode())


def heartbeats() -> list[Hostile]:
    """Return what is wrong with a heartbeat; the key is its node's id where it has one."""
    fine = _HEARTBEAT
    bodies = {
        "nested": b'{"x":' + DEEP + b"}",
        "nested and unterminated": b'{"x":' + UNTERMINATED,
        "partition -5": _json(**fine | {"partitions": [-5]}),
        "partition 2^40": _json(**fine | {"partitions": [2**40]}),
        "an impossible pool": _json(**fine | {"pool": "a/b\0"}),
        "a cost of 0": _json(**fine | {"cost_ms": {"stamp": 0}}),
        "a cost of -1": _json(**fine | {"cost_ms": {"stamp": -1}}),
        "10^400 in flight": _json(**fine | {"in_flight": 0})[:-1] + b', "in_flight": 1' + b"0" * 400 + b"}",
        "-1 in flight": _json(**fine | {"in_flight": -1}),
        "a mean of 1e300 s": _json(**fine | {"mean_response_s": 1e300}),
        "a model of 700 kB": _json(**fine | {"models": [{"name": "m" * 700_000, "version": "1", "loaded": True}]}),
        "a node id of 700 kB": _json(**fine | {"node_id": "n" * 700_000}),
        "20,000 functions": _json(**fine | {"functions": [f"f{number}" for number in range(20_000)]}),
        "another's key": _json(**fine | {"node_id": "somebody else"}),
    }
    # These two can only be told by who knows the topics and the group.
    bodies |= {
        "partition 99": _json(**fine | {"partitions": [99]}),
        "a pool that nobody serves": _json(**fine | {"pool": "ghosts"}),
    }
    return [Hostile("nodes", kind, value, b"forged") for kind, value in bodies.items()]


def controls() -> list[Hostile]:
    """Return records of the other topics for the system's own use that are none."""
    nested, open_ended = b'{"x":' + DEEP + b"}", b'{"x":' + UNTERMINATED
    order = {"id": "o", "model": "m", "wanted": "unloaded"}
    found = []
    for topic in ("cancellations", "models", "functions", "suspects", "requests.dlq.handled", "readings.dlq.handled"):
        found += [Hostile(topic, "nested", nested, b"k"), Hostile(topic, "nested and unterminated", open_ended, b"k")]
        found += [Hostile(topic, "no JSON", LATIN, LATIN), Hostile(topic, "a list", b"[]", b"k")]
    found += [
        Hostile("cancellations", "an id of 1 MB", _json(id="i" * 1_000_000), b"k"),
        Hostile("models", "a name of 700 kB", _json(**order | {"model": "m" * 700_000}), b"k"),
        Hostile("models", "a version of 700 kB", _json(**order | {"wanted": {"version": "v" * 700_000}}), b"k"),
        Hostile("suspects", "10^400 calls", b'{"death": "d", "told_by": "t", "calls": 1' + b"0" * 400 + b"}", b"k"),
        Hostile("suspects", "-1 calls", _json(death="d", told_by="t", calls=-1), b"k"),
        Hostile("functions", "a name of 700 kB", _json(node_id="n", functions=[{"name": "f" * 700_000}]), b"n"),
    ]
    return found


def answers() -> list[Hostile]:
    """Return records of the topics that answers are looked up in."""
    at = ("easyremote_sent_ms", b"1.0")
    to = ("kafka_replyTopic", b"t")
    return [
        Hostile("results", "a topic that is no text", b"{}", b"forged-1", (at, ("kafka_replyTopic", LATIN))),
        Hostile(
            "results",
            "partition -1",
            b"{}",
            b"forged-2",
            (at, ("kafka_replyTopic", b"t"), ("kafka_replyPartition", MINUS_ONE)),
        ),
        Hostile("results", "nested", DEEP, b"forged-3", (at, to)),
        Hostile("results", "no header", b"{}", b"forged-4"),
        Hostile("replies", "nested", DEEP, b"forged-5", (("kafka_correlationId", b"forged-5"), at)),
        Hostile("replies", "no JSON", LATIN, b"forged-6", (("kafka_correlationId", b"forged-6"), at)),
        Hostile("replies", "no key", LATIN, None, (("easyremote_in_flight", b"9" * 5_000),)),
    ]


def states() -> list[Hostile]:
    """Return records of a changelog that nobody of ours has written."""
    return [
        Hostile("streams.changelog", "a reply", b'{"id": "x", "status": "ok"}', b"x"),
        Hostile("streams.changelog", "a position that is none", b"\xff\xff", b"position"),
        Hostile("streams.changelog", "a position of 5,000 digits", b"9" * 5_000, b"position"),
        Hostile("streams.changelog", "half a state", b"\x01\x02", b'["pump","flow"]'),
        Hostile("streams.changelog", "a key nested 2,000 deep", b"\x01" * 100, DEEP),
    ]


class Sent:
    """A record as the client gives it."""

    def __init__(self, one: Hostile, offset: int = 0, at_ms: int = NOW_MS) -> None:
        self._one, self._offset, self._at_ms = one, offset, at_ms

    def topic(self) -> str:
        return self._one.topic

    def partition(self) -> int:
        return 0

    def offset(self) -> int:
        return self._offset

    def key(self) -> bytes | None:
        return self._one.key

    def value(self) -> bytes | None:
        return self._one.value

    def headers(self) -> list[tuple[str, bytes]]:
        return list(self._one.headers)

    def timestamp(self) -> tuple[int, int]:
        return 1, self._at_ms

    def error(self) -> None:
        return None


class NoNames(Sent):
    """One with a header whose name is no UTF-8: the client raises."""

    replaced: list[tuple[str, bytes]] | None = None

    def headers(self) -> list[tuple[str, bytes]]:
        if self.replaced is None:
            raise UnicodeDecodeError("utf-8", b"\xff", 0, 1, "invalid start byte")
        return self.replaced

    def set_headers(self, headers: list[tuple[str, bytes]]) -> None:
        self.replaced = headers


def sent(one: Hostile, offset: int = 0) -> Any:  # Any: stands for the client's class
    """Return a record as the client gives it."""
    return Sent(one, offset)


def nameless(one: Hostile) -> Any:  # Any: as above
    """Return a record of which the client cannot give the headers."""
    return NoNames(one)
