"""A call as it travels: the request in a record's value joined with what its headers say.

A header wins over the body, so a client that only knows Kafka's conventions is served, and a router adds what it
knows as headers and passes the value on untouched. The names and their meaning are in `docs/protocol.md`.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable, Sequence
from operator import methodcaller
from typing import TYPE_CHECKING, Any

import msgspec
from msgspec import Raw, Struct

from easyremote.errors import MalformedRequest
from easyremote.topics.catalog import REPLIES
from easyremote.topics.limits import (
    MAX_CORRELATION_BYTES,
    MAX_DEPTH,
    MAX_ID,
    MAX_PARTITION,
    MAX_TIME_MS,
    Unreadable,
    attempt,
    is_too_deep,
    is_topic_name,
    shortened,
)
from easyremote.topics.records import Claim, Priority, Request, decode_request

if TYPE_CHECKING:
    from confluent_kafka import Message

__all__ = [
    "ATTEMPT",
    "AVOID",
    "CALL_ID",
    "CORRELATION_ID",
    "DEADLINE_MS",
    "IN_FLIGHT",
    "NO_HEADERS",
    "REPLY_PARTITION",
    "REPLY_TOPIC",
    "ROUTED_MS",
    "SENT_MS",
    "SOURCE",
    "TRACEPARENT",
    "Address",
    "Call",
    "Headers",
    "MalformedCall",
    "Origin",
    "given_headers",
    "headers_of",
    "parse_call",
    "read_call",
    "sent_header",
    "uuid7",
]

Headers = Sequence[tuple[str, bytes]]

CORRELATION_ID = "kafka_correlationId"
REPLY_TOPIC = "kafka_replyTopic"
REPLY_PARTITION = "kafka_replyPartition"
TRACEPARENT = "traceparent"
CALL_ID = "easyremote_id"
ATTEMPT = "easyremote_attempt"
AVOID = "easyremote_avoid"
DEADLINE_MS = "easyremote_deadline_ms"
SENT_MS = "easyremote_sent_ms"
"""When a call was sent; on a reply: which sending of the call it answers."""
ROUTED_MS = "easyremote_routed_ms"
SOURCE = "easyremote_source"
"""Because of which record this one was sent on, as `topic/partition/offset`: so that it is not done twice."""
IN_FLIGHT = "easyremote_in_flight"
"""On a reply: how many calls its node still has in flight."""


_LOST_HEADERS = "easyremote_lost_headers"
"""Of a record whose own headers cannot be read: why."""
_MAX_ECHO_BYTES = 1_000_000
"""Of a correlation id that goes back with an error, which is short; a topic takes a record of 1 MiB by default."""
_MAX_TRACE_BYTES = 512
_MAX_AVOID_BYTES = 255
_MAX_ATTEMPT = 1_000_000
_MAX_REASON = 1_000
_MAX_DIGITS = 32
_MAX_ID_BYTES = 4 * MAX_ID + 64
"""A letter that is redriven again and again has a longer id each time."""


class Origin(Struct, frozen=True):
    """Where and when a record was read."""

    topic: str
    partition: int
    offset: int
    timestamp_ms: int

    @property
    def source(self) -> bytes:
        """By what a record that is sent on because of this one names it."""
        return f"{self.topic}/{self.partition}/{self.offset}".encode()


class Address(Struct, frozen=True):
    """Where a reply goes: to a topic, to one partition of it if the caller named one, with what it correlates by."""

    topic: str
    partition: int | None
    correlation_id: bytes | None


class Call(Struct, frozen=True, kw_only=True):
    """A request with everything that its record said."""

    id: str
    function: str
    args: list[Raw]
    kwargs: dict[str, Raw]
    address: Address
    target: str | None
    affinity_key: str | None
    strategy: str | None
    model: str | None
    priority: Priority
    deadline_ms: int | None
    stream: bool
    from_seq: int
    claims: list[Claim]
    claim_result: bool
    bytes_at: bool = False
    attempt: int
    avoid: str | None
    """The node on which the last attempt failed."""
    sent_ms: float
    routed_ms: float | None
    traceparent: bytes | None

    def is_late(self, now_ms: float) -> bool:
        """Say whether the deadline has passed at `now_ms`."""
        return self.deadline_ms is not None and now_ms >= self.deadline_ms

    def headers(
        self,
        *,
        routed_ms: float | None = None,
        attempt: int | None = None,
        avoid: str | None = None,
        source: bytes | None = None,
    ) -> list[tuple[str, bytes]]:
        """Return the headers with which the untouched value travels on.

        Parameters
        ----------
        routed_ms : float, optional
            When the router passed it on, ms since the epoch.
        attempt : int, optional
            Number of the next attempt, from 1; unset: this one's.
        avoid : str, optional
            The node on which this attempt failed; unset: what the call came with.
        source : bytes, optional
            The record because of which it travels on.
        """
        headers = [
            (CALL_ID, self.id.encode()),
            (REPLY_TOPIC, self.address.topic.encode()),
            (SENT_MS, sent_header(self.sent_ms)),
            (ATTEMPT, b"%d" % (attempt or self.attempt)),
        ]
        if self.address.correlation_id is not None:
            headers.append((CORRELATION_ID, self.address.correlation_id))
        if self.address.partition is not None:
            headers.append((REPLY_PARTITION, self.address.partition.to_bytes(4, "big")))
        if self.deadline_ms is not None:
            headers.append((DEADLINE_MS, b"%d" % self.deadline_ms))
        if avoid is not None or self.avoid is not None:
            headers.append((AVOID, (avoid or self.avoid or "").encode()))
        if self.traceparent is not None:
            headers.append((TRACEPARENT, self.traceparent))
        if routed_ms is not None:
            headers.append((ROUTED_MS, b"%.3f" % routed_ms))
        if source is not None:
            headers.append((SOURCE, source))
        return headers


class MalformedCall(MalformedRequest):
    """A record that is no request, with what could be made out of it.

    Parameters
    ----------
    message : str
        What is wrong with it.
    call_id : str
        Its id, given or made.
    function : str or None
        The function that it names, if any.
    address : Address or None
        Where it wants its reply; None if it does not say.
    traceparent : bytes or None
        Its trace, if it has one.
    """

    type = MalformedRequest.__name__  # what a caller is told; that it is known more of is nobody else's affair

    def __init__(  # each is a part of a call
        self,
        message: str,
        *,
        call_id: str,
        function: str | None,
        address: Address | None,
        traceparent: bytes | None = None,
    ) -> None:
        super().__init__(message)
        self.traceparent = traceparent
        self.call_id = call_id
        self.function = function
        self.address = address


_ENTROPY_BYTES = 4_096
_RANDOM_BYTES = 10
# Of the system's own randomness, so that nobody guesses an id; a system call for each costs a busy client a tenth of
# its time. Taken by `pop`, which no two threads do at once, and never by a child that has a copy of them.
_entropy: list[int] = []
os.register_at_fork(after_in_child=_entropy.clear)


def _drawn() -> int:
    drawn = os.urandom(_ENTROPY_BYTES)
    parts = [drawn[at : at + _RANDOM_BYTES] for at in range(0, _ENTROPY_BYTES - _RANDOM_BYTES, _RANDOM_BYTES)]
    first, *others = [int.from_bytes(part, "big") for part in parts]
    _entropy.extend(others)
    return first


def uuid7(timestamp_ms: int, entropy: bytes | None = None) -> str:
    """Return a UUID of version 7.

    Parameters
    ----------
    timestamp_ms : int
        Its time, ms since the Unix epoch.
    entropy : bytes, optional
        Its ten other bytes; random if unset. The same time and bytes give the same UUID.

    References
    ----------
    RFC 9562, section 5.7.

    Examples
    --------
    >>> uuid7(0x017F22E279B0, bytes(10))
    '017f22e2-79b0-7000-8000-000000000000'
    """
    if entropy is not None:
        rest = int.from_bytes(entropy, "big")
    else:
        try:
            rest = _entropy.pop()
        except IndexError:
            rest = _drawn()
    return "%08x-%04x-7%03x-%04x-%012x" % (  # noqa: UP031  # twice as fast as an f-string, and in every call
        timestamp_ms >> 16 & 0xFFFFFFFF,
        timestamp_ms & 0xFFFF,
        rest >> 64 & 0xFFF,
        rest >> 48 & 0x3FFF | 0x8000,
        rest & 0xFFFFFFFFFFFF,
    )


def _made_id(origin: Origin) -> str:
    # From the record's place, so that a redelivered record is the same call and not a second one.
    place = f"{origin.topic}/{origin.partition}/{origin.offset}"
    return uuid7(max(origin.timestamp_ms, 0), hashlib.blake2b(place.encode(), digest_size=10).digest())


def _first_sent_ms(origin: Origin) -> float:
    # The decimals, which a record's time has not, tell two sendings of one id within a millisecond apart.
    decimals = (origin.offset * 131 + origin.partition * 17) % 1_000
    return min(max(origin.timestamp_ms, 0), MAX_TIME_MS - 1) + decimals / 1_000


def _text(correlation_id: bytes) -> str:
    if len(correlation_id) > MAX_ID:
        return hashlib.sha256(correlation_id).hexdigest()
    try:
        text = correlation_id.decode()
    except UnicodeDecodeError:
        return correlation_id.hex()
    return text if text.isprintable() and text else correlation_id.hex()


def sent_header(sent_ms: float) -> bytes:
    """Return the value of the header that says when a call was sent."""
    return b"%.3f" % sent_ms


# Where a name is no UTF-8 the client returns a list with a hole in it, and an error that is set. An ordinary call that
# has become hot does not look at that, and the process ends when the hole is used; a call from C does look.
given_headers: Callable[[Message], Any] = methodcaller("headers")
"""What the client gives of a record's headers: a list, or None; where a name is no text it raises a `NO_HEADERS`."""
NO_HEADERS = (UnicodeDecodeError, SystemError)


def headers_of(message: Message) -> list[tuple[str, bytes]]:
    """Return a record's headers that have a value, as bytes.

    Where a name is no UTF-8 the client gives none of them: then one header says so, and the record is no call.
    """
    try:
        given = given_headers(message) or ()
    except NO_HEADERS as error:
        told = [(_LOST_HEADERS, f"a header's name is no UTF-8: {error.__cause__ or error}".encode())]
        message.set_headers(told)  # type: ignore[arg-type]  # what the client has made of them must not be looked at
        return told
    pairs = given.items() if isinstance(given, dict) else given
    return [
        (str(name), content.encode() if isinstance(content, str) else content)
        for name, content in pairs
        if content is not None
    ]


def parse_call(value: bytes | None, headers: Headers | None, origin: Origin, namespace: str = "") -> Call:
    """Return the call that a record stands for.

    Parameters
    ----------
    value : bytes or None
        The record's value: JSON of a `Request`.
    headers : sequence of (str, bytes) or None
        The record's headers.
    origin : Origin
        Where the record was read; a missing id is made from it.
    namespace : str
        Prefix of this system's topics.

    Raises
    ------
    MalformedCall
        If the value is no request or a header cannot be read. It carries the reply address, if one is given.
    """
    call = read_call(value, headers, origin, namespace)
    if isinstance(call, MalformedCall):
        raise call
    return call


def read_call(
    value: bytes | None, headers: Headers | None, origin: Origin, namespace: str = ""
) -> Call | MalformedCall:
    """Return the call that a record stands for, or why it stands for none; nothing in a record makes it raise."""
    given = dict(headers or ())
    try:
        return _joined(_request(value or b""), given, origin, namespace)
    except MemoryError:
        raise
    except Exception as error:  # noqa: BLE001  # whatever a decoder says of what somebody sent is the reason
        malformed = _malformed(error, value, given, origin)
        malformed.__cause__ = error
        return malformed


def _request(value: bytes) -> Request:
    if is_too_deep(value):
        raise ValueError(f"it is nested deeper than {MAX_DEPTH} levels")
    return decode_request(value)


def _joined(request: Request, given: dict[str, bytes], origin: Origin, namespace: str) -> Call:
    if _LOST_HEADERS in given:
        raise ValueError(given[_LOST_HEADERS].decode(errors="replace"))
    correlation_id = given.get(CORRELATION_ID)
    if correlation_id is not None and len(correlation_id) > MAX_CORRELATION_BYTES:
        raise ValueError(
            f"header {CORRELATION_ID} has {len(correlation_id)} bytes, the limit is {MAX_CORRELATION_BYTES} bytes"
        )
    call_id = given.get(CALL_ID)
    if call_id is not None:
        known_id = _short(CALL_ID, call_id, _MAX_ID_BYTES).decode()
    elif correlation_id is not None:
        known_id = _text(correlation_id)
    else:
        known_id = request.id or _made_id(origin)
    sent = given.get(SENT_MS)
    sent_ms = _time_ms(SENT_MS, sent) if sent is not None else _first_sent_ms(origin)
    deadline = given.get(DEADLINE_MS)
    deadline_ms = _whole(DEADLINE_MS, deadline, 0, MAX_TIME_MS) if deadline is not None else request.deadline_ms
    if deadline_ms is None and request.timeout_s is not None:
        deadline_ms = min(int(sent_ms + request.timeout_s * 1000), MAX_TIME_MS)
    routed = given.get(ROUTED_MS)
    attempted = given.get(ATTEMPT)
    avoid = given.get(AVOID)
    reply_topic = given.get(REPLY_TOPIC)
    return Call(
        id=known_id,
        function=request.function,
        args=request.args,
        kwargs=request.kwargs,
        address=Address(
            _topic(reply_topic.decode() if reply_topic is not None else request.reply_to, namespace),
            _partition(given.get(REPLY_PARTITION)),
            correlation_id,
        ),
        target=request.target,
        affinity_key=request.affinity_key,
        strategy=request.strategy,
        model=request.model,
        priority=request.priority,
        deadline_ms=deadline_ms,
        stream=request.stream,
        from_seq=request.from_seq,
        claims=request.claims,
        claim_result=request.claim_result,
        bytes_at=request.bytes_at,
        attempt=_whole(ATTEMPT, attempted, 1, _MAX_ATTEMPT) if attempted is not None else 1,
        avoid=_short(AVOID, avoid, _MAX_AVOID_BYTES * 4).decode() if avoid is not None else None,
        sent_ms=sent_ms,
        routed_ms=_time_ms(ROUTED_MS, routed) if routed is not None else None,
        traceparent=_trace(given),
    )


def _short(name: str, given: bytes, most: int) -> bytes:
    if len(given) > most:
        raise ValueError(f"header {name} has {len(given)} bytes, the limit is {most} bytes")
    return given


def _whole(name: str, given: bytes, least: int, most: int) -> int:
    number = int(_short(name, given, _MAX_DIGITS))
    if not least <= number <= most:
        raise ValueError(f"header {name} is {number}, not a number from {least} to {most}")
    return number


def _time_ms(name: str, given: bytes) -> float:
    time_ms = float(_short(name, given, _MAX_DIGITS))
    if not 0 <= time_ms <= MAX_TIME_MS:  # no NaN is
        raise ValueError(f"header {name} is {time_ms} ms, not a time from 0 to {MAX_TIME_MS} ms")
    return time_ms


def _trace(given: dict[str, bytes]) -> bytes | None:
    traceparent = given.get(TRACEPARENT)
    # The trace context's own rule: one that is none is not passed on.
    return traceparent if traceparent is None or len(traceparent) <= _MAX_TRACE_BYTES else None


def _topic(named: str | None, namespace: str) -> str:
    if named is None:
        return namespace + REPLIES
    if not is_topic_name(named):
        raise ValueError(
            f"no topic can be called {shortened(repr(named), 100)}: 1 to 249 letters, digits, dots, - and _"
        )
    return named


def _partition(given: bytes | None) -> int | None:
    if given is None:
        return None
    if len(given) != 4:
        raise ValueError(f"header {REPLY_PARTITION} has {len(given)} bytes, not the 4 of a big-endian integer")
    number = int.from_bytes(given, "big", signed=True)
    if number < 0:
        raise ValueError(f"header {REPLY_PARTITION} is {number}, not a partition from 0 to {MAX_PARTITION}")
    return number


def _malformed(error: Exception, value: bytes | None, given: dict[str, bytes], origin: Origin) -> MalformedCall:
    # Fields that do not matter here are not looked into: an argument that is no text costs nobody the reply.
    body = _Loose() if is_too_deep(value or b"") else attempt(_decode_loose, value)
    if isinstance(body, Unreadable):
        body = _Loose()
    correlation_id = given.get(CORRELATION_ID)
    named = given.get(REPLY_TOPIC)
    topic = named.decode(errors="replace") if named is not None else body.reply_to
    address = None
    if isinstance(topic, str) and is_topic_name(topic):
        number = given.get(REPLY_PARTITION, b"")
        partition = int.from_bytes(number, "big", signed=True) if len(number) == 4 else -1
        fits = correlation_id is None or len(correlation_id) <= _MAX_ECHO_BYTES
        address = Address(topic, partition if partition >= 0 else None, correlation_id if fits else None)
    is_named = isinstance(body.id, str) and 0 < len(body.id) <= MAX_ID
    call_id = body.id if is_named else _made_id(origin)
    return MalformedCall(
        f"not a request: {shortened(str(error), _MAX_REASON)}; a request is JSON like "
        '{"function": "name", "args": [], "kwargs": {}}',
        call_id=_text(correlation_id) if correlation_id is not None else call_id,
        function=shortened(body.function, 255) if isinstance(body.function, str) else None,
        address=address,
        traceparent=_trace(given),
    )


class _Loose(Struct):
    """What a record that is no request may say nevertheless."""

    id: Any = None  # Any: whatever somebody sent
    function: Any = None
    reply_to: Any = None


_decode_loose = msgspec.json.Decoder(_Loose).decode
