"""Records by a grammar: a topic's values, bent in structure, encoding, size and headers.

Hypothesis draws the shapes of records, and shrinks one that fails. It draws some hundred a second, so where a hundred
thousand are needed each shape is told many times, with another id and another place that is damaged. A seed gives the
same records.
"""

from __future__ import annotations

import os
import random
from collections.abc import Callable, Iterator
from itertools import cycle, islice
from typing import Any, NamedTuple

import msgspec
from hostile import LATIN, NOW_MS, Hostile
from hypothesis import HealthCheck, Phase, given, seed, settings
from hypothesis import strategies as st

CALLS = ("requests", "inference.general", "requests.retry.1s", "requests.retry.10s", "requests.retry.60s")
COMPACTED = (
    "nodes", "models", "functions", "streams.changelog", "pipelines.orders.takings.changelog", "requests.dlq.handled",
    "readings.dlq.handled",
)  # fmt: skip
TOPICS = (*CALLS, "readings", "orders", "cancellations", "suspects", "results", "replies", *COMPACTED)
"""Every topic that a worker with all roles reads, or the command line."""

_FIELDS: dict[str, dict[str, Any]] = {
    "call": {
        "function": "echo", "args": ["a"], "kwargs": {}, "id": None, "target": None, "model": None,
        "timeout_s": 5, "deadline_ms": None, "stream": False, "claims": [], "from_seq": 0, "priority": "normal",
    },
    "readings": {"device_id": "d", "metric": "m", "value": 1.5, "timestamp_ms": NOW_MS, "unit": "l/s"},
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
    "changelog": {"x": 1},
}  # fmt: skip
_KINDS = dict.fromkeys(CALLS, "call") | {
    "results": "answers", "replies": "answers", "requests.dlq.handled": "handled", "readings.dlq.handled": "handled",
    "streams.changelog": "changelog", "pipelines.orders.takings.changelog": "changelog",
}  # fmt: skip
_WAITS = {"target", "model", "function"}
"""With one of these a call may wait for a node that never comes: it keeps its limit, so that it ends."""
_LIMITS = {"timeout_s", "deadline_ms"}
_HEADERS = (
    "kafka_correlationId", "kafka_replyTopic", "kafka_replyPartition", "traceparent", "easyremote_id",
    "easyremote_attempt", "easyremote_avoid", "easyremote_deadline_ms", "easyremote_sent_ms", "easyremote_routed_ms",
    "easyremote_in_flight", "easyremote_call", "easyremote_reason", "easyremote_truncated", "x",
)  # fmt: skip
_LARGE = 10_000
"""Bytes from which on a shape is told a few times only."""
_TOLD_LARGE = 3
_EACH = 20
_RETRIED_AT_ONCE = (("easyremote_deadline_ms", b"%d" % NOW_MS),)


class Shape(NamedTuple):
    """What is odd about a record of a topic; `told` makes records of it."""

    topic: str
    bends: dict[str, bytes]
    """JSON, or what stands in its place, of some fields."""
    left_out: str | None
    damage: str | None
    key: bytes | None
    headers: tuple[tuple[str, bytes], ...]

    @property
    def is_large(self) -> bool:
        """Whether it is one of the few that take long to send."""
        parts = [*self.bends.values(), self.key or b"", *(content for _, content in self.headers)]
        return sum(map(len, parts)) > _LARGE


def _json(text: str, codec: str) -> bytes:
    return b'"' + text.replace("\\", "").replace('"', "").encode(codec, "replace") + b'"'


def _nested(depth: int, form: bytes, *, closed: bool) -> bytes:
    opened = form[:1] if form == b"[]" else b'{"a":'
    return opened * depth + (b"1" + form[1:] * depth if closed else b"")


_number = st.one_of(
    st.sampled_from([
        b"0", b"-1", b"1e306", b"1e999", b"9" * 30, b"-" + b"9" * 400, b"0.1", b"2147483648", b"1e-320", b"NaN",
    ]),
    st.integers().map(lambda one: b"%d" % one),
    st.floats().map(lambda one: repr(one).encode()),
)  # fmt: skip
_text = st.one_of(
    st.sampled_from([b'""', b'"a\\u0000b"', b'"\\ud800"', b'"' + LATIN + b'"', b'"\xf0\x9f\x98\x80"', b'"]["']),
    st.builds(_json, st.text(max_size=12), st.sampled_from(["utf-8", "latin-1", "utf-16", "utf-32", "cp500"])),
    st.sampled_from([b'"' + b"x" * size + b'"' for size in (300, 1_100, 5_000)]),
)
_structure = st.one_of(
    st.sampled_from([b"null", b"true", b"[]", b"{}", b"[[]]", b'{"a":{}}', b"", b"nul", b"[,]", b'{"sha256":"x"}']),
    st.builds(
        _nested, st.sampled_from([50, 99, 100, 101, 200, 1_500]), st.sampled_from([b"[]", b"{}"]), closed=st.booleans()
    ),
)
_large = st.sampled_from([b'"' + b"x" * size + b'"' for size in (70_000, 300_000, 1_000_000)])
_value = st.one_of(_number, _text, _text, _structure)
_content = st.one_of(
    st.sampled_from([
        b"", b"-1", b"inf", b"nan", b"9" * 40, b"\0\0\0\1", b"\xff\xff\xff\xff", LATIN, b"a\0b", b"7", b"c" * 2_000,
    ]),
    st.binary(max_size=8),
)  # fmt: skip
_key = st.sampled_from([None, None, b"", b"k", LATIN, b"position", b'["d","m"]', b"n", b"x" * 200])
_headers = st.lists(st.tuples(st.sampled_from(_HEADERS), _content), max_size=2).map(tuple)
_damage = st.sampled_from([None] * 12 + ["cut", "flipped", "random", "empty"])


@st.composite
def _shape_of(draw: st.DrawFn, topic: str) -> Shape:
    fields = [*_FIELDS[_KINDS.get(topic, topic)], "extra"]
    bent = draw(st.lists(st.sampled_from(fields), max_size=3, unique=True))
    if _WAITS & set(bent):
        bent = [name for name in bent if name not in _LIMITS]
    bends = {name: draw(_value) for name in bent}
    if bent and draw(st.integers(0, 99)) == 0:
        bends[bent[0]] = draw(_large)
    left_out = draw(st.sampled_from([None, None, None, *bent])) if not _LIMITS & set(bent) else None
    damage = draw(_damage) if not _WAITS & set(bent) else None
    return Shape(topic, bends, left_out, damage, draw(_key), draw(_headers))


def shapes(*topics: str) -> st.SearchStrategy[Shape]:
    """Return the strategy that draws the shapes of records of these topics."""
    return st.sampled_from(topics or TOPICS).flatmap(_shape_of)


def chosen_seed(kept: int) -> int:
    """Return the seed of a run: that of the environment's `FUZZ_SEED`, or the one that is kept."""
    return int(os.environ.get("FUZZ_SEED") or kept)


def drawn(number: int, count: int) -> list[Shape]:
    """Return so many shapes, as many of each topic; the same ones for the same seed."""
    found: list[Shape] = []
    some = st.tuples(*(_shape_of(topic) for topic in TOPICS))

    @seed(number)
    @settings(
        max_examples=-(-count // len(TOPICS)),
        database=None,
        deadline=None,
        phases=[Phase.generate],
        suppress_health_check=[
            HealthCheck.data_too_large,
            HealthCheck.filter_too_much,
            HealthCheck.large_base_example,
            HealthCheck.too_slow,
        ],
    )
    @given(some)
    def draw(ones: tuple[Shape, ...]) -> None:
        found.extend(ones)

    draw()
    return found


def records(number: int, count: int, *, draw: int | None = None) -> Iterator[Hostile]:
    """Yield so many records of all topics in turn, by `draw` shapes; about one in ten is as it should be."""
    shapes_of: dict[str, list[Shape]] = {topic: [] for topic in TOPICS}
    for one in drawn(number, draw or max(len(TOPICS), count // _EACH)):
        shapes_of[one.topic].append(one)
    turns = {topic: _turns(ones) for topic, ones in shapes_of.items()}
    chance = random.Random(number)
    for place, topic in enumerate(islice(cycle(TOPICS), count)):
        yield told(next(turns[topic]), place, chance)


def _turns(ones: list[Shape]) -> Iterator[Shape]:
    small = [one for one in ones if not one.is_large]
    for _ in range(_TOLD_LARGE):
        yield from ones
    yield from cycle(small)


def told(shape: Shape, number: int, chance: random.Random) -> Hostile:
    """Return a record of a shape."""
    topic, kind = shape.topic, _KINDS.get(shape.topic, shape.topic)
    fields = {name: msgspec.json.encode(one) for name, one in _FIELDS[kind].items()}
    key = shape.key
    if kind == "call" and number % 8:  # the others have the id of their place, or of their correlation
        fields["id"] = b'"f%d"' % number if number % 5 else b'"again"'
    elif kind in {"readings", "orders"}:
        name, at = ("timestamp_ms", NOW_MS + number * 10) if kind == "readings" else ("at", NOW_MS + number * 10)
        fields[name] = b"%d" % at
    elif topic == "nodes":
        fields["node_id"], key = b'"n%d"' % (number % 50), b"n%d" % (number % 50) if key is None else key
    elif topic in COMPACTED:
        key = b"%d" % number if key != b"position" else key
    fields |= shape.bends
    fields.pop(shape.left_out or "", None)
    value = b"{" + b",".join(b'"' + name.encode() + b'":' + one for name, one in fields.items()) + b"}"
    headers = shape.headers
    if topic == "requests.retry.60s":
        headers = (*(one for one in headers if one[0] != "easyremote_deadline_ms"), *_RETRIED_AT_ONCE)
    return Hostile(topic, f"record {number}", _damaged(shape, value, chance), key, headers)


def _damaged(shape: Shape, value: bytes, chance: random.Random) -> bytes | None:
    place = chance.randrange(len(value))
    kinds: dict[str | None, Callable[[], bytes | None]] = {
        None: lambda: value,
        "cut": lambda: value[:place],
        "flipped": lambda: value[:place] + bytes([chance.randrange(256)]) + value[place + 1 :],
        "random": lambda: chance.randbytes(chance.randrange(60)),
        # On a compacted topic it would take another record out.
        "empty": lambda: b"" if shape.topic in COMPACTED else None,
    }
    return kinds[shape.damage]()
