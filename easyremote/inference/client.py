"""The client: calls a function on whichever node is best, from synchronous or asynchronous code."""

from __future__ import annotations

import asyncio
import threading
from concurrent.futures import Future, InvalidStateError
from types import TracebackType
from typing import TYPE_CHECKING, Any, Self

from msgspec import UNSET

from easyremote.clock import monotonic_s
from easyremote.errors import CallError, EasyRemoteError
from easyremote.inference.items import AsyncItems, Items, error_of
from easyremote.inference.options import CallOptions, arguments_of, asked
from easyremote.inference.session import Session
from easyremote.settings import load_settings
from easyremote.topics.records import Reply

if TYPE_CHECKING:
    from easyremote.settings import Settings
    from easyremote.topics.claims import Arguments

__all__ = ["AsyncClient", "AsyncItems", "CallFuture", "CallOptions", "Client", "Items"]

_DEFAULT = CallOptions()


def _result(reply: Reply) -> Any:  # Any: whatever the function returned
    error = error_of(reply)
    if error is not None:
        raise error
    return None if reply.result is UNSET else reply.result


class CallFuture(Future[Any]):
    """What a call will have come to: `result()` is its result, or raises its error; `id` is the call's."""

    def __init__(self, session: Session) -> None:
        super().__init__()
        self.id = ""
        self._session = session
        self._reply: Reply | None = None

    def reply(self, timeout: float | None = None) -> Reply:
        """Wait for the whole reply, which tells a result or an error, and return it.

        Raises
        ------
        EasyRemoteError
            Why there is none.
        TimeoutError
            If it has not come within `timeout` s.
        """
        error = self.exception(timeout)
        if self._reply is not None:
            return self._reply
        assert error is not None
        raise error

    def cancel(self) -> bool:
        """Withdraw the call and wait for its reply no longer; say whether it had none yet."""
        if not super().cancel():
            return False
        self._session.abandon(self.id)
        return True

    def end(self, outcome: Reply | EasyRemoteError) -> None:
        """Take the reply, or why there is none."""
        try:
            if isinstance(outcome, EasyRemoteError):
                self.set_exception(outcome)
                return
            self._reply = outcome
            error = error_of(outcome)
            if error is None:
                self.set_result(None if outcome.result is UNSET else outcome.result)
            else:
                self.set_exception(error)
        except InvalidStateError:
            pass  # it was cancelled at this moment


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
        self._session = Session(settings or load_settings(), direct=direct)

    def call(
        self,
        function: str,
        /,
        *args: Any,
        options: CallOptions = _DEFAULT,
        timeout: float | None = None,
        **kwargs: Any,
    ) -> Any:
        """Call a function and return its result.

        Parameters
        ----------
        function : str
            Its name.
        *args, **kwargs
            Its arguments; anything with a form in JSON, and bytes, which travel as base64. One that has more than
            `EASYREMOTE_CLAIM_BYTES` as JSON goes by the blob store, which the node must share (`EASYREMOTE_BLOBS`).
        options : CallOptions
            Target, priority, timeout and so on.
        timeout : float, optional
            How long to wait, s; `options.timeout_s` if unset. It is always the client's: a function's own argument of
            this name, or of the name `options`, is given by its place or in `CallOptions(kwargs={...})`.

        Returns
        -------
        object
            What the function returned; its bytes are bytes.

        Raises
        ------
        DeadlineExceeded
            If no reply came in time; it is a `TimeoutError`.
        InvalidArguments
            If an argument has no form in JSON, as NaN has none, or the function does not take them.
        CallError
            What went wrong otherwise; `RemoteError` if the function itself raised.
        """
        options, kwargs = asked(options, timeout, kwargs)
        return _result(self._session.reply(function, args, kwargs, options))

    def submit(
        self,
        function: str,
        /,
        *args: Any,
        options: CallOptions = _DEFAULT,
        timeout: float | None = None,
        **kwargs: Any,
    ) -> CallFuture:
        """Send a call and return the future of its result, so that many can be in flight; arguments as of `call`.

        Its `result()` raises what `call` would; its `reply()` is the whole reply; its `cancel()` withdraws the call.
        """
        options, kwargs = asked(options, timeout, kwargs)
        future = CallFuture(self._session)
        future.id = self._session.submit(function, args, kwargs, options, future.end)
        return future

    def reply(
        self,
        function: str,
        /,
        *args: Any,
        options: CallOptions = _DEFAULT,
        timeout: float | None = None,
        **kwargs: Any,
    ) -> Reply:
        """Call a function and return the whole reply: who answered, which model, how long each part took."""
        options, kwargs = asked(options, timeout, kwargs)
        return self._session.reply(function, args, kwargs, options)

    def stream(
        self,
        function: str,
        /,
        *args: Any,
        options: CallOptions = _DEFAULT,
        timeout: float | None = None,
        **kwargs: Any,
    ) -> Items:
        """Call a generator function and return its items, as they are made.

        Any other function's result is the only item. The timeout is for the whole stream.

        Raises
        ------
        CallError
            While iterating, after the items that came: what went wrong.

        Examples
        --------
        ::

            with client.stream("count", 10) as items:
                for item in items:
                    print(item)
        """
        options, kwargs = asked(options, timeout, kwargs)
        items = Items(self._session, function, options.from_seq)
        items.id = self._session.submit(function, args, kwargs, options, items.end, items.come)
        return items

    def cancel(self, call_id: str) -> None:
        """Withdraw a call by its id, whoever sent it; its caller is told `CallCancelled`, unless it was answered.

        What has not begun is not run, a coroutine or a stream stops; a plain function or a model that runs goes on.
        """
        self._session.cancel(call_id)

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
        self._session: Session | None = None
        self._loop: asyncio.AbstractEventLoop | None = None
        self._ended: list[tuple[asyncio.Future[Any], Reply | EasyRemoteError]] = []
        self._woken = False
        self._lock = threading.Lock()

    async def __aenter__(self) -> Self:
        self._loop = asyncio.get_running_loop()
        self._session = await asyncio.to_thread(Session, self._settings, direct=self._direct)
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._session is not None:
            await asyncio.to_thread(self._session.close)

    async def call(
        self,
        function: str,
        /,
        *args: Any,
        options: CallOptions = _DEFAULT,
        timeout: float | None = None,  # noqa: ASYNC109
        **kwargs: Any,
    ) -> Any:
        """Call a function and return its result; as `Client.call`."""
        return _result(await self.reply(function, *args, options=options, timeout=timeout, **kwargs))

    async def reply(
        self,
        function: str,
        /,
        *args: Any,
        options: CallOptions = _DEFAULT,
        timeout: float | None = None,  # noqa: ASYNC109
        **kwargs: Any,
    ) -> Reply:
        """Call a function and return the whole reply; as `Client.reply`."""
        session, loop = self._opened()
        options, kwargs = asked(options, timeout, kwargs)
        ends_s = monotonic_s() + options.timeout_s
        future: asyncio.Future[Reply] = loop.create_future()
        arguments = await self._checked_in(session, function, arguments_of(function, args, kwargs), options)
        call_id = session.send(function, arguments, options, ends_s, lambda outcome: self._wake(future, outcome))
        try:
            return await future
        except asyncio.CancelledError:
            session.abandon(call_id)
            raise

    def stream(
        self,
        function: str,
        /,
        *args: Any,
        options: CallOptions = _DEFAULT,
        timeout: float | None = None,
        **kwargs: Any,
    ) -> AsyncItems:
        """Call a generator function and return its items, as they are made; as `Client.stream`, with `async`."""
        session, loop = self._opened()
        options, kwargs = asked(options, timeout, kwargs)

        async def send(items: AsyncItems) -> str:
            ends_s = monotonic_s() + options.timeout_s
            arguments = await self._checked_in(session, function, arguments_of(function, args, kwargs), options)
            return session.send(function, arguments, options, ends_s, items.end, items.come)

        return AsyncItems(session, loop, function, options.from_seq, send)

    def cancel(self, call_id: str) -> None:
        """Withdraw a call by its id; as `Client.cancel`. A task that awaits a call and is cancelled does so itself."""
        self._opened()[0].cancel(call_id)

    @staticmethod
    async def _checked_in(session: Session, function: str, arguments: Arguments, options: CallOptions) -> Arguments:
        if not session.has_large(arguments):
            return arguments
        checked_in = asyncio.wrap_future(session.check_in(function, arguments))
        try:
            return await asyncio.wait_for(checked_in, options.timeout_s)
        except TimeoutError as error:
            raise session.not_stored(function, options) from error

    def _opened(self) -> tuple[Session, asyncio.AbstractEventLoop]:
        if self._session is None or self._loop is None:
            raise CallError("use the client as 'async with AsyncClient() as client'")
        return self._session, self._loop

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
