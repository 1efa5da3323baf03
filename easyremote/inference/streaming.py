"""Runs generators on a node: each item goes to the caller as it is made, as fast as the broker takes them."""

from __future__ import annotations

import asyncio
import math
import threading
from abc import ABC, abstractmethod
from collections.abc import AsyncGenerator, Callable, Generator
from contextlib import aclosing, closing
from typing import TYPE_CHECKING, Any

from msgspec import UNSET, Raw, UnsetType

from easyremote.clock import monotonic_s, wall_ms
from easyremote.errors import DeadlineExceeded, EasyRemoteError, PayloadTooLarge
from easyremote.inference.replies import as_json
from easyremote.topics.json_form import bytes_places

if TYPE_CHECKING:
    from easyremote.inference.functions import Function
    from easyremote.inference.jobs import Job
    from easyremote.inference.lanes import Hand
    from easyremote.inference.replies import ReplyMaker

__all__ = ["Collected", "ItemSink", "ItemStream", "SendItem", "Window", "drain", "drain_async"]

Acknowledged = Callable[[EasyRemoteError | None], None]
SendItem = Callable[["Job", bytes, Acknowledged], bool]
"""`(job, record, acknowledged) -> bool`: sends an item; False if the call is not this node's any more."""

_UNACKNOWLEDGED = 64
"""Items of one stream on their way to the broker: enough for it to be busy, and an endless generator fills no queue."""
_LOOK_S = 0.1
"""Between two looks of a thread that waits for the broker, whether its call was withdrawn."""


class Window:
    """Bounds what is sent and not acknowledged; who finds it full is woken when half of it is free, or all.

    Examples
    --------
    >>> window = Window(2)
    >>> window.add(); window.add(); window.when_free(lambda: print("free"))
    >>> window.remove()
    free
    """

    def __init__(self, size: int = _UNACKNOWLEDGED) -> None:
        self._size = size
        self._open = 0
        self._wake: Callable[[], None] | None = None
        self._wake_at = 0
        self._lock = threading.Lock()

    @property
    def is_full(self) -> bool:
        """Whether nothing more should be sent now."""
        return self._open >= self._size

    @property
    def is_empty(self) -> bool:
        """Whether all that was sent is acknowledged."""
        return not self._open

    def add(self) -> None:
        """Count one that is sent."""
        with self._lock:
            self._open += 1

    def remove(self) -> None:
        """Count one that is acknowledged."""
        with self._lock:
            self._open -= 1
            if self._wake is None or self._open > self._wake_at:
                return
            wake, self._wake = self._wake, None
        wake()

    def when_free(self, wake: Callable[[], None]) -> None:
        """Call `wake` as soon as more may be sent, on whichever thread learns so."""
        self._when(wake, self._size - 1, self._size // 2)

    def when_empty(self, wake: Callable[[], None]) -> None:
        """Call `wake` as soon as all is acknowledged, on whichever thread learns so."""
        self._when(wake, 0, 0)

    def _when(self, wake: Callable[[], None], most: int, wake_at: int) -> None:
        with self._lock:
            if self._open > most:
                self._wake, self._wake_at = wake, wake_at
                return
        wake()


class ItemSink(ABC):
    """Takes the items of one call's generator, and has its `result` at the end."""

    def __init__(self, job: Job, function: Function, replies: ReplyMaker) -> None:
        self.job = job
        self.window = Window()
        self.count = 0
        self.refused: EasyRemoteError | None = None
        """Why an item has not come to its caller."""
        self._function = function
        self._replies = replies

    @abstractmethod
    def take(self, item: Any) -> bool:  # Any: whatever the generator yields
        """Take an item; say False if nobody wants more. It may wait for the blob store.

        Raises
        ------
        EasyRemoteError
            If the call fails by this item: too late, too large, without a form in JSON, not taken by the store.
        """

    async def take_on_loop(self, item: Any) -> bool:  # Any: whatever the generator yields
        """Do as `take` does; the event loop does not wait for the blob store."""
        return self.take(item)

    @property
    @abstractmethod
    def result(self) -> list[Raw] | UnsetType:
        """What the final reply has as its result."""

    def _refuse_late(self) -> None:
        call = self.job.call
        now_ms = wall_ms()
        if call.is_late(now_ms):
            late_ms = now_ms - (call.deadline_ms or 0)
            raise DeadlineExceeded(
                f"the deadline passed {late_ms:.0f} ms before {call.function} made item {self.count}"
            )


class ItemStream(ItemSink):
    """Sends each item by itself, and none after the call's final reply.

    Parameters
    ----------
    job, function, replies
        The call, what it runs, who makes its records.
    send : SendItem
        Sends the records.
    """

    def __init__(self, job: Job, function: Function, replies: ReplyMaker, send: SendItem) -> None:
        super().__init__(job, function, replies)
        self._send = send
        self._sending = threading.Lock()

    def take(self, item: Any) -> bool:  # Any: whatever the generator yields
        """Send an item, unless its number is below what the caller asked for."""
        record = self._record(item)
        return self._pass_on(record() if callable(record) else record)

    async def take_on_loop(self, item: Any) -> bool:  # Any: whatever the generator yields
        """Do as `take` does; a large item is put into the blob store by a thread."""
        record = self._record(item)
        return self._pass_on(await asyncio.to_thread(record) if callable(record) else record)

    def _record(self, item: Any) -> bytes | Callable[[], bytes] | None:  # Any: whatever the generator yields
        self._refuse_late()
        if self.refused is not None:
            raise self.refused
        if self.count < self.job.call.from_seq:
            return None
        return self._replies.item(self.job, self._function, self.count, item)

    def _pass_on(self, record: bytes | None) -> bool:
        if record is None:
            self.count += 1
            return not self.job.ended
        with self._sending:
            if self.job.ended:
                return False
            self.window.add()
            if not self._send(self.job, record, self._acknowledged):
                return False
            self.count += 1
        return True

    @property
    def result(self) -> UnsetType:
        """Nothing: the items have been sent."""
        return UNSET

    def settle(self) -> None:
        """Wait until an item that is being sent just now is sent; after the job's end none follows."""
        with self._sending:
            pass

    def _acknowledged(self, error: EasyRemoteError | None) -> None:
        self.refused = error or self.refused
        self.window.remove()


class Collected(ItemSink):
    """Keeps the items, for a caller who wants them all at once.

    Parameters
    ----------
    job, function, replies
        The call, what it runs, who encodes.
    """

    def __init__(self, job: Job, function: Function, replies: ReplyMaker) -> None:
        super().__init__(job, function, replies)
        self._max_bytes = replies.most_bytes(job.call)
        self._bytes = 0
        self._encoded: list[Raw] = []
        job.bytes_at = []

    def take(self, item: Any) -> bool:  # Any: whatever the generator yields
        """Keep an item, encoded, so that a generator without an end is stopped before it fills the memory."""
        self._refuse_late()
        encoded = as_json(item, f"result[{self.count}]")
        if self.job.call.bytes_at:
            self.job.bytes_at += [[self.count, *place] for place in bytes_places(item)]
        self.count += 1
        self._bytes += len(encoded) + 1
        if self._bytes > self._max_bytes:
            raise PayloadTooLarge(
                f"{self.count} items of {self._function.name} have {self._bytes} bytes, the limit is "
                f"{self._max_bytes} bytes: ask for a stream"
            )
        self._encoded.append(Raw(encoded))
        return not self.job.ended

    @property
    def result(self) -> list[Raw]:
        """The items."""
        return self._encoded


def drain(generator: Generator[Any, Any, Any], items: ItemSink, hand: Hand) -> bool:
    """Run a generator on this thread; close it, and say whether it came to its end and all its items are sent.

    Raises
    ------
    EasyRemoteError
        If one could not be: the end would be told to a caller who has not all that was before it.
    """
    with closing(generator):
        for item in generator:
            hand.steps += 1
            if not items.take(item):
                return False
            if items.window.is_full and not _await(items, hand, items.window.when_free):
                return False
    return (items.window.is_empty or _await(items, hand, items.window.when_empty)) and _all_sent(items)


def _await(items: ItemSink, hand: Hand, when: Callable[[Callable[[], None]], None]) -> bool:
    woken = threading.Event()
    when(woken.set)
    while not woken.wait(_LOOK_S):
        hand.steps += 1  # it is the broker that takes its time, not the function
        if items.job.ended:
            return False
    return True


def _all_sent(items: ItemSink) -> bool:
    if items.refused is not None:
        raise items.refused
    return True


async def drain_async(generator: AsyncGenerator[Any, Any], items: ItemSink) -> bool:
    """Do as `drain` does, with an async generator on this loop."""
    async with aclosing(generator):
        async for item in generator:
            if not await items.take_on_loop(item):
                return False
            if items.window.is_full:
                await _await_on_loop(items, items.window.when_free)
            items.job.progress_s = monotonic_s()
    if not items.window.is_empty:
        await _await_on_loop(items, items.window.when_empty)
    return _all_sent(items)


async def _await_on_loop(items: ItemSink, when: Callable[[Callable[[], None]], None]) -> None:
    items.job.progress_s = math.inf  # as above
    loop = asyncio.get_running_loop()
    woken: asyncio.Future[None] = loop.create_future()

    def wake() -> None:
        if not loop.is_closed():
            loop.call_soon_threadsafe(_resolve, woken)

    when(wake)
    await woken


def _resolve(future: asyncio.Future[None]) -> None:
    if not future.done():
        future.set_result(None)
