"""What a batch source tells its receiver: records, partitions that come and go, time that passes."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Generic, TypeVar

from msgspec import Struct

from easyremote.topics.progress import Heard

__all__ = ["Assigned", "Batch", "Prepared", "Revoked", "SourceEvent", "Tick", "to_loop"]

T = TypeVar("T")


class Batch(Struct, Generic[T], frozen=True):
    """Records of one partition, decoded together; `next_offset` is what to commit when they are done."""

    topic: str
    partition: int
    first_offset: int
    next_offset: int
    content: T


@dataclass(frozen=True)
class Prepared:
    """What a receiver has made ready for partitions that it is about to be given."""

    starts: Mapping[tuple[str, int], int] = field(default_factory=dict)
    """Offset at which to begin, by topic and partition; where there is none: where the group stands."""
    state: Any = None  # Any: opaque to everyone but the receiver
    """Comes back with `Assigned`: a partition may be lost and given back before the receiver hears of either."""


@dataclass(frozen=True)
class Assigned:
    """These partitions are this worker's from here on; `state` is what was prepared for them."""

    partitions: tuple[int, ...]
    state: Any = None  # Any: as in `Prepared`


@dataclass(frozen=True)
class Revoked:
    """These partitions go to another worker as soon as `done` is set; if `lost`, they have already gone."""

    partitions: tuple[int, ...]
    lost: bool
    group: Any = None  # Any: as in `Tick`
    done: threading.Event = field(default_factory=threading.Event)


@dataclass(frozen=True)
class Tick:
    """Time has passed: commit what is pending; `group` ties a transaction to this member of the group."""

    group: Any  # Any: opaque to everyone but the client
    heard: Mapping[tuple[str, int], Heard] = field(default_factory=dict)
    """How long each topic's partition has been listened to, as of the events before this one."""


SourceEvent = Batch[T] | Assigned | Revoked | Tick


def to_loop(loop: asyncio.AbstractEventLoop, receive: Callable[[Any], None]) -> Callable[[SourceEvent[T]], None]:
    """Return a receiver that passes events to `receive` on an event loop, in their order."""

    def emit(event: SourceEvent[T]) -> None:
        loop.call_soon_threadsafe(receive, event)

    return emit
