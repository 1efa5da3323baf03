"""Threads that live as long as what they belong to: one that fails is told of and goes on, and never ends silently."""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable, Iterable, Sequence
from typing import TypeVar

import structlog

from easyremote.clock import monotonic_s
from easyremote.errors import EasyRemoteError
from easyremote.tally import tally

__all__ = ["LongThread", "Restarts", "ThreadFailed", "on_give_up", "take_each"]

log = structlog.get_logger(__name__)

Item = TypeVar("Item")

_MOST_FAILURES = 10
_WITHIN_S = 60.0
_FIRST_PAUSE_S = 0.05
_LONGEST_PAUSE_S = 2.0
_COSTS_AN_ITEM = (Exception, SystemExit, GeneratorExit)
"""What code of a user's may raise; Ctrl+C is none of it, who waits for a reply may read on the main thread."""
_TOLD_WHOLE = 5
"""Items passed over of which each is told with its stack; later ones whenever their number has doubled."""


class ThreadFailed(EasyRemoteError):
    """A long-lived thread failed again and again; what it does is not done any more."""


class Restarts:
    """Says how long to pause before a thread goes on after a failure, and when that is of no use. Pure.

    Parameters
    ----------
    most : int
        Failures within `within_s` from which on it is given up.
    within_s : float
        How long a failure counts.

    Examples
    --------
    >>> restarts = Restarts(most=3, within_s=60.0)
    >>> [restarts.pause_s(at_s) for at_s in (0.0, 1.0, 62.0, 63.0, 64.0)]
    [0.05, 0.1, 0.05, 0.1, None]
    """

    def __init__(self, most: int = _MOST_FAILURES, within_s: float = _WITHIN_S) -> None:
        self._within_s = within_s
        self._failed_s: deque[float] = deque(maxlen=most)

    def pause_s(self, now_s: float) -> float | None:
        """Note a failure at `now_s`; return the pause, s, or None to give up."""
        self._failed_s.append(now_s)
        recent = sum(1 for one in self._failed_s if now_s - one < self._within_s)
        if recent >= (self._failed_s.maxlen or 1):
            return None
        return min(_LONGEST_PAUSE_S, _FIRST_PAUSE_S * 2.0 ** (recent - 1))


_listeners: list[Callable[[Exception], None]] = []


def on_give_up(told: Callable[[Exception], None]) -> Callable[[], None]:
    """Have `told` called with the reason when a thread of this process is given up; return what ends that."""
    _listeners.append(told)
    return lambda: _listeners.remove(told)


class LongThread(threading.Thread):
    """A daemon thread whose loop is begun again when it raises.

    A loop that returns has ended as it should. One that raises ten times in a minute is given up, and the worker ends
    with that for its reason.

    Parameters
    ----------
    loop : callable
        What it does.
    name : str
        Of the thread, for the log.
    stopping : threading.Event, optional
        Set when the loop is to end: then a failure is its end too.
    at_end : callable
        Called on the thread when it ends, however it does.
    gave_up : callable, optional
        Told why it was given up, instead of the worker.
    restarts : Restarts, optional
        How often it may fail.
    """

    def __init__(
        self,
        loop: Callable[[], None],
        name: str,
        *,
        stopping: threading.Event | None = None,
        at_end: Callable[[], None] = lambda: None,
        gave_up: Callable[[Exception], None] | None = None,
        restarts: Restarts | None = None,
    ) -> None:
        super().__init__(name=name, daemon=True)
        self._loop = loop
        self._stopping = threading.Event() if stopping is None else stopping
        self._at_end = at_end
        self._gave_up = gave_up
        self._restarts = restarts or Restarts()
        self.failures = 0
        """How often the loop has raised."""

    def run(self) -> None:
        """Run the loop until it returns, or is given up."""
        try:
            while True:
                try:
                    self._loop()
                except BaseException as error:  # noqa: BLE001  # a thread that a user's sys.exit() ends is as silent
                    if not self._goes_on(error):
                        return
                else:
                    return
        finally:
            self._at_end()

    def _goes_on(self, error: BaseException) -> bool:
        self.failures += 1
        if self._stopping.is_set():
            log.warning("a thread failed while it was to end", thread=self.name, error=repr(error))
            return False
        pause_s = self._restarts.pause_s(monotonic_s())
        goes_on = pause_s is not None
        log.error("a thread failed", thread=self.name, failures=self.failures, goes_on=goes_on, exc_info=error)
        if pause_s is not None:
            return not self._stopping.wait(pause_s)
        reason = ThreadFailed(f"the thread {self.name!r} fails again and again, at last with {error!r}")
        reason.__cause__ = error
        for told in [self._gave_up] if self._gave_up is not None else list(_listeners):
            told(reason)
        return False


def take_each(
    kind: str, receive: Callable[[Sequence[Item]], object], items: Sequence[Item], name: Callable[[Item], str]
) -> None:
    """Give items to a receiver together; if it raises, one by one, and those on which it raises are told and counted.

    A receiver may so be given an item twice.

    Parameters
    ----------
    kind : str
        Of the items, for the log and the tally.
    receive : callable
        Takes some of them.
    items : sequence
        What there is.
    name : callable
        Says which one it is that is passed over.
    """
    try:
        receive(items)
    except _COSTS_AN_ITEM:
        _one_by_one(kind, receive, items, name)


def _one_by_one(
    kind: str, receive: Callable[[Sequence[Item]], object], items: Iterable[Item], name: Callable[[Item], str]
) -> None:
    for item in items:
        try:
            receive([item])
        except _COSTS_AN_ITEM:
            count = tally.count(kind)
            if count <= _TOLD_WHOLE or count & (count - 1) == 0:
                log.exception("a record is passed over", of=kind, place=name(item), count=count)
