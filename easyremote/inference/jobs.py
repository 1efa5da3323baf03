"""One call on its way through a node, and how it ended."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

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
    stop: Callable[[], Any] | None = None
    """Stops what runs, where it can be stopped."""
    stream: ItemStream | None = None
    """Where its items go, if it makes items and its caller wants them one by one."""
    bytes_at: list[list[str | int | None]] = field(default_factory=list)
    """Where bytes stand in the items that are collected, if its caller asks."""
    progress_s: float = 0.0
    """When its newest step on the event loop began, by the monotonic clock; infinite while it waits for the broker."""


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
