"""The event loop of users' coroutines, on a thread of its own: one that blocks it blocks nothing of the worker."""

from __future__ import annotations

import asyncio
from contextlib import suppress
from typing import Any

from easyremote.threads import LongThread

__all__ = ["CoroutineLoop"]


class CoroutineLoop:
    """An event loop that says for how long it has not answered."""

    def __init__(self) -> None:
        self.loop = asyncio.new_event_loop()
        self._thread = LongThread(self.loop.run_forever, "coroutines")
        self._thread.start()
        self._asked_s: float | None = None

    def stuck_s(self, now_s: float) -> float:
        """Return for how long the loop has not come to what it was asked first, and ask it if it has, s."""
        asked_s = self._asked_s  # the loop takes it back at any moment
        if asked_s is None:
            asked_s = self._asked_s = now_s
            self.loop.call_soon_threadsafe(self._answer)
        return now_s - asked_s

    @property
    def running(self) -> asyncio.Task[Any] | None:
        """The task that the loop is at."""
        return asyncio.current_task(self.loop)

    @property
    def is_stuck(self) -> bool:
        """Whether it has not answered since it was asked last."""
        return self._asked_s is not None

    def close(self, timeout_s: float) -> bool:
        """Cancel what runs and end the thread; say whether it ended in time."""
        asyncio.run_coroutine_threadsafe(self._end(), self.loop)
        self._thread.join(timeout_s)
        if self._thread.is_alive():
            return False
        self.loop.close()
        return True

    def _answer(self) -> None:
        self._asked_s = None

    async def _end(self) -> None:
        others = asyncio.all_tasks() - {asyncio.current_task()}
        for task in others:
            task.cancel()
        with suppress(TimeoutError):
            await asyncio.wait_for(asyncio.gather(*others, return_exceptions=True), 1.0)
        self.loop.stop()
