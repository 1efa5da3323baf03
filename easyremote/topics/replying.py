"""How a call ends: as a reply to its caller, or as a dead letter that keeps everything about it."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

import msgspec
from msgspec import UNSET

from easyremote.topics.catalog import DEAD_LETTERS
from easyremote.topics.causes import is_retriable, message_of, name_of
from easyremote.topics.letters import Failure, dead_letter_headers, fitted
from easyremote.topics.records import ErrorBody, Reply, TimingsMs
from easyremote.topics.wire import CORRELATION_ID, TRACEPARENT, Address, Headers

if TYPE_CHECKING:
    from easyremote.topics.certain import CertainProducer
    from easyremote.topics.letters import DeadLetter
    from easyremote.topics.producer import Delivered
    from easyremote.topics.records import RecordRef
    from easyremote.topics.wire import Call

__all__ = [
    "NO_TIME",
    "buried_reply",
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


def buried_reply(call: Call, letter: DeadLetter | None, node_id: str) -> Reply:
    """Return the reply to a call that another node has made a dead letter, and not answered."""
    error = ErrorBody("CallError", "the call became a dead letter on a node that then ended")
    if letter is not None and letter.error is not None:
        error = ErrorBody(letter.error, letter.reason or "")
    reply = error_reply(Exception(), call_id=call.id, function=call.function, node_id=node_id, attempts=call.attempt)
    return msgspec.structs.replace(reply, error=error)


def send_reply(  # noqa: PLR0913  # a reply, its address, and who knows it again
    producer: CertainProducer,
    address: Address,
    traceparent: bytes | None,
    reply: tuple[str, bytes],
    on_delivery: Delivered,
    *,
    more: Sequence[tuple[str, bytes]] = (),
    wanted: Callable[[], bool] = lambda: True,
    in_order: bool = False,
) -> None:
    """Send an encoded reply, given as (call id, value), to where its caller reads.

    With `more` headers it is known again: a node says which sending of which call this answers, a router because of
    which record. An item of a stream says neither. Those of a stream go `in_order`.
    """
    call_id, value = reply
    producer.send(
        address.topic,
        value,
        key=call_id,
        headers=[*reply_headers(address.correlation_id, traceparent), *more],
        partition=address.partition,
        on_delivery=on_delivery,
        wanted=wanted,
        in_order=in_order,
    )


def dead_letter(  # noqa: PLR0913  # a record, its place and its reason
    producer: CertainProducer,
    namespace: str,
    record: tuple[bytes | str | None, bytes | None, Headers],
    origin: RecordRef,
    error: BaseException,
    on_delivery: Delivered,
    *,
    failure: Failure,
    wanted: Callable[[], bool] = lambda: True,
) -> None:
    """Send a record, given as (key, value, headers), to the dead letters as it came, with why and where from."""
    key, value, headers = record
    key, value, headers = fitted(key, value, dead_letter_headers(headers, origin, error, failure))
    producer.send(namespace + DEAD_LETTERS, value, key=key, headers=headers, on_delivery=on_delivery, wanted=wanted)
