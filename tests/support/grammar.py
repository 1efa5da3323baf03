"""Records by a grammar: a topic's values, bent in structure, encoding, size and headers; a seed gives the same."""

from __future__ import annotations

import random
from collections.abc import Iterator
from typing import Any

import msgspec
from hostile import LATIN, NOW_MS, Hostile

TOPICS = (
    "requests", "requests.retry.1s", "inference.general", "readings", "orders", "nodes", "cancellations", "models",
    "functions", "suspects", "results", "replies", "streams.changelog", "requests.dlq.handled", "readings.dlq.handled",
)  # fmt: skip
COMPACTED = frozenset(
    {"nodes", "models", "functions", "streams.changelog", "requests.dlq.handled", "readings.dlq.handled"}
)

_FIELDS: dict[str, dict[str, Any]] = {
    "call": {
        "function": "echo", "args": ["a"], "kwargs": {}, "id": "i", "target": None, "model": None,
        "timeout_s": 5, "deadline_ms": NOW_MS, "stream": False, "claims": [], "from_seq": 0, "priority": "normal",
    },
    "reading": {"device_id": "d", "metric": "m", "value": 1.5, "timestamp_ms": NOW_MS, "unit": "l/s"},
    "orders": {"shop": "s", "kind": "k", "amount": 1.5, "at": NOW_MS},
    "nodes": {
        "node_id": "n", "sent_ms": NOW_MS, "roles": ["inference"], "ready": ["inference"], "pool": "ghosts",
        "partitions": [0], "functions": ["ghost"], "in_flight": 0, "cost_ms": {"ghost": 0.1}, "models": [],
    },
    "cancellations": {"id": "nobody's"},
    "models": {"id": "o", "model": "ghost", "wanted": "unloaded", "scope": {"node": "nobody"}},
    "functions": {"node_id": "n", "pool": "ghosts", "functions": []},
    "suspects": {"death": "d", "told_by": "t", "calls": 3},
    "answers": {"id": "x", "function": "f", "status": "ok", "result": 1, "node_id": "n", "attempts": 1},
    "handled": {"action": "dropped", "at_ms": NOW_MS, "by": "me", "times": 0},
    "streams.changelog": {"x": 1},
}  # fmt: skip
_KINDS = {
    "requests": "call", "requests.retry.1s": "call", "inference.general": "call", "readings": "reading",
    "results": "answers", "replies": "answers", "requests.dlq.handled": "handled", "readings.dlq.handled": "handled",
}  # fmt: skip
_HEADERS = (
    "kafka_correlationId", "kafka_replyTopic", "kafka_replyPartition", "traceparent", "easyremote_id",
    "easyremote_attempt", "easyremote_avoid", "easyremote_deadline_ms", "easyremote_sent_ms", "easyremote_routed_ms",
    "easyremote_in_flight", "easyremote_reason", "easyremote_truncated", "x",
)  # fmt: skip
_NUMBERS = (b"0", b"-1", b"1e306", b"1e999", b"9" * 30, b"-" + b"9" * 400, b"0.1", b"2147483648", b"1e-320", b"NaN")
_TEXTS = (
    b'""',
    b'"a\\u0000b"',
    b'"\\ud800"',
    b'"' + b"x" * 300 + b'"',
    b'"' + LATIN + b'"',
    b'"\xf0\x9f\x98\x80"',
    b'"]["',
)
_OTHERS = (b"null", b"true", b"[]", b"{}", b"[[]]", b'{"a":{}}', b"", b"nul", b"[,]", b'{"sha256":"x"}')
_CONTENTS = (
    b"",
    b"-1",
    b"inf",
    b"nan",
    b"9" * 40,
    b"\0\0\0\1",
    b"\xff\xff\xff\xff",
    LATIN,
    b"a\0b",
    b"7",
    b"c" * 2_000,
)


def records(seed: int, count: int, topics: tuple[str, ...] = TOPICS) -> Iterator[Hostile]:
    """Yield so many records, about one in ten of which is as it should be."""
    chance = random.Random(seed)
    for number in range(count):
        topic = topics[number % len(topics)]
        value = _value(chance, topic)
        key = chance.choice([None, b"", b"k", LATIN, b"position", b'["d","m"]', b"n", b"x" * 200])
        if topic in COMPACTED and key is None:
            key = b"k"
        yield Hostile(topic, f"seed {seed}, record {number}", value, key, tuple(_headers(chance)))


def _value(chance: random.Random, topic: str) -> bytes | None:
    fields = {name: msgspec.json.encode(one) for name, one in _FIELDS[_KINDS.get(topic, topic)].items()}
    bends = chance.choice((0, 1, 1, 1, 2, 3))
    for _ in range(bends):
        name = chance.choice([*fields, "extra"])
        fields[name] = _bent(chance)
    if bends and chance.random() < 0.1:
        fields.pop(chance.choice([*fields]))
    value = b"{" + b",".join(b'"' + name.encode() + b'":' + one for name, one in fields.items()) + b"}"
    damage = chance.random() if bends else 1.0
    if damage < 0.05:
        return value[: chance.randrange(len(value))]
    if damage < 0.10:
        place = chance.randrange(len(value))
        return value[:place] + bytes([chance.randrange(256)]) + value[place + 1 :]
    if damage < 0.12:
        return chance.randbytes(chance.randrange(60))
    if damage < 0.13 and topic in {"requests", "requests.retry.1s", "inference.general", "readings", "orders"}:
        return None
    return value


def _bent(chance: random.Random) -> bytes:
    kind = chance.randrange(10)
    if kind == 0:
        depth, form = chance.choice((50, 99, 200, 1_500)), chance.choice((b"[]", b"{}"))
        opened = form[:1] if form == b"[]" else b'{"a":'
        return opened * depth + (b"1" + form[1:] * depth if chance.random() < 0.7 else b"")
    if kind < 4:
        return chance.choice(_NUMBERS)
    if kind < 7:
        return chance.choice(_TEXTS)
    return chance.choice(_OTHERS)


def _headers(chance: random.Random) -> Iterator[tuple[str, bytes]]:
    for _ in range(chance.choice((0, 0, 0, 1, 2))):
        yield chance.choice(_HEADERS), chance.choice(_CONTENTS)
