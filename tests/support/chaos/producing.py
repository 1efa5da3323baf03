"""A plain producer for the load: what it sends is in the log once, and in the order of sending."""

from __future__ import annotations

from confluent_kafka import Producer

FLUSH_S = 120.0


def producer(servers: str) -> Producer:
    """Return one that waits through any outage of a run, and writes nothing twice."""
    return Producer(
        {
            "bootstrap.servers": servers,
            "enable.idempotence": True,
            "acks": "all",
            "linger.ms": 5,
            # Of the longest outage.
            "queue.buffering.max.messages": 1_000_000,
            "delivery.timeout.ms": 600_000,
            "reconnect.backoff.max.ms": 500,
            "retry.backoff.max.ms": 500,
            "log_level": 0,
        }
    )


def flush(one: Producer) -> None:
    """Wait until all is in the log."""
    left = one.flush(FLUSH_S)
    assert left == 0, f"{left} records of the load were not taken within {FLUSH_S:g} s: this run says nothing"
