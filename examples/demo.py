"""What `make demo` runs: the main job on real input, on a Kafka and a worker that it starts and stops itself.

Everything goes through the topics with a plain Kafka producer and consumer, as from any other language.
"""

from __future__ import annotations

import base64
import io
import json
import signal
import sys
import time
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from typing import Any

from confluent_kafka import Consumer, Producer, TopicPartition
from easyremote.deploy.jars import KAFKA_VERSION
from easyremote.deploy.supervisor import Supervisor
from easyremote.errors import EasyRemoteError
from easyremote.logs import configure_logging
from easyremote.settings import Settings, user_data_dir
from rich.console import Console
from rich.progress import Progress, SpinnerColumn, TextColumn, TimeElapsedColumn
from rich.table import Table

console = Console(width=110)
SENTENCES = {
    "I love it, the new release is wonderful": "positive",
    "This is terrible, I hate waiting so long": "negative",
    "The meeting is on Tuesday at ten": "neutral",
}
FAULTS = ["2022-03-24 07:00", "2022-03-29 07:00", "2022-04-03 04:00", "2022-04-27 13:00"]
"""UTC hours at which the four faults of the water pipe begin."""
DAY_S = 86_400
WAIT_S = 60.0


class Missing(Exception):
    """Something that should have happened did not."""


class Topic:
    """Reads one topic from where it ends now, without a group."""

    def __init__(self, kafka: str, name: str) -> None:
        self._consumer = Consumer({"bootstrap.servers": kafka, "group.id": "demo", "enable.auto.commit": False})
        partitions = self._consumer.list_topics(name, timeout=10).topics[name].partitions
        self._consumer.assign(
            [
                TopicPartition(name, number, self._consumer.get_watermark_offsets(TopicPartition(name, number))[1])
                for number in partitions
            ]
        )

    def values(self) -> Iterator[dict[str, Any] | None]:
        """Yield each value as it comes, and None where nothing came for a while; end after `WAIT_S`."""
        deadline = time.monotonic() + WAIT_S
        while time.monotonic() < deadline:
            message = self._consumer.poll(0.2)
            yield None if message is None or message.error() else json.loads(message.value())

    def close(self) -> None:
        self._consumer.close()


@contextmanager
def reading(kafka: str, name: str) -> Iterator[Topic]:
    topic = Topic(kafka, name)
    try:
        yield topic
    finally:
        topic.close()


@contextmanager
def waiting(what: str) -> Iterator[Progress]:
    columns = (SpinnerColumn(), TextColumn("{task.description}"), TimeElapsedColumn())
    with Progress(*columns, console=console, transient=True) as progress:
        progress.add_task(what, total=None)
        yield progress


def call(producer: Producer, replies: Topic, requests: list[dict[str, Any]], what: str) -> list[dict[str, Any]]:
    """Produce requests as plain JSON, and return their replies in the same order."""
    ids = [str(uuid.uuid4()) for _ in requests]
    for call_id, request in zip(ids, requests, strict=True):
        producer.produce("requests", json.dumps({**request, "id": call_id, "timeout_s": WAIT_S}).encode())
    producer.flush(10)
    found: dict[str, dict[str, Any]] = {}
    with waiting(what):
        for reply in replies.values():
            if reply is not None and reply["id"] in ids:
                found[reply["id"]] = reply
            if len(found) == len(ids):
                break
    missing = len(ids) - len(found)
    if missing:
        raise Missing(f"{missing} of {len(ids)} calls were not answered within {WAIT_S:g} s")
    for reply in found.values():
        if reply["status"] != "ok":
            raise Missing(f"a call failed: {reply['error']}")
    return [found[call_id] for call_id in ids]


def sentences(kafka: str, producer: Producer) -> None:
    console.rule("1. Sentences: plain JSON to 'requests', answered on 'replies'")
    requests = [{"function": "text_sentiment_analysis", "args": [text]} for text in SENTENCES]
    with reading(kafka, "replies") as replies:
        answers = call(producer, replies, requests, "waiting for the sentiment model")
    table = Table("sentence", "label", "confidence", "model", "ms")
    for text, answer in zip(SENTENCES, answers, strict=True):
        result = answer["result"]["result"]
        took = f"{answer['timings_ms']['total']:.0f}"
        table.add_row(text, result["label"], f"{result['confidence']:.2f}", answer["model"], took)
        if result["label"] != SENTENCES[text]:
            raise Missing(f"{text!r} was called {result['label']}, not {SENTENCES[text]}")
    console.print(table)


def photograph(kafka: str, producer: Producer) -> None:
    console.rule("2. A photograph, classified by an ImageNet model")
    from PIL import Image
    from skimage import data

    picture = io.BytesIO()
    Image.fromarray(data.coffee()).save(picture, "JPEG", quality=90)
    encoded = base64.b64encode(picture.getvalue()).decode()
    console.print(f"scikit-image's 'coffee', a JPEG of {len(picture.getvalue()):,} bytes")
    with reading(kafka, "replies") as replies:
        request = {"function": "image_classification", "args": [encoded]}
        (answer,) = call(producer, replies, [request], "waiting for the image model")
    table = Table("rank", "class", "probability")
    for one in answer["result"]["result"]:
        table.add_row(str(one["rank"]), one["class_name"], f"{one['probability']:.3f}")
    console.print(table)
    if answer["result"]["result"][0]["class_name"] != "espresso":
        raise Missing("the coffee was not recognised")


def water_pipe(kafka: str, producer: Producer) -> None:
    console.rule("3. Two months of a water pipe to 'readings': daily aggregates, and its faults on 'alerts'")
    from river.datasets import WaterFlow

    device = f"pipe-{uuid.uuid4().hex[:6]}"
    with reading(kafka, "aggregates") as aggregates, reading(kafka, "alerts") as alerts:
        sent = 0
        for point, value in WaterFlow():
            event_ms = int(point["Time"].timestamp() * 1000)
            record = {"device_id": device, "metric": "flow_l_per_s", "value": value, "timestamp_ms": event_ms}
            producer.produce("readings", json.dumps(record).encode(), key=device)
            sent += 1
        last_day = event_ms // (1000 * DAY_S)
        producer.flush(10)
        console.print(f"{sent:,} hourly readings of {device} produced")
        days = collect(aggregates, device, lambda found: found[-1]["window_end"] // (1000 * DAY_S) >= last_day)
        found = collect(alerts, device, lambda found: len(found) >= len(FAULTS))
    table = Table("day", "readings", "average", "min", "max", "variance", title=f"{len(days)} days; the first three")
    for one in days[:3]:
        numbers = (one[name] for name in ("average", "min", "max", "variance"))
        table.add_row(at(one["window_start"])[:10], str(one["count"]), *(f"{number:.2f}" for number in numbers))
    console.print(table)
    table = Table("alert at (UTC)", "what")
    for one in found:
        table.add_row(at(one["timestamp_ms"]), one["message"])
    console.print(table)
    times = [at(one["timestamp_ms"]) for one in found]
    if times != FAULTS:
        raise Missing(f"the faults are at {FAULTS}, the alerts at {times}")


def collect(topic: Topic, device: str, enough: Any) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = []
    with waiting("waiting for the streams"):
        for value in topic.values():
            if value is not None and value["device_id"] == device:
                found.append(value)
            if found and enough(found):
                return found
    raise Missing(f"only {len(found)} records came back within {WAIT_S:g} s")


def at(time_ms: int) -> str:
    return datetime.fromtimestamp(time_ms / 1000, UTC).strftime("%Y-%m-%d %H:%M")


def main_job(kafka: str, began: float) -> None:
    # Its producer is gone before Kafka is, so that it does not complain of a broker that stops.
    producer = Producer({"bootstrap.servers": kafka, "enable.idempotence": True, "log_level": 3})
    sentences(kafka, producer)
    console.print(f"first replies {time.monotonic() - began:.1f} s after the start")
    photograph(kafka, producer)
    water_pipe(kafka, producer)


def run() -> None:
    began = time.monotonic()
    configure_logging("WARNING")
    settings = Settings(data_dir=user_data_dir() / "demo", kafka=None, node_id="demo")
    environment = {"EASYREMOTE_WINDOW_S": str(DAY_S), "EASYREMOTE_LATENESS_S": "0"}
    jars = user_data_dir() / "kafka" / KAFKA_VERSION
    with waiting("starting") as progress:
        supervisor = Supervisor(settings, environment, jars_dir=jars)

        def show() -> None:
            line = ", ".join(f"{part.name} {part.state} {part.detail}".strip() for part in supervisor.parts)
            progress.update(progress.task_ids[0], description=line)

        supervisor.when_changed(show)
        try:
            supervisor.start()
        except BaseException:
            supervisor.close()
            raise
    with supervisor:
        kafka = supervisor.settings.bootstrap_servers()
        console.print(f"Apache Kafka {KAFKA_VERSION} on {kafka} and 'faust -A easyremote worker' are up")
        main_job(kafka, began)
    console.print(f"all of it happened, in {time.monotonic() - began:.1f} s; nothing is left running")


def main() -> int:
    def ended(_number: int, _frame: object) -> None:
        raise KeyboardInterrupt

    signal.signal(signal.SIGTERM, ended)
    try:
        run()
    except KeyboardInterrupt:
        console.print("stopped before the end")
        return 130
    except (Missing, EasyRemoteError) as error:
        console.print(f"FAILED: {error}")
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
