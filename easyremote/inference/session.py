"""What both clients are made of: one producer, one reply partition, and the calls that wait for their replies."""

from __future__ import annotations

import random
import threading
import time
from collections.abc import Callable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from queue import Empty, SimpleQueue
from typing import TYPE_CHECKING, Any

import msgspec
from msgspec import UNSET, UnsetType, structs

from easyremote.clock import wall_ms
from easyremote.errors import CallError, DeadlineExceeded, EasyRemoteError, PayloadTooLarge
from easyremote.inference.nodes import NodeWatch
from easyremote.inference.options import CallOptions, arguments_of
from easyremote.threads import LongThread
from easyremote.topics.catalog import CANCELLATIONS, REPLIES, REQUESTS, declarations, inference_topic
from easyremote.topics.claims import Arguments, ClaimDesk
from easyremote.topics.follower import Follower, each_of
from easyremote.topics.json_form import with_bytes
from easyremote.topics.limits import Unreadable, attempt
from easyremote.topics.producer import RecordProducer, delivery_error
from easyremote.topics.records import Blob, Cancellation, Reply, Request, decode_reply, encode
from easyremote.topics.wire import CORRELATION_ID, IN_FLIGHT, REPLY_PARTITION, REPLY_TOPIC, headers_of, uuid7

if TYPE_CHECKING:
    from confluent_kafka import KafkaError, Message

    from easyremote.settings import Settings

__all__ = ["CallOptions", "Session"]

Ended = Callable[[Reply | EasyRemoteError], None]
Came = Callable[[Reply], None]

_CAUGHT_UP_S = 10.0
_SWEEP_S = 0.1
_CARRIERS = 8
_LAST_WORD_S = 0.12
"""A reply may be on its way when the deadline passes: that there was no node, which is known only then."""


class _Waiting(msgspec.Struct):
    ended: Any  # Any: msgspec cannot look into a callable's type
    came: Any  # Any: as above
    deadline: float
    function: str
    timeout_s: float
    node_id: str | None
    sent_ms: float


class Session:
    """One producer, one reply partition, the calls that wait for their reply; used by several threads.

    Parameters
    ----------
    settings : Settings
        Where the broker is.
    direct : bool
        Choose the node here.

    Raises
    ------
    BrokerUnavailable
        If no broker answers.
    """

    def __init__(self, settings: Settings, *, direct: bool) -> None:
        self._settings = settings
        # Several threads use it, each operation as one: `setdefault`, `pop` and `copy` are atomic.
        self._waiting: dict[bytes, _Waiting] = {}
        self._closed = threading.Event()
        self._soon = threading.Event()
        self._desk = ClaimDesk(settings)
        # What is large goes aside, so that other calls, and a call's own timeout, need not wait for the store.
        self._carriers = ThreadPoolExecutor(_CARRIERS, "large arguments and results")
        count = next(topic.partitions for topic in declarations() if topic.name == REPLIES)
        # Clients that share a partition skip each other's replies by their ids.
        partition = random.randrange(count)  # noqa: S311  # spreads load, guards nothing
        self._reply_headers = [
            (REPLY_TOPIC, (settings.namespace + REPLIES).encode()),
            (REPLY_PARTITION, partition.to_bytes(4, "big")),
        ]
        self._replies = Follower(
            settings,
            settings.namespace + REPLIES,
            self._receive,
            start="end",
            partitions=[partition],
            awaited=lambda: bool(self._waiting),
        )
        self._nodes: NodeWatch | None = None
        if direct:
            self._nodes = NodeWatch(settings)
            self._nodes.wait_caught_up(_CAUGHT_UP_S)
        self._producer = RecordProducer(settings, tells="errors")
        self._sweeper = LongThread(self._sweep, "client deadlines", stopping=self._closed)
        self._sweeper.start()

    def submit(
        self,
        function: str,
        args: Sequence[Any],
        kwargs: dict[str, Any],
        options: CallOptions,
        ended: Ended,
        came: Came | None = None,
    ) -> str:
        """Send a call and return its id; `ended` gets its reply, or why there is none, once and on another thread.

        With `came` it asks for a stream, whose items go there before. It waits for the blob store if an argument is
        large, and no longer than the call's timeout.
        """
        ends_s = time.monotonic() + options.timeout_s
        arguments = self._ready(function, arguments_of(function, args, kwargs), options, ends_s)
        return self.send(function, arguments, options, ends_s, ended, came)

    def _ready(self, function: str, arguments: Arguments, options: CallOptions, ends_s: float) -> Arguments:
        if not self._desk.has_large(arguments):
            return arguments
        try:
            return self.check_in(function, arguments).result(ends_s - time.monotonic())
        except TimeoutError as error:
            raise self.not_stored(function, options) from error

    def has_large(self, arguments: Arguments) -> bool:
        """Say whether an argument has to go through `check_in`."""
        return self._desk.has_large(arguments)

    def check_in(self, function: str, arguments: Arguments) -> Future[Arguments]:
        """Have large arguments put into the blob store; what `send` takes will be the result."""
        return self._carriers.submit(self._desk.check_in, function, arguments)

    @staticmethod
    def not_stored(function: str, options: CallOptions) -> DeadlineExceeded:
        """Return the error of a call whose time is over before the blob store has its arguments."""
        return DeadlineExceeded(
            f"the blob store (EASYREMOTE_BLOBS) took no large argument of {function} within {options.timeout_s:g} s: "
            "the call was not sent"
        )

    def send(
        self,
        function: str,
        arguments: Arguments,
        options: CallOptions,
        ends_s: float,
        ended: Ended,
        came: Came | None = None,
    ) -> str:
        """Do as `submit` does with arguments that are ready; it waits for nothing.

        `ends_s` is the call's deadline by the monotonic clock.
        """
        call_id = self._send(function, arguments, options, ends_s, ended, came)
        self._replies.wake()
        return call_id

    def reply(self, function: str, args: Sequence[Any], kwargs: dict[str, Any], options: CallOptions) -> Reply:
        """Send a call and wait for its reply on this thread, which reads it itself if no other thread reads.

        Raises
        ------
        EasyRemoteError
            Why there is none.
        """
        # It wakes this thread sooner than a future, whose condition is a dozen steps of Python on both sides.
        ended: SimpleQueue[Reply | EasyRemoteError] = SimpleQueue()
        ends_s = time.monotonic() + options.timeout_s
        arguments = self._ready(function, arguments_of(function, args, kwargs), options, ends_s)
        call_id = self._send(function, arguments, options, ends_s, ended.put)
        ends_s += _LAST_WORD_S
        self._replies.read_until(lambda: not ended.empty(), ends_s)
        try:
            outcome = ended.get(timeout=max(0.0, ends_s - time.monotonic()))
        except Empty:
            self._end(call_id.encode(), _too_late(function, options.timeout_s))
            outcome = ended.get()  # whoever ended it first tells it at once
        if isinstance(outcome, EasyRemoteError):
            raise outcome
        return outcome

    def _send(
        self,
        function: str,
        arguments: Arguments,
        options: CallOptions,
        ends_s: float,
        ended: Ended,
        came: Came | None = None,
    ) -> str:
        call_id = options.id or uuid7(time.time_ns() // 1_000_000)
        correlation_id = call_id.encode()
        value = self._value(call_id, function, arguments, options, stream=came is not None)
        topic, partition, node_id = self._route(function, options)
        waiting = _Waiting(ended, came, ends_s + _LAST_WORD_S, function, options.timeout_s, node_id, wall_ms())
        if self._waiting.setdefault(correlation_id, waiting) is not waiting:
            raise CallError(f"a call of id {call_id} is already waiting in this client")
        if self._closed.is_set():
            self._forget(correlation_id)
            raise CallError("this client is closed: make a new one")

        def delivered(error: KafkaError | None, _message: Message) -> None:
            if error is not None:
                self._end(correlation_id, delivery_error(topic, error))

        try:
            self._producer.send(
                topic,
                value,
                headers=[(CORRELATION_ID, correlation_id), *self._reply_headers],
                partition=partition,
                on_delivery=delivered,
            )
        except EasyRemoteError:
            self._forget(correlation_id)
            raise
        if ends_s - time.monotonic() < _SWEEP_S:
            self._soon.set()
        return call_id

    def fetch(self, reply: Reply, blob: Blob, what: str) -> Any:  # Any: whatever the function returned
        """Return what a reply claims; `what` it is, is for the message. It waits for the blob store.

        Raises
        ------
        BlobStoreError
            If it is not to be had from the store.
        CallError
            If it is no JSON.
        """
        try:
            return _with_bytes(msgspec.json.decode(self._desk.get(blob, what)), reply)
        except (ValueError, RecursionError) as error:
            raise CallError(f"the {what} cannot be read: {error}") from error

    def cancel(self, call_id: str) -> None:
        """Withdraw a call, whoever sent it; its reply is `CallCancelled`, unless it has been answered."""
        self._producer.send(self._settings.namespace + CANCELLATIONS, encode(Cancellation(call_id)), key=call_id)

    def abandon(self, call_id: str) -> None:
        """Withdraw a call of this client, and wait for its reply no longer."""
        if self._forget(call_id.encode()):
            self.cancel(call_id)

    def _forget(
        self,
        correlation_id: bytes,
        outcome: Reply | EasyRemoteError | None = None,
        in_flight: bytes | None = None,
    ) -> _Waiting | None:
        waiting = self._waiting.pop(correlation_id, None)
        if waiting is not None and self._nodes is not None and waiting.node_id is not None:
            reply = outcome if isinstance(outcome, Reply) else None
            self._nodes.done(waiting.node_id, waiting.sent_ms, reply, in_flight)
        return waiting

    def close(self) -> None:
        """Stop; every call that still waits ends with an error."""
        self._closed.set()
        self._replies.close()
        if self._nodes is not None:
            self._nodes.close()
        self._producer.close()
        self._carriers.shutdown(cancel_futures=True)
        self._soon.set()
        self._sweeper.join()
        for correlation_id in list(self._waiting):
            self._end(correlation_id, CallError("the client was closed before the reply came"))

    def _value(self, call_id: str, function: str, arguments: Arguments, options: CallOptions, *, stream: bool) -> bytes:
        request = Request(
            function=function,
            args=arguments.args,
            kwargs=arguments.kwargs,
            id=call_id,
            target=options.target,
            affinity_key=options.affinity_key,
            strategy=options.strategy,
            model=options.model,
            priority=options.priority,
            timeout_s=options.timeout_s,
            stream=stream,
            from_seq=options.from_seq,
            claims=arguments.claims,
            claim_result=self._desk.is_used,
            bytes_at=True,
        )
        value = encode(request)
        if len(value) > self._settings.max_payload_bytes:
            raise PayloadTooLarge(
                f"the arguments of {function} have {len(value)} bytes, the limit is "
                f"{self._settings.max_payload_bytes} bytes (EASYREMOTE_MAX_PAYLOAD_BYTES)"
            )
        return value

    def _route(self, function: str, options: CallOptions) -> tuple[str, int | None, str | None]:
        prefix = self._settings.namespace
        if self._nodes is None:
            return prefix + REQUESTS, None, None
        choice = self._nodes.choose_for(function, options)
        if choice is None:
            # The router knows how to wait for a node, and how to say that there is no such function.
            return prefix + REQUESTS, None, None
        return prefix + inference_topic(choice.pool), choice.partition, choice.node_id

    def _receive(self, messages: Sequence[Message]) -> None:
        each_of(messages, self._receive_one)

    def _receive_one(self, message: Message) -> None:
        headers = dict(headers_of(message))
        correlation_id = headers.get(CORRELATION_ID)
        if correlation_id is None or correlation_id not in self._waiting:
            return  # another client's, or the second reply of a call that was done twice
        in_flight = headers.get(IN_FLIGHT)
        reply = attempt(_decode_reply, message.value())
        if isinstance(reply, Unreadable):
            self._end(correlation_id, CallError(f"the reply cannot be read: {reply.error}"), in_flight)
        elif reply.final is False:
            self._come(correlation_id, reply)
        elif isinstance(reply.result_claim, Blob):
            self._carriers.submit(self._end_large, correlation_id, reply, reply.result_claim, in_flight)
        else:
            self._end(correlation_id, reply, in_flight)

    def _come(self, correlation_id: bytes, item: Reply) -> None:
        waiting = self._waiting.get(correlation_id)
        if waiting is not None and waiting.came is not None:
            waiting.came(item)

    def _end_large(self, correlation_id: bytes, reply: Reply, blob: Blob, in_flight: bytes | None) -> None:
        outcome: Reply | EasyRemoteError
        try:
            result = self.fetch(reply, blob, f"result of {reply.function}")
            outcome = structs.replace(reply, result=result, result_claim=UNSET)
        except EasyRemoteError as error:
            outcome = error
        self._end(correlation_id, outcome, in_flight)

    def _end(self, correlation_id: bytes, outcome: Reply | EasyRemoteError, in_flight: bytes | None = None) -> None:
        waiting = self._forget(correlation_id, outcome, in_flight)
        if waiting is not None:
            waiting.ended(outcome)

    def _sweep(self) -> None:
        while not self._closed.is_set():
            now = time.monotonic()
            next_s = now + _SWEEP_S
            for correlation_id, one in self._waiting.copy().items():
                if one.deadline <= now:
                    self._end(correlation_id, _too_late(one.function, one.timeout_s))
                elif one.deadline < next_s:
                    next_s = one.deadline
            self._soon.wait(max(0.0, next_s - time.monotonic()))
            self._soon.clear()


def _too_late(function: str, timeout_s: float) -> DeadlineExceeded:
    return DeadlineExceeded(
        f"no reply to {function} within {timeout_s:g} s: is a worker running ('easyremote status'), and is the timeout "
        "long enough?"
    )


def _with_bytes(value: Any, reply: Reply) -> Any:  # Any: whatever the function returned
    return value if isinstance(reply.bytes_at, UnsetType) else with_bytes(value, reply.bytes_at)


def _decode_reply(value: bytes) -> Reply:
    reply = decode_reply(value)
    if reply.bytes_at and not reply.result_claim:
        return structs.replace(reply, result=_with_bytes(reply.result, reply))
    return reply
