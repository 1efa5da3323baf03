"""A pipeline as it was asked for: where it reads, how it groups, what it does and where it tells it."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from easyremote.pipelines.stages import Stage

__all__ = ["Pipeline", "Record", "Source", "Step"]

Record = dict[str, Any]
"""A record's JSON object. Any: whatever JSON holds."""
Step = Callable[[Sequence[Record]], Sequence[Record | None]]
"""What is done with the records of a batch before they are grouped; None in its place drops one."""


@dataclass(frozen=True)
class Source:
    """A topic that a pipeline reads.

    Parameters
    ----------
    topic : str
        Without the namespace.
    timestamp : str
        The field that holds the event time, ms since the Unix epoch, UTC.
    types : mapping of str to type
        Fields that are checked as they come in; where one is of another type the record is a dead letter.
    steps : tuple of callable
        What is done with records then, in order.
    key : tuple of str
        Fields that records are grouped by.
    needed : mapping of str to type
        Fields that the stage needs, as the functions leave them.
    """

    topic: str
    timestamp: str
    types: Mapping[str, type]
    steps: tuple[Step, ...]
    key: tuple[str, ...] = ()
    needed: Mapping[str, type] = field(default_factory=dict)

    @property
    def late(self) -> str:
        """The topic of what comes too late."""
        return f"{self.topic}.late"

    @property
    def dead_letters(self) -> str:
        """The topic of what cannot be read."""
        return f"{self.topic}.dlq"


@dataclass(frozen=True, kw_only=True)
class Pipeline:
    """From one topic, or two that are joined, by a key, through a stage, to another topic.

    Parameters
    ----------
    name : str
        Of its group and its changelog: another name is another state, which begins anew.
    sources : tuple of Source
        What it reads; the group shares out the partitions of the first.
    sink : str
        Topic of its results, without the namespace.
    stage : Stage
        What is done with them.
    """

    name: str
    sources: tuple[Source, ...]
    sink: str
    stage: Stage

    @property
    def key(self) -> tuple[str, ...]:
        """The fields that records are grouped by, as the first source calls them."""
        return self.sources[0].key

    @property
    def changelog(self) -> str:
        """The topic of its state."""
        return f"pipelines.{self.name}.changelog"
