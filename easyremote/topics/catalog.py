"""Every topic, declared once: who writes it, who reads it, and how the broker keeps it."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Literal

__all__ = [
    "AGGREGATES",
    "ALERTS",
    "CANCELLATIONS",
    "CANCELLATIONS_KEPT_MS",
    "DEAD_LETTERS",
    "DEAD_LETTERS_KEPT_MS",
    "DEAD_LETTERS_OF",
    "FUNCTIONS",
    "FUNCTIONS_KEPT_MS",
    "LARGEST_RECORD_BYTES",
    "LATE",
    "LATE_OF",
    "MALFORMED_READINGS",
    "MODELS",
    "NODES",
    "POOLS",
    "READINGS",
    "REPLIES",
    "REQUESTS",
    "RESULTS",
    "RETRIES",
    "STREAMS_CHANGELOG",
    "SUSPECTS",
    "TopicDeclaration",
    "dead_letters_known",
    "declarations",
    "handled",
    "handled_topic",
    "inference_group",
    "inference_topic",
    "is_of_the_system",
    "record_topic_of",
]

DEAD_LETTERS_OF = ".dlq"
"""Behind a topic's name: what could not be read of it."""
LATE_OF = ".late"
"""Behind a topic's name: what came too late of it."""
REQUESTS = "requests"
REPLIES = "replies"
RESULTS = "results"
SUSPECTS = "suspects"
CANCELLATIONS = "cancellations"
DEAD_LETTERS = "requests.dlq"
RETRIES = {1_000: "requests.retry.1s", 10_000: "requests.retry.10s", 60_000: "requests.retry.60s"}
"""The delay topics by their delay, ms."""
NODES = "nodes"
MODELS = "models"
FUNCTIONS = "functions"
READINGS = "readings"
LATE = "readings.late"
MALFORMED_READINGS = "readings.dlq"
AGGREGATES = "aggregates"
ALERTS = "alerts"
STREAMS_CHANGELOG = "streams.changelog"
POOLS = ("nlp", "vision", "general")
"""The pools that always exist; a node of another pool declares its own."""

LARGEST_RECORD_BYTES = 4 * 1024 * 1024
"""Of the dead letters; other topics take half, so that whatever came in has room there with its reason."""

_HOUR_MS = 3_600_000
CANCELLATIONS_KEPT_MS = _HOUR_MS
_DAY_MS = 24 * _HOUR_MS
DEAD_LETTERS_KEPT_MS = 30 * _DAY_MS
FUNCTIONS_KEPT_MS = _DAY_MS
"""A node tells its functions again well before, so that only those of nodes long gone are dropped."""


@dataclass(frozen=True, kw_only=True)
class TopicDeclaration:
    """How one topic must be.

    Parameters
    ----------
    partitions : int
        Number of partitions, fixed for the topic's life: keys must not move.
    cleanup : {"delete", "compact", "compact,delete"}
        Whether old records go by age, or all but the last of a key, or both.
    retention_ms : int
        Age at which records go, ms; -1 keeps them.
    timestamp_type : {"CreateTime", "LogAppendTime"}
        `LogAppendTime` where records carry an event time in their value: with the other one the broker's
        retention would delete replayed history as it arrives.
    key, value : str
        What the key and the value hold.
    written_by, read_by : str
        Who produces to it and who consumes it.
    max_message_bytes : int
        Largest batch of records that the broker takes, bytes.
    """

    name: str
    partitions: int
    cleanup: Literal["delete", "compact", "compact,delete"] = "delete"
    retention_ms: int = 7 * _DAY_MS
    timestamp_type: Literal["CreateTime", "LogAppendTime"] = "CreateTime"
    key: str
    value: str
    written_by: str
    read_by: str
    max_message_bytes: int = LARGEST_RECORD_BYTES // 2

    def config(self) -> dict[str, str]:
        """Return the topic's settings as the broker names them."""
        config = {
            "cleanup.policy": self.cleanup,
            "retention.ms": str(self.retention_ms),
            "message.timestamp.type": self.timestamp_type,
            "max.message.bytes": str(self.max_message_bytes),
        }
        if self.cleanup != "delete":
            config["min.cleanable.dirty.ratio"] = "0.1"
            config["segment.ms"] = str(_HOUR_MS)
        return config


def inference_topic(pool: str) -> str:
    """Return the topic of a pool's work.

    Examples
    --------
    >>> inference_topic("vision")
    'inference.vision'
    """
    return f"inference.{pool}"


def inference_group(namespace: str, pool: str) -> str:
    """Return the full name of the consumer group of a pool's nodes.

    Examples
    --------
    >>> inference_group("", "vision")
    'easyremote.inference.vision'
    """
    return f"{namespace}easyremote.{inference_topic(pool)}"


def _pool(name: str) -> TopicDeclaration:
    return TopicDeclaration(
        name=inference_topic(name),
        partitions=8,
        retention_ms=_DAY_MS,
        key="none: the partition is the choice of a node",
        value="Request",
        written_by="router, direct clients",
        read_by=f"nodes of pool {name}",
    )


def handled_topic(dead_letters: str) -> str:
    """Return the topic that says which letters of a topic of dead letters are dealt with."""
    return f"{dead_letters}.handled"


def handled(dead_letters: str) -> TopicDeclaration:
    """Return the declaration of that topic."""
    return TopicDeclaration(
        name=handled_topic(dead_letters),
        partitions=1,
        cleanup="compact,delete",
        # Longer than the letters are kept, which is up to a segment's week more than their retention.
        retention_ms=45 * _DAY_MS,
        key="partition/offset of the dead letter",
        value="Handled: redriven or dropped, when, by whom",
        written_by="easyremote dlq",
        read_by="easyremote dlq",
    )


_SHARED = frozenset({READINGS, AGGREGATES, ALERTS})
"""Topics of the catalog that a user's records may be in."""
_BESIDE = (LATE_OF, DEAD_LETTERS_OF)
_OWN_PREFIXES = ("__", "inference.", f"{REQUESTS}.", f"{REPLIES}.")
_OWN_SUFFIXES = (".handled", ".changelog")


def is_of_the_system(topic: str) -> bool:
    """Say whether a topic, without its namespace, is one that only this package writes and reads.

    Examples
    --------
    >>> [is_of_the_system(name) for name in ("nodes", "inference.own", "alerts", "orders.dlq")]
    [True, True, False, False]
    """
    if topic in _SHARED or (topic.removesuffix(LATE_OF).removesuffix(DEAD_LETTERS_OF) in _SHARED):
        return False
    names = {one.name for one in declarations()}
    return topic in names or topic.startswith(_OWN_PREFIXES) or topic.endswith(_OWN_SUFFIXES)


def record_topic_of(dead_letters: str) -> str | None:
    """Return the topic whose records a topic of dead letters holds; None if it is no topic of dead letters.

    Examples
    --------
    >>> [record_topic_of(name) for name in ("orders.dlq", "requests.dlq", "orders", "nodes.dlq")]
    ['orders', 'requests', None, None]
    """
    topic = dead_letters.removesuffix(DEAD_LETTERS_OF)
    known = topic != dead_letters and topic and (topic == REQUESTS or not is_of_the_system(topic))
    return topic if known else None


def dead_letters_known(topics: Iterable[str], namespace: str) -> list[str]:
    """Return which topics of a namespace, given by their full names, hold dead letters; calls' first."""
    names = (one.removeprefix(namespace) for one in topics if one.startswith(namespace))
    return sorted((one for one in names if record_topic_of(one)), key=lambda one: (one != DEAD_LETTERS, one))


def _retry(delay_ms: int, name: str) -> TopicDeclaration:
    return TopicDeclaration(
        name=name,
        partitions=2,
        timestamp_type="LogAppendTime",
        retention_ms=_DAY_MS,
        key="call id",
        value="Request",
        written_by="router, nodes",
        read_by=f"retries agent, {delay_ms / 1000:g} s after it was written",
    )


def declarations(*pools: str) -> list[TopicDeclaration]:
    """Return the declarations of all topics.

    Parameters
    ----------
    *pools : str
        Pools beside the ones that always exist.
    """
    readings_kind = {"partitions": 4, "timestamp_type": "LogAppendTime", "key": "device id"}
    return [
        TopicDeclaration(
            name=REQUESTS, partitions=4, key="call id", value="Request", written_by="anyone", read_by="router"
        ),
        *(_retry(delay_ms, name) for delay_ms, name in RETRIES.items()),
        TopicDeclaration(
            name=DEAD_LETTERS,
            partitions=1,
            retention_ms=30 * _DAY_MS,
            key="as it came",
            value="as it came, byte for byte",
            max_message_bytes=LARGEST_RECORD_BYTES,
            written_by="router, nodes",
            read_by="whoever is on call",
        ),
        handled(DEAD_LETTERS),
        *(_pool(name) for name in dict.fromkeys((*POOLS, *pools))),
        TopicDeclaration(
            name=REPLIES,
            partitions=16,
            retention_ms=_HOUR_MS,
            key="call id",
            value="Reply",
            written_by="nodes, router",
            read_by="each client its own partition; nodes, to know what is answered",
        ),
        TopicDeclaration(
            name=RESULTS,
            partitions=4,
            retention_ms=_HOUR_MS,
            key="call id",
            value="Reply, as it went to a topic of the caller's own",
            written_by="nodes",
            read_by="nodes, to know what is answered",
        ),
        TopicDeclaration(
            name=SUSPECTS,
            partitions=1,
            retention_ms=_DAY_MS,
            timestamp_type="LogAppendTime",
            key="call id, or its SHA-256 if that is longer than 127 bytes",
            value="Death: which process died with the call under way",
            written_by="nodes, at their start",
            read_by="nodes",
        ),
        TopicDeclaration(
            name=CANCELLATIONS,
            partitions=1,
            retention_ms=CANCELLATIONS_KEPT_MS,
            timestamp_type="LogAppendTime",
            key="call id",
            value="Cancellation",
            written_by="clients, anyone",
            read_by="router, nodes",
        ),
        TopicDeclaration(
            name=MODELS,
            partitions=1,
            timestamp_type="LogAppendTime",
            cleanup="compact",
            retention_ms=-1,
            key="which nodes, and the model",
            value="ModelOrder",
            written_by="easyremote models",
            read_by="nodes",
        ),
        TopicDeclaration(
            name=NODES,
            partitions=1,
            timestamp_type="LogAppendTime",
            cleanup="compact",
            retention_ms=-1,
            key="node id",
            value="Heartbeat",
            written_by="workers",
            read_by="router, direct clients, status",
        ),
        TopicDeclaration(
            name=FUNCTIONS,
            partitions=1,
            timestamp_type="LogAppendTime",
            cleanup="compact,delete",
            retention_ms=FUNCTIONS_KEPT_MS,
            key="node id",
            value="Offer",
            written_by="nodes",
            read_by="easyremote functions, anyone",
        ),
        TopicDeclaration(
            name=READINGS,
            value="Reading",
            written_by="devices, anyone",
            read_by="streams",
            **readings_kind,  # type: ignore[arg-type]  # mypy joins the values' types
        ),
        TopicDeclaration(
            name=LATE,
            value="the reading as it came, and Lateness",
            written_by="streams",
            read_by="data engineers",
            **readings_kind,  # type: ignore[arg-type]
        ),
        TopicDeclaration(
            name=MALFORMED_READINGS,
            partitions=1,
            retention_ms=30 * _DAY_MS,
            key="as it came",
            value="as it came, byte for byte",
            max_message_bytes=LARGEST_RECORD_BYTES,
            written_by="streams",
            read_by="whoever is on call",
        ),
        handled(MALFORMED_READINGS),
        TopicDeclaration(
            name=AGGREGATES,
            value="Aggregate",
            written_by="streams",
            read_by="anyone",
            **readings_kind,  # type: ignore[arg-type]
        ),
        TopicDeclaration(
            name=ALERTS,
            value="Alert",
            written_by="streams",
            read_by="whoever is on call",
            **readings_kind,  # type: ignore[arg-type]
        ),
        TopicDeclaration(
            name=STREAMS_CHANGELOG,
            partitions=4,
            cleanup="compact",
            retention_ms=-1,
            timestamp_type="LogAppendTime",
            key="device id and metric",
            value="state of a series, binary; and the next offset to read",
            written_by="streams",
            read_by="streams, when they take a partition over",
        ),
    ]
