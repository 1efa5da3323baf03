"""A pipeline's recorded input through today's code: into a side topic, and compared with what was told."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from itertools import zip_longest
from typing import TYPE_CHECKING

from easyremote.errors import TopicError
from easyremote.pipelines.replaying import Comparison, Replay, Told, compared
from easyremote.topics.admin import TopicAdmin
from easyremote.topics.catalog import TopicDeclaration
from easyremote.topics.history import read_history
from easyremote.topics.producer import RecordProducer

if TYPE_CHECKING:
    from collections.abc import Iterable

    from easyremote.pipelines import Pipeline
    from easyremote.settings import Settings
    from easyremote.topics.deliveries import Output

__all__ = ["replay"]


def replay(
    settings: Settings,
    pipeline: Pipeline,
    into: str,
    bounds_ms: tuple[int, int],
    advance: Callable[[int], None] = lambda _records: None,
) -> Comparison:
    """Run all that a pipeline's sources hold through it, and compare.

    Parameters
    ----------
    settings : Settings
        Where the broker is.
    pipeline : Pipeline
        As it is today.
    into : str
        Topic for its results, without the namespace; made with as many partitions as the sink.
    bounds_ms : tuple of int
        Which results are compared and written: `[from, to)` of their time.
    advance : callable, optional
        Told how many records have been read since the last time.

    Raises
    ------
    TopicError
        If a source or the sink is not there, or the side topic is: a replay into what is there would be mixed with it.
    """
    prefix = settings.namespace
    admin = TopicAdmin(settings)
    known = admin.partitions()
    for name in (*(source.topic for source in pipeline.sources), pipeline.sink):
        if prefix + name not in known:
            raise TopicError(f"{prefix + name} does not exist: what has never been recorded cannot be replayed")
    if prefix + into in known:
        raise TopicError(f"{prefix + into} exists: name another topic with --into, or delete it")
    admin.ensure([_side_topic(pipeline, into, known[prefix + pipeline.sink])])
    told = [
        (message.key(), message.value() or b"")
        for partition in range(known[prefix + pipeline.sink])
        for messages in read_history(settings, prefix + pipeline.sink, partition)
        for message in messages
    ]
    results: list[Output] = []
    last: list[Output] = []
    for partition in range(known[prefix + pipeline.sources[0].topic]):
        one = Replay(pipeline, prefix, partition)
        for outputs in _steps(settings, pipeline, one, partition, advance):
            results += outputs
        last += one.end()
    _write(settings, prefix + into, (*results, *last))
    return compared(_pairs(told), _keyed(results), _keyed(last), bounds_ms)


def _steps(
    settings: Settings, pipeline: Pipeline, one: Replay, partition: int, advance: Callable[[int], None]
) -> Iterator[list[Output]]:
    topics = [settings.namespace + source.topic for source in pipeline.sources]
    # Batch by batch in turns, so that a join holds no more than it must.
    for turn in zip_longest(*(read_history(settings, topic, partition) for topic in topics)):
        for topic, messages in zip(topics, turn, strict=True):
            if messages:
                yield one.step(topic, messages)
                advance(len(messages))


def _write(settings: Settings, topic: str, results: Iterable[Output]) -> None:
    producer = RecordProducer(settings)
    try:
        for one in results:
            producer.send(topic, one.value, key=one.key)
    finally:
        left = producer.close()
    if left:
        raise TopicError(f"{left} results were not acknowledged: the replay's topic {topic} is not whole")


def _side_topic(pipeline: Pipeline, into: str, partitions: int) -> TopicDeclaration:
    return TopicDeclaration(
        name=into,
        partitions=partitions,
        timestamp_type="LogAppendTime",
        key=", ".join(pipeline.key),
        value="JSON",
        written_by=f"a replay of {pipeline.name}",
        read_by="anyone",
    )


def _keyed(outputs: Iterable[Output]) -> list[Told]:
    return [(one.key, one.value or b"") for one in outputs]


def _pairs(told: Iterable[tuple[str | bytes | None, str | bytes]]) -> list[Told]:
    return [
        (key.encode() if isinstance(key, str) else key, value.encode() if isinstance(value, str) else value)
        for key, value in told
    ]
