"""Generators on real workers: their items come as they are made, each once, whatever dies."""

from __future__ import annotations

import asyncio
import json
import os
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from confluent_kafka import Message
from easyremote import AsyncClient, CallOptions, Client
from easyremote.errors import CallError, RemoteError
from easyremote.settings import Settings
from easyremote.topics.admin import TopicAdmin
from easyremote.topics.catalog import declarations
from easyremote.topics.records import decode_reply
from system import system
from workers import producer_to, running, tail

pytestmark = pytest.mark.broker
SOON = CallOptions(timeout_s=30)
EASYREMOTE = Path(sys.executable).with_name("easyremote")


@pytest.fixture
def worker(settings: Settings) -> Iterator[Settings]:
    TopicAdmin(settings).ensure(declarations())
    with running(settings, "router", "inference", EASYREMOTE_FUNCTIONS="streamed,served"):
        yield settings


@pytest.fixture
def fifo(tmp_path: Path) -> Path:
    path = tmp_path / "fifo"
    os.mkfifo(path)
    return path


@pytest.mark.parametrize("function", ["gated", "gated_later"])
def test_an_item_is_with_the_caller_before_the_generator_makes_the_next(
    worker: Settings, fifo: Path, function: str
) -> None:
    with Client(worker) as client, client.stream(function, str(fifo), ["a", "b", "c"], options=SOON) as items:
        assert next(items) == "a"
        fifo.write_text("go on")  # blocks until the generator waits for it
        assert list(items) == ["b", "c"]
        assert items.next_seq == 3

    async def read() -> list[str]:
        async with AsyncClient(worker, direct=True) as client:
            got: list[str] = []
            async with client.stream(function, str(fifo), ["a", "b", "c"], options=SOON) as items:
                async for item in items:
                    if not got:
                        await asyncio.to_thread(fifo.write_text, "go on")
                    got.append(item)
            return got

    assert asyncio.run(read()) == ["a", "b", "c"]


def test_an_error_comes_after_the_items_and_a_plain_function_has_one(worker: Settings) -> None:
    with Client(worker) as client:
        items = client.stream("breaks", 2, options=SOON)
        assert [next(items), next(items)] == [0, 1]
        with pytest.raises(RemoteError, match="no more"):
            next(items)
        assert list(client.stream("echo", "hello", options=SOON)) == ["hello"]
        with pytest.raises(RemoteError, match="no more"):
            client.call("breaks", 2, options=SOON)


@pytest.mark.parametrize("function", ["endless", "endless_later"])
def test_leaving_a_stream_stops_its_generator_on_the_node(worker: Settings, fifo: Path, function: str) -> None:
    with Client(worker) as client:
        with client.stream(function, str(fifo), options=SOON) as items:
            assert [next(items) for _ in range(200)] == list(range(200))
        assert fifo.read_text() == "stopped"  # blocks until it ends
        final = _final(worker, items.id)
    assert (final["error"]["type"], final["final"]) == ("CallCancelled", True)


@pytest.mark.faults
@pytest.mark.timeout(200)
def test_a_node_killed_in_the_middle_costs_the_caller_no_item_and_doubles_none(
    settings: Settings, tmp_path: Path
) -> None:
    diary, gate, count = tmp_path / "diary", tmp_path / "gate", 40
    with system(settings, "streamed") as workers:
        workers.launch("router", "router")
        workers.launch("one", "inference")
        workers.launch("two", "inference")
        workers.await_up("router", "one", "two")
        options = CallOptions(timeout_s=60)
        with Client(settings) as client, client.stream("halting", str(diary), str(gate), count, options=options) as got:
            items = [next(got) for _ in range(count // 2)]
            gate.touch()
            (first,) = diary.read_text().split()
            came_ms = time.time() * 1000
            # Until it has committed several times: an offset that items alone let go would be among them.
            workers.await_view(lambda view: first in view and view[first].sent_ms > came_ms + 500)
            workers.kill(first)
            items += got
        assert items == list(range(count))
        assert set(diary.read_text().split()) == {"one", "two"}
    with tail(settings, "replies") as replies:
        told = replies.wait_for(lambda all_: len(all_) >= count + count // 2 + 1)
    numbers = [decode_reply(message.value() or b"").seq for message in told]
    assert numbers == [*range(count // 2), *range(count), count]  # the second node made them all again


def test_a_later_client_takes_a_stream_up_where_an_earlier_one_was_left(
    worker: Settings, fifo: Path, tmp_path: Path
) -> None:
    own = tmp_path / "own"  # of the later call: two readers of one FIFO would take each other's word
    os.mkfifo(own)
    texts = [f"item {number}" for number in range(6)]
    with Client(worker) as client:
        first = client.stream("gated", str(fifo), texts, options=CallOptions(timeout_s=30, id="first"))
        assert next(first) == texts[0]
    with Client(worker) as client:  # the first was closed, as if it had died: nobody withdrew the call
        fifo.write_text("go on")
        later = client.stream(
            "gated", str(own), texts, options=CallOptions(timeout_s=30, from_seq=first.next_seq, id="later")
        )
        own.write_text("go on")
        assert list(later) == texts[1:]
        again = client.stream("gated", str(own), texts, options=CallOptions(timeout_s=30, id="later"))
        with pytest.raises(CallError, match="items 0 to 5 of gated were sent to an earlier call of id later"):
            next(again)


@pytest.mark.parametrize("function", ["pages", "pages_later"])
def test_items_of_megabytes_go_by_the_blob_store_in_their_places(worker: Settings, function: str) -> None:
    sizes = [10, 3_000_000, 20, 2_000_000, 30]
    with Client(worker) as client:
        assert [len(item) for item in client.stream(function, sizes, options=SOON)] == sizes

    async def read() -> list[int]:
        async with AsyncClient(worker, direct=True) as client:
            return [len(item) async for item in client.stream(function, sizes, options=SOON)]

    assert asyncio.run(read()) == sizes
    with tail(worker, "replies") as replies:
        told = replies.wait_for(lambda all_: len(all_) == 2 * (len(sizes) + 1))
    assert max(len(one.value() or b"") for one in told) < 2_000


def test_a_plain_consumer_reads_the_records_as_the_protocol_says(worker: Settings) -> None:
    producer = producer_to(worker.bootstrap_servers())
    for call_id, fields in (("s-1", {"stream": True}), ("s-2", {}), ("s-3", {"stream": True, "from_seq": 2})):
        value = {"function": "breaks" if call_id == "s-1" else "count_up", "args": [3], "id": call_id} | fields
        producer.produce(worker.namespace + "requests", json.dumps(value))
    producer.flush(10)

    def finals(messages: list[Message]) -> list[object]:
        return [one for one in map(_value, messages) if one.get("final", True)]

    with tail(worker, "replies") as replies:
        told = [_value(message) for message in replies.wait_for(lambda all_: len(finals(all_)) == 3)]
    by_id = {call_id: [one for one in told if one["id"] == call_id] for call_id in ("s-1", "s-2", "s-3")}
    assert [(one["seq"], one["final"], one.get("result")) for one in by_id["s-1"]] == [
        (0, False, 0),
        (1, False, 1),
        (2, False, 2),
        (3, True, None),
    ]
    assert by_id["s-1"][-1]["error"]["type"] == "LookupError"
    assert [one["result"] for one in by_id["s-2"]] == [[0, 1, 2]]
    assert [(one["seq"], one["final"], one.get("result", "none")) for one in by_id["s-3"]] == [
        (2, False, 2),
        (3, True, "none"),
    ]


def test_the_command_line_prints_each_item_on_a_line(worker: Settings) -> None:
    environment = os.environ | {
        "EASYREMOTE_KAFKA": worker.bootstrap_servers(),
        "EASYREMOTE_NAMESPACE": worker.namespace,
    }
    said = subprocess.run(
        [EASYREMOTE, "call", "--stream", "count_up", "3"],
        env=environment,
        capture_output=True,
        text=True,
        timeout=60,
        check=True,
    )
    assert said.stdout == "0\n1\n2\n"


def _value(message: Message) -> dict[str, Any]:
    value: dict[str, Any] = json.loads(message.value() or b"")
    return value


def _final(settings: Settings, call_id: str) -> dict[str, Any]:
    def final(messages: list[Message]) -> list[dict[str, Any]]:
        return [one for one in map(_value, messages) if one["id"] == call_id and one["final"]]

    with tail(settings, "replies") as replies:
        (found,) = final(replies.wait_for(lambda all_: bool(final(all_))))
    return found
