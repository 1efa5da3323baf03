"""The client: calls a function on whichever node is best, from synchronous or asynchronous code."""

from __future__ import annotations

import asyncio
import random
import threading
import time
from collections.abc import Callable, Sequence
from concurrent.futures import Future
from dataclasses import dataclass
from types import TracebackType
from typing import TYPE_CHECKING, Any, Literal, Self

import msgspec
import structlog
from msgspec import UNSET, Raw

from easyremote.clock import wall_ms
from easyremote.errors import (
    CallError,
    DeadlineExceeded,
    EasyRemoteError,
    PayloadTooLarge,
    call_error,
)
from easyremote.inference.nodes import NodeWatch
from easyremote.settings import Strategy, load_settings
from easyremote.topics.catalog import REPLIES, REQUESTS, declarations, inference_topic
from easyremote.topics.follower import Follower
from easyremote.topics.producer import RecordProducer, delivery_error
from easyremote.topics.records import Reply, Request, decode_reply, encode
from easyremote.topics.replying import encode_reply
from easyremote.topics.wire import CORRELATION_ID, IN_FLIGHT, REPLY_PARTITION, REPLY_TOPIC, headers_of, uuid7

if TYPE_CHECKING:
    from confluent_kafka import KafkaError, Message

    from easyremote.settings import Settings

__all__ = ["AsyncClient", "CallOptions", "Client"]

log = structlog.get_logger(__name__)

Ended = Callable[[Reply | EasyRemoteError], None]

_CAUGHT_UP_S = 10.0
_SWEEP_S = 0.1
_LAST_WORD_S = 1.5
"""A call without a node waits in a delay topic and is told so up to its delay after the deadline."""


@dataclass(frozen=True, kw_only=True)
class CallOptions:
    """What a call may ask for besides its arguments; see the contract's request.

    Parameters
    ----------
    timeout_s : float
        The call's deadline, after which no node begins it, s. Its reply is waited for 1.5 s longer, for the word on
        why it was not done.
    """

    timeout_s: float = 30.0
    id: str | None = None
    target: str | None = None
    affinity_key: str | None = None
    strategy: Strategy | None = None
    model: str | None = None
    priority: Literal["high", "normal", "low"] = "normal"


_DEFAULT = CallOptions()


class _Waiting(msgspec.Struct):
    ended: Any  # Any: msgspec cannot look into a callable's type
    deadline: float
    function: str
    node_id: str | None
    sent_ms: float


class _Session:
    """What both clients are made of: one producer, one reply partition, the calls that wait for their reply."""

    def __init__(self, settings: Settings, *, direct: bool) -> None:
        self._settings = settings
        # Several threads use it, each operation as one: `setdefault`, `pop` and `copy` are atomic.
        self._waiting: dict[bytes, _Waiting] = {}
        self._closed = threading.Event()
        count = next(topic.partitions for topic in declarations() if topic.name == REPLIES)
        # Clients that share a partition skip each other's replies by their ids.
        partition = random.randrange(count)  # noqa: S311  # spreads load, guards nothing
        self._reply_headers = [
            (REPLY_TOPIC, (settings.namespace + REPLIES).encode()),
            (REPLY_PARTITION, partition.to_bytes(4, "big")),
        ]
        self._replies = Follower(
            settings, settings.namespace + REPLIES, self._receive, start="end", partitions=[partition]
        )
        self._nodes: NodeWatch | None = None
        if direct:
            self._nodes = NodeWatch(settings)
            self._nodes.wait_caught_up(_CAUGHT_UP_S)
        self._producer = RecordProducer(settings, tells="errors")
        self._sweeper = threading.Thread(target=self._sweep, name="client deadlines", daemon=True)
        self._sweeper.start()

    def submit(
        self, function: str, args: Sequence[Any], kwargs: dict[str, Any], options: CallOptions, ended: Ended
    ) -> None:
        """Send a call; `ended` gets its reply, or why there is none, once and on another thread."""
        call_id = options.id or uuid7(time.time_ns() // 1_000_000)
        correlation_id = call_id.encode()
        value = self._encode(call_id, function, args, kwargs, options)
        topic, partition, node_id = self._route(function, options)
        deadline = time.monotonic() + options.timeout_s + _LAST_WORD_S
        waiting = _Waiting(ended, deadline, function, node_id, wall_ms())
        if self._waiting.setdefault(correlation_id, waiting) is not waiting:
            raise CallError(f"a call of id {call_id} is already waiting in this client")

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
            self.forget(correlation_id)
            raise

    def forget(self, call_id: bytes) -> None:
        """Wait no longer for a call."""
        self._waiting.pop(call_id, None)

    def close(self) -> None:
        """Stop; every call that still waits ends with an error."""
        self._closed.set()
        self._replies.close()
        if self._nodes is not None:
            self._nodes.close()
        self._producer.close()
        self._sweeper.join()
        for correlation_id in list(self._waiting):
            self._end(correlation_id, CallError("the client was closed before the reply came"))

    def _encode(
        self, call_id: str, function: str, args: Sequence[Any], kwargs: dict[str, Any], options: CallOptions
    ) -> bytes:
        try:
            request = Request(
                function=function,
                args=[Raw(encode_reply(one)) for one in args],
                kwargs={name: Raw(encode_reply(one)) for name, one in kwargs.items()},
                id=call_id,
                target=options.target,
                affinity_key=options.affinity_key,
                strategy=options.strategy,
                model=options.model,
                priority=options.priority,
                timeout_s=options.timeout_s,
            )
        except (TypeError, msgspec.MsgspecError) as error:
            raise CallError(f"an argument of {function} has no form in JSON: {error}") from error
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
        for message in messages:
            headers = dict(headers_of(message))
            correlation_id = headers.get(CORRELATION_ID)
            if correlation_id is None or correlation_id not in self._waiting:
                continue  # another client's, or the second reply of a call that was done twice
            try:
                reply: Reply | EasyRemoteError = decode_reply(message.value() or b"")
            except msgspec.MsgspecError as error:
                reply = CallError(f"the reply cannot be read: {error}")
            self._end(correlation_id, reply, headers.get(IN_FLIGHT))

    def _end(self, correlation_id: bytes, outcome: Reply | EasyRemoteError, in_flight: bytes | None = None) -> None:
        waiting = self._waiting.pop(correlation_id, None)
        if waiting is None:
            return
        if self._nodes is not None and waiting.node_id is not None:
            reply = outcome if isinstance(outcome, Reply) else None
            self._nodes.done(waiting.node_id, waiting.sent_ms, reply, in_flight)
        waiting.ended(outcome)

    def _sweep(self) -> None:
        while not self._closed.wait(_SWEEP_S):
            now = time.monotonic()
            late = [(key, one) for key, one in self._waiting.copy().items() if one.deadline <= now]
            for correlation_id, one in late:
                self._end(
                    correlation_id,
                    DeadlineExceeded(
                        f"no reply to {one.function} in time: is a worker running ('easyremote status'), and is "
                        "the timeout long enough?"
                    ),
                )


def _result(reply: Reply) -> Any:  # Any: whatever the function returned
    if reply.error is not UNSET and not isinstance(reply.error, msgspec.UnsetType):
        raise call_error(reply.error.type, reply.error.message, retriable=reply.error.retriable)
    return None if reply.result is UNSET else reply.result


class Client:
    """Calls functions from synchronous code; safe to use from several threads.

    Parameters
    ----------
    settings : Settings, optional
        Where the broker is; the environment's if unset.
    direct : bool
        Choose the node here, which saves a hop, instead of sending through `requests`.

    Raises
    ------
    BrokerUnavailable
        If no broker answers.
    """

    def __init__(self, settings: Settings | None = None, *, direct: bool = False) -> None:
        self._session = _Session(settings or load_settings(), direct=direct)

    def call(self, function: str, /, *args: Any, options: CallOptions = _DEFAULT, **kwargs: Any) -> Any:
        """Call a function and return its result.

        Parameters
        ----------
        function : str
            Its name.
        *args, **kwargs
            Its arguments; anything with a form in JSON, and bytes, which travel as base64.
        options : CallOptions
            Timeout, target, priority and so on.

        Raises
        ------
        DeadlineExceeded
            If no reply came within `options.timeout_s`.
        CallError
            What went wrong otherwise; `RemoteError` if the function itself raised.
        """
        return _result(self.submit(function, *args, options=options, **kwargs).result())

    def submit(self, function: str, /, *args: Any, options: CallOptions = _DEFAULT, **kwargs: Any) -> Future[Reply]:
        """Send a call and return the future of its reply, so that many can be in flight.

        The future raises an `EasyRemoteError` if there is no reply; a reply that tells an error is a reply.
        """
        future: Future[Reply] = Future()

        def ended(outcome: Reply | EasyRemoteError) -> None:
            if isinstance(outcome, EasyRemoteError):
                future.set_exception(outcome)
            else:
                future.set_result(outcome)

        self._session.submit(function, args, kwargs, options, ended)
        return future

    def reply(self, function: str, /, *args: Any, options: CallOptions = _DEFAULT, **kwargs: Any) -> Reply:
        """Call a function and return the whole reply: who answered, which model, how long each part took."""
        return self.submit(function, *args, options=options, **kwargs).result()

    def close(self) -> None:
        """Stop; calls that still wait end with an error."""
        self._session.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


class AsyncClient:
    """Calls functions from asynchronous code, thousands at once; used as `async with AsyncClient() as client`.

    Parameters
    ----------
    settings : Settings, optional
        Where the broker is; the environment's if unset.
    direct : bool
        Choose the node here, which saves a hop, instead of sending through `requests`.
    """

    def __init__(self, settings: Settings | None = None, *, direct: bool = False) -> None:
        self._settings = settings or load_settings()
        self._direct = direct
        self._session: _Session | None = None
        self._loop: asyncio.AbstractEventLoop | None = None
        self._ended: list[tuple[asyncio.Future[Any], Reply | EasyRemoteError]] = []
        self._woken = False
        self._lock = threading.Lock()

    async def __aenter__(self) -> Self:
        self._loop = asyncio.get_running_loop()
        self._session = await asyncio.to_thread(_Session, self._settings, direct=self._direct)
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._session is not None:
            await asyncio.to_thread(self._session.close)

    async def call(self, function: str, /, *args: Any, options: CallOptions = _DEFAULT, **kwargs: Any) -> Any:
        """Call a function and return its result; as `Client.call`."""
        return _result(await self.reply(function, *args, options=options, **kwargs))

    async def reply(self, function: str, /, *args: Any, options: CallOptions = _DEFAULT, **kwargs: Any) -> Reply:
        """Call a function and return the whole reply; as `Client.reply`."""
        if self._session is None or self._loop is None:
            raise CallError("use the client as 'async with AsyncClient() as client'")
        future: asyncio.Future[Reply] = self._loop.create_future()
        self._session.submit(function, args, kwargs, options, lambda outcome: self._wake(future, outcome))
        return await future

    def _wake(self, future: asyncio.Future[Reply], outcome: Reply | EasyRemoteError) -> None:
        # One wake-up of the loop for all replies that came together.
        with self._lock:
            self._ended.append((future, outcome))
            first = not self._woken
            self._woken = True
        if first and self._loop is not None and not self._loop.is_closed():
            self._loop.call_soon_threadsafe(self._resolve)

    def _resolve(self) -> None:
        with self._lock:
            ended, self._ended = self._ended, []
            self._woken = False
        for future, outcome in ended:
            if future.done():
                continue
            if isinstance(outcome, EasyRemoteError):
                future.set_exception(outcome)
            else:
                future.set_result(outcome)
