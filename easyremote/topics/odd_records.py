"""What a stream cannot use: late records and malformed ones, as records for the topics beside it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal, NamedTuple, Protocol

import msgspec

from easyremote.topics.deliveries import Output
from easyremote.topics.letters import Failure, dead_letter_headers
from easyremote.topics.records import Lateness, RecordRef, encode
from easyremote.topics.wire import headers_of

if TYPE_CHECKING:
    from confluent_kafka import Message

__all__ = ["Place", "TooLate", "dead_letter", "key_of", "late_record"]

PIPELINE = "easyremote_pipeline"
"""Header of late records and dead letters of a pipeline."""


class TooLate(Protocol):
    """Why no window takes a record."""

    @property
    def lateness_ms(self) -> int:
        """How far behind or, from the future, ahead it is, ms."""
        ...

    @property
    def reason(self) -> Literal["late", "future"]:
        """Which of both."""
        ...


class Place(NamedTuple):
    """Full name of the topic to write to, where the record came from, and the pipeline that read it, if one did."""

    to: str
    topic: str
    partition: int
    pipeline: str | None = None

    def headers(self) -> list[tuple[str, bytes]]:
        """Return what tells the pipeline: several may read a topic, and each has its own lateness."""
        return [] if self.pipeline is None else [(PIPELINE, self.pipeline.encode())]


def late_record(place: Place, message: Message, late: TooLate, window: tuple[int, int]) -> Output:
    """Return a late record for its topic: all that it had, and `lateness`; `window` is `[start, end)` in ms."""
    source = RecordRef(place.topic, place.partition, message.offset() or 0)
    lateness = Lateness(
        window_start=window[0], window_end=window[1], lateness_ms=late.lateness_ms, reason=late.reason, source=source
    )
    record = msgspec.json.decode(message.value() or b"", type=dict[str, msgspec.Raw])
    headers = place.headers() or None
    return Output(place.to, key_of(message), encode({**record, "lateness": lateness}), headers=headers)


def dead_letter(place: Place, message: Message, error: Exception, node_id: str) -> Output:
    """Return a malformed record for its topic: byte for byte, with the reason in its headers."""
    origin = RecordRef(place.topic, place.partition, message.offset() or 0)
    headers = dead_letter_headers(headers_of(message), origin, error, Failure(node_id=node_id))
    return Output(place.to, key_of(message), message.value(), headers=[*headers, *place.headers()])


def key_of(message: Message) -> bytes | None:
    """Return a record's key as bytes."""
    key = message.key()
    return key.encode() if isinstance(key, str) else key
