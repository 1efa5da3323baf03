"""The work of a pipeline on one partition, without a broker."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any, cast

import pytest
from confluent_kafka import Message
from easyremote.pipelines import Pipeline, stream
from easyremote.pipelines.decoding import Decoder
from easyremote.pipelines.task import PipelineTask
from easyremote.topics.deliveries import Output
from easyremote.topics.events import Batch
from easyremote.windows import Count, Mean, Min, Session, Sum, Tumbling

NOW = 1_700_000_000_000


class _Fed:
    def __init__(self, value: bytes, offset: int) -> None:
        self._value, self._offset = value, offset

    def value(self) -> bytes:
        return self._value

    def offset(self) -> int:
        return self._offset

    def key(self) -> bytes:
        return b"a"

    def headers(self) -> list[tuple[str, bytes]]:
        return []


def _step(pipeline: Pipeline, rows: Sequence[object], task: PipelineTask | None = None) -> list[Output]:
    values = [row if isinstance(row, bytes) else json.dumps(row).encode() for row in rows]
    messages = cast("list[Message]", [_Fed(value, offset) for offset, value in enumerate(values)])
    content = Decoder(pipeline).decode(0, messages)
    return (task or PipelineTask(pipeline, "ns-", "node", 0)).step(
        Batch(f"ns-{pipeline.sources[0].topic}", 0, 0, len(rows), content), NOW
    )


def _records(outputs: Sequence[Output], topic: str) -> list[dict[str, Any]]:
    return [json.loads(one.value or b"") for one in outputs if one.topic == f"ns-{topic}"]


def _row(amount: object, at: object, shop: object = "a") -> dict[str, object]:
    return {"shop": shop, "amount": amount, "at": at}


ORDERS = stream("orders", timestamp="at", types={"amount": float}, partitioned_by=("shop",))


def test_a_rows_offset_is_that_of_its_message_also_where_the_log_has_holes() -> None:
    pipeline = ORDERS.key_by("shop").window(Tumbling("1s")).aggregate(count=Count()).to("sums", register=False)
    decode = Decoder(pipeline).decode
    good, bad = json.dumps(_row(1, NOW)).encode(), b"{"

    def offsets(*fed: tuple[bytes, int]) -> list[int]:
        rows = decode(0, cast("list[Message]", [_Fed(value, offset) for value, offset in fed])).rows
        assert rows is not None
        found: list[int] = rows.offsets.tolist()
        return found

    assert offsets((good, 3), (good, 4), (good, 5)) == [3, 4, 5]
    assert offsets((good, 3), (good, 5), (good, 9)) == [3, 5, 9]  # a transaction's marker takes one
    assert offsets((good, 3), (bad, 4), (good, 5)) == [3, 5]
    assert offsets((bad, 3), (good, 4), (good, 5)) == [4, 5]


def test_functions_change_and_drop_records_and_what_one_raises_is_a_dead_letter() -> None:
    pipeline = (
        ORDERS.filter(lambda record: record["amount"] > 0)
        .map(lambda record: {**record, "amount": 100 / (record["amount"] - 1)})
        .key_by("shop")
        .window(Tumbling("1s"))
        .aggregate(total=Sum("amount"), count=Count())
        .to("sums", register=False)
    )
    rows = [_row(-5, NOW - 9_000), _row(1, NOW - 9_000), _row(5, NOW - 9_000), _row(3, NOW)]
    outputs = _step(pipeline, rows)
    (closed,) = _records(outputs, "sums")
    assert (closed["total"], closed["count"]) == (25.0, 1)
    assert _records(outputs, "orders.dlq") == [rows[1]]


@pytest.mark.parametrize(
    "row",
    [b"", b"{", b"[1]", b"\xff", _row("1", NOW), _row(1, -1), _row(1, 2**48), _row(1, 1.5), _row(1, NOW, ["a"])],
)
def test_what_cannot_be_read_is_a_dead_letter_byte_for_byte_and_stops_nothing(row: object) -> None:
    pipeline = ORDERS.key_by("shop").window(Tumbling("1s")).aggregate(least=Min("amount")).to("x", register=False)
    raw = row if isinstance(row, bytes) else json.dumps(row).encode()
    outputs = _step(pipeline, [_row(1.0, NOW - 5_000), raw, _row(2.0, NOW)])
    assert [one.value for one in outputs if one.topic == "ns-orders.dlq"] == [raw]
    assert [one["least"] for one in _records(outputs, "x")] == [1.0]


def test_silence_closes_what_is_open_and_a_restored_task_goes_on() -> None:
    pipeline = (
        ORDERS.key_by("shop", "kind")
        .window(Session("2s"), lateness="1s")
        .aggregate(mean=Mean("amount"))
        .to("visits", register=False)
    )
    first, second = (PipelineTask(pipeline, "ns-", "node", 0) for _ in range(2))
    _step(pipeline, [{**_row(1.0, NOW - 5_000), "kind": 7}], first)
    for key, content in first.changes():
        assert content is not None
        second.restore(key, content)
    _step(pipeline, [{**_row(3.0, NOW - 4_000), "kind": 7}], second)
    (told,) = _records(second.tick(NOW + 30_000), "visits")
    assert told == {
        "shop": "a",
        "kind": 7,
        "window_start": NOW - 5_000,
        "window_end": NOW - 2_000,
        "mean": 2.0,
        "revision": 0,
        "final": True,
    }


def test_a_field_may_have_any_name() -> None:
    pipeline = (
        stream("t", timestamp="the time", types={"class": float}, partitioned_by=("a b",))
        .key_by("a b")
        .window(Tumbling("1s"))
        .aggregate(total=Sum("class"))
        .to("u", register=False)
    )
    rows = [{"a b": "x", "class": 2, "the time": at} for at in (NOW - 5_000, NOW)]
    (closed,) = _records(_step(pipeline, rows), "u")
    assert (closed["a b"], closed["total"]) == ("x", 2.0)


def test_late_records_and_dead_letters_name_their_pipeline() -> None:
    windows = ORDERS.key_by("shop").window(Tumbling("1s"), lateness=0).aggregate(count=Count())
    pipeline = windows.to("sums", name="mine", register=False)
    outputs = _step(pipeline, [_row(1, NOW - 5_000), _row(1, NOW), _row(1, NOW - 5_000), b"{"])
    odd = {one.topic: dict(one.headers or []) for one in outputs if one.topic != "ns-sums"}
    assert {topic: headers["easyremote_pipeline"] for topic, headers in odd.items()} == {
        "ns-orders.late": b"mine",
        "ns-orders.dlq": b"mine",
    }
