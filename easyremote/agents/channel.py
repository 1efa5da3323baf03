"""The Faust channel between a batch source and an agent, which no rebalance of Faust's own consumer clears."""

from __future__ import annotations

from typing import Any

import faust
from faust.channels import Channel
from mode.utils.queues import FlowControlEvent, ThrowableQueue

from easyremote.errors import EasyRemoteError

__all__ = ["SourceChannel"]


class SourceChannel(Channel[Any]):
    """A channel whose queue is under nobody's flow control but the source's.

    Faust suspends its channels' queues until its own consumer has partitions, empties them at each rebalance of that
    consumer, and skips an `Event` sent before it. What a source has put here is not Faust's to drop, so `hand_over`
    puts the bare value, which a stream yields as it is: the source bounds what is pending and reads it again itself.

    Parameters
    ----------
    app : faust.App
        The app whose agents read it.
    maxsize : int
        Most events in it; more than the source ever lets pend, so that a send never waits.
    """

    def __init__(self, app: faust.App, *, maxsize: int = 64, **kwargs: Any) -> None:  # Any: Faust clones with its own
        super().__init__(app, maxsize=maxsize, **kwargs)

    def hand_over(self, value: Any) -> None:
        """Put a value before the agents that read this channel; call it on the event loop.

        Raises
        ------
        EasyRemoteError
            If no agent reads the channel: the value would be lost.
        """
        subscribers = list((self._root or self)._subscribers)  # noqa: SLF001  # Faust has no other way to reach them
        if not subscribers:
            raise EasyRemoteError("no agent reads this channel: it stopped before its source")
        for subscriber in subscribers:
            subscriber.queue.put_nowait(value)

    @property
    def queue(self) -> ThrowableQueue[Any]:
        """The queue of this subscriber, made when it is first asked for."""
        if self._queue is None:
            self._queue = ThrowableQueue(
                maxsize=self.maxsize or 0, flow_control=FlowControlEvent(initially_suspended=False)
            )
        return self._queue
