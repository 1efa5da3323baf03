"""What a service waits on between its turns, and any thread wakes it by."""

from __future__ import annotations

import asyncio

__all__ = ["Wake"]


class Wake:
    """An event of one event loop that any thread may set, also before the loop is known."""

    def __init__(self) -> None:
        self._event = asyncio.Event()
        self._loop: asyncio.AbstractEventLoop | None = None

    def attach(self) -> None:
        """Take the loop that runs here; from now on waking it counts."""
        # Not the service's own `loop`: asked from a thread before the start, mode gives the service a loop of that
        # thread's, and then its task never runs. A service takes its first turn at the start anyway.
        self._loop = asyncio.get_running_loop()

    def set(self) -> None:
        """Wake whoever waits, or the next who does; callable from any thread."""
        if self._loop is not None and not self._loop.is_closed():
            self._loop.call_soon_threadsafe(self._event.set)

    async def wait(self, timeout_s: float) -> bool:
        """Wait until it is set or `timeout_s` have passed; say whether it was set, and unset it."""
        try:
            await asyncio.wait_for(self._event.wait(), timeout_s)
        except TimeoutError:
            return False
        self._event.clear()
        return True
