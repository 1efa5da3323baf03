"""A dead letter: a record as it came, and in its headers why it was given up, where it stood and how to send it again.

The names are in `docs/protocol.md`. Nothing here sends or reads.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import TYPE_CHECKING

import msgspec
from msgspec import Struct

from easyremote.clock import now_ms
from easyremote.topics.catalog import LARGEST_RECORD_BYTES
from easyremote.topics.causes import clean, message_of, name_of, stack_of
from easyremote.topics.limits import MAX_TIME_MS, Unreadable, attempt
from easyremote.topics.records import RecordRef
from easyremote.topics.wire import (
    ATTEMPT,
    AVOID,
    CALL_ID,
    DEADLINE_MS,
    ROUTED_MS,
    SENT_MS,
    SOURCE,
    Headers,
    MalformedCall,
    Origin,
    headers_of,
    parse_call,
)

if TYPE_CHECKING:
    from confluent_kafka import Message

__all__ = [
    "NO_RECORD",
    "PIPELINE",
    "DeadLetter",
    "Failure",
    "dead_letter_headers",
    "fitted",
    "letter_of",
    "redriven_headers",
    "source_of",
    "stack_of",
]

_REASON = "easyremote_reason"
_ERROR = "easyremote_error"
_STACK = "easyremote_stack"
_ATTEMPTS = "easyremote_attempts"
_FAILED_MS = "easyremote_failed_ms"
_NODE = "easyremote_node"
_TOPIC = "easyremote_source_topic"
_PARTITION = "easyremote_source_partition"
_OFFSET = "easyremote_source_offset"
_TRUNCATED = "easyremote_truncated"
_STAGE = "easyremote_stage"
PIPELINE = "easyremote_pipeline"
"""Header of late records and dead letters of a pipeline."""
_WHERE = frozenset({_TOPIC, _PARTITION, _OFFSET, _STAGE, PIPELINE, _NODE})
_OWN = frozenset({_REASON, _ERROR, _STACK, _ATTEMPTS, _FAILED_MS, _TRUNCATED}) | _WHERE
NO_RECORD = -1
"""Offset of what was made of many records, such as a window: it cannot go back to where it came from."""

_REASON_BYTES = 4 * 1024
_LETTER_BYTES = LARGEST_RECORD_BYTES - 16 * 1024
"""What a broker and its clients count for a record and its batch beside this is less than the rest."""
_HEADERS_BYTES = 512 * 1024
_MOST_DIGITS = 16
_KEY_BYTES = 256 * 1024


class Failure(Struct, frozen=True, kw_only=True):
    """What is known of a failure besides the error and the record.

    Parameters
    ----------
    node_id : str or None
        The worker that gave the record up.
    call_id : str or None
        Of the call, where the record is one.
    attempts : int or None
        How often it was tried.
    stack : str or None
        Where the function raised.
    stage : str or None
        At which step of a pipeline.
    """

    node_id: str | None = None
    call_id: str | None = None
    attempts: int | None = None
    stack: str | None = None
    stage: str | None = None


_NOTHING = Failure()


def dead_letter_headers(
    headers: Headers, origin: RecordRef, error: BaseException, failure: Failure = _NOTHING
) -> list[tuple[str, bytes]]:
    """Return a dead letter's headers: those that the record had, and why, when and from where it was given up."""
    own = [
        (_REASON, message_of(error).encode()[:_REASON_BYTES]),
        (_ERROR, name_of(error).encode()),
        (_TOPIC, origin.topic.encode()),
        (_PARTITION, b"%d" % origin.partition),
        (_FAILED_MS, b"%d" % now_ms()),
    ]
    if origin.offset != NO_RECORD:
        own.append((_OFFSET, b"%d" % origin.offset))
    if failure.attempts is not None:
        own.append((_ATTEMPTS, b"%d" % failure.attempts))
    if failure.node_id is not None:
        own.append((_NODE, failure.node_id.encode()))
    if failure.stage is not None:
        own.append((_STAGE, failure.stage.encode(errors="replace")))
    if failure.stack is not None:
        own.append((_STACK, clean(failure.stack).encode()))
    kept = [(name, content) for name, content in headers if name not in _OWN]
    if failure.call_id is not None and all(name != CALL_ID for name, _ in kept):
        kept.append((CALL_ID, failure.call_id.encode()))
    return kept + own


def fitted(
    key: bytes | str | None, value: bytes | None, headers: list[tuple[str, bytes]]
) -> tuple[bytes | str | None, bytes | None, list[tuple[str, bytes]]]:
    """Return a dead letter's key, value and headers as far as they fit into its topic.

    A record may unpack to more than a topic takes, or have a header or a key that leaves its value no room. What is
    left out is told in the header `easyremote_truncated`: such a letter is to be looked at, and is never sent back.
    """
    if _size(key) + _size(value) + sum(map(_header_size, headers)) <= _LETTER_BYTES:
        return key, value, headers
    lost = []
    if _size(key) > _KEY_BYTES and key is not None:
        lost.append(f"key: {_KEY_BYTES} of {_size(key)} bytes")
        key = (key.encode(errors="replace") if isinstance(key, str) else key)[:_KEY_BYTES]
    kept = headers
    if sum(map(_header_size, headers)) > _HEADERS_BYTES:
        kept, left = [], _HEADERS_BYTES
        for one in reversed(headers):  # ours are the last, and short
            if _header_size(one) <= left:
                kept.append(one)
                left -= _header_size(one)
        kept.reverse()
        lost.append(f"headers: {len(kept)} of {len(headers)}")
    room = _LETTER_BYTES - _size(key) - sum(map(_header_size, kept))
    if value is not None and len(value) > room:
        lost.append(f"value: {room} of {len(value)} bytes")
        value = value[:room]
    return key, value, [*kept, (_TRUNCATED, "; ".join(lost).encode())]


def _size(part: bytes | str | None) -> int:
    if part is None:
        return 0
    return len(part.encode(errors="replace")) if isinstance(part, str) else len(part)


def _header_size(header: tuple[str, bytes]) -> int:
    return len(header[0].encode(errors="replace")) + len(header[1]) + 10


class DeadLetter(Struct, frozen=True, kw_only=True):
    """A record of a topic of dead letters; what its headers do not say is None."""

    place: RecordRef
    key: bytes | None
    value: bytes | None
    headers: list[tuple[str, bytes]]
    """Those that the record had before it was given up."""
    reason: str | None
    error: str | None
    stack: str | None
    attempts: int | None
    failed_ms: int
    node_id: str | None
    call_id: str | None
    function: str | None
    source: str | None
    """Where the record stood, as `topic/partition/offset`; of a window that has no result `topic/partition`."""
    truncated: str | None = None
    """What of it is not here, because it did not fit."""
    pipeline: str | None = None
    stage: str | None = None
    """At which step of the pipeline it was given up."""

    @property
    def id(self) -> str:
        """How people name it: `partition/offset`."""
        return f"{self.place.partition}/{self.place.offset}"

    @property
    def is_of_a_window(self) -> bool:
        """Whether it is what is known of a window, and no record that came."""
        return self.stage is not None and self.source is not None and self.source.count("/") == 1


class _Named(Struct):
    function: str | None = None


_decode_named = msgspec.json.Decoder(_Named).decode


def letter_of(message: Message) -> DeadLetter:
    """Return the dead letter that a record is; any record is one, however little its headers say."""
    headers = headers_of(message)
    said = {name: content.decode(errors="replace") for name, content in headers if name in _OWN or name == CALL_ID}
    value, key = message.value(), message.key()
    attempts, failed_ms = said.get(_ATTEMPTS, ""), said.get(_FAILED_MS, "")
    failed_at = _number(failed_ms)
    source = [said.get(name) for name in (_TOPIC, _PARTITION, _OFFSET)]
    return DeadLetter(
        place=RecordRef(message.topic() or "", message.partition() or 0, message.offset() or 0),
        key=key.encode() if isinstance(key, str) else key,
        value=value,
        headers=[(name, content) for name, content in headers if name not in _OWN],
        reason=said.get(_REASON),
        error=said.get(_ERROR),
        stack=said.get(_STACK),
        attempts=_number(attempts),
        failed_ms=message.timestamp()[1] if failed_at is None else failed_at,
        node_id=said.get(_NODE),
        call_id=said.get(CALL_ID),
        function=_function_of(value),
        source="/".join(part for part in source if part) if all(source[:2]) else None,
        truncated=said.get(_TRUNCATED),
        pipeline=said.get(PIPELINE),
        stage=said.get(_STAGE),
    )


def _number(text: str) -> int | None:
    return int(text) if text.isascii() and text.isdecimal() and len(text) < _MOST_DIGITS else None


def source_of(headers: Mapping[str, bytes]) -> bytes | None:
    """Return where a dead letter's record stood, as `topic/partition/offset`; None if it is no dead letter."""
    parts = [headers.get(name) for name in (_TOPIC, _PARTITION, _OFFSET)]
    return b"/".join(part for part in parts if part is not None) if all(parts) else None


def _function_of(value: bytes | None) -> str | None:
    named = attempt(_decode_named, value)
    return None if isinstance(named, Unreadable) else named.function


def redriven_headers(letter: DeadLetter, times: int, at_ms: int) -> list[tuple[str, bytes]]:
    """Return the headers with which a letter's record goes back to where it came from.

    A call begins anew: its attempts, the node to avoid and what its way has cost are forgotten, and if it had a
    deadline it gets as much time again. It is another call than the one that failed, whose answer is remembered
    under its id, so its id says which redrive it is (`<id>~1`); its correlation id and its reply address stay.

    Parameters
    ----------
    letter : DeadLetter
        What goes back.
    times : int
        Which redrive of this letter it is, from 1.
    at_ms : int
        When, ms since the epoch.
    """
    gone: Collection[str] = (ATTEMPT, AVOID, ROUTED_MS, SENT_MS, SOURCE, DEADLINE_MS, CALL_ID)
    kept = [(name, content) for name, content in letter.headers if name not in gone]
    origin = Origin(letter.place.topic, letter.place.partition, letter.place.offset, letter.failed_ms)
    try:
        call = parse_call(letter.value, letter.headers, origin)
    except MalformedCall:
        return kept  # no call, and not one after this either unless its reader has learned to read it
    kept.append((CALL_ID, f"{call.id}~{times}".encode()))
    if call.deadline_ms is not None:
        left_ms = max(0, round(call.deadline_ms - call.sent_ms))
        kept.append((DEADLINE_MS, b"%d" % min(at_ms + left_ms, MAX_TIME_MS)))
    return kept
