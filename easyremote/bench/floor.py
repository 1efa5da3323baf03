"""The floor of a call: a bare confluent-kafka client and server, one process each, acks=all, linger 0."""

from __future__ import annotations

import statistics
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager

from confluent_kafka import Consumer, Message, Producer, TopicPartition

__all__ = ["FloorClient", "p50", "serve"]

REQUESTS = "floor-requests"
REPLIES = "floor-replies"
_SECOND = 1.0


def p50(seconds: list[float]) -> float:
    """Return the median of times, given in s, in ms."""
    return statistics.median(seconds) * 1000


def _producer(kafka: str) -> Producer:
    return Producer({"bootstrap.servers": kafka, "acks": "all", "linger.ms": 0})


def _reader(kafka: str, topic: str) -> Consumer:
    consumer = Consumer(
        {
            "bootstrap.servers": kafka,
            "group.id": "floor",
            "enable.auto.commit": False,
            "fetch.queue.backoff.ms": 2,
        }
    )
    _, end = consumer.get_watermark_offsets(TopicPartition(topic, 0), timeout=10)
    consumer.assign([TopicPartition(topic, 0, end)])
    return consumer


def serve(kafka: str) -> None:
    """Answer every request with itself, until the process is ended."""
    consumer, producer = _reader(kafka, REQUESTS), _producer(kafka)
    print("serving", flush=True)  # the parent waits for it
    while True:
        for message in _messages(consumer):
            producer.produce(REPLIES, message.value(), key=message.key(), partition=0)
        producer.poll(0)


def _messages(consumer: Consumer) -> Iterator[Message]:
    first = consumer.poll(_SECOND)
    if first is not None:
        yield first
        yield from consumer.consume(500, 0)


class FloorClient:
    """Calls the floor's server."""

    def __init__(self, kafka: str) -> None:
        self._consumer, self._producer = _reader(kafka, REPLIES), _producer(kafka)

    def one_at_a_time(self, payload: bytes, calls: int) -> list[float]:
        """Return the time of each call, s."""
        times = []
        for number in range(calls):
            started = time.perf_counter()
            self._send(number, payload)
            while not any(message.key() == b"%d" % number for message in _messages(self._consumer)):
                pass
            times.append(time.perf_counter() - started)
        return times

    def many(self, payload: bytes, calls: int, outstanding: int) -> float:
        """Return calls per second with so many outstanding."""
        started = time.perf_counter()
        sent = answered = 0
        while answered < calls:
            while sent < calls and sent - answered < outstanding:
                self._send(sent, payload)
                sent += 1
            answered += sum(1 for _ in _messages(self._consumer))
        return calls / (time.perf_counter() - started)

    def close(self) -> None:
        """Leave."""
        self._producer.flush(5)
        self._consumer.close()

    def _send(self, number: int, payload: bytes) -> None:
        self._producer.produce(REQUESTS, payload, key=b"%d" % number, partition=0)
        self._producer.poll(0)


@contextmanager
def closing(client: FloorClient) -> Iterator[FloorClient]:
    """Close the client at the end of the block."""
    try:
        yield client
    finally:
        client.close()


if __name__ == "__main__":
    serve(sys.argv[1])
