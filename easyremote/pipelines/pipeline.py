"""A pipeline as it was asked for: where it reads, how it groups, what it says and where to."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from easyremote.windows import EventTime
from easyremote.windows.aggregates import Aggregate
from easyremote.windows.assigners import Assigner
from easyremote.windows.windowed import Emission, Windowed

__all__ = ["Pipeline", "Record", "Step"]

Record = dict[str, Any]
"""A record's JSON object. Any: whatever JSON holds."""
Step = Callable[[Record], Record | None]
"""What is done with each record before it is grouped; None drops it."""


@dataclass(frozen=True, kw_only=True)
class Pipeline:
    """From one topic, by a key, through windows, to another topic.

    Parameters
    ----------
    name : str
        Of its group and its changelog: another name is another state, which begins anew.
    source, sink : str
        Topics, without the namespace.
    timestamp : str
        The field that holds the event time, ms since the Unix epoch, UTC.
    types : mapping of str to type
        Fields that are checked, and dead-lettered when they are of another type.
    steps : tuple of callable
        What is done with each record first, in order.
    key : tuple of str
        Fields that records are grouped by.
    windows : Tumbling, Hopping, Sliding, Session or CountWindow
        How a key's records are put together.
    aggregates : mapping of str to Aggregate
        By the name of their result.
    event_time : EventTime
        Lateness, idle time, watermark.
    emission : {"close", "update", "both"}
        When results are told.
    """

    name: str
    source: str
    sink: str
    timestamp: str
    types: Mapping[str, type]
    steps: tuple[Step, ...]
    key: tuple[str, ...]
    windows: Assigner
    aggregates: Mapping[str, Aggregate]
    event_time: EventTime
    emission: Emission

    @property
    def changelog(self) -> str:
        """The topic of its state."""
        return f"pipelines.{self.name}.changelog"

    @property
    def late(self) -> str:
        """The topic of what no window takes any more."""
        return f"{self.source}.late"

    @property
    def dead_letters(self) -> str:
        """The topic of what cannot be read."""
        return f"{self.source}.dlq"

    @property
    def columns(self) -> tuple[str, ...]:
        """The fields that are aggregated."""
        states = [aggregate.state for aggregate in self.aggregates.values()]
        return tuple(dict.fromkeys(name for state in states if (name := state.column) is not None))

    def kernel(self) -> Windowed:
        """Return its arithmetic, for one partition."""
        return Windowed(self.windows, self.aggregates, self.event_time, self.emission)
