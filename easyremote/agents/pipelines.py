"""Runs a user's pipelines like the readings' stream: exactly once, on topics that are made where they are missing."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING

import structlog

from easyremote.agents.partition_tasks import Names, PartitionTasks
from easyremote.clock import monotonic_s
from easyremote.errors import BrokerUnavailable, TopicError
from easyremote.pipelines.decoding import Decoded
from easyremote.pipelines.task import PipelineTask
from easyremote.topics.catalog import DEAD_LETTERS_KEPT_MS, LARGEST_RECORD_BYTES, TopicDeclaration

if TYPE_CHECKING:
    from easyremote.pipelines import Pipeline
    from easyremote.settings import Settings
    from easyremote.topics.admin import TopicAdmin

__all__ = ["ensure_topics", "missing_sources", "pipeline_agent", "run_pipeline", "wait_for_sources"]

log = structlog.get_logger(__name__)

_LOOK_EACH_S = 1.0
_TELL_EACH_S = 600.0
_PARTITIONS = 4
"""Of a source that is not there yet, as `readings` has."""


def pipeline_agent(pipeline: Pipeline) -> str:
    """Return the name of a pipeline's agent and, behind the prefix, of its group."""
    return f"pipeline.{pipeline.name}"


def ensure_topics(admin: TopicAdmin, namespace: str, pipeline: Pipeline) -> None:
    """Make a pipeline's topics where they are missing; those that are there stay as they are.

    Raises
    ------
    TopicError
        If its changelog has another number of partitions than its source, or its two sources differ in theirs.
    """
    known = admin.partitions()
    partitions = _partitions(known, namespace, pipeline)
    kept = known.get(namespace + pipeline.changelog, partitions)
    if kept != partitions:
        raise TopicError(
            f"{pipeline.changelog} has {kept} partitions and {pipeline.sources[0].topic} {partitions}: its "
            "state cannot be found there. Give the pipeline another name, and it begins anew"
        )
    reader = f"pipeline {pipeline.name}"
    common = {one.topic: "anyone" for one in pipeline.sources} | {pipeline.sink: reader}
    common |= {one.late: reader for one in pipeline.sources}
    declared = [
        TopicDeclaration(
            name=name,
            partitions=partitions,
            timestamp_type="LogAppendTime",
            key=", ".join(pipeline.key),
            value="JSON",
            written_by=writer,
            read_by=reader if writer == "anyone" else "anyone",
        )
        for name, writer in common.items()
    ]
    declared += [
        TopicDeclaration(
            name=one.dead_letters,
            partitions=partitions,
            retention_ms=DEAD_LETTERS_KEPT_MS,
            timestamp_type="LogAppendTime",
            key="as it came",
            value="as it came, byte for byte; of a window without a result what is known of it",
            # Twice what other topics take: whatever came in has room with its reason.
            max_message_bytes=LARGEST_RECORD_BYTES,
            written_by=reader,
            read_by="whoever is on call",
        )
        for one in pipeline.sources
    ]
    declared.append(
        TopicDeclaration(
            name=pipeline.changelog,
            partitions=partitions,
            cleanup="compact",
            retention_ms=-1,
            timestamp_type="LogAppendTime",
            key="key of the stream",
            value="its state, binary; and the next offset to read",
            written_by=reader,
            read_by=f"{reader}, when a worker takes a partition over",
        )
    )
    admin.ensure(one for one in declared if namespace + one.name not in known)


async def wait_for_sources(admin: TopicAdmin, namespace: str, pipeline: Pipeline) -> None:
    """Wait until all topics that a pipeline reads are there, and say so once, then rarely.

    They are not made here: a name that is written wrong would make a topic to which nothing ever comes.
    """
    told_s = -_TELL_EACH_S
    while True:
        try:
            missing = await asyncio.to_thread(missing_sources, admin, namespace, pipeline)
        except BrokerUnavailable as error:
            log.warning("the topics of a pipeline are not known yet", pipeline=pipeline.name, error=str(error))
            missing = None
        if missing == []:
            return
        if missing and monotonic_s() - told_s >= _TELL_EACH_S:
            told_s = monotonic_s()
            log.warning(
                "a pipeline waits for a topic that does not exist",
                pipeline=pipeline.name,
                topics=missing,
                cure="create it, or set EASYREMOTE_CREATE_SOURCES=true",
            )
        await asyncio.sleep(_LOOK_EACH_S)


def missing_sources(admin: TopicAdmin, namespace: str, pipeline: Pipeline) -> list[str]:
    """Return the full names of the topics that a pipeline reads and that are not there."""
    known = admin.partitions()
    return [name for one in pipeline.sources if (name := namespace + one.topic) not in known]


def _partitions(known: Mapping[str, int], namespace: str, pipeline: Pipeline) -> int:
    found = {one.topic: known[namespace + one.topic] for one in pipeline.sources if namespace + one.topic in known}
    if len(set(found.values())) > 1:
        told = " and ".join(f"{topic} {number}" for topic, number in found.items())
        raise TopicError(
            f"pipeline {pipeline.name} joins topics of different numbers of partitions, {told}: records of one key are "
            "not together. Send one of them to a new topic of as many partitions, stream(...).key_by(...).to(...)"
        )
    return next(iter(found.values()), _PARTITIONS)


def run_pipeline(
    settings: Settings, pipeline: Pipeline, group: str, failed: Callable[[Exception], None]
) -> PartitionTasks[Decoded]:
    """Return what runs a pipeline's partitions; `group` is the full name of its source's."""
    prefix = settings.namespace
    names = Names(
        group,
        tuple(prefix + one.topic for one in pipeline.sources),
        prefix + pipeline.changelog,
        f"{prefix}easyremote.{pipeline_agent(pipeline)}.{settings.node_id}",
    )
    return PartitionTasks(
        settings, names, lambda partition: PipelineTask(pipeline, prefix, settings.node_id, partition), failed
    )
