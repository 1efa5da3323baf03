"""Produces what no producer of Python's makes, and asks afterwards whether everything still works."""

from __future__ import annotations

import ctypes
import json
import os
import subprocess
import threading
import time
import uuid
from collections import Counter
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import confluent_kafka
from confluent_kafka import KafkaError, Message, Producer
from easyremote import CallOptions, Client
from easyremote.cli import app
from easyremote.settings import Settings, load_settings
from easyremote.topics.letters import letter_of
from hostile import Hostile
from typer.testing import CliRunner
from workers import tail

PATIENCE_S = 60.0
BACKLOG_S = 100.0
"""A call waits behind all that was sent before it."""
Place = tuple[str, int, int]
_TOPIC, _VALUE, _FLAGS, _HEADER, _END, _COPY = 1, 4, 7, 9, 0, 2
"""Tags and a flag of librdkafka's `rd_kafka_producev`."""


def produce(settings: Settings, records: Iterable[Hostile], partition: int | None = None) -> dict[Place, Hostile]:
    """Send records; return where each of them stands. What a broker refuses is none."""
    producer = Producer(
        {
            "bootstrap.servers": settings.bootstrap_servers(),
            "message.max.bytes": 100_000_000,
            "compression.type": "zstd",
        }
        | {"queue.buffering.max.kbytes": 2_000_000, "linger.ms": 5}
    )
    found: dict[Place, Hostile] = {}
    lock = threading.Lock()
    refused: Counter[str] = Counter()

    def sent(one: Hostile, error: KafkaError | None, message: Message) -> None:
        with lock:
            if error is not None:
                refused[str(error)] += 1
            else:
                found[one.topic, message.partition() or 0, message.offset() or 0] = one

    for one in records:
        arguments: dict[str, Any] = {} if partition is None else {"partition": partition}
        while True:
            try:
                producer.produce(
                    settings.namespace + one.topic,
                    one.value,
                    key=one.key,
                    headers=list(one.headers),
                    on_delivery=lambda error, message, one=one: sent(one, error, message),  # type: ignore[misc]
                    **arguments,
                )
            except BufferError:
                producer.poll(0.05)
            else:
                break
        producer.poll(0)
    assert producer.flush(PATIENCE_S) == 0
    assert not refused, refused
    return found


def produce_nameless(settings: Settings, topic: str, value: bytes, times: int = 1) -> None:
    """Send records with a header whose name is no UTF-8, by the C library itself."""
    folder = Path(confluent_kafka.__file__).parent.parent / "confluent_kafka.libs"
    library = ctypes.CDLL(str(next(folder.glob("librdkafka*"))))
    library.rd_kafka_conf_new.restype = library.rd_kafka_new.restype = ctypes.c_void_p
    said = ctypes.create_string_buffer(512)
    config = ctypes.c_void_p(library.rd_kafka_conf_new())
    library.rd_kafka_conf_set(config, b"bootstrap.servers", settings.bootstrap_servers().encode(), said, 512)
    client = ctypes.c_void_p(library.rd_kafka_new(0, config, said, ctypes.c_size_t(512)))
    name = ctypes.c_char_p((settings.namespace + topic).encode())
    content = ctypes.c_char_p(value), ctypes.c_size_t(len(value))
    header = ctypes.c_char_p(b"\xff\xfe"), ctypes.c_char_p(b"1"), ctypes.c_ssize_t(1)
    for _ in range(times):
        sent = library.rd_kafka_producev(client, _TOPIC, name, _FLAGS, _COPY, _VALUE, *content, _HEADER, *header, _END)
        assert sent == 0
    assert library.rd_kafka_flush(client, 10_000) == 0
    library.rd_kafka_destroy(client)


def letters_of(settings: Settings, topic: str, enough: int, timeout_s: float = PATIENCE_S) -> Counter[Place]:
    """Return how many letters each place has, once there are so many; their topics are without the namespace."""
    with tail(settings, topic) as dead:
        messages = dead.wait_for(lambda came: len(came) >= enough, timeout_s)
    return places_of(settings, messages)


def places_of(settings: Settings, messages: Sequence[Message]) -> Counter[Place]:
    """Return how many of these letters each place has."""
    found: Counter[Place] = Counter()
    for message in messages:
        letter = letter_of(message)
        assert letter.source is not None, letter
        assert letter.reason, letter
        name, partition, offset = letter.source.rsplit("/", 2)
        found[name.removeprefix(settings.namespace), int(partition), int(offset)] += 1
    return found


def require_all_works(settings: Settings, workers: Sequence[subprocess.Popen[bytes]], folder: Path) -> None:
    """Make a call, a direct one, a cancellation, a reading, an order for a model, and look at the status."""
    tag = uuid.uuid4().hex[:6]
    with Client(settings) as client, Client(settings, direct=True) as direct:
        assert client.call("echo", tag, options=CallOptions(timeout_s=BACKLOG_S)) == tag
        assert direct.call("echo", tag, options=CallOptions(timeout_s=BACKLOG_S)) == tag
        _require_cancelled(client, folder, tag)
        _require_aggregate(settings, tag)
        _require_order(settings, client, tag)
    status = CliRunner(env=_environment(settings)).invoke(app, ["status", "--json"])
    assert status.exit_code == 0, status.output
    assert [worker.poll() for worker in workers] == [None] * len(workers)


def _environment(settings: Settings) -> dict[str, str]:
    return {
        "EASYREMOTE_KAFKA": settings.bootstrap_servers(),
        "EASYREMOTE_NAMESPACE": settings.namespace,
        "EASYREMOTE_DATA_DIR": str(settings.data_dir),
    }


def _require_cancelled(client: Client, folder: Path, tag: str) -> None:
    started, stopped = folder / f"started-{tag}", folder / f"stopped-{tag}"
    os.mkfifo(started)
    os.mkfifo(stopped)
    call = client.submit("linger", str(started), str(stopped), options=CallOptions(timeout_s=60, id=f"long-{tag}"))
    assert started.read_text() == "running"  # blocks until it runs
    client.cancel(f"long-{tag}")
    assert stopped.read_text() == "stopped"  # blocks until it ends
    assert call.cancelled() or call.exception(PATIENCE_S) is not None or call.done()


def _require_aggregate(settings: Settings, tag: str) -> None:
    at_ms = time.time_ns() // 1_000_000 - 60_000
    rows = [{"device_id": tag, "metric": "m", "value": 1, "timestamp_ms": at} for at in (at_ms, at_ms + 30_000)]
    values = [json.dumps(row).encode() for row in rows]
    produce(settings, [Hostile("readings", "fine", value, tag.encode()) for value in values])
    with tail(settings, "aggregates") as told:
        told.wait_for(lambda came: any(one.key() == tag.encode() for one in came), PATIENCE_S)


def _require_order(settings: Settings, client: Client, tag: str) -> None:
    load_settings.cache_clear()
    runner = CliRunner(env=_environment(settings))
    ordered = runner.invoke(app, ["models", "load", "another", tag, "--class", "versioned:Another"])
    assert ordered.exit_code == 0, ordered.output
    answer = client.call("which_other", 1, options=CallOptions(timeout_s=30))
    assert answer["result"] == tag, answer
