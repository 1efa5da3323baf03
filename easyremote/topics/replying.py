"""How a call ends: as a reply to its caller, or as a dead letter that keeps everything about it."""

from __future__ import annotations

from typing import TYPE_CHECKING

import msgspec
from msgspec import UNSET

from easyremote.topics.catalog import DEAD_LETTERS
from easyremote.topics.causes import is_retriable, message_of, name_of
from easyremote.topics.letters import Failure, dead_letter_headers, fitted
from easyremote.topics.records import ErrorBody, Reply, TimingsMs
from easyremote.topics.wire import CORRELATION_ID, IN_FLIGHT, SENT_MS, TRACEPARENT, Address, Headers

if TYPE_CHECKING:
    from easyremote.topics.producer import Delivered, RecordProducer
    from easyremote.topics.records import RecordRef

__all__ = [
    "NO_TIME",
    "dead_letter",
    "encode_reply",
    "error_body",
    "error_reply",
    "reply_headers",
    "send_reply",
]

NO_TIME = TimingsMs(0.0, 0.0, 0.0, 0.0, 0.0)


encode_reply = msgspec.json.Encoder().encode
"""Of a reply whose result, if it has one, is plain: `json_form` makes it so."""


def error_body(error: BaseException, *, retriable: bool | None = None, stack: str | None = None) -> ErrorBody:
    """Return what a reply says of an exception; whether a second try can help is the error's own word if unset."""
    if retriable is None:
        retriable = is_retriable(error)
    return ErrorBody(name_of(error), message_of(error), retriable, UNSET if stack is None else stack)


def error_reply(  # each is a field of the reply
    error: Exception,
    *,
    call_id: str,
    function: str | None,
    node_id: str,
    attempts: int = 1,
    timings_ms: TimingsMs = NO_TIME,
) -> Reply:
    """Return the reply that says why a call has no result."""
    return Reply(
        id=call_id,
        function=function,
        status="error",
        error=error_body(error),
        node_id=node_id,
        model=None,
        model_version=None,
        attempts=attempts,
        timings_ms=timings_ms,
    )


def reply_headers(correlation_id: bytes | None, traceparent: bytes | None) -> list[tuple[str, bytes]]:
    """Return a reply's headers: the correlation id byte for byte as it came, and the trace."""
    headers = []
    if correlation_id is not None:
        headers.append((CORRELATION_ID, correlation_id))
    if traceparent is not None:
        headers.append((TRACEPARENT, traceparent))
    return headers


def send_reply(  # noqa: PLR0913, PLR0917  # a reply, its address, and what its node tells
    producer: RecordProducer,
    address: Address,
    traceparent: bytes | None,
    reply: tuple[str, bytes],
    on_delivery: Delivered,
    in_flight: int | None = None,
    sent: bytes | None = None,
    *,
    in_order: bool = False,
) -> None:
    """Send an encoded reply, given as (call id, value), to where its caller reads.

    A node says what it has left, and which sending of the call this answers: an item of a stream, which answers none,
    says neither. Those of a stream go `in_order`.
    """
    call_id, value = reply
    headers = reply_headers(address.correlation_id, traceparent)
    if in_flight is not None:
        headers.append((IN_FLIGHT, b"%d" % in_flight))
    if sent is not None:
        headers.append((SENT_MS, sent))
    producer.send(
        address.topic,
        value,
        key=call_id,
        headers=headers,
        partition=address.partition,
        on_delivery=on_delivery,
        in_order=in_order,
    )


def dead_letter(  # noqa: PLR0913  # a record, its place and its reason
    producer: RecordProducer,
    namespace: str,
    record: tuple[bytes | str | None, bytes | None, Headers],
    origin: RecordRef,
    error: BaseException,
    on_delivery: Delivered,
    *,
    failure: Failure,
) -> None:
    """Send a record, given as (key, value, headers), to the dead letters as it came, with why and where from."""
    key, value, headers = record
    key, value, headers = fitted(key, value, dead_letter_headers(headers, origin, error, failure))
    producer.send(namespace + DEAD_LETTERS, value, key=key, headers=headers, on_delivery=on_delivery)
