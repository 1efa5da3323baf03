"""One call on its way through a node, and how it ended."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from easyremote.clock import wall_ms
from easyremote.topics.marks import answer_key, fingerprint_of

if TYPE_CHECKING:
    from easyremote.inference.streaming import ItemStream
    from easyremote.topics.wire import Call

__all__ = ["Job", "Outcome"]


@dataclass(slots=True, eq=False)
class Job:
    """One call on its way through a node."""

    call: Call
    partition: int
    generation: int
    offset: int
    arrived_ms: float
    started_ms: float = 0.0
    begun: bool = False
    """Whether it was asked for and counted as running: once, however often it is tried."""
    ended: bool = False
    """Whether its outcome is told; what comes after that is too late."""
    alone: bool = False
    """Whether it must not run together with others: together they hung, or one of them ended the process."""
    slot: int | None = None
    """Where it is noted as begun."""
    argument: Any = None  # Any: as the model's function takes it, where its queue had to look at it
    value: bytes = b""
    """The record's value, which travels on as it came if the call does."""
    in_doubt: bool = False
    """Whether it may have been done by who held its partition before."""
    buried: bool = False
    """Whether it is a dead letter already."""
    stop: Callable[[], Any] | None = None
    """Stops what runs, where it can be stopped."""
    stream: ItemStream | None = None
    """Where its items go, if it makes items and its caller wants them one by one."""
    bytes_at: list[list[str | int | None]] = field(default_factory=list)
    """Where bytes stand in the items that are collected, if its caller asks."""
    progress_s: float = 0.0
    """When its newest step on the event loop began, by the monotonic clock; infinite while it waits for the broker."""
    _key: bytes | None = None

    @property
    def key(self) -> bytes:
        """What two sendings of one call have in common, and no other call has: its id and its fingerprint."""
        if self._key is None:
            self._key = answer_key(self.call.id.encode(), fingerprint_of(self.call))
        return self._key

    @property
    def fingerprint(self) -> bytes:
        """What the call is, whatever its id."""
        return self.key.rpartition(b"\0")[2]

    @property
    def since_ms(self) -> float:
        """Before which nothing was done for this sending of the call, ms since the epoch, as far as clocks agree."""
        call = self.call
        return min(call.sent_ms, call.routed_ms or call.sent_ms, wall_ms())


@dataclass(frozen=True, slots=True)
class Outcome:
    """How a job ended: its encoded reply, and the error that the reply tells, if it tells one.

    A `retriable` one may be tried again instead of answered; a `poison`ous one is answered and becomes a dead letter.
    """

    reply: bytes
    error: BaseException | None = None
    retriable: bool = False
    poison: bool = False
    claimed: Callable[[], Outcome] | None = None
    """Puts a result that is too large for a record into the blob store and returns the outcome to tell instead of
    this one; it waits for the store."""
