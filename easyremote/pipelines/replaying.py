"""Runs what a topic holds through a pipeline as it is today, and compares what comes out with what was told."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import msgspec

from easyremote.pipelines.decoding import Decoder
from easyremote.pipelines.pipeline import Pipeline
from easyremote.pipelines.task import PipelineTask
from easyremote.topics.deliveries import Output
from easyremote.topics.events import Batch

if TYPE_CHECKING:
    from confluent_kafka import Message

__all__ = ["Comparison", "Replay", "compared"]

_FAR_MS = 2**52
"""A time by which everything is silent."""
Told = tuple[bytes | None, bytes]
"""Key and value of a result."""


class Replay:
    """One partition of a pipeline, run again from its first record.

    Parameters
    ----------
    pipeline : Pipeline
        As it is today.
    namespace : str
        Before all topics' names.
    partition : int
        Its number.
    """

    def __init__(self, pipeline: Pipeline, namespace: str, partition: int) -> None:
        self._task = PipelineTask(pipeline, namespace, "replay", partition)
        self._partition = partition
        self._sink = namespace + pipeline.sink
        self._decoders = {
            namespace + source.topic: Decoder(pipeline, side) for side, source in enumerate(pipeline.sources)
        }

    def step(self, topic: str, messages: Sequence[Message]) -> list[Output]:
        """Take records of a source in; return the results that they lead to."""
        first, last = messages[0].offset() or 0, messages[-1].offset() or 0
        content = self._decoders[topic].decode(self._partition, messages)
        # By the broker's clock, as a worker that was there had it: what came from the future then does so now.
        now_ms = max(message.timestamp()[1] for message in messages)
        return self._results(self._task.step(Batch(topic, self._partition, first, last + 1, content), now_ms))

    def end(self) -> list[Output]:
        """Return what is told when nothing more comes: windows that silence has closed, or that are still open."""
        self._task.tick(0)
        return self._results(self._task.tick(_FAR_MS))

    def _results(self, outputs: Iterable[Output]) -> list[Output]:
        return [one for one in outputs if one.topic == self._sink]


@dataclass
class Comparison:
    """What was told and what a replay tells, byte by byte."""

    same: int = 0
    only_told: list[Told] = field(default_factory=list)
    only_replayed: list[Told] = field(default_factory=list)
    open: int = 0
    """Results that only the end of the replay brought: windows that are open yet."""

    @property
    def is_same(self) -> bool:
        """Whether there is no difference."""
        return not (self.only_told or self.only_replayed)


def compared(
    told: Iterable[Told], replayed: Iterable[Told], at_the_end: Iterable[Told], bounds_ms: tuple[int, int]
) -> Comparison:
    """Compare results whose time is within `[from, to)`.

    Parameters
    ----------
    told, replayed, at_the_end : iterable of (bytes, bytes)
        What stands in the sink, what the replay told of it again, what its end brought.
    bounds_ms : tuple of int
        Of `window_start`, or of `timestamp_ms` where there is no window; a result without either always counts.
    """
    recorded = Counter(one for one in told if _is_within(one, bounds_ms))
    again = Counter(one for one in replayed if _is_within(one, bounds_ms))
    last = Counter(one for one in at_the_end if _is_within(one, bounds_ms))
    comparison = Comparison(same=(recorded & (again + last)).total(), open=(last - (recorded - again)).total())
    comparison.only_told = sorted((recorded - again - last).elements(), key=repr)
    comparison.only_replayed = sorted((again - recorded).elements(), key=repr)
    return comparison


def _is_within(told: Told, bounds_ms: tuple[int, int]) -> bool:
    record: dict[str, Any] = msgspec.json.decode(told[1])
    at = record.get("window_start", record.get("timestamp_ms"))
    return not isinstance(at, int) or bounds_ms[0] <= at < bounds_ms[1]
