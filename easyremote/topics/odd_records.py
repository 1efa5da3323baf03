"""What a stream cannot use: late records and malformed ones, as records for the topics beside it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal, NamedTuple, Protocol

import msgspec

from easyremote.errors import PayloadTooLarge
from easyremote.topics.catalog import LARGEST_RECORD_BYTES
from easyremote.topics.deliveries import Output
from easyremote.topics.letters import NO_RECORD, PIPELINE, Failure, dead_letter_headers, fitted, stack_of
from easyremote.topics.records import Lateness, RecordRef, encode
from easyremote.topics.wire import headers_of

if TYPE_CHECKING:
    from confluent_kafka import Message

__all__ = [
    "LARGEST_VALUE_BYTES",
    "Place",
    "TooLate",
    "dead_letter",
    "fitting",
    "key_of",
    "late_record",
    "window_letter",
]

LARGEST_VALUE_BYTES = LARGEST_RECORD_BYTES // 2 - 16 * 1024
"""With its key, of a record of a topic that is none of dead letters."""


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


def late_record(
    places: tuple[Place, Place], message: Message, late: TooLate, window: tuple[int, int], node_id: str
) -> Output:
    """Return a late record for its topic: all that it had, and `lateness`; `window` is `[start, end)` in ms.

    One that cannot be told so, as its other fields' names are no text or there is no room, is a dead letter: `places`
    are those of late records and of dead letters.
    """
    place, dead = places
    try:
        told = _told(place, message, late, window)
    except MemoryError:
        raise
    except Exception as error:  # noqa: BLE001  # of the fields that nobody else reads nothing is known
        return dead_letter(dead, message, error, node_id)
    size = len(told.value or b"") + len(told.key or b"")
    return told if size <= LARGEST_VALUE_BYTES else dead_letter(dead, message, _too_large(size, place.to), node_id)


def _told(place: Place, message: Message, late: TooLate, window: tuple[int, int]) -> Output:
    source = RecordRef(place.topic, place.partition, message.offset() or 0)
    lateness = Lateness(
        window_start=window[0], window_end=window[1], lateness_ms=late.lateness_ms, reason=late.reason, source=source
    )
    record = msgspec.json.decode(message.value() or b"", type=dict[str, msgspec.Raw])
    headers = place.headers() or None
    return Output(place.to, key_of(message), encode({**record, "lateness": lateness}), headers=headers)


def dead_letter(
    place: Place,
    message: Message,
    error: BaseException,
    node_id: str,
    stage: str | None = None,
    *,
    has_stack: bool = False,
) -> Output:
    """Return a record that was given up for its topic: byte for byte, with the reason in its headers.

    Parameters
    ----------
    stage : str, optional
        At which step of a pipeline it was.
    has_stack : bool
        Whether a user's code raised, so that where it did helps.
    """
    origin = RecordRef(place.topic, place.partition, message.offset() or 0)
    failure = Failure(node_id=node_id, stage=stage, stack=stack_of(error) if has_stack else None)
    headers = dead_letter_headers(headers_of(message), origin, error, failure)
    key, value, headers = fitted(key_of(message), message.value(), [*headers, *place.headers()])
    return Output(place.to, key if isinstance(key, bytes) else None, value, headers=headers)


def fitting(output: Output, origin: RecordRef, dead_letters: str, node_id: str) -> Output:
    """Return a result, or where its topic has no room for it a dead letter that says so, with as much as fits."""
    size = len(output.value or b"") + len(output.key or b"")
    if size <= LARGEST_VALUE_BYTES or output.topic == dead_letters:
        return output
    error = _too_large(size, output.topic)
    headers = dead_letter_headers(output.headers or (), origin, error, Failure(node_id=node_id))
    key, value, headers = fitted(output.key, output.value, headers)
    return Output(dead_letters, key if isinstance(key, bytes) else None, value, headers=headers)


def _too_large(size: int, topic: str) -> PayloadTooLarge:
    return PayloadTooLarge(f"a record of {size} bytes for {topic}: the limit is {LARGEST_VALUE_BYTES} bytes")


def window_letter(place: Place, key: bytes, known: bytes, error: BaseException, node_id: str, stage: str) -> Output:
    """Return a window of which a user's code made no result, for the topic of dead letters: what is known of it."""
    origin = RecordRef(place.topic, place.partition, NO_RECORD)
    failure = Failure(node_id=node_id, stage=stage, stack=stack_of(error))
    headers = dead_letter_headers([], origin, error, failure)
    fitted_key, value, headers = fitted(key, known, [*headers, *place.headers()])
    return Output(place.to, fitted_key if isinstance(fitted_key, bytes) else None, value, headers=headers)


def key_of(message: Message) -> bytes | None:
    """Return a record's key as bytes."""
    key = message.key()
    return key.encode() if isinstance(key, str) else key
