"""What a caller gets of a stream: its items, each once and in order, whoever makes them and however often."""

from __future__ import annotations

import asyncio
import queue
from abc import ABC, abstractmethod
from collections import deque
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from types import TracebackType
from typing import TYPE_CHECKING, Any, Self

from msgspec import UNSET, UnsetType

from easyremote.errors import CallError, EasyRemoteError, call_error

if TYPE_CHECKING:
    from easyremote.inference.session import Session
    from easyremote.topics.records import Blob, Reply

__all__ = ["AsyncItems", "Items", "error_of"]


def error_of(reply: Reply) -> EasyRemoteError | None:
    """Return the exception that a reply tells, if it tells one."""
    if isinstance(reply.error, UnsetType):
        return None
    told = reply.error
    traceback = None if isinstance(told.traceback, UnsetType) else told.traceback
    return call_error(told.type, told.message, retriable=told.retriable, traceback=traceback, node_id=reply.node_id)


class _End:
    """What stands behind the last item: why there is no more."""

    def __init__(self, error: EasyRemoteError | None) -> None:
        self.error = error


class _Large:
    """Stands for an item that is in the blob store until it is taken."""

    def __init__(self, record: Reply, seq: int, blob: Blob) -> None:
        self.record = record
        self.seq = seq
        self.blob = blob


class _Received(ABC):
    """Takes a stream's records as they come and passes on each item once, in order.

    A node that takes the call over from one that died makes the items from the first again: those that came before
    are left out.

    Parameters
    ----------
    session : Session
        Withdraws the call, fetches large items.
    function : str
        Its name, for messages.
    from_seq : int
        The first item asked for.
    """

    def __init__(self, session: Session, function: str, from_seq: int) -> None:
        self.id = ""
        """The call's."""
        self._count = from_seq
        self._missed: int | None = None
        self._session = session
        self._function = function
        self._over = False

    @property
    def next_seq(self) -> int:
        """How many items have come, counted from the stream's first: where a later call can take it up."""
        return self._count if self._missed is None else self._missed

    def come(self, record: Reply) -> None:
        """Take an item's record; on the session's thread."""
        seq, blob = self._count, record.result_claim
        if record.seq == seq:
            self._count = seq + 1
            self._pass_on(record.result if isinstance(blob, UnsetType) else _Large(record, seq, blob))

    def end(self, outcome: Reply | EasyRemoteError) -> None:
        """Take the final reply, or why there is none; on the session's thread."""
        if isinstance(outcome, EasyRemoteError):
            self._pass_on(_End(outcome))
            return
        error = error_of(outcome)
        if error is None and outcome.final is UNSET and self._count == 0:
            self._count = 1
            self._pass_on(outcome.result)  # of a function that makes no items: its result is the only one
        elif error is None and isinstance(outcome.seq, int) and outcome.seq > self._count:
            error = CallError(
                f"items {self._count} to {outcome.seq - 1} of {self._function} were sent to an earlier call of id "
                f"{self.id}, and only its end is kept: call again with another id and from_seq={self._count}"
            )
        self._pass_on(_End(error))

    def _fetch(self, large: _Large) -> Any:  # Any: whatever the function yields
        return self._session.fetch(large.record, large.blob, f"item {large.seq} of {self._function}")

    def _miss(self, large: _Large) -> None:
        # Not by the count, which goes on: items may come until the call is withdrawn.
        self._over = True
        self._missed = large.seq
        self._session.abandon(self.id)

    @abstractmethod
    def _pass_on(self, entry: Any) -> None:  # Any: an item, or the end
        """Let the caller have it."""


class Items(_Received, Iterator[Any]):
    """The items of a stream, each as soon as it comes; for one thread.

    Use it as a context manager: what is left before its end is withdrawn. Items that have come and were not taken
    stand in memory, large ones in the blob store.
    """

    def __init__(self, session: Session, function: str, from_seq: int) -> None:
        super().__init__(session, function, from_seq)
        self._came: queue.SimpleQueue[Any] = queue.SimpleQueue()

    def _pass_on(self, entry: Any) -> None:  # Any: an item, or the end
        self._came.put(entry)

    def __next__(self) -> Any:  # Any: whatever the function yields
        if self._over:
            raise StopIteration
        entry = self._came.get()
        if isinstance(entry, _Large):
            try:
                return self._fetch(entry)
            except EasyRemoteError:
                self._miss(entry)
                raise
        if not isinstance(entry, _End):
            return entry
        self._over = True
        if entry.error is not None:
            raise entry.error
        raise StopIteration

    def close(self) -> None:
        """Take no more; the call is withdrawn unless it has ended. A thread that waits for an item gets the end."""
        self._over = True
        self._session.abandon(self.id)
        self._pass_on(_End(None))

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


class AsyncItems(_Received, AsyncIterator[Any]):
    """The items of a stream, each as soon as it comes; for one task.

    The call is sent when the first item is asked for or the block is entered. Use it as an asynchronous context
    manager: what is left before its end is withdrawn. Items that have come and were not taken stand in memory, large
    ones in the blob store.
    """

    def __init__(
        self,
        session: Session,
        loop: asyncio.AbstractEventLoop,
        function: str,
        from_seq: int,
        send: Callable[[AsyncItems], Awaitable[str]],
    ) -> None:
        super().__init__(session, function, from_seq)
        self._send = send
        self._loop = loop
        self._came: deque[Any] = deque()
        self._news = asyncio.Event()

    def _pass_on(self, entry: Any) -> None:  # Any: an item, or the end
        self._came.append(entry)
        if len(self._came) == 1 and not self._loop.is_closed():
            self._loop.call_soon_threadsafe(self._news.set)

    async def _begin(self) -> None:
        if not self.id and not self._over:
            self.id = await self._send(self)

    async def __anext__(self) -> Any:  # Any: whatever the function yields
        await self._begin()
        while not self._over:
            self._news.clear()
            if not self._came:
                await self._news.wait()
                continue
            entry = self._came[0]
            if isinstance(entry, _Large):
                # Taken when it is here: whoever gives up waiting for it finds it again.
                try:
                    item = await asyncio.to_thread(self._fetch, entry)
                except EasyRemoteError:
                    self._miss(entry)
                    raise
                self._came.popleft()
                return item
            self._came.popleft()
            if not isinstance(entry, _End):
                return entry
            self._over = True
            if entry.error is not None:
                raise entry.error
        raise StopAsyncIteration

    async def aclose(self) -> None:
        """Take no more; the call is withdrawn unless it has ended. A task that waits for an item gets the end."""
        self._over = True
        self._session.abandon(self.id)
        self._news.set()

    async def __aenter__(self) -> Self:
        await self._begin()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.aclose()
