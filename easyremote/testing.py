"""Try a pipeline without a broker: feed records, let time pass, read what it tells, restart it from a snapshot."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, cast

import msgspec

from easyremote.errors import WindowError
from easyremote.pipelines.decoding import Decoder
from easyremote.pipelines.task import PipelineTask
from easyremote.topics.events import Batch
from easyremote.windows.durations import Duration, duration_ms

if TYPE_CHECKING:
    from confluent_kafka import Message

    from easyremote.pipelines import Pipeline
    from easyremote.topics.deliveries import Output

__all__ = ["Failure", "PipelineDriver", "Snapshot"]

Record = dict[str, Any]
"""A record's JSON object. Any: whatever JSON holds."""


@dataclass(frozen=True)
class Snapshot:
    """What a worker that takes the partition over finds: state, next offsets; and the time by the wall clock, ms."""

    state: Mapping[bytes, bytes]
    offsets: Mapping[str, int]
    now_ms: int


@dataclass(frozen=True)
class Failure:
    """A dead letter, and why it is one."""

    value: bytes
    """The record as it came; of a window without a result what is known of it."""
    error: str
    """The class of what was raised."""
    reason: str
    stage: str | None
    """Where: `read`, `map 1` (which of the pipeline's functions), `aggregate NAME`, `detect`."""
    stack: str | None


@dataclass(frozen=True)
class _Fed:
    """A record as the client would give it: the part of it that pipelines look at."""

    content: bytes
    number: int
    its_key: bytes | None

    def value(self) -> bytes:
        return self.content

    def offset(self) -> int:
        return self.number

    def key(self) -> bytes | None:
        return self.its_key

    def headers(self) -> list[tuple[str, bytes]]:
        return []


class PipelineDriver:
    """Runs one partition of a pipeline in this process, with the classes that a worker runs it with.

    Parameters
    ----------
    pipeline : Pipeline
        What `.to(...)` returned; say `register=False` there in a test.
    now_ms : int, optional
        The wall clock, ms since the Unix epoch; it moves by `advance` alone. Unset: it begins at 0 and follows the
        greatest event time that is fed, as if records came while they happen.
    snapshot : Snapshot, optional
        Go on from here, as a worker does that takes over from one that was killed.

    Examples
    --------
    >>> from easyremote import stream
    >>> from easyremote.windows import Mean, Tumbling
    >>> driver = PipelineDriver(
    ...     stream("readings")
    ...     .key_by("device_id")
    ...     .window(Tumbling("10s"))
    ...     .aggregate(mean=Mean("value"))
    ...     .to("means", register=False)
    ... )
    >>> for at_ms, value in ((1_000, 1.0), (2_000, 3.0)):
    ...     driver.feed({"device_id": "d", "metric": "m", "value": value, "timestamp_ms": at_ms})
    >>> driver.results()
    []
    >>> driver.advance("30s")  # silence closes what is open
    >>> [(one["window_start"], one["mean"]) for one in driver.results()]
    [(0, 2.0)]
    """

    def __init__(self, pipeline: Pipeline, *, now_ms: int | None = None, snapshot: Snapshot | None = None) -> None:
        self._pipeline = pipeline
        self._follows = now_ms is None
        self._now_ms = now_ms or 0
        self._dead_letters = tuple(source.dead_letters for source in pipeline.sources)
        self._decoders = {one.topic: Decoder(pipeline, side) for side, one in enumerate(pipeline.sources)}
        self._task = PipelineTask(pipeline, "", "test", 0)
        self._state: dict[bytes, bytes] = {}
        self._offsets = dict.fromkeys(self._decoders, 0)
        self._told: dict[str, list[bytes]] = {}
        self._failures: list[Failure] = []
        if snapshot is not None:
            self._now_ms = now_ms or snapshot.now_ms
            self._state = dict(snapshot.state)
            self._offsets = dict(snapshot.offsets)
            for key, content in self._state.items():
                self._task.restore(key, content)

    @property
    def now_ms(self) -> int:
        """The wall clock, ms since the Unix epoch."""
        return self._now_ms

    def feed(self, *records: Record | bytes, topic: str | None = None, key: bytes | None = None) -> None:
        """Feed records, which come in one batch.

        Parameters
        ----------
        *records : dict or bytes
            Records in the order of the log; bytes are fed as they are, such as what is no JSON.
        topic : str, optional
            Which of the sources; unset: the first.
        key : bytes, optional
            The key of the records on their topic.

        Raises
        ------
        WindowError
            If the pipeline does not read the topic.
        """
        name = topic or self._pipeline.sources[0].topic
        if name not in self._decoders:
            raise WindowError(f"{self._pipeline.name} does not read {name!r}: feed {' or '.join(self._decoders)}")
        if not records:
            return
        self._follow(name, records)
        first = self._offsets[name]
        values = [one if isinstance(one, bytes) else msgspec.json.encode(one) for one in records]
        fed = [_Fed(value, first + place, key) for place, value in enumerate(values)]
        # A message of the client cannot be made; these have what a pipeline asks of one.
        content = self._decoders[name].decode(0, cast("list[Message]", fed))
        self._offsets[name] = first + len(fed)
        self._take(self._task.step(Batch(name, 0, first, first + len(fed), content), self._now_ms))

    def advance(self, duration: Duration) -> None:
        """Let time pass by the wall clock: what is silent for long enough is closed."""
        # A worker looks at the clock all the time, so it knows when the silence began.
        self._take(self._task.tick(self._now_ms))
        self._now_ms += duration_ms(duration)
        self._take(self._task.tick(self._now_ms))

    def results(self) -> list[Record]:
        """Return what came to the sink since this was last asked."""
        return self.read(self._pipeline.sink)

    def late(self) -> list[Record]:
        """Return what came too late, with its `lateness`, since this was last asked."""
        return [one for source in self._pipeline.sources for one in self.read(source.late)]

    def dead_letters(self) -> list[bytes]:
        """Return what could not be read, byte for byte, since this was last asked."""
        return [one for topic in self._dead_letters for one in self._told.pop(topic, [])]

    def failures(self) -> list[Failure]:
        """Return the dead letters with their reasons since this was last asked."""
        failures, self._failures = self._failures, []
        return failures

    def read(self, topic: str) -> list[Record]:
        """Return the records that came to a topic since this was last asked."""
        return [msgspec.json.decode(one) for one in self._told.pop(topic, [])]

    def snapshot(self) -> Snapshot:
        """Return what a transaction would leave behind now."""
        return Snapshot(dict(self._state), dict(self._offsets), self._now_ms)

    def _follow(self, topic: str, records: Sequence[Record | bytes]) -> None:
        if not self._follows:
            return
        source = next(one for one in self._pipeline.sources if one.topic == topic)
        times = [one.get(source.timestamp) for one in records if isinstance(one, dict)]
        self._now_ms = max([self._now_ms, *(one for one in times if isinstance(one, int) and one < 2**48)])

    def _take(self, outputs: Sequence[Output]) -> None:
        for output in outputs:
            self._told.setdefault(output.topic, []).append(output.value or b"null")
            if output.topic in self._dead_letters:
                self._failures.append(_failure(output))
        # By way of the changelog's bytes, so that a test which restarts finds what a worker would.
        for key, content in self._task.changes():
            if content is None:
                self._state.pop(key, None)
            else:
                self._state[key] = content


def _failure(output: Output) -> Failure:
    said = {name: content.decode(errors="replace") for name, content in output.headers or ()}
    return Failure(
        output.value or b"",
        said.get("easyremote_error", ""),
        said.get("easyremote_reason", ""),
        said.get("easyremote_stage"),
        said.get("easyremote_stack"),
    )
